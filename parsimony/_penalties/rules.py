"""Which parameter gets which penalty: by name, by rank, or by the paper's choice."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import jax

from .._tree import named_leaves
from .._words import check_patterns, listed
from .layouts import by_layout, is_kernel
from .penalty import Penalty, over, strength_of_each
from .unit_penalty import UnitPenalty


@dataclasses.dataclass(frozen=True)
class Rules:
    """Penalties by the parameter's name; the first pattern found in it (`re.search`) wins.

    Args:
      rules: pairs (regular expression, penalty or None). None leaves a parameter unpenalised. A parameter that
        a pattern gives a penalty must have a rank that the penalty takes, and a pattern that is found in no
        name is an error, both at `init`.
      default: the penalty of kernels (rank 2 or more, not a bias or scale by name) that no pattern names. None: none.
        Rules that leave every parameter unpenalised are an error at `init`.

    Examples:
      >>> import parsimony as pm
      >>> rules = pm.Rules([("conv.*kernel", pm.GroupLasso(-1, scale="rms")), ("head", None)], default=pm.Lasso(0.5))
      >>> rules.rules[1]
      ('head', None)

    Raises:
      TypeError, ValueError: an entry is not such a pair, or not a regular expression (at construction).
    """

    rules: Sequence[tuple[str, Penalty | UnitPenalty | None]]
    default: Penalty | UnitPenalty | None = None

    def __post_init__(self):
        try:
            rules = tuple((pattern, penalty) for pattern, penalty in self.rules)
        except (TypeError, ValueError):
            raise TypeError(
                f"Rules({self.rules!r}): expected pairs like [('kernel', Lasso()), ('head', None)]."
            ) from None
        for pattern, penalty in rules:
            check_penalty(penalty, f"Rules, pattern {pattern!r}")
            try:
                re.compile(pattern)
            except (re.error, TypeError) as error:
                raise ValueError(f"Rules: {pattern!r} is not a regular expression: {error}.") from None
        check_penalty(self.default, "Rules, default")
        object.__setattr__(self, "rules", rules)  # a list is welcome, but the state's metadata must be hashable


def check_penalty(penalty, where: str) -> None:
    """Rejects anything but a penalty or None."""
    if isinstance(penalty, type):
        raise TypeError(f"{where}: got the class {penalty.__name__}; write {penalty.__name__}() for an instance.")
    if penalty is not None and not all(
        hasattr(penalty, method) for method in ("prox", "value", "group_norms", "check")
    ):
        rules = ", Rules([('kernel', GroupLasso(-1))])" if where == "penalty" else ""
        raise TypeError(f"{where}: expected a penalty such as GroupLasso(-1){rules} or None, got {penalty!r}.")


def resolve(penalty: Penalty | UnitPenalty | Rules | None, tree, strength: Any = None) -> list[Any]:
    """The penalty of each leaf, in the order of `jax.tree.leaves`.

    A penalty whose groups reach over several parameters (`UnitPenalty`) is bound to the arrays of this tree, or to
    those of tree/T where a strength T is given, one or a tree with one for each leaf: its prox holds for them alone.

    None means the paper's choice: whole filters of convolutions, single weights of matrices, nothing for the rest
    (`layouts`). A single penalty goes to every kernel: rank 2 or more, and no bias, scale or statistic by its name.

    Raises:
      ValueError: a pattern without a match, a shape that a penalty cannot take, or a single penalty that finds no
        parameter. The message names the parameter.
    """
    leaves, _ = named_leaves(tree)
    # Random keys, counters and tables of indices are not weights: no default penalises them.
    weights = {name: leaf for name, leaf in leaves if jax.numpy.issubdtype(leaf.dtype, jax.numpy.inexact)}
    shapes = {name: tuple(leaf.shape) for name, leaf in weights.items()}
    kernels = {name for name in weights if is_kernel(name, shapes)}
    chosen: list[Any]
    if isinstance(penalty, Rules):
        chosen = [_by_rule(penalty, name, name in kernels) for name, _ in leaves]
        check_patterns("Rules", (pattern for pattern, _ in penalty.rules), [name for name, _ in leaves])
        if leaves and not any(chosen):
            found = (
                ""
                if penalty.default is None
                else f" The default finds no kernel of rank 2 or more among {listed(n for n, _ in leaves)}."
            )
            raise ValueError(
                f"Rules: every parameter is left unpenalised; give some pattern, or default, a penalty.{found}"
            )
    elif hasattr(penalty, "bind"):
        chosen = [penalty] * len(leaves)
    else:
        by_name = by_layout(shapes) if penalty is None else dict.fromkeys(kernels, penalty)
        chosen = [by_name.get(name) for name, _ in leaves]
        if leaves and not any(chosen):
            for name, leaf in leaves:
                if leaf.ndim >= 2 and name not in weights:
                    raise _no_weight(name, penalty, leaf)
            asked = "penalty=None: the paper's choice" if penalty is None else repr(penalty)
            raise ValueError(
                f"{asked} finds no kernel of rank 2 or more among {listed(name for name, _ in leaves)}; vectors, "
                "scalars and biases stay unpenalised, since a penalty would silently decay them to zero. Name the "
                "parameters, e.g. penalty=Rules([('kernel', Lasso())])."
            )
    strengths = strength_of_each(strength, len(leaves))
    bound: Any = {omega for omega in chosen if hasattr(omega, "bind")}  # their groups reach over several parameters
    for shared in bound:
        places = [place for place, omega in enumerate(chosen) if omega == shared]
        arrays = [(leaves[place][0], over(leaves[place][1], strengths[place])) for place in places]
        for place, omega in zip(places, shared.bind(arrays), strict=True):
            chosen[place] = omega
    for (name, leaf), omega in zip(leaves, chosen, strict=True):
        if omega is not None:
            try:
                omega.check(leaf.shape)
            except ValueError as error:
                raise ValueError(f"parameter {name!r}: {error}") from None
            if not jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating):
                raise _no_weight(name, omega, leaf)
    return chosen


def _no_weight(name: str, penalty, leaf) -> ValueError:
    return ValueError(f"parameter {name!r}: {penalty!r} takes real floating-point weights, not {leaf.dtype}.")


def _by_rule(rules: Rules, name: str, kernel: bool) -> Any:
    for pattern, penalty in rules.rules:
        if re.search(pattern, name):
            return penalty
    return rules.default if kernel else None
