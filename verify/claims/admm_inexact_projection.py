r"""The alternation in place of the projection, inside ADMM.

The descent of the Lyapunov function needs ‖V - Gᵏ⁺¹‖ ≤ ‖V - Gᵏ‖. The alternation started at the last α has
it, started at mean|V| as for a single projection it does not, and can hold ADMM at a bad point for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from refldnq.codebook import powers_of_two
from refldnq.solvers.admm import AdmmSettings
from refldnq.solvers.admm import solve as admm
from refldnq.verify.claims._admm import error, free, kept_dual, run
from refldnq.verify.claims._examined import by_hand, on_all, refuted, survives
from refldnq.verify.claims._projection import alternated, mean, rounding
from refldnq.verify.claims._rational import exact, identity, squares
from refldnq.verify.claims.base import (
    Check,
    Claim,
    Counterexample,
    Finding,
    Instance,
    Mutation,
    Sides,
    Statement,
)
from refldnq.verify.falsifier import Space, instances, rationals, vectors

Begin = Callable[[Any, Any], Any]
"""Where the alternation starts, of V and the last scale."""


def approaches(begin: Begin) -> Sides:
    """‖V - G⁺‖² and ‖V - G‖²: G = αQ the last point, G⁺ where the alternation from `begin` ends."""

    def sides(instance: Instance, arithmetic: Any) -> tuple[Any, Any]:
        V, b, alpha = instance["V"], int(instance.get("b", 0)), instance["alpha"]
        last = alpha * rounding(instance["Z"], Fraction(1), b)
        start = begin(V, alpha)
        if not rounding(V, start, b).any():
            start = mean(V)  # as the library does: α = 0/0 otherwise
        new = alternated(V, b, start)[0]
        return arithmetic.number(new.residual), arithmetic.number(squares(V - last))

    return sides


def stated(begin: Begin, words: str) -> Statement:
    """That the alternation from a start does not move away from V."""
    return Statement(latex=r"\|V^k-G^{k+1}\|\le\|V^k-G^k\|", words=words, sides=approaches(begin))


def from_mean(V: Any, alpha: Any) -> Any:
    """The mean of |V|."""
    return mean(V)


def from_last(V: Any, alpha: Any) -> Any:
    """The last scale."""
    return alpha


H, W, RHO = identity(4), exact([4, 1, 1, 1]), Fraction(6, 5)
"""The example: λ_max = 1 < ρ."""


def example(claim: Claim) -> Finding:
    """Exact runs on H = I, W = (4, 1, 1, 1), ρ = 6/5 with both projections, and the library's."""

    def alternation(V: Any) -> Any:
        return alternated(V, 0)[0].G

    stuck = run(H, W, RHO, alternation, alternation(W), 0 * W, 30)
    equal = Fraction(7, 4) * exact([1, 1, 1, 1])
    never_moves = all((state.G == equal).all() for state in stuck)
    V = equal + kept_dual(H, W, RHO, equal)
    fixed = (alternation(V) == equal).all() and not (free(0)(V) == equal).all()
    moving = run(H, W, RHO, free(0), alternation(W), 0 * W, 30)
    best = exact([4, 0, 0, 0])
    ends = error(H, W, moving[-1].G) - Fraction(3, 2)
    stays = (free(0)(best + kept_dual(H, W, RHO, best)) == best).all()
    values = {}
    for method in ("alternating", "exact"):
        settings = AdmmSettings(
            rho=1.2,
            rho_scale="absolute",
            iterations=60,
            projection=method,
            warm_start=False,
            returned="last",
        )
        values[method] = admm(
            np.eye(4)[None], W.astype(float)[None, :, None], powers_of_two(3), settings
        ).objective
    same = abs(values["alternating"] - 3.375) <= 1e-9 and abs(values["exact"] - 1.5) <= 1e-9
    ok = bool(never_moves and fixed and stays and 0 <= ends < Fraction(1, 10**6) and same)
    text = (
        "H = I, W = (4, 1, 1, 1), ρ = 6/5: the alternation stays at 7/4·(1, 1, 1, 1), f = 27/8, "
        "for ever; the exact "
        f"projection is led to (4, 0, 0, 0), f = 3/2 (within {float(ends):.0e} after 30 rational "
        f"steps); the library agrees"
    )
    return Finding(ok=ok and error(H, W, equal) == Fraction(27, 8), text=text)


