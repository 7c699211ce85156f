r"""Is the optimum of (10) a fixed point of ADMM? For ρ ≥ λ_max(H) always; below not in general.

Solving (12) by ADMM is presented as solving (10). At a small ρ the iteration leaves even the optimum.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from refldnq.verify.arithmetic import EXACT
from refldnq.verify.claims._admm import best, excess, free_distance
from refldnq.verify.claims._examined import by_hand, on_all, refuted, survives
from refldnq.verify.claims._rational import draw, exact, identity, is_semidefinite, with_eigenvalues
from refldnq.verify.claims.base import Check, Claim, Counterexample, Finding, Instance, Mutation, Statement
from refldnq.verify.falsifier import Space, instances, matrices, rationals, vectors


def matrix(instance: Instance) -> Any:
    """H, or RᵀR in the instances of a search."""
    return instance["H"] if "H" in instance else instance["R"].T @ instance["R"]


def optimum_stays(instance: Instance, arithmetic: Any) -> tuple[Any, Any]:
    """‖λ‖² and the squared distance of G* + λ from Ω, G* a minimizer: equal iff it is a fixed point."""
    H, W, rho, b = matrix(instance), instance["W"], instance["rho"], instance.get("b", 0)
    left, right = excess(H, W, rho, best(H, W, b).G, free_distance(b))
    return arithmetic.number(left), arithmetic.number(right)


def from_threshold(share: Fraction) -> Statement:
    """The optimum stays if ρ is at least `share` of the largest eigenvalue."""

    def sides(instance: Instance, arithmetic: Any) -> tuple[Any, Any]:
        H = matrix(instance)
        large = is_semidefinite(instance["rho"] * identity(len(H)) - share * H)
        zero = arithmetic.number(0)
        return optimum_stays(instance, arithmetic) if large else (zero, zero)

    return Statement(
        latex=r"\rho\ge\lambda_{\max}(H)\ \Rightarrow\ G^*\in P\big(G^*-\tfrac1\rho\nabla f(G^*)\big)",
        words="for ρ at least the largest eigenvalue of H every global minimizer of (10) is a fixed point",
        sides=sides,
    )


def at_threshold() -> Iterator[Instance]:
    """Random problems at ρ = λ_max exactly, and above; d = 2 and 3, b = 0 and 1."""
    rng = np.random.default_rng(73)
    for k in range(60):
        d, b = (3, 0) if k % 3 == 0 else (2, k % 2)
        eigenvalues = exact([*sorted(rng.integers(0, 9, d - 1).tolist()), 9])
        H = with_eigenvalues(rng, eigenvalues)
        yield {"H": H, "W": draw(rng, d), "rho": Fraction(9) + Fraction(int(rng.integers(3)), 10), "b": b}


def below(claim: Claim) -> Finding:
    """How often the optimum stays at a fifth of the largest eigenvalue."""
    rng, left_alone, total = np.random.default_rng(74), 0, 60
    for _ in range(total):
        H = with_eigenvalues(rng, exact([*rng.integers(1, 9, 1).tolist(), 10]))
        sides = optimum_stays({"H": H, "W": draw(rng, 2), "rho": Fraction(2), "b": 0}, EXACT)
        left_alone += bool(sides[0] <= sides[1])
    text = f"at ρ = λ_max/5 the optimum is a fixed point in {left_alone} of {total} problems of two weights"
    return Finding(ok=left_alone < total, text=text)


SPACE = Space(
    lambda: instances(R=matrices(2, 2), W=vectors(2), rho=rationals(8, (1, 2), least=1)),
    admits=lambda instance: instance["rho"] > 0,
)

CLAIM = Claim(
    id="admm-optimum-is-fixed",
    title="A large enough ρ keeps the optimum",
    source="(10)-(18)",
    printed=Statement(
        latex=r"\text{a minimizer of (10) is a fixed point of (13)-(18)}",
        words="the global minimizer of (10) is a fixed point of the iteration, whatever ρ",
        sides=optimum_stays,
    ),
    verdict="true with a fix",
    reason="true for ρ ≥ λ_max(H), false below",
    corrected=from_threshold(Fraction(1)),
    counterexample=Counterexample(
        instance={"H": identity(2), "W": exact([1, 2]), "rho": Fraction(1, 2), "b": 0},
        shown="H = I, W = (1, 2), ρ = 1/2: G* = (3/2, 3/2), λ = (-1, 1), V = (1/2, 5/2); (0, "
        "5/2) is nearer to V "
        "than G*: 1/4 < 2",
    ),
    proof=r"""
With $\lambda=-\frac1\rho\nabla f(G^*)$ the inclusion $G^*\in P(G^*+\lambda)$ says
$\|\lambda\|^2\le\|G^*+\lambda- G'\|^2$, that is $2\langle\nabla f(G^*),G^*-G'\rangle\le\rho\|G^*-G'\|^2$,
for all $G'\in\Omega$. As $f$ is quadratic, $f(G')=f(G^*)-\langle\nabla
f(G^*),G^*-G'\rangle+\frac12\|G^*-G'\|_H^2\ge f(G^*)$, so $2\langle\nabla
f(G^*),G^*-G'\rangle\le\|G^*-G'\|_H^2\le\lambda_{\max}(H)\|G^*-G'\|^2$. $\square$
""",
    checks=(
        by_hand(),
        on_all("ρ = λ_max exactly, and above", at_threshold, which="corrected"),
        Check(name="ρ = λ_max/5", kind="count", run=below),
        refuted(SPACE, seed=73, tries=300),
        survives(SPACE, seed=74, tries=250),
    ),
    mutations=(
        Mutation(
            name="half of λ_max is said to suffice",
            changes={"corrected": from_threshold(Fraction(1, 2))},
        ),
        Mutation(
            name="ρ = 2 in the counterexample",
            changes={
                "counterexample": Counterexample(
                    instance={"H": identity(2), "W": exact([1, 2]), "rho": Fraction(2), "b": 0}, shown="ρ = 2"
                )
            },
        ),
    ),
)
