"""Batch normalization, over (n) for features and over (n, h, w) for images."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np

from refldnq._checks import check_float, check_integer, check_number
from refldnq._kernels.threads import run_kernel, worth
from refldnq._typing import Array, Float64Array, Params, Shape
from refldnq.layers.base import Layer, Mode, Tape, check_like, same_dtype


class _Tape(NamedTuple):
    x: Array
    mean: Float64Array
    variance: Float64Array
    train: bool


@dataclass(frozen=True)
class BatchNorm(Layer):
    r"""Batch normalization of (n, c) or (n, c, h, w), channel by channel.

    .. math:: y = \gamma\,\hat x + \beta,\qquad \hat x = \frac{x - \mu}{\sqrt{v + \epsilon}}

    In eval mode :math:`\mu, v` are the running statistics; in train mode they are the batch's mean and
    *biased* variance, through which gradients flow, and the running statistics move towards the batch's mean
    and *unbiased* variance by `momentum`.

    Parameters
    ----------
    features : int
        Channels c.
    eps : float, optional
        :math:`\epsilon`; 1e-5 as in Ioffe and Szegedy's and PyTorch's layers.
    momentum : float, optional
        Weight of the batch in the running statistics; 0.1 as in PyTorch's layer.

    Raises
    ------
    ValueError
        If `features` < 1, `eps` <= 0 or `momentum` is outside [0, 1].

    Notes
    -----
    Arrays: ``weight`` (the scale :math:`\gamma`), ``bias`` (:math:`\beta`), ``running_mean``,
    ``running_var``.

    Examples
    --------
    >>> import numpy as np
    >>> layer = BatchNorm(1, eps=1.0)
    >>> params = {"weight": np.array([2.0]), "bias": np.array([1.0]),
    ...           "running_mean": np.array([3.0]), "running_var": np.array([3.0])}
    >>> layer.forward(params, np.array([[3.0], [5.0]]))[0]
    array([[1.],
           [3.]])
    """

    features: int
    eps: float = 1e-5
    momentum: float = 0.1

    def __post_init__(self) -> None:
        check_integer("features", self.features, at_least=1)
        check_number("eps", self.eps, above=0)
        if not check_number("momentum", self.momentum, at_least=0) <= 1:
            raise ValueError(f"`momentum` must be at most 1, got {self.momentum!r}.")

    def output_shape(self, *shapes: Shape) -> Shape:
        """The input's shape, (c,) or (c, h, w).

        Raises
        ------
        ValueError
            If the channels or the number of axes differ.
        """
        (shape,) = shapes
        if len(shape) not in (1, 3) or shape[0] != self.features:
            raise ValueError(
                f"`x` must have shape (n, {self.features}) or (n, {self.features}, h, w), "
                f"got (n, {', '.join(map(str, shape))})."
            )
        return shape

    def parameter_shapes(self) -> dict[str, Shape]:
        """Four arrays of one number a channel."""
        return dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (self.features,))

    @property
    def buffers(self) -> tuple[str, ...]:
        """The running statistics."""
        return ("running_mean", "running_var")

    def _inverse(self, variance: Float64Array) -> Float64Array:
        return np.asarray(1.0 / np.sqrt(variance + self.eps))

    def forward(self, params: Params, *inputs: Array, mode: Mode = "eval") -> tuple[Array, Tape]:
        """Output of the input's shape.

        Raises
        ------
        ValueError
            If the shape does not fit, or in train mode a channel has one value only.
        TypeError
            If the types of the input and the parameters differ.
        """
        (x,) = inputs
        same_dtype(params, check_float("x", x))
        self.output_shape(x.shape[1:])
        x = np.ascontiguousarray(x)
        if mode == "train":
            mean, variance = self._moments(x)
        else:
            mean = params["running_mean"].astype(np.float64)
            variance = params["running_var"].astype(np.float64)
        scale = params["weight"] * self._inverse(variance)
        shift = params["bias"] - mean * scale
        return _scale_shift(x, scale, shift), _Tape(x, mean, variance, mode == "train")

    def _moments(self, x: Array) -> tuple[Float64Array, Float64Array]:
        from refldnq._kernels import batchnorm as kernels

        rows = _rows(x)
        count = rows.shape[0] * rows.shape[2]
        if count < 2:
            raise ValueError("`x` must hold at least two values a channel in train mode, got one.")
        means, scatter = np.empty(rows.shape[:2]), np.empty(rows.shape[:2])
        run_kernel(
            kernels.moments,
            (rows, means, scatter),
            rows.shape[0],
            grain=worth(prod(rows.shape[1:])),
        )
        mean = means.mean(axis=0)
        between = rows.shape[2] * ((means - mean) ** 2).sum(axis=0)
        variance = (scatter.sum(axis=0) + between) / count
        return mean, variance

    def _sums(self, dy: Array, tape: _Tape, scale: Array, dx: Array) -> tuple[Float64Array, Float64Array]:
        # Sums over the batch of dy and of dy (x - mean), by channel; also dx = scale dy, unless dx is empty.
        from refldnq._kernels import batchnorm as kernels

        rows, above, below = _rows(tape.x), _rows(dy), _rows(dx)
        total, products = np.empty(rows.shape[:2]), np.empty(rows.shape[:2])
        factor = scale.astype(dx.dtype)
        run_kernel(
            kernels.sums,
            (above, rows, tape.mean, total, products, factor, below),
            rows.shape[0],
            grain=worth(prod(rows.shape[1:])),
        )
        return total.sum(axis=0), products.sum(axis=0)

    def backward(
        self, params: Params, dy: Array, tape: Tape, *, wrt_inputs: bool = True, wrt_params: bool = True
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        """Gradients of the input, ``weight`` and ``bias``."""
        t: _Tape = tape
        check_like("dy", dy, t.x)
        dy = np.ascontiguousarray(dy)
        inverse = self._inverse(t.variance)
        scale = params["weight"] * inverse
        if not (wrt_params or t.train):
            return ((_scale_shift(dy, scale, np.zeros(self.features)),) if wrt_inputs else ()), {}
        dx = np.empty_like(t.x if wrt_inputs and not t.train else t.x[:0])
        total, products = self._sums(dy, t, scale, dx)
        grads: dict[str, Array] = {}
        if wrt_params:
            grads["weight"] = (products * inverse).astype(t.x.dtype)
            grads["bias"] = total.astype(t.x.dtype)
        if not wrt_inputs:
            return (), grads
        if not t.train:
            return (dx,), grads
        # dx = scale (dy - mean(dy) - x_hat mean(dy x_hat)): the mean and the variance move with x.
        count = t.x.size // self.features
        slope = -scale * products * inverse**2 / count
        shift = -scale * total / count - slope * t.mean
        return (_combine(dy, t.x, scale, slope, shift),), grads

    def jvp(self, params: Params, tape: Tape, dinputs: tuple[Array, ...], dparams: Params) -> Array:
        """Derivative in the input, ``weight`` and ``bias``; in eval mode the statistics stand still."""
        t: _Tape = tape
        (dx,) = dinputs
        check_like("dx", dx, t.x)
        same_dtype(dparams, t.x)
        inverse = self._inverse(t.variance)
        scale = params["weight"] * inverse
        slope = np.zeros(self.features)
        shift = np.zeros(self.features)
        if t.train:
            total, products = self._sums(np.ascontiguousarray(dx), t, scale, t.x[:0])
            count = t.x.size // self.features
            slope = -scale * products * inverse**2 / count
            shift = -scale * total / count - slope * t.mean
        if "weight" in dparams:
            tilt = dparams["weight"] * inverse
            slope = slope + tilt
            shift = shift - tilt * t.mean
        if "bias" in dparams:
            shift = shift + dparams["bias"]
        return _combine(np.ascontiguousarray(dx), t.x, scale, slope, shift)

    def new_statistics(self, params: Params, tape: Tape) -> dict[str, Array]:
        """The running statistics after a forward call in train mode; empty after one in eval mode."""
        t: _Tape = tape
        if not t.train:
            return {}
        count = t.x.size // self.features
        keep = 1.0 - self.momentum
        mean = keep * params["running_mean"] + self.momentum * t.mean
        variance = keep * params["running_var"] + self.momentum * t.variance * (count / (count - 1))
        return {"running_mean": mean.astype(t.x.dtype), "running_var": variance.astype(t.x.dtype)}

    def hessian(self, params: Params, x: Array, *, mode: Mode = "eval") -> Float64Array:
        r"""The exact Hessian of the layer error (8) in each channel's pair :math:`(\gamma_c, \beta_c)`.

        Parameters
        ----------
        params : mapping
            The layer's arrays.
        x : Array, shape (n, c) or (n, c, h, w)
            The layer's input.
        mode : {'eval', 'train'}, optional
            Which statistics normalize x.

        Returns
        -------
        Array, shape (c, 2, 2), float64
            :math:`\frac2n\begin{pmatrix}\sum\hat x^2&\sum\hat x\\\sum\hat x&M\end{pmatrix}`, M the number of
            values a channel; y is linear in the pair, so this is exact in both modes.
        """
        _, tape = self.forward(params, x, mode=mode)
        n, count = x.shape[0], x.size // self.features
        x_hat = (_rows(tape.x) - tape.mean[:, None]) * self._inverse(tape.variance)[:, None]
        blocks: Float64Array = np.empty((self.features, 2, 2))
        blocks[:, 0, 0] = (x_hat**2).sum(axis=(0, 2))
        blocks[:, 0, 1] = blocks[:, 1, 0] = x_hat.sum(axis=(0, 2))
        blocks[:, 1, 1] = count
        blocks *= 2.0 / n  # [LDNQ] (8)-(10)
        return blocks

    def lipschitz(self, params: Params, *shapes: Shape) -> tuple[float, ...]:
        r""":math:`\max_c |\gamma_c| / \sqrt{v_c + \epsilon}` with the running statistics: eval mode's own."""
        scale = np.abs(params["weight"]) * self._inverse(params["running_var"].astype(np.float64))
        return (float(scale.max()),)


def _rows(x: Array) -> Array:
    return x.reshape(x.shape[0], x.shape[1], prod(x.shape[2:]))


def _scale_shift(x: Array, scale: Array, shift: Array) -> Array:
    from refldnq._kernels import batchnorm as kernels

    y = np.empty_like(x)
    source, target = _rows(x), _rows(y)
    factor, offset = scale.astype(x.dtype), shift.astype(x.dtype)
    run_kernel(
        kernels.scale_shift,
        (source, factor, offset, target),
        x.shape[0],
        grain=worth(prod(x.shape[1:])),
    )
    return y


def _combine(dy: Array, x: Array, scale: Array, slope: Array, shift: Array) -> Array:
    from refldnq._kernels import batchnorm as kernels

    dx = np.empty_like(x)
    above, source, target = _rows(dy), _rows(x), _rows(dx)
    factor, tilt, offset = (a.astype(x.dtype) for a in (scale, slope, shift))
    run_kernel(
        kernels.combine,
        (above, source, factor, tilt, offset, target),
        x.shape[0],
        grain=worth(prod(x.shape[1:])),
    )
    return dx
