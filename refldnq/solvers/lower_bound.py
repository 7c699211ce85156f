r"""Certified lower bounds of the discrete problem (10): how far a solver's result can be from the optimum.

If D is diagonal with 0 ≤ D ≤ H (as a quadratic form), then for every G

    f(G) = ½ Σ δᵀHδ ≥ ½ Σ_k D_k ‖δ_k‖²,   δ = G - W, δ_k its rows,

and the least value of the right side over Ω is a weighted projection, whose global optimum is known exactly,
one scale for all columns included. Where columns count differently, by ω_c, so they do on the right side.
Three choices of D:

* ``eigenvalue``: D = λ_min(H) I.
* ``jacobi``: D = λ_min(S^{-1/2} H S^{-1/2}) S with S = diag H.
* ``split``: the best D. The bound is concave in D, a minimum of linear functions, and is maximized by
  Newton's method on a logarithmic barrier of 0 ≤ D ≤ H (the Lagrangian dual of (10) has other multipliers
  too; a free shared scale leaves these).

A singular block leaves D = 0 and no certificate of its own; but rows that are zero, inputs that no image
excites, do not count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from refldnq._checks import check_integer, check_number
from refldnq._typing import Array, Float64Array
from refldnq.codebook import Codebook
from refldnq.hessian import UNIT, Mask
from refldnq.projection import project
from refldnq.solvers.base import check_column_weights, check_problem, pick_settings

Method = Literal["eigenvalue", "jacobi", "split", "none"]


@dataclass(frozen=True, kw_only=True, slots=True)
class BoundSettings:
    """What is bounded, and how hard the best diagonal is looked for.

    Parameters
    ----------
    per_channel : bool, optional
        Whether every output channel has a scale of its own.
    steps : int, optional
        Most steps of Newton's method; 0 leaves ``split`` out.
    accuracy : float, optional
        The barrier ends where it costs at most this share of the bound; chosen here.
    rows : int, optional
        Blocks with more rows get no ``split``, which takes d³ a step; chosen here (1 s in all at 576, 6 s at
        1024).

    Raises
    ------
    ValueError
        If a number is out of range.
    TypeError
        If a number has the wrong type.

    Examples
    --------
    >>> BoundSettings().steps
    40
    """

    per_channel: bool = False
    steps: int = 40
    accuracy: float = 0.01
    rows: int = 1024

    def __post_init__(self) -> None:
        check_integer("steps", self.steps, at_least=0)
        check_number("accuracy", self.accuracy, above=0)
        check_integer("rows", self.rows, at_least=0)


@dataclass(frozen=True, kw_only=True, eq=False)
class LowerBound:
    """No G in Ω has an objective (10) below `value`.

    Parameters
    ----------
    value : float
        The best of the bounds, roundings subtracted; 0, which says nothing, if there is no certificate.
    method : {'eigenvalue', 'jacobi', 'split', 'none'}
        Where it comes from.
    bounds : dict of str to float
        Every method's own bound.
    diagonal : Array, shape (g, d)
        The D of `value`, for which H - D is certified to be positive semidefinite; a witness that others can
        check.
    slack : float
        What was subtracted for the roundings of the projection.
    steps : int
        Newton steps.
    """

    value: float
    method: Method
    bounds: dict[str, float]
    diagonal: Float64Array
    slack: float
    steps: int


def gap(objective: float, bound: float) -> float:
    """By how much an objective can exceed the optimum, as a share of it; NaN without a certificate.

    Parameters
    ----------
    objective : float
        f(G) of a solver.
    bound : float
        A lower bound of the optimum; 0 is none.

    Returns
    -------
    float
        ``objective <= (1 + gap) * optimum``; 0 for an objective of 0, which nothing is below.

    Examples
    --------
    >>> gap(1.5, 1.0), gap(1.5, 0.0)
    (0.5, nan)
    """
    if not objective > 0:
        return 0.0
    return max(objective / bound - 1.0, 0.0) if bound > 0 else float("nan")


def lower_bound(
    H: Float64Array,
    W: Array,
    codebook: Codebook,
    settings: BoundSettings | None = None,
    *,
    column_weights: Array | None = None,
) -> LowerBound:
    r"""Bound the optimum of (10) from below.

    Parameters
    ----------
    H : Array, shape (g, d, d), float64
        The Hessian's blocks.
    W : Array, shape (g, d, m)
        The packed weight.
    codebook : Codebook
        Any set. Of a free set all sets of that size are covered.
    settings : BoundSettings, optional
        One scale a layer or one a channel.
    column_weights : Array, shape (g, m), optional
        Weights ω of the columns' errors in the objective.

    Returns
    -------
    LowerBound

    Raises
    ------
    ValueError
        If the shapes do not fit, an entry is not finite, or one scale a channel is asked of a free set.
    TypeError
        If H is not float64, W not float or the settings are of another kind.

    Notes
    -----
    Rounding: H - D is certified by `certified_split` for H as it is given, and the projection's least cost is
    lowered by a bound of its roundings (`slack`), so `value` is a lower bound of the exact optimum, barring
    underflow.

    Examples
    --------
    >>> from refldnq.codebook import powers_of_two
    >>> H, W = np.array([[[2.0, 1.0], [1.0, 2.0]]]), np.array([[[1.0], [0.4]]])
    >>> bound = lower_bound(H, W, powers_of_two(3))
    >>> round(bound.value, 3), bound.method, round(gap(0.09, bound.value), 2)
    (0.088, 'split', 0.02)
    """
    chosen: BoundSettings = pick_settings(settings, BoundSettings, BoundSettings())
    blocks, weight = check_problem(H, W)
    if chosen.per_channel and codebook.kind == "free":
        raise ValueError(
            "`per_channel` must be False for a free set, whose values are the layer's, got True."
        )
    omega = check_column_weights(column_weights, weight)
    problem = _Problem(blocks, weight, codebook, chosen.per_channel, omega)
    candidates: dict[Method, Float64Array] = {
        "eigenvalue": problem.certified(problem.eigenvalue()),
        "jacobi": problem.certified(problem.jacobi()),
    }
    steps = 0
    if chosen.steps and blocks.shape[1] <= chosen.rows and candidates["jacobi"].any():
        best, steps = _maximize(problem, candidates["jacobi"], chosen)
        candidates["split"] = problem.certified(best)
    found = {method: problem.cost(D) for method, D in candidates.items()}
    method = max(found, key=lambda name: found[name].value)
    bounds = {str(name): max(cost.value, 0.0) for name, cost in found.items()}
    if not found[method].value > 0:
        return LowerBound(
            value=0.0,
            method="none",
            bounds=bounds,
            diagonal=np.zeros(blocks.shape[:2]),
            slack=0.0,
            steps=steps,
        )
    return LowerBound(
        value=found[method].value,
        method=method,
        bounds=bounds,
        diagonal=candidates[method],
        slack=found[method].slack,
        steps=steps,
    )


def certified_split(block: Float64Array, D: Float64Array) -> bool:
    r"""Whether H - D is certainly positive semidefinite, rounding included.

    Parameters
    ----------
    block : Array, shape (d, d)
        H, symmetric.
    D : Array, shape (d,)
        The diagonal, not negative.

    Returns
    -------
    bool
        True is a proof; False says nothing.

    Notes
    -----
    Cholesky's factorization of A that runs through in floating point has :math:`A + E = R^\top R` with
    :math:`|E_{ij}| \le \gamma (a_{ii} a_{jj})^{1/2}`, :math:`\gamma = (d+1)u/(1-2(d+1)u)` (Demmel 1989;
    Higham 2002, theorem 10.3), so :math:`x^\top A x \ge -\gamma d \sum a_{ii} x_i^2`. Here A = H - D - s diag
    H with a share s that covers this and the rounding of A's diagonal. Rows of zeros are left out; D must be
    0 there.

    Examples
    --------
    >>> H = np.array([[2.0, 1.0], [1.0, 2.0]])
    >>> certified_split(H, np.array([0.999, 0.999])), certified_split(H, np.array([1.0, 1.0001]))
    (True, False)
    """
    live = block.any(axis=1)
    if D[~live].any() or not (D >= 0).all():
        return False
    if not live.any():
        return True
    part, own = block[np.ix_(live, live)], D[live]
    d = len(own)
    share = 2 * UNIT * d * (d + 8)
    diagonal = np.diagonal(part)
    A = part.copy()
    np.fill_diagonal(A, diagonal - own - share * diagonal)
    try:
        factor = np.linalg.cholesky(A)
    except np.linalg.LinAlgError:
        return False
    return bool(np.isfinite(factor).all())


@dataclass(frozen=True, slots=True)
class _Cost:
    """½ min Σ D_k ‖δ_k‖² over Ω: a certain lower bound, what was subtracted, and ½ ‖δ_k‖² there, (g, d).

    Norms count columns by their weights.
    """

    value: float
    slack: float
    rows: Float64Array


class _Problem:
    """The blocks, scaled to a diagonal of ones, and the projection."""

    def __init__(
        self,
        H: Float64Array,
        W: Float64Array,
        codebook: Codebook,
        per_channel: bool,
        omega: Float64Array | None,
    ) -> None:
        self.H, self.W, self.codebook, self.per_channel = H, W, codebook, per_channel
        self.omega = np.ones((len(W), W.shape[2])) if omega is None else omega
        self.live: Mask = (H != 0).any(axis=2)
        self.S: Float64Array = np.einsum("gii->gi", H)
        root = np.sqrt(np.where(self.live, self.S, 1.0))
        self.scaled = H / (root[:, :, None] * root[:, None, :])
        # A factorization tells singular blocks from others much faster than eigenvalues do.
        self.definite = [certified_split(block, np.zeros(len(block))) for block in H]

    def block(self, group: int) -> Float64Array:
        """The scaled block of the rows that are not zero."""
        live = self.live[group]
        block: Float64Array = self.scaled[group][np.ix_(live, live)]
        return block

    def eigenvalue(self) -> Float64Array:
        """λ_min(H) I, on rows that are not zero."""
        D = np.zeros_like(self.S)
        for group, live in enumerate(self.live):
            if live.any() and self.definite[group]:
                D[group, live] = max(float(np.linalg.eigvalsh(self.H[group][np.ix_(live, live)])[0]), 0.0)
        return D

    def jacobi(self) -> Float64Array:
        """λ_min(S^{-1/2} H S^{-1/2}) S."""
        D = np.zeros_like(self.S)
        for group, live in enumerate(self.live):
            if live.any() and self.definite[group]:
                D[group, live] = max(float(np.linalg.eigvalsh(self.block(group))[0]), 0.0)
        scaled: Float64Array = D * self.S
        return scaled

    def certified(self, D: Float64Array) -> Float64Array:
        """D shrunk until H - D is certified; zeros where it never is."""
        shrunk = np.zeros_like(D)
        for group, own in enumerate(D):
            for share in (0.0, *(1e-13 * 8.0**j for j in range(14)), 0.5, 0.9):
                if not own.any():
                    break
                if certified_split(self.H[group], (1.0 - share) * own):
                    shrunk[group] = (1.0 - share) * own
                    break
        return shrunk

    def cost(self, D: Float64Array) -> _Cost:
        """The bound that D gives."""
        if not D.any():
            return _Cost(0.0, 0.0, np.zeros_like(D))
        weights = D[:, :, None] * self.omega[:, None, :]
        if self.codebook.kind == "free":
            return _free_cost(self.W, weights, self.codebook.levels, self.omega)
        found = project(self.W, self.codebook, method="exact", per_channel=self.per_channel, weights=weights)
        G = found.G
        # Of 2 N L additions, and comparisons in a sweep that roundings may misplace: see `_SLACK`.
        size = self.W.size * self.codebook.levels + 100
        energy = float(np.vdot(weights, self.W**2 + G**2))
        slack = 0.5 * _SLACK * size * UNIT * energy
        rows = 0.5 * (self.omega[:, None, :] * (self.W - G) ** 2).sum(axis=2)
        return _Cost(0.5 * found.residual - slack, slack, rows)


_SLACK = 16.0
"""Roundings of the exact projection, in units of N L u Σ w (v² + G²) for N entries and L levels.

