r"""Algorithm 1, line 2: "Calculate Hessian matrix H_l of layer l from Θ_l^new and X".

H_l does not depend on Θ_l at all; and X does not determine it: it depends on Ŷ^{l-1}, the output of the
layers before, which are quantized. Only for l = 1 is that X.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

from refldnq.verify.arithmetic import EXACT
from refldnq.verify.claims._examined import by_hand, on_all, stated
from refldnq.verify.claims._networks import by_library, output
from refldnq.verify.claims._rational import Exact, exact
from refldnq.verify.claims._single_layer import linear_error, linear_hessian_by_library
from refldnq.verify.claims.base import Check, Claim, Counterexample, Finding, Instance, Mutation, Statement
from refldnq.verify.naive.layers import second_differences

Depends = Callable[[Instance, str], Any]
"""What H is said to depend on, of one of an instance's two networks ('first' or 'second')."""


def measured_hessian(X: Exact, before: Any, W: Exact) -> Exact:
    """H of a layer in a network, by second differences of (8): input X, quantized layers before, weight W."""
    Y_hat = output(X, before, EXACT)

    def error_of(change: Exact) -> Any:
        return linear_error(Y_hat, W, W + exact(change))

    return exact(second_differences(error_of, W.shape, Fraction(1)))


def by_weight_and_data(instance: Instance, which: str) -> Any:
    """Θ_l and X, as printed."""
    return instance[which]["W"].tolist(), instance[which]["X"].tolist()


def by_input(instance: Instance, which: str) -> Any:
    """Ŷ^{l-1}, up to the order of the samples and their signs: its sum of outer products."""
    own = instance[which]
    Y_hat = output(own["X"], own["before"], EXACT)
    return (Y_hat @ Y_hat.T / Y_hat.shape[1]).tolist()


def by_weight_and_input(instance: Instance, which: str) -> Any:
    """Θ_l and Ŷ^{l-1}."""
    return instance[which]["W"].tolist(), by_input(instance, which)


def by_nothing(instance: Instance, which: str) -> Any:
    """Nothing: H is the same in all networks."""
    return ()


def is_determined(instance: Instance, *, by: Depends, only: bool = False) -> bool:
    """Whether H is equal where what it depends on is equal; with `only` and different where that differs."""
    first, second = (
        measured_hessian(own["X"], own["before"], own["W"]) for own in (instance["first"], instance["second"])
    )
    same = bool((first == second).all())
    equal = by(instance, "first") == by(instance, "second")
    return same == equal if only else same or not equal


def pairs() -> Iterator[Instance]:
    """Pairs of networks: other weights of layer l; other layers before; other data; sometimes all equal."""
    rng = np.random.default_rng(1201)

    def integers(*shape: int) -> Exact:
        return exact(rng.integers(-3, 4, shape))

    for k in range(60):
        m, d, n = 1 + k % 2, 1 + k % 3, 1 + k % 3
        first = {"X": integers(2, n), "before": (integers(2, d),), "W": integers(d, m)}
        change = ("W", "before", "X", "")[k % 4]
        other = {"W": integers(d, m), "before": (integers(2, d),), "X": integers(2, n)}
        yield {"first": first, "second": {**first, **({change: other[change]} if change else {})}}


def by_package(claim: Claim) -> Finding:
    """The package's block does not read the weights, and equals the second differences of every neuron."""
    holds = stated(claim, "corrected").holds
    assert holds is not None
    rng = np.random.default_rng(1202)
    for k in range(20):
        X, before = exact(rng.integers(-3, 4, (2, 2))), (exact(rng.integers(-3, 4, (2, 2))),)
        W = exact(rng.integers(-3, 4, (2, 1)))
        block = linear_hessian_by_library(by_library(X, before))
        if not (measured_hessian(X, before, W) == block).all():
            return Finding(ok=False, text=f"the package's block differs on network {k + 1}")
        own = {"X": X, "before": before, "W": W}
        if not holds({"first": own, "second": {**own, "W": W + 1}}):
            return Finding(ok=False, text=f"H changes with the weight on network {k + 1}")
    return Finding(
        ok=True, text="the package's block from Ŷ alone is the second differences for two W, 20 networks"
    )


def _wrong(by: Depends) -> dict[str, Statement]:
    return {"corrected": replace(CORRECTED, holds=partial(is_determined, by=by, only=True))}


_ONE = exact([[1]])

PRINTED = Statement(
    latex=r"H_l=H(\bar\Theta_l^{new},X)",
    words="H of layer l is calculated from the layer's weights and the data",
    holds=partial(is_determined, by=by_weight_and_data),
)

CORRECTED = Statement(
    latex=r"H_l=\tfrac2n\,I\otimes\hat Y^{l-1}(\hat Y^{l-1})^\top,\qquad \partial H_l/\partial\Theta_l=0",
    words="H of layer l is a function of the outputs of the quantized layers before it, and of nothing else",
    holds=partial(is_determined, by=by_input, only=True),
)

EXAMPLE = Counterexample(
    instance={
        "first": {"X": _ONE, "before": (_ONE,), "W": _ONE},
        "second": {"X": _ONE, "before": (2 * _ONE,), "W": _ONE},
    },
    shown="X = 1, W_2 = 1 in both; the quantized W_1 is 1 or 2: Ŷ = 1 or 2, H_2 = 2 or 8",
)

CLAIM = Claim(
    id="hessian-independence",
    title="What the Hessian depends on",
    source="Algorithm 1, line 2",
    printed=PRINTED,
    verdict="false",
    reason="H depends on the cascade input only, neither on the layer's weights nor on X alone",
    corrected=CORRECTED,
    counterexample=EXAMPLE,
    proof=r"""
$E=\frac1n\|(\hat W_l-\bar W_l^{new})^\top\hat Y^{l-1}\|_F^2$ is a quadratic function of $\hat W_l$ whose
second derivatives are $\frac2n(\hat Y^{l-1}(\hat Y^{l-1})^\top)_{ij}$ within a neuron and $0$ between
neurons. Neither $\bar W_l^{new}$ nor $\hat W_l$ is in them: $H$ is a function of $\hat Y^{l-1}$, and a
different $\frac1n\hat Y\hat Y^\top$ gives a different $H$. $\hat Y^{l-1}$ is determined by $X$ *and* the
quantized layers $1,\dots,l-1$. $\square$

So $H_l$ must be computed after layer $l-1$ has been quantized; it need not be computed again when step 4
updates $\bar\Theta_{[l,\dots,L]}$.
""",
    checks=(
        by_hand(),
        on_all("pairs of networks: H is equal exactly where ŶŶᵀ/n is", pairs, which="corrected"),
        Check(name="the package's block", kind="exact", run=by_package),
    ),
    mutations=(
        Mutation(name="corrected: the weights and Ŷ", changes=_wrong(by_weight_and_input)),
        Mutation(name="corrected: the weights and X", changes=_wrong(by_weight_and_data)),
        Mutation(name="corrected: the same for all networks", changes=_wrong(by_nothing)),
        Mutation(
            name="counterexample: equal networks",
            changes={
                "counterexample": replace(
                    EXAMPLE,
                    instance={"first": EXAMPLE.instance["first"], "second": EXAMPLE.instance["first"]},
                )
            },
        ),
    ),
)
