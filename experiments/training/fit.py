"""Plain training: so many epochs by one step."""

import math

import flax.jax_utils
from tqdm import tqdm

from ..data.dataset import Dataset
from ..data.loader import make_loader
from ..data.sampler import Sampler
from ..errors import RunError
from .step import advance


def fit(step, params, stats, opt_state, dataset: Dataset, epochs: int, batch_size: int, seed: int, first: int = 0):
    """Training by a step of `make_step` from epoch `first` on; (params, stats, opt_state) after `epochs` more."""
    sampler = Sampler(seed, len(dataset.train), batch_size)
    start, stop = sampler.end(first), sampler.end(first + epochs)
    loader = make_loader(dataset.train, sampler, first + epochs)
    replicas = flax.jax_utils.replicate((params, stats, opt_state))
    with tqdm(total=stop - start, unit="step", disable=None, leave=False) as bar:
        for latest, taken, losses in advance(step, replicas, loader.chunks(start, stop)):
            replicas = latest
            bar.update(taken)
            if not all(map(math.isfinite, losses)):
                raise RunError(f"the loss is {losses[-1]} near step {start + bar.n}; try a smaller --learning-rate.")
    loader.close()
    return flax.jax_utils.unreplicate(tuple(replicas))
