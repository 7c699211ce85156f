"""The results as JSON."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from refldnq import __version__
from refldnq.verify.claims.base import Claim, Statement
from refldnq.verify.reporting.results import Result
from refldnq.verify.reporting.text import VERDICTS, all_established
from refldnq.verify.reporting.values import as_json

PACKAGES = ("numpy", "python-flint", "hypothesis")
"""Packages on which results may depend."""


def results_json(claims: Sequence[Claim], results: Sequence[Result], seconds: float) -> dict[str, Any]:
    """A run as JSON values.

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
    dict
        ``established`` (whether every claim that counts was), ``seconds``, ``counts`` (by verdict),
        ``versions`` and ``claims``: for each its statements, verdict, counterexample (exact values as text)
        and checks with what they found.

    Examples
    --------
    >>> results_json([], [], 0.0)["counts"]
    {'true': 0, 'true with a fix': 0, 'false': 0, 'empirical': 0}
    """
    return {
        "established": all_established(claims, results),
        "seconds": seconds,
        "counts": {verdict: sum(claim.verdict == verdict for claim in claims) for verdict in VERDICTS},
        "versions": versions(),
        "claims": [claim_json(claim, result) for claim, result in zip(claims, results, strict=True)],
    }


def versions() -> dict[str, str | None]:
    """Versions of Python, this package and those of `PACKAGES`; None for what is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version(), "refldnq": __version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def claim_json(claim: Claim, result: Result) -> dict[str, Any]:
    """One claim and what was found about it as JSON values."""
    example = claim.counterexample
    return {
        "id": claim.id,
        "title": claim.title,
        "source": claim.source,
        "verdict": claim.verdict,
        "reason": claim.reason,
        "gating": claim.gating,
        "established": result.established,
        "ok": result.ok,
        "certified": result.certified,
        "seconds": sum(result.seconds),
        "printed": _statement(claim.printed),
        "corrected": None if claim.corrected is None else _statement(claim.corrected),
        "counterexample": (
            None if example is None else {"instance": as_json(example.instance), "shown": example.shown}
        ),
        "checks": [
            {
                "name": check.name,
                "kind": check.kind,
                "ok": finding.ok,
                "certified": finding.certified,
                "text": finding.text,
                "numbers": as_json(finding.numbers),
                "seconds": seconds,
            }
            for check, finding, seconds in zip(claim.checks, result.findings, result.seconds, strict=True)
        ],
        "mutations": [mutation.name for mutation in claim.mutations],
    }


def _statement(statement: Statement) -> dict[str, str]:
    return {"latex": statement.latex, "words": statement.words}
