"""Cases from a layer of a user's own network: X, H, W and a trajectory of ADMM."""

from __future__ import annotations

from typing import Any

import numpy as np

from refldnq._checks import check_choice, check_integer
from refldnq._typing import Array, Float64Array
from refldnq.layers.base import LinearMap
from refldnq.layers.conv import Conv2d
from refldnq.network import Network
from refldnq.verify.kit.cases import Case
from refldnq.verify.kit.families._problems import POWERS
from refldnq.verify.kit.reference import Reference
from refldnq.verify.kit.rules import quadratic, twofold
from refldnq.verify.kit.trajectory import ends, margins

REFINEMENTS = 4
"""Corrections of Θ by residuals in twice the precision (chosen here: each gains at least a digit up to a
condition number of 1e15)."""


def record(
    network: Network, name: str, images: Array, *, levels: int = 3, iterations: int = 5, group: int = 0
) -> tuple[Case, ...]:
    """A Hessian, a packed weight and a trajectory of one layer as cases.

    Parameters
    ----------
    network : Network
        Evaluated in float64.
    name : str
        A layer with weights.
    images : Array, shape (n, ...)
        Preprocessed.
    levels : {3, 5, 7, 9, 11}, optional
        Size of the paper's set of values.
    iterations : int, optional
        Of ADMM; ρ is the mean diagonal of H, and it starts at the projection of W with λ = 0.
    group : int, optional
        Which group of a convolution ADMM runs on.

    Returns
    -------
    tuple of Case
        Of ``hessian``, ``pack`` and ``admm``, named ``recorded-<layer>``.

    Raises
    ------
    ValueError
        If there is no such layer or group, it has no weights, or H is 0.
    """
    check_choice("name", name, network.weighted)
    check_choice("levels", levels, POWERS)
    check_integer("iterations", iterations, at_least=1)
    network = network.astype(np.float64)
    layer = network[name].layer
    assert isinstance(layer, LinearMap)
    params = network.params[name]
    X = np.concatenate([one[0] for one in network.inputs_of(name, np.asarray(images, dtype=np.float64))])
    hessian = _hessian(name, X, _geometry(layer, np.asarray(params["weight"]), "bias" in params))
    pack = _pack(name, params, int(hessian.inputs["groups"]))
    blocks, packed = np.asarray(hessian.outputs["H"]), np.asarray(pack.outputs["W"])
    check_choice("group", group, range(len(blocks)))
    return hessian, pack, _admm(name, blocks[group], packed[group], POWERS[levels], iterations)


