"""ONNX files: the weights of their layers, given to a network of the same architecture.

Names in ONNX files are the exporter's own, so layers find each other by their order: the layers with weights
of the file, in its topological order, are those of the network, one by one. Kind, shape, stride, padding,
dilation and groups of each must be equal, and so must be the layers with weights that it follows: a wrong
pair is an error, not a wrong result (but for branches that are alike in all of that, whose order in a sum or
a concatenation is taken as it is). Nothing in a file is executed, and data outside of the file are not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from refldnq._typing import Array
from refldnq.errors import FormatError
from refldnq.layers import BatchNorm, Conv2d, Linear
from refldnq.network import INPUT, Network, Node

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
    after : frozenset of int, optional
        The places of the layers with weights that it follows, over operators without.
    """

    name: str
    kind: str
    arrays: Mapping[str, Array]
    settings: Mapping[str, Any]
    after: frozenset[int] = frozenset()


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
        if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in graph.initializer):
            raise ValueError("weights in other files, which are not read")
        tensors = {
            tensor.name: np.asarray(onnx.numpy_helper.to_array(tensor)) for tensor in graph.initializer
        }
    except Exception as error:  # a damaged file raises nearly anything
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FormatError(f"`{path}` must be an ONNX model, got: {first}") from None
    layers: list[OnnxLayer] = []
    before: dict[str, frozenset[int]] = {}  # by tensor: the layers with weights that it comes from
    for node in graph.node:
        after = frozenset[int]().union(*(before.get(each, frozenset()) for each in node.input))
        if node.op_type in KINDS:
            layer = _layer_of(Path(path), node, tensors)
            layers.append(replace(layer, after=after))
            after = frozenset({len(layers) - 1})
        before |= dict.fromkeys(node.output, after)
        if node.op_type in KINDS:
            continue
        if node.op_type == "Pad":
            _check_no_padding(Path(path), node, tensors)
        elif node.op_type not in IGNORED:
            known = ", ".join(sorted((*KINDS, *IGNORED)))
            raise FormatError(f"`{path}` must hold the operators {known}; got {node.op_type!r:.80}.")
    if not layers:
        raise FormatError(f"`{path}` must hold layers with weights, found none.")
    return tuple(layers)


def _layer_of(path: Path, node: Any, tensors: Mapping[str, Array]) -> OnnxLayer:
    import onnx.helper

    try:
        attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
        return _layer(path, node, tensors, attributes)
    except FormatError:
        raise
    except Exception as error:  # an attribute of another type or length
        raise FormatError(f"`{path}`, operator {node.name!r:.80}: {error}") from None


def _check_no_padding(path: Path, node: Any, tensors: Mapping[str, Array]) -> None:
    # Padding of its own is one that no layer here has.
    import onnx.helper

    known = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
    pads = known.get("pads", tensors.get(node.input[1]) if len(node.input) > 1 else None)
    if pads is None or np.any(np.asarray(pads) != 0):
        raise FormatError(f"`{path}`, operator {node.name!r:.80}: must not pad by itself.")


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
    for place, (node, layer) in enumerate(zip(wanted, layers, strict=True)):
        _check_pair(network, node, layer)
        after = _sources(network, node)
        if after != {wanted[index].name for index in layer.after}:
            names = sorted(wanted[index].name for index in layer.after if index < place)
            raise FormatError(
                f"The weights must fit the architecture; {node.name} must follow {sorted(after)}, "
                f"{layer.name!r:.80} follows {names}."
            )
    double = any(array.dtype == np.float64 for layer in layers for array in layer.arrays.values())
    dtype = np.float64 if double else np.float32
    params = {
        node.name: {key: array.astype(dtype) for key, array in layer.arrays.items()}
        for node, layer in zip(wanted, layers, strict=True)
    }
    return replace(network, params=params)


def _sources(network: Network, node: Node) -> set[str]:
    # The layers with weights that a node follows, over nodes without.
    found: set[str] = set()
    for name in node.inputs:
        if name == INPUT:
            continue
        before = next(one for one in network.nodes if one.name == name)
        found |= {name} if name in network.params else _sources(network, before)
    return found


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
