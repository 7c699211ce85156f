"""Settings of the documentation site: ``sphinx-build -W docs docs/_build``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import refldnq

if TYPE_CHECKING:
    from sphinx.application import Sphinx

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

myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3

default_role = "code"
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


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", as_written, priority=100)  # before napoleon
