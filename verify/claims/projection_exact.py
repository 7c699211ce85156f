r"""Theorem P: a sweep over the breakpoints finds the global optimum of (17).

The paper calls (17) "non-convex and non-smooth" and alternates. It is neither hard nor in need of a
heuristic: as α falls from infinity, Q = Proj(V/α) changes at no more than N(b+1) breakpoints |V|/t, one
element by one level at a time, and the best of these Q, each with its own best scale, is a global optimum.
Weights w > 0 are allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np

from refldnq.codebook import powers_of_two
from refldnq.projection import project
from refldnq.verify.claims._examined import survives
from refldnq.verify.claims._projection import alphabet, breakpoints, enumerated, growth, midpoint, sweep
from refldnq.verify.claims._rational import exact
from refldnq.verify.claims.base import Check, Claim, Finding, Instance, Mutation, Statement
from refldnq.verify.falsifier import Space, instances, rationals, vectors
from refldnq.verify.naive import projection as naive

LONGEST = (7, 5, 4, 3)
"""Most elements for b = 0..3: what can be enumerated at once."""

Level = Callable[[int, int], Any]


def optimal(threshold: Level, gain: Level, *, weighted: bool = True) -> Statement:
    """Theorem P with its two formulas, and with or without the weights."""

    def found(instance: Instance) -> tuple[Any, Any]:
        V, b, w = instance["V"], int(instance["b"]), abs(instance["w"])
        point = sweep(V, b, w if weighted else None, threshold=threshold, gain=gain)
        cost = naive.residual(V, point.alpha, point.Q, w)
        return point.residual, cost

    def holds(instance: Instance) -> bool:
        value, cost = found(instance)
        least = enumerated(instance["V"], int(instance["b"]), abs(instance["w"]))
        return bool(value == least and cost == least)

    def sides(instance: Instance, arithmetic: Any) -> tuple[Any, Any]:
        least = enumerated(instance["V"], int(instance["b"]), abs(instance["w"]))
        return arithmetic.number(found(instance)[1]), arithmetic.number(least)

    return Statement(
        latex=r"\min_{\alpha\ge0,Q}\sum_iw_i(V_i-\alpha Q_i)^2=\sum_iw_iV_i^2-\max_{\text{steps}}"
        r"\frac{A^2}{B}",
        words="the sweep over the breakpoints |V|/midpoint returns a global optimum of (17)",
        holds=holds,
        sides=sides,
    )


def planted() -> Iterator[Instance]:
    """1,200 instances, all with coinciding breakpoints; every third has weights that differ."""
    rng = np.random.default_rng(5)
    count = 0
    while count < 1200:
        b = count % 4
        size = int(rng.integers(2, LONGEST[b] + 1))
        V = exact(rng.integers(-6, 7, size)) * Fraction(3, int(rng.integers(2, 9)))
        V[0] = V[-1] * int(rng.choice([-1, 1]))  # equal magnitudes
        if size > 2 and b:  # magnitudes in the ratio of two midpoints
            V[1] = V[-1] * midpoint(1, 2) / midpoint(0, 1)
        ratios = [alpha for alpha, _, _ in breakpoints(V, b)]
        if all(first != second for first, second in pairwise(ratios)):
            continue
        w = exact(rng.integers(1, 5, size)) if count % 3 == 0 else exact(np.ones(size, dtype=int))
        count += 1
        yield {"V": V, "b": b, "w": w / 2}


def enumeration(claim: Claim) -> Finding:
    """The sweep against every Q in integers; a part of them also against the loops of the naive twin."""
    assert claim.printed.holds is not None
    several = weighted = twin = total = 0
    for instance in planted():
        total += 1
        if not claim.printed.holds(instance):
            return Finding(ok=False, text=f"not optimal: V = {instance['V']}, w = {instance['w']}")
        V, b, w = instance["V"], instance["b"], instance["w"]
        weighted += bool((w != w[0]).any())
        if total % 24 == 0 and len(alphabet(b)) ** len(V) <= 300:
            least = naive.brute_force(list(V), alphabet(b), list(w))[2]
            if least != sweep(V, b, w).residual:
                return Finding(ok=False, text=f"the naive twin finds {least} for V = {V}")
            twin += 1
        ratios = [alpha for alpha, _, _ in breakpoints(V, b)]
        several += len(ratios) - len(set(ratios)) > 1
    text = (
        f"sweep = enumeration on {total} instances with equal breakpoints ({several} with several "
        f"ties, "
        f"{weighted} weighted), b = 0..3, exactly; {twin} also by the loops of the naive twin"
    )
    return Finding(ok=True, text=text, numbers={"instances": total, "weighted": weighted})


def library(claim: Claim) -> Finding:
    """`refldnq.projection.project` with the exact method, its float64 point evaluated in rationals."""
    assert claim.printed.sides is not None
    worst = Fraction(0)
    total = 0
    for instance in planted():
        total += 1
        if total % 2:
            continue
        V, b, w = instance["V"].astype(float), instance["b"], instance["w"].astype(float)
        if total % 4 == 0:
            V = V + np.random.default_rng(total).standard_normal(len(V))
        result = project(V, powers_of_two(2 * b + 3), method="exact", weights=w)
        given, mass = exact(V), exact(w)
        Q = exact(powers_of_two(2 * b + 3).values[result.codes])
        cost = naive.residual(given, Fraction(float(result.alpha)), Q, mass)
        least = sweep(given, b, mass).residual
        energy = naive.residual(given, Fraction(0), Q, mass)
        if energy:
            worst = max(worst, (cost - least) / energy)
        if (
            result.guarantee != "global"
            or cost < least
            or abs(Fraction(result.residual) - least) > SLACK * energy
        ):
            return Finding(
                ok=False, text=f"project differs at V = {V}: {result.residual}, exact {float(least)}"
            )
    ok = worst <= SLACK
    text = (
        f"{total // 2} float64 instances: the cost of the library's point, in rationals, is above "
        f"the optimum by at "
        f"most {float(worst):.1e} of ‖V‖²"
    )
    return Finding(ok=ok, text=text)


SLACK = Fraction(1, 10**13)
"""Of ‖V‖²: the kernel's sums of up to 7 terms and one quotient are off by some 10 unit roundoffs, 1e-15;
states equal up to 1e-14 count as equal in the library's sweep."""

