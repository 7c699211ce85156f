"""What holds for every solver of (10), and what is particular to each of the closed-form ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refldnq._kernels import anneal as kernels
from refldnq.codebook import Codebook, fixed, free, powers_of_two, scaled
from refldnq.hessian import layer_error
from refldnq.projection import project
from refldnq.solvers import (
    admm,
    admm_plus,
    anneal,
    blocks,
    coordinate,
    direct,
    exact,
    gpfq,
    gptq,
    greedy,
    ldlq,
)
from refldnq.solvers.admm_plus import AdmmPlusSettings
from refldnq.solvers.anneal import AnnealSettings
from refldnq.solvers.base import Solution, get_solver
from refldnq.solvers.blocks import BlocksSettings
from refldnq.solvers.coordinate import CoordinateSettings, descend, polish
from refldnq.solvers.greedy import GreedySettings
from refldnq.solvers.problem import Point, Problem
from refldnq.verify.naive import solvers as naive

SHORT = AnnealSettings(rounds=2, explorations=1, sweeps=20)
SOLVES: dict[str, Any] = {
    "admm_plus": lambda H, W, book, **own: admm_plus.solve(
        H, W, book, AdmmPlusSettings(iterations=30, **own)
    ),
    "anneal": lambda H, W, book, **own: anneal.solve(H, W, book, dataclasses.replace(SHORT, **own)),
    "blocks": lambda H, W, book, **own: blocks.solve(H, W, book, BlocksSettings(**own)),
    "coordinate": lambda H, W, book, **own: coordinate.solve(H, W, book, CoordinateSettings(**own)),
    "gpfq": lambda H, W, book, **own: gpfq.solve(H, W, book, GreedySettings(damping=0.0, **own)),
    "gptq": lambda H, W, book, **own: gptq.solve(H, W, book, GreedySettings(**own)),
    "ldlq": lambda H, W, book, **own: ldlq.solve(H, W, book, GreedySettings(**own)),
}
BOOKS = {
    "ternary": powers_of_two(3),
    "five": powers_of_two(5),
    "skew": scaled([-1.0, 0.0, 2.0, 3.0]),
    "no zero": scaled([-1.0, 1.0]),
    "fixed": fixed([-0.5, 0.0, 0.75]),
    "free": free(3),
}
each_solver = pytest.mark.parametrize("name", sorted(SOLVES))
seeds = st.integers(0, 2**32 - 1)
quick = settings(deadline=None, max_examples=20)


def problem(seed: int, *, groups: int = 1, d: int = 7, m: int = 4, images: int = 0) -> tuple[Any, Any]:
    """Correlated inputs; with few images H is singular."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((groups, images or 4 * d, d)) @ (np.eye(d) + 0.5 * rng.standard_normal((d, d)))
    return 2 / X.shape[1] * X.transpose(0, 2, 1) @ X, rng.standard_normal((groups, d, m))


@each_solver
@pytest.mark.parametrize("book", sorted(BOOKS))
@pytest.mark.parametrize("images", [0, 3])
def test_results_lie_in_the_set_and_report_their_error(name: str, book: str, images: int) -> None:
    H, W = problem(1, groups=2, images=images)
    solution: Solution = SOLVES[name](H, W, BOOKS[book])
    assert solution.codes.shape == W.shape and solution.codes.dtype == np.int8
    assert 0 <= solution.codes.min() and solution.codes.max() < len(solution.values)
    assert (np.diff(solution.values) >= 0).all() and solution.alpha.shape == ()
    if BOOKS[book].kind == "scaled":
        assert np.array_equal(solution.values, BOOKS[book].values) and solution.alpha >= 0
    if BOOKS[book].kind == "fixed":
        assert solution.alpha == 1 and np.array_equal(solution.values, BOOKS[book].values)
    error = layer_error(H, W, solution.G)
    if not abs(error - solution.objective) <= 1e-12 * layer_error(H, W, np.zeros_like(W)):
        raise AssertionError((error, solution.objective))


@each_solver
@given(seed=seeds, exponent=st.integers(-20, 20))
@quick
def test_powers_of_two_scale_the_result_exactly(name: str, seed: int, exponent: int) -> None:
    H, W = problem(seed)
    one = SOLVES[name](H, W, powers_of_two(5))
    for h, w in ((2.0**exponent, 1.0), (1.0, 2.0**exponent)):
        other = SOLVES[name](h * H, w * W, powers_of_two(5))
        assert np.array_equal(one.codes, other.codes)
        assert other.alpha == w * one.alpha and other.objective == h * w * w * one.objective


@each_solver
def test_one_scale_a_channel_is_a_problem_a_channel(name: str) -> None:
    H, W = problem(5, groups=2)
    whole = SOLVES[name](H, W, powers_of_two(3), per_channel=True)
    assert whole.alpha.shape == (2, 4)
    for g in range(2):
        # ADMM+ takes its penalty, GPTQ its damping and annealing its temperature from all groups' mean
        together = whole if name in ("gpfq", "coordinate") else None
        columns = W[g : g + 1]
        together = together or SOLVES[name](H[g : g + 1], columns, powers_of_two(3), per_channel=True)
        place = g if together is whole else 0
        for c in range(4):
            if name == "anneal":  # each column has a random stream of its own; see below
                continue
            own = SOLVES[name](H[g : g + 1], columns[:, :, c : c + 1], powers_of_two(3))
            assert np.array_equal(own.codes[0, :, 0], together.codes[place, :, c])
            assert own.alpha == pytest.approx(together.alpha[place, c], rel=1e-12)
    shared = SOLVES[name](H, W, powers_of_two(3))
    assert whole.objective < shared.objective  # on this instance


