"""ADMM (11)-(18): the naive twin, the subproblems' optimality, the theorems, and the audit's
counterexamples."""

from __future__ import annotations

import sys
from dataclasses import FrozenInstanceError, replace
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refldnq._kernels import threads
from refldnq.codebook import Codebook, fixed, free, powers_of_two, scaled
from refldnq.hessian import layer_error
from refldnq.projection import project
from refldnq.solvers import admm, running_error
from refldnq.solvers.admm import AdmmSettings, AdmmSolution, _Run, solve, trajectory
from refldnq.solvers.running_error import RunningError
from refldnq.verify.naive import admm as naive

TERNARY = powers_of_two(3)
SETS = [TERNARY, powers_of_two(7), scaled([-1, 1]), scaled([0, 1, 2, 3]), fixed([-1, 0, 2])]
SEEDS = st.integers(0, 2**32 - 1)


def problem(
    seed: int, d: int = 6, m: int = 3, *, groups: int = 1, condition: float = 30.0
) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    H = []
    for _ in range(groups):
        U = np.linalg.qr(rng.standard_normal((d, d)))[0]
        block = (U * np.logspace(0, -np.log10(condition), d)) @ U.T
        H.append((block + block.T) / 2)
    return np.array(H), rng.standard_normal((groups, d, m))


def settings_for(**changes: Any) -> AdmmSettings:
    return AdmmSettings.profile("paper", **changes)


def assert_same_run(solution: AdmmSolution, states: list[naive.State]) -> None:
    """The trace is the naive twin's: objectives, scales and residuals."""
    rho = solution.rho
    for k, state in enumerate(states):
        pairs = [(solution.trace.objective[k], state.objective)]
        if solution.settings.projection == "alternating":  # exact ones of one G can differ: ±2 at α, ±1 at 2α
            pairs.append((solution.trace.alpha[k], state.alpha))
        if k:
            last = states[k - 1]
            pairs.append((solution.trace.primal[k - 1], np.linalg.norm(state.theta - state.G)))
            pairs.append((solution.trace.dual[k - 1], rho * np.linalg.norm(state.G - last.G)))
        for got, want in pairs:
            if not abs(got - want) <= 1e-10 * (1 + abs(want)):
                raise AssertionError(f"iteration {k}: got {got}, want {want}")
    if not np.abs(solution.G[0] - states[-1].G).max() <= 1e-10:
        raise AssertionError("the last G differs")


@pytest.mark.parametrize("levels", [3, 5])
@pytest.mark.parametrize("projection", ["alternating", "exact"])
@pytest.mark.parametrize("start", ["projection", "guaranteed"])
@given(seed=SEEDS)
@settings(deadline=None, max_examples=8)
def test_a_run_is_the_naive_twins(levels: int, projection: Any, start: Any, seed: int) -> None:
    H, W = problem(seed, 3, 2 if levels == 3 else 1)
    chosen = settings_for(projection=projection, start=start, returned="last", iterations=12, rho=0.7)
    solution = solve(H, W, powers_of_two(levels), chosen)
    states = naive.admm(
        H[0], W[0], powers_of_two(levels).values, solution.rho, 12,
        exact=projection == "exact", guaranteed=start == "guaranteed",
    )  # fmt: skip
    assert_same_run(solution, states)


def test_the_comparison_sees_a_wrong_dual_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    H, W = problem(0, 3, 2)
    solution = solve(H, W, TERNARY, settings_for(returned="last", iterations=12))
    assert_same_run(solution, naive.admm(H[0], W[0], TERNARY.values, solution.rho, 12))
    right = _Run.proximal
    monkeypatch.setattr(_Run, "proximal", lambda self, G, lam: right(self, G, -lam))
    wrong = solve(H, W, TERNARY, settings_for(returned="last", iterations=12))
    with pytest.raises(AssertionError):
        assert_same_run(wrong, naive.admm(H[0], W[0], TERNARY.values, solution.rho, 12))


@given(seed=SEEDS, groups=st.integers(1, 3), exponent=st.integers(-6, 6))
@settings(deadline=None, max_examples=25)
def test_the_proximal_step_is_stationary(seed: int, groups: int, exponent: int) -> None:
    H, W = problem(seed, 8, 4, groups=groups, condition=1e6)
    rng = np.random.default_rng(seed)
    run = _Run(H, W, TERNARY, settings_for(rho=10.0**exponent, rho_scale="absolute"))
    G, lam = rng.standard_normal((2, groups, 4, 8))
    theta = run.proximal(G, lam)
    left, right = theta @ H + run.rho * theta, run.HW + run.rho * (G - lam)
    # The backward error of Cholesky's method: a few d unit roundoffs of |A||Θ|.
    sizes = (np.abs(theta) + np.abs(run.W)) @ np.abs(H) + run.rho * (np.abs(theta) + np.abs(G) + np.abs(lam))
    if not (np.abs(left - right) <= 30 * 8 * 2.0**-53 * sizes).all():
        raise AssertionError(f"residual {np.abs(left - right).max()}")


