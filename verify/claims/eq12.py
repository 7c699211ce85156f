r"""(12): the augmented Lagrangian of (11) with the scaled dual λ = y/ρ. True.

L_ρ = f(Θ) + I_Ω(G) + ρ/2 ‖Θ - G + λ‖² - ρ/2 ‖λ‖² is f(Θ) + I_Ω(G) + yᵀ(Θ - G) + ρ/2 ‖Θ - G‖² with y = ρλ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from refldnq.verify.claims._admm import error, lagrangian
from refldnq.verify.claims._examined import on_all
from refldnq.verify.claims._rational import draw, inner, semidefinite, squares
from refldnq.verify.claims.base import Claim, Instance, Mutation, Statement


def scaled(multiplier: Callable[[Any, Any], Any]) -> Callable[[Instance], bool]:
    """A statement: (12) is the Lagrangian with multipliers `multiplier` (ρ, λ), augmented by ρ/2 ‖Θ - G‖²."""

    def holds(instance: Instance) -> bool:
        H, W, rho, theta, G, lam = (instance[name] for name in ("H", "W", "rho", "theta", "G", "lam"))
        plain = error(H, W, theta) + inner(multiplier(rho, lam), theta - G) + rho * squares(theta - G) / 2
        return bool(lagrangian(H, W, rho, theta, G, lam) == plain)

    return holds


def points() -> Iterator[Instance]:
    """Random problems and points, H of any rank; I_Ω(G) = 0 on both sides."""
    rng = np.random.default_rng(12)
    for d in (1, 2, 3) * 70:
        yield {
            "H": semidefinite(rng, d, int(rng.integers(1, d + 1))),
            "W": draw(rng, d),
            "rho": abs(draw(rng, 1)[0]) + 1,
            "theta": draw(rng, d),
            "G": draw(rng, d),
            "lam": draw(rng, d),
        }


CLAIM = Claim(
    id="eq12",
    title="The augmented Lagrangian of (11)",
    source="(12)",
    printed=Statement(
        latex=r"L_\rho(\hat\Theta,G,\lambda)=f(\hat\Theta)+I_\Omega(G)+\tfrac\rho2\|\hat\Theta-G+\lambda\|_2^2"
        r"-\tfrac\rho2\|\lambda\|_2^2",
        words="(12) is the augmented Lagrangian of (11) with the multipliers y = ρλ",
        holds=scaled(lambda rho, lam: rho * lam),
    ),
    verdict="true",
    reason="completing the square, with λ = y/ρ",
    proof=r"""
With $h=\hat\Theta-G$ and $y=\rho\lambda$:
$\frac\rho2\|h+\lambda\|^2-\frac\rho2\|\lambda\|^2=\frac\rho2\|h\|^2+\rho\lambda^\top h
=\frac\rho2\|h\|^2+y^\top h$, which is the multiplier term and the penalty of the augmented Lagrangian (1). If
$\rho$ changes during a run, $y$ must stay, so $\lambda$ has to be multiplied by $\rho_{old}/\rho_{new}$.
""",
    checks=(on_all("expansion", points),),
    mutations=(
        Mutation(
            name="unscaled dual, y = λ",
            changes={"printed": Statement(latex="y", words="y = λ", holds=scaled(lambda rho, lam: lam))},
        ),
        Mutation(
            name="dual scaled the wrong way, λ = ρy",
            changes={
                "printed": Statement(latex="y", words="λ = ρy", holds=scaled(lambda rho, lam: lam / rho))
            },
        ),
        Mutation(
            name="wrong sign of the multiplier",
            changes={"printed": Statement(latex="y", words="y", holds=scaled(lambda rho, lam: -rho * lam))},
        ),
    ),
)
