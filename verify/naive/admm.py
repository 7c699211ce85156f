"""ADMM (11)-(18) as printed, on one group with one scale: a dense solve a column, projections by loops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from refldnq.verify.naive.hessian import objective
from refldnq.verify.naive.projection import alternate, brute_force

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class State:
    """ADMM after an iteration: Θ, G and λ (d, m), the scale and f(G)."""

    theta: Array
    G: Array
    lam: Array
    alpha: Any
    objective: Any


def project(V: Array, values: Array, alpha: Any, *, exact: bool) -> tuple[Array, Any]:
    """G and the scale: the alternation from `alpha` (from mean|V| if that is 0), or all of Ω tried.

    Examples
    --------
    >>> project(np.array([[4.0], [1.0], [1.0]]), np.array([-1.0, 0.0, 1.0]), 2.0, exact=True)[0].ravel()
    array([4., 0., 0.])
    """
    flat = list(V.ravel())
    if exact:
        alpha, Q, _ = brute_force(flat, list(values))
        return np.array([alpha * q for q in Q]).reshape(V.shape), alpha
    mean = sum(abs(v) for v in flat) / len(flat)
    alpha, codes, _ = alternate(flat, list(values), alpha if alpha > 0 else mean)
    if alpha == 0 and mean > 0:
        alpha, codes, _ = alternate(flat, list(values), mean)
    return np.array([alpha * values[k] for k in codes]).reshape(V.shape), alpha


def admm(
    H: Array,
    W: Array,
    values: Array,
    rho: float,
    iterations: int,
    *,
    exact: bool = False,
    guaranteed: bool = False,
) -> list[State]:
    """All states of a run of the profile ``paper``, the start first.

    Parameters
    ----------
    H : Array, shape (d, d)
        The block.
    W : Array, shape (d, m)
        The weight.
    values : Array, shape (k,)
        Ω/α, ascending, with 0.
    rho : float
        The penalty.
    iterations : int
        How many.
    exact : bool
        Whether the projection is the global optimum.
    guaranteed : bool
        Whether λ⁰ = -H(G⁰ - W)/ρ in place of 0.

    Returns
    -------
    list of State
        Of length iterations + 1; the start's Θ is W.

    Examples
    --------
    >>> states = admm(np.eye(2), np.array([[3.0], [1.0]]), np.array([-1.0, 0.0, 1.0]), 2.0, 3)
    >>> states[-1].G.ravel(), float(states[-1].objective)
    (array([3., 0.]), 0.5)
    """
    d, m = W.shape
    G, alpha = project(W, values, 0.0, exact=exact)
    lam = -(H @ (G - W)) / rho if guaranteed else np.zeros_like(W)
    states = [State(W, G, lam, alpha, objective(H, W, G))]
    for _ in range(iterations):
        theta = np.empty_like(W)
        for o in range(m):
            right = H @ W[:, o] + rho * (G[:, o] - lam[:, o])
            theta[:, o] = np.linalg.solve(H + rho * np.eye(d), right)  # [LDNQ] (15)
        G, alpha = project(theta + lam, values, alpha, exact=exact)  # [LDNQ] (16)-(17)
        lam = lam + theta - G  # [LDNQ] (18)
        states.append(State(theta, G, lam, alpha, objective(H, W, G)))
    return states
