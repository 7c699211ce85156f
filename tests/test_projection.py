"""The projection (16)-(17) against brute force in rationals, its invariants, and the audit's
counterexamples."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refldnq._kernels import threads
from refldnq.codebook import Codebook, Ties, fixed, free, powers_of_two, scaled
from refldnq.projection import Projection, project
from refldnq.verify.naive import projection as naive

SETS = {
    "ternary": powers_of_two(3),
    "five": powers_of_two(5),
    "seven": powers_of_two(7),
    "binary": scaled([-1, 1]),
    "four": scaled([-3, -1, 1, 3]),
    "unsigned": scaled([0, 1, 2, 3]),
    "lopsided": scaled([-1, 0, 3]),
    "negative": scaled([-2, -1]),
    "no-zero": scaled([-1, 2, 5]),
}
WITH_ZERO = [name for name, codebook in SETS.items() if codebook.has_zero]

# Eighths: sums and products of a few are exact, and halfway values are frequent.
EIGHTHS = st.integers(-24, 24).map(lambda k: k / 8)
FLOATS = st.floats(-1e3, 1e3, allow_nan=False, width=32)


def fractions(values: Any) -> list[Fraction]:
    return [Fraction(float(v)) for v in np.ravel(values)]


def assert_globally_optimal(
    result: Projection, V: np.ndarray, codebook: Codebook, weights: np.ndarray | None = None
) -> None:
    """The codes, with their best scale, cost in rationals exactly what the best of all codes cost."""
    v, values = fractions(V), fractions(codebook.values)
    w = None if weights is None else fractions(weights)
    _, _, least = naive.brute_force(v, values, w)
    if result.alpha == 0:
        cost = naive.residual(v, 0, [0] * len(v), w)
    else:
        Q = [values[k] for k in result.codes.ravel()]
        cost = naive.residual(v, naive.best_scale(v, Q, w), Q, w)
    if not cost == least:
        raise AssertionError(f"cost {float(cost)}, least {float(least)} for {V}")
    scale = float(naive.residual(v, 0, [0] * len(v), w))
    if not abs(result.residual - float(least)) <= 1e-14 * scale:
        raise AssertionError(f"residual {result.residual}, least {float(least)}")


@pytest.mark.parametrize("name", SETS)
@given(data=st.data())
@settings(deadline=None, max_examples=40)
def test_exact_is_brute_force(name: str, data: st.DataObject) -> None:
    codebook = SETS[name]
    size = data.draw(st.integers(1, {2: 7, 3: 6, 4: 5, 5: 4}.get(codebook.levels, 3)))
    V = np.array(data.draw(st.lists(EIGHTHS, min_size=size, max_size=size)))
    result = project(V, codebook, method="exact")
    assert result.guarantee == "global" and result.converged
    assert_globally_optimal(result, V, codebook)


@pytest.mark.parametrize("name", SETS)
@given(data=st.data())
@settings(deadline=None, max_examples=25)
def test_weighted_exact_is_brute_force(name: str, data: st.DataObject) -> None:
    codebook = SETS[name]
    size = data.draw(st.integers(1, {2: 6, 3: 5, 4: 4, 5: 4}.get(codebook.levels, 3)))
    V = np.array(data.draw(st.lists(EIGHTHS, min_size=size, max_size=size)))
    weights = np.array(data.draw(st.lists(st.integers(0, 4), min_size=size, max_size=size))) / 4.0
    assert_globally_optimal(project(V, codebook, method="exact", weights=weights), V, codebook, weights)


@pytest.mark.parametrize("name", SETS)
@given(V=st.lists(FLOATS, min_size=1, max_size=60).map(np.array))
@settings(deadline=None, max_examples=40)
def test_invariants(name: str, V: np.ndarray) -> None:
    codebook = SETS[name]
    exact, alternating = (project(V, codebook, method=method) for method in ("exact", "alternating"))
    energy = float(V @ V)
    for result in (exact, alternating):
        G = result.G
        assert result.alpha.shape == () and result.alpha >= 0
        assert G.shape == V.shape and result.codes.dtype == np.int8
        assert np.array_equal(G, float(result.alpha) * codebook.values[result.codes])
        if not abs(result.residual - float((V - G) @ (V - G))) <= 1e-12 * energy:
            raise AssertionError("the residual is not ‖V - G‖²")
        if not abs(float(G @ (V - G))) <= 1e-12 * energy:
            raise AssertionError("<G, λ> is not 0")
        if not float(G @ G) <= energy * (1 + 1e-12):
            raise AssertionError("‖G‖ > ‖V‖")
    if not exact.residual <= alternating.residual + 1e-12 * energy:
        raise AssertionError("the alternation is better than the optimum")
    if codebook.has_zero:
        assert alternating.passes <= V.size * (codebook.levels - 1)
    assert alternating.converged


@pytest.mark.parametrize("name", WITH_ZERO)
@given(V=st.lists(FLOATS, min_size=1, max_size=40).map(np.array))
@settings(deadline=None, max_examples=30)
def test_the_alternation_is_monotone(name: str, V: np.ndarray) -> None:
    codebook, end = SETS[name], project(V, SETS[name])
    course = [project(V, codebook, max_passes=k) for k in range(min(end.passes, 12) + 1)]
    alphas, residuals = [float(r.alpha) for r in course], [r.residual for r in course]
    steps = np.diff(alphas)
    slack = 1e-12 * float(V @ V)
    assert (np.diff(residuals) <= slack).all()
    assert (steps >= 0).all() or (steps <= 0).all()


@pytest.mark.parametrize("name", SETS)
@given(V=st.lists(EIGHTHS, min_size=1, max_size=12).map(np.array))
@settings(deadline=None, max_examples=30)
def test_alternation_is_the_naive_one(name: str, V: np.ndarray) -> None:
    codebook = SETS[name]
    values = fractions(codebook.values)
    unit = min(abs(c) for c in values if c != 0)
    v = fractions(V)
    start = sum(abs(x) for x in v) / len(v) / unit
    result = project(V, codebook)
    if start == 0:
        assert float(result.alpha) == 0
        return
    alpha, codes, scales = naive.alternate(v, values, start)
    if alpha == 0:
        assert float(result.alpha) == 0
        return
    # Scales are rational, so an exact tie at one of them may round either way in floating point.
    midpoints = fractions(codebook.midpoints)
    if any(x == a * mid for x in v for a in scales for mid in midpoints):
        return
    assert result.codes.tolist() == codes
    if not abs(float(result.alpha) - float(alpha)) <= 1e-14 * float(alpha):
        raise AssertionError(f"α {float(result.alpha)}, exact {float(alpha)}")


@pytest.mark.parametrize("ties", ["smaller", "larger", "zero"])
@pytest.mark.parametrize("name", WITH_ZERO)
@given(data=st.data())
@settings(deadline=None, max_examples=20)
def test_planted_ties(name: str, ties: Ties, data: st.DataObject) -> None:
    codebook = SETS[name]
    alpha = data.draw(st.sampled_from([0.25, 1.0, 1.5, 3.0]))
    points = np.concatenate([codebook.midpoints, codebook.values, [0.125]]) * alpha
    V = np.array(data.draw(st.lists(st.sampled_from(points.tolist()), min_size=1, max_size=20)))
    result = project(V, codebook, alpha0=alpha, max_passes=0, ties=ties)
    codes = [naive.nearest(v, Fraction(alpha), fractions(codebook.values), ties) for v in fractions(V)]
    assert codebook.values[result.codes].tolist() == codebook.values[codes].tolist()


@pytest.mark.parametrize(("levels", "expected"), [(5, 0.0), (7, 0.0), (9, 0.0), (11, 1.0), (13, 1.0)])
def test_the_released_codes_ties(levels: int, expected: float) -> None:
    result = project(np.array([1.5]), powers_of_two(levels), alpha0=1.0, max_passes=0, ties="zero")
    assert powers_of_two(levels).values[result.codes[0]] == expected


def test_halfway_between_opposite_levels_is_positive() -> None:
    rules: tuple[Ties, ...] = ("smaller", "larger")
    for ties in rules:
        result = project(np.array([0.0, 1.0]), scaled([-1, 1]), alpha0=1.0, max_passes=0, ties=ties)
        assert result.codes.tolist() == [1, 1]


def released_projection(V: np.ndarray, alpha: float) -> np.ndarray:
    """The released code's projection for 5 levels, re-expressed."""

    def quantize(alpha: float) -> np.ndarray:
        one = (np.abs(V) > 0.5 * alpha) & (np.abs(V) < 1.5 * alpha)
        Q: np.ndarray = np.sign(V) * (one + 2.0 * (np.abs(V) > 1.5 * alpha))
        return Q

    last, G = alpha, alpha * quantize(alpha)
    least = ((V - G) ** 2).sum()
    for _ in range(10):
        Q = quantize(alpha)
        if not Q.any():
            break  # 0/0 in the released code; no pass after it is better than the start
        alpha = V @ Q / (Q @ Q)
        if least > ((V - alpha * Q) ** 2).sum():
            least, G = ((V - alpha * Q) ** 2).sum(), alpha * Q
        if abs(last - alpha) < 1e-3:
            break
        last = alpha
    return G


