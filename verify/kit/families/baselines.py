"""What the methods that L-DNQ is compared with make of a weight, with ties where a rule is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from refldnq._typing import Array
from refldnq.verify.kit.cases import Case
from refldnq.verify.kit.families._make import CLEAR, refuse
from refldnq.verify.kit.families._numbers import draws, rounded
from refldnq.verify.kit.families._quantizers import answer

Inputs = Mapping[str, Any]


def make_baseline(
    name: str,
    comment: str,
    inputs: dict[str, Any],
    catches: str,
    *,
    tier: str = "certified",
    tie: bool = False,
) -> Case:
    """A case; its decisions are clear, but that with a `tie` some are exactly halfway.

    Raises
    ------
    ValueError
        If a decision is near, or none is a tie that should be.
    """
    found = answer(inputs)
    near = [margin for margin in found.margins if not margin >= CLEAR and not (tie and margin == 0)]
    if near or (tie and found.margin > 0):
        raise ValueError(f"`inputs` of baseline/{name} must have margins of {CLEAR}, got {found.margin}.")
    coded = [key for key, how in found.compare.items() if how == "code"]
    outputs = {key: rounded(value) for key, value in found.outputs.items()}
    return Case(
        op="baseline",
        id=f"baseline/{name}",
        comment=comment,
        tier=tier,
        flags=() if catches else ("smoke",),
        catches=tuple(catches.split()),
        inputs=inputs,
        outputs=outputs,
        compare=found.compare,
        bound={key: rounded(value) for key, value in found.bound.items()},
        margin={key: np.array(found.margin) for key in coded},
        allowed={key: np.left_shift(1, outputs[key].astype(np.int64)) for key in coded},
        scored=any(np.any(value != 0) for value in outputs.values()),
    )


def _draw(seed: int, n: int) -> Array:
    # Numbers between -2 and 2, of 9 bits, no two of one magnitude.
    found: list[float] = []
    for value in draws(seed, (4 * n,), -255, 255, 128).tolist():
        if value and abs(value) not in map(abs, found):
            found.append(value)
    return np.array(found[:n])


def cases() -> Iterator[Case]:
    """The methods in the paper's order, then what must be refused."""
    yield from _affine()
    yield from _clusters()
    yield from _exnn()
    yield from _ttq()
    yield from _inq()
    yield from _lat()
    yield from _trn()
    yield from _distilquant()
    spoiled = np.array([1.0, np.nan, -0.5])
    yield refuse(
        "baseline",
        "nan",
        "a weight is NaN",
        {"method": "dq-affine", "W": spoiled, "levels": 5},
        "non-finite-accepted",
    )
    yield refuse(
        "baseline",
        "infinity",
        "a weight is infinite",
        {"method": "distilquant", "W": np.array([1.0, np.inf]), "levels": 4, "bucket": 2},
        "non-finite-accepted",
    )
    yield refuse(
        "baseline",
        "nan-gradient",
        "a gradient is NaN",
        {**_ternary(np.array([1.0, 0.5, -0.5])), "g": spoiled},
        "non-finite-accepted",
    )
    yield refuse(
        "baseline",
        "even-levels",
        "the set of INQ has an odd number of levels",
        _powers(np.array([1.0, 0.5]), 4),
    )
    for method in ("lata", "late"):
        yield refuse(
            "baseline",
            f"{method}-curvature",
            "a curvature is 0",
            _curved(method, np.array([1.0, -0.5]), np.array([1.0, 0.0])),
            "lat-curvature-unchecked",
        )


# DQ, VQ, ExNN --------------------------------------------------------------------------------------------


