"""Which units there are: expected sets, names and reasons; units as data; what is not exact is marked."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import parsimony as pm
from helpers.architectures import ARCHITECTURES, attention, convolutional, residual
from helpers.cases import mostly
from parsimony.structure import Units, compact, find_units


def sizes(units):
    return {unit_set.name: unit_set.size for unit_set in units.sets.values()}


def mlp(params, x):
    return jax.nn.relu(x @ params["w1"] + params["b1"][None]) @ params["w2"]


MLP = {"w1": jnp.ones((4, 6)), "b1": jnp.ones(6), "w2": jnp.ones((6, 3))}
X = jnp.ones((2, 4))


def test_lenet_has_a_set_for_each_hidden_layer_and_channels_reach_the_flattened_features():
    fn, params, args = ARCHITECTURES["lenet"]()
    units = find_units(fn, params, *args)
    assert sizes(units) == {"conv1": 6, "conv2": 8, "conv3": 10, "dense1": 12}
    conv3 = units.sets["conv3"]
    assert list(conv3.members) == ["conv3/kernel", "conv3/bias", "dense1/kernel"]
    np.testing.assert_array_equal(conv3.members["dense1/kernel"][0], np.tile(np.arange(10), 9))
    assert conv3.makers == (("conv3/kernel", 3), ("conv3/bias", 0))


def test_vgg16_has_fifteen_sets():
    fn, params, args = convolutional.vgg16()
    units = find_units(fn, params, *args)
    widths = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512, 4096, 4096]
    assert list(sizes(units).values()) == widths
    assert {
        "params/Conv_0/kernel",
        "params/BatchNorm_0/scale",
        "batch_stats/BatchNorm_0/var",
        "params/Conv_1/kernel",
    } < set(units.sets["params/Conv_0"].members)


def test_resnet50_has_37_sets_the_stem_four_stages_and_32_inner_ones():
    fn, params, args = residual.resnet50()
    units = find_units(fn, params, *args)
    assert len(units.sets) == 37
    inner = [n for name, n in sizes(units).items() if "conv1" in name or "conv2" in name]
    assert len(inner) == 32
    streams = [s for name, s in units.sets.items() if "conv1" not in name and "conv2" not in name]
    assert [s.size for s in streams] == [64, 256, 512, 1024, 2048]
    assert not units.unknown


def test_vit_has_its_stream_and_four_sets_a_block():
    fn, params, args = attention.nnx_triple(attention.ViT, attention.normal(2, 8, 8, 3))
    units = find_units(fn, params, *args)
    block = {"attention/query": 2, "attention/query.2": 4, "attention/value": 4, "dense1": 12}  # heads, q·k, v, MLP
    blocks = {f"blocks/layers/{i}/{name}": n for i in range(2) for name, n in block.items()}
    assert sizes(units) == {"patches": 8} | blocks


@pytest.mark.parametrize("name", ["lenet", "vgg", "resnet_bottleneck", "vit"])
def test_nothing_is_fixed_without_need(name):
    fn, params, args = ARCHITECTURES[name]()
    reasons = {reason for axes in find_units(fn, params, *args).fixed.values() for reason in axes.values()}
    assert reasons <= {
        "an axis of the input", "an axis of the output", "a spatial axis of a convolution", "an axis of size one"
    }  # fmt: skip


def test_tied_embeddings_join_the_stream_and_keep_their_vocabulary():
    fn, params, args = ARCHITECTURES["gpt"]()
    units = find_units(fn, params, *args)
    stream = units.sets["token"]
    assert list(stream.members["token/embedding"]) == [1]
    assert units.fixed["token/embedding"][0] == "an axis that computed indices point into"


def test_the_batch_size_changes_nothing_and_the_shapes_suffice():
    fn, params, (x,) = ARCHITECTURES["resnet"]()
    structs = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
    other = jax.ShapeDtypeStruct((7, *x.shape[1:]), x.dtype)
    assert find_units(fn, structs, other).to_json() == find_units(fn, params, x).to_json()


def test_an_unknown_primitive_fixes_what_it_touches_and_is_reported():
    def fn(params, x):
        h = jax.nn.relu(x @ params["w1"])
        return lax.linalg.qr(h, full_matrices=False)[1] @ params["w2"]

    units = find_units(fn, {"w1": jnp.ones((4, 6)), "w2": jnp.ones((6, 3))}, jnp.ones((8, 4)))
    assert units.unknown == {"qr": 1}
    assert not units.sets
    assert units.fixed["w1"][1] == "the primitive qr, for which there is no rule"
    assert "the primitive qr" in str(units)


def test_a_maximum_over_units_is_marked_reduced_and_rejected():
    def fn(params, x):
        hidden = x @ params["w1"]
        return jnp.exp(hidden - hidden.max(-1, keepdims=True)) @ params["w2"]

    params = {"w1": -jnp.ones((4, 6)), "w2": jnp.ones((6, 3))}
    units = find_units(fn, params, X)
    assert units.sets["w1"].reduced
    keep = {"w1": np.arange(6) < 4}
    with pytest.raises(ValueError, match=r"removing units of 'w1' is not exact: reduce_max.*exact=False"):
        compact(units, keep, params)
    small = compact(units, keep, params, exact=False)
    assert small.fn(small.params, X).shape == (2, 3)
    # What is removed would have taken part: that is why it is refused.
    assert not np.allclose(small.fn(small.params, X), fn(units.zero(keep, params), X))


def test_a_bias_alone_keeps_a_unit_alive_so_zero_takes_it_too():
    units = find_units(mlp, MLP, X)
    zeroed = units.zero({"w1": np.arange(6) > 0}, MLP)
    assert zeroed["b1"][0] == 0
    assert not zeroed["w1"][:, 0].any()
    assert not zeroed["w2"][0].any()
    assert zeroed["w2"][1:].all()


def test_units_go_through_json_and_back():
    fn, params, args = ARCHITECTURES["vit"]()
    units = find_units(fn, params, *args)
    back = Units.from_json(units.to_json(), fn)
    assert back.to_json() == units.to_json()
    keep = {"patches": np.arange(8) % 2 == 0}
    small, again = compact(units, keep, params), compact(back, keep, params)
    np.testing.assert_array_equal(again.fn(again.params, *args), small.fn(small.params, *args))
    without = compact(Units.from_json(units.to_json()), keep, params)
    assert without.fn is None
    assert without.route == "none"
    assert jax.tree.map(jnp.shape, without.params) == jax.tree.map(jnp.shape, small.params)


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"sets": [1]})])
def test_other_json_is_rejected(text):
    with pytest.raises(ValueError, match=r"not JSON written by Units\.to_json"):
        Units.from_json(text)


def test_linen_and_nnx_and_plain_functions_take_the_route_that_is_exact():
    fn, params, args = ARCHITECTURES["lenet"]()
    assert compact(find_units(fn, params, *args), {"conv1": np.arange(6) > 2}, params).route == "module"
    fn, params, args = ARCHITECTURES["vit"]()  # LayerNorm divides by the width
    units = find_units(fn, params, *args)
    assert compact(units, {"patches": np.arange(8) > 2}, params).route == "jaxpr"
    assert compact(units, {"blocks/layers/0/dense1": np.arange(12) > 2}, params).route == "module"
    fn, params, args = ARCHITECTURES["vgg"]()  # Linen checks widths
    assert compact(find_units(fn, params, *args), {"params/Conv_0": np.arange(6) > 2}, params).route == "jaxpr"


@pytest.mark.parametrize("name", mostly(["lenet", "vit"], ["lenet"]))
def test_a_compact_model_can_be_compiled_mapped_trained_and_given_other_batches(name):
    fn, params, (x,) = ARCHITECTURES[name]()
    units = find_units(fn, params, x)
    keep = {s.name: np.arange(s.size) > 0 for s in units.sets.values() if s.size > 2}
    small, zeroed = compact(units, keep, params), units.zero(keep, params)
    more = jnp.concatenate([x, 2 * x, -x])
    np.testing.assert_allclose(jax.jit(small.fn)(small.params, more), fn(zeroed, more), rtol=1e-4, atol=1e-5)
    one_by_one = jax.vmap(lambda x: small.fn(small.params, x[None])[0])
    np.testing.assert_allclose(one_by_one(more), fn(zeroed, more), rtol=1e-4, atol=1e-5)
    loss = lambda params: jnp.mean(jnp.square(small.fn(params, x)))
    step = jax.jit(lambda params: jax.tree.map(lambda p, g: p - 0.01 * g, params, jax.grad(loss)(params)))
    trained = small.params
    for _ in range(5):
        trained = step(trained)
    assert loss(trained) < loss(small.params)


def test_compact_is_traceable_itself():
    units = find_units(mlp, MLP, X)
    keep = {"w1": np.arange(6) > 1}
    small = jax.jit(lambda params: compact(units, keep, params).params)(MLP)
    assert jax.tree.map(jnp.shape, small) == {"b1": (4,), "w1": (4, 4), "w2": (4, 3)}


def test_an_index_of_a_fused_kernel_goes_with_its_head_and_with_its_place_in_it():
    fn, params, args = ARCHITECTURES["gpt"]()
    units = find_units(fn, params, *args)
    heads = next(s for s in units.sets.values() if s.size == 2)
    widths = [s for s in units.sets.values() if s.size == 4 and "block0/qkv/kernel" in s.members]
    assert len(widths) == 2  # of q with k, and of v
    gone = units.removed({heads.name: np.array([True, False])})["block0/qkv/kernel"][1]
    assert gone.sum() == 12
    both = units.removed({heads.name: np.array([True, False]), widths[1].name: np.arange(4) > 0})
    assert both["block0/qkv/kernel"][1].sum() == 12 + 1


BAD = {
    "unknown set": (lambda u: u.zero({"w3": np.ones(6, bool)}, MLP), r"unknown set 'w3'; did you mean 'w1"),
    "not bool": (lambda u: u.zero({"w1": np.ones(6)}, MLP), r"keep\['w1'\]: expected 6 bools.*got dtype float64"),
    "other length": (lambda u: u.zero({"w1": np.ones(5, bool)}, MLP), r"expected 6 bools.*shape \(5,\)"),
    "all gone": (lambda u: compact(u, {"w1": np.zeros(6, bool)}, MLP), r"would empty the layer: all 6 units"),
    "other shapes": (
        lambda u: compact(u, {}, {**MLP, "w2": jnp.ones((6, 4))}),
        r"parameter 'w2' has shape \(6, 4\) in params, but the units were found with \(6, 3\)",
    ),
    "missing": (lambda u: compact(u, {}, {"w1": MLP["w1"]}), r"parameter 'b1' has shape missing in params"),
    "no tree": (lambda u: find_units(mlp, {}, X), r"params holds no arrays"),
    "untraceable": (
        lambda u: find_units(lambda p, x: x if p["w1"].sum() > 0 else -x, MLP, X),
        r"could not trace fn\(params, x\): TracerBoolConversionError",
    ),
    "shapes that do not fit": (lambda u: find_units(mlp, MLP, jnp.ones((2, 5))), r"could not trace fn\(params, x\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call(find_units(mlp, MLP, X))


def test_keep_has_to_be_a_dict_and_fn_a_function():
    with pytest.raises(TypeError, match=r"expected a dict.*got list"):
        find_units(mlp, MLP, X).zero([True], MLP)
    with pytest.raises(TypeError, match=r"expected a function fn\(params, x\)"):
        find_units(MLP, MLP, X)  # pyright: ignore


def test_the_compact_function_names_a_parameter_of_the_wrong_shape():
    fn, params, args = ARCHITECTURES["vit"]()
    units = find_units(fn, params, *args)
    small = compact(units, {"patches": np.arange(8) > 0}, params)
    with pytest.raises(ValueError, match=r"'.*': the compact function expects shape .* give it the compact parameters"):
        small.fn(params, *args)


def test_units_that_a_program_shuffles_into_each_other_are_sets_of_their_own():
    """A channel of the second group convolution goes with a group of the first and with one of the second."""
    fn, params, args = ARCHITECTURES["shufflenet"]()
    units = find_units(fn, params, *args)
    for unit_set in units.sets.values():
        for parameter, axes in unit_set.members.items():
            for axis, unit in axes.items():
                assert unit.shape == (units.shapes[parameter][axis],)
    assert pm.structure.compact(units, {"params/Conv_0": np.arange(4) > 1}, params).fn is not None


def test_units_are_grouped_by_how_many_members_they_have_where():
    """Exactly: against a dictionary of the counts themselves."""
    from parsimony.structure._analysis.grouping import _signatures

    rng = np.random.default_rng(0)
    for _ in range(20):
        units, places, members = rng.integers(1, 30), rng.integers(1, 6), rng.integers(30, 120)
        unit = np.concatenate([np.arange(units), rng.integers(0, units, members)])
        place = rng.integers(0, places, len(unit))
        found = _signatures(place, unit, units, places)
        counts = [tuple(np.bincount(place[unit == own], minlength=places)) for own in range(units)]
        assert [[a == b for b in found] for a in found] == [[a == b for b in counts] for a in counts]
