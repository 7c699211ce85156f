r"""The norm of a convolution as an operator, against the Frobenius norm of its weights.

The constant ‖Θ̂‖_F of Theorem 1 is not one for a convolution: ones(3×3) has the Frobenius norm 3 and
multiplies an image of ones by almost 9. Three constants that hold for all strides, paddings and dilations are
computed from the kernel, a fourth and sharper one from its Fourier transform on a grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np

from refldnq.verify.arithmetic import EXACT, Arithmetic
from refldnq.verify.claims._examined import by_hand, refuted, survives
from refldnq.verify.claims._linear_layers import (
    convolution,
    integers,
    ones,
    overlap,
    overlap_formula,
    reshaped,
)
from refldnq.verify.claims._networks import certified
from refldnq.verify.claims._networks_fc import minimum
from refldnq.verify.claims._rational import exact
from refldnq.verify.claims.base import Check, Claim, Counterexample, Finding, Instance, Mutation, Statement
from refldnq.verify.falsifier import Space, arrays, instances

GRID = 64
"""Frequencies an axis; chosen here: the inflation is 1/(1 - π/32), 11%, for 3×3 kernels."""


def geometry(instance: Instance) -> dict[str, int]:
    """Stride, padding and dilation."""
    return {name: int(instance[name]) for name in ("stride", "padding", "dilation")}


def image_of(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """‖K * x‖ and ‖x‖."""
    x = arithmetic.array(instance["x"])
    T = arithmetic.array(convolution(instance["K"], x.shape[1:], **geometry(instance)))
    return arithmetic.frobenius(T @ x.ravel()), arithmetic.frobenius(x)


def by_overlap(instance: Instance, arithmetic: Arithmetic) -> Any:
    """√(c_h c_w) ‖K‖₂."""
    own = geometry(instance)
    counts = [
        overlap(n, k, own["stride"], own["padding"], own["dilation"])
        for n, k in zip(instance["x"].shape[1:], instance["K"].shape[2:], strict=True)
    ]
    count = arithmetic.sqrt(arithmetic.number(math.prod(counts)))
    return count * arithmetic.spectral(arithmetic.array(reshaped(instance["K"])))


def by_sums(instance: Instance, arithmetic: Arithmetic) -> Any:
    """√(‖T‖₁ ‖T‖_∞), from sums of magnitudes over the kernel."""
    K = abs(instance["K"])
    into, out = K.sum(axis=(0, 2, 3)).max(), K.sum(axis=(1, 2, 3)).max()
    return arithmetic.sqrt(arithmetic.number(into * out))


def by_taps(instance: Instance, arithmetic: Arithmetic) -> Any:
    """Σ ‖K_x‖₂ over the taps."""
    K = arithmetic.array(instance["K"])
    norms = [arithmetic.spectral(K[:, :, i, j]) for i, j in np.ndindex(K.shape[2:])]
    return sum(norms[1:], norms[0])


def printed(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """‖K * x‖ and ‖K‖_F ‖x‖."""
    left, size = image_of(instance, arithmetic)
    return left, arithmetic.frobenius(arithmetic.array(instance["K"])) * size


def corrected(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """‖K * x‖ and the least of the three constants times ‖x‖."""
    left, size = image_of(instance, arithmetic)
    least = minimum(by_overlap(instance, arithmetic), by_sums(instance, arithmetic), arithmetic)
    return left, minimum(least, by_taps(instance, arithmetic), arithmetic) * size


def kernel_only(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """‖K‖₂ ‖x‖: an error."""
    left, size = image_of(instance, arithmetic)
    return left, arithmetic.spectral(arithmetic.array(reshaped(instance["K"]))) * size


def row_sums(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """‖T‖_∞ alone: an error."""
    left, size = image_of(instance, arithmetic)
    return left, arithmetic.number(abs(instance["K"]).sum(axis=(1, 2, 3)).max()) * size


def counts(claim: Claim) -> Finding:
    """The overlap against its formula ⌈k·gcd(s, d)/s⌉."""
    total = equal = 0
    for k in range(1, 7):
        for s in range(1, 5):
            for d in range(1, 4):
                for p in range(3):
                    own, formula = overlap(d * (k - 1) + 1 + 5 * s, k, s, p, d), overlap_formula(k, s, d)
                    total += 1
                    equal += own == formula
                    if own > formula:
                        return Finding(
                            ok=False, text=f"k = {k}, s = {s}, d = {d}, p = {p}: {own} > {formula}"
                        )
    text = f"largest number of patches on a pixel <= ⌈k·gcd(s,d)/s⌉ in {total} geometries, equal in {equal}"
    return Finding(ok=equal > total // 2, text=text)


def fourier(K: Any, grid: int = GRID) -> float:
    """Max over a grid of ‖K̂(ω)‖₂, inflated by Bernstein's inequality, in float64."""
    w = 2 * np.pi * np.arange(grid) / grid
    kh, kw = K.shape[2:]
    a, b = np.exp(1j * np.outer(w, np.arange(kh))), np.exp(1j * np.outer(w, np.arange(kw)))
    transform = np.einsum("ocij,pi,qj->pqoc", K, a, b)
    largest = np.linalg.svd(transform, compute_uv=False)[..., 0].max()
    return float(largest / (1 - np.pi / grid * ((kh - 1) / 2 + (kw - 1) / 2)))


