"""Dual steps (18): three numbers an entry, judged by a few roundings of their magnitudes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from refldnq._typing import Array
from refldnq.verify.kit.cases import Case
from refldnq.verify.kit.families._make import make, refuse
from refldnq.verify.kit.families._numbers import draws

ALL = "dual-step-sign dual-twice dual-relaxed dual-not-summed dual-frozen dual-without-g dual-without-theta"


def _given(lam: Array, Theta: Array, G: Array) -> dict[str, Array]:
    return {"lam": lam, "Theta": Theta, "G": G}


def cases() -> Iterator[Case]:
    """Generic, exact, cancelling and vanishing differences."""
    shape = (6, 3)
    lam, Theta, G = (draws(150 + k, shape, -(2**23) + 1, 2**23 - 1, 2**21) for k in range(3))
    yield make("dual", "matrix", "24 bits in every entry", _given(lam, Theta, G), catches=ALL)
    yield make("dual", "column", "one unit", _given(lam[:, :1], Theta[:, :1], G[:, :1]), catches=ALL)
    small = [draws(155 + k, (4, 2), -16, 16, 8) for k in range(3)]
    yield make("dual", "dyadic", "eighths: nothing rounds", _given(*small), tier="exact-dyadic", catches=ALL)
    yield make(
        "dual",
        "first-step",
        "λ = 0",
        _given(0 * lam, Theta, G),
        catches="dual-step-sign dual-twice dual-relaxed dual-frozen dual-without-g dual-without-theta",
    )
    yield make(
        "dual",
        "agreement",
        "Θ = G: λ stays",
        _given(lam, G, G),
        tier="degenerate",
        catches="dual-not-summed dual-without-g dual-without-theta",
    )
    yield make(
        "dual",
        "cancellation",
        "Θ - G is 2**-18 of Θ",
        _given(small[0] * 2.0**-18, G[:4, :2] + small[1] * 2.0**-18, G[:4, :2]),
        tier="ill-conditioned",
        catches="dual-step-sign dual-twice dual-without-g",
    )
    yield make(
        "dual",
        "fixed-point",
        "(18) at a fixed point of ADMM: λ = -H(G - W)/ρ stays because Θ = G",
        _given(np.array([[-0.25], [0.75]]), np.array([[1.5], [-0.5]]), np.array([[1.5], [-0.5]])),
        tier="theorems",
        catches="dual-not-summed dual-without-g",
    )
    yield make(
        "dual",
        "vanishes",
        "λ + Θ = G: the answer is 0",
        _given(small[0], small[1], small[0] + small[1]),
        tier="exact-dyadic",
        catches="dual-step-sign dual-frozen dual-without-g",
        scored=False,
    )
    for name, key in (("nan-in-theta", "Theta"), ("nan-in-g", "G"), ("nan-in-dual", "lam")):
        good = _given(lam, Theta, G)
        spoiled = good[key].copy()
        spoiled[0, 0] = np.nan
        yield refuse("dual", name, f"{key} has an entry NaN", {**good, key: spoiled}, "non-finite-accepted")
