"""The store of runs: claims, leases, dead owners, foreign files."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from refldnq.errors import FormatError
from refldnq.experiments.reproduce import store as module
from refldnq.experiments.reproduce.plan import PlannedRun
from refldnq.experiments.reproduce.store import Store, run_id

RUN = PlannedRun("resnet20", "ldnq", 3, 500, 0)

ROOT = Path(__file__).parents[1]


def test_a_run_goes_to_one_and_is_never_done_twice(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs.sqlite")
    assert store.rows() == []
    with store.working() as one, store.working() as other:
        own = store.claim(RUN, {"data": "x"}, one)
        assert own == run_id(RUN, {"data": "x"})
        assert store.claim(RUN, {"data": "x"}, other) is None
        assert store.claim(RUN, {"data": "y"}, other) not in (None, own)  # other data: another run
        assert not store.finish(own, other, {"change": 1.0})
        assert store.finish(own, one, {"change": -4.0})
        assert not store.finish(own, one, {"change": 2.0})
        assert store.claim(RUN, {"data": "x"}, one, retry_failed=True) is None
    first, second = store.rows()
    assert (first.state, first.result, first.run, first.identity) == (
        "done",
        {"change": -4.0},
        RUN,
        {"data": "x"},
    )
    assert second.state == "claimed" and second.result is None


def test_a_failure_is_one_line_and_is_tried_again_on_demand(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs.sqlite")
    with store.working() as owner:
        own = store.claim(RUN, {}, owner)
        assert own is not None and store.fail(own, owner, "ValueError: too\n  bad")
        assert store.claim(RUN, {}, owner) is None
        assert store.rows()[0].reason == "ValueError: too bad"
        assert store.claim(RUN, {}, owner, retry_failed=True) == own
        assert store.rows()[0].reason is None
        store.finish(own, owner, {})
    assert [(row.state, row.tries) for row in store.rows()] == [("done", 2)]


def test_claims_are_given_back(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs.sqlite")
    with pytest.raises(KeyboardInterrupt), store.working() as owner:
        store.claim(RUN, {}, owner)
        raise KeyboardInterrupt
    with store.working() as owner:
        assert store.claim(RUN, {}, owner) is not None


def test_a_claim_is_renewed_while_its_block_lasts_and_then_expires(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "runs.sqlite", lease=1.2)
    with store.working() as owner, store.working() as other:
        store.claim(RUN, {}, owner)
        end = time.monotonic() + 1.8
        while time.monotonic() < end:
            assert store.claim(RUN, {}, other) is None
            time.sleep(0.05)
    # An owner of another machine, of whose process nothing is known here: the lease alone counts.
    monkeypatch.setattr(module, "_here", lambda: "elsewhere/pid:[1]/0")
    far = f"{module._here()} 1 abc"
    assert store.claim(RUN, {}, far) is not None
    monkeypatch.undo()
    with store.working() as owner:
        assert store.claim(RUN, {}, owner) is None
        time.sleep(1.3)
        assert store.claim(RUN, {}, owner) is not None


def test_the_claim_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    if module._here().endswith("//"):
        pytest.skip("this system does not tell processes apart: the lease decides")
    path = tmp_path / "runs.sqlite"
    code = (
        "import os, pathlib, signal\n"
        "from refldnq.experiments.reproduce.plan import PlannedRun\n"
        "from refldnq.experiments.reproduce.store import Store\n"
        f"store = Store(pathlib.Path({str(path)!r}), lease=1e6)\n"
        "with store.working() as owner:\n"
        "    assert store.claim(PlannedRun('resnet20', 'ldnq', 3, 500, 0), {}, owner)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONPATH": "."})
    assert done.returncode == -9
    store = Store(path, lease=1e6)
    assert [row.state for row in store.rows()] == ["claimed"]
    with store.working() as owner:
        own = store.claim(RUN, {}, owner)
        assert own is not None and store.finish(own, owner, {})


def _take_all(path: Path, count: int, taken: Any, blind: bool) -> None:
    store = Store(path)
    if blind:  # planted: a store that hands out what somebody has
        module._dead = lambda owner: True
    with store.working() as owner:
        for seed in range(count):
            own = store.claim(PlannedRun("resnet20", "ldnq", 3, 500, seed), {}, owner)
            if own is not None:
                taken.put(seed)
                time.sleep(0.02)
                store.finish(own, owner, {})


@pytest.mark.parametrize("blind", [False, True])
def test_processes_that_work_together_share_the_runs(tmp_path: Path, blind: bool) -> None:
    context = multiprocessing.get_context("fork")
    taken, count = context.SimpleQueue(), 20
    processes = [
        context.Process(target=_take_all, args=(tmp_path / "runs.sqlite", count, taken, blind))
        for _ in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    got = []
    while not taken.empty():
        got.append(taken.get())
    assert (sorted(got) == list(range(count))) is not blind
    assert [row.state for row in Store(tmp_path / "runs.sqlite").rows()] == ["done"] * count


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.sqlite"
    text.write_text("accuracy 91.5 %, but in a text file, which is longer than a header\n" * 20)
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE notes (word TEXT)")
    connection.close()
    for path in (text, other):
        before = path.read_bytes()
        for use in (Store(path).rows, lambda path=path: Store(path).claim(RUN, {}, "a 1 b")):
            with pytest.raises(FormatError, match="must be a store of runs") as refusal:
                use()
            assert str(path) in str(refusal.value)
        assert path.read_bytes() == before
    (tmp_path / "empty.sqlite").touch()
    assert Store(tmp_path / "empty.sqlite").rows() == []
    with pytest.raises(OSError, match="must be a file that can be written to"):
        Store(tmp_path).claim(RUN, {}, "a 1 b")


def test_a_result_that_is_no_json_is_refused_whole(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs.sqlite")
    with store.working() as owner:
        own = store.claim(RUN, {}, owner)
        assert own is not None
        with pytest.raises(TypeError, match="JSON"):
            store.finish(own, owner, {"network": object()})
        assert store.rows()[0].state == "claimed"
        assert store.finish(own, owner, {"change": float("nan")})
    assert store.rows()[0].result == {"change": None}
