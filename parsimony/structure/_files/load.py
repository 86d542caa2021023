"""Reading what `export` wrote: the function, the parameters, the optimizer state."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ..._tree import is_numeric, named_leaves
from .._surgery.compact import narrowed
from .._units import Units
from . import manifest
from .arrays import from_bytes, leaf
from .program import differentiable


def load_compact(path: str | os.PathLike[str], fn: Callable[..., Any] | None = None) -> tuple[Callable[..., Any], Any]:
    """The function and the parameters of a model that `export` wrote.

    Without the code that made it the function is the exported program. `jax.jit` and `jax.grad` work on it, so that it
    can be trained further; `jax.vmap` runs it once for each element; second derivatives and `jax.jvp` are not there,
    and `find_units` sees a closed box. Given the whole model's function, the compact one is made of that again, and
    everything works: its units can be found, removed and grown.

    Load only what comes from somebody you trust: digests tell damage, not who wrote a program.

    Args:
      path: the folder.
      fn: the function that the units were found in, of a tree of dicts and lists; None: the exported program.

    Returns:
      fn, params: fn(params, *args), compiled at its first call; params as nested dicts and lists.

    Raises:
      FileNotFoundError: the folder, or a file in it, is missing.
      ValueError: a file that is damaged, was changed or is of another format; the message names it. `fn` has other
        units than the exported model.

    Examples:
      >>> import jax, jax.numpy as jnp, numpy as np, parsimony as pm, tempfile
      >>> params, x = {"w1": jnp.ones((4, 6)), "w2": jnp.ones((6, 3))}, jnp.ones((2, 4))
      >>> whole = lambda p, x: x @ p["w1"] @ p["w2"]
      >>> units = pm.structure.find_units(whole, params, x)
      >>> small = pm.structure.compact(units, {"w1": np.arange(6) < 2}, params)
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = pm.structure.export(small, folder + "/mlp", x)
      ...     (fn, params), (again, _) = pm.structure.load_compact(path), pm.structure.load_compact(path, whole)
      >>> params["w1"].shape, fn(params, x[:1]).tolist()
      ((4, 2), [[8.0, 8.0, 8.0]])
      >>> jax.grad(lambda p: fn(p, x).sum())(params)["w2"].tolist()
      [[8.0, 8.0, 8.0], [8.0, 8.0, 8.0]]
      >>> pm.structure.find_units(again, params, x).sets["w1"].size
      2
    """
    path = Path(path)
    data, units, keep = manifest.read(path)
    arrays, random = from_bytes(path, manifest.content(path, data, "params.safetensors")), data["random_keys"]["params"]
    leaves = {name: leaf(array, random.get(name)) for name, array in arrays.items()}
    wanted = manifest.shapes_left(units, keep)
    if (found := {name: np.shape(leaf) for name, leaf in leaves.items()}) != wanted:
        wrong = next(name for name in sorted(found | wanted) if found.get(name) != wanted.get(name))
        raise ValueError(
            f"{path / 'params.safetensors'}: parameter {wrong!r} has shape {found.get(wrong, 'missing')}, and by "
            f"model.json {wanted.get(wrong, 'no such parameter')}."
        )
    params = _nested(path, [(steps, leaves[name]) for name, steps in data["parameters"]])
    if [name for name, _ in named_leaves(params)[0]] != [name for name, _ in data["parameters"]]:
        raise ValueError(f"{path / 'model.json'} is damaged: the steps to its parameters are not those of their names.")
    if fn is not None:
        return _of_code(fn, units, keep, data["route"], params), params
    return jax.jit(_of_program(path, data, arrays)), params


def _of_code(fn, units: Units, keep, route: str, params):
    """The compact function made again of the whole one."""
    if route == "module":
        return fn
    shapes = iter(named_leaves(params)[0])
    whole = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(units.shapes[next(shapes)[0]], jax.dtypes.result_type(leaf)), params
    )
    return narrowed(dataclasses.replace(units, fn=fn), keep, whole)


def _of_program(path: Path, data, arrays: dict[str, np.ndarray]):
    from jax import export as jax_export

    content = manifest.content(path, data, "model.stablehlo")
    try:
        program = jax_export.deserialize(bytearray(content))
    except Exception as error:  # any: a reader of a foreign format fails in its own way
        raise ValueError(
            f"{path / 'model.stablehlo'} cannot be read by JAX {jax.__version__} (it was written by {data['jax']}): "
            f"{type(error).__name__}: {error}"
        ) from None
    shapes = {name: arrays[name].shape for name in sorted(arrays)}
    if [aval.shape for aval in program.in_avals[: len(shapes)]] != list(shapes.values()):
        raise ValueError(f"{path / 'model.stablehlo'} takes other parameters than params.safetensors holds.")
    call = differentiable(program, data["derivative"])

    def fn(params, *args):
        leaves = {
            name: leaf if is_numeric(leaf) else jax.random.key_data(leaf) for name, leaf in named_leaves(params)[0]
        }
        given = {name: np.shape(leaf) for name, leaf in leaves.items()}
        if wrong := [name for name, shape in shapes.items() if given.get(name) != shape]:
            raise ValueError(
                f"parameter {wrong[0]!r} has shape {given.get(wrong[0], 'missing')}; this model has {shapes[wrong[0]]}."
            )
        return call({name: leaves[name] for name in shapes}, *args)

    return fn


def load_opt_state(path: str | os.PathLike[str], like):
    """The optimizer state that was exported beside a model.

    Args:
      path: the folder.
      like: a state of the same optimizer for the loaded parameters, tx.init(params).

    Returns:
      `like` with the arrays that were saved.

    Raises:
      FileNotFoundError: as `load_compact`.
      ValueError: no state was exported, or it is that of another optimizer; and as `load_compact`.

    Examples:
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
    data, *_ = manifest.read(path)
    if "opt_state.safetensors" not in data["sha256"]:
        raise ValueError(f"{path} holds no optimizer state: none was given to compact.")
    content, random = manifest.content(path, data, "opt_state.safetensors"), data["random_keys"]["opt_state"]
    arrays = from_bytes(path, content)
    leaves, treedef = named_leaves(like)
    found = {name: np.shape(leaf if is_numeric(leaf) else jax.random.key_data(leaf)) for name, leaf in leaves}
    saved = {name: array.shape for name, array in arrays.items()}
    if found != saved:
        name = next(iter(sorted(name for name in found.keys() | saved.keys() if found.get(name) != saved.get(name))))
        raise ValueError(
            f"the optimizer state in {path} is of another optimizer: {name!r} has shape {saved.get(name, 'missing')} "
            f"there, and {found.get(name, 'missing')} in `like`."
        )
    return treedef.unflatten([leaf(arrays[name], random.get(name)) for name, _ in leaves])


def _nested(path: Path, pairs) -> Any:
    """Nested dicts and lists from (steps, leaf)."""
    if len(pairs) == 1 and not pairs[0][0]:
        return pairs[0][1]
    children: dict[Any, list[Any]] = {}
    for steps, array in pairs:
        if not steps:
            raise ValueError(f"{path / 'model.json'} is damaged: a parameter lies where others branch off.")
        first, *rest = steps
        children.setdefault(tuple(first), []).append((rest, array))
    kinds = {kind for kind, _ in children}
    if len(kinds) != 1 or (kinds == {"index"} and [i for _, i in children] != list(range(len(children)))):
        raise ValueError(
            f"{path / 'model.json'} is damaged: keys and indices lie side by side, or an index is missing."
        )
    built = {key: _nested(path, below) for (_, key), below in children.items()}
    return list(built.values()) if kinds == {"index"} else built
