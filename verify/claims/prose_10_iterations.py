r"""Less than 10 iterations: "α and Q could reach a stable range in less than 10 iterations".

False in general: an explicit family needs N - 1 updates, and already Gaussian weights need more than 10 for
all but the smallest sets. What bounds the updates is N(b+1); whether more than N are ever needed from mean|V|
is open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from statistics import median
from typing import Any

import numpy as np

from refldnq.codebook import powers_of_two
from refldnq.projection import project
from refldnq.verify.arithmetic import EXACT
from refldnq.verify.claims._examined import by_hand, on_all, refuted, survives
from refldnq.verify.claims._projection import alternated
from refldnq.verify.claims._rational import exact
from refldnq.verify.claims.base import (
    Check,
    Claim,
    Counterexample,
    Figure,
    Finding,
    Instance,
    Mutation,
    Sides,
    Statement,
)
from refldnq.verify.falsifier import Space, instances, rationals, vectors


def updates(V: Any, b: int) -> int:
    """Updates of the scale from mean|V| to the fixed point."""
    return len(alternated(V, b)[1]) - 1


def fewer(most: Any) -> Sides:
    """The number of updates and its claimed bound, of N and b."""

    def sides(instance: Instance, arithmetic: Any) -> tuple[Any, Any]:
        V, b = instance["V"], int(instance["b"])
        return arithmetic.number(updates(V, b)), arithmetic.number(most(len(V), b))

    return sides


def slow(size: int) -> Any:
    """The family v₁ = 1, v_k = S_{k-1}/(2k-1)·(1 - 1/(4k)): every update drops exactly one element."""
    V, total = [Fraction(1)], Fraction(1)
    for k in range(2, size + 1):
        V.append(total / (2 * k - 1) * (1 - Fraction(1, 4 * k)))
        total += V[-1]
    return exact(V)


SHORT = (97, 32, 25, 21, 19, 17, 16, 15, 14, 13, 12)
"""Eleven integers with ten updates, the least that taking each as large as the family allows gives."""

ALL = (1000, 213, 187, 181, 171, 155, 150, 142)
"""Eight integers with eight updates for b = 1, found by search; none was found with more than N."""

INTEGERS = (10000, 2916, 2368, 2047, 1829, 1669, 1545, 1445, 1362, 1292, 1232, 1179)
"""Twelve integers near the family, scaled, with eleven updates."""


def families(claim: Claim) -> Finding:
    """N - 1 updates for N = 5, 12, 30, 100, in rationals, and two instances of integers."""
    counts = {size: updates(slow(size), 0) for size in (5, 12, 30, 100)}
    V = slow(12)
    dropped = alternated(V, 0)[1] == [V[:k].sum() / k for k in range(12, 0, -1)]
    whole = [updates(exact(V), 0) for V in (SHORT, INTEGERS)]
    most = updates(exact(ALL), 1)
    library = project(np.array(INTEGERS, dtype=float), powers_of_two(3)).passes
    ok = (
        counts == {5: 4, 12: 11, 30: 29, 100: 99}
        and dropped
        and whole == [10, 11]
        and library == 11
        and most == len(ALL)
    )
    text = (
        "updates in rationals: "
        + ", ".join(f"N = {n}: {count}" for n, count in counts.items())
        + f"; the integers {INTEGERS}: {whole[1]}; b = 1, {ALL}: {most}"
    )
    return Finding(ok=ok, text=text, numbers={str(n): count for n, count in counts.items()})


DRAWS: dict[str, Callable[[np.random.Generator, int], Any]] = {
    "Gaussian": lambda rng, size: rng.standard_normal(size),
    "Laplace": lambda rng, size: rng.laplace(size=size),
    "Pareto 1.8": lambda rng, size: rng.choice([-1, 1], size) * (rng.pareto(1.8, size) + 1),
}
"""Distributions of weights; the last has heavy tails."""

TIMES = 9
"""Draws a distribution and set."""


def measured(claim: Claim) -> Finding:
    """Median updates of the library's alternation at N = 10,000, by distribution and set."""
    rng = np.random.default_rng(10)
    table = {
        name: tuple(
            float(median(project(draw(rng, 10_000), powers_of_two(2 * b + 3)).passes for _ in range(TIMES)))
            for b in range(4)
        )
        for name, draw in DRAWS.items()
    }
    limit = claim.printed.sides({"V": exact([1]), "b": 0}, EXACT)[1] if claim.printed.sides else 0
    beyond = sum(count > limit for counts in table.values() for count in counts)
    values = tuple(float(2 * b + 3) for b in range(4))
    figure = Figure(
        title=f"Updates of α until the alternation is stable, N = 10,000, median of {TIMES}",
        x="values in the set",
        y="updates",
        curves={
            **{name: (values, counts) for name, counts in table.items()},
            "10": ((3.0, 9.0), (10.0, 10.0)),
        },
        log="y",
    )
    rows = "; ".join(f"{name} " + ", ".join(f"{c:g}" for c in counts) for name, counts in table.items())
    text = f"median updates for b = 0..3: {rows}; {beyond} of 12 medians are 10 or more"
    return Finding(ok=beyond >= 6, text=text, numbers=dict(table), figures=(figure,))


