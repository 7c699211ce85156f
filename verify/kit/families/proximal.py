"""Proximal steps (15), judged by their residual, never by their digits."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from refldnq._typing import Array
from refldnq.verify.kit.cases import Case
from refldnq.verify.kit.families._make import make, refuse
from refldnq.verify.kit.families._numbers import draws, hadamard
from refldnq.verify.kit.families._problems import correlated, state, weight

SIGNS = "dual-sign dual-unscaled dual-missing g-minus g-is-w"
RHO = "rho-missing-right rho-is-1-left rho-missing-left rho-everywhere rho-stale rho-h00"
SCALES = "half-h twice-h-left w-instead-of-hw w-missing h-diagonal-solve jacobi solve-single solve-truncated"


def hilbert(d: int) -> Array:
    """1/(i + j + 1), the condition number about exp(3.5 d).

    Examples
    --------
    >>> hilbert(2)
    array([[1.        , 0.5       ],
           [0.5       , 0.33333333]])
    """
    return np.array([[float(Fraction(1, i + j + 1)) for j in range(d)] for i in range(d)])


def graded(d: int, base: float) -> Array:
    """S L Lᵀ S with L lower triangular of ones and S = diag(base^i): small and large inputs together."""
    S = np.diag(base ** np.arange(d))
    L = np.tril(np.ones((d, d)))
    return np.asarray(S @ L @ L.T @ S)


def cases() -> Iterator[Case]:
    """Generic problems, special ones, all condition numbers, and what must be refused."""
    for name, comment, seed, n, d, m, rho, catches in (
        ("small", "three inputs", 50, 8, 3, 2, 0.375, f"{SIGNS} {RHO} {SCALES}"),
        ("medium", "eight inputs, four units", 54, 16, 8, 4, 2.5, f"{SIGNS} {RHO} {SCALES}"),
        ("one-unit", "a column", 58, 16, 6, 1, 0.75, f"{SIGNS} {RHO}"),
        (
            "one-input",
            "a number: (h w + ρ(g - λ)) / (h + ρ)",
            62,
            4,
            1,
            3,
            1.25,
            "half-h twice-h-left rho-stale",
        ),
        ("wide", "more units than inputs", 66, 8, 3, 9, 6.0, f"{SIGNS} w-missing"),
        (
            "small-rho",
            "ρ = 2**-10: Θ stays near W",
            70,
            16,
            5,
            2,
            2.0**-10,
            "w-missing half-h h-diagonal-solve",
        ),
        ("large-rho", "ρ = 2**12: Θ is near G - λ", 74, 16, 5, 2, 2.0**12, "g-is-w rho-stale dual-sign"),
        ("rho-one", "ρ = 1, where a missing ρ does not show", 78, 16, 5, 2, 1.0, "dual-sign half-h"),
    ):
        yield make(
            "proximal", name, comment, state(seed, correlated(seed + 3, n, d), m, rho), catches=catches
        )
    yield make(
        "proximal",
        "convolution",
        "19 inputs, as of a 3x3 layer with two channels and a bias",
        state(82, correlated(85, 32, 19), 4, 3.0),
        catches=f"{SIGNS} {RHO} {SCALES}",
    )
    yield from _dyadic()
    yield from _degenerate()
    yield from _conditioned()
    yield from _theorems()
    yield from _refused()


def _dyadic() -> Iterator[Case]:
    # H = 2I and ρ = 2: roots and quotients are powers of two.
    X = hadamard(8)
    yield make(
        "proximal",
        "hadamard",
        "H = 2I, ρ = 2: nothing rounds",
        state(90, X.T @ X / 4, 3, 2.0),
        tier="exact-dyadic",
        catches="dual-sign dual-unscaled rho-stale half-h twice-h-left w-missing",
    )
    # H + ρI = L Lᵀ with L lower triangular of small integers and powers of two on its diagonal.
    L = np.array([[2.0, 0, 0, 0], [1, 2, 0, 0], [-2, 1, 4, 0], [1, -1, 2, 4]])
    yield make(
        "proximal",
        "integer-factor",
        "the Cholesky factor of H + ρI is integer: nothing rounds",
        state(94, L @ L.T - np.eye(4), 2, 1.0),
        tier="exact-dyadic",
        catches="h-diagonal-solve jacobi rho-missing-left rho-everywhere",
    )


def _degenerate() -> Iterator[Case]:
    X = draws(98, (4, 9), -8, 8, 4)
    yield make(
        "proximal",
        "few-images",
        "4 images, 9 inputs: H has rank 4",
        state(99, X.T @ X / 2, 3, 0.5),
        tier="degenerate",
        catches="rho-missing-left rho-stale",
    )
    dead = correlated(102, 16, 5)
    dead[0] = dead[:, 0] = 0.0
    yield make(
        "proximal",
        "dead-first-input",
        "H[0, 0] = 0: ρ must not depend on it",
        state(103, dead, 2, 1.5),
        tier="degenerate",
        catches="rho-h00 rho-missing-left",
    )
    yield make(
        "proximal",
        "no-input-at-all",
        "H = 0: Θ is G - λ",
        state(106, np.zeros((3, 3)), 2, 0.75),
        tier="degenerate",
        catches="dual-sign rho-stale rho-everywhere",
    )
    yield make(
        "proximal",
        "tiny",
        "everything is 2**-20 times as large",
        {key: value * 2.0**-20 for key, value in state(110, correlated(113, 8, 4), 2, 0.5).items()},
        tier="degenerate",
        catches="rho-is-1-left rho-missing-right",
    )


def _conditioned() -> Iterator[Case]:
    # Hardly ill-conditioned, or badly scaled only: an inverse does no harm.
    harmless = ("hilbert-4", "graded-6")
    # W = G - λ makes Θ = W, of the size of the right side's smallest preimage: where an inverse fails.
    for name, comment, H, rho in (
        ("hilbert-4", "Hilbert's matrix in float32, d = 4", hilbert(4).astype(np.float32), 2.0**-12),
        ("hilbert-6", "Hilbert's matrix, d = 6", hilbert(6), 2.0**-24),
        ("hilbert-8", "Hilbert's matrix, d = 8", hilbert(8), 2.0**-32),
        ("hilbert-10", "Hilbert's matrix, d = 10", hilbert(10), 2.0**-40),
        ("hilbert-12", "Hilbert's matrix, d = 12: condition number near 0.1/u", hilbert(12), 2.0**-46),
        ("graded-6", "inputs differ by factors of 16", graded(6, 1 / 16), 2.0**-40),
        ("rank-one", "one direction, ρ = 2**-36", np.full((6, 6), 1.0), 2.0**-36),
    ):
        W = weight(120, len(H), 2)
        lam = draws(121, W.shape, -8, 8, 16)
        yield make(
            "proximal",
            name,
            comment,
            {"H": np.asarray(H, dtype=np.float64), "W_bar": W, "G": W + lam, "lam": lam, "rho": rho},
            tier="ill-conditioned",
            catches="" if name in harmless else "solve-inverse",
            flags=("smoke",) if name in harmless else (),
        )


def _theorems() -> Iterator[Case]:
    given = state(130, correlated(133, 16, 5), 3, 1.25)
    yield make(
        "proximal",
        "weights-stay",
        "(13): G = W and λ = 0 give Θ = W for every H and ρ",
        {**given, "G": given["W_bar"], "lam": 0 * given["lam"]},
        tier="theorems",
        catches="twice-h-left w-missing w-instead-of-hw rho-everywhere",
    )
    # λ = -H(G - W)/ρ with H(G - W) an integer matrix and ρ = 4.
    H = np.array([[6.0, 2.0], [2.0, 4.0]])
    W, G = np.array([[1.0], [0.5]]), np.array([[1.5], [-0.5]])
    yield make(
        "proximal",
        "fixed-point",
        "λ = -H(G - W)/ρ, a fixed point of ADMM: Θ = G",
        {"H": H, "W_bar": W, "G": G, "lam": -(H @ (G - W)) / 4, "rho": 4.0},
        tier="theorems",
        catches="dual-sign dual-unscaled dual-missing half-h",
    )


def _refused() -> Iterator[Case]:
    good = state(140, correlated(143, 8, 3), 2, 0.5)
    for name, key, value in (
        ("nan-in-h", "H", np.nan),
        ("infinity-in-w", "W_bar", np.inf),
        ("nan-in-g", "G", np.nan),
        ("nan-in-dual", "lam", np.nan),
    ):
        spoiled = good[key].copy()
        spoiled[-1, -1] = value
        yield refuse(
            "proximal", name, f"{key} has an entry {value}", {**good, key: spoiled}, "non-finite-accepted"
        )
    yield refuse("proximal", "rho-zero", "ρ = 0", {**good, "rho": 0.0}, "rho-unchecked")
    yield refuse("proximal", "rho-negative", "ρ < 0", {**good, "rho": -1.0}, "rho-unchecked")
    yield refuse("proximal", "rho-nan", "ρ is NaN", {**good, "rho": np.nan}, "rho-unchecked")
