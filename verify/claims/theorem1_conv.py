r"""Theorem 1 for convolutions: A as the Frobenius norm of the kernel's weights.

False even with the root in its place: a kernel is applied at many positions, which overlap. What passes on
errors is the norm of the convolution as an operator, at most √(c_h c_w) times the norm of the reshaped
kernel, where c is the largest number of patches along an axis that contain the same pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from refldnq.layers.conv import Conv2d
from refldnq.verify.arithmetic import EXACT, FLOAT, Arithmetic
from refldnq.verify.claims._examined import by_hand, refuted, survives
from refldnq.verify.claims._linear_layers import convolution, integers, ones, overlap, reshaped
from refldnq.verify.claims._networks import certified
from refldnq.verify.claims._networks_fc import forward, per_sample, propagated
from refldnq.verify.claims._rational import exact
from refldnq.verify.claims.base import Check, Claim, Counterexample, Finding, Instance, Mutation, Statement
from refldnq.verify.falsifier import Space, arrays, instances


def padding(K: Any) -> int:
    """Half of the kernel, so that maps keep their size; with a last kernel of 2×2 they grow by a pixel."""
    return int(K.shape[-1]) // 2


def operators(kernels: Any, size: tuple[int, int], arithmetic: Arithmetic) -> list[Any]:
    """The matrices W = Tᵀ of the convolutions."""
    return [arithmetic.array(convolution(K, size, padding=padding(K))).T for K in kernels]


def sides(instance: Instance, arithmetic: Arithmetic, factor: Any, *, scaled: str = "hat") -> tuple[Any, Any]:
    """ε̂^L and Σ_k (Π_{l>k} factor_l) e_k of a network of convolutions with ReLU; X is (n, c, h, w)."""
    X = instance["X"]
    n, size = len(X), X.shape[2:]
    Y0 = arithmetic.array(X.reshape(n, -1)).T
    bar, hat = (operators(instance[name], size, arithmetic) for name in ("bar", "hat"))
    Y, Y_hat = (forward(Y0, weights, arithmetic) for weights in (bar, hat))
    errors = [per_sample((W_hat - W).T @ y, n, arithmetic) for W_hat, W, y in zip(hat, bar, Y, strict=False)]
    factors = [arithmetic.number(0), *(factor(K, size, arithmetic) for K in instance[scaled][1:])]
    return per_sample(Y_hat[-1] - Y[-1], n, arithmetic), propagated(errors, factors)


def printed_factor(K: Any, size: tuple[int, int], arithmetic: Arithmetic) -> Any:
    """‖Θ̂‖_F."""
    return arithmetic.frobenius(arithmetic.array(reshaped(K)))


def corrected_factor(K: Any, size: tuple[int, int], arithmetic: Arithmetic) -> Any:
    """√(c_h c_w) ‖K‖₂."""
    counts = overlap(size[0], K.shape[2], 1, padding(K)) * overlap(size[1], K.shape[3], 1, padding(K))
    return arithmetic.sqrt(arithmetic.number(counts)) * arithmetic.spectral(arithmetic.array(reshaped(K)))


def kernel_factor(K: Any, size: tuple[int, int], arithmetic: Arithmetic) -> Any:
    """‖K‖₂ of the reshaped kernel: an error."""
    return arithmetic.spectral(arithmetic.array(reshaped(K)))


def fewer_factor(K: Any, size: tuple[int, int], arithmetic: Arithmetic) -> Any:
    """One patch an axis forgotten: an error."""
    count = overlap(size[0], K.shape[2], 1, padding(K)) - 1
    return arithmetic.number(count) * arithmetic.spectral(arithmetic.array(reshaped(K)))


def printed(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """With ‖Θ̂‖_F."""
    return sides(instance, arithmetic, printed_factor)


def corrected(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """With √(c_h c_w) ‖K‖₂."""
    return sides(instance, arithmetic, corrected_factor)


def by_original(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """With the kernels of the original network: an error."""
    return sides(instance, arithmetic, corrected_factor, scaled="bar")


def by_kernel(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """With ‖K‖₂: an error."""
    return sides(instance, arithmetic, kernel_factor)


def by_fewer(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """With too small an overlap: an error."""
    return sides(instance, arithmetic, fewer_factor)


def networks() -> Iterator[Instance]:
    """Random networks of convolutions, kernels of one sign more often than not, and images.

    Most quantized kernels are near the original ones; every fourth network's are drawn independently.
    """
    rng = np.random.default_rng(1301)
    for k in range(36):
        depth, channels = 2 + k % 2, rng.integers(1, 3, 5).tolist()
        bar, hat = [], []
        for c, out in pairwise(channels[: depth + 1]):
            K = integers(rng, (out, c, 3, 3), 4) + (2 if k % 3 else 0)
            bar.append(K / 4)
            hat.append((K + integers(rng, K.shape, 1)) / 4)
        if k % 4 == 3:  # far from the original network, some layer of which is 0
            hat = [(integers(rng, K.shape, 3) + 2) / 4 for K in bar]
            bar[1 + k // 4 % (depth - 1)] *= 0
        X = exact(rng.integers(0, 5, (2, channels[0], 3, 3))) / 2
        yield {"X": X, "bar": tuple(bar), "hat": tuple(hat)}


def by_library(claim: Claim) -> Finding:
    """The matrices T against the package's convolutions, on integers."""
    rng = np.random.default_rng(1302)
    for _ in range(20):
        c, out = rng.integers(1, 4, 2).tolist()
        K, x = integers(rng, (out, c, 3, 3)), integers(rng, (2, c, 5, 4))
        layer = Conv2d(c, out, 3, padding=1, bias=False)
        y, _ = layer.forward({"weight": K.astype(np.float64)}, x.astype(np.float64))
        own = (convolution(K, (5, 4), padding=1) @ x.reshape(2, -1).T).T
        if (own != exact(y).reshape(2, -1)).any():
            return Finding(ok=False, text="the matrix of a convolution disagrees with the layer")
    return Finding(
        ok=True, text="T vec(x) equals the package's convolution on 20 random kernels, bit for bit"
    )


