"""Quantizer steps of the baselines in rational arithmetic, and how near every decision was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from refldnq._typing import Array
from refldnq.verify.kit.families import _exact
from refldnq.verify.kit.families._numbers import fractions
from refldnq.verify.kit.families._problems import POWERS

Inputs = Mapping[str, Any]
HALF = Fraction(1, 2)


@dataclass(kw_only=True)
class Answered:
    """Answers of one step, as a `Case` has them, and the relative margins of its decisions.

    Sizes that `bound` says are those of the terms times a quarter of the roundings, as ``ulp`` compares.
    """

    outputs: dict[str, Any] = field(default_factory=dict)
    compare: dict[str, str] = field(default_factory=dict)
    bound: dict[str, Any] = field(default_factory=dict)
    margins: list[float] = field(default_factory=list)

    def codes(self, name: str, codes: Any, kind: Any = np.int8) -> None:
        """An answer compared by its margin."""
        self.outputs[name], self.compare[name] = np.array(codes, dtype=kind), "code"

    def same(self, name: str, value: Any) -> None:
        """An answer that does not round."""
        self.outputs[name], self.compare[name] = np.asarray(value), "exact"

    def number(self, name: str, value: Any, bound: Any) -> None:
        """An answer of fractions that rounds."""
        self.outputs[name], self.compare[name] = np.array(value, dtype=object), "ulp"
        self.bound[name] = np.array(bound, dtype=object)

    def decided(self, got: Any, threshold: Any) -> None:
        """Something was compared with a threshold."""
        sizes = max(abs(got), abs(threshold))
        self.margins.append(float(abs(got - threshold) / sizes) if sizes else 0.0)

    def rounded(self, y: Fraction) -> int:
        """The nearest integer; of two the even one."""
        self.decided(y, (y.numerator // y.denominator) + HALF)
        return round(y)

    @property
    def margin(self) -> float:
        """The least of all."""
        return min(self.margins, default=float("inf"))


def answer(inputs: Inputs) -> Answered:
    """The step of a method, in fractions.

    Examples
    --------
    >>> found = answer({"method": "dq-affine", "W": np.array([-1.0, 0.25, 3.0]), "levels": 5})
    >>> found.outputs["Q"].tolist(), int(found.outputs["zero"]), str(found.outputs["alpha"])
    ([0, 1, 4], 1, '1')
    """
    steps: Mapping[str, Callable[[Inputs], Answered]] = {
        "dq-affine": _affine,
        "vq-exact": _clusters,
        "exnn": _exnn,
        "ttq": _ttq,
        "inq": _inq,
        "lata": _lata,
        "late": _late,
        "lat-two-scale": _two_scales,
        "trn": _residuals,
        "distilquant": _buckets,
    }
    return steps[str(inputs["method"])](inputs)


def _affine(inputs: Inputs) -> Answered:
    found, w, L = Answered(), fractions(inputs["W"]), int(inputs["levels"])
    low, high = min(0, *w), max(0, *w)
    S = Fraction(high - low) / (L - 1)
    Z = found.rounded(-low / S) if S else 0
    q = [min(max(found.rounded(x / S) + Z, 0), L - 1) if S else 0 for x in w]
    found.codes("Q", q)
    found.codes("zero", Z, np.int64)
    found.number("alpha", S, S)
    G = np.array([S * (code - Z) for code in q], dtype=object)
    found.number("G", G, 2 * abs(G))
    return found


def _clusters(inputs: Inputs) -> Answered:
    found, w = Answered(), fractions(inputs["W"])
    distinct = sorted(set(w))
    k = min(int(inputs["levels"]), len(distinct))
    tried = []
    for cuts in combinations(range(1, len(distinct)), k - 1):
        parts = [
            [x for x in sorted(w) if distinct[a] <= x <= distinct[b - 1]]
            for a, b in pairwise((0, *cuts, len(distinct)))
        ]
        means = [Fraction(sum(part)) / len(part) for part in parts]
        cost = sum((x - mean) ** 2 for part, mean in zip(parts, means, strict=True) for x in part)
        tried.append((cost, means, [part[-1] for part in parts], [len(part) for part in parts]))
    tried.sort(key=lambda one: one[0])
    if len(tried) > 1:  # costs are as near as their sums round
        found.margins.append(float((tried[1][0] - tried[0][0]) / sum(x * x for x in w)))
    _, means, ends, counts = tried[0]
    q = [next(i for i, end in enumerate(ends) if x <= end) for x in w]
    bound = [sum(abs(w)) * Fraction(len(w) + 4, 4 * count) for count in counts]
    found.codes("Q", q)
    found.number("values", means, bound)
    found.number("G", [means[i] for i in q], [bound[i] for i in q])
    return found


def _exnn(inputs: Inputs) -> Answered:
    values = POWERS[int(inputs["levels"])]
    V = np.asarray(inputs["W"]) + np.asarray(inputs["lam"])
    given = {"V": V, "values": values, "alpha0": 0.0, "kind": "alternating", "passes": -1, "ties": "smaller"}
    point, found = _exact.project(given), Answered()
    found.margins += [float(np.min(margin)) for margin in point.margin.values()]
    # α is a quotient of two sums of n terms: twice n + 4 roundings, one more of G.
    bound = point.bound["alpha"].item() * Fraction(2 * len(V) + 9, 4)
    codes = point.outputs["Q"]
    found.codes("Q", codes)
    found.number("alpha", point.outputs["alpha"], bound)
    found.number("G", point.outputs["G"], abs(fractions(values)[codes]) * bound)
    return found


def _ttq(inputs: Inputs) -> Answered:
    found, w, g = Answered(), fractions(inputs["W"]), fractions(inputs["g"])
    positive, negative = (Fraction(inputs[name]) for name in ("positive", "negative"))
    delta = Fraction(inputs["threshold"]) * max(abs(x) for x in w)
    for x in w:
        found.decided(abs(x), delta)
    q = [1 + (x > delta) - (x < -delta) for x in w]
    found.codes("Q", q)
    found.same("G", np.array([float((-negative, Fraction(0), positive)[code]) for code in q]))
    dW = np.array([x * (negative, 1, positive)[code] for x, code in zip(g, q, strict=True)], dtype=object)
    found.number("dW", dW, abs(dW))
    for name, wanted, sign in (("dpositive", 2, 1), ("dnegative", 0, -1)):
        terms = [x for x, code in zip(g, q, strict=True) if code == wanted]
        size = sum((abs(x) for x in terms), start=Fraction(0)) * Fraction(len(w) + 4, 4)
        found.number(name, sign * sum(terms, start=Fraction(0)), size)
    return found


def _inq(inputs: Inputs) -> Answered:
    found, w, L = Answered(), fractions(inputs["W"]), int(inputs["levels"])
    s = max(abs(x) for x in w)
    magnitudes = [Fraction(0)]
    if s:
        n1 = 0
        while Fraction(2) ** (n1 + 1) <= Fraction(4, 3) * s:
            n1 += 1
        while Fraction(2) ** n1 > Fraction(4, 3) * s:
            n1 -= 1
        for n in (n1, n1 + 1):
            found.decided(Fraction(4, 3) * s, Fraction(2) ** n)
        magnitudes += [Fraction(2) ** n for n in range(n1 - (L - 3) // 2, n1 + 1)]
    zero, halves = len(magnitudes) - 1, [(a + b) / 2 for a, b in pairwise(magnitudes)]
    q = []
    for x in w:
        step = sum(abs(x) >= half for half in halves)  # ties upward
        found.margins += [float(abs(abs(x) - half) / half) for half in halves]
        q.append(zero + (step if x >= 0 else -step))
    values = [-m for m in magnitudes[:0:-1]] + magnitudes
    found.codes("Q", q)
    found.same("values", np.array([float(value) for value in values]))
    found.same("G", np.array([float(values[code]) for code in q]))
    frozen = np.asarray(inputs["frozen"]).astype(bool)
    wanted = round(Fraction(inputs["portion"]) * len(w)) - int(frozen.sum())
    free = sorted((i for i in range(len(w)) if not frozen[i]), key=lambda i: -abs(w[i]))
    mask = frozen.astype(np.int8)
    mask[free[: max(wanted, 0)]] = 1
    if 0 < wanted < len(free):
        found.decided(abs(w[free[wanted - 1]]), abs(w[free[wanted]]))
    found.same("mask", mask)
    return found


def _lata(inputs: Inputs) -> Answered:
    found, w, D = Answered(), fractions(inputs["W"]), fractions(inputs["D"])
    alpha, threshold = Fraction(0), Fraction(0.7) * sum(abs(w)) / len(w)
    chosen: list[bool] = []
    for _ in range(int(inputs["passes"])):
        chosen = _above(found, w, threshold)
        last, alpha = alpha, _scale(w, D, chosen)
        threshold = alpha / 2
        if abs(alpha - last) < Fraction(inputs["tolerance"]):
            break
    _scaled(found, w, _above(found, w, threshold), [alpha], len(w))
    return found


def _above(found: Answered, w: Array, threshold: Fraction) -> list[bool]:
    for x in w:
        found.decided(abs(x), threshold)
    return [bool(abs(x) > threshold) for x in w]


def _scale(w: Array, D: Array, chosen: Sequence[bool]) -> Fraction:
    kept = [(abs(x), c) for x, c, one in zip(w, D, chosen, strict=True) if one]
    mass = sum(c for _, c in kept)
    return Fraction(sum(x * c for x, c in kept)) / mass if mass else Fraction(0)


def _scaled(found: Answered, w: Array, chosen: Sequence[bool], scales: Sequence[Fraction], n: int) -> None:
    # Codes, one scale or two, G; a scale is a quotient of sums without cancellation.
    q = [1 + (int(x > 0) - int(x < 0)) * one for x, one in zip(w, chosen, strict=True)]
    roundings = Fraction(2 * n + 9, 4)
    by_code = (-scales[-1], Fraction(0), scales[0])
    G = np.array([by_code[code] for code in q], dtype=object)
    found.codes("Q", q)
    alpha = fractions(scales if len(scales) > 1 else scales[0])
    found.number("alpha", alpha, alpha * roundings)
    found.number("G", G, [size * roundings for size in abs(G)])


def _least(found: Answered, w: Array, D: Array) -> tuple[Fraction, list[bool]]:
    # LATe by its definition: every feasible prefix of the sorted magnitudes.
    order = sorted(range(len(w)), key=lambda i: -abs(w[i]))
    tried = []
    for j in range(1, len(w) + 1):
        first = set(order[:j])
        chosen = [i in first for i in range(len(w))]
        s = _scale(w, D, chosen) / 2
        below = abs(w[order[j]]) if j < len(w) else Fraction(0)
        if abs(w[order[j - 1]]) > s > below:
            mass = sum(D[i] for i in first)
            tried.append((s * s * mass, s, chosen, (abs(w[order[j - 1]]), below)))
    if not tried:
        return Fraction(0), [False] * len(w)
    tried.sort(key=lambda one: -one[0])
    if len(tried) > 1:
        found.decided(tried[0][0], tried[1][0])
    _, s, chosen, around = tried[0]
    for magnitude in around:
        found.decided(magnitude, s)
    return 2 * s, chosen


def _late(inputs: Inputs) -> Answered:
    found, w, D = Answered(), fractions(inputs["W"]), fractions(inputs["D"])
    alpha, chosen = _least(found, w, D)
    _scaled(found, w, chosen, [alpha], len(w))
    return found


def _two_scales(inputs: Inputs) -> Answered:
    found, w, D = Answered(), fractions(inputs["W"]), fractions(inputs["D"])
    positive, above = _least(found, np.maximum(w, 0), D)
    negative, below = _least(found, np.minimum(w, 0), D)
    chosen = [a or b for a, b in zip(above, below, strict=True)]
    _scaled(found, w, chosen, [positive, negative], len(w))
    return found


def _residuals(inputs: Inputs) -> Answered:
    found, W = Answered(), np.asarray(inputs["W"])
    G, bound = (np.full(W.shape, Fraction(0), dtype=object) for _ in range(2))
    terms = np.zeros(W.shape, dtype=np.int64)
    for at in _blocks(W.shape, int(inputs["block"])):
        r = w = fractions(np.array([W[i] for i in at]))
        limit = Fraction(inputs["tolerance"]) ** 2 * sum(x * x for x in w)
        count = 0
        while count < int(inputs["max_terms"]):
            if limit:
                found.decided(sum(x * x for x in r), limit)
            if not sum(x * x for x in r) > limit:
                break
            r, count = r - _nearest(found, r), count + 1
        size = max(abs(x) for x in w) * Fraction(2 * len(w) + 9, 4) * 2**count
        for i, x, rest in zip(at, w, r, strict=True):
            G[i], bound[i], terms[i] = x - rest, size, count
    found.number("G", G, bound)
    found.codes("terms", terms, np.int64)
    return found


def _blocks(shape: tuple[int, ...], size: int) -> Iterator[list[tuple[int, ...]]]:
    m, c, kh, kw = shape
    for o, i, j in np.ndindex(m, kh, kw):
        for first in range(0, c, size):
            yield [(o, channel, i, j) for channel in range(first, min(first + size, c))]


def _nearest(found: Answered, r: Array) -> Array:
    # FGQ of one block: the threshold of the greatest (Σ|v|)²/#, its mean and signs.
    tried = []
    for threshold in {Fraction(0), *(abs(x) for x in r)}:
        kept = [abs(x) for x in r if abs(x) > threshold]
        if kept:
            tried.append((Fraction(sum(kept) ** 2) / len(kept), threshold, Fraction(sum(kept)) / len(kept)))
    tried.sort(key=lambda one: -one[0])
    if len(tried) > 1:
        found.decided(tried[0][0], tried[1][0])
    _, threshold, alpha = tried[0]
    return np.array([alpha * (int(x > threshold) - int(x < -threshold)) for x in r], dtype=object)


def _buckets(inputs: Inputs) -> Answered:
    found, w, s = Answered(), fractions(inputs["W"]), int(inputs["levels"])
    size = int(inputs["bucket"])
    G, bound = [], []
    for first in range(0, len(w), size):
        part = w[first : first + size]
        low, scale = min(part), max(part) - min(part)
        scale = scale if scale >= Fraction(1e-10) else Fraction(1)
        for x in part:
            G.append(Fraction(found.rounded((x - low) / scale * (s - 1)), s - 1) * scale + low)
            bound.append(2 * (abs(low) + scale))
    found.number("G", G, bound)
    return found
