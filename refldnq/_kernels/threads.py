"""Where kernels run: fixed chunks of work on a small pool of threads, with the BLAS held to one thread each.

Kernels are compiled with ``nogil=True``. They are called from Python threads (`run_chunks`), or from threads
that wait in compiled code (`run_kernel`). The chunks depend only on the amount
of work and the number of threads, and partial results are added in the order of the chunks: same machine and
thread count, same bits.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from typing import Any

from refldnq._checks import check_integer

_THREAD_NAME = "refldnq-kernel"

STREAM = 1 << 16
"""Entries that are worth a thread where a kernel does little more than move them (chosen here: with twice as
many, ReLU takes 8 µs on two threads and 11 on one in float32, 16 and 22 in float64)."""


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


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=max(1, thread_count() - 1), thread_name_prefix=_THREAD_NAME)


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


def chunks(count: int, grain: int = 1) -> list[tuple[int, int]]:
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


def run_chunks(
    kernel: Callable[[int, int, int], None], count: int, *, blas: bool = False, grain: int = 1
) -> int:
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


def run_kernel(
    kernel: Any, arguments: tuple[Any, ...], count: int, *, blas: bool = False, grain: int = 1
) -> None:
    """Call ``kernel(*arguments, start, stop)`` for every chunk of ``range(count)``, as `run_chunks` does.

    On Linux its threads wait in compiled code (`refldnq._kernels.handover`): to hand a chunk to one that is
    awake takes a few microseconds, and none is waited for that is not.

    Parameters
    ----------
    kernel : Numba dispatcher
        Compiled with ``nogil=True``; writes only to its own part of the results. With one parameter more it
        is called with ``(*arguments, part, start, stop)``.
    arguments : tuple
        Arrays, numbers and tuples of numbers, all parameters but the last two or three.
    count : int
        Length of the range that is split.
    blas, grain : optional
        As in `run_chunks`.

    Raises
    ------
    Exception
        Whatever the kernel raises, or RuntimeError from the threads in compiled code.

    Examples
    --------
    >>> import numpy as np
    >>> from refldnq._kernels.elementwise import relu
    >>> y = np.empty(3)
    >>> run_kernel(relu, (np.array([-1.0, 0.5, 2.0]), y), 3)
    >>> y
    array([0. , 0.5, 2. ])
    """
    parts = len(chunks(count, grain))
    python = getattr(kernel, "py_func", None)  # None if NUMBA_DISABLE_JIT is set
    numbered = (python or kernel).__code__.co_argcount > len(arguments) + 2
    if parts == 1 and not blas:
        kernel(*arguments, *((0,) if numbered else ()), 0, count)
        return
    if parts > 1 and python and sys.platform == "linux":
        from refldnq._kernels.handover import helpers

        own = helpers()
        if own.free.acquire(blocking=False):  # else another thread is at it, and the cores are busy
            try:
                with _single_threaded_blas() if blas else nullcontext():
                    own.run(kernel, arguments, count, parts)
            finally:
                own.free.release()
            return

    def call(part: int, start: int, stop: int) -> None:
        kernel(*arguments, *((part,) if numbered else ()), start, stop)

    run_chunks(call, count, blas=blas, grain=grain)


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


def _run(kernel: Callable[[int, int, int], None], spans: list[tuple[int, int]]) -> None:
    # The calling thread takes the first chunk itself: one thread fewer to wake.
    # A kernel that calls this again from a thread of the pool would wait for a thread that waits for it.
    if threading.current_thread().name.startswith(_THREAD_NAME):
        for part, span in enumerate(spans):
            kernel(part, *span)
        return
    others = [_pool().submit(kernel, part, *span) for part, span in enumerate(spans) if part]
    try:
        for span in spans[:1]:
            kernel(0, *span)
    finally:
        wait(others)  # all of them, also after an error: they write to the caller's arrays
    for future in others:
        future.result()
