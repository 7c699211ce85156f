"""The results as a table for terminals and as lines for files and pipes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from refldnq.verify.arithmetic import has_flint
from refldnq.verify.claims.base import Claim
from refldnq.verify.reporting.results import Result

if TYPE_CHECKING:
    from rich.table import Table

VERDICTS = ("true", "true with a fix", "false", "empirical")
"""The verdicts in the order in which they are counted."""


def state(claim: Claim, result: Result) -> str:
    """Whether the verdict was established, in a word or two.

    Returns
    -------
    str
        'yes', 'NO' or 'not certified'; in parentheses where nothing depends on it.
    """
    word = "yes" if result.established else "NO" if failed(result) else "not certified"
    return word if claim.gating else f"({word})"


def failed(result: Result) -> bool:
    """Whether a check contradicts the verdict, or could not run for another reason than python-flint."""
    return any(not finding.ok and (finding.certified or has_flint()) for finding in result.findings)


def evidence(claim: Claim, result: Result) -> list[str]:
    """The lines that say why: the counterexample, and what every check found."""
    lines = []
    example = claim.counterexample
    if example is not None and not any(example.shown in finding.text for finding in result.findings):
        lines.append(f"counterexample: {example.shown}")
    for check, finding in zip(claim.checks, result.findings, strict=True):
        mark = "" if finding.ok else "FAILED: "
        weak = "" if finding.certified else " [not certified]"
        lines.append(f"{check.kind}: {mark}{check.name}: {finding.text}{weak}")
    return lines


def results_table(claims: Sequence[Claim], results: Sequence[Result]) -> Table:
    """The results as a table of rich.

    Parameters
    ----------
    claims : sequence of Claim
        The claims.
    results : sequence of Result
        One a claim.

    Returns
    -------
    rich.table.Table
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 1, 0))
    for heading in ("claim", "verdict", "established", "evidence"):
        table.add_column(heading, no_wrap=heading in ("claim", "established"))
    table.add_column("time", justify="right", no_wrap=True)
    for claim, result in zip(claims, results, strict=True):
        good = "green" if result.established else "yellow" if not claim.gating else "bold red"
        table.add_row(
            Text(claim.id),
            Text(claim.verdict),
            Text(state(claim, result), style=good),
            Text("\n".join([claim.title, *evidence(claim, result)])),
            Text(f"{sum(result.seconds):.1f} s"),
        )
    return table


def results_text(claims: Sequence[Claim], results: Sequence[Result]) -> str:
    """The results as lines: one a claim, indented ones with the evidence.

    Parameters
    ----------
    claims, results
        As in `results_table`.

    Returns
    -------
    str
        Without a final line break.

    Examples
    --------
    >>> results_text([], [])
    'claim  verdict  established  time  title'
    """
    rows = [("claim", "verdict", "established", "time", "title")]
    for claim, result in zip(claims, results, strict=True):
        time = f"{sum(result.seconds):.1f} s"
        rows.append((claim.id, claim.verdict, state(claim, result), time, claim.title))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column == 3 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(["  ".join(cells).rstrip()])
    for entry, claim, result in zip(lines[1:], claims, results, strict=True):
        entry += [f"    {line}" for line in evidence(claim, result)]
    return "\n".join(line for entry in lines for line in entry)


def counted(claims: Sequence[Claim]) -> str:
    """How many claims have which verdict, in words.

    Examples
    --------
    >>> counted([])
    '0 claims'
    """
    verdicts = [claim.verdict for claim in claims]
    parts = [f"{verdicts.count(verdict)} {verdict}" for verdict in VERDICTS if verdict in verdicts]
    number = f"{len(claims)} claim{'' if len(claims) == 1 else 's'}"
    return number + (": " + ", ".join(parts) if parts else "")


def summary(claims: Sequence[Claim], results: Sequence[Result], seconds: float) -> list[str]:
    """The last lines of a run: what was counted, what failed, what could not be certified.

    Parameters
    ----------
    claims, results
        As in `results_table`.
    seconds : float
        Time of the whole run.

    Returns
    -------
    list of str

    Examples
    --------
    >>> summary([], [], 1.0)
    ['0 claims; every verdict re-established in 1.0 s.']
    """
    pairs = list(zip(claims, results, strict=True))
    wrong = [claim.id for claim, result in pairs if claim.gating and failed(result)]
    weak = [
        claim.id for claim, result in pairs if claim.gating and not result.established and not failed(result)
    ]
    idle = [claim.id for claim, result in pairs if not claim.gating and not result.established]
    ending = "" if wrong or weak else "; every verdict re-established"
    lines = [f"{counted(claims)}{ending} in {seconds:.1f} s."]
    if wrong:
        lines.append(f"Not re-established: {', '.join(wrong)}.")
    if weak:
        why = "" if has_flint() else " without python-flint (pip install 'refldnq[verify]')"
        lines.append(f"Not certified{why}: {', '.join(weak)}.")
    if idle:
        lines.append(f"Not re-established, and nothing depends on it: {', '.join(idle)}.")
    return lines


def all_established(claims: Sequence[Claim], results: Sequence[Result]) -> bool:
    """Whether every claim that counts was established.

    Examples
    --------
    >>> all_established([], [])
    True
    """
    return all(r.established for c, r in zip(claims, results, strict=True) if c.gating)
