"""`bench sweep`: what many small runs trained as one cost, beside one run alone, on images made up.

gain of n runs = n · seconds of a step of one run / seconds of a step of all n       (1: nothing is gained)
"""

from collections.abc import Callable

import jax
import numpy as np

import parsimony as pm

from . import models
from .data import Dataset, Split
from .feed import steps_a_call
from .latency import in_turn
from .recipe import made
from .sweep import Sweep, stacked


def sweep(model: str = "lenet", batch_size: int = 128, runs: tuple[int, ...] = (1, 5, 25), rounds: int = 8) -> None:
    """Time a step of Split LBI for each number of runs, of other seeds and steps α.

    Args:
      model: one of experiments/models.
      batch_size: images a step, of each run.
      runs: how many at once.
      rounds: in each of which all take their turn.
    """
    rng, shape = np.random.default_rng(0), models.image_shape(model)
    split = Split(rng.integers(0, 256, (4 * batch_size, *shape), np.uint8), rng.integers(0, 10, 4 * batch_size))
    dataset = Dataset(split, split, split, 255, (127.0,) * shape[-1], (64.0,) * shape[-1])
    network, params, stats = made(model, 0)
    made_of = lambda setting: pm.record_path(pm.split_lbi(setting["learning_rate"], nu=20.0, momentum=0.9))
    many = Sweep(network, dataset, 1, batch_size, made_of)
    turns: dict[str, Callable[[], object]] = {str(number): _turn(many, (params, stats), number) for number in runs}
    times = {name: float(np.median(own)) / steps_a_call() for name, own in in_turn(turns, rounds, 1).items()}

    device = jax.devices()[0]
    print(f"{device.device_kind}, JAX {jax.__version__}; {model}, batch {batch_size}; medians of {rounds} rounds")
    alone = times[str(runs[0])] / runs[0]
    for name, seconds in times.items():
        print(f"  {name:>3s} runs at once {1e3 * seconds:9.3f} ms a step  gain {int(name) * alone / seconds:6.2f}")


def _turn(many: Sweep, start: tuple, number: int):
    """A call of the compiled step of so many runs, as `experiments.sweep.train` makes them."""
    settings = [{"learning_rate": np.float32(0.01 + 0.001 * run), "seed": np.int32(run)} for run in range(number)]
    mapped, (setting, (params, stats)) = number > 1, (stacked(settings), stacked([start] * number))
    batches = np.stack([many.order(run).batches(0, steps_a_call()) for run in range(number)])
    if not mapped:
        setting, params, stats, batches = jax.tree.map(lambda x: x[0], (setting, params, stats, batches))
    state = [params, stats, many.begin[mapped](setting, params)]
    steps = np.arange(steps_a_call(), dtype=np.int32)

    def turn():
        state[:] = many.step[mapped](*state, setting, *many.images, batches, steps)
        return state

    return turn
