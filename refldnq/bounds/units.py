r"""Errors along the graph: :math:`\varepsilon_v \le \sum_u \Lambda_{uv}\varepsilon_u + \mathrm{local}_v`.

The rule holds for nodes in topological order, and just as well for *units*, chains of nodes that are taken as
one function. Larger units give smaller constants: a convolution with its batch normalization is one linear
map, whose norm is at most the product of the two; and an error measured behind the ReLU is at most the one
before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from refldnq._typing import Array, Float64Array, NetworkParams, Params, Shape
from refldnq.bounds.operators import operator_norms, printed_norm
from refldnq.bounds.rounding import UNIT, raised
from refldnq.layers import BatchNorm, Conv2d, Linear, ReLU
from refldnq.layers.base import Layer, LinearMap
from refldnq.network import Network, Node

Grain = Literal["nodes", "affine", "blocks"]
"""Units of one node each; a layer with weights and its batch normalization; and the ReLU behind it."""

Norms = Callable[..., tuple[float, ...]]
"""A layer, its arrays and its inputs' shapes to one constant an input."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A chain of nodes: only the last one's output is used elsewhere."""

    nodes: tuple[Node, ...]

    @property
    def name(self) -> str:
        """The last node's name."""
        return self.nodes[-1].name

    @property
    def inputs(self) -> tuple[str, ...]:
        """The first node's inputs."""
        return self.nodes[0].inputs

    def forward(self, params: NetworkParams, *inputs: Array) -> Array:
        """The chain's output."""
        values: tuple[Array, ...] = inputs
        for node in self.nodes:
            values = (node.layer.forward(params.get(node.name, {}), *values)[0],)
        return values[0]


def partition(network: Network, grain: Grain) -> tuple[Unit, ...]:
    """The nodes as units, ordered by their last nodes.

    Parameters
    ----------
    network : Network
        The graph.
    grain : {'nodes', 'affine', 'blocks'}
        How much a unit holds.

    Returns
    -------
    tuple of Unit

    Examples
    --------
    >>> import numpy as np
    >>> from refldnq.models import build
    >>> network = build("cnn-digits", np.random.default_rng(0))
    >>> [len(unit.nodes) for unit in partition(network, "blocks")]
    [3, 3, 1, 3, 1, 1, 1]
    """
    users: dict[str, list[Node]] = {}
    for node in network.nodes:
        for name in node.inputs:
            users.setdefault(name, []).append(node)
    tails: dict[str, tuple[type[Layer], ...]] = {
        "nodes": (),
        "affine": (BatchNorm,),
        "blocks": (BatchNorm, ReLU),
    }
    taken: set[str] = set()
    units = []
    for node in network.nodes:
        if node.name in taken:
            continue
        chain = [node]
        for kind in tails[grain] if isinstance(node.layer, LinearMap) else ():
            behind = users.get(chain[-1].name, [])
            if len(behind) == 1 and isinstance(behind[0].layer, kind):
                chain.append(behind[0])
        taken.update(member.name for member in chain)
        units.append(Unit(tuple(chain)))
    return tuple(sorted(units, key=lambda unit: network.position(unit.name)))


def scale_and_shift(layer: BatchNorm, params: Params) -> tuple[Float64Array, Float64Array]:
    r"""What batch normalization multiplies with and adds in eval mode, by channel.

    Examples
    --------
    >>> import numpy as np
    >>> ones = {key: np.ones(1) for key in BatchNorm(1).parameter_shapes()}
    >>> scale, shift = scale_and_shift(BatchNorm(1, eps=3.0), ones)
    >>> float(scale[0]), float(shift[0])
    (0.5, 0.5)
    """
    scale = params["weight"] * (1.0 / np.sqrt(params["running_var"].astype(np.float64) + layer.eps))
    shift: Float64Array = params["bias"] - params["running_mean"] * scale
    return scale, shift


