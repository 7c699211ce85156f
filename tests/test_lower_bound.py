"""Lower bounds of (10): never above the optimum, proved in fractions on a part; planted bugs are seen."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refldnq.codebook import Codebook, fixed, free, powers_of_two, scaled
from refldnq.projection import project
from refldnq.solvers import lower_bound as module
from refldnq.solvers.admm import AdmmSettings
from refldnq.solvers.admm import solve as admm
from refldnq.solvers.exact import ExactSettings
from refldnq.solvers.exact import solve as exact
from refldnq.solvers.lower_bound import BoundSettings, LowerBound, certified_split, gap, lower_bound
from refldnq.verify.exact_bounds import (
    examine,
    fixed_cost,
    fractions,
    free_cost,
    optimum,
    positive_semidefinite,
    scaled_cost,
    split_bound,
)
from refldnq.verify.naive.projection import brute_force, brute_force_free

SETS: tuple[Codebook, ...] = (
    powers_of_two(3),
    powers_of_two(5),
    scaled([-1, 1]),
    scaled([0, 1, 2]),
    scaled([-0.5, 1, 3]),
    fixed([-0.5, 0.25, 1]),
)

SHAPES = ((1, 1, 3), (1, 2, 2), (1, 3, 1), (1, 3, 2), (1, 4, 2), (2, 2, 2), (3, 1, 2))


def problem(seed: int, g: int, d: int, m: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((g, int(rng.integers(d, 3 * d + 2)), d)) * np.logspace(0, -rng.uniform(0, 2), d)
    return np.einsum("gni,gnj->gij", X, X), rng.standard_normal((g, d, m))


def test_no_bound_exceeds_the_optimum() -> None:
    """1,008 instances against the exact search, whose own slack is 1e-11 of ½ tr WᵀHW."""
    certificates = 0
    for seed in range(504):
        codebook, shape = SETS[seed % len(SETS)], SHAPES[seed % len(SHAPES)]
        H, W = problem(seed, *shape)
        for per_channel in (False, True):
            bound = lower_bound(H, W, codebook, BoundSettings(per_channel=per_channel))
            best = exact(H, W, codebook, ExactSettings(per_channel=per_channel))
            assert best.guarantee == "optimal"
            for method, value in {**bound.bounds, "best": bound.value}.items():
                if not value <= best.objective:
                    raise AssertionError(f"{method} {value} exceeds {best.objective}, seed {seed}")
            certificates += bound.value > 0
    assert certificates > 850  # the others have the optimum 0


def small(seed: int) -> tuple[Any, Any, Codebook, bool]:
    """An instance of dyadic numbers with few bits: all of it can be decided in fractions."""
    rng = np.random.default_rng(seed)
    g, d, m = ((1, 2, 1), (1, 3, 1), (1, 2, 2), (2, 1, 2), (1, 4, 1))[seed % 5]
    X = rng.integers(-4, 5, (g, d + 1, d)) / 2.0
    W = rng.integers(-16, 17, (g, d, m)) / 8.0
    codebook = SETS[int(rng.integers(len(SETS)))]
    if codebook.levels**W.size > 300:
        codebook = powers_of_two(3)
    return np.einsum("gni,gnj->gij", X, X), W, codebook, bool(rng.integers(2))


def check(bound: LowerBound, H: Any, W: Any, codebook: Codebook, per_channel: bool) -> None:
    """The number is proved by its own diagonal, and that is proved not to exceed the optimum."""
    verdict = examine(H, W, codebook, bound, per_channel=per_channel)
    if not verdict.proved:
        raise AssertionError(f"{bound.value} is not proved by its diagonal, which gives {verdict.exact}")
    truth = optimum(H, W, codebook, per_channel=per_channel)
    if not Fraction(bound.value) <= truth or not verdict.exact <= truth:
        raise AssertionError(f"{bound.value} exceeds the optimum {float(truth)}")


def check_all(count: int) -> int:
    certificates = 0
    for seed in range(count):
        H, W, codebook, per_channel = small(seed)
        bound = lower_bound(H, W, codebook, BoundSettings(per_channel=per_channel))
        check(bound, H, W, codebook, per_channel)
        certificates += bound.value > 0
    return certificates


def test_proofs_in_fractions() -> None:
    assert check_all(1200) >= 1000


def test_a_free_set() -> None:
    for seed in range(60):
        H, W = problem(seed, 1, 3, 2)
        bound = lower_bound(H, W, free(2))
        assert examine(H, W, free(2), bound).proved
        truth = free_optimum(H[0], W[0], 2)
        if not bound.value <= truth * (1 + 1e-9):
            raise AssertionError(f"{bound.value} exceeds {truth}")
        assert bound.value > 0.0


def free_optimum(H: Any, W: Any, levels: int) -> float:
    """All assignments of entries to values tried, the values of each by least squares."""
    big, best = np.kron(H, np.eye(W.shape[1])), np.inf
    for codes in product(range(levels), repeat=W.size):
        Z = np.eye(levels)[list(codes)]
        values = np.linalg.lstsq(Z.T @ big @ Z, Z.T @ big @ W.ravel(), rcond=None)[0]
        rest = Z @ values - W.ravel()
        best = min(best, 0.5 * float(rest @ big @ rest))
    return best


@pytest.mark.parametrize("per_channel", [False, True])
def test_a_column_of_three_times_the_weight_counts_like_three(per_channel: bool) -> None:
    certificates = 0
    for seed in range(60):
        H, W = problem(seed, *((1, 3, 2), (2, 2, 2))[seed % 2])
        counts = np.random.default_rng(seed).permutation([1, 3])
        repeated = np.repeat(W, counts, axis=2)
        weights = np.tile(counts.astype(float), (len(W), 1))
        how = BoundSettings(per_channel=per_channel)
        for codebook in (*SETS, *(() if per_channel else (free(2),))):
            one = lower_bound(H, W, codebook, how, column_weights=weights)
            other = lower_bound(H, repeated, codebook, how)
            rel = 1e-2 if codebook.kind == "free" else 1e-9  # that is on a grid
            for method in ("eigenvalue", "jacobi"):
                assert one.bounds[method] == pytest.approx(other.bounds[method], rel=rel, abs=1e-9)
            assert one.value == pytest.approx(other.value, rel=0.03, abs=1e-9)  # `accuracy` of each search
            if codebook.kind == "free":
                continue
            best = exact(H, repeated, codebook, ExactSettings(per_channel=per_channel))
            if not one.value <= best.objective:
                raise AssertionError(f"{one.value} exceeds {best.objective}, seed {seed}")
            alike = lower_bound(H, W, codebook, how).value
            certificates += one.value > 1.05 * alike > 0  # weights are not forgotten
    assert certificates > 50


def test_a_diagonal_hessian_is_solved() -> None:
    rng = np.random.default_rng(0)
    h, W = rng.uniform(0.01, 10, 30), rng.standard_normal((1, 30, 8))
    for codebook in (powers_of_two(3), fixed([-1, 0, 0.5]), free(3)):
        weights = np.ascontiguousarray(np.broadcast_to(h[None, :, None], W.shape))
        truth = 0.5 * project(W, codebook, method="exact", weights=weights).residual
        assert lower_bound(np.diag(h)[None], W, codebook).value == pytest.approx(truth, rel=1e-5)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_the_methods_are_ordered(seed: int) -> None:
    H, W = problem(seed, 1, 12, 6)
    bound = lower_bound(H, W, powers_of_two(3))
    assert bound.bounds["split"] >= bound.bounds["jacobi"] * 0.999
    assert bound.value == max(bound.bounds.values())
    for less in (BoundSettings(steps=0), BoundSettings(rows=11)):
        quick = lower_bound(H, W, powers_of_two(3), less)
        assert quick.value <= bound.value and set(quick.bounds) == {"eigenvalue", "jacobi"}
    ratio = gap(admm(H, W, powers_of_two(3), AdmmSettings(rho=0.1)).objective, bound.value)
    assert 0 <= ratio < float("inf")


def test_the_diagonal_is_nearly_the_best() -> None:
    """d = 2, where the constraint is D₁D₂ ≤ ... : a fine grid of all feasible D does not beat it by 2 %."""
    for seed in range(10):
        H, W = problem(seed, 1, 2, 5)
        found = lower_bound(H, W, powers_of_two(3)).value
        (a, c), (_, b) = H[0]
        best = 0.0
        for x in np.linspace(0, a - c * c / b, 300):
            D = np.array([[x, max(b - c * c / (a - x), 0.0)]])
            weights = np.ascontiguousarray(np.broadcast_to(D[:, :, None], W.shape))
            best = max(best, 0.5 * project(W, powers_of_two(3), method="exact", weights=weights).residual)
        if not found >= 0.98 * best:
            raise AssertionError(f"seed {seed}: {found} against {best}")


def test_rank_deficient_and_dead() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((5, 8))
    W = rng.standard_normal((1, 8, 3))
    bound = lower_bound((X.T @ X)[None], W, powers_of_two(3))
    assert (bound.value, bound.method) == (0.0, "none") and not bound.diagonal.any()
    assert np.isnan(gap(1.0, bound.value))
    X = rng.standard_normal((40, 8))
    X[:, [2, 5]] = 0.0  # inputs that no image excites do not spoil it
    bound = lower_bound((X.T @ X)[None], W, powers_of_two(3))
    assert bound.value > 0 and not bound.diagonal[0, [2, 5]].any()
    assert lower_bound(np.zeros((1, 8, 8)), W, powers_of_two(3)).method == "none"


def test_an_objective_of_zero_is_optimal() -> None:
    W = np.array([[[1.0], [-1.0], [0.0]]])
    bound = lower_bound(np.eye(3)[None], W, powers_of_two(3))
    assert bound.value == 0.0 and gap(0.0, bound.value) == 0.0


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones((1, 3)), r"`column_weights` must have shape \(1, 2\)"),
        (np.array([[1.0, 0.0]]), "`column_weights` must be greater than 0"),
        (np.array([[1.0, np.nan]]), "`column_weights` must"),
    ],
)
def test_weights_that_are_none_are_refused(weights: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lower_bound(np.eye(3)[None], np.ones((1, 3, 2)), powers_of_two(3), column_weights=weights)


def test_refusals() -> None:
    H, W = problem(0, 1, 2, 1)
    with pytest.raises(ValueError, match="`per_channel` must be False for a free set"):
        lower_bound(H, W, free(2), BoundSettings(per_channel=True))
    with pytest.raises(ValueError, match="`steps` must be an integer of at least 0"):
        BoundSettings(steps=-1)
    with pytest.raises(TypeError, match="`settings` must be BoundSettings"):
        lower_bound(H, W, powers_of_two(3), AdmmSettings())  # type: ignore[arg-type]


# ------------------------------------------------------------------ certificates


@given(st.integers(0, 2**32 - 1), st.floats(-14, -2))
def test_a_certified_split_is_one(seed: int, exponent: float) -> None:
    """Near the boundary, where rounding decides, True is always right; in exact arithmetic."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((5, 4)) * 10.0 ** rng.uniform(-3, 3, 4)
    H = X.T @ X
    H = 0.5 * (H + H.T)
    least = np.linalg.eigvalsh(H)[0]
    for sign in (-1, 1):
        D = np.full(4, max(least * (1 + sign * 10.0**exponent), 0.0))
        if certified_split(H, D):
            rest = fractions(H)
            rest[np.diag_indices(4)] -= fractions(D)
            assert positive_semidefinite(rest)


