"""ResNet-18 on ImageNet by the published recipe, whole filters; for an accelerator. Not measured here.

python -m experiments train resnet18_imagenet
"""

from ...config import Config

config = Config(
    dataset="imagenet2012",
    model="resnet18",
    epochs=100,
    batch_size=256,
    validation=10000,
    learning_rate=0.1,
    drops=(0.3, 0.6, 0.9),
    weight_decay=0.0001,
    groups="layers",
    nu=1000.0,
    sparsity=None,
    filter_strength=1.0,
    weight_strength=1.0,
    dtype="bfloat16",
    checkpoint_every=1,
)
