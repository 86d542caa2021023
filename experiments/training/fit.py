"""Plain training: so many epochs by one step; and the one recipe by which everything is fine-tuned."""

import math

import flax.jax_utils
import jax
import optax

import parsimony as pm

from ..config import Config
from ..data.dataset import Dataset
from ..data.loader import make_loader
from ..data.placement import replicate
from ..data.sampler import Sampler
from ..errors import RunError
from ..progress import Progress
from .build import clip, decay, direction
from .network import Network
from .step import advance, make_step


def fit(step, params, stats, opt_state, dataset: Dataset, epochs: int, batch_size: int, seed: int, first: int = 0):
    """Training by a step of `make_step` from epoch `first` on; (params, stats, opt_state) after `epochs` more."""
    sampler = Sampler(seed, len(dataset.train), batch_size)
    start, stop = sampler.end(first), sampler.end(first + epochs)
    loader = make_loader(dataset.train, sampler, first + epochs)
    replicas = replicate((params, stats, opt_state))
    taken_so_far = start
    with Progress(stop - start, leave=False) as progress:
        for latest, taken, losses in advance(step, replicas, loader.chunks(start, stop)):
            replicas = latest
            taken_so_far += taken
            progress.advance(taken)
            if not all(map(math.isfinite, losses)):
                raise RunError(f"the loss is {losses[-1]} near step {taken_so_far}; try a smaller --learning-rate.")
    loader.close()
    return flax.jax_utils.unreplicate(tuple(replicas))


def fine_tune_optimizer(config: Config, rate: jax.typing.ArrayLike, steps: int) -> optax.GradientTransformation:
    """What trained a run, without Γ: with its momentum or Adam, decay and clipping; the step α falls to zero:

        α_k = α₀·(1 + cos(πk/K))/2

    SmallCNN on the digits, cut to 90 and 97 % and tuned for 3 and 10 epochs from the run's α = 0.05: mean validation
    accuracy of three seeds 96.94 %; with a step that falls by ten at two thirds 96.80 %, constant 96.25 %, constant
    0.01 96.39 %. These are differences of less than one standard error of 180 images (1.3 %). The comparisons in the
    results were made with the cosine.

    Args:
      rate: α₀; may be traced.
      steps: K.
    """
    alpha: optax.Schedule = optax.cosine_decay_schedule(rate, steps)  # type: ignore[arg-type]  (a traced α₀ will do)
    return optax.chain(clip(config), decay(config), direction(config), optax.scale_by_learning_rate(alpha))


def make_fine_tune(network: Network, dataset: Dataset, config: Config, rate: float, epochs: int, seed: int):
    """fine_tune(params, stats, masks=None) → (params, stats) after so many epochs by `fine_tune_optimizer`.

    With `masks` every weight outside them stays zero. They lie in the optimizer's state, so that one compiled step
    serves them all.
    """
    alone = fine_tune_optimizer(config, rate, max(1, Sampler(seed, len(dataset.train), config.batch_size).end(epochs)))
    steps = {}

    def fine_tune(params, stats, masks=None):
        if epochs == 0:
            return params, stats
        tx = alone if masks is None else pm.keep_support(alone, masks)
        masked = masks is not None
        if masked not in steps:
            steps[masked] = make_step(network, tx, dataset, seed=seed, augment=config.augment)
        start = params, stats, tx.init(params)
        return fit(steps[masked], *start, dataset, epochs, config.batch_size, seed)[:2]

    return fine_tune
