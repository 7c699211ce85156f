"""The kit inside pytest, on a few cases; and programs and recorded answers from outside."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_kit_adapters import judge

from refldnq.verify.kit import cases as suite
from refldnq.verify.kit import external, golden, plugin, report, rules, runner
from refldnq.verify.kit.cases import Case
from refldnq.verify.kit.faults import turn
from refldnq.verify.kit.reference import Reference

pytest_plugins = ["pytester"]

MODULE = "refldnq.verify.kit.plugin"
LOADED = (golden, report, rules)  # before pytester takes its picture of what is imported


def wrong() -> Reference:
    """An adapter with a fault, found as test_kit_plugin:wrong."""
    return Reference(turn(["dual-twice"]))


def small(id_: str, **more: Any) -> Case:
    inputs = {"lam": np.array([1.0, 2.0]), "Theta": np.array([3.0, 1.0]), "G": np.array([2.5, 2.0])}
    right: dict[str, Any] = {"outputs": {"lam_new": np.array([1.5, 1.0])}, "compare": {"lam_new": "exact"}}
    return Case(op="dual", id=id_, comment="", tier="exact-dyadic", inputs=inputs, **{**right, **more})


REFUSED = {"outputs": {}, "compare": {}, "error": "not finite"}
FEW = (small("dual/a"), small("dual/b"))


@pytest.fixture(autouse=True)
def few_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "all_cases", lambda: FEW)
    monkeypatch.setattr(runner, "_rules", lambda: judge)


def test_an_implementation_becomes_tests(pytester: pytest.Pytester) -> None:
    done = pytester.runpytest_inprocess(
        "-p", MODULE, "--refldnq-impl", "refldnq.verify.kit.reference:Reference"
    )
    done.assert_outcomes(passed=2)
    done.stdout.fnmatch_lines(["*SUMMARY listed 2 | run 2 | pass 2*"])


def test_a_fault_is_named(pytester: pytest.Pytester) -> None:
    done = pytester.runpytest_inprocess(
        "-p", MODULE, "--refldnq-impl", "test_kit_plugin:wrong", "-k", "dual/a"
    )
    done.assert_outcomes(failed=1, deselected=1)
    done.stdout.fnmatch_lines(["*LIKELY CAUSE in dual*dual-twice*", "*repro: refldnq kit show dual/a*"])


def test_only_some_cases(pytester: pytest.Pytester) -> None:
    words = ("-p", MODULE, "--refldnq-impl", "refldnq.verify.kit.reference:Reference", "--refldnq-only")
    pytester.runpytest_inprocess(*words, "/b").assert_outcomes(passed=1)
    assert pytester.runpytest_inprocess(*words, "no such").ret == pytest.ExitCode.USAGE_ERROR


def test_expected_failures_are_strict(pytester: pytest.Pytester) -> None:
    known = pytester.path / "known"
    words = ("-p", MODULE, "--refldnq-xfail", str(known), "--refldnq-impl")
    known.write_text("dual/a our own dual\n")
    pytester.runpytest_inprocess(*words, "test_kit_plugin:wrong").assert_outcomes(xfailed=1, failed=1)
    done = pytester.runpytest_inprocess(*words, "refldnq.verify.kit.reference:Reference")
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(["*unexpected pass dual/a*"])
    known.write_text("dual/dead because\n")
    done = pytester.runpytest_inprocess(*words, "test_kit_plugin:wrong")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["*no such case: dual/dead*"])
    known.unlink()
    assert pytester.runpytest_inprocess(*words, "test_kit_plugin:wrong").ret == pytest.ExitCode.USAGE_ERROR


@pytest.mark.parametrize("name", ["no_such_module:x", "nothing", "refldnq.verify.kit.reference:Missing"])
def test_an_adapter_that_is_not_there_is_an_error(pytester: pytest.Pytester, name: str) -> None:
    assert (
        pytester.runpytest_inprocess("-p", MODULE, "--refldnq-impl", name).ret == pytest.ExitCode.USAGE_ERROR
    )


def test_recorded_answers_become_tests(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"dual/a": {"lam_new": np.array([1.5, 1.0])}}
    known = external.Recorded(external.info_of({"name": "mine"}, ["dual"]), answers)
    monkeypatch.setattr(external, "recorded", lambda file: known)
    done = pytester.runpytest_inprocess("-p", MODULE, "--refldnq-answers", "answers.h5")
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(["*unanswered dual/b*"])
    both = ("--refldnq-answers", "answers.h5", "--refldnq-impl", "test_kit_plugin:wrong")
    assert pytester.runpytest_inprocess("-p", MODULE, *both).ret == pytest.ExitCode.USAGE_ERROR


def test_what_does_not_apply_is_skipped(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    known = external.Recorded(external.info_of({"capabilities": ["pack"]}), {})
    monkeypatch.setattr(external, "recorded", lambda file: known)
    done = pytester.runpytest_inprocess("-p", MODULE, "--refldnq-answers", "answers.h5")
    done.assert_outcomes(skipped=2)


OWN = """
import numpy as np
from refldnq.verify.kit.plugin import parametrize_cases

