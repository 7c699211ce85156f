"""The benchmarks' own machinery: what is kept, what is written, and that the quick run works."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refldnq._plain import plain
from refldnq.data import Dataset, Preprocess
from refldnq.experiments.profiles import profile_settings
from refldnq.experiments.run import QuantizeRequest, quantize_model
from refldnq.layers import Flatten, Linear, ReLU
from refldnq.ldnq import ldnq
from refldnq.ldnq_settings import LdnqSettings
from refldnq.model import Model
from refldnq.network import Network, Node
from refldnq.progress import Progress
from refldnq.solvers.admm_plus import AdmmPlusSettings
from refldnq.solvers.anneal import AnnealSettings

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
MODULES = tuple(path.stem for path in sorted(FOLDER.glob("*.py")))
NEEDS_TORCH = ("twins", "speed_layers", "speed_projection", "speed_solvers", "speed_update")
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")

Load = Callable[[str], Any]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Import a module of the benchmarks as their scripts do, and forget it afterwards."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module
    for name in MODULES:
        sys.modules.pop(name, None)


def start(*arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(FOLDER), *filter(None, sys.path)])}
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, errors = process.communicate(timeout=300)
    return process.returncode, output, errors


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=needs_torch if name in NEEDS_TORCH else ()) for name in MODULES]
)
def test_doctests(load: Load, name: str) -> None:
    assert doctest.testmod(load(name)).failed == 0


# ---------------------------------------------------------------------- the store


def test_a_row_is_never_made_twice(load: Load, tmp_path: Path) -> None:
    store = load("store").Store(tmp_path / "new" / "rows.json")
    calls = []

    def work() -> dict[str, Any]:
        calls.append(1)
        return {"drop": 4.0, "layers": np.array([1.0, np.nan])}

    first = store.run({"network": "resnet20", "seed": 0}, work)
    assert store.run({"seed": 0, "network": "resnet20"}, work) == first
    assert len(calls) == 1
    assert first["result"] == {"drop": 4.0, "layers": [1.0, None]}
    store.run({"network": "resnet20", "seed": 1}, work)
    assert [row["key"]["seed"] for row in store.rows()] == [0, 1]
    with pytest.raises(ValueError, match=r"`key` must be new, got .* a second time"):
        store.add({"network": "resnet20", "seed": 0}, {})


def test_a_failed_run_leaves_no_row(load: Load, tmp_path: Path) -> None:
    store = load("store").Store(tmp_path / "rows.json")
    with pytest.raises(ZeroDivisionError):
        store.run({"seed": 0}, lambda: {"drop": 1 / 0})
    with pytest.raises(TypeError, match="`value` must be made of JSON values"):
        store.run({"seed": 0}, lambda: {"drop": object()})
    assert store.rows() == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["{", "[]", '{"rows": [{"key": {}}]}', '{"rows": 1}'])
def test_a_foreign_file_is_refused(load: Load, tmp_path: Path, content: str) -> None:
    file = tmp_path / "rows.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"rows\.json` must hold"):
        load("store").Store(file).rows()


WRITER = """
import sys
from pathlib import Path
from store import Store
store = Store(Path(sys.argv[1]))
for i in range(int(sys.argv[2]), int(sys.argv[3])):
    store.run({"seed": i}, lambda: {"drop": float(i), "padding": "x" * 20_000})
    print(i, flush=True)
