"""`bench step`, and that what it compares with in PyTorch are the same networks."""

import importlib.util

import jax
import numpy as np
import pytest

from experiments.bench.step import step
from experiments.training.build import build_model
from experiments.training.network import merge_variables
from parsimony._tree import named_leaves

INSTALLED = importlib.util.find_spec("torch") is not None


def test_the_benchmark_says_what_it_measured(capsys):
    step(("lenet300",), batch_size=8, rounds=1)
    printed = capsys.readouterr().out
    assert printed.count("Split LBI, recorded") == 2
    assert printed.count("SGD in PyTorch") == printed.count("1.00 × as fast as PyTorch (1.00–1.00)") == 2 * INSTALLED
    assert ("pip install" in printed) != INSTALLED


@pytest.mark.skipif(not INSTALLED, reason="PyTorch, the extra `torch`, is not installed")
@pytest.mark.parametrize("model", ["lenet", "lenet300", "resnet20", "vgg16"])
def test_the_networks_in_pytorch_are_those_of_the_experiments(model):
    import torch

    from experiments.bench.torch_networks import NETWORKS

    network, params, stats = build_model(model, 0)
    other = NETWORKS[model]()
    state = {name: leaf for name, leaf in other.state_dict().items() if "num_batches" not in name}
    ours = {_name(name): leaf for name, leaf in named_leaves(merge_variables(params, stats))[0]}
    assert set(ours) == set(state)
    for name, leaf in ours.items():
        array = np.moveaxis(leaf, (-1, -2), (0, 1)) if leaf.ndim > 1 else np.asarray(leaf)  # outputs, inputs, places
        assert array.shape == state[name].shape
        state[name].copy_(torch.tensor(array))
    shape = (4, *((32, 32, 3) if model in ("resnet20", "vgg16") else (28, 28, 1)))
    images = np.random.default_rng(0).normal(size=shape).astype("float32")
    with torch.no_grad():
        trained = other(torch.tensor(images).permute(0, 3, 1, 2)).numpy()
    logits, _ = jax.jit(network.forward)(params, stats, images, jax.random.key(0))
    np.testing.assert_allclose(logits, trained, atol=1e-4 * np.abs(trained).max())


def _name(name: str) -> str:
    parts = [part for part in name.split("/") if part != "layers"]
    names = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    return ".".join([*parts[:-1], names.get(parts[-1], parts[-1])])
