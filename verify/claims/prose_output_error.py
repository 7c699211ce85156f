r"""Output error: "testing error is positively correlated with final output error".

Empirical, and no theorem: a larger output error can leave all labels as they are, a smaller one can flip
them. What is true is a statement with margins: the label stays if √2·‖e‖ is less than the margin.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from refldnq.verify.arithmetic import Arithmetic
from refldnq.verify.claims._examined import brief, by_hand, survives
from refldnq.verify.claims._margins import batches, columns, flips, label, margin
from refldnq.verify.claims._rational import exact, squares
from refldnq.verify.claims.base import (
    Check,
    Claim,
    Counterexample,
    Figure,
    Finding,
    Instance,
    Mutation,
    Statement,
)
from refldnq.verify.falsifier import Space, instances, matrices


def monotone(instance: Instance) -> bool:
    """Of two changes of the same logits the one of larger error has at least as many flips."""
    other = {"Z": instance["Z"], "E": instance["other"]}
    if squares(instance["E"]) < squares(instance["other"]):
        return sum(flips(instance)) <= sum(flips(other))
    return sum(flips(instance)) >= sum(flips(other))


def margin_of_flip(instance: Instance, arithmetic: Arithmetic, *, factor: int = 2) -> tuple[Any, Any]:
    """The largest margin/(√2 ‖e‖) of a sample whose label changes, as two sides; 0 and 0 if none does."""
    left = right = arithmetic.number(0)
    worst = Fraction(-1)
    for z, e in columns(instance):
        z, e = exact(z), exact(e)
        if label(z) == label(z + e):
            continue
        own, size = margin(z), factor * squares(e)
        if own**2 / size > worst:
            worst = own**2 / size
            left, right = arithmetic.number(own), arithmetic.sqrt(arithmetic.number(size))
    return left, right


def smaller_factor(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """‖e‖ without √2: an error."""
    return margin_of_flip(instance, arithmetic, factor=1)


def exactly(claim: Claim) -> Finding:
    """On squares: a flip means margin² <= 2‖e‖²; attained by equal and opposite changes."""
    sides = claim.corrected.sides if claim.corrected else None
    assert sides is not None
    count = flipped = 0
    for instance in batches(5201, 400):
        for z, e in columns(instance):
            count += 1
            if label(z) != label(z + e):
                flipped += 1
                if margin(z) ** 2 > 2 * squares(e):
                    return Finding(ok=False, text=f"violated: {brief(instance)}")
    sharp = {"Z": exact([[1], [0]]), "E": exact([["-1/2"], ["501/1000"]])}
    left, right = sides(sharp, _Roots())
    text = f"holds on {count} samples, {flipped} of them flipped; sharp: Z = (1, 0), E = (-1/2, 501/1000): "
    text += f"{left} <= {right} on squares"
    return Finding(ok=flipped > 0 and left**2 <= right and right / left**2 < Fraction(101, 100), text=text)


class _Roots(Arithmetic):
    """Fractions with the right side's root left undone."""

    def number(self, x: Any) -> Any:
        return Fraction(x)

    def sqrt(self, x: Any) -> Any:
        return x

    def maximum(self, x: Any, y: Any) -> Any:
        return max(x, y)

    def spectral(self, A: Any) -> Any:
        raise NotImplementedError


def ranks(values: Any) -> Any:
    """Ranks, equal values sharing their mean."""
    ordered = np.sort(values)
    low = np.searchsorted(ordered, values, "left")
    return (low + np.searchsorted(ordered, values, "right") - 1) / 2


def spearman(x: Any, y: Any) -> float:
    """The correlation of ranks."""
    return float(np.corrcoef(ranks(x), ranks(y))[0, 1])


