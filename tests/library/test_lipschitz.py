"""The largest curvature of a loss, by Lanczos."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.losses import LOSSES, as_float64, hessian, largest_curvatures
from parsimony.theory import lipschitz


@pytest.mark.parametrize("name", LOSSES)
def test_lipschitz_is_the_largest_eigenvalue_of_the_hessian(name):
    loss, start, lip = LOSSES[name]
    with jax.enable_x64(True):
        params = as_float64(start)
        found = lipschitz(loss, params)
        assert found == pytest.approx(largest_curvatures(hessian(loss, params)), rel=2e-3)
    assert found <= lip * 1.002
    if name == "quadratic":
        assert found == pytest.approx(lip, rel=2e-3)


def diagonal(w, scale):
    return jnp.sum(scale * w.astype(jnp.float32) ** 2) / 2


@pytest.mark.parametrize(
    ("scale", "largest"),
    [
        (np.linspace(0, 1, 200), 1.0),
        (np.linspace(-3, 1, 200), 3.0),
        (np.r_[5.0, np.full(199, 4.99)], 5.0),
        (np.r_[np.full(100, 2.0), np.zeros(100)], 2.0),
        ([7.0], 7.0),
        ([0.0, 0.0], 0.0),
        (np.logspace(-6, 6, 200), 1e6),
    ],
    ids=["even", "negative", "close", "repeated", "one weight", "no curvature", "wide"],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_lanczos_finds_the_largest_modulus(scale, largest, dtype):
    scale = jnp.asarray(scale, jnp.float32)
    found = lipschitz(diagonal, jnp.ones(scale.shape, dtype), scale)
    assert found == pytest.approx(largest, rel={"float32": 3e-3, "bfloat16": 5e-2}[dtype])


@pytest.mark.parametrize("tolerance", [0.1, 1e-2, 1e-4])
def test_the_tolerance_is_kept(tolerance):
    assert lipschitz(diagonal, jnp.ones(200), jnp.linspace(0, 1, 200), tolerance=tolerance) == pytest.approx(
        1, rel=1.01 * tolerance
    )


def test_another_batch_compiles_nothing_again():
    chex.clear_trace_counter()
    loss = chex.assert_max_traces(lambda w, scale: diagonal(w, scale), n=1)
    assert [lipschitz(loss, jnp.ones(3), jnp.full(3, c)) for c in (2.0, 3.0)] == pytest.approx([2.0, 3.0], rel=1e-3)
