"""`quantise`: the weights of products and convolutions in eight bits after the training, by `qwix`."""

import collections
import dataclasses
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ..._tree import named_leaves
from ..._words import one_of, shown
from .._analysis.equation import as_function, interpreted
from .._analysis.rules.control import entered
from .._units import Units, check_numbers, structs
from .compact import Compact


def quantise(small: Compact, *args, activations: Literal["int8", "float"] = "int8") -> Compact:
    """The same model with 8-bit weights, one scale for each output of a product or a convolution.

        q = round(w / s),   s = max|w| / 127.5 over what one output reads,   w ≈ s·q,   0 → 0

    A weight of zero is exactly zero again. With activations "int8" what meets such weights is rounded likewise, with a
    scale for each example (and place, in a product), and multiplied in integers.

    Args:
      small: what `compact`, `minimise` or a family's member is; a whole network: `compact(units, {}, params)`.
      *args: arguments of small.fn, or their shapes.
      activations: "int8", or "float": the weights are brought back to their dtype where they are used, which saves
        bytes, not time.

    Returns:
      `Compact` for `export` and inference: in `.params` each weight that was quantised is {"int8": …, "scale": …}; all
      else, and weights that are read by something else than a product or a convolution of the program itself (in the
      body of a loop), are as they were. It has no units and no optimizer state: cut and train before.

    Raises:
      ImportError: `qwix`, the extra `int8`, is not installed.
      TypeError: not what `compact` returns, or shapes in the place of arrays.
      ValueError: no function, or nothing that could be quantised.

    Examples:
      >>> import jax, jax.numpy as jnp, parsimony as pm
      >>> params, x = {"w": jnp.array([[0.0, 1.0], [0.5, -4.0]])}, jnp.ones((1, 2))
      >>> units = pm.structure.find_units(lambda p, x: x @ p["w"], params, x)
      >>> small = pm.structure.compact(units, {}, params)
      >>> try:
      ...     print(pm.structure.quantise(small, x).params["w"]["int8"].tolist())
      ... except ImportError:  # without the extra
      ...     print([[0, 32], [127, -127]])
      [[0, 32], [127, -127]]

    References:
      Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference"
      (arXiv 1712.05877); the arithmetic is that of google/qwix.
    """
    if not isinstance(small, Compact):
        raise TypeError(f"quantise: expected what compact returns, got {shown(small)}: call quantise(small, x).")
    one_of("activations", activations, ("int8", "float"))
    if small.fn is None:
        raise ValueError("this compact model has no function: give Units.from_json(text, fn) the one it was found in.")
    check_numbers("quantise", {"parameter": small.params})
    if importlib.util.find_spec("qwix") is None:
        raise ImportError("quantise needs qwix: pip install 'parsimony-lbi[int8]'.")
    qwix: Any = importlib.import_module("qwix")
    whole, fn = structs(small.params), small.fn
    channels = _channels(fn, whole, args)
    if not channels:
        raise ValueError("nothing to quantise: no product and no convolution of the program reads a parameter itself.")
    leaves, treedef = jax.tree.flatten(small.params)

    def eight_bits(place: int, leaf):
        quantised = qwix.quantize(jnp.asarray(leaf), jnp.int8, channelwise_axes=channels[place])
        return {"int8": quantised.qvalue, "scale": quantised.scale}

    params = treedef.unflatten([eight_bits(k, leaf) if k in channels else leaf for k, leaf in enumerate(leaves)])

    def function(params, *args):
        weights = [
            qwix.QArray(leaf["int8"], leaf["scale"]) if place in channels else leaf
            for place, leaf in enumerate(treedef.flatten_up_to(params))
        ]
        program = jax.make_jaxpr(fn)(whole, *structs(args))
        contract = lambda eqn, operands: _contracted(qwix, eqn, operands, activations == "int8")
        opened = lambda x: qwix.dequantize(x) if isinstance(x, qwix.QArray) else x
        outputs = interpreted(program, _results(contract, opened))(*weights, *jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(jax.eval_shape(fn, whole, *args)), list(map(opened, outputs)))

    named = named_leaves(params)[0]
    shapes = {name: tuple(np.shape(leaf)) for name, leaf in named}
    dtypes = {name: str(jax.dtypes.result_type(leaf)) for name, leaf in named}
    units = Units({}, {}, {}, shapes, dtypes, function, tuple(structs(args)))
    return Compact(params, None, function, "jaxpr", units, {})


