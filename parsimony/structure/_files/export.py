"""A compact model on disk: arrays by safetensors, structure by JSON, the program as StableHLO. No pickle.

PATH/params.safetensors     the parameters, by name
PATH/model.stablehlo        the program and its derivative, for `jax.export.deserialize`: call({name: array}, x)
PATH/model.json             names, shapes, units, what was kept, a SHA-256 of each file and of itself
PATH/opt_state.safetensors  the optimizer's arrays, where there are any

Or a file of ONNX, for what is not JAX.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from ..._tree import named_leaves
from ..._words import one_of, shown
from .._surgery.compact import Compact
from . import manifest
from .arrays import leaf, numbers, to_bytes
from .onnx import to_onnx


def export(
    small: Compact,
    path: str | os.PathLike[str],
    *args,
    batch: Literal["any", "fixed"] = "any",
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
    format: Literal["jax", "onnx"] = "jax",
) -> Path:
    """Writes a compact model into a new folder: it runs with JAX alone, without the code that made it.

    With format="onnx" it is one file, the program with its parameters inside, which runs without JAX: its inputs and
    outputs are the arrays of the arguments and of the result. It is written once ONNX Runtime has computed from it
    what JAX does, to 1e-4 of the largest output, on normally distributed inputs. Optimizer state, units and derivative
    are in the folder of "jax" alone.

    Digests tell damage. They are no signature: load only what comes from somebody you trust, since a program can do
    anything that a program can.

    Args:
      small: what `compact` returned.
      path: a folder (format "onnx": a file) that does not exist. It appears as a whole or not at all.
      *args: arguments of small.fn, or their shapes.
      batch: "any": the program takes any size of the first axis of x (and of the arguments that share it); "fixed":
        that of the arguments given.
      platforms: what the program of "jax" is lowered for.
      format: "jax", or "onnx", which needs the extra `onnx` (jax2onnx and ONNX Runtime).

    Returns:
      The folder, or the file.

    Raises:
      FileExistsError: `path` exists.
      ValueError: there is no function (units from JSON alone), it cannot be exported for any batch size, or a leaf has
        a dtype that a file cannot hold, such as complex64; ONNX has no form of an operation, or another result.
      ImportError: format="onnx" without the extra.

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
    one_of("format", format, ("jax", "onnx"))
    if format == "onnx":
        size = next((np.shape(x)[0] for x in jax.tree.leaves(args) if np.shape(x)), 1)
        data = to_onnx(small.fn, small.params, _structs(args, batch), size)
        _appear(path, lambda temporary: _synced(temporary, data))
        return path
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

    def write(folder: Path) -> None:
        folder.mkdir()
        for name, data in files.items():
            _synced(folder / name, data)

    _appear(path, write)
    return path


def _appear(path: Path, write: Callable[[Path], None]) -> None:
    """What `write` writes, a file or a folder, is at `path` as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        write(folder / path.name)
        (folder / path.name).rename(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _synced(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


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

    args = _structs(args, batch)
    named = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in arrays.items()}
    try:
        return jax_export.export(jax.jit(by_name), platforms=tuple(platforms))(named, *args)
    except Exception as error:
        way_out = " If it needs to know the batch size, write batch='fixed'." if batch == "any" else ""
        raise ValueError(f"export of the function failed: {type(error).__name__}: {error}{way_out}") from error


def _structs(args: tuple, batch: str) -> tuple:
    """Shapes and dtypes of the arguments; batch="any": with a symbol in the place of the batch size."""
    from jax import export as jax_export

    struct = lambda shape, array: jax.ShapeDtypeStruct(shape, jax.dtypes.result_type(array))
    leaves = jax.tree.leaves(args)
    shapes = [np.shape(x) for x in leaves]
    if batch == "any":
        if not shapes or not shapes[0]:
            raise ValueError("batch='any' needs an argument with a batch axis; write batch='fixed'.")
        size, (symbol,) = shapes[0][0], jax_export.symbolic_shape("batch")
        shapes = [(symbol, *shape[1:]) if shape and shape[0] == size else shape for shape in shapes]
    return jax.tree.unflatten(jax.tree.structure(args), [struct(*pair) for pair in zip(shapes, leaves, strict=True)])


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
