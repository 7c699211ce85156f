"""Stopping rules of the conformance kit: three channels, margins, narrow types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from refldnq.verify.kit import rules
from refldnq.verify.kit.cases import Case
from refldnq.verify.kit.families import stop
from refldnq.verify.kit.families._make import CLEAR
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
    assert near == {"stop/patience-exactly", "stop/objective-exactly", "stop/beside-threshold"}


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
