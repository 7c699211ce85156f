"""Three verdicts on a trajectory of ADMM.

*Certificate*, the one that counts: each transition must be valid from the candidate's own previous state.
Where rounding decides a code, its trajectory may leave the expected one and still be right.

*Teacher-forced*: each step from the right state before it, as cases of their own (`steps`).

*Free run*, for information: where codes first differ from the expected ones, whether the margin there
explains it, and both objectives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from refldnq._typing import Array, Float64Array, Int8Array
from refldnq.verify.kit.cases import Case
from refldnq.verify.kit.contract import Answers
from refldnq.verify.kit.families._exact import LEAST_GAIN, RULES, STILL
from refldnq.verify.kit.rules import (
    Judgement,
    UnusableError,
    decision_limit,
    judge,
    quadratic,
    quadratic_limit,
    read,
    residual,
    unit_roundoff,
    within,
)

MOST_BRANCHES = 256
"""Ends of one alternation that are followed where rounding decides codes."""

MOST_NEAR = 6
"""Codes of one update that rounding may decide at once; with more, any fixed point counts."""

PATIENCE = 3
"""Iterations in a row without an improvement after which the released code's rule stops."""

Ask = Callable[[Case], Answers | None]


# The alternation with all its branches -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class End:
    """Where an alternation may end: codes, scale, and the size of the terms of the scale."""

    codes: Int8Array
    alpha: float
    bound: float


def _nearest(V: Float64Array, alpha: float, values: Float64Array, ties: str) -> tuple[Array, Array, Array]:
    # Codes, relative distances of V from the nearest threshold, and the codes on its other side.
    middles = (values[1:] + values[:-1]) / 2
    limits = alpha * middles
    upward = middles >= 0 if ties == "larger" else middles <= 0
    v = V[:, None]
    above = np.where(upward, v >= limits, v > limits)
    codes = above.sum(axis=1)
    gap = np.divide(np.abs(v - limits), np.abs(limits), out=np.full(above.shape, np.inf), where=limits != 0)
    at = np.argmin(gap, axis=1)
    rows = np.arange(len(V))
    other = np.where(above[rows, at], at, at + 1)
    zero = int(np.argmin(np.abs(values)))
    if ties == "zero" and len(values) <= 9:
        tied = (
            (v == limits) & (np.arange(len(middles)) != zero) & (np.arange(len(middles)) != zero - 1)
        ).any(axis=1)
        codes = np.where(tied, zero, codes)
    return codes, gap[rows, at], other