def samples() -> Iterator[Instance]:
    """Random V, last points and scales, b = 0..2."""
    rng = np.random.default_rng(79)
    for k in range(300):
        V = exact(rng.integers(-9, 10, 2 + k % 4))
        if V.any():
            yield {
                "V": V,
                "Z": exact(rng.integers(-9, 10, len(V))) / 2,
                "alpha": Fraction(int(rng.integers(1, 40)), 8),
                "b": k % 3,
            }


SPACE = Space(
    lambda: instances(
        V=vectors(4, rationals(6, (1,))), Z=vectors(4, rationals(2, (1,))), alpha=rationals(8, (1,), least=1)
    ),
    admits=lambda instance: bool(instance["V"].any()) and instance["alpha"] > 0,
)

CLAIM = Claim(
    id="admm-inexact-projection",
    title="The alternation inside ADMM",
    source="after (17)",
    printed=stated(from_mean, "the alternation from mean|V| never moves away from V: ‖V - G⁺‖ ≤ ‖V - G‖"),
    verdict="true with a fix",
    reason="true if it starts at the last α, false from mean|V|; neither finds the nearest point",
    corrected=stated(
        from_last, "the alternation from the last α never moves away from V: ‖V - G⁺‖ ≤ ‖V - G‖"
    ),
    counterexample=Counterexample(
        instance={"V": exact([5, 2]), "Z": exact([1, 0]), "alpha": Fraction(5)},
        shown="V = (5, 2), G = (5, 0): ‖V - G‖² = 4; from mean|V| = 7/2 it ends at (7/2, 7/2), "
        "‖V - G⁺‖² = 9/2",
    ),
    proof=r"""
Let $G^k=\alpha Q$. The alternation from $\alpha$ first rounds, $Q'=\mathrm{Proj}(V/\alpha)$, and
$\|V-\alpha Q'\|\le\|V-\alpha Q\|$, as rounding is optimal for given $\alpha$. No later half step raises the
cost. (If $Q'=0$, the cost so far is $\|V\|^2\le\|V-G^k\|^2$, and the restart at the mean ends below
$\|V\|^2$.) In the proof of convergence the projection enters descent only through
$\|V^k-G^{k+1}\|\le\|V^k-G^k\|$, so the Lyapunov function falls, and $f(G^k)\le f(G^0)$ from the right
start; but limits are fixed points of the alternation only.

**A bad one.** $H=I$, $\bar\Theta=(4,1,1,1)$, $\rho=\frac65$: at $G=\frac74(1,1,1,1)$,
$\lambda=-\frac56(G-\bar\Theta)$, $V=(\frac{29}8,\frac98,\frac98,\frac98)$ has mean $\frac74$ and no entry
below half of it: the alternation stays, with $f=\frac{27}8$. The nearest point to $V$ is $\frac{29}8e_1$,
as $(\frac{29}8)^2>\frac{7^2}4$.
""",
    checks=(
        by_hand(),
        Check(name="H = I, W = (4, 1, 1, 1)", kind="exact", run=example),
        on_all("from the last scale", samples, which="corrected"),
        refuted(SPACE, seed=79, tries=900),
        survives(SPACE, seed=80, tries=300),
    ),
    mutations=(
        Mutation(
            name="start at half the last α",
            changes={"corrected": stated(lambda V, alpha: alpha / 2, "from half the last α")},
        ),
        Mutation(
            name="corrected by a start at mean|V|",
            changes={"corrected": stated(from_mean, "from mean|V|")},
        ),
        Mutation(
            name="a counterexample where both agree",
            changes={
                "counterexample": Counterexample(
                    instance={"V": exact([5, 4]), "Z": exact([1, 0]), "alpha": Fraction(5)},
                    shown="V = (5, 4)",
                )
            },
        ),
    ),
)
