r"""Theorem 1 for residual networks: the product of the norms of the weights.

False: the shortcut passes on an error of its own, so a block Sx + F(x) has the factor ‖S‖ + ‖F‖, not ‖F‖.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from refldnq.verify.arithmetic import EXACT, Arithmetic
from refldnq.verify.claims._examined import by_hand, refuted, survives
from refldnq.verify.claims._networks import certified
from refldnq.verify.claims._networks_fc import frobenius, per_sample, spectral
from refldnq.verify.claims._rational import exact
from refldnq.verify.claims.base import Check, Claim, Counterexample, Finding, Instance, Mutation, Statement
from refldnq.verify.falsifier import Space, instances, matrices


def sides(instance: Instance, arithmetic: Arithmetic, factor: Any) -> tuple[Any, Any]:
    """Y = σ(W₁ᵀx), then σ(y + B ᵀσ(Aᵀy)); errors of layer 1, A and B at the reference network's inputs."""
    X, n = arithmetic.array(instance["X"]), instance["X"].shape[1]
    W, A, B, W_hat, A_hat, B_hat = (
        arithmetic.array(instance[name]) for name in ("W", "A", "B", "W_hat", "A_hat", "B_hat")
    )
    y, y_hat = arithmetic.relu(W.T @ X), arithmetic.relu(W_hat.T @ X)
    inner, inner_hat = arithmetic.relu(A.T @ y), arithmetic.relu(A_hat.T @ y_hat)
    out, out_hat = arithmetic.relu(y + B.T @ inner), arithmetic.relu(y_hat + B_hat.T @ inner_hat)
    first = per_sample((W_hat - W).T @ X, n, arithmetic)
    second = per_sample((A_hat - A).T @ y, n, arithmetic)
    third = per_sample((B_hat - B).T @ inner, n, arithmetic)
    right = factor(A_hat, B_hat, first, second, third, arithmetic)
    return per_sample(out_hat - out, n, arithmetic), right


def branch(A: Any, B: Any, first: Any, second: Any, third: Any, arithmetic: Arithmetic) -> Any:
    """The chain W₁, A, B as Theorem 1 has it, with Frobenius norms."""
    a, b = frobenius(A, arithmetic), frobenius(B, arithmetic)
    return b * (a * first + second) + third


def block(A: Any, B: Any, first: Any, second: Any, third: Any, arithmetic: Arithmetic) -> Any:
    """(1 + ‖B‖‖A‖) e₁ + ‖B‖ e₂ + e₃."""
    a, b = spectral(A, arithmetic), spectral(B, arithmetic)
    return first + b * (a * first + second) + third


def shortcut(A: Any, B: Any, first: Any, second: Any, third: Any, arithmetic: Arithmetic) -> Any:
    """Without the branch's own propagation: an error."""
    return first + spectral(B, arithmetic) * second + third


