"""Convex quadratic problems min f(x) + g(z) subject to h(x, z) = 0, on which (1)-(5) are decided exactly.

f(x) = ½‖Rx‖² + qᵀx, g(z) = ½‖Sz‖² + rᵀz, h(x, z) = Ax + Bz - c. Everything is rational, so the steps of ADMM
are solved without rounding, and central differences of a quadratic are its derivatives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from refldnq.verify.arithmetic import Arithmetic
from refldnq.verify.claims._rational import draw, exact, identity, solve
from refldnq.verify.claims.base import Instance

NAMES = ("R", "q", "S", "r", "A", "B", "c", "rho")
"""Entries of an instance that make up the problem."""


@dataclass(frozen=True)
class Splitting:
    """A problem and its penalty.

    Parameters
    ----------
    R, q : Array, shapes (d, d), (d,)
        f(x) = ½‖Rx‖² + qᵀx.
    S, r : Array, shapes (d, d), (d,)
        g(z) = ½‖Sz‖² + rᵀz.
    A, B, c : Array, shapes (d, d), (d, d), (d,)
        h(x, z) = Ax + Bz - c.
    rho : number
        The penalty.
    """

    R: Any
    q: Any
    S: Any
    r: Any
    A: Any
    B: Any
    c: Any
    rho: Any

    def f(self, x: Any) -> Any:
        """The first objective."""
        return _inner(self.R @ x, self.R @ x) / 2 + _inner(self.q, x)

    def g(self, z: Any) -> Any:
        """The second objective."""
        return _inner(self.S @ z, self.S @ z) / 2 + _inner(self.r, z)

    def h(self, x: Any, z: Any) -> Any:
        """The constraint."""
        return self.A @ x + self.B @ z - self.c

    def f_gradient(self, x: Any) -> Any:
        """∇f(x) = RᵀRx + q."""
        return self.R.T @ (self.R @ x) + self.q

    def g_gradient(self, z: Any) -> Any:
        """∇g(z) = SᵀSz + r."""
        return self.S.T @ (self.S @ z) + self.r

    def x_step(self, z: Any, lam: Any) -> Any:
        """The x at which the gradient of (2) in x is zero: its minimizer."""
        M = self.R.T @ self.R + self.rho * (self.A.T @ self.A)
        return solve(M, -self.q - self.rho * (self.A.T @ (self.B @ z - self.c + lam)))

    def z_step(self, x: Any, lam: Any) -> Any:
        """The z at which the gradient of (2) in z is zero: its minimizer."""
        M = self.S.T @ self.S + self.rho * (self.B.T @ self.B)
        return solve(M, -self.r - self.rho * (self.B.T @ (self.A @ x - self.c + lam)))


def problem(instance: Instance, arithmetic: Arithmetic) -> Splitting:
    """The problem of an instance, in a number system.

    Examples
    --------
    >>> from refldnq.verify.arithmetic import EXACT
    >>> own = problem(example(), EXACT)
    >>> one = EXACT.array([1])
    >>> str(own.f(one)), str(own.h(one, one)[0]), str(own.x_step(0 * one, 0 * one)[0])
    ('1/2', '0', '0')
    """
    parts = {name: arithmetic.array(instance[name]) for name in NAMES if name != "rho"}
    return Splitting(**parts, rho=arithmetic.number(instance["rho"]))


def example(**changes: Any) -> dict[str, Any]:
    """F = x²/2, g = 0, h = x - z, ρ = 1, everything else 0; with changes of entries.

    Examples
    --------
    >>> example(rho=Fraction(2))["rho"]
    Fraction(2, 1)
    """
    zero, one = exact([0]), exact([[1]])
    plain = {"R": one, "q": zero, "S": exact([[0]]), "r": zero, "A": one, "B": -one, "c": zero}
    return {**plain, "rho": Fraction(1), "x": zero, "z": zero, "lam": zero, **changes}


def splittings(seed: int, count: int, *, consensus: bool = False) -> Iterator[dict[str, Any]]:
    """Random problems in one to three dimensions with unique steps, and random x, z, y and λ.

    Parameters
    ----------
    seed, count : int
        Of the generator; how many.
    consensus : bool
        Whether h(x, z) = x - z.

    Examples
    --------
    >>> len(list(splittings(0, 3)))
    3
    """
    rng = np.random.default_rng(seed)
    for k in range(count):
        d = 1 + k % 3
        entries = {name: draw(rng, (d, d), most=4, parts=2) for name in ("R", "S", "A", "B")}
        # Adding a multiple of the identity beyond the rows' sums makes R and S regular.
        entries["R"] = entries["R"] + 13 * identity(d)
        entries["S"] = entries["S"] + 13 * identity(d)
        vectors = {name: draw(rng, d) for name in ("q", "r", "c", "x", "z", "y", "lam")}
        if consensus:
            entries |= {"A": identity(d), "B": -identity(d)}
            vectors["c"] = exact([0] * d)
        yield {**entries, **vectors, "rho": abs(draw(rng, 1)[0]) + Fraction(1, 7)}


def slope(function: Callable[[Any], Any], x: Any) -> Any:
    """The gradient of a quadratic function by central differences, which for a quadratic are exact.

    Examples
    --------
    >>> slope(lambda x: x[0] * x[1], exact([3, 5])).tolist() == [5, 3]
    True
    """
    units = identity(len(x))
    return np.array([(function(x + e) - function(x - e)) / 2 for e in units], dtype=object)


def _inner(a: Any, b: Any) -> Any:
    return (a * b).sum()
