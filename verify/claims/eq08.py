r"""(8): E^l = (1/n) ‖Ẑ^l - Z*^l‖², Z*^l = (W^new)ᵀŶ^{l-1}: the layer error.

A definition: both weights, quantized and updated, see the cascade input Ŷ. It is not the parallel error (both
weights on the input Y of the reference network), which the proof of Theorem 1 needs; the two differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

from refldnq.hessian import layer_error, layer_error_from_data
from refldnq.layers.linear import Linear
from refldnq.verify.claims._examined import on_all
from refldnq.verify.claims._rational import exact, squares
from refldnq.verify.claims._single_layer import floats, linear_error, linear_error_by_library
from refldnq.verify.claims.base import Check, Claim, Finding, Instance, Mutation, Statement

Formula = Callable[[Instance], Any]
"""An error of an instance: inputs ``Y``, ``Y_hat``, weights ``bar``, ``new``, ``hat`` of one layer."""


def cascade(instance: Instance) -> Any:
    """(8)."""
    difference = (instance["hat"] - instance["new"]).T @ instance["Y_hat"]
    return squares(difference) / instance["Y"].shape[1]  # [LDNQ] (8)


def parallel(instance: Instance) -> Any:
    """The same on the reference's input."""
    return cascade({**instance, "Y_hat": instance["Y"]})


def from_original(instance: Instance) -> Any:
    """The same from the original weights."""
    return cascade({**instance, "new": instance["bar"]})


def summed(instance: Instance) -> Any:
    """Without 1/n."""
    return cascade(instance) * instance["Y"].shape[1]


def is_layer_error(instance: Instance, *, formula: Formula) -> bool:
    """Whether a formula is (8): by loops, by the package, 0 for Z*, and the same for a change of Y or W."""
    Y_hat, new, hat = (instance[name] for name in ("Y_hat", "new", "hat"))
    value = formula(instance)
    elsewhere = {**instance, "Y": instance["Y"] + 1, "bar": instance["bar"] + 1}
    return bool(
        value == linear_error(Y_hat, new, hat) == linear_error_by_library(Y_hat, new, hat)
        and value >= 0 == formula({**instance, "hat": new})
        and value == formula(elsewhere)
    )


def problems() -> Iterator[Instance]:
    """Random layers with halves of integers; the number of samples is not a power of two in all."""
    rng = np.random.default_rng(801)
    for k in range(60):
        m0, m1, n = 1 + k % 3, 1 + k % 2, 1 + k % 5
        weights = {name: exact(rng.integers(-6, 7, (m0, m1))) / 2 for name in ("bar", "new", "hat")}
        inputs = {name: exact(rng.integers(-6, 7, (m0, n))) / 2 for name in ("Y", "Y_hat")}
        yield {**weights, **inputs}


def by_package(claim: Claim) -> Finding:
    """The package's two functions for (8), from the data and from the Hessian."""
    assert claim.printed.holds is not None
    worst = Fraction(0)
    count = 0
    for instance in problems():
        x, W, G = (floats(instance[name]) for name in ("Y_hat", "new", "hat"))
        layer = Linear(W.shape[0], W.shape[1], bias=False)
        value = cascade(instance)
        data = layer_error_from_data(layer, [np.ascontiguousarray(x.T)], W[None], G[None])
        block = layer_error(layer.hessian(np.ascontiguousarray(x.T)), W[None], G[None])
        worst = max(worst, *(abs(Fraction(float(own)) - value) / (1 + value) for own in (data, block)))
        count += 1
        if not claim.printed.holds(instance):
            return Finding(ok=False, text=f"the definition fails on instance {count}")
    # 2/n is rounded, and sums of a dozen terms follow: a few units in the last place.
    text = f"layer_error_from_data and layer_error differ from the exact value by at most {float(worst):.1e}"
    return Finding(ok=worst <= Fraction(1, 10**14), text=text, numbers={"difference": float(worst)})


def two_errors(claim: Claim) -> Finding:
    """Cascade and parallel error of one neuron."""
    assert claim.printed.holds is not None
    one = exact([[1]])
    instance = {"Y": one, "Y_hat": 2 * one, "bar": one, "new": one, "hat": 2 * one}
    values = cascade(instance), parallel(instance)
    text = f"Y = 1, Ŷ = 2, W = 1, Ŵ = 2: cascade error {values[0]}, parallel error {values[1]}"
    return Finding(ok=values == (4, 1) and claim.printed.holds(instance), text=text)


def _wrong(formula: Formula) -> dict[str, Statement]:
    return {"printed": replace(PRINTED, holds=partial(is_layer_error, formula=formula))}


PRINTED = Statement(
    latex=r"E^l=\tfrac1n\|\hat Z^l-Z^l_*\|_F^2,\qquad \hat Z^l=\hat W_l^\top\hat Y^{l-1},\quad "
    r"Z^l_*=(\bar W_l^{new})^\top\hat Y^{l-1}",
    words="the layer error is the mean squared change of the pre-activation on the cascade input",
    holds=partial(is_layer_error, formula=cascade),
)

CLAIM = Claim(
    id="eq08",
    title="The layer error",
    source="(8)",
    printed=PRINTED,
    verdict="true",
    reason="a definition, on the cascade input and from the updated weights",
    proof=r"""
(8) is a definition. $E(Z_*)=0$ and $E\ge0$ are immediate. It depends on the quantized layers before $l$
through $\hat Y^{l-1}$ and on the update through $\bar W_l^{new}$, not on $Y^{l-1}$ or $\bar W_l$.

*Two errors.* With $\delta=\hat W_l-\bar W_l^{new}$ the cascade error is
$\frac1n\|\delta^\top\hat Y^{l-1}\|_F^2$. The parallel error
$\frac1n\|(\hat W_l-\bar W_l)^\top Y^{l-1}\|_F^2$, on the reference's input, is another number: for $Y=1$,
$\hat Y=2$, $\delta=1$ they are $4$ and $1$. The algorithm minimizes the first; bounds that add up errors
along the reference network need the second.
""",
    checks=(
        on_all("fractions, loops and the package's layer", problems),
        Check(name="the package's functions for (8)", kind="float", run=by_package),
        Check(name="cascade and parallel", kind="exact", run=two_errors),
    ),
    mutations=(
        Mutation(name="on the reference's input", changes=_wrong(parallel)),
        Mutation(name="from the original weights", changes=_wrong(from_original)),
        Mutation(name="without 1/n", changes=_wrong(summed)),
    ),
)
