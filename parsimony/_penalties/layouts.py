"""Which parameters are kernels, and which axis of a kernel is its output: by names, layouts and adjacent biases.

| layout | name of the array | kernel of a convolution | groups |
|---|---|---|---|
| Linen, NNX, Keras | `kernel`, `recurrent_kernel`, … | (window…, in, out) | `GroupLasso(-1)` |
| Haiku | `w` | (window…, in, out) | `GroupLasso(-1)` |
| Equinox, PyTorch | `weight` | (out, in, window…) | `GroupLasso(0)` |
| a stack of layers (`nn.scan`, `nnx.vmap`) | as above | (layers, …), with a bias (layers, out) | `GroupLasso((0, …))` |
| attention, `DenseGeneral` | `kernel` of query, key, value and out | a matrix whose axes are split | `Lasso()` |
| any other name, rank 4 | | the two axes that can only be the window decide | either |

Matrices get `Lasso()`; biases, scales and statistics nothing, whatever their rank. What this does not decide is an
error.
"""

import re
from typing import Any

from .._words import listed
from .lasso import GroupLasso, Lasso
from .penalty import Penalty

# Biases, scales and statistics of Linen, NNX, Haiku, Equinox, Keras and PyTorch.
_NO_KERNEL = re.compile(
    r"(^|_)(bias|biases|scale|offset|gamma|beta|mean|var|variance|running_(mean|var)|moving_(mean|variance))(_|\d|$)"
)
_TOKEN = re.compile(r"(^|_)(cls|class|token|tokens|pos|position|positions|positional|embed|embeddings?)(_|\d|$)")
_ATTENTION = re.compile(r"^(.*_)?(query|key|value|out|output|qkv|q|k|v|o)(_proj|_projection)?$", re.IGNORECASE)
_OUTPUT_FIRST, _OUTPUT_LAST = re.compile(r"^weight"), re.compile(r"(^w|kernel)(_\w+)?$")


def is_kernel(name: str, shapes: dict[str, tuple[int, ...]]) -> bool:
    """Whether a parameter can be a kernel at all: of rank 2 or more, and not a bias, scale or statistic by its name."""
    last = _parts(name)[-1]
    if last == "b" and name[:-1] + "w" in shapes:  # Haiku's bias; alone it may be the name of a matrix
        return False
    if len(shapes[name]) > 2 and _TOKEN.search(last.lower()):  # a class token or positions, broadcast over the batch
        return False
    return len(shapes[name]) >= 2 and not _NO_KERNEL.search(last.lower())


def by_layout(shapes: dict[str, tuple[int, ...]]) -> dict[str, Penalty]:
    """{kernel: the paper's penalty}: whole filters of convolutions, single weights of matrices.

    Args:
      shapes: of all weights of a network by name.

    Raises:
      ValueError: a kernel whose output axis cannot be determined; the message gives the rules to write.
    """
    axes = {name: _group_axes(name, shape, shapes) for name, shape in shapes.items() if is_kernel(name, shapes)}
    unclear = [name for name, found in axes.items() if found == "unclear"]
    if unclear:
        rules = ", ".join(f"(r'{re.escape(name)}$', pm.GroupLasso(-1))" for name in unclear[:3])
        raise ValueError(
            f"penalty=None: which axis holds the filters of {listed(f'{name!r} {shapes[name]}' for name in unclear)} "
            f"cannot be determined. Write penalty=pm.Rules([{rules}], default=pm.Lasso()) with -1 where the output "
            "axis is the last, 0 where it is the first, (0, -1) for a stack of layers, or pm.Lasso() for single "
            "weights; or take the groups from the program: "
            "pm.structure.unit_penalty(pm.structure.find_units(fn, params, x))."
        )
    return {name: Lasso() if found == "weights" else GroupLasso(found) for name, found in axes.items()}


def _group_axes(name: str, shape: tuple[int, ...], shapes: dict[str, tuple[int, ...]]) -> Any:
    """The axes that index the filters; "weights" for single weights, "unclear" where nothing decides."""
    rank, parts = len(shape), _parts(name)
    if rank == 2:
        return "weights"
    bias: Any = _bias(name, shapes)
    if any(_ATTENTION.match(part) for part in parts[-2:-1]) and _OUTPUT_LAST.search(parts[-1]):
        return "weights"
    if bias is not None and len(bias) >= 2 and min(bias) > 1 and _OUTPUT_LAST.search(parts[-1]):
        if bias[0] == shape[0] and bias[1:] == shape[-1:]:  # a stack of layers
            return (0, rank - 1) if rank > 3 else "weights"
        return "weights"  # several axes of outputs: a matrix whose axes are split
    stated = re.search(r"conv\w*?([123])_?d", name.lower())
    dims = int(stated[1]) if stated else None
    if dims is not None and rank not in (dims + 2, dims + 3):
        return "unclear"
    if dims is not None and rank == dims + 3:
        return (0, 1) if _OUTPUT_FIRST.match(parts[-1]) else (0, rank - 1)
    if _OUTPUT_FIRST.match(parts[-1]):
        if bias is not None and shape[0] != bias[0]:  # transposed convolutions of PyTorch have (in, out, window)
            return 1 if shape[1] == bias[0] else "unclear"
        return 0 if dims or bias is not None or rank in (4, 5) or "conv" in name.lower() else "unclear"
    if "depthwise" in parts[-1]:  # Keras: (window…, in, multiplier)
        return (rank - 2, rank - 1)
    if _OUTPUT_LAST.search(parts[-1]):
        if bias is not None and len(bias) == 1 and bias[0] != shape[-1]:
            return -2 if bias[0] == shape[-2] and "transpose" in name.lower() else "unclear"
        certain = dims or rank == 4 or "conv" in name.lower() or (bias is not None and rank == 3)
        return -1 if (certain and rank < 5) or dims == 3 else _volume(shape, bias)
    return _by_window(shape) if rank == 4 else -1 if dims else "unclear"


def _volume(shape: tuple[int, ...], bias) -> Any:
    """A convolution of three dimensions has a window of three, and a bias of its filters alone."""
    return -1 if len(shape) == 5 and (bias is not None or len(set(shape[:3])) == 1) else "unclear"


def _by_window(shape: tuple[int, ...]) -> Any:
    """The output axis by the two axes that can only be the window: smaller than both others, or alone equal."""
    first, last = shape[:2], shape[2:]
    if max(first) < min(last) or (first[0] == first[1] and last[0] != last[1]):
        return -1
    if max(last) < min(first) or (last[0] == last[1] and first[0] != first[1]):
        return 0
    return "unclear"


def _bias(name: str, shapes: dict[str, tuple[int, ...]]) -> tuple[int, ...] | None:
    """The shape of the bias beside a kernel."""
    parent, last = name[: len(name) - len(_parts(name)[-1])], _parts(name)[-1]
    for word in ("bias", "b", re.sub(r"kernel|weight", "bias", last)):
        if word != last and parent + word in shapes:
            return shapes[parent + word]
    return None


def _parts(name: str) -> list[str]:
    """The steps of a name, of a tree or of a flat `state_dict`."""
    return re.split(r"[/.]", name)
