"""Sums of very many small steps, in the precision of the sum and without a second buffer.

V gains about α|W|/ν a step. Once that is less than half of V's last place, V + step rounds to V, and V stands still; a
little before, the sum is off by as much as the rounding. A compensated sum would keep the remainder in a second buffer.
Here the remainder decides, at once, which of the two neighbours of the exact sum is taken. With

    s = fl(V + d),   e = V + d − s exactly,   h = the distance from s to its neighbour on e's side,
    θ_k = frac((k + 1)·φ),   φ = (√5 − 1)/2

V⁺ is that neighbour where |e| > θ_k·h (where e points to zero, 1 − θ_k), and s elsewhere. The θ_k fill (0, 1) evenly,
so that the neighbour is taken in the share |e|/h of the steps: nothing is lost on average, and the errors of equal
steps cancel better than those of a random walk. A sum that can be represented is exact, the rule is odd in (V, d), and
k is the count in the state: a run that is resumed goes on bit for bit.

References:
  E by Knuth, "The Art of Computer Programming" 2, section 4.2.2, theorem B; rounding with the right mean: Croci, Fasi,
  Higham, Mary and Mikaitis, "Stochastic rounding: implementation, error analysis and applications" (2022), here with a
  sequence of low discrepancy for the random numbers.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

LAST = np.iinfo(np.int32).max
"""The largest count. It stays there, and so would θ_k: from there on sums are rounded to the nearest."""


@functools.partial(jax.jit, inline=True)  # one call where it is not compiled with what stands around it
def add(total, step, count: Any):
    """total + step, rounded to either neighbour so that many steps add up.

    Args:
      total: floating-point array or number.
      step: array of its shape, or a number.
      count: number of the step, an int.

    Returns:
      An array like `total`.

    Examples:
      >>> at = jax.lax.fori_loop(0, 1000, lambda k, v: add(v, 1e-8, k), jnp.float32(1.0))
      >>> plain = jax.lax.fori_loop(0, 1000, lambda k, v: v + 1e-8, jnp.float32(1.0))
      >>> f"{at:.6f} {plain:.6f}"
      '1.000010 1.000000'
    """
    total = jnp.asarray(total)
    step = jnp.asarray(step, total.dtype)
    count = jnp.asarray(count, jnp.int32)
    nearest = total + step
    taken = nearest - total
    error = (total - (nearest - taken)) + (step - taken)

    place, is_power = _last_place(nearest)
    inward = (error < 0) != (place < 0)
    move = jnp.where(inward, jnp.where(is_power, -place / 2, -place), place)
    phase = _phase(count).astype(total.dtype)
    moves = (jnp.abs(error) > jnp.where(inward, 1 - phase, phase) * jnp.abs(move)) & (count < LAST)
    return nearest + jax.lax.stop_gradient(jnp.where(moves, move, 0))


def _phase(count) -> jax.Array:
    """θ_k in (0, 1), by multiples of φ·2³² modulo 2³²."""
    golden = (count.astype(jnp.uint32) + 1) * jnp.uint32(0x9E3779B9)
    return ((golden >> 8).astype(jnp.float32) + 0.5) * 2.0**-24


def _last_place(x):
    """±ulp(x) with the sign of x, and whether x is a power of two, whose neighbour towards zero is half as far."""
    info, unsigned = jnp.finfo(x.dtype), jnp.dtype(f"uint{8 * x.dtype.itemsize}")
    bits = jax.lax.bitcast_convert_type(x, unsigned)
    mantissa = np.array(2**info.nmant - 1, unsigned)
    power = jax.lax.bitcast_convert_type(bits & ~mantissa, x.dtype)
    return power * jnp.asarray(info.eps, x.dtype), (bits & mantissa) == 0
