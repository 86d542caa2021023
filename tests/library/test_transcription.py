"""The Optax transformation is the method of the paper, at every step, whatever stands before and inside it.

The loss is a small network with a kernel of rank 4 (a convolution, as a product with patches), a matrix and two
biases; the transcription in `reference` has its gradient by hand. Groups enter at different steps and some never do.
"""

import types
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import parsimony as pm
from helpers import reference as ref
from parsimony import _dual_step, _inverse_scale_space

STEPS = 64
_rng = np.random.default_rng(0)


def _draw(*shape):
    return _rng.normal(size=shape).astype(np.float32).astype(np.float64)  # the same numbers in both precisions


PATCHES, TARGETS = _draw(40, 12), _draw(40, 5)
PARAMS = {
    "conv/kernel": _draw(2, 2, 3, 6) * [0.0625, 0.25, 0.5, 0.75, 1.0, 1.25],  # filters of unequal size
    "conv/bias": _draw(6),
    "head/kernel": _draw(6, 5),
    "head/bias": _draw(5),
}


@jax.jit
@jax.grad
def compiled_gradient(params):
    patches, targets = (jnp.asarray(x, params["head/bias"].dtype) for x in (PATCHES, TARGETS))
    hidden = jnp.tanh(patches @ params["conv/kernel"].reshape(12, 6) + params["conv/bias"][None])
    residual = hidden @ params["head/kernel"] + params["head/bias"][None] - targets
    return jnp.sum(residual**2) / (2 * len(patches))


def gradient(params):
    hidden = np.tanh(PATCHES @ params["conv/kernel"].reshape(12, 6) + params["conv/bias"])
    residual = (hidden @ params["head/kernel"] + params["head/bias"] - TARGETS) / len(PATCHES)
    before = residual @ params["head/kernel"].T * (1 - hidden**2)
    return {
        "conv/kernel": (PATCHES.T @ before).reshape(2, 2, 3, 6),
        "conv/bias": before.sum(0),
        "head/kernel": hidden.T @ residual,
        "head/bias": residual.sum(0),
    }


def run(tx, dtype, steps=STEPS):
    """The library's `ref.Step` after each step; `tx` is a chain that ends in Split LBI."""

    @jax.jit
    def step(grads, params, state):
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        lbi = state[-1]
        return params, state, ref.Step(params, pm.gamma(state), lbi.dual, pm.sparse_params(params, state), lbi.time)

    taken = []
    with jax.enable_x64(dtype == "float64"):
        params = {name: jnp.asarray(w, dtype) for name, w in PARAMS.items()}
        state = tx.init(params)
        for _ in range(steps):
            params, state, seen = step(compiled_gradient(params), params, state)
            taken.append(jax.tree.map(np.asarray, seen))
    return taken


NONE = types.MappingProxyType({})


class Case(NamedTuple):
    both: Mapping[str, Any] = NONE  # arguments with one name and meaning on both sides
    ours: Mapping[str, Any] = NONE
    theirs: Mapping[str, Any] = NONE
    before: optax.GradientTransformation | None = None
    strengths: tuple[float, float] = (1.0, 0.75)  # of GroupLasso(-1) on the convolution, Lasso() on the matrix
    penalties: tuple[Any, dict[str, ref.Penalty]] | None = None  # others: ours, theirs
    float32: float = 1e-6

    def transformation(self):
        conv, head = self.strengths
        rules = pm.Rules([("conv/kernel", pm.GroupLasso(-1, conv)), ("head/kernel", pm.Lasso(head))])
        both = {"learning_rate": 1 / 32, "nu": 1.0, **self.both}
        both["penalty"] = self.penalties[0] if self.penalties else rules
        if self.before is None:
            return pm.split_lbi(**both, **self.ours)
        return optax.chain(self.before, pm.inverse_scale_space(**both, **self.ours))

    def transcription(self):
        conv, head = self.strengths
        rules = {"conv/kernel": ref.group_lasso((3,), conv), "head/kernel": ref.lasso(head)}
        both = {"learning_rate": 1 / 32, "nu": 1.0, **self.both}
        penalties = self.penalties[1] if self.penalties else rules
        return penalties, list(ref.split_lbi(PARAMS, gradient, penalties, STEPS, **both, **self.theirs))


