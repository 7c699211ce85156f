"""Direct quantization: the released DQ, the exact projection, and what it may not look at."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refldnq.codebook import fixed, free, powers_of_two
from refldnq.hessian import layer_error
from refldnq.solvers.admm import AdmmSettings
from refldnq.solvers.base import SOLVERS, get_solver
from refldnq.solvers.direct import DirectSettings, solve
from refldnq.verify.naive.hessian import objective
from refldnq.verify.naive.projection import best_scale, brute_force


def random_problem(seed: int, d: int = 4, m: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((3 * d, d)) * np.logspace(0, -1, d)
    return (2 / len(X) * X.T @ X)[None], rng.standard_normal((1, d, m))


@pytest.mark.parametrize("levels", [3, 5, 9])
def test_mean_is_the_released_rounding(levels: int) -> None:
    H, W = random_problem(0, 9, 5)
    solution = solve(H, W, powers_of_two(levels))
    alpha = np.abs(W).mean()
    distances = np.abs(W[..., None] - alpha * powers_of_two(levels).values)
    assert float(solution.alpha) == pytest.approx(alpha, rel=1e-15)
    assert np.array_equal(solution.codes, distances.argmin(axis=-1))
    assert solution.objective == layer_error(H, W, solution.G)
    assert solution.guarantee == "none" and solution.converged and np.isnan(solution.rho)


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=25)
def test_variants_are_ordered_by_distance(seed: int) -> None:
    H, W = random_problem(seed, 6, 3)
    distances = []
    for variant in ("exact", "alternating", "mean"):
        solution = solve(H, W, powers_of_two(5), DirectSettings(variant=variant))
        distances.append(float(((solution.G - W) ** 2).sum()))
    assert distances[0] <= distances[1] * (1 + 1e-12) and distances[1] <= distances[2] * (1 + 1e-12)


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=25)
def test_the_eigenvalue_sandwich(seed: int) -> None:
    H, W = random_problem(seed)
    values = np.array([-1.0, 0.0, 1.0])
    low, high = np.linalg.eigvalsh(H[0])[[0, -1]]
    _, _, distance = brute_force(W.ravel().tolist(), values.tolist())
    optimum = min(
        objective(H[0], W[0], best_scale_in(H[0], W[0], np.array(Q)) * np.array(Q)[:, None])
        for Q in np.array(np.meshgrid(*[values] * 4)).reshape(4, -1).T
    )
    f = solve(H, W, powers_of_two(3), DirectSettings(variant="exact")).objective
    chain = [0.5 * low * distance, optimum, f, 0.5 * high * distance, high / low * optimum]
    for lower, upper in pairwise(chain):
        if not lower <= upper * (1 + 1e-9) + 1e-15:
            raise AssertionError(f"{chain} do not ascend")


def best_scale_in(H: np.ndarray, W: np.ndarray, Q: np.ndarray) -> Any:
    root = np.linalg.cholesky(H).T
    return best_scale((root @ W[:, 0]).tolist(), (root @ Q).tolist())


def test_h_is_only_reported() -> None:
    H, W = random_problem(1, 5, 2)
    with_h, without = solve(H, W, powers_of_two(3)), solve(None, W, powers_of_two(3))
    assert np.array_equal(with_h.codes, without.codes) and np.isnan(without.objective)
    other = solve(7 * np.eye(5)[None], W, powers_of_two(3))
    assert np.array_equal(with_h.codes, other.codes) and other.objective != with_h.objective


def test_per_channel_has_one_scale_a_column() -> None:
    W = np.random.default_rng(2).standard_normal((2, 6, 3)).astype(np.float32)
    solution = solve(None, W, powers_of_two(3), DirectSettings(per_channel=True))
    assert solution.alpha.shape == (2, 3)
    assert np.allclose(solution.alpha, np.abs(W).mean(axis=1), rtol=1e-6)
    assert solution.G.shape == W.shape and solution.codes.flags.c_contiguous


def test_other_sets() -> None:
    W = np.random.default_rng(3).standard_normal((1, 20, 3))
    assert set(np.unique(solve(None, W, fixed([-1, 0, 2])).G)) <= {-1.0, 0.0, 2.0}
    assert len(solve(None, W, free(4), DirectSettings(variant="exact")).values) == 4
    with pytest.raises(ValueError, match="`variant` must be 'alternating' or 'exact'"):
        solve(None, W, free(4))


@pytest.mark.parametrize(
    ("H", "W", "error"),
    [
        (None, np.full((1, 2, 1), np.nan), ValueError),
        (None, np.ones((2, 1)), ValueError),
        (None, np.ones((1, 2, 1), dtype=int), TypeError),
        (np.eye(3)[None], np.ones((1, 2, 1)), ValueError),
        (np.full((1, 2, 2), np.inf), np.ones((1, 2, 1)), ValueError),
        (np.eye(2, dtype=np.float32)[None], np.ones((1, 2, 1)), TypeError),
        (np.eye(2)[None], np.ones((1, 2, 0)), ValueError),
    ],
)
def test_refusals(H: Any, W: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        solve(H, W, powers_of_two(3))


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="`variant` must be one of"):
        DirectSettings(variant="best")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="`settings` must be DirectSettings, got AdmmSettings"):
        solve(None, np.ones((1, 2, 1)), powers_of_two(3), AdmmSettings())  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_every_solver_is_found_and_keeps_the_signature(name: str) -> None:
    H, W = random_problem(4, 5, 2)
    solution = get_solver(name)(H, W, powers_of_two(3), None)
    assert solution.solver == name and solution.codes.dtype == np.int8
    assert solution.G.shape == W.shape
    assert solution.objective == pytest.approx(layer_error(H, W, solution.G), rel=1e-12)


def test_an_unknown_solver_is_refused() -> None:
    with pytest.raises(ValueError, match="`name` must be one of"):
        get_solver("annealing")
