"""Trajectories of ADMM (11)-(18), every intermediate value; no number lies near a threshold on the way."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from refldnq._typing import Array
from refldnq.verify.kit.cases import Case
from refldnq.verify.kit.families._exact import nearest
from refldnq.verify.kit.families._make import make, refuse
from refldnq.verify.kit.families._numbers import draws, fractions, hadamard
from refldnq.verify.kit.families._problems import POWERS, correlated, weight

STEPS = "dual-old-g dual-forgotten v-minus v-theta proximal-from-theta rho-grows trace-aliased"
STARTS = "start-w start-dual-0 iterations-short iterations-long"
RETURNS = "admm-last admm-theta alpha-refit f-without-half f-of-theta f-norm"
SCALES = "alpha-per-channel"
RESTARTS = "alpha-restarted alpha-restarted-w"
RELEASED = "rho-h00 stop-early f-without-half"
INHERITED = "dual-sign dual-step-sign dual-twice rho-stale half-h"


def given(
    H: Array, W: Array, values: Array, rho: float, K: int, G0: Array, lam0: Array, **more: str
) -> dict[str, Any]:
    """Inputs: the alternating projection, the best G, unless said otherwise."""
    rule = {"projection": "alternating", "returned": "best", **more}
    return {"H": H, "W_bar": W, "values": values, "rho": rho, "K": K, "G0": G0, "lam0": lam0, **rule}


def generic(
    seed: int, n: int, d: int, m: int, levels: int, rho: float, K: int, **more: str
) -> dict[str, Any]:
    """A correlated H, a weight, and a start that is not the projection's."""
    W = weight(seed, d, m)
    G0 = draws(seed + 1, (d, m), -1, 1, 1) * 0.75 if levels == 3 else np.round(W * 2) / 2
    lam0 = draws(seed + 2, (d, m), -(2**7), 2**7, 2**9)
    return given(correlated(seed + 3, n, d), W, POWERS[levels], rho, K, G0, lam0, **more)


def cases() -> Iterator[Case]:
    """Generic runs, exact ones, degenerate ones, the paper's claims, and what must be refused."""
    exact, last = {"projection": "exact"}, {"returned": "last"}
    for name, comment, problem, catches in (
        (
            "three-levels",
            "3 levels",
            generic(407, 8, 3, 2, 3, 1.0, 8),
            f"{STEPS} {STARTS} {RETURNS} {SCALES}",
        ),
        (
            "five-levels",
            "5 levels; the start is the best",
            generic(408, 16, 4, 2, 5, 2.0, 8),
            f"{STEPS} {STARTS}",
        ),
        (
            "seven-levels",
            "7 levels",
            generic(413, 16, 5, 3, 7, 1.5, 8),
            f"{STEPS} {STARTS} {RETURNS} {SCALES} {RESTARTS} {INHERITED} admm-start admm-nearest stop-early",
        ),
        ("nine-levels", "9 levels", generic(402, 16, 6, 2, 9, 3.0, 6), f"{STEPS} {INHERITED} admm-last"),
        (
            "eleven-levels",
            "11 levels",
            generic(425, 16, 4, 3, 11, 1.0, 6),
            f"{STEPS} admm-start admm-nearest",
        ),
        ("convolution", "10 inputs, as of a 3x3 kernel with bias", generic(402, 32, 10, 3, 5, 2.0, 6), STEPS),
        (
            "small-rho",
            "ρ far below λ_max: no rest",
            generic(406, 16, 4, 2, 5, 0.0625, 8),
            f"{STEPS} admm-last",
        ),
        ("large-rho", "ρ above λ_max: little moves", generic(423, 16, 4, 2, 5, 64.0, 6), f"{STEPS} start-w"),
        (
            "last",
            "the last G is asked for",
            generic(408, 16, 4, 2, 7, 2.0, 6, **last),
            "admm-start admm-theta",
        ),
        (
            "optimum-three",
            "3 levels, the exact projection",
            generic(407, 8, 3, 2, 3, 1.0, 6, **exact),
            "dual-forgotten v-minus admm-last",
        ),
        (
            "optimum-five",
            "5 levels, the exact projection; H is singular",
            generic(400, 8, 4, 1, 5, 1.0, 6, **exact),
            "v-theta start-w",
        ),
    ):
        yield make("admm", name, comment, problem, catches=catches)
    yield from _direct_starts()
    yield from _dyadic()
    yield from _degenerate()
    yield from _theorems()
    good = generic(408, 16, 4, 2, 5, 2.0, 3)
    for key in ("H", "W_bar", "G0", "lam0"):
        spoiled = good[key].copy()
        spoiled[1, 1] = np.nan
        name = key.lower().replace("_", "-")
        yield refuse(
            "admm", f"nan-in-{name}", f"{key} has an entry NaN", {**good, key: spoiled}, "non-finite-accepted"
        )
    yield refuse("admm", "rho-zero", "ρ = 0", {**good, "rho": 0.0}, "rho-unchecked")


