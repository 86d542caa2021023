"""What a related method is to Optax and JAX: its read-outs, precision, buffers, compilation, errors."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import parsimony as pm
from helpers.related import METHODS, PARAMS, SPARSE, mixed, step_of, trained

every_method = pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)


@every_method
def test_w_is_gamma_and_the_read_outs_say_so(make):
    taken = trained(pm.record_path(make(penalty=mixed(make))), SPARSE)
    params, state = taken[-1]
    support = pm.support(state)
    chex.assert_trees_all_close({**pm.gamma(state), "bias": 0}, {**params, "bias": 0}, atol=1e-6)
    assert support["bias"].all()
    for name in ("conv", "head"):
        np.testing.assert_array_equal(support[name], params[name] != 0)
        assert 0 < support[name].mean() < 1
    chex.assert_trees_all_equal(pm.sparse_params(params, state), params)
    rows = {row.name: row.weights for row in pm.sparsity_summary(state)}
    assert rows == {name: 5 if name == "bias" else np.count_nonzero(w) for name, w in params.items()}
    norms = np.linalg.norm(np.asarray(params["conv"]).reshape(-1, 6), axis=0)
    np.testing.assert_allclose(pm.group_norms(state)["conv"], norms, atol=1e-5)

    inside = np.array([np.any(at["conv"], axis=(0, 1, 2)) for at, _ in taken])
    first = np.where(inside.any(0), inside.argmax(0) + 1, pm.NEVER)
    np.testing.assert_array_equal(pm.entry_steps(state)["conv"], first)
    for order in ("dual", "gamma", "magnitude"):
        masks = pm.select(params, state, sparsity=float(np.mean(params["head"] == 0)), order=order)
        np.testing.assert_array_equal(masks["head"], support["head"])


@every_method
def test_compiled_and_scanned_runs_equal_the_eager_run(make):
    tx = make(penalty=mixed(make))
    eager = trained(tx, SPARSE, 12, transform=lambda step: step)[-1]
    chex.clear_trace_counter()
    once = trained(tx, SPARSE, 12, transform=lambda step: jax.jit(chex.assert_max_traces(step, n=1)))[-1]
    params = {name: jnp.asarray(w, jnp.float32) for name, w in SPARSE.items()}
    scan = lambda at: jax.lax.scan(lambda at, _: (step_of(tx)(*at), None), at, length=12)[0]
    for other in (once, jax.jit(scan)((params, tx.init(params)))):
        chex.assert_trees_all_close(eager, other, rtol=2e-5, atol=2e-6)


@every_method
def test_bfloat16_weights_keep_their_zeros_and_v_its_precision(make):
    tx = make(penalty=mixed(make))
    rough, fine = trained(tx, SPARSE, dtype="bfloat16")[-1], trained(tx, SPARSE)[-1]
    own = optax.tree.get(rough[1], "SplitLBIState")
    for name in ("conv", "head"):
        assert (rough[0][name].dtype, own.dual[name].dtype) == (jnp.bfloat16, jnp.float32)
        np.testing.assert_array_equal(np.asarray(rough[0][name])[~np.asarray(pm.support(rough[1])[name])], 0)
        np.testing.assert_allclose(rough[0][name].astype(jnp.float32), fine[0][name], atol=0.1)


@pytest.mark.parametrize(("name", "reached"), [("linbreg", 1.3), ("rda", 1.2), ("prox_sgd", 1.0)])
def test_v_adds_up_small_steps_of_bfloat16_weights(name, reached):
    """2,000 steps of κα·1e-3. `prox_sgd` has no memory but W, and W + 1e-4 is W."""
    small = {"kernel": jnp.full((2, 2), -1e-3, jnp.bfloat16)}
    start = {"kernel": jnp.ones((2, 2), jnp.bfloat16)}
    tx = METHODS[name](penalty=pm.Lasso(1e-6))

    def step(at, _):
        updates, state = tx.update(small, at[1], at[0])
        return (optax.apply_updates(at[0], updates), state), None

    (params, _), _ = jax.jit(lambda at: jax.lax.scan(step, at, length=2000))((start, tx.init(start)))
    np.testing.assert_allclose(params["kernel"].astype(jnp.float32), reached, rtol=0.01)


@every_method
def test_the_state_is_one_v_and_shares_no_buffer_with_the_parameters(make):
    params = {name: jnp.asarray(w, jnp.float32) for name, w in PARAMS.items()}
    state = make(penalty=None).init(params)
    bytes_of = lambda tree: sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
    assert bytes_of(optax.tree.get(state, "SplitLBIState")) == bytes_of(params) + 4 * 4
    for tree in (state, trained(make(penalty=None), steps=1, transform=lambda step: step)[0]):
        pointers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves((params, tree))]
        assert len(set(pointers)) == len(pointers)
    donated = jax.jit(step_of(make(penalty=None)), donate_argnums=(0, 1), keep_unused=True)
    given = (params, state)
    donated(*given)  # "donated buffers were not usable" is an error
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"learning_rate": 0.0}, ValueError, "^learning_rate=0.0: expected a positive, finite number"),
        ({"learning_rate": "0.1"}, TypeError, "^learning_rate=.*or a schedule"),
        ({"penalty": pm.Lasso}, TypeError, r"^penalty: got the class Lasso; write Lasso\(\)"),
        ({"sparsity": 1.0}, ValueError, r"^sparsity=1.0: expected the share of zero weights, in \[0, 1\)"),
        ({"sparsity": 90}, ValueError, "for 90 % write 0.9"),
        ({"sparsity": -0.1}, ValueError, "^sparsity=-0.1: expected the share"),
        ({"sparsity": float("nan")}, ValueError, "^sparsity=nan: expected the share"),
        ({"sparsity": True}, TypeError, "^sparsity=True: expected a number"),
        ({"sparsity": "0.9"}, TypeError, "^sparsity='0.9': expected a number"),
    ],
)
@pytest.mark.parametrize("make", [pm.linbreg, pm.adabreg, pm.rda, pm.prox_sgd, pm.split_lbi])
def test_arguments_that_are_invalid_are_rejected_when_given(make, arguments, error, message):
    with pytest.raises(error, match=message):
        make(**({"learning_rate": 0.1} | arguments))


@pytest.mark.parametrize("make", [pm.linbreg, pm.rda, pm.prox_sgd])
def test_momentum_is_checked(make):
    with pytest.raises(ValueError, match=r"^momentum=1.0: expected a number in \[0, 1\)"):
        make(0.1, momentum=1.0)
    with pytest.raises(ValueError, match="nesterov=True needs a momentum"):
        make(0.1, nesterov=True)
    with pytest.raises(ValueError, match=r"^kappa=-1\.0: expected a positive"):
        pm.linbreg(0.1, kappa=-1.0)


@every_method
def test_what_does_not_fit_the_parameters_is_rejected(make):
    params = {name: jnp.asarray(w, jnp.float32) for name, w in PARAMS.items()}
    with pytest.raises(ValueError, match="pattern 'kernel' matches no name"):
        make(penalty=pm.Rules([("kernel", pm.Lasso())])).init(params)
    tx = make()
    state = tx.init(params)
    with pytest.raises(ValueError, match=r"call tx.update\(grads, opt_state, params\)"):
        tx.update(params, state)
    wider = params | {"head": jnp.ones((6, 7))}
    with pytest.raises(
        ValueError, match=r"dual and params do not match: 'head' is \(6, 7\) in params, \(6, 5\) in dual"
    ):
        tx.update(wider, tx.init(wider)[:-1] + state[-1:], wider)