def replay(H: Any, W: Any, codebook: Codebook, chosen: AdmmSettings, rho: float) -> list[Any]:
    """V^k and G^{k+1} of a run, from the G that runs of growing length return last."""
    g = solve(H, W, codebook, replace(chosen, iterations=0, returned="last")).G[0]
    h, w = H[0], W[0]
    lam = -h @ (g - w) / rho if chosen.start == "guaranteed" else np.zeros_like(w)
    course = []
    for k in range(1, chosen.iterations + 1):
        theta = np.linalg.solve(h + rho * np.eye(len(h)), h @ w + rho * (g - lam))
        v = theta + lam
        g = solve(H, W, codebook, replace(chosen, iterations=k, returned="last")).G[0]
        lam = v - g
        course.append((v, g))
    return course


def lyapunov(h: Any, w: Any, rho: float, course: list[Any]) -> list[tuple[float, float]]:
    """L_k and f(G^k) of theorem 7.5."""
    eye = np.eye(len(h))
    result = []
    for v, g in course:
        v_next = g + np.linalg.solve(h + rho * eye, h @ (v + w - 2 * g))
        u = np.linalg.solve(rho * eye - h, rho * v_next - h @ w)
        f = 0.5 * np.vdot(g - w, h @ (g - w))
        result.append((float(f + 0.5 * np.vdot(u - g, (rho * eye - h) @ (u - g))), float(f)))
    return result


@pytest.mark.parametrize("projection", ["exact", "alternating"])
@pytest.mark.parametrize("codebook", [TERNARY, powers_of_two(5), fixed([-1, 0, 1])])
@given(seed=SEEDS, factor=st.floats(1.02, 3.0))
@settings(deadline=None, max_examples=6)
def test_the_lyapunov_function_falls(projection: Any, codebook: Codebook, seed: int, factor: float) -> None:
    H, W = problem(seed, 4, 2)
    chosen = settings_for(rho=factor, rho_scale="lambda_max", projection=projection, iterations=15)
    solution = solve(H, W, codebook, chosen)
    assert solution.certified and solution.guarantee in ("descent", "convergence")
    course = replay(H, W, codebook, chosen, solution.rho)
    pairs = lyapunov(H[0], W[0], solution.rho, course)
    for (before, _), (after, _) in pairwise(pairs):
        if not after <= before + 1e-11 * (1 + before):
            raise AssertionError(f"the Lyapunov function rises from {before} to {after}")
    for level, f in pairs:
        assert f <= level + 1e-12


def test_the_lyapunov_check_sees_a_small_rho() -> None:
    rises = 0
    for seed in range(5):
        H, W = problem(seed, 4, 2)
        chosen = settings_for(rho=0.05, rho_scale="lambda_max", projection="exact", iterations=15)
        rho = solve(H, W, TERNARY, chosen).rho
        values = [f for _, f in lyapunov(H[0], W[0], rho, replay(H, W, TERNARY, chosen, rho))]
        rises += any(b > a * (1 + 1e-6) for a, b in pairwise(values))
    assert rises > 0


@pytest.mark.parametrize("projection", ["exact", "alternating"])
@given(seed=SEEDS)
@settings(deadline=None, max_examples=20)
def test_the_guaranteed_start_never_loses(projection: Any, seed: int) -> None:
    H, W = problem(seed, 6, 2)
    chosen = settings_for(rho=1.05, rho_scale="lambda_max", projection=projection, start="guaranteed")
    objective = solve(H, W, TERNARY, chosen).trace.objective
    if not (objective <= objective[0] * (1 + 1e-9)).all():
        raise AssertionError(f"f rises above the start's: {objective}")


@given(seed=SEEDS)
@settings(deadline=None, max_examples=15)
def test_large_rho_converges_to_a_fixed_point(seed: int) -> None:
    H, W = problem(seed, 5, 2)
    chosen = settings_for(
        rho=1.1,
        rho_scale="lambda_max",
        projection="exact",
        iterations=3000,
        stop="fixed_point",
        returned="last",
    )
    solution = solve(H, W, TERNARY, chosen)
    assert solution.converged and solution.guarantee == "convergence" and solution.iterations < 3000
    G = solution.G
    target = G - H @ (G - W) / solution.rho  # G must be a nearest point of Ω to this
    nearest = project(target, TERNARY, method="exact")
    if not float(((target - G) ** 2).sum()) <= nearest.residual + 1e-7 * float((W**2).sum()):
        raise AssertionError("not a fixed point of the projected gradient")
    best = np.vdot(solution.G, H @ W) / np.vdot(solution.G, H @ solution.G)
    assert best == pytest.approx(1.0, abs=1e-6)  # the scale is the best in the norm of H


