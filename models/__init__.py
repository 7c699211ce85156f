"""Networks by name, what their inputs are, and small trained weights (see ``README.md`` beside this file)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from refldnq._checks import check_choice
from refldnq.data.preprocess import PRESETS, Preprocess
from refldnq.models.digits_cnn import cnn_digits
from refldnq.models.mlp import mlp_digits
from refldnq.models.resnet_cifar import DEPTHS, resnet_cifar
from refldnq.network import Network

_BUILDERS: dict[str, Callable[[np.random.Generator], Network]] = {
    "mlp-digits": mlp_digits,
    "cnn-digits": cnn_digits,
    **{f"resnet{depth}": partial(resnet_cifar, depth) for depth in DEPTHS},
}

NAMES = tuple(_BUILDERS)
"""Every architecture."""

SHIPPED = ("mlp-digits", "cnn-digits")
"""Architectures whose trained weights lie beside this file."""


def build(name: str, rng: np.random.Generator) -> Network:
    """The network called `name` with random weights, float64.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    rng : numpy.random.Generator
        Draws the weights.

    Returns
    -------
    Network

    Raises
    ------
    ValueError
        If the name is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> build("mlp-digits", np.random.default_rng(0)).weighted
    ('fc1', 'fc2', 'fc3')
    """
    check_choice("name", name, NAMES)
    return _BUILDERS[name](rng)


def shipped(name: str) -> Path:
    """The file with the trained weights of the network called `name`.

    Parameters
    ----------
    name : str
        One of `SHIPPED`.

    Raises
    ------
    ValueError
        If there is no such file.

    Examples
    --------
    >>> shipped("cnn-digits").name
    'cnn-digits.h5'
    """
    check_choice("name", name, SHIPPED)
    return Path(__file__).with_name(f"{name}.h5")


def preprocess(name: str) -> Preprocess:
    """What turns images into inputs of the network called `name`.

    Parameters
    ----------
    name : str
        One of `NAMES`.

    Returns
    -------
    Preprocess
        The preset ``"digits"`` or ``"cifar-resnet"`` of `refldnq.data.preprocess`.

    Raises
    ------
    ValueError
        If the name is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> preprocess("mlp-digits")(np.full((1, 1, 8, 8), 16, np.uint8), np.float32).max()
    np.float32(1.0)
    """
    check_choice("name", name, NAMES)
    return PRESETS["cifar-resnet" if name.startswith("resnet") else "digits"]
