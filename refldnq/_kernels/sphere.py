"""The closest point of a grid in the norm of a triangular factor: Schnorr and Euchner's enumeration."""

from __future__ import annotations

import numpy as np
from numba import njit

MARGIN = 1e-12
"""A point must be nearer by this share of the squared distance to replace another one (chosen here: some
thousand roundings), so that rounding chooses between no two equally near points."""


@njit(nogil=True, fastmath=False)
def _children(R, row, values, alpha, w, x, cost, order):  # type: ignore[no-untyped-def]
    # The squared entry `row` of R(alpha q - w) for every value of q[row], ascending; x holds the rows below.
    rest = 0.0
    for j in range(row + 1, R.shape[0]):
        rest += R[row, j] * x[j]
    for t in range(values.shape[0]):
        entry = R[row, row] * (alpha * values[t] - w[row]) + rest
        square, place = entry * entry, t
        while place > 0 and cost[place - 1] > square:
            cost[place] = cost[place - 1]
            order[place] = order[place - 1]
            place -= 1
        cost[place], order[place] = square, t


@njit(nogil=True, fastmath=False)
def workspace(d, levels):  # type: ignore[no-untyped-def]
    """What a search needs: cost and order (d, levels), following (d,), spent (d + 1,), x and chosen (d,)."""
    return (
        np.empty((d, levels)),
        np.empty((d, levels), np.int64),
        np.empty(d, np.int64),
        np.zeros(d + 1),
        np.empty(d),
        np.empty(d, np.int8),
    )


@njit(nogil=True, fastmath=False)
def search(R, values, alpha, w, budget, distance, codes, work):  # type: ignore[no-untyped-def]
    """Find q in values^d with |R(alpha q - w)|² below `distance`, the least of all.

    Returns that least square, or `distance`, and the nodes visited, one more than `budget` where the search
    was given up. `codes` (d,) is overwritten if a nearer point exists.
    """
    cost, order, following, spent, x, chosen = work
    d, levels = R.shape[0], values.shape[0]
    count = 0
    row = d - 1
    following[row] = 0
    _children(R, row, values, alpha, w, x, cost[row], order[row])
    while row < d:
        t = following[row]
        following[row] = t + 1
        total = spent[row + 1] + cost[row, t] if t < levels else np.inf
        if not total < distance * (1.0 - MARGIN):  # later siblings are farther
            row += 1
            continue
        count += 1
        if count > budget:
            break
        chosen[row] = order[row, t]
        if row == 0:
            distance = total
            codes[:] = chosen
        else:
            x[row] = alpha * values[chosen[row]] - w[row]
            spent[row] = total
            row -= 1
            following[row] = 0
            _children(R, row, values, alpha, w, x, cost[row], order[row])
    return distance, count


@njit(nogil=True, fastmath=False)
def closest(R, values, alpha, w, budget, distance, codes, nodes, start, stop):  # type: ignore[no-untyped-def]
    """For columns start..stop find q in values^d with |R(alpha q - w)|² below `distance`, the least of all.

    R (d, d) is upper triangular, zeros on its diagonal allowed; w (m, d). `distance` (m,) and `codes` (m, d)
    are overwritten where a nearer point exists and stay otherwise. `nodes` (m,) takes the nodes visited,
    negative where `budget`, which is for each column, ran out: then the search is not complete.
    """
    work = workspace(R.shape[0], values.shape[0])
    for column in range(start, stop):
        least, count = search(R, values, alpha, w[column], budget, distance[column], codes[column], work)
        distance[column] = least
        nodes[column] = -count if count > budget else count
