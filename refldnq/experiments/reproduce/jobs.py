"""Runs on this machine, one by one or by joblib, and on a cluster by joblib's Dask backend.

The process that is told to do them claims each run just before it is handed out and writes what comes back;
a worker computes and touches no store. When a worker dies, its run is handed out again: by Dask itself, or
here, where a broken pool of processes is replaced.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refldnq._checks import check_integer
from refldnq.errors import FormatError
from refldnq.experiments.reproduce.methods import perform
from refldnq.experiments.reproduce.plan import PlannedRun
from refldnq.experiments.reproduce.sources import MissingError, Sources
from refldnq.experiments.reproduce.store import Store, run_id
from refldnq.experiments.run import Event

BREAKS = 2
"""A broken pool starts anew at full width so often; then runs are handed out singly, to find the guilty.

On a cluster, a run that was on so many workers as they died is not begun again.
"""

Tell = Callable[[PlannedRun, Event], None]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A run with all that a worker needs for it.

    Parameters
    ----------
    run : PlannedRun
        The run.
    identity : mapping
        Fingerprints and settings, see `run_id`.
    sources : Sources
        Where network and data are.
    beside : Path or None, optional
        The states of interrupted runs lie beside this file, the store as a rule; None keeps none.
    work : float, optional
        How long it takes, in any unit, for the time left.
    """

    run: PlannedRun
    identity: Mapping[str, Any]
    sources: Sources
    beside: Path | None = None
    work: float = 1.0

    @property
    def id(self) -> str:
        """The run's id."""
        return run_id(self.run, self.identity)

    @property
    def checkpoint(self) -> Path | None:
        """The run's own file beside `beside`."""
        if self.beside is None:
            return None
        return self.beside.with_name(f"{self.beside.stem}-{self.id[:16]}.checkpoint.h5")


@dataclass(frozen=True, kw_only=True)
class TaskOutcome:
    """What became of a task.

    Parameters
    ----------
    id : str
        The run's.
    result : mapping or None
        The row, if there is one.
    reason : str or None
        Why there is none.
    """

    id: str
    result: Mapping[str, Any] | None = None
    reason: str | None = None


