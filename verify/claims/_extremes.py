"""What (3) and (4) share: whether the stationary point of L_ρ in one variable is a maximum or a minimum."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from refldnq.verify.arithmetic import EXACT, Arithmetic
from refldnq.verify.claims._examined import stated
from refldnq.verify.claims._rational import draw
from refldnq.verify.claims._splitting import Splitting, problem, slope, splittings
from refldnq.verify.claims.base import Check, Claim, Finding, Instance, Sides
from refldnq.verify.falsifier import Space, instances, matrices, rationals, vectors

Variable = Literal["x", "z"]
"""The variable of the step: x of (3), z of (4)."""


def lagrangian(own: Splitting, x: Any, z: Any, lam: Any) -> Any:
    """(2), in any number system."""
    shifted = own.h(x, z) + lam
    return own.f(x) + own.g(z) + own.rho / 2 * ((shifted * shifted).sum() - (lam * lam).sum())


def values(instance: Instance, arithmetic: Arithmetic, variable: Variable, sign: int = 1) -> tuple[Any, Any]:
    """L_ρ at the instance's own point and at the point where the gradient in one variable is zero.

    With `sign` -1 the step's formula has -λ in place of λ, an error to be noticed.
    """
    own = problem(instance, arithmetic)
    x, z, lam = (arithmetic.array(instance[name]) for name in ("x", "z", "lam"))
    here = lagrangian(own, x, z, lam)
    if variable == "x":
        return here, lagrangian(own, own.x_step(z, sign * lam), z, lam)
    return here, lagrangian(own, x, own.z_step(x, sign * lam), lam)


def maximal(variable: Variable) -> Sides:
    """L_ρ(point) <= L_ρ(stationary point): what an argmax must satisfy at all points."""
    return lambda instance, arithmetic: values(instance, arithmetic, variable)


def minimal(variable: Variable, sign: int = 1) -> Sides:
    """L_ρ(stationary point) <= L_ρ(point): what an argmin must satisfy at all points."""
    return lambda instance, arithmetic: values(instance, arithmetic, variable, sign)[::-1]


def stationary(instance: Instance, variable: Variable) -> Any:
    """The point of the step."""
    own = problem(instance, EXACT)
    x, z, lam = (instance[name] for name in ("x", "z", "lam"))
    return own.x_step(z, lam) if variable == "x" else own.z_step(x, lam)


def is_stationary(instance: Instance, variable: Variable) -> bool:
    """Whether L_ρ, evaluated from (2), has slope 0 at the point of the step."""
    own = problem(instance, EXACT)
    x, z, lam = (instance[name] for name in ("x", "z", "lam"))
    point = stationary(instance, variable)
    if variable == "x":
        gradient = slope(lambda v: lagrangian(own, v, z, lam), point)
    else:
        gradient = slope(lambda v: lagrangian(own, x, v, lam), point)
    return bool((gradient == 0).all())


def problems(seed: int, count: int, variable: Variable) -> Iterator[Instance]:
    """Random problems, each with random points of the variable and with the point of the step."""
    rng = np.random.default_rng(seed)
    for instance in splittings(seed + 1, count):
        for _ in range(3):
            yield {**instance, variable: draw(rng, len(instance[variable]), most=40)}
        yield {**instance, variable: stationary(instance, variable)}


def space() -> Space:
    """Problems in one dimension with ρ > 0 for the search."""

    def strategy() -> Any:
        square, vector = matrices(1, 1), vectors(1)
        return instances(
            **dict.fromkeys(("R", "S", "A", "B"), square),
            **dict.fromkeys(("q", "r", "c", "x", "z", "lam"), vector),
            rho=rationals(4, (1, 2), least=1),
        )

    return Space(strategy, admits=lambda instance: instance["rho"] > 0)


def unbounded(variable: Variable) -> Check:
    """A check that L_ρ at the counterexample grows beyond every bound along a ray."""

    def run(claim: Claim) -> Finding:
        if claim.counterexample is None or claim.printed.sides is None:
            return Finding(ok=False, text="there is no counterexample with sides")
        instance = claim.counterexample.instance
        lefts = []
        for t in (1, 10, 100, 1000):
            at = {**instance, variable: t * instance[variable]}
            left, right = claim.printed.sides(at, EXACT)
            lefts.append(left)
            if not left > right:
                return Finding(ok=False, text=f"{left} <= {right} at {variable} = {t} times the instance's")
        growing = all(100 * a == b for a, b in itertools.pairwise(lefts))
        text = f"L_ρ at {variable} = 1, 10, 100, 1000: {', '.join(map(str, lefts))}"
        return Finding(ok=growing, text=text)

    return Check(name="unbounded above", kind="exact", run=run)


def least_at_step(variable: Variable, seed: int) -> Check:
    """A check that the step's point is least: equal to itself, strictly below all other points tried."""

    def run(claim: Claim) -> Finding:
        sides = stated(claim, "corrected").sides
        assert sides is not None
        count = 0
        for instance in problems(seed, 12, variable):
            least, here = sides(instance, EXACT)
            count += 1
            own = bool((instance[variable] == stationary(instance, variable)).all())
            expected = least == here if own else least < here
            if not (expected and is_stationary(instance, variable)):
                return Finding(ok=False, text=f"fails at instance {count}: {least} and {here}")
        return Finding(ok=True, text=f"slope 0 there, and strictly below all other points, {count} instances")

    return Check(name="the step's point is the strict minimum", kind="exact", run=run)