def frequency(claim: Claim) -> Finding:
    """How often the printed form fails on kernels and images that are not negative."""
    rng = np.random.default_rng(1303)
    sides_of = claim.printed.sides
    assert sides_of is not None
    violated = count = 0
    for _ in range(20):
        bar = (integers(rng, (1, 1, 1, 1), 3) + 5, exact(rng.integers(1, 5, (1, 1, 3, 3))))
        hat = (bar[0] - 1, bar[1])
        X = exact(rng.integers(1, 5, (1, 1, 6, 6)))
        left, right = sides_of({"X": X, "bar": bar, "hat": hat}, FLOAT)
        count += 1
        violated += left > right * (1 + 1e-9)
    text = (
        f"positive kernels and images, only the first layer changed: printed form violated on {violated} of "
        f"{count}"
    )
    return Finding(ok=violated == count, text=text, numbers={"violated": violated, "networks": count})


def space() -> Space:
    """One channel, a 1×1 convolution and a 3×3 one, maps of 3×3."""

    def strategy() -> Any:
        from hypothesis import strategies as st

        kernels = st.tuples(arrays((1, 1, 1, 1)), arrays((1, 1, 3, 3)))
        return instances(X=arrays((1, 1, 3, 3)), bar=kernels, hat=kernels)

    return Space(strategy)


def approached(claim: Claim) -> Finding:
    """The constant is approached by constant kernels on large maps."""
    assert claim.corrected is not None
    assert claim.corrected.sides is not None
    rows = []
    for size in (3, 5, 8):
        left, right = claim.corrected.sides(constant(size, 3), EXACT)
        rows.append((left, right, left == 9 * size - 10 and right == 9 * size))
    text = "maps of ones, K = ones(3×3): ε̂ against the bound at sizes 3, 5, 8: "
    text += ", ".join(f"{left} <= {right}" for left, right, _ in rows) + "; the ratio (9N-10)/(9N) tends to 1"
    return Finding(ok=all(equal for _, _, equal in rows), text=text)


