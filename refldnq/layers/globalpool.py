"""Mean over all pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from refldnq._checks import check_float
from refldnq._kernels.threads import run_kernel, worth
from refldnq._typing import Array, Params, Shape
from refldnq.layers.base import Layer, Mode, Spec, Tape, check_like
from refldnq.layers.geometry import check_image


@dataclass(frozen=True)
class GlobalAvgPool(Layer):
    """The mean pixel of every channel, (n, c, 1, 1).

    Examples
    --------
    >>> import numpy as np
    >>> GlobalAvgPool().forward({}, np.array([[[[1.0, 3.0]]]]))[0]
    array([[[[2.]]]])
    """

    def output_shape(self, *shapes: Shape) -> Shape:
        """Shape (c, 1, 1) for an image (c, h, w).

        Raises
        ------
        ValueError
            If the number of axes differs or there is no pixel.
        """
        (shape,) = shapes
        check_image(shape)
        if shape[1] * shape[2] < 1:
            raise ValueError(f"`x` must hold at least one pixel, got {shape[1:]}.")
        return shape[0], 1, 1

    def forward(self, params: Params, *inputs: Array, mode: Mode = "eval") -> tuple[Array, Tape]:
        """Output (n, c, 1, 1); the tape is the input's shape and type.

        Raises
        ------
        ValueError
            If the input's shape does not fit.
        TypeError
            If the input is not float32 or float64.
        """
        from refldnq._kernels import globalpool as kernels

        (x,) = inputs
        shape = (check_float("x", x).shape[0], *self.output_shape(x.shape[1:]))
        y = np.empty(shape, x.dtype)
        source, target = _planes(np.ascontiguousarray(x)), y.ravel()
        run_kernel(kernels.means, (source, target), target.size, grain=worth(source.shape[1]))
        return y, Spec(x.shape, x.dtype)

    def backward(
        self, params: Params, dy: Array, tape: Tape, *, wrt_inputs: bool = True, wrt_params: bool = True
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        """The gradient, divided by the number of pixels, at every pixel."""
        from refldnq._kernels import globalpool as kernels

        n, c, h, w = tape.shape
        check_like("dy", dy, Spec((n, c, 1, 1), tape.dtype))
        if not wrt_inputs:
            return (), {}
        dx = np.empty(tape.shape, dy.dtype)
        source, target = (dy / (h * w)).ravel(), _planes(dx)
        run_kernel(kernels.spread, (source, target), n * c, grain=worth(h * w))
        return (dx,), {}

    def jvp(self, params: Params, tape: Tape, dinputs: tuple[Array, ...], dparams: Params) -> Array:
        """The layer is linear."""
        (dx,) = dinputs
        check_like("dx", dx, tape)
        return self.forward(params, dx)[0]

    def lipschitz(self, params: Params, *shapes: Shape) -> tuple[float, ...]:
        r""":math:`1/\sqrt{hw}`, attained by constant channels."""
        _, h, w = shapes[0]
        return (float(1.0 / np.sqrt(h * w)) * (1 + 1e-15),)


def _planes(x: Array) -> Array:
    n, c, h, w = x.shape
    return x.reshape(n * c, h * w)
