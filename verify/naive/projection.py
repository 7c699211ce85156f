"""The projection (16)-(17) by its definition: loops over plain numbers, floats or fractions alike."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

Number = Any
"""A float, an int or a Fraction; every function returns what arithmetic on its arguments gives."""


def nearest(v: Number, alpha: Number, values: Sequence[Number], ties: str = "smaller") -> int:
    """Index of the value c for which alpha c is nearest to v.

    Parameters
    ----------
    v, alpha : number
        What is rounded, and the scale.
    values : sequence of number
        The set, ascending.
    ties : {'smaller', 'larger', 'zero'}
        Between two equally near values: the one of smaller or larger magnitude, of equal magnitudes the
        positive; or, for two non-zero values, 0.

    Returns
    -------
    int
        The code.

    Examples
    --------
    >>> [nearest(1.5, 1.0, [-2, -1, 0, 1, 2], ties) for ties in ("smaller", "larger", "zero")]
    [3, 4, 2]
    """
    distances = [abs(v - alpha * c) for c in values]
    least = min(distances)
    tied = [k for k, distance in enumerate(distances) if distance == least]
    if ties == "zero" and len(tied) > 1 and all(values[k] != 0 for k in tied):
        return list(values).index(0)
    sign = -1 if ties == "larger" else 1
    return min(tied, key=lambda k: (sign * abs(values[k]), -values[k]))


def best_scale(V: Sequence[Number], Q: Sequence[Number], weights: Sequence[Number] | None = None) -> Number:
    """The scale of (17) for given Q, at least 0; 0 where Q is 0.

    Examples
    --------
    >>> best_scale([3.0, -1.0], [1, -1])
    2.0
    """
    w = [1] * len(V) if weights is None else weights
    top = sum(w_i * v * q for w_i, v, q in zip(w, V, Q, strict=True))
    bottom = sum(w_i * q * q for w_i, q in zip(w, Q, strict=True))
    return top / bottom if bottom != 0 and top > 0 else 0 * top


def residual(
    V: Sequence[Number], alpha: Number, Q: Sequence[Number], weights: Sequence[Number] | None = None
) -> Number:
    """Σ w (V - alpha Q)².

    Examples
    --------
    >>> residual([3.0, -1.0], 2.0, [1, -1])
    2.0
    """
    w = [1] * len(V) if weights is None else weights
    return sum(w_i * (v - alpha * q) ** 2 for w_i, v, q in zip(w, V, Q, strict=True))


def alternate(
    V: Sequence[Number],
    values: Sequence[Number],
    alpha: Number,
    *,
    ties: str = "smaller",
    max_passes: int = 10_000,
) -> tuple[Number, list[int], list[Number]]:
    """The paper's alternation from `alpha` to its fixed point.

    Parameters
    ----------
    V : sequence of number
        What is projected.
    values : sequence of number
        The set, ascending.
    alpha : number
        Where the scale starts.
    ties : str
        The rule of `nearest`.
    max_passes : int
        Most updates of the scale.

    Returns
    -------
    alpha : number
        The scale.
    codes : list of int
        Indices into `values`.
    scales : list of number
        All scales, the start included.

    Examples
    --------
    >>> alternate([4.0, 1.0, 1.0, 1.0], [-1, 0, 1], 1.75)
    (1.75, [2, 2, 2, 2], [1.75, 1.75])
    """
    scales = [alpha]
    while True:
        codes = [nearest(v, alpha, values, ties) for v in V]  # [LDNQ] (17), Q with α fixed
        if len(scales) > max_passes or (len(scales) > 1 and scales[-1] == scales[-2]):
            return alpha, codes, scales
        alpha = best_scale(V, [values[k] for k in codes])  # [LDNQ] (17), α with Q fixed
        scales.append(alpha)
        if alpha == 0:
            return alpha, codes, scales


def brute_force(
    V: Sequence[Number], values: Sequence[Number], weights: Sequence[Number] | None = None
) -> tuple[Number, tuple[Number, ...], Number]:
    """The global optimum of (17) by trying every Q: len(values) ** len(V) of them.

    Returns
    -------
    alpha : number
        The scale.
    Q : tuple of number
        The integers.
    residual : number
        The least cost.

    Examples
    --------
    >>> brute_force([4, 1, 1], [-1, 0, 1])
    (4.0, (1, 0, 0), 2.0)
    """
    best = None
    for Q in product(values, repeat=len(V)):
        alpha = best_scale(V, Q, weights)
        cost = residual(V, alpha, Q, weights)
        if best is None or cost < best[2]:
            best = alpha, Q, cost
    assert best is not None
    return best


def brute_force_free(V: Sequence[Number], levels: int) -> Number:
    """The least Σ (V - c)² over all sets of `levels` values, by trying every assignment.

    Examples
    --------
    >>> brute_force_free([0.0, 1.0, 5.0, 6.0], 2)
    1.0
    """
    best = None
    for codes in product(range(levels), repeat=len(V)):
        cost = 0 * V[0]
        for k in set(codes):
            members = [v for v, code in zip(V, codes, strict=True) if code == k]
            mean = sum(members) / len(members)
            cost += sum((v - mean) ** 2 for v in members)
        best = cost if best is None or cost < best else best
    return best


def point(alpha: Number, codes: Sequence[int], values: Sequence[Number]) -> np.ndarray[Any, Any]:
    """The weight alpha * values[codes].

    Examples
    --------
    >>> point(2.0, [0, 2], [-1.0, 0.0, 1.0])
    array([-2.,  2.])
    """
    return np.array([alpha * values[k] for k in codes])
