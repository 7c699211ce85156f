"""Simulated annealing of (10) after ADMM with a rising penalty: closer to the optimum, in seconds a layer.

All columns walk by themselves at the shared scale; then the scale is fitted to the codes, coordinate descent
ends the round, and the best result of every scale is where its next round starts.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from refldnq._checks import check_integer, check_number
from refldnq._kernels.threads import run_kernel
from refldnq._typing import Array, Float64Array
from refldnq.codebook import Codebook
from refldnq.solvers import admm_plus
from refldnq.solvers.admm_plus import AdmmPlusSettings
from refldnq.solvers.base import Solution, Trace, pick_settings
from refldnq.solvers.coordinate import CoordinateSettings, descend
from refldnq.solvers.problem import Point, Problem

SMALL = 24
"""Most entries of a scale for which there are ten times as many explorations, chosen here: on parts of the
layers of ResNet-20 of one scale and 12 entries (3 levels) or 8 (5 levels) 10 explorations found the optimum
in 85.0 and 91.5 %, 100 in 95.0 and 98.5 % (both in ``benchmarks/optimum.py``). Whole layers of one scale
have more entries; with one scale a channel few layers have so few, such as shortcuts of 16 inputs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnealSettings:
    """The rounds, and the temperatures of each.

    Parameters
    ----------
    rounds : int, optional
        Number of rounds.
    sweeps : int, optional
        Temperatures of a round; at each, every entry is moved once on average.
    hot, cold : float, optional
        First and last temperature in units of the mean of H's diagonal times the mean square of the steps
        between neighbouring values of the scaled set; geometric in between.
    explorations : int, optional
        Number of rounds before these that look further away: they begin ten times as hot, at the scales of
        the best result times exp(±spread) at most, and are five times as short. Problems of few entries a
        scale (`SMALL`) get ten times as many.
    spread : float, optional
        See `explorations`.
    seed : int, optional
        Seed of the walks.
    start : AdmmPlusSettings, optional
        How the start is found; its `per_channel` is overruled. 150 iterations by default, with which the
        other defaults were chosen.
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
    The rounds are chosen here on the layers of ResNet-20 with 3 levels, without explorations: geometric mean
    of f over that of the paper's ADMM, and seconds for all 20 layers on one machine, by (sweeps, hot, cold,
    rounds), single runs outside the store of ``benchmarks/solvers.py``: no round 0.750; (50, 0.1, 0.003, 1)
    0.747; (200, 0.03, 0.003, 1) 0.725 in 1 s; (200, 0.03, 0.003, 10) 0.699 in 9 s; (500, 0.03, 0.001, 10)
    0.693 in 24 s; (2000, 0.03, 0.003, 6) 0.688 in 40 s. In that store, measured later, the defaults reach
    0.698, and 0.697 without explorations; explorations are for problems of few entries.

    Examples
    --------
    >>> AnnealSettings(sweeps=3, hot=1.0, cold=0.01).temperatures()
    array([1.  , 0.1 , 0.01])
    """

    rounds: int = 10
    sweeps: int = 500
    hot: float = 0.03
    cold: float = 0.001
    explorations: int = 10
    spread: float = 0.5
    seed: int = 0
    start: AdmmPlusSettings = field(default_factory=lambda: AdmmPlusSettings(iterations=150))
    per_channel: bool = False

    def __post_init__(self) -> None:
        check_integer("rounds", self.rounds, at_least=0)
        check_integer("sweeps", self.sweeps, at_least=1)
        check_number("hot", self.hot, above=0)
        check_number("cold", self.cold, above=0)
        check_number("spread", self.spread, at_least=0)
        check_integer("explorations", self.explorations, at_least=0)
        check_integer("seed", self.seed, at_least=0)

    def looks(self, entries: int) -> int:
        """Number of explorations of a problem with so many entries a scale.

        Examples
        --------
        >>> [AnnealSettings().looks(entries) for entries in (12, 24, 25)]
        [100, 100, 10]
        """
        return self.explorations * (10 if entries <= SMALL else 1)

    def temperatures(self, *, exploring: bool = False) -> Float64Array:
        """The temperatures of a round."""
        if exploring:
            return np.geomspace(10 * self.hot, self.cold, max(1, self.sweeps // 5))
        return np.geomspace(self.hot, self.cold, self.sweeps)


DEFAULT = AnnealSettings()
"""The settings that `solve` takes for None."""


def solve(
    H: Float64Array,
    W: Array,
    codebook: Codebook,
    settings: AnnealSettings | None = None,
    *,
    column_weights: Array | None = None,
) -> Solution:
    """Quantize a weight by annealing.

    Parameters
    ----------
    H : Array, shape (g, d, d), float64
        The Hessian's blocks.
    W : Array, shape (g, d, m)
        The packed weight.
    codebook : Codebook
        The set.
    settings : AnnealSettings, optional
        How long.
    column_weights : Array, shape (g, m), optional
        Weights of the columns' errors.

    Returns
    -------
    Solution
        No worse than the result of `refldnq.solvers.admm_plus` with the settings `start`; the same for the
        same seed.

    Raises
    ------
    ValueError
        If the shapes do not fit or an entry is not finite.
    TypeError
        If H is not float64, W not float or the settings are another solver's.

    Examples
    --------
    >>> from refldnq.codebook import powers_of_two
    >>> rng = np.random.default_rng(0)
    >>> X, W = rng.standard_normal((12, 6)), rng.standard_normal((1, 6, 2))
    >>> H = (2 / 12 * X.T @ X)[None]
    >>> found = solve(H, W, powers_of_two(3), AnnealSettings(rounds=2))
    >>> found.objective <= admm_plus.solve(H, W, powers_of_two(3), AnnealSettings().start).objective
    True
    """
    chosen: AnnealSettings = pick_settings(settings, AnnealSettings, DEFAULT)
    problem = Problem(H, W, codebook, per_channel=chosen.per_channel, column_weights=column_weights)
    how = replace(chosen.start, per_channel=chosen.per_channel)
    first = admm_plus.solve(H, W, codebook, how, column_weights=column_weights)
    best = problem.point(first)
    least = problem.objectives(best)
    objectives, alphas = [float(least.sum())], [best.alpha]
    rng = np.random.default_rng(chosen.seed)
    descent = CoordinateSettings(per_channel=chosen.per_channel)
    looks = chosen.looks(problem.W.size // len(best.alpha))
    for k in range(looks + chosen.rounds):
        exploring = k < looks
        has_scale = exploring and codebook.kind == "scaled"
        stray = chosen.spread * rng.uniform(-1.0, 1.0, len(best.alpha)) if has_scale else 0.0
        begin = Point(best.codes, best.alpha * np.exp(stray), best.values)
        walked = _walk(problem, begin, chosen.temperatures(exploring=exploring), rng)
        point, _, _, _ = descend(problem, walked, descent)
        best, least = problem.keep(best, least, point, problem.objectives(point))
        objectives.append(float(least.sum()))
        alphas.append(best.alpha)
    return problem.solution(
        best,
        solver="anneal",
        settings=chosen,
        iterations=looks + chosen.rounds,
        converged=first.converged,
        trace=Trace(objective=np.array(objectives), alpha=np.array(alphas)),
    )


def _walk(problem: Problem, point: Point, temperatures: Float64Array, rng: np.random.Generator) -> Point:
    from refldnq._kernels import anneal as kernels

    columns = problem.groups * problem.outputs
    seeds = rng.integers(1, 2**64, columns, dtype=np.uint64)
    # The values of a free set have a scale of their own. For the paper's 3 and 5 levels this is 1.
    step = float(np.mean(np.diff(np.sort(point.values)) ** 2))
    temperatures = temperatures * (step * float(np.einsum("gii->gi", problem.H).mean()))
    if not temperatures[-1] > 0:  # all values are equal, or nearly: there is nowhere to go
        return point
    codes, arrays = problem.moving(point)
    run_kernel(kernels.anneal, (*arrays, temperatures, seeds), columns)
    return problem.refit(Point(codes, point.alpha, point.values))
