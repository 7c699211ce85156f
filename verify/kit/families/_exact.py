"""All operations in rational arithmetic: the first channel, and where the right answers come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np

from refldnq._typing import Array
from refldnq.verify.kit.contract import geometry, kernel_shape
from refldnq.verify.kit.families._numbers import fractions

Inputs = Mapping[str, Any]

NEAREST_RIVAL = Fraction(1, 512)
"""A global optimum must be better than the next best by this share of ‖V‖² (chosen here: far above what
float32 can confuse)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exact:
    """Answers of one operation, all entries fractions or integers, and what `Case` says of each."""

    outputs: Mapping[str, Array]
    compare: Mapping[str, str]
    bound: Mapping[str, Array] = field(default_factory=dict)
    margin: Mapping[str, Array] = field(default_factory=dict)
    allowed: Mapping[str, Array] = field(default_factory=dict)
    kappa: float = 1.0
    trace: Mapping[str, Array] = field(default_factory=dict)


def solve(op: str, inputs: Inputs) -> Exact:
    """The answers to one question.

    Examples
    --------
    >>> given = {"lam": np.array([0.5]), "Theta": np.array([1.0]), "G": np.array([2.0])}
    >>> solve("dual", given).outputs["lam_new"]
    array([Fraction(-1, 2)], dtype=object)
    """
    operations = {
        "patches": patches,
        "hessian": hessian,
        "pack": pack,
        "proximal": proximal,
        "project": project,
        "dual": dual,
        "admm": admm,
    }
    return operations[op](inputs)


# Patches, Hessian, packing -----------------------------------------------------------------------------


def patches(inputs: Inputs) -> Exact:
    """Patches (n, P, g, d), gathered by an array of places in the padded images.

    Entry (c, i, j) under position (p, q) is the pixel (p sh + i dh - top, q sw + j dw - left) of channel c.
    """
    return Exact(outputs={"patches": _rows(inputs)}, compare={"patches": "exact"})


