"""An adaptive strength: at every step the one at which a stated share of the penalised weights is zero.

Users of sparsity penalties want a sparsity and get to choose λ. Split LBI and related methods all threshold a latent
variable U, W or Γ = κ·Prox_{TΩ}(U), so the strength that gives a share q of zeros can be read off U itself:

    T = min{T > 0 : the share of zeros in Prox_{TΩ}(U) is at least q}

No search over λ, no gain to tune and no state: T is a quantile of the levels at which the groups leave (|U_i|/λ under
`Lasso`, ‖U_g‖/λc_g under `GroupLasso`, σ_i/λ under `NuclearNorm`), so it moves by no more than U does, and what enters
or leaves does so at zero. The strengths that the penalties carry keep their ratios, T scales them all.

The share counts the weights of all penalised parameters together, or of each layer, with a T of its own; under
`NuclearNorm`, whose Γ is of low rank but has no zeros, the singular directions of a matrix stand for its weights. With
groups the share is met from above, to within one group. Groups at one level stay or leave together, whichever comes
nearer to the share, and stay where a layer would be empty without them. Entries of U that are exactly zero are zero at
any strength.

References:
  The rule is ours: the k largest of iterative hard thresholding (Blumensath and Davies 2009), with a soft threshold.
  The code of Bungert et al. (arXiv 2105.04319) steps λ up and down by a constant each epoch instead.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ._checks import check_scalar, concrete, in_percent
from ._penalties.nuclear_norm import NuclearNorm
from ._penalties.penalty import over, strength_of_each
from ._penalties.rules import resolve
from ._penalties.unit_penalty import UnitSlices
from ._state import scalar_like
from ._words import one_of

LEAST = 1e-20
"""The least T, in place of 0: U/T must be finite. It thresholds below the rounding of any weight."""


SparsityScope = Literal["global", "layer"]


def check_sparsity(sparsity: Any, scope: Any = "global") -> None:
    """Raises for an invalid share, where that can be seen, and an unknown scope."""
    one_of("sparsity_scope", scope, ("global", "layer"))
    if sparsity is None and scope != "global":
        raise ValueError(f"sparsity_scope={scope!r} needs a sparsity, e.g. sparsity=0.9.")
    if sparsity is None or callable(sparsity):
        return
    check_scalar("sparsity", sparsity, "a number in [0, 1), a schedule of them, or None")
    if concrete(sparsity):
        # An injected schedule may begin at 1, and hands over arrays.
        whole = isinstance(sparsity, jax.Array) and sparsity == 1
        if not 0 <= float(sparsity) < 1 and not whole:
            hint = in_percent(sparsity)
            raise ValueError(f"sparsity={sparsity!r}: expected the share of zero weights, in [0, 1){hint}.")


def strength_at_start(strength: float, params, sparsity: Any, scope: SparsityScope):
    """The field `strength` of a new state: one T, or with layers that have their own a T for each parameter."""
    scalar = lambda _: jnp.array(strength, jnp.result_type(float))  # a copy: donation fails on shared buffers
    return scalar(None) if sparsity is None or scope == "global" else jax.tree.map(scalar, params)


def strength_like(old, strength):
    """The strength, one or one for each parameter, as the field of the state that it was (`scalar_like`)."""
    leaves, treedef = jax.tree.flatten(old)
    each = strength_of_each(strength, len(leaves))
    return treedef.unflatten([scalar_like(t, new) for t, new in zip(leaves, each, strict=True)])


def threshold_at(
    penalty: Any,
    latent: Any,
    sparsity: optax.ScalarOrSchedule,
    count: Any = 0,
    scope: SparsityScope = "global",
) -> Any:
    """T at which the share q of zeros in Prox_{TΩ}(U) is reached; `LEAST` or more.

    The zeros grow with T, and so do the bit patterns of the positive floats: 31 bisections find it exactly. It is
    raised by 1e-5 of itself, so that another order of summation cannot let in the group at the threshold.

    Groups at one level leave together. Where several do, and a layer would be empty without them, or the share with
    them is farther from q than the share without, they stay: T is then the least that gives the share without them.

    Args:
      penalty: Ω, as in `inverse_scale_space`.
      latent: U, a tree of the parameters.
      sparsity: q in [0, 1], or a schedule of `count`.
      scope: "global": one T, and the share is that of all penalised weights; "layer": every parameter, and all those
        that share units, has a T of its own, and one group at least is inside as soon as q < 1.

    Returns:
      T, a float32 scalar; for layers a tree of them.

    Examples:
      >>> import parsimony as pm
      >>> U = {"kernel": jnp.array([[4.0, -3.0, 2.0, 1.0]])}
      >>> round(float(threshold_at(pm.Lasso(0.5), U, 0.75)), 3)  # three of four are zero where λT = 3
      6.0
      >>> U = {"kernel": jnp.array([[2.0, 2.0, 2.0, 1.0]])}
      >>> round(float(threshold_at(pm.Lasso(0.5), U, 0.75)), 3)  # where λT = 2, none would be left
      2.0
    """
    leaves, treedef = jax.tree.flatten(latent)
    omegas = resolve(penalty, latent)
    layers = _layers(omegas)
    if not layers:
        return jnp.ones((), jnp.float32) if scope == "global" else treedef.unflatten([jnp.float32(1)] * len(leaves))
    totals = np.array([sum(leaves[place].size for place in layer) for layer in layers])
    largest = np.array([_largest_group(layer, omegas, leaves) for layer in layers])
    together = [list(range(len(layers)))] if scope == "global" else [[number] for number in range(len(layers))]
    zeros = _zeros_of(penalty, latent, layers, together)
    shares = lambda found: jnp.stack([sum(found[i] / totals[group].sum() for i in group) for group in together])

    q = jnp.asarray(sparsity(count) if callable(sparsity) else sparsity, jnp.float32)
    at_most = q if scope == "global" else jnp.minimum(q, jnp.asarray(1 - largest / totals, jnp.float32))
    asked, rounding = jnp.where(q < 1, at_most, q), 1e-6
    least = _least(lambda strengths: shares(zeros(strengths)) >= asked - rounding, len(together))
    above, below = least * (1 + 1e-5), least * (1 - 1e-5)
    gone, left = zeros(jnp.maximum(above, LEAST)), zeros(jnp.maximum(below, LEAST))

    several = gone - left > largest  # of one level
    emptied = several & (gone == totals)
    some = lambda which: jnp.stack([jnp.any(which[np.array(group)]) for group in together])
    nearer = some(several) & (asked - shares(left) + rounding < shares(gone) - asked)
    stay = (q < 1) & (some(emptied) | nearer)
    # Most steps meet no tie, and go no further.
    without = jax.lax.cond(
        jnp.any(stay),
        lambda: _least(lambda t: shares(zeros(t)) >= shares(left) - rounding, len(together)),
        lambda: least,
    )
    found = jnp.maximum(jnp.where(stay, jnp.minimum(without * (1 + 1e-5), below), above), LEAST)
    if scope == "global":
        return found[0]
    layer_of = {place: number for number, layer in enumerate(layers) for place in layer}
    return treedef.unflatten(
        [found[layer_of[place]] if place in layer_of else jnp.float32(1) for place in range(len(leaves))]
    )


def _zeros_of(penalty: Any, latent: Any, layers: list[list[int]], together: list[list[int]]):
    """The function that gives, for one T of all layers that are `together`, how many weights of each layer are zero."""
    leaves = jax.tree.leaves(latent)
    strength_of = {place: n for n, group in enumerate(together) for number in group for place in layers[number]}
    low_rank = {
        place: omega.group_norms(leaves[place]) / omega.strength
        for place, omega in enumerate(resolve(penalty, latent))
        if isinstance(omega, NuclearNorm)
    }

    def zeros(strengths):
        each = [strengths[strength_of.get(place, 0)] for place in range(len(leaves))]
        omegas = resolve(penalty, latent, each)

        def of(place):
            if place in low_rank:
                return jnp.sum(low_rank[place] <= each[place]) * max(leaves[place].shape)
            return jnp.sum(omegas[place].prox(over(leaves[place], each[place])) == 0)

        return jnp.stack([sum(of(place) for place in layer) for layer in layers])

    return zeros


def _least(enough, number: int) -> jax.Array:
    """The least T > 0, each of so many, at which `enough` holds, which holds from there on."""

    def halve(_, bounds):
        low, high = bounds
        middle = low + (high - low) // 2
        holds = enough(jax.lax.bitcast_convert_type(middle, jnp.float32))
        return jnp.where(holds, low, middle), jnp.where(holds, middle, high)

    start = jnp.zeros(number, jnp.int32)
    most = start + jax.lax.bitcast_convert_type(jnp.float32(jnp.finfo(jnp.float32).max), jnp.int32)
    # The first one is outside the loop: inside `shard_map` its results have the type of the data, as a carry must.
    _, bits = jax.lax.fori_loop(1, 31, halve, halve(0, (start, most)))
    return jax.lax.bitcast_convert_type(bits, jnp.float32)


def _layers(omegas: list[Any]) -> list[list[int]]:
    """The places of the parameters that share a T: each alone, or with those that it shares units with."""
    layers: list[list[int]] = []
    reached: list[tuple[Any, set[int]]] = []  # of each layer its unit penalty and its units
    for place, omega in enumerate(omegas):
        if omega is None:
            continue
        if not isinstance(omega, UnitSlices):
            layers.append([place])
            reached.append((None, set()))
            continue
        # Whole sets, so that a unit without an index here belongs to the layer as well.
        units = {
            unit
            for _, first, number in omega.tree.whole.sets
            if np.any((omega.part.units >= first) & (omega.part.units < first + number))
            for unit in range(first, first + number)
        }
        together = [
            i for i, (whole, its_units) in enumerate(reached) if whole is omega.tree.whole and its_units & units
        ]
        merged = sorted([place, *(p for i in together for p in layers[i])])
        units = units.union(*(reached[i][1] for i in together))
        layers = [layer for i, layer in enumerate(layers) if i not in together] + [merged]
        reached = [pair for i, pair in enumerate(reached) if i not in together] + [(omega.tree.whole, units)]
    return layers


def _largest_group(layer: list[int], omegas: list[Any], leaves: list[Any]) -> int:
    """How many weights the largest group of a layer has."""
    omega, u = omegas[layer[0]], leaves[layer[0]]
    if isinstance(omega, UnitSlices):
        sizes = np.zeros(sum(number for *_, number in omega.tree.whole.sets), int)
        for place in layer:
            part = omegas[place].part
            np.add.at(sizes, part.units, leaves[place].size // len(part.units))
        return int(sizes.max())
    if not hasattr(omega, "group_index"):  # singular directions
        return -(-u.size // min(u.shape))
    return int(np.bincount(np.ravel(omega.group_index(u.shape))).max())