class Alike:
    """Random numbers that are the same for every column, however many there are."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def uniform(self, low: float, high: float, count: int) -> np.ndarray:
        return np.full(count, self.rng.uniform(low, high))

    def integers(self, low: int, high: int, count: int, dtype: Any) -> np.ndarray:
        return np.full(count, self.rng.integers(low, high, dtype=dtype))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["admm_plus", "anneal", "blocks"])
def test_with_one_scale_a_channel_no_column_waits_for_another(
    name: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    H, W = problem(seed, d=16, m=6)
    start = AdmmPlusSettings(iterations=40, polish=False)
    if name == "anneal":
        alike = SimpleNamespace(**{**vars(np), "random": SimpleNamespace(default_rng=Alike)})
        monkeypatch.setattr(anneal, "np", alike)

    def solve(columns: np.ndarray) -> Solution:
        if name == "admm_plus":
            return admm_plus.solve(H, columns, powers_of_two(3), dataclasses.replace(start, per_channel=True))
        if name == "blocks":
            return blocks.solve(H, columns, powers_of_two(3), BlocksSettings(start=start, per_channel=True))
        how = AnnealSettings(rounds=3, explorations=3, sweeps=30, start=start, per_channel=True)
        return anneal.solve(H, columns, powers_of_two(3), how)

    joint = solve(W)
    for c in range(6):
        own = solve(W[:, :, c : c + 1])
        assert np.array_equal(own.codes[:, :, 0], joint.codes[:, :, c])
        assert own.alpha.ravel() == pytest.approx(joint.alpha[:, c], rel=1e-12)


@each_solver
def test_a_column_of_twice_the_weight_is_two_columns(name: str) -> None:
    if name == "anneal":  # two columns walk two ways
        return
    H, W = problem(3)
    solve = get_solver(name)
    weights = np.array([[1.0, 2.0, 1.0, 1.0]])
    own = solve(H, W, powers_of_two(3), None, column_weights=weights)
    doubled = solve(H, np.concatenate([W, W[:, :, 1:2]], axis=2), powers_of_two(3))
    assert np.array_equal(own.codes, doubled.codes[:, :, :4])
    assert own.alpha == pytest.approx(float(doubled.alpha), rel=1e-12)
    assert own.objective == pytest.approx(doubled.objective, rel=1e-10)
    assert not np.array_equal(weights * own.alpha, solve(H, W, powers_of_two(3)).alpha * weights)


@each_solver
@pytest.mark.parametrize("bad", [np.zeros((1, 4)), np.full((1, 4), np.nan), np.ones((1, 3))])
def test_column_weights_are_checked(name: str, bad: np.ndarray) -> None:
    H, W = problem(3)
    with pytest.raises(ValueError, match="`column_weights`"):
        get_solver(name)(H, W, powers_of_two(3), None, column_weights=bad)


@each_solver
def test_dead_inputs_a_zero_hessian_and_zero_weights(name: str) -> None:
    H, W = problem(7)
    H[:, 2], H[:, :, 2] = 0.0, 0.0
    dead = SOLVES[name](H, W, powers_of_two(3))
    alive = np.array([0, 1, 3, 4, 5, 6])
    assert np.isfinite(dead.objective) and dead.objective < layer_error(H, W, np.zeros_like(W))
    assert dead.objective == pytest.approx(
        layer_error(H[:, alive][:, :, alive], W[:, alive], dead.G[:, alive]), rel=1e-12
    )
    nothing = SOLVES[name](np.zeros_like(H), W, powers_of_two(3))
    assert nothing.objective == 0.0 and np.isfinite(nothing.alpha)
    assert not SOLVES[name](H, np.zeros_like(W), powers_of_two(3)).G.any()


def test_polishing_keeps_what_was_said_and_takes_settings() -> None:
    H, W = problem(3, d=9)
    start = direct.solve(H, W, powers_of_two(3), direct.DirectSettings(per_channel=True))
    start = dataclasses.replace(start, notes=("a note",))
    found = polish(H, W, powers_of_two(3), start, CoordinateSettings(sweeps=1, refit_alpha=False))
    assert found.objective < start.objective and found.iterations == 1 and not found.converged
    assert (found.solver, found.guarantee) == ("coordinate", "descent")
    assert found.notes == ("a note", "descent from the result of direct")
    assert np.array_equal(found.alpha, start.alpha) and found.settings.per_channel
    # Another problem's result is a start too.
    assert polish(H, 2 * W, powers_of_two(3), start).objective <= layer_error(H, 2 * W, start.G)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codes": np.zeros((1, 6, 4), np.int8)}, "`solution.codes` must have shape"),
        (
            {"codes": np.full((1, 7, 4), 3, np.int8)},
            "`solution.codes` must be indices of 3 values, got 3 to 3",
        ),
        ({"codes": np.full((1, 7, 4), -1, np.int8)}, "`solution.codes` must be indices"),
        ({"values": np.array([-1.0, 0.0, 2.0])}, "`solution.values` must be those of `codebook`"),
        ({"alpha": np.array(-1.0)}, "`solution.alpha` must be not negative for a scaled set"),
        ({"alpha": np.ones((1, 3))}, "`solution.alpha` must have shape"),
        ({"alpha": np.array(np.nan)}, "`solution.alpha`"),
    ],
)
def test_what_is_no_point_of_the_set_is_not_polished(changes: dict[str, Any], message: str) -> None:
    H, W = problem(3)
    start = dataclasses.replace(coordinate.solve(H, W, powers_of_two(3)), **changes)
    with pytest.raises(ValueError, match=message):
        polish(H, W, powers_of_two(3), start)
    with pytest.raises(ValueError, match=r"`solution\.alpha` must be 1 for a fixed set"):
        polish(H, W, fixed([-1.0, 0.0, 1.0]), coordinate.solve(H, W, powers_of_two(3)))
    with pytest.raises(TypeError, match="`settings` must be CoordinateSettings"):
        polish(H, W, powers_of_two(3), start, GreedySettings())  # type: ignore[arg-type]


@given(seed=seeds, book=st.sampled_from(["ternary", "five", "skew", "no zero", "fixed", "free"]))
@quick
def test_descent_never_raises_the_error_whatever_it_polishes(seed: int, book: str) -> None:
    H, W = problem(seed)
    own = Problem(H, W, BOOKS[book], per_channel=False)
    start = own.nearest()
    rng = np.random.default_rng(seed)
    start = Point(
        rng.integers(0, len(start.values), start.codes.shape).astype(np.int8), start.alpha, start.values
    )
    before = start.codes.copy()
    point, objectives, _, converged = descend(own, start, CoordinateSettings())
    assert converged and (np.diff(objectives) < 0).all()
    assert own.objective(point) == objectives[-1] and np.array_equal(start.codes, before)
    # No single code can lower f at the final scale.
    G, least = point.G, objectives[-1]
    for column in range(4):
        for i in range(7):
            for k in range(len(point.values)):
                codes = point.codes.copy()
                codes[0, column, i] = k
                other = own.objective(Point(codes, point.alpha, point.values))
                if not other >= least * (1 - 1e-12) - 1e-15 * float(np.abs(G).max()):
                    raise AssertionError((other, least))


def test_no_single_code_is_better_at_the_scale_that_descent_returns() -> None:
    """From the nearest point, whose scale is not the best one for its codes."""
    for seed in range(400):
        rng = np.random.default_rng(seed)
        d = int(rng.integers(2, 6))
        basis = np.linalg.qr(rng.standard_normal((d, d)))[0]
        H = ((basis * 10.0 ** rng.uniform(-4, 0, d)) @ basis.T)[None]
        H, W = 0.5 * (H + H.transpose(0, 2, 1)), rng.standard_normal((1, d, 1))
        found = coordinate.solve(H, W, powers_of_two(3))
        assert found.converged
        G, alpha = found.G[0, :, 0], float(found.alpha)
        change = alpha * np.array([-1.0, 0.0, 1.0]) - G[:, None]
        gain = change * (H[0] @ (G - W[0, :, 0]))[:, None] + 0.5 * np.diag(H[0])[:, None] * change**2
        if not gain.min() >= -1e-9 * found.objective:
            raise AssertionError((seed, gain.min(), found.objective))


@given(seed=seeds)
@quick
def test_a_sweep_is_that_of_the_definition(seed: int) -> None:
    H, W = problem(seed, m=1)
    book = fixed([-1.0, -0.25, 0.5, 1.5])
    own = Problem(H, W, book, per_channel=False)
    start = own.nearest()
    point, _, _, _ = descend(own, start, CoordinateSettings(sweeps=1))
    expected = naive.coordinate_sweep(H[0], W[0, :, 0], start.G[0, 0], book.values)
    assert np.array_equal(point.G[0, 0], expected)


def at_one_scale(
    solve: Any, H: np.ndarray, W: np.ndarray, book: Codebook, order: Any = "natural"
) -> Solution:
    result: Solution = solve(H, W, book, GreedySettings(damping=0.0, grid=1, refit_alpha=False, order=order))
    return result


@given(seed=seeds, order=st.sampled_from(["natural", "diagonal"]), levels=st.sampled_from([3, 5, 9]))
@quick
def test_gptq_and_ldlq_agree_without_damping(seed: int, order: str, levels: int) -> None:
    H, W = problem(seed, groups=2)
    one, other = (
        at_one_scale(solve, H, W, powers_of_two(levels), order) for solve in (gptq.solve, ldlq.solve)
    )
    assert np.array_equal(one.codes, other.codes) and one.objective == other.objective


@given(seed=seeds)
@quick
def test_greedy_solvers_follow_their_definitions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    X, W = (
        rng.standard_normal((30, 6)) @ (np.eye(6) + 0.5 * rng.standard_normal((6, 6))),
        rng.standard_normal((1, 6, 2)),
    )
    H = (2 / 30 * X.T @ X)[None]
    book = fixed([-1.0, 0.0, 1.0, 1.5])
    twins: Any = (
        (gptq.solve, lambda w: naive.gptq(H[0], w, book.values)),
        (ldlq.solve, lambda w: naive.gptq(H[0], w, book.values)),
        (gpfq.solve, lambda w: naive.gpfq(X, w, book.values)),
    )
    for solve, twin in twins:
        G = at_one_scale(solve, H, W, book).G[0]
        assert np.array_equal(G, np.stack([twin(W[0, :, c]) for c in range(2)], axis=1))


@pytest.mark.parametrize("planted", ["reversed", "sign"])
def test_planted_errors_in_the_feedback_are_seen(planted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = ldlq.feedback

    def wrong(H: np.ndarray) -> np.ndarray:
        return -right(H) if planted == "sign" else right(np.ascontiguousarray(H[:, ::-1, ::-1]))

    monkeypatch.setattr(ldlq, "feedback", wrong)
    agree = []
    for seed in range(20):
        H, W = problem(seed)
        one, other = (at_one_scale(solve, H, W, powers_of_two(3)) for solve in (gptq.solve, ldlq.solve))
        agree.append(np.array_equal(one.codes, other.codes))
    assert not all(agree)


def test_the_grid_finds_what_one_scale_misses() -> None:
    for solve in (gptq.solve, ldlq.solve, gpfq.solve):
        H, W = problem(11)
        errors = [solve(H, W, powers_of_two(3), GreedySettings(grid=n)).objective for n in (1, 3, 21)]
        assert errors[0] >= errors[1] >= errors[2]  # each grid holds the one before


def test_the_order_matters_and_diagonal_order_does_not_depend_on_names() -> None:
    H, W = problem(2)
    turn = np.random.default_rng(0).permutation(7)
    turned = H[:, turn][:, :, turn], W[:, turn]
    for solve in (gptq.solve, ldlq.solve, gpfq.solve):
        fixed_order, natural = (
            [at_one_scale(solve, *both, powers_of_two(3), order) for both in ((H, W), turned)]
            for order in ("diagonal", "natural")
        )
        assert np.array_equal(fixed_order[0].codes[:, turn], fixed_order[1].codes)
        assert not np.array_equal(natural[0].codes[:, turn], natural[1].codes)


@given(seed=seeds)
@quick
def test_admm_plus_does_not_depend_on_the_order_of_the_inputs(seed: int) -> None:
    H, W = problem(seed)
    turn = np.random.default_rng(seed).permutation(7)
    how = AdmmPlusSettings(iterations=20, polish=False)
    one = admm_plus.solve(H, W, powers_of_two(3), how)
    other = admm_plus.solve(H[:, turn][:, :, turn], W[:, turn], powers_of_two(3), how)
    assert np.array_equal(one.codes[:, turn], other.codes)


@pytest.mark.parametrize("planted", [False, True])
def test_admm_plus_follows_its_definition(planted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    H, W = problem(4, m=1)
    book = fixed([-1.0, -0.25, 0.5, 1.5])
    how = AdmmPlusSettings(iterations=25, polish=False)
    if planted:  # without the rescaled dual the trajectory is another
        monkeypatch.setattr(AdmmPlusSettings, "schedule", np.full(25, 0.3))
    solution = admm_plus.solve(H, W, book, how)
    start = Problem(H, W, book, per_channel=False).nearest().G[0, 0]
    schedule = np.geomspace(0.01, 30.0, 25) * np.diag(H[0]).mean()
    twins = naive.admm_plus(H[0], W[0, :, 0], book.values, schedule, start)
    expected = [layer_error(H, W, G[None, :, None]) for G in twins]
    assert np.allclose(solution.trace.objective, expected, rtol=1e-9, atol=0) != planted


def admm_plus_in_steps(
    H: np.ndarray, W: np.ndarray, book: Codebook, how: AdmmPlusSettings
) -> tuple[list[float], list[float]]:
    """Objectives and scales of the iterates, one by one; a fitted scale does not enter the dual."""

    def fitted(codes: np.ndarray, alpha: float) -> float:
        Q = book.values[codes]
        return float(np.vdot(Q, H[0] @ W[0]) / np.vdot(Q, H[0] @ Q)) if how.refit_alpha else alpha

    def error(codes: np.ndarray, alpha: float) -> float:
        return layer_error(H, W, alpha * book.values[codes][None])

    start = project(W, book, method=how.projection)
    G, lam, last = start.G[0], np.zeros_like(W[0]), None
    objectives, alphas = [error(start.codes[0], float(start.alpha))], [float(start.alpha)]
    for rho in how.schedule * np.diag(H[0]).mean():
        lam = lam * ((last or rho) / rho)
        theta = np.linalg.solve(H[0] + rho * np.eye(len(G)), H[0] @ W[0] + rho * (G - lam))
        found = project((theta + lam)[None], book, method=how.projection)
        G = found.G[0]
        lam, last = theta + lam - G, rho
        alphas.append(fitted(found.codes[0], float(found.alpha)))
        objectives.append(error(found.codes[0], alphas[-1]))
    return objectives, alphas


@pytest.mark.parametrize("projection", ["exact", "alternating"])
@pytest.mark.parametrize("refit", [False, True])
def test_admm_plus_with_a_free_scale(projection: Any, refit: bool) -> None:
    H, W = problem(6, d=10, m=3)
    how = AdmmPlusSettings(iterations=30, projection=projection, refit_alpha=refit, polish=False)
    found = admm_plus.solve(H, W, powers_of_two(5), how)
    objectives, alphas = admm_plus_in_steps(H, W, powers_of_two(5), how)
    assert np.allclose(found.trace.objective, objectives, rtol=1e-8, atol=0)
    assert np.allclose(found.trace.alpha.ravel(), alphas, rtol=1e-8, atol=0)
    best = int(np.argmin(objectives))
    assert found.objective == pytest.approx(objectives[best], rel=1e-8)
    # Another projection, or another scale, is another course.
    other = admm_plus_in_steps(H, W, powers_of_two(5), dataclasses.replace(how, refit_alpha=not refit))[0]
    assert not np.allclose(other, objectives, rtol=1e-3)


def test_the_two_projections_of_admm_plus_differ_somewhere() -> None:
    # A long tail: the alternation stays at its fixed point.
    H, W = problem(6, d=12, m=1)
    W = np.sign(W) * np.abs(W) ** 4
    one, other = (
        admm_plus.solve(H, W, powers_of_two(3), AdmmPlusSettings(iterations=20, projection=p, polish=False))
        for p in ("exact", "alternating")
    )
    assert not np.allclose(one.trace.objective, other.trace.objective, rtol=1e-6)


def gain_of_a_code(H: np.ndarray, W: np.ndarray, found: Solution) -> float:
    """By how much one other code lowers f at the result's scale, as a share of f; 0 if none does."""
    difference = found.G[0] - W[0]
    slope, best = H[0] @ difference, 0.0
    for level in found.values:
        change = float(found.alpha) * level - found.G[0]
        best = min(best, float((change * slope + 0.5 * np.diag(H[0])[:, None] * change**2).min()))
    return -best / found.objective


