"""The contract of removal: the compact model is the model whose removed units are all zero."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.errors import FlaxError

import parsimony as pm
from helpers.architectures import ARCHITECTURES, built, error, flat
from parsimony._tree import named_leaves

NAMES = sorted(ARCHITECTURES)
NO_CHANNELS = ("a spatial axis of a convolution", "the axis that a scan runs over", "an axis of size one")


def random_keep(units, seed):
    """In each set a random share of the units stays, at least one; half the time some sets stay whole."""
    rng = np.random.default_rng(seed)
    keep = {}
    for unit_set in units.sets.values():
        if seed % 2 == 0 or rng.random() < 0.6:
            mask = rng.random(unit_set.size) < rng.choice([0.3, 0.6, 0.9])
            mask[rng.integers(unit_set.size)] = True
            keep[unit_set.name] = mask
    first, *_ = (unit_set for unit_set in units.sets.values() if unit_set.size > 1)
    return keep | {first.name: np.arange(first.size) > 0}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", NAMES)
def test_compact_is_the_model_with_the_removed_units_at_zero(name, seed):
    fn, params, args, units = built(name)
    keep = random_keep(units, seed)
    small = pm.structure.compact(units, keep, params)
    assert jax.tree.structure(small.params) == jax.tree.structure(params)
    assert sum(np.size(leaf) for leaf in jax.tree.leaves(small.params)) < flat(params).size
    whole = jax.jit(fn)(units.zero(keep, params), *args)
    assert error(jax.jit(small.fn)(small.params, *args), whole) < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_in_float64_it_is_so_to_twelve_digits_and_so_are_its_gradients(name):
    with jax.enable_x64(True):
        fn, params, args = ARCHITECTURES[name]()
        params, args = jax.tree.map(
            lambda x: x.astype("float64") if jnp.issubdtype(x.dtype, jnp.floating) else x, (params, args)
        )
        units = pm.structure.find_units(fn, params, *args)
        keep = random_keep(units, 4)
        small = pm.structure.compact(units, keep, params)
        zeroed = units.zero(keep, params)
        if name == "control_flow":  # a loop of unknown length has no gradient
            assert error(jax.jit(small.fn)(small.params, *args), jax.jit(fn)(zeroed, *args)) < 1e-12
            return

        def loss(fn):
            def squares(params):
                out = fn(params, *args)
                return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(out)), out

            return jax.jit(jax.value_and_grad(squares, has_aux=True))

        (_, narrow), gradient = loss(small.fn)(small.params)
        (_, whole), whole_gradient = loss(fn)(zeroed)
        assert error(narrow, whole) < 1e-12
        # What is kept moves as it would beside units at zero.
        assert error(gradient, pm.structure.compact(units, keep, whole_gradient).params) < 1e-12


@pytest.mark.parametrize("name", NAMES)
def test_what_is_fixed_cannot_be_removed(name):
    """No random choice of slices that contains a fixed one leaves a program with the outputs of the zeroed one.

    Units are channels. The taps of a window and the layers that a scan runs over are none, by definition.
    """
    fn, params, args, units = built(name)
    rng = np.random.default_rng(0)
    leaves, treedef = named_leaves(params)
    shapes = {parameter: leaf.shape for parameter, leaf in leaves}
    places = [
        (parameter, axis)
        for parameter, axes in units.fixed.items()
        for axis, reason in axes.items()
        if reason not in NO_CHANNELS
    ]
    for _ in range(25):
        parameter, axis = places[rng.integers(len(places))]
        size = shapes[parameter][axis]
        free = np.zeros(size, bool)
        for unit_set in units.sets.values():
            free |= unit_set.members.get(parameter, {}).get(axis, np.full(size, -1)) >= 0
        index = rng.choice(np.flatnonzero(~free))
        # With it go other slices of the same index, as they would in a set.
        chance = rng.choice([0, 0.3, 1])
        cuts = {
            (p, a): index
            for p, shape in shapes.items()
            for a, n in enumerate(shape)
            if (p, a) == (parameter, axis) or (n == size and rng.random() < chance)
        }

        def cut(removal, cuts=cuts):
            def own(parameter, leaf):
                for (p, axis), index in cuts.items():
                    leaf = removal(leaf, axis, index) if p == parameter else leaf
                return leaf

            return treedef.unflatten([own(parameter, leaf) for parameter, leaf in leaves])

        narrow = cut(lambda leaf, axis, index: jnp.delete(leaf, index, axis))
        zeroed = cut(lambda leaf, axis, index: leaf.at[(slice(None),) * axis + (index,)].set(0))
        try:
            out = jax.eval_shape(fn, narrow, *args)
        except (TypeError, ValueError, AssertionError, FlaxError):
            continue  # the shapes do not fit
        whole = fn(zeroed, *args)
        if jax.tree.map(jnp.shape, out) == jax.tree.map(jnp.shape, whole):
            assert not error(fn(narrow, *args), whole) < 1e-4, (parameter, axis, index, list(cuts))
