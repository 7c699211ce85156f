"""When ADMM stops: the rule inside the reference's iterations."""

from __future__ import annotations

import numpy as np

from refldnq._typing import Array


class Stopping:
    """Follows a run of ADMM: when it ends, and which G is the best.

    Parameters
    ----------
    rule : {'none', 'fixed_point', 'ascend3'}
        The convention `stop`.
    W : Array
        The weight.
    start : float
        The objective of G⁰.

    Attributes
    ----------
    best : int
        The index of the best G so far.

    Examples
    --------
    >>> run = Stopping("ascend3", np.ones(2), 1.0)
    >>> [run.after(value, np.ones(2), np.ones(2)) for value in (0.9, 0.9, 0.9, 0.9)], run.best
    ([False, False, False, True], 1)
    """

    def __init__(self, rule: str, W: Array, start: float) -> None:
        self.rule, self.size = rule, float(np.linalg.norm(W))
        self.best, self.least, self.idle, self.count = 0, start, 0, 0

    def after(self, value: float, rest: Array, change: Array) -> bool:
        """Take the next objective, Θ - G and the change of G; whether this iteration is the last."""
        self.count, self.idle = self.count + 1, self.idle + 1
        if 2 * (self.least - value) > (1e-3 if self.rule == "ascend3" else 0.0):
            self.best, self.least, self.idle = self.count, value, 0
        if self.rule == "fixed_point":
            return max(float(np.linalg.norm(rest)), float(np.linalg.norm(change))) <= 1e-9 * self.size
        return self.rule == "ascend3" and self.idle >= 3
