"""Seconds that JAX has spent on tracing and compiling."""

import jax

_spent = {"seconds": 0.0}


def _listen(event: str, duration_secs: float, **_) -> None:
    if event.startswith("/jax/core/compile/"):
        _spent["seconds"] += duration_secs


jax.monitoring.register_event_duration_secs_listener(_listen)


def seconds() -> float:
    """Since this module was imported. Functions that are traced inside others count twice, so it is an upper bound."""
    return _spent["seconds"]
