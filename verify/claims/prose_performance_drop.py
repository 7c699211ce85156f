r"""The "theoretical guarantee on the overall prediction performance": its drop is bounded by the errors.

False without an assumption on margins: an arbitrarily small output error can flip every label, and with a
ReLU in the last layer, as in the theorems, an output error of 0 can hide a flip of the logits. With margins
there is a bound.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from refldnq.verify.arithmetic import EXACT, Arithmetic
from refldnq.verify.claims._examined import brief, by_hand, on_all, refuted, survives
from refldnq.verify.claims._margins import batches, columns, label, margin, mean_square
from refldnq.verify.claims._networks_fc import per_sample
from refldnq.verify.claims._rational import exact
from refldnq.verify.claims.base import Check, Claim, Counterexample, Finding, Instance, Mutation, Statement
from refldnq.verify.falsifier import Space, instances, matrices, rationals


def drop(instance: Instance) -> Fraction:
    """How much accuracy is lost, the network's own labels taken as right: the share of changed labels."""
    pairs = columns(instance)
    changed = sum(label(exact(z)) != label(exact(z) + exact(e)) for z, e in pairs)
    return Fraction(changed, len(pairs))


def printed(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """The drop and the output error."""
    E = arithmetic.array(instance["E"])
    return arithmetic.number(drop(instance)), per_sample(E, E.shape[1], arithmetic)


def by_margin(instance: Instance, arithmetic: Arithmetic, *, factor: int = 2) -> tuple[Any, Any]:
    """The drop and Pr(margin <= m) + 2 ε̂²/m²."""
    m = Fraction(instance["m"])
    pairs = columns(instance)
    small = Fraction(sum(margin(exact(z)) <= m for z, _ in pairs), len(pairs))
    right = small + factor * mean_square(exact(instance["E"])) / m**2
    return arithmetic.number(drop(instance)), arithmetic.number(right)


def without_probability(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """2 ε̂²/m² alone: an error."""
    m = Fraction(instance["m"])
    right = 2 * mean_square(exact(instance["E"])) / m**2
    return arithmetic.number(drop(instance)), arithmetic.number(right)


def half_factor(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """ε̂²/m² without the 2: an error."""
    return by_margin(instance, arithmetic, factor=1)


def tuples() -> Iterator[Instance]:
    """Random batches with several m each."""
    rng = np.random.default_rng(5301)
    for instance in batches(5302, 300, classes=3, samples=6):
        yield {**instance, "m": Fraction(int(rng.integers(1, 12)), int(rng.integers(1, 4)))}


def attained(claim: Claim) -> Finding:
    """The bound is approached: margins 1, changes (-1/2, 1/2) and a little."""
    assert claim.corrected is not None
    assert claim.corrected.sides is not None
    near = {"Z": exact([[1], [0]]), "E": exact([["-1/2"], ["501/1000"]]), "m": Fraction(999, 1000)}
    left, right = claim.corrected.sides(near, EXACT)
    text = f"Z = (1, 0), E = (-1/2, 501/1000), m = 999/1000: drop {left} <= {right} = {float(right):.4f}"
    return Finding(ok=left <= right < Fraction(101, 100), text=text)


def hidden(claim: Claim) -> Finding:
    """ReLU in the last layer: output error 0, the logits' order exchanged."""
    Z, Z_hat = exact([[-1], [-2]]), exact([[-2], [-1]])
    outputs = EXACT.relu(Z_hat) - EXACT.relu(Z)
    before, after = label(Z[:, 0]), label(Z_hat[:, 0])
    text = (
        f"logits (-1, -2) → (-2, -1): ε̂ = {EXACT.frobenius(outputs)} behind a ReLU, label {before} → {after}"
    )
    return Finding(ok=EXACT.frobenius(outputs) == 0 and before != after, text=text)


def any_size(claim: Claim) -> Finding:
    """The drop is 1 at an error as small as one likes."""
    assert claim.printed.sides is not None
    ratios = []
    for t in (Fraction(1, 10), Fraction(1, 1000), Fraction(1, 10**6)):
        left, right = claim.printed.sides(tiny(t), EXACT)
        ratios.append(left / right)
    text = "logits (3t, -4t) moved by (-6t, 8t), t = 1/10, 1/1000, 1/1000000: drop/ε̂ = " + ", ".join(
        f"{float(r):.3g}" for r in ratios
    )
    return Finding(ok=ratios[0] < ratios[1] < ratios[2] and ratios[2] > 10**4, text=text)


def tiny(t: Fraction) -> Instance:
    """A change of norm 10t that exchanges the labels of logits (3t, -4t)."""
    return {"Z": exact([[3 * t], [-4 * t]]), "E": exact([[-6 * t], [8 * t]]), "m": t}


def space() -> Space:
    """One sample of two classes and a margin."""
    return Space(
        lambda: instances(
            Z=matrices(2, 1, rationals(4, (1, 8))),
            E=matrices(2, 1, rationals(4, (1, 8))),
            m=rationals(4, (1, 2, 4), least=1),
        ),
        admits=lambda own: own["m"] > 0 and own["Z"].any() and own["Z"][0, 0] != own["Z"][1, 0],
    )


def counted(claim: Claim) -> Finding:
    """Random batches: the drop against the best m."""
    assert claim.corrected is not None
    assert claim.corrected.sides is not None
    worst = Fraction(0)
    for instance in batches(5303, 60, classes=3, samples=8):
        margins = [margin(z) for z, _ in columns(instance)]
        bounds = []
        for m in sorted({v for v in margins if v > 0}):
            left, right = claim.corrected.sides({**instance, "m": m}, EXACT)
            bounds.append(right)
            if left > right:
                return Finding(ok=False, text=f"violated: {brief(instance)}")
        if bounds and min(bounds) > 0:
            worst = max(worst, left / min(bounds))
    return Finding(
        ok=True, text=f"60 batches of 8 samples, all margins as m: largest drop/bound {float(worst):.3f}"
    )


PRINTED = Statement(
    latex=r"\text{accuracy drop}\le c\,\hat\varepsilon^L\quad(c=1)",
    words="the performance drop is bounded by the final output error",
    sides=printed,
)

CORRECTED = Statement(
    latex=r"\text{accuracy drop}\le\min_{m>0}\Big[\Pr(\text{margin}\le "
    r"m)+\frac{2(\hat\varepsilon^L)^2}{m^2}\Big]",
    words="at most the share of margins up to m plus twice the squared output error over m squared",
    sides=by_margin,
)

CLAIM = Claim(
    id="prose-performance-drop",
    title="A guarantee on the prediction performance",
    source="Introduction; after Theorem 1",
    printed=PRINTED,
    verdict="false",
    reason="any output error, however small, can flip all labels; a bound needs margins",
    corrected=CORRECTED,
    counterexample=Counterexample(
        instance=tiny(Fraction(1, 1000)),
        shown="logits (3, -4)/1000, change (-6, 8)/1000: the label flips, drop 1 <= ε̂ = 1/100 is false; "
        "any constant c is refuted by smaller logits",
    ),
    proof=r"""
A label changes only if $\text{margin}_j\le\sqrt2\|e_j\|_2$ (the claim on output errors). So for any $m>0$ a
changed label has $\text{margin}_j\le m$ or $\|e_j\|_2>m/\sqrt2$; the share of the second is at most
$\frac{2}{m^2}\cdot\frac1n\sum_j\|e_j\|_2^2=2(\hat\varepsilon^L)^2/m^2$ by Markov's inequality. Accuracy with
respect to any labels drops by at most the share of changed labels. No constant $c$ can do: logits $(3t,-4t)$
and a change $(-6t,8t)$ have the drop 1 and the error $10t$.

With a ReLU in the last layer, as the theorems are stated, $\hat\varepsilon^L$ says nothing about negative
logits; the last layer must be taken without it, for which all bounds hold as well. $\square$
""",
    checks=(
        by_hand(),
        Check(name="any size", kind="exact", run=any_size),
        Check(name="ReLU in the last layer", kind="exact", run=hidden),
        on_all("margins and Markov", tuples, which="corrected"),
        Check(name="the best m", kind="exact", run=counted),
        Check(name="approached", kind="exact", run=attained),
        refuted(space(), seed=5304, tries=500),
        survives(space(), seed=5305, tries=400),
    ),
    mutations=(
        Mutation(
            name="corrected: without the margins",
            changes={"corrected": replace(CORRECTED, sides=without_probability)},
        ),
        Mutation(
            name="corrected: without the 2", changes={"corrected": replace(CORRECTED, sides=half_factor)}
        ),
        Mutation(name="printed: with margins", changes={"printed": replace(PRINTED, sides=by_margin)}),
        Mutation(
            name="counterexample: too small a change",
            changes={
                "counterexample": Counterexample(
                    instance={**tiny(Fraction(1, 1000)), "E": exact([["-3/1000"], ["4/1000"]])},
                    shown="no flip",
                )
            },
        ),
    ),
)
