"""`path_speed`: a path that unfolds over the training, whatever the width, ν and the step size are."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from sklearn.datasets import load_digits

import parsimony as pm

EPOCHS, BATCH = 40, 128


class Network(nnx.Module):
    """Two convolutions and two dense layers, as wide as asked."""

    def __init__(self, width: int, rngs: nnx.Rngs):
        self.conv1 = nnx.Conv(1, width, (3, 3), rngs=rngs)
        self.conv2 = nnx.Conv(width, 2 * width, (3, 3), strides=2, rngs=rngs)
        self.dense1 = nnx.Linear(32 * width, 64, rngs=rngs)
        self.dense2 = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.conv2(nnx.relu(self.conv1(x))))
        return self.dense2(nnx.relu(self.dense1(jnp.reshape(x, (x.shape[0], -1)))))


def train_on_digits(width, nu, learning_rate):
    """The final state, and the number of steps."""
    images, labels = load_digits(return_X_y=True)
    images, labels = jnp.asarray(images.reshape(-1, 8, 8, 1) / 16, jnp.float32), jnp.asarray(labels)
    batches = len(labels) // BATCH
    steps = EPOCHS * batches
    graphdef, variables = nnx.split(Network(width, nnx.Rngs(0)), nnx.Param)
    params = nnx.to_pure_dict(variables)
    schedule = optax.piecewise_constant_schedule(learning_rate, {3 * steps // 4: 0.1})
    penalty = pm.path_speed(params, steps, schedule, nu)
    tx = pm.record_path(pm.split_lbi(schedule, nu=nu, penalty=penalty, momentum=0.9))

    @jax.jit
    def step(params, state, index):
        def loss(params):
            logits = nnx.merge(graphdef, params)(images[index])
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels[index]).mean()

        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for epoch in range(EPOCHS):
        order = np.random.default_rng(epoch).permutation(len(labels))
        for index in order[: batches * BATCH].reshape(batches, BATCH):
            params, state = step(params, state, index)
    return state, steps


@pytest.mark.slow
@pytest.mark.parametrize(("width", "nu", "learning_rate"), [(4, 5.0, 0.05), (16, 20.0, 0.02)], ids=str)
def test_half_of_what_is_finally_selected_enters_in_the_middle_of_the_run(width, nu, learning_rate):
    """Between 10 and 70 % of the steps, for filters and for weights, with nothing tuned."""
    state, steps = train_on_digits(width, nu, learning_rate)
    entered, support = pm.entry_steps(state), pm.group_norms(state)
    for kind in (("conv1", "conv2"), ("dense1", "dense2")):
        selected = np.concatenate([np.ravel(support[layer]["kernel"]) > 0 for layer in kind])
        entry = np.concatenate([np.ravel(entered[layer]["kernel"]) for layer in kind])[selected] / steps
        assert selected.mean() > 0.05
        assert np.mean((entry >= 0.1) & (entry <= 0.7)) >= 0.5


@pytest.mark.parametrize("share", [0.25, 0.5])
@pytest.mark.parametrize(
    "penalty",
    [pm.Lasso(), pm.GroupLasso(-1), pm.GroupLasso(-1, scale="rms"), pm.SparseGroupLasso(-1, mix=0.3),
     pm.BlockLasso((2, 2)), pm.NuclearNorm()],
    ids=lambda penalty: type(penalty).__name__,
)  # fmt: skip
def test_with_weights_that_stand_still_half_of_the_groups_have_entered_at_the_share(penalty, share):
    """The definition, for every penalty; κ, ν, a schedule and the strength that was given do not matter."""
    params = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(40, 40)), jnp.float32)}
    schedule, nu, steps = optax.linear_schedule(0.3, 0.1, 60), 7.0, 60
    paced = pm.path_speed(params, steps, schedule, nu, penalty, share=share)
    state = (tx := pm.inverse_scale_space(schedule, 3.0, nu, paced)).init(params)
    inside = []
    for _ in range(steps):
        _, state = jax.jit(tx.update)({"w": jnp.zeros((40, 40))}, state, params)
        inside.append(float(jnp.mean(pm.group_norms(state)["w"] > 0)))
    at = round(share * steps)
    assert inside[at - 2] <= 0.5 <= inside[at]
    assert inside[at - 2] > 0.1  # no jump from nothing to everything


def test_kinds_of_groups_have_strengths_of_their_own():
    """Two layers under one penalty are one kind; what Rules name apart is another."""
    rng = np.random.default_rng(0)
    draw = lambda scale: jnp.asarray(scale * rng.normal(size=(50, 50)), jnp.float32)
    params = {"a": draw(1.0), "b": draw(1.0), "c": draw(0.1), "d": draw(0.1)}
    rules = pm.Rules([("c", pm.GroupLasso(-1)), ("d", None)], default=pm.Lasso())
    paced = dict(pm.path_speed(params, 100, 0.1, 10.0, rules).rules)
    assert set(paced) == {"^a$", "^b$", "^c$"}
    assert paced["^a$"] == paced["^b$"]
    assert paced["^a$"].strength == pytest.approx(0.1 * 50 / 10 * 0.6745, rel=0.03)  # the median of |normal|
    assert paced["^c$"].strength == pytest.approx(0.1 * 50 / 10 * 0.1 * np.sqrt(50), rel=0.03)


BAD = {
    "steps": ({"steps": 0}, "number of updates"),
    "steps as a float": ({"steps": 10.5}, "number of updates"),
    "share": ({"share": 0.0}, r"in \(0, 1\]"),
    "share in per cent": ({"share": 50}, r"in \(0, 1\]"),
    "nu": ({"nu": -1.0}, "nu=-1.0"),
    "zeros": ({"params": {"w": jnp.zeros((3, 3))}}, "half of the groups of w are zero at the start"),
    "no rate": ({"learning_rate": optax.constant_schedule(0.0)}, "adds up to 0 over the first 5 steps"),
    "a warm-up that is longer": (
        {"learning_rate": optax.linear_schedule(0.0, 0.1, 100, 20)},
        "adds up to 0 over the first 5 steps",
    ),
    "nothing penalised": ({"params": {"w": jnp.zeros(3)}, "penalty": pm.Lasso()}, "finds no kernel"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD)
def test_what_has_no_speed_is_rejected(change, message):
    arguments = {"params": {"w": jnp.ones((3, 3))}, "steps": 10, "learning_rate": 0.1, "nu": 10.0} | change
    with pytest.raises(ValueError, match=message):
        pm.path_speed(**arguments)


def test_the_speed_of_shapes_without_weights_is_asked_for_in_vain():
    with pytest.raises(TypeError, match="shapes only"):
        pm.path_speed({"w": jax.ShapeDtypeStruct((3, 3), "float32")}, steps=10, learning_rate=0.1, nu=10.0)


RNG = np.random.default_rng(0)
IMAGES = jnp.asarray(RNG.normal(size=(256, 8)), jnp.float32)
ANSWERS = jnp.tanh(IMAGES @ jnp.asarray(RNG.normal(size=(8, 3)), jnp.float32))
NORMALISED = {
    "w1": jnp.asarray(RNG.normal(size=(8, 32)), jnp.float32),
    "scale": jnp.ones(32),
    "shift": jnp.zeros(32),
    "w2": jnp.asarray(RNG.normal(size=(32, 3)) / 6, jnp.float32),
}
FILTERS = pm.Rules([("w1", pm.GroupLasso(-1))])


def normalised_loss(params, key):
    """Of a batch, with a normalisation by its own statistics."""
    index = jax.random.randint(key, (32,), 0, len(IMAGES))
    h = IMAGES[index] @ params["w1"]
    h = (h - h.mean(0, keepdims=True)) / jnp.sqrt(h.var(0, keepdims=True) + 1e-5)
    h = jax.nn.relu(h * params["scale"][None] + params["shift"][None])
    return jnp.mean(jnp.square(h @ params["w2"] - ANSWERS[index]))


def normalised_training(penalty, steps):
    """(params, opt_state) after some steps, α = 0.1, ν = 5."""
    tx = pm.record_path(pm.split_lbi(0.1, nu=5.0, penalty=penalty, momentum=0.9))

    def step(state, key):
        params, opt_state = state
        updates, opt_state = tx.update(jax.grad(normalised_loss)(params, key), opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    keys = jax.random.split(jax.random.key(1), steps)
    return jax.jit(lambda state: jax.lax.scan(step, state, keys)[0])((NORMALISED, tx.init(NORMALISED)))


def test_before_a_normalisation_it_warns_and_nothing_enters_when_it_says():
    with pytest.warns(UserWarning, match="'scale' is a vector of ones.*pm.pace"):
        predicted = pm.path_speed(NORMALISED, 2000, 0.1, 5.0, FILTERS, share=0.3)
    params, state = normalised_training(predicted, 600)
    assert not pm.support(state)["w1"].any()
    assert pm.path_forecast(params, state, 0.1, 2000).verdict == "stays empty"
