"""`grow`: more units, the same outputs."""

import dataclasses
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..._checks import check_count
from ..._words import shown
from .._analysis.analyse import Analysis
from .._analysis.remembered import analysis_of
from .._units import Units, check_units, check_widths, structs
from .births import Gradient, chosen_births, without_others
from .compact import resized
from .index_map import Layout, Places, layouts, spread
from .opt_state import transplant
from .silence import first_run, silent_ways, start


@dataclasses.dataclass(frozen=True)
class Grown:
    """A wider model.

    Attributes:
      params, opt_state, fn, route: as in `Compact`; opt_state is None where none was given.
      units: what it was made from.
      widths: {set: units} of the sets that grew.

    Examples:
      >>> import jax, jax.numpy as jnp, parsimony as pm
      >>> params = {"w1": jnp.ones((4, 6)), "w2": jnp.ones((6, 3))}
      >>> fn = lambda p, x: jax.nn.relu(x @ p["w1"]) @ p["w2"]
      >>> units = pm.structure.find_units(fn, params, jnp.ones((1, 4)))
      >>> wider = pm.structure.grow(units, {"w1": 8}, params, key=jax.random.key(0))
      >>> wider.widths, wider.params["w2"].shape
      ({'w1': 8}, (8, 3))

    References:
      See `grow`.
    """

    params: Any
    opt_state: Any
    fn: Callable[..., Any]
    route: str
    units: Units = dataclasses.field(repr=False)
    widths: dict[str, int]


def grow(
    units: Units,
    widths: dict[str, int],
    params,
    opt_state: optax.OptState | None = None,
    *,
    key: jax.Array,
    tx: optax.GradientTransformation | None = None,
    gradient: Gradient | None = None,
    candidates: int = 8,
) -> Grown:
    """Adds units to sets: the wider function computes what the narrow one does, and can learn more.

    What was there stays bit for bit: weights, batch statistics, momentum, V, the record of the path. Of a new unit

    - the kernels that make it are random, of the size of the others, and outside the span of the others as far as there
      is room (their orthogonal complement); its scale and variance are 1, its shift and mean 0;
    - the kernels that read it are zero, so that nothing changes: they have a gradient at once, and with them the rest.

    With a `gradient` of the loss, units are chosen among random candidates by how much they would lower it (see the
    module `births`).

    Where something else than a kernel reads the units, that is not enough: units that a normalisation sums over start
    as zeros that are read by random weights; of the two sides of a product (queries and keys) one starts at zero. By
    the route "jaxpr" the program keeps its constants, such as the width that a LayerNorm divides by.

    Which of these leaves the outputs as they are is proved on the program. It may be none, as when the kernels that
    read the units are standardised over their inputs: zeros change such a kernel as much as random weights do.

    Args:
      units: what `find_units` found.
      widths: {set: number of units that it is to have}.
      params, opt_state: as in `compact`.
      key: of the new weights.
      tx: the transformation that opt_state belongs to: new entries are those of tx.init on the new parameters. None:
        zero, True in a mask, and never entered.
      gradient: gradient(fn, params) → ∂L/∂params on a batch of training data, where fn takes the parameters with all
        candidates: `lambda fn, params: jax.grad(lambda params: loss(fn(params, x), y))(params)`. Of a network with
        batch statistics take the gradient in training mode: those of new units are not known yet. None: no choice.
      candidates: for each new unit, with a gradient.

    Returns:
      `Grown`. For the next step of a `unit_penalty`, find the units of the wider function and make a penalty of them.

    Raises:
      ValueError: an unknown set, a width below the present one, a set that cannot grow without changing the outputs
        (with the reason), units without a function; and as `compact`.

    Examples:
      >>> import jax, jax.numpy as jnp, parsimony as pm
      >>> params = {"w1": jnp.ones((4, 2)), "w2": jnp.ones((2, 3))}
      >>> fn = lambda p, x: jax.nn.relu(x @ p["w1"]) @ p["w2"]
      >>> units = pm.structure.find_units(fn, params, jnp.ones((2, 4)))
      >>> wider = pm.structure.grow(units, {"w1": 5}, params, key=jax.random.key(0))
      >>> wider.params["w1"].shape, wider.fn(wider.params, jnp.ones((1, 4))).tolist()
      ((4, 5), [[8.0, 8.0, 8.0]])
      >>> squares = lambda fn, params: jax.grad(lambda p: jnp.sum(jnp.square(fn(p, jnp.eye(4)))))(params)
      >>> pm.structure.grow(units, {"w1": 5}, params, key=jax.random.key(0), gradient=squares).params["w1"].shape
      (4, 5)

    References:
      Chen, Goodfellow, Shlens, "Net2Net" (arXiv 1511.05641) for the idea of growth that keeps the function; the
      published code of arXiv 1905.09449 does not. GradMax (arXiv 2201.05125) for new units by their gradient.
    """
    check_units("grow(units, widths, params, opt_state, key=key)", units, widths, params, opt_state)
    _check(units, widths)
    try:
        jax.random.key_data(jax.random.fold_in(key, 0))
    except (TypeError, ValueError):
        raise TypeError(f"key: expected a key, such as jax.random.key(0), got {shown(key)}.") from None
    check_count("candidates", candidates, "the number of candidates for each new unit, an int ≥ 1")
    leaves, treedef = units.matched(params)
    widths = {name: int(width) for name, width in widths.items() if width > units.sets[name].size}
    found = analysis_of(units, structs(params), units.arguments)
    ways = silent_ways(units, found, list(widths))

    def wide(its_places: Places) -> list:
        of = lambda name: jax.random.fold_in(key, zlib.crc32(name.encode()))
        return [
            _parameter(units, found, ways, name, leaf, its_places[name], of(name)) if name in its_places else leaf
            for name, leaf in leaves
        ]

    open_to_choice = {name: width for name, width in widths.items() if ways[name] == "unread"}
    if gradient is not None and open_to_choice:
        size = {name: units.sets[name].size for name in widths}
        more = {name: size[name] + candidates * (width - size[name]) for name, width in open_to_choice.items()}
        many_places = layouts(units, widths | more)
        many = treedef.unflatten(wide(many_places))
        fn, _ = _function(units, widths | more, params, many)
        chosen = chosen_births(units, open_to_choice, many_places, many, gradient(fn, many))
        grown = treedef.unflatten(
            [
                without_others(leaf, many_places.get(name, {}), chosen) if name in many_places else leaf
                for (name, _), leaf in zip(leaves, jax.tree.leaves(many), strict=True)
            ]
        )
    else:
        grown = treedef.unflatten(wide(layouts(units, widths)))
    places = layouts(units, widths)
    state = None
    if opt_state is not None:
        state = transplant(opt_state, units.shapes, places, None if tx is None else tx.init(grown))
    fn, route = _function(units, widths, params, grown)
    return Grown(grown, state, fn, route, units, widths)


