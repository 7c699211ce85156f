"""The model file: what is written is read bit for bit, and what is damaged is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refldnq._typing import Array
from refldnq.data import PRESETS
from refldnq.errors import FormatError
from refldnq.formats.h5 import load_model, save_model
from refldnq.layers import Add, BatchNorm, Conv2d, Flatten, Linear, LinearMap, MaxPool2d, ReLU
from refldnq.layers.base import Layer
from refldnq.model import Model, QuantizedWeight
from refldnq.network import Network, Node


def residual_network(dtype: Any = np.float32, seed: int = 0) -> Network:
    rng = np.random.default_rng(seed)
    nodes = (
        Node("conv1", Conv2d(2, 4, 3, padding=1, bias=False), ("input",)),
        Node("bn1", BatchNorm(4), ("conv1",)),
        Node("relu1", ReLU(), ("bn1",)),
        Node("block.conv2", Conv2d(4, 4, (3, 1), padding=(1, 0), groups=2), ("relu1",)),
        Node("add", Add(), ("block.conv2", "relu1")),
        Node("pool", MaxPool2d(2), ("add",)),
        Node("flatten", Flatten(), ("pool",)),
        Node("fc", Linear(16, 3), ("flatten",)),
    )
    params: dict[str, dict[str, Array]] = {}
    for node in nodes:
        shapes = node.layer.parameter_shapes()
        if shapes:
            params[node.name] = {key: rng.standard_normal(shape) for key, shape in shapes.items()}
    params["bn1"]["running_var"] = rng.uniform(0.5, 2.0, 4)
    return Network(nodes, params, (2, 4, 4)).astype(dtype)


def quantized_model(dtype: Any = np.float32, seed: int = 0, **options: Any) -> Model:
    """Ternary layers: one scale; one scale a channel; a bias row."""
    network, rng = residual_network(dtype, seed), np.random.default_rng(seed + 1)
    values = np.array([-1.0, 0.0, 1.0])
    codes = {}
    for name, bias, per_channel in (
        ("conv1", False, False),
        ("block.conv2", False, True),
        ("fc", True, True),
    ):
        layer = network[name].layer
        assert isinstance(layer, LinearMap)
        shape = layer.pack(network.params[name], bias=bias).shape
        codes[name] = QuantizedWeight(
            codes=rng.integers(0, 3, shape).astype(np.int8),
            alpha=rng.random((shape[0], shape[2])) if per_channel else np.array(0.1),
            values=values,
            bias=bias,
        )
        network = network.replace({name: codes[name].arrays(network[name], network.dtype)})
    known: dict[str, Any] = {
        "preprocess": PRESETS["cifar-resnet"],
        "classes": ("cat", "dog", "Röhre"),
        "provenance": {"seed": 3, "settings": {"epochs": [1, 2.5], "note": None, "α": True}},
    }
    return Model(network=network, quantized=codes, **{**known, **options})


def check_same(a: Model, b: Model) -> None:
    """Equal to the bit."""
    assert a.network.nodes == b.network.nodes
    assert a.network.input_shape == b.network.input_shape
    assert a.network.dtype == b.network.dtype
    assert (a.preprocess, a.classes, dict(a.provenance)) == (b.preprocess, b.classes, dict(b.provenance))
    arrays = [
        {(name, key): array for name, own in model.network.params.items() for key, array in own.items()}
        for model in (a, b)
    ]
    for model, found in zip((a, b), arrays, strict=True):
        for name, code in model.quantized.items():
            parts: dict[str, Array] = {"codes": code.codes, "alpha": code.alpha, "values": code.values}
            found.update({(f"quantized {name}", key): array for key, array in parts.items()})
            found[f"quantized {name}", "bias"] = np.array(code.bias)
    assert arrays[0].keys() == arrays[1].keys()
    for place, array in arrays[0].items():
        other = arrays[1][place]
        if (array.shape, array.dtype, array.tobytes()) != (other.shape, other.dtype, other.tobytes()):
            raise AssertionError(f"{place} differs")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with a quantized model."""
    path = tmp_path / "model.h5"
    save_model(path, quantized_model())
    return path


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_quantized_model_comes_back_to_the_bit(tmp_path: Path, dtype: Any) -> None:
    model = quantized_model(dtype)
    save_model(tmp_path / "a.h5", model)
    back = load_model(tmp_path / "a.h5")
    check_same(back, model)
    images = np.random.default_rng(2).standard_normal((3, 2, 4, 4)).astype(dtype)
    assert back.network.forward(images).tobytes() == model.network.forward(images).tobytes()
    # The weights that codes give are not stored a second time.
    with h5py.File(tmp_path / "a.h5", "r") as file:
        assert "weight" not in file["params/conv1"]
        assert set(file["params/block.conv2"]) == {"bias"}
        assert set(file["params/fc"]) == set()


