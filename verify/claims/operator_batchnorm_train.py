r"""Batch normalization with the batch's own statistics: |γ|/√(v+ε) as its Lipschitz constant.

False: the variance moves with the input. The constant is |γ|/√ε, 316 for ε = 1e-5, which bounds nothing in
practice; so bounds are for evaluation mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from refldnq.layers import BatchNorm
from refldnq.verify.arithmetic import Arithmetic, Exact
from refldnq.verify.claims._examined import by_hand, refuted, survives
from refldnq.verify.claims._networks import certified
from refldnq.verify.claims._rational import exact
from refldnq.verify.claims.base import Check, Claim, Counterexample, Finding, Instance, Mutation, Statement
from refldnq.verify.falsifier import Space, instances, rationals, vectors


def normalized(z: Any, epsilon: Any, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """(z - mean)/√(v + ε), and √(v + ε), of one channel."""
    m = arithmetic.number(len(z))
    centred = z - sum(z[1:], z[0]) / m
    root = arithmetic.sqrt(arithmetic.squares(centred) / m + epsilon)
    return centred / root, root


def sides(instance: Instance, arithmetic: Arithmetic, constant: Any) -> tuple[Any, Any]:
    """‖y' - y‖ and constant·‖z' - z‖."""
    z, z_hat = arithmetic.array(instance["z"]), arithmetic.array(instance["z_hat"])
    epsilon = arithmetic.number(instance["epsilon"])
    (y, root), (y_hat, _) = normalized(z, epsilon, arithmetic), normalized(z_hat, epsilon, arithmetic)
    right = constant(root, epsilon, arithmetic) * arithmetic.frobenius(z_hat - z)
    return arithmetic.frobenius(y_hat - y), right


def printed(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """The scale of the reference batch, 1/√(v+ε)."""
    return sides(instance, arithmetic, lambda root, epsilon, a: 1 / root)


def corrected(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """1/√ε."""
    return sides(instance, arithmetic, lambda root, epsilon, a: 1 / a.sqrt(epsilon))


def half(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """Half of the constant: an error."""
    left, right = corrected(instance, arithmetic)
    return left, right / arithmetic.number(2)


def without_root(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """1 in place of 1/√ε: an error where ε < 1."""
    return sides(instance, arithmetic, lambda root, epsilon, a: a.number(1))


def approached(claim: Claim) -> Finding:
    """Small z attain the constant in the limit."""
    assert claim.corrected is not None
    assert claim.corrected.sides is not None
    ratios = []
    for p in (Fraction(3, 2), Fraction(11, 10), Fraction(101, 100)):
        # z = (t, -t) with √(t² + ε) rational: t = √ε (p² - 1)/(2p), here √ε = 1/10.
        t = (p * p - 1) / (2 * p) / 10
        own = {"z": exact([0, 0]), "z_hat": exact([t, -t]), "epsilon": Fraction(1, 100)}
        left, right = claim.corrected.sides(own, _Largest())
        ratios.append(left / right)
    text = "z: 0 → (t, -t), t → 0: left/right = " + ", ".join(f"{float(r):.5f}" for r in ratios)
    return Finding(ok=ratios[0] < ratios[1] < ratios[2] < 1 and float(ratios[2]) > 0.999, text=text)


class _Largest(Exact):
    """Fractions, with the largest magnitude for the norm: of (t, -t) it is the norm over √2."""

    def frobenius(self, A: Any) -> Any:
        return max(abs(v) for v in A.ravel())


def by_library(claim: Claim) -> Finding:
    """The formula against the package's layer in training mode."""
    rng = np.random.default_rng(6201)
    worst = 0.0
    for _ in range(10):
        x = rng.standard_normal((6, 1))
        layer = BatchNorm(1, eps=0.01)
        params = {
            "weight": np.ones(1), "bias": np.zeros(1), "running_mean": np.zeros(1), "running_var": np.ones(1)
        }  # fmt: skip
        y, _ = layer.forward(params, x, mode="train")
        own = (x - x.mean()) / np.sqrt(x.var() + 0.01)
        worst = max(worst, float(np.abs(y - own).max()))
    text = f"equal to the package's layer in 10 batches, largest difference {worst:.1e}"
    return Finding(ok=worst < 1e-13, text=text)


