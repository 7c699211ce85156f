r"""(19): ε̂^L ≤ Σ_{k<L} (Π_{l>k} A √ε^k) + √ε^L.

False letter by letter: the root stands inside the product, so the error of layer k enters to the power L - k;
small errors then count as nothing. It belongs behind the product, the errors are those of the reference
network's own inputs, and the operator norm takes the place of the larger Frobenius norm.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

from refldnq.verify.arithmetic import EXACT, Arithmetic
from refldnq.verify.claims._examined import by_hand, refuted, survives
from refldnq.verify.claims._networks import certified
from refldnq.verify.claims._networks_fc import (
    bounded_by,
    literal,
    random_networks,
    scalars,
    strategy,
)
from refldnq.verify.claims._projection import sweep
from refldnq.verify.claims._rational import exact
from refldnq.verify.claims.base import Check, Claim, Counterexample, Finding, Instance, Mutation, Statement
from refldnq.verify.falsifier import Space

OPTIMAL = {
    "X": exact([[1, 0], [0, 1]]),
    "bar": (exact([[1], ["1/2"]]), exact([[1]]), exact([[1]])),
    "hat": (exact([["3/4"], ["3/4"]]), exact([[1]]), exact([[1]])),
}
"""Layer 1 is quantized to its globally optimal ternary weights, 3/4·(1, 1); the other weights are ternary."""


def optimal(claim: Claim) -> Finding:
    """The printed form fails for the best ternary quantizer, too."""
    sides = claim.printed.sides
    assert sides is not None
    left, right = sides(OPTIMAL, EXACT)
    best = sweep(exact([1, "1/2"]), 0)
    ok = left > right and (best.G == OPTIMAL["hat"][0].ravel()).all()
    text = f"X = I, W₁ = (1, 1/2), W₂ = W₃ = 1, best ternary Ŵ₁ = 3/4·(1, 1): {left} <= {right} is false"
    return Finding(ok=bool(ok), text=text)


def slowly(claim: Claim) -> Finding:
    """The printed right side loses to the error by any factor: Ŵ₁ = 1 - t in a network of ones."""
    sides = claim.printed.sides
    assert sides is not None
    ratios = []
    for t in (Fraction(1, 2), Fraction(1, 10), Fraction(1, 1000)):
        left, right = sides(scalars((1, 1, 1), (1 - t, 1, 1)), EXACT)
        ratios.append(left / right)
    text = "1 - t for t = 1/2, 1/10, 1/1000: left/right = " + ", ".join(map(str, ratios))
    return Finding(ok=ratios == [2, 10, 1000], text=text)


def not_rooted(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """E^k in place of its root: an error."""
    left, right = CORRECTED_SIDES(instance, arithmetic)
    return left, right * right


CORRECTED_SIDES = bounded_by(cascade=False, weights="hat")

PRINTED = Statement(
    latex=r"\hat\varepsilon^L\le\sum_{k=1}^{L-1}\Big(\prod_{l=k+1}^L\mathcal A\sqrt{\varepsilon^k}\Big)"
    r"+\sqrt{\varepsilon^L},\qquad\mathcal A=\|\hat\Theta_l\|_F",
    words="the final error is at most the sum of the products of norms and rooted layer errors",
    sides=literal,
)

CORRECTED = Statement(
    latex=r"\hat\varepsilon^L\le\sum_{k=1}^L\Big(\prod_{l=k+1}^L\|\hat W_l\|_2\Big)e_k,\qquad "
    r"e_k=\tfrac1{\sqrt n}\|(\hat W_k-\bar W_k)^\top Y^{k-1}\|_F",
    words="the root behind the product, and errors at the reference network's own inputs",
    sides=CORRECTED_SIDES,
)

EXAMPLE = Counterexample(
    instance=scalars((1, 1, 1), (Fraction(1, 2), 1, 1)),
    shown="X = 1, W = (1, 1, 1), Ŵ = (1/2, 1, 1): E¹ = 1/4, ε̂ = 1/2 <= (1·1/2)·(1·1/2) + 0 + 0 = 1/4 is "
    "false",
)

CLAIM = Claim(
    id="eq19",
    title="The bound of Theorem 1, letter by letter",
    source="(19)",
    printed=PRINTED,
    verdict="false",
    reason="the root stands inside the product: 1/2 <= 1/4",
    corrected=CORRECTED,
    counterexample=EXAMPLE,
    proof=r"""
Read literally, $\prod_{l=k+1}^L\mathcal A\sqrt{\varepsilon^k}=(\varepsilon^k)^{(L-k)/2}\prod_{l>k}\mathcal
A$. For scalars $\bar W=(1,1,1)$, $\hat W=(1-t,1,1)$, $X=1$ the error $\hat\varepsilon^3=t$ meets the right
side $t^2$.

*Correction.* Insert $\sigma(\hat W_l^\top Y^{l-1})$:
$$\hat Y^l-Y^l=[\sigma(\hat W_l^\top\hat Y^{l-1})-\sigma(\hat W_l^\top Y^{l-1})]
+[\sigma(\hat W_l^\top Y^{l-1})-\sigma(\bar W_l^\top Y^{l-1})].$$
ReLU is 1-Lipschitz in every entry and $\|A^\top B\|_F\le\|A\|_2\|B\|_F$, so
$\hat\varepsilon^l\le\|\hat W_l\|_2\,\hat\varepsilon^{l-1}+e_l$ with $\hat\varepsilon^0=0$; unrolling gives
the bound. It is an equality for positive scalars whose errors have one sign, so its constants cannot be
improved. $\square$
""",
    checks=(
        by_hand(),
        Check(name="the best ternary quantizer violates it, too", kind="exact", run=optimal),
        Check(name="by any factor", kind="exact", run=slowly),
        refuted(Space(lambda: strategy(3, 1, 1)), seed=1901, tries=600),
        survives(Space(lambda: strategy(2, 2, 1)), seed=1902, tries=250),
        certified("balls: depths 2, 3, 5", lambda: random_networks(1903, 120, depths=(2, 3, 5), most=3)),
    ),
    mutations=(
        Mutation(
            name="corrected: E in place of its root",
            changes={"corrected": replace(CORRECTED, sides=not_rooted)},
        ),
        Mutation(
            name="corrected: errors at the quantized inputs",
            changes={"corrected": replace(CORRECTED, sides=bounded_by(cascade=True, weights="hat"))},
        ),
        Mutation(
            name="printed: with the root behind the product",
            changes={"printed": replace(PRINTED, sides=CORRECTED_SIDES)},
        ),
        Mutation(
            name="counterexample: no error",
            changes={"counterexample": replace(EXAMPLE, instance=scalars((1, 1, 1), (1, 1, 1)))},
        ),
    ),
)
