r"""The ladder of bounds in ball arithmetic: inequalities between numbers that are proved, not computed.

Every activation is a ball of Arb (113 bits) that contains the exact one, for the parameters and images as
they are, float64 numbers. The constants of the graph rule are the certified upper bounds of `refldnq.bounds`,
taken as exact numbers. What is proved of a pair of networks on some images:

* the true final error lies in a ball of relative radius about 1e-25;
* the exact identity: the ball of its residual contains 0 and is as small;
* every valid rung: the ball of the bound lies above that of the true error.

Batch normalization's scale is evaluated in balls too, so constants are raised by a relative 1e-12, which
covers the rounding of its float64 value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from refldnq._typing import Array, NetworkParams, Params
from refldnq.bounds.masks import masked_norms, relevance, supports
from refldnq.bounds.pair import Pair
from refldnq.bounds.units import Unit, gains
from refldnq.im2col import Window, im2col
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
from refldnq.layers.base import LinearMap
from refldnq.network import INPUT, Network
from refldnq.verify.arithmetic import Ball, ball, proved_at_most

SCALE = 1.0 + 1e-12
"""What constants are raised by: batch normalization's float64 scale is off by a few roundings, 1e-15."""

SMALL = 1e-20
"""Relative radius up to which the identity counts as certified; far above 113 bits, far below float64."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CertifiedRung:
    """One bound and the true error, as balls.

    Parameters
    ----------
    key : str
        The rung's name, as in `refldnq.bounds.results.TITLES`.
    value : str
        The ball of the bound.
    proved : bool or None
        Whether the true error is proved to be at most the bound; False if the contrary is; None if the balls
        overlap.
    """

    key: str
    value: str
    proved: bool | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Certificate:
    """What was proved of a pair of networks on some images.

    Parameters
    ----------
    true_error : str
        Its ball.
    identity : bool
        Whether all entries of the exact identity's residual contain 0 and are below `SMALL` relatively.
    rungs : tuple of CertifiedRung
        The bounds.
    """

    true_error: str
    identity: bool
    rungs: tuple[CertifiedRung, ...]

    @property
    def complete(self) -> bool:
        """Whether everything was proved."""
        return self.identity and all(rung.proved is True for rung in self.rungs)


def certify(original: Network, quantized: Network, images: Array, *, bits: int = 113) -> Certificate:
    """Prove the bounds of Theorem 1, corrected, for a pair of networks.

    Parameters
    ----------
    original, quantized : Network
        The same graph; their parameters are taken as exact numbers.
    images : Array, shape (n, *input_shape)
        Preprocessed images, taken as exact; a few, each costs a second or so.
    bits : int, optional
        Precision of the balls.

    Returns
    -------
    Certificate

    Raises
    ------
    ImportError
        If python-flint is not installed.
    ValueError
        If the graphs differ.
    ArithmeticError
        If the bits do not suffice to tell which entry of a pooling window is the largest.

    Examples
    --------
    >>> from refldnq.verify.random_networks import random_pair
    >>> original, quantized, images = random_pair("fc", 2, np.random.default_rng(0))
    >>> certify(original, quantized, images[:2]).complete
    True
    """
    if original.nodes != quantized.nodes or original.input_shape != quantized.input_shape:
        raise ValueError("`quantized` must have the graph of `original`; nodes or the input's shape differ.")
    arithmetic = ball(bits)
    pair = Pair(original.astype(np.float64), quantized.astype(np.float64))
    return _Certifier(pair, images.astype(np.float64), arithmetic).certificate()


class _Certifier:
    """The two evaluations in balls."""

    def __init__(self, pair: Pair, x: Array, arithmetic: Ball) -> None:
        self.pair, self.arithmetic, self.network = pair, arithmetic, pair.original
        self.last = self.network.nodes[-1].name
        self.count = len(x)
        self.params = [_balls(network.params, arithmetic) for network in (pair.original, pair.quantized)]
        start = {INPUT: arithmetic.array(x)}
        self.values = self._run(start, 0, self.params[0])
        self.values_hat = self._run(start, 0, self.params[1])

    def _run(self, live: Mapping[str, Array], start: int, params: NetworkParams) -> dict[str, Array]:
        values = dict(live)
        for node in self.network.nodes[start:]:
            inputs = [values[name] for name in node.inputs]
            values[node.name] = forward(node.layer, params.get(node.name, {}), inputs, self.arithmetic)
        return values

    def certificate(self) -> Certificate:
        true = self._norm(self.values_hat[self.last] - self.values[self.last])
        bounds: dict[str, Any] = {"hybrid": self._hybrid()}
        bounds["secant"], residual = self._secant()
        bounds["masks"] = self._masks()
        for kind, grain in (("blocks", "blocks"), ("spectral", "nodes"), ("frobenius", "nodes")):
            for side in ("parallel", "cascade"):
                bounds[f"{kind}_{side}"] = self._graph_rule(kind, grain, side)
        scale = float(bounds["secant"].upper())
        widest = max(float(abs(entry).upper()) for entry in residual.ravel())
        return Certificate(
            true_error=str(true),
            identity=all(entry.contains(0) for entry in residual.ravel()) and widest <= SMALL * scale,
            rungs=tuple(
                CertifiedRung(key=key, value=str(value), proved=proved_at_most(true, value))
                for key, value in bounds.items()
            ),
        )

    def _norm(self, difference: Array) -> Any:
        # The Frobenius norm over the root of the number of images.
        number = self.arithmetic.number(self.count)
        return self.arithmetic.sqrt(self.arithmetic.squares(difference) / number)

    def _local(self, unit: Unit, side: str) -> Any:
        parallel = side == "parallel"
        source, params = (self.values, self.params[1]) if parallel else (self.values_hat, self.params[0])
        other = source[unit.name]
        value = [source[name] for name in unit.inputs]
        for node in unit.nodes:
            value = [forward(node.layer, params.get(node.name, {}), value, self.arithmetic)]
        return value[0] - other

    def _graph_rule(self, kind: str, grain: Any, side: str) -> Any:
        units = self.pair.units[grain]
        norms = self.pair.norms[kind][side]
        raised = {name: tuple(norm * SCALE for norm in own) for name, own in norms.items()}
        gain = gains(units, raised, [unit.name for unit in units])
        total = self.arithmetic.number(0)
        for unit in units:
            if any(node.name in self.pair.changed for node in unit.nodes):
                total += self.arithmetic.number(gain[unit.name]) * self._norm(self._local(unit, side))
        return total

    def _hybrid(self) -> Any:
        total, before = self.arithmetic.number(0), self.values[self.last]
        done: dict[str, Params] = {}
        for index, (_, members) in enumerate(self.pair.groups):
            done.update({name: self.params[1][name] for name in members})
            after = self.values_hat[self.last]
            if index < len(self.pair.groups) - 1:
                cut = self.network.position(self.pair.groups[index + 1][0])
                live = {name: self.values_hat[name] for name in self.network.alive(cut)}
                after = self._run(live, cut, {**self.params[0], **done})[self.last]
            total += self._norm(after - before)
            before = after
        return total

    def _masks(self) -> Any:
        # The active sets of the exact activations: what is not proved to be at most 0 counts as positive, and
        # the maxima of pooling are proved.
        values, values_hat = (
            {k: _signs(v) for k, v in run.items()} for run in (self.values, self.values_hat)
        )
        tapes: dict[str, tuple[Any, Any]] = {}
        for node in self.network.nodes:
            if isinstance(node.layer, LinearMap | BatchNorm | ReLU):
                continue
            runs = [
                node.layer.forward({}, *(run[name] for name in node.inputs))[1]
                for run in (values, values_hat)
            ]
            tapes[node.name] = (runs[0], runs[1])
            if isinstance(node.layer, MaxPool2d):
                for run, tape in zip((self.values, self.values_hat), runs, strict=True):
                    _prove_maxima(node.layer, run[node.inputs[0]], tape)
        support = supports(self.network, values, values_hat)
        relevant = relevance(self.network, values, values_hat, tapes)
        number, units = self.arithmetic.number, self.pair.units["affine"]
        errors = {INPUT: np.full(self.count, number(0))}
        for unit in units:
            full = self.pair.norms["affine"]["parallel"][unit.name]
            norms = masked_norms(unit, self.pair.quantized.params, full, support, relevant)
            total = np.full(self.count, number(0))
            if any(node.name in self.pair.changed for node in unit.nodes):
                local = self._local(unit, "parallel")
                kept = [own[mask] for own, mask in zip(local, relevant[unit.name], strict=True)]
                total = np.array([self.arithmetic.frobenius(own) for own in kept], dtype=object)
            for name, norm in zip(unit.inputs, norms, strict=True):
                total = total + self.arithmetic.array(norm * SCALE) * errors[name]
            errors[unit.name] = total
        return self._norm(errors[units[-1].name])

    def _secant(self) -> tuple[Any, Array]:
        maps = {
            node.name: slope(
                node.layer,
                self.params[1].get(node.name, {}),
                [self.values[name] for name in node.inputs],
                [self.values_hat[name] for name in node.inputs],
                self.arithmetic,
            )
            for node in self.network.nodes
        }
        local = {
            unit.name: self._local(unit, "parallel")
            for unit in self.pair.units["nodes"]
            if unit.name in self.pair.changed
        }
        rest = self.values_hat[self.last] - self.values[self.last]
        total = self.arithmetic.number(0)
        for _, members in self.pair.groups:
            term = self._carried(maps, {name: local[name] for name in members})
            total += self._norm(term)
            rest = rest - term
        return total, rest

    def _carried(self, maps: Mapping[str, Callable[[Sequence[Array]], Array]], local: Params) -> Array:
        live: dict[str, Array] = {}
        for node in self.network.nodes:
            if any(name in live for name in node.inputs):
                zero = self.arithmetic.number(0)
                given = [
                    live[name] if name in live else np.full(self.values[name].shape, zero)
                    for name in node.inputs
                ]
                live[node.name] = maps[node.name](given)
            if node.name in local:
                live[node.name] = local[node.name] + live.get(node.name, 0)
        return live[self.last]


def _balls(params: NetworkParams, arithmetic: Ball) -> dict[str, dict[str, Array]]:
    return {
        name: {key: arithmetic.array(array) for key, array in own.items()} for name, own in params.items()
    }


def _signs(balls: Array) -> Array:
    # Nearest float64 numbers, positive unless the ball is proved to hold none that is.
    flat = [float(v) if v > 0 or v <= 0 else float(np.nextafter(0.0, 1.0)) for v in balls.ravel()]
    return np.array(flat).reshape(balls.shape)


def _prove_maxima(layer: MaxPool2d, x: Array, tape: Any) -> None:
    # That the places on the tape, found with rounded numbers, are those of the exact maxima.
    planes, places = x.reshape(-1, x.shape[2] * x.shape[3]), tape.where
    numbers = np.arange(planes.shape[1]).reshape(x.shape[2:])
    for index, (_, _, rows, cols) in enumerate(_windows(layer, x.shape)):
        window = numbers[rows, cols].ravel()
        for plane, chosen in zip(planes, places[:, index], strict=True):
            if not all(plane[k] <= plane[chosen] for k in window if k != chosen):
                raise ArithmeticError("a maximum could not be proved: take more bits.")


# ------------------------------------------------------------------ layers on arrays of balls


def forward(layer: Layer, params: Params, inputs: Sequence[Array], arithmetic: Ball) -> Array:
    """A layer's output in balls, by its definition.

    Parameters
    ----------
    layer : Layer
        The layer; batch normalization in eval mode.
    params : mapping of str to Array
        Its arrays, of balls.
    inputs : sequence of Array
        Of balls.
    arithmetic : Ball
        The number system.

    Returns
    -------
    Array of balls

    Raises
    ------
    TypeError
        If the layer is of an unknown type.
    """
    if isinstance(layer, ReLU):
        return np.asarray(arithmetic.relu(inputs[0]))
    if isinstance(layer, MaxPool2d):
        return _reduced(layer, inputs[0], partial(_largest, arithmetic))
    if isinstance(layer, BatchNorm):
        scale, shift = _affine(layer, params, arithmetic)
        return _linear_part(layer, {"scale": scale}, inputs, arithmetic) + _by_channel(shift, inputs[0])
    y = _linear_part(layer, params, inputs, arithmetic)
    if isinstance(layer, Conv2d | Linear) and layer.bias:
        y = y + _by_channel(params["bias"], y)
    return y


def slope(
    layer: Layer, params: Params, inputs: Sequence[Array], inputs_hat: Sequence[Array], arithmetic: Ball
) -> Callable[[Sequence[Array]], Array]:
    """The secant of a layer in balls; see `refldnq.bounds.secant`.

    Where a ball does not decide on which side of a kink a number lies, the slope is the ball [0, 1].

    Returns
    -------
    callable
        From the inputs' differences to the output's.
    """
    if isinstance(layer, ReLU):
        slopes = np.vectorize(partial(_relu_slope, arithmetic), otypes=[object])(inputs[0], inputs_hat[0])
        return lambda e: np.asarray(slopes * e[0])
    if isinstance(layer, MaxPool2d):
        windows = list(_windows(layer, inputs[0].shape))
        return partial(_pool_slope, layer, windows, inputs[0], inputs_hat[0], arithmetic)
    if isinstance(layer, BatchNorm):
        scale, _ = _affine(layer, params, arithmetic)
        return lambda e: _linear_part(layer, {"scale": scale}, e, arithmetic)
    return lambda e: _linear_part(layer, params, e, arithmetic)


def _affine(layer: BatchNorm, params: Params, arithmetic: Ball) -> tuple[Array, Array]:
    eps = arithmetic.number(layer.eps)
    scale = np.array(
        [w / arithmetic.sqrt(v + eps) for w, v in zip(params["weight"], params["running_var"], strict=True)],
        dtype=object,
    )
    return scale, params["bias"] - params["running_mean"] * scale


def _by_channel(vector: Array, like: Array) -> Array:
    return vector.reshape(1, -1, *[1] * (like.ndim - 2))


def _linear_part(layer: Layer, params: Params, inputs: Sequence[Array], arithmetic: Ball) -> Array:
    x = inputs[0]
    if isinstance(layer, Linear):
        return _product(x, params["weight"].T)
    if isinstance(layer, Conv2d):
        return _convolution(layer, params["weight"], x, arithmetic)
    if isinstance(layer, BatchNorm):
        return np.asarray(x * _by_channel(params["scale"], x))
    if isinstance(layer, AvgPool2d):
        # Its divisors are what the layer does to ones.
        ones = np.ones((1, 1, *x.shape[2:]))
        divisors = np.rint(_reduced(layer, ones, len) / layer.forward({}, ones)[0])
        return np.asarray(_reduced(layer, x, partial(_sum, arithmetic)) / arithmetic.array(divisors))
    if isinstance(layer, GlobalAvgPool):
        pixels = x.shape[2] * x.shape[3]
        return np.asarray(x.sum(axis=(2, 3), keepdims=True) / arithmetic.number(pixels))
    if isinstance(layer, Add):
        total = x
        for other in inputs[1:]:
            total = total + other
        return total
    if isinstance(layer, Concat):
        return np.concatenate(list(inputs), axis=1)
    if isinstance(layer, Flatten):
        return x.reshape(len(x), -1)
    if isinstance(layer, Dropout):
        return x
    if isinstance(layer, ZeroPad2d | SubsampleShortcut):
        # These only move entries about: of their numbers, counted from 1, 0 is what was added.
        numbers = np.arange(1.0, x[0].size + 1).reshape(1, *x.shape[1:])
        places = layer.forward({}, numbers)[0][0].astype(int)
        rows = np.concatenate([np.full((len(x), 1), arithmetic.number(0)), x.reshape(len(x), -1)], axis=1)
        return rows[:, places]
    raise TypeError(f"`layer` must be of a known type, got {type(layer).__name__}.")


def _product(a: Array, b: Array) -> Array:
    # By Arb's own matrix product, ten times faster than one of Python objects.
    import flint

    product = flint.arb_mat(a.tolist()) * flint.arb_mat(b.tolist())
    flat = np.empty(a.shape[0] * b.shape[1], dtype=object)
    flat[:] = product.entries()
    return flat.reshape(a.shape[0], b.shape[1])


def _convolution(layer: Conv2d, weight: Array, x: Array, arithmetic: Ball) -> Array:
    _, ho, wo = layer.output_shape(x.shape[1:])
    window, groups = layer.window, layer.groups
    top, bottom, left, right = window.padding
    n, c, h, w = x.shape
    padded = np.full((n, c, h + top + bottom, w + left + right), arithmetic.number(0))
    padded[:, :, top : top + h, left : left + w] = x
    bare = Window(window.kernel, window.stride, (0, 0, 0, 0), window.dilation)
    y = np.empty((n, layer.out_channels, ho, wo), dtype=object)
    wide, tall = c // groups, layer.out_channels // groups
    for group in range(groups):
        channels, outputs = slice(group * wide, (group + 1) * wide), slice(group * tall, (group + 1) * tall)
        patches = im2col(padded[:, channels], bare).transpose(1, 0, 2).reshape(layer.patch_size, -1)
        flat = _product(weight[outputs].reshape(tall, -1), patches)
        y[:, outputs] = flat.reshape(tall, n, ho, wo).transpose(1, 0, 2, 3)
    return y


def _windows(layer: MaxPool2d | AvgPool2d, shape: tuple[int, ...]) -> Iterable[tuple[int, int, slice, slice]]:
    _, ho, wo = layer.output_shape(shape[1:])
    kh, kw, sh, sw, top, left = layer.geometry
    for p in range(ho):
        for q in range(wo):
            row, col = p * sh - top, q * sw - left
            yield p, q, slice(max(row, 0), row + kh), slice(max(col, 0), col + kw)


def _reduced(layer: MaxPool2d | AvgPool2d, x: Array, reduce: Callable[[Sequence[Any]], Any]) -> Array:
    _, ho, wo = layer.output_shape(x.shape[1:])
    y = np.empty((*x.shape[:2], ho, wo), dtype=x.dtype)
    for p, q, rows, cols in _windows(layer, x.shape):
        for i in range(x.shape[0]):
            for c in range(x.shape[1]):
                y[i, c, p, q] = reduce(list(x[i, c, rows, cols].ravel()))
    return y


def _largest(arithmetic: Ball, numbers: Sequence[Any]) -> Any:
    best = numbers[0]
    for number in numbers[1:]:
        best = arithmetic.maximum(best, number)
    return best


def _sum(arithmetic: Ball, numbers: Sequence[Any]) -> Any:
    return sum(numbers, arithmetic.number(0))


def _relu_slope(arithmetic: Ball, z: Any, z_hat: Any) -> Any:
    if z > 0 and z_hat > 0:
        return arithmetic.number(1)
    if z <= 0 and z_hat <= 0:
        return arithmetic.number(0)
    if z > 0 and z_hat <= 0:
        return z / (z - z_hat)
    if z_hat > 0 and z <= 0:
        return z_hat / (z_hat - z)
    return arithmetic.number(0).union(arithmetic.number(1))


def _pool_slope(
    layer: MaxPool2d,
    windows: Sequence[tuple[int, int, slice, slice]],
    z: Array,
    z_hat: Array,
    arithmetic: Ball,
    e: Sequence[Array],
) -> Array:
    y = np.empty((*z.shape[:2], *layer.output_shape(z.shape[1:])[1:]), dtype=object)
    for p, q, rows, cols in windows:
        for image in range(z.shape[0]):
            for c in range(z.shape[1]):
                old, new, error = (a[image, c, rows, cols].ravel() for a in (z, z_hat, e[0]))
                i, j = (int(np.argmax([float(v) for v in numbers])) for numbers in (old, new))
                a, b = new[j] - new[i], old[i] - old[j]
                total = a + b
                share = a / total if total > 0 else arithmetic.number(0)
                y[image, c, p, q] = (1 - share) * error[i] + share * error[j]
    return y
