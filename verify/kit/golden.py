r"""Cases and answers as files: HDF5 of the schema ``refldnq-golden/1``, and a mirror of ``.npy`` files.

::

    /                     schema, suite, generator_sha256, license
    /cases/<op>/<name>    comment, level, flags, catches, conventions, certified, kappa, scored
      in/<input>          arrays and numbers, texts of bytes; attribute axes where they have names
      out/<answer>        the right answer; attribute compare
      out/error           in place of answers: why the inputs must be refused
      bound/<answer>      margin/<answer>      allowed/<answer>
      trace/<name>        of a trajectory: what goes into every iteration and what comes out

Attributes are texts of fixed length in ASCII (other characters as ``\uXXXX``, as in JSON), lists and
mappings in JSON; `kappa` is a number and `scored` 0 or 1. Nothing is compressed, nothing refers to anything
else, and no time is stored: equal cases make equal files, byte for byte. The mirror has the same tree of
folders with a ``.npy`` file (version 1.0, C order) for each dataset, ``index.json`` for the attributes, its
JSON Schema and ``SHA256SUMS``.

Answers are read from ``/cases/<op>/<name>/out/<answer>`` or ``<op>/<name>/out/<answer>.npy``, and what an
implementation says of itself from the attributes of the root or ``info.json``; never in this process
(`sandbox`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from refldnq._typing import Array
from refldnq.formats.atomic import atomic_path
from refldnq.verify.kit.cases import CERTIFIED, COMPARE, TIERS, Case
from refldnq.verify.kit.contract import OPERATIONS, Answers

SCHEMA = "refldnq-golden/1"
"""Name of the format; the number changes when an older reader would misread a newer file."""

SUITE = "2026.11"
"""Version of the cases: the month of their release."""

LICENSE = "MIT"

TEXTS = ("name", "version", "dtype", "profile")
"""What an implementation says of itself in texts."""

LISTS = ("capabilities", "conventions")
"""What it says in JSON."""

ROOT = ("schema", "suite", "generator_sha256", "license")
"""Attributes of the root of an export: which suite, from which generator."""

AXES: Mapping[str, tuple[str, ...]] = {
    "X": ("n,c", "n,c,h,w"),
    "x": ("n,c", "n,c,h,w"),
    "patches": ("n,p,g,d",),
    "H": ("d,d", "g,d,d"),
    "W": ("d,m", "g,d,m"),
    "W_bar": ("d,m",),
    "G": ("d,m", "g,d,m"),
    "G0": ("d,m",),
    "lam": ("d,m",),
    "lam0": ("d,m",),
    "weight_shape": ("g m c/g kh kw",),
    "padding": ("top bottom left right",),
}
"""Names of the axes of inputs, by their number; of vectors, names of the entries."""

_PARTS = ("bound", "margin", "allowed", "trace")

_TEXTS = {"type": "array", "items": {"type": "string"}}

INDEX_SCHEMA: Mapping[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "index.json of a mirror of refldnq-golden/1",
    "type": "object",
    "required": ["schema", "suite", "generator_sha256", "license", "cases"],
    "additionalProperties": False,
    "properties": {
        "schema": {"const": SCHEMA},
        "suite": {"type": "string", "pattern": "^[0-9]{4}\\.[0-9]{2}(\\.[0-9]+)?$"},
        "generator_sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
        "license": {"type": "string"},
        "cases": {
            "type": "array",
            "items": {
                "type": "object",
                "required": [
                    "op",
                    "id",
                    "comment",
                    "level",
                    "flags",
                    "catches",
                    "conventions",
                    "kappa",
                    "in",
                ],
                "additionalProperties": False,
                "properties": {
                    "op": {"enum": list(OPERATIONS)},
                    "id": {"type": "string", "pattern": "^[a-z_]+/[^/]+$"},
                    "comment": {"type": "string"},
                    "level": {"enum": list(TIERS)},
                    "flags": _TEXTS,
                    "catches": _TEXTS,
                    "conventions": {"type": "object"},
                    "certified": {"enum": list(CERTIFIED)},
                    "kappa": {"type": "number"},
                    "scored": {"type": "boolean"},
                    "in": _TEXTS,
                    "out": {"type": "object", "additionalProperties": {"enum": list(COMPARE)}},
                    "error": {"type": "string"},
                    **dict.fromkeys(_PARTS, _TEXTS),
                },
            },
        },
    },
}
"""The JSON Schema of the mirror's ``index.json``."""


