"""Batch normalization, one channel at a time; x is (n, c, s) with s positions.

A channel's sums are taken by one thread in a fixed order and in float64, so they depend neither on the number
of threads nor, beyond rounding, on the type of x. Reassociation is allowed in the sums alone: it lets the
compiler use vector registers and fixes the order at compile time.
"""

from __future__ import annotations

import numpy as np
from numba import njit, uint64


@njit(nogil=True, fastmath={"reassoc"})
def _sum(row):  # type: ignore[no-untyped-def]
    total = 0.0
    for p in range(uint64(row.shape[0])):
        total += np.float64(row[p])
    return total


@njit(nogil=True, fastmath={"reassoc"})
def _sum_squares(row, centre):  # type: ignore[no-untyped-def]
    total = 0.0
    for p in range(uint64(row.shape[0])):
        total += (np.float64(row[p]) - centre) ** 2
    return total


@njit(nogil=True, fastmath={"reassoc"})
def _sum_products(a, row, centre):  # type: ignore[no-untyped-def]
    total = 0.0
    for p in range(uint64(row.shape[0])):
        total += np.float64(a[p]) * (np.float64(row[p]) - centre)
    return total


@njit(nogil=True, fastmath=False)
def moments(x, mean, variance, start, stop):  # type: ignore[no-untyped-def]
    """Write mean and biased variance of channels start..stop."""
    n, _, s = x.shape
    for c in range(start, stop):
        total = 0.0
        for i in range(n):
            total += _sum(x[i, c])
        centre = total / (n * s)
        total = 0.0
        for i in range(n):
            total += _sum_squares(x[i, c], centre)
        mean[c] = centre
        variance[c] = total / (n * s)


@njit(nogil=True, fastmath=False)
def sums(dy, x, mean, total, products, start, stop):  # type: ignore[no-untyped-def]
    """Write the sums of dy and of dy (x - mean) of channels start..stop."""
    n = x.shape[0]
    for c in range(start, stop):
        a = b = 0.0
        for i in range(n):
            a += _sum(dy[i, c])
            b += _sum_products(dy[i, c], x[i, c], mean[c])
        total[c] = a
        products[c] = b


@njit(nogil=True, fastmath=False)
def scale_shift(x, scale, shift, y, start, stop):  # type: ignore[no-untyped-def]
    """Write y = scale x + shift for images start..stop."""
    for i in range(start, stop):
        for c in range(x.shape[1]):
            factor, offset = scale[c], shift[c]
            source, target = x[i, c], y[i, c]
            for p in range(uint64(source.shape[0])):
                target[p] = factor * source[p] + offset


@njit(nogil=True, fastmath=False)
def combine(dy, x, scale, slope, shift, dx, start, stop):  # type: ignore[no-untyped-def]
    """Write dx = scale dy + slope x + shift for images start..stop."""
    for i in range(start, stop):
        for c in range(x.shape[1]):
            factor, tilt, offset = scale[c], slope[c], shift[c]
            above, source, target = dy[i, c], x[i, c], dx[i, c]
            for p in range(uint64(source.shape[0])):
                target[p] = factor * above[p] + tilt * source[p] + offset
