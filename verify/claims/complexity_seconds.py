r"""(15) "costs only a few seconds even if H is large": a claim about time, given as operations.

Empirical, and nothing depends on it: for the block of a layer, the side d is the number of weights of a
kernel, and d³/3 operations are few; for the Hessian of the whole layer, without the block structure, they are
not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

from refldnq.verify.claims.base import Check, Claim, Figure, Finding, Instance, Mutation, Statement
from refldnq.verify.claims.complexity import factorization

LAYERS = {
    "ResNet-20, 64 channels": (576, 64),
    "ResNet-18, 256 channels": (2304, 256),
    "ResNet-18, 512 channels": (4608, 512),
    "AlexNet, fc6": (9216, 4096),
}
"""Weights in one kernel and kernels of some layers."""

FEW = 3 * 10**11
"""Products that are a few seconds for one core: a machine that does 10¹¹ of them a second needs three."""


def quick(instance: Instance) -> bool:
    """Whether the factorization takes at most `FEW` products."""
    return factorization(int(instance["side"])) <= FEW


def counts(claim: Claim) -> Finding:
    """Products and memory, with the block structure and without."""
    quickly = claim.printed.holds
    assert quickly is not None
    blocks = {name: quickly({"side": d}) for name, (d, _) in LAYERS.items()}
    whole = {name: quickly({"side": d * m}) for name, (d, m) in LAYERS.items()}
    sides = tuple(float(d) for d, _ in LAYERS.values())
    figure = Figure(
        title="Products of the factorization",
        x="weights in one kernel",
        y="products",
        curves={
            "block": (sides, tuple(float(factorization(d)) for d, _ in LAYERS.values())),
            "whole layer": (sides, tuple(float(factorization(d * m)) for d, m in LAYERS.values())),
            "a few seconds": (sides, (float(FEW),) * len(sides)),
        },
        log="xy",
    )
    d, m = LAYERS["AlexNet, fc6"]
    memory = (8 * d**2, 8 * (d * m) ** 2)
    rows = "; ".join(f"{name}: {factorization(d):.1e}" for name, (d, _) in LAYERS.items())
    text = (
        f"products for a block: {rows}; fc6 without the block structure: {factorization(d * m):.1e} "
        "products and "
        f"{memory[1]:.1e} bytes, with it {memory[0]:.1e} bytes"
    )
    return Finding(
        ok=all(blocks.values()) and not any(list(whole.values())[1:]), text=text, figures=(figure,)
    )


def against_descent(claim: Claim) -> Finding:
    """A direct solution against gradient descent, in products: d³/6 + d² against d² a step."""
    d = 2304
    steps = Fraction(factorization(d), d * d)
    assert claim.printed.holds is not None
    ok = claim.printed.holds({"side": d}) and not claim.printed.holds({"side": 2 * 10**4})
    text = (
        f"d = {d}: the factorization costs as much as {float(steps):.0f} steps of gradient descent for one "
        "kernel"
    )
    return Finding(ok=ok, text=text)


def limit(most: Callable[[int], bool]) -> Statement:
    """The printed statement with another count."""
    return replace(PRINTED, holds=lambda instance: most(int(instance["side"])))


PRINTED = Statement(
    latex=r"\text{costs only a few seconds even if }H\text{ is large}",
    words="read as: the factorization for (15) takes at most 3·10¹¹ products, three seconds at 10¹¹ a second",
    holds=quick,
)

CLAIM = Claim(
    id="complexity-seconds",
    title="A few seconds even if H is large",
    source="after (15)",
    printed=PRINTED,
    verdict="empirical",
    reason="plausible for one block, 1e5 to 1e11 products; not for the Hessian of a whole layer",
    proof=r"""
The count of products is that of the claim on complexity. What a second is worth depends on the machine, so
the verdict is about counts: a block of side $d=2304$ takes $2\cdot10^9$ products, one of side 9216 takes
$1.3\cdot10^{11}$; the Hessian of AlexNet's fc6 without the block structure, side $3.8\cdot10^7$, takes
$9\cdot10^{21}$ products and $10^{16}$ bytes. "Large" must mean a large block.
""",
    checks=(
        Check(name="products of some layers", kind="count", run=counts),
        Check(name="beside gradient descent", kind="count", run=against_descent),
    ),
    mutations=(
        Mutation(name="d² products", changes={"printed": limit(lambda side: side**2 <= FEW)}),
        Mutation(name="d⁴ products", changes={"printed": limit(lambda side: side**4 <= FEW)}),
    ),
    gating=False,
)
