"""``refldnq reproduce --dask`` on a cluster of two worker processes, one of which may be killed in a run.

Run as a program: ``python cluster_runs.py leave|kill WORDS``, the words being those of ``reproduce`` with
the store last; it prints what happened as JSON. The runs are real, and the command is, in its own process.
A worker is killed once it has stored a part of its run: it is its stack that says which run it is at.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from distributed import Client, LocalCluster

from refldnq.experiments.reproduce.jobs import work_on

WITHIN = 120.0
"""Seconds until a run must have stored a part of itself."""


def at_work() -> tuple[int, str] | None:
    """The process that this is called in, and the id of the run that one of its threads is at."""
    for thread in sys._current_frames().values():
        frame = thread
        while frame.f_back is not None and frame.f_code.co_name != work_on.__name__:
            frame = frame.f_back
        if frame.f_code.co_filename == work_on.__code__.co_filename and "task" in frame.f_locals:
            return os.getpid(), str(frame.f_locals["task"].id)
    return None


def kill_one(client: Client, store: Path) -> tuple[int, str]:
    """Kill the first worker whose run has a state file, and say which process it was, and which run."""
    deadline = time.monotonic() + WITHIN
    while time.monotonic() < deadline:
        stored = list(store.parent.glob(f"{store.stem}-*.checkpoint.h5"))
        found = client.run(at_work).values() if stored else []
        for pid, run in filter(None, found):
            own = [path for path in stored if run[:16] in path.name]
            if not own:
                continue
            os.kill(pid, signal.SIGSTOP)
            if own[0].exists():  # else the run has ended since, and its state is gone
                os.kill(pid, signal.SIGKILL)
                return pid, run
            os.kill(pid, signal.SIGCONT)
        time.sleep(0.01)
    raise AssertionError("no run has stored a part of itself")


def experiment(kill: bool, words: list[str]) -> dict[str, Any]:
    """Do the runs, kill if it is asked for, and say what the command said and who did what how often."""
    store = Path(words[-1])
    how: dict[str, Any] = {"threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with LocalCluster(n_workers=2, **how) as cluster, Client(cluster) as client:
        for nanny in cluster.workers.values():
            nanny.auto_restart = False  # who is killed does not come back: the other worker must do its run
        command = [sys.executable, "-m", "refldnq.cli", "reproduce", "--dask", cluster.scheduler_address]
        running = subprocess.Popen([*command, *words], stderr=subprocess.PIPE, text=True, stdout=sys.stderr)
        try:
            killed = kill_one(client, store) if kill else None
            _, said = running.communicate()
        finally:
            running.kill()
        # What the workers note on the scheduler: how often a run was begun and did not come to its end.
        ((_, lost),) = client.get_metadata(["refldnq"]).items()
    return {"code": running.returncode, "said": said, "killed": killed, "lost": lost}


if __name__ == "__main__":
    found = experiment(sys.argv[1] == "kill", sys.argv[2:])
    sys.stdout.write("\n" + json.dumps(found) + "\n")
