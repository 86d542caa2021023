"""Split LBI and related methods keep Optax's contract for optimizers: Optax's own tests, and sharding tests by hand.

`optax.contrib._common_test` ships in the wheel. Each of its tests is expanded over Optax's optimizers when the
class is made; the plain body stays under `__wrapped__` and runs here over configurations of Split LBI and the others.
"""

import dataclasses
import re
import unittest

import chex
import jax
import jax.numpy as jnp
import optax
import pytest
from optax.contrib import _common_test

import parsimony as pm
from helpers.cases import in_turn, mostly


@dataclasses.dataclass(frozen=True)
class Entries(pm.Lasso):
    """A lasso of vectors and scalars too, of which Optax's targets are made: ours leave them alone, and say so."""

    def check(self, shape):
        pass


@dataclasses.dataclass(frozen=True)
class Slices(pm.GroupLasso):
    """A group lasso of them: of a vector every entry is a group."""

    def check(self, shape):
        pass


ANY = pm.Rules([("", Entries())])


def adam_then_split_lbi(learning_rate: optax.ScalarOrSchedule, nu: float = 100.0) -> optax.GradientTransformation:
    return optax.chain(optax.scale_by_adam(), pm.inverse_scale_space(learning_rate, nu=nu, penalty=ANY))


def recorded(learning_rate: optax.ScalarOrSchedule, nu: float = 100.0) -> optax.GradientTransformation:
    return pm.record_path(pm.split_lbi(learning_rate, nu=nu, momentum=0.9, penalty=ANY))


RULES = pm.Rules([("", Slices(-1, 0.1, "rms"))])
WEAK = pm.Rules([("", Entries(1e-3))])  # the contract asks for the least of the loss, the lasso is biased

# The largest curvature on the way, of Rosenbrock's function, is about 1000, so that κα must stay below 2e-3.
CONFIGURATIONS = {
    "default": (pm.split_lbi, {"learning_rate": 1e-3, "penalty": ANY}),
    "nesterov, decay, kappa": (
        pm.split_lbi,
        {"learning_rate": 2e-4, "kappa": 4.0, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4, "penalty": ANY},
    ),
    "coupling in the momentum": (pm.split_lbi, {"learning_rate": 1e-3, "inner": optax.trace(0.9), "penalty": ANY}),
    "schedule": (
        pm.split_lbi,
        {"learning_rate": optax.cosine_decay_schedule(1.5e-3, 30_000, alpha=0.1), "penalty": ANY},
    ),
    "dual rate and rules": (pm.split_lbi, {"learning_rate": 1e-3, "dual_learning_rate": 1e-2, "penalty": RULES}),
    "strong coupling, path recorded": (recorded, {"learning_rate": 1e-3, "nu": 0.1}),
    "adam before": (adam_then_split_lbi, {"learning_rate": 1e-3}),
    "path by a sparsity": (pm.inverse_scale_space, {"learning_rate": 1e-3, "sparsity": 0.5, "penalty": ANY}),
    "linbreg": (pm.linbreg, {"learning_rate": 2e-4, "kappa": 4.0, "momentum": 0.9, "nesterov": True, "penalty": ANY}),
    "adabreg": (pm.adabreg, {"learning_rate": 1e-2, "penalty": RULES}),
    "rda, sparsity": (pm.rda, {"learning_rate": optax.constant_schedule(1e-3), "sparsity": 0.0, "penalty": ANY}),
    "prox_sgd": (pm.prox_sgd, {"learning_rate": 1e-4, "penalty": WEAK, "momentum": 0.9}),
}
QUICK = ("default", "nesterov, decay, kappa", "linbreg")
every_configuration = pytest.mark.parametrize("configuration", mostly(CONFIGURATIONS, QUICK))

TARGETS = ("parabola", "rosenbrock", "matrix_parabola", "mixed_tensor_target")

DTYPES = (jnp.bfloat16, jnp.float32, jnp.float16, jnp.float64)

# Optax's tests, and what each is parameterised over besides the optimizer; the default configuration meets all of it,
# each other one the first and, in turn, one of the rest.
CONTRACT = {
    "test_optimizers_accept_extra_args": [{"wrap": False}],
    "test_optimizers": [{"target": getattr(_common_test, f"_setup_{t}"), "dtype": "float32"} for t in TARGETS],
    "test_optimizers_can_be_wrapped_in_inject_hyperparams": [{}],
    "test_preserve_dtype": [{"dtype": "bfloat16"}, {"dtype": "float32"}],
    "test_gradient_accumulation": [{"dtype": "bfloat16"}, {"dtype": "float32"}],
    "test_state_shape_dtype_shard_stability": [{"dtype": dtype} for dtype in DTYPES],
    "test_optimizers_accept_learning_rate_schedule_if_type_annotated_as_such": [{}],
}
OPTAX_TESTS = {
    re.sub(r"\d+$", "", name): getattr(_common_test.ContribTest, name).__wrapped__
    for name in dir(_common_test.ContribTest)
    if name.startswith("test_")
}


