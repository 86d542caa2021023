"""Reading Γ, its support and the sparse model out of an optimizer state, however deep Split LBI sits in it."""

import functools

import jax
import jax.numpy as jnp
import optax

from ._checks import check_finite
from ._penalties.nuclear_norm import NuclearNorm, project
from ._penalties.penalty import Penalty, gamma_of, over, strength_of_each
from ._penalties.rules import resolve
from ._state import SplitLBIState, check_params, split_lbi_states
from ._tree import named_leaves

_TWICE = "two Split LBI states hold the same parameter; read them one by one, e.g. pm.gamma(opt_state[0])."


def gamma(opt_state: optax.OptState):
    """Γ = κ·Prox_Ω(V), in the tree of the parameters; zeros where unpenalised.

    Args:
      opt_state: any state with Split LBI in it: of a chain, `masked`, `partition`, `MultiSteps`,
        `inject_hyperparams`, `nnx.Optimizer` and so on. Several Split LBI states merge; a parameter that none of them
        saw (`optax.masked`) stays an `optax.MaskedNode`.

    Returns:
      Γ with V's dtype (at least float32).

    Raises:
      ValueError: no Split LBI state, one with an extra axis of devices or seeds, or two for one parameter.

    Examples:
      >>> import jax.numpy as jnp, parsimony as pm
      >>> pm.gamma(pm.split_lbi(0.1).init({"kernel": jnp.ones((2, 2))}))["kernel"].tolist()
      [[0.0, 0.0], [0.0, 0.0]]

    References:
      ArXiv 1905.09449.
    """
    return merged(opt_state, lambda penalty, structure: structure)


def support(opt_state: optax.OptState):
    """supp Γ: a tree of bools, True where Γ ≠ 0, and everywhere in unpenalised parameters.

    Args:
      opt_state: see `gamma`.

    Returns:
      The tree of the parameters with bool arrays of their shapes.

    Raises:
      ValueError: see `gamma`; a V that is not finite, outside of jit. (Inside, NaN does not count as support.)

    Examples:
      >>> import jax.numpy as jnp, parsimony as pm
      >>> pm.support(pm.split_lbi(0.1).init({"kernel": jnp.ones((1, 2)), "bias": jnp.ones(2)}))["bias"].tolist()
      [True, True]

    References:
      ArXiv 1905.09449.
    """
    for state in split_lbi_states(opt_state):
        check_finite("V", named_leaves(state.dual)[0])
    everywhere = lambda structure: jnp.full_like(structure, True, dtype=bool)
    return merged(
        opt_state, lambda penalty, structure: everywhere(structure) if penalty is None else jnp.abs(structure) > 0
    )


def sparse_params(params: optax.Params, opt_state: optax.OptState):
    """W̃ = W·1[Γ ≠ 0]; unpenalised parameters are kept.

    Under `NuclearNorm` the structure is a pair of subspaces, not a set of entries: W̃ is W projected to the column and
    row spaces of Γ, so that its rank is Γ's.

    Args:
      params: W, of the shapes that the state was made for.
      opt_state: see `gamma`.

    Returns:
      W̃ with the structure and the dtypes of `params`.

    Raises:
      ValueError: see `gamma`; and a state made for other parameters.

    Examples:
      >>> import jax.numpy as jnp, parsimony as pm
      >>> params = {"kernel": jnp.ones((1, 2)), "bias": jnp.ones(2)}
      >>> pm.sparse_params(params, pm.split_lbi(0.1).init(params))["kernel"].tolist()
      [[0.0, 0.0]]

    References:
      ArXiv 1905.09449.
    """
    weights, treedef, known = matched(params, opt_state)

    def of_leaf(name, w):
        if name not in known:
            return jnp.array(w)  # a copy: W̃ must outlive a step that W is donated to
        penalty, structure, _ = known[name]
        if isinstance(penalty, NuclearNorm):
            return project(w, structure)
        inside = jnp.where(jnp.isfinite(structure), w, jnp.nan).astype(w.dtype)  # what diverged stays in sight
        return jnp.where(structure == 0, jnp.zeros_like(w), inside)

    return treedef.unflatten([of_leaf(name, w) for name, w in weights])


def matched(params, opt_state):
    """The named weights, their tree's structure, and {name: (penalty, Γ, V/T)} of the penalised ones.

    Raises:
      ValueError: the state was not made for parameters of these names and shapes.
    """
    check_params(params)
    known = {}  # by name, since params may be wrapped (Linen's FrozenDict, NNX's State) where the state is not
    for state in split_lbi_states(opt_state):
        duals = jax.tree.leaves(state.dual)
        strengths = strength_of_each(state.strength, len(duals))
        for (name, penalty, structure), v, strength in zip(gammas(state), duals, strengths, strict=True):
            if name in known:
                raise ValueError(_TWICE)
            known[name] = (penalty, structure, over(v, strength))
    weights, treedef = named_leaves(params)
    shapes = {name: jnp.shape(w) for name, w in weights}
    strangers = [name for name, (_, structure, _) in known.items() if shapes.get(name) != structure.shape]
    if strangers:
        name = strangers[0]
        raise ValueError(
            f"params and opt_state do not match: the state holds {name!r} with shape {known[name][1].shape}, "
            f"params {f'has shape {shapes[name]} there' if name in shapes else f'has only {sorted(shapes)[:8]}'}."
        )
    return weights, treedef, {name: state for name, state in known.items() if state[0] is not None}


def gammas(state: SplitLBIState) -> list[tuple[str, Penalty | None, jax.Array]]:
    """(name, penalty, Γ) of each parameter of a state, in the order of its leaves; Γ is zero where unpenalised."""
    leaves, _ = named_leaves(state.dual)
    (kappa,) = jax.tree.leaves(state.kappa)  # nnx.Optimizer wraps it in a variable
    penalties = resolve(state.penalty, state.dual, state.strength)
    strengths = strength_of_each(state.strength, len(leaves))
    return [
        (name, penalty, jnp.zeros_like(v) if penalty is None else gamma_of(penalty, v, kappa, strength))
        for (name, v), penalty, strength in zip(leaves, penalties, strengths, strict=True)
    ]


def merged(opt_state, function):
    """function(penalty, Γ) for each leaf of each state, in one tree."""

    def read(state):
        leaves = [function(penalty, structure) for _, penalty, structure in gammas(state)]
        return jax.tree.structure(state.dual).unflatten(leaves)

    return functools.reduce(merge, map(read, split_lbi_states(opt_state)))


def merge(one, other):
    """Two trees of `optax.partition`, each with `optax.MaskedNode` where the other has its parameters."""
    if isinstance(one, optax.MaskedNode):
        return other
    if isinstance(other, optax.MaskedNode):
        return one
    children, treedef = jax.tree.flatten(one, is_leaf=lambda node: node is not one)
    others, other_def = jax.tree.flatten(other, is_leaf=lambda node: node is not other)
    if treedef != other_def or (jax.tree_util.treedef_is_leaf(treedef) and one is not None):
        raise ValueError(_TWICE)
    return treedef.unflatten([merge(a, b) for a, b in zip(children, others, strict=True)])
