"""What is in the support: norms of Γ by group, and counts by parameter."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from ._penalties.penalty import Penalty
from ._readout import gammas, matched, merged
from ._state import split_lbi_states


@dataclasses.dataclass(frozen=True)
class SparsityRow:
    """One parameter of a `SparsitySummary`.

    Attributes:
      name: the parameter's name, e.g. "conv1/kernel".
      groups, all_groups: how many groups are in the support, and how many there are; None where it has no penalty.
      weights, all_weights: the same of the weights; all of them where it has no penalty.
      not_finite: how many entries of Γ are NaN or infinite; these are not counted as support.

    Examples:
      >>> SparsityRow("conv", groups=1, all_groups=2, weights=9, all_weights=18).density
      0.5
    """

    name: str
    groups: int | None
    all_groups: int | None
    weights: int
    all_weights: int
    not_finite: int = 0

    @property
    def density(self) -> float:
        """Share of the weights in the support, in [0, 1]."""
        return self.weights / self.all_weights if self.all_weights else 1.0


class SparsitySummary(tuple[SparsityRow, ...]):
    """Rows of `sparsity_summary`; printed, a table.

    Examples:
      >>> print(SparsitySummary([SparsityRow("conv", 1, 2, 9, 18), SparsityRow("bias", None, None, 2, 2)]))
      parameter  groups in supp Γ  weights in supp Γ  density
      conv                  1 / 2             9 / 18    50.0%
      bias             no penalty              2 / 2   100.0%
      all                                    11 / 20    55.0%
    """

    def __str__(self) -> str:
        lines = [("parameter", "groups in supp Γ", "weights in supp Γ", "density")]
        for row in self:
            groups = "no penalty" if row.groups is None else f"{row.groups:,} / {row.all_groups:,}"
            density = f"{row.not_finite:,} not finite" if row.not_finite else f"{row.density:.1%}"
            lines.append((row.name, groups, f"{row.weights:,} / {row.all_weights:,}", density))
        weights, everything = sum(row.weights for row in self), sum(row.all_weights for row in self)
        lines.append(("all", "", f"{weights:,} / {everything:,}", f"{weights / max(everything, 1):.1%}"))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(
                cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        )


def group_norms(opt_state: optax.OptState, params: optax.Params | None = None):
    """Norm of every group of Γ, or of W; of Γ it is zero outside the support.

    Args:
      opt_state: as in `parsimony.gamma`.
      params: None for the norms of Γ, or W (any tree of its shapes) for those of its groups.

    Returns:
      The tree of the parameters, an entry a group: the shape is that of the axes that index a group (an HWIO kernel
      under `GroupLasso(-1)`: its output filters); None where unpenalised.

    Raises:
      ValueError: as `parsimony.gamma`; and params that the state was not made for.

    Examples:
      >>> import jax.numpy as jnp, parsimony as pm
      >>> params = {"conv": jnp.ones((3, 3, 1, 2)), "bias": jnp.ones(2)}
      >>> state = pm.split_lbi(0.1).init(params)
      >>> norms = pm.group_norms(state)
      >>> norms["conv"].tolist(), norms["bias"], pm.group_norms(state, params)["conv"].tolist()
      ([0.0, 0.0], None, [3.0, 3.0])
    """
    if params is None:
        return merged(opt_state, lambda penalty, structure: None if penalty is None else penalty.group_norms(structure))
    weights, treedef, known = matched(params, opt_state)
    return treedef.unflatten([known[name][0].group_norms(w) if name in known else None for name, w in weights])


def sparsity_summary(opt_state: optax.OptState) -> SparsitySummary:
    """Groups, weights and density of supp Γ, a row a parameter.

    Args:
      opt_state: as in `parsimony.gamma`; concrete, not inside jit.

    Returns:
      A tuple of `SparsityRow` in the order of the parameters; `print` shows a table.

    Raises:
      ValueError: as `parsimony.gamma`.

    Examples:
      >>> import jax.numpy as jnp, parsimony as pm
      >>> state = pm.split_lbi(0.1).init({"conv": jnp.ones((3, 3, 1, 2)), "bias": jnp.ones(2)})
      >>> pm.sparsity_summary(state)[1]
      SparsityRow(name='conv', groups=0, all_groups=2, weights=0, all_weights=18, not_finite=0)
    """
    return SparsitySummary(_row(*leaf) for state in split_lbi_states(opt_state) for leaf in gammas(state))


def _row(name: str, penalty: Penalty | None, structure: jax.Array) -> SparsityRow:
    if penalty is None:
        return SparsityRow(name, None, None, structure.size, structure.size)
    norms = penalty.group_norms(structure)
    inside = lambda x: int(jnp.sum(jnp.isfinite(x) & (x != 0)))
    wrong = structure.size - int(jnp.sum(jnp.isfinite(structure)))
    return SparsityRow(name, inside(norms), norms.size, inside(structure), structure.size, wrong)
