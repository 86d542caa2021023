"""What a penalty Ω is: its proximal map, its groups, and what is read off both.

    Prox_Ω(v) = argmin_u ½‖u − v‖² + Ω(u)

Every penalty of the library is a norm (convex, Ω(cx) = |c|Ω(x)), a frozen and hashable dataclass, and offers

    prox(v)         Prox_Ω(v), same shape and dtype as v
    value(x)        Ω(x), a scalar
    group_norms(x)  one number for each *group*: what the penalty thresholds together
    check(shape)    ValueError for a shape it cannot take

All but `NuclearNorm`, whose groups are not sets of weights, threshold in two parts, prox(v) = shrink(v)·soft(v):
`soft` acts on single entries, `shrink` is one factor in [0, 1] for each group, with the dimensions of v kept. And

    group_index(shape)  for each weight the number of its group, as in `group_norms(x).ravel()`
    inside(v)           which groups of Prox_Ω(v) are not zero, of the shape of `group_norms(v)`

References:
  Parikh and Boyd, "Proximal Algorithms" (2014), sections 6.5 and 6.7.
"""

from typing import Any, Protocol

import jax
import jax.numpy as jnp

from .prox import Shape


class Penalty(Protocol):
    """What every penalty offers, and what one of your own must: a frozen, hashable dataclass that cannot be called.

    `prox(v)` = argmin_u ½‖u − v‖² + Ω(u), of v's shape and dtype; `value(x)` = Ω(x), a scalar; `group_norms(x)`, one
    number for each group, zero where the group is; `check(shape)` raises a ValueError for shapes that it cannot take;
    `strength` is λ > 0.

    Examples:
      >>> import dataclasses, jax.numpy as jnp, parsimony as pm
      >>> @dataclasses.dataclass(frozen=True)
      ... class NonNegative:
      ...     strength: float = 1.0
      ...     def prox(self, v): return jnp.maximum(v - self.strength, 0)
      ...     def value(self, x): return self.strength * jnp.sum(x)
      ...     def group_norms(self, x): return x
      ...     def check(self, shape): pass
      >>> state = pm.split_lbi(0.1, penalty=NonNegative(0.5)).init({"kernel": jnp.ones((1, 2))})
      >>> pm.gamma(state)["kernel"].tolist()
      [[0.0, 0.0]]

    References:
      Parikh and Boyd, "Proximal Algorithms" (2014).
    """

    @property
    def strength(self) -> float: ...
    def prox(self, v: jax.Array) -> jax.Array: ...
    def value(self, x: jax.Array) -> jax.Array: ...
    def group_norms(self, x: jax.Array) -> jax.Array: ...
    def check(self, shape: Shape) -> None: ...


def over(v, strength: Any = None):
    """v/T in the dtype of v; T = 1 where the strength is None. Counters are not weights and stay as they are."""
    whole = strength is None or not jnp.issubdtype(v.dtype, jnp.inexact)
    return v if whole else v / jnp.asarray(strength, v.dtype)


def strength_of_each(strength: Any, number: int) -> list[Any]:
    """T of each of so many parameters, from one for all or a tree with one for each; None where there is none."""
    values = [None] if strength is None else jax.tree.leaves(strength)
    return values * number if len(values) == 1 else values


def gamma_of(penalty: Any, v, kappa: Any, strength: Any = None):
    """Γ = κ·Prox_{TΩ}(V) = κT·Prox_Ω(V/T), since Ω(cx) = |c|Ω(x); T = 1 where the strength is None."""
    factor = kappa if strength is None else kappa * strength
    return jnp.asarray(factor, v.dtype) * penalty.prox(over(v, strength))


def inside(penalty: Any, v):
    """Which groups are in the support of Prox_Ω(v): bool, of the shape of `group_norms(v)`; a NaN has not entered."""
    if hasattr(penalty, "inside"):
        return penalty.inside(v)  # from the threshold alone: the norms of Prox_Ω(v) are not needed
    return penalty.group_norms(penalty.prox(v)) > 0
