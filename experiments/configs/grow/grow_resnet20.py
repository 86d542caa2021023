"""ResNet-20 on CIFAR-10, grown from 16 filters in each convolution as VGG-16 is, beside fixed networks.

python -m experiments grow grow_resnet20
python -m experiments grow grow_resnet20 --images 5000 --epochs 4 --rounds 3 --ratio 0.25 --fine-tune 1 --compare never

The first is for an accelerator; not measured. The second shows on a CPU that it works: a subset, for a few rounds.
"""

import dataclasses

from . import grow_vgg16

config = dataclasses.replace(grow_vgg16.config, model="resnet20")
