"""A parameter's name, the same in every tree that has it."""

import jax


def name_of(path) -> str:
    """A parameter's name from its key path, e.g. "conv1/kernel".

    The last step into a Flax NNX `Variable` (`.value`) is left out: `nnx.Optimizer` initialises with variables
    and updates with arrays, and a name must mean the same in both.
    """
    if path and isinstance(path[-1], jax.tree_util.GetAttrKey) and path[-1].name in ("value", "raw_value"):
        path = path[:-1]
    return jax.tree_util.keystr(path, simple=True, separator="/")


def is_numeric(leaf) -> bool:
    """False for random keys, which trees of a whole model's variables hold (`nnx.split` of one with Dropout)."""
    return not jax.numpy.issubdtype(jax.dtypes.result_type(leaf), jax.dtypes.extended)


def named_leaves(tree):
    """[(name, leaf), ...] in the order of `jax.tree.leaves`, and the tree's structure."""
    leaves, treedef = jax.tree_util.tree_flatten_with_path(tree)
    return [(name_of(path), leaf) for path, leaf in leaves], treedef


def one_ending(name: str, names) -> str | None:
    """The one of `names` that goes on to the left of `name`, as in a tree of which this is a part; None if unclear."""
    found = [own for own in names if own.endswith("/" + name)]
    return found[0] if len(found) == 1 else None
