"""One gate for each unit: at 1 the function as it is, at 0 the function without the unit, in between a parameter."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import parsimony as pm
from helpers.architectures import ARCHITECTURES, built, error
from helpers.cases import mostly
from parsimony.structure import Units, choose, compact, find_units, gates

X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6)), jnp.float32)


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng([seed, *shape]).normal(size=shape) / np.sqrt(shape[0]), jnp.float32)


PARAMS = {"a": normal(6, 8), "b": normal(8, 5), "c": normal(5, 3)}


def mlp(p, x):
    return jax.nn.relu(jax.nn.relu(x @ p["a"]) @ p["b"]) @ p["c"]


def experts():
    """A mixture: each token goes to one of three gated MLPs, whose hidden units are those of all three."""
    p = {"in": normal(6, 8), "route": normal(8, 3), "up": normal(3, 8, 5), "gate": normal(3, 8, 5, seed=1)}
    p |= {"down": normal(3, 5, 8), "head": normal(8, 2)}

    def fn(p, x):
        h = x @ p["in"]
        weight = jax.nn.softmax(h @ p["route"])
        chosen = jax.nn.one_hot(weight.argmax(-1), 3) * weight
        hidden = jax.nn.silu(jnp.einsum("bd,edh->beh", h, p["gate"])) * jnp.einsum("bd,edh->beh", h, p["up"])
        return (h + jnp.einsum("be,beh,ehd->bd", chosen, hidden, p["down"])) @ p["head"]

    return fn, p, (X,)


def standardised():
    """The reader's kernel is standardised over its inputs: zeros in it are no zeros to the function."""
    center = lambda w: (w - w.mean(0, keepdims=True)) / jnp.sqrt(w.var(0, keepdims=True) + 1e-5)
    return lambda p, x: jax.nn.relu(jax.nn.relu(x @ p["a"]) @ center(p["b"])) @ p["c"], PARAMS, (X,)


MODELS = ARCHITECTURES | {"experts": experts, "standardised": standardised}
# Filters, a stream under BatchNorm, packed kernels under LayerNorm, heads in groups under RMSNorm, folds, loops.
SPANNING = ("lenet", "resnet", "gpt", "llama", "convnext", "group_norm", "densenet", "gru", "experts", "standardised")


@pytest.mark.parametrize("name", mostly(SPANNING, ["lenet", "llama", "experts"]))
def test_a_gate_of_one_changes_nothing_and_a_gate_of_zero_removes_its_unit(name):
    fn, params, args = MODELS[name]()
    units = find_units(fn, params, *args)
    gated = gates(units, fn, params)
    assert not gated.left_out
    assert {own: len(gate) for own, gate in gated.params["gates"].items()} == {
        own.name: own.size for own in units.sets.values()
    }
    run, whole = jax.jit(gated.fn), jax.jit(fn)
    for one, other in zip(*map(jax.tree.leaves, (run(gated.params, *args), whole(params, *args))), strict=True):
        np.testing.assert_array_equal(one, other)

    rng = np.random.default_rng(1)
    keep = {own: rng.random(len(gate)) < 0.6 for own, gate in gated.params["gates"].items()}
    for own, mask in keep.items():
        mask[rng.integers(len(mask))] = True
        keep[own] = mask if own != next(iter(keep)) else np.arange(len(mask)) > 0
    at = {
        own: jnp.asarray(np.where(mask, rng.uniform(0.5, 1.5, len(mask)), 0.0), jnp.float32)
        for own, mask in keep.items()
    }
    outputs = run({"gates": at, "params": params}, *args)
    folded = gated.fold({"gates": at, "params": params})
    assert jax.tree.structure(folded) == jax.tree.structure(params)
    assert error(whole(folded, *args), outputs) < 1e-6
    assert error(whole(units.zero(keep, folded), *args), outputs) < 1e-5
    small = compact(units, keep, folded)
    assert error(jax.jit(small.fn)(small.params, *args), outputs) < 1e-5


def places(name, own):
    """Where the gates of a set lie: {parameter[axis]: the indices that carry one}."""
    fn, params, _, units = built(name)
    return {
        f"{parameter}[{axis}]": np.flatnonzero(of[own] >= 0).tolist()
        for parameter, axes in gates(units, fn, params).slices.items()
        for axis, of in axes.items()
        if own in of
    }


