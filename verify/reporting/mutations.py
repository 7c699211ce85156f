"""Which check notices which planted error: the checks of the checks, as a list.

``python -m refldnq.verify.reporting.mutations`` writes it as Markdown.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from refldnq.verify.claims import claims as registered
from refldnq.verify.claims.base import Claim, Mutation


@dataclass(frozen=True, kw_only=True)
class Kill:
    """What a planted error did.

    Parameters
    ----------
    claim, mutation : str
        The claim's name, and the error in words.
    noticed : str or None
        Name of the first check that failed; None if the error survived.
    said : str
        What that check found.
    """

    claim: str
    mutation: str
    noticed: str | None
    said: str = ""


def kill(claim: Claim, mutation: Mutation) -> Kill:
    """Plant an error in a claim and run its checks until one fails.

    Parameters
    ----------
    claim : Claim
        The claim as it is.
    mutation : Mutation
        The error.

    Returns
    -------
    Kill
        A check that raises an exception is not caught: a check must say what is wrong.
    """
    mutant = claim.mutated(mutation)
    for check in mutant.checks:
        finding = check.run(mutant)
        if not finding.ok:
            return Kill(claim=claim.id, mutation=mutation.name, noticed=check.name, said=finding.text)
    return Kill(claim=claim.id, mutation=mutation.name, noticed=None)


def kills(claims: Sequence[Claim]) -> tuple[Kill, ...]:
    """What every planted error of the claims does, in order.

    Parameters
    ----------
    claims : sequence of Claim
        The claims.

    Returns
    -------
    tuple of Kill

    Examples
    --------
    >>> kills([])
    ()
    """
    return tuple(kill(claim, mutation) for claim in claims for mutation in claim.mutations)


def kills_markdown(found: Sequence[Kill]) -> str:
    """The list of planted errors as a table in Markdown.

    Parameters
    ----------
    found : sequence of Kill
        One a row.

    Returns
    -------
    str
        With a final line break.

    Examples
    --------
    >>> print(kills_markdown([Kill(claim="eq07", mutation="factor 1", noticed="search")]))
    | Claim | Planted error | Noticed by |
    | --- | --- | --- |
    | `eq07` | factor 1 | search |
    <BLANKLINE>
    """
    lines = ["| Claim | Planted error | Noticed by |", "| --- | --- | --- |"]
    for one in found:
        cells = (f"`{one.claim}`", _cell(one.mutation), _cell(one.noticed or "**nothing**"))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":  # the page of the documentation
    sys.stdout.write(kills_markdown(kills(registered())))