DECAY_MASK = {"conv/kernel": True, "conv/bias": False, "head/kernel": False, "head/bias": True}
decaying = lambda k: 0.05 / (1 + 0.03 * k)
warming = lambda k: 0.06 * k / (k + 5)  # from zero
METHODS = {
    "no momentum": Case(),
    "momentum": Case({"momentum": 0.9}),
    "Nesterov": Case({"momentum": 0.9, "nesterov": True}),
    "weight decay": Case({"weight_decay": 0.5}, theirs={"decayed": tuple(PARAMS)}),
    "weight decay with a mask, and momentum": Case(
        {"weight_decay": 0.5, "momentum": 0.5},
        ours={"weight_decay_mask": DECAY_MASK},
        theirs={"decayed": ("conv/kernel", "head/bias")},
    ),
    "coupling inside the momentum": Case(
        ours={"inner": optax.trace(0.9)}, theirs={"inner_momentum": 0.9}, strengths=(0.2, 0.08)
    ),
    # Adam divides by |g|: the rounding of a small gradient is a large part of its step.
    "Adam before": Case(before=optax.scale_by_adam(), theirs={"adam": True}, float32=2e-5),
    "large kappa": Case({"kappa": 4.0}, strengths=(0.6, 0.25)),
    "small kappa": Case({"kappa": 0.25}),
    "decaying rate": Case({"learning_rate": decaying}),
    "warmup": Case({"learning_rate": warming}),
    "warmup to r > 1/2": Case({"learning_rate": warming, "nu": 0.1}, strengths=(2.0, 1.0)),
    "slower dual": Case({"dual_learning_rate": 1 / 128}, strengths=(0.5, 0.2)),
    "scheduled dual": Case({"learning_rate": decaying, "dual_learning_rate": warming, "momentum": 0.5}),
    "r = 3/4": Case({"learning_rate": 1 / 16, "nu": 1 / 12}, strengths=(2.0, 1.0)),
    "r = 5/4": Case({"dual_learning_rate": 1.25}, strengths=(18.0, 7.0)),
}

_matrix = lambda ours, theirs: (pm.Rules([("head/kernel", ours)]), {"head/kernel": theirs})
_kernel = lambda ours, theirs: (pm.Rules([("conv/kernel", ours)]), {"conv/kernel": theirs})
_all = lambda ours, theirs: (ours, {"conv/kernel": theirs, "head/kernel": theirs})
PENALTIES = {
    "the paper's choice": (None, {"conv/kernel": ref.group_lasso(), "head/kernel": ref.lasso()}),
    "Lasso": _all(pm.Lasso(0.75), ref.lasso(0.75)),
    "GroupLasso": _all(pm.GroupLasso(-1, 1.25), ref.group_lasso((-1,), 1.25)),
    "GroupLasso of inputs": _matrix(pm.GroupLasso(0, 1.25), ref.group_lasso((0,), 1.25)),
    "GroupLasso of channel pairs": _kernel(pm.GroupLasso((2, 3), 0.8), ref.group_lasso((2, 3), 0.8)),
    "GroupLasso by root mean square": _all(pm.GroupLasso(-1, 0.55, "rms"), ref.group_lasso((-1,), 0.55, True)),
    "SparseGroupLasso": _all(pm.SparseGroupLasso(-1, 1.1, 0.3), ref.sparse_group_lasso((-1,), 1.1, 0.3)),
    "SparseGroupLasso by root mean square": _kernel(
        pm.SparseGroupLasso((3, 2), 0.4, 0.3, "rms"), ref.sparse_group_lasso((3, 2), 0.4, 0.3, True)
    ),
    "BlockLasso": _matrix(pm.BlockLasso((2, 1), 0.9), ref.block_lasso((2, 1), 0.9)),
    "BlockLasso that does not divide": _matrix(pm.BlockLasso((4, 3), 1.4), ref.block_lasso((4, 3), 1.4)),
    "BlockLasso by root mean square": _matrix(pm.BlockLasso((4, 3), 0.65, "rms"), ref.block_lasso((4, 3), 0.65, True)),
    "NuclearNorm": _matrix(pm.NuclearNorm(1.5), ref.nuclear_norm(1.5)),
    "an unpenalised kernel": (
        pm.Rules([("conv", None)], default=pm.BlockLasso((3, 2), 1.1)),
        {"head/kernel": ref.block_lasso((3, 2), 1.1)},
    ),
    "low rank and filters": (
        pm.Rules([("head/kernel", pm.NuclearNorm(1.5))], default=pm.GroupLasso(strength=0.9)),
        {"conv/kernel": ref.group_lasso((-1,), 0.9), "head/kernel": ref.nuclear_norm(1.5)},
    ),
}
CASES = METHODS | {f"penalty: {name}": Case(penalties=pair) for name, pair in PENALTIES.items()}
for low_rank in ("penalty: NuclearNorm", "penalty: low rank and filters"):
    CASES[low_rank] = CASES[low_rank]._replace(float32=3e-6)  # singular vectors round by more than the entries do


# What float32 adds is rounding: one way of each kind to gather it.
ROUNDED = (
    "momentum", "Adam before", "large kappa", "warmup to r > 1/2", "scheduled dual", "r = 5/4",
    "penalty: SparseGroupLasso", "penalty: BlockLasso by root mean square", "penalty: low rank and filters",
)  # fmt: skip
PRECISIONS = [(name, "float64") for name in CASES] + [(name, "float32") for name in ROUNDED]