def test_gates_lie_where_a_factor_commutes():
    """On what reads the activations; else on what makes them, once where that is enough."""
    assert places("lenet", "conv1") == {"conv2/kernel[2]": list(range(6))}
    stream = {f"block{i}/{of}/kernel[1]" for i in (0, 1) for of in ("out", "down")} | {"token/embedding[1]"}
    assert set(places("llama", "token")) == stream  # RMSNorm keeps zeros: its scale carries none
    assert set(places("llama", "block0/query")) == {"block0/key/kernel[1]"}  # of queries and keys one side
    assert places("gpt", "block0/qkv.2") == {f"block0/qkv/{of}": list(range(8, 16)) for of in ("kernel[1]", "bias[0]")}
    assert {"norm/scale[0]", "norm/bias[0]", "block0/out/bias[0]"} < set(places("gpt", "token"))  # LayerNorm does not


def test_a_path_on_gates_finds_the_units_that_matter_and_ends_in_a_small_network():
    """Of a trained network, by any optimizer for the weights: three units of eight and two of five matter."""
    idle = jnp.array([0, 2, 4])
    params = PARAMS | {"b": PARAMS["b"].at[3:].multiply(1e-3), "c": PARAMS["c"].at[idle].multiply(1e-3)}
    params = jax.tree.map(lambda w: 3 * w, params)
    units = find_units(mlp, params, X)
    gated = gates(units, mlp, params)
    want = mlp(params, X)
    spread = pm.pace(0.01, 60, sparsity=0.6, scope="global")
    tx = optax.partition(
        {"gates": pm.record_path(pm.split_lbi(0.01, penalty=gated.penalty(), **spread)), "params": optax.adam(1e-4)},
        {"gates": "gates", "params": "params"},
    )
    theta, state = gated.params, tx.init(gated.params)

    @jax.jit
    def step(theta, state):
        grads = jax.grad(lambda theta: jnp.mean(jnp.square(gated.fn(theta, X) - want)))(theta)
        updates, state = tx.update(grads, state, theta)
        return optax.apply_updates(theta, updates), state

    for _ in range(60):
        theta, state = step(theta, state)
    masks = pm.select(theta, state, sparsity=0.62, scope="global")
    keep = {own: np.asarray(mask) for own, mask in masks["gates"].items()}
    assert {own: np.flatnonzero(mask).tolist() for own, mask in keep.items()} == {"a": [0, 1, 2], "b": [1, 3]}
    # The path has finished: the gates outside of its support are zero, and what it selects is the function.
    small = compact(units, keep, gated.fold(theta))
    np.testing.assert_allclose(small.fn(small.params, X), gated.fn(theta, X), atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, keep, jax.tree.map(lambda gate: gate != 0, theta["gates"]))
    assert all((np.asarray(step)[keep[own]] >= 0).all() for own, step in pm.entry_steps(state)["gates"].items())
    # At any other size too: the order of the gates is one of the units.
    order = pm.rank(theta, state)["gates"]
    chosen = choose(units, gated.fold(theta), order=order, sparsity=0.3, target="macs")
    assert not any((keep[own] & ~mask).any() for own, mask in chosen.items())