@given(seed=SEEDS, scale=st.sampled_from([0.5, 1.0, 4.0]))
@settings(deadline=None, max_examples=20)
def test_a_multiple_of_the_identity_gives_the_exact_projection(seed: int, scale: float) -> None:
    W = np.random.default_rng(seed).standard_normal((1, 7, 3))
    H = scale * np.eye(7)[None]
    chosen = settings_for(rho=1.5, rho_scale="lambda_max", projection="exact", start="guaranteed")
    solution = solve(H, W, powers_of_two(5), chosen)
    assert np.array_equal(solution.codes, project(W, powers_of_two(5), method="exact").codes)


@pytest.mark.parametrize("power", [-20, -1, 7])
@pytest.mark.parametrize("rho_scale", ["mean_diagonal", "lambda_max", "h00"])
@pytest.mark.parametrize("projection", ["alternating", "exact"])
def test_powers_of_two_scale_results_exactly(power: int, rho_scale: Any, projection: Any) -> None:
    H, W = problem(3, 12, 5)
    chosen, c = settings_for(rho_scale=rho_scale, projection=projection, refit_alpha=True), 2.0**power
    one = solve(H, W, powers_of_two(5), chosen)
    weights, hessian = solve(H, c * W, powers_of_two(5), chosen), solve(c * H, W, powers_of_two(5), chosen)
    assert np.array_equal(one.codes, weights.codes) and np.array_equal(one.codes, hessian.codes)
    assert float(weights.alpha) == c * float(one.alpha) and float(hessian.alpha) == float(one.alpha)
    assert weights.objective == c * c * one.objective and hessian.objective == c * one.objective
    assert hessian.rho == c * one.rho


def test_no_fixed_point_with_a_fixed_scale() -> None:
    H, W = np.ones((1, 1, 1)), np.full((1, 1, 1), 0.4)
    chosen = settings_for(rho=0.1, rho_scale="absolute", returned="last")
    course = [solve(H, W, fixed([-1, 0, 1]), replace(chosen, iterations=k)) for k in range(1, 81)]
    assert {float(solution.G[0, 0, 0]) for solution in course[40:]} == {0.0, 1.0}
    assert not any(solution.converged for solution in course[40:])
    # G dithers about W: the error feedback of sigma-delta modulation.
    assert np.mean([solution.G for solution in course]) == pytest.approx(0.4, abs=0.03)
    assert course[-1].guarantee == "none" and not course[-1].certified


def test_no_fixed_point_with_a_free_scale() -> None:
    H, W = np.eye(2)[None], np.array([[[1.0], [2.0]]])
    chosen = settings_for(rho=0.5, rho_scale="absolute", projection="exact", iterations=400, returned="last")
    solution = solve(H, W, TERNARY, chosen)
    assert not solution.converged and solution.guarantee == "none"
    late = solution.trace.objective[-50:]
    assert late.min() >= 0.25 - 1e-12 and late.max() <= 0.55 and np.ptp(late) > 0.01
    large = solve(H, W, TERNARY, replace(chosen, rho=1.5))
    assert large.converged and large.G.ravel() == pytest.approx([1.5, 1.5], rel=1e-8)
    assert large.objective == pytest.approx(0.25, rel=1e-8)


def test_the_alternation_can_spoil_what_the_exact_projection_solves() -> None:
    H, W = np.eye(4)[None], np.array([[[4.0], [1.0], [1.0], [1.0]]])
    chosen = settings_for(rho=1.2, rho_scale="absolute", warm_start=False, iterations=500)
    exact = solve(H, W, TERNARY, replace(chosen, projection="exact", returned="last"))
    assert exact.G.ravel() == pytest.approx([4.0, 0.0, 0.0, 0.0]) and exact.objective == pytest.approx(1.5)
    alternating = solve(H, W, TERNARY, replace(chosen, returned="last"))
    assert alternating.objective == pytest.approx(3.375)
    assert exact.guarantee == "convergence" and alternating.guarantee == "none"
    assert solve(H, W, TERNARY, replace(chosen, warm_start=True)).guarantee == "descent"


