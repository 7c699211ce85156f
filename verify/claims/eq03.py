r"""(3): x^{k+1} = argmax_x L_ρ(x, z^k, λ^k), as printed.

There is no maximum: for convex f the augmented Lagrangian is unbounded above in x. The step is argmin, as the
paper itself has it in (13).
"""

from __future__ import annotations

from dataclasses import replace

from refldnq.verify.claims._examined import by_hand, refuted, survives
from refldnq.verify.claims._extremes import least_at_step, maximal, minimal, space, unbounded
from refldnq.verify.claims._rational import exact
from refldnq.verify.claims._splitting import example
from refldnq.verify.claims.base import Claim, Counterexample, Mutation, Statement

PRINTED = Statement(
    latex=r"\mathbf x^{k+1}=\operatorname{argmax}_{\mathbf x}L_\rho(\mathbf x,\mathbf z^k,\lambda^k)",
    words="x is taken where L_rho is largest: L_rho(x) <= L_rho(x*) for all x",
    sides=maximal("x"),
)

CORRECTED = Statement(
    latex=r"\mathbf x^{k+1}=\operatorname{argmin}_{\mathbf x}L_\rho(\mathbf x,\mathbf z^k,\lambda^k)",
    words="x is taken where L_rho is least: L_rho(x*) <= L_rho(x) for all x",
    sides=minimal("x"),
)

EXAMPLE = Counterexample(
    instance=example(x=exact([1])),
    shown="f = x²/2, h = x - z, ρ = 1, z = λ = 0: L_ρ(x) = x², so L_ρ(1) = 1 > 0 = L_ρ(0), and no x is "
    "largest",
)

CLAIM = Claim(
    id="eq03",
    title="The proximal step",
    source="(3)",
    printed=PRINTED,
    verdict="false",
    reason="argmax should be argmin: L_ρ is unbounded above in x",
    corrected=CORRECTED,
    counterexample=EXAMPLE,
    proof=r"""
*There is no argmax.* Let $f$ be convex and finite, $h=Ax+Bz-c$ and $Av\ne0$. With a subgradient $s$ of $f$ at
$x$,
$$L_\rho(x+tv,z,\lambda)\ge f(x)+t\,s^\top
v+g(z)+\tfrac\rho2\|h(x,z)+\lambda+tAv\|^2-\tfrac\rho2\|\lambda\|^2,$$
which tends to $+\infty$ with $t$. (A maximizer would be stationary, and the stationary point is the minimum.)

*The argmin.* For $f(x)=\frac12\|Rx\|^2+q^\top x$ and $M=R^\top R+\rho A^\top A$ positive definite,
$$L_\rho(x)-L_\rho(x^*)=\tfrac12(x-x^*)^\top M(x-x^*)\ge0,\qquad Mx^*=-q-\rho A^\top(Bz^k-c+\lambda^k),$$
with equality for $x=x^*$ only. $\square$ The paper's own (13) and (15) minimize.
""",
    checks=(
        by_hand(),
        unbounded("x"),
        least_at_step("x", seed=301),
        refuted(space(), seed=303, seconds=30.0, tries=200),
        survives(space(), seed=304, tries=200),
    ),
    mutations=(
        Mutation(name="corrected: argmax", changes={"corrected": replace(CORRECTED, sides=maximal("x"))}),
        Mutation(name="printed: argmin", changes={"printed": replace(PRINTED, sides=minimal("x"))}),
        Mutation(
            name="corrected: -λ in the minimizer",
            changes={"corrected": replace(CORRECTED, sides=minimal("x", -1))},
        ),
        Mutation(
            name="counterexample: the stationary point itself",
            changes={"counterexample": replace(EXAMPLE, instance=example())},
        ),
    ),
)
