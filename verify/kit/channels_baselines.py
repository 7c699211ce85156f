"""The three channels of the baselines' quantizer steps: exact numbers, the library's own functions, loops.

As in `channels`, a value ships only if all agree. Where the loops try all possibilities they know the least
error, not the point: then the error of the right answer is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from refldnq._typing import Array
from refldnq.verify.kit.cases import Case
from refldnq.verify.kit.diagnose import agree
from refldnq.verify.kit.families._numbers import rounded
from refldnq.verify.kit.families._problems import POWERS
from refldnq.verify.kit.families._quantizers import answer

Inputs = Mapping[str, Any]
Answers = dict[str, Any]

CLOSE = 2.0**-40
"""Largest difference from the right answers, as a share of the largest entry (chosen: 4096 roundings)."""

LEAST = "least error"
"""What `loops` answers in place of a point that it does not know."""


def disagreements(case: Case) -> tuple[str, ...]:
    """What is wrong with the answers of a case by any channel: one line each, nothing if all agree.

    Examples
    --------
    >>> from refldnq.verify.kit.families import baselines
    >>> disagreements(next(iter(baselines.cases())))
    ()
    """
    lines = []
    for name, array in answer(case.inputs).outputs.items():
        if not np.array_equal(rounded(array), case.outputs[name]):
            lines.append(f"{case.id}: {name} is not the correctly rounded exact answer")
    found = library(case.inputs)
    if found.keys() != case.outputs.keys():
        lines.append(f"{case.id}: the library answers {sorted(found)}")
    twins = loops(case.inputs)
    if not twins:
        lines.append(f"{case.id}: no loops")
    known = {**case.outputs, LEAST: error(case.inputs, case.outputs["G"])}
    for channel, given in (("library", found), ("loops", twins)):
        for name, value in given.items():
            if not agree(value, known[name], CLOSE):
                lines.append(f"{case.id}: {name} of the {channel} differs")
    return tuple(lines)


def error(inputs: Inputs, G: Array) -> float:
    """Σ D (G - W)², with D = 1 where there is none."""
    W = np.asarray(inputs["W"])
    return float((np.asarray(inputs.get("D", np.ones(W.shape))) * (np.asarray(G) - W) ** 2).sum())


# The library -------------------------------------------------------------------------------------------


def library(inputs: Inputs) -> Answers:
    """The second channel: the functions of `refldnq.baselines`.

    Examples
    --------
    >>> library({"method": "late", "W": np.array([4.0, 1.0]), "D": np.ones(2)})["alpha"]
    4.0
    """
    methods: Mapping[str, Callable[[Inputs], Answers]] = {
        "dq-affine": _library_affine,
        "vq-exact": _library_clusters,
        "exnn": _library_exnn,
        "ttq": _library_ttq,
        "inq": _library_inq,
        "lata": _library_lat,
        "late": _library_lat,
        "lat-two-scale": _library_lat,
        "trn": _library_trn,
        "distilquant": _library_distilquant,
    }
    return methods[str(inputs["method"])](inputs)


def _library_affine(inputs: Inputs) -> Answers:
    from refldnq.baselines import dq

    S, Z, q = dq.affine(inputs["W"], inputs["levels"])
    return {"Q": q, "alpha": S, "zero": Z, "G": S * (q - float(Z))}


def _library_clusters(inputs: Inputs) -> Answers:
    from refldnq.baselines import vq

    found = vq.quantize(inputs["W"], inputs["levels"], np.random.default_rng(0), variant="exact")
    return {"Q": found.codes, "values": found.values, "G": found.G}


def _library_exnn(inputs: Inputs) -> Answers:
    from refldnq.baselines import exnn

    found = exnn.proximal(inputs["W"], inputs["lam"], inputs["levels"])
    return {"Q": found.codes, "alpha": found.alpha, "G": found.G}


def _library_ttq(inputs: Inputs) -> Answers:
    from refldnq.baselines import ttq

    rule = (inputs["positive"], inputs["negative"], inputs["threshold"])
    dW, dpositive, dnegative = ttq.gradients(inputs["W"], inputs["g"], *rule)
    above, below = ttq.masks(inputs["W"], inputs["threshold"])
    return {
        "Q": 1 + above.astype(np.int8) - below,
        "G": ttq.quantize(inputs["W"], *rule),
        "dW": dW,
        "dpositive": dpositive,
        "dnegative": dnegative,
    }


def _library_inq(inputs: Inputs) -> Answers:
    from refldnq.baselines import inq

    values = inq.powers(inputs["W"], inputs["levels"])
    codes = inq.nearest(inputs["W"], values)
    mask = inq.partition(inputs["W"], np.asarray(inputs["frozen"]).astype(bool), inputs["portion"])
    return {"Q": codes, "values": values, "G": values[codes], "mask": mask.astype(np.int8)}


def _library_lat(inputs: Inputs) -> Answers:
    from refldnq.baselines import lat

    W, D, method = inputs["W"], inputs["D"], str(inputs["method"])
    if method == "lat-two-scale":
        *scales, b = lat.late_two_scales(W, D)
        G = np.where(b > 0, scales[0], np.where(b < 0, -scales[1], 0.0))
        return {"Q": b + 1, "alpha": np.array(scales), "G": G}
    if method == "late":
        alpha, b = lat.late(W, D)
    else:
        alpha, b = lat.lata(W, D, passes=inputs["passes"], tolerance=inputs["tolerance"])
    return {"Q": b + 1, "alpha": alpha, "G": alpha * b}


def _library_trn(inputs: Inputs) -> Answers:
    from refldnq.baselines import trn

    settings = trn.TrnSettings(block=inputs["block"], tolerance=inputs["tolerance"])
    G, terms = trn.quantize(inputs["W"], inputs["max_terms"], settings)
    return {"G": G, "terms": terms}


def _library_distilquant(inputs: Inputs) -> Answers:
    from refldnq.baselines import distilquant

    return {"G": distilquant.quantize(inputs["W"], inputs["levels"], inputs["bucket"])}


# Loops -------------------------------------------------------------------------------------------------


def loops(inputs: Inputs) -> Answers:
    """The third channel: the naive twins, and loops written as the definitions.

    Examples
    --------
    >>> loops({"method": "late", "W": np.array([4.0, 1.0]), "D": np.ones(2)})
    {'least error': 1.0}
    """
    from refldnq.verify.naive import baselines as naive

    method, W = str(inputs["method"]), np.asarray(inputs["W"])
    w = W.ravel().tolist()
    if method == "dq-affine":
        return {"G": np.array(naive.affine(w, inputs["levels"]))}
    if method == "vq-exact":
        return {LEAST: naive.best_partition(w, inputs["levels"])}
    if method in ("late", "lat-two-scale"):
        return {LEAST: naive.ternary_optimum(w, np.asarray(inputs["D"]).tolist(), method != "late")}
    if method == "lata":
        alpha, b = naive.lata(w, np.asarray(inputs["D"]).tolist(), inputs["passes"], inputs["tolerance"])
        return {"Q": np.array(b) + 1, "alpha": alpha, "G": alpha * np.array(b)}
    if method == "distilquant":
        size = int(inputs["bucket"])
        parts = [naive.uniform(w[i : i + size], inputs["levels"]) for i in range(0, len(w), size)]
        return {"G": np.concatenate(parts)}
    return {"exnn": _loop_exnn, "ttq": _loop_ttq, "inq": _loop_inq, "trn": _loop_trn}[method](inputs)


def _loop_exnn(inputs: Inputs) -> Answers:
    from refldnq.verify.kit.channels import loops as steps

    V = np.array([w + lam for w, lam in zip(inputs["W"], inputs["lam"], strict=True)])
    rule = {"alpha0": 0.0, "kind": "alternating", "passes": -1, "ties": "smaller"}
    found = steps("project", {"V": V, "values": POWERS[inputs["levels"]], **rule})
    return {name: found[name] for name in ("Q", "alpha", "G")}


def _loop_ttq(inputs: Inputs) -> Answers:
    # The loss is Σ g G: its derivatives with respect to the scales are quotients of differences, exactly.
    from refldnq.verify.naive.baselines import ttq

    w, g, t = np.asarray(inputs["W"]).tolist(), np.asarray(inputs["g"]).tolist(), inputs["threshold"]

    def loss(positive: float, negative: float) -> float:
        return float(sum(a * b for a, b in zip(g, ttq(w, t, positive, negative), strict=True)))

    p, n = inputs["positive"], inputs["negative"]
    G, signs = ttq(w, t, p, n), ttq(w, t, 1.0, 1.0)
    return {
        "G": np.array(G),
        "Q": np.array([1 + int(sign) for sign in signs]),
        "dW": np.array([{1.0: p, -1.0: n, 0.0: 1.0}[sign] * x for sign, x in zip(signs, g, strict=True)]),
        "dpositive": (loss(p + 0.5, n) - loss(p - 0.5, n)),
        "dnegative": (loss(p, n + 0.5) - loss(p, n - 0.5)),
    }


def _loop_inq(inputs: Inputs) -> Answers:
    from refldnq.verify.naive.baselines import inq_value, partition

    w = np.asarray(inputs["W"]).tolist()
    s = max(abs(x) for x in w)
    mask = partition(w, [bool(one) for one in inputs["frozen"]], inputs["portion"])
    return {
        "G": np.array([inq_value(x, s, inputs["levels"]) for x in w]),
        "mask": np.array(mask, dtype=np.int8),
    }


def _loop_trn(inputs: Inputs) -> Answers:
    from refldnq.verify.naive.baselines import residual_terms

    W, size = np.asarray(inputs["W"]), int(inputs["block"])
    G, terms = np.zeros(W.shape), np.zeros(W.shape, dtype=np.int64)
    for o in range(W.shape[0]):
        for i in range(W.shape[2]):
            for j in range(W.shape[3]):
                for first in range(0, W.shape[1], size):
                    part = slice(first, first + size)
                    block = W[o, part, i, j].tolist()
                    G[o, part, i, j], terms[o, part, i, j] = residual_terms(
                        block, inputs["max_terms"], inputs["tolerance"]
                    )
    return {"G": G, "terms": terms}
