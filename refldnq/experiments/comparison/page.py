"""The comparison as one page of HTML that needs nothing else: no network, no script, no other file."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape

CSS = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.75rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 2rem 0; }
img { max-width: 100%; height: auto; }
figcaption { color: #444; }
"""


def page_html(
    title: str,
    lines: Sequence[str],
    tables: Sequence[tuple[str, Sequence[str], Sequence[Sequence[str]]]],
    figures: Mapping[str, tuple[str, bytes]],
) -> str:
    """The page.

    Parameters
    ----------
    title : str
        Its heading.
    lines : sequence of str
        Paragraphs.
    tables : sequence of (str, sequence of str, sequence of sequence of str)
        Caption, headings and rows.
    figures : mapping of str to (str, bytes)
        Caption and PNG, by name.

    Returns
    -------
    str
        A whole HTML document.

    Examples
    --------
    >>> page = page_html("a < b", [], [], {})
    >>> "<h1>a &lt; b</h1>" in page, "http" in page
    (True, False)
    """
    parts = [f"<h1>{escape(title)}</h1>", *(f"<p>{escape(line)}</p>" for line in lines)]
    for caption, headings, rows in tables:
        head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        parts.append(
            f'<p>{escape(caption)}</p><div class="scroll"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )
    for name, (caption, png) in figures.items():
        source = "data:image/png;base64," + base64.b64encode(png).decode()
        parts.append(
            f'<figure id="{escape(name)}"><img src="{source}" alt="{escape(caption)}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )
