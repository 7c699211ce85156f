"""How the networks here are put together: nodes in order, then random arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from refldnq._typing import Shape
from refldnq.layers.base import Layer
from refldnq.loss import LossName
from refldnq.models.initial import initial_params
from refldnq.network import Network, Node


class Graph:
    """Nodes in the order in which they are put.

    Examples
    --------
    >>> from refldnq.layers import Linear, ReLU
    >>> graph = Graph()
    >>> y = graph.put("fc", Linear(2, 3), "input")
    >>> y = graph.put("relu", ReLU(), y)
    >>> graph.network(np.random.default_rng(0), (2,), np.float32).dtype
    dtype('float32')
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []

    def put(self, name: str, layer: Layer, *inputs: str) -> str:
        """Add a node; its name."""
        self.nodes.append(Node(name, layer, inputs))
        return name

    def network(
        self,
        rng: np.random.Generator,
        input_shape: Shape,
        dtype: npt.DTypeLike = np.float64,
        loss: LossName = "cross_entropy",
    ) -> Network:
        """The network with arrays as in `initial_params`."""
        return Network(tuple(self.nodes), initial_params(self.nodes, rng, dtype), input_shape, loss)
