"""A topologically ordered graph of named layers.

A network is a value: its nodes, its parameters, the shape of one input. Evaluating a part of it means going
from one *cut* to another. A cut at position i holds the outputs that nodes i, i+1, ... still need from what
lies before; Algorithm 1 keeps the activations at the cut behind the frozen layers and evaluates only the
rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from refldnq._checks import check_choice, check_finite, check_float, check_integer
from refldnq._typing import Array, NetworkParams, Params, Shape
from refldnq.layers.base import Layer, LinearMap, Mode, Tape
from refldnq.loss import LOSSES, LossName

INPUT = "input"
"""Name under which nodes refer to the network's input."""

Live = Mapping[str, Array]
"""The outputs alive at a cut, by node name."""


@dataclass(frozen=True, slots=True)
class Node:
    """A named layer and the names of the nodes whose outputs it takes."""

    name: str
    layer: Layer
    inputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """What a recorded forward call leaves: the tapes of nodes `start` to `stop` and the live outputs."""

    start: int
    stop: int
    live: Live
    tapes: tuple[Tape, ...]
    statistics: NetworkParams
    """New running statistics of layers evaluated in train mode; empty in eval mode."""


@dataclass(frozen=True)
class Network:
    """Layers, their wiring and their parameters.

    Parameters
    ----------
    nodes : tuple of Node
        In topological order: a node's inputs are `INPUT` or names of earlier nodes. The last node's output is
        the network's output.
    params : mapping of str to mapping of str to Array
        For each node that owns arrays, the arrays by name, float32 or float64, one type in the whole network.
    input_shape : tuple of int
        Shape of one input, without the batch axis.
    loss : {'cross_entropy', 'squared_hinge'}, optional
        What the output means to labels: logits, or margins of one classifier for every class. Whatever trains
        the network with labels minimizes this.

    Raises
    ------
    ValueError
        If names repeat, an input is unknown, a node does not lead to the last one, layers do not fit
        together, an array is missing, superfluous, misshapen or not finite, or there is no such loss.
    TypeError
        If an array is not float32 or float64, or types differ.

    Examples
    --------
    >>> import numpy as np
    >>> from refldnq.layers import Linear, ReLU
    >>> nodes = (Node("fc", Linear(2, 3), ("input",)), Node("relu", ReLU(), ("fc",)))
    >>> params = {"fc": {"weight": np.ones((3, 2)), "bias": np.array([-5.0, 0.0, 1.0])}}
    >>> Network(nodes, params, (2,)).forward(np.array([[1.0, 2.0]]))
    array([[0., 3., 4.]])
    """

    nodes: tuple[Node, ...]
    params: NetworkParams = field(repr=False)
    input_shape: Shape
    loss: LossName = "cross_entropy"

    def __post_init__(self) -> None:
        check_choice("loss", self.loss, tuple(LOSSES))
        if not self.nodes:
            raise ValueError("`nodes` must hold at least one node, got none.")
        known = {INPUT}
        for node in self.nodes:
            if node.name in known:
                raise ValueError(f"`nodes` must have different names, got {node.name!r} twice.")
            unknown = [name for name in node.inputs if name not in known]
            if unknown:
                raise ValueError(
                    f"`nodes` must be in topological order; {node.name!r} takes {unknown[0]!r}, "
                    "which does not come before it."
                )
            arity = node.layer.arity
            if not node.inputs or (arity is not None and len(node.inputs) != arity):
                raise ValueError(
                    f"`nodes`: {node.name!r} must have {arity or 'one or more'} input(s), "
                    f"got {len(node.inputs)}."
                )
            known.add(node.name)
        self._check_ends()
        self._check_params()
        frozen = {name: MappingProxyType(dict(own)) for name, own in self.params.items()}
        object.__setattr__(self, "params", MappingProxyType(frozen))
        self.shapes  # noqa: B018 - layers that do not fit together are refused here

    def _check_ends(self) -> None:
        needed = {self.nodes[-1].name}
        for node in reversed(self.nodes):
            if node.name not in needed:
                raise ValueError(f"`nodes` must all lead to the last one, {node.name!r} does not.")
            needed.update(node.inputs)

    def __reduce__(self) -> tuple[Any, ...]:
        # Read-only views cannot be pickled; the arrays they show can.
        params = {name: dict(own) for name, own in self.params.items()}
        return Network, (self.nodes, params, self.input_shape, self.loss)

    def _check_params(self) -> None:
        owners = {node.name: node.layer.parameter_shapes() for node in self.nodes}
        owners = {name: shapes for name, shapes in owners.items() if shapes}
        if set(self.params) != set(owners):
            odd = sorted(set(self.params) ^ set(owners))
            raise ValueError(
                f"`params` must hold the arrays of {sorted(owners)}; missing or superfluous: {odd}."
            )
        dtypes = set()
        for name, shapes in owners.items():
            arrays = self.params[name]
            if set(arrays) != set(shapes):
                raise ValueError(f"`params[{name!r}]` must hold {sorted(shapes)}, got {sorted(arrays)}.")
            for key, shape in shapes.items():
                label = f"params[{name!r}][{key!r}]"
                array = check_float(label, arrays[key])
                if array.shape != shape:
                    raise ValueError(f"`{label}` must have shape {shape}, got {array.shape}.")
                check_finite(label, array)
                dtypes.add(array.dtype)
        if len(dtypes) > 1:
            raise TypeError(f"`params` must have one type, got {sorted(map(str, dtypes))}.")

    # ------------------------------------------------------------------ structure

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {node.name: i for i, node in enumerate(self.nodes)}

    @cached_property
    def _last_use(self) -> dict[str, int]:
        last = {node.name: i for i, node in enumerate(self.nodes)}
        last[self.nodes[-1].name] = len(self.nodes)
        for i, node in enumerate(self.nodes):
            for name in node.inputs:
                last[name] = max(i, last.get(name, -1))
        return last

    def position(self, name: str) -> int:
        """Index of the node called `name`.

        Raises
        ------
        KeyError
            If there is no such node.
        """
        if name not in self._positions:
            raise KeyError(f"`name` must be a node of the network, got {name!r}.")
        return self._positions[name]

    def __getitem__(self, name: str) -> Node:
        """The node called `name`."""
        return self.nodes[self.position(name)]

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        """Output shape of every node, and of the input, without the batch axis."""
        shapes: dict[str, Shape] = {INPUT: self.input_shape}
        for node in self.nodes:
            shapes[node.name] = node.layer.output_shape(*(shapes[name] for name in node.inputs))
        return shapes

    @property
    def weighted(self) -> tuple[str, ...]:
        """Names of the layers that can be quantized (convolutions and linear layers), in order."""
        return tuple(node.name for node in self.nodes if isinstance(node.layer, LinearMap))

    @cached_property
    def groups(self) -> Mapping[str, tuple[tuple[str, str], ...]]:
        """The arrays, as (layer, name), by what they are.

        ``weights`` and ``biases`` of convolutions and linear layers, ``affine``: scales and shifts of batch
        normalization, ``statistics``: its running mean and variance.
        """
        groups: dict[str, list[tuple[str, str]]] = {
            name: [] for name in ("weights", "biases", "affine", "statistics")
        }
        for node in self.nodes:
            for key in self.params.get(node.name, {}):
                if key in node.layer.buffers:
                    group = "statistics"
                elif not isinstance(node.layer, LinearMap):
                    group = "affine"
                else:
                    group = "biases" if key == "bias" else "weights"
                groups[group].append((node.name, key))
        return {name: tuple(members) for name, members in groups.items()}

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the parameters; float64 for a network without parameters."""
        for arrays in self.params.values():
            for array in arrays.values():
                return array.dtype
        return np.dtype(np.float64)

    def alive(self, position: int) -> tuple[str, ...]:
        """Names of the outputs before `position` that a node at or after it needs."""
        names = [INPUT, *(node.name for node in self.nodes[:position])]
        return tuple(name for name in names if self._last_use.get(name, -1) >= position)

    # ------------------------------------------------------------------ new networks

    def replace(self, changes: NetworkParams) -> Network:
        """A network with some arrays exchanged; all others are shared with this one.

        Raises
        ------
        KeyError
            If a layer or an array of `changes` does not exist.
        """
        params = {name: dict(arrays) for name, arrays in self.params.items()}
        for name, arrays in changes.items():
            for key, array in arrays.items():
                if name not in params or key not in params[name]:
                    raise KeyError(f"`changes` must name arrays of the network, got {name!r}, {key!r}.")
                params[name][key] = array
        return replace(self, params=params)

    def astype(self, dtype: npt.DTypeLike) -> Network:
        """The same network with every array cast to `dtype`."""
        params = {
            name: {key: array.astype(dtype) for key, array in arrays.items()}
            for name, arrays in self.params.items()
        }
        return replace(self, params=params)

    # ------------------------------------------------------------------ evaluation

    def _admit(self, x: Array) -> Array:
        check_float("x", x)
        if x.shape[1:] != self.input_shape:
            raise ValueError(
                f"`x` must have shape (n, {', '.join(map(str, self.input_shape))}), got {x.shape}."
            )
        if x.dtype != self.dtype:
            raise TypeError(f"`x` must have the network's type {self.dtype}, got {x.dtype}.")
        return x

    def start(self, x: Array) -> dict[str, Array]:
        """The live outputs at cut 0: the checked input.

        Raises
        ------
        ValueError
            If the shape is wrong or an entry is not finite.
        TypeError
            If the type is not the network's.
        """
        check_finite("x", self._admit(x))
        return {INPUT: x}

    def advance(
        self,
        live: Live,
        start: int,
        stop: int,
        *,
        mode: Mode = "eval",
        params: NetworkParams | None = None,
    ) -> dict[str, Array]:
        """Evaluate nodes `start` to `stop` (excluded) and return what lives at cut `stop`.

        Parameters
        ----------
        live : mapping of str to Array
            The outputs alive at cut `start`.
        start, stop : int
            Cuts; ``len(nodes)`` is the end.
        mode : {'eval', 'train'}, optional
            Mode of batch normalization.
        params : mapping, optional
            Parameters in place of the network's own.
        """
        values = dict(live)
        params = self.params if params is None else params
        for i in range(start, stop):
            node = self.nodes[i]
            values[node.name], _ = node.layer.forward(
                params.get(node.name, {}), *(values[name] for name in node.inputs), mode=mode
            )
            for name in node.inputs:
                if self._last_use[name] <= i:
                    values.pop(name, None)
        return {name: values[name] for name in self.alive(stop)}

    def forward(self, x: Array, *, mode: Mode = "eval", batch_size: int = 256) -> Array:
        """The network's output.

        Parameters
        ----------
        x : Array, shape (n, *input_shape)
            Inputs of the network's type.
        mode : {'eval', 'train'}, optional
            Mode of batch normalization; in train mode all inputs form one batch.
        batch_size : int, optional
            Images at a time in eval mode; chosen here (about 100 MB of activations in a ResNet-20).

        Returns
        -------
        Array, shape (n, ...)
            The last node's output.

        Raises
        ------
        ValueError
            If the shape is wrong or an entry is not finite.
        TypeError
            If the type is not the network's.
        """
        check_integer("batch_size", batch_size, at_least=1)
        end, last = len(self.nodes), self.nodes[-1].name
        self._admit(x)
        if mode == "train" or x.shape[0] <= batch_size:
            return self.advance(self.start(x), 0, end, mode=mode)[last]
        parts = [self.advance(self.start(part), 0, end)[last] for part in _batches(x, batch_size)]
        return np.concatenate(parts)

    def inputs_of(self, name: str, x: Array, *, batch_size: int = 256) -> Iterator[tuple[Array, ...]]:
        """The inputs of layer `name`, a tuple a batch: memory does not grow with the number of images.

        Raises
        ------
        KeyError
            If there is no such node.
        """
        stop = self.position(name)
        for part in _batches(self._admit(x), batch_size):
            live = self.advance(self.start(part), 0, stop)
            yield tuple(live[source] for source in self.nodes[stop].inputs)

    def record(
        self,
        live: Live,
        start: int,
        stop: int,
        *,
        mode: Mode = "eval",
        params: NetworkParams | None = None,
    ) -> Run:
        """As `advance`, keeping the tapes for `backward`."""
        values = dict(live)
        params = self.params if params is None else params
        tapes: list[Tape] = []
        statistics: dict[str, Params] = {}
        for i in range(start, stop):
            node = self.nodes[i]
            arrays = params.get(node.name, {})
            values[node.name], tape = node.layer.forward(
                arrays, *(values[name] for name in node.inputs), mode=mode
            )
            tapes.append(tape)
            if mode == "train" and node.layer.buffers:
                statistics[node.name] = node.layer.new_statistics(arrays, tape)
            for name in node.inputs:
                if self._last_use[name] <= i:
                    values.pop(name, None)
        return Run(start, stop, {name: values[name] for name in self.alive(stop)}, tuple(tapes), statistics)

    def backward(
        self,
        run: Run,
        dlive: Live,
        *,
        moving: Iterable[str] | None = None,
        wrt_inputs: bool = False,
        params: NetworkParams | None = None,
    ) -> tuple[dict[str, Array], dict[str, dict[str, Array]]]:
        """Backpropagation through a recorded run.

        Parameters
        ----------
        run : Run
            From `record`.
        dlive : mapping of str to Array
            Gradients of the outputs alive at cut `run.stop`.
        moving : iterable of str, optional
            Names of the layers whose parameter gradients are wanted; None means all.
        wrt_inputs : bool, optional
            Whether the gradients of the outputs alive at cut `run.start` are wanted.
        params : mapping, optional
            The parameters that `record` was given.

        Returns
        -------
        dinputs : dict of str to Array
            Gradients at cut `run.start`; empty unless `wrt_inputs`.
        dparams : dict of str to dict of str to Array
            Gradients of the parameters.
        """
        params = self.params if params is None else params
        nodes = self.nodes[run.start : run.stop]
        wanted = {node.name for node in nodes} if moving is None else set(moving)
        # A node's input gradient is computed only if something before it in the run wants one.
        needed: set[str] = set(self.alive(run.start)) if wrt_inputs else set()
        for node in nodes:
            if node.name in wanted or any(name in needed for name in node.inputs):
                needed.add(node.name)
        grads: dict[str, Array] = dict(dlive)
        dparams: dict[str, dict[str, Array]] = {}
        for node, tape in zip(reversed(nodes), reversed(run.tapes), strict=True):
            dy = grads.pop(node.name, None)
            if dy is None:
                continue
            below = any(name in needed for name in node.inputs)
            own = node.name in wanted and bool(self.params.get(node.name))
            if not (below or own):
                continue
            dxs, dp = node.layer.backward(
                params.get(node.name, {}), dy, tape, wrt_inputs=below, wrt_params=own
            )
            if own:
                dparams[node.name] = dp
            if below:
                for name, dx in zip(node.inputs, dxs, strict=True):
                    if name in needed:
                        grads[name] = grads[name] + dx if name in grads else dx
        return (
            {name: grads[name] for name in self.alive(run.start) if name in grads} if wrt_inputs else {}
        ), dparams


def _batches(x: Array, size: int) -> Iterator[Array]:
    for first in range(0, x.shape[0], size):
        yield x[first : first + size]
