"""Growth, the inverse of removal: the same outputs from a wider model, everything that was there bit for bit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import parsimony as pm
from helpers.architectures import ARCHITECTURES, QUICK, built, error
from helpers.cases import mostly
from parsimony._tree import named_leaves
from parsimony.structure import compact, find_units, grow, next_widths, rank_units, unit_penalty, used_units
from parsimony.structure._surgery.grow import outside_span

KEY = jax.random.key(0)
NAMES = sorted(ARCHITECTURES)


@functools.cache
def outputs(name):
    fn, params, args, _ = built(name)
    return jax.jit(fn)(params, *args)


def random_widths(units, seed):
    rng = np.random.default_rng(seed)
    several = [own for own in units.sets.values() if own.size > 1]  # shuffled groups are sets of one, and do not grow
    grown = [own for own in several if seed == 0 or rng.random() < 0.5] or several[:1]
    return {own.name: own.size + int(rng.integers(1, 4)) for own in grown}


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        pytest.param(name, seed, marks=() if name in QUICK else pytest.mark.slow)
        for seed, names in ((0, NAMES), (1, NAMES[::4]))  # all sets, and about half of them
        for name in names
    ],
)
def test_the_wider_model_has_the_same_outputs(name, seed):
    _, params, args, units = built(name)
    widths = random_widths(units, seed)
    wider = grow(units, widths, params, key=KEY)
    assert sum(np.size(x) for x in jax.tree.leaves(wider.params)) > sum(np.size(x) for x in jax.tree.leaves(params))
    assert error(jax.jit(wider.fn)(wider.params, *args), outputs(name)) < 1e-5


@pytest.mark.parametrize(
    "name", mostly(["lenet", "resnet", "densenet", "mobilenet_v2", "vit", "plain_lstm"], ["lenet"])
)
def test_growth_and_removal_undo_each_other_bit_for_bit(name):
    """Without the new units the parameters are those from before, and so is the state of the optimizer."""
    _, params, args, units = built(name)
    tx = pm.record_path(pm.split_lbi(0.1, momentum=0.9))
    state = jax.tree.map(lambda x: x + jnp.ones((), x.dtype), tx.init(params))
    widths = {own.name: own.size + 2 for own in units.sets.values()}
    wider = grow(units, widths, params, state, key=KEY)
    assert jax.tree.structure(wider.opt_state) == jax.tree.structure(state)
    again = find_units(wider.fn, wider.params, *args)
    assert {own.name: own.size for own in again.sets.values()} == widths
    # The copies of the last unit follow it: they are the last ones of each set.
    keep = {own.name: np.arange(own.size) < own.size - 2 for own in again.sets.values()}
    back = compact(again, keep, wider.params, wider.opt_state)
    for one, other in zip(
        jax.tree.leaves((back.params, back.opt_state)), jax.tree.leaves((params, state)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def grown_lenet(tx=None, given=None):
    _, params, args, units = built("lenet")
    state = None if tx is None else tx.init(params)
    return grow(units, {"conv1": 9, "conv3": 14}, params, state, key=KEY, tx=given), params, args


def test_new_filters_lie_outside_the_span_of_the_old_ones():
    wider, params, _ = grown_lenet()
    old = np.asarray(params["conv3"]["kernel"]).reshape(-1, 10).T  # on the channels that there were
    new = np.asarray(wider.params["conv3"]["kernel"]).reshape(-1, 14).T[10:]
    basis, _ = np.linalg.qr(old.T)
    assert np.linalg.norm(new @ basis) ** 2 < 1e-10 * np.linalg.norm(new) ** 2
    np.testing.assert_allclose(
        np.linalg.norm(new, axis=1), np.sqrt(np.mean(np.linalg.norm(old, axis=1) ** 2)), rtol=1e-5
    )
    gram = new @ new.T
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-5 * gram.max())


@pytest.mark.parametrize(("old", "count"), [(3, 2), (3, 9), (8, 2), (12, 3)])
def test_as_far_as_there_is_room(old, count):
    rows = jax.random.normal(jax.random.key(1), (old, 8))
    fresh = outside_span(KEY, rows, count)
    assert bool(jnp.isfinite(fresh).all())
    room = max(0, min(count, 8 - old))
    np.testing.assert_allclose(fresh[:room] @ rows.T, 0, atol=1e-5)
    np.testing.assert_allclose(jnp.linalg.norm(fresh, axis=1), jnp.sqrt(jnp.mean(jnp.sum(rows**2, 1))), rtol=1e-5)


def test_new_units_are_read_by_zeros_and_normalised_neutrally():
    _, params, _, units = built("vgg")
    wider = grow(units, {"params/Conv_0": 8}, params, key=KEY).params
    assert not wider["params"]["Conv_1"]["kernel"][:, :, 6:].any()
    norm, statistics = wider["params"]["BatchNorm_0"], wider["batch_stats"]["BatchNorm_0"]
    assert norm["scale"][6:].tolist() == statistics["var"][6:].tolist() == [1, 1]
    assert norm["bias"][6:].tolist() == statistics["mean"][6:].tolist() == [0, 0]
    assert wider["params"]["Conv_0"]["kernel"][..., 6:].all()


def test_the_units_that_are_added_are_those_that_lower_the_loss_most():
    """They are read by zeros, and what reads them has a larger gradient than without a choice."""
    rng = np.random.default_rng(0)
    shapes = {"w1": (12, 4), "w2": (4, 4), "w3": (4, 3)}
    params = {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}
    x, y = (jnp.asarray(rng.normal(size=(64, n)), jnp.float32) for n in (12, 3))
    fn = lambda params, x: jax.nn.relu(jax.nn.relu(x @ params["w1"]) @ params["w2"]) @ params["w3"]
    gradient = lambda fn, params: jax.jit(jax.grad(lambda params: jnp.mean(jnp.square(fn(params, x) - y))))(params)
    units = find_units(fn, params, x)
    squares = {}
    for candidates in (1, 16):
        wider = grow(units, {"w1": 6, "w2": 7}, params, key=KEY, gradient=gradient, candidates=candidates).params
        np.testing.assert_allclose(fn(wider, x), fn(params, x), atol=1e-5)
        assert not wider["w2"][4:].any()
        assert not wider["w3"][4:].any()
        grads = gradient(fn, wider)
        squares[candidates] = [float(jnp.sum(jnp.square(grads[name][4:]))) for name in ("w2", "w3")]
        if candidates == 1:  # nothing to choose from: the units that there are without a gradient, in some order
            plain = grow(units, {"w1": 6, "w2": 7}, params, key=KEY).params
            np.testing.assert_array_equal(np.sort(wider["w1"]), np.sort(plain["w1"]))
    assert all(many > 1.1 * few for few, many in zip(*squares.values(), strict=True))
    with pytest.raises(ValueError, match="gradient: expected a tree like params"):
        grow(units, {"w1": 6}, params, key=KEY, gradient=lambda fn, params: params["w1"])
    with pytest.raises(ValueError, match="candidates=0: expected the number of candidates"):
        grow(units, {"w1": 6}, params, key=KEY, gradient=gradient, candidates=0)


@pytest.mark.parametrize("name", mostly(["lenet", "resnet", "vit"], ["lenet"]))
def test_new_units_learn(name):
    """Nothing is stuck at zero: three steps of descent move new units of every set."""
    _, params, args, units = built(name)
    wider = grow(units, {own.name: own.size + 2 for own in units.sets.values()}, params, key=KEY)
    loss = lambda params: jnp.mean(jnp.square(wider.fn(params, *args) - 1))
    trained = wider.params
    gradient = jax.jit(jax.grad(loss))
    for _ in range(3):
        trained = jax.tree.map(lambda p, g: p - 1e-3 * g, trained, gradient(trained))
    assert loss(trained) < loss(wider.params)
    again = find_units(wider.fn, wider.params, *args)
    moved = dict(named_leaves(jax.tree.map(lambda a, b: np.asarray(a != b), trained, wider.params))[0])
    for own in again.sets.values():  # a rectified unit may be dead on two examples; of a set's two one is not
        assert any(
            np.moveaxis(moved[parameter], axis, 0)[index >= own.size - 2].any()
            for parameter, axes in own.members.items()
            for axis, index in axes.items()
        ), own.name


def test_new_entries_of_the_optimizer_start_as_a_fresh_init_would():
    tx = optax.adagrad(0.1, initial_accumulator_value=0.3)
    wider, *_ = grown_lenet(tx, tx)
    accumulator = wider.opt_state[0].sum_of_squares["conv3"]["kernel"]
    assert accumulator.shape == (3, 3, 8, 14)
    np.testing.assert_allclose(accumulator, 0.3)
    tx = pm.record_path(pm.split_lbi(0.1))
    wider, *_ = grown_lenet(tx)
    assert (pm.entry_steps(wider.opt_state)["conv3"]["kernel"] == pm.NEVER).all()
    assert not pm.gamma(wider.opt_state)["conv1"]["kernel"].any()
    wider, *_ = grown_lenet(pm.keep_support(optax.sgd(0.1), jax.tree.map(lambda w: w == w, built("lenet")[1])))
    assert wider.opt_state.masks["conv3"]["kernel"].all()


def test_a_penalty_over_units_grows_with_them():
    _, params, args, units = built("resnet")
    tx = pm.split_lbi(0.1, penalty=unit_penalty(units, 0.3))
    names = list(units.sets)
    wider = grow(units, {names[0]: 10, names[1]: 9}, params, tx.init(params), key=KEY)
    again = unit_penalty(find_units(wider.fn, wider.params, *args), 0.3)
    assert wider.opt_state[-1].penalty == again
    np.testing.assert_allclose(
        wider.opt_state[-1].penalty.group_norms(wider.params), again.group_norms(wider.params), rtol=1e-6
    )


def read_by(norms):
    """A network of one hidden layer whose units are read by weights of these norms."""
    params = {"w1": jnp.ones((4, len(norms))), "w2": jnp.asarray(norms)[:, None] * jnp.array([[0.6, 0.8]])}
    fn = lambda params, x: jax.nn.relu(x @ params["w1"]) @ params["w2"]
    return find_units(fn, params, jnp.ones((2, 4))), params


def test_a_unit_is_used_when_it_is_read_as_the_others_are():
    units, params = read_by([1.0, 0.9, 0.25, 0.15, 0.0])
    assert used_units(units, params)["w1"].tolist() == [True, True, True, False, False]
    larger = jax.tree.map(lambda w: 100 * w, params)  # neither the scale of the layer nor that of the one before counts
    np.testing.assert_array_equal(used_units(units, larger)["w1"], used_units(units, params)["w1"])
    assert used_units(units, params, least=0.5)["w1"].sum() == 2
    with pytest.raises(ValueError, match=r"least=0.0: expected a share of the norm"):
        used_units(units, params, least=0.0)
    _, params, _, units = built("resnet")  # of a stream all readers count together
    stream = next(own for own in units.sets.values() if len(own.readers) > 1)
    faded = {name: np.ones(unit_set.size) for name, unit_set in units.sets.items()}
    faded[stream.name][-1] = 0
    silent = dict(named_leaves(params)[0])
    for parameter, axis in stream.readers:
        factor = faded[stream.name].reshape([-1 if a == axis else 1 for a in range(silent[parameter].ndim)])
        silent[parameter] = silent[parameter] * factor
    silent = jax.tree.unflatten(jax.tree.structure(params), list(silent.values()))
    assert used_units(units, silent)[stream.name].tolist() == faded[stream.name].astype(bool).tolist()


def normalised(h, scale):
    return scale[None] * (h - h.mean(0, keepdims=True)) / jnp.sqrt(h.var(0, keepdims=True) + 1e-5)


@pytest.mark.parametrize("with_normalisation", [False, True])
def test_what_the_loss_does_not_hold_fades_and_what_it_holds_stays(with_normalisation):
    """Eight units learn from a teacher of three, twice along a path on what reads them; one may be learnt doubly."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(512, 6)), jnp.float32)
    w1, w2 = np.linalg.qr(rng.normal(size=(6, 6)))[0][:, :3], np.linalg.qr(rng.normal(size=(3, 3)))[0]
    y = jnp.asarray(np.maximum(x @ w1, 0) @ w2, jnp.float32)
    params = {"w1": jnp.asarray(rng.normal(size=(6, 8)) / 2, jnp.float32), "scale": jnp.ones(8), "bias": jnp.zeros(8)}
    params |= {"w2": jnp.asarray(rng.normal(size=(8, 3)) / 3, jnp.float32), "out": jnp.zeros(3)}

    def fn(params, x):
        h = x @ params["w1"]
        h = normalised(h, params["scale"]) if with_normalisation else h
        return jax.nn.relu(h + params["bias"][None]) @ params["w2"] + params["out"][None]

    loss = lambda params: jnp.mean(jnp.square(fn(params, x) - y))
    units = find_units(fn, params, x[:2])
    penalty = unit_penalty(units, of="readers")
    assert [part.name for part in penalty.slices] == ["w2"]
    alpha = optax.cosine_decay_schedule(0.1, 800, 0.02)
    pace = pm.pace(alpha, 800, 0.0, open_by=0.8, pull=4.0, finish=False)
    tx = pm.split_lbi(alpha, penalty=penalty, momentum=0.9, **pace)

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    path = jax.jit(lambda params: jax.lax.scan(step, (params, tx.init(params)), length=800)[0])
    for _ in range(2):
        params, state = path(params)
    used = used_units(units, params)["w1"]
    assert loss(params) < 0.02 * jnp.var(y)
    assert used.sum() == 3
    places = rank_units(units, params, state)["w1"]  # V says the same: what is used entered first
    assert places[used].max() < places[~used].min()


