"""The page on coming from PyTorch: its functions carry a network that was trained there to the same outputs here."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import parsimony as pm
from experiments.models import models
from helpers.pages import ROOT, blocks

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch, the extra `torch`, is not installed"
)


@pytest.fixture(scope="module")
def page():
    """What the page's code defines."""
    namespace = {}
    for _, code in blocks(ROOT / "docs" / "coming-from.md"):
        exec(code, namespace)
    return namespace


class Strided(nnx.Module):
    """A strided convolution, groups, pooling with padding, and a dense layer behind `flatten`."""

    def __init__(self, rngs):
        self.conv1 = nnx.Conv(1, 8, (3, 3), strides=2, padding=1, rngs=rngs)
        self.norm = nnx.BatchNorm(8, momentum=0.9, epsilon=1e-5, rngs=rngs)
        self.conv2 = nnx.Conv(8, 12, (3, 3), padding=1, feature_group_count=2, rngs=rngs)
        self.dense = nnx.Linear(12 * 2 * 2, 16, rngs=rngs)
        self.head = nnx.Linear(16, 10, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.conv1(x)))
        x = nnx.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        x = nnx.relu(self.conv2(x))
        x = nnx.gelu(self.dense(x.reshape(len(x), -1)), approximate=False)
        return self.head(x)


def trained(torch, model, images, labels, steps):
    """What a network of PyTorch computes at inference, after some steps of SGD, and its weights."""
    torch.set_num_threads(1)
    images, labels = torch.tensor(images), torch.tensor(labels)
    tuner = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    for _ in range(steps):
        tuner.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        tuner.step()
    model.eval()
    with torch.no_grad():
        return model(images).numpy(), {name: x.numpy() for name, x in model.state_dict().items()}


def carried(page, model, state, images, **names):
    """Outputs of a Flax network with these weights, for images with the channels first."""
    page["load_into"](model, page["from_torch"](state, **names))
    model.eval()
    return np.asarray(jax.jit(lambda x: model(x))(jnp.asarray(images).transpose(0, 2, 3, 1)))


def test_a_network_trained_in_pytorch_computes_the_same_here_and_can_be_cut(page):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    labels, rng = np.arange(60) % 10, np.random.default_rng(0)
    images = rng.standard_normal((10, 1, 8, 8))[labels] + 0.3 * rng.standard_normal((60, 1, 8, 8))
    images = images.astype("float32")
    of = torch.nn
    model = of.Sequential(
        of.Conv2d(1, 8, 3, stride=2, padding=1), of.BatchNorm2d(8), of.ReLU(), of.MaxPool2d(3, 2, padding=1),
        of.Conv2d(8, 12, 3, padding=1, groups=2), of.ReLU(), of.Flatten(), of.Linear(48, 16), of.GELU(),
        of.Linear(16, 10),
    )  # fmt: skip
    outputs, state = trained(torch, model, images, labels, steps=30)
    assert (outputs.argmax(1) == labels).mean() > 0.5
    places = {"0": "conv1", "1": "norm", "4": "conv2", "7": "dense", "9": "head"}
    rename = [(f"^{number}$", name) for number, name in places.items()]
    net = Strided(nnx.Rngs(0))
    found = carried(page, net, state, images, rename=rename, flattened={"7": (12, 2, 2)})
    np.testing.assert_allclose(found, outputs, atol=1e-5 * np.abs(outputs).max())
    unordered = carried(page, net, state, images, rename=rename)  # without a word on `flatten`
    assert np.abs(unordered - outputs).max() > 0.1 * np.abs(outputs).max()
    graphdef, params = nnx.split(net)
    fn = lambda params, x: nnx.merge(graphdef, nnx.State(params))(x)
    units = pm.structure.find_units(fn, nnx.to_pure_dict(params), jnp.ones((1, 8, 8, 1)))
    assert {"conv1", "conv2", "dense"} <= set(units.sets)
    with pytest.raises(ValueError, match=r"'head', 'kernel'.*: not in both, or of another shape"):
        page["load_into"](net, page["from_torch"](state | {"9.weight": np.ones((10, 3))}, rename))


def resnet(torch, depth, counts):
    """A residual network whose modules have the names, shapes and strides of torchvision's."""
    of = torch.nn
    outputs = 4 if depth == 50 else 1  # channels of a block over those inside of it

    def norm_after(inputs, width, size, stride=1):
        return of.Conv2d(inputs, width, size, stride, size // 2, bias=False), of.BatchNorm2d(width)

    class Block(of.Module):
        def __init__(self, inputs, width, stride):
            super().__init__()
            sizes = (1, 3, 1) if depth == 50 else (3, 3)
            widths = (inputs, *(len(sizes) - 1) * (width,), outputs * width)
            strided = 1 if depth == 50 else 0
            self.number = len(sizes)
            for k, size in enumerate(sizes):
                pair = norm_after(widths[k], widths[k + 1], size, stride if k == strided else 1)
                for name, module in zip((f"conv{k + 1}", f"bn{k + 1}"), pair, strict=True):
                    setattr(self, name, module)
            changes = stride > 1 or inputs != widths[-1]
            self.downsample = of.Sequential(*norm_after(inputs, widths[-1], 1, stride)) if changes else None

        def forward(self, x):
            y = x
            for k in range(1, self.number + 1):
                y = getattr(self, f"bn{k}")(getattr(self, f"conv{k}")(y))
                y = y.relu() if k < self.number else y
            return (y + (x if self.downsample is None else self.downsample(x))).relu()

    class Net(of.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1 = norm_after(3, 64, 7, 2)
            inputs = 64
            for stage, number in enumerate(counts):
                width, blocks = 64 * 2**stage, []
                for block in range(number):
                    blocks.append(Block(inputs, width, 2 if stage and not block else 1))
                    inputs = outputs * width
                setattr(self, f"layer{stage + 1}", of.Sequential(*blocks))
            self.fc = of.Linear(inputs, 1000)

        def forward(self, x):
            x = of.functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
            for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
                x = stage(x)
            return self.fc(x.mean((2, 3)))

    return Net()


@pytest.mark.parametrize(
    ("depth", "counts", "parameters"), [(18, (2,) * 4, 11_689_512), (50, (3, 4, 6, 3), 25_557_032)]
)
def test_resnets_with_the_names_of_torchvision_compute_the_same_here(page, depth, counts, parameters):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    images = np.random.default_rng(0).standard_normal((4, 3, 64, 64)).astype("float32")
    model = resnet(torch, depth, counts)
    assert sum(p.numel() for p in model.parameters()) == parameters  # as published
    outputs, state = trained(torch, model, images, np.arange(4), steps=2)
    net = models[f"resnet{depth}"](rngs=nnx.Rngs(0))
    found = carried(page, net, state, images, rename=page["torchvision_names"](depth))
    np.testing.assert_allclose(found, outputs, atol=1e-4 * np.abs(outputs).max())
