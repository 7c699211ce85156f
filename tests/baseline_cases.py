"""A small network, images and labels on which every baseline runs in moments."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from refldnq._typing import Array, Int64Array
from refldnq.baselines import BASELINES, BaselineResult, Schedule
from refldnq.layers import Add, BatchNorm, Conv2d, Dropout, Flatten, Linear, ReLU
from refldnq.network import Network, Node

TRAINED = tuple(name for name, one in BASELINES.items() if one.trains)

SHORT = Schedule(
    epochs=3, batch_size=8, learning_rate=0.02, weight_decay=1e-3, crop=1, origin="short, for tests"
)

LAYERS = ("conv1", "conv2", "fc")


def tiny_network(seed: int = 0, dropout: float = 0.1) -> Network:
    """A residual network with batch norm, dropout, biases and 2 x 4 x 4 images."""
    rng = np.random.default_rng(seed)
    nodes = (
        Node("conv1", Conv2d(2, 4, 3, padding=1, bias=False), ("input",)),
        Node("bn1", BatchNorm(4), ("conv1",)),
        Node("relu1", ReLU(), ("bn1",)),
        Node("conv2", Conv2d(4, 4, 3, padding=1), ("relu1",)),
        Node("bn2", BatchNorm(4), ("conv2",)),
        Node("add", Add(), ("bn2", "relu1")),
        Node("flatten", Flatten(), ("add",)),
        Node("drop", Dropout(dropout), ("flatten",)),
        Node("fc", Linear(64, 3), ("drop",)),
    )
    params: dict[str, dict[str, Array]] = {}
    for node in nodes:
        shapes = node.layer.parameter_shapes()
        if shapes:
            params[node.name] = {key: 0.3 * rng.standard_normal(shape) for key, shape in shapes.items()}
    for name in ("bn1", "bn2"):
        params[name]["running_var"] = rng.uniform(0.5, 2.0, 4)
        params[name]["weight"] = rng.uniform(0.5, 1.5, 4)
    return Network(nodes, params, (2, 4, 4))


NETWORK = tiny_network()
IMAGES: Array = np.random.default_rng(1).standard_normal((24, 2, 4, 4))
LABELS: Int64Array = np.random.default_rng(2).integers(0, 3, 24)


def run(name: str, network: Network = NETWORK, **changes: Any) -> BaselineResult:
    images = IMAGES.astype(network.dtype)
    arguments: dict[str, Any] = {"levels": 3, "rng": np.random.default_rng(3), "schedule": SHORT, **changes}
    return BASELINES[name].run(network, images, arguments.pop("labels", LABELS), **arguments)


def bits(network: Network) -> dict[str, bytes]:
    return {f"{n}/{k}": array.tobytes() for n, own in network.params.items() for k, array in own.items()}


def plain_network() -> Network:
    """`tiny_network` without dropout, whose masks PyTorch would draw otherwise."""
    network = tiny_network()
    nodes = tuple(
        replace(node, inputs=("flatten",)) if node.name == "fc" else node
        for node in network.nodes
        if node.name != "drop"
    )
    return Network(nodes, network.params, network.input_shape)
