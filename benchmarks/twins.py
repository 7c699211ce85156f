"""PyTorch's way of every layer of a CIFAR ResNet, on the same arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as tf

from refldnq.layers import Add, BatchNorm, Conv2d, Flatten, GlobalAvgPool, Linear, ReLU, SubsampleShortcut
from refldnq.layers.base import Layer
from refldnq.network import Live, Network

Tensors = Mapping[str, torch.Tensor]
Twin = Callable[..., torch.Tensor]
"""``twin(params, *inputs, train=False)``; in train mode running statistics are changed in place."""


def twin(layer: Layer) -> Twin:
    """A function that computes `layer` by PyTorch.

    Raises
    ------
    ValueError
        If the kind of layer does not occur in a CIFAR ResNet.
    """
    kind = _TWINS.get(type(layer))
    if kind is None:
        raise ValueError(f"`layer` must be one of a CIFAR ResNet, got {type(layer).__name__}.")
    return kind(layer)


def _conv(layer: Any) -> Twin:
    stride, dilation, groups = layer.stride, layer.dilation, layer.groups
    padding = (layer.padding[0], layer.padding[2])

    def call(params: Tensors, x: torch.Tensor, *, train: bool = False) -> torch.Tensor:
        return tf.conv2d(x, params["weight"], params.get("bias"), stride, padding, dilation, groups)

    return call


def _batch_norm(layer: Any) -> Twin:
    momentum, eps = layer.momentum, layer.eps

    def call(params: Tensors, x: torch.Tensor, *, train: bool = False) -> torch.Tensor:
        mean, variance = params["running_mean"], params["running_var"]
        return tf.batch_norm(x, mean, variance, params["weight"], params["bias"], train, momentum, eps)

    return call


def _shortcut(layer: Any) -> Twin:
    rows, columns = layer.stride
    new = layer.out_channels - layer.in_channels
    sides = (0, 0, 0, 0, new // 2, new - new // 2)
    return lambda params, x, *, train=False: tf.pad(x[:, :, ::rows, ::columns], sides)


_TWINS: dict[type[Layer], Callable[[Any], Twin]] = {
    Conv2d: _conv,
    BatchNorm: _batch_norm,
    SubsampleShortcut: _shortcut,
    ReLU: lambda layer: lambda params, x, *, train=False: tf.relu(x),
    Add: lambda layer: lambda params, x, y, *, train=False: x + y,
    GlobalAvgPool: lambda layer: lambda params, x, *, train=False: tf.adaptive_avg_pool2d(x, 1),
    Flatten: lambda layer: lambda params, x, *, train=False: x.flatten(1),
    Linear: lambda layer: (
        lambda params, x, *, train=False: tf.linear(x, params["weight"], params.get("bias"))
    ),
}


class Tail:
    """The nodes of a network from a cut to the end, for autograd.

    Parameters
    ----------
    network : Network
        Whose arrays are copied.
    cut : int
        Position of the first node.
    """

    def __init__(self, network: Network, cut: int) -> None:
        self.steps = [(node.name, twin(node.layer), node.inputs) for node in network.nodes[cut:]]
        self.params: dict[str, dict[str, torch.Tensor]] = {}
        self.moving: list[torch.Tensor] = []
        for node in network.nodes[cut:]:
            own = {key: torch.tensor(array) for key, array in network.params.get(node.name, {}).items()}
            self.params[node.name] = own
            self.moving += [
                tensor.requires_grad_() for key, tensor in own.items() if key not in node.layer.buffers
            ]

    def __call__(self, live: Tensors, *, train: bool) -> torch.Tensor:
        """The network's output for what lives at the cut."""
        values = dict(live)
        for name, call, inputs in self.steps:
            values[name] = call(self.params[name], *(values[source] for source in inputs), train=train)
        return values[self.steps[-1][0]]


def tensors(arrays: Live) -> dict[str, torch.Tensor]:
    """The same numbers as tensors, copied."""
    return {name: torch.tensor(array) for name, array in arrays.items()}
