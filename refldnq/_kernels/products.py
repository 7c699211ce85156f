"""Products with a symmetric matrix that are kept up to date while few entries of the other factor change."""

from __future__ import annotations

from numba import njit

from refldnq._kernels.coordinate import axpy


@njit(nogil=True, fastmath=False)
def update(H, before, after, values, products):  # type: ignore[no-untyped-def]
    """Make `products` (g, m, d), which holds ``values[before] @ H``, that of `after`.

    H is (g, d, d); the codes are (g, m, d).
    """
    groups, m, d = before.shape
    for g in range(groups):
        for o in range(m):
            for i in range(d):
                if before[g, o, i] != after[g, o, i]:
                    axpy(values[after[g, o, i]] - values[before[g, o, i]], H[g, i], products[g, o])
