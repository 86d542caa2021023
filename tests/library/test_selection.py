"""From one path to masks at any sparsity: the orders, exact counts, whole groups and single weights."""

import itertools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import parsimony as pm

SHAPES = {"conv": (3, 3, 2, 10), "dense": (8, 12), "tiles": (5, 7), "bias": (12,)}
RULES = pm.Rules([("conv", pm.GroupLasso(-1, 0.5)), ("dense", pm.Lasso(0.2)), ("tiles", pm.BlockLasso((2, 3), 0.4))])
KINDS = ["conv", "dense", "tiles"]


def draw(seed):
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in SHAPES.items()}


def recorded(steps, params=None):
    """A real state whose record is replaced by known steps of entry: {name: array}."""
    state = pm.record_path(pm.split_lbi(0.1, penalty=RULES)).init(draw(0) if params is None else params)
    (own,) = state.steps
    return state._replace(steps=({**own, **{name: jnp.asarray(x, jnp.int32) for name, x in steps.items()}},))


def random_record(seed):
    """Entries with many ties and many that never came."""
    rng = np.random.default_rng(seed)
    groups = {name: x.shape for name, x in pm.entry_steps(recorded({})).items() if x is not None}
    return {name: np.where(rng.random(shape) < 0.4, -1, rng.integers(1, 5, shape)) for name, shape in groups.items()}


def rms_of_groups(name, w):
    """By hand, as a list of slices."""
    w = np.asarray(w, np.float64)
    if name == "conv":
        return [np.sqrt(np.mean(w[..., i] ** 2)) for i in range(w.shape[-1])]
    if name == "dense":
        return list(np.abs(w).ravel())
    return [np.sqrt(np.mean(w[i : i + 2, j : j + 3] ** 2)) for i in range(0, 5, 2) for j in range(0, 7, 3)]


def test_rank_is_earliest_first_then_root_mean_square_over_the_whole_network():
    params, record = draw(1), random_record(1)
    ranks = pm.rank(params, recorded(record), "entry")
    assert ranks["bias"] is None
    rows = []
    for name in KINDS:
        for step, size, place in zip(record[name].ravel(), rms_of_groups(name, params[name]), ranks[name].ravel(),
                                     strict=True):  # fmt: skip
            rows.append((int(place), np.inf if step == -1 else step, -size))
    rows.sort()
    assert [place for place, _, _ in rows] == list(range(len(rows)))
    assert [key for _, *key in rows] == sorted(key for _, *key in rows)


def test_never_is_last_and_the_largest_of_those_that_never_came_is_the_first_of_them():
    params = {**draw(0), "conv": jnp.ones((3, 3, 2, 10)) * jnp.arange(1.0, 11).reshape(1, 1, 1, 10)}
    steps = {"conv": [7, -1, 3, -1, 7, 1, -1, 90000, 2, 3], "dense": np.full((8, 12), -1)}
    places = np.asarray(pm.rank(params, recorded(steps), "entry")["conv"])
    assert np.argsort(places).tolist() == [5, 8, 9, 2, 4, 0, 7, 6, 3, 1]


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("sparsity", [0, 0.1, 0.25, 0.5, 1 / 3, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999])
def test_counts_are_exact_where_groups_have_one_size(sparsity, scope):
    """⌊sparsity·n⌋ groups go, whatever the ties in the record; n filters, or n weights."""
    params = {name: w for name, w in draw(2).items() if name != "tiles"}
    rules = pm.Rules([("conv|dense", pm.Lasso(0.2))])
    state = pm.record_path(pm.split_lbi(0.1, penalty=rules)).init(params)  # nothing has entered: one great tie
    masks = pm.select(params, state, sparsity, scope=scope)
    sizes = [params["conv"].size, params["dense"].size] if scope == "layer" else [params["conv"].size + 96]
    removed = [int((~masks[name]).sum()) for name in ("conv", "dense")]
    removed = removed if scope == "layer" else [sum(removed)]
    assert removed == [int(Fraction(str(float(sparsity))) * size) for size in sizes]
    filters = pm.select(draw(0), recorded(random_record(3)), sparsity, protect=["dense", "tiles"])["conv"]
    assert int(filters[0, 0, 0].sum()) == 10 - int(Fraction(str(float(sparsity))) * 10)


