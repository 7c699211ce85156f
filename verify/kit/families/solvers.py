"""Quantizers without data and solvers of (10), on problems so small that the optimum is known.

A solver that rounds by a rule is asked at a fixed set, where every code is a decision with a margin. One that
searches is asked where its reference reaches the global optimum, found here by trying all codes: no worse
then means the same codes, because the next best is worse by a clear share.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np

from refldnq._typing import Array
from refldnq.verify.kit.cases import Case
from refldnq.verify.kit.families._exact import NEAREST_RIVAL, admm, alternate, inverse, nearest, optimum
from refldnq.verify.kit.families._make import CLEAR, refuse
from refldnq.verify.kit.families._numbers import fractions, rounded
from refldnq.verify.kit.families._problems import POWERS, correlated, weight

Inputs = Mapping[str, Any]

SEARCHING = ("exact", "anneal", "admm_plus", "blocks")
"""Solvers that are asked for the optimum."""


def quantize(inputs: Inputs) -> tuple[Array, Fraction, Array, Array, Fraction]:
    """Codes, scale, margins, nearly right codes, and the bound of the scale's terms; W as one vector.

    Examples
    --------
    >>> given = {"W": np.array([[4.0], [1.0], [1.0], [1.0]]), "values": POWERS[3], "method": "mean"}
    >>> codes, alpha, *_ = quantize(given)
    >>> codes, alpha
    (array([2, 2, 2, 2], dtype=int8), Fraction(7, 4))
    """
    W, levels = fractions(inputs["W"]).ravel(), fractions(inputs["values"])
    if inputs["method"] == "mean":
        alpha = sum(abs(W)) / len(W)
        return (
            nearest(W, alpha, levels, "smaller")[0],
            alpha,
            *nearest(W, alpha, levels, "smaller")[1:],
            alpha,
        )
    exact = inputs["method"] == "exact"
    point = optimum(W, levels, "smaller") if exact else alternate(W, levels, Fraction(0), -1, "smaller")
    return point.codes, point.alpha, point.margin, point.allowed, point.bound


def solve(inputs: Inputs) -> tuple[Array, Fraction, Array]:
    """Codes (d, m), the scale, and the margins of the decisions.

    Raises
    ------
    ValueError
        If the optimum is not distinct.
    """
    H, W, levels = (fractions(inputs[name]) for name in ("H", "W", "values"))
    name = inputs["solver"]
    if name in ("gptq", "ldlq", "gpfq"):
        return _rounded(H, W, levels, path=name == "gpfq")
    if name == "coordinate":
        return _descended(H, W, levels)
    if name == "admm":
        return _iterated(H, W, levels, inputs)
    if name == "direct":
        codes, alpha, margin, *_ = quantize({"W": W, "values": levels, "method": "mean"})
        return codes.reshape(W.shape), alpha, margin.reshape(W.shape)
    return _best(H, W, levels, free=inputs["kind"] == "scaled")


def objective(H: Array, W: Array, G: Array) -> Fraction:
    """f(G) of (10)."""
    return Fraction(((G - W) * (H @ (G - W))).sum()) / 2  # [LDNQ] (10)


def _rounded(H: Array, W: Array, levels: Array, *, path: bool) -> tuple[Array, Fraction, Array]:
    # Entry i is rounded from where f is least given the entries before it: GPTQ and LDLQ move all later
    # entries with it, path following none.
    codes, margin = np.zeros(W.shape, dtype=np.int8), np.zeros(W.shape)
    for o in range(W.shape[1]):
        G = W[:, o].copy()
        for i in range(len(H)):
            if i:
                rest = [i] if path else list(range(i, len(H)))
                error = H[np.ix_(rest, range(i))] @ (G[:i] - W[:i, o])
                G[i] = W[i, o] - (inverse(H[np.ix_(rest, rest)]) @ error)[0]
            found, own, _ = nearest(G[i : i + 1], Fraction(1), levels, "smaller")
            codes[i, o], margin[i, o] = found[0], own[0]
            G[i] = levels[found[0]]
    return codes, Fraction(1), margin


def _descended(H: Array, W: Array, levels: Array) -> tuple[Array, Fraction, Array]:
    codes, margin, _ = nearest(W.ravel(), Fraction(1), levels, "smaller")
    codes, margin = codes.reshape(W.shape), margin.reshape(W.shape)
    while True:
        old = codes.copy()
        for i, o in np.ndindex(W.shape):
            delta = levels[codes[:, o]] - W[:, o]
            best = levels[codes[i, o]] - (H[i] @ delta) / H[i, i]
            found, own, _ = nearest(np.array([best], dtype=object), Fraction(1), levels, "smaller")
            codes[i, o], margin[i, o] = found[0], min(margin[i, o], own[0])
        if np.array_equal(codes, old):
            return codes, Fraction(1), margin


def _iterated(H: Array, W: Array, levels: Array, inputs: Inputs) -> tuple[Array, Fraction, Array]:
    start = alternate(W.ravel(), levels, Fraction(0), -1, "smaller")
    G0 = (start.alpha * levels[start.codes]).reshape(W.shape)
    given = {
        "H": H,
        "W_bar": W,
        "values": levels,
        "rho": inputs["rho"],
        "K": inputs["K"],
        "G0": G0,
        "lam0": 0 * W,
    }
    found = admm({**given, "projection": "alternating", "returned": "best"})
    margin = np.minimum.reduce([start.margin.reshape(W.shape), *found.margin["Q"]])
    margin = np.minimum(margin, float(found.margin["best"]))
    best = int(found.outputs["best"])
    if best == 0:
        return start.codes.reshape(W.shape), start.alpha, margin
    return found.outputs["Q"][best - 1], found.outputs["alpha"][best - 1], margin


def _best(H: Array, W: Array, levels: Array, *, free: bool) -> tuple[Array, Fraction, Array]:
    # Every Q, with the best scale for each.
    HW, size, found = H @ W, Fraction((W * (H @ W)).sum()), []
    for picked in product(range(len(levels)), repeat=W.size):
        codes = np.array(picked, dtype=np.int8).reshape(W.shape)
        Q = levels[codes]
        top, bottom = (Q * HW).sum(), (Q * (H @ Q)).sum()
        alpha = Fraction(1)
        if free:
            if not (top > 0 and bottom > 0):
                continue
            alpha = Fraction(top) / bottom
        value = size - 2 * alpha * top + alpha**2 * bottom
        key = tuple((alpha * Q).ravel())
        found.append((value, key, codes, alpha))
    found.sort(key=lambda one: one[0])
    rivals = [one[0] - found[0][0] for one in found[1:] if one[1] != found[0][1]]
    if rivals and rivals[0] < NEAREST_RIVAL * size:
        raise ValueError("`W` must have a distinct optimum.")
    return found[0][2], found[0][3], np.full(W.shape, float(rivals[0] / size))


def _solution(
    name: str, comment: str, inputs: dict[str, Any], catches: str, *, tier: str = "certified"
) -> Case:
    codes, alpha, margin = solve(inputs)
    if not (margin.min() >= CLEAR):
        raise ValueError(f"`inputs` of solve/{name} must have margins of {CLEAR}, got {margin.min()}.")
    H, W, levels = (fractions(inputs[key]) for key in ("H", "W", "values"))
    G = levels[codes] * alpha
    kappa = condition(H)
    # The scale comes out of solves.
    scale = abs(alpha) * int(np.ceil(kappa)) * 30 * W.size if inputs["kind"] == "scaled" else Fraction(0)
    return Case(
        op="solve",
        id=f"solve/{name}",
        comment=comment,
        tier=tier,
        catches=tuple(catches.split()),
        inputs=inputs,
        outputs={
            "Q": codes,
            "alpha": rounded(np.array(alpha, dtype=object)),
            "objective": rounded(np.array(objective(H, W, G), dtype=object)),
        },
        compare={"Q": "code", "alpha": "ulp", "objective": "own"},
        bound={"alpha": np.asarray(float(scale) / 4)},
        # Without margins codes are judged by their objective alone: no worse than the optimum.
        margin={} if inputs["solver"] in SEARCHING else {"Q": margin},
        allowed={} if inputs["solver"] in SEARCHING else {"Q": np.left_shift(1, codes.astype(np.int64))},
        kappa=kappa,
    )


def condition(H: Array) -> float:
    """The condition number in the norm of largest row sums, to two digits.

    Examples
    --------
    >>> condition(fractions(np.diag([1.0, 4.0])))
    4.0
    """
    found = abs(H).sum(axis=1).max() * abs(inverse(H)).sum(axis=1).max()
    return float(f"{float(found):.1e}")


def _question(
    solver: str, seed: int, d: int, m: int, levels: int, kind: str = "fixed", **more: Any
) -> dict[str, Any]:
    H = correlated(seed, 16, d)
    given = {"H": H, "W": weight(seed + 2, d, m), "values": POWERS[levels], "kind": kind, "solver": solver}
    return {**given, "rho": 1.0, "K": 0, **more}


def _solutions() -> Iterator[Case]:
    pushed = "solver-ignores-data error-pushed-backwards solver-order-reversed solver-objective-doubled"
    for solver, title in (("gptq", "errors pushed to the later entries"), ("ldlq", "linear feedback")):
        yield _solution(
            f"{solver}-fixed",
            f"{title}: six entries, three units, five fixed levels, no damping",
            _question(solver, 604, 6, 3, 5),
            f"{pushed} error-pushed-by-whole-inverse solver-damped",
        )
        yield _solution(
            f"{solver}-seven-levels",
            f"{title}: another H, seven levels",
            _question(solver, 608, 5, 4, 7),
            f"{pushed} error-pushed-by-whole-inverse",
        )
    yield _solution(
        "gpfq-fixed",
        "greedy path following: H_ts/H_tt of the errors so far",
        _question("gpfq", 604, 6, 3, 5),
        pushed,
    )
    yield _solution(
        "coordinate-fixed",
        "coordinate descent from the nearest levels until nothing changes",
        _question("coordinate", 684, 6, 3, 5),
        "coordinates-all-at-once coordinates-one-sweep solver-ignores-data solver-objective-doubled",
    )
    yield _solution(
        "coordinate-order",
        "a problem with several local optima: the order decides",
        _question("coordinate", 608, 5, 4, 7),
        "coordinates-all-at-once solver-order-reversed",
    )
    yield _solution(
        "admm-scaled",
        "eight iterations of ADMM, the best G",
        _question("admm", 616, 4, 2, 3, "scaled", rho=4.0, K=8),
        "solver-ignores-data solver-objective-doubled solver-scale-not-fitted",
    )
    yield _solution(
        "direct-scaled",
        "α = mean|W|",
        _question("direct", 652, 4, 2, 3, "scaled"),
        "solver-objective-doubled",
    )
    for solver in SEARCHING:
        yield _solution(
            f"{solver}-one-unit",
            "the optimum over all codes and scales of one unit",
            _question(solver, 604, 5, 1, 3, "scaled"),
            "solver-ignores-data solver-scale-not-fitted solver-objective-doubled",
        )
        yield _solution(
            f"{solver}-shared-scale",
            "two units share a scale",
            _question(solver, 612, 3, 2, 3, "scaled"),
            "solver-ignores-data solver-scale-not-fitted solver-objective-doubled",
        )
    yield _solution(
        "exact-fixed",
        "the optimum over a fixed set of five levels",
        _question("exact", 612, 3, 1, 5),
        "solver-ignores-data solver-objective-doubled",
    )
    bad = _question("gptq", 600, 6, 3, 5)
    yield refuse(
        "solve",
        "nan",
        "H has an entry NaN",
        {**bad, "H": np.where(bad["H"] == bad["H"][0, 0], np.nan, bad["H"])},
    )
    yield refuse("solve", "shapes", "W has a row too few", {**bad, "W": bad["W"][1:]})


def _quantized(
    name: str, comment: str, inputs: dict[str, Any], catches: str, *, tier: str = "certified"
) -> Case:
    codes, alpha, margin, allowed, bound = quantize(inputs)
    if not (margin.min() >= CLEAR):
        raise ValueError(f"`inputs` of quantizer/{name} must have margins of {CLEAR}, got {margin.min()}.")
    W, levels = np.asarray(inputs["W"]), fractions(inputs["values"])
    G = (levels[codes] * alpha).reshape(W.shape)
    # α is a mean, or a quotient of two sums: W.size + 4 roundings of its terms, and one more of G.
    scale = bound * Fraction(2 * W.size + 8, 4)
    sizes: Any = abs(levels[codes])
    return Case(
        op="quantizer",
        id=f"quantizer/{name}",
        comment=comment,
        tier=tier,
        catches=tuple(catches.split()),
        inputs=inputs,
        outputs={
            "Q": codes.reshape(W.shape),
            "alpha": rounded(np.array(alpha, dtype=object)),
            "G": rounded(G),
        },
        compare={"Q": "code", "alpha": "ulp", "G": "ulp"},
        bound={
            "alpha": np.asarray(float(scale)),
            "G": rounded((sizes * scale).reshape(W.shape)),
        },
        margin={"Q": margin.reshape(W.shape)},
        allowed={"Q": allowed.reshape(W.shape)},
    )


def _quantizers() -> Iterator[Case]:
    other = "quantizer-scale-max quantizer-scale-0.7-mean quantizer-scale-a-column quantizer-too-good"
    for levels, seed in ((3, 834), (5, 599), (9, 501)):  # where the alternation ends in a local optimum
        given = {"W": weight(seed, 6, 4), "values": POWERS[levels]}
        yield _quantized(
            f"mean-{levels}", f"α = mean|W|, {levels} levels", {**given, "method": "mean"}, other
        )
        yield _quantized(
            f"exact-{levels}",
            f"the global optimum of ‖W - αQ‖², {levels} levels",
            {**given, "method": "exact"},
            "quantizer-not-exact",
        )
    trap = {"W": np.array([[4.0, 1.0], [1.0, 1.0]]), "values": POWERS[3]}
    yield _quantized(
        "exact-trap",
        "the alternation stays at α = 7/4 with all codes 1; the optimum is one code at α = 4",
        {**trap, "method": "exact"},
        "quantizer-not-exact",
        tier="theorems",
    )
    yield _quantized(
        "alternating-trap",
        "the same weight: the alternation is expected to stay",
        {**trap, "method": "alternating"},
        "quantizer-too-good",
        tier="theorems",
    )
    spoiled = np.where(trap["W"] == 4.0, np.inf, trap["W"])
    yield refuse("quantizer", "infinity", "one weight is infinite", {**trap, "W": spoiled, "method": "mean"})


def cases() -> Iterator[Case]:
    """Quantizers, then solvers."""
    yield from _quantizers()
    yield from _solutions()
