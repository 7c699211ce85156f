r"""(21): the hypothesis of the induction, ε̂^l ≤ Σ_h (Π_k ‖Θ̂_k‖_F √(δE^h)) + √(δE^l).

True after two repairs: the bracket must close before the root, which else is multiplied l - h times, and δE^h
must be the error at the reference network's own input, not that of (8).
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from refldnq.verify.arithmetic import EXACT
from refldnq.verify.claims._examined import by_hand, refuted, satisfies, stated, survives
from refldnq.verify.claims._networks import certified
from refldnq.verify.claims._networks_fc import (
    bounded_by,
    frobenius,
    literal,
    random_networks,
    scalars,
    spectral,
    strategy,
)
from refldnq.verify.claims.base import Check, Claim, Counterexample, Finding, Mutation, Statement
from refldnq.verify.falsifier import Space

HALF = Fraction(1, 2)

SMALL = scalars((1, 1, 1), (HALF, 1, 1))
"""An error below 1 in front of two layers that change nothing."""

CASCADE = scalars((1, 1), (HALF, HALF))
"""Two layers halved."""


def both_repairs(claim: Claim) -> Finding:
    """Neither repair alone is enough, both are."""
    bracket_only = bounded_by(cascade=True, weights="hat", norm=frobenius)
    left, right = bracket_only(CASCADE, EXACT)
    first = left > right
    printed = claim.printed.sides
    assert printed is not None
    error, small = printed(SMALL, EXACT)
    second = error > small
    repaired = all(satisfies(stated(claim, "corrected"), instance) for instance in (SMALL, CASCADE))
    text = (
        f"bracket repaired, E of (8): {left} <= {right} is false; bracket as printed: {error} <= {small} is "
        "false; "
        f"both repaired: {'holds' if repaired else 'fails'} on both"
    )
    return Finding(ok=first and second and repaired, text=text)


PRINTED = Statement(
    latex=r"\hat\varepsilon^l\le\sum_{h=1}^{l-1}\Big(\prod_{k=h+1}^l\|\hat\Theta_k\|_F\sqrt{\delta E^h}\Big)"
    r"+\sqrt{\delta E^l}",
    words="the accumulated error is at most the sum of the products",
    sides=literal,
)

CORRECTED = Statement(
    latex=r"\hat\varepsilon^l\le\sum_{h=1}^{l-1}\Big(\prod_{k=h+1}^l\|\hat W_k\|_F\Big)e_h+e_l,\qquad "
    r"e_h=\tfrac1{\sqrt n}\|(\hat W_h-\bar W_h)^\top Y^{h-1}\|_F",
    words="the root outside of the product, and errors at the reference network's own inputs",
    sides=bounded_by(cascade=False, weights="hat", norm=frobenius),
)

CLAIM = Claim(
    id="eq21",
    title="The hypothesis of the induction",
    source="(21)",
    printed=PRINTED,
    verdict="true with a fix",
    reason="the bracket must close before the root, and E must be the parallel error, not (8)",
    corrected=CORRECTED,
    counterexample=Counterexample(
        instance=SMALL,
        shown="X = 1, W = (1, 1, 1), Ŵ = (1/2, 1, 1): 1/2 <= (1·1/2)·(1·1/2) = 1/4 is false; 1/2 <= 1·1·1/2 "
        "is true",
    ),
    proof=r"""
By induction. For $l=1$: $\hat\varepsilon^1\le e_1$, as ReLU is 1-Lipschitz. Step: with
$\tilde Y^{l}=\sigma(\hat W_l^\top Y^{l-1})$ and the triangle inequality for norms,
$$\hat\varepsilon^l\le\tfrac1{\sqrt n}\|\hat Y^l-\tilde Y^l\|_F+\tfrac1{\sqrt n}\|\tilde Y^l-Y^l\|_F
\le\|\hat W_l\|_2\,\hat\varepsilon^{l-1}+e_l\le\|\hat W_l\|_F\,\hat\varepsilon^{l-1}+e_l .$$
The second term is what forces the parallel error: $\tilde Y^l$ and $Y^l$ have the same input $Y^{l-1}$, so
their difference is at most $\|(\hat W_l-\bar W_l)^\top Y^{l-1}\|_F$, and $\hat Y^{l-1}$ does not occur in it.
$\square$
""",
    checks=(
        by_hand(),
        Check(name="both repairs are needed", kind="exact", run=both_repairs),
        refuted(Space(lambda: strategy(3, 1, 1)), seed=2101, tries=600),
        survives(Space(lambda: strategy(3, 2, 1)), seed=2102, tries=250),
        certified("balls: depths 2, 4", lambda: random_networks(2103, 120, depths=(2, 4), most=3)),
    ),
    mutations=(
        Mutation(
            name="corrected: the error of (8)",
            changes={
                "corrected": replace(CORRECTED, sides=bounded_by(cascade=True, weights="hat", norm=frobenius))
            },
        ),
        Mutation(
            name="corrected: norms of the reference weights",
            changes={
                "corrected": replace(CORRECTED, sides=bounded_by(cascade=False, weights="bar", norm=spectral))
            },
        ),
        Mutation(
            name="printed: the bracket repaired, for the parallel error",
            changes={"printed": replace(PRINTED, sides=CORRECTED.sides)},
        ),
    ),
)
