"""The page of all cases, made from the cases.

``python -m refldnq.verify.kit.pages`` writes it as Markdown.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from refldnq.verify.kit.cases import Case
from refldnq.verify.kit.contract import OPERATIONS


def cases_markdown(cases: Sequence[Case]) -> str:
    r"""Tables of cases, one for every operation: id, tier, comment, and the faults that each must catch.

    Parameters
    ----------
    cases : sequence of Case
        What is listed.

    Returns
    -------
    str
        Markdown; operations without cases are left out.

    Examples
    --------
    >>> import numpy as np
    >>> zero = np.zeros(1)
    >>> case = Case(op="dual", id="dual/zero", comment="|λ| stays", tier="certified", catches=("dual-twice",),
    ...     inputs={"lam": zero, "Theta": zero, "G": zero}, outputs={"lam_new": zero},
    ...     compare={"lam_new": "exact"}, certified="exact-Q")
    >>> print(cases_markdown([case]))  # doctest: +NORMALIZE_WHITESPACE
    ## dual, 1 case
    <BLANKLINE>
    | case | tier | what it shows | catches |
    |:--|:--|:--|:--|
    | `zero` | certified | \|λ\| stays | `dual-twice` |
    <BLANKLINE>
    """
    lines: list[str] = []
    for op in OPERATIONS:
        mine = [case for case in cases if case.op == op]
        if not mine:
            continue
        lines += [f"## {op}, {len(mine)} case{'s' * (len(mine) > 1)}", ""]
        lines += ["| case | tier | what it shows | catches |", "|:--|:--|:--|:--|"]
        for case in mine:
            catches = ", ".join(f"`{fault}`" for fault in case.catches)
            cells = (f"`{case.id.removeprefix(f'{op}/')}`", case.tier, _escaped(case.comment), catches)
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _escaped(text: str) -> str:
    return re.sub(r"([\\|*_$<\[])", r"\\\1", text)


if __name__ == "__main__":
    from refldnq.verify.kit.cases import all_cases

    sys.stdout.write(cases_markdown(all_cases()))