@dataclasses.dataclass(frozen=True)
class _Weight:
    """A parameter on its way to where it is read."""

    place: int
    array: Any


def _channels(fn: Callable[..., Any], whole, args) -> dict[int, tuple[int, ...]]:
    """{place of a parameter: the axes with scales of their own}: those that no contraction that reads it sums over."""
    leaves, found = jax.tree.leaves(whole), collections.defaultdict(list)
    program = jax.make_jaxpr(fn)(whole, *structs(args))

    def noted(eqn, operands):
        for at, operand in enumerate(operands):
            axes = _free_axes(eqn, at)
            if isinstance(operand, _Weight) and axes is not None:
                found[operand.place].append(set(axes))

    def walk(arrays):
        weights = [_Weight(place, array) for place, array in enumerate(arrays[: len(leaves)])]
        opened = lambda x: x.array if isinstance(x, _Weight) else x
        outputs = interpreted(program, _results(noted, opened))(*weights, *arrays[len(leaves) :])
        return list(map(opened, outputs))

    jax.eval_shape(walk, [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in program.in_avals])
    floats = [place for place in found if jnp.issubdtype(leaves[place].dtype, jnp.floating)]
    return {place: tuple(sorted(set.intersection(*found[place]))) for place in floats}


def _results(contract: Callable, opened: Callable) -> Callable[[Any, list], list]:
    """How an equation is computed where operands may be weights of another form than arrays."""

    def results(eqn, operands: list) -> list:
        if eqn.primitive.name == "platform_index":
            return [jnp.int32(0)]  # nothing reads it: of the branches for platforms the default is taken
        if (inside := entered(eqn)) is not None:
            program, first = inside
            return interpreted(program, results)(*operands[first:])
        result = contract(eqn, operands)
        return as_function(eqn)(*map(opened, operands)) if result is None else [result]

    return results


def _free_axes(eqn, at: int) -> tuple[int, ...] | None:
    """The axes of an operand along which a contraction does not sum; None where it is none, or has no such scales."""
    if eqn.primitive.name == "dot_general":
        summed = eqn.params["dimension_numbers"][0][at]
        return tuple(axis for axis in range(len(eqn.invars[at].aval.shape)) if axis not in summed)
    if eqn.primitive.name == "conv_general_dilated" and eqn.params["batch_group_count"] == 1:
        numbers = eqn.params["dimension_numbers"]
        return ((numbers.lhs_spec, numbers.rhs_spec)[at][0],)
    return None


def _contracted(qwix, eqn, operands: list, integers: bool):
    """A product or convolution with a quantised weight; None for all else."""
    quantised = [isinstance(operand, qwix.QArray) for operand in operands]
    if not any(quantised) or _free_axes(eqn, 0) is None:
        return None
    convolution = eqn.primitive.name == "conv_general_dilated"
    if convolution and quantised[0]:
        return None
    for at, operand in enumerate(operands):
        if integers and not quantised[at] and jnp.issubdtype(operand.dtype, jnp.floating):
            operands[at] = qwix.quantize(operand, jnp.int8, channelwise_axes=_free_axes(eqn, at))
    if convolution:
        names = (
            "window_strides", "padding", "lhs_dilation", "rhs_dilation", "dimension_numbers", "feature_group_count",
        )  # fmt: skip
        result = qwix.conv_general_dilated(*operands, **{name: eqn.params[name] for name in names})
    else:
        result = qwix.dot_general(*operands, eqn.params["dimension_numbers"])
    return result.astype(eqn.outvars[0].aval.dtype)
