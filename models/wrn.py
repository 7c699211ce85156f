"""Wide residual networks for CIFAR-10 (Zagoruyko & Komodakis 2016): WRN-28-k, pre-activation blocks.

[LDNQ] footnote 4: "Widen factor:20, depth:28, dropout rate:0.3", the teacher of DistilQuant's experiment.
Node names and details are those of the code it used (antspy/quantized_distillation,
``cnn_models/wide_resnet.py``, after meliketoy/wide-resnet.pytorch), which differs from the original in three
points: convolutions have biases (`bias`), the second convolution of a block has the stride, and the
projection of a block takes the block's input, not its normalized input.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from refldnq._checks import check_integer, check_number
from refldnq.layers import Add, BatchNorm, Conv2d, Dropout, Flatten, GlobalAvgPool, Linear, ReLU
from refldnq.models.graph import Graph
from refldnq.network import INPUT, Network

CLASSES = 10


def wrn(
    rng: np.random.Generator,
    *,
    depth: int = 28,
    widen: int = 20,
    dropout: float = 0.3,
    bias: bool = True,
    dtype: npt.DTypeLike = np.float64,
) -> Network:
    """A WRN-`depth`-`widen` with random weights.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws the weights: He-normal, biases zero, batch normalization at the identity.
    depth : int, optional
        6 n + 4, with n blocks a stage.
    widen : int, optional
        Widen factor; the stages have 16, 32 and 64 times as many channels.
    dropout : float, optional
        Rate between the convolutions of a block; 0 leaves the layers out.
    bias : bool, optional
        Whether convolutions have biases.
    dtype : numpy.dtype, optional
        float64 or float32; WRN-28-20 has 146 million parameters.

    Returns
    -------
    Network
        Input (3, 32, 32), output 10 logits.

    Raises
    ------
    ValueError
        If a number is out of range.
    TypeError
        If a number is of another type.

    Examples
    --------
    >>> network = wrn(np.random.default_rng(0), depth=10, widen=1)
    >>> network.weighted[:4], network.shapes["linear"]
    (('conv1', 'layer1.0.conv1', 'layer1.0.conv2', 'layer2.0.conv1'), (10,))
    """
    if check_integer("depth", depth, at_least=10) % 6 != 4:
        raise ValueError(f"`depth` must be 6 n + 4, got {depth}.")
    check_integer("widen", widen, at_least=1)
    check_number("dropout", dropout, at_least=0)
    graph = Graph()
    put = graph.put
    y = put("conv1", Conv2d(3, 16, 3, padding=1, bias=bias), INPUT)
    channels = 16
    for stage in (1, 2, 3):
        width = 8 * 2**stage * widen
        for index in range((depth - 4) // 6):
            block, stride = f"layer{stage}.{index}", 2 if stage > 1 and index == 0 else 1
            x = y
            y = put(f"{block}.bn1", BatchNorm(channels), x)
            y = put(f"{block}.relu1", ReLU(), y)
            y = put(f"{block}.conv1", Conv2d(channels, width, 3, padding=1, bias=bias), y)
            if dropout:
                y = put(f"{block}.dropout", Dropout(dropout), y)
            y = put(f"{block}.bn2", BatchNorm(width), y)
            y = put(f"{block}.relu2", ReLU(), y)
            y = put(f"{block}.conv2", Conv2d(width, width, 3, stride, 1, bias=bias), y)
            if stride != 1 or channels != width:
                x = put(f"{block}.shortcut.0", Conv2d(channels, width, 1, stride, bias=bias), x)
            y = put(f"{block}.add", Add(), y, x)
            channels = width
    y = put("bn1", BatchNorm(channels, momentum=0.9), y)  # the code's momentum
    y = put("relu", ReLU(), y)
    y = put("pool", GlobalAvgPool(), y)
    y = put("flatten", Flatten(), y)
    put("linear", Linear(channels, CLASSES), y)
    return graph.network(rng, (3, 32, 32), dtype)
