"""Which faults reproduce a candidate's answers: the catalogue is replayed on the inputs that it got wrong.

The search is for a smallest set of faults that turns the reference into the candidate on *all* its cases of
an operation: it must give the candidate's answers where they are wrong, and must not spoil a case where they
are right. Several sets that do so are indistinguishable and are all listed.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from refldnq.verify.kit.contract import Answers, Question, Reply
from refldnq.verify.kit.faults import find, turn, visible_in
from refldnq.verify.kit.reference import Reference

MOST_REPLAYS = 4000
"""Replays of one operation after which no more sets of several faults are tried (chosen here: some ten
seconds of ADMM)."""

MOST_SECONDS = 20.0
"""Seconds of the processor after which none are tried either: whole networks take longer to replay."""

LARGEST_SET = 3
"""Most faults of one explanation beside those of earlier steps for which all sets are tried."""

MOST_STEPS = 8
"""Most faults that are added one by one, each the one that explains most of what is left."""

SIEVE = 8
"""Cases, the smallest ones, on which faults are tried one by one before sets of them are."""

AGREEMENT: Mapping[str, float] = {"float64": 1e-10, "float32": 1e-4}
"""Largest difference, as a share of the largest entry, at which a replay counts as a match (chosen here: far
above what two correct orders of summation differ by, far below what a fault changes)."""

NOISE = (1 / 30, 4.0)
"""How large the candidate's error may be, as a multiple of the replay's, where a fault costs digits only."""

Answered = tuple[Question, Answers | None, bool]
"""A case, the candidate's answers (None: it refused or crashed) and whether they were judged wrong."""

