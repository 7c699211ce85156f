"""Means of planes; a plane is one channel of an image, a row of x (planes, s).

A kernel treats the planes start..stop, each in a fixed order. Reassociation is allowed in the sums of a block
alone: it lets the compiler use vector registers and fixes the order at compile time.
"""

from __future__ import annotations

from numba import njit, uint64

from refldnq._kernels.sums import row_sum

BLOCK = 256
"""Pixels that are added without order; blocks are added one by one, so that the error grows with 1/256 of the
number of pixels (chosen here)."""


@njit(nogil=True, fastmath=False)
def means(x, y, start, stop):  # type: ignore[no-untyped-def]
    """Write to y (planes,) the means of x (planes, s)."""
    size = x.shape[1]
    for plane in range(start, stop):
        total = 0.0
        for first in range(0, size, BLOCK):
            total += row_sum(x[plane, first : min(first + BLOCK, size)])
        y[plane] = total / size


@njit(nogil=True, fastmath=False)
def spread(dy, dx, start, stop):  # type: ignore[no-untyped-def]
    """Write dy (planes,) to every pixel of dx (planes, s)."""
    for plane in range(start, stop):
        value, target = dy[plane], dx[plane]
        for p in range(uint64(target.shape[0])):
            target[p] = value
