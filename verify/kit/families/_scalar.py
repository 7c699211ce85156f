"""Exact numbers that know how they came about: their derivatives, and what rounding may do to them.

A `Number` is a fraction with two more things. `size` is what its value would be if every term had a positive
sign, and `depth` counts the roundings on the longest way to it: however an implementation orders its sums, to
first order in u its result is off by at most depth · size · u. Where every implementation stores what it has,
between two layers, a number is `stored`: its error so far becomes `carried`, and goes through what follows by
the derivatives; magnitudes and roundings begin anew. The other thing is a number's parents with the local
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
    carried : float, optional
        Most error, in units of u, that what was stored before has brought along.

    Examples
    --------
    >>> x, y = Number(3), Number(-1)
    >>> z = x * y + x
    >>> z.value, z.size, z.depth
    (Fraction(0, 1), 6.0, 4)
    >>> [g.value for g in gradients([z], [Number(1)], [x, y])]
    [Fraction(0, 1), Fraction(3, 1)]
    """

    __slots__ = ("carried", "depth", "parents", "size", "storing", "value")

    def __init__(self, value: Any, size: float | None = None, depth: int = 1, carried: float = 0.0) -> None:
        self.value = Fraction(value)
        self.size = abs(float(self.value)) if size is None else size
        self.depth = depth
        self.carried = carried
        self.parents: tuple[tuple[Number, Number], ...] = ()
        self.storing = False

    def _from(self, size: float, depth: int, carried: float, *parents: tuple[Number, Number]) -> Number:
        self.size, self.depth, self.carried, self.parents = size, depth, carried, parents
        return self

    @property
    def error(self) -> float:
        """Most error in units of u, to first order."""
        return self.depth * self.size + self.carried

    def stored(self) -> Number:
        """The same number as the input of what follows; its gradient is stored as well."""
        found = Number(self.value, depth=0, carried=self.error)
        found.parents, found.storing = ((self, ONE),), True
        return found

    def __add__(self, other: Any) -> Number:
        b = number(other)
        depth = max(self.depth, b.depth) + 1
        carried = self.carried + b.carried
        return Number(self.value + b.value)._from(self.size + b.size, depth, carried, (self, ONE), (b, ONE))

    __radd__ = __add__

    def __neg__(self) -> Number:
        return Number(-self.value)._from(self.size, self.depth, self.carried, (self, MINUS))

    def __sub__(self, other: Any) -> Number:
        return self + -number(other)

    def __rsub__(self, other: Any) -> Number:
        return number(other) + -self

    def __mul__(self, other: Any) -> Number:
        b = number(other)
        depth = self.depth + b.depth + 1
        carried = self.carried * b.size + b.carried * self.size
        return Number(self.value * b.value)._from(self.size * b.size, depth, carried, (self, b), (b, self))

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Number:
        b = number(other)
        return self * b.inverse()

    def inverse(self) -> Number:
        """The reciprocal."""
        value = 1 / self.value
        found = Number(value)
        carried = self.carried * float(value) ** 2
        slope = Number(-(value**2), self.size * float(abs(value)) ** 3, 2 * self.depth + 1)
        slope.carried = 2 * carried * float(abs(value))
        return found._from(self.size * float(value) ** 2, self.depth + 1, carried, (self, slope))

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
        size, carried = self.size / float(root), self.carried / (2 * float(root))
        slope = Number(1 / (2 * root), size / (2 * float(root) ** 2), self.depth + 2)
        slope.carried = carried / (2 * float(root) ** 2)
        return Number(root)._from(size, self.depth + 1, carried, (self, slope))

    def clipped(self) -> Number:
        """The larger of the number and 0; the derivative at 0 is 0."""
        if self.value > 0:
            return Number(self.value)._from(self.size, self.depth, self.carried, (self, ONE))
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
        if node.storing:
            own = own.stored()
        for parent, slope in node.parents:
            value = Number(own.value * slope.value, own.size * slope.size, own.depth + slope.depth + 1)
            value.carried = own.carried * slope.size + slope.carried * own.size
            found.setdefault(id(parent), []).append(value)
    return [total.get(id(one), Number(0, 0.0, 0)) for one in inputs]


def _sum(parts: list[Number]) -> Number:
    depth = max(part.depth for part in parts) + len(parts) - 1
    value = sum((part.value for part in parts), Fraction(0))
    return Number(value, sum(part.size for part in parts), depth, sum(part.carried for part in parts))


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


def stored(array: Array) -> Array:
    """Numbers as they are stored between two layers.

    Examples
    --------
    >>> x = Number(3) - Number(2)
    >>> y = stored(np.array([x]))[0]
    >>> (x.size, x.depth), (y.size, y.depth, y.carried)
    ((5.0, 2), (1.0, 0, 10.0))
    """
    found = np.empty(array.shape, dtype=object)
    found.ravel()[:] = [one.stored() for one in array.ravel()]
    return found


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
    """What to ship as ``bound`` of answers compared by ``ulp``, four roundings of it: (error + 4 size) / 4.

    Examples
    --------
    >>> bounds(numbers([2.0]))
    array([2.5])
    """
    given = np.asarray(array, dtype=object)
    flat = [(one.error + 4 * one.size) / 4 for one in given.ravel()]
    return np.array(flat, dtype=np.float64).reshape(given.shape)
