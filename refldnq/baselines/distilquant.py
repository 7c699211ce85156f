"""DistilQuant, quantized distillation (Polino, Pascanu and Alistarh 2018) [code].

Weights are rounded uniformly between the least and the largest of each bucket; the network learns from the
full-precision one and from labels, with gradients that go straight through the rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from refldnq._checks import check_choice, check_finite, check_float, check_integer, check_number
from refldnq._typing import Array, Float64Array, Int64Array, NetworkParams
from refldnq.baselines.base import check_levels
from refldnq.baselines.loop import Method, Quantized
from refldnq.baselines.schedule import Schedule
from refldnq.loss import LOSSES, LossName, distillation
from refldnq.network import Network
from refldnq.optim import Tree

LEAST_RANGE = 1e-10
"""A bucket whose range is less is scaled by 1. [code]"""

LEVELS = range(2, 1 << 16)
"""Numbers of values of a bucket."""

PUBLISHED = Schedule(
    epochs=200,
    batch_size=100,
    learning_rate=0.1,
    decay="steps",
    milestones=(61, 121, 161),
    factor=0.2,
    nesterov=True,
    weight_decay=2.2e-4,
    decays="all",
    origin="[code], for WRN on CIFAR-10, where its penalty is 5e-4; 2.2e-4 is its default",
)

SCALED = Schedule(
    epochs=80,
    batch_size=50,
    learning_rate=0.05,
    nesterov=True,
    weight_decay=2.2e-4,
    decays="all",
    origin="chosen here, for 500 images; momentum and penalty [code]",
)
"""The rate was compared with 0.01, over a few epochs of a ResNet-20 on 500 images, by 2,000 other training
images; a `Schedule` in its place, given to the baseline, measures it again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DistilQuantSettings:
    """How DistilQuant rounds and what it minimizes.

    Parameters
    ----------
    bucket : int, optional
        Weights a bucket. [code]
    temperature : float, optional
        T. [code]
    share : float, optional
        Weight of the teacher, 1 - share that of the labels. [code] With 1 labels have no influence and need
        not be given.
    mean : {'elements', 'images'}, optional
        What the divergence from the teacher is averaged over: images and classes, as the original does
        [code], or images alone, as the formula says; a factor of the number of classes.

    Raises
    ------
    ValueError
        If a setting is out of range.
    TypeError
        If a setting is of another type.
    """

    bucket: int = 256
    temperature: float = 2.0
    share: float = 0.7
    mean: Literal["elements", "images"] = "elements"

    def __post_init__(self) -> None:
        check_integer("bucket", self.bucket, at_least=1)
        check_number("temperature", self.temperature, above=0)
        if not check_number("share", self.share, at_least=0) <= 1:
            raise ValueError(f"`share` must be at most 1, got {self.share}.")
        check_choice("mean", self.mean, ("elements", "images"))


def buckets(w: Array, size: int) -> Array:
    """The entries in order, in rows of `size`; the last row is filled with the last entry.

    Parameters
    ----------
    w : Array, any shape
        Weights; not empty.
    size : int
        Entries a row.

    Returns
    -------
    Array, shape (rows, size)

    Examples
    --------
    >>> buckets(np.array([1.0, 2.0, 3.0]), 2)
    array([[1., 2.],
           [3., 3.]])
    """
    flat = w.ravel()
    return np.pad(flat, (0, -flat.size % size), mode="edge").reshape(-1, size)


def quantize(w: Array, levels: int, bucket: int = 256) -> Array:
    """Every bucket rounded to `levels` equidistant values from its least to its largest entry.

    Parameters
    ----------
    w : Array, any shape
        Weights.
    levels : int
        s, at least 2.
    bucket : int, optional
        Entries a bucket.

    Returns
    -------
    Array, shape and type of w

    Raises
    ------
    ValueError
        If an entry is not finite, the range of a bucket is not, or a number is out of range.
    TypeError
        If `w` is not of floats.

    Notes
    -----
    Halfway between two values it is the one of even index. [code]

    Examples
    --------
    >>> quantize(np.array([0.0, 0.25, 0.75, 1.0]), 3)
    array([0., 0., 1., 1.])
    """
    check_finite("w", check_float("w", w))
    check_integer("levels", levels, at_least=2)
    check_integer("bucket", bucket, at_least=1)
    if w.size == 0:
        return w.copy()
    rows: Float64Array = buckets(w, bucket).astype(np.float64)
    low = rows.min(axis=1, keepdims=True)
    with np.errstate(over="ignore"):  # told below
        scale = rows.max(axis=1, keepdims=True) - low
    check_finite("range of w", scale)
    scale[scale < LEAST_RANGE] = 1.0
    rounded = np.rint((rows - low) / scale * (levels - 1)) / (levels - 1)
    flat: Array = (rounded * scale + low).ravel()[: w.size]
    return flat.reshape(w.shape).astype(w.dtype)


