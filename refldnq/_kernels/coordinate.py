"""Moves of single codes in the quadratic form (10).

Shapes: H (g, d, d); W, G, HQ, HW (g·m, d), a column of a packed weight a row, group after group; codes the
same, int8; alpha (g·m,), a scale a column; values (k,), ascending. A kernel treats the columns start..stop.
"""

from __future__ import annotations

from numba import njit, uint64


@njit(nogil=True, fastmath=False)
def nearest(levels, t, current):  # type: ignore[no-untyped-def]
    """The code of the level nearest to t; `current` if none is strictly nearer."""
    best, least = current, abs(levels[current] - t)
    for k in range(levels.shape[0]):
        distance = abs(levels[k] - t)
        if distance < least:
            best, least = k, distance
    return best


@njit(nogil=True, fastmath=False)
def axpy(factor, row, target):  # type: ignore[no-untyped-def]
    """Add factor times `row` to `target`."""
    for i in range(uint64(target.shape[0])):
        target[i] += factor * row[i]


@njit(nogil=True, fastmath=False)
def sweep(H, HW, HQ, codes, alpha, values, order, changes, start, stop):  # type: ignore[no-untyped-def]
    """Give every entry, in `order` (g, d), its best code while all others stand; keep HQ up to date.

    The number of changed codes of every column is written to `changes` (g·m,). An entry that H does not see
    keeps its code.
    """
    m = codes.shape[0] // H.shape[0]
    for column in range(start, stop):
        block = H[column // m]
        scale = alpha[column]
        changes[column] = 0
        if not scale > 0.0:
            continue
        for i in order[column // m]:
            h = block[i, i]
            if not h > 0.0:
                continue
            old = codes[column, i]
            # [LDNQ] (10): the minimum in this entry alone, in units of the scale
            t = values[old] - (HQ[column, i] - HW[column, i] / scale) / h
            new = nearest(values, t, old)
            if new != old:
                codes[column, i] = new
                axpy(values[new] - values[old], block[i], HQ[column])
                changes[column] += 1
