"""ResNet-20 on CIFAR-10, a path over the whole training; for an accelerator. Accuracy not measured here.

python -m experiments train resnet20_cifar10
python -m experiments train resnet20_cifar10 --images 5000 --epochs 2

The coupling shrinks filters whose size a normalisation hides from the loss, so that they enter far later than
`path_speed` says: with share 0.4 the first filter of a block did in epoch 66 of 164. Hence 0.05. Plain SGD in
the same loop: --nu 1e30 --share None, where the coupling is below rounding and nothing enters.
"""

from ...config import Config

config = Config(
    dataset="cifar10",
    model="resnet20",
    epochs=164,
    batch_size=128,
    validation=5000,
    augment=True,
    learning_rate=0.1,
    drops=(0.5, 0.75),
    weight_decay=0.0001,
    nu=100.0,
    share=0.05,
)