def _geometry(layer: LinearMap, weight: Array, bias: bool) -> dict[str, Any]:
    shape = weight.shape if weight.ndim == 4 else (*weight.shape, 1, 1)
    found: dict[str, Any] = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1)}
    groups = 1
    if isinstance(layer, Conv2d):
        groups, window = layer.groups, layer.window
        found = {"stride": window.stride, "padding": window.padding, "dilation": window.dilation}
    arrays = {key: np.asarray(value, dtype=np.int64) for key, value in found.items()}
    sizes = np.array([groups, shape[0] // groups, *shape[1:]], dtype=np.int64)
    return {"weight_shape": sizes, **arrays, "groups": groups, "bias": bias}


def _case(op: str, name: str, comment: str, **more: Any) -> Case:
    return Case(
        op=op,
        id=f"{op}/recorded-{name}",
        comment=f"{comment} of layer {name}; digits beyond those of double precision",
        tier="certified",
        flags=("recorded", "smoke"),
        certified="f64x2",
        **more,
    )


def _hessian(name: str, X: Float64Array, geometry: dict[str, Any]) -> Case:
    inputs = {"X": X, **geometry}
    rows = Reference().patches(**inputs)["patches"].astype(np.longdouble)
    n = len(rows)
    rows = rows.reshape(-1, *rows.shape[2:])
    found = {}
    for key, part in (("H", rows), ("bound", np.abs(rows))):
        blocks = [part[:, g].T @ part[:, g] * 2 / n for g in range(rows.shape[1])]  # [LDNQ] (10)
        found[key] = np.stack(blocks).astype(np.float64)
    return _case(
        "hessian",
        name,
        "H",
        inputs=inputs,
        outputs={"H": found["H"]},
        compare={"H": "dot"},
        bound={"H": found["bound"]},
    )


def _pack(name: str, params: Any, groups: int) -> Case:
    bias = np.asarray(params["bias"]) if "bias" in params else np.zeros(0)
    inputs = {"weight": np.asarray(params["weight"]), "bias": bias, "groups": groups}
    return _case("pack", name, "W", inputs=inputs, outputs=Reference().pack(**inputs), compare={"W": "exact"})


def _admm(name: str, H: Float64Array, W: Float64Array, values: Array, iterations: int) -> Case:
    rho = float(np.mean(np.diag(H)))
    if not rho > 0:
        raise ValueError(f"`name` must be a layer whose inputs are not all 0, got {name!r}.")
    start = _projected(W, values, 0.0)
    G, lam, alpha = start["G"], np.zeros_like(W), 0.0
    trace: dict[str, list[Any]] = {key: [] for key in ("Theta", "V", "Q", "alpha", "G", "lam")}
    bound: dict[str, list[Any]] = {key: [] for key in ("V", "alpha", "G", "lam")}
    margin, allowed, points, sizes = [], [], [G], [start["bound"]]
    for _ in range(iterations):
        theta = _proximal(H, W, G, lam, rho)
        V = theta + lam
        found = _projected(V, values, alpha)
        bound["V"].append(np.abs(theta) + np.abs(lam))
        bound["lam"].append(np.abs(lam) + np.abs(theta) + np.abs(found["G"]))
        bound["alpha"].append(found["size"])
        bound["G"].append(found["bound"])
        G, alpha = found["G"], float(found["alpha"])
        lam = lam + theta - G  # [LDNQ] (18)
        for key, array in (
            ("Theta", theta),
            ("V", V),
            ("Q", found["Q"]),
            ("alpha", alpha),
            ("G", G),
            ("lam", lam),
        ):
            trace[key].append(array)
        margin.append(found["margin"])
        allowed.append(found["allowed"])
        points.append(G)
        sizes.append(found["bound"])
    energies = [quadratic(H, W, point) for point in points]
    best = int(np.argmin([f for f, _ in energies]))
    outputs = {key: np.array(arrays) for key, arrays in trace.items()}
    others = {"E": "dot", "best": "exact", "result": "dot"}
    steps = {"Theta": "backward", "V": "ulp", "Q": "code", "alpha": "dot", "G": "dot", "lam": "ulp"}
    return _case(
        "admm",
        name,
        f"{iterations} iterations of ADMM",
        inputs={
            "H": H,
            "W_bar": W,
            "values": values,
            "rho": rho,
            "K": iterations,
            "G0": points[0],
            "lam0": np.zeros_like(W),
            "projection": "alternating",
            "returned": "best",
        },
        outputs={
            **outputs,
            "E": np.array([f for f, _ in energies]),
            "best": np.array(best, dtype=np.int64),
            "result": points[best],
        },
        compare={**steps, **others},
        bound={
            **{key: np.array(arrays) for key, arrays in bound.items()},
            "E": np.array([size for _, size in energies]),
            "result": sizes[best],
        },
        margin={"Q": np.stack(margin)},
        allowed={"Q": np.stack(allowed)},
        kappa=float(f"{np.linalg.cond(H + rho * np.eye(len(H))):.1e}"),
    )


def _proximal(
    H: Float64Array, W: Float64Array, G: Float64Array, lam: Float64Array, rho: float
) -> Float64Array:
    from scipy.linalg import cho_factor, cho_solve

    factor = cho_factor(H + rho * np.eye(len(H)), lower=True)
    theta = cho_solve(factor, H @ W + rho * (G - lam))  # [LDNQ] (15)
    for _ in range(REFINEMENTS):
        rest = twofold(H, W - theta, W, theta, [(rho, G), (-rho, lam), (-rho, theta)])
        theta = theta + cho_solve(factor, rest)
    return np.asarray(theta)


def _projected(V: Float64Array, values: Array, alpha0: float) -> dict[str, Any]:
    found = ends(V.ravel(), np.asarray(values), alpha0)
    assert found is not None  # without near codes there is one end
    end = found[0]
    margin, allowed = margins(V.ravel(), end, np.asarray(values))
    Q = np.asarray(values)[end.codes].reshape(V.shape)
    return {
        "Q": end.codes.reshape(V.shape),
        "alpha": end.alpha,
        "G": end.alpha * Q,
        "size": end.bound,
        "bound": end.bound * np.abs(Q),
        "margin": margin.reshape(V.shape),
        "allowed": allowed.reshape(V.shape),
    }
