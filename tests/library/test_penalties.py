"""Every penalty is a norm, and its prox is the minimiser that the definition asks for, with a derivative everywhere."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import parsimony as pm
from helpers import reference as ref
from parsimony._penalties.penalty import inside

KERNEL = (2, 2, 3, 4)
CASES = [  # ours, the same in naive NumPy, a shape, the shape of its groups
    (pm.Lasso(0.7), ref.lasso(0.7), (4, 5), (4, 5)),
    (pm.Lasso(0.7), ref.lasso(0.7), KERNEL, KERNEL),
    (pm.GroupLasso(-1, 1.9), ref.group_lasso((-1,), 1.9), (4, 5), (5,)),
    (pm.GroupLasso(0, 1.9), ref.group_lasso((0,), 1.9), (4, 5), (4,)),
    (pm.GroupLasso(-1, 2.6), ref.group_lasso((-1,), 2.6), KERNEL, (4,)),
    (pm.GroupLasso((2, 3), 1.9), ref.group_lasso((2, 3), 1.9), KERNEL, (3, 4)),
    (pm.GroupLasso((-1, 2), 1.9), ref.group_lasso((2, 3), 1.9), KERNEL, (3, 4)),
    (pm.GroupLasso(-1, 0.9, "rms"), ref.group_lasso((-1,), 0.9, True), (4, 5), (5,)),
    (pm.SparseGroupLasso(-1, 2.0, 0.3), ref.sparse_group_lasso((-1,), 2.0, 0.3), (4, 5), (5,)),
    (pm.SparseGroupLasso((2, 3), 0.9, 0.3, "rms"), ref.sparse_group_lasso((2, 3), 0.9, 0.3, True), KERNEL, (3, 4)),
    (pm.SparseGroupLasso(-1, 1.9, 0.0), ref.group_lasso((-1,), 1.9), (4, 5), (5,)),
    (pm.SparseGroupLasso(-1, 1.2, 1.0), ref.sparse_group_lasso((-1,), 1.2, 1.0), (4, 5), (5,)),
    (pm.BlockLasso((2, 2), 1.9), ref.block_lasso((2, 2), 1.9), (4, 6), (2, 3)),
    (pm.BlockLasso((2, 3), 1.9), ref.block_lasso((2, 3), 1.9), (5, 4), (3, 2)),
    (pm.BlockLasso((2, 3), 0.9, "rms"), ref.block_lasso((2, 3), 0.9, True), (5, 4), (3, 2)),
    (pm.NuclearNorm(1.9), ref.nuclear_norm(1.9), (3, 5), (3,)),
    (pm.NuclearNorm(1.9), ref.nuclear_norm(1.9), (4, 4), (4,)),
    (pm.NuclearNorm(1.9), ref.nuclear_norm(1.9), (5, 3), (3,)),
]


def every_penalty(test, cases=tuple(CASES)):
    ids = [f"{penalty} on {shape}" for penalty, _, shape, _ in cases]
    return pytest.mark.parametrize(("penalty", "naive", "shape", "groups"), cases, ids=ids)(test)


ONE_OF_EACH = [pm.Lasso(), pm.GroupLasso(), pm.SparseGroupLasso(), pm.BlockLasso((3, 2)), pm.NuclearNorm()]
one_of_each = pytest.mark.parametrize("penalty", ONE_OF_EACH, ids=lambda p: type(p).__name__)


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@functools.partial(jax.jit, static_argnums=0)
def derivative(penalty, v, dv):
    return jax.jvp(penalty.prox, (v,), (dv,))[1]


@every_penalty
def test_the_prox_leaves_a_subgradient(penalty, naive, shape, groups):
    """x = Prox_Ω(v) is equivalent to v − x ∈ ∂Ω(x), here by ∂Ω's definition; for a norm also ⟨v − x, x⟩ = Ω(x)."""
    v = draw(*shape)
    x, value = np.asarray(penalty.prox(jnp.asarray(v))), jax.jit(penalty.value)
    assert 0 < np.count_nonzero(naive.norms(x)) < naive.norms(x).size, "a case without both kinds of groups"
    np.testing.assert_allclose(np.sum((v - x) * x), value(x), rtol=1e-12)
    for i, distance in enumerate([1e-3, 1e-2, 0.1, 1.0, 10.0] * 10):
        u = x + distance * draw(*shape, seed=i + 1) * (draw(*shape, seed=i + 101) > 0)
        assert value(u) >= value(x) + np.sum((v - x) * (u - x)) - 1e-12


