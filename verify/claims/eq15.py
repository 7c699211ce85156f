r"""(15): (H + diag(ρ)) Θ = HW + diag(ρ)(G - λ). True, with diag(ρ) = ρI; unique for every ρ > 0.

What a program may assert of its floating-point solution x: ‖x - Θ‖ ≤ ‖r‖/ρ with r the residual of x.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from refldnq.verify.claims._admm import gradient
from refldnq.verify.claims._examined import on_all, satisfies, survives
from refldnq.verify.claims._examined import stated as claimed
from refldnq.verify.claims._rational import draw, exact, identity, solve, squares
from refldnq.verify.claims.base import Check, Claim, Finding, Instance, Mutation, Sides, Statement
from refldnq.verify.falsifier import Space, instances, matrices, rationals, vectors

Right = Callable[[Any, Any, Any, Any, Any], Any]
"""The right side of the system, of H, W, ρ, G and λ."""


def as_printed(H: Any, W: Any, rho: Any, G: Any, lam: Any) -> Any:
    """HW + ρ(G - λ)."""
    return H @ W + rho * (G - lam)


def stationary(right: Right) -> Callable[[Instance], bool]:
    """A statement: the solution of (H + ρI)Θ = `right` makes the gradient of (14) zero."""

    def holds(instance: Instance) -> bool:
        R, W, rho, G, lam = (instance[name] for name in ("R", "W", "rho", "G", "lam"))
        H = R.T @ R
        theta = solve(H + rho * identity(len(W)), right(H, W, rho, G, lam))
        slope = gradient(H, W, theta) + rho * (theta - G + lam)
        return bool((slope == 0).all())

    return holds


def within(factor: Fraction) -> Sides:
    """The sides of ρ²‖x - Θ‖² ≤ `factor` ‖r‖², r the residual of x."""

    def sides(instance: Instance, arithmetic: Any) -> tuple[Any, Any]:
        R, W, rho, G, lam, x = (instance[name] for name in ("R", "W", "rho", "G", "lam", "x"))
        A, right = R.T @ R + rho * identity(len(W)), as_printed(R.T @ R, W, rho, G, lam)
        left = rho * rho * squares(x - solve(A, right))
        return arithmetic.number(left), arithmetic.number(factor * squares(A @ x - right))

    return sides


def problems() -> Iterator[Instance]:
    """Random problems, H = RᵀR of any rank, and points x."""
    rng = np.random.default_rng(15)
    for d in (1, 2, 3, 4) * 50:
        yield {
            "R": exact(rng.integers(-3, 4, (int(rng.integers(1, d + 1)), d))),
            "W": draw(rng, d),
            "rho": abs(draw(rng, 1)[0]) + Fraction(1, 9),
            "G": draw(rng, d),
            "lam": draw(rng, d),
            "x": draw(rng, d),
        }


def floating(claim: Claim) -> Finding:
    """Solutions in float64 by Cholesky's factorization, taken as the rationals they are."""
    rng, largest, bound = np.random.default_rng(16), 0.0, claimed(claim, "corrected")
    for _ in range(40):
        R, rho = rng.integers(-8, 9, (3, 4)), Fraction(1, 8)
        W, G, lam = (rng.integers(-8, 9, 4) / 8 for _ in range(3))
        H = (R.T @ R).astype(float)
        x = cho_solve(cho_factor(H + float(rho) * np.eye(4), lower=True), H @ W + float(rho) * (G - lam))
        instance: dict[str, Any] = {
            "R": exact(R),
            "rho": rho,
            **dict(zip("WGx", map(exact, (W, G, x)), strict=True)),
        }
        instance["lam"] = exact(lam)
        if not satisfies(bound, instance):
            return Finding(ok=False, text="a float64 solution is farther from the exact one than ‖r‖/ρ")
        A = instance["R"].T @ instance["R"] + rho * identity(4)
        right = as_printed(
            instance["R"].T @ instance["R"], instance["W"], rho, instance["G"], instance["lam"]
        )
        largest = max(largest, float(squares(instance["x"] - solve(A, right))) ** 0.5)
    return Finding(
        ok=True, text=f"40 float64 solutions within ‖r‖/ρ of the exact ones; largest error {largest:.1e}"
    )


def stated(right: Right) -> Statement:
    """(15) with a right side."""
    return Statement(
        latex=r"(H+\mathrm{diag}(\rho))\hat\Theta^{k+1}=H\bar\Theta^{new}+\mathrm{diag}(\rho)(G^k-\lambda^k)",
        words="read as: the one solution, with ρI for diag(ρ), is the stationary point of (14)",
        holds=stationary(right),
    )


def bounded(factor: Fraction) -> Statement:
    """The bound of a point's distance with a factor."""
    return Statement(
        latex=r"\rho\,\|x-\hat\Theta^{k+1}\|_2\le\|(H+\rho I)x-H\bar\Theta-\rho(G^k-\lambda^k)\|_2",
        words="any x is within its residual over ρ of the solution",
        sides=within(factor),
    )


SPACE = Space(
    lambda: instances(
        R=matrices(2, 2), W=vectors(2), rho=rationals(least=1), G=vectors(2), lam=vectors(2), x=vectors(2)
    ),
    admits=lambda instance: instance["rho"] > 0,
)

CLAIM = Claim(
    id="eq15",
    title="The linear system of the proximal step",
    source="(15)",
    printed=stated(as_printed),
    verdict="true",
    reason="the gradient of (14) set to 0; H + ρI is regular for every ρ > 0",
    corrected=bounded(Fraction(1)),
    proof=r"""
The gradient of (14) is $H(\hat\Theta-\bar\Theta)+\rho(\hat\Theta-G^k+\lambda^k)$; zero is (15). As
$H\succeq0$, $H+\rho I\succeq\rho I$ is regular and the solution unique. The printed $\mathrm{diag}(\rho)$
is $\rho I$.

For any $x$ with residual $r=(H+\rho I)x-H\bar\Theta-\rho(G^k-\lambda^k)$ the error is
$x-\hat\Theta=(H+\rho I)^{-1}r$, so $\|x-\hat\Theta\|\le\|r\|/(\rho+\lambda_{\min}(H))\le\|r\|/\rho$: an a
posteriori bound that needs no eigenvalue. It is attained where $r$ is in the kernel of $H$.
""",
    checks=(
        on_all("gradient at the solution", problems),
        on_all("the bound at random points", problems, which="corrected"),
        survives(SPACE, seed=15),
        Check(name="solutions in float64", kind="exact", run=floating),
    ),
    mutations=(
        Mutation(
            name="G + λ in place of G - λ",
            changes={
                "printed": stated(lambda H, W, rho, G, lam: H @ W + rho * (G + lam)),
            },
        ),
        Mutation(
            name="ρ forgotten on the right",
            changes={"printed": stated(lambda H, W, rho, G, lam: H @ W + G - lam)},
        ),
        Mutation(
            name="half the residual is said to suffice",
            changes={"corrected": bounded(Fraction(1, 4))},
        ),
    ),
)