def ends(
    V: Array,
    values: Array,
    alpha0: float,
    *,
    most: int = -1,
    ties: str = "smaller",
    limit: float = 0.0,
    tolerance: float = 0.0,
    best: bool = False,
) -> list[End] | None:
    """All ends of the alternation (17) that roundings up to a relative `limit` can lead to.

    Parameters
    ----------
    V : Array, shape (N,)
        What is projected.
    values : Array, shape (k,)
        Levels, ascending.
    alpha0 : float
        Where it starts; 0 for the default, mean|V| over the least positive level's magnitude.
    most : int, optional
        Most updates of α; -1: to the fixed point.
    ties : {'smaller', 'larger', 'zero'}, optional
        Where a number on a threshold goes: that is a rule, no rounding.
    limit : float, optional
        Distance from a threshold, as a share of it, below which either code is followed.
    tolerance : float, optional
        A smaller change of α ends it.
    best : bool, optional
        Whether the pass of least ‖V - G‖ counts, the start included; then nothing starts over.

    Returns
    -------
    list of End or None
        Distinct; None if there are too many.

    Examples
    --------
    >>> ternary = np.array([-1.0, 0.0, 1.0])
    >>> [end.alpha for end in ends(np.array([4.0, 1.0, 1.0, 1.0]), ternary, 0.0)]
    [1.75]
    >>> [end.alpha for end in ends(np.array([2.5, 0.5]), ternary, 1.0 + 1e-12, limit=1e-9)]
    [2.5]
    """
    magnitudes = np.abs(values[values != 0])
    default = math.fsum(np.abs(V).tolist()) / len(V) / float(magnitudes.min())
    start = alpha0 if alpha0 > 0 else default
    found: dict[tuple[bytes, float], End] = {}
    seen: set[tuple[Any, ...]] = set()
    todo: list[tuple[float, int, bool, tuple[_Pass, ...]]] = [(start, 0, best, ())]
    followed = 0
    while todo:
        alpha, count, restarted, kept = todo.pop()
        for codes in _choices(V, alpha, values, ties, limit):
            if codes is None or followed > MOST_BRANCHES:
                return None
            followed += 1
            way = tuple(one[0] for one in kept)
            key = (codes.tobytes(), alpha, count if most >= 0 else 0, restarted, way)
            if key in seen:
                continue
            seen.add(key)
            new, bound = _scale(V, values[codes])
            if most == 0:
                new, bound = (alpha, alpha) if values[codes].any() else (0.0, 0.0)
            again = most != 0 and new == 0 and not restarted and default != alpha
            if again:
                new, bound = default, default
            after = count + (new != alpha)
            passed = kept
            if best:
                first = () if kept else (_pass(V, values, codes, alpha, alpha),)
                passed = (*kept, *first, _pass(V, values, codes, new, bound))
            steps = [new == alpha or (new == 0 and not again) or (most >= 0 and after >= most)]
            if tolerance > 0 and not steps[0]:
                # A decision too: where rounding may have made it, both ways are followed.
                off, reach = abs(new - alpha) - tolerance, limit * (abs(new) + abs(alpha) + tolerance)
                steps = [step for step, may in ((True, off < reach), (False, off >= -reach)) if may]
            for done in steps:
                if not done:
                    todo.append((new, after, restarted or again, passed))
                    continue
                for last in _least(passed, limit) if best else [(0.0, codes, new, bound)]:
                    end = _end(values, *last[1:])
                    found[end.codes.tobytes(), end.alpha] = end
    return list(found.values())


_Pass = tuple[float, Int8Array, float, float]
"""‖V - G‖², codes, scale, and the size of the terms of the scale."""


def _pass(V: Float64Array, values: Float64Array, codes: Int8Array, alpha: float, bound: float) -> _Pass:
    return math.fsum(((V - alpha * values[codes]) ** 2).tolist()), codes, alpha, bound


def _least(passed: tuple[_Pass, ...], limit: float) -> list[_Pass]:
    # The first pass of least residual, and those that are as good but for rounding.
    least = min(one[0] for one in passed)
    reach = limit * max(one[0] for one in passed)
    return (
        [one for one in passed if one[0] <= least + reach] if limit else [min(passed, key=lambda one: one[0])]
    )


def _end(values: Float64Array, codes: Int8Array, alpha: float, bound: float) -> End:
    kept = values[codes].any() and alpha != 0
    return End(codes if kept else _zeros(codes, values), alpha if kept else 0.0, bound if kept else 0.0)


def _choices(
    V: Float64Array, alpha: float, values: Float64Array, ties: str, limit: float
) -> Iterator[Int8Array | None]:
    if not alpha > 0:
        yield np.full(len(V), int(np.argmin(np.abs(values))), dtype=np.int8)
        return
    codes, gap, other = _nearest(V, alpha, values, ties)
    near = np.flatnonzero((gap > 0) & (gap <= limit))
    if len(near) > MOST_NEAR:
        yield None
        return
    for flips in product((False, True), repeat=len(near)):
        chosen = codes.copy()
        taken = near[np.array(flips, dtype=bool)]
        chosen[taken] = other[taken]
        yield chosen.astype(np.int8)


def _scale(V: Float64Array, Q: Float64Array) -> tuple[float, float]:
    # α = VᵀQ/QᵀQ (17), not below 0, and the same of magnitudes.
    bottom = math.fsum((Q * Q).tolist())
    if bottom == 0:
        return 0.0, 0.0
    top = math.fsum((V * Q).tolist())
    return max(top, 0.0) / bottom, math.fsum(np.abs(V * Q).tolist()) / bottom


