"""Numbers that count what is done with them; the steps of ADMM written out with such numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Counter:
    """Multiplications and divisions so far; sums and differences, comparisons and square roots apart."""

    products: int = 0
    roots: int = 0
    sums: int = 0
    comparisons: int = 0


class Counted:
    """A float that reports operations to a counter.

    Examples
    --------
    >>> counter = Counter()
    >>> x = Counted(2.0, counter)
    >>> (x * x + x / x - x).value, counter.products
    (3.0, 2)
    """

    def __init__(self, value: float, counter: Counter) -> None:
        self.value, self.counter = value, counter

    def __add__(self, other: Counted) -> Counted:
        self.counter.sums += 1
        return Counted(self.value + other.value, self.counter)

    def __sub__(self, other: Counted) -> Counted:
        self.counter.sums += 1
        return Counted(self.value - other.value, self.counter)

    def __mul__(self, other: Counted) -> Counted:
        self.counter.products += 1
        return Counted(self.value * other.value, self.counter)

    def __truediv__(self, other: Counted) -> Counted:
        self.counter.products += 1
        return Counted(self.value / other.value, self.counter)

    def __lt__(self, other: Counted) -> bool:
        self.counter.comparisons += 1
        return self.value < other.value

    def __abs__(self) -> Counted:
        return Counted(abs(self.value), self.counter)

    def sqrt(self) -> Counted:
        """The root, counted apart."""
        self.counter.roots += 1
        return Counted(self.value**0.5, self.counter)


def counted(A: Any, counter: Counter) -> Any:
    """An array of counted numbers."""
    numbers = np.empty(np.shape(A), dtype=object)
    for place, value in np.ndenumerate(np.asarray(A, dtype=float)):
        numbers[place] = Counted(float(value), counter)
    return numbers


def factorize(A: Any) -> Any:
    """The lower triangle R of A = RRᵀ, column by column."""
    d = len(A)
    R = A.copy()
    for j in range(d):
        for k in range(j):
            R[j, j] = R[j, j] - R[j, k] * R[j, k]
        R[j, j] = R[j, j].sqrt()
        for i in range(j + 1, d):
            for k in range(j):
                R[i, j] = R[i, j] - R[i, k] * R[j, k]
            R[i, j] = R[i, j] / R[j, j]
    return R


def substitute(R: Any, b: Any) -> Any:
    """X with RRᵀx = b, by two triangular systems."""
    d, x = len(R), b.copy()
    for i in range(d):
        for k in range(i):
            x[i] = x[i] - R[i, k] * x[k]
        x[i] = x[i] / R[i, i]
    for i in reversed(range(d)):
        for k in range(i + 1, d):
            x[i] = x[i] - R[k, i] * x[k]
        x[i] = x[i] / R[i, i]
    return x


def total(terms: Any) -> Any:
    """The sum of one term or more."""
    first, *others = terms
    for term in others:
        first = first + term
    return first


def alternation_pass(V: Any, alpha: Any, levels: Any, middles: Any) -> tuple[Any, Any]:
    """One pass of the alternation over a layer: Q nearest to V/α, and the scale VᵀQ/QᵀQ.

    Parameters
    ----------
    V : Array, shape (N,)
        Counted numbers.
    alpha : Counted
        The scale.
    levels, middles : Array, shape (b+2,) and (b+1,)
        The levels from 0 on, and the midpoints between them.

    Returns
    -------
    Array, shape (N,)
        The magnitudes of Q.
    Counted
        The new scale.
    """
    Q = V.copy()
    for i, v in enumerate(V):
        size, level = abs(v) / alpha, 0
        while level < len(middles) and middles[level] < size:
            level += 1
        Q[i] = levels[level]
    top = total(abs(v) * q for v, q in zip(V, Q, strict=True))
    return Q, top / total(q * q for q in Q)


def exact_sweep(V: Any, levels: Any, middles: Any, gains: Any, growths: Any) -> Any:
    """The exact projection of a layer: breakpoints sorted downwards, and the largest A²/B on the way.

    Parameters
    ----------
    V, levels, middles
        As for `alternation_pass`; V without zeros.
    gains, growths : Array, shape (b+1,)
        Differences of consecutive levels, and of their squares.

    Returns
    -------
    Counted
        The largest A²/B.
    """
    moves = [(abs(v) / middle, i, j) for i, v in enumerate(V) for j, middle in enumerate(middles)]
    moves.sort(key=lambda move: move[0], reverse=True)
    best = top = bottom = V[0] - V[0]
    for _, i, j in moves:
        top = top + abs(V[i]) * gains[j]
        bottom = bottom + growths[j]
        value = top * top / bottom
        best = value if best < value else best
    return best
