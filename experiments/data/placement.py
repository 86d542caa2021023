"""Where batches lie: a part on each device for `jax.pmap`, or as arrays of all devices for `jax.jit` with a mesh."""

from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXIS = "devices"


class Placement(Protocol):
    """How the step takes its arguments."""

    def copies(self, tree: Any) -> Any:
        """A tree of arrays, whole on each device."""
        ...

    def index(self, batches: np.ndarray) -> Any:
        """The places in a training set of the batches of some steps, [steps, batch]."""
        ...

    def streamed(self, images: Any) -> tuple[Any, Any]:
        """(images, index) of one batch, given what this process has of it, [its devices, share of the batch, ...]."""
        ...


class PerDevice:
    """For `jax.pmap`: the first axis is that of the devices of this process."""

    def copies(self, tree):
        return replicate(tree)

    def index(self, batches):
        return shard(batches)

    def streamed(self, images):
        share = images.shape[1]
        return images, np.broadcast_to(np.arange(share, dtype=np.int32), (len(images), 1, share))


class OnMesh:
    """For `jax.jit` with a mesh: arrays of the whole batch, of which each device has its share."""

    def __init__(self):
        # In the order of the devices, so that a process has the same part of a batch as under `jax.pmap`.
        self.mesh = Mesh(np.array(jax.devices()), (AXIS,), axis_types=(AxisType.Auto,))

    def copies(self, tree):
        return jax.tree.map(lambda x: self.put(np.asarray(x), P()), tree)

    def index(self, batches):
        return self.put(batches, P(None, AXIS))

    def streamed(self, images):
        if isinstance(images, jax.Array):  # on the devices of this process already, each with its share
            shares = sorted(images.addressable_shards, key=lambda shard: shard.index[0].start)
            parts = [jnp.squeeze(shard.data, 0) for shard in shares]
        else:
            parts = [jax.device_put(x, device) for x, device in zip(images, jax.local_devices(), strict=True)]
        shape = (jax.device_count() * parts[0].shape[0], *parts[0].shape[1:])
        return jax.make_array_from_single_device_arrays(shape, NamedSharding(self.mesh, P(AXIS)), parts), None

    def put(self, array: np.ndarray, spec: P) -> jax.Array:
        """An array that every process has whole, split over the mesh."""
        return jax.make_array_from_callback(array.shape, NamedSharding(self.mesh, spec), lambda part: array[part])


def replicate(tree: Any) -> Any:
    """The arrays on each device of this process, [devices, ...], lying as `jax.pmap` over `AXIS` leaves its outputs.

    From another mesh, as `flax.jax_utils.replicate` makes it, JAX 0.10 would trace and compile the first step, and then
    once more the second, whose arguments are outputs of the first.
    """
    sharding = of_each_device()

    def of(leaf):
        array = np.asarray(leaf)
        return jax.device_put(np.broadcast_to(array, (len(sharding.device_set), *array.shape)), sharding)

    return jax.tree.map(of, tree)


def of_each_device(devices: list | None = None) -> NamedSharding:
    """Along the first axis a part for each of these devices, or of all of this process."""
    devices = jax.local_devices() if devices is None else devices
    return NamedSharding(Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,)), P(AXIS))


def shard(batches: np.ndarray) -> np.ndarray:
    """Of batches, [steps, batch], what the devices of this process take, [devices, steps, share of the batch]."""
    local = [i for i, device in enumerate(jax.devices()) if device.process_index == jax.process_index()]
    return batches.reshape(len(batches), jax.device_count(), -1).swapaxes(0, 1)[local]