@pytest.mark.parametrize("seed", range(3))
def test_what_is_polished_cannot_be_improved_by_a_code(seed: int) -> None:
    H, W = problem(seed, d=24, m=6)
    short = AdmmPlusSettings(iterations=10)
    rough = admm_plus.solve(H, W, powers_of_two(3), dataclasses.replace(short, polish=False))
    polished = admm_plus.solve(H, W, powers_of_two(3), short)
    walk = AnnealSettings(rounds=1, explorations=0, sweeps=3, hot=0.3, cold=0.2, start=short)
    search = BlocksSettings(sweeps=1, size=4, start=dataclasses.replace(short, polish=False))
    results = (anneal.solve(H, W, powers_of_two(3), walk), blocks.solve(H, W, powers_of_two(3), search))
    for found in (polished, *results):
        if not gain_of_a_code(H, W, found) <= 1e-9:
            raise AssertionError(found.solver)
    assert gain_of_a_code(H, W, rough) > 1e-6 and polished.objective < rough.objective
    fixed_scale = dataclasses.replace(short, refit_alpha=False)
    kept = admm_plus.solve(H, W, powers_of_two(3), fixed_scale)
    assert float(kept.alpha) in kept.trace.alpha  # the polish leaves the scale alone


def test_annealing_improves_and_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    H, W = problem(0, d=24, m=6)
    results = [anneal.solve(H, W, powers_of_two(3), AnnealSettings(seed=seed)) for seed in (0, 0, 1)]
    assert np.array_equal(results[0].codes, results[1].codes) and results[0].alpha == results[1].alpha
    start = admm_plus.solve(H, W, powers_of_two(3), AnnealSettings().start)
    assert results[0].objective < start.objective and results[2].objective < start.objective
    assert (np.diff(results[0].trace.objective) <= 0).all()
    from refldnq._kernels import threads

    monkeypatch.setattr(threads, "thread_count", lambda: 3)
    again = anneal.solve(H, W, powers_of_two(3), AnnealSettings(seed=0))
    assert np.array_equal(results[0].codes, again.codes)


