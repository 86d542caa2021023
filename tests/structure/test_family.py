"""A family: compact models of several sizes, each inside the next, that one training can train together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import parsimony as pm
from helpers.architectures import built, error, flat
from parsimony.structure import choose, compact, count, family

BUDGETS = (0.25, 0.7, 0.45)


def normalised(params, x):
    """A layer of eight units whose sums are divided by a statistic of theirs, and a head."""
    return jax.nn.relu(x @ params["w"] / params["scale"][None]) @ params["head"]


def plain(params, x):
    """The same without the statistic."""
    return jax.nn.relu(x @ params["w"]) @ params["head"]


def plain_units():
    return pm.structure.find_units(plain, {"w": WEIGHTS["w"], "head": WEIGHTS["head"]}, X[:1])


KEYS = jax.random.split(jax.random.key(0), 3)
X = jax.random.normal(KEYS[0], (32, 4))
WEIGHTS = {"w": jax.random.normal(KEYS[1], (4, 8)), "head": jax.random.normal(KEYS[2], (8, 3))}


def with_statistics(params):
    """The mean magnitude of each unit over the data; of a unit at zero 1."""
    scale = jnp.abs(X @ params["w"]).mean(0)
    return {**params, "scale": jnp.where(scale == 0, 1.0, scale)}


@pytest.mark.parametrize(("name", "target"), [("lenet", "macs"), ("resnet", "bytes"), ("gpt", "parameters")])
def test_each_member_is_compact_fits_its_budget_and_lies_inside_the_one_before(name, target):
    fn, params, args, units = built(name)
    made = family(units, params, budgets=BUDGETS, target=target, order="magnitude")
    assert made.budgets == (0.7, 0.45, 0.25)
    whole = getattr(count(fn, params, *args), target)
    before = {unit_set.name: np.ones(unit_set.size, bool) for unit_set in units.sets.values()}
    for budget, member, part in zip(made.budgets, made.members, made.cut(made.params), strict=True):
        assert getattr(count(member.fn, member.params, *args), target) <= budget * whole
        keep = choose(units, params, at_most=budget, target=target, order="magnitude")
        jax.tree.map(np.testing.assert_array_equal, member.params, compact(units, keep, params).params)
        jax.tree.map(np.testing.assert_array_equal, member.params, part)
        now = before | member.keep
        assert all((now[key] <= before[key]).all() for key in before)
        assert sum(map(np.sum, now.values())) < sum(map(np.sum, before.values()))
        before = now
    smallest = made.members[-1]
    whole, narrow = jax.jit(fn)(units.zero(smallest.keep, params), *args), jax.jit(smallest.fn)(smallest.params, *args)
    assert error(narrow, whole) < 1e-5


def test_the_gradient_of_a_shared_weight_is_the_sum_over_the_members_that_have_it():
    params = {"w": WEIGHTS["w"], "head": WEIGHTS["head"]}
    made = family(plain_units(), params, budgets=(7, 4, 2), target="units", order="magnitude")
    squares = lambda part: jnp.mean(jnp.square(plain(part, X)))
    gradient = jax.jit(jax.grad(lambda shared: sum(map(squares, made.cut(shared)))))(made.params)
    # That of the whole arrays without a member's units, of all members, cut as the largest member is.
    units, largest = made.members[0].units, made.members[0].keep
    without = lambda params: sum(squares(units.zero(member.keep, params)) for member in made.members)
    expected = compact(units, largest, jax.grad(without)(params)).params
    assert error(gradient, expected) < 1e-5


def test_statistics_are_those_of_each_members_weights_before_and_after_a_training():
    params = with_statistics(WEIGHTS)
    units = pm.structure.find_units(normalised, params, X[:1])
    made = family(units, params, budgets=(6, 3), target="units", order={"w": np.arange(8)}, recalibrate=with_statistics)
    assert made.unshared == {"scale"}
    step = jax.jit(lambda shared: {**shared, "w": 2 * shared["w"]}, donate_argnums=0)
    tuned = step(made.params)  # the family outlives that
    for one, weights in ((made, made.params), (made.with_params(tuned), tuned)):
        for member, units_left in zip(one.members, (6, 3), strict=True):
            np.testing.assert_array_equal(member.params["w"], weights["w"][:, :units_left])
            expected = jnp.abs(X @ member.params["w"]).mean(0)
            np.testing.assert_allclose(member.params["scale"], expected, rtol=1e-6)
    assert made.with_params(tuned).members[0].opt_state is None
    # In a training a statistic is the member's, whatever the shared tree has there.
    broken = {**made.params, "scale": jnp.full(6, jnp.nan)}
    assert all(np.isfinite(flat(part)).all() for part in made.cut(broken))


def test_the_state_of_a_path_orders_the_members_and_follows_each():
    params = {"w": WEIGHTS["w"], "head": WEIGHTS["head"]}
    penalty = pm.structure.unit_penalty(plain_units(), 0.01)
    tx = pm.record_path(pm.split_lbi(0.1, nu=1.0, penalty=penalty))
    updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    params = jax.tree.map(jnp.add, params, updates)
    made = family(plain_units(), params, state, budgets=(6, 3), target="units")
    norms = np.asarray(pm.group_norms(state)["w"])
    for member, number in zip(made.members, (6, 3), strict=True):
        assert set(np.flatnonzero(member.keep["w"])) == set(np.argsort(-norms)[:number])
        assert pm.gamma(member.opt_state)["w"].shape == (4, number)


@pytest.mark.parametrize(
    ("options", "error_type", "message"),
    [
        ({"budgets": 0.5}, TypeError, r"budgets=0.5: expected several numbers, such as budgets=\(0.5, 0.25, 0.1\)"),
        ({"budgets": ()}, ValueError, r"budgets: expected at least one"),
        ({"budgets": (0.5, "a")}, TypeError, r"budgets\[1\]='a': expected a share in \(0, 1\)"),
        ({"budgets": (0.5, -1)}, ValueError, r"budgets, -1: at_most=-1: expected a share"),
        ({"budgets": (0.5, 3)}, ValueError, r"budgets, 3: at_most=3: the least that this order can leave is 7"),
        ({"budgets": (0.5, 0.51)}, ValueError, r"budgets: 0.5.* and 0.5.* of the macs lead to the same model"),
        ({"budgets": (0.5,), "target": "flops"}, ValueError, r"target='flops': expected one of .*bytes"),
        ({"budgets": (0.5,), "order": "entry"}, ValueError, r"order='entry' needs the opt_state"),
        ({"budgets": (0.5,), "sparsity": 0.5}, ValueError, r"sparsity=0.5, at_most=0.5: expected one of the two"),
        ({"budgets": (0.5,), "floors": 0}, TypeError, r"unexpected keyword argument 'floors'"),
        ({"budgets": (0.5,), "recalibrate": 3}, TypeError, r"recalibrate=3: expected a function"),
        ({"budgets": (0.5,), "recalibrate": lambda p: {}}, ValueError, r"recalibrate and params do not match"),
    ],
)
def test_what_makes_no_family_is_named(options, error_type, message):
    params = {"w": WEIGHTS["w"], "head": WEIGHTS["head"]}
    with pytest.raises(error_type, match=message):
        family(plain_units(), params, **{"order": "magnitude", **options})
