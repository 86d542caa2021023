"""Weights that are computed from parameters before they meet activations: normalised, centred, rescaled, standardised.

A unit's slice of such a parameter enters the weights of other units: a new one changes what they compute, unless it
starts at zero and zeros do not matter to the sum. Growth is exact then, and otherwise raises.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.nn import relu

from helpers.architectures import error
from helpers.cases import mostly
from parsimony.structure import compact, find_units, grow


@pytest.fixture(autouse=True)
def rank_promotion():
    """As in the papers' own code: means and gains meet kernels by their last axis."""
    with jax.numpy_rank_promotion("allow"):
        yield


SUMMED = "reduce_sum of weights"
GROWS = ""


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng([seed, *shape]).normal(size=shape) / np.sqrt(shape[0]), jnp.float32)


WEIGHTS = {"e": normal(6, 8), "w": normal(8, 10), "o": normal(10, 3)}
X = normal(3, 6)


def unit_norm(w, axis):
    return w / jnp.sqrt(jnp.square(w).sum(axis, keepdims=True) + 1e-6)


def rms_norm(h):
    return h * jax.lax.rsqrt(jnp.square(h).mean(-1, keepdims=True) + 1e-6)


def standardised(w, axes=0):
    return (w - w.mean(axes)) / jnp.sqrt(w.var(axes) + 1e-5)


def mlp(first=lambda w: w, second=lambda w: w, between=lambda h: h):
    return lambda p, x: relu(between(relu(x @ first(p["e"]))) @ second(p["w"])) @ p["o"], WEIGHTS, X


def conv(x, w):
    return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def group_norm(h, scale, shift, groups=2):
    parts = h.reshape(*h.shape[:3], groups, -1)
    mean, var = parts.mean((1, 2, 4), keepdims=True), parts.var((1, 2, 4), keepdims=True)
    return ((parts - mean) * jax.lax.rsqrt(var + 1e-5)).reshape(h.shape) * scale + shift


def bit():
    """Standardised 3 × 3 kernels between group normalisations, with a residual stream."""
    p = {
        "stem": normal(3, 3, 3, 8), "w1": normal(3, 3, 8, 6), "w2": normal(3, 3, 6, 8), "head": normal(8, 2),
        "n1": {"scale": 1 + normal(8), "bias": normal(8, seed=1)},
        "n2": {"scale": 1 + normal(6), "bias": normal(6, seed=1)},
    }  # fmt: skip

    def fn(p, x):
        h = conv(x, standardised(p["stem"], (0, 1, 2)))
        inner = relu(group_norm(h, p["n1"]["scale"], p["n1"]["bias"]))
        inner = conv(inner, standardised(p["w1"], (0, 1, 2)))
        inner = relu(group_norm(inner, p["n2"]["scale"], p["n2"]["bias"]))
        return (h + conv(inner, standardised(p["w2"], (0, 1, 2)))).mean((1, 2)) @ p["head"]

    return fn, p, normal(2, 6, 6, 3)


class Spectral(nn.Module):
    normal: bool  # whether each output of the reader has a norm of its own

    @nn.compact
    def __call__(self, x):
        h = relu(nn.SpectralNorm(nn.Dense(8))(x, update_stats=False))
        return nn.Dense(3)(relu((nn.WeightNorm(nn.Dense(7)) if self.normal else nn.Dense(7))(h)))


def spectral(normal):
    return Spectral(normal).apply, dict(Spectral(normal).init(jax.random.key(0), X)), X


def weight_norm():
    """g·v/‖v‖ for each output, without an ε: a kernel of zeros would be divided by zero."""
    p = WEIGHTS | {"g": 1 + normal(8)}
    return lambda p, x: relu(x @ (p["g"] * p["e"] / jnp.linalg.norm(p["e"], axis=0))) @ p["w"] @ p["o"], p, X


def gain_after_rms_norm():
    """As `weight_norm`, but what it makes is normalised: only zeros would be silent, and 0/‖0‖ is not finite."""
    p = WEIGHTS | {"g": 1 + normal(8)}
    maker = lambda p: p["g"] * p["e"] / jnp.linalg.norm(p["e"], axis=0)
    return lambda p, x: relu(rms_norm(relu(x @ maker(p))) @ p["w"]) @ p["o"], p, X


def distance_to_the_sum():
    """A sum without a count: the module itself runs at every width, and computes something else there."""

    def fn(p, x):
        d = p["w"] - p["w"].sum(0)
        return relu(relu(x @ p["e"]) @ p["w"] / jnp.sqrt(jnp.square(d).sum(0) + 1e-5)) @ p["o"]

    return fn, WEIGHTS, X


