"""Rank correlation with an interval (Fig. 2c)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from refldnq._checks import check_finite, check_integer, check_number, check_shape
from refldnq._typing import Array, Float64Array


@dataclass(frozen=True, kw_only=True, slots=True)
class RankCorrelation:
    """Spearman's coefficient of some points.

    Parameters
    ----------
    value : float
        The coefficient; NaN if one of the two is the same everywhere.
    low, high : float
        Percentile bootstrap interval over the points; NaN without one.
    confidence : float
        Of the interval.
    n, groups : int
        Points, and how many groups of them were drawn from.
    resamples : int
        Samples of the bootstrap that have a coefficient.
    """

    value: float
    low: float
    high: float
    confidence: float
    n: int
    groups: int
    resamples: int


def rank_correlation(
    x: Sequence[float],
    y: Sequence[float],
    rng: np.random.Generator,
    *,
    groups: Sequence[int] | None = None,
    resamples: int = 4000,
    confidence: float = 0.95,
) -> RankCorrelation:
    """Spearman's rank correlation of two series, and its bootstrap interval.

    Parameters
    ----------
    x, y : sequence of float, length n
        The points' coordinates.
    rng : numpy.random.Generator
        Draws groups of points with repetition.
    groups : sequence of int, length n, optional
        Number of each point's group, whose points are drawn together: runs that differ in their seeds are no
        independent draws. None makes a group of every point.
    resamples : int, optional
        How often; chosen here. How far the interval's ends move between two generators depends on the
        points, most where they are few: two generators tell.
    confidence : float, optional
        Share of the resampled coefficients inside the interval.

    Returns
    -------
    RankCorrelation

    Raises
    ------
    ValueError
        If lengths differ, there are fewer than two points, or a number is not finite or not in range.

    Notes
    -----
    Equal values share the mean of their ranks. The interval takes the groups for independent draws. Of a
    single group its points are drawn.

    Examples
    --------
    >>> found = rank_correlation([1, 2, 3, 4], [1, 4, 9, 16], np.random.default_rng(0))
    >>> found.value, found.high
    (1.0, 1.0)
    """
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    check_shape("x", a, (None,))
    check_shape("y", b, a.shape)
    check_finite("x", a)
    check_finite("y", b)
    check_integer("n", a.size, at_least=2)
    check_integer("resamples", resamples, at_least=1)
    check_number("confidence", confidence, above=0)
    if confidence >= 1:
        raise ValueError(f"`confidence` must be below 1, got {confidence}.")
    own = np.arange(a.size) if groups is None else np.asarray(groups)
    check_shape("groups", own, a.shape)
    members = [np.flatnonzero(own == one) for one in np.unique(own)]
    if len(members) == 1:
        members = [np.array([place]) for place in range(a.size)]
    value = float(_spearman(a[None], b[None])[0])
    chosen = rng.integers(len(members), size=(resamples, len(members)))
    if len(members) == a.size:
        places = np.concatenate(members)[chosen]
        drawn = _spearman(a[places], b[places])
    else:
        samples = (np.concatenate([members[group] for group in row])[None] for row in chosen)
        drawn = np.concatenate([_spearman(a[places], b[places]) for places in samples])
    drawn = drawn[np.isfinite(drawn)]  # a sample of one point alone has none
    low = high = float("nan")
    if drawn.size:
        low, high = (float(one) for one in np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2]))
    return RankCorrelation(
        value=value,
        low=low,
        high=high,
        confidence=confidence,
        n=a.size,
        groups=len(members),
        resamples=int(drawn.size),
    )


def _spearman(x: Array, y: Array) -> Float64Array:
    # Of every row; NaN where a row of x or y is constant.
    a, b = (rankdata(one, axis=1) - (one.shape[1] + 1) / 2 for one in (x, y))
    size = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    found: Float64Array = np.divide((a * b).sum(axis=1), size, out=np.full(len(a), np.nan), where=size > 0)
    return np.clip(found, -1.0, 1.0)
