"""Tests of rewritten programs: they hold a program against another one, and need no optimised code."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def _plain_code():
    """Half of the time of these tests would go into LLVM's optimisations."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
