"""All numbers of an image in one row."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from refldnq._checks import check_float
from refldnq._typing import Array, Params, Shape
from refldnq.layers.base import Layer, Mode, Spec, Tape, check_like


@dataclass(frozen=True)
class Flatten(Layer):
    """From (n, c, h, w) to (n, c h w), in this order.

    Examples
    --------
    >>> import numpy as np
    >>> Flatten().forward({}, np.arange(4.0).reshape(1, 2, 1, 2))[0]
    array([[0., 1., 2., 3.]])
    """

    def output_shape(self, *shapes: Shape) -> Shape:
        """Shape (product of the extents,)."""
        return (prod(shapes[0]),)

    def forward(self, params: Params, *inputs: Array, mode: Mode = "eval") -> tuple[Array, Tape]:
        """Output (n, product of the extents), a view where possible; the tape is the input's shape and type.

        Raises
        ------
        TypeError
            If the input is not float32 or float64.
        """
        (x,) = inputs
        check_float("x", x)
        return x.reshape(x.shape[0], prod(x.shape[1:])), Spec(x.shape, x.dtype)

    def backward(
        self, params: Params, dy: Array, tape: Tape, *, wrt_inputs: bool = True, wrt_params: bool = True
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        """The gradient in the input's shape."""
        n, *extents = tape.shape
        check_like("dy", dy, Spec((n, prod(extents)), tape.dtype))
        return ((dy.reshape(tape.shape),) if wrt_inputs else ()), {}

    def jvp(self, params: Params, tape: Tape, dinputs: tuple[Array, ...], dparams: Params) -> Array:
        """The direction, flattened."""
        check_like("dx", dinputs[0], tape)
        return self.forward(params, dinputs[0])[0]

    def lipschitz(self, params: Params, *shapes: Shape) -> tuple[float, ...]:
        """1: the same numbers."""
        return (1.0,)