"""


def test_a_killed_writer_leaves_whole_rows(load: Load, tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    store = load("store").Store(file)
    for attempt in range(4):
        process = start("-c", WRITER, str(file), "0", "100000")
        assert process.stdout is not None
        process.stdout.readline()  # the first row is there, old or new
        time.sleep(0.02 * attempt)
        process.kill()
        told = [int(line) for line in process.communicate()[0].split()]
        seeds = [row["key"]["seed"] for row in store.rows()]
        assert seeds == list(range(len(seeds)))  # whole, without repetition, in order
        assert len(seeds) > max([0, *told])  # what was told to be kept is kept
    before = len(store.rows())
    store.add({"seed": -1}, {"drop": 0.0})  # the lock of the killed process is open
    assert len(store.rows()) == before + 1


def test_two_writers_lose_no_row(load: Load, tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    writers = [start("-c", WRITER, str(file), str(10 * i), str(10 * i + 10)) for i in range(2)]
    assert [finish(writer)[0] for writer in writers] == [0, 0]
    assert sorted(row["key"]["seed"] for row in load("store").Store(file).rows()) == list(range(20))


def test_the_hash_sees_every_setting(load: Load) -> None:
    settings_hash = load("store").settings_hash
    ldnq_settings = load("published").ldnq_settings
    texts = ["epochs=8", "copies=8", "statistics=running", "flip=false", "learning_rate=0.003"]
    hashes = {settings_hash(ldnq_settings([text])) for text in texts}
    assert len(hashes) == len(texts)
    default = ldnq_settings([]).update.epochs
    assert settings_hash(ldnq_settings([f"epochs={default}"])) == settings_hash(ldnq_settings([]))


# ---------------------------------------------------------------------- Markdown


def test_a_section_replaces_itself_only(load: Load, tmp_path: Path) -> None:
    write_section = load("store").write_section
    file = tmp_path / "README.md"
    file.write_text("# Title\n\n<!-- a: generated -->\nold\n<!-- a: end -->\n\nText.\n", encoding="utf-8")
    write_section(file, "a", "new")
    assert file.read_text() == "# Title\n\n<!-- a: generated -->\nnew\n<!-- a: end -->\n\nText.\n"
    write_section(file, "b", "more")
    assert file.read_text().endswith("Text.\n\n<!-- b: generated -->\nmore\n<!-- b: end -->\n")
    file.write_text("<!-- a: generated -->\n", encoding="utf-8")
    with pytest.raises(ValueError, match="or neither, got one"):
        write_section(file, "a", "new")


def speed_row(group: str, name: str, against: str, ratio: float) -> dict[str, Any]:
    return {
        "group": group,
        "name": name,
        "dtype": "float64",
        "against": against,
        "ours": {"median": 0.002, "min": 0.001, "calls": 9},
        "other": {"median": 0.002 * ratio, "min": 0.001 * ratio, "calls": 9},
        "ratio": ratio,
        "difference": 0.0,
        "tolerance": 1e-11,
        "elsewhere": 0.0,
    }


def speed_record(speed: Any) -> dict[str, Any]:
    rows = [
        speed_row("layers", "Conv2d", "torch", 4.0),
        speed_row("admm", "d = 576, m = 64", "torch", 1.0),
        speed_row("admm", "d = 576, m = 64", "numpy solve", 6.0),
        speed_row("admm", "d = 144, m = 16", "numpy solve", 1.5),
    ]
    machine = {
        "processor": "P",
        "cores": 2,
        "threads": 2,
        "system": "S",
        "python": "3.11",
        "packages": {"numpy": "2"},
    }
    return {
        "date": "2020-01-01",
        "quick": False,
        "effort": {"repeats": 9},
        "machine": machine,
        "rows": rows,
        "means": speed.means(rows),
        "targets": speed.targets(rows),
        "disturbed": 0,
    }


def test_speed_tables(load: Load, tmp_path: Path) -> None:
    speed = load("speed")
    record = speed_record(speed)
    text = speed.markdown(record)
    assert "| all rows, float64, geometric mean | torch | 2 | 2.00 | yes |" in text
    assert "| ADMM, d = 576 | numpy solve | 5 | 6.00 | yes |" in text
    assert "| all | numpy solve | float64 | 2 | 3.00 |" in text
    assert "| layers | torch | float64 | 1 | 4.00 |" in text
    assert "| Conv2d | float64 | 2 (1) | torch | 8 (4) | 4.00 |" in text
    with pytest.raises(ValueError, match="must be of a full run"):
        speed.markdown({**record, "quick": True})
    source, target = tmp_path / "speed.json", tmp_path / "README.md"
    source.write_text(json.dumps(record), encoding="utf-8")
    script = str(FOLDER / "speed.py")
    code, _, errors = finish(start(script, "--json", str(source), "--markdown", str(target)))
    assert (code, errors) == (0, "")
    assert text in target.read_text(encoding="utf-8")


def accuracy_row(seed: int, drop: float, method: str = "ldnq") -> dict[str, Any]:
    return {
        "key": {
            "network": "resnet20",
            "method": method,
            "seed": seed,
            "images": 500,
            "levels": 3,
            "settings": method,
        },
        "result": {
            "correct_before": 9200,
            "correct_after": round(9200 - 100 * drop),
            "total": 10000,
            "drop": drop,
            "seconds": 60.0,
            "update_images": 15000 * 19 if method == "ldnq" else 0,
            "updates": 19 if method == "ldnq" else 0,
            "mean_bits": None,
            "settings": plain((LdnqSettings() if method == "ldnq" else LdnqSettings(update=None)).explicit),
        },
    }


def test_accuracy_table(load: Load) -> None:
    accuracy = load("accuracy")
    other = accuracy_row(0, 12.0, "ldnq-")
    other["key"]["settings"] = "another"  # before those of "ldnq-", if it went by the hash
    other["result"]["settings"] = plain(LdnqSettings(update=None, correct_bias=True).explicit)
    rows = [accuracy_row(0, 3.0), accuracy_row(1, 5.0), other, accuracy_row(0, 13.0, "ldnq-")]
    lines = accuracy.markdown(rows).splitlines()
    assert lines[2] == (
        "| resnet20 | ldnq | 500 | 3 | defaults | 2 | 92.00 | 88.00 | 4.00 | 3.00 | 1.00 | 4.30 | 15000 × 19 "
        "| 1.0 |"
    )
    assert lines[3] == (
        "| resnet20 | ldnq- | 500 | 3 | defaults | 1 | 92.00 | 79.00 | 13.00 | 13.00 |  | 13.66 | 0 | 1.0 |"
    )
    assert " | correct_bias=true | " in lines[4] and len(lines) == 5


def test_rows_older_than_a_profile_do_not_pass_for_it(load: Load) -> None:
    accuracy = load("accuracy")
    best = profile_settings("best")
    for settings, text in (
        (best, "defaults"),
        (replace(best, code_epochs=0), "code_epochs=0"),
        (
            replace(best, final_epochs=5, solver_settings=AnnealSettings(per_channel=True)),
            "final_epochs=5,per channel",
        ),
    ):
        row: dict[str, Any] = {"settings": plain(settings.explicit), "mean_bits": None}
        assert accuracy.changes_of(row, "best") == text
    row = {
        "settings": plain(replace(best, code_epochs=0).explicit),
        "mean_bits": 1.585,
        "allocation": plain(accuracy.allocating()),
    }
    assert "code_epochs" not in row["settings"]  # the row may be older than the setting
    assert accuracy.changes_of(row, "best") == "1.585 bits in the mean,code_epochs=0"
    row["allocation"][0]["iterations"] = 150
    row["allocation"][2] += 1
    found = accuracy.changes_of(row, "best").split(",")
    assert found[1:] == ["admm_plus.iterations=150", "another choice of levels", "code_epochs=0"]


def test_settings_that_a_row_lacks_are_told(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    told = load("published").solver_changes
    own = plain(AnnealSettings())
    assert told("anneal", own) == [] and told("anneal", {**own, "start": None}) == ["anneal.start=None"]
    assert told("anneal", {**own, "gone": 1}) == ["anneal.gone=1"]
    del own["rounds"]
    assert told("anneal", own) == []
    monkeypatch.setattr("refldnq.solvers.anneal.DEFAULT", AnnealSettings(rounds=7))
    assert told("anneal", own) == ["anneal.rounds=10"]


def test_a_solver_with_other_defaults_makes_other_rows(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    accuracy, study, data = load("accuracy"), load("study"), tiny_data(60, 1)
    best = profile_settings("best")
    plans = {
        name: accuracy.request("best", best, seed=0, images=20, levels=3, dtype="float32", mean_bits=bits)
        for name, bits in (("levels", None), ("budget", 1.585))
    }

    def keys() -> dict[str, Any]:
        found = {name: accuracy.key_of("tiny", "best", asked, data) for name, asked in plans.items()}
        return {**found, "study": study.key_of("tiny", best, data, 0)}

    before, row = keys(), {"settings": plain(best.explicit), "mean_bits": None}
    assert accuracy.changes_of(row, "best") == "defaults"
    monkeypatch.setattr("refldnq.solvers.admm_plus.DEFAULT", AdmmPlusSettings(iterations=7))
    measuring = keys()
    assert {name for name in before if before[name] != measuring[name]} == {"budget"}
    monkeypatch.setattr("refldnq.solvers.anneal.DEFAULT", AnnealSettings(start=AdmmPlusSettings()))
    solving = keys()
    assert all(solving[name] != measuring[name] for name in before)
    assert accuracy.changes_of(row, "best") == "anneal.start.iterations=150"
    known = {"settings": load("published").flat(best), "solver_settings": row["settings"]["solver_settings"]}
    assert study.complete({"result": known})["solver"] == "anneal,anneal.start.iterations=150"


def test_study_table(load: Load) -> None:
    study = load("study")
    rows = [
        {
            "key": {"network": "resnet20", "seed": 0},
            "result": {
                "accuracy": 90.0 + epochs,
                "agreement": 91.0,
                "teacher": 99.8,
                "output_error": 80.0 - epochs,
                "seconds": 30.0,
                "settings": load("published").flat(load("published").ldnq_settings([f"epochs={epochs}"])),
                "solver_settings": plain(LdnqSettings().resolved),
            },
        }
        for epochs in (1, 2)
    ]
    lines = study.markdown(rows).splitlines()
    assert lines[0].startswith("| network | seed | epochs | accuracy, %")  # the one setting that varies
    assert lines[2] == "| resnet20 | 0 | 2 | 92.00 | 91.00 | 78.00 | 99.80 | 0.5 |"  # least error first


def test_a_setting_is_chosen_by_rows_that_differ_in_it_alone(load: Load) -> None:
    study, published = load("study"), load("published")

    def row(error: float, changes: str, seed: int = 0) -> dict[str, Any]:
        chosen = published.ldnq_settings(changes.split(","))
        settings = published.flat(chosen)
        del settings["validation"]  # a row that is older than this setting
        result = {"output_error": error, "agreement": 100 - error, "settings": settings}
        result["solver_settings"] = plain(chosen.resolved)
        return {"key": {"network": "n", "seed": seed, "settings": changes}, "result": result}

    rows = [
        row(9.0, "epochs=1,copies=1"),
        row(8.0, "epochs=2,copies=2"),
        row(7.0, "epochs=2,copies=2,ridge=0.1"),
        row(6.0, "epochs=2,copies=2,ridge=0.1,mix=0.5"),
        row(5.0, "epochs=2,copies=2,ridge=0.3", seed=1),  # other images
        row(4.0, "epochs=1,copies=1,flip=false,target=drift"),  # two changes
        row(3.0, "epochs=2,copies=2,code_rate=0.5,cascades=2"),  # a rate without effect
        row(2.0, "epochs=2,copies=2,code_rate=0.5,cascades=2,code_epochs=3"),
        row(1.0, "epochs=2,copies=2,cascades=2,code_epochs=3"),
    ]
    lines = {line.split(" | ")[0]: line.split(" | ")[2] for line in study.choices(rows).splitlines()[2:]}
    assert lines["| `epochs`"] == "1, 1, 96: 9.00 (91.00) against 2, 2, 96: 8.00 (92.00) |"
    assert lines["| `ridge`"] == "0.01: 8.00 (92.00) against 0.1: 7.00 (93.00) |"
    assert lines["| `mix`"] == "0.0: 7.00 (93.00) against 0.5: 6.00 (94.00) |"
    assert lines["| `cascades`"] == "1: 8.00 (92.00) against 2: 3.00 (97.00) |"
    assert lines["| `code_rate`"] == "0.5: 2.00 (98.00) against 0.015: 1.00 (99.00) |"
    assert lines["| `flip`"] == lines["| `target`"] == lines["| `solver`"] == "no pair of rows |"
    every = set(published.flat(load("study").profile_settings("best")))
    assert {name.strip("| `") for name in lines} == every - set(study.IDLE)


def test_tables_in_the_readme_are_generated(load: Load) -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    front = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    makers: dict[str, Callable[[Path], str]] = {
        "speed": lambda file: str(load("speed").markdown(json.loads(file.read_text(encoding="utf-8")))),
        "accuracy": lambda file: str(load("accuracy").markdown(load("store").Store(file).rows())),
        "bounds": lambda file: str(load("bounds").markdown(load("store").Store(file).rows())),
        "commands": lambda file: str(load("commands").markdown(load("store").Store(file).rows())),
        "certificates": lambda file: str(load("certificates").markdown(load("store").Store(file).rows())),
        "networks": lambda file: str(load("networks").markdown(load("store").Store(file).rows())),
        "optimum": lambda file: str(load("optimum").markdown(load("store").Store(file).rows())),
        "pipeline": lambda file: str(load("pipeline").markdown(load("store").Store(file).rows())),
        "solvers": lambda file: str(load("solvers").markdown(load("store").Store(file).rows())),
        "study": lambda file: str(load("study").markdown(load("store").Store(file).rows())),
    }
    for name, make in makers.items():
        section = readme.split(f"<!-- {name}: generated -->\n")[1].split(f"\n<!-- {name}: end -->")[0]
        file = FOLDER / "results" / f"{name}.json"
        assert section == (make(file) if file.exists() else "Not measured yet.")
        assert name not in ("accuracy", "pipeline") or section in front  # the front page too


AIMS = {
    ("resnet20", 3, "defaults"): (5, 2.0),
    ("resnet20", 3, "per channel"): (5, 1.5),
    ("resnet20", 5, "defaults"): (2, 0.6),
    ("resnet32", 3, "defaults"): (2, 1.7),
    ("resnet56", 3, "defaults"): (2, 1.7),
}
"""Of the profile best with 500 images: the fewest seeds, and the largest mean drop in points."""


def test_stored_results_reach_what_they_aim_at(load: Load) -> None:
    """A row that is measured anew must not fall behind."""

    def rows(name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = load("store").Store(FOLDER / "results" / f"{name}.json").rows()
        return found

    found = [one for one in load("accuracy").summaries(rows("accuracy")) if one["images"] == 500]
    best = {(one["network"], one["levels"], one["changes"]): one for one in found if one["method"] == "best"}
    for known, (seeds, most) in AIMS.items():
        assert best[known]["n"] >= seeds and best[known]["drop"] <= most, best[known]

    solvers = load("solvers")
    errors = {
        (row["key"]["levels"], row["key"]["solver"]): np.log(row["result"]["relative_errors"])
        for row in solvers.todays(rows("solvers"))
    }
    for levels in (3, 5):
        for name, most in (("admm_plus", 0.75), ("blocks", 0.7)):
            ratio = np.exp(np.mean(errors[levels, name] - errors[levels, solvers.REFERENCE]))
            assert ratio <= most, (levels, name, ratio)

    optimum = load("optimum")
    hits = {
        (row["key"]["levels"], row["key"]["solver"]): row["result"]["hits"]
        for row in rows("optimum")
        if row["key"]["settings"] == optimum.EVERY[row["key"]["solver"]].hash
    }
    assert set(hits) == {(levels, name) for levels in optimum.ROWS for name in optimum.EVERY}
    for levels in optimum.ROWS:
        assert hits[levels, "exact"] == 100
        assert min(hits[levels, "anneal"], hits[levels, "blocks"]) >= 85

    (timed,) = (row["result"] for row in rows("pipeline") if row["key"]["options"] == "--profile best")
    assert timed["wall_seconds"] <= 15 * 60 and timed["machine"]["threads"] == 2


def test_every_variant_of_the_study_was_run(load: Load) -> None:
    study, store = load("study"), load("store").Store(FOLDER / "results" / "study.json")
    first = [row for row in store.rows() if (row["key"]["network"], row["key"]["seed"]) == ("resnet20", 0)]
    done = [study.complete(row) for row in first]
    for text in study.VARIANTS:
        own = study.ldnq_settings(text.split(","))
        wanted = {"settings": plain(study.flat(own)), "solver_settings": plain(own.resolved)}
        assert study.complete({"result": wanted}) in done, text


def test_the_work_of_children_is_not_that_of_others(load: Load) -> None:
    timing = load("timing")
    if not Path("/proc/stat").exists():
        pytest.skip("needs /proc: elsewhere nobody counts the work of others")
    spin = "import time\nend = time.process_time() + 0.5\nwhile time.process_time() < end: pass"
    before = [timing.seconds_elsewhere(children=flag) for flag in (False, True)]
    subprocess.run([sys.executable, "-c", spin], check=True)
    grown = [timing.seconds_elsewhere(children=flag) for flag in (False, True)]
    shares = [after - start for after, start in zip(grown, before, strict=True)]
    assert 0.45 <= shares[0] - shares[1] <= 5.0  # the child's work, and its start


def test_a_pipeline_row(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, calls = load("pipeline"), []

    def run(*words: str) -> tuple[float, float, float]:
        calls.append(words)
        if words[0] == "quantize":
            report = {
                "accuracy_before": 92.0, "accuracy_after": 88.0, "drop": 4.0, "seconds": 600.0,
                "peak_rss_mb": 890.0, "update_images": 1, "provenance": {"request": {"images": 500}},
            }  # fmt: skip
            Path(words[words.index("--json") + 1]).write_text(json.dumps(report), encoding="utf-8")
        return 612.0, 900.0, 0.25

    monkeypatch.setattr(pipeline, "run", run)
    store = load("store").Store(tmp_path / "rows.json")
    key = {"network": "resnet20", "options": "--profile best", "threads": 2}
    store.run(key, lambda: pipeline.measure(tmp_path, "resnet20", ("--profile", "best")))
    assert calls[1][-2:] == ("--profile", "best")
    line = pipeline.markdown(store.rows()).splitlines()[2]
    assert line == "| resnet20 | `--profile best` | 500 | 92.00 | 88.00 | 10.2 | 900 | 2 | 0.25 |"


def test_a_command_is_run_in_a_folder_of_its_own(load: Load, tmp_path: Path) -> None:
    store = load("store").Store(tmp_path / "rows.json")
    command = "inspect --help"
    store.run({"command": command, "threads": 1}, lambda: load("commands").measure(command))
    row = store.rows()[0]["result"]
    assert row["wall_seconds"] > 0 and 5 < row["peak_rss_mb"] < 1000
    line = load("commands").markdown(store.rows()).splitlines()[2]
    assert line.startswith("| `refldnq inspect --help` | ")
    with pytest.raises(ChildProcessError, match="`refldnq inspect` must succeed"):
        load("commands").measure("inspect none.h5")


# ---------------------------------------------------------------------- the study's images


def test_held_out_images_are_others(load: Load) -> None:
    study = load("study")
    chosen = tuple(range(0, 1000, 2))
    places = study.held_out(6000, chosen, seed=3)
    assert places.size == len(set(places.tolist())) == study.HELD_OUT
    assert not set(places.tolist()) & set(chosen)
    with pytest.raises(ValueError, match="`count` must be at most 500"):
        study.held_out(1000, chosen, seed=3)


REFUSAL = """
import sys
from pathlib import Path
import numpy as np
import study
folder = Path(sys.argv[1])
sys.addaudithook(study.refuse_test_images)
np.fromfile(folder / "data_batch_1.bin", np.uint8)
for read in (lambda path: np.fromfile(path, np.uint8), lambda path: path.read_bytes(), open):
    try:
        read(folder / "test_batch.bin")
    except PermissionError:
        print("refused")
