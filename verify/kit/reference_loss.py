"""The reference's loss functions, with a knob for each of their faults."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from refldnq._typing import Array
from refldnq.loss import cross_entropy, distillation, output_error
from refldnq.verify.kit.knobs import Knobs


class LossStep(ABC):
    """The operation ``loss``."""

    knobs: Knobs
    dtype: np.dtype[Any]

    @abstractmethod
    def read(self, array: Any) -> Array:
        """An input in the type of the computation."""

    def loss(self, **inputs: Any) -> dict[str, Array]:
        """The loss of a batch and its gradient with respect to the logits."""
        knobs, y, kind = self.knobs, self.read(inputs["y"]), str(inputs["kind"])
        n = len(y)
        if kind == "cross_entropy":
            value, dy = cross_entropy(y, np.asarray(inputs["labels"], dtype=np.int64))
        elif kind == "output_error":
            value, dy = output_error(y, self.read(inputs["target"]))
        else:
            value, dy = self._distilled(y, self.read(inputs["target"]), float(inputs["temperature"]))
        if knobs.loss_unshifted and kind != "output_error":
            with np.errstate(over="ignore", invalid="ignore"):
                value *= float(np.exp(y).sum() / np.exp(y).sum())  # NaN where exp overflows
        if knobs.loss_of_batch == "sum":
            value, dy = value * n, dy * self.dtype.type(n)
        if knobs.loss_logarithm == "of base 2" and kind != "output_error":
            value /= float(np.log(2.0))
        return {"loss": np.asarray(value, dtype=self.dtype), "dy": np.asarray(dy, dtype=self.dtype)}

    def _distilled(self, y: Array, target: Array, temperature: float) -> tuple[float, Array]:
        knobs = self.knobs
        if knobs.loss_divergence == "reversed":
            value, _ = distillation(target, y, temperature=temperature)
            _, dy = distillation(y, target, temperature=temperature)
            return value, dy
        if knobs.loss_temperature == "forgotten":
            return distillation(y, target, temperature=1.0)
        value, dy = distillation(y, target, temperature=temperature)
        if knobs.loss_temperature == "not squared":
            return value / temperature**2, dy / self.dtype.type(temperature**2)
        return value, dy