def _affine() -> Iterator[Case]:
    def given(W: Any, levels: int) -> dict[str, Any]:
        return {"method": "dq-affine", "W": np.asarray(W, dtype=np.float64), "levels": levels}

    yield make_baseline(
        "affine",
        "8 weights of both signs, 6 levels",
        given(_draw(3, 8), 6),
        "affine-steps affine-truncated affine-float-offset",
    )
    yield make_baseline(
        "affine-one-sided",
        "all weights lie between 2 and 3: the range begins at 0",
        given([2.125, 3.0, 2.75, 2.375, 2.5625], 5),
        "affine-without-zero affine-steps",
    )
    yield make_baseline(
        "affine-negative",
        "all weights are negative: the code of 0 is the last",
        given([-0.875, -0.25, -0.5625], 4),
        "affine-without-zero affine-steps",
    )
    yield make_baseline(
        "affine-both-ends-halfway",
        "the code of 0 and the largest weight are rounded up: without clipping it gets a code too many",
        given([-1.5, 1.5, 0.25, -0.75], 4),
        "affine-unclipped",
        tier="exact-dyadic",
        tie=True,
    )
    yield make_baseline(
        "affine-halves",
        "steps of 1: halves go to the even integer",
        given([-2.0, 3.0, 0.5, 1.5, 2.5, -0.5, -1.5], 6),
        "affine-half-away affine-truncated",
        tier="exact-dyadic",
        tie=True,
    )
    yield make_baseline(
        "affine-zeros", "all weights are 0", given([0.0, 0.0], 4), "affine-zero-divided", tier="degenerate"
    )
    yield make_baseline(
        "affine-constant",
        "all weights are equal: the range is from 0 to them",
        given([1.25, 1.25, 1.25], 4),
        "affine-without-zero",
        tier="degenerate",
    )


def _clusters() -> Iterator[Case]:
    def given(W: Any, levels: int) -> dict[str, Any]:
        return {"method": "vq-exact", "W": np.asarray(W, dtype=np.float64), "levels": levels}

    yield make_baseline("vq", "10 weights, 4 clusters", given(_draw(21, 10), 4), "vq-median vq-keeps-zero")
    yield make_baseline(
        "vq-local-optimum",
        "from equidistant values Lloyd's alternation stops at a local optimum",
        given(_draw(4, 9), 3),
        "vq-local vq-keeps-zero",
    )
    yield make_baseline(
        "vq-few-values",
        "three distinct weights and five clusters: three values, no error",
        given([0.5, -1.0, 0.5, 2.0, -1.0], 5),
        "vq-keeps-zero",
        tier="degenerate",
    )
    yield make_baseline(
        "vq-constant", "one distinct weight", given([0.75, 0.75], 3), "vq-keeps-zero", tier="degenerate"
    )


def _exnn() -> Iterator[Case]:
    for seed, n, levels in ((31, 8, 3), (37, 10, 7)):
        yield make_baseline(
            f"exnn-{levels}",
            f"W + λ to {levels} levels",
            {"method": "exnn", "W": _draw(seed, n), "lam": _draw(seed + 100, n) / 4, "levels": levels},
            "exnn-dual-forgotten exnn-dual-sign exnn-mean-scale",
        )


# TTQ, INQ ------------------------------------------------------------------------------------------------


def _ternary(W: Array, g: Array | None = None, threshold: float = 0.125) -> dict[str, Any]:
    gradient = _draw(900, len(W)) if g is None else g
    scales = {"positive": 0.75, "negative": 1.375}
    return {"method": "ttq", "W": W, "threshold": threshold, **scales, "g": gradient}


def _ttq() -> Iterator[Case]:
    every = (
        "ttq-negative-as-it-is ttq-latent-one-scale ttq-latent-signed ttq-latent-straight "
        "ttq-latent-masked ttq-scale-means ttq-minus-omitted"
    )
    W = np.array([1.5, -0.0625, 0.09375, -1.25, 0.03125, 0.5, -0.25, 0.046875, -0.5])
    yield make_baseline(
        "ttq",
        "t = 0.05: forward, gradients of the weights and of both scales",
        _ternary(W, threshold=0.05),
        f"{every} ttq-threshold-of-mean",
    )
    yield make_baseline(
        "ttq-on-threshold",
        "weights of exactly ±Δ are 0",
        _ternary(np.array([2.0, 0.25, -0.25, -0.5, 0.375])),
        "ttq-takes-equals",
        tier="exact-dyadic",
        tie=True,
    )
    yield make_baseline(
        "ttq-one-sided",
        "no weight below -Δ: the gradient of Wn is 0",
        _ternary(np.array([1.0, 0.0625, 0.5, -0.03125])),
        "ttq-latent-straight ttq-latent-masked ttq-scale-means",
    )
    yield make_baseline(
        "ttq-zeros",
        "a layer of zeros: Δ = 0, nothing beyond it",
        _ternary(np.zeros(3)),
        "ttq-takes-equals ttq-latent-masked",
        tier="degenerate",
        tie=True,
    )


