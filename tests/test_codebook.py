"""Codebooks: the paper's sets, what is refused, and what is derived from the values."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refldnq.codebook import Codebook, fixed, free, powers_of_two, scaled

NUMBERS = st.lists(
    st.floats(-1e6, 1e6, allow_nan=False, width=32), min_size=2, max_size=20, unique_by=lambda v: v + 0.0
)


@pytest.mark.parametrize("b", range(7))
def test_powers_of_two_are_the_papers_sets(b: int) -> None:
    codebook = powers_of_two(2 * b + 3)
    positive = [2**k for k in range(b + 1)]
    assert codebook.values.tolist() == sorted([-p for p in positive] + [0] + positive)
    assert codebook.levels == 2 * b + 3
    assert codebook.kind == "scaled"
    assert codebook.symmetric and codebook.has_zero
    assert codebook.bits == [2, 3, 3, 4, 4, 4, 4][b]  # the paper's "bits" are numbers of values
    assert np.array_equal(codebook.values.astype(np.int8), codebook.values)


@pytest.mark.parametrize("levels", [-3, 0, 1, 2, 4, 6, 8, 16, 17, 32])
def test_powers_of_two_refuses_other_numbers_of_values(levels: int) -> None:
    with pytest.raises(ValueError, match=rf"`levels` must .*got {levels}\."):
        powers_of_two(levels)


@pytest.mark.parametrize("levels", [3.0, "3", True, None])
def test_powers_of_two_refuses_other_types(levels: Any) -> None:
    with pytest.raises(TypeError, match="`levels` must be an integer"):
        powers_of_two(levels)


@pytest.mark.parametrize("make", [scaled, fixed])
@pytest.mark.parametrize(
    "values", [[], [1.0], [1.0, 1.0], [0.0, -0.0], [0.0, math.nan], [0.0, math.inf], range(129)]
)
def test_explicit_sets_refuse(make: Any, values: Any) -> None:
    with pytest.raises(ValueError, match="`values` must be"):
        make(values)


@pytest.mark.parametrize("levels", [0, 1, 129])
def test_free_refuses(levels: int) -> None:
    with pytest.raises(ValueError, match="`levels` must be"):
        free(levels)


def test_a_free_set_has_no_values_yet() -> None:
    with pytest.raises(ValueError, match="must not be free"):
        _ = free(3).values
    assert not free(3).symmetric and not free(3).has_zero
    with pytest.raises(ValueError, match="`points` must be empty"):
        Codebook("free", (1.0, 2.0), 2)


@pytest.mark.parametrize("points", [(1.0, 0.0), (0.0, 0.0), (0.0, 1.0, 2.0)])
def test_points_must_ascend_and_match_levels(points: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="`points` must be 2 ascending values"):
        Codebook("scaled", points, 2)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="`kind` must be one of"):
        Codebook("other", (0.0, 1.0), 2)  # type: ignore[arg-type]


def test_codebooks_are_values() -> None:
    codebook = powers_of_two(5)
    assert codebook == scaled([2, 1, 0, -1, -2]) != fixed([2, 1, 0, -1, -2])
    assert len({codebook, scaled([2, 1, 0, -1, -2])}) == 1
    with pytest.raises(FrozenInstanceError):
        codebook.levels = 3  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        codebook.values[0] = 7.0


@given(NUMBERS)
def test_derived_properties(numbers: list[float]) -> None:
    codebook = scaled(numbers)
    values, midpoints = codebook.values, codebook.midpoints
    assert (np.diff(values) > 0).all()
    assert ((values[:-1] <= midpoints) & (midpoints <= values[1:])).all()
    assert codebook.symmetric == (sorted(numbers) == sorted(-v for v in numbers))
    assert codebook.has_zero == (0.0 in numbers)
    assert abs(values[codebook.least_code]) == min(abs(v) for v in numbers)
    assert 2 ** (codebook.bits - 1) < codebook.levels <= 2**codebook.bits


@pytest.mark.parametrize(
    ("values", "least"), [([-1, 1], 1.0), ([-3, -1], -1.0), ([-1, 1, 2], 1.0), ([0, 5], 0.0)]
)
def test_the_code_of_least_magnitude_prefers_the_positive(values: list[float], least: float) -> None:
    codebook = scaled(values)
    assert codebook.values[codebook.least_code] == least