@given(V=st.lists(FLOATS, min_size=1, max_size=40).map(np.array), start=st.floats(0.01, 100))
@settings(deadline=None, max_examples=60)
def test_the_released_projection(V: np.ndarray, start: float) -> None:
    result = project(
        V,
        powers_of_two(5),
        alpha0=start,
        max_passes=10,
        alpha_tolerance=1e-3,
        keep_best_pass=True,
        ties="zero",
    )
    expected = released_projection(V, start)
    error, slack = ((V - expected) ** 2).sum(), 1e-12 * float(V @ V)
    if not abs(result.residual - error) <= slack:
        raise AssertionError(f"residual {result.residual}, released code {error}")


def test_keeping_the_best_pass_ends_with_zero_where_q_is_empty() -> None:
    V = np.array([0.1, 0.2])
    kept = project(V, powers_of_two(3), alpha0=1.0, max_passes=10, keep_best_pass=True)
    assert kept.G.tolist() == [0.0, 0.0] and float(kept.alpha) == 0.0
    again = project(V, powers_of_two(3), alpha0=1.0)
    assert float(again.alpha) == pytest.approx(0.15) and again.codes.tolist() == [2, 2]


@pytest.mark.parametrize("n", [3, 10, 100])
def test_the_alternation_can_be_arbitrarily_bad(n: int) -> None:
    V = np.array([n + 1.0] + [1.0] * n)
    alternating, exact = project(V, powers_of_two(3)), project(V, powers_of_two(3), method="exact")
    stuck = Fraction((n + 1) ** 2 + n) - Fraction((2 * n + 1) ** 2, n + 1)
    assert alternating.residual == pytest.approx(float(stuck), rel=1e-13)
    assert exact.residual == n
    assert float(exact.alpha) == n + 1


