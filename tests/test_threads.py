"""The pool of threads: every chunk once, errors passed on, nested and simultaneous calls, forks, an end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from refldnq._kernels import threads


@pytest.fixture(autouse=True)
def four_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "thread_count", lambda: 4)


def counted(count: int) -> tuple[np.ndarray, int]:
    seen = np.zeros(count, np.int64)

    def kernel(part: int, start: int, stop: int) -> None:
        seen[start:stop] += 1

    return seen, threads.run_chunks(kernel, count)


def test_every_chunk_runs_once_and_is_done_on_return() -> None:
    for _ in range(100):
        seen, parts = counted(10)
        assert parts == 4
        assert seen.tolist() == [1] * 10


@pytest.mark.parametrize("failing", [0, 1, 3])
def test_an_error_waits_for_the_other_chunks(failing: int) -> None:
    ended: list[int] = []

    def kernel(part: int, start: int, stop: int) -> None:
        if part == failing:
            raise RuntimeError(f"part {part}")
        time.sleep(0.01)
        ended.append(part)

    with pytest.raises(RuntimeError, match=f"part {failing}"):
        threads.run_chunks(kernel, 4)
    assert sorted(ended) == sorted({0, 1, 2, 3} - {failing})
    assert counted(9)[0].tolist() == [1] * 9  # and the threads still work


def test_a_kernel_may_call_again() -> None:
    seen = np.zeros((4, 8), np.int64)

    def outer(part: int, start: int, stop: int) -> None:
        def inner(_: int, first: int, last: int) -> None:
            seen[start:stop, first:last] += 1

        threads.run_chunks(inner, 8)

    threads.run_chunks(outer, 4)
    assert (seen == 1).all()


def test_several_callers_at_once() -> None:
    wrong: list[list[int]] = []

    def call() -> None:
        for _ in range(100):
            seen, _ = counted(6)
            if seen.tolist() != [1] * 6:
                wrong.append(seen.tolist())

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(30)
    assert not any(caller.is_alive() for caller in callers)
    assert wrong == []


PROGRAM = """
import os, sys
import numpy as np
from numba import njit
from refldnq._kernels import threads

@njit(nogil=True)
def fill(y, start, stop):
    y[start:stop] = 1

def by_chunks(y):
    threads.run_chunks(lambda part, start, stop: fill(y, start, stop), 8)

def by_kernel(y):
    threads.run_kernel(fill, (y,), 8)

def call():
    y = np.zeros(8)
    {way}(y)
    return y.sum()

assert call() == 8
child = os.fork()
if not child:
    code = 0 if call() == 8 else 1
    sys.exit(code)  # with all that is done at the end of a program
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0
print(call())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("way", ["by_chunks", "by_kernel"])
def test_a_forked_child_has_threads_of_its_own_and_both_end(way: str) -> None:
    environment = {**os.environ, "REFLDNQ_NUM_THREADS": "2"}
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM.format(way=way)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "8.0\n"
    assert ran.stderr == ""
