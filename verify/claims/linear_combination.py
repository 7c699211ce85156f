r"""The sum of errors: "the final error is bounded by the weighted sum of layer-wise errors".

False for the errors E^l that the algorithm minimizes: E is a square, so no constant bounds ε̂ by a multiple
of it when it is small. True for their roots; and for squares, with weights that add up to 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

from refldnq.verify.arithmetic import EXACT, Arithmetic
from refldnq.verify.claims._examined import by_hand, refuted, survives
from refldnq.verify.claims._networks import certified
from refldnq.verify.claims._networks_fc import (
    bound,
    final_error,
    layer_errors,
    norms,
    propagated,
    random_networks,
    scalars,
    spectral,
    stack,
    strategy,
)
from refldnq.verify.claims.base import Check, Claim, Counterexample, Finding, Instance, Mutation, Statement
from refldnq.verify.falsifier import Space


def printed(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """ε̂ and Σ_k (Π ‖Ŵ‖₂) E^k."""
    errors = layer_errors(instance, arithmetic, cascade=False)
    factors = norms(stack(instance["hat"], arithmetic), arithmetic, spectral)
    return final_error(instance, arithmetic), propagated([e * e for e in errors], factors)


def corrected(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """ε̂² and Σ_k Λ_k² E^k / p_k with p_k = 1/L."""
    errors = layer_errors(instance, arithmetic, cascade=False)
    factors = norms(stack(instance["hat"], arithmetic), arithmetic, spectral)
    squares = propagated([e * e for e in errors], [factor * factor for factor in factors])
    error = final_error(instance, arithmetic)
    return error * error, arithmetic.number(len(errors)) * squares


def without_depth(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """p_k = 1, which add up to L: an error."""
    left, right = corrected(instance, arithmetic)
    return left, right / arithmetic.number(len(instance["bar"]))


def norms_once(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """Λ in place of its square: an error."""
    left, _ = corrected(instance, arithmetic)
    return left, arithmetic.number(len(instance["bar"])) * printed(instance, arithmetic)[1]


def roots(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """The linear combination of the roots."""
    return final_error(instance, arithmetic), bound(instance, arithmetic, cascade=False, weights="hat")


def no_constant(claim: Claim) -> Finding:
    """W = 1, Ŵ = 1 + t: ε̂/E = 1/t, beyond every constant."""
    sides = claim.printed.sides
    assert sides is not None
    ratios = []
    for t in (Fraction(1, 10), Fraction(1, 1000), Fraction(1, 10**6)):
        left, right = sides(scalars((1,), (1 + t,)), EXACT)
        ratios.append(left / right)
    text = "W = 1, Ŵ = 1 + t, t = 1/10, 1/1000, 1/1000000: ε̂/E = " + ", ".join(map(str, ratios))
    return Finding(ok=ratios == [10, 1000, 10**6], text=text)


def linear_in_roots(claim: Claim) -> Finding:
    """For the roots it is Theorem 1; and equal for the squares where all terms are."""
    assert claim.corrected is not None
    assert claim.corrected.sides is not None
    own = scalars((1, 1), (Fraction(1, 2), 0))
    left, right = roots(own, EXACT)
    equal = scalars((2, 2), (1, 1))
    first, second = claim.corrected.sides(equal, EXACT)
    halves = (Fraction(1), Fraction(2))  # the terms of the sum, ‖Ŵ₂‖e₁ and e₂
    best = sum(halves) ** 2
    text = (
        f"roots: {left} <= {right}; squares at W = (2, 2), Ŵ = (1, 1): {first} <= {second}, with the best p: "
        f"{best}"
    )
    return Finding(ok=left <= right and first == best and second == 2 * (1 + 4), text=text)


def networks() -> Iterator[Instance]:
    """Random networks."""
    return random_networks(3301, 120, depths=(2, 3, 5), most=3)


PRINTED = Statement(
    latex=r"\hat\varepsilon^L\le\sum_{k=1}^L\Big(\prod_{l>k}\|\hat W_l\|\Big)E^k",
    words="the final error is bounded by a linear combination of the layer errors E",
    sides=printed,
)

CORRECTED = Statement(
    latex=r"(\hat\varepsilon^L)^2\le\sum_{k=1}^L\frac1{p_k}\Lambda_k^2E^k,\quad\sum_kp_k=1,\quad"
    r"\Lambda_k=\prod_{l>k}\|\hat W_l\|_2;\qquad\hat\varepsilon^L\le\sum_k\Lambda_k\sqrt{E^k}",
    words="linear in the roots; or squares with weights p that add up to 1, such as 1/L",
    sides=corrected,
)

CLAIM = Claim(
    id="linear-combination",
    title="The final error as a weighted sum of layer errors",
    source="abstract, and after Theorem 1",
    printed=PRINTED,
    verdict="false",
    reason="E is a square: ε̂/E = 1/t for an error t, beyond every constant",
    corrected=CORRECTED,
    counterexample=Counterexample(
        instance=scalars((1,), (Fraction(3, 2),)),
        shown="X = 1, W = 1, Ŵ = 3/2: ε̂ = 1/2 <= E = 1/4 is false; (1/2)² <= 1/4 is true",
    ),
    proof=r"""
For $\bar W=1$, $\hat W=1+t$, $X=1$, $L=1$: $\hat\varepsilon=t$ and $E=t^2$; no constant $c$ gives $t\le ct^2$
for all $t>0$. By Theorem 1, version (P), $\hat\varepsilon^L\le\sum_k\Lambda_ke_k$ with $e_k=\sqrt{E^k}$:
linear in the roots. Cauchy and Schwarz with weights $p_k>0$, $\sum p_k=1$:
$$\Big(\sum_k\Lambda_ke_k\Big)^2=\Big(\sum_k\sqrt{p_k}\,\frac{\Lambda_ke_k}{\sqrt{p_k}}\Big)^2
\le\sum_k\frac1{p_k}\Lambda_k^2E^k.$$
$p_k=1/L$ gives the factor $L$; the best, $p_k\propto\Lambda_ke_k$, gives back the sum of roots. The same
holds for version (C), with the errors of (8) and the norms of $\bar W$. $\square$
""",
    checks=(
        by_hand(),
        Check(name="no constant", kind="exact", run=no_constant),
        Check(name="roots, and the best weights", kind="exact", run=linear_in_roots),
        refuted(Space(lambda: strategy(1, 1, 1)), seed=3302, tries=300),
        survives(Space(lambda: strategy(2, 1, 1)), seed=3303, tries=400),
        certified("balls: depths 2, 3, 5", networks),
    ),
    mutations=(
        Mutation(
            name="corrected: weights that add up to L",
            changes={"corrected": replace(CORRECTED, sides=without_depth)},
        ),
        Mutation(
            name="corrected: Λ not squared", changes={"corrected": replace(CORRECTED, sides=norms_once)}
        ),
        Mutation(name="printed: roots", changes={"printed": replace(PRINTED, sides=roots)}),
    ),
)
