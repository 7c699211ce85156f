"""Contests of single layers: every layer shape of ResNet-20, forward and forward + backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from timing import Contest, Outputs
from twins import tensors, twin

from refldnq._typing import Array, Shape
from refldnq.layers import BatchNorm, Flatten
from refldnq.layers.base import Layer, Mode
from refldnq.network import Network

TOLERANCE = {"float32": 1e-4, "float64": 1e-11}
"""A weight's gradient sums 10^5 products of both signs, which costs two or three digits."""


def layer_contests(network: Network, batch: int, rng: np.random.Generator) -> Iterator[Contest]:
    """Every distinct layer of `network`, in both types; batch normalization in both modes.

    Parameters
    ----------
    network : Network
        A CIFAR ResNet.
    batch : int
        Images.
    rng : numpy.random.Generator
        Draws inputs, parameters and output gradients.
    """
    seen: set[tuple[Layer, tuple[Shape, ...]]] = set()
    for node in network.nodes:
        shapes = tuple(network.shapes[name] for name in node.inputs)
        if isinstance(node.layer, Flatten) or (node.layer, shapes) in seen:  # flattening computes nothing
            continue
        seen.add((node.layer, shapes))
        modes: tuple[Mode, ...] = ("eval", "train") if isinstance(node.layer, BatchNorm) else ("eval",)
        for mode in modes:
            for dtype in TOLERANCE:
                yield from _contests(node.layer, shapes, batch, mode, dtype, rng)


def _contests(
    layer: Layer, shapes: tuple[Shape, ...], batch: int, mode: Mode, dtype: str, rng: np.random.Generator
) -> Iterator[Contest]:
    inputs = tuple(rng.standard_normal((batch, *shape)).astype(dtype) for shape in shapes)
    params = {
        key: (0.5 + rng.random(shape)).astype(dtype)
        if key == "running_var"
        else rng.normal(0, 0.1, shape).astype(dtype)
        for key, shape in layer.parameter_shapes().items()
    }
    above = rng.standard_normal((batch, *layer.output_shape(*shapes))).astype(dtype)
    title = _title(layer, shapes, mode)
    passes = {
        "forward": (_our_forward(layer, params, inputs, mode), _torch_forward(layer, params, inputs, mode)),
        "forward + backward": (
            _our_backward(layer, params, inputs, above, mode),
            _torch_backward(layer, params, inputs, above, mode),
        ),
    }
    for name, (ours, other) in passes.items():
        yield Contest(
            group="layers",
            name=f"{title}, {name}",
            dtype=dtype,
            ours=ours,
            others={"torch": other},
            tolerance=TOLERANCE[dtype],
        )


def _title(layer: Layer, shapes: tuple[Shape, ...], mode: Mode) -> str:
    kind = f"{type(layer).__name__} ({mode})" if isinstance(layer, BatchNorm) else type(layer).__name__
    source, target = ("×".join(map(str, shape)) for shape in (shapes[0], layer.output_shape(*shapes)))
    return (
        f"{kind} {source}"
        if source == target and not layer.parameter_shapes()
        else f"{kind} {source} → {target}"
    )


def _our_forward(
    layer: Layer, params: dict[str, Array], inputs: tuple[Array, ...], mode: Mode
) -> Callable[[], Outputs]:
    def call() -> Outputs:
        y, tape = layer.forward(params, *inputs, mode=mode)
        return y, *layer.new_statistics(params, tape).values()

    return call


def _torch_forward(
    layer: Layer, params: dict[str, Array], inputs: tuple[Array, ...], mode: Mode
) -> Callable[[], Outputs]:
    call_layer, own, xs = twin(layer), tensors(params), [torch.tensor(x) for x in inputs]
    statistics = [own[key] for key in layer.buffers] if mode == "train" else []

    def call() -> Outputs:
        with torch.no_grad():
            return call_layer(own, *xs, train=mode == "train"), *statistics

    return call


def _our_backward(
    layer: Layer, params: dict[str, Array], inputs: tuple[Array, ...], above: Array, mode: Mode
) -> Callable[[], Outputs]:
    moving = [key for key in params if key not in layer.buffers]

    def call() -> Outputs:
        y, tape = layer.forward(params, *inputs, mode=mode)
        statistics = layer.new_statistics(params, tape).values()
        dinputs, dparams = layer.backward(params, above, tape)
        return y, *statistics, *dinputs, *(dparams[key] for key in moving)

    return call


def _torch_backward(
    layer: Layer, params: dict[str, Array], inputs: tuple[Array, ...], above: Array, mode: Mode
) -> Callable[[], Outputs]:
    call_layer, own, dy = twin(layer), tensors(params), torch.tensor(above)
    xs = [torch.tensor(x).requires_grad_() for x in inputs]
    leaves = xs + [tensor.requires_grad_() for key, tensor in own.items() if key not in layer.buffers]
    statistics = [own[key] for key in layer.buffers] if mode == "train" else []

    def call() -> Outputs:
        y = call_layer(own, *xs, train=mode == "train")
        return y, *statistics, *torch.autograd.grad(y, leaves, dy)

    return call
