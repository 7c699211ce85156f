r"""The alternation for (17): "we propose to solve it alternatingly: optimize α with Q fixed and vice versa".

It does not solve (17): it ends in a local optimum whose cost can exceed the least by any factor. But its
scales are monotone, its cost never rises, and it ends after at most N(b+1) updates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np

from refldnq.codebook import powers_of_two
from refldnq.projection import project
from refldnq.verify.arithmetic import EXACT
from refldnq.verify.claims._examined import by_hand, on_all, refuted, survives
from refldnq.verify.claims._projection import alternated, rounding, sweep, updated
from refldnq.verify.claims._rational import exact
from refldnq.verify.claims.base import Check, Claim, Counterexample, Finding, Instance, Mutation, Statement
from refldnq.verify.falsifier import Space, instances, rationals, vectors
from refldnq.verify.naive.projection import residual

Most = Callable[[int, int], int]
"""The most updates, of N and b."""


HALF = Fraction(1, 2)
"""The least that an update leaves of the scale."""


SLOW: tuple[tuple[tuple[int, ...], str], ...] = (((5, 1), "1/100"), ((1000, 782, 467, 390), "1571"))
"""V and starts of the scale: at b = 1 N = 2 takes 3 updates, more than N; N = 4 takes 6, over N + b."""


def against_optimum(instance: Instance, arithmetic: Any) -> tuple[Any, Any]:
    """The costs of the alternation from mean|V| and of the global optimum."""
    V, b = instance["V"], int(instance["b"])
    return arithmetic.number(alternated(V, b)[0].residual), arithmetic.number(sweep(V, b).residual)


def orderly(most: Most, share: Fraction = HALF) -> Callable[[Instance], bool]:
    """A statement: scales are monotone, costs never rise, at most `most` updates, none below the optimum.

    And g(α) is at least `share` of α, at all scales on the way.
    """

    def holds(instance: Instance) -> bool:
        V, b = instance["V"], int(instance["b"])
        point, scales = alternated(V, b, instance.get("alpha"))
        steps = [new - old for old, new in pairwise(scales)]
        costs = [residual(V, alpha, rounding(V, alpha, b)) for alpha in scales]
        monotone = all(step > 0 for step in steps) or all(step < 0 for step in steps)
        falling = all(new <= old for old, new in pairwise(costs))
        half = all(updated(V, alpha, b) >= share * alpha for alpha in scales)
        ends = updated(V, point.alpha, b) == point.alpha
        short = len(steps) <= most(len(V), b)
        return bool(
            monotone and falling and half and ends and short and point.residual >= sweep(V, b).residual
        )

    return holds


def ordered_map(order: Callable[[Any, Any], tuple[Any, Any]]) -> Callable[[Instance, Any], tuple[Any, Any]]:
    """The map g at two scales: g(smaller) ≤ g(larger), with `order` sorting the scales."""

    def sides(instance: Instance, arithmetic: Any) -> tuple[Any, Any]:
        V, b = instance["V"], int(instance["b"])
        largest = 2 * abs(V).max() - Fraction(1, 10**9)  # beyond it all rounds to 0
        given = [min(abs(instance[name]) + Fraction(1, 1000), largest) for name in ("alpha", "beta")]
        low, high = order(*given)
        return arithmetic.number(updated(V, low, b)), arithmetic.number(updated(V, high, b))

    return sides


def stated(
    most: Most,
    order: Callable[[Any, Any], tuple[Any, Any]] = lambda a, b: (min(a, b), max(a, b)),
    share: Fraction = HALF,
) -> Statement:
    """What is true of the alternation, with a bound of the updates and an order of the scales."""
    statement = orderly(most, share)
    return Statement(
        latex=r"\alpha\le\beta\Rightarrow g(\alpha)\le g(\beta),\ g(\alpha)=\frac{V^\top Q(\alpha)}"
        r"{Q(\alpha)^\top Q(\alpha)}\ge\frac\alpha2;\quad\text{at most }N(b+1)\text{ updates}",
        words="the map of the scale is nondecreasing, so scales are monotone; at most N(b+1) "
        "updates; a local optimum",
        holds=lambda instance: "beta" in instance or statement(instance),
        sides=lambda instance, arithmetic: (
            ordered_map(order)(instance, arithmetic) if "beta" in instance else (0, 0)
        ),
    )


def samples() -> Iterator[Instance]:
    """Random V with ties, from their mean and from random scales at which not all rounds to 0."""
    rng = np.random.default_rng(57)
    for k in range(100):
        b = k % 4
        V = exact(rng.integers(-12, 13, 2 + k % 9)) / int(rng.integers(1, 4))
        if not V.any():
            continue
        yield {"V": V, "b": b}
        yield {
            "V": V,
            "b": b,
            "alpha": abs(V).max() * Fraction(int(rng.integers(1, 20)), 10) - Fraction(1, 10**6),
        }
    yield from ({"V": exact(V), "b": 1, "alpha": exact(alpha).item()} for V, alpha in SLOW)
    # Just below the breakpoint of all elements, where everything rounds to 1, g(α) is barely over α/2.
    yield {"V": exact([1, 1, 1]), "b": 0, "alpha": Fraction(2) - Fraction(1, 1000)}


def lemma() -> Iterator[Instance]:
    """Random V and pairs of scales."""
    rng = np.random.default_rng(58)
    for k in range(150):
        V = exact(rng.integers(-12, 13, 2 + k % 9)) / int(rng.integers(1, 4))
        alpha, beta = exact(rng.integers(1, 60, 2)) / 8
        if V.any():
            yield {"V": V, "b": k % 4, "alpha": alpha, "beta": beta}


def bad(n: int) -> Any:
    """(n + 1, 1, ..., 1), n ones."""
    return exact([n + 1, *[1] * n])


def family(claim: Claim) -> Finding:
    """The costs n³/(n+1) and n as fractions, and the library's float64 result."""
    lines = []
    for n in (2, 3, 10, 100):
        left, right = against_optimum({"V": bad(n), "b": 0}, EXACT)
        library = project(bad(n).astype(float), powers_of_two(3))
        same = abs(library.residual - float(left)) <= 1e-12 * float(left)
        if left != Fraction(n**3, n + 1) or right != n or not same or library.guarantee != "local":
            return Finding(ok=False, text=f"n = {n}: {left} against {right}, library {library.residual}")
        lines.append(f"n = {n}: {left} against {right}")
    return Finding(ok=True, text="V = (n+1, 1, ..., 1), cost n³/(n+1) against n: " + "; ".join(lines))