@given(
    seed=st.integers(0, 99),
    dtype=st.sampled_from([np.float32, np.float64]),
    preprocess=st.sampled_from([None, *PRESETS.values()]),
    classes=st.none() | st.lists(st.text(max_size=5), max_size=3).map(tuple),
    provenance=st.dictionaries(
        st.text(max_size=5),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(max_size=5),
            lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=3), children),
            max_leaves=5,
        ),
        max_size=3,
    ),
)
def test_any_header_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    dtype: Any,
    preprocess: Any,
    classes: Any,
    provenance: dict[str, Any],
) -> None:
    model = quantized_model(dtype, seed, preprocess=preprocess, classes=classes, provenance=provenance)
    path = tmp_path_factory.getbasetemp() / "any.h5"
    save_model(path, model)
    check_same(load_model(path), model)


def test_equal_models_are_equal_files(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        save_model(tmp_path / name, quantized_model(seed=seed))
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b != c


def test_the_comparison_sees_one_wrong_bit() -> None:
    model = quantized_model()
    bias = model.network.params["block.conv2"]["bias"].copy()
    bias[0] = np.nextafter(bias[0], np.float32(9))
    spoiled = replace(model, network=model.network.replace({"block.conv2": {"bias": bias}}))
    with pytest.raises(AssertionError, match="differs"):
        check_same(model, spoiled)
    for changed in (
        replace(model, quantized={}),
        replace(model, classes=None),
        replace(model, provenance={}),
        replace(model, network=replace(model.network, input_shape=(2, 4, 5))),
    ):
        with pytest.raises(AssertionError):
            check_same(model, changed)


def test_a_plain_model_without_preprocessing_or_classes(tmp_path: Path) -> None:
    model = Model(network=residual_network(np.float64))
    save_model(str(tmp_path / "plain.h5"), model)
    check_same(load_model(str(tmp_path / "plain.h5")), model)


def test_long_provenance_is_no_problem(tmp_path: Path) -> None:
    model = quantized_model(provenance={"log": "x" * 200_000})
    save_model(tmp_path / "long.h5", model)
    assert load_model(tmp_path / "long.h5").provenance == {"log": "x" * 200_000}


# ------------------------------------------------------------------ what cannot be written


class Doubling(ReLU):
    """A layer that files do not know."""


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, np.float32(1), b"bytes"])
def test_provenance_that_is_not_json_is_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(ValueError, match="`provenance` must hold JSON values"):
        save_model(tmp_path / "model.h5", quantized_model(provenance={"x": value}))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "layer", "message"),
    [
        ("relu", Doubling(), "must hold layers of the types .* got Doubling"),
        ("a/b", ReLU(), "whose names lack '/', got 'a/b'"),
        (".", ReLU(), "whose names lack '/', got '.'"),
    ],
)
def test_layers_that_files_cannot_hold_are_refused(
    tmp_path: Path, name: str, layer: Layer, message: str
) -> None:
    model = Model(network=Network((Node(name, layer, ("input",)),), {}, (2,)))
    with pytest.raises(ValueError, match=message):
        save_model(tmp_path / "model.h5", model)
    assert not list(tmp_path.iterdir())


