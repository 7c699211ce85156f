"""ADMM (13)-(18) in rational arithmetic: rational data stay rational, so a run is computed without rounding.

A problem is one column: H (d, d), W (d,), one scale. Several columns are the problem of H repeated along the
diagonal, so nothing is lost. Projections are functions V -> G.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Any

from refldnq.verify.claims._projection import Point, alphabet, rounding, sweep
from refldnq.verify.claims._rational import Exact, exact, identity, inner, minimum, solve, squares

Project = Callable[[Exact], Exact]
"""A projection onto Ω."""


@dataclass(frozen=True)
class State:
    """ADMM after an iteration: Θ, G and λ; V = Θ + λ of the iteration before the projection."""

    theta: Exact
    G: Exact
    lam: Exact
    V: Exact


def free(b: int) -> Project:
    """The global projection onto all αL_b, α ≥ 0 free; of several nearest points that of the largest scale.

    Examples
    --------
    >>> free(0)(exact([4, 1, 1, 1])).tolist() == [4, 0, 0, 0]
    True
    """
    return lambda V: sweep(V, b).G


def fixed(alpha: Any, b: int) -> Project:
    """The projection onto αL_b for a given α; ties go to the smaller level.

    Examples
    --------
    >>> fixed(Fraction(1), 0)(exact([4, "-1/2"])).tolist() == [1, 0]
    True
    """
    return lambda V: alpha * rounding(V, alpha, b)


def error(H: Exact, W: Exact, G: Exact) -> Any:
    """The objective (10), ½ (G-W)ᵀH(G-W).

    Examples
    --------
    >>> error(exact([[2]]), exact([1]), exact([3]))
    Fraction(4, 1)
    """
    return inner(G - W, H @ (G - W)) / 2


def gradient(H: Exact, W: Exact, G: Exact) -> Exact:
    """The gradient of (10), H(G-W).

    Examples
    --------
    >>> gradient(exact([[2]]), exact([1]), exact([3]))
    array([Fraction(4, 1)], dtype=object)
    """
    slope: Exact = H @ (G - W)
    return slope


def lagrangian(H: Exact, W: Exact, rho: Any, theta: Exact, G: Exact, lam: Exact) -> Any:
    """(12) for G in Ω: f(Θ) + ρ/2 ‖Θ - G + λ‖² - ρ/2 ‖λ‖².

    Examples
    --------
    >>> one = exact([1])
    >>> lagrangian(exact([[2]]), one, 2, one, exact([0]), one)
    Fraction(3, 1)
    """
    return error(H, W, theta) + (rho * squares(theta - G + lam) - rho * squares(lam)) / 2


def proximal(H: Exact, W: Exact, rho: Any, G: Exact, lam: Exact) -> Exact:
    """Θ of (15).

    Examples
    --------
    >>> proximal(exact([[1]]), exact([3]), Fraction(2), exact([0]), exact([0]))
    array([Fraction(1, 1)], dtype=object)
    """
    return solve(H + rho * identity(len(W)), H @ W + rho * (G - lam))


def step(H: Exact, W: Exact, rho: Any, project: Project, G: Exact, lam: Exact) -> State:
    """One iteration (15), (16), (18).

    Examples
    --------
    >>> state = step(exact([[1]]), exact([3]), Fraction(2), fixed(Fraction(1), 0), exact([0]), exact([0]))
    >>> state.G, state.lam
    (array([Fraction(1, 1)], dtype=object), array([Fraction(0, 1)], dtype=object))
    """
    theta = proximal(H, W, rho, G, lam)  # [LDNQ] (15)
    V = theta + lam
    new = project(V)  # [LDNQ] (16)
    return State(theta, new, lam + theta - new, V)  # [LDNQ] (18)


def run(H: Exact, W: Exact, rho: Any, project: Project, G: Exact, lam: Exact, iterations: int) -> list[State]:
    """All states of a run from G and λ.

    Examples
    --------
    >>> one, zero = exact([[1]]), exact([0])
    >>> states = run(one, exact(["2/5"]), Fraction(1, 10), fixed(Fraction(1), 0), zero, zero, 6)
    >>> [int(state.G[0]) for state in states]
    [0, 1, 0, 1, 0, 0]
    """
    states: list[State] = []
    for _ in range(iterations):
        states.append(step(H, W, rho, project, G, lam))
        G, lam = states[-1].G, states[-1].lam
    return states


def kept_dual(H: Exact, W: Exact, rho: Any, G: Exact) -> Exact:
    """The only λ with which G can be a fixed point, -∇f(G)/ρ.

    Examples
    --------
    >>> kept_dual(exact([[1]]), exact(["2/5"]), Fraction(1, 10), exact([1]))
    array([Fraction(-6, 1)], dtype=object)
    """
    dual: Exact = -gradient(H, W, G) / rho
    return dual


def excess(H: Exact, W: Exact, rho: Any, G: Exact, distance: Callable[[Exact], Any]) -> tuple[Any, Any]:
    """‖V - G‖² and the squared distance of V from Ω at V = G - ∇f(G)/ρ; equal iff G is a fixed point.

    Examples
    --------
    >>> one = exact([[1]])
    >>> def distance(V):
    ...     return squares(V - fixed(Fraction(1), 0)(V))
    >>> excess(one, exact(["2/5"]), Fraction(1, 10), exact([0]), distance)
    (Fraction(16, 1), Fraction(9, 1))
    """
    lam = kept_dual(H, W, rho, G)
    return squares(lam), distance(G + lam)


def candidates(H: Exact, W: Exact, b: int) -> list[Point]:
    """For every Q the point αQ with the scale α = QᵀHW/QᵀHQ, where that is positive; G = 0 first.

    No other point can be a minimizer of (10), nor a fixed point with a free scale. The residual is f(αQ).

    Examples
    --------
    >>> [str(point.residual) for point in candidates(exact([[2]]), exact([3]), 0)]
    ['9', '0']
    """
    zero = exact([0] * len(W))
    found = [Point(Fraction(0), zero, error(H, W, zero))]
    HW = H @ W
    for codes in product(alphabet(b), repeat=len(W)):
        Q = exact(codes)
        top, bottom = inner(Q, HW), inner(Q, H @ Q)
        if top > 0 and bottom > 0:
            alpha = top / bottom
            found.append(Point(alpha, Q, error(H, W, alpha * Q)))
    return found


def best(H: Exact, W: Exact, b: int) -> Point:
    """A global minimizer of (10) with a free scale: every Q tried, each with its best scale.

    Examples
    --------
    >>> best(exact([[1, 0], [0, 1]]), exact([1, 2]), 0).residual
    Fraction(1, 4)
    """
    point: Point = minimum(lambda point: point.residual, candidates(H, W, b))[1]
    return point


def free_distance(b: int) -> Callable[[Exact], Any]:
    """The squared distance from all αL_b.

    Examples
    --------
    >>> free_distance(0)(exact([4, 1, 1, 1]))
    Fraction(3, 1)
    """
    return lambda V: sweep(V, b).residual


def fixed_distance(alpha: Any, b: int) -> Callable[[Exact], Any]:
    """The squared distance from αL_b.

    Examples
    --------
    >>> fixed_distance(Fraction(1), 0)(exact([3, "1/2"]))
    Fraction(17, 4)
    """
    return lambda V: squares(V - alpha * rounding(V, alpha, b))


def nearest_to_fixed(
    H: Exact, W: Exact, rho: Any, points: list[Exact], distance: Callable[[Exact], Any]
) -> tuple[Any, Any]:
    """Of all points the sides of `excess` with the least quotient: left <= right iff a fixed point exists.

    Examples
    --------
    >>> one, points = exact([[1]]), [exact([q]) for q in (-1, 0, 1)]
    >>> nearest_to_fixed(one, exact(["2/5"]), Fraction(1, 10), points, fixed_distance(Fraction(1), 0))
    (Fraction(196, 1), Fraction(144, 1))
    """

    def quotient(sides: tuple[Any, Any]) -> Any:
        left, right = sides
        return Fraction(0) if left == 0 else left / right if right else float("inf")

    sides: tuple[Any, Any] = minimum(quotient, [excess(H, W, rho, G, distance) for G in points])[1]
    return sides
