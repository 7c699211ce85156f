r"""Theorem 1: the accumulated error of the final output is bounded by a weighted sum of the layers' errors.

True with a fix, and then in two versions: (P) with the errors at the reference network's inputs and the norms
of the quantized weights, (C) with the errors of (8), which the algorithm minimizes, and the norms of the full
precision weights. Both hold with the operator norm, so also with the larger Frobenius norm.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

from refldnq.verify.arithmetic import EXACT, ball, has_flint, proved_at_most
from refldnq.verify.claims._examined import brief, by_hand, refuted, stated, survives
from refldnq.verify.claims._networks_fc import (
    activations,
    both_bounds,
    bounded_by,
    frobenius,
    literal,
    random_networks,
    scalars,
    strategy,
)
from refldnq.verify.claims._rational import Exact, exact
from refldnq.verify.claims.base import Check, Claim, Counterexample, Finding, Instance, Mutation, Statement
from refldnq.verify.falsifier import Space

DEPTHS = (2, 3, 4, 2, 5, 3, 6, 2, 8, 3, 7, 2, 9, 3, 10)
"""Depths of the random networks, in turn; every depth from 2 to 10."""

NETWORKS = 2010
"""Random networks of the certified check."""


def certified_networks(claim: Claim) -> Finding:
    """(P) and (C) in disjoint balls on every network."""
    sides = stated(claim, "corrected").sides
    assert sides is not None
    if not has_flint():
        return Finding(ok=True, certified=False, text="not certified: python-flint is missing")
    proved = undecided = 0
    for instance in random_networks(101, NETWORKS, depths=DEPTHS, most=3):
        known = proved_at_most(*sides(instance, ball(64)))
        if known is None:
            known = proved_at_most(*sides(instance, ball()))
        if known is False:
            return Finding(ok=False, text=f"violated: {brief(instance)}")
        proved += known is True
        undecided += known is None
    text = (
        f"(P) and (C) proved on {proved} of {NETWORKS} random networks of depths 2 to 10, {undecided} "
        "undecided"
    )
    return Finding(ok=undecided == 0, text=text, numbers={"proved": proved, "undecided": undecided})


def telescoped(instance: Instance) -> tuple[Exact, Exact, list[Any]]:
    """Ŷ^L - Y^L, the sum over k of (D_L Ŵ_Lᵀ ⋯ D_{k+1} Ŵ_{k+1}ᵀ) D_k r^k, and all secant slopes."""
    bar, hat = instance["bar"], instance["hat"]
    Y, Y_hat = (activations(instance["X"], weights, EXACT) for weights in (bar, hat))
    slopes: list[Any] = []
    total = exact(np.zeros(Y[-1].shape, dtype=int))
    for j in range(Y[0].shape[1]):
        terms: list[Any] = []
        for k, (W, W_hat) in enumerate(zip(bar, hat, strict=True)):
            z, z_hat = W.T @ Y[k][:, j], W_hat.T @ Y_hat[k][:, j]
            rise, run = EXACT.relu(z_hat) - EXACT.relu(z), z_hat - z
            D = np.array([a / b if b else Fraction(0) for a, b in zip(rise, run, strict=True)], dtype=object)
            slopes.extend(D)
            r = (W_hat - W).T @ Y[k][:, j]
            terms = [D * (W_hat.T @ term) for term in terms] + [D * r]
        total[:, j] = sum(terms[1:], terms[0])
    return Y_hat[-1] - Y[-1], total, slopes


def identity(claim: Claim) -> Finding:
    """The exact telescoping identity, which no inequality is lost in."""
    count = 0
    for instance in random_networks(102, 60, depths=(2, 3, 4, 6, 10), most=3):
        difference, total, slopes = telescoped(instance)
        count += 1
        if (difference != total).any() or not all(0 <= d <= 1 for d in slopes):
            return Finding(ok=False, text=f"the identity fails on network {count}")
    text = (
        f"equal on {count} networks of depths 2 to 10 with 2 samples, in fractions; all secant slopes in [0, "
        "1]"
    )
    return Finding(ok=True, text=text)


def sharp(claim: Claim) -> Finding:
    """Both bounds are attained by positive scalars."""
    sides = stated(claim, "corrected").sides
    assert sides is not None
    rng = np.random.default_rng(103)
    equal = 0
    for _ in range(50):
        depth = int(rng.integers(2, 7))
        hat = [Fraction(int(v), 4) for v in rng.integers(1, 8, depth)]
        bar = [w + Fraction(int(v), 4) for w, v in zip(hat, rng.integers(0, 5, depth), strict=True)]
        left, right = sides(scalars(bar, hat), EXACT)
        equal += left == right
    text = (
        f"left = right on {equal} of 50 networks of positive scalars with Ŵ <= W, so no constant can be "
        "improved"
    )
    return Finding(ok=equal == 50, text=text)


def weaker(claim: Claim) -> Finding:
    """With Frobenius norms both versions hold a fortiori; on scalars nothing is lost."""
    sides = stated(claim, "corrected").sides
    assert sides is not None
    if not has_flint():
        return Finding(ok=True, certified=False, text="not certified: python-flint is missing")
    arithmetic = ball()
    losses, count = [], 0
    for instance in random_networks(104, 80, depths=(2, 4, 8), most=3):
        tight, loose = sides(instance, arithmetic), both_bounds(instance, arithmetic, norm=frobenius)
        count += 1
        if loose[0] > loose[1] or tight[1] > loose[1]:
            return Finding(ok=False, text=f"the Frobenius bound is below on network {count}")
        if tight[1] > 0:
            losses.append(float(loose[1] / tight[1]))
    text = f"not below error and spectral bound on {count} networks, up to {max(losses):.3g} times as large"
    return Finding(ok=max(losses) > 2, text=text)


PRINTED = Statement(
    latex=r"\hat\varepsilon^L\le\sum_{k=1}^{L-1}\Big(\prod_{l=k+1}^L\mathcal A\sqrt{\varepsilon^k}\Big)"
    r"+\sqrt{\varepsilon^L}",
    words="(19), with the layer error ε^k = E^k of (8)",
    sides=literal,
)

CORRECTED = Statement(
    latex=r"\hat\varepsilon^L\le\sum_{k=1}^L\Big(\prod_{l=k+1}^L\|\hat W_l\|_2\Big)e_k\ \ (P),\qquad "
    r"\hat\varepsilon^L\le\sum_{k=1}^L\Big(\prod_{l=k+1}^L\|\bar W_l\|_2\Big)c_k\ \ (C)",
    words="(P): parallel errors e, norms of the quantized weights; (C): cascade errors c = √E of (8), norms "
    "of the "
    "full precision weights",
    sides=both_bounds,
)

EXAMPLE = Counterexample(
    instance={
        "X": exact([[1, 0], [0, 1]]),
        "bar": (exact([[1], ["1/2"]]), exact([[1]]), exact([[1]])),
        "hat": (exact([["3/4"], ["3/4"]]), exact([[1]]), exact([[1]])),
    },
    shown="X = I, W₁ = (1, 1/2), W₂ = W₃ = 1, Ŵ₁ = 3/4·(1, 1), the optimal ternary weights: E¹ = 1/16, "
    "ε̂ = 1/4 <= (1/4)² = 1/16 is false; ε̂ <= 1·1·1/4 is true",
)

CLAIM = Claim(
    id="theorem1",
    title="Theorem 1",
    source="Theorem 1",
    printed=PRINTED,
    verdict="true with a fix",
    reason="the printed (19) fails even for the best quantizer; two corrected versions hold, with operator "
    "norms",
    corrected=CORRECTED,
    counterexample=EXAMPLE,
    proof=r"""