# Writing -----------------------------------------------------------------------------------------------


def write(path: str | Path, cases: Iterable[Case], *, inputs_only: bool = False) -> None:
    """Write cases as one HDF5 file, at once and whole.

    Parameters
    ----------
    path : str or Path
        The file.
    cases : iterable of Case
        What is written.
    inputs_only : bool, optional
        Whether right answers, bounds, margins and what must be refused are left out.

    Examples
    --------
    >>> import tempfile
    >>> from refldnq.verify.kit.cases import all_cases
    >>> case = next(one for one in all_cases() if one.op == "dual" and one.error is None)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(Path(folder) / "golden.h5", [case])
    ...     load(Path(folder) / "golden.h5")[0].id == case.id
    True
    """
    from refldnq.verify.kit import hdf5

    with atomic_path(path) as temporary, hdf5.new_file(temporary) as file:
        hdf5.set_attributes(file, _root())
        for case in sorted(cases, key=lambda one: one.id):
            group = hdf5.new_group(file, f"cases/{case.id}")
            hdf5.set_attributes(group, _attributes(case, inputs_only))
            for place, array in datasets(case, inputs_only):
                part, _, name = place.partition("/")
                dataset = hdf5.new_dataset(group, place, array)
                known = [axes for axes in AXES.get(name, ()) if len(axes.split(",")) == array.ndim]
                if part == "in" and known:
                    hdf5.set_attributes(dataset, {"axes": known[0]})
                if part == "out" and name in case.compare:
                    hdf5.set_attributes(dataset, {"compare": case.compare[name]})


def write_mirror(folder: str | Path, cases: Iterable[Case], *, inputs_only: bool = False) -> None:
    """Write cases as a folder of ``.npy`` files with ``index.json``.

    Parameters
    ----------
    folder : str or Path
        Where; it is made if it does not exist. Files of other names stay, but are not in ``SHA256SUMS``.
    cases : iterable of Case
        What is written.
    inputs_only : bool, optional
        Whether right answers, bounds, margins and what must be refused are left out.
    """
    top, entries, written = Path(folder), [], []
    top.mkdir(parents=True, exist_ok=True)
    for case in sorted(cases, key=lambda one: one.id):
        entries.append(_entry(case, inputs_only))
        for place, array in datasets(case, inputs_only):
            file = top / case.id / f"{place}.npy"
            file.parent.mkdir(parents=True, exist_ok=True)
            _write_npy(file, array)
            written.append(file)
    for name, content in (("index.json", {**_root(), "cases": entries}), ("index.schema.json", INDEX_SCHEMA)):
        text = json.dumps(content, indent=1, ensure_ascii=True, allow_nan=False) + "\n"
        (top / name).write_text(text, encoding="ascii", newline="\n")
        written.append(top / name)
    sums = "".join(f"{sha256(file)}  {file.relative_to(top).as_posix()}\n" for file in sorted(written))
    (top / "SHA256SUMS").write_text(sums, encoding="ascii", newline="\n")


def write_answers(path: str | Path, info: Mapping[str, Any], answers: Mapping[str, Answers]) -> None:
    """Write answers as they are read: HDF5 if the name ends in ``.h5``, else a folder.

    Parameters
    ----------
    path : str or Path
        The file, or the folder, which is made if it does not exist.
    info : mapping
        `TEXTS` and `LISTS` of the implementation, as far as they are known.
    answers : mapping
        By case id, the answers by name; a text ``error`` says that the inputs were refused.
    """
    places = [
        (f"{id_}/out/{name}", as_array(value))
        for id_ in sorted(answers)
        for name, value in answers[id_].items()
    ]
    if Path(path).suffix == ".h5":
        from refldnq.verify.kit import hdf5

        with atomic_path(path) as temporary, hdf5.new_file(temporary) as file:
            hdf5.set_attributes(
                file, {key: value if key in TEXTS else json.dumps(value) for key, value in info.items()}
            )
            for place, array in places:
                hdf5.new_dataset(file, f"cases/{place}", array)
        return
    Path(path).mkdir(parents=True, exist_ok=True)
    (Path(path) / "info.json").write_text(json.dumps(dict(info)), encoding="utf-8")
    for place, array in places:
        file_ = Path(path) / f"{place}.npy"
        file_.parent.mkdir(parents=True, exist_ok=True)
        _write_npy(file_, array)


