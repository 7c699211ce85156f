"""AlexNet in one tower, with or without batch normalization.

[LDNQ] footnote 2: "AlexNet with batch normalization layers is adopted"; which one is not told. Here it is
torchvision's AlexNet (Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks",
61,100,840 parameters, no local response normalization) with batch normalization between every layer but the
last and its ReLU, chosen here. Without it, node names are those of torchvision's ``alexnet``; with it, layers
are counted on as in torchvision's ``vgg*_bn``: ``features.0`` to ``features.17``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from refldnq._checks import check_integer, check_number
from refldnq.layers import BatchNorm, Conv2d, Dropout, Flatten, Linear, MaxPool2d, ReLU
from refldnq.layers.base import Layer
from refldnq.models.graph import Graph
from refldnq.network import INPUT, Network

INPUT_SHAPE = (3, 224, 224)

CONVOLUTIONS = (
    (Conv2d(3, 64, 11, 4, 2), True),
    (Conv2d(64, 192, 5, padding=2), True),
    (Conv2d(192, 384, 3, padding=1), False),
    (Conv2d(384, 256, 3, padding=1), False),
    (Conv2d(256, 256, 3, padding=1), True),
)
"""The convolutions, and whether a 3x3 max-pooling of stride 2 follows."""


def alexnet(
    rng: np.random.Generator,
    *,
    batch_norm: bool = True,
    hidden: int = 4096,
    dropout: float = 0.5,
    classes: int = 1000,
    dtype: npt.DTypeLike = np.float64,
) -> Network:
    """AlexNet with random weights.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws the weights: He-normal, biases zero, batch normalization at the identity.
    batch_norm : bool, optional
        Whether there is batch normalization.
    hidden : int, optional
        Units of each hidden linear layer.
    dropout : float, optional
        Rate before the hidden linear layers; 0 leaves the layers out, but keeps their numbers.
    classes : int, optional
        Number of outputs.
    dtype : numpy.dtype, optional
        float64 (490 MB) or float32.

    Returns
    -------
    Network
        Input (3, 224, 224), output logits.

    Raises
    ------
    ValueError
        If a number is out of range.
    TypeError
        If a number is of another type.

    Examples
    --------
    >>> network = alexnet(np.random.default_rng(0), hidden=2, dtype=np.float32)
    >>> network.weighted[:3], network.shapes["flatten"]
    (('features.0', 'features.4', 'features.8'), (9216,))
    """
    check_integer("hidden", hidden, at_least=1)
    check_integer("classes", classes, at_least=1)
    check_number("dropout", dropout, at_least=0)
    graph, number = Graph(), 0

    def put(part: str, layer: Layer, source: str) -> str:
        nonlocal number
        number += 1
        return graph.put(f"{part}.{number - 1}", layer, source)

    y = INPUT
    for conv, pooled in CONVOLUTIONS:
        y = put("features", conv, y)
        if batch_norm:
            y = put("features", BatchNorm(conv.out_channels), y)
        y = put("features", ReLU(), y)
        if pooled:
            y = put("features", MaxPool2d(3, 2), y)
    y = graph.put("flatten", Flatten(), y)
    number, features = 0, 256 * 6 * 6
    for _ in range(2):
        if dropout:
            y = put("classifier", Dropout(dropout), y)
        else:
            number += 1
        y = put("classifier", Linear(features, hidden), y)
        if batch_norm:
            y = put("classifier", BatchNorm(hidden), y)
        y = put("classifier", ReLU(), y)
        features = hidden
    put("classifier", Linear(hidden, classes), y)
    return graph.network(rng, INPUT_SHAPE, dtype)