def test_certificates_are_given_and_refused() -> None:
    H = np.array([[2.0, 1.0], [1.0, 2.0]])
    assert certified_split(H, np.array([0.999999, 0.999999]))
    assert not certified_split(H, np.array([1.0, 1.0 + 1e-9]))
    assert not certified_split(H, np.array([-1.0, 0.5]))
    assert not certified_split(np.diag([1.0, 0.0]), np.array([0.5, 0.1]))
    assert certified_split(np.diag([1.0, 0.0]), np.array([0.5, 0.0]))
    assert certified_split(np.zeros((2, 2)), np.zeros(2))


def test_exact_arithmetic_agrees_with_everything_tried() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        v = [Fraction(int(k), 4) for k in rng.integers(-9, 10, 4)]
        w = [Fraction(int(k), 2) for k in rng.integers(0, 7, 4)]
        for values in ([-1, 0, 1], [-2, -1, 0, 1, 2], [-1, 1], [1, 2], [-1, 2, 5]):
            assert scaled_cost(v, w, [Fraction(c) for c in values]) == brute_force(v, values, w)[2]
        ones = [Fraction(1)] * 4
        assert free_cost(v, ones, 2) == brute_force_free(v, 2)
        assert fixed_cost(v, w, [Fraction(c) for c in (-1, 2)]) == sum(
            weight * min((x + 1) ** 2, (x - 2) ** 2) for weight, x in zip(w, v, strict=True)
        )