def _powers(W: Array, levels: int, frozen: tuple[int, ...] = (), portion: float = 0.5) -> dict[str, Any]:
    held = np.zeros(len(W), dtype=np.int8)
    held[list(frozen)] = 1
    return {"method": "inq", "W": W, "levels": levels, "frozen": held, "portion": portion}


def _inq() -> Iterator[Case]:
    order = "inq-smallest-first inq-as-they-stand"
    yield make_baseline(
        "inq",
        "the largest weight is above 3/4 of a power of two: n1 is that power's",
        _powers(np.array([0.34375, -0.8125, 0.703125, -0.0625, 0.1875, 0.5, -0.296875, 0.21875]), 7),
        f"inq-greatest-of-s inq-one-power-more inq-zero-below-least inq-never-zero {order}",
    )
    yield make_baseline(
        "inq-logarithms",
        "1.45 of a power is nearer to it than to twice of it, by the logarithm farther",
        _powers(np.array([0.36328125, -0.7265625, 1.0625, -0.40625, 0.171875, 0.0390625]), 9),
        "inq-log-nearest",
    )
    yield make_baseline(
        "inq-ternary",
        "three levels: one power, from half of it up",
        _powers(np.array([1.25, 0.40625, -0.5625, -0.28125]), 3, portion=0.25),
        f"inq-one-power-more inq-zero-below-least {order.split()[0]}",
    )
    yield make_baseline(
        "inq-halfway",
        "halfway between two powers, and between 0 and the least one: the larger magnitude",
        _powers(np.array([1.0, 0.75, -0.75, 0.375, -0.125, 0.25]), 7),
        "inq-ties-down",
        tier="exact-dyadic",
        tie=True,
    )
    yield make_baseline(
        "inq-three-quarters",
        "4s/3 is a power of two: n1 is its exponent",
        _powers(np.array([0.6875, -0.75, 0.25, 0.125]), 5),
        "inq-greatest-of-s",
        tier="exact-dyadic",
        tie=True,
    )
    yield make_baseline(
        "inq-frozen",
        "two weights are frozen, one of them since outgrown: two more to reach half of all",
        _powers(
            np.array([0.5, 0.3125, 0.28125, -0.8125, 0.140625, -0.6875, 0.09375, -0.4375]), 5, frozen=(0, 2)
        ),
        f"inq-portion-of-rest inq-refrozen {order}",
    )
    yield make_baseline(
        "inq-zeros",
        "a layer of zeros: the set is {0}",
        _powers(np.zeros(4), 5, portion=1.0),
        "",
        tier="degenerate",
    )


# LAT -----------------------------------------------------------------------------------------------------


def _curved(method: str, W: Array, D: Array) -> dict[str, Any]:
    more = {"passes": 10, "tolerance": 1e-6} if method == "lata" else {}
    return {"method": method, "W": W, "D": D, **more}


