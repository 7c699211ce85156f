"""Codes of a layer's weight from the values that its entries take."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from refldnq._typing import Array
from refldnq.layers.base import LinearMap
from refldnq.model import QuantizedWeight
from refldnq.network import Network


def packed(network: Network, name: str, weight: Array) -> Array:
    """An array in the shape of a layer's weight, as (g, d, m).

    Parameters
    ----------
    network : Network
        The network.
    name : str
        A layer with weights.
    weight : Array
        Of any type.
    """
    layer = network[name].layer
    assert isinstance(layer, LinearMap)
    return layer.pack({"weight": weight})


def encode(network: Network, name: str, weight: Array) -> QuantizedWeight:
    """The codes of a weight with few distinct entries: its values are these entries, its scale is 1.

    Parameters
    ----------
    network : Network
        The network.
    name : str
        A layer with weights.
    weight : Array
        In the shape of the layer's weight, with at most 128 distinct values.

    Raises
    ------
    ValueError
        If there are more.
    """
    values, inverse = np.unique(weight.astype(np.float64) + 0.0, return_inverse=True)  # -0.0 becomes 0.0
    if len(values) > 128:
        raise ValueError(f"`weight` must have at most 128 distinct values, got {len(values)}.")
    codes = packed(network, name, inverse.reshape(weight.shape)).astype(np.int8)
    return QuantizedWeight(codes=codes, alpha=np.array(1.0), values=values)


def place_codes(network: Network, codes: Mapping[str, QuantizedWeight]) -> dict[str, dict[str, Array]]:
    """The network's arrays that codes give, by layer.

    Parameters
    ----------
    network : Network
        The network.
    codes : mapping of str to QuantizedWeight
        By layer.
    """
    return {name: code.arrays(network[name], network.dtype) for name, code in codes.items()}


def mean_over_weights(network: Network, numbers: Mapping[str, float]) -> float:
    """The mean of a number of each layer, weighted by the layers' numbers of weights.

    Parameters
    ----------
    network : Network
        The network.
    numbers : mapping of str to float
        By layer; at least one.
    """
    sizes = [network.params[name]["weight"].size for name in numbers]
    return float(np.average(list(numbers.values()), weights=sizes))
