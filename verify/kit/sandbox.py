"""Answers of others, read in a process of its own with limits on memory and time.

HDF5's library can crash or hang on a damaged file. The worker reads one file after another, sends plain
numbers back, never objects, and is replaced when it dies; each such end becomes a ValueError here.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISREG
from types import TracebackType
from typing import IO, Any

import numpy as np

SECONDS = 9.0
"""Longest time to read one file: with the start of the next worker, a file takes less than ten seconds."""

MEMORY = 1 << 30
"""Most memory in bytes that the worker may have beyond what it starts with, where the system can limit it."""

MOST_BYTES = 1 << 28
"""Most bytes of all answers of a file together."""

MOST_ARRAYS = 20_000
"""Most answers in a file."""

MOST_TEXT = 1 << 16
"""Longest text in bytes: attributes, ``info.json``, reasons of refusals."""

WRITERS = ("CLASS", "PYTABLES_FORMAT_VERSION", "TITLE", "VERSION", "_NCProperties")
"""Attributes that PyTables and netCDF write to the root of every file; they say nothing of the answers."""

KINDS = "biufS"
"""Kinds of types that are read: truth values, integers, floats, texts of fixed length."""

Read = tuple[dict[str, Any], dict[str, dict[str, Any]]]


class Sandbox:
    """A worker process that reads answers.

    Parameters
    ----------
    seconds : float, optional
        Longest time for one file.

    Attributes
    ----------
    started : int
        How many workers were started: one, and one after each that died.

    Examples
    --------
    >>> with Sandbox() as sandbox:
    ...     sandbox.read(__file__)
    Traceback (most recent call last):
        ...
    ValueError: the answers cannot be read: it must be an HDF5 file or a folder.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self.seconds, self.started = seconds, 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the worker."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()

    def read(self, path: str | Path) -> Read:
        """What a file or folder of answers holds, as `golden.read_answers` returns it.

        Raises
        ------
        ValueError
            If it cannot be read: it is damaged, too large, of another format, or the worker died of it or
            took too long.
        """
        if not Path(path).exists():
            raise FileNotFoundError(2, "no such file or folder", str(path))
        process = self._worker()
        assert process.stdin is not None and process.stdout is not None
        late = threading.Event()

        def stop() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(self.seconds, stop)
        timer.start()
        try:
            _send(process.stdin, os.fsencode(Path(path).resolve()))
            header = json.loads(_receive(process.stdout))
            body = _receive(process.stdout)
        except (OSError, EOFError, ValueError, RecursionError) as error:
            self.close()
            if late.is_set():
                raise _unreadable(f"it took longer than {self.seconds:g} s") from error
            code = process.returncode
            raise _unreadable(f"the reader crashed (exit status {code})") from error
        finally:
            timer.cancel()
        if "problem" in header:
            raise _unreadable(header["problem"])
        return header["info"], _unpacked(header["arrays"], body)

    def _worker(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            self.started += 1
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"from {__name__} import serve; serve()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_environment(),
            )
            assert self._process.stdout is not None
            # The time of a file does not begin before its reader has: a busy machine imports slowly.
            try:
                _receive(self._process.stdout)
            except EOFError as error:
                self.close()
                why = _no_start()
                raise ValueError(f"the process that reads answers does not start: {why}.") from error
        return self._process


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"}


def _no_start() -> str:
    # What the worker imports, once more, to see what it says.
    command = [sys.executable, "-c", f"import {__name__}, h5py"]
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)
    return (done.stderr.strip() or "no reason was given").splitlines()[-1].rstrip(".")


def read(path: str | Path) -> Read:
    """Read one file or folder of answers in a worker of its own.

    Raises
    ------
    ValueError
        If it cannot be read.
    """
    with Sandbox() as sandbox:
        return sandbox.read(path)


def _unreadable(problem: str) -> ValueError:
    return ValueError(f"the answers cannot be read: {problem}.")


def _unpacked(listed: list[list[Any]], body: bytes) -> dict[str, dict[str, Any]]:
    answers: dict[str, dict[str, Any]] = {}
    at = 0
    for id_, name, text, shape in listed:
        kind = np.dtype(text)
        count = int(np.prod(shape, dtype=np.int64))
        array = np.frombuffer(body, dtype=kind, count=count, offset=at).reshape(shape).copy()
        at += count * kind.itemsize
        is_text = kind.kind == "S" and not shape
        answers.setdefault(id_, {})[name] = array.item().decode("ascii", "replace") if is_text else array
    return answers


def _send(stream: IO[bytes], message: bytes) -> None:
    stream.write(struct.pack("<Q", len(message)) + message)
    stream.flush()