def useless(claim: Claim) -> Finding:
    """The usual ε gives 316; the ratio on random batches of size 1 is about 1."""
    rng = np.random.default_rng(6202)
    worst = 0.0
    for _ in range(500):
        z = rng.standard_normal(6)
        d = rng.standard_normal(6) * 10 ** rng.uniform(-3, 0)
        y, y_hat = ((v - v.mean()) / np.sqrt(v.var() + 1e-5) for v in (z, z + d))
        worst = max(worst, float(np.linalg.norm(y_hat - y) / np.linalg.norm(d)))
    text = (
        f"ε = 1e-5: constant {1e5**0.5:.1f}; largest ratio on 500 random batches of variance about 1: "
        f"{worst:.1f}"
    )
    return Finding(ok=worst < 1e5**0.5, text=text)


def batches() -> Iterator[Instance]:
    """Random batches of one channel."""
    rng = np.random.default_rng(6203)
    for k in range(120):
        z, z_hat = (exact(rng.integers(-9, 10, 2 + k % 4)) / (1 + k % 7) for _ in range(2))
        z_hat[0] = z[0] + 1
        yield {"z": z, "z_hat": z_hat, "epsilon": Fraction(1, 1 + k % 5)}


def space() -> Space:
    """Batches of two."""
    return Space(
        lambda: instances(z=vectors(2), z_hat=vectors(2), epsilon=rationals(4, (1, 4), least=1)),
        admits=lambda own: own["epsilon"] > 0,
    )


PRINTED = Statement(
    latex=r"\|y'-y\|\le\frac{|\gamma|}{\sqrt{v+\epsilon}}\|z'-z\|\quad\text{with batch statistics}",
    words="the scale of the reference batch bounds the change of its normalization",
    sides=printed,
)

CORRECTED = Statement(
    latex=r"\|y'-y\|\le\frac{|\gamma|}{\sqrt\epsilon}\|z'-z\|",
    words="only 1/√ε is a constant for all batches",
    sides=corrected,
)

CLAIM = Claim(
    id="operator-batchnorm-train",
    title="Batch normalization with batch statistics",
    source="Theorem 1, applied in training mode",
    printed=PRINTED,
    verdict="false",
    reason="the variance moves with the batch: the only constant is |γ|/√ε",
    corrected=CORRECTED,
    counterexample=Counterexample(
        instance={
            "z": exact(["4/3", "-4/3"] * 2),
            "z_hat": exact(["-3/4", "3/4"] * 2),
            "epsilon": Fraction(1),
        },
        shown="ε = 1, z = ±4/3 → ∓3/4, four entries: √(v+1) = 5/3 and 5/4, y = ±4/5 → ∓3/5; "
        "2·(4/5 + 3/5) = 14/5 <= 3/5·2·(4/3 + 3/4) = 5/2 is false; 14/5 <= 2·(4/3 + 3/4) = 25/6 is true",
    ),
    proof=r"""
Centring is a projection, of norm 1. For centred $u$ of $m$ entries, $g(u)=u/s$ with
$s=\sqrt{\|u\|^2/m+\epsilon}$ has the Jacobian $\frac1s\big(I-\frac{uu^\top}{ms^2}\big)$; its eigenvalues are
$\frac1s$ and $\frac1s(1-\frac{\|u\|^2}{ms^2})$, both in $[0,1/\sqrt\epsilon]$, as $\|u\|^2\le ms^2$ and
$s\ge\sqrt\epsilon$. The segment between two points stays in the space, so
$\|g(u')-g(u)\|\le\|u'-u\|/\sqrt\epsilon$; the scale $\gamma$ is a factor. At $u=0$ the Jacobian is
$I/\sqrt\epsilon$, so no smaller constant holds. $\square$
""",
    checks=(
        by_hand(),
        Check(name="the package's layer", kind="float", run=by_library),
        Check(name="approached", kind="exact", run=approached),
        Check(name="useless in practice", kind="measured", run=useless),
        refuted(space(), seed=6204, tries=800, seconds=4.0),
        survives(space(), seed=6205, tries=300),
        certified("balls: random batches", batches),
    ),
    mutations=(
        Mutation(
            name="corrected: half of the constant", changes={"corrected": replace(CORRECTED, sides=half)}
        ),
        Mutation(
            name="corrected: 1 in place of 1/√ε",
            changes={"corrected": replace(CORRECTED, sides=without_root)},
        ),
        Mutation(name="printed: 1/√ε", changes={"printed": replace(PRINTED, sides=corrected)}),
    ),
)
