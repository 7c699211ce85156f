r"""Algorithm 1, line 4: learn Θ^new by minimizing ‖f(Ŷ^l; Θ̄) - f(Y^l; Θ̄)‖², then Θ̄ ← Θ^new.

False as printed: both terms have the same weights, so all weights 0 are a minimizer. The second network must
be frozen at the original weights, and the assignment must not overwrite them. For l = L there is nothing to
learn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

from refldnq.verify.arithmetic import EXACT
from refldnq.verify.claims._examined import by_hand, on_all
from refldnq.verify.claims._networks import by_library, by_loops
from refldnq.verify.claims._networks_fc import activations
from refldnq.verify.claims._rational import exact, inner, squares
from refldnq.verify.claims.base import Check, Claim, Counterexample, Finding, Instance, Mutation, Statement
from refldnq.verify.reporting.values import as_text


def objective(instance: Instance, teacher: str) -> Any:
    """‖f(Ŷ; Θ) - f(Y; teacher)‖² at the instance's Θ."""
    student = activations(instance["Y_hat"], [instance["theta"]], EXACT)[-1]
    return squares(student - activations(instance["Y"], [instance[teacher]], EXACT)[-1])


def restores(instance: Instance, teacher: str) -> bool:
    """Whether a value of 0 means that the original output is restored."""
    return bool(objective(instance, teacher) > 0 or objective(instance, "bar") == 0)


def same_symbol(instance: Instance) -> bool:
    """As printed: the same weights in both terms."""
    return restores(instance, "theta")


def outputs(instance: Instance, teacher: str) -> list[tuple[Any, Any]]:
    """The student's and the teacher's outputs, by loops and by the package's layers in float64."""
    pairs = []
    for network in (by_loops, by_library):
        student = network(instance["Y_hat"], [instance["theta"]])
        pairs.append((student, network(instance["Y"], [instance[teacher]])))
    return pairs


def frozen(instance: Instance, *, teacher: str = "bar", factor: int = 1) -> bool:
    """With the teacher frozen at the original weights: the value is n ε̂², and 0 iff the output is restored.

    The mean squared final error ε̂² comes from two other evaluations of the networks.
    """
    value, n = objective(instance, "bar"), instance["Y"].shape[1]
    for student, first in outputs(instance, teacher):
        squared = sum((a - b) ** 2 for a, b in zip(student.ravel(), first.ravel(), strict=True)) / n
        if value != factor * n * squared or (value == 0) != bool((student == first).all()):
            return False
    return True


def overwritten(instance: Instance) -> bool:
    """The teacher after the assignment of line 4, which are the student's weights: an error."""
    return frozen(instance, teacher="theta")


def minimizer(claim: Claim) -> Finding:
    """Θ = wΣyŷ/Σŷ² minimizes the frozen objective of one weight w > 0 and inputs that are not negative."""
    assert claim.counterexample is not None
    assert claim.corrected is not None
    assert claim.corrected.holds is not None
    holds, rng = claim.corrected.holds, np.random.default_rng(4202)
    drawn = [
        {name: exact(rng.integers(1, 6, (1, n))) for name, n in (("Y", 3), ("Y_hat", 3), ("bar", 1))}
        for _ in range(40)
    ]
    count, first = 0, None
    for own in (claim.counterexample.instance, *drawn):
        Y, Y_hat, w = own["Y"], own["Y_hat"], own["bar"]
        best = w * inner(Y.ravel(), Y_hat.ravel()) / inner(Y_hat.ravel(), Y_hat.ravel())
        first = best[0, 0] if first is None else first
        there = {**own, "theta": best}
        least = objective(there, "bar")
        near = [
            objective({**own, "theta": best + step}, "bar")
            for step in (-1, Fraction(-1, 100), Fraction(1, 100), 1)
        ]
        bottom = best[0, 0].denominator
        dyadic = bottom & (bottom - 1) == 0  # float64 computes with those without rounding
        if min(near) <= least or (dyadic and not holds(there)):
            return Finding(ok=False, text=f"{as_text(there)} is no minimizer, or the value is another")
        count += 1
    text = f"Θ = {first} for the counterexample, of value 0; the formula on {count} pairs of inputs"
    return Finding(ok=first == Fraction(1, 2), text=text)


