r"""H where batch normalization follows: Algorithm 1 has parameters C = {μ, σ, γ, β}, (8) and (9) do not.

The error after a batch normalization in eval mode is Σ s_c² E_c with s_c = γ_c / √(v_c + ε): the block of
channel c is (2 s_c²/n) PPᵀ in the raw weights, (2/n) PPᵀ in the folded weights s_c w_c. With one α for the
layer the weights s_c² change the optimum. The pair (γ_c, β_c) has a 2x2 block of its own, diagonal with the
batch's statistics.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from refldnq.codebook import powers_of_two
from refldnq.layers.batchnorm import BatchNorm
from refldnq.projection import project
from refldnq.verify.arithmetic import EXACT
from refldnq.verify.claims._examined import by_hand, on_all, satisfies, stated
from refldnq.verify.claims._rational import Exact, draw, exact, inner, squares
from refldnq.verify.claims._single_layer import floats, quadratic
from refldnq.verify.claims.base import Check, Claim, Counterexample, Finding, Instance, Mutation, Statement
from refldnq.verify.naive import layers as naive


def normalized_error(Y: Exact, W: Exact, G: Exact, norm: Instance) -> Any:
    """(1/n) times the squared change of the output of a batch normalization in eval mode, by loops.

    The channels' v + ε are squares of rationals.
    """
    outputs = []
    for weights in (W, G):
        z = naive.linear(Y.T, weights.T)
        x_hat = (z - norm["mean"]) / _roots(norm)
        outputs.append(norm["gamma"] * x_hat + norm["beta"])
    return Fraction(squares(exact(outputs[1] - outputs[0]))) / Y.shape[1]


def _roots(norm: Instance) -> Exact:
    return exact([EXACT.sqrt(v + norm["eps"]) for v in norm["variance"]])


def scales(norm: Instance) -> Exact:
    """s_c = γ_c / √(v_c + ε)."""
    result: Exact = norm["gamma"] / _roots(norm)
    return result


def block_error(instance: Instance, factors: Exact) -> Any:
    """Σ_c factor_c ½ δ_cᵀHδ_c, H = (2/n) YYᵀ."""
    Y, delta = instance["Y"], instance["G"] - instance["W"]
    H = Fraction(2, Y.shape[1]) * (Y @ Y.T)
    return sum(s * quadratic(H, delta[:, c]) for c, s in enumerate(factors))


def unweighted(instance: Instance) -> bool:
    """Whether the block of (10) gives the error after the batch normalization."""
    own = normalized_error(instance["Y"], instance["W"], instance["G"], instance["norm"])
    return bool(block_error(instance, exact([1] * instance["W"].shape[1])) == own)


def weighted(instance: Instance, *, power: int = 2, corner: int = 1) -> bool:
    """Whether the blocks with s_c² do, the folded weights do, and (γ, β) has the stated block.

    Another `power` of s_c or factor of the `corner` is an error to be noticed.
    """
    Y, W, G, norm = (instance[name] for name in ("Y", "W", "G", "norm"))
    s, n = scales(norm), Y.shape[1]
    own = normalized_error(Y, W, G, norm)
    folded = {**instance, "W": s * W, "G": s * G}
    x_hat = (W.T @ Y - norm["mean"][:, None]) / _roots(norm)[:, None]
    gamma, beta = (instance[name] for name in ("d_gamma", "d_beta"))
    total = Fraction(0)
    for c, row in enumerate(x_hat):
        block = Fraction(2, n) * exact([[squares(row), row.sum()], [row.sum(), corner * n]])
        total += quadratic(block, exact([gamma[c], beta[c]]))
    moved = squares(gamma[:, None] * x_hat + beta[:, None]) / n
    return bool(
        block_error(instance, s**power) == own
        and block_error(folded, exact([1] * W.shape[1])) == own
        and total == moved
    )


def problems() -> Iterator[Instance]:
    """Random layers followed by a batch normalization whose v + ε are squares."""
    rng = np.random.default_rng(1401)
    for k in range(40):
        d, m, n = 1 + k % 3, 1 + k % 2, 1 + k % 4
        eps = Fraction(1, 1 + k % 5)
        roots = abs(draw(rng, m)) + 1
        norm = {
            "gamma": draw(rng, m),
            "beta": draw(rng, m),
            "mean": draw(rng, m),
            "variance": roots**2 - eps,
            "eps": eps,
        }
        layer = {"Y": draw(rng, (d, n)), "W": draw(rng, (d, m)), "G": draw(rng, (d, m)), "norm": norm}
        yield {**layer, "d_gamma": draw(rng, m), "d_beta": draw(rng, m)}


def by_package(claim: Claim) -> Finding:
    """The package's layer in both modes; Σx̂ = 0 and Σx̂² = Mv/(v + ε) with batch statistics."""
    corrected = stated(claim, "corrected")
    rng = np.random.default_rng(1402)
    for k in range(30):
        x = exact(rng.integers(-4, 5, (4, 2)))
        mean = x.sum(axis=0) / 4
        variance = exact([squares(column) for column in (x - mean).T]) / 4
        # One ε serves one channel: it makes v + ε a power of 4, whose root float64 has exactly.
        for c in range(2):
            power = Fraction(1)
            while power <= variance[c]:
                power *= 4
            eps = power - variance[c]
            layer = BatchNorm(1, eps=float(eps))
            params = {
                "weight": np.array([2.0]),
                "bias": np.array([3.0]),
                "running_mean": floats(mean[c : c + 1]),
                "running_var": floats(variance[c : c + 1]),
            }
            column = floats(x[:, c : c + 1])
            train = exact(layer.hessian(params, column, mode="train")[0])
            evaluated = exact(layer.hessian(params, column)[0])
            wanted = exact([[2 * variance[c] / power, 0], [0, 2]])
            y, _ = layer.forward(params, column)
            x_hat = (x[:, c] - mean[c]) / EXACT.sqrt(power)
            same = (train == wanted).all() and (evaluated == train).all()
            if not (same and (exact(y[:, 0]) == 2 * x_hat + 3).all()):
                return Finding(ok=False, text=f"the package differs on batch {k + 1}")
    if not all(satisfies(corrected, instance) for instance in problems()):
        return Finding(ok=False, text="the statement fails")
    return Finding(
        ok=True, text="60 channels: Σx̂ = 0 and Σx̂² = Mv/(v + ε) in train mode, outputs, both blocks"
    )


