"""Without a penalty given, filters are groups and matrices single weights, whatever library the network is from."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import parsimony as pm

KEY = jax.random.key(0)


def groups(params) -> dict[str, int | None]:
    """{parameter: number of groups} under the default penalty; None where it has none."""
    return {
        row.name: row.all_groups for row in pm.sparsity_summary(pm.split_lbi(0.1).init(params)) if row.name != "all"
    }


def ones(shapes):
    return jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), shapes)


def of_nnx(kind, *sizes, **options):
    make = lambda: nnx.to_pure_dict(nnx.state(kind(*sizes, **options, rngs=nnx.Rngs(0)), nnx.Param))
    return ones(jax.eval_shape(make))


def of_linen(module, *shape):
    return ones(jax.eval_shape(lambda: module.init(KEY, jnp.ones(shape))["params"]))


def of_equinox(kind, *sizes, **options):
    return ones(eqx.filter_eval_shape(lambda: eqx.filter(kind(*sizes, **options, key=KEY), eqx.is_array)))


FILTERS = {
    "NNX Conv1d": (lambda: of_nnx(nnx.Conv, 3, 8, (5,)), "kernel", 8),
    "NNX Conv2d": (lambda: of_nnx(nnx.Conv, 3, 8, (5, 5)), "kernel", 8),
    "NNX Conv2d without a bias": (lambda: of_nnx(nnx.Conv, 3, 8, (1, 7), use_bias=False), "kernel", 8),
    "NNX Conv3d": (lambda: of_nnx(nnx.Conv, 2, 4, (3, 3, 3)), "kernel", 4),
    "NNX ConvTranspose": (lambda: of_nnx(nnx.ConvTranspose, 3, 8, (5, 5)), "kernel", 8),
    "Linen Conv1d": (lambda: of_linen(nn.Conv(8, (5,)), 1, 9, 3), "kernel", 8),
    "Linen Conv3d": (lambda: of_linen(nn.Conv(8, (3, 3, 3)), 1, 9, 9, 9, 3), "kernel", 8),
    "Equinox Conv1d": (lambda: of_equinox(eqx.nn.Conv1d, 3, 8, 5), "weight", 8),
    "Equinox Conv2d": (lambda: of_equinox(eqx.nn.Conv2d, 3, 8, 3), "weight", 8),
    "Equinox Conv2d without a bias": (
        lambda: of_equinox(eqx.nn.Conv2d, 3, 8, 3, use_bias=False), "weight", 8,
    ),
    "Equinox Conv3d": (lambda: of_equinox(eqx.nn.Conv3d, 3, 8, 3), "weight", 8),
    "Equinox ConvTranspose2d": (lambda: of_equinox(eqx.nn.ConvTranspose2d, 3, 8, 5), "weight", 8),
    "Haiku Conv1D": (lambda: {"net/~/conv1_d": {"w": jnp.ones((5, 3, 8)), "b": jnp.ones(8)}}, "net/~/conv1_d/w", 8),
    "Keras Conv2DTranspose": (
        lambda: {"conv2d_transpose": {"kernel": jnp.ones((3, 3, 8, 4)), "bias": jnp.ones(8)}},
        "conv2d_transpose/kernel",
        8,
    ),
    "Keras DepthwiseConv2D": (
        lambda: {"depthwise_kernel": jnp.ones((3, 3, 4, 2)), "bias": jnp.ones(8)}, "depthwise_kernel", 8,
    ),
    "PyTorch ConvTranspose2d": (
        lambda: {"up.weight": jnp.ones((3, 8, 5, 5)), "up.bias": jnp.ones(8)}, "up.weight", 8,
    ),
    "six scanned Conv1d": (lambda: {"kernel": jnp.ones((6, 3, 4, 8)), "bias": jnp.ones((6, 8))}, "kernel", 48),
    "six scanned Conv2d": (lambda: {"kernel": jnp.ones((6, 3, 3, 4, 8)), "bias": jnp.ones((6, 8))}, "kernel", 48),
    "six scanned conv1d by name": (lambda: {"conv1d": jnp.ones((6, 3, 4, 8))}, "conv1d", 48),
    "HWIO of another name": (lambda: {"stem": jnp.ones((7, 7, 3, 64))}, "stem", 64),
    "OIHW of another name": (lambda: {"stem": jnp.ones((64, 3, 7, 7))}, "stem", 64),
}  # fmt: skip


@pytest.mark.parametrize("layout", FILTERS)
def test_a_group_is_a_filter_in_every_layout(layout):
    make, name, filters = FILTERS[layout]
    params = make()
    assert groups(params)[name] == filters
    assert {rows for other, rows in groups(params).items() if other != name} <= {None}  # biases have no penalty


def test_the_weights_of_attention_are_single_and_its_biases_free():
    attention = of_nnx(nnx.MultiHeadAttention, num_heads=2, in_features=8, decode=False)
    for params in (attention, of_linen(nn.MultiHeadDotProductAttention(2), 1, 3, 8)):
        assert groups(params) == {
            f"{layer}/{kind}": 64 if kind == "kernel" else None
            for layer in ("key", "out", "query", "value")
            for kind in ("bias", "kernel")
        }


def test_class_tokens_and_positions_are_free():
    params = {"cls": jnp.ones((1, 1, 8)), "pos_embedding": jnp.ones((1, 5, 8)), "head": {"kernel": jnp.ones((8, 3))}}
    assert groups(params) == {"cls": None, "head/kernel": 24, "pos_embedding": None}


def test_normalisations_are_free_and_a_stack_of_dense_layers_has_single_weights():
    norm = of_nnx(nnx.LayerNorm, 4)
    stacked = jax.tree.map(lambda w: jnp.stack([w] * 5), of_linen(nn.Dense(3), 1, 4))
    assert groups({"norm": norm, "dense": stacked}) == {
        "dense/bias": None, "dense/kernel": 60, "norm/bias": None, "norm/scale": None,
    }  # fmt: skip
    assert groups({"w": jnp.ones((5, 4, 3)), "b": jnp.ones((5, 3))}) == {"b": None, "w": 60}  # Haiku's names
    assert groups({"a": jnp.ones((4, 3)), "b": jnp.ones((3, 2))}) == {"a": 12, "b": 6}  # matrices


UNCLEAR = {
    "a window as large as the channels": {"stem": jnp.ones((3, 3, 3, 3))},
    "rank 5 without a bias": {"kernel": jnp.ones((6, 3, 3, 4, 8))},
    "rank 3 without a name": {"mixer": jnp.ones((3, 4, 8))},
    "a name that contradicts the rank": {"conv2d": jnp.ones((3, 4, 8))},
}


@pytest.mark.parametrize("case", UNCLEAR)
def test_a_layout_that_cannot_be_told_is_asked_for_with_the_rule_to_write(case):
    (name,) = UNCLEAR[case]
    with pytest.raises(ValueError, match=rf"'{name}' \(.* cannot be determined. Write penalty=pm.Rules\(\[\(r'{name}"):
        pm.split_lbi(0.1).init(UNCLEAR[case])
    rule = pm.Rules([(f"{name}$", pm.GroupLasso(-1))], default=pm.Lasso())  # as the message says
    pm.split_lbi(0.1, penalty=rule).init(UNCLEAR[case])


@pytest.mark.parametrize("make", [pm.split_lbi, pm.linbreg, pm.adabreg, pm.rda, pm.prox_sgd])
@pytest.mark.parametrize("params", [{"bias": jnp.ones((2, 4))}, {"scale": jnp.ones(3)}], ids=["rank 2", "rank 1"])
def test_a_transformation_that_would_penalise_nothing_is_rejected(make, params):
    with pytest.raises(ValueError, match="finds no kernel of rank 2 or more"):
        make(0.1).init(params)


def test_one_penalty_for_all_leaves_biases_of_any_rank_alone():
    params = of_equinox(eqx.nn.Conv2d, 3, 8, 3)
    rows = pm.sparsity_summary(pm.split_lbi(0.1, penalty=pm.GroupLasso(0)).init(params))
    assert {row.name: row.all_groups for row in rows} == {"weight": 8, "bias": None}
