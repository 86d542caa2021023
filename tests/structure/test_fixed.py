"""What `find_units` fixes has to stay: an argument or an output has the axis, or without it the outputs are others.

For each fixed axis the largest consistent cut is made: one index of it, and with it every slice of every array of the
program that must go in step, the arguments and outputs among them. The rewritten program is then run on what is left.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from helpers.architectures import ARCHITECTURES, QUICK, built, flat
from helpers.cases import mostly
from parsimony._tree import named_leaves
from parsimony.structure import find_units
from parsimony.structure._analysis import interpreter
from parsimony.structure._analysis.abstract import Value
from parsimony.structure._analysis.coupling import Coupling
from parsimony.structure._rewrite.narrow import Narrowing, Part

INPUT, OUTPUT = "an axis of the input", "an axis of the output"
# Units are channels: the taps of a window, the layers of a scan and what has one index are none, by definition.
NO_CHANNELS = ("a spatial axis of a convolution", "the axis that a scan runs over", "an axis of size one")
# The program holds numbers of the indices, which would be others.
NUMBERED = ("an axis that one index is taken from", "an axis that computed indices point into")


class Free(Coupling):
    """What goes in step, with nothing fixed: the labels alone say how far a cut reaches."""

    def fix(self, label, reason):
        pass

    def unite(self, one, other):
        if isinstance(one, str) or isinstance(other, str):
            return other if isinstance(one, str) else one
        return super().unite(one, other)

    def nodes(self, label, n):
        return self.new(n) if isinstance(label, str) else label


class FreeWalk(interpreter.Walk):
    """An axis that a rule fixes keeps its labels, unless its size changes."""

    def __init__(self):
        super().__init__()
        self.coupling = Free()

    def fix(self, value, axis, reason):
        return value.labels[axis]

    def rule(self, eqn, operands):
        fits = lambda label, n: isinstance(label, str) or len(label) == n
        own = lambda label, n: label if fits(label, n) else "an axis of another size"
        return [
            dataclasses.replace(value, labels=tuple(map(own, value.labels, value.shape)))
            for value in super().rule(eqn, operands)
        ]


class Program:
    """fn(params, *args), whose arguments and outputs may be cut as its parameters may."""

    def __init__(self, fn, params, args):
        leaves, _ = named_leaves(params)
        self.fn, self.params, self.args, self.parameters = fn, params, args, len(leaves)
        closed, walk = jax.make_jaxpr(fn)(params, *args), FreeWalk()
        shapes = [var.aval.shape for var in closed.jaxpr.invars]
        label = lambda n: walk.coupling.new(n) if n > 1 else "an axis of size one"
        all_zero = lambda shape: (True,) * len(shape)
        self.values = [
            Value(shape, tuple(map(label, shape)), all_zero(shape), all_zero(shape), None, place < self.parameters)
            for place, shape in enumerate(shapes)
        ]
        self.outputs, self.frame = walk.run(closed, None, self.values)
        self.solution = walk.coupling.solve()
        self.labels = {name: value.labels for (name, _), value in zip(leaves, self.values, strict=False)}

    def without(self, parameter: str, axis: int, index: int) -> Narrowing:
        """Nothing that goes in step with this slice."""
        atoms = self.solution.atoms_of(self.labels[parameter][axis][[index]])
        return Narrowing(self.solution.copies(atoms, np.zeros(len(atoms), int)))

    def run(self, narrowing: Narrowing, arrays):
        parts = [Part(array, value) for array, value in zip(arrays, self.values, strict=True)]
        return [part.array for part in narrowing.run(self.frame, parts)]

    def needs(self, parameter: str, axis: int, index: int, reason: str) -> bool | str:
        """Whether the slice has to stay for the reason given; otherwise what happens without it."""
        narrowing = self.without(parameter, axis, index)
        cut = lambda value: narrowing.shape(value) != tuple(value.shape)
        structs = [
            jax.ShapeDtypeStruct(narrowing.shape(value), var.aval.dtype)
            for value, var in zip(self.values, self.frame.jaxpr.invars, strict=True)
        ]
        try:
            out = jax.eval_shape(lambda *arrays: self.run(narrowing, arrays), *structs)
        except (TypeError, ValueError) as impossible:
            return reason in NUMBERED or f"the rest does not run: {impossible}"
        shapes = [tuple(value.shape) for value in self.outputs]
        narrower = {
            INPUT: any(map(cut, self.values[self.parameters :])),
            OUTPUT: [tuple(leaf.shape) for leaf in out] != shapes,
        }
        if any(narrower.values()):
            return narrower.get(reason, False) or f"the cut reaches {[name for name, own in narrower.items() if own]}"
        arrays = [jnp.asarray(leaf) for leaf in jax.tree.leaves((self.params, *self.args))]
        taken, zeroed = [], []
        for array, value in zip(arrays, self.values, strict=True):
            full = array
            for a, number in enumerate(narrowing.copies(value)):
                if number is not None:
                    array = jnp.compress(number > 0, array, axis=a)
                    full = full * np.expand_dims(number, [b for b in range(value.ndim) if b != a])
            taken.append(array)
            zeroed.append(full)
        expected = self.fn(*jax.tree.unflatten(jax.tree.structure((self.params, *self.args)), zeroed))
        left, whole = flat(self.run(narrowing, taken)), flat(expected)
        same = np.abs(left - whole).max() <= 1e-4 * np.abs(left).max()
        return "the rest computes what the whole computes with these slices at zero" if same else True


def unneeded(fn, params, args, units):
    """{(parameter, axis, reason): what happens without} for what is fixed without need, and how much was tried."""
    program, found, tried = Program(fn, params, args), {}, 0
    for parameter, axes in units.fixed.items():
        for axis, reason in axes.items():
            if reason in NO_CHANNELS:
                continue
            free = np.zeros(units.shapes[parameter][axis], bool)
            for unit_set in units.sets.values():
                free |= unit_set.members.get(parameter, {}).get(axis, np.full(len(free), -1)) >= 0
            index = int(np.flatnonzero(~free)[0])
            needed, tried = program.needs(parameter, axis, index, reason), tried + 1
            if needed is not True:
                found[parameter, axis, reason] = needed
    return found, tried


@pytest.mark.parametrize("name", mostly(sorted(ARCHITECTURES), QUICK))
def test_what_is_fixed_cannot_be_removed(name):
    found, tried = unneeded(*built(name))
    assert found == {}
    assert tried > 0


def hidden(activation):
    """A network whose hidden axis meets `activation`, and no argument or output."""
    normal = lambda *shape: jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    params = {"w1": normal(3, 6), "w2": normal(6, 2)}
    return lambda params, x: activation(x @ params["w1"]) @ params["w2"], params, (normal(2, 3),)


@pytest.mark.parametrize(
    "along", [lambda x: lax.cumprod(x, 1), lambda x: lax.sort(jnp.cos(x), dimension=1)], ids=["cumprod", "sort"]
)
def test_an_order_along_hidden_units_is_a_need(along):
    fn, params, args = hidden(along)
    units = find_units(fn, params, *args)
    assert units.fixed.keys() >= {"w1", "w2"}
    found, tried = unneeded(fn, params, args, units)
    assert (found, tried) == ({}, 4)


@pytest.mark.parametrize("reason", [INPUT, NUMBERED[0], "for no reason"])
@pytest.mark.parametrize("apart", [False, True], ids=["in step", "and taken apart"])
def test_a_rule_that_fixes_too_much_is_found_out(monkeypatch, reason, apart):
    """`needs` can say no: a rule for tanh fixes the units that it runs over, and perhaps forgets what they were."""
    rules = interpreter._rules()
    rule = rules["tanh"]

    def too_much(walk, eqn, operands):
        if apart and reason not in NUMBERED:
            return walk.fix_all(eqn, operands, reason)
        walk.coupling.fix(operands[0].labels[1], reason)
        return rule(walk, eqn, operands)

    fn, params, args = hidden(jnp.tanh)
    assert unneeded(fn, params, args, find_units(fn, params, *args)) == ({}, 2)
    monkeypatch.setitem(rules, "tanh", too_much)
    found, _ = unneeded(fn, params, args, find_units(fn, params, *args))
    assert ("w1", 1, reason) in found
