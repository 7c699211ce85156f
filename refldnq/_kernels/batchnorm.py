"""Batch normalization, one channel of an image at a time; x is (n, c, s) with s positions.

Memory is passed through in its order. The sums are taken in float64, those of an image's channel in a fixed
order and added up outside, so they depend neither on the number of threads nor, beyond rounding, on the type
of x. Reassociation is allowed in the sums alone: it lets the compiler use vector registers and fixes the
order at compile time.
"""

from __future__ import annotations

import numpy as np
from numba import njit, uint64

from refldnq._kernels.sums import row_sum


@njit(nogil=True, fastmath={"reassoc"})
def _sum_squares(row, centre):  # type: ignore[no-untyped-def]
    total = 0.0
    for p in range(uint64(row.shape[0])):
        total += (np.float64(row[p]) - centre) ** 2
    return total


@njit(nogil=True, fastmath={"reassoc"})
def _sum_products(a, row, centre):  # type: ignore[no-untyped-def]
    total = products = 0.0
    for p in range(uint64(row.shape[0])):
        value = np.float64(a[p])
        total += value
        products += value * (np.float64(row[p]) - centre)
    return total, products


@njit(nogil=True, fastmath=False)
def _scale_shift(source, factor, offset, target):  # type: ignore[no-untyped-def]
    for p in range(uint64(source.shape[0])):
        target[p] = factor * source[p] + offset


@njit(nogil=True, fastmath=False)
def moments(x, mean, scatter, start, stop):  # type: ignore[no-untyped-def]
    """Write (n, c) mean and sum of squared distances from it of every channel of images start..stop."""
    s = x.shape[2]
    for i in range(start, stop):
        for c in range(x.shape[1]):
            centre = row_sum(x[i, c]) / s
            mean[i, c] = centre
            scatter[i, c] = _sum_squares(x[i, c], centre)


@njit(nogil=True, fastmath=False)
def sums(dy, x, mean, total, products, scale, dx, start, stop):  # type: ignore[no-untyped-def]
    """Write (n, c) sums of dy and of dy (x - mean) of every channel of images start..stop, and dx = scale dy.

    An empty dx is left out; otherwise a row of dy is in the cache already when dx is made of it.
    """
    for i in range(start, stop):
        for c in range(x.shape[1]):
            total[i, c], products[i, c] = _sum_products(dy[i, c], x[i, c], mean[c])
            if dx.size:
                _scale_shift(dy[i, c], scale[c], dx.dtype.type(0), dx[i, c])


@njit(nogil=True, fastmath=False)
def scale_shift(x, scale, shift, y, start, stop):  # type: ignore[no-untyped-def]
    """Write y = scale x + shift for images start..stop."""
    for i in range(start, stop):
        for c in range(x.shape[1]):
            _scale_shift(x[i, c], scale[c], shift[c], y[i, c])


@njit(nogil=True, fastmath=False)
def combine(dy, x, scale, slope, shift, dx, start, stop):  # type: ignore[no-untyped-def]
    """Write dx = scale dy + slope x + shift for images start..stop."""
    for i in range(start, stop):
        for c in range(x.shape[1]):
            factor, tilt, offset = scale[c], slope[c], shift[c]
            above, source, target = dy[i, c], x[i, c], dx[i, c]
            for p in range(uint64(source.shape[0])):
                target[p] = factor * above[p] + tilt * source[p] + offset