def test_a_crash_leaves_the_old_file_and_nothing_else(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, count = path.read_bytes(), 0
    create = h5py.Group.create_dataset

    def fail(self: h5py.Group, *args: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count == 3:
            raise OSError("no space left on device")
        return create(self, *args, **options)

    monkeypatch.setattr(h5py.Group, "create_dataset", fail)
    with pytest.raises(OSError, match="no space left"):
        save_model(path, quantized_model(seed=5))
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    monkeypatch.undo()
    save_model(path, quantized_model(seed=5))
    check_same(load_model(path), quantized_model(seed=5))
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_missing_folder_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        save_model(tmp_path / "nowhere" / "model.h5", quantized_model())


# ------------------------------------------------------------------ what cannot be read

Damage = Callable[[h5py.File], None]


def attribute(name: str, value: Any) -> Damage:
    def damage(file: h5py.File) -> None:
        file.attrs[name] = value

    return damage


def without(place: str) -> Damage:
    def damage(file: h5py.File) -> None:
        if place.startswith("@"):
            del file.attrs[place[1:]]
        else:
            del file[place]

    return damage


def dataset(place: str, value: Any) -> Damage:
    def damage(file: h5py.File) -> None:
        del file[place]
        file[place] = value

    return damage


def change(place: str, how: Callable[[Array], Array]) -> Damage:
    def damage(file: h5py.File) -> None:
        value = how(file[place][()])
        del file[place]
        file[place] = value

    return damage


def graph(index: int, **changes: Any) -> Damage:
    """One node's entries changed; a value None deletes."""

    def damage(file: h5py.File) -> None:
        nodes = json.loads(file.attrs["graph"])
        for key, value in changes.items():
            if value is None:
                del nodes[index][key]
            else:
                nodes[index][key] = value
        file.attrs["graph"] = json.dumps(nodes)

    return damage


def setting(index: int, **changes: Any) -> Damage:
    def damage(file: h5py.File) -> None:
        nodes = json.loads(file.attrs["graph"])
        for key, value in changes.items():
            if value is None:
                del nodes[index]["settings"][key]
            else:
                nodes[index]["settings"][key] = value
        file.attrs["graph"] = json.dumps(nodes)

    return damage


def first(value: Any) -> Callable[[Array], Array]:
    def change_first(array: Array) -> Array:
        array = array.copy()
        array.flat[0] = value
        return array

    return change_first


def preprocess(**changes: Any) -> Damage:
    def damage(file: h5py.File) -> None:
        value = json.loads(file.attrs["preprocess"])
        file.attrs["preprocess"] = json.dumps({**value, **changes})

    return damage


def bias(value: Any) -> Damage:
    def damage(file: h5py.File) -> None:
        file["quantized/fc"].attrs["bias"] = value

    return damage


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((3,), "f4")
    layout[:] = h5py.VirtualSource("elsewhere.h5", "x", (3,))
    del file["params/block.conv2/bias"]
    file.create_virtual_dataset("params/block.conv2/bias", layout)


def external(file: h5py.File) -> None:
    del file["params/block.conv2/bias"]
    file["params/block.conv2"].create_dataset("bias", (4,), "f4", external=[("elsewhere.bin", 0, 16)])


def empty_dataset(file: h5py.File) -> None:
    dataset("params/block.conv2/bias", h5py.Empty("f4"))(file)


def of_objects(file: h5py.File) -> None:
    del file["params/block.conv2/bias"]
    file["params/block.conv2"].create_dataset("bias", data=["1", "2", "3", "4"], dtype=h5py.string_dtype())


def as_group(file: h5py.File) -> None:
    del file["params/bn1/bias"]
    file.create_group("params/bn1/bias")


def huge(file: h5py.File) -> None:
    del file["params/block.conv2/bias"]
    file["params/block.conv2"].create_dataset("bias", (1 << 40,), "f4", chunks=(1024,))


def compressed(file: h5py.File) -> None:
    del file["params/block.conv2/bias"]
    file["params/block.conv2"].create_dataset("bias", data=np.zeros(4, np.float32), compression="gzip")


def unwritten(file: h5py.File) -> None:
    del file["params/block.conv2/bias"]
    file["params/block.conv2"].create_dataset("bias", (4,), "f4")


def dataset_new(place: str) -> Damage:
    def damage(file: h5py.File) -> None:
        file[place] = np.zeros(1)

    return damage


def twice(file: h5py.File) -> None:
    file["params/fc/bias"] = np.zeros(3, np.float32)


BIAS = "params/block.conv2/bias"

DAMAGES: dict[str, tuple[Damage, str]] = {
    **{
        f"without {name}": (without(f"@{name}"), f"field `{name}`: is missing")
        for name in ("schema", "graph", "input_shape", "dtype", "kernel_order", "provenance")
    },
    "schema of another version": (attribute("schema", "refldnq-model/2"), "field `schema`: must be"),
    "schema as number": (attribute("schema", 1), "field `schema`: must be text"),
    "schema as bytes array": (attribute("schema", np.array([1, 2])), "field `schema`: must be text"),
    "other kernel order": (attribute("kernel_order", "kh,kw,c"), "field `kernel_order`: must be"),
    "half precision": (attribute("dtype", "float16"), "field `dtype`: must be float32 or float64"),
    "other precision": (attribute("dtype", "float64"), "must be of type float64, got float32"),
    "graph is no JSON": (attribute("graph", "[{"), "field `graph`: must be JSON"),
    "graph is no list": (attribute("graph", "{}"), "field `graph`: must be a JSON list"),
    "graph nests too deep": (attribute("graph", "[" * 60_000), "field `graph`: must be JSON"),
    "graph has a huge integer": (attribute("graph", "[" + "9" * 5_000 + "]"), "field `graph`: must be JSON"),
    "graph is empty": (attribute("graph", "[]"), "must name a layer of the graph"),
    "node is no object": (attribute("graph", "[3]"), r"field `graph\[0\]`: must hold name, layer"),
    **{
        f"node without {key}": (graph(0, **{key: None}), r"field `graph\[0\]`: must hold name, layer")
        for key in ("name", "layer", "settings", "inputs")
    },
    "node with more": (graph(0, code="import os"), r"field `graph\[0\]`: must hold name, layer"),
    "node name is a number": (graph(0, name=3), r"field `graph\[0\]`: must have a name"),
    "node name is a path": (graph(0, name="a/b"), r"field `graph\[0\]`: must have a name"),
    "node name is empty": (graph(0, name=""), r"field `graph\[0\]`: must have a name"),
    "node named twice": (graph(1, name="conv1"), "conv1"),
    "unknown layer": (graph(0, layer="system"), r"field `graph\[0\]`: must have a layer of"),
    "layer is a list": (graph(0, layer=["ReLU"]), r"field `graph\[0\]`: must have a layer of"),
    "inputs are text": (graph(0, inputs="input"), r"field `graph\[0\]`: must have a list of inputs"),
    "input is a number": (graph(0, inputs=[0]), r"field `graph\[0\]`: must have a list of inputs"),
    "input is unknown": (graph(0, inputs=["nowhere"]), "nowhere"),
    "settings are a list": (graph(0, settings=[]), r"field `graph\[0\]`: must have settings"),
    "setting missing": (setting(0, stride=None), r"field `graph\[0\]`: must have the settings"),
    "setting unknown": (setting(0, dilute=1), r"field `graph\[0\]`: must have the settings"),
    "setting out of range": (setting(0, groups=3), r"field `graph\[0\]`: `groups` must divide"),
    "setting of a wrong type": (setting(0, in_channels="2"), r"field `graph\[0\]`: `in_channels` must be"),
    "bias is text": (setting(0, bias="no"), r"field `graph\[0\]`: must have a setting bias of type bool"),
    "channels are true": (
        setting(0, in_channels=True),
        r"field `graph\[0\]`: must have a setting in_channels",
    ),
    "eps is NaN": (setting(1, eps=float("nan")), "field `graph`: must be JSON"),
    "layers do not fit": (setting(7, in_features=15), "field `/quantized/fc/codes`"),
    "input shape is text": (attribute("input_shape", "2"), "field `input_shape`: must be a row of positive"),
    "input shape is negative": (attribute("input_shape", [2, -4, 4]), "field `input_shape`: must be a row"),
    "input shape is of floats": (attribute("input_shape", [2.0, 4.0]), "field `input_shape`: must be a row"),
    "input shape is a number": (attribute("input_shape", 2), "field `input_shape`: must be a row"),
    "input shape does not fit": (attribute("input_shape", [2, 4, 6]), "field `params`: .*shape"),
    "provenance is no JSON": (attribute("provenance", "{"), "field `provenance`: must be JSON"),
    "provenance is a list": (attribute("provenance", "[]"), "field `provenance`: must be a JSON dict"),
    "provenance holds NaN": (attribute("provenance", '{"x": NaN}'), "field `provenance`: must be JSON"),
    "preprocessing is no JSON": (attribute("preprocess", "?"), "field `preprocess`: .*must be"),
    "preprocessing is a list": (attribute("preprocess", "[]"), "field `preprocess`: .*must be"),
    "preprocessing has more": (preprocess(gamma=2), "field `preprocess`: .*gamma"),
    "preprocessing by zero": (preprocess(std=[0.0]), "field `preprocess`: .*std"),
    "preprocessing of text": (preprocess(mean=["0"]), "field `preprocess`: .*mean"),
    "classes are a number": (attribute("classes", "3"), "field `classes`: must be a JSON list"),
    "class is a number": (attribute("classes", "[3]"), "field `classes`: must be a list of names"),
    "without params": (without("params"), "field `/params`: is missing"),
    "params is an array": (dataset("params", np.zeros(3)), "field `/params`: must be a group"),
    "without a layer": (without("params/bn1"), "field `params`: .*bn1"),
    "layer is an array": (dataset("params/bn1", np.zeros(3)), "field `/params/bn1`: must be a group"),
    **{
        f"without {key}": (without(f"params/bn1/{key}"), "field `params`: .*bn1")
        for key in ("weight", "bias", "running_mean", "running_var")
    },
    "array is a group": (as_group, "field `/params/bn1/bias`: must be an array in the file itself"),
    "array too short": (change(BIAS, lambda a: a[:3]), r"must have shape \(4,\), got \(3,\)"),
    "array of integers": (change(BIAS, lambda a: a.astype(int)), f"`/{BIAS}`: must be of type float32"),
    "array of doubles": (change(BIAS, lambda a: a.astype(float)), f"`/{BIAS}`: must be of type float32"),
    "array of big-endian": (change(BIAS, lambda a: a.astype(">f4")), f"`/{BIAS}`: must be of type float32"),
    "array with NaN": (change(BIAS, first(np.nan)), f"field `/{BIAS}`: must be finite"),
    "array with infinity": (change(BIAS, first(-np.inf)), f"field `/{BIAS}`: must be finite"),
    "superfluous layer": (dataset("params/fc", np.zeros(3)), "field `/params/fc`: must be a group"),
    "weight and codes": (twice, "field `/params/fc/bias`: must not stand beside codes"),
    "array of objects": (of_objects, f"field `/{BIAS}`: must be of type"),
    "empty dataset": (empty_dataset, f"field `/{BIAS}`: must be"),
    "compressed array": (compressed, f"field `/{BIAS}`: must lie in the file contiguously"),
    "array that was never written": (unwritten, f"field `/{BIAS}`: must lie in the file contiguously"),
    "unknown attribute": (attribute("preproces", "{}"), "field `preproces`: is not a field of"),
    "unknown group": (lambda file: file.create_group("code"), "field `/code`: is not a field of"),
    "unknown array of codes": (
        dataset_new("quantized/fc/scale"),
        "field `/quantized/fc/scale`: is not a field",
    ),
    "scale too large for the type": (
        dataset("quantized/conv1/alpha", np.array(1e300)),
        "field `/quantized/conv1/codes`: .*must be finite",
    ),
    "huge array": (huge, f"field `/{BIAS}`: must"),
    "virtual array": (virtual, f"field `/{BIAS}`: must be an array in the file itself"),
    "external array": (external, f"field `/{BIAS}`: must be an array in the file itself"),
    "soft link": (dataset(BIAS, h5py.SoftLink("/params/bn1/bias")), f"field `/{BIAS}`: must be an array in"),
    "external link": (
        dataset(BIAS, h5py.ExternalLink("a.h5", "/x")),
        f"field `/{BIAS}`: must be an array in",
    ),
    "group is an external link": (
        dataset("params/bn1", h5py.ExternalLink("a.h5", "/x")),
        "field `/params/bn1`: must be a group",
    ),
    "quantized is a soft link": (
        dataset("quantized", h5py.SoftLink("/params")),
        "field `/quantized`: must be a group",
    ),
    "without quantized": (without("quantized"), "field `/quantized`: is missing"),
    **{
        f"without {name}": (without(f"quantized/fc/{name}"), f"field `/quantized/fc/{name}`: is missing")
        for name in ("codes", "alpha", "values")
    },
    "code too large": (
        change("quantized/fc/codes", first(3)),
        "field `/quantized/fc`: `codes` must lie in 0..2",
    ),
    "code negative": (
        change("quantized/fc/codes", first(-1)),
        "field `/quantized/fc`: `codes` must lie in 0..2",
    ),
    "codes of int16": (
        change("quantized/fc/codes", lambda a: a.astype(np.int16)),
        "field `/quantized/fc/codes`: must be of type int8",
    ),
    "codes too short": (change("quantized/fc/codes", lambda a: a[:, :-1]), "field `/quantized/fc/codes`"),
    "codes without groups": (change("quantized/fc/codes", lambda a: a[0]), "field `/quantized/fc`: `codes`"),
    "alpha negative": (
        change("quantized/fc/alpha", first(-1)),
        "field `/quantized/fc`: `alpha` must not be neg",
    ),
    "alpha with NaN": (
        change("quantized/fc/alpha", first(np.nan)),
        "field `/quantized/fc/alpha`: must be finite",
    ),
    "alpha too short": (change("quantized/fc/alpha", lambda a: a[:, :2]), "field `/quantized/fc`: `alpha`"),
    "alpha of float32": (
        change("quantized/fc/alpha", lambda a: a.astype(np.float32)),
        "field `/quantized/fc/alpha`: must be of type float64",
    ),
    "values descend": (
        change("quantized/fc/values", lambda a: -a),
        "field `/quantized/fc`: `values` must ascend",
    ),
    "values of two axes": (
        change("quantized/fc/values", lambda a: a[None]),
        "field `/quantized/fc`: `values`",
    ),
    "bias flag missing": (
        lambda file: file["quantized/fc"].attrs.__delitem__("bias"),
        "fc/bias`: is missing",
    ),
    "bias flag is a number": (bias(1), "field `/quantized/fc/bias`: must be true or false"),
    "bias flag is wrong": (bias(False), "field `/quantized/fc/codes`"),
    "codes of no layer": (lambda file: file.move("quantized/fc", "quantized/fd"), "field `/quantized/fd`"),
    "codes of a layer without weight": (
        lambda file: file.move("quantized/fc", "quantized/relu1"),
        "field `/quantized/relu1/codes`",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named(path: Path, damage: str) -> None:
    harm, message = DAMAGES[damage]
    with h5py.File(path, "r+") as file:
        harm(file)
    with pytest.raises(FormatError, match=message) as caught:
        load_model(path)
    assert str(caught.value).startswith(f"`{path}`") and str(caught.value).count(str(path)) == 1


def test_an_untouched_file_is_read(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        change(BIAS, np.copy)(file)
        graph(0, name="conv1")(file)
        preprocess()(file)
        bias(True)(file)
    check_same(load_model(path), quantized_model())


def test_a_truncated_file_is_refused(path: Path) -> None:
    content = path.read_bytes()
    for size in (*range(0, len(content), 997), len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(FormatError, match=r"model\.h5"):
            load_model(path)


def test_flipped_bits_are_read_or_refused(path: Path) -> None:
    content, rng = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for place in rng.integers(0, len(content), 300):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            load_model(path)
        except FormatError:
            refused += 1
    assert refused > 30


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not HDF5", b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_what_is_not_hdf5_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.h5"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"model\.h5` must be an HDF5 model file"):
        load_model(path)


def test_another_hdf5_file_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.zeros(3)
    with pytest.raises(FormatError, match=r"other\.h5`, field `schema`: is missing"):
        load_model(tmp_path / "other.h5")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.h5` must be a model file"):
        load_model(tmp_path / "none.h5")
    with pytest.raises(FileNotFoundError, match="must be a model file"):
        load_model(tmp_path)
