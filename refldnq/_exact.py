"""Where the exact projections start: the best scale of a scaled set, the best values of a free one.

Arguments are taken to be checked; V is in float64.
"""

from __future__ import annotations

import numpy as np

from refldnq._kernels.threads import run_kernel
from refldnq._typing import Float64Array
from refldnq.codebook import Codebook


def best_scales(V: Float64Array, weights: Float64Array | None, codebook: Codebook) -> Float64Array:
    """The scale of the global optimum of (17) for every row, (r,), by the sweep over the breakpoints.

    Parameters
    ----------
    V : Array, shape (r, N)
        The rows.
    weights : Array, shape (r, N), or None
        Non-negative weights.
    codebook : Codebook
        A scaled set, symmetric or not, with 0 or without.

    Returns
    -------
    Array, shape (r,)
        The scales; 0 where G = 0 is optimal.

    Notes
    -----
    As α falls from infinity, an element of magnitude a moves from its level of least magnitude, one level at
    a time, when α passes a over the midpoint to the next. Each state is a feasible Q with cost ‖V‖² -
    (VᵀQ)²/QᵀQ, and the rounding of V at the optimal α is one of them; rounding there costs no more than the
    optimal Q. Where several
    states are equally good, up to 1e-14 of (VᵀQ)²/QᵀQ, the one of the largest α is taken.

    Examples
    --------
    >>> from refldnq.codebook import powers_of_two
    >>> best_scales(np.array([[4.0, -1.0, 1.0, 1.0]]), None, powers_of_two(3))
    array([4.])
    """
    from refldnq._kernels import projection as kernels

    # A side holds the magnitudes of the elements of one sign; a symmetric set treats both signs alike.
    ladders = [_ladder(codebook.values)]
    if codebook.symmetric:
        sides = np.abs(V)[None]
    else:
        sides = np.stack([np.maximum(V, 0.0), np.maximum(-V, 0.0)])
        ladders.append(_ladder(-codebook.values[::-1]))
    vq, qq = _at_infinity(V, sides, weights, np.array([ladder[0] for ladder in ladders]))
    np.negative(sides, out=sides)
    if weights is None:
        sides.sort(axis=2)
        sorted_weights = np.empty((0, 0, 0))
    else:
        order = np.argsort(sides, axis=2, kind="stable")
        sides = np.take_along_axis(sides, order, axis=2)
        sorted_weights = np.take_along_axis(np.broadcast_to(weights, sides.shape), order, axis=2)
    np.negative(sides, out=sides)
    side = np.repeat(np.arange(len(ladders)), [len(ladder) - 1 for ladder in ladders])
    midpoint = np.concatenate([0.5 * ladder[:-1] + 0.5 * ladder[1:] for ladder in ladders])
    step = np.concatenate([np.diff(ladder) for ladder in ladders])
    square = np.concatenate([np.diff(ladder**2) for ladder in ladders])
    scale = np.zeros(V.shape[0])
    arguments = (sides, sorted_weights, side, midpoint, step, square, vq, qq, scale)
    run_kernel(kernels.sweep, arguments, V.shape[0])
    return scale


def _ladder(values: Float64Array) -> Float64Array:
    # The levels of a positive element as the scale falls: from the one of least magnitude upwards.
    least = len(values) - 1 - int(np.argmin(np.abs(values[::-1])))
    return values[least:]


def _at_infinity(
    v: Float64Array, sides: Float64Array, weights: Float64Array | None, bottoms: Float64Array
) -> tuple[Float64Array, Float64Array]:
    # VᵀQ and QᵀQ with every element at the level of least magnitude on its side of 0.
    if not bottoms.any():
        return np.zeros(v.shape[0]), np.zeros(v.shape[0])
    w = np.ones_like(v) if weights is None else weights
    own = np.ones((1, *v.shape), dtype=bool) if len(bottoms) == 1 else np.stack([v >= 0, v < 0])
    return np.einsum("s,srn,rn->r", bottoms, sides, w), np.einsum("s,srn,rn->r", bottoms**2, own, w)


def best_partition(v: Float64Array, weights: Float64Array | None, levels: int) -> Float64Array:
    """The values of the best free set of at most `levels` values, by dynamic programming.

    Parameters
    ----------
    v : Array, shape (N,)
        What is partitioned.
    weights : Array, shape (N,), or None
        Non-negative weights.
    levels : int
        Number of values.

    Returns
    -------
    Array, shape (k,)
        The means of the clusters, ascending; k < levels if `v` has fewer distinct values.

    Notes
    -----
    Optimal clusters of numbers are intervals, and the best last interval does not move left as the range
    grows, so divide and conquer finds it in O(levels · N log N) (Wu 1991; Grønlund et al. 2017, "Fast exact
    k-means, k-medians and Bregman divergence clustering in 1D").

    Examples
    --------
    >>> best_partition(np.array([0.0, 5.0, 1.0, 6.0]), None, 2)
    array([0.5, 5.5])
    """
    from refldnq._kernels import projection as kernels

    if weights is not None:
        v, weights = v[weights > 0], weights[weights > 0]
    points, inverse = np.unique(v, return_inverse=True)
    if len(points) <= levels:
        return points if len(points) else np.zeros(1)
    mass = np.bincount(inverse, weights=weights).astype(np.float64)
    centre = float(mass @ points) / float(mass.sum())
    x = points - centre  # so that the squares do not swamp the differences
    w, wx, wxx = (np.concatenate([[0.0], np.cumsum(term)]) for term in (mass, mass * x, mass * x * x))
    ends = np.empty(levels, dtype=np.int64)
    kernels.partition(w, wx, wxx, levels, ends)
    starts = np.concatenate([[0], ends[:-1]])
    means: Float64Array = np.add.reduceat(mass * x, starts) / np.add.reduceat(mass, starts) + centre
    return means
