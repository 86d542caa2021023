"""From a path to masks at any sparsity: an order of the groups, and how many of them stay."""

import dataclasses
import difflib
import math
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ._path import NEVER, entry_steps
from ._readout import matched
from ._rules import check_patterns, named_leaves

Order = Literal["entry", "dual", "gamma", "magnitude"]


def rank(params: optax.Params, opt_state: optax.OptState, order: Order | Any = "entry"):
    """The place of each group in the order in which structure is kept: 0 is the first of the whole network.

    The orders, first to last; ties go by the root mean square of W in the group, then by position:

    - "entry": by the step at which the group entered the support, never last; needs `record_path`.
    - "dual": by ‖V_g‖ at the end over the norm at which it enters: above 1 in the support, below 1 on the way there.
    - "gamma": by the root mean square of Γ in the group at the end.
    - "magnitude": by that of W.

    Filters on a path that unfolds over the training (`path_speed`) are told apart equally well by all four. Single
    weights, and groups that rushed in together, are told apart better by "dual" or "magnitude" (numbers: README).

    Args:
      params: W, of the shapes that the state was made for.
      opt_state: see `parsimony.gamma`.
      order: one of these names; or a tree as this function returns it, of any numbers, smallest first.

    Returns:
      The tree of the parameters with int32 arrays, one entry a group as in `entry_steps`; None where unpenalised.

    Raises:
      ValueError: an unknown order; "entry" without a recorded path; a penalty whose groups are no sets of weights
        (`NuclearNorm`); params, an order and a state that do not match.

    >>> import jax.numpy as jnp, parsimony as pm
    >>> params = {"kernel": jnp.array([[1.0, -3.0, 2.0]])}
    >>> pm.rank(params, pm.split_lbi(0.1).init(params), order="magnitude")["kernel"].tolist()
    [[2, 0, 1]]

    Source: arXiv 1905.09449, section 3; the authors' code subtracts the epoch of entry from ‖W‖, two scales in one.
    """
    layers, treedef, names = _layers(params, opt_state, order)
    if not layers:
        return treedef.unflatten([None] * len(names))
    places = _places(*(np.concatenate(keys) for keys in zip(*((x.first, x.rms) for x in layers), strict=True)))
    ends = np.cumsum([len(layer.first) for layer in layers])[:-1]
    found = {
        layer.name: jnp.asarray(part.reshape(layer.shape), jnp.int32)
        for layer, part in zip(layers, np.split(places, ends), strict=True)
    }
    return treedef.unflatten([found.get(name) for name in names])


def select(
    params: optax.Params,
    opt_state: optax.OptState,
    sparsity: float,
    *,
    scope: Literal["layer", "global"] = "layer",
    order: Order | Any = "entry",
    level: Literal["group", "weight"] = "group",
    protect: Sequence[str] = (),
):
    """Masks at a sparsity, from the order in which structure is kept.

    Of N weights, whole groups are removed, the last of the order first, as long as the removed ones have at most
    ⌊sparsity·N⌋ weights together: an exact count where all groups have one size, never less than one group kept, and
    masks that are nested, the sparser in the denser.

    Args:
      params, opt_state, order: see `rank`.
      sparsity: share of the weights to remove, in [0, 1), as the decimal number that it prints as.
      scope: "layer": from each penalised parameter by itself; "global": from all of them together. A global order can
        empty a parameter, and with it the network: see the masks' counts, or `protect`.
      level: "group", or "weight": single weights, by the place of their group and by |W| inside it (in the order
        "magnitude" by |W| alone).
      protect: regular expressions; parameters whose names they are found in are kept whole and not counted.

    Returns:
      The tree of the parameters with bool arrays of their shapes, placed like them; True where unpenalised.

    Raises:
      ValueError: a sparsity outside [0, 1), an unknown scope, level or order, a pattern that is found in no name,
        nothing left to select from; and as `rank`.

    >>> import jax.numpy as jnp, parsimony as pm
    >>> params = {"kernel": jnp.array([[1.0, -3.0, 2.0, 0.5]]), "bias": jnp.zeros(4)}
    >>> masks = pm.select(params, pm.split_lbi(0.1).init(params), sparsity=0.5, order="magnitude")
    >>> masks["kernel"].tolist()
    [[False, True, True, False]]

    Source: arXiv 1905.09449, section 3.
    """
    share = _share(sparsity)
    _one_of("scope", scope, ("layer", "global"))
    _one_of("level", level, ("group", "weight"))
    if isinstance(protect, str):
        raise TypeError(f"protect={protect!r}: expected a list of regular expressions, such as [{protect!r}].")
    check_patterns("protect", protect, [name for name, _ in named_leaves(params)[0]])
    layers, treedef, _ = _layers(params, opt_state, order, protect)
    if not layers:
        raise ValueError(f"nothing to select from: every penalised parameter is protected by {list(protect)}.")
    if level == "weight":
        layers = [layer.by_weight(alone=isinstance(order, str) and order == "magnitude") for layer in layers]

    keep = {}
    for together in [layers] if scope == "global" else [[layer] for layer in layers]:
        first, rms, sizes = (
            np.concatenate(x) for x in zip(*((layer.first, layer.rms, layer.sizes) for layer in together), strict=True)
        )
        places = _places(first, rms)
        last_first = np.argsort(places)[::-1]
        removed = np.searchsorted(np.cumsum(sizes[last_first]), math.floor(share * int(sizes.sum())), side="right")
        ends = np.cumsum([len(layer.first) for layer in together])[:-1]
        for layer, part in zip(together, np.split(places < len(places) - removed, ends), strict=True):
            keep[layer.name] = part[layer.index]

    def mask(name, w):
        values = keep.get(name, np.ones(np.shape(w), bool))
        return jax.device_put(values, w.sharding) if isinstance(w, jax.Array) else jnp.asarray(values)

    return treedef.unflatten([mask(name, w) for name, w in named_leaves(params)[0]])


