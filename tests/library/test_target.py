"""A sparsity in the place of a strength: the share is met at every step, by every method, under every penalty."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import parsimony as pm
from helpers import reference as ref
from helpers.cases import in_turn, mostly
from helpers.related import ALL_PENALTIES, METHODS, PARAMS, SPARSE, STEPS, gradient, step_of, trained
from parsimony._penalties.rules import resolve
from parsimony._sparsity_target import LEAST, threshold_at

METHODS = METHODS | {
    "split_lbi": lambda **kwargs: pm.split_lbi(0.1, nu=2.0, momentum=0.5, **kwargs),
    "split_lbi, r = 1": lambda **kwargs: pm.split_lbi(0.1, nu=0.1, **kwargs),  # the other form of its step
}


def asked(k):
    """All zero, down to none by step 6, up to 0.8 at step 12, and held there."""
    return jnp.where(k < 6, 1 - k / 6, jnp.minimum((k - 6) / 6, 1) * 0.8)


def share(state) -> tuple[float, float]:
    """The share of zeros, and that of one group: how near the share can come to what was asked for."""
    own = optax.tree.get(state, "SplitLBIState")
    zeros, weights, group = 0.0, 0, 0
    scaled = jax.tree.map(lambda v: v / own.strength.astype(v.dtype), own.dual)
    for penalty, v in zip(resolve(own.penalty, scaled), jax.tree.leaves(scaled), strict=True):
        if penalty is None:
            continue
        groups = np.asarray(penalty.group_norms(penalty.prox(v)))
        low_rank = isinstance(penalty, pm.NuclearNorm)
        zeros += v.size * np.mean(groups == 0) if low_rank else np.sum(np.asarray(penalty.prox(v)) == 0)
        weights += v.size
        whole_units = (72 + 30) / 6 if "Unit" in type(penalty).__name__ else 0
        own_group = v.size / groups.size if low_rank else np.bincount(penalty.group_index(v.shape).ravel()).max()
        group = max(group, own_group, whole_units)
    return zeros / weights, group / weights


@pytest.mark.parametrize(("penalty", "make"), in_turn(ALL_PENALTIES, METHODS, each=2))
def test_the_share_of_zeros_is_met_at_every_step_to_within_a_group(make, penalty):
    for k, (params, state) in enumerate(trained(make(penalty=penalty, sparsity=asked), steps=16)):
        q, (found, group) = float(asked(k)), share(state)
        assert q - 2e-6 <= found < q + group + 1e-6, f"step {k}: {found} of {q}"
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((params, state)))


LASSO = (pm.Lasso(0.7), {"conv": ref.scaled_lasso(0.7), "head": ref.scaled_lasso(0.7)})
GROUPS = (
    pm.Rules([("conv", pm.GroupLasso(-1, 0.5, "rms")), ("head", pm.Lasso(0.8))]),
    {"conv": ref.scaled_group_lasso(0.5, rms=True), "head": ref.scaled_lasso(0.8)},
)
both_penalties = pytest.mark.parametrize("penalties", [LASSO, GROUPS], ids=["Lasso", "GroupLasso and Lasso"])


@pytest.mark.parametrize(
    ("make", "method", "arguments", "penalties", "dtype"),
    [
        (pm.linbreg, "linbreg", {"kappa": 2.5, "momentum": 0.5}, LASSO, "float64"),
        (pm.linbreg, "linbreg", {"kappa": 2.5, "momentum": 0.5}, GROUPS, "float32"),
        (pm.rda, "rda", {}, GROUPS, "float64"),
        (pm.rda, "rda", {}, LASSO, "float32"),
        (pm.prox_sgd, "prox_sgd", {"momentum": 0.5, "nesterov": True}, GROUPS, "float64"),
    ],
    ids=["linbreg", "linbreg, groups, float32", "rda, groups", "rda, float32", "prox_sgd, groups"],
)
def test_every_step_is_that_of_the_transcription(make, method, arguments, penalties, dtype):
    """The strength there is an entry of the sorted levels."""
    ours, theirs = penalties
    arguments = {"learning_rate": 0.1, "sparsity": lambda k: jnp.minimum(0.02 * k, 0.9), **arguments}
    expected = list(ref.related(method, PARAMS, gradient, theirs, STEPS, **arguments))
    with jax.enable_x64(dtype == "float64"):
        taken = trained(make(penalty=ours, **arguments), dtype=dtype)
    tolerance = {"float64": 3e-6, "float32": 2e-5}[dtype]  # T is a float32
    for (params, _), (weights, _, _) in zip(taken, expected, strict=True):
        for name, w in weights.items():
            np.testing.assert_allclose(params[name], w, rtol=0, atol=tolerance, err_msg=name)
    assert 0.5 < np.mean(weights["conv"] == 0) < 1


@both_penalties
def test_split_lbi_takes_the_strength_of_the_share_for_gamma(penalties):
    """Γ = κ·Prox_{TΩ}(V) with V as ever, against a transcription that keeps V and Γ."""
    ours, theirs = penalties
    alpha, kappa, nu, asked = 0.1, 1.5, 2.0, lambda k: jnp.maximum(1 - 0.015 * k, 0.0)
    weights = {name: np.array(w) for name, w in PARAMS.items()}
    dual, gamma = ({name: 0 * weights[name] for name in theirs} for _ in range(2))
    with jax.enable_x64(True):
        runs = trained(pm.inverse_scale_space(alpha, kappa, nu, ours, sparsity=asked), dtype="float64")
        own = [(state.dual, state.strength, pm.gamma(state)) for _, state in runs]
        taken = jax.tree.map(np.asarray, [(params, *seen) for (params, _), seen in zip(runs, own, strict=True)])
    for k, (params, v, of, found) in enumerate(taken):
        coupling = {name: (weights[name] - gamma[name]) / nu for name in theirs}
        slope = gradient(weights)
        weights = {name: w - kappa * alpha * (slope[name] + coupling.get(name, 0)) for name, w in weights.items()}
        dual = {name: v + alpha * coupling[name] for name, v in dual.items()}
        levels = np.sort(np.concatenate([theirs[name].levels(v).ravel() for name, v in dual.items()]))
        strength = levels[int(np.ceil(asked(k) * levels.size - 1e-5)) - 1] * (1 + 1e-5)
        gamma = {name: kappa * theirs[name].at(strength).prox(v) for name, v in dual.items()}
        for name in PARAMS:
            np.testing.assert_allclose(params[name], weights[name], rtol=0, atol=3e-6)
        for name in theirs:
            np.testing.assert_allclose(found[name], gamma[name], rtol=0, atol=3e-6)
            np.testing.assert_allclose(v[name], dual[name], rtol=0, atol=3e-6)
        assert of == pytest.approx(strength, rel=1e-5)
    assert 0 < np.count_nonzero(gamma["conv"]) < gamma["conv"].size


NAIVE = {
    "Lasso": (pm.Lasso(0.7), ref.lasso),
    "GroupLasso": (pm.GroupLasso(-1, 0.7), functools.partial(ref.group_lasso, (-1,))),
    "SparseGroupLasso": (
        pm.SparseGroupLasso(-1, 0.7, 0.3), lambda strength: ref.sparse_group_lasso((-1,), strength, 0.3)
    ),
    "BlockLasso": (pm.BlockLasso((4, 2), 0.7), functools.partial(ref.block_lasso, (4, 2))),
    "NuclearNorm": (pm.NuclearNorm(0.7), ref.nuclear_norm),
}  # fmt: skip


@pytest.mark.parametrize(("penalty", "naive"), NAIVE.values(), ids=NAIVE)
@pytest.mark.parametrize("q", [0.0, 0.1, 0.5, 0.93, 1.0])
def test_the_strength_is_the_least_that_gives_the_share(penalty, naive, q):
    u = np.random.default_rng(3).normal(size=(9, 8)).astype(np.float32)
    found = float(threshold_at(penalty, {"kernel": jnp.asarray(u)}, q))

    def zeros(scale):
        x = naive(0.7 * scale).prox(u.astype(np.float64))
        return 1 - np.linalg.matrix_rank(x) / 8 if isinstance(penalty, pm.NuclearNorm) else np.mean(x == 0)

    assert zeros(found) >= q
    assert found == pytest.approx(LEAST) if q == 0 else zeros(found * (1 - 2e-5)) < q


def test_linbreg_with_kappa_1_is_rda_under_a_sparsity_and_no_sparsity_is_sgd():
    one, other = (make(0.1, penalty=pm.Lasso(), sparsity=0.6) for make in (pm.linbreg, pm.rda))
    chex.assert_trees_all_close(trained(one)[-1][0], trained(other)[-1][0], rtol=0, atol=0)
    sgd, _ = trained(optax.sgd(0.1, momentum=0.5))[-1]
    for make in (pm.linbreg, pm.rda, pm.prox_sgd):
        params, state = trained(make(0.1, momentum=0.5, sparsity=0.0))[-1]
        chex.assert_trees_all_close(params, sgd, atol=1e-5)
        assert pm.support(state)["conv"].all()


def test_prox_sgd_comes_to_rest_at_the_lasso_that_has_the_share():
    """−∇L(W) = λ·sign(W) where W ≠ 0 and |∇L| ≤ λ elsewhere, with the λ that was found."""
    goal = jnp.asarray(np.random.default_rng(5).normal(size=(6, 10)), jnp.float32)
    tx, start = pm.prox_sgd(0.1, pm.Lasso(2.0), sparsity=0.75), {"kernel": jnp.zeros((6, 10))}

    def step(at, _):
        updates, state = tx.update({"kernel": at[0]["kernel"] - goal}, at[1], at[0])
        return (optax.apply_updates(at[0], updates), state), None

    (params, state), _ = jax.lax.scan(step, (start, tx.init(start)), length=3000)
    slope, w = params["kernel"] - goal, params["kernel"]
    strength = 2.0 * optax.tree.get(state, "strength") / 0.1
    assert jnp.sum(w == 0) == 45
    np.testing.assert_allclose(slope[w != 0], -strength * jnp.sign(w[w != 0]), rtol=1e-3)
    assert (jnp.abs(slope[w == 0]) <= strength * (1 + 1e-3)).all()


def test_a_dual_that_does_not_move_yet_has_no_strength_and_no_nan():
    """V stays at 0 for three steps, where every strength gives all zeros; then the path begins."""
    late = lambda k: jnp.where(k < 3, 0.0, 0.1)
    taken = trained(pm.split_lbi(0.1, nu=2.0, penalty=pm.Lasso(), dual_learning_rate=late, sparsity=0.5), steps=6)
    assert [round(share(state)[0], 2) for _, state in taken] == [1, 1, 1, 0.5, 0.5, 0.5]
    same = trained(pm.split_lbi(0.1, nu=2.0, penalty=pm.Lasso(), dual_learning_rate=late, sparsity=lambda k: 0.5))
    chex.assert_trees_all_equal(taken[-1][0], same[5][0])


# The three forms of the step.
@pytest.mark.parametrize("name", mostly(["linbreg", "prox_sgd", "split_lbi"], ["split_lbi"]))
def test_it_compiles_once_scans_maps_and_runs_on_many_devices(name):
    params = {name: jnp.asarray(w, jnp.float32) for name, w in SPARSE.items()}
    tx = METHODS[name](penalty=GROUPS[0], sparsity=lambda k: jnp.minimum(0.02 * k, 0.9))
    chex.clear_trace_counter()
    once = trained(tx, SPARSE, 8, transform=lambda step: jax.jit(chex.assert_max_traces(step, n=1)))[-1]
    several = lambda at: jax.lax.scan(lambda at, _: (step_of(tx)(*at), None), at, length=8)[0]
    begin = (params, tx.init(params))
    stacked = jax.tree.map(lambda x: jnp.stack([x] * 8), begin)
    mesh, each = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,)), jax.P("x")
    for other in (
        jax.jit(several)(begin),
        jax.tree.map(lambda x: x[3], jax.jit(jax.vmap(several))(stacked)),
        jax.tree.map(lambda x: x[3], jax.pmap(several)(stacked)),
        jax.jit(jax.shard_map(several, mesh=mesh, in_specs=jax.P(), out_specs=jax.P()))(begin),
        jax.tree.map(
            lambda x: x[3], jax.jit(jax.shard_map(jax.vmap(several), mesh=mesh, in_specs=each, out_specs=each))(stacked)
        ),
    ):
        chex.assert_trees_all_close(other, once, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [pm.linbreg, pm.rda, pm.prox_sgd, pm.split_lbi])
def test_an_injected_share_can_be_changed_in_the_middle(make):
    tx = optax.inject_hyperparams(make)(learning_rate=0.1, penalty=pm.Lasso(), sparsity=0.5)
    params = {name: jnp.asarray(w, jnp.float32) for name, w in PARAMS.items()}
    state = tx.init(params)
    for q in (0.5, 0.9, 0.2):
        state.hyperparams["sparsity"] = jnp.float32(q)
        for _ in range(3):
            params, state = jax.jit(step_of(tx))(params, state)
        assert share(state)[0] == pytest.approx(q, abs=1 / 102)