def _function(units: Units, widths: dict[str, int], params, grown) -> tuple[Callable[..., Any], str]:
    number = {name: units.sets[name].at_width(width) for name, width in widths.items()}
    fn, route = resized(units, number, params, grown)
    assert fn is not None
    if route == "jaxpr":
        try:
            jax.eval_shape(fn, structs(grown), *units.arguments)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"the function cannot have {widths}: {error}\nUnits that it folds into each other, such as the groups "
                "of a shuffled convolution, cannot grow by themselves, and rotary features grow only in pairs."
            ) from None
    return fn, route


def _check(units: Units, widths) -> None:
    check_widths(units, widths)
    if units.fn is None or not units.arguments:
        raise ValueError("grow needs the function that the units were found in: call find_units.")
    for name, width in widths.items():
        unit_set = units.sets[name]
        if width < unit_set.size:
            raise ValueError(
                f"widths[{name!r}] = {width} is below the present {unit_set.size} units; to remove units use compact."
            )
        if unit_set.reduced and width > unit_set.size:
            raise ValueError(
                f"{name!r} cannot grow without changing the outputs: {unit_set.reason}. Leave it as it is."
            )


def _parameter(units: Units, found: Analysis, ways, name: str, leaf, axes: dict[int, Layout], key):
    """The parameter in its new layout, with the values of the new units."""
    # By the host: dozens of small compilations for every new shape would take longer than all the rest.
    wide = np.asarray(spread(np.asarray(leaf), axes, 0))
    for axis, layout in axes.items():
        others = [axes[a].new if a in axes else np.zeros(n, bool) for a, n in enumerate(wide.shape)]
        for owner in dict.fromkeys(layout.owner[layout.new].tolist()):
            fresh = np.flatnonzero(layout.owner == owner)
            value = start(found, units.sets[owner], ways[owner], name, axis)
            if ways[owner] == "paired" and value == "random":
                fresh = np.flatnonzero(first_run(layout.owner == owner))
            if value == "random":
                old = [np.flatnonzero(~new) for new in others]
                block = np.moveaxis(wide[np.ix_(*old)], axis, 0)
                rows = outside_span(jax.random.fold_in(key, axis), block.reshape(len(block), -1), len(fresh))
                rows = np.moveaxis(rows.reshape(len(fresh), *block.shape[1:]), 0, axis)
                old[axis] = fresh
                wide[np.ix_(*old)] = rows.astype(wide.dtype)
            elif value == "one":
                where: list[Any] = [slice(None)] * wide.ndim
                where[axis] = fresh
                wide[tuple(where)] = 1
    return jnp.asarray(wide)


def outside_span(key, old, count: int) -> np.ndarray:
    """So many rows as long as the old ones are, orthogonal to them and to each other where there is room; float64."""
    old = np.asarray(old, np.float64)
    fresh = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel()).normal(size=(count, old.shape[1]))
    room = old.shape[1] - old.shape[0]
    if room > 0:
        basis, _ = np.linalg.qr(old.T)
        for _ in range(2):  # once more, for what rounding left
            fresh = fresh - (fresh @ basis) @ basis.T
        most = min(count, room)
        fresh[:most] = np.linalg.qr(fresh[:most].T)[0].T
    length = np.sqrt(np.mean(np.sum(np.square(old), axis=1)))
    norm = np.linalg.norm(fresh, axis=1, keepdims=True)
    return fresh * np.where(length > 0, length, 1) / np.where(norm > 0, norm, 1)
