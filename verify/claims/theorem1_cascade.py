r"""Theorem 1 with the error E^l that (8) defines, at the quantized network's inputs, and the norms of Ŵ.

False, even with the root in its place and Frobenius norms: with Ŵ = 0 the right side is the last error only,
which is 0 as its input is. True with the norms of the full precision weights.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from refldnq.verify.arithmetic import EXACT
from refldnq.verify.claims._examined import by_hand, refuted, survives
from refldnq.verify.claims._networks import certified
from refldnq.verify.claims._networks_fc import bounded_by, frobenius, random_networks, scalars, strategy
from refldnq.verify.claims.base import Check, Claim, Counterexample, Finding, Mutation, Statement
from refldnq.verify.falsifier import Space

HALF = Fraction(1, 2)


def extreme(claim: Claim) -> Finding:
    """Nothing can be saved by a constant factor: Ŵ = 0."""
    assert claim.printed.sides is not None
    assert claim.corrected is not None
    assert claim.corrected.sides is not None
    zero = scalars((1, 1), (0, 0))
    left, right = claim.printed.sides(zero, EXACT)
    own = claim.corrected.sides(zero, EXACT)
    text = (
        f"W = (1, 1), Ŵ = (0, 0): {left} <= {right} is false by any factor; with norms of W: {own[0]} <= "
        f"{own[1]}"
    )
    return Finding(ok=left == 1 and right == 0 and own[0] <= own[1], text=text)


def three_forms(claim: Claim) -> Finding:
    """The example under the three pairs of errors and norms."""
    example = claim.counterexample
    assert example is not None
    parallel = bounded_by(cascade=False, weights="hat")(example.instance, EXACT)
    assert claim.corrected is not None
    assert claim.corrected.sides is not None
    cascade = claim.corrected.sides(example.instance, EXACT)
    ok = parallel[0] == parallel[1] == cascade[0] == cascade[1]
    text = (
        f"ε̂ = {cascade[0]}; cascade errors with norms of W: {cascade[1]}; parallel errors with norms of Ŵ: "
        f"{parallel[1]}; both are equalities"
    )
    return Finding(ok=ok, text=text)


PRINTED = Statement(
    latex=r"\hat\varepsilon^L\le\sum_{k=1}^L\Big(\prod_{l=k+1}^L\|\hat W_l\|_F\Big)\sqrt{E^k},\qquad "
    r"E^k=\tfrac1n\|(\hat W_k-\bar W_k)^\top\hat Y^{k-1}\|_F^2",
    words="the errors of (8), which have the quantized network's input, with the norms of the quantized "
    "weights",
    sides=bounded_by(cascade=True, weights="hat", norm=frobenius),
)

CORRECTED = Statement(
    latex=r"\hat\varepsilon^L\le\sum_{k=1}^L\Big(\prod_{l=k+1}^L\|\bar W_l\|_2\Big)\sqrt{E^k}",
    words="the errors of (8) with the norms of the full precision weights",
    sides=bounded_by(cascade=True, weights="bar"),
)

EXAMPLE = Counterexample(
    instance=scalars((1, 1), (HALF, HALF)),
    shown="X = 1, W = (1, 1), Ŵ = (1/2, 1/2): ε̂ = |1/4 - 1| = 3/4 <= 1/2·1/2 + 1/4 = 1/2 is false",
)

CLAIM = Claim(
    id="theorem1-cascade",
    title="Theorem 1 with the errors of (8)",
    source="Theorem 1 with (8)",
    printed=PRINTED,
    verdict="false",
    reason="the cascade error goes with the norms of the full precision weights: 3/4 <= 1/2",
    corrected=CORRECTED,
    counterexample=EXAMPLE,
    proof=r"""
The induction needs two steps from $\hat Y^l$ to $Y^l$ with one intermediate point. If the local error has the
input $\hat Y^{l-1}$, as (8) has, that point is $\sigma(\bar W_l^\top\hat Y^{l-1})$, and what is passed on
goes through $\bar W_l$:
$$\hat\varepsilon^l\le\tfrac1{\sqrt n}\|\sigma(\hat W_l^\top\hat Y^{l-1})-\sigma(\bar W_l^\top\hat
Y^{l-1})\|_F +\tfrac1{\sqrt n}\|\sigma(\bar W_l^\top\hat Y^{l-1})-\sigma(\bar W_l^\top Y^{l-1})\|_F
\le\sqrt{E^l}+\|\bar W_l\|_2\,\hat\varepsilon^{l-1}.$$
Unrolling from $\hat\varepsilon^0=0$ gives the corrected form. With $\|\hat W_l\|$ in place of $\|\bar W_l\|$
nothing is left of it: $\hat W=0$, $\bar W=(1,1)$, $X=1$ gives $\hat\varepsilon^2=1$ against 0. $\square$
""",
    checks=(
        by_hand(),
        Check(name="by any factor", kind="exact", run=extreme),
        Check(name="the three pairs of errors and norms", kind="exact", run=three_forms),
        refuted(Space(lambda: strategy(2, 1, 1)), seed=1101, tries=400),
        survives(Space(lambda: strategy(2, 2, 1)), seed=1102, tries=300),
        certified("balls: depths 2, 3, 6", lambda: random_networks(1103, 120, depths=(2, 3, 6), most=3)),
    ),
    mutations=(
        Mutation(
            name="corrected: norms of Ŵ",
            changes={"corrected": replace(CORRECTED, sides=bounded_by(cascade=True, weights="hat"))},
        ),
        Mutation(
            name="corrected: parallel errors with norms of W",
            changes={"corrected": replace(CORRECTED, sides=bounded_by(cascade=False, weights="bar"))},
        ),
        Mutation(
            name="counterexample: only layer 1 is quantized",
            changes={"counterexample": replace(EXAMPLE, instance=scalars((1, 1), (HALF, 1)))},
        ),
    ),
)
