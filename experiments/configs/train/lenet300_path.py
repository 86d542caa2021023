"""LeNet-300-100 on MNIST, lasso on all kernels, 80 epochs: W̃ at every density from one run.

python -m experiments train lenet300_path
python -m experiments prune RUN --scope global --sparsity 0.8 0.9 0.95 0.98 0.99

Two to three minutes a seed on one CPU core. Expect, over five seeds, 98.37 ± 0.08 %, 98.36 ± 0.06 % with 5 % of the
weights and 98.15 ± 0.09 % with 2 % (cut by magnitude or by V).
"""

from ...config import Config

config = Config(
    dataset="mnist",
    model="lenet300",
    epochs=80,
    batch_size=128,
    validation=2000,
    learning_rate=0.1,
    drops=(0.625, 0.875),
    nu=30.0,
    dual_finish=80.0,
    clip_norm=1.0,
    sparsity=None,
    share=0.8,
    checkpoint_every=20,
)
