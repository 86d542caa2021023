"""`refit`: the readers of what a cut leaves, fitted to what they gave before it."""

import dataclasses
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from ..._checks import check_positive
from ..._tree import named_leaves
from .._analysis.remembered import analysis_of
from .._minimise.reading import Reading
from .._surgery.compact import check_exact
from .._units import Units, check_numbers, check_units, structs
from .lockstep import Lockstep, Origin, Pair, inputs_go


@dataclasses.dataclass(frozen=True)
class Refitted:
    """Parameters for a cut, of the whole shapes.

    Attributes:
      params: a tree like the whole one, zero in all members of the removed units: for `compact` with the same `keep`.
      missing: {reader: (before, after)}: ‖y − y'‖²/‖y‖² over the inputs given, of what the parameter's sums gave in the
        whole model (y) and give in the cut one (y'), with its own weights and with the refitted ones.
      left_out: {set that loses units: why none of its readers was refitted}.

    Examples:
      >>> import jax, jax.numpy as jnp, numpy as np, parsimony as pm
      >>> params = {"w1": jnp.array([[1.0, 2.0]]), "w2": jnp.array([[1.0], [1.0]])}
      >>> fn = lambda p, x: jax.nn.relu(x @ p["w1"]) @ p["w2"]
      >>> x = jnp.array([[1.0], [2.0]])
      >>> units = pm.structure.find_units(fn, params, x)
      >>> refitted = pm.structure.refit(units, {"w1": np.array([True, False])}, params, x, ridge=1e-9)
      >>> [round(share, 3) for share in refitted.missing["w2"]], refitted.left_out
      ([0.444, 0.0], {})

    References:
      See `refit`.
    """

    params: Any
    missing: dict[str, tuple[float, float]]
    left_out: dict[str, str]


def refit(units: Units, keep, params, *args, ridge: float = 1e-3) -> Refitted:
    """A first step after a cut, without training: what read the removed units is made up for by the kept ones.

    For each parameter that reads units of which some go, in the order of the program,

        w' = argmin ‖y − x'·w'‖² + λ‖w' − w‖²,   λ = ridge·mean diag(x'ᵀx'),

    over the kept entries, where y is what its sums give in the whole model and x' what it reads in the cut one, the
    readers before it refitted already: normal equations in float64. Biases stay as they are. A reader is a dense layer
    or a convolution (without groups) over a parameter that is used once, not inside of a scan, a loop or a branch.

    Args:
      units: what `find_units` found.
      keep: {set: bool for each unit}, True stays, as for `compact`.
      params: the parameters that the units were found in, before the cut.
      *args: the other arguments of the function, for several hundred examples: the more weights a reader has, the more.
        No labels are needed. Memory is that of the function's activations, twice, and of a convolution's patches.
      ridge: > 0; more of it stays nearer to the weights.

    Returns:
      `Refitted`; then `compact(units, keep, refitted.params)`. An optimizer's state does not belong to the new weights.

    Raises:
      TypeError: parameters or arguments that are shapes without numbers, or traced; units that are none.
      ValueError: an unknown set, a mask or parameters of other shapes; a removal that is not exact; no arguments, or
        units without a function; a ridge that is not positive; activations that are not finite.

    Examples:
      >>> import jax, jax.numpy as jnp, numpy as np, parsimony as pm
      >>> params = {"w1": jnp.array([[1.0, 2.0]]), "w2": jnp.array([[1.0], [1.0]])}  # unit 1 is twice unit 0
      >>> fn = lambda p, x: jax.nn.relu(x @ p["w1"]) @ p["w2"]
      >>> x = jnp.array([[1.0], [2.0]])
      >>> units = pm.structure.find_units(fn, params, x)
      >>> keep = {"w1": np.array([True, False])}
      >>> refitted = pm.structure.refit(units, keep, params, x, ridge=1e-9)
      >>> small = pm.structure.compact(units, keep, refitted.params)
      >>> [round(float(w), 3) for w in small.params["w2"].ravel()]
      [3.0]

    References:
      Least squares on a layer's outputs after channels are removed: Channel Pruning (He, Zhang and Sun, arXiv
      1707.06168), there with the lasso that chooses them; the readers found in any function are ours.
    """
    check_units("refit(units, keep, params, *args)", units, keep, params, *args)
    keep = units.checked(keep)
    leaves, treedef = units.matched(params)
    check_positive("ridge", ridge)
    if units.fn is None or not args:
        what = "units with their function" if units.fn is None else "inputs after params"
        raise ValueError(f"refit needs {what}: call refit(units, keep, params, x) with units from find_units.")
    check_numbers("refit", {"parameter": params, "argument": list(args)})
    check_exact(units, keep)
    found = analysis_of(units, structs(params), structs(args))
    # Parameters that are used several times have several sums to fit.
    uses = Reading(found, {name: None for name, _ in leaves}).uses
    cut = dict(named_leaves(units.zero(keep, params))[0])
    lost = {name: its for name, its in _lost(units, keep).items() if uses[name] == 1 and _is_real(cut[name])}
    walk = Lockstep(lost, float(ridge))
    arguments = [_pair(name, leaf, cut[name], name in lost) for name, leaf in leaves]
    inputs = [Pair(x, x) for x in map(jnp.asarray, jax.tree.leaves(args))]
    walk.run(found.frame.jaxpr, found.frame.consts, [*arguments, *inputs])
    new = [walk.fits[name].weights if name in walk.fits else cut[name] for name, _ in leaves]
    missing = {name: (fit.before, fit.after) for name, fit in walk.fits.items()}
    return Refitted(treedef.unflatten(new), missing, _left_out(units, keep, walk))


def _lost(units: Units, keep) -> dict[str, np.ndarray]:
    """{parameter: bool of its shape, True where an entry is removed}."""
    lost = {}
    for name, axes in units.removed(keep).items():
        lost[name] = np.zeros(units.shapes[name], bool)
        for axis, gone in axes.items():
            lost[name] |= gone.reshape([-1 if a == axis else 1 for a in range(lost[name].ndim)])
    return lost


def _is_real(leaf) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def _pair(name: str, whole, cut, may_change: bool) -> Pair:
    if not may_change:
        return Pair(whole, cut)
    return Pair(whole, cut, Origin(name, jax.ShapeDtypeStruct(cut.shape, cut.dtype), lambda w: w))


def _left_out(units: Units, keep, walk: Lockstep) -> dict[str, str]:
    left = {}
    for name, mask in keep.items():
        lost = _lost(units, {name: mask})
        gone = (np.asarray(walk.matrices[p](jnp.asarray(lost[p], float))) != 0 for p in walk.matrices if p in lost)
        if lost and not any(map(inputs_go, gone)):
            left[name] = "its units are read by no dense layer or convolution over a parameter that is used once"
    return left
