"""Seconds that JAX has spent on tracing and compiling."""

import functools

import jax

_spent = {"seconds": 0.0}


@functools.cache  # JAX keeps every listener for good
def listen() -> None:
    """Begins to count; a command that reports `seconds` calls it first."""

    def add(event: str, duration_secs: float, **_) -> None:
        if event.startswith("/jax/core/compile/"):
            _spent["seconds"] += duration_secs

    jax.monitoring.register_event_duration_secs_listener(add)


def seconds() -> float:
    """Since `listen`. Functions that are traced inside others count twice, so it is an upper bound."""
    return _spent["seconds"]
