"""The convolution of the networks: XLA's, with gradients for which a CPU is given channels last."""

import contextlib
import functools
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from experiments import models
from experiments.models.convolution import convolution
from experiments.startup import flags_for
from experiments.training.network import merge_variables, parts_of

LAST = ("NHWC", "HWIO", "NHWC")
XLA = functools.partial(lax.conv_general_dilated, dimension_numbers=LAST)
OWN = functools.partial(convolution, dimension_numbers=LAST)
SAME = {"strides": (1, 1), "padding": "SAME"}
IMAGES_AS_CHANNELS = re.compile(r"\[f, [0-9, ]*b\]x")
"""How XLA's own gradient of a kernel takes images: with the batch as the last axis's number, not turned beforehand."""


def drawn(batch=5, side=12, size=(3, 3), inputs=4, outputs=6, dtype="float32", seed=0):
    """Images, a kernel, and random numbers of which the loss is a weighted sum of squares."""
    rng = np.random.default_rng(seed)
    side = side if isinstance(side, tuple) else (side, side)
    new = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
    return new(batch, *side, inputs), new(*size, inputs, outputs)


def gradients(convolved, images, kernel, *, strides, padding, **options):
    """Of a loss that is not linear in the result."""

    def loss(images, kernel):
        out = convolved(images, kernel, strides, padding, **options)
        weights = jnp.linspace(0.5, 1.5, out.size, dtype="float32").reshape(out.shape)
        return jnp.sum(weights * jnp.sin(out.astype("float32")))

    return jax.jit(jax.grad(loss, (0, 1)))(images, kernel)


def assert_close(own, other, rtol=1e-5):
    """To `rtol` of the largest entry."""
    for one, reference in zip(jax.tree.leaves(own), jax.tree.leaves(other), strict=True):
        assert one.shape == reference.shape
        assert one.dtype == reference.dtype
        reference = np.asarray(reference, "float64")
        np.testing.assert_allclose(np.asarray(one, "float64"), reference, rtol=0, atol=rtol * np.abs(reference).max())


