"""Three losses with their starts and curvatures: quadratic, logistic, and a network with tanh."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

_rng = np.random.default_rng(0)
X, Y = _rng.normal(size=(40, 6)) * np.linspace(0.5, 1.5, 6), _rng.normal(size=(40, 4))
CLASSES = np.eye(4)[_rng.integers(4, size=40)]
LINEAR = {"w": np.zeros((6, 4)), "b": np.zeros(4)}
NETWORK = {
    "w1": _rng.normal(size=(6, 8)) * np.linspace(0.2, 0.8, 8),
    "b1": np.zeros(8),
    "w2": _rng.normal(size=(8, 4)) * 0.3,
    "b2": np.zeros(4),
}


def scores(params, x):
    return x @ params["w"] + params["b"][None]


def network(params, x):
    return jnp.tanh(x @ params["w1"] + params["b1"][None]) @ params["w2"] + params["b2"][None]


def squares(predicted):
    return jnp.sum((predicted - Y) ** 2) / (2 * len(X))


def quadratic(params):
    return squares(scores(params, X))


def logistic(params):
    return -jnp.mean(jnp.sum(CLASSES * jax.nn.log_softmax(scores(params, X)), axis=1))


def tanh(params):
    return squares(network(params, X)) + 0.02 * sum(jnp.sum(w**2) for w in jax.tree.leaves(params))


INPUTS = np.hstack([X, np.ones((40, 1))])
LARGEST = np.linalg.eigvalsh(INPUTS.T @ INPUTS / 40)[-1]
# (loss, start, Lip): exact; at most 1/2 in the logits (Böhning, 1992); for the network, tested at every iterate.
LOSSES = {
    "quadratic": (quadratic, LINEAR, LARGEST),
    "logistic": (logistic, LINEAR, LARGEST / 2),
    "tanh": (tanh, NETWORK, 6.0),
}


@functools.partial(jax.jit, static_argnums=0)
def hessian(loss, params):
    flat, unravel = ravel_pytree(params)
    return jax.hessian(lambda w: loss(unravel(w)))(flat)


def largest_curvatures(hessians):
    """The largest |eigenvalue| of each matrix; in NumPy, since XLA's takes seconds on a CPU."""
    return np.abs(np.linalg.eigvalsh(np.asarray(hessians))).max(-1)


def as_float64(tree):
    return jax.tree.map(lambda w: jnp.asarray(w, jnp.float64), tree)
