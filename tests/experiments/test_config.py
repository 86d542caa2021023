"""Configurations: shares of the training, groups of the help, and what the words of a command line make of them."""

import dataclasses
import json

import numpy as np
import pytest

from experiments import __main__ as main
from experiments import cli, configs
from experiments.comparison.config import Comparison
from experiments.comparison.setup import make_setup
from experiments.config import Config
from experiments.data.sampler import Sampler
from experiments.growth import stage
from experiments.growth.config import Grow
from experiments.training.build import dual_rate, load_data, lr_schedule

IMAGES = {"digits": 1437, "mnist": 60_000, "cifar10": 50_000, "imagenet2012": 1_281_167, "python_docs": 2600}
KINDS = {"train": Config, "grow": Grow, "compare": Comparison}
NAMES = [(kind, name) for kind in KINDS for name in configs.names(kind)]
DROPS = {  # the epochs, of so many, after which the measured and the published recipes divide α by ten
    "digits": (120, 90),
    "gpt_chars": (12, 9),
    "gpt_chars_dense": (12, 9),
    "vit_cifar10": (4, 3),
    "vit_cifar10_dense": (4, 3),
    "lenet_dense": (15, 10),
    "lenet_mnist": (30, 20),
    "lenet_paced": (24, 18),
    "lenet_path": (24, 18),
    "lenet_units": (24, 18),
    "lenet300_path": (80, 50, 70),
    "resnet20_cifar10": (164, 82, 123),
    "resnet18_imagenet": (100, 30, 60, 90),
    "alexnet_imagenet": (150, 30, 60, 90, 120),
}
INTERVALS = {"compare_digits": 20} | dict.fromkeys(
    (
        "compare_lenet",
        "compare_lenet_weights",
        "compare_lenet300",
        "compare_lenet300_equal",
        "compare_lenet300_paced",
        "compare_optimizers",
    ),
    100,
)


def sampler_of(config) -> Sampler:
    return Sampler(0, IMAGES[config.dataset] - config.validation, config.batch_size)


def given(kind: str, name: str, *words: str):
    return cli.configured(KINDS[kind], configs.load(kind, name).config, list(words), "program", "")


@pytest.mark.parametrize("name", configs.names("train"))
def test_shares_fall_on_the_steps_of_the_epochs_that_were_measured(name):
    config = configs.load("train", name).config
    sampler, (epochs, *drops) = sampler_of(config), DROPS.get(name, (200,))
    assert config.epochs == epochs
    alpha = lr_schedule(config, sampler)
    for number, epoch in enumerate(drops):
        before, after = (float(alpha(sampler.end(epoch) + offset)) for offset in (-1, 0))
        np.testing.assert_allclose(
            (before, after), config.learning_rate * 0.1 ** np.array([number, number + 1]), rtol=1e-6
        )
    assert config.kept_epochs == {"lenet_path": {1, 2, 3, 4, 5}}.get(name, {35} if "ticket" in name else set())


@pytest.mark.parametrize("name", INTERVALS)
def test_masks_change_after_as_many_steps_as_in_the_records(name):
    config = configs.load("compare", name).config
    assert round(config.mask_interval * sampler_of(config).end(config.epochs)) == INTERVALS[name]


@pytest.mark.parametrize("epochs", [1, 2, 3])
@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_every_configuration_takes_another_length_alone(kind, name, epochs):
    config = given(kind, name, "--epochs", str(epochs))
    assert config == dataclasses.replace(configs.load(kind, name).config, epochs=epochs)
    if kind == "compare":
        return
    sampler = sampler_of(config)
    drops = [sampler.at(share, epochs) for share in config.drops]
    assert sorted({0, *drops, sampler.end(epochs)}) == [0, *drops, sampler.end(epochs)]
    assert float(lr_schedule(config, sampler)(0)) == pytest.approx(config.learning_rate)
    assert float(lr_schedule(config, sampler)(sampler.end(epochs) - 1)) < 2 * config.learning_rate * 0.1 ** len(drops)
    assert float(dual_rate(config, sampler)(sampler.end(epochs) - 1)) > 0
    assert all(1 <= epoch <= epochs for epoch in config.kept_epochs)


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_the_schedules_of_the_digits_are_made_at_any_length(epochs):
    config = dataclasses.replace(configs.load("grow", "grow_digits").config, epochs=epochs)
    now, (_, sampler) = stage.make_stage(config), load_data(config)
    assert stage.transformation(now, sampler).init(now.params)
    setup = make_setup(dataclasses.replace(configs.load("compare", "compare_digits").config, epochs=epochs))
    assert setup.sweep_of("gradual").steps == sampler.end(epochs)


def test_drops_that_fall_on_one_step_all_count():
    config = Config(images=128, epochs=1, drops=(0.2, 0.4, 0.9))
    assert float(lr_schedule(config, Sampler(0, 128, 128))(1)) == pytest.approx(0.05 * 0.1**3)


@pytest.mark.parametrize(
    ("words", "titles", "fixed"),
    [
        (["train", "digits"], ["data", "model", "optimizer", "path", "run", "machine"], ()),
        (["grow", "grow_digits"], ["growth", "data", "model", "optimizer", "path", "run", "machine"], Grow.FIXED),
        (["compare", "compare_digits"], ["data", "method", "training", "search", "machine"], ("grid",)),
    ],
)
def test_help_has_every_field_by_its_short_name_in_groups_of_eighty_columns(words, titles, fixed, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main.main([*words, "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    inside = [line.strip("│ ") for line in lines]  # with a frame or, where the encoding has none, without
    assert [title for line in lines for title in titles if f" {title} options " in line] == titles
    flags = {line.split()[0].rstrip(",") for line in inside if line.startswith("--") and not line.startswith("---")}
    fields = {field.name for field in dataclasses.fields(KINDS[words[0]])} - set(fixed)
    assert flags == {f"--{name.replace('_', '-')}" for name in fields}


def test_the_overview_has_every_configuration_in_eighty_columns(capsys):
    assert main.main(["--help"]) == 0
    output = capsys.readouterr().out
    assert all(name in output.replace(",", " ").split() for _, name in NAMES)
    assert max(map(len, output.splitlines())) <= 80


def test_what_a_configuration_rejects_is_told_like_a_word_that_makes_no_sense(capsys):
    with pytest.raises(SystemExit) as stop:
        main.main(["train", "digits", "--drops", "90"])
    assert stop.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "drops: expected shares of the training in (0, 1), such as 0.75" in said


def test_settings_come_back_from_json_as_they_were():
    for kind, name in NAMES:
        if kind != "compare":
            config = configs.load(kind, name).config
            assert KINDS[kind].from_settings(json.loads(json.dumps(config.settings()))) == config
