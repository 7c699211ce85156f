r"""The role of ρ in (15): "a large ρ leads Θ to approach discrete feasible solution G - λ, a small ρ to W".

G - λ is not in Ω in general: λ is what the projection removed. And for singular H a small ρ leads Θ not to W
but to W on the range of H and to G - λ on its kernel. Both limits are here with their rates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from refldnq.verify.claims._admm import proximal
from refldnq.verify.claims._examined import by_hand, on_all, survives
from refldnq.verify.claims._projection import sweep
from refldnq.verify.claims._rational import draw, exact, identity, solve, squares
from refldnq.verify.claims.base import Check, Claim, Counterexample, Finding, Instance, Mutation, Statement
from refldnq.verify.falsifier import Space, instances, matrices, rationals, vectors

Limit = Callable[[Any, Any, Any], Any]
"""The limit of Θ for ρ to 0, of the projector onto the range of H, W and G - λ."""


def as_printed(instance: Instance) -> bool:
    """Whether G - λ lies in Ω, λ = V - G from the projection of V, and Θ tends to W as ρ tends to 0."""
    B, W, V, b = (instance[name] for name in ("B", "W", "V", "b"))
    point = sweep(V, b)
    discrete = point.G - (V - point.G)
    feasible = sweep(discrete, b).residual == 0
    P = projector(B)
    return bool(feasible and (P @ W + (identity(len(W)) - P) @ discrete == W).all())


def projector(B: Any) -> Any:
    """The orthogonal projector onto the columns of B, which are independent."""
    return B @ solve(B.T @ B, B.T)


def large(factor: Fraction) -> Callable[[Instance, Any], tuple[Any, Any]]:
    """The sides of ρ²‖Θ - (G - λ)‖² ≤ `factor` ‖H(W - (G - λ))‖²."""

    def sides(instance: Instance, arithmetic: Any) -> tuple[Any, Any]:
        B, W, rho, G, lam = (instance[name] for name in ("B", "W", "rho", "G", "lam"))
        H = B @ B.T
        theta = proximal(H, W, rho, G, lam)
        left = rho * rho * squares(theta - (G - lam))
        return arithmetic.number(left), arithmetic.number(factor * squares(H @ (W - (G - lam))))

    return sides


def small(limit: Limit) -> Callable[[Instance], bool]:
    """A statement: Θ is within ρ‖H⁺(G - λ - W)‖ of its limit for ρ to 0."""

    def holds(instance: Instance) -> bool:
        B, W = instance["B"], instance["W"]
        if "V" in instance:
            point = sweep(instance["V"], instance["b"])
            instance = {**instance, "rho": Fraction(1, 10**8), "G": point.G, "lam": instance["V"] - point.G}
        rho, v = instance["rho"], instance["G"] - instance["lam"]
        theta = proximal(B @ B.T, W, rho, instance["G"], instance["lam"])
        inner = B.T @ B
        inverse = B @ solve(inner, solve(inner, B.T))  # of BBᵀ on its range
        return bool(squares(theta - limit(projector(B), W, v)) <= rho * rho * squares(inverse @ (v - W)))

    return holds


def limits(limit: Limit, factor: Fraction) -> Statement:
    """Both limits with their rates."""
    near_zero, sides = small(limit), large(factor)
    return Statement(
        latex=r"\|\hat\Theta-(G-\lambda)\|\le\tfrac1\rho\|H(\bar\Theta-G+\lambda)\|,\quad "
        r"\|\hat\Theta-P\bar\Theta-(I-P)(G-\lambda)\|\le\rho\,\|H^+(G-\lambda-\bar\Theta)\|",
        words="for large ρ Θ tends to G - λ; for small ρ to W on the range of H and to G - λ on its kernel",
        holds=near_zero,
        sides=lambda instance, arithmetic: sides(instance, arithmetic) if "rho" in instance else (0, 0),
    )


def problems() -> Iterator[Instance]:
    """Random problems with H = BBᵀ of every rank, ρ from 10⁻⁴ to 10⁴."""
    rng = np.random.default_rng(70)
    found = 0
    while found < 150:
        d = 2 + found % 2
        B = exact(rng.integers(-3, 4, (d, 1 + int(rng.integers(d)))))
        try:
            projector(B)
        except ZeroDivisionError:
            continue
        found += 1
        yield {
            "B": B,
            "W": draw(rng, d),
            "rho": Fraction(10) ** int(rng.integers(-4, 5)),
            "G": draw(rng, d),
            "lam": draw(rng, d),
        }


def off_the_set(claim: Claim) -> Finding:
    """How often the printed statement holds with definite H: only where the projection removes nothing."""
    rng, feasible, total = np.random.default_rng(71), 0, 0
    assert claim.printed.holds is not None
    for _ in range(100):
        instance = {"B": identity(3), "W": draw(rng, 3), "V": draw(rng, 3), "b": 0}
        total += 1
        feasible += claim.printed.holds(instance)
    return Finding(
        ok=feasible < total / 4,
        text=f"G - λ lies in Ω for {feasible} of {total} random V in three dimensions",
    )


CLAIM = Claim(
    id="prose-rho",
    title="What a large and a small ρ do in the proximal step",
    source="after (15)",
    printed=Statement(
        latex=r"\rho\to\infty:\ \hat\Theta^{k+1}\to G^k-\lambda^k\in\Omega,\qquad"
        r"\rho\to0:\ \hat\Theta^{k+1}\to\bar\Theta",
        words="a large ρ leads Θ to the discrete feasible solution G - λ, a small one to W",
        holds=as_printed,
    ),
    verdict="false",
    reason="G - λ is not in Ω; for singular H the limit for small ρ is not W",
    corrected=limits(lambda P, W, v: P @ W + (identity(len(W)) - P) @ v, Fraction(1)),
    counterexample=Counterexample(
        instance={"B": exact([[1], [0]]), "W": exact(["7/10", "7/10"]), "V": exact([2, 1]), "b": 0},
        shown="V = (2, 1), ternary: G = (3/2, 3/2), λ = (1/2, -1/2), G - λ = (1, 2) is not in Ω; "
        "H = diag(1, 0), "
        "W = (7/10, 7/10): Θ tends to (7/10, 2) as ρ tends to 0",
    ),
    proof=r"""
