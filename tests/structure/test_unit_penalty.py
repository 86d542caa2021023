"""Split LBI over whole units: a NumPy transcription, the path, selection, and exact removal of what is out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import parsimony as pm
from helpers.architectures import ARCHITECTURES
from helpers.cases import mostly
from helpers.descent import trained
from parsimony._tree import named_leaves
from parsimony.structure import compact, find_units, keep_from_masks, unit_penalty

PARAMS = {
    "conv": {"kernel": jnp.asarray(np.random.default_rng(0).normal(size=(3, 3, 2, 5)), jnp.float32)},
    "norm": {"scale": jnp.linspace(0.2, 2, 5), "shift": jnp.linspace(-1, 1, 5)},
    "head": {"kernel": jnp.asarray(np.random.default_rng(1).normal(size=(5, 3)), jnp.float32)},
}
X = jnp.asarray(np.random.default_rng(2).normal(size=(4, 6, 6, 2)), jnp.float32)


def fn(params, x):
    x = jax.lax.conv_general_dilated(
        x, params["conv"]["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    x = x * params["norm"]["scale"].reshape(1, 1, 1, -1) + params["norm"]["shift"].reshape(1, 1, 1, -1)
    return jax.nn.relu(x).mean((1, 2)) @ params["head"]["kernel"]


def loss(params):
    return jnp.mean(jnp.square(fn(params, X) - 1))


UNITS = find_units(fn, PARAMS, X)
STRONG = 3.2  # not all units enter in 60 steps
MADE = ["conv/kernel", "norm/scale", "norm/shift"]  # the head only reads


def unit_vector(tree, unit):
    """By hand: all that makes a unit, as one vector."""
    tree = dict(named_leaves(tree)[0])
    return np.concatenate([np.ravel(np.asarray(tree[name])[..., unit]) for name in MADE])


@pytest.mark.parametrize("scale", [None, "rms"])
def test_a_unit_enters_as_a_whole_when_its_norm_over_all_parameters_passes_the_threshold(scale):
    penalty = unit_penalty(UNITS, 0.7, scale)
    norms = np.array([np.linalg.norm(unit_vector(PARAMS, unit)) for unit in range(5)])
    np.testing.assert_allclose(penalty.group_norms(PARAMS), norms, rtol=1e-6)
    threshold = 0.7 * (np.sqrt(9 * 2 + 2) if scale else 1)
    np.testing.assert_allclose(penalty.value(PARAMS), threshold * norms.sum(), rtol=1e-6)
    prox = penalty.prox(PARAMS)
    for unit, norm in enumerate(norms):
        want = max(0, 1 - threshold / norm) * unit_vector(PARAMS, unit)
        np.testing.assert_allclose(unit_vector(prox, unit), want, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(prox["head"]["kernel"], PARAMS["head"]["kernel"])  # no unit of its own


def numpy_run(steps, alpha, kappa, nu, strength):
    """Split LBI unit by unit, in float64."""
    params = {name: np.asarray(leaf, np.float64) for name, leaf in named_leaves(PARAMS)[0]}
    dual = {name: np.zeros_like(params[name]) for name in MADE}
    gradient = jax.jit(jax.grad(loss))
    for _ in range(steps):
        norm = np.sqrt(sum((dual[name] ** 2).reshape(-1, 5).sum(0) for name in MADE))
        factor = np.maximum(0, 1 - strength / np.maximum(norm, 1e-30))
        gamma = {name: kappa * factor * dual[name] for name in MADE}
        tree = {"conv": {"kernel": params["conv/kernel"]}, "head": {"kernel": params["head/kernel"]},
                "norm": {"scale": params["norm/scale"], "shift": params["norm/shift"]}}  # fmt: skip
        gradients = dict(named_leaves(gradient(jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)))[0])
        for name in params:
            coupling = (params[name] - gamma[name]) / nu if name in gamma else 0
            if name in gamma:
                dual[name] = dual[name] + alpha * coupling
            params[name] = params[name] - kappa * alpha * (np.asarray(gradients[name]) + coupling)
    return params, dual


@pytest.mark.parametrize("kappa", [1.0, 3.0])
def test_the_iteration_is_the_transcription_unit_by_unit(kappa):
    tx = pm.split_lbi(0.05, kappa, 2.0, unit_penalty(UNITS, 0.8))
    params, state = trained(tx, loss, PARAMS, 60)
    want, dual = numpy_run(60, 0.05, kappa, 2.0, 0.8)
    own = dict(named_leaves(params)[0])
    for name in want:
        np.testing.assert_allclose(own[name], want[name], rtol=2e-4, atol=2e-5)
    v = dict(named_leaves(state[-1].dual)[0])
    for name in dual:
        np.testing.assert_allclose(v[name], dual[name], rtol=2e-4, atol=2e-5)


def test_what_gamma_leaves_out_is_removed_without_any_change_of_the_sparse_model():
    tx = pm.record_path(pm.split_lbi(0.05, 1.0, 2.0, unit_penalty(UNITS, STRONG)))
    params, state = trained(tx, loss, PARAMS, 60)
    inside = np.asarray(pm.support(state)["norm"]["shift"])
    assert 0 < inside.sum() < 5
    np.testing.assert_array_equal(inside, np.asarray(pm.support(state)["conv"]["kernel"]).any((0, 1, 2)))
    keep = keep_from_masks(UNITS, pm.support(state))
    np.testing.assert_array_equal(keep["conv"], inside)
    small = compact(UNITS, keep, pm.sparse_params(params, state), state)
    np.testing.assert_allclose(small.fn(small.params, X), fn(pm.sparse_params(params, state), X), rtol=1e-5)
    # The state that is left knows the units that are left: it goes on with the penalty of the small model.
    again = unit_penalty(find_units(small.fn, small.params, X), STRONG)
    assert small.opt_state.inner_state[-1].penalty == again
    assert hash(small.opt_state.inner_state[-1].penalty) == hash(again)
    tx = pm.record_path(pm.split_lbi(0.05, 1.0, 2.0, again))
    _, after = tx.update(jax.tree.map(jnp.zeros_like, small.params), small.opt_state, small.params)
    assert jax.tree.structure(after) == jax.tree.structure(small.opt_state)
    np.testing.assert_array_equal(
        pm.entry_steps(after)["norm"]["scale"], pm.entry_steps(state)["norm"]["scale"][inside]
    )


def test_the_path_ranks_and_selects_whole_units():
    params, state = trained(pm.record_path(pm.split_lbi(0.05, 1.0, 2.0, unit_penalty(UNITS, 0.8))), loss, PARAMS, 60)
    for order in ("entry", "dual", "gamma", "magnitude"):
        ranks = pm.rank(params, state, order)
        np.testing.assert_array_equal(ranks["conv"]["kernel"], ranks["norm"]["scale"])
        np.testing.assert_array_equal(np.sort(ranks["norm"]["shift"]), np.arange(5))
        masks = pm.select(params, state, 0.6, order=order)
        assert masks["norm"]["scale"].sum() == 2
        np.testing.assert_array_equal(masks["norm"]["scale"], masks["conv"]["kernel"].all((0, 1, 2)))
        np.testing.assert_array_equal(masks["norm"]["scale"], ranks["conv"]["kernel"] < 2)
        assert masks["head"]["kernel"].all()
    magnitude = [np.linalg.norm(unit_vector(params, unit)) for unit in range(5)]
    np.testing.assert_array_equal(
        np.argsort(pm.rank(params, state, "magnitude")["norm"]["scale"]), np.argsort(magnitude)[::-1]
    )
    single = pm.select(params, state, 0.5, level="weight", order="magnitude")
    assert sum(int(single[a][b].sum()) for a, b in (("conv", "kernel"), ("norm", "scale"), ("norm", "shift"))) == 50
    with pytest.raises(ValueError, match="nothing to select from"):
        pm.select(params, state, 0.5, protect=["shift"])  # the units have a part in it


def test_units_of_several_sets_are_ranked_beside_each_other():
    """Five units of four weights and seven of five: the numbers of the second set begin where the first one ends."""
    rng = np.random.default_rng(3)
    params = {name: jnp.asarray(rng.normal(size=size), jnp.float32) for name, size in
              {"a": (4, 5), "b": (5, 7), "c": (7, 3)}.items()}  # fmt: skip
    mlp = lambda p, x: jax.nn.relu(jax.nn.relu(x @ p["a"]) @ p["b"]) @ p["c"]
    state = pm.split_lbi(0.1, penalty=unit_penalty(find_units(mlp, params, jnp.ones((2, 4))))).init(params)
    ranks = pm.rank(params, state, "magnitude")
    size = np.concatenate([np.sqrt(np.mean(np.square(params[name]), 0)) for name in ("a", "b")])
    own = np.concatenate([ranks["a"], ranks["b"]])
    np.testing.assert_array_equal(own, np.argsort(np.argsort(-size)))
    masks = pm.select(params, state, 0.5, order="magnitude", scope="global")
    kept = np.concatenate([masks[name].all(0) for name in ("a", "b")])
    assert 0 < kept.sum() < 12
    np.testing.assert_array_equal(kept, own < kept.sum())


def test_path_speed_lets_half_of_the_units_enter_at_the_stated_share():
    rules = pm.path_speed(PARAMS, 400, 0.01, 2.0, unit_penalty(UNITS), share=0.5)
    tx = pm.record_path(pm.split_lbi(0.01, 1.0, 2.0, rules))
    state, frozen = tx.init(PARAMS), PARAMS
    update = jax.jit(tx.update)
    for _ in range(400):  # at the weights of the start
        _, state = update(jax.tree.map(jnp.zeros_like, PARAMS), state, frozen)
    entered = np.asarray(pm.entry_steps(state)["conv"]["kernel"])
    assert 195 <= np.median(entered) <= 205


def test_beside_other_penalties_by_rules_and_under_jit_without_a_loop_over_units():
    rules = pm.Rules([("head", pm.Lasso(0.1)), ("", unit_penalty(UNITS, 0.8))])
    _, state = trained(pm.split_lbi(0.05, 1.0, 2.0, rules), loss, PARAMS, 30)
    assert pm.gamma(state)["head"]["kernel"].any()
    assert pm.group_norms(state)["norm"]["scale"].shape == (5,)
    wide = {"a": jnp.ones((4, 1000)), "b": jnp.ones((1000, 4))}
    mlp = lambda p, x: jax.nn.relu(x @ p["a"]) @ p["b"]
    tx = pm.split_lbi(0.1, penalty=unit_penalty(find_units(mlp, wide, jnp.ones((1, 4)))))
    program = jax.make_jaxpr(tx.update)(wide, tx.init(wide), wide)
    assert len(program.jaxpr.eqns) < 200  # of 1,000 units


@pytest.mark.parametrize(
    "name", mostly(["lenet", "vgg", "resnet", "densenet", "mobilenet_v2", "gru", "plain_lstm"], ["lenet"])
)
def test_every_architecture_has_units_to_penalise(name):
    fn, params, args = ARCHITECTURES[name]()
    units = find_units(fn, params, *args)
    penalty = unit_penalty(units)
    assert penalty.group_norms(params).shape == (sum(s.size for s in units.sets.values()),)
    zero = penalty.prox(jax.tree.map(lambda w: 1e-4 * w, params))  # all out: every activation is zero
    keep = {s.name: np.zeros(s.size, bool) for s in units.sets.values()}
    gone = units.removed(keep)
    for parameter, leaf in named_leaves(zero)[0]:
        for own in units.sets.values():
            for place in own.makers:
                if place[0] == parameter:
                    assert not np.moveaxis(np.asarray(leaf), place[1], 0)[gone[parameter][place[1]]].any()


def test_sets_that_share_weights_are_named_with_a_choice_that_works():
    fn, params, args = ARCHITECTURES["vit"]()
    units = find_units(fn, params, *args)
    with pytest.raises(ValueError, match=r"'blocks/layers/0/attention/query' and .*query\.2' share weights") as error:
        unit_penalty(units, sets=list(units.sets))
    choice = str(error.value).partition("sets=")[2].rstrip(".")
    import ast

    penalty = unit_penalty(units, sets=ast.literal_eval(choice))
    assert penalty.group_norms(params).shape == (8 + 2 * (2 + 12),)


@pytest.mark.parametrize(("name", "heads"), [("vit", "blocks/layers/{}/attention/query"), ("gpt", "block{}/qkv")])
def test_of_an_attention_the_heads_are_penalised_by_default(name, heads):
    """Not the features of queries and keys, nor those of values, which lie inside them."""
    fn, params, args = ARCHITECTURES[name]()
    units = find_units(fn, params, *args)
    penalty = unit_penalty(units)
    sizes = {own: size for own, _, size in penalty.sets}
    assert [sizes.get(heads.format(layer)) for layer in range(2)] == [2, 2]
    assert not any(heads.format(0) + suffix in sizes for suffix in (".2", ".3"))
    tx = pm.split_lbi(0.1, penalty=penalty)
    keep = {heads.format(0): np.array([False, True])}
    small = compact(units, keep, params, tx.init(params))
    assert sum(size for *_, size in small.opt_state[-1].penalty.sets) == sum(sizes.values()) - 1


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"unknown set 'cnv'; did you mean 'conv'"):
        unit_penalty(UNITS, sets=["cnv"])
    with pytest.raises(ValueError, match=r"strength=-1"):
        unit_penalty(UNITS, -1)
    penalty = unit_penalty(UNITS)
    with pytest.raises(ValueError, match=r"finds none of its parameters"):
        pm.split_lbi(0.1, penalty=penalty).init({"other": jnp.ones((2, 2))})
    with pytest.raises(ValueError, match=r"'conv/kernel' has shape \(3, 3, 2, 4\), but .* made for \(3, 3, 2, 5\)"):
        pm.split_lbi(0.1, penalty=penalty).init({"conv": {"kernel": jnp.ones((3, 3, 2, 4))}})
    gpt = find_units(*(lambda t: (t[0], t[1], *t[2]))(ARCHITECTURES["gpt"]()))
    with pytest.raises(ValueError, match=r"only 16 of 24 indices are in a unit of these sets"):
        unit_penalty(gpt, sets=["block0/qkv.2"])
