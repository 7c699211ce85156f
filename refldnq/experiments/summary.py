"""What a model holds, as text and as JSON."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from refldnq.experiments.record import plain
from refldnq.model import Model

COLUMNS = ("layer", "kind", "output", "numbers", "levels", "α", "zeros")
"""Headings of the table of layers."""


def model_json(model: Model) -> dict[str, Any]:
    """What a model holds, as JSON values.

    Parameters
    ----------
    model : Model
        Quantized or not.

    Returns
    -------
    dict
        ``input_shape``, ``dtype``, ``classes`` (number), ``preprocess``, ``numbers`` (entries of all arrays),
        ``bytes`` (of the arrays as they are; and with codes of ceil(log2(levels)) bits, their scales and
        values in float32), ``layers`` (name, kind, output shape, numbers, and of quantized ones levels,
        alpha, zero_fraction) and ``provenance``.
    """
    network = model.network
    layers: list[dict[str, Any]] = []
    dense = packed = 0.0
    for node in network.nodes:
        arrays = network.params.get(node.name, {})
        numbers = sum(array.size for array in arrays.values())
        layer: dict[str, Any] = {
            "name": node.name,
            "kind": type(node.layer).__name__,
            "output": list(network.shapes[node.name]),
            "numbers": numbers,
        }
        dense += numbers * network.dtype.itemsize
        code = model.quantized.get(node.name)
        if code is not None:
            levels = len(code.values)
            layer |= {
                "levels": levels,
                "alpha": plain(np.asarray(code.alpha)),
                "zero_fraction": float(np.mean(code.values[code.codes] == 0)),
            }
            bits = math.ceil(math.log2(levels)) * code.codes.size + 32 * (np.size(code.alpha) + levels)
            packed += bits / 8 + (numbers - code.codes.size) * network.dtype.itemsize
        else:
            packed += numbers * network.dtype.itemsize
        layers.append(layer)
    return {
        "input_shape": list(network.input_shape),
        "dtype": str(network.dtype),
        "classes": None if model.classes is None else len(model.classes),
        "preprocess": plain(model.preprocess),
        "numbers": sum(layer["numbers"] for layer in layers),
        "bytes": {"arrays": int(dense), "packed": math.ceil(packed)},
        "layers": layers,
        "provenance": plain(model.provenance),
    }


def model_text(model: Model) -> str:
    """What a model holds, as lines of text: a heading, the layers that own arrays, how it was made.

    Parameters
    ----------
    model : Model
        Quantized or not.

    Returns
    -------
    str
    """
    facts = model_json(model)
    rows: list[tuple[str, ...]] = [COLUMNS]
    for layer in facts["layers"]:
        if not layer["numbers"]:
            continue
        shape = "x".join(map(str, layer["output"]))
        cells: tuple[str, ...] = (layer["name"], layer["kind"], shape, str(layer["numbers"]))
        if "levels" in layer:
            scales = np.asarray(layer["alpha"])
            alpha = f"{scales.item():.4g}" if scales.size == 1 else f"{scales.min():.3g}..{scales.max():.3g}"
            cells += (str(layer["levels"]), alpha, f"{100 * layer['zero_fraction']:.1f} %")
        else:
            cells += ("", "", "")
        rows.append(cells)
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    shape = "x".join(map(str, facts["input_shape"]))
    head = f"input {shape}, {facts['dtype']}, {len(facts['layers'])} layers, {facts['numbers']} numbers"
    size = f"size {facts['bytes']['arrays']} bytes; with packed codes {facts['bytes']['packed']} bytes"
    preprocess = f"preprocessing: {facts['preprocess'] or 'none; evaluate and quantize refuse this model'}"
    made = [f"{key}: {_short(value)}" for key, value in facts["provenance"].items()]
    return "\n".join([head, size, preprocess, *made, "", *lines])


def _short(value: Any, width: int = 90) -> str:
    text = str(value)
    return text if len(text) <= width else text[: width - 3] + "..."
