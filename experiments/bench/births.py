"""`python -m experiments.bench births`: new units chosen by their gradient, beside random ones.

A small network for CIFAR-10 at 16×16 is trained for two epochs, every layer is doubled, and an epoch follows in which α
falls to zero along a cosine.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

import parsimony as pm

from ..data.load import load

KINDS = ("plain", "normalised", "residual")
BATCH, RATE = 64, 0.05


def births(seeds: int = 5, images: int = 4000, candidates: int = 8) -> None:
    """Prints, for each network and seed, training and test loss after the epoch, and the gradient of new to old units.

    Args:
      seeds: of weights and batches.
      images: training images.
      candidates: for each new unit.
    """
    print(f"{jax.devices()[0].device_kind}, JAX {jax.__version__}; {images:,} images, {candidates} candidates")
    data = load("cifar10", 5000, images=images, image_size=16)
    pair = lambda split: (np.asarray(data.normalised(split.inputs)), np.asarray(split.labels))
    train, test = pair(data.train), tuple(part[:2000] for part in pair(data.test))
    for kind in KINDS:
        fn = functools.partial(network, kind=kind)
        loss = functools.partial(cross_entropy, kind=kind)
        losses: dict[str, list[float]] = {"random": [], "chosen": []}
        for seed in range(seeds):
            narrow, state = _trained(loss, start(kind, seed), train, 2, seed)
            units = pm.structure.find_units(fn, narrow, train[0][:2])
            widths = {name: 2 * own.size for name, own in units.sets.items()}
            of = lambda fn, params, loss=loss: jax.jit(jax.grad(loss))(params, train[0][:1000], train[1][:1000])
            for how, gradient in (("random", None), ("chosen", of)):
                key = jax.random.key(seed)
                chosen = {"gradient": gradient, "candidates": candidates}
                wider = pm.structure.grow(units, widths, narrow, state, key=key, **chosen)
                shares = gradient_of_new(units, fn, wider.params, of(fn, wider.params))
                params, _ = _trained(loss, wider.params, train, 1, seed + 100, wider.opt_state)
                after = [float(np.mean([loss(params, x, y) for x, y in _parts(split)])) for split in (train, test)]
                losses[how].append(after[0])
                spread = f"{min(shares.values()):.2f} to {max(shares.values()):.2f}"
                print(
                    f"{kind:10s} seed {seed} {how}: loss {after[0]:.4f}, test {after[1]:.4f}; gradient of new to old "
                    f"units {spread}",
                    flush=True,
                )
        less = np.subtract(losses["chosen"], losses["random"])
        print(f"{kind}: chosen − random {less.mean():+.4f}, lower in {int((less < 0).sum())} of {seeds}", flush=True)


def gradient_of_new(units, fn, params, grads) -> dict[str, float]:
    """For each set the root mean square of the gradients' norms of the new units, over that of the old ones."""
    now = pm.structure.find_units(fn, params, jnp.zeros((2, 16, 16, 3)))
    named = {"/".join(str(key.key) for key in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(grads)}
    shares = {}
    for name, own in now.sets.items():
        squares = own.squares((*own.makers, *own.readers), named)
        old = units.sets[name].size
        shares[name] = float(np.sqrt(squares[old:].mean() / squares[:old].mean()))
    return shares


def _parts(split):
    return [tuple(part[i : i + 1000] for part in split) for i in range(0, len(split[0]), 1000)]


def _trained(loss, params, data, epochs: int, seed: int, state=None):
    """(params, state) after some epochs; with a state α falls to zero, without one it is constant."""
    number = epochs * (len(data[0]) // BATCH)
    alpha = RATE if state is None else optax.cosine_decay_schedule(RATE, number)
    clip = optax.chain(optax.clip_by_global_norm(5.0), optax.trace(0.9))
    state = clip.init(params) if state is None else state

    @jax.jit
    def step(params, state, count, x, y):
        updates, state = clip.update(jax.grad(loss)(params, x, y), state, params)
        rate = alpha(count) if callable(alpha) else alpha
        return jax.tree.map(lambda w, u: w - rate * u, params, updates), state

    for epoch in range(epochs):
        order = np.random.default_rng([seed, epoch]).permutation(len(data[0]))
        for count in range(len(order) // BATCH):
            batch = order[count * BATCH : (count + 1) * BATCH]
            params, state = step(params, state, count + epoch * (len(order) // BATCH), data[0][batch], data[1][batch])
    return params, state


def start(kind: str, seed: int):
    """The weights of a network of 6 to 12 filters a layer, as He et al. draw them."""
    shapes = {"conv1": (3, 3, 3, 6), "conv2": (3, 3, 6, 8), "conv3": (3, 3, 8, 12), "head": (48, 10)}
    if kind == "residual":
        shapes = {"stem": (3, 3, 3, 6), "inner": (3, 3, 6, 8), "outer": (3, 3, 8, 6), "conv3": (3, 3, 6, 12)}
        shapes |= {"head": (48, 10)}
    params = {}
    for (name, shape), key in zip(shapes.items(), jax.random.split(jax.random.key(seed), len(shapes)), strict=True):
        kernel = jax.random.normal(key, shape) * np.sqrt((1 if name == "head" else 2) / np.prod(shape[:-1]))
        params[name] = {"kernel": kernel, "bias": jnp.zeros(shape[-1])}
        if kind != "plain" and name != "head":
            params[name]["scale"] = jnp.ones(shape[-1])
    return params


def cross_entropy(params, x, y, kind: str):
    """The mean loss of a batch."""
    return optax.softmax_cross_entropy_with_integer_labels(network(params, x, kind), y).mean()


def network(params, x, kind: str):
    """Three convolutions, each before a pooling; or a residual block in the place of the second."""
    layer = functools.partial(_layer, normalised=kind != "plain")
    if kind == "residual":
        x = _pooled(jax.nn.relu(layer(params["stem"], x)))
        x = _pooled(jax.nn.relu(x + layer(params["outer"], jax.nn.relu(layer(params["inner"], x)))))
    else:
        for name in ("conv1", "conv2"):
            x = _pooled(jax.nn.relu(layer(params[name], x)))
    x = _pooled(jax.nn.relu(layer(params["conv3"], x)))
    return x.reshape(x.shape[0], -1) @ params["head"]["kernel"] + params["head"]["bias"][None]


def _layer(params, x, normalised: bool):
    y = jax.lax.conv_general_dilated(x, params["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    if normalised:
        y = y - y.mean((0, 1, 2), keepdims=True)
        y = y * jax.lax.rsqrt(jnp.square(y).mean((0, 1, 2), keepdims=True) + 1e-5) * params["scale"][None, None, None]
    return y + params["bias"][None, None, None]


def _pooled(x):
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4))
