r"""Gradient descent: it "has unpredictable convergence. These issues are avoided using (15)".

The subproblem (13) is a strongly convex quadratic, for which gradient descent with step 1/(λ_max + ρ) has a
known rate. And (15) does not remove the issues: ρ is a hyper-parameter of ADMM and decides whether it
converges.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from refldnq.verify.claims._admm import fixed_distance, nearest_to_fixed, proximal
from refldnq.verify.claims._examined import by_hand, on_all, refuted, survives
from refldnq.verify.claims._rational import draw, exact, identity, row_sum, squares
from refldnq.verify.claims.base import Claim, Counterexample, Instance, Mutation, Sides, Statement
from refldnq.verify.falsifier import Space, instances, matrices, rationals, vectors


def converging(instance: Instance, arithmetic: Any) -> tuple[Any, Any]:
    """Of one weight in {-1, 0, 1} with H = 1: left <= right iff ADMM has a fixed point."""
    points = [exact([q]) for q in (-1, 0, 1)]
    W, rho = exact([instance["w"]]), instance["rho"]
    left, right = nearest_to_fixed(exact([[1]]), W, rho, points, fixed_distance(Fraction(1), 0))
    return arithmetic.number(left), arithmetic.number(right)


def rate(power: int) -> Sides:
    """The sides of ‖x_k - Θ‖² ≤ (1 - ρ/β)^(`power`·k) ‖x_0 - Θ‖² for the step 1/β, β ≥ λ_max + ρ."""

    def sides(instance: Instance, arithmetic: Any) -> tuple[Any, Any]:
        R, W, rho, v, x = (instance[name] for name in ("R", "W", "rho", "v", "x"))
        H = R.T @ R
        A, beta = H + rho * identity(len(W)), row_sum(H) + rho
        theta = proximal(H, W, rho, v, 0 * v)
        first = squares(x - theta)
        for _ in range(STEPS):
            x = x - (A @ x - H @ W - rho * v) / beta
        left = squares(x - theta)
        return arithmetic.number(left), arithmetic.number((1 - rho / beta) ** (power * STEPS) * first)

    return sides


STEPS = 6
"""Steps of gradient descent before the comparison."""


def problems() -> Iterator[Instance]:
    """Random subproblems (13), H = RᵀR of any rank, v = G - λ, and starts x."""
    rng = np.random.default_rng(80)
    for k in range(120):
        d = 1 + k % 3
        yield {
            "R": exact(rng.integers(-3, 4, (int(rng.integers(1, d + 1)), d))),
            "W": draw(rng, d),
            "rho": abs(draw(rng, 1)[0]) + Fraction(1, 9),
            "v": draw(rng, d),
            "x": draw(rng, d),
        }


def predicted(power: int) -> Statement:
    """The rate of gradient descent."""
    return Statement(
        latex=r"\|x_k-\hat\Theta\|\le\Big(1-\frac\rho{\beta}\Big)^k\|x_0-\hat\Theta\|,\quad\text{step }"
        r"\tfrac1\beta,\ \beta\ge\lambda_{\max}(H)+\rho",
        words="gradient descent on (14) with the step 1/β converges at a rate known beforehand",
        sides=lambda instance, arithmetic: rate(power)(instance, arithmetic) if "R" in instance else (0, 0),
    )


CLAIM = Claim(
    id="prose-gradient-descent",
    title="Gradient descent is unpredictable, and (15) avoids it",
    source="after (15)",
    printed=Statement(
        latex=r"\text{by (15) there is no hyper-parameter to tune, and the iteration converges}",
        words="with (15) the iteration converges for every ρ > 0",
        sides=converging,
    ),
    verdict="false",
    reason="on (13) gradient descent has a known linear rate; ρ is left to choose, and decides convergence",
    corrected=predicted(2),
    counterexample=Counterexample(
        instance={"w": Fraction(2, 5), "rho": Fraction(1, 10)},
        shown="H = 1, W = 2/5, ρ = 1/10, Ω = {-1, 0, 1}: fixed points need V = G + λ nearest to "
        "G; G = -1, 0, 1 give "
        "V = 13, 4, -5, nearest to 1, 1, -1: ADMM with (15) converges from no start",
    ),
    proof=r"""
The gradient of (14) is $A(x-\hat\Theta)$ with $A=H+\rho I$. A step $1/\beta$ gives
$x_{k+1}-\hat\Theta=(I-A/\beta)(x_k-\hat\Theta)$. For $\beta\ge\lambda_{\max}(H)+\rho$ the eigenvalues of
$I-A/\beta$ lie in $[0,1-\rho/\beta]$, hence the rate, known before the first step; the largest row sum of
$|H|$ plus $\rho$ is such a $\beta$. (With the smallest eigenvalue known the rate is $1-1/\kappa$,
$\kappa=\frac{\lambda_{\max}+\rho}{\lambda_{\min}+\rho}$.) A direct solve of (15) is still the better
choice: one factorization serves all iterations and columns.

What is not avoided is the choice of $\rho$: if $G^k$ converged, its limit would be a fixed point
$G\in P(G-\frac1\rho\nabla f(G))$ (claim on fixed points), and the counterexample has none.
""",
    checks=(
        by_hand(),
        refuted(
            Space(
                lambda: instances(w=rationals(8, (8,)), rho=rationals(8, (4, 8), least=1)),
                admits=lambda instance: instance["rho"] > 0,
            ),
            seed=80,
        ),
        on_all("the rate of gradient descent", problems, which="corrected"),
        survives(
            Space(
                lambda: instances(
                    R=matrices(2, 2), W=vectors(2), rho=rationals(least=1), v=vectors(2), x=vectors(2)
                ),
                admits=lambda instance: instance["rho"] > 0,
            ),
            seed=81,
        ),
    ),
    mutations=(
        Mutation(
            name="twice the rate",
            changes={"corrected": predicted(4)},
        ),
        Mutation(
            name="ρ = 2 in the counterexample",
            changes={
                "counterexample": Counterexample(
                    instance={"w": Fraction(2, 5), "rho": Fraction(2)}, shown="ρ = 2 > λ_max"
                )
            },
        ),
        Mutation(
            name="the printed statement for ρ above 1 only",
            changes={
                "printed": Statement(
                    latex=r"\rho\ge1",
                    words="for ρ at least 1",
                    sides=lambda instance, arithmetic: converging(
                        {**instance, "rho": 1 + instance["rho"]}, arithmetic
                    ),
                )
            },
        ),
    ),
)
