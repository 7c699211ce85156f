r"""Block descent on (10): codes of many entries at once, by enumeration.

Entries that matter together are those whose inputs are correlated. For the entries B of a column, all others
fixed, (10) is the distance of :math:`\alpha q_B` to a point in the norm of the Cholesky factor of
:math:`H_{BB}`: a closest-point problem for Schnorr and Euchner's enumeration (module `exact`). It begins at
the present codes, so it can be given up at any time without f having risen, and mostly is: for 48 entries a
thousand nodes are few, and find something better nevertheless.
Blocks are drawn anew for every sweep, around entries in random order; after a sweep the scale is fitted to
the codes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from refldnq._checks import check_integer, check_number
from refldnq._kernels.threads import run_kernel
from refldnq._typing import Array, Float64Array, Int64Array
from refldnq.codebook import Codebook
from refldnq.solvers import admm_plus
from refldnq.solvers.admm_plus import AdmmPlusSettings
from refldnq.solvers.base import Solution, Trace, pick_settings
from refldnq.solvers.coordinate import CoordinateSettings, descend
from refldnq.solvers.problem import Point, Problem

WHOLE = 24
"""Most entries of a column that make one block. Of more, about three quarters do, and 24 at least, so that
blocks differ (chosen here: with all 64 entries of a layer in one block no sweep but the first gained)."""

RIDGE = 1e-9
"""What is added to the diagonal of a block of H, as a share of it: it makes the block regular and pulls to
the present codes, so that what is better with it is better without (chosen here: far above rounding, far
below what a move gains)."""

NOISE = 0.8
"""A correlation counts between this share and the whole of it in the draw of a block (chosen here; 0.6 and
0.999 are as good, 0.1 is worse)."""

IDLE = 20
"""Sweeps in a row in which no scale gained after which the search ends (chosen here: single columns, which
have few other ones to wait for, often gain again after 10)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BlocksSettings:
    """How large the blocks are, and how long they are searched.

    Parameters
    ----------
    sweeps : int, optional
        Most sweeps; in each, every entry is in a block.
    size : int, optional
        Most entries of a block; see `WHOLE`.
    nodes : int, optional
        Most nodes of the enumeration of a block of one column; what it has found until then counts. For some
        dozen entries that is the best codes, for more mostly not.
    scales : int, optional
        Scales that are tried first besides the start's, for scaled sets and columns of one block: none, or
        two at least. Two sweeps at each go on from the best codes so far.
    spread : float, optional
        They reach from the start's scale divided by exp(spread) to it times exp(spread).
    seed : int, optional
        Seed of the draws of blocks.
    start : AdmmPlusSettings, optional
        How the start is found; its `per_channel` is overruled.
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
    Chosen here on the layers of ResNet-20 with one scale a layer: geometric mean of f over that of the
    paper's ADMM, and processor seconds for all 20 layers (``benchmarks/README.md``). With 3 levels blocks of
    24 entries have 0.643 in 22 s, of 48 0.631 in 58 s, 0.630 in 120 s with 300 sweeps, 0.628 in 109 s with
    5000 nodes; with 5 levels 0.624, 0.611, 0.609, 0.609. Annealing has 0.698 and 0.691. The first layers and
    the last one gain most; behind the first layer of the last stage the two end within a percent of each
    other, and longer annealing is up to 0.6 % better there. On parts of 12 or 8 entries with a scale of their
    own the optimum is found in 200 of 200.

    Examples
    --------
    >>> [BlocksSettings().block(entries) for entries in (12, 24, 32, 64, 576)]
    [12, 24, 24, 48, 48]
    """

    sweeps: int = 80
    size: int = 48
    nodes: int = 1000
    scales: int = 32
    spread: float = 0.7
    seed: int = 0
    start: AdmmPlusSettings = field(default_factory=AdmmPlusSettings)
    per_channel: bool = False

    def __post_init__(self) -> None:
        check_integer("sweeps", self.sweeps, at_least=0)
        check_integer("size", self.size, at_least=1)
        check_integer("nodes", self.nodes, at_least=1)
        if check_integer("scales", self.scales, at_least=0) == 1:
            raise ValueError("`scales` must be 0 or at least 2, got 1.")
        check_number("spread", self.spread, at_least=0)
        check_integer("seed", self.seed, at_least=0)

    def block(self, entries: int) -> int:
        """Entries of a block, of so many that H sees."""
        return min(self.size, entries if entries <= WHOLE else max(WHOLE, 3 * entries // 4))


DEFAULT = BlocksSettings()
"""The settings that `solve` takes for None."""


def solve(
    H: Float64Array,
    W: Array,
    codebook: Codebook,
    settings: BlocksSettings | None = None,
    *,
    column_weights: Array | None = None,
) -> Solution:
    """Quantize a weight by block descent.

    Parameters
    ----------
    H : Array, shape (g, d, d), float64
        The Hessian's blocks.
    W : Array, shape (g, d, m)
        The packed weight.
    codebook : Codebook
        The set.
    settings : BlocksSettings, optional
        How long.
    column_weights : Array, shape (g, m), optional
        Weights of the columns' errors.

    Returns
    -------
    Solution
        No worse than the result of `refldnq.solvers.admm_plus` with the settings `start`, and no single code
        can lower it: coordinate descent is the last step. The same for the same seed. Iterations are sweeps;
        the trace begins with the best of the scales tried, and ends before that descent. `converged` if
        `IDLE` sweeps in a row gained nothing, for no scale: with one a channel, all go on while one gains.

    Raises
    ------
    ValueError
        If the shapes do not fit or an entry is not finite.
    TypeError
        If H is not float64, W not float or the settings are another solver's.
    numpy.linalg.LinAlgError
        If a block of H is far from positive semidefinite.

    Examples
    --------
    >>> from refldnq.codebook import powers_of_two
    >>> rng = np.random.default_rng(0)
    >>> X, W = rng.standard_normal((40, 30)), rng.standard_normal((1, 30, 2))
    >>> H = (2 / 40 * X.T @ X)[None]
    >>> first, found = admm_plus.solve(H, W, powers_of_two(3)), solve(H, W, powers_of_two(3))
    >>> found.objective < first.objective
    True
    """
    chosen: BlocksSettings = pick_settings(settings, BlocksSettings, DEFAULT)
    problem = Problem(H, W, codebook, per_channel=chosen.per_channel, column_weights=column_weights)
    how = replace(chosen.start, per_channel=chosen.per_channel)
    start = problem.point(admm_plus.solve(H, W, codebook, how, column_weights=column_weights))
    best, least = start, problem.objectives(start)
    near = _correlations(problem.H)
    seen = int(np.count_nonzero(near.diagonal()))
    size = chosen.block(seen)
    rng = np.random.default_rng(chosen.seed)
    if codebook.kind == "scaled" and 0 < size == seen:
        for factor in np.exp(chosen.spread * np.linspace(-1.0, 1.0, chosen.scales)):
            moved = Point(best.codes, start.alpha * factor, best.values)
            for _ in range(2):
                moved = _swept(problem, moved, _drawn(near, size, rng), chosen.nodes)
            best, least = problem.keep(best, least, moved, problem.objectives(moved))
    objectives, alphas = [float(least.sum())], [best.alpha]
    idle = 0
    for _ in range(chosen.sweeps if size else 0):
        moved = _swept(problem, best, _drawn(near, size, rng), chosen.nodes)
        kept, least = problem.keep(best, least, moved, problem.objectives(moved))
        idle = idle + 1 if kept is best else 0
        best = kept
        objectives.append(float(least.sum()))
        alphas.append(best.alpha)
        if idle == IDLE:
            break
    descent = CoordinateSettings(per_channel=chosen.per_channel)
    polished, _, _, ended = descend(problem, best, descent)
    best, _ = problem.keep(best, least, polished, problem.objectives(polished))
    return problem.solution(
        best,
        solver="blocks",
        settings=chosen,
        iterations=len(objectives) - 1,
        converged=ended and (not size or idle == IDLE),
        trace=Trace(objective=np.array(objectives), alpha=np.array(alphas)),
    )


def _correlations(H: Float64Array) -> Float64Array:
    """Mean of |H_ij| / √(H_ii H_jj) over the groups, (d, d); 0 for entries that H does not see."""
    total = np.zeros(H.shape[1:])
    for block in H:
        # Products of diagonals must not leave the range: H in units of a power of two, which is exact.
        block = np.ldexp(block, -np.frexp(block.diagonal().max())[1])
        norms = np.sqrt(np.outer(block.diagonal(), block.diagonal()))
        total += np.divide(np.abs(block), norms, out=np.zeros_like(block), where=norms > 0)
    return total / len(H)


def _drawn(near: Float64Array, size: int, rng: np.random.Generator) -> Int64Array:
    """Blocks (n, size) of entries that are `near` each other, in which each that H sees is at least once."""
    seen = near.diagonal() > 0
    left, blocks = seen.copy(), []
    while left.any():
        drawn = rng.choice(np.flatnonzero(left))
        score = near[drawn] * rng.uniform(NOISE, 1.0, len(near))
        # Those that are left go first; a last block is filled up with others.
        score = np.where(seen, score + 2.0 * left, -1.0)
        score[drawn] = np.inf
        members = np.argpartition(-score, size - 1)[:size]
        left[members] = False
        blocks.append(members)
    return np.array(blocks)


def _swept(problem: Problem, point: Point, members: Int64Array, nodes: int) -> Point:
    """Codes after a sweep over the blocks, and the scale that is best for them."""
    from refldnq._kernels import blocks as kernels

    H = problem.H
    diagonal = np.einsum("gii->gi", H)
    # Enumeration starts with the last entry: those that cost most are decided first.
    order = np.argsort(diagonal.mean(axis=0)[members], axis=1, kind="stable")
    members = np.ascontiguousarray(np.take_along_axis(members, order, axis=1))
    # In units of each block's mean diagonal: the roots of 2H are no power of two times those of H.
    units = diagonal[:, members].mean(axis=2)
    units = np.where(units > 0, units, 1.0)
    parts = H[:, members[:, :, None], members[:, None, :]] / units[:, :, None, None]
    codes, arrays = problem.moving(point)
    run_kernel(kernels.sweep, (*arrays, members, _factors(parts), units, nodes), len(arrays[3]))
    return problem.refit(Point(codes, point.alpha, point.values))


def _factors(parts: Float64Array) -> Float64Array:
    """Upper triangular R (g, n, b, b) with RᵀR the parts of H and a ridge."""
    extra = np.einsum("gnii->gni", parts)
    extra = np.where(extra > 0, extra, 1.0)[..., None] * np.eye(parts.shape[-1])
    ridge = RIDGE
    while True:
        try:
            return np.ascontiguousarray(np.linalg.cholesky(parts + ridge * extra).swapaxes(-1, -2))
        except np.linalg.LinAlgError:  # H was summed in lower precision, or is no Hessian
            ridge *= 10
            if ridge > 1:
                raise