def test_a_decimal_sparsity_is_not_rounded_down_to_one_group_less():
    """In floats 0.29·100 is 28.999…96."""
    params = {"w": jnp.ones((2, 100))}
    state = pm.record_path(pm.split_lbi(0.1, penalty=pm.GroupLasso(-1))).init(params)
    assert int(pm.select(params, state, 0.29)["w"][0].sum()) == 71


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("level", ["group", "weight"])
def test_kept_are_the_first_of_the_order_and_no_more_could_go(scope, level):
    """With groups of several sizes: those removed are the last, fit in the budget, and the next one would not."""
    params, state = draw(4), recorded(random_record(4))
    for sparsity in (0.3, 0.6, 0.85):
        own = {"scope": scope, "level": level, "order": "entry"}
        masks, ranks = pm.select(params, state, sparsity, **own), pm.rank(params, state, "entry")
        parts = [KINDS] if scope == "global" else [[name] for name in KINDS]
        for part in parts:
            weights = []  # (place of the group, −|W| or a group's constant, kept)
            for name in part:
                index = RULES.rules[KINDS.index(name)][1].group_index(SHAPES[name])
                place, size = np.ravel(ranks[name])[index], np.abs(np.asarray(params[name], np.float64))
                kept = np.asarray(masks[name])
                if level == "group":
                    for group in np.unique(index):
                        assert len(np.unique(kept[index == group])) == 1
                    weights += [(place[index == g][0], 0.0, kept[index == g][0], np.sum(index == g))
                                for g in np.unique(index)]  # fmt: skip
                else:  # ties of groups in one step are one pool of weights
                    steps = np.asarray(pm.entry_steps(state)[name]).ravel()[index]
                    key = np.where(steps == -1, 10**6, steps)
                    weights += list(zip(key.ravel(), -size.ravel(), kept.ravel(), np.ones(size.size, int),
                                        strict=True))  # fmt: skip
            weights.sort(key=lambda row: row[:2])
            kept = [row[2] for row in weights]
            assert kept == sorted(kept, reverse=True)
            total = sum(row[3] for row in weights)
            gone = sum(row[3] for row in weights if not row[2])
            budget = int(Fraction(str(sparsity)) * int(total))
            assert gone <= budget < gone + weights[sum(map(bool, kept)) - 1][3]


def test_masks_are_nested():
    params, state = draw(5), recorded(random_record(5))
    for scope in ("layer", "global"):
        densest_first = [pm.select(params, state, s, scope=scope) for s in np.linspace(0, 0.99, 34)]
        for denser, sparser in itertools.pairwise(densest_first):
            assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a | ~b).all()), denser, sparser)))
        assert all(leaf.all() for leaf in jax.tree.leaves(densest_first[0]))


def test_protected_and_unpenalised_parameters_are_kept_whole_and_not_counted():
    params, state = draw(6), recorded(random_record(6))
    masks = pm.select(params, state, 0.5, scope="global", protect=["^den", "tiles"])
    assert masks["dense"].all()
    assert masks["bias"].all()
    assert int(masks["conv"][0, 0, 0].sum()) == 5


