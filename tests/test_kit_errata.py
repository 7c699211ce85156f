"""Cases never change: ids and contents are pinned; a withdrawn case is shown as such and never scored."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from refldnq.verify.kit import errata, golden
from refldnq.verify.kit.cases import Case, all_cases
from refldnq.verify.kit.families import dual

commands = importlib.import_module("refldnq.cli.kit")

PINS = Path(__file__).with_name("kit_pins.txt")


def changes(pinned: str, cases: Any) -> list[str]:
    """What was edited, lost or never pinned, one line each."""
    known = dict(line.split() for line in pinned.splitlines())
    now = {case.id: errata.fingerprint(case) for case in cases}
    lines = [f"{id_} changed" for id_ in known if id_ in now and now[id_] != known[id_]]
    lines += [f"{id_} is gone" for id_ in known if id_ not in now and id_ not in errata.WITHDRAWN]
    return lines + [f"{id_} is not pinned" for id_ in now if id_ not in known]


def test_no_case_was_edited() -> None:
    assert changes(PINS.read_text("ascii"), all_cases()) == [], "see refldnq.verify.kit.errata"


def test_an_edit_shows() -> None:
    pinned, cases = errata.pins(dual.cases()), tuple(dual.cases())
    assert changes(pinned, cases) == []
    first = next(case for case in cases if case.error is None)
    place = cases.index(first)

    def edited(**fields: Any) -> list[str]:
        return changes(pinned, [*cases[:place], replace(first, **fields), *cases[place + 1 :]])

    moved = first.inputs["G"] + np.where(np.arange(first.inputs["G"].size) == 0, 2.0**-20, 0.0).reshape(
        first.inputs["G"].shape
    )
    assert edited(inputs={**first.inputs, "G": moved}) == [f"{first.id} changed"]
    assert edited(outputs={"lam_new": np.nextafter(first.outputs["lam_new"], 9)}) == [f"{first.id} changed"]
    assert edited(conventions={"ties": "larger"}) == [f"{first.id} changed"]
    assert edited(comment="other words") == []
    assert changes(pinned, cases[1:]) == [f"{cases[0].id} is gone"]
    assert changes(pinned, [*cases, replace(first, id="dual/new")]) == ["dual/new is not pinned"]


@pytest.fixture
def one_withdrawn(monkeypatch: pytest.MonkeyPatch) -> Case:
    case = next(case for case in all_cases() if case.id == "dual/matrix")
    monkeypatch.setattr(errata, "WITHDRAWN", {case.id: "2026.12: planted"})
    return case


def call(*words: object) -> Any:
    return CliRunner().invoke(commands.kit, [str(word) for word in words])


def test_a_withdrawn_case_is_shown_as_such(one_withdrawn: Case) -> None:
    lines = call("list", "--only", "dual/").output.splitlines()
    assert f"{one_withdrawn.id} withdrawn, 2026.12: planted" in lines
    assert lines.count(one_withdrawn.id) == 0 and "dual/matrix" not in lines
    assert "withdrawn: 2026.12: planted" in call("show", one_withdrawn.id).output


def test_a_withdrawn_case_is_not_scored(one_withdrawn: Case, tmp_path: Path) -> None:
    from refldnq.cli.kit_run import choose

    assert one_withdrawn.id not in {case.id for case in choose("dual/")}
    wrong = {one_withdrawn.id: {"lam_new": 0 * one_withdrawn.outputs["lam_new"]}}
    golden.write_answers(tmp_path / "a.h5", {"name": "mine", "capabilities": ["dual"]}, wrong)
    others = [case for case in all_cases() if case.op == "dual" and case.error is None][:2]
    golden.write(tmp_path / "cases.h5", [one_withdrawn, others[1]])
    told = call("verify", tmp_path / "a.h5", "--cases", tmp_path / "cases.h5")
    assert one_withdrawn.id not in told.output and "listed 1" in told.output


def test_nothing_is_withdrawn_without_a_reason() -> None:
    for id_, reason in errata.WITHDRAWN.items():
        assert reason[:4].isdigit() and len(reason) > 10, id_
        assert id_ in PINS.read_text("ascii"), id_
