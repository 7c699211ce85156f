"""Where kernels run: fixed chunks of work on a small pool of threads, with the BLAS held to one thread each.

Kernels are compiled with ``nogil=True`` and called from Python threads. The chunks depend only on the amount
of work and the number of threads, and partial results are added in the order of the chunks: same machine and
thread count, same bits.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any

import numpy as np

from refldnq._checks import check_integer

Kernel = Callable[[int, int, int], None]
Spans = list[tuple[int, int]]

PATIENCE = 200_000
"""How often a waiting thread looks before it falls asleep (chosen here: 50 µs, as long as it takes to wake a
thread on the measured machine; the threads of OpenMP, PyTorch's among them, spin for milliseconds)."""

COURTESY = 16_000
"""How often it looks after the signal, see `spin` (chosen here: 1.5 µs)."""

STREAM = 1 << 17
"""Entries that are worth a thread where a kernel does little more than move them (chosen here: 12 µs in
float32; a thread that is awake costs about 5 µs)."""


@lru_cache(maxsize=1)
def thread_count() -> int:
    """Number of threads: the environment variable ``REFLDNQ_NUM_THREADS``, else the usable cores.

    Raises
    ------
    ValueError
        If the variable is set to something else than a positive integer.

    Examples
    --------
    >>> thread_count() >= 1
    True
    """
    value = os.environ.get("REFLDNQ_NUM_THREADS")
    if value is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not value.isdigit():
        raise ValueError(f"`REFLDNQ_NUM_THREADS` must be a positive integer, got {value!r}.")
    return check_integer("REFLDNQ_NUM_THREADS", int(value), at_least=1)


class _Signal:
    """A number that one thread raises and another one waits for, with open eyes at first and then asleep."""

    def __init__(self) -> None:
        from refldnq._kernels.spin import spin

        self.spin = spin
        self.word = np.zeros(8, np.int64)  # a cache line of its own
        self.asleep = False
        self.alarm = threading.Event()

    def set(self, value: int) -> None:
        self.word[0] = value
        if self.asleep:
            self.alarm.set()

    def wait(self, value: int) -> None:
        while not self.spin(self.word, value, PATIENCE, COURTESY):
            # In this order no alarm is missed: either `set` sees the sleeper, or the sleeper sees the value.
            self.alarm.clear()
            self.asleep = True
            if self.word[0] < value:
                self.alarm.wait(1.0)  # an interrupt may come between the two steps of `set`
            self.asleep = False


class _Worker:
    """A thread that runs one job after the other; what it has not begun, the caller can take back."""

    def __init__(self) -> None:
        self.given, self.done = _Signal(), _Signal()
        self.jobs: list[tuple[int, Callable[[], None] | None]] = []
        self.number = 0
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._live, name="refldnq-kernel", daemon=True)
        self.thread.start()

    def give(self, job: Callable[[], None] | None) -> None:
        """Hand over a job; None ends the thread."""
        self.number, self.error = self.number + 1, None
        self.jobs.append((self.number, job))
        self.given.set(self.number)

    def run_next(self) -> bool:
        """Run the job, unless somebody else has it; whether there is more to come."""
        try:
            number, job = self.jobs.pop()  # by one of the two threads
        except IndexError:
            return True
        try:
            if job is not None:
                job()
        except BaseException as error:  # raised again where the job was given
            self.error = error
        self.done.set(number)
        return job is not None

    def _live(self) -> None:
        seen = 0
        while True:
            self.given.wait(seen + 1)
            seen = int(self.given.word[0])
            if not self.run_next():
                return


