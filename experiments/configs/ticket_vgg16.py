"""Ticket search of the published code: VGG-16 on CIFAR-10, whole filters; for an accelerator. Not measured here.

python -m experiments train ticket_vgg16
python -m experiments ticket runs/ticket_vgg16 --at-epoch 35 --epochs 160
"""

from ..config import Config

config = Config(
    dataset="cifar10",
    model="vgg16",
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
    filter_strength=0.05,
    filter_scale="rms",
    weight_strength=0.05,
    keep_epochs=(35,),
)