def folded(unit: Unit, params: NetworkParams) -> Float64Array:
    """The weight of a unit's linear map, batch normalization's scale multiplied in.

    Raises
    ------
    ValueError
        If the unit does not begin with a layer that has weights.
    """
    head = unit.nodes[0]
    if not isinstance(head.layer, LinearMap):
        raise ValueError(f"`unit` must begin with weights, got {head.layer}.")
    weight: Float64Array = params[head.name]["weight"].astype(np.float64)
    for node in unit.nodes[1:]:
        if isinstance(node.layer, BatchNorm):
            scale, _ = scale_and_shift(node.layer, params[node.name])
            weight = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    return weight


def constants(
    units: Sequence[Unit], params: NetworkParams, shapes: Mapping[str, Shape], norms: Norms = operator_norms
) -> dict[str, tuple[float, ...]]:
    r"""For each unit one :math:`\Lambda` an input, by the unit's name.

    Parameters
    ----------
    units : sequence of Unit
        From `partition`.
    params : mapping
        The parameters of the network that carries the error.
    shapes : mapping of str to tuple of int
        Of every node's output, `Network.shapes`.
    norms : callable, optional
        `operator_norms` or `frobenius_norms`.

    Returns
    -------
    dict of str to tuple of float
    """
    return {unit.name: _constants(unit, params, shapes, norms) for unit in units}


def _constants(
    unit: Unit, params: NetworkParams, shapes: Mapping[str, Shape], norms: Norms
) -> tuple[float, ...]:
    head = unit.nodes[0]
    result = norms(head.layer, params.get(head.name, {}), *(shapes[name] for name in head.inputs))
    if len(unit.nodes) == 1:
        return result
    bound = result[0]
    for before, node in zip(unit.nodes, unit.nodes[1:], strict=False):
        bound = raised(bound * norms(node.layer, params.get(node.name, {}), shapes[before.name])[0], 1)
    if any(isinstance(node.layer, BatchNorm) for node in unit.nodes):
        weight = folded(unit, params)
        one = norms(head.layer, {"weight": weight}, shapes[head.inputs[0]])[0]
        # Rounding in the products with the scale, at most u a number, as an operator of its own: a pixel lies
        # in at most kh kw patches.
        overlap = np.prod(weight.shape[2:], initial=1.0)
        bound = min(bound, raised(one + 2 * UNIT * float(overlap) * printed_norm(weight), 2))
    return (bound,)


def gains(
    units: Sequence[Unit], constants: Mapping[str, tuple[float, ...]], names: Iterable[str]
) -> dict[str, float]:
    r"""By how much an error of norm 1 at a node's output can grow on its way to the last unit's output.

    That is the sum over all paths of the products of their :math:`\Lambda`; unrolling the rule gives the
    bound as the sum of gain times local error.

    Parameters
    ----------
    units : sequence of Unit
        In topological order; the last one's output is the network's.
    constants : mapping of str to tuple of float
        From `constants`.
    names : iterable of str
        Nodes whose gains are wanted; 0 for those inside units.

    Returns
    -------
    dict of str to float

    Examples
    --------
    A residual sum has two paths, 1 + 0.5:

    >>> from refldnq.layers import Add, Linear
    >>> units = [Unit((Node("fc", Linear(1, 1), ("input",)),)), Unit((Node("add", Add(), ("fc", "input")),))]
    >>> round(gains(units, {"fc": (0.5,), "add": (1.0, 1.0)}, ["input"])["input"], 9)
    1.5
    """
    result = {units[-1].name: 1.0}
    for unit in reversed(units):
        own = result.get(unit.name, 0.0)
        for name, constant in zip(unit.inputs, constants[unit.name], strict=True):
            result[name] = raised(result.get(name, 0.0) + constant * own, 2)
    return {name: result.get(name, 0.0) for name in names}


def changed(original: Network, quantized: Network) -> frozenset[str]:
    """Names of the nodes whose arrays differ."""
    return frozenset(
        name
        for name, arrays in original.params.items()
        if any(not np.array_equal(array, quantized.params[name][key]) for key, array in arrays.items())
    )


def weighted_size(layer: Conv2d | Linear) -> int:
    """Products in one output of a layer with weights.

    Examples
    --------
    >>> weighted_size(Conv2d(4, 2, 3)), weighted_size(Linear(5, 2))
    (36, 5)
    """
    return layer.patch_size if isinstance(layer, Conv2d) else layer.in_features
