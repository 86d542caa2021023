"""The exact path is the flow that it claims to be, and the limit of the iteration."""

# ruff: noqa: N803, N806

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.linear_model import lars_path

import parsimony as pm
from parsimony.theory import ExactPath, exact_path, max_learning_rate


def regression(seed, n, p, correlation, size=5, noise=0.5):
    """(X, y, support): columns of correlation c^|i − j| and unit length, `size` true weights of 1 to 3."""
    rng = np.random.default_rng(seed)
    covariance = correlation ** np.abs(np.subtract.outer(np.arange(p), np.arange(p)))
    X = rng.normal(size=(n, p)) @ np.linalg.cholesky(covariance).T
    X /= np.sqrt((X**2).mean(0))
    w = np.zeros(p)
    w[rng.choice(p, size, replace=False)] = rng.choice([-1, 1], size) * rng.uniform(1, 3, size)
    return X, X @ w + noise * rng.normal(size=n), w != 0


def least_squares(X, y):
    return X.T @ X / len(y), X.T @ y / len(y)


def assert_is_the_flow(path, H, q, strength, nu, tolerance=1e-8):
    """V' = (W − Γ)/ν, 0 = ∇L(W) + (W − Γ)/ν and V ∈ ∂Ω(Γ) on every piece, from V = 0 to HΓ = q."""
    assert path.times[0] == 0
    assert (np.diff(path.times) > 0).all()
    assert not path.duals[0].any()
    scale = max(1, np.abs(path.weights).max())
    for piece, (gamma, w, v) in enumerate(zip(path.gammas, path.weights, path.duals, strict=True)):
        np.testing.assert_allclose(H @ w - q + (w - gamma) / nu, 0, atol=tolerance * scale / min(nu, 1))
        ends = [v, path.duals[min(piece + 1, len(path.times) - 1)]]
        if piece + 1 < len(path.times):
            length = path.times[piece + 1] - path.times[piece]
            np.testing.assert_allclose(
                ends[1] - v, length * (w - gamma) / nu, atol=tolerance * scale * max(1, length / nu)
            )
        for end in ends:
            assert (np.abs(end) <= strength * (1 + 1e-12)).all()
            np.testing.assert_array_equal(end[gamma != 0], strength * np.sign(gamma[gamma != 0]))
    reduced = [gamma @ (H @ w / 2 - q / 2) - w @ q / 2 for gamma, w in zip(path.gammas, path.weights, strict=True)]
    assert (np.diff(reduced) < 0).all()
    np.testing.assert_allclose(H @ path.gammas[-1], q, atol=tolerance * scale)


@pytest.mark.parametrize("nu", [0.01, 1.0, 100.0])
@pytest.mark.parametrize(
    ("n", "p", "correlation"), [(50, 10, 0.5), (100, 40, 0.9), (200, 60, 0.99), (30, 60, 0.3), (60, 100, 0.9)]
)
@pytest.mark.parametrize("strength", [1.0, 0.2])
def test_every_piece_is_that_of_the_flow(n, p, correlation, nu, strength):
    X, y, _ = regression(0, n, p, correlation)
    H, q = least_squares(X, y)
    path = exact_path(H, q, pm.Lasso(strength), nu)
    assert_is_the_flow(path, H, q, strength, nu)
    assert len(path.times) > min(n, p)


def test_weights_leave_and_return_where_the_data_say_so():
    """The decoy of three columns enters first and must go; the flow is not one of entries alone."""
    X, y, _ = decoys(0)
    path = exact_path(*least_squares(X, y), nu=0.1)
    assert_is_the_flow(path, *least_squares(X, y), 1.0, 0.1)
    inside = path.gammas != 0
    assert ((~inside[1:] & inside[:-1]).sum(0) > 0).any()