def test_explorations_are_short_hot_and_at_other_scales(monkeypatch: pytest.MonkeyPatch) -> None:
    walks: list[tuple[float, np.ndarray]] = []

    def walk(own: Problem, point: Point, temperatures: np.ndarray, rng: np.random.Generator) -> Point:
        walks.append((float(point.alpha[0]), temperatures))
        return point

    monkeypatch.setattr(anneal, "_walk", walk)
    H, W = problem(2, d=12)
    how = AnnealSettings(explorations=6, rounds=4, sweeps=50, spread=0.2, hot=0.05, cold=0.002)
    found = anneal.solve(H, W, powers_of_two(3), how)
    scales = found.trace.alpha.ravel()  # of the best so far, where each walk begins
    strays = [abs(np.log(alpha / scale)) for (alpha, _), scale in zip(walks, scales[:-1], strict=True)]
    assert all(0 < stray <= 0.2 for stray in strays[:6]) and strays[6:] == [0.0] * 4
    for place, (_, temperatures) in enumerate(walks):
        first, count = (0.5, 10) if place < 6 else (0.05, 50)
        assert temperatures[0] == pytest.approx(first) and temperatures[-1] == pytest.approx(0.002)
        assert len(temperatures) == count
    anneal.solve(H, W, fixed([-0.5, 0.0, 0.5]), how)
    assert [alpha for alpha, _ in walks[10:]] == [1.0] * 10  # a fixed set has no other scale
    for columns, per_channel, count in ((3, False, 6), (3, True, 60), (2, False, 60)):  # 36, 12, 24 a scale
        walks.clear()
        small = dataclasses.replace(how, per_channel=per_channel)
        found = anneal.solve(H, W[:, :, :columns], powers_of_two(3), small)
        assert found.iterations == len(walks) == count + 4


