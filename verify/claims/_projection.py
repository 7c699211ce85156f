"""The projection (16)-(17) in rational arithmetic: the sweep, the enumeration, the alternation.

The sets are L_b = {0, ±1, ±2, ..., ±2^b} times a scale α ≥ 0. Three channels that share no code: the sweep of
Theorem P, an enumeration in integers, and the loops of `refldnq.verify.naive.projection`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import pairwise, product
from typing import Any

import numpy as np

from refldnq.verify.claims._rational import Exact, exact
from refldnq.verify.naive import projection as naive


@dataclass(frozen=True)
class Point:
    """A point αQ of Ω and its cost Σ w (V - αQ)²."""

    alpha: Any
    Q: Exact
    residual: Any

    @property
    def G(self) -> Exact:  # noqa: N802 - the paper's symbol
        """The point itself."""
        point: Exact = self.alpha * self.Q
        return point


def levels(b: int) -> tuple[int, ...]:
    """The non-negative levels 0, 1, 2, 4, ..., 2^b.

    Examples
    --------
    >>> levels(2)
    (0, 1, 2, 4)
    """
    return (0, *(2**j for j in range(b + 1)))


def alphabet(b: int) -> tuple[int, ...]:
    """All 2b+3 values, ascending.

    Examples
    --------
    >>> alphabet(1)
    (-2, -1, 0, 1, 2)
    """
    return (*(-level for level in reversed(levels(b)[1:])), *levels(b))


def midpoint(low: int, high: int) -> Fraction:
    """Where |V|/α changes from one level to the next.

    Examples
    --------
    >>> midpoint(2, 4)
    Fraction(3, 1)
    """
    return Fraction(low + high, 2)


def growth(low: int, high: int) -> int:
    """What QᵀQ gains when an element moves from one level to the next.

    Examples
    --------
    >>> growth(2, 4)
    12
    """
    return high**2 - low**2


def breakpoints(
    V: Exact, b: int, *, threshold: Callable[[int, int], Fraction] = midpoint
) -> list[tuple[Any, int, int]]:
    """All (α, element, level) at which an element moves up to a level as α falls, largest α first.

    Examples
    --------
    >>> [(str(alpha), i, j) for alpha, i, j in breakpoints(exact([3, -1]), 1)]
    [('6', 0, 1), ('2', 0, 2), ('2', 1, 1), ('2/3', 1, 2)]
    """
    steps = levels(b)
    moves = [
        (abs(v) / threshold(steps[j - 1], steps[j]), i, j)
        for i, v in enumerate(V)
        if v != 0
        for j in range(1, len(steps))
    ]
    return sorted(moves, key=lambda move: -move[0])


def sweep(
    V: Exact,
    b: int,
    weights: Exact | None = None,
    *,
    threshold: Callable[[int, int], Fraction] = midpoint,
    gain: Callable[[int, int], int] = growth,
) -> Point:
    """The nearest point of Ω by the sweep of Theorem P.

    Parameters
    ----------
    V : Array, shape (N,)
        What is projected.
    b : int
        Of the set.
    weights : Array, shape (N,), optional
        Positive weights.
    threshold, gain : callable, optional
        The two formulas of the theorem, exchanged where a wrong one is to be noticed.

    Returns
    -------
    Point
        A global optimum; of several the one of the largest scale.

    Examples
    --------
    >>> point = sweep(exact([4, 1, 1, 1]), 0)
    >>> str(point.alpha), point.Q.tolist() == [1, 0, 0, 0], str(point.residual)
    ('4', True, '3')
    """
    steps, w = levels(b), exact(np.ones(len(V), dtype=int)) if weights is None else weights
    top = bottom = best = Fraction(0)
    moves = breakpoints(V, b, threshold=threshold)
    taken = 0
    for count, (_, i, j) in enumerate(moves, 1):
        top += w[i] * abs(V[i]) * (steps[j] - steps[j - 1])
        bottom += w[i] * gain(steps[j - 1], steps[j])
        if top * top > best * bottom:
            best, taken = top * top / bottom, count
    Q = exact(np.zeros(len(V), dtype=int))
    for _, i, j in moves[:taken]:
        Q[i] = Fraction(steps[j] if V[i] > 0 else -steps[j])
    alpha = naive.best_scale(V, Q, w) if taken else Fraction(0)
    return Point(alpha, Q, naive.residual(V, Fraction(0), Q, w) - best)


@cache
def every(b: int, size: int) -> tuple[Any, Any]:
    """All Q of `size` elements as integers, (k, size), and their squares."""
    Q = np.array(list(product(alphabet(b), repeat=size)), dtype=np.int64)
    return Q, Q * Q


def enumerated(V: Exact, b: int, weights: Exact | None = None) -> Any:
    """The least cost over all of Ω: every Q tried, in integers.

    Parameters
    ----------
    V : Array, shape (N,)
        What is projected; N small.
    b : int
        Of the set.
    weights : Array, shape (N,), optional
        Positive weights.

    Returns
    -------
    Fraction
        The least Σ w (V - αQ)².

    Raises
    ------
    OverflowError
        If the numerators do not fit.

    Examples
    --------
    >>> str(enumerated(exact([4, 1, 1, 1]), 0))
    '3'
    """
    w = exact(np.ones(len(V), dtype=int)) if weights is None else weights
    scale = math.lcm(*(v.denominator for v in V))
    mass = math.lcm(*(v.denominator for v in w))
    integer = [int(v * scale) for v in V]
    heavy = [int(v * mass) for v in w]
    if max(map(abs, integer)) * max(heavy) * len(V) * 2**b >= 2**62:
        raise OverflowError("`V` must have smaller numerators and denominators.")
    Q, square = every(b, len(V))
    tops = Q @ np.array([a * c for a, c in zip(integer, heavy, strict=True)], dtype=np.int64)
    bottoms = square @ np.array(heavy, dtype=np.int64)
    best = Fraction(0)
    for bottom in np.unique(bottoms):
        if bottom:
            best = max(best, Fraction(int(tops[bottoms == bottom].max()) ** 2, int(bottom)))
    energy = sum(c * a * a for a, c in zip(integer, heavy, strict=True))
    return (energy - best) / (scale * scale * mass)


def mean(V: Exact) -> Any:
    """The mean magnitude, where the alternation starts.

    Examples
    --------
    >>> str(mean(exact([4, -1])))
    '5/2'
    """
    return abs(V).sum() / len(V)


def rounding(V: Exact, alpha: Any, b: int) -> Exact:
    """Q nearest to V/α, ties to the smaller level.

    Examples
    --------
    >>> rounding(exact([4, -1, 3]), Fraction(2), 1).tolist() == [2, 0, 1]
    True
    """
    steps = levels(b)
    limits = [alpha * midpoint(low, high) for low, high in pairwise(steps)]
    magnitudes = [steps[sum(limit < size for limit in limits)] for size in map(abs, V)]
    return exact([level if v > 0 else -level for level, v in zip(magnitudes, V, strict=True)])


def updated(V: Exact, alpha: Any, b: int) -> Any:
    """The alternation's map: the best scale of the rounding at α.

    Raises
    ------
    ZeroDivisionError
        If everything rounds to 0.

    Examples
    --------
    >>> str(updated(exact([4, 1, 1, 1]), Fraction(7, 4), 0))
    '7/4'
    """
    Q = rounding(V, alpha, b)
    return sum(v * q for v, q in zip(V, Q, strict=True)) / sum(q * q for q in Q)


def alternated(V: Exact, b: int, alpha: Any = None) -> tuple[Point, list[Any]]:
    """The paper's alternation to its fixed point.

    Parameters
    ----------
    V : Array, shape (N,)
        What is projected.
    b : int
        Of the set.
    alpha : Fraction, optional
        Where the scale starts; at the mean magnitude by default.

    Returns
    -------
    Point
        Where it ends.
    list of Fraction
        The scales from the start on, all different: one more than there were updates.

    Examples
    --------
    >>> point, scales = alternated(exact([6, 3, 1]), 0)
    >>> [str(scale) for scale in scales], point.Q.tolist() == [1, 1, 0]
    (['10/3', '9/2'], True)
    """
    unit = math.lcm(*(v.denominator for v in V))
    whole = exact([v * unit for v in V])  # integers are compared faster
    scales = [(mean(V) if alpha is None else alpha) * unit]
    while True:
        Q = rounding(whole, scales[-1], b)
        new = naive.best_scale(whole, Q)
        if new == scales[-1]:
            scale = new / unit
            return Point(scale, Q, naive.residual(V, scale, Q)), [old / unit for old in scales]
        scales.append(new)
