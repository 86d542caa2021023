"""LeNet-300-100 on MNIST: Split LBI and five neighbours from 80 to 99 % zeros.

python -m experiments compare compare_lenet300

Fixed before any test accuracy was read: 20 epochs, five trials judged at 98 % zeros on 5,000 held-out images, seeds 0
to 4, 8 epochs of fine-tuning after a cut (three runs' worth of training for a row of five sparsities, where the methods
that train for one sparsity take five).
"""

from ..comparison import Comparison

config = Comparison(
    dataset="mnist",
    model="lenet300",
    methods=("split_lbi", "magnitude", "gradual", "hard", "rigl", "linbreg"),
    epochs=20,
    validation=5000,
    every=100,
    trials=5,
    tune_at=(0.98,),
    fine_tune=8,
)
