"""Maximum over a sliding window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from refldnq._kernels.threads import run_kernel
from refldnq._typing import Array, Params, Shape
from refldnq.layers.base import Mode, Spec, Tape, check_like
from refldnq.layers.pool import GRAIN, Pool2d


class _Tape(NamedTuple):
    input: Spec
    where: Array


@dataclass(frozen=True)
class MaxPool2d(Pool2d):
    """The largest pixel of each window; padding never wins.

    Parameters
    ----------
    kernel_size, stride, padding, ceil_mode
        See `Pool2d`.

    Raises
    ------
    ValueError
        If a number is out of range.
    TypeError
        If a number is not an integer.

    Notes
    -----
    Among equal pixels the first in row-major order is the maximum: it alone gets the gradient (as in
    PyTorch). NaN wins over every number, so it is not hidden.

    Examples
    --------
    >>> import numpy as np
    >>> layer = MaxPool2d(2, stride=1)
    >>> y, tape = layer.forward({}, np.array([[[[1.0, 3.0, 3.0], [0.0, 2.0, 1.0]]]]))
    >>> y
    array([[[[3., 3.]]]])
    >>> layer.backward({}, np.ones((1, 1, 1, 2)), tape)[0][0]
    array([[[[0., 2., 0.],
             [0., 0., 0.]]]])
    """

    def forward(self, params: Params, *inputs: Array, mode: Mode = "eval") -> tuple[Array, Tape]:
        """Output (n, c, ho, wo); the tape holds the place of every maximum.

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
        where = np.empty((planes.shape[0], *y.shape[2:]), np.int32)
        target, geometry = y.reshape(where.shape), self.geometry
        run_kernel(kernels.maximum, (planes, target, where, geometry), planes.shape[0], grain=GRAIN)
        return y, _Tape(
            Spec(x.shape, x.dtype), where.reshape(where.shape[0], where.shape[1] * where.shape[2])
        )

    def backward(
        self, params: Params, dy: Array, tape: Tape, *, wrt_inputs: bool = True, wrt_params: bool = True
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        """The gradient of every output goes to the pixel that was its maximum."""
        from refldnq._kernels import pool as kernels

        t: _Tape = tape
        shape = t.input.shape
        check_like("dy", dy, Spec((shape[0], *self.output_shape(shape[1:])), t.input.dtype))
        if not wrt_inputs:
            return (), {}
        dx = np.zeros(shape, dy.dtype)
        above = np.ascontiguousarray(dy).reshape(t.where.shape)
        target = dx.reshape(t.where.shape[0], shape[2] * shape[3])
        run_kernel(kernels.put, (above, t.where, target), t.where.shape[0], grain=GRAIN)
        return (dx,), {}

    def jvp(self, params: Params, tape: Tape, dinputs: tuple[Array, ...], dparams: Params) -> Array:
        """The direction's entry at the pixel that was the maximum."""
        from refldnq._kernels import pool as kernels

        t: _Tape = tape
        (dx,) = dinputs
        check_like("dx", dx, t.input)
        shape = t.input.shape
        dy = np.empty((shape[0], *self.output_shape(shape[1:])), dx.dtype)
        source = np.ascontiguousarray(dx).reshape(t.where.shape[0], shape[2] * shape[3])
        target = dy.reshape(t.where.shape)
        run_kernel(kernels.take, (source, t.where, target), t.where.shape[0], grain=GRAIN)
        return dy

    def lipschitz(self, params: Params, *shapes: Shape) -> tuple[float, ...]:
        r""":math:`\sqrt{c_h c_w}`, c the most windows that contain a pixel, per axis; attained."""
        rows, cols = self.covers(shapes[0])
        root = float(np.sqrt(rows * cols))
        # Rounded up unless it is an integer.
        return (root if root.is_integer() else float(np.nextafter(root, np.inf)),)
