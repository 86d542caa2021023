"""What a user may hand over, checked once, where it comes in."""

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax

from ._tree import is_numeric, named_leaves
from ._words import shown


def concrete(value) -> bool:
    """Whether a number can be looked at: it is not traced."""
    return not isinstance(value, jax.core.Tracer)


def check_scalar(name: str, value: Any, expected: str) -> None:
    """Rejects anything but one number: arrays of several are for `jax.vmap` over the transformation."""
    if isinstance(value, bool) or not (isinstance(value, int | float) or hasattr(value, "dtype")):
        raise TypeError(f"{name}={value!r}: expected {expected}.")
    if jnp.ndim(value):
        raise ValueError(f"{name} has the shape {jnp.shape(value)}: expected one number; map over several by jax.vmap.")
    if isinstance(value, int) and abs(value) >= 2**31:
        raise ValueError(f"{name}={value!r}: JAX's integers end below 2**31; write the float {float(value):g}.")


def check_flag(name: str, value: Any) -> None:
    """Rejects what has no truth value."""
    if not isinstance(value, bool | int | np.bool_) and (not hasattr(value, "dtype") or jnp.ndim(value)):
        raise TypeError(f"{name}={shown(value)}: expected True or False.")


def check_floating(name: str, dtype: Any) -> None:
    """Rejects anything but a floating-point dtype."""
    try:
        known = isinstance(dtype, str | type | np.dtype) and jnp.issubdtype(dtype, jnp.floating)
    except TypeError:  # a word that names none
        known = False
    if not known:
        raise ValueError(f"{name}={shown(dtype)}: expected a floating-point dtype such as 'float32'.")


def check_part(name: str, value: Any, expected: str) -> None:
    """Rejects what is not in (0, 1]."""
    check_scalar(name, value, expected)
    if not 0 < value <= 1:
        raise ValueError(f"{name}={value!r}: expected {expected}.")


RANGE = 1e-30, 1e30
"""Of positive hyper-parameters: beyond, float32 turns a step into infinity or nothing."""

SAMPLED = (0, *(2**i for i in range(24)))
"""The counts at which a schedule is looked at before a run."""


def check_schedule(name: str, schedule: Any) -> None:
    """Rejects a schedule that is negative or not finite at count 0, 1, 2, 4, … 2²³, where that can be seen."""
    if not callable(schedule):
        return
    values, wrong = {}, None
    try:
        with jax.ensure_compile_time_eval():
            for count in SAMPLED:
                value = schedule(jnp.asarray(count))
                if not (isinstance(value, int | float) or hasattr(value, "dtype")):
                    wrong = value if value is not None else "nothing"
                    break
                values[count] = float(jnp.asarray(value))
    except Exception:  # traced, one value for each of many runs, or a table that is shorter: seen when it is reached
        pass
    if wrong is not None:
        raise TypeError(f"{name}: the schedule gives {shown(wrong)} at step {len(values)}; expected a number.")
    for count, value in values.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name}: the schedule gives {value:g} at step {count}; expected finite numbers ≥ 0.")


def check_positive(name: str, value: Any) -> None:
    """Rejects what is not positive and finite, where that can be seen."""
    if value is None and name == "dual_learning_rate":
        return
    if callable(value) and name.endswith("learning_rate"):
        return
    schedule = " or a schedule" if name.endswith("rate") else ""
    hint = f". Did you mean penalty={value!r}?" if hasattr(value, "prox") else ""
    check_scalar(name, value, f"a positive number{schedule}{hint}")
    if not concrete(value):
        return
    # An injected schedule may pass through zero, and hands over arrays.
    injected_zero = isinstance(value, jax.Array) and name.endswith("learning_rate") and value == 0
    number: Any = value
    if not RANGE[0] <= float(number) <= RANGE[1] and not injected_zero:
        raise ValueError(f"{name}={value!r}: expected a positive, finite number, from {RANGE[0]} to {RANGE[1]}.")


def check_count(name: str, value: Any, what: str = "an int of at least 1") -> None:
    """Rejects anything but an int of at least 1, and one that JAX's integers cannot hold."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 1 <= value < 2**31:
        raise ValueError(f"{name}={value!r}: expected {what}.")


def check_share(name: str, value: Any, what: str) -> Fraction:
    """The share in [0, 1) as the decimal number that it prints as: a product of floats could lose a group."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise TypeError(f"{name}={value!r}: expected a number in [0, 1).")
    if not 0 <= value < 1:
        raise ValueError(f"{name}={value!r}: expected {what}, in [0, 1){in_percent(value)}.")
    return Fraction(repr(float(value)))


