"""Products with a symmetric matrix that are kept up to date while few entries of the other factor change."""

from __future__ import annotations

from numba import njit, uint64


@njit(nogil=True, fastmath=False)
def update(H, before, after, values, products):  # type: ignore[no-untyped-def]
    """Make `products` (g, m, d), the rows ``values[before] @ H``, those of the codes `after` (g, m, d)."""
    groups, m, d = before.shape
    for g in range(groups):
        for o in range(m):
            row = products[g, o]
            for i in range(d):
                if before[g, o, i] != after[g, o, i]:
                    step = values[after[g, o, i]] - values[before[g, o, i]]
                    column = H[g, i]
                    for j in range(uint64(d)):
                        row[j] += step * column[j]
