"""Max pooling of the networks: Flax's, with a gradient that a CPU takes by comparison."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.models.pooling import max_pool


def by_flax(images, size=2):
    return nnx.max_pool(images, (size, size), (size, size))


def gradient(pool, images):
    """What comes back of a different number for every place of the result."""
    pooled, back = jax.vjp(pool, images)
    numbers = np.linspace(0.5, 1.5, pooled.size).reshape(pooled.shape)
    return jax.jit(back)(jnp.asarray(numbers, pooled.dtype))[0]


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("side", [(6, 12), (7, 8)], ids=["full windows", "rows and columns that fill none"])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_value_and_gradient_are_those_of_flax_bit_for_bit(size, side, ties, dtype):
    images = np.random.default_rng(0).normal(size=(3, *side, 5))
    images = jnp.asarray(np.round(images) if ties else images, dtype)
    np.testing.assert_array_equal(max_pool(images, size), by_flax(images, size))
    ours, xla = (gradient(lambda images, pool=pool: pool(images, size), images) for pool in (max_pool, by_flax))
    assert ours.dtype == xla.dtype == dtype
    np.testing.assert_array_equal(ours, xla)


def test_under_vmap():
    images = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3, 6, 6, 5)), "float32")
    ours, xla = (jax.vmap(lambda images, pool=pool: gradient(pool, images))(images) for pool in (max_pool, by_flax))
    np.testing.assert_array_equal(ours, xla)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_on_other_platforms_the_gradient_is_that_of_xla(platform):
    images = jnp.zeros((2, 4, 4, 3))

    def operations(pool):
        exported = jax.export.export(jax.jit(jax.grad(lambda images: pool(images).sum())), platforms=[platform])
        return sorted(re.findall(r"stablehlo\.select_and_scatter|stablehlo\.compare", exported(images).mlir_module()))

    assert operations(max_pool) == operations(by_flax)
    assert "stablehlo.select_and_scatter" in operations(max_pool)