@every_penalty
def test_prox_value_and_norms_are_those_of_the_naive_form(penalty, naive, shape, groups):
    v = draw(*shape)
    np.testing.assert_allclose(penalty.prox(jnp.asarray(v)), naive.prox(v), rtol=0, atol=1e-13)
    np.testing.assert_allclose(penalty.value(jnp.asarray(v)), naive.value(v), rtol=1e-13)
    norms = penalty.group_norms(jnp.asarray(v))
    assert norms.shape == groups
    np.testing.assert_allclose(norms, naive.norms(v), rtol=1e-13)


@every_penalty
def test_a_group_is_inside_where_the_prox_leaves_something_of_it(penalty, naive, shape, groups):
    found = [inside(penalty, jnp.asarray(size * draw(*shape))) for size in np.geomspace(0.05, 20, 12)]
    expected = [naive.norms(naive.prox(size * draw(*shape))) > 1e-13 for size in np.geomspace(0.05, 20, 12)]
    np.testing.assert_array_equal(found, expected)
    assert 0.1 < np.mean(found) < 0.9


@every_penalty
def test_the_index_says_to_which_group_each_weight_belongs(penalty, naive, shape, groups):
    """Sums of squares by index are the squared norms; singular directions are not sets of weights and have none."""
    if isinstance(penalty, pm.NuclearNorm):
        assert not hasattr(penalty, "group_index")
        return
    v, index = draw(*shape), penalty.group_index(shape)
    assert index.shape == shape
    sums = np.bincount(index.ravel(), np.square(v).ravel(), minlength=math.prod(groups))
    np.testing.assert_allclose(np.sqrt(sums).reshape(groups), naive.norms(v), rtol=1e-13)


@every_penalty
def test_the_prox_is_nonexpansive(penalty, naive, shape, groups):
    prox = jax.jit(penalty.prox)
    for seed, distance in enumerate([1e-3, 1e-2, 0.1, 1.0, 10.0] * 10):
        a = draw(*shape, seed=seed)
        b = a + distance * draw(*shape, seed=seed + 50)
        assert np.linalg.norm(prox(a) - prox(b)) <= np.linalg.norm(a - b) * (1 + 1e-12)


@every_penalty
def test_the_derivative_of_the_prox_is_a_finite_difference(penalty, naive, shape, groups):
    v, dv, h = jnp.asarray(draw(*shape)), jnp.asarray(draw(*shape, seed=1)), 1e-6
    cotangent = jnp.asarray(draw(*shape, seed=2))
    forward = derivative(penalty, v, dv)
    (backward,) = jax.jit(lambda v: jax.vjp(penalty.prox, v)[1](cotangent))(v)
    np.testing.assert_allclose(forward, (naive.prox(v + h * dv) - naive.prox(v - h * dv)) / (2 * h), atol=1e-8)
    np.testing.assert_allclose(jnp.sum(backward * dv), jnp.sum(cotangent * forward), rtol=1e-10)


@pytest.mark.slow
@every_penalty
def test_derivatives_are_finite_where_groups_are_zero(penalty, naive, shape, groups):
    prox, slope = penalty.prox, jax.grad(penalty.value)
    seen = jax.jit(lambda v: (prox(v), penalty.value(v), slope(v), jax.jacfwd(prox)(v), jax.vjp(prox, v)[1](v)[0]))
    for alive in (0, 1):
        v = jnp.zeros(shape).at[..., : 2 * alive].set(3.0)  # 3 on 2 of the last indices: singular values repeat as well
        x, value, of_value, forward, backward = seen(v)
        assert bool(jnp.any(x != 0)) == bool(alive)
        assert not jnp.any(x[..., 2:])
        assert jnp.all(jnp.isfinite(of_value))
        assert jnp.all(jnp.isfinite(forward))
        np.testing.assert_allclose(backward, jnp.tensordot(v, forward, v.ndim), atol=1e-12)
        np.testing.assert_allclose(jnp.sum(of_value * v), value, atol=1e-12)  # Euler, as Ω(cx) = |c|Ω(x)


