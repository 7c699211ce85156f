r"""(5): λ^{k+1} = λ^k + x^{k+1} - z^{k+1}, for the general constraint h(x, z) = 0 of (1)-(4).

Right for h(x, z) = x - z only. In general λ moves by h(x^{k+1}, z^{k+1}); with the printed rule the run on a
convex problem with h = x + z diverges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

from refldnq.verify.arithmetic import EXACT
from refldnq.verify.claims._examined import by_hand, on_all, satisfies
from refldnq.verify.claims._rational import exact
from refldnq.verify.claims._splitting import Splitting, example, problem, splittings
from refldnq.verify.claims.base import Check, Claim, Counterexample, Finding, Instance, Mutation, Statement

Rule = Callable[[Splitting, Any, Any], Any]
"""What is added to λ, from the problem and the new x and z."""

STEPS = 60


def residual(own: Splitting, x: Any, z: Any) -> Any:
    """The constraint's own value, h(x, z)."""
    return own.h(x, z)


def difference(own: Splitting, x: Any, z: Any) -> Any:
    """(5) as printed."""
    return x - z  # [LDNQ] (5)


def opposite(own: Splitting, x: Any, z: Any) -> Any:
    """The wrong sign."""
    return -own.h(x, z)


def unscaled(own: Splitting, x: Any, z: Any) -> Any:
    """The step of y, not of λ."""
    return own.rho * own.h(x, z)


def keeps_multiplier(instance: Instance, *, rule: Rule) -> bool:
    """Whether after an iteration (3), (4), (5) from the instance's z and λ the multiplier fits z and x.

    That is ∇g(z) + ρBᵀλ = 0 and ∇f(x) + ρAᵀ(λ + B(z_before - z)) = 0.
    """
    own = problem(instance, EXACT)
    before, lam = instance["z"], instance["lam"]
    x = own.x_step(before, lam)  # [LDNQ] (3)
    z = own.z_step(x, lam)  # [LDNQ] (4)
    lam = lam + rule(own, x, z)
    in_z = own.g_gradient(z) + own.rho * (own.B.T @ lam)
    in_x = own.f_gradient(x) + own.rho * (own.A.T @ (lam + own.B @ (before - z)))
    return bool((in_z == 0).all() and (in_x == 0).all())


def consensus(claim: Claim) -> Finding:
    """Printed and corrected on problems with h = x - z, where both are right."""
    assert claim.corrected is not None
    count = 0
    for instance in splittings(501, 40, consensus=True):
        count += 1
        if not (satisfies(claim.printed, instance) and satisfies(claim.corrected, instance)):
            return Finding(ok=False, text=f"instance {count} with h = x - z violates one of the forms")
    return Finding(ok=True, text=f"for h = x - z both forms hold on {count} rational instances, exactly")


def run(own: Splitting, rule: Rule) -> tuple[Any, Any, Any]:
    """`STEPS` iterations from zero."""
    x = z = lam = exact([0])
    for _ in range(STEPS):
        x = own.x_step(z, lam)
        z = own.z_step(x, lam)
        lam = lam + rule(own, x, z)
    return x[0], z[0], lam[0]


def runs(claim: Claim) -> Finding:
    """Both rules on the counterexample's problem, whose solution is x = -1/2, z = λ = 1/2."""
    assert claim.counterexample is not None
    own = problem(claim.counterexample.instance, EXACT)
    solution = (Fraction(-1, 2), Fraction(1, 2), Fraction(1, 2))
    right, wrong = (
        max(abs(a - b) for a, b in zip(run(own, rule), solution, strict=True))
        for rule in (residual, difference)
    )
    text = (
        f"{STEPS} exact steps: distance from the solution {float(right):.2g} with h, {float(wrong):.3g} "
        f"printed"
    )
    return Finding(
        ok=right < Fraction(1, 10**8) and wrong > 10,
        text=text,
        numbers={"corrected": float(right), "printed": float(wrong)},
    )


def problems() -> Iterator[Instance]:
    """Random problems with a general h."""
    return splittings(502, 60)


PRINTED = Statement(
    latex=r"\lambda^{k+1}=\lambda^k+\mathbf x^{k+1}-\mathbf z^{k+1}",
    words="lambda moves by x - z, whatever the constraint h(x, z) = 0",
    holds=partial(keeps_multiplier, rule=difference),
)

CORRECTED = Statement(
    latex=r"\lambda^{k+1}=\lambda^k+h(\mathbf x^{k+1},\mathbf z^{k+1})",
    words="lambda moves by h(x, z); this is the printed rule for h(x, z) = x - z",
    holds=partial(keeps_multiplier, rule=residual),
)

EXAMPLE = Counterexample(
    instance=example(S=exact([[1]]), r=exact([-1]), B=exact([[1]]), z=exact(["1/2"]), lam=exact(["1/2"])),
    shown="min x²/2 + (z - 1)²/2 with h = x + z, ρ = 1, at its solution x = -1/2, z = λ = 1/2: (3) and (4) "
    "stay, "
    "(5) moves λ to 1/2 - 1/2 - 1/2 = -1/2, and ∇g(z) + λ = -1/2 - 1/2 = -1, not 0",
)

CLAIM = Claim(
    id="eq05",
    title="The dual update",
    source="(5)",
    printed=PRINTED,
    verdict="true with a fix",
    reason="right for h = x - z only; in general λ + h(x, z)",
    corrected=CORRECTED,
    counterexample=EXAMPLE,
    proof=r"""
Let $h=Ax+Bz-c$. The minimizer $z^{k+1}$ of $L_\rho(x^{k+1},\cdot,\lambda^k)$ satisfies
$$0=\nabla g(z^{k+1})+\rho B^\top\big(h(x^{k+1},z^{k+1})+\lambda^k\big)=\nabla g(z^{k+1})+\rho
B^\top\lambda^{k+1}$$
with the corrected rule: after every iteration $z^{k+1}$ is stationary for the ordinary Lagrangian with
$y=\rho\lambda^{k+1}$. For $x^{k+1}$ the same with $z^k$ in place of $z^{k+1}$:
$\nabla f(x^{k+1})+\rho A^\top(\lambda^{k+1}+B(z^k-z^{k+1}))=0$. So at a fixed point, where
$\lambda^{k+1}=\lambda^k$ gives $h=0$, all conditions of optimality hold. The printed rule is the corrected
one if and only if $h=x-z$ at the iterates; otherwise its fixed points satisfy $x=z$, not $h=0$. $\square$
""",
    checks=(
        by_hand(),
        on_all("stationarity after a step", problems, which="corrected"),
        Check(name="h = x - z", kind="exact", run=consensus),
        Check(name="a convex problem with h = x + z", kind="exact", run=runs),
    ),
    mutations=(
        Mutation(
            name="corrected: minus h",
            changes={"corrected": replace(CORRECTED, holds=partial(keeps_multiplier, rule=opposite))},
        ),
        Mutation(
            name="corrected: ρh, the step of y",
            changes={"corrected": replace(CORRECTED, holds=partial(keeps_multiplier, rule=unscaled))},
        ),
        Mutation(
            name="printed: the corrected rule",
            changes={"printed": replace(PRINTED, holds=partial(keeps_multiplier, rule=residual))},
        ),
        Mutation(
            name="counterexample: h = x - z",
            changes={
                "counterexample": replace(
                    EXAMPLE, instance={**EXAMPLE.instance, "B": exact([[-1]]), "z": exact([0])}
                )
            },
        ),
    ),
)
