"""`compact`: a model without the removed units, with the same outputs as with all their members at zero."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from ..._checks import check_flag
from ..._tree import named_leaves
from .._analysis.remembered import analysis_of
from .._rewrite.equality import same_program
from .._rewrite.flow import passes
from .._rewrite.narrow import Narrowing, Part
from .._units import Units, check_units, structs
from .index_map import Layout, cut_layouts, spread
from .opt_state import belongs, transplant


@dataclasses.dataclass(frozen=True)
class Compact:
    """A compact model.

    Attributes:
      params: the parameters (and batch statistics) that are left, a tree like the whole one.
      opt_state: the optimizer state that belongs to them, or None.
      fn: fn(params, *args) on them: jit, grad, vmap and training work as on the whole function.
      route: "module" where the function itself runs on narrower arrays with the same result; "jaxpr" where a width
        enters its arithmetic or its shapes, and the traced program is evaluated with rewritten ones; "none" where the
        units came without a function.
      units, keep: what it was made from.
      masks: of `minimise`: a tree like `params`, False where a weight is zero because it was masked; else None.
      kept: of `minimise`: {set: {unit of the whole model: why it stays, though it has no inputs or no readers}}.

    Examples:
      >>> import jax, jax.numpy as jnp, numpy as np, parsimony as pm
      >>> params = {"w1": jnp.ones((4, 6)), "w2": jnp.ones((6, 3))}
      >>> fn = lambda p, x: jax.nn.relu(x @ p["w1"]) @ p["w2"]
      >>> units = pm.structure.find_units(fn, params, jnp.ones((1, 4)))
      >>> small = pm.structure.compact(units, {"w1": np.arange(6) < 2}, params)
      >>> small.route, small.params["w2"].shape, small.opt_state
      ('module', (2, 3), None)
    """

    params: Any
    opt_state: Any
    fn: Callable[..., Any] | None
    route: str
    units: Units = dataclasses.field(repr=False)
    keep: dict[str, np.ndarray] = dataclasses.field(repr=False)
    masks: Any = dataclasses.field(default=None, repr=False)
    kept: dict[str, dict[int, str]] = dataclasses.field(default_factory=dict)


def compact(units: Units, keep, params, opt_state: optax.OptState | None = None, *, exact: bool = True) -> Compact:
    """Removes units: fewer and smaller arrays, the same outputs as `units.zero(keep, params)` gives the whole function.

    Args:
      units: what `find_units` found in the function.
      keep: {set: bool for each unit}, True stays; sets that are left out are kept whole. Made by hand, by
        `keep_from_masks` or by `choose`. A set may be emptied where a shortcut leads past it.
      params: the parameters that the units were found in (any values).
      opt_state: the state of an Optax transformation for `params` or a part of them: what belongs to a removed index
        goes, all else stays as it is.
      exact: False also removes from sets that are `reduced`; the outputs then differ from those of the zeroed model.

    Returns:
      `Compact`.

    Raises:
      ValueError: an unknown set, a mask of another shape, an emptied set; parameters or a state of other shapes; a
        removal that is not exact.

    Examples:
      >>> import jax, jax.numpy as jnp, numpy as np, parsimony as pm
      >>> params = {"w1": jnp.ones((4, 6)), "b1": jnp.ones(6), "w2": jnp.ones((6, 3))}
      >>> fn = lambda p, x: jax.nn.relu(x @ p["w1"] + p["b1"][None]) @ p["w2"]
      >>> units = pm.structure.find_units(fn, params, jnp.ones((2, 4)))
      >>> small = pm.structure.compact(units, {"w1": np.array([True, False, True, False, False, False])}, params)
      >>> jax.tree.map(jnp.shape, small.params), small.route
      ({'b1': (2,), 'w1': (4, 2), 'w2': (2, 3)}, 'module')
      >>> small.fn(small.params, jnp.ones((1, 4))).tolist()
      [[10.0, 10.0, 10.0]]

    References:
      The aim is that of DepGraph (arXiv 2301.12900), cutting what is coupled; the contract, and the rewriting of the
      traced program where a width enters it, are ours.
    """
    check_units("compact(units, keep, params, opt_state)", units, keep, params, opt_state)
    check_flag("exact", exact)
    keep = units.checked(keep)
    units.matched(params)
    if exact:
        check_exact(units, keep)
    removed = units.removed(keep)
    _check_passage(units, keep, removed, params)
    small = cut_tree(units, keep, params)
    places = cut_layouts(removed)
    _check_gates(units, opt_state)
    state = None if opt_state is None else transplant(opt_state, units.shapes, places)
    return Compact(small, state, *resized(units, keep, params, small), units, keep)


def _check_gates(units: Units, opt_state) -> None:
    """Raises if a state is of gates that the parameters do not have: `fold` has no place for theirs."""
    for leaf, _ in named_leaves(opt_state)[0]:
        gate = next((f"gates/{own}" for own in units.sets if leaf.endswith(f"gates/{own}")), None)
        if gate is None or (belongs(leaf, units.shapes) or "").endswith(gate):
            continue
        raise ValueError(
            f"opt_state leaf {leaf!r} is of gates, which these parameters do not have. Give the part of the state that "
            "is of the weights, or compact the gated function with its state before `fold`: its units are those of "
            "find_units(gated.fn, gated_params, *args)."
        )


def check_exact(units: Units, keep: dict[str, np.ndarray]) -> None:
    """Raises if a removal does not leave the outputs of the model with zeros."""
    for name, mask in keep.items():
        if not mask.all() and units.sets[name].reduced:
            raise ValueError(
                f"removing units of {name!r} is not exact: {units.sets[name].reason}. Leave this set whole, or accept "
                "other outputs with compact(..., exact=False) and train on."
            )


def cut_tree(units: Units, keep: dict[str, np.ndarray], tree):
    """Arrays of the parameters' names and shapes without what is removed."""
    leaves, treedef = named_leaves(tree)
    places = cut_layouts(units.removed(keep))
    return treedef.unflatten([_cut(leaf, places.get(name, {})) for name, leaf in leaves])


