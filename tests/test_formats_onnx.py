"""ONNX files: their weights in a network, against the reference evaluator of ONNX itself; what is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refldnq._typing import Array
from refldnq.data import load_dataset
from refldnq.data.preprocess import PRESETS
from refldnq.errors import FormatError
from refldnq.formats.onnx import OnnxLayer, assign_onnx, load_onnx
from refldnq.layers import Add, BatchNorm, Conv2d, Flatten, Linear, ReLU
from refldnq.models import build
from refldnq.models.graph import Graph
from refldnq.network import Network

onnx = pytest.importorskip("onnx", reason="reading ONNX files needs the package onnx")


def network(bias: bool = True, eps: float = 1e-3) -> Network:
    """One layer of each kind with weights."""
    graph = Graph()
    y = graph.put("conv", Conv2d(4, 6, (3, 2), (2, 1), (1, 0, 2, 1), (1, 2), 2, bias), "input")
    y = graph.put("bn", BatchNorm(6, eps=eps), y)
    y = graph.put("relu", ReLU(), y)
    y = graph.put("flat", Flatten(), y)
    graph.put("fc", Linear(6 * 2 * 6, 5), y)
    return graph.network(np.random.default_rng(0), (4, 5, 5), np.float32)


def arrays(seed: int = 1) -> dict[str, Array]:
    """Random weights under an exporter's names."""
    rng = np.random.default_rng(seed)
    shapes = {"c_w": (6, 2, 3, 2), "c_b": (6,), "b_w": (6,), "b_b": (6,), "b_m": (6,), "b_v": (6,)}
    shapes |= {"f_w": (5, 72), "f_b": (5,)}
    return {
        name: (rng.uniform(0.5, 2, shape) if name == "b_v" else rng.standard_normal(shape)).astype(np.float32)
        for name, shape in shapes.items()
    }


Nodes = list[Any]


def nodes(conv: dict[str, Any] | None = None, gemm: dict[str, Any] | None = None) -> Nodes:
    """The same network as ONNX operators."""
    make = onnx.helper.make_node
    geometry = {"strides": [2, 1], "pads": [1, 2, 0, 1], "dilations": [1, 2], "group": 2} | (conv or {})
    return [
        make("Conv", ["x", "c_w", "c_b"], ["c"], name="first", **geometry),
        make("BatchNormalization", ["c", "b_w", "b_b", "b_m", "b_v"], ["b"], epsilon=1e-3),
        make("Relu", ["b"], ["r"]),
        make("Flatten", ["r"], ["f"]),
        make("Gemm", ["f", "f_w", "f_b"], ["y"], **({"transB": 1} | (gemm or {}))),
    ]


def model(operators: Nodes, weights: dict[str, Array], outputs: str = "y") -> Any:
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        operators,
        "net",
        [info("x", onnx.TensorProto.FLOAT, [None, 4, 5, 5])],
        [info(outputs, onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    # Before 15 ONNX's evaluator takes the batch's statistics in batch normalization.
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 15)])


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(operators: Nodes | None = None, weights: dict[str, Array] | None = None) -> Path:
        path = tmp_path / "net.onnx"
        onnx.save(model(nodes() if operators is None else operators, weights or arrays()), path)
        return path

    return write


def reference(path: Path, x: Array, *, before: str = "") -> Array:
    """What ONNX's own evaluator gives; `before` is an operator at the end that is left out."""
    from onnx.reference import ReferenceEvaluator

    content = onnx.load(path)
    if before:
        last = content.graph.node.pop()
        assert last.op_type == before
        content.graph.output[0].name = last.input[0]
    evaluator = ReferenceEvaluator(content)
    # Old files list their weights among the inputs.
    weights = {tensor.name for tensor in content.graph.initializer}
    (name,) = (each for each in evaluator.input_names if each not in weights)
    return np.asarray(evaluator.run(None, {name: x})[0])


def check(ours: Array, theirs: Array) -> None:
    """Equal but for float32 sums in another order."""
    error = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    if not error <= 1e-5:
        raise AssertionError(f"relative error {error:.1e}")


def test_the_network_is_the_files(write: Callable[..., Path]) -> None:
    path = write()
    got = assign_onnx(network(), load_onnx(path))
    assert got.dtype == np.float32
    x = np.random.default_rng(2).standard_normal((3, 4, 5, 5)).astype(np.float32)
    check(got.forward(x), reference(path, x))
    wrong = got.params["bn"]["running_mean"].copy()
    wrong[0] += 0.1
    with pytest.raises(AssertionError, match="relative error"):
        check(got.replace({"bn": {"running_mean": wrong}}).forward(x), reference(path, x))


def test_layers_are_told_by_name_or_output(write: Callable[..., Path]) -> None:
    layers = load_onnx(write())
    assert [(layer.name, layer.kind) for layer in layers] == [
        ("first", "Conv"),
        ("b", "BatchNormalization"),
        ("y", "Gemm"),
    ]
    assert layers[0].settings == {
        "stride": (2, 1),
        "padding": (1, 0, 2, 1),
        "dilation": (1, 2),
        "groups": 2,
    }


