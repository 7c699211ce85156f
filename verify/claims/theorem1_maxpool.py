r"""Theorem 1 for networks with max-pooling: a layer without weights has no factor in (19).

False for overlapping windows: one pixel can be the maximum of several windows, so the pooling has a Lipschitz
constant √(c_h c_w), which is attained. Windows that do not overlap have the constant 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from refldnq.layers import MaxPool2d
from refldnq.verify.arithmetic import EXACT, Arithmetic
from refldnq.verify.claims._examined import by_hand, refuted, survives
from refldnq.verify.claims._linear_layers import max_pool, overlap
from refldnq.verify.claims._networks import certified
from refldnq.verify.claims._rational import exact
from refldnq.verify.claims.base import Check, Claim, Counterexample, Finding, Instance, Mutation, Statement
from refldnq.verify.falsifier import Space, instances, matrices, rationals


def sides(instance: Instance, arithmetic: Arithmetic, factor: Any) -> tuple[Any, Any]:
    """ε̂ after a 1×1 convolution w → ŵ, ReLU and pooling, and factor·√E¹; one image X (h, w)."""
    X, kernel, stride = arithmetic.array(instance["X"]), int(instance["kernel"]), int(instance["stride"])
    w, w_hat = (arithmetic.number(instance[name]) for name in ("w", "w_hat"))
    size = X.shape
    Y, Y_hat = (
        max_pool(arithmetic.relu(v * X).ravel(), size, kernel, stride, arithmetic) for v in (w, w_hat)
    )
    error = arithmetic.frobenius((w_hat - w) * X)
    return arithmetic.frobenius(Y_hat - Y), factor(size, kernel, stride, arithmetic) * error


def constant(size: tuple[int, int], kernel: int, stride: int, arithmetic: Arithmetic) -> Any:
    """√(c_h c_w)."""
    counts = overlap(size[0], kernel, stride, 0) * overlap(size[1], kernel, stride, 0)
    return arithmetic.sqrt(arithmetic.number(counts))


def printed(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """No factor."""
    return sides(instance, arithmetic, lambda size, k, s, a: a.number(1))


def corrected(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """The factor √(c_h c_w)."""
    return sides(instance, arithmetic, constant)


def windows_ratio(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """k/s in place of the overlap, 3/2 of a 3×3/2 pooling: an error."""
    return sides(instance, arithmetic, lambda size, k, s, a: a.number(k) / a.number(s))


def peak(size: int, kernel: int, stride: int) -> Instance:
    """An image that is 0 but for one pixel in the middle, halved by the quantization."""
    X = exact(np.zeros((size, size), dtype=int))
    X[size // 2, size // 2] = exact(1).item()
    return {"X": X, "w": exact(1).item(), "w_hat": exact("1/2").item(), "kernel": kernel, "stride": stride}


def attained(claim: Claim) -> Finding:
    """One pixel attains the constant: 1, 2 and 3 for 2×2/2, 3×3/2 and 3×3/1 windows."""
    assert claim.corrected is not None
    assert claim.corrected.sides is not None
    rows = []
    for size, kernel, stride, constant in ((4, 2, 2, 1), (5, 3, 2, 2), (5, 3, 1, 3)):
        left, right = claim.corrected.sides(peak(size, kernel, stride), EXACT)
        rows.append((left, right, left == right == exact("1/2").item() * constant))
    text = "one pixel 1 → 1/2 under 2×2/2, 3×3/2, 3×3/1: " + ", ".join(f"{a} = {b}" for a, b, _ in rows)
    return Finding(ok=all(equal for _, _, equal in rows), text=text)


def by_library(claim: Claim) -> Finding:
    """The pooling against the package's layer."""
    rng = np.random.default_rng(1401)
    for _ in range(20):
        x = rng.integers(-9, 10, (1, 1, 7, 5)).astype(np.float64)
        y, _ = MaxPool2d(3, 2).forward({}, x)
        if (exact(y).ravel() != max_pool(exact(x).ravel(), (7, 5), 3, 2, EXACT)).any():
            return Finding(ok=False, text="the pooling disagrees with the layer")
    return Finding(ok=True, text="equal to the package's layer on 20 images")