def constant(size: int, side: int) -> Instance:
    """An image of ones; the first layer 2 → 1 as a 1×1 convolution, then a kernel of ones."""
    kernel, one = ones(1, 1, side, side), ones(1, 1, 1, 1)
    return {"X": ones(1, 1, size, size), "bar": (2 * one, kernel), "hat": (one, kernel)}


PRINTED = Statement(
    latex=r"\hat\varepsilon^L\le\sum_k\Big(\prod_{l>k}\|\hat\Theta_l\|_F\Big)e_k\quad\text{for convolutions}",
    words="Theorem 1, root and errors repaired, with the Frobenius norm of the kernels",
    sides=printed,
)

CORRECTED = Statement(
    latex=r"\hat\varepsilon^L\le\sum_k\Big(\prod_{l>k}\|\hat T_l\|_2\Big)e_k,\qquad "
    r"\|T\|_2\le\sqrt{c_hc_w}\,\|K\|_2",
    words="the norm of the convolution as an operator; c is the largest number of patches on a pixel, per "
    "axis",
    sides=corrected,
)

EXAMPLE = Counterexample(
    instance=constant(2, 2),
    shown="2×2 image of ones, W₁ = 2, Ŵ₁ = 1 (1×1), then K = ones(2×2), padding 1: "
    "nε̂² = 4² + 4·2² + 4·1² = 36, ε̂ = 6 <= ‖K‖_F·√E¹ = 2·2 = 4 is false; 6 <= √4·2·2 = 8 is true",
)

CLAIM = Claim(
    id="theorem1-conv",
    title="Theorem 1 with convolutions",
    source="Theorem 1, applied to convolutional networks",
    printed=PRINTED,
    verdict="false",
    reason="the Frobenius norm of a kernel does not bound the convolution: 6 <= 4",
    corrected=CORRECTED,
    counterexample=EXAMPLE,
    proof=r"""
The proof of (P) uses of a layer only that it is linear up to ReLU, with an operator norm: so it holds with
the matrix $\hat T_l$ of the convolution, $\hat\varepsilon^l\le\|\hat T_l\|_2\hat\varepsilon^{l-1}+e_l$.

*The constant.* With the patch matrix $P$, one column of $Px$ a position, $T=K^\top P$ position by position,
so $\|Tx\|^2=\|K^\top\mathrm{patches}(x)\|_F^2\le\|K\|_2^2\,\|\mathrm{patches}(x)\|_F^2$. And
$\|\mathrm{patches}(x)\|_F^2=\sum_ic_ix_i^2$, where $c_i$ counts the patches that contain pixel $i$; the
largest count is $c_hc_w$, the product of the axes' counts, each at most $\lceil k\gcd(s,d)/s\rceil$ for
kernel $k$, stride $s$, dilation $d$. $\square$
""",
    checks=(
        by_hand(),
        Check(name="matrices of convolutions", kind="exact", run=by_library),
        Check(name="the constant is approached", kind="exact", run=approached),
        Check(name="positive kernels", kind="float", run=frequency),
        refuted(space(), seed=1304, tries=500),
        survives(space(), seed=1305, tries=200),
        certified("balls: random networks of convolutions", networks),
    ),
    mutations=(
        Mutation(
            name="corrected: the norm of the reshaped kernel",
            changes={"corrected": replace(CORRECTED, sides=by_kernel)},
        ),
        Mutation(
            name="corrected: the kernels of the original network",
            changes={"corrected": replace(CORRECTED, sides=by_original)},
        ),
        Mutation(
            name="corrected: one patch an axis too few",
            changes={"corrected": replace(CORRECTED, sides=by_fewer)},
        ),
        Mutation(name="printed: with the overlap", changes={"printed": replace(PRINTED, sides=corrected)}),
        Mutation(
            name="counterexample: one pixel",
            changes={
                "counterexample": replace(EXAMPLE, instance={**EXAMPLE.instance, "X": ones(1, 1, 1, 1)})
            },
        ),
    ),
)
