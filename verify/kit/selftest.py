"""The kit's own test: every fault is caught and named, every correct variant passes, nothing empty passes."""

from __future__ import annotations

import multiprocessing
import time
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from refldnq._typing import Array
from refldnq.verify.kit.contract import OPERATIONS, Answers, Info, Question
from refldnq.verify.kit.diagnose import Replays, prefer
from refldnq.verify.kit.fault import Fault
from refldnq.verify.kit.faults import BY_ID, CATALOGUE, find
from refldnq.verify.kit.knobs import Knobs
from refldnq.verify.kit.reference import Reference
from refldnq.verify.kit.runner import SOUND, Judge, KitRun, replays_for, run

VARIANTS: Mapping[str, tuple[Knobs, str]] = {
    "the library": (Knobs(), "float64"),
    "LU": (Knobs(solver="lu"), "float64"),
    "eigendecomposition": (Knobs(solver="eigh"), "float64"),
    "Woodbury": (Knobs(solver="woodbury"), "float64"),
    "reversed sums": (Knobs(backwards=True), "float64"),
    "sums of two threads": (Knobs(threads=2), "float64"),
    "sums of three threads": (Knobs(threads=3), "float64"),
    "float32": (Knobs(), "float32"),
    "float32, LU, reversed sums": (Knobs(solver="lu", backwards=True), "float32"),
    "float32, sums of two threads": (Knobs(threads=2), "float32"),
}
"""Correct implementations that differ in rounding; all must pass."""

BAD_ANSWERS = ("zeros", "NaN", "empty", "wrong shape", "missing")
"""Ways to answer without an answer; none may pass a scored case."""

ONLY_IN: Mapping[str, str] = {"solve-inverse": "ill-conditioned"}
"""Faults that are harmless elsewhere: no case of another tier may catch them."""


_OF_LAYERS = ("forward", "backward", "update_grad", "network")

TOGETHER = (_OF_LAYERS, tuple(op for op in OPERATIONS if op not in _OF_LAYERS))
"""Operations that one process tests, because they need the same compiled kernels: compiling takes longest."""


class Listed(Question, Protocol):
    """What the self-test reads of a case beside what the runner does."""

    @property
    def tier(self) -> str:
        """What the case tries."""
        ...

    @property
    def catches(self) -> tuple[str, ...]:
        """Ids of the faults that it is said to catch."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Kill:
    """What the kit says of one known-bad implementation.

    Parameters
    ----------
    fault : str
        Its fault.
    cases : tuple of str
        Ids of the cases that it fails, in the order of the operations.
    named : mapping
        By operation that it fails: what the diagnosis names there.
    sound : tuple of str
        Operations that were asked and that it passes.
    """

    fault: str
    cases: tuple[str, ...]
    named: Mapping[str, tuple[tuple[str, ...], ...]]
    sound: tuple[str, ...] = ()

    @property
    def candidates(self) -> tuple[tuple[str, ...], ...]:
        """What the diagnosis names in the first operation of the fault that fails."""
        op = next((op for op in find(self.fault).ops if op in self.named), None)
        if op is None:
            return ()
        return prefer(self.named[op], [before for before in OPERATIONS[op].after if before in self.sound])

    @property
    def verdict(self) -> str:
        """``unique``, ``ambiguous`` (named among others), ``misnamed`` or ``survives``."""
        if not self.cases:
            return "survives"
        if (self.fault,) not in self.candidates:
            return "misnamed"
        return "unique" if len(self.candidates) == 1 else "ambiguous"


@dataclass(frozen=True, kw_only=True, slots=True)
class SelfTest:
    """What the kit's own test found.

    Parameters
    ----------
    kills : tuple of Kill
        One for every fault.
    variants : mapping
        By name: ids of cases that a correct variant fails. All must be empty.
    golden : tuple of str
        Ids of cases that their own right answers fail.
    empty : mapping
        By way of answering: ids of scored cases that it passes. All must be empty.
    idle : tuple of str
        Ids of cases that catch no fault and are not marked as smoke tests.
    promises : tuple of (str, str)
        A case and a fault that it is said to catch, and does not.
    strays : tuple of (str, str)
        A case and a fault that it catches outside the tier where it matters.
    listed : int
        How many cases there are.
    seconds : float
        Time of all.
    """

    kills: tuple[Kill, ...]
    variants: Mapping[str, tuple[str, ...]]
    golden: tuple[str, ...]
    empty: Mapping[str, tuple[str, ...]]
    idle: tuple[str, ...]
    promises: tuple[tuple[str, str], ...]
    strays: tuple[tuple[str, str], ...]
    listed: int
    seconds: float

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with the kit, one line each; nothing if it is sound."""
        lines = [f"fault {kill.fault} {kill.verdict}" for kill in self.kills if kill.verdict in _BAD]
        lines += [f"{id_} does not catch {fault}" for id_, fault in self.promises]
        lines += [f"{id_} catches {fault}, which is harmless there" for id_, fault in self.strays]
        lines += [f"{id_} catches no fault" for id_ in self.idle]
        for name, ids in self.variants.items():
            lines += [f"correct variant {name} fails {id_}" for id_ in ids]
        lines += [f"the right answers fail {id_}" for id_ in self.golden]
        for name, ids in self.empty.items():
            lines += [f"{name} passes {id_}" for id_ in ids]
        return tuple(lines)


