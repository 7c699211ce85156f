"""Rounding a column entry by entry, each entry corrected for the errors of those before it.

Shapes: A, U (g, d, d); W (g·m, d), a column of a packed weight a row, group after group; codes the same,
int8; alpha (g·m,), a scale a column; values (k,). A kernel treats the columns start..stop.
"""

from __future__ import annotations

import numpy as np
from numba import njit, uint64

from refldnq._kernels.coordinate import axpy, nearest


@njit(nogil=True, fastmath={"reassoc"})
def _dot(a, b):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(uint64(a.shape[0])):
        total += a[i] * b[i]
    return total


@njit(nogil=True, fastmath=False)
def pull(A, W, codes, alpha, values, start, stop):  # type: ignore[no-untyped-def]
    """Entry i is rounded from w_i + Σ_{j<i} A_ij (w_j - g_j)."""
    m, d = W.shape[0] // A.shape[0], W.shape[1]
    error = np.empty(d)
    for column in range(start, stop):
        block, levels = A[column // m], alpha[column] * values
        for i in range(d):
            t = W[column, i] + _dot(block[i, :i], error[:i])
            codes[column, i] = nearest(levels, t, codes[column, i])
            error[i] = W[column, i] - levels[codes[column, i]]


@njit(nogil=True, fastmath=False)
def push(U, W, codes, alpha, values, start, stop):  # type: ignore[no-untyped-def]
    """Entry i is rounded as it stands; its error times row i of U over U_ii is taken from the later ones."""
    m, d = W.shape[0] // U.shape[0], W.shape[1]
    moving = np.empty(d)
    for column in range(start, stop):
        block, levels = U[column // m], alpha[column] * values
        moving[:] = W[column]
        for i in range(d):
            codes[column, i] = nearest(levels, moving[i], codes[column, i])
            error = (moving[i] - levels[codes[column, i]]) / block[i, i]
            axpy(-error, block[i, i + 1 :], moving[i + 1 :])
