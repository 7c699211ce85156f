r"""(17): min over (G, α) of ‖V - αQ‖², solved by α = VᵀQ/QᵀQ and Q = Proj(V/α) in turn.

The variables are α and Q, G does not occur. α = VᵀQ/QᵀQ needs Q ≠ 0, which is not so for every start: at
V = (1/4), α = 1 everything rounds to 0 and α is 0/0. From α = mean|V| it never happens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from refldnq.verify.claims._examined import by_hand, on_all, survives
from refldnq.verify.claims._projection import enumerated, every, mean, rounding
from refldnq.verify.claims._rational import draw, exact, inner, squares
from refldnq.verify.claims.base import Claim, Counterexample, Instance, Mutation, Sides, Statement
from refldnq.verify.falsifier import Space, instances, rationals, vectors
from refldnq.verify.naive.projection import residual

Start = Callable[[Instance], Any]
"""Where the scale starts."""

Scale = Callable[[Any, Any], Any]
"""The scale of V for given Q."""


def ratio(V: Any, Q: Any) -> Any:
    """The scale as printed, VᵀQ/QᵀQ."""
    return inner(V, Q) / inner(Q, Q)


def defined_and_best(start: Start, scale: Scale) -> Callable[[Instance], bool]:
    """A statement: from the start Q is not 0, and the scale leaves the cost ‖V‖² - (VᵀQ)²/QᵀQ, its least."""

    def holds(instance: Instance) -> bool:
        V, b = instance["V"], instance["b"]
        Q = rounding(V, start(instance), b)
        if not Q.any():
            return False
        alpha = scale(V, Q)
        cost = residual(V, alpha, Q)
        near = [residual(V, alpha + step, Q) for step in (Fraction(-1, 100), Fraction(1, 100))]
        return bool(cost == squares(V) - inner(V, Q) ** 2 / inner(Q, Q) and min(near) > cost)

    return holds


def falls(start: Start, scale: Scale) -> Sides:
    """The cost after an update of α and then of Q, and the cost before."""

    def sides(instance: Instance, arithmetic: Any) -> tuple[Any, Any]:
        V, b, alpha = instance["V"], int(instance["b"]), start(instance)
        Q = rounding(V, alpha, b)
        new = scale(V, Q)
        after = residual(V, new, rounding(V, new, b))
        return arithmetic.number(after), arithmetic.number(residual(V, alpha, Q))

    return sides


def separated(instance: Instance) -> bool:
    """Whether the minimum over (α, Q) is ‖V‖² less the largest (VᵀQ)²/QᵀQ."""
    V, b = instance["V"], instance["b"]
    gains = [inner(V, Q) ** 2 / inner(Q, Q) for Q in map(exact, every(b, len(V))[0]) if Q.any()]
    return bool(enumerated(V, b) == squares(V) - max(gains))


def stated(start: Start, scale: Scale, words: str) -> Statement:
    """(17) with a start and a formula for the scale."""
    statement = defined_and_best(start, scale)
    return Statement(
        latex=r"\min_{\alpha\ge0,\,Q}\|V-\alpha Q\|_2^2=\|V\|^2-\max_{Q\ne0}\frac{(V^\top Q)^2}{Q^"
        r"\top Q},\quad "
        r"\alpha=\frac{V^\top Q}{Q^\top Q}\ (Q\ne0)",
        words=words,
        holds=lambda instance: statement(instance) and separated(instance),
        sides=falls(start, scale),
    )


def from_mean(instance: Instance) -> Any:
    """The mean of |V|."""
    return mean(instance["V"])


def samples() -> Iterator[Instance]:
    """Random V that are not 0, of small fractions, many of them equal."""
    rng = np.random.default_rng(17)
    for k in range(60):
        V = draw(rng, 1 + k % 3, most=4, parts=2)
        if V.any():
            yield {"V": V, "b": k % 2, "alpha": Fraction(1)}


FROM_MEAN = (
    "over α and Q; from α = mean|V|, Q is never 0, α = VᵀQ/QᵀQ is the best scale, the cost never rises"
)

CLAIM = Claim(
    id="eq17",
    title="Scale and integers of the projection",
    source="(17)",
    printed=Statement(
        latex=r"\min_{G,\alpha}\|V^k-\alpha Q\|_2^2,\quad\alpha=\frac{V^\top Q}{Q^\top Q}",
        words="over G and α; from any α > 0 the scale VᵀQ/QᵀQ is defined and best",
        holds=defined_and_best(lambda instance: instance["alpha"], ratio),
    ),
    verdict="true with a fix",
    reason="the variables are α and Q; Q = 0 must be excluded, as the start α = mean|V| does",
    corrected=stated(from_mean, ratio, FROM_MEAN),
    counterexample=Counterexample(
        instance={"V": exact(["1/4"]), "b": 0, "alpha": Fraction(1)},
        shown="V = (1/4), α = 1: V/α = 1/4 rounds to Q = 0, α = 0/0; from α = mean|V| = 1/4, Q = 1, α = 1/4",
    ),
    proof=r"""
For $Q\ne0$, $\|V-\alpha Q\|^2=\|V\|^2-2\alpha V^\top Q+\alpha^2Q^\top Q$ is a strictly convex quadratic in
$\alpha$, least at $\alpha=V^\top Q/Q^\top Q$ with value $\|V\|^2-(V^\top Q)^2/Q^\top Q$. The sets are
symmetric, so $\alpha\ge0$ costs nothing: change the sign of $Q$. $Q=0$ costs $\|V\|^2$, which is not less.

From $\alpha_0=\frac1N\|V\|_1>0$: $\max|V|\ge\alpha_0$, so some element does not round to 0, $Q\ne0$. Signs
of $Q$ and $V$ agree, so $V^\top Q>0$ and the update of $\alpha$ brings the cost below $\|V\|^2$. Neither
update raises the cost: each minimizes it over one variable. $Q=0$ costs $\|V\|^2$, so it never comes back.
""",
    checks=(
        by_hand(),
        on_all("the best scale, the start, the separated minimum", samples, which="corrected"),
        survives(
            Space(
                lambda: instances(V=vectors(3), b=rationals(2, (1,), least=0)),
                admits=lambda instance: bool(instance["V"].any()) and instance["b"] in (0, 1, 2),
            ),
            seed=17,
        ),
    ),
    mutations=(
        Mutation(
            name="VᵀQ/‖Q‖₁ for the scale",
            changes={
                "corrected": stated(from_mean, lambda V, Q: inner(V, Q) / abs(Q).sum(), "VᵀQ/‖Q‖₁"),
            },
        ),
        Mutation(
            name="start at 3 mean|V|",
            changes={
                "corrected": stated(lambda instance: 3 * from_mean(instance), ratio, "from 3 mean|V|"),
            },
        ),
        Mutation(
            name="a counterexample in which Q is not 0",
            changes={
                "counterexample": Counterexample(
                    instance={"V": exact([1]), "b": 0, "alpha": Fraction(1)}, shown="V = (1)"
                )
            },
        ),
    ),
)