def loss(
    output: Array,
    teacher: Array,
    labels: Int64Array | None,
    settings: DistilQuantSettings,
    supervised: LossName = "cross_entropy",
) -> tuple[float, Array]:
    r"""The loss :math:`0.7\,T^2\,\mathrm{KL}(teacher\|student)+0.3\,\mathrm{CE}` and its gradient.

    Parameters
    ----------
    output, teacher : Array, shape (n, k)
        Logits.
    labels : Array, shape (n,), int64, or None
        Class indices; not looked at if the teacher's share is 1.
    settings : DistilQuantSettings
        T, the share and what the divergence is averaged over.
    supervised : {'cross_entropy', 'squared_hinge'}, optional
        The loss of the labels, CE above.

    Returns
    -------
    value : float
        The loss.
    dy : Array, shape (n, k)
        Its gradient with respect to `output`.

    Raises
    ------
    ValueError
        If labels have a share and are missing.
    """
    divergence, dkl = distillation(output, teacher, temperature=settings.temperature)
    share = settings.share / (output.shape[1] if settings.mean == "elements" else 1)
    kind, rest = output.dtype.type, 1.0 - settings.share
    if rest == 0:
        return share * divergence, kind(share) * dkl
    if labels is None:
        raise ValueError(f"`labels` must be given if the teacher's share is {settings.share}, got None.")
    own, down = LOSSES[supervised](output, labels)
    return share * divergence + rest * own, kind(share) * dkl + kind(rest) * down


@dataclass(frozen=True, kw_only=True)
class DistilQuant(Method):
    """DistilQuant as a `Method`: latent are the weights and all that is not quantized.

    Notes
    -----
    The released code rounds every parameter, biases and batch normalization too, and may leave out the first
    and the last; here weights of convolutions and linear layers are rounded, as by every other method. The
    labels' part of its loss is the cross-entropy; here it is the network's own, of which that is the usual.
    """

    settings: DistilQuantSettings
    levels: int

    @property
    def labels_used(self) -> bool:
        """Not if all that counts is the teacher."""
        return self.settings.share < 1

    def place(self, latent: Tree, memory: Tree) -> NetworkParams:
        """The rounded weights."""
        placed = {name: dict(own) for name, own in latent.items()}
        for name in self.layers:
            placed[name]["weight"] = quantize(latent[name]["weight"], self.levels, self.settings.bucket)
        return placed

    def loss(self, output: Array, x: Array, labels: Int64Array | None) -> tuple[float, Array]:
        """See the function of that name; the teacher sees the same version of the images."""
        return _loss(output, self.network.forward(x), labels, self.settings, self.network.loss)

    def finish(self, latent: Tree, memory: Tree) -> Quantized:
        """The rounded weights; every bucket has values of its own, so there are no codes."""
        return Quantized(self.place(latent, memory), {}, float(self.levels))


_loss = loss  # `DistilQuant` has a method of that name


def method(
    network: Network, layers: tuple[str, ...], levels: int, settings: DistilQuantSettings | None = None
) -> DistilQuant:
    """DistilQuant of a network; raises ValueError if there is no such set of values.

    Parameters
    ----------
    network : Network
        The well-trained network.
    layers : tuple of str
        What is quantized.
    levels : int
        s, at least 2.
    settings : DistilQuantSettings, optional
        How.
    """
    check_levels(levels, LEVELS, "DistilQuant")
    return DistilQuant(
        network=network, layers=layers, levels=levels, settings=settings or DistilQuantSettings()
    )
