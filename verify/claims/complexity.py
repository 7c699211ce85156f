r"""The cost of the three steps: "O(n³), O(n), O(n), where n is the number of weights in one kernel".

True with a fix: n³ is the cost of a factorization, which a layer needs once, not of the proximal step of an
iteration, which is n² a kernel. The projection is over the whole layer, as α is shared. Omitted is the
Hessian, n² products a patch, usually the largest part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from refldnq.verify.claims._counting import Counter, counted, factorize, substitute
from refldnq.verify.claims._examined import by_hand, on_all
from refldnq.verify.claims.base import (
    Check,
    Claim,
    Counterexample,
    Figure,
    Finding,
    Instance,
    Mutation,
    Statement,
)


def factorization(d: int) -> int:
    """Products and divisions of Cholesky's factorization: d(d-1)(d+4)/6.

    Examples
    --------
    >>> factorization(1000)
    167166000
    """
    return d * (d - 1) * (d + 4) // 6


def proximal(d: int, m: int) -> int:
    """Of the proximal step (15) of an iteration, with the factorization and HΘ̄ at hand: m(d² + 2d)."""
    return m * (d * (d + 1) + d)


def constant(d: int, m: int) -> int:
    """Of HΘ̄, once."""
    return m * d * d


def total(d: int, m: int, iterations: int) -> int:
    """Of the proximal steps of a whole run."""
    return factorization(d) + constant(d, m) + iterations * proximal(d, m)


def measured(d: int, m: int, iterations: int) -> int:
    """The same counted by an implementation that does it."""
    rng = np.random.default_rng(d)
    counter = Counter()
    B = rng.standard_normal((d, d + 2))
    A = counted(B @ B.T / d + np.eye(d), counter)
    H = counted(B @ B.T / d, counter)
    W = counted(rng.standard_normal((d, m)), counter)
    rho = counted([1.0], counter)[0]
    R = factorize(A)
    fixed = H @ W  # HΘ̄
    for _ in range(iterations):
        for j in range(m):
            right = np.array([fixed[i, j] + rho * W[i, j] for i in range(d)], dtype=object)  # [LDNQ] (15)
            substitute(R, right)
    return counter.products


def sizes(instance: Instance) -> tuple[int, int, int]:
    """d, m and the number of iterations."""
    return int(instance["d"]), int(instance["m"]), int(instance["iterations"])


def cubic_each(instance: Instance) -> bool:
    """As printed: a further iteration costs at least a factorization's n³/6."""
    d, m, iterations = sizes(instance)
    return measured(d, m, iterations + 1) - measured(d, m, iterations) >= d**3 / 6


def exact_count(instance: Instance) -> bool:
    """The formula against the counting implementation."""
    d, m, iterations = sizes(instance)
    return measured(d, m, iterations) == total(d, m, iterations)


def wrong_count(instance: Instance) -> bool:
    """n³/3 products, which is the number of operations: an error."""
    d, m, iterations = sizes(instance)
    own = total(d, m, iterations) + factorization(d)
    return measured(d, m, iterations) == own