Fully connected layers $Y^l=\sigma(W_l^\top Y^{l-1})$ with any entrywise 1-Lipschitz $\sigma$ and equal
biases; $n$ samples; $\hat\varepsilon^l=\frac1{\sqrt n}\|\hat Y^l-Y^l\|_F$.

*(P)* Parallel errors $e_k=\frac1{\sqrt n}\|(\hat W_k-\bar W_k)^\top Y^{k-1}\|_F$. Insert $\sigma(\hat
W_l^\top Y^{l-1})$:
$$\hat Y^l-Y^l=[\sigma(\hat W_l^\top\hat Y^{l-1})-\sigma(\hat W_l^\top Y^{l-1})]
+[\sigma(\hat W_l^\top Y^{l-1})-\sigma(\bar W_l^\top Y^{l-1})],$$
so $\hat\varepsilon^l\le\|\hat W_l\|_2\hat\varepsilon^{l-1}+e_l$ by Theorem 2 (corrected), and
$\hat\varepsilon^0=0$. Unroll.

*(C)* Cascade errors $c_k=\sqrt{E^k}=\frac1{\sqrt n}\|(\hat W_k-\bar W_k)^\top\hat Y^{k-1}\|_F$. Insert
$\sigma(\bar W_l^\top\hat Y^{l-1})$ instead: the first bracket has the full precision weights and the second
the input $\hat Y^{l-1}$, so $\hat\varepsilon^l\le\|\bar W_l\|_2\hat\varepsilon^{l-1}+c_l$. Unroll.

Cascade errors with the norms of $\hat W$, the mixture that the paper's definitions give, fail: another claim.
Both versions are equalities for positive scalars whose errors have one sign. Frobenius norms are valid and
weaker, as $\|W\|_2\le\|W\|_F$.

*Identity.* With secant slopes $D_l\in[0,1]$, diagonal, one set a sample, $\sigma(\hat z)-\sigma(z)=D(\hat
z-z)$, so $\hat y^l-y^l=D_l(\hat W_l^\top(\hat y^{l-1}-y^{l-1})+r^l)$ with $r^l=(\hat W_l-\bar W_l)^\top
y^{l-1}$, and exactly
$$\hat y^L-y^L=\sum_k\big(D_L\hat W_L^\top\cdots D_{k+1}\hat W_{k+1}^\top\big)D_kr^k.$$
The bounds follow by taking norms factor by factor; that is all they lose. $\square$
""",
    checks=(
        by_hand(),
        Check(name="telescoping identity", kind="exact", run=identity),
        Check(name="both versions are attained", kind="exact", run=sharp),
        Check(name="Frobenius norms", kind="certified", run=weaker),
        refuted(Space(lambda: strategy(3, 1, 1)), seed=105, tries=600),
        survives(Space(lambda: strategy(2, 2, 1)), seed=106, tries=250),
        replace(survives(Space(lambda: strategy(5, 1, 2)), seed=107, tries=200), name="search at depth 5"),
        Check(name="balls: random networks of depths 2 to 10", kind="certified", run=certified_networks),
    ),
    mutations=(
        Mutation(
            name="corrected: 0.99 times the right side",
            changes={"corrected": replace(CORRECTED, sides=partial(both_bounds, loss=Fraction(1, 100)))},
        ),
        Mutation(
            name="corrected: cascade errors with norms of Ŵ",
            changes={"corrected": replace(CORRECTED, sides=bounded_by(cascade=True, weights="hat"))},
        ),
        Mutation(
            name="corrected: only Frobenius norms",
            changes={"corrected": replace(CORRECTED, sides=partial(both_bounds, norm=frobenius))},
        ),
        Mutation(
            name="printed: the corrected form", changes={"printed": replace(PRINTED, sides=both_bounds)}
        ),
    ),
)
