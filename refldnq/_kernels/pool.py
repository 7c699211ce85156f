"""Pooling, one plane (a channel of an image) at a time: x (planes, h, w), y (planes, ho, wo).

A kernel treats the planes start..stop; `geometry` is (kh, kw, sh, sw, top, left). Windows are cut to the
image: what lies in the padding neither wins a maximum nor adds to a sum. Every window must hold a pixel.

Maxima of a row of windows are found tap by tap: one tap meets all windows of the row in a loop without
branches. It is inlined for the strides 1 and 2 as constants, since the compiler makes vector instructions of
those alone (measured: three times as fast as window by window); indices are unsigned for the same reason.
Sums gain nothing from that order and are taken window by window.
"""

from __future__ import annotations

from numba import int32, njit, uint64


@njit(nogil=True, fastmath=False)
def _inside(shift, stride, size, count):  # type: ignore[no-untyped-def]
    # Positions lo..hi of 0..count for which 0 <= position * stride + shift < size.
    lo = 0 if shift >= 0 else min(count, (-shift + stride - 1) // stride)
    hi = 0 if size - 1 - shift < 0 else min(count, (size - 1 - shift) // stride + 1)
    return lo, max(lo, hi)


@njit(nogil=True, fastmath=False, inline="always")
def _win(source, step, index, best, place):  # type: ignore[no-untyped-def]
    for q in range(uint64(best.shape[0])):
        value, old = source[q * uint64(step)], best[q]
        wins = (value > old) | ((value != value) & (old == old))
        best[q] = value if wins else old
        place[q] = int32(index) + int32(q) * int32(step) if wins else place[q]


@njit(nogil=True, fastmath=False)
def maximum(x, y, where, geometry, start, stop):  # type: ignore[no-untyped-def]
    """Write the windows' maxima and the flat index of the first pixel that attains each; NaN is above all."""
    kh, kw, sh, sw, top, left = geometry
    h, w = x.shape[1], x.shape[2]
    ho, wo = y.shape[1], y.shape[2]
    for k in range(start, stop):
        for p in range(ho):
            above = max(p * sh - top, 0)
            for q in range(wo):
                j = max(q * sw - left, 0)
                y[k, p, q] = x[k, above, j]
                where[k, p, q] = above * w + j
            for i in range(above, min(p * sh - top + kh, h)):
                for j in range(kw):
                    lo, hi = _inside(j - left, sw, w, wo)
                    first = lo * sw + j - left
                    source, best, place = x[k, i, first:], y[k, p, lo:hi], where[k, p, lo:hi]
                    if sw == 1:
                        _win(source, 1, i * w + first, best, place)
                    elif sw == 2:
                        _win(source, 2, i * w + first, best, place)
                    else:
                        _win(source, sw, i * w + first, best, place)


@njit(nogil=True, fastmath=False)
def take(x, where, y, start, stop):  # type: ignore[no-untyped-def]
    """Write y[k, p] = x[k, where[k, p]]; planes are flat."""
    for k in range(start, stop):
        for p in range(where.shape[1]):
            y[k, p] = x[k, where[k, p]]


@njit(nogil=True, fastmath=False)
def put(dy, where, dx, start, stop):  # type: ignore[no-untyped-def]
    """Add dy[k, p] to dx[k, where[k, p]], the adjoint of `take`; planes are flat."""
    for k in range(start, stop):
        for p in range(where.shape[1]):
            dx[k, where[k, p]] += dy[k, p]


@njit(nogil=True, fastmath=False)
def _cut(position, kernel, stride, before, size):  # type: ignore[no-untyped-def]
    # The pixels first..stop of a window along one axis; unsigned, so that indexing tests for no negatives.
    first = position * stride - before
    return uint64(max(first, 0)), uint64(min(first + kernel, size))


@njit(nogil=True, fastmath=False)
def average(x, y, rows, cols, geometry, start, stop):  # type: ignore[no-untyped-def]
    """Write the windows' sums divided by rows[p] cols[q]."""
    kh, kw, sh, sw, top, left = geometry
    h, w = x.shape[1], x.shape[2]
    zero = x.dtype.type(0)
    for k in range(start, stop):
        plane = x[k]
        for p in range(y.shape[1]):
            i0, i1 = _cut(p, kh, sh, top, h)
            for q in range(y.shape[2]):
                j0, j1 = _cut(q, kw, sw, left, w)
                total = zero
                for i in range(i0, i1):
                    for j in range(j0, j1):
                        total += plane[i, j]
                y[k, p, q] = total / (rows[p] * cols[q])


@njit(nogil=True, fastmath=False)
def spread(dy, dx, rows, cols, geometry, start, stop):  # type: ignore[no-untyped-def]
    """Add dy / (rows[p] cols[q]) to every pixel of each window, the adjoint of `average`."""
    kh, kw, sh, sw, top, left = geometry
    h, w = dx.shape[1], dx.shape[2]
    for k in range(start, stop):
        plane = dx[k]
        for p in range(dy.shape[1]):
            i0, i1 = _cut(p, kh, sh, top, h)
            for q in range(dy.shape[2]):
                j0, j1 = _cut(q, kw, sw, left, w)
                share = dy[k, p, q] / (rows[p] * cols[q])
                for i in range(i0, i1):
                    for j in range(j0, j1):
                        plane[i, j] += share
