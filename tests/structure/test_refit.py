"""The readers of what a cut leaves, fitted to what they gave: exact where it can be, a minimum where it cannot."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import parsimony as pm
from helpers.architectures import built, error
from parsimony._tree import named_leaves
from parsimony.structure import compact, find_units, refit


def halves(units):
    return {name: np.arange(s.size) < (s.size + 1) // 2 for name, s in units.sets.items()}


def with_copies(units, keep, params):
    """Parameters of which each unit that goes is a copy of one that stays."""
    leaves, treedef = named_leaves(params)
    arrays = dict(leaves)
    for name, unit_set in units.sets.items():
        for parameter, axis in unit_set.makers:
            unit = unit_set.members[parameter][axis]
            model = np.where(keep[name], np.arange(unit_set.size), np.arange(unit_set.size) - keep[name].sum())
            arrays[parameter] = jnp.take(arrays[parameter], model[unit], axis)
    return treedef.unflatten([arrays[name] for name, _ in leaves])


def layouts(params, x):
    """A strided convolution whose padding enters, contractions over two axes, a kernel on the left, one transposed."""
    numbers = ("NHWC", "OIHW", "NHWC")
    x = jax.nn.relu(jax.lax.conv_general_dilated(x, params["image"], (1, 1), "SAME", dimension_numbers=numbers))
    x = jax.nn.tanh(jax.lax.conv_general_dilated(x, params["conv"], (2, 3), "SAME", dimension_numbers=numbers))
    x = jax.nn.relu(jnp.einsum("bhwc,whco->bo", x, params["several"]))
    x = jax.nn.relu(jnp.einsum("oi,bi->ob", params["left"], x)).T
    return x @ params["transposed"].astype(jnp.float32).T


SHAPES = {"image": (4, 2, 3, 3), "conv": (6, 4, 3, 2), "several": (2, 3, 6, 6), "left": (8, 6), "transposed": (3, 8)}
KEYS = iter(jax.random.split(jax.random.key(0), 8))
WEIGHTS = {name: 0.4 * jax.random.normal(next(KEYS), shape) for name, shape in SHAPES.items()}
X = jax.random.normal(next(KEYS), (60, 6, 6, 2))
UNITS = find_units(layouts, WEIGHTS, X[:2])


@pytest.mark.parametrize("name", ["layouts", "resnet"])
def test_a_cut_is_exact_where_what_goes_is_a_combination_of_what_stays(name):
    fn, params, args, units = (layouts, WEIGHTS, (X,), UNITS) if name == "layouts" else built(name)
    args = (X,) if name == "layouts" else (jax.random.normal(jax.random.key(3), (40, *args[0].shape[1:])),)
    keep = halves(units)
    params = with_copies(units, keep, params)
    refitted = refit(units, keep, params, *args, ridge=1e-10)
    assert refitted.left_out == {}
    assert all(after < 1e-6 < 1e-3 < before for before, after in refitted.missing.values())
    small = compact(units, keep, refitted.params)
    assert small.fn is not None
    whole = fn(params, *args)
    assert error(small.fn(small.params, *args), whole) < 1e-3 < 0.1 < error(fn(units.zero(keep, params), *args), whole)


def test_what_is_fitted_is_the_minimum_and_a_ridge_leads_back_to_the_weights():
    keep = {"several": np.arange(6) < 4, "image": np.arange(4) != 1}
    cut = UNITS.zero(keep, WEIGHTS)
    refitted = refit(UNITS, keep, WEIGHTS, X, ridge=0.01)
    assert set(refitted.missing) == {"conv", "left"}
    assert all(after < before for before, after in refitted.missing.values())
    hidden = lambda params: jnp.einsum("bhwc,whco->bo", jax.nn.tanh(_conv(params)), params["several"])

    def objective(new):
        """Of the reader "left", behind the other one that was refitted."""
        x = jax.nn.relu(hidden(refitted.params))
        kept = keep["several"]
        ridge = 0.01 * jnp.sum(x[:, kept] ** 2) / kept.sum()
        difference = jax.nn.relu(hidden(WEIGHTS)) @ WEIGHTS["left"].T - x @ new.T
        return jnp.sum(difference**2) + ridge * jnp.sum((new - cut["left"]) ** 2)

    gradient = lambda new: jnp.abs(jax.grad(objective)(new)[:, keep["several"]]).max()
    assert gradient(refitted.params["left"]) < 1e-4 * gradient(cut["left"])
    for name, leaf in refit(UNITS, keep, WEIGHTS, X, ridge=1e8).params.items():
        np.testing.assert_allclose(leaf, cut[name], atol=1e-6)


def _conv(params):
    numbers = ("NHWC", "OIHW", "NHWC")
    x = jax.nn.relu(jax.lax.conv_general_dilated(X, params["image"], (1, 1), "SAME", dimension_numbers=numbers))
    return jax.lax.conv_general_dilated(x, params["conv"], (2, 3), "SAME", dimension_numbers=numbers)


def attention(params, x):
    """Heads; features of queries and keys meet each other alone."""
    query, key, value = (jnp.einsum("bti,ihd->bthd", x, params[name]) for name in ("query", "key", "value"))
    weights = jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", query, key))
    return jnp.einsum("bthd,hdo->bto", jnp.einsum("bhts,bshd->bthd", weights, value), params["out"])


def test_what_has_no_reader_of_its_own_is_named_and_left_as_the_cut_leaves_it():
    params = {name: jax.random.normal(jax.random.key(place), (2, 3, 4)) for place, name in enumerate(("query", "key"))}
    params |= {"value": jax.random.normal(jax.random.key(2), (2, 3, 4)), "out": jnp.ones((3, 4, 2))}
    x = X[:, 0]
    units = find_units(attention, params, x)
    (features,) = (name for name, s in units.sets.items() if set(s.members) == {"query", "key"})
    refitted = refit(units, halves(units), params, x)
    assert (set(refitted.left_out), set(refitted.missing)) == ({features}, {"out"})
    np.testing.assert_array_equal(refitted.params["key"], units.zero(halves(units), params)["key"])
    tied = {"w": WEIGHTS["left"][:6], "first": jnp.ones((6, 6))}
    twice = lambda p, x: jax.nn.relu(jax.nn.relu(x @ p["first"]) @ p["w"]) @ p["w"].T
    its = find_units(twice, tied, X[:, 0, :3].reshape(-1, 6))
    keep = halves(its)
    refitted = refit(its, keep, tied, X[:, 0, :3].reshape(-1, 6))
    assert (refitted.missing, set(refitted.left_out)) == ({}, set(keep))
    jax.tree.map(np.testing.assert_array_equal, refitted.params, its.zero(keep, tied))


WRONG: Any = WEIGHTS
KEEP = {"several": np.arange(6) < 4}
SHAPE = jax.ShapeDtypeStruct(X.shape, X.dtype)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: refit(WRONG, KEEP, UNITS, X), TypeError, r"expected the Units that find_units returns"),
        (lambda: refit(UNITS, KEEP, WEIGHTS), ValueError, r"refit needs inputs after params"),
        (lambda: refit(UNITS, KEEP, WEIGHTS, SHAPE), TypeError, r"argument '0' is a shape without numbers"),
        (lambda: refit(UNITS, KEEP, WEIGHTS, X, ridge=0), ValueError, r"ridge=0: expected a positive, finite number"),
        (lambda: refit(UNITS, KEEP, WEIGHTS, X * jnp.inf), ValueError, r"not finite where parameter 'left' reads them"),
        (lambda: refit(UNITS, {"severel": KEEP["several"]}, WEIGHTS, X), ValueError, r"unknown set 'severel'"),
        (lambda: refit(UNITS, KEEP, {**WEIGHTS, "left": X}, X), ValueError, r"parameter 'left' has shape"),
        (lambda: jax.jit(lambda p: refit(UNITS, KEEP, p, X).params)(WEIGHTS), TypeError, r"'conv' is traced"),
    ],
)
def test_bad_input_is_rejected_by_name(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


def test_a_removal_that_is_not_exact_is_rejected():
    params = {"w": WEIGHTS["left"], "head": WEIGHTS["left"].T}
    softmax = lambda p, x: jax.nn.softmax(x @ p["w"].T) @ p["head"].T
    x = X[:, 0, :3].reshape(-1, 6)
    units = pm.structure.find_units(softmax, params, x)
    with pytest.raises(ValueError, match=r"removing units of 'w' is not exact"):
        refit(units, halves(units), params, x)
