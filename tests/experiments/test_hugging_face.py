"""Folders as `transformers` writes them, with random weights: each network by its definition in NumPy; the errors."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import parsimony as pm
from experiments.errors import RunError
from experiments.training.hugging_face import load_folder

GPT2 = {"model_type": "gpt2", "n_embd": 8, "n_head": 2, "n_layer": 2, "n_positions": 6, "vocab_size": 11}
VIT = {
    "model_type": "vit", "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 32,
    "image_size": 8, "patch_size": 4, "id2label": {"0": "cat", "1": "dog", "2": "bat"}, "layer_norm_eps": 1e-3,
}  # fmt: skip


def drawn(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {name: 0.5 * random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def both(name, *shape):
    """A weight and its bias, which is as long as the last axis of a GPT-2 weight and the first of a ViT weight."""
    return {f"{name}.weight": shape, f"{name}.bias": shape[-1:] if name.startswith("h.") else shape[:1]}


def gpt2() -> dict[str, np.ndarray]:
    shapes = {"wte.weight": (11, 8), "wpe.weight": (6, 8)} | both("ln_f", 8)
    for h in ("h.0", "h.1"):
        shapes |= both(f"{h}.ln_1", 8) | both(f"{h}.ln_2", 8) | both(f"{h}.attn.c_attn", 8, 24)
        shapes |= both(f"{h}.attn.c_proj", 8, 8) | both(f"{h}.mlp.c_fc", 8, 32) | both(f"{h}.mlp.c_proj", 32, 8)
    return drawn(shapes)


def vit() -> dict[str, np.ndarray]:
    e, layer = "vit.embeddings", "vit.encoder.layer.0"
    shapes = {f"{e}.cls_token": (1, 1, 8), f"{e}.position_embeddings": (1, 5, 8)}
    shapes |= both(f"{e}.patch_embeddings.projection", 8, 3, 4, 4) | both("vit.layernorm", 8) | both("classifier", 3, 8)
    for name in ("query", "key", "value"):
        shapes |= both(f"{layer}.attention.attention.{name}", 8, 8)
    shapes |= both(f"{layer}.attention.output.dense", 8, 8) | both(f"{layer}.intermediate.dense", 32, 8)
    shapes |= both(f"{layer}.output.dense", 8, 32) | both(f"{layer}.layernorm_before", 8)
    return drawn(shapes | both(f"{layer}.layernorm_after", 8))


def written(folder, config, tensors):
    (folder / "config.json").write_text(json.dumps(config))
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    return folder


def norm(x, w, name, epsilon):
    centred = x - x.mean(-1, keepdims=True)
    return (
        centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + epsilon) * w[f"{name}.weight"]
        + w[f"{name}.bias"]
    )


def attention(q, k, v, causal):
    """Of two heads, [length, 8] each."""
    q, k, v = (a.reshape(len(a), 2, 4).transpose(1, 0, 2) for a in (q, k, v))
    scores = q @ k.transpose(0, 2, 1) / 2
    scores = np.where(np.tri(scores.shape[1], dtype=bool), scores, -np.inf) if causal else scores
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(-1, 8)


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


gelu = np.vectorize(lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2))))


def test_a_gpt2_is_its_definition(tmp_path):
    """In two files, with the mask that old folders hold; the prefix of a model with a head may be there or not."""
    w = gpt2()
    prefixed = {f"transformer.{name}": array for name, array in w.items()}
    prefixed |= {"lm_head.weight": w["wte.weight"], "transformer.h.0.attn.bias": np.tri(6, dtype=bool)[None, None]}
    (tmp_path / "config.json").write_text(json.dumps(GPT2))
    names = sorted(prefixed)
    files = {"one.safetensors": names[:9], "two.safetensors": names[9:]}
    for file, held in files.items():
        safetensors.numpy.save_file({name: prefixed[name] for name in held}, tmp_path / file)
    index = {name: file for file, held in files.items() for name in held}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    network, params = load_folder(tmp_path)

    tokens, table = np.array([3, 1, 4, 1, 5]), w["wte.weight"]
    x = table[tokens] + w["wpe.weight"][:5]
    for h in ("h.0", "h.1"):
        qkv = norm(x, w, f"{h}.ln_1", 1e-5) @ w[f"{h}.attn.c_attn.weight"] + w[f"{h}.attn.c_attn.bias"]
        mixed = attention(*np.split(qkv, 3, -1), causal=True)
        x = x + mixed @ w[f"{h}.attn.c_proj.weight"] + w[f"{h}.attn.c_proj.bias"]
        hidden = gelu_tanh(norm(x, w, f"{h}.ln_2", 1e-5) @ w[f"{h}.mlp.c_fc.weight"] + w[f"{h}.mlp.c_fc.bias"])
        x = x + hidden @ w[f"{h}.mlp.c_proj.weight"] + w[f"{h}.mlp.c_proj.bias"]
    expected = norm(x, w, "ln_f", 1e-5) @ table.T
    np.testing.assert_allclose(network.fn(params, jnp.asarray(tokens)[None])[0], expected, rtol=2e-5, atol=2e-5)

    (bare := tmp_path / "bare").mkdir()
    again = load_folder(written(bare, GPT2, w))[1]
    jax.tree.map(np.testing.assert_array_equal, again, params)


def test_a_vit_is_its_definition_and_loses_units_exactly(tmp_path):
    w = vit()
    network, params = load_folder(written(tmp_path, VIT, w))
    image = np.random.default_rng(1).normal(size=(8, 8, 3)).astype(np.float32)

    e, layer = "vit.embeddings", "vit.encoder.layer.0"
    patches = image.reshape(2, 4, 2, 4, 3).transpose(0, 2, 4, 1, 3).reshape(4, -1)
    projection = f"{e}.patch_embeddings.projection"
    x = patches @ w[f"{projection}.weight"].reshape(8, -1).T + w[f"{projection}.bias"]
    x = np.concatenate([w[f"{e}.cls_token"][0], x]) + w[f"{e}.position_embeddings"][0]
    dense = lambda x, name: x @ w[f"{name}.weight"].T + w[f"{name}.bias"]
    y = norm(x, w, f"{layer}.layernorm_before", 1e-3)
    qkv = (dense(y, f"{layer}.attention.attention.{name}") for name in ("query", "key", "value"))
    x = x + dense(attention(*qkv, causal=False), f"{layer}.attention.output.dense")
    y = norm(x, w, f"{layer}.layernorm_after", 1e-3)
    x = x + dense(gelu(dense(y, f"{layer}.intermediate.dense")), f"{layer}.output.dense")
    expected = dense(norm(x[:1], w, "vit.layernorm", 1e-3), "classifier")
    np.testing.assert_allclose(network.fn(params, image[None]), expected, rtol=2e-5, atol=2e-5)

    units = pm.structure.find_units(network.fn, params, image[None])
    keep = pm.structure.choose(units, params, order="magnitude", sparsity=0.4, scope="layer")
    small = pm.structure.compact(units, keep, params)
    zeroed = network.fn(units.zero(keep, params), image[None])
    np.testing.assert_allclose(small.fn(small.params, image[None]), zeroed, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        ({"model_type": "bert"}, {}, "model_type is 'bert'; expected 'gpt2' or 'vit'"),
        (
            {"activation_function": "relu"},
            {},
            "activation_function is 'relu'; .* computes with 'gelu_new'",
        ),
        ({"n_inner": 20}, {}, "n_inner is 20; the network here has 4 times the width, 32"),
        ({"n_head": 3}, {}, "3 heads do not divide the width 8"),
        ({"n_embd": None}, {}, "has no 'n_embd'"),
        ({}, {"h.1.ln_2.bias": None}, "lacks h.1.ln_2.bias"),
        ({}, {"h.2.ln_2.bias": (8,)}, "has h.2.ln_2.bias, for which there is no place"),
        ({}, {"wpe.weight": (7, 8)}, r"wpe.weight has the shape \[7, 8\]; by config.json expected \[6, 8\]"),
        ({}, {"lm_head.weight": (11, 8)}, "lm_head.weight differs from wte.weight"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, config, change, message):
    tensors = gpt2() | drawn({name: shape for name, shape in change.items() if shape}, seed=1)
    tensors = {name: array for name, array in tensors.items() if change.get(name, True)}
    settings = {name: value for name, value in (GPT2 | config).items() if value is not None}
    with pytest.raises(RunError, match=message):
        load_folder(written(tmp_path, settings, tensors))


def test_a_folder_of_another_kind_is_named(tmp_path):
    with pytest.raises(RunError, match=r"config.json cannot be read as JSON"):
        load_folder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(VIT))
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(RunError, match=r"no model.safetensors \(config.json, pytorch_model.bin\); save it by"):
        load_folder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(RunError, match=r"model.safetensors cannot be read as safetensors"):
        load_folder(tmp_path)
