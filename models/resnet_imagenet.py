"""The residual networks of ImageNet (He et al. 2016, table 1): depths 18, 34, 50.

Node names are those of torchvision's checkpoints, and so are two details: ResNet-50 has the stride of a block
in its 3x3 convolution ("version 1.5"), and every shortcut across a change of shape is a 1x1 convolution with
batch normalization (option B).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from refldnq._checks import check_choice, check_integer
from refldnq.layers import Add, BatchNorm, Conv2d, Flatten, GlobalAvgPool, Linear, MaxPool2d, ReLU
from refldnq.models.graph import Graph
from refldnq.network import INPUT, Network

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
"""Blocks a stage by depth."""

EXPANSION = 4
"""A bottleneck's output channels over its width."""


def resnet_imagenet(
    depth: int,
    rng: np.random.Generator,
    *,
    size: int = 224,
    classes: int = 1000,
    width: int = 64,
    dtype: npt.DTypeLike = np.float64,
) -> Network:
    """An ImageNet ResNet with random weights.

    Parameters
    ----------
    depth : {18, 34, 50}
        50 has bottlenecks.
    rng : numpy.random.Generator
        Draws the weights: He-normal, batch normalization at the identity.
    size : int, optional
        Rows and columns of an input; the weights do not depend on it.
    classes : int, optional
        Number of outputs.
    width : int, optional
        Channels of the first stage's 3x3 convolutions, 64 in the paper; each later stage has twice as many.
    dtype : numpy.dtype, optional
        float64 or float32.

    Returns
    -------
    Network
        Input (3, size, size), output logits.

    Raises
    ------
    ValueError
        If the depth is unknown or a number is out of range.
    TypeError
        If a number is not an integer.

    Examples
    --------
    >>> network = resnet_imagenet(18, np.random.default_rng(0), size=64, dtype=np.float32)
    >>> len(network.weighted), network.shapes["layer4.1.relu2"], network.shapes["fc"]
    (21, (512, 2, 2), (1000,))
    """
    check_choice("depth", depth, tuple(BLOCKS))
    check_integer("size", size, at_least=1)
    check_integer("classes", classes, at_least=1)
    check_integer("width", width, at_least=1)
    graph = Graph()
    put = graph.put

    def normalized(name: str, norm: str, conv: Conv2d, source: str) -> str:
        return put(norm, BatchNorm(conv.out_channels), put(name, conv, source))

    y = normalized("conv1", "bn1", Conv2d(3, width, 7, 2, 3, bias=False), INPUT)
    y = put("relu", ReLU(), y)
    y = put("maxpool", MaxPool2d(3, 2, 1), y)
    channels = width
    for stage, count in enumerate(BLOCKS[depth], start=1):
        inner = width * 2 ** (stage - 1)
        for index in range(count):
            block, stride = f"layer{stage}.{index}", 2 if stage > 1 and index == 0 else 1
            if depth == 50:
                new = EXPANSION * inner
                convolutions = [
                    Conv2d(channels, inner, 1, bias=False),
                    Conv2d(inner, inner, 3, stride, 1, bias=False),
                    Conv2d(inner, new, 1, bias=False),
                ]
            else:
                new = inner
                convolutions = [
                    Conv2d(channels, inner, 3, stride, 1, bias=False),
                    Conv2d(inner, inner, 3, padding=1, bias=False),
                ]
            x = y
            for number, conv in enumerate(convolutions, start=1):
                y = normalized(f"{block}.conv{number}", f"{block}.bn{number}", conv, y)
                if number < len(convolutions):
                    y = put(f"{block}.relu{number}", ReLU(), y)
            if stride != 1 or channels != new:
                projection = Conv2d(channels, new, 1, stride, bias=False)
                x = normalized(f"{block}.downsample.0", f"{block}.downsample.1", projection, x)
            y = put(f"{block}.add", Add(), y, x)
            y = put(f"{block}.relu{len(convolutions)}", ReLU(), y)
            channels = new
    y = put("avgpool", GlobalAvgPool(), y)
    y = put("flatten", Flatten(), y)
    put("fc", Linear(channels, classes), y)
    return graph.network(rng, (3, size, size), dtype)
