"""The state of Split LBI, its penalty in it, and how states are found in that of an optimizer."""

import weakref
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax


class Static(tuple):
    """An empty NamedTuple whose type carries a value; made by `static`.

    JAX compares the types of NamedTuples, so the value is a part of the tree's structure and no leaf. Optax, Orbax and
    `flax.serialization` treat it as they treat `optax.EmptyState`: they rebuild it from its type alone.

    Attributes:
      value: what it carries, hashable.
    """

    __slots__ = ()
    _fields = ()
    value: Any = None

    def __repr__(self):
        return f"Static({self.value!r})"

    def __reduce__(self):
        return static, (self.value,)


_TYPES: weakref.WeakValueDictionary[Any, type[Static]] = weakref.WeakValueDictionary()


def static(value) -> Static:
    """The value as a node without leaves: one type for all values that are equal."""
    return _TYPES.setdefault(value, type("Static", (Static,), {"__slots__": (), "value": value}))()


class SplitLBIState(NamedTuple):
    """State of `inverse_scale_space` and of the related methods: V, and what the read-outs need to make Γ of it.

        Γ = κ·Prox_{TΩ}(V) = κT·Prox_Ω(V/T)

    Optax reads and sets its fields, however deep it sits: `optax.tree.get(opt_state, "time")`. A name that occurs more
    than once is an error there: Adam has a `count` too, `optax.inject_hyperparams` a `kappa`, and `optax.partition` may
    hold several such states. Say by the path which is meant, as below; `optax.tree.get_all_with_path` shows the paths.

    Attributes:
      count: int32 scalar, number of steps taken.
      time: scalar, t = Σα over the steps of V (of `dual_learning_rate` where that is given).
      kappa: scalar, κ of the last step, for the read-outs; the next step sets it to its own.
      strength: scalar, T: the factor on the penalty's own strength; with a sparsity of each layer the tree of the
        parameters with a scalar for each. 1 without a `sparsity`, except in `rda` (Σα) and
        `prox_sgd` (α).
      dual: V, the tree of the parameters, at least in `accumulator_dtype`; zeros where unpenalised.
      inner_state: state of `inner`; empty in the related methods.
      static_penalty: a node without leaves, which holds Ω; read it as `penalty`.

    Examples:
      >>> import jax.numpy as jnp, optax, parsimony as pm
      >>> opt_state = pm.split_lbi(0.1, kappa=2.0).init({"kernel": jnp.ones((1, 2), jnp.bfloat16)})
      >>> optax.tree.get(opt_state, "kappa").tolist(), optax.tree.get(opt_state, "dual")["kernel"].dtype.name
      (2.0, 'float32')
      >>> tx = optax.chain(optax.scale_by_adam(), pm.inverse_scale_space(0.1, penalty=pm.Lasso(0.5)))
      >>> opt_state = tx.init({"kernel": jnp.ones((1, 2))})
      >>> ours = lambda path, value: str(path[-1]).startswith("SplitLBIState.")  # of two: "'conv'" in keystr(path)
      >>> optax.tree.get(opt_state, "count", filtering=ours).tolist()
      0
      >>> optax.tree.get(opt_state, "SplitLBIState").penalty
      Lasso(strength=0.5)

    References:
      ArXiv 1905.09449; the published code keeps Γ as well.
    """

    count: jax.typing.ArrayLike
    time: jax.typing.ArrayLike
    kappa: jax.typing.ArrayLike
    strength: jax.typing.ArrayLike
    dual: optax.Updates
    inner_state: optax.OptState
    static_penalty: Static

    @property
    def penalty(self) -> Any:
        """Ω, as it was given: a penalty, `Rules`, or None for the paper's choice."""
        return self.static_penalty.value


def scalar_like(scalar, value) -> jax.Array:
    """The value as a scalar of the state: of the dtype of the one before, varying over the same axes of a mesh.

    It is a copy, since a state that shares a buffer with the caller's κ cannot be donated.
    """
    return jnp.array(jnp.full_like(scalar, value))


def nodes(kind: type, tree) -> list[Any]:
    """The nodes of a type in a tree, those inside another of them left out."""
    is_one = lambda node: isinstance(node, kind)
    return [node for node in jax.tree.leaves(tree, is_leaf=is_one) if is_one(node)]


def split_lbi_states(opt_state) -> list[SplitLBIState]:
    """All Split LBI states inside an optimizer state, checked to be of one run."""
    states = nodes(SplitLBIState, opt_state)
    if not states:
        raise ValueError(
            f"no Split LBI state in this optimizer state ({type(opt_state).__name__}): expected the state of "
            f"pm.split_lbi, pm.inverse_scale_space or a related method such as pm.linbreg, alone or inside Optax "
            f"wrappers{_RESTORED if optax.tree.get_all_with_path(opt_state, 'static_penalty') else ''}."
        )
    for state in states:
        (count,) = jax.tree.leaves(state.count)  # nnx.Optimizer wraps it in a variable
        if jnp.ndim(count):
            raise ValueError(
                f"this state carries an extra axis of size {jnp.shape(count)[0]}: read one replica "
                "(flax.jax_utils.unreplicate) or map over it, e.g. jax.vmap(pm.gamma)(opt_state)."
            )
    return states


def check_params(params) -> None:
    """Rejects an optimizer state in the place of parameters, and leaves that are not numbers."""
    is_state = lambda node: (
        isinstance(node, tuple) and type(node).__name__.endswith("State") and hasattr(node, "_fields")
    )
    found = [node for node in jax.tree.leaves(params, is_leaf=is_state) if is_state(node)]
    if found:
        raise TypeError(
            f"params: expected the tree of the weights, got an optimizer state (it holds {type(found[0]).__name__}). "
            "Where a function takes both, the two are swapped."
        )
    for leaf in jax.tree.leaves(params):
        if not (_is_array(leaf) or (isinstance(leaf, int | float) and abs(leaf) < 2**31)):
            raise TypeError(f"params: expected a tree of arrays, got {type(leaf).__name__} in it: {str(leaf)[:60]!r}.")


def _is_array(leaf) -> bool:
    dtype = getattr(leaf, "dtype", None)
    numbers = (np.number, np.bool_, jax.dtypes.extended)
    return dtype is not None and hasattr(leaf, "shape") and any(jnp.issubdtype(dtype, kind) for kind in numbers)


def check_state(kind: type, state) -> None:
    """Rejects another state than that of the transformation."""
    if not isinstance(state, kind):
        raise TypeError(
            f"opt_state: expected the {kind.__name__} that init made, got {type(state).__name__}: call "
            "tx.update(grads, opt_state, params), with the state of tx.init(params)."
        )


_RESTORED = (
    ". These are the arrays of one, restored without a target, which do not know their penalty: restore with the "
    "target jax.eval_shape(tx.init, params)"
)
