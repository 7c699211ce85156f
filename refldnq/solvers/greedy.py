"""What the solvers that round entry by entry share: the order of the entries and the search for the scale.

Such a solver turns scales into codes. Which scales are good is not known before, so a grid of multiples of
those of the nearest point of Ω is tried and the one of least f is kept, with its scale fitted to its codes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from refldnq._checks import check_choice, check_integer, check_number
from refldnq._kernels.threads import run_kernel
from refldnq._typing import Float64Array, Int8Array, Int64Array
from refldnq.solvers.base import Solution
from refldnq.solvers.problem import Point, Problem

Kernel = Callable[..., None]
"""`refldnq._kernels.greedy.pull` or `push`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GreedySettings:
    """How a weight is rounded entry by entry.

    Parameters
    ----------
    damping : float, optional
        Share of the mean of H's diagonal that is added to the diagonal. The result's objective is without.
    order : {'natural', 'diagonal'}, optional
        Entries as they stand, or those of the largest diagonal of H first.
    grid : int, optional
        Number of scales that are tried; 1 means the scale of the nearest point of Ω alone.
    spread : float, optional
        The grid reaches from 1 - spread to 1 + spread times that scale.
    refit_alpha : bool, optional
        Whether the scale is fitted to the codes, in the norm of H.
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
    >>> GreedySettings(grid=1).factors
    array([1.])
    """

    damping: float = 0.01
    order: Literal["natural", "diagonal"] = "natural"
    grid: int = 21
    spread: float = 0.5
    refit_alpha: bool = True
    per_channel: bool = False

    def __post_init__(self) -> None:
        check_number("damping", self.damping, at_least=0)
        check_choice("order", self.order, ("natural", "diagonal"))
        check_integer("grid", self.grid, at_least=1)
        if not 0 <= check_number("spread", self.spread, at_least=0) < 1:
            raise ValueError(f"`spread` must be less than 1, got {self.spread}.")

    @property
    def factors(self) -> Float64Array:
        """The multiples that are tried."""
        if self.grid == 1:
            return np.ones(1)
        return np.linspace(1 - self.spread, 1 + self.spread, self.grid)


class Ordered:
    """A problem with its entries in the order of rounding, and H damped.

    Parameters
    ----------
    problem : Problem
        The problem as given.
    settings : GreedySettings
        Order and damping.

    Raises
    ------
    numpy.linalg.LinAlgError
        If H is singular and there is no damping.

    Examples
    --------
    >>> from refldnq.codebook import powers_of_two
    >>> problem = Problem(np.diag([1.0, 4.0])[None], np.ones((1, 2, 1)), powers_of_two(3), per_channel=False)
    >>> Ordered(problem, GreedySettings(order="diagonal", damping=0.0)).H
    array([[[4., 0.],
            [0., 1.]]])
    """

    def __init__(self, problem: Problem, settings: GreedySettings) -> None:
        self.problem = problem
        diagonal = np.einsum("gii->gi", problem.H)
        self.order: Int64Array = np.broadcast_to(np.arange(problem.d), diagonal.shape)
        if settings.order == "diagonal":
            self.order = np.argsort(-diagonal, axis=1, kind="stable")
        rows = np.arange(problem.groups)[:, None, None]
        self.H: Float64Array = problem.H[rows, self.order[:, :, None], self.order[:, None, :]]
        self.W = np.ascontiguousarray(np.take_along_axis(problem.W, self.order[:, None, :], axis=2))
        # An entry that H does not see is rounded by itself; damping is relative to the whole layer's mean.
        self.damping = settings.damping * float(diagonal.mean())
        extra = self.damping + (np.einsum("gii->gi", self.H) == 0)
        self.H = self.H + extra[:, :, None] * np.eye(problem.d)

    def codes(self, kernel: Kernel, matrix: Float64Array, start: Point, factor: float) -> Int8Array:
        """The codes (g, m, d) that the kernel finds at `factor` times the scales of `start`."""
        rows = self.W.reshape(-1, self.problem.d)
        found = np.take_along_axis(start.codes, self.order[:, None, :], axis=2).reshape(rows.shape)
        alpha = np.ascontiguousarray(np.broadcast_to(factor * start.alpha, len(rows)))
        run_kernel(kernel, (matrix, rows, found, alpha, start.values), len(rows))
        codes = np.empty_like(start.codes)
        np.put_along_axis(
            codes,
            np.broadcast_to(self.order[:, None, :], codes.shape),
            found.reshape(codes.shape),
            axis=2,
        )
        return codes


def quantize(
    name: str,
    problem: Problem,
    settings: GreedySettings,
    kernel: Kernel,
    matrix: Callable[[Float64Array], Float64Array],
) -> Solution:
    """The best result over the grid of scales, chosen scale by scale.

    Fixed and free sets have no scale: the values stand as those of the nearest point.

    Parameters
    ----------
    name : str
        The solver's name.
    problem : Problem
        The data.
    settings : GreedySettings
        How.
    kernel : callable
        One of `refldnq._kernels.greedy`.
    matrix : callable
        Makes the kernel's matrix (g, d, d) of the ordered and damped blocks.

    Returns
    -------
    Solution
        `iterations` is the number of scales that were tried.
    """
    ordered = Ordered(problem, settings)
    answers = matrix(ordered.H)
    start = problem.nearest()
    factors = settings.factors if problem.codebook.kind == "scaled" else np.ones(1)
    best, least = start, np.full(len(start.alpha), np.inf)
    for factor in factors:
        point = Point(ordered.codes(kernel, answers, start, factor), factor * start.alpha, start.values)
        if settings.refit_alpha:
            point = problem.refit(point)
        best, least = problem.keep(best, least, point, problem.objectives(point))
    notes: tuple[str, ...] = ()
    if ordered.damping > 0:
        notes = (f"H was damped by {settings.damping:.3g} of its mean diagonal; the objective is without",)
    return problem.solution(best, solver=name, settings=settings, iterations=len(factors), notes=notes)
