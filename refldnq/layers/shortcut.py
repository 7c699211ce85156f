"""Shortcut without parameters across a change of shape."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from refldnq._checks import check_float, check_integer
from refldnq._kernels.threads import run_kernel, worth
from refldnq._typing import Array, Params, Shape
from refldnq.layers.base import Layer, Mode, Spec, Tape, check_like
from refldnq.layers.geometry import batched, pair


@dataclass(frozen=True)
class SubsampleShortcut(Layer):
    """Option A of the CIFAR residual networks: every s-th pixel, and channels of zeros.

    Of the new channels, the integer half of their number comes before the old ones and the rest after.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels before and after; the latter not fewer.
    stride : int or tuple of int, optional
        (rows, columns); 2, as where the networks halve the image.

    Raises
    ------
    ValueError
        If a number is below 1 or channels would be lost.
    TypeError
        If a number is not an integer.

    Notes
    -----
    He et al. 2016 ("Deep Residual Learning for Image Recognition", section 4.2) say that option A pads with
    zeros; where the zeros go is Idelbayev's ``pytorch_resnet_cifar10``, whose trained weights need it.

    Examples
    --------
    >>> import numpy as np
    >>> SubsampleShortcut(1, 3).forward({}, np.arange(1.0, 10.0).reshape(1, 1, 3, 3))[0].tolist()
    [[[[0.0, 0.0], [0.0, 0.0]], [[1.0, 3.0], [7.0, 9.0]], [[0.0, 0.0], [0.0, 0.0]]]]
    """

    in_channels: int
    out_channels: int
    stride: int | tuple[int, int] = (2, 2)

    def __post_init__(self) -> None:
        for name in ("in_channels", "out_channels"):
            object.__setattr__(self, name, check_integer(name, getattr(self, name), at_least=1))
        if self.out_channels < self.in_channels:
            raise ValueError(
                f"`out_channels` must be at least `in_channels`, {self.in_channels}, got {self.out_channels}."
            )
        object.__setattr__(self, "stride", pair("stride", self.stride, at_least=1))

    def output_shape(self, *shapes: Shape) -> Shape:
        """Shape (out_channels, h / stride, w / stride), rounded up, for an image (in_channels, h, w).

        Raises
        ------
        ValueError
            If the channels or the number of axes differ.
        """
        (shape,) = shapes
        if len(shape) != 3 or shape[0] != self.in_channels:
            raise ValueError(f"`x` must have shape (n, {self.in_channels}, h, w), got {batched(shape)}.")
        sh, sw = self.stride  # type: ignore[misc]
        return self.out_channels, -(-shape[1] // sh), -(-shape[2] // sw)

    @property
    def _places(self) -> tuple[int, int, int]:
        # The strides, and the new channel that is the first old one.
        return (*self.stride, (self.out_channels - self.in_channels) // 2)  # type: ignore[misc]

    def forward(self, params: Params, *inputs: Array, mode: Mode = "eval") -> tuple[Array, Tape]:
        """Output (n, out_channels, ho, wo); the tape is the input's shape and type.

        Raises
        ------
        ValueError
            If the input's shape does not fit.
        TypeError
            If the input is not float32 or float64.
        """
        from refldnq._kernels import shortcut as kernels

        (x,) = inputs
        x = np.ascontiguousarray(check_float("x", x))
        y = np.empty((x.shape[0], *self.output_shape(x.shape[1:])), x.dtype)
        run_kernel(kernels.gather, (x, y, *self._places), len(x), grain=worth(prod(y.shape[1:])))
        return y, Spec(x.shape, x.dtype)

    def backward(
        self, params: Params, dy: Array, tape: Tape, *, wrt_inputs: bool = True, wrt_params: bool = True
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        """The gradient of the old channels at the pixels that were kept, 0 at the others."""
        shape: Shape = tape.shape
        check_like("dy", dy, Spec((shape[0], *self.output_shape(shape[1:])), tape.dtype))
        if not wrt_inputs:
            return (), {}
        from refldnq._kernels import shortcut as kernels

        dx = np.empty(shape, dy.dtype)
        above = np.ascontiguousarray(dy)
        run_kernel(kernels.scatter, (above, dx, *self._places), len(dx), grain=worth(prod(shape[1:])))
        return (dx,), {}

    def jvp(self, params: Params, tape: Tape, dinputs: tuple[Array, ...], dparams: Params) -> Array:
        """The layer is linear."""
        check_like("dx", dinputs[0], tape)
        return self.forward(params, dinputs[0])[0]

    def lipschitz(self, params: Params, *shapes: Shape) -> tuple[float, ...]:
        """1: some of the numbers, and zeros."""
        return (1.0,)
