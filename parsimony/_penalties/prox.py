"""What the penalties share: checks, groups that are indexed by axes, and the two thresholds.

    soft(v)_i = sign(v_i)·(|v_i| − λ)₊        shrink_g = (1 − λc_g/‖v_g‖)₊

References:
  Parikh and Boyd, "Proximal Algorithms" (2014), sections 6.5.2 and 6.5.4.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from .._checks import RANGE

Shape = tuple[int, ...]


def check_fields(penalty) -> None:
    """Rejects a strength that is not a positive number, and an unknown scale."""
    strength = penalty.strength
    if isinstance(strength, bool) or not isinstance(strength, int | float | np.integer | np.floating):
        raise TypeError(
            f"{type(penalty).__name__}(strength={strength!r}): expected a Python number, since a penalty is part "
            "of the compiled program; to move it during a run, scale dual_learning_rate instead."
        )
    if not RANGE[0] <= strength <= RANGE[1]:
        raise ValueError(
            f"{type(penalty).__name__}(strength={strength!r}): expected a positive, finite number, "
            f"from {RANGE[0]} to {RANGE[1]}; for no penalty at all use None, e.g. Rules([('head', None), ...])."
        )
    # A NumPy scalar is not weakly typed: it would promote V.
    object.__setattr__(penalty, "strength", float(strength))
    if getattr(penalty, "scale", None) not in (None, "rms"):
        raise ValueError(f"{type(penalty).__name__}(scale={penalty.scale!r}): expected None or 'rms'.")


def check_rank(penalty, shape: Shape, *, exactly: int | None = None) -> None:
    name = type(penalty).__name__
    if exactly is not None and len(shape) != exactly:
        raise ValueError(f"{name} takes a matrix, but the shape is {shape}; choose another penalty by Rules.")
    if len(shape) < 2:
        raise ValueError(
            f"{name} takes parameters of rank 2 and more, but the shape is {shape}: a bias or a scale under a penalty "
            "would silently decay to zero. Leave it out, e.g. Rules([('kernel', penalty)]), or give it None."
        )


def check_axes(axis, where: str) -> None:
    axes = axis if isinstance(axis, tuple) else (axis,)
    if not axes or not all(isinstance(a, int) and not isinstance(a, bool) for a in axes):
        raise TypeError(f"{where}(axis={axis!r}): expected an int or a tuple of ints, such as -1 or (2, 3).")


def group_axes(axis, shape: Shape, where: str) -> tuple[int, ...]:
    """The axes that index a group, as sorted non-negative numbers."""
    axes = axis if isinstance(axis, tuple) else (axis,)
    rank = len(shape)
    if any(not -rank <= a < rank for a in axes) or len({a % rank for a in axes}) < len(axes):
        raise ValueError(
            f"{where}(axis={axis}) does not fit the shape {shape}: expected distinct axes in [{-rank}, {rank})."
        )
    return tuple(sorted(a % rank for a in axes))


def square(x):
    """x², at least in float32: in half precision the squares of a group of norm 256 overflow."""
    return jnp.square(x.astype(jnp.promote_types(x.dtype, jnp.float32)))


def sqrt(x):
    """√x with the derivative 0 at 0 in place of infinity; NaN stays NaN."""
    return jnp.where(x == 0, 0, jnp.sqrt(jnp.where(x == 0, 1, x)))


def soft_threshold(v, threshold):
    return v - jnp.clip(v, -threshold, threshold)


def shrink_factor(norms, threshold):
    """(1 − threshold/norm)₊, without a division by zero in value or derivative; NaN for a norm that is NaN."""
    outside = norms <= threshold
    return jnp.where(outside, 0, 1 - threshold / jnp.where(outside, 1, norms))


def group_weight(scale: str | None, size):
    """c_g of Ω = λΣ c_g‖x_g‖: 1, or √|g| so that a group enters when its root mean square exceeds λ."""
    return np.sqrt(size) if scale == "rms" else np.ones_like(size, dtype=float)


def axis_norms(x, axis, where: str):
    """‖x_g‖, at least in float32, for the groups indexed by `axis`, dimensions kept; the number of entries in one."""
    axes = group_axes(axis, x.shape, where)
    others = tuple(i for i in range(x.ndim) if i not in axes)
    # An axis reduction with keepdims, not a reshape: it works on arrays with an explicit sharding too.
    return sqrt(jnp.sum(square(x), axis=others, keepdims=True)), math.prod(x.shape[i] for i in others)


def by_group(x, axis):
    """An array with its dimensions kept, as `axis_norms` makes it, in the shape of the axes that index a group."""
    axes = group_axes(axis, x.shape, "GroupLasso")
    return jnp.squeeze(x, axis=tuple(i for i in range(x.ndim) if i not in axes))


def axis_index(axis, shape: Shape, where: str):
    """The number of its group for each weight, for groups indexed by `axis`."""
    axes = group_axes(axis, shape, where)
    kept = tuple(n if i in axes else 1 for i, n in enumerate(shape))
    return np.broadcast_to(np.arange(math.prod(kept)).reshape(kept), shape)


def _is_spread(x) -> bool:
    return any(names is not None for names in jax.typeof(x).sharding.spec)


def whole_matrix(x):
    """x, or an unsharded copy where it carries an explicit sharding that an operation cannot take."""
    return jax.sharding.reshard(x, jax.sharding.PartitionSpec()) if _is_spread(x) else x


def on_whole_matrix(function, *arrays):
    """function(*arrays) on whole matrices, with a result of their shape spread as the first of them."""
    result = function(*map(whole_matrix, arrays))
    return jax.sharding.reshard(result, jax.typeof(arrays[0]).sharding.spec) if _is_spread(arrays[0]) else result
