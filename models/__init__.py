"""Networks by name, what their inputs are, and small trained weights (see ``README.md`` beside this file)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from refldnq._checks import check_choice
from refldnq.data.preprocess import PRESETS, Preprocess
from refldnq.models.alexnet import alexnet
from refldnq.models.cifarnet import cifarnet
from refldnq.models.digits_cnn import cnn_digits
from refldnq.models.lenet import lenet5
from refldnq.models.mlp import mlp_digits
from refldnq.models.resnet_cifar import DEPTHS, resnet_cifar
from refldnq.models.resnet_imagenet import BLOCKS, resnet_imagenet
from refldnq.models.squeezenet import squeezenet
from refldnq.models.vgg_distilquant import vgg_distilquant
from refldnq.models.wrn import wrn
from refldnq.network import Network


@dataclass(frozen=True, slots=True)
class Architecture:
    """What a name stands for.

    Parameters
    ----------
    make : callable
        Called with a generator and keyword options, among them ``dtype``.
    preset : str
        Name of the preprocessing in `refldnq.data.preprocess.PRESETS`.
    """

    make: Callable[..., Network]
    preset: str


ARCHITECTURES: dict[str, Architecture] = {
    "mlp-digits": Architecture(mlp_digits, "digits"),
    "cnn-digits": Architecture(cnn_digits, "digits"),
    "lenet5": Architecture(lenet5, "mnist"),
    **{f"resnet{d}": Architecture(partial(resnet_cifar, d), "cifar-resnet") for d in DEPTHS},
    **{f"resnet{d}-b": Architecture(partial(resnet_cifar, d, option="B"), "cifar-resnet") for d in DEPTHS},
    "cifarnet": Architecture(cifarnet, "cifar-half"),
    "vgg-distilquant": Architecture(vgg_distilquant, "cifar-half"),
    **{f"wrn28-{k}": Architecture(partial(wrn, widen=k), "cifar-half") for k in (1, 10, 20)},
    **{f"resnet{d}": Architecture(partial(resnet_imagenet, d), "imagenet") for d in BLOCKS},
    "alexnet": Architecture(partial(alexnet, batch_norm=False), "imagenet"),
    "alexnet-bn": Architecture(alexnet, "imagenet"),
    **{f"squeezenet{v}": Architecture(partial(squeezenet, v), "imagenet") for v in ("1.0", "1.1")},
}
"""Every architecture by name; ``-b`` are shortcuts of option B, ``wrn28-20`` is the paper's WRN."""

NAMES = tuple(ARCHITECTURES)
"""Their names."""

SHIPPED = ("mlp-digits", "cnn-digits")
"""Architectures whose trained weights lie beside this file."""


def build(
    name: str, rng: np.random.Generator, *, dtype: npt.DTypeLike = np.float64, **options: Any
) -> Network:
    """The network called `name` with random weights.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    rng : numpy.random.Generator
        Draws the weights.
    dtype : numpy.dtype, optional
        float64 or float32; with the latter large networks take half the memory at every moment.
    **options
        Options of the architecture's own function in place of its defaults, such as ``widen`` and ``dropout``
        of a WRN, ``option`` of a CIFAR ResNet, ``size`` and ``classes`` of an ImageNet ResNet.

    Returns
    -------
    Network

    Raises
    ------
    ValueError
        If the name or an option is unknown, or an option out of range.
    TypeError
        If the type is neither float64 nor float32, or an option is of another type.

    Examples
    --------
    >>> import numpy as np
    >>> build("mlp-digits", np.random.default_rng(0)).weighted
    ('fc1', 'fc2', 'fc3')
    >>> build("wrn28-1", np.random.default_rng(0), dropout=0).shapes["layer3.3.add"]
    (64, 8, 8)
    """
    check_choice("name", name, NAMES)
    make = ARCHITECTURES[name].make
    known = [key for key, one in inspect.signature(make).parameters.items() if one.kind is one.KEYWORD_ONLY]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"`options` of {name} must be among {sorted(known)}, got {unknown}.")
    return make(rng, dtype=dtype, **options)


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
        One of the presets of `refldnq.data.preprocess`.

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
    return PRESETS[ARCHITECTURES[name].preset]
