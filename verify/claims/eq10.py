r"""(10): min over Θ̂ in Ω of f(Θ̂) = ½ (Θ̂ - Θ^new)ᵀ H (Θ̂ - Θ^new).

True: f is the layer error (8) itself. H = (2/n) I ⊗ ŶŶᵀ for the column by column vectorization of W: one
block, repeated for every neuron (ŶŶᵀ ⊗ I for the row by row one). Without the 2, as L-OBS and the released
code have it, f is E/2. The minimum over a scaled set is attained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from refldnq.verify.claims._examined import on_all, stated
from refldnq.verify.claims._rational import Exact, draw, exact, identity, inner
from refldnq.verify.claims._single_layer import linear_error, linear_hessian_by_library, quadratic
from refldnq.verify.claims.base import Check, Claim, Finding, Instance, Mutation, Statement
from refldnq.verify.naive.layers import second_differences

Hessian = Callable[[Exact, int], Exact]
"""The full matrix H of an input (m0, n) and the number of neurons, for the column by column vectorization."""


def kronecker(A: Exact, B: Exact) -> Exact:
    """A ⊗ B."""
    rows = [[a * b for a in A[i] for b in B[j]] for i in range(len(A)) for j in range(len(B))]
    return exact(rows)


def full_hessian(Y: Exact, neurons: int, *, factor: int = 2) -> Exact:
    """(2/n) I ⊗ YYᵀ."""
    return kronecker(identity(neurons), Fraction(factor, Y.shape[1]) * (Y @ Y.T))  # [LDNQ] (10)


def row_order(Y: Exact, neurons: int) -> Exact:
    """(2/n) YYᵀ ⊗ I, right for the row by row vectorization only."""
    return kronecker(Fraction(2, Y.shape[1]) * (Y @ Y.T), identity(neurons))


def rank(A: Exact) -> int:
    """The rank, by elimination."""
    rows, found = A.copy(), 0
    for column in range(A.shape[1]):
        pivot = next((i for i in range(found, len(rows)) if rows[i, column] != 0), None)
        if pivot is None:
            continue
        rows[[found, pivot]] = rows[[pivot, found]]
        for i in range(found + 1, len(rows)):
            rows[i] = rows[i] - rows[i, column] / rows[found, column] * rows[found]
        found += 1
    return found


def is_quadratic(instance: Instance, *, factor: Fraction = Fraction(1)) -> bool:
    """Whether ½ δᵀHδ is (8), with H the second differences of (8), times a factor."""
    Y, W, G = (instance[name] for name in ("Y", "W", "G"))
    neurons = W.shape[1]

    def error_of(change: Exact) -> Any:
        return linear_error(Y, W, W + exact(change).reshape(neurons, -1).T)

    delta = (G - W).T.ravel()  # column by column
    H = factor * exact(second_differences(error_of, (len(delta),), Fraction(1)))
    return bool(quadratic(H, delta) == linear_error(Y, W, G))


def is_objective(instance: Instance, *, hessian: Hessian) -> bool:
    """Whether ½ δᵀHδ is (8), H its second differences, the package's block repeated, of rank m rank(Y)."""
    Y, W, G = (instance[name] for name in ("Y", "W", "G"))
    neurons = W.shape[1]
    H = hessian(Y, neurons)

    def error_of(change: Exact) -> Any:
        return linear_error(Y, W, W + exact(change).reshape(neurons, -1).T)

    delta = (G - W).T.ravel()  # column by column
    by_rows = quadratic(row_order(Y, neurons), (G - W).ravel())
    return bool(
        quadratic(H, delta) == linear_error(Y, W, G) == by_rows
        and (H == exact(second_differences(error_of, (len(delta),), Fraction(1)))).all()
        and rank(H) == neurons * rank(Y) <= neurons * min(Y.shape)
    )


def problems() -> Iterator[Instance]:
    """Random linear layers of fractions, with more inputs than samples and with dead inputs among them."""
    rng = np.random.default_rng(1001)
    for k in range(30):
        m0, m1, n = 1 + k % 3, 1 + k % 2, 1 + k % 4
        Y = draw(rng, (m0, n), most=4, parts=3)
        if k % 7 == 0:
            Y[0] = Fraction(0)
        yield {"Y": Y, "W": draw(rng, (m0, m1)), "G": draw(rng, (m0, m1))}


def by_package(claim: Claim) -> Finding:
    """The package's block on integers, 2, 4 or 8 samples; the example that tells 2/n from 1/n."""
    holds = stated(claim, "corrected").holds
    assert holds is not None
    rng = np.random.default_rng(1002)
    for k in range(30):
        Y = exact(rng.integers(-9, 10, (1 + k % 4, 2 ** (1 + k % 3))))
        if not (linear_hessian_by_library(Y) == full_hessian(Y, 1)).all():
            return Finding(ok=False, text=f"the package's block differs on input {k + 1}")
    Y, one = exact([[1, 2], [0, 1]]), exact([[1], [1]])
    values = [quadratic(full_hessian(Y, 1, factor=c), one.ravel()) for c in (2, 1)]
    own = linear_error(Y, 0 * one, one)
    same = holds({"Y": Y, "W": 0 * one, "G": one})
    text = (
        f"Y = ((1, 2), (0, 1)), δ = (1, 1): E = {own}, ½ δᵀHδ = {values[0]} with 2/n and {values[1]} with 1/n"
    )
    return Finding(ok=same and values == [own, own / 2], text=text)


