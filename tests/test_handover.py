"""Kernels on compiled threads: every part once, errors, sleep, signals, several callers, busy cores."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from refldnq._kernels import threads

if sys.platform != "linux":
    pytest.skip("kernels run on the pool of Python's threads here", allow_module_level=True)

from refldnq._kernels import handover
from refldnq._kernels.handover import Helpers, add, load, store

THREADS = 4


@pytest.fixture(autouse=True)
def helpers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Helpers]:
    own = Helpers(THREADS - 1)
    monkeypatch.setattr(threads, "thread_count", lambda: THREADS)
    monkeypatch.setattr(handover, "helpers", lambda: own)
    yield own


@njit(nogil=True)
def count(seen, parts, part, start, stop):  # type: ignore[no-untyped-def]
    """Note who treats an entry, and how often."""
    for i in range(start, stop):
        seen[i] += 1
        parts[i] = part


@njit(nogil=True)
def double(x, y, start, stop):  # type: ignore[no-untyped-def]
    """Write y = 2 x."""
    for i in range(start, stop):
        y[i] = 2.0 * x[i]


@njit(nogil=True)
def fail_at(where, seen, start, stop):  # type: ignore[no-untyped-def]
    """Fail in the part that holds an entry."""
    for i in range(start, stop):
        if i == where:
            raise ValueError("here")
        seen[i] += 1


MEET = 2_000_000_000
"""Looks of a thread for the others; seconds."""


@njit(nogil=True)
def meet(board, wanted, met, start, stop):  # type: ignore[no-untyped-def]
    """Wait until so many parts run at the same time; note whether they did."""
    add(board, 0, 1)
    looks = 0
    while load(board, 0) < wanted and looks < MEET:
        looks += 1
    met[start] = load(board, 0) >= wanted


def run_once(size: int) -> tuple[list[int], list[int]]:
    """How often every entry was treated, and in which part."""
    seen, parts = np.zeros(size, np.int64), np.full(size, -1)
    threads.run_kernel(count, (seen, parts), size)
    return seen.tolist(), parts.tolist()


def expected(size: int) -> tuple[list[int], list[int]]:
    spans = threads.chunks(size)
    return [1] * size, [part for part, (start, stop) in enumerate(spans) for _ in range(start, stop)]


def asleep(helpers: Helpers, number: int) -> bool:
    """Whether so many helpers fall asleep within some seconds."""
    end = time.monotonic() + 30
    while load_entry(helpers.board, handover.SLEEPERS) != number:
        if time.monotonic() > end:
            return False
        time.sleep(0.001)
    return True


@njit
def load_entry(board, place):  # type: ignore[no-untyped-def]
    return load(board, place)


@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=20), data=st.data())
@settings(deadline=None)
def test_every_part_runs_once_and_is_done_on_return(sizes: list[int], data: Any) -> None:
    for size in sizes:
        assert run_once(size) == expected(size)
        if data.draw(st.booleans()):
            time.sleep(0.001)  # some helpers fall asleep, some do not


def test_many_orders_in_a_row() -> None:
    seen, parts = np.zeros(7, np.int64), np.zeros(7, np.int64)
    for _ in range(20_000):
        threads.run_kernel(count, (seen, parts), 7)
    assert seen.tolist() == [20_000] * 7
    assert parts.tolist() == expected(7)[1]


def test_helpers_take_part(helpers: Helpers) -> None:
    for _ in range(3):
        assert asleep(helpers, THREADS - 1)  # and are woken, all of them
        board, met = np.zeros(1, np.int64), np.zeros(THREADS, np.bool_)
        threads.run_kernel(meet, (board, THREADS, met), THREADS)
        assert met.all()


def test_who_waits_in_vain_sleeps(helpers: Helpers) -> None:
    run_once(8)
    assert asleep(helpers, THREADS - 1)
    before = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - before < 0.1


@pytest.mark.parametrize("where", [0, 5, 9])
def test_an_error_is_told_when_all_parts_are_done(where: int) -> None:
    seen = np.zeros(10, np.int64)
    with pytest.raises(RuntimeError, match="`fail_at` must not fail"):
        threads.run_kernel(fail_at, (where, seen), 10)
    (own,) = ((a, e) for a, e in threads.chunks(10) if a <= where < e)
    assert seen.tolist() == [int(i < where or not own[0] <= i < own[1]) for i in range(10)]
    assert run_once(10) == expected(10)  # the error is not told again


def test_results_are_those_of_the_pool_and_of_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def both() -> list[np.ndarray]:
        sums = np.zeros((THREADS, 1))
        x = np.linspace(0, 1, 1001) ** 3
        threads.run_kernel(partial_sums, (x, sums), x.size)
        return [sums, np.array(run_once(11))]

    compiled = both()
    monkeypatch.setattr(sys, "platform", "elsewhere")
    for ours, other in zip(compiled, both(), strict=True):
        assert np.array_equal(ours, other)
    monkeypatch.setattr(threads, "thread_count", lambda: 1)
    assert run_once(11) == ([1] * 11, [0] * 11)


def test_the_blas_has_one_thread_meanwhile(helpers: Helpers, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    run = helpers.run

    def looked_at(*arguments: Any) -> None:
        held.extend(library["num_threads"] for library in threads._blas().info())
        run(*arguments)

    monkeypatch.setattr(helpers, "run", looked_at)
    x = np.random.default_rng(0).standard_normal((9, 20, 20))
    y = np.empty_like(x)
    threads.run_kernel(squares, (x, y), 9, blas=True)
    assert np.allclose(y, x @ x, rtol=0, atol=1e-12)
    assert set(held) == {1}


@njit(nogil=True)
def squares(x, y, start, stop):  # type: ignore[no-untyped-def]
    """Write the square of every matrix."""
    for i in range(start, stop):
        np.dot(x[i], x[i], y[i])


@njit(nogil=True)
def partial_sums(x, sums, part, start, stop):  # type: ignore[no-untyped-def]
    """A sum for every part."""
    for i in range(start, stop):
        sums[part, 0] += x[i]


def test_arguments_are_seen_as_they_are() -> None:
    x = np.arange(12.0)
    x.flags.writeable = False
    y = np.zeros(12)
    threads.run_kernel(double, (x, y[::1]), 12)
    assert np.array_equal(y, 2 * x)
    every_other = np.zeros(24)[::2]  # another type of array: compiled anew
    threads.run_kernel(double, (np.arange(12, dtype=np.float32), every_other), 12)
    assert np.array_equal(every_other, 2 * x)


def test_helpers_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    made: list[int] = []

    def make(number: int) -> None:
        time.sleep(0.05)
        made.append(number)

    monkeypatch.setattr(handover, "Helpers", make)
    handover._helpers.cache_clear()
    try:
        callers = [threading.Thread(target=handover.helpers) for _ in range(5)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert len(made) == 1
    finally:
        handover._helpers.cache_clear()


def test_without_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    y = np.zeros(9)
    threads.run_kernel(double.py_func, (np.arange(9.0), y), 9)
    assert np.array_equal(y, 2 * np.arange(9.0))


def test_several_callers_at_once() -> None:
    wrong: list[tuple[list[int], list[int]]] = []

    def call() -> None:
        for size in range(200):
            found = run_once(size)
            if found != expected(size):
                wrong.append(found)

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert not any(caller.is_alive() for caller in callers)
    assert wrong == []


def test_a_caller_on_a_thread_of_the_pool() -> None:
    found: list[Any] = [None] * THREADS

    def outer(part: int, start: int, stop: int) -> None:
        found[part] = run_once(9)

    threads.run_chunks(outer, THREADS)
    assert found == [expected(9)] * THREADS


def test_signals_do_not_end_a_sleep_early(helpers: Helpers) -> None:
    caught: list[int] = []
    signal.signal(signal.SIGALRM, lambda *_: caught.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        for size in range(50):
            time.sleep(0.002)
            assert run_once(size) == expected(size)
            # To the threads themselves, too: a signal to the process goes to any one of them.
            for thread in threading.enumerate():
                if thread.daemon and thread.ident:
                    signal.pthread_kill(thread.ident, signal.SIGALRM)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, lambda *_: None)  # one may still be under way to a helper
    assert caught
    assert asleep(helpers, THREADS - 1)


def test_helpers_may_run_on_all_cores_again(helpers: Helpers) -> None:
    for _ in range(30):
        assert asleep(helpers, THREADS - 1)
        run_once(8)
    assert asleep(helpers, THREADS - 1)
    cores = os.sched_getaffinity(0)
    assert {
        frozenset(os.sched_getaffinity(int(task.name))) for task in Path("/proc/self/task").iterdir()
    } == {frozenset(cores)}


def test_busy_cores() -> None:
    spinning = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(2 * len(os.sched_getaffinity(0)))
    ]
    try:
        for size in range(100):
            assert run_once(size) == expected(size)
    finally:
        for process in spinning:
            process.kill()
            process.wait()


def program(text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", text],
        env={**os.environ, "REFLDNQ_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=120,
    )


STRESS = """
import sys, threading, time
import numpy as np
from numba import njit
from refldnq._kernels import handover, threads
source = open(handover.__file__).read()
assert source.count({old!r}) == 1
exec(compile(source.replace({old!r}, {new!r}), handover.__file__, "exec"), handover.__dict__)
threads.thread_count = lambda: 4
helpers = handover.Helpers(3)
handover.helpers = lambda: helpers