def _rows(inputs: Inputs) -> Array:
    X = np.asarray(inputs["X"], dtype=np.float64)
    X = X[:, :, None, None] if X.ndim == 2 else X
    per_group, kh, kw = kernel_shape(inputs)
    _, stride, (top, bottom, left, right), dilation = geometry(inputs)
    n, channels, h, w = X.shape
    height, width = h + top + bottom, w + left + right
    padded = np.zeros((n, channels, height, width))
    padded[:, :, top : top + h, left : left + w] = X
    ho = (height - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    wo = (width - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    p, q, c, i, j = np.ogrid[:ho, :wo, :channels, :kh, :kw]
    places = (c * height + p * stride[0] + i * dilation[0]) * width + q * stride[1] + j * dilation[1]
    rows = padded.reshape(n, -1)[:, places.ravel()]
    rows = rows.reshape(n, ho * wo, channels // per_group, per_group * kh * kw)
    if not inputs["bias"]:
        return rows
    return np.concatenate([rows, np.ones((*rows.shape[:3], 1))], axis=3)


def hessian(inputs: Inputs) -> Exact:
    """(2/n) Σ x xᵀ in integers, and the same sum of magnitudes as its bound."""
    rows = _rows(inputs)
    n, groups = rows.shape[0], rows.shape[2]
    integers, denominator = _integers(rows.reshape(-1, *rows.shape[2:]))
    factor = Fraction(2, n * denominator**2)
    found = {}
    for name, part in (("H", integers), ("bound", abs(integers))):
        sums = np.stack([part[:, g].T @ part[:, g] for g in range(groups)])
        found[name] = np.asarray(sums, dtype=object) * factor  # [LDNQ] (10)
    return Exact(outputs={"H": found["H"]}, compare={"H": "dot"}, bound={"H": found["bound"]})


def _integers(array: Array) -> tuple[Array, int]:
    exact = fractions(array)
    denominator = max(value.denominator for value in exact.ravel())  # all are powers of two
    integers = np.empty(exact.shape, dtype=object)
    integers.ravel()[:] = [int(value * denominator) for value in exact.ravel()]
    return integers, denominator


def pack(inputs: Inputs) -> Exact:
    """W[g, r, o] = weight[g m + o] at place r of (c, kh, kw); the bias is the last row."""
    weight, bias, groups = np.asarray(inputs["weight"]), np.asarray(inputs["bias"]), int(inputs["groups"])
    units, size = weight.shape[0] // groups, int(np.prod(weight.shape[1:]))
    W = np.empty((groups, size + (bias.size > 0), units))
    for g, r, o in np.ndindex(groups, size, units):
        W[g, r, o] = weight[(g * units + o, *np.unravel_index(r, weight.shape[1:]))]
    if bias.size:
        W[:, size] = bias.reshape(groups, units)
    return Exact(outputs={"W": W}, compare={"W": "exact"})


# The three steps of ADMM -------------------------------------------------------------------------------


def inverse(A: Array) -> Array:
    """The inverse of a matrix of fractions, by elimination.

    Raises
    ------
    ZeroDivisionError
        If it is singular.

    Examples
    --------
    >>> inverse(fractions(np.array([[2.0, 1.0], [1.0, 1.0]]))).tolist()
    [[Fraction(1, 1), Fraction(-1, 1)], [Fraction(-1, 1), Fraction(2, 1)]]
    """
    d = len(A)
    work = np.concatenate([A, fractions(np.eye(d))], axis=1)
    for k in range(d):
        pivot = next((i for i in range(k, d) if work[i, k] != 0), k)
        work[[k, pivot]] = work[[pivot, k]]
        work[k] = work[k] / work[k, k]
        for i in range(d):
            if i != k and work[i, k] != 0:
                work[i] = work[i] - work[i, k] * work[k]
    return work[:, d:]


def proximal(inputs: Inputs) -> Exact:
    """(H + ρI)⁻¹ (H W̄ + ρ(G - λ)), and the condition number in the norm of largest row sums."""
    H, W, G, lam = (fractions(inputs[name]) for name in ("H", "W_bar", "G", "lam"))
    rho = Fraction(inputs["rho"])
    A = H + rho * fractions(np.eye(len(H)))
    back = inverse(A)
    theta = back @ (H @ W + rho * (G - lam))  # [LDNQ] (15)
    return Exact(outputs={"Theta": theta}, compare={"Theta": "backward"}, kappa=_condition(A, back))


def _condition(A: Array, back: Array) -> float:
    # To two digits: more are of no use.
    return float(f"{float(abs(A).sum(axis=1).max() * abs(back).sum(axis=1).max()):.1e}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A projection: codes, scale, number of updates, what rounding does to the scale, and margins."""

    codes: Array
    alpha: Fraction
    passes: int
    bound: Fraction
    margin: Array
    allowed: Array


def project(inputs: Inputs) -> Exact:
    """The alternation of (17), or its global optimum."""
    V, values = fractions(inputs["V"]).ravel(), fractions(inputs["values"])
    if inputs["kind"] == "exact":
        point = optimum(V, values, inputs["ties"])
    else:
        point = alternate(V, values, Fraction(inputs["alpha0"]), int(inputs["passes"]), inputs["ties"])
    Q = values[point.codes]
    outputs: dict[str, Any] = {"Q": point.codes, "alpha": np.array(point.alpha, dtype=object)}
    outputs["G"] = point.alpha * Q
    compare = {"Q": "code", "alpha": "dot", "G": "dot"}
    if inputs["kind"] != "exact":  # how an optimum is found is nobody's business
        outputs["passes"], compare["passes"] = np.array(point.passes, dtype=np.int64), "exact"
    return Exact(
        outputs=outputs,
        compare=compare,
        bound={
            "alpha": np.array(point.bound, dtype=object),
            "G": abs(Q) * np.asarray(point.bound, dtype=object),
        },
        margin={"Q": point.margin},
        allowed={"Q": point.allowed},
    )


def alternate(
    V: Array,
    values: Array,
    alpha0: Fraction,
    most: int,
    ties: str,
    *,
    tolerance: Fraction = Fraction(0),
    best: bool = False,
) -> Point:
    """Q = nearest(V/α), α = VᵀQ/QᵀQ from `alpha0` (mean|V| if that is 0) until α stays, or `most` updates.

    An empty Q starts over, once, at mean|V|; that counts as an update. The margin of an element is the least
    on the way: had it been rounded the other way at any α, all that follows would differ. With a `tolerance`
    a smaller change of α ends it; with `best` the pass of least ‖V - G‖ counts, the start included, and
    nothing starts over.
    """
    default = sum(abs(V)) / len(V) / min(abs(value) for value in values if value)
    alpha = bound = alpha0 if alpha0 > 0 else default
    count, restarted = 0, best
    codes, margin, allowed = nearest(V, alpha, values, ties)
    passed = [(((V - alpha * values[codes]) ** 2).sum(), codes, alpha, bound, allowed)]
    while alpha > 0 and most != 0:
        Q = values[codes]
        top, bottom = Q @ V, Q @ Q
        new = max(top, Fraction(0)) / bottom if bottom else Fraction(0)  # [LDNQ] (17)
        bound = abs(Q) @ abs(V) / bottom if bottom else Fraction(0)
        again = new == 0 and not restarted and default != alpha
        if again:
            new = bound = default
            restarted = True
        count += new != alpha
        stays, alpha = new == alpha or abs(new - alpha) < tolerance, new
        passed.append((((V - alpha * Q) ** 2).sum(), codes, alpha, bound, allowed))
        if stays or alpha == 0 or 0 < most <= count:
            break
        codes, step_margin, allowed = nearest(V, alpha, values, ties)
        margin = np.minimum(margin, step_margin)
    if best:
        _, codes, alpha, bound, allowed = min(passed, key=lambda one: one[0])  # the first of equals
    if alpha == 0 or not values[codes].any():
        return _nothing(V, values, count)
    return Point(codes=codes, alpha=alpha, passes=count, bound=bound, margin=margin, allowed=allowed)


def _nothing(V: Array, values: Array, passes: int) -> Point:
    codes = np.full(len(V), int(np.argmin(abs(values))), dtype=np.int8)
    zero, never = Fraction(0), np.full(len(V), np.inf)
    allowed = np.left_shift(1, codes.astype(np.int64))
    return Point(codes=codes, alpha=zero, passes=passes, bound=zero, margin=never, allowed=allowed)


def nearest(V: Array, alpha: Fraction, values: Array, ties: str) -> tuple[Array, Array, Array]:
    """Codes of the nearest of α·values by comparison with α·thresholds; margins; codes that are nearly right.

    Examples
    --------
    >>> values = fractions(np.array([-2.0, -1.0, 0.0, 1.0, 2.0]))
    >>> codes, margin, allowed = nearest(fractions(np.array([1.5, 0.75])), Fraction(1), values, "smaller")
    >>> codes, margin, allowed
    (array([3, 3], dtype=int8), array([0. , 0.5]), array([ 8, 12]))
    """
    zero = int(np.argmin(abs(values)))
    middles = [(low + high) / 2 for low, high in pairwise(values)]
    codes = np.zeros(len(V), dtype=np.int8)
    margin, allowed = np.full(len(V), np.inf), np.zeros(len(V), dtype=np.int64)
    for i, v in enumerate(V):
        code, closest, other = 0, None, 0
        for k, middle in enumerate(middles):
            limit = alpha * middle
            upward = (middle >= 0) if ties == "larger" else (middle <= 0)
            above = v > limit or (v == limit and upward)
            code += above
            distance = abs(v - limit) / abs(limit) if limit else None
            if distance is not None and (closest is None or distance < closest):
                closest, other = distance, k if above else k + 1
            if v == limit and ties == "zero" and zero not in (k, k + 1) and len(values) <= 9:
                code = zero
                break
        codes[i] = code
        margin[i] = np.inf if closest is None else float(closest)
        allowed[i] = 1 << code | (1 << other if closest else 0)  # a tie follows its rule
    return codes, margin, allowed


def optimum(V: Array, values: Array, ties: str, *, distinct: bool = True) -> Point:
    """The global optimum of (17): of all roundings, one for every range of α, the one of largest (VᵀQ)²/QᵀQ.

    Raises
    ------
    ValueError
        If another Q is nearly as good, unless it need not be `distinct`.
    """
    middles = [(low + high) / 2 for low, high in pairwise(values)]
    breaks = sorted({v / middle for v in V for middle in middles if middle and v / middle > 0})
    if not breaks:
        return _nothing(V, values, 0)
    scales = [breaks[0] / 2, *((low + high) / 2 for low, high in pairwise(breaks))]
    gains: dict[tuple[int, ...], Fraction] = {}
    for scale in scales:
        codes = nearest(V, scale, values, ties)[0]
        Q = values[codes]
        if (top := Q @ V) > 0:
            gains[tuple(codes.tolist())] = top**2 / (Q @ Q)
    best, *others = sorted(gains, key=lambda codes: -gains[codes])
    if distinct and others and gains[best] - gains[others[0]] < NEAREST_RIVAL * (V @ V):
        raise ValueError("`V` must have a distinct optimum.")
    Q = values[np.array(best)]
    alpha = Q @ V / (Q @ Q)
    codes, margin, allowed = nearest(V, alpha, values, ties)
    return Point(
        codes=codes, alpha=alpha, passes=0, bound=abs(Q) @ abs(V) / (Q @ Q), margin=margin, allowed=allowed
    )


def dual(inputs: Inputs) -> Exact:
    """λ + Θ - G."""
    lam, Theta, G = (fractions(inputs[name]) for name in ("lam", "Theta", "G"))
    return Exact(
        outputs={"lam_new": lam + Theta - G},  # [LDNQ] (18)
        compare={"lam_new": "ulp"},
        bound={"lam_new": abs(lam) + abs(Theta) + abs(G)},
    )


RULES: Mapping[str, Any] = {
    "alpha_start": "mean_v",
    "restart": "warm",
    "passes": -1,
    "alpha_tolerance": 0.0,
    "kept_pass": "last",
    "ties": "smaller",
    "stop": "none",
    "refit": False,
    "distinct": True,
}
"""What a question about ADMM says in addition if it is asked under other conventions than the paper's, and
what holds if it does not; ``alpha_start`` is the convention `alpha0`. ``distinct``: whether a point that is
nearly as good as the exact projection's spoils the question."""

STILL = Fraction(1e-9)
"""Share of ‖W‖ below which ‖Θ - G‖ and the change of G count as none, for the stopping rule."""

LEAST_GAIN = Fraction(1e-3)
"""Least improvement of 2f for the stopping rule of the released code."""


def admm(inputs: Inputs) -> Exact:
    """K iterations of (15)-(18); the first projection starts at mean|V|, later ones at the last α.

    What the inputs say under the names of `RULES` changes that.
    """
    H, W, G, lam = (fractions(inputs[name]) for name in ("H", "W_bar", "G0", "lam0"))
    values, rho = fractions(inputs["values"]), Fraction(inputs["rho"])
    rule = {**RULES, **{name: inputs[name] for name in RULES if name in inputs}}
    A = H + rho * fractions(np.eye(len(H)))
    back, HW = inverse(A), H @ W
    names = ("Theta", "V", "Q", "alpha", "G", "lam")
    outputs: dict[str, Any] = {name: [] for name in names}
    bound: dict[str, Any] = {name: [] for name in ("V", "alpha", "G", "lam")}
    margin, allowed, alpha, points = [], [], Fraction(0), [G]
    bounds, passes = [abs(G)], []
    first = abs(W).sum() / W.size if rule["alpha_start"] == "mean_w" else Fraction(0)
    stopping = _Stopping(str(rule["stop"]), W, _energy(H, W, G))
    for k in range(int(inputs["K"])):
        Theta = back @ (HW + rho * (G - lam))  # [LDNQ] (15)
        V = Theta + lam
        bound["V"].append(abs(Theta) + abs(lam))
        if inputs["projection"] == "exact":
            found = optimum(V.ravel(), values, rule["ties"], distinct=bool(rule["distinct"]))
        else:
            found = alternate(  # [LDNQ] (16)-(17)
                V.ravel(),
                values,
                first if k == 0 or rule["restart"] == "cold" else alpha,
                int(rule["passes"]),
                rule["ties"],
                tolerance=Fraction(rule["alpha_tolerance"]),
                best=rule["kept_pass"] == "best",
            )
        alpha, Q, last = found.alpha, values[found.codes].reshape(W.shape), G
        G = alpha * Q
        bound["lam"].append(abs(lam) + abs(Theta) + abs(G))
        bound["alpha"].append(found.bound)
        bound["G"].append(abs(Q) * np.asarray(found.bound, dtype=object))
        bounds.append(bound["G"][-1])
        lam = lam + Theta - G  # [LDNQ] (18)
        points.append(G)
        passes.append(found.passes)
        codes = found.codes.reshape(W.shape)
        for name, array in zip(names, (Theta, V, codes, alpha, G, lam), strict=True):
            outputs[name].append(array)
        margin.append(found.margin.reshape(W.shape))
        allowed.append(found.allowed.reshape(W.shape))
        if stopping.after(_energy(H, W, G), Theta - G, G - last):
            break
    E = stopping.E
    sizes = [abs(point) + abs(W) for point in points]
    best = stopping.best
    chosen = best if inputs["returned"] == "best" else len(E) - 1
    result, result_bound = points[chosen], bounds[chosen]
    if rule["refit"] and (bottom := (result * (H @ result)).sum()) > 0:
        factor = max((result * HW).sum(), Fraction(0)) / bottom
        terms = (abs(result) * (abs(H) @ abs(W))).sum() + factor * (
            abs(result) * (abs(H) @ abs(result))
        ).sum()
        result, result_bound = result * factor, abs(result) * terms / bottom
    traces = {
        name: np.array(arrays, dtype=np.int8 if name == "Q" else object) for name, arrays in outputs.items()
    }
    return Exact(
        outputs={
            **traces,
            "E": np.array(E),
            "best": np.array(best, dtype=np.int64),
            "result": result,
        },
        compare={
            "Theta": "backward",
            "V": "ulp",
            "Q": "code",
            "alpha": "dot",
            "G": "dot",
            "lam": "ulp",
            "E": "dot",
            "best": "exact",
            "result": "dot",
        },
        bound={
            **{name: np.array(arrays, dtype=object) for name, arrays in bound.items()},
            "E": np.array([(size * (abs(H) @ size)).sum() / 2 for size in sizes]),
            "result": result_bound,
        },
        margin={"Q": np.stack(margin), "best": np.array(min(_lead(E, best), stopping.margin))},
        allowed={"Q": np.stack(allowed)},
        kappa=_condition(A, back),
        trace=_trace(inputs, traces, passes, stopping),
    )


def _energy(H: Array, W: Array, G: Array) -> Fraction:
    return Fraction(((G - W) * (H @ (G - W))).sum() / 2)  # [LDNQ] (10)


class _Stopping:
    # When ADMM stops, which G is the best so far, and the least relative distance of a decision.
    def __init__(self, rule: str, W: Array, start: Fraction) -> None:
        self.rule, self.size = rule, (W**2).sum()
        self.E, self.best, self.idle, self.margin = [start], 0, 0, float("inf")
        self.kept: list[int] = []  # the best after each iteration

    def after(self, energy: Fraction, rest: Array, change: Array) -> bool:
        least, gain = self.E[self.best], LEAST_GAIN if self.rule == "ascend3" else Fraction(0)
        self.E.append(energy)
        better = 2 * (least - energy) > gain
        self.best, self.idle = (len(self.E) - 1, 0) if better else (self.best, self.idle + 1)
        self.kept.append(self.best)
        if self.rule == "ascend3":
            off = abs(2 * (least - energy) - gain) / (2 * (least + energy) + gain)
            self.margin = min(self.margin, float(off))
            return self.idle >= 3
        return self.rule == "fixed_point" and max((rest**2).sum(), (change**2).sum()) <= STILL**2 * self.size


def _trace(
    inputs: Inputs, traces: Mapping[str, Array], passes: list[int], stopping: _Stopping
) -> dict[str, Array]:
    # What goes into each iteration and what comes out of it.
    before = {
        f"{name}_in": np.concatenate([fractions(inputs[start])[None], traces[key][:-1]])
        for name, start, key in (("G", "G0", "G"), ("L", "lam0", "lam"))
    }
    after = {"L" if name == "lam" else name: array for name, array in traces.items()}
    counts = {
        name: np.array(array, dtype=np.int64) for name, array in (("passes", passes), ("best", stopping.kept))
    }
    return {**before, **after, "E": np.array(stopping.E[1:]), **counts}


def _lead(E: list[Fraction], best: int) -> float:
    # By how much the next objective exceeds the least, as a share of it; 0 if two are equal.
    others = [value for k, value in enumerate(E) if k != best]
    rival = min(others, default=Fraction(0))
    return float((rival - E[best]) / rival) if rival else 0.0