@parametrize_cases("dual")
def test_dual(case, refldnq_kit):
    if case.error:
        refldnq_kit.refuse(case, lambda lam, **_: REFUSAL if np.isnan(lam).any() else lam)
    else:
        lam, Theta, G = (case.inputs[name] for name in ("lam", "Theta", "G"))
        refldnq_kit.check(case, {"lam_new": lam + FACTOR * (Theta - G)})
"""


def test_a_test_of_ones_own(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    nan = {name: value * np.nan for name, value in FEW[0].inputs.items()}
    refused = small("dual/nan", **REFUSED, **{})
    object.__setattr__(refused, "inputs", nan)
    monkeypatch.setattr(suite, "all_cases", lambda: (*FEW, refused))
    right = OWN.replace("FACTOR", "1").replace("REFUSAL", "int('NaN')")
    pytester.makepyfile(test_right=right)
    pytester.runpytest_inprocess("-p", MODULE).assert_outcomes(passed=3)
    crash = right.replace("int('NaN')", "1 / 0")
    pytester.makepyfile(test_right=crash)
    crashed = pytester.runpytest_inprocess("-p", MODULE)
    crashed.assert_outcomes(passed=2, failed=1)
    crashed.stdout.fnmatch_lines(["*dual/nan raised ZeroDivisionError*must be refused*by a ValueError*"])
    pytester.makepyfile(test_right=crash.replace("else lam)", "else lam, (ArithmeticError,))"))
    pytester.runpytest_inprocess("-p", MODULE).assert_outcomes(passed=3)
    pytester.makepyfile(test_right=OWN.replace("FACTOR", "2").replace("REFUSAL", "lam"))
    (pytester.path / "known").write_text("dual/b known\n")
    done = pytester.runpytest_inprocess("-p", MODULE, "--refldnq-xfail", "known")
    done.assert_outcomes(failed=2, xfailed=1)
    done.stdout.fnmatch_lines(["*LIKELY CAUSE*dual-twice*", "*dual/nan must be refused*"])
    pytester.makepyfile(test_right=right)
    pytester.runpytest_inprocess("-p", MODULE, "--refldnq-xfail", "known").assert_outcomes(passed=2, failed=1)


def test_without_its_options_the_plugin_does_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_other(): pass")
    done = pytester.runpytest_inprocess("-p", MODULE)
    done.assert_outcomes(passed=1)
    assert plugin.GROUP not in done.stdout.str()


def test_the_plugin_imports_nothing_heavy() -> None:
    code = f"import sys, {MODULE}; print(sorted({{'numpy', 'scipy', 'h5py', 'numba'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Programs ----------------------------------------------------------------------------------------------


PROGRAM = """
import sys, pathlib, numpy as np
source, target = map(pathlib.Path, sys.argv[1:])
for case in sorted((source / "dual").iterdir()):
    lam, Theta, G = (np.load(case / "in" / f"{name}.npy") for name in ("lam", "Theta", "G"))
    out = target / "dual" / case.name / "out"
    out.mkdir(parents=True)
    np.save(out / "lam_new.npy", lam + FACTOR * (Theta - G))