def solves_twice(instance: Instance) -> bool:
    """One triangular system an iteration: an error."""
    d, m, iterations = sizes(instance)
    own = factorization(d) + constant(d, m) + iterations * m * (d * (d + 1) // 2 + d)
    return measured(d, m, iterations) == own


def layers() -> Iterator[Instance]:
    """Small layers."""
    for d in (1, 2, 3, 5, 8, 13):
        for m in (1, 3):
            yield {"d": d, "m": m, "iterations": d % 3 + 1}


def growth(claim: Claim) -> Finding:
    """The exponents: d³/6 once, d² a kernel and iteration, against the Hessian's patches."""
    dims = (10, 100, 1000, 2304, 9216)
    ratios = [factorization(d) / (d**3 / 6) for d in dims]
    steps = [proximal(d, 1) / d**2 for d in dims]
    d, m, patches = 576, 64, 200 * 64
    hessian = patches * d * (d + 1) // 2
    figure = Figure(
        title="Products of one layer (200 images, 8×8 positions, 64 kernels, 100 iterations)",
        x="weights in one kernel, d",
        y="products",
        curves={
            "factorization, once": (tuple(map(float, dims)), tuple(float(factorization(d)) for d in dims)),
            "proximal steps, 100 iterations": (
                tuple(map(float, dims)),
                tuple(float(100 * proximal(d, 64)) for d in dims),
            ),
            "Hessian, 12,800 patches": (
                tuple(map(float, dims)),
                tuple(float(12800 * d * (d + 1) // 2) for d in dims),
            ),
        },
        log="xy",
    )
    text = (
        f"factorization/(d³/6) = {ratios[0]:.3f}, {ratios[2]:.3f}, {ratios[-1]:.4f} at d = 10, 1000, 9216; "
        f"a step/d² = {steps[2]:.3f}; d = {d}: factorization {factorization(d):.2e}, 100 iterations of {m} "
        "kernels "
        f"{100 * proximal(d, m):.2e}, Hessian {hessian:.2e}"
    )
    ok = abs(ratios[-1] - 1) < 1e-3 and abs(steps[-1] - 1) < 1e-3 and factorization(1000) == 167_166_000
    return Finding(ok=ok, text=text, figures=(figure,))


PRINTED = Statement(
    latex=r"\text{proximal, projection, dual step: }O(n^3),\ O(n),\ O(n)",
    words="every iteration's proximal step costs a multiple of n³",
    holds=cubic_each,
)

CORRECTED = Statement(
    latex=r"\underbrace{\tfrac{d(d-1)(d+4)}6}_{\text{once}}+\underbrace{md^2}_{\text{once}}"
    r"+\,\text{iterations}\cdot m(d^2+2d)\ \text{products}",
    words="the exact number of products and divisions of the proximal steps of a layer of m kernels of d "
    "weights",
    holds=exact_count,
)

CLAIM = Claim(
    id="complexity",
    title="The cost of the three steps",
    source="section 'Quantization with ADMM', end",
    printed=PRINTED,
    verdict="true with a fix",
    reason="n³/6 products once a layer, then n² a kernel and iteration; projections and the dual step are "
    "linear",
    corrected=CORRECTED,
    counterexample=Counterexample(
        instance={"d": 13, "m": 1, "iterations": 1},
        shown="d = 13, one kernel: a further iteration takes 13·14 + 13 = 195 products, a factorization "
        "13·12·17/6 = 442; d³/6 = 366",
    ),
    proof=r"""
*Factorization.* Column $j$ ($0\le j<d$) takes $j$ products for the pivot, and $j$ products and a division for
each of the $d-j-1$ entries below:
$\sum_j\big[j+(d-j-1)(j+1)\big]=\frac{d(d-1)}2+\frac{d(d^2-1)}6=\frac{d(d-1)(d+4)}6$. $H+\rho I$ does not
change during a run, so this is done once, and for a convolution or fully connected layer once for all
kernels, as they share the block $H$.

*Iteration.* The right side of (15) needs $\rho(G-\lambda)$, $d$ products, and $H\bar\Theta$, $d^2$ products
once. The two triangular systems take $d(d+1)$ products and divisions. Together $d^2+2d$ a kernel.

*Projection and dual step.* A pass of the alternation over all $N=md$ weights takes $O(N)$ operations, the
exact method $O(Nb\log N)$; as $\alpha$ is shared it is a matter of the layer, not of a kernel. (18) is $2N$
additions.

*Hessian.* $\frac{d(d+1)}2$ products a patch, which the paper does not count. $\square$
""",
    checks=(
        by_hand(),
        on_all("counted against the formula", layers, which="corrected", kind="count"),
        Check(name="growth", kind="count", run=growth),
    ),
    mutations=(
        Mutation(
            name="corrected: n³/3 products", changes={"corrected": replace(CORRECTED, holds=wrong_count)}
        ),
        Mutation(
            name="corrected: one triangular system",
            changes={"corrected": replace(CORRECTED, holds=solves_twice)},
        ),
        Mutation(
            name="counterexample: d = 2",
            changes={
                "counterexample": Counterexample(instance={"d": 2, "m": 1, "iterations": 1}, shown="d = 2")
            },
        ),
    ),
)
