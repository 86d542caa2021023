"""`bench update`: time and memory of the update alone, and what it adds to a whole training step.

Donated and not, Split LBI beside `optax.sgd` and `optax.adam` in turn, on parameters shaped like LeNet, ResNet-20 and
ResNet-50. Ratios are medians over rounds in which all take their turn, so that a machine's drift cancels. With them:
bytes of state, and on a GPU the share of the device's copy bandwidth.
"""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

import parsimony as pm

from .timing import in_turn, ratio

Shapes = dict[str, tuple[int, ...]]


def lenet_shapes() -> Shapes:
    kernels = {
        "conv1": (5, 5, 1, 6),
        "conv2": (5, 5, 6, 16),
        "conv3": (5, 5, 16, 120),
        "fc1": (120, 84),
        "fc2": (84, 10),
    }
    return kernels | {f"{name}/bias": shape[-1:] for name, shape in kernels.items()}


def resnet20_shapes() -> Shapes:
    shapes, width_in = {"stem": (3, 3, 3, 16), "fc": (64, 10), "fc/bias": (10,)}, 16
    for stage, width in enumerate([16, 32, 64]):
        for block in range(3):
            shapes |= {f"{stage}.{block}.a": (3, 3, width_in, width), f"{stage}.{block}.b": (3, 3, width, width)}
            shapes |= {f"{stage}.{block}.norm{i}": (width,) for i in range(4)}
            width_in = width
    return shapes


def resnet50_shapes() -> Shapes:
    shapes, width_in = {"stem": (7, 7, 3, 64), "fc": (2048, 1000), "fc/bias": (1000,)}, 64
    for stage, (blocks, width) in enumerate([(3, 64), (4, 128), (6, 256), (3, 512)]):
        for block in range(blocks):
            at = f"{stage}.{block}"
            shapes |= {
                f"{at}.a": (1, 1, width_in, width),
                f"{at}.b": (3, 3, width, width),
                f"{at}.c": (1, 1, width, 4 * width),
            }
            if block == 0:
                shapes[f"{at}.shortcut"] = (1, 1, width_in, 4 * width)
            shapes |= {f"{at}.norm{i}": (w,) for i, w in enumerate([width] * 4 + [4 * width] * 2)}
            width_in = 4 * width
    return shapes


def optimizers() -> dict[str, optax.GradientTransformation]:
    """The rows of the tables; `adam` is what the ratios are against."""
    decay = optax.piecewise_constant_schedule(0.01, {1000: 0.1})
    return {
        "adam": optax.adam(1e-3),
        "sgd momentum": optax.sgd(0.01, momentum=0.9),
        "split_lbi": pm.split_lbi(0.01, momentum=0.9),
        "split_lbi, schedule": pm.split_lbi(decay, momentum=0.9),
        "split_lbi, recorded": pm.record_path(pm.split_lbi(0.01, momentum=0.9)),
    }


def arrays(shapes: Shapes, seed: int, scale: float) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(scale * rng.standard_normal(shape), jnp.float32) for name, shape in shapes.items()}


def medians(steps: dict, carry: dict, rounds: int, calls: int) -> dict[str, tuple[float, ...]]:
    """{name: (ms, ratio to the first, its quartiles)} of step(params, state) → (params, state), taken in turn."""

    def advance(name: str):
        carry[name] = steps[name](*carry[name])
        return carry[name]

    times = in_turn({name: functools.partial(advance, name) for name in steps}, rounds, calls)
    first = next(iter(steps))
    return {name: (1e3 * float(np.median(seconds)), *ratio(times, name, first)) for name, seconds in times.items()}


def row(name: str, result, *more: str) -> str:
    ms, ratio, low, high = result
    return f"  {name:22s} {ms:9.3f} ms  {ratio:5.2f} × adam ({low:.2f}–{high:.2f})  " + "  ".join(more)


