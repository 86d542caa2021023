"""Rules of the primitives that act entry by entry: index i of each operand meets index i of the others."""

import dataclasses
import functools

import numpy as np

from ..abstract import Value

# f(0) = 0
_KEEP_ZERO = """abs asin asinh atan atanh cbrt ceil conj convert_element_type copy copy_p erf erf_inv expm1 floor imag
    log1p neg real reduce_precision round sign sin sinh sqrt square stop_gradient tan tanh"""
_OTHERS = """acos acosh add add_any and atan2 bessel_i0e bessel_i1e clamp clz complex cos cosh digamma div eq erfc exp
    exp2 ge gt igamma igammac integer_pow is_finite le lgamma log logistic lt max min mul ne nextafter not or polygamma
    population_count pow regularized_incomplete_beta rem rsqrt select_n shift_left shift_right_arithmetic
    shift_right_logical sub xor zeta"""


def elementwise(walk, eqn, operands: list[Value]):
    """Unites the operands axis by axis; scalars go along."""
    shape = eqn.outvars[0].aval.shape
    weight = all(value.weight for value in operands)
    labels, zero, alike = [], [], []
    for axis, size in enumerate(shape):
        # Scalars, and axes of size one, are repeated along the others.
        runs = [value.ndim > 0 and value.shape[axis] == size for value in operands]
        for value, along in zip(operands, runs, strict=True):
            if value.ndim and not along:
                walk.fix(value, axis, "an axis of size one that is repeated")
        mine = [value for value, along in zip(operands, runs, strict=True) if along]
        labels.append(functools.reduce(walk.coupling.unite, (value.labels[axis] for value in mine)))
        zeros = [
            value.zero[axis] if along else value.constant == 0 for value, along in zip(operands, runs, strict=True)
        ]
        zero.append(_stays_zero(eqn, operands, zeros))
        if walk.singular:
            walk.coupling.inexact(labels[-1], ~_singular(eqn, zeros), f"{eqn.primitive.name} where it is not finite")
        alike.append(bool(np.all(zero[-1])) or all(value.harmless(axis) for value in mine))
    constant = operands[0].constant if eqn.primitive.name in ("convert_element_type", "copy", "stop_gradient") else None
    return Value(tuple(shape), tuple(labels), tuple(zero), tuple(alike), constant, weight)


def _stays_zero(eqn, operands: list[Value], zeros: list):
    """Where the result is zero, from where the operands are."""
    name, number = eqn.primitive.name, [value.constant for value in operands]
    match name:
        case "mul" | "and":
            return zeros[0] | np.asarray(zeros[1])
        case "div" | "rem":
            return zeros[0]
        case "add" | "sub" | "add_any" | "or" | "xor" | "complex" | "atan2":
            return zeros[0] & np.asarray(zeros[1])
        case "max" | "min":
            beyond = (lambda c: c is not None and c <= 0) if name == "max" else (lambda c: c is not None and c >= 0)
            return (zeros[0] | np.asarray(beyond(number[0]))) & (zeros[1] | np.asarray(beyond(number[1]))) & (
                np.asarray(zeros[0]) | zeros[1]
            )  # fmt: skip
        case "pow":
            return zeros[0] & np.asarray(number[1] is not None and number[1] > 0)
        case "integer_pow":
            return zeros[0] & np.asarray(eqn.params["y"] > 0)
        case "select_n":
            return functools.reduce(np.logical_and, zeros[1:])
        case "clamp":
            low, _, high = number
            return zeros[1] & np.asarray(low is not None and high is not None and low <= 0 <= high)
        case "lt" | "gt" | "ne":
            return zeros[0] & np.asarray(zeros[1])
    return zeros[0] if name in _KEEP_ZERO.split() else False


def _singular(eqn, zeros: list):
    """Where the result is not finite because an operand is zero."""
    match eqn.primitive.name:
        case "div" | "rem":
            return np.asarray(zeros[1])
        case "rsqrt" | "log" | "lgamma" | "digamma":
            return np.asarray(zeros[0])
        case "integer_pow":
            return np.asarray(zeros[0]) & (eqn.params["y"] < 0)
    return np.asarray(False)


IDENTITIES = ("device_put", "layout_constraint", "mesh_cast", "name", "optimization_barrier", "pbroadcast", "pcast",
              "pvary", "reshard", "sharding_constraint", "with_memory_space_constraint")  # fmt: skip
"""They say where an array lies or what it is called, and hand it on."""


def bitcast(walk, eqn, operands: list[Value]):
    """Between dtypes of one width entry by entry, and the bits of zero are zero."""
    if tuple(eqn.outvars[0].aval.shape) != operands[0].shape:
        return walk.fix_all(eqn, operands, "a bitcast to a dtype of another width")
    return dataclasses.replace(elementwise(walk, eqn, operands), zero=operands[0].zero, alike=None)


def identity(walk, eqn, operands: list[Value]):
    return list(operands)


def over_devices(walk, eqn, operands: list[Value]):
    """A sum over the devices of a mesh, entry by entry."""
    return [dataclasses.replace(value, alike=None, constant=None) for value in operands]


def observer(walk, eqn, operands: list[Value]):
    """What is printed or handed to a callback for debugging binds nothing."""
    return []


def random(walk, eqn, operands: list[Value]):
    """Which number an entry gets depends on how many there are: fewer entries would get others."""
    return walk.fix_all(eqn, operands, _RANDOM_REASON)


_RANDOM_REASON = (
    "random numbers, as of a Dropout that is at work: set the model to inference, by model.eval() (Flax NNX) or "
    "deterministic=True"
)
_RANDOM = ("random_bits", "random_clone", "random_fold_in", "random_seed", "random_split", "random_unwrap",
           "random_wrap", "rng_bit_generator", "threefry2x32")  # fmt: skip

RULES = (
    dict.fromkeys(f"{_KEEP_ZERO} {_OTHERS}".split(), elementwise)
    | {"bitcast_convert_type": bitcast}
    | dict.fromkeys(IDENTITIES, identity)
    | dict.fromkeys(["psum", "psum2", "psum_invariant"], over_devices)
    | dict.fromkeys(["debug_callback", "debug_print", "inspect_sharding"], observer)
    | dict.fromkeys(_RANDOM, random)
)
