r"""(4): z^{k+1} = argmax_z L_ρ(x^{k+1}, z, λ^k), as printed.

There is no maximum: for convex g the augmented Lagrangian is unbounded above in z; and over a finite set the
maximum is the point farthest from x + λ, not the nearest. The step is argmin, as the paper itself has it in
(16).
"""

from __future__ import annotations

from dataclasses import replace

from refldnq.verify.claims._examined import by_hand, refuted, survives
from refldnq.verify.claims._extremes import least_at_step, maximal, minimal, space, unbounded
from refldnq.verify.claims._rational import exact
from refldnq.verify.claims._splitting import example
from refldnq.verify.claims.base import Claim, Counterexample, Mutation, Statement

PRINTED = Statement(
    latex=r"\mathbf z^{k+1}=\operatorname{argmax}_{\mathbf z}L_\rho(\mathbf x^{k+1},\mathbf z,\lambda^k)",
    words="z is taken where L_rho is largest: L_rho(z) <= L_rho(z*) for all z",
    sides=maximal("z"),
)

CORRECTED = Statement(
    latex=r"\mathbf z^{k+1}=\operatorname{argmin}_{\mathbf z}L_\rho(\mathbf x^{k+1},\mathbf z,\lambda^k)",
    words="z is taken where L_rho is least: L_rho(z*) <= L_rho(z) for all z",
    sides=minimal("z"),
)

EXAMPLE = Counterexample(
    instance=example(R=exact([[0]]), S=exact([[1]]), z=exact([1])),
    shown="g = z²/2, f = 0, h = x - z, ρ = 1, x = λ = 0: L_ρ(z) = z², so L_ρ(1) = 1 > 0 = L_ρ(0), and no z "
    "is largest",
)

CLAIM = Claim(
    id="eq04",
    title="The projection step",
    source="(4)",
    printed=PRINTED,
    verdict="false",
    reason="argmax should be argmin: L_ρ is unbounded above in z",
    corrected=CORRECTED,
    counterexample=EXAMPLE,
    proof=r"""
*There is no argmax.* Let $g$ be convex and finite, $h=Ax+Bz-c$ and $Bv\ne0$. With a subgradient $s$ of $g$ at
$z$,
$$L_\rho(x,z+tv,\lambda)\ge f(x)+g(z)+t\,s^\top
v+\tfrac\rho2\|h(x,z)+\lambda+tBv\|^2-\tfrac\rho2\|\lambda\|^2,$$
which tends to $+\infty$ with $t$. If $g$ is the indicator of a set, $h=x-z$, the maximum over the set is the
point *farthest* from $x+\lambda$ (for $\Omega=\{0,1\}$, $x+\lambda=1$ it is $0$), and off the set
$L_\rho=+\infty$.

*The argmin.* For $g(z)=\frac12\|Sz\|^2+r^\top z$ and $M=S^\top S+\rho B^\top B$ positive definite,
$$L_\rho(z)-L_\rho(z^*)=\tfrac12(z-z^*)^\top M(z-z^*)\ge0,\qquad Mz^*=-r-\rho B^\top(Ax^{k+1}-c+\lambda^k),$$
with equality for $z=z^*$ only. For an indicator and $h=x-z$ it is the nearest point, (16). $\square$
""",
    checks=(
        by_hand(),
        unbounded("z"),
        least_at_step("z", seed=401),
        refuted(space(), seed=403, seconds=30.0, tries=200),
        survives(space(), seed=404, tries=200),
    ),
    mutations=(
        Mutation(name="corrected: argmax", changes={"corrected": replace(CORRECTED, sides=maximal("z"))}),
        Mutation(name="printed: argmin", changes={"printed": replace(PRINTED, sides=minimal("z"))}),
        Mutation(
            name="corrected: -λ in the minimizer",
            changes={"corrected": replace(CORRECTED, sides=minimal("z", -1))},
        ),
        Mutation(
            name="counterexample: the stationary point itself",
            changes={"counterexample": replace(EXAMPLE, instance=example(R=exact([[0]]), S=exact([[1]])))},
        ),
    ),
)
