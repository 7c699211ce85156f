"""Single layers, forward and backward: every kind, corner cases, conventions where calculus has a choice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from refldnq._typing import Array
from refldnq.verify.kit.cases import Case
from refldnq.verify.kit.families._layers import backward, forward
from refldnq.verify.kit.families._make import refuse
from refldnq.verify.kit.families._numbers import draws, rounded
from refldnq.verify.kit.families._scalar import bounds, values

Inputs = Mapping[str, Any]

EXACT_KINDS = ("relu", "maxpool", "flatten", "concat", "zeropad", "shortcut")
"""Layers that compute nothing: their outputs are compared for equality."""


def _make(op: str, name: str, comment: str, inputs: Inputs, catches: str, *, tier: str) -> Case:
    found = forward(inputs) if op == "forward" else backward(inputs)
    dyadic = tier == "exact-dyadic"
    same = op == "forward" and inputs["layer"] in EXACT_KINDS
    outputs = {key: rounded(values(array)) for key, array in found.items()}
    return Case(
        op=op,
        id=f"{op}/{name}",
        comment=comment,
        tier=tier,
        catches=tuple(catches.split()),
        inputs=dict(inputs),
        outputs=outputs,
        compare=dict.fromkeys(found, "exact" if same or dyadic else "ulp"),
        bound={} if same or dyadic else {key: bounds(array) for key, array in found.items()},
        scored=any(array.any() for array in outputs.values()),
    )


def _both(
    name: str,
    comment: str,
    inputs: Inputs,
    *,
    ahead: str = "",
    back: str = "",
    seed: int,
    tier: str = "certified",
    only: str = "",
) -> Iterator[Case]:
    # The layer forward, and backward from random integers.
    if only != "backward":
        yield _make("forward", name, comment, inputs, ahead, tier=tier)
    if only != "forward":
        shape = forward(inputs)["y"].shape
        dy = draws(seed, shape, -7, 7, 2)
        yield _make("backward", name, comment, {**inputs, "dy": dy}, back, tier=tier)


def _conv(
    seed: int, shape: tuple[int, ...], weight: tuple[int, ...], *, bias: bool = False, **more: Any
) -> Inputs:
    given = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1, **more}
    return {
        "layer": "conv2d",
        "x": draws(seed, shape, -64, 64, 16),
        "weight": draws(seed + 1, weight, -64, 64, 32),
        **({"bias": draws(seed + 2, weight[:1], 1, 64, 16)} if bias else {}),
        **{key: np.array(value) if isinstance(value, tuple) else value for key, value in given.items()},
    }


def _linear() -> Iterator[Case]:
    inputs = {
        "layer": "linear",
        "x": draws(700, (5, 4), -64, 64, 16),
        "weight": draws(701, (3, 4), -64, 64, 32),
        "bias": draws(702, (3,), 1, 64, 16),
    }
    yield from _both(
        "linear",
        "four inputs, three units, a bias",
        inputs,
        seed=703,
        ahead="layer-bias-lost",
        back="weight-gradient-mean bias-gradient-missing bias-gradient-mean",
    )
    square = {"layer": "linear", "x": inputs["x"], "weight": draws(704, (4, 4), -64, 64, 32)}
    yield from _both(
        "linear-square",
        "a square weight without bias: its transpose has the right shape",
        square,
        seed=705,
        ahead="layer-kernel-transposed",
        back="layer-kernel-transposed weight-gradient-mean",
    )
    small = {"layer": "linear", "x": draws(706, (2, 3), -3, 3, 1), "weight": draws(707, (2, 3), -3, 3, 1)}
    small["bias"] = np.array([1.0, -2.0])
    yield from _both(
        "linear-integers",
        "small integers: nothing rounds",
        small,
        seed=708,
        tier="exact-dyadic",
        ahead="layer-bias-lost",
        back="bias-gradient-missing bias-gradient-mean weight-gradient-mean",
    )


def _convolutions() -> Iterator[Case]:
    yield from _both(
        "conv",
        "a square kernel with bias, padding on all sides",
        _conv(710, (2, 2, 5, 4), (3, 2, 3, 3), bias=True, padding=(1, 1, 1, 1)),
        seed=713,
        ahead="layer-kernel-flipped layer-kernel-transposed layer-bias-lost",
        back="input-gradient-kernel-flipped weight-gradient-mean bias-gradient-missing bias-gradient-mean",
    )
    yield from _both(
        "conv-stride",
        "strides 2 and 1, four different paddings, an oblong kernel",
        _conv(715, (2, 2, 5, 5), (2, 2, 2, 3), stride=(2, 1), padding=(1, 0, 0, 1)),
        seed=718,
        ahead="layer-kernel-flipped layer-stride-swapped",
        back="input-gradient-stride-ignored input-gradient-kernel-flipped",
    )
    yield from _both(
        "conv-stride-beyond-kernel",
        "stride 2 with a kernel of one pixel: skipped pixels have gradient 0",
        _conv(720, (2, 3, 4, 4), (2, 3, 1, 1), stride=(2, 2)),
        seed=723,
        back="input-gradient-stride-ignored weight-gradient-mean",
        only="backward",
    )
    yield from _both(
        "conv-dilated-groups",
        "dilation 2 and 1, two groups",
        _conv(725, (2, 4, 5, 4), (4, 2, 2, 2), dilation=(2, 1), groups=2, padding=(1, 1, 0, 0)),
        seed=728,
        ahead="layer-dilation-ignored layer-groups-interleaved layer-kernel-transposed",
        back="layer-groups-interleaved input-gradient-kernel-flipped",
    )
    yield from _both(
        "conv-integers",
        "small integers: nothing rounds",
        {
            **_conv(730, (2, 1, 4, 4), (2, 1, 3, 3), padding=(1, 1, 1, 1), stride=(2, 2)),
            "x": draws(731, (2, 1, 4, 4), -3, 3, 1),
            "weight": draws(732, (2, 1, 3, 3), -3, 3, 1),
        },
        seed=733,
        tier="exact-dyadic",
        ahead="layer-kernel-flipped layer-kernel-transposed",
        back="input-gradient-stride-ignored input-gradient-kernel-flipped weight-gradient-mean",
    )


def _affine(c: int, mode: str, eps: float, var: Array) -> dict[str, Any]:
    return {
        "layer": "batchnorm",
        "weight": np.array([1.5, -0.75, 2.0])[:c],
        "bias": np.array([0.5, -0.25, 0.125])[:c],
        "running_mean": np.array([0.25, -1.5, 0.5])[:c],
        "running_var": var,
        "eps": eps,
        "momentum": 0.125,
        "mode": mode,
    }


def batch_of_variance(seed: int, shape: tuple[int, ...]) -> tuple[Array, float]:
    """A batch whose channels have one biased variance v, and an ε for which √(v + ε) is rational.

    Examples
    --------
    >>> x, eps = batch_of_variance(1, (4, 2))
    >>> float(np.sqrt(x.var(axis=0) + eps)[0]) % 0.5
    0.0
    """
    n, c = shape[:2]
    first = draws(seed, (n, *shape[2:]), -24, 24, 8)
    channels = [first if k % 2 == 0 else -first[::-1] + k * 0.75 for k in range(c)]
    x = np.stack(channels, axis=1)
    variance = float(first.var())
    root = np.ceil(2 * np.sqrt(variance) + 0.5) / 2
    return x, float(root**2 - variance)


def _normalizations() -> Iterator[Case]:
    full = "batchnorm-statistics-constant batchnorm-variance-constant batchnorm-scale-gradient-unnormalized"
    rows = (("images", (2, 2, 2, 2)), ("features", (4, 3)))
    for k, (name, shape) in enumerate(rows):
        x, eps = batch_of_variance(740 + k, shape)
        c = shape[1]
        yield from _both(
            f"batchnorm-train-{name}",
            "train mode: biased variance inside, unbiased in the running statistics",
            {**_affine(c, "train", eps, np.array([2.0, 0.5, 1.25])[:c]), "x": x},
            seed=742 + k,
            ahead="batchnorm-eps-outside batchnorm-eps-missing batchnorm-unbiased batchnorm-running-biased "
            "batchnorm-momentum-swapped batchnorm-always-eval",
            back=f"{full} batchnorm-unbiased batchnorm-eps-outside batchnorm-always-eval",
        )
        var = np.array([2.25, 0.25, 4.0])[:c] - 0.125
        yield from _both(
            f"batchnorm-eval-{name}",
            "eval mode: the running statistics, ε = 1/8",
            {**_affine(c, "eval", 0.125, var), "x": draws(745 + k, shape, -24, 24, 8)},
            seed=747 + k,
            ahead="batchnorm-eps-outside batchnorm-eps-missing batchnorm-always-train",
            back="batchnorm-scale-gradient-unnormalized batchnorm-eps-outside batchnorm-always-train",
        )
    yield from _both(
        "batchnorm-dead-channel",
        "a running variance of 0: only ε is left",
        {
            **_affine(2, "eval", 2.0**-16, np.array([2.0**-8 - 2.0**-16, 0.0])),
            "x": draws(750, (3, 2), -24, 24, 8),
        },
        seed=751,
        tier="degenerate",
        ahead="batchnorm-eps-outside batchnorm-eps-missing",
        back="batchnorm-eps-outside batchnorm-eps-missing",
    )


def _units() -> Iterator[Case]:
    x = draws(760, (3, 2, 2, 3), -4, 4, 4)
    x[0, 0, 0, :2] = 0.0
    yield from _both(
        "relu",
        "both signs, and zeros: the derivative there is 0",
        {"layer": "relu", "x": x},
        seed=761,
        tier="exact-dyadic",
        ahead="relu-leaks",
        back="relu-derivative-one-at-zero relu-derivative-half-at-zero relu-clips-gradient relu-leaks",
    )
    yield from _both(
        "relu-dead",
        "a batch of zeros and negative numbers: nothing passes",
        {"layer": "relu", "x": -abs(x)},
        seed=762,
        tier="degenerate",
        back="relu-derivative-one-at-zero relu-derivative-half-at-zero relu-clips-gradient",
        only="backward",
    )
    yield from _both(
        "flatten",
        "two channels of two rows and three columns",
        {"layer": "flatten", "x": x},
        seed=763,
        tier="exact-dyadic",
        ahead="flatten-channels-last",
        back="flatten-channels-last",
    )
    yield from _both(
        "add",
        "two branches",
        {"layer": "add", "x": x, "x2": draws(764, x.shape, -64, 64, 32)},
        seed=765,
        tier="exact-dyadic",
        ahead="add-averages",
        back="add-gradient-one-branch add-averages",
    )
    yield from _both(
        "zeropad",
        "four different sides",
        {"layer": "zeropad", "x": x, "padding": np.array([2, 0, 1, 3])},
        seed=766,
        tier="exact-dyadic",
        ahead="pad-sides-swapped",
        back="pad-sides-swapped",
    )
    yield from _both(
        "zeropad-square",
        "sides that fit when swapped",
        {"layer": "zeropad", "x": draws(767, (2, 1, 2, 2), 1, 9, 1), "padding": np.array([1, 0, 0, 1])},
        seed=768,
        tier="exact-dyadic",
        ahead="pad-sides-swapped",
        back="pad-sides-swapped",
    )
    yield from _both(
        "shortcut",
        "two channels become five, every second pixel of rows of four and three",
        {
            "layer": "shortcut",
            "x": draws(770, (2, 2, 4, 3), 1, 64, 16),
            "stride": np.array([2, 2]),
            "out_channels": 5,
        },
        seed=771,
        tier="exact-dyadic",
        ahead="shortcut-channels-after shortcut-last-pixel",
        back="shortcut-channels-after shortcut-last-pixel",
    )


def _windows(
    kind: str, seed: int, shape: tuple[int, ...], kernel: Any, stride: Any, padding: Any, **more: Any
) -> Inputs:
    return {
        "layer": kind,
        "x": draws(seed, shape, -64, 64, 16),
        "kernel": np.array(kernel),
        "stride": np.array(stride),
        "padding": np.array(padding),
        "ceil_mode": False,
        **({"count_include_pad": True} if kind == "avgpool" else {}),
        **more,
    }


def _pools() -> Iterator[Case]:
    below = _windows("maxpool", 780, (2, 2, 4, 5), (3, 2), (2, 2), (1, 1, 0, 1))
    yield from _both(
        "maxpool-negative",
        "all pixels negative: padding must not win",
        {**below, "x": -abs(below["x"]) - 0.5},
        seed=781,
        ahead="maxpool-padding-wins",
        back="maxpool-padding-wins",
    )
    yield from _both(
        "maxpool-ties",
        "windows of equal pixels, as after a ReLU, that overlap",
        {
            **_windows("maxpool", 782, (2, 1, 4, 4), (2, 2), (1, 1), (0, 0, 0, 0)),
            "x": np.maximum(draws(782, (2, 1, 4, 4), -2, 1, 1), 0),
        },
        seed=783,
        tier="exact-dyadic",
        ahead="pool-windows-apart",
        back="maxpool-gradient-to-all maxpool-gradient-shared maxpool-gradient-to-last",
    )
    yield from _both(
        "maxpool-ceil",
        "a last window that reaches beyond the image",
        _windows("maxpool", 785, (1, 2, 5, 4), (2, 3), (2, 2), (0, 0, 0, 0), ceil_mode=True),
        seed=786,
        ahead="pool-ceil-ignored",
        back="pool-ceil-ignored",
    )
    padded = _windows("avgpool", 788, (2, 2, 4, 4), (3, 2), (2, 1), (1, 1, 0, 1))
    yield from _both(
        "avgpool",
        "zeros of the padding count",
        padded,
        seed=789,
        ahead="avgpool-padding-not-counted",
        back="avgpool-padding-not-counted avgpool-gradient-not-divided",
    )
    yield from _both(
        "avgpool-without-padding",
        "zeros of the padding do not count",
        {**padded, "count_include_pad": False},
        seed=790,
        ahead="avgpool-padding-counted",
        back="avgpool-padding-counted",
    )
    yield from _both(
        "avgpool-ceil",
        "a last window beyond the padded image: what lies there never counts",
        _windows("avgpool", 791, (1, 1, 4, 5), (3, 3), (2, 2), (1, 1, 1, 1), ceil_mode=True),
        seed=792,
        ahead="pool-ceil-ignored",
        back="pool-ceil-ignored",
    )
    yield from _both(
        "globalpool",
        "six pixels",
        {"layer": "globalpool", "x": draws(793, (2, 3, 2, 3), -64, 64, 16)},
        seed=794,
        ahead="global-pool-sum",
        back="global-pool-sum",
    )


def _branches() -> Iterator[Case]:
    x = draws(900, (2, 2, 2, 3), -64, 64, 16)
    yield from _both(
        "concat",
        "two channels, then three",
        {"layer": "concat", "x": x, "x2": draws(901, (2, 3, 2, 3), -64, 64, 32)},
        seed=902,
        tier="exact-dyadic",
        ahead="concat-order-swapped",
        back="concat-order-swapped concat-gradient-one-branch",
    )
    yield from _both(
        "concat-features",
        "features of two branches, the second one wider",
        {"layer": "concat", "x": draws(903, (3, 2), -64, 64, 16), "x2": draws(904, (3, 4), -64, 64, 32)},
        seed=905,
        tier="exact-dyadic",
        ahead="concat-order-swapped",
        back="concat-order-swapped concat-gradient-one-branch",
    )
    mask = np.array([[1.0, 0.0, 1.0, 1.0], [0.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.0, 1.0]])
    given = {"layer": "dropout", "x": draws(906, (3, 4), 1, 64, 16), "mask": mask}
    yield from _both(
        "dropout-train",
        "train mode, p = 1/4: what is kept is divided by 3/4",
        {**given, "p": 0.25, "mode": "train"},
        seed=907,
        ahead="dropout-not-divided dropout-mask-inverted dropout-in-eval-scaled",
        back="dropout-not-divided dropout-mask-inverted dropout-gradient-everywhere dropout-in-eval-scaled",
    )
    yield from _both(
        "dropout-half",
        "train mode, p = 1/2: nothing rounds",
        {**given, "x": draws(908, (3, 4), -64, 64, 16), "p": 0.5, "mode": "train"},
        seed=909,
        tier="exact-dyadic",
        ahead="dropout-not-divided dropout-mask-inverted",
        back="dropout-not-divided dropout-mask-inverted dropout-gradient-everywhere",
    )
    yield from _both(
        "dropout-eval",
        "eval mode: the identity, mask or not",
        {**given, "p": 0.25, "mode": "eval"},
        seed=910,
        tier="exact-dyadic",
        ahead="dropout-in-eval dropout-in-eval-scaled",
        back="dropout-in-eval dropout-in-eval-scaled",
    )


def cases() -> Iterator[Case]:
    """All layers."""
    for family in (_linear, _convolutions, _normalizations, _units, _pools, _branches):
        yield from family()
    x = draws(795, (2, 3), -8, 8, 4)
    weight = draws(796, (2, 3), -8, 8, 4)
    spoiled = x.copy()
    spoiled[1, 1] = np.nan
    yield refuse("forward", "nan", "one input is NaN", {"layer": "linear", "x": spoiled, "weight": weight})
    yield refuse(
        "forward",
        "columns",
        "3 inputs where the weight has 2",
        {"layer": "linear", "x": x, "weight": weight[:, :2]},
    )
    dy = draws(797, (2, 2), -8, 8, 4)
    given = {"layer": "linear", "x": x, "weight": weight}
    yield refuse(
        "backward",
        "infinity",
        "one gradient is infinite",
        {**given, "dy": np.where(dy == dy[0, 0], np.inf, dy)},
    )
    yield refuse("backward", "rows", "a gradient of one row for two images", {**given, "dy": dy[:1]})
