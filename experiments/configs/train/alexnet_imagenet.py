"""AlexNet on ImageNet by the recipe of 2019: filters, and single weights of dense layers. Not measured here.

python -m experiments train alexnet_imagenet
"""

from ...config import Config

config = Config(
    dataset="imagenet2012",
    model="alexnet",
    epochs=150,
    batch_size=256,
    validation=10000,
    learning_rate=0.01,
    drops=(0.2, 0.4, 0.6, 0.8),
    kappa=10.0,
    nu=500.0,
    sparsity=None,
    filter_strength=1.0,
    weight_strength=1.0,
    dtype="bfloat16",
    checkpoint_every=1,
)
