"""The three number systems: exact results, enclosures that contain them, and floats that come close."""

from __future__ import annotations

import math
import sys
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refldnq.verify.arithmetic import (
    EXACT,
    FLOAT,
    Arithmetic,
    Ball,
    NotRationalError,
    ball,
    has_flint,
    proved_at_most,
)

flint = pytest.importorskip("flint", reason="needs python-flint")

SYSTEMS = {"exact": EXACT, "float": FLOAT, "ball": ball(), "wide": ball(24)}

small = st.fractions(-4, 4, max_denominator=8)


def matrix(rows: int, columns: int) -> st.SearchStrategy[list[list[Fraction]]]:
    return st.lists(st.lists(small, min_size=columns, max_size=columns), min_size=rows, max_size=rows)


def rational(x: Any) -> Fraction:
    mantissa, exponent = x.man_exp()
    return Fraction(int(mantissa)) * Fraction(2) ** int(exponent)


def ends(x: Any) -> tuple[Fraction, Fraction]:
    """The ends of a ball, exactly."""
    if not hasattr(x, "mid"):
        return Fraction(x), Fraction(x)
    middle, radius = rational(x.mid()), rational(x.rad())
    return middle - radius, middle + radius


def encloses(x: Any, value: Fraction) -> bool:
    low, high = ends(x)
    return low <= value <= high


@given(small, small)
def test_balls_contain_the_exact_results(x: Fraction, y: Fraction) -> None:
    for arithmetic in (ball(), ball(24)):
        a, b = arithmetic.number(x), arithmetic.number(y)
        assert encloses(a, x)
        assert encloses(a + b, x + y)
        assert encloses(a * b, x * y)
        assert encloses(arithmetic.maximum(a, b), max(x, y))
        assert encloses(arithmetic.sqrt(a * a), abs(x))


@given(matrix(3, 2), matrix(2, 2))
def test_matrices_agree_in_all_systems(first: list[list[Fraction]], second: list[list[Fraction]]) -> None:
    exact = EXACT.relu(EXACT.array(first) @ EXACT.array(second))
    squares = EXACT.squares(exact)
    for arithmetic in (ball(), ball(24)):
        own = arithmetic.relu(arithmetic.array(first) @ arithmetic.array(second))
        assert all(encloses(x, y) for x, y in zip(own.ravel(), exact.ravel(), strict=True))
        assert encloses(arithmetic.squares(own), squares)
    floats = FLOAT.relu(FLOAT.array(first) @ FLOAT.array(second))
    assert floats.dtype == np.float64
    # Two products and a sum of numbers up to 16: a few units in the last place of 32.
    if not (np.max(np.abs(floats - exact.astype(float))) <= 1e-14):
        raise AssertionError(f"{floats} against {exact}")


@given(matrix(3, 3), st.integers(1, 3))
def test_the_spectral_enclosure_is_right_and_narrow(rows: list[list[Fraction]], columns: int) -> None:
    A = EXACT.array(rows)[:, :columns]
    enclosure = ball().spectral(ball().array(A))
    low, high = ends(enclosure)
    reference = FLOAT.spectral(FLOAT.array(A))
    # LAPACK's singular value of a 3 x 3 matrix of norm up to 12 is within a few units of 12 ulp.
    if not (low - Fraction(1e-13) <= Fraction(reference) <= high + Fraction(1e-13)):
        raise AssertionError(f"{reference} is not in [{float(low)}, {float(high)}]")
    if not (high - low <= Fraction(1e-13) * max(high, Fraction(1))):
        raise AssertionError(f"[{float(low)}, {float(high)}] is wide")


@given(matrix(3, 3))
def test_the_spectral_enclosure_is_proved_by_the_characteristic_polynomial(
    rows: list[list[Fraction]],
) -> None:
    """By another route: c I - A'A is positive definite iff its leading minors are positive."""
    A = EXACT.array(rows)
    low, high = ends(ball().spectral(ball().array(A)))
    gram = A.T @ A

    def definite(c: Fraction) -> bool:
        S = c * np.eye(3, dtype=int) - gram
        return all(determinant(S[:k, :k]) > 0 for k in (1, 2, 3))

    assert definite(high * high * (1 + Fraction(1, 2**60)) + Fraction(1, 2**200))
    if low > 0:
        assert not definite(low * low)


def determinant(S: Any) -> Fraction:
    if len(S) == 1:
        return Fraction(S[0, 0])
    minors = (np.delete(np.delete(S, 0, 0), j, 1) for j in range(len(S)))
    return sum(((-1) ** j * S[0, j] * determinant(minor) for j, minor in enumerate(minors)), Fraction(0))


