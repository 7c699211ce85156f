r"""Block descent on (10): the best codes of many entries at once, by enumeration.

Entries that matter together are those whose inputs are correlated. For the entries B of a column, all others
fixed, (10) is the distance of :math:`\alpha q_B` to a point in the norm of the Cholesky factor of
:math:`H_{BB}`: a closest-point problem, which Schnorr and Euchner's enumeration (module `exact`) solves, or
nearly, for some fifty entries within a thousand nodes, since the present codes bound it from the start.
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
"""Most entries of a column that make one block; of more, at most three quarters do, so that blocks differ
(chosen here: 64 entries in one block end at the first sweep)."""

RIDGE = 1e-9
"""What is added to a block of H, in units of its mean diagonal: it makes the block regular, and pulls to the
present codes, so that a better point of the block with it is one without it."""

NOISE = 0.8
"""A correlation counts between this share and the whole of it in the draw of a block (chosen here; 0.6 and
0.999 are as good, 0.1 is worse)."""

IDLE = 10
"""Sweeps in a row without a gain after which the search ends."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BlocksSettings:
    """How large the blocks are, and how long they are searched.

    Parameters
    ----------
    sweeps : int, optional
        Most sweeps; in each, every entry is in a block.
    size : int, optional
        Entries of a block; see `WHOLE`.
    nodes : int, optional
        Most nodes of the enumeration of a block of one column; what it has found until then counts.
    scales : int, optional
        Scales to begin with besides the start's, for scaled sets and columns of one block: at each of them
        the enumeration finds the best codes, so that the scale alone decides.
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
    24 entries have 0.645 in 23 s, of 48 0.632 in 64 s, and the same with 300 sweeps; with 5 levels 0.625,
    0.611 and 0.610. Annealing has 0.698 and 0.691. The first layers gain most; in the last stage the two end
    within a percent of each other. With 500 and with 5000 nodes three of these layers came out alike. On
    parts of 12 or 8 entries with a scale of their own the optimum is found in 200 of 200.

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
        check_integer("scales", self.scales, at_least=0)
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
        can lower it; the same for the same seed. Its iterations are sweeps; behind them its trace has the
        final descent. `converged` if `IDLE` of them in a row gained nothing.

    Raises
    ------
    ValueError
        If the shapes do not fit or an entry is not finite.
    TypeError
        If H is not float64, W not float or the settings are another solver's.
    numpy.linalg.LinAlgError
        If H is not positive semidefinite.

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
    first = admm_plus.solve(H, W, codebook, how, column_weights=column_weights)
    best = problem.point(first)
    least = problem.objectives(best)
    objectives, alphas = [float(least.sum())], [best.alpha]
    near = _correlations(problem.H)
    size = chosen.block(int(np.count_nonzero(near.diagonal())))
    rng = np.random.default_rng(chosen.seed)
    if codebook.kind == "scaled" and 0 < size == np.count_nonzero(near.diagonal()):
        for factor in np.exp(chosen.spread * np.linspace(-1.0, 1.0, chosen.scales)):
            moved = Point(best.codes, problem.point(first).alpha * factor, best.values)
            for _ in range(2):
                moved = _swept(problem, moved, _drawn(near, size, rng), chosen.nodes)
            best, least = problem.keep(best, least, moved, problem.objectives(moved))
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
    polished, _, _, _ = descend(problem, best, CoordinateSettings(per_channel=chosen.per_channel))
    best, least = problem.keep(best, least, polished, problem.objectives(polished))
    objectives.append(float(least.sum()))
    alphas.append(best.alpha)
    return problem.solution(
        best,
        solver="blocks",
        settings=chosen,
        iterations=len(objectives) - 2,
        converged=not size or idle == IDLE,
        trace=Trace(objective=np.array(objectives), alpha=np.array(alphas)),
    )


def _correlations(H: Float64Array) -> Float64Array:
    """Mean of |H_ij| / √(H_ii H_jj) over the groups, (d, d); 0 for entries that H does not see."""
    total = np.zeros(H.shape[1:])
    for block in H:
        diagonal = block.diagonal()
        norms = np.sqrt(np.outer(diagonal, diagonal))
        total += np.divide(np.abs(block), norms, out=np.zeros_like(block), where=norms > 0)
    return total / len(H)


def _drawn(near: Float64Array, size: int, rng: np.random.Generator) -> Int64Array:
    """Blocks (n, size) of entries that are `near` each other, in which each that H sees is at least once."""
    seen = near.diagonal() > 0
    left, blocks = seen.copy(), []
    while left.any():
        score = near[rng.choice(np.flatnonzero(left))] * rng.uniform(NOISE, 1.0, len(near))
        # Those that are left go first; a last block is filled up with others.
        members = np.argpartition(-(score + 2.0 * left) * seen, size - 1)[:size]
        left[members] = False
        blocks.append(members)
    return np.array(blocks)


def _swept(problem: Problem, point: Point, members: Int64Array, nodes: int) -> Point:
    """Codes after a sweep over the blocks, and the scale that is best for them."""
    from refldnq._kernels import blocks as kernels

    H, columns = problem.H, problem.groups * problem.outputs
    diagonal = np.einsum("gii->gi", H)
    # Enumeration starts with the last entry: those that cost most are decided first.
    order = np.argsort(diagonal.mean(axis=0)[members], axis=1, kind="stable")
    members = np.ascontiguousarray(np.take_along_axis(members, order, axis=1))
    units = diagonal[:, members].mean(axis=2)[:, :, None, None]
    units = np.where(units > 0, units, 1.0)
    parts = H[:, members[:, :, None], members[:, None, :]] / units + RIDGE * np.eye(members.shape[1])
    factors = np.ascontiguousarray(np.linalg.cholesky(parts).swapaxes(-1, -2))
    codes = point.codes.copy()
    flat, HW = codes.reshape(columns, -1), problem.HW.reshape(columns, -1)
    HQ = (point.Q @ H).reshape(columns, -1)
    alpha = np.ascontiguousarray(np.broadcast_to(point.alpha, columns))
    given = (H, HW, HQ, flat, alpha, point.values, members, factors, units[:, :, 0, 0], nodes)
    run_kernel(kernels.sweep, given, columns)
    return problem.refit(Point(codes, point.alpha, point.values))
