r"""Average pooling: a layer without weights has no factor in Theorem 1.

True for average pooling, whose constant √(c_h c_w)/k is at most 1; 1/k for windows that do not overlap,
1/√(HW) for global pooling. (For max-pooling it is false.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from refldnq.layers import AvgPool2d
from refldnq.verify.arithmetic import EXACT, Arithmetic
from refldnq.verify.claims._examined import survives
from refldnq.verify.claims._linear_layers import average_pool, ones, overlap
from refldnq.verify.claims._networks import certified
from refldnq.verify.claims._rational import exact, squares
from refldnq.verify.claims.base import Check, Claim, Finding, Instance, Mutation, Statement
from refldnq.verify.falsifier import Space, instances, matrices


def sides(instance: Instance, arithmetic: Arithmetic, factor: Any) -> tuple[Any, Any]:
    """‖pool(x)‖ and factor·‖x‖; the pooling is linear, so x stands for a difference."""
    x, k, s = arithmetic.array(instance["x"]), int(instance["kernel"]), int(instance["stride"])
    pooled = arithmetic.array(average_pool(x.shape, k, s)) @ x.ravel()
    return arithmetic.frobenius(pooled), factor(x.shape, k, s, arithmetic) * arithmetic.frobenius(x)


def constant(size: tuple[int, int], kernel: int, stride: int, arithmetic: Arithmetic) -> Any:
    """√(c_h c_w)/k."""
    count = overlap(size[0], kernel, stride, 0) * overlap(size[1], kernel, stride, 0)
    return arithmetic.sqrt(arithmetic.number(count)) / arithmetic.number(kernel)


def printed(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """The factor 1."""
    return sides(instance, arithmetic, lambda size, k, s, a: a.number(1))


def sharper(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """The factor √(c_h c_w)/k."""
    return sides(instance, arithmetic, constant)


def one_window(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """1/k for overlapping windows: an error."""
    return sides(instance, arithmetic, lambda size, k, s, a: 1 / a.number(k))


def one_over_area(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """1/k²: an error."""
    return sides(instance, arithmetic, lambda size, k, s, a: 1 / a.number(k * k))


def attained(claim: Claim) -> Finding:
    """Constant windows attain 1/k without overlap, and 1/√(HW) of global pooling."""
    assert claim.corrected is not None
    assert claim.corrected.sides is not None
    rows = []
    for size, kernel in ((4, 2), (6, 3), (6, 6)):
        own = {"x": ones(size, size), "kernel": kernel, "stride": kernel}
        left, right = claim.corrected.sides(own, EXACT)
        rows.append((left, right, left == right == Fraction(size, kernel)))
    text = "images of ones, windows 2×2, 3×3, 6×6 of 4×4, 6×6, 6×6: " + ", ".join(
        f"{a} = {b}" for a, b, _ in rows
    )
    return Finding(ok=all(equal for *_, equal in rows), text=text)


def at_most_one(claim: Claim) -> Finding:
    """C <= k along each axis, so the constant is at most 1."""
    bad = [
        (size, k, s)
        for size in range(3, 12)
        for k in range(1, 5)
        for s in range(1, 5)
        if size >= k and overlap(size, k, s, 0) > k
    ]
    return Finding(ok=not bad, text="√(c_h c_w)/k <= 1 for sizes 3..11, windows and strides 1..4")


def by_library(claim: Claim) -> Finding:
    """The matrix against the package's layer."""
    rng = np.random.default_rng(6101)
    for _ in range(10):
        x = rng.integers(-8, 9, (1, 1, 6, 4)).astype(np.float64)
        y, _ = AvgPool2d(2, 2).forward({}, x)
        if (exact(y).ravel() != average_pool((6, 4), 2, 2) @ exact(x).ravel()).any():
            return Finding(ok=False, text="the pooling disagrees with the layer")
    return Finding(ok=True, text="equal to the package's layer on 10 images, bit for bit")


def images() -> Iterator[Instance]:
    """Random images, windows that overlap and that do not."""
    rng = np.random.default_rng(6102)
    for k in range(90):
        kernel, stride = ((2, 2), (2, 1), (3, 1), (3, 2))[k % 4]
        x = exact(rng.integers(-3, 9, (5, 5)))
        x[0, 0] += 20
        yield {"x": x, "kernel": kernel, "stride": stride}


def in_balls(claim: Claim) -> Finding:
    """Printed and sharper constant."""
    first = certified("", images).run(replace(claim, corrected=claim.printed))
    second = certified("", images).run(claim)
    return replace(
        second, ok=first.ok and second.ok, text=f"factor 1: {first.text}; √(c_h c_w)/k: {second.text}"
    )


def space() -> Space:
    """2×2 windows of stride 1 on 3×3 images."""

    def strategy() -> Any:
        from hypothesis import strategies as st

        return instances(x=matrices(3, 3), kernel=st.just(2), stride=st.just(1))

    return Space(strategy, fixed=("kernel", "stride"), admits=lambda own: bool(squares(own["x"])))


PRINTED = Statement(
    latex=r"\|\mathrm{avg}(x)-\mathrm{avg}(x')\|\le\|x-x'\|",
    words="an average pooling does not enlarge errors",
    sides=printed,
)

CORRECTED = Statement(
    latex=r"\|\mathrm{avg}(x)-\mathrm{avg}(x')\|\le\frac{\sqrt{c_hc_w}}k\|x-x'\|",
    words="with the constant √(c_h c_w)/k, 1/k without overlap, 1/√(HW) for a global pooling",
    sides=sharper,
)

CLAIM = Claim(
    id="operator-avgpool",
    title="The Lipschitz constant of average pooling",
    source="Theorem 1, applied to networks with pooling",
    printed=PRINTED,
    verdict="true",
    reason="the constant √(c_h c_w)/k is at most 1",
    corrected=CORRECTED,
    proof=r"""
The mean over a window of $k^2$ pixels satisfies $y_w^2\le\frac1{k^2}\sum_{i\in w}x_i^2$ (Cauchy and Schwarz).
Summing over windows counts a pixel at most $c_hc_w$ times: $\|y\|^2\le\frac{c_hc_w}{k^2}\|x\|^2$. A pixel is
in at most $k$ windows an axis, so the constant is at most 1. Equality without overlap: constant images.
Global pooling is one window of $HW$ pixels. $\square$
""",
    checks=(
        Check(name="the package's layer", kind="exact", run=by_library),
        Check(name="at most 1", kind="count", run=at_most_one),
        Check(name="attained", kind="exact", run=attained),
        survives(space(), which="printed", seed=6103, tries=200),
        survives(space(), seed=6104, tries=200),
        Check(name="balls: random images", kind="certified", run=in_balls),
    ),
    mutations=(
        Mutation(
            name="corrected: 1/k with overlap", changes={"corrected": replace(CORRECTED, sides=one_window)}
        ),
        Mutation(name="corrected: 1/k²", changes={"corrected": replace(CORRECTED, sides=one_over_area)}),
        Mutation(name="printed: 1/k", changes={"printed": replace(PRINTED, sides=one_window)}),
    ),
)