_BAD = ("survives", "misnamed")


def selftest(
    cases: Sequence[Listed],
    *,
    judge: Judge | None = None,
    faults: Sequence[Fault] = CATALOGUE,
    processes: int = 1,
) -> SelfTest:
    """Turn the kit on itself.

    Parameters
    ----------
    cases : sequence of Case
        The suite.
    judge : callable, optional
        `rules.judge` by default.
    faults : sequence of Fault, optional
        The whole catalogue by default.
    processes : int, optional
        How many processes share the operations, where the system can fork; more than two idle.

    Returns
    -------
    SelfTest
        Sound if it has no `problems`.
    """
    began = time.perf_counter()
    work = _Work(tuple(cases), judge, tuple(faults))
    asked = {case.op for case in cases}
    found = work.all([[op for op in ops if op in asked] for ops in TOGETHER], processes)
    caught: dict[str, list[str]] = {fault.id: [] for fault in faults}
    named: dict[str, dict[str, tuple[tuple[str, ...], ...]]] = {fault.id: {} for fault in faults}
    for op in OPERATIONS:
        for id_, (ids, candidates) in found[op].kills.items() if op in found else ():
            caught[id_] += ids
            if ids:
                named[id_][op] = candidates
    kills = tuple(
        Kill(
            fault=id_,
            cases=tuple(ids),
            named=named[id_],
            sound=tuple(op for op in OPERATIONS if op in asked and op not in named[id_]),
        )
        for id_, ids in caught.items()
    )
    pairs = {(id_, kill.fault) for kill in kills for id_ in kill.cases}
    used = {id_ for id_, _ in pairs}
    tested = {fault.id for fault in faults}
    parts = [found[op] for op in OPERATIONS if op in found]
    return SelfTest(
        kills=kills,
        variants={name: tuple(id_ for part in parts for id_ in part.variants[name]) for name in VARIANTS},
        golden=tuple(id_ for part in parts for id_ in part.golden),
        empty={how: tuple(id_ for part in parts for id_ in part.empty[how]) for how in BAD_ANSWERS},
        idle=tuple(case.id for case in cases if case.id not in used and "smoke" not in case.flags),
        promises=tuple(
            (case.id, fault)
            for case in cases
            for fault in case.catches
            if (case.id, fault) not in pairs and (fault in tested or fault not in BY_ID)
        ),
        strays=tuple(
            (case.id, fault)
            for case in cases
            for fault, tier in ONLY_IN.items()
            if (case.id, fault) in pairs and case.tier != tier
        ),
        listed=len(cases),
        seconds=time.perf_counter() - began,
    )


@dataclass(frozen=True, kw_only=True)
class _Part:
    # What was found in one operation.
    kills: Mapping[str, tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]]
    variants: Mapping[str, tuple[str, ...]]
    golden: tuple[str, ...]
    empty: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class _Work:
    cases: tuple[Listed, ...]
    judge: Judge | None
    faults: tuple[Fault, ...]

    def all(self, groups: Sequence[Sequence[str]], processes: int) -> dict[str, _Part]:
        if processes > 1 and "fork" in multiprocessing.get_all_start_methods():
            context = multiprocessing.get_context("fork")  # the cases are there at once
            with ProcessPoolExecutor(processes, context, initializer=_take, initargs=(self,)) as pool:
                parts = list(pool.map(_several, groups))
        else:
            parts = [self.several(ops) for ops in groups]
        return {op: part for several in parts for op, part in several.items()}

    def several(self, ops: Sequence[str]) -> dict[str, _Part]:
        return {op: self.one(op) for op in ops}

    def one(self, op: str) -> _Part:
        cases = [case for case in self.cases if case.op == op]
        scored = [case for case in cases if case.scored and case.error is None]
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            replays = replays_for("float64", self.judge)
            kills = {}
            for fault in self.faults:
                if op in fault.ops:
                    ran = run(
                        Recalled(replays, fault.id), cases, judge=self.judge, replays=replays, verdicts=False
                    )
                    known = ran.explanations.get(op)
                    kills[fault.id] = (_failed(ran), known.candidates if known else ())
            return _Part(
                kills=kills,
                variants={
                    name: _failed(
                        run(Reference(knobs, dtype), cases, judge=self.judge, diagnose=False, verdicts=False)
                    )
                    for name, (knobs, dtype) in VARIANTS.items()
                },
                golden=_failed(
                    run(Replayed("golden"), cases, judge=self.judge, diagnose=False, verdicts=False)
                ),
                empty={how: self.passed(how, scored) for how in BAD_ANSWERS},
            )

    def passed(self, how: str, cases: Sequence[Question]) -> tuple[str, ...]:
        found = run(Replayed(how), cases, judge=self.judge, diagnose=False, verdicts=False)
        return tuple(outcome.case.id for outcome in found.outcomes if outcome.state == "pass")