def test_guarantees_need_a_certificate() -> None:
    H, W = problem(5)
    for factor, expected in ((0.999, "none"), (1.0, "none"), (1.001, "convergence")):
        chosen = settings_for(rho=factor, rho_scale="lambda_max", projection="exact")
        assert solve(H, W, TERNARY, chosen).guarantee == expected
    singular = H.copy()
    singular[0, 0, :] = singular[0, :, 0] = 0.0
    chosen = settings_for(rho=1.01, rho_scale="lambda_max", projection="exact")
    assert solve(singular, W, TERNARY, chosen).guarantee == "descent"
    assert solve(singular, W, fixed([-1, 0, 1]), chosen).guarantee == "convergence"
    assert solve(H, W, TERNARY, replace(chosen, projection="alternating", ties="zero")).guarantee == "none"


@given(seed=SEEDS, per_channel=st.booleans(), groups=st.integers(1, 2), codebook=st.sampled_from(SETS))
@settings(deadline=None, max_examples=40)
def test_results_are_consistent(seed: int, per_channel: bool, groups: int, codebook: Codebook) -> None:
    H, W = problem(seed, 5, 3, groups=groups)
    solution = solve(H, W, codebook, settings_for(per_channel=per_channel, iterations=20))
    shape = (groups, 3) if per_channel else ()
    trace = solution.trace
    assert solution.alpha.shape == shape and trace.alpha.shape == (21, *shape)
    assert [len(a) for a in (trace.objective, trace.passes, trace.primal, trace.dual)] == [21, 21, 20, 20]
    assert solution.codes.shape == W.shape and solution.codes.dtype == np.int8
    assert solution.codes.flags.c_contiguous
    assert solution.objective == pytest.approx(layer_error(H, W, solution.G), rel=1e-12)
    assert solution.objective == trace.objective.min() == trace.objective[solution.best_iteration]
    last = solve(H, W, codebook, settings_for(per_channel=per_channel, iterations=20, returned="last"))
    assert last.objective == trace.objective[-1] >= solution.objective
    if codebook.kind == "scaled":
        refit = solve(H, W, codebook, settings_for(per_channel=per_channel, iterations=20, refit_alpha=True))
        assert refit.objective <= solution.objective * (1 + 1e-12)
        assert np.array_equal(refit.codes, solution.codes)


def test_channels_are_solved_each_by_itself() -> None:
    H, W = problem(6, 6, 3, groups=2)
    chosen = settings_for(per_channel=True, returned="last", iterations=30, rho=0.3, rho_scale="absolute")
    together = solve(H, W, powers_of_two(5), chosen)
    for g in range(2):
        for m in range(3):
            alone = solve(H[g : g + 1], W[g : g + 1, :, m : m + 1].copy(), powers_of_two(5), chosen)
            assert np.array_equal(together.codes[g, :, m], alone.codes[0, :, 0])
            assert together.alpha[g, m] == pytest.approx(float(alone.alpha[0, 0]), rel=1e-12)


def test_equal_groups_are_one_group_with_more_columns() -> None:
    H, W = problem(7, 6, 4)
    split = np.ascontiguousarray(W.reshape(1, 6, 2, 2).transpose(2, 1, 0, 3).reshape(2, 6, 2))
    one, two = solve(H, W, TERNARY), solve(np.repeat(H, 2, axis=0), split, TERNARY)
    assert np.array_equal(one.codes[0], np.concatenate([two.codes[0], two.codes[1]], axis=1))
    assert float(one.alpha) == pytest.approx(float(two.alpha), rel=1e-12)


@given(seed=SEEDS)
@settings(deadline=None, max_examples=20)
def test_the_order_of_the_inputs_does_not_matter(seed: int) -> None:
    H, W = problem(seed, 7, 3)
    order = np.random.default_rng(seed).permutation(7)
    chosen = settings_for(iterations=20, rho=1.2, rho_scale="lambda_max", projection="exact")
    one = solve(H, W, TERNARY, chosen)
    other = solve(np.ascontiguousarray(H[:, order][:, :, order]), W[:, order].copy(), TERNARY, chosen)
    assert one.objective == pytest.approx(other.objective, rel=1e-9)
    assert np.array_equal(one.codes[:, order], other.codes)


def released(H: np.ndarray, W: np.ndarray) -> tuple[np.ndarray, int]:
    """The released code's solver for 3 levels, re-expressed."""

    def quantize(V: np.ndarray, alpha: float) -> np.ndarray:
        return 1.0 * (V > alpha / 2) - 1.0 * (V < -alpha / 2)

    start = np.abs(W).sum() / W.size
    G, dual, rho = start * quantize(W, start), np.zeros_like(W), H[0, 0]
    best, least, rises, iterations = G, np.trace((G - W).T @ H @ (G - W)), 0, 0
    for _ in range(100):
        iterations += 1
        theta = np.linalg.solve(H + rho * np.eye(len(H)), H @ W + rho * (G - dual))
        V = theta + dual
        alpha = last = start
        G = alpha * quantize(V, alpha)
        nearest = ((V - G) ** 2).sum()
        for _ in range(10):
            Q = quantize(V, alpha)
            if not Q.any():
                break
            alpha = (V * Q).sum() / (Q * Q).sum()
            if ((V - alpha * Q) ** 2).sum() < nearest:
                nearest, G = ((V - alpha * Q) ** 2).sum(), alpha * Q
            if abs(last - alpha) < 1e-3:
                break
            last = alpha
        dual = dual + theta - G
        error = np.trace((G - W).T @ H @ (G - W))
        if error < least and abs(least - error) > 1e-3:
            best, least, rises = G, error, 0
        else:
            rises += 1
        if rises >= 3:
            break
    return best, iterations