def test_the_alternation_can_be_slow() -> None:
    V = np.array([10000.0, 2916, 2368, 2047, 1829, 1669, 1545, 1445, 1362, 1292, 1232, 1179])
    assert project(V, powers_of_two(3)).passes == 11


@pytest.mark.parametrize("size", [5, 12, 30, 100])
def test_the_slow_family(size: int) -> None:
    v, total = [Fraction(1)], Fraction(1)
    for k in range(2, size + 1):
        v.append(total / (2 * k - 1) * (1 - Fraction(1, 4 * k)))
        total += v[-1]
    result = project(np.array([float(x) for x in v]), powers_of_two(3))
    assert result.passes == size - 1 and result.converged


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("method", ["alternating", "exact"])
@pytest.mark.parametrize("power", [-40, -3, 5, 60])
def test_scaling_by_a_power_of_two_is_exact(name: str, method: Any, power: int) -> None:
    V = np.random.default_rng(3).standard_normal(501)
    one, other = (project(x, SETS[name], method=method) for x in (V, V * 2.0**power))
    assert np.array_equal(one.codes, other.codes)
    assert float(other.alpha) == float(one.alpha) * 2.0**power
    assert other.residual == one.residual * 4.0**power


@pytest.mark.parametrize("codebook", [powers_of_two(5), scaled([-1, 2, 5]), fixed([-1, 0, 1]), free(4)])
@pytest.mark.parametrize("method", ["alternating", "exact"])
def test_threads_change_no_bit(codebook: Codebook, method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    V = np.random.default_rng(4).standard_normal(300_001)
    results = []
    for count in (1, 3):
        monkeypatch.setattr(threads, "thread_count", lambda count=count: count)
        results.append(project(V, codebook, method=method))
    assert np.array_equal(results[0].codes, results[1].codes)
    assert np.array_equal(results[0].values, results[1].values)
    assert results[0].alpha == results[1].alpha and results[0].residual == results[1].residual


@pytest.mark.parametrize(
    "codebook", [powers_of_two(3), scaled([0, 1, 2]), scaled([-1, 1]), fixed([-1, 0, 2])]
)
@pytest.mark.parametrize("method", ["alternating", "exact"])
@pytest.mark.parametrize("weighted", [False, True])
def test_per_channel_is_one_projection_a_column(codebook: Codebook, method: Any, weighted: bool) -> None:
    rng = np.random.default_rng(5)
    V = rng.standard_normal((3, 17, 4))
    V[1, :, 2] = 0.0
    weights = rng.uniform(0.1, 2.0, V.shape) if weighted else None
    result = project(V, codebook, method=method, per_channel=True, weights=weights)
    assert result.alpha.shape == (3, 4) and result.codes.shape == V.shape
    total = 0.0
    for g in range(3):
        for m in range(4):
            w = None if weights is None else weights[g, :, m].copy()
            column = project(V[g, :, m].copy(), codebook, method=method, weights=w)
            assert np.array_equal(result.codes[g, :, m], column.codes)
            assert result.alpha[g, m] == column.alpha
            total += column.residual
    assert result.residual == pytest.approx(total, rel=1e-13)
    assert np.array_equal(result.G, result.alpha[:, None] * codebook.values[result.codes])


@pytest.mark.parametrize("method", ["alternating", "exact"])
def test_equal_weights_change_nothing(method: Any) -> None:
    V = np.random.default_rng(6).standard_normal(100)
    one = project(V, powers_of_two(5), method=method)
    other = project(V, powers_of_two(5), method=method, weights=np.full(100, 2.0))
    assert np.array_equal(one.codes, other.codes)
    assert float(one.alpha) == pytest.approx(float(other.alpha), rel=1e-14)


@pytest.mark.parametrize("method", ["alternating", "exact"])
@pytest.mark.parametrize("codebook", [*SETS.values(), free(3)])
def test_zero_is_projected_to_zero(codebook: Codebook, method: Any) -> None:
    result = project(np.zeros((2, 3)), codebook, method=method)
    assert not result.G.any() and result.residual == 0.0 and result.converged
    if codebook.kind == "scaled":
        assert float(result.alpha) == 0.0
        assert (result.codes == codebook.least_code).all()


@pytest.mark.parametrize("value", [1.0, -2.5, 1e-300, 1e150])
def test_a_single_value_is_hit(value: float) -> None:
    result = project(np.array([value]), powers_of_two(5), method="exact")
    assert result.G[0] == pytest.approx(value, rel=1e-15)


@given(V=st.lists(EIGHTHS, min_size=1, max_size=6).map(np.array), levels=st.integers(2, 3))
@settings(deadline=None, max_examples=40)
def test_free_sets_against_brute_force(V: np.ndarray, levels: int) -> None:
    exact, lloyd = (project(V, free(levels), method=method) for method in ("exact", "alternating"))
    least = float(naive.brute_force_free(fractions(V), levels))
    slack = 1e-13 * (1 + float(V @ V))
    if not abs(exact.residual - least) <= slack:
        raise AssertionError(f"residual {exact.residual}, least {least}")
    assert exact.guarantee == "global" and lloyd.guarantee == "local"
    assert lloyd.residual >= exact.residual - slack
    for result in (exact, lloyd):
        assert len(result.values) <= levels and (np.diff(result.values) > 0).all()
        assert float(result.alpha) == 1.0
        assert result.residual == pytest.approx(float(((V - result.G) ** 2).sum()), abs=1e-13)


def test_weighted_free_sets_count_repetitions() -> None:
    rng = np.random.default_rng(7)
    V, counts = rng.standard_normal(40), rng.integers(1, 5, 40)
    weighted = project(V, free(4), method="exact", weights=counts.astype(float))
    repeated = project(np.repeat(V, counts), free(4), method="exact")
    assert np.allclose(weighted.values, repeated.values, rtol=1e-13)
    assert weighted.residual == pytest.approx(repeated.residual, rel=1e-12)


def test_fixed_sets_round_to_the_nearest() -> None:
    V = np.array([-3.0, -0.3, -0.25, 0.1, 0.4])
    result = project(V, fixed([-0.5, 0.0, 0.25]))
    assert result.G.tolist() == [-0.5, -0.5, 0.0, 0.0, 0.25]
    assert result.guarantee == "global" and float(result.alpha) == 1.0 and result.passes == 0


def test_float32_is_projected_in_float64() -> None:
    V = np.random.default_rng(8).standard_normal(50).astype(np.float32)
    one, other = project(V, powers_of_two(3)), project(V.astype(np.float64), powers_of_two(3))
    assert np.array_equal(one.G, other.G) and one.G.dtype == np.float64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"V": np.array([1.0, np.nan])}, "`V` must be finite"),
        ({"V": np.array([np.inf])}, "`V` must be finite"),
        ({"V": np.zeros(0)}, "`V` must hold at least one value"),
        ({"per_channel": True}, "`V` must have shape"),
        ({"method": "best"}, "`method` must be one of"),
        ({"ties": "up"}, "`ties` must be one of"),
        ({"max_passes": -1}, "`max_passes` must be"),
        ({"alpha0": 0.0}, "`alpha0` must be"),
        ({"alpha0": np.nan}, "`alpha0` must be"),
        ({"alpha0": 1.0, "codebook": fixed([0, 1])}, "`alpha0` must be None"),
        ({"alpha_tolerance": -1.0}, "`alpha_tolerance` must be"),
        ({"weights": np.ones(3)}, "`weights` must have shape"),
        ({"weights": np.array([1.0, -1.0])}, "`weights` must not be negative"),
        ({"weights": np.array([1.0, np.nan])}, "`weights` must be finite"),
        ({"ties": "zero", "codebook": scaled([-1, 1])}, "`ties` must not be 'zero'"),
        ({"V": np.ones((1, 2, 1)), "per_channel": True, "codebook": free(3)}, "`per_channel` must be False"),
    ],
)
def test_refusals(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"V": np.array([1.0, 2.0]), "codebook": powers_of_two(3), **change}
    with pytest.raises(ValueError, match=message):
        project(**arguments)


