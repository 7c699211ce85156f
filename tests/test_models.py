"""The registry of architectures: names, published sizes, shapes, initial weights."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
import pytest

from refldnq.data.preprocess import PRESETS
from refldnq.models import ARCHITECTURES, NAMES, SHIPPED, build, preprocess, shipped
from refldnq.models.alexnet import alexnet
from refldnq.models.cifarnet import cifarnet
from refldnq.models.initial import initial_params
from refldnq.models.mlp import mlp_digits
from refldnq.models.resnet_cifar import resnet_cifar
from refldnq.models.vgg_distilquant import vgg_distilquant
from refldnq.models.wrn import wrn
from refldnq.network import Network, Node

RESNETS = {20: 269_722, 32: 464_154, 44: 658_586, 56: 853_018, 110: 1_727_962}
"""README of akamaster/pytorch_resnet_cifar10 (0.27M, 0.46M, 0.66M, 0.85M, 1.7M), to the last one."""

OPTION_B = 16 * 32 + 32 * 64 + 2 * (32 + 64)
"""Two projections and their batch normalization."""

CIFARNET = 9 * (3 * 128 + 128**2 + 128 * 256 + 256**2 + 256 * 512 + 512**2) + 8192 * 1024 + 1024**2 + 10240
"""Weights of BinaryConnect's network, section 3.3; 14.0 million."""


def wide_resnet(k: int) -> int:
    """WRN-28-k without biases of convolutions, by Zagoruyko & Komodakis 2016, table 1."""
    total, channels = 9 * 3 * 16, 16
    for width in (16 * k, 32 * k, 64 * k):
        total += 9 * (channels * width + 7 * width**2) + 2 * (channels + 7 * width)
        total += channels * width if channels != width else 0
        channels = width
    return total + 2 * channels + 10 * channels + 10


PARAMETERS = {
    # 64*128 + 128*64 + 64*10 + 10, and two numbers a unit of batch normalization.
    "mlp-digits": 64 * 128 + 128 * 64 + 64 * 10 + 10 + 2 * (128 + 64),
    "cnn-digits": 9 * (1 * 16 + 16 * 32 + 32 * 64) + 64 * 10 + 10 + 2 * (16 + 32 + 64),
    "lenet5": 431_080,  # Han et al. 2015, table 3: 431K; Caffe's lenet.prototxt to the last one
    **{f"resnet{depth}": count for depth, count in RESNETS.items()},
    **{f"resnet{depth}-b": count + OPTION_B for depth, count in RESNETS.items()},
    "cifarnet": CIFARNET + 10 + 2 * (2 * (128 + 256 + 512) + 2 * 1024),
    # Polino et al. 2018, section 5.1 and the authors' code: "Teacher model, 5.3 million parameters".
    "vgg-distilquant": 5_346_142,
    # With biases of convolutions, as in DistilQuant's code; without them below.
    "wrn28-1": wide_resnet(1) + 16 + 9 * 112 - 16,
    "wrn28-10": wide_resnet(10) + 16 + 9 * 1120,
    "wrn28-20": wide_resnet(20) + 16 + 9 * 2240,
    # torchvision.models, "num_params" of the weights' documentation.
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "alexnet": 61_100_840,
    "alexnet-bn": 61_100_840 + 2 * (64 + 192 + 384 + 256 + 256 + 4096 + 4096),
    "squeezenet1.0": 1_248_424,
    "squeezenet1.1": 1_235_496,
}

IMAGENET = ("resnet18", "resnet34", "resnet50", "alexnet", "alexnet-bn", "squeezenet1.0", "squeezenet1.1")
INPUTS = {
    "mlp-digits": (1, 8, 8),
    "cnn-digits": (1, 8, 8),
    "lenet5": (1, 28, 28),
    **dict.fromkeys(IMAGENET, (3, 224, 224)),
}
"""Of the others: (3, 32, 32)."""

