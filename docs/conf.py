"""Settings of the documentation site: ``sphinx-build -W docs docs/_build``.

Tables that programs know better than people are made when their pages are read: of the claims, and of the
planted errors with the checks that notice them. The latter runs these checks, which takes some 20 seconds.
Pictures are drawn from the runs that the repository keeps.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner
from sphinx.roles import XRefRole

import refldnq
from refldnq.cli import main
from refldnq.verify.claims import claims
from refldnq.verify.kit.cases import all_cases
from refldnq.verify.kit.pages import cases_markdown
from refldnq.verify.reporting.mutations import kills, kills_markdown

if TYPE_CHECKING:
    from docutils.nodes import Element
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

project = "refldnq"
author = "refldnq developers"
copyright = "2026, refldnq developers"
version = release = refldnq.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_click",
    "sphinx-mathjax-offline",  # pages show their formulas without a network
]
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

default_role = "code"
autodoc_mock_imports = [] if find_spec("torch") else ["torch"]  # the adapter for it is documented without it
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signature's types are in the docstring, with shapes
autodoc_class_signature = "separated"
autosummary_generate = True
autosummary_ignore_module_all = True
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"refldnq {release}"
html_copy_source = False


def as_written(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Escape magnitudes, |V|, and shapes, (n, *shape): reStructuredText takes them for markup of its own."""
    for i, line in enumerate(lines):
        if "`" not in line:
            line = re.sub(r"(?<!\\)\|", r"\\|", line)
            lines[i] = re.sub(r"(?<![\w*\\])\*(?=\w+[,)])", r"\\*", line)


class ClaimRole(XRefRole):
    """A claim by its name, ``{claim}`eq07```, linked to its page in the API."""

    def process_link(
        self, env: BuildEnvironment, refnode: Element, has_explicit_title: bool, title: str, target: str
    ) -> tuple[str, str]:
        refnode["refdomain"], refnode["reftype"] = "py", "mod"
        return title, f"refldnq.verify.claims.{target.replace('-', '_')}"


def claims_table() -> str:
    """All claims: name, place in the paper, verdict and reason."""
    lines = ["| claim | paper | verdict | reason |", "|:--|:--|:--|:--|"]
    for claim in claims():
        cells = (
            re.sub(r"([\\|*_$<\[])", r"\\\1", text) for text in (claim.source, claim.verdict, claim.reason)
        )
        lines.append(f"| {{claim}}`{claim.id}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def planted_errors_table() -> str:
    """What every planted error does, the claims' names linked."""
    found = kills(claims())
    survivors = [f"{one.claim}: {one.mutation}" for one in found if one.noticed is None]
    if survivors:
        raise ValueError(f"planted errors must be noticed, got {survivors} that were not.")
    return re.sub(r"^\| `", "| {claim}`", kills_markdown(found), flags=re.M)


TABLES = {
    "claims": ("<!-- all claims -->", claims_table),
    "mutations": ("<!-- planted errors -->", planted_errors_table),
    "kit-cases": ("<!-- all cases -->", lambda: cases_markdown(all_cases())),
}
"""By page: a comment in it, and what makes the table that takes its place."""


def with_table(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put a table where a page wants one."""
    if docname in TABLES:
        place, table = TABLES[docname]
        source[0] = source[0].replace(place, table())


def picture_of(command: str, root: Path) -> str:
    """What a command of the page on reproducing draws, as HTML."""
    words = [str(root / word) if word.endswith(".sqlite") else word for word in shlex.split(command)]
    with tempfile.TemporaryDirectory() as folder:
        picture, record = Path(folder) / "picture.png", Path(folder) / "record.json"
        ran = CliRunner().invoke(main, [*words, "--figure", str(picture), "--json", str(record)])
        if ran.exit_code:
            raise ValueError(f"`{command}` must draw a picture, got: {ran.output}")
        if not any(entry["n"] for entry in json.loads(record.read_text("utf-8"))["entries"]):
            raise ValueError(f"`{command}` must show runs, got none.")
        content = base64.b64encode(picture.read_bytes()).decode()
    return f'<img alt="{command}" src="data:image/png;base64,{content}" />'


def with_pictures(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put a picture where a page wants one: of what the page's own command on it writes as a table."""
    root = Path(app.srcdir).parent
    for exhibit in re.findall("<!-- picture of (.+) -->", source[0]):
        commands = re.findall(f"^refldnq (reproduce {exhibit} .*) --markdown .+$", source[0], flags=re.M)
        if len(commands) != 1:
            raise ValueError(
                f"a picture of {exhibit} must have one command on its page, got {len(commands)}."
            )
        source[0] = source[0].replace(f"<!-- picture of {exhibit} -->", picture_of(commands[0], root))
        for store in re.findall(r"--store (\S+)", commands[0]):
            app.env.note_dependency(str(root / store))


def setup(app: Sphinx) -> None:
    app.add_role("claim", ClaimRole(warn_dangling=True))
    app.connect("source-read", with_table)
    app.connect("source-read", with_pictures)
    app.connect("autodoc-process-docstring", as_written, priority=100)  # before napoleon