def samples() -> Iterator[Instance]:
    """The two families and random V with ties."""
    rng = np.random.default_rng(11)
    yield from ({"V": slow(size), "b": 0} for size in (2, 5, 12))
    yield {"V": exact(SHORT), "b": 0}
    yield {"V": exact(ALL), "b": 1}
    for k in range(100):
        V = exact(rng.integers(-20, 21, 2 + k % 9))
        if V.any():
            yield {"V": V, "b": k % 4}


def stated(most: Any, words: str) -> Statement:
    """A bound of the updates."""
    return Statement(latex=r"\#\{\text{updates of }\alpha\}\le N(b+1)", words=words, sides=fewer(most))


CLAIM = Claim(
    id="prose-10-iterations",
    title="α and Q are stable in less than 10 iterations",
    source="after (17)",
    printed=Statement(
        latex=r"\#\{\text{updates of }\alpha\}<10",
        words="read as: from mean|V| the alternation is stable after fewer than 10 updates",
        sides=fewer(lambda size, b: 9),
    ),
    verdict="false",
    reason="N - 1 updates for an explicit family; medians of about 10 to 90 for 10,000 random weights",
    corrected=stated(
        lambda size, b: size * (b + 1),
        "at most N(b+1) updates; N - 1 are needed for some ternary V, N for some of b = 1; whether from "
        "mean|V| more than N ever are is open",
    ),
    counterexample=Counterexample(
        instance={"V": exact(SHORT), "b": 0},
        shown=f"V = {SHORT}, ternary: α = 281/11, 269/10, 256/9, ... drops the last element ten "
        f"times, ends at 97",
    ),
    proof=r"""
The bound $N(b+1)$ is in the claim on the alternation: scales are monotone, every update but the first needs
an element that has crossed a breakpoint, and as $Q$ is never 0 at most $N(b+1)-1$ crossings remain after the
start. From other starts more than $N$ updates are needed for $b>0$, see there. From $\mathrm{mean}|V|$ the
most that was found here is $N$, so there it is open whether the factor $b+1$ is needed. For ternary sets the
bound is $N$, and it cannot be improved to less than $N-1$: let
$v_1=1$, $S_k=v_1+\dots+v_k$ and $v_k=\frac{S_{k-1}}{2k-1}(1-\frac1{4k})$. At $\alpha=S_k/k$ the element
$v_k$ rounds to 0, as $v_k<\frac{S_k}{2k}$ iff $(2k-1)v_k<S_{k-1}$; and $v_{k-1}>\frac{S_k}{2k}$ remains
(checked exactly for the stated $N$). So from $\alpha_0=S_N/N$ each update drops one element, until
$\alpha=1$: $N-1$ updates.
""",
    checks=(
        by_hand(),
        Check(name="explicit families", kind="exact", run=families),
        on_all("the bound N(b+1)", samples, which="corrected"),
        refuted(
            Space(
                lambda: instances(V=vectors(30, rationals(60, (1,))), b=rationals(3, (1,), least=3)),
                fixed=("b",),
                admits=lambda instance: bool(instance["V"].any()),
            ),
            seed=10,
            tries=150,
        ),
        survives(
            Space(
                lambda: instances(V=vectors(4, rationals(60, (1,))), b=rationals(3, (1,), least=0)),
                admits=lambda instance: bool(instance["V"].any()) and 0 <= instance["b"] <= 3,
            ),
            seed=12,
        ),
        Check(name="random weights", kind="measured", run=measured),
    ),
    mutations=(
        Mutation(
            name="at most half of N(b+1)",
            changes={"corrected": stated(lambda size, b: size * (b + 1) / 2, "N(b+1)/2")},
        ),
        Mutation(
            name="at most N - 1 updates",
            changes={"corrected": stated(lambda size, b: size - 1, "N - 1")},
        ),
        Mutation(
            name="fewer than 200 updates",
            changes={
                "printed": Statement(latex="200", words="200", sides=fewer(lambda size, b: 199)),
            },
        ),
        Mutation(
            name="a counterexample of 9 updates",
            changes={
                "counterexample": Counterexample(instance={"V": exact(SHORT[:10]), "b": 0}, shown="N = 10")
            },
        ),
    ),
)
