"""`TimeTable`: measured times of the parts of programs, from which the time of a program is predicted."""

import dataclasses
import functools
import hashlib
import math
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex

from ..._words import shown
from .._units import structs
from .parts import opened, parts

Program = tuple[Callable[..., Any], tuple[jax.ShapeDtypeStruct, ...]]

ROUNDS = 20
"""Of which the fastest counts: what else a machine does only adds."""

SPAN = 3e-3
"""Seconds for which a program is repeated in a round; short ones find the moments in which it is alone."""

PATIENCE = 0.3
"""Seconds for a program in all rounds; at least three rounds are made."""

MEMORY = 2**29
"""Bytes of arguments that are held at a time."""


def stopwatch(programs: Sequence[Program], clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """Milliseconds of each program, compiled for the default device, in turns, the fastest of up to 20 rounds.

    Args:
      programs: (function, shapes of its arguments) of each; it runs on normally distributed numbers.
      clock: seconds; `time.process_time` leaves out what other processes of a busy machine take, and adds up what
        several cores take.

    Returns:
      A float for each.

    Raises:
      TypeError: an argument is a random key of another implementation than JAX's default.

    Examples:
      >>> import jax, parsimony as pm
      >>> len(pm.structure.stopwatch([(lambda x: x + 1, (jax.ShapeDtypeStruct((8,), "float32"),))]))
      1
    """
    times: list[float] = []
    while len(times) < len(programs):
        held, calls = 0, []
        for fn, shapes in programs[len(times) :]:
            held += sum(math.prod(x.shape) * jnp.dtype(x.dtype).itemsize for x in shapes if _is_number(x))
            if calls and held > MEMORY:
                break
            calls.append(functools.partial(jax.jit(fn, keep_unused=True), *map(_made_up, shapes)))
        times += _in_turns(calls, clock)
    return times


def _in_turns(calls: list[Callable[[], Any]], clock: Callable[[], float]) -> list[float]:
    for call in calls:
        jax.block_until_ready(call())  # compiles
    once = [_seconds(call, 1, clock) for call in calls]
    often = [max(1, round(SPAN / max(seconds, 1e-7))) for seconds in once]
    rounds = int(np.clip(PATIENCE / max(SPAN, *once), 3, ROUNDS))
    best = [math.inf] * len(calls)
    for _ in range(rounds):
        for place, call in enumerate(calls):
            best[place] = min(best[place], _seconds(call, often[place], clock))
    return [1e3 * seconds for seconds in best]


def _seconds(call: Callable[[], Any], repeats: int, clock: Callable[[], float]) -> float:
    begin = clock()
    for _ in range(repeats):
        result = call()
    jax.block_until_ready(result)
    return (clock() - begin) / repeats


def _is_number(x) -> bool:
    return not jnp.issubdtype(x.dtype, jax.dtypes.extended)


def _made_up(x):
    if not _is_number(x):
        key = jax.random.key(0)
        if key.dtype != x.dtype:
            raise TypeError(f"an argument is a random key, {x.dtype}: times are taken with JAX's default, {key.dtype}.")
        return jnp.broadcast_to(key, x.shape)
    floats = jnp.issubdtype(x.dtype, jnp.inexact)
    return jnp.asarray(np.random.default_rng(0).standard_normal(x.shape) if floats else np.zeros(x.shape), x.dtype)


@dataclasses.dataclass(frozen=True)
class TimeTable:
    """Measured times by width, and the time of a program of any widths from them.

    A program is cut into parts, each a product or a convolution with the elementwise operations that follow it. With
    tᵢ the time of part i by itself and o that of a program that does nothing,

        T = o + Σᵢ max(0, tᵢ − o)

    A part is measured once for each shape, when it is first asked for; layers of the same shapes share an entry.

    Attributes:
      measure: [(function, shapes of its arguments), …] → milliseconds of each: `stopwatch`, which times them on the
        default device, or a function of your own, for another device or another cost.
      entries: {device, JAX version and part: milliseconds}. A dict of strings and floats, which JSON can keep for the
        next process on the same machine.

    Examples:
      >>> import jax, jax.numpy as jnp, parsimony as pm
      >>> sums = lambda programs: [float(sum(x.size for x in shapes)) for _, shapes in programs]  # a cost of one's own
      >>> table = pm.structure.TimeTable(measure=sums)
      >>> fn = lambda p, x: jax.nn.relu(x @ p["w1"]) @ p["w2"]
      >>> params = {"w1": jnp.ones((4, 6)), "w2": jnp.ones((6, 3))}
      >>> table.predicted(fn, params, jnp.ones((1, 4)))  # (28 - 2) + (24 - 2) + 3
      51.0

    References:
      Yang et al., "NetAdapt" (arXiv 1804.03230): tables of measured times, layer by layer. There the channels that stay
      are chosen layer by layer too; here by the order of the path.
    """

    measure: Callable[[Sequence[Program]], Sequence[float]] = stopwatch
    entries: dict[str, float] = dataclasses.field(default_factory=dict, repr=False)

    def __post_init__(self):
        if not callable(self.measure):
            raise TypeError(
                f"measure={shown(self.measure)}: expected a function, [(function, shapes), …] → milliseconds of each."
            )

    def predicted(self, fn, params, *args) -> float:
        """Milliseconds of fn(params, *args), from its parts.

        Args:
          fn, params, *args: as in `find_units`; the batch is that of the arguments.
        """
        program = jax.make_jaxpr(fn)(structs(params), *structs(args))
        cut = parts(opened(program))
        *times, nothing = self._times([*cut, *map(_nothing, cut), _nothing(program)])
        alone, idle = times[: len(cut)], times[len(cut) :]
        return nothing + sum(max(0.0, t - o) for t, o in zip(alone, idle, strict=True))

    def measured(self, fn, params, *args) -> float:
        """Milliseconds of fn(params, *args), run as a whole.

        Args:
          fn, params, *args: as in `find_units`.
        """
        return self._times([jax.make_jaxpr(fn)(structs(params), *structs(args))])[0]

    def _times(self, programs: list[jex.ClosedJaxpr]) -> list[float]:
        """Of each, measured where it is new, all new ones in turns."""
        keys = [_key(program) for program in programs]
        new = {key: program for key, program in zip(keys, programs, strict=True) if key not in self.entries}
        if new:
            found = self.measure([_as_timed(program) for program in new.values()])
            if len(found) != len(new) or not all(math.isfinite(number) and number >= 0 for number in found):
                raise ValueError(
                    f"measure: expected {len(new)} finite numbers ≥ 0, one for each program, got {list(found)!r:.200}."
                )
            self.entries.update(zip(new, map(float, found), strict=True))
        return [self.entries[key] for key in keys]


@functools.cache
def shared_table() -> TimeTable:
    """That of this process."""
    return TimeTable()


def _as_timed(program: jex.ClosedJaxpr) -> Program:
    return jex.jaxpr_as_fun(program), tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in program.in_avals)


def _nothing(program: jex.ClosedJaxpr) -> jex.ClosedJaxpr:
    """A program of as many inputs and outputs that does nothing: what the call costs."""
    inputs, outputs = len(program.jaxpr.invars), len(program.jaxpr.outvars)
    return jax.make_jaxpr(lambda *args: [jnp.zeros(())] * outputs)(*[jax.ShapeDtypeStruct((), "float32")] * inputs)


def _key(program: jex.ClosedJaxpr) -> str:
    """Device, JAX and what is computed, without the addresses of functions, which are others in each trace."""
    device = jax.devices()[0]
    text = re.sub(r" at 0x[0-9a-f]+", "", str(program))
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{device.platform} {device.device_kind}, JAX {jax.__version__}: {digest[:32]}"
