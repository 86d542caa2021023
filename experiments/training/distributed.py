"""Several processes that train as one: how they find each other, and what the first of them does for all.

Only the first process reads and writes the folder of a run; what the others need of it is sent to them. So the folder
need not be on a shared disk; the data must be within everybody's reach.
"""

import hashlib
import json
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from ..config import Config
from ..data.placement import AXIS
from ..errors import RunError
from ..runs.digest import code_digest
from . import native_errors

HEARTBEAT = 30  # seconds without a sign of life after which a process counts as dead and all others end


def join(config: Config) -> None:
    """Becomes one of the processes of a training, where a configuration says so; before JAX's devices are touched."""
    given = [name for name in ("coordinator", "processes", "process") if getattr(config, name) is not None]
    if not given or jax.distributed.is_initialized():
        return
    timeouts: Any = {"heartbeat_timeout_seconds": HEARTBEAT, "shutdown_timeout_seconds": HEARTBEAT}
    arguments: dict[str, Any] = {}
    if len(given) == 3:
        arguments |= {"coordinator_address": config.coordinator, "num_processes": config.processes}
        arguments["process_id"] = config.process
        if "JAX_COORDINATOR_BIND_ADDRESS" not in os.environ:  # JAX would listen on all addresses of the machine
            arguments["coordinator_bind_address"] = config.coordinator
    elif config.coordinator != "auto":
        raise RunError(
            f"{' and '.join('--' + name for name in given)} alone does not say which processes train together; give "
            "--coordinator ADDRESS:PORT, --processes and --process, or --coordinator auto on SLURM, Open MPI or TPU."
        )
    native_errors.tell_in_a_sentence()
    try:
        jax.distributed.initialize(**arguments, **timeouts)
    except (RuntimeError, ValueError) as error:
        raise RunError(f"the processes did not find each other ({config.coordinator}): {error}") from None
    if jax.device_count() != jax.process_count() * jax.local_device_count():
        raise RunError(f"every process needs the same number of devices; this one has {jax.local_device_count()}.")
    for what, ours in (("code", code_digest()), ("configuration", config.settings() | {"parallel": config.parallel})):
        found = multihost_utils.process_allgather(_bytes_of(ours))
        others = [number for number in range(len(found)) if (found[number] != found[0]).any()]
        if others:
            raise RunError(
                f"process {', '.join(map(str, others))} of {len(found)} was started with another {what} than process "
                "0; give all of them the same checkout, the same versions of the packages and the same arguments."
            )


def _bytes_of(value: Any) -> np.ndarray:
    """32 bytes that stand for a value of JSON."""
    return np.frombuffer(hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest(), np.uint8)


def first() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def on_first(work: Callable[[], Any]) -> Any:
    """What `work` returns in the first process, as JSON can hold it, in all of them; or its error, in all of them."""
    if jax.process_count() == 1:
        return work()
    answer = b""
    if first():
        try:
            answer = json.dumps({"value": work()}).encode()
        except RunError as error:
            answer = json.dumps({"error": str(error)}).encode()
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(answer))))
    padded = np.zeros(size, np.uint8)
    padded[: len(answer)] = np.frombuffer(answer, np.uint8)
    answered = json.loads(np.asarray(multihost_utils.broadcast_one_to_all(padded)).astype(np.uint8).tobytes())
    if "error" in answered:
        raise RunError(answered["error"])
    return answered["value"]


def from_first(tree):
    """Arrays of the first process, in all of them; `tree` has the same shapes and dtypes everywhere."""
    if jax.process_count() == 1:
        return tree
    return multihost_utils.broadcast_one_to_all(jax.tree.map(np.asarray, tree))


def wait(name: str) -> None:
    """Until all processes have come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def agreement() -> Callable[[bool], bool]:
    """asked(own) → whether some process asked for it, the same answer at the same call in all of them.

    The answer is that of the call before, so that no device waits for another one's host.
    """
    if jax.process_count() == 1:
        return lambda asking: asking
    count = jax.pmap(lambda asking: jax.lax.psum(asking, AXIS), axis_name=AXIS)
    before: list[jax.Array] = []

    def asked(asking: bool) -> bool:
        before.append(count(np.full(jax.local_device_count(), asking, np.int32)))
        return len(before) > 1 and bool(np.asarray(before.pop(0))[0])

    return asked
