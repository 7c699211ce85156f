"""The exact optimum of (10): against all of Ω tried in fractions, and against other solvers."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refldnq.codebook import Codebook, fixed, free, powers_of_two, scaled
from refldnq.hessian import layer_error
from refldnq.projection import project
from refldnq.solvers import exact as module
from refldnq.solvers.admm import AdmmSettings
from refldnq.solvers.admm import solve as admm
from refldnq.solvers.direct import DirectSettings
from refldnq.solvers.direct import solve as direct
from refldnq.solvers.exact import SLACK, ExactSettings, solve
from refldnq.verify.exact_bounds import optimum

SETS: dict[str, Codebook] = {
    "3 levels": powers_of_two(3),
    "5 levels": powers_of_two(5),
    "no zero": scaled([-1, 1]),
    "positive": scaled([1, 2]),
    "one-sided": scaled([0, 1, 2]),
    "lopsided": scaled([-0.5, 1, 3]),
    "fixed": fixed([-0.5, 0.25, 1]),
}


def problem(seed: int, d: int, m: int, *, rank: int | None = None, groups: int = 1) -> tuple[Any, Any]:
    """A problem of dyadic numbers with few bits, so that fractions stay short."""
    rng = np.random.default_rng(seed)
    X = rng.integers(-4, 5, (groups, d + 1 if rank is None else rank, d)) / 2.0
    return np.einsum("gni,gnj->gij", X, X), rng.integers(-16, 17, (groups, d, m)) / 8.0


def energy(H: Any, W: Any) -> float:
    return layer_error(H, W, np.zeros_like(W))


def check(H: Any, W: Any, codebook: Codebook, *, per_channel: bool = False) -> None:
    """The result lies in Ω, is what it says, and no point of Ω is better."""
    solution = solve(H, W, codebook, ExactSettings(per_channel=per_channel))
    truth = optimum(H, W, codebook, per_channel=per_channel)
    assert solution.guarantee == "optimal" and solution.converged and solution.notes == ()
    assert solution.alpha.shape == ((H.shape[0], W.shape[2]) if per_channel else ())
    assert (solution.alpha >= 0).all() and (codebook.kind == "scaled" or (solution.alpha == 1).all())
    if not solution.objective == layer_error(H, W, solution.G):
        raise AssertionError(f"{solution.objective} is not the objective of G")
    slack = 2 * SLACK * energy(H, W)
    if not abs(solution.objective - float(truth)) <= slack:
        raise AssertionError(f"{solution.objective} is not the optimum {float(truth)}")
    if not solution.lower_bound <= float(truth) + slack:
        raise AssertionError(f"{solution.lower_bound} exceeds the optimum {float(truth)}")


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("name", SETS)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(1, 3), (2, 2), (3, 1), (4, 1)]), st.booleans())
def test_the_optimum_is_that_of_all_points_tried(
    name: str, per_channel: bool, seed: int, shape: tuple[int, int], singular: bool
) -> None:
    d, m = shape
    if SETS[name].levels ** (d * m) > 700:
        d, m = 2, 1
    H, W = problem(seed, d, m, rank=max(1, d - 1) if singular else None)
    check(H, W, SETS[name], per_channel=per_channel)


@given(st.integers(0, 2**32 - 1))
def test_groups_share_the_scale(seed: int) -> None:
    H, W = problem(seed, 2, 1, groups=2)
    check(H, W, powers_of_two(3))
    check(H, W, powers_of_two(3), per_channel=True)


@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 5]))
def test_no_solver_is_better(seed: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((20, 6)) * np.logspace(0, -1, 6)
    H, W = (X.T @ X)[None], rng.standard_normal((1, 6, 3))
    least = solve(H, W, powers_of_two(levels)).objective
    others = [direct(H, W, powers_of_two(levels), DirectSettings(variant=v)) for v in ("mean", "exact")]
    others.append(admm(H, W, powers_of_two(levels), AdmmSettings(rho=0.1, refit_alpha=True)))
    for other in others:
        if not least <= other.objective + SLACK * energy(H, W):
            raise AssertionError(f"{other.solver} reaches {other.objective} below {least}")
    own = solve(H, W, powers_of_two(levels), ExactSettings(per_channel=True)).objective
    assert own <= least + SLACK * energy(H, W)


@given(st.integers(0, 2**32 - 1))
def test_a_diagonal_hessian_gives_the_weighted_projection(seed: int) -> None:
    rng = np.random.default_rng(seed)
    h, W = rng.uniform(0.1, 10, 7), rng.standard_normal((1, 7, 4))
    for codebook in (powers_of_two(5), scaled([-0.5, 1, 3]), fixed([-1, 0, 0.5])):
        solution = solve(np.diag(h)[None], W, codebook)
        weights = np.ascontiguousarray(np.broadcast_to(h[None, :, None], W.shape))
        found = project(W, codebook, method="exact", weights=weights)
        assert solution.objective == pytest.approx(0.5 * found.residual, rel=1e-9)
        assert np.array_equal(solution.codes, found.codes)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.25, 1.0, 3.0]))
def test_a_multiple_of_the_identity_gives_the_projection(seed: int, c: float) -> None:
    W = np.random.default_rng(seed).standard_normal((1, 8, 5))
    solution = solve(c * np.eye(8)[None], W, powers_of_two(3))
    assert np.array_equal(solution.codes, project(W, powers_of_two(3), method="exact").codes)


def test_planned_ties() -> None:
    H, W = np.eye(2)[None], np.array([[[1.0], [1.0]]])
    for codebook in (powers_of_two(3), powers_of_two(5), scaled([-1, 1])):
        assert solve(H, W, codebook).objective == 0.0
    check(np.ones((1, 2, 2)), np.array([[[0.75], [-0.25]]]), powers_of_two(3))


def test_what_h_does_not_see() -> None:
    zero = solve(np.zeros((1, 3, 3)), np.ones((1, 3, 2)), powers_of_two(3))
    assert zero.objective == 0.0 and zero.guarantee == "optimal"
    nothing = solve(np.eye(2)[None], -np.ones((1, 2, 1)), scaled([0, 1]))
    assert float(nothing.alpha) == 0.0 and nothing.objective == 1.0 and nothing.guarantee == "optimal"
    dead = solve(np.diag([1.0, 0.0])[None], np.array([[[0.5], [9.0]]]), powers_of_two(3))
    assert dead.objective == 0.0


@pytest.mark.parametrize("exponent", [-20, -25, -30, -60])
def test_inputs_of_very_different_sizes(exponent: int) -> None:
    """Rows that are small beside others decide where the large ones have nothing to quantize."""
    for seed in range(15):
        rng = np.random.default_rng(seed)
        X = rng.integers(-8, 9, (8, 4)) / 4.0 * np.array([1.0, *[2.0**exponent] * 3])
        X[:, 0] = rng.standard_normal(8)
        H, W = (X.T @ X)[None], rng.standard_normal((1, 4, 1))
        H, W[0, 0] = 0.5 * (H + H.transpose(0, 2, 1)), 0.0
        check(H, W, powers_of_two(3))


def test_no_optimum_is_claimed_where_rounding_decides() -> None:
    # Two inputs that differ by rounding, and a weight that sees their difference alone.
    claims = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        H = np.ones((1, 3, 3))
        H[0] -= 2.0**-51 * np.diag(rng.integers(-1, 1, 3).astype(float))
        w = rng.standard_normal(2)
        W = np.array([w[0], w[1], -w.sum()])[None, :, None]
        solution = solve(H, W, powers_of_two(3))
        truth = optimum(H, W, powers_of_two(3))
        right = solution.objective <= float(truth) + 2 * SLACK * energy(H, W)
        claims.append(solution.guarantee == "optimal")
        assert right or not claims[-1], (seed, solution.objective, float(truth))
        assert claims[-1] == (solution.notes == ()) and solution.lower_bound <= solution.objective
        if not claims[-1]:
            assert "rounding" in solution.notes[0] and solution.lower_bound == 0.0
    assert not all(claims)


def test_scaling_by_a_power_of_two_scales_the_result() -> None:
    H, W = problem(5, 4, 2)
    one, other = solve(H, W, powers_of_two(3)), solve(4 * H, 8 * W, powers_of_two(3))
    assert np.array_equal(one.codes, other.codes) and other.alpha == 8 * one.alpha
    assert other.objective == 4 * 64 * one.objective


def test_a_budget_ends_the_search_and_is_told() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((12, 10))
    H, W = (X.T @ X)[None], rng.standard_normal((1, 10, 4))
    full = solve(H, W, powers_of_two(3))
    cut = solve(H, W, powers_of_two(3), ExactSettings(nodes=50))
    assert cut.guarantee == "none" and "need not be optimal" in cut.notes[0]
    assert cut.lower_bound == float("-inf") and cut.objective >= full.objective
    projected = direct(H, W, powers_of_two(3), DirectSettings(variant="exact"))
    assert cut.objective <= projected.objective * (1 + 1e-12)
    assert solve(H, W, fixed([-1, 0, 1]), ExactSettings(nodes=5)).guarantee == "none"


def test_a_large_layer_is_given_up_in_time() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 100))
    solution = solve(
        (X.T @ X)[None], rng.standard_normal((1, 100, 3)), powers_of_two(3), ExactSettings(nodes=1000)
    )
    assert solution.guarantee == "none" and solution.nodes <= 1000 + 10


def test_refusals() -> None:
    H, W = problem(0, 2, 1)
    with pytest.raises(ValueError, match="`codebook` must be scaled or fixed for the exact optimum"):
        solve(H, W, free(3))
    with pytest.raises(ValueError, match="`H` must be positive semidefinite, got the eigenvalue"):
        solve(np.array([[[1.0, 2.0], [2.0, 1.0]]]), W, powers_of_two(3))
    with pytest.raises(ValueError, match="`nodes` must be an integer of at least 1"):
        ExactSettings(nodes=0)
    with pytest.raises(TypeError, match="`settings` must be ExactSettings, got AdmmSettings"):
        solve(H, W, powers_of_two(3), AdmmSettings())  # type: ignore[arg-type]


# ------------------------------------------------------------------ the checks see planted bugs


def run_all_checks() -> None:
    for seed in range(30):
        check(*problem(seed, 3, 1), powers_of_two(3))
        check(*problem(seed, 2, 2), powers_of_two(5))
        check(*problem(seed, 3, 2), scaled([-0.5, 1, 3]), per_channel=True)


def test_the_checks_pass() -> None:
    run_all_checks()


def test_a_search_that_stops_at_the_first_point_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def keep(search: Any, alpha: float, columns: Any, hints: list[Any]) -> Any:
        return hints[0].copy()

    monkeypatch.setattr(module._Search, "decode", keep)
    with pytest.raises(AssertionError):
        run_all_checks()


def test_a_wrong_factor_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    factor = module._factor

    def diagonal(block: Any) -> Any:
        R, dropped = factor(block)
        return np.diag(np.diagonal(R)), dropped

    monkeypatch.setattr(module, "_factor", diagonal)
    with pytest.raises(AssertionError):
        run_all_checks()


def test_chords_that_are_too_high_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_chord_minimum", lambda left, right: 0.0)
    with pytest.raises(AssertionError):
        run_all_checks()


def test_a_scale_that_is_not_refitted_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    take = module._Incumbent.take

    def halve(incumbent: Any, point: Any) -> None:
        take(incumbent, replace(point, A=1.01 * point.A))

    monkeypatch.setattr(module._Incumbent, "take", halve)
    with pytest.raises(AssertionError):
        run_all_checks()


def test_fractions_decide_a_case_by_hand() -> None:
    H, W = np.array([[[2.0, 1.0], [1.0, 2.0]]]), np.array([[[1.0], [0.5]]])
    # Q = (1, 1): c = 4.5, A = 6; Q = (1, 0): c = 2.5, A = 2; ½ WᵀHW = 1.75.
    assert optimum(H, W, powers_of_two(3)) == Fraction(7, 4) - Fraction(81, 4) / 12
    assert solve(H, W, powers_of_two(3)).objective == pytest.approx(0.0625, rel=1e-12)
