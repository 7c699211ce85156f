"""A few images at a time, where no gradient is needed: it bounds memory."""

from __future__ import annotations

import numpy as np

from refldnq._typing import Array
from refldnq.network import Live, Network


def advance(network: Network, live: Live, start: int, stop: int, size: int) -> Live:
    """Evaluate nodes `start` to `stop` (excluded), at most `size` images at a time."""
    count = next(iter(live.values())).shape[0]
    parts = [
        network.advance({name: values[i : i + size] for name, values in live.items()}, start, stop)
        for i in range(0, count, size)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def split(x: Array, size: int) -> list[Array]:
    """Batches of at most `size` images.

    Examples
    --------
    >>> split(np.arange(3.0), 2)
    [array([0., 1.]), array([2.])]
    """
    return [x[i : i + size] for i in range(0, x.shape[0], size)]
