"""Split LBI and its penalties in NumPy float64, slow on purpose: what the library is compared with.

Everything is written a second time, in another way: groups are loops, W and Γ are both stored, every parameter is
an entry of a flat dictionary by name. It imports neither JAX nor the library.
"""

# ruff: noqa: N806

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Penalty(NamedTuple):
    prox: Callable  # V → Prox_Ω(V)
    value: Callable  # X → Ω(X)
    norms: Callable  # X → the norm of each group, in the shape of the groups
    sparse: Callable = lambda w, gamma: np.where(gamma != 0, w, 0)  # (W, Γ) → W̃


class Step(NamedTuple):  # each a dictionary by name, but the time
    weights: Any
    gamma: Any
    dual: Any
    sparse: Any
    time: Any


def lasso(strength=1.0):
    def prox(v):
        out = np.zeros_like(v)
        for i in np.ndindex(v.shape):
            if v[i] > strength:
                out[i] = v[i] - strength
            if v[i] < -strength:
                out[i] = v[i] + strength
        return out

    return Penalty(prox, lambda x: strength * sum(abs(entry) for entry in x.ravel()), abs)


def _group_penalty(slices, strength, rms, mix=0.0):
    """λ(mix·Σ|x_i| + (1 − mix)·Σ c_g‖x_g‖) for the groups x[s], s in slices(shape), an array of tuples of slices."""

    def threshold(group):
        return strength * (1 - mix) * (group.size**0.5 if rms else 1.0)

    def prox(v):
        out = lasso(strength * mix).prox(v)
        for s in slices(v.shape).ravel():
            norm = np.linalg.norm(out[s])
            out[s] = out[s] * (norm - threshold(out[s])) / norm if norm > threshold(out[s]) else 0.0
        return out

    def value(x):
        groups = (threshold(x[s]) * np.linalg.norm(x[s]) for s in slices(x.shape).ravel())
        return strength * mix * np.abs(x).sum() + sum(groups)

    def norms(x):
        all_slices = slices(x.shape)
        out = np.zeros(all_slices.shape)
        for g in np.ndindex(out.shape):
            out[g] = np.linalg.norm(x[all_slices[g]])
        return out

    return Penalty(prox, value, norms)


def sparse_group_lasso(axes=(-1,), strength=1.0, mix=0.5, rms=False):
    def slices(shape):
        kept = sorted(axis % len(shape) for axis in axes)
        out = np.empty([shape[axis] for axis in kept], object)
        for g in np.ndindex(out.shape):
            index = [slice(None)] * len(shape)
            for axis, i in zip(kept, g, strict=True):
                index[axis] = slice(i, i + 1)
            out[g] = tuple(index)
        return out

    return _group_penalty(slices, strength, rms, mix)


def group_lasso(axes=(-1,), strength=1.0, rms=False):
    return sparse_group_lasso(axes, strength, 0.0, rms)


def block_lasso(tile=(4, 4), strength=1.0, rms=False):
    def slices(shape):
        starts = [range(0, n, t) for n, t in zip(shape, tile, strict=True)]
        out = np.empty([len(s) for s in starts], object)
        for (i, row), (j, column) in itertools.product(enumerate(starts[0]), enumerate(starts[1])):
            out[i, j] = (slice(row, row + tile[0]), slice(column, column + tile[1]))
        return out

    return _group_penalty(slices, strength, rms)


def nuclear_norm(strength=1.0):
    def prox(v):
        u, sigma, vt = np.linalg.svd(v)
        out = np.zeros_like(v)
        for i, s in enumerate(sigma):
            out += max(s - strength, 0.0) * np.outer(u[:, i], vt[i])
        return out

    def norms(x):
        sigma = np.linalg.svd(x, compute_uv=False)
        return np.where(np.arange(sigma.size) < np.linalg.matrix_rank(x), sigma, 0.0)

    def sparse(w, gamma):  # onto the column and the row space of Γ
        rank = np.linalg.matrix_rank(gamma)
        u, _, vt = np.linalg.svd(gamma)
        return u[:, :rank] @ u[:, :rank].T @ w @ vt[:rank].T @ vt[:rank]

    return Penalty(prox, lambda x: strength * np.linalg.norm(x, "nuc"), norms, sparse)


def changed(g, name, k, mean, square, trace, momentum, nesterov, adam):
    """The gradient of step k as Adam or momentum changes it; their memories are changed in place."""
    if adam:
        mean[name] = 0.9 * mean[name] + 0.1 * g
        square[name] = 0.999 * square[name] + 0.001 * g**2
        g = mean[name] / (1 - 0.9 ** (k + 1)) / (np.sqrt(square[name] / (1 - 0.999 ** (k + 1))) + 1e-8)
    trace[name] = momentum * trace[name] + g
    return g + momentum * trace[name] if nesterov else trace[name]


