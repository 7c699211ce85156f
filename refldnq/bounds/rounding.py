"""Rounding errors of float64, a priori: what a computed bound must be raised by to be a bound."""

from __future__ import annotations

UNIT = 2.0**-53
"""Unit roundoff u of float64."""


def gamma(count: int) -> float:
    r""":math:`\gamma_m = mu/(1-mu)`: the relative error of m roundings in any order (Higham 2002, 3.1).

    Parameters
    ----------
    count : int
        Number of roundings m, below 2⁵³.

    Returns
    -------
    float

    Examples
    --------
    >>> 1.1e-15 < gamma(10) < 1.2e-15
    True
    """
    return count * UNIT / (1.0 - count * UNIT)


def raised(value: float, count: int) -> float:
    """A non-negative number, computed with `count` roundings, as an upper bound of the exact one.

    Parameters
    ----------
    value : float
        The computed number.
    count : int
        Roundings of a sum of products of non-negative numbers, which have no cancellation.

    Returns
    -------
    float

    Examples
    --------
    >>> raised(1.0, 1) > 1.0
    True
    """
    return value * (1.0 + 2.0 * gamma(count + 4))
