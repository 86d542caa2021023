"""The whole state of an NNX model as parameters: random keys and counters, as of Dropout, lie among the weights."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import parsimony as pm
from helpers.architectures import error
from parsimony.structure import choose, compact, count, export, find_units, grow, load_compact
from parsimony.structure import load_opt_state as load_state


class Dropped(nnx.Module):
    def __init__(self, rngs):
        self.first, self.norm = nnx.Linear(4, 8, rngs=rngs), nnx.BatchNorm(8, rngs=rngs)
        self.dropout, self.head = nnx.Dropout(0.5, rngs=rngs), nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(self.dropout(nnx.relu(self.norm(self.first(x)))))


class Recurrent(nnx.Module):
    def __init__(self, rngs):
        self.rnn = nnx.RNN(nnx.GRUCell(4, 8, rngs=rngs), rngs=rngs)
        self.head = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(self.rnn(x)[:, -1])


MODELS = {"dropout": (Dropped, (2, 4)), "rnn": (Recurrent, (2, 5, 4))}


def whole(name):
    """(fn, params, x) as the manual of NNX has it: every variable of the model is a parameter."""
    kind, shape = MODELS[name]
    model = kind(nnx.Rngs(0))
    model.eval()
    graphdef, state = nnx.split(model)
    x = jax.random.normal(jax.random.key(1), shape)
    return lambda params, x: nnx.merge(graphdef, nnx.State(params))(x), nnx.to_pure_dict(state), x


def is_key(leaf):
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


@pytest.mark.parametrize("name", MODELS)
def test_units_are_counted_chosen_removed_and_grown_beside_them(name):
    fn, params, x = whole(name)
    assert any(map(is_key, jax.tree.leaves(params)))
    units = find_units(fn, params, x)
    numbers = sum(leaf.size for leaf in jax.tree.leaves(params) if not is_key(leaf))
    assert count(fn, params, x).parameters == numbers
    keep = choose(units, params, at_most=0.6, target="macs", order="magnitude")
    small = compact(units, keep, params)
    assert count(small.fn, small.params, x).macs <= 0.6 * count(fn, params, x).macs
    before = jax.jit(fn)
    assert error(jax.jit(small.fn)(small.params, x), before(units.zero(keep, params), x)) < 1e-5
    wider = grow(units, {own: 10 for own in units.sets}, params, key=jax.random.key(0))
    assert error(jax.jit(wider.fn)(wider.params, x), before(params, x)) < 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_they_are_exported_and_come_back(name, tmp_path):
    fn, params, x = whole(name)
    units = find_units(fn, params, x)
    tx = pm.split_lbi(0.1)
    keep = {own.name: np.arange(own.size) < 5 for own in units.sets.values()}
    small = compact(units, keep, params, tx.init(params))
    folder = export(small, tmp_path / "model", x)
    back, loaded = load_compact(folder)
    np.testing.assert_array_equal(back(loaded, x), small.fn(small.params, x))
    state = load_state(folder, tx.init(loaded))
    for one, other in ((loaded, small.params), (state, small.opt_state)):
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(*(jax.random.key_data(leaf) if is_key(leaf) else leaf for leaf in (a, b)))


@pytest.mark.parametrize("sparsity", [None, 0.5])
@pytest.mark.parametrize("make", [pm.split_lbi, pm.linbreg, pm.rda])
def test_they_are_no_weights(make, sparsity):
    """No default penalises them, at any rank; V is zero there, and steps pass them by."""
    params = {
        "kernel": jnp.ones((3, 4)), "key": jax.random.key(0), "keys": jax.random.split(jax.random.key(1), (2, 3)),
        "old": jax.random.split(jax.random.PRNGKey(0), 5), "count": jnp.uint32(7), "table": jnp.ones((4, 4), "int32"),
    }  # fmt: skip
    tx = make(0.1, penalty=pm.Lasso(), sparsity=sparsity)
    state = tx.init(params)
    rows = {row.name: row.groups for row in pm.sparsity_summary(state)}
    assert {name for name, groups in rows.items() if groups is not None} == {"kernel"}
    gradient = jax.tree.map(jnp.zeros_like, params)
    updates, after = jax.jit(tx.update)(gradient, state, params)
    assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, params)
    assert not any(np.any(own) for name, own in pm.gamma(after).items() if name != "kernel")
    assert jax.tree.structure(pm.sparse_params(params, after)) == jax.tree.structure(params)


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        (jnp.ones(3, "complex64"), "params: leaf 's' has dtype complex64, which a safetensors file cannot hold"),
        (jnp.ones(3, "float8_e4m3fnuz"), "params: leaf 's' has dtype float8_e4m3fnuz"),
    ],
    ids=["complex64", "float8_e4m3fnuz"],
)
def test_what_a_file_cannot_hold_is_named_before_it_is_written(leaf, message, tmp_path):
    params = {"w1": jnp.ones((4, 6)), "w2": jnp.ones((6, 3)), "s": leaf}
    fn = lambda p, x: jax.nn.relu(x @ p["w1"]) @ p["w2"] * p["s"].real.astype("float32")[None]
    x = jnp.ones((2, 4))
    small = compact(find_units(fn, params, x), {"w1": np.arange(6) < 2}, params)
    with pytest.raises(ValueError, match=message):
        export(small, tmp_path / "model", x)
    assert not list(tmp_path.iterdir())


def test_float8_of_a_standard_kind_comes_back(tmp_path):
    params = {"w1": jnp.ones((4, 6)), "w2": jnp.ones((6, 3)), "s": jnp.arange(6.0).astype("float8_e4m3fn")}
    fn = lambda p, x: (jax.nn.relu(x @ p["w1"]) * p["s"].astype("float32")[None]) @ p["w2"]
    x = jnp.ones((2, 4))
    small = compact(find_units(fn, params, x), {"w1": np.arange(6) % 2 == 0}, params)
    back, loaded = load_compact(export(small, tmp_path / "model", x))
    assert loaded["s"].dtype == params["s"].dtype
    np.testing.assert_array_equal(back(loaded, x), small.fn(small.params, x))


def test_an_accumulator_that_a_dtype_does_not_promote_to_is_named():
    params = {"kernel": jnp.ones((3, 4)), "scale": jnp.ones(3, "float8_e4m3fn")}
    for tx in (pm.split_lbi(0.1), pm.linbreg(0.1, penalty=pm.Lasso())):
        with pytest.raises(ValueError, match="parameter 'scale' has dtype float8_e4m3fn, which does not promote"):
            tx.init(params)


def test_rows_that_a_host_array_holds_out_of_order_are_written_in_order(tmp_path):
    """A transposed NumPy array is a view with strides of its own."""
    params = {"w1": np.arange(24.0, dtype=np.float32).reshape(6, 4).T, "w2": np.ones((6, 3), np.float32)}
    x = jnp.ones((2, 4))
    fn = lambda p, x: x @ p["w1"] @ p["w2"]
    small = compact(find_units(fn, params, x), {}, params, optax.EmptyState())
    back, loaded = load_compact(export(small, tmp_path / "model", x))
    np.testing.assert_array_equal(loaded["w1"], params["w1"])
    np.testing.assert_array_equal(back(loaded, x), fn(params, x))
