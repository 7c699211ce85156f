"""The best codes of blocks of entries at once, by enumeration.

Shapes as in `refldnq._kernels.coordinate`; members (n, b) are the entries of n blocks; factors (g, n, b, b),
upper triangular, with RᵀR the blocks of H, and a ridge, in units (g, n).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from refldnq._kernels.coordinate import axpy
from refldnq._kernels.sphere import search, workspace


@njit(nogil=True, fastmath=False)
def _solve(R, g, y):  # type: ignore[no-untyped-def]
    # RᵀR y = g for y
    n = R.shape[0]
    for i in range(n):
        rest = g[i]
        for j in range(i):
            rest -= R[j, i] * y[j]
        y[i] = rest / R[i, i]
    for i in range(n - 1, -1, -1):
        rest = y[i]
        for j in range(i + 1, n):
            rest -= R[i, j] * y[j]
        y[i] = rest / R[i, i]


@njit(nogil=True, fastmath=False)
def sweep(H, HW, HQ, codes, alpha, values, members, factors, units, budget, start, stop):  # type: ignore[no-untyped-def]
    """Give every block of entries its best codes while all others stand; keep HQ up to date.

    A search ends after `budget` nodes with the best codes that it has met. An entry that occurs in a block
    twice is not allowed.
    """
    m = codes.shape[0] // H.shape[0]
    n, b = members.shape
    work = workspace(b, values.shape[0])
    gradient, away, middle = np.empty(b), np.empty(b), np.empty(b)
    found = np.empty(b, np.int8)
    for column in range(start, stop):
        scale = alpha[column]
        if not scale > 0.0:
            continue
        block, own, image, target = H[column // m], codes[column], HQ[column], HW[column]
        for k in range(n):
            entries, R, unit = members[k], factors[column // m, k], units[column // m, k]
            for i in range(b):  # [LDNQ] (10): its gradient in units of the scale
                gradient[i] = (image[entries[i]] - target[entries[i]] / scale) / unit
            _solve(R, gradient, away)
            distance = 0.0
            for i in range(b):
                distance += gradient[i] * away[i]
                found[i] = own[entries[i]]
                middle[i] = values[found[i]] - away[i]
            search(R, values, 1.0, middle, budget, distance, found, work)
            for i in range(b):
                old, new = own[entries[i]], found[i]
                if new != old:
                    own[entries[i]] = new
                    axpy(values[new] - values[old], block[entries[i]], image)
