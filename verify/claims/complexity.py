r"""The cost of the three steps: "O(n³), O(n), O(n), where n is the number of weights in one kernel".

True with a fix: n³ is the cost of a factorization, which a layer needs once, not of the proximal step of an
iteration, which is n² a kernel. The projection is over the whole layer, as α is shared. Omitted is the
Hessian, n² products a patch, usually the largest part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from refldnq.verify.claims._counting import (
    Counter,
    alternation_pass,
    counted,
    exact_sweep,
    factorize,
    substitute,
)
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


def projected(d: int, m: int, b: int) -> tuple[Counter, Counter, Counter]:
    """What one pass of the alternation, the exact sweep and the dual step (18) of a layer take, counted."""
    rng = np.random.default_rng(100 * d + m)
    levels = np.array([0, *(2**j for j in range(b + 1))], dtype=float)
    W = rng.standard_normal(d * m)
    counters = Counter(), Counter(), Counter()
    own = [counted(v, counters[0]) for v in (W, [abs(W).mean()], levels, (levels[1:] + levels[:-1]) / 2)]
    alternation_pass(own[0], own[1][0], own[2], own[3])
    given = (W, levels, (levels[1:] + levels[:-1]) / 2, np.diff(levels), np.diff(levels**2))
    exact_sweep(*(counted(v, counters[1]) for v in given))
    lam, theta, G = (counted(rng.standard_normal(d * m), counters[2]) for _ in range(3))
    lam + theta - G  # [LDNQ] (18)
    return counters


def linear(instance: Instance, *, products: int = 3, sums: int = 2, logarithm: bool = True) -> bool:
    """The projection and the dual step of N = md weights.

    A pass takes 3N + 1 products and at most M = N(b+1) comparisons; the sweep 4M products, and M log M
    comparisons for sorting; (18) 2N sums and no product.
    """
    d, m, _ = sizes(instance)
    N, b = d * m, int(instance["b"])
    M = N * (b + 1)
    one, sweep, dual = projected(d, m, b)
    passes = one.products == products * N + 1 and one.sums == 2 * (N - 1) and one.comparisons <= M
    sorting = M * ((M - 1).bit_length() if logarithm else 0) + M + 1
    sweeps = sweep.products == 4 * M and sweep.sums == 2 * M + 1 and sweep.comparisons <= sorting
    return passes and sweeps and dual.products == dual.comparisons == 0 and dual.sums == sums * N


def all_counts(instance: Instance) -> bool:
    """The formulas of all three steps against the counting implementations."""
    return exact_count(instance) and linear(instance)


def also(**wrong: Any) -> Callable[[Instance], bool]:
    """The same with an error in the linear steps."""
    return lambda instance: exact_count(instance) and linear(instance, **wrong)


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
            yield {"d": d, "m": m, "iterations": d % 3 + 1, "b": d % 4}


def three_costs(claim: Claim) -> Finding:
    """The printed O(n³), O(n), O(n), n weights of a kernel: products of the steps for larger and larger n."""
    sizes_of_kernels = (8, 16, 32, 64)
    counts: dict[str, list[float]] = {"a pass": [], "the sweep": [], "(18)": []}
    for n in sizes_of_kernels:
        one, sweep, dual = projected(n, 2, 1)
        counts["a pass"].append((one.products + one.sums + one.comparisons) / n)
        counts["the sweep"].append((sweep.products + sweep.sums + sweep.comparisons) / n)
        counts["(18)"].append(dual.sums / n)
    flat = all(abs(counts[name][-1] / counts[name][0] - 1) < 0.2 for name in ("a pass", "(18)"))
    rising = counts["the sweep"][-1] > 1.2 * counts["the sweep"][0]
    text = f"two kernels of n = {', '.join(map(str, sizes_of_kernels))} weights, b = 1: operations over n, "
    text += "; ".join(f"{name} {', '.join(f'{value:.3g}' for value in row)}" for name, row in counts.items())
    return Finding(ok=flat and rising, text=text)


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
    r"+\,\text{iterations}\cdot m(d^2+2d)\ \text{products};\quad N=md:\ 3N+1\ \text{products a pass},\ "
    r"4N(b+1)\ \text{for the sweep},\ 2N\ \text{sums for (18)}",
    words="the exact numbers of products and divisions of the proximal steps and of the projection of a "
    "layer of m kernels of d weights, and of sums of the dual step",
    holds=all_counts,
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
        instance={"d": 13, "m": 1, "iterations": 1, "b": 0},
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

*Projection and dual step.* A pass of the alternation over all $N=md$ weights takes $N$ divisions $V/\alpha$,
$2N$ products for $V^\top Q$ and $Q^\top Q$, one division, and at most $N(b+1)$ comparisons; the exact method
a division for each of $M=N(b+1)$ breakpoints, three products at each, and $O(M\log M)$ comparisons to sort
them. As $\alpha$ is shared they are a matter of the layer, not of a kernel. (18) is $2N$ additions.

*Hessian.* $\frac{d(d+1)}2$ products a patch, which the paper does not count. $\square$
""",
    checks=(
        by_hand(),
        on_all("counted against the formula", layers, which="corrected", kind="count"),
        Check(name="the linear steps", kind="count", run=three_costs),
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
            name="corrected: 2N products a pass",
            changes={"corrected": replace(CORRECTED, holds=also(products=2))},
        ),
        Mutation(
            name="corrected: N sums for the dual step",
            changes={"corrected": replace(CORRECTED, holds=also(sums=1))},
        ),
        Mutation(
            name="corrected: the sweep without sorting",
            changes={"corrected": replace(CORRECTED, holds=also(logarithm=False))},
        ),
        Mutation(
            name="counterexample: d = 2",
            changes={
                "counterexample": Counterexample(
                    instance={"d": 2, "m": 1, "iterations": 1, "b": 0}, shown="d = 2"
                )
            },
        ),
    ),
)
