"""The VGG-like network of DistilQuant: 76C3x2-MP2-126C3x2-MP2-148C3x4-MP2-1200FCx2-10.

[LDNQ] table 1 calls it "a VGG-like model adopted by DistilQuant" (Polino et al. 2018, the teacher on
CIFAR-10, 5.3 million parameters, after Urban et al. 2016). Node names are those of its authors' code
(antspy/quantized_distillation, ``cnn_models/conv_forward_model.py``), as is the order: convolution, ReLU,
batch normalization, pooling, dropout; and, unusual, a ReLU behind the last layer.

Their dropout between convolutions leaves out whole channels, `refldnq.layers.Dropout` single entries; where
nothing is dropped, as in quantization and evaluation, that is no difference.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from refldnq._checks import check_integer
from refldnq.layers import BatchNorm, Conv2d, Dropout, Flatten, Linear, MaxPool2d, ReLU
from refldnq.models.graph import Graph
from refldnq.network import INPUT, Network

CLASSES = 10
CHANNELS = (76, 76, 126, 126, 148, 148, 148, 148)
POOLED = (1, 3, 7)
"""Convolutions, from 0, behind which pooling halves the image."""

DROPOUT = {1: 0.2, 3: 0.3, 7: 0.35, 8: 0.4, 9: 0.4}
"""Dropout rates behind layers, linear ones counted on."""


def vgg_distilquant(
    rng: np.random.Generator,
    *,
    channels: Sequence[int] = CHANNELS,
    hidden: int = 1200,
    batch_norm: bool = True,
    dropout: bool = True,
    dtype: npt.DTypeLike = np.float64,
) -> Network:
    """DistilQuant's teacher on CIFAR-10 with random weights.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws the weights: He-normal, biases zero, batch normalization at the identity.
    channels : sequence of int, optional
        Output channels of the eight convolutions.
    hidden : int, optional
        Units of each hidden linear layer.
    batch_norm, dropout : bool, optional
        Whether these layers are there; both in the code's experiment on CIFAR-10.
    dtype : numpy.dtype, optional
        float64 or float32.

    Returns
    -------
    Network
        Input (3, 32, 32), output 10 logits that are not negative.

    Raises
    ------
    ValueError
        If there are not eight convolutions, or a size is below 1.
    TypeError
        If a size is not an integer.

    Examples
    --------
    >>> network = vgg_distilquant(np.random.default_rng(0), channels=(2,) * 8, hidden=5)
    >>> network.weighted[7:], network.shapes["linear_layers.0"]
    (('conv_layers.7', 'linear_layers.0', 'linear_layers.1', 'out_layer'), (5,))
    """
    if len(channels) != len(CHANNELS):
        raise ValueError(f"`channels` must hold {len(CHANNELS)} numbers, got {len(channels)}.")
    check_integer("hidden", hidden, at_least=1)
    graph = Graph()
    put = graph.put

    def follow(y: str, index: int, features: int) -> str:
        y = put(f"relu{index}", ReLU(), y)
        if batch_norm:
            y = put(f"batchNormalizationLayers.{index}", BatchNorm(features), y)
        if index in POOLED:
            y = put(f"pool{index}", MaxPool2d(2), y)
        if dropout and index in DROPOUT:
            y = put(f"dropout{index}", Dropout(DROPOUT[index]), y)
        return y

    y, old = INPUT, 3
    for index, new in enumerate(channels):
        y = put(f"conv_layers.{index}", Conv2d(old, new, 3, padding=1), y)
        y, old = follow(y, index, new), new
    y, old = put("flatten", Flatten(), y), old * 4 * 4
    for index in (0, 1):
        y = put(f"linear_layers.{index}", Linear(old, hidden), y)
        y, old = follow(y, len(channels) + index, hidden), hidden
    y = put("out_layer", Linear(hidden, CLASSES), y)
    put("relu", ReLU(), y)
    return graph.network(rng, (3, 32, 32), dtype)
