"""Projections of the rows of a matrix, each with its own scale: what `projection` and the solvers share.

Arguments are taken to be checked. V is (r, N) in float64 and C order; a layer with one scale is a single row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from refldnq._checks import check_choice, check_integer, check_number
from refldnq._exact import best_partition, best_scales
from refldnq._kernels.threads import run_kernel
from refldnq._typing import Float64Array, Int8Array, Int64Array
from refldnq.codebook import TIES, Codebook, Ties

Method = Literal["alternating", "exact"]
Mask = npt.NDArray[np.bool_]

_GRAIN = 4
"""Units of a kernel that are worth a thread (chosen here: about 10 µs of work)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """How a projection is computed; the fields are the arguments of `refldnq.projection.project`.

    Raises
    ------
    ValueError
        If a field is out of range.
    TypeError
        If a number has the wrong type.

    Examples
    --------
    >>> Rule(method="exact").ties
    'smaller'
    """

    method: Method = "alternating"
    max_passes: int | None = None
    alpha_tolerance: float | None = None
    keep_best_pass: bool = False
    ties: Ties = "smaller"

    def __post_init__(self) -> None:
        check_choice("method", self.method, ("alternating", "exact"))
        check_choice("ties", self.ties, TIES)
        if self.max_passes is not None:
            check_integer("max_passes", self.max_passes, at_least=0)
        if self.alpha_tolerance is not None:
            check_number("alpha_tolerance", self.alpha_tolerance, at_least=0)

    def check(self, codebook: Codebook, *, per_channel: bool = False) -> None:
        """Refuse a codebook that cannot follow the rule.

        Raises
        ------
        ValueError
            If ties go to 0 in a set without 0, or a free set is asked for one scale a channel.
        """
        if self.ties == "zero" and not codebook.has_zero:
            raise ValueError("`ties` must not be 'zero' for a set without 0, got 'zero'.")
        if per_channel and codebook.kind == "free":
            raise ValueError(
                "`per_channel` must be False for a free set, whose values are the layer's, got True."
            )

    def is_global(self, codebook: Codebook) -> bool:
        """Whether the result is a global optimum: nearest codes of a fixed set, else the exact method.

        Examples
        --------
        >>> from refldnq.codebook import fixed, powers_of_two
        >>> Rule().is_global(fixed([-1, 1])), Rule().is_global(powers_of_two(3))
        (True, False)
        """
        if codebook.kind == "fixed":
            return not self.moves_ties(codebook)
        return self.method == "exact"

    def moves_ties(self, codebook: Codebook) -> bool:
        """Whether a value halfway between two non-zero levels becomes 0."""
        return (
            self.ties == "zero" and codebook.levels <= 9
        )  # the released code has <= for 11 levels, none above


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """A projection of every row: codes (r, N), values (k,), everything else (r,)."""

    codes: Int8Array
    alpha: Float64Array
    values: Float64Array
    residual: Float64Array
    passes: Int64Array
    converged: Mask


def project_rows(
    V: Float64Array,
    codebook: Codebook,
    rule: Rule,
    start: Float64Array | None = None,
    weights: Float64Array | None = None,
) -> Rows:
    """Project every row of V by itself, (16)-(17).

    Parameters
    ----------
    V : Array, shape (r, N)
        The rows; a free set allows a single one.
    codebook : Codebook
        The set.
    rule : Rule
        How.
    start : Array, optional
        Scales (r,) to start from, 0 meaning the default; for a free set, values (any,).
    weights : Array, shape (r, N), optional
        Non-negative weights.

    Returns
    -------
    Rows
        One projection a row.

    Examples
    --------
    >>> from refldnq.codebook import powers_of_two
    >>> project_rows(np.array([[3.0, -2.0], [0.0, 0.5]]), powers_of_two(3), Rule()).alpha
    array([2.5, 0.5])
    """
    problem = _Problem(V, weights, codebook, rule)
    if codebook.kind == "free":
        if rule.method == "exact":
            return _lloyd(
                problem, best_partition(V[0], None if weights is None else weights[0], codebook.levels)
            )
        return _lloyd(problem, _quantiles(V[0], codebook.levels) if start is None else start)
    if codebook.kind == "fixed":
        codes, alpha, every = problem.new_codes(), np.ones(V.shape[0]), np.ones(V.shape[0], dtype=bool)
        sums = problem.round(codebook.values, alpha, codes, every)
        return Rows(
            codes=codes,
            alpha=alpha,
            values=codebook.values,
            residual=sums[:, 2],
            passes=np.zeros(V.shape[0], dtype=np.int64),
            converged=every,
        )
    if rule.method == "exact":
        # The sweep's scale is a fixed point of the alternation, which turns it into codes.
        return _alternate(problem, best_scales(V, weights, codebook), Rule(ties=rule.ties))
    return _alternate(problem, start, rule)