def test_gated_parameters_and_the_state_of_their_path_are_cut_before_the_fold_and_train_on():
    """As the whole gated network does whose removed units stay at zero; only then are the gates multiplied in."""
    units = find_units(mlp, PARAMS, X)
    gated = gates(units, mlp, PARAMS)
    keep = {"a": np.arange(8) % 3 != 0, "b": np.arange(5) < 3}

    def transformation(of):
        path = pm.record_path(pm.split_lbi(0.02, nu=2.0, penalty=of.penalty(0.2), momentum=0.9))
        return optax.partition({"gates": path, "params": optax.adam(1e-3)}, {"gates": "gates", "params": "params"})

    def step(tx, fn, theta, state):
        grads = jax.grad(lambda theta: jnp.mean(jnp.square(fn(theta, X) - 1)))(theta)
        updates, state = tx.update(grads, state, theta)
        return optax.apply_updates(theta, updates), state

    tx = transformation(gated)
    theta, state = gated.params, tx.init(gated.params)
    for _ in range(12):
        theta, state = step(tx, gated.fn, theta, state)
    assert not all(np.asarray(mask).all() for mask in pm.support(state)["gates"].values())
    with pytest.raises(ValueError, match=r"gates/a' is of gates, which these parameters do not have.*before `fold`"):
        compact(units, keep, gated.fold(theta), state)

    with_gates = find_units(gated.fn, gated.params, X)  # a gate belongs to its unit
    gate_of = {name: next(p for p in own.members if p.startswith("gates/")) for name, own in with_gates.sets.items()}
    own = {name: keep[gate.removeprefix("gates/")] for name, gate in gate_of.items()}
    small = compact(with_gates, own, theta, state)
    assert {name: len(gate) for name, gate in small.params["gates"].items()} == {"a": 5, "b": 3}
    again = gates(find_units(mlp, small.params["params"], X), mlp, small.params["params"])
    tx_again = transformation(again)
    assert jax.tree.structure(small.opt_state) == jax.tree.structure(tx_again.init(again.params))
    for name, gamma in pm.gamma(state)["gates"].items():
        np.testing.assert_array_equal(pm.gamma(small.opt_state)["gates"][name], gamma[keep[name]])
        entered, before = (np.asarray(pm.entry_steps(of)["gates"][name]) for of in (small.opt_state, state))
        np.testing.assert_array_equal(entered, before[keep[name]])

    zeroed, left, left_state = with_gates.zero(own, theta), small.params, small.opt_state
    np.testing.assert_allclose(small.fn(left, X), gated.fn(zeroed, X), rtol=1e-5, atol=1e-6)
    for _ in range(12):
        theta, state = step(tx, gated.fn, zeroed, state)
        zeroed = with_gates.zero(own, theta)
        left, left_state = step(tx_again, again.fn, left, left_state)
    compare = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    jax.tree.map(compare, left, compact(with_gates, own, zeroed).params)
    for name, gamma in pm.gamma(state)["gates"].items():
        compare(pm.gamma(left_state)["gates"][name], gamma[keep[name]])
    compare(mlp(again.fold(left), X), mlp(gated.fold(zeroed), X))


class Net(nn.Module):
    train: bool

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.BatchNorm(use_running_average=not self.train)(nn.Dense(8)(x)))
        return nn.Dense(3)(x)


def test_the_function_that_is_trained_may_be_another_mode_and_hold_a_part_of_the_variables():
    variables = Net(False).init(jax.random.key(0), X)
    units = find_units(Net(False).apply, variables, X)

    def training(params, statistics, x):
        return Net(True).apply({"params": params, "batch_stats": statistics}, x, mutable=["batch_stats"])

    gated = gates(units, training, variables["params"])
    assert {name: list(axes) for name, axes in gated.slices.items()} == {"Dense_1/kernel": [0]}
    want, statistics = training(variables["params"], variables["batch_stats"], X)
    have, updated = gated.fn(gated.params, variables["batch_stats"], X)
    np.testing.assert_array_equal(have, want)
    jax.tree.map(np.testing.assert_array_equal, updated, statistics)


def test_dtypes_stay_and_integers_carry_no_gate():
    """A reader in int8, with a scale: its units are scaled where they are made."""
    params = {"a": PARAMS["a"].astype(jnp.bfloat16), "q": jnp.arange(24, dtype=jnp.int8).reshape(8, 3)}
    fn = lambda p, x: jax.nn.relu(x.astype(jnp.bfloat16) @ p["a"]) @ p["q"].astype(jnp.bfloat16)
    gated = gates(find_units(fn, params, X), fn, params)
    assert gated.slices.keys() == {"a"}
    assert gated.params["gates"]["a"].dtype == jnp.float32
    half = gated.fold({"gates": {"a": jnp.full(8, 0.5)}, "params": params})
    assert half["a"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(half["a"], params["a"] / 2)
    params["a"] = jnp.ones((6, 8), jnp.int8)
    with pytest.raises(ValueError, match=r"(?s)units of 'a' have no place.*'a' has dtype int8; 'q' has dtype int8"):
        gates(find_units(fn, params, X), fn, params)


def test_weights_may_lie_on_several_devices():
    mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Explicit,))

    def fn(p, x):
        h = jnp.einsum("bi,ij->bj", x, p["a"], out_sharding=P(None, "d"))
        return jnp.einsum("bj,jk->bk", jax.nn.relu(h), p["b"], out_sharding=P())

    params = {name: PARAMS[name] for name in "ab"}
    gated = gates(find_units(lambda p, x: jax.nn.relu(x @ p["a"]) @ p["b"], params, X), fn, params)
    with jax.set_mesh(mesh):
        put = lambda x, *spec: jax.device_put(x, NamedSharding(mesh, P(*spec)))
        placed = {
            "gates": put(gated.params["gates"]),
            "params": {"a": put(params["a"], None, "d"), "b": put(params["b"], "d")},
        }
        gradient = jax.jit(jax.grad(lambda theta: gated.fn(theta, put(X)).sum()))(placed)
    assert gradient["params"]["b"].sharding.spec == P("d", None)
    whole = jax.grad(lambda g: (jax.nn.relu(X @ params["a"]) @ (params["b"] * g[:, None])).sum())(jnp.ones(8))
    np.testing.assert_allclose(gradient["gates"]["a"], whole, rtol=1e-5)


