r"""Theorem 2: the accumulated and the layer-wise quantized output of a layer differ by a bounded amount.

True with a fix: without the squares of (22), and with the operator norm, which is sharp. The printed squares
are right for another definition of ε̂, the one of the last display, which contradicts Theorem 1's.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from refldnq.verify.arithmetic import EXACT, Arithmetic
from refldnq.verify.claims._examined import by_hand, refuted, survives
from refldnq.verify.claims._networks import certified
from refldnq.verify.claims._networks_fc import frobenius
from refldnq.verify.claims._rational import exact
from refldnq.verify.claims._theorem2 import corrected, layers, one, printed, space, squared_definition
from refldnq.verify.claims.base import Check, Claim, Counterexample, Finding, Instance, Mutation, Statement


def sharp(claim: Claim) -> Finding:
    """Equality where no ReLU clips and the error lies along the top singular vector."""
    assert claim.corrected is not None
    assert claim.corrected.sides is not None
    rng = np.random.default_rng(1)
    rank_one = []
    for _ in range(50):
        u, v = exact(rng.integers(1, 6, (3, 1))), exact(rng.integers(1, 6, (2, 1)))
        Y = exact(rng.integers(1, 4, (3, 4)))
        # The norm of u vᵀ is ‖u‖‖v‖; squares of both sides are rational.
        W, Y_hat = u @ v.T, Y + u @ exact(rng.integers(0, 5, (1, 4)))
        left = EXACT.squares(W.T @ (Y_hat - Y))
        right = EXACT.squares(u) * EXACT.squares(v) * EXACT.squares(Y_hat - Y)
        rank_one.append(left == right)
    left, right = claim.corrected.sides(DIAGONAL, EXACT)
    text = (
        f"squares equal on {sum(rank_one)} of 50 layers of rank 1; Ŵ = diag(4, 3), error (4, 0): {left} = "
        f"{right}"
    )
    return Finding(ok=all(rank_one) and left == right, text=text)


def other_definition(claim: Claim) -> Finding:
    """With ε̂ := ‖Ŷ - Y‖²/√n the printed squares hold, exactly."""
    worst = Fraction(0)
    for instance in layers(1801, 300):
        left, right = squared_definition(instance, EXACT)
        if left > right:
            return Finding(ok=False, text="violated with the squared definition")
        worst = max(worst, left / right if right else Fraction(0))
    text = f"with ε̂ = ‖Ŷ - Y‖²/√n: holds on 300 layers in fractions, largest ratio {float(worst):.3f}"
    return Finding(ok=True, text=text)


def weaker(claim: Claim) -> Finding:
    """The Frobenius norm may replace the operator norm, at a loss."""
    assert claim.corrected is not None
    assert claim.corrected.sides is not None
    left, right = claim.corrected.sides(DIAGONAL, EXACT)
    loose = corrected(frobenius)(WIDE, EXACT)[1]
    tight = claim.corrected.sides(WIDE, EXACT)[1]
    text = f"Ŵ = diag(1, 1, 1, 1): {tight} with the operator norm, {loose} with Frobenius"
    return Finding(ok=tight * 2 == loose and left == right, text=text)


def transposed_error(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """The smallest column's norm in place of the operator norm: an error."""
    W = arithmetic.array(instance["W_hat"])
    first = arithmetic.frobenius(W[:, :1])
    left, right = corrected(lambda own, a: first)(instance, arithmetic)
    return left, right


DIAGONAL = one([[4, 0], [0, 3]], [[1], [1]], [[5], [1]])
WIDE = one(np.eye(4, dtype=int), [[0]] * 4, [[1]] * 4)

PRINTED = Statement(
    latex=r"\|\tilde Y^{l+1}-\hat Y^{l+1}\|_F^2\le\sqrt "
    r"n\,\|\hat\Theta^{l+1}\|_F^2\,\hat\varepsilon^l,\qquad "
    r"\hat\varepsilon^l=\tfrac1{\sqrt n}\|\hat Y^l-Y^l\|_F",
    words="(22) with the error as Theorem 1 defines it",
    sides=printed,
)

CORRECTED = Statement(
    latex=r"\|\tilde Y^{l+1}-\hat Y^{l+1}\|_F\le\sqrt n\,\|\hat W_{l+1}\|_2\,\hat\varepsilon^l"
    r"\le\sqrt n\,\|\hat W_{l+1}\|_F\,\hat\varepsilon^l",
    words="the difference, not squared, is at most √n times the operator norm times the error",
    sides=corrected(),
)

EXAMPLE = Counterexample(
    instance=one([[1]], [[0]], [[2]]),
    shown="n = 1, Ŵ = 1, Y = 0, Ŷ = 2: (2 - 0)² = 4 <= √1·1²·2 = 2 is false; 2 <= √1·1·2 is true",
)

CLAIM = Claim(
    id="theorem2",
    title="Theorem 2",
    source="Theorem 2",
    printed=PRINTED,
    verdict="true with a fix",
    reason="without the squares, and with the operator norm in place of Frobenius",
    corrected=CORRECTED,
    counterexample=EXAMPLE,
    proof=r"""
$|\sigma(a)-\sigma(b)|\le|a-b|$ gives $\|\tilde Y-\hat Y\|_F\le\|\hat W^\top(Y^l-\hat Y^l)\|_F$, and
$\|A^\top B\|_F^2=\sum_j\|A^\top b_j\|^2\le\|A\|_2^2\sum_j\|b_j\|^2$. The right side is
$\|\hat W\|_2\cdot\sqrt n\,\hat\varepsilon^l$, by the definition of $\hat\varepsilon^l$ in Theorem 1. Since
$\|\hat W\|_2\le\|\hat W\|_F$ the Frobenius norm is a weaker valid constant.

*Sharp.* If no ReLU clips and every column of $Y^l-\hat Y^l$ is a top left singular vector of $\hat W$, both
steps are equalities.

*The printed squares* hold if $\hat\varepsilon^l$ means $\frac1{\sqrt n}\|\hat Y^l-Y^l\|_F^2$, as the proof's
last display has it; but then Theorem 1 bounds another quantity than it defines. $\square$
""",
    checks=(
        by_hand(),
        Check(name="sharp", kind="exact", run=sharp),
        Check(name="operator norm and Frobenius norm", kind="exact", run=weaker),
        Check(name="the other definition of ε̂", kind="exact", run=other_definition),
        refuted(space(2, 1, 2), seed=1802, tries=400),
        survives(space(2, 3, 1), seed=1803, tries=250),
        certified("balls: layers of up to 6 inputs", lambda: layers(1804, 80, 6)),
    ),
    mutations=(
        Mutation(
            name="corrected: norm of one column",
            changes={"corrected": replace(CORRECTED, sides=transposed_error)},
        ),
        Mutation(
            name="corrected: Frobenius, which is not sharp",
            changes={"corrected": replace(CORRECTED, sides=corrected(frobenius))},
        ),
        Mutation(
            name="printed: the squared definition",
            changes={"printed": replace(PRINTED, sides=squared_definition)},
        ),
    ),
)
