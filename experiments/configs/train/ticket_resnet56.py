"""Ticket search of the published code: ResNet-56 on CIFAR-10, whole filters; for an accelerator. Not measured here.

python -m experiments train ticket_resnet56
python -m experiments ticket runs/ticket_resnet56 --at-epoch 35 --epochs 160 --layers conv
"""

from ...config import Config
from ._ticket_search import RECIPE

config = Config(**RECIPE, model="resnet56", sparsity=0.7, groups="layers")