@pytest.mark.parametrize("book", ["ternary", "skew", "fixed", "free"])
def test_a_hot_walk_returns_the_best_that_it_met(book: str) -> None:
    for seed in range(5):
        H, W = problem(seed, groups=2)
        own = Problem(H, W, BOOKS[book], per_channel=False)
        start = own.nearest()
        before, codes = own.objective(start), start.codes.copy()
        walked = anneal._walk(own, start, np.full(20, 10.0), np.random.default_rng(seed))
        if not own.objective(walked) <= before * (1 + 1e-12):
            raise AssertionError((book, seed))
        assert np.array_equal(start.codes, codes)


def test_annealing_starts_as_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    H, W = problem(3, d=12)
    start = AdmmPlusSettings(iterations=3, polish=False)
    first = anneal.solve(H, W, powers_of_two(3), AnnealSettings(rounds=0, explorations=0, start=start))
    assert first.objective == admm_plus.solve(H, W, powers_of_two(3), start).objective
    assert first.objective > admm_plus.solve(H, W, powers_of_two(3)).objective


def test_descent_in_the_order_of_the_diagonal() -> None:
    """A sweep of it is one of the problem whose inputs stand in that order; the scale stays if told to."""
    differ = moved = False
    for seed in range(5):
        H, W = problem(seed, m=2)
        turn = np.argsort(-np.diag(H[0]), kind="stable")
        turned = np.ascontiguousarray(H[:, turn][:, :, turn]), W[:, turn].copy()
        one = coordinate.solve(H, W, powers_of_two(5), CoordinateSettings(sweeps=1, order="diagonal"))
        two = coordinate.solve(*turned, powers_of_two(5), CoordinateSettings(sweeps=1))
        assert np.array_equal(one.codes[:, turn], two.codes)
        natural = coordinate.solve(H, W, powers_of_two(5), CoordinateSettings(sweeps=1))
        differ |= not np.array_equal(one.codes, natural.codes)
        kept = coordinate.solve(H, W, powers_of_two(5), CoordinateSettings(refit_alpha=False))
        scale = float(project(W, powers_of_two(5), method="exact").alpha)
        assert float(kept.alpha) == pytest.approx(scale, rel=1e-14)
        moved |= abs(float(coordinate.solve(H, W, powers_of_two(5)).alpha) / scale - 1) > 1e-6
    assert differ and moved


