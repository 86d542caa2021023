"""The contract of removal: the compact model is the model whose removed units are all zero."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import parsimony as pm
from helpers.architectures import ARCHITECTURES, QUICK, built, error, flat
from helpers.cases import mostly

NAMES = sorted(ARCHITECTURES)
# Every primitive of the others but those of `control_flow` is in one of these.
DIFFERENTIATED = (
    "lenet", "resnet_option_a", "mobilenet_v2", "densenet", "shufflenet", "resnext", "squeeze_excitation", "unet",
    "vit", "gpt", "llama", "einsum_transformer", "lstm", "scanned_mlp", "rematerialised",
)  # fmt: skip


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


@pytest.mark.parametrize("name", mostly(NAMES, QUICK))
def test_compact_is_the_model_with_the_removed_units_at_zero(name):
    """Some sets stay whole; below none does."""
    fn, params, args, units = built(name)
    keep = random_keep(units, 1)
    small = pm.structure.compact(units, keep, params)
    assert jax.tree.structure(small.params) == jax.tree.structure(params)
    assert sum(np.size(leaf) for leaf in jax.tree.leaves(small.params)) < flat(params).size
    whole = jax.jit(fn)(units.zero(keep, params), *args)
    assert error(jax.jit(small.fn)(small.params, *args), whole) < 1e-5


@pytest.mark.parametrize("name", mostly(NAMES, ["lenet"]))
def test_in_float64_it_is_so_to_twelve_digits_and_so_are_its_gradients(name):
    """The gradients where they are taken: a loop of unknown length, in `control_flow`, has none."""
    with jax.enable_x64(True):
        fn, params, args = ARCHITECTURES[name]()
        params, args = jax.tree.map(
            lambda x: x.astype("float64") if jnp.issubdtype(x.dtype, jnp.floating) else x, (params, args)
        )
        units = pm.structure.find_units(fn, params, *args)
        keep = random_keep(units, 4)
        small = pm.structure.compact(units, keep, params)
        zeroed = units.zero(keep, params)
        if name not in DIFFERENTIATED:
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