@pytest.mark.parametrize(
    ("shapes", "options"),
    [
        pytest.param({}, SAME, id="same"),
        pytest.param({"batch": 1}, SAME, id="one image"),
        pytest.param({"batch": 64}, SAME, id="a batch of two parts"),
        pytest.param({"batch": 75}, SAME, id="a batch that the parts do not divide"),
        pytest.param({"side": (9, 14)}, {"strides": (1, 1), "padding": "VALID"}, id="valid, oblong"),
        pytest.param({"size": (5, 2)}, {"strides": (1, 1), "padding": "SAME"}, id="even and odd window"),
        pytest.param({}, {"strides": (2, 2), "padding": "SAME"}, id="stride of two"),
        pytest.param({"side": 13}, {"strides": (2, 3), "padding": ((1, 1), (0, 2))}, id="strides, explicit padding"),
        pytest.param({"size": (1, 1)}, {"strides": (2, 2), "padding": "VALID"}, id="a window of one"),
        pytest.param({}, {"strides": (1, 1), "padding": "VALID", "rhs_dilation": (2, 3)}, id="dilated kernel"),
        pytest.param(
            {"side": 15}, {"strides": (2, 2), "padding": "SAME", "rhs_dilation": (2, 2)}, id="dilated, stride"
        ),
        pytest.param({}, {"strides": (1, 1), "padding": ((-1, 2), (0, -2))}, id="cropped"),
        pytest.param({"side": 2}, SAME, id="window larger than the image"),
        pytest.param({"side": (1, 7)}, {"strides": (1, 2), "padding": "SAME"}, id="larger on one side, stride"),
        pytest.param({"side": 4}, {**SAME, "rhs_dilation": (2, 2)}, id="larger when dilated"),
        pytest.param({"inputs": 1, "size": (5, 5)}, SAME, id="one channel"),
        pytest.param({"inputs": 1}, {"strides": (2, 2), "padding": "VALID"}, id="one channel, stride of two"),
        pytest.param({"inputs": 3}, {"strides": (2, 2), "padding": "VALID"}, id="images in colour, stride of two"),
        pytest.param({"inputs": 3, "side": 2}, SAME, id="images in colour, window larger than they"),
        pytest.param(
            {"side": 3}, {"strides": (1, 1), "padding": "VALID"}, id="one place, window as large as the image"
        ),
        pytest.param({"side": 4}, {"strides": (2, 2), "padding": "VALID"}, id="one place, stride of two"),
        pytest.param({"inputs": 6}, {**SAME, "feature_group_count": 3}, id="groups"),
        pytest.param({}, {**SAME, "padding": ((2, 2), (2, 2)), "lhs_dilation": (2, 2)}, id="dilated images"),
    ],
)
def test_value_and_gradients_are_those_of_xla(shapes, options):
    images, kernel = drawn(**shapes)
    if groups := options.get("feature_group_count"):
        kernel = kernel[:, :, : kernel.shape[2] // groups]
    strides, padding, rest = options["strides"], options["padding"], {**options}
    del rest["strides"], rest["padding"]
    assert_close(OWN(images, kernel, strides, padding, **rest), XLA(images, kernel, strides, padding, **rest))
    own, other = (jax.jit(functools.partial(gradients, of, **options))(images, kernel) for of in (OWN, XLA))
    assert_close(own, other)


def test_images_of_one_dimension_and_other_layouts():
    rng = np.random.default_rng(0)
    images, kernel = (jnp.asarray(rng.normal(size=shape), "float32") for shape in [(3, 20, 4), (5, 4, 6)])
    for numbers, turn in [(("NWC", "WIO", "NWC"), lambda x: x), (("NCW", "WIO", "NCW"), lambda x: x.swapaxes(1, 2))]:
        options = {"strides": (2,), "padding": "SAME", "dimension_numbers": numbers}
        own, other = (gradients(of, turn(images), kernel, **options) for of in (convolution, lax.conv_general_dilated))
        assert_close(own, other)


@pytest.mark.parametrize(("side", "inputs"), [(2, 4), (12, 4), (12, 1)])
def test_in_bfloat16_the_gradient_of_the_kernel_is_added_up_in_float32(side, inputs):
    images, kernel = drawn(batch=300, side=side, inputs=inputs, dtype="bfloat16")
    own = gradients(OWN, images, kernel, **SAME)
    exact = gradients(XLA, images.astype("float32"), kernel.astype("float32"), **SAME)
    assert {leaf.dtype for leaf in own} == {jnp.dtype("bfloat16")}
    # The loss sees outputs that were rounded: what is left is their rounding, not that of 300 images added up.
    assert_close([leaf.astype("float32") for leaf in own], exact, rtol=2e-2)


def test_under_vmap_over_images_kernels_or_both():
    images, kernels = (jnp.stack(own) for own in zip(*(drawn(seed=seed) for seed in range(3)), strict=True))
    for axes, arguments in [
        ((0, 0), (images, kernels)),
        ((0, None), (images, kernels[0])),
        ((None, 0), (images[0], kernels)),
    ]:
        own, other = (jax.vmap(functools.partial(gradients, of, **SAME), axes)(*arguments) for of in (OWN, XLA))
        assert_close(own, other)


@pytest.mark.parametrize("side", [2, 12])
def test_under_pmap(side):
    images, kernel = drawn(batch=8 * 3, side=side)
    mean = lambda of: lambda images, kernel: lax.pmean(gradients(of, images, kernel, **SAME)[1], "devices")
    parts = jnp.reshape(images, (8, 3, *images.shape[1:]))
    own, other = (jax.pmap(mean(of), "devices", in_axes=(0, None))(parts, kernel) for of in (OWN, XLA))
    assert_close(own, other)
    lowered = jax.pmap(mean(OWN), "devices", in_axes=(0, None)).lower(parts, kernel)
    assert not IMAGES_AS_CHANNELS.search(lowered.as_text())


@pytest.mark.parametrize("kind", [jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit])
@pytest.mark.parametrize("known", [True, False], ids=["mesh of the context", "mesh of the arrays"])
@pytest.mark.parametrize("devices", [1, 8])
def test_where_a_mesh_shards_images_all_is_left_to_xla(devices, known, kind):
    images, kernel = drawn(batch=16)
    weights = jnp.linspace(0.5, 1.5, kernel.shape[-1]).reshape(1, 1, 1, -1)
    loss = lambda of: lambda kernel, images: jnp.sum(weights * jnp.sin(of(images, kernel, (1, 1), "SAME")))
    wanted = jax.jit(jax.grad(loss(XLA)))(kernel, images)
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(kind,), devices=jax.devices()[:devices])
    images = jax.device_put(images, jax.NamedSharding(mesh, jax.P("data")))
    kernel, weights = (jax.device_put(x, jax.NamedSharding(mesh, jax.P())) for x in (kernel, weights))
    with jax.set_mesh(mesh) if known else contextlib.nullcontext():
        step = jax.jit(jax.grad(loss(OWN)))
        left = bool(IMAGES_AS_CHANNELS.search(step.lower(kernel, images).as_text()))
        assert left != (devices == 1 and kind.name == "Auto")
        assert_close(step(kernel, images), wanted)


