"""LaTeX formulas as MathML, which browsers show without help."""

from __future__ import annotations

import re
from functools import cache
from html import escape
from xml.etree import ElementTree

REWRITTEN = (
    (r"\\operatorname\*", r"\\operatorname"),
    (r"\\(arg|sgn|sign|rank|diag|tr)(?![A-Za-z])", r"\\operatorname{\1}"),
    (r"\\math(?:rel|bin|op|ord)\{([^{}]*)\}", r"{\1}"),
    (r"\\mathrm\{([A-Za-z ]{2,})\}", r"\\text{\1}"),
    (r"\\(begin|end)\{(?:aligned|split|gathered)\}", r"\\\1{align*}"),
    (r"\\begin\{psmallmatrix\}", r"\\left(\\begin{smallmatrix}"),
    (r"\\end\{psmallmatrix\}", r"\\end{smallmatrix}\\right)"),
    (r"\\(?:bm|boldsymbol)\{", r"\\mathbf{"),
    (r"\\(?:limits|nolimits)(?![A-Za-z])", r""),
)
"""Commands that latex2mathml lacks, or turns into what MathML lacks, and what does the same."""

TEXTS = re.compile(r"\\(?:text[a-z]*|mbox|hbox|fbox)\s*\{[^{}]*\}")
"""Words in a formula, which latex2mathml copies as they are."""

MARKUP = {"&": "\ue000", "<": "\ue001", ">": "\ue002"}
"""What means something in MathML, and private characters that take its place until it can be escaped."""

PRIVATE = {ord(character): private for character, private in MARKUP.items()}
"""The same as a translation."""

ELEMENT = "{http://www.w3.org/1998/Math/MathML}m"
"""How the elements' names begin, as ElementTree gives them."""

ALPHABETS = {"double-struck": "DOUBLE-STRUCK", "script": "SCRIPT", "bold": "BOLD", "fraktur": "FRAKTUR"}
"""Variants of letters: as MathML names them, which browsers ignore, and as Unicode names the letters."""


class FormulaError(ValueError):
    """A formula that cannot be rendered."""


@cache
def mathml(latex: str, display: bool = False) -> str:
    r"""A formula as a ``<math>`` element.

    Parameters
    ----------
    latex : str
        Without dollar signs.
    display : bool, optional
        On a line of its own.

    Returns
    -------
    str

    Raises
    ------
    FormulaError
        If a command is unknown or the formula is malformed.
    ImportError
        If latex2mathml is not installed.

    Examples
    --------
    >>> "<msup>" in mathml("x^2"), "ℝ" in mathml(r"\mathbb R")
    (True, True)
    >>> mathml(r"2 \no")
    Traceback (most recent call last):
        ...
    refldnq.verify.reporting.mathml.FormulaError: `latex` must use known commands, got '\\no' in '2 \\no'.
    """
    try:
        from latex2mathml.converter import convert
    except ImportError as missing:
        raise ImportError("the page needs latex2mathml: pip install 'refldnq[verify]'.") from missing

    given = latex
    latex = TEXTS.sub(lambda found: found[0].replace(r"\&", "&").translate(PRIVATE), latex)
    braces = re.sub(r"\\.", "", latex)  # without those that are shown
    if braces.count("{") != braces.count("}"):
        raise FormulaError(f"`latex` must have as many opening as closing braces, got {given!r}.")
    for pattern, replacement in REWRITTEN:
        latex = re.sub(pattern, replacement, latex)
    try:
        element: str = convert(latex, display="block" if display else "inline")
    except Exception as error:  # the package has no common class for what a formula can do to it
        raise FormulaError(f"`latex` must be a formula, got {given!r}: {error}.") from error
    unknown = re.search(r"\\[A-Za-z]+|<mi>&</mi>", element)
    if unknown:
        raise FormulaError(f"`latex` must use known commands, got {unknown[0]!r} in {given!r}.")
    for character, private in MARKUP.items():
        element = element.replace(private, escape(character))
    if not _only_mathml(element):
        raise FormulaError(f"`latex` must hold nothing but a formula, got {given!r}.")
    element = re.sub(r'<(m[in]) mathvariant="([a-z-]+)">([^<]+)</\1>', _letters, element)
    return re.sub(r' columnalign="(\w+)"', r' style="text-align:\1"', element)


def _only_mathml(element: str) -> bool:
    """Whether all elements are MathML's, and none is a link."""
    try:
        parts = list(ElementTree.fromstring(element).iter())
    except ElementTree.ParseError:
        return False
    return all(part.tag.startswith(ELEMENT) and "href" not in part.attrib for part in parts)


def _letters(found: re.Match[str]) -> str:
    import unicodedata

    tag, variant, text = found.groups()
    if variant not in ALPHABETS:
        return found[0]
    letters = ""
    for letter in text:
        kind = "CAPITAL" if letter.isupper() else "SMALL" if letter.isalpha() else "DIGIT"
        name = unicodedata.name(letter).split()[-1] if kind == "DIGIT" else letter.upper()
        for full in (
            f"MATHEMATICAL {ALPHABETS[variant]} {kind} {name}",
            f"{ALPHABETS[variant]} {kind} {name}",
        ):
            try:
                letters += unicodedata.lookup(full)
                break
            except KeyError:
                continue
        else:
            return found[0]
    return f"<{tag}>{letters}</{tag}>"
