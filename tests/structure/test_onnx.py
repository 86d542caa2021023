"""Export to ONNX: the program in plain primitives is the same function, and so is what ONNX Runtime makes of it."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax.extend.core import jaxpr_as_fun

import parsimony as pm
from helpers.architectures import QUICK, built, error
from parsimony.structure._files.onnx import plain

converter = pytest.mark.skipif(
    importlib.util.find_spec("jax2onnx") is None, reason="jax2onnx, the extra `onnx`, is not installed"
)
X = np.random.default_rng(0).standard_normal((2, 9, 8, 3)).astype("float32")
GONE = {"reduce_window_max", "reduce_window_sum", "pad", "platform_index", "cond"}
PARAMS = {"w1": jnp.ones((4, 6)), "w2": jnp.ones((6, 3))}


def mlp(params, x):
    return jax.nn.relu(x @ params["w1"]) @ params["w2"]


def halved(fn, params, x):
    units = pm.structure.find_units(fn, params, x)
    return pm.structure.compact(units, pm.structure.choose(units, params, sparsity=0.5, order="magnitude"), params)


def primitives(program):
    for eqn in program.eqns:
        yield eqn.primitive.name
        for inner in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            if hasattr(inner, "eqns"):
                yield from primitives(getattr(inner, "jaxpr", inner))


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: nnx.max_pool(x, (2, 2), (2, 2)),
        lambda x: nnx.max_pool(x, (3, 3), (2, 2), "SAME"),
        lambda x: nnx.avg_pool(x, (3, 2), (1, 2), "SAME"),
        lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 3, 1, 1), "VALID", None, (1, 2, 3, 1)),
        lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 0), (3, 0)), constant_values=2.0),
        lambda x: jnp.where(x > 0, x > 1, x < -1),
        lambda x: lax.platform_dependent(x, cpu=lambda x: x + 0.0, default=lambda x: x * 1.0),
    ],
    ids=["max pool", "padded", "mean pool", "dilated", "pad", "bools", "platforms"],
)
def test_a_program_in_plain_primitives_is_the_same_function(fn):
    program = jax.make_jaxpr(plain(jax.make_jaxpr(fn)(X)))(X)
    assert not {"reduce_window_max", "reduce_window_sum", "pad", "platform_index", "cond"} & {
        *primitives(program.jaxpr)
    }
    np.testing.assert_allclose(jaxpr_as_fun(program)(X)[0], fn(X), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", QUICK)
def test_so_is_that_of_a_network(name):
    fn, params, args, _ = built(name)
    program = jax.make_jaxpr(fn)(params, *args)
    assert error(plain(program)(*jax.tree.leaves((params, *args))), fn(params, *args)) < 1e-6


@converter
@pytest.mark.slow
@pytest.mark.parametrize("name", [*QUICK, "gpt", "llama", "resnet_option_a", "gru"])
def test_a_file_is_what_onnx_runtime_was_seen_to_compute(name, tmp_path):
    import onnxruntime

    fn, params, args, _ = built(name)
    small = pm.structure.compact(pm.structure.find_units(fn, params, *args), {}, params)
    path = pm.structure.export(small, tmp_path / "model.onnx", *args, batch="fixed", format="onnx")
    session = onnxruntime.InferenceSession(path)
    inputs = [given.name for given in session.get_inputs()]
    found = session.run(None, dict(zip(inputs, map(np.asarray, jax.tree.leaves(args)), strict=True)))
    assert error(found, fn(params, *args)) < 1e-4
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


@converter
def test_it_takes_any_batch_and_what_another_function_computes_is_not_written(tmp_path, monkeypatch):
    import jax2onnx
    import onnxruntime

    small = halved(mlp, PARAMS, jnp.ones((2, 4)))
    path = pm.structure.export(small, tmp_path / "mlp.onnx", jnp.ones((2, 4)), format="onnx")
    session = onnxruntime.InferenceSession(path)
    (given,) = session.get_inputs()
    assert session.run(None, {given.name: np.ones((5, 4), "float32")})[0].tolist() == [[12.0] * 3] * 5
    real = jax2onnx.to_onnx
    wrong = lambda fn, *rest, **more: real(lambda *args: [1.01 * x for x in fn(*args)], *rest, **more)
    monkeypatch.setattr(jax2onnx, "to_onnx", wrong)
    with pytest.raises(ValueError, match=r"another one: in ONNX Runtime outputs differ by 0\.01"):
        pm.structure.export(small, tmp_path / "other.onnx", jnp.ones((2, 4)), format="onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["mlp.onnx"]


def test_bad_input_is_told_before_any_work(tmp_path):
    small = halved(mlp, PARAMS, jnp.ones((2, 4)))
    with pytest.raises(ValueError, match="format='onx': expected one of jax, onnx; did you mean 'onnx'"):
        pm.structure.export(small, tmp_path / "mlp", jnp.ones((2, 4)), format="onx")  # pyright: ignore[reportArgumentType]
    (tmp_path / "there.onnx").touch()
    with pytest.raises(FileExistsError):
        pm.structure.export(small, tmp_path / "there.onnx", jnp.ones((2, 4)), format="onnx")


@pytest.mark.skipif(importlib.util.find_spec("jax2onnx") is not None, reason="the extra `onnx` is installed")
def test_without_the_extra_its_name_is_told(tmp_path):
    small = halved(mlp, PARAMS, jnp.ones((2, 4)))
    with pytest.raises(ImportError, match=r"pip install 'parsimony-lbi\[onnx\]'"):
        pm.structure.export(small, tmp_path / "mlp.onnx", jnp.ones((2, 4)), format="onnx")
