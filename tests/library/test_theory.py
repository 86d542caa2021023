"""The bound on the step, the function that descends below it, and where the descent leads."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import parsimony as pm
from helpers import reference as ref
from helpers.cases import in_turn
from helpers.losses import (
    LARGEST,
    LINEAR,
    LOSSES,
    NETWORK,
    X,
    as_float64,
    hessian,
    largest_curvatures,
    network,
    quadratic,
    tanh,
)
from parsimony._penalties.rules import resolve
from parsimony.theory import lipschitz, lyapunov, max_learning_rate


class Run(NamedTuple):  # what each iterate z_k = (W_k, Γ_k) has, k = 0, 1, …
    value: jax.Array  # F_k
    weights: dict
    gamma: dict
    moved: jax.Array  # ‖z_{k+1} − z_k‖
    slope: jax.Array  # ‖∇L̄(z_k)‖, in W and Γ


def make_run(loss, penalty, steps, dual_share=1.0):
    """The run as a function of W_0, α, κ and ν; the step of V is dual_share·α."""

    def run(params, alpha, kappa, nu):
        beta = dual_share * alpha
        tx = pm.inverse_scale_space(alpha, kappa, nu, penalty, dual_learning_rate=beta)
        penalised = [own is not None for own in resolve(penalty, params)]

        def coupled(params, gamma):
            pairs = zip(penalised, *map(jax.tree.leaves, (params, gamma)), strict=True)
            return loss(params) + sum(jnp.sum((w - own) ** 2) / (2 * nu) for inside, w, own in pairs if inside)

        def step(carry, _):
            params, state, previous = carry
            gamma = pm.gamma(state)
            updates, following = tx.update(jax.grad(loss)(params), state, params)
            seen = Run(
                value=lyapunov(loss, params, state, previous, beta, nu),
                weights=params,
                gamma=gamma,
                moved=optax.tree.norm((updates, jax.tree.map(jnp.subtract, pm.gamma(following), gamma))),
                slope=optax.tree.norm(jax.grad(coupled, (0, 1))(params, gamma)),
            )
            return (optax.apply_updates(params, updates), following, state), seen

        state = tx.init(params)
        return jax.lax.scan(step, (params, state, state), length=steps)[1]

    return run


def unit_penalty(strength):
    """Whole hidden neurons: a column of w1 with its bias."""
    return pm.structure.unit_penalty(pm.structure.find_units(network, as_float64(NETWORK), X), strength)


MATRIX = {
    "Lasso": pm.Lasso(0.1),
    "GroupLasso": pm.GroupLasso(0, 0.2),
    "SparseGroupLasso": pm.SparseGroupLasso(-1, 0.2, mix=0.4),
    "BlockLasso": pm.BlockLasso((2, 2), 0.2),
    "NuclearNorm": pm.NuclearNorm(0.2),
}
NAMES = {name: name for name in MATRIX}
CASES = [("quadratic", penalty) for penalty in MATRIX] + [("tanh", "unit_penalty")]
CASES += [pair.values for pair in in_turn({name: name for name in LOSSES if name != "quadratic"}, NAMES, each=2)]


@pytest.mark.parametrize(
    ("name", "penalty"),
    [pytest.param(*case, marks=() if case[0] == "quadratic" else pytest.mark.slow) for case in CASES],
)
def test_each_step_below_the_bound_takes_from_f_what_the_theorem_says(name, penalty):
    loss, start, lip = LOSSES[name]
    with jax.enable_x64(True):
        penalty = MATRIX[penalty] if penalty in MATRIX else unit_penalty(0.2)
        run = jax.jit(make_run(loss, penalty, 250))
        for kappa, nu in [(1.0, 1.0), (5.0, 0.3), (0.5, 10.0)]:
            bound = max_learning_rate(lip, kappa, nu)
            alpha = 0.98 * bound
            seen = jax.device_get(run(as_float64(start), alpha, kappa, nu))
            fall, scale = -np.diff(seen.value), np.abs(seen.value).max()
            assert (fall >= (1 - alpha / bound) / kappa * seen.moved[:-1] ** 2 - 1e-13 * scale).all()
            inside = np.concatenate([np.ravel(g[-1]) != 0 for g in jax.tree.leaves(seen.gamma)])
            assert inside.any()  # or B(Γ_k; Γ_{k−1}) was not there to see
            if name == "tanh":
                some = jax.tree.map(lambda w: w[::10], seen.weights)
                assert largest_curvatures(jax.vmap(lambda w: hessian(loss, w))(some)).max() < lip


@pytest.mark.parametrize("dual_share", [0.5, 0.1])
def test_f_descends_with_a_slower_dual_below_the_same_bound(dual_share):
    with jax.enable_x64(True):
        run = jax.jit(make_run(quadratic, pm.Lasso(0.02), 250, dual_share))
        for kappa, nu in [(1.0, 1.0), (5.0, 0.3), (0.5, 10.0)]:
            seen = jax.device_get(run(as_float64(LINEAR), 0.98 * max_learning_rate(LARGEST, kappa, nu), kappa, nu))
            assert (np.diff(seen.value) <= 1e-13 * np.abs(seen.value).max()).all()
            assert seen.gamma["w"][-1].any()


@pytest.mark.parametrize("lip", [0.01, 0.5, 1.0])
@pytest.mark.parametrize(
    ("start", "bound", "share", "descends"),
    [
        (3.0, lambda lip: max_learning_rate(lip, 1.0, 1.0), 0.98, True),
        (3.0, lambda lip: 2 / (lip + 1), 0.98, False),
        (1e4, lambda lip: max_learning_rate(lip, 1.0, 1.0), 0.98, True),
        (1e4, lambda lip: max_learning_rate(lip, 1.0, 1.0), 1.02, False),
    ],
    ids=["below", "below the naive bound", "below, from afar", "above, from afar"],
)
def test_the_bound_is_the_joint_one_and_sharp(lip, start, bound, share, descends):
    """κ = ν = 1, Ω = |·|, L = Lip·w²/2."""
    with jax.enable_x64(True):
        run = jax.jit(make_run(lambda params: lip / 2 * jnp.sum(params["w"] ** 2), pm.Lasso(), 400))
        seen = jax.device_get(run({"w": jnp.full((1, 1), start)}, share * bound(lip), 1.0, 1.0))
    if descends:
        assert (np.diff(seen.value) <= 1e-13 * np.abs(seen.value).max()).all()  # V is rounded to either neighbour
        assert np.abs(seen.weights["w"][-1]) < start / 10
    else:
        assert np.abs(seen.weights["w"][-1]) > 1e3 * start
        assert seen.value[-1] > 1e3 * seen.value[0]


@pytest.mark.slow
def test_ten_starts_lead_to_critical_points():
    """W and Γ meet where ∇L is zero, on trajectories of finite length."""

    def draw(seed):
        rng = np.random.default_rng(seed)
        return {name: w + 0.3 * rng.normal(size=w.shape) for name, w in NETWORK.items()}

    kappa, nu = 5.0, 10.0
    alpha = 0.95 * max_learning_rate(LOSSES["tanh"][2], kappa, nu)
    run = make_run(tanh, pm.Lasso(0.02), 30_000)
    with jax.enable_x64(True):
        starts = as_float64(jax.tree.map(lambda *leaves: np.stack(leaves), *map(draw, range(10))))
        seen = jax.device_get(jax.jit(jax.vmap(lambda params: run(params, alpha, kappa, nu)))(starts))
        last = jax.tree.map(lambda w: w[:, -1], (seen.weights, seen.gamma))
        slopes = jax.vmap(jax.grad(tanh))(last[0])
    assert (np.diff(seen.value) <= 1e-13).all()
    assert (seen.slope[:, 0] > 1).all()
    assert (seen.slope[:, -1] < 1e-8).all()
    assert max(np.abs(g).max() for g in jax.tree.leaves(slopes)) < 1e-8
    for name in ("w1", "w2"):
        np.testing.assert_allclose(last[0][name], last[1][name], atol=1e-6)
    first, second = seen.moved[:, :15_000].sum(1), seen.moved[:, 15_000:].sum(1)
    assert (first > 1).all()
    assert (second < 1e-3 * first).all()
    assert len(np.unique(seen.value[:, -1].round(6))) > 3  # different ones


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (pm.Lasso(0.3), ref.lasso(0.3)),
        (pm.GroupLasso(-1, 0.1, "rms"), ref.group_lasso((-1,), 0.1, True)),
        (pm.SparseGroupLasso(-1, 0.4, 0.3), ref.sparse_group_lasso((-1,), 0.4, 0.3)),
        (pm.BlockLasso((4, 3), 0.5), ref.block_lasso((4, 3), 0.5)),
        (pm.NuclearNorm(0.6), ref.nuclear_norm(0.6)),
    ],
    ids=MATRIX,
)
def test_f_is_its_definition_wherever_the_state_sits(ours, theirs):
    """F = αL̄ + Ω(Γ_k) + Ω*(g_{k−1}) − ⟨Γ_k, g_{k−1}⟩ along the transcription; Ω* is zero on subgradients."""
    alpha, kappa, nu = 0.2, 2.0, 1.5
    rng = np.random.default_rng(1)
    start = {"w": 2 * rng.normal(size=(6, 4)), "b": rng.normal(size=4)}
    gradient = lambda params: jax.tree.map(np.asarray, jax.grad(quadratic)(as_float64(params)))
    tx = optax.chain(optax.identity(), pm.record_path(pm.inverse_scale_space(alpha, kappa, nu, ours)))
    update = jax.jit(tx.update)
    with jax.enable_x64(True):
        params = as_float64(start)
        state = previous = tx.init(params)
        former = np.zeros((6, 4))
        assert lyapunov(quadratic, params, state, previous, alpha, nu) == pytest.approx(
            alpha * float(quadratic(params) + jnp.sum(params["w"] ** 2) / (2 * nu))
        )
        bregman = []
        for step in ref.split_lbi(start, gradient, {"w": theirs}, 12, learning_rate=alpha, kappa=kappa, nu=nu):
            updates, following = update(jax.grad(quadratic)(params), state, params)
            params, state, previous = optax.apply_updates(params, updates), following, state
            w, gamma = step.weights["w"], step.gamma["w"]
            bregman.append(theirs.value(gamma) - np.sum(gamma * former))
            whole = alpha * (float(quadratic(as_float64(step.weights))) + np.sum((w - gamma) ** 2) / (2 * nu))
            found = lyapunov(quadratic, params, state, previous, alpha, nu)
            assert found == pytest.approx(whole + bregman[-1], rel=1e-12, abs=1e-12)
            former = step.dual["w"] - gamma / kappa
    assert max(bregman) > 1e-3


@pytest.mark.parametrize("kappa", [0.3, 1.0, 7.0])
@pytest.mark.parametrize("nu", [0.1, 1.0, 100.0])
@pytest.mark.parametrize("lip", [0.0, 1e-3, 1.0, 50.0])
def test_the_bound_is_from_the_largest_eigenvalue_of_the_joint_hessian(lip, kappa, nu):
    joint = np.linalg.eigvalsh([[lip + 1 / nu, -1 / nu], [-1 / nu, 1 / nu]])[-1]
    bound = max_learning_rate(lip, kappa, nu)
    assert bound == pytest.approx(2 / (kappa * joint), rel=1e-12)
    assert 2 / (kappa * (lip + 2 / nu)) <= bound * (1 + 1e-12)
    assert bound < 2 / (kappa * (lip + 1 / nu))


STATE = pm.split_lbi(0.1).init({"w": jnp.ones((2, 2))})
OTHER = pm.split_lbi(0.1, penalty=pm.Rules([("w", None)], pm.Lasso())).init(
    {"w": jnp.ones((2, 2)), "u": jnp.ones((2, 2))}
)
SQUARE = lambda params: jnp.sum(params["w"] ** 2)
ONES = {"w": jnp.ones((2, 2))}


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda: max_learning_rate(-1.0), ValueError, "^lipschitz=-1.0: expected a positive, finite number"),
        (lambda: max_learning_rate(float("inf")), ValueError, "^lipschitz=inf"),
        (lambda: max_learning_rate(False), TypeError, "^lipschitz=False: expected a positive number"),
        (lambda: max_learning_rate(1.0, kappa=0.0), ValueError, "^kappa=0.0"),
        (lambda: max_learning_rate(1.0, nu="1"), TypeError, "^nu='1'"),
        (lambda: lipschitz(3.0, ONES), TypeError, "^loss=3.0: expected a function of the parameters"),
        (lambda: lipschitz(SQUARE, ONES, tolerance=0), ValueError, "^tolerance=0: expected a positive"),
        (lambda: lipschitz(SQUARE, ONES, iterations=0), ValueError, "^iterations=0: expected the maximum"),
        (lambda: lipschitz(lambda w: 0.0, {}), ValueError, r"^params=\{\}: expected a tree with arrays"),
        (lambda: lipschitz(SQUARE, {"w": jnp.ones(2, int)}), TypeError, "int32.*expected real floating-point"),
        (lambda: lipschitz(lambda w: w["w"], ONES), ValueError, "^loss returns .*expected one real number"),
        (lambda: lipschitz(lambda w: jnp.log(SQUARE(w) - 4), ONES), ValueError, "no finite second derivative"),
        (lambda: lyapunov(SQUARE, ONES, STATE, STATE, 0.0, 1.0), ValueError, "^learning_rate=0.0"),
        (lambda: lyapunov(SQUARE, ONES, STATE, STATE, lambda k: 0.1, 1.0), TypeError, "is a schedule"),
        (lambda: lyapunov(SQUARE, ONES, STATE, STATE, 0.1, -1.0), ValueError, "^nu=-1.0"),
        (lambda: lyapunov(SQUARE, ONES, optax.EmptyState(), STATE, 0.1, 1.0), ValueError, "no Split LBI state"),
        (lambda: lyapunov(SQUARE, {"w": jnp.ones(3)}, STATE, STATE, 0.1, 1.0), ValueError, "do not match"),
        (lambda: lyapunov(SQUARE, ONES | {"u": ONES["w"]}, STATE, OTHER, 0.1, 1.0), ValueError,
         r"penalises \['w'\], previous \['u'\].*states of one run"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_said(act, error, message):
    with pytest.raises(error, match=message):
        act()
