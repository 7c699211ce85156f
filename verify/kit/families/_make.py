"""Cases from questions: the right answers come from rational arithmetic, rounded once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from refldnq.verify.kit.cases import Case
from refldnq.verify.kit.families._exact import solve
from refldnq.verify.kit.families._numbers import rounded

CLEAR = 2.0**-12
"""Least distance of a number from a threshold, as a share of it, except where a tie is the point (chosen
here: above (2N + 16)u of float32 for N up to 2000)."""


def make(
    op: str,
    name: str,
    comment: str,
    inputs: Mapping[str, Any],
    *,
    tier: str = "certified",
    catches: str = "",
    flags: tuple[str, ...] = (),
    scored: bool = True,
    near: bool = False,
) -> Case:
    """A case from its inputs.

    Parameters
    ----------
    op, name, comment, tier, flags, scored
        As in `Case`; the id is ``op/name``.
    inputs : mapping
        Arguments by name.
    catches : str
        Ids of faults, with spaces between them.
    near : bool
        Whether numbers may lie on thresholds or near them.

    Returns
    -------
    Case
        With right answers, bounds, margins and the condition number.

    Raises
    ------
    ValueError
        If a number lies near a threshold, or an objective near the best one, and `near` is false.

    Examples
    --------
    >>> given = {"lam": np.zeros(1), "Theta": np.ones(1), "G": np.full(1, 0.5)}
    >>> make("dual", "half", "an example", given, catches="dual-frozen").outputs["lam_new"]
    array([0.5])
    """
    found = solve(op, inputs)
    for output, margin in found.margin.items():
        if not near and not (np.min(margin) >= CLEAR):
            raise ValueError(
                f"`inputs` of {op}/{name} must have margins of {CLEAR}, got {np.min(margin)} of {output}."
            )
    return Case(
        op=op,
        id=f"{op}/{name}",
        comment=comment,
        tier=tier,
        flags=flags,
        catches=tuple(catches.split()),
        inputs=dict(inputs),
        outputs={key: rounded(value) for key, value in found.outputs.items()},
        compare=found.compare,
        bound={key: rounded(value) for key, value in found.bound.items()},
        margin=found.margin,
        allowed=found.allowed,
        trace={key: rounded(value) for key, value in found.trace.items()},
        kappa=found.kappa,
        scored=scored,
    )


def refuse(op: str, name: str, error: str, inputs: Mapping[str, Any], catches: str = "") -> Case:
    """A case whose inputs must be refused.

    It is a smoke test if it catches no fault.

    Examples
    --------
    >>> refuse("dual", "nan", "Θ is not a number", {"Theta": np.full(1, np.nan)}).outputs
    {}
    """
    return Case(
        op=op,
        id=f"{op}/refuse-{name}",
        comment=f"must be refused: {error}",
        tier="degenerate",
        flags=() if catches else ("smoke",),
        catches=tuple(catches.split()),
        inputs=dict(inputs),
        outputs={},
        compare={},
        error=error,
        scored=False,
    )
