"""A small convolutional network for the 8x8 digits, with everything a larger one has."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from refldnq.layers import BatchNorm, Conv2d, Flatten, GlobalAvgPool, Linear, MaxPool2d, ReLU
from refldnq.models.graph import Graph
from refldnq.network import INPUT, Network

INPUT_SHAPE = (1, 8, 8)
CLASSES = 10
WIDTHS = (16, 32, 64)


def cnn_digits(rng: np.random.Generator, *, dtype: npt.DTypeLike = np.float64) -> Network:
    """Three 3x3 convolutions with batch normalization, one max pooling, one linear layer.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws the weights: He-normal, batch normalization at the identity.
    dtype : numpy.dtype, optional
        float64 or float32.

    Returns
    -------
    Network
        Input (1, 8, 8), output 10 logits; layers ``conv1``, ``conv2``, ``conv3``, ``linear``.

    Examples
    --------
    >>> import numpy as np
    >>> network = cnn_digits(np.random.default_rng(0))
    >>> network.weighted, network.shapes["pool"]
    (('conv1', 'conv2', 'conv3', 'linear'), (32, 4, 4))
    """
    graph = Graph()
    put = graph.put
    y, channels = INPUT, INPUT_SHAPE[0]
    for index, width in enumerate(WIDTHS, start=1):
        if index == len(WIDTHS):
            y = put("pool", MaxPool2d(2), y)
        y = put(f"conv{index}", Conv2d(channels, width, 3, padding=1, bias=False), y)
        y = put(f"bn{index}", BatchNorm(width), y)
        y = put(f"relu{index}", ReLU(), y)
        channels = width
    y = put("average", GlobalAvgPool(), y)
    y = put("flatten", Flatten(), y)
    put("linear", Linear(channels, CLASSES), y)
    return graph.network(rng, INPUT_SHAPE, dtype)
