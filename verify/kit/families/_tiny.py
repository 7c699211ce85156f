"""The kit's network in exact numbers: its output, the gradient of the output error, Algorithm 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from refldnq._typing import Array
from refldnq.verify.kit.contract import MOVING, TINY, WEIGHTED
from refldnq.verify.kit.families._exact import admm, alternate, nearest
from refldnq.verify.kit.families._layers import forward, pull
from refldnq.verify.kit.families._numbers import fractions
from refldnq.verify.kit.families._scalar import Number, number, numbers, stored, values
from refldnq.verify.kit.reference_layers import BEHIND

Inputs = Mapping[str, Any]
Arrays = Mapping[str, Array]

ROOM = 2.0**-9
"""Least distance from a kink or a threshold, as a share of what the number is made of (chosen here: far above
what float32 can confuse in a network of three layers)."""


@dataclass(kw_only=True)
class Run:
    """Algorithm 1 on the network: answers, and what `Case` says of each."""

    outputs: dict[str, Array] = field(default_factory=dict)
    margin: dict[str, Array] = field(default_factory=dict)
    allowed: dict[str, Array] = field(default_factory=dict)


def arrays_of(inputs: Inputs, prefix: str = "") -> dict[str, Array]:
    """The network's arrays as numbers."""
    return {name: numbers(inputs[prefix + name]) for name in TINY}


def output(arrays: Arrays, inputs: Inputs, *, mode: str = "eval", stop: str = "") -> Array:
    """The network's output, or the input of one layer.

    Raises
    ------
    ValueError
        If a number is so near to a kink of ReLU that rounding may take it across.
    """
    geometry = {"stride": inputs["stride"], "padding": inputs["padding"]}
    statistics = {"running_mean": arrays["bn_mean"], "running_var": arrays["bn_var"], "eps": inputs["eps"]}
    x = stored(numbers(inputs["X"]))
    steps: list[tuple[str, dict[str, Any]]] = [
        ("conv", {"layer": "conv2d", "weight": arrays["conv_weight"], **geometry}),
        ("bn", {"layer": "batchnorm", "mode": mode, "momentum": 0.1, **statistics}),
        ("relu", {"layer": "relu"}),
        ("flatten", {"layer": "flatten"}),
        ("fc1", {"layer": "linear", "weight": arrays["fc1_weight"], "bias": arrays["fc1_bias"]}),
        ("relu", {"layer": "relu"}),
        ("fc2", {"layer": "linear", "weight": arrays["fc2_weight"], "bias": arrays["fc2_bias"]}),
    ]
    steps[1][1].update(weight=arrays["bn_weight"], bias=arrays["bn_bias"])
    for name, layer in steps:
        if name == stop:
            break
        raw = forward({**layer, "x": x})["y"]
        if name in ("bn", "fc1"):
            _clear(raw)
        x = stored(raw)
    return x


def _clear(x: Array) -> None:
    # What ReLU takes next.
    for one in x.ravel():
        if not (abs(float(one.value)) >= ROOM * one.size):
            raise ValueError(f"`x` must be clear of 0, got {float(one.value)} made of {one.size}.")


def error(y: Array, target: Array) -> Number:
    """The output error (6) per image.

    Examples
    --------
    >>> error(numbers([[3.0]]), numbers([[1.0]])).value
    Fraction(4, 1)
    """
    difference = (y - target).ravel()
    total: Number = sum((d * d for d in difference[1:]), difference[0] * difference[0])
    return total / number(len(y))


def update_grad(inputs: Inputs) -> dict[str, Array]:
    """The loss and its gradient behind the frozen layers, arrays of numbers."""
    arrays = arrays_of(inputs)
    target = output(arrays_of(inputs, "teacher_"), inputs)
    mode = "train" if inputs["statistics"] == "batch" else "eval"
    return _gradient(arrays, target, inputs, mode, BEHIND[int(inputs["frozen"])])


def _gradient(
    arrays: Arrays, target: Array, inputs: Inputs, mode: str, names: tuple[str, ...]
) -> dict[str, Array]:
    loss = error(output(arrays, inputs, mode=mode), target)
    flat = np.array([loss], dtype=object)
    found = pull(flat, numbers([1.0]), [arrays[name] for name in names])
    return {"loss": flat.reshape(()), **{f"d{name}": one for name, one in zip(names, found, strict=True)}}