def test_a_matrix_that_is_not_transposed_is(write: Callable[..., Path]) -> None:
    weights = arrays()
    straight = load_onnx(write())
    other = load_onnx(write(nodes(gemm={"transB": 0}), {**weights, "f_w": weights["f_w"].T.copy()}))
    np.testing.assert_array_equal(straight[2].arrays["weight"], other[2].arrays["weight"])


def test_one_double_makes_all_double(write: Callable[..., Path]) -> None:
    weights = {**arrays(), "c_b": arrays()["c_b"].astype(np.float64)}
    assert assign_onnx(network(), load_onnx(write(weights=weights))).dtype == np.float64


FOREIGN: dict[str, tuple[Callable[[], Nodes], str]] = {
    "stride": (
        lambda: nodes({"strides": [1, 1]}),
        r"conv must have stride \(2, 1\), got \(1, 1\) in 'first'",
    ),
    "padding": (lambda: nodes({"pads": [1, 1, 1, 1]}), r"conv must have padding \(1, 0, 2, 1\), got \(1, 1"),
    "dilation": (lambda: nodes({"dilations": [1, 1]}), r"conv must have dilation \(1, 2\)"),
    "groups": (lambda: nodes({"group": 1}), "conv must have groups 2, got 1"),
    "auto_pad": (lambda: nodes({"auto_pad": "SAME_UPPER"}), "must have explicit padding, got b'SAME_UPPER'"),
    "alpha": (lambda: nodes(gemm={"alpha": 0.5}), r"must have alpha 1, beta 1 and transA 0, got \(0.5"),
    "order": (lambda: [nodes()[1], nodes()[0], *nodes()[2:]], "conv must have the kind Conv2d, got Batch"),
    "fewer": (lambda: nodes()[:4], "it has 3 layers with weights, they 2"),
    "operator": (
        lambda: [*nodes(), onnx.helper.make_node("Sigmoid", ["y"], ["z"])],
        "must hold the operators .*; got 'Sigmoid'",
    ),
    "no weights": (lambda: nodes()[2:4], "must hold layers with weights, found none"),
    "computed": (
        lambda: [onnx.helper.make_node("Conv", ["x", "r"], ["c"]), *nodes()],
        "must have constant weights, got none for 'r'",
    ),
    "no variance": (
        lambda: [nodes()[0], onnx.helper.make_node("BatchNormalization", ["c", "b_w"], ["b"])],
        "operator 'b': must have 4 weights, got 1",
    ),
    "one-dimensional": (
        lambda: [onnx.helper.make_node("Conv", ["x", "f_w"], ["c"])],
        r"must be two-dimensional, got weights of shape \(5, 72\)",
    ),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_another_network_is_named(case: str, write: Callable[..., Path]) -> None:
    operators, message = FOREIGN[case]
    with pytest.raises(FormatError, match=message):
        assign_onnx(network(), load_onnx(write(operators())))


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("c_b", np.zeros(5, np.float32), r"conv must have bias of shape \(6,\), got \(5,\)"),
        ("c_b", np.zeros(6, np.int64), "conv must have bias of type float32 or float64, got int64"),
        ("f_w", np.full((5, 72), np.nan, np.float32), "fc must have weight finite, got NaN"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    name: str, array: Array, message: str, write: Callable[..., Path]
) -> None:
    with pytest.raises(FormatError, match=message):
        assign_onnx(network(), load_onnx(write(weights={**arrays(), name: array})))


def test_other_settings_of_the_network_are_named(write: Callable[..., Path]) -> None:
    layers = load_onnx(write())
    with pytest.raises(FormatError, match=r"bn must have eps 1e-05, got 0\.001"):
        assign_onnx(network(eps=1e-5), layers)
    with pytest.raises(
        FormatError, match=r"conv must have the arrays \['weight'\], got \['bias', 'weight'\]"
    ):
        assign_onnx(network(bias=False), layers)
    unlike = replace(layers[0], settings={**layers[0].settings, "groups": 3})
    with pytest.raises(FormatError, match="conv must have groups 2, got 3"):
        assign_onnx(network(), (unlike, *layers[1:]))
    assert isinstance(unlike, OnnxLayer)


@pytest.mark.parametrize("content", [b"no model", b"\x08\x07\x12", b"\xff" * 50])
def test_what_is_no_onnx_file_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(FormatError, match=r"net\.onnx` must (be an ONNX model|hold)"):
        load_onnx(tmp_path / "net.onnx")


def test_a_truncated_file_is_named(write: Callable[..., Path]) -> None:
    path = write()
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(FormatError, match=r"net\.onnx` must"):
        load_onnx(path)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.onnx` must be an ONNX file"):
        load_onnx(path.with_name("nowhere.onnx"))


def test_data_outside_of_the_file_are_not_read(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write()
    monkeypatch.chdir(path.parent)  # where a reader would find them
    secret = path.with_name("secret")
    secret.write_bytes(bytes(24))
    content = onnx.load(path)
    tensor = next(one for one in content.graph.initializer if one.name == "c_b")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="secret")
    path.write_bytes(content.SerializeToString())
    with pytest.raises(FormatError, match=r"net\.onnx` must be an ONNX model, got: weights in other files"):
        load_onnx(path)


@pytest.mark.parametrize(
    "conv", [{"pads": [1, 2]}, {"strides": 2}, {"pads": "none"}, {"dilations": "1"}], ids=str
)
def test_attributes_of_another_form_are_refused(conv: dict[str, Any], write: Callable[..., Path]) -> None:
    with pytest.raises(FormatError, match="'first'"):
        assign_onnx(network(), load_onnx(write(nodes(conv))))


def test_padding_by_itself_is_refused(write: Callable[..., Path]) -> None:
    def padded(amount: int) -> Path:
        pads = np.array([0, 0, amount, 0, 0, 0, 0, 0])
        first = onnx.helper.make_node("Pad", ["x", "pads"], ["padded"], name="around")
        rest = nodes()
        rest[0].input[0] = "padded"
        return write([first, *rest], {**arrays(), "pads": pads})

    assign_onnx(network(), load_onnx(padded(0)))
    with pytest.raises(FormatError, match="operator 'around': must not pad by itself"):
        load_onnx(padded(1))


def test_branches_are_told_apart_by_what_they_follow(write: Callable[..., Path]) -> None:
    """Two convolutions of one shape: one behind a first one, the other around it."""
    graph = Graph()
    a = graph.put("a", Conv2d(4, 4, 1, bias=False), "input")
    b = graph.put("b", Conv2d(4, 4, 1, bias=False), a)
    c = graph.put("c", Conv2d(4, 4, 1, bias=False), "input")
    graph.put("sum", Add(), b, c)
    net = graph.network(np.random.default_rng(0), (4, 5, 5), np.float32)
    make = onnx.helper.make_node
    kernels = np.random.default_rng(1).standard_normal((3, 4, 4, 1, 1)).astype(np.float32)
    weights = dict(zip("abc", kernels, strict=True))
    first = make("Conv", ["x", "a"], ["p"], name="one")
    behind = make("Conv", ["p", "b"], ["q"], name="two")
    around = make("Conv", ["x", "c"], ["r"], name="three")
    last = make("Add", ["q", "r"], ["y"])
    x = np.random.default_rng(2).standard_normal((2, 4, 5, 5)).astype(np.float32)
    path = write([first, behind, around, last], weights)
    check(assign_onnx(net, load_onnx(path)).forward(x), reference(path, x))
    path = write([first, around, behind, last], weights)  # the same network in another order
    with pytest.raises(FormatError, match=r"b must follow \['a'\], 'three' follows \[\]"):
        assign_onnx(net, load_onnx(path))


def test_without_the_package_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs the package onnx: install `refldnq\[onnx\]`"):
        load_onnx(tmp_path / "net.onnx")


# ------------------------------------------------------------------ a real file


def real(data_dir: Path) -> Path:
    path = data_dir / "weights" / "squeezenet1.1.onnx"
    if not path.is_file():
        pytest.skip(f"{path.name} is not in the data folder")
    return path


def test_the_real_squeezenet_is_onnxs_own(data_dir: Path) -> None:
    """The outputs before the softmax of one real image against ONNX's reference evaluator."""
    path = real(data_dir)
    squeezenet = assign_onnx(build("squeezenet1.1", np.random.default_rng(0)), load_onnx(path))
    data = load_dataset(data_dir / "imagenet-sample", "test")
    x = PRESETS["imagenet-bgr255"](data.images[:1], np.float32)
    check(squeezenet.forward(x).ravel(), reference(path, x, before="Softmax").ravel())


def test_the_real_squeezenet_classifies_real_images(data_dir: Path) -> None:
    """61.0 % (top-1) and 83.3 % (top-5) were found on 1,000 images that the 600 are a part of."""
    from refldnq.experiments.run import evaluate_model
    from refldnq.model import Model

    path = real(data_dir)
    squeezenet = assign_onnx(build("squeezenet1.1", np.random.default_rng(0)), load_onnx(path))
    model = Model(network=squeezenet, preprocess=PRESETS["imagenet-bgr255"])
    score = evaluate_model(model, load_dataset(data_dir / "imagenet-sample", "test"), 60)
    # 60 images: four standard errors, 6 points each at 60 %.
    assert abs(score.accuracy - 61.0) <= 24 and score.top5 is not None and abs(score.top5 - 83.3) <= 20
    rgb = replace(model, preprocess=replace(PRESETS["imagenet-bgr255"], std=(50.0,)))
    assert evaluate_model(rgb, load_dataset(data_dir / "imagenet-sample", "test"), 20).accuracy < 30
