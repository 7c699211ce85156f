"""ADMM with a rising penalty in the eigenbasis of H, scales fitted in the norm of H, and a final descent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from refldnq._checks import check_choice, check_integer, check_number
from refldnq._rows import Method
from refldnq._typing import Array, Float64Array
from refldnq.codebook import Codebook
from refldnq.solvers.base import Solution, Trace, pick_settings
from refldnq.solvers.coordinate import CoordinateSettings, descend
from refldnq.solvers.problem import Point, Problem


@dataclass(frozen=True, kw_only=True, slots=True)
class AdmmPlusSettings:
    """The schedule of the penalty and what follows it.

    Parameters
    ----------
    rho_first, rho_last : float, optional
        The penalty at the start and the end, in units of the mean of H's diagonal; geometric in between
        (Notes).
    iterations : int, optional
        Number of iterations.
    projection : {'exact', 'alternating'}, optional
        How V is projected.
    refit_alpha : bool, optional
        Whether the scale of every iterate is fitted to its codes, in the norm of H.
    polish : bool, optional
        Whether the best iterate is improved by coordinate descent.
    per_channel : bool, optional
        One α for each output channel in place of one a layer.

    Raises
    ------
    ValueError
        If a setting is out of range.
    TypeError
        If a number has the wrong type.

    Notes
    -----
    Chosen here on the layers of ResNet-20, by the geometric mean of f over that of the paper's ADMM with 3
    and 5 levels; by iterations: 150 0.750, 0.739; 200 0.744, 0.723; 250 0.739, 0.725. A narrower range is as
    good as more iterations there, by (first, last), 150 iterations: (0.01, 3) 0.735, 0.728; (0.03, 10) 0.733,
    0.727; (0.1, 10) 0.734, 0.721; (0.1, 1), where codes need not stand still at the end, 0.726, 0.713. On
    small parts of these layers it finds the optimum less often (``benchmarks/README.md``, which has 200 and
    300 iterations and the range from 0.1 to 10; the others are single runs), so the range is wide.

    Examples
    --------
    >>> AdmmPlusSettings(rho_last=1.0, iterations=3).schedule
    array([0.01, 0.1 , 1.  ])
    """

    rho_first: float = 0.01
    rho_last: float = 30.0
    iterations: int = 200
    projection: Method = "exact"
    refit_alpha: bool = True
    polish: bool = True
    per_channel: bool = False

    def __post_init__(self) -> None:
        check_number("rho_first", self.rho_first, above=0)
        check_number("rho_last", self.rho_last, above=0)
        check_integer("iterations", self.iterations, at_least=1)
        check_choice("projection", self.projection, ("alternating", "exact"))

    @property
    def schedule(self) -> Float64Array:
        """The penalty of every iteration, in units of the mean of H's diagonal."""
        return np.geomspace(self.rho_first, self.rho_last, self.iterations)


DEFAULT = AdmmPlusSettings()
"""The settings that `solve` takes for None."""


def solve(
    H: Float64Array,
    W: Array,
    codebook: Codebook,
    settings: AdmmPlusSettings | None = None,
    *,
    column_weights: Array | None = None,
) -> Solution:
    r"""Quantize a weight by ADMM with a rising penalty.

    Parameters
    ----------
    H : Array, shape (g, d, d), float64
        The Hessian's blocks.
    W : Array, shape (g, d, m)
        The packed weight.
    codebook : Codebook
        The set.
    settings : AdmmPlusSettings, optional
        How.
    column_weights : Array, shape (g, m), optional
        Weights ω of the columns' errors. The penalty of a column is weighted alike, so that all columns
        share the eigenbasis: Θ is the same as without, the projection is weighted.

    Returns
    -------
    Solution
        The best of the start and all iterates, scale by scale, polished.

    Raises
    ------
    ValueError
        If the shapes do not fit or an entry is not finite.
    TypeError
        If H is not float64, W not float or the settings are another solver's.

    Notes
    -----
    A small penalty lets Θ stay near W and the codes wander; it grows until the codes stand still. The scaled
    dual is λ = y/ρ: where ρ changes, y stays and λ is rescaled. In the basis :math:`H = U\Lambda U^\top` the
    step (15) is a division, :math:`\tilde\Theta = (\Lambda\tilde W + \rho(\tilde G - \tilde\lambda))/(\Lambda
    + \rho)`, for every ρ.

    Examples
    --------
    >>> from refldnq.codebook import powers_of_two
    >>> H = np.array([[[2.0, 1.9], [1.9, 2.0]]])
    >>> solve(H, np.array([[[1.0], [-0.9]]]), powers_of_two(3)).G.ravel().round(3)
    array([ 0.95, -0.95])
    """
    chosen: AdmmPlusSettings = pick_settings(settings, AdmmPlusSettings, DEFAULT)
    problem = Problem(H, W, codebook, per_channel=chosen.per_channel, column_weights=column_weights)
    point, objectives, alphas = _iterate(problem, chosen)
    converged = False
    if chosen.polish:
        how = CoordinateSettings(per_channel=chosen.per_channel, refit_alpha=chosen.refit_alpha)
        point, _, _, converged = descend(problem, point, how)
    return problem.solution(
        point,
        solver="admm_plus",
        settings=chosen,
        iterations=len(objectives) - 1,
        converged=converged,
        trace=Trace(objective=np.array(objectives), alpha=np.array(alphas)),
    )


def _iterate(problem: Problem, settings: AdmmPlusSettings) -> tuple[Point, list[float], list[Float64Array]]:
    scale = float(np.einsum("gii->gi", problem.H).mean())
    point = best = problem.nearest(method=settings.projection)
    least = problem.objectives(point)
    objectives, alphas = [float(least.sum())], [point.alpha]
    if not scale > 0:
        return best, objectives, alphas
    eigenvalues, U = np.linalg.eigh(problem.H)
    eigenvalues = np.maximum(eigenvalues, 0.0)[:, None, :]
    W = problem.W @ U
    G, lam, last = point.G @ U, np.zeros_like(W), settings.rho_first * scale
    for rho in settings.schedule * scale:
        lam = lam * (last / rho)
        theta = (eigenvalues * W + rho * (G - lam)) / (eigenvalues + rho)  # [LDNQ] (15)
        V = theta + lam
        point = problem.nearest(V @ U.transpose(0, 2, 1), method=settings.projection)  # [LDNQ] (16)-(17)
        G = point.G @ U
        lam, last = V - G, rho  # [LDNQ] (18)
        if settings.refit_alpha:
            point = problem.refit(point)
        own = problem.objectives(point)
        best, least = problem.keep(best, least, point, own)
        objectives.append(float(own.sum()))
        alphas.append(point.alpha)
    return best, objectives, alphas
