"""A multilayer perceptron for the 8x8 digits: a network small enough to check every number of by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from refldnq._checks import check_integer
from refldnq.layers import BatchNorm, Flatten, Linear, ReLU
from refldnq.models.graph import Graph
from refldnq.network import INPUT, Network

INPUT_SHAPE = (1, 8, 8)
CLASSES = 10


def mlp_digits(
    rng: np.random.Generator,
    *,
    hidden: Sequence[int] = (128, 64),
    batch_norm: bool = True,
    dtype: npt.DTypeLike = np.float64,
) -> Network:
    """Linear layers with ReLU between them, on the flattened digit.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws the weights: He-normal, batch normalization at the identity.
    hidden : sequence of int, optional
        Units of each hidden layer; two layers, chosen here.
    batch_norm : bool, optional
        Whether every hidden layer is followed by batch normalization, which then has the bias.
    dtype : numpy.dtype, optional
        float64 or float32.

    Returns
    -------
    Network
        Input (1, 8, 8), output 10 logits; layers ``fc1``, ``fc2``, ...

    Raises
    ------
    ValueError
        If a layer has less than one unit.
    TypeError
        If a number of units is not an integer.

    Examples
    --------
    >>> import numpy as np
    >>> mlp_digits(np.random.default_rng(0), hidden=(32,)).weighted
    ('fc1', 'fc2')
    """
    graph = Graph()
    put = graph.put
    y = put("flatten", Flatten(), INPUT)
    features = int(np.prod(INPUT_SHAPE))
    for index, units in enumerate(hidden, start=1):
        check_integer("hidden", units, at_least=1)
        y = put(f"fc{index}", Linear(features, units, bias=not batch_norm), y)
        if batch_norm:
            y = put(f"bn{index}", BatchNorm(units), y)
        y = put(f"relu{index}", ReLU(), y)
        features = units
    put(f"fc{len(hidden) + 1}", Linear(features, CLASSES), y)
    return graph.network(rng, INPUT_SHAPE, dtype)
