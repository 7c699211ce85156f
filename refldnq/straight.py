r"""Straight-through steps of all codes at once, when all layers are quantized.

Every entry has a position on the line of its layer's levels; its code is that of the level nearest to it. The
gradient of the output error with respect to G moves the position as if G were the scale times the position
(Bengio, Leonard, Courville 2013, "Estimating or propagating gradients through stochastic neurons", the
straight-through estimator). The paper has nothing of the kind: its codes stay once their layer is done.

Where the best place is between two levels, a position swings about the middle of the two, and its code with
it, until the end of the update decides by chance (Nagel, Fournarakis, Bondarenko, Blankevoort 2022,
"Overcoming oscillations in quantization-aware training", who freeze such weights at their running mean). Here
an entry whose code turns around stays on the level that it turns to. That favors the level where it had been,
also where the other one is much nearer to its best place: an entry goes for good only if that place is not
short of the next level, but for the noise of batches. So few codes move, as suits few images. Chosen here, by
single runs of ResNet-20 with one scale a channel outside the store of ``benchmarks/study.py``: after 48
epochs with blocks' outputs at 0.015 the output error on 5,000 held-out training images was 31.1; 31.2 with
the running mean; 32.5 and 31.6 where the entry stayed on the level of its longer stay, or of less error by
the gradients at both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from refldnq._typing import Array
from refldnq.final import FACTOR, Scales
from refldnq.model import QuantizedWeight
from refldnq.network import Network
from refldnq.optim import Tree
from refldnq.update import UpdateSettings

POSITION = "position"
"""Name of the positions, (g, d, m), among a layer's moving arrays."""


@dataclass(frozen=True, slots=True)
class Path:
    """Where a layer's codes are, which way they went last, and which stay.

    Parameters
    ----------
    codes : Array, shape (g, d, m), int8
        Where they are now.
    way : Array, shape (g, d, m), int8
        The sign of every code's last change, 0 before the first.
    turned : Array, shape (g, d, m), bool
        Which have turned around: they stay.
    """

    codes: Array
    way: Array
    turned: Array

    def follow(self, codes: Array) -> Path:
        """The path after a step to `codes`, on which those that have turned around do not go.

        Parameters
        ----------
        codes : Array, shape (g, d, m), int8
            Those of the positions after the step.

        Returns
        -------
        Path

        Examples
        --------
        >>> path = Path(np.array([1, 1]), np.array([0, 0]), np.array([False, False]))
        >>> for codes in ([2, 2], [1, 2], [2, 1], [0, 0]):
        ...     path = path.follow(np.array(codes))
        ...     print(path.codes, path.turned)
        [2 2] [False False]
        [1 2] [ True False]
        [1 1] [ True  True]
        [1 1] [ True  True]
        """
        codes = np.where(self.turned, self.codes, codes)
        change = np.sign(np.subtract(codes, self.codes, dtype=np.int8))
        turns = change * self.way < 0
        return Path(codes, np.where(change != 0, change, self.way), self.turned | turns)


class Codes(Scales):
    """Quantized layers move by their codes and, if there is one, by a factor of their scale.

    A code that turns around stays. Which have done so is kept between the steps of an update, in `paths`.

    Parameters
    ----------
    network, quantized, fixed, settings
        As for `Scales`.
    rate : float
        How far a position moves in a step of Adam at first, as a share of the least distance of two levels;
        with SGD, the rate of a gradient in these units. Weight decay pulls positions to 0 like other arrays,
        but for those that stay.

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
        self.paths: dict[str, Path] = {}

    def start(self) -> None:
        """No code has turned around."""
        for name, code in self.quantized.items():
            still = np.zeros(code.codes.shape, np.int8)
            self.paths[name] = Path(code.codes, still, still != 0)

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

    def after(self, arrays: Tree) -> Tree:
        """A step's result in which the codes that have turned around are on their level."""
        kept: dict[str, Mapping[str, Array]] = dict(arrays)
        for name, own in arrays.items():
            if POSITION in own:
                code = self.code(name, own)
                path = self.paths[name] = self.paths[name].follow(code.codes)
                level = (code.values[path.codes] / self.units[name]).astype(self.network.dtype)
                kept[name] = {**own, POSITION: np.where(path.turned, level, own[POSITION])}
        return kept
