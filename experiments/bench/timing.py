"""How long functions take, measured in turn: a machine's drift affects all of them equally."""

import time
from collections.abc import Callable, Mapping

import jax
import numpy as np


def in_turn(
    calls: Mapping[str, Callable[[], object]], rounds: int, repeats: int | None = None
) -> dict[str, list[float]]:
    """Seconds a call, one number a round, of each of `calls`.

    In a round each is repeated so often; None: for about 0.02 seconds.
    """
    often = {name: repeats or _repeats(call) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for trial in range(rounds + 2):  # two to compile and warm up
        for name, call in calls.items():
            begin = time.perf_counter()
            for _ in range(often[name]):
                result = call()
            jax.block_until_ready(result)
            if trial >= 2:
                times[name].append((time.perf_counter() - begin) / often[name])
    return times


def _repeats(call: Callable[[], object]) -> int:
    jax.block_until_ready(call())  # compiles
    begin = time.perf_counter()
    jax.block_until_ready(call())
    return max(1, round(0.02 / max(time.perf_counter() - begin, 1e-7)))


def ratio(times: dict[str, list[float]], of: str, to: str) -> tuple[float, float, float]:
    """Median and quartiles of times[of]/times[to], round by round."""
    low, middle, high = np.percentile(np.array(times[of]) / np.array(times[to]), [25, 50, 75])
    return float(middle), float(low), float(high)