@njit(nogil=True)
def work(seen, rounds, start, stop):
    x = 1.0
    for i in range(start, stop):
        for _ in range(rounds):
            x = x * 0.999 + 0.001
        seen[i] += 1 if x > 0.0 else 0

@njit(nogil=True)
def meet(board, met, start, stop):
    handover.add(board, 0, 1)
    looks = 0
    while handover.load(board, 0) < 4 and looks < 300_000_000:
        looks += 1
    met[start] = handover.load(board, 0) >= 4
    for _ in range(1_000_000 * (4 - start)):  # the caller has mostly the last part: it is done first
        handover.add(board, 1, 1)
    met[start] += 1

def stress():
    for k in range(3000):
        seen = np.zeros(5 + k % 7, np.int64)
        threads.run_kernel(work, (seen, k % 50 * 400), len(seen))
        if not (seen == 1).all():
            print("not once:", seen.tolist(), flush=True)
            return
        if k % 300 == 0:
            time.sleep(0.005)
    for _ in range(3):
        time.sleep(0.05)
        board, met = np.zeros(2, np.int64), np.zeros(4, np.int64)
        threads.run_kernel(meet, (board, met), 4)
        if not (met == 2).all():
            print("helpers do not come, or are not waited for:", met.tolist(), flush=True)
            return
    print("right", flush=True)

