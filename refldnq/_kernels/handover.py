"""Handing parts of a compiled kernel's work to threads that wait in compiled code.

A thread of Python that takes work over has to be woken and to get the interpreter's lock, and so has the
caller at the end: 50 to 80 microseconds, as long as a small layer takes. Here helpers wait in `_serve` and
never come back to Python. The caller puts an order on the board: where a function and its arguments lie, and
how many parts there are. Every thread, the caller too, takes parts until none is left, so nobody waits for a
helper that sleeps or has no core; the caller returns when all parts are done.

The board is a row of 64-bit integers. TICKET is the number of the order times 2^16 plus the number of parts
that nobody has taken. To take a part is to count it down by compare and exchange: as no two orders have one
number, a helper that comes late cannot take a part of another order than the one it has seen, and while it
has a part the order, and with it the caller's memory, stays. What several threads write is read and written
atomically, in one order for all of them; each has a cache line of its own.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from functools import cache, lru_cache
from typing import Any

import numba.core.cgutils
import numba.extending
import numpy as np
from llvmlite import ir
from numba import njit, types

from refldnq._kernels.threads import thread_count

cgutils: Any = numba.core.cgutils
intrinsic: Any = numba.extending.intrinsic

TICKET, DONE, SLEEPERS, FAILED, CORE = 0, 8, 16, 24, 32
FUNCTION, ARGUMENTS, COUNT, PARTS, LENGTH = 40, 41, 42, 43, 48
"""Places of the board: first what is atomic, then the order."""

LEFT = (1 << 16) - 1
"""The bits of a ticket that count the parts left."""

SPIN = 400_000
"""Looks at the board before a helper falls asleep (chosen here: about 0.2 ms, longer than what Python does
between two layers; to wake a sleeper takes 30 to 50 microseconds)."""

PATIENCE = 20_000
"""Looks at the board after which a waiting thread offers others its core (chosen here: 10 microseconds)."""

CORES = 4096
"""Of a machine, at most; on a larger one a helper stays where it wakes."""

_INTEGER = ir.IntType(64)
_ORDER = "seq_cst"


def _entry(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """The address of an entry, the array and the place being the first two arguments."""
    data = context.make_array(signature.args[0])(context, builder, args[0]).data
    return builder.gep(data, [args[1]])


@intrinsic
def load(typing, array, place):  # type: ignore[no-untyped-def]
    """The entry, read atomically."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.load_atomic(_entry(context, builder, signature, args), _ORDER, 8)

    return types.int64(array, types.int64), generate


@intrinsic
def store(typing, array, place, value):  # type: ignore[no-untyped-def]
    """Write the entry atomically."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        builder.store_atomic(args[2], _entry(context, builder, signature, args), _ORDER, 8)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64), generate


@intrinsic
def add(typing, array, place, value):  # type: ignore[no-untyped-def]
    """Add to the entry atomically; return what it was."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.atomic_rmw("add", _entry(context, builder, signature, args), args[2], _ORDER)

    return types.int64(array, types.int64, types.int64), generate


