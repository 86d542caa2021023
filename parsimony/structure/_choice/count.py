"""Parameters, multiply-adds and bytes of a model, read off its traced program."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..._tree import is_numeric, named_leaves
from .._analysis.analyse import Analysis, analyse
from .._analysis.interpreter import Frame
from .._analysis.remembered import analysis_of
from .._rewrite.narrow import Narrowing
from .._units import Units, check_units, check_widths, structs


@dataclasses.dataclass(frozen=True)
class Counts:
    """What a model costs.

    Attributes:
      parameters: numbers in the tree of parameters; random keys in it do not count.
      macs: multiply-adds of its matrix products and convolutions, for the arguments that it was traced with.
      bytes: of the parameters.

    Examples:
      >>> import jax.numpy as jnp, parsimony as pm
      >>> pm.structure.count(lambda p, x: x @ p, jnp.ones((4, 6), jnp.bfloat16), jnp.ones((1, 4))).bytes
      48
    """

    parameters: int
    macs: int
    bytes: int


def count(fn, params, *args) -> Counts:
    """Counts parameters, multiply-adds and bytes of fn(params, *args), without running it.

    A product of (m, k) and (k, n) matrices has m·k·n multiply-adds; a convolution one for each output and each weight
    of its filter (with input dilation only for the actual inputs). Elementwise operations are not counted. The
    body of a scan counts as often as it runs, that of a `while` once; of branches the most expensive counts.

    Args:
      fn, params, *args: as in `find_units`; give a batch of one for the count of an example.

    Returns:
      `Counts`.

    Raises:
      ValueError: `fn` cannot be traced at these shapes.

    Examples:
      >>> import jax.numpy as jnp, parsimony as pm
      >>> pm.structure.count(lambda p, x: x @ p["w"], {"w": jnp.ones((4, 6))}, jnp.ones((1, 4)))
      Counts(parameters=24, macs=24, bytes=96)
    """
    return counts(analyse(fn, params, args), params, {})


def count_at(units: Units, widths: dict[str, int], params) -> Counts:
    """What the function of `units` would cost with other numbers of units, without making it.

    Args:
      units: what `find_units` found, with arguments of a batch of one for the count of an example.
      widths: {set: number of units}, more or fewer than there are; sets that are left out stay as they are.
      params: the parameters that the units were found in.

    Returns:
      `Counts`.

    Raises:
      ValueError: an unknown set, a width below 1, other parameters, units without a function.

    Examples:
      >>> import jax, jax.numpy as jnp, parsimony as pm
      >>> params = {"w1": jnp.ones((4, 6)), "w2": jnp.ones((6, 3))}
      >>> fn = lambda p, x: jax.nn.relu(x @ p["w1"]) @ p["w2"]
      >>> units = pm.structure.find_units(fn, params, jnp.ones((1, 4)))
      >>> pm.structure.count_at(units, {"w1": 10}, params)
      Counts(parameters=70, macs=70, bytes=280)
    """
    check_units("count_at(units, widths, params)", units, widths, params)
    units.matched(params)
    if units.fn is None or not units.arguments:
        raise ValueError("count_at needs the function that the units were found in: call find_units.")
    check_widths(units, widths)
    number = {}
    for name, width in widths.items():
        unit_set = units.sets[name]
        if width < 1:
            raise ValueError(f"widths[{name!r}] = {width}: expected at least 1 unit.")
        number[name] = unit_set.at_width(width)
    return counts(analysis_of(units, structs(params), units.arguments), params, number)


def counts(found: Analysis, params, keep: dict[str, np.ndarray]) -> Counts:
    """The same of the program without the removed units."""
    narrowing = Narrowing(found.copies(keep))
    numbers, size = 0, 0
    for (_, leaf), var in zip(named_leaves(params)[0], found.frame.jaxpr.invars, strict=False):
        if not is_numeric(leaf):
            continue
        elements = math.prod(narrowing.shape(found.frame.values[var]))
        numbers += elements
        size += elements * jnp.dtype(jax.dtypes.result_type(leaf)).itemsize
    return Counts(numbers, _macs(found.frame, narrowing), size)


def _macs(frame: Frame, narrowing: Narrowing) -> int:
    total = 0
    shape = lambda atom: narrowing.shape(frame.read(atom))
    for eqn, inner in zip(frame.jaxpr.eqns, frame.inner, strict=True):
        match eqn.primitive.name:
            case "dot_general":
                (one, other), _ = eqn.params["dimension_numbers"]
                left, right = (shape(atom) for atom in eqn.invars)
                # A kernel may read less than there is, see `find_units(inputs=True)`.
                read = (min(left[a], right[b]) for a, b in zip(one, other, strict=True))
                total += math.prod(shape(eqn.outvars[0])) * math.prod(read)
            case "ragged_dot_general":
                (contracted, _), _ = eqn.params["ragged_dot_dimension_numbers"].dot_dimension_numbers
                left = shape(eqn.invars[0])
                total += math.prod(shape(eqn.outvars[0])) * math.prod(left[axis] for axis in contracted)
            case "conv_general_dilated":
                total += _convolution(eqn.params, shape(eqn.outvars[0]), shape(eqn.invars[1]))
            case "scan":
                total += eqn.params["length"] * _macs(inner[0], narrowing)
            case "shard_map":
                devices = math.prod(eqn.params["mesh"].shape[name] for name in eqn.params["newly_manual_axes"])
                total += devices * _macs(inner[0], narrowing)
            case "cond":
                total += max(_macs(branch, narrowing) for branch in inner)
            case _:
                total += sum(_macs(part, narrowing) for part in inner)
    return total


def _convolution(params: dict[str, Any], out: tuple[int, ...], kernel: tuple[int, ...]) -> int:
    filters = kernel[params["dimension_numbers"].rhs_spec[0]]
    weights = math.prod(kernel) // filters if filters else 0
    return math.prod(out) * weights // math.prod(params["lhs_dilation"])
