"""SqueezeNet 1.0 and 1.1 (Iandola et al. 2016): fire modules, no linear layer.

Node names are those of torchvision's ``squeezenet1_0`` and ``squeezenet1_1``. The output is the mean over the
pixels of the last convolution's ReLU; the softmax that ONNX files have behind it changes no order and is left
out.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from refldnq._checks import check_choice, check_integer, check_number
from refldnq.layers import Concat, Conv2d, Dropout, Flatten, GlobalAvgPool, MaxPool2d, ReLU
from refldnq.models.graph import Graph
from refldnq.network import INPUT, Network

STEM = {"1.0": Conv2d(3, 96, 7, 2), "1.1": Conv2d(3, 64, 3, 2)}
"""The first convolution."""

POOL = None
FIRES = {
    "1.0": (
        POOL,
        (16, 64),
        (16, 64),
        (32, 128),
        POOL,
        (32, 128),
        (48, 192),
        (48, 192),
        (64, 256),
        POOL,
        (64, 256),
    ),
    "1.1": (
        POOL,
        (16, 64),
        (16, 64),
        POOL,
        (32, 128),
        (32, 128),
        POOL,
        (48, 192),
        (48, 192),
        (64, 256),
        (64, 256),
    ),
}
"""Channels (squeezed, expanded by each of the two convolutions) of the fire modules, and where pooling is."""


def squeezenet(
    version: Literal["1.0", "1.1"],
    rng: np.random.Generator,
    *,
    size: int = 224,
    dropout: float = 0.5,
    classes: int = 1000,
    dtype: npt.DTypeLike = np.float64,
) -> Network:
    """A SqueezeNet with random weights.

    Parameters
    ----------
    version : {'1.0', '1.1'}
        1.1 pools earlier and costs 2.4 times less.
    rng : numpy.random.Generator
        Draws the weights: He-normal, biases zero.
    size : int, optional
        Rows and columns of an input; the weights do not depend on it.
    dropout : float, optional
        Rate before the last convolution; 0 leaves the layer out.
    classes : int, optional
        Number of outputs.
    dtype : numpy.dtype, optional
        float64 or float32.

    Returns
    -------
    Network
        Input (3, size, size), output numbers that are not negative, one a class.

    Raises
    ------
    ValueError
        If the version is unknown or a number is out of range.
    TypeError
        If a number is of another type.

    Examples
    --------
    >>> network = squeezenet("1.1", np.random.default_rng(0), size=64)
    >>> len(network.weighted), network.shapes["features.12.cat"], network.shapes["flatten"]
    (26, (512, 3, 3), (1000,))
    """
    check_choice("version", version, tuple(STEM))
    check_integer("size", size, at_least=1)
    check_integer("classes", classes, at_least=1)
    check_number("dropout", dropout, at_least=0)
    graph = Graph()
    put = graph.put
    y = put("features.0", STEM[version], INPUT)
    y = put("features.1", ReLU(), y)
    channels = STEM[version].out_channels
    for number, fire in enumerate(FIRES[version], start=2):
        name = f"features.{number}"
        if fire is POOL:
            y = put(name, MaxPool2d(3, 2, ceil_mode=True), y)
            continue
        squeezed, expanded = fire
        y = put(f"{name}.squeeze", Conv2d(channels, squeezed, 1), y)
        y = put(f"{name}.squeeze_activation", ReLU(), y)
        ends = []
        for kernel in (1, 3):
            end = f"{name}.expand{kernel}x{kernel}"
            put(end, Conv2d(squeezed, expanded, kernel, padding=kernel // 2), y)
            ends.append(put(f"{end}_activation", ReLU(), end))
        y, channels = put(f"{name}.cat", Concat(), *ends), 2 * expanded
    if dropout:
        y = put("classifier.0", Dropout(dropout), y)
    y = put("classifier.1", Conv2d(channels, classes, 1), y)
    y = put("classifier.2", ReLU(), y)
    y = put("classifier.3", GlobalAvgPool(), y)
    put("flatten", Flatten(), y)
    return graph.network(rng, (3, size, size), dtype)
