"""Three channels that must agree before a value ships: rational arithmetic, the library, loops.

Each computes the answers of a case from its inputs alone; no two share code beyond NumPy's arrays. The first
is where the answers come from, and must give them again to the last bit; the others must come as near as
their rounding allows, with the same codes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from refldnq._typing import Array
from refldnq.verify.kit.cases import Case
from refldnq.verify.kit.contract import geometry, kernel_shape
from refldnq.verify.kit.diagnose import agree
from refldnq.verify.kit.families._exact import solve
from refldnq.verify.kit.families._numbers import rounded

Inputs = Mapping[str, Any]
Answers = dict[str, Any]

CLOSE = 2.0**-40
"""Largest difference from the right answers, as a share of the largest entry, times the condition number
(chosen here: 4096 roundings)."""

MOST_TRIED = 20_000
"""Most Q that the loops try for a global optimum; ternary sets need no trying."""

OPS = ("patches", "hessian", "pack", "proximal", "project", "dual", "admm")
"""The operations that have three channels here."""


def disagreements(case: Case) -> tuple[str, ...]:
    """What is wrong with the answers of a case by any channel: one line each, nothing if all agree.

    Parameters
    ----------
    case : Case
        Of one of `OPS`, with right answers.

    Returns
    -------
    tuple of str
        Empty if the value may ship.

    Raises
    ------
    ValueError
        If the case must be refused, and so has no answers.

    Examples
    --------
    >>> from refldnq.verify.kit.families import dual
    >>> disagreements(next(iter(dual.cases())))
    ()
    """
    if case.error is not None:
        raise ValueError(f"`case` must have answers, got {case.id}.")
    lines = []
    for name, array in exact(case.op, case.inputs).items():
        if not np.array_equal(array, case.outputs[name]):
            lines.append(f"{case.id}: {name} is not the correctly rounded exact answer")
    allowed = CLOSE * max(case.kappa, 1.0)
    for channel, answer in (("library", library), ("loops", loops)):
        found = answer(case.op, case.inputs)
        for name, want in case.outputs.items():
            if not agree(found[name], want, 0.0 if case.compare[name] == "exact" else allowed):
                lines.append(f"{case.id}: {name} of the {channel} differs")
    return tuple(lines)


def exact(op: str, inputs: Inputs) -> Answers:
    """The first channel: fractions, rounded once."""
    return {name: rounded(array) for name, array in solve(op, inputs).outputs.items()}


# The library -------------------------------------------------------------------------------------------


def library(op: str, inputs: Inputs) -> Answers:
    """The second channel: layers, `im2col`, `project`, a Cholesky factorization.

    Examples
    --------
    >>> library("dual", {"lam": np.ones(1), "Theta": np.ones(1), "G": np.zeros(1)})
    {'lam_new': array([2.])}
    """
    operations: Mapping[str, Callable[[Inputs], Answers]] = {
        "patches": _library_patches,
        "hessian": _library_hessian,
        "pack": _library_pack,
        "proximal": lambda given: {"Theta": _library_theta(given)},
        "project": _library_project,
        "dual": lambda given: {"lam_new": given["lam"] + given["Theta"] - given["G"]},
        "admm": _library_admm,
    }
    return operations[op](inputs)


def _images(inputs: Inputs) -> Array:
    X = np.asarray(inputs["X"])
    return X[:, :, None, None] if X.ndim == 2 else X


def _library_patches(inputs: Inputs) -> Answers:
    from refldnq.im2col import Window, im2col

    X, groups = _images(inputs), int(inputs["groups"])
    columns = im2col(X, Window(*geometry(inputs)))
    rows = columns.reshape(len(X), groups, -1, columns.shape[2]).transpose(0, 3, 1, 2)
    if inputs["bias"]:
        rows = np.concatenate([rows, np.ones((*rows.shape[:3], 1))], axis=3)
    return {"patches": rows}


def _layer(channels: int, units: int, inputs: Inputs) -> Any:
    from refldnq.layers import Conv2d

    kernel, stride, padding, dilation = geometry(inputs)
    groups = int(inputs["groups"])
    bias = np.any(inputs["bias"])
    return Conv2d(channels, units, kernel, stride, padding, dilation, groups, bias=bool(bias))


def _library_hessian(inputs: Inputs) -> Answers:
    from refldnq.layers import Linear

    X = np.asarray(inputs["X"])
    units = int(inputs["weight_shape"][0] * inputs["weight_shape"][1])
    bias = bool(inputs["bias"])
    if X.ndim == 2:
        return {"H": Linear(X.shape[1], units, bias=bias).hessian(X, bias=bias)}
    return {"H": _layer(X.shape[1], units, inputs).hessian(X, bias=bias)}


def _library_pack(inputs: Inputs) -> Answers:
    from refldnq.layers import Linear

    weight, bias = np.asarray(inputs["weight"]), np.asarray(inputs["bias"])
    params = {"weight": weight} | ({"bias": bias} if bias.size else {})
    if weight.ndim == 2:
        layer: Any = Linear(weight.shape[1], weight.shape[0], bias=bias.size > 0)
    else:
        layer = _layer(weight.shape[1] * int(inputs["groups"]), weight.shape[0], inputs)
    return {"W": layer.pack(params, bias=bias.size > 0)}


def _library_theta(inputs: Inputs) -> Array:
    from scipy.linalg import cho_factor, cho_solve

    H, rho = inputs["H"], inputs["rho"]
    right = H @ inputs["W_bar"] + rho * (inputs["G"] - inputs["lam"])
    return np.asarray(cho_solve(cho_factor(H + rho * np.eye(len(H))), right))  # [LDNQ] (15)


def _library_project(inputs: Inputs) -> Answers:
    from refldnq.codebook import scaled
    from refldnq.projection import project

    alternating = inputs["kind"] != "exact"
    found = project(
        inputs["V"],
        scaled(inputs["values"]),
        method="alternating" if alternating else "exact",
        alpha0=inputs["alpha0"] if alternating and inputs["alpha0"] > 0 else None,
        max_passes=inputs["passes"] if alternating and inputs["passes"] >= 0 else None,
        ties=inputs["ties"],
    )
    return {"Q": found.codes, "alpha": found.alpha, "G": found.G, "passes": np.asarray(found.passes)}


def _library_admm(inputs: Inputs) -> Answers:
    from refldnq.codebook import scaled
    from refldnq.solvers.admm import AdmmSettings, trajectory

    settings = AdmmSettings(
        rho=float(inputs["rho"]),
        rho_scale="absolute",
        iterations=int(inputs["K"]),
        projection=inputs["projection"],
    )
    H, W, G0, lam0 = (np.asarray(inputs[name])[None] for name in ("H", "W_bar", "G0", "lam0"))
    found = trajectory(H, W, scaled(inputs["values"]), settings, G0=G0, lam0=lam0)
    states = {"Theta": found.theta, "V": found.V, "Q": found.codes, "G": found.G, "lam": found.lam}
    best = int(np.argmin(found.objective))
    points = [G0[0], *found.G[:, 0]]
    return {
        **{name: array[:, 0] for name, array in states.items()},
        "alpha": found.alpha,
        "E": found.objective,
        "best": np.array(best),
        "result": points[best if inputs["returned"] == "best" else -1],
    }


# Loops -------------------------------------------------------------------------------------------------


def loops(op: str, inputs: Inputs) -> Answers:
    """The third channel: the naive twins, and loops written as the definitions.

    Examples
    --------
    >>> loops("dual", {"lam": np.ones(1), "Theta": np.ones(1), "G": np.zeros(1)})
    {'lam_new': array([2.])}
    """
    operations: Mapping[str, Callable[[Inputs], Answers]] = {
        "patches": _loop_patches,
        "hessian": _loop_hessian,
        "pack": _loop_pack,
        "proximal": lambda given: {"Theta": _loop_theta(given)},
        "project": _loop_project,
        "dual": _loop_dual,
        "admm": _loop_admm,
    }
    return operations[op](inputs)


def _window(inputs: Inputs) -> dict[str, Any]:
    names = ("kernel", "stride", "padding", "dilation")
    return {**dict(zip(names, geometry(inputs), strict=True)), "groups": int(inputs["groups"])}


def _loop_patches(inputs: Inputs) -> Answers:
    from refldnq.verify.naive.layers import patch

    X, window, bias = _images(inputs), _window(inputs), [1.0] if inputs["bias"] else []
    (top, bottom, left, right), (sh, sw), (dh, dw) = (window[k] for k in ("padding", "stride", "dilation"))
    kh, kw = window["kernel"]
    downs = [
        p for p in range(X.shape[2] + top + bottom) if p * sh + dh * (kh - 1) < X.shape[2] + top + bottom
    ]
    across = [
        q for q in range(X.shape[3] + left + right) if q * sw + dw * (kw - 1) < X.shape[3] + left + right
    ]
    found = [
        [
            [patch(X, i, group, p, q, **window) + bias for group in range(window["groups"])]
            for p in downs
            for q in across
        ]
        for i in range(len(X))
    ]
    return {"patches": np.array(found, dtype=np.float64)}


def _loop_hessian(inputs: Inputs) -> Answers:
    from refldnq.verify.naive.layers import conv2d_hessian, linear_hessian

    X, bias = np.asarray(inputs["X"]).astype(object), bool(inputs["bias"])  # plain floats add faster
    H = linear_hessian(X, bias=bias) if X.ndim == 2 else conv2d_hessian(X, bias=bias, **_window(inputs))
    return {"H": H.astype(np.float64)}


def _loop_pack(inputs: Inputs) -> Answers:
    # W is what the layer does to single pixels: W[r, o] is the output of unit o for the unit vector r.
    from refldnq.verify.naive.layers import conv2d

    weight, bias, groups = np.asarray(inputs["weight"]), np.asarray(inputs["bias"]), int(inputs["groups"])
    channels, kh, kw = kernel_shape(inputs)
    weight = weight.reshape(len(weight), channels, kh, kw)
    units, size = len(weight) // groups, channels * kh * kw
    W = np.zeros((groups, size + (bias.size > 0), units))
    for g in range(groups):
        pixels = np.zeros((size, groups * channels, kh, kw))
        for row, (c, i, j) in enumerate(np.ndindex(channels, kh, kw)):
            pixels[row, g * channels + c, i, j] = 1.0
        W[g, :size] = conv2d(pixels, weight, groups=groups)[:, g * units : (g + 1) * units, 0, 0]
        for o in range(units if bias.size else 0):
            W[g, size, o] = bias[g * units + o]
    return {"W": W}


def _loop_theta(inputs: Inputs) -> Array:
    # Gaussian elimination with the largest pivot, row by row.
    H, W, G, lam = (np.asarray(inputs[name]) for name in ("H", "W_bar", "G", "lam"))
    rho, (d, m) = float(inputs["rho"]), W.shape
    rows = []
    for i in range(d):
        left = [H[i, j] + (rho if i == j else 0.0) for j in range(d)]
        right = [sum(H[i, j] * W[j, o] for j in range(d)) + rho * (G[i, o] - lam[i, o]) for o in range(m)]
        rows.append(left + right)  # [LDNQ] (15)
    for k in range(d):
        pivot = max(range(k, d), key=lambda i: abs(rows[i][k]))
        rows[k], rows[pivot] = rows[pivot], rows[k]
        for i in range(k + 1, d):
            share = rows[i][k] / rows[k][k]
            rows[i] = [a - share * b for a, b in zip(rows[i], rows[k], strict=True)]
    theta = np.zeros((d, m))
    for i in reversed(range(d)):
        for o in range(m):
            known = sum(rows[i][j] * theta[j, o] for j in range(i + 1, d))
            theta[i, o] = (rows[i][d + o] - known) / rows[i][i]
    return theta


def _loop_project(inputs: Inputs) -> Answers:
    from refldnq.verify.naive.projection import alternate, best_scale, brute_force

    V, values = np.asarray(inputs["V"]).ravel().tolist(), np.asarray(inputs["values"]).tolist()
    zero = min(range(len(values)), key=lambda k: abs(values[k]))
    passes = 0
    if inputs["kind"] != "exact":
        alpha, codes, passes = _alternated(V, values, inputs, alternate)
    elif values == [-1.0, 0.0, 1.0]:
        # The best Q with k entries other than 0 keeps the k largest: their sum squared over k is the gain.
        order = sorted(range(len(V)), key=lambda i: -abs(V[i]))
        gains = [sum(abs(V[i]) for i in order[:k]) ** 2 / k for k in range(1, len(V) + 1)]
        kept = set(order[: 1 + gains.index(max(gains))])
        codes = [zero + (i in kept) * ((v > 0) - (v < 0)) for i, v in enumerate(V)]
        alpha = best_scale(V, [values[code] for code in codes])
    else:
        if len(values) ** len(V) > MOST_TRIED:
            raise ValueError(f"`V` must be shorter, got {len(V)} numbers and {len(values)} levels.")
        alpha, Q, _ = brute_force(V, values)
        codes = [values.index(q) for q in Q]
    if alpha == 0 or all(values[code] == 0 for code in codes):
        alpha, codes = 0.0, [zero] * len(V)
    G = np.array([alpha * values[code] for code in codes])
    return {"Q": np.array(codes, dtype=np.int8), "alpha": np.array(alpha), "G": G, "passes": np.array(passes)}


def _alternated(
    V: list[float], values: list[float], inputs: Inputs, alternate: Any
) -> tuple[float, Any, int]:
    ties = str(inputs["ties"])
    if len(values) > 9 and ties == "zero":
        ties = "smaller"  # the released code's rule for 11 levels
    most = 10_000 if inputs["passes"] < 0 else int(inputs["passes"])
    start = sum(abs(v) for v in V) / len(V) / min(abs(value) for value in values if value)
    alpha = float(inputs["alpha0"]) if inputs["alpha0"] > 0 else start
    before = 0
    if most and not any(values[k] for k in alternate(V, values, alpha, ties=ties, max_passes=0)[1]):
        before, alpha = int(alpha != start), start  # an empty Q starts over
    alpha, codes, scales = alternate(V, values, alpha, ties=ties, max_passes=most)
    if 0 < most < len(scales):  # the codes that the last scale was computed from
        codes = alternate(V, values, scales[most - 1], ties=ties, max_passes=0)[1]
    return alpha, codes, before + sum(old != new for old, new in pairwise(scales))


def _loop_dual(inputs: Inputs) -> Answers:
    lam = np.zeros(np.shape(inputs["lam"]))
    for index in np.ndindex(lam.shape):
        lam[index] = inputs["lam"][index] + inputs["Theta"][index] - inputs["G"][index]  # [LDNQ] (18)
    return {"lam_new": lam}


def _loop_admm(inputs: Inputs) -> Answers:
    # The three steps in the paper's order.
    from refldnq.verify.naive.hessian import objective

    W, G, lam, alpha = inputs["W_bar"], inputs["G0"], inputs["lam0"], 0.0
    rule = {"values": inputs["values"], "kind": inputs["projection"], "passes": -1, "ties": "smaller"}
    trace: dict[str, list[Any]] = {name: [] for name in ("Theta", "V", "Q", "alpha", "G", "lam")}
    points = [G]
    for _ in range(int(inputs["K"])):
        Theta = _loop_theta({**inputs, "G": G, "lam": lam})
        V = Theta + lam
        found = _loop_project({**rule, "V": V.ravel(), "alpha0": alpha})
        alpha, G = float(found["alpha"]), found["G"].reshape(W.shape)
        lam = lam + Theta - G
        points.append(G)
        codes = found["Q"].reshape(W.shape)
        for name, value in zip(trace, (Theta, V, codes, alpha, G, lam), strict=True):
            trace[name].append(value)
    E = [float(objective(inputs["H"], W, point)) for point in points]
    best = E.index(min(E))
    result = points[best if inputs["returned"] == "best" else -1]
    stacked = {name: np.array(values) for name, values in trace.items()}
    return {**stacked, "E": np.array(E), "best": np.array(best), "result": result}