"""


def write_program(folder: Path, source: str) -> list[str]:
    file = folder / "program.py"
    file.write_text(source)
    return [sys.executable, str(file), "{in}", "{out}"]


@pytest.mark.parametrize(("factor", "code"), [("1", 0), ("2", 1)])
def test_a_program_is_asked(tmp_path: Path, factor: str, code: int) -> None:
    command = write_program(tmp_path, PROGRAM.replace("FACTOR", factor))
    for _ in range(2):  # answers of the first run are not taken for the second's
        found = runner.run(external.run_program(command, FEW, folder=tmp_path / "kept"), FEW)
        assert found.exit_code == code and found.info.capabilities == {"dual"}
    assert found.explanations == {} or found.explanations["dual"].candidates == (("dual-twice",),)
    assert not list((tmp_path / "kept" / "in").rglob("lam_new*"))


def test_a_program_that_fails(tmp_path: Path) -> None:
    command = write_program(tmp_path, "import sys\nsys.exit('no such layer')")
    with pytest.raises(external.ProgramError, match="must exit with 0, got 1: no such layer"):
        external.run_program(command, FEW)
    command = write_program(tmp_path, "import time\ntime.sleep(60)")
    with pytest.raises(external.ProgramError, match="must end within"):
        external.run_program(command, FEW, seconds=0.2)
    with pytest.raises(external.ProgramError, match="must be a program"):
        external.run_program([str(tmp_path / "missing"), "{out}"], FEW)
    with pytest.raises(ValueError, match="`command` must have an argument"):
        external.run_program(["true", "{in}"], FEW)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"conventions": [1]}, "`conventions` must be a mapping"),
        ({"capabilities": "dual"}, "`capabilities` must be a list"),
        ({"capabilities": ["fly"]}, "`capabilities` must be one of"),
        ({"dtype": "float16"}, "`dtype` must be one of"),
        ({"profile": "2020"}, "`name` must be one of"),
        ({"convention": {"h_scale": "1/n"}}, "`info` must be one of .* got 'convention'"),
    ],
)
def test_what_an_implementation_says_of_itself_is_checked(said: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        external.info_of(said)


def test_a_profile_of_conventions() -> None:
    told = {"profile": "released-2019", "conventions": {"ties": "larger"}}
    conventions = external.info_of(told).conventions
    assert conventions.row_order == "kh,kw,c" and conventions.ties == "larger"


def test_refusals_are_recorded() -> None:
    info = external.info_of({}, ["dual"])
    refused = small("dual/nan", **REFUSED)
    known = external.Recorded(info, {"dual/nan": {"error": np.array("NaN")}})
    assert runner.run(known, [refused]).exit_code == 0
    assert runner.run(known, [small("dual/nan")]).exit_code == 1
    answered = external.Recorded(info, {"dual/nan": {"lam_new": np.ones(2)}})
    assert runner.run(answered, [refused]).exit_code == 1


def test_an_implementation_may_work_in_place() -> None:
    decorator: Any = plugin.parametrize_cases("dual")
    for parameter, case in zip(decorator.mark.args[1], FEW, strict=True):
        inputs = parameter.values[0].inputs
        inputs["lam"] += inputs["Theta"]
        inputs["lam"] -= inputs["G"]
        assert np.array_equal(inputs["lam"], case.outputs["lam_new"])
        assert np.array_equal(case.inputs["lam"], [1.0, 2.0]), "another test's inputs were changed"


class Exiter(Reference):
    """Ends the process where it should answer."""

    def dual(self, **inputs: Any) -> Any:
        sys.exit(0)


def test_an_implementation_cannot_end_the_run() -> None:
    found = runner.run(Exiter(), FEW)
    assert found.exit_code == 1 and found.count("FAIL") == 2
    refused = runner.run(Exiter(), [small("dual/r", **REFUSED)])
    assert refused.count("FAIL") == 1, "the end of the process is no refusal"


def test_an_implementation_cannot_forge_the_report() -> None:
    class Forger(Reference):
        def info(self) -> Any:
            return replace(super().info(), name="x\nSUMMARY listed 9 | run 9 | pass 9\x1b[2J")

    text = report.to_text(runner.run(Forger(), FEW))
    assert [line for line in text.splitlines() if line.startswith("SUMMARY")] == [
        "SUMMARY listed 2 | run 2 | pass 2"
    ]
    assert "\x1b" not in text