SPACE = Space(
    lambda: instances(V=vectors(3), b=rationals(2, (1,), least=0), w=vectors(3, rationals(least=1))),
    fixed=("b",),
    admits=lambda instance: (
        bool((instance["w"] != 0).all() and instance["V"].any())
        and max(v.denominator for v in (*instance["V"], *instance["w"])) < 2000
    ),
)

CLAIM = Claim(
    id="projection-exact",
    title="The projection has an exact solution by sorting",
    source="replaces the alternation of (17)",
    printed=optimal(midpoint, growth),
    verdict="true",
    reason="the rounding at the optimal scale is one of the N(b+1) states of the sweep",
    proof=r"""
**Theorem P.** Let $a_i=|V_i|$, weights $w_i>0$, levels $0=\ell_0<\ell_1<\dots<\ell_{b+1}=2^b$ and midpoints
$t_j=\frac12(\ell_{j-1}+\ell_j)$. Sort the at most $N(b+1)$ breakpoints $a_i/t_j$ ($a_i>0$) downwards. At
each, move element $i$ from level $\ell_{j-1}$ to $\ell_j$: $A\mathrel{+}=w_ia_i(\ell_j-\ell_{j-1})$,
$B\mathrel{+}=w_i(\ell_j^2-\ell_{j-1}^2)$. Then the least cost is $\sum w_iV_i^2-\max A^2/B$.

*Proof.* For given $Q$ with $\sum w_iV_iQ_i>0$ the best scale leaves $\sum w_iV_i^2-(\sum w_iV_iQ_i)^2/\sum
w_iQ_i^2$, and it costs nothing to give $Q$ the signs of $V$. After every move $A=\sum w_iV_iQ_i$ and
$B=\sum w_iQ_i^2$ for the $Q$ reached, which is feasible: every step gives an upper bound of the least cost.
Now let $(\alpha^*,Q^*)$ be optimal and $V\ne0$, so $\alpha^*>0$. Rounding $V/\alpha^*$ to the nearest
levels does not raise the cost, however ties are broken. The state after exactly the breakpoints $>\alpha^*$
is such a rounding, and with its own best scale it costs no more than with $\alpha^*$. So the maximum is
attained. Moves at equal breakpoints may be done in any order: the states between only add feasible
candidates, which is also why rounding errors in the order cannot make the result invalid. The cost is a
sort: $O(Nb\log(Nb))$. $\square$

In the ternary case the sweep is $\max_kS_k^2/k$, $S_k$ the sum of the $k$ largest $|V_i|$.
""",
    checks=(
        Check(name="every Q tried", kind="exact", run=enumeration),
        Check(name="the library's exact projection", kind="float", run=library),
        survives(SPACE, seed=5, which="printed"),
    ),
    mutations=(
        Mutation(
            name="breakpoints at the levels, not at their midpoints",
            changes={"printed": optimal(lambda low, high: Fraction(high), growth)},
        ),
        Mutation(
            name="(ℓ_j - ℓ_{j-1})² in place of ℓ_j² - ℓ_{j-1}²",
            changes={"printed": optimal(midpoint, lambda low, high: (high - low) ** 2)},
        ),
        Mutation(
            name="weights ignored",
            changes={"printed": optimal(midpoint, growth, weighted=False)},
        ),
    ),
)
