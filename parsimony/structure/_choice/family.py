"""`family`: several sizes from one order of the units, each model inside the next larger one."""

import dataclasses
import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..._checks import shown
from ..._selection import Criterion
from ..._tree import aligned, named_leaves
from .._surgery.compact import Compact, compact
from .._surgery.index_map import cut_layouts, spread
from .._units import Units, check_units
from .choose import choose
from .rank_units import rank_units


@dataclasses.dataclass(frozen=True)
class Family:
    """Compact models of one function, the largest first; each has a subset of the units of the one before it.

    Attributes:
      members: a `Compact` for each budget.
      budgets: what each was allowed, in the order of the members.
      unshared: names of the parameters that each member has for itself (its batch statistics).

    Examples:
      >>> import jax, jax.numpy as jnp, parsimony as pm
      >>> params = {"w1": jnp.array([[1.0, 3.0, 2.0, 4.0]]), "w2": jnp.ones((4, 2))}
      >>> fn = lambda p, x: jax.nn.relu(x @ p["w1"]) @ p["w2"]
      >>> units = pm.structure.find_units(fn, params, jnp.ones((1, 1)))
      >>> family = pm.structure.family(units, params, budgets=(0.75, 0.5), order="magnitude")
      >>> family.params["w1"].tolist(), [member.params["w1"].tolist() for member in family.members]
      ([[3.0, 2.0, 4.0]], [[[3.0, 2.0, 4.0]], [[3.0, 4.0]]])
      >>> loss = lambda p: sum(m.fn(q, jnp.ones((1, 1))).sum() for m, q in zip(family.members, family.cut(p)))
      >>> jax.grad(loss)(family.params)["w1"].tolist()  # 2 for each member that has the unit
      [[4.0, 2.0, 4.0]]
      >>> family.with_params({"w1": jnp.array([[5.0, 6.0, 7.0]]), "w2": jnp.ones((3, 2))}).members[1].params["w1"]
      Array([[5., 7.]], dtype=float32)
    """

    members: tuple[Compact, ...]
    budgets: tuple[float, ...]
    unshared: frozenset[str]
    _recalibrate: Callable[[Any], Any] | None = dataclasses.field(default=None, repr=False, compare=False)

    @property
    def params(self):
        """The parameters of the largest member, of which the others have parts: what one training trains.

        A copy, which a step may donate.
        """
        return _copied(self.members[0].params)

    def cut(self, params) -> tuple[Any, ...]:
        """What each member has of the shared parameters, to be called inside of a loss, under jit and grad.

        The gradient of Σₖ Lₖ(cut(W)ₖ) is in each entry the sum over the members that have it. Parameters that are
        `unshared` are those of the member, whatever `params` has there.

        Args:
          params: a tree like `Family.params`.

        Returns:
          A tree of the member's shapes for each member.

        Raises:
          ValueError: a tree of other names or shapes.
        """
        aligned(params=self.members[0].params, shared=params)
        leaves, treedef = named_leaves(params)
        units, outer = self.members[0].units, self.members[0].units.removed(self.members[0].keep)
        trees = []
        for member in self.members:
            gone = {
                name: {axis: x[~outer[name][axis]] if axis in outer.get(name, {}) else x for axis, x in axes.items()}
                for name, axes in units.removed(member.keep).items()
            }
            places, its = cut_layouts(gone), dict(named_leaves(member.params)[0])
            parts = [its[name] if name in self.unshared else spread(x, places.get(name, {}), 0) for name, x in leaves]
            trees.append(treedef.unflatten(parts))
        return tuple(trees)

    def with_params(self, params) -> "Family":
        """The family after a training: every member with its part of new shared parameters.

        Batch statistics are collected anew for each. There is no optimizer state: it belonged to the weights before.

        Args:
          params: a tree like `Family.params`.

        Returns:
          `Family`.

        Raises:
          ValueError: a tree of other names or shapes.
        """
        members = []
        for member, part in zip(self.members, self.cut(_copied(params)), strict=True):
            if self._recalibrate is not None:
                again = recalibrated(self._recalibrate, _widened(member.units, member.keep, part))[0]
                part = compact(member.units, member.keep, again).params
            members.append(dataclasses.replace(member, params=part, opt_state=None))
        return dataclasses.replace(self, members=tuple(members))


