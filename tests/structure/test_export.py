"""A compact model on disk: it comes back, runs with JAX alone, and damage is named."""

import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import parsimony as pm
from helpers.architectures import ARCHITECTURES
from helpers.cases import mostly
from parsimony._tree import named_leaves
from parsimony.structure import compact, export, find_units, load_compact, load_opt_state


def shrunk(name, opt=None):
    fn, params, args = ARCHITECTURES[name]()
    units = find_units(fn, params, *args)
    keep = {s.name: np.arange(s.size) > 0 for s in units.sets.values() if s.size > 2}
    return compact(units, keep, params, None if opt is None else opt.init(params)), args


@pytest.mark.parametrize("name", mostly(["lenet", "resnet", "gpt", "control_flow"], ["lenet"]))
def test_it_comes_back_with_the_same_outputs_at_any_batch_size(name, tmp_path):
    small, args = shrunk(name)
    fn, params = load_compact(export(small, tmp_path / "model", *args))
    assert jax.tree.map(jnp.shape, jax.tree.leaves(params)) == jax.tree.map(jnp.shape, jax.tree.leaves(small.params))
    for x in (args, [jnp.concatenate([a, a, a]) for a in args]):
        np.testing.assert_allclose(fn(params, *x), small.fn(small.params, *x), rtol=1e-5, atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_a_loop_over_the_batch_is_as_long_as_the_batch(tmp_path):
    """Image by image, as a convolution on a CPU takes them; the program of the small model has the loop too."""
    params = {"w1": jnp.ones((4, 6)), "w2": jnp.ones((6, 3))}
    fn = lambda p, x: jax.lax.map(lambda row: jax.nn.relu(row @ p["w1"]) @ p["w2"] / len(p["w2"]), x)
    small = compact(find_units(fn, params, jnp.ones((2, 4))), {"w1": np.arange(6) < 2}, params)
    assert small.route == "jaxpr"
    loaded, its = load_compact(export(small, tmp_path / "model", jnp.ones((2, 4))))
    np.testing.assert_allclose(loaded(its, jnp.ones((5, 4))), np.full((5, 3), 8 / 6), rtol=1e-6)


def rotary(x):
    """Neighbouring features as the two coordinates of a point that is turned by its position."""
    angle = jnp.arange(x.shape[1])[:, None] / 10.0 ** jnp.arange(x.shape[-1] // 2)[None]
    cos, sin = jnp.cos(angle)[None, :, None], jnp.sin(angle)[None, :, None]
    even, odd = x[..., ::2], x[..., 1::2]
    return jnp.stack([even * cos - odd * sin, even * sin + odd * cos], -1).reshape(x.shape)


def grouped_queries(p, x):
    """Four heads of queries on two of keys and values, six features each."""
    batch, time, _ = x.shape
    heads = lambda name, n: (x @ p[name]).reshape(batch, time, n, 6)
    q, k, v = rotary(heads("q", 4)).reshape(batch, time, 2, 2, 6), rotary(heads("k", 2)), heads("v", 2)
    weights = jax.nn.softmax(jnp.einsum("btkgd,bskd->bkgts", q, k))
    return jnp.einsum("bkgts,bskd->btkgd", weights, v).reshape(batch, time, 24) @ p["o"]


@pytest.mark.slow
def test_rotary_attention_with_grouped_queries_takes_any_batch_size(tmp_path):
    """At a symbolic size a strided slice is traced as a gather, whose indices follow from the program alone."""
    shapes = {"q": (8, 24), "k": (8, 12), "v": (8, 12), "o": (24, 5)}
    params = {name: jax.random.normal(jax.random.key(i), shape) for i, (name, shape) in enumerate(shapes.items())}
    x = jax.random.normal(jax.random.key(9), (2, 5, 8))
    units = find_units(grouped_queries, params, x)
    assert sorted(own.size for own in units.sets.values()) == [2, 2, 3, 6]  # groups, heads of each, pairs, values
    keep = {own.name: np.arange(own.size) > 0 for own in units.sets.values()}
    small = compact(units, keep, params)
    fn, loaded = load_compact(export(small, tmp_path / "model", x))
    three = jnp.concatenate([x, x[:1]])
    np.testing.assert_allclose(fn(loaded, three), small.fn(small.params, three), rtol=1e-5, atol=1e-5)
    whole = grouped_queries(units.zero(keep, params), x)
    np.testing.assert_allclose(small.fn(small.params, x), whole, rtol=1e-4, atol=1e-4)


def test_names_and_structure_come_back():
    small, args = shrunk("resnet")
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        _, params = load_compact(export(small, folder + "/a/b", *args))
    assert params["blocks"]["layers"][0]["conv1"]["conv"]["kernel"].shape == (3, 3, 7, 7)


@pytest.mark.slow
def test_it_runs_with_jax_alone(tmp_path):
    small, (x,) = shrunk("vit")
    export(small, tmp_path / "model", x)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", small.fn(small.params, x))
    script = """
        import sys, numpy, jax, safetensors.numpy
        sys.modules["parsimony"] = sys.modules["flax"] = sys.modules["optax"] = None  # not to be imported
        folder = sys.argv[1]
        program = jax.export.deserialize(bytearray(open(folder + "/model/model.stablehlo", "rb").read()))
        params = safetensors.numpy.load_file(folder + "/model/params.safetensors")
        y = program.call(params, numpy.load(folder + "/x.npy"))
        print(float(abs(y - numpy.load(folder + "/y.npy")).max()))
    """
    run = subprocess.run(
        [sys.executable, "-c", "import jax.export\n" + textwrap.dedent(script), str(tmp_path)],
        capture_output=True, text=True, env={**os.environ, "XLA_FLAGS": ""},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) < 1e-5


def test_bfloat16_and_integers_keep_their_dtypes(tmp_path):
    params = {"w1": jnp.ones((4, 6), jnp.bfloat16), "w2": jnp.ones((6, 3), jnp.bfloat16), "steps": jnp.int32(7)}
    fn = lambda p, x: jax.nn.relu(x @ p["w1"]) @ p["w2"] + p["steps"].astype(jnp.bfloat16)
    x = jnp.ones((2, 4), jnp.bfloat16)
    small = compact(find_units(fn, params, x), {"w1": np.arange(6) < 2}, params)
    back, loaded = load_compact(export(small, tmp_path / "model", x))
    assert jax.tree.map(lambda a: a.dtype, loaded) == jax.tree.map(lambda a: a.dtype, params)
    np.testing.assert_array_equal(back(loaded, x), small.fn(small.params, x))


def test_the_optimizer_state_goes_along(tmp_path):
    tx = pm.record_path(pm.split_lbi(0.1, momentum=0.9))
    small, args = shrunk("lenet", tx)
    folder = export(small, tmp_path / "model", *args)
    _, params = load_compact(folder)
    state = load_opt_state(folder, tx.init(params))
    assert jax.tree.structure(state) == jax.tree.structure(small.opt_state)
    for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(small.opt_state), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype
    with pytest.raises(ValueError, match=r"of another optimizer: .* has shape"):
        load_opt_state(folder, optax.adam(0.1).init(params))
    plain = export(compact(small.units, {}, ARCHITECTURES["lenet"]()[1]), tmp_path / "plain", *args)
    with pytest.raises(ValueError, match="holds no optimizer state"):
        load_opt_state(plain, tx.init(params))


def test_a_model_is_never_overwritten_nor_half_written(tmp_path):
    small, args = shrunk("lenet")
    export(small, tmp_path / "model", *args)
    before = (tmp_path / "model/model.json").read_bytes()
    with pytest.raises(FileExistsError, match="never overwritten"):
        export(small, tmp_path / "model", *args)
    assert (tmp_path / "model/model.json").read_bytes() == before
    with pytest.raises(ValueError, match=r"export of the function failed"):
        export(small, tmp_path / "other", jnp.ones((2, 9, 9, 3)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_a_function_that_needs_its_batch_size_says_so_and_can_be_exported_for_it(tmp_path):
    params = {"w1": jnp.ones((4, 6)), "w2": jnp.ones((6, 3))}

    def fn(params, x):
        if x.shape[0] not in (2, 4):
            raise ValueError("two or four, please")
        return jax.nn.relu(x @ params["w1"]) @ params["w2"]

    x = jnp.ones((2, 4))
    small = compact(find_units(fn, params, x), {"w1": np.arange(6) < 2}, params)
    with pytest.raises(ValueError, match=r"batch='fixed'"):
        export(small, tmp_path / "model", x)
    back, loaded = load_compact(export(small, tmp_path / "model", x, batch="fixed"))
    np.testing.assert_array_equal(back(loaded, x), small.fn(small.params, x))


@pytest.mark.parametrize("name", ["params.safetensors", "model.stablehlo", "model.json"])
def test_damage_is_named(name, tmp_path):
    small, args = shrunk("lenet")
    folder = export(small, tmp_path / "model", *args)
    file = folder / name
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=f"{name} is damaged"):
        load_compact(folder)
    flipped = bytearray(content)
    flipped[len(flipped) // 2] ^= 1
    if name != "model.json":
        file.write_bytes(flipped)
        with pytest.raises(ValueError, match=f"{name} is damaged"):
            load_compact(folder)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=f"{name} is missing"):
        load_compact(folder)


def test_parameters_of_another_shape_are_named(tmp_path):
    small, args = shrunk("lenet")
    fn, params = load_compact(export(small, tmp_path / "model", *args))
    params["conv1"]["bias"] = jnp.ones(6)
    with pytest.raises(ValueError, match=r"'conv1/bias' has shape \(6,\); this model has \(5,\)"):
        fn(params, *args)


def test_units_without_a_function_cannot_be_exported(tmp_path):
    fn, params, args = ARCHITECTURES["lenet"]()
    units = pm.structure.Units.from_json(find_units(fn, params, *args).to_json())
    with pytest.raises(ValueError, match=r"has no function"):
        export(compact(units, {}, params), tmp_path / "model", *args)


@pytest.mark.slow
def test_a_loaded_model_can_be_trained_on_and_mapped(tmp_path):
    small, (x,) = shrunk("lenet")
    fn, params = load_compact(export(small, tmp_path / "model", x))
    loss = lambda fn: lambda params: jnp.mean(jnp.square(fn(params, x)))
    gradient, expected = jax.jit(jax.grad(loss(fn)))(params), jax.jit(jax.grad(loss(small.fn)))(small.params)
    for one, other in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * np.abs(other).max())
    tx = optax.adam(1e-3)
    state = tx.init(params)
    before, slope, update = loss(fn)(params), jax.jit(jax.grad(loss(fn))), jax.jit(tx.update)
    for _ in range(3):
        updates, state = update(slope(params), state)
        params = optax.apply_updates(params, updates)
    assert loss(fn)(params) < before
    each = jax.jit(jax.vmap(lambda x: fn(params, x[None])[0]))(x)
    np.testing.assert_allclose(each, fn(params, x), rtol=1e-5, atol=1e-5)
    of_one = jax.grad(lambda p, x: jnp.sum(fn(p, x[None])))
    of_each = jax.jit(jax.vmap(lambda x: of_one(params, x)["conv1"]["bias"]))(x)
    of_all = jax.jit(jax.grad(lambda p: jnp.sum(fn(p, x))))(params)["conv1"]["bias"]
    np.testing.assert_allclose(of_each.sum(0), of_all, rtol=1e-4, atol=1e-4)


def test_what_a_loaded_program_cannot_do_is_said(tmp_path):
    small, args = shrunk("control_flow")
    fn, params = load_compact(export(small, tmp_path / "model", *args))
    with pytest.raises(ValueError, match=r"exported without its derivative: .*while_loop"):
        jax.grad(lambda p: fn(p, *args).sum())(params)
    closed = find_units(fn, params, *args)
    assert not closed.sets
    assert set(closed.fixed.values() and next(iter(closed.fixed.values())).values()) == {
        "an exported program, which is closed: give load_compact(path, fn) the function that it was made of"
    }


@pytest.mark.parametrize("name", mostly(["lenet", "vit"], ["lenet"]))
def test_with_the_code_at_hand_everything_works_on_a_loaded_model(name, tmp_path):
    """By either route: units are found again, removed again, and derivatives are of any order."""
    whole, _, args = ARCHITECTURES[name]()
    small, _ = shrunk(name)
    fn, params = load_compact(export(small, tmp_path / "model", *args), whole)
    np.testing.assert_allclose(fn(params, *args), small.fn(small.params, *args), rtol=1e-6, atol=1e-6)
    units = find_units(fn, params, *args)
    keep = {own.name: np.arange(own.size) > 0 for own in units.sets.values() if own.size > 2}
    again = compact(units, keep, params)
    np.testing.assert_allclose(again.fn(again.params, *args), fn(units.zero(keep, params), *args), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_state_of_flax_nnx_and_a_bare_array_come_back_by_their_names(tmp_path):
    from flax import nnx

    model = nnx.Sequential(nnx.Linear(4, 6, rngs=nnx.Rngs(0)), nnx.relu, nnx.Linear(6, 3, rngs=nnx.Rngs(1)))
    graphdef, state = nnx.split(model)
    x = jnp.ones((2, 4))
    cases = {
        "state": (lambda p, x: nnx.merge(graphdef, p)(x), state),
        "array": (lambda p, x: jax.nn.relu(x @ p) @ p.T, jnp.ones((4, 6))),
    }
    for name, (fn, params) in cases.items():
        units = find_units(fn, params, x)
        small = compact(units, {own.name: np.arange(6) < 4 for own in units.sets.values()}, params)
        back, loaded = load_compact(export(small, tmp_path / name, x))
        np.testing.assert_array_equal(back(loaded, x), small.fn(small.params, x))
        assert [own for own, _ in named_leaves(loaded)[0]] == list(units.shapes)
