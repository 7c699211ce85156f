"""Layers in exact numbers: forward by slices of padded arrays, backward by the numbers' own derivatives."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np

from refldnq._typing import Array
from refldnq.verify.kit.families._scalar import Number, gradients, number, numbers

Inputs = Mapping[str, Any]

GRADIENTS: Mapping[str, str] = {"x": "dx", "x2": "dx2", "weight": "dweight", "bias": "dbias"}
"""The answer that is the gradient with respect to an input."""


def forward(inputs: Inputs, *, near: bool = False) -> dict[str, Array]:
    """The output of one layer, and its new running statistics in train mode.

    Parameters
    ----------
    inputs : mapping
        Of the operation ``forward``; arrays of floats or of numbers.
    near : bool, optional
        Whether irrational roots may be near fractions; else they are refused.

    Returns
    -------
    dict of str to Array
        Arrays of numbers.

    Examples
    --------
    >>> forward({"layer": "relu", "x": np.array([[-1.0, 2.0]])})["y"][0, 1].value
    Fraction(2, 1)
    """
    x = numbers(inputs["x"])
    kind = inputs["layer"]
    if kind == "linear":
        return {"y": _biased(x @ numbers(inputs["weight"]).T, inputs)}
    if kind == "conv2d":
        return {"y": _biased(_convolve(x, inputs), inputs)}
    if kind == "batchnorm":
        return _normalize(x, inputs, near)
    if kind == "relu":
        return {"y": _map(x, Number.clipped)}
    if kind == "flatten":
        return {"y": x.reshape(len(x), -1)}
    if kind == "add":
        return {"y": x + numbers(inputs["x2"])}
    if kind == "concat":
        return {"y": np.concatenate([x, numbers(inputs["x2"])], axis=1)}
    if kind == "dropout":
        kept = 1 - number(Fraction(inputs["p"]))
        return {"y": _dropped(x, inputs["mask"], kept) if inputs.get("mode", "eval") == "train" else x}
    if kind == "zeropad":
        return {"y": _pad(x, inputs["padding"], number(0))}
    if kind == "globalpool":
        return {"y": x.sum(axis=(2, 3), keepdims=True) / number(x.shape[2] * x.shape[3])}
    if kind == "shortcut":
        sh, sw = inputs["stride"]
        extra = int(inputs["out_channels"]) - x.shape[1]
        ends = [
            np.full((len(x), k, *x[:, :, ::sh, ::sw].shape[2:]), number(0))
            for k in (extra // 2, -(-extra // 2))
        ]
        return {"y": np.concatenate([ends[0], x[:, :, ::sh, ::sw], ends[1]], axis=1)}
    return {"y": _pool(x, inputs)}


def backward(inputs: Inputs, *, near: bool = False) -> dict[str, Array]:
    """Gradients of ⟨dy, y⟩ in everything that the layer has, arrays of numbers.

    Examples
    --------
    >>> given = {"layer": "relu", "x": np.array([[-1.0, 2.0]]), "dy": np.array([[5.0, 7.0]])}
    >>> [one.value for one in backward(given)["dx"][0]]
    [Fraction(0, 1), Fraction(7, 1)]
    """
    names = [name for name in GRADIENTS if name in inputs and np.ndim(inputs[name]) and np.size(inputs[name])]
    arrays = {name: numbers(inputs[name]) for name in names}
    y = forward({**inputs, **arrays}, near=near)["y"]
    return {
        GRADIENTS[name]: found
        for name, found in zip(names, pull(y, numbers(inputs["dy"]), arrays.values()), strict=True)
    }


def pull(y: Array, dy: Array, arrays: Any) -> list[Array]:
    """The gradients of ⟨dy, y⟩ in every array of numbers.

    Examples
    --------
    >>> x = numbers([3.0])
    >>> pull(x * x, numbers([1.0]), [x])[0][0].value
    Fraction(6, 1)
    """
    wanted = list(arrays)
    flat = [one for array in wanted for one in array.ravel()]
    found = gradients(y.ravel().tolist(), dy.ravel().tolist(), flat)
    parts, first = [], 0
    for array in wanted:
        part = np.empty(array.shape, dtype=object)
        part.ravel()[:] = found[first : first + array.size]
        parts.append(part)
        first += array.size
    return parts


def _map(x: Array, of: Any) -> Array:
    y = np.empty(x.shape, dtype=object)
    y.ravel()[:] = [of(one) for one in x.ravel()]
    return y


def _dropped(x: Array, mask: Any, kept: Number) -> Array:
    y = np.full(x.shape, number(0), dtype=object)
    for index in np.argwhere(np.asarray(mask) != 0):
        y[tuple(index)] = x[tuple(index)] / kept
    return y


def _biased(y: Array, inputs: Inputs) -> Array:
    bias = inputs.get("bias")
    if bias is None or not np.size(bias):
        return y
    return y + numbers(bias).reshape(1, -1, *[1] * (y.ndim - 2))


def _pad(x: Array, padding: Any, value: Any) -> Array:
    top, bottom, left, right = (int(side) for side in padding)
    n, c, h, w = x.shape
    padded = np.full((n, c, h + top + bottom, w + left + right), value, dtype=object)
    padded[:, :, top : top + h, left : left + w] = x
    return padded


def _convolve(x: Array, inputs: Inputs) -> Array:
    weight, groups = numbers(inputs["weight"]), int(inputs.get("groups", 1))
    (sh, sw), (dh, dw) = inputs["stride"], inputs.get("dilation", (1, 1))
    padded = _pad(x, inputs["padding"], None)
    m, c, kh, kw = weight.shape
    ho = (padded.shape[2] - dh * (kh - 1) - 1) // sh + 1
    wo = (padded.shape[3] - dw * (kw - 1) - 1) // sw + 1
    y = np.full((len(x), m, ho, wo), number(0), dtype=object)
    for i, o, p, q in np.ndindex(y.shape):
        first = o // (m // groups) * c
        window = padded[i, first : first + c, p * sh : p * sh + dh * kh : dh, q * sw : q * sw + dw * kw : dw]
        terms = [a * b for a, b in zip(window.ravel(), weight[o].ravel(), strict=True) if a is not None]
        y[i, o, p, q] = sum(terms[1:], terms[0]) if terms else number(0)
    return y


def _normalize(x: Array, inputs: Inputs, near: bool) -> dict[str, Array]:
    scale, shift = numbers(inputs["weight"]), numbers(inputs["bias"])
    kept_mean, kept_var = numbers(inputs["running_mean"]), numbers(inputs["running_var"])
    eps, train = Number(inputs["eps"]), inputs.get("mode", "eval") == "train"
    y = np.empty(x.shape, dtype=object)
    statistics = {"new_running_mean": kept_mean.copy(), "new_running_var": kept_var.copy()}
    for c in range(x.shape[1]):
        mean, variance = kept_mean[c], kept_var[c]
        if train:
            values = list(x[:, c].ravel())
            mean = _mean(values, len(values))
            squares = [(value - mean) * (value - mean) for value in values]
            variance = _mean(squares, len(values))
            new = Number(inputs["momentum"])
            statistics["new_running_mean"][c] = (1 - new) * kept_mean[c] + new * mean
            statistics["new_running_var"][c] = (1 - new) * kept_var[c] + new * _mean(squares, len(values) - 1)
        factor = scale[c] * (variance + eps).sqrt(near=near).inverse()
        y[:, c] = _map(x[:, c], lambda one, m=mean, f=factor, b=shift[c]: (one - m) * f + b)
    return {"y": y, **statistics} if train else {"y": y}


def _mean(values: list[Any], count: int) -> Any:
    return sum(values[1:], values[0]) / number(count)


def _pool(x: Array, inputs: Inputs) -> Array:
    (kh, kw), (sh, sw) = inputs["kernel"], inputs["stride"]
    top, bottom, left, right = (int(side) for side in inputs["padding"])
    h, w = x.shape[2:]
    starts = [
        [
            a
            for a in range(-before, size + after, step)
            if a + k <= size + after or (inputs.get("ceil_mode") and a + k < size + after + step and a < size)
        ]
        for size, k, step, before, after in ((h, kh, sh, top, bottom), (w, kw, sw, left, right))
    ]
    y = np.empty((*x.shape[:2], len(starts[0]), len(starts[1])), dtype=object)
    for (p, a), (q, b) in product(enumerate(starts[0]), enumerate(starts[1])):
        rows, cols = slice(max(a, 0), min(a + kh, h)), slice(max(b, 0), min(b + kw, w))
        counted = (rows.stop - rows.start) * (cols.stop - cols.start)
        if inputs.get("count_include_pad", True):
            counted = (min(a + kh, h + bottom) - a) * (min(b + kw, w + right) - b)
        for i, c in np.ndindex(x.shape[:2]):
            window = list(x[i, c, rows, cols].ravel())
            if inputs["layer"] == "maxpool":
                y[i, c, p, q] = max(window, key=lambda one: one.value)  # the first of equals
            else:
                y[i, c, p, q] = _mean(window, counted)
    return y
