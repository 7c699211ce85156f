"""Simulated annealing of a column's codes at a given scale.

Shapes as in `refldnq._kernels.coordinate`. A column has a random stream of its own, so its result depends on
neither the number of threads nor the timing.
"""

from __future__ import annotations

import numpy as np
from numba import njit, uint64

from refldnq._kernels.coordinate import axpy


@njit(nogil=True, fastmath=False)
def _uniform(state):  # type: ignore[no-untyped-def]
    # xorshift64* (Vigna 2016), the upper 53 bits as a number in [0, 1); `state` (1,) is not 0.
    x = state[0]
    x ^= x >> np.uint64(12)
    x ^= x << np.uint64(25)
    x ^= x >> np.uint64(27)
    state[0] = x
    return ((x * np.uint64(2685821657736338717)) >> np.uint64(11)) * 2.0**-53


@njit(nogil=True, fastmath=False)
def anneal(H, HW, HQ, codes, alpha, values, temperatures, seeds, start, stop):  # type: ignore[no-untyped-def]
    """Leave in `codes` the best codes that a walk met; f is in units of the column's squared scale.

    At every temperature d moves are proposed: a random entry goes one or two codes up or down. A move that
    raises f by Δ is made with probability exp(-Δ/T).
    """
    m, d, k = codes.shape[0] // H.shape[0], codes.shape[1], values.shape[0]
    best = np.empty(d, np.int8)
    state = np.empty(1, np.uint64)
    for column in range(start, stop):
        if not alpha[column] > 0.0:
            continue
        block, target = H[column // m], HW[column] / alpha[column]
        own, image = codes[column], HQ[column]
        state[0] = seeds[column]
        best[:] = own
        now = least = 0.0
        for temperature in temperatures:
            for _ in range(d):
                i = int(_uniform(state) * d)
                old = own[i]
                step = int(_uniform(state) * 4.0)
                new = old + (step - 2 if step < 2 else step - 1)
                if not 0 <= new < k or not block[i, i] > 0.0:
                    continue
                change = values[new] - values[old]
                rise = change * (image[i] - target[i]) + 0.5 * block[i, i] * change * change
                if rise > 0.0 and not _uniform(state) < np.exp(-rise / temperature):
                    continue
                own[i] = new
                axpy(change, block[i], image)
                now += rise
                if now < least:
                    least = now
                    for j in range(uint64(d)):
                        best[j] = own[j]
        own[:] = best
