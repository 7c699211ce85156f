r"""(2): L_ρ with the scaled multiplier, "y is replaced by λ = (1/a) y".

The letter a is not defined. The identity holds if and only if a = ρ (or yᵀh = 0): λ = y/ρ. The arguments of
L_ρ should then be (x, z, λ), not (x, y, z). Where ρ changes during a run, y is what must be kept: λ is
multiplied by ρ_old/ρ_new.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

from refldnq.verify.arithmetic import EXACT
from refldnq.verify.claims._examined import by_hand, on_all, satisfies, stated
from refldnq.verify.claims._rational import draw, exact, inner
from refldnq.verify.claims._splitting import Splitting, example, problem, splittings
from refldnq.verify.claims.base import Check, Claim, Counterexample, Finding, Instance, Mutation, Statement
from refldnq.verify.claims.eq01 import augmented

Scale = Callable[[Instance], Any]
"""The a of λ = y/a, on an instance."""


def scaled(own: Splitting, x: Any, z: Any, lam: Any) -> Any:
    """(2)."""
    h = own.h(x, z)
    squares = inner(h + lam, h + lam) - inner(lam, lam)
    return own.f(x) + own.g(z) + own.rho / 2 * squares  # [LDNQ] (2)


def equal(instance: Instance, *, scale: Scale) -> bool:
    """Whether (2) at λ = y/a is (1) at y."""
    own = problem(instance, EXACT)
    x, z, y = (instance[name] for name in "xzy")
    return bool(scaled(own, x, z, y / scale(instance)) == augmented(own, x, z, y))


def only_by_penalty(instance: Instance, *, scale: Scale, rescaled: Scale) -> bool:
    """Whether (2) is (1) exactly for the right a, and stays so when ρ changes and λ is rescaled."""
    own = problem(instance, EXACT)
    x, z, y, a, after = (instance[name] for name in ("x", "z", "y", "a", "rho_after"))
    right = equal(instance, scale=scale)
    no_product = inner(y, own.h(x, z)) == 0
    others = equal(instance, scale=lambda _: a) == (a == own.rho or no_product)
    lam = y / own.rho * rescaled(instance)
    later = replace(own, rho=after)
    return right and others and bool(scaled(later, x, z, lam) == augmented(later, x, z, y))


def given_a(instance: Instance) -> Any:
    """The a of the instance, whatever it is: as printed."""
    return instance["a"]


def penalty(instance: Instance) -> Any:
    """ρ."""
    return instance["rho"]


def inverse(instance: Instance) -> Any:
    """1/ρ."""
    return 1 / instance["rho"]


def old_over_new(instance: Instance) -> Any:
    """The factor of λ when ρ changes."""
    return instance["rho"] / instance["rho_after"]


def unchanged(instance: Instance) -> Any:
    """No factor."""
    return Fraction(1)


def problems() -> Iterator[Instance]:
    """Random problems with random a; in every fourth a = ρ."""
    rng = np.random.default_rng(201)
    for k, instance in enumerate(splittings(202, 120)):
        a = instance["rho"] if k % 4 == 0 else draw(rng, 1)[0] or Fraction(1)
        yield {**instance, "a": a, "rho_after": abs(draw(rng, 1)[0]) + Fraction(1, 3)}


def change_of_penalty(claim: Claim) -> Finding:
    """ADMM on min (x-3)²/2 over [0, 1], ρ from 1 to 50 after 6 steps, λ rescaled or kept."""
    corrected = stated(claim, "corrected")
    errors = []
    for factor in (Fraction(1, 50), Fraction(1)):
        x = z = lam = Fraction(0)
        rho, worst = Fraction(1), Fraction(0)
        for step in range(12):
            x = (3 + rho * (z - lam)) / (1 + rho)
            z = min(Fraction(1), max(Fraction(0), x + lam))
            lam = lam + x - z
            worst = max(worst, abs(x - 1)) if step >= 6 else worst
            if step == 5:
                lam, rho = lam * factor, Fraction(50)
        errors.append(worst)
    kept_right, kept_wrong = errors
    one = exact([1])
    consistent = satisfies(
        corrected, {**example(rho=Fraction(1), x=one, y=one), "a": Fraction(1), "rho_after": Fraction(50)}
    )
    text = (
        f"error after the change: {float(kept_right):.2g} with λρ_old/ρ_new, {float(kept_wrong):.3g} without"
    )
    return Finding(
        ok=consistent and 100 * kept_right < kept_wrong,
        text=text,
        numbers={"rescaled": float(kept_right), "kept": float(kept_wrong)},
    )


PRINTED = Statement(
    latex=r"L_\rho(\mathbf x,\mathbf y,\mathbf z)=f(\mathbf x)+g(\mathbf z)+\tfrac\rho2\|h(\mathbf x,"
    r"\mathbf z)"
    r"+\lambda\|_2^2-\tfrac\rho2\|\lambda\|^2,\qquad \lambda=\tfrac1a\,\mathbf y",
    words="with lambda = y/a, a undefined, (1) becomes f + g + (rho/2)|h + lambda|^2 - (rho/2)|lambda|^2",
    holds=partial(equal, scale=given_a),
)

CORRECTED = Statement(
    latex=r"L_\rho(\mathbf x,\mathbf z,\lambda)=f(\mathbf x)+g(\mathbf z)+\tfrac\rho2\|h(\mathbf x,\mathbf z)"
    r"+\lambda\|_2^2-\tfrac\rho2\|\lambda\|_2^2,\qquad \lambda=\tfrac1\rho\,\mathbf y",
    words="(2) is (1) with lambda = y/rho, and with no other scale unless y'h = 0; "
    "if rho changes, lambda is multiplied by rho_old/rho_new",
    holds=partial(only_by_penalty, scale=penalty, rescaled=old_over_new),
)

EXAMPLE = Counterexample(
    instance={
        **example(R=exact([[0]]), rho=Fraction(2), x=exact([1]), y=exact([1])),
        "a": Fraction(1),
        "rho_after": Fraction(3),
    },
    shown="ρ = 2, y = h = 1, f = g = 0: (1) is 1 + 1 = 2, (2) with a = 1 is 4 - 1 = 3, with a = ρ it is 9/4 "
    "- 1/4 = 2",
)

CLAIM = Claim(
    id="eq02",
    title="The scaled multiplier",
    source="(2)",
    printed=PRINTED,
    verdict="true with a fix",
    reason="exact for a = ρ, which is not said, and for no other a; the arguments are (x, z, λ)",
    corrected=CORRECTED,
    counterexample=EXAMPLE,
    proof=r"""
