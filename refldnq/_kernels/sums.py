"""The sum of a row, in float64 whatever its type.

Reassociation is allowed: it lets the compiler use vector registers and fixes the order at compile time.
"""

from __future__ import annotations

import numpy as np
from numba import njit, uint64


@njit(nogil=True, fastmath={"reassoc"})
def row_sum(row):  # type: ignore[no-untyped-def]
    """The sum of the entries of `row` (s,)."""
    total = 0.0
    for p in range(uint64(row.shape[0])):
        total += np.float64(row[p])
    return total