Passes = Callable[[Question, Answers], bool]
"""Whether answers to a case are right."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """What reproduces the failures of one operation.

    Parameters
    ----------
    op : str
        The operation.
    base : tuple of str
        Faults that were taken over from earlier steps.
    candidates : tuple of tuple of str
        Smallest sets of further faults that reproduce the answers; more than one are indistinguishable.
    covered, failing : int
        How many failing cases the first candidate reproduces, and how many fail.
    inherited : frozenset of str
        Ids of failing cases that the faults of earlier steps reproduce by themselves.
    excluded : tuple of str
        Faults of this step that the cases rule out.
    replays : int
        How many replays were made.
    distance : float
        Largest difference of the first candidate's replays from the answers, as a share of the largest entry.
    """

    op: str
    base: tuple[str, ...] = ()
    candidates: tuple[tuple[str, ...], ...] = ()
    covered: int = 0
    failing: int = 0
    inherited: frozenset[str] = field(default_factory=frozenset)
    excluded: tuple[str, ...] = ()
    replays: int = 0
    distance: float = 0.0

    @property
    def faults(self) -> tuple[str, ...]:
        """The faults of the first candidate, those of earlier steps included."""
        return (*self.base, *(self.candidates[0] if self.candidates else ()))

    @property
    def text(self) -> str:
        """One line."""
        if self.failing == len(self.inherited):
            return "nothing new: the faults of earlier steps explain it"
        if not self.candidates:
            return "nothing in the catalogue matches"
        sets = " or ".join(" + ".join(one) for one in self.candidates)
        part = "" if self.covered == self.failing else f" ({self.covered} of {self.failing} failing cases)"
        return sets + part


class Replays:
    """Answers of the reference with faults, remembered by case and set of faults.

    Parameters
    ----------
    dtype : {'float64', 'float32'}, optional
        In which the reference computes.
    passes : callable, optional
        The judge: faults that fail where the candidate passes, or pass where it fails, do not explain it,
        whatever the roundings. Without it the answers must agree.

    Attributes
    ----------
    count : int
        Replays made so far.
    """

    def __init__(self, dtype: str = "float64", passes: Passes | None = None) -> None:
        self.dtype, self.count = dtype, 0
        self._passes = passes
        self._info = Reference(dtype=dtype).info()
        self._known: dict[tuple[str, frozenset[str]], Reply] = {}
        self._right: dict[tuple[str, frozenset[str]], bool] = {}

    def answers(self, case: Question, ids: tuple[str, ...]) -> Answers | None:
        """What the reference with these faults answers; None if it has none or the faults are at odds."""
        reply = self.reply(case, ids)
        answers: Answers | None = reply.value
        return answers

    def reply(self, case: Question, ids: tuple[str, ...]) -> Reply:
        """What the reference with these faults replies. A fault can make an input impossible."""
        key = (_asked(case), frozenset(ids))
        if key not in self._known:
            self.count += 1
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                self._known[key] = self._info.reply(lambda: self._computed(case, ids))
        return self._known[key]

    def _computed(self, case: Question, ids: tuple[str, ...]) -> Answers:
        knobs = turn(ids)
        if knobs is None:
            raise ValueError("the faults exclude each other.")
        found: Answers = getattr(Reference(knobs, self.dtype), case.op)(**case.inputs)
        return found

    def reproduces(self, one: Answered, ids: tuple[str, ...]) -> bool:
        """Whether these faults make the reference give the candidate's answers, or fail as it does."""
        case, answers, wrong = one
        replayed = self.answers(case, ids)
        if replayed is None or answers is None:
            if case.error is not None and self.reply(case, ids).kind == "refusal":
                return False  # which is what the candidate should have done
            return replayed is None and answers is None
        if case.error is not None:
            return True  # what is answered to a senseless question is no evidence
        if not wrong and self._passes is not None:
            return self._judged_right(case, ids, replayed)
        names = [name for name in case.outputs or replayed if name in answers and name in replayed]
        if _spelled(case.inputs, answers) and _spelled(case.inputs, replayed):
            names = [name for name in names if name not in ("Q", "alpha")]
        noise = {name: 0.0 for name in names}
        sharp = tuple(id_ for id_ in ids if not find(id_).noise)
        exact = self.answers(case, sharp) if len(sharp) < len(ids) else None
        if exact is not None:
            noise = {name: _distance(replayed[name], exact[name]) for name in names if name in exact}
        unit = float(np.finfo(self.dtype).eps)
        allowed = max(AGREEMENT[self.dtype], 16 * unit * max(case.kappa, 1.0))
        for name in names:
            if noise.get(name, 0.0) > 0 and exact is not None:
                error = _distance(answers[name], exact[name])
                if not NOISE[0] * noise[name] <= error <= NOISE[1] * noise[name]:
                    return False
            elif not agree(answers[name], replayed[name], allowed):
                return False
        if self._passes is not None and case.error is None and self._judged_right(case, ids, replayed):
            return False  # where digits are few, a right answer is near a wrong one
        return bool(names)

    def distance(self, one: Answered, ids: tuple[str, ...]) -> float:
        """How far these faults' answers are from the candidate's, as a share of the largest entry."""
        case, answers, _ = one
        replayed = self.answers(case, ids)
        if replayed is None or answers is None or case.error is not None:
            return 0.0
        shared = [(answers[name], replayed[name]) for name in replayed if name in answers]
        return max((_distance(got, want) / (_largest(want) or 1.0) for got, want in shared), default=0.0)

    def share(self, one: Answered, ids: tuple[str, ...]) -> float:
        """The share of the answers to a case that these faults give; of a trace, its first iterations."""
        case, answers, _ = one
        replayed = self.answers(case, ids)
        if replayed is None or answers is None or case.error is not None:
            return float(self.reproduces(one, ids))
        allowed = max(AGREEMENT[self.dtype], 16 * float(np.finfo(self.dtype).eps) * max(case.kappa, 1.0))
        shares = []
        for name in case.outputs:
            got, want = (np.asarray(known.get(name, ())) for known in (answers, replayed))
            if case.op != "admm" or min(got.ndim, want.ndim) == 0 or name == "result":
                shares.append(float(agree(got, want, allowed)))
                continue
            same = [agree(*rows, allowed) for rows in zip(got, want, strict=False)]
            shares.append((same.index(False) if False in same else len(same)) / max(len(got), len(want), 1))
        return sum(shares) / len(shares)

    def _judged_right(self, case: Question, ids: tuple[str, ...], replayed: Answers) -> bool:
        key = (_asked(case), frozenset(ids))
        if key not in self._right:
            assert self._passes is not None
            self._right[key] = self._passes(case, replayed)
        return self._right[key]


