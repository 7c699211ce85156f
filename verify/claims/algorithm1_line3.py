r"""Algorithm 1, line 3: "Perform ADMM to obtain quantized weight Θ̂_l by solving (12)".

False: Θ̂^k of the algorithm is not in Ω; G^k is, and must be returned. Nor is (12) solved: ADMM has no
guarantee of an optimum of this problem.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any, Literal

import numpy as np

from refldnq.codebook import powers_of_two
from refldnq.solvers.admm import AdmmSettings, AdmmSolution
from refldnq.solvers.admm import solve as admm
from refldnq.verify.claims import _admm
from refldnq.verify.claims._examined import by_hand, on_all
from refldnq.verify.claims._rational import definite, draw, exact, inner
from refldnq.verify.claims.base import Check, Claim, Counterexample, Finding, Instance, Mutation, Statement

Returned = Literal["best", "last"]
"""Which G is returned."""

SLACK = 1e-12
"""Of values of f in float64, relative; chosen here, far above the rounding of problems of this size."""


def in_ternary(point: Any) -> bool:
    """Whether all non-zero magnitudes are equal."""
    return len({abs(v) for v in point if v != 0}) <= 1


def states(instance: Instance) -> list[Any]:
    """ADMM from G = W, λ = 0 with the exact ternary projection."""
    W = instance["W"]
    return _admm.run(instance["H"], W, instance["rho"], _admm.free(0), W, 0 * W, int(instance["iterations"]))


def theta_is_quantized(instance: Instance) -> bool:
    """Whether Θ̂ of the last iteration is in Ω."""
    return in_ternary(states(instance)[-1].theta)


def library(instance: Instance, returned: Returned) -> AdmmSolution:
    """The package's ADMM in float64, from G⁰ = P(W) and λ⁰ = 0."""
    settings = AdmmSettings(
        rho=float(instance["rho"]),
        rho_scale="absolute",
        iterations=int(instance["iterations"]),
        projection="exact",
        returned=returned,
    )
    H, W = (instance[name].astype(float) for name in ("H", "W"))
    return admm(H[None], W[None, :, None], powers_of_two(3), settings)


def course(instance: Instance) -> list[Any]:
    """G⁰ and all further G of the same run in rationals."""
    H, W, rho = (instance[name] for name in ("H", "W", "rho"))
    project = _admm.free(0)
    first = project(W)
    run = _admm.run(H, W, rho, project, first, 0 * W, int(instance["iterations"]))
    return [first, *(state.G for state in run)]


def best_is_quantized(instance: Instance, *, returned: Returned = "best") -> bool:
    """Whether the package's G is in Ω, and of all G of a rational run the one of least f, up to rounding."""
    H, W, solution = instance["H"], instance["W"], library(instance, returned)
    G = exact(solution.G.ravel())
    values = np.array([float(_admm.error(H, W, point)) for point in course(instance)])
    slack = SLACK * (1 + values.max())
    same = np.abs(solution.trace.objective - values).max() <= slack
    least = abs(float(_admm.error(H, W, G)) - values.min()) <= slack
    return bool(in_ternary(G) and same and least and solution.objective == solution.trace.objective.min())


def dual_is_quantized(instance: Instance) -> bool:
    """The same of G - λ, which the text calls the discrete feasible solution: an error."""
    return all(in_ternary(state.G - state.lam) for state in states(instance))


def refitted(instance: Instance, G: Any) -> Any:
    """F at the signs of G with the best scale for them, so that only the signs are judged."""
    H, W = instance["H"], instance["W"]
    Q = exact(np.sign(G.astype(float)).astype(int))
    top, bottom = inner(Q, H @ W), inner(Q, H @ Q)
    alpha = top / bottom if top > 0 and bottom > 0 else Fraction(0)
    return _admm.error(H, W, alpha * Q)


def is_optimal(instance: Instance) -> bool:
    """Whether the signs of the last G are optimal for (10): an error, too."""
    own = refitted(instance, states(instance)[-1].G)
    return bool(own == _admm.best(instance["H"], instance["W"], 0).residual)


