r"""Theorem 1 for Algorithm 1 as it is run: between two quantizations the other weights are updated.

False: E^l is measured against the updated weights Θ^new, so an update may remove all layer errors and still
carry the output anywhere. The effect U_l of the updates on the output belongs into the bound; it can be
measured, and with it the final error is at most D_{L-1} + √E^L.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from refldnq.verify.arithmetic import EXACT, FLOAT, Arithmetic
from refldnq.verify.claims._examined import by_hand, refuted, survives
from refldnq.verify.claims._networks import certified
from refldnq.verify.claims._networks_fc import (
    activations,
    bounded_by,
    final_error,
    frobenius,
    minimum,
    per_sample,
    random_networks,
    scalars,
)
from refldnq.verify.claims._rational import exact
from refldnq.verify.claims.base import Check, Claim, Counterexample, Finding, Instance, Mutation, Statement
from refldnq.verify.falsifier import Space, instances, matrices

HALF, TENTH = Fraction(1, 2), Fraction(1, 10)


def current(instance: Instance, l: int) -> list[Any]:  # noqa: E741 - the paper's symbol
    """The weights after step l: hat up to l, then what the l updates of ``steps`` have made of the others."""
    weights = [*instance["hat"][:l], *instance["bar"][l:]]
    for step in range(1, l + 1):
        for k in range(l, len(weights)):
            weights[k] = weights[k] + instance["steps"][step - 1][k]
    return weights


def flattened(instance: Instance) -> dict[str, Any]:
    """The instance with ``new``: the weights W_k^{(k-1)} that step k quantizes."""
    new = tuple(current(instance, k)[k] for k in range(len(instance["bar"])))
    return {**instance, "new": new}


def printed(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """Theorem 1, root repaired, with E^l of (8) against the updated weights."""
    own = bounded_by(cascade=True, weights="hat", norm=frobenius, reference="new")
    return own(flattened(instance), arithmetic)


def terms(instance: Instance, arithmetic: Arithmetic, *, updates: bool = True) -> tuple[Any, Any, Any]:
    """ε̂^L, Σ_l (Π_{k>l} ‖W_k^{(l-1)}‖ √E^l + U_l), and D_{L-1} + √E^L."""
    depth, n = len(instance["bar"]), instance["X"].shape[1]
    first = activations(instance["X"], instance["bar"], arithmetic)[-1]
    total = arithmetic.number(0)
    before = distance = arithmetic.number(0)
    for l in range(1, depth + 1):  # noqa: E741
        weights = current(instance, l - 1)
        Y = activations(instance["X"], weights[: l - 1], arithmetic)[-1]
        difference = arithmetic.array(instance["hat"][l - 1] - weights[l - 1])
        root = per_sample(difference.T @ Y, n, arithmetic)  # [LDNQ] (8)
        factors = [arithmetic.spectral(arithmetic.array(W)) for W in weights[l:]]
        total = total + arithmetic.product(factors) * root
        quantized = [*weights[: l - 1], instance["hat"][l - 1], *weights[l:]]
        between = activations(instance["X"], quantized, arithmetic)[-1]
        after = activations(instance["X"], current(instance, l), arithmetic)[-1]
        before, distance = distance, per_sample(after - first, n, arithmetic)
        if updates:
            total = total + per_sample(after - between, n, arithmetic)
    return distance, total, before + root


def corrected(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """ε̂^L and the smaller of the two bounds."""
    left, total, last = terms(instance, arithmetic)
    return left, minimum(total, last, arithmetic)


def summed(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """The sum over all layers alone."""
    left, total, _ = terms(instance, arithmetic)
    return left, total


def without_updates(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """The sum without the effect of the updates: an error."""
    left, total, _ = terms(instance, arithmetic, updates=False)
    return left, total


def last_layer_only(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """√E^L without D_{L-1}: an error."""
    left, _, _ = terms(instance, arithmetic)
    n = instance["X"].shape[1]
    weights = current(instance, len(instance["bar"]) - 1)
    Y = activations(instance["X"], weights[:-1], arithmetic)[-1]
    return left, per_sample(arithmetic.array(instance["hat"][-1] - weights[-1]).T @ Y, n, arithmetic)


def runs() -> Iterator[Instance]:
    """Random runs of Algorithm 1, depths 2 to 5, with random updates; no ball decides equal sides."""
    rng = np.random.default_rng(1201)
    for instance in random_networks(1202, 200, depths=(2, 3, 4, 5), most=3):
        shapes = [W.shape for W in instance["bar"]]
        steps = tuple(tuple(exact(rng.integers(-2, 3, shape)) / 8 for shape in shapes) for _ in shapes[1:])
        zero = tuple(exact(np.zeros(shape, dtype=int)) for shape in shapes)
        run = {**instance, "steps": (*steps, zero)}
        left, right = corrected(run, FLOAT)
        if left < right * (1 - 1e-12):
            yield run


def space(depth: int, width: int) -> Space:
    """Networks with one set of updates for each step."""

    def strategy() -> Any:
        from hypothesis import strategies as st

        weights = st.tuples(*[matrices(width, width)] * depth)
        return instances(X=matrices(width, 1), bar=weights, hat=weights, steps=st.tuples(*[weights] * depth))

    return Space(strategy)


def no_update(claim: Claim) -> Finding:
    """Without updates the bound is (C) of Theorem 1, with equal numbers."""
    assert claim.corrected is not None
    assert claim.corrected.sides is not None
    still = scalars((1, 1), (HALF, HALF))
    zero = {**still, "steps": (tuple(exact([[0]]) for _ in range(2)),) * 2}
    left, right = claim.corrected.sides(zero, EXACT)
    other = bounded_by(cascade=True, weights="bar")(still, EXACT)
    ok = (left, right) == other and left == final_error(still, EXACT)
    return Finding(ok=ok, text=f"W = (1, 1), Ŵ = (1/2, 1/2), no update: {left} <= {right}, as in (C)")


def updated_scalars(bar: tuple[Any, ...], hat: tuple[Any, ...], step: Any) -> Instance:
    """Two layers of one neuron; after step 1 the second weight changes by `step`."""
    steps = ((exact([[0]]), exact([[step]])), (exact([[0]]), exact([[0]])))
    return {**scalars(bar, hat), "steps": steps}


PRINTED = Statement(
    latex=r"\hat\varepsilon^L\le\sum_{k=1}^L\Big(\prod_{l=k+1}^L\|\hat W_l\|_F\Big)\sqrt{E^k},\qquad "
    r"E^k=\tfrac1n\|(\hat W_k-\bar W_k^{new})^\top\hat Y^{k-1}\|_F^2",
    words="Theorem 1 with the layer errors of the algorithm, which are taken against the updated weights",
    sides=printed,
)

CORRECTED = Statement(
    latex=r"\hat\varepsilon^L\le\sum_{l=1}^L\Big(\prod_{k>l}\|W_k^{(l-1)}\|_2\Big)\sqrt{E^l}+\sum_{l<L}U_l,"
    r"\qquad \hat\varepsilon^L\le D_{L-1}+\sqrt{E^L}",
    words="with the output change U_l of every update; and the last measured distance plus the last layer's "
    "error",
    sides=corrected,
)

EXAMPLE = Counterexample(
    instance=updated_scalars((1, 1), (HALF, TENTH), TENTH - 1),
    shown="X = 1, W = (1, 1), Ŵ₁ = 1/2, then W₂ is updated to 1/10 = Ŵ₂: "
    "ε̂ = |1/20 - 1| = 19/20 <= 1/10·1/2 + 0 = 1/20 is false",
)

CLAIM = Claim(
    id="theorem1-update",
    title="Theorem 1 with the weights update",
    source="Theorem 1 with Algorithm 1, line 4",
    printed=PRINTED,
    verdict="false",
    reason="the layer errors are taken against updated weights and do not see the updates: 19/20 <= 1/20",
    corrected=CORRECTED,
    counterexample=EXAMPLE,
    proof=r"""
