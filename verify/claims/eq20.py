r"""(20): for the first layer ε̂^1 = ε^1 = √(δE^1).

False as an equality: ReLU can hide a part of the error, or all of it. It is an inequality, with equality if
no ReLU clips. The symbol ε^1 is √E here and E in (19).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from refldnq.verify.arithmetic import EXACT, Arithmetic
from refldnq.verify.claims._examined import by_hand, refuted, survives
from refldnq.verify.claims._networks import certified
from refldnq.verify.claims._networks_fc import final_error, layer_errors, random_networks, scalars, strategy
from refldnq.verify.claims._rational import exact, squares
from refldnq.verify.claims.base import Check, Claim, Counterexample, Finding, Instance, Mutation, Statement
from refldnq.verify.falsifier import Space


def at_most(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """ε̂¹ and √E¹."""
    return final_error(instance, arithmetic), layer_errors(instance, arithmetic, cascade=False)[0]


def at_least(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """√E¹ and ε̂¹: the half of the equality that fails."""
    return at_most(instance, arithmetic)[::-1]


def halved(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """E¹ with a factor 1/2: an error."""
    left, right = at_most(instance, arithmetic)
    return left, right / arithmetic.sqrt(arithmetic.number(4))


def without_clipping(claim: Claim) -> Finding:
    """Equality on layers in which all pre-activations are positive, and only sometimes otherwise."""
    assert claim.corrected is not None
    assert claim.corrected.sides is not None
    rng = np.random.default_rng(2001)
    equal = strict = 0
    for k in range(200):
        low = 1 if k % 2 else -4
        pair = [exact(rng.integers(low, 6, (2, 2))) for _ in range(2)]
        X = exact(rng.integers(0, 5, (2, 2)))
        Z, Z_hat = (W.T @ X for W in pair)
        error = squares(Z_hat - Z)
        after = squares(EXACT.relu(Z_hat) - EXACT.relu(Z))
        clips = bool((Z < 0).any() or (Z_hat < 0).any())
        if after > error or (not clips and after != error):
            return Finding(ok=False, text=f"layer {k}: {after} against {error}, clipping: {clips}")
        equal += after == error
        strict += after < error
    text = (
        f"squares of both sides: equal on {equal} layers, among them all that clip nothing; less on {strict}"
    )
    return Finding(ok=equal > 0 and strict > 0, text=text)


def one_layer() -> Iterator[Instance]:
    """Single layers on which a ReLU clips, so that the sides differ."""
    for instance in random_networks(2002, 150, depths=(1,), most=3):
        left, right = _squared(instance)
        if left != right or left == 0:
            yield instance


def _squared(instance: Instance) -> tuple[Any, Any]:
    W, W_hat, X = instance["bar"][0], instance["hat"][0], instance["X"]
    Z, Z_hat = W.T @ X, W_hat.T @ X
    return squares(EXACT.relu(Z_hat) - EXACT.relu(Z)), squares(Z_hat - Z)


PRINTED = Statement(
    latex=r"\hat\varepsilon^1=\varepsilon^1=\sqrt{\delta E^1}",
    words="the first layer's accumulated error is the root of its layer error; that it is not less is "
    "decided",
    sides=at_least,
)

CORRECTED = Statement(
    latex=r"\hat\varepsilon^1\le\sqrt{E^1},\quad\text{with equality if no ReLU clips}",
    words="at most; equal where all pre-activations are positive",
    sides=at_most,
)

EXAMPLE = Counterexample(
    instance=scalars((-1,), (-2,)),
    shown="X = 1, W = -1, Ŵ = -2: ε̂ = |0 - 0| = 0, but √E = |-2 + 1| = 1",
)

CLAIM = Claim(
    id="eq20",
    title="The first layer's error",
    source="(20)",
    printed=PRINTED,
    verdict="false",
    reason="ReLU hides errors: 0 against 1; the equality must be ≤",
    corrected=CORRECTED,
    counterexample=EXAMPLE,
    proof=r"""
$\hat Y^1-Y^1=\sigma(\hat Z)-\sigma(Z)$ with $\hat Z-Z=(\hat W_1-\bar W_1)^\top Y^0$, whose norm is
$\sqrt{nE^1}$; both networks have the same input, so the cascade and the parallel error agree here. Entry by
entry $|\sigma(a)-\sigma(b)|\le|a-b|$, with equality if $a,b\ge0$. Summing squares gives the inequality, and
equality where no pre-activation is negative. Moreover $\delta E^1=E^1$, as $E(Z_*)=0$. $\square$
""",
    checks=(
        by_hand(),
        Check(name="equality without clipping", kind="exact", run=without_clipping),
        refuted(Space(lambda: strategy(1, 1, 1)), seed=2003, tries=200),
        survives(Space(lambda: strategy(1, 2, 2)), seed=2004, tries=250),
        certified("balls: layers that clip", one_layer),
    ),
    mutations=(
        Mutation(name="corrected: half of √E", changes={"corrected": replace(CORRECTED, sides=halved)}),
        Mutation(
            name="corrected: the other direction", changes={"corrected": replace(CORRECTED, sides=at_least)}
        ),
        Mutation(
            name="counterexample: positive weights",
            changes={"counterexample": replace(EXAMPLE, instance=scalars((1,), (2,)))},
        ),
    ),
)
