"""Lower bounds of (10) and its optimum in exact rational arithmetic: slow, obvious, without a rounding.

Floats are rational numbers, so what a float64 solver reports can be decided for the very arrays it was given:
whether H - D is positive semidefinite, what the weighted projection's least cost is, and, where all of Ω can
be tried, the optimum of (10) itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise, product
from typing import Any

import numpy as np

from refldnq.codebook import Codebook
from refldnq.solvers.lower_bound import LowerBound

Array = np.ndarray[Any, Any]


def fractions(array: Array) -> Array:
    """The exact values of an array of floats, as an object array of fractions.

    Examples
    --------
    >>> fractions(np.array([0.5])).tolist()
    [Fraction(1, 2)]
    """
    exact = np.empty(array.shape, dtype=object)
    for index, value in np.ndenumerate(array):
        exact[index] = value if isinstance(value, Fraction) else Fraction(float(value))
    return exact


def positive_semidefinite(A: Array) -> bool:
    """Whether a symmetric matrix of fractions is positive semidefinite, by elimination without a square root.

    Parameters
    ----------
    A : Array, shape (d, d), of Fraction
        The matrix.

    Returns
    -------
    bool
        Both answers are proofs.

    Notes
    -----
    A = LDLᵀ step by step: a negative pivot refutes, and so does a pivot of 0 whose row is not 0.

    Examples
    --------
    >>> positive_semidefinite(fractions(np.array([[1.0, 1.0], [1.0, 1.0]])))
    True
    >>> positive_semidefinite(fractions(np.array([[1.0, 1.0], [1.0, 1.0 - 1e-16]])))
    False
    """
    A = A.copy()
    for k in range(len(A)):
        if A[k, k] < 0 or (A[k, k] == 0 and any(A[k, j] != 0 for j in range(k + 1, len(A)))):
            return False
        if A[k, k] == 0:
            continue
        for i in range(k + 1, len(A)):
            share = A[i, k] / A[k, k]
            for j in range(k + 1, len(A)):
                A[i, j] -= share * A[k, j]
    return True


def scaled_cost(v: Sequence[Fraction], w: Sequence[Fraction], values: Sequence[Fraction]) -> Fraction:
    """The least Σ w (v - αq)² over α ≥ 0 and q in the set.

    Parameters
    ----------
    v, w : sequence of Fraction
        Points and their weights, not negative.
    values : sequence of Fraction
        The set, ascending.

    Returns
    -------
    Fraction
        The minimum.

    Notes
    -----
    The nearest levels of v change at α = v / midpoint only. The optimal α lies between two such scales or on
    one of them, where either neighbour's levels are nearest: all states are tried, each at its own best α.

    Examples
    --------
    >>> numbers = [Fraction(k) for k in (4, 1, 1, 1)]
    >>> scaled_cost(numbers, [Fraction(1)] * 4, [Fraction(k) for k in (-1, 0, 1)])
    Fraction(3, 1)
    """
    midpoints = [(a + b) / 2 for a, b in pairwise(values)]
    ends = {x / middle for x in v for middle in midpoints if middle != 0 and x / middle > 0}
    grid = [Fraction(0), *sorted(ends)]
    scales = [(a + b) / 2 for a, b in pairwise(grid)] + [grid[-1] + 1]
    gain = Fraction(0)
    for alpha in scales:
        q = [min(values, key=lambda c, x=x, alpha=alpha: abs(x - alpha * c)) for x in v]  # type: ignore[misc]
        top = sum((w_i * x * c for w_i, x, c in zip(w, v, q, strict=True)), Fraction(0))
        bottom = sum((w_i * c * c for w_i, c in zip(w, q, strict=True)), Fraction(0))
        if top > 0 and bottom > 0:
            gain = max(gain, top * top / bottom)
    return sum((w_i * x * x for w_i, x in zip(w, v, strict=True)), Fraction(0)) - gain


def fixed_cost(v: Sequence[Fraction], w: Sequence[Fraction], values: Sequence[Fraction]) -> Fraction:
    """The least Σ w (v - q)² over q in the set.

    Examples
    --------
    >>> fixed_cost([Fraction(3)], [Fraction(2)], [Fraction(0), Fraction(2)])
    Fraction(2, 1)
    """
    nearest = (w_i * min((x - c) ** 2 for c in values) for w_i, x in zip(w, v, strict=True))
    return sum(nearest, Fraction(0))


def free_cost(v: Sequence[Fraction], w: Sequence[Fraction], levels: int) -> Fraction:
    """The least Σ w (v - q)² over all sets of `levels` values: the best partition into intervals.

    Examples
    --------
    >>> free_cost([Fraction(k) for k in (0, 5, 1, 7)], [Fraction(1)] * 4, 2)
    Fraction(5, 2)
    """
    points = sorted(zip(v, w, strict=True))
    n = len(points)

    def cluster(first: int, last: int) -> Fraction:
        own = [point for point in points[first:last] if point[1] > 0]
        mass = sum((w_i for _, w_i in own), Fraction(0))
        if mass == 0:
            return Fraction(0)
        mean = sum((w_i * x for x, w_i in own), Fraction(0)) / mass
        return sum((w_i * (x - mean) ** 2 for x, w_i in own), Fraction(0))

    costs = {(i, j): cluster(i, j) for i in range(n) for j in range(i + 1, n + 1)}
    best = {j: costs[0, j] for j in range(1, n + 1)}
    for _ in range(levels - 1):
        best = {j: min([best[j], *(best[i] + costs[i, j] for i in range(1, j))]) for j in best}
    return best[n]


def split_bound(H: Array, W: Array, D: Array, codebook: Codebook, *, per_channel: bool = False) -> Fraction:
    """The lower bound of (10) that a diagonal D with 0 ≤ D ≤ H gives, exactly.

    Parameters
    ----------
    H : Array, shape (g, d, d)
        The Hessian's blocks.
    W : Array, shape (g, d, m)
        The weight.
    D : Array, shape (g, d)
        The diagonal.
    codebook : Codebook
        The set.
    per_channel : bool, optional
        Whether every output channel has a scale of its own.

    Returns
    -------
    Fraction
        ½ min Σ D_k ‖δ_k‖².

    Raises
    ------
    ValueError
        If an entry of D is negative or H - D is not positive semidefinite: the number would bound nothing.

    Examples
    --------
    >>> from refldnq.codebook import powers_of_two
    >>> H, W = np.array([[[2.0, 1.0], [1.0, 2.0]]]), np.array([[[1.0], [0.5]]])
    >>> split_bound(H, W, np.ones((1, 2)), powers_of_two(3))
    Fraction(1, 16)
    >>> split_bound(H, W, np.array([[1.0, 1.0625]]), powers_of_two(3))
    Traceback (most recent call last):
        ...
    ValueError: `D` must lie between 0 and `H`, got group 0 outside.
    """
    H, W, D = fractions(H), fractions(W), fractions(D)
    for group, (block, own) in enumerate(zip(H, D, strict=True)):
        rest = block.copy()
        rest[np.diag_indices(len(own))] -= own
        if any(entry < 0 for entry in own) or not positive_semidefinite(rest):
            raise ValueError(f"`D` must lie between 0 and `H`, got group {group} outside.")
    weights = np.broadcast_to(D[:, :, None], W.shape)
    if not per_channel:
        return _cost(W.ravel(), weights.ravel(), codebook) / 2
    g, _, m = W.shape
    columns = (_cost(W[i, :, j], weights[i, :, j], codebook) for i, j in np.ndindex(g, m))
    return sum(columns, Fraction(0)) / 2


def _cost(v: Iterable[Fraction], w: Iterable[Fraction], codebook: Codebook) -> Fraction:
    if codebook.kind == "free":
        return free_cost(list(v), list(w), codebook.levels)
    values = [Fraction(c) for c in codebook.points]
    return (fixed_cost if codebook.kind == "fixed" else scaled_cost)(list(v), list(w), values)


def optimum(H: Array, W: Array, codebook: Codebook, *, per_channel: bool = False) -> Fraction:
    """The optimum of (10) by trying all of a scaled or fixed set, exactly.

    Parameters
    ----------
    H : Array, shape (g, d, d)
        The Hessian's blocks.
    W : Array, shape (g, d, m)
        The weight; `codebook.levels` ** W.size points are tried, or fewer where columns are separate.
    codebook : Codebook
        The set.
    per_channel : bool, optional
        Whether every output channel has a scale of its own.

    Returns
    -------
    Fraction
        The least f(G).

    Raises
    ------
    ValueError
        If the set is free.

    Examples
    --------
    >>> from refldnq.codebook import powers_of_two
    >>> optimum(np.diag([100.0, 1.0])[None], np.array([[[3.0], [1.0]]]), powers_of_two(3))
    Fraction(1, 2)
    """
    if codebook.kind == "free":
        raise ValueError("`codebook` must be scaled or fixed to be tried, got a free set.")
    H, W = fractions(H), fractions(W)
    columns = list(np.ndindex(W.shape[0], W.shape[2]))
    values = [Fraction(c) for c in codebook.points]
    lines = [_lines(H[i], W[i, :, j], values) for i, j in columns]
    energy = sum((_product(W[i, :, j], H[i] @ W[i, :, j]) for i, j in columns), Fraction(0)) / 2
    if codebook.kind == "fixed":
        least = (min(A / 2 - c for A, c in own) for own in lines)
        return energy + sum(least, Fraction(0))
    if per_channel:
        gains = (max(_gain(A, c) for A, c in own) for own in lines)
        return energy - sum(gains, Fraction(0))
    best = Fraction(0)
    for chosen in product(*lines):
        A, c = sum((line[0] for line in chosen), Fraction(0)), sum((line[1] for line in chosen), Fraction(0))
        best = max(best, _gain(A, c))
    return energy - best


def _lines(H: Array, w: Array, values: Sequence[Fraction]) -> set[tuple[Fraction, Fraction]]:
    """The pairs qᵀHq, qᵀHw of all q of a column."""
    found = set()
    for q in product(values, repeat=len(w)):
        Hq = H @ np.array(q, dtype=object)
        found.add((_product(Hq, np.array(q, dtype=object)), _product(Hq, w)))
    return found


def _product(a: Array, b: Array) -> Fraction:
    return sum((x * y for x, y in zip(a, b, strict=True)), Fraction(0))


def _gain(A: Fraction, c: Fraction) -> Fraction:
    """What the best α ≥ 0 takes off ½ tr WᵀHW: c²/(2A)."""
    return c * c / (2 * A) if c > 0 and A > 0 else Fraction(0)


@dataclass(frozen=True)
class Verdict:
    """What exact arithmetic says about a reported bound.

    Parameters
    ----------
    proved : bool
        Whether the reported number is at most the exact bound of its own diagonal.
    exact : Fraction
        That bound; 0 if the diagonal proves nothing.
    """

    proved: bool
    exact: Fraction


def examine(
    H: Array, W: Array, codebook: Codebook, bound: LowerBound, *, per_channel: bool = False
) -> Verdict:
    """Check a reported lower bound by its witness, without trusting how it was found.

    Parameters
    ----------
    H : Array, shape (g, d, d)
        The Hessian's blocks.
    W : Array, shape (g, d, m)
        The weight.
    codebook : Codebook
        The set.
    bound : LowerBound
        What was reported.
    per_channel : bool, optional
        Whether every output channel has a scale of its own.

    Returns
    -------
    Verdict

    Examples
    --------
    >>> from refldnq.codebook import powers_of_two
    >>> from refldnq.solvers.lower_bound import lower_bound
    >>> H, W = np.array([[[2.0, 1.0], [1.0, 2.0]]]), np.array([[[1.0], [0.4]]])
    >>> examine(H, W, powers_of_two(3), lower_bound(H, W, powers_of_two(3))).proved
    True
    """
    try:
        exact = split_bound(H, W, bound.diagonal, codebook, per_channel=per_channel)
    except ValueError:
        return Verdict(proved=bound.value <= 0, exact=Fraction(0))
    return Verdict(proved=Fraction(bound.value) <= exact, exact=exact)
