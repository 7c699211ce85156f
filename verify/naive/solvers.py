"""Solvers of (10) for one column by their definitions: coordinate descent, GPTQ, path following, ADMM+."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def nearest(levels: Array, t: float) -> int:
    """The code of the nearest level; of two at the same distance the one that comes first.

    Examples
    --------
    >>> nearest(np.array([-1.0, 0.0, 1.0]), 0.6)
    2
    """
    best = 0
    for k in range(len(levels)):
        if abs(levels[k] - t) < abs(levels[best] - t):
            best = k
    return best


def coordinate_sweep(H: Array, w: Array, g: Array, levels: Array) -> Array:
    """One sweep: every entry in turn takes the level of least f, by trying them all.

    Examples
    --------
    >>> coordinate_sweep(np.eye(2), np.array([0.9, 0.2]), np.zeros(2), np.array([-1.0, 0.0, 1.0]))
    array([1., 0.])
    """
    g = g.copy()
    for i in range(len(g)):
        least, best = None, g[i]
        for level in levels:
            tried = g.copy()
            tried[i] = level
            f = 0.5 * (tried - w) @ H @ (tried - w)
            if least is None or f < least:
                least, best = f, level
        g[i] = best
    return g


def gptq(H: Array, w: Array, levels: Array) -> Array:
    """Round entry by entry; after each, move the entries left to where f is least, by a solve.

    Examples
    --------
    >>> gptq(np.array([[2.0, 1.9], [1.9, 2.0]]), np.array([0.4, 0.4]), np.array([-1.0, 0.0, 1.0]))
    array([0., 1.])
    """
    d = len(w)
    g, moving = np.zeros(d), w.copy()
    for i in range(d):
        g[i] = levels[nearest(levels, moving[i])]
        rest = np.arange(i + 1, d)
        if len(rest):
            # The rest x minimizes f given g up to i: H_rr (x - w_r) = -H_ri (g - w)_i.
            done = np.arange(i + 1)
            right = -H[np.ix_(rest, done)] @ (g[done] - w[done])
            moving[rest] = w[rest] + np.linalg.solve(H[np.ix_(rest, rest)], right)
    return g


def gpfq(X: Array, w: Array, levels: Array) -> Array:
    """Greedy path following on the design matrix X (N, d) itself.

    Examples
    --------
    >>> gpfq(np.eye(2), np.array([0.9, 0.2]), np.array([-1.0, 0.0, 1.0]))
    array([1., 0.])
    """
    g, U = np.zeros(len(w)), np.zeros(len(X))
    for t in range(len(w)):
        column = X[:, t]
        g[t] = levels[nearest(levels, (U + w[t] * column) @ column / (column @ column))]
        U = U + (w[t] - g[t]) * column
    return g


def admm_plus(H: Array, w: Array, levels: Array, penalties: Array, start: Array) -> list[Array]:
    """All G of ADMM with the given penalties on a fixed set, by dense solves; λ is rescaled where ρ changes.

    Examples
    --------
    >>> admm_plus(np.eye(1), np.array([1.2]), np.array([0.0, 1.0]), np.array([1.0]), np.zeros(1))[-1]
    array([1.])
    """
    d = len(w)
    G, y = start.copy(), np.zeros(d)  # y = ρλ, the unscaled dual, which does not depend on ρ
    found = [G]
    for rho in penalties:
        theta = np.linalg.solve(H + rho * np.eye(d), H @ w + rho * G - y)  # [LDNQ] (15)
        V = theta + y / rho
        G = np.array([levels[nearest(levels, v)] for v in V])  # [LDNQ] (16)
        y = y + rho * (theta - G)  # [LDNQ] (18)
        found.append(G)
    return found
