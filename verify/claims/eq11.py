r"""(11): min f(Θ) + I_Ω(G) subject to Θ = G, where I_Ω "induces great penalty if G ∉ Ω".

A finite penalty, however great, is too small for some data: where the least error over Ω exceeds it,
leaving Ω is cheaper. (11) is (10) if and only if the penalty is infinite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from refldnq.verify.claims._admm import error
from refldnq.verify.claims._examined import by_hand, on_all, refuted
from refldnq.verify.claims._rational import definite, draw, exact
from refldnq.verify.claims.base import Claim, Counterexample, Instance, Mutation, Statement
from refldnq.verify.falsifier import Space, instances, rationals

GREAT = Fraction(12)
"""The penalty called great in the printed statement; for any other, scale H."""


def least_and_penalty(instance: Instance, arithmetic: Any) -> tuple[Any, Any]:
    """The least error over Ω = {0, 1} of a single weight w with Hessian h², and the penalty."""
    h, w = instance["h"] ** 2, instance["w"]
    inside = h * min(w * w, (1 - w) ** 2) / 2
    return arithmetic.number(inside), arithmetic.number(GREAT)


def minimizers_in_set(H: Any, W: Any, points: list[Any], others: list[Any], penalty: Any) -> bool:
    """Whether all minimizers of f + M [G ∉ Ω] among Ω, W and other points lie in Ω; M None is infinite."""
    inside = min(error(H, W, point) for point in points)
    outside = [G for G in [W, *others] if not any((G == point).all() for point in points)]
    return penalty is None or all(inside < error(H, W, G) + penalty for G in outside)


def threshold(serves: Callable[[Any, Any], bool]) -> Callable[[Instance], bool]:
    """A statement: the penalty M serves iff it is infinite or `serves` (M, min over Ω of f)."""

    def holds(instance: Instance) -> bool:
        if "H" not in instance:
            h, w = exact([[instance["h"] ** 2]]), exact([instance["w"]])
            instance = {"H": h, "W": w, "points": [exact([0]), exact([1])], "others": []}
        H, W, points, others = (instance[name] for name in ("H", "W", "points", "others"))
        least = min(error(H, W, point) for point in points)
        return all(
            minimizers_in_set(H, W, points, others, M) == (M is None or least == 0 or serves(M, least))
            for M in (least / 2, least, least + 1, GREAT, None)
        )

    return holds


def problems() -> Iterator[Instance]:
    """Random finite Ω in two dimensions, with points off Ω to compare with."""
    rng = np.random.default_rng(11)
    for k in range(100):
        points = [draw(rng, 2) for _ in range(4)]
        others = [draw(rng, 2, most=30, parts=7) for _ in range(20)]
        yield {
            "H": definite(rng, 2),
            "W": points[0] if k % 10 == 0 else draw(rng, 2),
            "points": points,
            "others": others,
        }


CORRECTED = Statement(
    latex=r"I_\Omega(G)=+\infty\ \text{if}\ G\notin\Omega;\quad "
    r"\text{a finite } M \text{ serves iff } M>\min_\Omega f\ \text{ or }\ \bar\Theta\in\Omega",
    words="I_Ω is infinite off Ω; a finite penalty serves exactly if it exceeds the least error over Ω",
    holds=threshold(lambda penalty, least: penalty > least),
)

CLAIM = Claim(
    id="eq11",
    title="The problem with an indicator",
    source="(11)",
    printed=Statement(
        latex=r"\min_{\hat\Theta,G} f(\hat\Theta)+I_\Omega(G)\ \text{s.t.}\ \hat\Theta=G,\quad "
        r"I_\Omega(G)=M\ \text{(great) if}\ G\notin\Omega",
        words="a great penalty, the same for all data (here 12), exceeds the least error over Ω",
        sides=least_and_penalty,
    ),
    verdict="true with a fix",
    reason="the penalty must be infinite: every finite one is too small for some data",
    corrected=CORRECTED,
    counterexample=Counterexample(
        instance={"h": Fraction(10), "w": Fraction(1, 2)},
        shown="H = 100, W = 1/2, Ω = {0, 1}, M = 12: f(0) = f(1) = 25/2, but G = 1/2 costs 0 + 12 < 25/2",
    ),
    proof=r"""
With $I_\Omega=+\infty$ off $\Omega$ the objective of (11) is finite exactly on $\hat\Theta=G\in\Omega$,
where it is $f(G)$: (11) is (10).

With a finite penalty $M$ the problem is $\min_G f(G)+M\,[G\notin\Omega]$. Off $\Omega$ its infimum is $M$,
as $f\ge0=f(\bar\Theta)$, attained at $\bar\Theta$ unless $\bar\Theta\in\Omega$; then $\bar\Theta$ is
feasible and optimal. On $\Omega$ its minimum is $\min_\Omega f$. So all minimizers lie in $\Omega$ iff
$\min_\Omega f<M$ or $\bar\Theta\in\Omega$. For every finite $M$ there are data with $\min_\Omega f\ge M$:
scale $H$.
""",
    checks=(
        by_hand(),
        on_all("which penalties serve", problems, which="corrected"),
        refuted(Space(lambda: instances(h=rationals(4, (1,)), w=rationals(4, (1, 2, 4)))), seed=11),
    ),
    mutations=(
        Mutation(
            name="a penalty equal to the least error is said to serve",
            changes={
                "corrected": Statement(
                    latex=r"M\ge\min_\Omega f",
                    words="at least the least error",
                    holds=threshold(lambda penalty, least: penalty >= least),
                )
            },
        ),
        Mutation(
            name="every penalty is said to serve",
            changes={"corrected": Statement(latex="M", words="any", holds=threshold(lambda *_: True))},
        ),
        Mutation(
            name="a counterexample that is none",
            changes={
                "counterexample": Counterexample(
                    instance={"h": Fraction(9), "w": Fraction(1, 2)}, shown="H = 81: 81/8 > 12"
                )
            },
        ),
    ),
)
