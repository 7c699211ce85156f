"""A small convolutional network for the 8x8 digits, with everything a larger one has."""

from __future__ import annotations

import numpy as np

from refldnq.layers import BatchNorm, Conv2d, Flatten, GlobalAvgPool, Linear, MaxPool2d, ReLU
from refldnq.layers.base import Layer
from refldnq.models.initial import initial_params
from refldnq.network import INPUT, Network, Node

INPUT_SHAPE = (1, 8, 8)
CLASSES = 10
WIDTHS = (16, 32, 64)


def cnn_digits(rng: np.random.Generator) -> Network:
    """Three 3x3 convolutions with batch normalization, one max pooling, one linear layer, float64.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws the weights: He-normal, batch normalization at the identity.

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
    nodes: list[Node] = []

    def put(name: str, layer: Layer, source: str) -> str:
        nodes.append(Node(name, layer, (source,)))
        return name

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
    return Network(tuple(nodes), initial_params(nodes, rng), INPUT_SHAPE)
