"""With what a run can end: pairs of iterations and a kept point, where rounding leaves a decision open."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import numpy as np

FREE = 18.0
"""Distance from a threshold in units u, relative to what is compared, below which a comparison may go either
way: that of a code of a sum of one term, (2N + 16) u. Both objectives, their difference, the tolerance and
its product are rounded once each."""


def ends(inputs: Mapping[str, Any], dtype: str) -> frozenset[tuple[int, int]]:
    """All pairs (iterations, best) with which a run of ``stop`` in this type may end.

    Parameters
    ----------
    inputs : mapping
        Of the case.
    dtype : {'float64', 'float32'}
        The type of the computation.

    Returns
    -------
    frozenset of (int, int)
        One pair if every decision is clear. A decision within `FREE` of its threshold goes both ways, each
        with its own consequences, but the same way whenever the same numbers are compared; an exact tie of
        numbers that the type holds follows the rule.

    Examples
    --------
    >>> inputs = {"rule": "patience", "E": [1.0, 0.75 - 2.0**-30, 0.5, 0.5], "alpha": [1.0, 1.0, 1.0],
    ...     "most": 3, "patience": 1, "tolerance": 0.25, "relative": False}
    >>> sorted(ends(inputs, "float64")), sorted(ends(inputs, "float32"))
    ([(2, 1)], [(1, 0), (2, 1), (3, 2)])
    """
    run = _Run(inputs, dtype)
    if inputs["rule"] == "patience":
        return frozenset(run.patient())
    stopped = set(run.settled()) if inputs["rule"] in ("objective", "alpha") else {run.most}
    return frozenset((k, best) for k in stopped for best in run.least(k))


class _Run:
    def __init__(self, inputs: Mapping[str, Any], dtype: str) -> None:
        self.E = [Fraction(float(value)) for value in np.asarray(inputs["E"])]
        self.alpha = [Fraction(float(value)) for value in np.asarray(inputs["alpha"])]
        self.tolerance, self.relative = Fraction(float(inputs["tolerance"])), bool(inputs["relative"])
        self.most, self.patience = int(inputs["most"]), int(inputs["patience"])
        self.of_alpha = inputs["rule"] == "alpha"
        self.dtype = np.dtype(dtype)
        self.free = Fraction(FREE) * Fraction(float(np.finfo(dtype).eps)) / 2

    def patient(self) -> Iterator[tuple[int, int]]:
        states = {(0, 0)}  # the kept point and the iterations since
        for k in range(1, self.most + 1):
            after: set[tuple[int, int]] = set()
            for best, idle in states:
                ways = self.above(self.E[best] - self.E[k], self.E[best], self.E[k])
                if any(self.E[k] >= refused for refused in self.E[best + 1 : k]):
                    ways -= {True}  # rounding is monotone: what was no improvement is none now
                after |= {(k, 0) if better else (best, idle + 1) for better in ways or {False}}
            yield from ((k, best) for best, idle in after if idle == self.patience)
            states = {(best, idle) for best, idle in after if idle < self.patience}
        yield from ((self.most, best) for best, _ in states)

    def settled(self) -> Iterator[int]:
        series, first = (self.alpha, 2) if self.of_alpha else (self.E, 1)
        passed = set()
        for k in range(first, self.most + 1):
            old, new = series[k - first], series[k - first + 1]
            ways = {True} if (old, new) in passed else self.above(abs(new - old), old, new, tie=True)
            passed.add((old, new))  # equal numbers compare equally
            if False in ways:
                yield k
            if True not in ways:
                return
        yield self.most

    def above(self, change: Fraction, old: Fraction, new: Fraction, *, tie: bool = False) -> set[bool]:
        """Whether the change exceeds the tolerance; `tie` is what equality counts as."""
        limit = self.tolerance * (abs(old) if self.relative else 1)
        if change == limit and all(map(self.holds, (old, new, self.tolerance, limit, change))):
            return {tie}
        if abs(change - limit) <= self.free * (abs(old) + abs(new) + limit):
            return {False, True}
        return {change > limit}

    def holds(self, number: Fraction) -> bool:
        return Fraction(float(self.dtype.type(float(number)))) == number

    def least(self, k: int) -> set[int]:
        """The first of the least objectives, as they are and as the type holds them."""
        done = np.array([float(value) for value in self.E[: k + 1]])
        return {int(np.argmin(done)), int(np.argmin(done.astype(self.dtype)))}
