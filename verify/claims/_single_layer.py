"""The layer error (8) of single layers, computed twice: by loops over exact numbers, by the package's layers.

The package computes in float64, which represents small integers and halves of them; so both ways must agree
bit for bit. Linear layers are in the paper's convention, samples as columns of Y, Z = WᵀY, one column of W a
neuron. Convolutions have images (n, c, h, w) and weights (out, in / groups, kh, kw).
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from refldnq.layers.conv import Conv2d
from refldnq.layers.linear import Linear
from refldnq.verify.claims._rational import Exact, exact, inner, squares
from refldnq.verify.naive import layers as naive

GEOMETRIES: Mapping[str, Mapping[str, Any]] = {
    "3x3, padding 1": {"channels": 2, "out": 2, "size": (4, 4), "kernel": (3, 3), "padding": (1, 1, 1, 1)},
    "two groups, stride (2, 1)": {
        "channels": 2, "out": 4, "size": (6, 5), "kernel": (3, 2), "stride": (2, 1), "padding": (1, 1, 0, 0),
        "groups": 2,
    },
    "depthwise, dilation (2, 1)": {
        "channels": 4, "out": 4, "size": (5, 6), "kernel": (2, 3), "stride": (1, 2), "padding": (0, 0, 1, 1),
        "dilation": (2, 1), "groups": 4,
    },
    "dilation 2, stride 2": {
        "channels": 1, "out": 2, "size": (7, 7), "kernel": (3, 3), "stride": (2, 2), "padding": (1, 1, 1, 1),
        "dilation": (2, 2),
    },
    "1x1 depthwise, stride 2": {
        "channels": 3, "out": 3, "size": (5, 5), "kernel": (1, 1), "stride": (2, 2), "groups": 3,
    },
    "1x1": {"channels": 3, "out": 2, "size": (3, 4), "kernel": (1, 1)},
    "two groups, stride 3, dilation (1, 2)": {
        "channels": 4, "out": 2, "size": (6, 6), "kernel": (3, 3), "stride": (3, 1), "padding": (2, 2, 2, 2),
        "dilation": (1, 2), "groups": 2,
    },
    "dilation 3, padding 2": {
        "channels": 2, "out": 2, "size": (5, 4), "kernel": (3, 3), "padding": (2, 2, 2, 2),
        "dilation": (3, 1),
    },
    "stride 2, padded below and right only": {
        "channels": 1, "out": 2, "size": (6, 6), "kernel": (3, 3), "stride": (2, 2), "padding": (0, 1, 0, 1),
    },
    "depthwise, two outputs a channel": {
        "channels": 2, "out": 4, "size": (4, 4), "kernel": (2, 2), "padding": (1, 0, 0, 1), "groups": 2,
    },
}  # fmt: skip
"""Convolutions by what is special about them."""


def linear_error(Y: Exact, W: Exact, G: Exact) -> Fraction:
    """(8) by loops: (1/n) ‖GᵀY - WᵀY‖².

    Examples
    --------
    >>> linear_error(exact([[1, 3]]), exact([[0]]), exact([[1]]))
    Fraction(5, 1)
    """
    difference = naive.linear(Y.T, G.T) - naive.linear(Y.T, W.T)
    return Fraction(squares(exact(difference)), Y.shape[1])


def linear_error_by_library(Y: Exact, W: Exact, G: Exact) -> Fraction:
    """(8) by two forward calls of the package's layer in float64.

    Examples
    --------
    >>> linear_error_by_library(exact([[1, 3]]), exact([[0]]), exact([[1]]))
    Fraction(5, 1)
    """
    layer, x = Linear(W.shape[0], W.shape[1], bias=False), floats(Y.T)
    before, _ = layer.forward({"weight": floats(W.T)}, x)
    after, _ = layer.forward({"weight": floats(G.T)}, x)
    return Fraction(squares(exact(after - before)), Y.shape[1])


def linear_hessian_by_library(Y: Exact) -> Exact:
    """The package's Hessian block of a linear layer.

    Examples
    --------
    >>> linear_hessian_by_library(exact([[1, 3]])).tolist() == [[10]]
    True
    """
    return exact(Linear(Y.shape[0], 1, bias=False).hessian(floats(Y.T))[0])


def floats(values: Any) -> Any:
    """An array of exact numbers in float64, contiguous.

    Examples
    --------
    >>> floats(exact([1, "1/2"]))
    array([1. , 0.5])
    """
    return np.ascontiguousarray(np.asarray(values).astype(np.float64))


def quadratic(H: Exact, delta: Exact) -> Any:
    """½ δᵀHδ.

    Examples
    --------
    >>> quadratic(exact([[2, 0], [0, 4]]), exact([1, 1]))
    Fraction(3, 1)
    """
    return inner(delta, H @ delta) / 2


def convolution(geometry: Mapping[str, Any], *, bias: bool = False) -> Conv2d:
    """The package's layer of a geometry.

    Examples
    --------
    >>> convolution(GEOMETRIES["1x1"]).patch_size
    3
    """
    names = ("stride", "padding", "dilation", "groups")
    given = {name: geometry[name] for name in names if name in geometry}
    return Conv2d(geometry["channels"], geometry["out"], geometry["kernel"], bias=bias, **given)


def window(geometry: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the loops.

    Examples
    --------
    >>> window(GEOMETRIES["1x1"])["stride"]
    (1, 1)
    """
    plain = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1}
    return {name: geometry.get(name, value) for name, value in plain.items()}