def pairs() -> Iterator[Instance]:
    """Random images under overlapping windows; the error is spread, so no side is attained."""
    rng = np.random.default_rng(1402)
    for k in range(120):
        X = exact(rng.integers(-3, 10, (5, 5))) / 2
        w, d = exact(rng.integers(1, 9)).item(), exact(rng.integers(1, 4)).item()
        kernel, stride = ((3, 2), (3, 1), (2, 1))[k % 3]
        yield {"X": X, "w": w / 4, "w_hat": (w + d) / 4, "kernel": kernel, "stride": stride}


def space() -> Space:
    """3×3 windows of stride 2 on 5×5 images."""

    def strategy() -> Any:
        from hypothesis import strategies as st

        return instances(
            X=matrices(5, 5, rationals(2, (1,))),
            w=rationals(),
            w_hat=rationals(),
            kernel=st.just(3),
            stride=st.just(2),
        )

    return Space(strategy, fixed=("kernel", "stride"))


PRINTED = Statement(
    latex=r"\hat\varepsilon^2\le\sqrt{E^1}\quad\text{for layer 1 and a max-pooling}",
    words="Theorem 1, with no factor for a layer without weights",
    sides=printed,
)

CORRECTED = Statement(
    latex=r"\hat\varepsilon^2\le\sqrt{c_hc_w}\,\sqrt{E^1}",
    words="with the root of the largest number of windows that contain a pixel",
    sides=corrected,
)

CLAIM = Claim(
    id="theorem1-maxpool",
    title="Theorem 1 with max-pooling",
    source="Theorem 1, applied to networks with pooling",
    printed=PRINTED,
    verdict="false",
    reason="overlapping windows repeat an error: 1 <= 1/2",
    corrected=CORRECTED,
    counterexample=Counterexample(
        instance=peak(3, 2, 1),
        shown="3×3 image, 1 in the middle, 0 else; W = 1, Ŵ = 1/2; pooling 2×2, stride 1: the pixel is in 4 "
        "windows, "
        "ε̂ = √(4·1/4) = 1 <= √E¹ = 1/2 is false; 1 <= 2·1/2 is true",
    ),
    proof=r"""
Let $|y_w-y'_w|=|\max_{i\in w}x_i-\max_{i\in w}x'_i|\le\max_{i\in w}|x_i-x'_i|$, hence
$|y_w-y'_w|^2\le\sum_{i\in w}|x_i-x'_i|^2$. Summing over windows counts pixel $i$ as often as windows contain
it, at most $c_hc_w$ times: $\|y-y'\|^2\le c_hc_w\|x-x'\|^2$. Equality: a single non-zero pixel in $c_hc_w$
windows. For $k\le s$ the constant is 1, for $3\times3$ windows of stride 2 it is 2, of stride 1 it is 3. ReLU
in front has the constant 1, and layer 1 contributes $\sqrt{E^1}$. $\square$
""",
    checks=(
        by_hand(),
        Check(name="the package's layer", kind="exact", run=by_library),
        Check(name="attained", kind="exact", run=attained),
        refuted(space(), seed=1403, tries=600, seconds=4.0),
        survives(space(), seed=1404, tries=200),
        certified("balls: random images", pairs),
    ),
    mutations=(
        Mutation(name="corrected: no factor", changes={"corrected": replace(CORRECTED, sides=printed)}),
        Mutation(name="corrected: k/s", changes={"corrected": replace(CORRECTED, sides=windows_ratio)}),
        Mutation(
            name="counterexample: windows that do not overlap",
            changes={"counterexample": Counterexample(instance=peak(4, 2, 2), shown="2×2, stride 2")},
        ),
    ),
)