def family(
    units: Units,
    params,
    opt_state: optax.OptState | None = None,
    *,
    budgets: Sequence[float],
    target: Literal["units", "parameters", "macs", "bytes", "ms"] = "macs",
    order: Criterion | dict[str, np.ndarray] = "dual",
    recalibrate: Callable[[Any], Any] | None = None,
    **options: Any,
) -> Family:
    """Nested compact models, one for each budget, along one order of the units.

    Of each set the member k keeps the first nₖ units of the order, and n falls with the budget in every set, so that

        f₁ ⊃ f₂ ⊃ … ⊃ f_m,    minimise Σₖ L(fₖ(W[Kₖ])) over the one W of the largest

    trains them all together (`Family.cut`), and whoever deploys takes the size that fits.

    Args:
      units, params, opt_state: as in `compact`.
      budgets: what each model may have of the target: shares in (0, 1) of what the whole model has, or numbers of at
        least 1; in any order.
      target: see `choose`; for "ms" budgets are all shares, or all milliseconds.
      order: see `choose`; the same for all.
      recalibrate: params → params with batch statistics of these weights, `pm.recalibrate` inside, called for each
        member with the parameters of all units that it does not have at zero. What it changes is each member's own.
        None where the function has no statistics.
      **options: `scope`, `floor`, `round_to`, `minimum`, `maximum`, `protect`, `times`, as in `choose`.

    Returns:
      `Family`.

    Raises:
      ValueError: no budgets, budgets that are out of reach or that lead to the same model; parameters that
        `recalibrate` returns in other shapes; and as `choose` and `compact`.
      TypeError: budgets that are not numbers, or an option that `choose` does not have.

    Examples:
      >>> import jax, jax.numpy as jnp, parsimony as pm
      >>> params = {"w1": jnp.ones((4, 8)), "w2": jnp.ones((8, 3))}
      >>> fn = lambda p, x: jax.nn.relu(x @ p["w1"]) @ p["w2"]
      >>> units = pm.structure.find_units(fn, params, jnp.ones((1, 4)))
      >>> family = pm.structure.family(units, params, budgets=(0.25, 0.5, 0.75), order="magnitude")
      >>> [pm.structure.count(m.fn, m.params, jnp.ones((1, 4))).macs for m in family.members]
      [42, 28, 14]

    References:
      Yu, Yang, Xu, Yang and Huang, "Slimmable Neural Networks" (arXiv 1812.08928): one set of weights for several
      widths, each with its own batch statistics. There the widths are shares of every layer; here the path orders.
    """
    check_units("family(units, params, opt_state, budgets=(0.5, 0.25))", units, params, opt_state)
    budgets = _checked(budgets)
    if target == "ms" and min(budgets) < 1 <= max(budgets):
        raise ValueError(f"budgets={tuple(budgets)}: expected shares in (0, 1) alone, or numbers of at least 1 alone.")
    if recalibrate is not None and not callable(recalibrate):
        raise TypeError(f"recalibrate={shown(recalibrate)}: expected a function, params → params, or None.")
    if not isinstance(order, dict):
        order = rank_units(units, params, opt_state, order)
    chosen, widest = [], {}
    for budget in sorted(budgets, key=float, reverse=True):
        within: dict[str, Any] = dict(options)
        if widest:
            within["maximum"] = widest | _rules(options.get("maximum"))
        try:
            keep = choose(units, params, opt_state, at_most=budget, target=target, order=order, **within)
        except ValueError as error:
            raise ValueError(f"budgets, {budget!r}: {error}") from None
        chosen.append((budget, keep))
        if target == "ms":  # which may take units back, and not beyond the larger model
            widest = {f"^{re.escape(name)}$": int(mask.sum()) for name, mask in keep.items()}
    chosen.sort(key=lambda pair: _removed_units(pair[1]))
    for (budget, keep), (smaller, less) in itertools.pairwise(chosen):
        if _removed_units(keep) == _removed_units(less):
            raise ValueError(
                f"budgets: {budget!r} and {smaller!r} of the {target} lead to the same model; take budgets that are "
                "further apart, or leave one of them out."
            )
    members, unshared = [], set()
    for _, keep in chosen:
        variables = params
        if recalibrate is not None:
            variables, changed = recalibrated(recalibrate, units.zero(keep, params))
            unshared |= changed
        members.append(compact(units, keep, variables, opt_state))
    return Family(tuple(members), tuple(budget for budget, _ in chosen), frozenset(unshared), recalibrate)


def _rules(maximum) -> dict[str, float]:
    """A bound for all sets, or by name, as rules by name."""
    return maximum if isinstance(maximum, dict) else {} if maximum is None else {"": maximum}


def _copied(tree):
    return jax.tree.map(lambda leaf: jnp.array(leaf) if isinstance(leaf, jax.Array) else leaf, tree)


def _checked(budgets) -> list[float]:
    if isinstance(budgets, str | bytes | dict) or not hasattr(budgets, "__iter__"):
        raise TypeError(f"budgets={shown(budgets)}: expected several numbers, such as budgets=(0.5, 0.25, 0.1).")
    budgets = list(budgets)
    if not budgets:
        raise ValueError("budgets: expected at least one, such as budgets=(0.5, 0.25, 0.1).")
    for place, budget in enumerate(budgets):
        if isinstance(budget, bool) or not isinstance(budget, int | float | np.number):
            raise TypeError(f"budgets[{place}]={shown(budget)}: expected a share in (0, 1), or a number of at least 1.")
    return budgets


def _removed_units(keep: dict[str, np.ndarray]) -> int:
    return sum(int((~mask).sum()) for mask in keep.values())


def recalibrated(recalibrate: Callable[[Any], Any], params) -> tuple[Any, set[str]]:
    """(params with statistics of their own, the names of these): what differs from what was given."""
    new = recalibrate(params)
    aligned(params=params, recalibrate=new)
    pairs = zip(named_leaves(params)[0], jax.tree.leaves(new), strict=True)
    return new, {name for (name, old), leaf in pairs if old is not leaf and not np.array_equal(old, leaf)}


def _widened(units: Units, keep: dict[str, np.ndarray], params):
    """The parameters of the whole function of which a member's are a part: zeros everywhere else."""
    removed = units.removed(keep)
    leaves, treedef = named_leaves(params)

    def of_leaf(name: str, leaf):
        if name not in removed:
            return leaf
        shape = units.shapes[name]
        left = [
            np.flatnonzero(~removed[name][axis]) if axis in removed[name] else range(n) for axis, n in enumerate(shape)
        ]
        whole = np.zeros(shape, leaf.dtype)
        whole[np.ix_(*left)] = leaf
        return jnp.asarray(whole)

    return treedef.unflatten([of_leaf(name, leaf) for name, leaf in leaves])