def hits(solve: Callable[[np.ndarray, np.ndarray], Solution]) -> int:
    """How often the optimum of 40 single columns is found, all codes of three levels tried."""
    found = 0
    every = np.array(np.meshgrid(*[[-1.0, 0.0, 1.0]] * 7)).reshape(7, -1)
    for seed in range(40):
        H, W = problem(seed, m=1)
        top, bottom = every.T @ (H[0] @ W[0, :, 0]), np.einsum("dk,de,ek->k", every, H[0], every)
        gain = np.divide(np.maximum(top, 0) ** 2, bottom, out=np.zeros_like(top), where=bottom > 0)
        optimum = 0.5 * (W[0, :, 0] @ H[0] @ W[0, :, 0] - gain.max())
        objective = solve(H, W).objective
        if not objective >= optimum - 1e-12 * gain.max():
            raise AssertionError("below the optimum")
        found += objective <= optimum + 1e-9 * gain.max()
    return found


def test_annealing_finds_the_enumerated_optimum_of_single_columns() -> None:
    assert hits(lambda H, W: anneal.solve(H, W, powers_of_two(3))) >= 36  # nine in ten


def test_block_descent_finds_the_enumerated_optimum_of_single_columns() -> None:
    assert hits(lambda H, W: blocks.solve(H, W, powers_of_two(3))) == 40
    alone = BlocksSettings(scales=0)
    assert hits(lambda H, W: blocks.solve(H, W, powers_of_two(3), alone)) < 36  # other scales are needed


def best_of_a_block(
    H: np.ndarray, w: np.ndarray, q: np.ndarray, entries: np.ndarray, values: np.ndarray
) -> Any:
    """The codes of least cost, all of a block tried and the others fixed; the least costs; numbers only."""
    tried = np.indices((len(values),) * len(entries)).reshape(len(entries), -1).T
    codes = np.repeat(q[None], len(tried), axis=0)
    codes[:, entries] = tried
    away = values[codes] - w
    costs = 0.5 * np.einsum("kd,de,ke->k", away, H, away)
    return codes[costs.argmin()], np.sort(costs)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("book", ["fixed", "five", "no zero"])
def test_a_sweep_gives_block_after_block_its_best_codes(book: str, per_channel: bool) -> None:
    """Against all codes of a block tried, the blocks one after the other, at the scales before."""
    clear = 0
    for seed in range(8):
        H, W = problem(seed, groups=2, d=9, m=3)
        codebook = BOOKS[book]
        own = Problem(H, W, codebook, per_channel=per_channel and codebook.kind == "scaled")
        start, members = own.nearest(), np.array([[1, 4, 5, 7], [0, 2, 5, 8], [3, 6, 1, 0]])
        moved = blocks._swept(own, start, members, 10**6)
        assert own.refit(Point(moved.codes, start.alpha, start.values)).alpha == pytest.approx(moved.alpha)
        scales = np.broadcast_to(start.scales, (2, 3, 1))[..., 0]
        for g, c in np.ndindex(2, 3):
            codes, scale, gaps = start.codes[g, c], scales[g, c], []
            for entries in members:
                codes, costs = best_of_a_block(H[g], W[g, :, c] / scale, codes, entries, codebook.values)
                gaps.append((costs[1] - costs[0]) / costs[-1])
            if min(gaps) > 1e-6:  # no tie that rounding could decide
                clear += 1
                assert np.array_equal(moved.codes[g, c], codes)
    assert clear > 40


