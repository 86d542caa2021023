"""Trained networks in the folders of Hugging Face, config.json and safetensors, as networks here.

GPT-2 (`model_type` "gpt2") becomes `GPT` and ViT ("vit") `ViT`. Arrays are taken by their names; what is missing, what
is more, other shapes, and settings with which the network here would compute something else are errors. Dropout is left
out: the networks here have none.

References:
  The names and the settings: `transformers`, GPT2Config, ViTConfig and the modules of both.
"""

import functools
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from flax import nnx

from ..errors import RunError
from ..models.gpt import GPT
from ..models.vit import ViT
from .network import Network, by_name, parts_of

Parts = dict[str, Any]
"""{name here: array}; a name is that of `by_name`."""
Table = dict[str, tuple[tuple[int, ...], Callable[[np.ndarray], Parts]]]
"""{name there: (its shape, what becomes of it)}."""

GPT2_FIXED = {
    "activation_function": "gelu_new", "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False,
    "reorder_and_upcast_attn": False, "add_cross_attention": False, "tie_word_embeddings": True,
}  # fmt: skip
VIT_FIXED = {"hidden_act": "gelu", "num_channels": 3, "qkv_bias": True}


def load_folder(folder: str | Path) -> tuple[Network, dict]:
    """(network, params) of a folder.

    Args:
      folder: holds config.json and model.safetensors, or model.safetensors.index.json and the files it names.

    Returns:
      The network as pure functions, and its parameters, float32.

    Raises:
      RunError: something is missing there, or is none of what the network here has.
    """
    folder = Path(folder)
    config = _json(folder / "config.json")
    kinds = {"gpt2": _gpt2, "vit": _vit}
    if (kind := config.get("model_type")) not in kinds:
        raise RunError(f"{folder / 'config.json'}: model_type is {kind!r}; expected 'gpt2' or 'vit'.")
    tensors = _tensors(folder)
    try:
        make, table, optional = kinds[kind](config, tensors)
    except KeyError as error:
        raise RunError(f"{folder / 'config.json'} has no {error}.") from None
    params = _taken(folder, tensors, table, optional)
    network, expected, _ = parts_of(nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0))))
    assert {k: v.shape for k, v in by_name(expected).items()} == {k: v.shape for k, v in by_name(params).items()}
    return network, params