def spanning():
    for place, configuration in enumerate(CONFIGURATIONS):
        marks = () if configuration in QUICK else pytest.mark.slow
        for name, cases in CONTRACT.items():
            count = len(cases)
            met = range(count) if place == 0 else sorted({0, 1 + place % (count - 1)} if count > 1 else {0})
            for number in met:
                told = f"{configuration}-{name.removeprefix('test_')}-{number}"
                yield pytest.param(configuration, name, cases[number], id=told, marks=marks)


def test_the_whole_of_optaxs_contract_is_run():
    """A test that a new Optax adds must be entered above, not go missing."""
    assert set(CONTRACT) == set(OPTAX_TESTS)


@pytest.mark.parametrize(("configuration", "name", "rest"), [*spanning()])
def test_optaxs_contract_is_kept(monkeypatch, configuration, name, rest):
    assert_kept(monkeypatch, *CONFIGURATIONS[configuration], name, rest)


def assert_kept(monkeypatch, factory, kwargs, name, rest):
    monkeypatch.setattr(_common_test, "_get_opt_factory", lambda _: factory)
    try:
        OPTAX_TESTS[name](
            _common_test.ContribTest(),
            opt_name="split_lbi", opt_kwargs=kwargs, wrapper_name=None, wrapper_kwargs=None, **rest,
        )  # fmt: skip
    except unittest.SkipTest as skipped:  # Optax skips, for one, where an annotation has become a string
        pytest.fail(f"Optax skips this test: {skipped}")


def test_a_learning_rate_that_is_no_schedule_to_optax_fails_here_and_is_not_skipped(monkeypatch):
    """The guard above works: here the annotation is a string, as after `from __future__ import annotations`."""

    def stringly(learning_rate: "optax.ScalarOrSchedule"):
        return pm.split_lbi(learning_rate)

    with pytest.raises(pytest.fail.Exception, match="Optax skips this test"):
        assert_kept(
            monkeypatch, stringly, {"learning_rate": 1e-3},
            "test_optimizers_accept_learning_rate_schedule_if_type_annotated_as_such", {},
        )  # fmt: skip


@every_configuration
def test_the_map_over_parameters_meets_v_and_nothing_else(configuration):
    """`optax.tree.map_params` reaches what has the parameters' shape, and leaves the scalars alone."""
    factory, kwargs = CONFIGURATIONS[configuration]
    tx, params = factory(**kwargs), {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
    state = tx.init(params)
    mapped = optax.tree.map_params(tx, lambda leaf: 0 * leaf + 1, state)
    before, after = (optax.tree.get(tree, "SplitLBIState") for tree in (state, mapped))
    assert after.dual["kernel"].tolist() == [[1, 1]] * 3
    chex.assert_trees_all_equal(*(own._replace(dual=None, inner_state=None) for own in (before, after)))


@every_configuration
def test_the_state_can_be_planned_from_shapes_alone(configuration):
    """Optax's `test_init_with_abstract_input`; and the plan is what a real `init` makes."""
    factory, kwargs = CONFIGURATIONS[configuration]
    tx, shape = factory(**kwargs), jax.ShapeDtypeStruct((2, 8, 4), jnp.bfloat16)
    planned, made = tx.init(shape), tx.init(jnp.zeros(shape.shape, shape.dtype))
    assert jax.tree.map(jax.typeof, planned) == jax.tree.map(jax.typeof, made)


@pytest.mark.parametrize(
    ("configuration", "spec"),
    [
        pytest.param(*case.values, id=case.id, marks=() if case.values[0] in QUICK else pytest.mark.slow)
        for case in in_turn({name: name for name in CONFIGURATIONS}, {"columns": (None, "x"), "rows": ("x", None)})
    ],
)
def test_updates_and_state_are_sharded_as_the_parameters(configuration, spec):
    """Optax's `sharding_test` under explicit sharding: init, update, and both under jit agree in every type."""
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Explicit,))
    factory, kwargs = CONFIGURATIONS[configuration]
    tx, spec = factory(**kwargs), jax.P(*spec)
    with jax.set_mesh(mesh):
        sharding = jax.sharding.NamedSharding(mesh, spec)
        params = {
            "kernel": jnp.ones((16, 8), jnp.float16, out_sharding=sharding),
            "bias": jnp.ones((8,), jnp.float16, out_sharding=jax.sharding.NamedSharding(mesh, jax.P(spec[1]))),
        }
        initial = {"eager": tx.init(params), "jit": jax.jit(tx.init)(params)}
        assert _types(initial["eager"]) == _types(initial["jit"])
        for update in (tx.update, jax.jit(tx.update)):
            updates, state = update(params, initial["eager"], params)
            assert _types(updates) == _types(params)
            assert _types(state) == _types(initial["eager"])
            dual = optax.tree.get(state, "dual")
            for name, w in params.items():
                assert dual[name].sharding.is_equivalent_to(w.sharding, w.ndim)
                assert updates[name].sharding.is_equivalent_to(w.sharding, w.ndim)


def _types(tree):
    return jax.tree.map(jax.typeof, tree)
