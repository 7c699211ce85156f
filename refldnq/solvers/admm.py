"""The paper's solver: ADMM for min f(Θ) + I_Ω(G) subject to Θ = G, (11)-(18).

H is block diagonal with the same d×d block for all columns of a group, so one Cholesky factor a group serves
all columns and all iterations. The dual is scaled, λ = y/ρ.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from scipy.linalg import cho_factor

from refldnq._checks import check_choice, check_finite, check_shape
from refldnq._kernels.threads import run_chunks, run_kernel, worth
from refldnq._rows import Rows, Rule, project_rows
from refldnq._typing import Array, Float64Array, Int8Array
from refldnq.codebook import Codebook
from refldnq.hessian import UNIT, certified_above, largest_eigenvalue
from refldnq.solvers.admm_settings import AdmmSettings
from refldnq.solvers.base import Guarantee, Solution, Trace, check_problem, pick_settings
from refldnq.solvers.lyapunov import Descent, Level, Lyapunov
from refldnq.solvers.running_error import RunningError

__all__ = ["AdmmSettings", "AdmmSolution", "Trajectory", "solve", "trajectory"]

FIXED_POINT = 1e-9
"""Residuals ‖Θ - G‖ and ‖G^{k+1} - G^k‖ below this share of ‖W‖ count as a fixed point (chosen here)."""

SMALL = 5 * 10**8
"""Up to this g d² m a run holds the BLAS to one thread (chosen here: about 25 ms for a product).

NumPy and SciPy each bring a BLAS with threads of its own, which wait by spinning; taking turns they cost more
than they save: at d = 576, m = 64 on two busy cores 100 iterations took 19 s with threads and 1 s without."""

SOLVE = 300_000
"""Rows of right sides times d² that are worth a thread (chosen here: about 20 µs)."""

TIE = 1e-9
"""Objectives that decide by less than this share of them are compared as computed directly: the rounding of
the running error must not choose the best iteration."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AdmmSolution(Solution):
    """The result of ADMM.

    Parameters
    ----------
    lambda_max : float
        Largest eigenvalue of H.
    certified : bool
        Whether ρ > λ_max, proved by a Cholesky factorization of ρI - H.
    best_iteration : int
        The iteration whose G has the least objective; 0 is the start.
    """

    lambda_max: float
    certified: bool
    best_iteration: int


DEFAULT = AdmmSettings.profile("paper")
"""The settings that `solve` takes for None."""


def solve(
    H: Float64Array, W: Array, codebook: Codebook, settings: AdmmSettings | None = None
) -> AdmmSolution:
    r"""Quantize a weight by ADMM, (11)-(18).

    Parameters
    ----------
    H : Array, shape (g, d, d), float64
        The Hessian's blocks.
    W : Array, shape (g, d, m)
        The packed weight.
    codebook : Codebook
        The set.
    settings : AdmmSettings, optional
        The profile ``paper`` by default.

    Returns
    -------
    AdmmSolution
        G lies in Ω. Its `guarantee` is ``descent`` if ρ is certified to exceed :math:`\lambda_{\max}(H)` and
        the projection never moves away from V (the exact one, or the alternation from the last α): then
        :math:`f(G^k) \le \mathcal L_k` for a function :math:`\mathcal L_k` that does not rise. It is
        ``convergence`` if moreover the projection is globally optimal, and Ω is fixed or H certainly positive
        definite: then :math:`G^k` converges to a fixed point. `converged` says whether this run reached one.

    Raises
    ------
    ValueError
        If the shapes do not fit, an entry is not finite, ρ comes out as 0, or a setting does not fit the
        codebook.
    TypeError
        If H is not float64, W not float or the settings are another solver's.
    numpy.linalg.LinAlgError
        If H + ρI is not positive definite in float64, unless the settings ask for least squares.

    Notes
    -----
    The paper returns "Θ̂"; only G lies in Ω, so G is returned. "diag(ρ)" in (15) is ρI. LAPACK's potrs solves
    (15), as in `scipy.linalg.cho_solve`, on every thread for some of the right sides. Small ρ explores and
    need not converge, hence the best G is kept; ρ above :math:`\lambda_{\max}` has a proof and stays close to
    the first projection. The iterates depend on (H, ρ) through H/ρ alone. If H is 0 every G has objective 0
    and the start is returned. The trace's objectives follow the changes of the codes and have the rounding of
    a longer sum; those of the start, the best and the last iteration are (10) as it stands.

    Examples
    --------
    >>> from refldnq.codebook import powers_of_two
    >>> H = np.array([[[2.0, 1.0], [1.0, 2.0]]])
    >>> W = np.array([[[1.0], [0.4]]])
    >>> solution = solve(H, W, powers_of_two(3), AdmmSettings(rho=1.1, rho_scale="lambda_max"))
    >>> solution.G.ravel(), round(solution.objective, 3)
    (array([0.7, 0.7]), 0.09)
    >>> solution.guarantee, solution.converged
    ('descent', True)
    """
    chosen: AdmmSettings = pick_settings(settings, AdmmSettings, DEFAULT)
    blocks, weight = check_problem(H, W)
    chosen.rule.check(codebook, per_channel=chosen.per_channel)
    if chosen.refit_alpha and codebook.kind != "scaled":
        raise ValueError(f"`refit_alpha` must be False for a {codebook.kind} set, got True.")
    results: list[AdmmSolution] = []

    def run(*_: int) -> None:
        results.append(_Run(blocks, weight, codebook, chosen).result())

    if weight.size * weight.shape[1] < SMALL:
        run_chunks(run, 1, blas=True)
    else:
        run()
    return results[0]