CLAIM = Claim(
    id="projection-alternation",
    title="The alternation is not a solver of (17)",
    source="after (17)",
    printed=Statement(
        latex=r"Q=\mathrm{Proj}(V/\alpha),\ \alpha=\tfrac{V^\top Q}{Q^\top Q}\ \text{in turn "
        r"solve (17)}",
        words="the alternation from α = mean|V| ends at a global optimum of (17)",
        sides=against_optimum,
    ),
    verdict="false",
    reason="a local optimum, as bad as n²/(n+1) times the least cost for V = (n+1, 1, ..., 1)",
    corrected=stated(lambda size, b: size * (b + 1)),
    counterexample=Counterexample(
        instance={"V": exact([2, 1]), "b": 1},
        shown="V = (2, 1), values 0, ±1, ±2: α = 3/2 rounds both to 1, fixed with cost 1/2; 1·(2, 1) costs 0",
    ),
    proof=r"""
Let $g(\alpha)=V^\top Q(\alpha)/Q(\alpha)^\top Q(\alpha)$, $Q(\alpha)$ the rounding of $V/\alpha$, where it
is not 0.

**Lemma.** $g(\alpha)\ge\alpha/2$ and $g$ is nondecreasing. *Proof.* An element rounded to $\ell_j$ has
$|V_i|\ge t_j\alpha\ge\frac{\ell_j}2\alpha$, so $V^\top Q\ge\frac\alpha2Q^\top Q$. When $\alpha$ rises
through the breakpoint $|V_i|/t_j$, numerator and denominator lose $|V_i|(\ell_j-\ell_{j-1})=\alpha
t_j(\ell_j-\ell_{j-1})=\frac\alpha2d$ and $d=\ell_j^2-\ell_{j-1}^2$. Taking away a part of quotient
$\frac\alpha2\le g$ does not lower the quotient. $\square$

So the sequence $\alpha\mapsto g(\alpha)$ is monotone: if $\alpha_1\le\alpha_0$ then
$\alpha_2=g(\alpha_1)\le g(\alpha_0)=\alpha_1$, and so on. The first update of $\alpha$ needs no change of
$Q$, every later one does, and a change moves at least one of $N$ elements across one of $b+1$ breakpoints,
always in the same direction. $Q$ is never 0: if $\alpha$ falls, at least one of the $N(b+1)$ crossings from 0
upwards was made before; if it rises, at least one of those down to 0 is never made. So at most $N(b+1)-1$
crossings remain either way, and there are at most $N(b+1)$ updates. ($N$ are not enough for $b>0$: $V=(5,1)$,
$b=1$ takes $\frac1{100}\to\frac32\to\frac{11}5\to\frac52$, three for $N=2$.) The alternation ends at the
first fixed point on its way. Each half step minimizes the cost over one variable, so the cost never rises.

**Arbitrarily bad.** $V=(n+1,1,\dots,1)$, $n$ ones, ternary: $\alpha_0=\frac{2n+1}{n+1}<2$, so
$\alpha_0/2<1$ and $Q=(1,\dots,1)$, whose best scale is $\alpha_0$: a fixed point of cost
$(n+1)^2+n-\frac{(2n+1)^2}{n+1}=\frac{n^3}{n+1}$ (the least ternary integers: $(5,2)$ with $\frac92$ against
4). The point $(n+1)e_1$ costs $n$. The ratio $\frac{n^2}{n+1}$ exceeds every bound.
""",
    checks=(
        by_hand(corrected=True),
        Check(name="the family (n+1, 1, ..., 1)", kind="exact", run=family),
        on_all("monotone scales, falling cost, few updates", samples, which="corrected"),
        on_all("the map is nondecreasing", lemma, which="corrected"),
        refuted(
            Space(
                lambda: instances(V=vectors(3, rationals(8, (1,))), b=rationals(1, (1,), least=0)),
                fixed=("b",),
            ),
            seed=57,
        ),
        survives(
            Space(
                lambda: instances(
                    V=vectors(4, rationals(8, (1, 2))),
                    b=rationals(2, (1,), least=0),
                    alpha=rationals(8, (1, 2, 4), least=1),
                    beta=rationals(8, (1, 2, 4), least=1),
                ),
                fixed=("b",),
                admits=lambda instance: bool(abs(instance["V"]).max() > 1),
            ),
            seed=58,
        ),
    ),
    mutations=(
        Mutation(
            name="at most two updates",
            changes={"corrected": stated(lambda size, b: 2)},
        ),
        Mutation(
            name="at most N updates",
            changes={"corrected": stated(lambda size, b: size)},
        ),
        Mutation(
            name="at most N + b updates",
            changes={"corrected": stated(lambda size, b: size + b)},
        ),
        Mutation(
            name="g(α) is at least 0.51 α",
            changes={"corrected": stated(lambda size, b: size * (b + 1), share=Fraction(51, 100))},
        ),
        Mutation(
            name="the map is nonincreasing",
            changes={
                "corrected": stated(lambda size, b: size * (b + 1), lambda a, b: (max(a, b), min(a, b)))
            },
        ),
        Mutation(
            name="(2, 1) as the counterexample",
            changes={
                "counterexample": Counterexample(instance={"V": exact([2, 1]), "b": 0}, shown="V = (2, 1)")
            },
        ),
    ),
)