def _zeros(codes: Array, values: Array) -> Int8Array:
    return np.full(codes.shape, int(np.argmin(np.abs(values))), dtype=np.int8)


def margins(V: Float64Array, end: End, values: Float64Array) -> tuple[Float64Array, Array]:
    """Margins of the codes at the end of an alternation, and the codes that are right or nearly so."""
    if not end.alpha > 0:
        return np.full(len(V), np.inf), np.left_shift(1, end.codes.astype(np.int64))
    _, gap, other = _nearest(V, end.alpha, values, "smaller")
    return gap, np.left_shift(1, end.codes.astype(np.int64)) | np.left_shift(1, other.astype(np.int64))


def branch(inputs: Mapping[str, Any], answers: Mapping[str, Array], u: float) -> dict[str, Judgement] | None:
    """Judgements of α and G of a projection whose codes are not the expected ones; None if none leads there.

    Parameters
    ----------
    inputs : mapping
        Of the operation ``project``.
    answers : mapping
        `Q`, and `alpha` and `G` as far as they were answered.
    u : float
        Unit roundoff.
    """
    V = np.asarray(inputs["V"], dtype=np.float64).ravel()
    values = np.asarray(inputs["values"], dtype=np.float64)
    end = _taken(
        V,
        values,
        float(inputs["alpha0"]),
        answers["Q"].ravel(),
        kind=str(inputs["kind"]),
        most=int(inputs["passes"]),
        ties=str(inputs["ties"]),
        u=u,
    )
    if end is None:
        return None
    found = {}
    limit = 2.0 * (len(V) + 4)
    if "alpha" in answers:
        found["alpha"] = within(
            "alpha", answers["alpha"], np.asarray(end.alpha), np.asarray(end.bound), limit, u
        )
    if "G" in answers:
        G = (end.alpha * values[end.codes]).reshape(answers["G"].shape)
        bound = np.abs(values[end.codes]).reshape(G.shape) * end.bound + np.abs(G) / limit
        found["G"] = within("G", answers["G"], G, bound, limit, u)
    return found


def _taken(
    V: Float64Array,
    values: Float64Array,
    alpha0: float,
    codes: Array,
    *,
    kind: str,
    most: int,
    ties: str,
    u: float,
    tolerance: float = 0.0,
    best: bool = False,
) -> End | None:
    # The end of the alternation, or the global optimum, that has these codes; None if roundings lead to none.
    if np.any((codes < 0) | (codes >= len(values))):
        return None
    limit = decision_limit(len(V), u)
    alpha, bound = _scale(V, values[codes])
    own = End(codes.astype(np.int8), alpha, bound)
    if kind == "exact":
        return own if _optimal(V, values, own, u) else None
    reachable = ends(V, values, alpha0, most=most, ties=ties, limit=limit, tolerance=tolerance, best=best)
    if reachable is None:  # too many branches: any fixed point is as good
        right, gap, _ = _nearest(V, alpha, values, ties)
        return own if alpha > 0 and np.all((right == codes) | (gap <= limit)) else None
    return next((end for end in reachable if np.array_equal(end.codes, codes)), None)


def _optimal(V: Float64Array, values: Float64Array, own: End, u: float) -> bool:
    from refldnq.codebook import scaled
    from refldnq.projection import project

    best = project(V, scaled(values), method="exact")
    known, _ = _scale(V, values[best.codes])
    gains = [
        alpha**2 * float(values[codes] @ values[codes])
        for alpha, codes in ((known, best.codes), (own.alpha, own.codes))
    ]
    return bool(gains[1] >= gains[0] - 4 * (len(V) + 4) * u * float(V @ V))


# Certificate -------------------------------------------------------------------------------------------


