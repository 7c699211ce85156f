"""Projection onto a finite set: nearest codes and their sums, the exact sweep, the exact partition.

V is (r, N), one row for every scale; work is split into units of one row and `BLOCK` entries. A unit's sums
are its own and are added outside in the order of the units, so they depend on neither the number of threads
nor the timing. Reassociation is allowed in a unit's sums alone: it lets the compiler use vector registers.
"""

from __future__ import annotations

import numpy as np
from numba import njit, uint64

BLOCK = 4096
"""Entries of a unit (chosen here: a unit's values and codes stay in the first-level cache)."""


@njit(nogil=True, fastmath=False)
def _round(v, limits, codes):  # type: ignore[no-untyped-def]
    # codes = number of limits that v exceeds: a comparison a level, each loop a vector loop.
    for i in range(uint64(v.shape[0])):
        codes[i] = 0
    for j in range(limits.shape[0]):
        limit = limits[j]
        for i in range(uint64(v.shape[0])):
            codes[i] += v[i] > limit


@njit(nogil=True, fastmath=False)
def _zero_ties(v, tied, codes, zero):  # type: ignore[no-untyped-def]
    for j in range(tied.shape[0]):
        limit = tied[j]
        for i in range(uint64(v.shape[0])):
            if v[i] == limit:
                codes[i] = zero


@njit(nogil=True, fastmath={"reassoc"})
def _sums(v, q, scale):  # type: ignore[no-untyped-def]
    vq = qq = rr = 0.0
    for i in range(uint64(v.shape[0])):
        difference = v[i] - scale * q[i]
        vq += v[i] * q[i]
        qq += q[i] * q[i]
        rr += difference * difference
    return vq, qq, rr


@njit(nogil=True, fastmath={"reassoc"})
def _weighted_sums(v, w, q, scale):  # type: ignore[no-untyped-def]
    vq = qq = rr = 0.0
    for i in range(uint64(v.shape[0])):
        difference = v[i] - scale * q[i]
        vq += w[i] * v[i] * q[i]
        qq += w[i] * q[i] * q[i]
        rr += w[i] * difference * difference
    return vq, qq, rr


@njit(nogil=True, fastmath=False)
def _take(values, codes, q):  # type: ignore[no-untyped-def]
    for i in range(uint64(codes.shape[0])):
        q[i] = values[codes[i]]


@njit(nogil=True, fastmath=False)
def nearest(v, w, scale, limits, tied, zero, values, codes, active, rounding, sums, start, stop):  # type: ignore[no-untyped-def]
    """Write the codes of units start..stop and their sums Σ w v q, Σ w q², Σ w (v - scale q)².

    Shapes: v, codes (r, N); w the same or empty; scale, active (r,); limits (r, k-1), in ascending order, and
    tied (r, any), whose values get the code `zero`; values (k,); sums (r, units a row, 3). Rows that are not
    active stay as they are. Without `rounding` the codes are taken as they are and only the sums are written.
    """
    units = sums.shape[1]
    size = v.shape[1]
    buffer = np.empty(min(BLOCK, size))
    for unit in range(start, stop):
        row, first = unit // units, unit % units * BLOCK
        if not active[row]:
            continue
        last = min(first + BLOCK, size)
        part, code, q = v[row, first:last], codes[row, first:last], buffer[: last - first]
        if rounding:
            _round(part, limits[row], code)
            _zero_ties(part, tied[row], code, zero)
        _take(values, code, q)
        # Stored one by one: the general assignment of a tuple takes longer to compile than all the rest.
        if w.shape[0]:
            vq, qq, rr = _weighted_sums(part, w[row, first:last], q, scale[row])
        else:
            vq, qq, rr = _sums(part, q, scale[row])
        share = sums[row, unit % units]
        share[0], share[1], share[2] = vq, qq, rr


@njit(nogil=True, fastmath=False)
def clusters(v, w, codes, sums, start, stop):  # type: ignore[no-untyped-def]
    """Write Σ w and Σ w v of every code, (units, k, 2), for units start..stop of the one row `v`."""
    for unit in range(start, stop):
        share = sums[unit]
        share[:] = 0.0
        for i in range(unit * BLOCK, min(unit * BLOCK + BLOCK, v.shape[0])):
            weight = w[i] if w.shape[0] else 1.0
            share[codes[i], 0] += weight
            share[codes[i], 1] += weight * v[i]


