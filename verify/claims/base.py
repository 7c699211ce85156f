"""What a claim of the paper is here: a statement as printed, a verdict, and programs that establish it.

A claim's file states it twice, as printed and as corrected, each with its LaTeX and a function that decides
it on an instance. Its checks take the claim as their argument and use those functions, so a planted error in
a statement (a `Mutation`) must make a check fail: that is how the checks are checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from refldnq.verify.arithmetic import Arithmetic

Verdict = Literal["true", "true with a fix", "false", "empirical"]
"""``true``: as printed. ``true with a fix``: after the stated repair. ``false``: refuted by an instance, and
replaced. ``empirical``: about data or machines; measured or counted, never proved."""

Kind = Literal["exact", "certified", "search", "float", "measured", "count"]
"""How a check reaches its result: exact rational arithmetic; Arb balls; the falsifier; float64 with a proven
slack; a measurement; a count of operations."""

Instance = Mapping[str, Any]
"""Named exact values: integers, fractions, and object arrays of them; all that a statement speaks of."""

Sides = Callable[[Instance, Arithmetic], tuple[Any, Any]]
"""The two sides of an inequality left <= right on an instance, computed in the given arithmetic."""


@dataclass(frozen=True, kw_only=True)
class Statement:
    """A statement that an instance satisfies or violates.

    Parameters
    ----------
    latex : str
        The statement, without dollar signs.
    words : str
        The same in one plain line.
    holds : callable, optional
        Decides an instance in exact rational arithmetic.
    sides : callable, optional
        For an inequality, its two sides; takes the place of `holds` and lets the falsifier search.
    """

    latex: str
    words: str
    holds: Callable[[Instance], bool] | None = None
    sides: Sides | None = None


@dataclass(frozen=True, kw_only=True)
class Counterexample:
    """The smallest known instance on which a printed statement fails.

    Parameters
    ----------
    instance : mapping
        Exact values, small enough to check by hand.
    shown : str
        What is computed from them, in one line with exact rationals: "9 <= 4 + 1 is false".
    """

    instance: Instance
    shown: str


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Curves or bars for the page of results.

    Parameters
    ----------
    title, x, y : str
        The figure's title and its axes' labels, with units.
    curves : mapping of str to (tuple of float, tuple of float)
        Abscissae and ordinates by the name of the curve.
    log : str, optional
        Which axes are logarithmic: '', 'x', 'y' or 'xy'.
    """

    title: str
    x: str
    y: str
    curves: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]]
    log: Literal["", "x", "y", "xy"] = ""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check found.

    Parameters
    ----------
    ok : bool
        Whether the check established what it should.
    text : str
        One line with the evidence: counts, the worst ratio, exact values.
    certified : bool
        False if the check fell back to something weaker because python-flint is missing.
    numbers : mapping, optional
        JSON values for the report.
    figures : tuple of Figure, optional
        Figures for the page.
    """

    ok: bool
    text: str
    certified: bool = True
    numbers: Mapping[str, Any] = field(default_factory=dict)
    figures: tuple[Figure, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Check:
    """A program that establishes a part of the verdict.

    Parameters
    ----------
    name : str
        What is checked, a few words.
    kind : str
        How; see `Kind`.
    run : callable
        Takes the claim, so that a planted error in its statements reaches the check.
    """

    name: str
    kind: Kind
    run: Callable[[Claim], Finding]


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """A planted error of a claim that at least one of its checks must notice.

    Parameters
    ----------
    name : str
        The error in a few words.
    changes : mapping
        Fields of the claim and what takes their place (`Statement`, verdict, counterexample).
    """

    name: str
    changes: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim of the paper and all that is known about it.

    Parameters
    ----------
    id : str
        Such as 'eq07', 'theorem1', 'algorithm1-line2', 'prose-200-images'; the file is named alike.
    title : str
        A few words.
    source : str
        Where the paper says it: '(7)', 'Theorem 1', 'section 4.2'.
    printed : Statement
        As printed.
    verdict : str
        See `Verdict`.
    reason : str
        The verdict's reason in one line.
    corrected : Statement, optional
        What is true instead; of a true or empirical claim, what holds moreover and is not printed. None where
        there is nothing to say.
    proof : str
        Why the corrected (or printed, if true) statement holds, in Markdown with LaTeX between dollars.
    counterexample : Counterexample, optional
        Required for false statements.
    checks : tuple of Check
        At least one.
    mutations : tuple of Mutation
        At least one; tested.
    gating : bool
        False for claims about times, whose result does not count.

    Raises
    ------
    ValueError
        If a part that the verdict needs is missing.
    """

    id: str
    title: str
    source: str
    printed: Statement
    verdict: Verdict
    reason: str
    checks: tuple[Check, ...]
    mutations: tuple[Mutation, ...]
    proof: str = ""
    corrected: Statement | None = None
    counterexample: Counterexample | None = None
    gating: bool = True

    def __post_init__(self) -> None:
        for name in ("checks", "mutations"):
            if not getattr(self, name):
                raise ValueError(f"`{name}` of {self.id!r} must hold at least one entry, got none.")
        if self.verdict == "false" and self.counterexample is None:
            raise ValueError(f"`counterexample` of {self.id!r} must be given for a false claim, got None.")
        if self.verdict in ("true", "true with a fix") and not self.proof:
            raise ValueError(f"`proof` of {self.id!r} must be given for a true claim, got nothing.")

    def mutated(self, mutation: Mutation) -> Claim:
        """The claim with a planted error."""
        return replace(self, **dict(mutation.changes))
