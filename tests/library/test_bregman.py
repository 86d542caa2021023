"""Related methods against their published forms in NumPy, where they start and where they come to rest."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import parsimony as pm
from helpers import reference as ref
from helpers.cases import every_pair, in_turn
from helpers.related import ALL_PENALTIES, METHODS, PARAMS, SPARSE, STEPS, gradient, trained


class Case(NamedTuple):
    ours: Any
    method: str
    theirs: dict[str, Any]
    strength: float
    start: Any = PARAMS


def adabreg(adam, **kwargs):
    return pm.adabreg(**kwargs)


def rda_after_adam(adam, **kwargs):
    return optax.chain(optax.scale_by_adam(), pm.rda(**kwargs))


decaying = lambda k: 0.1 / (1 + 0.1 * k)
warming = lambda k: 0.1 * k / (k + 5)  # from zero
CASES = {
    "linbreg": Case(pm.linbreg, "linbreg", {}, 2.0, SPARSE),
    "linbreg, kappa": Case(pm.linbreg, "linbreg", {"kappa": 2.5}, 1.5, SPARSE),
    "linbreg, small kappa, Nesterov": Case(
        pm.linbreg, "linbreg", {"kappa": 0.4, "momentum": 0.8, "nesterov": True}, 3.0, SPARSE
    ),
    "linbreg, decaying rate": Case(pm.linbreg, "linbreg", {"learning_rate": decaying}, 2.0, SPARSE),
    "adabreg": Case(adabreg, "linbreg", {"kappa": 1.5, "adam": True}, 2.0, SPARSE),
    "rda": Case(pm.rda, "rda", {}, 0.8),
    "rda, momentum": Case(pm.rda, "rda", {"momentum": 0.5}, 1.2),
    "rda, warm-up": Case(pm.rda, "rda", {"learning_rate": warming}, 0.8),
    "rda after Adam": Case(rda_after_adam, "rda", {"adam": True}, 0.5),
    "rda, decay": Case(pm.rda, "rda", {"weight_decay": 0.5}, 0.5),
    "rda, momentum and decay": Case(pm.rda, "rda", {"momentum": 0.5, "weight_decay": 0.3}, 0.8),
    "PAT on AdamW": Case(rda_after_adam, "rda", {"adam": True, "weight_decay": 0.2}, 0.4),
    "prox_sgd": Case(pm.prox_sgd, "prox_sgd", {}, 0.8),
    "prox_sgd, Nesterov": Case(pm.prox_sgd, "prox_sgd", {"momentum": 0.6, "nesterov": True}, 1.5),
    "prox_sgd, warm-up": Case(pm.prox_sgd, "prox_sgd", {"learning_rate": warming}, 0.8),
}
PENALTIES = {
    "Lasso": lambda s: (pm.Lasso(s), ref.scaled_lasso(s), ref.scaled_lasso(s)),
    "GroupLasso": lambda s: (
        pm.Rules([("conv", pm.GroupLasso(-1, 2.6 * s)), ("head", pm.GroupLasso(-1, 2 * s))]),
        ref.scaled_group_lasso(2.6 * s),
        ref.scaled_group_lasso(2 * s),
    ),
    "both, rms": lambda s: (
        pm.Rules([("conv", pm.GroupLasso(-1, 0.7 * s, "rms")), ("head", pm.Lasso(s))]),
        ref.scaled_group_lasso(0.7 * s, rms=True),
        ref.scaled_lasso(s),
    ),
}


@pytest.mark.parametrize(
    ("case", "make", "dtype"),
    [
        pytest.param(*param.values, dtype, id=f"{param.id}-{dtype}")
        for dtype, start in (("float64", 0), ("float32", 1))
        for param in in_turn(CASES, PENALTIES, start=start)
    ],
)
def test_every_step_is_that_of_the_transcription(case, make, dtype):
    penalty, conv, head = make(case.strength)
    both = {"learning_rate": 0.1, **case.theirs}
    ours = case.ours(**both, penalty=penalty)
    theirs = ref.related(case.method, case.start, gradient, {"conv": conv, "head": head}, STEPS, **both)
    tolerance = {"float64": 1e-12, "float32": 3e-5 if "adam" in both else 2e-6}[dtype]
    with jax.enable_x64(dtype == "float64"):
        for (params, state), (weights, latent, time) in zip(
            trained(ours, case.start, dtype=dtype), theirs, strict=True
        ):
            own = optax.tree.get(state, "SplitLBIState")
            np.testing.assert_allclose(own.time, time, rtol=1e-6)
            for name, w in weights.items():
                scale = max(1, np.abs(latent[name]).max() * float(both.get("kappa", 1)))
                np.testing.assert_allclose(params[name], w, rtol=0, atol=tolerance * scale, err_msg=name)
                if case.method == "linbreg" and name != "bias":
                    np.testing.assert_allclose(own.dual[name], latent[name], rtol=0, atol=tolerance * scale)
    for name in ("conv", "head"):
        assert 0 < np.count_nonzero(weights[name]) < weights[name].size, f"{name}: nothing or everything is zero"
        entered = np.count_nonzero((weights[name] != 0) & (np.asarray(case.start[name]) == 0))
        assert case.start is PARAMS or entered, f"{name}: nothing has entered"


STARTS = {"all": PARAMS, "some": SPARSE, "0": {name: 0 * w for name, w in PARAMS.items()}}


@pytest.mark.parametrize(("make", "penalty", "start"), every_pair(METHODS, ALL_PENALTIES, STARTS))
def test_the_state_at_the_start_holds_the_weights_of_the_start(make, start, penalty):
    params = {name: jnp.asarray(w, jnp.float32) for name, w in start.items()}
    state = make(penalty=penalty).init(params)
    for (name, w), row in zip(sorted(params.items()), pm.sparsity_summary(state), strict=True):
        if row.groups is not None:
            np.testing.assert_allclose(pm.gamma(state)[name], w, atol=2e-6)
            low_rank = isinstance(penalty, pm.Rules) and "NuclearNorm" in repr(penalty.rules[0])
            assert low_rank or row.weights == np.count_nonzero(w)


@pytest.mark.parametrize(
    ("tx", "biased"),
    [
        (pm.linbreg(0.1, penalty=pm.Lasso(0.5)), False),
        (pm.linbreg(0.1, kappa=3.0, penalty=pm.Lasso(0.5), momentum=0.5), False),
        (pm.rda(0.1, pm.Lasso(0.5)), True),
        (pm.prox_sgd(0.1, pm.Lasso(0.5)), True),
    ],
    ids=["linbreg", "linbreg, kappa", "rda", "prox_sgd"],
)
def test_at_rest_linbreg_fits_and_the_others_are_the_lasso(tx, biased):
    goal = jnp.array([[2.0, -1.0, 0.3, 0.0]])

    def step(at, _):
        updates, state = tx.update({"kernel": at[0]["kernel"] - goal}, at[1], at[0])
        return (optax.apply_updates(at[0], updates), state), None

    start = {"kernel": jnp.zeros((1, 4))}
    (params, _), _ = jax.lax.scan(step, (start, tx.init(start)), length=3000)
    np.testing.assert_allclose(params["kernel"], [[1.5, -0.5, 0.0, 0.0]] if biased else goal, atol=2e-3)


def test_a_decay_before_rda_in_a_chain_is_another_one():
    """It decays U by the sparse W, so that what has left does not come nearer to zero; and a mask keeps biases out."""
    penalty, decay = pm.Rules([("conv|head", pm.Lasso(0.8))]), 0.5
    inside = pm.rda(0.1, penalty, weight_decay=decay)
    before = optax.chain(optax.add_decayed_weights(decay), pm.rda(0.1, penalty))
    masked = pm.rda(0.1, penalty, weight_decay=decay, weight_decay_mask=lambda tree: {n: n != "bias" for n in tree})
    plain = pm.rda(0.1, penalty)
    ends = {tx: trained(tx)[-1][0] for tx in (inside, before, masked, plain)}
    assert jnp.abs(ends[inside]["conv"] - ends[before]["conv"]).max() > 0.01
    np.testing.assert_array_equal(ends[inside]["bias"], ends[before]["bias"])
    np.testing.assert_array_equal(ends[masked]["bias"], ends[plain]["bias"])
    np.testing.assert_array_equal(ends[masked]["conv"], ends[inside]["conv"])


@pytest.mark.parametrize("decay", [-0.1, float("nan"), float("inf")])
def test_a_decay_out_of_range_is_rejected(decay):
    with pytest.raises(ValueError, match=r"weight_decay=.*expected a number ≥ 0, or None"):
        pm.rda(0.1, weight_decay=decay)
    with pytest.raises(ValueError, match="weight_decay_mask needs a weight_decay"):
        pm.rda(0.1, weight_decay_mask={"kernel": True})
