"""Batch statistics of a network as it is now: exact means over batches, whatever the momentum of its normalisations.

A normalisation in training moves each of its statistics towards that of the batch by its own momentum m,

    new = m·old + (1 − m)·b

so two calls on one batch, with different old statistics, give m, and every further call gives the b of its batch. What
comes out is the mean of b over the batches, to which the running mean only comes near.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._tree import named_leaves

_LATE = 10**6
"""Steps after which no debiasing or warm-up of a running mean is left."""


def recalibrate(forward: Callable[[Any, Any], Any], stats: Any, batches: Iterable[Any]) -> Any:
    """Batch statistics for the weights as they are: the exact mean over the batches.

    Statistics belong to the weights with which they were collected. After weights were set to zero, or replaced by
    W̃, the running statistics of W are wrong, and the accuracy measured with them says little about the network. Each
    statistic becomes

        (1/n) Σ_i b_i,     b_i: the statistic of batch i, as the normalisation itself computes it

    The momentum of each is found from two calls on the first batch; a third one checks that `new = m·old + (1 − m)·b`
    holds. Counters (integers that a call increments, as in Haiku and Equinox) are set to a late step, at which the
    debiasing of a young running mean has ended. Statistics that a call leaves as they are stay so.

    Args:
      forward: (stats, batch) → new stats, in training mode, with the weights in question; deterministic. Under
        `jax.jit` it is compiled once.
      stats: the old statistics, a tree of arrays; their values do not matter.
      batches: at least one; what `forward` takes. Batches of the size of training are the usual choice, and a few
        thousand examples in all are enough.

    Returns:
      The tree of `stats`, with its dtypes.

    Raises:
      TypeError: `forward` returns a tree, or shapes, other than those of `stats`.
      ValueError: no batch; no statistic that `forward` changes; one that does not move towards the batch's value by
        a fixed momentum (named), or is too coarse to tell.

    Examples:
      >>> import jax.numpy as jnp, parsimony as pm
      >>> def forward(stats, x):  # a normalisation of momentum 0.9
      ...     return {"mean": 0.9 * stats["mean"] + 0.1 * x.mean(0), "var": 0.9 * stats["var"] + 0.1 * x.var(0)}
      >>> batches = [jnp.array([[1.0], [3.0]]), jnp.array([[5.0], [9.0]])]
      >>> stats = pm.recalibrate(forward, {"mean": jnp.zeros(1), "var": jnp.ones(1)}, batches)
      >>> stats["mean"].round(4).tolist(), stats["var"].round(4).tolist()  # (2 + 7)/2 and (1 + 4)/2
      ([4.5], [2.5])

    References:
      Li, Wu, Su and Wang, "EagleEye: Fast Sub-net Evaluation for Efficient Neural Network Pruning" (arXiv 2007.02491),
      recompute the statistics of every pruned network before it is judged.
    """
    call = _Call(forward, stats)
    rest = iter(batches)
    first = next(rest, None)
    if first is None:
        raise ValueError("recalibrate: there are no batches; give an iterable of at least one.")
    momenta = call.momenta(first)
    total = [np.zeros(np.shape(x), np.float64) for x in call.given]
    number = 0
    for batch in _chain(first, rest):
        number += 1
        for place, new in enumerate(call(call.zeros, batch)):
            if (m := momenta[place]) is not None:
                total[place] += np.asarray(new, np.float64) / (1 - m)
    return call.treedef.unflatten(
        call.fixed[place] if m is None else _like(total[place] / number, call.given[place])
        for place, m in enumerate(momenta)
    )


class _Call:
    """`forward` on lists of leaves, checked."""

    def __init__(self, forward, stats):
        self.forward = forward
        named, self.treedef = named_leaves(stats)
        self.names = [name for name, _ in named]
        self.given = [leaf for _, leaf in named]
        self.float = [jnp.issubdtype(jnp.result_type(x), jnp.floating) for x in self.given]
        if not any(self.float):
            raise ValueError(f"recalibrate: stats have no floating-point arrays among {self.names[:8]}.")
        self.fixed = list(self.given)  # what is kept: counters, and what a call does not change
        self.zeros = self.filled([0.0] * len(named))

    def filled(self, values) -> list:
        """The leaves with other statistics, in float32 at least: bfloat16 could not tell a momentum of 0.99."""
        return [
            jnp.full(jnp.shape(x), 0, _wide(x)) + jnp.asarray(value, _wide(x)) if is_float else kept
            for x, kept, value, is_float in zip(self.given, self.fixed, values, self.float, strict=True)
        ]

    def __call__(self, leaves, batch) -> list:
        named, treedef = named_leaves(self.forward(self.treedef.unflatten(leaves), batch))
        shapes = [jnp.shape(x) for _, x in named]
        if treedef != self.treedef or shapes != [jnp.shape(x) for x in self.given]:
            raise TypeError(
                f"recalibrate: forward(stats, batch) must return new statistics like stats ({_some(self.names)}), "
                f"got {_some([name for name, _ in named])}."
            )
        return [x for _, x in named]

    def momenta(self, batch) -> list[float | None]:
        """The momentum of each statistic; None for anything that is not a statistic."""
        new = self(self.zeros, batch)
        counters = [place for place, (x, y) in enumerate(zip(self.given, new, strict=True)) if _counts(x, y)]
        # Flags such as "first time" are left as a call leaves them.
        left = [x if is_float or place in counters else y
                for place, (x, y, is_float) in enumerate(zip(self.given, new, self.float, strict=True))]  # fmt: skip
        wrong: list[str] = []
        # With counters as they are only where being late does not help: a mean over all steps so far.
        for late in [True, False] if counters else [False]:
            self.fixed = [jnp.full_like(x, _LATE) if late and i in counters else x for i, x in enumerate(self.given)]
            self.zeros = self.filled([0.0] * len(self.given))
            found, wrong = self._momenta(batch, self(self.zeros, batch))
            if not wrong:
                break
        else:
            raise ValueError(
                f"recalibrate: {wrong[0]!r} does not move as new = m·old + (1 − m)·(the batch's value) with one "
                "0 ≤ m < 1 for all of it. Is forward in training mode, deterministic, and does it normalise by the "
                "statistics of the batch (not by the running ones, as Equinox's mode='ema' does)?"
            )
        if all(m is None for m in found):
            raise ValueError(
                "recalibrate: forward returns the statistics as they were. It must run in training mode, in which "
                "normalisations use the batch and move their statistics (NNX: model.train(); Linen: "
                "mutable=['batch_stats'] and use_running_average=False)."
            )
        self.fixed = [y if x is kept_now else x for x, kept_now, y in zip(self.fixed, self.given, left, strict=True)]
        return found

    def _momenta(self, batch, zero) -> tuple[list[float | None], list[str]]:
        """(momenta, names of what does not follow the rule), from the new statistics after old ones of zero."""
        high = [
            2.0 ** np.ceil(np.log2(max(1.0, float(np.max(np.abs(c), initial=0.0))))) for c in map(_wide_array, zero)
        ]
        other = self(self.filled(high), batch)
        found: list[float | None] = [None] * len(zero)
        goal: list[Any] = [0.0] * len(zero)
        wrong = []
        for place in np.flatnonzero(self.float):
            c = _wide_array(zero[place])
            each = (_wide_array(other[place]) - c) / high[place]
            m = float(each.mean()) if each.size else 0.0
            if np.all(c == 0) and np.all(each == 1):  # left as it is
                goal[place] = high[place]
                continue
            if not (np.all(np.isfinite(each)) and np.all(np.abs(each - m) < 1e-3 * (1 - m)) and -1e-6 < m < 1 - 1e-5):
                wrong.append(self.names[place])
                continue
            m = max(m, 0.0)
            found[place], goal[place] = m, c / (1 - m)
        if wrong:
            return found, wrong
        # A statistic that is the batch's already stays.
        for place, new in enumerate(self(self.filled(goal), batch)):
            if found[place] is not None:
                error = np.abs(_wide_array(new) - goal[place])
                if np.any(error > 1e-3 * (np.abs(goal[place]) + np.mean(np.abs(goal[place])))):
                    wrong.append(self.names[place])
        return found, wrong


def _counts(old, new) -> bool:
    """Whether a call counts here."""
    return jnp.issubdtype(jnp.result_type(old), jnp.integer) and bool(jnp.all(new == old + 1))


def _wide(x):
    return jnp.promote_types(jnp.result_type(x), jnp.float32)


def _wide_array(x) -> np.ndarray:
    return np.asarray(x, np.float64) if jnp.issubdtype(jnp.result_type(x), jnp.floating) else np.zeros(())


def _like(values, x):
    """As an array of the dtype and place of x."""
    new = jnp.asarray(values, jnp.result_type(x))
    return jax.device_put(new, x.sharding) if isinstance(x, jax.Array) else new


def _chain(first, rest):
    yield first
    yield from rest


def _some(names) -> str:
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