def _receive(stream: IO[bytes]) -> bytes:
    head = stream.read(8)
    if len(head) < 8:
        raise EOFError
    (length,) = struct.unpack("<Q", head)
    if length > MOST_BYTES + MOST_ARRAYS * 1024:
        raise ValueError("`length` is too large.")
    message = stream.read(length)
    if len(message) < length:
        raise EOFError
    return message


# In the worker -----------------------------------------------------------------------------------------


class _RefusedError(Exception):
    # What is wrong with a file, in words.
    pass


def serve() -> None:
    """Read the files whose names come on standard input, until it ends."""
    import h5py

    _limit_memory()
    into, out = sys.stdin.buffer, sys.stdout.buffer
    _send(out, h5py.version.hdf5_version.encode())
    while True:
        try:
            path = Path(os.fsdecode(_receive(into)))
        except EOFError:
            return
        header, body = _answered(path)
        _send(out, json.dumps(header).encode())
        _send(out, body)


def _answered(path: Path) -> tuple[dict[str, Any], bytes]:
    try:
        info, arrays = _read_folder(path) if path.is_dir() else _read_file(path)
    except _RefusedError as problem:
        return {"problem": str(problem)}, b""
    except MemoryError:
        return {"problem": "it needs too much memory"}, b""
    except RecursionError:
        return {"problem": "it is nested too deeply"}, b""
    except Exception as error:  # the library raises anything on a damaged file
        words = " ".join(str(error).encode("ascii", "replace").decode().split())
        return {"problem": f"{type(error).__name__}: {words[:300]}"}, b""
    listed = [[id_, name, array.dtype.str, list(array.shape)] for id_, name, array in arrays]
    return {"info": info, "arrays": listed}, b"".join(array.tobytes() for _, _, array in arrays)


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # not a POSIX system: the limit on time stays
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    used = Path("/proc/self/statm")
    if used.exists():
        pages = int(used.read_text().split()[0])
        most = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


class _Budget:
    # What one file may still hold.
    def __init__(self) -> None:
        self.bytes, self.arrays = MOST_BYTES, MOST_ARRAYS

    def take(self, place: str, kind: np.dtype[Any], shape: tuple[int, ...]) -> None:
        size = kind.itemsize
        for length in shape:
            size *= int(length)
        if kind.kind not in KINDS or kind.hasobject or kind.fields or kind.subdtype:
            raise _RefusedError(f"{place} must hold numbers or a text, got type {kind}")
        if kind.kind == "S" and (shape or kind.itemsize > MOST_TEXT):
            raise _RefusedError(f"{place} must be one short text")
        self.bytes -= size
        self.arrays -= 1
        if self.bytes < 0 or self.arrays < 0:
            raise _RefusedError(f"it holds more than {MOST_BYTES} bytes or {MOST_ARRAYS} answers")


Arrays = list[tuple[str, str, Any]]


def _read_folder(folder: Path) -> tuple[dict[str, Any], Arrays]:
    budget, found = _Budget(), []
    for op in _folders(folder):
        for case in _folders(op):
            out = case / "out"
            if not out.is_dir():
                if not (case / "in").is_dir():
                    raise _RefusedError(f"{op.name}/{case.name} must hold a folder named out")
                continue
            _check_no_link(out, f"{op.name}/{case.name}/out")
            for file in sorted(out.glob("*.npy")):
                place = f"{op.name}/{case.name}/out/{file.name}"
                found.append((f"{op.name}/{case.name}", file.stem, _read_npy(file, place, budget)))
    info: object = {}
    if (folder / "info.json").exists():
        info = _json(_small(folder / "info.json", "info.json"), "info.json")
    if not isinstance(info, dict):
        raise _RefusedError("info.json must hold an object")
    return info, found


def _folders(folder: Path) -> Iterator[Path]:
    for count, one in enumerate(sorted(folder.iterdir())):
        if count > MOST_ARRAYS:
            raise _RefusedError(f"it holds more than {MOST_ARRAYS} folders")
        _check_no_link(one, one.name)
        if one.is_dir():
            yield one


def _small(file: Path, place: str) -> bytes:
    _check_regular(file, place)
    with file.open("rb") as stream:
        content = stream.read(MOST_TEXT + 1)
    if len(content) > MOST_TEXT:
        raise _RefusedError(f"{place} is longer than {MOST_TEXT} bytes")
    return content


def _check_no_link(path: Path, place: str) -> None:
    # A link could lead to any other file.
    if path.is_symlink():
        raise _RefusedError(f"{place} must not be a link")


def _check_regular(file: Path, place: str) -> None:
    # A pipe or a device would never end.
    _check_no_link(file, place)
    if not S_ISREG(file.stat().st_mode):
        raise _RefusedError(f"{place} must be a file")


