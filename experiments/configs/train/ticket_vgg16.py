"""Ticket search of the published code: VGG-16 on CIFAR-10, whole filters; for an accelerator. Not measured here.

python -m experiments train ticket_vgg16
python -m experiments ticket runs/ticket_vgg16 --at-epoch 35 --epochs 160
"""

from ...config import Config
from ._ticket_search import RECIPE

config = Config(**RECIPE, model="vgg16", sparsity=0.7, groups="layers")