def test_the_other_orders_read_the_end_of_the_run():
    """A V with known norms: ‖V‖ over its threshold, Γ, and W, each with its own order."""
    params = {"w": jnp.array([[4.0, 1.0, 3.0, 2.0], [4.0, 1.0, 3.0, 2.0]])}
    state = pm.inverse_scale_space(0.1, penalty=pm.GroupLasso(-1, 1.0)).init(params)
    state = state._replace(dual={"w": jnp.array([[0.1, 9.0, 2.0, 5.0], [0.0, 0.0, 0.0, 0.0]])})
    order = lambda name: np.argsort(np.asarray(pm.rank(params, state, order=name)["w"])).tolist()
    assert order("dual") == order("gamma") == [1, 3, 2, 0]
    assert order("magnitude") == [0, 2, 3, 1]
    np.testing.assert_array_equal(pm.rank(params, state)["w"], pm.rank(params, state, order="dual")["w"])
    assert pm.select(params, state, 0.75)["w"].tolist() == [[False, True, False, False]] * 2  # the default is V's
    given = {"w": jnp.array([3.0, 1.0, 4.0, 1.5])}
    assert order(given) == [1, 3, 0, 2]
    assert order(pm.rank(params, state, order="dual")) == order("dual")
    kept = pm.select(params, state, 0.75, order=given)["w"]
    assert kept.tolist() == [[False, True, False, False]] * 2


def test_v_is_measured_in_its_own_threshold():
    """Two parameters with strengths ten times apart: V twice its threshold comes before V that is just beyond it."""
    params = {"a": jnp.ones((1, 2)), "b": jnp.ones((1, 2))}
    rules = pm.Rules([("a", pm.Lasso(0.1)), ("b", pm.Lasso(1.0))])
    state = pm.inverse_scale_space(0.1, penalty=rules).init(params)
    state = state._replace(dual={"a": jnp.array([[0.2, 0.0]]), "b": jnp.array([[1.1, 0.0]])})
    ranks = pm.rank(params, state, order="dual")
    assert (int(ranks["a"][0, 0]), int(ranks["b"][0, 0])) == (0, 1)


@pytest.mark.parametrize("penalty", [pm.GroupLasso(-1, 2.0), pm.GroupLasso(-1, 0.3, "rms"), pm.BlockLasso((4, 1), 1.5),
                                     pm.SparseGroupLasso(-1, 2.0, 0.2)], ids=repr)  # fmt: skip
def test_v_is_above_one_in_the_support_and_tells_the_way_there_outside(penalty):
    """Scaling V scales its place: a group is in the support where the order's number passes 1."""
    from parsimony._ranking import layers

    params = {"w": jnp.ones((4, 30))}
    state = pm.inverse_scale_space(0.1, penalty=penalty).init(params)
    v = np.random.default_rng(0).normal(size=(4, 30)) * np.linspace(0.05, 4, 30)
    state = state._replace(dual={"w": jnp.asarray(v, jnp.float32)})
    ((layer,), _, _) = layers(params, state, "dual")
    inside = np.ravel(pm.group_norms(state)["w"]) > 0
    assert 0 < inside.sum() < 30
    if not isinstance(penalty, pm.SparseGroupLasso):  # there the threshold depends on the direction and is near
        np.testing.assert_array_equal(-layer.first > 1, inside)
        np.testing.assert_allclose(
            layer.first, -np.linalg.norm(v, axis=0) / np.abs(np.linalg.norm(v, axis=0) / layer.first)[0], rtol=1e-5
        )  # fmt: skip  (one threshold for all)
    assert len(np.unique(layer.first)) == 30


def test_masks_of_a_real_run_at_the_density_of_its_support_are_the_support():
    """The groups that entered, and no others, where none has left again."""
    params = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(6, 20)), jnp.float32)}
    tx = pm.record_path(pm.inverse_scale_space(0.05, nu=2.0, penalty=pm.Lasso(0.5)))
    state, weights = tx.init(params), params
    for _ in range(20):
        updates, state = tx.update(jax.tree.map(lambda w, w0: w - w0, weights, params), state, weights)
        weights = optax.apply_updates(weights, updates)
    support = np.asarray(pm.support(state)["w"])
    sparsity = float(1 - support.mean())
    assert 0.1 < sparsity < 0.9
    np.testing.assert_array_equal(pm.select(weights, state, round(sparsity, 6) + 1e-6)["w"], support)


