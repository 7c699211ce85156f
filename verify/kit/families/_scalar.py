"""Exact numbers that know how they came about: their derivatives, and what rounding may do to them.

A `Number` is a fraction with two more things. `size` is what its value would be if every term had a positive
sign, and `depth` counts the roundings on the longest way to it: however an implementation orders its sums, to
first order in u its result is off by at most depth · size · u. The other is its parents with the local
derivatives, so that gradients are mechanical: no formula of backpropagation is written down here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from math import isqrt
from typing import Any

import numpy as np

from refldnq._typing import Array, Float64Array


class Number:
    """A fraction with its history.

    Parameters
    ----------
    value : int, float or Fraction
        The number, exactly.
    size : float, optional
        Bound of the magnitudes of its terms; ``|value|`` by default.
    depth : int, optional
        Roundings so far; 1 for an input, which a narrow type rounds.

    Examples
    --------
    >>> x, y = Number(3), Number(-1)
    >>> z = x * y + x
    >>> z.value, z.size, z.depth
    (Fraction(0, 1), 6.0, 4)
    >>> [g.value for g in gradients([z], [Number(1)], [x, y])]
    [Fraction(0, 1), Fraction(3, 1)]
    """

    __slots__ = ("depth", "parents", "size", "value")

    def __init__(self, value: Any, size: float | None = None, depth: int = 1) -> None:
        self.value = Fraction(value)
        self.size = abs(float(self.value)) if size is None else size
        self.depth = depth
        self.parents: tuple[tuple[Number, Number], ...] = ()

    def _from(self, size: float, depth: int, *parents: tuple[Number, Number]) -> Number:
        self.size, self.depth, self.parents = size, depth, parents
        return self

    def __add__(self, other: Any) -> Number:
        b = number(other)
        depth = max(self.depth, b.depth) + 1
        return Number(self.value + b.value)._from(self.size + b.size, depth, (self, ONE), (b, ONE))

    __radd__ = __add__

    def __neg__(self) -> Number:
        return Number(-self.value)._from(self.size, self.depth, (self, MINUS))

    def __sub__(self, other: Any) -> Number:
        return self + -number(other)

    def __rsub__(self, other: Any) -> Number:
        return number(other) + -self

    def __mul__(self, other: Any) -> Number:
        b = number(other)
        depth = self.depth + b.depth + 1
        return Number(self.value * b.value)._from(self.size * b.size, depth, (self, b), (b, self))

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Number:
        b = number(other)
        return self * b.inverse()

    def inverse(self) -> Number:
        """The reciprocal."""
        value = 1 / self.value
        found = Number(value)
        slope = Number(-(value**2), self.size * float(abs(value)) ** 3, 2 * self.depth + 1)
        return found._from(self.size * float(value) ** 2, self.depth + 1, (self, slope))

    def sqrt(self, *, near: bool = False) -> Number:
        """The root; if it may be `near`, to 160 bits where it is irrational.

        Raises
        ------
        ValueError
            If it is irrational, and must not be near.
        """
        top, bottom = self.value.numerator, self.value.denominator
        root = Fraction(isqrt(top), isqrt(bottom)) if top > 0 else Fraction(0)
        if near and root**2 != self.value:
            root = Fraction(isqrt((top << 640) // bottom), 1 << 320)
        elif root**2 != self.value or not root:
            raise ValueError(f"`value` must be the square of a positive fraction, got {self.value}.")
        size = self.size / float(root)
        slope = Number(1 / (2 * root), size / (2 * float(root) ** 2), self.depth + 2)
        return Number(root)._from(size, self.depth + 1, (self, slope))

    def clipped(self) -> Number:
        """The larger of the number and 0; the derivative at 0 is 0."""
        if self.value > 0:
            return Number(self.value)._from(self.size, self.depth, (self, ONE))
        return Number(0, 0.0, 0)


ONE = Number(1, 1.0, 0)
MINUS = Number(-1, 1.0, 0)


def number(value: Any) -> Number:
    """The number itself, or a constant that no type rounds.

    Examples
    --------
    >>> number(2).depth
    0
    """
    return value if isinstance(value, Number) else Number(value, depth=0)


def numbers(array: Any) -> Array:
    """An array as numbers.

    Examples
    --------
    >>> numbers(np.array([[0.5]]))[0, 0].value
    Fraction(1, 2)
    """
    given = np.asarray(array)
    found = np.empty(given.shape, dtype=object)
    found.ravel()[:] = [
        value if isinstance(value, Number) else Number(value) for value in given.ravel().tolist()
    ]
    return found


def gradients(outputs: Iterable[Number], seeds: Iterable[Number], inputs: Sequence[Number]) -> list[Number]:
    """Sum of seed times derivative over all outputs, for every input.

    Parameters
    ----------
    outputs, seeds : iterable of Number
        What is differentiated, and the weight of each.
    inputs : sequence of Number
        With respect to what.

    Returns
    -------
    list of Number
        0 for an input that no output depends on.

    Examples
    --------
    >>> x = Number(4)
    >>> gradients([x.sqrt()], [Number(1)], [x])[0].value
    Fraction(1, 4)
    """
    outputs = list(outputs)
    order = _topological(outputs)
    found: dict[int, list[Number]] = {}
    for output, seed in zip(outputs, seeds, strict=True):
        found.setdefault(id(output), []).append(seed)
    total: dict[int, Number] = {}
    for node in reversed(order):
        parts = found.pop(id(node), None)
        if not parts:
            continue
        own = total[id(node)] = _sum(parts)
        for parent, slope in node.parents:
            value = Number(own.value * slope.value, own.size * slope.size, own.depth + slope.depth + 1)
            found.setdefault(id(parent), []).append(value)
    return [total.get(id(one), Number(0, 0.0, 0)) for one in inputs]


def _sum(parts: list[Number]) -> Number:
    depth = max(part.depth for part in parts) + len(parts) - 1
    return Number(sum((part.value for part in parts), Fraction(0)), sum(part.size for part in parts), depth)


def _topological(outputs: list[Number]) -> list[Number]:
    # Every node after its parents, without recursion.
    order: list[Number] = []
    seen: set[int] = set()
    stack: list[tuple[Number, bool]] = [(one, False) for one in outputs]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack += [(parent, False) for parent, _ in node.parents]
    return order


def values(array: Any) -> Array:
    """The fractions of an array of numbers.

    Examples
    --------
    >>> values(numbers([0.5]))
    array([Fraction(1, 2)], dtype=object)
    """
    given = np.asarray(array, dtype=object)
    found = np.empty(given.shape, dtype=object)
    found.ravel()[:] = [one.value for one in given.ravel()]
    return found


def bounds(array: Any) -> Float64Array:
    """What to ship as ``bound`` of answers compared by ``ulp``, four roundings of it: (depth + 4) size / 4.

    Examples
    --------
    >>> bounds(numbers([2.0]))
    array([2.5])
    """
    given = np.asarray(array, dtype=object)
    flat = [(one.depth + 4) * one.size / 4 for one in given.ravel()]
    return np.array(flat, dtype=np.float64).reshape(given.shape)
