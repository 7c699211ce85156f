"""Generated sections of Markdown files."""

from __future__ import annotations

from pathlib import Path

from refldnq.formats.atomic import atomic_path


def write_section(path: Path, name: str, text: str) -> None:
    """Replace a generated section of a Markdown file; append it if the file has none of that name.

    The section stands between the comments ``<!-- name: generated -->`` and ``<!-- name: end -->``.

    Raises
    ------
    ValueError
        If only one of the two comments is there.
    """
    opening, closing = f"<!-- {name}: generated -->", f"<!-- {name}: end -->"
    section = f"{opening}\n{text}\n{closing}"
    content = path.read_text(encoding="utf-8") if path.exists() else ""
    if (opening in content) != (closing in content):
        raise ValueError(f"`{path}` must hold both {opening!r} and {closing!r} or neither, got one.")
    if opening in content:
        before, rest = content.split(opening, 1)
        content = before + section + rest.split(closing, 1)[1]
    else:
        content = f"{content}\n{section}\n" if content else f"{section}\n"
    with atomic_path(path) as temporary:
        temporary.write_text(content, encoding="utf-8")
