"""Two networks of one graph: units, constants and rounding, all that does not depend on images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from refldnq._typing import Float64Array, Params, Shape
from refldnq.bounds.operators import frobenius_norms, operator_norms
from refldnq.bounds.rounding import gamma
from refldnq.bounds.units import (
    Grain,
    Norms,
    Unit,
    changed,
    constants,
    partition,
    scale_and_shift,
    weighted_size,
)
from refldnq.layers import Add, AvgPool2d, BatchNorm, Conv2d, GlobalAvgPool, Linear
from refldnq.layers.base import Layer, LinearMap
from refldnq.network import Network, Node


class Pair:
    """The two networks, their units and constants."""

    def __init__(self, original: Network, quantized: Network) -> None:
        self.original, self.quantized = original, quantized
        self.changed = changed(original, quantized)
        self.units: dict[Grain, tuple[Unit, ...]] = {
            grain: partition(original, grain) for grain in ("nodes", "affine", "blocks")
        }
        self.groups = _groups(original, self.units["affine"], self.changed)
        operator = _remembered(operator_norms)
        self.norms = {
            "spectral": self._both("nodes", operator),
            "frobenius": self._both("nodes", frobenius_norms),
            "affine": self._both("affine", operator),
            "blocks": self._both("blocks", operator),
        }
        self.magnitudes = {node.name: _magnitudes(node, self) for node in original.nodes}

    def _both(self, grain: Grain, norms: Norms) -> dict[str, dict[str, tuple[float, ...]]]:
        # "parallel": errors are carried by the quantized network; "cascade": by the original.
        shapes = self.original.shapes
        return {
            "parallel": constants(self.units[grain], self.quantized.params, shapes, norms),
            "cascade": constants(self.units[grain], self.original.params, shapes, norms),
        }


def _remembered(norms: Norms) -> Norms:
    # The same weight stands in several units, and in both networks if it was not quantized.
    known: dict[tuple[object, ...], tuple[float, ...]] = {}

    def once(layer: Layer, params: Params, *shapes: Shape) -> tuple[float, ...]:
        key = (layer, shapes, *((name, params[name].tobytes()) for name in sorted(params)))
        if key not in known:
            known[key] = norms(layer, params, *shapes)
        return known[key]

    return once


def _groups(
    network: Network, units: Sequence[Unit], changed: frozenset[str]
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    # Every changed node belongs to the layer with weights that its unit begins with, or to the last such
    # layer before it; what comes before all of them forms a group by itself.
    heads = {node.name: unit.nodes[0] for unit in units for node in unit.nodes}
    groups: dict[str, list[str]] = {}
    current = network.nodes[0].name
    for node in network.nodes:
        if isinstance(node.layer, LinearMap):
            current = node.name
        if node.name in changed:
            head = heads[node.name]
            groups.setdefault(head.name if isinstance(head.layer, LinearMap) else current, []).append(
                node.name
            )
    ordered = sorted(groups, key=network.position)
    return tuple((name, tuple(groups[name])) for name in ordered)


def rounding(unit: Unit, pair: Pair, around: Mapping[str, Float64Array]) -> Float64Array:
    r"""A bound of what rounding adds to a unit's local error.

    Parameters
    ----------
    unit : Unit
        A node, or a layer with weights and what follows it.
    pair : Pair
        The networks.
    around : mapping of str to Array
        For each input the sum of the norms of the two networks' values, over all images or of each.

    Returns
    -------
    Array, the shape of those in `around`
        Twice :math:`\gamma` times what the magnitudes of weights and inputs give: the difference of two
        evaluations with rounding :math:`\eta` each, of either network's parameters.
    """
    size: Float64Array = np.sum([around[name] for name in unit.inputs], axis=0)
    shapes = pair.original.shapes
    noise = np.zeros_like(size)
    for node in unit.nodes:
        scale, offset, count = pair.magnitudes[node.name]
        pixels = float(np.prod(shapes[node.name][1:], initial=1.0))
        # What the magnitudes give at most, and so what is added to, and what is rounded `count` times.
        noise = scale * noise
        size = scale * size + 2.0 * offset * np.sqrt(pixels)
        noise = noise + 2.0 * gamma(count) * size
    return noise


def _magnitudes(node: Node, pair: Pair) -> tuple[float, float, int]:
    # The norm of the operator of magnitudes, the norm of what is added in each pixel, and the roundings.
    layer, shapes = node.layer, [pair.original.shapes[name] for name in node.inputs]
    both = [network.params.get(node.name, {}) for network in (pair.original, pair.quantized)]
    if isinstance(layer, Conv2d | Linear):
        scale = max(pair.norms["frobenius"][side][node.name][0] for side in ("parallel", "cascade"))
        offset = max(float(np.linalg.norm(params["bias"])) if layer.bias else 0.0 for params in both)
        return scale, offset, weighted_size(layer) + 6
    if isinstance(layer, BatchNorm):
        pairs = [scale_and_shift(layer, params) for params in both]
        scale = max(float(np.abs(scale).max()) for scale, _ in pairs)
        return scale, max(float(np.linalg.norm(shift)) for _, shift in pairs), 6
    if isinstance(layer, Add):
        return 1.0, 0.0, len(node.inputs) + 4
    if isinstance(layer, AvgPool2d | GlobalAvgPool):
        _, h, w = shapes[0]
        return layer.lipschitz({}, shapes[0])[0], 0.0, h * w + 6
    return max(layer.lipschitz({}, *shapes), default=1.0), 0.0, 0
