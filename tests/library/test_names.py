"""A parameter's name is the path to it, one for each parameter."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import parsimony as pm


def names(params) -> list[str]:
    return [row.name for row in pm.sparsity_summary(pm.split_lbi(0.1, penalty=pm.Lasso()).init(params))]


class Attention(eqx.Module):
    query: jax.Array
    value: jax.Array
    raw_value: jax.Array


def test_a_field_called_value_belongs_to_the_name_unless_it_is_that_of_an_nnx_variable():
    params = Attention(*jnp.ones((3, 2, 2)))
    assert names({"attention": params}) == ["attention/query", "attention/value", "attention/raw_value"]
    masks = pm.select(params, pm.split_lbi(0.1).init(params), 0.5, order="magnitude", protect=["^value$"])
    assert bool(masks.value.all())
    assert not bool(masks.raw_value.all())
    state = nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.Param)  # of variables
    assert names(state) == names(nnx.to_pure_dict(state)) == ["bias", "kernel"]


def test_two_parameters_of_one_name_are_rejected_at_the_start():
    params = {"a": {"b/c": jnp.ones((2, 3))}, "a/b": {"c": jnp.ones((2, 3))}}
    with pytest.raises(ValueError, match="two parameters have the name 'a/b/c'"):
        pm.split_lbi(0.1).init(params)
    with pytest.raises(ValueError, match="two parameters have the name 'a/b/c'"):
        pm.structure.find_units(lambda p, x: x @ p["a"]["b/c"], params, jnp.ones((1, 2)))


def test_a_single_array_has_a_name_to_show():
    assert names(jnp.ones((2, 3))) == ["array"]
