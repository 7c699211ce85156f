r"""(13): the proximal step is the minimum of L_ρ over Θ. True; it exists and is unique for every ρ > 0.

The printed general scheme (3) says argmax, for which there is no maximizer; here the paper minimizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from refldnq.verify.claims._admm import lagrangian, proximal
from refldnq.verify.claims._examined import on_all
from refldnq.verify.claims._rational import draw, inner, semidefinite
from refldnq.verify.claims.base import Claim, Instance, Mutation, Statement


def rises(by: Callable[[Any, Any, Any], Any]) -> Callable[[Instance], bool]:
    """A statement: from the Θ of (15), L_ρ changes by `by` (H, ρ, s), positive, for every step s ≠ 0."""

    def holds(instance: Instance) -> bool:
        H, W, rho, G, lam, step = (instance[name] for name in ("H", "W", "rho", "G", "lam", "step"))
        theta = proximal(H, W, rho, G, lam)
        there = lagrangian(H, W, rho, theta + step, G, lam)
        change = there - lagrangian(H, W, rho, theta, G, lam)
        return bool(change == by(H, rho, step) and (change > 0) == (inner(step, step) > 0))

    return holds


def points() -> Iterator[Instance]:
    """Random problems, H of any rank, and steps."""
    rng = np.random.default_rng(13)
    for d in (1, 2, 3) * 70:
        yield {
            "H": semidefinite(rng, d, int(rng.integers(1, d + 1))),
            "W": draw(rng, d),
            "rho": abs(draw(rng, 1)[0]) + Fraction(1, 7),
            "G": draw(rng, d),
            "lam": draw(rng, d),
            "step": draw(rng, d),
        }


def quadratic(H: Any, rho: Any, step: Any) -> Any:
    """½ sᵀ(H + ρI)s."""
    return (inner(step, H @ step) + rho * inner(step, step)) / 2


CLAIM = Claim(
    id="eq13",
    title="The proximal step",
    source="(13)",
    printed=Statement(
        latex=r"\hat\Theta^{k+1}=\arg\min_{\hat\Theta}L_\rho(\hat\Theta,G^k,\lambda^k)",
        words="L_ρ has one minimizer over Θ, which solves (15); away from it L_ρ rises by ½ sᵀ(H + ρI)s",
        holds=rises(quadratic),
    ),
    verdict="true",
    reason="L_ρ is strictly convex in Θ for every ρ > 0, singular H included",
    proof=r"""
$L_\rho(\cdot,G,\lambda)$ is a quadratic with Hessian $H+\rho I\succeq\rho I\succ0$. At the $\hat\Theta$
where its gradient vanishes, which is (15), the Taylor expansion is
$L_\rho(\hat\Theta+s)-L_\rho(\hat\Theta)=\frac12s^\top(H+\rho I)s\ge\frac\rho2\|s\|^2$, exactly; so that
point is the only minimizer. There is no maximizer: $L_\rho$ is unbounded above.
""",
    checks=(on_all("Taylor expansion at the solution of (15)", points),),
    mutations=(
        Mutation(
            name="argmax in place of argmin",
            changes={
                "printed": Statement(
                    latex=r"\arg\max", words="argmax", holds=rises(lambda *given: -quadratic(*given))
                )
            },
        ),
        Mutation(
            name="the penalty counted twice",
            changes={
                "printed": Statement(
                    latex=r"\rho", words="ρ", holds=rises(lambda H, rho, step: quadratic(H, 2 * rho, step))
                )
            },
        ),
    ),
)
