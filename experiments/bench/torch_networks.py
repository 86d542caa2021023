"""LeNet, LeNet-300-100, ResNet-20 and VGG-16 in PyTorch, as in experiments/models, with the same names of layers.

In PyTorch's own layout and with its own defaults, as its users write them.
"""

import itertools
from collections.abc import Callable

import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]
from torch.nn import functional as F  # noqa: N812  # pyright: ignore[reportMissingImports]


class LeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.conv3 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5), nn.Conv2d(16, 120, 5)
        self.dense1, self.dense2 = nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = torch.flatten(F.relu(self.conv3(x)), 1)
        return self.dense2(F.relu(self.dense1(x)))


class LeNet300(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense1, self.dense2, self.dense3 = nn.Linear(784, 300), nn.Linear(300, 100), nn.Linear(100, 10)

    def forward(self, x):
        return self.dense3(F.relu(self.dense2(F.relu(self.dense1(torch.flatten(x, 1))))))


class ConvNorm(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1, bias: bool = False):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=bias)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x):
        return self.norm(self.conv(x))


class Block(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.conv1, self.conv2 = ConvNorm(inputs, width, stride), ConvNorm(width, width)
        self.stride, self.padding = stride, (width - inputs) // 2

    def forward(self, x):
        y = self.conv2(F.relu(self.conv1(x)))
        if self.padding:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))
        return F.relu(x + y)


class ResNet20(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = ConvNorm(3, 16)
        widths = (16, 16, 16, 16, 32, 32, 32, 64, 64, 64)
        pairs = itertools.pairwise(widths)
        self.blocks = nn.Sequential(*(Block(inputs, width, width // inputs) for inputs, width in pairs))
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        return self.head(self.blocks(F.relu(self.stem(x))).mean((2, 3)))


class VGG16(nn.Module):
    def __init__(self):
        super().__init__()
        self.stages, inputs = nn.ModuleList(), 3
        for count, width in zip((2, 2, 3, 3, 3), (64, 128, 256, 512, 512), strict=True):
            self.stages.append(nn.ModuleList(ConvNorm(width if i else inputs, width, bias=True) for i in range(count)))
            inputs = width
        self.head = nn.Linear(512, 10)

    def forward(self, x):
        for stage in self.stages:
            for conv in stage.children():
                x = F.relu(conv(x))
            x = F.max_pool2d(x, 2)
        return self.head(torch.flatten(x, 1))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "lenet": LeNet,
    "lenet300": LeNet300,
    "resnet20": ResNet20,
    "vgg16": VGG16,
}


class Training:
    """SGD with momentum on one batch: a whole `step`, and the `update` that ends it."""

    def __init__(self, name: str, images, labels):
        self.network = NETWORKS[name]()
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.01, momentum=0.9)
        self.images = torch.tensor(images).permute(0, 3, 1, 2).contiguous()
        self.labels = torch.tensor(labels)

    def step(self) -> None:
        self.optimizer.zero_grad()
        F.cross_entropy(self.network(self.images), self.labels).backward()
        self.optimizer.step()

    def update(self) -> None:
        """With the gradients of the last step."""
        self.optimizer.step()
