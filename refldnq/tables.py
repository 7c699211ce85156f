"""Tables of text, for terminals and for files and pipes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

Rows = Sequence[Sequence[str]]


def rich_table(columns: Sequence[str], rows: Rows) -> Table:
    """Rows as a table of rich, for a terminal."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for index, heading in enumerate(columns):
        table.add_column(heading, justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def text_table(columns: Sequence[str], rows: Rows) -> str:
    """Rows as aligned lines, for files and pipes.

    Examples
    --------
    >>> print(text_table(("layer", "e"), [("fc", "0.25")]))
    layer     e
    fc     0.25
    """
    lines = [tuple(columns), *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; all columns but the first are aligned to the right.

    Raises
    ------
    ValueError
        If there is no row.

    Examples
    --------
    >>> print(markdown_table(["network", "drop"], [["resnet20", "4.1"]]))
    | network | drop |
    |:--|--:|
    | resnet20 | 4.1 |
    """
    if not rows:
        raise ValueError("`rows` must hold at least one row, got none.")
    rules = [":--", *["--:"] * (len(headings) - 1)]
    lines = ["| " + " | ".join(headings) + " |", "|" + "|".join(rules) + "|"]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)
