"""From a path to masks at any sparsity: an order of the groups, and how many of them stay."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ._checks import check_share
from ._ranking import in_order, layers
from ._tree import named_leaves
from ._words import check_protect, one_of

Criterion = Literal["entry", "dual", "gamma", "magnitude"]


def rank(params: optax.Params, opt_state: optax.OptState, order: Criterion | Any = "dual"):
    """The place of each group in the order in which structure is kept: 0 is the first of the whole network.

    The orders, first to last; ties go by the root mean square of W in the group, then by position:

    - "dual", the default: by ‖V_g‖ at the end over the norm at which it enters: above 1 in the support, below 1 on
      the way there. It needs no record, and goes on to order what has not entered.
    - "entry": by the step at which the group entered the support, never last; needs `record_path`.
    - "gamma": by the root mean square of Γ in the group at the end.
    - "magnitude": by that of W.

    Measured: "dual" is better than "entry" nearly always (26 of 32 cuts of a ResNet-8), and level with "magnitude" on
    the same network. Filters of LeNet on a path that unfolds over the training are ranked equally well by all four
    (numbers: docs/results.md).

    Args:
      params: W, of the shapes that the state was made for.
      opt_state: see `parsimony.gamma`.
      order: one of these names; or a tree as this function returns it, of any numbers, smallest first.

    Returns:
      The tree of the parameters with int32 arrays, one entry a group as in `entry_steps`; None where unpenalised.

    Raises:
      ValueError: an unknown order; "entry" without a recorded path; a penalty whose groups are not sets of weights
        (`NuclearNorm`); params, an order and a state that do not match.

    Examples:
      >>> import jax.numpy as jnp, parsimony as pm
      >>> params = {"kernel": jnp.array([[1.0, -3.0, 2.0]])}
      >>> pm.rank(params, pm.split_lbi(0.1).init(params), order="magnitude")["kernel"].tolist()
      [[2, 0, 1]]

    References:
      ArXiv 1905.09449, section 3; the authors' code subtracts the epoch of entry from ‖W‖, two scales in one.
    """
    found, treedef, names = layers(params, opt_state, order)
    if not found:
        return treedef.unflatten([None] * len(names))
    ranks: dict[str, np.ndarray] = {}
    for layer, part in zip(found, in_order(found), strict=True):
        for member in layer.members:
            ranks[member.name] = np.where(member.groups >= 0, part[member.groups], ranks.get(member.name, 0))
    return treedef.unflatten([jnp.asarray(ranks[name], jnp.int32) if name in ranks else None for name in names])


def select(
    params: optax.Params,
    opt_state: optax.OptState,
    sparsity: float,
    *,
    scope: Literal["layer", "global"] = "layer",
    order: Criterion | Any = "dual",
    level: Literal["group", "weight"] = "group",
    protect: Sequence[str] = (),
):
    """Masks at a sparsity, from the order in which structure is kept.

    Of N weights, whole groups are removed, the last of the order first, as long as the removed ones have at most
    ⌊sparsity·N⌋ weights together: an exact count where all groups have one size, and masks that are nested, the sparser
    in the denser. The first group of each parameter stays, since a layer without any would end the network.

    Args:
      params, opt_state, order: see `rank`.
      sparsity: share of the weights to remove, in [0, 1), as the decimal number that it prints as.
      scope: "layer": from each penalised parameter by itself; "global": from all of them together.
      level: "group", or "weight": single weights, by the place of their group and by |W| inside it (in the order
        "magnitude" by |W| alone).
      protect: regular expressions; parameters whose names they are found in are kept whole and not counted.

    Returns:
      The tree of the parameters with bool arrays of their shapes, placed like them; True where unpenalised.

    Raises:
      ValueError: a sparsity outside [0, 1), an unknown scope, level or order, a pattern that matches no name,
        nothing left to select from; and as `rank`.

    Examples:
      >>> import jax.numpy as jnp, parsimony as pm
      >>> params = {"kernel": jnp.array([[1.0, -3.0, 2.0, 0.5]]), "bias": jnp.zeros(4)}
      >>> masks = pm.select(params, pm.split_lbi(0.1).init(params), sparsity=0.5, order="magnitude")
      >>> masks["kernel"].tolist()
      [[False, True, True, False]]

    References:
      ArXiv 1905.09449, section 3.
    """
    share = check_share("sparsity", sparsity, "the share of weights to remove")
    one_of("scope", scope, ("layer", "global"))
    one_of("level", level, ("group", "weight"))
    check_protect(protect, [name for name, _ in named_leaves(params)[0]])
    found, treedef, _ = layers(params, opt_state, order, protect)
    if not found:
        raise ValueError(f"nothing to select from: every penalised parameter is protected by {list(protect)}.")
    if level == "weight":
        found = [layer.by_weight(alone=isinstance(order, str) and order == "magnitude") for layer in found]

    keep: dict[str, np.ndarray] = {}
    for together in [found] if scope == "global" else [[layer] for layer in found]:
        parts = in_order(together)
        for part in parts:
            part[np.argmin(part)] = -1  # before all that is not the first of its layer
        last_first = np.argsort(np.concatenate(parts))[::-1]
        sizes = np.concatenate([layer.sizes for layer in together])
        removed = np.searchsorted(np.cumsum(sizes[last_first]), math.floor(share * int(sizes.sum())), side="right")
        stays = np.ones(len(sizes), bool)
        stays[last_first[:removed]] = False
        for layer, kept in zip(together, np.split(stays, np.cumsum([len(part) for part in parts])[:-1]), strict=True):
            for member in layer.members:
                inside = kept[member.index]
                keep[member.name] = np.where(member.inside, inside, keep.get(member.name, True))

    def mask(name, w):
        values = keep.get(name, np.ones(np.shape(w), bool))
        return jax.device_put(values, w.sharding) if isinstance(w, jax.Array) else jnp.asarray(values)

    return treedef.unflatten([mask(name, w) for name, w in named_leaves(params)[0]])
