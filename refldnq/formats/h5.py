"""The project's model file: HDF5, no pickle, every field checked when it is read.

Layout, schema ``refldnq-model/1``::

    /                      attributes: schema, graph (JSON), input_shape, dtype, preprocess (JSON, if known),
                           classes (JSON, if known), provenance (JSON), kernel_order, loss (unless it is
                           cross_entropy)
    /params/<layer>/<key>  arrays of the network, float32 or float64; not those that codes give
    /quantized/<layer>     attribute: bias
        codes   (g, d, m)  int8, indices into values; d in order (c, kh, kw), the bias row last
        alpha   () or (g, m)  float64
        values  (k,)       float64, ascending

A quantized weight is alpha * values[codes] in float64, rounded to ``dtype``: what is read is bit for bit what
was written. The graph is a list of nodes ``{"name", "layer", "settings", "inputs"}`` in topological order.
Arrays lie in the file contiguously and uncompressed, so that a small file cannot ask for much memory. Nothing
else is allowed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from refldnq._typing import Array
from refldnq.data.preprocess import Preprocess
from refldnq.errors import FormatError
from refldnq.formats.atomic import atomic_path
from refldnq.layers import LAYERS
from refldnq.layers.base import Layer
from refldnq.loss import LOSSES
from refldnq.model import Model, QuantizedWeight
from refldnq.network import Network, Node

SCHEMA = "refldnq-model/1"
KERNEL_ORDER = "c,kh,kw; bias row last"
REQUIRED = ("schema", "graph", "input_shape", "dtype", "kernel_order", "provenance")
OPTIONAL = ("preprocess", "classes", "loss")
"""Attributes of the file."""

_MOST_BYTES = 1 << 33
"""Arrays above 8 GiB are refused: a damaged header must not ask for all memory."""

_FOREIGN = (ValueError, TypeError, KeyError, OSError, RuntimeError, OverflowError, MemoryError)
"""What h5py, JSON and the guards of the classes raise on damaged content."""


def save_model(path: str | Path, model: Model) -> None:
    """Write a model file, whole or not at all.

    Parameters
    ----------
    path : str or Path
        The file; an older one is replaced.
    model : Model
        What to write.

    Raises
    ------
    OSError
        If the file cannot be written.
    ValueError
        If a layer is of a type that files do not know, its name cannot be a group's, or the provenance is
        not JSON.
    """
    header = _header(model)
    from_codes = {
        (name, key)
        for name, code in model.quantized.items()
        for key in code.arrays(model.network[name], model.network.dtype)
    }
    with atomic_path(path) as temporary, h5py.File(temporary, "w", libver="v110") as file:
        for name, value in header.items():
            file.attrs[name] = value
        params = file.create_group("params")
        for layer, arrays in model.network.params.items():
            group = params.create_group(layer)
            for key, array in arrays.items():
                if (layer, key) not in from_codes:
                    group.create_dataset(key, data=array)
        quantized = file.create_group("quantized")
        for layer, code in model.quantized.items():
            group = quantized.create_group(layer)
            group.attrs["bias"] = bool(code.bias)
            group.create_dataset("codes", data=code.codes)
            group.create_dataset("alpha", data=code.alpha)
            group.create_dataset("values", data=code.values)


def _header(model: Model) -> dict[str, Any]:
    graph = []
    for node in model.network.nodes:
        kind = type(node.layer).__name__
        if LAYERS.get(kind) is not type(node.layer):
            raise ValueError(f"`model` must hold layers of the types {sorted(LAYERS)}, got {kind}.")
        if not _is_name(node.name):
            raise ValueError(f"`model` must hold layers whose names lack '/', got {node.name!r}.")
        settings = {item.name: getattr(node.layer, item.name) for item in fields(node.layer)}
        graph.append({"name": node.name, "layer": kind, "settings": settings, "inputs": node.inputs})
    try:
        provenance = json.dumps(dict(model.provenance), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"`provenance` must hold JSON values, got: {error}.") from None
    header: dict[str, Any] = {
        "schema": SCHEMA,
        "graph": json.dumps(graph),
        "input_shape": np.array(model.network.input_shape, dtype=np.int64),
        "dtype": str(model.network.dtype),
        "kernel_order": KERNEL_ORDER,
        "provenance": provenance,
    }
    if model.preprocess is not None:
        header["preprocess"] = model.preprocess.to_json()
    if model.classes is not None:
        header["classes"] = json.dumps(list(model.classes))
    if model.network.loss != "cross_entropy":  # older readers know no other, and no such attribute
        header["loss"] = model.network.loss
    return header


def load_model(path: str | Path) -> Model:
    """Read a model file.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    Model

    Raises
    ------
    FormatError
        If the file is not a model file or a field is missing, misshapen, not finite or of the wrong type; the
        message names the file and the field.
    FileNotFoundError
        If there is no such file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"`{path}` must be a model file, found no such file.")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise FormatError(f"`{path}` must be an HDF5 model file, got: {error}.") from None
    with file:
        return _Reader(Path(path), file).model()


