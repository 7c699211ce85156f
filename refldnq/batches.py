"""A few images at a time, where no gradient is needed: it bounds memory."""

from __future__ import annotations

from math import prod

import numpy as np

from refldnq._typing import Array
from refldnq.layers import BatchNorm
from refldnq.network import Live, Network


def advance(network: Network, live: Live, start: int, stop: int, size: int) -> Live:
    """Evaluate nodes `start` to `stop` (excluded), at most `size` images at a time."""
    count = next(iter(live.values())).shape[0]
    parts = [
        network.advance({name: values[i : i + size] for name, values in live.items()}, start, stop)
        for i in range(0, count, size)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def check_batches(network: Network, cut: int, count: int, batch_size: int) -> None:
    """Refuse batches that are too small for the statistics of batch normalization behind a cut.

    Parameters
    ----------
    network : Network
        Nodes at or behind `cut` are in train mode.
    cut : int
        A position.
    count, batch_size : int
        Images, and most of them in a batch; the batches differ by at most one image.

    Raises
    ------
    ValueError
        If a channel would have a single value in a batch.

    Examples
    --------
    >>> from refldnq.network import Node
    >>> params = {"bn": {name: np.ones(3) for name in ("weight", "bias", "running_mean", "running_var")}}
    >>> network = Network((Node("bn", BatchNorm(3), ("input",)),), params, (3,))
    >>> check_batches(network, 0, 4, 2)
    >>> check_batches(network, 0, 3, 2)
    Traceback (most recent call last):
    ValueError: `batch_size` must leave 'bn' two values a channel in every batch, got 2 for 3 images.
    """
    least = count // -(-count // batch_size)
    for node in network.nodes[cut:]:
        if isinstance(node.layer, BatchNorm) and least * prod(network.shapes[node.name][1:]) < 2:
            raise ValueError(
                f"`batch_size` must leave {node.name!r} two values a channel in every batch, got "
                f"{batch_size} for {count} image{'' if count == 1 else 's'}."
            )


def split(x: Array, size: int) -> list[Array]:
    """Batches of at most `size` images.

    Examples
    --------
    >>> split(np.arange(3.0), 2)
    [array([0., 1.]), array([2.])]
    """
    return [x[i : i + size] for i in range(0, x.shape[0], size)]