def certificate(case: Case, answers: Mapping[str, Array], dtype: str) -> list[Judgement]:
    """Judge a trace by its own transitions, and say how it runs beside the expected one.

    Parameters
    ----------
    case : Case
        Of the operation ``admm``.
    answers : mapping
        Arrays of numbers of the right shapes, by name: the whole trace.
    dtype : {'float64', 'float32'}
        The declared type.

    Returns
    -------
    list of Judgement
        One for every answer of the case, in its order; that of `Q` is licensed if the codes are right and not
        the expected ones.
    """
    walk = _Walk(case, answers, unit_roundoff(dtype))
    found: dict[str, Judgement] = {}
    for judgement in walk.judgements():
        before = found.get(judgement.name)
        if before is None or (before.ok and (not judgement.ok or judgement.ratio > before.ratio)):
            found[judgement.name] = judgement
    free = free_run(case, answers, dtype)
    if free.at is not None and all(one.ok for one in found.values()):
        found["Q"] = replace(found["Q"], message=str(free), licensed=True)
    return [found[name] for name in case.outputs if name in found]


class _Walk:
    def __init__(self, case: Case, answers: Mapping[str, Array], u: float) -> None:
        self.case, self.u = case, u
        self.own = answers
        inputs = case.inputs
        self.H, self.W, self.G0, self.lam0 = (
            np.asarray(inputs[name], dtype=np.float64) for name in ("H", "W_bar", "G0", "lam0")
        )
        self.values = np.asarray(inputs["values"], dtype=np.float64)
        self.rho = float(inputs["rho"])
        self.K = len(answers["Theta"])
        self.rule = {**RULES, **{name: inputs[name] for name in RULES if name in inputs}}
        start = float(np.abs(self.W).mean()) if self.rule["alpha_start"] == "mean_w" else 0.0
        self.alpha0 = float(inputs.get("alpha0", 0.0)) or start
        # Roundings of a start that the implementation computes itself: of α, then of -H(G⁰ - W)/ρ.
        self.own_start = case.conventions.get("start", "projection") != "projection"
        self.loose = np.zeros_like(self.W)
        if case.conventions.get("start") == "guaranteed":
            size = np.abs(self.H) @ (np.abs(self.G0) + np.abs(self.W)) / self.rho
            self.loose = size * (len(self.H) + 2 * self.W.size + 12) / 4

    def point(self, k: int) -> Array:
        return self.G0 if k == 0 else self.own["G"][k - 1].astype(np.float64)

    def judgements(self) -> Iterator[Judgement]:
        own, u = self.own, self.u
        for k in range(self.K):
            G, lam = self.point(k), self.lam0 if k == 0 else own["lam"][k - 1].astype(np.float64)
            theta, V = own["Theta"][k].astype(np.float64), own["V"][k].astype(np.float64)
            where = {"H": self.H, "W_bar": self.W, "G": G, "lam": lam}
            yield _at(k, residual("Theta", theta, **where, rho=self.rho, u=u))
            loose = self.loose if k == 0 else 0.0
            yield _at(k, within("V", V, theta + lam, np.abs(theta) + np.abs(lam) + loose, 4.0, u))
            for columns in self.columns:
                yield from (_at(k, one) for one in self.projected(k, V, columns))
            new = own["G"][k].astype(np.float64)
            size = np.abs(lam) + np.abs(theta) + np.abs(new) + loose
            yield _at(k, within("lam", own["lam"][k], lam + theta - new, size, 4.0, u))  # [LDNQ] (18)
        yield from self.energies()
        yield from self.returned()

    @property
    def columns(self) -> list[slice]:
        # Those that share a scale: all, or each its own.
        if self.own["alpha"].ndim == 1:
            return [slice(None)]
        return [slice(o, o + 1) for o in range(self.W.shape[1])]

    def projected(self, k: int, V: Array, columns: slice) -> Iterator[Judgement]:
        kind = str(self.case.inputs.get("projection", "alternating"))
        cold = k == 0 or self.rule["restart"] == "cold"
        scale = self.own["alpha"].reshape(self.K, -1)[:, columns]
        alpha0 = self.alpha0 if cold else float(scale[k - 1, 0])
        V, codes, G = V[:, columns], self.own["Q"][k][:, columns], self.own["G"][k][:, columns]
        end = _taken(
            V.ravel(),
            self.values,
            alpha0,
            codes.ravel(),
            kind=kind,
            most=int(self.rule["passes"]),
            ties=str(self.rule["ties"]),
            u=self.u,
            tolerance=float(self.rule["alpha_tolerance"]),
            best=self.rule["kept_pass"] == "best",
        )
        if end is None:
            yield self.astray(V, alpha0, codes, kind)
            return
        yield Judgement(name="Q", ok=True)
        limit = 2.0 * (V.size + 4)
        want = (end.alpha * self.values[codes]).reshape(V.shape)
        bound = end.bound * np.abs(self.values[codes]) + np.abs(want) / limit
        found = np.asarray(scale[k, 0])
        yield within("alpha", found, np.asarray(end.alpha), np.asarray(end.bound), limit, self.u)
        yield within("G", G, want, bound, limit, self.u)

    def astray(self, V: Array, alpha0: float, codes: Array, kind: str) -> Judgement:
        message = "Q: codes that no projection of V gives"
        right = None
        if kind != "exact":
            right = ends(
                V.ravel(),
                self.values,
                alpha0,
                most=int(self.rule["passes"]),
                ties=str(self.rule["ties"]),
                tolerance=float(self.rule["alpha_tolerance"]),
                best=self.rule["kept_pass"] == "best",
            )
        if right and not np.array_equal(right[0].codes, codes.ravel()):
            want = right[0].codes.reshape(codes.shape)
            at = tuple(int(i) for i in np.argwhere(codes != want)[0])
            message = f"Q{list(at)}: got code {codes[at]}, want {want[at]} from its own V"
        return Judgement(name="Q", ok=False, message=message, ratio=math.inf)

    def energies(self) -> Iterator[Judgement]:
        for k, energy in enumerate(self.own["E"]):
            f, bound = quadratic(self.H, self.W, self.point(k))
            yield _at(
                k,
                within(
                    "E", np.asarray(energy), np.asarray(f), np.asarray(bound), quadratic_limit(self.W), self.u
                ),
            )

    def returned(self) -> Iterator[Judgement]:
        E, best = self.own["E"].astype(np.float64), int(self.own["best"])
        if not 0 <= best < len(E):
            yield Judgement(
                name="best", ok=False, message=f"best: must be from 0 to {len(E) - 1}, got {best}"
            )
            return
        yield self.stopped(E, best) if self.rule["stop"] == "ascend3" else self.least(E, best)
        if self.rule["stop"] != "ascend3":
            yield self.rested(len(E) - 1)
        chosen = best if str(self.case.inputs.get("returned", "best")) == "best" else self.K
        G = self.point(chosen)
        if self.rule["refit"]:
            yield self.refitted(G)
            return
        limit = 2.0 * (G.size + 4) if self.own_start and chosen == 0 else 1.0
        yield within("result", self.own["result"], G, np.abs(G), limit, self.u)

    def slack(self, k: int) -> float:
        # What roundings may do to the objective of point k.
        return quadratic_limit(self.W) * self.u * quadratic(self.H, self.W, self.point(k))[1]

    def least(self, E: Float64Array, best: int) -> Judgement:
        # A decision: it is free where the objectives differ by less than their own errors; the same point
        # twice has one objective, and the first counts.
        first = next(k for k in range(best + 1) if np.array_equal(self.point(k), self.point(best)))
        ok = bool(E[best] - np.min(E) <= 2 * self.slack(best)) and first == best
        want = int(np.argmin(E)) if first == best else first
        return Judgement(
            name="best", ok=ok, message="" if ok else f"best: got {best}, want {want} of its own E"
        )

    def stopped(self, E: Float64Array, best: int) -> Judgement:
        # Decisions: an iteration improves on the best by more than 1e-3 or not; where rounding may decide,
        # both are followed. States are the best so far and the iterations since.
        states, limit = {(0, 0)}, float(LEAST_GAIN)
        slacks = [2 * self.slack(k) for k in range(len(E))]
        for k in range(1, len(E)):
            new: set[tuple[int, int]] = set()
            for kept, idle in states:
                gain = 2 * (E[kept] - E[k]) - limit
                if gain > -(slacks[kept] + slacks[k]):
                    new.add((k, 0))
                if gain <= slacks[kept] + slacks[k]:
                    new.add((kept, idle + 1))
            last = k == len(E) - 1
            states = {one for one in new if last or one[1] < PATIENCE}
            if not states:
                return Judgement(
                    name="best", ok=False, message=f"E: must end after iteration {k}, of its own E"
                )
        if self.K < self.most:
            states = {one for one in states if one[1] >= PATIENCE}
            if not states:
                return Judgement(name="best", ok=False, message=f"best: E must not end with {self.K}")
        wanted = sorted(kept for kept, _ in states)
        message = "" if best in wanted else f"best: got {best}, want {wanted[0]} of its own E"
        return Judgement(name="best", ok=not message, message=message)

    @property
    def most(self) -> int:
        return int(self.case.inputs["K"])

    def rested(self, count: int) -> Judgement:
        # Whether the run ends where it should: at a point that stays, or after all iterations.
        if self.rule["stop"] == "none":
            return Judgement(name="E", ok=True)
        size, share = float(np.linalg.norm(self.W)), float(STILL)
        for k in range(count):
            theta, G = self.own["Theta"][k].astype(np.float64), self.point(k + 1)
            moved = max(float(np.linalg.norm(theta - G)), float(np.linalg.norm(G - self.point(k))))
            reach = 4 * self.u * float(np.linalg.norm(theta) + 2 * np.linalg.norm(G))
            if moved <= share * size - reach and k + 1 < count:
                return Judgement(
                    name="E", ok=False, message=f"E: must end after iteration {k + 1}, a fixed point"
                )
            if k + 1 == count < self.most and not moved <= share * size + reach:
                return Judgement(name="E", ok=False, message=f"E: must not end after iteration {count}")
        return Judgement(name="E", ok=True)

    def refitted(self, G: Array) -> Judgement:
        # The point with the scale that is best in the norm of H.
        top, bottom = (math.fsum((G * (self.H @ other)).ravel().tolist()) for other in (self.W, G))
        sizes = [float((np.abs(G) * (np.abs(self.H) @ np.abs(other))).sum()) for other in (self.W, G)]
        factor = max(top, 0.0) / bottom if bottom > 0 else 1.0
        terms = (sizes[0] + factor * sizes[1]) / bottom if bottom > 0 else 0.0
        bound = np.abs(G) * (terms + factor)
        return within("result", self.own["result"], G * factor, bound, quadratic_limit(self.W), self.u)