"""


def test_the_study_cannot_open_test_images(tmp_path: Path) -> None:
    for name in ("data_batch_1.bin", "test_batch.bin"):
        (tmp_path / name).write_bytes(b"0")
    assert finish(start("-c", REFUSAL, str(tmp_path))) == (0, "refused\n" * 3, "")


# ---------------------------------------------------------------------- runs


def tiny_model() -> Model:
    rng = np.random.default_rng(0)
    nodes = (
        Node("flatten", Flatten(), ("input",)),
        Node("fc1", Linear(4, 8), ("flatten",)),
        Node("relu", ReLU(), ("fc1",)),
        Node("fc2", Linear(8, 2), ("relu",)),
    )
    params = {
        name: {"weight": rng.standard_normal(shape), "bias": np.zeros(shape[0])}
        for name, shape in (("fc1", (8, 4)), ("fc2", (2, 8)))
    }
    return Model(network=Network(nodes, params, (1, 2, 2)), preprocess=Preprocess())


def tiny_data(count: int, seed: int) -> Dataset:
    rng = np.random.default_rng(seed)
    return Dataset(rng.standard_normal((count, 1, 2, 2)), rng.integers(0, 2, count), ("no", "yes"), "tiny")


def test_a_study_row(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    study = load("study")
    monkeypatch.setattr(study, "IMAGES", 20)
    monkeypatch.setattr(study, "held_out", partial(study.held_out, count=30))
    settings = load("published").ldnq_settings(["epochs=2", "copies=1", "batch_size=10"])
    row = load("store").plain(study.score(tiny_model(), tiny_data(60, 1), settings, 0, {}))
    assert row["changes"] == "epochs=2,batch_size=10,copies=1"
    assert row["update_images"] == 2 * 20  # one update: behind the last layer nothing moves
    assert 0 <= row["agreement"] <= 100
    assert row["output_error"] > 0
    json.dumps(row, allow_nan=False)


def test_a_study_is_of_what_users_run(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    study, settings = load("study"), load("published").ldnq_settings
    monkeypatch.setattr(study, "IMAGES", 20)
    model, data, starts = tiny_model(), tiny_data(60, 1), dict[str, Progress]()
    resumed = []

    def watched(*arguments: Any, **options: Any) -> Progress:
        resumed.append(options["resume"] is not None)
        return ldnq(*arguments, **options)

    monkeypatch.setattr(study, "ldnq", watched)
    base = "solver=anneal,epochs=2,copies=1,batch_size=10"
    ends = [
        "final_epochs=2",
        "final_epochs=1,final_scales=false",
        "final_epochs=1,code_epochs=3,code_rate=0.3,code_mix=0.1",
        "code_epochs=3,code_rate=0.3,code_intermediate=0",
        "final_epochs=0",
    ]
    seen = []
    for end in ends:
        changed = settings(f"{base},{end}".split(","))
        final, chosen = study.quantized(model, data, changed, 4, starts)
        whole = quantize_model(model, data, QuantizeRequest(settings=changed, images=20, seed=4))
        assert tuple(chosen) == whole.indices
        for name, arrays in whole.model.network.params.items():
            for key, array in arrays.items():
                assert np.array_equal(final.network.params[name][key], array)
        seen.append(final.network.params["fc2"]["weight"].tobytes())
    assert resumed == [False, True, True, True, False] and len(set(seen)) > 2
    for other, seed in ((f"{base},final_epochs=1,ridge=0.1", 4), (f"{base},final_epochs=1", 5)):
        study.quantized(model, data, settings(other.split(",")), seed, starts)
    assert not any(resumed[5:]) and len(starts) == 3


@pytest.mark.parametrize("method", ["ldnq", "ldnq-", "dq"])
def test_an_accuracy_row(load: Load, tmp_path: Path, method: str) -> None:
    accuracy, store = load("accuracy"), load("store").Store(tmp_path / "rows.json")
    settings = load("published").ldnq_settings(["epochs=2", "copies=1", "batch_size=10"])
    asked = accuracy.request(method, settings, seed=0, images=20, levels=3, dtype="float32")
    data, test = tiny_data(60, 1), tiny_data(40, 2)
    key = accuracy.key_of("tiny", method, asked, data)
    row = accuracy.run(store, key, tiny_model(), data, test, asked)
    assert accuracy.run(store, key, tiny_model(), data, test, asked) == row
    assert len(store.rows()) == 1
    assert (
        row["result"]["drop"] == 100 * (row["result"]["correct_before"] - row["result"]["correct_after"]) / 40
    )
    assert row["result"]["updates"] == (1 if method == "ldnq" else 0)
    assert len(row["result"]["layers"]) == 2
    assert list(tmp_path.iterdir()) == [store.path]  # no checkpoint is left
    assert accuracy.key_of("tiny", method, asked, tiny_data(60, 3)) != key  # other images, other run


def test_an_accuracy_row_of_the_profile_best(load: Load, tmp_path: Path) -> None:
    accuracy, store = load("accuracy"), load("store").Store(tmp_path / "rows.json")
    quick = ["epochs=2", "copies=2", "final_epochs=1", "solver=admm_plus"]
    settings = load("published").ldnq_settings(quick, accuracy.base_of("best"))
    assert settings.absorb and settings.target == "block"
    data, test = tiny_data(60, 1), tiny_data(40, 2)
    rows = {}
    for name, more in (("plain", {}), ("channels", {"per_channel": True}), ("budget", {"mean_bits": 2.0})):
        asked = accuracy.request("best", settings, seed=0, images=20, levels=3, dtype="float32", **more)
        key = accuracy.key_of("tiny", "best", asked, data)
        rows[name] = accuracy.run(store, key, tiny_model(), data, test, asked)["result"]
    assert len(store.rows()) == 3  # three keys
    changes = "solver=admm_plus,final_epochs=1,epochs=2,copies=2"
    found = {name: accuracy.changes_of(row, "best") for name, row in rows.items()}
    assert found == {
        "plain": changes,
        "channels": f"{changes},per channel",
        "budget": f"2.0 bits in the mean,{changes}",
    }
    assert {layer["levels"] for layer in rows["plain"]["layers"]} == {3}
    assert {layer["levels"] for layer in rows["budget"]["layers"]} != {3}


def test_a_certificates_row(load: Load, tmp_path: Path) -> None:
    certificates, store = load("certificates"), load("store").Store(tmp_path / "rows.json")
    model, data = tiny_model(), tiny_data(60, 1)
    key = certificates.key_of("tiny", data, images=20, levels=3, seed=0)
    row = store.run(key, lambda: certificates.run(model, data, images=20, levels=3, seed=0))
    assert store.run(key, lambda: {}) == row
    first, last = row["result"]["layers"]
    assert (first["name"], first["rows"], last["name"], last["rows"]) == ("fc1", 4, "fc2", 8)
    for layer in (first, last):
        assert 0 < layer["lower_bound"] <= layer["objective"]
        assert layer["objective"] == pytest.approx((1 + layer["gap"]) * layer["lower_bound"])
    rank_deficient = certificates.run(model, data, images=5, levels=3, seed=0, layers=("fc2",))
    (alone,) = load("store").plain(rank_deficient)["layers"]
    assert (alone["lower_bound"], alone["gap"], alone["method"]) == (0.0, None, "none")
    table = certificates.markdown([row, {"key": dict(key), "result": {"layers": [alone]}}]).splitlines()
    assert len(table) == 5 and table[2].startswith("| tiny fc1 | 4 | 3 | ")
    assert "no certificate" in table[4]
    assert certificates.key_of("tiny", tiny_data(60, 3), images=20, levels=3, seed=0) != key


def test_a_solvers_row(load: Load, tmp_path: Path) -> None:
    solvers, store = load("solvers"), load("store").Store(tmp_path / "rows.json")
    rng = np.random.default_rng(0)
    X, W = rng.standard_normal((30, 6)), rng.standard_normal((1, 6, 3))
    problems = [("fc", (2 / 30 * X.T @ X)[None], W)]
    for name in ("direct, mean", solvers.REFERENCE, "admm + descent", "anneal", solvers.BOUND):
        key = solvers.key_of("tiny", name, 3, 30)
        row = store.run(key, partial(solvers.measure, problems, solvers.REACHES[name], 3))
        assert 0 < row["result"]["relative_errors"][0] < 1 and row["result"]["layers"] == ["fc"]
    table = solvers.markdown(store.rows()).splitlines()
    ratios = {line.split(" | ")[2]: float(line.split(" | ")[4]) for line in table[2:7]}
    assert ratios[solvers.REFERENCE] == 1 and ratios["anneal"] <= ratios["admm + descent"] <= 1
    above = {line.split(" | ")[2]: line.split(" | ")[7] for line in table[2:7]}
    errors = {row["key"]["solver"]: row["result"]["relative_errors"][0] for row in store.rows()}
    assert (
        above["anneal"] == f"{errors['anneal'] / errors[solvers.BOUND]:.2f}"
        and above[solvers.BOUND] == "1.00"
    )
    by_layer = [cell.strip() for line in table[8:] for cell in line.strip("|").split(" | ")]
    assert by_layer[0] == "tiny, 3 levels" and f"{errors['anneal']:.4f}" in by_layer
    with pytest.raises(ValueError, match="the profile paper"):
        solvers.markdown(store.rows()[:1])
    # A row of a solver that had other settings does not pass for today's.
    old = {**solvers.key_of("tiny", "anneal", 3, 30), "settings": "0" * 12}
    for other in (old, {**old, "solver": "a name of before"}):
        store.run(other, lambda: {**row["result"], "relative_errors": [0.0]})
    assert solvers.markdown(store.rows()).splitlines() == table
    assert len({given.hash for given in solvers.REACHES.values()}) == len(solvers.REACHES)


def test_an_optimum_row(load: Load, tmp_path: Path) -> None:
    optimum, store = load("optimum"), load("store").Store(tmp_path / "rows.json")
    rng = np.random.default_rng(0)
    X, W = rng.standard_normal((2, 30, 9)), rng.standard_normal((2, 1, 9, 6))
    problems = [(f"fc{i}", (2 / 30 * X[i].T @ X[i])[None], W[i]) for i in range(2)]
    given = optimum.parts(problems, 3, rows=5, columns=3, seed=0)
    assert [part.layer for part in given] == ["fc0"] * 3 + ["fc1"] * 3
    for part in given:
        assert part.H.shape == (1, 5, 5) and part.W.shape == (1, 5, 1)
        whole = problems[int(part.layer[-1])][1][0]
        first = int(np.flatnonzero(np.diagonal(whole) == part.H[0, 0, 0])[0])
        assert np.array_equal(part.H[0], whole[first : first + 5, first : first + 5])
        weight = problems[int(part.layer[-1])][2][0, first : first + 5]
        assert (weight == part.W[0]).all(axis=0).any()
    for name in ("exact", "direct, mean"):
        work = partial(optimum.measure, given, optimum.EVERY[name], 3)
        store.run(optimum.key_of("tiny", name, 3, 30), work)
    rows = {row["key"]["solver"]: row["result"] for row in store.rows()}
    assert rows["exact"]["hits"] == 100.0 and rows["exact"]["worst"] == pytest.approx(1.0, rel=1e-9)
    assert rows["direct, mean"]["hits"] < 50 and rows["direct, mean"]["median"] > 1
    old = {**optimum.key_of("tiny", "exact", 3, 30), "settings": "0" * 12}
    for other in (old, {**old, "solver": "a name of before"}):
        store.run(other, lambda: {**rows["exact"], "hits": 0.0})
    table = optimum.markdown(store.rows()).splitlines()
    assert len(table) == 4 and table[-1].startswith("| tiny | 3 | 12 | exact | 6 | 100.0 | 1.000 | 1.000 | ")


def test_the_optimum_is_that_of_loops(load: Load) -> None:
    import itertools

    optimum, rng = load("optimum"), np.random.default_rng(1)
    X, W = rng.standard_normal((9, 4)), rng.standard_normal((4, 2))
    H = X.T @ X
    for levels, values in ((3, (-1, 0, 1)), (5, (-2, -1, 0, 1, 2))):
        for column, found in enumerate(optimum.enumerated(H, W, levels)):
            w, least = W[:, column], float("inf")
            for codes in itertools.product(values, repeat=4):
                q = np.array(codes, dtype=float)
                alpha = max(0.0, q @ H @ w / (q @ H @ q)) if q.any() else 0.0
                least = min(least, float(0.5 * (alpha * q - w) @ H @ (alpha * q - w)))
            assert found == pytest.approx(least, rel=1e-10)
    with pytest.raises(ValueError, match="must not be below the optimum"):  # planted: too high an optimum
        part = optimum.Part("fc", H[None], W[None, :, :1], 2 * optimum.enumerated(H, W, 3)[0])
        optimum.measure([part], optimum.EVERY["exact"], 3)


def test_certificates_hessians_are_those_of_the_original_network(load: Load) -> None:
    problems, model = load("layer_problems"), tiny_model()
    x = np.random.default_rng(0).standard_normal((250, 1, 2, 2))  # more than two batches
    found = problems.hessians(model, x, ("fc1", "fc2"))
    flat = x.reshape(250, 4)
    hidden = np.maximum(flat @ model.network.params["fc1"]["weight"].T, 0)
    for name, X in (("fc1", flat), ("fc2", hidden)):
        assert np.allclose(found[name][0], 2 / 250 * X.T @ X, rtol=1e-12)


# ---------------------------------------------------------------------- timing


def contest(timing: Any, other: Callable[[], Any]) -> Any:
    return timing.Contest(
        group="g",
        name="n",
        dtype="float64",
        ours=lambda: (np.arange(3.0), 1.0),
        others={"other": other},
        tolerance=1e-12,
    )


@pytest.mark.parametrize(
    "wrong",
    [
        (np.arange(3.0), 1.0 + 1e-9),
        (np.array([0.0, 1.0, np.nan]), 1.0),
        (np.array([np.nan, 1.0, 2.0]), 1.0),
        (np.arange(4.0), 1.0),
        (np.arange(3.0),),
    ],
)
def test_other_numbers_are_not_timed(load: Load, wrong: Any) -> None:
    timing = load("timing")
    assert timing.check(contest(timing, lambda: (np.arange(3.0), 1.0))) == {"other": 0.0}
    with pytest.raises(ValueError, match="must"):
        timing.measure(contest(timing, lambda: wrong), timing.Effort())


def test_sides_take_turns(load: Load) -> None:
    timing = load("timing")
    calls: list[str] = []
    sides = {name: (lambda name=name: calls.append(name)) for name in "ab"}
    taken = timing.take_turns(sides, timing.Effort(repeats=3, seconds=0.0))
    # One call each to see how long it takes, then turns of one untimed and one timed call.
    assert "".join(calls) == "ab" + "aabb" * 3
    assert [len(seconds) for seconds in taken.values()] == [3, 3]


def test_ratio_is_theirs_over_ours(load: Load) -> None:
    timing = load("timing")

    def slow() -> Any:
        time.sleep(0.01)
        return np.arange(3.0), 1.0

    (row,) = timing.measure(contest(timing, slow), timing.Effort(repeats=2))
    assert row["ratio"] > 1
    assert row["ratio"] == row["other"]["median"] / row["ours"]["median"]


@needs_torch
def test_quick_run(tmp_path: Path) -> None:
    file = tmp_path / "speed.json"
    code, output, errors = finish(
        start(str(FOLDER / "speed.py"), "--quick", "--only", "projection", "--json", str(file))
    )
    assert code == 0, errors
    record = json.loads(file.read_text(encoding="utf-8"))
    assert record["quick"]
    assert {row["against"] for row in record["rows"]} == {"torch", "numpy"}
    assert all(row["difference"] <= row["tolerance"] for row in record["rows"])
    assert "its times mean nothing" in output


@needs_torch
def test_an_unknown_group_is_refused() -> None:
    code, _, errors = finish(start(str(FOLDER / "speed.py"), "--only", "layers,speed"))
    assert code == 2
    assert "must be among layers, hessian, admm, projection, update, got 'speed'" in errors