class _Problem:
    """V, its weights and its set, with the passes over the data."""

    def __init__(self, v: Float64Array, weights: Float64Array | None, codebook: Codebook, rule: Rule) -> None:
        self.v, self.codebook, self.rule = v, codebook, rule
        self.weights = np.empty((0, 0)) if weights is None else weights

    def new_codes(self) -> Int8Array:
        least = 0 if self.codebook.kind == "free" else self.codebook.least_code
        return np.full(self.v.shape, least, dtype=np.int8)

    def round(
        self,
        values: Float64Array,
        alpha: Float64Array,
        codes: Int8Array,
        rows: Mask,
        *,
        rounding: bool = True,
    ) -> Float64Array:
        """Write the nearest codes of some rows; return Σ w v q, Σ w q² and Σ w (v - αq)², (r, 3)."""
        from refldnq._kernels import alternation
        from refldnq._kernels import projection as kernels

        limits = np.empty((len(alpha), len(values) - 1))
        alternation.limits(values, alpha, self.rule.ties == "larger", limits)
        tied = np.empty((len(alpha), 0))
        if self.rule.moves_ties(self.codebook):
            between = (values[:-1] != 0) & (values[1:] != 0)
            tied = alpha[:, None] * (0.5 * values[:-1] + 0.5 * values[1:])[between]
        zero = self.codebook.least_code if tied.size else 0
        units = -(-self.v.shape[1] // kernels.BLOCK)
        sums = np.zeros((len(alpha), units, 3))
        run_kernel(
            kernels.nearest,
            (self.v, self.weights, alpha, limits, tied, zero, values, codes, rows, rounding, sums),
            len(alpha) * units,
            grain=_GRAIN,
        )
        totals: Float64Array = sums.sum(axis=1)
        return totals

    def clusters(self, codes: Int8Array, count: int) -> Float64Array:
        """The sums Σ w and Σ w v of every code of the one row, (2, count)."""
        from refldnq._kernels import projection as kernels

        units = -(-self.v.shape[1] // kernels.BLOCK)
        sums = np.zeros((units, count, 2))
        v, weights, codes = self.v[0], self.weights.reshape(-1), codes[0]
        run_kernel(kernels.clusters, (v, weights, codes, sums), units, grain=_GRAIN)
        totals: Float64Array = sums.sum(axis=0).T
        return totals

    def energy(self) -> Float64Array:
        """Σ w v² of every row."""
        squares: Float64Array = (
            np.einsum("rn,rn,rn->r", self.weights, self.v, self.v)
            if self.weights.size
            else np.einsum("rn,rn->r", self.v, self.v)
        )
        return squares

    def default_start(self) -> Float64Array:
        """The weighted mean of |v| over the least non-zero magnitude of the set, of every row."""
        magnitudes = np.abs(self.codebook.values)
        weights = self.weights if self.weights.size else np.ones((1, 1))
        mass = np.broadcast_to(weights, self.v.shape).sum(axis=1) * magnitudes[magnitudes > 0].min()
        moment = (weights * np.abs(self.v)).sum(axis=1)
        start: Float64Array = np.divide(moment, mass, out=np.zeros_like(mass), where=mass > 0)
        return start


def _alternate(problem: _Problem, start: Float64Array | None, rule: Rule) -> Rows:
    from refldnq._kernels import alternation as kernels

    codebook, values = problem.codebook, problem.codebook.values
    default: Float64Array | None = None  # a pass over the data, made only if it is needed
    if start is None:
        alpha = default = problem.default_start()
    elif (start > 0).all():
        alpha = start
    else:
        default = problem.default_start()
        alpha = np.where(start > 0, start, default)
    alpha = alpha.copy()
    most = problem.v.shape[1] * (codebook.levels - 1) + 1 if rule.max_passes is None else rule.max_passes
    rules = (most, rule.alpha_tolerance or 0.0, codebook.has_zero, rule.keep_best_pass)
    codes, residual = problem.new_codes(), np.zeros_like(alpha)
    passes = np.zeros(len(alpha), dtype=np.int64)
    active = alpha > 0
    converged = ~active
    may_restart = np.full(len(alpha), not rule.keep_best_pass)
    direction, last = np.zeros_like(alpha), np.full_like(alpha, np.inf)
    best: tuple[Float64Array, Float64Array, Int8Array] | None = None
    moved = np.zeros_like(active)
    while active.any():
        sums = problem.round(values, alpha, codes, active)  # [LDNQ] (17), Q = Proj(V/α)
        if rule.keep_best_pass and best is None:
            best = sums[:, 2].copy(), alpha.copy(), codes.copy()
        if most == 0:
            residual = sums[:, 2]
            break
        if default is None and kernels.falls_to_zero(sums, active, may_restart):
            default = problem.default_start()
        counted = active.copy()
        kernels.advance(
            sums, alpha if default is None else default, rules, alpha, residual, last, direction, passes,
            active, converged, may_restart, moved,
        )  # fmt: skip
        if moved.any():
            residual[moved] = problem.round(values, alpha, codes, moved, rounding=False)[moved, 2]
        if best is not None:
            better = counted & (residual < best[0])
            best[0][better], best[1][better], best[2][better] = residual[better], alpha[better], codes[better]
    if best is not None:
        residual, alpha, codes = best
    # G = 0 has many codes and scales; the scale 0 and the code of 0 stand for all of them.
    nothing = alpha == 0
    if best is not None or most == 0:
        nothing |= (values[codes] == 0).all(axis=1)
    if nothing.any():
        codes[nothing], alpha[nothing] = codebook.least_code, 0.0
        residual[nothing] = problem.energy()[nothing]
    return Rows(
        codes=codes, alpha=alpha, values=values, residual=residual, passes=passes, converged=converged
    )


def _quantiles(v: Float64Array, levels: int) -> Float64Array:
    # Values of v at equal shares; fewer where v has ties.
    return np.unique(np.quantile(v, (np.arange(levels) + 0.5) / levels, method="inverted_cdf"))


def _lloyd(problem: _Problem, values: Float64Array) -> Rows:
    """Alternate nearest codes and cluster means of the one row; the residual falls until nothing moves."""
    one, every = np.ones(1), np.ones(1, dtype=bool)
    codes = problem.new_codes()
    last, passes, converged = np.inf, 0, False
    # The best partition is a fixed point up to rounding; the pass limit is for the alternation alone.
    most = None if problem.rule.method == "exact" else problem.rule.max_passes
    while True:
        residual = problem.round(values, one, codes, every)[:, 2]
        mass, moment = problem.clusters(codes, len(values))
        new = np.divide(moment, mass, out=values.copy(), where=mass > 0)
        converged = bool((new == values).all() or residual[0] >= last)
        if converged or passes == most:
            break
        values, last, passes = new, residual[0], passes + 1
    return Rows(
        codes=codes,
        alpha=one,
        values=values,
        residual=residual,
        passes=np.array([passes]),
        converged=np.array([converged]),
    )