def _at(k: int, found: Judgement) -> Judgement:
    return found if found.ok else replace(found, message=f"iteration {k}, {found.message}")


def expected(case: Case, answers: Mapping[str, Any]) -> Mapping[str, Any]:
    """The right answers, as long as the candidate's own run if a rule decides when it stops.

    How many iterations there are is then a decision of its own, which the certificate judges.

    Examples
    --------
    >>> from refldnq.verify.kit.cases import all_cases
    >>> case = next(one for one in all_cases() if one.op == "admm" and one.error is None)
    >>> expected(case, {}) is case.outputs
    True
    """
    if case.op != "admm" or case.inputs.get("stop", "none") == "none":
        return case.outputs
    try:
        rows = (*np.shape(answers.get("Q", ())), 0)[0]
    except ValueError:  # rows of different lengths: the rules will say so
        return case.outputs
    if not 0 < rows <= int(case.inputs["K"]):
        return case.outputs
    return {
        name: value
        if name in ("best", "result")
        else np.resize(value, (rows + (name == "E"), *np.shape(value)[1:]))
        for name, value in case.outputs.items()
    }


# Teacher-forced ----------------------------------------------------------------------------------------


def steps(case: Case) -> tuple[Case, ...]:
    """The steps of the expected trajectory as cases: proximal, project and dual of each iteration.

    Parameters
    ----------
    case : Case
        Of the operation ``admm``.

    Returns
    -------
    tuple of Case
        Inputs are the expected states rounded to float64, and so the right answers are off by as much.
    """
    return tuple(_steps(case))


