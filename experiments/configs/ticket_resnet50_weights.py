"""Ticket search of the published code: ResNet-50 on CIFAR-10, single weights; for an accelerator. Not measured here.

python -m experiments train ticket_resnet50_weights
python -m experiments ticket runs/ticket_resnet50_weights --at-epoch 35 --epochs 160
"""

from ..config import Config

config = Config(
    dataset="cifar10",
    model="resnet50_cifar",
    epochs=200,
    batch_size=64,
    validation=5000,
    augment=True,
    learning_rate=0.1,
    drop_epochs=(),
    nesterov=True,
    weight_decay=0.0001,
    share=None,
    nu=500.0,
    groups="weights",
    weight_strength=0.05,
    keep_epochs=(35,),
)
