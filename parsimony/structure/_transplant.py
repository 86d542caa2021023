"""An optimizer state after surgery: what belongs to a removed index goes, all else stays."""

import dataclasses

import jax
import numpy as np

from .._path import RecordPathState
from .._readout import split_lbi_states
from .._rules import Rules, named_leaves, resolve
from .._split_lbi import SplitLBIState
from .._unit_penalty import UnitPenalty
from ._narrow import cut

Removed = dict[str, dict[int, np.ndarray]]


def transplant(opt_state, shapes: dict[str, tuple[int, ...]], removed: Removed):
    """The optimizer state for the parameters without what is removed.

    A leaf of the state belongs to the parameter whose name its own name ends with, and has its shape. That is so in the
    states of Optax: traces, moments, accumulated gradients, masks, V. What `record_path` noted is cut by groups.

    Raises:
      ValueError: a leaf that belongs to a parameter and has another shape, such as a factored moment.
    """
    is_split_lbi = lambda node: isinstance(node, SplitLBIState)
    return jax.tree.map(
        lambda node: dataclasses.replace(node, penalty=_less(node.penalty, removed)) if is_split_lbi(node) else node,
        _arrays(opt_state, shapes, removed),
        is_leaf=is_split_lbi,
    )


def _arrays(opt_state, shapes, removed: Removed):
    is_record = lambda node: isinstance(node, RecordPathState)
    return jax.tree.map(
        lambda node: _record(node, shapes, removed) if is_record(node) else _leaves(node, shapes, removed),
        opt_state,
        is_leaf=lambda node: is_record(node) or not _holds_record(node),
    )


def _less(penalty, removed: Removed):
    """The penalty of the units that are left."""
    if isinstance(penalty, Rules):
        rules = [(pattern, _less(own, removed)) for pattern, own in penalty.rules]
        return Rules(rules, _less(penalty.default, removed))
    return penalty.without(removed) if isinstance(penalty, UnitPenalty) else penalty


def _holds_record(node) -> bool:
    is_record = lambda node: isinstance(node, RecordPathState)
    return any(map(is_record, jax.tree.leaves(node, is_leaf=is_record)))


def _leaves(tree, shapes, removed: Removed):
    leaves, treedef = named_leaves(tree)
    return treedef.unflatten([_own(name, leaf, shapes, removed) for name, leaf in leaves])


def _own(name: str, leaf, shapes, removed: Removed):
    parameter = belongs(name, shapes)
    shape = tuple(np.shape(leaf))
    if parameter is None or parameter not in removed or shape == ():
        return leaf
    if shape != shapes[parameter]:
        raise ValueError(
            f"opt_state leaf {name!r} has shape {shape}, but parameter {parameter!r}, which loses units, has shape "
            f"{shapes[parameter]}: a state of this kind (a factored moment, say) cannot follow. Start the optimizer "
            "afresh on the compact parameters, or use one with moments of the parameters' shapes."
        )
    return _cut(leaf, removed[parameter])


def belongs(name: str, shapes) -> str | None:
    """The parameter that a leaf of the state belongs to: the longest name that its name ends with."""
    parts = name.split("/")
    for start in range(len(parts)):
        own = "/".join(parts[start:])
        if own in shapes:
            return own
    if "" in shapes:  # the parameters are a single array
        return ""
    # The optimizer may know only a part of the tree, such as variables["params"].
    for start in range(len(parts)):
        own = [full for full in shapes if full.endswith("/" + "/".join(parts[start:]))]
        if len(own) == 1:
            return own[0]
    return None


def _cut(leaf, axes: dict[int, np.ndarray]):
    return cut(leaf, tuple(~axes[axis] if axis in axes else None for axis in range(np.ndim(leaf))))


def _record(state: RecordPathState, shapes, removed: Removed) -> RecordPathState:
    """The steps and times of the groups that stay; those of `inner_state` follow as everywhere."""
    steps, times = [], []
    for own, own_steps, own_times in zip(split_lbi_states(state.inner_state), state.steps, state.times, strict=True):
        penalties = resolve(own.penalty, own.dual)
        duals, _ = named_leaves(own.dual)
        for record, out in ((own_steps, steps), (own_times, times)):
            leaves, treedef = jax.tree.flatten(record)
            out.append(
                treedef.unflatten(
                    [
                        leaf if penalty is None else _groups(name, leaf, penalty, np.shape(v), shapes, removed)
                        for (name, v), leaf, penalty in zip(duals, leaves, penalties, strict=True)
                    ]
                )
            )
    inner = _arrays(state.inner_state, shapes, removed)
    return dataclasses.replace(state, steps=tuple(steps), times=tuple(times), inner_state=inner)


def _groups(name: str, leaf, penalty, shape, shapes, removed: Removed):
    """The records of the groups that some weight is left of."""
    parameter = belongs(name, shapes)
    if parameter not in removed:
        return leaf
    if not hasattr(penalty, "group_index"):
        raise ValueError(
            f"parameter {name!r}: the groups of {type(penalty).__name__} are no sets of weights; their record cannot "
            "follow a removal. Take the path's inner_state, or leave this parameter whole."
        )
    old = _cut(penalty.group_index(shape), removed[parameter])
    new = penalty.group_index(old.shape)
    # Each group that is left is one group of the smaller array, and the other way round.
    pairs = np.unique(np.stack([new.ravel(), old.ravel()]), axis=1)
    if len(pairs[0]) != new.max() + 1 or len(np.unique(pairs[1])) != len(pairs[1]):
        raise ValueError(
            f"parameter {name!r}: the groups of {penalty!r} are cut through by the removal, and their record cannot "
            "follow. Remove whole groups, or take the path's inner_state."
        )
    norms = jax.eval_shape(penalty.group_norms, jax.ShapeDtypeStruct(old.shape, np.float32))
    return jax.numpy.reshape(jax.numpy.ravel(leaf)[pairs[1]], norms.shape)