@intrinsic
def exchange(typing, array, place, expected, value):  # type: ignore[no-untyped-def]
    """Write the entry if it is `expected`, in one step; return whether it was."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        entry = _entry(context, builder, signature, args)
        pair = builder.cmpxchg(entry, args[2], args[3], _ORDER, _ORDER)
        return builder.extract_value(pair, 1)

    return types.boolean(array, types.int64, types.int64, types.int64), generate


_OUTLINED = ir.FunctionType(_INTEGER, [_INTEGER] * 4)
"""(address of the arguments, part, start, stop) to whether the kernel failed."""


@intrinsic
def _call(typing, function, arguments, part, start, stop):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.call(builder.inttoptr(args[0], _OUTLINED.as_pointer()), args[1:])

    return types.int64(*[types.int64] * 5), generate


@intrinsic
def _outlined(typing, kernel, arguments):  # type: ignore[no-untyped-def]
    # The addresses of a function that calls the kernel, see _OUTLINED, and of the arguments. These lie on the
    # stack of the function that calls this: it must not return before all parts are done.
    numbers = kernel.dispatcher.py_func.__code__.co_argcount - len(arguments)
    own = kernel.get_call_type(typing, (*arguments, *[types.int64] * numbers), {})

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        compiled = kernel.dispatcher.overloads[own.args]
        call_conv = context.call_conv
        kind = call_conv.get_function_type(compiled.fndesc.restype, compiled.fndesc.argtypes)
        address = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
        place = cgutils.alloca_once_value(builder, args[1])
        name = f"{compiled.fndesc.mangled_name}.outlined"
        function = ir.Function(builder.module, _OUTLINED, name=name)
        function.linkage = "internal"
        body = ir.IRBuilder(function.append_basic_block())
        values = body.load(body.inttoptr(function.args[0], place.type))
        items = [body.extract_value(values, i) for i in range(len(arguments))]
        callee = body.inttoptr(_INTEGER(address), kind.as_pointer())
        status, _ = call_conv.call_function(
            body, callee, own.return_type, own.args, [*items, *function.args[4 - numbers :]]
        )
        body.ret(body.zext(status.is_error, _INTEGER))
        addresses = [builder.ptrtoint(pointer, _INTEGER) for pointer in (function, place)]
        return context.make_tuple(builder, signature.return_type, addresses)

    pair: Any = types.UniTuple
    return pair(types.int64, 2)(kernel, arguments), generate


_libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None


def _c_function(name: str, *arguments: Any) -> Any:
    if not _libc:  # the module can be read there, not used
        return None
    function = getattr(_libc, name)
    function.argtypes, function.restype = arguments, ctypes.c_int
    return function


_wait = _c_function("sem_wait", ctypes.c_void_p)
_post = _c_function("sem_post", ctypes.c_void_p)
_yield = _c_function("sched_yield")
_getcpu = _c_function("sched_getcpu")
_getaffinity = _c_function("sched_getaffinity", ctypes.c_int, ctypes.c_size_t, ctypes.c_void_p)
_setaffinity = _c_function("sched_setaffinity", ctypes.c_int, ctypes.c_size_t, ctypes.c_void_p)


@njit(nogil=True)
def _take(board):  # type: ignore[no-untyped-def]
    # The number of a part that is this thread's from now on, or -1.
    while True:
        ticket = load(board, TICKET)
        left = ticket & LEFT
        if left == 0:
            return -1
        if exchange(board, TICKET, ticket, ticket - 1):
            return left - 1


@njit(nogil=True)
def _work(board):  # type: ignore[no-untyped-def]
    while True:
        part = _take(board)
        if part < 0:
            return
        count, parts = board[COUNT], board[PARTS]
        start, stop = count * part // parts, count * (part + 1) // parts
        if _call(board[FUNCTION], board[ARGUMENTS], part, start, stop) != 0:
            store(board, FAILED, 1)
        add(board, DONE, 1)


@njit(nogil=True)
def _move(core, cores):  # type: ignore[no-untyped-def]
    where = cores.ctypes.data  # does not keep the array alive: the caller does
    if core < 0 or _getaffinity(0, cores.nbytes, where) < 0:
        return
    own = np.uint64(1) << np.uint64(core % 64)
    cores[core // 64] &= ~own
    if cores.any() and _setaffinity(0, cores.nbytes, where) == 0:
        cores[core // 64] |= own
        _setaffinity(0, cores.nbytes, where)


@njit(nogil=True)
def _leave(core):  # type: ignore[no-untyped-def]
    # Move this thread to another core, if it may run on one.
    cores = np.zeros(CORES // 64, np.uint64)
    _move(core, cores)
    return cores  # which keeps them alive until here


@njit(nogil=True)
def _sleep(board, semaphore):  # type: ignore[no-untyped-def]
    add(board, SLEEPERS, 1)
    if load(board, TICKET) & LEFT != 0:
        # An order came: this helper withdraws, if one is left that no caller has counted out. Else callers
        # post for all of them, and the post must be used up.
        sleepers = load(board, SLEEPERS)
        while sleepers > 0:
            if exchange(board, SLEEPERS, sleepers, sleepers - 1):
                return
            sleepers = load(board, SLEEPERS)
    while _wait(semaphore) != 0:  # a signal has interrupted it
        pass
    core = _getcpu()
    if core == load(board, CORE):
        _leave(core)


@njit(nogil=True)
def _serve(board, semaphore):  # type: ignore[no-untyped-def]
    looks = 0
    while True:
        if load(board, TICKET) & LEFT != 0:
            _work(board)
            looks = 0
        looks += 1
        if looks % PATIENCE == 0:
            _yield()
        if looks > SPIN:
            _sleep(board, semaphore)
            looks = 0


@njit(nogil=True)
def _order(function, arguments, count, parts, board, semaphore):  # type: ignore[no-untyped-def]
    # The order before is done, so nobody reads these four before the ticket says so.
    board[FUNCTION], board[ARGUMENTS], board[COUNT], board[PARTS] = function, arguments, count, parts
    store(board, CORE, _getcpu())
    store(board, FAILED, 0)
    store(board, DONE, 0)
    store(board, TICKET, ((load(board, TICKET) | LEFT) + 1) | parts)
    sleepers = load(board, SLEEPERS)
    woken = min(sleepers, parts - 1)
    while woken > 0 and not exchange(board, SLEEPERS, sleepers, sleepers - woken):
        sleepers = load(board, SLEEPERS)
        woken = min(sleepers, parts - 1)
    for _ in range(woken):
        _post(semaphore)
    if woken > 0:
        _yield()
    _work(board)
    looks = 0
    while load(board, DONE) != parts:
        looks += 1
        if looks > PATIENCE:
            _yield()
    return load(board, FAILED)


@cache
def _launcher(kernel: Any) -> Any:
    # Compiled with the kernel as a constant: as an argument it would be looked up anew in every call.
    @njit(nogil=True)
    def launch(arguments, count, parts, board, semaphore):  # type: ignore[no-untyped-def]
        function, place = _outlined(kernel, arguments)
        return _order(function, place, count, parts, board, semaphore)

    return launch


class Helpers:
    """Threads that wait for orders of one caller at a time.

    Parameters
    ----------
    count : int
        Threads.

    Raises
    ------
    OSError
        If the system has no semaphore left.
    """

    def __init__(self, count: int) -> None:
        self.free = threading.Lock()
        self.board = np.zeros(LENGTH, np.int64)
        self._memory = ctypes.create_string_buffer(64)  # more than a sem_t takes
        self.semaphore = ctypes.addressof(self._memory)
        if _libc.sem_init(self._memory, 0, 0) != 0:
            raise OSError("`sem_init` must succeed, got an error.")
        for _ in range(count):
            # A daemon: it never ends. Its arguments keep the memory alive.
            threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        _serve(self.board, self.semaphore)

    def run(self, kernel: Any, arguments: tuple[Any, ...], count: int, parts: int) -> None:
        """Do all parts; `free` must be held.

        Raises
        ------
        RuntimeError
            If the kernel raises, in whatever part.
        """
        if _launcher(kernel)(arguments, count, parts, self.board, self.semaphore):
            raise RuntimeError(f"`{kernel.__name__}` must not fail, got an error (is there memory left?).")


_one_at_a_time = threading.Lock()


@lru_cache(maxsize=1)
def _helpers() -> Helpers:
    return Helpers(thread_count() - 1)


def helpers() -> Helpers:
    """The threads of this process."""
    with _one_at_a_time:
        return _helpers()


def _after_fork() -> None:
    _helpers.cache_clear()  # a child inherits the object but not its threads
    _one_at_a_time.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_one_at_a_time.acquire, after_in_parent=_one_at_a_time.release, after_in_child=_after_fork
    )