LARGE = ("wrn28-20",)
"""Drawing 146 million numbers takes seconds and 600 MB: its arrays are looked at by shape alone."""


def count(network: Network) -> int:
    return sum(
        array.size
        for node in network.nodes
        for key, array in network.params.get(node.name, {}).items()
        if key not in node.layer.buffers
    )


class RecordedError(Exception):
    """Carries the nodes of a network whose arrays are not drawn."""


def nodes_of(name: str, monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[Node]:
    """The graph of an architecture, without arrays."""

    def instead(nodes: list[Node], rng: object, dtype: object) -> None:
        raise RecordedError(nodes)

    monkeypatch.setattr("refldnq.models.graph.initial_params", instead)
    with pytest.raises(RecordedError) as caught:
        build(name, np.random.default_rng(0), **options)
    found: list[Node] = caught.value.args[0]
    return found


def sizes(nodes: list[Node]) -> Iterator[tuple[str, int]]:
    """Kind and number of every parameter that gradients move."""
    for node in nodes:
        for key, shape in node.layer.parameter_shapes().items():
            if key not in node.layer.buffers:
                yield f"{type(node.layer).__name__}.{key}", prod(shape)


def test_every_name_has_its_count() -> None:
    assert set(NAMES) == set(PARAMETERS) == set(ARCHITECTURES)


@pytest.mark.parametrize("name", NAMES)
def test_parameter_counts_are_the_published_ones(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sum(size for _, size in sizes(nodes_of(name, monkeypatch))) == PARAMETERS[name]


@pytest.mark.parametrize(("widen", "published"), [(1, 0.37), (10, 36.5), (12, 52.5)])
def test_wide_resnets_without_biases_have_zagoruykos_counts(
    widen: int, published: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Zagoruyko & Komodakis 2016, tables 3 and 4 (WRN-28-10 36.5M, WRN-28-12 52.5M); 28-1 is 0.37M.
    nodes = nodes_of("wrn28-10", monkeypatch, widen=widen, bias=False)
    assert sum(size for _, size in sizes(nodes)) == wide_resnet(widen)
    assert round(sum(size for _, size in sizes(nodes)) / 1e6, 2 if widen == 1 else 1) == published


def test_the_papers_wrn_has_its_footnotes_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    # [LDNQ] footnote 4: "Widen factor:20, depth:28, dropout rate:0.3".
    nodes = nodes_of("wrn28-20", monkeypatch)
    kinds = [type(node.layer).__name__ for node in nodes]
    weighted = [node for node in nodes if type(node.layer).__name__ in ("Conv2d", "Linear")]
    assert len([node for node in weighted if "shortcut" not in node.name]) == 28 - 2
    assert {getattr(node.layer, "p", 0.3) for node in nodes} == {0.3} and kinds.count("Dropout") == 12
    assert max(shape[0] for node in nodes for shape in node.layer.parameter_shapes().values()) == 64 * 20


@pytest.mark.parametrize("name", [name for name in NAMES if name not in LARGE])
def test_shapes_and_initial_weights(name: str) -> None:
    # One network a name serves all: AlexNet alone takes a second to draw.
    network = build(name, np.random.default_rng(0), dtype=np.float32)
    assert count(network) == PARAMETERS[name]
    assert network.dtype == np.float32
    classes = 1000 if name in IMAGENET else 10
    assert network.shapes[network.nodes[-1].name] == (classes,)
    assert network.input_shape == INPUTS.get(name, (3, 32, 32))
    for layer in network.weighted:
        weight = network.params[layer]["weight"]
        want = 2.0 / np.prod(weight.shape[1:])
        # The variance of m Gaussians has the relative standard deviation sqrt(2 / m); six of them.
        variance = float(np.vdot(weight, weight)) / weight.size  # of mean 0
        if not abs(variance / want - 1.0) <= 6 * np.sqrt(2.0 / weight.size) + 1e-4:
            raise AssertionError(f"{layer}: variance {variance}, {want} expected")


def test_double_precision_is_the_default_and_other_types_are_refused() -> None:
    rng = np.random.default_rng(0)
    assert build("resnet20", rng).dtype == np.float64
    with pytest.raises(TypeError, match="`dtype` must be float32 or float64, got float16"):
        build("resnet20", rng, dtype=np.float16)
    with pytest.raises(TypeError, match="`dtype` must be float32 or float64, got int64"):
        initial_params([], rng, np.int64)


def test_single_precision_is_drawn_as_such() -> None:
    """No array of double precision stands behind it, whose memory is what the type is to save."""
    drawn = build("resnet20", np.random.default_rng(0), dtype=np.float32)
    cast = build("resnet20", np.random.default_rng(0)).astype(np.float32)
    assert not np.array_equal(drawn.params["conv1"]["weight"], cast.params["conv1"]["weight"])


@pytest.mark.parametrize("name", ["mlp-digits", "cnn-digits", "resnet20", "lenet5", "squeezenet1.1"])
def test_the_generator_decides_the_weights(name: str) -> None:
    one, two, other = (build(name, np.random.default_rng(seed)) for seed in (0, 0, 1))
    first = one.weighted[0]
    np.testing.assert_array_equal(one.params[first]["weight"], two.params[first]["weight"])
    assert not np.array_equal(one.params[first]["weight"], other.params[first]["weight"])


@pytest.mark.parametrize("name", ["mlp-digits", "cnn-digits", "lenet5", "resnet20", "wrn28-1"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_preset_feeds_the_network(name: str, dtype: type) -> None:
    network = build(name, np.random.default_rng(0), dtype=dtype)
    images = np.random.default_rng(1).integers(0, 17, (3, *network.input_shape)).astype(np.uint8)
    logits = network.forward(preprocess(name)(images, dtype))
    assert logits.shape == (3, 10) and logits.dtype == dtype and np.isfinite(logits).all()


def test_imagenet_presets_cut_the_middle_to_the_networks_input() -> None:
    for name in IMAGENET:
        assert preprocess(name) is PRESETS["imagenet"]
        assert preprocess(name).crop == 224
    assert preprocess("lenet5") is PRESETS["mnist"] and preprocess("cifarnet") is PRESETS["cifar-half"]


def test_cifar_preset_is_the_checkpoints() -> None:
    x = np.full((1, 3, 1, 1), 255, np.uint8)
    want = (1.0 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(preprocess("resnet20")(x, np.float64).ravel(), want, rtol=1e-14)


def test_digits_preset_maps_ink_to_one() -> None:
    x = np.array([0, 8, 16], np.uint8).reshape(3, 1, 1, 1)
    np.testing.assert_array_equal(preprocess("cnn-digits")(x, np.float64).ravel(), [0.0, 0.5, 1.0])


def test_options_reach_the_builder() -> None:
    rng = np.random.default_rng(0)
    network = build("wrn28-10", rng, widen=1, dropout=0, bias=False)
    assert count(network) == wide_resnet(1) == 369_498 and "layer1.0.dropout" not in network.shapes
    assert count(build("resnet20", rng, option="B")) == PARAMETERS["resnet20-b"]
    assert build("resnet18", rng, size=32, classes=7, dtype=np.float32).shapes["fc"] == (7,)
    assert "bn1" not in build("cifarnet", rng, width=2, hidden=3, batch_norm=False).shapes
    plain = build("vgg-distilquant", rng, channels=(2,) * 8, hidden=3, batch_norm=False, dropout=False)
    assert {type(node.layer).__name__ for node in plain.nodes} == {
        "Conv2d",
        "ReLU",
        "MaxPool2d",
        "Flatten",
        "Linear",
    }
    without = build("alexnet", rng, hidden=2, dropout=0, dtype=np.float32)
    assert without.weighted[-3:] == ("classifier.1", "classifier.4", "classifier.6")


BAD: dict[str, tuple[str, dict[str, Any], type[Exception], str]] = {
    "unknown": ("resnet20", {"widen": 2}, ValueError, r"`options` of resnet20 must be among .*\['widen'\]"),
    "option C": ("resnet20", {"option": "C"}, ValueError, "`option` must be one of 'A', 'B', got 'C'"),
    "depth": ("wrn28-1", {"depth": 27}, ValueError, r"`depth` must be 6 n \+ 4, got 27"),
    "depth 4": ("wrn28-1", {"depth": 4}, ValueError, "`depth` must be an integer of at least 10, got 4"),
    "widen 0": ("wrn28-1", {"widen": 0}, ValueError, "`widen` must be an integer of at least 1, got 0"),
    "widen a half": ("wrn28-1", {"widen": 0.5}, TypeError, "`widen` must be an integer, got float"),
    "dropout 1": ("wrn28-1", {"dropout": 1.0}, ValueError, "`p` must be smaller than 1, got 1"),
    "dropout -1": ("alexnet-bn", {"dropout": -1}, ValueError, "`dropout` must be"),
    "size": ("resnet18", {"size": 0}, ValueError, "`size` must be an integer of at least 1, got 0"),
    "small": ("squeezenet1.1", {"size": 2}, ValueError, "`x` must be at least as large as the window"),
    "classes": ("resnet50", {"classes": 0}, ValueError, "`classes` must be an integer of at least 1"),
    "stages": ("resnet34", {"width": 0}, ValueError, "`width` must be an integer of at least 1, got 0"),
    "width": ("cifarnet", {"width": 0}, ValueError, "`width` must be an integer of at least 1, got 0"),
    "hidden": ("cifarnet", {"hidden": 0}, ValueError, "`hidden` must be an integer of at least 1, got 0"),
    "channels": (
        "vgg-distilquant",
        {"channels": (1, 2)},
        ValueError,
        "`channels` must hold 8 numbers, got 2",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_options_are_named(case: str) -> None:
    name, options, error, message = BAD[case]
    with pytest.raises(error, match=message):
        build(name, np.random.default_rng(0), dtype=np.float32, **options)


def test_unknown_names_are_errors() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"`name` must be one of 'mlp-digits', .*, got 'resnet21'"):
        build("resnet21", rng)
    with pytest.raises(ValueError, match=r"`name` must be one of 'mlp-digits', .*, got ''"):
        preprocess("")
    with pytest.raises(ValueError, match="`name` must be one of 'mlp-digits', 'cnn-digits', got 'resnet20'"):
        shipped("resnet20")
    with pytest.raises(ValueError, match="`depth` must be one of 20, 32, 44, 56, 110, got 21"):
        resnet_cifar(21, rng)


def test_builders_by_their_own_names_are_the_registered_ones() -> None:
    rng = np.random.default_rng(0)
    assert wrn(rng, depth=10, widen=1).shapes["linear"] == (10,)
    assert cifarnet(rng, width=1, hidden=1).shapes["svm"] == (10,)
    assert vgg_distilquant(rng, channels=(1,) * 8, hidden=1).shapes["out_layer"] == (10,)
    assert alexnet(rng, hidden=1, classes=3, dtype=np.float32).shapes["classifier.8"] == (3,)


def test_mlp_without_batch_norm_has_biases() -> None:
    network = mlp_digits(np.random.default_rng(0), hidden=(7,), batch_norm=False)
    assert count(network) == 64 * 7 + 7 + 7 * 10 + 10
    with pytest.raises(ValueError, match="`hidden` must be an integer of at least 1, got 0"):
        mlp_digits(np.random.default_rng(0), hidden=(0,))


def test_shipped_files_lie_beside_the_module() -> None:
    assert SHIPPED == ("mlp-digits", "cnn-digits")
    for name in SHIPPED:
        assert shipped(name).is_file() and shipped(name).stat().st_size < 300_000
