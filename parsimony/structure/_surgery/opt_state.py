"""An optimizer state after surgery: old entries go where their parameter's go, new ones start afresh."""

import collections
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..._path import NEVER, RecordPathState
from ..._penalties.rules import Rules, resolve
from ..._penalties.unit_penalty import UnitPenalty
from ..._state import Static, nodes, split_lbi_states, static
from ..._tree import named_leaves, one_ending
from ..._words import listed, shown
from .index_map import Places, spread


def transplant(opt_state, shapes: dict[str, tuple[int, ...]], places: Places, fresh=None):
    """The optimizer state for the parameters in another layout.

    A leaf of the state belongs to the parameter whose name its own name ends with, and has its shape. That is so in the
    states of Optax: traces, moments, accumulated gradients, masks, V. What `record_path` noted moves by groups.

    Args:
      opt_state: the state before. shapes: of the parameters before. places: what became of their axes.
      fresh: a state of the new shapes that has the new entries; None: zero, True in a mask, `NEVER` in a record.

    Raises:
      TypeError: this is no optimizer state, but the transformation, say.
      ValueError: a leaf that belongs to a parameter and has another shape, such as a factored moment; `fresh` is the
        state of another optimizer.
    """
    if hasattr(opt_state, "init") and hasattr(opt_state, "update"):
        raise TypeError("opt_state: got a transformation; expected its state, tx.init(params) or a later one.")
    if fresh is not None and _skeleton(fresh) != _skeleton(opt_state):
        raise ValueError(
            f"opt_state does not belong to tx: it has the structure {_skeleton(opt_state)}, and tx.init gives "
            f"{_skeleton(fresh)}. Give the transformation that made the state, or tx=None."
        )
    is_static = lambda node: isinstance(node, Static)
    return jax.tree.map(
        lambda node: static(_moved(node.value, places)) if is_static(node) else node,
        _arrays(opt_state, shapes, places, fresh),
        is_leaf=is_static,
    )


def _skeleton(state):
    """The structure of a state, whatever its penalties are."""
    is_static = lambda node: isinstance(node, Static)
    return jax.tree.structure(jax.tree.map(lambda leaf: 0, state, is_leaf=is_static))


def _arrays(opt_state, shapes, places: Places, fresh):
    is_record = lambda node: isinstance(node, RecordPathState)
    stop = lambda node: is_record(node) or not nodes(RecordPathState, node)
    parts, treedef = jax.tree.flatten(opt_state, is_leaf=stop)
    news = [None] * len(parts) if fresh is None else jax.tree.leaves(fresh, is_leaf=stop)
    return treedef.unflatten(
        [
            _record(node, shapes, places, new) if is_record(node) else _leaves(node, shapes, places, new)
            for node, new in zip(parts, news, strict=True)
        ]
    )


def _moved(penalty, places: Places):
    """The penalty of the units that there are now."""
    if isinstance(penalty, Rules):
        return Rules(
            [(pattern, _moved(omega, places)) for pattern, omega in penalty.rules], _moved(penalty.default, places)
        )
    return penalty.moved(places) if isinstance(penalty, UnitPenalty) else penalty


def _leaves(tree, shapes, places: Places, fresh):
    leaves, treedef = named_leaves(tree)
    news = [None] * len(leaves) if fresh is None else jax.tree.leaves(fresh)
    return treedef.unflatten(
        [_leaf(name, leaf, shapes, places, new) for (name, leaf), new in zip(leaves, news, strict=True)]
    )


def _leaf(name: str, leaf: Any, shapes, places: Places, fresh):
    parameter = belongs(name, shapes)
    if not _is_array(leaf):
        raise TypeError(f"opt_state leaf {name!r} is {shown(leaf)}: expected arrays, as tx.init(params) makes them.")
    shape = tuple(np.shape(leaf))
    if parameter is None and shape and not jnp.issubdtype(leaf.dtype, jnp.integer):
        raise ValueError(
            f"opt_state leaf {name!r}, of shape {shape}, belongs to none of the parameters {listed(shapes)}: this is "
            "the state of another tree, or of one that was flattened. Give the state of these parameters, or none."
        )
    if parameter is not None and not _may_belong(shape, shapes[parameter]):
        raise _other_shape(name, shape, parameter, shapes)
    if parameter is None or parameter not in places or shape == ():
        return leaf
    if shape != shapes[parameter]:
        raise ValueError(
            f"opt_state leaf {name!r} has shape {shape}, but parameter {parameter!r}, which changes, has shape "
            f"{shapes[parameter]}: a state of this kind (a factored moment, say) cannot follow. Start the optimizer "
            "afresh on the new parameters, or use one with moments of the parameters' shapes."
        )
    return spread(leaf, places[parameter], np.array(leaf.dtype == bool, leaf.dtype) if fresh is None else fresh)


