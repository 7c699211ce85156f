"""Drive an adapter over the cases: every case ends in exactly one of the counted states."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np

from refldnq._checks import check_choice
from refldnq.verify.kit.contract import OPERATIONS, Adapter, Answers, Info, Question, to_paper
from refldnq.verify.kit.convert import under
from refldnq.verify.kit.diagnose import Explanation, Replays, explain, prefer
from refldnq.verify.kit.errata import standing

STATES = (
    "pass",
    "FAIL",
    "blocked",
    "xfail",
    "unexpected pass",
    "unanswered",
    "inapplicable",
    "not implemented",
)
"""What can become of a case. ``blocked``: it fails exactly as the faults named for an earlier step make it
fail, so it says nothing new. ``unanswered``: a declared operation gave no answer. ``inapplicable``: the right
answer depends on a convention that was declared otherwise, or needs more digits than the type has.
``unexpected pass``: it was expected to fail."""

SOUND = frozenset({"pass", "inapplicable", "not implemented"})
"""States that say nothing against an operation."""

BEYOND = 0.2
"""Share of 1/eps (a tenth of 1/u) up to which a condition number is asked of a type."""

MOST_BASES = 8
"""Combinations of what earlier steps may have done that are tried where those could not be told apart."""

Judge = Callable[[Any, Answers, str], Sequence[Any]]
"""`rules.judge`: one judgement for every answer of a case."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one case.

    Parameters
    ----------
    case : Question
        What was asked.
    state : str
        One of `STATES`.
    messages : tuple of str
        Why, one line each.
    answers : mapping or None
        The candidate's answers in the paper's conventions; None if it gave none.
    licensed : int
        How many answers are right on another branch than expected, where rounding decides.
    verdicts : mapping
        Of a trajectory, what `trajectory.verdicts` says. The certificate alone decides on the state.
    """

    case: Question
    state: str
    messages: tuple[str, ...] = ()
    answers: Answers | None = field(default=None, repr=False)
    licensed: int = 0
    verdicts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class KitRun:
    """All outcomes of one adapter.

    Parameters
    ----------
    info : Info
        What the adapter says of itself.
    outcomes : tuple of Outcome
        One for every case that was listed, in the order of the operations.
    explanations : mapping
        By operation: what reproduces the failures.
    handshake : str or None
        What is wrong with `echo`; then nothing else was run.
    seconds : float
        Time of all.
    unknown : tuple of str, optional
        Ids of recorded answers to questions that the kit does not ask: misspelt ones.
    echoed : bool, optional
        Whether there was a handshake; there is none with recorded answers, whose files keep shapes and types.
    """

    info: Info
    outcomes: tuple[Outcome, ...]
    explanations: Mapping[str, Explanation]
    handshake: str | None
    seconds: float
    unknown: tuple[str, ...] = ()
    echoed: bool = True

    def count(self, *states: str) -> int:
        """Number of cases in any of these states."""
        return sum(outcome.state in states for outcome in self.outcomes)

    @property
    def licensed(self) -> int:
        """Number of answers on another, legitimate branch."""
        return sum(outcome.licensed for outcome in self.outcomes)

    @property
    def ran(self) -> int:
        """Number of cases that were answered or should have been."""
        return len(self.outcomes) - self.count("inapplicable", "not implemented")

    @property
    def exit_code(self) -> int:
        """0: passed; 1: failed; 2: a declared operation went unanswered, or an answer has no question.

        Nothing run at all is no pass: it counts as unanswered.
        """
        if self.handshake or self.count("FAIL", "blocked", "unexpected pass"):
            return 1
        return 2 if self.count("unanswered") or not self.ran or self.unknown else 0


def run(
    adapter: Adapter,
    cases: Iterable[Question],
    *,
    xfail: Mapping[str, str] | None = None,
    judge: Judge | None = None,
    diagnose: bool = True,
    replays: Replays | None = None,
    verdicts: bool = True,
) -> KitRun:
    """Ask an adapter every case, judge the answers and explain the failures.

    Parameters
    ----------
    adapter : Adapter
        The implementation.
    cases : iterable of Question
        What it is asked; withdrawn ones are left out.
    xfail : mapping, optional
        Ids of cases that are expected to fail, with the reason. A case that passes all the same is reported.
    judge : callable, optional
        `rules.judge` by default.
    diagnose : bool, optional
        Whether failures are explained.
    replays : Replays, optional
        Remembered replays of an earlier run in the same type.
    verdicts : bool, optional
        Whether the other two verdicts on trajectories are found as well.

    Returns
    -------
    KitRun
        Every case in one state.

    Raises
    ------
    ValueError
        If an expected failure names no case, or two cases share an id.
    TypeError
        If the adapter says of itself what is no `Info`.
    """
    began, listed = time.perf_counter(), standing(cases)
    expected = dict(xfail or {})
    ids = [case.id for case in listed]
    if len(set(ids)) != len(ids):
        raise ValueError("`cases` must have distinct ids.")
    for id_ in expected:
        check_choice("xfail", id_, ids)
    verdict = judge or _rules()
    info = said(adapter)
    recorded = getattr(adapter, "ids", None)
    handshake = check_echo(adapter, info) if recorded is None else None
    order = {op: i for i, op in enumerate(OPERATIONS)}
    listed = tuple(sorted(listed, key=lambda case: order.get(case.op, len(order))))
    if handshake is not None:
        outcomes = [Outcome(case=case, state="unanswered", messages=("no handshake",)) for case in listed]
    else:
        outcomes = [_judged(adapter, info, case, verdict) for case in listed]
        if verdicts:
            pairs = zip(listed, outcomes, strict=True)
            outcomes = [_with_verdicts(adapter, info, case, one) for case, one in pairs]
    explanations = {}
    if diagnose and any(outcome.state == "FAIL" for outcome in outcomes):
        explanations = explain_all(outcomes, replays or replays_for(info.dtype, verdict))
    done = [_block(outcome, explanations) for outcome in outcomes]
    return KitRun(
        info=info,
        outcomes=tuple(_expect(outcome, expected) for outcome in done),
        explanations=explanations,
        handshake=handshake,
        seconds=time.perf_counter() - began,
        unknown=_unknown(recorded or (), ids),
        echoed=recorded is None,
    )


def said(adapter: Adapter) -> Info:
    """What an adapter says of itself.

    Raises
    ------
    TypeError
        If that is no `Info`.

    Examples
    --------
    >>> from refldnq.verify.kit.reference import Reference
    >>> said(Reference()).dtype
    'float64'
    """
    info = adapter.info()
    if not isinstance(info, Info):
        kind = type(info).__name__
        raise TypeError(f"`info` must return an Info of refldnq.verify.kit.contract, got {kind}.")
    return info


def _unknown(recorded: Iterable[str], listed: Iterable[str]) -> tuple[str, ...]:
    from refldnq.verify.kit.cases import all_cases

    rest = set(recorded) - set(listed)
    return tuple(sorted(rest - {case.id for case in all_cases()})) if rest else ()


def _rules() -> Judge:
    from refldnq.verify.kit.rules import judge

    return judge


def replays_for(dtype: str, judge: Judge | None = None) -> Replays:
    """An empty memory of replays whose judge is the run's.

    Examples
    --------
    >>> replays_for("float32", lambda case, answers, dtype: ()).count
    0
    """
    verdict = judge or _rules()
    return Replays(dtype, lambda case, answers: not _bad(verdict(case, answers, dtype)))


def _bad(judged: Sequence[Any]) -> tuple[str, ...]:
    return tuple(str(one) for one in judged if not one.ok) if judged else ("nothing was judged",)


def check_echo(adapter: Adapter, info: Info) -> str | None:
    """What is wrong with the handshake: None, or a line.

    Examples
    --------
    >>> from refldnq.verify.kit.reference import Reference
    >>> check_echo(Reference(), Reference().info()) is None
    True
    """
    sent = np.arange(24, dtype=info.dtype).reshape(2, 3, 4) / 8
    try:
        back = np.asarray(adapter.echo(sent.copy()))
    except (Exception, SystemExit) as error:
        return f"echo raised {type(error).__name__}: {error}"
    if back.shape != sent.shape:
        hint = " (axes reversed)" if back.shape == sent.shape[::-1] else ""
        return f"echo must return shape {sent.shape}, got {back.shape}{hint}"
    if back.dtype != sent.dtype:
        return f"echo must return {sent.dtype}, got {back.dtype}"
    if not np.array_equal(back, sent):
        return "echo must return the array unchanged"
    return None


class UnreadableError(Exception):
    """What an adapter returned is no answer: never a refusal, whatever was the matter with it."""


def returned(adapter: Adapter, case: Question) -> Any:
    """What an adapter returns to a case, as it is.

    An adapter with a method `answer` is asked with the case itself: so are answers that were recorded before.

    Raises
    ------
    Exception
        Whatever the adapter raises.
    """
    recorded: Callable[[Question], Answers | None] | None = getattr(adapter, "answer", None)
    if recorded is not None:
        return recorded(case)
    inputs = {
        name: value.copy() if isinstance(value, np.ndarray) else value for name, value in case.inputs.items()
    }
    return getattr(adapter, case.op)(**inputs)


def readable(case: Question, got: Any) -> Answers | None:
    """What an adapter returned as arrays by name; None stays None.

    Parameters
    ----------
    case : Question
        What was asked.
    got : object
        A mapping, the one answer of an operation that has one, or all of them in their order.

    Raises
    ------
    UnreadableError
        If it is none of these.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> readable(SimpleNamespace(op="stop"), (3, 1))
    {'iterations': array(3), 'best': array(1)}
    >>> readable(SimpleNamespace(op="stop"), (3,))
    Traceback (most recent call last):
        ...
    refldnq.verify.kit.runner.UnreadableError: cannot read what was returned for iterations, best: \
