"""Results of long experiments: one row a finished run, in a JSON file that is whole at any moment.

A run is known by its key. A row is added under a lock by writing a temporary file and renaming it, so a
killed process loses its unfinished run and nothing else, and several processes may share a file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refldnq.experiments.record import plain
from refldnq.experiments.sections import write_section
from refldnq.formats.atomic import atomic_path
from refldnq.tables import markdown_table

__all__ = [
    "RESULTS",
    "Key",
    "Store",
    "markdown_table",
    "plain",
    "settings_hash",
    "write_json",
    "write_section",
]

Key = Mapping[str, str | int]
"""What a run is known by."""

RESULTS = Path(__file__).resolve().parent / "results"
"""Where results lie unless another file is named."""


def write_json(path: Path, content: Any) -> None:
    """Write `content` whole or not at all.

    Raises
    ------
    ValueError
        If a number is NaN or infinite.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def settings_hash(settings: Any) -> str:
    """Twelve hexadecimal digits that differ for different settings.

    Parameters
    ----------
    settings : object
        Dataclasses, mappings, sequences, arrays and JSON values.

    Examples
    --------
    >>> settings_hash({"a": 1, "b": 2}) == settings_hash({"b": 2, "a": 1}) != settings_hash({"a": 1, "b": 3})
    True
    """
    text = json.dumps(plain(settings), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Store:
    """The rows of a file.

    Parameters
    ----------
    path : Path
        The file; it need not exist.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = Store(Path(folder) / "rows.json")
    ...     first = store.run({"seed": 0}, lambda: {"accuracy": 91.5})
    ...     again = store.run({"seed": 0}, lambda: {"accuracy": 0.0})
    >>> first == again, first
    (True, {'key': {'seed': 0}, 'result': {'accuracy': 91.5}})
    """

    path: Path

    def rows(self) -> list[dict[str, Any]]:
        """All rows, ``{"key": ..., "result": ...}``, in the order in which they were added.

        Raises
        ------
        ValueError
            If the file is not one of a store.
        """
        if not self.path.exists():
            return []
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"`{self.path}` must hold JSON, got {error}.") from error
        rows = content.get("rows") if isinstance(content, dict) else None
        if not isinstance(rows, list) or any(set(row) != {"key", "result"} for row in rows):
            raise ValueError(f"`{self.path}` must hold rows of a key and a result each, got something else.")
        return rows

    def find(self, key: Key) -> dict[str, Any] | None:
        """The row of `key`; None if there is none."""
        return next((row for row in self.rows() if row["key"] == dict(key)), None)

    def add(self, key: Key, result: Mapping[str, Any]) -> dict[str, Any]:
        """Add the row of a finished run.

        Raises
        ------
        ValueError
            If `key` has a row already, or the result has a value that JSON lacks.
        """
        row = {"key": dict(key), "result": plain(result)}
        with self._lock():
            if self.find(key) is not None:
                raise ValueError(f"`key` must be new, got {dict(key)} a second time.")
            write_json(self.path, {"rows": [*self.rows(), row]})
        return row

    def run(self, key: Key, work: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """The row of `key`: the stored one, or a new one with the result of `work`, which is then called."""
        found = self.find(key)
        return self.add(key, work()) if found is None else found

    @contextmanager
    def _lock(self) -> Iterator[None]:
        # On the folder: the file itself is replaced, and the system opens the lock of a killed process.
        import fcntl

        self.path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)