def _asked(case: Question) -> str:
    # One id can be asked under several conventions.
    return f"{case.id} {sorted(getattr(case, 'conventions', {}).items())}"


def explain(
    op: str,
    answered: Sequence[Answered],
    *,
    dtype: str = "float64",
    bases: Sequence[tuple[str, ...]] = ((),),
    replays: Replays | None = None,
) -> Explanation:
    """Find the smallest sets of faults that reproduce a candidate's answers.

    Parameters
    ----------
    op : str
        The operation.
    answered : sequence of (Question, answers or None, bool)
        Cases of this operation, with the candidate's answers and whether they fail.
    dtype : {'float64', 'float32'}, optional
        The candidate's type; not used if `replays` is given.
    bases : sequence of tuple of str, optional
        Faults that earlier steps were found to have; several where those could not be told apart. The one
        that explains most is taken, and none if the search finds nothing on top of it.
    replays : Replays, optional
        Remembered replays.

    Returns
    -------
    Explanation
        Without candidates if nothing matches.

    Notes
    -----
    If no single fault explains everything, faults are added one by one, each the one that explains most of
    what is left, and dropped again where that is no loss. A set of more than three that is found so is the
    explanation. Otherwise all sets of two or three are tried that are made of the faults that by themselves
    change a failing case and spoil none of the smallest passing ones; then, within `MOST_REPLAYS` and
    `MOST_SECONDS`, of any two. If no set explains everything, the single faults that explain most failing
    cases are candidates, and `covered` says how many that are.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> inputs = {"lam": np.array([1.0]), "Theta": np.array([3.0]), "G": np.array([2.0])}
    >>> case: Any = SimpleNamespace(
    ...     id="a", op="dual", inputs=inputs, outputs={"lam_new": np.array([2.0])}, kappa=1.0, error=None
    ... )
    >>> explain("dual", [(case, {"lam_new": np.array([0.0])}, True)]).candidates
    (('dual-step-sign',),)
    """
    store = Replays(dtype) if replays is None else replays
    search = _Search(op, answered, store)
    base = max(bases, key=lambda one: (len(search.inherited(one)), -len(one)), default=())
    return search.explanation([base, ()] if base else [()])


def prefer(candidates: Sequence[tuple[str, ...]], sound: Collection[str]) -> tuple[tuple[str, ...], ...]:
    """The sets without a fault that stands in an operation that was found sound; all of them if none is left.

    Examples
    --------
    >>> prefer([("dual-twice",), ("v-theta",)], ["dual"])
    (('v-theta',),)
    >>> prefer([("dual-twice",)], ["dual"])
    (('dual-twice',),)
    """
    kept = tuple(ids for ids in candidates if not any(find(id_).stage in sound for id_ in ids))
    return kept or tuple(candidates)


