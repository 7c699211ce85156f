r"""The bound on A: "It can be proven that A ≤ α² m_l m_{l-1}" for Ω = {±α, 0}.

False: A = ‖Θ̂‖_F = α√nnz, so A² ≤ α² m_l m_{l-1} and A ≤ α√(m_l m_{l-1}); the root is missing. The printed
bound holds only if √nnz ≤ α m_l m_{l-1}, so not for small α.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from refldnq.verify.arithmetic import Arithmetic, Exact
from refldnq.verify.claims._examined import by_hand, refuted, survives
from refldnq.verify.claims._networks import certified
from refldnq.verify.claims._projection import sweep
from refldnq.verify.claims._rational import draw, exact, squares
from refldnq.verify.claims.base import Check, Claim, Counterexample, Finding, Instance, Mutation, Statement
from refldnq.verify.falsifier import Space, instances, matrices, rationals


def norm(instance: Instance, arithmetic: Arithmetic) -> Any:
    """A = ‖αQ‖_F."""
    return arithmetic.frobenius(arithmetic.number(instance["alpha"]) * arithmetic.array(instance["Q"]))


def printed(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """A and α² m_l m_{l-1}."""
    alpha = arithmetic.number(instance["alpha"])
    return norm(instance, arithmetic), alpha * alpha * arithmetic.number(instance["Q"].size)


def corrected(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """A and α 2^b √(m_l m_{l-1})."""
    alpha, top = arithmetic.number(instance["alpha"]), arithmetic.number(2 ** int(instance["b"]))
    return norm(instance, arithmetic), alpha * top * arithmetic.sqrt(arithmetic.number(instance["Q"].size))


def without_levels(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """Without 2^b: an error."""
    alpha = arithmetic.number(instance["alpha"])
    return norm(instance, arithmetic), alpha * arithmetic.sqrt(arithmetic.number(instance["Q"].size))


def squared(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """A² and α² m_l m_{l-1}: true for ternary sets, so no longer the printed statement."""
    left, right = printed(instance, arithmetic)
    return left * left, right


def exactly(instance: Instance) -> bool:
    """For ternary Q: A² = α² nnz ≤ α² m_l m_{l-1}, and the printed form holds iff √nnz ≤ α m_l m_{l-1}."""
    alpha, Q = instance["alpha"], instance["Q"]
    own, count, size = squares(alpha * Q), int((Q != 0).sum()), Q.size
    iff = (own <= (alpha**2 * size) ** 2) == (alpha == 0 or count <= (alpha * size) ** 2)
    return bool(own == alpha**2 * count and own <= alpha**2 * size and iff)


def ternary() -> Iterator[Instance]:
    """Random ternary weights and scales."""
    rng = np.random.default_rng(3201)
    for _ in range(300):
        alpha = abs(draw(rng, (), most=6, parts=9).item())
        yield {"alpha": alpha, "Q": exact(rng.integers(-1, 2, rng.integers(1, 5, 2))), "b": 0}


def levels() -> Iterator[Instance]:
    """Random weights of several levels, some entry below the largest, so that the sides differ."""
    rng = np.random.default_rng(3202)
    for k in range(120):
        b = k % 4
        Q = exact(rng.integers(-1, 2, (2, 3))) * exact(2 ** rng.integers(0, b + 1, (2, 3)))
        Q[0, 0] = Fraction(0)
        yield {"alpha": Fraction(1 + k % 5, 7), "Q": Q, "b": b}


def by_projection(claim: Claim) -> Finding:
    """Better than both: A ≤ ‖V‖_F for the projection of V, by Pythagoras."""
    rng = np.random.default_rng(3203)
    count = tighter = 0
    for k in range(150):
        V = draw(rng, 2 + k % 6, most=9, parts=4)
        point = sweep(V, k % 4)
        gain = squares(V) - squares(point.G)
        count += 1
        if gain != squares(V - point.G) or gain < 0:
            return Finding(ok=False, text="Pythagoras fails")
        tighter += squares(V) < point.alpha**2 * 4 ** (k % 4) * V.size
    text = (
        f"‖G‖² + ‖V-G‖² = ‖V‖² on {count} projections, so A <= ‖V‖_F; less than α2^b√N in {tighter} of them"
    )
    return Finding(ok=tighter > 0, text=text)


def zeros(claim: Claim) -> Finding:
    """What 50-70% zeros do to A: the factor is √(1 - zeros)."""
    assert claim.corrected is not None
    assert claim.corrected.sides is not None
    ratios = []
    for filled in (50, 30):
        Q = exact([1] * filled + [0] * (100 - filled)).reshape(10, 10)
        left, right = claim.corrected.sides({"alpha": Fraction(1), "Q": Q, "b": 0}, _Squared())
        ratios.append(left / right)
    text = (
        f"50% and 70% zeros: A²/(α²N) = {ratios[0]}, {ratios[1]}; A shrinks by factors 0.707 and 0.548 only"
    )
    return Finding(ok=ratios == [Fraction(1, 2), Fraction(3, 10)], text=text)


class _Squared(Exact):
    """Exact numbers in which a root is left undone: the squares of sides that are single roots."""

    def sqrt(self, x: Any) -> Fraction:
        return self.number(x)


def exact_value(claim: Claim) -> Finding:
    """A = α√nnz, and when the printed bound holds."""
    assert claim.printed.sides is not None
    count = violated = 0
    for own in ternary():
        left, right = claim.printed.sides(own, _Squared())
        alpha, Q = own["alpha"], own["Q"]
        nonzeros = int((Q != 0).sum())
        predicted = alpha > 0 and nonzeros > (alpha * Q.size) ** 2
        if not exactly(own) or left != alpha**2 * nonzeros or (left > right**2) != predicted:
            return Finding(ok=False, text=f"A² = {left} at α = {alpha}, {nonzeros} non-zeros of {Q.size}")
        count += 1
        violated += predicted
    text = f"A² = α²·nnz on {count} ternary weights; printed bound violated on {violated}, where √nnz > α·N"
    return Finding(ok=0 < violated < count, text=text)


def is_ternary(own: Instance) -> bool:
    """Whether the levels are -1, 0, 1 and the scale is not negative."""
    return own["alpha"] >= 0 and all(abs(q) in (0, 1) for q in own["Q"].ravel())


def ternary_space(rows: int, columns: int) -> Space:
    """Ternary weights of a shape."""
    return Space(
        lambda: instances(
            alpha=rationals(4, (2, 5, 9), least=0),
            Q=matrices(rows, columns, rationals(1, (1,))),
            b=rationals(0, (1,)),
        ),
        admits=is_ternary,
        fixed=("b",),
    )


def instance(alpha: Any, Q: Any, b: int = 0) -> Instance:
    """A weight of nested lists."""
    return {"alpha": Fraction(alpha), "Q": exact(Q), "b": b}


PRINTED = Statement(
    latex=r"\mathcal A=\|\hat\Theta_l\|_F\le\alpha^2\times(m_l\times m_{l-1})\quad(\Omega=\{\pm\alpha,0\})",
    words="the Frobenius norm of ternary weights is at most α² times their number",
    sides=printed,
)

CORRECTED = Statement(
    latex=r"\mathcal A\le\alpha2^b\sqrt{m_lm_{l-1}},\qquad \mathcal A=\alpha\sqrt{\mathrm{nnz}(Q)}"
    r"\le\alpha\sqrt{m_lm_{l-1}}\ \ (b=0)",
    words="at most α times the root of their number; with levels up to 2^b, times 2^b",
    sides=corrected,
)

EXAMPLE = Counterexample(
    instance=instance(Fraction(1, 2), [[1]]),
    shown="α = 1/2, Q = (1): A = 1/2 <= 1/4·1 = 1/4 is false; 1/2 <= 1/2·√1 is true",
)

CLAIM = Claim(
    id="a-norm",
    title="The bound on A",
    source="after (19), and the end of the proof",
    printed=PRINTED,
    verdict="false",
    reason="the root is missing: 1/2 <= 1/4",
    corrected=CORRECTED,
    counterexample=EXAMPLE,
    proof=r"""
