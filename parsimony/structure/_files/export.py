"""A compact model on disk: arrays by safetensors, structure by JSON, the program as StableHLO. No pickle.

PATH/params.safetensors     the parameters, by name
PATH/model.stablehlo        the program and its derivative, for `jax.export.deserialize`: call({name: array}, x)
PATH/model.json             names, shapes, units, what was kept, a SHA-256 of each file and of itself
PATH/opt_state.safetensors  the optimizer's arrays, where there are any
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from ..._tree import named_leaves
from ..._words import one_of, shown
from .._surgery.compact import Compact
from . import manifest
from .arrays import leaf, numbers, to_bytes


def export(
    small: Compact,
    path: str | os.PathLike[str],
    *args,
    batch: Literal["any", "fixed"] = "any",
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
) -> Path:
    """Writes a compact model into a new folder: it runs with JAX alone, without the code that made it.

    Digests tell damage. They are no signature: load only what comes from somebody you trust, since a program can do
    anything that a program can.

    Args:
      small: what `compact` returned.
      path: a folder that does not exist. It appears as a whole or not at all.
      *args: arguments of small.fn, or their shapes.
      batch: "any": the program takes any size of the first axis of x (and of the arguments that share it); "fixed":
        that of the arguments given.
      platforms: what the program is lowered for.

    Returns:
      The folder.

    Raises:
      FileExistsError: `path` exists.
      ValueError: there is no function (units from JSON alone), it cannot be exported for any batch size, or a leaf has
        a dtype that a file cannot hold, such as complex64.

    Examples:
      >>> import jax, jax.numpy as jnp, numpy as np, parsimony as pm, tempfile
      >>> params = {"w1": jnp.ones((4, 6)), "w2": jnp.ones((6, 3))}
      >>> fn = lambda p, x: jax.nn.relu(x @ p["w1"]) @ p["w2"]
      >>> units = pm.structure.find_units(fn, params, jnp.ones((2, 4)))
      >>> small = pm.structure.compact(units, {"w1": np.arange(6) < 2}, params)
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     fn, params = pm.structure.load_compact(pm.structure.export(small, folder + "/mlp", jnp.ones((2, 4))))
      >>> fn(params, jnp.ones((1, 4))).tolist()
      [[8.0, 8.0, 8.0]]
    """
    if not isinstance(small, Compact):
        swapped = "the arguments are swapped; " if isinstance(path, Compact) else ""
        raise TypeError(
            f"export: expected what compact returns, got {shown(small)}: {swapped}call export(small, path, x)."
        )
    path = Path(path)
    if path.exists() or path.is_symlink():
        raise FileExistsError(f"{path} exists: a model is never overwritten. Give another folder, or remove this one.")
    if small.fn is None:
        raise ValueError("this compact model has no function: give Units.from_json(text, fn) the one it was found in.")
    one_of("batch", batch, ("any", "fixed"))
    from ... import __version__

    keys = jax.tree_util.tree_flatten_with_path(small.params)[0]
    names = [name for name, _ in named_leaves(small.params)[0]]
    arrays, random = numbers(small.params, "params")
    files = {"params.safetensors": to_bytes(arrays)}
    state_random: dict[str, str] = {}
    if small.opt_state is not None:
        state, state_random = numbers(small.opt_state, "opt_state")
        files["opt_state.safetensors"] = to_bytes(state)
    files["model.stablehlo"], missing = _serialized(_program(small, arrays, random, args, batch, platforms))
    files["model.json"] = manifest.write(
        {
            "format": manifest.FORMAT,
            "parsimony": __version__,
            "jax": jax.__version__,
            "route": small.route,
            "batch": batch,
            "derivative": missing,
            "arguments": [[list(np.shape(x)), str(jax.dtypes.result_type(x))] for x in jax.tree.leaves(args)],
            "parameters": [[name, _steps(name, keypath)] for name, (keypath, _) in zip(names, keys, strict=True)],
            "random_keys": {"params": random, "opt_state": state_random},
            "keep": {name: np.flatnonzero(mask).tolist() for name, mask in small.keep.items()},
            "units": json.loads(small.units.to_json()),
            "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        }
    )

    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        for name, data in files.items():
            with open(folder / name, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        folder.chmod(0o755)
        folder.rename(path)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return path


def _serialized(program) -> tuple[bytes, str]:
    """The program with its derivative; or without it, and why there is none (a loop of unknown length)."""
    try:
        return bytes(program.serialize(vjp_order=1)), ""
    except Exception as error:  # any: what cannot be differentiated says so in its own way
        return bytes(program.serialize()), f"{type(error).__name__}: {str(error).splitlines()[0]}"


def _program(small: Compact, arrays: dict[str, np.ndarray], random: dict[str, str], args, batch: str, platforms):
    from jax import export as jax_export

    treedef = jax.tree.structure(small.params)

    def by_name(named, *args):
        assert small.fn is not None
        return small.fn(treedef.unflatten([leaf(named[name], random.get(name)) for name in arrays]), *args)

    struct = lambda shape, array: jax.ShapeDtypeStruct(shape, jax.dtypes.result_type(array))
    leaves = jax.tree.leaves(args)
    shapes = [np.shape(x) for x in leaves]
    if batch == "any":
        if not shapes or not shapes[0]:
            raise ValueError("batch='any' needs an argument with a batch axis; write batch='fixed'.")
        size, (symbol,) = shapes[0][0], jax_export.symbolic_shape("batch")
        shapes = [(symbol, *shape[1:]) if shape and shape[0] == size else shape for shape in shapes]
    args = jax.tree.unflatten(jax.tree.structure(args), [struct(*pair) for pair in zip(shapes, leaves, strict=True)])
    named = {name: struct(array.shape, array) for name, array in arrays.items()}
    try:
        return jax_export.export(jax.jit(by_name), platforms=tuple(platforms))(named, *args)
    except Exception as error:
        way_out = " If it needs to know the batch size, write batch='fixed'." if batch == "any" else ""
        raise ValueError(f"export of the function failed: {type(error).__name__}: {error}{way_out}") from error


def _steps(name: str, keypath) -> list[list[Any]]:
    """The steps to a parameter, as many as its name has: the one into a variable of Flax NNX is not among them."""
    steps = [_step(key) for key in keypath]
    spelled = lambda steps: "/".join(str(step) for _, step in steps)
    return steps[:-1] if steps and spelled(steps) != name and spelled(steps[:-1]) == name else steps


def _step(key) -> list[Any]:
    """One step of a key path, for JSON."""
    if isinstance(key, jax.tree_util.SequenceKey):
        return ["index", key.idx]
    if isinstance(key, jax.tree_util.GetAttrKey):
        return ["key", key.name]
    if isinstance(key, jax.tree_util.DictKey):
        return ["key", key.key if isinstance(key.key, int) else str(key.key)]
    return ["key", getattr(key, "key", str(key))]
