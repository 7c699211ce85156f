r"""(6): min over Θ̂ in Ω of ‖f(Ŷ^{l-1}; Θ̂) - f(Y^{l-1}; Θ̄)‖²: the divergence of the final outputs.

A definition. The quantized network has the cascade input Ŷ, the reference its own input Y. For scaled sets
and ReLU layers without biases the scales enter through their product only, so the minimum is attained and
found by trying all codes: for each a parabola in one number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from refldnq.verify.arithmetic import EXACT
from refldnq.verify.claims._examined import on_all, stated
from refldnq.verify.claims._networks import by_library, by_loops, networks, output, three_evaluations
from refldnq.verify.claims._rational import Exact, exact, inner, squares
from refldnq.verify.claims.base import Check, Claim, Finding, Instance, Mutation, Statement

Objective = Callable[[Instance, Any], Any]
"""The objective of (6) as a function of the instance and the quantized weights."""


def objective(instance: Instance, weights: Any) -> Any:
    """(6)."""
    difference = output(instance["Y_hat"], weights, EXACT) - output(instance["Y"], instance["bar"], EXACT)
    return squares(difference)  # [LDNQ] (6)


def same_input(instance: Instance, weights: Any) -> Any:
    """Both networks on Y: not (6)."""
    return objective({**instance, "Y_hat": instance["Y"]}, weights)


def updated_reference(instance: Instance, weights: Any) -> Any:
    """The updated network as the reference: not (6)."""
    return objective({**instance, "bar": instance["new"]}, weights)


def linear_layers(instance: Instance, weights: Any) -> Any:
    """No activations: not (6)."""
    quantized, reference = instance["Y_hat"], instance["Y"]
    for own, bar in zip(weights, instance["bar"], strict=True):
        quantized, reference = own.T @ quantized, bar.T @ reference
    return squares(quantized - reference)


def is_divergence(instance: Instance, *, value: Objective) -> bool:
    """Whether a formula is (6), by loops and by the package, and a parabola in the product of the scales."""
    quantized = by_loops(instance["Y_hat"], instance["hat"])
    reference = by_loops(instance["Y"], instance["bar"])
    layers = by_library(instance["Y_hat"], instance["hat"]) - by_library(instance["Y"], instance["bar"])
    scales = instance["scales"][: len(instance["hat"])]
    scaled = [alpha * Q for alpha, Q in zip(scales, instance["hat"], strict=True)]
    s = EXACT.product(scales)
    unit = {**instance, "Y": instance["Y_hat"], "bar": instance["hat"]}
    parabola = s * s * squares(quantized) - 2 * s * inner(quantized, reference) + squares(reference)
    return bool(
        value(instance, instance["hat"]) == squares(quantized - reference) == squares(layers)
        and value(instance, scaled) == parabola
        and value(unit, instance["hat"]) == 0
    )


def problems() -> Iterator[Instance]:
    """Random networks of halves of integers, with non-negative scales."""
    rng = np.random.default_rng(601)
    for instance in networks(602, 80, dyadic=True):
        yield {**instance, "scales": exact(rng.integers(0, 9, 3)) / 4}


def least(reference: Exact, quantized: Exact) -> Any:
    """The minimum over s >= 0 of ‖s·quantized - reference‖²."""
    top, bottom = inner(quantized, reference), squares(quantized)
    s = max(Fraction(0), top / bottom) if bottom else Fraction(0)
    return squares(s * quantized - reference)


def attained(claim: Claim) -> Finding:
    """All codes of two small layers: the least parabola vertex against many feasible points."""
    holds = stated(claim, "printed").holds
    assert holds is not None
    rng = np.random.default_rng(603)
    trials = 0
    for _ in range(6):
        Y, Y_hat = exact(rng.integers(-3, 4, (2, 2))), exact(rng.integers(-3, 4, (2, 2)))
        bar = (exact(rng.integers(-3, 4, (2, 1))), exact(rng.integers(-3, 4, (1, 1))))
        instance = {"Y": Y, "Y_hat": Y_hat, "bar": bar, "new": bar, "scales": exact([1, 1])}
        reference = output(Y, bar, EXACT)
        codes = [(exact([[a], [b]]), exact([[c]])) for a, b, c in product((-1, 0, 1), repeat=3)]
        minimum = min(least(reference, output(Y_hat, Q, EXACT)) for Q in codes)
        for _ in range(60):
            Q = codes[int(rng.integers(len(codes)))]
            scales = exact(rng.integers(0, 20, 2)) / 4
            trials += 1
            feasible = {**instance, "hat": Q, "scales": scales}
            if not (holds(feasible) and minimum <= objective(instance, [scales[0] * Q[0], scales[1] * Q[1]])):
                return Finding(ok=False, text=f"a feasible point lies below the minimum, trial {trials}")
    return Finding(
        ok=True, text=f"27 codes enumerated, 6 problems: none of {trials} feasible points is better"
    )


def _wrong(value: Objective) -> dict[str, Statement]:
    return {"printed": replace(PRINTED, holds=partial(is_divergence, value=value))}


PRINTED = Statement(
    latex=r"\min_{\hat\Theta_{[l,\dots,L]}\in\Omega_{[l,\dots,L]}}\|f(\hat Y^{l-1};\hat\Theta_{[l,\dots,L]})"
    r"-f(Y^{l-1};\bar\Theta_{[l,\dots,L]})\|_F^2",
    words="the squared distance of the final outputs is minimized over the quantized weights of layers l to "
    "L",
    holds=partial(is_divergence, value=objective),
)

CLAIM = Claim(
    id="eq06",
    title="The divergence of the final outputs",
    source="(6)",
    printed=PRINTED,
    verdict="true",
    reason="a definition; the minimum is attained",
    proof=r"""
(6) is a definition; what is to be shown is that the minimum exists. Let $\Omega_k=\{\alpha Q:\alpha\ge0\}$
with codes $Q$ from a finite set, ReLU layers, no biases. $\sigma(\alpha z)=\alpha\sigma(z)$ for $\alpha\ge0$,
so layer by layer
$$f(\hat Y;\alpha_lQ_l,\dots,\alpha_LQ_L)=s\,f(\hat Y;Q_l,\dots,Q_L),\qquad s=\prod_k\alpha_k.$$
For given codes the objective is $s^2\|F\|^2-2s\langle F,T\rangle+\|T\|^2$ with $F=f(\hat Y;Q)$ and the
reference output $T$: a convex parabola (or a constant) in $s\ge0$, which attains its minimum at
$s=\max(0,\langle F,T\rangle/\|F\|^2)$. The least of finitely many minima is the minimum. $\square$

Only the product of the scales is determined by (6); that each layer gets its own is the doing of (8) and
(10).
""",
    checks=(
        three_evaluations(604),
        on_all("the definition, and the parabola in the product of scales", problems),
        Check(name="the minimum is attained", kind="exact", run=attained),
    ),
    mutations=(
        Mutation(name="both networks on the same input", changes=_wrong(same_input)),
        Mutation(name="the updated network as the reference", changes=_wrong(updated_reference)),
        Mutation(name="no activations", changes=_wrong(linear_layers)),
    ),
)
