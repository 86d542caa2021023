"""`minimise`: the smallest dense program that computes what a masked model does; `release`: its zeros trained on."""

import dataclasses

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax

from ..._masks import KeepSupportState
from ..._readout import gammas
from ..._state import SplitLBIState, nodes, split_lbi_states
from ..._tree import is_numeric, named_leaves
from ..._words import shown
from .._analysis.analyse import Analysis
from .._analysis.find import find_units
from .._analysis.remembered import analysis_of
from .._choice.from_masks import by_parameter
from .._rewrite.cutting import back, on_host
from .._surgery.compact import Compact, compact, cut_tree
from .._surgery.opt_state import belongs
from .._units import Units, check_numbers, structs
from .fold import Array, Reasons, fold
from .merge import merge
from .passage import passable
from .reading import Reading
from .unheard import idle, unheard, zeroed


def minimise(fn, params, masks, *args, opt_state: optax.OptState | None = None) -> Compact:
    """The smallest dense program, by whole units, that computes what fn computes with the masked parameters.

    Single zeros save nothing; units do, and many a unit of a sparse model has lost all its inputs or all its readers:

    - A unit that nothing reads goes, then those that only it read, to a fixed point.
    - A unit without inputs is a number c (its bias through the activation). Where it is read by w and a bias b follows,
      b ← b + c·w takes its place. Where none follows, or zeros that pad an image would be read as c, all such units
      become one: w_r ← w_r + Σ_i (c_i/c_r)·w_i.
    - Of units that compute the same for all inputs, w_i ← w_i + w_j lets one be read in the place of the other, which
      goes: equal weights bit by bit, over inputs that are equal, through equal operations (an activation, a
      normalisation, a pooling). Where they are read otherwise, too, or one has another maker beside, both stay.
    - Features of the inputs that nothing reads go from the kernels, and the program leaves them out of what it reads.
    - What cannot go without another result, such as a channel that a LayerNorm averages over, stays, and `kept` says
      why. A layer that everything passes through keeps a unit.

    Each removal is proved on the traced program; widths that enter the arithmetic (LayerNorm, RMSNorm) are kept in it,
    as in `compact`.

    Args:
      fn: fn(params, *args), as in `find_units`, or the `Units` found in it, by find_units(..., inputs=True) at best.
      params: the parameters, and batch statistics where there are any.
      masks: a tree of bool arrays like `params` or a part of it, from `pm.select` or `pm.support`, or w != 0 of sparse
        weights; a parameter that it lacks (or None) is kept.
      *args: the other arguments of fn, or their shapes; none where `fn` is `Units`.
      opt_state: the state of an Optax transformation for `params` or a part of them, moved as by `compact`. Weights
        that took a constant or others up are True in the masks of `keep_support`; those under a penalty of Split LBI
        take none. Of units that are merged the moments of the one that stays are kept as they are.

    Returns:
      `Compact`, with `masks` and `kept`. To train inside the masks: keep_support(tx, small.masks); to train the zeros
      of the small arrays too: `release`.

    Raises:
      TypeError: `params` are shapes without numbers, or traced.
      ValueError: masks of other parameters, shapes or dtypes; and as `find_units` and `compact`.

    Examples:
      >>> import jax, jax.numpy as jnp, parsimony as pm
      >>> params = {"w1": jnp.ones((4, 3)), "b1": jnp.ones(3), "w2": jnp.ones((3, 2)), "b2": jnp.zeros(2)}
      >>> fn = lambda p, x: jax.nn.relu(x @ p["w1"] + p["b1"][None]) @ p["w2"] + p["b2"][None]
      >>> masks = {"w1": jnp.ones((4, 3), bool).at[:, 0].set(False), "w2": jnp.ones((3, 2), bool).at[1].set(False)}
      >>> small = pm.structure.minimise(fn, params, masks, jnp.ones((1, 4)))
      >>> small.params["w1"].shape, small.params["b2"].tolist()  # unit 0 was relu(0 + 1) = 1
      ((4, 1), [1.0, 1.0])
      >>> masked, x = pm.apply_masks(params, masks), jnp.ones((1, 4))
      >>> fn(masked, x).tolist(), small.fn(small.params, x).tolist()
      ([[6.0, 6.0]], [[6.0, 6.0]])

    References:
      The task is that of Squeeze-Release (arXiv 2606.14346); the proof on the traced program is ours.
    """
    if isinstance(fn, Units) and (args or fn.fn is None or not fn.arguments):
        raise ValueError(
            "minimise(units, params, masks): expected the Units that find_units returns, and no arguments."
        )
    check_numbers("minimise", {"parameter": params}, ", since their values tell which units can go")
    units = fn if isinstance(fn, Units) else find_units(fn, params, *args, inputs=True)
    leaves, treedef = units.matched(params)
    inside = by_parameter(units, masks)
    given: dict[str, Array] = {name: np.asarray(leaf) if is_numeric(leaf) else None for name, leaf in leaves}
    masked = {name: _inside(array, inside.get(name)) for name, array in given.items()}
    found = analysis_of(units, structs(params), units.arguments)
    new, gone, reasons = _reduced(units, found, masked, _penalised(units, opt_state))
    keep, passed = passable(units, found, gone)
    for name, unit in passed:
        reasons.setdefault(name, {})[unit] = "all that there is passes through its layer"
    took = {name: (array != 0) & (array != masked[name]) for name, array in new.items() if array is not None}
    free = {name: inside.get(name, True) | its for name, its in took.items()}
    arrays = [leaf if (array := new[name]) is None else _like(array, leaf) for name, leaf in leaves]
    opened = lambda name, mask: mask | took[belongs(name, took) or name]
    state = None if opt_state is None else _opened(opt_state, opened)
    small = compact(units, keep, treedef.unflatten(arrays), state)
    every = treedef.unflatten([free.get(name, np.ones(np.shape(leaf), bool)) for name, leaf in leaves])
    masks = jax.tree.map(jnp.asarray, cut_tree(units, keep, every))
    return dataclasses.replace(small, masks=masks, kept=_kept(units, new, gone, passed, reasons))


