"""Eight simulated devices on a CPU, whatever the machine; a rank promotion nobody asked for is an error."""

import os
import subprocess
import sys
from pathlib import Path

# Before the first import of JAX, in every worker of pytest-xdist too. XLA takes the last of two equal flags.
os.environ["JAX_PLATFORMS"] = "cpu"

# Compiling takes most of the time of the tests. These flags make it a third quicker and give the same bits; at level 0
# multiplications and additions would no longer be contracted, and the bits would be others.
QUICK = (
    "--xla_backend_optimization_level=1 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
)


def known(flags: str) -> bool:
    """Whether this XLA has the flags: it ends a process that is given one it does not know."""
    command = [sys.executable, "-c", "import jax; jax.devices()"]
    environment = {**os.environ, "XLA_FLAGS": flags}
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0


if "PYTEST_XDIST_WORKER" not in os.environ:  # a worker has what the process that started it has found
    quick = [QUICK] if known(QUICK) else filter(known, QUICK.split())
    flags = [os.environ.get("XLA_FLAGS", ""), *quick, "--xla_force_host_platform_device_count=8"]
    os.environ["XLA_FLAGS"] = " ".join(filter(None, flags))

# Many tests compile the same program: what one has compiled the others take, in this run and the next. JAX does not
# write an entry at once; whoever meets half of one compiles it anew (see `filterwarnings`).
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax  # noqa: E402
import pytest  # noqa: E402

pytest.register_assert_rewrite("helpers")
jax.config.update("jax_numpy_rank_promotion", "raise")
assert jax.device_count() == 8, f"some plugin started JAX before tests/conftest.py: {jax.devices()}"

LONG = ("test_survival.py", "test_distributed.py", "test_notebooks.py")


# What takes one of these fixtures waits for a training, or for processes.
TRAININGS = {"directory", "undisturbed", "here", "copy", "demo"}


def pytest_addoption(parser):
    parser.addoption(
        "--fuzz", type=int, default=100, metavar="N", help="mutations of each input that fuzz tests try (100)"
    )


@pytest.fixture
def fuzz(request) -> int:
    """How many mutations to try."""
    return request.config.getoption("--fuzz")


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