ValueError: zip() argument 2 is shorter than argument 1
    """
    names = OPERATIONS[case.op].answers
    try:
        if got is None:
            return None
        if isinstance(got, Mapping):
            named = dict(got)
        else:
            named = {names[0]: got} if len(names) == 1 else dict(zip(names, got, strict=True))
        return {name: np.asarray(answer) for name, answer in named.items()}
    except (Exception, SystemExit) as error:
        what = f"cannot read what was returned for {', '.join(names)}: {type(error).__name__}: {error}"
        raise UnreadableError(what) from error


def _judged(adapter: Adapter, info: Info, case: Question, judge: Judge) -> Outcome:
    if case.op not in info.capabilities:
        return Outcome(case=case, state="not implemented")
    right = under(case, info.conventions)
    if isinstance(right, str):
        return Outcome(case=case, state="inapplicable", messages=(right,))
    asked, case = case, right
    if case.kappa > BEYOND / np.finfo(info.dtype).eps:
        why = f"condition number {case.kappa:.0e} is beyond {info.dtype}"
        return Outcome(case=case, state="inapplicable", messages=(why,))
    reply = info.reply(lambda: returned(adapter, asked))
    if reply.kind == "unanswered":
        return Outcome(case=case, state="unanswered", messages=(reply.said,))
    if reply.kind == "refusal" and case.error is not None:
        return Outcome(case=case, state="pass", messages=(f"refused by {reply.said}",))
    if reply.kind != "answer":
        return Outcome(case=case, state="FAIL", messages=(f"raised {reply.said}", *_no_refusal(case)))
    try:
        answers = readable(asked, reply.value)
    except UnreadableError as problem:
        return Outcome(case=case, state="FAIL", messages=(str(problem), *_no_refusal(case)))
    if answers is None:
        return Outcome(case=case, state="unanswered", messages=("no answer",))
    if case.error is not None:
        why = f"must be refused ({case.error}), got an answer"
        return Outcome(case=case, state="FAIL", messages=(why,), answers=answers)
    answers = to_paper(case.op, answers, case.inputs, info.conventions)
    found = judge(case, answers, info.dtype)
    bad = _bad(found)
    licensed = sum(bool(getattr(one, "licensed", False)) for one in found)
    return Outcome(
        case=case, state="FAIL" if bad else "pass", messages=bad, answers=answers, licensed=licensed
    )


def _no_refusal(case: Question) -> tuple[str, ...]:
    if case.error is None:
        return ()
    return (f"must be refused ({case.error}) by a ValueError or a type that info() names in refusals",)


def _with_verdicts(adapter: Adapter, info: Info, asked: Question, outcome: Outcome) -> Outcome:
    from refldnq.verify.kit.cases import Case
    from refldnq.verify.kit.trajectory import verdicts

    case = outcome.case
    if case.op != "admm" or not isinstance(case, Case) or outcome.answers is None or case.error is not None:
        return outcome
    steps = {op for op in OPERATIONS["admm"].after if op in info.capabilities}

    def step(one: Case) -> Answers | None:
        if one.op not in steps:
            return None
        if one.op == "proximal":  # as the trajectory was asked for: the declared unit of ρ is the adapter's
            one = replace(one, inputs={**one.inputs, "rho": asked.inputs["rho"]})
        reply = info.reply(lambda: returned(adapter, one))
        if reply.error is None:
            return readable(one, reply.value)
        if reply.kind == "unanswered":
            return None
        raise reply.error

    forced = None if hasattr(adapter, "answer") or not steps else step
    found = verdicts(case, outcome.answers, outcome.state == "pass", forced, info.dtype)
    return replace(outcome, verdicts=found)


def explain_all(outcomes: Sequence[Outcome], replays: Replays) -> dict[str, Explanation]:
    """Explanations by operation; each starts from what earlier steps were found to do."""
    found: dict[str, Explanation] = {}
    states = {op: {one.state for one in outcomes if one.case.op == op} for op in OPERATIONS}
    for op, operation in OPERATIONS.items():
        # No formula makes a candidate crash where it must refuse: the case's own line says it.
        mine = [one for one in outcomes if one.case.op == op and not (one.case.error and one.answers is None)]
        if any(outcome.state == "FAIL" for outcome in mine):
            before = [_named(found[earlier]) for earlier in operation.after if earlier in found]
            bases = [
                tuple(dict.fromkeys(id_ for one in chosen for id_ in one)) for chosen in product(*before)
            ]
            known = explain(
                op,
                [(one.case, one.answers, one.state == "FAIL") for one in mine if one.state != "inapplicable"],
                bases=bases[:MOST_BASES],
                replays=replays,
            )
            sound = [
                earlier
                for earlier in operation.after
                if states[earlier] <= SOUND and "pass" in states[earlier]
            ]
            found[op] = replace(known, candidates=prefer(known.candidates, sound))
    return found


def _named(found: Explanation) -> list[tuple[str, ...]]:
    return [(*found.base, *one) for one in found.candidates or ((),)]


def _block(outcome: Outcome, explanations: Mapping[str, Explanation]) -> Outcome:
    known = explanations.get(outcome.case.op)
    if outcome.state == "FAIL" and known is not None and outcome.case.id in known.inherited:
        cause = "fails as the faults of earlier steps make it: " + ", ".join(known.base)
        return replace(outcome, state="blocked", messages=(*outcome.messages, cause))
    return outcome


def _expect(outcome: Outcome, expected: Mapping[str, str]) -> Outcome:
    reason = expected.get(outcome.case.id)
    if reason is None or outcome.state not in ("pass", "FAIL", "blocked"):
        return outcome
    state = "unexpected pass" if outcome.state == "pass" else "xfail"
    return replace(outcome, state=state, messages=(reason, *outcome.messages))
