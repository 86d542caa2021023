"""LeNet on MNIST along a path that opens by itself, 24 epochs: one training that ends with 13 % of the weights.

python -m experiments train lenet_paced
"""

from ...config import Config

config = Config(
    dataset="mnist",
    model="lenet",
    epochs=24,
    batch_size=128,
    validation=5000,
    learning_rate=0.1,
    drops=(0.75,),
    clip_norm=1.0,
    sparsity=0.87,
    open_by=0.5,
    scope="global",
    checkpoint_every=6,
)
