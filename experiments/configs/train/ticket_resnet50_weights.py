"""Ticket search of the published code: ResNet-50 on CIFAR-10, single weights; for an accelerator. Not measured here.

python -m experiments train ticket_resnet50_weights
python -m experiments ticket runs/ticket_resnet50_weights --at-epoch 35 --epochs 160
"""

from ...config import Config
from ._ticket_search import RECIPE

config = Config(**RECIPE, model="resnet50_cifar", sparsity=0.9, groups="weights")
