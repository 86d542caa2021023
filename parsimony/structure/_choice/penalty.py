"""`unit_penalty`: the groups of Split LBI's penalty are the units that can be removed."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from ..._penalties.unit_penalty import Slices, UnitPenalty
from ..._words import check_words, one_of
from .._analysis.find import find_units
from .._units import Units, UnitSet, check_units


def penalty_of(fn, params, *args, strength: float = 1.0, scale: Literal["rms"] | None = None) -> UnitPenalty:
    """The group penalty over the whole units of a network, read off its program: in one call what trains it.

    `unit_penalty(find_units(fn, params, *args), strength, scale)`. For networks with normalisation it is the penalty to
    take: a filter alone can shrink to nothing and still do what it did, since the normalisation makes up for it; with
    the scale and shift in its group it fades.

    Args:
      fn, params, args: as in `find_units`. Batch statistics belong to `params` here; they are not penalised.
      strength, scale: as in `unit_penalty`; a `sparsity` or `path_speed` sets the strength itself.

    Returns:
      A penalty for `split_lbi` and `inverse_scale_space`, alone or in `Rules`.

    Raises:
      ValueError: there are no units; and as `find_units`.

    Examples:
      >>> import jax, jax.numpy as jnp, parsimony as pm
      >>> params = {"w1": jnp.ones((4, 6)), "scale": jnp.ones(6), "w2": jnp.ones((6, 3))}
      >>> def fn(p, x):
      ...     h = x @ p["w1"]
      ...     h = p["scale"][None] * (h - h.mean(0, keepdims=True)) / (h.std(0, keepdims=True) + 1e-5)
      ...     return jax.nn.relu(h) @ p["w2"]
      >>> penalty = pm.structure.penalty_of(fn, params, jnp.ones((2, 4)))
      >>> (penalty.group_norms(params) ** 2).tolist()  # four weights and a scale each
      [5.0, 5.0, 5.0, 5.0, 5.0, 5.0]
      >>> tx = pm.split_lbi(0.1, penalty=penalty, **pm.pace(0.1, steps=100, sparsity=0.5))

    References:
      As `unit_penalty`.
    """
    return unit_penalty(find_units(fn, params, *args), strength, scale)


def unit_penalty(
    units: Units,
    strength: float = 1.0,
    scale: Literal["rms"] | None = None,
    *,
    sets: Sequence[str] | None = None,
    of: Literal["makers", "readers"] = "makers",
) -> UnitPenalty:
    """The group penalty over whole units: a filter with its bias and the scale and shift of its normalisation.

        Ω(x) = λ Σ_u c_u‖x_u‖₂,   x_u = what makes unit u's activations, in all parameters

    What Γ leaves out is zero as a whole, so the sparse model W̃ is `units.zero(...)` in all that counts, and `compact`
    removes it without any change of W̃'s outputs. Channels that are added to one stream are one group.

    Args:
      units: of the function that is trained. Batch statistics may be among its parameters; they are not penalised.
      strength: λ > 0; `path_speed` sets it from the length of a training.
      scale: None for c_u = 1; "rms" for c_u = √|u|: small units enter on equal terms.
      sets: names of the sets to penalise; None: all whose removal is exact and whose weights are their own. Of sets
        that share weights the widest is taken: the heads of an attention, not the features inside them.
        `penalty.sets` says which there are.
      of: "makers", as above; or "readers": x_u is what takes the unit's activations in, such as the slices of the next
        layer's kernel. A normalisation between the two does not make up for a pull on these.

    Returns:
      A penalty for `split_lbi` and `inverse_scale_space`, alone or in `Rules`.

    Raises:
      ValueError: an unknown set; of sets that are named, two that share weights, or a parameter of which only some
        indices are in a unit.

    Examples:
      >>> import jax, jax.numpy as jnp, parsimony as pm
      >>> params = {"w1": jnp.ones((4, 6)), "b1": jnp.ones(6), "w2": jnp.ones((6, 3))}
      >>> fn = lambda p, x: jax.nn.relu(x @ p["w1"] + p["b1"][None]) @ p["w2"]
      >>> penalty = pm.structure.unit_penalty(pm.structure.find_units(fn, params, jnp.ones((2, 4))), strength=2.0)
      >>> (penalty.group_norms(params) ** 2).tolist()  # four weights and a bias each
      [5.0, 5.0, 5.0, 5.0, 5.0, 5.0]
      >>> tx = pm.split_lbi(0.1, penalty=penalty)

    References:
      ArXiv 2007.02010 penalises filters alone; whole units are ours.
    """
    check_units("unit_penalty(units, strength)", units, strength)
    if sets is not None:
        check_words("sets", sets, "names of sets")
    one_of("of", of, ("makers", "readers"))
    names = _default_sets(units, of) if sets is None else list(sets)
    owner: dict[str, str] = {}
    found: dict[str, tuple[int, np.ndarray]] = {}
    table, start = [], 0
    for name in names:
        unit_set = units.named(name, "sets")
        for parameter, axis in _places(unit_set, of):
            unit = unit_set.members[parameter][axis]
            before = found.get(parameter, (axis, np.full(unit.shape, -1)))
            if before[0] != axis or ((before[1] >= 0) & (unit >= 0)).any():
                raise ValueError(
                    f"the sets {owner[parameter]!r} and {name!r} share weights of parameter {parameter!r}, and a "
                    f"weight can be in one group only. Choose, for example sets={_apart(units, names, of)}."
                )
            owner[parameter] = name
            found[parameter] = (axis, np.where(unit >= 0, unit + start, before[1]))
        table.append((name, start, unit_set.size))
        start += unit_set.size
    for parameter, (axis, unit) in found.items():
        if (unit < 0).any():
            raise ValueError(
                f"parameter {parameter!r}, axis {axis}: only {int((unit >= 0).sum())} of {len(unit)} indices are in a "
                "unit of these sets, and a parameter is penalised as a whole or not at all. Add the sets of the "
                f"others, or leave out {owner[parameter]!r}."
            )
    if not found:
        raise ValueError("there are no units to penalise: print the units to see why each axis is fixed.")
    slices = tuple(Slices(name, units.shapes[name], axis, unit) for name, (axis, unit) in found.items())
    return UnitPenalty(slices, tuple(table), strength, scale)


def _places(unit_set: UnitSet, of: str) -> list[tuple[str, int]]:
    """(parameter, axis) of what makes or of what reads the units."""
    return list(unit_set.makers if of == "makers" else unit_set.readers)


def _default_sets(units: Units, of: str) -> list[str]:
    """All exact sets that share no weights, the widest first, and that cover the parameters that they are of."""
    exact = [unit_set for unit_set in units.sets.values() if not unit_set.reduced and _places(unit_set, of)]
    breadth = lambda unit_set: _breadth(unit_set, of)
    names = _apart(units, [unit_set.name for unit_set in sorted(exact, key=breadth, reverse=True)], of)
    while True:
        covered: dict[str, np.ndarray] = {}
        for name in names:
            for parameter, axis in _places(units.sets[name], of):
                inside = units.sets[name].members[parameter][axis] >= 0
                covered[parameter] = covered.get(parameter, False) | inside
        partly = {parameter for parameter, inside in covered.items() if not inside.all()}
        places = {name: {parameter for parameter, _ in _places(units.sets[name], of)} for name in names}
        left = [name for name in names if not places[name] & partly]
        if left == names:
            return [name for name in units.sets if name in names]
        names = left


def _breadth(unit_set: UnitSet, of: str) -> tuple[int, int]:
    """How many parameters make or read the units of a set, and how many of their indices."""
    places = [unit_set.members[parameter][axis] for parameter, axis in _places(unit_set, of)]
    return len({parameter for parameter, _ in _places(unit_set, of)}), sum(int((unit >= 0).sum()) for unit in places)


def _apart(units: Units, names: list[str], of: str) -> list[str]:
    """Of these sets, the first ones that share no parameter's weights."""
    taken: dict[str, list[tuple[int, np.ndarray]]] = {}
    free = []
    for name in names:
        unit_set = units.sets[name]
        mine = [(parameter, axis, unit_set.members[parameter][axis] >= 0) for parameter, axis in _places(unit_set, of)]
        if not any(
            axis != other or (inside & before).any()
            for parameter, axis, inside in mine
            for other, before in taken.get(parameter, [])
        ):
            free.append(name)
            for parameter, axis, inside in mine:
                taken.setdefault(parameter, []).append((axis, inside))
    return free
