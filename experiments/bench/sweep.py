"""`bench sweep`: what many small runs trained as one cost, beside one run alone, on images made up.

gain of n runs = n · seconds of a step of one run / seconds of a step of all n       (1: nothing is gained)
"""

from collections.abc import Callable

import jax
import numpy as np

import parsimony as pm

from ..data.loader import steps_per_call
from ..training.build import build_model
from ..training.sweep import Sweep, started
from .loop import made_up
from .timing import in_turn


def sweep(model: str = "lenet", batch_size: int = 128, runs: tuple[int, ...] = (1, 5, 25), rounds: int = 8) -> None:
    """Time a step of Split LBI for each number of runs, of other seeds and steps α.

    Args:
      model: one of experiments/models.
      batch_size: images a step, of each run.
      runs: how many at once.
      rounds: in each of which all take their turn.
    """
    network, params, stats = build_model(model, 0)
    made_of = lambda setting: pm.record_path(pm.split_lbi(setting["learning_rate"], nu=20.0, momentum=0.9))
    many = Sweep(network, made_up(model, 4 * batch_size), 1, batch_size, made_of)
    turns: dict[str, Callable[[], object]] = {str(number): _turn(many, (params, stats), number) for number in runs}
    times = {name: float(np.median(seconds)) / steps_per_call() for name, seconds in in_turn(turns, rounds, 1).items()}

    device = jax.devices()[0]
    print(f"{device.device_kind}, JAX {jax.__version__}; {model}, batch {batch_size}; medians of {rounds} rounds")
    alone = times[str(runs[0])] / runs[0]
    for name, seconds in times.items():
        print(f"  {name:>3s} runs at once {1e3 * seconds:9.3f} ms a step  gain {int(name) * alone / seconds:6.2f}")


def _turn(many: Sweep, start: tuple, number: int):
    """A call of the compiled step of so many runs, as `experiments.sweep.train` makes them."""
    settings = [{"learning_rate": np.float32(0.01 + 0.001 * run), "seed": np.int32(run)} for run in range(number)]
    setting, state = started(many, settings, [start] * number)
    latest = [*state]
    batches, steps = many.batches(range(number), 0, steps_per_call()), np.arange(steps_per_call(), dtype=np.int32)

    def turn():
        latest[:] = many.step[number > 1](*latest, setting, *many.images, batches, steps)
        return latest

    return turn
