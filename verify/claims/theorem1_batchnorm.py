r"""Theorem 1 for networks with batch normalization: neither its scale nor its change is in (19).

False twice: the scale γ/√(v+ε) multiplies the error, and Algorithm 1 returns new parameters Ĉ, whose effect
no layer error sees. In evaluation mode both are simple to add.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from refldnq.layers.batchnorm import BatchNorm
from refldnq.verify.arithmetic import EXACT, Arithmetic
from refldnq.verify.claims._examined import by_hand, refuted, survives
from refldnq.verify.claims._networks import certified
from refldnq.verify.claims._networks_fc import per_sample
from refldnq.verify.claims._rational import exact
from refldnq.verify.claims.base import Check, Claim, Counterexample, Finding, Instance, Mutation, Statement
from refldnq.verify.falsifier import Space, instances, matrices


def column(instance: Instance, name: str, arithmetic: Arithmetic) -> Any:
    """Scales or shifts, one a channel, as a column."""
    return arithmetic.array(instance[name]).reshape(-1, 1)


def sides(instance: Instance, arithmetic: Arithmetic, right: Any) -> tuple[Any, Any]:
    """ε̂ of σ(s·WᵀX + t) → σ(ŝ·ŴᵀX + t̂), and a bound of e, the change of the normalization, and ŝ."""
    X, n = arithmetic.array(instance["X"]), instance["X"].shape[1]
    Z, Z_hat = (arithmetic.array(instance[name]).T @ X for name in ("W", "W_hat"))
    s, s_hat, t, t_hat = (column(instance, name, arithmetic) for name in ("s", "s_hat", "t", "t_hat"))
    Y, Y_hat = arithmetic.relu(s * Z + t), arithmetic.relu(s_hat * Z_hat + t_hat)
    e = per_sample(Z_hat - Z, n, arithmetic)  # [LDNQ] (8)
    change = per_sample((s_hat - s) * Z + (t_hat - t), n, arithmetic)
    largest = arithmetic.number(0)
    for scale in s_hat.ravel():
        largest = arithmetic.maximum(largest, arithmetic.maximum(scale, -scale))
    return per_sample(Y_hat - Y, n, arithmetic), right(e, change, largest)


def printed(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """√E¹."""
    return sides(instance, arithmetic, lambda e, change, scale: e)


def corrected(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """The largest scale times √E¹, plus the change of the normalization."""
    return sides(instance, arithmetic, lambda e, change, scale: scale * e + change)


def without_change(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """The scale alone: an error."""
    return sides(instance, arithmetic, lambda e, change, scale: scale * e)


def without_scale(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """The change alone: an error."""
    return sides(instance, arithmetic, lambda e, change, scale: e + change)


def scalar(W: Any, W_hat: Any, s: Any, s_hat: Any, t: Any, t_hat: Any) -> Instance:
    """One channel, X = 1."""
    own = {"s": s, "s_hat": s_hat, "t": t, "t_hat": t_hat}
    return {
        "X": exact([[1]]),
        "W": exact([[W]]),
        "W_hat": exact([[W_hat]]),
        **{name: exact([value]) for name, value in own.items()},
    }


SCALED = scalar(1, "1/2", 10, 10, 0, 0)
SHIFTED = scalar(1, 1, 1, 1, 0, 3)


def shift(claim: Claim) -> Finding:
    """New parameters without any new weight."""
    assert claim.printed.sides is not None
    assert claim.corrected is not None
    assert claim.corrected.sides is not None
    left, right = claim.printed.sides(SHIFTED, EXACT)
    own = claim.corrected.sides(SHIFTED, EXACT)
    text = f"W = Ŵ = 1, β: 0 → 3: {left} <= {right} is false; corrected: {own[0]} <= {own[1]}"
    return Finding(ok=left > right and own[0] == own[1], text=text)


def by_library(claim: Claim) -> Finding:
    """S = γ/√(v+ε), t = β - s·mean against the package's layer in evaluation mode."""
    rng = np.random.default_rng(1501)
    worst = 0.0
    for _ in range(20):
        layer = BatchNorm(3, eps=0.25)
        gamma, beta, mean = rng.integers(-4, 5, (3, 3)) / 2
        variance = rng.integers(0, 4, 3) ** 2 / 1.0
        params = {"weight": gamma, "bias": beta, "running_mean": mean, "running_var": variance}
        x = rng.integers(-4, 5, (5, 3)) / 2
        y, _ = layer.forward(params, x)
        s = gamma / np.sqrt(variance + 0.25)
        worst = max(worst, float(np.abs(y - (s * x + (beta - s * mean))).max()))
    text = f"y = s·x + t in 20 layers, largest difference {worst:.1e} in float64"
    return Finding(ok=worst <= 1e-13, text=text)