@given(seed=SEEDS)
@settings(deadline=None, max_examples=30)
def test_the_released_profile(seed: int) -> None:
    H, W = problem(seed, 8, 4)
    solution = solve(H, W, TERNARY, AdmmSettings.profile("released-2019"))
    best, iterations = released(H[0], W[0])
    assert solution.iterations == iterations and solution.rho == H[0, 0, 0]
    if not np.abs(solution.G[0] - best).max() <= 1e-9:
        raise AssertionError("another G than the released code's")


def test_the_released_stop_is_not_scale_invariant() -> None:
    H, W = problem(8, 20, 10)
    chosen = AdmmSettings.profile("released-2019")
    assert solve(H, W, TERNARY, chosen).best_iteration > 0
    small = solve(H, 0.01 * W, TERNARY, chosen)
    assert small.best_iteration == 0 and small.iterations == 3  # direct quantization, unchanged
    assert solve(H, 0.01 * W, TERNARY).best_iteration > 0


def test_a_dead_first_input() -> None:
    H, W = problem(9, 6, 3)
    H[0, 0, :] = H[0, :, 0] = 0.0
    assert solve(H, W, TERNARY).objective < solve(H, W, TERNARY, settings_for(iterations=0)).objective
    with pytest.raises(ValueError, match="`rho` must come out greater than 0, got 0"):
        solve(H, W, TERNARY, settings_for(rho_scale="h00"))
    solution = solve(H, W, TERNARY, AdmmSettings.profile("released-2019"))
    assert solution.rho == 0.0 and "rho is 0" in solution.notes
    assert any("least squares" in note for note in solution.notes)
    assert np.isfinite(solution.objective) and solution.guarantee == "none"


def test_least_squares_is_numpys() -> None:
    H, W = problem(10, 5, 2)
    H[0, 0, :] = H[0, :, 0] = 0.0
    run = _Run(H, W, TERNARY, AdmmSettings.profile("released-2019"))
    theta = run.proximal(run.W, np.zeros_like(run.W))[0].T
    assert np.allclose(theta, np.linalg.lstsq(H[0], H[0] @ W[0], rcond=None)[0], atol=1e-12)


def test_a_matrix_that_is_not_positive_semidefinite_is_refused() -> None:
    H = np.array([[[1.0, 3.0], [3.0, 1.0]]])
    with pytest.raises(np.linalg.LinAlgError):
        solve(H, np.ones((1, 2, 1)), TERNARY, settings_for(rho=0.1))


def test_rank_deficient_hessians_are_no_problem() -> None:
    X = np.random.default_rng(11).standard_normal((3, 10))
    H, W = (2 / 3 * X.T @ X)[None], np.random.default_rng(12).standard_normal((1, 10, 4))
    solution = solve(H, W, TERNARY)
    E = float(((X @ (solution.G[0] - W[0])) ** 2).sum()) / 3
    assert solution.objective == pytest.approx(E, rel=1e-10)
    assert solution.objective <= solution.trace.objective[0]


@pytest.mark.parametrize(
    ("codebook", "profile"),
    [
        *((codebook, "paper") for codebook in (TERNARY, powers_of_two(7), scaled([-1, 1]), free(3))),
        *((codebook, "released-2019") for codebook in (TERNARY, powers_of_two(7))),
    ],
)
def test_an_all_zero_layer(codebook: Codebook, profile: Any) -> None:
    H, _ = problem(13, 4, 2)
    solution = solve(H, np.zeros((1, 4, 2)), codebook, AdmmSettings.profile(profile))
    assert not solution.G.any() and solution.objective == 0.0
    if codebook.kind == "scaled":
        assert float(solution.alpha) == 0.0 and (solution.codes == codebook.least_code).all()
    assert solution.converged


def test_a_zero_column_with_a_scale_of_its_own() -> None:
    H, W = problem(14, 5, 3)
    W[0, :, 1] = 0.0
    solution = solve(H, W, TERNARY, settings_for(per_channel=True))
    assert (
        solution.alpha[0, 1] == 0.0
        and not solution.G[0, :, 1].any()
        and (solution.alpha[0, [0, 2]] > 0).all()
    )


