"""Rules of programs that run on every device of a mesh, or inside a linear solver."""

import dataclasses
import math

from ..abstract import Value
from .control import plain

_SPLIT = "an axis that shard_map splits over devices"


def parts_of(spec, mesh, ndim: int) -> list[int]:
    """Over how many devices each axis of an array is split."""
    entries = [*spec, *[None] * (ndim - len(spec))]
    names = [() if entry is None else (entry,) if isinstance(entry, str) else tuple(entry) for entry in entries]
    return [math.prod(mesh.shape[name] for name in axes) for axes in names]


def shard_map(walk, eqn, operands: list[Value]):
    """As a call; an axis that is split over several devices stays whole."""
    params = eqn.params
    shards = []
    for value, spec, var in zip(operands, params["in_specs"], params["jaxpr"].invars, strict=True):
        labels, zero = list(value.labels), list(value.zero)
        for axis, parts in enumerate(parts_of(spec, params["mesh"], value.ndim)):
            if parts > 1:
                labels[axis], zero[axis] = walk.fix(value, axis, _SPLIT), True
        shard = dataclasses.replace(value, shape=tuple(var.aval.shape), labels=tuple(labels), zero=tuple(zero))
        shards.append(plain(shard))
    results = []
    inner = walk.enter(params["jaxpr"], None, shards)
    for value, spec, var in zip(inner, params["out_specs"], eqn.outvars, strict=True):
        labels, zero = list(value.labels), list(value.zero)
        for axis, parts in enumerate(parts_of(spec, params["mesh"], value.ndim)):
            if parts > 1:
                labels[axis], zero[axis] = walk.fix(value, axis, _SPLIT), True
        whole = dataclasses.replace(value, shape=tuple(var.aval.shape), labels=tuple(labels), zero=tuple(zero))
        results.append(dataclasses.replace(plain(whole), constant=None))
    return results


def linear_solve_parts(eqn, items) -> dict[str, list]:
    """The operands of each program of a `custom_linear_solve`, and the right-hand side."""
    items, parts = list(items), {}
    for name, count in eqn.params["const_lengths"]._asdict().items():
        parts[name], items = items[:count], items[count:]
    return {**parts, "right": items}


def custom_linear_solve(walk, eqn, operands: list[Value]):
    """What the solver computes, which the linear map takes back to the right-hand side."""
    parts = linear_solve_parts(eqn, [plain(value) for value in operands])
    jaxprs = eqn.params["jaxprs"]
    solution = walk.enter(jaxprs.solve, None, [*parts["solve"], *parts["right"]])[: len(eqn.outvars)]
    image = walk.enter(jaxprs.matvec, None, [*parts["matvec"], *solution])
    for one, other in zip(image, parts["right"], strict=True):
        for a, b in zip(one.labels, other.labels, strict=True):
            walk.coupling.unite(a, b)
    if jaxprs.transpose_solve is not None:
        walk.enter(jaxprs.transpose_solve, None, [*parts["transpose_solve"], *parts["right"]])
    return [plain(value) for value in solution]


RULES = {"shard_map": shard_map, "custom_linear_solve": custom_linear_solve}