def standardised_reader(size):
    """A kernel of size × size taps that is standardised over them and its inputs."""
    p = {"a": normal(3, 3, 3, 8), "b": normal(size, size, 8, 6), "c": normal(1, 1, 6, 2)}
    fn = lambda p, x: conv(relu(conv(relu(conv(x, p["a"])), standardised(p["b"], (0, 1, 2)))), p["c"])
    return fn, p, normal(2, 6, 6, 3)


# The model, and for each set of its units why it cannot grow, or GROWS.
MODELS = {
    "unit norm of the reader": (lambda: mlp(second=lambda w: unit_norm(w, 0)), {"e": GROWS, "w": GROWS}),
    "the same after RMSNorm": (
        lambda: mlp(second=lambda w: unit_norm(w, 0), between=rms_norm),
        {"e": SUMMED, "w": GROWS},
    ),
    "Frobenius norm of the maker": (lambda: mlp(first=lambda w: unit_norm(w, (0, 1))), {"e": GROWS, "w": GROWS}),
    "Frobenius norm of both": (
        lambda: mlp(lambda w: unit_norm(w, (0, 1)), lambda w: unit_norm(w, (0, 1))),
        {"e": SUMMED, "w": GROWS},
    ),
    "centred over outputs": (
        lambda: mlp(first=lambda w: w - w.mean(1, keepdims=True)),
        {"e": "a product", "w": GROWS},
    ),
    "centred over inputs": (lambda: mlp(second=lambda w: w - w.mean(0)), {"e": SUMMED, "w": GROWS}),
    "absmean scale": (lambda: mlp(first=lambda w: w / (jnp.abs(w).mean() + 1e-6)), {"e": GROWS, "w": GROWS}),
    "ternary": (
        lambda: mlp(first=lambda w: jnp.round(jnp.clip(w / (jnp.abs(w).mean() + 1e-6), -1, 1))),
        {"e": GROWS, "w": GROWS},
    ),
    "standardised reader": (lambda: mlp(second=standardised), {"e": SUMMED, "w": GROWS}),
    "standardised 1 × 1": (lambda: standardised_reader(1), {"a": SUMMED, "b": GROWS}),
    "standardised 3 × 3": (lambda: standardised_reader(3), {"a": SUMMED, "b": GROWS}),
    "group norm and standardised kernels": (bit, {"stem": SUMMED, "stem.2": SUMMED, "w1": SUMMED, "w1.2": SUMMED}),
    "standardised maker": (lambda: mlp(first=standardised), {"e": GROWS, "w": GROWS}),
    "weight norm": (weight_norm, {"g": GROWS, "w": GROWS}),
    "weight norm under RMSNorm": (gain_after_rms_norm, {"g": "not finite", "w": GROWS}),
    "distance to the sum": (distance_to_the_sum, {"w": GROWS, "w.2": GROWS}),
    "spectral norm": (lambda: spectral(False), {"params/Dense_0": GROWS, "params/Dense_2": GROWS}),
    "spectral norm, then weight norm": (lambda: spectral(True), {"params/Dense_0": SUMMED, "params/Dense_2": GROWS}),
}
QUICK = ("Frobenius norm of both", "standardised reader", "weight norm")


@pytest.mark.parametrize("name", mostly(MODELS, QUICK))
def test_a_set_grows_exactly_or_says_what_it_is_summed_by(name):
    build, sets = MODELS[name]
    fn, params, x = build()
    units = find_units(fn, params, x)
    assert set(sets) == set(units.sets), units
    before = jax.jit(fn)(params, x)
    for own, reason in sets.items():
        width = {own: units.sets[own].size + 3}
        if reason == GROWS:
            wider = grow(units, width, params, key=jax.random.key(1))
            assert error(jax.jit(wider.fn)(wider.params, x), before) < 1e-5, own
        else:
            with pytest.raises(ValueError, match=rf"(?s){own!r} cannot grow without changing the outputs.*{reason}"):
                grow(units, width, params, key=jax.random.key(1))


@pytest.mark.parametrize("name", mostly(MODELS, QUICK))
def test_units_are_removed_exactly_from_such_weights(name):
    fn, params, x = MODELS[name][0]()
    units = find_units(fn, params, x)
    keep = {own.name: np.arange(own.size) % 2 == 0 for own in units.sets.values()}
    small = compact(units, keep, params)
    zeroed = units.zero(keep, params)
    if "weight norm" in name:  # 0/‖0‖: the zeroed model itself is not finite, and a tiny slice stands for zero
        zeroed = jax.tree.map(lambda z, w: jnp.where(z == 0, 1e-12 * w, z), zeroed, params)
    assert error(jax.jit(small.fn)(small.params, x), jax.jit(fn)(zeroed, x)) < 1e-5