def _direct_starts() -> Iterator[Case]:
    # The start of the code of 2019, which cannot be given another one.
    for name, comment, levels, problem, catches in (
        ("three", "10 iterations", 3, (489, 8, 4, 2, 10), f"{RELEASED} alpha-restarted-w"),
        ("five", "10 iterations", 5, (433, 16, 4, 2, 10), f"{RELEASED} alpha-restarted-w"),
        ("seven", "10 iterations", 7, (434, 16, 4, 4, 10), f"{RELEASED} alpha-restarted-w"),
        ("small", "weights times 2**-8", 5, (432, 16, 4, 2, 6), f"{RELEASED} passes-released"),
        ("dead-input", "H[0, 0] = 0", 3, (439, 16, 4, 2, 8), RELEASED),
    ):
        seed, n, d, m, K = problem
        W = weight(seed, d, m) * (2.0**-8 if name == "small" else 1.0)
        H = correlated(seed + 3, n, d)
        if name == "dead-input":
            H[0] = H[:, 0] = 0.0
        alpha = np.abs(W).mean()  # of a power of two of dyadic numbers: nothing rounds
        codes, _, _ = nearest(fractions(W.ravel()), Fraction(alpha), fractions(POWERS[levels]), "smaller")
        G0 = alpha * POWERS[levels][codes].reshape(W.shape)
        yield make(
            "admm",
            f"direct-{name}",
            f"{levels} levels from direct quantization and λ⁰ = 0: {comment}",
            given(H, W, POWERS[levels], 1.0, K, G0, 0 * W),
            tier="certified" if K == 10 else "degenerate",
            catches=catches,
        )


def _dyadic() -> Iterator[Case]:
    H = hadamard(4).T @ hadamard(4) / 2
    for name, seed, m, levels in (
        ("hadamard", 5, 1, 3),
        ("hadamard-five", 5, 1, 5),
        ("hadamard-two-units", 13, 2, 3),
    ):
        W, G0 = draws(seed, (4, m), -12, 12, 4), draws(seed + 1, (4, m), -1, 1)
        yield make(
            "admm",
            name,
            "H = 2I, ρ = 2, QᵀQ a power of two: nothing rounds in any of five iterations",
            given(H, W, POWERS[levels], 2.0, 5, G0, draws(seed + 2, (4, m), -2, 2, 4)),
            tier="exact-dyadic",
            catches=f"{STEPS} iterations-short f-without-half",
        )
    W = np.array([[1.0], [-1.0]])
    yield make(
        "admm",
        "start-is-optimal",
        "W lies in Ω: every iteration has the objective 0, the first of them is kept",
        given(np.eye(2), W, POWERS[3], 3.0, 3, W, 0 * W),
        tier="exact-dyadic",
        catches="best-of-equals",
        near=True,
    )
    W = np.array([[3.0], [3.0], [1.0], [-1.0]])
    yield make(
        "admm",
        "on-thresholds",
        "V = (3/2, 3/2, 1/2, -1/2) at α = 1: every entry is halfway between two levels",
        given(2 * np.eye(4), W, POWERS[5], 2.0, 1, 0 * W, 0 * W),
        tier="exact-dyadic",
        catches="ties-larger ties-zero",
        near=True,
    )


def _degenerate() -> Iterator[Case]:
    run = generic(408, 16, 4, 2, 5, 2.0, 6)
    factor = 2.0**-8
    yield make(
        "admm",
        "small-weights",
        "weights and states times 2**-8: no test may be absolute",
        {**run, **{key: run[key] * factor for key in ("W_bar", "G0", "lam0")}},
        tier="degenerate",
        catches="alpha-tolerance passes-released stop-early",
    )
    dead = generic(407, 8, 3, 2, 3, 1.0, 6)
    H = dead["H"].copy()
    H[0] = H[:, 0] = 0.0
    yield make(
        "admm",
        "dead-first-input",
        "H[0, 0] = 0",
        {**dead, "H": H},
        tier="degenerate",
        catches="rho-h00 dual-forgotten",
    )
    X = draws(180, (2, 5), -8, 8, 4)
    yield make(
        "admm",
        "few-images",
        "2 images, 5 inputs: H has rank 2",
        {**generic(413, 16, 5, 3, 7, 1.5, 5), "H": X.T @ X},
        tier="degenerate",
        catches="dual-forgotten v-minus alpha-restarted-w",
    )


def _theorems() -> Iterator[Case]:
    two = np.ones((2, 1))
    yield make(
        "admm",
        "no-rest",
        "H = I, W = (1, 2), ρ = 1/2: no point is fixed although (10) is one projection",
        given(
            np.eye(2),
            two * [[1.0], [2.0]],
            POWERS[3],
            0.5,
            8,
            0 * two,
            two * [[-0.5], [0.0]],
            projection="exact",
        ),
        tier="theorems",
        catches="admm-last dual-forgotten v-theta start-dual-0",
    )
    W = np.array([[4.0], [1.0], [1.0], [1.0]])
    for kind, comment in (
        ("alternating", "the alternation in place of the projection holds ADMM at a bad point"),
        ("exact", "with the exact projection ADMM leaves the point that the alternation stays at"),
    ):
        yield make(
            "admm",
            f"stall-{kind}",
            f"H = I, W = (4, 1, 1, 1), ρ = 5/4: {comment}",
            given(np.eye(4), W, POWERS[3], 1.25, 6, 0 * W + 1.25, 0 * W, projection=kind),
            tier="theorems",
            catches="projection-exact" if kind == "alternating" else "projection-alternates",
        )
    H, W = correlated(409, 8, 3), weight(404, 3, 1)
    G0 = np.array([[0.0], [1.0], [-1.0]])
    rho = 64.0
    yield make(
        "admm",
        "guaranteed",
        "ρ > λ_max, the exact projection, λ⁰ = -H(G⁰ - W)/ρ: no G is worse than G⁰",
        given(H, W, POWERS[3], rho, 6, G0, -(H @ (G0 - W)) / rho, projection="exact"),
        tier="theorems",
        catches="start-dual-0 dual-forgotten dual-sign",
    )
