"""Coordinate descent on (10): one code at a time, the scale after every sweep; it polishes any result."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from refldnq._checks import check_choice, check_finite, check_integer, check_shape
from refldnq._kernels.threads import run_kernel
from refldnq._typing import Array, Float64Array, Int64Array
from refldnq.codebook import Codebook
from refldnq.solvers.base import Solution, Trace, pick_settings
from refldnq.solvers.problem import Point, Problem


@dataclass(frozen=True, kw_only=True, slots=True)
class CoordinateSettings:
    """How far and in which order codes move.

    Parameters
    ----------
    sweeps : int, optional
        Most sweeps over all entries (chosen here: on the layers of ResNet-20 a fixed point comes within 40).
    order : {'natural', 'diagonal'}, optional
        Entries as they stand, or those of the largest diagonal of H first.
    refit_alpha : bool, optional
        Whether the scale is fitted to the codes after every sweep, in the norm of H.
    per_channel : bool, optional
        One α for each output channel in place of one a layer.

    Raises
    ------
    ValueError
        If a setting is out of range.
    TypeError
        If a number has the wrong type.

    Examples
    --------
    >>> CoordinateSettings().sweeps
    100
    """

    sweeps: int = 100
    order: Literal["natural", "diagonal"] = "natural"
    refit_alpha: bool = True
    per_channel: bool = False

    def __post_init__(self) -> None:
        check_integer("sweeps", self.sweeps, at_least=1)
        check_choice("order", self.order, ("natural", "diagonal"))


DEFAULT = CoordinateSettings()
"""The settings that `solve` takes for None."""


def solve(
    H: Float64Array,
    W: Array,
    codebook: Codebook,
    settings: CoordinateSettings | None = None,
    *,
    column_weights: Array | None = None,
) -> Solution:
    r"""Quantize a weight by coordinate descent from the nearest point of Ω.

    Parameters
    ----------
    H : Array, shape (g, d, d), float64
        The Hessian's blocks.
    W : Array, shape (g, d, m)
        The packed weight.
    codebook : Codebook
        The set.
    settings : CoordinateSettings, optional
        How.
    column_weights : Array, shape (g, m), optional
        Weights of the columns' errors.

    Returns
    -------
    Solution
        Its objective is at most the start's; `converged` if no single code can lower it.

    Raises
    ------
    ValueError
        If the shapes do not fit or an entry is not finite.
    TypeError
        If H is not float64, W not float or the settings are another solver's.

    Examples
    --------
    >>> from refldnq.codebook import powers_of_two
    >>> H = np.array([[[2.0, 1.9], [1.9, 2.0]]])
    >>> solution = solve(H, np.array([[[1.0], [-0.9]]]), powers_of_two(3))
    >>> solution.G.ravel().round(3), solution.converged
    (array([ 0.95, -0.95]), True)
    """
    chosen: CoordinateSettings = pick_settings(settings, CoordinateSettings, DEFAULT)
    problem = Problem(H, W, codebook, per_channel=chosen.per_channel, column_weights=column_weights)
    return _descended(problem, problem.nearest(), chosen)


def polish(
    H: Float64Array,
    W: Array,
    codebook: Codebook,
    solution: Solution,
    settings: CoordinateSettings | None = None,
    *,
    column_weights: Array | None = None,
) -> Solution:
    r"""Improve any solver's result by coordinate descent.

    Parameters
    ----------
    H : Array, shape (g, d, d), float64
        The Hessian's blocks.
    W : Array, shape (g, d, m)
        The packed weight.
    codebook : Codebook
        The set.
    solution : Solution
        A point of it: what a solver has found for this problem, or for another one of the same shape.
    settings : CoordinateSettings, optional
        How; its `per_channel` is overruled by the solution.
    column_weights : Array, shape (g, m), optional
        Weights of the columns' errors.

    Returns
    -------
    Solution
        Its objective is at most that of `solution`, `trace.objective[0]`, and so is the part of every scale;
        `converged` if no single code can lower it. It keeps the notes and names the solver of the start.

    Raises
    ------
    ValueError
        If shapes do not fit, an entry is not finite, or the solution is not of the set.
    TypeError
        If H is not float64, W not float or the settings are another solver's.

    Examples
    --------
    >>> from refldnq.codebook import powers_of_two
    >>> from refldnq.solvers import direct
    >>> H, W = np.array([[[2.0, 1.9], [1.9, 2.0]]]), np.array([[[1.0], [-0.4]]])
    >>> rounded = direct.solve(H, W, powers_of_two(3))
    >>> polished = polish(H, W, powers_of_two(3), rounded)
    >>> round(rounded.objective, 3), round(polished.objective, 3), polished.notes
    (0.351, 0.016, ('descent from the result of direct',))
    """
    chosen: CoordinateSettings = pick_settings(settings, CoordinateSettings, DEFAULT)
    chosen = replace(chosen, per_channel=np.ndim(solution.alpha) > 0)
    problem = Problem(H, W, codebook, per_channel=chosen.per_channel, column_weights=column_weights)
    _check_point(problem, solution)
    notes = (*solution.notes, f"descent from the result of {solution.solver}")
    return _descended(problem, problem.point(solution), chosen, notes)


def _check_point(problem: Problem, solution: Solution) -> None:
    groups, outputs, d = problem.W.shape
    check_shape("solution.codes", solution.codes, (groups, d, outputs))
    check_shape("solution.alpha", solution.alpha, (groups, outputs) if problem.per_channel else ())
    check_finite("solution.alpha", solution.alpha)
    check_finite("solution.values", solution.values)
    codebook, values = problem.codebook, solution.values
    own = (
        len(values) == codebook.levels if codebook.kind == "free" else np.array_equal(values, codebook.values)
    )
    scaled = (solution.alpha >= 0).all() if codebook.kind == "scaled" else (solution.alpha == 1).all()
    if not own:
        raise ValueError(f"`solution.values` must be those of `codebook`, {codebook.values}, got {values}.")
    if not scaled:
        wanted = "not negative" if codebook.kind == "scaled" else "1"
        raise ValueError(
            f"`solution.alpha` must be {wanted} for a {codebook.kind} set, got {solution.alpha}."
        )
    if not (0 <= solution.codes.min() and solution.codes.max() < len(values)):
        raise ValueError(
            f"`solution.codes` must be indices of {len(values)} values, got {solution.codes.min()} to "
            f"{solution.codes.max()}."
        )


def _descended(
    problem: Problem, start: Point, settings: CoordinateSettings, notes: tuple[str, ...] = ()
) -> Solution:
    point, objectives, alphas, converged = descend(problem, start, settings)
    return problem.solution(
        point,
        solver="coordinate",
        settings=settings,
        iterations=len(objectives) - 1,
        converged=converged,
        guarantee="descent",
        notes=notes,
        trace=Trace(objective=np.array(objectives), alpha=np.array(alphas)),
    )


def descend(
    problem: Problem, point: Point, settings: CoordinateSettings
) -> tuple[Point, list[float], list[Float64Array], bool]:
    """Coordinate descent from a point.

    Parameters
    ----------
    problem : Problem
        The data.
    point : Point
        The start; it is not changed.
    settings : CoordinateSettings
        How.

    Returns
    -------
    point : Point
        No worse than the start.
    objectives : list of float
        f at the start and after every sweep; it never rises.
    alphas : list of Array
        The scales at the start and after every sweep.
    converged : bool
        Whether the last sweep and the fit of the scales behind it changed nothing: no single code can lower
        f at the scales that are returned.

    Notes
    -----
    For a fixed scale f is a quadratic in every entry, g_i - [H(g - w)]_i / H_ii its minimum, and the nearest
    level to it the best code. A sweep that rounding keeps from lowering f is undone, scale by scale, and the
    descent ends where no scale gained. A sweep that changes no code need not be the last: the start's scale
    may not be the best one for its codes, and at that one other codes can be better.
    """
    from refldnq._kernels import coordinate as kernels

    order = _order(problem.H, settings)
    columns = problem.groups * problem.outputs
    changes = np.zeros(columns, dtype=np.int64)
    least = problem.objectives(point)
    objectives, alphas = [float(least.sum())], [point.alpha]
    for _ in range(settings.sweeps):
        codes, arrays = problem.moving(point)
        run_kernel(kernels.sweep, (*arrays, order, changes), columns)
        moved = Point(codes, point.alpha, point.values)
        if settings.refit_alpha:
            moved = problem.refit(moved)
        kept, least = problem.keep(point, least, moved, problem.objectives(moved))
        if kept is point:
            return point, objectives, alphas, True
        point = kept
        objectives.append(float(least.sum()))
        alphas.append(point.alpha)
    return point, objectives, alphas, False


def _order(H: Float64Array, settings: CoordinateSettings) -> Int64Array:
    if settings.order == "diagonal":
        return np.argsort(-np.einsum("gii->gi", H), axis=1, kind="stable")
    return np.broadcast_to(np.arange(H.shape[1]), H.shape[:2]).copy()