Let $v=G-\lambda$ and $\Delta=v-\bar\Theta$. From (15), $\hat\Theta-v=-(H+\rho I)^{-1}H\Delta$, so
$\|\hat\Theta-v\|\le\frac1\rho\|H\Delta\|$: the limit for $\rho\to\infty$ is right, but with
$\lambda=V-G$ the point $v=2G-V$ lies in $\Omega$ only by chance.

Also $\hat\Theta-\bar\Theta=\rho(H+\rho I)^{-1}\Delta$. With $P$ the orthogonal projector onto the range of
$H$, $(H+\rho I)^{-1}(I-P)=\frac1\rho(I-P)$, so $\hat\Theta-\bar\Theta=(I-P)\Delta+\rho(H+\rho
I)^{-1}P\Delta$, and $\|(H+\rho I)^{-1}P\Delta\|\le\|H^+\Delta\|$. So $\hat\Theta\to P\bar\Theta+(I-P)v$,
which is $\bar\Theta$ for all $v$ only if $H\succ0$. With fewer images than weights in a column $H$ is
singular.
""",
    checks=(
        by_hand(),
        Check(name="G - λ in Ω", kind="exact", run=off_the_set),
        on_all("both limits with their rates", problems, which="corrected"),
        survives(
            Space(
                lambda: instances(
                    B=matrices(2, 2), W=vectors(2), rho=rationals(least=1), G=vectors(2), lam=vectors(2)
                ),
                admits=lambda instance: instance["rho"] > 0,
            ),
            seed=70,
        ),
    ),
    mutations=(
        Mutation(
            name="the limit for small ρ is W whatever H",
            changes={"corrected": limits(lambda P, W, v: W, Fraction(1))},
        ),
        Mutation(
            name="a quarter of the rate for large ρ",
            changes={
                "corrected": limits(lambda P, W, v: P @ W + (identity(len(W)) - P) @ v, Fraction(1, 16)),
            },
        ),
        Mutation(
            name="a counterexample with G - λ in Ω and definite H",
            changes={
                "counterexample": Counterexample(
                    instance={"B": identity(2), "W": exact([1, 2]), "V": exact([1, 1]), "b": 0},
                    shown="V = (1, 1)",
                )
            },
        ),
    ),
)
