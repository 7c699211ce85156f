"""Branches side by side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from refldnq._checks import check_float
from refldnq._typing import Array, Params, Shape
from refldnq.layers.base import Layer, Mode, Spec, Tape, check_like
from refldnq.layers.geometry import batched


@dataclass(frozen=True)
class Concat(Layer):
    """One or more inputs concatenated along the channels (or features).

    Examples
    --------
    >>> import numpy as np
    >>> layer = Concat()
    >>> y, tape = layer.forward({}, np.array([[1.0, 2.0]]), np.array([[3.0]]))
    >>> y
    array([[1., 2., 3.]])
    >>> layer.backward({}, y, tape)[0]
    (array([[1., 2.]]), array([[3.]]))
    """

    @property
    def arity(self) -> int | None:
        """Any number of inputs."""
        return None

    def output_shape(self, *shapes: Shape) -> Shape:
        """The channels added up, the other extents as they are.

        Raises
        ------
        ValueError
            If there is no input, one has no channels, or other extents differ.
        """
        if not shapes:
            raise ValueError("`inputs` must hold at least one array, got none.")
        for shape in shapes:
            if not shape or shape[1:] != shapes[0][1:]:
                raise ValueError(
                    f"`inputs` must have the same shape behind the channels, got {batched(shapes[0])} and "
                    f"{batched(shape)}."
                )
        return (sum(shape[0] for shape in shapes), *shapes[0][1:])

    def forward(self, params: Params, *inputs: Array, mode: Mode = "eval") -> tuple[Array, Tape]:
        """Output (n, sum of channels, ...); the tape is the inputs' shapes and types.

        Raises
        ------
        ValueError
            If shapes do not fit.
        TypeError
            If types differ, or are not float32 or float64.
        """
        self.output_shape(*(x.shape[1:] for x in inputs))
        for x in inputs:
            if check_float("inputs", x).dtype != inputs[0].dtype:
                raise TypeError(f"`inputs` must have the same type, got {inputs[0].dtype} and {x.dtype}.")
            if x.shape[0] != inputs[0].shape[0]:
                raise ValueError(
                    f"`inputs` must hold equally many images, got {len(inputs[0])} and {len(x)}."
                )
        return np.concatenate(inputs, axis=1), tuple(Spec(x.shape, x.dtype) for x in inputs)

    def backward(
        self, params: Params, dy: Array, tape: Tape, *, wrt_inputs: bool = True, wrt_params: bool = True
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        """Every input's share of the gradient."""
        shapes = [like.shape for like in tape]
        wanted = (shapes[0][0], *self.output_shape(*(shape[1:] for shape in shapes)))
        check_like("dy", dy, Spec(wanted, tape[0].dtype))
        if not wrt_inputs:
            return (), {}
        ends = np.cumsum([shape[1] for shape in shapes])
        return tuple(np.split(dy, ends[:-1], axis=1)), {}

    def jvp(self, params: Params, tape: Tape, dinputs: tuple[Array, ...], dparams: Params) -> Array:
        """The directions side by side."""
        for dx, like in zip(dinputs, tape, strict=True):
            check_like("dinputs", dx, like)
        return np.concatenate(dinputs, axis=1)

    def lipschitz(self, params: Params, *shapes: Shape) -> tuple[float, ...]:
        """1 in each input."""
        return (1.0,) * len(shapes)
