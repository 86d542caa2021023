"""Whether what enters a program still reaches its outputs once units are gone."""

import numpy as np

from .._analysis.analyse import Analysis
from .._analysis.interpreter import Frame
from .._analysis.rules.control import ENTERED
from .narrow import PRODUCTS, Narrowing


def passes(found: Analysis, keep: dict[str, np.ndarray]) -> bool:
    """Whether every output that depends on the inputs still does.

    A residual branch may lose all of its units: the shortcut still carries everything. A layer that all has to pass
    through may not.
    """
    inputs = [place >= len(found.labels) for place in range(len(found.frame.jaxpr.invars))]
    whole, left = (_reached(found.frame, Narrowing(found.copies(kept)), inputs) for kept in ({}, keep))
    return whole == left


def _reached(frame: Frame, narrowing: Narrowing, arguments: list[bool]) -> list[bool]:
    """For each output whether it depends on an argument that is marked, by arrays that are not empty."""
    known = dict(zip(frame.jaxpr.invars, arguments, strict=True))
    full = lambda atom: 0 not in [n for n in narrowing.shape(frame.read(atom)) if isinstance(n, int)]
    carries = lambda atom: bool(known.get(atom)) if _is_variable(atom) else False
    for eqn, inner in zip(frame.jaxpr.eqns, frame.inner, strict=True):
        into = [carries(atom) and full(atom) for atom in eqn.invars]
        if eqn.primitive.name in PRODUCTS and not all(map(full, eqn.invars)):
            into = [False] * len(into)  # a kernel that reads nothing
        if eqn.primitive.name in ENTERED and len(inner) == 1:
            out = _reached(inner[0], narrowing, into)
        else:
            out = [any(into)] * len(eqn.outvars)
        for var, one in zip(eqn.outvars, out, strict=True):
            known[var] = one and full(var)
    return [carries(atom) and full(atom) for atom in frame.jaxpr.outvars]


def _is_variable(atom) -> bool:
    return not hasattr(atom, "val")
