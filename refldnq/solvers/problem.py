"""Problem (10) as solvers see it: a weight's columns as rows, its set, the best scale for given codes.

f(G) = ½ Σ_c ω_c (g_c - w_c)ᵀ H (g_c - w_c), columns c of a group sharing H; the paper has ω = 1. With ω_c the
square of the scale that batch normalization gives output c, f is the error behind the normalization.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from refldnq._rows import Rule, project_rows
from refldnq._typing import Array, Float64Array, Int8Array
from refldnq.codebook import Codebook
from refldnq.solvers.base import Guarantee, Solution, Trace, check_column_weights, check_problem


@dataclass(frozen=True, eq=False)
class Point:
    """A point of Ω: codes (g, m, d), scales (r,) with r = 1 or one a column, and values (k,)."""

    codes: Int8Array
    alpha: Float64Array
    values: Float64Array

    @cached_property
    def Q(self) -> Float64Array:  # noqa: N802 - the paper's symbol
        """The unscaled weight values[codes], (g, m, d)."""
        return self.values[self.codes]

    @cached_property
    def G(self) -> Float64Array:  # noqa: N802 - the paper's symbol
        """The weight, (g, m, d)."""
        return self.scales * self.Q

    @property
    def scales(self) -> Float64Array:
        """The scales, to be multiplied with a weight: (1, 1, 1) or (g, m, 1)."""
        groups, outputs, _ = self.codes.shape
        return self.alpha.reshape((1, 1, 1) if len(self.alpha) == 1 else (groups, outputs, 1))


class Problem:
    """The data of (10); weights are (g, m, d) inside, so that a column is contiguous.

    Parameters
    ----------
    H : Array, shape (g, d, d), float64
        The Hessian's blocks.
    W : Array, shape (g, d, m)
        The packed weight.
    codebook : Codebook
        The set.
    per_channel : bool
        One scale for each output channel in place of one a layer.
    column_weights : Array, shape (g, m), optional
        ω; 1 by default.

    Raises
    ------
    ValueError
        If shapes do not fit, an entry is not finite or a weight not positive, or a free set is asked for one
        scale a channel.
    TypeError
        If H is not float64 or another array not float.

    Examples
    --------
    >>> from refldnq.codebook import powers_of_two
    >>> problem = Problem(np.eye(2)[None], np.array([[[3.0], [1.0]]]), powers_of_two(3), per_channel=False)
    >>> start = problem.nearest()
    >>> start.G.ravel(), problem.objective(start)
    (array([3., 0.]), 0.5)
    """

    def __init__(
        self,
        H: Float64Array,
        W: Array,
        codebook: Codebook,
        *,
        per_channel: bool,
        column_weights: Array | None = None,
    ) -> None:
        Rule().check(codebook, per_channel=per_channel)
        blocks, weight = check_problem(H, W)
        self.H, self.codebook = blocks, codebook
        self.W = np.ascontiguousarray(weight.transpose(0, 2, 1))
        self.HW = self.W @ blocks  # H is symmetric
        self.groups, self.outputs, self.d = self.W.shape
        # A single column has one scale either way.
        self.per_channel = per_channel
        omega = check_column_weights(column_weights, weight)
        self.omega = None if omega is None else omega[:, :, None]

    def rows(self, V: Float64Array) -> Float64Array:
        """A weight (g, m, d) with one row for every scale."""
        return V.reshape(-1, self.d) if self.per_channel else V.reshape(1, -1)

    def per_scale(self, columns: Float64Array) -> Float64Array:
        """Numbers of all columns (g, m), weighted by ω and added up for every scale, (r,)."""
        weighted = columns if self.omega is None else columns * self.omega[:, :, 0]
        return weighted.ravel() if self.per_channel else weighted.sum(keepdims=True).ravel()

    def nearest(self, V: Float64Array | None = None, *, method: str = "exact") -> Point:
        """The point of Ω nearest to V, by default to W, in the norm that weights columns by ω."""
        V = self.W if V is None else V
        weights = None
        if self.omega is not None:
            weights = np.ascontiguousarray(self.rows(np.broadcast_to(self.omega, V.shape)))
        rule = Rule(method="exact" if method == "exact" else "alternating")
        found = project_rows(np.ascontiguousarray(self.rows(V)), self.codebook, rule, None, weights)
        return Point(found.codes.reshape(self.W.shape), found.alpha, found.values)

    def form(self, A: Float64Array, B: Float64Array) -> Float64Array:
        """The products aᵀb of all columns, weighted by ω and added up for every scale, (r,)."""
        return self.per_scale(np.einsum("gmd,gmd->gm", A, B))

    def objectives(self, point: Point) -> Float64Array:
        """The part of (10) of every scale, (r,)."""
        difference = point.G - self.W
        return 0.5 * self.form(difference, difference @ self.H)  # [LDNQ] (10)

    def objective(self, point: Point) -> float:
        """f(G) of (10)."""
        return float(self.objectives(point).sum())

    def keep(
        self, best: Point, least: Float64Array, point: Point, objectives: Float64Array
    ) -> tuple[Point, Float64Array]:
        """The better of two points for every scale by itself, and its part of (10).

        Parameters
        ----------
        best : Point
            The best so far.
        least : Array, shape (r,)
            Its `objectives`.
        point : Point
            Another; it wins where its part of (10) is strictly smaller. A free set has one scale.
        objectives : Array, shape (r,)
            Its `objectives`.

        Returns
        -------
        best : Point
            `best` itself if the other is nowhere better.
        least : Array, shape (r,)
            Its parts of (10).

        Examples
        --------
        Two columns, each better in another point:

        >>> from refldnq.codebook import fixed
        >>> W = np.array([[[1.0, 0.0]]])
        >>> problem = Problem(np.ones((1, 1, 1)), W, fixed([0.0, 1.0]), per_channel=True)
        >>> ones, zeros = (Point(np.full((1, 2, 1), k, np.int8), np.ones(2), np.arange(2.0)) for k in (1, 0))
        >>> best, least = problem.keep(ones, problem.objectives(ones), zeros, problem.objectives(zeros))
        >>> best.codes.ravel(), least
        (array([1, 0], dtype=int8), array([0., 0.]))
        """
        better = objectives < least
        if not better.any():
            return best, least
        if better.all():
            return point, objectives
        columns = better.reshape(self.groups, self.outputs, 1)
        codes = np.where(columns, point.codes, best.codes)
        alpha = np.where(better, point.alpha, best.alpha)
        return Point(codes, alpha, point.values), np.where(better, objectives, least)

    def moving(self, point: Point) -> tuple[Int8Array, tuple[Array, ...]]:
        """A copy of a point's codes, and what kernels move them with.

        Parameters
        ----------
        point : Point
            The start; it is not changed.

        Returns
        -------
        codes : Array, shape (g, m, d), int8
            The copy.
        arrays : tuple of Array
            H (g, d, d); HW, HQ and the same copy (g m, d); the scales (g m,), one a column; the values (k,).
        """
        codes, columns = point.codes.copy(), self.groups * self.outputs
        HQ = (point.Q @ self.H).reshape(columns, -1)
        alpha = np.ascontiguousarray(np.broadcast_to(point.alpha, columns))
        flat = codes.reshape(columns, -1)
        return codes, (self.H, self.HW.reshape(columns, -1), HQ, flat, alpha, point.values)

    def refit(self, point: Point) -> Point:
        r"""The same codes with the scales, or the free values, that are best for them in the norm of H.

        Notes
        -----
        :math:`\alpha = \mathrm{tr}(Q^\top HW)/\mathrm{tr}(Q^\top HQ)`, never negative; a scale that has no
        best one stays. The values of a free set solve normal equations of the set's size; they are not
        sorted anew, so codes keep their meaning.
        """
        if self.codebook.kind == "fixed":
            return point
        if self.codebook.kind == "free":
            return self._refit_values(point)
        top = np.maximum(self.form(point.Q, self.HW), 0.0)
        bottom = self.form(point.Q, point.Q @ self.H)
        alpha = np.divide(top, bottom, out=point.alpha.copy(), where=bottom > 0)
        return Point(point.codes, alpha, point.values)

    def _refit_values(self, point: Point) -> Point:
        masks = [(point.codes == k).astype(np.float64) for k in range(len(point.values))]
        images = [mask @ self.H for mask in masks]
        normal = np.array([[self.form(mask, image)[0] for image in images] for mask in masks])
        right = np.array([self.form(mask, self.HW)[0] for mask in masks])
        # Of several solutions the one next to the present values: codes that H does not see stay.
        change = np.linalg.lstsq(normal, right - normal @ point.values, rcond=None)[0]
        return Point(point.codes, point.alpha, point.values + change)

    def solution(
        self,
        point: Point,
        *,
        solver: str,
        settings: Any,
        iterations: int = 0,
        converged: bool = True,
        guarantee: Guarantee = "none",
        notes: tuple[str, ...] = (),
        trace: Trace | None = None,
    ) -> Solution:
        """A solver's result from a point; values are put in ascending order."""
        order = np.argsort(point.values, kind="stable")
        place = np.argsort(order, kind="stable").astype(np.int8)
        channels = (self.groups, self.outputs) if self.per_channel else ()
        return Solution(
            codes=np.ascontiguousarray(place[point.codes].transpose(0, 2, 1)),
            alpha=point.alpha.reshape(channels),
            values=point.values[order],
            objective=self.objective(point),
            solver=solver,
            settings=settings,
            iterations=iterations,
            converged=converged,
            guarantee=guarantee,
            notes=notes,
            trace=trace or Trace(),
        )

    def point(self, solution: Solution) -> Point:
        """A solver's result as a point."""
        return Point(
            np.ascontiguousarray(solution.codes.transpose(0, 2, 1)), solution.alpha.ravel(), solution.values
        )