QUICK = (
    "Nesterov",
    "r = 3/4",
    "coupling inside the momentum",
    "warmup",
    "slower dual",
    "r = 5/4",
    "penalty: BlockLasso",
)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param(name, dtype, marks=() if name in QUICK and dtype == "float64" else pytest.mark.slow)
        for name, dtype in PRECISIONS
    ],
)
def test_every_step_is_that_of_the_transcription(name, dtype):
    case = CASES[name]
    penalties, expected = case.transcription()
    for name, penalty in penalties.items():
        norms = penalty.norms(expected[-1].gamma[name])
        assert 0 < np.count_nonzero(norms) < norms.size, f"{name}: no group or every group has entered"
    tolerance = {"float64": 1e-12, "float32": case.float32}[dtype]
    for k, (ours, theirs) in enumerate(zip(run(case.transformation(), dtype), expected, strict=True)):
        np.testing.assert_allclose(ours.time, theirs.time, rtol=tolerance, err_msg=f"time after step {k}")
        for what in ("weights", "gamma", "dual", "sparse"):
            for name, value in getattr(theirs, what).items():
                # W, Γ and V are sums and differences of one another, so they round on one scale.
                scale = max(1, np.abs(theirs.weights[name]).max(), np.abs(theirs.dual[name]).max())
                assert getattr(ours, what)[name].dtype == dtype
                np.testing.assert_allclose(
                    getattr(ours, what)[name], value, rtol=0, atol=tolerance * scale, err_msg=f"{what} of {name}, {k}"
                )


def test_weights_and_dual_together_take_plain_gradient_steps():
    """(W + κV)⁺ = W + κV − κα∇L: the coupling only moves weight between the two."""
    for old, new in zip((taken := run(Case({"kappa": 4.0}).transformation(), "float64")), taken[1:], strict=False):
        slope = gradient(old.weights)
        for name in ("conv/kernel", "head/kernel"):
            before, after = (at.weights[name] + 4.0 * at.dual[name] for at in (old, new))
            np.testing.assert_allclose(after, before - 4.0 / 32 * slope[name], atol=1e-14)


@pytest.mark.parametrize(
    ("penalty", "r"),
    [
        (pm.Lasso(0.75), 0.9),
        (pm.GroupLasso(-1, 1.25), 1 / 32),
        (pm.SparseGroupLasso(-1, 1.1, 0.3), 0.9),
        (PENALTIES["BlockLasso"][0], 1 / 32),
    ],
    ids=str,
)
def test_gamma_read_off_the_new_dual_is_gamma_of_the_old(penalty, r, monkeypatch):
    """The library's two forms of one step, forced in turn."""
    taken = {}
    for recovers in (True, False):
        monkeypatch.setattr(_inverse_scale_space, "recovery_is_exact", lambda *_, recovers=recovers: recovers)
        tx = optax.chain(pm.inverse_scale_space(1 / 32, nu=1 / 32 / r, penalty=penalty))
        program = str(jax.make_jaxpr(tx.update)(PARAMS, tx.init(PARAMS), PARAMS))
        assert ("optimization_barrier" in program) == recovers, "the form was not the one asked for"
        taken[recovers] = run(tx, "float64")
    for one, other in zip(taken[True], taken[False], strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-12), one, other)
    assert any(np.any(gamma) for gamma in taken[True][-1].gamma.values())


@pytest.mark.parametrize(
    ("rate", "exact"),
    [
        (0.5, True),
        (0.51, False),
        (np.float32(0.5), True),
        (lambda k: 0.25, True),
        (lambda k: 0.26, False),
        (optax.linear_schedule(0.0, 0.3, 1_000_000), False),  # a rise is seen however late
        (lambda k: 1e-3 * 1.01**k, False),  # and one without end, which a Python number cannot hold
        (lambda k: 0.1 / k, False),
        (jnp.full(3, 0.1), False),  # one for each of many runs
    ],
)
def test_gamma_is_read_off_the_new_dual_only_where_r_is_known_to_stay_small(rate, exact, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert _dual_step.recovery_is_exact(rate, 2.0, 2.0) is exact
    jax.jit(lambda traced: pytest.fail("traced") if _dual_step.recovery_is_exact(traced, 2.0, 2.0) else traced)(0.1)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not _dual_step.recovery_is_exact(rate, 2.0, 2.0)


@pytest.mark.parametrize(("leap", "foreseen"), [(4, True), (5, False)])
def test_a_schedule_that_leaps_above_r_1_is_right_or_nan_and_never_silently_wrong(leap, foreseen, monkeypatch):
    """The library looks at a schedule's values at 0, 1, 2, 4, … and so does not see what happens at 5 alone."""
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    case = Case({"dual_learning_rate": lambda k: jnp.where(k == leap, 1.25, 1 / 32)})
    taken, (penalties, expected) = run(case.transformation(), "float64"), case.transcription()
    for k, (ours, theirs) in enumerate(zip(taken, expected, strict=True)):
        for name in penalties:
            if foreseen or k < leap:
                np.testing.assert_allclose(ours.weights[name], theirs.weights[name], rtol=0, atol=1e-12)
            else:
                assert np.isnan(ours.weights[name]).all()
