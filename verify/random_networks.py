"""Random networks of mixed layers and their quantized twins: what bounds on the final error are tried on."""

from __future__ import annotations

from typing import Literal

import numpy as np

from refldnq._typing import Array, Shape
from refldnq.codebook import powers_of_two
from refldnq.layers import (
    Add,
    AvgPool2d,
    BatchNorm,
    Concat,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Layer,
    Linear,
    MaxPool2d,
    ReLU,
    SubsampleShortcut,
    ZeroPad2d,
)
from refldnq.layers.base import he_normal
from refldnq.network import INPUT, Network, Node
from refldnq.projection import project

Kind = Literal["fc", "conv", "residual", "mixed"]
KINDS: tuple[Kind, ...] = ("fc", "conv", "residual", "mixed")
"""Fully connected ReLU chains; convolutions and pooling; residual blocks; all of it with batch norm."""

IMAGES = 12
"""Random images a network; chosen here."""


class _Builder:
    """Nodes and parameters, put one behind the other."""

    def __init__(self, rng: np.random.Generator, shape: Shape) -> None:
        self.rng, self.input_shape = rng, shape
        self.nodes: list[Node] = []
        self.shapes: dict[str, Shape] = {INPUT: shape}
        self.params: dict[str, dict[str, Array]] = {}
        self.weighted = 0

    def put(self, layer: Layer, *inputs: str) -> str:
        rng, name = self.rng, f"{type(layer).__name__.lower()}{len(self.nodes)}"
        self.shapes[name] = layer.output_shape(*(self.shapes[source] for source in inputs))
        self.nodes.append(Node(name, layer, inputs))
        if isinstance(layer, Conv2d | Linear):
            self.weighted += 1
            fan_in = layer.patch_size if isinstance(layer, Conv2d) else layer.in_features
            shapes = layer.parameter_shapes()
            self.params[name] = {"weight": he_normal(rng, shapes["weight"], fan_in)}
            if layer.bias:
                self.params[name]["bias"] = 0.1 * rng.standard_normal(shapes["bias"])
        elif isinstance(layer, BatchNorm):
            count = layer.features
            self.params[name] = {
                "weight": rng.uniform(0.7, 1.3, count),
                "bias": 0.1 * rng.standard_normal(count),
                "running_mean": 0.1 * rng.standard_normal(count),
                "running_var": rng.uniform(0.7, 1.4, count),
            }
        return name

    def conv(self, x: str, channels: int, *, plain: bool = False) -> str:
        """A convolution that keeps small images alive, of random geometry unless `plain`."""
        rng = self.rng
        c, h, w = self.shapes[x]
        size, dilation, stride, groups = 3, 1, 1, 1
        if not plain:
            size = int(rng.choice([1, 2, 3, 3]))
            dilation = int(rng.choice([1, 1, 2]))
            stride = 2 if min(h, w) >= 6 and rng.random() < 0.3 else 1
            groups = 2 if c % 2 == 0 and channels % 2 == 0 and rng.random() < 0.3 else 1
        padding = dilation * (size // 2)
        layer = Conv2d(c, channels, size, stride, padding, dilation, groups, bias=bool(rng.random() < 0.5))
        return self.put(layer, x)

    def norm(self, x: str) -> str:
        return self.put(BatchNorm(self.shapes[x][0]), x)


def random_pair(
    kind: Kind, depth: int, rng: np.random.Generator, *, prelude: bool = False
) -> tuple[Network, Network, Array]:
    """A random network, its quantized twin, and images.

    Parameters
    ----------
    kind : {'fc', 'conv', 'residual', 'mixed'}
        Which layers.
    depth : int
        Number of layers with weights, at least 2.
    rng : numpy.random.Generator
        Draws everything.
    prelude : bool, optional
        Whether nodes without weights stand before the first layer that has some: padding, pooling, ReLU or
        a concatenation, and batch normalization, which then differs between the two. Not for 'fc'.

    Returns
    -------
    original : Network
        He-normal weights, float64.
    quantized : Network
        Every weight projected onto five levels (0, ±α, ±2α), exactly; in kinds other than 'fc' also other
        parameters of batch normalization, and sometimes other biases.
    images : Array, shape (12, *input_shape)
        Standard normal.

    Examples
    --------
    >>> original, quantized, images = random_pair("mixed", 4, np.random.default_rng(0))
    >>> len(original.weighted), len(np.unique(quantized.params[original.weighted[0]]["weight"])) <= 5
    (4, True)
    """
    original = _fc(depth, rng) if kind == "fc" else _images(kind, depth, rng, prelude=prelude)
    images = rng.standard_normal((IMAGES, *original.input_shape))
    return original, quantized_twin(original, rng, only_weights=kind == "fc"), images


def quantized_twin(network: Network, rng: np.random.Generator, *, only_weights: bool) -> Network:
    """Every weight on five levels; unless `only_weights`, other batch normalization and perhaps biases."""
    codebook = powers_of_two(5)
    changes: dict[str, dict[str, Array]] = {}
    for node in network.nodes:
        own = network.params.get(node.name, {})
        if isinstance(node.layer, Conv2d | Linear):
            changes[node.name] = {"weight": project(own["weight"], codebook, method="exact").G}
            if "bias" in own and not only_weights and rng.random() < 0.3:
                changes[node.name]["bias"] = own["bias"] + 0.05 * rng.standard_normal(own["bias"].shape)
        elif isinstance(node.layer, BatchNorm) and not only_weights and rng.random() < 0.7:
            factors = {key: np.exp(0.05 * rng.standard_normal(array.shape)) for key, array in own.items()}
            changes[node.name] = {key: array * factors[key] for key, array in own.items()}
    return network.replace(changes)


def _fc(depth: int, rng: np.random.Generator) -> Network:
    widths = [8, *(int(width) for width in rng.integers(6, 14, depth))]
    builder, x = _Builder(rng, (widths[0],)), INPUT
    for index in range(depth):
        x = builder.put(Linear(widths[index], widths[index + 1]), x)
        x = builder.put(ReLU(), x)
    return Network(tuple(builder.nodes), builder.params, builder.input_shape)


def _prelude(builder: _Builder) -> str:
    starts: tuple[tuple[Layer, int], ...] = (
        (ZeroPad2d(1), 1),
        (MaxPool2d(3, stride=1, padding=1), 1),
        (AvgPool2d(3, stride=1, padding=1), 1),
        (ReLU(), 1),
        (Concat(), 2),
    )
    layer, inputs = starts[int(builder.rng.integers(len(starts)))]
    return builder.norm(builder.put(layer, *[INPUT] * inputs))


def _images(kind: Kind, depth: int, rng: np.random.Generator, *, prelude: bool) -> Network:
    builder = _Builder(rng, (int(rng.integers(1, 4)), 7, 7))
    x = _prelude(builder) if prelude else INPUT
    x = builder.put(ReLU(), builder.conv(x, 4, plain=True))
    fc = 1 if kind != "mixed" else max(1, int(rng.integers(1, max(2, depth // 3))))
    while builder.weighted < depth - fc:
        left = depth - fc - builder.weighted
        if kind == "residual" or (kind == "mixed" and rng.random() < 0.4):
            x = _block(builder, x, left)
        else:
            x = builder.conv(x, int(rng.choice([4, 6])))
            x = builder.norm(x) if rng.random() < 0.5 else x
            x = builder.put(ReLU(), x)
            x = _pool(builder, x)
    x = builder.put(GlobalAvgPool(), x) if rng.random() < 0.3 else x
    x = builder.put(Dropout(), builder.put(Flatten(), x))
    for index in range(fc):
        x = builder.put(Linear(builder.shapes[x][0], int(rng.integers(6, 12))), x)
        if index < fc - 1:
            x = builder.norm(x) if rng.random() < 0.3 else x
            x = builder.put(ReLU(), x)
    return Network(tuple(builder.nodes), builder.params, builder.input_shape)


def _pool(builder: _Builder, x: str) -> str:
    rng = builder.rng
    _, h, w = builder.shapes[x]
    if min(h, w) < 4:
        return x
    choice = rng.random()
    if choice < 0.15:
        return builder.put(MaxPool2d(2), x)
    if choice < 0.3:
        return builder.put(MaxPool2d(3, stride=2, padding=1), x)
    if choice < 0.4:
        return builder.put(AvgPool2d(3, stride=2, padding=1), x)
    return builder.put(ZeroPad2d((0, 1, 0, 0)), x) if choice < 0.5 else x


def _block(builder: _Builder, x: str, left: int) -> str:
    rng = builder.rng
    channels, h, w = builder.shapes[x]
    if left >= 2 and rng.random() < 0.15:  # two branches side by side
        side = [builder.put(ReLU(), builder.conv(x, 2, plain=True)) for _ in range(2)]
        return builder.put(Concat(), *side)
    halve = min(h, w) >= 6 and left >= 2 and rng.random() < 0.3
    wide = channels + 2 if halve else channels
    y = x
    for index in range(min(2, left)):
        if index:
            y = builder.put(ReLU(), y)
        stride = 2 if halve and index == 0 else 1
        c = builder.shapes[y][0]
        y = builder.norm(builder.put(Conv2d(c, wide, 3, stride, 1, bias=False), y))
    shortcut = builder.put(SubsampleShortcut(channels, wide, 2), x) if halve else x
    return builder.put(ReLU(), builder.put(Add(), y, shortcut))