def _check_passage(units: Units, keep, removed, params) -> None:
    """Raises if a layer is emptied that everything passes through; a residual branch may go as a whole."""
    emptied = [name for name, mask in keep.items() if not mask.any()]
    axes = [(name, axis) for name, axes in removed.items() for axis, gone in axes.items() if gone.all()]
    if not axes:
        return
    known = units.fn is not None and units.arguments
    if known and passes(analysis_of(units, structs(params), units.arguments), keep):
        return
    if emptied:
        size = units.sets[emptied[0]].size
        raise ValueError(
            f"keep[{emptied[0]!r}] would empty the layer: all {size} units are removed and nothing passes through. "
            "Keep at least one unit, unless a shortcut leads past them."
        )
    name, axis = axes[0]
    raise ValueError(
        f"keep would empty axis {axis} of parameter {name!r}: its units, of several sets, are all removed, and nothing "
        "passes through. Keep more of one of them."
    )


def _cut(leaf, axes: dict[int, Layout]):
    if isinstance(leaf, jax.ShapeDtypeStruct):
        sizes = (len(axes[axis].source) if axis in axes else n for axis, n in enumerate(leaf.shape))
        return jax.ShapeDtypeStruct(tuple(sizes), leaf.dtype)
    return spread(leaf, axes, 0)


def resized(units: Units, number: dict[str, np.ndarray], params, new) -> tuple[Callable[..., Any] | None, str]:
    """(fn, route) for the parameters `new`: how many there are of each unit, 0 or False for those that are removed."""
    if units.fn is None:
        return None, "none"
    emptied = any(not np.any(mask) for mask in number.values())  # which a module may not be able to compute with
    if not emptied and _runs_equally(units, number, params, new):
        return units.fn, "module"
    return narrowed(units, number, structs(params)), "jaxpr"


def _runs_equally(units: Units, number, params, new) -> bool:
    """Whether the function on arrays of other sizes is the program that the rewriting gives."""
    assert units.fn is not None
    if not units.arguments:
        return False
    try:
        closed = jax.make_jaxpr(units.fn)(structs(new), *units.arguments)
    except Exception:  # any: each module rejects unexpected widths in its own way
        return False
    found = analysis_of(units, structs(params), units.arguments)
    return same_program(Narrowing(found.copies(number)), found.frame, closed)


def narrowed(units: Units, number, whole) -> Callable[..., Any]:
    """fn on arrays of other sizes: its program, traced on whole arrays for each new shape of the arguments."""
    fn = units.fn
    assert fn is not None

    @functools.wraps(fn)
    def function(params, *args):
        found = analysis_of(units, whole, structs(args))
        narrowing = Narrowing(found.copies(number))
        leaves, _ = named_leaves(params)
        arrays = [leaf for _, leaf in leaves] + jax.tree.leaves(args)
        values = [found.frame.read(var) for var in found.frame.jaxpr.invars]
        for (name, leaf), value in zip(leaves, values, strict=False):
            if np.shape(leaf) != narrowing.shape(value):
                raise ValueError(
                    f"parameter {name!r}: the compact function expects shape {narrowing.shape(value)}, got "
                    f"{np.shape(leaf)}; give it the compact parameters."
                )
        outputs = narrowing.run(
            found.frame, [Part(a, v) for a, v in zip(map(jax.numpy.asarray, arrays), values, strict=True)]
        )
        return jax.tree.unflatten(found.out_tree, [part.array for part in outputs])

    return function
