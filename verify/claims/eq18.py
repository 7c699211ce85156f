r"""(18): the dual update λ + Θ - G. True.

It is gradient ascent in the unscaled dual y = ρλ with step ρ, and equals V - G: the part of V that the
projection removes. With the exact projection and a free scale λ is orthogonal to G.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from refldnq.verify.claims._admm import State, free, gradient, step
from refldnq.verify.claims._examined import on_all
from refldnq.verify.claims._rational import draw, inner, semidefinite, squares
from refldnq.verify.claims.base import Claim, Instance, Mutation, Statement

Update = Callable[[Any, Any, Any, Any], Any]
"""λ of the next iteration, of ρ, λ, Θ and G."""


def after(instance: Instance, update: Update) -> tuple[State, Any]:
    """The state of an iteration, and λ by `update`."""
    H, W, rho, G, lam, b = (instance[name] for name in ("H", "W", "rho", "G", "lam", "b"))
    state = step(H, W, rho, free(b), G, lam)
    return state, update(rho, lam, state.theta, state.G)


def ascends(update: Update) -> Callable[[Instance], bool]:
    """A statement: `update` is ascent in y = ρλ with step ρ along the constraint Θ - G."""

    def holds(instance: Instance) -> bool:
        state, new = after(instance, update)
        y, rho = instance["rho"] * instance["lam"], instance["rho"]
        return bool((rho * new == y + rho * (state.theta - state.G)).all())

    return holds


def invariants(update: Update) -> Callable[[Instance], bool]:
    """A statement: `update` is V less its projection, orthogonal to G; ∇f(Θ) = -ρλ once G stays."""

    def holds(instance: Instance) -> bool:
        H, W, rho, G = (instance[name] for name in ("H", "W", "rho", "G"))
        state, new = after(instance, update)
        removed = new == state.V - state.G
        stationary = gradient(H, W, state.theta) == -rho * (new + state.G - G)
        orthogonal = inner(state.G, new) == 0
        pythagoras = squares(state.G) + squares(new) == squares(state.V)
        return bool(removed.all() and stationary.all() and orthogonal and pythagoras)

    return holds


def states() -> Iterator[Instance]:
    """Random problems and states, H of any rank, b = 0, 1, 2."""
    rng = np.random.default_rng(18)
    for k in range(150):
        d = 1 + k % 3
        yield {
            "H": semidefinite(rng, d, int(rng.integers(1, d + 1))),
            "W": draw(rng, d),
            "rho": abs(draw(rng, 1)[0]) + Fraction(1, 3),
            "G": draw(rng, d),
            "lam": draw(rng, d),
            "b": k % 3,
        }


def stated(update: Update) -> Statement:
    """(18) with an update."""
    return Statement(
        latex=r"\lambda^{k+1}=\lambda^k+\hat\Theta^{k+1}-G^{k+1}",
        words="read as: ascent in the unscaled dual y = ρλ, with step ρ",
        holds=ascends(update),
    )


def more(update: Update) -> Statement:
    """What follows, with an update."""
    return Statement(
        latex=r"\lambda^{k+1}=V^k-G^{k+1},\quad\langle G^{k+1},\lambda^{k+1}\rangle=0",
        words="λ is V less its projection; with the exact projection and a free scale orthogonal to G",
        holds=invariants(update),
    )


def as_printed(rho: Any, lam: Any, theta: Any, G: Any) -> Any:
    """λ + Θ - G."""
    return lam + theta - G


CLAIM = Claim(
    id="eq18",
    title="The dual update",
    source="(18)",
    printed=stated(as_printed),
    verdict="true",
    reason="gradient ascent in y = ρλ with step ρ",
    corrected=more(as_printed),
    proof=r"""
The dual function's ascent direction is the constraint's violation $\hat\Theta^{k+1}-G^{k+1}$; with step
$\rho$, $y^{k+1}=y^k+\rho(\hat\Theta^{k+1}-G^{k+1})$, which is (18) for $\lambda=y/\rho$. As
$V^k=\hat\Theta^{k+1}+\lambda^k$, $\lambda^{k+1}=V^k-G^{k+1}$. By (15), $\nabla
f(\hat\Theta^{k+1})=-\rho(\hat\Theta^{k+1}-G^k+\lambda^k) =-\rho(\lambda^{k+1}+G^{k+1}-G^k)$: once $G$
stays, $\rho\lambda=-\nabla f(\hat\Theta)$.

With the exact projection and a free scale, $G^{k+1}=\alpha Q$ and $\alpha$ minimizes $\|V-\alpha Q\|^2$, so
$\langle V-G,G\rangle=0$ (also if $G=0$): $\langle G,\lambda\rangle=0$ and $\|G\|^2+\|\lambda\|^2=\|V\|^2$.
Both are exact and cost nothing to assert in a program.
""",
    checks=(
        on_all("one iteration from random states", states),
        on_all("what follows", states, which="corrected"),
    ),
    mutations=(
        Mutation(
            name="wrong sign",
            changes={"printed": stated(lambda rho, lam, theta, G: lam - theta + G)},
        ),
        Mutation(
            name="unscaled step ρ(Θ - G)",
            changes={"printed": stated(lambda rho, lam, theta, G: lam + rho * (theta - G))},
        ),
        Mutation(
            name="corrected: wrong sign",
            changes={"corrected": more(lambda rho, lam, theta, G: lam - theta + G)},
        ),
        Mutation(
            name="the old dual forgotten",
            changes={"printed": stated(lambda rho, lam, theta, G: theta - G)},
        ),
    ),
)
