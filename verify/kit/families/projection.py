"""Projections (16)-(17): rounding alone, the alternation, the global optimum.

Faults in ties survive every trajectory of ADMM, because no number lies on a threshold there; here numbers do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from refldnq._typing import Array
from refldnq.verify.kit.cases import Case
from refldnq.verify.kit.families._make import make, refuse
from refldnq.verify.kit.families._numbers import draws
from refldnq.verify.kit.families._problems import POWERS

SCALE = "alpha-never alpha-mean alpha-inverted alpha-start-max passes-1 passes-2 projection-exact"
LEVELS = "levels-no-zero levels-one-sided sign-lost codes-are-values"
UNIFORM = np.arange(-3.0, 4.0)
"""Equally spaced levels, not the paper's."""
ASYMMETRIC = np.array([-1.0, 0.0, 0.5, 2.0, 3.0])
"""More levels above 0 than below, the least magnitude not 1 and not negative."""


def given(V: Array | Sequence[float], values: Array, alpha0: float, **more: Any) -> dict[str, Any]:
    """Inputs: the alternation to its fixed point, ties to the smaller magnitude, unless said otherwise."""
    rule = {"kind": "alternating", "passes": -1, "ties": "smaller", **more}
    return {"V": np.asarray(V, dtype=np.float64), "values": values, "alpha0": alpha0, **rule}


def bell(seed: int, size: int) -> Array:
    """Sums of three uniform numbers, between -6 and 6, of 13 bits."""
    parts = [draws(seed + 1000 * k, (size,), -(2**10), 2**10, 2**9) for k in range(3)]
    return np.asarray(parts[0] + parts[1] + parts[2])


def thresholds(values: Array) -> Array:
    """Halfway between neighbours."""
    return np.array([(low + high) / 2 for low, high in pairwise(values)])


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _rounding()
    yield from _alternation()
    yield from _limited()
    yield from _degenerate()
    yield from _optimum()
    yield from _theorems()
    good = given([1.0, -0.5, 0.25], POWERS[5], 1.0)
    for name, value in (("nan", np.nan), ("infinity", np.inf)):
        yield refuse(
            "project",
            name,
            f"an entry is {value}",
            {**good, "V": np.array([1.0, value])},
            "non-finite-accepted",
        )
    yield refuse("project", "nothing", "V is empty", {**good, "V": np.zeros(0)}, "nothing-accepted")


def _rounding() -> Iterator[Case]:
    # No update of α: codes alone. Every threshold and level, of both signs; α = 3/4 is no power of two.
    for ties, others in (
        ("smaller", "ties-larger ties-up ties-down"),
        ("larger", "ties-up ties-down"),
        ("zero", "ties-up ties-down"),
    ):
        for levels, values in POWERS.items():
            catches = others if levels > 3 or ties != "larger" else "ties-up ties-down"
            if ties == "smaller" and 5 <= levels <= 9:
                catches += " ties-zero"
            if ties != "larger" and levels > 3:
                catches += " ties-larger"
            V = 0.75 * np.concatenate([thresholds(values), values])
            yield make(
                "project",
                f"ties-{ties}-{levels}",
                f"{levels} levels, every threshold: ties go to the {_WORDS[ties]}",
                given(V, values, 0.75, passes=0, ties=ties),
                tier="exact-dyadic",
                catches=" ".join(dict.fromkeys(catches.split())),
                near=True,
            )
    for levels in (3, 7, 11):
        # The nearest numbers of float32 on both sides of every threshold.
        limits = thresholds(POWERS[levels]).astype(np.float32)
        sides = [np.nextafter(limits, np.float32(side)) for side in (-np.inf, np.inf)]
        yield make(
            "project",
            f"beside-ties-{levels}",
            f"{levels} levels, one float32 step beside every threshold: a tolerance would show",
            given(np.concatenate(sides), POWERS[levels], 1.0, passes=0),
            catches="thresholds-floor levels-no-zero levels-one-sided",
            near=True,
        )
    between = [1.45, -1.45, 2.875, -2.875, 5.75, -5.75, 0.45, -0.45, 11.5, -11.5, 0.55, 1.6, 3.2, -6.5, 13.0]
    V = np.array(between, dtype=np.float32)
    for levels in (5, 7, 9, 11):
        yield make(
            "project",
            f"between-{levels}",
            f"{levels} levels: between geometric and arithmetic means of neighbours",
            given(V, POWERS[levels], 1.0, passes=0),
            catches=f"thresholds-geometric thresholds-floor levels-short {LEVELS}"
            + (" levels-uniform" if levels > 5 else ""),
        )
    yield make(
        "project",
        "given-scale",
        "no update: α stays where it was given",
        given(bell(160, 16), POWERS[7], 0.625, passes=0),
        catches="alpha-start-mean alpha-start-max alpha-start-one projection-exact",
    )


