"""ResNet-8 on CIFAR-10 at 16×16, grown from 4 filters in each layer, beside fixed networks: 56 % (docs/results.md).

python -m experiments grow grow_resnet8
"""

from ...growth.config import Grow

config = Grow(
    dataset="cifar10",
    model="resnet8",
    image_size=16,
    images=10000,
    widths=(4,),
    epochs=3,
    batch_size=64,
    validation=5000,
    augment=True,
    learning_rate=0.1,
    weight_decay=1e-4,
    clip_norm=1.0,
    rounds=5,
    fine_tune=6,
    compare="macs",
)
