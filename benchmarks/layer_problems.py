"""The problems (10) of a published network's layers: H from training images, W of the network as it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from published import published_model

from refldnq._typing import Float64Array
from refldnq.data import load_dataset
from refldnq.experiments.run import required_preprocess
from refldnq.hessian import accumulate_hessian
from refldnq.layers.base import LinearMap

BATCH = 100
"""Images at a time."""


def layer_problems(
    data: Path, network: str, *, images: int = 500, seed: int = 0
) -> Iterator[tuple[str, Float64Array, Float64Array]]:
    """Name, H (g, d, d) and W (g, d, m) of every layer that can be quantized, in order.

    Nothing is quantized before a layer, so all solvers see the same problems.
    """
    model = published_model(data, network)
    train = load_dataset(data, "train")
    chosen = np.sort(np.random.default_rng(seed).choice(len(train), images, replace=False))
    net = model.network
    live = net.start(required_preprocess(model)(train.images[chosen], net.dtype))
    start = 0
    for name in net.weighted:
        stop = net.position(name)
        live = net.advance(live, start, stop)
        start = stop
        layer = net[name].layer
        assert isinstance(layer, LinearMap)
        x = live[net[name].inputs[0]]
        hessian = accumulate_hessian(layer, [x[i : i + BATCH] for i in range(0, images, BATCH)])
        yield name, hessian.blocks, layer.pack(net.params[name]).astype(np.float64)
