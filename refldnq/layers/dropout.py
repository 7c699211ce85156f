"""Random zeros in training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from refldnq._checks import check_float, check_number, check_shape
from refldnq._typing import Array, Params, Shape
from refldnq.layers.base import Layer, Mode, Spec, Tape, check_like, same_dtype


@dataclass(frozen=True)
class Dropout(Layer):
    """The identity, unless a mask is passed among the parameters.

    A layer is a function of its arguments, so it draws no random numbers itself: who trains draws a mask for
    each batch with `mask` and passes it as the parameter ``mask``, which belongs to no network.

    Parameters
    ----------
    p : float, optional
        Probability of a zero; 0.5 as in Srivastava et al. 2014 and PyTorch's layer.

    Raises
    ------
    ValueError
        If `p` is outside [0, 1).

    Notes
    -----
    The mode of a forward call plays no role: it is the mode of batch normalization. In particular the weights
    update of L-DNQ, which imitates the outputs of a teacher, never drops anything.

    Examples
    --------
    >>> import numpy as np
    >>> layer = Dropout(0.5)
    >>> x = np.ones((1, 4))
    >>> layer.forward({}, x)[0]
    array([[1., 1., 1., 1.]])
    >>> mask = layer.mask(np.random.default_rng(1), x.shape)
    >>> layer.forward({"mask": mask}, x)[0]
    array([[2., 2., 0., 2.]])
    """

    p: float = 0.5

    def __post_init__(self) -> None:
        if not check_number("p", self.p, at_least=0) < 1:
            raise ValueError(f"`p` must be smaller than 1, got {self.p!r}.")

    def mask(self, rng: np.random.Generator, shape: Shape, dtype: npt.DTypeLike = np.float64) -> Array:
        """Entries 0 with probability p, else 1 / (1 - p), so that the expected output is the input.

        Parameters
        ----------
        rng : numpy.random.Generator
            Draws the zeros.
        shape : tuple of int
            Shape of the layer's input, batch axis included.
        dtype : numpy type, optional
            Type of the layer's input.

        Returns
        -------
        Array, shape `shape`
        """
        return ((rng.random(shape) >= self.p) / (1.0 - self.p)).astype(dtype)

    def output_shape(self, *shapes: Shape) -> Shape:
        """The input's shape."""
        return shapes[0]

    def forward(self, params: Params, *inputs: Array, mode: Mode = "eval") -> tuple[Array, Tape]:
        """The input, times the mask if `params` holds one; the tape is the input's shape and type.

        Raises
        ------
        ValueError
            If the mask's shape is not the input's.
        TypeError
            If the input is not float32 or float64, or the mask's type is not the input's.
        """
        (x,) = inputs
        same_dtype(params, check_float("x", x))
        return self._times(params, x), Spec(x.shape, x.dtype)

    def _times(self, params: Params, x: Array) -> Array:
        if "mask" not in params:
            return x
        check_shape("mask", params["mask"], x.shape)
        return x * params["mask"]

    def backward(
        self, params: Params, dy: Array, tape: Tape, *, wrt_inputs: bool = True, wrt_params: bool = True
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        """The gradient, times the mask; the mask itself has none."""
        check_like("dy", dy, tape)
        return ((self._times(params, dy),) if wrt_inputs else ()), {}

    def jvp(self, params: Params, tape: Tape, dinputs: tuple[Array, ...], dparams: Params) -> Array:
        """The direction, times the mask."""
        check_like("dx", dinputs[0], tape)
        return self._times(params, dinputs[0])

    def lipschitz(self, params: Params, *shapes: Shape) -> tuple[float, ...]:
        """1, or the largest entry of the mask."""
        return (float(np.abs(params["mask"]).max(initial=0.0)) if "mask" in params else 1.0,)
