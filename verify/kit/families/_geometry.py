"""Layers and their inputs, for the cases of patches, Hessians and packing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from refldnq._typing import Array
from refldnq.verify.kit.families._numbers import draws, hadamard

Quad = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """A layer and the images that it sees.

    Parameters
    ----------
    name : str
        In ids.
    comment : str
        What is special.
    images : Array
        (n, c, h, w), or (n, c) of a linear layer.
    units, kernel : int, (int, int)
        Output channels of one group; rows and columns.
    catches : mapping
        By operation: faults that it is made to catch.
    """

    name: str
    comment: str
    images: Array
    units: int = 2
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: Quad = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    bias: bool = False
    tier: str = "certified"
    catches: Mapping[str, str] = field(default_factory=dict)
    scored: bool = True

    @property
    def inputs(self) -> dict[str, Any]:
        """Arguments of `patches` and `hessian`."""
        channels = self.images.shape[1] // self.groups
        return {
            "X": self.images,
            "weight_shape": np.array((self.groups, self.units, channels, *self.kernel)),
            "stride": np.array(self.stride),
            "padding": np.array(self.padding),
            "dilation": np.array(self.dilation),
            "groups": self.groups,
            "bias": self.bias,
        }


def images(seed: int, *shape: int) -> Array:
    """Numbers of 18 bits between -4 and 4: their products have more than float32 holds."""
    return draws(seed, shape, -(2**17), 2**17, 2**15)


def layers() -> Iterator[Layer]:
    """Every geometry, the smallest images that show it."""
    yield Layer(
        name="conv-3x3",
        comment="3x3 with padding 1; an odd number of images",
        images=images(1, 3, 3, 4, 5),
        kernel=(3, 3),
        padding=(1, 1, 1, 1),
        catches={
            "patches": "rows-kh-kw-c padding-none padding-edge kernel-flipped kernel-transposed "
            "positions-transposed",
            "hessian": "rows-kh-kw-c padding-none padding-edge kernel-flipped kernel-transposed h-without-2 "
            "h-sum h-bare-sum h-positions h-positions-without-2 h-101-100 h-n-minus-1 h-factor-4 h-centred "
            "h-pooled h-half h-single h-upper h-diagonal h-damped h-last-dropped h-means-averaged",
        },
    )
    yield Layer(
        name="conv-s2-even-bias",
        comment="stride 2 over an even number of pixels, where SAME pads one side only; a constant 1",
        images=images(2, 2, 2, 6, 8),
        kernel=(3, 3),
        stride=(2, 2),
        padding=(1, 1, 1, 1),
        bias=True,
        catches={
            "patches": "padding-same stride-ignored bias-first bias-missing",
            "hessian": "padding-same stride-ignored bias-first bias-missing",
        },
    )
    yield Layer(
        name="conv-four-sides",
        comment="2x3 kernel, stride (2, 1), four different paddings",
        images=images(3, 3, 2, 6, 7),
        kernel=(2, 3),
        stride=(2, 1),
        padding=(1, 0, 2, 3),
        bias=True,
        catches={
            "patches": "padding-swapped padding-one-sided stride-swapped kernel-transposed "
            "positions-transposed",
            "hessian": "padding-swapped padding-one-sided stride-swapped",
        },
    )
    yield Layer(
        name="conv-dilated",
        comment="taps two rows and one column apart",
        images=images(4, 2, 2, 7, 6),
        kernel=(3, 2),
        dilation=(2, 1),
        padding=(2, 2, 0, 1),
        catches={"patches": "dilation-ignored", "hessian": "dilation-ignored"},
    )
    yield Layer(
        name="conv-groups",
        comment="two groups of three channels",
        images=images(5, 3, 6, 4, 4),
        kernel=(2, 2),
        groups=2,
        bias=True,
        catches={"patches": "groups-interleaved", "hessian": "groups-interleaved h-groups-averaged"},
    )
    yield Layer(
        name="conv-depthwise",
        comment="a group for every channel",
        images=images(6, 3, 4, 4, 5),
        units=1,
        kernel=(3, 3),
        padding=(1, 1, 1, 1),
        groups=4,
        catches={"patches": "kernel-flipped", "hessian": "h-groups-averaged"},
    )
    yield Layer(
        name="conv-1x1-s2",
        comment="1x1 with stride 2: three of four pixels are never seen",
        images=images(7, 3, 4, 4, 6),
        stride=(2, 2),
        catches={"patches": "stride-ignored", "hessian": "stride-ignored h-pooled"},
    )
    yield Layer(
        name="conv-s3-gaps",
        comment="stride beyond the kernel",
        images=images(8, 2, 2, 7, 8),
        kernel=(2, 1),
        stride=(3, 2),
        catches={"patches": "stride-swapped stride-ignored", "hessian": "stride-ignored"},
    )
    yield Layer(
        name="conv-whole-image",
        comment="the window is the image: one position",
        images=images(9, 5, 2, 3, 4),
        kernel=(3, 4),
        catches={"patches": "rows-kh-kw-c", "hessian": "h-means-averaged h-last-dropped"},
    )
    yield Layer(
        name="conv-wide-padding",
        comment="5x5 with padding 2 over 2x3 pixels: every window sees the border",
        images=images(10, 3, 1, 2, 3),
        kernel=(5, 5),
        padding=(2, 2, 2, 2),
        catches={"patches": "padding-edge padding-none kernel-flipped", "hessian": "padding-edge"},
    )
    yield Layer(
        name="conv-empty-windows",
        comment="padding beyond the kernel: some windows hold zeros only",
        images=images(11, 2, 1, 3, 3),
        kernel=(2, 2),
        padding=(3, 2, 2, 3),
        bias=True,
        tier="degenerate",
        catches={"patches": "padding-one-sided", "hessian": "padding-one-sided bias-missing"},
    )
    yield Layer(
        name="conv-one-image",
        comment="one image",
        images=images(12, 1, 2, 4, 4),
        kernel=(3, 3),
        padding=(1, 1, 1, 1),
        catches={"patches": "rows-kh-kw-c", "hessian": "h-without-2 h-factor-4"},
    )
    yield Layer(
        name="conv-dead-channel",
        comment="the first channel is 0, so H[0, 0] is 0",
        images=images(13, 3, 3, 4, 4) * _alive(3),
        kernel=(2, 2),
        tier="degenerate",
        catches={"patches": "rows-kh-kw-c", "hessian": "h-damped rows-kh-kw-c"},
    )
    yield Layer(
        name="conv-nonnegative",
        comment="as after a ReLU: the mean counts",
        images=abs(images(14, 5, 2, 4, 4)),
        kernel=(2, 2),
        catches={"patches": "rows-kh-kw-c", "hessian": "h-centred h-pooled"},
    )
    yield Layer(
        name="conv-ranges",
        comment="channels differ by a factor 2**20",
        images=images(15, 3, 2, 4, 4) * _alive(2, first=2.0**-10) / 2.0**-5,
        kernel=(2, 2),
        catches={"patches": "rows-kh-kw-c", "hessian": "h-half h-single"},
    )
    yield Layer(
        name="conv-small-integers",
        comment="small integers, 2 images: no sum rounds in any order",
        images=draws(16, (2, 2, 4, 5), -3, 3),
        kernel=(3, 3),
        padding=(1, 1, 1, 1),
        bias=True,
        tier="exact-dyadic",
        catches={"patches": "rows-kh-kw-c bias-first", "hessian": "h-sum h-upper"},
    )
    yield Layer(
        name="linear",
        comment="a linear layer without bias, more images than inputs",
        images=images(17, 7, 5),
        units=3,
        catches={"hessian": "h-n-minus-1 h-means-averaged h-last-dropped"},
    )
    yield Layer(
        name="linear-bias",
        comment="a linear layer with bias",
        images=images(18, 5, 4),
        units=3,
        bias=True,
        catches={"patches": "bias-first bias-missing", "hessian": "bias-first bias-missing h-centred"},
    )
    yield Layer(
        name="linear-few-images",
        comment="fewer images than inputs: H is singular",
        images=images(19, 3, 6),
        tier="degenerate",
        catches={"hessian": "h-damped h-diagonal"},
    )
    yield Layer(
        name="linear-hadamard",
        comment="orthogonal inputs: H is 2I exactly",
        images=hadamard(8),
        tier="exact-dyadic",
        catches={"hessian": "h-without-2 h-sum h-factor-4 h-n-minus-1"},
    )


def _alive(channels: int, *, first: float = 0.0) -> Array:
    # Factors of the channels: that of the first, and 1.
    factors = draws(0, (channels, 1, 1), 1, 1)
    factors[0] = first
    return factors