def test_a_search_that_is_given_up_keeps_what_it_has_found() -> None:
    H, W = problem(5, d=24, m=16)
    own, members = Problem(H, W, powers_of_two(5), per_channel=False), np.arange(24)[None]
    start = own.nearest()
    found = [own.objective(blocks._swept(own, start, members, nodes)) for nodes in (1, 30, 10**5)]
    assert own.objective(start) >= found[0] > found[1] > found[2]


def test_blocks_hold_every_entry_that_is_seen() -> None:
    H, _ = problem(1, groups=3, d=20)
    H[:, 6], H[:, :, 6] = 0.0, 0.0
    near = blocks._correlations(H)
    assert near[6, 6] == 0 and np.allclose(np.delete(near.diagonal(), 6), 1.0)
    wanted = np.mean(
        [np.abs(np.corrcoef(np.eye(20))) * 0 + abs(h[2, 3]) / np.sqrt(h[2, 2] * h[3, 3]) for h in H]
    )
    assert near[2, 3] == pytest.approx(wanted, rel=1e-12)
    draws = [blocks._drawn(near, 7, np.random.default_rng(seed)) for seed in range(20)]
    for drawn in draws:
        assert drawn.shape == (3, 7) and all(len(set(block)) == 7 for block in drawn.tolist())
        assert set(drawn.ravel().tolist()) == set(range(20)) - {6}
    assert len({drawn.tobytes() for drawn in draws}) == 20
    # Correlated entries go together: two pairs that are nearly equal.
    near = np.eye(20) + 0.01
    near[4, 9] = near[9, 4] = near[2, 13] = near[13, 2] = 0.99
    pairs = blocks._drawn(near, 2, np.random.default_rng(0))
    assert {(4, 9), (2, 13)} <= {tuple(sorted(pair)) for pair in pairs.tolist()}


@pytest.mark.parametrize("correlation", [0.97, 1.0])
def test_a_drawn_entry_is_in_its_block(correlation: float) -> None:
    near = np.full((12, 12), correlation)
    near[np.diag_indices(12)] = 0.7  # of groups of which few see an entry
    draws: list[int] = []

    class Told:
        def __init__(self, seed: int) -> None:
            self.rng = np.random.default_rng(seed)

        def uniform(self, *how: Any) -> np.ndarray:
            noise: np.ndarray = self.rng.uniform(*how)
            return noise

        def choice(self, places: np.ndarray) -> int:
            draws.append(int(self.rng.choice(places)))
            return draws[-1]

    for seed in range(50):
        draws.clear()
        drawn = blocks._drawn(near, 4, Told(seed))  # type: ignore[arg-type]
        assert len(drawn) == 3 and all(own in block for own, block in zip(draws, drawn, strict=True))


def test_block_descent_improves_and_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    H, W = problem(0, d=40, m=6)
    results = [blocks.solve(H, W, powers_of_two(3), BlocksSettings(seed=seed)) for seed in (0, 0, 1)]
    assert np.array_equal(results[0].codes, results[1].codes) and results[0].alpha == results[1].alpha
    assert not np.array_equal(results[0].trace.objective, results[2].trace.objective)
    start = admm_plus.solve(H, W, powers_of_two(3))
    annealed = anneal.solve(H, W, powers_of_two(3), AnnealSettings(explorations=0))
    for found in results:
        objectives = found.trace.objective
        assert found.objective < annealed.objective < start.objective == objectives[0]
        assert (np.diff(objectives) <= 0).all() and len(objectives) == found.iterations + 1
        gains = np.flatnonzero(np.diff(objectives) < 0)
        assert found.converged and found.iterations == gains[-1] + 1 + blocks.IDLE
        assert max(np.diff(gains)) > 1  # what was idle began to gain again
    from refldnq._kernels import threads

    monkeypatch.setattr(threads, "thread_count", lambda: 3)
    again = blocks.solve(H, W, powers_of_two(3))
    assert np.array_equal(results[0].codes, again.codes) and results[0].alpha == again.alpha
    none = blocks.solve(
        H, W, powers_of_two(3), BlocksSettings(sweeps=0, start=AdmmPlusSettings(iterations=9))
    )
    assert none.objective == admm_plus.solve(H, W, powers_of_two(3), AdmmPlusSettings(iterations=9)).objective
    few = blocks.solve(H, W, powers_of_two(3), BlocksSettings(sweeps=5))
    assert few.iterations == 5 and not few.converged


