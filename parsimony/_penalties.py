"""Penalties Ω and their proximal maps; tiles are in `_block_lasso.py`, low rank in `_nuclear_norm.py`.

    Prox_Ω(v) = argmin_u ½‖u − v‖² + Ω(u)

Every penalty here is a norm (convex, Ω(cx) = |c|Ω(x)), a frozen and hashable dataclass, and offers

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

import dataclasses
import math
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from ._prox import (
    Shape,
    axis_index,
    axis_norms,
    by_group,
    check_axes,
    check_fields,
    check_rank,
    group_axes,
    group_weight,
    shrink_factor,
    soft_threshold,
)


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


@dataclasses.dataclass(frozen=True)
class Lasso:
    """Ω(x) = λ Σ|x_i|: every weight is a group of its own.

    prox(v)_i = sign(v_i)·(|v_i| − λ)₊.

    Args:
      strength: λ > 0.

    Examples:
      >>> Lasso(1.0).prox(jnp.array([[3.0, -0.5], [-2.0, 1.0]])).tolist()
      [[2.0, 0.0], [-1.0, 0.0]]

    References:
      Tibshirani, "Regression Shrinkage and Selection via the Lasso" (1996).
    """

    strength: float = 1.0

    def __post_init__(self):
        check_fields(self)

    def check(self, shape: Shape) -> None:
        check_rank(self, shape)

    def soft(self, v):
        return soft_threshold(v, self.strength)

    def shrink(self, v):
        return jnp.ones((), v.dtype)

    def prox(self, v):
        return self.soft(v)

    def value(self, x):
        return self.strength * jnp.sum(jnp.abs(x))

    def group_norms(self, x):
        return jnp.abs(x)

    def inside(self, v):
        return jnp.abs(self.soft(v)) > 0

    def group_index(self, shape: Shape):
        return np.arange(math.prod(shape)).reshape(shape)


@dataclasses.dataclass(frozen=True)
class GroupLasso:
    """Ω(x) = λ Σ_g c_g‖x_g‖₂: the slices indexed by `axis` are zero, or enter, as wholes.

    prox(v)_g = v_g·(1 − λc_g/‖v_g‖)₊.

    Args:
      axis: the axis or axes that index a group. -1: one group for each output filter of an HWIO
        kernel, or each output neuron of a matrix; (2, 3): one for each pair of channels.
      strength: λ > 0.
      scale: None for c_g = 1; "rms" for c_g = √|g|, so that a group enters when its root mean square
        exceeds λ, whatever its size.

    Examples:
      >>> GroupLasso(-1, strength=2.5).prox(jnp.array([[3.0, 0.3], [4.0, 0.4]])).tolist()
      [[1.5, 0.0], [2.0, 0.0]]

    References:
      Yuan and Lin, "Model Selection and Estimation in Regression with Grouped Variables" (2006).
    """

    axis: int | tuple[int, ...] = -1
    strength: float = 1.0
    scale: Literal["rms"] | None = None

    def __post_init__(self):
        check_fields(self)
        check_axes(self.axis, "GroupLasso")

    def check(self, shape: Shape) -> None:
        check_rank(self, shape)
        group_axes(self.axis, shape, "GroupLasso")

    def soft(self, v):
        return v

    def shrink(self, v):
        norms, size = axis_norms(v, self.axis, "GroupLasso")
        return shrink_factor(norms, self.strength * float(group_weight(self.scale, size))).astype(v.dtype)

    def prox(self, v):
        return self.shrink(v) * v

    def value(self, x):
        norms, size = axis_norms(x, self.axis, "GroupLasso")
        return (self.strength * float(group_weight(self.scale, size)) * jnp.sum(norms)).astype(x.dtype)

    def group_norms(self, x):
        return by_group(axis_norms(x, self.axis, "GroupLasso")[0], self.axis).astype(x.dtype)

    def inside(self, v):
        return by_group(self.shrink(v), self.axis) > 0

    def group_index(self, shape: Shape):
        return axis_index(self.axis, shape, "GroupLasso")


@dataclasses.dataclass(frozen=True)
class SparseGroupLasso:
    """Ω(x) = λ(mix·Σ|x_i| + (1 − mix)·Σ_g c_g‖x_g‖₂): sparse groups that are sparse inside.

    prox is the group threshold at λ(1 − mix)c_g after the soft threshold at λ·mix.

    Args:
      axis, strength, scale: as in `GroupLasso`.
      mix: the lasso's share, in [0, 1].

    Examples:
      >>> SparseGroupLasso(-1, strength=5.0, mix=0.5).prox(jnp.array([[5.5, 3.0], [6.5, 1.5]])).tolist()
      [[1.5, 0.0], [2.0, 0.0]]

    References:
      Simon, Friedman, Hastie and Tibshirani, "A Sparse-Group Lasso" (2013).
    """

    axis: int | tuple[int, ...] = -1
    strength: float = 1.0
    mix: float = 0.5
    scale: Literal["rms"] | None = None

    def __post_init__(self):
        check_fields(self)
        check_axes(self.axis, "SparseGroupLasso")
        if not 0 <= self.mix <= 1:
            raise ValueError(f"SparseGroupLasso(mix={self.mix!r}): expected the lasso's share, a number in [0, 1].")
        object.__setattr__(self, "mix", float(self.mix))

    def check(self, shape: Shape) -> None:
        check_rank(self, shape)
        group_axes(self.axis, shape, "SparseGroupLasso")

    def soft(self, v):
        return soft_threshold(v, self.strength * self.mix)

    def shrink(self, v):
        norms, size = axis_norms(self.soft(v), self.axis, "SparseGroupLasso")
        factors = shrink_factor(norms, self.strength * (1 - self.mix) * float(group_weight(self.scale, size)))
        return factors.astype(v.dtype)

    def prox(self, v):
        return self.shrink(v) * self.soft(v)

    def value(self, x):
        norms, size = axis_norms(x, self.axis, "SparseGroupLasso")
        groups = float(group_weight(self.scale, size)) * jnp.sum(norms)
        return (self.strength * (self.mix * jnp.sum(jnp.abs(x)) + (1 - self.mix) * groups)).astype(x.dtype)

    def group_norms(self, x):
        return GroupLasso(self.axis).group_norms(x)

    def inside(self, v):
        return by_group(self.shrink(v), self.axis) > 0

    def group_index(self, shape: Shape):
        return axis_index(self.axis, shape, "SparseGroupLasso")
