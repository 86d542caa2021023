"""Reading what `export` wrote: the function, the parameters, the optimizer state."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ..._tree import is_numeric, named_leaves
from .arrays import from_bytes, leaf
from .export import FORMAT


def load_compact(path: str | os.PathLike[str]) -> tuple[Callable[..., Any], Any]:
    """The function and the parameters of a model that `export` wrote.

    Args:
      path: the folder.

    Returns:
      fn, params: fn(params, *args), compiled at its first call; params as nested dicts and lists.

    Raises:
      FileNotFoundError: no such folder, or a file of it is missing.
      ValueError: a file that is damaged or of a newer format; the message names it.

    >>> import jax.numpy as jnp, numpy as np, parsimony as pm, tempfile
    >>> params, x = {"w1": jnp.ones((4, 6)), "w2": jnp.ones((6, 3))}, jnp.ones((2, 4))
    >>> units = pm.structure.find_units(lambda p, x: x @ p["w1"] @ p["w2"], params, x)
    >>> small = pm.structure.compact(units, {"w1": np.arange(6) < 2}, params)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fn, params = pm.structure.load_compact(pm.structure.export(small, folder + "/mlp", x))
    >>> params["w1"].shape, fn(params, x[:1]).tolist()
    ((4, 2), [[8.0, 8.0, 8.0]])
    """
    path = Path(path)
    data = _model(path)
    from jax import export as jax_export

    arrays, random = from_bytes(_checked(path, data, "params.safetensors")), data["random_keys"]["params"]
    program = jax_export.deserialize(bytearray(_checked(path, data, "model.stablehlo")))
    shapes = {name: array.shape for name, array in arrays.items()}

    def fn(params, *args):
        leaves = {name: own if is_numeric(own) else jax.random.key_data(own) for name, own in named_leaves(params)[0]}
        given = {name: np.shape(leaf) for name, leaf in leaves.items()}
        if wrong := [name for name, shape in shapes.items() if given.get(name) != shape]:
            raise ValueError(
                f"parameter {wrong[0]!r} has shape {given.get(wrong[0], 'missing')}; this model has {shapes[wrong[0]]}."
            )
        return program.call({name: leaves[name] for name in shapes}, *args)

    return jax.jit(fn), _nested([(steps, leaf(arrays[name], random.get(name))) for name, steps in data["parameters"]])


def load_opt_state(path: str | os.PathLike[str], like):
    """The optimizer state that was exported beside a model.

    Args:
      path: the folder.
      like: a state of the same optimizer for the loaded parameters, tx.init(params).

    Returns:
      `like` with the arrays that were saved.

    Raises:
      FileNotFoundError: as `load_compact`.
      ValueError: no state was exported, or one of another optimizer; and as `load_compact`.

    >>> import jax.numpy as jnp, numpy as np, optax, parsimony as pm, tempfile
    >>> params, x = {"w1": jnp.ones((4, 6)), "w2": jnp.ones((6, 3))}, jnp.ones((2, 4))
    >>> units = pm.structure.find_units(lambda p, x: x @ p["w1"] @ p["w2"], params, x)
    >>> tx = optax.sgd(0.1, momentum=0.9)
    >>> small = pm.structure.compact(units, {"w1": np.arange(6) < 2}, params, tx.init(params))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pm.structure.export(small, folder + "/mlp", x)
    ...     _, params = pm.structure.load_compact(path)
    ...     opt_state = pm.structure.load_opt_state(path, tx.init(params))
    >>> opt_state[0].trace["w1"].shape
    (4, 2)
    """
    path = Path(path)
    data = _model(path)
    if "opt_state.safetensors" not in data["sha256"]:
        raise ValueError(f"{path} holds no optimizer state: none was given to compact.")
    arrays, random = from_bytes(_checked(path, data, "opt_state.safetensors")), data["random_keys"]["opt_state"]
    leaves, treedef = named_leaves(like)
    found = {name: np.shape(own if is_numeric(own) else jax.random.key_data(own)) for name, own in leaves}
    saved = {name: array.shape for name, array in arrays.items()}
    if found != saved:
        name = next(iter(sorted(name for name in found.keys() | saved.keys() if found.get(name) != saved.get(name))))
        raise ValueError(
            f"the optimizer state in {path} is of another optimizer: {name!r} has shape {saved.get(name, 'missing')} "
            f"there, and {found.get(name, 'missing')} in `like`."
        )
    return treedef.unflatten([leaf(arrays[name], random.get(name)) for name, _ in leaves])


def _model(path: Path) -> dict[str, Any]:
    if not (path / "model.json").is_file():
        raise FileNotFoundError(f"{path / 'model.json'} is missing: expected a folder that pm.structure.export wrote.")
    try:
        data = json.loads((path / "model.json").read_text())
        version = data["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path / 'model.json'} is damaged: {type(error).__name__}: {error}.") from None
    if version != FORMAT:
        raise ValueError(f"{path / 'model.json'} has format {version}; this version of parsimony reads {FORMAT}.")
    return data


def _checked(path: Path, data: dict[str, Any], name: str) -> bytes:
    if not (path / name).is_file():
        raise FileNotFoundError(f"{path / name} is missing: the folder is not complete. Export the model again.")
    content = (path / name).read_bytes()
    if hashlib.sha256(content).hexdigest() != data["sha256"][name]:
        raise ValueError(f"{path / name} is damaged: its SHA-256 is not the one in model.json. Export the model again.")
    return content


def _nested(pairs) -> Any:
    """Nested dicts and lists from (steps, leaf)."""
    if not pairs[0][0]:
        return pairs[0][1]
    children: dict[Any, list[Any]] = {}
    for (first, *rest), own in pairs:
        children.setdefault(tuple(first), []).append((rest, own))
    built = {key: _nested(below) for (_, key), below in children.items()}
    return list(built.values()) if next(iter(children))[0] == "index" else built