def _gpt2(config: dict, tensors: Iterable[str]):
    _check(config, GPT2_FIXED)
    width, heads, depth = config["n_embd"], config["n_head"], config["n_layer"]
    hidden, length, classes = config.get("n_inner") or 4 * width, config["n_positions"], config["vocab_size"]
    _check_width(width, heads, hidden, "n_inner")
    of_head = (heads, width // heads)
    start = "transformer." if any(name.startswith("transformer.") for name in tensors) else ""
    table: Table = {
        "wte.weight": _one("tokens/embedding", (classes, width)),
        "wpe.weight": ((length, width), lambda array: {"positions": array[None]}),
        **_norm("ln_f", "norm", width),
    }
    for layer in range(depth):
        here, there = f"blocks/layers/{layer}", f"h.{layer}"
        qkv = [f"{here}/attention/{name}" for name in ("query", "key", "value")]
        parts = lambda array, shape, kind, qkv=qkv: {
            f"{name}/{kind}": part.reshape(shape) for name, part in zip(qkv, np.split(array, 3, -1), strict=True)
        }
        table |= {
            f"{there}.attn.c_attn.weight": (
                (width, 3 * width), functools.partial(parts, shape=(width, *of_head), kind="kernel"),
            ),
            f"{there}.attn.c_attn.bias": ((3 * width,), functools.partial(parts, shape=of_head, kind="bias")),
            f"{there}.attn.c_proj.weight": _one(f"{here}/attention/out/kernel", (width, width), (*of_head, width)),
            f"{there}.attn.c_proj.bias": _one(f"{here}/attention/out/bias", (width,)),
            f"{there}.mlp.c_fc.weight": _one(f"{here}/dense1/kernel", (width, hidden)),
            f"{there}.mlp.c_fc.bias": _one(f"{here}/dense1/bias", (hidden,)),
            f"{there}.mlp.c_proj.weight": _one(f"{here}/dense2/kernel", (hidden, width)),
            f"{there}.mlp.c_proj.bias": _one(f"{here}/dense2/bias", (width,)),
            **_norm(f"{there}.ln_1", f"{here}/norm1", width),
            **_norm(f"{there}.ln_2", f"{here}/norm2", width),
        }  # fmt: skip
    masks = {f"{start}h.{layer}.attn.{name}" for layer in range(depth) for name in ("bias", "masked_bias")}
    epsilon = config.get("layer_norm_epsilon", 1e-5)
    make = functools.partial(GPT, depth, heads, width, classes, length, epsilon=epsilon)
    return make, {start + name: row for name, row in table.items()}, masks | {"lm_head.weight"}


def _vit(config: dict, tensors: Iterable[str]):
    _check(config, VIT_FIXED)
    width, heads, depth = config["hidden_size"], config["num_attention_heads"], config["num_hidden_layers"]
    hidden, size, patch = config["intermediate_size"], config["image_size"], config["patch_size"]
    _check_width(width, heads, hidden, "intermediate_size")
    classes = len(config["id2label"]) if "id2label" in config else config.get("num_labels", 2)
    of_head, places = (heads, width // heads), (size // patch) ** 2 + 1
    table: Table = {
        "vit.embeddings.cls_token": _one("token", (1, 1, width)),
        "vit.embeddings.position_embeddings": _one("positions", (1, places, width)),
        "vit.embeddings.patch_embeddings.projection.weight": (
            (width, 3, patch, patch), lambda array: {"patches/kernel": array.transpose(2, 3, 1, 0)},
        ),
        "vit.embeddings.patch_embeddings.projection.bias": _one("patches/bias", (width,)),
        **_norm("vit.layernorm", "norm", width),
        **_dense("classifier", "head", width, classes),
    }  # fmt: skip
    for layer in range(depth):
        here, there = f"blocks/layers/{layer}", f"vit.encoder.layer.{layer}"
        for name in ("query", "key", "value"):
            shapes = {"kernel": (width, *of_head), "bias": of_head}
            table |= _dense(f"{there}.attention.attention.{name}", f"{here}/attention/{name}", width, width, shapes)
        out = {"kernel": (*of_head, width), "bias": (width,)}
        table |= _dense(f"{there}.attention.output.dense", f"{here}/attention/out", width, width, out)
        table |= _dense(f"{there}.intermediate.dense", f"{here}/dense1", width, hidden)
        table |= _dense(f"{there}.output.dense", f"{here}/dense2", hidden, width)
        table |= _norm(f"{there}.layernorm_before", f"{here}/norm1", width)
        table |= _norm(f"{there}.layernorm_after", f"{here}/norm2", width)
    epsilon = config.get("layer_norm_eps", 1e-12)
    return functools.partial(ViT, width, depth, heads, classes, patch, size=size, epsilon=epsilon), table, set()


def _one(name: str, shape: tuple[int, ...], here: tuple[int, ...] | None = None):
    """A row of the table whose array keeps its axes, in the shape that it has here."""
    return shape, lambda array: {name: array.reshape(here or shape)}


def _norm(there: str, here: str, width: int) -> Table:
    return {f"{there}.weight": _one(f"{here}/scale", (width,)), f"{there}.bias": _one(f"{here}/bias", (width,))}


def _dense(there: str, here: str, inputs: int, outputs: int, shapes: dict[str, tuple[int, ...]] | None = None) -> Table:
    """A layer of PyTorch, whose weight is [outputs, inputs]."""
    shapes = shapes or {"kernel": (inputs, outputs), "bias": (outputs,)}
    kernel = lambda array: {f"{here}/kernel": array.T.reshape(shapes["kernel"])}
    return {
        f"{there}.weight": ((outputs, inputs), kernel),
        f"{there}.bias": _one(f"{here}/bias", (outputs,), shapes["bias"]),
    }


def _check(config: dict, fixed: dict[str, Any]) -> None:
    for name, value in fixed.items():
        if (found := config.get(name, value)) != value:
            raise RunError(f"config.json: {name} is {found!r}; the network here computes with {value!r} alone.")


def _check_width(width: int, heads: int, hidden: int, name: str) -> None:
    if width % heads:
        raise RunError(f"config.json: {heads} heads do not divide the width {width}.")
    if hidden != 4 * width:
        raise RunError(f"config.json: {name} is {hidden}; the network here has 4 times the width, {4 * width}.")


def _taken(folder: Path, tensors: dict[str, np.ndarray], table: Table, optional: set[str]) -> dict:
    """The tree of the parameters, of arrays that are all there, of the right shapes, and no more."""
    if missing := sorted(table.keys() - tensors.keys()):
        raise RunError(f"{folder} lacks {_listed(missing)}; expected the names of transformers' model with its head.")
    if more := sorted(tensors.keys() - table.keys() - optional):
        raise RunError(f"{folder} has {_listed(more)}, for which there is no place in the network here.")
    tied = next((name for name in table if name.endswith("wte.weight")), None)
    if "lm_head.weight" in tensors and tied and not np.array_equal(tensors["lm_head.weight"], tensors[tied]):
        raise RunError(f"{folder}: lm_head.weight differs from {tied}; the network here has one array for both.")
    params: dict[str, Any] = {}
    for name, (shape, parts) in table.items():
        if (found := tensors[name].shape) != shape:
            raise RunError(f"{folder}: {name} has the shape {list(found)}; by config.json expected {list(shape)}.")
        for place, array in parts(np.asarray(tensors[name], np.float32)).items():
            *outer, last = place.split("/")
            inner = functools.reduce(lambda tree, key: tree.setdefault(_key(key), {}), outer, params)
            inner[last] = np.ascontiguousarray(array)
    return params


def _key(key: str) -> Any:
    """Of a list of layers the numbers are ints."""
    return int(key) if key.isdigit() else key


def _tensors(folder: Path) -> dict[str, np.ndarray]:
    index, whole = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if index.exists():
        files = sorted({folder / name for name in _json(index).get("weight_map", {}).values()})
    elif whole.exists():
        files = [whole]
    else:
        there = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) if folder.is_dir() else "no such folder"
        raise RunError(f"{folder} has no model.safetensors ({there}); save it by save_pretrained of transformers.")
    tensors: dict[str, np.ndarray] = {}
    for file in files:
        try:
            tensors |= safetensors.numpy.load_file(file)
        except (OSError, safetensors.SafetensorError) as error:
            raise RunError(f"{file} cannot be read as safetensors: {error}.") from None
    return tensors


def _json(file: Path) -> dict:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{file} cannot be read as JSON: {error}.") from None
    if not isinstance(value, dict):
        raise RunError(f"{file}: expected an object, got {str(value)[:40]}.")
    return value


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
