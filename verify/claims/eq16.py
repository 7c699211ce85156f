r"""(16): the projection step, min ‖Θ - G + λ‖² over G in Ω. True.

It orders the points of Ω as L_ρ does. At ties the minimizer is not unique: the projection is set valued, and
which point is taken decides the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from refldnq.verify.claims._admm import lagrangian
from refldnq.verify.claims._examined import on_all
from refldnq.verify.claims._projection import sweep
from refldnq.verify.claims._rational import draw, exact, semidefinite, squares
from refldnq.verify.claims.base import Check, Claim, Finding, Instance, Mutation, Statement


def same_minimizers(shift: Callable[[Any, Any], Any]) -> Callable[[Instance], bool]:
    """A statement: of any points of Ω those of least ‖V - G‖² have the least L_ρ, V = `shift` (Θ, λ)."""

    def holds(instance: Instance) -> bool:
        H, W, rho, theta, lam = (instance[name] for name in ("H", "W", "rho", "theta", "lam"))
        V = shift(theta, lam)
        levels = [lagrangian(H, W, rho, theta, G, lam) for G in instance["points"]]
        distances = [squares(V - G) for G in instance["points"]]
        return [v == min(levels) for v in levels] == [v == min(distances) for v in distances]

    return holds


def ordered(factor: Fraction, shift: Callable[[Any, Any], Any]) -> Callable[[Instance], bool]:
    """A statement: L_ρ differs between two G as `factor`·ρ‖V - G‖² does, V = `shift` (Θ, λ)."""

    def holds(instance: Instance) -> bool:
        H, W, rho, theta, lam = (instance[name] for name in ("H", "W", "rho", "theta", "lam"))
        V = shift(theta, lam)
        values = [
            (lagrangian(H, W, rho, theta, G, lam), factor * rho * squares(V - G)) for G in instance["points"]
        ]
        return all(a - b == c - d for a, c in values for b, d in values)

    return holds


def points() -> Iterator[Instance]:
    """Random problems with points of Ω, the nearest one among them."""
    rng = np.random.default_rng(16)
    for k in range(100):
        theta, lam = draw(rng, 3), draw(rng, 3)
        some = [abs(draw(rng, 1)[0]) * exact(rng.integers(-2, 3, 3)) for _ in range(4)]
        yield {
            "H": semidefinite(rng, 3, 1 + k % 3),
            "W": draw(rng, 3),
            "rho": abs(draw(rng, 1)[0]) + 1,
            "theta": theta,
            "lam": lam,
            "points": [*some, sweep(theta + lam, 1).G],
        }


def set_valued(claim: Claim) -> Finding:
    """Two nearest points with equal L_ρ: V = 1/2 with α = 1, V = (1 + √2, 1) would be one with α free."""
    instance: Instance = {
        "H": exact([[1]]),
        "W": exact([0]),
        "rho": Fraction(1),
        "theta": exact(["1/2"]),
        "lam": exact([0]),
        "points": [exact([0]), exact([1])],
    }
    tied = squares(instance["theta"] - instance["points"][0]) == squares(
        instance["theta"] - instance["points"][1]
    )
    assert claim.printed.holds is not None
    ok = bool(tied) and claim.printed.holds(instance)
    return Finding(ok=ok, text="V = 1/2, α = 1: 0 and 1 are both nearest; L_ρ is 1/4 at both")


def stated(shift: Callable[[Any, Any], Any]) -> Statement:
    """(16) with a V."""
    return Statement(
        latex=r"\min_G\|\hat\Theta^{k+1}-G+\lambda^k\|_2^2,\quad\text{s.t. }G\in\Omega",
        words="read as: its minimizers are those of L_ρ in G, which is the projection step (4) of (12)",
        holds=same_minimizers(shift),
    )


def identity(factor: Fraction, shift: Callable[[Any, Any], Any]) -> Statement:
    """How L_ρ depends on G in Ω, with a factor and a V."""
    return Statement(
        latex=r"L_\rho(\hat\Theta^{k+1},G,\lambda^k)=\tfrac\rho2\|V^k-G\|_2^2+\text{const},\quad "
        r"V^k=\hat\Theta^{k+1}+\lambda^k,\ G\in\Omega",
        words="over Ω, L_ρ is ρ/2 ‖V - G‖² with V = Θ + λ up to a constant",
        holds=ordered(factor, shift),
    )


def as_printed(theta: Any, lam: Any) -> Any:
    """Θ + λ."""
    return theta + lam


HALF = Fraction(1, 2)

CLAIM = Claim(
    id="eq16",
    title="The projection step",
    source="(16)",
    printed=stated(as_printed),
    verdict="true",
    reason="of (12) only ρ/2 ‖V - G‖² depends on G in Ω; several G can be nearest",
    corrected=identity(HALF, as_printed),
    proof=r"""
For $G\in\Omega$, (12) is $\frac\rho2\|V-G\|^2$ with $V=\hat\Theta^{k+1}+\lambda^k$, plus
$f(\hat\Theta^{k+1})-\frac\rho2\|\lambda^k\|^2$, which does not depend on $G$. A minimizer exists: for each
of finitely many $Q$ the cost is a convex quadratic in $\alpha\ge0$. It need not be unique ($V=\frac12$,
$\alpha=1$: both 0 and 1), so (16) defines $G^{k+1}$ only together with a rule for ties.
""",
    checks=(
        on_all("the nearest points of Ω", points),
        on_all("the order of points of Ω", points, which="corrected"),
        Check(name="ties", kind="exact", run=set_valued),
    ),
    mutations=(
        Mutation(name="V = Θ - λ", changes={"printed": stated(lambda theta, lam: theta - lam)}),
        Mutation(name="V = Θ", changes={"printed": stated(lambda theta, lam: theta)}),
        Mutation(
            name="corrected: ρ in place of ρ/2", changes={"corrected": identity(Fraction(1), as_printed)}
        ),
        Mutation(
            name="corrected: V = Θ - λ",
            changes={"corrected": identity(HALF, lambda theta, lam: theta - lam)},
        ),
    ),
)
