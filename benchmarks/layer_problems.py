"""The problems (10) of a published network's layers: H from training images, W of the network as it is.

Nothing is quantized before a layer, so all solvers see the same problems.
"""

from __future__ import annotations

import numpy as np

from refldnq._typing import Array, Float64Array
from refldnq.data import Dataset
from refldnq.experiments.run import required_preprocess
from refldnq.hessian import HessianAccumulator
from refldnq.layers.base import LinearMap
from refldnq.model import Model

BATCH = 100
"""Images at a time."""


def hessians(model: Model, images: Array, chosen: tuple[str, ...]) -> dict[str, Float64Array]:
    """The blocks (2/n) XᵀX of some layers of the original network, from one pass over the images."""
    network = model.network
    sums = {}
    for name in chosen:
        layer = network[name].layer
        assert isinstance(layer, LinearMap)
        sums[name] = HessianAccumulator(layer)
    for first in range(0, len(images), BATCH):
        live, cut = network.start(images[first : first + BATCH]), 0
        for name in chosen:
            live = network.advance(live, cut, network.position(name))
            cut = network.position(name)
            sums[name].add(live[network[name].inputs[0]])
    return {name: accumulator.result().blocks for name, accumulator in sums.items()}


def layer_problems(
    model: Model, data: Dataset, *, images: int, seed: int, layers: tuple[str, ...] | None = None
) -> list[tuple[str, Float64Array, Float64Array]]:
    """Name, H (g, d, d) and W (g, d, m) of some layers, or of all that can be quantized, in order."""
    network = model.network
    places = data.sample(images, np.random.default_rng(seed))
    x = required_preprocess(model)(data.images[places], network.dtype)
    problems = []
    for name, H in hessians(model, x, network.weighted if layers is None else layers).items():
        layer = network[name].layer
        assert isinstance(layer, LinearMap)
        problems.append((name, H, layer.pack(network.params[name]).astype(np.float64)))
    return problems
