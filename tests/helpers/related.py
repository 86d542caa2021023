"""A problem for the methods related to Split LBI: parameters of unequal groups, and a gradient in NumPy and in JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import parsimony as pm

STEPS = 40
_rng = np.random.default_rng(0)
SIZES = np.linspace(0.2, 1.6, 6)
PARAMS = {"conv": _rng.normal(size=(2, 2, 3, 6)) * SIZES, "head": _rng.normal(size=(6, 5)), "bias": _rng.normal(size=5)}
PARAMS = {name: w.astype(np.float32).astype(np.float64) for name, w in PARAMS.items()}
GOALS = {  # of groups of unequal size, so that they enter one by one
    "conv": _rng.normal(size=(2, 2, 3, 6)) * SIZES[::-1] ** 2,
    "head": _rng.normal(size=(6, 5)) * [0.05, 0.3, 0.6, 1.0, 1.6],
    "bias": np.ones(5),
}
SPARSE = PARAMS | {"conv": PARAMS["conv"] * (SIZES > 1), "head": PARAMS["head"] * [0, 0, 0, 0, 1]}


def gradient(params, xp=np):
    """Of a loss that is not convex everywhere, with some curvature of its own for each parameter."""
    curve = {"conv": 0.9, "head": 1.3, "bias": 0.5}
    return {
        name: curve[name] * (w - xp.asarray(GOALS[name], w.dtype)) + 0.3 * xp.sin(3 * w) for name, w in params.items()
    }


def step_of(tx):
    def step(params, state):
        updates, state = tx.update(gradient(params, jnp), state, params)
        return optax.apply_updates(params, updates), state

    return step


def trained(tx, params=PARAMS, steps=STEPS, dtype="float32", transform=jax.jit):
    """(params, state) after each step."""
    params = {name: jnp.asarray(w, dtype) for name, w in params.items()}
    step, at = transform(step_of(tx)), (params, tx.init(params))
    return [at := step(*at) for _ in range(steps)]


METHODS = {
    "linbreg": lambda **kwargs: pm.linbreg(0.1, kappa=1.5, **kwargs),
    "adabreg": lambda **kwargs: pm.adabreg(0.1, kappa=1.5, **kwargs),
    "rda": lambda **kwargs: pm.rda(0.1, **kwargs),
    "prox_sgd": lambda **kwargs: pm.prox_sgd(0.1, **kwargs),
}


def mixed(make):
    """A penalty under which a part of the weights is zero after 40 steps."""
    strength = 2.0 if make in (METHODS["linbreg"], METHODS["adabreg"]) else 0.8
    return pm.Rules([("conv", pm.GroupLasso(-1, 2.6 * strength)), ("head", pm.Lasso(strength))])


ALL_PENALTIES = {
    "the paper's": None,
    "Lasso": pm.Lasso(0.4),
    "GroupLasso": pm.GroupLasso(-1, 0.7),
    "GroupLasso, rms": pm.GroupLasso(0, 0.3, "rms"),
    "SparseGroupLasso": pm.SparseGroupLasso(-1, 0.7, 0.3),
    "BlockLasso": pm.Rules([("head", pm.BlockLasso((4, 2), 0.7, "rms"))]),
    "NuclearNorm": pm.Rules([("head", pm.NuclearNorm(0.7))], pm.Lasso(0.3)),
    "of units": pm.structure.unit_penalty(
        pm.structure.find_units(
            lambda p, x: jnp.tanh(jnp.einsum("nabc,abcd->nd", x, p["conv"])) @ p["head"] + p["bias"][None],
            {name: jnp.asarray(w) for name, w in PARAMS.items()},
            jnp.ones((3, 2, 2, 3)),
        ),
        0.7,
    ),
}
