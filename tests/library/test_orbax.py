"""A run saved and restored by Orbax goes on bit for bit as if nothing had happened."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import parsimony as pm
from helpers.cases import in_turn

RULES = pm.Rules([("conv", pm.GroupLasso(-1, strength=0.7)), ("dense/kernel", pm.Lasso(0.2))])
HYPER = {"learning_rate": 0.2, "kappa": 1.5, "nu": 2.0, "penalty": RULES, "momentum": 0.5}
SCHEDULE = optax.cosine_decay_schedule(0.2, 20)


def split_lbi(**changes):
    return pm.split_lbi(**HYPER | changes)


def two_groups():
    groups = {"one": split_lbi(penalty=pm.GroupLasso(strength=0.7)), "other": split_lbi(penalty=pm.Lasso(0.2), kappa=1)}
    return optax.partition(groups, {"conv": "one", "dense": "other"})


TRANSFORMATIONS = {
    "momentum": split_lbi,
    "schedule, paper's momentum": lambda: split_lbi(
        learning_rate=SCHEDULE, dual_learning_rate=0.3, momentum=None, inner=optax.trace(0.5)
    ),
    # Optax's own trace, with an injected momentum, grows to float32 for bfloat16 weights beside float32 ones.
    "inject_hyperparams": lambda: optax.inject_hyperparams(pm.split_lbi, static_args="momentum")(
        **HYPER | {"learning_rate": SCHEDULE}
    ),
    "partition": two_groups,
    "MultiSteps in mid-step": lambda: optax.MultiSteps(split_lbi(learning_rate=0.4), every_k_schedule=2),
    "low rank": lambda: split_lbi(penalty=pm.Rules([("dense/kernel", pm.NuclearNorm(0.5))])),
}


def initial_params():
    """Weights of two dtypes."""
    rng = np.random.default_rng(0)
    scale = np.linspace(0.2, 2, 6, dtype=np.float32)
    conv = jnp.asarray(rng.normal(size=(2, 2, 3, 6)) * scale.reshape(1, 1, 1, 6), jnp.bfloat16)
    kernel, bias = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in [(5, 4), (4,)])
    return {"conv": conv, "dense": {"kernel": kernel, "bias": bias}}


def begin(tx, params):
    return {"params": params, "opt_state": tx.init(params)}


def train(tx, run, steps):
    @jax.jit
    def step(run, number):
        gradient = jax.tree.map(lambda w: jnp.sin(3 * w + number.astype(w.dtype)), run["params"])
        updates, state = tx.update(gradient, run["opt_state"], run["params"])
        return {"params": optax.apply_updates(run["params"], updates), "opt_state": state}

    for number in steps:
        run = step(run, jnp.asarray(number))
    return run


def assert_bit_for_bit(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def readouts(run):
    state = run["opt_state"]
    return pm.gamma(state), pm.support(state), pm.sparse_params(run["params"], state)


def abstract(run):
    """What a new process knows before it restores: shapes, dtypes, places and the static penalty."""
    return jax.tree.map(ocp.utils.to_shape_dtype_struct, run)


def standard(directory, step, run, like):
    with ocp.CheckpointManager(directory) as manager:
        manager.save(step, args=ocp.args.StandardSave(run))
        manager.wait_until_finished()
    with ocp.CheckpointManager(directory) as manager:
        return manager.restore(manager.latest_step(), args=ocp.args.StandardRestore(like))


def pytree(directory, step, run, like):
    with ocp.CheckpointManager(directory) as manager:
        manager.save(step, args=ocp.args.PyTreeSave(run))
        manager.wait_until_finished()
    restore = ocp.args.PyTreeRestore(like, restore_args=ocp.checkpoint_utils.construct_restore_args(like))
    with ocp.CheckpointManager(directory) as manager:
        return manager.restore(manager.latest_step(), args=restore)


def checkpointer(directory, step, run, like):
    with ocp.StandardCheckpointer() as saver:
        saver.save(directory / str(step), run)
        saver.wait_until_finished()
        return saver.restore(directory / str(step), like)


WAYS = {"StandardSave": standard, "PyTreeSave": pytree, "StandardCheckpointer": checkpointer}


@pytest.mark.slow
@pytest.mark.parametrize(("make", "save_and_restore"), in_turn(TRANSFORMATIONS, WAYS))
def test_a_restored_run_goes_on_bit_for_bit(tmp_path, make, save_and_restore):
    """The run is cut after five steps; a new transformation and a new template take it up."""
    saved = train(make(), begin(make(), initial_params()), range(5))
    template = abstract(begin(make(), jax.tree.map(jnp.zeros_like, initial_params())))
    restored = save_and_restore(tmp_path, 5, saved, template)
    assert_bit_for_bit(restored, saved)
    assert_bit_for_bit(readouts(restored), readouts(saved))

    resumed = train(make(), restored, range(5, 12))
    undisturbed = train(make(), begin(make(), initial_params()), range(12))
    assert_bit_for_bit(resumed, undisturbed)
    assert_bit_for_bit(readouts(resumed), readouts(undisturbed))
    assert jnp.any(pm.gamma(resumed["opt_state"])["dense"]["kernel"] != 0)
    assert not jnp.all(resumed["params"]["conv"] == saved["params"]["conv"])


@pytest.mark.parametrize("save_and_restore", WAYS.values(), ids=WAYS)
def test_a_spread_run_is_restored_where_it_lay(tmp_path, save_and_restore):
    mesh = jax.make_mesh((2,), ("x",), devices=jax.devices()[:2], axis_types=(jax.sharding.AxisType.Auto,))
    place = lambda leaf: jax.device_put(leaf, NamedSharding(mesh, P(*(None,) * (leaf.ndim - 1), "x")))
    params = jax.tree.map(place, initial_params())
    saved = train(split_lbi(), begin(split_lbi(), params), range(5))
    restored = save_and_restore(tmp_path, 5, saved, abstract(saved))
    assert_bit_for_bit(restored, saved)
    for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(saved), strict=True):
        assert a.sharding == b.sharding
    assert restored["opt_state"][2].dual["conv"].sharding.spec[-1] == "x"
    assert_bit_for_bit(train(split_lbi(), restored, range(5, 12)), train(split_lbi(), saved, range(5, 12)))
