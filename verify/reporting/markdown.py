"""Markdown with formulas between dollars as HTML; HTML in the text is shown as text."""

from __future__ import annotations

import html
import re
from functools import cache
from typing import Any

from refldnq.verify.reporting.mathml import mathml

FORMULA = re.compile(
    r"(?P<code>(?P<ticks>`+).+?(?P=ticks))|\$\$(?P<display>.+?)\$\$|(?<!\\)\$(?P<inline>[^$]+?)\$", re.S
)
"""A code span, which stays as it is, or a formula."""

OPEN, CLOSE = "\ue000", "\ue001"
"""Characters for private use that hold a formula's place."""


def to_html(text: str, *, block: bool = True) -> str:
    """Markdown as HTML.

    Parameters
    ----------
    text : str
        CommonMark with tables, and formulas between dollars or double dollars.
    block : bool, optional
        Paragraphs, lists and so on; otherwise one line without a paragraph around it.

    Returns
    -------
    str
        Without active content: HTML in the text is escaped, and links lead nowhere but to http and anchors.

    Raises
    ------
    FormulaError
        If a formula cannot be rendered.

    Examples
    --------
    >>> to_html("**a** <b> `$c$`", block=False)
    '<strong>a</strong> &lt;b&gt; <code>$c$</code>'
    """
    formulas: list[str] = []

    def put_aside(found: re.Match[str]) -> str:
        if found["code"]:
            return found["code"]
        shown = found["display"] is not None
        formulas.append(mathml((found["display"] if shown else found["inline"]).strip(), shown))
        return f"{OPEN}{len(formulas) - 1}{CLOSE}"

    prepared = FORMULA.sub(put_aside, text.replace(OPEN, "").replace(CLOSE, ""))
    rendered: str = _parser().render(prepared) if block else _parser().renderInline(prepared)
    return re.sub(f"{OPEN}(\\d+){CLOSE}", lambda found: formulas[int(found[1])], rendered).strip()


def escaped(text: str) -> str:
    """Plain text as HTML.

    Examples
    --------
    >>> escaped("9 <= 5")
    '9 &lt;= 5'
    """
    return html.escape(text)


@cache
def _parser() -> Any:
    try:
        from markdown_it import MarkdownIt
    except ImportError as missing:
        raise ImportError("the page needs markdown-it-py: pip install 'refldnq[verify]'.") from missing
    return MarkdownIt("commonmark", {"html": False}).enable("table")
