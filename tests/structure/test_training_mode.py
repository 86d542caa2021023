"""A model that is still in training mode is told what to do: BatchNorm and Dropout are set to inference."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import parsimony as pm
from parsimony.structure import compact, find_units

X = jnp.ones((2, 4))


class Linen(nn.Module):
    train: bool

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.relu(nn.BatchNorm(use_running_average=not self.train)(nn.Dense(8)(x))))


class Net(nnx.Module):
    def __init__(self, rngs):
        self.first, self.norm = nnx.Linear(4, 8, rngs=rngs), nnx.BatchNorm(8, rngs=rngs)
        self.dropout, self.head = nnx.Dropout(0.5, rngs=rngs), nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(self.dropout(nnx.relu(self.norm(self.first(x)))))


VARIABLES = Linen(False).init(jax.random.key(0), X)


def test_linen_that_cannot_update_its_statistics():
    with pytest.raises(ValueError, match=r"(?s)batch_stats.*BatchNorm.*model\.eval\(\).*use_running_average=True"):
        find_units(Linen(True).apply, VARIABLES, X)


def test_linen_that_returns_its_statistics():
    units = find_units(lambda v, x: Linen(True).apply(v, x, mutable=["batch_stats"]), VARIABLES, X)
    assert not units.sets
    assert "BatchNorm" in units.fixed["params/Dense_1/kernel"][1]


def test_nnx_with_a_dropout_at_work():
    model = Net(nnx.Rngs(0))

    def units():
        graphdef, state = nnx.split(model)
        return find_units(lambda p, x: nnx.merge(graphdef, nnx.State(p))(x), nnx.to_pure_dict(state), X)

    training = units()
    assert not training.sets
    assert "model.eval()" in training.fixed["first/kernel"][1]
    assert not training.unknown
    model.eval()
    assert units().sets["first"].size == 8


PARAMS = {"w1": jnp.ones((4, 6)), "w2": jnp.ones((6, 3))}


MAKES = {"split_lbi": lambda params: pm.split_lbi(0.1).init(params), "the tree itself": lambda params: params}
OTHERS = {"names": {"a": jnp.ones((4, 6)), "b": jnp.ones((6, 3))}, "one more": PARAMS | {"w3": jnp.ones(3)}}


@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize("other", OTHERS)
def test_the_state_of_another_tree_is_not_taken(make, other):
    units = find_units(lambda p, x: jax.nn.relu(x @ p["w1"]) @ p["w2"], PARAMS, X)
    with pytest.raises(ValueError, match="belongs to none of the parameters w1, w2: this is the state of another tree"):
        compact(units, {"w1": np.arange(6) < 3}, PARAMS, MAKES[make](OTHERS[other]))