def test_the_rule_of_growth():
    _, _, _, units = built("lenet")
    full = dict.fromkeys(units.sets, 1.0)
    assert next_widths(units, full, step=2, ratio=0.5) == {"conv1": 9, "conv2": 12, "conv3": 15, "dense1": 18}
    assert next_widths(units, full, step=2, ratio=0.0, round_to=8) == {
        "conv1": 8,
        "conv2": 16,
        "conv3": 16,
        "dense1": 16,
    }
    assert next_widths(units, full | {"conv2": 0.7}, caps=[("conv1", 7), ("dense", 12)]) == {"conv1": 7, "conv3": 15}
    assert next_widths(units, dict.fromkeys(units.sets, 0.5), tau=[("conv3", 0.4), ("", 0.9)]) == {"conv3": 15}
    assert next_widths(units, dict.fromkeys(units.sets, 0.0)) == {}


BAD = {
    "below": (
        {"conv1": 4},
        ValueError,
        r"widths\['conv1'\] = 4 is below the present 6 units; to remove units use compact",
    ),
    "unknown": ({"conv9": 9}, ValueError, r"unknown set 'conv9'; did you mean 'conv"),
    "no int": ({"conv1": 7.5}, TypeError, r"widths\['conv1'\]: expected an int, got 7.5"),
    "no dict": ([9], TypeError, r"expected a dict"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_widths_are_named(case):
    _, params, _, units = built("lenet")
    widths, kind, message = BAD[case]
    with pytest.raises(kind, match=message):
        grow(units, widths, params, key=KEY)


def test_what_cannot_grow_says_why():
    _, params, _, units = built("shufflenet")
    with pytest.raises(ValueError, match=r"(?s)cannot have .*folds into each other"):
        grow(units, {"params/Conv_0.2": 3}, params, key=KEY)
    fn = lambda params, x: jax.nn.softmax(x @ params["w1"]) @ params["w2"]
    params = {"w1": jnp.ones((4, 6)), "w2": jnp.ones((6, 3))}
    with pytest.raises(ValueError, match=r"'w1' cannot grow without changing the outputs: reduce_max"):
        grow(find_units(fn, params, jnp.ones((2, 4))), {"w1": 8}, params, key=KEY)
    _, params, _, units = built("lenet")
    without = pm.structure.Units.from_json(units.to_json())
    with pytest.raises(ValueError, match="grow needs the function"):
        grow(without, {"conv1": 8}, params, key=KEY)
    with pytest.raises(ValueError, match=r"tau=1.5: expected a share"):
        next_widths(units, {}, tau=1.5)
    with pytest.raises(ValueError, match=r"caps: pattern 'conv9' matches no"):
        next_widths(units, {}, caps=[("conv9", 3)])


@pytest.mark.parametrize("name", mostly(["lenet", "resnet", "mobilenet_v2", "vit"], ["lenet"]))
def test_the_cost_of_other_widths_is_known_without_making_them(name):
    """Wider and narrower, against the arrays that `grow` and `compact` make."""
    _, params, args, units = built(name)
    wider = random_widths(units, 1)
    made = grow(units, wider, params, key=KEY)
    assert pm.structure.count_at(units, wider, params) == pm.structure.count(made.fn, made.params, *args)
    narrower = {own.name: own.size - 1 for own in units.sets.values() if own.size > 1 and not own.reduced}
    keep = {own: np.arange(units.sets[own].size) < width for own, width in narrower.items()}
    made = compact(units, keep, params)
    assert pm.structure.count_at(units, narrower, params) == pm.structure.count(made.fn, made.params, *args)


def test_the_cost_of_impossible_widths_is_rejected():
    _, params, _, units = built("lenet")
    with pytest.raises(ValueError, match="expected at least 1 unit"):
        pm.structure.count_at(units, {"conv1": 0}, params)
    with pytest.raises(ValueError, match="did you mean 'conv"):
        pm.structure.count_at(units, {"conv": 3}, params)