$\mathcal A^2=\|\alpha Q\|_F^2=\alpha^2\sum q^2$. For ternary $Q$ the sum is the number of non-zeros, so
$\mathcal A=\alpha\sqrt{\mathrm{nnz}}\le\alpha\sqrt{m_lm_{l-1}}$; with levels up to $2^b$ every $q^2\le4^b$.
The printed right side is the square of this bound, and $\mathcal A\le\alpha^2m_lm_{l-1}$ holds if and only if
$\sqrt{\mathrm{nnz}}\le\alpha m_lm_{l-1}$.

*Better.* At an optimal $\alpha$, $\langle G,V-G\rangle=0$, hence $\|G\|^2+\|V-G\|^2=\|V\|^2$ and
$\mathcal A\le\|V\|_F$: quantized weights have at most the norm of what was projected. And the operator norm,
which is what Theorem 1 needs, satisfies $\|\hat W\|_2\le\alpha\sqrt{\|Q\|_1\|Q\|_\infty}$, in integers.
$\square$
""",
    checks=(
        by_hand(),
        Check(name="the exact value", kind="exact", run=exact_value),
        Check(name="by the projection", kind="exact", run=by_projection),
        Check(name="zeros", kind="exact", run=zeros),
        refuted(ternary_space(2, 2), seed=3204, tries=400),
        survives(ternary_space(2, 3), seed=3205, tries=300),
        certified("balls: levels up to 8", levels),
    ),
    mutations=(
        Mutation(
            name="corrected: without 2^b", changes={"corrected": replace(CORRECTED, sides=without_levels)}
        ),
        Mutation(name="corrected: the printed one", changes={"corrected": replace(CORRECTED, sides=printed)}),
        Mutation(name="printed: A squared", changes={"printed": replace(PRINTED, sides=squared)}),
        Mutation(
            name="counterexample: α = 1",
            changes={"counterexample": replace(EXAMPLE, instance=instance(1, [[1]]))},
        ),
    ),
)
