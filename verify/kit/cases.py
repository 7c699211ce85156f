"""Cases: questions with their right answers, and how far an answer may be off."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from refldnq._checks import check_choice
from refldnq.verify.kit.contract import OPERATIONS

TIERS = ("exact-dyadic", "certified", "ill-conditioned", "degenerate", "theorems")
"""What cases try: nothing rounds in a good implementation; generic numbers; condition numbers up to 0.1/u;
dead inputs, ranks below d, refusals; the paper's claims."""

COMPARE = ("exact", "code", "dot", "backward", "ulp", "own")
"""How an answer is compared: equal; a code, by its margin; a sum, by its bound; a solution, by its residual;
a few roundings of its bound; an objective, with that of the codes and the scale answered beside it."""

TRACE = ("G_in", "L_in", "Theta", "V", "Q", "alpha", "passes", "G", "L", "E", "best")
"""What is written of every iteration of a trajectory."""

CERTIFIED = ("exact-Q", "arb", "f64x2")
"""By what arithmetic the right answers were found: rational, balls, pairs of doubles."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Case:
    r"""One question: inputs, the right answers correctly rounded, and the scale of what rounding may do.

    Cases are equal if they are the same object; two that share an `id` may not stand in one suite.

    Parameters
    ----------
    op : str
        One of `contract.OPERATIONS`.
    id : str
        ``op/name``; a name that never changes.
    comment : str
        What the case is made to show, one line.
    tier : str
        One of `TIERS`.
    flags : tuple of str, optional
        Labels. ``smoke`` says that the case need not catch a fault.
    catches : tuple of str, optional
        Ids of the faults that fail it.
    conventions : mapping, optional
        Conventions of the answers where they are not the paper's.
    inputs : mapping
        Arguments by name: arrays, or plain numbers and strings.
    outputs : mapping
        The right answers by name, correctly rounded to float64; empty if the inputs must be refused.
    compare : mapping
        For every output one of `COMPARE`.
    bound : mapping, optional
        For outputs compared by ``dot`` or ``ulp``: the sum of the magnitudes of the terms, of the shape of
        the output; an answer may be off by a number of roundings times this.
    margin : mapping, optional
        For outputs compared by ``code``: the distance of what is rounded to the nearest threshold, relative
        to the magnitude of the threshold (0: it lies on one; inf: no threshold matters); the least of all
        passes of a projection. For ``best`` of a trajectory, by how much the next objective exceeds the
        least, relative to it (0: two are equal, and the first counts).
    allowed : mapping, optional
        For outputs compared by ``code``: a bit mask (int64) of the codes that are right where the margin is
        too small for the type; bit i stands for code i. Of a tie that is the one of the declared rule.
    trace : mapping, optional
        Of a trajectory, for every iteration: what goes into it (``G_in``, ``L_in``: G and λ) and what comes
        out (``Theta``, ``V``, ``Q``, ``alpha``, ``passes``, ``G``, ``L``, ``E``, ``best``: the index of the
        least objective so far). For readers; nothing is compared with it.
    error : str, optional
        What is wrong with the inputs, if they must be refused.
    kappa : float, optional
        Condition number of the step's matrix.
    certified : str
        One of `CERTIFIED`.
    scored : bool, optional
        False if an answer of zeros is right, or nearly so.

    Raises
    ------
    ValueError
        If a name is unknown, or the mappings do not fit the operation and each other.

    Examples
    --------
    >>> import numpy as np
    >>> zero = np.zeros(1)
    >>> case = Case(op="dual", id="dual/zero", comment="nothing moves", tier="exact-dyadic", flags=("smoke",),
    ...     inputs={"lam": zero, "Theta": zero, "G": zero}, outputs={"lam_new": zero},
    ...     compare={"lam_new": "exact"}, certified="exact-Q", scored=False)
    >>> case.id
    'dual/zero'
    """

    op: str
    id: str
    comment: str
    tier: str
    flags: tuple[str, ...] = ()
    catches: tuple[str, ...] = ()
    conventions: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    compare: Mapping[str, str]
    bound: Mapping[str, Any] = field(default_factory=dict)
    margin: Mapping[str, Any] = field(default_factory=dict)
    allowed: Mapping[str, Any] = field(default_factory=dict)
    trace: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    kappa: float = 1.0
    certified: str = "exact-Q"
    scored: bool = True

    def __post_init__(self) -> None:
        check_choice("op", self.op, OPERATIONS)
        check_choice("tier", self.tier, TIERS)
        check_choice("certified", self.certified, CERTIFIED)
        if not self.id.startswith(f"{self.op}/"):
            raise ValueError(f"`id` must begin with '{self.op}/', got {self.id!r}.")
        if (self.error is None) != bool(self.outputs):
            raise ValueError(f"`outputs` of {self.id} must be empty exactly if `error` is given.")
        if self.compare.keys() != self.outputs.keys():
            raise ValueError(
                f"`compare` of {self.id} must name {sorted(self.outputs)}, got {sorted(self.compare)}."
            )
        for name in self.outputs:
            check_choice("outputs", name, OPERATIONS[self.op].answers)
            check_choice("compare", self.compare[name], COMPARE)
        for mapping in (self.bound, self.margin, self.allowed):
            for name in mapping:
                check_choice("outputs", name, self.outputs)
        for name in self.trace:
            check_choice("trace", name, TRACE)


@cache
def all_cases() -> tuple[Case, ...]:
    """The whole suite, in the order of the operations: `cases()` of every module of the package `families`.

    Returns
    -------
    tuple of Case
        The same every time.

    Raises
    ------
    ValueError
        If two cases share an id.
    """
    from refldnq.verify.kit import families

    found: list[Case] = []
    for module in sorted(one.name for one in pkgutil.iter_modules(families.__path__)):
        if not module.startswith("_"):
            found += importlib.import_module(f"{families.__name__}.{module}").cases()
    ids = [case.id for case in found]
    for id_ in ids:
        if ids.count(id_) > 1:
            raise ValueError(f"`id` must be unique, got {id_} twice.")
    for case in found:
        for mapping in (case.inputs, case.outputs, case.bound, case.margin, case.allowed, case.trace):
            for array in mapping.values():
                if isinstance(array, np.ndarray):  # cases share arrays, and nobody may change them
                    array.setflags(write=False)
    order = {op: i for i, op in enumerate(OPERATIONS)}
    return tuple(sorted(found, key=lambda case: order[case.op]))