@njit(nogil=True, fastmath=False)
def sweep(a, w, side, midpoint, step, square, vq, qq, scale, start, stop):  # type: ignore[no-untyped-def]
    """Write for rows start..stop the scale of the exact projection, by merging sorted breakpoints.

    `a` (sides, r, N) holds magnitudes in descending order and `w` their weights, or is empty. Stream s is one
    step between neighbouring levels: element i of side ``side[s]`` makes it once the scale has fallen to
    ``a[i] / midpoint[s]``, which adds ``w a step[s]`` to VᵀQ and ``w square[s]`` to QᵀQ. `vq` and `qq` (r,)
    are the sums at an infinite scale. Every stream is sorted already, so the breakpoints are merged, not
    sorted.
    """
    streams, size = side.shape[0], a.shape[2]
    head = np.empty(streams, np.int64)
    key = np.empty(streams)
    for row in range(start, stop):
        for s in range(streams):
            head[s] = 0
            key[s] = a[side[s], row, 0] / midpoint[s]
        top, slip, bottom = vq[row], 0.0, qq[row]
        best = top * top / bottom if top > 0.0 and bottom > 0.0 else 0.0
        scale[row] = top / bottom if best > 0.0 else 0.0
        while True:
            s = 0
            for other in range(1, streams):
                if key[other] > key[s]:
                    s = other
            if streams == 0 or not key[s] > 0.0:
                break
            i = head[s]
            weight = w[side[s], row, i] if w.shape[0] else 1.0
            # Compensated, since millions of terms are added one by one.
            term = weight * a[side[s], row, i] * step[s] - slip
            total = top + term
            slip = (total - top) - term
            top = total
            bottom += weight * square[s]
            head[s] = i + 1
            key[s] = a[side[s], row, i + 1] / midpoint[s] if i + 1 < size else 0.0
            # Distinct codes can give one G, such as ±2 at α and ±1 at 2α; rounding must not choose between
            # them.
            if top > 0.0 and top * top > best * bottom * (1.0 + 1e-14):
                best = top * top / bottom
                scale[row] = top / bottom


@njit(nogil=True, fastmath=False)
def _fill(previous, current, choice, w, wx, wxx):  # type: ignore[no-untyped-def]
    # current[e] = min over s of previous[s] + cost of one cluster of the points s..e-1. The best s does not
    # fall as e grows, so halving the range of e halves the ranges of s (divide and conquer, with its own
    # stack).
    n = w.shape[0] - 1
    stack = np.empty((2 * 64, 4), np.int64)
    stack[0] = 1, n, 0, n - 1
    depth = 1
    while depth:
        depth -= 1
        low, high, first, last = stack[depth]
        middle = (low + high) // 2
        least, where = np.inf, first
        for s in range(first, min(last, middle - 1) + 1):
            mass, moment = w[middle] - w[s], wx[middle] - wx[s]
            value = previous[s] + (wxx[middle] - wxx[s]) - moment * moment / mass
            if value < least:
                least, where = value, s
        current[middle] = least
        choice[middle] = where
        if low < middle:
            stack[depth] = low, middle - 1, first, where
            depth += 1
        if middle < high:
            stack[depth] = middle + 1, high, where, last
            depth += 1


@njit(nogil=True, fastmath=False)
def partition(w, wx, wxx, k, ends):  # type: ignore[no-untyped-def]
    """Write to `ends` (k,) where the clusters of the best partition of n >= k sorted distinct points end.

    `w`, `wx`, `wxx` (n+1,) are the running sums, from 0, of the weights, weights times points, and times
    squares.
    """
    n = w.shape[0] - 1
    choice = np.zeros((k, n + 1), np.int32)
    previous, current = np.full(n + 1, np.inf), np.empty(n + 1)
    previous[0] = 0.0
    for cluster in range(k):
        current[0] = np.inf
        _fill(previous, current, choice[cluster], w, wx, wxx)
        previous, current = current, previous
    end = n
    for cluster in range(k - 1, -1, -1):
        ends[cluster] = end
        end = choice[cluster, end]
