"""When a run stops: the rule inside the reference's ADMM, and rules as an operation of their own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from refldnq._typing import Array
from refldnq.verify.kit.knobs import Knobs


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


class StopStep(ABC):
    """The operation ``stop``, with a knob for each of its faults."""

    knobs: Knobs
    dtype: np.dtype[Any]

    @abstractmethod
    def read(self, array: Any) -> Array:
        """An input in the type of the computation."""

    def stop(self, **inputs: Any) -> dict[str, Array]:
        """How many iterations are done, and which point is kept."""
        knobs, E, alpha = self.knobs, self.read(inputs["E"]), self.read(inputs["alpha"])
        rule, most = str(inputs["rule"]), int(inputs["most"])
        done, kept = most, None
        if rule == "patience":
            done, kept = self._patient(E, inputs)
        elif rule in ("objective", "alpha"):
            done = self._settled(E, alpha, inputs)
        done += {"given": 0, "early": -1, "late": 1}[knobs.stop_count]
        done = min(max(done, 0), len(E) - 1)
        best = int(np.argmin(E if knobs.stop_best == "of all" else E[: done + 1]))
        if kept is not None and knobs.stop_best in ("given", "rounded"):
            best = min(kept, done)
        return {
            name: np.asarray(value, dtype=np.int64) for name, value in (("iterations", done), ("best", best))
        }

    def _limit(self, inputs: Mapping[str, Any], unit: Any) -> Any:
        relative = {"given": bool(inputs["relative"]), "absolute": False, "relative": True}[
            self.knobs.stop_unit
        ]
        return self.dtype.type(inputs["tolerance"]) * (abs(unit) if relative else self.dtype.type(1))

    def _patient(self, E: Array, inputs: Mapping[str, Any]) -> tuple[int, int]:
        knobs, most = self.knobs, int(inputs["most"])
        patience = int(inputs["patience"]) + (knobs.stop_patience == "one more")
        best, idle, kept, logged = 0, 0, 0, E.astype(np.float32)
        for k in range(1, most + 1):
            held = E[k - 1] if knobs.stop_against == "previous" else E[best]
            gain, limit = held - E[k], self._limit(inputs, held)
            if gain > limit or (gain == limit and knobs.stop_equals == "taken"):
                best, idle = k, idle if knobs.stop_row == "in total" else 0
            else:
                idle += 1
            if knobs.stop_best != "rounded":
                kept = best
            elif logged[kept] - logged[k] > np.float32(self._limit(inputs, logged[kept])):
                kept = k
            if idle >= patience:
                return k, kept
        return most, kept

    def _settled(self, E: Array, alpha: Array, inputs: Mapping[str, Any]) -> int:
        knobs, most = self.knobs, int(inputs["most"])
        watched = (str(inputs["rule"]) == "objective") != (knobs.stop_watches == "the other")
        first = 1 if str(inputs["rule"]) == "objective" else 2
        series = E if watched else np.concatenate([alpha[:1], alpha])
        for k in range(max(first, 1), most + 1):
            change = series[k - 1] - series[k]
            change = change if knobs.stop_change == "signed" else abs(change)
            limit = self._limit(inputs, series[k - 1])
            if change < limit or (change == limit and knobs.stop_equals == "taken"):
                return k
        return most
