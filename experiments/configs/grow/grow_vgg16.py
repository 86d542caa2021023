"""VGG-16 on CIFAR-10, grown from 16 filters in each convolution by the published recipe, beside fixed networks.

python -m experiments grow grow_vgg16
python -m experiments grow grow_vgg16 --images 5000 --rounds 3 --fine-tune 2 --compare never

The first is for an accelerator; not measured. The second shows on a CPU that it works: a subset, for a few rounds.
"""

from ...growth.config import Grow

config = Grow(
    dataset="cifar10",
    model="vgg16",
    widths=(16,),
    epochs=10,
    batch_size=128,
    validation=5000,
    augment=True,
    learning_rate=0.05,
    nesterov=True,
    weight_decay=1e-4,
    clip_norm=1.0,
    round_to=4,
    rounds=10,
    fine_tune=40,
    fine_tune_rate=0.1,
    compare="macs",
)
