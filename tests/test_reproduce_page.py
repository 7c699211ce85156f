"""The page on reproducing: its generated sections are what the store says."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from refldnq.cli import main
from refldnq.experiments.reproduce.jobs import Task
from refldnq.experiments.reproduce.plan import OURS, SHARES
from refldnq.experiments.reproduce.store import Store

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reproduce.md"


def commands() -> list[list[str]]:
    """The commands on the page that write its sections."""
    lines = PAGE.read_text("utf-8").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("refldnq ") and "--markdown" in line]


def written_again(copy: Path) -> str:
    """The page after all of its commands, with the repository's store."""
    for words in commands():
        assert "--show-only" in words
        places = {"docs/reproduce.md": str(copy)}
        own = [places.get(word, str(ROOT / word) if "/" in word else word) for word in words]
        result = CliRunner().invoke(main, own)
        assert result.exit_code == 0, result.output
    return copy.read_text("utf-8")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    stores = {Path(words[words.index("--store") + 1]) for words in commands()}
    absent = [str(store) for store in stores if not (ROOT / store).is_file()]
    if absent:
        pytest.skip(f"needs {', '.join(absent)}: the sections come from there")
    path = tmp_path / "page.md"
    path.write_text(PAGE.read_text("utf-8"), "utf-8")
    return path


def test_the_sections_are_what_the_store_says(copy: Path) -> None:
    assert commands()
    assert written_again(copy) == PAGE.read_text("utf-8")


def runs_left(words: list[str], data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The runs of a command that the store does not have with today's settings, networks and data."""
    left: list[str] = []

    def told(tasks: list[Task], *_: object, **__: object) -> None:
        left.extend(task.run.words for task in tasks)

    monkeypatch.setattr("refldnq.experiments.reproduce.jobs.execute", told)
    store = words[words.index("--store") + 1]
    shutil.copy(ROOT / store, tmp_path / "runs.sqlite")
    places = {store: str(tmp_path / "runs.sqlite"), "docs/reproduce.md": str(tmp_path / "page.md")}
    own = [places.get(word, word) for word in words if word != "--show-only"]
    (tmp_path / "page.md").write_text("", "utf-8")
    result = CliRunner().invoke(main, [*own, "--data", str(data)], catch_exceptions=False)
    assert result.exit_code == (1 if left else 0), result.output  # 1: they are not finished
    return left


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_the_stored_runs_are_those_that_would_be_done_today(
    words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    data = tmp_path
    if "digits" in words[words.index("--networks") + 1]:
        pytest.importorskip("sklearn", reason="the digits come from scikit-learn")
    else:
        data = request.getfixturevalue("data_dir")
        pytest.importorskip("torch", reason="the other networks are PyTorch checkpoints")
    assert runs_left(words, data, monkeypatch, tmp_path) == []
    assert runs_left([*words, "--images", "37"], data, monkeypatch, tmp_path)  # which the store has not


def test_a_number_typed_by_hand_is_found(copy: Path) -> None:
    store = ROOT / commands()[0][commands()[0].index("--store") + 1]
    rows = [row for row in Store(store).rows() if row.state == "done"]
    assert rows
    text = copy.read_text("utf-8")
    head, section = text.split(": generated -->", 1)
    digit = next(i for i, letter in enumerate(section) if letter.isdigit() and letter != "9")
    planted = section[:digit] + str(int(section[digit]) + 1) + section[digit + 1 :]
    copy.write_text(f"{head}: generated -->{planted}", "utf-8")
    assert written_again(copy) == text != f"{head}: generated -->{planted}"


RESULT = re.compile(r"\d+\.\d+|\d+ (?:points|min|minutes|s|seconds|GB|MB)\b")
"""What results look like: decimals, points, times, memory."""


ACCURACY = re.compile(r"\d+(?:\.\d+)? ?%")


def typed(text: str) -> set[str]:
    """Results outside the generated sections and the commands."""
    prose = re.sub(r"<!-- (.*?): generated -->.*?<!-- \1: end -->|```.*?```|`[^`]*`", "", text, flags=re.S)
    return set(RESULT.findall(prose))


def test_no_result_is_typed_by_hand() -> None:
    """Neither on this page nor among the front page's results."""
    front = (ROOT / "README.md").read_text("utf-8").split("\n## Results\n")[1].split("\n## ")[0]
    assert typed(PAGE.read_text("utf-8")) <= {f"{100 * share:g}" for share in SHARES}
    assert typed(front) == set()
    for planted in ("it loses 0.05 points more", "alone it took 6 min 43 s", "and 1.3 GB at the peak"):
        assert typed(f"{front} {planted}.")


def test_no_accuracy_is_typed_into_the_baselines() -> None:
    """Their docstrings say what was compared; what came out belongs into a store."""
    files = sorted((ROOT / "refldnq" / "baselines").glob("*.py"))
    texts = {file.name: re.sub(r"\s+", " ", file.read_text("utf-8")) for file in files}
    assert len(texts) > 10
    assert {name: found for name, text in texts.items() if (found := ACCURACY.findall(text))} == {}
    assert ACCURACY.findall("a ResNet-20 had 54.3 % of 2,000 held-out training images right")


def test_the_page_names_our_methods() -> None:
    text = " ".join(PAGE.read_text("utf-8").split())
    assert f"ours ({', '.join(f'`{name}`' for name in OURS)})" in text