UNITS = find_units(mlp, PARAMS, X)
GATED = gates(UNITS, mlp, PARAMS)
ONES = GATED.params["gates"]
BAD = {
    "swapped": (lambda: gates(mlp, UNITS, PARAMS), TypeError, r"the arguments are swapped; call gates\(units, fn"),
    "no function": (lambda: gates(UNITS, PARAMS, mlp), TypeError, r"expected the function .*the arguments are swapped"),
    "unknown set": (lambda: gates(UNITS, mlp, PARAMS, sets=["aa"]), ValueError, r"sets: unknown set 'aa'; did you"),
    "no list": (lambda: gates(UNITS, mlp, PARAMS, sets="a"), TypeError, r"sets='a': expected a list"),
    "JSON": (lambda: gates(Units.from_json(UNITS.to_json()), mlp, PARAMS), ValueError, "call find_units"),
    "other": (lambda: gates(UNITS, mlp, {"a": X}), ValueError, r"'a' has shape \(4, 6\) in params, but .*\(6, 8\)"),
    "stranger": (lambda: gates(UNITS, mlp, {"z": X}), ValueError, r"'z' has shape .*no such parameter"),
    "plain": (lambda: GATED.fn(PARAMS, X), TypeError, r"expected \{\"gates\": .*got a dict with the keys a, b, c"),
    "gates": (lambda: GATED.fold({"gates": {"a": X}, "params": PARAMS}), ValueError, r"expected the sets and"),
    "weights": (
        lambda: GATED.fold({"gates": ONES, "params": PARAMS | {"b": X}}),
        ValueError,
        r"parameter 'b': expected 8 indices on axis 0, got shape \(4, 6\)",
    ),
    "less": (lambda: GATED.fold({"gates": ONES, "params": {"a": X}}), ValueError, "'b' carries gates and is missing"),
    "strength": (lambda: GATED.penalty(-1.0), ValueError, "strength=-1.0"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    call, kind, message = BAD[case]
    with pytest.raises(kind, match=message):
        call()


def test_a_set_without_an_exact_place_is_left_out_by_name():
    """g·v/‖v‖ under RMSNorm: only v = 0 would be silent, and 0/‖0‖ is not finite."""
    p = PARAMS | {"g": 1 + normal(8)}
    norm = lambda h: h * jax.lax.rsqrt(jnp.square(h).mean(-1, keepdims=True) + 1e-6)

    def fn(p, x):
        direction = p["a"] / jnp.linalg.norm(p["a"], axis=0, keepdims=True)
        return jax.nn.relu(norm(jax.nn.relu(x @ (p["g"][None] * direction))) @ p["b"]) @ p["c"]

    units = find_units(fn, p, X)
    gated = gates(units, fn, p)
    assert list(gated.params["gates"]) == ["b"]
    assert gated.left_out == {"a": "div where it is not finite"}
    with pytest.raises(ValueError, match=r"units of 'a' have no place .* not finite\. Leave this set out"):
        gates(units, fn, p, sets=["a", "b"])
    softmax = lambda p, x: jax.nn.softmax(x @ p["a"]) @ p["b"]
    with pytest.raises(ValueError, match=r"units of 'a' have no place .*reduce_max.* No set has one"):
        gates(find_units(softmax, PARAMS, X), softmax, PARAMS)
    with pytest.raises(ValueError, match="there are no units to put gates on"):
        gates(find_units(lambda p, x: x @ p["a"], PARAMS, X), mlp, PARAMS)
