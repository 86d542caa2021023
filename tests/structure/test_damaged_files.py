"""Mutated files: none is taken for something that it does not say, and the place is named.

`pytest tests/structure/test_damaged_files.py --fuzz 5000` tries more.
"""

import functools
import hashlib
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import save

from helpers.mutations import flipped, mutant
from parsimony.structure import Units, compact, export, find_units, load_compact, load_opt_state
from parsimony.structure._files import manifest, units_json

PARAMS = {"w1": jnp.ones((4, 6)), "b1": jnp.ones(6), "deep": [{"w2": jnp.ones((6, 3))}, {"w3": jnp.ones((3, 2))}]}
X = jnp.ones((2, 4))


def fn(p, x):
    first, second = p["deep"]
    return jax.nn.softmax(jax.nn.relu(x @ p["w1"] + p["b1"][None]) @ first["w2"]) @ second["w3"]


@functools.cache
def units():
    return find_units(fn, PARAMS, X)


def outcome(read):
    """(what was read, "") or (None, the message of the error)."""
    try:
        return read(), ""
    except ValueError as error:
        return None, str(error)


def test_units_come_back_as_they_were():
    again = Units.from_json(units().to_json(), fn)
    assert again.to_json() == units().to_json()
    assert Units.from_json(json.dumps(json.loads(units().to_json()), indent=3)).to_json() == units().to_json()


def test_no_mutant_of_units_is_taken(fuzz):
    data, rng = json.loads(units().to_json()), np.random.default_rng(0)
    for _ in range(fuzz):
        text = json.dumps(mutant(data, rng))
        found, message = outcome(lambda text=text: Units.from_json(text))
        assert (
            message.startswith("this is not JSON written by Units.to_json: ") or found.to_json() == units().to_json()
        ), text


def test_a_mutant_with_a_digest_of_its_own_is_at_least_consistent(fuzz):
    """Who writes a file can write its digest: then every index is still one of a unit that there is."""
    data, rng = json.loads(units().to_json()), np.random.default_rng(1)
    taken = 0
    for _ in range(fuzz):
        changed = mutant(data, rng)
        if isinstance(changed, dict):
            changed["sha256"] = units_json.digest({name: own for name, own in changed.items() if name != "sha256"})
        found, message = outcome(lambda changed=changed: Units.from_json(json.dumps(changed)))
        assert found is not None or message.startswith("this is not JSON written by Units.to_json: ")
        taken += found is not None
        for own in found.sets.values() if found is not None else ():
            for parameter, axes in own.members.items():
                for axis, unit in axes.items():
                    assert unit.shape == (found.shapes[parameter][axis],)
                    assert set(unit.tolist()) - {-1} == set(range(own.size))
    assert taken > 0  # other names and reasons are no contradiction


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["sets"][0].update(size=2**31), "the set 'w1', 'w1', axis 1: expected the 2147483648 units"),
        (lambda d: d["sets"][0]["members"]["w1"]["1"].append(0), "axis 1: expected a list of 6 ints"),
        (lambda d: d["sets"][0]["members"]["w1"].update({"2": [0]}), "'w1': expected axes of its shape"),
        (lambda d: d["sets"][0].update(makers=[["w1", 0]]), "makers: expected members of the set"),
        (lambda d: d["sets"].append(d["sets"][0]), r"sets\[\d\]: expected a name of its own"),
        (lambda d: d["shapes"].update(w1=[4, -6]), "shapes of 'w1': expected a list of sizes"),
        (lambda d: d["sets"][0].update(reason="changed"), "sha256: expected the digest of the rest"),
        (lambda d: d.pop("fixed"), "expected the fields sets, fixed"),
    ],
    ids=range(8),
)
def test_what_is_wrong_is_named(change, message):
    data = json.loads(units().to_json())
    change(data)
    with pytest.raises(ValueError, match=message):
        Units.from_json(json.dumps(data))


@pytest.mark.parametrize("text", ["", "[", "[]", "null", '{"sets": 1, "sets": 2}', "NaN", "[" * 100_000, None, b"\xff"])
def test_other_text_is_no_json_of_units(text):
    with pytest.raises(ValueError, match=r"this is not JSON written by Units\.to_json"):
        Units.from_json(text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    keep = {own.name: np.arange(own.size) % 2 == 0 for own in units().sets.values() if not own.reduced}
    small = compact(units(), keep, PARAMS, optax.trace(0.9).init(PARAMS))
    return export(small, tmp_path_factory.mktemp("models") / "model", X, platforms=("cpu",))


def test_no_mutant_of_a_model_is_taken(fuzz, folder, tmp_path):
    data, rng = json.loads((folder / "model.json").read_text()), np.random.default_rng(2)
    shutil.copytree(folder, tmp_path / "model")
    for _ in range(fuzz):
        changed = mutant(data, rng)
        (tmp_path / "model/model.json").write_text(json.dumps(changed))
        if changed != data:
            with pytest.raises(ValueError, match=r"model.json (is damaged|has format)"):
                load_compact(tmp_path / "model")


@pytest.mark.parametrize("name", ["model.json", "params.safetensors", "model.stablehlo", "opt_state.safetensors"])
def test_no_flipped_bit_is_taken(fuzz, name, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "model")
    content, rng = (folder / name).read_bytes(), np.random.default_rng(3)
    whole = load_compact(folder)[0](load_compact(folder)[1], X)
    for _ in range(fuzz // 10):
        (tmp_path / "model" / name).write_bytes(flipped(content, rng))
        model, message = outcome(lambda: load_compact(tmp_path / "model"))
        if model is not None:
            loaded, params = model
            np.testing.assert_array_equal(loaded(params, X), whole)
            state, message = outcome(lambda p=params: load_opt_state(tmp_path / "model", optax.trace(0.9).init(p)))
            if state is not None:
                assert name == "model.json"  # white space
                continue
        assert name in message


def test_a_program_that_cannot_be_read_and_other_parameters_are_named(folder, tmp_path):
    """Consistent digests, as of a file of another version or of a mix of two models."""

    def with_file(name, content):
        target = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(folder, target)
        (target / name).write_bytes(content)
        data = json.loads((target / "model.json").read_text())
        data.pop("digest")
        data["sha256"][name] = hashlib.sha256(content).hexdigest()
        (target / "model.json").write_bytes(manifest.write(data))
        return target

    with pytest.raises(ValueError, match=r"model.stablehlo cannot be read by JAX"):
        load_compact(with_file("model.stablehlo", b"another format"))
    with pytest.raises(ValueError, match=r"a safetensors file cannot be read"):
        load_compact(with_file("params.safetensors", b"\x00" * 9))
    with pytest.raises(ValueError, match=r"parameter 'b1' has shape missing, and by model.json \(3,\)"):
        load_compact(with_file("params.safetensors", save({"w1": np.ones((4, 3), np.float32)})))
