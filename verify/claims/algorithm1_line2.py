r"""Algorithm 1, line 2: "Calculate Hessian matrix H_l of layer l from Θ^new_l and X".

False: H_l = (2/n) Ŷ^{l-1} Ŷ^{l-1}ᵀ does not depend on Θ_l at all, and on X only through the layers quantized
before. It is computed from the inputs that the partially quantized network gives the layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from refldnq.verify.arithmetic import EXACT
from refldnq.verify.claims._examined import by_hand, on_all
from refldnq.verify.claims._networks_fc import activations
from refldnq.verify.claims._rational import Exact, exact, squares
from refldnq.verify.claims.base import Check, Claim, Counterexample, Finding, Instance, Mutation, Statement


def layer_input(instance: Instance, name: str) -> Exact:
    """Ŷ^1, the input of layer 2, behind a first layer with the weights of that name."""
    Y: Exact = activations(instance["X"], [instance[name]], EXACT)[-1]
    return Y


def measured_hessian(Y: Exact, W: Exact, at: Exact) -> Exact:
    """The Hessian of E(Θ) = (1/n) ‖(Θ - W)ᵀY‖², by second differences at Θ = `at`, of one neuron."""
    n, d = Y.shape[1], len(Y)
    step = exact(np.eye(d, dtype=int))

    def error(theta: Exact) -> Any:
        return squares((theta - W).T @ Y) / n  # [LDNQ] (8)

    H = exact(np.zeros((d, d), dtype=int))
    for i, j in np.ndindex(d, d):
        a, b = step[:, [i]], step[:, [j]]
        H[i, j] = error(at + a + b) - error(at + a) - error(at + b) + error(at)
    return H


def from_weights_and_images(instance: Instance) -> bool:
    """As printed, H_2 would be the same behind any first layer, as Θ_2 and X are."""
    hessians = [
        measured_hessian(layer_input(instance, name), instance["W"], instance["W"])
        for name in ("first", "other")
    ]
    return bool((hessians[0] == hessians[1]).all())


def from_inputs(instance: Instance, *, factor: int = 2, images: bool = False) -> bool:
    """H_2 = (factor/n) ŶŶᵀ at any weights; with `images` XXᵀ in place of ŶŶᵀ, an error."""
    Y = layer_input(instance, "first")
    own = instance["X"] if images else Y
    if len(own) != len(Y):
        return False
    expected = Fraction(factor, Y.shape[1]) * (own @ own.T)
    points = (instance["W"], instance["at"])
    return all(bool((measured_hessian(Y, instance["W"], at) == expected).all()) for at in points)


def samples() -> Iterator[Instance]:
    """Random layers behind random first layers."""
    rng = np.random.default_rng(4001)
    for k in range(60):
        d, n = 1 + k % 3, 1 + k % 4
        names = {"X": (2, n), "first": (2, d), "other": (2, d), "W": (d, 1), "at": (d, 1)}
        yield {name: exact(rng.integers(-4, 7, shape)) / 2 for name, shape in names.items()}


def dependence(claim: Claim) -> Finding:
    """How often two first layers give different Hessians for equal Θ and X."""
    holds = claim.printed.holds
    assert holds is not None
    own = list(samples())
    different = sum(not holds(instance) for instance in own)
    text = f"equal Θ₂ and X, another first layer: H₂ differs in {different} of {len(own)} cases"
    return Finding(ok=different > len(own) // 2, text=text)


PRINTED = Statement(
    latex=r"H_l=H_l(\bar\Theta_l^{new},X)",
    words="the Hessian of a layer is computed from its weights and the training images",
    holds=from_weights_and_images,
)

CORRECTED = Statement(
    latex=r"H_l=\tfrac2n\,I\otimes\hat Y^{l-1}\hat Y^{l-1\top},\qquad"
    r"\hat Y^{l-1}=f(X;\hat\Theta_{[1..l-1]})",
    words="the Hessian is computed from the inputs that the quantized layers give the layer, whatever its "
    "weights",
    holds=from_inputs,
)

EXAMPLE = Counterexample(
    instance={
        "X": exact([[1]]),
        "first": exact([[1]]),
        "other": exact([[2]]),
        "W": exact([[1]]),
        "at": exact([[3]]),
    },
    shown="X = 1, Θ₂ = 1; Ŵ₁ = 1 gives H₂ = 2·1² = 2, Ŵ₁ = 2 gives H₂ = 2·2² = 8",
)

CLAIM = Claim(
    id="algorithm1-line2",
    title="Algorithm 1, line 2",
    source="Algorithm 1, line 2",
    printed=PRINTED,
    verdict="false",
    reason="H does not depend on the weights of its layer, but on the layers quantized before: 2 against 8",
    corrected=CORRECTED,
    counterexample=EXAMPLE,
    proof=r"""
$E(\Theta)=\frac1n\|(\Theta-W)^\top\hat Y^{l-1}\|_F^2$ is a quadratic form in $\Theta-W$, so its second
derivative is the same at all $\Theta$ and for all $W$: $\frac2n\hat Y^{l-1}\hat Y^{l-1\top}$, one such block
a neuron. Its input is $\hat Y^{l-1}=f(X;\hat\Theta_{[1..l-1]})$; equal $\Theta_l$ and $X$ behind different
quantized layers give different Hessians. $\square$
""",
    checks=(
        by_hand(),
        on_all("second differences at two points", samples, which="corrected"),
        Check(name="other layers before", kind="exact", run=dependence),
    ),
    mutations=(
        Mutation(
            name="corrected: without the factor 2",
            changes={"corrected": replace(CORRECTED, holds=lambda own: from_inputs(own, factor=1))},
        ),
        Mutation(
            name="corrected: XXᵀ in place of ŶŶᵀ",
            changes={"corrected": replace(CORRECTED, holds=lambda own: from_inputs(own, images=True))},
        ),
        Mutation(
            name="counterexample: equal first layers",
            changes={
                "counterexample": replace(EXAMPLE, instance={**EXAMPLE.instance, "other": exact([[1]])})
            },
        ),
    ),
)
