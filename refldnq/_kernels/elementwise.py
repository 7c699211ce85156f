"""Elementwise maps on flat arrays, the entries start..stop. NaN passes through every one of them."""

from __future__ import annotations

from numba import njit, uint64


@njit(nogil=True, fastmath=False)
def relu(x, y, start, stop):  # type: ignore[no-untyped-def]
    """Write y = max(x, 0)."""
    zero = x.dtype.type(0)
    for i in range(uint64(start), uint64(stop)):
        y[i] = zero if x[i] <= zero else x[i]


@njit(nogil=True, fastmath=False)
def relu_backward(y, dy, dx, start, stop):  # type: ignore[no-untyped-def]
    """Write dx = dy where y > 0, else 0."""
    zero = y.dtype.type(0)
    for i in range(uint64(start), uint64(stop)):
        dx[i] = dy[i] if y[i] > zero else zero


@njit(nogil=True, fastmath=False)
def add(a, b, y, start, stop):  # type: ignore[no-untyped-def]
    """Write y = a + b."""
    for i in range(uint64(start), uint64(stop)):
        y[i] = a[i] + b[i]