_WORDS = {"smaller": "smaller magnitude", "larger": "larger magnitude", "zero": "level 0 (up to 9 levels)"}


def _alternation() -> Iterator[Case]:
    for name, comment, values, seed, size, alpha0, more in (
        ("ternary-mean", "3 levels from mean|V|", POWERS[3], 201, 12, 0.0, ""),
        (
            "ternary-warm",
            "3 levels from a small α",
            POWERS[3],
            200,
            24,
            0.25,
            "alpha-start-mean alpha-start-one",
        ),
        ("ternary-large", "3 levels from a large α", POWERS[3], 227, 12, 4.0, "alpha-start-mean"),
        ("five-mean", "5 levels from mean|V|", POWERS[5], 206, 12, 0.0, "levels-short"),
        ("five-warm", "5 levels from a small α", POWERS[5], 200, 24, 0.25, "levels-short alpha-start-mean"),
        (
            "five-slow",
            "5 levels: eleven updates of α",
            POWERS[5],
            216,
            24,
            4.0,
            "alpha-start-mean passes-released",
        ),
        ("seven-mean", "7 levels from mean|V|", POWERS[7], 226, 12, 0.0, "levels-uniform"),
        (
            "seven-warm",
            "7 levels from a small α",
            POWERS[7],
            200,
            24,
            0.25,
            "levels-uniform alpha-start-mean",
        ),
        ("nine-warm", "9 levels from a small α", POWERS[9], 201, 24, 0.25, "levels-uniform alpha-start-one"),
        ("eleven-warm", "11 levels from a small α", POWERS[11], 218, 24, 0.25, "levels-uniform levels-short"),
    ):
        kept = "" if len(values) == 3 else "alpha-mean-kept"
        catches = f"{SCALE} {LEVELS} {kept} {more}"
        if alpha0 > 1:  # from above as from max|V|
            catches = catches.replace("alpha-start-max", "")
        yield make("project", name, comment, given(bell(seed, size), values, alpha0), catches=catches)
    for factor, word in ((2.0**-10, "small"), (2.0**12, "large")):
        yield make(
            "project",
            f"{word}-numbers",
            f"everything times {factor}: no tolerance may be absolute",
            given(bell(200, 24) * factor, POWERS[5], 0.25 * factor),
            catches="alpha-tolerance passes-released alpha-start-one"
            if factor < 1
            else "alpha-never alpha-mean",
        )
    yield make(
        "project",
        "uniform-levels",
        "seven equally spaced levels",
        given(bell(162, 16), UNIFORM, 0.0),
        catches=f"alpha-never alpha-mean {LEVELS}",
    )
    yield make(
        "project",
        "asymmetric-levels",
        "levels -1, 0, 1/2, 2, 3: the default start is mean|V| over the least magnitude",
        given(bell(160, 16), ASYMMETRIC, 0.0),
        catches="alpha-never levels-no-zero sign-lost",
    )
    yield make(
        "project",
        "dyadic",
        "(4, 1, 1, 1) from its mean 7/4: all four are rounded to it, and stay",
        given([4.0, 1.0, 1.0, 1.0], POWERS[3], 0.0),
        tier="exact-dyadic",
        catches="projection-exact alpha-start-max",
    )
    yield make(
        "project",
        "two-fixed-points",
        "(4, 1, 1, 1) from 3: another fixed point, which is better",
        given([4.0, 1.0, 1.0, 1.0], POWERS[3], 3.0),
        tier="exact-dyadic",
        catches="alpha-start-mean alpha-start-one",
    )


