r"""The step of the proofs that they do not write down: ReLU does not enlarge differences. True."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from refldnq.verify.arithmetic import EXACT, Arithmetic
from refldnq.verify.claims._examined import on_all, survives
from refldnq.verify.claims._networks import certified
from refldnq.verify.claims._rational import draw
from refldnq.verify.claims.base import Check, Claim, Finding, Instance, Mutation, Statement
from refldnq.verify.falsifier import Space, arrays, instances


def sides(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """‖σ(a) - σ(b)‖ and ‖a - b‖."""
    a, b = arithmetic.array(instance["a"]), arithmetic.array(instance["b"])
    return arithmetic.frobenius(arithmetic.relu(a) - arithmetic.relu(b)), arithmetic.frobenius(a - b)


def slopes(instance: Instance) -> bool:
    """σ(a) - σ(b) = d(a - b) with d in [0, 1], entry by entry."""
    a, b = instance["a"], instance["b"]
    rise, run = EXACT.relu(a) - EXACT.relu(b), a - b
    return all(r == 0 if s == 0 else 0 <= r / s <= 1 for r, s in zip(rise.ravel(), run.ravel(), strict=True))


def leaky(instance: Instance) -> bool:
    """Slopes at least 1/10: an error."""
    a, b = instance["a"], instance["b"]
    rise, run = EXACT.relu(a) - EXACT.relu(b), a - b
    pairs = zip(rise.ravel(), run.ravel(), strict=True)
    return all(s == 0 or Fraction(1, 10) <= r / s <= 1 for r, s in pairs)


def half(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """Half of the right side: an error."""
    left, right = sides(instance, arithmetic)
    return left, right / arithmetic.number(2)


def pairs() -> Iterator[Instance]:
    """Random matrices, entries of both signs, some zero."""
    rng = np.random.default_rng(3001)
    for k in range(300):
        shape = (1 + k % 3, 1 + k % 4)
        yield {"a": draw(rng, shape, most=4, parts=3), "b": draw(rng, shape, most=4, parts=3)}


def mixed() -> Iterator[Instance]:
    """Those on which a ReLU clips, so that the sides differ."""
    for instance in pairs():
        a, b = instance["a"], instance["b"]
        if EXACT.squares(EXACT.relu(a) - EXACT.relu(b)) < EXACT.squares(a - b):
            yield instance


def other_activations(claim: Claim) -> Finding:
    """GELU and swish have slopes above 1: the theorems do not hold for them with the constant 1."""
    from mpmath import diff, erf, exp, mpf, sqrt

    gelu = diff(lambda x: x * (1 + erf(x / sqrt(2))) / 2, mpf("1.5"))
    swish = diff(lambda x: x / (1 + exp(-x)), mpf("2.5"))
    text = f"slope of GELU at 3/2: {float(gelu):.4f}, of swish at 5/2: {float(swish):.4f}; both above 1"
    return Finding(ok=bool(gelu > 1 and swish > 1), text=text)


def single() -> Iterator[Instance]:
    """Single entries, whose norms are rational."""
    rng = np.random.default_rng(3003)
    for _ in range(300):
        yield {"a": draw(rng, (1, 1), most=4, parts=3), "b": draw(rng, (1, 1), most=4, parts=3)}


def in_balls(claim: Claim) -> Finding:
    """`certified` for the printed statement, which needs no correction."""
    return certified("balls", mixed).run(replace(claim, corrected=claim.printed))


PRINTED = Statement(
    latex=r"\|\sigma(A)-\sigma(B)\|_F\le\|A-B\|_F,\qquad \sigma(a)-\sigma(b)=d\,(a-b),\ d\in[0,1]",
    words="ReLU is 1-Lipschitz in every entry; secant slopes lie between 0 and 1",
    holds=slopes,
    sides=sides,
)

CLAIM = Claim(
    id="proof-relu",
    title="ReLU does not enlarge differences",
    source="proofs of Theorems 1 and 2, unwritten",
    printed=PRINTED,
    verdict="true",
    reason="secant slopes of ReLU lie between 0 and 1",
    proof=r"""
If $a,b\ge0$ the slope is 1, if $a,b\le0$ it is 0. If $a>0>b$ then $\sigma(a)-\sigma(b)=a$ and $a-b=a+|b|$, so
$d=\frac a{a+|b|}\in(0,1)$; if $b>0>a$, exchange them. Hence $|\sigma(a)-\sigma(b)|\le|a-b|$, and summing
squares of entries gives the Frobenius norm. The same holds for all activations of slopes in $[-1,1]$, for
dropout in evaluation mode and for the identity of the last layer; not for GELU and swish, whose slopes
exceed 1. $\square$
""",
    checks=(
        on_all("single entries: norms and slopes", single),
        Check(name="GELU and swish", kind="float", run=other_activations),
        survives(Space(lambda: instances(a=arrays((2, 2)), b=arrays((2, 2)))), which="printed", seed=3002),
        Check(name="balls: pairs that ReLU clips", kind="certified", run=in_balls),
    ),
    mutations=(
        Mutation(name="slopes at least 1/10", changes={"printed": replace(PRINTED, holds=leaky)}),
        Mutation(name="half of the right side", changes={"printed": replace(PRINTED, sides=half)}),
    ),
)
