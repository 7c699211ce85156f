"""The registry of architectures: names, sizes, shapes."""

from __future__ import annotations

import numpy as np
import pytest

from refldnq.models import NAMES, SHIPPED, build, preprocess, shipped
from refldnq.models.mlp import mlp_digits
from refldnq.models.resnet_cifar import resnet_cifar
from refldnq.network import Network

PARAMETERS = {
    # 64*128 + 128*64 + 64*10 + 10, and two numbers a unit of batch normalization.
    "mlp-digits": 64 * 128 + 128 * 64 + 64 * 10 + 10 + 2 * (128 + 64),
    "cnn-digits": 9 * (1 * 16 + 16 * 32 + 32 * 64) + 64 * 10 + 10 + 2 * (16 + 32 + 64),
    # README of akamaster/pytorch_resnet_cifar10 (0.27M, 0.46M, 0.66M, 0.85M, 1.7M), to the last one.
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
}


def count(network: Network) -> int:
    return sum(
        array.size
        for node in network.nodes
        for key, array in network.params.get(node.name, {}).items()
        if key not in node.layer.buffers
    )


def test_every_name_has_its_count() -> None:
    assert set(NAMES) == set(PARAMETERS)


@pytest.mark.parametrize("name", NAMES)
def test_parameter_counts_and_shapes(name: str) -> None:
    network = build(name, np.random.default_rng(0))
    assert count(network) == PARAMETERS[name]
    assert network.dtype == np.float64
    assert network.shapes[network.nodes[-1].name] == (10,)
    assert network.input_shape == ((3, 32, 32) if name.startswith("resnet") else (1, 8, 8))


@pytest.mark.parametrize("depth", [20, 32])
def test_option_b_adds_two_projections(depth: int) -> None:
    rng = np.random.default_rng(0)
    extra = 16 * 32 + 32 * 64 + 2 * (32 + 64)
    assert count(resnet_cifar(depth, rng, option="B")) == PARAMETERS[f"resnet{depth}"] + extra


@pytest.mark.parametrize("name", ["mlp-digits", "cnn-digits", "resnet20"])
def test_the_generator_decides_the_weights(name: str) -> None:
    one, two, other = (build(name, np.random.default_rng(seed)) for seed in (0, 0, 1))
    first = one.weighted[0]
    np.testing.assert_array_equal(one.params[first]["weight"], two.params[first]["weight"])
    assert not np.array_equal(one.params[first]["weight"], other.params[first]["weight"])


@pytest.mark.parametrize("name", NAMES)
def test_initial_weights_are_he_normal(name: str) -> None:
    network = build(name, np.random.default_rng(0))
    for layer in network.weighted:
        weight = network.params[layer]["weight"]
        want = 2.0 / np.prod(weight.shape[1:])
        # The variance of m Gaussians has the relative standard deviation sqrt(2 / m); six of them.
        if not abs(weight.var() / want - 1.0) <= 6 * np.sqrt(2.0 / weight.size):
            raise AssertionError(f"{layer}: variance {weight.var()}, {want} expected")


@pytest.mark.parametrize("name", ["mlp-digits", "cnn-digits", "resnet20"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_preset_feeds_the_network(name: str, dtype: type) -> None:
    network = build(name, np.random.default_rng(0)).astype(dtype)
    images = np.random.default_rng(1).integers(0, 17, (3, *network.input_shape)).astype(np.uint8)
    logits = network.forward(preprocess(name)(images, dtype))
    assert logits.shape == (3, 10) and logits.dtype == dtype and np.isfinite(logits).all()


def test_cifar_preset_is_the_checkpoints() -> None:
    x = np.full((1, 3, 1, 1), 255, np.uint8)
    want = (1.0 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(preprocess("resnet20")(x, np.float64).ravel(), want, rtol=1e-14)


def test_digits_preset_maps_ink_to_one() -> None:
    x = np.array([0, 8, 16], np.uint8).reshape(3, 1, 1, 1)
    np.testing.assert_array_equal(preprocess("cnn-digits")(x, np.float64).ravel(), [0.0, 0.5, 1.0])


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


def test_mlp_without_batch_norm_has_biases() -> None:
    network = mlp_digits(np.random.default_rng(0), hidden=(7,), batch_norm=False)
    assert count(network) == 64 * 7 + 7 + 7 * 10 + 10
    with pytest.raises(ValueError, match="`hidden` must be an integer of at least 1, got 0"):
        mlp_digits(np.random.default_rng(0), hidden=(0,))


def test_shipped_files_lie_beside_the_module() -> None:
    assert SHIPPED == ("mlp-digits", "cnn-digits")
    for name in SHIPPED:
        assert shipped(name).is_file() and shipped(name).stat().st_size < 300_000
