"""L-DNQ⁻: Algorithm 1 without the weights update of step 4 [paper].

The Hessian of a layer is still that behind the quantized layers before it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from refldnq._typing import Array
from refldnq.baselines.base import check_levels
from refldnq.baselines.codes import mean_over_weights
from refldnq.baselines.loop import Quantized
from refldnq.codebook import powers_of_two
from refldnq.ldnq import LdnqSettings, ldnq
from refldnq.network import Network


def quantize_network(
    network: Network,
    layers: tuple[str, ...],
    levels: int,
    images: Array,
    rng: np.random.Generator,
    settings: LdnqSettings | None = None,
) -> Quantized:
    """L-DNQ⁻ of every layer; `settings` have their codebook, layers and update replaced.

    Parameters
    ----------
    network : Network
        The well-trained network.
    layers : tuple of str
        What is quantized.
    levels : int
        3, 5, ..., 15.
    images : Array, shape (n, *input_shape)
        Preprocessed inputs.
    rng : numpy.random.Generator
        For solvers that draw.
    settings : LdnqSettings, optional
        How.

    Raises
    ------
    ValueError
        If there is no such set of values.
    """
    check_levels(levels, range(3, 16, 2), "L-DNQ⁻")
    how = replace(
        settings or LdnqSettings(),
        update=None,
        codebook=powers_of_two(levels),
        skip=tuple(name for name in network.weighted if name not in layers),
    )
    final = ldnq(network, images, how, rng)
    used = {name: float(levels) for name in layers}
    return Quantized(final.network.params, final.quantized, mean_over_weights(network, used))