@pytest.mark.parametrize("scale", ["mean_diagonal", "lambda_max", "h00", "absolute"])
def test_a_zero_hessian_returns_the_start(scale: Any) -> None:
    _, W = problem(15, 4, 2)
    solution = solve(np.zeros((1, 4, 4)), W, TERNARY, settings_for(rho_scale=scale))
    assert solution.objective == 0.0 and solution.iterations == 0 and solution.converged
    assert np.array_equal(solution.codes, project(W, TERNARY).codes)
    assert any("H is 0" in note for note in solution.notes)


def test_other_sets() -> None:
    H, W = problem(16, 10, 6)
    alternating, exact = (solve(H, W, free(4), settings_for(projection=p)) for p in ("alternating", "exact"))
    for solution in (alternating, exact):
        assert len(solution.values) == 4 and float(solution.alpha) == 1.0
        assert solution.objective <= solution.trace.objective[0]
    assert set(np.unique(solve(H, W, fixed([-1, 0, 2])).G)) <= {-1.0, 0.0, 2.0}
    with pytest.raises(ValueError, match="`refit_alpha` must be False for a fixed set"):
        solve(H, W, fixed([-1, 0, 2]), settings_for(refit_alpha=True))
    with pytest.raises(ValueError, match="`per_channel` must be False for a free set"):
        solve(H, W, free(3), settings_for(per_channel=True))


def test_stopping_at_a_fixed_point() -> None:
    H, W = problem(17, 6, 2)
    chosen = settings_for(rho=1.5, rho_scale="lambda_max", iterations=2000, returned="last")
    stopped = solve(H, W, TERNARY, replace(chosen, stop="fixed_point"))
    full = solve(H, W, TERNARY, chosen)
    assert stopped.iterations < full.iterations == 2000
    assert np.array_equal(stopped.codes, full.codes)
    assert stopped.G == pytest.approx(full.G, rel=1e-6)


@pytest.mark.parametrize("rho", [0.0, -1.0, float("nan"), float("inf")])
def test_rho_must_be_positive(rho: float) -> None:
    with pytest.raises(ValueError, match="`rho` must be a finite number greater than 0"):
        AdmmSettings(rho=rho)


@pytest.mark.parametrize(
    "change",
    [
        {"rho_scale": "trace"}, {"iterations": -1}, {"projection": "nearest"}, {"cold_start": "median"},
        {"max_passes": -1}, {"alpha_tolerance": -1.0}, {"ties": "up"}, {"start": "zero"}, {"returned":
        "first"}, {"stop": "never"}, {"stop_tolerance": -1.0}, {"singular": "ignore"},
    ],
)  # fmt: skip
def test_settings_are_checked(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"`{next(iter(change))}` must"):
        AdmmSettings(**change)