def test_a_singular_matrix_is_decided() -> None:
    A = fractions(np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))
    assert positive_semidefinite(A)
    A[2, 0] = A[0, 2] = Fraction(1, 10**30)
    assert not positive_semidefinite(A)


# ------------------------------------------------------------------ the checks see planted bugs


def test_a_diagonal_too_large_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "certified_split", lambda block, D: True)
    jacobi = module._Problem.jacobi
    monkeypatch.setattr(module._Problem, "jacobi", lambda problem: 1.2 * jacobi(problem))
    with pytest.raises(AssertionError, match="is not proved by its diagonal"):
        check_all(100)


def test_forgotten_weights_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def unweighted(*arguments: Any, weights: Any, **options: Any) -> Any:
        found = project(*arguments, **options)
        return replace(found, residual=float(weights.max()) * found.residual)

    monkeypatch.setattr(module, "project", unweighted)
    with pytest.raises(AssertionError):
        check_all(100)


def test_the_alternation_in_place_of_the_optimum_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def local(*arguments: Any, method: str, **options: Any) -> Any:
        return project(*arguments, method="alternating", **options)

    monkeypatch.setattr(module, "project", local)
    with pytest.raises(AssertionError):
        check_all(300)


def test_a_forgotten_half_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    cost = module._Problem.cost

    def double(problem: Any, D: Any) -> Any:
        found = cost(problem, D)
        return replace(found, value=2 * found.value)

    monkeypatch.setattr(module._Problem, "cost", double)
    with pytest.raises(AssertionError):
        check_all(50)


def test_a_bound_without_a_witness_is_refused() -> None:
    H, W, codebook, _ = small(3)
    bound = lower_bound(H, W, codebook)
    forged = replace(bound, diagonal=bound.diagonal + 10.0)
    assert not examine(H, W, codebook, replace(forged, value=1.0)).proved
    with pytest.raises(ValueError, match="`D` must lie between 0 and `H`"):
        split_bound(H, W, forged.diagonal, codebook)
