"""LeNet-300-100 on MNIST: Split LBI and five other methods from 80 to 99 % zeros.

python -m experiments compare compare_lenet300

Fixed before any test accuracy was read: 12 epochs, five trials judged at 98 % zeros on 5,000 held-out images, seeds 0
to 4; after a cut 3 epochs of fine-tuning from one sparsity to the next, so that a row of five sparsities costs 2.25
runs of training, where the methods that train for one sparsity take five. The ranges of the search and the fine-tuning
itself come from trials with seed 1000 that printed validation accuracy only.
150 runs: 3 minutes of one H200 that others used too. Expect 97.98 ± 0.06 % at 98 % zeros for Split LBI with
fine-tuning, 98.10 ± 0.06 % for `linbreg`.
"""

from ...comparison.config import Comparison

config = Comparison(
    dataset="mnist",
    model="lenet300",
    methods=("split_lbi", "magnitude", "gradual", "hard", "rigl", "linbreg"),
    epochs=12,
    validation=5000,
    mask_interval=0.0194,
    trials=5,
    tune_at=(0.98,),
    fine_tune=3,
)
