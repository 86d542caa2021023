"""Named arrays as safetensors: every dtype that is written is read again, and the others are named before.

A random key is written as the numbers that it is made of; `{name: implementation}` says which arrays are keys.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..._tree import is_numeric, named_leaves

_DTYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16,
    "F8_E4M3": jnp.float8_e4m3fn, "F8_E5M2": jnp.float8_e5m2, "BOOL": np.bool_,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8,
    "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8,
}  # fmt: skip
_NAMES = {np.dtype(dtype).name for dtype in _DTYPES.values()}


def numbers(tree, where: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """({name: array}, {name: implementation} of those that are random keys).

    Raises:
      ValueError: a leaf whose dtype safetensors cannot hold; and as `named_leaves`.
    """
    arrays: dict[str, np.ndarray] = {}
    keys = {}
    for name, leaf in named_leaves(tree)[0]:
        if name in arrays:
            raise ValueError(
                f"{where}: two leaves are called {name!r}; rename one, so that each has a name of its own."
            )
        if not is_numeric(leaf):
            keys[name] = str(jax.random.key_impl(leaf))
            leaf = jax.random.key_data(leaf)
        array = np.ascontiguousarray(leaf).reshape(np.shape(leaf))
        if array.dtype.name not in _NAMES:
            raise ValueError(
                f"{where}: leaf {name!r} has dtype {array.dtype.name}, which a safetensors file cannot hold so that it "
                f"can be read again; expected one of {', '.join(sorted(_NAMES))}. Keep it as such (a complex array as "
                "its real and imaginary parts), or leave it out of the tree."
            )
        arrays[name] = array
    return arrays, keys


def to_bytes(arrays: dict[str, np.ndarray]) -> bytes:
    from safetensors.numpy import save  # here, so that `import parsimony` stays quick

    return save(arrays)


def from_bytes(path: Path, content: bytes) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file of a folder; its own NumPy reader does not support bfloat16."""
    from safetensors import SafetensorError, deserialize

    try:
        return {
            name: np.frombuffer(bytes(entry["data"]), _DTYPES[entry["dtype"]]).reshape(entry["shape"])
            for name, entry in deserialize(content)
        }
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{path}: a safetensors file cannot be read: {type(error).__name__}: {error}.") from None


def leaf(array: np.ndarray, implementation: str | None) -> Any:
    """The array, or the random key that it was."""
    numbers = jnp.asarray(array)
    return numbers if implementation is None else jax.random.wrap_key_data(numbers, impl=implementation)
