"""L-DNQ⁻: Algorithm 1 without the weights update of step 4 [paper].

The Hessian of a layer is still that behind the quantized layers before it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from refldnq._typing import Array
from refldnq.baselines.base import check_levels
from refldnq.baselines.loop import LayerDone, LoopState
from refldnq.codebook import powers_of_two
from refldnq.ldnq import ldnq
from refldnq.ldnq_settings import LdnqSettings
from refldnq.network import Network
from refldnq.progress import Progress

NAME = "ldnq-"
"""As it is asked for, as a baseline and among the methods of the paper's tables."""

LEVELS = range(3, 16, 2)
"""Numbers of values of a set."""


def without_update(settings: LdnqSettings) -> LdnqSettings:
    """What L-DNQ⁻ is: the settings of Algorithm 1, without its step 4.

    Parameters
    ----------
    settings : LdnqSettings
        Of Algorithm 1.

    Examples
    --------
    >>> without_update(LdnqSettings()).update is None
    True
    """
    return replace(settings, update=None)


def resolve(settings: LdnqSettings, levels: int) -> LdnqSettings:
    """Settings with the set of values, without the update; raises ValueError if there is no such set.

    The solver's own are written out.

    Parameters
    ----------
    settings : LdnqSettings
        Of Algorithm 1; its layers are chosen elsewhere.
    levels : int
        3, 5, ..., 15.

    Examples
    --------
    >>> resolve(LdnqSettings(), 5).codebook.levels
    5
    """
    check_levels(levels, LEVELS, "L-DNQ⁻")
    return replace(without_update(settings), codebook=powers_of_two(levels), skip=()).explicit


def quantize_network(
    network: Network,
    layers: tuple[str, ...],
    levels: int,
    images: Array,
    rng: np.random.Generator,
    settings: LdnqSettings | None,
    state: LoopState,
    tell: Callable[[LayerDone], None],
) -> None:
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
        Gives Algorithm 1 its streams; without the update nothing is drawn from them.
    settings : LdnqSettings or None
        How.
    state : LoopState
        What is done already.
    tell : callable
        Called after every layer.

    Raises
    ------
    ValueError
        If there is no such set of values.
    """
    how = replace(
        resolve(settings or LdnqSettings(), levels),
        skip=tuple(name for name in network.weighted if name not in layers),
    )
    done: Progress | None = None
    if state.epoch:
        done = Progress(
            network=network.replace({name: state.params[name] for name in network.params}),
            quantized=state.quantized,
            reports=state.reports,
            total=state.epochs,
        )

    def on_layer(progress: Progress) -> None:
        report = progress.reports[-1]
        code, arrays = progress.quantized[report.name], progress.network.params
        tell(LayerDone(report.name, arrays, code, float(levels), progress.total, report))

    ldnq(network, images, how, rng, on_layer=on_layer, resume=done)
