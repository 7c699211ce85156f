r"""ADMM is said to have the "convergence properties of the methods of multipliers".

For (10) it need not converge: below λ_max(H) there are instances without any fixed point, so that no start
leads to convergence. They are enumerated here in rationals, sign pattern by sign pattern.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np

from refldnq.verify.arithmetic import EXACT
from refldnq.verify.claims._admm import (
    candidates,
    error,
    excess,
    fixed,
    fixed_distance,
    free,
    free_distance,
    nearest_to_fixed,
    run,
)
from refldnq.verify.claims._examined import by_hand, on_all, refuted, survives
from refldnq.verify.claims._projection import alphabet
from refldnq.verify.claims._rational import exact, identity, is_semidefinite
from refldnq.verify.claims.base import (
    Check,
    Claim,
    Counterexample,
    Figure,
    Finding,
    Instance,
    Mutation,
    Sides,
    Statement,
)
from refldnq.verify.falsifier import Space, instances, matrices, rationals, vectors


def all_points(instance: Instance) -> list[Any]:
    """Every point of Ω that can be a fixed point: of a fixed scale all, of a free one those best for H."""
    H, W, alpha = instance["H"], instance["W"], instance.get("alpha")
    if alpha is None:
        return [point.G for point in candidates(H, W, 0)]
    return [alpha * exact(Q) for Q in product(alphabet(0), repeat=len(W))]


def distance(instance: Instance) -> Any:
    """The squared distance from the ternary Ω."""
    alpha = instance.get("alpha")
    return free_distance(0) if alpha is None else fixed_distance(alpha, 0)


def fixed_point_exists(instance: Instance, arithmetic: Any) -> tuple[Any, Any]:
    """Of all points the least ‖λ‖² over squared distance: left <= right iff there is a fixed point."""
    if "R" in instance:
        instance = {**instance, "H": instance["R"].T @ instance["R"]}
    H, W, rho = (instance[name] for name in ("H", "W", "rho"))
    left, right = nearest_to_fixed(H, W, rho, all_points(instance), distance(instance))
    return arithmetic.number(left), arithmetic.number(right)


def above(share: Fraction) -> Sides:
    """The same where ρ is at least `share` of λ_max(H); nothing is said below."""

    def sides(instance: Instance, arithmetic: Any) -> tuple[Any, Any]:
        H = instance["R"].T @ instance["R"] if "R" in instance else instance["H"]
        if is_semidefinite(instance["rho"] * identity(len(H)) - share * H):
            return fixed_point_exists(instance, arithmetic)
        return arithmetic.number(0), arithmetic.number(0)

    return sides


def stated(share: Fraction) -> Statement:
    """Fixed points exist for ρ at least a share of λ_max."""
    return Statement(
        latex=r"\rho\ge\lambda_{\max}(H)\ \Rightarrow\ \exists\,G:\ G\in P\big(G-\tfrac1\rho"
        r"\nabla f(G)\big)",
        words="a fixed point exists if ρ is at least the largest eigenvalue of H; below there may be none",
        sides=above(share),
    )


def regular(R: Any) -> bool:
    """Whether a matrix of two rows is regular: with singular H more points than `candidates` can be fixed."""
    return bool(R[0, 0] * R[1, 1] != R[0, 1] * R[1, 0])


ONE = exact([[1]])

SCALAR: Instance = {"H": ONE, "W": exact(["2/5"]), "rho": Fraction(1, 10), "alpha": Fraction(1)}
"""One weight, fixed scale 1."""

PLANE: Instance = {"H": identity(2), "W": exact([1, 2]), "rho": Fraction(1, 2)}
"""A free scale; (10) is a single projection, with optimum (3/2, 3/2)."""

CLOSE: Instance = {"H": exact([[1, -1], [-1, 3]]), "W": exact(["1/2", "1/5"]), "rho": Fraction(3)}
"""A free scale, ρ = .879 λ_max."""

TIGHT: Instance = {"H": identity(2), "W": exact([1, "24142/10000"]), "rho": Fraction(999, 1000)}
"""A free scale, ρ = .999 λ_max: W is near the line on which two sign patterns are equally near."""

TIGHT_SCALAR: Instance = {
    "H": ONE,
    "W": exact(["1/2"]),
    "rho": Fraction(10**6 - 1, 10**6),
    "alpha": Fraction(1),
}
"""A fixed scale, ρ = (1 - 10⁻⁶) λ_max."""

STORED: dict[str, Instance] = {
    "α = 1, ρ = λ_max/10": SCALAR,
    "α free, ρ = λ_max/2": PLANE,
    "α free, ρ = .879 λ_max": CLOSE,
    "α free, ρ = .999 λ_max": TIGHT,
    "α = 1, ρ = (1 - 10⁻⁶) λ_max": TIGHT_SCALAR,
}
"""Instances without a fixed point."""


def enumerated(claim: Claim) -> Finding:
    """All sign patterns of the stored instances: none is a fixed point, the printed statement fails."""
    patterns, lines = 0, []
    for name, instance in STORED.items():
        points = all_points(instance)
        patterns += 3 ** len(instance["W"])
        H, W, rho = (instance[key] for key in ("H", "W", "rho"))
        pairs = [excess(H, W, rho, G, distance(instance)) for G in points]
        sides = claim.printed.sides
        assert sides is not None
        left, right = sides(instance, EXACT)
        if any(a <= b for a, b in pairs) or left <= right:
            return Finding(ok=False, text=f"{name} has a fixed point")
        lines.append(name)
    return Finding(
        ok=True,
        text=f"no fixed point among all {patterns} sign patterns of {len(lines)} instances: "
        + "; ".join(lines),
    )


def trajectories(claim: Claim) -> Finding:
    """Exact runs of two instances: G never settles."""
    one = run(**_start(SCALAR), project=fixed(Fraction(1), 0), iterations=250)
    two = run(**_start(PLANE), project=free(0), iterations=120)
    signs = [int(state.G[0]) for state in one]
    values = [float(error(PLANE["H"], PLANE["W"], state.G)) for state in two]
    changes = [
        max(k for k in range(1, len(states)) if (states[k].G != states[k - 1].G).any())
        for states in (one, two)
    ]
    ok = signs[:10] == [0, 1, 0, 1, 0, 0, 1, 0, 1, 0] and changes[0] > 240 and changes[1] > 110
    figure = Figure(
        title="f(Gᵏ) of ADMM on H = I, W = (1, 2), ρ = 1/2, free ternary scale; the optimum is 1/4",
        x="iteration k",
        y="f(Gᵏ)",
        curves={
            "ADMM": (tuple(float(k) for k in range(1, len(values) + 1)), tuple(values)),
            "optimum": ((1.0, float(len(values))), (0.25, 0.25)),
        },
    )
    text = (
        f"rational runs: α = 1 gives G = {', '.join(map(str, signs[:12]))}, ..., mean "
        f"{np.mean(signs):.3f} of 250, "
        f"changing still at {changes[0] + 1}; α free keeps f in [{min(values[20:]):.3f}, "
        f"{max(values[20:]):.3f}]"
    )
    return Finding(ok=ok, text=text, figures=(figure,))


def _start(instance: Instance) -> dict[str, Any]:
    zero = 0 * instance["W"]
    return {"H": instance["H"], "W": instance["W"], "rho": instance["rho"], "G": zero, "lam": zero}


def grid() -> Iterator[Instance]:
    """Small integer H, W in tenths and five ρ, a free scale."""
    for a, b, c in product((1, 2, 3), (-1, 0, 1), (1, 3)):
        if a * c <= b * b:
            continue
        for w in ((3, 7), (5, 2), (10, 9), (10, 20)):
            for rho in (Fraction(1, 2), Fraction(2), Fraction(3), Fraction(9, 2)):
                yield {"H": exact([[a, b], [b, c]]), "W": exact(w) / 10, "rho": rho}


def counted(claim: Claim) -> Finding:
    """Instances of the grid without a fixed point: some below λ_max, none above."""
    without = below = total = 0
    for instance in grid():
        total += 1
        left, right = fixed_point_exists(instance, EXACT)
        if left > right:
            without += 1
            below += not is_semidefinite(instance["rho"] * identity(2) - instance["H"])
    text = f"{without} of {total} small instances have no fixed point; in {below} of these ρ < λ_max"
    return Finding(ok=0 < without == below, text=text)


SEARCHED = Space(
    lambda: instances(R=matrices(2, 2), W=vectors(2), rho=rationals(8, (1, 2), least=1)),
    admits=lambda instance: instance["rho"] > 0 and regular(instance["R"]),
)

CLAIM = Claim(
    id="admm-no-convergence",
    title="ADMM need not converge",
    source="section 3.1, (13)-(18)",
    printed=Statement(
        latex=r"(13)\text{-}(18)\ \text{has a fixed point and converges for every}\ \rho>0",
        words="read as: the iteration has a fixed point, as convergence needs, whatever ρ",
        sides=fixed_point_exists,
    ),
    verdict="false",
    reason="for ρ < λ_max(H) there are instances without any fixed point, arbitrarily close to λ_max",
    corrected=stated(Fraction(1)),
    counterexample=Counterexample(
        instance=SCALAR,
        shown="H = 1, W = 2/5, ρ = 1/10, Ω = {-1, 0, 1}: G = -1, 0, 1 need V = 13, 4, -5, whose "
        "nearest points are "
        "1, 1, -1; none is fixed",
    ),
    proof=r"""
