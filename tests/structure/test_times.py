"""Milliseconds as what is chosen by: programs in parts, a table of their times, widths that a processor likes."""

import itertools
import json
import math

import jax
import numpy as np
import pytest
from jax.extend import core as jex

from helpers.architectures import QUICK, built, error
from parsimony.structure import TimeTable, Units, choose, compact, count, family, rank_units, stopwatch
from parsimony.structure._choice.parts import opened, parts


def multiply_adds(programs):
    """A cost that adds up over the parts of a program, and is nothing for a program that does nothing."""
    return [float(count(fn, *shapes).macs) if shapes else 0.0 for fn, shapes in programs]


def in_lanes(programs):
    """Products and convolutions on a processor that computes 4 channels at a time."""
    return [_lanes(jax.make_jaxpr(fn)(*shapes).jaxpr) for fn, shapes in programs]


def _lanes(jaxpr) -> float:
    cost = 0.0
    for eqn in jaxpr.eqns:
        inner = eqn.params.get("jaxpr") or eqn.params.get("call_jaxpr")
        if inner is not None:
            cost += _lanes(getattr(inner, "jaxpr", inner))
        elif eqn.primitive.name in ("dot_general", "conv_general_dilated"):
            *_, read, made = (-(-n // 4) * 4 for n in eqn.invars[1].aval.shape)
            cost += float(math.prod(eqn.outvars[0].aval.shape[:-1]) * read * made)
    return cost


@pytest.mark.parametrize("name", [*QUICK, "gpt"])
def test_parts_compute_what_the_program_does_and_their_multiply_adds_add_up(name):
    fn, params, args, _ = built(name)
    flat = opened(jax.make_jaxpr(fn)(params, *args))
    values = dict(zip(flat.jaxpr.constvars, flat.consts, strict=True))
    values |= dict(zip(flat.jaxpr.invars, jax.tree.leaves((params, args)), strict=True))
    for part in parts(flat):
        results = jax.jit(jex.jaxpr_as_fun(part))(*(values[var] for var in part.jaxpr.invars))
        values |= dict(zip(part.jaxpr.outvars, results, strict=True))
    assert error([values[var] for var in flat.jaxpr.outvars], jax.jit(fn)(params, *args)) < 1e-5
    table = TimeTable(measure=multiply_adds)
    assert table.predicted(fn, params, *args) == table.measured(fn, params, *args) == count(fn, params, *args).macs
    assert len(parts(flat)) > 1


def test_widths_that_a_processor_likes_come_out_and_no_set_could_be_wider():
    fn, params, args, units = built("vgg")
    table = TimeTable(measure=in_lanes)
    options = {"sparsity": 0.4, "order": "magnitude"}
    keep = choose(units, params, target="ms", times=table, **options)
    widths = {name: int(mask.sum()) for name, mask in keep.items()}
    assert len(widths) > 2
    assert all(width % 4 == 0 for width in widths.values())
    assert any(mask.sum() % 4 for mask in choose(units, params, target="macs", **options).values())
    taken = lambda keep: table.measured((small := compact(units, keep, params)).fn, small.params, *args)
    goal = 0.6 * table.measured(fn, params, *args)
    assert taken(keep) <= goal
    order = rank_units(units, params, order="magnitude")
    for name, mask in keep.items():
        assert order[name][mask].max() < order[name][~mask].min()
        assert taken({**keep, name: order[name] <= np.sort(order[name])[widths[name]]}) > goal  # one more


def test_a_program_is_measured_once_and_a_table_can_be_kept_as_json():
    _, params, _, units = built("lenet")
    asked = []

    def noted(programs):
        asked.extend(str(jax.make_jaxpr(fn)(*shapes)) for fn, shapes in programs)
        return multiply_adds(programs)

    table = TimeTable(measure=noted)
    how = {"target": "ms", "order": "magnitude"}
    keep = choose(units, params, at_most=0.5, times=table, **how)
    assert len(asked) == len(set(asked)) == len(table.entries)
    asked.clear()
    again = TimeTable(noted, json.loads(json.dumps(table.entries)))
    for one, other in zip(keep.items(), choose(units, params, at_most=0.5, times=again, **how).items(), strict=True):
        assert one[0] == other[0]
        np.testing.assert_array_equal(one[1], other[1])
    assert not asked


@pytest.mark.parametrize("extra", [0.2, 10])
def test_what_is_chosen_is_within_the_time_when_it_is_run_as_a_whole(extra):
    """A program of several products takes longer than its parts, by as much whatever its widths are."""
    fn, params, args, units = built("lenet")
    whole = count(fn, params, *args).macs

    def measure(programs):
        several = [len(parts(opened(jax.make_jaxpr(fn)(*shapes)))) > 1 for fn, shapes in programs]
        return [cost + extra * whole * more for cost, more in zip(multiply_adds(programs), several, strict=True)]

    table = TimeTable(measure=measure)
    how = {"target": "ms", "order": "magnitude", "times": table}
    if extra == 10:  # of which nothing can be saved
        with pytest.warns(UserWarning, match=r"the model that was chosen takes .* ms where .* are allowed, after 4"):
            choose(units, params, at_most=0.7, **how)
        return
    small = compact(units, choose(units, params, at_most=0.7, **how), params)
    taken, allowed = table.measured(small.fn, small.params, *args), 0.7 * table.measured(fn, params, *args)
    assert 0.95 * allowed <= taken <= 1.02 * allowed
    assert taken > 1.1 * table.predicted(small.fn, small.params, *args)


def test_members_of_a_family_by_time_lie_inside_each_other():
    """Where a set is widened, it is not beyond what the larger member has."""
    _, params, args, units = built("vgg")
    table = TimeTable(measure=in_lanes)
    budgets = (0.4, 0.8, 0.6, 0.3)
    made = family(units, params, budgets=budgets, target="ms", order="magnitude", times=table)
    assert made.budgets == (0.8, 0.6, 0.4, 0.3)
    whole = table.measured(units.fn, params, *args)
    for budget, member in zip(made.budgets, made.members, strict=True):
        assert table.measured(member.fn, member.params, *args) <= budget * whole
    for larger, smaller in itertools.pairwise(made.members):
        assert all((smaller.keep[name] <= mask).all() for name, mask in larger.keep.items())
    with pytest.raises(ValueError, match=r"budgets=\(0.5, 2\): expected shares in \(0, 1\) alone, or numbers"):
        family(units, params, budgets=(0.5, 2), target="ms", order="magnitude", times=table)


def test_the_stopwatch_times_what_it_is_given_numbers_and_counters_and_keys_alike():
    shapes = [jax.ShapeDtypeStruct((2, 3), "float32"), jax.ShapeDtypeStruct((), "int32")]
    key = jax.eval_shape(lambda: jax.random.key(0))
    programs = [(lambda x, n: x * n, tuple(shapes)), (lambda k: jax.random.normal(k, (3,)), (key,))]
    times = stopwatch(programs)
    assert len(times) == 2
    assert all(math.isfinite(number) and number > 0 for number in times)
    other = jax.eval_shape(lambda: jax.random.key(0, impl="rbg"))
    with pytest.raises(TypeError, match=r"an argument is a random key, key<rbg>"):
        stopwatch([(lambda k: jax.random.normal(k, (3,)), (other,))])


@pytest.mark.parametrize(
    ("options", "error_type", "message"),
    [
        ({"target": "macs", "times": TimeTable()}, ValueError, r"target='macs': expected a TimeTable"),
        ({"target": "ms", "times": {}}, ValueError, r"times=a dict, target='ms': expected a TimeTable"),
        ({"target": "ms", "times": TimeTable(lambda p: [1.0])}, ValueError, r"expected \d+ finite numbers ≥ 0"),
        ({"target": "ms", "times": TimeTable(lambda p: [math.nan] * len(p))}, ValueError, r"one for each .* got \[nan"),
    ],
)
def test_bad_times_are_named(options, error_type, message):
    _, params, _, units = built("lenet")
    with pytest.raises(error_type, match=message):
        choose(units, params, at_most=0.5, order="magnitude", **options)


def test_units_without_a_function_and_a_measure_that_is_none_are_named():
    _, params, _, units = built("lenet")
    with pytest.raises(ValueError, match=r"target='ms' needs the function"):
        choose(Units.from_json(units.to_json()), params, at_most=0.5, target="ms", order="magnitude")
    with pytest.raises(TypeError, match=r"measure=3: expected a function"):
        TimeTable(measure=3)
