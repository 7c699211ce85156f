"""Stopping rules of the conformance kit: three channels, margins, narrow types."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from refldnq.verify.kit import rules
from refldnq.verify.kit.cases import Case
from refldnq.verify.kit.ends import ends
from refldnq.verify.kit.families import stop
from refldnq.verify.kit.families._make import CLEAR
from refldnq.verify.kit.faults import turn
from refldnq.verify.kit.knobs import Knobs
from refldnq.verify.kit.reference import Reference

CASES = tuple(stop.cases())
ANSWERED = tuple(case for case in CASES if case.error is None)


def windows(inputs: Mapping[str, Any]) -> tuple[int, int]:
    """The rules once more: the first end of a window in which the condition holds, by arrays."""
    E, alpha, tolerance = inputs["E"], inputs["alpha"], inputs["tolerance"]
    rule, most = inputs["rule"], inputs["most"]
    if rule == "patience":
        record, records = E[0], [0]
        for k in range(1, most + 1):
            if record - E[k] > tolerance * (abs(record) if inputs["relative"] else 1):
                record = E[k]
                records.append(k)
            if k - records[-1] == inputs["patience"]:
                return k, records[-1]
        return most, records[-1]
    series = E if rule == "objective" else alpha
    scale = abs(series[:-1]) if inputs["relative"] else np.ones(len(series) - 1)
    still = np.flatnonzero(abs(np.diff(series)) < tolerance * scale) + (1 if rule == "objective" else 2)
    done = most if rule == "count" or not len(still) else min(int(still[0]), most)
    return done, int(np.argmin(E[: done + 1]))


@pytest.mark.parametrize("case", ANSWERED, ids=lambda case: case.id)
def test_three_channels_agree(case: Case) -> None:
    want = (int(case.outputs["iterations"]), int(case.outputs["best"]))
    assert stop.stops(case.inputs)[:2] == windows(case.inputs) == want
    found = Reference().stop(**case.inputs)
    assert (int(found["iterations"]), int(found["best"])) == want


def test_a_planted_error_shows() -> None:
    case = next(case for case in ANSWERED if case.id == "stop/patience")
    moved = {**case.inputs, "tolerance": 0.0625}
    assert windows(moved) != tuple(int(value) for value in case.outputs.values())
    with pytest.raises(ValueError, match="must have margins"):
        stop.make_stop("near", "", stop.asked("objective", [2.0, 1.75 + 2.0**-40, 1.0]), "")


def test_only_marked_decisions_are_near() -> None:
    near = {case.id for case in ANSWERED if case.margin["best"] < CLEAR}
    exactly = {"stop/patience-exactly", "stop/objective-exactly"}
    assert near == {*exactly, "stop/beside-threshold", "stop/beside-threshold-double"}


def test_a_decision_within_rounding_is_free_and_a_tie_is_not() -> None:
    case = next(case for case in ANSWERED if case.id == "stop/beside-threshold")
    either = Reference(dtype="float32").stop(**case.inputs)
    assert not np.array_equal(either["iterations"], case.outputs["iterations"])
    assert all(one.ok for one in rules.judge(case, either, "float32"))
    assert not any(one.ok for one in rules.judge(case, either, "float64"))
    tied = next(case for case in ANSWERED if case.id == "stop/patience-exactly")
    wrong = Reference(Knobs(stop_equals="taken")).stop(**tied.inputs)
    assert not all(one.ok for one in rules.judge(tied, wrong, "float32"))


def test_what_is_no_count_fails() -> None:
    case = next(case for case in ANSWERED if case.id == "stop/patience")
    for value in (np.nan, -1, 10**6, 4.0):
        answers = {**case.outputs, "iterations": np.array(value)}
        assert not all(one.ok for one in rules.judge(case, answers, "float64")), value
    assert not rules.judge(replace(case), {}, "float64")[0].ok


# The two answers together ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "dtype", "right"),
    [
        ("beside-threshold", "float64", {(4, 1)}),
        ("beside-threshold", "float32", {(4, 1), (3, 0)}),
        ("beside-threshold-double", "float64", {(4, 1), (3, 0)}),
        ("patience-exactly", "float32", {(3, 0)}),
    ],
)
def test_only_pairs_that_a_run_can_end_with_pass(name: str, dtype: str, right: set[tuple[int, int]]) -> None:
    case = next(case for case in ANSWERED if case.id == f"stop/{name}")
    passed = set()
    for pair in itertools.product(range(6), repeat=2):
        found = rules.judge(case, dict(zip(("iterations", "best"), map(np.array, pair), strict=True)), dtype)
        passed |= {pair} if all(one.ok for one in found) else set()
    assert passed == right
    mixed = rules.judge(case, {"iterations": np.array(4), "best": np.array(0)}, "float32")
    if len(right) > 1:  # each answer by itself is one that a run gives
        assert [one.ok for one in mixed] == [True, False]
        assert str(mixed[1]) == "best: got 0; no run of 4 iterations keeps that"


def test_a_fault_in_the_catalogue_gives_a_mixed_pair() -> None:
    case = next(case for case in ANSWERED if case.id == "stop/beside-threshold-double")
    for fault in ("stop-best-rounded", "stop-early-by-one"):
        found = Reference(turn([fault])).stop(**case.inputs)
        masks = [int(case.allowed[name]) >> int(value) & 1 for name, value in found.items()]
        assert masks == [1, 1], "either answer alone would pass"
        assert not all(one.ok for one in rules.judge(case, found, "float64"))


COMPARISONS: Mapping[str, Callable[[Any, Any, Any], Any]] = {
    "difference": lambda old, new, limit: old - new > limit,
    "lowered": lambda old, new, limit: new < old - limit,
    "raised": lambda old, new, limit: new + limit < old,
}
"""Ways to write an improvement that differ in rounding."""


def honest(inputs: Mapping[str, Any], dtype: type[np.floating[Any]], exceeds: Any) -> tuple[int, int]:
    """A run in a type, one comparison written in one way."""
    E, tolerance = np.asarray(inputs["E"]).astype(dtype), dtype(inputs["tolerance"])
    best, idle = 0, 0
    for k in range(1, inputs["most"] + 1):
        better = exceeds(E[best], E[k], tolerance * abs(E[best]) if inputs["relative"] else tolerance)
        best, idle = (k, 0) if better else (best, idle + 1)
        if idle == inputs["patience"]:
            return k, best
    return inputs["most"], best


@pytest.mark.parametrize("relative", [False, True])
def test_every_honest_run_near_a_threshold_is_among_them(relative: bool) -> None:
    rng, several = np.random.default_rng(5), 0
    for _ in range(300):
        E = [float(rng.uniform(1, 4))]
        for _ in range(6):  # a fall by the tolerance, give or take some roundings, or none
            fall = 0.125 * (E[0] if relative else 1) * (1 + rng.integers(-3, 4) * 2.0**-23)
            E.append(E[rng.integers(len(E))] - fall * rng.integers(0, 2))
        inputs = stop.asked("patience", E, tolerance=0.125, patience=2, relative=relative)
        pairs = ends(inputs, "float32")
        for compare in COMPARISONS.values():
            assert honest(inputs, np.float32, compare) in pairs
            assert honest(inputs, np.float64, compare) in ends(inputs, "float64")
        several += len(pairs) > 1
        assert len(pairs) < 7 * 7 // 2
    assert several > 30


def test_changes_near_the_tolerance_end_a_run_either_way() -> None:
    fall = stop.asked("objective", [4.0, 3.0, 2.75 - 2.0**-30, 2.0, 1.0])
    assert ends(fall, "float64") == {(4, 4)}
    assert ends(fall, "float32") == {(2, 2), (4, 4)}
    scales = stop.asked("alpha", [4.0, 3.0, 2.0, 1.0], [1.0, 1.25 + 2.0**-30, 2.0], tolerance=0.25)
    assert ends(scales, "float64") == {(3, 3)}
    assert ends(scales, "float32") == {(2, 2), (3, 3)}
    again = stop.asked("objective", [1.0, 0.75 - 2.0**-40, 1.0, 0.75 - 2.0**-40, 0.0])
    assert (3, 1) not in ends(again, "float32"), "what was a change is one again"
    flat = stop.asked("count", [3.0, 2.0, 2.0 - 2.0**-30, 2.5])
    assert ends(flat, "float64") == {(3, 2)}
    assert ends(flat, "float32") == {(3, 1), (3, 2)}
