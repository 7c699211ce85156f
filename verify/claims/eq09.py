r"""(9): E^l as a Taylor series in δΘ: a linear term that is zero, a quadratic one, O(‖δΘ‖³) that vanishes.

True, and more than an approximation: E is a quadratic form in δΘ, so the linear and the cubic term are
exactly zero and E^l = ½ δΘᵀHδΘ for every δΘ, however large. This holds for the error before the activation,
as in (8).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

from refldnq.verify.arithmetic import EXACT
from refldnq.verify.claims._examined import on_all
from refldnq.verify.claims._rational import Exact, draw, exact, squares
from refldnq.verify.claims._single_layer import (
    GEOMETRIES,
    convolution_energy,
    images,
    linear_error_by_library,
    linear_hessian_by_library,
    quadratic,
)
from refldnq.verify.claims._splitting import slope
from refldnq.verify.claims.base import Check, Claim, Finding, Instance, Mutation, Statement
from refldnq.verify.naive.layers import second_differences

Error = Callable[[Exact, Exact, Exact], Any]
"""An error as a function of Y (m0, n), W and a change of W, both (m0, m1)."""


def before_activation(Y: Exact, W: Exact, delta: Exact) -> Any:
    """(8)."""
    return squares((W + delta).T @ Y - W.T @ Y) / Y.shape[1]  # [LDNQ] (8)


def after_activation(Y: Exact, W: Exact, delta: Exact) -> Any:
    """The error of the outputs: not (8)."""
    return squares(EXACT.relu((W + delta).T @ Y) - EXACT.relu(W.T @ Y)) / Y.shape[1]


def from_zero(Y: Exact, W: Exact, delta: Exact) -> Any:
    """The squared output itself: not an error from Z*."""
    return squares((W + delta).T @ Y) / Y.shape[1]


def cubed(Y: Exact, W: Exact, delta: Exact) -> Any:
    """The third powers of the magnitudes: not (8)."""
    return sum(abs(v) ** 3 for v in (delta.T @ Y).ravel()) / Y.shape[1]


def is_quadratic_form(instance: Instance, *, error: Error) -> bool:
    """Whether E(δ) = ½ δᵀHδ at every tried δ, H its second differences, without linear and cubic terms."""
    Y, W, delta = (instance[name] for name in ("Y", "W", "delta"))

    def at(change: Exact) -> Any:
        return error(Y, W, exact(change).reshape(W.shape))

    H = exact(second_differences(at, W.shape, Fraction(1)))
    flat = delta.ravel()
    third = at(3 * flat) - 3 * at(2 * flat) + 3 * at(flat) - at(0 * flat)
    return bool(
        at(0 * flat) == 0
        and (slope(at, 0 * flat) == 0).all()
        and third == 0
        and all(at(t * flat) == t * t * at(flat) for t in (-1, 2, Fraction(1, 3), 1000))
        and at(flat) == quadratic(H, flat)
    )


def problems() -> Iterator[Instance]:
    """Random linear layers of fractions."""
    rng = np.random.default_rng(901)
    for k in range(40):
        m0, m1, n = 1 + k % 3, 1 + k % 2, 1 + k % 4
        yield {"Y": draw(rng, (m0, n)), "W": draw(rng, (m0, m1)), "delta": draw(rng, (m0, m1))}


def by_package(claim: Claim) -> Finding:
    """Two forward calls and the Hessian of the package, integers in float64, for changes up to 1000."""
    assert claim.printed.holds is not None
    rng = np.random.default_rng(902)
    count = 0
    for k in range(40):
        m0, m1, n = 1 + k % 4, 1 + k % 3, 2 ** (k % 3)
        Y, W = exact(rng.integers(-9, 10, (m0, n))), exact(rng.integers(-9, 10, (m0, m1)))
        delta = exact(rng.integers(-1000, 1001, (m0, m1)))
        H = linear_hessian_by_library(Y)
        half = sum(quadratic(H, delta[:, j]) for j in range(m1))
        count += 1
        if not (linear_error_by_library(Y, W, W + delta) == half):
            return Finding(ok=False, text=f"the package's error is not the quadratic form on layer {count}")
        if not claim.printed.holds({"Y": Y, "W": W, "delta": delta}):
            return Finding(ok=False, text=f"the statement fails on layer {count}")
    return Finding(ok=True, text=f"E = ½ δᵀHδ bit for bit on {count} layers, δ up to 1000")


def convolutions(claim: Claim) -> Finding:
    """E(tδ) = t²E(δ) for convolutions by loops, and central differences at Z* of 0."""
    rng = np.random.default_rng(903)
    for name, geometry in GEOMETRIES.items():
        x, weight, delta = images(rng, geometry, n=1)
        energy = convolution_energy(x, weight, delta, geometry)
        multiples = [convolution_energy(x, weight, t * delta, geometry) for t in (-1, 3)]
        if multiples != [energy, 9 * energy]:
            return Finding(ok=False, text=f"not a quadratic form: {name}")
    return Finding(
        ok=True, text=f"even and homogeneous of degree 2 in integers, {len(GEOMETRIES)} geometries"
    )


def _wrong(error: Error) -> dict[str, Statement]:
    return {"printed": replace(PRINTED, holds=partial(is_quadratic_form, error=error))}


PRINTED = Statement(
    latex=r"E^l=\Big(\frac{\partial E^l}{\partial\Theta_l}\Big)^\top\delta\Theta_l+\tfrac12\delta"
    r"\Theta_l^\top H_l"
    r"\,\delta\Theta_l+O(\|\delta\Theta_l\|_2^3),\quad \frac{\partial E^l}{\partial\Theta_l}=0,\ \ O("
    r"\cdot)=0",
    words="the layer error is half of dTheta' H dTheta: the linear term is zero and the cubic one vanishes",
    holds=partial(is_quadratic_form, error=before_activation),
)

CLAIM = Claim(
    id="eq09",
    title="The Taylor series of the layer error",
    source="(9)",
    printed=PRINTED,
    verdict="true",
    reason="and no approximation: the error is a quadratic form, linear and cubic terms are exactly zero",
    proof=r"""
Let $\Delta$ be the change of $W$ and $\delta_i$ its columns, one a neuron. By (8)
$$E(\bar\Theta^{new}+\delta)=\tfrac1n\|\Delta^\top\hat Y\|_F^2=\tfrac1n\sum_i\delta_i^\top\hat Y\hat
Y^\top\delta_i,$$
since $Z$ is linear in $W$ and $Z_*$ cancels. This is a quadratic form: $E(t\delta)=t^2E(\delta)$ for all real
$t$, so $E(0)=0$, the derivative at $0$ is zero, all third differences are zero, and
$E=\frac12\delta^\top H\delta$ with $H=\partial^2E/\partial\Theta^2$, which does not depend on $\Theta$. There
is no remainder, small or large $\delta$ alike. $\square$ Convolutions are linear in their weight too, so all
of this holds for them. After an activation, or after a batch normalization with the batch's own statistics,
it does not.
""",
    checks=(
        on_all("linear layers: differences of all orders", problems),
        Check(name="the package's layer and Hessian", kind="exact", run=by_package),
        Check(name="convolutions by loops", kind="exact", run=convolutions),
    ),
    mutations=(
        Mutation(name="the error after the activation", changes=_wrong(after_activation)),
        Mutation(name="a linear term: the distance from 0 in place of Z*", changes=_wrong(from_zero)),
        Mutation(name="third powers", changes=_wrong(cubed)),
    ),
)