@dataclasses.dataclass(frozen=True)
class _Layer:
    """One penalised parameter: the keys of its groups' order (ascending `first`, descending `rms`), and its groups."""

    name: str
    shape: tuple[int, ...]  # of the array of groups
    index: np.ndarray  # the number of its group, for each weight
    sizes: np.ndarray
    first: np.ndarray
    rms: np.ndarray
    magnitudes: np.ndarray  # |W|

    def by_weight(self, alone: bool) -> "_Layer":
        """The same with every weight a group of its own."""
        size = self.index.size
        first = np.zeros(size) if alone else self.first[self.index.ravel()]
        index = np.arange(size).reshape(self.index.shape)
        return dataclasses.replace(self, index=index, sizes=np.ones(size, int), first=first, rms=self.magnitudes)


def _layers(params, opt_state, order, protect: Sequence[str] = ()) -> tuple[list[_Layer], Any, list[str]]:
    """The penalised parameters that no pattern protects, the tree's structure, and all names."""
    weights, treedef, known = matched(params, opt_state)
    given = {}
    if not isinstance(order, str):
        given = dict(named_leaves(order)[0])
    elif order == "entry":
        given = dict(named_leaves(entry_steps(opt_state))[0])
    else:
        _one_of("order", order, ("entry", "dual", "gamma", "magnitude"))
    layers = []
    for name, w in weights:
        if name not in known or any(re.search(pattern, name) for pattern in protect):
            continue
        penalty, gamma, dual = known[name]
        if not hasattr(penalty, "group_index"):
            raise ValueError(
                f"parameter {name!r}: the groups of {type(penalty).__name__} are no sets of weights, so no mask "
                "selects them; read its model by pm.sparse_params, protect it, or give it another penalty."
            )
        index = penalty.group_index(jnp.shape(w))
        shape = jax.eval_shape(penalty.group_norms, gamma).shape
        sizes = np.bincount(index.ravel(), minlength=math.prod(shape))

        def rms(x, index=index, sizes=sizes):
            squares = np.square(np.asarray(x, np.float64)).ravel()
            return np.sqrt(np.bincount(index.ravel(), squares, minlength=len(sizes)) / np.maximum(sizes, 1))

        if not isinstance(order, str) or order == "entry":
            if name not in given or jnp.shape(given[name]) != shape:
                raise ValueError(
                    f"order: expected the shape {shape} for the groups of {name!r}, "
                    f"got {jnp.shape(given[name]) if name in given else f'nothing, only {sorted(given)[:8]}'}."
                )
            first = np.asarray(given[name], np.float64).ravel()
            if isinstance(order, str):
                first = np.where(first == NEVER, np.inf, first)
        elif order == "dual":
            first = -_beyond_threshold(penalty, np.asarray(dual), rms, index, sizes)
        else:
            first = -rms(gamma) if order == "gamma" else np.zeros(len(sizes))
        magnitudes = np.abs(np.asarray(w, np.float64)).ravel()
        layers.append(_Layer(name, shape, index, sizes, first, rms(w), magnitudes))
    return layers, treedef, [name for name, _ in weights]


def _beyond_threshold(penalty: Any, dual, rms, index, sizes) -> np.ndarray:
    """‖V_g‖/‖u_g − Prox_Ω(u)_g‖ for u_g ∝ V_g so long that it is inside, where v − Prox_Ω(v) has the norm of entry."""
    norms = rms(dual) * np.sqrt(sizes)
    inside = 2 * penalty.strength * (1 + np.sqrt(sizes))
    longer = np.divide(inside, norms, out=np.zeros(len(sizes)), where=norms > 0)
    u = jnp.asarray(dual * longer[index], dual.dtype)
    threshold = rms(u - penalty.prox(u)) * np.sqrt(sizes)
    return np.divide(norms, threshold, out=np.zeros(len(sizes)), where=threshold > 0)


def _places(first, rms) -> np.ndarray:
    """The place of each in the ascending order of `first`, ties by descending `rms`, then as they stand."""
    places = np.empty(len(first), int)
    places[np.lexsort((-rms, first))] = np.arange(len(first))
    return places


def _share(sparsity) -> Fraction:
    if isinstance(sparsity, bool) or not isinstance(sparsity, int | float | np.number):
        raise TypeError(f"sparsity={sparsity!r}: expected a number in [0, 1).")
    if not 0 <= sparsity < 1:
        hint = f"; for {sparsity} % write {float(sparsity) / 100:g}" if 1 < sparsity < 100 else ""
        raise ValueError(f"sparsity={sparsity!r}: expected the share of weights to remove, in [0, 1){hint}.")
    return Fraction(repr(float(sparsity)))  # 0.9 is meant as 9/10: a product of floats could lose a group


def _one_of(name: str, value, known: tuple[str, ...]) -> None:
    if value not in known:
        near = difflib.get_close_matches(str(value), known, n=1, cutoff=0)[0]
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(known)}; did you mean {near!r}?")
