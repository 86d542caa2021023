"""Networks as their users write them, each a builder of `(fn, params, args)` with small random values."""

import functools

import jax
import numpy as np

from parsimony.structure import find_units

from . import attention, convolutional, recurrent, residual

ARCHITECTURES = {
    **convolutional.ARCHITECTURES,
    **residual.ARCHITECTURES,
    **attention.ARCHITECTURES,
    **recurrent.ARCHITECTURES,
}


QUICK = ("lenet", "resnet", "vit", "plain_lstm")  # for the quick run: one of each kind


@functools.cache
def built(name):
    """(fn, params, args, units)."""
    fn, params, args = ARCHITECTURES[name]()
    return fn, params, args, find_units(fn, params, *args)


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def error(one, other):
    """The largest difference of two trees of outputs, over the largest entry of the other."""
    one, other = flat(one), flat(other)
    assert one.shape == other.shape
    return np.abs(one - other).max() / np.abs(other).max()