@pytest.mark.slow
@pytest.mark.parametrize("side", [2, 8])
def test_a_gradient_can_be_differentiated_again_in_both_modes(side):
    arrays = drawn(side=side)
    gradient = lambda of: functools.partial(gradients, of, **SAME)
    products = [jax.jvp(gradient(of), arrays, drawn(side=side, seed=1))[1] for of in (OWN, XLA)]
    assert_close(*products)
    squares = lambda of: jax.jit(jax.grad(lambda *arrays: sum(jnp.sum(x**2) for x in gradient(of)(*arrays)), (0, 1)))
    assert_close(squares(OWN)(*arrays), squares(XLA)(*arrays), rtol=3e-5)


def test_a_forward_derivative_is_an_error():
    arrays = drawn()
    with pytest.raises(TypeError, match="forward-mode autodiff"):
        jax.jvp(lambda *arrays: OWN(*arrays, (1, 1), "SAME"), arrays, arrays)


@pytest.mark.parametrize("side", [2, 12])
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_on_other_platforms_the_program_is_that_of_xla(platform, side):
    arrays = drawn(side=side)

    def heavy(convolved):
        """The operations that take time, with their shapes."""
        traced = jax.jit(functools.partial(gradients, convolved, **SAME)).trace(*arrays)
        lines = traced.lower(lowering_platforms=(platform,)).as_text().splitlines()
        lines = [
            line.split("stablehlo.")[1] for line in lines if re.search(r"convolution|dot_general|while|pad ", line)
        ]
        return sorted(re.sub(r"%\w+", "", line) for line in lines)

    assert heavy(OWN) == heavy(XLA)
    assert [line.split("(")[0] for line in heavy(OWN)] == 3 * ["convolution"]


def test_at_inference_a_network_has_the_convolutions_that_it_had():
    network, params, stats = parts_of(models.models["resnet20"](rngs=nnx.Rngs(0)))
    variables = merge_variables(params, stats)
    text = jax.jit(network.fn).lower(variables, jnp.zeros((2, 32, 32, 3))).as_text()
    assert len(re.findall(r"stablehlo\.convolution", text)) == 19
    assert len(re.findall(r"stablehlo\.dot_general", text)) == 1


def test_the_jaxlib_that_convolves_on_one_thread_is_told_not_to():
    flag = "--xla_cpu_experimental_ynn_fusion_type=-individual_convolution"
    assert [flags_for(jaxlib, "") for jaxlib in ("0.8.3", "0.9.2", "0.10.0", "0.10.2", "0.11.2", "0.12.0.1")] == [
        [], [], [flag], [flag], [], [],
    ]  # fmt: skip
    assert flags_for("0.10.2", "--xla_dump_to=somewhere --xla_cpu_experimental_ynn_fusion_type=dot") == []
    assert flags_for("0.10.2", "--xla_dump_to=somewhere") == [flag]


@pytest.mark.slow
def test_xla_knows_the_flags_of_a_started_process_and_convolves_by_eigen_in_jaxlib_0_10():
    program = """
from experiments.startup import start
start()
start()
import jax, jax.numpy as jnp
convolved = lambda x, k: jax.lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
text = jax.jit(convolved).lower(jnp.ones((2, 8, 8, 32)), jnp.ones((3, 3, 32, 32))).compile().as_text()
assert not jax.__version__.startswith("0.10.") or "ynn" not in text, text
"""
    subprocess.run([sys.executable, "-c", program], check=True)