def attained(claim: Claim) -> Finding:
    """All codes with their best scale against random feasible points."""
    holds = stated(claim, "printed").holds
    assert holds is not None
    rng = np.random.default_rng(1003)
    trials = 0
    for _ in range(6):
        Y, W = exact(rng.integers(-4, 5, (3, 2))), exact(rng.integers(-9, 10, (3, 1))) / 4
        H, target = full_hessian(Y, 1), W.ravel()
        values = []
        for codes in product((-1, 0, 1), repeat=3):
            Q = exact(codes)
            top, bottom = inner(Q, H @ target), inner(Q, H @ Q)
            alpha = max(Fraction(0), top / bottom) if bottom else Fraction(0)
            values.append(quadratic(H, alpha * Q - target))
        for _ in range(60):
            G = Fraction(int(rng.integers(0, 40)), 8) * exact(rng.integers(-1, 2, (3, 1)))
            trials += 1
            if not linear_error(Y, W, G) >= min(values):
                return Finding(ok=False, text=f"a feasible point lies below the minimum, trial {trials}")
        if not holds({"Y": Y, "W": W, "G": W + 1}):
            return Finding(ok=False, text="f is not the layer error")
    return Finding(
        ok=True, text=f"27 codes enumerated, 6 layers of rank <= 2: none of {trials} points is better"
    )


def _wrong(hessian: Hessian) -> dict[str, Statement]:
    return {"corrected": replace(CORRECTED, holds=partial(is_objective, hessian=hessian))}


PRINTED = Statement(
    latex=r"\min_{\hat\Theta_l}f(\hat\Theta_l)=\tfrac12(\hat\Theta_l-\bar\Theta_l^{new})^\top H_l"
    r"(\hat\Theta_l-\bar\Theta_l^{new}),\quad\text{s.t. }\hat\Theta_l\in\Omega_l",
    words="read as: with the Hessian of (9), f is the layer error; its minimum over the set is sought",
    holds=is_quadratic,
)

CORRECTED = Statement(
    latex=r"H_l=\tfrac2n\,I_{m_l}\otimes\hat Y^{l-1}(\hat Y^{l-1})^\top,\qquad"
    r"\operatorname{rank}H_l=m_l\operatorname{rank}\hat Y^{l-1}",
    words="the Hessian is one block, (2/n) YY', repeated for every neuron",
    holds=partial(is_objective, hessian=full_hessian),
)

CLAIM = Claim(
    id="eq10",
    title="The quadratic objective over a discrete set",
    source="(10)",
    printed=PRINTED,
    verdict="true",
    reason="f is the layer error itself; the minimum is attained",
    corrected=CORRECTED,
    proof=r"""
From $E=\frac1n\sum_i\delta_i^\top\hat Y\hat Y^\top\delta_i$ with $\delta_i$ the $i$-th column of
$\hat W_l-\bar W_l^{new}$: stacking the columns, $E=\frac12\delta^\top H\delta$ with
$$H=\tfrac2n\,I_{m_l}\otimes\hat Y\hat Y^\top .$$
In row-major order the factors change places. The 2 belongs there: with $\frac1n\hat Y\hat Y^\top$ the same
expression is $E/2$. (ADMM's iterates are the same for $(cH,c\rho)$ as for $(H,\rho)$, so only $\rho$ and
$\sqrt{E}$ notice.) $\operatorname{rank}H=m_l\operatorname{rank}\hat Y\le m_l\min(n,m_{l-1})$: with fewer
samples than inputs $H$ is singular; an input that is always zero gives a zero row.

*The minimum is attained.* For each of the finitely many $Q$ the function $\alpha\mapsto f(\alpha Q)$ is a
convex parabola or a constant on $\alpha\ge0$ ($Q^\top HQ=0$ implies $HQ=0$), so it has a minimum; the least
of finitely many is the minimum of (10). $\square$
""",
    checks=(
        on_all("second differences", problems),
        on_all("the full matrix, both vectorizations, rank", problems, which="corrected"),
        Check(name="the package's block, and the factor 2", kind="exact", run=by_package),
        Check(name="the minimum is attained", kind="exact", run=attained),
    ),
    mutations=(
        Mutation(
            name="printed: without the ½",
            changes={"printed": replace(PRINTED, holds=partial(is_quadratic, factor=Fraction(2)))},
        ),
        Mutation(name="1/n in place of 2/n", changes=_wrong(partial(full_hessian, factor=1))),
        Mutation(name="the blocks of the row-major order", changes=_wrong(row_order)),
        Mutation(
            name="divided by the number of neurons too",
            changes=_wrong(lambda Y, neurons: full_hessian(Y, neurons) / neurons),
        ),
    ),
)
