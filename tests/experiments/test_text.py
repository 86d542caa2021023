"""A GPT on the text of Python's help: pieces, perplexity, causality, and every command on a run of it."""

import functools
import json
import re

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import parsimony as pm
from experiments import __main__ as cli
from experiments import configs, models
from experiments.commands import train
from experiments.config import Config
from experiments.data import text
from experiments.data.dataset import Dataset, Split
from experiments.data.load import load
from experiments.errors import RunError
from experiments.growth.config import Grow
from experiments.metrics import PERPLEXITY
from experiments.models.gpt import GPT
from experiments.runs.load import load_run
from experiments.training import importance
from experiments.training.network import parts_of
from experiments.training.parallel import parallel

CONFIG = Config(
    dataset="python_docs", model="gpt_nano", images=64, validation=16, epochs=2, batch_size=16, optimizer="adam",
    learning_rate=1e-2, drops=(), groups="units", sparsity=0.3, open_by=0.5, clip_norm=1.0,
)  # fmt: skip


TEXT = text.python_docs()


class Small(GPT):
    """One block, two heads, eight channels."""

    input_shape = (32,)
    __init__ = functools.partialmethod(GPT.__init__, 1, 2, 8, context=32)


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.models, "gpt_nano", Small)
        yield patch


@pytest.fixture(scope="module")
def directory(small, tmp_path_factory):
    """A run on the first 12,000 characters, which the commands then have, too."""
    small.setattr(text, "python_docs", lambda: TEXT[:12_000])
    return train.train("gpt", Config(**{**vars(CONFIG), "run_dir": tmp_path_factory.mktemp("runs") / "a"}))


def test_pieces_are_the_text_and_no_paragraph_of_the_test_set_was_trained_on():
    data = load("python_docs", 100, size=128)
    assert (data.train.shape, data.maximum, data.metric) == ((128,), 95, PERPLEXITY)
    read = lambda row: "".join(text.ALPHABET[number] for number in row)
    whole = TEXT
    assert len(whole) > 300_000
    assert set(whole) <= set(text.ALPHABET)
    paragraphs = whole.split("\n\n")
    assert len(set(paragraphs)) == len(paragraphs)
    for split in (data.train, data.test, data.validation):
        np.testing.assert_array_equal(split.labels[:, :-1], split.inputs[:, 1:])
    pieces = len(data.train) + len(data.validation) + len(data.test)
    assert pieces == len(whole) // 129
    assert read(data.test.inputs[1]) + read(data.test.labels[1, -1:]) == whole[10 * 129 : 11 * 129]
    assert data.held_out["characters"] == len(whole)
    with pytest.raises(RunError, match="the text has 8 characters, too few for ten pieces of 5"):
        text.pieces("too few.", 4)


def test_a_character_has_no_part_in_what_comes_before_it():
    network, params, _ = parts_of(models.models["gpt_nano"](rngs=nnx.Rngs(0)))
    tokens = jnp.asarray(load("python_docs", 10, size=32).test.inputs[:1], jnp.int32)
    before, after = (np.asarray(network.fn(params, x)) for x in (tokens, tokens.at[0, 20].set(5)))
    np.testing.assert_array_equal(before[0, :20], after[0, :20])
    assert np.abs(before - after).max(-1)[0, 20:].min() > 0


@pytest.mark.parametrize("kind", ["pmap", "mesh"])
def test_perplexity_is_the_exponential_of_the_mean_surprise(kind):
    """Of 13 pieces, which eight devices do not divide."""
    random = np.random.default_rng(0)
    inputs = random.integers(0, 4, (13, 6), np.uint8)
    split = Split(inputs, random.integers(0, 4, (13, 6)))
    data, table = Dataset(split, split, split, 3, (), (), metric=PERPLEXITY), random.normal(size=(4, 4))
    found = parallel(kind).metric(lambda table, tokens: table[tokens], data)(jnp.asarray(table, jnp.float32), split)
    logp = table - np.log(np.exp(table).sum(1, keepdims=True))
    assert found == pytest.approx(np.exp(-logp[inputs, split.labels].mean()), rel=1e-6)


def test_a_run_learns_and_says_so_by_the_name_of_its_metric(directory):
    record = json.loads((directory / "record.json").read_text())
    first, last = (record["curve"][place]["perplexity"] for place in (0, -1))
    assert 96 > first > last > 10
    final = record["final"]
    assert final["finished"]
    assert final["test_perplexity"] == final["test_sparse_perplexity"]
    assert record["held_out"]["text_sha256"] == text.source("python_docs")["text_sha256"]
    assert (directory / "perplexity.png").exists()


