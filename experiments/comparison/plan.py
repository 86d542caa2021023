"""What all runs of a comparison share: length, schedule of α, what is counted in a sparsity, and the groups of weights.

Every method has the same schedule of α (it falls by ten at the same two places), the same momentum and the same
clipping of the gradient, but for the rows of the optimizer table that are about these.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

import parsimony as pm

from .. import baselines
from ..errors import RunError
from ..training.network import by_name


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """What all runs of a comparison share.

    Attributes:
      steps: of a run.
      drops: shares of the steps at which α falls by ten.
      clip_norm: largest norm of the gradient.
      level: what is counted in a sparsity, "weight", or "group" for filters.
      penalty: of strength such that half of its groups are inside at V = W₀ (`unit_strengths`).
      every: steps between two masks of the methods that change theirs now and then.
      filters: of each convolution the parameters that are a filter's own (`filters_of`).
      groups: of the paced path: single weights of the kernels, or whole filters.
    """

    steps: int
    drops: tuple[float, float]
    clip_norm: float
    level: str
    penalty: pm.Rules
    every: int
    filters: tuple[tuple[str, ...], ...] = ()
    groups: pm.Rules | pm.UnitPenalty | None = None

    def rate(self, learning_rate) -> optax.Schedule:
        """α_k, also for a traced α₀."""
        first, second = (round(share * self.steps) for share in self.drops)

        def schedule(count: Any):
            return learning_rate * jnp.where(count < first, 1.0, jnp.where(count < second, 0.1, 0.01))

        return schedule

    def time(self, share):
        """Σα/α₀ over the first `share` of the steps."""
        first, second = self.drops
        parts = (jnp.minimum(share, first), jnp.clip(share - first, 0, second - first), jnp.maximum(share - second, 0))
        return self.steps * (parts[0] + 0.1 * parts[1] + 0.01 * parts[2])

    def ramp(self, setting) -> optax.Schedule:
        """The sparsity rises to what is asked for by a share of the steps, along the cubic schedule of pruning."""
        return baselines.cubic_sparsity(setting["sparsity"], 0, setting["ramp"] * self.steps)

    @property
    def half(self) -> int:
        """The step before which what is cut once is trained, and after which it is fine-tuned."""
        return self.steps // 2


def unit_strengths(params, level: str) -> pm.Rules:
    """The lasso on all kernels, or the group lasso on filters, so strong that V = W₀ has half of the groups inside."""
    penalty = pm.Lasso() if level == "weight" else pm.GroupLasso(-1, scale="rms")
    kernels = {name: w for name, w in by_name(params).items() if baselines.prunable(w, level)}
    return pm.path_speed(kernels, 1, 1.0, 1.0, pm.Rules([(f"^{name}$", penalty) for name in kernels]), share=1.0)


def filters_of(params) -> tuple[tuple[str, ...], ...]:
    """Of each convolution its kernel, and the scale, shift and bias that belong to a filter alone; by their names.

    The normalisation of a convolution is that beside it, as in `ConvNorm`.

    Examples:
      >>> norm = {"scale": jnp.ones(6), "bias": jnp.zeros(6)}
      >>> filters_of({"stem": {"conv": {"kernel": jnp.ones((3, 3, 1, 6))}, "norm": norm}, "head": jnp.ones((6, 2))})
      (('stem/conv/kernel', 'stem/norm/bias', 'stem/norm/scale'),)
    """
    leaves, found = by_name(params), []
    for name, kernel in leaves.items():
        if baselines.prunable(kernel, "group"):
            own, beside = name.rsplit("/", 1)[0], name.rsplit("/", 2)[0] + "/norm"
            vectors = [f"{own}/bias", f"{beside}/bias", f"{beside}/scale"]
            found.append((name, *(v for v in vectors if v in leaves and leaves[v].shape == kernel.shape[-1:])))
    return tuple(found)


def groups_of(params, units: pm.structure.Units, level: str) -> pm.Rules | pm.UnitPenalty:
    """The groups of a paced path: the weights of all kernels, or the filters with their scale, shift and bias.

    A filter before a normalisation does not fade without its scale and shift. Filters whose channels are added to one
    stream are groups of their own here, as they are for the other methods.
    """
    if level == "weight":
        names = [name for name, w in by_name(params).items() if baselines.prunable(w)]
        return pm.Rules([(f"^{name}$", pm.Lasso()) for name in names])
    parts = {part.name: part for part in pm.structure.unit_penalty(units).slices}
    if missing := [name for names in filters_of(params) for name in names if name not in parts]:
        raise RunError(f"the filters of {missing[0]} are not units that can be removed; choose --level weight.")
    slices, sets, start = [], [], 0
    for names in filters_of(params):
        number = len(parts[names[0]].units)
        own = np.arange(start, start + number)
        slices += [dataclasses.replace(parts[name], units=own) for name in names]
        sets.append((names[0], start, number))
        start += number
    return pm.UnitPenalty(tuple(slices), tuple(sets))
