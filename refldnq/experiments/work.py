"""How much of a run each layer is, so that the time left can be told before the run is half over."""

from __future__ import annotations

from itertools import accumulate

import numpy as np

from refldnq.ldnq_settings import LdnqSettings
from refldnq.network import Network


def multiplications(network: Network) -> tuple[int, ...]:
    """Multiplications that each node takes for one image; 0 for nodes without weights.

    Examples
    --------
    >>> import numpy as np
    >>> from refldnq.layers import Conv2d
    >>> from refldnq.network import Node
    >>> nodes = (Node("conv", Conv2d(1, 2, 3, bias=False), ("input",)),)
    >>> multiplications(Network(nodes, {"conv": {"weight": np.ones((2, 1, 3, 3))}}, (1, 5, 5)))
    (162,)
    """
    weighted = set(network.weighted)
    return tuple(
        int(network.params[node.name]["weight"].size * np.prod(network.shapes[node.name][1:], dtype=int))
        if node.name in weighted
        else 0
        for node in network.nodes
    )


def layer_work(network: Network, settings: LdnqSettings, images: int) -> dict[str, float]:
    """Multiplications that each step of Algorithm 1 takes, roughly, by layer.

    Parameters
    ----------
    network : Network
        The network to quantize.
    settings : LdnqSettings
        Levels, solver, update.
    images : int
        Number of calibration images.

    Returns
    -------
    dict of str to float
        An estimate for the time left and nothing else: a forward pass of the step's versions up to the layer,
        the Gram matrix of its patches, or those of all its channels, and the update's passes (a backward one
        counts as two) through the rest.
    """
    cost = multiplications(network)
    before = [0, *accumulate(cost)]
    update = settings.update
    copies, passes = (min(update.copies, update.epochs), 3 * update.epochs) if update else (1, 0)
    work: dict[str, float] = {}
    for name in settings.chosen(network):
        position = network.position(name)
        rows = network.params[name]["weight"][0].size
        positions = int(np.prod(network.shapes[name][1:], dtype=int))
        solve = rows**3 / 3 + 100 * rows * network.params[name]["weight"].size  # of 100 iterations
        channels = network.params[name]["weight"].shape[0] / 2 if settings.closed_weight < 1 else 0
        rows_seen = settings.hessian_versions * positions * (1 + channels)  # half of a channel's are open
        gram = rows_seen * rows**2 / 2
        forward, rest = before[position + 1], before[-1] - before[position + 1]
        seen = copies if rest else 1  # behind the last layer nothing moves
        work[name] = images * (seen * forward + gram + passes * rest) + solve
    return work
