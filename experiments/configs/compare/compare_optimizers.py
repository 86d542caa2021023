"""LeNet-300-100 on MNIST by thirteen optimizers: SGD, adaptive methods and Split LBI, dense W and its sparse W̃.

python -m experiments compare compare_optimizers

Fixed before any test accuracy was read: 12 epochs, five trials of each on 5,000 held-out images, seeds 0 to 4.
130 runs: 72 s of one H200 that others used too. Expect 98.52 % for Split LBI with momentum, the best of all.
"""

from ...comparison.config import Comparison

config = Comparison(
    dataset="mnist",
    model="lenet300",
    methods=(
        "sgd",
        "sgd_l1",
        "sgd_momentum",
        "sgd_momentum_decay",
        "nesterov",
        "adam",
        "adabound",
        "adagrad",
        "amsgrad",
        "radam",
        "split_lbi_plain",
        "split_lbi_momentum",
        "split_lbi_momentum_decay",
    ),
    sparsity=(),
    tune_at=(),
    epochs=12,
    validation=5000,
    mask_interval=0.0194,
    trials=5,
)
