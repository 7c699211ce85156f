"""Runs in other processes, of joblib and of a Dask cluster, some of which are killed: each ends once.

Real runs by the real command are compared, all but their times, with those that one process has done alone.
Runs of nothing stand for what no real run does: kill its process, time and again.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refldnq.experiments.reproduce.jobs import BREAKS, Workers
from refldnq.experiments.reproduce.store import Row, Store

FOLDER = Path(__file__).parent

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "REFLDNQ_NUM_THREADS")
"""Sums of a BLAS may depend on its threads, of which each way to do the runs would choose another number."""


def environment() -> dict[str, str]:
    path = os.pathsep.join(map(str, (FOLDER.parent, FOLDER)))
    return {**os.environ, **dict.fromkeys(ONE_THREAD, "1"), "PYTHONPATH": path}


def program(name: str, *words: object) -> dict[str, Any]:
    """What a program prints: a process of its own, whose cluster cannot outlive it."""
    done = subprocess.run(
        [sys.executable, str(FOLDER / name), *map(str, words)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture
def _dask() -> None:
    pytest.importorskip("joblib", reason="--dask needs joblib")
    if importlib.util.find_spec("distributed") is None:
        pytest.skip("--dask needs distributed: no cluster is tested")


# ------------------------------------------------------------------ real runs


WORDS = (
    "table4",
    *"--networks mlp-digits --methods ldnq,dq --images 200 --seeds 0-1".split(),
    "--store",
)
"""Four runs, of which the first two, with weights updates, take a second and keep states meanwhile."""


@dataclass(frozen=True)
class Ran:
    """What a command has left and said, and how many runs it had claimed, most of the time, at once."""

    rows: Sequence[Row]
    said: str
    at_once: float = 0


def reproduce(folder: Path, *words: str) -> Ran:
    """Run the command in a process of its own, and watch its store meanwhile."""
    store, told = Store(folder / "runs.sqlite"), folder / "said"
    claims: list[int] = []
    with told.open("w") as file:
        running = subprocess.Popen(
            [sys.executable, "-m", "refldnq.cli", "reproduce", *words, *WORDS, str(store.path)],
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=file,
        )
        try:
            deadline = time.monotonic() + 400
            while running.poll() is None and time.monotonic() < deadline:
                states = [row.state for row in store.rows()]
                # Not the most: a run that has ended is claimed for a moment while the next one is, too.
                claims += [len(states)] if states and set(states) == {"claimed"} else []
                time.sleep(0.02)
        finally:
            running.kill()
    assert running.wait() == 0, told.read_text()[-3000:]
    return Ran(store.rows(), told.read_text(), statistics.median(claims))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The runs by one process, one by one."""
    pytest.importorskip("sklearn", reason="the digits come from scikit-learn")
    ran = reproduce(tmp_path_factory.mktemp("alone"), "--jobs", "1")
    assert [(row.run.method, row.run.seed) for row in ran.rows] == [
        (method, seed) for method in ("ldnq", "dq") for seed in (0, 1)
    ]
    assert {row.state for row in ran.rows} == {"done"}
    # Its own process does them: one claim at a time, and lines on the progress within a run.
    assert ran.at_once == 1 and len(progress(ran.said)) > len(ran.rows)
    return ran


def progress(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith("[")]


def lasting(row: Row) -> str:
    """A run's result to the last bit, without its times."""
    result = dict(row.result or {})
    result.pop("seconds", None)
    layers = [
        {key: value for key, value in layer.items() if key != "seconds"} for layer in result.get("layers", ())
    ]
    return json.dumps({**result, "layers": layers}, sort_keys=True)


def differences(found: Ran, expected: Ran) -> list[str]:
    """Where runs have not ended exactly once, and as `expected` has them."""
    wrong = []
    rows = {row.id: row for row in found.rows}
    if sorted(row.id for row in found.rows) != sorted(row.id for row in expected.rows):
        return ["a run has no row, or two, or was not asked for"]
    if "another process" in found.said:
        wrong.append("an outcome was not kept")
    for want in expected.rows:
        row, name = rows[want.id], want.run.words
        if (row.state, row.tries, row.reason) != ("done", 1, None):
            wrong.append(f"{name} is {row.state} at the try {row.tries}: {row.reason}")
        if sum(f"{name}: " in line and " points in " in line for line in found.said.splitlines()) != 1:
            wrong.append(f"the outcome of {name} was told twice or never")
        if lasting(row) != lasting(want):
            wrong.append(f"{name} has another result")
    return wrong


def test_two_processes_write_the_rows_of_one(alone: Ran, tmp_path: Path) -> None:
    pytest.importorskip("joblib", reason="--jobs needs joblib")
    found = reproduce(tmp_path, "--jobs", "2")
    assert differences(found, alone) == []
    # They are at work at the same time, and tell of no step within a run.
    assert found.at_once == 2 and len(progress(found.said)) == len(found.rows)


