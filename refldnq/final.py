r"""A last update when all layers are quantized: what is not quantized learns, and the codes stay.

One factor :math:`e^s` for each scale :math:`\alpha` (fixed sets have none) moves, to give the teacher's
output again, and of all layers what step 4 moves of those behind its cut: batch normalization's scales and
shifts and, unless the settings say ``weights=False``, biases and the weights of layers that are not
quantized. Of the paper's Algorithm 1 it is step 4 once more, behind the last layer; for that alone, keep all
scales fixed. Step 6 moves batch normalization and layers that are not quantized, but no scale, and needs
labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from refldnq._typing import Array, Float64Array, NetworkParams
from refldnq.layers.base import LinearMap
from refldnq.model import QuantizedWeight
from refldnq.network import Network
from refldnq.optim import Tree
from refldnq.update import Copy, Moving, UpdateResult, UpdateSettings, moving_arrays, update

FACTOR = "log_factor"
"""Name of s, (1,) or (g * m,), among a layer's moving arrays. Its steps are relative, and alpha stays
positive (chosen here)."""


def free_arrays(
    network: Network, cut: int, quantized: Mapping[str, QuantizedWeight], settings: UpdateSettings
) -> dict[str, dict[str, Array]]:
    """What `moving_arrays` says, without the weights that are codes already.

    Parameters
    ----------
    network : Network
        The student.
    cut : int
        Position of the first layer that may move.
    quantized : mapping of str to QuantizedWeight
        Codes of its quantized layers.
    settings : UpdateSettings
        Which kinds of arrays move.
    """
    arrays: dict[str, dict[str, Array]] = {}
    for name, own in moving_arrays(network, cut, settings).items():
        taken = {"weight", "bias"} if name in quantized and quantized[name].bias else {"weight"}
        kept = {key: array for key, array in own.items() if name not in quantized or key not in taken}
        if kept:
            arrays[name] = kept
    return arrays


class Scales(Moving):
    """Quantized layers move by a factor of their scale; everything else as in `moving_arrays`.

    A subclass adds to `own`, the keys of what moves of a quantized layer and is no array of the network.

    Parameters
    ----------
    network : Network
        Quantized.
    quantized : mapping of str to QuantizedWeight
        Codes of its quantized layers.
    fixed : collection of str
        Quantized layers whose scale does not move either: those of a fixed set.
    settings : UpdateSettings
        Which kinds of arrays move.

    Examples
    --------
    The scale of a layer is found again from the outputs:

    >>> from refldnq.layers import Linear
    >>> from refldnq.network import Node
    >>> code = QuantizedWeight(
    ...     codes=np.array([[[0], [2]]], np.int8), alpha=np.array(0.5), values=np.array([-1.0, 0.0, 1.0])
    ... )
    >>> nodes = (Node("fc", Linear(2, 1, bias=False), ("input",)),)
    >>> network = Network(nodes, {"fc": {"weight": code.weight()[0].T}}, (2,))
    >>> x = np.random.default_rng(0).standard_normal((64, 2))
    >>> copy = Copy({"input": x}, 2.0 * network.forward(x))
    >>> settings = UpdateSettings(epochs=200, batch_size=64, learning_rate=0.05)
    >>> scales = Scales(network, {"fc": code}, (), settings)
    >>> _, new = scales.update([copy], settings, np.random.default_rng(1))
    >>> round(float(new["fc"].alpha), 3)
    1.0
    """

    own: tuple[str, ...] = (FACTOR,)

    def __init__(
        self,
        network: Network,
        quantized: Mapping[str, QuantizedWeight],
        fixed: Sequence[str],
        settings: UpdateSettings,
    ) -> None:
        self.network, self.quantized = network, quantized
        arrays = free_arrays(network, 0, quantized, settings)
        for name, code in quantized.items():
            if name not in fixed:
                start = np.zeros(max(1, code.alpha.size), dtype=network.dtype)
                arrays.setdefault(name, {})[FACTOR] = start
        super().__init__(arrays)

    def code(self, name: str, own: Mapping[str, Array]) -> QuantizedWeight:
        """What a quantized layer's moving arrays stand for."""
        old = self.quantized[name]
        if FACTOR not in own:
            return old
        scale: Float64Array = np.exp(own[FACTOR].astype(np.float64)).reshape(old.alpha.shape)
        return replace(old, alpha=np.asarray(old.alpha * scale))

    def place(self, arrays: Tree) -> NetworkParams:
        """The network's arrays."""
        placed: dict[str, dict[str, Array]] = {}
        for name, own in arrays.items():
            placed[name] = {key: array for key, array in own.items() if key not in self.own}
            if len(placed[name]) < len(own):
                placed[name] |= self.code(name, own).arrays(self.network[name], self.network.dtype)
        return placed

    def pull(self, arrays: Tree, gradients: NetworkParams) -> Tree:
        r"""The gradients; as :math:`G = \alpha e^s Q`, that of s is :math:`\sum G\,\partial L/\partial G`."""
        pulled: dict[str, dict[str, Array]] = {}
        for name, own in arrays.items():
            pulled[name] = {key: gradients[name][key] for key in own if key not in self.own}
            if len(pulled[name]) < len(own):
                code, layer = self.code(name, own), self.network[name].layer
                assert isinstance(layer, LinearMap)
                inner = self.inner(name, own, layer.pack(gradients[name], bias=code.bias), code)
                pulled[name] |= {key: inner[key].astype(self.network.dtype) for key in self.own if key in own}
        return pulled

    def inner(
        self, name: str, own: Mapping[str, Array], dG: Array, code: QuantizedWeight
    ) -> dict[str, Array]:
        """The gradients of what moves of a quantized layer, from that of its packed weight."""
        product = dG * code.weight()
        total = product.sum(axis=1) if code.alpha.ndim else product.sum()
        return {FACTOR: np.asarray(total).reshape(-1)}

    def update(
        self,
        copies: Sequence[Copy],
        settings: UpdateSettings,
        rng: np.random.Generator,
        *,
        plain: Copy | None = None,
    ) -> tuple[UpdateResult, dict[str, QuantizedWeight]]:
        """Step 4 with this moving, from the input on.

        Parameters
        ----------
        copies : sequence of Copy
            Versions of the images at the input.
        settings : UpdateSettings
            Of the update.
        rng : numpy.random.Generator
            Orders the images.
        plain : Copy, optional
            As `refldnq.update.update` has it.

        Returns
        -------
        result : UpdateResult
            The network and the losses.
        quantized : dict of str to QuantizedWeight
            What the quantized layers are then; they give the new network's weights bit for bit.
        """
        result = update(self.network, 0, copies, settings, rng, moving=self, plain=plain)
        return result, {name: self.code(name, result.arrays.get(name, {})) for name in self.quantized}
