"""The alternation (17) of codes and scale, one row's scale at a time; arrays of scales and states are (r,).

The passes over the data are `refldnq._kernels.projection`'s.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, fastmath=False)
def limits(values, alpha, larger, out):  # type: ignore[no-untyped-def]
    """Write (r, k-1): a number above a limit has a code above the limit's.

    A tie, a number halfway between two levels, takes the smaller magnitude, or with `larger` the larger one.
    """
    for j in range(values.shape[0] - 1):
        midpoint = 0.5 * values[j] + 0.5 * values[j + 1]
        up = midpoint >= 0.0 if larger else midpoint <= 0.0
        for row in range(alpha.shape[0]):
            limit = alpha[row] * midpoint
            # Codes go up where v > limit: a tie that goes up needs the next smaller limit.
            out[row, j] = np.nextafter(limit, -np.inf) if up else limit


@njit(nogil=True, fastmath=False)
def _scale(sums):  # type: ignore[no-untyped-def]
    # [LDNQ] (17), α = VᵀQ/QᵀQ; a scale is not negative
    return max(sums[0], 0.0) / sums[1] if sums[1] > 0.0 else 0.0


@njit(nogil=True, fastmath=False)
def falls_to_zero(sums, active, may_restart):  # type: ignore[no-untyped-def]
    """Whether a row that may start anew has to, from the sums Σ w v q, Σ w q², Σ w (v - αq)² of its codes."""
    for row in range(active.shape[0]):
        if active[row] and may_restart[row] and _scale(sums[row]) == 0.0:
            return True
    return False


@njit(nogil=True, fastmath=False)
def advance(  # type: ignore[no-untyped-def]
    sums, default, rules, alpha, residual, last, direction, passes, active, converged, may_restart, moved
):
    """Take every active row's next scale and decide whether the row is done.

    `rules` are the most passes, the tolerance, whether 0 is a level, and whether the residual of every pass
    counts. `default` holds the scales to start anew from, where a row may. `moved` says whose residual must
    be computed anew, with the codes as they are.
    """
    most, tolerance, has_zero, every = rules
    for row in range(active.shape[0]):
        moved[row] = False
        if not active[row]:
            continue
        new, rounded = _scale(sums[row]), sums[row, 2]
        again = new == 0.0 and may_restart[row] and default[row] != alpha[row]
        if again:
            new, may_restart[row] = default[row], False
        step = new - alpha[row]
        if step != 0.0:
            passes[row] += 1
        # With 0 in the set the exact sequence of α is monotone, without 0 the residual falls: else it is
        # rounding.
        stalled = step * direction[row] < 0.0 if has_zero else rounded >= last[row]
        fixed = step == 0.0
        settled = not again and (fixed or stalled or new == 0.0 or abs(step) < tolerance)
        done = settled or passes[row] >= most
        if fixed:
            residual[row] = rounded
        alpha[row] = new
        moved[row] = not fixed and (done or every)
        direction[row] = 0.0 if again else np.sign(step)
        last[row] = np.inf if again else rounded
        converged[row] |= settled
        active[row] = not done