@dataclass(frozen=True, slots=True)
class Trajectory:
    """Every state of a run, iteration k first.

    Parameters
    ----------
    theta, V, G, lam : Array, shape (K, g, d, m)
        Θ of (15), V = Θ + λ, G of (16) and λ of (18).
    codes : Array, shape (K, g, d, m), int8
        Indices of the codebook's values.
    alpha : Array, shape (K,), or (K, g, m) with one scale a channel
        Scales.
    objective : Array, shape (K + 1,)
        The layer error (10) at G⁰ and after every iteration.
    """

    theta: Float64Array
    V: Float64Array
    G: Float64Array
    lam: Float64Array
    codes: Int8Array
    alpha: Float64Array
    objective: Float64Array


def trajectory(
    H: Float64Array,
    W: Array,
    codebook: Codebook,
    settings: AdmmSettings,
    *,
    G0: Array,
    lam0: Array,
    alpha0: Float64Array | None = None,
) -> Trajectory:
    """All states of `settings.iterations` iterations from a given start, for a comparison step by step.

    Parameters
    ----------
    H : Array, shape (g, d, d), float64
        The Hessian's blocks, not all 0.
    W : Array, shape (g, d, m)
        The packed weight.
    codebook : Codebook
        A scaled or a fixed set.
    settings : AdmmSettings
        Its `start`, `stop`, `returned` and `refit_alpha` are not used.
    G0, lam0 : Array, shape (g, d, m)
        Where to start; G⁰ need not lie in Ω.
    alpha0 : Array, shape (1,) or (g m,), optional
        Where the first projection's alternation starts; mean|V| by default.

    Returns
    -------
    Trajectory

    Raises
    ------
    ValueError
        If shapes do not fit, an entry is not finite, or ρ comes out as 0.

    Examples
    --------
    >>> from refldnq.codebook import powers_of_two
    >>> H, W = 2 * np.eye(2)[None], np.array([[[3.0], [1.0]]])
    >>> settings = AdmmSettings(rho=2.0, rho_scale="absolute", iterations=2)
    >>> found = trajectory(H, W, powers_of_two(3), settings, G0=0 * W, lam0=0 * W)
    >>> found.theta[0].ravel(), found.objective
    (array([1.5, 0.5]), array([10.    ,  3.25  ,  1.5625]))
    """
    blocks, weight = check_problem(H, W)
    check_choice("codebook", codebook.kind, ("scaled", "fixed"))
    settings.rule.check(codebook, per_channel=settings.per_channel)
    run = _Run(blocks, weight, codebook, settings)
    if run.factors is None:
        raise ValueError("`H` must not be 0.")
    for name, array in (("G0", G0), ("lam0", lam0)):
        check_shape(name, array, weight.shape)
        check_finite(name, array)
    inside = [np.ascontiguousarray(np.asarray(a, np.float64).transpose(0, 2, 1)) for a in (G0, lam0)]
    steps = list(islice(run.steps(inside[0], inside[1], alpha0), settings.iterations))
    groups, outputs, _ = run.W.shape
    scales = (groups, outputs) if settings.per_channel else ()

    def stacked(arrays: Iterable[Array]) -> Array:
        found = [a.reshape(run.W.shape).transpose(0, 2, 1) for a in arrays]
        return np.array(found).reshape(len(steps), *weight.shape)

    return Trajectory(
        theta=stacked(step.theta for step in steps),
        V=stacked(step.V for step in steps),
        G=stacked(step.G for step in steps),
        lam=stacked(step.lam for step in steps),
        codes=stacked(step.rows.codes for step in steps),
        alpha=np.array([step.rows.alpha.reshape(scales) for step in steps]).reshape(-1, *scales),
        objective=np.array([run.error.direct(G) for G in (inside[0], *(step.G for step in steps))]),
    )


