"""The arrays of a network before training."""

from __future__ import annotations

import numpy as np

from refldnq._typing import Array
from refldnq.layers import BatchNorm, he_normal
from refldnq.network import Node


def initial_params(nodes: list[Node], rng: np.random.Generator) -> dict[str, dict[str, Array]]:
    """Random arrays for every node: He-normal weights, zero biases, batch normalization at the identity.

    Parameters
    ----------
    nodes : list of Node
        The graph.
    rng : numpy.random.Generator
        Draws the weights in the order of the nodes.

    Returns
    -------
    dict of str to dict of str to Array
        Arrays by node and name, float64.

    Examples
    --------
    >>> import numpy as np
    >>> arrays = initial_params([Node("bn", BatchNorm(2), ("input",))], np.random.default_rng(0))
    >>> arrays["bn"]["running_var"]
    array([1., 1.])
    """
    params: dict[str, dict[str, Array]] = {}
    for node in nodes:
        own: dict[str, Array] = {}
        for key, shape in node.layer.parameter_shapes().items():
            if isinstance(node.layer, BatchNorm):
                own[key] = np.ones(shape) if key in ("weight", "running_var") else np.zeros(shape)
            elif key == "weight":
                own[key] = he_normal(rng, shape, int(np.prod(shape[1:])))
            else:
                own[key] = np.zeros(shape)
        if own:
            params[node.name] = own
    return params
