"""All runs in one SQLite file: one row a run, claimed while it is worked on, never done twice.

A process that works on a run holds a claim on it and renews that claim; a claim that is not renewed, or whose
process has died on this machine, is free again. Rows are written by the process that was told to reproduce
something, never by its workers, so the file may lie where only that process reaches it.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from refldnq.errors import FormatError
from refldnq.experiments.record import plain
from refldnq.experiments.reproduce.plan import PlannedRun

APPLICATION = 0x4C444E51
"""SQLite's application id of such a file: LDNQ."""

LEASE = 60.0
"""Seconds that a claim lasts without being renewed; chosen here: a machine may stall for some of them."""

WAIT = 60.0
"""Seconds to wait for another process that is writing."""

State = Literal["claimed", "done", "failed"]

_TABLE = """
CREATE TABLE IF NOT EXISTS runs (
    id TEXT PRIMARY KEY,
    network TEXT NOT NULL,
    method TEXT NOT NULL,
    levels INTEGER NOT NULL,
    images INTEGER NOT NULL,
    seed INTEGER NOT NULL,
    keep_ends INTEGER NOT NULL,
    schedule TEXT NOT NULL,
    identity TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('claimed', 'done', 'failed')),
    owner TEXT,
    lease REAL,
    tries INTEGER NOT NULL,
    ended TEXT,
    reason TEXT,
    result TEXT
)
"""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A run that has been begun.

    Parameters
    ----------
    id : str
        See `run_id`.
    run : PlannedRun
        What was run.
    identity : mapping
        Fingerprints of network and data, and the settings.
    state : {'claimed', 'done', 'failed'}
        Under way, or how it ended.
    tries : int
        How often it was begun.
    ended : str or None
        When, in UTC.
    reason : str or None
        Why it failed, in one line.
    result : mapping or None
        What `refldnq.experiments.reproduce.methods.perform` gave.
    """

    id: str
    run: PlannedRun
    identity: Mapping[str, Any]
    state: State
    tries: int
    ended: str | None
    reason: str | None
    result: Mapping[str, Any] | None

    @property
    def group(self) -> str:
        """Equal for runs that differ in nothing but their seeds."""
        return run_id(self.run, self.identity, seedless=True)[:8]


def run_id(run: PlannedRun, identity: Mapping[str, Any], *, seedless: bool = False) -> str:
    """SHA-256 of a run's description, of the settings, and of the network and the data it works on.

    Parameters
    ----------
    run : PlannedRun
        The description.
    identity : mapping
        The rest; JSON values.
    seedless : bool, optional
        Whether the seed is left out.

    Examples
    --------
    >>> one, other = (PlannedRun("resnet20", "ldnq", 3, 500, seed) for seed in (0, 1))
    >>> run_id(one, {}) == run_id(other, {})
    False
    >>> run_id(one, {}, seedless=True) == run_id(other, {}, seedless=True)
    True
    """
    words, rest = asdict(run), dict(identity)
    if seedless:
        del words["seed"]
        request = dict(rest.get("request") or {})
        request.pop("seed", None)
        rest["request"] = request
    text = json.dumps(plain([words, rest]), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


class Store:
    """The rows of a file; the file is made when the first run is claimed.

    Parameters
    ----------
    path : Path
        The file.
    lease : float, optional
        See `LEASE`.

    Examples
    --------
    >>> import tempfile
    >>> run = PlannedRun("resnet20", "ldnq", 3, 500, 0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = Store(Path(folder) / "runs.sqlite")
    ...     with store.working() as owner:
    ...         first, again = store.claim(run, {}, owner), store.claim(run, {}, owner)
    ...         _ = store.finish(first, owner, {"change": -4.0})
    ...     [(row.state, row.result) for row in store.rows()], again
    ([('done', {'change': -4.0})], None)
    """

    def __init__(self, path: Path, *, lease: float = LEASE) -> None:
        self.path, self.lease = path, lease

    def rows(self) -> list[Row]:
        """All rows, in the order in which their runs were first begun.

        Raises
        ------
        FormatError
            If the file is not a store.
        """
        if not self.path.exists() or not self.path.stat().st_size:  # empty: its maker was killed
            return []
        with self._open() as connection:
            found = connection.execute("SELECT * FROM runs ORDER BY rowid").fetchall()
        return [_row(record) for record in found]

    @contextmanager
    def working(self) -> Iterator[str]:
        """The name under which this process claims runs; its claims are renewed until the block ends.

        Claims that are left then are given back.
        """
        owner = f"{_here()} {os.getpid()} {uuid.uuid4().hex}"
        stop = threading.Event()

        def renew() -> None:
            while not stop.wait(self.lease / 4):
                try:
                    self._change("UPDATE runs SET lease = ? WHERE owner = ?", self._until(), owner)
                except (sqlite3.Error, OSError):  # the next turn may succeed; the lease has time for three
                    continue

        thread = threading.Thread(target=renew, daemon=True, name="refldnq-claims")
        thread.start()
        try:
            yield owner
        finally:
            stop.set()
            thread.join()
            if self.path.exists():
                self.release(owner)

    def claim(
        self, run: PlannedRun, identity: Mapping[str, Any], owner: str, *, retry_failed: bool = False
    ) -> str | None:
        """Take a run, unless it is done, has failed, or somebody works on it.

        Parameters
        ----------
        run, identity
            See `run_id`.
        owner : str
            From `working`.
        retry_failed : bool, optional
            Whether a run that has failed is taken too.

        Returns
        -------
        str or None
            The run's id if it is taken.

        Raises
        ------
        FormatError
            If the file is not a store.
        """
        own = run_id(run, identity)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._open(write=True) as connection:
            found = connection.execute("SELECT state, owner, lease FROM runs WHERE id = ?", (own,)).fetchone()
            if found is None:
                words = asdict(run)
                words["identity"] = json.dumps(plain(identity), sort_keys=True, allow_nan=False)
                values = {**words, "id": own, "owner": owner, "lease": self._until()}
                places = ", ".join(f":{name}" for name in values)
                connection.execute(
                    f"INSERT INTO runs ({', '.join(values)}, state, tries) VALUES ({places}, 'claimed', 1)",
                    values,
                )
                return own
            state, holder, lease = found
            free = state == "failed" and retry_failed
            free |= state == "claimed" and (holder is None or lease < time.time() or _dead(holder))
            if not free:
                return None
            connection.execute(
                "UPDATE runs SET state = 'claimed', owner = ?, lease = ?, tries = tries + 1, ended = NULL, "
                "reason = NULL WHERE id = ?",
                (owner, self._until(), own),
            )
            return own

    def finish(self, run: str, owner: str, result: Mapping[str, Any]) -> bool:
        """Keep a run's result; False, and nothing is kept, if the claim has gone to somebody else."""
        text = json.dumps(plain(result), allow_nan=False, ensure_ascii=False)
        return self._end(run, owner, "done", None, text)

    def fail(self, run: str, owner: str, reason: str) -> bool:
        """Keep why a run has failed; False if the claim has gone to somebody else."""
        return self._end(run, owner, "failed", " ".join(reason.split()), None)

    def release(self, owner: str) -> int:
        """Give back all claims of `owner`, and say how many there were."""
        return self._change("UPDATE runs SET owner = NULL, lease = NULL WHERE owner = ?", owner)

    def _end(self, run: str, owner: str, state: State, reason: str | None, result: str | None) -> bool:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        count = self._change(
            "UPDATE runs SET state = ?, reason = ?, result = ?, ended = ?, owner = NULL, lease = NULL "
            "WHERE id = ? AND owner = ? AND state = 'claimed'",
            *(state, reason, result, now, run, owner),
        )
        return count == 1

    def _until(self) -> float:
        return time.time() + self.lease

    def _change(self, words: str, *values: Any) -> int:
        with self._open(write=True) as connection:
            return int(connection.execute(words, values).rowcount)

    @contextmanager
    def _open(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        # A connection for every transaction: threads share nothing, and a killed process leaves nothing open.
        try:
            with closing(sqlite3.connect(self.path, timeout=WAIT, isolation_level=None)) as connection:
                connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
                self._check(connection, write)
                yield connection
                connection.execute("COMMIT")  # an exception closes without it, which rolls back
        except sqlite3.DatabaseError as wrong:
            if isinstance(wrong, sqlite3.OperationalError):
                raise OSError(
                    f"`{self.path}` must be a file that can be written to, got: {wrong}."
                ) from wrong
            raise FormatError(f"`{self.path}` must be a store of runs, got: {wrong}.") from wrong

    def _check(self, connection: sqlite3.Connection, write: bool) -> None:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        if application == APPLICATION:
            return
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application or tables or not write:
            raise FormatError(f"`{self.path}` must be a store of runs, got another SQLite file.")
        connection.execute(_TABLE)
        connection.execute(f"PRAGMA application_id = {APPLICATION}")


def _row(record: tuple[Any, ...]) -> Row:
    (
        own,
        network,
        method,
        levels,
        images,
        seed,
        ends,
        schedule,
        identity,
        state,
        _,
        _,
        tries,
        ended,
        why,
        out,
    ) = record
    return Row(
        id=own,
        run=PlannedRun(network, method, levels, images, seed, bool(ends), schedule),
        identity=json.loads(identity),
        state=state,
        tries=tries,
        ended=ended,
        reason=why,
        result=None if out is None else json.loads(out),
    )


def _here() -> str:
    # Process ids mean something within one machine's, or one container's, table of processes.
    try:
        table = os.readlink("/proc/self/ns/pid")
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{socket.gethostname()}/{table}/{file.read().strip()}"
    except OSError:
        return f"{socket.gethostname()}//"


def _dead(owner: str) -> bool:
    place, process, _ = owner.rsplit(" ", 2)
    if place != _here() or place.endswith("//"):  # elsewhere, or unknown: the lease decides
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
