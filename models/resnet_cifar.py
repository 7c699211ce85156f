"""The residual networks of CIFAR-10 (He et al. 2016, section 4.2): depths 20, 32, 44, 56, 110.

Node names are those of the public PyTorch checkpoints by Y. Idelbayev (akamaster/pytorch_resnet_cifar10), so
their arrays find their places by name. Shortcuts across a change of shape are of option A: every second
pixel, new channels filled with zeros, no parameters; or option B: a 1x1 convolution with batch normalization.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from refldnq._checks import check_choice
from refldnq.layers import Add, BatchNorm, Conv2d, Flatten, GlobalAvgPool, Linear, ReLU, SubsampleShortcut
from refldnq.models.graph import Graph
from refldnq.network import INPUT, Network

DEPTHS = (20, 32, 44, 56, 110)
WIDTHS = (16, 32, 64)
CLASSES = 10


def resnet_cifar(
    depth: int,
    rng: np.random.Generator,
    *,
    option: Literal["A", "B"] = "A",
    dtype: npt.DTypeLike = np.float64,
) -> Network:
    """A CIFAR ResNet with random weights.

    Parameters
    ----------
    depth : {20, 32, 44, 56, 110}
        Layers with weights: 6 n + 2.
    rng : numpy.random.Generator
        Draws the weights: He-normal, batch normalization at the identity.
    option : {'A', 'B'}, optional
        Shortcuts across a change of shape; A is what the paper of the network uses on CIFAR-10.
    dtype : numpy.dtype, optional
        float64 or float32.

    Returns
    -------
    Network
        Input (3, 32, 32), output 10 logits.

    Raises
    ------
    ValueError
        If the depth or the option is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> network = resnet_cifar(20, np.random.default_rng(0))
    >>> len(network.weighted), network.shapes["linear"]
    (20, (10,))
    """
    check_choice("depth", depth, DEPTHS)
    check_choice("option", option, ("A", "B"))
    graph = Graph()
    put = graph.put
    y = put("conv1", Conv2d(3, WIDTHS[0], 3, padding=1, bias=False), INPUT)
    y = put("bn1", BatchNorm(WIDTHS[0]), y)
    y = put("relu1", ReLU(), y)
    channels = WIDTHS[0]
    for stage, width in enumerate(WIDTHS, start=1):
        for index in range((depth - 2) // 6):
            block, stride = f"layer{stage}.{index}", 2 if stage > 1 and index == 0 else 1
            x = y
            y = put(f"{block}.conv1", Conv2d(channels, width, 3, stride, 1, bias=False), x)
            y = put(f"{block}.bn1", BatchNorm(width), y)
            y = put(f"{block}.relu1", ReLU(), y)
            y = put(f"{block}.conv2", Conv2d(width, width, 3, padding=1, bias=False), y)
            y = put(f"{block}.bn2", BatchNorm(width), y)
            if stride != 1 and option == "A":
                x = put(f"{block}.shortcut", SubsampleShortcut(channels, width, stride), x)
            elif stride != 1:
                x = put(f"{block}.shortcut.0", Conv2d(channels, width, 1, stride, bias=False), x)
                x = put(f"{block}.shortcut.1", BatchNorm(width), x)
            y = put(f"{block}.add", Add(), y, x)
            y = put(f"{block}.relu2", ReLU(), y)
            channels = width
    y = put("pool", GlobalAvgPool(), y)
    y = put("flatten", Flatten(), y)
    put("linear", Linear(channels, CLASSES), y)
    return graph.network(rng, (3, 32, 32), dtype)
