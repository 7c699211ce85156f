"""ONNX files: the weights of their layers, given to a network of the same architecture.

Names in ONNX files are the exporter's own, so layers find each other by their order: the layers with weights
of the file, in its topological order, are those of the network, one by one. Kind, shape, stride, padding,
dilation and groups of each must be equal, so a wrong pair is an error, not a wrong result. Nothing in a file
is executed, and data outside of the file are not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from refldnq._typing import Array
from refldnq.errors import FormatError
from refldnq.layers import BatchNorm, Conv2d, Linear
from refldnq.network import Network, Node

KINDS = {"Conv": Conv2d, "Gemm": Linear, "BatchNormalization": BatchNorm}
"""Operators with weights, and the layers that they are."""

IGNORED = frozenset(
    {
        "Add",
        "AveragePool",
        "Concat",
        "Dropout",
        "Flatten",
        "GlobalAveragePool",
        "Identity",
        "MaxPool",
        "Pad",
        "Relu",
        "Reshape",
        "Softmax",
        "Sum",
        "Transpose",
    }
)
"""Operators without weights of their own; the architecture has their counterparts."""


@dataclass(frozen=True)
class OnnxLayer:
    """An operator with weights.

    Parameters
    ----------
    name : str
        Its name in the file, or that of its output if it has none.
    kind : str
        Operator: a key of `KINDS`.
    arrays : mapping of str to Array
        By the names that this package's layer has for them.
    settings : mapping of str to object
        What must agree with the layer's own.
    """

    name: str
    kind: str
    arrays: Mapping[str, Array]
    settings: Mapping[str, Any]


def load_onnx(path: str | Path) -> tuple[OnnxLayer, ...]:
    """The layers with weights of an ONNX file, in its order.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    tuple of OnnxLayer

    Raises
    ------
    FormatError
        If the file is no ONNX model, or an operator or its form is not known here.
    FileNotFoundError
        If there is no such file.
    ModuleNotFoundError
        If the package ``onnx`` is not installed.
    """
    try:
        import onnx
        import onnx.numpy_helper
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "Reading an ONNX file needs the package onnx: install `refldnq[onnx]`.", name="onnx"
        ) from None
    if not Path(path).is_file():
        raise FileNotFoundError(f"`{path}` must be an ONNX file, found no such file.")
    try:
        graph = onnx.load(path, load_external_data=False).graph
        tensors = {
            tensor.name: np.asarray(onnx.numpy_helper.to_array(tensor)) for tensor in graph.initializer
        }
    except Exception as error:  # a damaged file raises nearly anything
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FormatError(f"`{path}` must be an ONNX model, got: {first}") from None
    layers = []
    for node in graph.node:
        if node.op_type in KINDS:
            attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
            layers.append(_layer(Path(path), node, tensors, attributes))
        elif node.op_type not in IGNORED:
            known = ", ".join(sorted((*KINDS, *IGNORED)))
            raise FormatError(f"`{path}` must hold the operators {known}; got {node.op_type!r:.80}.")
    if not layers:
        raise FormatError(f"`{path}` must hold layers with weights, found none.")
    return tuple(layers)


def _layer(path: Path, node: Any, tensors: Mapping[str, Array], attributes: Mapping[str, Any]) -> OnnxLayer:
    name = node.name or (node.output[0] if node.output else "?")

    def wrong(problem: str) -> FormatError:
        return FormatError(f"`{path}`, operator {name!r:.80}: {problem}")

    keys: tuple[str, ...] = ("weight", "bias")
    if node.op_type == "BatchNormalization":
        keys = ("weight", "bias", "running_mean", "running_var")
    given = [each for each in node.input[1:] if each]
    missing = [each for each in given if each not in tensors]
    if missing:
        raise wrong(f"must have constant weights, got none for {missing[0]!r:.80}.")
    if not given or len(given) > len(keys) or (len(keys) == 4 and len(given) < 4):
        raise wrong(f"must have {len(keys)} weights, got {len(given)}.")
    arrays = {key: tensors[each] for key, each in zip(keys, given, strict=False)}
    settings: dict[str, Any] = {}
    if node.op_type == "Conv":
        if attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
            raise wrong(f"must have explicit padding, got {attributes['auto_pad']!r:.40}.")
        if arrays["weight"].ndim != 4:
            raise wrong(f"must be two-dimensional, got weights of shape {arrays['weight'].shape}.")
        top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
        settings = {
            "stride": tuple(attributes.get("strides", (1, 1))),
            "padding": (top, bottom, left, right),
            "dilation": tuple(attributes.get("dilations", (1, 1))),
            "groups": attributes.get("group", 1),
        }
    elif node.op_type == "Gemm":
        scales = (attributes.get("alpha", 1.0), attributes.get("beta", 1.0), attributes.get("transA", 0))
        if scales != (1.0, 1.0, 0):
            raise wrong(f"must have alpha 1, beta 1 and transA 0, got {scales}.")
        if not attributes.get("transB", 0):
            arrays["weight"] = np.ascontiguousarray(arrays["weight"].T)
    else:
        settings = {"eps": float(np.float32(attributes.get("epsilon", 1e-5)))}
    return OnnxLayer(name, node.op_type, arrays, settings)


def assign_onnx(network: Network, layers: tuple[OnnxLayer, ...]) -> Network:
    """A network with the weights of an ONNX file.

    Parameters
    ----------
    network : Network
        Its layers say what is wanted.
    layers : tuple of OnnxLayer
        From `load_onnx`.

    Returns
    -------
    Network
        float32, or float64 if one array is.

    Raises
    ------
    FormatError
        If the layers are not the network's, one by one, or a weight is not of finite floats.

    Examples
    --------
    >>> nodes = (Node("fc", Linear(1, 1, bias=False), ("input",)),)
    >>> network = Network(nodes, {"fc": {"weight": np.zeros((1, 1))}}, (1,))
    >>> layer = OnnxLayer("gemm", "Gemm", {"weight": np.ones((1, 1), np.float32)}, {})
    >>> assign_onnx(network, (layer,)).params["fc"]["weight"]
    array([[1.]], dtype=float32)
    """
    wanted = [node for node in network.nodes if node.name in network.params]
    if len(wanted) != len(layers):
        raise FormatError(
            f"The weights must fit the architecture; it has {len(wanted)} layers with weights, they "
            f"{len(layers)}."
        )
    for node, layer in zip(wanted, layers, strict=True):
        _check_pair(network, node, layer)
    double = any(array.dtype == np.float64 for layer in layers for array in layer.arrays.values())
    dtype = np.float64 if double else np.float32
    params = {
        node.name: {key: array.astype(dtype) for key, array in layer.arrays.items()}
        for node, layer in zip(wanted, layers, strict=True)
    }
    return Network(network.nodes, params, network.input_shape)


def _check_pair(network: Network, node: Node, layer: OnnxLayer) -> None:
    def wrong(what: str, want: object, got: object) -> FormatError:
        return FormatError(
            f"The weights must fit the architecture; {node.name} must have {what} {want}, got {got} in "
            f"{layer.name!r:.80}."
        )

    if not isinstance(node.layer, KINDS[layer.kind]):
        raise wrong("the kind", type(node.layer).__name__, layer.kind)
    own = network.params[node.name]
    if set(own) != set(layer.arrays):
        raise wrong("the arrays", sorted(own), sorted(layer.arrays))
    for key, array in layer.arrays.items():
        if array.shape != own[key].shape:
            raise wrong(f"{key} of shape", own[key].shape, array.shape)
        if array.dtype not in (np.float32, np.float64):
            raise wrong(f"{key} of type", "float32 or float64", array.dtype)
        if not np.isfinite(array).all():
            raise wrong(key, "finite", "NaN or infinity")
    for key, value in layer.settings.items():
        held = getattr(node.layer, key)
        same = np.float32(held) == np.float32(value) if key == "eps" else held == value
        if not same:
            raise wrong(key, held, value)