def test_masks_leave_what_they_keep_and_are_placed_like_the_weights():
    params, state = draw(7), recorded(random_record(7))
    masks = pm.select(params, state, 0.5)
    sparse = pm.apply_masks(params, masks)
    for name, w in params.items():
        assert masks[name].sharding == w.sharding
        np.testing.assert_array_equal(sparse[name], np.where(masks[name], w, 0))
        assert sparse[name].dtype == w.dtype


BAD = {
    "one": (lambda p, s: pm.select(p, s, 1), ValueError, r"in \[0, 1\)"),
    "per cent": (lambda p, s: pm.select(p, s, 90), ValueError, r"for 90 % write 0.9"),
    "negative": (lambda p, s: pm.select(p, s, -0.1), ValueError, r"sparsity=-0.1"),
    "no number": (lambda p, s: pm.select(p, s, float("nan")), ValueError, r"in \[0, 1\)"),
    "a string": (lambda p, s: pm.select(p, s, "0.9"), TypeError, r"expected a number in \[0, 1\)"),
    "scope": (lambda p, s: pm.select(p, s, 0.5, scope="layers"), ValueError, "did you mean 'layer'"),
    "level": (lambda p, s: pm.select(p, s, 0.5, level="wieght"), ValueError, "did you mean 'weight'"),
    "order": (lambda p, s: pm.select(p, s, 0.5, order="magnitud"), ValueError, "did you mean 'magnitude'"),
    "pattern": (lambda p, s: pm.select(p, s, 0.5, protect=["convv"]), ValueError, "did you mean 'conv'"),
    "patterns as a string": (lambda p, s: pm.select(p, s, 0.5, protect="conv"), TypeError, r"\['conv'\]"),
    "everything protected": (lambda p, s: pm.select(p, s, 0.5, protect=["."]), ValueError, "nothing to select from"),
    "no record": (lambda p, s: pm.select(p, s.inner_state, 0.5, order="entry"), ValueError,
                  r"not recorded.*record_path"),
    "an order of other groups": (lambda p, s: pm.rank(p, s, order={"conv": jnp.ones(3)}), ValueError,
                                 r"expected the shape \(10,\) for the groups of 'conv', got \(3,\)"),
    "another network": (lambda p, s: pm.rank({**p, "conv": jnp.ones((3, 3, 2, 9))}, s), ValueError, "do not match"),
}  # fmt: skip


@pytest.mark.parametrize(("act", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_told(act, error, message):
    with pytest.raises(error, match=message):
        act(draw(0), recorded({}))


def test_directions_are_no_weights():
    params = {"w": jnp.ones((4, 4)), "v": jnp.ones((4, 4))}
    tx = pm.record_path(pm.split_lbi(0.1, penalty=pm.Rules([("w", pm.NuclearNorm()), ("v", pm.Lasso())])))
    with pytest.raises(ValueError, match=r"'w': the groups of NuclearNorm are not sets of weights"):
        pm.select(params, tx.init(params), 0.5)
    assert pm.select(params, tx.init(params), 0.5, protect=["w"])["v"].sum() == 8


@pytest.mark.parametrize("level", ["group", "weight"])
def test_a_global_order_leaves_every_layer_its_first_group(level):
    """One layer is far behind all others: without its last filter nothing would pass through."""
    spread = lambda rows, columns: jnp.tile(jnp.arange(1.0, columns + 1), (rows, 1))
    params = {"a": spread(5, 20), "b": 0.01 * spread(20, 12)}
    state = pm.split_lbi(0.1, penalty=pm.GroupLasso(-1)).init(params)
    masks = pm.select(params, state, 0.8, order="magnitude", scope="global", level=level)
    assert masks["b"].any(0).tolist() == 11 * [False] + [True]