def tightness(claim: Claim) -> Finding:
    """Each constant over ‖T‖₂ on 7×7 maps, Gaussian kernels."""
    rng = np.random.default_rng(6001)
    names = ("Fourier", "√9·‖K‖₂", "taps", "√(l1·l∞)", "printed ‖K‖_F")
    rows = []
    for _ in range(20):
        K = rng.standard_normal((*rng.integers(2, 4, 2), 3, 3))
        norm = float(np.linalg.norm(convolution(K, (7, 7), padding=1), 2))
        wide = max(float(np.linalg.norm(convolution(K, (7, 7), padding=1, stride=2), 2)), norm)
        S, A = reshaped(K), np.abs(K)
        taps = sum(np.linalg.norm(K[:, :, i, j], 2) for i, j in np.ndindex(3, 3))
        sums = math.sqrt(A.sum((0, 2, 3)).max() * A.sum((1, 2, 3)).max())
        values = (fourier(K), 3 * np.linalg.norm(S, 2), taps, sums, np.linalg.norm(K))
        if min(values[:4]) < wide * (1 - 1e-12):
            return Finding(ok=False, text=f"a constant is below ‖T‖₂ = {wide}")
        rows.append([float(v) / norm for v in values])
    medians = {name: median(row[i] for row in rows) for i, name in enumerate(names)}
    below = sum(row[4] < 1 for row in rows)
    text = "median constant/‖T‖₂: " + ", ".join(f"{name} {value:.2f}" for name, value in medians.items())
    return Finding(
        ok=below > 0 and medians["Fourier"] < 1.5,
        text=f"{text}; the printed one is below ‖T‖₂ for {below} of 20 kernels",
        numbers=medians,
    )


def attained(claim: Claim) -> Finding:
    """Four equal kernels of one pixel: all three constants are the norm, 2."""
    assert claim.corrected is not None
    assert claim.corrected.sides is not None
    own = {"K": ones(4, 1, 1, 1), "x": ones(1, 1, 1), "stride": 1, "padding": 0, "dilation": 1}
    left, right = claim.corrected.sides(own, EXACT)
    return Finding(ok=left == right == 2, text=f"K = ones(4×1×1×1), one pixel: {left} = {right}")


def sizes(claim: Claim) -> Finding:
    """‖T‖₂ of ones(3×3) grows with the map towards 9."""
    kernel = np.ones((1, 1, 3, 3))
    own = {n: float(np.linalg.norm(convolution(kernel, (n, n), padding=1), 2)) for n in (3, 5, 8, 16)}
    text = "K = ones(3×3), ‖K‖_F = 3: ‖T‖₂ = " + ", ".join(
        f"{value:.2f} ({n}×{n})" for n, value in own.items()
    )
    return Finding(ok=3 < own[3] < own[5] < own[8] < own[16] < 9, text=text)


