"""Eight simulated devices on a CPU, whatever the machine; a rank promotion nobody asked for is an error."""

import os

# Before the first import of JAX, in every worker of pytest-xdist too. XLA takes the last of two equal flags.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
assert jax.device_count() == 8, f"some plugin started JAX before tests/conftest.py: {jax.devices()}"