@pytest.mark.parametrize("shape", [(3, 5), (4, 4), (5, 3)])
@pytest.mark.parametrize(
    "singular",
    [(3, 3, 3), (3, 3 - 1e-15, 0.5), (3, 0.5, 0.5), (3, 0.5, 0.5 - 1e-16), (3, 3, 0), (2, 0, 0)],
)
def test_the_nuclear_norm_has_its_derivative_where_singular_values_coincide(shape, singular):
    """Nothing is singular about the prox there: only about the decomposition."""
    u, _, vt = np.linalg.svd(draw(*shape), full_matrices=False)
    v = (u[:, :3] * singular) @ vt[:3]
    dv, h = draw(*shape, seed=1), 1e-6
    prox = ref.nuclear_norm().prox
    difference = (prox(v + h * dv) - prox(v - h * dv)) / (2 * h)
    np.testing.assert_allclose(derivative(pm.NuclearNorm(), v, dv), difference, atol=1e-7)
    at_the_kink = derivative(pm.NuclearNorm(singular[0]), v, dv)
    assert jnp.all(jnp.isfinite(at_the_kink))


def test_the_nuclear_norm_multiplies_in_full_precision():
    """TF32 or bfloat16 products, the default of accelerators, would turn a low rank into a full one."""
    penalty, v = pm.NuclearNorm(), jnp.asarray(draw(4, 5), "float32")
    tx = pm.inverse_scale_space(0.1, penalty=penalty)
    state = tx.init(v)
    for function in (penalty.prox, jax.grad(lambda v: penalty.prox(v).sum()), lambda v: pm.sparse_params(v, state)):
        products = [line for line in str(jax.make_jaxpr(function)(v)).split("dot_general")[1:]]
        assert products
        assert all("precision=(Precision.HIGHEST, Precision.HIGHEST)" in product for product in products)


@pytest.mark.parametrize(
    ("penalty", "shape"),
    [
        (pm.GroupLasso(-1, 0.5, "rms"), (2, 6)),
        (pm.GroupLasso(-1, 0.5, "rms"), (3, 3, 8, 2)),
        (pm.GroupLasso((2, 3), 0.5, "rms"), (3, 3, 2, 2)),
        (pm.SparseGroupLasso(-1, 0.5, 0.0, "rms"), (7, 2)),
        (pm.BlockLasso((4, 3), 0.5, "rms"), (5, 7)),
    ],
    ids=str,
)
def test_by_root_mean_square_a_group_enters_when_its_rms_exceeds_lambda(penalty, shape):
    signs = np.sign(draw(*shape))  # every group has the root mean square 1, whatever its size
    assert not np.any(penalty.prox(jnp.asarray(0.499 * signs)))
    assert np.all(penalty.prox(jnp.asarray(0.501 * signs)))


@one_of_each
def test_nothing_divides_by_zero_on_the_way(penalty):
    """Not even in a branch that `jnp.where` discards, so that JAX's debugging flags stay usable."""
    with jax.debug_infs(True), jax.debug_nans(True):
        slope = jax.grad(lambda v: jnp.sum(penalty.prox(v) ** 2) + penalty.value(v))(jnp.zeros((4, 5)))
    assert jnp.all(jnp.isfinite(slope))


@functools.partial(every_penalty, cases=[case for case in CASES if not isinstance(case[0], pm.NuclearNorm)])
def test_the_prox_is_a_factor_times_a_soft_threshold(penalty, naive, shape, groups):
    v = jnp.asarray(draw(*shape))
    shrink = penalty.shrink(v)
    np.testing.assert_allclose(shrink * penalty.soft(v), naive.prox(v), atol=1e-13)
    assert jnp.all((shrink >= 0) & (shrink <= 1))


@one_of_each
def test_a_penalty_is_frozen_hashable_and_not_callable(penalty):
    with pytest.raises(dataclasses.FrozenInstanceError):
        penalty.strength = 2.0
    same, other = dataclasses.replace(penalty), dataclasses.replace(penalty, strength=2.0)
    assert penalty == same
    assert hash(penalty) == hash(same)
    assert penalty != other
    assert not callable(penalty), "optax.inject_hyperparams would take it for a schedule"