**No fixed point, no convergence.** Suppose $G^k$ converged. In $V^{k+1}=MV^k+(G^k+M\bar\Theta-2MG^k)$,
$\|M\|_2=\max h/(h+\rho)<1$ and the second part converges, so $V^k$ converges, and by the closed graph of
$P$ the limits satisfy $G\in P(V)$: a fixed point.

**None exists.** Fixed points have $\lambda=-\frac1\rho\nabla f(G)$ and $\|\lambda\|^2$ equal to the squared
distance of $G+\lambda$ from $\Omega$. For a fixed scale all $3^N$ points are tried; for a free one only
$\alpha=Q^\top H\bar\Theta/Q^\top HQ$ is possible for each $Q$, and $G=0$. Both are finite lists of rationals.

**Tight.** One weight, $H=h$, $\alpha=1$, $\bar\Theta=\frac12$: $G=0$ and $G=1$ need $\frac
h{2\rho}\le\frac12$, that is $\rho\ge h$, and $G=-1$ needs $V=-1+\frac{3h}{2\rho}\le-\frac12$, $\rho\ge3h$.
So there is no fixed point for any $\rho<h=\lambda_{\max}$. For $\rho\ge\lambda_{\max}$ the optimum of (10)
is one.

**Why.** For $\rho\to0$, $M\to I$ on the range of $H$ and $V^{k+1}\approx V^k+\bar\Theta-P(V^k)$: an error
feedback loop, whose $G^k$ has the mean $\bar\Theta$ over time.
""",
    checks=(
        by_hand(),
        Check(name="all sign patterns of the stored instances", kind="exact", run=enumerated),
        Check(name="exact trajectories", kind="exact", run=trajectories),
        Check(name="a grid of small instances", kind="count", run=counted),
        on_all("fixed points above λ_max", grid, which="corrected"),
        refuted(SEARCHED, seed=75, tries=300),
        survives(SEARCHED, seed=76, tries=250),
    ),
    mutations=(
        Mutation(
            name="four fifths of λ_max are said to suffice",
            changes={"corrected": stated(Fraction(4, 5))},
        ),
        Mutation(
            name="ρ = 1 = λ_max in the counterexample",
            changes={
                "counterexample": Counterexample(instance={**SCALAR, "rho": Fraction(1)}, shown="ρ = 1")
            },
        ),
        Mutation(
            name="the printed statement for ρ of at least λ_max only",
            changes={
                "printed": Statement(latex=r"\rho\ge\lambda", words="ρ ≥ λ_max", sides=above(Fraction(1)))
            },
        ),
    ),
)