def _json(text: bytes | str, place: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise _RefusedError(f"{place} must be JSON") from error


def _read_npy(file: Path, place: str, budget: _Budget) -> Any:
    _check_regular(file, place)
    with file.open("rb") as stream:
        try:
            version = np.lib.format.read_magic(stream)
            if version == (1, 0):
                shape, fortran, kind = np.lib.format.read_array_header_1_0(stream)
            elif version == (2, 0):
                shape, fortran, kind = np.lib.format.read_array_header_2_0(stream)
            else:
                raise _RefusedError(f"{place} must be of version 1.0 or 2.0 of .npy, got {version}")
        except ValueError as error:
            raise _RefusedError(f"{place} is no .npy file") from error
        if any(length < 0 for length in shape):
            raise _RefusedError(f"{place} has a negative length")
        budget.take(place, kind, shape)
        size = kind.itemsize * int(np.prod(shape, dtype=np.int64))
        content = stream.read(size)
    if len(content) < size:
        raise _RefusedError(f"{place} ends before its array does")
    array = np.frombuffer(content, dtype=kind)
    return np.ascontiguousarray(array.reshape(shape, order="F" if fortran else "C")).reshape(shape)


def _read_file(path: Path) -> tuple[dict[str, Any], Arrays]:
    import h5py

    _check_regular(path, "it")
    if not h5py.is_hdf5(path):
        raise _RefusedError("it must be an HDF5 file or a folder")
    budget, found = _Budget(), []
    with h5py.File(path, "r") as file:
        info = _read_info(file)
        for op, case, out in _answer_groups(file):
            for name in out:
                place = f"cases/{op}/{case}/out/{name}"
                found.append((f"{op}/{case}", name, _read_dataset(_own(out, name, place), place, budget)))
    return info, found


def _answer_groups(file: Any) -> Iterator[tuple[str, str, Any]]:
    # Groups are reached by three steps down, so a file that contains itself does no harm.
    import h5py

    if "cases" not in file:
        raise _RefusedError("it must hold a group `cases`")
    top = _own(file, "cases", "cases")
    for op in top if isinstance(top, h5py.Group) else ():
        group = _own(top, op, f"cases/{op}")
        for count, case in enumerate(group if isinstance(group, h5py.Group) else ()):
            if count > MOST_ARRAYS:
                raise _RefusedError(f"cases/{op} holds more than {MOST_ARRAYS} groups")
            one = _own(group, case, f"cases/{op}/{case}")
            if isinstance(one, h5py.Group) and "out" in one:
                out = _own(one, "out", f"cases/{op}/{case}/out")
                if not isinstance(out, h5py.Group):
                    raise _RefusedError(f"cases/{op}/{case}/out must be a group")
                yield op, case, out


def _own(group: Any, name: str, place: str) -> Any:
    # Links out of the file could read any other.
    import h5py

    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise _RefusedError(f"{place} must not be a link")
    return group[name]


def _read_dataset(dataset: Any, place: str, budget: _Budget) -> Any:
    import h5py

    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
        raise _RefusedError(f"{place} must be a dataset")
    if dataset.is_virtual or dataset.external:
        raise _RefusedError(f"{place} must lie in the file itself")
    if h5py.check_string_dtype(dataset.dtype) is not None and dataset.dtype.kind == "O":
        if dataset.shape != ():
            raise _RefusedError(f"{place} must be one short text")
        text = dataset.asstr(errors="replace")[()].encode("ascii", "replace")[:MOST_TEXT]
        return np.array(text or b"\0")
    budget.take(place, dataset.dtype, dataset.shape)
    return np.ascontiguousarray(dataset[()]).reshape(dataset.shape)


def _read_info(file: Any) -> dict[str, Any]:
    import h5py

    from refldnq.verify.kit.golden import LISTS, ROOT, TEXTS

    info: dict[str, Any] = {}
    for name in file.attrs:
        if name in (*ROOT, *WRITERS):  # answers may be written into a copy of the export
            continue
        if name not in (*TEXTS, *LISTS):  # a misspelt one would be ignored
            known = ", ".join((*TEXTS, *LISTS))
            raise _RefusedError(f"attribute {name[:80]!a} of the root must be one of {known}")
        found = h5py.h5a.get_info(file.id, name.encode())
        if found.data_size > MOST_TEXT:
            raise _RefusedError(f"attribute {name} is longer than {MOST_TEXT} bytes")
        value = file.attrs[name]
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if not isinstance(value, str) or len(value) > MOST_TEXT:
            raise _RefusedError(f"attribute {name} must be a short text")
        info[name] = _json(value, f"attribute {name}") if name in LISTS else value
    return info