@one_of_each
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_prox_value_and_norms_keep_the_dtype_of_v(penalty, dtype):
    penalty = dataclasses.replace(penalty, strength=np.float64(1.0))  # which on its own would promote V
    v = jnp.asarray(3 * draw(4, 5), dtype)
    x, value, norms = jax.jit(lambda v: (penalty.prox(v), penalty.value(v), penalty.group_norms(v)))(v)
    assert {x.dtype, value.dtype, norms.dtype} == {jnp.dtype(dtype)}
    tolerance = 20 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(np.asarray(x, "float64"), penalty.prox(jnp.asarray(v, "float64")), atol=tolerance)


@one_of_each
@pytest.mark.parametrize("strength", [1, np.float32(1), np.float64(1), np.int32(1)], ids=lambda s: type(s).__name__)
def test_a_numpy_strength_is_that_number(penalty, strength):
    assert dataclasses.replace(penalty, strength=strength) == penalty
    assert type(dataclasses.replace(penalty, strength=strength).strength) is float


ALL = (pm.Lasso, pm.GroupLasso, pm.SparseGroupLasso, pm.BlockLasso, pm.NuclearNorm)
SCALED = (pm.GroupLasso, pm.SparseGroupLasso, pm.BlockLasso)
AXES, TILE = r"an int or a tuple of ints, such as -1 or \(2, 3\)", r"a tuple \(rows, columns\) of positive ints"
NO_PENALTY = [
    *[
        (
            make,
            {"strength": bad},
            ValueError,
            "a positive, finite number, from .* to .*; for no penalty at all use None",
        )
        for make in ALL
        for bad in (0, -1.0, float("nan"), float("inf"), np.float32(0))
    ],
    *[(make, {"strength": bad}, TypeError, "a Python number") for make in ALL for bad in (True, "1", None)],
    *[(make, {"strength": jnp.ones(())}, TypeError, "to move it during a run, scale dual_lear") for make in ALL],
    *[(make, {"scale": "mean"}, ValueError, "expected None or 'rms'") for make in SCALED],
    *[(pm.GroupLasso, {"axis": bad}, TypeError, AXES) for bad in ([2, 3], (), 1.0, None, True, (0, "1"))],
    (pm.SparseGroupLasso, {"axis": [2, 3]}, TypeError, AXES),
    *[
        (pm.SparseGroupLasso, {"mix": bad}, ValueError, r"the lasso's share, a number in \[0, 1\]")
        for bad in (-0.1, 1.5, float("nan"))
    ],
    *[(pm.BlockLasso, {"shape": bad}, ValueError, TILE) for bad in ((4, 0), [4, 4], (4, 4, 4), 4, (4, 2.0))],
]


@pytest.mark.parametrize(("make", "arguments", "error", "message"), NO_PENALTY)
def test_what_makes_no_penalty_is_rejected_with_the_way_out(make, arguments, error, message):
    with pytest.raises(error, match=f"{make.__name__}.*{message}"):
        make(**arguments)


@pytest.mark.parametrize(
    ("penalty", "shape", "message"),
    [
        *[(penalty, (), "the shape is") for penalty in ONE_OF_EACH],
        *[(penalty, (3,), "the shape is") for penalty in ONE_OF_EACH],
        *[(penalty, (3,), "a bias or a scale under a penalty") for penalty in ONE_OF_EACH[:3]],
        *[(penalty, KERNEL, "takes a matrix.*another penalty by Rules") for penalty in ONE_OF_EACH[3:]],
        (pm.GroupLasso(2), (3, 4), r"distinct axes in \[-2, 2\)"),
        (pm.GroupLasso((0, -3)), (3, 4), r"distinct axes in \[-2, 2\)"),
        (pm.GroupLasso((1, -1)), (3, 4), "distinct axes"),
        (pm.SparseGroupLasso((1, 1)), (3, 4), "distinct axes"),
    ],
)
def test_a_shape_that_a_penalty_cannot_take_is_rejected(penalty, shape, message):
    with pytest.raises(ValueError, match=f"{type(penalty).__name__}.*{message}"):
        penalty.check(shape)