def printed(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """The chain of three weights."""
    return sides(instance, arithmetic, branch)


def corrected(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """The block with its shortcut."""
    return sides(instance, arithmetic, block)


def shortcut_only(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """The shortcut without the branch: an error."""
    return sides(instance, arithmetic, shortcut)


def less(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """Nine tenths of the bound: an error."""
    left, right = corrected(instance, arithmetic)
    return left, arithmetic.number(Fraction(9, 10)) * right


def scalar(W: Any, W_hat: Any, A: Any, B: Any) -> Instance:
    """One neuron everywhere, X = 1; only layer 1 is changed."""
    own = {"W": W, "W_hat": W_hat, "A": A, "B": B, "A_hat": A, "B_hat": B}
    return {"X": exact([[1]]), **{name: exact([[value]]) for name, value in own.items()}}


def linear_branch(claim: Claim) -> Finding:
    """One linear branch: ‖S + Wᵀ‖₂ is exact, ‖S‖ + ‖W‖ a bound of it, and ‖W‖ neither."""
    rng = np.random.default_rng(1601)
    below = 0
    for _ in range(60):
        u = exact(rng.integers(-3, 4, (3, 1)))
        if not u.any():
            continue
        # W = c u uᵀ: I + W has the eigenvalues 1, 1 and 1 + c‖u‖²; all norms are rational.
        c = Fraction(int(rng.integers(-3, 4)), 4)
        length = EXACT.squares(u)
        both, own = max(Fraction(1), abs(1 + c * length)), abs(c) * length
        step = u + c * u @ (u.T @ u)
        if EXACT.squares(step) != (1 + c * length) ** 2 * length or both > 1 + own:
            return Finding(ok=False, text="an eigenvalue is wrong")
        below += own < both
    text = f"W = c·uuᵀ: ‖I + W‖ <= 1 + ‖W‖ always; ‖W‖ < ‖I + W‖, so no bound, in {below} of 60 cases"
    return Finding(ok=below > 0, text=text)


def blocks() -> Iterator[Instance]:
    """Random blocks of two or three neurons."""
    rng = np.random.default_rng(1602)
    for _ in range(150):
        d, n = rng.integers(2, 4, 2)
        own = {name: exact(rng.integers(-5, 6, (d, d))) / 8 for name in ("A", "B")}
        own["W"] = exact(rng.integers(-2, 6, (d, d))) / 4
        changed = {f"{name}_hat": W + exact(rng.integers(-1, 2, (d, d))) / 8 for name, W in own.items()}
        changed["W_hat"][0, 0] += Fraction(1, 4)
        X = exact(rng.integers(0, 6, (d, n)))
        X[0] += 1
        if (own["W"] != changed["W_hat"]).any() and (own["B"] != changed["B_hat"]).any():
            yield {"X": X, **own, **changed}


def space() -> Space:
    """Blocks of one neuron."""
    one = matrices(1, 1)
    return Space(lambda: instances(X=one, **dict.fromkeys(("W", "A", "B", "W_hat", "A_hat", "B_hat"), one)))


PRINTED = Statement(
    latex=r"\hat\varepsilon\le\|\hat B\|_F\big(\|\hat A\|_Fe_1+e_A\big)+e_B\quad"
    r"\text{for }y=\sigma(W_1^\top x),\ \sigma(y+B^\top\sigma(A^\top y))",
    words="Theorem 1, root and errors repaired, for the chain of the three weights of a residual block",
    sides=printed,
)

CORRECTED = Statement(
    latex=r"\hat\varepsilon\le(1+\|\hat B\|_2\|\hat A\|_2)e_1+\|\hat B\|_2e_A+e_B",
    words="the shortcut's 1 is added to the branch's product; for a shortcut S its norm",
    sides=corrected,
)

CLAIM = Claim(
    id="theorem1-residual",
    title="Theorem 1 with residual connections",
    source="Theorem 1, applied to residual networks",
    printed=PRINTED,
    verdict="false",
    reason="the shortcut passes on errors past the weights: 11/10 <= 1/10",
    corrected=CORRECTED,
    counterexample=Counterexample(
        instance=scalar(1, 2, 1, "1/10"),
        shown="X = 1, W₁ = 1, Ŵ₁ = 2, A = 1, B = 1/10: y + y/10, ε̂ = |22/10 - 11/10| = 11/10 <= 1/10·1·1 "
        "is false; "
        "11/10 <= (1 + 1/10)·1 is true",
    ),
    proof=r"""
Let $\delta=\hat y-y$, so $\|\delta\|\le\sqrt n\,e_1$. The branch changes by
$$\hat B^\top\sigma(\hat A^\top\hat y)-B^\top\sigma(A^\top y)
=\hat B^\top[\sigma(\hat A^\top\hat y)-\sigma(\hat A^\top y)]+\hat B^\top[\sigma(\hat A^\top y)-\sigma(A^\top
y)] +(\hat B-B)^\top\sigma(A^\top y),$$
at most $\sqrt n(\|\hat B\|\|\hat A\|e_1+\|\hat B\|e_A+e_B)$; the shortcut $Sy$ changes by at most $\|S\|\sqrt
n\,e_1$. Add, and ReLU is 1-Lipschitz. In general, for a network as a graph in topological order,
$\varepsilon_v\le\sum_{u\to v}\Lambda_{uv}\varepsilon_u+\mathrm{local}_v$. For one linear branch the exact
factor is $\|S+W^\top\|_2\le\|S\|_2+\|W\|_2$. $\square$
""",
    checks=(
        by_hand(),
        Check(name="linear branches", kind="exact", run=linear_branch),
        refuted(space(), seed=1603, tries=500),
        survives(space(), seed=1604, tries=250),
        certified("balls: random blocks", blocks),
    ),
    mutations=(
        Mutation(
            name="corrected: the shortcut alone",
            changes={"corrected": replace(CORRECTED, sides=shortcut_only)},
        ),
        Mutation(
            name="corrected: nine tenths of the bound", changes={"corrected": replace(CORRECTED, sides=less)}
        ),
        Mutation(name="printed: with the shortcut", changes={"printed": replace(PRINTED, sides=corrected)}),
        Mutation(
            name="counterexample: a branch of 10",
            changes={"counterexample": Counterexample(instance=scalar(1, 2, 10, -1), shown="B = -1")},
        ),
    ),
)
