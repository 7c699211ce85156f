r"""Softmax behind the last layer: no factor is needed, and the errors are even halved. True."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from refldnq.verify.arithmetic import Arithmetic, Ball, Floats, NotRationalError
from refldnq.verify.claims._examined import stated, survives
from refldnq.verify.claims._networks import certified
from refldnq.verify.claims._rational import draw, exact
from refldnq.verify.claims.base import Check, Claim, Finding, Instance, Mutation, Statement
from refldnq.verify.falsifier import Space, decide, instances, vectors


def exponential(x: Any, arithmetic: Arithmetic) -> Any:
    """eˣ; of fractions rational for x = 0 only."""
    if isinstance(arithmetic, Ball):
        return x.exp()
    if isinstance(arithmetic, Floats):
        return math.exp(min(x, 700.0))
    if x != 0:
        raise NotRationalError("the exponential of a rational number other than 0 is irrational")
    return arithmetic.number(1)


def softmax(z: Any, arithmetic: Arithmetic) -> Any:
    """e^z divided by its sum."""
    own = arithmetic.array(z)
    powers = np.array([exponential(v, arithmetic) for v in own], dtype=object)
    return powers / sum(powers[1:], powers[0])


def sides(instance: Instance, arithmetic: Arithmetic, factor: Fraction) -> tuple[Any, Any]:
    """‖softmax(z) - softmax(z')‖ and factor·‖z - z'‖."""
    p, q = softmax(instance["z"], arithmetic), softmax(instance["other"], arithmetic)
    gap = arithmetic.array(instance["z"] - instance["other"])
    return arithmetic.frobenius(p - q), arithmetic.number(factor) * arithmetic.frobenius(gap)


def with_factor(factor: Fraction) -> Any:
    """The two sides for a constant."""
    return lambda instance, arithmetic: sides(instance, arithmetic, factor)


def pairs() -> Iterator[Instance]:
    """Random pairs of logits."""
    rng = np.random.default_rng(6301)
    for k in range(150):
        z = draw(rng, 2 + k % 4, most=6, parts=4)
        step = draw(rng, len(z), most=3, parts=4 + k % 9)
        step[0] = step[0] or Fraction(1, 3)
        yield {"z": z, "other": z + step}


def sharp(claim: Claim) -> Finding:
    """At z = 0 with a small step (t, -t) the ratio tends to 1/2."""
    own = stated(claim, "corrected").sides
    assert own is not None
    ratios = []
    for t in (Fraction(1), Fraction(1, 10), Fraction(1, 100)):
        left, right = own({"z": exact([0, 0]), "other": exact([t, -t])}, Floats())
        ratios.append(float(left / right))
    known = decide(own, {"z": exact([0, 0]), "other": exact(["1/10", "-1/10"])})
    text = "z: (0, 0) → (t, -t), t = 1, 1/10, 1/100: left/right = " + ", ".join(f"{r:.5f}" for r in ratios)
    return Finding(
        ok=ratios[0] < ratios[1] < ratios[2] < 1 and ratios[2] > 0.999 and known is not False, text=text
    )


def in_balls(claim: Claim) -> Finding:
    """Both constants."""
    first = certified("", pairs).run(replace(claim, corrected=claim.printed))
    second = certified("", pairs).run(claim)
    return replace(
        second, ok=first.ok and second.ok, text=f"factor 1: {first.text}; factor 1/2: {second.text}"
    )


def space() -> Space:
    """Three classes."""
    return Space(lambda: instances(z=vectors(3), other=vectors(3)))


PRINTED = Statement(
    latex=r"\|\mathrm{softmax}(z)-\mathrm{softmax}(z')\|_2\le\|z-z'\|_2",
    words="softmax does not enlarge errors",
    sides=with_factor(Fraction(1)),
)

CORRECTED = Statement(
    latex=r"\|\mathrm{softmax}(z)-\mathrm{softmax}(z')\|_2\le\tfrac12\|z-z'\|_2",
    words="with the constant 1/2",
    sides=with_factor(Fraction(1, 2)),
)

CLAIM = Claim(
    id="operator-softmax",
    title="The Lipschitz constant of softmax",
    source="Theorem 1, applied to probabilities",
    printed=PRINTED,
    verdict="true",
    reason="the constant is 1/2",
    corrected=CORRECTED,
    proof=r"""
The Jacobian is $\mathrm{diag}(p)-pp^\top$, symmetric and positive semidefinite. Row $i$ has the diagonal
entry $p_i(1-p_i)$ and off-diagonal magnitudes that add up to $p_i(1-p_i)$; by Gershgorin its eigenvalues are
at most $2p_i(1-p_i)\le\frac12$. Integrate along the segment from $z$ to $z'$. Sharp at $z=0$ of two classes
in the direction $(1,-1)$. $\square$
""",
    checks=(
        Check(name="sharp", kind="float", run=sharp),
        survives(space(), which="printed", seed=6302, tries=200),
        survives(space(), seed=6303, tries=300),
        Check(name="balls: random pairs", kind="certified", run=in_balls),
    ),
    mutations=(
        Mutation(
            name="corrected: 2/5",
            changes={"corrected": replace(CORRECTED, sides=with_factor(Fraction(2, 5)))},
        ),
        Mutation(
            name="corrected: 3/5, which is not sharp",
            changes={"corrected": replace(CORRECTED, sides=with_factor(Fraction(3, 5)))},
        ),
        Mutation(
            name="printed: 1/10", changes={"printed": replace(PRINTED, sides=with_factor(Fraction(1, 10)))}
        ),
    ),
)
