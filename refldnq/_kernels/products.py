"""Products with a symmetric matrix that are kept up to date while few entries of the other factor change."""

from __future__ import annotations

from numba import njit, uint64

from refldnq._kernels.coordinate import axpy


@njit(nogil=True, fastmath=False)
def count_changes(before, after):  # type: ignore[no-untyped-def]
    """The number of entries of two flat arrays that differ."""
    total = 0
    for i in range(uint64(before.shape[0])):
        total += before[i] != after[i]
    return total


@njit(nogil=True, fastmath={"reassoc"})
def _inner(g, w, hq, hw, scale):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(uint64(g.shape[0])):
        total += (g[i] - w[i]) * (scale * hq[i] - hw[i])
    return total


@njit(nogil=True, fastmath=False)
def errors(G, W, alpha, HQ, HW, sums, start, stop):  # type: ignore[no-untyped-def]
    """Write <G - W, alpha HQ - HW> of rows start..stop; all (r, d), `alpha` one scale or one a row."""
    for row in range(start, stop):
        scale = alpha[row if alpha.shape[0] > 1 else 0]
        sums[row] = _inner(G[row], W[row], HQ[row], HW[row], scale)


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