def _steps(case: Case) -> Iterator[Case]:
    inputs, right = case.inputs, {name: np.asarray(value) for name, value in case.outputs.items()}
    G, lam = np.asarray(inputs["G0"]), np.asarray(inputs["lam0"])
    rule = {**RULES, **{name: inputs[name] for name in RULES if name in inputs}}
    start = float(np.abs(np.asarray(inputs["W_bar"])).mean()) if rule["alpha_start"] == "mean_w" else 0.0
    first = alpha = float(inputs.get("alpha0", 0.0)) or start
    asked = {name: rule[name] for name in ("passes", "ties")} | {
        "kind": inputs.get("projection", "alternating")
    }
    projects = not rule["alpha_tolerance"] and rule["kept_pass"] == "last"  # else it cannot be asked for
    name = case.id.partition("/")[2]
    for k in range(len(right["Theta"])):
        theta, V, new = right["Theta"][k], right["V"][k], right["G"][k]
        common: dict[str, Any] = {
            "comment": f"iteration {k} of {case.id}",
            "tier": case.tier,
            "certified": case.certified,
            "kappa": case.kappa,
            "scored": False,
        }
        yield Case(
            op="proximal",
            id=f"proximal/{name}-{k}",
            inputs={"H": inputs["H"], "W_bar": inputs["W_bar"], "G": G, "lam": lam, "rho": inputs["rho"]},
            outputs={"Theta": theta},
            compare={"Theta": "backward"},
            **common,
        )
        if projects:
            yield Case(
                op="project",
                id=f"project/{name}-{k}",
                inputs={"V": V.ravel(), "values": inputs["values"], "alpha0": alpha, **asked},
                outputs={"Q": right["Q"][k].ravel(), "alpha": right["alpha"][k], "G": new.ravel()},
                compare={"Q": "code", "alpha": "dot", "G": "dot"},
                bound={"alpha": case.bound["alpha"][k], "G": np.ravel(case.bound["G"][k])},
                # An exact optimum may have two names, 2α{0, ±1} and α{0, ±2}: it is judged by its worth.
                margin={"Q": np.ravel(case.margin["Q"][k]) * (asked["kind"] != "exact")},
                allowed={"Q": np.ravel(case.allowed["Q"][k])},
                **common,
            )
        yield Case(
            op="dual",
            id=f"dual/{name}-{k}",
            inputs={"lam": lam, "Theta": theta, "G": new},
            outputs={"lam_new": lam + theta - new},
            compare={"lam_new": "ulp"},
            bound={"lam_new": np.abs(lam) + np.abs(theta) + np.abs(new)},
            **common,
        )
        G, lam = new, right["lam"][k]
        alpha = first if rule["restart"] == "cold" else float(right["alpha"][k])


