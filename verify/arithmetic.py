"""Three number systems in which the sides of an inequality are computed: exact, balls, float64.

Matrices are NumPy arrays: of `fractions.Fraction` objects (`EXACT`), of `flint.arb` balls (`Ball`), of
float64 (`FLOAT`). The operators ``+``, ``-``, ``*``, ``/`` and ``@`` work on all three; what differs is here.
Numbers of two systems are never mixed: a statement converts all its values with `Arithmetic.number` and
`Arithmetic.array`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

BITS = 113
"""Bits of the balls where nothing else is asked for: those of IEEE's binary128."""


class NotRationalError(ArithmeticError):
    """A result that no fraction represents, such as the root of 2."""


class Arithmetic(ABC):
    """What differs between the number systems."""

    @abstractmethod
    def number(self, x: Any) -> Any:
        """An integer, fraction or float as a number of this system."""

    @abstractmethod
    def sqrt(self, x: Any) -> Any:
        """The square root.

        Raises
        ------
        ValueError
            If `x` is negative.
        """

    @abstractmethod
    def maximum(self, x: Any, y: Any) -> Any:
        """The larger of two numbers."""

    @abstractmethod
    def spectral(self, A: Any) -> Any:
        """The largest singular value of a matrix."""

    def array(self, x: Any) -> Any:
        """Nested sequences or an array of integers, fractions or floats as an array of this system."""
        given = np.asarray(x, dtype=object)
        converted = np.empty(given.shape, dtype=object)
        converted.ravel()[:] = [self.number(v) for v in given.ravel()]
        return converted

    def relu(self, A: Any) -> Any:
        """The positive part of every entry."""
        zero = self.number(0)
        positive = np.empty(A.shape, dtype=object)
        positive.ravel()[:] = [self.maximum(v, zero) for v in A.ravel()]
        return positive

    def squares(self, A: Any) -> Any:
        """The sum of the squares of all entries."""
        return sum((v * v for v in A.ravel()), self.number(0))

    def frobenius(self, A: Any) -> Any:
        """The Frobenius norm."""
        return self.sqrt(self.squares(A))

    def product(self, factors: Sequence[Any]) -> Any:
        """The product of numbers; 1 of none."""
        result = self.number(1)
        for factor in factors:
            result = result * factor
        return result


class Exact(Arithmetic):
    """Rational numbers, `fractions.Fraction`: every result is exact or a `NotRationalError`.

    Examples
    --------
    >>> EXACT.sqrt(Fraction(9, 4))
    Fraction(3, 2)
    >>> EXACT.frobenius(EXACT.array([[3, 4]]))
    Fraction(5, 1)
    >>> EXACT.sqrt(2)
    Traceback (most recent call last):
        ...
    refldnq.verify.arithmetic.NotRationalError: the square root of 2 is not rational
    """

    def number(self, x: Any) -> Fraction:
        return Fraction(int(x)) if isinstance(x, np.integer) else Fraction(x)

    def sqrt(self, x: Any) -> Fraction:
        square = self.number(x)
        if square < 0:
            raise ValueError(f"`x` must not be negative, got {square}.")
        root = Fraction(math.isqrt(square.numerator), math.isqrt(square.denominator))
        if root * root != square:
            raise NotRationalError(f"the square root of {square} is not rational")
        return root

    def maximum(self, x: Any, y: Any) -> Any:
        return max(x, y)

    def spectral(self, A: Any) -> Fraction:
        r"""The largest singular value, where it is seen to be rational.

        Of a matrix with at most one entry other than 0 in every row and column it is the largest magnitude:
        the columns are orthogonal. Of a matrix of rank 1, :math:`uv^\top`, it is
        :math:`\|u\|\,\|v\|`, the Frobenius norm.

        Raises
        ------
        NotRationalError
            If the matrix is of another kind, or the norm is irrational.

        Examples
        --------
        >>> EXACT.spectral(EXACT.array([[0, -2], [1, 0]]))
        Fraction(2, 1)
        >>> EXACT.spectral(EXACT.array([[1, 1], [1, 1]]))
        Fraction(2, 1)
        """
        filled = np.array([[v != 0 for v in row] for row in A], dtype=bool).reshape(A.shape)
        if not filled.any():
            return Fraction(0)
        if filled.sum(axis=0).max() == 1 and filled.sum(axis=1).max() == 1:
            return self.number(max(abs(v) for v in A.ravel()))
        i, j = np.argwhere(filled)[0]
        if np.any(A * A[i, j] != np.outer(A[:, j], A[i])):
            raise NotRationalError("the spectral norm of this matrix is not known to be rational")
        return self.sqrt(self.squares(A))


class Floats(Arithmetic):
    """Float64: fast, and without any proof.

    Examples
    --------
    >>> FLOAT.spectral(FLOAT.array([[Fraction(1, 2), 0], [0, 2]]))
    2.0
    """

    def number(self, x: Any) -> float:
        return float(x)

    def sqrt(self, x: Any) -> float:
        if x < 0:
            raise ValueError(f"`x` must not be negative, got {x!r}.")
        return math.sqrt(x)

    def maximum(self, x: Any, y: Any) -> Any:
        return max(x, y)

    def spectral(self, A: Any) -> float:
        """The largest singular value, LAPACK's; 0 of an empty matrix."""
        return float(np.linalg.norm(A, 2)) if A.size else 0.0

    def array(self, x: Any) -> Any:
        """As an array of float64."""
        return np.asarray(np.asarray(x, dtype=object), dtype=np.float64)

    def relu(self, A: Any) -> Any:
        return np.maximum(A, 0.0)

    def squares(self, A: Any) -> float:
        flat = np.ravel(A)
        return float(flat @ flat)


