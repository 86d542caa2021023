"""Primitives one by one: eight hidden units pass through each, and are found, removed and added exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from helpers.architectures import error
from helpers.cases import mostly
from parsimony.structure import compact, count, find_units, grow


def normal(*shape):
    return jnp.asarray(np.random.default_rng(shape).normal(size=shape) / np.sqrt(shape[0]), jnp.float32)


PARAMS = {"a": normal(6, 8), "b": normal(8, 3)}
X = normal(4, 6)
GRAM = jnp.eye(4) + 0.1 * X @ X.T
ONE = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:1])
TWO = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])


def watched(h):
    jax.debug.callback(lambda v: None, h)
    jax.debug.print("{}", h.sum())
    return h


def recurrence(h):
    """h_t + h_{t−1}/2 + h_{t−2}/4 + …, by a tree of products: entries of two halves are interleaved by padding."""
    pair = lambda one, other: (one[0] * other[0], other[0] * one[1] + other[1])
    return jax.lax.associative_scan(pair, (jnp.full(h.shape, 0.5), h))[1]


def apart(h):
    """Zeros between the rows, one row cut off, and a strided slice that takes the rows again."""
    return jax.lax.pad(h, 0.0, [(1, -1, 1), (0, 0, 0)])[1::2]


def split_by(mesh, spec):
    return lambda h: jax.shard_map(jnp.tanh, mesh=mesh, in_specs=spec, out_specs=spec)(h)


THROUGH = {
    "checkpoint_name": lambda h: checkpoint_name(h, "h"),
    "sharding constraint": lambda h: jax.lax.with_sharding_constraint(h, NamedSharding(ONE, P(None, "d"))),
    "optimization barrier": jax.lax.optimization_barrier,
    "debug callback and print": watched,
    "shard_map of one device": split_by(ONE, P(None, "d")),
    "associative scan": recurrence,
    "interior and negative padding": apart,
    "approx_max_k over rows": lambda h: jax.lax.approx_max_k(h, 2, reduction_dimension=0)[0],
    "top_k over rows": lambda h: jax.lax.top_k(h.T, 2)[0].T,
    "fft over rows": lambda h: jnp.fft.irfft(jnp.fft.rfft(h, axis=0), axis=0, n=4),
    "triangular solve": lambda h: jax.scipy.linalg.solve_triangular(GRAM, h),
    "cholesky": lambda h: jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(GRAM), h),
    "solve": lambda h: jnp.linalg.solve(GRAM, h),
    "conjugate gradients": lambda h: jax.scipy.sparse.linalg.cg(lambda v: 2 * v, h)[0],
    "stack and unstack": lambda h: jnp.unstack(jnp.stack([h, jnp.tanh(h)], axis=1), axis=1)[1],
    "tile": lambda h: jnp.tile(h, (2, 1))[2:6],
    "eigh": lambda h: jnp.linalg.eigh(GRAM)[1] @ h,
    "ragged product": lambda h: jax.lax.ragged_dot(GRAM, jnp.stack([h, 2 * h]), jnp.array([1, 3])),
}


QUICK = ("checkpoint_name", "interior and negative padding", "top_k over rows")


def through(name, p, x):
    """Where the width enters: the mean square is over the eight units, and the program has to be rewritten."""
    h = x @ p["a"]
    h = h * jax.lax.rsqrt(jnp.mean(jnp.square(h), -1, keepdims=True) + 1e-6)
    return jax.nn.relu(THROUGH[name](h)) @ p["b"]


@pytest.mark.parametrize("name", mostly(THROUGH, QUICK))
def test_units_pass_through(name):
    fn = lambda p, x: through(name, p, x)
    units = find_units(fn, PARAMS, X)
    assert not units.unknown
    assert {own.name: own.size for own in units.sets.values()} == {"a": 8}
    keep = {"a": np.arange(8) % 3 != 1}
    small = compact(units, keep, PARAMS)
    assert small.route == "jaxpr"
    zeroed = units.zero(keep, PARAMS)
    whole = jax.jit(fn)
    assert error(jax.jit(small.fn)(small.params, X), whole(zeroed, X)) < 1e-5
    wider = grow(units, {"a": 10}, PARAMS, key=jax.random.key(0))
    assert error(jax.jit(wider.fn)(wider.params, X), whole(PARAMS, X)) < 1e-5
    loss = lambda fn: jax.jit(jax.grad(lambda p: jnp.sum(jnp.square(fn(p, X)))))
    assert error(loss(small.fn)(small.params), compact(units, keep, loss(fn)(zeroed)).params) < 1e-4


def test_a_rectified_unit_is_zero_in_half_precision_too():
    """Its mean over the units is exact, as the literal 0 of a relu is known in bfloat16."""
    fn = lambda p, x: jax.nn.relu(x @ p["a"]).mean(-1, keepdims=True) * (jax.nn.relu(x @ p["a"]) @ p["b"])
    params, x = jax.tree.map(lambda w: w.astype(jnp.bfloat16), (PARAMS, X))
    assert not find_units(fn, params, x).sets["a"].reduced


def test_rows_that_devices_share_leave_the_units_free_and_split_units_stay():
    data = P("d"), P(), P()
    both = lambda x, a, b: jax.nn.relu(x @ a) @ b
    fn = lambda p, x: jax.shard_map(both, mesh=TWO, in_specs=data, out_specs=P("d"))(x, p["a"], p["b"])
    units = find_units(fn, PARAMS, X)
    keep = {"a": np.arange(8) < 5}
    small = compact(units, keep, PARAMS)
    assert error(small.fn(small.params, X), fn(units.zero(keep, PARAMS), X)) < 1e-5
    assert count(fn, PARAMS, X).macs == 4 * 8 * (6 + 3)

    def tensor(p, x):
        summed = lambda x, a, b: jax.lax.psum(both(x, a, b), "d")
        split = P(), P(None, "d"), P("d")
        return jax.shard_map(summed, mesh=TWO, in_specs=split, out_specs=P())(x, p["a"], p["b"])

    units = find_units(tensor, PARAMS, X)
    assert not units.sets
    assert units.fixed["a"][1] == "an axis that shard_map splits over devices"


def test_a_constraint_that_a_narrower_axis_cannot_meet_is_left_to_the_compiler():
    halves = NamedSharding(TWO, P(None, "d"))
    fn = lambda p, x: jax.lax.with_sharding_constraint(jax.nn.relu(x @ p["a"]), halves) @ p["b"]
    units = find_units(fn, PARAMS, X)
    for left, route in ((4, "module"), (5, "jaxpr")):
        keep = {"a": np.arange(8) < left}
        small = compact(units, keep, PARAMS)
        assert small.route == route
        assert error(jax.jit(small.fn)(small.params, X), fn(units.zero(keep, PARAMS), X)) < 1e-5


@pytest.mark.parametrize(("low", "high", "interior"), [(2, 1, 0), (0, 0, 2), (-1, 2, 1), (1, -3, 1), (-2, -1, 0)])
def test_entries_that_padding_moves_apart_or_cuts_keep_their_units(low, high, interior):
    """Along the units themselves: what lies between them is nobody's."""
    size = jax.eval_shape(lambda h: jax.lax.pad(h, 0.0, [(0, 0, 0), (low, high, interior)]), jnp.ones((4, 8))).shape[1]
    params = {"a": PARAMS["a"], "b": normal(size, 3)}

    def fn(p, x):
        return jax.lax.pad(jax.nn.relu(x @ p["a"]), 0.0, [(0, 0, 0), (low, high, interior)]) @ p["b"]

    units = find_units(fn, params, X)
    none = np.full(8, -1)
    used = [np.flatnonzero(own.members.get("a", {}).get(1, none) >= 0) for own in units.sets.values()]
    assert sorted(np.concatenate(used).tolist()) == list(range(8))
    keep = {own.name: np.arange(own.size) % 2 == 0 for own in units.sets.values() if own.size > 1}
    small = compact(units, keep, params)
    assert error(jax.jit(small.fn)(small.params, X), fn(units.zero(keep, params), X)) < 1e-5


@pytest.mark.parametrize("order", [[3, 1, 0, 2, 7, 5, 4, 6], [0, 2, 4, 6], [5, 5, 1]])
def test_units_that_fixed_indices_point_at_are_found(order):
    order = np.array(order)
    params = {"a": PARAMS["a"], "b": normal(len(order), 3)}
    fn = lambda p, x: jax.nn.relu(x @ p["a"])[:, order] @ p["b"]
    units = find_units(fn, params, X)
    keep = {own.name: np.arange(own.size) > 0 for own in units.sets.values() if own.size > 1}
    small = compact(units, keep, params)
    assert small.params["a"].shape[1] < 8
    assert error(jax.jit(small.fn)(small.params, X), fn(units.zero(keep, params), X)) < 1e-5
    assert {own: members for own, members in units.fixed.items() if 1 in members} == {"b": {1: "an axis of the output"}}
