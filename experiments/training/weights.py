"""Weights that a training starts from instead of those of the seed: of a folder, of whichever kind it is.

    a run           what `python -m experiments train` leaves: W at its last checkpoint
    Hugging Face    config.json and safetensors, GPT-2 or ViT (`hugging_face`)
    exported        what `parsimony.structure.export` writes, of the whole network

The network stays that of the configuration: weights of other names or shapes are errors.
"""

from pathlib import Path

from flax import nnx

import parsimony as pm

from ..config import Config
from ..data.dataset import classes_of
from ..errors import RunError
from ..progress import announce
from ..runs.load import load_run, read_config
from ..runs.start import START, fitted, read_start
from . import distributed
from .hugging_face import load_folder
from .network import Network, by_name, merge_variables


def start_weights(config: Config, network: Network, params: dict, stats: dict) -> tuple[dict, dict]:
    """(params, stats) of the folder `config.weights`, as the first process reads them; without one those given.

    A run that has kept them has no need of that folder any more.

    Args:
      params, stats: the network's own, of whose names and shapes those of the folder have to be.

    Raises:
      RunError: there is no such folder, it is damaged, or its weights are of another network.
    """
    if (weights := config.weights) is None:
        return params, stats
    read = []
    distributed.on_first(lambda: read.append(_read(config, weights, network, params, stats)))
    return distributed.from_first(read[0] if read else (params, stats))


def _read(config: Config, weights: str, network: Network, params: dict, stats: dict) -> tuple[dict, dict]:
    if config.run_dir is not None and (config.run_dir / START).exists():
        return read_start(config.run_dir, params, stats)
    folder, whole = Path(weights), None
    if (folder / "checkpoints").is_dir():
        found = _of_run(folder, config)
    elif (folder / "config.json").exists():
        whole, found = load_folder(folder)
        _check_vocabulary(folder, config, by_name(found))
    elif (folder / "model.json").exists():
        found = _exported(folder)
    else:
        held = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) if folder.is_dir() else "no such folder"
        raise RunError(
            f"--weights {folder}: expected the folder of a run, of Hugging Face (config.json and safetensors) or of an "
            f"exported model (model.json); found {held or 'nothing in it'}."
        )
    fit = fitted(by_name(found), params, stats, f"--weights {folder}", f"{config.model} for {config.dataset}")
    if whole is not None:
        _tell_epsilon(folder, whole, network, merge_variables(*fit))
    return fit


def _of_run(folder: Path, config: Config) -> dict:
    if (its := read_config(folder).model) != config.model:
        raise RunError(f"--weights {folder} is a run of {its}, and this configuration has the model {config.model}.")
    return merge_variables(*load_run(folder, config.data_dir).at()[:2])


def _exported(folder: Path) -> dict:
    try:
        return pm.structure.load_compact(folder)[1]
    except (FileNotFoundError, ValueError) as error:
        raise RunError(f"--weights {folder}: {error}") from None


def _check_vocabulary(folder: Path, config: Config, arrays) -> None:
    embedding, classes = arrays.get("tokens/embedding"), classes_of(config.dataset)
    if embedding is not None and len(embedding) != classes:
        raise RunError(
            f"--weights {folder} has a vocabulary of {len(embedding)}, and {config.dataset} has {classes} classes."
        )


def _tell_epsilon(folder: Path, whole: Network, network: Network, variables: dict) -> None:
    """Of the one number of a network that no shape shows."""
    its, ours = (
        {m.epsilon for _, m in nnx.iter_modules(nnx.merge(each.graphdef, variables)) if isinstance(m, nnx.LayerNorm)}
        for each in (whole, network)
    )
    if its != ours:
        listed = [" and ".join(f"{epsilon:g}" for epsilon in sorted(each)) for each in (its, ours)]
        announce(f"WARNING: the normalisations of {folder} have an ε of {listed[0]}, and those here one of {listed[1]}")