def update(rounds: int = 40, seed: int = 0) -> None:
    """Time of the jitted update and application, and of a whole training step.

    Args:
      rounds: timed rounds; in each, every optimizer takes its turn.
      seed: of the arrays.
    """
    device = jax.devices()[0]
    print(f"{device.device_kind}, JAX {jax.__version__}; medians of {rounds} rounds, quartiles in brackets")
    copy = _copy_bandwidth() if device.platform == "gpu" else None
    models = [("LeNet", lenet_shapes(), 50), ("ResNet-20", resnet20_shapes(), 20), ("ResNet-50", resnet50_shapes(), 2)]
    for model, shapes, calls in models:
        grads = arrays(shapes, seed + 1, 1e-3)
        size = sum(g.nbytes for g in grads.values())
        for donated in (False, True):
            print(f"update, {model}, {size / 4e6:.2f} M parameters, {'donated' if donated else 'not donated'}")
            for name, result in compare(shapes, update_step, (grads,), donated, rounds, calls, seed).items():
                more = [f"state {sum(x.nbytes for x in jax.tree.leaves(optimizers()[name].init(grads))):,} bytes"]
                if copy:  # gradient, momentum, second state and weights read; the last three written
                    more.append(f"{7 * size / (result[0] * 1e-3) / copy:.0%} of the copy bandwidth")
                print(row(name, result, *more))
    rng = np.random.default_rng(seed)
    images, labels = jnp.asarray(rng.random((128, 28, 28, 1)), jnp.float32), jnp.asarray(rng.integers(0, 10, 128))
    for model, shapes, loss in [("LeNet", lenet_shapes(), _lenet_loss), ("784-2048-2048-10", _mlp_shapes(), _mlp_loss)]:
        print(f"whole training step, donated, batch 128: {model}")
        step_of = functools.partial(_training_step, loss)
        for name, result in compare(shapes, step_of, (images, labels), True, rounds, 1, seed).items():
            print(row(name, result))


def compare(shapes: Shapes, step_of, data: tuple, donated: bool, rounds: int, calls: int, seed: int):
    """`medians` of step_of(optimizer)(params, state, *data) for every optimizer, in the middle of a path."""
    steps, starts = {}, {}
    for name, tx in optimizers().items():
        compiled = jax.jit(step_of(tx), donate_argnums=(0, 1) if donated else ())
        steps[name] = lambda params, state, compiled=compiled: compiled(params, state, *data)
        params = arrays(shapes, seed, 0.05)
        starts[name] = (params, _with_dual(tx.init(params), shapes, seed))
    return medians(steps, starts, rounds, calls)


def _training_step(loss, tx):
    return lambda params, state, *data: update_step(tx)(params, state, jax.grad(loss)(params, *data))


def update_step(tx):
    def step(params, state, grads):  # outputs in the order of the donated inputs, or XLA copies every buffer
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return step


def _with_dual(state, shapes: Shapes, seed: int):
    """The state in the middle of a path: a V of which a part is above the threshold."""
    dual = arrays(shapes, seed + 2, 0.5)
    return optax.tree.set(state, dual=dual) if optax.tree.get_all_with_path(state, "dual") else state


def _copy_bandwidth() -> float:
    """Bytes a second read and written by a plain copy of 1 GiB on the device."""
    x = jnp.zeros(2**28, jnp.float32)
    compiled = jax.jit(lambda x: x + 1, donate_argnums=0)
    times = []
    for _ in range(10):
        begin = time.perf_counter()
        x = jax.block_until_ready(compiled(x))
        times.append(time.perf_counter() - begin)
    return 2 * x.nbytes / min(times)


def _mlp_shapes() -> Shapes:
    kernels = {"fc1": (784, 2048), "fc2": (2048, 2048), "fc3": (2048, 10)}
    return kernels | {f"{name}/bias": shape[-1:] for name, shape in kernels.items()}


def _dense(params, name, x):
    return x @ params[name] + params[f"{name}/bias"]


def _mlp_loss(params, x, labels):
    x = jax.nn.relu(_dense(params, "fc1", x.reshape(len(x), -1)))
    logits = _dense(params, "fc3", jax.nn.relu(_dense(params, "fc2", x)))
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def _lenet_loss(params, x, labels):
    for name, padding in [("conv1", "SAME"), ("conv2", "VALID"), ("conv3", "VALID")]:
        x = jax.lax.conv_general_dilated(x, params[name], (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = jax.nn.relu(x + params[f"{name}/bias"])
        if name != "conv3":
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    logits = _dense(params, "fc2", jax.nn.relu(_dense(params, "fc1", x.reshape(len(x), -1))))
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
