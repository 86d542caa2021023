"""Eight simulated devices on a CPU, whatever the machine; a rank promotion nobody asked for is an error."""

import os
from pathlib import Path

# Before the first import of JAX, in every worker of pytest-xdist too. XLA takes the last of two equal flags.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()

# Many tests compile the same training step. Each worker keeps its own: JAX does not write an entry at once, and half an
# entry of another worker would be a warning.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    str(Path(__file__).parents[1] / ".pytest_cache" / "compiled" / os.environ.get("PYTEST_XDIST_WORKER", "alone")),
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax
import pytest

pytest.register_assert_rewrite("helpers")
jax.config.update("jax_numpy_rank_promotion", "raise")
assert jax.device_count() == 8, f"some plugin started JAX before tests/conftest.py: {jax.devices()}"

LONG = ("test_survival.py", "test_distributed.py", "test_notebooks.py")


# What takes one of these fixtures waits for a training, or for processes.
TRAININGS = {"directory", "undisturbed", "here", "copy", "demo"}


def pytest_collection_modifyitems(items):
    """Files that take minutes come first, so that at the end no worker is left alone with one of them."""
    items.sort(key=lambda item: item.path.name not in LONG)
    for item in items:
        if TRAININGS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True, scope="module")
def _programs_end_with_their_file():
    """What a file has compiled is not kept for the next: a worker that keeps all of it grows to gigabytes."""
    yield
    jax.clear_caches()
