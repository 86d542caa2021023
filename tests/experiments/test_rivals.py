"""Gradual magnitude pruning, iterative hard thresholding, RigL and AdaBound: against naive transcriptions, and by what
each method says of itself."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import baselines

STEPS = 30
_rng = np.random.default_rng(3)
SHAPES = {"conv": (2, 2, 3, 6), "head": (6, 5), "bias": (5,)}
PARAMS = {name: _rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
GOALS = {name: _rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
KERNELS = ("conv", "head")
WEIGHTS = 72 + 30


def gradient(params, xp=np):
    return {name: w - GOALS[name] + 0.3 * xp.sin(3 * w) for name, w in params.items()}


def trained(tx, steps=STEPS, transform=jax.jit):
    """(params, state) after each step."""

    def step(params, state):
        updates, state = tx.update(gradient(params, jnp), state, params)
        return optax.apply_updates(params, updates), state

    params = jax.tree.map(jnp.asarray, PARAMS)
    step, at = transform(step), (params, tx.init(params))
    return [at := step(*at) for _ in range(steps)]


def sgd(rate=0.1, momentum=0.5):
    return optax.sgd(rate, momentum=momentum)


def zeros(params) -> int:
    return sum(int((np.asarray(params[name]) == 0).sum()) for name in KERNELS)


def largest(scores: dict, keep: int) -> dict:
    """Masks of the `keep` largest numbers of all together, by sorting."""
    flat = np.concatenate([scores[name].ravel() for name in scores])
    inside = np.zeros(flat.size, bool)
    inside[np.argsort(-flat, kind="stable")[:keep]] = True
    parts = np.split(inside, np.cumsum([s.size for s in scores.values()])[:-1])
    return {name: part.reshape(scores[name].shape) for name, part in zip(scores, parts, strict=True)}


@pytest.mark.parametrize("k", [0, 1, 5, 6, 7, 40])
def test_the_k_largest_are_those_that_sorting_finds_ties_included(k):
    scores = np.array([2.0, 0.0, 3.0, 2.0, 1e-30, 2.0, -1.0, 0.5, np.inf, 2.0], np.float32)
    expected = largest({"": np.where(scores < 0, -1, scores)}, min(k, 9))[""]
    np.testing.assert_array_equal(jax.jit(baselines.k_largest)(scores, k), expected)


def test_filters_are_compared_by_their_root_mean_square():
    params = {
        "a": jnp.broadcast_to(jnp.array([1.0, 4.0]), (3, 3, 1, 2)),
        "b": jnp.full((1, 1, 1, 2), 2.0),
        "dense": jnp.ones((2, 2)),
    }
    masks = baselines.magnitude_masks(params, 0.5, "filter")
    assert masks["a"].all((0, 1, 2)).tolist() == [False, True]
    assert masks["b"].all((0, 1, 2)).tolist() == [True, False]  # of equals the first
    assert masks["dense"].all()


def test_the_cubic_schedule_has_the_values_of_its_equation():
    schedule = baselines.cubic_sparsity(0.9, 5, 25)
    for t in range(40):
        part = min(max((t - 5) / 20, 0), 1)
        assert float(schedule(t)) == pytest.approx(0.9 - 0.9 * (1 - part) ** 3, abs=1e-6)


def test_gradual_pruning_is_its_transcription():
    begin, end, every, final = 4, 21, 5, 0.8
    w = {name: value.astype(np.float64) for name, value in PARAMS.items()}
    masks, trace = ({name: made(value) for name, value in w.items()} for made in (np.ones_like, np.zeros_like))
    taken = trained(baselines.gradual_magnitude_pruning(sgd(), final, begin, end, every))
    for t, (params, _) in enumerate(taken):
        slope = gradient(w)
        if t in (4, 9, 14, 19):
            share = final * (1 - (1 - (t - 4) / 15) ** 3)
            kept = largest({name: np.abs(w[name]) for name in KERNELS}, WEIGHTS - int(np.floor(share * WEIGHTS + 1e-6)))
            masks |= {name: masks[name] * kept[name] for name in KERNELS}
        for name in w:
            trace[name] = 0.5 * trace[name] + masks[name] * slope[name]
            w[name] = masks[name] * (w[name] - 0.1 * trace[name])
            np.testing.assert_allclose(params[name], w[name], atol=2e-5, err_msg=f"{name} at {t}")
    assert zeros(params) == int(0.8 * WEIGHTS)
    assert int(taken[-1][1].count) == STEPS


def test_what_gradual_pruning_removed_never_returns_and_the_end_is_exact():
    outside = np.zeros(WEIGHTS, bool)
    for params, _ in trained(baselines.gradual_magnitude_pruning(sgd(), 0.9, 0, 20, 4)):
        now = np.concatenate([np.asarray(params[name]).ravel() == 0 for name in KERNELS])
        assert now[outside].all()
        outside = now
    assert outside.sum() == int(0.9 * WEIGHTS)


def test_hard_thresholding_is_its_transcription_and_exact_after_every_step():
    w = {name: value.astype(np.float64) for name, value in PARAMS.items()}
    trace = {name: np.zeros_like(value) for name, value in w.items()}
    returned, before = 0, None
    for params, _ in trained(baselines.iterative_hard_thresholding(sgd(), 0.7)):
        slope = gradient(w)
        for name in w:
            trace[name] = 0.5 * trace[name] + slope[name]
            w[name] = w[name] - 0.1 * trace[name]
        kept = largest({name: np.abs(w[name]) for name in KERNELS}, WEIGHTS - int(0.7 * WEIGHTS))
        w |= {name: w[name] * kept[name] for name in KERNELS}
        for name in w:
            np.testing.assert_allclose(params[name], w[name], atol=2e-5, err_msg=name)
        assert zeros(params) == int(0.7 * WEIGHTS)
        now = np.concatenate([w[name].ravel() != 0 for name in KERNELS])
        returned += 0 if before is None else int((now & ~before).sum())
        before = now
    assert returned > 0  # unlike in pruning, a weight can come back


@pytest.mark.parametrize("level", ["weight", "group"])
@pytest.mark.parametrize("method", ["gradual", "hard"])
def test_groups_go_as_wholes(method, level):
    make = {
        "gradual": lambda q: baselines.gradual_magnitude_pruning(sgd(), q, 0, 15, 3, level),
        "hard": lambda q: baselines.iterative_hard_thresholding(sgd(), baselines.cubic_sparsity(q, 0, 15), level),
    }[method]
    conv = np.asarray(trained(make(0.5))[-1][0]["conv"])
    if level == "group":
        assert ((conv == 0).all((0, 1, 2)) | (conv != 0).all((0, 1, 2))).all()
        assert (conv == 0).all((0, 1, 2)).sum() == 3
    else:
        assert 0 < (conv == 0).sum() < conv.size


def rigl(sparsity=0.6, **arguments):
    return baselines.rigl(sgd(), sparsity, jax.random.key(0), end=20, every=4, **arguments)


def test_rigl_is_its_transcription():
    tx = rigl(drop=0.5)
    start = tx.init(jax.tree.map(jnp.asarray, PARAMS))
    masks = jax.tree.map(np.asarray, start.masks)
    w = {name: value.astype(np.float64) for name, value in PARAMS.items()}
    trace = {name: np.zeros_like(value) for name, value in w.items()}
    for t, (params, state) in enumerate(trained(tx)):
        slope = gradient(w)
        for name in w:
            if t in (4, 8, 12, 16):
                if name == "bias":
                    continue
                active = masks[name].copy()
                drop = int(np.floor(0.25 * (1 + np.cos(np.pi * t / 20)) * active.sum()))
                order = np.argsort(np.where(active, np.abs(w[name]), np.inf), axis=None, kind="stable")
                survive = active.ravel().copy()
                survive[order[:drop]] = False
                grow = np.argsort(np.where(survive, -1, np.abs(slope[name]).ravel()), kind="stable")[::-1][:drop]
                new = survive.copy()
                new[grow] = True
                masks[name] = new.reshape(active.shape)
                # What was dropped and grown at once was never away, and keeps its value, as in the published code.
                both = masks[name] & active
                w[name], trace[name] = w[name] * both, trace[name] * both
            else:
                trace[name] = 0.5 * trace[name] + masks[name] * slope[name]
                w[name] = masks[name] * (w[name] - 0.1 * trace[name])
            np.testing.assert_allclose(params[name], w[name], atol=2e-5, err_msg=f"{name} at {t}")
            np.testing.assert_array_equal(state.masks[name], masks[name], err_msg=f"{name} at {t}")


def test_rigl_grows_at_zero_keeps_its_size_and_stops_at_the_end():
    before, changes = None, []
    for t, (params, state) in enumerate(trained(rigl())):
        masks = np.concatenate([np.asarray(state.masks[name]).ravel() for name in KERNELS])
        weights = np.concatenate([np.asarray(params[name]).ravel() for name in KERNELS])
        assert masks.sum() == WEIGHTS - int(0.6 * WEIGHTS)
        assert (weights[~masks] == 0).all()
        if before is not None and (masks != before).any():
            changes.append(t)
            assert (weights[masks & ~before] == 0).all()
            assert np.asarray(state.masks["bias"]).all()
        before = masks
    assert changes
    assert set(changes) <= {4, 8, 12, 16}


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9, 0.99])
def test_erdos_renyi_densities_are_in_proportion_full_at_most_and_add_up(sparsity):
    shapes = [(784, 300), (300, 100), (100, 10), (3, 3, 8, 16)]
    found = np.asarray(jax.jit(lambda q: baselines.erdos_renyi_densities(shapes, q))(sparsity), np.float64)
    sizes = np.array([np.prod(shape) for shape in shapes])
    assert found @ sizes == pytest.approx((1 - sparsity) * sizes.sum(), rel=1e-4)
    assert (found <= 1 + 1e-6).all()
    part = found[found < 1] / (np.array([sum(shape) for shape in shapes]) / sizes)[found < 1]
    np.testing.assert_allclose(part, part.mean() if part.size else part, rtol=1e-4)


def test_uniform_rigl_has_one_density_for_all_layers():
    masks = rigl(0.5, distribution="uniform").init(jax.tree.map(jnp.asarray, PARAMS)).masks
    assert [float(masks[name].mean()) for name in KERNELS] == [0.5, 0.5]
    with pytest.raises(ValueError, match="expected 'erk' or 'uniform'"):
        rigl(distribution="even")


def test_adabound_is_its_transcription_and_comes_from_adam_to_sgd():
    w = {name: value.astype(np.float64) for name, value in PARAMS.items()}
    m, s = ({name: np.zeros_like(value) for name, value in w.items()} for _ in range(2))
    rate = lambda count: 1e-2 * 0.97**count
    for k, (params, _) in enumerate(trained(baselines.adabound(rate, 0.1))):
        slope, t, alpha = gradient(w), k + 1, 1e-2 * 0.97**k
        end = 0.1 * alpha / 1e-2
        low, high = end * (1 - 1 / (1e-3 * t + 1)), end * (1 + 1 / (1e-3 * t))
        for name in w:
            m[name] = 0.9 * m[name] + 0.1 * slope[name]
            s[name] = 0.999 * s[name] + 0.001 * slope[name] ** 2
            own = alpha * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) / (np.sqrt(s[name]) + 1e-8)
            w[name] = w[name] - np.clip(own, low, high) * m[name]
            np.testing.assert_allclose(params[name], w[name], atol=2e-5, err_msg=name)
    closed = baselines.adabound(1e-2, 0.1, gamma=1e6)  # bounds that have closed: the running mean times the last step
    updates, _ = closed.update({"w": jnp.array([2.0])}, closed.init({"w": jnp.zeros(1)}), {"w": jnp.zeros(1)})
    np.testing.assert_allclose(updates["w"], [-0.1 * 0.1 * 2], rtol=1e-5)


MAPPED = {
    "gradual": lambda q: baselines.gradual_magnitude_pruning(sgd(), q, 0, 15, 3),
    "hard": lambda q: baselines.iterative_hard_thresholding(sgd(), q),
    "rigl": rigl,
    "adabound": lambda q: baselines.adabound(1e-2 * q),
}


@pytest.mark.slow
@pytest.mark.parametrize("make", MAPPED.values(), ids=MAPPED)
def test_several_sparsities_train_as_one(make):
    params, several = jax.tree.map(jnp.asarray, PARAMS), jnp.array([0.3, 0.6, 0.9])

    def whole(q):
        tx = make(q)

        def step(at, _):
            updates, state = tx.update(gradient(at[0], jnp), at[1], at[0])
            return (optax.apply_updates(at[0], updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), length=STEPS)[0][0]

    mapped = jax.jit(jax.vmap(whole))(several)
    for i, q in enumerate((0.3, 0.6, 0.9)):
        alone = trained(make(q))[-1][0]
        for name in PARAMS:
            np.testing.assert_allclose(mapped[name][i], alone[name], atol=1e-5)
    if make is not MAPPED["adabound"]:
        assert [zeros(jax.tree.map(lambda x, i=i: x[i], mapped)) for i in range(3)] == [
            int(q * WEIGHTS + 1e-6) for q in (0.3, 0.6, 0.9)
        ]


@pytest.mark.parametrize("make", [MAPPED["gradual"], MAPPED["hard"], MAPPED["rigl"]])
def test_without_params_the_step_says_what_it_needs(make):
    params = jax.tree.map(jnp.asarray, PARAMS)
    tx = make(0.5)
    with pytest.raises(ValueError, match=r"call tx.update\(grads, opt_state, params\)"):
        tx.update(params, tx.init(params))
