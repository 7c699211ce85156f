"""Runs of ``refldnq quantize`` that are killed at random moments and resumed, each in a process of its own.

Run as a program: ``python killed_runs.py FOLDER KILLS SEED``; it prints what happened as JSON. The processes
are forks of one that has its kernels compiled, so that a run takes a second and kills hit its work.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

from refldnq.cli import main
from refldnq.formats.h5 import load_model
from refldnq.model import Model
from refldnq.models import shipped

WORDS = (
    "quantize",
    str(shipped("cnn-digits")),
    *"--data digits --images 60 --epochs 12 --batch-size 20 --copies 3 --crop 1 --no-flip".split(),
)


def differences(a: Model, b: Model) -> list[str]:
    """Where two models differ in a bit: arrays, codes, scales, values, provenance."""
    found = []
    for layer, own in a.network.params.items():
        for key, array in own.items():
            if array.tobytes() != b.network.params[layer][key].tobytes():
                found.append(f"{layer}/{key}")
    if set(a.quantized) != set(b.quantized):
        return [*found, "quantized"]
    for layer, code in a.quantized.items():
        for key in ("codes", "alpha", "values"):
            if getattr(code, key).tobytes() != getattr(b.quantized[layer], key).tobytes():
                found.append(f"quantized/{layer}/{key}")
    if json.dumps(a.provenance, sort_keys=True) != json.dumps(b.provenance, sort_keys=True):
        found.append("provenance")
    return found


def timeless(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The layers of a run's JSON without their times."""
    return [{key: value for key, value in layer.items() if key != "seconds"} for layer in record["layers"]]


def start(*words: str) -> int:
    """Begin a run in a process of its own."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        main([*WORDS, *words], prog_name="refldnq")
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        os._exit(code)


def ended(pid: int, within: float) -> bool:
    """Wait at most so many seconds for a process; whether it has ended, which must be in good order."""
    deadline = time.monotonic() + within
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            if status:
                raise AssertionError(f"a run ended with status {status}")
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.002)


def experiment(folder: Path, kills: int, seed: int) -> dict[str, Any]:
    """Kill and resume until so many processes have been killed; compare what comes out."""
    chance = random.Random(seed)
    reference = folder / "reference.h5"
    try:
        main([*WORDS, "-o", str(reference), "--json", str(folder / "reference.json")])
    except SystemExit as end:
        if end.code:
            raise
    out, record = folder / "out.h5", folder / "out.json"
    checkpoint = folder / "out.h5.checkpoint"
    expected = load_model(reference)
    words = ("-o", str(out), "--json", str(record), "--resume")

    began = time.monotonic()
    assert ended(start(*words), 600)
    duration = time.monotonic() - began

    stored: list[int] = []
    results = []
    while True:
        results.append(differences(expected, load_model(out)))
        if timeless(json.loads(record.read_text())) != timeless(
            json.loads((folder / "reference.json").read_text())
        ):
            results[-1].append("json")
        if len(stored) >= kills:
            break
        out.unlink()
        record.unlink()
        while True:
            pid = start(*words)
            if ended(pid, chance.uniform(0, duration) if len(stored) < kills else 600):
                break
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            layers = len(load_model(checkpoint).quantized) if checkpoint.exists() else 0
            if out.exists() and differences(expected, load_model(out)):
                raise AssertionError("a result that is not the result has the final name")
            stored.append(layers)
    left = sorted(path.name for path in folder.iterdir() if not path.name.endswith(".part"))
    return {"stored_at_kill": stored, "differences": results, "files": left, "seconds": duration}


if __name__ == "__main__":
    sys.stderr = open(os.devnull, "w")
    where, count, number = sys.argv[1:]
    outcome = experiment(Path(where), int(count), int(number))
    sys.stdout.write("\n" + json.dumps(outcome) + "\n")
