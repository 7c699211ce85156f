"""`refldnq kit run | explain | selftest | diff` on a few cases made by hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner
from test_kit_adapters import HandMade, judge

from refldnq.cli import kit_run
from refldnq.verify.kit import external, report, runner
from refldnq.verify.kit.faults import turn
from refldnq.verify.kit.reference import Reference


def wrong() -> Reference:
    """An adapter with a fault, found as test_kit_run_cli:wrong."""
    return Reference(turn(["dual-twice"]))


@pytest.fixture(autouse=True)
def few_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = {"lam": np.array([1.0, 2.0]), "Theta": np.array([3.0, 1.0]), "G": np.array([2.5, 2.0])}
    case = HandMade("dual", "dual/a", inputs, {"lam_new": np.array([1.5, 1.0])})
    monkeypatch.setattr(kit_run, "choose", lambda only: (case,))
    monkeypatch.setattr(runner, "_rules", lambda: judge)


def call(command: Any, *words: object) -> Any:
    return CliRunner().invoke(command, [str(word) for word in words])


def test_run_passes_and_writes_all_reports(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.json", "a.xml", "a.md")]
    options = ("--json", files[0], "--junit", files[1], "--markdown", files[2])
    result = call(kit_run.run, "refldnq.verify.kit.reference:Reference", *options)
    assert result.exit_code == 0, result.output
    assert "SUMMARY listed 1 | run 1 | pass 1" in result.output
    assert json.loads(files[0].read_text())["exit_code"] == 0
    assert ElementTree.parse(files[1]).getroot().attrib["failures"] == "0"
    assert "SUMMARY" in files[2].read_text()


def test_run_names_the_fault_and_diff_sees_it(tmp_path: Path) -> None:
    before, after = tmp_path / "a.json", tmp_path / "b.json"
    call(kit_run.run, "refldnq.verify.kit.reference:Reference", "--json", before)
    result = call(kit_run.run, "test_kit_run_cli:wrong", "--json", after)
    assert result.exit_code == 1 and "dual-twice" in result.output
    changed = call(kit_run.diff, before, after)
    assert changed.exit_code == 1 and "dual/a: pass -> FAIL" in changed.output
    assert call(kit_run.diff, before, before).exit_code == 0
    after.write_text("[]")
    assert isinstance(call(kit_run.diff, before, after).exception, ValueError)


def test_expected_failures_come_from_a_file(tmp_path: Path) -> None:
    known = tmp_path / "known"
    known.write_text("# known\ndual/a not our dual\n")
    assert call(kit_run.run, "test_kit_run_cli:wrong", "--xfail", known).exit_code == 0
    for content, message in (("dual/a\n", "must give a reason"), ("a b\na c\n", "must name a case once")):
        known.write_text(content)
        with pytest.raises(ValueError, match=message):
            external.read_xfail(known)


def test_a_dead_id_and_a_strange_adapter_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = tmp_path / "known"
    known.write_text("dual/dead because\n")
    refused = call(kit_run.run, "test_kit_run_cli:wrong", "--xfail", known)
    assert isinstance(refused.exception, ValueError) and "`xfail` must be one of" in str(refused.exception)

    def said(self: Reference) -> Any:
        raise ValueError("`capabilities` must be known.")

    monkeypatch.setattr(Reference, "info", said)
    assert isinstance(call(kit_run.run, "test_kit_run_cli:wrong").exception, ValueError)


def test_run_asks_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def answers(command: Any, cases: Any, **more: Any) -> Any:
        asked.append((command, more))
        return external.Recorded(
            external.info_of({}, ["dual"]), {"dual/a": {"lam_new": np.array([1.5, 1.0])}}
        )

    monkeypatch.setattr(external, "run_program", answers)
    result = call(kit_run.run, "--seconds", 5, "--keep", tmp_path, "--", "./mine", "-v", "{in}", "{out}")
    assert result.exit_code == 0, result.output
    assert asked == [(("./mine", "-v", "{in}", "{out}"), {"seconds": 5.0, "folder": tmp_path})]
    refused = call(kit_run.run, "--", "./mine", "{in}")
    assert refused.exit_code == 2 and "where its answers go" in refused.output
    alone = call(kit_run.run, "./mine")
    assert alone.exit_code == 2 and "-- ./mine {in} {out}" in alone.output


def test_an_error_of_the_kits_own_exits_with_3(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise RuntimeError("no rules")

    monkeypatch.setattr(runner, "_rules", broken)
    result = call(kit_run.run, "refldnq.verify.kit.reference:Reference")
    assert result.exit_code == 3 and "the kit failed: RuntimeError" in result.output


@pytest.mark.parametrize("name", ["refldnq", "refldnq:", "refldnq.verify.kit.reference:Missing"])
def test_an_adapter_that_does_not_exist(name: str) -> None:
    with pytest.raises(ValueError, match="`adapter` must"):
        external.load(name)


def test_explain() -> None:
    assert "dual-twice" in call(kit_run.explain).output
    assert "too long a step" in call(kit_run.explain, "dual-twice").output
    unknown = str(call(kit_run.explain, "dual-twise").exception)
    assert unknown.startswith("`fault` must be one of 'dual-twice', ") and len(unknown) < 250


@pytest.mark.parametrize(
    ("value", "first"),
    [("dual/nan", "dual/nan-in-g"), ("dual", "dual/matrix"), ("sum", "pack/sum"), ("zz", "dual/matrix")],
)
def test_of_hundreds_of_names_the_nearest_are_shown(value: str, first: str) -> None:
    known = ["dual/matrix", "dual/nan-in-g", "pack/sum", "pack/dual", "hessian/a", "hessian/b"]
    with pytest.raises(ValueError, match=rf"`case` must be one of '{first}', .*, \.\.\. \(kit list\)"):
        kit_run.check_listed("case", value, known, "kit list")
    kit_run.check_listed("case", "pack/sum", known, "kit list")


def test_a_run_of_nothing_says_so() -> None:
    nothing = runner.run(external.Recorded(external.info_of({"name": "mine"}), {}), kit_run.choose(None))
    assert nothing.exit_code == 2
    assert "NOTHING WAS RUN" in report.to_text(nothing)


def test_selftest_reports_what_survives(tmp_path: Path) -> None:
    result = call(kit_run.selftest, "--matrix", tmp_path / "faults.md")
    assert result.exit_code == 1  # the one case cannot catch what is not in the dual step
    assert "fault h-sum survives" in result.output
    assert "fault dual-step-sign survives" not in result.output
    assert "`dual-twice`" in (tmp_path / "faults.md").read_text()


def nobody() -> object:
    """Something that is no adapter, found as test_kit_run_cli:nobody."""
    return object()


def test_an_adapter_may_lie_in_the_present_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lies_here.py").write_text("from refldnq.verify.kit.reference import Reference as Mine\n")
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one not in ("", str(Path.cwd()))])
    monkeypatch.chdir(tmp_path)
    result = call(kit_run.run, "lies_here:Mine")
    assert result.exit_code == 0, result.output


class Told(Reference):
    """An adapter that says of itself in a mapping what it is."""

    def info(self) -> Any:
        return {"name": "mine"}


def test_an_adapter_that_says_it_otherwise_is_refused() -> None:
    refused = call(kit_run.run, "test_kit_run_cli:Told")
    assert isinstance(refused.exception, TypeError), "the command line shows it in one line"
    assert "must return an Info of refldnq.verify.kit.contract, got dict" in str(refused.exception)


def test_what_is_no_adapter_is_refused() -> None:
    refused = call(kit_run.run, "test_kit_run_cli:nobody")
    assert refused.exit_code == 2 and "`adapter` must have info and echo, got a object" in refused.output