def convolved(x: Exact, weight: Exact, geometry: Mapping[str, Any], bias: Exact | None = None) -> Any:
    """The convolution by seven loops."""
    return naive.conv2d(x, weight, bias, **window(geometry))


def convolution_energy(x: Exact, weight: Exact, delta: Exact, geometry: Mapping[str, Any]) -> int:
    """NE of (8) by loops: the sum of the squares of the output's change.

    Examples
    --------
    >>> one = np.ones((1, 1, 1, 1), dtype=object)
    >>> convolution_energy(one, one, 3 * one, {"channels": 1, "out": 1, "kernel": (1, 1)})
    9
    """
    change = convolved(x, weight + delta, geometry) - convolved(x, weight, geometry)
    return int(sum(v * v for v in change.flat))


def grams(x: Exact, geometry: Mapping[str, Any], *, bias: bool = False) -> Exact:
    """For every group the sum of the outer products of all patches of all images, by loops.

    Examples
    --------
    >>> grams(np.ones((1, 1, 2, 2), dtype=object), {"kernel": (1, 1)}).tolist() == [[[4]]]
    True
    """
    n = x.shape[0]
    blocks = naive.conv2d_hessian(x * Fraction(1), kernel=geometry["kernel"], bias=bias, **window(geometry))
    return exact(blocks * Fraction(n, 2))


def integers(rng: np.random.Generator, shape: tuple[int, ...], most: int = 3) -> Exact:
    """Random integers in an array of objects, computed with exactly by the loops."""
    drawn: Exact = rng.integers(-most, most + 1, shape).astype(object)
    return drawn


def images(rng: np.random.Generator, geometry: Mapping[str, Any], n: int = 2) -> tuple[Exact, Exact, Exact]:
    """Random integer images, weights and a change of the weights.

    Examples
    --------
    >>> [part.shape for part in images(np.random.default_rng(0), GEOMETRIES["1x1"])]
    [(2, 3, 3, 4), (2, 3, 1, 1), (2, 3, 1, 1)]
    """
    shape = (geometry["out"], geometry["channels"] // geometry.get("groups", 1), *geometry["kernel"])
    x = integers(rng, (n, geometry["channels"], *geometry["size"]))
    return x, integers(rng, shape), integers(rng, shape, 2)
