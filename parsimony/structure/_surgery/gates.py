"""`gates`: one trainable multiplier for each unit of a network that is there already."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..._penalties.unit_penalty import Slices, UnitPenalty
from ..._state import check_params
from ..._tree import named_leaves
from ..._words import check_words, listed, shown
from .._analysis.analyse import is_statistic
from .._analysis.remembered import found_analysis
from .._units import Units, check_units
from .gate_places import gate_places
from .opt_state import belongs


@dataclasses.dataclass(frozen=True)
class Gated:
    """A function with a gate for each unit.

    Attributes:
      fn: fn(gated_params, *args) = the function on `fold(gated_params)`; jit, grad, vmap and training work as on it.
      params: {"gates": {set: ones, float32, one for each unit}, "params": the parameters}: at the start of a training.
      left_out: {set: why its units have no gate}, of the sets that were not asked for by name.
      slices: {parameter: {axis: {set: for each index the unit whose gate multiplies it, −1 for none}}}.

    Examples:
      >>> import jax, jax.numpy as jnp, parsimony as pm
      >>> params = {"w1": jnp.ones((4, 2)), "w2": jnp.ones((2, 3))}
      >>> fn = lambda p, x: jax.nn.relu(x @ p["w1"]) @ p["w2"]
      >>> units = pm.structure.find_units(fn, params, jnp.ones((1, 4)))
      >>> gated = pm.structure.gates(units, fn, params)
      >>> gated.params["gates"]["w1"].tolist(), {name: list(axes) for name, axes in gated.slices.items()}
      ([1.0, 1.0], {'w2': [0]})
      >>> half = {"gates": {"w1": jnp.array([1.0, 0.5])}, "params": params}
      >>> gated.fn(half, jnp.ones((1, 4))).tolist(), gated.fold(half)["w2"].tolist()
      ([[6.0, 6.0, 6.0]], [[1.0, 1.0, 1.0], [0.5, 0.5, 0.5]])

    References:
      See `gates`.
    """

    fn: Callable[..., Any]
    params: dict[str, Any] = dataclasses.field(repr=False)
    left_out: dict[str, str]
    slices: dict[str, dict[int, dict[str, np.ndarray]]] = dataclasses.field(repr=False)

    def fold(self, gated_params):
        """The plain parameters, with the gates multiplied in: the same outputs without gates.

        Args:
          gated_params: a tree like `params`.

        Returns:
          A tree like `params["params"]`, of its dtypes. What a unit's gate of 0 leaves, `compact` removes exactly.

        Raises:
          TypeError, ValueError: a tree of another structure or other shapes.
        """
        return _fold(gated_params, self.params["gates"], self.slices)

    def penalty(self, strength: float = 1.0) -> UnitPenalty:
        """Ω(g) = λ Σ_u |g_u|: the lasso on the gates alone, each set a layer of its own.

        Args:
          strength: λ > 0; a `sparsity` or `path_speed` sets the strength itself.

        Returns:
          A penalty for `split_lbi` and `inverse_scale_space` on `params`, or on its part `params["gates"]`.

        Raises:
          ValueError: a strength that is not positive and finite.
        """
        slices, table, start = [], [], 0
        for name, ones in self.params["gates"].items():
            size = len(ones)
            slices.append(Slices(f"gates/{name}", (size,), 0, np.arange(start, start + size)))
            table.append((name, start, size))
            start += size
        return UnitPenalty(tuple(slices), tuple(table), strength)


def gates(units: Units, fn: Callable[..., Any], params, *, sets: Sequence[str] | None = None) -> Gated:
    """One multiplier g_u for each unit, 1 at the start: a path on a network that is trained already.

        gated(θ, g)(x) = fn(θ ⊙ g)(x),   (θ ⊙ g)[slice of unit u] = g_u·θ[slice of unit u]

    At g = 1 the parameters are unchanged, bit for bit; at g_u = 0 the function is the one without unit u, as `compact`
    gives it. The slices that carry the gate are those that read the unit's activations: a factor there leaves bias,
    normalisation and activation alone. Of a channel that is read through its own normalisation (RMSNorm, LayerNorm)
    they are those that make it, at all its places; of features that queries and keys share, one of the two sides. That
    zeros there remove the unit is proved on the program.

    Gates are parameters: a path on them alone by `penalty`, any optimizer for the rest. Their order is one of units:
    `pm.select(...)["gates"]` is what `compact` keeps, `pm.rank(...)["gates"]` an `order` for `choose`.

    To train the gated network on after a cut, compact it with its optimizer state before `fold`: a gate belongs to its
    unit in `find_units(gated.fn, gated_params, *args)`, whose sets have the members "gates/SET". The state of folded
    gates has no place any more, and `compact` says so.

    Args:
      units: what `find_units` found.
      fn: fn(params, *args), the function to train: the one that the units were found in, or the same network in
        training mode.
      params: its parameters, as the units were found in, or the part of them that is trained.
      sets: names of the sets that get gates; None: all that have an exact place, heads and the features inside them.

    Returns:
      `Gated`.

    Raises:
      TypeError: `fn` is not a function.
      ValueError: an unknown set, or one without an exact place, asked for by name; no set has one; units without a
        function; parameters of other shapes.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, parsimony as pm
      >>> params = {"w1": jnp.array([[3.0, 1.0, 2.0, 4.0]]), "w2": jnp.ones((4, 1))}
      >>> fn = lambda p, x: jax.nn.relu(x @ p["w1"]) @ p["w2"]
      >>> x = jnp.ones((8, 1))
      >>> units = pm.structure.find_units(fn, params, x)
      >>> gated = pm.structure.gates(units, fn, params)
      >>> path = pm.split_lbi(0.01, penalty=gated.penalty(), **pm.pace(0.01, 100, sparsity=0.5))
      >>> both = {"gates": path, "params": optax.sgd(1e-3)}
      >>> tx = optax.partition(both, {"gates": "gates", "params": "params"})
      >>> theta, state = gated.params, tx.init(gated.params)
      >>> @jax.jit
      ... def step(theta, state):
      ...     grads = jax.grad(lambda theta: jnp.mean((gated.fn(theta, x) - 10.0) ** 2))(theta)
      ...     updates, state = tx.update(grads, state, theta)
      ...     return optax.apply_updates(theta, updates), state
      >>> for _ in range(100):
      ...     theta, state = step(theta, state)
      >>> keep = pm.select(theta, state, sparsity=0.5)["gates"]  # {set: bool for each unit}
      >>> small = pm.structure.compact(units, keep, gated.fold(theta))
      >>> keep["w1"].tolist(), small.params["w1"].shape
      ([True, False, False, True], (1, 2))

    References:
      Gates on heads, queries, keys and hidden units as the structure of Split LBI: SPP (arXiv 2501.03289), for the
      modules of one network; where they go in any function, and the proof, are ours.
    """
    check_units("gates(units, fn, params)", units, fn, params)
    if not callable(fn):
        swapped = "; the arguments are swapped: gates(units, fn, params)" if callable(params) else ""
        raise TypeError(f"gates: expected the function fn(params, *args) second, got {shown(fn)}{swapped}.")
    if sets is not None:
        check_words("sets", sets, "names of sets")
        for name in sets:
            units.named(name, "sets")
    found = found_analysis(units)
    if found is None:
        raise ValueError("gates needs the function that the units were found in: call find_units.")
    names = _names_in(units, params)
    exact = [name for name in (units.sets if sets is None else sets) if not units.sets[name].reduced]
    places, left_out = gate_places(units, found, exact, _no_carriers(units, names))
    left_out |= {name: units.sets[name].reason for name in sets or units.sets if units.sets[name].reduced}
    if left_out and (sets is not None or not places):
        name, reason = next(iter(left_out.items()))
        raise ValueError(
            f"the units of {name!r} have no place for a gate of which 0 removes them exactly: {reason}. "
            f"{'Leave this set out.' if places else 'No set has one: print the units to see what each is bound by.'}"
        )
    if not places:
        raise ValueError("there are no units to put gates on: print the units to see why each axis is fixed.")
    slices: dict[str, dict[int, dict[str, np.ndarray]]] = {}
    for name, mine in places.items():
        for (parameter, axis), unit in mine.items():
            slices.setdefault(names[parameter], {}).setdefault(axis, {})[name] = unit
    dtype = jnp.result_type(jnp.float32, *(jnp.finfo(units.dtypes[p]).dtype for m in places.values() for p, _ in m))
    ones = {name: jnp.ones(units.sets[name].size, dtype) for name in places}

    @functools.wraps(fn)
    def function(gated_params, *args, **kwargs):
        return fn(_fold(gated_params, ones, slices), *args, **kwargs)

    return Gated(function, {"gates": ones, "params": params}, left_out, slices)


def _names_in(units: Units, params) -> dict[str, str]:
    """{parameter of the units: its name in `params`}, which may be a part of the tree that the units were found in."""
    check_params(params)
    names: dict[str, str] = {}
    for name, leaf in named_leaves(params)[0]:
        parameter = belongs(name, units.shapes)
        shape = units.shapes.get(parameter or "")
        if parameter is None or parameter in names or shape != jnp.shape(leaf):
            raise ValueError(
                f"parameter {name!r} has shape {jnp.shape(leaf)} in params, but the units were found with "
                f"{'no such parameter' if shape is None else shape}; call find_units on these parameters."
            )
        names[parameter] = name
    return names


def _no_carriers(units: Units, names: dict[str, str]) -> dict[str, str]:
    """{parameter: why it cannot carry a gate}."""
    reasons = {}
    for name, dtype in units.dtypes.items():
        if name not in names:
            reasons[name] = "is not in params"
        elif is_statistic(name):
            reasons[name] = "holds running statistics"
        elif not _is_scalable(dtype):
            reasons[name] = f"has dtype {dtype}"
    return reasons


def _is_scalable(dtype: str) -> bool:
    """Whether a product with float32 has a dtype: not that of a random key, and not of float8."""
    try:
        return jnp.issubdtype(dtype, jnp.inexact) and jnp.issubdtype(jnp.promote_types(dtype, "float32"), jnp.inexact)
    except (TypeError, ValueError):
        return False


def _fold(gated_params, ones, slices):
    """The parameters, each slice times the gate of its unit."""
    if not isinstance(gated_params, dict) or set(gated_params) != {"gates", "params"}:
        held = f"a dict with the keys {listed(gated_params)}" if isinstance(gated_params, dict) else shown(gated_params)
        raise TypeError(f'gated_params: expected {{"gates": ..., "params": ...}} like Gated.params, got {held}.')
    given, leaves = gated_params["gates"], named_leaves(gated_params["params"])
    shapes = {name: jnp.shape(gate) for name, gate in given.items()}
    if shapes != (expected := {name: jnp.shape(one) for name, one in ones.items()}):
        raise ValueError(f"gates: expected the sets and shapes {expected}, got {shapes}.")
    if missing := slices.keys() - {name for name, _ in leaves[0]}:
        raise ValueError(f"params: {min(missing)!r} carries gates and is missing.")
    return leaves[1].unflatten([_scaled(name, leaf, slices.get(name, {}), given) for name, leaf in leaves[0]])


def _scaled(name: str, leaf, axes: dict[int, dict[str, np.ndarray]], given):
    scaled, shape = leaf, jnp.shape(leaf)
    for axis, unit_of in axes.items():
        for set_name, unit in unit_of.items():
            if len(shape) <= axis or shape[axis] != len(unit):
                raise ValueError(f"parameter {name!r}: expected {len(unit)} indices on axis {axis}, got shape {shape}.")
            gate = given[set_name]
            if not np.array_equal(unit, np.arange(len(gate))):
                gate = jnp.append(gate, jnp.ones((), gate.dtype))[unit]  # the last one is for index −1, no unit
            scaled = scaled * jnp.expand_dims(gate, [a for a in range(len(shape)) if a != axis])
    return scaled.astype(leaf.dtype) if axes else leaf