def cases() -> Iterator[Instance]:
    """Random kernels and images, several geometries."""
    rng = np.random.default_rng(6002)
    for k in range(60):
        c, out = rng.integers(1, 3, 2).tolist()
        K = integers(rng, (out, c, 2 + k % 2, 2 + k % 2)) + (1 if k % 4 else 0)
        K[0, 0, 0, 0] = K[0, 0, 1, 1] + 1
        x = exact(rng.integers(-2, 5, (c, 4, 5)))
        yield {"K": K, "x": x, "stride": 1 + k % 2, "padding": k % 3 // 2, "dilation": 1 + k % 5 // 4}


def space() -> Space:
    """3×3 kernels of one channel on 3×3 maps, padding 1."""

    def strategy() -> Any:
        from hypothesis import strategies as st

        one = st.just(1)
        kernels, maps = arrays((1, 1, 3, 3)), arrays((1, 3, 3))
        return instances(K=kernels, x=maps, stride=one, padding=one, dilation=one)

    return Space(strategy, fixed=("stride", "padding", "dilation"))


def example(size: int) -> Instance:
    """A kernel of ones on an image of ones, both of this size."""
    return {"K": ones(1, 1, size, size), "x": ones(1, size, size), "stride": 1, "padding": 1, "dilation": 1}


PRINTED = Statement(
    latex=r"\|K*x\|_F\le\|K\|_F\,\|x\|_F",
    words="the Frobenius norm of the weights bounds a convolution",
    sides=printed,
)

CORRECTED = Statement(
    latex=r"\|K*x\|_F\le\min\left\{\sqrt{c_hc_w}\,\|K\|_2,\ "
    r"\sqrt{\max_i\sum_{o,x}|K|\cdot\max_o\sum_{i,x}|K|},\ "
    r"\sum_x\|K_x\|_2\right\}\|x\|_F",
    words="three constants: overlap of patches, sums of magnitudes, norms of the taps",
    sides=corrected,
)

CLAIM = Claim(
    id="operator-conv",
    title="The operator norm of a convolution",
    source="Theorem 1, 'parameters' Frobenius Norm'",
    printed=PRINTED,
    verdict="false",
    reason="6 <= 4 for ones(2×2) on a 2×2 image of ones",
    corrected=CORRECTED,
    counterexample=Counterexample(
        instance=example(2),
        shown="K = ones(2×2), padding 1, x = ones(2×2): K*x is 4 in the middle, 2 at edges, 1 at corners, "
        "‖K*x‖² = 16 + 4·4 + 4·1 = 36; 6 <= ‖K‖_F·‖x‖_F = 2·2 = 4 is false; 6 <= √4·2·2 = 8 is true",
    ),
    proof=r"""
$T=K^\top P$ with the patch matrix $P$. (1) $\|Px\|^2=\sum_ic_ix_i^2$, $c_i$ the number of patches with pixel
$i$, at most $c_hc_w\le\prod\lceil k\gcd(s,d)/s\rceil$: along an axis a pixel $y$ is in patch $o$ at tap $i$
if $os-p+id=y$; the solutions $i$ in $0..k-1$ are congruent modulo $s/\gcd(s,d)$. (2)
$\|T\|_2^2\le\|T\|_1\|T\|_\infty$; a column of $T$ has every entry of a kernel's input channel at most once, a
row those of an output channel. (3) $T=\sum_xT_x$ over taps, each a shift and selection followed by $K_x$.

(4) Zero padding and stride are compressions of the convolution on $\mathbb Z^2$, so
$\|T\|_2\le\sup_\omega\|\hat K(\omega)\|_2$. For unit $u,v$ the centred $u^*\hat K(\omega)v$ is a
trigonometric polynomial of degrees $\frac{k_h-1}2,\frac{k_w-1}2$; by Bernstein's inequality its change
between grid points of distance $\frac{2\pi}N$ is at most $\frac\pi N(\frac{k_h-1}2+\frac{k_w-1}2)$ times its
maximum, so $\sup\le\max_{\text{grid}}/(1-\frac\pi N(\frac{k_h-1}2+\frac{k_w-1}2))$. $\square$
""",
    checks=(
        by_hand(),
        Check(name="patches on a pixel", kind="count", run=counts),
        Check(name="attained", kind="exact", run=attained),
        Check(name="larger maps", kind="float", run=sizes),
        Check(name="tightness, and the Fourier bound", kind="measured", run=tightness),
        refuted(space(), seed=6003, tries=400),
        survives(space(), seed=6004, tries=200),
        certified("balls: strides, paddings, dilations", cases),
    ),
    mutations=(
        Mutation(
            name="corrected: the kernel's operator norm alone",
            changes={"corrected": replace(CORRECTED, sides=kernel_only)},
        ),
        Mutation(name="corrected: row sums alone", changes={"corrected": replace(CORRECTED, sides=row_sums)}),
        Mutation(name="printed: three constants", changes={"printed": replace(PRINTED, sides=corrected)}),
        Mutation(
            name="counterexample: a kernel and an image of one pixel",
            changes={"counterexample": Counterexample(instance=example(1), shown="one pixel")},
        ),
    ),
)