def problems() -> Iterator[Instance]:
    """Random problems of two or three weights."""
    rng = np.random.default_rng(4101)
    for k in range(40):
        d = 2 + k % 2
        W = draw(rng, d, most=6, parts=3)
        W[0] = W[0] or Fraction(1)
        yield {"H": definite(rng, d), "W": W, "rho": Fraction(1 + k % 7), "iterations": 12}


def optimality(claim: Claim) -> Finding:
    """How often the last and the best iterate have optimal signs, against all Q; scales are refitted."""
    last = best = count = 0
    for instance in problems():
        errors = [refitted(instance, state.G) for state in states(instance)]
        optimum = _admm.best(instance["H"], instance["W"], 0).residual
        if min(errors) < optimum:
            return Finding(ok=False, text="an iterate is below the optimum")
        count += 1
        last += errors[-1] == optimum
        best += min(errors) == optimum
    text = (
        f"12 iterations on {count} problems: the last Q is optimal in {last}, the best Q of a run in {best}"
    )
    return Finding(
        ok=last <= best and last < count, text=text, numbers={"last": last, "best": best, "problems": count}
    )


PRINTED = Statement(
    latex=r"\hat\Theta_l=\hat\Theta^{k+1}\in\Omega\quad\text{after solving (12)}",
    words="the Θ̂ of ADMM is the quantized weight",
    holds=theta_is_quantized,
)

CORRECTED = Statement(
    latex=r"G^k\in\Omega\ \text{for all }k;\quad\text{return }G^{k^*},\ f(G^{k^*})=\min_kf(G^k)",
    words="G is in Ω in every iteration; the best G is returned, as the package does",
    holds=best_is_quantized,
)

CLAIM = Claim(
    id="algorithm1-line3",
    title="Algorithm 1, line 3",
    source="Algorithm 1, line 3",
    printed=PRINTED,
    verdict="false",
    reason="Θ̂ of ADMM is not in Ω, G is; and (12) is not solved to optimality",
    corrected=CORRECTED,
    counterexample=Counterexample(
        instance={
            "H": exact([[1, 0], [0, 1]]),
            "W": exact([1, "1/2"]),
            "rho": Fraction(2),
            "iterations": 2,
        },
        shown="H = I, W = (1, 1/2), ρ = 2: G¹ = (3/4, 3/4), λ¹ = (1/4, -1/4), "
        "Θ² = (W + 2(G¹ - λ¹))/3 = (2/3, 5/6) is not of the form α(±1 or 0, ±1 or 0)",
    ),
    proof=r"""
$\hat\Theta^{k+1}=(H+\rho I)^{-1}(H\bar\Theta+\rho(G^k-\lambda^k))$ is a point of $\mathbb R^N$; it lies in
$\Omega$ only by chance, as $\lambda^k\ne0$ in general. $G^{k+1}$ is a projection onto $\Omega$, so it is in
$\Omega$. The sequence $f(G^k)$ need not fall, so an implementation keeps the best. (12) has no saddle point
that ADMM would have to find, as $\Omega$ is not convex; no statement on optimality holds without further
assumptions (checked against all $Q$). $\square$
""",
    checks=(
        by_hand(),
        on_all(
            "the package's G is in Ω, and the best of a rational run",
            problems,
            which="corrected",
            kind="float",
        ),
        Check(name="no guarantee of an optimum", kind="exact", run=optimality),
    ),
    mutations=(
        Mutation(
            name="corrected: G - λ is in Ω",
            changes={"corrected": replace(CORRECTED, holds=dual_is_quantized)},
        ),
        Mutation(
            name="corrected: the last G is returned",
            changes={"corrected": replace(CORRECTED, holds=partial(best_is_quantized, returned="last"))},
        ),
        Mutation(
            name="corrected: the last G is optimal",
            changes={"corrected": replace(CORRECTED, holds=is_optimal)},
        ),
        Mutation(name="printed: G is in Ω", changes={"printed": replace(PRINTED, holds=best_is_quantized)}),
    ),
)
