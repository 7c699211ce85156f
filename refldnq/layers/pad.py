"""Zeros around the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from refldnq._checks import check_float
from refldnq._typing import Array, Params, Shape
from refldnq.layers.base import Layer, Mode, Spec, Tape, check_like
from refldnq.layers.geometry import check_image, sides


@dataclass(frozen=True)
class ZeroPad2d(Layer):
    """Zeros at the sides of every channel.

    Parameters
    ----------
    padding : int or tuple of int
        All sides, the sides of (rows, columns), or (top, bottom, left, right).

    Raises
    ------
    ValueError
        If a number is negative or there are not one, two or four.
    TypeError
        If a number is not an integer.

    Examples
    --------
    >>> import numpy as np
    >>> ZeroPad2d((0, 1, 0, 2)).forward({}, np.array([[[[7.0]]]]))[0]
    array([[[[7., 0., 0.],
             [0., 0., 0.]]]])
    """

    padding: int | tuple[int, int] | tuple[int, int, int, int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "padding", sides("padding", self.padding))

    def output_shape(self, *shapes: Shape) -> Shape:
        """Shape (c, h + top + bottom, w + left + right) for an image (c, h, w).

        Raises
        ------
        ValueError
            If the number of axes differs.
        """
        (shape,) = shapes
        check_image(shape)
        top, bottom, left, right = self.padding  # type: ignore[misc]
        return shape[0], shape[1] + top + bottom, shape[2] + left + right

    def forward(self, params: Params, *inputs: Array, mode: Mode = "eval") -> tuple[Array, Tape]:
        """Output with zeros at the sides; the tape is the input's shape and type.

        Raises
        ------
        ValueError
            If the input's shape does not fit.
        TypeError
            If the input is not float32 or float64.
        """
        (x,) = inputs
        check_float("x", x)
        y = np.zeros((x.shape[0], *self.output_shape(x.shape[1:])), x.dtype)
        self._image(y, x.shape)[...] = x
        return y, Spec(x.shape, x.dtype)

    def _image(self, padded: Array, shape: Shape) -> Array:
        top, _, left, _ = self.padding  # type: ignore[misc]
        return padded[:, :, top : top + shape[2], left : left + shape[3]]

    def backward(
        self, params: Params, dy: Array, tape: Tape, *, wrt_inputs: bool = True, wrt_params: bool = True
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        """The gradient inside the padding."""
        shape: Shape = tape.shape
        check_like("dy", dy, Spec((shape[0], *self.output_shape(shape[1:])), tape.dtype))
        return ((self._image(dy, shape).copy(),) if wrt_inputs else ()), {}

    def jvp(self, params: Params, tape: Tape, dinputs: tuple[Array, ...], dparams: Params) -> Array:
        """The layer is linear."""
        check_like("dx", dinputs[0], tape)
        return self.forward(params, dinputs[0])[0]

    def lipschitz(self, params: Params, *shapes: Shape) -> tuple[float, ...]:
        """1: the same numbers and zeros."""
        return (1.0,)