def best_scale(W: Exact, weights: Exact) -> tuple[Any, tuple[int, ...]]:
    """The α and codes in {-1, 0, 1} that minimize Σ weight (w - αq)²."""
    found = []
    for codes in product((-1, 0, 1), repeat=len(W)):
        Q = exact(codes)
        bottom = inner(weights, Q * Q)
        alpha = inner(weights * W, Q) / bottom if bottom else Fraction(0)
        if alpha >= 0:
            found.append((inner(weights, (W - alpha * Q) ** 2), alpha, codes))
    return min(found)[1:]


def optimum(claim: Claim) -> Finding:
    """One α for two channels, H = I, W = (1, 1/2), s = (1, 10): enumerated, and by the package."""
    W, s = exact([1, "1/2"]), exact([1, 10])
    plain, own = best_scale(W, exact([1, 1])), best_scale(W, s * s)
    by_projection = [
        float(project(floats(W), powers_of_two(3), method="exact", weights=weights).alpha)
        for weights in (None, floats(s * s))
    ]
    near = all(
        abs(value - float(alpha)) <= 4e-16
        for value, alpha in zip(by_projection, (plain[0], own[0]), strict=True)
    )
    wanted = (Fraction(3, 4), (1, 1)), (Fraction(51, 101), (1, 1))
    norm = {
        "gamma": s,
        "beta": 0 * s,
        "mean": 0 * s,
        "variance": 0 * s + Fraction(3, 4),
        "eps": Fraction(1, 4),
    }
    Y = exact([[1]])
    layer = {"Y": Y, "W": W[None], "G": own[0] * exact([[1, 1]]), "norm": norm}
    agrees = satisfies(stated(claim, "corrected"), {**layer, "d_gamma": s, "d_beta": s})
    text = f"W = (1, 1/2), s = (1, 10): α = {plain[0]} without and {own[0]} = {float(own[0]):.4g} with s²"
    return Finding(ok=(plain, own) == wanted and near and agrees, text=text)


def _wrong(**changes: Any) -> dict[str, Statement]:
    return {"corrected": replace(CORRECTED, holds=partial(weighted, **changes))}


