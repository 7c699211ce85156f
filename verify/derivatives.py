"""Checks of hand-written derivatives, for any layer: each returns numbers, judging them is the caller's.

A layer is checked in all that it differentiates: its inputs in order, then its parameters by name, running
statistics excepted. A *direction* is one array for each of these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from refldnq._checks import check_choice, check_shape
from refldnq._typing import Array, Float64Array, Params
from refldnq.layers.base import Layer, LinearMap, Mode
from refldnq.layers.batchnorm import BatchNorm

Method = Literal["jvp", "backward", "differences"]

STEP = float(np.finfo(np.float64).eps) ** (1 / 3)
"""Step of central differences: eps^(1/3) balances rounding, eps/t, against truncation, t^2."""

STEPS = tuple(0.5**k for k in range(4, 14))
"""Step lengths of Taylor slopes: powers of two, so that no step is rounded."""

FLOOR = 64.0
"""A remainder below FLOOR eps times the norms of output and slope is rounding; chosen here."""


@dataclass(frozen=True, slots=True)
class Taylor:
    """How the remainder of a first-order expansion falls with the step.

    Parameters
    ----------
    slope : float
        Of log remainder against log step, over the steps whose remainder is above the rounding floor; 2 for a
        right derivative, 1 for a wrong one. NaN if fewer than two remainders are above the floor.
    exact : bool
        Whether all remainders are at rounding level: the function is linear along the direction.
    steps, remainders : tuple of float
        What was measured: t and the norm of f(p + t d) - f(p) - t J d.
    """

    slope: float
    exact: bool
    steps: tuple[float, ...]
    remainders: tuple[float, ...]


def trainable(layer: Layer, params: Params) -> dict[str, Array]:
    """The arrays that the layer differentiates, in the order of their names.

    Examples
    --------
    >>> from refldnq.layers import BatchNorm
    >>> list(trainable(BatchNorm(1), dict.fromkeys(BatchNorm(1).parameter_shapes(), np.ones(1))))
    ['bias', 'weight']
    """
    names = set(layer.parameter_shapes()) - set(layer.buffers)
    return {name: params[name] for name in sorted(names)}


def random_direction(
    layer: Layer, params: Params, inputs: Sequence[Array], rng: np.random.Generator
) -> tuple[tuple[Array, ...], dict[str, Array]]:
    """Standard normal numbers in the shapes and types of the inputs and of the trainable parameters.

    Examples
    --------
    >>> from refldnq.layers import ReLU
    >>> dinputs, dparams = random_direction(ReLU(), {}, [np.ones((2, 3))], np.random.default_rng(0))
    >>> dinputs[0].shape, dparams
    ((2, 3), {})
    """
    dinputs = tuple(_normal(rng, x) for x in inputs)
    return dinputs, {name: _normal(rng, array) for name, array in trainable(layer, params).items()}


def _normal(rng: np.random.Generator, like: Array) -> Array:
    return rng.standard_normal(like.shape).astype(like.dtype)


def adjoint_error(
    layer: Layer, params: Params, inputs: Sequence[Array], rng: np.random.Generator, *, mode: Mode = "eval"
) -> float:
    r"""How far `jvp` and `backward` are from being adjoint, in one random direction.

    Parameters
    ----------
    layer : Layer
        What is checked.
    params : mapping
        Its arrays.
    inputs : sequence of Array
        Its inputs: the point.
    rng : numpy.random.Generator
        Draws the direction d and the output's gradient v.
    mode : {'eval', 'train'}, optional
        Mode of the forward call.

    Returns
    -------
    float
        :math:`|\langle Jd, v\rangle - \langle d, J^\top v\rangle|` over
        :math:`\|Jd\|\,\|v\| + \|d\|\,\|J^\top v\|`: at rounding level if they are.

    Examples
    --------
    >>> from refldnq.layers import Linear
    >>> params = {"weight": np.ones((2, 3)), "bias": np.zeros(2)}
    >>> adjoint_error(Linear(3, 2), params, [np.ones((4, 3))], np.random.default_rng(0)) < 1e-15
    True
    """
    y, tape = layer.forward(params, *inputs, mode=mode)
    dinputs, dparams = random_direction(layer, params, inputs, rng)
    v = _normal(rng, y)
    forward = layer.jvp(params, tape, dinputs, dparams)
    grads, dp = layer.backward(params, v, tape)
    d = _flat([*dinputs, *(dparams[name] for name in dparams)])
    backward = _flat([*grads, *(dp[name] for name in dparams)])
    left, right = _dot(forward, v), float(d @ backward)
    scale = _norm(forward) * _norm(v) + _norm(d) * _norm(backward)
    return abs(left - right) / scale if scale else abs(left - right)


def taylor_slope(
    layer: Layer,
    params: Params,
    inputs: Sequence[Array],
    direction: tuple[Sequence[Array], Mapping[str, Array]],
    *,
    mode: Mode = "eval",
    steps: Sequence[float] = STEPS,
) -> Taylor:
    """The slope of the remainder of the first-order expansion along a direction.

    Parameters
    ----------
    layer, params, inputs, mode
        As in `adjoint_error`; float64.
    direction : pair
        Directions of the inputs and, by name, of parameters; see `random_direction`.
    steps : sequence of float, optional
        Step lengths t, falling.

    Returns
    -------
    Taylor

    Examples
    --------
    A linear layer moves along the product of its two directions, so the remainder is exactly quadratic:

    >>> from refldnq.layers import Linear
    >>> x, one = np.array([[2.0]]), np.ones((1, 1))
    >>> round(taylor_slope(Linear(1, 1, bias=False), {"weight": one}, [x], ([one], {"weight": one})).slope, 6)
    2.0
    >>> taylor_slope(Linear(1, 1, bias=False), {"weight": one}, [x], ([one], {})).exact
    True
    """
    dinputs, dparams = tuple(direction[0]), dict(direction[1])
    y, tape = layer.forward(params, *inputs, mode=mode)
    slope = layer.jvp(params, tape, dinputs, dparams)
    remainders = []
    for t in steps:
        moved = _moved(layer, params, inputs, (dinputs, dparams), t, mode)
        remainders.append(_norm(moved - y - t * slope))
    floor = FLOOR * float(np.finfo(y.dtype).eps) * (_norm(y) + _norm(slope))
    above = [(t, r) for t, r in zip(steps, remainders, strict=True) if not r <= floor]
    fitted = float("nan")
    if len(above) >= 2:
        logs = np.log(np.array(above))
        fitted = float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])
    return Taylor(fitted, not above, tuple(steps), tuple(remainders))


def _moved(
    layer: Layer,
    params: Params,
    inputs: Sequence[Array],
    direction: tuple[Sequence[Array], Mapping[str, Array]],
    t: float,
    mode: Mode,
) -> Array:
    points = [x + t * dx for x, dx in zip(inputs, direction[0], strict=True)]
    arrays = {name: a + t * direction[1][name] if name in direction[1] else a for name, a in params.items()}
    return layer.forward(arrays, *points, mode=mode)[0]


def jacobian(
    layer: Layer,
    params: Params,
    inputs: Sequence[Array],
    *,
    method: Method,
    mode: Mode = "eval",
    step: float = STEP,
) -> Float64Array:
    """The dense Jacobian, column by column or row by row: for small cases.

    Parameters
    ----------
    layer, params, inputs, mode
        As in `adjoint_error`.
    method : {'jvp', 'backward', 'differences'}
        Columns from the layer's `jvp`, rows from its `backward`, or columns by central differences.
    step : float, optional
        Of the differences.

    Returns
    -------
    Array, shape (outputs, inputs + trainable parameters), float64
        Row-major within every array.

    Raises
    ------
    ValueError
        If `method` is unknown.

    Examples
    --------
    >>> from refldnq.layers import ReLU
    >>> jacobian(ReLU(), {}, [np.array([[1.0, -1.0]])], method="backward")
    array([[1., 0.],
           [0., 0.]])
    """
    check_choice("method", method, ("jvp", "backward", "differences"))
    y, tape = layer.forward(params, *inputs, mode=mode)
    names = list(trainable(layer, params))
    if method == "backward":
        rows = []
        for unit in _units(y):
            grads, dp = layer.backward(params, unit, tape)
            rows.append(_flat([*grads, *(dp[name] for name in names)]))
        return np.stack(rows)
    arrays = [*inputs, *(params[name] for name in names)]
    columns = []
    for place, array in enumerate(arrays):
        for unit in _units(array):
            parts = [unit if k == place else np.zeros_like(other) for k, other in enumerate(arrays)]
            direction = (tuple(parts[: len(inputs)]), dict(zip(names, parts[len(inputs) :], strict=True)))
            if method == "jvp":
                columns.append(_flat([layer.jvp(params, tape, *direction)]))
            else:
                ahead = _moved(layer, params, inputs, direction, step, mode)
                behind = _moved(layer, params, inputs, direction, -step, mode)
                columns.append(_flat([ahead - behind]) / (2 * step))
    return np.stack(columns, axis=1)


def hessian_identity(
    layer: LinearMap | BatchNorm,
    params: Params,
    x: Array,
    delta: Array,
    *,
    bias: bool = False,
    mode: Mode = "eval",
) -> float:
    r"""Relative error of :math:`E = \frac12 \delta^\top H \delta`, the layer error against the exact Hessian.

    Parameters
    ----------
    layer : LinearMap or BatchNorm
        A layer that is linear in its weights.
    params : mapping
        Its arrays; float64.
    x : Array, shape (n, ...)
        Its input.
    delta : Array
        Change of the packed weight, (g, d, m); of scale and shift, (c, 2), for `BatchNorm`.
    bias : bool, optional
        Whether the packed weight has a row for the bias.
    mode : {'eval', 'train'}, optional
        Which statistics `BatchNorm` normalizes with; its output is linear in scale and shift in both.

    Returns
    -------
    float
        Difference over the larger of the two.

    Raises
    ------
    ValueError
        If `delta` has the wrong shape.

    Examples
    --------
    >>> from refldnq.layers import Linear
    >>> layer, x = Linear(1, 1), np.array([[1.0], [3.0]])
    >>> params = {"weight": np.ones((1, 1)), "bias": np.ones(1)}
    >>> hessian_identity(layer, params, x, np.array([[[2.0], [1.0]]]), bias=True) < 1e-15
    True
    """
    if isinstance(layer, BatchNorm):
        check_shape("delta", delta, (layer.features, 2))
        changes = {"weight": params["weight"] + delta[:, 0], "bias": params["bias"] + delta[:, 1]}
        hessian, columns = layer.hessian(params, x, mode=mode), delta[:, :, None]
    else:
        packed = layer.pack(params, bias=bias)
        check_shape("delta", delta, packed.shape)
        changes = layer.unpack(packed + delta, bias=bias)
        hessian, columns = layer.hessian(x, bias=bias), delta
    before, after = (layer.forward(arrays, x, mode=mode)[0] for arrays in (params, {**params, **changes}))
    error = _norm(after - before) ** 2 / x.shape[0]  # [LDNQ] (8)
    model = 0.5 * float(np.einsum("gdm,gde,gem->", columns, hessian, columns))  # [LDNQ] (9)-(10)
    larger = max(abs(error), abs(model))
    return abs(error - model) / larger if larger else 0.0


def _units(array: Array) -> list[Array]:
    eye = np.eye(array.size, dtype=array.dtype)
    return [row.reshape(array.shape) for row in eye]


def _flat(arrays: Sequence[Array]) -> Float64Array:
    return np.concatenate([np.zeros(0), *(np.asarray(a, dtype=np.float64).ravel() for a in arrays)])


def _dot(a: Array, b: Array) -> float:
    return float(_flat([a]) @ _flat([b]))


def _norm(a: Array) -> float:
    return float(np.linalg.norm(_flat([a])))