_IN_HAND: list[_Work] = []  # of a forked process


def _take(work: _Work) -> None:
    _IN_HAND.append(work)


def _several(ops: Sequence[str]) -> dict[str, _Part]:
    return _IN_HAND[-1].several(ops)


def _failed(found: KitRun) -> tuple[str, ...]:
    return tuple(one.case.id for one in found.outcomes if one.state not in SOUND)


class Recalled:
    """The reference with one fault, answering from a memory of replays.

    Parameters
    ----------
    replays : Replays
        The memory.
    fault : str
        Its fault.
    """

    def __init__(self, replays: Replays, fault: str) -> None:
        self._replays, self._fault = replays, fault

    def info(self) -> Info:
        """Every operation."""
        return Reference(dtype=self._replays.dtype).info()

    def echo(self, X: Array) -> Array:
        """The array back."""
        return X

    def answer(self, case: Question) -> Answers:
        """What the fault makes of the case.

        Raises
        ------
        Exception
            As the reference with the fault does.
        """
        reply = self._replays.reply(case, (self._fault,))
        if reply.error is not None:
            raise reply.error
        found: Answers = reply.value
        return found


class Replayed:
    """An adapter that knows the right answers, and returns them or a spoiled copy.

    Parameters
    ----------
    how : str
        ``golden`` or one of `BAD_ANSWERS`.
    """

    def __init__(self, how: str) -> None:
        self._how = how

    def info(self) -> Info:
        """Every operation."""
        return Reference().info()

    def echo(self, X: Array) -> Array:
        """The array back."""
        return X

    def answer(self, case: Question) -> Answers:
        """The answers of the case, spoiled.

        Raises
        ------
        ValueError
            If the case must be refused.
        """
        if case.error is not None:
            raise ValueError(case.error)
        return {
            name: spoil(array, self._how) for name, array in case.outputs.items() if self._how != "missing"
        }


def spoil(array: Any, how: str) -> Any:
    """An answer made worthless in one of the ways of `BAD_ANSWERS`; ``golden`` leaves it.

    Examples
    --------
    >>> spoil(np.ones(2), "NaN"), spoil(np.ones(2, dtype=np.int8), "empty").shape
    (array([nan, nan]), (0,))
    """
    a = np.asarray(array)
    if how == "zeros":
        return np.zeros_like(a)
    if how == "NaN":
        return np.full(a.shape, np.nan)
    if how == "empty":
        return np.empty(0, dtype=a.dtype)
    if how == "wrong shape":
        return np.concatenate([a.ravel(), a.ravel()[:1]])
    return a


def kill_matrix(found: SelfTest) -> str:
    """The page of the catalogue: every fault, what it does, which cases catch it, how it is named.

    Parameters
    ----------
    found : SelfTest
        Of the whole suite.

    Returns
    -------
    str
        Markdown. The same suite gives the same page.
    """
    verdicts = [one.verdict for one in found.kills]
    lines = [
        "# Faults that the conformance kit knows",
        "",
        f"{len(found.kills)} known-bad implementations, each the reference with one fault, against "
        f"{found.listed} cases. A fault is *unique* if the diagnosis names it alone "
        f"({verdicts.count('unique')}), "
        f"*ambiguous* if the cases cannot tell it from those named with it ({verdicts.count('ambiguous')}). "
        f"`refldnq kit selftest --matrix docs/kit-faults.md` writes this page, "
        "`refldnq kit explain FAULT` shows one row, `refldnq kit show CASE` a case.",
        "",
        f"Correct variants that pass every case: {', '.join(name for name in VARIANTS)}.",
    ]
    for op in OPERATIONS:
        rows = [one for one in found.kills if find(one.fault).stage == op]
        if rows:
            lines += ["", f"## {op}", "", *_table(rows)]
    return "\n".join(lines) + "\n"


def _table(kills: Sequence[Kill]) -> list[str]:
    lines = [
        "| fault | what is done instead | effect | right | caught by | cases | diagnosis |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in kills:
        fault = find(one.fault)
        others = ", ".join(
            " + ".join(f"`{id_}`" for id_ in ids) for ids in one.candidates if ids != (one.fault,)
        )
        cells = [
            f"`{fault.id}`",
            fault.title,
            fault.effect,
            fault.explanation,
            f"`{one.cases[0]}`" if one.cases else "none",
            str(len(one.cases)),
            one.verdict + (f" with {others}" if others else ""),
        ]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines
