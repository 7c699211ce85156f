r"""Z^l = W_lᵀY^{l-1} has no bias. With one, H needs a row for it.

A bias is a weight of a constant input 1: the block is (2/n) ((YYᵀ, Y1), (1ᵀYᵀ, n)). A bias that is kept
leaves the block without that row; a bias that is refitted after quantization leaves its Schur complement, the
centred covariance of the inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

from refldnq.layers.linear import Linear
from refldnq.verify.claims._examined import by_hand, on_all, satisfies, stated
from refldnq.verify.claims._rational import Exact, draw, exact, squares
from refldnq.verify.claims._single_layer import (
    GEOMETRIES,
    convolution,
    convolved,
    floats,
    grams,
    images,
    quadratic,
)
from refldnq.verify.claims.base import Check, Claim, Counterexample, Finding, Instance, Mutation, Statement
from refldnq.verify.naive import layers as naive


def error(Y: Exact, delta: Exact, shift: Any) -> Any:
    """(8) of one neuron with a bias, by loops, for a change of the weights and of the bias."""
    weight, bias = exact([[5] * len(delta)]), exact([7])
    before = naive.linear(Y.T, weight, bias)
    after = naive.linear(Y.T, weight + delta, bias + shift)
    return Fraction(squares(exact(after - before))) / Y.shape[1]  # [LDNQ] (8)


def blocks(Y: Exact) -> tuple[Exact, Exact, Any]:
    """The parts YYᵀ, Y1 and n of the augmented block, times 2/n."""
    n = Y.shape[1]
    return Fraction(2, n) * (Y @ Y.T), Fraction(2, n) * Y.sum(axis=1), Fraction(2)


def without_bias(instance: Instance) -> bool:
    """Whether the block of the weights alone gives the error."""
    H, _, _ = blocks(instance["Y"])
    return bool(quadratic(H, instance["delta"]) == error(instance["Y"], instance["delta"], instance["shift"]))


def with_bias(instance: Instance, *, sign: int = 1, corner: Fraction = Fraction(1)) -> bool:
    """Whether the augmented block gives the error, and its Schur complement the error with the best bias.

    An error in the `sign` of Y1 or in the factor of the `corner` is to be noticed.
    """
    Y, delta, shift = (instance[name] for name in ("Y", "delta", "shift"))
    H, cross, one = blocks(Y)
    cross, one = sign * cross, corner * one
    whole = quadratic(H, delta) + shift * (cross @ delta) + one * shift * shift / 2
    best = -(cross @ delta) / one
    centred = H - np.outer(cross, cross) / one
    covariance = Y - exact(Y.sum(axis=1)[:, None] / Y.shape[1])
    return bool(
        whole == error(Y, delta, shift)
        and quadratic(H, delta) == error(Y, delta, 0)
        and quadratic(centred, delta) == error(Y, delta, best) <= error(Y, delta, shift)
        and (centred == Fraction(2, Y.shape[1]) * (covariance @ covariance.T)).all()
    )


def problems() -> Iterator[Instance]:
    """Random neurons."""
    rng = np.random.default_rng(1301)
    for k in range(60):
        d, n = 1 + k % 3, 1 + k % 4
        yield {"Y": draw(rng, (d, n)), "delta": draw(rng, d), "shift": draw(rng, 1)[0]}


def by_package(claim: Claim) -> Finding:
    """The package's blocks with a bias row, linear and convolutional, padding included."""
    rng = np.random.default_rng(1302)
    for k in range(12):
        x = exact(rng.integers(-4, 5, (2 ** (k % 3), 1 + k % 3)))
        block = Linear(x.shape[1], 1).hessian(floats(x), bias=True)[0]
        H, cross, one = blocks(x.T)
        wanted = np.block([[H, cross[:, None]], [cross[None], exact([[one]])]])
        own = {"Y": x.T, "delta": exact([1] * x.shape[1]), "shift": Fraction(-2)}
        if not ((exact(block) == wanted).all() and satisfies(stated(claim, "corrected"), own)):
            return Finding(ok=False, text=f"linear layer {k + 1} differs")
    for name, geometry in GEOMETRIES.items():
        x, weight, delta = images(rng, geometry)
        bias, shift = (exact(rng.integers(-4, 5, geometry["out"])) for _ in range(2))
        layer = convolution(geometry, bias=True)
        if not (exact(layer.gram(floats(x), bias=True)) == grams(x, geometry, bias=True)).all():
            return Finding(ok=False, text=f"the package's Gram matrix differs: {name}")
        packed = exact(layer.pack({"weight": floats(delta), "bias": floats(shift)}, bias=True))
        H = exact(layer.hessian(floats(x), bias=True))
        half = sum(quadratic(H[g], row) for g in range(len(H)) for row in packed[g].T)
        change = convolved(x, weight + delta, geometry, bias + shift) - convolved(x, weight, geometry, bias)
        if half != Fraction(squares(exact(change))) / len(x):
            return Finding(ok=False, text=f"the error with a bias differs: {name}")
    return Finding(
        ok=True, text=f"12 linear layers and {len(GEOMETRIES)} convolutions with a bias, bit for bit"
    )


def _wrong(**changes: Any) -> dict[str, Statement]:
    return {"corrected": replace(CORRECTED, holds=partial(with_bias, **changes))}


PRINTED = Statement(
    latex=r"Z^l=W_l^\top Y^{l-1},\qquad H=\tfrac2n\,\hat Y\hat Y^\top\ \text{for all parameters of a neuron}",
    words="a layer has no bias: the block of its weights gives its error",
    holds=without_bias,
)

CORRECTED = Statement(
    latex=r"H=\tfrac2n\begin{pmatrix}YY^\top&Y\mathbf 1\\\mathbf 1^\top Y^\top&n\end{pmatrix};\quad"
    r"\text{bias kept: } \tfrac2nYY^\top;\quad \text{bias refitted: } "
    r"\tfrac2n\big(YY^\top-\tfrac1nY\mathbf 1\mathbf 1^\top Y^\top\big)",
    words="a bias is the weight of a constant input 1; kept, its row is dropped; refitted, the block is the "
    "centred covariance",
    holds=with_bias,
)

EXAMPLE = Counterexample(
    instance={"Y": exact([[1]]), "delta": exact([1]), "shift": Fraction(-1)},
    shown="n = 1, Y = 1, δw = 1, δb = -1: the output does not change, E = 0, but ½·2·1² = 1; with the bias "
    "row "
    "½ (2 - 2·2 + 2) = 0",
)

CLAIM = Claim(
    id="hessian-bias",
    title="The Hessian with a bias",
    source="section Problem Statement, (9)",
    printed=PRINTED,
    verdict="true with a fix",
    reason="the network of the paper has no biases; with one the input gets a row of ones",
    corrected=CORRECTED,
    counterexample=EXAMPLE,
    proof=r"""
$Z=W^\top Y+b\mathbf 1^\top=\tilde W^\top\tilde Y$ with $\tilde Y=\binom{Y}{\mathbf 1^\top}$, so (9) and (10)
hold with $\tilde Y$: the block is $\frac2n\tilde Y\tilde Y^\top$, the matrix above.

*Bias kept* ($\delta b=0$): only $\frac2nYY^\top$ remains. *Bias refitted*: the minimum of
$\frac12\delta^\top A\delta+\beta\,c^\top\delta+\frac12s\beta^2$ over $\beta$ is
$\frac12\delta^\top(A-\frac1scc^\top)\delta$, at $\beta=-c^\top\delta/s$; here
$A-\frac1scc^\top=\frac2n(YY^\top-\frac1nY\mathbf 1\mathbf 1^\top Y^\top)$, which is
$\frac2n\sum_j(y_j-\bar y)(y_j-\bar y)^\top$. $\square$

For a convolution every position of every image is a sample: the corner is $2H_oW_o$, and zeros of the padding
belong to the patches.
""",
    checks=(
        by_hand(),
        on_all("block, principal block, Schur complement", problems, which="corrected"),
        Check(name="the package's layers with a bias", kind="exact", run=by_package),
    ),
    mutations=(
        Mutation(name="corrected: minus Y1", changes=_wrong(sign=-1)),
        Mutation(name="corrected: half of the corner", changes=_wrong(corner=Fraction(1, 2))),
        Mutation(name="printed: with the bias row", changes={"printed": replace(PRINTED, holds=with_bias)}),
        Mutation(
            name="counterexample: bias kept",
            changes={"counterexample": replace(EXAMPLE, instance={**EXAMPLE.instance, "shift": Fraction(0)})},
        ),
    ),
)
