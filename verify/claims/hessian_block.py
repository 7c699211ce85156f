r"""Printed: an "approximated Hessian calculation" that needs "one block matrix of the original Hessian".

For (8) one block is no approximation: H is block diagonal, the blocks of all output units of a group are
equal, so one block *per group of channels* is all of H. One block for the whole layer is right for one group
only: a depthwise convolution has a block for every channel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

from refldnq.verify.claims._examined import by_hand, on_all, satisfies, stated
from refldnq.verify.claims._rational import Exact, exact
from refldnq.verify.claims._single_layer import (
    GEOMETRIES,
    convolution,
    convolution_energy,
    convolved,
    floats,
    grams,
    images,
)
from refldnq.verify.claims.base import Check, Claim, Counterexample, Finding, Instance, Mutation, Statement

Group = Callable[[int, Mapping[str, Any]], int]
"""The block that belongs to an output channel."""


def own_group(channel: int, geometry: Mapping[str, Any]) -> int:
    """The group of an output channel."""
    return channel // int(geometry["out"] // geometry.get("groups", 1))


def first(channel: int, geometry: Mapping[str, Any]) -> int:
    """One block for the layer, as printed."""
    return 0


def modulo(channel: int, geometry: Mapping[str, Any]) -> int:
    """The groups in the wrong order: an error where a group has several outputs."""
    return channel % int(geometry.get("groups", 1))


def is_sum_of_blocks(instance: Instance, *, group: Group, per_patch: bool = False) -> bool:
    """Whether E = ½ Σ δᵀHδ over output channels, H = (2/n) Σ of patch outer products of the channel's group.

    With `per_patch` the sum is divided by the number of patches in place of images.
    """
    x, weight, delta, geometry = (instance[name] for name in ("x", "weight", "delta", "geometry"))
    S = grams(x, geometry)
    total = Fraction(0)
    for channel in range(geometry["out"]):
        row = exact(delta[channel].ravel())
        total += row @ S[group(channel, geometry)] @ row
    positions = 1
    if per_patch:
        _, ho, wo = convolution(geometry).output_shape(x.shape[1:])
        positions = ho * wo
    return bool(
        total / (len(x) * positions) == Fraction(convolution_energy(x, weight, delta, geometry), len(x))
    )


def problems() -> Iterator[Instance]:
    """Random integers for every geometry."""
    rng = np.random.default_rng(1101)
    for geometry in GEOMETRIES.values():
        x, weight, delta = images(rng, geometry)
        yield {"x": x, "weight": weight, "delta": delta, "geometry": geometry}


def by_package(claim: Claim) -> Finding:
    """The package's forward pass, Gram matrices and Hessian in float64 against the loops, bit for bit."""
    for name, geometry, instance in zip(GEOMETRIES, GEOMETRIES.values(), problems(), strict=True):
        x, weight = instance["x"], instance["weight"]
        layer = convolution(geometry)
        forward, _ = layer.forward({"weight": floats(weight)}, floats(x))
        S = grams(x, geometry)
        same = (
            (exact(forward) == exact(convolved(x, weight, geometry))).all()
            and (exact(layer.gram(floats(x))) == S).all()
            and (exact(layer.hessian(floats(x))) == S * Fraction(2, len(x))).all()
        )
        if not (same and satisfies(stated(claim, "corrected"), instance)):
            return Finding(ok=False, text=f"the package differs from the loops: {name}")
    return Finding(ok=True, text=f"outputs, Gram matrices and Hessians equal on {len(GEOMETRIES)} geometries")


