r"""(14): L_ρ(Θ, Gᵏ, λᵏ) = f(Θ) + ρ/2 ‖Θ - Gᵏ + λᵏ‖².

Not equal to (12): the constant -ρ/2 ‖λᵏ‖² is missing (and I_Ω(Gᵏ) = 0). It does not depend on Θ, so the
minimizer is the same, and the algorithm is not affected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from refldnq.verify.claims._admm import error, lagrangian, proximal
from refldnq.verify.claims._examined import by_hand, on_all
from refldnq.verify.claims._rational import draw, exact, semidefinite, squares
from refldnq.verify.claims.base import Claim, Counterexample, Instance, Mutation, Statement


def equal_up_to(constant: Callable[[Any, Any], Any]) -> Callable[[Instance], bool]:
    """A statement: (12) is f(Θ) + ρ/2 ‖Θ - G + λ‖² + `constant` (ρ, λ), so both have the minimizer (15)."""

    def holds(instance: Instance) -> bool:
        H, W, rho, theta, G, lam = (instance[name] for name in ("H", "W", "rho", "theta", "G", "lam"))

        def without(at: Any) -> Any:
            return error(H, W, at) + rho * squares(at - G + lam) / 2

        same = lagrangian(H, W, rho, theta, G, lam) == without(theta) + constant(rho, lam)
        return bool(same and without(proximal(H, W, rho, G, lam)) <= without(theta))

    return holds


def points() -> Iterator[Instance]:
    """Random problems and points."""
    rng = np.random.default_rng(14)
    for d in (1, 2, 3) * 50:
        yield {
            "H": semidefinite(rng, d, int(rng.integers(1, d + 1))),
            "W": draw(rng, d),
            "rho": abs(draw(rng, 1)[0]) + 1,
            "theta": draw(rng, d),
            "G": draw(rng, d),
            "lam": draw(rng, d),
        }


CLAIM = Claim(
    id="eq14",
    title="The objective of the proximal step",
    source="(14)",
    printed=Statement(
        latex=r"L_\rho(\hat\Theta,G^k,\lambda^k)=f(\hat\Theta)+\tfrac\rho2\|\hat\Theta-G^k+\lambda^k\|_2^2",
        words="(12) at Gᵏ, λᵏ equals f(Θ) + ρ/2 ‖Θ - Gᵏ + λᵏ‖²",
        holds=equal_up_to(lambda rho, lam: 0),
    ),
    verdict="true with a fix",
    reason="equal up to a constant that does not move the minimizer",
    corrected=Statement(
        latex=r"L_\rho(\hat\Theta,G^k,\lambda^k)=f(\hat\Theta)+\tfrac\rho2\|\hat\Theta-G^k+\lambda^k\|_2^2"
        r"-\tfrac\rho2\|\lambda^k\|_2^2",
        words="(12) at Gᵏ, λᵏ equals (14) less ρ/2 ‖λᵏ‖²",
        holds=equal_up_to(lambda rho, lam: -rho * squares(lam) / 2),
    ),
    counterexample=Counterexample(
        instance={
            "H": exact([[1]]),
            "W": exact([0]),
            "rho": Fraction(2),
            "theta": exact([0]),
            "G": exact([0]),
            "lam": exact([1]),
        },
        shown="ρ = 2, λ = 1, Θ = G = W = 0: (12) is 1 - 1 = 0, (14) is 1",
    ),
    proof=r"""
$G^k\in\Omega$ has $I_\Omega(G^k)=0$, so (12) is $f(\hat\Theta)+\frac\rho2\|\hat\Theta-G^k+\lambda^k\|^2
-\frac\rho2\|\lambda^k\|^2$. The last term does not depend on $\hat\Theta$: both have the same minimizer.
""",
    checks=(by_hand(), on_all("equality with the constant, and the minimizer", points, which="corrected")),
    mutations=(
        Mutation(
            name="the constant with the wrong sign",
            changes={
                "corrected": Statement(
                    latex="+", words="+", holds=equal_up_to(lambda rho, lam: rho * squares(lam) / 2)
                )
            },
        ),
        Mutation(
            name="the constant without the half",
            changes={
                "corrected": Statement(
                    latex=r"\rho", words="ρ", holds=equal_up_to(lambda rho, lam: -rho * squares(lam))
                )
            },
        ),
        Mutation(
            name="a counterexample with λ = 0",
            changes={
                "counterexample": Counterexample(
                    instance={
                        "H": exact([[1]]),
                        "W": exact([0]),
                        "rho": Fraction(2),
                        "theta": exact([0]),
                        "G": exact([0]),
                        "lam": exact([0]),
                    },
                    shown="λ = 0",
                )
            },
        ),
    ),
)
