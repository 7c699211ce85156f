"""Rectified linear unit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from refldnq._checks import check_float
from refldnq._kernels.threads import run_kernel, worth
from refldnq._typing import Array, Params, Shape
from refldnq.layers.base import Layer, Mode, Tape, check_like


@dataclass(frozen=True)
class ReLU(Layer):
    """y = max(x, 0), the paper's activation; the derivative at 0 is taken as 0.

    Examples
    --------
    >>> import numpy as np
    >>> y, tape = ReLU().forward({}, np.array([-1.0, 0.0, 2.0]))
    >>> y
    array([0., 0., 2.])
    >>> ReLU().backward({}, np.ones(3), tape)[0][0]
    array([0., 0., 1.])
    """

    def output_shape(self, *shapes: Shape) -> Shape:
        """The input's shape."""
        return shapes[0]

    def forward(self, params: Params, *inputs: Array, mode: Mode = "eval") -> tuple[Array, Tape]:
        """Output of the input's shape; the tape is the output, positive exactly where the input is.

        Raises
        ------
        TypeError
            If the input is not float32 or float64.
        """
        from refldnq._kernels import elementwise

        x = np.ascontiguousarray(check_float("x", inputs[0]))
        y = np.empty_like(x)
        source, target = x.ravel(), y.ravel()
        run_kernel(elementwise.relu, (source, target), x.size, grain=worth(1))
        return y, y

    def backward(
        self, params: Params, dy: Array, tape: Tape, *, wrt_inputs: bool = True, wrt_params: bool = True
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        """The gradient where the input was positive, 0 elsewhere."""
        check_like("dy", dy, tape)
        return ((self._mask(dy, tape),) if wrt_inputs else ()), {}

    def jvp(self, params: Params, tape: Tape, dinputs: tuple[Array, ...], dparams: Params) -> Array:
        """The direction where the input was positive, 0 elsewhere."""
        check_like("dx", dinputs[0], tape)
        return self._mask(dinputs[0], tape)

    def _mask(self, dy: Array, y: Array) -> Array:
        from refldnq._kernels import elementwise

        dx = np.empty_like(y)
        above, output, target = np.ascontiguousarray(dy).ravel(), y.ravel(), dx.ravel()
        run_kernel(elementwise.relu_backward, (output, above, target), y.size, grain=worth(1))
        return dx

    def lipschitz(self, params: Params, *shapes: Shape) -> tuple[float, ...]:
        """1: |max(a, 0) - max(b, 0)| <= |a - b|."""
        return (1.0,)
