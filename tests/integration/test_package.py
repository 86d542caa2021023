"""What stands in pyproject.toml and beside it; the wheel itself is built and tried by `make package`."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import parsimony as pm
from experiments.runs.digest import environment

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_extras_are_those_that_the_documents_speak_of():
    assert PROJECT["optional-dependencies"].keys() == {
        "experiments",
        "prepare",
        "torch",
        "onnx",
        "int8",
        "tests",
        "lint",
        "docs",
        "dev",
    }


def test_the_licence_is_the_one_that_is_declared():
    assert PROJECT["license"] == "Apache-2.0"
    assert "Apache License\n                           Version 2.0" in (ROOT / "LICENSE").read_text()
    assert "license: Apache-2.0" in (ROOT / "CITATION.cff").read_text()


def test_one_version_everywhere():
    assert re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.M)[1] == pm.__version__
    assert f"## {pm.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_package_is_marked_as_typed():
    assert (ROOT / "parsimony" / "py.typed").is_file()


def test_import_needs_jax_and_optax_alone():
    """What it asks for itself: a stand-in in sys.modules makes any later import of the others fail."""
    others = [
        "flax",
        "orbax",
        "scipy",
        "safetensors",
        "flatbuffers",
        "matplotlib",
        "sklearn",
        "tensorflow",
        "experiments",
    ]
    code = f"import sys, jax, optax; sys.modules.update(dict.fromkeys({others})); import parsimony"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_least_versions_are_those_of_the_project():
    """What `make test-matrix` pins."""
    wanted = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["experiments"]
    least = subprocess.run([sys.executable, ROOT / ".ci" / "lowest.py"], capture_output=True, text=True, check=True)
    pins = dict(pin.split("==") for pin in least.stdout.split())
    assert pins["jax"] == "0.8.0"
    assert pins.keys() >= {re.split(r"[>=\[]", name)[0] for name in wanted if ">=" in name}


def test_the_wheel_holds_the_library_alone_and_its_name_is_not_the_one_that_is_taken():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["parsimony"]
    assert PROJECT["name"] != "parsimony"
    assert f'DISTRIBUTION = "{PROJECT["name"]}"' in (ROOT / ".ci" / "check_package.py").read_text()
    assert f"`{PROJECT['name']}`" in (ROOT / "README.md").read_text()


def test_a_record_says_the_version_of_the_checkout():
    """Also where another distribution, or none, of that name is installed; under the name that older records have."""
    assert environment()["versions"]["parsimony"] == pm.__version__


@pytest.mark.parametrize("file", [".github/workflows/ci.yml", ".pre-commit-config.yaml", "CONTRIBUTING.md"])
def test_what_is_called_by_make_is_a_target(file):
    targets = set(re.findall(r"^([a-z0-9 -]+):", (ROOT / "Makefile").read_text(), re.M))
    called = re.findall(r"(?:run|entry): make (\S+)|^make (\S+)", (ROOT / file).read_text(), re.M)
    assert called
    assert {name for pair in called for name in pair if name} <= {name for line in targets for name in line.split()}
