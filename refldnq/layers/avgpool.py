"""Mean over a sliding window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from refldnq._kernels.threads import run_kernel
from refldnq._typing import Array, Float64Array, Params, Shape
from refldnq.layers.base import Mode, Spec, Tape, check_like
from refldnq.layers.norms import spectral_norm_upper
from refldnq.layers.pool import GRAIN, Pool2d


@dataclass(frozen=True)
class AvgPool2d(Pool2d):
    """The mean pixel of each window.

    Parameters
    ----------
    kernel_size, stride, padding, ceil_mode
        See `Pool2d`.
    count_include_pad : bool, optional
        Whether the zeros of the padding count in the divisor. What `ceil_mode` adds beyond the padding never
        does (PyTorch's rule).

    Raises
    ------
    ValueError
        If a number is out of range.
    TypeError
        If a number is not an integer.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[[[2.0, 4.0]]]])
    >>> AvgPool2d((1, 2), stride=1, padding=(0, 0, 1, 0)).forward({}, x)[0]
    array([[[[1., 3.]]]])
    >>> AvgPool2d((1, 2), stride=1, padding=(0, 0, 1, 0), count_include_pad=False).forward({}, x)[0]
    array([[[[2., 3.]]]])
    """

    count_include_pad: bool = True

    def _divisors(self, shape: Shape) -> tuple[Float64Array, Float64Array]:
        # The divisor of window (p, q) is rows[p] cols[q].
        _, ho, wo = self.output_shape(shape)
        rows, cols = self._axes()
        return self._lengths(shape[1], ho, *rows), self._lengths(shape[2], wo, *cols)

    def _lengths(
        self, size: int, out: int, kernel: int, stride: int, before: int, after: int
    ) -> Float64Array:
        first = np.arange(out) * stride - before
        stop = np.minimum(first + kernel, size + after)
        if not self.count_include_pad:
            first, stop = np.maximum(first, 0), np.minimum(stop, size)
        return (stop - first).astype(np.float64)

    def forward(self, params: Params, *inputs: Array, mode: Mode = "eval") -> tuple[Array, Tape]:
        """Output (n, c, ho, wo); the tape is the input's shape and type.

        Raises
        ------
        ValueError
            If the input's shape does not fit.
        TypeError
            If the input is not float32 or float64.
        """
        from refldnq._kernels import pool as kernels

        (x,) = inputs
        planes, y = self._admit(x)
        rows, cols = (lengths.astype(x.dtype) for lengths in self._divisors(x.shape[1:]))
        target, geometry = y.reshape(-1, *y.shape[2:]), self.geometry
        run_kernel(kernels.average, (planes, target, rows, cols, geometry), planes.shape[0], grain=GRAIN)
        return y, Spec(x.shape, x.dtype)

    def backward(
        self, params: Params, dy: Array, tape: Tape, *, wrt_inputs: bool = True, wrt_params: bool = True
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        """The gradient of every output, divided, goes to all pixels of its window."""
        from refldnq._kernels import pool as kernels

        shape: Shape = tape.shape
        check_like("dy", dy, Spec((shape[0], *self.output_shape(shape[1:])), tape.dtype))
        if not wrt_inputs:
            return (), {}
        dx = np.zeros(shape, dy.dtype)
        rows, cols = (lengths.astype(dy.dtype) for lengths in self._divisors(shape[1:]))
        above, target = np.ascontiguousarray(dy).reshape(-1, *dy.shape[2:]), dx.reshape(-1, *shape[2:])
        geometry = self.geometry
        run_kernel(kernels.spread, (above, target, rows, cols, geometry), target.shape[0], grain=GRAIN)
        return (dx,), {}

    def jvp(self, params: Params, tape: Tape, dinputs: tuple[Array, ...], dparams: Params) -> Array:
        """The layer is linear."""
        (dx,) = dinputs
        check_like("dx", dx, tape)
        return self.forward(params, dx)[0]

    def lipschitz(self, params: Params, *shapes: Shape) -> tuple[float, ...]:
        """The operator norm: windows and divisors are products over the axes, and so is the norm."""
        (shape,) = shapes
        lengths = self._divisors(shape)
        bound = 1.0
        for size, divisors, (kernel, stride, before, _) in zip(shape[1:], lengths, self._axes(), strict=True):
            first = np.arange(divisors.size)[:, None] * stride - before
            pixel = np.arange(size)[None, :]
            inside = (pixel >= first) & (pixel < first + kernel)
            bound *= spectral_norm_upper(inside / divisors[:, None])
        return (bound * (1 + 1e-15),)
