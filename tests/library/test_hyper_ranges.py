"""Numbers and schedules out of range are rejected before any step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import parsimony as pm

PARAMS = {"kernel": jnp.ones((3, 2))}
TWO = np.array([0.1, 0.2])
MAKERS = {
    "inverse_scale_space": lambda **k: pm.inverse_scale_space(**{"learning_rate": 0.1} | k),
    "split_lbi": lambda **k: pm.split_lbi(**{"learning_rate": 0.1} | k),
    "linbreg": lambda **k: pm.linbreg(**{"learning_rate": 0.1} | k),
    "adabreg": lambda **k: pm.adabreg(**{"learning_rate": 0.1} | k),
    "rda": lambda **k: pm.rda(**{"learning_rate": 0.1} | k),
    "prox_sgd": lambda **k: pm.prox_sgd(**{"learning_rate": 0.1} | k),
}
SEVERAL = [
    ("inverse_scale_space", "learning_rate"), ("inverse_scale_space", "kappa"), ("inverse_scale_space", "nu"),
    ("inverse_scale_space", "dual_learning_rate"), ("inverse_scale_space", "sparsity"), ("split_lbi", "momentum"),
    ("split_lbi", "weight_decay"), ("linbreg", "momentum"), ("adabreg", "b1"), ("adabreg", "b2"), ("adabreg", "eps"),
    ("rda", "sparsity"), ("prox_sgd", "learning_rate"),
]  # fmt: skip


@pytest.mark.parametrize(("maker", "name"), SEVERAL)
def test_several_numbers_in_the_place_of_one_are_rejected(maker, name):
    with pytest.raises(ValueError, match=rf"{name} has the shape \(2,\): expected one number; map over several by"):
        MAKERS[maker](**{name: TWO})


@pytest.mark.parametrize(
    ("name", "value"), [("b1", 1.0), ("b1", -0.1), ("b2", 1.5), ("b2", np.nan), ("eps", 0.0), ("eps", -1e-8)]
)
def test_moments_that_would_grow_without_end_are_rejected(name, value):
    with pytest.raises(ValueError, match=f"^{name}="):
        pm.adabreg(0.1, **{name: value})


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_a_schedule_that_leaves_its_range_is_rejected_at_init(maker, bad):
    falls = lambda count: jnp.where(jnp.asarray(count) < 1000, 0.1, bad)
    with pytest.raises(ValueError, match=r"^learning_rate: the schedule gives .* at step 1024; expected finite"):
        MAKERS[maker](learning_rate=falls).init(PARAMS)


@pytest.mark.parametrize("maker", MAKERS)
def test_a_negative_sparsity_is_rejected_at_init(maker):
    falls = optax.linear_schedule(0.5, -0.5, 1000)
    with pytest.raises(ValueError, match=r"^sparsity: the schedule gives -"):
        MAKERS[maker](sparsity=falls).init(PARAMS)


def test_a_warm_up_from_zero_and_a_table_are_schedules():
    table = np.linspace(0.0, 0.1, 100)
    for schedule in (optax.warmup_cosine_decay_schedule(0.0, 0.1, 10, 100), lambda count: table[int(count)]):
        pm.split_lbi(schedule).init(PARAMS)


def test_one_value_for_each_of_many_runs_is_mapped_over():
    init = lambda rate: pm.split_lbi(rate, nu=1.0).init(PARAMS)
    assert jax.vmap(init)(jnp.array([0.1, 0.2]))[-1].count.shape == (2,)
