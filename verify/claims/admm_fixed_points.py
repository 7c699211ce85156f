r"""The fixed points of ADMM: G in P(G - ∇f(G)/ρ) with λ = -∇f(G)/ρ, those of projected gradient descent.

With a free scale α is then the best one in the norm of H, not in the plain norm of (17).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from refldnq.verify.claims._admm import (
    candidates,
    excess,
    fixed_distance,
    free_distance,
    gradient,
    kept_dual,
    proximal,
)
from refldnq.verify.claims._examined import on_all
from refldnq.verify.claims._rational import definite, draw, exact, inner, squares
from refldnq.verify.claims.base import Check, Claim, Finding, Instance, Mutation, Statement

Dual = Callable[[Any, Any, Any, Any], Any]
"""The λ of a fixed point, of H, W, ρ and G."""


def stays(instance: Instance) -> bool:
    """Whether an iteration may leave G and λ where they are: G is among the points nearest to V."""
    H, W, rho, G, lam = (instance[name] for name in ("H", "W", "rho", "G", "lam"))
    V = proximal(H, W, rho, G, lam) + lam
    return bool(squares(V - G) == distance(instance)(V) and (V - G == lam).all())


def distance(instance: Instance) -> Callable[[Any], Any]:
    """The squared distance from Ω."""
    b, alpha = instance["b"], instance["alpha"]
    return free_distance(b) if alpha is None else fixed_distance(alpha, b)


def characterized(dual: Dual) -> Statement:
    """A state stays iff λ is `dual` and G is nearest to G + λ; a free scale is then the best one for H."""

    def holds(instance: Instance) -> bool:
        H, W, rho, G = (instance[name] for name in ("H", "W", "rho", "G"))
        left, right = excess(H, W, rho, G, distance(instance))
        fixed = bool((instance["lam"] == dual(H, W, rho, G)).all() and left <= right)
        stationary = True
        if fixed and instance["alpha"] is None:
            energy = inner(G, H @ G) + inner(G - W, H @ (G - W))
            stationary = inner(G, gradient(H, W, G)) == 0 and energy == inner(W, H @ W)
        return stays(instance) == fixed and bool(stationary)

    return Statement(
        latex=r"(\hat\Theta,G,\lambda)\text{ fixed}\iff\hat\Theta=G\in P\big(G-\tfrac1\rho\nabla f(G)\big),\ "
        r"\lambda=-\tfrac1\rho\nabla f(G);\quad\alpha=\frac{Q^\top H\bar\Theta}{Q^\top HQ}",
        words="a state is fixed iff λ = -∇f(G)/ρ and G is nearest to G + λ; a free α is the best one for H",
        holds=holds,
    )


def states() -> Iterator[Instance]:
    """All points that could be fixed with their λ, and random points and λ; ρ small and large."""
    rng = np.random.default_rng(72)
    for k in range(24):
        H, W, b = definite(rng, 2), draw(rng, 2), k % 2
        common = {"H": H, "W": W, "rho": H.trace() * Fraction(int(rng.integers(1, 8)), 6), "b": b}
        for point in candidates(H, W, b):
            lam = kept_dual(H, W, common["rho"], point.G)
            yield {**common, "alpha": None, "G": point.G, "lam": lam}
        for Q in ([0, 0], [1, 0], [1, -1]):
            G = exact(Q)
            yield {**common, "alpha": Fraction(1), "G": G, "lam": kept_dual(H, W, common["rho"], G)}
            yield {**common, "alpha": None, "G": G * 2, "lam": draw(rng, 2)}


def counted(claim: Claim) -> Finding:
    """That both kinds of states occur, fixed and not."""
    given = list(states())
    fixed = sum(stays(instance) for instance in given)
    return Finding(ok=0 < fixed < len(given), text=f"{fixed} of {len(given)} states are fixed")


CLAIM = Claim(
    id="admm-fixed-points",
    title="What ADMM can converge to",
    source="(13)-(18)",
    printed=characterized(kept_dual),
    verdict="true",
    reason="set Θ, G and λ of two iterations equal",
    proof=r"""
If $(\hat\Theta,G,\lambda)$ is fixed, (18) gives $\hat\Theta=G$. Then (15) is
$H(G-\bar\Theta)+\rho\lambda=0$, so $\lambda=-\frac1\rho\nabla f(G)$, and (16) is $G\in P(G+\lambda)$.
Conversely with this $\lambda$ (15) returns $\hat\Theta=G$, so $V=G+\lambda$; if $G$ is nearest to it, the
iteration may keep $G$ and $\lambda$. (At a tie it depends on the rule for ties.) So the fixed points are
those of projected gradient descent with step $1/\rho$.

With a free scale and $G=\alpha Q$ nearest to $V$, $\langle G,\lambda\rangle=0$, so $\langle
G,H(G-\bar\Theta)\rangle=0$: $\alpha=Q^\top H\bar\Theta/Q^\top HQ$ if $G\ne0$ and $HQ\ne0$, and
$\|G\|_H^2+\|G-\bar\Theta\|_H^2=\|\bar\Theta\|_H^2$.
""",
    checks=(
        on_all("a state stays iff it has the stated form", states),
        Check(name="both kinds occur", kind="count", run=counted),
    ),
    mutations=(
        Mutation(
            name="λ = +∇f(G)/ρ",
            changes={"printed": characterized(lambda *given: -kept_dual(*given))},
        ),
        Mutation(
            name="unscaled dual, λ = -∇f(G)",
            changes={"printed": characterized(lambda H, W, rho, G: kept_dual(H, W, Fraction(1), G))},
        ),
    ),
)