def _is_array(leaf) -> bool:
    return hasattr(leaf, "dtype") or isinstance(leaf, int | float)


def _may_belong(shape: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    """Whether a leaf may be about a parameter: of its shape, a factor of it, or several of its shape."""
    if len(shape) >= len(whole):
        return shape[len(shape) - len(whole) :] == whole or shape == (1,)
    return shape == (1,) or not collections.Counter(shape) - collections.Counter(whole)


def _other_shape(name: str, shape, parameter: str, shapes) -> ValueError:
    return ValueError(
        f"opt_state leaf {name!r} has shape {shape}, but parameter {parameter!r} has shape {shapes[parameter]}: this "
        "is the state of other parameters. Give the state of these, or none."
    )


def parameter_of(name: str, shapes) -> str:
    """The parameter that a leaf of the state belongs to.

    Raises:
      ValueError: there is none.
    """
    parameter = belongs(name, shapes)
    if parameter is None:
        raise ValueError(
            f"opt_state holds {name!r}, which is not a parameter of these units; they have {listed(shapes)}. Give the "
            "state of the parameters that the units were found in."
        )
    return parameter


def belongs(name: str, shapes) -> str | None:
    """The parameter that a leaf of the state belongs to: the longest name that its name ends with."""
    parts = name.split("/")
    for start in range(len(parts)):
        name_in_params = "/".join(parts[start:])
        if name_in_params in shapes:
            return name_in_params
    if list(shapes) == ["array"]:  # the parameters are a single array, whose name no leaf of the state ends with
        return "array"
    # The optimizer may know only a part of the tree, such as variables["params"].
    found = (one_ending("/".join(parts[start:]), shapes) for start in range(len(parts)))
    return next(filter(None, found), None)


def _record(state: RecordPathState, shapes, places: Places, fresh: RecordPathState | None) -> RecordPathState:
    """The steps and times of the groups; those of `inner_state` follow as everywhere."""
    steps, times = [], []
    for core, its_steps, its_times in zip(split_lbi_states(state.inner_state), state.steps, state.times, strict=True):
        duals, treedef = named_leaves(core.dual)
        for name, v in duals:
            if np.shape(v) != shapes[parameter := parameter_of(name, shapes)]:
                raise _other_shape(name, np.shape(v), parameter, shapes)
        moves = [
            (lambda record: record) if penalty is None else _groups(name, penalty, np.shape(v), shapes, places)
            for (name, v), penalty in zip(duals, resolve(core.penalty, core.dual), strict=True)
        ]
        for record, out in ((its_steps, steps), (its_times, times)):
            leaves = treedef.flatten_up_to(record)
            out.append(treedef.unflatten([move(leaf) for move, leaf in zip(moves, leaves, strict=True)]))
    inner = _arrays(state.inner_state, shapes, places, None if fresh is None else fresh.inner_state)
    return state._replace(steps=tuple(steps), times=tuple(times), inner_state=inner)


def _groups(name: str, penalty, shape, shapes, places: Places) -> Callable[[Any], Any]:
    """From a record to that of the groups that there are now; groups of new weights alone have not entered."""
    axes = places.get(belongs(name, shapes) or "")
    if axes is None:
        return lambda record: record
    if not hasattr(penalty, "group_index"):
        raise ValueError(
            f"parameter {name!r}: the groups of {type(penalty).__name__} are not sets of weights; their record cannot "
            "follow a surgery. Take the path's inner_state, or leave this parameter whole."
        )
    old = np.asarray(spread(penalty.group_index(shape), axes, -1))
    new = penalty.group_index(old.shape)
    # Each group that is left is one group of the new array, and the other way round.
    pairs = np.unique(np.stack([new[old >= 0], old[old >= 0]]), axis=1)
    if any(len(np.unique(side)) != len(side) for side in pairs):
        raise ValueError(
            f"parameter {name!r}: the groups of {penalty!r} are cut through by the surgery, and their record cannot "
            "follow. Change whole groups, or take the path's inner_state."
        )
    norms = jax.eval_shape(penalty.group_norms, jax.ShapeDtypeStruct(old.shape, np.float32))

    def move(record):
        never = np.full(math.prod(norms.shape), NEVER, record.dtype)
        never[pairs[0]] = np.ravel(record)[pairs[1]]
        return jnp.asarray(never.reshape(norms.shape))

    return move