@pytest.mark.parametrize("arithmetic", SYSTEMS.values(), ids=SYSTEMS)
def test_spectral_norms_that_are_known(arithmetic: Arithmetic) -> None:
    cases = [
        ([[3, 4]], 5),
        ([[3], [4]], 5),
        ([[0, -2], [1, 0]], 2),
        ([[1, 1], [1, 1]], 2),
        ([[0, 0], [0, 0]], 0),
        ([[2, 4], [1, 2]], 5),
    ]
    for rows, norm in cases:
        found = arithmetic.spectral(arithmetic.array(rows))
        low, high = ends(found)
        width = 0.01 if arithmetic is SYSTEMS["wide"] else 1e-15
        if not (low - Fraction(1e-14) <= norm <= high + Fraction(1e-14) and high - low < width):
            raise AssertionError(f"{rows}: {found}")


def test_a_repeated_singular_value_is_certified() -> None:
    low, high = ends(ball().spectral(ball().array(np.eye(6, dtype=int) * 3)))
    assert low <= 3 <= high
    assert high - low < Fraction(1, 10**20)


def test_exact_roots() -> None:
    assert EXACT.sqrt(Fraction(49, 36)) == Fraction(7, 6)
    assert EXACT.sqrt(Fraction(10**40)) == 10**20
    for x in (2, Fraction(1, 3), 10**40 + 1):
        with pytest.raises(NotRationalError, match="not rational"):
            EXACT.sqrt(x)
    with pytest.raises(NotRationalError):
        EXACT.spectral(EXACT.array([[1, 1], [0, 1]]))


@pytest.mark.parametrize("arithmetic", SYSTEMS.values(), ids=SYSTEMS)
def test_roots_of_negative_numbers_are_refused(arithmetic: Arithmetic) -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        arithmetic.sqrt(arithmetic.number(-1))


def test_the_root_of_a_ball_around_zero() -> None:
    arithmetic = ball()
    third = arithmetic.number(Fraction(1, 3))
    noise = third * third - arithmetic.number(Fraction(1, 9))
    low, high = ends(arithmetic.sqrt(noise))
    assert not noise >= 0
    assert low <= 0 <= high < Fraction(1, 10**15)


def test_numbers_are_taken_exactly() -> None:
    for x in (3, -(10**30), Fraction(1, 3), 0.1, np.float64(0.1), np.int8(-5), True):
        exact = Fraction(int(x)) if isinstance(x, np.integer) else Fraction(x)
        assert EXACT.number(x) == exact
        assert encloses(ball(24).number(x), exact)
        assert FLOAT.number(x) == float(exact)


def test_products_and_shapes() -> None:
    for arithmetic in SYSTEMS.values():
        assert arithmetic.array(np.zeros((2, 0, 3))).shape == (2, 0, 3)
        assert arithmetic.relu(arithmetic.array([-1, 2]))[1] == 2
        assert arithmetic.product([]) == 1
        assert arithmetic.product([arithmetic.number(2), arithmetic.number(3)]) == 6


def test_three_answers() -> None:
    third = ball().number(Fraction(1, 3))
    assert proved_at_most(third, ball().number(1)) is True
    assert proved_at_most(ball().number(1), third) is False
    assert proved_at_most(third, third + 0) is None
    assert proved_at_most(Fraction(1), Fraction(1)) is True
    assert proved_at_most(math.nan, 0.0) is None


def test_a_wrong_upper_end_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test of the enclosure fails if elimination approves of everything."""
    monkeypatch.setattr("refldnq.verify.arithmetic._positive_definite", lambda S: True)
    monkeypatch.setattr(Ball, "squares", lambda self, A: self.number(1))  # a wrong vector and a wrong bound
    low, high = ends(ball().spectral(ball().array([[1, 1], [0, 1]])))
    golden = Fraction((1 + math.sqrt(5)) / 2)
    assert not low <= golden <= high


def test_without_flint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flint", None)
    assert not has_flint()
    with pytest.raises(ImportError, match=r"refldnq\[verify\]"):
        ball()


def test_squares_of_balls_around_zero() -> None:
    flint = pytest.importorskip("flint")
    around = np.array([flint.arb(0, 1e-3), flint.arb(1, 0.5)], dtype=object)
    squares = ball().squares(around)
    assert squares >= 0 and squares.contains(flint.arb(0.25)) and squares.contains(flint.arb(2.25))
    assert not squares.contains(flint.arb(0.2)) and not squares.contains(flint.arb(2.3))
