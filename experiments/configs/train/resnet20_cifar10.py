"""ResNet-20 on CIFAR-10, half of the units of each layer at the end; for an accelerator. Accuracy not measured here.

python -m experiments train resnet20_cifar10
python -m experiments train resnet20_cifar10 --images 5000 --epochs 2

The path opens by itself over the first half of the epochs, in whole units, and W is finished inside the support. With
strengths set by `path_speed` the first filter of a block entered in epoch 66 of 164 (share 0.4). Plain SGD in the same
loop: --sparsity None --nu 1e30 --filter-strength 1, where the coupling is below rounding and nothing enters.
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
    sparsity=0.5,
    open_by=0.5,
)
