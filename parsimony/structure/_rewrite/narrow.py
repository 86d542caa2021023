"""The same program on narrower arrays: every equation again, with its static shapes rewritten.

A sum over an axis that lost slices stays what it was with those slices at zero: what is removed is zero there, or is
made up for (`Part.removed_slice`). Constants such as 1/n and 1/√d keep the n and d of the full program.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.extend import core as jex

from .._analysis.abstract import Value
from .._analysis.equation import as_function
from .._analysis.interpreter import Frame
from .._analysis.rules.indexing import static_take
from .._analysis.rules.joins import padded
from .cutting import Copies, cut
from .inputs import as_read
from .removed_slices import slice_rule


@dataclasses.dataclass(frozen=True)
class Part:
    """An array of the narrower program.

    Attributes:
      array: what is left of it.
      value: what the analysis knows of the whole.
      slice_of: axis → the slice, of size one, that each removed index of the axis had, where the analysis says `alike`.
    """

    array: Any
    value: Value
    slice_of: Callable[[int], Any] | None = None

    def removed_slice(self, axis: int):
        if np.all(self.value.zero[axis]) or self.slice_of is None:
            shape = tuple(1 if a == axis else n for a, n in enumerate(np.shape(self.array)))
            return jax.numpy.zeros(shape, self.array.dtype)
        return self.slice_of(axis)


PRODUCTS = ("dot_general", "conv_general_dilated", "ragged_dot_general")


class Narrowing:
    """Evaluates the frames of an analysis without what was removed, and with what was doubled."""

    def __init__(self, number: np.ndarray):
        self.number = number  # of each node
        self._touched: dict[int, bool] = {}

    def copies(self, value: Value) -> Copies:
        numbers = (None if isinstance(label, str) else self.number[label] for label in value.labels)
        return tuple(None if n is None or (n == 1).all() else n for n in numbers)

    def shape(self, value: Value) -> tuple[Any, ...]:
        pairs = zip(value.shape, self.copies(value), strict=True)
        return tuple(n if mask is None else int(mask.sum()) for n, mask in pairs)

    def touched(self, frame: Frame) -> bool:
        """Whether anything is removed inside."""
        if id(frame) not in self._touched:
            here = any(mask is not None for value in frame.values.values() for mask in self.copies(value))
            self._touched[id(frame)] = here or any(self.touched(f) for inner in frame.inner for f in inner)
        return self._touched[id(frame)]

    def run(self, frame: Frame, parts: list[Part]) -> list[Part]:
        """The outputs of a frame, from the parts of its arguments."""
        jaxpr = frame.jaxpr
        consts = [
            Part(cut(array, self.copies(value)), value)
            for array, value in zip(frame.consts, map(frame.read, jaxpr.constvars), strict=True)
        ]
        known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *parts], strict=True))
        read = lambda atom: Part(atom.val, frame.read(atom)) if isinstance(atom, jex.Literal) else known[atom]
        for eqn, inner in zip(jaxpr.eqns, frame.inner, strict=True):
            operands = [read(atom) for atom in eqn.invars]
            values = [frame.read(var) for var in eqn.outvars]
            for var, part in zip(eqn.outvars, self.equation(eqn, operands, values, inner), strict=True):
                known[var] = part
        return [read(atom) for atom in jaxpr.outvars]

    def equation(self, eqn, operands: list[Part], values: list[Value], inner: list[Frame]) -> list[Part]:
        from . import control

        everything = [part.value for part in operands] + values
        if not any(mask is not None for value in everything for mask in self.copies(value)) and not any(
            map(self.touched, inner)
        ):
            arrays = as_function(eqn)(*(part.array for part in operands))
            return [Part(array, value) for array, value in zip(arrays, values, strict=True)]
        if eqn.primitive.name in control.RULES:
            return control.RULES[eqn.primitive.name](self, eqn, operands, values, inner)
        arrays = as_read(eqn, [part.array for part in operands], [self.copies(part.value) for part in operands])
        operands = [dataclasses.replace(part, array=array) for part, array in zip(operands, arrays, strict=True)]
        changed = self.parameters(eqn, [part.value for part in operands], values)
        if changed is None:
            return [Part(self._picked(eqn, operands, values[0]), values[0])]
        if eqn.primitive.name in PRODUCTS and any(0 in np.shape(part.array) for part in operands[:2]):
            zeros = jax.numpy.zeros(self.shape(values[0]), eqn.outvars[0].aval.dtype)  # a sum of no terms
            return [Part(zeros, values[0])]
        bound = eqn.primitive.bind(*(part.array for part in operands), **{**eqn.params, **changed})
        arrays = bound if eqn.primitive.multiple_results else [bound]
        if eqn.primitive.name == "reduce_sum":
            arrays = [arrays[0] + lost for lost in self._lost(eqn, operands[0])] or arrays
        slice_of = slice_rule(eqn, operands, changed)
        return [Part(array, value, slice_of) for array, value in zip(arrays, values, strict=True)]

    def _lost(self, eqn, operand: Part):
        """What the removed slices add to a sum: at most one axis has any that are not zero."""
        for axis, mask in self.corrections(eqn, operand.value):
            total = eqn.primitive.bind(operand.removed_slice(axis), **eqn.params)
            yield total * np.asarray((1 - mask).sum(), total.dtype)

    def corrections(self, eqn, operand: Value) -> list[tuple[int, np.ndarray]]:
        """The axes that a sum runs over whose removed slices are not zero, and how many there are of each index."""
        masks = self.copies(operand)
        mine = [(axis, mask) for axis in eqn.params["axes"] if (mask := masks[axis]) is not None]
        return [(axis, mask) for axis, mask in mine if operand.alike[axis] and not np.all(operand.zero[axis])]

    def parameters(self, eqn, operands: list[Value], results: list[Value]) -> dict[str, Any] | None:
        """The static parameters of an equation that change; None where it is to be picked from the whole."""
        params, shape = eqn.params, self.shape(results[0]) if results else ()
        masks = self.copies(operands[0]) if operands else (None,)
        match eqn.primitive.name:
            case "broadcast_in_dim":
                return {"shape": shape}
            case "reshape":
                return {"new_sizes": shape}
            case "iota":
                return None
            case "slice":
                return self._slice_parameters(params, operands[0])
            case "split":
                return {"sizes": tuple(self.shape(value)[params["axis"]] for value in results)}
            case "pad":
                kept = self.copies(results[0])
                cut_or_apart = (c for c, mask in zip(params["padding_config"], kept, strict=True) if mask is not None)
                if any(min(c) < 0 or c[2] for c in cut_or_apart):
                    return None
                config = [
                    c if mask is None else (int(mask[: c[0]].sum()), int(mask[len(mask) - c[1] :].sum()), 0)
                    for c, mask in zip(params["padding_config"], kept, strict=True)
                ]
                return {"padding_config": tuple(config)}
            case "gather":
                take = static_take(eqn, *operands)
                if take is not None and masks[take.axis] is not None:
                    return None
                pairs = zip(params["slice_sizes"], masks, strict=True)
                return {"slice_sizes": tuple(n if mask is None else int(mask.sum()) for n, mask in pairs)}
            case "dynamic_slice":
                return {"slice_sizes": shape}
            case "conv_general_dilated" if params["feature_group_count"] > 1:
                numbers = params["dimension_numbers"]
                channels, inside = (
                    self.shape(operands[0])[numbers.lhs_spec[1]],
                    self.shape(operands[1])[numbers.rhs_spec[1]],
                )
                return {"feature_group_count": channels // inside if inside else 1}
        return {}

    def _slice_parameters(self, params, value: Value) -> dict[str, Any] | None:
        starts, limits = list(params["start_indices"]), list(params["limit_indices"])
        for axis, mask in enumerate(self.copies(value)):
            if mask is None:
                continue
            if params["strides"] is not None and params["strides"][axis] != 1:
                return None
            starts[axis], limits[axis] = int(mask[: starts[axis]].sum()), int(mask[: limits[axis]].sum())
        return {"start_indices": tuple(starts), "limit_indices": tuple(limits)}

    def _picked(self, eqn, operands: list[Part], result: Value):
        """A counter cut from the whole; what is sliced in strides or padded between, taken index by index."""
        if eqn.primitive.name == "iota":
            return cut(eqn.primitive.bind(**eqn.params), self.copies(result))
        if eqn.primitive.name == "gather":
            return self._take(static_take(eqn, *(part.value for part in operands)), operands[0], result)
        array, params = operands[0].array, eqn.params
        masks = zip(self.copies(operands[0].value), self.copies(result), strict=True)
        for axis, (here, there) in enumerate(masks):
            if eqn.primitive.name == "pad":
                config = params["padding_config"][axis]
                source = padded(operands[0].value.shape[axis], config)
                whole = here is None and there is None
                config = config if whole else (0, 1, 0)  # one padded entry, to be taken from
                configs = [config if a == axis else (0, 0, 0) for a in range(array.ndim)]
                array = jax.lax.pad(array, operands[1].array, configs)
                if whole:
                    continue
            else:
                bounds = (params[key][axis] for key in ("start_indices", "limit_indices", "strides"))
                source = np.arange(operands[0].value.shape[axis])[slice(*bounds)]
            number = np.ones(operands[0].value.shape[axis], int) if here is None else here
            array = jax.numpy.take(array, places(source, number, there), axis=axis)
        return array

    def _take(self, take, operand: Part, result: Value):
        """The rows that fixed indices point at, where they are now."""
        there = None if take.to is None else self.copies(result)[take.to]
        number = self.copies(operand.value)[take.axis]
        array = jax.numpy.take(operand.array, places(take.source, number, there), axis=take.axis)
        return (
            array[(slice(None),) * take.axis + (0,)]
            if take.to is None
            else jax.numpy.moveaxis(array, take.axis, take.to)
        )


def places(source: np.ndarray, number: np.ndarray, there: np.ndarray | None) -> np.ndarray:
    """Where on a narrower axis the entries are that indices of the whole one point at; −1 points at its end.

    `number`: how many there are of each index; `there`: of each entry of `source`, if not one.
    """
    number = number.astype(int)
    first, end = np.cumsum(number) - number, int(number.sum())
    many = np.ones(len(source), int) if there is None else there
    pairs = zip(source.tolist(), many.tolist(), strict=True)
    found = [np.arange(int(first[i]), int(first[i] + number[i])) if i >= 0 else np.full(n, end) for i, n in pairs]
    return np.concatenate([np.zeros(0, int), *found])


def is_split_evenly(eqn, shape) -> bool:
    """Whether an array of this shape can be split as an equation asks, if it asks at all."""
    if eqn.primitive.name != "sharding_constraint":
        return True
    try:
        eqn.params["sharding"].shard_shape(tuple(shape))
    except ValueError:
        return False
    return True
