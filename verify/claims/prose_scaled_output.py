r"""Integers and a scale: weights are "calculated as integer", the layer output is multiplied by α afterwards.

True in the reals. In float64 the two orders of the products agree up to rounding only, not bit for bit, so a
program must compare them with a tolerance, for which a bound is proved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from refldnq.verify.claims._examined import on_all, stated
from refldnq.verify.claims._rational import draw, exact
from refldnq.verify.claims.base import Check, Claim, Finding, Instance, Mutation, Statement

UNIT = Fraction(1, 2**53)
"""The unit roundoff of float64."""


def commutes(instance: Instance) -> bool:
    """α(QᵀY) = (αQ)ᵀY."""
    alpha, Q, Y = (instance[name] for name in ("alpha", "Q", "Y"))
    return bool((alpha * (Q.T @ Y) == (alpha * Q).T @ Y).all())


def squared_scale(instance: Instance) -> bool:
    """With α twice: an error."""
    alpha, Q, Y = (instance[name] for name in ("alpha", "Q", "Y"))
    return bool((alpha * ((alpha * Q).T @ Y) == (alpha * Q).T @ Y).all())


def within(terms: Callable[[int], int]) -> Callable[[Instance], bool]:
    """A statement: in float64 they differ by at most 2γ α|Q|ᵀ|Y|, γ for `terms` of d roundings."""

    def holds(instance: Instance) -> bool:
        alpha, Q, Y = (instance[name] for name in ("alpha", "Q", "Y"))
        first, second = in_float(instance)
        count = terms(len(Q))
        limit = 2 * count * UNIT / (1 - count * UNIT) * alpha * (abs(Q).T @ abs(Y))
        return bool((abs(exact(first) - exact(second)) <= limit).all())

    return holds


def in_float(instance: Instance) -> tuple[Any, Any]:
    """Both orders in float64; the numbers of the instance are float64's."""
    alpha, Q, Y = float(instance["alpha"]), instance["Q"].astype(float), instance["Y"].astype(float)
    return alpha * (Q.T @ Y), (alpha * Q).T @ Y


def rationals() -> Iterator[Instance]:
    """Random rational inputs and scales, levels up to 4."""
    rng = np.random.default_rng(8101)
    for k in range(100):
        d, m, n = 1 + k % 4, 1 + k % 3, 1 + k % 2
        Q = exact(rng.integers(-1, 2, (d, m)) * 2 ** rng.integers(0, 3, (d, m)))
        yield {"alpha": abs(draw(rng, 1)[0]), "Q": Q, "Y": draw(rng, (d, n))}


def floats() -> Iterator[Instance]:
    """Gaussian inputs and random scales of float64, as the fractions they are."""
    rng = np.random.default_rng(8102)
    for _ in range(20):
        Q = exact(rng.integers(-1, 2, (8, 3)) * 2 ** rng.integers(0, 3, (8, 3)))
        yield {"alpha": exact(rng.uniform(0.01, 2)).item(), "Q": Q, "Y": exact(rng.standard_normal((8, 5)))}


def bitwise(claim: Claim) -> Finding:
    """How many entries are equal bit for bit."""
    limit = stated(claim, "corrected").holds
    assert limit is not None
    equal = total = 0
    worst = 0.0
    for instance in floats():
        first, second = in_float(instance)
        equal += int((first == second).sum())
        total += first.size
        worst = max(worst, float(np.abs(first - second).max()))
    text = f"float64: {equal} of {total} entries equal bit for bit, largest difference {worst:.1e}"
    return Finding(ok=0 < equal < 0.9 * total and 0 < worst < 1e-13, text=text)


PRINTED = Statement(
    latex=r"\text{stored and calculated as integer }(\pm1,2,\dots)\text{, with layer output multiplying by }"
    r"\alpha_l",
    words="read as: α(QᵀY) = (αQ)ᵀY",
    holds=commutes,
)

CORRECTED = Statement(
    latex=r"|\mathrm{fl}(\alpha(Q^\top Y))-\mathrm{fl}((\alpha Q)^\top Y)|"
    r"\le2\gamma_{d+1}\,\alpha|Q|^\top|Y|,\qquad\gamma_k=\frac{ku}{1-ku}",
    words="in floating-point numbers of unit roundoff u up to rounding only, and in general not bit for bit",
    holds=within(lambda d: d + 1),
)

CLAIM = Claim(
    id="prose-scaled-output",
    title="The scale times the output of the integers",
    source="Experimental Setup",
    printed=PRINTED,
    verdict="true",
    reason="an identity of the reals; in float64 it holds up to rounding",
    corrected=CORRECTED,
    proof=r"""
Entry by entry $\alpha\sum_iq_{ij}y_i=\sum_i(\alpha q_{ij})y_i$.

In floating-point numbers, products with $q=\pm2^k$ are exact (without underflow), in whatever order a sum of
$d$ terms is computed its error is at most $\gamma_{d-1}\sum|q_iy_i|$, and the product with $\alpha$ rounds
once more: $|\mathrm{fl}(\alpha(Q^\top Y))-\alpha Q^\top Y|\le\gamma_d\,\alpha|Q|^\top|Y|$. In the other order
$\alpha q$ is exact, each product $(\alpha q)y$ rounds once: $\gamma_d$, too. The stated $2\gamma_{d+1}$
leaves room for a rounded $\alpha q$, so for levels that are no powers of two. $\square$
""",
    checks=(
        on_all("rational layers", rationals),
        on_all("the bound for float64", floats, which="corrected"),
        Check(name="bit for bit", kind="float", run=bitwise),
    ),
    mutations=(
        Mutation(name="printed: the scale twice", changes={"printed": replace(PRINTED, holds=squared_scale)}),
        Mutation(
            name="corrected: bit for bit",
            changes={"corrected": replace(CORRECTED, holds=within(lambda d: 0))},
        ),
    ),
)
