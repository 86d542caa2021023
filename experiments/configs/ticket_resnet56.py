"""Ticket search of the published code: ResNet-56 on CIFAR-10, whole filters; for an accelerator. Not measured here.

python -m experiments train ticket_resnet56
python -m experiments ticket runs/ticket_resnet56 --at-epoch 35 --epochs 160 --layers conv
"""

from ..config import Config

config = Config(
    dataset="cifar10",
    model="resnet56",
    epochs=200,
    batch_size=64,
    validation=5000,
    augment=True,
    learning_rate=0.1,
    drop_epochs=(),
    nesterov=True,
    weight_decay=0.0001,
    share=None,
    nu=100.0,
    filter_strength=0.1,
    filter_scale="rms",
    weight_strength=0.1,
    keep_epochs=(35,),
)
