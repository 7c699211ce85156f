"""The results as one page of HTML that needs nothing else: no network, no script, no other file."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from refldnq import __version__
from refldnq.verify.claims.base import Claim, Counterexample, Figure, Finding, Statement
from refldnq.verify.reporting.figures import figure_svg
from refldnq.verify.reporting.markdown import escaped, to_html
from refldnq.verify.reporting.mathml import mathml
from refldnq.verify.reporting.results import Result
from refldnq.verify.reporting.style import CSS
from refldnq.verify.reporting.text import VERDICTS, state, summary
from refldnq.verify.reporting.values import as_json, as_latex, as_text

TITLE = "The claims of L-DNQ, checked"

PAPER = (
    "S. Chen, W. Wang, S. J. Pan: Deep Neural Network Quantization via Layer-Wise Optimization Using Limited "
    "Training Data. AAAI 2019."
)

CLASSES = {"true": "true", "true with a fix": "fix", "false": "false", "empirical": "empirical"}
"""Verdicts and the classes of the style sheet."""


def results_html(claims: Sequence[Claim], results: Sequence[Result], seconds: float) -> str:
    """The page.

    Parameters
    ----------
    claims : sequence of Claim
        The claims.
    results : sequence of Result
        One a claim.
    seconds : float
        Time of the whole run.

    Returns
    -------
    str
        A whole HTML document.

    Raises
    ------
    FormulaError
        If a formula of a claim cannot be rendered.
    ImportError
        If a package of the extra `verify` is missing.
    """
    sections = [_section(claims, index, results[index]) for index in range(len(claims))]
    body = "\n".join([_head(claims, results, seconds), *sections])
    body = _linked(body, [claim.id for claim in claims])
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # An icon of no bytes: browsers would ask for one otherwise.
        '<link rel="icon" href="data:,">\n'
        f"<title>{TITLE}</title>\n<style>{CSS}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def check_packages() -> None:
    """Refuse to begin without what the page needs: before the work, not after it.

    Raises
    ------
    ImportError
        If a package is missing.

    Examples
    --------
    >>> check_packages()
    """
    mathml("x")
    to_html("")
    figure_svg(Figure(title="", x="", y="", curves={}), "")


def _head(claims: Sequence[Claim], results: Sequence[Result], seconds: float) -> str:
    counts = []
    for verdict in VERDICTS:
        number = sum(claim.verdict == verdict for claim in claims)
        counts.append(f'<li><span class="chip {CLASSES[verdict]}">{number} {verdict}</span></li>')
    rows = []
    for claim, result in zip(claims, results, strict=True):
        rows.append(
            f'<tr><td class="name"><a href="#{claim.id}">{claim.id}</a></td>'
            f"<td>{to_html(claim.title, block=False)}</td><td>{_chip(claim)}</td>"
            f"<td>{_state(claim, result)}</td>"
            f'<td class="number">{sum(result.seconds):.1f} s</td></tr>'
        )
    lines = "".join(f"<p>{escaped(line)}</p>" for line in summary(claims, results, seconds))
    return (
        f'<header id="top"><h1>{TITLE}</h1><p class="source">{escaped(PAPER)}</p>{lines}'
        f'<ul class="counts">{"".join(counts)}</ul></header>\n'
        '<nav class="scroll"><table><thead><tr><th>claim</th><th></th><th>verdict</th><th>established</th>'
        f"<th>time</th></tr></thead><tbody>{''.join(rows)}</tbody></table></nav>\n"
        f'<p class="aside">refldnq {__version__}. <em>true</em>: as printed; <em>true with a fix</em>: after '
        "the stated repair; <em>false</em>: refuted by the instance shown, and replaced; <em>empirical</em>: "
        "measured or counted, not proved.</p>"
    )


def _section(claims: Sequence[Claim], index: int, result: Result) -> str:
    claim = claims[index]
    steps = ['<a href="#top">contents</a>']
    if index > 0:
        steps.insert(0, f'<a href="#{claims[index - 1].id}">← {claims[index - 1].id}</a>')
    if index + 1 < len(claims):
        steps.append(f'<a href="#{claims[index + 1].id}">{claims[index + 1].id} →</a>')
    wrong = claim.verdict == "false"
    parts = [
        f'<header class="claim"><h2>{to_html(claim.title, block=False)}</h2><span class="source">{claim.id}, '
        f'{escaped(claim.source)}</span>{_chip(claim)}<nav class="steps">{" · ".join(steps)}</nav></header>',
        f"<p>{to_html(claim.reason, block=False)}</p>",
        _statement("As printed", claim.printed, "wrong" if wrong else ""),
    ]
    if claim.counterexample is not None:
        parts.append(_counterexample(claim.counterexample))
    if claim.corrected is not None:
        heading = "Corrected" if claim.verdict in ("false", "true with a fix") else "Moreover"
        parts.append(_statement(heading, claim.corrected, "right"))
    if claim.proof:
        parts.append(f'<h3>Proof</h3><div class="proof">{to_html(claim.proof)}</div>')
    parts.append(f"<h3>Established: {_state(claim, result)}</h3>")
    parts.append(_findings(claim, result))
    for place, figure in enumerate(figure for finding in result.findings for figure in finding.figures):
        svg = figure_svg(figure, f"{claim.id}-figure{place}")
        parts.append(f"<figure><figcaption>{escaped(figure.title)}</figcaption>{svg}</figure>")
    planted = "".join(f"<li>{escaped(mutation.name)}</li>" for mutation in claim.mutations)
    parts.append(
        "<details><summary>Planted errors that the checks are tested to notice</summary>"
        f"<ul>{planted}</ul></details>"
    )
    return f'<section class="claim" id="{claim.id}">' + "\n".join(parts) + "</section>"


def _statement(heading: str, statement: Statement, kind: str) -> str:
    formula = mathml(statement.latex, True) if statement.latex else ""
    return (
        f'<h3>{heading}</h3><div class="statement {kind}"><div class="formula">{formula}</div>'
        f"<p>{to_html(statement.words, block=False)}</p></div>"
    )


def _counterexample(example: Counterexample) -> str:
    entries = []
    for name, value in example.instance.items():
        latex = as_latex(value)
        shown = escaped(as_text(value)) if latex is None else mathml(latex)
        entries.append(f"<dt>{escaped(name)}</dt><dd>{shown}</dd>")
    return (
        f'<h3>Counterexample</h3><dl class="instance">{"".join(entries)}</dl><p>{escaped(example.shown)}</p>'
    )


def _findings(claim: Claim, result: Result) -> str:
    rows = []
    for check, finding, seconds in zip(claim.checks, result.findings, result.seconds, strict=True):
        rows.append(
            f"<tr><td>{_mark(finding)}</td><td>{escaped(check.name)}</td><td>{check.kind}</td>"
            f'<td>{escaped(finding.text)}{_numbers(finding)}</td><td class="number">{seconds:.2f} s</td></tr>'
        )
    return (
        '<div class="scroll"><table><thead><tr><th></th><th>check</th><th>kind</th><th>found</th>'
        f"<th>time</th></tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _numbers(finding: Finding) -> str:
    if not finding.numbers:
        return ""
    lines = [
        f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in as_json(finding.numbers).items()
    ]
    shown = escaped("\n".join(lines))
    return f"<details><summary>numbers</summary><pre>{shown}</pre></details>"


def _chip(claim: Claim) -> str:
    return f'<span class="chip {CLASSES[claim.verdict]}">{claim.verdict}</span>'


def _mark(finding: Finding) -> str:
    if not finding.ok:
        return '<span class="no">failed</span>'
    return '<span class="yes">✓</span>' if finding.certified else '<span class="weak">not certified</span>'


def _state(claim: Claim, result: Result) -> str:
    kind = "yes" if result.established else "weak" if result.ok or not claim.gating else "no"
    return f'<span class="{kind}">{state(claim, result)}</span>'


def _linked(body: str, names: Sequence[str]) -> str:
    """Names of claims in code spans become links to them."""
    known = set(names)

    def link(found: re.Match[str]) -> str:
        return f'<a href="#{found[1]}">{found[0]}</a>' if found[1] in known else found[0]

    return re.sub(r"<code>([a-z0-9-]+)</code>", link, body)
