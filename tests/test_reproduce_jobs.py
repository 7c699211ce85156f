"""Runs in other processes, of joblib and of a Dask cluster, some of which are killed: each ends once."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from refldnq.experiments.reproduce.jobs import Workers

PROGRAM = Path(__file__).with_name("worker_runs.py")

ROOT = PROGRAM.parents[1]


def program(kind: str, folder: Path) -> dict[str, Any]:
    """What `worker_runs.py` prints: a process of its own, whose cluster cannot outlive it."""
    path = os.pathsep.join([str(ROOT), str(PROGRAM.parent)])
    done = subprocess.run(
        [sys.executable, str(PROGRAM), kind, str(folder)],
        env={**os.environ, "PYTHONPATH": path, "REFLDNQ_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


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


def test_a_killed_worker_of_a_dask_cluster(tmp_path: Path) -> None:
    pytest.importorskip("joblib", reason="--dask needs joblib")
    if importlib.util.find_spec("distributed") is None:
        pytest.skip("--dask needs distributed: no cluster is tested")
    found = program("dask", tmp_path)
    assert faults(found, list(range(8))) == []
    ((seed, pid),) = found["killed"]
    assert {f"{seed}-{pid}"} < {name for name in found["begun"] if name.startswith(f"{seed}-")}
    results = {row[0]: row[4] for row in found["rows"]}
    assert results[seed]["pid"] != pid
    # Dask gives the run to another worker: nobody claimed it a second time.
    assert {row[2] for row in found["rows"]} == {1}


def test_a_run_that_kills_its_process_fails_and_the_others_are_done(tmp_path: Path) -> None:
    pytest.importorskip("joblib", reason="--jobs needs joblib")
    assert faults(program("poison", tmp_path), list(range(5))) == []


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
