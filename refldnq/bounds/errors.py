"""What is measured on images: layer errors, their way to the output, hybrids. One batch at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from refldnq._typing import Array, Float64Array, NetworkParams
from refldnq.bounds.masks import carry, masked_norms, masked_size, relevance, sizes, supports
from refldnq.bounds.pair import Pair, rounding
from refldnq.bounds.secant import SecantMap, secant
from refldnq.bounds.units import Unit
from refldnq.layers.base import Tape
from refldnq.network import INPUT, Network


@dataclass(slots=True)
class Sums:
    """Numbers of every image, by what they are."""

    parts: dict[tuple[str, ...], list[Float64Array]] = field(default_factory=dict)

    def add(self, key: tuple[str, ...], values: Float64Array) -> None:
        self.parts.setdefault(key, []).append(values)

    def values(self, *key: str) -> Float64Array:
        return np.concatenate(self.parts[key])

    def root_mean(self, *key: str) -> float:
        """The Frobenius norm over all images, divided by the root of their number; 0 of what is not there."""
        if key not in self.parts:
            return 0.0
        return root_mean_square(self.values(*key))


def root_mean_square(values: Float64Array) -> float:
    """The root of the mean square, without overflow.

    Examples
    --------
    >>> import numpy as np
    >>> root_mean_square(np.array([1e200, 1e200])) == 1e200
    True
    """
    largest = float(np.max(values, initial=0.0))
    if largest == 0.0 or not np.isfinite(largest):
        return largest
    return largest * float(np.sqrt(np.mean((values / largest) ** 2)))


class Batch:
    """Some images in both networks."""

    def __init__(self, pair: Pair, x: Array) -> None:
        self.pair, self.x = pair, x
        self.network = pair.original
        self.values, tapes = evaluate(self.network, pair.original.params, x)
        self.values_hat, tapes_hat = evaluate(self.network, pair.quantized.params, x)
        self.tapes = {name: (tapes[name], tapes_hat[name]) for name in tapes}
        self.last = self.network.nodes[-1].name

    def measure(self, sums: Sums) -> None:
        sums.add(("true",), sizes(self.values_hat[self.last] - self.values[self.last]))
        sums.add(("output",), sizes(self.values[self.last]))
        for name, value in self.values.items():
            sums.add(("size", name), sizes(value) + sizes(self.values_hat[name]))
        self._locals(sums)
        self._secants(sums)
        self._hybrids(sums)

    def _local(self, unit: Unit, side: str) -> Array:
        # F(x; quantized) - F(x; original), x the original's input or the quantized network's.
        if side == "parallel":
            inputs = [self.values[name] for name in unit.inputs]
            return unit.forward(self.pair.quantized.params, *inputs) - self.values[unit.name]
        inputs = [self.values_hat[name] for name in unit.inputs]
        return self.values_hat[unit.name] - unit.forward(self.pair.original.params, *inputs)

    def _locals(self, sums: Sums) -> None:
        pair = self.pair
        support = supports(self.network, self.values, self.values_hat)
        relevant = relevance(self.network, self.values, self.values_hat, self.tapes)
        self.local: dict[str, Array] = {}
        masked: dict[str, Float64Array] = {}
        for grain in ("nodes", "affine", "blocks"):
            for unit in pair.units[grain]:
                if not any(node.name in pair.changed for node in unit.nodes):
                    continue
                parallel = self._local(unit, "parallel")
                if grain == "nodes":
                    self.local[unit.name] = parallel
                if grain == "affine":
                    masked[unit.name] = masked_size(parallel, relevant[unit.name])
                else:
                    sums.add(("local", grain, "parallel", unit.name), sizes(parallel))
                    sums.add(("local", grain, "cascade", unit.name), sizes(self._local(unit, "cascade")))
        norms = {
            unit.name: masked_norms(
                unit,
                pair.quantized.params,
                pair.norms["affine"]["parallel"][unit.name],
                support,
                relevant,
            )
            for unit in pair.units["affine"]
        }
        count = len(self.x)
        sums.add(("masks",), carry(pair.units["affine"], norms, masked, count))
        noise = {unit.name: rounding(unit, pair, self._sizes(unit)) for unit in pair.units["affine"]}
        sums.add(("masks", "slack"), carry(pair.units["affine"], norms, noise, count))

    def _sizes(self, unit: Unit) -> dict[str, Float64Array]:
        return {name: sizes(self.values[name]) + sizes(self.values_hat[name]) for name in unit.inputs}

    def _maps(self) -> dict[str, SecantMap]:
        params = self.pair.quantized.params
        return {
            node.name: secant(
                node.layer,
                params.get(node.name, {}),
                self.tapes[node.name],
                [self.values[name] for name in node.inputs],
                [self.values_hat[name] for name in node.inputs],
            )
            for node in self.network.nodes
        }

    def _secants(self, sums: Sums) -> None:
        maps = self._maps()
        rest = self.values_hat[self.last] - self.values[self.last]
        total = np.zeros(len(self.x))
        for name, members in self.pair.groups:
            term = self._carry_exactly(maps, members)
            sums.add(("secant", name), sizes(term))
            total += sizes(term)
            rest = rest - term
        sums.add(("secant",), total)
        sums.add(("residual",), sizes(rest))

    def _carry_exactly(self, maps: Mapping[str, SecantMap], members: Sequence[str]) -> Array:
        # What the local errors of some nodes become at the final output.
        live: dict[str, Array] = {}
        last_use = {name: i for i, node in enumerate(self.network.nodes) for name in node.inputs}
        for i, node in enumerate(self.network.nodes):
            out = None
            if any(name in live for name in node.inputs):
                given = [
                    live[name] if name in live else np.zeros_like(self.values[name]) for name in node.inputs
                ]
                out = maps[node.name](given)
            if node.name in members:
                out = self.local[node.name] if out is None else out + self.local[node.name]
            if out is not None:
                live[node.name] = out
            for name in node.inputs:
                if last_use[name] == i:
                    live.pop(name, None)
        return live.get(self.last, np.zeros_like(self.values[self.last]))

    def _hybrids(self, sums: Sums) -> None:
        pair, end = self.pair, len(self.network.nodes)
        before = self.values[self.last]
        total = np.zeros(len(self.x))
        done: dict[str, Mapping[str, Array]] = {}
        for index, (name, members) in enumerate(pair.groups):
            done.update({member: pair.quantized.params[member] for member in members})
            if index == len(pair.groups) - 1:
                after = self.values_hat[self.last]
            else:
                cut = self.network.position(pair.groups[index + 1][0])
                live = {source: self.values_hat[source] for source in self.network.alive(cut)}
                params = {**pair.original.params, **done}
                after = self.network.advance(live, cut, end, params=params)[self.last]
            step = sizes(after - before)
            sums.add(("hybrid", name), step)
            total += step
            before = after
        sums.add(("hybrid",), total)


def evaluate(network: Network, params: NetworkParams, x: Array) -> tuple[dict[str, Array], dict[str, Tape]]:
    """All activations and tapes, in eval mode."""
    values: dict[str, Array] = {INPUT: x}
    tapes: dict[str, Tape] = {}
    for node in network.nodes:
        inputs = (values[name] for name in node.inputs)
        values[node.name], tapes[node.name] = node.layer.forward(params.get(node.name, {}), *inputs)
    return values, tapes
