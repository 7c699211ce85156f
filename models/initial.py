"""The arrays of a network before training."""

from __future__ import annotations

from math import prod

import numpy as np
import numpy.typing as npt

from refldnq._checks import FLOATS
from refldnq._typing import Array
from refldnq.layers import BatchNorm, he_normal
from refldnq.network import Node


def initial_params(
    nodes: list[Node], rng: np.random.Generator, dtype: npt.DTypeLike = np.float64
) -> dict[str, dict[str, Array]]:
    """Random arrays for every node: He-normal weights, zero biases, batch normalization at the identity.

    Parameters
    ----------
    nodes : list of Node
        The graph.
    rng : numpy.random.Generator
        Draws the weights in the order of the nodes.
    dtype : numpy.dtype, optional
        float64 or float32. Weights are drawn in this type, so that single precision never takes the memory of
        double; the two types' weights are different draws.

    Returns
    -------
    dict of str to dict of str to Array
        Arrays by node and name.

    Raises
    ------
    TypeError
        If the type is another.

    Examples
    --------
    >>> import numpy as np
    >>> arrays = initial_params([Node("bn", BatchNorm(2), ("input",))], np.random.default_rng(0))
    >>> arrays["bn"]["running_var"]
    array([1., 1.])
    """
    if np.dtype(dtype) not in FLOATS:
        raise TypeError(f"`dtype` must be float32 or float64, got {np.dtype(dtype)}.")
    params: dict[str, dict[str, Array]] = {}
    for node in nodes:
        own: dict[str, Array] = {}
        for key, shape in node.layer.parameter_shapes().items():
            if isinstance(node.layer, BatchNorm):
                ones = key in ("weight", "running_var")
                own[key] = np.ones(shape, dtype) if ones else np.zeros(shape, dtype)
            elif key == "weight":
                own[key] = he_normal(rng, shape, prod(shape[1:]), dtype)
            else:
                own[key] = np.zeros(shape, dtype)
        if own:
            params[node.name] = own
    return params