def _lat() -> Iterator[Case]:
    D = abs(_draw(53, 9)) + 0.25
    W = _draw(59, 9)
    yield make_baseline(
        "lata",
        "9 weights and curvatures: several passes to a fixed point",
        _curved("lata", W, D),
        "lat-unweighted lat-signs-lost lata-threshold-alpha",
    )
    yield make_baseline(
        "lata-start",
        "a start at the mean of |w|, or with no zeros, leads to other fixed points; one pass to none",
        _curved("lata", _draw(45, 8), abs(_draw(5045, 8)) + 0.125),
        "lata-start-of-mean lata-start-full lata-one-pass",
    )
    yield make_baseline(
        "late",
        "the optimum for the same",
        _curved("late", W, D),
        "lat-unweighted lat-signs-lost late-half-scale",
    )
    yield make_baseline(
        "late-several-feasible",
        "the second of three feasible prefixes is the best",
        _curved("late", _draw(28, 7), _draw(5028, 7) ** 2 + 0.125),
        "late-sorted-by-moment late-first-feasible late-last-feasible late-counted",
    )
    yield make_baseline(
        "lat-two-scale",
        "a scale for each sign",
        _curved("lat-two-scale", W, D),
        "lat-unweighted lat-one-scale lat-scales-swapped late-half-scale",
    )
    yield make_baseline(
        "lat-two-scale-one-sign",
        "no negative weight: their scale is 0",
        _curved("lat-two-scale", abs(W[:5]), D[:5]),
        "lat-one-scale lat-scales-swapped",
        tier="degenerate",
    )
    for method in ("lata", "late"):
        yield make_baseline(
            f"{method}-zeros",
            "all weights are 0",
            _curved(method, np.zeros(3), np.ones(3)),
            "lata-empty-divided" if method == "lata" else "",
            tier="degenerate",
            tie=method == "lata",
        )


# TRN, DistilQuant ----------------------------------------------------------------------------------------


def _trn() -> Iterator[Case]:
    def given(W: Array, block: int, terms: int, tolerance: float = 0.25) -> dict[str, Any]:
        return {"method": "trn", "W": W, "block": block, "max_terms": terms, "tolerance": tolerance}

    yield make_baseline(
        "trn",
        "kernels of 1 x 2, four input channels in blocks of two, one term",
        given(_draw(61, 16).reshape(2, 4, 1, 2), 2, 1),
        "trn-output-blocks trn-flat-blocks",
    )
    yield make_baseline(
        "trn-residuals",
        "up to three terms, until a quarter of the norm is left",
        given(_draw(67, 24).reshape(3, 8, 1, 1), 4, 3),
        "trn-scale-of-all trn-threshold-of-twn trn-greatest-mean trn-squared trn-last-term-alone",
    )
    yield make_baseline(
        "trn-short-block",
        "five input channels in blocks of four: the last block has one",
        given(_draw(71, 10).reshape(2, 5, 1, 1), 4, 2),
        "trn-last-left",
    )
    yield make_baseline(
        "trn-small",
        "weights of 1/1024: the tolerance is relative",
        given(_draw(73, 8).reshape(1, 8, 1, 1) / 1024, 4, 2),
        "trn-absolute",
    )
    yield make_baseline(
        "trn-zero-block",
        "a block of zeros has no term",
        given(np.array([0.0, 0.0, 1.0, 0.25]).reshape(1, 4, 1, 1), 2, 2),
        "trn-zero-has-a-term",
        tier="degenerate",
    )


def _distilquant() -> Iterator[Case]:
    def given(W: Any, levels: int, bucket: int) -> dict[str, Any]:
        return {
            "method": "distilquant",
            "W": np.asarray(W, dtype=np.float64),
            "levels": levels,
            "bucket": bucket,
        }

    sizes = np.repeat([1.0, 0.25, 2.0], 4)
    yield make_baseline(
        "distilquant",
        "three buckets of different sizes",
        given(_draw(79, 12) * sizes, 4, 4),
        "distil-truncated distil-steps distil-symmetric distil-one-bucket",
    )
    yield make_baseline(
        "distilquant-halves",
        "halfway between two values: the even one",
        given([0.0, 0.5, 1.5, 2.5, 3.0, -0.5, 0.25, 0.75, 1.5, 1.5], 4, 5),
        "distil-half-away distil-truncated",
        tier="exact-dyadic",
        tie=True,
    )
    yield make_baseline(
        "distilquant-short-bucket",
        "the last bucket has three weights, far from 0",
        given([0.5, -0.25, 1.0, 0.375, 5.0, 6.5, 5.625], 5, 4),
        "distil-zeros-counted distil-rest-left",
    )
    yield make_baseline(
        "distilquant-constant",
        "a bucket of equal weights stays as it is",
        given([0.75, 0.75, 0.25, 1.0], 3, 2),
        "distil-range-divided",
        tier="degenerate",
    )
