"""CIFARNet, (2x128C3)-MP2-(2x256C3)-MP2-(2x512C3)-MP2-(2x1024FC)-10SVM ([LDNQ] footnote 3).

The network of BinaryConnect (Courbariaux et al. 2015, section 3.3) and of the baseline LAT (Hou & Kwok 2018),
trained with the squared hinge loss (`refldnq.loss.squared_hinge`) of an L2-SVM: the network's `loss`. Both
use batch normalization, which the footnote does not name; their code has it between pooling and ReLU, the
notation used here, "C3 is a 3x3 ReLU convolution layer", puts the pooling last. The two differ where a scale
is negative.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from refldnq._checks import check_integer
from refldnq.layers import BatchNorm, Conv2d, Flatten, Linear, MaxPool2d, ReLU
from refldnq.models.graph import Graph
from refldnq.network import INPUT, Network

CLASSES = 10


def cifarnet(
    rng: np.random.Generator,
    *,
    width: int = 128,
    hidden: int = 1024,
    batch_norm: bool = True,
    dtype: npt.DTypeLike = np.float64,
) -> Network:
    """CIFARNet with random weights.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws the weights: He-normal, biases zero, batch normalization at the identity.
    width : int, optional
        Channels of the first two convolutions; the others have two and four times as many. 128 in the papers.
    hidden : int, optional
        Units of each hidden linear layer; 1024 in the papers.
    batch_norm : bool, optional
        Whether every layer but the last is followed by batch normalization, which then has the bias.
    dtype : numpy.dtype, optional
        float64 or float32.

    Returns
    -------
    Network
        Input (3, 32, 32), output 10 margins, the squared hinge as their loss; layers ``conv1`` to ``conv6``,
        ``fc1``, ``fc2``, ``svm``.

    Raises
    ------
    ValueError
        If `width` or `hidden` is below 1.
    TypeError
        If one of them is not an integer.

    Examples
    --------
    >>> network = cifarnet(np.random.default_rng(0), width=2, hidden=3)
    >>> network.weighted[-3:], network.shapes["pool3"]
    (('fc1', 'fc2', 'svm'), (8, 4, 4))
    """
    check_integer("width", width, at_least=1)
    check_integer("hidden", hidden, at_least=1)
    graph = Graph()
    put = graph.put
    y, channels = INPUT, 3
    for stage in (1, 2, 3):
        for index in (2 * stage - 1, 2 * stage):
            new = width * 2 ** (stage - 1)
            y = put(f"conv{index}", Conv2d(channels, new, 3, padding=1, bias=not batch_norm), y)
            if batch_norm:
                y = put(f"bn{index}", BatchNorm(new), y)
            y = put(f"relu{index}", ReLU(), y)
            channels = new
        y = put(f"pool{stage}", MaxPool2d(2), y)
    y = put("flatten", Flatten(), y)
    features = channels * 4 * 4
    for index in (1, 2):
        y = put(f"fc{index}", Linear(features, hidden, bias=not batch_norm), y)
        if batch_norm:
            y = put(f"bn{6 + index}", BatchNorm(hidden), y)
        y = put(f"relu{6 + index}", ReLU(), y)
        features = hidden
    put("svm", Linear(hidden, CLASSES), y)
    return graph.network(rng, (3, 32, 32), dtype, loss="squared_hinge")
