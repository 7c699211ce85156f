r"""ADMM (13)-(18) in one line: V⁺ = P(V) + M (V + W - 2 P(V)), M = (H + ρI)⁻¹H.

The three steps are the Douglas-Rachford iteration of f and the projection P. The library's float64 run is
held against the exact rational one here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np

from refldnq.codebook import fixed as fixed_set
from refldnq.codebook import powers_of_two
from refldnq.solvers.admm import AdmmSettings
from refldnq.solvers.admm import solve as admm
from refldnq.verify.claims._admm import error, fixed, free, kept_dual, run
from refldnq.verify.claims._examined import on_all
from refldnq.verify.claims._rational import draw, identity, semidefinite, solve
from refldnq.verify.claims.base import Check, Claim, Finding, Instance, Mutation, Statement

Map = Callable[[Any, Any, Any, Any, Any], Any]
"""The next V, of H, W, ρ, V and P(V)."""

STEPS = 5
"""Iterations of each run."""


def douglas_rachford(H: Any, W: Any, rho: Any, V: Any, G: Any) -> Any:
    """P(V) + M (V + W - 2 P(V))."""
    return G + solve(H + rho * identity(len(W)), H @ (V + W - 2 * G))


def one_line(following: Map) -> Statement:
    """All V of a run come from the one before by a map, and λ = V - P(V)."""

    def holds(instance: Instance) -> bool:
        H, W, rho, b, alpha = (instance[name] for name in ("H", "W", "rho", "b", "alpha"))
        project = free(b) if alpha is None else fixed(alpha, b)
        states = run(H, W, rho, project, instance["G"], instance["lam"], STEPS)
        same = all((new.V == following(H, W, rho, old.V, old.G)).all() for old, new in pairwise(states))
        return same and all((state.lam == state.V - state.G).all() for state in states)

    return Statement(
        latex=r"V^{k+1}=P(V^k)+M\big(V^k+\bar\Theta-2P(V^k)\big),\ M=(H+\rho I)^{-1}H,\quad"
        r"\lambda^{k+1}=V^k-P(V^k)",
        words="Θ, G, λ together are the Douglas-Rachford iteration in V = Θ + λ",
        holds=holds,
    )


def runs() -> Iterator[Instance]:
    """Random problems and states, H of any rank, a free or a fixed scale."""
    rng = np.random.default_rng(71)
    for k in range(60):
        d = 1 + k % 3
        yield {
            "H": semidefinite(rng, d, int(rng.integers(1, d + 1))),
            "W": draw(rng, d),
            "rho": abs(draw(rng, 1)[0]) + Fraction(1, 5),
            "G": draw(rng, d),
            "lam": draw(rng, d),
            "b": k % 2,
            "alpha": None if k % 3 else Fraction(3, 2),
        }


def library(claim: Claim) -> Finding:
    """Objectives and last G of the library's float64 run and of the exact one, 12 iterations, 24 problems."""
    rng, worst = np.random.default_rng(72), 0.0
    for k in range(24):
        d, b, guaranteed = 2 + k % 3, k % 2, k % 4 > 1
        H, W = semidefinite(rng, d) + identity(d), draw(rng, d, most=90, parts=97)
        rho = Fraction(int(rng.integers(1, 60)), 4)
        project = fixed(Fraction(1), b) if k % 3 == 0 else free(b)
        codebook = powers_of_two(2 * b + 3)
        if k % 3 == 0:
            codebook = fixed_set(codebook.values)
        G = project(W)
        lam = kept_dual(H, W, rho, G) if guaranteed else 0 * W
        states = run(H, W, rho, project, G, lam, 12)
        settings = AdmmSettings(
            rho=float(rho),
            rho_scale="absolute",
            iterations=12,
            projection="exact",
            start="guaranteed" if guaranteed else "projection",
            returned="last",
        )
        solution = admm(H.astype(float)[None], W.astype(float)[None, :, None], codebook, settings)
        values = [float(error(H, W, point)) for point in (G, *(state.G for state in states))]
        scale = 1 + max(values)
        worst = max(
            worst, *(abs(a - b) / scale for a, b in zip(values, solution.trace.objective, strict=True))
        )
        gap = np.abs(solution.G[0, :, 0] - states[-1].G.astype(float)).max()
        worst = max(worst, float(gap))
    ok = worst <= 1e-10
    return Finding(ok=ok, text=f"24 float64 runs of the library follow the rational ones to {worst:.1e}")


CLAIM = Claim(
    id="admm-one-line",
    title="ADMM is the Douglas-Rachford iteration",
    source="(13)-(18)",
    printed=one_line(douglas_rachford),
    verdict="true",
    reason="eliminate Θ and λ",
    proof=r"""
Let $P$ choose a nearest point of $\Omega$, $G=P(V^k)$ and $\lambda=V^k-G$ by (18). By (15),
$\hat\Theta^{k+2}=(H+\rho I)^{-1}(H\bar\Theta+\rho(2G-V^k))$. Since $\rho(H+\rho I)^{-1}=I-M$,
$V^{k+1}=\hat\Theta^{k+2}+\lambda=M\bar\Theta+(I-M)(2G-V^k)+V^k-G=G+M(V^k+\bar\Theta-2G)$. The state of the
iteration is $V$ alone.
""",
    checks=(
        on_all("runs in rationals", runs, note=f"{STEPS} iterations each"),
        Check(name="the library's float64 runs", kind="float", run=library),
    ),
    mutations=(
        Mutation(
            name="P(V) in place of 2P(V)",
            changes={
                "printed": one_line(
                    lambda H, W, rho, V, G: G + solve(H + rho * identity(len(W)), H @ (V + W - G))
                )
            },
        ),
        Mutation(
            name="M = ρ(H + ρI)⁻¹",
            changes={
                "printed": one_line(
                    lambda H, W, rho, V, G: G + solve(H + rho * identity(len(W)), rho * (V + W - 2 * G))
                )
            },
        ),
    ),
)
