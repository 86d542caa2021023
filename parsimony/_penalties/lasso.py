"""The penalties that keep single weights, whole groups, or both: Lasso, group lasso, sparse group lasso.

References:
  Parikh and Boyd, "Proximal Algorithms" (2014), sections 6.5 and 6.7.
"""

import dataclasses
import math
from typing import Literal

import jax.numpy as jnp
import numpy as np

from .prox import (
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
        number = isinstance(self.mix, int | float | np.number) and not isinstance(self.mix, bool)
        if not (number and 0 <= self.mix <= 1):
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