def split_lbi(
    params, gradient, penalties, steps, *, learning_rate, kappa=1.0, nu=100.0, dual_learning_rate=None,
    momentum=0.0, nesterov=False, weight_decay=0.0, decayed=(), adam=False, inner_momentum=0.0,
):  # fmt: skip
    """Yields a `Step` after each of `steps` steps; `penalties` and `decayed` name parameters, the rest goes without."""
    W = {name: np.array(w, np.float64) for name, w in params.items()}
    V, Γ, trace, inner, mean, square = ({name: 0 * w for name, w in W.items()} for _ in range(6))
    t = 0.0
    for k in range(steps):
        α = np.asarray(learning_rate(k) if callable(learning_rate) else learning_rate, np.float64)
        α_dual = dual_learning_rate(k) if callable(dual_learning_rate) else dual_learning_rate
        α_dual = α if α_dual is None else np.asarray(α_dual, np.float64)
        slope = gradient(W)
        W_next, V_next = {}, {}
        for name in W:
            # The loss gradient, as SGD or Adam would change it.
            g = slope[name] + (weight_decay * W[name] if name in decayed else 0.0)
            g = changed(g, name, k, mean, square, trace, momentum, nesterov, adam)
            # Both gradients of L̄(W, Γ) = L(W) + ‖W − Γ‖²/2ν, at the old W and Γ.
            coupling = (W[name] - Γ[name]) / nu if name in penalties else np.zeros_like(g)
            inner[name] = inner_momentum * inner[name] + g + coupling
            W_next[name] = W[name] - kappa * α * inner[name]
            V_next[name] = V[name] + α_dual * coupling
        W, V, t = W_next, V_next, t + α_dual
        Γ = {n: kappa * penalties[n].prox(V[n]) if n in penalties else 0 * V[n] for n in W}
        sparse = {n: penalties[n].sparse(W[n], Γ[n]) if n in penalties else W[n] for n in W}
        yield Step(W, Γ, V, sparse, t)


class Scaled(NamedTuple):
    """A penalty whose strength moves: `at(scale)` is that of λ·scale, `slope(W)` a sub-gradient, and
    `levels(U)` has for each weight the scale at which it becomes zero."""

    at: Callable
    slope: Callable
    levels: Callable


def scaled_lasso(strength):
    return Scaled(lambda s: lasso(strength * s), lambda w: strength * np.sign(w), lambda u: np.abs(u) / strength)


def scaled_group_lasso(strength, rms=False):
    """Groups are the slices of the last axis."""

    def own(x, function):
        out = np.zeros_like(x)
        for g in range(x.shape[-1]):
            threshold = strength * (x[..., g].size ** 0.5 if rms else 1.0)
            out[..., g] = function(x[..., g], np.linalg.norm(x[..., g]), threshold)
        return out

    return Scaled(
        lambda s: group_lasso((-1,), strength * s, rms),
        lambda w: own(w, lambda x, norm, threshold: threshold * x / norm if norm else 0 * x),
        lambda u: own(u, lambda x, norm, threshold: norm / threshold),
    )


def related(
    method, params, gradient, penalties, steps, *, learning_rate, kappa=1.0,
    momentum=0.0, nesterov=False, adam=False, sparsity=None, weight_decay=0.0,
):  # fmt: skip
    """Yields (W, latent variables, t) after each step; each method as published, `penalties` name the penalised.

    LinBreg: v and prox_{δJ}(δv). RDA as torchao's PAT: latent weights that the base optimizer decays before its step,
    those of AdamW as `p.mul_(1 − lr·decay)`, and γ, the sum of the rates. `sparsity`
    replaces the strength by the order statistic of the levels.
    """
    W = {name: np.array(w, np.float64) for name, w in params.items()}
    trace, mean, square = ({name: 0 * w for name, w in W.items()} for _ in range(3))
    latent = {name: w / kappa if method == "linbreg" else w for name, w in W.items()}
    if method == "linbreg" and sparsity is None:
        latent = {name: u + penalties[name].slope(W[name]) if name in penalties else u for name, u in latent.items()}
    γ = 0.0
    for k in range(steps):
        α = np.asarray(learning_rate(k) if callable(learning_rate) else learning_rate, np.float64)
        slope = gradient(W)
        γ = γ + α
        for name, g in slope.items():
            g = changed(g, name, k, mean, square, trace, momentum, nesterov, adam)
            latent[name] = (W if method == "prox_sgd" else latent)[name] * (1 - α * weight_decay) - α * g
        strength = {"linbreg": 1.0, "rda": γ, "prox_sgd": α}[method]
        if sparsity is not None:
            q = sparsity(k) if callable(sparsity) else sparsity
            levels = np.sort(np.concatenate([penalties[name].levels(latent[name]).ravel() for name in penalties]))
            zeros = math.ceil(float(q) * levels.size - 1e-5)
            strength = levels[zeros - 1] * (1 + 1e-5) if zeros else 0.0  # no group lies on the threshold
        W = {
            name: penalties[name].at(kappa * strength).prox(kappa * u) if name in penalties else kappa * u
            for name, u in latent.items()
        }
        yield W, dict(latent), γ
