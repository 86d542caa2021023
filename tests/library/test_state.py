"""What Optax, Flax, Orbax and JAX see in a state: its fields by name, however deep it sits, and a static penalty."""

import copy
import dataclasses
import pickle

import chex
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax.training.train_state import TrainState

import parsimony as pm
from experiments import baselines
from parsimony._state import split_lbi_states, static

ALPHA, KAPPA, NU = 0.25, 2.0, 0.5
LASSO = pm.Lasso(0.3)
PARAMS = {"kernel": np.array([[1.0, -2.0, 0.1]], np.float32), "bias": np.ones(3, np.float32)}


def params():
    return jax.tree.map(jnp.asarray, PARAMS)


def core(**changes):
    return pm.inverse_scale_space(**{"learning_rate": ALPHA, "kappa": KAPPA, "nu": NU, "penalty": LASSO} | changes)


def steps(tx, start=None, count=3):
    """(params, state) after some steps of one compiled function, which is traced once."""

    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(at):
        updates, state = tx.update(jax.tree.map(lambda w: 0.1 * w, at[0]), at[1], at[0])
        return optax.apply_updates(at[0], updates), state

    at = (params(), tx.init(params())) if start is None else start
    for _ in range(count):
        at = step(at)
    return at


KERNEL = {"kernel": True, "bias": False}
WRAPPERS = {
    "alone": core,
    "chain": lambda: optax.chain(optax.clip_by_global_norm(100.0), optax.trace(0.0), core()),
    "masked": lambda: optax.masked(core(), KERNEL),
    "MultiSteps": lambda: optax.MultiSteps(core(), every_k_schedule=1),
    "inject_hyperparams": lambda: optax.inject_hyperparams(pm.inverse_scale_space)(ALPHA, KAPPA, NU, LASSO),
    "Adam before": lambda: optax.chain(optax.scale_by_adam(), core()),
    "record_path": lambda: pm.record_path(core()),
    "keep_support": lambda: pm.keep_support(core(), {"kernel": jnp.array([[True, True, False]])}),
    "apply_if_finite": lambda: optax.apply_if_finite(core(), 3),
}
every_wrapper = pytest.mark.parametrize("make", WRAPPERS.values(), ids=WRAPPERS)


def ours(path, value):
    return str(path[-1]).startswith("SplitLBIState.")


@every_wrapper
def test_optax_gets_every_field(make):
    _, opt_state = steps(make())
    get = lambda name: optax.tree.get(opt_state, name, filtering=ours)
    assert (get("count"), get("time"), get("kappa"), get("strength")) == (3, 3 * ALPHA, KAPPA, 1)
    np.testing.assert_allclose(
        pm.gamma(opt_state)["kernel"], KAPPA * LASSO.prox(get("dual")["kernel"]), rtol=1e-6
    )  # fmt: skip
    assert optax.tree.get(opt_state, "SplitLBIState").penalty == LASSO


def test_without_a_filter_optax_says_that_adam_counts_too():
    with pytest.raises(KeyError, match="multiple values for 'count'"):
        optax.tree.get(WRAPPERS["Adam before"]().init(params()), "count")


def test_of_two_states_the_path_tells_which():
    rates = {"kernel": core(), "bias": core(learning_rate=0.5, penalty=pm.Rules([("bias", pm.GroupLasso(0))]))}
    two = {name: jnp.ones((2, 2)) for name in rates}
    tx = optax.partition(rates, {name: name for name in rates})
    _, opt_state = steps(tx, (two, tx.init(two)))
    for name, time in [("kernel", 3 * ALPHA), ("bias", 1.5)]:
        of_one = lambda path, value, name=name: f"['{name}']" in jax.tree_util.keystr(path)
        assert optax.tree.get(opt_state, "time", filtering=of_one) == time


@every_wrapper
@pytest.mark.parametrize("value", [6.0, jnp.float32(6.0)], ids=["a number", "an array"])
def test_optax_sets_a_field(make, value):
    """κ = 6 in place of 2 is a Γ three times as large; the next step is that of the transformation's own κ."""
    at = steps(make())
    new = optax.tree.set(at[1], ours, kappa=value)
    chex.assert_trees_all_close(pm.gamma(new), jax.tree.map(lambda x: 3 * x, pm.gamma(at[1])), rtol=1e-6)
    assert jax.tree.structure(new) == jax.tree.structure(at[1])
    chex.assert_trees_all_equal(steps(make(), (at[0], new), 1), steps(make(), at, 1))


def test_any_number_may_be_set():
    opt_state = optax.tree.set(core().init(params()), count=7, time=0.5, strength=2.0)
    _, after = core().update(params(), opt_state, params())
    assert (after.count, after.time, after.strength) == (8, 0.75, 1)
    assert pm.sparsity_summary(opt_state)[1].weights == 0


RELATED = {
    "linbreg": (lambda: pm.linbreg(ALPHA, KAPPA, LASSO), KAPPA, 1),
    "adabreg": (lambda: pm.adabreg(ALPHA, KAPPA, LASSO), KAPPA, 1),
    "rda": (lambda: pm.rda(ALPHA, LASSO), 1, 3 * ALPHA),
    "prox_sgd": (lambda: pm.prox_sgd(ALPHA, LASSO), 1, ALPHA),
}


@pytest.mark.parametrize(("make", "kappa", "strength"), RELATED.values(), ids=RELATED)
def test_in_the_related_methods_a_field_means_the_same(make, kappa, strength):
    """κ is κ, T the strength, and W = κ·Prox_{TΩ}(V)."""
    weights, opt_state = steps(make())
    own = optax.tree.get(opt_state, "SplitLBIState")
    assert (own.count, own.time, own.kappa, own.strength) == (3, 3 * ALPHA, kappa, strength)
    at_strength = dataclasses.replace(LASSO, strength=0.3 * strength)
    np.testing.assert_allclose(weights["kernel"], kappa * at_strength.prox(own.dual["kernel"]), rtol=1e-6)


