"""Damaged files of answers against the verifier: each ends in a verdict or a clear error, never in a pass."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from refldnq.verify.kit import golden
from refldnq.verify.kit.cases import Case
from refldnq.verify.kit.external import Recorded, info_of
from refldnq.verify.kit.runner import run
from refldnq.verify.kit.sandbox import Sandbox

LONGEST = 10.0
"""Seconds that a file may take."""

OPS = ("patches", "hessian", "pack", "proximal", "project", "dual", "admm")
"""Operations of which one small case each is answered."""

Mutation = Callable[[Path, random.Random], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fuzzed:
    """What became of the files.

    Parameters
    ----------
    counts : mapping
        How many ended as ``error``, ``fail`` and ``unanswered``.
    problems : tuple of str
        Passes, files that took too long, and exceptions that are no clear error, with the number of the file.
    slowest : float
        Longest time of one file in seconds.
    crashes : int
        How many readers died and were replaced.
    seconds : float
        Time of all.
    """

    counts: Mapping[str, int]
    problems: tuple[str, ...]
    slowest: float
    crashes: int
    seconds: float


def fuzz(
    cases: Sequence[Case],
    count: int,
    seed: int = 0,
    *,
    first: int = 0,
    on_done: Callable[[int], None] = lambda number: None,
) -> Fuzzed:
    """Damage files of answers, and have them judged.

    Parameters
    ----------
    cases : sequence of Case
        The suite; one small case of each of `OPS` is used.
    count : int
        Number of files.
    seed : int, optional
        Equal seeds give equal files.
    first : int, optional
        Number of the first file: a problem can be seen alone.
    on_done : callable, optional
        Told the number of files done.

    Returns
    -------
    Fuzzed

    Notes
    -----
    Damage that surely makes an answer wrong (NaN, shapes, types, missing and alien objects) is done to right
    answers. Damage to bytes may touch none, so it is done to answers that are wrong everywhere.
    """
    began, chosen = time.perf_counter(), smallest(cases)
    counts: Counter[str] = Counter()
    problems: list[str] = []
    slowest = 0.0
    with tempfile.TemporaryDirectory(prefix="refldnq-fuzz-") as temporary, Sandbox() as sandbox:
        bases = _bases(Path(temporary), chosen)
        for name, path in bases.items():  # else nothing that follows would say anything
            state = _verdict(path, chosen, sandbox)
            if state != ("pass" if name.startswith("right") else "fail"):
                problems.append(f"undamaged {name} answers: {state}")
        for number in range(first, first + count):
            chance = random.Random(f"{seed}/{number}")
            path, way = _damaged(Path(temporary), bases, chance)
            start = time.perf_counter()
            try:
                state = _verdict(path, chosen, sandbox)
            except Exception as error:
                state = "exception"
                problems.append(f"{number} ({way}): {type(error).__name__}: {error}")
            took = time.perf_counter() - start
            slowest = max(slowest, took)
            if state == "pass":
                problems.append(f"{number} ({way}): a pass")
            if not took <= LONGEST:
                problems.append(f"{number} ({way}): {took:.1f} s")
            counts[state] += 1
            on_done(number - first + 1)
        crashes = max(0, sandbox.started - 1)
    return Fuzzed(
        counts=dict(sorted(counts.items())),
        problems=tuple(problems),
        slowest=slowest,
        crashes=crashes,
        seconds=time.perf_counter() - began,
    )


def smallest(cases: Sequence[Case]) -> tuple[Case, ...]:
    """One case of each of `OPS`: the smallest of those that zeros do not pass."""
    found = []
    for op in OPS:
        fit = [case for case in cases if case.op == op and case.error is None and case.scored]
        if fit:
            found.append(min(fit, key=lambda case: sum(np.size(value) for value in case.inputs.values())))
    return tuple(found)


def _verdict(path: Path, cases: Sequence[Case], sandbox: Sandbox) -> str:
    try:
        said, answers = sandbox.read(path)
        candidate = Recorded(info_of(said, sorted({id_.partition("/")[0] for id_ in answers})), answers)
    except (ValueError, TypeError):
        return "error"
    return {0: "pass", 1: "fail", 2: "unanswered"}[run(candidate, cases, diagnose=False).exit_code]


def _bases(folder: Path, cases: Sequence[Case]) -> dict[str, Path]:
    info = {
        "name": "fuzz",
        "version": "1",
        "dtype": "float64",
        "capabilities": [case.op for case in cases],
        "conventions": {},
    }
    right = {case.id: dict(case.outputs) for case in cases}
    wrong = {id_: {name: _spoiled(value) for name, value in one.items()} for id_, one in right.items()}
    found = {"right": folder / "right.h5", "wrong": folder / "wrong.h5", "wrong folder": folder / "wrong"}
    found["right folder"] = folder / "right"
    for name, path in found.items():
        golden.write_answers(path, info, right if name.startswith("right") else wrong)
    return found


def _spoiled(value: Any) -> Any:
    array = np.asarray(value)
    return array + 1 if array.dtype.kind in "iu" else 1.5 * array + 1


def _damaged(folder: Path, bases: Mapping[str, Path], chance: random.Random) -> tuple[Path, str]:
    kind = chance.choice(("bytes", "structure", "structure", "folder"))
    if kind == "folder":
        path = folder / "damaged"
        shutil.rmtree(path, ignore_errors=True)
        way: Mutation = chance.choice(FOLDER_WAYS)
        shutil.copytree(bases["wrong folder" if way is npy_bytes else "right folder"], path)
        way(path, chance)
        return path, way.__name__
    path = folder / "damaged.h5"
    shutil.copyfile(bases["wrong" if kind == "bytes" else "right"], path)
    way = chance.choice(BYTE_WAYS if kind == "bytes" else STRUCTURE_WAYS)
    way(path, chance)
    return path, way.__name__


# Damage to bytes ---------------------------------------------------------------------------------------


def flipped(path: Path, chance: random.Random) -> None:
    """Random bytes at up to 64 places."""
    content = bytearray(path.read_bytes())
    for _ in range(chance.randint(1, 64)):
        content[chance.randrange(len(content))] = chance.randrange(256)
    path.write_bytes(content)


def flipped_head(path: Path, chance: random.Random) -> None:
    """Random bytes where the structure of the file begins."""
    content = bytearray(path.read_bytes())
    for _ in range(chance.randint(1, 8)):
        content[chance.randrange(min(1024, len(content)))] = chance.randrange(256)
    path.write_bytes(content)


def truncated(path: Path, chance: random.Random) -> None:
    """The end is missing."""
    content = path.read_bytes()
    path.write_bytes(content[: chance.randrange(len(content))])


def block_overwritten(path: Path, chance: random.Random) -> None:
    """Zeros, ones or noise over a block."""
    content = bytearray(path.read_bytes())
    size = chance.randint(1, 2048)
    at = chance.randrange(len(content))
    fill = chance.choice((b"\0", b"\xff", None))
    content[at : at + size] = fill * size if fill else chance.randbytes(size)
    path.write_bytes(content)


def block_moved(path: Path, chance: random.Random) -> None:
    """A block copied to another place, or bytes inserted."""
    content = bytearray(path.read_bytes())
    size, source, target = (
        chance.randint(1, 512),
        chance.randrange(len(content)),
        chance.randrange(len(content)),
    )
    end = target if chance.random() < 0.5 else target + size
    content[target:end] = content[source : source + size]
    path.write_bytes(content)


def npy_bytes(folder: Path, chance: random.Random) -> None:
    """Random bytes in one of the files, or its end is missing."""
    file = chance.choice(sorted(folder.rglob("*.npy")))
    chance.choice((flipped, truncated, block_overwritten))(file, chance)


BYTE_WAYS: tuple[Mutation, ...] = (flipped, flipped, flipped_head, truncated, block_overwritten, block_moved)


# Damage to structure -----------------------------------------------------------------------------------


def _answer(file: Any, chance: random.Random, *, floats: bool = False) -> tuple[Any, str]:
    places = [
        (file[f"cases/{op}/{case}/out"], name)
        for op in file["cases"]
        for case in file[f"cases/{op}"]
        for name in file[f"cases/{op}/{case}/out"]
    ]
    return chance.choice([(g, n) for g, n in places if not floats or (g[n].dtype.kind == "f" and g[n].size)])


def _edit(path: Path, change: Callable[[Any], None]) -> None:
    import h5py

    with h5py.File(path, "r+", libver="latest") as file:
        change(file)


def _replace(path: Path, chance: random.Random, make: Callable[[Any], Any], floats: bool = False) -> None:
    def change(file: Any) -> None:
        group, name = _answer(file, chance, floats=floats)
        old = group[name][()]
        del group[name]
        made = make(np.asarray(old))
        if made is not None:
            group.create_dataset(name, data=made)

    _edit(path, change)


def not_finite(path: Path, chance: random.Random) -> None:
    """One number is NaN or infinite."""

    def spoil(old: Any) -> Any:
        new = old.copy()
        new[np.unravel_index(chance.randrange(old.size), old.shape)] = chance.choice(
            (np.nan, np.inf, -np.inf)
        )
        return new

    _replace(path, chance, spoil, floats=True)


def far_off(path: Path, chance: random.Random) -> None:
    """All numbers are far off."""
    _replace(path, chance, lambda old: old * 1e300 + chance.choice((1e200, -1e200)), floats=True)


def reshaped(path: Path, chance: random.Random) -> None:
    """An axis more, or another order of numbers."""
    _replace(
        path,
        chance,
        lambda old: old[None] if chance.random() < 0.5 else np.append(old.ravel(), old.ravel()[:1]),
    )


def emptied(path: Path, chance: random.Random) -> None:
    """No numbers."""
    _replace(
        path, chance, lambda old: old.ravel()[:0].reshape(0, *old.shape[1:]) if old.ndim else np.zeros(0)
    )


def missing(path: Path, chance: random.Random) -> None:
    """One answer is not there."""
    _replace(path, chance, lambda old: None)


def alien(path: Path, chance: random.Random) -> None:
    """An answer of a type that holds no numbers."""
    import h5py

    choices: tuple[Callable[[Any], Any], ...] = (
        lambda old: old.astype(complex),
        lambda old: np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        lambda old: "text",
        lambda old: np.bytes_(b"text"),
        lambda old: np.array(["a", "bc"], dtype=h5py.string_dtype()),
        lambda old: np.full(old.shape, b"x" * 100, dtype="S100"),
    )
    _replace(path, chance, chance.choice(choices))


def enormous(path: Path, chance: random.Random) -> None:
    """A dataset that claims more numbers than there is memory for; nothing of it is stored."""

    def change(file: Any) -> None:
        group, name = _answer(file, chance)
        del group[name]
        shape = chance.choice(((2**40,), (2**20, 2**20), (2**31, 2)))
        group.create_dataset(
            name, shape=shape, dtype="f8", chunks=tuple(min(64, n) for n in shape), compression="gzip"
        )

    _edit(path, change)


def linked(path: Path, chance: random.Random) -> None:
    """Links to nowhere, out of the file, and in a circle."""
    import h5py

    def change(file: Any) -> None:
        group, name = _answer(file, chance)
        del group[name]
        how = chance.randrange(4)
        if how == 0:
            group[name] = h5py.SoftLink(chance.choice(("/nowhere", group.name, "/")))
        elif how == 1:
            group[name] = h5py.ExternalLink(chance.choice(("other.h5", path.name, "/etc/passwd")), "/cases")
        elif how == 2:
            group[name] = file["/"]
        else:
            group.create_group(name)

    _edit(path, change)


def virtual(path: Path, chance: random.Random) -> None:
    """A dataset that lies in other files."""
    import h5py

    def change(file: Any) -> None:
        group, name = _answer(file, chance)
        shape = group[name].shape or (1,)
        del group[name]
        if chance.random() < 0.5:
            layout = h5py.VirtualLayout(shape=shape, dtype="f8")
            layout[...] = h5py.VirtualSource("right.h5", "x", shape=shape)
            group.create_virtual_dataset(name, layout)
        else:
            group.create_dataset(
                name, shape=shape, dtype="f8", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)]
            )

    _edit(path, change)


def info_damaged(path: Path, chance: random.Random) -> None:
    """What the implementation says of itself is nonsense, or huge."""
    name, value = chance.choice(
        (
            ("capabilities", "[" * 50_000),
            ("capabilities", '["fly"]'),
            ("capabilities", '{"a": 1}'),
            ("capabilities", "x" * 3_000_000),
            ("conventions", '{"h_scale": [[]]}'),
            ("conventions", '{"passes": "many"}'),
            ("conventions", '{"' + "a" * 1000 + '": 1}'),
            ("conventions", "[]"),
            ("dtype", "float16"),
            ("dtype", ""),
            ("profile", "none"),
        )
    )

    def change(file: Any) -> None:
        file.attrs[name] = value

    _edit(path, change)


def info_of_numbers(path: Path, chance: random.Random) -> None:
    """What the implementation says of itself is no text."""

    def change(file: Any) -> None:
        file.attrs[chance.choice((*golden.LISTS, "dtype"))] = np.zeros(chance.choice((0, 1, 200_000)))

    _edit(path, change)


def without_cases(path: Path, chance: random.Random) -> None:
    """A group is missing or is no group."""

    def change(file: Any) -> None:
        place = chance.choice(("cases", "cases/dual"))
        if place in file:
            del file[place]
        if chance.random() < 0.5:
            file[place] = np.zeros(3)

    _edit(path, change)


STRUCTURE_WAYS: tuple[Mutation, ...] = (
    not_finite,
    far_off,
    reshaped,
    emptied,
    missing,
    alien,
    enormous,
    linked,
    virtual,
    info_damaged,
    info_of_numbers,
    without_cases,
)


def npy_alien(folder: Path, chance: random.Random) -> None:
    """A file that is no array of numbers: pickled objects, texts, a folder, nothing, a lie about its size."""
    file = chance.choice(sorted(folder.rglob("*.npy")))
    how = chance.randrange(5)
    if how == 0:
        np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    elif how == 1:
        file.write_bytes(b"no array")
    elif how == 2:
        file.unlink()
        file.mkdir()
    elif how == 3:
        file.unlink()
    else:
        size = 2 ** chance.choice((20, 40, 70))
        head = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({size},), }}\n".encode()
        file.write_bytes(b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head)


def npy_info(folder: Path, chance: random.Random) -> None:
    """``info.json`` is damaged or huge."""
    text = chance.choice(
        ("", "{", "[]", "[" * 50_000, '{"dtype": 8}', '{"capabilities": 3}', json.dumps("a" * 100_000))
    )
    (folder / "info.json").write_text(text, encoding="utf-8")


FOLDER_WAYS: tuple[Mutation, ...] = (npy_bytes, npy_alien, npy_info)
