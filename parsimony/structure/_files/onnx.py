"""A function as ONNX, by `jax2onnx`: its program in plain primitives, converted, run and compared."""

import contextlib
import importlib
import importlib.util
import itertools
import logging
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core as jex

from .._analysis.equation import as_function, interpreted
from .._analysis.rules.control import entered

MOST = 64
"""Slices that stand for a pooling; larger windows are left to the converter."""

TOLERANCE = 1e-4


def to_onnx(fn: Callable[..., Any], params: Any, structs: tuple, size: int) -> bytes:
    """fn(params, *args) with its parameters inside, as a file of ONNX that was run and compared.

    Args:
      fn, params: a function and its parameters.
      structs: shapes and dtypes of the arguments; the batch axis may be a symbol.
      size: the batch size of the comparison, where it is one.

    Returns:
      The file. Its inputs and outputs are the leaves of the arguments and of the result.

    Raises:
      ImportError: `jax2onnx` is not installed.
      ValueError: an operation that it cannot convert, or outputs that ONNX Runtime computes otherwise.
    """
    if importlib.util.find_spec("jax2onnx") is None:
        raise ImportError("format='onnx' needs jax2onnx: pip install 'parsimony-lbi[onnx]'.")
    given = jax.tree.leaves(structs)
    program = jax.make_jaxpr(plain(jax.make_jaxpr(lambda *args: fn(params, *args))(*structs)))(*given)
    wide = any(jax.dtypes.result_type(x) == np.float64 for x in jax.tree.leaves(params) + given)
    try:
        with _quiet():
            convert: Any = importlib.import_module("jax2onnx").to_onnx
            model = convert(jex.jaxpr_as_fun(program), given, enable_double_precision=wide)
    except Exception as error:  # each plugin of the converter fails in its own way
        message = (str(error).splitlines() or [""])[0]
        raise ValueError(
            f"jax2onnx cannot convert this function: {type(error).__name__}: {message} "
            "Where it needs to know the batch size write batch='fixed'; format='jax' runs wherever JAX does."
        ) from error
    data = model.SerializeToString()
    _compare(data, lambda *args: fn(params, *args), structs, size)
    return data


def plain(program) -> Callable[..., list[Any]]:
    """The program without calls, derivatives and other platforms' branches; poolings and padding in elementary steps.

    `jax2onnx` 0.17 has no rule for `platform_index`, its pooling of [batch, height, width, channels] is one that ONNX
    Runtime rejects, and it pads no array whose batch axis is a symbol.
    """

    return interpreted(program, _results)


def _results(eqn, operands: list) -> list:
    name, params = eqn.primitive.name, eqn.params
    if name == "platform_index":
        return [jnp.int32(0)]  # nothing reads it: of the branches for platforms the default is taken
    if (inside := entered(eqn)) is not None:
        program, first = inside
        return plain(program)(*operands[first:])
    if name in _POOLS and math.prod(params["window_dimensions"]) <= MOST and set(params["base_dilation"]) == {1}:
        return [_pooled(operands[0], _POOLS[name], params)]
    if name == "pad" and all(low >= 0 and high >= 0 and not between for low, high, between in params["padding_config"]):
        array, value = operands
        return [_padded(array, value, [pair[:2] for pair in params["padding_config"]])]
    if name == "select_n" and operands[-1].dtype == bool and len(operands) == 3:  # no `Where` of bools in ONNX Runtime
        second, zeroth, first = operands
        return [(second & first) | (~second & zeroth)]
    inside = {key: _plainer(value) for key, value in params.items()}
    return as_function(eqn.replace(params=inside))(*operands)


def _plainer(value):
    """A parameter of an equation, with the programs in it (of loops and branches) in plain primitives too."""
    if isinstance(value, jex.ClosedJaxpr):
        return jax.make_jaxpr(plain(value))(*value.in_avals)
    if isinstance(value, tuple) and any(isinstance(item, jex.ClosedJaxpr) for item in value):
        return tuple(_plainer(item) for item in value)
    return value


_POOLS: dict[str, tuple[Any, float]] = {"reduce_window_max": (lax.max, -math.inf), "reduce_window_sum": (lax.add, 0.0)}


def _pooled(x, pool: tuple[Any, float], params: dict[str, Any]):
    """The window's elements as slices of the padded array, combined one by one."""
    combine, start = pool
    least = start if jnp.issubdtype(x.dtype, jnp.inexact) or start == 0 else jnp.iinfo(x.dtype).min
    axes = [a for a, size in enumerate(params["window_dimensions"]) if size > 1 or params["window_strides"][a] > 1]
    x = _padded(x, jnp.asarray(least, x.dtype), params["padding"])
    result = None
    for place in itertools.product(*(range(params["window_dimensions"][axis]) for axis in axes)):
        part = x
        for axis, offset in zip(axes, place, strict=True):
            dilation, stride = params["window_dilation"][axis], params["window_strides"][axis]
            reach = (params["window_dimensions"][axis] - 1) * dilation
            number = (x.shape[axis] - reach - 1) // stride + 1
            first = offset * dilation
            part = lax.slice_in_dim(part, first, first + (number - 1) * stride + 1, stride, axis)
        result = part if result is None else combine(result, part)
    return result


def _padded(x, value, widths):
    """Joined to arrays of the value: the converter pads no array with a symbol in its shape."""
    for axis, pair in enumerate(widths):
        low, high = (
            [lax.broadcast_in_dim(value, (*x.shape[:axis], width, *x.shape[axis + 1 :]), ())] if width else []
            for width in pair
        )
        if low or high:
            x = lax.concatenate([*low, x, *high], axis)
    return x


def _compare(data: bytes, fn: Callable[..., Any], structs: tuple, size: int) -> None:
    """Raises if ONNX Runtime computes something else than JAX, on normally distributed numbers."""
    runtime: Any = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    rng = np.random.default_rng(0)

    def made_up(struct):
        shape = [n if isinstance(n, int) else size for n in struct.shape]
        floats = jnp.issubdtype(struct.dtype, jnp.inexact)
        return (rng.standard_normal(shape) if floats else np.zeros(shape)).astype(struct.dtype)

    args = jax.tree.map(made_up, structs)
    try:
        session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        names = [given.name for given in session.get_inputs()]
        found = session.run(None, dict(zip(names, jax.tree.leaves(args), strict=True)))
    except Exception as error:
        raise ValueError(f"ONNX Runtime cannot run the converted function: {str(error).splitlines()[0]}") from error
    for expected, output in zip(jax.tree.leaves(fn(*args)), found, strict=True):
        expected = np.asarray(expected)
        off = np.abs(expected - output).max(initial=0.0) / max(1.0, float(np.abs(expected).max(initial=0.0)))
        if not off <= TOLERANCE:
            raise ValueError(f"the converted function is another one: in ONNX Runtime outputs differ by {off:.2g}.")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the converter logs of its own optimizations."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
