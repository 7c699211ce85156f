"""What the README and the documentation's pages say: examples run, commands and their options exist."""

from __future__ import annotations

import doctest
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from refldnq.cli import main

ROOT = Path(__file__).parents[1]

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def fences(page: Path, language: str) -> Iterator[tuple[int, str]]:
    """Fenced blocks of a language: the line where the text begins, and the text."""
    text = page.read_text("utf-8")
    for match in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.M | re.S):
        yield text[: match.start(1)].count("\n"), match[1]


EXAMPLES = [
    pytest.param(page, line, code, id=f"{page.name}:{line}")
    for page in PAGES
    for line, code in fences(page, "python")
]

COMMANDS = [
    pytest.param(command, id=f"{page.name}: {command}")
    for page in PAGES
    for language in ("bash", "console")
    for _, block in fences(page, language)
    for command in re.findall(r"(?:^|\$ |bin/)(refldnq [^\n&#]*)", block.replace("\\\n", " "), re.M)
]


def run_example(code: str, name: str, line: int) -> None:
    """Run a session or a script in a fresh namespace."""
    if ">>>" not in code:
        exec(compile(code, name, "exec"), {"__name__": name})
        return
    test = doctest.DocTestParser().get_doctest(code, {}, name, name, line)
    report: list[str] = []
    outcome = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=report.append)
    if outcome.failed:
        raise AssertionError("".join(report))


def check_command(command: str) -> None:
    """Refuse a command line whose command or options do not exist."""
    _, *words = shlex.split(command)
    if not words or words[0].startswith("-"):
        return
    known = main.commands.get(words[0])
    if known is None:
        raise AssertionError(f"no command {words[0]}")
    while isinstance(known, click.Group) and len(words) > 1:
        words = words[1:]
        known = known.commands.get(words[0])
        if known is None:
            raise AssertionError(f"no command {words[0]}")
    words = words[: words.index("--")] if "--" in words else words  # behind it comes another program
    context = click.Context(known, info_name=words[0])
    options = {
        flag
        for parameter in known.get_params(context)
        for flag in (*parameter.opts, *parameter.secondary_opts)
    }
    for word in words[1:]:
        if word.startswith("-") and word.split("=")[0] not in options:
            raise AssertionError(f"{words[0]} has no option {word}")


@pytest.mark.parametrize(("page", "line", "code"), EXAMPLES)
def test_example(page: Path, line: int, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "digits" in code:
        pytest.importorskip("sklearn", reason="the digits need scikit-learn")
    monkeypatch.chdir(tmp_path)
    run_example(code, page.name, line)


@pytest.mark.parametrize("command", COMMANDS)
def test_command_exists(command: str) -> None:
    check_command(command)


def test_the_api_page_lists_every_public_module() -> None:
    listed = re.findall(r"^   refldnq\.(\w+)$", (ROOT / "docs/api.md").read_text("utf-8"), re.M)
    folder = ROOT / "refldnq"
    modules = {path.stem for path in folder.glob("[a-z]*.py")} | {
        path.parent.name for path in folder.glob("[a-z]*/__init__.py")
    }
    assert len(listed) == len(set(listed))
    assert set(listed) == modules - {"cli"}


def test_the_readme_has_an_example_and_two_commands() -> None:
    readme = PAGES[0]
    setups = [
        line for _, block in fences(readme, "bash") for line in block.splitlines() if " -m venv " in line
    ]
    assert [line.rpartition(" && ")[2] for line in setups] == [
        ".venv/bin/refldnq quickstart",
        ".venv/bin/python -m pytest",
    ]
    assert any(example.values[0] == readme for example in EXAMPLES)


def test_the_gate_runs_the_readmes_test_command() -> None:
    search = re.search(r"grep -E '(.+)' README\.md", (ROOT / ".ci/run").read_text("utf-8"))
    assert search is not None
    found = subprocess.run(
        ["grep", "-cE", search[1], "README.md"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert found.stdout.strip() == "1"


def test_a_wrong_example_is_found() -> None:
    with pytest.raises(AssertionError, match="Expected:"):
        run_example(">>> 1 + 1\n3\n", "planted", 0)
    with pytest.raises(ZeroDivisionError):
        run_example("1 / 0\n", "planted", 0)


@pytest.mark.parametrize("command", ["refldnq fly", "refldnq quickstart --no-such-option"])
def test_a_wrong_command_is_found(command: str) -> None:
    with pytest.raises(AssertionError, match="no "):
        check_command(command)


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "refldnq.cli", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "quickstart" in done.stdout
