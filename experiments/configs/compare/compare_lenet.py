"""LeNet-5 on MNIST: filters of its three convolutions, from half of them to a tenth.

python -m experiments compare compare_lenet

Filters are ordered over the three convolutions by the root mean square of their weights; `compare_lenet_weights` cuts
single weights of all layers. Fixed before any test accuracy was read: 10 epochs, five trials judged at 80 % on 5,000
held-out images, seeds 0 to 4, 2 epochs of fine-tuning after a cut.
85 runs: 4 minutes of one H200 that others used too. Expect 98.8 to 98.9 % with a fifth of the filters for all but
`linbreg`; with a tenth one order over all layers empties a layer.
"""

from ...comparison.config import Comparison

config = Comparison(
    dataset="mnist",
    model="lenet",
    methods=("split_lbi", "magnitude", "gradual", "hard", "linbreg"),
    level="group",
    sparsity=(0.5, 0.8, 0.9),
    tune_at=(0.8,),
    epochs=10,
    validation=5000,
    mask_interval=0.0233,
    trials=5,
    fine_tune=2,
)