def cases() -> Iterator[Instance]:
    """Random inputs and weights, some of the latter 0 or restoring."""
    rng = np.random.default_rng(4201)
    for k in range(200):
        Y = exact(rng.integers(0, 5, (2, 2)))
        bar = exact(rng.integers(-3, 4, (2, 1)))
        theta = (0 * bar, bar, exact(rng.integers(-3, 4, (2, 1))))[k % 3]
        Y_hat = Y if k % 2 else exact(rng.integers(0, 5, (2, 2)))
        yield {"Y": Y, "Y_hat": Y_hat, "bar": bar, "theta": theta}


def useless(claim: Claim) -> Finding:
    """Θ = 0 has the value 0 as printed, for any Y and Ŷ; frozen, it has the value of the original output."""
    assert claim.printed.holds is not None
    count = wrong = 0
    for instance in cases():
        own = {**instance, "theta": 0 * instance["bar"]}
        original = squares(activations(own["Y"], [own["bar"]], EXACT)[-1])
        if objective(own, "theta") != 0 or objective(own, "bar") != original:
            return Finding(ok=False, text="the values at 0 are others")
        count += 1
        wrong += not claim.printed.holds(own)
    text = (
        f"Θ = 0 minimizes the printed objective for all {count} pairs of inputs, and loses the output in "
        f"{wrong}"
    )
    return Finding(ok=wrong > 0, text=text)


PRINTED = Statement(
    latex=r"\min_{\bar\Theta}\|f(\hat Y^l;\bar\Theta_{[l+1..L]})-f(Y^l;\bar\Theta_{[l+1..L]})\|_F^2"
    r"\quad\text{restores the output}",
    words="minimizing with the same weights in both terms brings the output back",
    holds=same_symbol,
)

CORRECTED = Statement(
    latex=r"\min_\Theta\|f(\hat Y^l;\Theta)-f(Y^l;\bar\Theta^{(0)}_{[l+1..L]})\|_F^2,\qquad"
    r"\bar\Theta^{(0)}\text{ original, frozen}",
    words="with the second network frozen at the original weights; the value is n times the squared final "
    "error, and 0 if and only if the original output is restored",
    holds=frozen,
)

CLAIM = Claim(
    id="algorithm1-line4",
    title="Algorithm 1, line 4",
    source="Algorithm 1, line 4",
    printed=PRINTED,
    verdict="false",
    reason="the same symbol in both terms: all weights 0 are a minimizer",
    corrected=CORRECTED,
    counterexample=Counterexample(
        instance={"Y": exact([[1]]), "Y_hat": exact([[2]]), "bar": exact([[1]]), "theta": exact([[0]])},
        shown="Y = 1, Ŷ = 2, original weight 1: Θ = 0 gives (0·2 - 0·1)² = 0, the minimum; the output 1 "
        "becomes 0. "
        "Frozen: (0·2 - 1·1)² = 1, and Θ = 1/2 is the minimizer",
    ),
    proof=r"""
With the same $\Theta$ in both terms the value at $\Theta=0$ is $\|0-0\|^2=0$, the least possible, for any
inputs. With the second term frozen the value is $\|f(\hat
Y^l;\Theta)-f(Y^l;\bar\Theta^{(0)})\|_F^2=n\,(\hat\varepsilon^L)^2$, where $\hat\varepsilon^L$ is the final
error with the remaining layers at $\Theta$; value 0 means that the original output is restored on the sample.
The text before the algorithm has it right: $\epsilon_{[l..L]}$ has $\bar\Theta^{new}$ in the first term only.
The printed assignment $\bar\Theta\leftarrow\bar\Theta^{new}$ would replace the frozen weights in the next
step; a copy of the original network is needed. For $l=L$ the set $[l+1..L]$ is empty. $\square$
""",
    checks=(
        by_hand(),
        on_all(
            "frozen teacher, against loops and the package's layers",
            cases,
            which="corrected",
        ),
        Check(name="the minimizer", kind="exact", run=minimizer),
        Check(name="the useless minimizer", kind="exact", run=useless),
    ),
    mutations=(
        Mutation(
            name="corrected: teacher overwritten",
            changes={"corrected": replace(CORRECTED, holds=overwritten)},
        ),
        Mutation(
            name="corrected: 2n in place of n",
            changes={"corrected": replace(CORRECTED, holds=partial(frozen, factor=2))},
        ),
        Mutation(
            name="corrected: the same symbol", changes={"corrected": replace(CORRECTED, holds=same_symbol)}
        ),
        Mutation(name="printed: frozen", changes={"printed": replace(PRINTED, holds=frozen)}),
    ),
)
