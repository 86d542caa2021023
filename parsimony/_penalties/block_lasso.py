"""The lasso on tiles: what hardware that skips whole tiles of a matrix can use."""

import dataclasses
from typing import Literal

import jax.numpy as jnp
import numpy as np

from .prox import (
    Shape,
    check_fields,
    check_rank,
    group_weight,
    on_whole_matrix,
    shrink_factor,
    sqrt,
    square,
    whole_matrix,
)


@dataclasses.dataclass(frozen=True)
class BlockLasso:
    """Ω(X) = λ Σ_b c_b‖X_b‖_F over the tiles of a matrix, for hardware that skips whole tiles.

    prox(V)_b = V_b·(1 − λc_b/‖V_b‖_F)₊. Tiles at the border are smaller where the shape does not divide.

    Args:
      shape: rows and columns of a tile.
      strength: λ > 0.
      scale: None for c_b = 1, or "rms" for c_b = √|b|.

    Examples:
      >>> BlockLasso((1, 2), strength=2.5).prox(jnp.array([[3.0, 4.0, 0.3, 0.4]])).tolist()
      [[1.5, 2.0, 0.0, 0.0]]

    References:
      Yuan and Lin (2006), with tiles as the groups.
    """

    shape: tuple[int, int] = (4, 4)
    strength: float = 1.0
    scale: Literal["rms"] | None = None

    def __post_init__(self):
        check_fields(self)
        if not (
            isinstance(self.shape, tuple)
            and len(self.shape) == 2
            and all(isinstance(n, int) and n > 0 for n in self.shape)
        ):
            raise ValueError(f"BlockLasso(shape={self.shape!r}): expected a tuple (rows, columns) of positive ints.")

    def check(self, shape: Shape) -> None:
        check_rank(self, shape, exactly=2)

    def _weights(self, shape: Shape):
        rows, columns = (np.minimum(t, n - np.arange(0, n, t)) for n, t in zip(shape, self.shape, strict=True))
        return group_weight(self.scale, np.outer(rows, columns))

    def group_norms(self, x):
        return self._norms(x).astype(x.dtype)

    def _norms(self, x):
        x = whole_matrix(x)
        tiles = [(-n // t * -1, t) for n, t in zip(x.shape, self.shape, strict=True)]
        padded = jnp.pad(x, [(0, count * t - n) for n, (count, t) in zip(x.shape, tiles, strict=True)])
        (m, a), (n, b) = tiles
        return sqrt(jnp.sum(square(padded.reshape(m, a, n, b)), axis=(1, 3)))

    def group_index(self, shape: Shape):
        rows, columns = (np.arange(n) // t for n, t in zip(shape, self.shape, strict=True))
        return rows[:, None] * (columns[-1:].sum() + 1) + columns

    def _factors(self, v):
        norms = self._norms(v)
        return shrink_factor(norms, (self.strength * self._weights(v.shape)).astype(norms.dtype))

    def inside(self, v):
        return self._factors(v) > 0

    def _shrink(self, v):
        spread = jnp.repeat(jnp.repeat(self._factors(v), self.shape[0], axis=0), self.shape[1], axis=1)
        return spread[: v.shape[0], : v.shape[1]]

    def soft(self, v):
        return v

    def shrink(self, v):
        return on_whole_matrix(self._shrink, v).astype(v.dtype)

    def prox(self, v):
        return self.shrink(v) * v

    def value(self, x):
        norms = self._norms(x)
        return (self.strength * jnp.sum(self._weights(x.shape).astype(norms.dtype) * norms)).astype(x.dtype)
