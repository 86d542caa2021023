"""What cannot work raises an error where it comes in, which names the way out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import parsimony as pm

NAN, INF = float("nan"), float("inf")
PARAMS = {"conv1/kernel": jnp.ones((2, 2, 3, 4)), "conv1/bias": jnp.ones(4), "head/kernel": jnp.ones((4, 5))}


POSITIVE, NUMBER = "expected a positive, finite number", "expected a positive number"


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        *[(value, ValueError, POSITIVE) for value in (0.0, 0, -0.1, NAN, INF, -INF)],
        *[(np.float32(value), ValueError, POSITIVE) for value in (0.0, -0.1, NAN)],
        *[(jnp.float32(value), ValueError, POSITIVE) for value in (-0.1, NAN, INF)],
        *[(value, TypeError, NUMBER) for value in (True, "0.1", [0.1], {})],
    ],
    ids=str,
)
def test_hyper_parameters_are_positive_and_finite(value, error, message):
    for make in (pm.split_lbi, pm.inverse_scale_space):
        for name in ("learning_rate", "kappa", "nu", "dual_learning_rate"):
            with pytest.raises(error, match=f"^{name}=.*{message}"):
                make(**({"learning_rate": 0.1} | {name: value}))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        *[({"momentum": m}, ValueError, r"expected a number in \[0, 1\), or None") for m in (-0.1, 1, 1.5, NAN, INF)],
        *[({"weight_decay": d}, ValueError, "expected a number ≥ 0, or None") for d in (-1e-4, NAN, INF)],
        ({"momentum": jnp.float32(1.0)}, ValueError, r"expected a number in \[0, 1\)"),
        ({"nesterov": True}, ValueError, "needs a momentum, e.g. momentum=0.9"),
        ({"weight_decay_mask": {"kernel": True}}, ValueError, "needs a weight_decay, e.g. weight_decay=1e-4"),
        ({"kappa": lambda k: 1.0}, TypeError, "^kappa=.*expected a positive number"),  # the state would not know which
        ({"kappa": pm.Lasso()}, TypeError, r"^kappa=.* Did you mean penalty=Lasso\(strength=1.0\)\?"),
        ({"kappa": None}, TypeError, "^kappa=None: expected a positive number"),
        ({"learning_rate": None}, TypeError, "^learning_rate=None: expected a positive number or a schedule"),
        ({"accumulator_dtype": "int32"}, ValueError, "expected a floating-point dtype such as 'float32'"),
        ({"inner": 0.9}, TypeError, r"such as optax.trace\(0.9\)"),
        ({"penalty": pm.Lasso}, TypeError, r"^penalty: got the class Lasso; write Lasso\(\)"),
        ({"penalty": "lasso"}, TypeError, r"^penalty: expected a penalty such as GroupLasso\(-1\).*got 'lasso'"),
        ({"penalty": 0.1}, TypeError, r"^penalty: expected a penalty"),
        ({"penalty": [("kernel", pm.Lasso())]}, TypeError, "^penalty: expected a penalty.*Rules"),
    ],
)
def test_arguments_that_are_invalid_are_rejected_when_given(arguments, error, message):
    with pytest.raises(error, match=message):
        pm.split_lbi(**({"learning_rate": 0.1} | arguments))


@pytest.mark.parametrize(
    ("rules", "default", "error", "message"),
    [
        ([("kernel", pm.Lasso)], None, TypeError, r"pattern 'kernel': got the class Lasso; write Lasso\(\)"),
        ([("kernel", 0.1)], None, TypeError, "pattern 'kernel': expected a penalty such as"),
        ([], pm.Lasso, TypeError, r"default: got the class Lasso; write Lasso\(\)"),
        ([("(kernel", pm.Lasso())], None, ValueError, r"'\(kernel' is not a regular expression"),
        ([(3, pm.Lasso())], None, ValueError, "3 is not a regular expression"),
        (["kernel"], None, TypeError, r"expected pairs like \[\('kernel', Lasso\(\)\)"),
        (pm.Lasso(), None, TypeError, r"expected pairs like \[\('kernel', Lasso\(\)\)"),
        ({"kernel": pm.Lasso()}, None, TypeError, r"expected pairs like \[\('kernel', Lasso\(\)\)"),
    ],
)
def test_rules_that_are_none_are_rejected_when_made(rules, default, error, message):
    with pytest.raises(error, match=f"^Rules.*{message}"):
        pm.Rules(rules, default)


@pytest.mark.parametrize(
    ("penalty", "message"),
    [
        (pm.Rules([("conv2/kernel", pm.Lasso())]), "'conv2/kernel' matches no name; did you mean 'conv1/k"),
        (
            pm.Rules([("kernal", None)], pm.Lasso()),
            "'kernal' matches no.* The names: conv1/bias, conv1/ker",
        ),
        (pm.Rules([("kernel", None)]), "every parameter is left unpenalised"),
        (pm.Rules([]), "every parameter is left unpenalised"),
        (
            pm.Rules([("kernel", None)], default=pm.Lasso()),
            "every parameter is left unpenalised.*The default finds no kernel of rank 2 or more among conv1/bias",
        ),
        (pm.Rules([("conv1", pm.Lasso())]), r"parameter 'conv1/bias': Lasso takes.*Rules\(\[\('kernel', penalty\)\]\)"),
        (pm.NuclearNorm(), "parameter 'conv1/kernel': NuclearNorm takes a matrix.*another penalty by Rules"),
        (pm.BlockLasso((4, 4)), "parameter 'conv1/kernel': BlockLasso takes a matrix.*another penalty by Rules"),
        (pm.GroupLasso((2, 3)), r"parameter 'head/kernel': GroupLasso\(axis=\(2, 3\)\).*\(4, 5\).*axes in \[-2, 2\)"),
        (pm.GroupLasso((0, -2)), r"parameter 'head/kernel': GroupLasso\(axis=\(0, -2\)\).*distinct axes"),
        (pm.SparseGroupLasso(-3), "parameter 'head/kernel': SparseGroupLasso.*distinct axes"),
    ],
    ids=str,
)
def test_a_penalty_that_does_not_fit_the_parameters_is_rejected_at_init(penalty, message):
    with pytest.raises(ValueError, match=message):
        pm.split_lbi(0.1, penalty=penalty).init(PARAMS)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"scale": jnp.ones(3), "bias": jnp.ones(())}, "finds no kernel of rank 2 or more among bias, scale"),
        ({"kernel": jnp.ones((2, 3), "int32")}, "parameter 'kernel'.*takes real floating-point weights, not int32"),
        ({"kernel": jnp.ones((2, 3), bool)}, "parameter 'kernel'.*takes real floating-point weights, not bool"),
        ({"kernel": jnp.ones((2, 3), "complex64")}, "parameter 'kernel'.*floating-point weights, not complex64"),
    ],
)
def test_parameters_that_no_penalty_can_take_are_rejected_at_init(params, message):
    with pytest.raises(ValueError, match=message):
        pm.split_lbi(0.1, penalty=pm.Lasso()).init(params)


WIDER, FEWER = PARAMS | {"head/kernel": jnp.ones((4, 6))}, {"head/kernel": PARAMS["head/kernel"]}


@pytest.mark.parametrize("make", [pm.split_lbi, pm.inverse_scale_space])
@pytest.mark.parametrize(
    ("grads", "params", "message"),
    [
        (PARAMS, None, r"needs the weights: call tx.update\(grads, opt_state, params\)"),
        (WIDER, PARAMS, r"grads and params do not match: 'head/kernel' is \(4, 5\) in params, \(4, 6\) in grads"),
        (FEWER, PARAMS, r"'conv1/bias' is \(4,\) in params, missing in grads"),
        (PARAMS | {"head/kernel": None}, PARAMS, r"'head/kernel' is \(4, 5\) in params, missing in grads"),
        (WIDER, WIDER, r"dual and params do not match: 'head/kernel' is \(4, 6\) in params, \(4, 5\) in dual"),
        (FEWER, FEWER, r"'conv1/kernel' is missing in params, .* in dual.*after surgery on the parameters"),
        (tuple(PARAMS.values()), PARAMS, r"grads and params do not match: '0' is missing in params"),
    ],
)
def test_an_update_with_trees_that_do_not_match_names_the_leaf(make, grads, params, message):
    tx = make(0.1)
    with pytest.raises(ValueError, match=message):
        tx.update(grads, tx.init(PARAMS), params)


def test_a_clip_to_the_support_needs_the_weights_of_the_gradient():
    tx = pm.clip_by_support_norm(1.0)
    with pytest.raises(ValueError, match=r"call tx.update\(grads, opt_state, params\)"):
        tx.update(PARAMS, tx.init(PARAMS))
    with pytest.raises(ValueError, match=r"'conv1/bias' is \(4,\) in params, missing in grads"):
        tx.update(FEWER, tx.init(PARAMS), PARAMS)


STATE = pm.split_lbi(0.1).init(PARAMS)
TWICE = optax.chain(pm.split_lbi(0.1), pm.split_lbi(0.1)).init(PARAMS)
REPLICATED = jax.tree.map(lambda x: jnp.stack([x, x]), STATE)
read_out = pytest.mark.parametrize(
    "read", [pm.gamma, pm.support, lambda state: pm.sparse_params(PARAMS, state)], ids=["gamma", "support", "sparse"]
)


@read_out
@pytest.mark.parametrize(
    ("state", "message"),
    [
        (optax.sgd(0.1, 0.9).init(PARAMS), r"no Split LBI state.*tuple.*expected the state of pm.split_lbi"),
        ((), "no Split LBI state"),
        (PARAMS, r"no Split LBI state.*\(dict\)"),
        (REPLICATED, r"extra axis of size 2: read one replica.*unreplicate.*jax.vmap\(pm.gamma\)"),
        (TWICE, r"two Split LBI states hold the same parameter.*pm.gamma\(opt_state\[0\]\)"),
    ],
)
def test_read_outs_need_one_split_lbi_state_of_each_parameter(read, state, message):
    with pytest.raises(ValueError, match=message):
        read(state)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (WIDER, r"'head/kernel' with shape \(4, 5\), params has shape \(4, 6\) there"),
        (FEWER, r"holds 'conv1/bias' with shape \(4,\), params has only \['head/kernel'\]"),
        ({name.replace("conv1", "conv2"): w for name, w in PARAMS.items()}, "holds 'conv1/bias'.*has only.*conv2/bias"),
        (jax.tree.map(lambda x: jnp.stack([x, x]), PARAMS), r"params has shape \(2, 4\) there"),
    ],
)
def test_sparse_params_takes_the_parameters_that_the_state_was_made_for(params, message):
    with pytest.raises(ValueError, match=f"params and opt_state do not match: .*{message}"):
        pm.sparse_params(params, STATE)