def release(small: Compact) -> Compact:
    """The same model with all weights of its small arrays free: training goes on, and what was masked to zero may move.

    Where `small.opt_state` is that of a `keep_support`, its masks are True everywhere; the transformation and all its
    moments stay as they are. Without one, leave `keep_support` out.

    Args:
      small: what `minimise` returned.

    Returns:
      `Compact`.

    Raises:
      TypeError: `small` is something else.
      ValueError: it has no masks: it comes from `compact`, and all its weights are free.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, parsimony as pm
      >>> params = {"w1": jnp.ones((4, 3)), "w2": jnp.ones((3, 2))}
      >>> fn = lambda p, x: jax.nn.relu(x @ p["w1"]) @ p["w2"]
      >>> masks = {"w1": jnp.ones((4, 3), bool).at[:, 0].set(False).at[2, 1].set(False)}
      >>> tx = pm.keep_support(optax.sgd(0.1), masks)
      >>> small = pm.structure.minimise(fn, params, masks, jnp.ones((1, 4)), opt_state=tx.init(params))
      >>> free = pm.structure.release(small)
      >>> [bool(optax.tree.get(s.opt_state, "masks")["w1"].all()) for s in (small, free)]
      [False, True]

    References:
      Arrived at as the second half of Squeeze-Release (arXiv 2606.14346).
    """
    if not isinstance(small, Compact):
        raise TypeError(f"release: expected what minimise returns, got {shown(small)}.")
    if small.masks is None:
        raise ValueError(
            "release: this compact model has no masks: it was not made by minimise, and all of it is free."
        )
    ones = lambda mask: jnp.ones_like(mask, dtype=bool)
    state = None if small.opt_state is None else _opened(small.opt_state, lambda name, mask: ones(mask))
    return dataclasses.replace(small, masks=jax.tree.map(ones, small.masks), opt_state=state)


def _reduced(units: Units, found: Analysis, params: dict[str, Array], closed: frozenset[str]):
    """Parameters that give the same outputs, the units that are zero in them and may go, and why others may not."""
    gone = {name: np.zeros(unit_set.size, bool) for name, unit_set in units.sets.items()}
    while True:
        reading, barred = Reading(found, params), set()
        while True:
            new = dict(params)
            reasons, moved = fold(reading, units, new, closed, barred)
            moved |= merge(reading, units, new, closed, barred)
            more, heard = unheard(units, found, new, gone)
            left = {(name, unit) for name, unit in moved if not more[name][unit]}
            if not left:
                break
            barred |= left  # moved for nothing: something else hears them
        params = zeroed(units, more, new)
        if all((more[name] == gone[name]).all() for name in gone):
            return params, gone, {name: heard.get(name, {}) | reasons.get(name, {}) for name in units.sets}
        gone = more


def _penalised(units: Units, opt_state) -> frozenset[str]:
    """Parameters whose zeros and values a penalty holds: W that is moved there would be drawn back."""
    states = split_lbi_states(opt_state) if nodes(SplitLBIState, opt_state) else []
    return frozenset(
        belongs(name, units.shapes) or name
        for state in states
        for name, penalty, _ in gammas(state)
        if penalty is not None
    )


def _opened(opt_state, opened):
    """The state with other masks in each `keep_support`: opened(name, mask)."""
    is_state = lambda node: isinstance(node, KeepSupportState)

    def of(node):
        if not is_state(node):
            return node
        leaves, treedef = named_leaves(node.masks)
        masks = treedef.unflatten([opened(name, mask) for name, mask in leaves])
        return KeepSupportState(masks, _opened(node.inner_state, opened))

    return jax.tree.map(of, opt_state, is_leaf=is_state)


def _inside(array: Array, mask) -> Array:
    return array if array is None or mask is None else np.where(mask, array, np.zeros_like(array))


def _like(array: np.ndarray, leaf):
    """The numbers where the leaf was."""
    return back(array, leaf) if on_host(leaf) else jax.device_put(array, getattr(leaf, "sharding", None))


def _kept(units: Units, params: dict[str, Array], gone, passed, reasons: Reasons) -> Reasons:
    """Of the units that stay without inputs or readers why they do."""
    kept: Reasons = {}
    for name, unit_set in units.sets.items():
        there = ~gone[name]
        there[[unit for its, unit in passed if its == name]] = True
        for unit in np.flatnonzero(there & idle(unit_set, params)).tolist():
            kept.setdefault(name, {})[unit] = reasons[name].get(unit, _OTHERWISE)
    return kept


_OTHERWISE = "its constant is read by something else than a sum over a parameter that is used once"
