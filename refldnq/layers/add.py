"""Sum of several branches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from refldnq._checks import check_float
from refldnq._kernels.threads import run_kernel, worth
from refldnq._typing import Array, Params, Shape
from refldnq.layers.base import Layer, Mode, Spec, Tape, check_like
from refldnq.layers.geometry import batched


@dataclass(frozen=True)
class Add(Layer):
    """The sum of one or more inputs of the same shape: where a residual branch meets its shortcut.

    Examples
    --------
    >>> import numpy as np
    >>> Add().forward({}, np.array([[1.0, 2.0]]), np.array([[10.0, 20.0]]))[0]
    array([[11., 22.]])
    """

    @property
    def arity(self) -> int | None:
        """Any number of inputs."""
        return None

    def output_shape(self, *shapes: Shape) -> Shape:
        """The common shape.

        Raises
        ------
        ValueError
            If there is no input or shapes differ.
        """
        if not shapes:
            raise ValueError("`inputs` must hold at least one array, got none.")
        for shape in shapes[1:]:
            if shape != shapes[0]:
                raise ValueError(
                    f"`inputs` must have the same shape, got {batched(shapes[0])} and {batched(shape)}."
                )
        return shapes[0]

    def forward(self, params: Params, *inputs: Array, mode: Mode = "eval") -> tuple[Array, Tape]:
        """The sum, added from left to right; the tape is the inputs' shape and type, and their number.

        Raises
        ------
        ValueError
            If there is no input or shapes differ.
        TypeError
            If types differ, or are not float32 or float64.
        """
        self.output_shape(*(x.shape for x in inputs))
        for x in inputs:
            if check_float("inputs", x).dtype != inputs[0].dtype:
                raise TypeError(f"`inputs` must have the same type, got {inputs[0].dtype} and {x.dtype}.")
        return self._sum(inputs), (Spec(inputs[0].shape, inputs[0].dtype), len(inputs))

    def _sum(self, inputs: tuple[Array, ...]) -> Array:
        from refldnq._kernels import elementwise

        y = inputs[0]
        for x in inputs[1:]:
            total = np.empty(x.shape, x.dtype)
            flat = tuple(np.ascontiguousarray(part).ravel() for part in (y, x, total))
            run_kernel(elementwise.add, flat, x.size, grain=worth(1))
            y = total
        return y

    def backward(
        self, params: Params, dy: Array, tape: Tape, *, wrt_inputs: bool = True, wrt_params: bool = True
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        """The same gradient for every input."""
        like, count = tape
        check_like("dy", dy, like)
        return ((dy,) * count if wrt_inputs else ()), {}

    def jvp(self, params: Params, tape: Tape, dinputs: tuple[Array, ...], dparams: Params) -> Array:
        """The sum of the directions."""
        for dx in dinputs:
            check_like("dinputs", dx, tape[0])
        return self._sum(dinputs)

    def lipschitz(self, params: Params, *shapes: Shape) -> tuple[float, ...]:
        """1 in each input."""
        return (1.0,) * len(shapes)