class _Pool:
    """The threads beside the calling one."""

    def __init__(self) -> None:
        self.free = threading.Lock()
        self.workers: list[_Worker] = []
        atexit.register(self.close)

    def run(self, kernel: Kernel, spans: Spans) -> None:
        """The first chunk here and every other one on a thread, or here too if its thread is late."""
        while len(self.workers) < len(spans) - 1:
            self.workers.append(_Worker())
        busy = self.workers[: len(spans) - 1]
        try:
            for part, worker in enumerate(busy, 1):
                worker.give(partial(kernel, part, *spans[part]))
            kernel(0, *spans[0])
        finally:
            for worker in busy:
                worker.run_next()
            for worker in busy:  # all of them, also after an error: they write to the caller's arrays
                worker.done.wait(worker.number)
        for worker in busy:
            if worker.error is not None:
                raise worker.error

    def close(self) -> None:
        """End the threads before the interpreter ends."""
        for worker in self.workers:
            if worker.thread.is_alive():  # no thread is in a forked child
                worker.give(None)
                worker.thread.join()


@lru_cache(maxsize=1)
def _pool() -> _Pool:
    return _Pool()


# A forked child inherits the pool's object but not its threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)


@lru_cache(maxsize=1)
def _blas() -> Any:
    # The controller looks the loaded libraries up, which is slow, so it is kept; SciPy's BLAS, the one that
    # compiled kernels call, must be loaded before.
    import scipy.linalg.cython_blas
    from threadpoolctl import ThreadpoolController

    assert scipy.linalg.cython_blas is not None
    return ThreadpoolController().select(user_api="blas")


def chunks(count: int, grain: int = 1) -> Spans:
    """Split ``range(count)`` into at most `thread_count` contiguous parts of nearly equal length.

    A part is at least `grain` long if there are several: below that a thread costs more than it saves.

    Examples
    --------
    >>> chunks(0)
    []
    >>> spans = chunks(7)
    >>> spans[0][0], spans[-1][1]
    (0, 7)
    """
    parts = min(thread_count(), max(count // grain, min(count, 1)))
    return [(count * i // parts, count * (i + 1) // parts) for i in range(parts)]


def worth(entries: int) -> int:
    """Least number of units of so many entries that is worth a thread, see `STREAM`.

    Examples
    --------
    >>> worth(1) == STREAM, worth(STREAM - 1)
    (True, 2)
    """
    return -(-STREAM // max(entries, 1))


def run_chunks(kernel: Kernel, count: int, *, blas: bool = False, grain: int = 1) -> int:
    """Call ``kernel(part, start, stop)`` for every chunk of ``range(count)``, on threads if there are some.

    Parameters
    ----------
    kernel : callable
        Releases the interpreter lock; writes only to its own part of the results.
    count : int
        Length of the range that is split.
    blas : bool, optional
        Whether the kernel calls the BLAS, which is then held to one thread a kernel.
    grain : int, optional
        Least length of a chunk if there are several.

    Returns
    -------
    int
        The number of chunks.

    Examples
    --------
    >>> import numpy as np
    >>> y = np.zeros(5)
    >>> def fill(part, start, stop):
    ...     y[start:stop] = 1
    >>> run_chunks(fill, 5) >= 1, y
    (True, array([1., 1., 1., 1., 1.]))
    """
    spans = chunks(count, grain)
    if blas:
        with _single_threaded_blas():
            _run(kernel, spans)
    else:
        _run(kernel, spans)
    return len(spans)


_limit_lock = threading.Lock()
_limit_users = 0
_limit: Any = None


@contextmanager
def _single_threaded_blas() -> Iterator[None]:
    # The limit belongs to the whole process: the first of several callers sets it, the last one lifts it.
    global _limit_users, _limit
    with _limit_lock:
        if not _limit_users:
            _limit = _blas().limit(limits=1)
            _limit.__enter__()
        _limit_users += 1
    try:
        yield
    finally:
        with _limit_lock:
            _limit_users -= 1
            if not _limit_users:
                _limit.__exit__(None, None, None)


def _run(kernel: Kernel, spans: Spans) -> None:
    pool = _pool() if len(spans) > 1 else None
    # The threads serve one caller at a time; another one, or a kernel that calls this again, goes on alone.
    if pool is None or not pool.free.acquire(blocking=False):
        for part, span in enumerate(spans):
            kernel(part, *span)
        return
    try:
        pool.run(kernel, spans)
    finally:
        pool.free.release()
