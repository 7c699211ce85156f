"""The kit turned on itself: faults killed and named, correct variants passed, on the suite as it ships."""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refldnq.verify.kit import rules
from refldnq.verify.kit.cases import Case, all_cases
from refldnq.verify.kit.fault import Fault
from refldnq.verify.kit.faults import CATALOGUE, find, turn
from refldnq.verify.kit.reference import Reference
from refldnq.verify.kit.runner import run
from refldnq.verify.kit.selftest import BAD_ANSWERS, VARIANTS, SelfTest, kill_matrix, selftest

PAGE = Path(__file__).parents[1] / "docs" / "kit-faults.md"


@functools.cache
def found() -> SelfTest:
    return selftest(all_cases(), processes=2)  # the same as one, see below, in half the time


def of(*ops: str) -> tuple[Case, ...]:
    return tuple(case for case in all_cases() if case.op in ops)


def faults_of(*ops: str) -> tuple[Fault, ...]:
    return tuple(fault for fault in CATALOGUE if set(ops) & set(fault.ops))


def test_the_kit_is_sound() -> None:
    assert found().problems == ()


def test_every_fault_is_killed_and_named() -> None:
    verdicts = {kill.fault: kill.verdict for kill in found().kills}
    assert len(verdicts) == len(CATALOGUE) >= 45
    assert set(verdicts.values()) <= {"unique", "ambiguous"}, verdicts


def test_every_variant_and_every_way_of_not_answering_is_tried() -> None:
    assert found().variants.keys() == VARIANTS.keys()
    assert {"LU", "eigendecomposition", "Woodbury", "reversed sums", "float32"} <= VARIANTS.keys()
    assert found().empty.keys() == set(BAD_ANSWERS)
    assert any(case.scored for case in all_cases())


def test_an_explicit_inverse_fails_where_it_matters_only() -> None:
    kill = next(one for one in found().kills if one.fault == "solve-inverse")
    tiers = {case.tier for case in all_cases() if case.id in kill.cases}
    assert tiers == {"ill-conditioned"}


def test_the_page_is_what_the_selftest_finds() -> None:
    assert PAGE.read_text("utf-8") == kill_matrix(found()), "refldnq kit selftest --matrix docs/kit-faults.md"


def test_processes_change_nothing() -> None:
    cases, faults = of("dual", "pack"), faults_of("dual", "pack")
    one, two = (selftest(cases, faults=faults, processes=n) for n in (1, 2))
    assert replace(one, seconds=0.0) == replace(two, seconds=0.0) and one.problems == ()


# Planted in the kit itself -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Plain:
    ok: bool


def careless(case: Any, answers: Mapping[str, Any], dtype: str) -> Sequence[Plain]:
    """The usual comparison: allclose, and only where shapes agree."""
    pairs = [(np.asarray(answers[name]), np.asarray(case.outputs[name])) for name in answers]
    return [Plain(got.shape != want.shape or np.allclose(got, want, 1e-3, 1e-3)) for got, want in pairs]


def test_a_careless_judge_is_found_out() -> None:
    problems = selftest(of("hessian"), judge=careless, faults=faults_of("hessian")).problems
    assert "fault h-single survives" in problems
    assert any(line.startswith("wrong shape passes") for line in problems)
    blind = selftest(of("dual"), judge=lambda *_: [Plain(True)], faults=faults_of("dual")).problems
    assert "fault dual-twice survives" in blind
    assert any(line.startswith("NaN passes") for line in blind)
    strict = selftest(of("dual"), judge=lambda *_: [Plain(False)], faults=()).problems
    assert any(line.startswith("correct variant LU fails") for line in strict)
    assert any(line.startswith("the right answers fail") for line in strict)


def test_a_case_that_promises_too_much_is_found_out() -> None:
    case = next(case for case in of("dual") if case.error is None)
    boast = Case(**{name: getattr(case, name) for name in case.__slots__} | {"catches": ("h-sum", "no-such")})
    problems = selftest([boast], faults=faults_of("dual", "hessian")).problems
    assert f"{case.id} does not catch h-sum" in problems and f"{case.id} does not catch no-such" in problems


def test_a_case_that_catches_nothing_is_found_out() -> None:
    case = next(case for case in of("dual") if case.error is None)
    values = {name: getattr(case, name) for name in case.__slots__}
    zero = {name: 0 * array for name, array in case.inputs.items()}
    idle = Case(
        **values | {"inputs": zero, "outputs": {"lam_new": 0 * case.outputs["lam_new"]}, "catches": ()}
    )
    problems = selftest([idle], faults=faults_of("dual")).problems
    assert f"{case.id} catches no fault" in problems and f"zeros passes {case.id}" in problems


def test_a_right_answer_that_is_wrong_is_found_out() -> None:
    case = next(case for case in of("dual") if case.error is None)
    values = {name: getattr(case, name) for name in case.__slots__}
    wrong = Case(**values | {"outputs": {"lam_new": case.outputs["lam_new"] + 1}, "catches": ()})
    problems = selftest([wrong], faults=()).problems
    assert f"correct variant the library fails {case.id}" in problems


# Several faults at once --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_two_or_three_faults_at_once_are_named(seed: int) -> None:
    chance = random.Random(seed)
    sharp = [fault.id for fault in CATALOGUE if not fault.noise and fault.stage in STAGES]
    planted = chance.sample(sharp, 2 + seed % 2)
    while turn(planted) is None or len({find(id_).stage for id_ in planted}) < len(planted):
        planted = chance.sample(sharp, 2 + seed % 2)
    with np.errstate(all="ignore"):
        ran = run(Reference(turn(planted)), of(*STAGES), judge=rules.judge)
    named = {id_ for one in ran.explanations.values() for ids in one.candidates for id_ in ids}
    assert set(planted) <= named, (planted, {op: one.text for op, one in ran.explanations.items()})


STAGES = ("patches", "hessian", "pack", "proximal", "project", "dual")