def in_percent(value: Any) -> str:
    """What to write in the place of a number that was meant in percent."""
    return f"; for {value} % write {float(value) / 100:g}" if 1 < float(value) < 100 else ""


def check_finite(what: str, named: Iterable[tuple[str, Any]]) -> None:
    """Rejects NaN and infinity and names the parameter, where the values are known."""
    for name, x in named:
        if isinstance(x, jax.core.Tracer) or not jnp.issubdtype(jnp.result_type(x), jnp.inexact):
            continue
        wrong = int(np.size(x) - np.isfinite(np.asarray(x, np.float64)).sum())
        if wrong:
            raise ValueError(
                f"{what} of {name!r} holds {wrong} of {np.size(x)} values that are not finite, so that nothing can be "
                "read off it: the training has diverged. Return to an earlier checkpoint with a smaller learning rate."
            )


def check_not_nan(where: str, numbers: np.ndarray, name: str) -> None:
    """Rejects NaN in an order, where it cannot be ranked; infinity is first or last."""
    if np.isnan(numbers).any():
        raise ValueError(f"{where}: the numbers of {name!r} contain NaN, which cannot be ranked.")


def check_decay(name: str, value: Any, none: str = "") -> None:
    """Rejects a decay outside of [0, 1), with which a moving average grows without end."""
    check_scalar(name, value, f"a number in [0, 1){none}")
    if concrete(value) and not 0 <= float(value) < 1:
        raise ValueError(f"{name}={value!r}: expected a number in [0, 1){none}.")


def check_momentum(momentum: Any, nesterov: bool) -> None:
    """Rejects what `optax.trace` would take, and grow without end."""
    if momentum is not None:
        check_decay("momentum", momentum, ", or None for none")
    check_flag("nesterov", nesterov)
    if nesterov and momentum is None:
        raise ValueError("nesterov=True needs a momentum, e.g. momentum=0.9.")


def weight_decay_of(weight_decay: Any, mask: Any) -> optax.GradientTransformation:
    """The decay d·W that is added to a gradient; none for None."""
    if weight_decay is None:
        if mask is not None:
            raise ValueError("weight_decay_mask needs a weight_decay, e.g. weight_decay=1e-4.")
        return optax.identity()
    check_scalar("weight_decay", weight_decay, "a number ≥ 0, or None for none")
    if concrete(weight_decay) and not 0 <= weight_decay <= RANGE[1]:
        raise ValueError(f"weight_decay={weight_decay!r}: expected a number ≥ 0, or None.")
    return optax.add_decayed_weights(weight_decay, mask)


def transformation(where: str, tx: Any, example: str) -> optax.GradientTransformationExtraArgs:
    """The transformation, accepting extra arguments; raises if it is not one."""
    if not (hasattr(tx, "init") and hasattr(tx, "update")):
        raise TypeError(f"{where}: expected an Optax transformation, such as {example}.")
    return optax.with_extra_args_support(tx)


def as_arrays(tree):
    """The tree with its NumPy arrays and Python numbers as JAX arrays, of a dtype that JAX has enabled."""
    return jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, np.ndarray | np.generic | float | int) else x, tree)


def accumulators(tree, dtype: str):
    """The weights in at least this dtype; not weights: random keys become zeros, counters stay as they are.

    Raises:
      ValueError: floating-point numbers that JAX does not promote, such as float8.
    """

    def accumulator(name, w):
        if not is_numeric(w):
            return jnp.zeros(w.shape, "uint32")
        if not jnp.issubdtype(w.dtype, jnp.inexact):
            return w
        try:
            wide = jnp.promote_types(w.dtype, dtype)
            return jnp.zeros(w.shape, wide) if isinstance(w, jax.ShapeDtypeStruct) else w.astype(wide)
        except ValueError:
            raise ValueError(
                f"parameter {name!r} has dtype {w.dtype}, which does not promote to {dtype}: train a copy of it in "
                "bfloat16 or more, or keep it out by optax.masked."
            ) from None

    leaves, treedef = named_leaves(tree)
    return treedef.unflatten([accumulator(name, w) for name, w in leaves])
