"""Numbers that count their multiplications and divisions; a factorization and substitutions of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Counter:
    """Multiplications and divisions so far; square roots apart."""

    products: int = 0
    roots: int = 0


class Counted:
    """A float that reports products to a counter.

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
        return Counted(self.value + other.value, self.counter)

    def __sub__(self, other: Counted) -> Counted:
        return Counted(self.value - other.value, self.counter)

    def __mul__(self, other: Counted) -> Counted:
        self.counter.products += 1
        return Counted(self.value * other.value, self.counter)

    def __truediv__(self, other: Counted) -> Counted:
        self.counter.products += 1
        return Counted(self.value / other.value, self.counter)

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
