"""Every s-th pixel between channels of zeros, and the adjoint; x is (n, c, h, w), y (n, m, ho, wo).

Channel c of x is channel ``first + c`` of y. A kernel treats the images start..stop.
"""

from __future__ import annotations

from numba import njit, uint64


@njit(nogil=True, fastmath=False)
def gather(x, y, sh, sw, first, start, stop):  # type: ignore[no-untyped-def]
    """Write y."""
    channels, (ho, wo) = x.shape[1], y.shape[2:]
    for i in range(start, stop):
        y[i, :first] = 0
        y[i, first + channels :] = 0
        for c in range(channels):
            for a in range(ho):
                source, target = x[i, c, a * sh], y[i, first + c, a]
                for b in range(uint64(wo)):
                    target[b] = source[b * uint64(sw)]


@njit(nogil=True, fastmath=False)
def scatter(y, x, sh, sw, first, start, stop):  # type: ignore[no-untyped-def]
    """Write x: the pixels that `gather` takes, 0 elsewhere."""
    channels, (ho, wo) = x.shape[1], y.shape[2:]
    for i in range(start, stop):
        x[i] = 0
        for c in range(channels):
            for a in range(ho):
                source, target = y[i, first + c, a], x[i, c, a * sh]
                for b in range(uint64(wo)):
                    target[b * uint64(sw)] = source[b]
