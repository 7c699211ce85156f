r"""ADMM converges for ρ > λ_max(H), in the paper's own order of updates: a theorem with a Lyapunov function.

With u = (ρI - H)⁻¹(ρV - HW) the value L = f(G) + ½‖u - G‖² in the norm of ρI - H falls in every iteration
by at least ½ Δuᵀ(H + ρI - (2/ρ)H²)Δu. The paper states no condition on ρ; below λ_max there are runs that
never settle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from refldnq.codebook import powers_of_two
from refldnq.projection import project
from refldnq.solvers.admm import AdmmSettings
from refldnq.solvers.admm import solve as admm
from refldnq.solvers.lyapunov import check_run
from refldnq.verify.arithmetic import EXACT
from refldnq.verify.claims._admm import best, error, fixed, free, gradient, kept_dual, lagrangian, run, step
from refldnq.verify.claims._examined import by_hand, on_all, refuted, survives
from refldnq.verify.claims._rational import draw, exact, identity, inner, row_sum, solve, squares
from refldnq.verify.claims.admm_no_convergence import (
    SCALAR,
    SEARCHED,
    TIGHT,
    TIGHT_SCALAR,
    above,
    fixed_point_exists,
)
from refldnq.verify.claims.base import (
    Check,
    Claim,
    Counterexample,
    Figure,
    Finding,
    Instance,
    Mutation,
    Statement,
)
from refldnq.verify.falsifier import Space, instances, matrices, rationals, vectors

Decrease = Callable[[Any, Any, Any], Any]
"""The guaranteed decrease, of H, ρ and Δu."""

Start = Callable[[Any, Any, Any, Any], Any]
"""λ⁰, of H, W, ρ and G⁰."""


def norm(H: Any, rho: Any, x: Any) -> Any:
    """½‖x‖² in the norm of ρI - H."""
    return (rho * squares(x) - inner(x, H @ x)) / 2


def guaranteed(H: Any, rho: Any, change: Any) -> Any:
    """½ Δuᵀ(H + ρI - (2/ρ)H²)Δu."""
    image = H @ change
    return (inner(change, image) + rho * squares(change) - 2 * squares(image) / rho) / 2


def problem(instance: Instance) -> tuple[Any, Any, Any]:
    """H = RᵀR, W, and a ρ above λ_max or, at extra = 0, at a bound of it that diagonal H attain."""
    H = instance["R"].T @ instance["R"]
    return H, instance["W"], row_sum(H) + abs(instance["extra"])


def projection(instance: Instance) -> Callable[[Any], Any]:
    """Onto the ternary or five-valued set, of a free scale or of 3/2."""
    b = instance.get("b", 0)
    return fixed(Fraction(3, 2), b) if instance.get("alpha") else free(b)


def falls(decrease: Decrease) -> Callable[[Instance, Any], tuple[Any, Any]]:
    """The value after an iteration plus the guaranteed decrease, and the value before it."""

    def sides(instance: Instance, arithmetic: Any) -> tuple[Any, Any]:
        if "R" not in instance:
            return fixed_point_exists(instance, arithmetic)
        H, W, rho = problem(instance)
        P, u = projection(instance), instance["u"]
        before = P(instance["Z"])
        G = P(u - gradient(H, W, u) / rho)
        new = solve(H + rho * identity(len(W)), rho * G + H @ u)
        value = error(H, W, before) + norm(H, rho, u - before)
        after = error(H, W, G) + norm(H, rho, new - G)
        return arithmetic.number(after + decrease(H, rho, new - u)), arithmetic.number(value)

    return sides


def consistent(start: Start) -> Callable[[Instance], bool]:
    """A statement: u is what ADMM does, L_ρ = f(G) + ½‖u - G‖², and f(Gᵏ) ≤ f(G⁰) from a λ⁰."""

    def holds(instance: Instance) -> bool:
        if "R" not in instance:
            return True
        H, W, rho = problem(instance)
        P, u = projection(instance), instance["u"]
        mu = -gradient(H, W, u) / rho
        G = P(u + mu)
        new = solve(H + rho * identity(len(W)), rho * G + H @ u)
        state = step(H, W, rho, P, G, u + mu - G)  # V = u + μ has been projected to G
        recurrence = (rho * state.V - H @ W == rho * new - H @ new).all()
        value = error(H, W, G) + norm(H, rho, u - G)
        identical = lagrangian(H, W, rho, u, G, mu) == value
        first = P(instance["Z"])
        states = run(H, W, rho, P, first, start(H, W, rho, first), 4)
        never_worse = all(error(H, W, s.G) <= error(H, W, first) for s in states)
        # From λ = 0 and G = W the first V is W: f(Gᵏ) is at most ρ/2 the squared distance of W from Ω.
        direct = run(H, W, rho, P, W, 0 * W, 3)
        bounded = all(error(H, W, s.G) <= rho * squares(W - P(W)) / 2 for s in direct)
        return bool(recurrence and identical and never_worse and bounded)

    return holds


def theorem(decrease: Decrease, start: Start) -> Statement:
    """The theorem with a decrease and a start."""
    return Statement(
        latex=r"\rho>\lambda_{\max}(H):\quad\mathcal L_{k+1}\le\mathcal L_k-\tfrac12\Delta u^\top"
        r"\big(H+\rho I-"
        r"\tfrac2\rho H^2\big)\Delta u,\quad\mathcal L_k=f(G^k)+\tfrac12\|u^k-G^k\|^2_{\rho I-H}",
        words="for ρ > λ_max(H) the Lyapunov function falls; from λ⁰ = -H(G⁰ - W)/ρ no iterate "
        "is worse than G⁰",
        holds=consistent(start),
        sides=lambda instance, arithmetic: (
            falls(decrease)(instance, arithmetic) if "R" in instance else (0, 0)
        ),
    )


def samples() -> Iterator[Instance]:
    """Random problems and points u, Z, a free or fixed scale, b = 0 and 1, H of any rank."""
    rng = np.random.default_rng(77)
    for k in range(60):
        d = 1 + k % 3
        R = exact(rng.integers(-2, 3, (int(rng.integers(1, d + 1)), d)))
        W = draw(rng, d)
        at_best = k % 6 == 4  # start at the optimum: every other point is worse
        R = R[:1].T @ R[:1] + identity(d) if at_best else R
        yield {
            "R": R,
            "W": W,
            "u": draw(rng, d),
            "Z": best(R.T @ R, W, k % 2).G if at_best else draw(rng, d),
            "extra": Fraction(int(rng.integers(1, 20)), 8),
            "b": k % 2,
            "alpha": k % 3 == 0,
        }


def tight(claim: Claim) -> Finding:
    """Instances just below λ_max without a fixed point, with one at λ_max."""
    sides = claim.printed.sides
    assert sides is not None
    for near in (TIGHT, TIGHT_SCALAR):
        left, right = sides(near, EXACT)
        at_left, at_right = sides({**near, "rho": Fraction(1)}, EXACT)
        if left <= right or at_left > at_right:
            return Finding(ok=False, text=f"ρ = {near['rho']}: {left} against {right}")
    return Finding(
        ok=True,
        text="H = I, free scale, W = (1, 2.4142): no fixed point at ρ = .999, one at ρ = 1; "
        "H = 1, α = 1, W = 1/2: none at ρ = 1 - 10⁻⁶, one at ρ = 1",
    )


def floating(claim: Claim) -> Finding:
    """Float64: the runtime check along runs written out, and the library's runs, d = 12, 60 iterations."""
    rng, curves, converged = np.random.default_rng(78), {}, 0
    for k in range(8):
        U = np.linalg.qr(rng.standard_normal((12, 12)))[0]
        H = (U * np.logspace(0, -1.5, 12)) @ U.T
        H, W = 0.5 * (H + H.T)[None], rng.standard_normal((1, 12, 2))
        codebook = powers_of_two(3 + 2 * (k % 2))
        rho = 1.05 * float(np.linalg.eigvalsh(H).max())
        G = project(W, codebook, method="exact").G
        lam = -(H @ (G - W)) / rho
        thetas: list[Any] = []
        Gs, lams = [G], [lam]
        for _ in range(60):
            theta = np.linalg.solve(H + rho * np.eye(12), H @ W + rho * (G - lam))
            V = theta + lam
            G = project(V, codebook, method="exact").G
            lam = V - G
            thetas, Gs, lams = [*thetas, theta], [*Gs, G], [*lams, lam]
        descent = check_run(H, W, rho, np.array(thetas), np.array(Gs), np.array(lams))
        settings = AdmmSettings(
            rho=rho, rho_scale="absolute", iterations=400, projection="exact", start="guaranteed"
        )
        solution = admm(H, W, codebook, settings)
        worst = float(solution.trace.objective.max() / solution.trace.objective[0])
        converged += solution.converged
        if not descent.holds or not worst <= 1 + 1e-10 or solution.guarantee != "convergence":
            return Finding(ok=False, text=f"run {k}: first failure {descent.first_failure}, f/f(G⁰) {worst}")
        if k < 3:
            shown = descent.values / descent.values[0]
            curves[f"run {k + 1}"] = (tuple(float(i) for i in range(len(shown))), tuple(map(float, shown)))
    figure = Figure(
        title="The Lyapunov function for ρ = 1.05 λ_max, d = 12, exact projection",
        x="iteration k",
        y="L_k / L_0",
        curves=curves,
    )
    text = f"8 float64 runs fall as they must, f(Gᵏ) ≤ f(G⁰) in all; {converged} settle within 400 iterations"
    return Finding(ok=converged >= 6, text=text, figures=(figure,))