PRINTED = Statement(
    latex=r"E^l_{\text{after BN}}=\tfrac12\sum_c\delta_c^\top H\delta_c,\qquad H=\tfrac2n\,\hat Y\hat Y^\top",
    words="the Hessian of (8) is the one of the layer's error also where a batch normalization follows",
    holds=unweighted,
)

CORRECTED = Statement(
    latex=r"E^l_{\text{after BN}}=\tfrac12\sum_cs_c^2\,\delta_c^\top H\delta_c,\ \ s_c=\tfrac{\gamma_c}{"
    r"\sqrt{v_c+\epsilon}};"
    r"\qquad H_{(\gamma_c,\beta_c)}=\tfrac2n\begin{pmatrix}\sum\hat x^2&\sum\hat x\\\sum\hat x&M"
    r"\end{pmatrix}",
    words="after a batch normalization in eval mode the block of channel c has the factor s_c squared (none "
    "in "
    "the folded weights); scale and shift have a 2x2 block",
    holds=weighted,
)

EXAMPLE = Counterexample(
    instance={
        "Y": exact([[1]]),
        "W": exact([[0]]),
        "G": exact([[1]]),
        "norm": {
            "gamma": exact([2]),
            "beta": exact([0]),
            "mean": exact([0]),
            "variance": exact(["3/4"]),
            "eps": Fraction(1, 4),
        },
        "d_gamma": exact([1]),
        "d_beta": exact([1]),
    },
    shown="Y = 1, δ = 1, γ = 2, v + ε = 3/4 + 1/4 = 1: the normalized output changes by 2, E = 4, but ½·2·1 "
    "= 1; with "
    "s² = 4 it is 4",
)

CLAIM = Claim(
    id="hessian-batchnorm",
    title="The Hessian with batch normalization",
    source="(8)-(10), Algorithm 1",
    printed=PRINTED,
    verdict="true with a fix",
    reason="right before the batch normalization; after it every channel has the factor s_c²",
    corrected=CORRECTED,
    counterexample=EXAMPLE,
    proof=r"""
*After a batch normalization, eval mode.* $y_c=s_cz_c+\text{const}$ with constants
$s_c=\gamma_c/\sqrt{v_c+\epsilon}$. A change of $z_c$ is multiplied by $s_c$, so $E=\sum_cs_c^2E_c$: blocks
$\frac{2s_c^2}nPP^\top$ in the raw weights. In the folded weights $s_cw_c$ the layer is linear with the input
unchanged: blocks $\frac2nPP^\top$.

*It matters.* With one $\alpha$ for the layer, $H=I$, $W=(1,\frac12)$, $s=(1,10)$, $Q=(1,1)$: without the
factors $\alpha=\frac{1+1/2}{2}=\frac34$, with them $\alpha=\frac{1+100/2}{101}=\frac{51}{101}\approx0.505$.
With one $\alpha$ a channel, $s_c^2$ is a common factor of the channel's objective and does not matter.

*Scale and shift.* $y=\gamma\hat x+\beta$ is linear in $(\gamma,\beta)$, with the two inputs $\hat x$ and $1$;
(10) gives the block, $M$ the number of values of the channel. With the batch's own statistics $\sum\hat x=0$
and $\sum\hat x^2=\sum(x-\mu)^2/(v+\epsilon)=Mv/(v+\epsilon)$: the block is diagonal. $\square$
""",
    checks=(
        by_hand(),
        on_all("blocks with s_c², folded weights, scale and shift", problems, which="corrected"),
        Check(name="the package's batch normalization", kind="exact", run=by_package),
        Check(name="the optimal α", kind="exact", run=optimum),
    ),
    mutations=(
        Mutation(name="corrected: s_c, not squared", changes=_wrong(power=1)),
        Mutation(name="corrected: 2M in the block of (γ, β)", changes=_wrong(corner=2)),
        Mutation(name="printed: with s_c²", changes={"printed": replace(PRINTED, holds=weighted)}),
        Mutation(
            name="counterexample: γ = 1",
            changes={
                "counterexample": replace(
                    EXAMPLE,
                    instance={
                        **EXAMPLE.instance,
                        "norm": {**EXAMPLE.instance["norm"], "gamma": exact([1])},
                    },
                )
            },
        ),
    ),
)
