r"""Straight-through steps of all codes at once, when all layers are quantized.

Every entry has a position on the line of its layer's levels; its code is that of the level nearest to it. The
gradient of the output error with respect to G moves the position as if G were the scale times the position
(Bengio, Leonard, Courville 2013, "Estimating or propagating gradients through stochastic neurons", the
straight-through estimator). The paper has nothing of the kind: its codes stay once their layer is done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from refldnq._typing import Array
from refldnq.final import FACTOR, Scales
from refldnq.model import QuantizedWeight
from refldnq.network import Network
from refldnq.update import UpdateSettings

POSITION = "position"
"""Name of the positions, (g, d, m), among a layer's moving arrays."""


class Codes(Scales):
    """Quantized layers move by their codes and, if there is one, by a factor of their scale.

    Parameters
    ----------
    network, quantized, fixed, settings
        As for `Scales`.
    rate : float
        How far a position moves in a step of Adam at first, as a share of the least distance of two levels;
        with SGD, the rate of a gradient in these units. Weight decay pulls positions to 0 like other arrays.

    Examples
    --------
    A code is found again from the outputs:

    >>> from refldnq.layers import Linear
    >>> from refldnq.network import Node
    >>> from refldnq.update import Copy
    >>> code = QuantizedWeight(
    ...     codes=np.array([[[0], [2]]], np.int8), alpha=np.array(0.5), values=np.array([-1.0, 0.0, 1.0])
    ... )
    >>> nodes = (Node("fc", Linear(2, 1, bias=False), ("input",)),)
    >>> network = Network(nodes, {"fc": {"weight": code.weight()[0].T}}, (2,))
    >>> x = np.random.default_rng(0).standard_normal((64, 2))
    >>> copy = Copy({"input": x}, x @ np.array([[0.5], [0.5]]))
    >>> settings = UpdateSettings(epochs=100, batch_size=64, learning_rate=1e-3)
    >>> codes = Codes(network, {"fc": code}, (), settings, rate=0.05)
    >>> _, new = codes.update([copy], settings, np.random.default_rng(1))
    >>> new["fc"].codes.ravel(), round(float(new["fc"].alpha), 1)
    (array([2, 2], dtype=int8), 0.5)
    """

    own = (FACTOR, POSITION)

    def __init__(
        self,
        network: Network,
        quantized: Mapping[str, QuantizedWeight],
        fixed: Sequence[str],
        settings: UpdateSettings,
        *,
        rate: float,
    ) -> None:
        super().__init__(network, quantized, fixed, settings)
        # The optimizer holds positions in units of `unit`, so that a step of its rate is one of `rate`.
        ratio = rate / settings.learning_rate
        unit = ratio if settings.optimizer == "adam" else np.sqrt(ratio)
        arrays = {name: dict(own) for name, own in self.arrays.items()}
        self.units: dict[str, float] = {}
        for name, code in quantized.items():
            self.units[name] = float(unit * min(np.diff(code.values), default=1.0))
            start = code.values[code.codes] / self.units[name]
            arrays.setdefault(name, {})[POSITION] = start.astype(network.dtype)
        object.__setattr__(self, "arrays", arrays)

    def code(self, name: str, own: Mapping[str, Array]) -> QuantizedWeight:
        """What a quantized layer's moving arrays stand for."""
        code = super().code(name, own)
        if POSITION not in own:
            return code
        midpoints = (0.5 * (code.values[:-1] + code.values[1:])).astype(self.network.dtype)
        codes = np.searchsorted(midpoints, own[POSITION] * self.network.dtype.type(self.units[name]))
        return replace(code, codes=codes.astype(np.int8))

    def inner(
        self, name: str, own: Mapping[str, Array], dG: Array, code: QuantizedWeight
    ) -> dict[str, Array]:
        """The gradients of what moves of a quantized layer; none leads further out of the levels."""
        alpha = code.alpha[:, None, :] if code.alpha.ndim else code.alpha
        gradient = dG * alpha * self.units[name]
        position = own[POSITION] * self.units[name]
        outside = (position > code.values[-1]) & (gradient < 0) | (position < code.values[0]) & (gradient > 0)
        return {**super().inner(name, own, dG, code), POSITION: np.where(outside, 0.0, gradient)}