@pytest.mark.filterwarnings("ignore:.*lies before a normalisation")
def test_every_command_takes_the_run(directory, capsys):
    run, few = load_run(directory), str(directory)
    assert cli.main(["prune", few, "--sparsity", "0.5", "--orders", "dual", "--fine-tune", "1"]) == 0
    assert cli.main(["compact", few, "--sparsity", "0.5", "--rounds", "1", "--scope", "layer"]) == 0
    assert cli.main(["family", few, "--budgets", "0.6", "--fine-tune", "0", "--rounds", "1"]) == 0
    words = ["--criteria", "magnitude", "taylor", "gates", "--scope", "layer", "--sparsity", "0.5", "--fine-tune", "1"]
    assert cli.main(["importance", few, *words]) == 0
    assert cli.main(["report", few]) == 0
    results = {name: json.loads((directory / f"{name}.json").read_text()) for name in ("prune", "compact", "family")}
    assert {result["metric"] for result in results.values()} == {"perplexity"}

    dense = results["prune"]["dense"]["test"]
    assert results["compact"]["perplexity"]["whole"]["test"] == dense
    assert results["family"]["whole"]["perplexity"]["test"] == dense
    cut, tuned = results["prune"]["rows"]
    assert tuned["validation"] < cut["validation"]
    assert results["compact"]["equality"]["same answers"] == 1
    assert results["prune"]["chosen"] is results["family"]["chosen"] is None

    fn, params = pm.structure.load_compact(directory / "compact")
    logits = np.asarray(fn(params, run.dataset.normalised(run.dataset.test.inputs)), np.float64)
    logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    surprise = -np.take_along_axis(logp, run.dataset.test.labels[..., None], -1).mean()
    assert results["compact"]["perplexity"]["cut"]["test"] == pytest.approx(np.exp(surprise), rel=1e-4)

    out = capsys.readouterr().out
    assert f"test perplexity, groups, by layer; dense {dense:.2f}" in out
    assert re.search(r"test perplexity +\d+\.\d\d +\d+\.\d\d\n", out)
    page = (directory / "report.html").read_text()
    assert "Test perplexity W " in page
    assert "accuracy" not in re.sub(r"<svg.*?</svg>|base64,[^\"]*", "", page, flags=re.DOTALL).lower()


def test_what_needs_an_accuracy_says_so(directory, capsys):
    assert cli.main(["stop", str(directory)]) == 1
    assert "one_se: needs the error of the perplexity" in capsys.readouterr().err
    with pytest.raises(ValueError, match="stop: one_se needs the error of an accuracy; python_docs is a text"):
        Config(dataset="python_docs", model="gpt_nano", stop="one_se")
    with pytest.raises(ValueError, match="augment: is for images"):
        Config(dataset="python_docs", model="gpt_nano", augment=True)
    with pytest.raises(ValueError, match="growing is judged by an accuracy"):
        Grow(dataset="python_docs", model="gpt_nano")
    with pytest.raises(RunError, match="model gpt_nano takes inputs of another size than digits has"):
        train.train("gpt", Config(**{**vars(CONFIG), "dataset": "digits", "images": None}))


def test_a_run_belongs_to_its_text(directory, monkeypatch):
    monkeypatch.setattr(text, "python_docs", lambda: TEXT[:12_000].replace("Python", "python"))
    with pytest.raises(RunError, match=r"was trained on another text than this Python has .*text_sha256"):
        load_run(directory)


def test_adam_takes_the_place_of_momentum():
    """One step of W without a path: α in the direction of the signs of the gradient, and what its trace holds."""
    from experiments.training.build import direction

    grads = {"w": jnp.array([0.3, -2.0])}
    adam, sgd = (direction(Config(**{**vars(CONFIG), "optimizer": name})) for name in ("adam", "sgd"))
    first, _ = adam.update(grads, adam.init(grads))
    np.testing.assert_allclose(first["w"], [1.0, -1.0], rtol=1e-5)
    np.testing.assert_allclose(sgd.update(grads, sgd.init(grads))[0]["w"], grads["w"])
    assert configs.load("train", "gpt_chars").config.optimizer == "adam"


def test_activation_of_a_query_feature_is_what_it_adds_to_the_scores(directory, monkeypatch):
    monkeypatch.setattr(importance, "IMAGES", 16)
    run = load_run(directory)
    params = run.at()[0]
    units = pm.structure.find_units(run.network.fn, params, run.dataset.example)
    found = importance.activation(run, units, params)

    network = nnx.merge(run.network.graphdef, params)
    tokens = jnp.asarray(run.dataset.train.inputs[:16], jnp.int32)
    block = network.blocks.layers[0]
    x = block.norm1(network.tokens(tokens) + network.positions[...])
    power = lambda layer: np.square(np.asarray(layer(x), np.float64)).mean((0, 1))
    squares = (power(block.attention.query) * power(block.attention.key) / 4).sum(0)
    np.testing.assert_allclose(found["blocks/layers/0/attention/query.2"], -np.sqrt(squares), rtol=1e-4)

    heads = np.square(np.asarray(block.attention.out.kernel[...], np.float64)).sum(2)
    q, k, v = (layer(x) for layer in (block.attention.query, block.attention.key, block.attention.value))
    mixed = nnx.dot_product_attention(q, k, v, is_causal=True)
    inputs = np.square(np.asarray(mixed, np.float64)).mean((0, 1))
    np.testing.assert_allclose(found["blocks/layers/0/attention/query"], -np.sqrt((heads * inputs).sum(1)), rtol=1e-4)