@dataclass(frozen=True, slots=True)
class _Step:
    theta: Float64Array
    V: Float64Array
    rows: Rows
    G: Float64Array
    lam: Float64Array
    primal: float
    """‖Θ - G‖."""
    change: float
    """‖G - the last G‖."""


class _Run:
    """One run; weights are (g, m, d) inside, so that a column is contiguous."""

    def __init__(self, H: Float64Array, W: Float64Array, codebook: Codebook, settings: AdmmSettings) -> None:
        self.H, self.codebook, self.settings = H, codebook, settings
        self.W = np.ascontiguousarray(W.transpose(0, 2, 1))
        self.HW = self.W @ H  # H is symmetric
        self.grain = worth(4 * self.W.shape[2])  # a kernel reads and writes several weights
        self.notes: list[str] = []
        self.lambda_max = largest_eigenvalue(H)
        self.rho = self._rho()
        self.certified = self.rho > 0 and certified_above(H, self.rho)
        self.factors: Float64Array | None = None
        self.inverses: dict[int, Float64Array] = {}
        if H.any():
            self.factors, self.inverses = self._factor()
        self.error = RunningError(H, self.W, self.HW)
        self.objectives: list[float] = []
        self.settled: set[int] = set()
        self.found: list[tuple[Float64Array, int, float, float]] = []
        self.levels: list[Level] = []
        self.descent: Descent | None = None

    def _rho(self) -> float:
        scale = {
            "mean_diagonal": float(np.einsum("gii->gi", self.H).mean()),
            "lambda_max": self.lambda_max,
            "h00": float(self.H[0, 0, 0]),
            "absolute": 1.0,
        }[self.settings.rho_scale]
        rho = self.settings.rho * scale
        if not rho > 0 and self.H.any():
            if self.settings.singular == "raise":
                raise ValueError(
                    f"`rho` must come out greater than 0, got {rho} ({self.settings.rho_scale} is {scale})."
                )
            self.notes.append("rho is 0")
        return rho

    def _factor(self) -> tuple[Float64Array, dict[int, Float64Array]]:
        # Every block's Cholesky factor, column by column, and the inverses that stand in for those without.
        factors = np.empty_like(self.H)
        inverses: dict[int, Float64Array] = {}
        for group, block in enumerate(self.H):
            matrix = block + self.rho * np.eye(len(block))
            try:
                factors[group] = cho_factor(matrix, lower=True, check_finite=False)[0].T
            except np.linalg.LinAlgError:
                if self.settings.singular == "raise":
                    raise
                self.notes.append("H + rho I is singular: least squares")
                values, vectors = np.linalg.eigh(matrix)
                kept = values > len(block) * 2 * UNIT * values[-1]
                inverses[group] = (vectors[:, kept] / values[kept]) @ vectors[:, kept].T
                factors[group] = np.eye(len(block))
        return factors, inverses

    def _rows(self, *weights: Array) -> tuple[Array, ...]:
        return tuple(weight.reshape(-1, self.W.shape[2]) for weight in weights)

    def proximal(self, G: Float64Array, lam: Float64Array) -> Float64Array:
        """Θ of (13)."""
        from refldnq._kernels import admm as kernels

        theta = np.empty_like(self.W)
        HW, g, own, x = self._rows(self.HW, G, lam, theta)
        run_kernel(kernels.right_side, (HW, self.rho, g, own, x), len(x), grain=self.grain)
        # [LDNQ] (15)
        run_kernel(
            kernels.cho_solve, (self.factors, x), len(x), blas=True, grain=-(-SOLVE // x.shape[1] ** 2)
        )
        for group, inverse in self.inverses.items():
            theta[group] = theta[group] @ inverse
        return theta

    def project(self, V: Float64Array, rule: Rule, start: Float64Array | None) -> Rows:
        """G of (16), as codes and scale."""
        rows = V.reshape(-1, V.shape[2]) if self.settings.per_channel else V.reshape(1, -1)
        return project_rows(rows, self.codebook, rule, start)

    def point(self, rows: Rows) -> Float64Array:
        """The projection as a weight."""
        weight: Float64Array = (rows.alpha[:, None] * rows.values[rows.codes]).reshape(self.W.shape)
        return weight

    def first(self) -> tuple[Rows, Float64Array]:
        """G⁰ and λ⁰."""
        rule = self.settings.rule
        if self.settings.start == "direct":
            rule = Rule(max_passes=0, ties=rule.ties)
        rows = self.project(self.W, rule, None)
        lam = np.zeros_like(self.W)
        if self.settings.start == "guaranteed" and self.rho > 0:
            lam = -(self.point(rows) - self.W) @ self.H / self.rho
        return rows, lam

    def next_start(self, rows: Rows, mean_w: Float64Array) -> Float64Array | None:
        """Where the alternation starts in the next iteration."""
        if not self.settings.warm_start:
            return None if self.settings.cold_start == "mean_v" or self.codebook.kind == "free" else mean_w
        return rows.values if self.codebook.kind == "free" else rows.alpha

    def steps(self, G: Float64Array, lam: Float64Array, start: Float64Array | None) -> Iterator[_Step]:
        """The iterations from G⁰ and λ⁰, without end; the first projection starts at `start`."""
        mean_w = np.abs(self.W.reshape(self._scales, -1)).mean(axis=1)
        while True:
            theta = self.proximal(G, lam)
            V = theta + lam
            rows = self.project(V, self.settings.rule, start)
            step = self.dual(theta, V, rows, G)
            yield step
            G, lam, start = step.G, step.lam, self.next_start(rows, mean_w)

    def dual(self, theta: Float64Array, V: Float64Array, rows: Rows, last: Float64Array) -> _Step:
        """G and λ of (18) from the projection of V."""
        from refldnq._kernels import admm as kernels

        G, lam = np.empty_like(V), np.empty_like(V)
        above, x, before, point, own = self._rows(V, theta, last, G, lam)
        sums = np.empty((len(x), 2))
        codes = rows.codes.reshape(x.shape)
        arguments = (above, rows.alpha, rows.values, codes, x, before, point, own, sums)
        run_kernel(kernels.dual, arguments, len(x), grain=self.grain)
        primal, change = np.sqrt(sums.sum(axis=0)).tolist()
        return _Step(theta, V, rows, G, lam, primal, change)

    @property
    def _scales(self) -> int:
        groups, outputs, _ = self.W.shape
        return groups * outputs if self.settings.per_channel else 1

    def iterate(self) -> tuple[Rows, int, bool]:
        """Run; the returned projection, the best iteration, and whether the last is a fixed point."""
        settings = self.settings
        rows, lam = self.first()
        mean_w = np.abs(self.W.reshape(self._scales, -1)).mean(axis=1)
        size = float(np.linalg.norm(self.W))
        G = self.point(rows)
        self.objectives.append(self.error.direct(G))
        self.settled.add(0)
        self.found.append((rows.alpha, int(rows.passes.max()), 0.0, 0.0))
        best, best_iteration, rises = rows, 0, 0
        converged = self.factors is None
        lyapunov = Lyapunov(self.H, self.W.transpose(0, 2, 1), self.rho) if self.descends else None
        steps = self.steps(G, lam, self.next_start(rows, mean_w))
        for k, step in enumerate(islice(steps, 0 if self.factors is None else settings.iterations), 1):
            if lyapunov is not None:
                self.levels.append(lyapunov.level(G.transpose(0, 2, 1), step.V.transpose(0, 2, 1)))
            rows, G = step.rows, step.G
            self.objectives.append(self.error.of(rows.codes.reshape(G.shape), rows.alpha, rows.values, G))
            primal, change = step.primal, step.change
            self.found.append((rows.alpha, int(rows.passes.max()), primal, self.rho * change))
            converged = max(primal, change) <= FIXED_POINT * size
            margin = settings.stop_tolerance if settings.stop == "ascend3" else 0.0
            fall = self.objectives[best_iteration] - self.objectives[k]
            if abs(2 * fall - margin) <= TIE * self.objectives[k]:
                self._settle(best_iteration, best)
                if _same(rows, best):
                    self.objectives[k] = self.objectives[best_iteration]
                    self.settled.add(k)
                self._settle(k, rows)
                fall = self.objectives[best_iteration] - self.objectives[k]
            if fall > 0 and 2 * fall > margin:
                best, best_iteration, rises = rows, k, 0
            else:
                rises += 1
            if (settings.stop == "ascend3" and rises >= 3) or (settings.stop == "fixed_point" and converged):
                break
        if lyapunov is not None and self.levels:
            self.descent = lyapunov.descent(self.levels)
        self._settle(best_iteration, best)
        self._settle(len(self.objectives) - 1, rows)
        return best if settings.returned == "best" else rows, best_iteration, converged

    def _settle(self, iteration: int, rows: Rows) -> None:
        """Compute an iteration's objective by its definition, unless that has been done."""
        if iteration not in self.settled:
            self.objectives[iteration] = self.error.direct(self.point(rows))
            self.settled.add(iteration)

    def refit(self, rows: Rows) -> Float64Array:
        """The scales that are best for the codes in the norm of H; a scale that has no best one stays."""
        Q = rows.values[rows.codes].reshape(self.W.shape)
        if self.settings.per_channel:
            top, bottom = np.einsum("gmd,gmd->gm", Q, self.HW), np.einsum("gmd,gmd->gm", Q, Q @ self.H)
        else:
            top, bottom = np.atleast_1d(np.vdot(Q, self.HW)), np.atleast_1d(np.vdot(Q, Q @ self.H))
        alpha = rows.alpha.copy()
        np.divide(np.maximum(top, 0.0).ravel(), bottom.ravel(), out=alpha, where=bottom.ravel() > 0)
        return alpha

    @property
    def descends(self) -> bool:
        """Whether the theorem applies: ρ is certified, and no projection moves away from V."""
        rule = self.settings.rule
        near = self.settings.warm_start and not rule.moves_ties(self.codebook)
        return self.certified and (near or rule.is_global(self.codebook))

    def guarantee(self) -> Guarantee:
        """What is proved for these settings, unless this very run contradicts it."""
        if self.descent is not None and not self.descent.holds:
            self.notes.append(f"the Lyapunov function rose in iteration {self.descent.first_failure}")
            return "none"
        if not self.descends:
            return "none"
        exact = self.settings.rule.is_global(self.codebook)
        if exact and (self.codebook.kind == "fixed" or certified_above(-self.H, 0.0)):
            return "convergence"
        return "descent"

    def result(self) -> AdmmSolution:
        """The solution."""
        rows, best_iteration, converged = self.iterate()
        objective = self.objectives[best_iteration if self.settings.returned == "best" else -1]
        if self.settings.refit_alpha:
            rows = replace(rows, alpha=self.refit(rows))
            objective = self.error.direct(self.point(rows))
        groups, outputs, _ = self.W.shape
        channels = (groups, outputs) if self.settings.per_channel else ()
        guarantee = self.guarantee()
        alphas, passes, primal, dual = zip(*self.found, strict=True)
        if not self.H.any():
            self.notes.append("H is 0: every G has objective 0, the start is returned")
        return AdmmSolution(
            codes=np.ascontiguousarray(rows.codes.reshape(self.W.shape).transpose(0, 2, 1)),
            alpha=rows.alpha.reshape(channels),
            values=rows.values,
            objective=objective,
            solver="admm",
            settings=self.settings,
            iterations=len(self.found) - 1,
            converged=converged,
            guarantee=guarantee,
            rho=self.rho,
            notes=tuple(dict.fromkeys(self.notes)),
            trace=Trace(
                objective=np.array(self.objectives),
                alpha=np.array(alphas).reshape(-1, *channels),
                passes=np.array(passes),
                primal=np.array(primal[1:]),
                dual=np.array(dual[1:]),
                lyapunov=np.array([level.value for level in self.levels]),
            ),
            lambda_max=self.lambda_max,
            certified=self.certified,
            best_iteration=best_iteration,
        )


def _same(one: Rows, other: Rows) -> bool:
    return all(np.array_equal(getattr(one, key), getattr(other, key)) for key in ("codes", "alpha", "values"))
