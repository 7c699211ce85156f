"""The error that is kept up to date equals the error by its definition, whatever the codes do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refldnq._kernels import products
from refldnq.codebook import powers_of_two
from refldnq.hessian import layer_error
from refldnq.solvers import running_error
from refldnq.solvers.running_error import RunningError

VALUES = powers_of_two(5).values


def problem(rng: np.random.Generator, groups: int, m: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    X = rng.standard_normal((groups, 3 * d, d))
    return 2 * X.transpose(0, 2, 1) @ X, rng.standard_normal((groups, m, d))


def check_walk(seed: int, groups: int, m: int, d: int, *, per_channel: bool, share: float) -> None:
    """Change a share of the codes, and all scales, in every one of 30 steps, and compare."""
    rng = np.random.default_rng(seed)
    H, W = problem(rng, groups, m, d)
    error = RunningError(H, W, W @ H)
    codes = rng.integers(len(VALUES), size=W.shape).astype(np.int8)
    for _ in range(30):
        moved = rng.random(W.shape) < share
        codes = np.where(moved, rng.integers(len(VALUES), size=W.shape), codes).astype(np.int8)
        alpha = rng.uniform(0.1, 1.0, groups * m if per_channel else 1)
        values = VALUES if rng.random() < 0.9 else VALUES * 1.5
        scale = alpha.reshape(groups, m, 1) if per_channel else alpha[0]
        G = scale * values[codes]
        expected = layer_error(H, W.transpose(0, 2, 1), G.transpose(0, 2, 1))
        found = error.of(codes, alpha, values, G)
        if not abs(found - expected) <= 1e-12 * expected:
            raise AssertionError(f"{found} is not {expected}")
        assert error.direct(G) == pytest.approx(expected, rel=1e-13)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    groups=st.integers(1, 2),
    m=st.integers(1, 6),
    d=st.integers(1, 20),
    per_channel=st.booleans(),
    share=st.sampled_from([0.0, 0.01, 0.1, 1.0]),
)
def test_a_walk_of_codes(seed: int, groups: int, m: int, d: int, per_channel: bool, share: float) -> None:
    check_walk(seed, groups, m, d, per_channel=per_channel, share=share)


def test_most_steps_take_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    update = products.update

    def counted(*given: np.ndarray) -> None:
        calls.append(1)
        update(*given)

    monkeypatch.setattr(products, "update", counted)
    check_walk(1, 2, 6, 20, per_channel=True, share=0.01)
    assert len(calls) >= 15


def check_sums(walk: Callable[[RunningError, np.ndarray], None]) -> None:
    """As many changes as there are codes, and a product is made anew: 10 % a step are one in ten."""
    rng = np.random.default_rng(5)
    H, W = problem(rng, 1, 10, 20)
    error, codes, alpha = RunningError(H, W, W @ H), np.zeros(W.shape, np.int8), np.array([0.3])
    anew = []
    for step in range(1, 45):
        kept = error._HQ
        error.of(codes, alpha, VALUES, alpha * VALUES[codes])
        if error._HQ is not kept:
            anew.append(step)
        codes = codes.copy()
        moved = rng.choice(codes.size, codes.size // 10, replace=False)
        codes.ravel()[moved] = (codes.ravel()[moved] + 1) % len(VALUES)
        walk(error, codes)
    if anew != [1, 12, 23, 34]:
        raise AssertionError(f"products are made anew in the steps {anew}")


def test_a_product_is_made_anew_before_rounding_adds_up() -> None:
    check_sums(lambda error, codes: None)


@pytest.mark.parametrize("count", [0, 10**6])
def test_changes_that_are_not_counted_are_seen(count: int) -> None:
    with pytest.raises(AssertionError, match="made anew"):
        check_sums(lambda error, codes: setattr(error, "_changes", count))


@pytest.mark.parametrize("fault", ["no update", "wrong row", "values ignored"])
def test_planted_faults_are_found(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    update = products.update
    if fault == "no update":
        monkeypatch.setattr(products, "update", lambda *given: None)
    if fault == "wrong row":
        monkeypatch.setattr(
            products, "update", lambda H, *rest: update(np.ascontiguousarray(np.roll(H, 1, axis=1)), *rest)
        )
    if fault == "values ignored":
        monkeypatch.setattr(np, "array_equal", lambda a, b: a.shape == b.shape)
    with pytest.raises(AssertionError, match="is not"):
        check_walk(1, 2, 6, 20, per_channel=True, share=0.01)


def test_an_error_near_0_is_computed_by_its_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    """W = G but for one rounding: the short way's α QᵀH - WᵀH is rounding for the most part."""

    def wrong(seed: int) -> float:
        rng = np.random.default_rng(seed)
        H, _ = problem(rng, 1, 4, 30)
        codes, alpha = rng.integers(len(VALUES), size=(1, 4, 30)).astype(np.int8), np.array([0.3])
        G = alpha[0] * VALUES[codes]
        W = np.nextafter(G, 9.0)
        expected = layer_error(H, W.transpose(0, 2, 1), G.transpose(0, 2, 1))
        assert expected > 0
        return abs(RunningError(H, W, W @ H).of(codes, alpha, VALUES, G) / expected - 1)

    assert max(map(wrong, range(10))) <= 1e-12
    monkeypatch.setattr(running_error, "CANCELLED", -1.0)
    assert max(map(wrong, range(10))) > 1e-3