def teacher_forced(case: Case, ask: Ask, dtype: str) -> list[Judgement]:
    """Ask an implementation for each step from the expected state before it.

    Parameters
    ----------
    case : Case
        Of the operation ``admm``.
    ask : callable
        The implementation's answers to a case of ``proximal``, ``project`` or ``dual``.
    dtype : {'float64', 'float32'}
        The declared type.

    Returns
    -------
    list of Judgement
        Of all steps in order; the name begins with the id of the step.

    Examples
    --------
    >>> from refldnq.verify.kit.cases import all_cases
    >>> from refldnq.verify.kit.reference import Reference
    >>> own = Reference()
    >>> case = next(one for one in all_cases() if one.op == "admm" and one.error is None)
    >>> answer = lambda step: getattr(own, step.op)(**step.inputs)
    >>> all(one.ok for one in teacher_forced(case, answer, "float64"))
    True
    """
    return [
        replace(found, name=f"{step.id}: {found.name}")
        for step in steps(case)
        for found in judge(step, ask(step) or {}, dtype)
    ]


# Free run ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class FreeRun:
    """A trajectory beside the expected one.

    Parameters
    ----------
    at : tuple of int or None
        Iteration, row and column of the first code that differs; None if none does.
    margin : float
        The expected run's margin there.
    licensed : bool
        Whether rounding explains it: the margin is below `rules.decision_limit`, or the states before differ
        by more than the margin.
    objective, expected : float
        The least objectives of both.
    """

    at: tuple[int, ...] | None
    margin: float
    licensed: bool
    objective: float
    expected: float

    def __str__(self) -> str:
        if self.at is None:
            return f"Q: the expected codes; objective {self.objective:.6g}, expected {self.expected:.6g}"
        k, *entry = self.at
        word = "licensed" if self.licensed else "not explained by it"
        return (
            f"Q: another branch from iteration {k}, code {entry}, margin {self.margin:.2g} ({word}); "
            f"objective {self.objective:.6g}, expected {self.expected:.6g}"
        )