def sha256(path: str | Path) -> str:
    """The hash of a file, in hexadecimal."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@cache
def generator_sha256() -> str:
    """The hash of the sources that cases are made by: what they ask, what is right, how it is found."""
    here = Path(__file__).parent
    sources = [here / name for name in ("cases.py", "contract.py")] + sorted((here / "families").glob("*.py"))
    found = hashlib.sha256()
    for source in sources:
        found.update(source.name.encode() + b"\0" + source.read_bytes().replace(b"\r\n", b"\n") + b"\0")
    return found.hexdigest()


def datasets(case: Case, inputs_only: bool = False) -> Iterator[tuple[str, Array]]:
    """All arrays of a case with their places: ``in/X``, ``out/H``, ``bound/H``; inputs of None have none."""
    for name, value in sorted(case.inputs.items()):
        if value is not None:
            yield f"in/{name}", as_array(value)
    if inputs_only:
        return
    if case.error is not None:
        yield "out/error", as_array(_ascii(case.error))
    for name, value in sorted(case.outputs.items()):
        yield f"out/{name}", as_array(value)
    for part in _PARTS:
        for name, value in sorted(getattr(case, part).items()):
            yield f"{part}/{name}", as_array(value)


def as_array(value: Any) -> Array:
    """A value as it is stored: C order, little-endian; a text as bytes.

    Raises
    ------
    ValueError
        If it is no array of numbers, number, truth value or text in ASCII.

    Examples
    --------
    >>> as_array(True), as_array("exact"), as_array((1, 2))
    (array(True), array(b'exact', dtype='|S5'), array([1, 2]))
    """
    if isinstance(value, str):
        return np.array(value.encode("ascii") or b"\0", dtype=f"S{max(1, len(value))}")
    array = np.asarray(value, order="C")
    if array.dtype.kind not in "biufS":
        raise ValueError(f"`value` must hold numbers, truth values or a text, got type {array.dtype}.")
    return np.require(array.astype(array.dtype.newbyteorder("<"), copy=False), requirements=["C"])


def _write_npy(file: Path, array: Array) -> None:
    with file.open("wb") as stream:
        np.lib.format.write_array(stream, array, version=(1, 0), allow_pickle=False)


def _root() -> dict[str, str]:
    return dict(zip(ROOT, (SCHEMA, SUITE, generator_sha256(), LICENSE), strict=True))


def _attributes(case: Case, inputs_only: bool) -> dict[str, Any]:
    entry = {key: value for key, value in _entry(case, inputs_only).items() if key in _ATTRIBUTES}
    told = {
        key: json.dumps(value) if isinstance(value, list | dict) else value for key, value in entry.items()
    }
    return {**told, "comment": _ascii(case.comment)}


_ATTRIBUTES = ("comment", "level", "flags", "catches", "conventions", "certified", "kappa", "scored")


def _entry(case: Case, inputs_only: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "op": case.op,
        "id": case.id,
        "comment": case.comment,
        "level": case.tier,
        "flags": list(case.flags),
        "catches": list(case.catches),
        "conventions": dict(case.conventions),
        "kappa": float(case.kappa),
        "in": sorted(name for name, value in case.inputs.items() if value is not None),
    }
    if inputs_only:
        return entry
    entry |= {
        "certified": case.certified,
        "scored": bool(case.scored),
        "out": dict(sorted(case.compare.items())),
    }
    if case.error is not None:
        entry["error"] = case.error
    return entry | {part: sorted(getattr(case, part)) for part in _PARTS}


def _ascii(text: str) -> str:
    # As within the quotes of JSON.
    return json.dumps(text)[1:-1]


def _text(ascii_: str) -> str:
    return str(json.loads(f'"{ascii_}"'))


# Reading -----------------------------------------------------------------------------------------------


def load(path: str | Path) -> tuple[Case, ...]:
    """Cases from a file or a mirror that this project wrote; answers of others are read by `read_answers`.

    Parameters
    ----------
    path : str or Path
        HDF5 file or folder.

    Returns
    -------
    tuple of Case
        In the order of the operations.

    Raises
    ------
    ValueError
        If it is of another schema, or has no right answers.
    """
    found = list(_load_mirror(Path(path)) if Path(path).is_dir() else _load_file(Path(path)))
    order = {op: i for i, op in enumerate(OPERATIONS)}
    return tuple(sorted(found, key=lambda case: (order[case.op], case.id)))


def _load_file(path: Path) -> Iterator[Case]:
    from refldnq.verify.kit import hdf5

    with hdf5.open_file(path) as file:
        _check_schema(path, hdf5.attributes(file).get("schema"))
        for id_, group in hdf5.children(file["cases"], depth=2):
            said = hdf5.attributes(group)
            entry = {key: json.loads(said[key]) for key in ("flags", "catches", "conventions")}
            entry |= {"id": id_, "comment": _text(said["comment"]), "scored": bool(said.get("scored", 1))}
            entry |= {key: said[key] for key in ("level", "certified", "kappa") if key in said}
            arrays = {name: np.asarray(one[()]) for name, one in hdf5.children(group, depth=2)}
            outs = group.get("out", {})
            entry["out"] = {name: hdf5.attributes(outs[name])["compare"] for name in outs if name != "error"}
            yield _case(path, entry, arrays)


def _load_mirror(folder: Path) -> Iterator[Case]:
    index = json.loads((folder / "index.json").read_text(encoding="ascii"))
    _check_schema(folder, index.get("schema"))
    for entry in index["cases"]:
        files = sorted((folder / entry["id"]).glob("*/*.npy"))
        yield _case(
            folder,
            entry,
            {f"{file.parent.name}/{file.stem}": np.load(file, allow_pickle=False) for file in files},
        )


def _check_schema(path: Path, schema: object) -> None:
    if schema != SCHEMA:
        raise ValueError(f"`{path}` must be of the schema {SCHEMA}, got {schema!r}.")


def _case(path: Path, entry: Mapping[str, Any], arrays: Mapping[str, Array]) -> Case:
    parts: dict[str, dict[str, Any]] = {name: {} for name in ("in", "out", *_PARTS)}
    for place, array in arrays.items():
        part, _, name = place.partition("/")
        parts[part][name] = array
    error = parts["out"].pop("error", None)
    if error is None and not parts["out"]:
        raise ValueError(f"`{path}` must hold right answers, got none of {entry['id']}.")
    return Case(
        op=entry["id"].partition("/")[0],
        id=entry["id"],
        comment=entry["comment"],
        tier=entry["level"],
        flags=tuple(entry["flags"]),
        catches=tuple(entry["catches"]),
        conventions=entry["conventions"],
        inputs={name: plain(array) for name, array in parts["in"].items()},
        outputs=parts["out"],
        compare={name: how for name, how in entry["out"].items() if name in parts["out"]},
        bound=parts["bound"],
        margin=parts["margin"],
        allowed=parts["allowed"],
        trace=parts["trace"],
        error=None if error is None else _text(str(plain(error))),
        kappa=float(entry["kappa"]),
        certified=entry["certified"],
        scored=entry["scored"],
    )


def plain(array: Array) -> Any:
    """An array; without axes a number, truth value or text.

    Examples
    --------
    >>> plain(np.array(2.0)), plain(np.array(b"exact")), plain(np.array([1]))
    (2.0, 'exact', array([1]))
    """
    if array.ndim:
        return array
    value = array.item()
    return value.decode("ascii") if isinstance(value, bytes) else value


def read_answers(path: str | Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Answers that an implementation has written, and what it says of itself.

    Parameters
    ----------
    path : str or Path
        HDF5 file or folder. It is not trusted: another process reads it, with limits on memory and time.

    Returns
    -------
    info : dict
        Texts by name, `capabilities` and `conventions` as JSON values; empty if nothing is said.
    answers : dict
        By case id, arrays by the name of the answer; ``error`` is a text.

    Raises
    ------
    ValueError
        If it cannot be read, whatever the reason.
    """
    from refldnq.verify.kit import sandbox

    return sandbox.read(path)
