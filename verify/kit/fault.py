"""A fault: one way to be wrong, as knobs of the reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to be wrong.

    Parameters
    ----------
    id : str
        A name that never changes.
    title : str
        What is done instead, in a few words.
    effect : str
        What it does to results.
    explanation : str
        Why it happens and what is right.
    ops : tuple of str
        The operations in which it shows, the first one it stands in first.
    changes : mapping
        The knobs of the reference that make it.
    noise : bool, optional
        Whether it costs digits only: then answers are compared by the size of their errors, because no two
        implementations round alike.
    """

    id: str
    title: str
    effect: str
    explanation: str
    ops: tuple[str, ...]
    changes: Mapping[str, Any]
    noise: bool = False

    @property
    def stage(self) -> str:
        """The operation in which the fault stands."""
        return self.ops[0]


def fault(
    id_: str,
    ops: tuple[str, ...],
    title: str,
    effect: str,
    explanation: str,
    *,
    noise: bool = False,
    **changes: Any,
) -> Fault:
    """A fault written as a row of the catalogue; further keywords are the knobs that it turns.

    Examples
    --------
    >>> fault("h-sum", ("hessian",), "H lacks 1/n", "H grows", "It is a mean.", scale="2").changes
    {'scale': '2'}
    """
    return Fault(id_, title, effect, explanation, ops, changes, noise)