Work = Callable[[Task], TaskOutcome]


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Who does the runs.

    Parameters
    ----------
    jobs : int, optional
        Processes on this machine; 1 is this process.
    dask : str or None, optional
        Address of a Dask scheduler in place of them.

    Raises
    ------
    ValueError
        If `jobs` is not positive.
    TypeError
        If `jobs` is no integer.
    """

    jobs: int = 1
    dask: str | None = None

    def __post_init__(self) -> None:
        check_integer("jobs", self.jobs, at_least=1)

    @property
    def here(self) -> bool:
        """Whether this process does them itself."""
        return self.jobs == 1 and self.dask is None


def work_on(task: Task, tell: Tell | None = None) -> TaskOutcome:
    """Do a task; what goes wrong is the outcome."""
    checkpoint = task.checkpoint
    try:
        result = perform(
            task.run,
            task.sources,
            on_progress=None if tell is None else lambda event: tell(task.run, event),
            checkpoint=checkpoint,
        )
    except MissingError as reason:
        return TaskOutcome(id=task.id, reason=f"missing: {reason}")
    except FormatError as wrong:
        # Its message names the file; from a damaged state nobody can go on, and the run may begin anew.
        if checkpoint is not None and checkpoint.name in str(wrong):
            checkpoint.unlink(missing_ok=True)
        return TaskOutcome(id=task.id, reason=f"FormatError: {wrong}")
    except Exception as wrong:  # whatever it is, it is this run's and goes into its row
        return TaskOutcome(id=task.id, reason=f"{type(wrong).__name__}: {wrong}")
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return TaskOutcome(id=task.id, result=result)


def execute(
    tasks: Sequence[Task],
    store: Store,
    workers: Workers,
    *,
    retry_failed: bool = False,
    on_outcome: Callable[[Task, TaskOutcome, bool], None] | None = None,
    tell: Tell | None = None,
    work: Work = work_on,
) -> None:
    """Do all tasks that nobody has done and nobody is working on, and keep what they give.

    Parameters
    ----------
    tasks : sequence of Task
        In the order in which they are handed out.
    store : Store
        Rows that are there are not made again.
    workers : Workers
        Who does them.
    retry_failed : bool, optional
        Whether runs that have failed before are tried again.
    on_outcome : callable, optional
        Called with a task, its outcome and whether it was kept, as each ends.
    tell : callable, optional
        Called with events within a run, where this process does it.
    work : callable, optional
        What a worker does with a task.

    Raises
    ------
    ImportError
        If joblib or Dask is needed and not installed.
    OSError
        If the scheduler cannot be reached, or the store not be written.
    """
    known = {task.id: task for task in tasks}

    with ExitStack() as stack:
        pool = stack.enter_context(_pool(workers)) if not workers.here else None
        owner = stack.enter_context(store.working())

        def claimed(batch: Iterable[Task]) -> Iterator[Task]:
            for task in batch:
                if store.claim(task.run, task.identity, owner, retry_failed=retry_failed) is not None:
                    yield task
                else:
                    open_ids.discard(task.id)

        def keep(outcome: TaskOutcome) -> None:
            open_ids.discard(outcome.id)
            if outcome.result is not None:
                kept = store.finish(outcome.id, owner, outcome.result)
            else:
                kept = store.fail(outcome.id, owner, outcome.reason or "no reason was given")
            if on_outcome is not None:
                on_outcome(known[outcome.id], outcome, kept)

        open_ids = set(known)
        if pool is None:
            for task in claimed(tasks):
                keep(work_on(task, tell) if work is work_on else work(task))
            return
        breaks = 0
        while open_ids:
            left = [task for task in known.values() if task.id in open_ids]
            batch = left if breaks < BREAKS else left[:1]
            try:
                for outcome in pool(work, claimed(batch)):
                    keep(outcome)
            except BrokenExecutor as broken:
                breaks += 1
                if len(batch) == 1 and batch[0].id in open_ids:
                    words = " ".join(str(broken).split())
                    keep(TaskOutcome(id=batch[0].id, reason=f"its process died: {words}"))
                store.release(owner)


@dataclass(frozen=True)
class _Counted:
    """Work on a cluster that counts its beginnings, where the count survives the worker.

    Dask gives up a task whose workers keep dying, and joblib's backend waits for such a task forever: a run
    that kills its workers must end before.
    """

    work: Work
    session: str

    def __call__(self, task: Task) -> TaskOutcome:
        from distributed import get_client

        client, place = get_client(), ["refldnq", self.session, task.id]
        begun = client.get_metadata(place, 0)
        if begun >= BREAKS:
            return TaskOutcome(id=task.id, reason=f"its process died: {begun} workers did that had it")
        client.set_metadata(place, begun + 1)
        outcome = self.work(task)
        client.set_metadata(place, begun)  # what is lost now, and done again, was not its fault
        return outcome


Pool = Callable[[Work, Iterator[Task]], Iterator[TaskOutcome]]


@contextmanager
def _pool(workers: Workers) -> Iterator[Pool]:
    try:
        import joblib
    except ImportError:
        raise ImportError("`--jobs` needs joblib: pip install 'refldnq[dist]'.") from None
    with ExitStack() as stack:
        if workers.dask is None:
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
            share = max(1, cores // workers.jobs)
            stack.enter_context(_threads(share))
            how: dict[str, Any] = {"backend": "loky", "inner_max_num_threads": share}
            count = workers.jobs
        else:
            stack.enter_context(_client(workers.dask))
            how, count = {"backend": "dask"}, -1
        stack.enter_context(joblib.parallel_config(**how))

        def pool(work: Work, tasks: Iterator[Task]) -> Iterator[TaskOutcome]:
            # One task at a time to a worker: they are long, and each is claimed when it is handed out.
            parallel = joblib.Parallel(
                n_jobs=count, batch_size=1, pre_dispatch="n_jobs", return_as="generator_unordered"
            )
            if workers.dask is not None:
                work = _Counted(work, uuid.uuid4().hex)
            found: Iterator[TaskOutcome] = parallel(joblib.delayed(work)(task) for task in tasks)
            return found

        yield pool


@contextmanager
def _threads(share: int) -> Iterator[None]:
    # Worker processes read it when they start; a number that the user has given stays.
    name = "REFLDNQ_NUM_THREADS"
    given = os.environ.get(name)
    os.environ.setdefault(name, str(share))
    try:
        yield
    finally:
        if given is None:
            del os.environ[name]


@contextmanager
def _client(address: str) -> Iterator[None]:
    try:
        from distributed import Client
    except ImportError:
        raise ImportError("`--dask` needs Dask: pip install 'refldnq[dist]'.") from None
    with Client(address, timeout="30s", set_as_default=True):
        yield
