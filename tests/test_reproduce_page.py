"""The page on reproducing: its generated sections are what the store says."""

from __future__ import annotations

import base64
import importlib.util
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

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


def planned(words: list[str], data: Path, patch: pytest.MonkeyPatch, folder: Path) -> dict[str, str]:
    """The runs of a command by their identities, with today's settings, networks and data."""
    found: dict[str, str] = {}

    def told(tasks: list[Task], *_: object, **__: object) -> None:
        found.update({task.id: task.run.words for task in tasks})

    patch.setattr("refldnq.experiments.reproduce.jobs.execute", told)
    places = {words[words.index("--store") + 1]: "none.sqlite", "docs/reproduce.md": "page.md"}
    own = [str(folder / places[word]) if word in places else word for word in words if word != "--show-only"]
    (folder / "page.md").write_text("", "utf-8")
    result = CliRunner().invoke(main, [*own, "--data", str(data)], catch_exceptions=False)
    assert found and result.exit_code == 1, result.output  # they are not finished: no store has them
    return found


def data_of(words: list[str], request: pytest.FixtureRequest) -> Path:
    if "digits" in words[words.index("--networks") + 1]:
        pytest.importorskip("sklearn", reason="the digits come from scikit-learn")
        return Path("digits")
    pytest.importorskip("torch", reason="the other networks are PyTorch checkpoints")
    data: Path = request.getfixturevalue("data_dir")
    return data


def stored() -> set[str]:
    """The identities of the finished runs that the repository keeps."""
    return {
        row.id for row in Store(ROOT / "benchmarks/results/reproduce.sqlite").rows() if row.state == "done"
    }


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_the_runs_that_would_be_done_today_are_stored(
    words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    data = data_of(words, request)
    # A command that names no seeds shows all that there are, of which 0 is the least.
    least = words if "--seeds" in words or data == Path("digits") else [*words, "--seeds", "0"]
    missing = planned(least, data, monkeypatch, tmp_path)
    assert [run for own, run in missing.items() if own not in stored()] == []
    others = planned([*words, "--images", "37"], data, monkeypatch, tmp_path)
    assert not stored() & set(others)


def test_the_stored_runs_are_those_that_would_be_done_today(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    found: set[str] = set()
    for words in commands():
        found |= set(planned(words, data_of(words, request), monkeypatch, tmp_path))
    stale = [row for row in Store(ROOT / "benchmarks/results/reproduce.sqlite").rows() if row.id not in found]
    assert [row.run.words for row in stale] == []


def test_the_pages_pictures_are_drawn_from_the_store() -> None:
    pytest.importorskip("sphinx", reason="the site's settings need Sphinx")
    pytest.importorskip("matplotlib", reason="figures need matplotlib")
    spec = importlib.util.spec_from_file_location("conf", ROOT / "docs" / "conf.py")
    assert spec is not None and spec.loader is not None
    conf = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conf)
    needed: list[str] = []
    app = SimpleNamespace(srcdir=PAGE.parent, env=SimpleNamespace(note_dependency=needed.append))

    def with_pictures(text: str) -> str:
        conf.with_pictures(app, "reproduce", source := [text])
        return source[0]

    text = PAGE.read_text("utf-8")
    wanted = re.findall("<!-- picture of (.+) -->", text)
    shown = re.findall(
        r'<img alt="reproduce (\S+) .*?" src="data:image/png;base64,(\S+)" />', with_pictures(text)
    )
    assert [exhibit for exhibit, _ in shown] == wanted == ["fig2a", "fig2c"]
    assert all(base64.b64decode(content).startswith(b"\x89PNG") for _, content in shown)
    assert {Path(file) for file in needed} == {ROOT / "benchmarks/results/reproduce.sqlite"}
    with pytest.raises(ValueError, match="must show runs, got none"):
        with_pictures(text.replace("benchmarks/results/reproduce.sqlite", "benchmarks/results/none.sqlite"))
    with pytest.raises(ValueError, match=r"must draw a picture, got: (.|\n)*No such option"):
        with_pictures(text.replace("--schedule capped --show-only", "--nothing"))
    with pytest.raises(ValueError, match="must have one command on its page, got 0"):
        with_pictures("<!-- picture of fig2b -->")


def test_a_number_typed_by_hand_is_found(copy: Path) -> None:
    assert stored()
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
