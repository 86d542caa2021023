"""A parameter's name, the same in every tree that has it."""

import jax


def name_of(path) -> str:
    """A parameter's name from its key path, e.g. "conv1/kernel"; a tree that is one bare array is called "array"."""
    return jax.tree_util.keystr(path, simple=True, separator="/") or "array"


def is_numeric(leaf) -> bool:
    """False for random keys, which trees of a whole model's variables hold (`nnx.split` of one with Dropout)."""
    return not jax.numpy.issubdtype(jax.dtypes.result_type(leaf), jax.dtypes.extended)


def named_leaves(tree):
    """[(name, leaf), ...] in the order of `jax.tree.leaves`, and the tree's structure.

    The last step into a Flax NNX `Variable` (`.value`) is left out: `nnx.Optimizer` initialises with variables and
    updates with arrays, and a name must mean the same in both.

    Raises:
      ValueError: two parameters of one name.
    """
    named = []
    for path, node in jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_variable)[0]:
        if not _is_variable(node):
            named.append((name_of(path), node))
            continue
        inner = jax.tree_util.tree_flatten_with_path(node)[0]
        named += [(name_of((*path, *(steps[1:] if len(inner) == 1 else steps))), leaf) for steps, leaf in inner]
    names = [name for name, _ in named]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(
            f"two parameters have the name {twice!r}, so that no rule, mask or unit can tell them apart: rename one of "
            "them (a key that holds a '/' reads like a tree)."
        )
    return named, jax.tree.structure(tree)


def _is_variable(node) -> bool:
    """Whether a node is a variable of Flax NNX, determined without importing Flax."""
    return any(
        kind.__module__.startswith("flax.nnx") and kind.__name__.startswith("Variable") for kind in type(node).__mro__
    )


def one_ending(name: str, names) -> str | None:
    """The one of `names` that goes on to the left of `name`, as in a tree of which this is a part; None if unclear."""
    found = [longer for longer in names if longer.endswith("/" + name)]
    return found[0] if len(found) == 1 else None


def aligned(**trees):
    """The common structure of trees that must match, and the leaves of each; a readable error where they do not."""
    (reference, tree), *others = [(name, trees[name]) for name in ("params", *(n for n in trees if n != "params"))]
    expected, treedef = named_leaves(tree)
    for name, other in others:
        found, other_def = named_leaves(other)
        shapes, other_shapes = ({key: jax.numpy.shape(leaf) for key, leaf in pairs} for pairs in (expected, found))
        if shapes != other_shapes or treedef != other_def:
            wrong = sorted(
                key for key in shapes.keys() | other_shapes.keys() if shapes.get(key) != other_shapes.get(key)
            )
            detail = "; ".join(
                f"{key!r} is {shapes.get(key, 'missing')} in {reference}, {other_shapes.get(key, 'missing')} in {name}"
                for key in wrong[:3]
            )
            raise ValueError(
                f"{name} and {reference} do not match: {detail or f'{other_def} against {treedef}'}. "
                "Use the same tree in init and update; after surgery on the parameters, the state must follow."
            )
    return treedef, [jax.tree.leaves(tree) for tree in trees.values()]