class _Reader:
    """One open file; every failure is told with the file's name and the field's."""

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.path, self.file = path, file

    def wrong(self, field: str, problem: object) -> FormatError:
        return FormatError(f"`{self.path}`, field `{field}`: {problem}")

    def known(self, found: Iterable[str], place: str, names: Iterable[str]) -> None:
        for name in sorted(set(found) - set(names)):
            raise self.wrong(f"{place}{name}", f"is not a field of {SCHEMA}.")

    def attribute(self, parent: h5py.Group, name: str) -> Any:
        field = f"{parent.name}/{name}".removeprefix("//")
        try:
            if name not in parent.attrs:
                raise self.wrong(field, "is missing.")
            return parent.attrs[name]
        except FormatError:
            raise
        except _FOREIGN as error:
            raise self.wrong(field, error) from None

    def text(self, name: str) -> str:
        value = self.attribute(self.file, name)
        if not isinstance(value, str):
            raise self.wrong(name, f"must be text, got {type(value).__name__}.")
        return value

    def json(self, name: str, kind: type) -> Any:
        text = self.text(name)
        try:
            value = json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise self.wrong(name, f"must be JSON, got {error}.") from None
        if not isinstance(value, kind):
            raise self.wrong(name, f"must be a JSON {kind.__name__}, got {type(value).__name__}.")
        return value

    def group(self, parent: h5py.Group, name: str) -> h5py.Group:
        place = f"{parent.name.rstrip('/')}/{name}"
        link = parent.get(name, getlink=True)
        if link is None:
            raise self.wrong(place, "is missing.")
        # A link may lead out of the file.
        if not isinstance(link, h5py.HardLink) or not isinstance(parent.get(name), h5py.Group):
            raise self.wrong(place, "must be a group.")
        return parent[name]

    def array(self, parent: h5py.Group, name: str, kinds: tuple[str, ...]) -> Array:
        place = f"{parent.name}/{name}"
        link = parent.get(name, getlink=True)
        if link is None:
            raise self.wrong(place, "is missing.")
        try:
            dataset = parent[name] if isinstance(link, h5py.HardLink) else None
            if not isinstance(dataset, h5py.Dataset) or dataset.is_virtual or dataset.external:
                raise self.wrong(place, "must be an array in the file itself.")
            if str(dataset.dtype) not in kinds:
                raise self.wrong(place, f"must be of type {' or '.join(kinds)}, got {dataset.dtype}.")
            if dataset.size is None or dataset.nbytes > _MOST_BYTES:
                raise self.wrong(
                    place, f"must be an array of at most {_MOST_BYTES} bytes, got {dataset.shape}."
                )
            if dataset.chunks is not None or dataset.id.get_storage_size() != dataset.nbytes:
                raise self.wrong(place, "must lie in the file contiguously, uncompressed and whole.")
            array = np.asarray(dataset[()])
        except FormatError:
            raise
        except _FOREIGN as error:
            raise self.wrong(place, error) from None
        if not np.isfinite(array).all():
            raise self.wrong(place, "must be finite.")
        return array

    def nodes(self) -> tuple[Node, ...]:
        nodes = []
        for index, item in enumerate(self.json("graph", list)):
            field = f"graph[{index}]"
            if not isinstance(item, dict) or set(item) != {"name", "layer", "settings", "inputs"}:
                raise self.wrong(field, f"must hold name, layer, settings and inputs, got {item!r:.80}.")
            if not isinstance(item["name"], str) or not _is_name(item["name"]):
                raise self.wrong(field, f"must have a name without '/', got {item['name']!r:.80}.")
            inputs = item["inputs"]
            if not isinstance(inputs, list) or not all(isinstance(name, str) for name in inputs):
                raise self.wrong(field, f"must have a list of inputs, got {inputs!r:.80}.")
            nodes.append(
                Node(item["name"], self.layer(field, item["layer"], item["settings"]), tuple(inputs))
            )
        return tuple(nodes)

    def layer(self, field: str, kind: Any, settings: Any) -> Layer:
        if not isinstance(kind, str) or kind not in LAYERS:
            raise self.wrong(field, f"must have a layer of {sorted(LAYERS)}, got {kind!r:.80}.")
        if not isinstance(settings, dict):
            raise self.wrong(field, f"must have settings, got {settings!r:.80}.")
        known = {item.name: item.type for item in fields(LAYERS[kind])}
        if set(settings) != set(known):
            raise self.wrong(field, f"must have the settings {sorted(known)}, got {sorted(settings)!r:.80}.")
        for key, value in settings.items():
            if (known[key] == "bool") != isinstance(value, bool):
                raise self.wrong(field, f"must have a setting {key} of type {known[key]}, got {value!r:.80}.")
        try:
            return LAYERS[kind](**{key: _tuples(value) for key, value in settings.items()})
        except _FOREIGN as error:
            raise self.wrong(field, error) from None

    def input_shape(self) -> tuple[int, ...]:
        shape = self.attribute(self.file, "input_shape")
        if (
            not isinstance(shape, np.ndarray)
            or shape.ndim != 1
            or shape.dtype.kind != "i"
            or (shape < 1).any()
        ):
            raise self.wrong("input_shape", f"must be a row of positive integers, got {shape!r:.80}.")
        return tuple(int(extent) for extent in shape)

    def codes(self) -> dict[str, QuantizedWeight]:
        quantized = self.group(self.file, "quantized")
        codes = {}
        for name in quantized:
            group = self.group(quantized, name)
            self.known([*group, *group.attrs], f"{group.name}/", ("bias", "codes", "alpha", "values"))
            bias = self.attribute(group, "bias")
            if not isinstance(bias, bool | np.bool_):
                raise self.wrong(f"{group.name}/bias", f"must be true or false, got {bias!r:.80}.")
            try:
                codes[name] = QuantizedWeight(
                    codes=self.array(group, "codes", ("int8",)),
                    alpha=self.array(group, "alpha", ("float64",)),
                    values=self.array(group, "values", ("float64",)),
                    bias=bool(bias),
                )
            except FormatError:
                raise
            except _FOREIGN as error:
                raise self.wrong(group.name, error) from None
        return codes

    def model(self) -> Model:
        schema = self.text("schema")
        if schema != SCHEMA:
            raise self.wrong("schema", f"must be {SCHEMA!r}, got {schema!r:.80}.")
        self.known(self.file.attrs, "", (*REQUIRED, *OPTIONAL))
        self.known(self.file, "/", ("params", "quantized"))
        order = self.text("kernel_order")
        if order != KERNEL_ORDER:
            raise self.wrong("kernel_order", f"must be {KERNEL_ORDER!r}, got {order!r:.80}.")
        dtype = self.text("dtype")
        if dtype not in ("float32", "float64"):
            raise self.wrong("dtype", f"must be float32 or float64, got {dtype!r:.80}.")
        nodes, input_shape, quantized = self.nodes(), self.input_shape(), self.codes()
        params: dict[str, dict[str, Array]] = {}
        stored = self.group(self.file, "params")
        by_name = {node.name: node for node in nodes}
        for name in stored:
            group = self.group(stored, name)
            params[name] = {key: self.array(group, key, (dtype,)) for key in group}
        for name, code in quantized.items():
            if name not in by_name:
                raise self.wrong(f"/quantized/{name}", "must name a layer of the graph.")
            try:
                given = code.arrays(by_name[name], np.dtype(dtype))
            except _FOREIGN as error:
                raise self.wrong(f"/quantized/{name}/codes", error) from None
            twice = sorted(set(params.get(name, {})) & set(given))
            if twice:
                raise self.wrong(f"/params/{name}/{twice[0]}", "must not stand beside codes that give it.")
            params[name] = {**params.get(name, {}), **given}
        preprocess = classes = None
        if "preprocess" in self.file.attrs:
            try:
                preprocess = Preprocess.from_json(self.text("preprocess"))
            except FormatError:
                raise
            except _FOREIGN as error:
                raise self.wrong("preprocess", error) from None
        if "classes" in self.file.attrs:
            classes = tuple(self.json("classes", list))
            if not all(isinstance(name, str) for name in classes):
                raise self.wrong("classes", "must be a list of names.")
        provenance: Mapping[str, Any] = self.json("provenance", dict)
        loss: Any = self.text("loss") if "loss" in self.file.attrs else "cross_entropy"
        if loss not in LOSSES:
            raise self.wrong("loss", f"must be one of {', '.join(LOSSES)}, got {loss!r:.80}.")
        try:
            network = Network(nodes, params, input_shape, loss)
            return Model(
                network=network,
                preprocess=preprocess,
                classes=classes,
                quantized=quantized,
                provenance=provenance,
            )
        except _FOREIGN as error:
            raise self.wrong("params", error) from None


def _is_name(name: str) -> bool:
    # Of one HDF5 group: "." is the group itself.
    return bool(name) and name != "." and not set("/\0") & set(name)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name}, which JSON does not know")


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
