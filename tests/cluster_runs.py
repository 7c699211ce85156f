"""``refldnq reproduce --dask`` on a cluster of two worker processes.

Run as a program: ``python cluster_runs.py WORDS``, the words being those of ``reproduce`` with
the store last; it prints what happened as JSON. The runs are real, and the command is, in its own process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from distributed import Client, LocalCluster


def experiment(words: list[str]) -> dict[str, Any]:
    """Do the runs, and say what the command said and who did what how often."""
    how: dict[str, Any] = {"threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with LocalCluster(n_workers=2, **how) as cluster, Client(cluster) as client:
        command = [sys.executable, "-m", "refldnq.cli", "reproduce", "--dask", cluster.scheduler_address]
        running = subprocess.Popen([*command, *words], stderr=subprocess.PIPE, text=True, stdout=sys.stderr)
        try:
            _, said = running.communicate()
        finally:
            running.kill()
        # What the workers note on the scheduler: how often a run was begun and did not come to its end.
        ((_, lost),) = client.get_metadata(["refldnq"]).items()
    return {"code": running.returncode, "said": said, "lost": lost}


if __name__ == "__main__":
    found = experiment(sys.argv[1:])
    sys.stdout.write("\n" + json.dumps(found) + "\n")