def second_differences(claim: Claim) -> Finding:
    """Entries of the full Hessian by second differences: blocks as stated, zero between output channels."""
    holds = stated(claim, "corrected").holds
    assert holds is not None
    rng = np.random.default_rng(1102)
    inside = between = 0
    for name, geometry in GEOMETRIES.items():
        x, weight, _ = images(rng, geometry, n=1)
        S = grams(x, geometry)
        per = weight[0].size
        units = np.eye(weight.size, dtype=int).astype(object).reshape(weight.size, *weight.shape)

        def energy(delta: Exact, x: Exact = x, weight: Exact = weight, geometry: Any = geometry) -> int:
            return convolution_energy(x, weight, delta, geometry)

        for i, j in rng.integers(0, weight.size, (12, 2)).tolist():
            entry = energy(units[i] + units[j]) - energy(units[i]) - energy(units[j])
            same = i // per == j // per
            wanted = 2 * S[own_group(i // per, geometry)][i % per, j % per] if same else 0
            inside, between = inside + same, between + (not same)
            if entry != wanted:
                return Finding(ok=False, text=f"entry {i}, {j} is {entry}, not {wanted}: {name}")
        # An off-diagonal entry of the sum is seen by a change of two channels at once.
        if not holds({"x": x, "weight": weight, "delta": units[0] + units[-1], "geometry": geometry}):
            return Finding(ok=False, text=f"two channels at once: {name}")
    return Finding(ok=True, text=f"{inside} entries of blocks and {between} between channels, all as stated")


_PAIR = {"channels": 2, "out": 2, "size": (1, 1), "kernel": (1, 1), "groups": 2}


def _array(values: Any, *shape: int) -> Any:
    return np.array(values, dtype=object).reshape(shape)


def _wrong(**changes: Any) -> dict[str, Statement]:
    options = {"group": own_group, **changes}
    return {"corrected": replace(CORRECTED, holds=partial(is_sum_of_blocks, **options))}


PRINTED = Statement(
    latex=r"E^l=\tfrac12\sum_o\delta_o^\top H\,\delta_o,\qquad H=\tfrac2nPP^\top\ \text{one block for the "
    r"layer}",
    words="one block is enough for the Hessian of a layer, as an approximation",
    holds=partial(is_sum_of_blocks, group=first),
)

CORRECTED = Statement(
    latex=r"E^l=\tfrac12\sum_o\delta_o^\top H_{g(o)}\,\delta_o\ \text{exactly},\qquad "
    r"H_g=\tfrac2nP_gP_g^\top,\ n\ \text{images}",
    words="one block a group of channels is the whole Hessian, exactly; n counts images, not patches",
    holds=partial(is_sum_of_blocks, group=own_group),
)

EXAMPLE = Counterexample(
    instance={
        "x": _array([1, 2], 1, 2, 1, 1),
        "weight": _array([0, 0], 2, 1, 1, 1),
        "delta": _array([0, 1], 2, 1, 1, 1),
        "geometry": _PAIR,
    },
    shown="a depthwise 1x1 convolution of one pixel, channels 1 and 2, δ = (0, 1): E = 4, the first "
    "channel's block "
    "gives ½·2·1 = 1, the second one's ½·8·1 = 4",
)

CLAIM = Claim(
    id="hessian-block",
    title="One block of the Hessian",
    source="section L-DNQ in Practice",
    printed=PRINTED,
    verdict="true with a fix",
    reason="exact, not approximate, with one block per group of channels",
    corrected=CORRECTED,
    counterexample=EXAMPLE,
    proof=r"""
Let $P_g$ be the matrix whose columns are the patches (all images, all positions) of the input channels of
group $g$. The pre-activation of output channel $o$ at a position is $w_o^\top p$ with $p$ the column of
$P_{g(o)}$ there, for any stride, padding and dilation: these only decide which patches there are. So a change
$\delta$ of the weights gives
$$nE=\sum_o\|\delta_o^\top P_{g(o)}\|^2=\sum_o\delta_o^\top P_{g(o)}P_{g(o)}^\top\delta_o .$$
No term couples two output channels: the full Hessian is block diagonal, and its block for channel $o$ is
$\frac2nP_{g(o)}P_{g(o)}^\top$, the same for all channels of a group. Knowing one block a group is knowing
$H$. $\square$

What is approximate in practice is the choice of images, or of a subset of the patches. $n$ must count
*images* in every layer: dividing by patches makes $\sqrt{E}$ smaller by $\sqrt{H_oW_o}$, another factor in
each layer.
""",
    checks=(
        by_hand(),
        on_all(f"{len(GEOMETRIES)} geometries in integers, by loops", problems, which="corrected"),
        Check(name="the package against the loops", kind="exact", run=by_package),
        Check(name="second differences of the full Hessian", kind="exact", run=second_differences),
    ),
    mutations=(
        Mutation(name="corrected: one block for all groups", changes=_wrong(group=first)),
        Mutation(name="corrected: groups in the wrong order", changes=_wrong(group=modulo)),
        Mutation(name="corrected: n counts patches", changes=_wrong(per_patch=True)),
        Mutation(
            name="counterexample: one group",
            changes={
                "counterexample": replace(
                    EXAMPLE,
                    instance={
                        **EXAMPLE.instance,
                        "weight": _array([0] * 4, 2, 2, 1, 1),
                        "delta": _array([0, 0, 0, 1], 2, 2, 1, 1),
                        "geometry": {**_PAIR, "groups": 1},
                    },
                )
            },
        ),
    ),
)