@pytest.mark.parametrize(
    ("H", "q"),
    [
        (np.eye(4) + 1, np.ones(4)),
        (np.ones((3, 3)), np.full(3, 2.0)),
        (np.kron(np.eye(2), [[1.0, -1.0], [-1.0, 1.0]]), np.array([1.0, -1.0, 2.0, -2.0])),
        (2 * np.eye(3, dtype=int), np.array([1, -1, 1])),
    ],
    ids=["ties", "one column thrice", "a column and its negative", "integers"],
)
def test_ties_and_copies_enter_together(H, q):
    path = exact_path(H, q, nu=2.0)
    assert_is_the_flow(path, H, q, 1.0, 2.0)
    assert len(path.times) <= 3


@pytest.mark.parametrize("nu", [0.3, 1.0, 40.0])
def test_orthogonal_designs_have_a_closed_form(nu):
    """H = diag(h): weight i enters at λ(1 + νh_i)/|q_i|, and Γ_i = q_i/h_i from then on."""
    rng = np.random.default_rng(0)
    X = np.linalg.qr(rng.normal(size=(30, 8)))[0] * np.sqrt(30 * rng.uniform(0.5, 2, 8))
    y = rng.normal(size=30)
    H, q = least_squares(X, y)
    h, strength = np.diag(H), 0.7
    path = exact_path(H, q, pm.Lasso(strength), nu)
    entry = strength * (1 + nu * h) / np.abs(q)
    np.testing.assert_allclose(path.entry_times, entry, rtol=1e-9)
    np.testing.assert_allclose(path.times, np.r_[0, np.sort(entry)], rtol=1e-9)
    for time in [0.0, *(np.sort(entry) * 1.01), 1e6]:
        w, gamma, v = path.at(time)
        inside = time >= entry
        np.testing.assert_allclose(gamma, np.where(inside, q / h, 0), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(w, np.where(inside, q / h, nu * q / (1 + nu * h)), rtol=1e-9)
        np.testing.assert_allclose(v, np.sign(q) * np.minimum(time / entry, 1) * strength, rtol=1e-9, atol=1e-12)


def test_large_nu_orders_by_least_squares_and_small_nu_is_the_loss_itself():
    X, y, _ = regression(1, 80, 12, 0.8)
    H, q = least_squares(X, y)
    order = np.argsort(exact_path(H, q, nu=1e9).entry_times)
    np.testing.assert_array_equal(order, np.argsort(-np.abs(np.linalg.solve(H, q))))
    path = exact_path(H, q, nu=1e-9)
    np.testing.assert_allclose(path.times[1], 1 / np.abs(q).max(), rtol=1e-6)
    np.testing.assert_allclose(path.weights, path.gammas, atol=1e-7)


def test_at_many_times_and_shapes():
    X, y, _ = regression(0, 50, 6, 0.5)
    H, q = least_squares(X, y)
    flat, path = exact_path(H, q, nu=5.0), exact_path(H, q.reshape(3, 2), nu=5.0)
    assert isinstance(path, ExactPath)
    assert path.gammas.shape == path.weights.shape == path.duals.shape == (len(path.times), 3, 2)
    np.testing.assert_array_equal(path.entry_times, flat.entry_times.reshape(3, 2))
    times = np.r_[path.times, (path.times[1:] + path.times[:-1]) / 2, 1e9].reshape(-1, 2)
    for many, one in zip(path.at(times), zip(*(path.at(t) for t in times.ravel()), strict=True), strict=True):
        assert many.shape == (*times.shape, 3, 2)
        np.testing.assert_array_equal(many.reshape(-1, 3, 2), np.array(one))
    for at, kept in zip(path.at(path.times), (path.weights, path.gammas, path.duals), strict=True):
        np.testing.assert_allclose(at, kept, rtol=1e-14)
    middle = path.at((path.times[1] + path.times[2]) / 2)[2]
    np.testing.assert_allclose(middle, (path.duals[1] + path.duals[2]) / 2)


def test_no_data_no_path():
    path = exact_path(np.eye(3), np.zeros(3))
    assert path.times.tolist() == [0.0]
    assert path.entry_times.tolist() == [pm.NEVER] * 3


@pytest.mark.parametrize(("n", "p"), [(60, 20), (20, 40)])
def test_single_precision_input_gives_the_path_to_its_precision(n, p):
    X, y, _ = regression(2, n, p, 0.3)
    H, q = least_squares(X, y)
    path = exact_path(H, q, nu=2.0)
    rounded = exact_path(jnp.asarray(H, jnp.float32), jnp.asarray(q, jnp.float32), nu=2.0)
    early = path.times[1:8]
    np.testing.assert_allclose(rounded.times[1:8], early, rtol=1e-3)
    np.testing.assert_allclose(rounded.at(early * 1.01)[2], path.at(early * 1.01)[2], atol=1e-3)


def iterate(H, q, alpha, kappa, nu, until):
    """(times, W, Γ, V, entry times) of the iteration from W = 0."""
    tx = pm.record_path(pm.inverse_scale_space(alpha, kappa, nu, pm.Lasso()))

    def step(carry, _):
        params, state = carry
        updates, state = tx.update({"w": H @ params["w"] - q}, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), (params["w"], pm.gamma(state)["w"], state.inner_state.dual["w"])

    steps = round(until / alpha)
    with jax.enable_x64(True):
        params = {"w": jnp.zeros(q.shape)}
        run = jax.jit(lambda params: jax.lax.scan(step, (params, tx.init(params)), length=steps))
        (_, state), seen = run(params)
        return alpha * np.arange(1, steps + 1), *map(np.asarray, (*seen, pm.entry_times(state)["w"]))


@pytest.fixture(scope="module", params=[1.0, 5.0], ids=["nu=1", "nu=5"])
def limit(request):
    """A path on which weights enter at seven times, and what the iteration needs to follow it."""
    X, y, _ = regression(0, 40, 8, 0.5, size=4)
    H, q = least_squares(X, y)
    path = exact_path(H, q[:, None], nu=request.param)
    alpha = lambda kappa: 0.5 * max_learning_rate(np.linalg.eigvalsh(H)[-1], kappa, request.param)
    return path, H, q[:, None], request.param, alpha, 1.05 * path.times[7]


def orders(errors):
    """log₂ of the fall of the error at each doubling."""
    return np.log2(errors[:-1]) - np.log2(errors[1:])


@pytest.mark.slow
def test_the_iteration_tends_to_it_at_first_order_as_kappa_grows_and_alpha_shrinks(limit):
    """κα fixed, κ doubled: V, ∫|Γ − Γ_exact|, ∫|W − W_exact| and the times of entry halve their error."""
    path, H, q, nu, alpha, until = limit
    errors = []
    for kappa in (64.0, 128.0, 256.0, 512.0):
        times, *found, entered = iterate(H, q, alpha(kappa), kappa, nu, until)
        off = [np.abs(one - other) for one, other in zip(found, path.at(times), strict=True)]
        inside = (path.entry_times > 0) & (path.entry_times < until * 0.99)
        assert inside.sum() > 4
        late = np.abs(entered - path.entry_times)[inside].max()
        errors.append([off[2].max(), off[1].sum() * alpha(kappa), off[0].sum() * alpha(kappa), late])
    np.testing.assert_allclose(orders(np.array(errors)), 1, atol=0.15)
    # Between jumps Γ tends to its limit exponentially: in the middle of a long piece it is there already.
    long = np.flatnonzero(np.diff(path.times[:8]) > 100 / 512)
    assert len(long) > 4
    at = np.rint((path.times[long] + path.times[long + 1]) / 2 / alpha(512.0)).astype(int) - 1
    np.testing.assert_allclose(found[1][at], path.at(times[at])[1], rtol=0, atol=1e-8)


@pytest.mark.slow
def test_the_iteration_tends_to_the_flow_of_its_kappa_at_first_order_as_alpha_shrinks(limit):
    """κ fixed, α halved: V tends to one that is Γ/κ from the exact one, where V lies in ∂Ω(Γ) + Γ/κ."""
    path, H, q, nu, alpha, until = limit
    kappa, parts = 64.0, 2 ** np.arange(1, 6)
    times = alpha(kappa) * np.arange(1, int(0.9 * until / alpha(kappa)))
    duals = [iterate(H, q, alpha(kappa) / m, kappa, nu, until)[3][m - 1 :: m][: len(times)] for m in parts]
    errors = np.array([np.abs(one - other).max() for one, other in itertools.pairwise(duals)])
    np.testing.assert_allclose(orders(errors), 1, atol=0.15)
    _, gammas, exact = path.at(times)
    assert np.abs(duals[-1] - exact).max() == pytest.approx(np.abs(gammas).max() / kappa, rel=0.05)


def decoys(seed, noise=0.5):
    """Three true columns, and three more that are each 0.6 of their sum and a little noise; others are noise."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(200, 30))
    X[:, 3:6] = X[:, :3].sum(1, keepdims=True) * 0.6 + X[:, 3:6] * 0.5
    X /= np.sqrt((X**2).mean(0))
    w = np.r_[3.0, 2.5, 2.0, np.zeros(27)]
    return X, X @ w + noise * rng.normal(size=200), w != 0


def lasso_recovers(X, y, support):
    """Whether some point of the lasso path has the true support: at a knot, or between two."""
    _, _, knots = lars_path(X, y, method="lasso")
    points = np.hstack([knots, (knots[:, 1:] + knots[:, :-1]) / 2])
    return ((points != 0) == support[:, None]).all(0).any()


def path_recovers(X, y, support, nu):
    return ((exact_path(*least_squares(X, y), nu=nu).gammas != 0) == support).all(1).any()


@pytest.mark.slow
def test_the_support_is_recovered_where_the_lasso_path_does_not():
    """Decoys break the irrepresentable condition whatever the noise; the others have 100 columns for 60 equations."""
    tall = [decoys(seed) for seed in range(20)]
    wide = [regression(seed, 60, 100, 0.9, noise=0.1) for seed in range(20)]
    for problems in (tall, wide):
        assert sum(lasso_recovers(*problem) for problem in problems) == 0
        assert sum(path_recovers(*problem, nu=10.0) for problem in problems) >= 18
        assert sum(path_recovers(*problem, nu=0.01) for problem in problems) <= 6  # it is ν that does it


ASYMMETRIC = np.array([[1.0, 0.5], [0.0, 1.0]])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        *[((np.eye(2), np.ones(2), penalty), TypeError, r"expected Lasso\(strength\).*not constant between entries")
          for penalty in (pm.GroupLasso(), pm.SparseGroupLasso(mix=1.0), pm.BlockLasso(), pm.NuclearNorm(),
                          pm.Rules([("w", pm.Lasso())]), pm.Lasso, "lasso")],
        ((np.eye(2), np.ones(3)), ValueError, r"hessian \(2, 2\), linear \(3,\): expected an \(n, n\) matrix"),
        ((np.ones(2), np.ones(2)), ValueError, r"expected an \(n, n\) matrix"),
        ((np.zeros((0, 0)), np.zeros(0)), ValueError, "n ≥ 1"),
        ((np.eye(2) * np.nan, np.ones(2)), ValueError, "expected finite numbers"),
        ((np.eye(2), np.array([1.0, np.inf])), ValueError, "expected finite numbers"),
        ((ASYMMETRIC, np.ones(2)), ValueError, "differs from its transpose by 0.5"),
        ((np.diag([1.0, -0.1]), np.ones(2)), ValueError, "eigenvalue -0.1: expected a positive semidefinite"),
        ((np.diag([1.0, 0.0]), np.ones(2)), ValueError, "norm 1 outside the range of hessian.*no minimum"),
        ((np.eye(2), np.ones(2), None, 0.0), ValueError, "^nu=0.0: expected a positive"),
        ((np.eye(2), np.ones(2), None, "1"), TypeError, "^nu='1'"),
    ],
)  # fmt: skip
def test_what_has_no_exact_path_is_said(arguments, error, message):
    with pytest.raises(error, match=message):
        exact_path(*arguments)


@pytest.mark.parametrize("time", [-1.0, [0.0, float("nan")]])
def test_there_is_nothing_before_the_start(time):
    with pytest.raises(ValueError, match="expected times ≥ 0"):
        exact_path(np.eye(2), np.ones(2)).at(time)
