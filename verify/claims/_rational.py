"""Rational vectors and matrices for the claims about ADMM: drawn, solved with, shown; seeded and exact."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

Exact = Any
"""An object array of fractions; NumPy's type of such arrays is no sequence to a type checker."""


def exact(values: Any) -> Exact:
    """Nested sequences of integers, fractions, floats or strings as an array of fractions.

    Examples
    --------
    >>> exact([1, "1/2", 0.25])
    array([Fraction(1, 1), Fraction(1, 2), Fraction(1, 4)], dtype=object)
    """
    given = np.asarray(values, dtype=object)
    numbers = [Fraction(v.item() if isinstance(v, np.generic) else v) for v in given.ravel()]
    return np.array(numbers, dtype=object).reshape(given.shape)


def draw(rng: np.random.Generator, shape: int | tuple[int, ...], *, most: int = 9, parts: int = 5) -> Exact:
    """Random fractions: numerators up to `most` in magnitude, denominators up to `parts`.

    Examples
    --------
    >>> draw(np.random.default_rng(0), 2)
    array([Fraction(7, 3), Fraction(3, 2)], dtype=object)
    """
    top = rng.integers(-most, most + 1, shape)
    bottom = rng.integers(1, parts + 1, shape)
    pairs = zip(top.ravel().tolist(), bottom.ravel().tolist(), strict=True)
    return np.array([Fraction(a, b) for a, b in pairs], dtype=object).reshape(top.shape)


def identity(d: int) -> Exact:
    """The identity matrix of fractions.

    Examples
    --------
    >>> identity(2).tolist() == [[1, 0], [0, 1]]
    True
    """
    return exact(np.eye(d, dtype=int))


def solve(A: Exact, B: Exact) -> Exact:
    """The solution X of AX = B by elimination.

    Parameters
    ----------
    A : Array, shape (d, d)
        A regular matrix.
    B : Array, shape (d,) or (d, m)
        The right side.

    Returns
    -------
    Array, shape of B
        X, exactly.

    Raises
    ------
    ZeroDivisionError
        If A is singular.

    Examples
    --------
    >>> solve(exact([[2, 1], [1, 2]]), exact([3, 0]))
    array([Fraction(2, 1), Fraction(-1, 1)], dtype=object)
    """
    d = len(A)
    rows = np.concatenate([A, B.reshape(d, -1)], axis=1)
    for k in range(d):
        pivot = next((i for i in range(k, d) if rows[i, k] != 0), None)
        if pivot is None:
            raise ZeroDivisionError("`A` must be regular, got a singular matrix.")
        rows[[k, pivot]] = rows[[pivot, k]]
        rows[k] = rows[k] / rows[k, k]
        for i in range(d):
            if i != k and rows[i, k] != 0:
                rows[i] = rows[i] - rows[i, k] * rows[k]
    solution: Exact = rows[:, d:].reshape(B.shape)
    return solution


def inner(A: Exact, B: Exact) -> Any:
    """The sum of the products of entries.

    Examples
    --------
    >>> inner(exact([1, 2]), exact([3, "1/2"]))
    Fraction(4, 1)
    """
    return sum((a * b for a, b in zip(A.ravel(), B.ravel(), strict=True)), Fraction(0))


def squares(A: Exact) -> Any:
    """The sum of the squares of the entries.

    Examples
    --------
    >>> squares(exact([1, "1/2"]))
    Fraction(5, 4)
    """
    return inner(A, A)


def semidefinite(rng: np.random.Generator, d: int, rank: int | None = None) -> Exact:
    """A random matrix RᵀR of small integers, of rank at most `rank` (d if not given).

    Examples
    --------
    >>> semidefinite(np.random.default_rng(0), 2).tolist()
    [[Fraction(4, 1), Fraction(2, 1)], [Fraction(2, 1), Fraction(5, 1)]]
    """
    R = exact(rng.integers(-3, 4, (d if rank is None else rank, d)))
    product: Exact = R.T @ R
    return product


def definite(rng: np.random.Generator, d: int) -> Exact:
    """A random symmetric positive definite matrix of small integers.

    Examples
    --------
    >>> definite(np.random.default_rng(0), 2).tolist()
    [[Fraction(5, 1), Fraction(2, 1)], [Fraction(2, 1), Fraction(6, 1)]]
    """
    return semidefinite(rng, d) + identity(d)


def with_eigenvalues(rng: np.random.Generator, eigenvalues: Exact) -> Exact:
    """A random symmetric matrix of given eigenvalues, by a rational rotation (I-S)(I+S)⁻¹, S skew.

    Examples
    --------
    >>> H = with_eigenvalues(np.random.default_rng(1), exact([1, 3]))
    >>> H.trace(), H[0, 0] * H[1, 1] - H[0, 1] ** 2
    (Fraction(4, 1), Fraction(3, 1))
    """
    d = len(eigenvalues)
    S = draw(rng, (d, d), most=3, parts=2)
    S = S - S.T
    U = solve(identity(d) + S, identity(d) - S)
    matrix: Exact = (U * eigenvalues) @ U.T
    return matrix


def row_sum(H: Exact) -> Any:
    """The largest sum of magnitudes in a row: at least the largest eigenvalue, by Gershgorin.

    Examples
    --------
    >>> row_sum(exact([[2, -1], [-1, 1]]))
    Fraction(3, 1)
    """
    return abs(H).sum(axis=1).max()


def is_semidefinite(A: Exact) -> bool:
    """Whether a symmetric matrix has no negative eigenvalue, by symmetric elimination.

    Examples
    --------
    >>> is_semidefinite(exact([[1, 1], [1, 1]])), is_semidefinite(exact([[1, 2], [2, 1]]))
    (True, False)
    """
    A = A.copy()
    for k in range(len(A)):
        if A[k, k] < 0 or (A[k, k] == 0 and A[k + 1 :, k].any()):
            return False
        if A[k, k]:
            A[k + 1 :, k + 1 :] -= np.outer(A[k + 1 :, k], A[k, k + 1 :]) / A[k, k]
    return True


def minimum(function: Callable[[Any], Any], choices: Any) -> tuple[Any, Any]:
    """The least value of a function over finitely many choices, and the first choice that has it.

    Examples
    --------
    >>> minimum(lambda x: (x - 2) ** 2, [0, 1, 3])
    (1, 1)
    """
    best: tuple[Any, Any] | None = None
    for choice in choices:
        value = function(choice)
        if best is None or value < best[0]:
            best = value, choice
    if best is None:
        raise ValueError("`choices` must not be empty, got none.")
    return best
