"""States of other trees, and arguments in each other's places, are named: what was given, what is expected."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import parsimony as pm

S = pm.structure
PARAMS = {"w1": jnp.arange(24.0).reshape(4, 6), "b1": jnp.ones(6), "w2": jnp.ones((6, 5)), "w3": jnp.ones((5, 3))}
X, KEY = jnp.ones((2, 4)), jax.random.key(0)


def fn(p, x):
    return jax.nn.relu(jax.nn.relu(x @ p["w1"] + p["b1"][None]) @ p["w2"]) @ p["w3"]


UNITS = S.find_units(fn, PARAMS, X)
KEEP = {"w1": np.arange(6) < 3}
MASKS = jax.tree.map(lambda w: w > 0, PARAMS)
RENAMED = {f"other_{name}": w for name, w in PARAMS.items()}
WIDER = jax.tree.map(lambda w: jnp.ones(tuple(n + 1 for n in w.shape)), PARAMS)
ELSEWHERE = PARAMS | {"w3": jnp.ones((5, 4))}  # differs only where nothing is removed
CUT = {"w1": jnp.ones((4, 3)), "b1": jnp.ones(3), "w2": jnp.ones((3, 5)), "w3": jnp.ones((5, 3))}
TRANSFORMATIONS = {
    "split_lbi": pm.split_lbi(0.1, momentum=0.9, penalty=pm.GroupLasso(-1)),
    "split_lbi, path": pm.record_path(pm.split_lbi(0.1, penalty=pm.GroupLasso(-1))),
    "linbreg": pm.linbreg(0.1, momentum=0.9),
    "adam": optax.adam(0.1),
    "keep_support": lambda params: pm.keep_support(optax.adam(0.1), jax.tree.map(lambda w: w > 0, params)),
}
STATE = TRANSFORMATIONS["split_lbi, path"].init(PARAMS)
SURGERY = {
    "compact": lambda state: S.compact(UNITS, KEEP, PARAMS, state),
    "grow": lambda state: S.grow(UNITS, {"w1": 8}, PARAMS, state, key=KEY),
}


@pytest.mark.parametrize("tx", TRANSFORMATIONS.values(), ids=TRANSFORMATIONS)
@pytest.mark.parametrize("surgery", SURGERY.values(), ids=SURGERY)
@pytest.mark.parametrize("other", [RENAMED, WIDER, ELSEWHERE, CUT], ids=["renamed", "wider", "elsewhere", "cut"])
def test_surgery_rejects_the_state_of_another_tree(tx, surgery, other):
    state = (tx(other) if callable(tx) else tx).init(other)
    with pytest.raises(
        ValueError, match=r"(has shape .* but parameter|not a parameter|belongs to none).*Give the state"
    ):
        surgery(state)


@pytest.mark.parametrize("surgery", SURGERY.values(), ids=SURGERY)
def test_surgery_takes_the_state_of_a_part_of_the_tree(surgery):
    """`optax.masked` and `optax.partition` see only some parameters; factored moments of what stays do too."""
    part = {name: name != "w3" for name in PARAMS}
    state = optax.masked(TRANSFORMATIONS["split_lbi, path"], part).init(PARAMS)
    assert surgery(state).opt_state is not None
    factored = {"w3": optax.scale_by_factored_rms(min_dim_size_to_factor=2).init({"w3": PARAMS["w3"]})}
    assert surgery(factored).opt_state is not None


@pytest.mark.parametrize("surgery", SURGERY.values(), ids=SURGERY)
def test_surgery_rejects_what_is_no_state(surgery):
    with pytest.raises(TypeError, match=r"opt_state: got a transformation; expected its state, tx.init\(params\)"):
        surgery(optax.adam(0.1))
    with pytest.raises(TypeError, match="opt_state leaf 'w1' is 'adam': expected arrays"):
        surgery({"w1": "adam"})


def test_grow_rejects_a_state_that_is_not_that_of_its_transformation():
    with pytest.raises(ValueError, match=r"opt_state does not belong to tx: .*Give the transformation that made"):
        S.grow(UNITS, {"w1": 8}, PARAMS, STATE, key=KEY, tx=optax.adam(0.1))
    with pytest.raises(TypeError, match=r"key: expected a key, such as jax.random.key\(0\), got 0"):
        S.grow(UNITS, {"w1": 8}, PARAMS, key=0)


READ = {
    "choose": lambda state: S.choose(UNITS, PARAMS, state, sparsity=0.5, order="dual"),
    "rank_units": lambda state: S.rank_units(UNITS, PARAMS, state, "dual"),
    "sparse_params": lambda state: pm.sparse_params(PARAMS, state),
    "group_norms": lambda state: pm.group_norms(state, PARAMS),
    "rank": lambda state: pm.rank(PARAMS, state),
    "select": lambda state: pm.select(PARAMS, state, 0.5),
    "path_forecast": lambda state: pm.path_forecast(PARAMS, state, 0.1, 100),
}


@pytest.mark.parametrize("read", READ.values(), ids=READ)
@pytest.mark.parametrize("other", [RENAMED, WIDER], ids=["renamed", "wider"])
def test_what_reads_a_state_rejects_that_of_another_tree(read, other):
    tx, ones = TRANSFORMATIONS["split_lbi, path"], jax.tree.map(jnp.ones_like, other)
    _, state = tx.update(ones, tx.init(other), ones)
    with pytest.raises(ValueError, match=r"do not match|not a parameter of these units|the units were found with"):
        read(state)


UNITS_FIRST = {
    "compact": lambda: S.compact(PARAMS, KEEP, UNITS),
    "grow": lambda: S.grow({"w1": 8}, UNITS, PARAMS, key=KEY),
    "choose": lambda: S.choose(PARAMS, UNITS, sparsity=0.5),
    "rank_units": lambda: S.rank_units(PARAMS, UNITS),
    "count_at": lambda: S.count_at({"w1": 8}, UNITS, PARAMS),
    "keep_from_masks": lambda: S.keep_from_masks(MASKS, UNITS),
    "unit_penalty": lambda: S.unit_penalty(1.0, UNITS),
    "used_units": lambda: S.used_units(PARAMS, UNITS),
    "next_widths": lambda: S.next_widths({"w1": 1.0}, UNITS),
    "export": lambda: S.export("model", S.compact(UNITS, KEEP, PARAMS), X),
    "find_units": lambda: S.find_units(PARAMS, fn, X),
    "apply_masks": lambda: pm.apply_masks(MASKS, PARAMS),
    "keep_support": lambda: pm.keep_support(MASKS, optax.sgd(0.1)),
}


@pytest.mark.parametrize("name", UNITS_FIRST)
def test_swapped_arguments_are_recognised(name):
    with pytest.raises(TypeError, match=rf"^{name}: .*the arguments are swapped[;:] (call )?{name}\("):
        UNITS_FIRST[name]()


A_STATE_FOR_PARAMS = {
    "sparse_params": lambda: pm.sparse_params(STATE, PARAMS),
    "group_norms": lambda: pm.group_norms(PARAMS, STATE),
    "rank": lambda: pm.rank(STATE, PARAMS),
    "select": lambda: pm.select(STATE, PARAMS, 0.5),
    "path_speed": lambda: pm.path_speed(STATE, 100, 0.1),
    "compact": lambda: S.compact(UNITS, KEEP, STATE, PARAMS),
    "grow": lambda: S.grow(UNITS, {"w1": 8}, STATE, PARAMS, key=KEY),
    "choose": lambda: S.choose(UNITS, STATE, PARAMS, sparsity=0.5),
    "count_at": lambda: S.count_at(UNITS, {"w1": 8}, STATE),
    "zero": lambda: UNITS.zero(KEEP, STATE),
    "find_units": lambda: S.find_units(fn, STATE, X),
    "init": lambda: pm.split_lbi(0.1).init(STATE),
    "linbreg init": lambda: pm.linbreg(0.1).init(STATE),
}


@pytest.mark.parametrize("call", A_STATE_FOR_PARAMS.values(), ids=A_STATE_FOR_PARAMS)
def test_an_optimizer_state_in_the_place_of_the_parameters_is_recognised(call):
    with pytest.raises(TypeError, match="params: expected the tree of the weights, got an optimizer state"):
        call()


@pytest.mark.parametrize(
    ("tx", "kind"),
    [
        (pm.inverse_scale_space(0.1), "SplitLBIState"),
        (pm.record_path(pm.split_lbi(0.1)), "RecordPathState"),
        (pm.keep_support(optax.sgd(0.1), MASKS), "KeepSupportState"),
    ],
    ids=["inverse_scale_space", "record_path", "keep_support"],
)
def test_an_update_takes_the_state_second(tx, kind):
    with pytest.raises(
        TypeError, match=rf"opt_state: expected the {kind} .*call tx.update\(grads, opt_state, params\)"
    ):
        tx.update(PARAMS, PARAMS, tx.init(PARAMS))
