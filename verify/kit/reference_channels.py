"""The reference with one scale for each output channel, with a knob for each way to get that wrong."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from refldnq._typing import Array
from refldnq.verify.kit.knobs import Knobs

Answers = dict[str, Array]


class ChannelSteps(ABC):
    """The operations ``project_channels``, ``admm_channels`` and ``solve_channels``."""

    knobs: Knobs
    dtype: np.dtype[Any]

    @abstractmethod
    def read(self, array: Any) -> Array:
        """An input in the type of the computation."""

    @abstractmethod
    def project(self, **inputs: Any) -> Answers:
        """A projection with one scale."""

    @abstractmethod
    def admm(self, **inputs: Any) -> Answers:
        """ADMM with one scale."""

    @abstractmethod
    def solve(self, **inputs: Any) -> Answers:
        """A solver with one scale."""

    def project_channels(self, **inputs: Any) -> Answers:
        """Codes, one scale a column, and G."""
        knobs, V = self.knobs, self.read(inputs["V"])
        starts = np.broadcast_to(np.asarray(inputs["alpha0"], dtype=np.float64), V.shape[1:])
        if knobs.channels == "one scale":
            found = self.project(**{**inputs, "V": V.ravel(), "alpha0": float(starts[0])})
            whole = {name: np.asarray(found[name]).reshape(V.shape) for name in ("Q", "G")}
            return {**whole, "alpha": np.full(V.shape[1], found["alpha"])}
        rows = knobs.channels == "rows" and V.shape[0] == V.shape[1]
        columns: list[Answers] = []
        for o, v in enumerate(V if rows else V.T):
            carried = o > 0 and knobs.channels_start == "of the last column"
            start = float(columns[-1]["alpha"]) if carried else float(starts[o])
            columns.append(self.project(**{**inputs, "V": v, "alpha0": start}))
        axis = 0 if rows else 1
        found = {name: np.stack([one[name] for one in columns], axis=axis) for name in ("Q", "G")}
        return {**found, "alpha": np.array([one["alpha"] for one in columns], dtype=self.dtype)}

    def admm_channels(self, **inputs: Any) -> Answers:
        """The trace with one scale a column: only the best is decided by all together."""
        knobs, W = self.knobs, self.read(inputs["W_bar"])
        names = ("W_bar", "G0", "lam0")
        if knobs.channels == "one scale":
            found = self.admm(**inputs)
            return {**found, "alpha": np.repeat(found["alpha"][:, None], W.shape[1], axis=1)}
        columns = []
        for o in range(W.shape[1]):
            part = {name: np.asarray(inputs[name])[:, o : o + 1] for name in names}
            columns.append(self.admm(**{**inputs, **part}))
        found = {
            name: np.concatenate([one[name] for one in columns], axis=2)
            for name in ("Theta", "V", "Q", "G", "lam")
        }
        E = np.sum([one["E"] for one in columns], axis=0)
        best = int(np.argmin(E))
        points = np.concatenate([self.read(inputs["G0"])[None], found["G"]])
        result = points[best if str(inputs["returned"]) == "best" else -1]
        if knobs.channels_best == "each its own" and str(inputs["returned"]) == "best":
            result = np.concatenate([one["result"] for one in columns], axis=1)
        alpha = np.stack([one["alpha"] for one in columns], axis=1)
        return {**found, "alpha": alpha, "E": E, "best": np.asarray(best), "result": result}

    def solve_channels(self, **inputs: Any) -> Answers:
        """Codes, one scale a column, and the objective."""
        from refldnq.codebook import scaled
        from refldnq.solvers.base import get_solver
        from refldnq.solvers.direct import DirectSettings
        from refldnq.solvers.exact import ExactSettings

        if self.knobs.channels == "one scale":
            found = self.solve(**inputs)
            columns = np.shape(inputs["W"])[1]
            return {**found, "alpha": np.full(columns, found["alpha"])}
        H, W = (self.read(inputs[key]).astype(np.float64) for key in ("H", "W"))
        made = scaled(np.asarray(inputs["values"], dtype=np.float64))
        each: Any = DirectSettings if inputs["solver"] == "direct" else ExactSettings
        solved = get_solver(str(inputs["solver"]))(H[None], W[None], made, each(per_channel=True))
        delta = solved.G[0] - W
        return {
            "Q": np.asarray(solved.codes[0], dtype=np.int8),
            "alpha": np.asarray(solved.alpha[0], dtype=self.dtype),
            "objective": np.asarray(float(np.vdot(delta, H @ delta)) / 2, dtype=self.dtype),  # [LDNQ] (10)
        }