def verdicts(
    case: Case, answers: Mapping[str, Any], certified: bool, ask: Ask | None, dtype: str
) -> dict[str, str]:
    """The three verdicts on a trajectory, each a word before a colon and what it rests on.

    Parameters
    ----------
    case : Case
        Of the operation ``admm``.
    answers : mapping
        What was answered.
    certified : bool
        Whether every transition is right from the implementation's own state: the verdict that counts.
    ask : callable or None
        The implementation's answers to single steps, None for those that it does not have; None if nothing
        can be asked.
    dtype : {'float64', 'float32'}
        The declared type.

    Returns
    -------
    dict of str to str
        By ``certificate``, ``teacher-forced`` and ``free run``.
    """
    found = {"certificate": "pass" if certified else "FAIL"}
    if ask is not None:
        found["teacher-forced"] = _forced(case, ask, dtype)
    try:
        readable = {name: read(name, answers, want) for name, want in expected(case, answers).items()}
    except UnusableError as problem:
        return {**found, "free run": f"not comparable: {problem}"}
    free = free_run(case, readable, dtype)
    word = "the expected codes" if free.at is None else "licensed branch" if free.licensed else "other codes"
    return {**found, "free run": word if free.at is None else f"{word}: {free}"}


def _forced(case: Case, ask: Ask, dtype: str) -> str:
    judged = 0
    for step in steps(case):
        try:
            answers = ask(step)
        except (Exception, SystemExit) as error:
            return f"FAIL: {step.comment}, {step.op} raised {type(error).__name__}"
        if answers is None:
            continue
        for one in judge(step, answers, dtype):
            judged += 1
            if not one.ok:
                return f"FAIL: {step.comment}, {step.op}: {one}"
    return "pass" if judged else "not asked"


def free_run(case: Case, answers: Mapping[str, Array], dtype: str) -> FreeRun:
    """Compare a trajectory with the expected one; a matter of information.

    Parameters
    ----------
    case : Case
        Of the operation ``admm``.
    answers : mapping
        Its trace.
    dtype : {'float64', 'float32'}
        The declared type.

    Returns
    -------
    FreeRun
    """
    rows = min(len(answers["Q"]), len(case.outputs["Q"]))
    differs = np.argwhere(np.asarray(answers["Q"])[:rows] != np.asarray(case.outputs["Q"])[:rows])
    objective, expected = (float(np.min(np.asarray(one["E"]))) for one in (answers, case.outputs))
    if not len(differs):
        return FreeRun(at=None, margin=math.inf, licensed=False, objective=objective, expected=expected)
    at = tuple(int(i) for i in differs[0])
    margin = float(np.min(np.asarray(case.margin["Q"])[at[0]]))
    want = np.asarray(case.outputs["V"])[at[0]]
    drift = float(np.max(np.abs(np.asarray(answers["V"])[at[0]] - want)) / (np.max(np.abs(want)) or 1.0))
    reach = max(decision_limit(want.size, unit_roundoff(dtype)), drift)
    return FreeRun(at=at, margin=margin, licensed=margin <= reach, objective=objective, expected=expected)