The sweep keeps Σ w v q and Σ w q², sums of at most N L terms, and takes the greatest (Σ w v q)² / Σ w q².
Each sum is off by at most N L u of the sum of its terms' magnitudes, so the quotient, which is at most Σ w
v², by 4 N L u of that. Breakpoints in the wrong order are a few u apart; a state that differs from the right
one in such elements costs at most 8 u Σ w (v² + G²) more. Candidates within 1e-14 of each other count as
equal, which the 100 added to N L covers; 16 covers all, with the sums of residual and energy themselves, and
with the one rounding of each weight D_k ω_c."""


def _free_cost(W: Float64Array, weights: Float64Array, levels: int, omega: Float64Array) -> _Cost:
    """The bound of a free set, from points and weights on a grid, where sums are exact.

    With weights w' ≤ w and points v' within e of v, the distance to the nearest set of `levels` values falls
    by at most e (Σ w')^{1/2}. On the grid all sums are integers below 2⁵³: the gain Σ (Σ w'v')² / Σ w' of a
    partition has a few roundings a cluster, and a halving of `partition`, which finds the greatest, may miss
    it by those of one comparison.
    """
    from refldnq._kernels import projection as kernels

    v, w = W.ravel(), weights.ravel()
    bits = 52 - int(np.ceil(np.log2(len(v) + 1)))
    fine, coarse = 2.0 ** (bits - bits // 2 - 4), 2.0 ** (bits // 2 + 4)
    centre = 0.5 * (float(v.max()) + float(v.min()))
    unit_v = max(float(np.abs(v - centre).max()) / coarse, float(np.finfo(float).tiny))
    unit_w = float(w.max()) / fine
    v_grid, w_grid = np.rint((v - centre) / unit_v), np.floor(w / unit_w * (1 - 4 * UNIT))
    points, inverse = np.unique(v_grid[w_grid > 0], return_inverse=True)
    if len(points) <= levels:
        return _Cost(0.0, 0.0, np.zeros(W.shape[:2]))
    mass = np.bincount(inverse, weights=w_grid[w_grid > 0])
    sums, moments = (np.concatenate([[0.0], np.cumsum(term)]) for term in (mass, mass * points))
    ends = np.empty(levels, dtype=np.int64)
    kernels.partition(sums, moments, np.zeros_like(sums), levels, ends)
    starts = np.concatenate([[0], ends[:-1]])
    values = np.add.reduceat(mass * points, starts) / np.add.reduceat(mass, starts)
    nearest = values[np.abs(v_grid[:, None] - values).argmin(axis=1)]
    residual, energy = float(w_grid @ (v_grid - nearest) ** 2), float(w_grid @ v_grid**2)
    rounding = 4 * (len(v) + levels * (levels + 10) * (2 + float(np.log2(len(v))))) * UNIT * energy
    shift = (0.5 + 4 * coarse * UNIT) * float(np.sqrt(w_grid.sum()))
    least = max(float(np.sqrt(max(residual - rounding, 0.0))) - shift, 0.0) ** 2 * (1 - 32 * UNIT)
    scale = 0.5 * unit_w * unit_v**2
    rows = 0.5 * (omega[:, None, :] * (v - centre - unit_v * nearest).reshape(W.shape) ** 2).sum(axis=2)
    return _Cost(scale * least, scale * (residual - least), rows)


def _maximize(problem: _Problem, start: Float64Array, settings: BoundSettings) -> tuple[Float64Array, int]:
    """The best diagonal found and the steps taken, by Newton's method on a barrier that is lowered.

    In the scaling that makes H's diagonal 1, with x = D / S and a supergradient c, c_k = S_k ½ ‖δ_k‖² at the
    last projection: maximize cᵀx / μ + log det(H - x) + Σ log x. The Hessian is -(M ∘ M) - 1/x² with M = (H -
    x)^{-1}, negative definite; the barrier costs at most 2 d μ (self-concordance). μ falls by a factor of 5 a
    step where the step was nearly a full one.
    """
    from scipy.linalg import lapack

    S, live = problem.S, problem.live & (start > 0)  # a block without a start is singular
    count = int(live.sum())
    x = np.zeros_like(S)
    x[live] = 0.9 * start[live] / S[live]
    blocks = [problem.block(group) for group in range(len(S))]

    def inverse(group: int, own: Float64Array) -> tuple[Float64Array, float] | None:
        """(H - x)^{-1} and log det(H - x) of a block; None if it is not positive definite."""
        A = blocks[group].copy()
        A[np.diag_indices(len(own))] -= own
        factor, failed = lapack.dpotrf(A, lower=1, overwrite_a=1)
        diagonal = np.diagonal(factor)
        if failed or not (diagonal > 0).all():
            return None
        logdet = 2 * float(np.log(diagonal).sum())
        M, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)
        lower = np.tril(M, -1)
        return lower + lower.T + np.diag(np.diagonal(M)), logdet

    cost = problem.cost(x * S)
    best, best_value = x * S, cost.value
    if not best_value > 0:
        return best, 0  # W lies in Ω
    c = cost.rows * S
    mu = float((c * x).sum()) / count
    states = [inverse(group, x[group, rows]) if rows.any() else None for group, rows in enumerate(live)]
    steps = 0
    while steps < settings.steps:
        steps += 1
        decrement = 0.0
        for group, rows in enumerate(live):
            state, own, slope = states[group], x[group, rows], c[group, rows]
            if state is None:
                continue
            M, logdet = state
            gradient = slope / mu - np.diagonal(M) + 1 / own
            curvature = M * M
            curvature[np.diag_indices(len(own))] += 1 / own**2
            factor, failed = lapack.dpotrf(curvature, lower=1, overwrite_a=1)
            if failed:
                continue
            direction, _ = lapack.dpotrs(factor, gradient, lower=1)
            square = float(gradient @ direction)
            decrement = max(decrement, square)
            height = float(slope @ own) / mu + logdet + float(np.log(own).sum())
            step = min(1.0, 0.99 / max(float((-direction / own).max()), 0.99))
            for _ in range(30):
                new = own + step * direction
                found = inverse(group, new) if (new > 0).all() else None
                if found is not None:
                    reached = float(slope @ new) / mu + found[1] + float(np.log(new).sum())
                    if reached >= height + 1e-4 * step * square:
                        states[group], x[group, rows] = found, new
                        break
                step *= 0.5
        cost = problem.cost(x * S)
        if cost.value > best_value:
            best, best_value = x * S, cost.value
        # Averaged: with few columns the projection, and with it c, jumps.
        c = 0.5 * c + 0.5 * cost.rows * S
        end = settings.accuracy * best_value / (2 * count)
        if decrement < 1.0:
            if mu <= end:
                break
            mu = max(mu / 5, 0.99 * end)
    return best, steps
