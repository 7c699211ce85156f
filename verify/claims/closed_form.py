r"""A closed form: "the quantization can be obtained in a closed-form solution".

False: each of the three steps has one, the iteration has not, and its result depends on ρ and on where it
starts; the optimum of (10) is found by search, not by a formula.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np

from refldnq.verify.claims import _admm
from refldnq.verify.claims._examined import by_hand, on_all
from refldnq.verify.claims._projection import enumerated
from refldnq.verify.claims._rational import definite, draw, exact, inner, squares
from refldnq.verify.claims.base import Check, Claim, Counterexample, Finding, Instance, Mutation, Statement

ITERATIONS = 8


def last(instance: Instance, start: str) -> list[Fraction]:
    """G after `ITERATIONS` of ADMM with ρ from G = start, λ = 0."""
    H, W = instance["H"], instance["W"]
    states = _admm.run(H, W, instance["rho"], _admm.free(0), instance[start], 0 * W, ITERATIONS)
    return list(states[-1].G)


def optimal(instance: Instance) -> bool:
    """Whether the signs of ADMM's result are optimal for (10); the scale is refitted to them."""
    H, W = instance["H"], instance["W"]
    Q = exact(np.sign(np.array(last(instance, "W"), dtype=float)).astype(int))
    top, bottom = inner(Q, H @ W), inner(Q, H @ Q)
    alpha = top / bottom if top > 0 and bottom > 0 else Fraction(0)
    return bool(_admm.error(H, W, alpha * Q) == _admm.best(H, W, 0).residual)


def steps(instance: Instance) -> bool:
    """Each step: (15) has slope 0, (16) is nearest among all of Ω, (18) is a sum."""
    H, W, rho = instance["H"], instance["W"], instance["rho"]
    state = _admm.step(H, W, rho, _admm.free(0), W, instance["lam"])
    slope = H @ (state.theta - W) + rho * (state.theta - W + instance["lam"])
    nearest = squares(state.V - state.G) == enumerated(state.V, 0)
    return not slope.any() and bool(nearest) and bool((state.lam == state.V - state.G).all())


def nearest_is_rounding(instance: Instance) -> bool:
    """That the projection is rounding at the mean magnitude, a formula: an error."""
    V = instance["W"]
    return bool(squares(V - _admm.fixed(abs(V).mean(), 0)(V)) == enumerated(V, 0))


def without_dual(instance: Instance) -> bool:
    """(15) without the dual variable: an error."""
    H, W, rho = instance["H"], instance["W"], instance["rho"]
    theta = _admm.proximal(H, W, rho, W, 0 * W)
    return not (H @ (theta - W) + rho * (theta - W + instance["lam"])).any()


def problems() -> Iterator[Instance]:
    """Random problems of two or three weights."""
    rng = np.random.default_rng(4501)
    for k in range(40):
        d = 2 + k % 2
        W, lam = draw(rng, d, most=6, parts=3), draw(rng, d, most=3, parts=3)
        W[0], lam[0] = W[0] or Fraction(1), lam[0] or Fraction(1)
        yield {"H": definite(rng, d), "W": W, "lam": lam, "other": 0 * W, "rho": Fraction(1 + k % 5)}


def dependence(claim: Claim) -> Finding:
    """The result depends on ρ and on the start; the optimum of (10) does not."""
    holds = claim.printed.holds
    assert holds is not None
    rhos = starts = wrong = count = 0
    for instance in problems():
        count += 1
        own = last(instance, "W")
        starts += own != last(instance, "other")
        rhos += own != last({**instance, "rho": 10 * instance["rho"]}, "W")
        wrong += not holds(instance)
    text = (
        f"of {count} problems: another start gives another G in {starts}, another ρ in {rhos}; "
        f"G is not optimal in {wrong}"
    )
    return Finding(ok=min(rhos, wrong) > 0, text=text)


PRINTED = Statement(
    latex=r"\text{ADMM gives }\arg\min_{\hat\Theta\in\Omega}f(\hat\Theta)\text{ in closed form}",
    words="the quantization problem (10) has a closed-form solution, and ADMM gives it",
    holds=optimal,
)

CORRECTED = Statement(
    latex=r"\text{(15), (16) and (18) have explicit solutions, each of its own subproblem}",
    words="every step is solved explicitly, the projection by the exact sweep; the iteration has no formula",
    holds=steps,
)

CLAIM = Claim(
    id="closed-form",
    title="A closed-form solution",
    source="Introduction",
    printed=PRINTED,
    verdict="false",
    reason="each step has a closed form, the quantizer has not; its result depends on ρ and the start",
    corrected=CORRECTED,
    counterexample=Counterexample(
        instance={
            "H": exact([[1, 0], [0, 4]]),
            "W": exact([3, 1]),
            "lam": exact([0, 0]),
            "other": exact([0, 0]),
            "rho": Fraction(5),
        },
        shown="H = diag(1, 4), W = (3, 1), ρ = 5: G = (3, 0) in all iterations, f = 2; "
        "the optimum of (10) is 7/5·(1, 1), f = 8/5",
    ),
    proof=r"""
(15) is a linear system with a positive definite matrix: one solution, explicit. (16) has an explicit solution
by sorting: $\min_G\|V-G\|^2=\|V\|^2-\max A^2/B$ over the states of a sweep; the alternation of the paper is
not one. (18) is a sum. Their iteration is an algorithm with a result that depends on $\rho$, the start and
the number of iterations. If it were a closed form of (10) it would give the optimum; it does not. $\square$
""",
    checks=(
        by_hand(),
        on_all("the three steps", problems, which="corrected"),
        Check(name="ρ, start, optimum", kind="exact", run=dependence),
    ),
    mutations=(
        Mutation(
            name="corrected: the projection is rounding at the mean",
            changes={"corrected": replace(CORRECTED, holds=nearest_is_rounding)},
        ),
        Mutation(
            name="corrected: (15) without λ", changes={"corrected": replace(CORRECTED, holds=without_dual)}
        ),
        Mutation(name="printed: the steps only", changes={"printed": replace(PRINTED, holds=steps)}),
    ),
)