class _Search:
    """One candidate's answers to one operation, and what explains them."""

    def __init__(self, op: str, answered: Sequence[Answered], replays: Replays) -> None:
        self.op, self.replays, self.first = op, replays, replays.count
        self.began, self.since = replays.count, time.process_time()
        by_size = sorted(answered, key=lambda one: sum(np.size(value) for value in one[0].inputs.values()))
        self.wrong = [one for one in by_size if one[2] and one[1] is not None]
        self.crashed = [one for one in by_size if one[2] and one[1] is None]
        self.right = [one for one in by_size if not one[2] and one[1] is not None]

    @property
    def affordable(self) -> bool:
        return self.replays.count - self.began < MOST_REPLAYS and self.in_time

    @property
    def in_time(self) -> bool:
        return time.process_time() - self.since < MOST_SECONDS

    def inherited(self, base: tuple[str, ...]) -> frozenset[str]:
        if not base:
            return frozenset()
        failing = [*self.wrong, *self.crashed]
        return frozenset(one[0].id for one in failing if self.replays.reproduces(one, base))

    def explanation(self, bases: Sequence[tuple[str, ...]]) -> Explanation:
        if not self._new(bases[0]):
            return self._told(bases[0], ())
        levels = {base: self._pools(base) for base in bases}
        climbed: dict[tuple[str, ...], tuple[tuple[str, ...], ...]] = {}
        for size in range(1, LARGEST_SET + 2):
            if size == 2:
                for base in bases:
                    found = self._climbed(base)
                    if found and len(found[0]) > LARGEST_SET:
                        return self._told(base, found)
                    climbed.update({base: found} if found else {})
                self.began, self.since = self.replays.count, time.process_time()
            for base, pools in levels.items():
                found = self._matching(base, next(pools))
                if found:
                    return self._told(base, found)
        for base, found in climbed.items():
            return self._told(base, found)
        # No set explains everything: the single faults that explain most.
        partly = [self._told(base, self._partly(base)) for base in bases]
        return max(partly, key=lambda one: one.covered)

    def _told(self, base: tuple[str, ...], sets: tuple[tuple[str, ...], ...]) -> Explanation:
        ids = (*base, *(sets[0] if sets else ()))
        failing = [*self.wrong, *self.crashed]
        matched = [one for one in failing if ids and self.replays.reproduces(one, ids)]
        names = [fault.id for fault in visible_in(self.op) if fault.id not in base]
        return Explanation(
            op=self.op,
            base=base,
            candidates=sets,
            covered=len(matched),
            failing=len(failing),
            inherited=self.inherited(base),
            excluded=tuple(name for name in names if not any(name in one for one in sets)),
            replays=self.replays.count - self.first,
            distance=max((self.replays.distance(one, ids) for one in matched), default=0.0),
        )

    def _new(self, base: tuple[str, ...]) -> list[Answered]:
        inherited = self.inherited(base)
        return [one for one in self.wrong if one[0].id not in inherited]

    def _partly(self, base: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
        left = self._new(base)
        names = [fault.id for fault in visible_in(self.op) if fault.id not in base]
        scores = {name: sum(self.replays.reproduces(one, (*base, name)) for one in left) for name in names}
        most = max(scores.values(), default=0)
        return tuple((name,) for name, score in scores.items() if score == most > 0)

    def _matching(
        self, base: tuple[str, ...], pool: Iterator[tuple[str, ...]]
    ) -> tuple[tuple[str, ...], ...]:
        everything = [*self._new(base), *self.wrong, *self.right]
        return tuple(
            ids
            for ids in pool
            if turn((*base, *ids)) is not None
            and (len(ids) == 1 or self.affordable)
            and all(self.replays.reproduces(one, (*base, *ids)) for one in everything)
        )

    def _climbed(self, base: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
        # Many faults at once: added one by one, then each is dropped or exchanged if that is no loss.
        names = [fault.id for fault in visible_in(self.op) if fault.id not in base]
        chosen: tuple[str, ...] = ()
        best = self._score(base)
        for _ in range(MOST_STEPS):
            others = [name for name in names if name not in chosen and self.in_time]
            scores = {name: self._score((*base, *chosen, name)) for name in others}
            name = max(scores, key=lambda one: scores[one], default="")
            if not scores or not scores[name] > best:
                break
            chosen, best = (*chosen, name), scores[name]
        if not self._explains((*base, *chosen)):
            return ()
        for name in chosen:
            rest = tuple(one for one in chosen if one != name)
            if self._explains((*base, *rest)):
                chosen = rest
        exchanged = [
            tuple(other if one == name else one for one in chosen)
            for name in chosen
            for other in names
            if other not in chosen and self.in_time
        ]
        return (chosen, *(ids for ids in exchanged if self._explains((*base, *ids))))

    def _explains(self, ids: tuple[str, ...]) -> bool:
        everything = [*self.wrong, *self.right]
        return turn(ids) is not None and all(self.replays.reproduces(one, ids) for one in everything)

    def _score(self, ids: tuple[str, ...]) -> float:
        if turn(ids) is None:
            return -1.0
        spoiled = sum(not self.replays.reproduces(one, ids) for one in self.right[:SIEVE])
        return sum(self.replays.share(one, ids) for one in self.wrong) - spoiled

    def _pools(self, base: tuple[str, ...]) -> Iterator[Iterator[tuple[str, ...]]]:
        # A set that changes nothing beyond a smaller one never comes up: the first size that matches ends it.
        left = self._new(base)
        names = [fault.id for fault in visible_in(self.op) if fault.id not in base]
        yield combinations(names, 1)
        likely = [name for name in names if self.affordable and self._likely(name, base, left)]
        for size in range(2, LARGEST_SET + 1):
            yield combinations(likely, size)
        yield combinations(names, 2)

    def _likely(self, name: str, base: tuple[str, ...], left: Sequence[Answered]) -> bool:
        # By itself it spoils no case that the candidate passes, and changes one that it fails.
        if not all(self.replays.reproduces(one, (*base, name)) for one in self.right[:SIEVE]):
            return False
        refused = [one for one in left[SIEVE:] if one[0].error is not None]
        for case, _, _ in [*left[:SIEVE], *refused]:
            plain, changed = (self.replays.answers(case, ids) for ids in (base, (*base, name)))
            if plain is None or changed is None:
                if (plain is None) != (changed is None):
                    return True
            elif not all(agree(changed[key], plain[key], 0.0) for key in plain if key in changed):
                return True
        return False


def agree(got: Any, want: Any, allowed: float) -> bool:
    """Whether two arrays are the same up to `allowed` times the largest entry; NaN agrees with NaN.

    Examples
    --------
    >>> agree(np.array([1.0, np.nan]), np.array([1.0, np.nan]), 1e-10), agree(np.ones(2), np.ones(3), 1.0)
    (True, False)
    """
    a, b = np.asarray(got), np.asarray(want)
    if a.shape != b.shape:
        return False
    if a.dtype.kind in "iubUS" or b.dtype.kind in "iubUS":
        return bool(np.array_equal(a, b))
    return _distance(got, want) <= allowed * _largest(b)


def _spelled(inputs: Mapping[str, Any], answers: Answers) -> bool:
    # Whether codes and scales are G's, of global optima: one G can have several, as 2α·{0, ±1} is α·{0, ±2}.
    if (
        "exact" not in (inputs.get("kind"), inputs.get("projection"))
        or not {"Q", "alpha", "G"} <= answers.keys()
    ):
        return False
    Q, G = np.asarray(answers["Q"]), np.asarray(answers["G"])
    alpha, values = np.asarray(answers["alpha"], dtype=np.float64), np.asarray(inputs["values"])
    if Q.shape != G.shape or Q.dtype.kind not in "iu" or Q.size == 0 or Q.min() < 0 or Q.max() >= len(values):
        return False
    if alpha.ndim > 1 or alpha.shape != G.shape[: alpha.ndim]:
        return False
    spelled = alpha.reshape(alpha.shape + (1,) * (G.ndim - alpha.ndim)) * values[Q]
    return agree(spelled, G, AGREEMENT["float32"])


def _largest(array: Any) -> float:
    a = np.asarray(array, dtype=np.float64)
    return float(np.abs(a[np.isfinite(a)]).max(initial=0.0))


def _distance(got: Any, want: Any) -> float:
    # The largest difference of two arrays; infinite if they do not compare.
    try:
        a, b = np.asarray(got, dtype=np.float64), np.asarray(want, dtype=np.float64)
    except (TypeError, ValueError):
        return np.inf
    finite = np.isfinite(b) if a.shape == b.shape else None
    if finite is None or not np.array_equal(finite, np.isfinite(a)):
        return np.inf
    return float(np.abs(a[finite] - b[finite]).max(initial=0.0))