def network(inputs: Inputs) -> Run:
    """Algorithm 1, layer by layer.

    Raises
    ------
    ValueError
        If a decision (a code, the best iterate, a unit's sign) is so near that rounding may turn it.
    """
    first = arrays = arrays_of(inputs)
    target = _leaves(output(first, inputs))
    run, losses = Run(), []
    for count, layer in enumerate(WEIGHTED, start=1):
        x = _leaves(output(arrays, inputs, stop=layer))
        weight = arrays[f"{layer}_weight"]
        H = _hessian(x, weight, inputs)  # [LDNQ] Algorithm 1, step 2
        W = weight.reshape(len(weight), -1).T
        codes, alpha, margin, allowed = _quantize(H, W, inputs)  # [LDNQ] Algorithm 1, step 3
        if not (margin.min() >= ROOM):
            raise ValueError(f"`W` of {layer} must be clear of thresholds, got a margin of {margin.min()}.")
        Q = numbers(inputs["values"])[codes]
        arrays = {**arrays, f"{layer}_weight": _leaves((Q * alpha).T.reshape(weight.shape))}
        run.outputs.update(
            {f"H_{layer}": H, f"W_{layer}": W, f"alpha_{layer}": np.array(alpha, dtype=object)}
        )
        run.outputs[f"Q_{layer}"] = codes
        run.margin[f"Q_{layer}"], run.allowed[f"Q_{layer}"] = margin, allowed
        for _ in range(int(inputs["steps"])):  # [LDNQ] Algorithm 1, step 4
            names = BEHIND[count]
            found = _gradient(arrays, target, inputs, "eval", names)
            losses.append(found["loss"].item())
            rate = Number(inputs["rate"])
            arrays = {**arrays, **{name: _leaves(arrays[name] - found[f"d{name}"] * rate) for name in names}}
    run.outputs.update(
        {name: arrays[name] for name in MOVING if not name.endswith("weight") or name == "bn_weight"}
    )
    if losses:
        run.outputs["losses"] = np.array(losses, dtype=object)
    run.outputs["y"] = output(arrays, inputs)
    return run


def _leaves(array: Array) -> Array:
    # Stored numbers without their history: nothing is differentiated through them.
    found = np.empty(array.shape, dtype=object)
    found.ravel()[:] = [Number(one.value, depth=0, carried=one.error) for one in array.ravel()]
    return found


def _hessian(x: Array, weight: Array, inputs: Inputs) -> Array:
    rows = x
    if weight.ndim == 4:
        _, c, kh, kw = weight.shape
        eye = np.eye(c * kh * kw).reshape(-1, c, kh, kw)
        geometry = {"stride": inputs["stride"], "padding": inputs["padding"]}
        taps = forward({"layer": "conv2d", "x": x, "weight": eye, **geometry})[
            "y"
        ]  # a unit kernel picks a row
        rows = np.moveaxis(taps, 1, 3).reshape(-1, len(eye))
    rows = _leaves(rows)
    return np.asarray((rows.T @ rows) * Number(Fraction(2, len(x)), depth=0))  # [LDNQ] (10)


def _quantize(H: Array, W: Array, inputs: Inputs) -> tuple[Array, Number, Array, Array]:
    levels, exact = fractions(inputs["values"]), values(W)
    if inputs["solver"] == "direct":
        sizes = [one if one.value >= 0 else -one for one in W.ravel()]
        alpha = sum(sizes[1:], sizes[0]) / number(W.size)
        codes, margin, allowed = nearest(exact.ravel(), alpha.value, levels, "smaller")
        return codes.reshape(W.shape), alpha, margin.reshape(W.shape), allowed.reshape(W.shape)
    start = alternate(exact.ravel(), levels, Fraction(0), -1, "smaller")
    G0 = (start.alpha * levels[start.codes]).reshape(W.shape)
    given = {
        "H": values(H),
        "W_bar": exact,
        "G0": G0,
        "lam0": 0 * exact,
        "values": levels,
        "rho": inputs["rho"],
    }
    found = admm({**given, "K": inputs["K"], "projection": "alternating", "returned": "best"})
    best = int(found.outputs["best"])
    if not (found.margin["best"] >= ROOM):
        raise ValueError(f"`E` must have a clear least one, got a lead of {found.margin['best']}.")
    steps = [start.margin.reshape(W.shape), *found.margin["Q"]]
    margin = np.minimum.reduce(steps)
    if best == 0:
        codes, value, allowed = start.codes.reshape(W.shape), start.alpha, start.allowed.reshape(W.shape)
    else:
        codes, value = found.outputs["Q"][best - 1], found.outputs["alpha"][best - 1]
        allowed = found.allowed["Q"][best - 1]
    # A backward error of 30 d u in every solve, as the rules allow, and the errors of H and W, times κ.
    history = sum(
        max(one.error for one in A.ravel()) / max(abs(float(one.value)) for one in A.ravel()) for A in (H, W)
    )
    depth = int(np.ceil(max(int(inputs["K"]), 1) * found.kappa * (30 * len(H) + history)))
    return codes, Number(value, depth=depth), margin, allowed