runner = threading.Thread(target=stress, daemon=True)
runner.start()
runner.join({limit})
print("hangs" if runner.is_alive() else "", flush=True)
"""

WAIT = "while load(board, DONE) != parts:"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (WAIT, "while False:"),
        ("if exchange(board, TICKET, ticket, ticket - 1):", "if store(board, TICKET, ticket - 1) is None:"),
        ("        add(board, DONE, 1)", "        pass"),
        ("((load(board, TICKET) | LEFT) + 1) | parts", "parts - 1"),
        ("    for _ in range(woken):", "    for _ in range(0):"),
        ("    add(board, SLEEPERS, 1)\n", "    pass\n"),
    ],
    ids=["no wait", "no exchange", "not done", "a part forgotten", "nobody woken", "sleepers not counted"],
)
def test_planted_faults_are_seen(old: str, new: str) -> None:
    ran = program(STRESS.format(old=old, new=new, limit=20))
    assert "right" not in ran.stdout
    seen = any(word in ran.stdout for word in ("not once", "come", "hangs"))
    assert seen or ran.returncode < 0, ran.stderr  # what is written to freed memory may crash


def test_the_stress_passes_without_a_fault() -> None:
    ran = program(STRESS.format(old=WAIT, new=WAIT, limit=100))
    assert ran.stdout == "right\n\n", ran.stderr


def test_an_atomic_board() -> None:
    board = np.zeros(4, np.int64)

    @njit
    def every(board):  # type: ignore[no-untyped-def]
        store(board, 1, 5)
        before = add(board, 1, 2)
        swapped = handover.exchange(board, 1, 7, 9), handover.exchange(board, 1, 7, 11)
        return before, swapped, load(board, 1)

    assert every(board) == (5, (True, False), 9)
    assert board.tolist() == [0, 9, 0, 0]
