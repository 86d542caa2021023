"""Arrays with some of their indices, where they were: by the host what would be many small compilations."""

from typing import Any

import jax
import numpy as np
from jax.core import Tracer

Copies = tuple[np.ndarray | None, ...]
"""Of each axis how many there are of each index: 0 (or False) where it goes; None: one of each."""


def cut(array, copies: Copies):
    """What there is of an array, on the device where it was."""
    return taken(array, {axis: np.repeat(np.arange(len(n)), n) for axis, n in enumerate(copies) if n is not None})


def taken(array: Any, index: dict[int, np.ndarray]) -> Any:
    """The array with these indices of these axes."""
    if not index:
        return array
    if on_host(array):
        return back(taken(np.asarray(array), index), array)
    for axis, indices in index.items():
        array = (np if isinstance(array, np.ndarray) else jax.numpy).take(array, indices, axis=axis)
    return array


def back(numbers: np.ndarray, array: jax.Array) -> jax.Array:
    """The numbers where the array was; one that was free to move stays so."""
    return jax.device_put(numbers, array.sharding) if array.committed else jax.numpy.asarray(numbers)


def on_host(array) -> bool:
    """Whether surgery on an array is done by the host, where a compilation for every shape would take longer.

    That is so for numbers on one device.
    """
    if not isinstance(array, jax.Array) or isinstance(array, Tracer):
        return False
    return len(array.sharding.device_set) == 1 and not jax.numpy.issubdtype(array.dtype, jax.dtypes.extended)
