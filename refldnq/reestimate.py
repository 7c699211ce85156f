"""Batch normalization's statistics of a network as it is."""

from __future__ import annotations

from dataclasses import replace

from refldnq._typing import Array
from refldnq.batches import advance
from refldnq.layers.batchnorm import BatchNorm
from refldnq.network import Live, Network


def reestimate_statistics(network: Network, images: Array, batch_size: int = 100) -> Network:
    """Batch normalization's running statistics computed anew, in order, from the images' exact moments.

    Parameters
    ----------
    network : Network
        Quantized or not.
    images : Array, shape (n, *input_shape)
        Preprocessed images.
    batch_size : int, optional
        Images at a time.

    Returns
    -------
    Network
        Every batch-norm layer normalizes what the layers before it, with *their* new statistics, give for
        `images`.

    Examples
    --------
    >>> import numpy as np
    >>> from refldnq.network import Node
    >>> layer = BatchNorm(1)
    >>> old = {"bn": {key: np.ones(1) for key in layer.parameter_shapes()}}
    >>> network = Network((Node("bn", layer, ("input",)),), old, (1,))
    >>> new = reestimate_statistics(network, np.array([[1.0], [3.0]]))
    >>> float(new.params["bn"]["running_mean"][0]), float(new.params["bn"]["running_var"][0])
    (2.0, 2.0)
    """
    live: Live = network.start(images)
    cut = 0
    for position, node in enumerate(network.nodes):
        if not isinstance(node.layer, BatchNorm):
            continue
        live = advance(network, live, cut, position, batch_size)
        cut = position
        exact = replace(node.layer, momentum=1.0)  # the new statistics are the batch's alone
        _, tape = exact.forward(network.params[node.name], live[node.inputs[0]], mode="train")
        network = network.replace({node.name: exact.new_statistics(network.params[node.name], tape)})
    return network
