"""κ and ν of Split LBI: LeNet-300-100 on MNIST, κ from 1 to 10 by ν from 10 to 2000, one setting for the rest.

python -m experiments compare ablation

The step of W, κα = 0.1, and the strength are the same for all: λ is twice the median |W₀|, so that half of the weights
would enter at t = 2ν if they stayed; t ends at 335/κ. Nothing is tuned. Fixed beforehand: 12 epochs, seeds 0 to 2.
96 runs: 56 s of one H200 that others used too. Expect W at 97.9 to 98.5 %, and W̃ empty where κν ≥ 2,000.
"""

from ...comparison.config import Comparison

config = Comparison(
    dataset="mnist",
    model="lenet300",
    methods=("split_lbi",),
    sparsity=(0.9, 0.98),
    tune_at=(),
    epochs=12,
    validation=5000,
    mask_interval=0.0194,
    seeds=3,
    grid=(("kappa", (1.0, 2.0, 5.0, 10.0)), ("nu", (10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0))),
    fixed=(("learning_rate", 0.1), ("strength", 2.0), ("finish", 0.0)),
)
