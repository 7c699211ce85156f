r"""The exact optimum of (10) for small layers: branch and bound over the scale, sphere decoding inside.

For a scale α the columns of a layer are separate closest-point problems in a finite grid. With C = ½ tr WᵀHW,

    f(αQ) = C + α ℓ_Q(α),   ℓ_Q(α) = ½ α tr QᵀHQ - tr QᵀHW,

and ℓ(α) = min over Q of ℓ_Q(α), a sum over the columns, is a minimum of lines whose slopes are not negative:
concave and ascending. Between two scales where ℓ is known it lies above its chord and below both lines found,
and the lines cross where the next scale is worth a look. The scale is therefore continuous and shared, and
nothing is sampled. For d rows and k levels a scale costs at most m kᵈ nodes, and usually far fewer: the cost
is a sum over columns, not a product.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from refldnq._checks import check_integer
from refldnq._kernels.threads import run_kernel
from refldnq._typing import Array, Float64Array, Int8Array
from refldnq.codebook import Codebook
from refldnq.hessian import UNIT, layer_error
from refldnq.projection import project
from refldnq.solvers.base import Solution, check_problem, pick_settings

SLACK = 1e-11
"""Share of ½ tr WᵀHW by which another G may be better, for rounding (chosen here; see `solve`)."""

FARTHEST = 2.0**80
"""Scales above this many times max|W| are not searched (chosen here): beyond them lies rounding alone."""

WIDEST = 2.0**10
"""The largest ratio of an interval's scales (chosen here): what is found at α is known to some roundings of
½ tr WᵀHW over α, which must be less than the slack at the interval's right end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExactSettings:
    """How far the search may go.

    Parameters
    ----------
    per_channel : bool, optional
        One α for each output channel in place of one a layer.
    nodes : int, optional
        Most nodes of the search trees of a layer, all scales and columns together; chosen here (some
        7 s on one core).

    Raises
    ------
    ValueError
        If `nodes` is less than 1.
    TypeError
        If `nodes` is not an integer.

    Examples
    --------
    >>> ExactSettings().per_channel
    False
    """

    per_channel: bool = False
    nodes: int = 100_000_000

    def __post_init__(self) -> None:
        check_integer("nodes", self.nodes, at_least=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class ExactSolution(Solution):
    """The result of the exact search.

    Parameters
    ----------
    lower_bound : float
        No G in Ω has a smaller objective, up to rounding (`SLACK`): the objective itself if the search came
        to its end; -infinity if a search tree was cut off, 0 if rounding decides.
    nodes : int
        Nodes visited.
    """

    lower_bound: float
    nodes: int


DEFAULT = ExactSettings()
"""The settings that `solve` takes for None."""


def solve(
    H: Float64Array, W: Array, codebook: Codebook, settings: ExactSettings | None = None
) -> ExactSolution:
    r"""Quantize a weight optimally.

    Parameters
    ----------
    H : Array, shape (g, d, d), float64
        The Hessian's blocks, singular or not.
    W : Array, shape (g, d, m)
        The packed weight.
    codebook : Codebook
        A scaled set, symmetric or not, with 0 or without, or a fixed one.
    settings : ExactSettings, optional
        One scale a layer or one a channel; how far to search.

    Returns
    -------
    ExactSolution
        With guarantee ``optimal`` if the search came to its end; with ``none``, a note and the best G found
        if it did not, or if rounding decides. `iterations` counts the scales that were looked at.

    Raises
    ------
    ValueError
        If the shapes do not fit, an entry is not finite, H is indefinite beyond rounding, or the set is free.
    TypeError
        If H is not float64, W not float or the settings are another solver's.

    Notes
    -----
    [LDNQ] asks for the minimum of (10) and offers ADMM, which does not find it; this is the measure for
    solvers at sizes where the truth is within reach, about d = 16 with 3 levels.

    ``optimal`` is meant up to rounding: no G in Ω is better by more than `SLACK` times ½ tr WᵀHW. Distances
    are computed from a triangular factor R with RᵀR = H, without a ridge: with the diagonal scaled to 1,
    eigenvalues within d roundings of the largest one count as 0, a zero on R's diagonal is no obstacle, and
    directions that H does not see are searched in full. If W or the error of the result carries more than
    the slack in directions that count as unseen, the guarantee is ``none``.

    The order of the rows decides how fast branches end: the next row to be fixed, from the last, is the one
    with the largest entry of R. It changes no result.

    Examples
    --------
    Rounding (3, 1) to the nearest levels gives (2, 2); the data say that the first input matters.

    >>> from refldnq.codebook import powers_of_two
    >>> H, W = np.diag([100.0, 1.0])[None], np.array([[[3.0], [1.0]]])
    >>> solution = solve(H, W, powers_of_two(3))
    >>> solution.G.ravel(), solution.objective, solution.guarantee
    (array([3., 0.]), 0.5, 'optimal')
    """
    chosen: ExactSettings = pick_settings(settings, ExactSettings, DEFAULT)
    blocks, weight = check_problem(H, W)
    if codebook.kind == "free":
        raise ValueError("`codebook` must be scaled or fixed for the exact optimum, got a free set.")
    search = _Search(blocks, weight, codebook, chosen)
    groups, _, outputs = weight.shape
    every = np.ones((groups, outputs), dtype=bool)
    if codebook.kind == "fixed":
        alpha = np.ones((groups, outputs) if chosen.per_channel else ())
        lower = search.at_scale(1.0, every)
    elif chosen.per_channel:
        alpha, lower = np.zeros((groups, outputs)), 0.0
        for group, output in np.ndindex(groups, outputs):
            alone = np.zeros_like(every)
            alone[group, output] = True
            alpha[group, output], least = search.best_scale(alone)
            lower += least
    else:
        scale, lower = search.best_scale(every)
        alpha = np.array(scale)
    codes = search.unordered()
    factor = alpha[:, None, :] if alpha.ndim else alpha
    objective = layer_error(blocks, weight, factor * codebook.values[codes])
    slack = SLACK * search.energy(every)
    # A search that came to its end leaves no gap but one of rounding.
    decided = lower >= objective - slack and (objective <= 0 or search.unseen(alpha) <= slack)
    notes: tuple[str, ...] = ()
    if search.cut:
        lower = float("-inf")
        notes = (f"the search ended after {search.spent} nodes: the result need not be optimal",)
    elif not decided:
        lower = 0.0
        notes = ("directions that H sees within rounding alone decide: the result need not be optimal",)
    return ExactSolution(
        codes=codes,
        alpha=alpha,
        values=codebook.values,
        objective=objective,
        solver="exact",
        settings=chosen,
        iterations=search.scales,
        guarantee="none" if notes else "optimal",
        notes=notes,
        lower_bound=min(lower, objective),
        nodes=search.spent,
    )


@dataclass(frozen=True)
class _Point:
    """What is known at a scale: the least line there, ½ A α - c, and its codes (g, m, d)."""

    alpha: float
    A: float
    c: float
    codes: Int8Array

    @property
    def line(self) -> float:
        """ℓ(α)."""
        return 0.5 * self.A * self.alpha - self.c

    def same(self, other: _Point) -> Array:
        """Which columns have the same codes, (g, m)."""
        equal: Array = (self.codes == other.codes).all(axis=2)
        return equal


class _Search:
    """One layer's search. Weights are (g, m, d), rows in the search's order."""

    def __init__(self, H: Float64Array, W: Float64Array, codebook: Codebook, settings: ExactSettings) -> None:
        self.values, self.settings = codebook.values, settings
        self.order = np.stack([_search_order(block) for block in H])
        ordered = [block[np.ix_(order, order)] for block, order in zip(H, self.order, strict=True)]
        self.H = np.stack(ordered)
        factors = [_factor(block) for block in self.H]
        self.R = np.stack([R for R, _ in factors])
        self.dropped = [dropped for _, dropped in factors]
        self.W = np.ascontiguousarray(
            np.take_along_axis(W, self.order[:, :, None], axis=1).transpose(0, 2, 1)
        )
        self.HW = self.W @ self.H
        self.codes = np.full(self.W.shape, codebook.least_code, dtype=np.int8)
        self.W_packed, self.codebook = W, codebook
        self.spent, self.scales, self.cut = 0, 0, False

    def energy(self, columns: Array) -> float:
        """C = ½ tr WᵀHW of some columns."""
        return 0.5 * float(np.vdot(self.W[columns], self.HW[columns]))

    def unseen(self, alpha: Float64Array) -> float:
        """What the directions that R leaves out carry of W and of the incumbent's error."""
        G = (alpha[..., None] if alpha.ndim else alpha) * self.values[self.codes]
        parts = [
            float(np.vdot(image, image))
            for dropped, w, g in zip(self.dropped, self.W, G, strict=True)
            for image in (w @ dropped.T, (g - w) @ dropped.T)
        ]
        return 0.5 * sum(parts)

    def unordered(self) -> Int8Array:
        """The incumbent's codes in the layer's own order, (g, d, m)."""
        codes = np.empty((self.W.shape[0], self.W.shape[2], self.W.shape[1]), dtype=np.int8)
        np.put_along_axis(codes, self.order[:, :, None], self.codes.transpose(0, 2, 1), axis=1)
        return codes

    def point(self, alpha: float, codes: Int8Array, columns: Array) -> _Point:
        """The line of some columns' codes."""
        Q = self.values[codes]
        A = np.einsum("gmd,gmd->gm", Q, Q @ self.H)[columns].sum()
        c = np.einsum("gmd,gmd->gm", Q, self.HW)[columns].sum()
        return _Point(alpha, float(A), float(c), codes)

    def decode(self, alpha: float, columns: Array, hints: list[Int8Array]) -> Int8Array:
        """The best codes of some columns at a scale; at least as good as every hint."""
        from refldnq._kernels import sphere

        codes = hints[0].copy()
        for group, R in enumerate(self.R):
            places = np.flatnonzero(columns[group])
            if not len(places):
                continue
            w = self.W[group, places]
            own = np.stack([hint[group, places] for hint in hints])
            far = ((alpha * self.values[own] - w) @ R.T) ** 2
            distance = far.sum(axis=2)
            nearest = distance.argmin(axis=0)
            picked = np.arange(len(places))
            found, best = own[nearest, picked], distance[nearest, picked]
            nodes = np.zeros(len(places), dtype=np.int64)
            # An even share for every column: what is found does not depend on the number of threads.
            budget = -(-(self.settings.nodes - self.spent) // len(places))
            arguments = (R, self.values, alpha, w, budget, best, found, nodes)
            run_kernel(sphere.closest, arguments, len(places))
            self.spent += int(np.abs(nodes).sum())
            self.cut |= bool((nodes < 0).any()) or self.spent > self.settings.nodes
            codes[group, places] = found
        self.scales += 1
        return codes

    def at_scale(self, alpha: float, columns: Array) -> float:
        """Find the best codes at one scale; their objective."""
        near = np.abs(alpha * self.values - self.W[..., None]).argmin(axis=-1).astype(np.int8)
        self.codes = self.decode(alpha, columns, [near])
        difference = alpha * self.values[self.codes] - self.W
        return 0.5 * float(np.vdot(difference, difference @ self.H))  # [LDNQ] (10)

    def best_scale(self, columns: Array) -> tuple[float, float]:
        """Find the best scale and codes of some columns; the scale and a lower bound of their objective."""
        energy = self.energy(columns)
        slack = 0.5 * SLACK * energy
        steepest = np.where(self.HW >= 0, self.values[-1], self.values[0]) * self.HW
        rise = float(steepest[columns].sum())  # -ℓ(0+)
        if not rise > 0:  # no line falls below 0: G = 0
            self._keep(self.codes, columns)
            return 0.0, energy
        best = _Incumbent()
        at_zero = np.where(self.HW >= 0, len(self.values) - 1, 0).astype(np.int8)
        for start in (at_zero, self._projected()):
            best.take(self.point(0.0, start, columns))
        low = self._at(best.gain / rise, columns, [best.codes, at_zero], best)  # below, α ℓ(0+) > -gain
        high = self._at(
            max(2 * low.alpha, float(np.abs(self.W).max())), columns, [low.codes, self.codes], best
        )
        farthest = FARTHEST * high.alpha
        while high.alpha * high.line < -slack and not self.cut and high.alpha < farthest:
            high = self._at(2 * high.alpha, columns, [high.codes, self.codes], best)
        # ℓ ascends: above a scale where it is 0 nothing is gained.
        self.cut |= high.alpha >= farthest
        ends = [low]
        while high.alpha > WIDEST * ends[-1].alpha and not self.cut:
            ends.append(self._at(WIDEST * ends[-1].alpha, columns, [ends[-1].codes, self.codes], best))
        pairs = pairwise([*ends, high])
        intervals = [(_chord_minimum(*pair), number, *pair) for number, pair in enumerate(pairs)]
        heapq.heapify(intervals)
        number = len(intervals)
        while intervals and not self.cut and intervals[0][0] < -best.gain - slack:
            _, _, left, right = heapq.heappop(intervals)
            alpha = _crossing(left, right)
            if alpha is None:
                continue  # one line: its minimum is known
            same = left.same(right) & columns
            codes = left.codes.copy()
            codes[columns] = self.decode(alpha, columns & ~same, [left.codes, right.codes])[columns]
            middle = self.point(alpha, codes, columns)
            best.take(middle)
            # Where the lines cross, the flatter one has its value with fewer rounding errors.
            if middle.line >= 0.5 * right.A * alpha - right.c - slack / right.alpha:
                continue  # up to the right end nothing lies below the two lines by more than the slack
            for pair in ((left, middle), (middle, right)):
                number += 1
                heapq.heappush(intervals, (_chord_minimum(*pair), number, *pair))
        self._keep(best.codes, columns)
        least = min([-best.gain, *(bound for bound, *_ in intervals)])
        return best.alpha, energy + least

    def _at(self, alpha: float, columns: Array, hints: list[Int8Array], best: _Incumbent) -> _Point:
        found = self.point(alpha, self.decode(alpha, columns, hints), columns)
        best.take(found)
        return found

    def _projected(self) -> Int8Array:
        # The data-free optimum in the search's order: a first incumbent.
        codes = project(
            self.W_packed, self.codebook, method="exact", per_channel=self.settings.per_channel
        ).codes
        return np.take_along_axis(codes, self.order[:, :, None], axis=1).transpose(0, 2, 1)

    def _keep(self, codes: Int8Array, columns: Array) -> None:
        self.codes = np.where(columns[..., None], codes, self.codes)


class _Incumbent:
    """The best line so far: α ℓ_Q(α) has the minimum -c²/(2A), at α = c/A."""

    def __init__(self) -> None:
        self.gain, self.alpha = 0.0, 0.0
        self.codes: Int8Array = np.empty(0, dtype=np.int8)

    def take(self, point: _Point) -> None:
        if self.codes.size == 0:
            self.codes = point.codes
        if point.A > 0 and point.c > 0 and point.c**2 / (2 * point.A) > self.gain:
            self.gain, self.alpha = point.c**2 / (2 * point.A), point.c / point.A
            self.codes = point.codes


def _chord_minimum(left: _Point, right: _Point) -> float:
    """The least α times chord(α) on the interval; ℓ is concave and lies above."""
    slope = (right.line - left.line) / (right.alpha - left.alpha)
    start = left.line - slope * left.alpha
    least = min(left.alpha * left.line, right.alpha * right.line)
    if slope > 0 and left.alpha < -start / (2 * slope) < right.alpha:
        least = min(least, -start * start / (4 * slope))
    return least


def _crossing(left: _Point, right: _Point) -> float | None:
    """Where the lines of the two ends cross; None if not between them, as for one and the same line."""
    steeper = left.A - right.A
    if not steeper > 0:
        return None
    alpha = 2 * (left.c - right.c) / steeper
    return alpha if left.alpha < alpha < right.alpha else None


def _search_order(block: Float64Array) -> Array:
    """Rows in the order of the factor: the last is fixed first and has the largest entry R[k, k] to be had.

    Examples
    --------
    >>> _search_order(np.diag([1.0, 3.0, 2.0]))
    array([0, 2, 1])
    """
    # R[k, k]² is 1 over the diagonal of the inverse of the part not yet fixed. The ridge keeps that finite
    # for singular blocks; it decides the order alone.
    d = len(block)
    ridge = 1e-10 * float(np.trace(block)) / d or 1.0
    inverse = np.linalg.inv(block + ridge * np.eye(d))
    remaining = np.ones(d, dtype=bool)
    order = []
    for _ in range(d):
        k = int(np.where(remaining, np.diagonal(inverse), np.inf).argmin())
        order.append(k)
        remaining[k] = False
        if inverse[k, k] > 0:
            inverse -= np.outer(inverse[:, k], inverse[k] / inverse[k, k])
    return np.array(order[::-1])


def _factor(block: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Upper triangular R with RᵀR = H, and what it leaves out: eigenvalues within rounding of 0 count as 0.

    Returns
    -------
    R : Array, shape (d, d)
        The factor.
    dropped : Array, shape (k, d)
        ``dropped.T @ dropped`` is H - RᵀR but for the signs of eigenvalues.

    Raises
    ------
    ValueError
        If an eigenvalue is negative beyond rounding.

    Notes
    -----
    Rows of H may be of very different sizes, and a small one counts where the weight is large: what is within
    rounding of 0 is decided when the diagonal is 1, up to a power of two, so that scaling rounds nothing.

    Examples
    --------
    >>> abs(_factor(np.array([[4.0, 2.0], [2.0, 1.0]]))[0].round(12))
    array([[2., 1.],
           [0., 0.]])
    """
    extremes = np.linalg.eigvalsh(block)[[0, -1]]
    if extremes[0] < -1e-10 * abs(float(extremes[1])):
        raise ValueError(f"`H` must be positive semidefinite, got the eigenvalue {extremes[0]}.")
    diagonal = np.diagonal(block)
    scale = np.ones(len(block))
    np.exp2(np.round(0.5 * np.log2(diagonal, where=diagonal > 0, out=np.zeros(len(block)))), out=scale)
    values, vectors = np.linalg.eigh(block / scale / scale[:, None])
    kept = values > 4 * len(block) * UNIT * max(float(values[-1]), 0.0)
    rows = np.sqrt(np.abs(values))[:, None] * vectors.T
    R = np.linalg.qr(np.where(kept[:, None], rows, 0.0), mode="r") * scale
    return np.ascontiguousarray(R), rows[~kept] * scale
