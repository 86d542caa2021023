"""What filters look at: their weights, and the images that excite them most.

Source of activation maximisation: Erhan, Bengio, Courville and Vincent, "Visualizing Higher-Layer Features of a Deep
Network" (2009).
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx


def most_exciting(run, variables, layer: str, filters: list[int]) -> np.ndarray:
    """The images in [0, 1] that gradient ascent finds for some filters of a layer, [filters, height, width, channels].

    It maximises the response at the middle of the layer's output, over the norm of the filter, less a little roughness
    of the image, from one grey start with faint noise.
    """

    def response(images):
        network = nnx.merge(run.network.graphdef, variables)
        seen = {}
        inner = getattr(network, layer)

        def watched(x):
            seen["output"] = inner(x)
            return seen["output"]

        setattr(network, layer, watched)
        network(run.dataset.normalised(run.dataset.maximum * images))
        output = seen["output"]
        middle = output[:, output.shape[1] // 2, output.shape[2] // 2] if output.ndim == 4 else output
        kernel = variables[layer]["kernel"]
        norms = jnp.sqrt(jnp.sum(jnp.square(kernel), axis=range(kernel.ndim - 1)))  # small filters on the same scale
        return (middle / jnp.maximum(norms[None], 1e-12))[jnp.arange(len(filters)), jnp.array(filters)]

    def loss(logits):
        images = jax.nn.sigmoid(logits)
        rough = sum(jnp.sum(jnp.square(jnp.diff(images, axis=axis))) for axis in (1, 2))
        return 0.02 * rough - jnp.sum(response(images))

    tx = optax.adam(0.1)

    def ascend(carry, _):
        logits, state = carry
        updates, state = tx.update(jax.grad(loss)(logits), state)
        return (optax.apply_updates(logits, updates), state), None

    noise = np.random.default_rng(0).normal(size=run.dataset.shape)
    start = jnp.asarray(np.broadcast_to(0.1 * noise, (len(filters), *noise.shape)), jnp.float32)
    (logits, _), _ = jax.jit(lambda x: jax.lax.scan(ascend, (x, tx.init(x)), length=200))(start)
    return np.asarray(jax.nn.sigmoid(logits))