def test_under_a_sparsity_v_is_v_and_kappa_is_kappa():
    """The first step from Γ = 0 is V = αW/ν whatever the strength, and the strength is the largest |V|/λ but one."""
    _, opt_state = steps(core(sparsity=0.6), count=1)
    v = ALPHA * PARAMS["kernel"] / NU
    np.testing.assert_allclose(opt_state.dual["kernel"], v, rtol=1e-6)
    assert (opt_state.kappa, opt_state.time) == (KAPPA, ALPHA)
    assert opt_state.strength == pytest.approx(ALPHA / NU / 0.3, rel=2e-5)
    gamma = KAPPA * np.sign(v) * np.maximum(np.abs(v) - 0.3 * float(opt_state.strength), 0)
    np.testing.assert_allclose(pm.gamma(opt_state)["kernel"], gamma, rtol=1e-5, atol=1e-6)
    assert np.count_nonzero(gamma) == 1


STATES = {
    **WRAPPERS,
    "under a sparsity": lambda: pm.record_path(core(sparsity=0.6)),
    "linbreg": RELATED["linbreg"][0],
    "rda": RELATED["rda"][0],
    "a baseline": lambda: baselines.iterative_hard_thresholding(optax.adam(0.1), 0.5),
}
every_state = pytest.mark.parametrize("make", STATES.values(), ids=STATES)


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    chex.assert_trees_all_equal(one, other)
    assert jax.tree.map(jnp.result_type, one) == jax.tree.map(jnp.result_type, other)


@every_state
def test_a_train_state_goes_through_bytes_by_flax_and_on(make):
    def fresh(weights):
        return TrainState.create(apply_fn=None, params=weights, tx=tx)

    tx = make()
    trained = fresh(params())
    for _ in range(2):
        trained = trained.apply_gradients(grads=params())
    stored = flax.serialization.to_bytes(trained)
    restored = flax.serialization.from_bytes(fresh(jax.tree.map(jnp.zeros_like, params())), stored)
    assert_same(restored, trained)
    of_dict = flax.serialization.from_state_dict(fresh(params()), flax.serialization.to_state_dict(trained))
    assert_same(of_dict, trained)
    assert_same(restored.apply_gradients(grads=params()).params, trained.apply_gradients(grads=params()).params)


@pytest.mark.filterwarnings("ignore:Sharding info not provided when restoring:UserWarning")  # older versions of Orbax
@pytest.mark.parametrize("make", [STATES["record_path"], STATES["keep_support"], STATES["rda"], STATES["a baseline"]])
def test_orbax_restores_with_a_target_and_gives_the_fields_by_name_without(tmp_path, make):
    _, opt_state = steps(make())
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", opt_state)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "state", jax.eval_shape(make().init, params()))
        plain = checkpointer.restore(tmp_path / "state")
    assert_same(restored, opt_state)
    name = "dual" if optax.tree.get_all_with_path(opt_state, "dual") else "masks"
    chex.assert_trees_all_equal(optax.tree.get(plain, name), optax.tree.get(opt_state, name))
    if name == "dual":
        with pytest.raises(ValueError, match=r"restored without a target.* jax\.eval_shape\(tx\.init, params\)"):
            pm.gamma(plain)


@every_state
def test_the_state_can_be_planned_mapped_and_donated(make):
    tx = make()
    state = tx.init(params())
    planned = jax.eval_shape(tx.init, params())
    assert jax.tree.map(jax.typeof, planned) == jax.tree.map(jax.typeof, state)
    marked = optax.tree.map_params(tx, lambda _: "of a parameter", state, transform_non_params=lambda _: "other")
    found = [value["kernel"] for _, value in optax.tree.get_all_with_path(marked, "dual")]
    assert found == ["of a parameter"] * len(found)
    assert all(value == "other" for _, value in optax.tree.get_all_with_path(marked, "kappa"))

    update = jax.jit(tx.update, donate_argnums=1, keep_unused=True)
    for _ in range(2):
        given = state
        _, state = update(params(), state, params())  # "donated buffers were not usable" is an error
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given))


@dataclasses.dataclass(frozen=True)
class ElasticNet:
    """A user's penalty: a lasso beside a ridge."""

    strength: float = 1.0

    def prox(self, v):
        return pm.Lasso(self.strength).prox(v) / 2

    def value(self, x):
        return self.strength * jnp.sum(jnp.abs(x)) + jnp.sum(jnp.square(x)) / 2

    def group_norms(self, x):
        return jnp.abs(x)

    def check(self, shape):
        pass


@pytest.mark.parametrize("penalty", [None, LASSO, pm.Rules([("kernel", LASSO)]), ElasticNet(0.5)], ids=repr)
def test_the_penalty_is_a_part_of_the_trees_structure(penalty):
    state, same = (core(penalty=copy.copy(penalty)).init(params()) for _ in range(2))
    other = core(penalty=pm.Lasso(7.0)).init(params())
    assert jax.tree.structure(state) == jax.tree.structure(same) != jax.tree.structure(other)
    for back in (jax.tree.map(lambda x: x, state), copy.deepcopy(state), pickle.loads(pickle.dumps(state))):
        assert back.penalty == penalty
        assert jax.tree.structure(back) == jax.tree.structure(state)
    assert jax.tree.leaves(static(penalty)) == []
    assert repr(penalty) in repr(state)
    assert split_lbi_states((optax.EmptyState(), [state]))[0].penalty == penalty
