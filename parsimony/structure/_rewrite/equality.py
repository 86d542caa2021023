"""Whether a program traced on narrower arrays is the narrower program, equation by equation."""

from typing import Any

import numpy as np
from jax.extend import core as jex

from .._analysis.interpreter import Frame
from .cutting import cut
from .narrow import Narrowing, is_split_evenly

_PROGRAMS = ("jaxpr", "call_jaxpr", "call", "branches", "cond_jaxpr", "body_jaxpr")
_RULES = ("jvp_jaxpr_fun", "fwd_jaxpr_thunk", "bwd", "out_trees", "debug_info", "rule")  # functions, new at each trace


def same_program(narrowing: Narrowing, frame: Frame, closed: Any) -> bool:
    """Whether `closed` has the equations of `frame`, with the static parameters rewritten."""
    jaxpr, consts = (closed.jaxpr, closed.consts) if hasattr(closed, "consts") else (closed, [])
    whole = frame.jaxpr
    if len(jaxpr.eqns) != len(whole.eqns) or len(consts) != len(frame.consts):
        return False
    names: dict[Any, Any] = dict(zip(whole.constvars, jaxpr.constvars, strict=True))
    names.update(zip(whole.invars, jaxpr.invars, strict=True))
    for old, new, var in zip(frame.consts, consts, whole.constvars, strict=True):
        try:
            old = np.asarray(cut(np.asarray(old), narrowing.copies(frame.read(var))))
            if old.shape != np.shape(new) or not np.array_equal(old, np.asarray(new)):
                return False
        except TypeError:  # random keys, traced arrays
            if old is not new:
                return False

    def same_atom(old, new) -> bool:
        if isinstance(old, jex.Literal) or isinstance(new, jex.Literal):
            both = isinstance(old, jex.Literal) and isinstance(new, jex.Literal)
            return both and np.array_equal(old.val, new.val)
        return names[old] is new

    for old, new, inner in zip(whole.eqns, jaxpr.eqns, frame.inner, strict=True):
        if old.primitive is not new.primitive or len(old.invars) != len(new.invars):
            return False
        if not all(map(same_atom, old.invars, new.invars)):
            return False
        operands, results = [frame.read(a) for a in old.invars], [frame.read(v) for v in old.outvars]
        if old.primitive.name == "reduce_sum" and narrowing.corrections(old, operands[0]):
            return False
        if results and not is_split_evenly(old, narrowing.shape(results[0])):
            return False
        changed = {} if inner else narrowing.parameters(old, operands, results)
        if changed is None or any(
            narrowing.shape(v) != tuple(n.aval.shape) for v, n in zip(results, new.outvars, strict=True)
        ):
            return False
        wanted = {**old.params, **changed}
        if not all(_same_parameter(narrowing, key, wanted[key], new.params.get(key), inner) for key in wanted):
            return False
        names.update(zip(old.outvars, new.outvars, strict=True))
    return all(map(same_atom, whole.outvars, jaxpr.outvars))


def _same_parameter(narrowing: Narrowing, key: str, old, new, inner: list[Frame]) -> bool:
    if key in _RULES:
        return True
    if not inner or key not in _PROGRAMS:
        return bool(old == new) or str(old) == str(new)
    if key == "branches":
        return len(new) == len(inner) and all(same_program(narrowing, f, n) for f, n in zip(inner, new, strict=True))
    return same_program(narrowing, inner[-1 if key == "body_jaxpr" else 0], new)
