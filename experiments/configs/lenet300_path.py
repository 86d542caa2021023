"""LeNet-300-100 on MNIST, lasso on all kernels, 80 epochs: W̃ at every density from one run.

python -m experiments train lenet300_path
"""

from ..config import Config

config = Config(
    dataset="mnist",
    model="lenet300",
    epochs=80,
    batch_size=128,
    validation=2000,
    learning_rate=0.1,
    drop_epochs=(50, 70),
    nu=30.0,
    dual_finish=80.0,
    clip_norm=1.0,
    share=0.8,
    checkpoint_every=20,
)