@pytest.mark.parametrize("V", [[1.0], np.array([1]), None])
def test_other_types_are_refused(V: Any) -> None:
    with pytest.raises(TypeError, match="`V` must be an array"):
        project(V, powers_of_two(3))


# Planted bugs: each check above must fail on the mistake it is there for.


def test_the_optimality_check_sees_a_local_optimum() -> None:
    V = np.array([4.0, 1.0, 1.0, 1.0])
    with pytest.raises(AssertionError):
        assert_globally_optimal(project(V, powers_of_two(3)), V, powers_of_two(3))


def test_the_optimality_check_sees_a_wrong_residual() -> None:
    V = np.array([4.0, 1.0, 1.0, 1.0])
    right = project(V, powers_of_two(3), method="exact")
    wrong = Projection(
        codes=right.codes, alpha=right.alpha, values=right.values, residual=float("nan"), passes=0,
        converged=True, guarantee="global",
    )  # fmt: skip
    with pytest.raises(AssertionError):
        assert_globally_optimal(wrong, V, powers_of_two(3))


def test_distinct_codes_of_one_point() -> None:
    for seed in range(50):
        V = np.random.default_rng(seed).standard_normal(3)
        V[1] = V[0] * 1.01
        V[2] = V[0] * 1e-3
        result = project(V, powers_of_two(5), method="exact")  # ±1 at 2α, never ±2 at α
        assert np.abs(powers_of_two(5).values[result.codes]).max() == 1.0


def test_the_tie_check_sees_the_other_rule() -> None:
    V = np.array([0.5, -0.5])
    rules: tuple[Ties, ...] = ("smaller", "larger")
    results = [project(V, powers_of_two(3), alpha0=1.0, max_passes=0, ties=ties) for ties in rules]
    assert [result.codes.tolist() for result in results] == [[1, 1], [2, 0]]


def _last_level_forgotten(ladder: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    return lambda values: ladder(values)[:-1]


def test_the_optimality_check_sees_a_sweep_without_the_last_level(monkeypatch: pytest.MonkeyPatch) -> None:
    from refldnq import _exact

    V = np.array([10.0, 5.0, 5.0])
    assert_globally_optimal(project(V, powers_of_two(5), method="exact"), V, powers_of_two(5))
    monkeypatch.setattr(_exact, "_ladder", _last_level_forgotten(_exact._ladder))
    with pytest.raises(AssertionError):
        assert_globally_optimal(project(V, powers_of_two(5), method="exact"), V, powers_of_two(5))
