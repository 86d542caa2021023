"""A path of fixed strengths that will stay empty, or has filled at once, is told while there is time to change it."""

from typing import Any

import parsimony as pm

from ..config import Config
from ..data.sampler import Sampler
from .build import dual_rate


def warning(config: Config, sampler: Sampler, weights: Any) -> str | None:
    """One sentence with what to change; None for a path that unfolds, and for one that a sparsity paces."""
    if config.sparsity is not None:
        return None
    params, _, opt_state = weights
    steps = sampler.end(config.epochs)
    found = pm.path_forecast(params, opt_state, dual_rate(config, sampler), steps)
    if found.verdict == "unfolds":
        return None
    seen = f"{found.inside:.0%} of the groups are inside after {found.done:.0%} of the path's time"
    way = "smaller" if found.verdict == "stays empty" else "larger"
    knob = "--filter-strength and --weight-strength" if config.share is None else "--share"
    pace = "give --sparsity 0.7, with which it opens by itself,"
    return f"WARNING: the path {found.verdict} ({seen}); {pace} or a {way} {knob}."
