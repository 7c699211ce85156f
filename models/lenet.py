"""LeNet-5 as the compression literature counts it: 431,080 parameters, on MNIST.

The network of Caffe's examples, which Han et al. 2015 ("Learning both Weights and Connections", table 1)
call LeNet-5: max-pooling, one ReLU, no nonlinearity between convolution and pooling. LeCun et al.'s own of
1998 has trained pooling, hyperbolic tangents and a partial connection table. The L-DNQ paper uses neither.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from refldnq.layers import Conv2d, Flatten, Linear, MaxPool2d, ReLU
from refldnq.models.graph import Graph
from refldnq.network import INPUT, Network

INPUT_SHAPE = (1, 28, 28)
CLASSES = 10


def lenet5(rng: np.random.Generator, *, dtype: npt.DTypeLike = np.float64) -> Network:
    """Caffe's LeNet with random weights.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws the weights: He-normal, biases zero.
    dtype : numpy.dtype, optional
        float64 or float32.

    Returns
    -------
    Network
        Input (1, 28, 28), output 10 logits; layers as in Caffe: ``conv1``, ``conv2``, ``ip1``, ``ip2``.

    Examples
    --------
    >>> network = lenet5(np.random.default_rng(0))
    >>> network.weighted, network.shapes["pool2"]
    (('conv1', 'conv2', 'ip1', 'ip2'), (50, 4, 4))
    """
    graph = Graph()
    put = graph.put
    y = put("conv1", Conv2d(1, 20, 5), INPUT)
    y = put("pool1", MaxPool2d(2), y)
    y = put("conv2", Conv2d(20, 50, 5), y)
    y = put("pool2", MaxPool2d(2), y)
    y = put("flatten", Flatten(), y)
    y = put("ip1", Linear(50 * 4 * 4, 500), y)
    y = put("relu1", ReLU(), y)
    put("ip2", Linear(500, CLASSES), y)
    return graph.network(rng, INPUT_SHAPE, dtype)
