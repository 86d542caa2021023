"""Trainings that start from the weights of a folder: of a run, of Hugging Face, of an exported model."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy

import parsimony as pm
from experiments import __main__ as cli
from experiments.commands import train
from experiments.config import Config
from experiments.errors import RunError
from experiments.runs.load import load_run
from experiments.training.build import build_network
from experiments.training.hugging_face import load_folder
from experiments.training.network import equal_arrays, merge_variables
from experiments.training.weights import start_weights

SHORT = Config(epochs=2, drops=(), sparsity=None, share=0.5, checkpoint_every=1)
GPT = Config(dataset="python_docs", model="gpt_nano")
GPT2 = {"model_type": "gpt2", "n_embd": 48, "n_head": 3, "n_layer": 3, "n_positions": 128, "vocab_size": 96}


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A run that others start from."""
    return train.train("first", dataclasses.replace(SHORT, epochs=1, run_dir=tmp_path_factory.mktemp("runs") / "first"))


def weights_of(config: Config):
    return start_weights(config, *build_network(config))


def gpt2_folder(folder, **changes):
    """As `transformers` writes it, with random weights."""
    settings, random = GPT2 | changes, np.random.default_rng(0)
    width, hidden = settings["n_embd"], 4 * settings["n_embd"]
    shapes = {"wte.weight": (settings["vocab_size"], width), "wpe.weight": (settings["n_positions"], width)}
    layers = {"ln_1": (width,), "ln_2": (width,), "attn.c_attn": (width, 3 * width), "attn.c_proj": (width, width)}
    layers |= {"mlp.c_fc": (width, hidden), "mlp.c_proj": (hidden, width)}
    all_layers = {f"h.{n}.{name}": shape for n in range(settings["n_layer"]) for name, shape in layers.items()}
    for name, shape in (all_layers | {"ln_f": (width,)}).items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[-1:]}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(settings))
    arrays = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    safetensors.numpy.save_file(arrays, folder / "model.safetensors")
    return str(folder)


def test_a_run_starts_from_the_weights_of_another_and_needs_its_folder_no_more(first, tmp_path):
    before, source = load_run(first), tmp_path / "source"
    params, stats, _ = before.at()
    shutil.copytree(first, source)
    config = dataclasses.replace(SHORT, weights=str(source), run_dir=tmp_path / "run")
    directory = train.train("second", config)
    record = json.loads((directory / "record.json").read_text())
    assert record["configuration"]["weights"] == str(source)
    assert "start.safetensors" in record["files"]
    assert record["curve"][0]["loss"] < json.loads((first / "record.json").read_text())["curve"][0]["loss"]

    shutil.rmtree(source)
    assert equal_arrays(load_run(directory).start, (params, stats))
    for lost in (["checkpoints/20"], ["checkpoints", "curve.jsonl", "snapshots"]):  # killed in epoch 2; at the start
        (directory / "record.json").unlink()
        for name in lost:
            path = directory / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        again = json.loads((train.train("second", config) / "record.json").read_text())
        assert again["digest"] == record["digest"]

    (directory / "start.safetensors").write_bytes(b"changed")
    with pytest.raises(RunError, match=r"start.safetensors changed or went missing after the run was finished"):
        load_run(directory)
    (directory / "record.json").unlink()
    with pytest.raises(RunError, match=r"start.safetensors, the weights that this run was started from, cannot be"):
        load_run(directory)


def test_a_gpt_starts_from_a_folder_of_hugging_face(tmp_path):
    folder = gpt2_folder(tmp_path / "gpt2", layer_norm_epsilon=1e-5)
    params, stats = weights_of(dataclasses.replace(GPT, weights=folder))
    assert equal_arrays(params, load_folder(folder)[1])
    assert not stats


def test_another_epsilon_is_told(tmp_path, capsys):
    weights_of(dataclasses.replace(GPT, weights=gpt2_folder(tmp_path / "gpt2", layer_norm_epsilon=1e-3)))
    assert "an ε of 0.001, and those here one of 1e-05" in capsys.readouterr().out


def test_a_training_starts_from_an_exported_model(first, tmp_path):
    run = load_run(first)
    params, stats, _ = run.at()
    variables = merge_variables(params, stats)
    units = pm.structure.find_units(run.network.fn, variables, run.dataset.example)
    folder = pm.structure.export(pm.structure.compact(units, {}, variables), tmp_path / "whole", run.dataset.example)
    found = weights_of(dataclasses.replace(SHORT, weights=str(folder)))
    assert jax.tree.all(jax.tree.map(np.array_equal, found, (params, stats)))

    name, unit_set = next(iter(units.sets.items()))
    small = pm.structure.compact(units, {name: np.arange(unit_set.size) > 0}, variables)
    folder = pm.structure.export(small, tmp_path / "small", run.dataset.example)
    with pytest.raises(RunError, match=r"does not fit small_cnn for digits: conv1/.* has the shape .* expected"):
        weights_of(dataclasses.replace(SHORT, weights=str(folder)))
    (folder / "params.safetensors").write_bytes(b"")
    with pytest.raises(RunError, match=r"--weights .*small.*params.safetensors"):
        weights_of(dataclasses.replace(SHORT, weights=str(folder)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 65}, "has a vocabulary of 65, and python_docs has 96 classes"),
        ({"n_embd": 24}, r"does not fit gpt_nano for python_docs: .* has the shape .*3, 8.*, expected .*3, 16"),
        ({"n_positions": 64}, r"positions has the shape \[1, 64, 48\], expected \[1, 128, 48\]"),
        ({"n_head": 4}, r"attention/.* has the shape .*4, 12.*, expected .*3, 16"),
        ({"n_layer": 2}, "of another architecture than gpt_nano for python_docs: it lacks blocks/layers/2"),
        ({"model_type": "llama"}, "model_type is 'llama'; expected 'gpt2' or 'vit'"),
    ],
)
def test_weights_of_another_network_are_told(tmp_path, changes, message):
    with pytest.raises(RunError, match=message):
        weights_of(dataclasses.replace(GPT, weights=gpt2_folder(tmp_path / "gpt2", **changes)))


def test_a_folder_that_is_none_of_these_is_told_before_anything_is_written(first, tmp_path, capsys):
    (empty := tmp_path / "empty").mkdir()
    gpt = gpt2_folder(tmp_path / "gpt2")
    for folder, message in [
        (tmp_path / "nowhere", "exported model (model.json); found no such folder"),
        (empty, "found nothing in it"),
        (gpt, "has a vocabulary of 96, and digits has 10 classes"),
    ]:
        assert cli.main(["train", "digits", "--weights", str(folder), "--run-dir", str(tmp_path / "run")]) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    with pytest.raises(RunError, match="is a run of small_cnn, and this configuration has the model tiny_cnn"):
        weights_of(dataclasses.replace(SHORT, model="tiny_cnn", weights=str(first)))
