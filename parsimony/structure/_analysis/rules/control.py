"""Rules of the primitives that hold programs of their own: calls, loops and branches."""

import dataclasses

import numpy as np
from jax.extend import core as jex

from ..abstract import Value, rigid

_LOOP = "the axis that a scan runs over"


def plain(value: Value) -> Value:
    """The value beyond a border across which no correction for removed slices is carried."""
    return dataclasses.replace(value, alike=None)


def call(walk, eqn, operands: list[Value]):
    """A call is walked through with what is known of its operands."""
    return walk.enter(called(eqn), None, operands)


def bordered_call(walk, eqn, operands: list[Value]):
    return [plain(value) for value in walk.enter(called(eqn), None, [plain(value) for value in operands])]


def own_derivative(walk, eqn, operands: list[Value]):
    """Of a function with a derivative of its own all inputs are read: the derivative by a kernel has them all."""
    inputs, walk.inputs = walk.inputs, False
    results = bordered_call(walk, eqn, operands)
    walk.inputs = inputs
    return results


def called(eqn) -> jex.ClosedJaxpr:
    """The program of an equation that is `ENTERED`."""
    program = next(eqn.params[key] for key in ("jaxpr", "call_jaxpr", "call") if key in eqn.params)
    return program if isinstance(program, jex.ClosedJaxpr) else jex.ClosedJaxpr(program, [])


def entered(eqn) -> tuple[jex.ClosedJaxpr, int] | None:
    """The program that an equation runs on its operands from the one of this place on; None where it is no call.

    Of branches for platforms it is the default.
    """
    if eqn.primitive.name == "cond" and (platforms := eqn.params.get("branches_platforms")) is not None:
        return dict(zip(platforms, eqn.params["branches"], strict=True))[None], 1
    return (called(eqn), 0) if eqn.primitive.name in ENTERED else None


def scan_counts(eqn) -> tuple[int, int]:
    """How many operands of a scan are constants and how many its carry; the rest have an axis that the body lacks."""
    body = getattr(eqn.params["jaxpr"], "jaxpr", eqn.params["jaxpr"])
    ndim = lambda variables: [len(var.aval.shape) for var in variables]
    carried = sum(a == b for a, b in zip(ndim(eqn.outvars), ndim(body.outvars), strict=True))
    rest = sum(a == b for a, b in zip(ndim(eqn.invars), ndim(body.invars), strict=True))
    return rest - carried, carried


def scan(walk, eqn, operands: list[Value]):
    params = eqn.params
    consts, carried = scan_counts(eqn)
    n = consts + carried
    fixed, carry, sequences = [plain(v) for v in operands[:consts]], operands[consts:n], operands[n:]
    for value in sequences:
        walk.fix(value, 0, _LOOP)
    steps = [
        dataclasses.replace(v, shape=v.shape[1:], labels=v.labels[1:], zero=v.zero[1:], alike=None) for v in sequences
    ]
    carry, outputs = _settle(walk, carry, lambda carry: walk.enter(params["jaxpr"], None, [*fixed, *carry, *steps]))
    stacked = [
        dataclasses.replace(
            v, shape=(params["length"], *v.shape), labels=(_LOOP, *v.labels), zero=(True, *v.zero), alike=None
        )
        for v in outputs[carried:]
    ]
    return [*carry, *stacked]


def while_(walk, eqn, operands: list[Value]):
    params = eqn.params
    a, b = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    operands = [plain(value) for value in operands]

    def body(carry):
        walk.enter(params["cond_jaxpr"], None, [*operands[:a], *carry])
        return walk.enter(params["body_jaxpr"], None, [*operands[a:b], *carry])

    return _settle(walk, operands[b:], body)[0]


def _settle(walk, carry: list[Value], body):
    """The carry of a loop, zero only where it is zero before and after every step; and the last step's outputs."""
    carry = [dataclasses.replace(plain(value), constant=None, weight=False) for value in carry]
    while True:
        outputs = body(carry)
        met = [_meet(walk, [old, new]) for old, new in zip(carry, outputs[: len(carry)], strict=True)]
        same = all(
            bool(np.all(np.equal(a, b)))
            for old, new in zip(carry, met, strict=True)
            for a, b in zip(old.zero, new.zero, strict=True)
        )
        if same:
            return met, outputs
        carry = met
        walk.forget()


def _meet(walk, values: list[Value]) -> Value:
    """What holds of a value that may be any of these."""
    first = values[0]
    labels, zero = list(first.labels), list(first.zero)
    for value in values[1:]:
        labels = [walk.coupling.unite(a, b) for a, b in zip(labels, value.labels, strict=True)]
        zero = [np.logical_and(a, b) for a, b in zip(zero, value.zero, strict=True)]
    weight = all(value.weight for value in values)
    return Value(first.shape, tuple(labels), tuple(zero), None, None, weight)


def cond(walk, eqn, operands: list[Value]):
    operands = [plain(value) for value in operands[1:]]
    branches = [walk.enter(branch, None, operands) for branch in eqn.params["branches"]]
    return [_meet(walk, list(values)) for values in zip(*branches, strict=True)]


def platform_index(walk, eqn, operands: list[Value]):
    """Which branch of `lax.platform_dependent` it is; the branches meet in `cond`."""
    return rigid((), "the platform", weight=True)


def closed(walk, eqn, operands: list[Value]):
    reason = "an exported program, which is closed: give load_compact(path, fn) the function that it was made of"
    return walk.fix_all(eqn, operands, reason)


CALLS = ("jit", "pjit", "closed_call", "core_call", "composite", "custom_vmap_call")
CHECKPOINTS = ("remat2", "remat", "checkpoint")
CUSTOM_VJPS = ("custom_vjp_call", "custom_vjp_call_jaxpr")
ENTERED = (*CALLS, *CHECKPOINTS, "custom_jvp_call", *CUSTOM_VJPS)
"""What hands its operands to one program, and gives the results of it."""

RULES = {
    "scan": scan,
    "while": while_,
    "cond": cond,
    "platform_index": platform_index,
    "call_exported": closed,
    **dict.fromkeys(CALLS, call),
    **dict.fromkeys(CHECKPOINTS, bordered_call),
    **dict.fromkeys(["custom_jvp_call", *CUSTOM_VJPS], own_derivative),
}
