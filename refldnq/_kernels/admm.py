"""An iteration of ADMM (14)-(18) around the projection, rows of weights at a time.

Shapes: all weights (r, d), one output a row, r = g m, group after group.
"""

from __future__ import annotations

import ctypes

import numpy as np
from numba import njit, uint64
from numba.extending import get_cython_function_address

_potrs = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 8)(
    get_cython_function_address("scipy.linalg.cython_lapack", "dpotrs")
)
"""LAPACK's solution from a Cholesky factor, what `scipy.linalg.cho_solve` calls with the interpreter's lock:
(uplo, n, nrhs, a, lda, b, ldb, info), by reference."""


@njit(nogil=True, fastmath=False)
def cho_solve(factors, right, start, stop):  # type: ignore[no-untyped-def]
    """Solve for rows start..stop of `right`, in place; factors (g, d, d) holds L column by column."""
    groups, d = factors.shape[:2]
    m = right.shape[0] // groups
    uplo = np.full(1, ord("L"), np.uint8)
    numbers = np.array([d, 0, d, 0], np.int32)  # n, nrhs, both leading dimensions, info
    at = numbers.ctypes.data
    row = start
    while row < stop:
        group = row // m
        last = min(stop, (group + 1) * m)
        numbers[1] = last - row
        _potrs(
            uplo.ctypes.data, at, at + 4, factors[group].ctypes.data, at + 8, right[row].ctypes.data, at + 8,
            at + 12,
        )  # fmt: skip
        row = last


@njit(nogil=True, fastmath=False)
def right_side(HW, rho, G, lam, right, start, stop):  # type: ignore[no-untyped-def]
    """Write HW + rho (G - lam), the right side of (15)."""
    for row in range(start, stop):
        hw, g, own, target = HW[row], G[row], lam[row], right[row]
        for i in range(uint64(target.shape[0])):
            target[i] = hw[i] + rho * (g[i] - own[i])  # [LDNQ] (15)


@njit(nogil=True, fastmath={"reassoc"})
def _squares(a, b):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(uint64(a.shape[0])):
        total += (a[i] - b[i]) ** 2
    return total


@njit(nogil=True, fastmath=False)
def dual(V, alpha, values, codes, theta, last, G, lam, sums, start, stop):  # type: ignore[no-untyped-def]
    """Write G = alpha Q and λ = V - G (18), and every row's |Θ - G|² and |G - last G|², (r, 2).

    `alpha` holds one scale or one a row.
    """
    levels = np.empty_like(values)
    for row in range(start, stop):
        scale = alpha[row if alpha.shape[0] > 1 else 0]
        for k in range(values.shape[0]):
            levels[k] = scale * values[k]
        code, g, own, v = codes[row], G[row], lam[row], V[row]
        for i in range(uint64(g.shape[0])):
            g[i] = levels[code[i]]  # [LDNQ] (16)
        for i in range(uint64(g.shape[0])):
            own[i] = v[i] - g[i]  # [LDNQ] (18), λ + Θ - G
        sums[row, 0], sums[row, 1] = _squares(theta[row], g), _squares(g, last[row])
