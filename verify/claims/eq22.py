r"""(22): ‖Ỹ^{l+1} - Ŷ^{l+1}‖²_F ≤ √n ‖Θ̂^{l+1}‖²_F ε̂^l.

False: a square on the left stands against the first power of ε̂ on the right, so errors larger than 1 violate
it; and √n should be n for squares. Without the squares it is Theorem 2, even with the operator norm.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from refldnq.verify.arithmetic import EXACT, has_flint
from refldnq.verify.claims._examined import by_hand, refuted, survives
from refldnq.verify.claims._networks import certified
from refldnq.verify.claims._theorem2 import corrected, layers, one, printed, space
from refldnq.verify.claims.base import Check, Claim, Counterexample, Finding, Mutation, Statement
from refldnq.verify.falsifier import decide

FOUR = one([[1]], [[0, 0, 0, 0]], [[1, 1, 1, 1]])
"""Four samples with unit errors: the missing √n alone."""


def samples(claim: Claim) -> Finding:
    """With unit errors, where squares change nothing, √n is missing."""
    sides = claim.printed.sides
    assert sides is not None
    left, right = sides(FOUR, EXACT)
    return Finding(ok=left > right, text=f"n = 4, Ŵ = 1, errors of 1: {left} <= {right} is false")


def frequency(claim: Claim) -> Finding:
    """How many random layers violate the printed form."""
    sides = claim.printed.sides
    assert sides is not None
    if not has_flint():
        return Finding(ok=True, certified=False, text="not certified: python-flint is missing")
    known = [decide(sides, instance) for instance in layers(2201, 200, 3)]
    violated, held = known.count(False), known.count(True)
    text = f"of {len(known)} random layers {violated} violate it, {held} satisfy it, proved"
    return Finding(ok=violated > 0, text=text, numbers={"violated": violated, "held": held})


PRINTED = Statement(
    latex=r"\|\tilde Y^{l+1}-\hat Y^{l+1}\|_F^2\le\sqrt n\,\|\hat\Theta^{l+1}\|_F^2\,\hat\varepsilon^l",
    words="the squared difference of outputs is at most √n times the squared norm times the error",
    sides=printed,
)

CORRECTED = Statement(
    latex=r"\|\tilde Y^{l+1}-\hat Y^{l+1}\|_F\le\sqrt n\,\|\hat W_{l+1}\|_2\,\hat\varepsilon^l",
    words="without the squares, and with the operator norm",
    sides=corrected(),
)

EXAMPLE = Counterexample(
    instance=one([[1]], [[0]], [[2]]),
    shown="n = 1, Ŵ = 1, Y = 0, Ŷ = 2: (2 - 0)² = 4 <= √1·1²·2 = 2 is false; 2 <= 1·1·2 is true",
)

CLAIM = Claim(
    id="eq22",
    title="How a layer passes on an error",
    source="(22)",
    printed=PRINTED,
    verdict="false",
    reason="the left side is squared, ε̂ is not: 4 <= 2",
    corrected=CORRECTED,
    counterexample=EXAMPLE,
    proof=r"""
Entry by entry $|\sigma(a)-\sigma(b)|\le|a-b|$, so $\|\tilde Y^{l+1}-\hat Y^{l+1}\|_F\le
\|\hat W_{l+1}^\top(Y^l-\hat Y^l)\|_F\le\|\hat W_{l+1}\|_2\|Y^l-\hat Y^l\|_F=\sqrt n\,\|\hat W_{l+1}\|_2\,
\hat\varepsilon^l$: column by column $\|\hat W^\top y\|\le\|\hat W\|_2\|y\|$. Squared this reads
$\|\cdot\|_F^2\le n\,\|\hat W_{l+1}\|_2^2\,(\hat\varepsilon^l)^2$; (22) has $\sqrt n$ for $n$ and
$\hat\varepsilon^l$ for its square. Both slips show: the printed form fails where $\hat\varepsilon^l>1$ with
$n=1$, and for $n=4$ with unit errors. $\square$
""",
    checks=(
        by_hand(),
        Check(name="the missing root of n", kind="exact", run=samples),
        Check(name="random layers", kind="certified", run=frequency),
        refuted(space(1, 1, 1), seed=2202, tries=300),
        survives(space(2, 2, 2), seed=2203, tries=300),
        certified("balls: layers of 2 to 4 inputs", lambda: layers(2204, 150)),
    ),
    mutations=(
        Mutation(
            name="corrected: 0.7 times the right side",
            changes={"corrected": replace(CORRECTED, sides=corrected(factor=Fraction(7, 10)))},
        ),
        Mutation(
            name="corrected: the largest entry as the norm",
            changes={
                "corrected": replace(CORRECTED, sides=corrected(lambda W, a: max(abs(v) for v in W.ravel())))
            },
        ),
        Mutation(
            name="printed: without the squares", changes={"printed": replace(PRINTED, sides=corrected())}
        ),
        Mutation(
            name="counterexample: an error of 1",
            changes={"counterexample": replace(EXAMPLE, instance=one([[1]], [[0]], [[1]]))},
        ),
    ),
)