SPACE = Space(
    lambda: instances(
        R=matrices(2, 2), W=vectors(2), u=vectors(2), Z=vectors(2), extra=rationals(4, (1, 2, 8), least=1)
    ),
    admits=lambda instance: bool(instance["R"].any()) and instance["extra"] != 0,
)

CLAIM = Claim(
    id="admm-convergence",
    title="ADMM converges if ρ exceeds the largest eigenvalue of H",
    source="section 3.1, (13)-(18)",
    printed=Statement(
        latex=r"(13)\text{-}(18)\ \text{converges}",
        words="read as: the iteration converges, as for convex problems; no condition on ρ is stated",
        sides=fixed_point_exists,
    ),
    verdict="true with a fix",
    reason="for ρ > λ_max(H) and the exact projection, by a Lyapunov function; not in general below λ_max",
    corrected=theorem(guaranteed, kept_dual),
    counterexample=Counterexample(
        instance=SCALAR,
        shown="H = 1, W = 2/5, ρ = 1/10, Ω = {-1, 0, 1}: no fixed point, so no convergence (see "
        "its own claim)",
    ),
    proof=r"""
Let $\rho>\lambda_{\max}(H)$ and $P$ the exact projection. Put $u^k=(\rho I-H)^{-1}(\rho V^k-H\bar\Theta)$ and
$\mu^k=-\frac1\rho H(u^k-\bar\Theta)$, so $V^k=u^k+\mu^k$.

**1. The iteration in u.** $G^{k+1}\in P(V^k)$ minimizes $L_\rho(u^k,\cdot,\mu^k)$ over $\Omega$. Put
$V^k=u^k-\frac1\rho H(u^k-\bar\Theta)$ into $V^{k+1}=G^{k+1}+M(V^k+\bar\Theta-2G^{k+1})$ and use that all
matrices commute: $\rho V^{k+1}-H\bar\Theta=(\rho I-H)(\rho I+H)^{-1}(\rho G^{k+1}+Hu^k)$, so
$$u^{k+1}=(H+\rho I)^{-1}(\rho G^{k+1}+Hu^k)=\arg\min_uL_\rho(u,G^{k+1},\mu^k),\qquad
\mu^{k+1}=\mu^k+u^{k+1}-G^{k+1}.$$
So the order $\Theta,G,\lambda$ of the paper is the order $G,\Theta,\lambda$ of nonconvex ADMM in other
variables.

**2. Descent.** $L_\rho(\cdot,G,\mu)$ is quadratic with Hessian $H+\rho I$: the step in $u$ lowers it by
exactly $\frac12\Delta u^\top(H+\rho I)\Delta u$. The dual step raises it by
$\rho\|\Delta\mu\|^2=\frac1\rho\Delta u^\top H^2\Delta u$. The step in $G$ does not raise it. And since
$\rho\mu^k=-\nabla f(u^k)$, $f$ being quadratic, $L_\rho(u^k,G,\mu^k)=f(G)+\frac12\|u^k-G\|^2_{\rho I-H}$.
With $\mathcal L_k$ that value at $G=G^k$:
$$\mathcal L_{k+1}\le\mathcal L_k-\tfrac12\Delta u^\top\big(H+\rho I-\tfrac2\rho H^2\big)\Delta u,$$
and the matrix has the eigenvalues $(\rho+2h)(\rho-h)/\rho>0$.

**3. Bounds.** $f(G^k)\le\mathcal L_k\le f(G)+\frac12\|u^0-G\|^2_{\rho I-H}$ for all $k\ge1$ and
$G\in\Omega$: the first projection minimizes the right side. With $G^0=P(\bar\Theta)$ and
$\lambda^0=-\frac1\rho H(G^0-\bar\Theta)$, (15) returns $\hat\Theta^1=G^0$, so $u^0=G^0$ and $f(G^k)\le
f(G^0)$ for every $k$. With $G^0=\bar\Theta$, $\lambda^0=0$: $V^0=u^0=\bar\Theta$ and
$f(G^k)\le\frac\rho2\|\bar\Theta-P(\bar\Theta)\|^2$.

**4. Convergence.** $\mathcal L\ge0$, so $\sum\|\Delta u\|^2<\infty$, $u^k-G^k=\Delta\mu^{k-1}\to0$ and
$\Delta G\to0$. For a finite $\Omega$ ($\alpha$ fixed) $G^k$ is eventually constant, and the limit is a
fixed point since $P$ has a closed graph. For a free scale and $HQ\ne0$ for all $Q\ne0$ (as for $H\succ0$),
$G^k$ is bounded, its limit points are fixed points, of which there is at most one for each $Q$; a bounded
sequence with $\Delta G\to0$ and finitely many limit points converges. $\square$

**Not below.** For every $\rho<\lambda_{\max}$ there are instances without a fixed point (claim on missing
convergence). At $\rho=\lambda_{\max}$ the optimum of (10) is a fixed point; whether the iteration converges
there is neither proved nor refuted here. Inexact projections keep the descent as long as
$\|V^k-G^{k+1}\|\le\|V^k-G^k\|$.
""",
    checks=(
        by_hand(corrected=False),
        on_all("identities, descent and starts in rationals", samples, which="corrected"),
        Check(name="below λ_max", kind="exact", run=tight),
        refuted(SEARCHED, seed=79, tries=300),
        survives(SPACE, seed=77, tries=250),
        Check(name="the runtime check and the library in float64", kind="float", run=floating),
    ),
    mutations=(
        Mutation(
            name="decrease with 1/ρ in place of 2/ρ",
            changes={
                "corrected": theorem(
                    lambda H, rho, change: guaranteed(H, rho, change) + squares(H @ change) / (2 * rho),
                    kept_dual,
                )
            },
        ),
        Mutation(
            name="wrong sign of the dual at the start",
            changes={"corrected": theorem(guaranteed, lambda *given: -kept_dual(*given))},
        ),
        Mutation(
            name="λ⁰ = 0 is said to be as good a start",
            changes={"corrected": theorem(guaranteed, lambda H, W, rho, G: 0 * G)},
        ),
        Mutation(
            name="the printed statement for ρ of at least λ_max only",
            changes={
                "printed": Statement(latex=r"\rho\ge\lambda", words="ρ ≥ λ_max", sides=above(Fraction(1)))
            },
        ),
        Mutation(
            name="ρ = 2 > λ_max in the counterexample",
            changes={
                "counterexample": Counterexample(instance={**SCALAR, "rho": Fraction(2)}, shown="ρ = 2")
            },
        ),
    ),
)