@pytest.mark.parametrize("ratio", [1.0, 1e6, 1e12])
def test_blocks_of_entries_of_uneven_weight_find_the_optimum(ratio: float) -> None:
    """One input that is far larger than the others, which are correlated; at a fixed set."""
    for seed in range(10):
        H, W = problem(seed, d=6, m=1)
        H, W = np.pad(H, ((0, 0), (0, 1), (0, 1))), np.pad(W, ((0, 0), (0, 1), (0, 0)))
        H[0, 6, 6], W[0, 6, 0] = ratio, 0.75
        wanted = exact.solve(H, W, BOOKS["fixed"]).objective
        if not blocks.solve(H, W, BOOKS["fixed"]).objective <= wanted * (1 + 1e-9):
            raise AssertionError(seed)


@pytest.mark.parametrize("exponent", [-600, 540])
def test_blocks_see_a_hessian_of_any_size(exponent: int) -> None:
    H, _ = problem(0, d=40, m=6)
    near = blocks._correlations(H)
    assert np.array_equal(near, blocks._correlations(2.0**exponent * H))


def test_a_hessian_that_is_not_one() -> None:
    with pytest.raises(np.linalg.LinAlgError):
        blocks.solve(np.array([[[1.0, 4.0], [4.0, 1.0]]]), np.ones((1, 2, 1)), powers_of_two(3))
    # Summed in float32 it is one but for rounding.
    X = np.random.default_rng(0).standard_normal((3, 10)).astype(np.float32)
    H = (X.T @ X).astype(np.float64)[None]
    H = 0.5 * (H + H.transpose(0, 2, 1))
    assert np.linalg.eigvalsh(H[0])[0] < 0
    W = np.random.default_rng(1).standard_normal((1, 10, 4))
    assert blocks.solve(H, W, powers_of_two(3)).objective <= admm_plus.solve(H, W, powers_of_two(3)).objective


def test_annealing_is_as_hot_as_the_steps_between_values_are_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    hottest: list[float] = []
    original = kernels.anneal

    def kernel(*arguments: Any) -> None:
        hottest.append(float(arguments[6][0]))
        original(*arguments)

    monkeypatch.setattr(kernels, "anneal", kernel)
    H, W = problem(0)
    settings = AnnealSettings(sweeps=5, rounds=1, explorations=0, hot=0.5, cold=0.1)

    def heat(codebook: Codebook) -> float:
        hottest.clear()
        anneal.solve(H, W, codebook, settings)
        return hottest[0] / (0.5 * float(np.einsum("gii->gi", H).mean()))

    for levels in (3, 5):
        assert heat(powers_of_two(levels)) == pytest.approx(1.0, rel=1e-14)
    assert heat(fixed([-3.0, 0.0, 3.0])) == pytest.approx(9.0, rel=1e-14)
    uneven = heat(fixed([-1.5, -0.5, 0.0, 0.5, 1.5]))
    # A value that is nearly there already must not freeze the walk: the least step is small.
    assert 0.5 * uneven < heat(fixed([-1.5, -0.5, 0.0, 0.01, 0.5, 1.5])) < uneven


def test_annealing_of_values_that_are_nearly_equal() -> None:
    H, W = problem(0)
    settings = AnnealSettings(sweeps=5, rounds=1, explorations=0)
    for values in ([-1.0, 0.0, 1e-200, 1.0], [-1e-200, 0.0, 1e-200]):
        assert np.isfinite(anneal.solve(H, W, fixed(values), settings).objective)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (CoordinateSettings, {"sweeps": 0}),
        (CoordinateSettings, {"order": "random"}),
        (GreedySettings, {"damping": -1.0}),
        (GreedySettings, {"grid": 0}),
        (GreedySettings, {"spread": 1.0}),
        (AdmmPlusSettings, {"rho_first": 0.0}),
        (AdmmPlusSettings, {"iterations": 0}),
        (AdmmPlusSettings, {"projection": "best"}),
        (BlocksSettings, {"sweeps": -1}),
        (BlocksSettings, {"size": 0}),
        (BlocksSettings, {"nodes": 0}),
        (BlocksSettings, {"scales": -1}),
        (BlocksSettings, {"scales": 1}),
        (BlocksSettings, {"spread": -0.1}),
        (BlocksSettings, {"seed": -1}),
        (AnnealSettings, {"rounds": -1}),
        (AnnealSettings, {"cold": 0.0}),
    ],
)
def test_settings_out_of_range_are_refused(kind: Any, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"`{next(iter(changes))}`"):
        kind(**changes)


def test_a_free_set_has_no_scale_a_channel() -> None:
    H, W = problem(0)
    for name, solve in SOLVES.items():
        with pytest.raises(ValueError, match="per_channel"):
            solve(H, W, free(3), per_channel=True)
        assert name


def test_damping_is_reported() -> None:
    H, W = problem(0)
    for solve in (gptq.solve, ldlq.solve):
        note = "H was damped by 0.01 of its mean diagonal; the objective is without"
        assert solve(H, W, powers_of_two(3)).notes == (note,)
        assert solve(H, W, powers_of_two(3), GreedySettings(damping=0.0)).notes == ()


def test_a_singular_hessian_without_damping_is_refused() -> None:
    H, W = problem(0, images=3)
    for solve in (gptq.solve, ldlq.solve):
        with pytest.raises(np.linalg.LinAlgError):
            solve(H, W, powers_of_two(3), GreedySettings(damping=0.0))
    assert greedy.GreedySettings().damping == 0.01 and admm.FIXED_POINT < 1
