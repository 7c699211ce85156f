"""Cases that turned out wrong, and fingerprints of all that ever shipped.

A case never changes: what it asks and what it answers stay as they were under its id, so that results can be
compared over the years. One that is wrong is withdrawn: its id is listed here with the reason, it is never
scored again, and the id is never used again. A better case gets a new id.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import TypeVar

from refldnq.verify.kit.cases import Case
from refldnq.verify.kit.contract import Question
from refldnq.verify.kit.golden import datasets

WITHDRAWN: Mapping[str, str] = {}
"""By id: since when (the suite) and why, one line."""

AnyQuestion = TypeVar("AnyQuestion", bound=Question)


def standing(
    cases: Iterable[AnyQuestion], withdrawn: Mapping[str, str] | None = None
) -> tuple[AnyQuestion, ...]:
    """The cases that are not withdrawn: those of an older file may be.

    Examples
    --------
    >>> from refldnq.verify.kit.cases import all_cases
    >>> case = all_cases()[0]
    >>> standing([case], {case.id: "2026.12: not what the paper says"})
    ()
    """
    out = WITHDRAWN if withdrawn is None else withdrawn
    return tuple(case for case in cases if case.id not in out)


def fingerprint(case: Case) -> str:
    """The hash of what a case asks and answers, in hexadecimal: inputs, right answers, conventions.

    How an answer is compared, and how far it may be off, is not part of it: a tolerance can be corrected.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from refldnq.verify.kit.cases import all_cases
    >>> case = next(one for one in all_cases() if one.id == "dual/matrix")
    >>> fingerprint(case) == fingerprint(replace(case, comment="other words"))
    True
    >>> fingerprint(case) == fingerprint(replace(case, inputs={**case.inputs, "lam": 0 * case.inputs["lam"]}))
    False
    """
    found = hashlib.sha256(json.dumps([case.id, dict(case.conventions)], sort_keys=True).encode())
    for place, array in datasets(case):
        if place.partition("/")[0] in ("in", "out"):
            found.update(f"\0{place} {array.dtype.str} {array.shape}\0".encode() + array.tobytes())
    return found.hexdigest()


def pins(cases: Iterable[Case]) -> str:
    """Lines of an id and its fingerprint, in the order of the ids.

    ``python -m refldnq.verify.kit.errata`` prints those of the suite. A new case adds its line to
    ``tests/kit_pins.txt``; no line there ever changes.
    """
    return "".join(f"{case.id} {fingerprint(case)}\n" for case in sorted(cases, key=lambda one: one.id))


if __name__ == "__main__":
    import sys

    from refldnq.verify.kit.cases import all_cases

    sys.stdout.write(pins(all_cases()))