def measured(claim: Claim) -> Finding:
    """Output error and share of changed labels: random changes of a network's weights, and chosen changes."""
    rng = np.random.default_rng(5202)
    X = rng.standard_normal((10, 1500))
    first, second = rng.standard_normal((24, 10)) * 0.4, rng.standard_normal((4, 24)) * 0.4
    Z = second @ np.maximum(first @ X, 0)
    order = np.sort(Z, axis=0)
    margins, labels = order[-1] - order[-2], Z.argmax(axis=0)

    def point(own: Any) -> tuple[float, float]:
        error = float(np.sqrt(np.mean(np.sum((own - Z) ** 2, axis=0))))
        return error, float(np.mean(own.argmax(axis=0) != labels))

    random = []
    for scale in np.geomspace(0.01, 3, 60):
        changed = first + scale * 0.4 * rng.standard_normal(first.shape)
        random.append(
            point((second + scale * 0.4 * rng.standard_normal(second.shape)) @ np.maximum(changed @ X, 0))
        )
    chosen = [point((1 + c) * Z) for c in np.linspace(0.2, 4, 20)]
    for quantile in np.linspace(0.02, 0.6, 20):
        own = Z.copy()
        j = np.flatnonzero(margins <= np.quantile(margins, quantile))
        own[labels[j], j] -= margins[j] * (1 + 1e-9)
        chosen.append(point(own))
    both = [tuple(map(tuple, zip(*sorted(points), strict=True))) for points in (random, chosen)]
    typical, constructed = (spearman(np.array(errors), np.array(changed)) for errors, changed in both)
    figure = Figure(
        title="Changed labels against output error",
        x="output error",
        y="share of changed labels",
        curves={
            "random changes of the weights": (both[0][0], both[0][1]),
            "scaled logits, and changes of the size of margins": (both[1][0], both[1][1]),
        },
        log="x",
    )
    text = (
        f"rank correlation over 60 random changes of a network {typical:.3f}; over 40 chosen changes "
        f"{constructed:.3f}"
    )
    return Finding(
        ok=typical > 0.8 and constructed < 0,
        text=text,
        numbers={"random": typical, "chosen": constructed},
        figures=(figure,),
    )


PRINTED = Statement(
    latex=r"\hat\varepsilon^L_A\ge\hat\varepsilon^L_B\ \Rightarrow\ \text{errors}_A\ge\text{errors}_B",
    words="a larger output error means at least as many test errors",
    holds=monotone,
)

CORRECTED = Statement(
    latex=r"\text{the label of sample }j\text{ changes}\ \Rightarrow\ \text{margin}_j\le\sqrt2\,\|e_j\|_2",
    words="a label can change only if its margin is at most √2 times the norm of the output's error",
    sides=margin_of_flip,
)

CLAIM = Claim(
    id="prose-output-error",
    title="Testing error is positively correlated with output error",
    source="Layer Output Error V.S. Performance, Figure 2(c)",
    printed=PRINTED,
    verdict="empirical",
    reason="seen for random changes, but no theorem: error 9 without a flip against 0.78 with one",
    corrected=CORRECTED,
    counterexample=Counterexample(
        instance={
            "Z": exact([[1], [0]]),
            "E": exact([[9], [0]]),
            "other": exact([["-3/5"], ["1/2"]]),
        },
        shown="logits (1, 0): (10, 0) has the error 9 and the same label; (2/5, 1/2) has the error "
        "√(9/25 + 1/4) = √(61/100) < 0.79 and another label",
    ),
    proof=r"""
Let $a$ be the label of $z$ and $b\ne a$ that of $z+e$. Then $z_a+e_a\le z_b+e_b$, so
$\text{margin}\le z_a-z_b\le e_b-e_a\le\sqrt2\,\|e\|_2$, the last by Cauchy and Schwarz with the vector of 1
and -1; it is an equality for $e=(-t,t)$. Hence a label is unchanged if $\sqrt2\|e\|_2<\text{margin}$. Without
margins nothing follows: scaling all logits by $c>1$ changes no label and has any output error; changes of the
size of the margins flip all labels at an error as small as these are. $\square$
""",
    checks=(
        by_hand(corrected=False),
        Check(name="margins", kind="exact", run=exactly),
        survives(Space(lambda: instances(Z=matrices(3, 1), E=matrices(3, 1))), seed=5203, tries=400),
        Check(name="correlations", kind="measured", run=measured),
    ),
    mutations=(
        Mutation(
            name="corrected: without √2", changes={"corrected": replace(CORRECTED, sides=smaller_factor)}
        ),
        Mutation(
            name="printed: always true",
            changes={"printed": replace(PRINTED, holds=lambda own: True)},
        ),
        Mutation(
            name="counterexample: exchanged",
            changes={
                "counterexample": Counterexample(
                    instance={
                        "Z": exact([[1], [0]]),
                        "E": exact([["-3/5"], ["1/2"]]),
                        "other": exact([["1/10"], [0]]),
                    },
                    shown="the larger error flips",
                )
            },
        ),
    ),
)