@dataclass(frozen=True)
class Ball(Arithmetic):
    """Real numbers enclosed in intervals, `flint.arb`: every result contains the exact one.

    Parameters
    ----------
    bits : int
        Precision of the midpoints.

    Notes
    -----
    The precision of python-flint is the thread's; `number` and `array` set it to `bits`, so all that is
    computed from numbers just converted has it. A wrong precision would widen the balls, never make them
    wrong.

    Examples
    --------
    >>> balls = ball()
    >>> two = balls.sqrt(balls.number(2)) * balls.sqrt(balls.number(2))
    >>> two.contains(2), two == 2, proved_at_most(two, balls.number(2)), proved_at_most(two, balls.number(3))
    (True, False, None, True)
    """

    bits: int = BITS

    def number(self, x: Any) -> Any:
        import flint

        flint.ctx.prec = self.bits
        if isinstance(x, Fraction):
            return flint.arb(flint.fmpq(x.numerator, x.denominator))
        return flint.arb(int(x) if isinstance(x, bool | np.bool_ | np.integer) else x)

    def sqrt(self, x: Any) -> Any:
        """The square root of a number that is not negative, whatever its ball says.

        A ball around 0 may hold negative numbers only because of rounding; its root is the ball from 0 to
        the root of its upper end.

        Raises
        ------
        ValueError
            If all of the ball is negative.
        """
        if x < 0:
            raise ValueError(f"`x` must not be negative, got {x}.")
        if x >= 0:
            return x.sqrt()
        return self.number(0).union(x.upper().sqrt())

    def maximum(self, x: Any, y: Any) -> Any:
        return x.max(y)

    def squares(self, A: Any) -> Any:
        # The square of a ball around 0 as a product of two balls would reach below 0, and its power is NaN.
        ends = ((v.abs_lower(), v.abs_upper()) for v in A.ravel())
        return sum(((low * low).union(high * high) for low, high in ends), self.number(0))

    def spectral(self, A: Any) -> Any:
        r"""An interval that contains the largest singular value.

        Notes
        -----
        *Lower end.* For any vector :math:`v \ne 0`, :math:`\|A\|_2 \ge \|Av\|/\|v\|`; v is a singular vector
        computed in float64, whose error does not matter, and the quotient is evaluated in balls.

        *Upper end.* If elimination without pivoting on :math:`cI - A^\top A`, in balls, meets only positive
        pivots, then every matrix in the balls is :math:`LDL^\top` with D > 0, hence positive definite, and
        :math:`\|A\|_2^2 < c`. The c tried are :math:`(1 + \delta)` times the square of the lower end, δ from
        2 to the minus ``bits - 16`` upwards. If none succeeds the upper end is the Frobenius norm, or 2 times
        the lower end, whichever was proved.

        Examples
        --------
        The norm of ((1, 1), (0, 1)) is the golden ratio:

        >>> norm = ball().spectral(ball().array([[1, 1], [0, 1]]))
        >>> (norm * norm - norm).overlaps(ball().number(1)), float(norm.rad()) < 1e-25
        (True, True)
        """
        upper = self.frobenius(A)
        if A.shape[0] < A.shape[1]:
            A = A.T
        if min(A.shape) <= 1 or not upper > 0:
            return upper
        v = np.linalg.svd(np.array([[float(x) for x in row] for row in A]))[2][0]
        v = self.array(v)
        lower = self.sqrt(self.squares(A @ v) / self.squares(v)).lower()
        gram = A.T @ A
        for shift in range(self.bits - 16, -1, -16):
            c = lower * lower * (1 + self.number(2) ** -shift)
            if c >= upper * upper:
                break
            if _positive_definite(c * np.eye(len(gram), dtype=int) - gram):
                upper = self.sqrt(c)
                break
        return lower.union(upper.upper())


def _positive_definite(S: Any) -> bool:
    """Whether elimination proves every symmetric matrix in the balls of `S` positive definite."""
    S = S.copy()
    for k in range(len(S)):
        if not S[k, k] > 0:
            return False
        S[k + 1 :, k + 1 :] -= np.outer(S[k + 1 :, k], S[k, k + 1 :]) / S[k, k]
    return True


EXACT = Exact()
"""Rational arithmetic."""

FLOAT = Floats()
"""Float64 arithmetic."""


def ball(bits: int = BITS) -> Ball:
    """Ball arithmetic.

    Parameters
    ----------
    bits : int, optional
        Precision of the midpoints.

    Returns
    -------
    Ball

    Raises
    ------
    ImportError
        If python-flint is not installed.

    Examples
    --------
    >>> third = ball(64).number(Fraction(1, 3))
    >>> (3 * third).contains(1)
    True
    """
    if not has_flint():
        raise ImportError("certified arithmetic needs python-flint: pip install 'refldnq[verify]'.")
    return Ball(bits)


def has_flint() -> bool:
    """Whether python-flint, and with it certified arithmetic, is installed."""
    try:
        import flint  # noqa: F401
    except ImportError:
        return False
    return True


def proved_at_most(x: Any, y: Any) -> bool | None:
    """Whether x <= y, for two numbers of one system.

    Parameters
    ----------
    x, y : Fraction, flint.arb or float
        The numbers. Of floats the answer is about the floats: it proves nothing about what they stand for.

    Returns
    -------
    bool or None
        None where balls overlap, or a number is NaN: nothing is known.

    Examples
    --------
    >>> proved_at_most(Fraction(1, 3), Fraction(1, 2)), proved_at_most(2, 1)
    (True, False)
    >>> print(proved_at_most(float("nan"), 1.0))
    None
    """
    if x <= y:
        return True
    return False if x > y else None