Let $W_k^{(l)}$, $k>l$, be the weights of layer $k$ after step $l$, $F_l$ the final output with layers $1..l$
quantized and the others at $W^{(l)}$, $F_0$ the reference output, and $D_l=\frac1{\sqrt n}\|F_l-F_0\|_F$.
Step $l$ first replaces $W_l^{(l-1)}$ by $\hat W_l$. Before the layer both networks agree, so its
pre-activation changes by $\sqrt{nE^l}$ exactly as (8) says, and the layers behind pass on at most
$\prod_{k>l}\|W_k^{(l-1)}\|_2$ times it. Then the update changes the output by $\sqrt n\,U_l$. By the triangle
inequality
$$D_l\le D_{l-1}+\Big(\prod_{k>l}\|W_k^{(l-1)}\|_2\Big)\sqrt{E^l}+U_l,\qquad D_0=0 .$$
Summing gives the first bound, as $\hat\varepsilon^L=D_L$. The second is its last step, $U_L=0$; and
$nD_{L-1}^2=\epsilon_{[L..L]}$, which the algorithm has computed. Without updates it is (C) of Theorem 1.
$\square$
""",
    checks=(
        by_hand(),
        Check(name="without updates", kind="exact", run=no_update),
        refuted(space(2, 1), seed=1203, tries=500),
        survives(space(3, 1), seed=1204, tries=250),
        certified("balls: random runs of 2 to 5 layers", runs),
    ),
    mutations=(
        Mutation(
            name="corrected: without U", changes={"corrected": replace(CORRECTED, sides=without_updates)}
        ),
        Mutation(
            name="corrected: the last layer's error alone",
            changes={"corrected": replace(CORRECTED, sides=last_layer_only)},
        ),
        Mutation(name="printed: with U", changes={"printed": replace(PRINTED, sides=summed)}),
        Mutation(
            name="counterexample: the update restores the output",
            changes={"counterexample": replace(EXAMPLE, instance=updated_scalars((1, 1), (HALF, 2), 1))},
        ),
    ),
)
