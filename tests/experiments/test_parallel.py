"""The training over a mesh is that of `pmap`; sharded, a device holds its part alone."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import parsimony as pm
from experiments import __main__ as cli
from experiments import models
from experiments.config import Config
from experiments.data.dataset import Dataset, Split
from experiments.data.loader import make_loader
from experiments.data.sampler import Sampler
from experiments.runs import snapshots
from experiments.runs.load import load_run
from experiments.training.network import merge_variables, parts_of
from experiments.training.parallel import OverMesh, parallel
from experiments.training.step import advance

RNG = np.random.default_rng(0)
SPLIT = Split(RNG.integers(0, 256, (64, 28, 28, 1), np.uint8), RNG.integers(0, 10, 64).astype(np.int32))
DATASET = Dataset(SPLIT, SPLIT, SPLIT, 255, (127.0,), (64.0,))
TX = pm.record_path(pm.split_lbi(0.01, momentum=0.9, **pm.pace(0.01, 20, sparsity=0.5, finish=False)))


def trained(kind, steps=20):
    """(parallel, its state) after some steps of a network without normalisation, in augmented batches."""
    network, params, stats = parts_of(models.models["lenet"](rngs=nnx.Rngs(0)))
    devices = parallel(kind)
    step = devices.step(network, TX, DATASET, seed=0, augment=True)
    loader = make_loader(SPLIT, Sampler(0, 64, 16), 5, devices.placement)
    state = devices.place((params, stats, TX.init(params)))
    losses = []
    for latest, _, more in advance(step, state, loader.chunks(0, steps)):
        state, losses = latest, losses + more
    return network, devices, state, losses


@pytest.fixture(scope="module")
def runs():
    return {kind: trained(kind) for kind in ("pmap", "mesh", "fsdp")}


@pytest.mark.parametrize("kind", ["mesh", "fsdp"])
def test_twenty_steps_over_a_mesh_are_those_of_pmap(runs, kind):
    """Weights, V, Γ, the record of the path and the losses, of eight devices with two images each."""
    (_, one, state, losses), (_, other, others, other_losses) = runs["pmap"], runs[kind]
    np.testing.assert_allclose(other_losses, losses, rtol=1e-6)
    (params, _, opt_state), (other_params, _, other_state) = one.whole(state), other.whole(others)
    close = lambda a, b: np.testing.assert_allclose(b, a, rtol=0, atol=1e-6 * max(1, np.abs(a).max()))
    for read in (lambda p, s: p, lambda p, s: optax.tree.get(s, "dual"), lambda p, s: pm.gamma(s)):
        jax.tree.map(close, jax.device_get(read(params, opt_state)), jax.device_get(read(other_params, other_state)))
    entered = jax.device_get(pm.entry_steps(opt_state))
    assert any((steps > 0).any() for steps in jax.tree.leaves(entered))
    jax.tree.map(np.testing.assert_array_equal, entered, jax.device_get(pm.entry_steps(other_state)))


@pytest.mark.parametrize("kind", ["mesh", "fsdp"])
def test_accuracy_is_that_of_pmap_for_weights_on_the_mesh_and_elsewhere(runs, kind):
    network, devices, state, _ = runs[kind]
    params, stats, opt_state = devices.whole(state)
    accuracy, by_pmap = devices.metric(network.fn, DATASET), parallel("pmap").metric(network.fn, DATASET)
    part = Split(SPLIT.inputs[:37], SPLIT.labels[:37])  # which the devices do not divide
    for weights in (params, pm.sparse_params(params, opt_state), jax.device_get(params)):
        found = accuracy(merge_variables(weights, stats), part)
        assert found == by_pmap(jax.device_get(merge_variables(weights, stats)), part)


def test_a_device_holds_an_eighth_of_what_is_sharded(runs):
    """Of LeNet's 61,706 weights the kernels of 84 and 120 outputs are divided, and their V and momentum with them."""
    _, devices, (params, _, opt_state), _ = runs["fsdp"]
    leaves = [leaf for leaf in jax.tree.leaves((params, opt_state)) if leaf.ndim]
    for leaf in leaves:
        part = leaf.addressable_shards[0].data
        divided = any(size % 8 == 0 for size in leaf.shape)
        assert part.nbytes * (8 if divided else 1) == leaf.nbytes
    assert sum(leaf.addressable_shards[0].data.nbytes for leaf in leaves) < sum(leaf.nbytes for leaf in leaves) / 6
    assert params["dense1"]["kernel"].sharding == optax.tree.get(opt_state, "dual")["dense1"]["kernel"].sharding
    assert isinstance(devices, OverMesh)


def test_what_is_placed_is_a_copy(runs):
    params = {"kernel": jnp.ones((8, 8))}
    devices = parallel("mesh")
    placed = devices.place((params, {}, {}))
    jax.jit(lambda x: 2 * x, donate_argnums=0)(placed[0]["kernel"]).block_until_ready()
    np.testing.assert_array_equal(params["kernel"], 1)


def test_checkpoints_of_one_way_restore_into_another(tmp_path):
    """Two epochs by pmap, the third sharded: the losses go on as those of a run that never changed."""
    words = ["train", "--epochs", "3", "--checkpoint-every", "1", "--batch-size", "64"]
    assert cli.main([*words, "--run-dir", str(tmp_path / "whole")]) == 0
    half = tmp_path / "half"
    shutil.copytree(tmp_path / "whole", half)
    for leftover in ("record.json", "path.png", "accuracy.png"):
        (half / leftover).unlink()
    last = max(int(path.name) for path in (half / "checkpoints").iterdir())
    shutil.rmtree(half / "checkpoints" / str(last))
    assert cli.main([*words, "--run-dir", str(half), "--parallel", "fsdp"]) == 0
    whole, resumed = (snapshots.curve(tmp_path / name) for name in ("whole", "half"))
    assert [line["step"] for line in resumed] == [line["step"] for line in whole]
    np.testing.assert_allclose([x["loss"] for x in resumed], [x["loss"] for x in whole], rtol=1e-3)
    params, others = (load_run(tmp_path / name).at()[0] for name in ("whole", "half"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-3), params, others)


def test_the_way_is_no_setting_of_the_result():
    assert Config(parallel="fsdp").settings() == Config().settings()
