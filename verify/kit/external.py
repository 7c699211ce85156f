"""Implementations from outside: adapters by name, answers that were recorded, programs in any language."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from refldnq._checks import check_choice
from refldnq._typing import Array
from refldnq.verify.kit.contract import OPERATIONS, Adapter, Answers, Conventions, Info, Question

PLACES = ("{in}", "{out}", "{in.h5}", "{out.h5}")
"""What stands in a program's arguments for the questions and the answers: folders of ``.npy`` files, or one
HDF5 file."""


class ProgramError(ValueError):
    """A program did not run to its end."""


class Recorded:
    """Answers that were given before, as an adapter.

    Parameters
    ----------
    info : Info
        Who answered.
    answers : mapping
        By case id, the answers by name. An answer named ``error`` says that the inputs were refused, and why.

    Examples
    --------
    >>> import numpy as np
    >>> from types import SimpleNamespace
    >>> known = Recorded(info_of({"name": "mine"}, ["dual"]), {"dual/a": {"lam_new": np.ones(2)}})
    >>> known.answer(SimpleNamespace(id="dual/a"))["lam_new"]
    array([1., 1.])
    >>> known.answer(SimpleNamespace(id="dual/b")) is None
    True
    """

    def __init__(self, info: Info, answers: Mapping[str, Answers]) -> None:
        self._info, self._answers = info, answers

    @property
    def ids(self) -> tuple[str, ...]:
        """Of the questions that were answered."""
        return tuple(self._answers)

    def info(self) -> Info:
        """Who answered."""
        return self._info

    def echo(self, X: Array) -> Array:
        """Not to be asked.

        Raises
        ------
        NotImplementedError
            Always: what was recorded answers nothing new.
        """
        raise NotImplementedError("recorded answers have no handshake")

    def answer(self, case: Question) -> Answers | None:
        """What was answered to a case; None if nothing was.

        Raises
        ------
        ValueError
            If the case was refused.
        """
        found = self._answers.get(case.id)
        if found is not None and "error" in found:
            raise ValueError(str(found["error"]))
        return found


def info_of(said: Mapping[str, Any], answered: Sequence[str] = ()) -> Info:
    """What an implementation says of itself in JSON, with defaults for what it leaves out.

    Parameters
    ----------
    said : mapping
        Any of `name`, `version`, `dtype`, `capabilities`, `conventions` and `profile` (of conventions).
    answered : sequence of str, optional
        The operations that it has answered: its capabilities if it names none.

    Returns
    -------
    Info
        Computed in float64 and after the paper's conventions, unless it says otherwise.

    Raises
    ------
    ValueError
        If it says something that the kit does not know.

    Examples
    --------
    >>> info_of({"name": "mine", "conventions": {"h_scale": "1/n"}}, ["hessian"]).conventions.h_scale
    '1/n'
    """
    from refldnq.verify.kit.golden import LISTS, TEXTS

    for name in said:  # a misspelt one would be ignored
        check_choice("info", name, (*TEXTS, *LISTS))
    conventions = said.get("conventions", {})
    if not isinstance(conventions, Mapping):
        raise ValueError(f"`conventions` must be a mapping, got {type(conventions).__name__}.")
    start = Conventions.profile(said.get("profile", "paper")).to_json()
    named = said.get("capabilities")
    if named is not None and not (isinstance(named, list) and all(isinstance(one, str) for one in named)):
        raise ValueError(f"`capabilities` must be a list of operations, got {named!r}.")
    return Info(
        name=str(said.get("name", "unnamed")),
        version=str(said.get("version", "unknown")),
        dtype=str(said.get("dtype", "float64")),
        capabilities=frozenset(named if named is not None else set(answered) & OPERATIONS.keys()),
        conventions=Conventions.of({**start, **conventions}),
    )


def load(name: str) -> Adapter:
    """The adapter that PACKAGE:ADAPTER names; a class or function is called without arguments.

    Raises
    ------
    ValueError
        If the name has no colon, there is no such object, or it has no `info` or `echo`.
    ImportError
        If there is no such module.

    Examples
    --------
    >>> load("refldnq.verify.kit.reference:Reference").info().name
    'refldnq'
    """
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise ValueError(f"`adapter` must be PACKAGE:ADAPTER, got {name!r}.")
    found: Any = importlib.import_module(module)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ValueError(f"`adapter` must exist: {module} has no {attribute}.")
        found = getattr(found, part)
    made: Adapter = found() if callable(found) else found
    missing = [one for one in ("info", "echo") if not callable(getattr(made, one, None))]
    if missing:
        names = " and ".join(missing)
        raise ValueError(f"`adapter` must have {names}, got a {type(made).__name__} without.")
    return made


def read_xfail(file: Path) -> dict[str, str]:
    """Ids and reasons from lines ``id reason``; empty lines and those that begin with # do not count.

    Raises
    ------
    ValueError
        If a line has no reason, or an id stands twice.
    """
    expected: dict[str, str] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        id_, _, reason = line.strip().partition(" ")
        if not reason.strip():
            raise ValueError(f"`{file}` must give a reason after the id, got none in line {number}.")
        if id_ in expected:
            raise ValueError(f"`{file}` must name a case once, got {id_} again in line {number}.")
        expected[id_] = reason.strip()
    return expected


def run_program(
    command: Sequence[str], cases: Sequence[Any], *, seconds: float = 600.0, folder: Path | None = None
) -> Recorded:
    """Ask a program: write the questions, run it, read the answers.

    Parameters
    ----------
    command : sequence of str
        The program and its arguments, in which `PLACES` stand for paths; no shell is involved.
    cases : sequence of Case
        The questions. No answer is written.
    seconds : float, optional
        Longest time that the program may take.
    folder : Path, optional
        Where questions and answers are kept; by default nothing is.

    Returns
    -------
    Recorded
        What it answered.

    Raises
    ------
    ValueError
        If no argument has a place for the answers.
    ProgramError
        If the program cannot be started, takes too long or exits with another code than 0.
    """
    words = [word for word in command if "{out" in word]
    if not command or not any(place in word for word in words for place in ("{out}", "{out.h5}")):
        raise ValueError("`command` must have an argument {out} or {out.h5}, where its answers go.")
    with tempfile.TemporaryDirectory(prefix="refldnq-kit-") as temporary:
        at = Path(temporary) if folder is None else folder
        return _ask(list(command), cases, seconds, at)


def _ask(command: list[str], cases: Sequence[Any], seconds: float, at: Path) -> Recorded:
    from refldnq.verify.kit.golden import write, write_mirror

    places = {"{in}": at / "in", "{out}": at / "out", "{in.h5}": at / "in.h5", "{out.h5}": at / "out.h5"}
    text = " ".join(command)
    at.mkdir(parents=True, exist_ok=True)
    for path in (places["{out}"], places["{out.h5}"]):  # answers of an earlier run are not this one's
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
    if "{out}" in text:
        places["{out}"].mkdir()
    if "{in}" in text:
        write_mirror(places["{in}"], cases, inputs_only=True)
    if "{in.h5}" in text:
        write(places["{in.h5}"], cases, inputs_only=True)
    for place, path in places.items():
        command = [word.replace(place, str(path)) for word in command]
    try:
        done = subprocess.run(command, timeout=seconds, capture_output=True, check=False)
    except subprocess.TimeoutExpired as error:
        raise ProgramError(f"{command[0]} must end within {seconds:g} s.") from error
    except OSError as error:
        raise ProgramError(f"{command[0]} must be a program: {error.strerror}.") from error
    if done.returncode != 0:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-3:]
        raise ProgramError(f"{command[0]} must exit with 0, got {done.returncode}: {' / '.join(last)}")
    return recorded(places["{out.h5}"] if "{out.h5}" in text else places["{out}"])


def recorded(answers: Path) -> Recorded:
    """The adapter of an answers file, or of a folder of ``.npy`` files.

    Raises
    ------
    ValueError
        If it cannot be read.
    """
    from refldnq.verify.kit.golden import read_answers

    said, found = read_answers(answers)
    return Recorded(info_of(said, sorted({id_.partition("/")[0] for id_ in found})), found)
