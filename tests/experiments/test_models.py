"""Networks: published counts, shapes, dtypes, and what training changes; the large ones are only traced."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import parsimony as pm
from experiments import models
from experiments.models.gpt import GPT
from experiments.models.layers import conv
from experiments.models.resnet import Block, ResNet, WideResNet
from experiments.models.vit import ViT
from experiments.training.network import parts_of

FAMILIES = ["vgg16", "resnet20", "wrn22_2", "mobilenetv2", "alexnet", "resnet18", "resnet50", "vit_ti16"]


def abstract(make, **options):
    return nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0), **options))


def images(name: str, batch: int = 2):
    return jax.ShapeDtypeStruct((batch, *models.input_shape(name)), models.example(name).dtype)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "count"),
    [
        (models.models["lenet"], 61_706),
        (models.models["lenet300"], 266_610),
        (models.models["vgg16"], 14_728_266),
        (models.models["vgg19"], 20_040_522),
        (models.models["resnet20"], 269_722),
        (lambda rngs: ResNet(20, "projection", rngs=rngs), 272_474),
        (models.models["resnet32"], 464_154),
        (models.models["resnet44"], 658_586),
        (models.models["resnet56"], 853_018),
        (models.models["resnet110"], 1_727_962),
        (lambda rngs: WideResNet(28, 10, rngs=rngs), 36_479_194),
        (models.models["mobilenetv2"], 2_236_682),
        (lambda rngs: models.models["mobilenetv2"](classes=1000, rngs=rngs), 3_504_872),
        (models.models["alexnet"], 61_100_840),
        (models.models["resnet18"], 11_689_512),
        (models.models["resnet18_cifar"], 11_173_962),
        (models.models["resnet50_cifar"], 23_520_842),
        (models.models["resnet34"], 21_797_672),
        (models.models["resnet50"], 25_557_032),
        (models.models["vit_ti16"], 5_717_416),
        (models.models["gpt_nano"], 95_664),
        (lambda rngs: GPT(12, 12, 768, 50_257, 1024, rngs=rngs), 124_439_808),
        (lambda rngs: ViT(768, 12, 12, rngs=rngs), 86_567_656),
    ],
)
def test_the_published_numbers_of_parameters(make, count):
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(abstract(make), nnx.Param))) == count


@pytest.mark.slow
@pytest.mark.parametrize("name", models.models)
def test_parameters_and_batch_statistics_are_all_that_inference_needs(name):
    network = abstract(models.models[name])
    network.eval()
    graphdef, params, statistics = nnx.split(network, nnx.Param, nnx.BatchStat)
    logits = jax.eval_shape(lambda *state: nnx.merge(graphdef, *state[:2])(state[2]), params, statistics, images(name))
    shape = models.input_shape(name)
    assert logits.shape == ((2, *shape, 96) if len(shape) == 1 else (2, 10 if shape[0] < 224 else 1000))


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_bfloat16_is_for_convolutions_and_products_only(name):
    network = abstract(models.models[name], dtype=jnp.bfloat16, classes=7)
    network.set_attributes(nnx.Dropout, deterministic=True, raise_if_not_found=False)
    graphdef, state = nnx.split(network)
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {np.dtype("float32")}
    lowered = jax.jit(lambda state, x: nnx.merge(graphdef, state)(x)).lower(state, images(name))
    assert (lowered.out_info.shape, lowered.out_info.dtype) == ((2, 7), np.dtype("float32"))
    inputs = re.findall(r"stablehlo\.(?:convolution|dot_general).*: \(tensor<[0-9x]+x(\w+)>, ", lowered.as_text())
    assert inputs.count("f32") == 1  # the head
    assert inputs.count("bf16") == len(inputs) - 1 > 0


@pytest.mark.slow
def test_training_moves_the_batch_statistics_and_evaluation_does_not():
    x = jax.random.uniform(jax.random.key(0), (4, 16, 16, 3))
    network = ResNet(20, rngs=nnx.Rngs(0))
    statistics = lambda: jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(network, nnx.BatchStat)))
    start = statistics()
    network.eval()
    network(x)
    jax.tree.map(np.testing.assert_array_equal, start, statistics())
    network.train()
    logits = network(x)
    trained = statistics()
    for before, after in zip(jax.tree.leaves(start), jax.tree.leaves(trained), strict=True):
        assert not np.any(before == after)
    mean = np.mean(network.stem.conv(x), axis=(0, 1, 2))
    np.testing.assert_allclose(trained["stem"]["norm"]["mean"], 0.1 * mean, rtol=1e-4, atol=1e-6)
    network.eval()
    assert np.abs(network(x) - logits).max() > 1e-3


def test_the_identity_shortcut_has_no_parameters_and_halves_and_pads():
    """A block whose second convolution is normalised to zero leaves its shortcut."""
    block = Block(4, 8, 2, "identity", rngs=nnx.Rngs(0))
    assert set(nnx.to_pure_dict(nnx.state(block))) == {"conv1", "conv2"}
    block.conv2.norm.scale[...] = jnp.zeros(8)
    x = np.random.default_rng(0).normal(size=(1, 6, 6, 4)).astype("float32")
    y = np.asarray(nnx.jit(lambda block, x: block(x))(block, x))
    np.testing.assert_array_equal(y[..., 2:6], np.maximum(x[:, ::2, ::2], 0))
    assert y.shape == (1, 3, 3, 8)
    assert not y[..., [0, 1, 6, 7]].any()


@pytest.mark.parametrize("size", [1, 3, 7])
def test_strided_convolutions_are_centred_on_the_even_pixels(size):
    """As in PyTorch; padding SAME of an even image would centre them on the odd ones."""
    layer = conv(2, 2, size, 2, dtype="float32", rngs=nnx.Rngs(0))
    layer.kernel[...] = jnp.zeros((size, size, 2, 2)).at[size // 2, size // 2].set(jnp.eye(2))
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 2)).astype("float32")
    np.testing.assert_array_equal(layer(x), x[:, ::2, ::2])


def test_dropout_needs_a_key_in_training_only():
    network, x = abstract(models.models["alexnet"]), images("alexnet")
    with pytest.raises(ValueError, match="no `rngs` argument"):
        nnx.eval_shape(lambda network, x: network(x), network, x)
    logits = nnx.eval_shape(lambda network, x: network(x, rngs=nnx.Rngs(dropout=0)), network, x)
    assert logits.shape == (2, 1000)
    network.eval()
    assert nnx.eval_shape(lambda network, x: network(x), network, x).shape == (2, 1000)


@pytest.mark.parametrize("width", [2, 3])
def test_units_of_a_narrow_layer_are_units(width):
    """The next layer has images of as few channels as the first one; growth begins there."""
    network, params, _ = parts_of(models.models["small_cnn"](widths=(width, width, 4), rngs=nnx.Rngs(0)))
    units = pm.structure.find_units(network.fn, params, images("small_cnn", 1))
    assert {name: own.size for name, own in units.sets.items()} == {"conv1": width, "conv2": width, "dense1": 4}
