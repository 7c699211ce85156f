"""Checks that many claims share: a statement on many instances, a counterexample, a search for violations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import numpy as np

from refldnq.verify.arithmetic import EXACT, has_flint
from refldnq.verify.claims.base import Check, Claim, Finding, Instance, Kind, Statement
from refldnq.verify.falsifier import Space, falsify
from refldnq.verify.reporting.values import as_text

Which = Literal["printed", "corrected"]

brief = as_text
"""An instance in one line."""


def stated(claim: Claim, which: Which) -> Statement:
    """The printed or the corrected statement.

    Raises
    ------
    ValueError
        If the claim has no corrected statement.
    """
    statement = claim.printed if which == "printed" else claim.corrected
    if statement is None:
        raise ValueError(f"`corrected` of {claim.id!r} must be given, got None.")
    return statement


def satisfies(statement: Statement, instance: Instance) -> bool:
    """Whether an instance satisfies all that a statement says, in rational arithmetic.

    Examples
    --------
    >>> one = Statement(latex="a", words="a", sides=lambda instance, arithmetic: (instance["a"], 1))
    >>> satisfies(one, {"a": 1}), satisfies(one, {"a": 2})
    (True, False)
    """
    if statement.holds is not None and not statement.holds(instance):
        return False
    if statement.sides is None:
        return True
    left, right = statement.sides(instance, EXACT)
    return bool(left <= right)


def on_all(
    name: str,
    instances: Callable[[], Iterable[Instance]],
    *,
    which: Which = "printed",
    kind: Kind = "exact",
    note: str = "",
) -> Check:
    """A check that a statement holds on every instance.

    Parameters
    ----------
    name : str
        Of the check.
    instances : callable
        Makes the instances, at least one.
    which : {'printed', 'corrected'}
        The statement.
    kind : str
        Of the check.
    note : str
        Added to the evidence.

    Returns
    -------
    Check
        Fails at the first instance that violates the statement.
    """

    def run(claim: Claim) -> Finding:
        statement, count = stated(claim, which), 0
        for instance in instances():
            count += 1
            if not satisfies(statement, instance):
                return Finding(ok=False, text=f"violated by instance {count}: {brief(instance)}")
        tail = f"; {note}" if note else ""
        how = "in float64" if kind == "float" else "exactly"
        return Finding(ok=count > 0, text=f"holds on {count} rational instances, {how}{tail}")

    return Check(name=name, kind=kind, run=run)


def by_hand(*, corrected: bool = True) -> Check:
    """A check that the counterexample violates the printed statement and satisfies the corrected one.

    Parameters
    ----------
    corrected : bool
        Whether the corrected statement speaks of the same instance.

    Returns
    -------
    Check
        In rational arithmetic.
    """

    def run(claim: Claim) -> Finding:
        example = claim.counterexample
        if example is None:
            return Finding(ok=False, text="there is no counterexample")
        violated = not satisfies(claim.printed, example.instance)
        repaired = not corrected or satisfies(stated(claim, "corrected"), example.instance)
        return Finding(ok=violated and repaired, text=example.shown)

    return Check(name="counterexample", kind="exact", run=run)


def refuted(
    space: Space, *, seed: int, which: Which = "printed", seconds: float = 30.0, tries: int = 600
) -> Check:
    """A check that a search from a cold start refutes a statement.

    Parameters
    ----------
    space : Space
        Where to search.
    seed : int
        Of the search.
    which : {'printed', 'corrected'}
        The statement, with `sides`.
    seconds, tries : number
        Limits of the search.

    Returns
    -------
    Check
        Of kind ``search``.
    """

    def run(claim: Claim) -> Finding:
        sides = stated(claim, which).sides
        assert sides is not None
        found = falsify(sides, space, np.random.default_rng(seed), seconds=seconds, tries=tries)
        verb = "refuted" if found.refuted else "not refuted"
        # Without balls irrational sides are compared in float64 alone.
        weaker = found.decided is None and not has_flint()
        if weaker:
            verb = "not certified (python-flint is missing), in float64"
        text = f"{verb} after {found.evaluations} evaluations: {found.left} > {found.right} at "
        return Finding(
            ok=found.refuted or (weaker and found.ratio > 1),
            text=text + brief(found.worst),
            certified=not weaker,
            numbers={"ratio": min(found.ratio, 1e300)},
        )

    return Check(name="search refutes the printed form", kind="search", run=run)


def survives(
    space: Space,
    *,
    seed: int,
    which: Which = "corrected",
    seconds: float = 2.0,
    tries: int = 300,
) -> Check:
    """A check that a search finds no violation of a statement.

    Parameters
    ----------
    space : Space
        Where to search.
    seed : int
        Of the search.
    which : {'printed', 'corrected'}
        The statement, with `sides`.
    seconds, tries : number
        Limits of the search.

    Returns
    -------
    Check
        Of kind ``search``; fails, too, where the sides are hardly ever defined or always 0 and 0.
    """

    def run(claim: Claim) -> Finding:
        sides = stated(claim, which).sides
        assert sides is not None
        found = falsify(sides, space, np.random.default_rng(seed), seconds=seconds, tries=tries)
        empty, vacuous = found.evaluations - found.defined, found.defined - found.telling
        parts = [f"{empty} not defined"] * (empty > 0) + [f"{vacuous} of 0 <= 0"] * (vacuous > 0)
        share = f" ({', '.join(parts)})" if parts else ""
        if found.refuted:
            text = f"refuted: {found.left} > {found.right} at {brief(found.worst)}"
        else:
            text = (
                f"no violation in {found.evaluations} evaluations{share}, largest ratio {found.largest:.6g}"
            )
        return Finding(
            ok=found.survived,
            # Without balls irrational sides are compared in float64 alone.
            certified=found.decided is not None or has_flint(),
            text=text if found.searched or found.refuted else f"hardly searched: {text}",
            numbers={
                "ratio": min(found.largest, 1e300),
                "evaluations": found.evaluations,
                "defined": found.defined,
                "telling": found.telling,
            },
        )

    return Check(name=f"search for violations of the {which} form", kind="search", run=run)
