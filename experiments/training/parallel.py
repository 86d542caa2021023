"""How a training is spread over the devices: by `jax.pmap`, or by `jax.jit` with a mesh.

Under `pmap` the program is that of a device: it takes its share of the batch, and gradients, losses and batch
statistics are means over the devices. With a mesh the program is that of the whole batch, and the compiler splits it,
so that a normalisation sees the whole batch. The weights, Γ's V and the optimizer's state lie whole on each device, or
(`fsdp`) each in equal parts.
"""

from typing import Any, Literal, Protocol

import flax.jax_utils
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ..data.dataset import Dataset
from ..data.placement import AXIS, OnMesh, PerDevice, Placement, replicate
from .network import Network
from .step import make_metric, make_step, make_update, overall, take_steps, total_of

Kind = Literal["pmap", "mesh", "fsdp"]


class Parallel(Protocol):
    """What a training needs to know of its devices."""

    @property
    def placement(self) -> Placement: ...

    def place(self, weights) -> list[Any]:
        """The weights on the devices, as `step` takes them; copies, which it may donate."""
        ...

    def whole(self, state) -> tuple[Any, ...]:
        """The weights as arrays of their shapes, to be read before the next step takes them."""
        ...

    def step(self, network: Network, tx, dataset: Dataset, *, seed: int, augment: bool) -> Any:
        """As `step.make_step`."""
        ...

    def metric(self, fn, dataset: Dataset) -> Any:
        """As `step.make_metric`."""
        ...


class ByPmap:
    placement: Placement = PerDevice()

    def place(self, weights):
        return list(replicate(weights))

    def whole(self, state):
        return flax.jax_utils.unreplicate(tuple(state))

    def step(self, network, tx, dataset, *, seed, augment):
        return make_step(network, tx, dataset, seed=seed, augment=augment)

    def metric(self, fn, dataset):
        return make_metric(fn, dataset)


class OverMesh:
    """Args:
    sharded: whether weights, V and momentum lie in parts.
    """

    def __init__(self, sharded: bool):
        self.placement, self.sharded = OnMesh(), sharded
        self.mesh = self.placement.mesh

    def shardings(self, tree):
        """How each array lies: along its largest axis that the number of devices divides, or whole."""

        def of(leaf):
            shape = np.shape(leaf)
            axes = [axis for axis, size in enumerate(shape) if self.sharded and size and size % self.mesh.size == 0]
            if not axes:
                return NamedSharding(self.mesh, P())
            return NamedSharding(self.mesh, P(*[None] * max(axes, key=shape.__getitem__), AXIS))

        return jax.tree.map(of, tree)

    def place(self, weights):
        host = jax.device_get(weights)
        copied = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree), out_shardings=self.shardings(host))
        return list(copied(host))

    def whole(self, state):
        if jax.process_count() == 1:
            return tuple(state)
        return multihost_utils.process_allgather(tuple(state), tiled=True)

    def step(self, network, tx, dataset, *, seed, augment):
        update = make_update(network, tx, dataset, seed=seed, augment=augment)

        def step(params, stats, opt_state, images, labels, index, number):
            state, losses = take_steps(update, (params, stats, opt_state), images, labels, index, number)
            shardings = self.shardings(state)
            return *jax.lax.with_sharding_constraint(state, shardings), losses[None]

        compiled = jax.jit(step, donate_argnums=(0, 1, 2))

        def on_mesh(*arguments):
            with jax.set_mesh(self.mesh):
                return compiled(*arguments)

        return on_mesh

    def metric(self, fn, dataset):
        total = jax.jit(lambda variables, *examples: total_of(fn, dataset, variables, *examples))

        def on_mesh(variables, images, labels):
            shares = (self.placement.streamed(x)[0] for x in (images, labels))
            with jax.set_mesh(self.mesh):
                return total(variables, *shares)

        def metric(variables, split) -> float:
            variables = jax.tree.map(self._here, variables)
            return overall(lambda *examples: on_mesh(variables, *examples), dataset, split)

        return metric

    def _here(self, leaf):
        """A leaf that a computation on the mesh takes: what lies elsewhere comes from the host."""
        here = isinstance(leaf, jax.Array) and getattr(leaf.sharding, "mesh", None) == self.mesh
        return leaf if here else np.asarray(leaf)


def parallel(kind: Kind) -> Parallel:
    return ByPmap() if kind == "pmap" else OverMesh(sharded=kind == "fsdp")
