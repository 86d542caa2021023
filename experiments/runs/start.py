"""The weights that a run was started from, where the seed did not make them: RUN/start.safetensors.

With it a run needs the folder that they came from no longer: to go on, or to be pruned, or to go back to its start.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy

from ..errors import RunError
from ..training.network import by_name, merge_variables, split_variables
from .files import whole_file

START = "start.safetensors"


def keep_start(directory: Path, params: dict, stats: dict) -> None:
    """Writes the weights into the folder of a run, where they are not there yet."""
    if (directory / START).exists():
        return
    arrays = {name: np.ascontiguousarray(leaf) for name, leaf in by_name(merge_variables(params, stats)).items()}
    with whole_file(directory / START) as file:
        file.write(safetensors.numpy.save(arrays))


def read_start(directory: Path, params: dict, stats: dict) -> tuple[dict, dict]:
    """(params, stats) that were kept; `params` and `stats` have their names and shapes.

    Raises:
      RunError: they are missing or damaged, or are those of another network.
    """
    try:
        found = safetensors.numpy.load_file(directory / START)
    except (OSError, safetensors.SafetensorError) as error:
        raise RunError(
            f"{directory / START}, the weights that this run was started from, cannot be read: {error}."
        ) from None
    return fitted(found, params, stats, str(directory / START), "the network of this run")


def fitted(found: dict[str, Any], params: dict, stats: dict, source: str, network: str) -> tuple[dict, dict]:
    """(params, stats) of the arrays {name: array} for a network, whose own have the names and the shapes.

    Args:
      source: where the arrays come from. network: whose they are to be. Both for the message.

    Raises:
      RunError: names or shapes of another network.
    """
    variables = merge_variables(params, stats)
    shapes = {name: np.shape(leaf) for name, leaf in by_name(variables).items()}
    both = ("lacks", sorted(shapes.keys() - found.keys())), ("has", sorted(found.keys() - shapes.keys()))
    if shapes.keys() != found.keys():
        told = [f"{verb} {names[0]} and {len(names) - 1} more" for verb, names in both if names]
        raise RunError(f"{source} is of another architecture than {network}: it {', and '.join(told)}.")
    wrong = [name for name, shape in shapes.items() if np.shape(found[name]) != shape]
    if wrong:
        name = wrong[0]
        raise RunError(
            f"{source} does not fit {network}: {name} has the shape {list(np.shape(found[name]))}, expected "
            f"{list(shapes[name])}."
        )
    place = lambda path, leaf: np.asarray(
        found[jax.tree_util.keystr(path, simple=True, separator="/")], np.asarray(leaf).dtype
    )
    return split_variables(jax.tree_util.tree_map_with_path(place, variables), stats)
