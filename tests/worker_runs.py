"""Runs of nothing by workers in processes of their own, one of which kills every process that it is given to.

Run as a program: ``python worker_runs.py dask|jobs FOLDER``; it prints what happened as JSON. A run here is
half a second of sleep that leaves a note when it begins. With ``jobs``, processes of joblib do them; with
``dask``, a cluster of two.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from refldnq import models
from refldnq.experiments.reproduce.jobs import Task, TaskOutcome, Workers, execute, work_on
from refldnq.experiments.reproduce.plan import PlannedRun
from refldnq.experiments.reproduce.sources import Sources, Zoo
from refldnq.experiments.reproduce.store import Store

SECONDS = 0.5

POISON = 3
"""Seed of the run that kills every process that touches it."""


def tasks(count: int) -> list[Task]:
    """Runs with nothing to do, but for the last, which names a method that does not exist."""
    zoo = Zoo(models.NAMES, models.SHIPPED, models.build, models.preprocess, models.shipped)
    methods = ["nothing"] * (count - 1) + ["prayer"]
    return [
        Task(run=PlannedRun("mlp-digits", method, 3, 10, seed), identity={}, sources=Sources(zoo))
        for seed, method in enumerate(methods)
    ]


def sleeper(folder: str) -> Any:
    """What a worker does with a task."""

    def work(task: Task) -> TaskOutcome:
        if task.run.method == "prayer":
            return work_on(task)
        (Path(folder) / f"begin-{task.run.seed}-{os.getpid()}").touch()
        if task.run.seed == POISON:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(SECONDS)
        return TaskOutcome(id=task.id, result={"pid": os.getpid(), "seed": task.run.seed})

    return work


def experiment(kind: str, folder: Path) -> dict[str, Any]:
    """Do the runs, and say what is in the store."""
    store = Store(folder / "runs.sqlite")
    told: list[tuple[int, bool]] = []
    with ExitStack() as stack:
        workers = Workers(jobs=2)
        if kind == "dask":
            from distributed import LocalCluster

            cluster = stack.enter_context(
                LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None)
            )
            workers = Workers(dask=cluster.scheduler_address)
        execute(
            tasks(5),
            store,
            workers,
            on_outcome=lambda task, outcome, kept: told.append((task.run.seed, kept)),
            work=sleeper(str(folder)),
        )
    return {
        "rows": [[row.run.seed, row.state, row.tries, row.reason, row.result] for row in store.rows()],
        "told": told,
        "begun": sorted(path.name.removeprefix("begin-") for path in folder.glob("begin-*")),
    }


if __name__ == "__main__":
    what, where = sys.argv[1:]
    found = experiment(what, Path(where))
    sys.stdout.write("\n" + json.dumps(found) + "\n")
