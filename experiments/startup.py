"""What a command sets for its whole process before it does anything else."""

import importlib.metadata
import os
import resource

from absl import flags

FUSIONS = "--xla_cpu_experimental_ynn_fusion_type"


def start() -> None:
    """Called where a command starts, before JAX looks for devices; called again it changes nothing."""
    # ImageNet is 1,024 files, which all stay open, and 1,024 is a usual limit.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if not flags.FLAGS.is_parsed():  # Grain asks for flags of its own, which only absl's programs parse
        flags.FLAGS.mark_as_parsed()
    chosen = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = " ".join([chosen, *flags_for(importlib.metadata.version("jaxlib"), chosen)]).strip()


def flags_for(jaxlib: str, chosen: str) -> list[str]:
    """Flags of XLA for a version of jaxlib, beside those that the user has chosen.

    On a CPU jaxlib 0.10 gives convolutions of more than 16 channels to YNNPACK on one thread; 0.9 gives them to
    Eigen, 0.11 to YNNPACK on all threads.
    """
    if jaxlib.split(".")[:2] == ["0", "10"] and FUSIONS not in chosen:
        return [f"{FUSIONS}=-individual_convolution"]
    return []