Expand: $\frac\rho2\|h+\lambda\|^2-\frac\rho2\|\lambda\|^2=\rho\lambda^\top h+\frac\rho2\|h\|^2$. With
$\lambda=y/a$ this is $\frac\rho a\,y^\top h+\frac\rho2\|h\|^2$, which is $y^\top h+\frac\rho2\|h\|^2$ if and
only if $a=\rho$ or $y^\top h=0$. $\square$

*When $\rho$ changes.* The multiplier of the problem is $y$, not $\lambda$. To keep $y=\rho\lambda$ when
$\rho_{old}$ is replaced by $\rho_{new}$, $\lambda$ is replaced by $\lambda\,\rho_{old}/\rho_{new}$.
""",
    checks=(
        by_hand(),
        on_all("the identity, and no other scale", problems, which="corrected"),
        Check(name="ρ changed during a run", kind="exact", run=change_of_penalty),
    ),
    mutations=(
        Mutation(
            name="corrected: λ = ρy",
            changes={
                "corrected": replace(
                    CORRECTED, holds=partial(only_by_penalty, scale=inverse, rescaled=old_over_new)
                )
            },
        ),
        Mutation(
            name="corrected: λ stays when ρ changes",
            changes={
                "corrected": replace(
                    CORRECTED, holds=partial(only_by_penalty, scale=penalty, rescaled=unchanged)
                )
            },
        ),
        Mutation(
            name="printed: a is ρ",
            changes={"printed": replace(PRINTED, holds=partial(equal, scale=penalty))},
        ),
        Mutation(
            name="counterexample: a = ρ",
            changes={"counterexample": replace(EXAMPLE, instance={**EXAMPLE.instance, "a": Fraction(2)})},
        ),
    ),
)