@pytest.mark.slow
@pytest.mark.usefixtures("_dask")
@pytest.mark.parametrize("what", ["leave", "kill"])
def test_a_dask_cluster_writes_the_rows_of_one_process(what: str, alone: Ran, tmp_path: Path) -> None:
    """Though one of its two workers is killed in the middle of a run."""
    found = program("cluster_runs.py", what, *WORDS, tmp_path / "runs.sqlite")
    assert found["code"] == 0, found["said"]
    ran = Ran(Store(tmp_path / "runs.sqlite").rows(), found["said"])
    assert differences(ran, alone) == []
    # Nobody else's workers have begun them; what was lost is the run that was killed, and it alone.
    lost = dict.fromkeys((row.id for row in alone.rows), 0)
    if what == "kill":
        _, run = found["killed"]
        assert run in {row.id for row in alone.rows if row.run.method == "ldnq"}
        lost[run] = 1
    assert found["lost"] == lost
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs.sqlite"]  # no state is left


def other(row: Row, key: str) -> Row:
    """The same row with one bit of a number changed."""
    result = json.loads(json.dumps(row.result))
    own = result if key in result else result["layers"][1]
    own[key] = float(np.nextafter(own[key], np.inf))
    return replace(row, result=result)


@pytest.mark.parametrize(
    "fault", ["missing", "twice", "unfinished", "tried twice", "one bit", "one bit of a layer", "told twice"]
)
def test_the_comparison_finds_planted_faults(fault: str, alone: Ran) -> None:
    first, *rest = alone.rows
    line = next(line for line in alone.said.splitlines() if " points in " in line)
    faulty = {
        "missing": replace(alone, rows=rest),
        "twice": replace(alone, rows=[first, *alone.rows]),
        "unfinished": replace(alone, rows=[replace(first, state="claimed"), *rest]),
        "tried twice": replace(alone, rows=[replace(first, tries=2), *rest]),
        "one bit": replace(alone, rows=[other(first, "output_error"), *rest]),
        "one bit of a layer": replace(alone, rows=[other(first, "alpha"), *rest]),
        "told twice": replace(alone, said=f"{alone.said}{line}\n"),
    }[fault]
    assert differences(alone, alone) == []
    assert len(differences(faulty, alone)) == 1


# ------------------------------------------------------------------ runs of nothing


POISON = 3
"""Seed of the run that kills its processes."""


def faults(found: dict[str, Any], seeds: list[int]) -> list[str]:
    """Where runs did not end exactly once; the poison and the last, without a method, as failures."""
    wrong = []
    rows = sorted(found["rows"])
    if [row[0] for row in rows] != seeds:
        wrong.append("a run has no row, or two")
    if sorted(found["told"]) != [[seed, True] for seed in seeds]:
        wrong.append("an outcome was told twice, never, or not kept")
    for seed, state, _, reason, result in rows:
        if seed == POISON:
            good = state == "failed" and reason.startswith("its process died: ") and "\n" not in reason
        elif seed == seeds[-1]:
            good = (state, reason) == ("failed", "missing: there is no method 'prayer'")
        else:
            good = state == "done" and reason is None and result["seed"] == seed
        if not good:
            wrong.append(f"run {seed} is {state}: {reason}")
    return wrong


@pytest.mark.usefixtures("_dask")
def test_a_run_that_kills_workers_of_a_dask_cluster_fails_and_the_others_are_done(tmp_path: Path) -> None:
    found = program("worker_runs.py", "dask", tmp_path)
    assert faults(found, list(range(5))) == []
    # Dask gives a run to another worker: nobody claimed it a second time.
    assert {row[2] for row in found["rows"]} == {1}
    assert sum(name.startswith(f"{POISON}-") for name in found["begun"]) == BREAKS


def test_a_run_that_kills_its_process_fails_and_the_others_are_done(tmp_path: Path) -> None:
    pytest.importorskip("joblib", reason="--jobs needs joblib")
    assert faults(program("worker_runs.py", "jobs", tmp_path), list(range(5))) == []


GOOD: dict[str, Any] = {
    "rows": [
        [0, "done", 1, None, {"seed": 0}],
        [1, "failed", 1, "missing: there is no method 'prayer'", None],
    ],
    "told": [[1, True], [0, True]],
}

PLANTED: dict[str, dict[str, Any]] = {
    "a row twice": {"rows": [GOOD["rows"][0], *GOOD["rows"]]},
    "a row missing": {"rows": GOOD["rows"][1:]},
    "not finished": {"rows": [[0, "claimed", 1, None, {"seed": 0}], GOOD["rows"][1]]},
    "another's result": {"rows": [[0, "done", 1, None, {"seed": 1}], GOOD["rows"][1]]},
    "told twice": {"told": [*GOOD["told"], [0, True]]},
    "not kept": {"told": [[1, True], [0, False]]},
}


@pytest.mark.parametrize("name", PLANTED)
def test_the_check_finds_planted_faults(name: str) -> None:
    assert faults(GOOD, [0, 1]) == []
    assert faults({**GOOD, **PLANTED[name]}, [0, 1]) != []


@pytest.mark.parametrize("jobs", [0, -1])
def test_workers_are_checked(jobs: int) -> None:
    with pytest.raises(ValueError, match="`jobs`"):
        Workers(jobs=jobs)
