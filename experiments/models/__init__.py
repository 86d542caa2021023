"""Networks, in Flax NNX: `models[name](rngs=rngs)`. Images are float32 NHWC in [0, 1], texts int32 [n, length].

All but those for the digits and MNIST take `classes`, and the `dtype` of their convolutions and dense layers; their
parameters, normalisations and logits are float32. `network.train()` and `network.eval()` switch the batch statistics
and the dropout, and the whole state is nnx.Param and nnx.BatchStat. Each device normalises its own share of a batch,
unless `network.set_attributes(nnx.BatchNorm, axis_name=...)` says otherwise.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax

from .alexnet import AlexNet
from .gpt import GPT
from .lenet import LeNet, LeNet300, SmallCNN, TinyCNN
from .mobilenet import MobileNetV2
from .resnet import ImageNetResNet, ResNet, SmallImageResNet, WideResNet
from .vgg import VGG
from .vit import SmallImageViT, ViT

models: dict[str, Callable[..., Any]] = {
    "small_cnn": SmallCNN,
    "tiny_cnn": TinyCNN,
    "lenet": LeNet,
    "lenet300": LeNet300,
    "vgg16": partial(VGG, 16),
    "vgg19": partial(VGG, 19),
    "resnet8": partial(ResNet, 8),
    "resnet20": partial(ResNet, 20),
    "resnet32": partial(ResNet, 32),
    "resnet44": partial(ResNet, 44),
    "resnet56": partial(ResNet, 56),
    "resnet110": partial(ResNet, 110),
    "resnet18_cifar": partial(SmallImageResNet, 18),
    "resnet50_cifar": partial(SmallImageResNet, 50),
    "wrn22_2": partial(WideResNet, 22, 2),
    "mobilenetv2": MobileNetV2,
    "alexnet": AlexNet,
    "resnet18": partial(ImageNetResNet, 18),
    "resnet34": partial(ImageNetResNet, 34),
    "resnet50": partial(ImageNetResNet, 50),
    "vit_ti16": ViT,
    "vit_nano": partial(SmallImageViT, 48, 4, 3),
    "vit_mini": partial(SmallImageViT, 192, 6, 3),
    "gpt_nano": partial(GPT, 3, 3, 48),
    "gpt_micro": partial(GPT, 4, 4, 128),
    "gpt_mini": partial(GPT, 6, 6, 192),
}


def published_widths(name: str) -> tuple[int, ...]:
    """Units of each layer of a model that takes `widths`, as published."""
    published = getattr(_class(name), "published_widths", None)  # where they follow from the depth
    return published(*getattr(models[name], "args", ())) if published else options(name)["widths"].default


def options(name: str) -> Mapping[str, inspect.Parameter]:
    """What a model can be given."""
    return inspect.signature(_class(name).__init__).parameters


def default_classes(name: str) -> int:
    """Classes of a model where their number is not given; the models for digits have ten."""
    choices = options(name)
    return choices["classes"].default if "classes" in choices else 10


def input_shape(name: str) -> tuple[int, ...]:
    """Height, width and channels of the images that a model takes, or the length of a text."""
    return _class(name).input_shape


def example(name: str, image_size: int | None = None) -> jax.ShapeDtypeStruct:
    """One input of a model, [1, ...]; of images that were averaged down to a height and width, one of these."""
    shape = input_shape(name)
    if image_size is not None:
        shape = (image_size, image_size, shape[-1])
    return jax.ShapeDtypeStruct((1, *shape), "int32" if len(shape) == 1 else "float32")


def takes(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a model can be given images of a shape; some average over whatever height and width there are."""
    own = _class(name)
    return shape == own.input_shape or (getattr(own, "any_size", False) and shape[2:] == own.input_shape[2:])


def _class(name: str) -> Any:
    return getattr(models[name], "func", models[name])
