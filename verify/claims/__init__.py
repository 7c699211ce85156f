"""The claims of the paper, one a file: what is printed, what is true, and the programs that show it."""

from __future__ import annotations

import pkgutil
import re
from functools import cache
from importlib import import_module

from refldnq.verify.claims.base import Claim

ORDER = (
    "eq",
    "quantization",
    "hessian",
    "theorem",
    "display",
    "bound",
    "algorithm",
    "projection",
    "admm",
    "complexity",
    "prose",
)
"""First words of the names of claims, in the order in which they are listed; other words come after these."""


def position(name: str) -> tuple[int, tuple[tuple[int, str], ...]]:
    """Where a claim stands in the list: by the kind of its name, then by the numbers and words in it.

    Examples
    --------
    >>> sorted(["prose-200-images", "theorem2", "eq10", "eq9", "algorithm1-line2"], key=position)
    ['eq9', 'eq10', 'theorem2', 'algorithm1-line2', 'prose-200-images']
    """
    parts = re.findall(r"\d+|[^\d_-]+", name)
    kind = ORDER.index(parts[0]) if parts and parts[0] in ORDER else len(ORDER)
    return kind, tuple((int(part), "") if part.isdigit() else (-1, part) for part in parts)


@cache
def claims() -> tuple[Claim, ...]:
    """All claims, in the paper's order: equations, theorems, displays, algorithm, complexity, prose.

    Returns
    -------
    tuple of Claim
        One from every module of this folder except `base` and those whose name begins with an underscore.

    Raises
    ------
    ValueError
        If a module is not named after the claim in it.
    """
    found = []
    for module in pkgutil.iter_modules(__path__):
        if module.name == "base" or module.name.startswith("_"):
            continue
        claim: Claim = import_module(f"{__name__}.{module.name}").CLAIM
        if claim.id.replace("-", "_") != module.name:
            raise ValueError(f"`CLAIM.id` of {module.name}.py must name the file, got {claim.id!r}.")
        found.append(claim)
    return tuple(sorted(found, key=lambda claim: position(claim.id)))


def find(name: str) -> Claim:
    """The claim of a name.

    Raises
    ------
    ValueError
        If there is none.

    Examples
    --------
    >>> find("eq99")
    Traceback (most recent call last):
        ...
    ValueError: `claim` must be the name of a claim, got 'eq99'; refldnq verify lists all.
    """
    for claim in claims():
        if claim.id == name:
            return claim
    raise ValueError(f"`claim` must be the name of a claim, got {name!r}; refldnq verify lists all.")
