"""Training with labels of what a quantization left free: step 6 of Algorithm 1, and values and scales."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from refldnq._typing import Array, Float64Array, NetworkParams
from refldnq.baselines.codes import encode, mean_over_weights, packed
from refldnq.baselines.loop import Method, Quantized, learnable_arrays
from refldnq.baselines.schedule import Schedule
from refldnq.layers.base import LinearMap
from refldnq.model import QuantizedWeight
from refldnq.optim import Tree
from refldnq.train import TrainSettings

VALUES, SCALE, CODES = "values", "scale", "codes"
"""Names of a quantized layer's latent arrays, (k,) or (), and of its codes in the memory."""

Free = Literal["nothing", "scale", "values"]
"""What moves of a quantized layer."""

RETRAIN = Schedule(
    epochs=40,
    batch_size=50,
    learning_rate=1e-3,
    optimizer="adam",
    origin="chosen here, for 500 images; the paper has 'light retraining' and 'finetune', and no numbers",
)
"""The one schedule of every retraining, whatever was before it: the fine-tuning of VQ's values and of DQ's
scales, and step 6 behind Algorithm 1 and behind the methods that train."""


def step_6(schedule: Schedule = RETRAIN) -> TrainSettings:
    """A schedule as settings of `refldnq.train.fine_tune`, which does step 6 behind Algorithm 1.

    Parameters
    ----------
    schedule : Schedule, optional
        One cycle, along a cosine, without a look ahead and a penalty.

    Raises
    ------
    ValueError
        If it is of another kind: the two codes would differ.

    Examples
    --------
    >>> step_6().epochs, step_6().learning_rate, step_6().optimizer
    (40, 0.001, 'adam')
    """
    usual = {"cycles": 1, "decay": "cosine", "nesterov": False, "weight_decay": 0.0, "most_images": None}
    wrong = [name for name, value in usual.items() if getattr(schedule, name) != value]
    if wrong:
        raise ValueError(f"`schedule` must have {wrong[0]} {usual[wrong[0]]}, got {schedule}.")
    return TrainSettings(
        epochs=schedule.epochs,
        batch_size=schedule.batch_size,
        optimizer=schedule.optimizer,
        learning_rate=schedule.learning_rate,
        schedule="cosine",
        momentum=schedule.momentum,
        weight_decay=0.0,
        statistics=schedule.statistics,
        crop=schedule.crop,
        flip=schedule.flip,
    )


@dataclass(frozen=True, kw_only=True)
class Retrain(Method):
    """Codes stay; batch normalization, layers that are not quantized and, if asked for, the values move.

    Parameters
    ----------
    codes : mapping of str to QuantizedWeight
        Of the quantized layers that have codes.
    free : {'nothing', 'scale', 'values'}
        What moves of a quantized layer with codes: nothing, as in step 6 of Algorithm 1; its scale, one a
        layer; or every value by itself. Its bias stays.
    """

    codes: Mapping[str, QuantizedWeight] = field(default_factory=dict)
    free: Free = "nothing"

    def start(self) -> tuple[Tree, Tree]:
        """What moves, and the codes."""
        latent = {
            name: own for name, own in learnable_arrays(self.network).items() if name not in self.layers
        }
        memory: dict[str, dict[str, Array]] = {}
        for name, code in self.codes.items():
            if self.free == "nothing":
                continue
            start: Float64Array = code.alpha * code.values if self.free == "values" else code.alpha
            latent[name] = {VALUES if self.free == "values" else SCALE: start.astype(self.network.dtype)}
            memory[name] = {CODES: code.codes, VALUES: code.values}
        return latent, memory

    def weight(self, name: str, own: Mapping[str, Array], memory: Mapping[str, Array]) -> Array:
        """The weight of a layer whose values or scale move, in the shape of the layer's."""
        table = own[VALUES] if VALUES in own else own[SCALE] * memory[VALUES]
        layer = self.network[name].layer
        assert isinstance(layer, LinearMap)
        weight = layer.unpack(table.astype(np.float64)[memory[CODES]])["weight"]
        return np.ascontiguousarray(weight, dtype=self.network.dtype)

    def place(self, latent: Tree, memory: Tree) -> NetworkParams:
        """The network's arrays."""
        return {
            name: {"weight": self.weight(name, own, memory[name])} if name in memory else own
            for name, own in latent.items()
        }

    def pull(self, latent: Tree, memory: Tree, gradients: NetworkParams) -> tuple[Tree, Tree]:
        """See `values_gradient`; that of a scale is the sum of the values' times the values."""
        pulled: dict[str, Mapping[str, Array]] = dict(gradients)
        for name, own in memory.items():
            table = values_gradient(
                packed(self.network, name, gradients[name]["weight"]), own[CODES], len(own[VALUES])
            )
            key = VALUES if VALUES in latent[name] else SCALE
            slope = table if key == VALUES else np.asarray(table @ own[VALUES])
            pulled[name] = {key: slope.astype(self.network.dtype)}
        return pulled, memory

    def settle(self, before: Tree, after: Tree, memory: Tree) -> Tree:
        """Scales do not become negative."""
        return {
            name: {key: np.maximum(array, 0) if key == SCALE else array for key, array in own.items()}
            for name, own in after.items()
        }

    def finish(self, latent: Tree, memory: Tree) -> Quantized:
        """The codes with the new values."""
        codes = dict(self.codes)
        placed = {name: dict(own) for name, own in self.place(latent, memory).items()}
        for name in memory:
            if SCALE in latent[name]:
                codes[name] = replace(codes[name], alpha=latent[name][SCALE].astype(np.float64))
            else:
                codes[name] = encode(self.network, name, placed[name]["weight"])
            placed[name] = codes[name].arrays(self.network[name], self.network.dtype)
        levels = {name: float(len(code.values)) for name, code in codes.items()}
        return Quantized(placed, codes, mean_over_weights(self.network, levels) if levels else float("nan"))


def values_gradient(g: Array, codes: Array, count: int) -> Float64Array:
    r"""Gradient of a layer's values, :math:`\partial L/\partial c_k=\sum_{i\in k}\partial L/\partial w_i`.

    Parameters
    ----------
    g : Array, any shape
        Gradient with respect to the weight.
    codes : Array, shape of g
        Indices into the values.
    count : int
        Number of values.

    Returns
    -------
    Array, shape (count,), float64

    Notes
    -----
    Gong et al. 2014 do not fine-tune; the sum over the cluster is that of Han et al. 2016 ("Deep
    Compression", equation 3).

    Examples
    --------
    >>> values_gradient(np.array([1.0, 2.0, 4.0]), np.array([0, 2, 0]), 3)
    array([5., 0., 2.])
    """
    sums: Float64Array = np.bincount(codes.ravel(), weights=g.ravel(), minlength=count).astype(np.float64)
    return sums