def _limited() -> Iterator[Case]:
    for passes, catches in (
        (1, "rounded-again alpha-never passes-2"),
        (2, "rounded-again alpha-never passes-1"),
        (3, "passes-1 passes-2"),
    ):
        yield make(
            "project",
            f"passes-{passes}",
            f"at most {passes} updates: the codes are those that the last α was computed from",
            given(bell(216, 24), POWERS[5], 4.0, passes=passes),
            catches=catches,
        )


def _degenerate() -> Iterator[Case]:
    yield make(
        "project",
        "empty-code",
        "α₀ so large that all is rounded to 0: start over at mean|V|",
        given(bell(206, 12), POWERS[5], 64.0),
        tier="degenerate",
        catches="empty-divides empty-gives-up passes-released",
    )
    yield make(
        "project",
        "empty-code-ternary",
        "the same with 3 levels",
        given(bell(201, 12), POWERS[3], 256.0),
        tier="degenerate",
        catches="empty-divides empty-gives-up",
    )
    yield make(
        "project",
        "empty-code-kept",
        "no update is asked for: G = 0 and α = 0 stand for all empty Q",
        given([0.5, -0.25], POWERS[3], 4.0, passes=0),
        tier="degenerate",
        catches="alpha-start-mean",
    )
    for kind in ("alternating", "exact"):
        yield make(
            "project",
            f"zeros-{kind}",
            "V = 0: G = 0, α = 0",
            given(np.zeros(4), POWERS[5], 0.0, kind=kind),
            tier="degenerate",
            catches="codes-are-values" if kind == "alternating" else "",
            flags=() if kind == "alternating" else ("smoke",),
        )
    yield make(
        "project",
        "one-number",
        "a single negative number",
        given([-0.6875], POWERS[7], 0.0),
        tier="degenerate",
        catches="sign-lost levels-one-sided",
    )
    yield make(
        "project",
        "one-large",
        "one number is 2**12 times as large as the others",
        given(np.append(bell(163, 12) / 16, 1024.0), POWERS[7], 0.0),
        tier="degenerate",
        catches="alpha-never alpha-mean-kept",
    )
    yield make(
        "project",
        "many-zeros",
        "three of four numbers are 0, as after pruning",
        given(np.concatenate([bell(161, 6), np.zeros(18)]), POWERS[5], 0.0),
        tier="degenerate",
        catches="alpha-never alpha-start-max levels-no-zero",
    )


def _optimum() -> Iterator[Case]:
    for name, comment, values, seed, size, catches in (
        ("optimum-ternary", "3 levels", POWERS[3], 327, 7, "projection-alternates"),
        ("optimum-five", "5 levels", POWERS[5], 301, 6, "projection-alternates"),
        ("optimum-seven", "7 levels", POWERS[7], 300, 5, "projection-alternates"),
        ("optimum-uniform", "7 equally spaced levels", UNIFORM, 300, 5, "projection-alternates"),
        ("optimum-asymmetric", "levels -1, 0, 1/2, 2, 3", ASYMMETRIC, 303, 5, "projection-alternates"),
        ("optimum-many", "3 levels, 40 numbers", POWERS[3], 946, 40, "projection-alternates"),
    ):
        yield make(
            "project",
            name,
            f"the global optimum: {comment}",
            given(bell(seed, size), values, 0.0, kind="exact"),
            catches=catches,
        )


def _theorems() -> Iterator[Case]:
    for n in (3, 15):
        V = np.append(np.ones(n), n + 1.0)
        yield make(
            "project",
            f"alternation-stalls-{n}",
            f"({n} ones and {n + 1}): the alternation stays at (2n + 1)/(n + 1), as bad as n is large",
            given(V, POWERS[3], 0.0),
            tier="theorems",
            catches="projection-exact",
        )
        yield make(
            "project",
            f"optimum-{n}",
            f"({n} ones and {n + 1}): the optimum keeps the large entry alone",
            given(V, POWERS[3], 0.0, kind="exact"),
            tier="theorems",
            catches="projection-alternates",
        )
    yield make(
        "project",
        "ternary-threshold",
        "(17): Q depends on V/α through the thresholds ±α/2; equal numbers share a code",
        given([3.0, 3.0, -3.0, 0.5, 0.5, -0.5, 2.0, 1.0], POWERS[3], 0.0),
        tier="theorems",
        catches="sign-lost levels-no-zero alpha-never",
    )