def test_settings_are_values() -> None:
    assert AdmmSettings.profile("paper") == AdmmSettings()
    assert AdmmSettings.profile("released-2019") != AdmmSettings()
    with pytest.raises(FrozenInstanceError):
        AdmmSettings().rho = 2.0  # type: ignore[misc]
    with pytest.raises(ValueError, match="`name` must be one of"):
        AdmmSettings.profile("published")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("H", "W", "error"),
    [
        (np.eye(2)[None], np.full((1, 2, 1), np.nan), ValueError),
        (np.full((1, 2, 2), np.nan), np.ones((1, 2, 1)), ValueError),
        (np.array([[[1.0, 1.0], [0.0, 1.0]]]), np.ones((1, 2, 1)), ValueError),
        (np.eye(2)[None], np.ones((1, 3, 1)), ValueError),
        (np.eye(2)[None], np.ones((2, 2, 1)), ValueError),
        (np.eye(2), np.ones((2, 1)), ValueError),
        (np.eye(2, dtype=np.float32)[None], np.ones((1, 2, 1)), TypeError),
        (np.eye(2)[None], np.ones((1, 2, 1), dtype=np.int64), TypeError),
    ],
)
def test_refused_problems(H: Any, W: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        solve(H, W, TERNARY)


def test_arguments_stay_as_they_are() -> None:
    H, W = problem(18)
    before = H.copy(), W.copy()
    solve(H, W, TERNARY)
    assert np.array_equal(H, before[0]) and np.array_equal(W, before[1])


def above(projection: str = "exact") -> AdmmSettings:
    return AdmmSettings(rho=1.1, rho_scale="lambda_max", iterations=40, projection=projection)  # type: ignore[arg-type]


@pytest.mark.parametrize("projection", ["exact", "alternating"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_the_lyapunov_function_of_a_certified_run_falls(projection: str, per_channel: bool) -> None:
    rng = np.random.default_rng(5)
    X, W = rng.standard_normal((2, 30, 6)), rng.standard_normal((2, 6, 3))
    H = 2 / 30 * X.transpose(0, 2, 1) @ X
    solution = solve(H, W, powers_of_two(5), replace(above(projection), per_channel=per_channel))
    values = solution.trace.lyapunov
    assert len(values) == solution.iterations and solution.guarantee in ("descent", "convergence")
    assert (np.diff(values) <= 1e-12 * values[0]).all()
    assert (solution.trace.objective[1:-1] <= values[1:] * (1 + 1e-12)).all()
    assert solve(H, W, powers_of_two(5)).trace.lyapunov.size == 0  # the profile's ρ is below λ_max


def test_a_run_that_contradicts_the_theorem_loses_its_guarantee(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    X, W = rng.standard_normal((1, 30, 6)), rng.standard_normal((1, 6, 3))
    H = 2 / 30 * X.transpose(0, 2, 1) @ X
    right = _Run.proximal

    def wrong(self: Any, G: Any, lam: Any) -> Any:
        return right(self, G, -lam)

    monkeypatch.setattr(_Run, "proximal", wrong)
    solution = solve(H, W, powers_of_two(3), above())
    assert solution.guarantee == "none" and any("Lyapunov" in note for note in solution.notes)


# Trajectories ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("projection", ["alternating", "exact"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_a_trajectory_obeys_the_steps(projection: Any, per_channel: bool) -> None:
    H, W = problem(3, groups=2)
    G0, lam0 = 0.5 * W, 0.1 * W[:, ::-1]
    chosen = settings_for(
        rho=1.5, rho_scale="absolute", iterations=5, projection=projection, per_channel=per_channel
    )
    found = trajectory(H, W, powers_of_two(5), chosen, G0=G0, lam0=lam0)
    G, lam = G0, lam0
    for k in range(5):
        left = H @ found.theta[k] + 1.5 * found.theta[k]
        assert np.abs(left - (H @ W + 1.5 * (G - lam))).max() <= 1e-12  # [LDNQ] (15)
        assert np.abs(found.V[k] - found.theta[k] - lam).max() <= 1e-14
        alpha = found.alpha[k][:, None, :] if per_channel else found.alpha[k]
        G, lam = alpha * powers_of_two(5).values[found.codes[k]], found.lam[k]
        assert np.array_equal(G, found.G[k])
        assert np.abs(lam - (found.V[k] - G)).max() <= 1e-14  # [LDNQ] (18)
        f = 0.5 * np.vdot(G - W, H @ (G - W))  # [LDNQ] (10)
        assert found.objective[k + 1] == pytest.approx(f, rel=1e-12)
    assert found.objective[0] == pytest.approx(0.5 * np.vdot(G0 - W, H @ (G0 - W)), rel=1e-12)


def test_a_trajectory_from_the_solvers_start_is_the_solvers_run() -> None:
    H, W = problem(5)
    chosen = settings_for(iterations=20, returned="last")
    start = project(W, TERNARY)
    found = trajectory(H, W, TERNARY, chosen, G0=start.G, lam0=0 * W, alpha0=np.array([start.alpha]))
    solution = solve(H, W, TERNARY, chosen)
    assert np.array_equal(found.codes[-1], solution.codes) and found.alpha[-1] == solution.alpha
    np.testing.assert_allclose(found.objective, solution.trace.objective, rtol=1e-12)
    wrong = trajectory(H, W, TERNARY, chosen, G0=0 * W, lam0=0 * W)
    assert not np.allclose(wrong.objective, solution.trace.objective, rtol=1e-12, atol=0)


def check_objectives(H: np.ndarray, W: np.ndarray, codebook: Codebook) -> None:
    """The same result as with all objectives computed by their definition."""
    chosen = settings_for(rho=1.1, rho_scale="lambda_max", iterations=60, stop="ascend3", stop_tolerance=0.0)
    for how in (chosen, replace(chosen, stop="none")):
        found = solve(H, W, codebook, how)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(running_error, "CANCELLED", np.inf)
            direct = solve(H, W, codebook, how)
        if found.iterations != direct.iterations or not np.allclose(
            found.trace.objective, direct.trace.objective, rtol=1e-11, atol=0
        ):
            raise AssertionError("the trace is not the objectives")
        if (found.best_iteration, found.objective) != (direct.best_iteration, direct.objective):
            raise AssertionError("another iteration is the best")
        assert found.objective == found.trace.objective.min()


def nearly_nothing(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features in nearly equal pairs with opposite weights: H almost does not see W."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((40, 5))
    X = np.concatenate([X, X + 1e-7 * rng.standard_normal(X.shape)], axis=1)
    W = rng.integers(-1, 2, (5, 3)) + 1e-3 * rng.standard_normal((5, 3))
    return (2 * X.T @ X)[None], np.concatenate([W, -W])[None]


def test_the_running_error_decides_nothing() -> None:
    for seed in range(40):
        for codebook in (TERNARY, fixed([-1, 0, 2])):
            check_objectives(*problem(seed, 8, 4), codebook)
            check_objectives(*nearly_nothing(seed), codebook)


@pytest.mark.parametrize(
    ("module", "name", "message"),
    [(admm, "TIE", "the trace|another"), (running_error, "CANCELLED", "the trace")],
)
def test_rounding_that_decides_is_seen(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, message: str
) -> None:
    monkeypatch.setattr(module, name, -1.0)
    with pytest.raises(AssertionError, match=message):
        test_the_running_error_decides_nothing()


@pytest.mark.parametrize("planted", [False, True])
def test_a_run_that_stands_still_computes_few_objectives(
    planted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    direct = RunningError.direct

    def counted(self: RunningError, G: np.ndarray) -> float:
        calls.append(1)
        return direct(self, G)

    if planted:
        monkeypatch.setattr(admm, "_same", lambda one, other: False)
    H, W = problem(1, 8, 4)
    monkeypatch.setattr(RunningError, "direct", counted)
    chosen = settings_for(rho=1.1, rho_scale="lambda_max", iterations=200)
    solution = solve(H, W, fixed([-1, 0, 2]), chosen)
    assert solution.converged and solution.best_iteration < 50
    assert (len(calls) < 60) is not planted


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("singular", [False, True])
def test_threads_share_an_iteration(
    groups: int, per_channel: bool, singular: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    H, W = problem(3, 8, 5, groups=groups)
    chosen = settings_for(per_channel=per_channel, iterations=12)
    if singular:  # ρ = H[0, 0] = 0
        H[0, 0] = H[0, :, 0] = 0
        chosen = replace(chosen, rho_scale="h00", singular="lstsq")
    monkeypatch.setattr(threads, "thread_count", lambda: 1)
    alone = solve(H, W, TERNARY, chosen)
    monkeypatch.setattr(threads, "thread_count", lambda: 4)
    monkeypatch.setattr(threads, "STREAM", 1)
    monkeypatch.setattr(admm, "SOLVE", 1)
    split: set[str] = set()
    if sys.platform == "linux":
        from refldnq._kernels.handover import Helpers

        run = Helpers.run

        def noted(self: Helpers, kernel: Any, *rest: Any) -> None:
            split.add(kernel.__name__)
            run(self, kernel, *rest)

        monkeypatch.setattr(Helpers, "run", noted)
    shared = solve(H, W, TERNARY, chosen)
    assert np.array_equal(shared.codes, alone.codes)
    assert shared.best_iteration == alone.best_iteration
    for ours, other in ((shared.alpha, alone.alpha), (shared.trace.objective, alone.trace.objective)):
        assert np.allclose(ours, other, rtol=1e-11, atol=1e-13)
    assert np.allclose(shared.trace.primal, alone.trace.primal, rtol=1e-9, atol=1e-12)
    if sys.platform == "linux":
        assert {"cho_solve", "right_side", "dual", "errors"} <= split


def test_a_trajectory_refuses_what_it_cannot_run() -> None:
    H, W = problem(5)
    chosen = settings_for(iterations=2)
    with pytest.raises(ValueError, match="`G0` must have shape"):
        trajectory(H, W, TERNARY, chosen, G0=W[:, :2], lam0=0 * W)
    with pytest.raises(ValueError, match="`lam0`"):
        trajectory(H, W, TERNARY, chosen, G0=W, lam0=W * np.nan)
    with pytest.raises(ValueError, match="`H` must not be 0"):
        trajectory(0 * H, W, TERNARY, settings_for(rho_scale="absolute"), G0=W, lam0=0 * W)
    none = trajectory(H, W, TERNARY, settings_for(iterations=0), G0=W, lam0=0 * W)
    assert none.theta.shape == (0, *W.shape) and none.objective.shape == (1,)


@pytest.mark.parametrize("size", [1e-309, 1e-307, 1.0, 1e307])
def test_hessians_at_the_ends_of_the_range(size: float) -> None:
    x = np.random.default_rng(0).standard_normal((50, 4)) / 10
    H, W = (x.T @ x)[None], np.random.default_rng(1).standard_normal((1, 4, 2))
    result = solve(size * H, W, TERNARY)
    assert np.array_equal(result.codes, solve(H, W, TERNARY).codes)
    assert float(result.alpha) == pytest.approx(float(solve(H, W, TERNARY).alpha), rel=1e-4)
