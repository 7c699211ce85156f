"""The Lyapunov function of ADMM: it falls as the theorem says, and does not where a run is wrong."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refldnq.codebook import Codebook, fixed, powers_of_two
from refldnq.hessian import layer_error
from refldnq.projection import project
from refldnq.solvers.lyapunov import Descent, Lyapunov, certified_above, check_run
from refldnq.verify.claims import _rational as rational

SEEDS = st.integers(0, 2**32 - 1)
SETS = [powers_of_two(3), powers_of_two(7), fixed([-1, 0, 2])]
Dual = Callable[[Any, Any, Any, float], Any]


def problem(
    seed: int, *, d: int = 6, m: int = 3, groups: int = 2, condition: float = 50.0
) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    H = []
    for _ in range(groups):
        U = np.linalg.qr(rng.standard_normal((d, d)))[0]
        block = (U * np.logspace(0, -np.log10(condition), d)) @ U.T
        H.append((block + block.T) / 2)
    return np.array(H), rng.standard_normal((groups, d, m))


def dual_update(lam: Any, theta: Any, G: Any, rho: float) -> Any:
    return lam + theta - G


def record(
    H: Any,
    W: Any,
    codebook: Codebook,
    rho: float,
    iterations: int = 25,
    *,
    guaranteed: bool = False,
    warm: bool = False,
    dual: Dual = dual_update,
) -> tuple[Any, Any, Any]:
    """All Θ, G and λ of a run of ADMM written out plainly."""
    A = np.linalg.inv(H + rho * np.eye(H.shape[1]))
    found = project(W, codebook, method="exact")
    G = found.G
    lam = -(H @ (G - W)) / rho if guaranteed else np.zeros_like(W)
    thetas, Gs, lams = [], [G], [lam]
    for _ in range(iterations):
        theta = A @ (H @ W + rho * (G - lam))
        if warm:
            found = project(theta + lam, codebook, alpha0=float(found.alpha))
        else:
            found = project(theta + lam, codebook, method="exact")
        G = found.G
        lam = dual(lam, theta, G, rho)
        thetas.append(theta)
        Gs.append(G)
        lams.append(lam)
    return np.array(thetas), np.array(Gs), np.array(lams)


def assert_falls(descent: Descent) -> None:
    if not descent.holds:
        k = descent.first_failure
        raise AssertionError(f"step {k}: margin {descent.margins[k]} of {descent.values[0]}")
    if not (descent.objectives <= descent.values * (1 + 1e-12)).all():
        raise AssertionError("f(G) exceeds the Lyapunov function")


@pytest.mark.parametrize("codebook", SETS, ids=["ternary", "seven", "fixed"])
@pytest.mark.parametrize("guaranteed", [False, True])
@given(seed=SEEDS, factor=st.sampled_from([1.0001, 1.05, 1.5, 4.0]))
@settings(max_examples=4)
def test_it_falls_above_the_largest_eigenvalue(
    codebook: Codebook, guaranteed: bool, seed: int, factor: float
) -> None:
    H, W = problem(seed)
    rho = factor * float(np.linalg.eigvalsh(H).max())
    thetas, Gs, lams = record(H, W, codebook, rho, guaranteed=guaranteed)
    descent = check_run(H, W, rho, thetas, Gs, lams)
    assert_falls(descent)
    if not (descent.decreases >= -1e-12).all():
        raise AssertionError("a guaranteed decrease is negative")
    if guaranteed:
        first = layer_error(H, W, Gs[0])
        if not abs(descent.values[0] - first) <= 1e-10 * first:
            raise AssertionError("the Lyapunov function does not begin at f(G⁰)")
        if not max(layer_error(H, W, G) for G in Gs) <= first * (1 + 1e-10):
            raise AssertionError("an iterate is worse than the start")


@given(seed=SEEDS)
@settings(max_examples=6)
def test_it_falls_with_the_alternation_from_the_last_scale(seed: int) -> None:
    H, W = problem(seed)
    rho = 1.1 * float(np.linalg.eigvalsh(H).max())
    assert_falls(check_run(H, W, rho, *record(H, W, SETS[1], rho, warm=True)))


PLANTED: dict[str, Dual] = {
    "wrong sign": lambda lam, theta, G, rho: lam - (theta - G),
    "unscaled step": lambda lam, theta, G, rho: lam + rho * (theta - G),
    "unscaled dual": lambda lam, theta, G, rho: (lam + theta - G) / rho,
    "forgotten": lambda lam, theta, G, rho: theta - G,
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_bug_breaks_it(fault: str) -> None:
    broken = 0
    for seed in range(10):
        H, W = problem(seed)
        rho = 3.0 * float(np.linalg.eigvalsh(H).max())
        assert_falls(check_run(H, W, rho, *record(H, W, SETS[0], rho, guaranteed=True)))
        run = record(H, W, SETS[0], rho, guaranteed=True, dual=PLANTED[fault])
        broken += not check_run(H, W, rho, *run).holds
    assert broken >= 5


def test_a_wrong_projection_breaks_it() -> None:
    H, W = problem(0)
    rho = 1.2 * float(np.linalg.eigvalsh(H).max())
    thetas, Gs, lams = record(H, W, SETS[0], rho)
    Gs[10] = -Gs[10]
    descent = check_run(H, W, rho, thetas, Gs, lams)
    assert descent.first_failure == 9


def test_the_slack_is_small() -> None:
    H, W = problem(1, d=40, m=10)
    rho = 1.01 * float(np.linalg.eigvalsh(H).max())
    descent = check_run(H, W, rho, *record(H, W, SETS[0], rho))
    if not descent.slacks.max() <= 1e-9 * descent.values[0]:
        raise AssertionError(f"slack {descent.slacks.max()} of {descent.values[0]}")


@given(seed=SEEDS)
@settings(max_examples=6)
def test_a_level_is_the_definition(seed: int) -> None:
    H, W = problem(seed, groups=1)
    rng = np.random.default_rng(seed)
    rho = 1.3 * float(np.linalg.eigvalsh(H).max())
    G, V = rng.standard_normal((2, *W.shape))
    level = Lyapunov(H, W, rho).level(G, V)
    A = rho * np.eye(len(H[0])) - H[0]
    u = np.linalg.solve(A, rho * V[0] - H[0] @ W[0])
    value = layer_error(H, W, G) + 0.5 * float(np.vdot(u - G[0], A @ (u - G[0])))
    if not (
        np.abs(level.u[0] - u).max() <= 1e-10 * np.abs(u).max() and abs(level.value - value) <= 1e-10 * value
    ):
        raise AssertionError(f"{level.value} against {value}")
    if not abs(level.value - value) <= level.slack:
        raise AssertionError("the slack does not cover the rounding")


@given(seed=SEEDS, factor=st.sampled_from([1 + 1e-9, 1.0001, 2.0]))
@settings(max_examples=15)
def test_the_slack_covers_the_rounding(seed: int, factor: float) -> None:
    """The value in rationals from the same floats, close to the largest eigenvalue too."""
    H, W = problem(seed, d=4, m=2, groups=1)
    rng = np.random.default_rng(seed)
    rho = factor * float(np.linalg.eigvalsh(H).max())
    G, V = rng.standard_normal((2, *W.shape)) * 10 ** rng.uniform(-3, 3)
    level = Lyapunov(H, W, rho).level(G, V)
    block, weight, point, given_v = (rational.exact(x[0]) for x in (H, W, G, V))
    A = Fraction(rho) * rational.identity(4) - block
    r = Fraction(rho) * (given_v - point) + block @ (point - weight)
    exact = rational.inner(point - weight, block @ (point - weight)) + rational.inner(r, rational.solve(A, r))
    if not abs(Fraction(level.value) - exact / 2) <= Fraction(level.slack):
        raise AssertionError(f"{level.value} against {float(exact / 2)}, slack {level.slack}")


def test_the_decrease_is_the_definition() -> None:
    H, W = problem(5, groups=1)
    rho = 2.0
    lyapunov = Lyapunov(H, W, rho)
    rng = np.random.default_rng(5)
    first, second = (lyapunov.level(*rng.standard_normal((2, *W.shape))) for _ in range(2))
    step = second.u[0] - first.u[0]
    matrix = H[0] + rho * np.eye(len(H[0])) - 2 / rho * H[0] @ H[0]
    want = 0.5 * float(np.vdot(step, matrix @ step))
    assert abs(lyapunov.decrease(first, second) - want) <= 1e-12 * want


def positive_definite(A: list[list[Fraction]]) -> bool:
    """Elimination in rationals: all pivots positive."""
    for k in range(len(A)):
        if not A[k][k] > 0:
            return False
        for i in range(k + 1, len(A)):
            factor = A[i][k] / A[k][k]
            A[i] = [a - factor * b for a, b in zip(A[i], A[k], strict=True)]
    return True


@given(seed=SEEDS, exponent=st.integers(-17, -1), sign=st.sampled_from([-1, 1]))
@settings(max_examples=40)
def test_a_certificate_is_a_proof(seed: int, exponent: int, sign: int) -> None:
    H, _ = problem(seed, d=5, groups=1)
    rho = float(np.linalg.eigvalsh(H).max()) * (1 + sign * 10.0**exponent)
    shifted = [[Fraction(rho) * (i == j) - Fraction(float(H[0, i, j])) for j in range(5)] for i in range(5)]
    certified = certified_above(rho, H)
    assert not certified or positive_definite(shifted)
    if exponent >= -12:
        assert certified == (sign > 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rho": 2.9}, "`rho` must certainly exceed every eigenvalue of H, got 2.9."),
        ({"rho": -1.0}, "`rho` must be a finite number greater than 0, got -1.0."),
        ({"W": np.zeros((1, 3, 1))}, r"`W` must have shape \(1, 2, any\), got \(1, 3, 1\)."),
        ({"W": np.full((1, 2, 1), np.nan)}, "`W` must be finite"),
        ({"H": np.array([[[2.0, 1.0], [0.0, 2.0]]])}, "`H` must be symmetric"),
    ],
)
def test_errors(changes: dict[str, Any], message: str) -> None:
    good = {"H": np.array([[[2.0, 1.0], [1.0, 2.0]]]), "W": np.zeros((1, 2, 1)), "rho": 3.5}
    with pytest.raises(ValueError, match=message):
        Lyapunov(**{**good, **changes})


def test_misshapen_states_are_refused() -> None:
    lyapunov = Lyapunov(np.eye(2)[None], np.zeros((1, 2, 1)), 2.0)
    with pytest.raises(ValueError, match="`V` must have shape"):
        lyapunov.level(np.zeros((1, 2, 1)), np.zeros((1, 2, 2)))
    with pytest.raises(ValueError, match="`levels` must hold at least one state"):
        lyapunov.descent([])
    with pytest.raises(ValueError, match="`G` must have shape"):
        check_run(np.eye(2)[None], np.zeros((1, 2, 1)), 2.0, *np.zeros((3, 4, 1, 2, 1)))
