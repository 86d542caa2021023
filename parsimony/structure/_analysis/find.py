"""`find_units`: what can be removed from a function."""

from typing import Any

import jax
import jax.numpy as jnp

from ..._checks import check_flag
from ..._state import check_params
from ..._tree import named_leaves
from ..._words import shown
from .._units import Units, structs
from .analyse import analyse
from .remembered import remember


def find_units(fn, params, *args, inputs: bool = False) -> Units:
    """Finds which slices of which parameters live and die together in fn(params, *args).

    The function is traced, not run, and every index of every axis of every array gets a label. One rule for each JAX
    primitive unites the labels that must go together: a matrix product its contracted indices, a residual sum its
    channels. What meets the inputs or the outputs is fixed. Every class of labels that is not is a *unit*.

    Removal is exact: `compact` computes what the function computes with all members of the removed units at zero. Where
    that is impossible (a softmax over the units), the set is marked `reduced`, and `compact` raises an error.

    Args:
      fn: fn(params, *args), any function that `jax.jit` takes, of a Flax, Equinox or plain JAX model; at inference
        (running statistics; no dropout), with batch statistics among `params` where there are any.
      params: a tree of arrays or `jax.ShapeDtypeStruct`.
      *args: the other arguments, or their shapes; the same units are found at any batch size.
      inputs: True also finds the features of the inputs that a kernel reads, such as pixels, as units of that kernel:
        without one of them its row goes, and the compact function leaves this feature of its input out. For `minimise`
        and `keep_from_masks`; `choose` and `unit_penalty` leave them whole.

    Returns:
      `Units`; `print` shows a table.

    Raises:
      TypeError: `fn` is not a function.
      ValueError: `fn` cannot be traced at these shapes, or `params` holds no arrays.

    Examples:
      >>> import jax, jax.numpy as jnp, parsimony as pm
      >>> params = {"w1": jnp.ones((4, 6)), "b1": jnp.ones(6), "w2": jnp.ones((6, 3))}
      >>> fn = lambda p, x: jax.nn.relu(x @ p["w1"] + p["b1"][None]) @ p["w2"]
      >>> print(pm.structure.find_units(fn, params, jnp.ones((2, 4))))
      set  units  members: parameter[axis]×indices a unit  removal
      w1   6      w1[1], b1[0], w2[0]                      exact
      fixed, an axis of the input: w1[0]
      fixed, an axis of the output: w2[1]

    References:
      The coupling of layers as in DepGraph (Fang et al., arXiv 2301.12900), read off the program itself.
    """
    leaves, _ = named_leaves(params)
    if not leaves:
        raise ValueError(
            "find_units: params holds no arrays; expected fn(params, x) with its tree of parameters first."
        )
    if not callable(fn):
        swapped = "; the arguments are swapped: find_units(fn, params, x)" if callable(params) else ""
        raise TypeError(f"find_units: expected a function fn(params, x) first, got {shown(fn)}{swapped}.")
    check_params(params)
    check_flag("inputs", inputs)
    found = analyse(fn, params, args, bool(inputs))
    shapes = {name: tuple(jnp.shape(leaf)) for name, leaf in leaves}
    dtypes = {name: str(jax.dtypes.result_type(leaf)) for name, leaf in leaves}
    arguments: Any = structs(args)
    units = Units(found.sets, found.fixed, found.unknown, shapes, dtypes, fn, arguments, bool(inputs))
    remember(units, structs(params), arguments, found)
    return units
