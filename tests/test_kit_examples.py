"""The programs in other languages: compiled, asked the exported questions, judged; and the kit's pages."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from refldnq.verify.kit.cases import all_cases
from refldnq.verify.kit.contract import CHOICES, OPERATIONS
from refldnq.verify.kit.external import run_program
from refldnq.verify.kit.pages import cases_markdown
from refldnq.verify.kit.runner import STATES, KitRun, run

ROOT = Path(__file__).parents[1]
CPP = ROOT / "verify/adapters/cpp/refldnq_kit.cpp"
RUST = ROOT / "verify/adapters/rust/refldnq_kit.rs"
PAGE = (ROOT / "docs/kit.md").read_text("utf-8")

STEPS = {"patches", "hessian", "pack", "proximal", "project", "dual"}

Build = Callable[..., Path]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Compiles a source, with flags, or with some of its text replaced."""
    folder = tmp_path_factory.mktemp("programs")
    built: dict[tuple[object, ...], Path] = {}

    def compiled(source: Path, *flags: str, planted: tuple[tuple[str, str], ...] = ()) -> Path:
        key = (source, flags, planted)
        if key in built:
            return built[key]
        text = source.read_text("utf-8")
        for right, wrong in planted:
            assert text.count(right) == 1, right
            text = text.replace(right, wrong)
        program = folder / f"program{len(built)}"
        copy = program.with_suffix(source.suffix)
        copy.write_text(text, encoding="utf-8")
        if source == CPP:
            command = ["g++", "-std=c++17", "-O1", "-Wall", "-Wextra", *flags]
        else:
            command = ["rustc", "--edition", "2021", *flags]
        if shutil.which(command[0]) is None:
            pytest.skip(f"no {command[0]} on this machine")
        done = subprocess.run(
            [*command, str(copy), "-o", str(program)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert planted or not done.stderr
        built[key] = program
        return program

    return compiled


def judged(program: Path, *ops: str) -> KitRun:
    """The program on all cases of these steps, those that it refuses to know included."""
    cases = [case for case in all_cases() if not ops or case.op in ops]
    return run(run_program([str(program), "{in}", "{out}"], cases, seconds=60), cases)


def named(found: KitRun, op: str) -> set[str]:
    """The faults that a report names for a step, all of its alternatives."""
    return {fault for one in found.explanations[op].candidates for fault in one}


@pytest.mark.parametrize(
    ("source", "flags", "steps"),
    [
        pytest.param(CPP, (), STEPS, id="C++"),
        pytest.param(CPP, ("-DREAL=float",), STEPS, id="C++ float32"),
        pytest.param(RUST, ("-O",), STEPS | {"admm"}, id="Rust"),
    ],
)
def test_passes(build: Build, source: Path, flags: tuple[str, ...], steps: set[str]) -> None:
    found = judged(build(source, *flags))
    bad = [
        (one.case.id, one.messages)
        for one in found.outcomes
        if one.state in ("FAIL", "blocked", "unanswered")
    ]
    assert not bad
    assert found.exit_code == 0
    assert found.info.capabilities == steps
    for op in steps:
        assert any(one.state == "pass" for one in found.outcomes if one.case.op == op)
    others = [one for one in found.outcomes if one.case.op not in steps]
    assert others
    assert {one.state for one in others} == {"not implemented"}
    if not flags or source == RUST:
        assert found.count("pass") == found.ran == sum(case.op in steps for case in all_cases())


def test_the_mistake_to_try_is_named(build: Build) -> None:
    found = judged(build(CPP, "-DMISTAKE"))
    assert found.exit_code == 1
    assert named(found, "patches") == {"rows-kh-kw-c"}
    assert {one.case.op for one in found.outcomes if one.state == "FAIL"} <= {"patches", "hessian"}
    hessian = found.explanations["hessian"]
    assert "rows-kh-kw-c" in hessian.faults


@pytest.mark.parametrize(
    ("source", "planted", "op", "faults"),
    [
        pytest.param(
            CPP, (("value *= REAL(2) / n", "value *= REAL(1) / n"),), "hessian", {"h-without-2"}, id="H"
        ),
        pytest.param(
            CPP,
            (
                ("REAL sum = rho * (G.data[i * m + c] - lam", "REAL sum = rho * (G.data[i * m + c] + lam"),
                ("L[i * d + j] + (i == j ? rho : 0)", "L[i * d + j] + rho"),
            ),
            "proximal",
            {"dual-sign", "rho-everywhere"},
            id="two in the proximal step",
        ),
        pytest.param(
            RUST,
            (
                (
                    "let mut next = if top > 0.0 { top / bottom }",
                    "let mut next = if top > 0.0 { 1.1 * top / bottom }",
                ),
            ),
            "project",
            None,
            id="not in the catalogue",
        ),
        pytest.param(
            RUST,
            (("alternate(&v, values, alpha, -1,", "alternate(&v, values, 0.0, -1,"),),
            "admm",
            {"alpha-restarted"},
            id="cold starts",
        ),
    ],
)
def test_planted_faults_are_named(
    build: Build, source: Path, planted: tuple[tuple[str, str], ...], op: str, faults: set[str] | None
) -> None:
    found = judged(build(source, planted=planted), op)
    assert found.exit_code == 1
    assert found.count("FAIL")
    if faults is None:  # not in the catalogue: caught, and the report does not pretend to know why
        assert not found.explanations[op].candidates
    else:
        assert faults <= named(found, op)


def test_an_unfinished_program_does_not_pass(build: Build) -> None:
    nothing = (("    fs::create_directories(folder);\n", "    return;\n"),)
    found = judged(build(CPP, planted=nothing), "dual")
    assert found.exit_code != 0
    assert not found.count("pass")


def row(name: str) -> list[str]:
    """The cells of a table's row by the name in its first cell."""
    found = re.search(rf"^\| `?{re.escape(name)}`? (\| .*)$", PAGE, re.M)
    assert found is not None, name
    return found[1].strip("| ").split(" | ")


def test_the_page_has_every_convention_and_state() -> None:
    for name, choices in CHOICES.items():
        values = re.findall("`(.+?)`", row(name)[0])
        assert values == [str(choice).lower() if choice in (True, False) else choice for choice in choices]
    for state in STATES:
        assert row(state)


def test_the_page_has_every_input_and_answer() -> None:
    for op in OPERATIONS:
        assert f"`{op}`" in PAGE
    for op in STEPS | {"admm"}:
        inputs, answers = row(op)
        for text, names in ((inputs, OPERATIONS[op].inputs), (answers, OPERATIONS[op].answers)):
            for name in names if text != "the same" else ():
                assert f"`{name}`" in text, (op, name)


def test_the_page_of_cases_lists_them_all() -> None:
    text = cases_markdown(all_cases())
    listed = [f"## {case.op}," in text and case.id.partition("/")[2] for case in all_cases()]
    assert re.findall(r"^\| `(.+?)` \|", text, re.M) == listed
