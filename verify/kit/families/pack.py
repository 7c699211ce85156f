"""Packing of weights: copies, judged as equal. The rows must be those of patches and of H."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from refldnq._typing import Array
from refldnq.verify.kit.cases import Case
from refldnq.verify.kit.families._make import make, refuse
from refldnq.verify.kit.families._numbers import draws

NONE = np.zeros(0)
"""The bias of a layer without one."""


def weights(seed: int, *shape: int) -> Array:
    """Distinct with near certainty, 20 bits."""
    return draws(seed, shape, -(2**19), 2**19, 2**20)


def cases() -> Iterator[Case]:
    """Kernels of all shapes, with and without bias and groups."""
    bias = weights(30, 6)
    for name, comment, weight, constant, groups, catches in (
        (
            "conv-3x3",
            "three channels, 3x3",
            weights(31, 4, 3, 3, 3),
            NONE,
            1,
            "pack-kh-kw-c pack-reshaped pack-flipped pack-transposed",
        ),
        (
            "conv-bias",
            "a rectangular kernel with a bias",
            weights(32, 3, 2, 2, 3),
            bias[:3],
            1,
            "pack-bias-first pack-bias-missing pack-kh-kw-c",
        ),
        (
            "conv-groups",
            "two groups of three units, with a bias",
            weights(33, 6, 2, 2, 2),
            bias,
            2,
            "pack-groups-interleaved pack-bias-first pack-bias-missing",
        ),
        (
            "conv-depthwise",
            "a group for every channel, two units each",
            weights(34, 6, 1, 3, 3),
            NONE,
            3,
            "pack-groups-interleaved pack-flipped",
        ),
        ("conv-1x1", "no space to be confused in", weights(35, 5, 4, 1, 1), NONE, 1, "pack-reshaped"),
        (
            "conv-column",
            "kernel of one column",
            weights(36, 2, 3, 3, 1),
            bias[:2],
            1,
            "pack-kh-kw-c pack-flipped",
        ),
        (
            "conv-one-unit",
            "one output channel",
            weights(37, 1, 2, 2, 3),
            NONE,
            1,
            "pack-transposed pack-kh-kw-c",
        ),
        ("linear", "(m, d) becomes (d, m)", weights(38, 4, 6), NONE, 1, "pack-reshaped"),
        (
            "linear-square",
            "square: a forgotten transpose keeps the shape",
            weights(39, 4, 4),
            NONE,
            1,
            "pack-reshaped",
        ),
        ("linear-bias", "with a bias", weights(40, 3, 5), bias[:3], 1, "pack-bias-first pack-bias-missing"),
    ):
        yield make(
            "pack", name, comment, {"weight": weight, "bias": constant, "groups": groups}, catches=catches
        )
    spoiled = weights(41, 2, 2, 2, 2)
    spoiled[1, 0, 1, 0] = np.nan
    yield refuse(
        "pack",
        "nan",
        "a weight is NaN",
        {"weight": spoiled, "bias": NONE, "groups": 1},
        "non-finite-accepted",
    )
    yield refuse(
        "pack",
        "groups",
        "3 units in 2 groups",
        {"weight": weights(42, 3, 2, 1, 1), "bias": NONE, "groups": 2},
    )
    yield refuse(
        "pack",
        "bias",
        "2 biases for 4 units",
        {"weight": weights(43, 4, 2, 1, 1), "bias": bias[:2], "groups": 1},
    )