def layers() -> Iterator[Instance]:
    """Random layers of two or three channels, scales of any sign."""
    rng = np.random.default_rng(1502)
    for _ in range(150):
        d, m, n = rng.integers(2, 4, 3)
        W = exact(rng.integers(-6, 7, (d, m))) / 4
        own = {name: exact(rng.integers(-8, 9, m)) / 4 for name in ("s", "t", "t_hat")}
        X = exact(rng.integers(-4, 9, (d, n))) / 2
        s_hat = own["s"] + exact(rng.integers(-1, 2, m)) / 8
        yield {"X": X, "W": W, "W_hat": W + exact(rng.integers(1, 3, (d, m))) / 8, **own, "s_hat": s_hat}


def space() -> Space:
    """One channel, two samples."""
    one = matrices(1, 1)
    return Space(lambda: instances(X=matrices(1, 2), W=one, W_hat=one, s=one, s_hat=one, t=one, t_hat=one))


PRINTED = Statement(
    latex=r"\hat\varepsilon^1\le\sqrt{E^1}\quad\text{with batch normalization behind the layer}",
    words="Theorem 1 for one layer with batch normalization: only the layer error of the weights",
    sides=printed,
)

CORRECTED = Statement(
    latex=r"\hat\varepsilon^1\le\max_c|\hat s_c|\,\sqrt{E^1}+\tfrac1{\sqrt n}\|(\hat s-s)Z+(\hat "
    r"t-t)\|_F,\qquad "
    r"s=\frac{\gamma}{\sqrt{v+\epsilon}},\ t=\beta-s\mu",
    words="the largest scale times the layer error, plus the effect of the changed parameters",
    sides=corrected,
)

CLAIM = Claim(
    id="theorem1-batchnorm",
    title="Theorem 1 with batch normalization",
    source="Theorem 1, applied to networks with batch normalization",
    printed=PRINTED,
    verdict="false",
    reason="scales multiply errors, 5 <= 1/2; changed parameters are an error of their own, 3 <= 0",
    corrected=CORRECTED,
    counterexample=Counterexample(
        instance=SCALED,
        shown="X = 1, W = 1, Ŵ = 1/2, scale 10: ε̂ = |5 - 10| = 5 <= √E¹ = 1/2 is false; 5 <= 10·1/2 is true",
    ),
    proof=r"""
In evaluation mode the normalization is $z\mapsto sz+t$ channel by channel, with the stored mean $\mu$ and
variance $v$. Then
$$(\hat s\hat Z+\hat t)-(sZ+t)=\hat s(\hat Z-Z)+\big[(\hat s-s)Z+(\hat t-t)\big].$$
The norm of the first term is at most $\max_c|\hat s_c|\sqrt{nE^1}$; ReLU is 1-Lipschitz. In a deeper network
the factor $\max_c|\hat s_c|$ goes with $\|\hat W_l\|_2$ into every product, and the bracket is added to the
layer's error. With batch statistics no useful constant exists: another claim. $\square$
""",
    checks=(
        by_hand(),
        Check(name="changed parameters", kind="exact", run=shift),
        Check(name="the package's layer", kind="float", run=by_library),
        refuted(space(), seed=1503, tries=500),
        survives(space(), seed=1504, tries=250),
        certified("balls: random layers", layers),
    ),
    mutations=(
        Mutation(
            name="corrected: without the changed parameters",
            changes={"corrected": replace(CORRECTED, sides=without_change)},
        ),
        Mutation(
            name="corrected: without the scale",
            changes={"corrected": replace(CORRECTED, sides=without_scale)},
        ),
        Mutation(
            name="counterexample: scale 1",
            changes={
                "counterexample": Counterexample(instance=scalar(1, "1/2", 1, 1, 0, 0), shown="scale 1")
            },
        ),
    ),
)
