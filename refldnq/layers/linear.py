"""Fully connected layer, with its exact Hessian."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from refldnq._checks import check_float, check_integer, check_shape
from refldnq._typing import Array, Float64Array, Params, Shape
from refldnq.layers.base import LinearMap, Mode, Spec, Tape, check_like, same_dtype
from refldnq.layers.geometry import batched
from refldnq.layers.norms import spectral_norm_upper


@dataclass(frozen=True)
class Linear(LinearMap):
    r"""Fully connected layer, :math:`y = W x + b` for every image.

    Parameters
    ----------
    in_features, out_features : int
        Lengths of x and y.
    bias : bool, optional
        Whether there is a bias.

    Raises
    ------
    ValueError
        If a number is below 1.
    TypeError
        If a number is not an integer.

    Notes
    -----
    Arrays: ``weight`` (out_features, in_features) and, with a bias, ``bias`` (out_features,). The packed
    weight is the transpose, so that Z = X W holds with images as the rows of X.

    Examples
    --------
    The Hessian block of the layer error is (2/n) XᵀX, the same for every output:

    >>> import numpy as np
    >>> layer = Linear(2, 1)
    >>> x = np.array([[1.0, 0.0], [2.0, 1.0]])
    >>> layer.forward({"weight": np.array([[3.0, 4.0]]), "bias": np.array([1.0])}, x)[0]
    array([[ 4.],
           [11.]])
    >>> layer.hessian(x)[0]
    array([[5., 2.],
           [2., 1.]])
    >>> layer.hessian(x, bias=True)[0]
    array([[5., 2., 3.],
           [2., 1., 1.],
           [3., 1., 2.]])
    """

    in_features: int
    out_features: int
    bias: bool = True

    def __post_init__(self) -> None:
        for name in ("in_features", "out_features"):
            object.__setattr__(self, name, check_integer(name, getattr(self, name), at_least=1))

    def output_shape(self, *shapes: Shape) -> Shape:
        """Shape (out_features,).

        Raises
        ------
        ValueError
            If the input's shape is not (in_features,).
        """
        (shape,) = shapes
        if shape != (self.in_features,):
            raise ValueError(f"`x` must have shape (n, {self.in_features}), got {batched(shape)}.")
        return (self.out_features,)

    def parameter_shapes(self) -> dict[str, Shape]:
        """Shapes of ``weight`` and, if there is one, ``bias``."""
        shapes: dict[str, Shape] = {"weight": (self.out_features, self.in_features)}
        if self.bias:
            shapes["bias"] = (self.out_features,)
        return shapes

    def forward(self, params: Params, *inputs: Array, mode: Mode = "eval") -> tuple[Array, Tape]:
        """Output (n, out_features); the tape is the input.

        Raises
        ------
        ValueError
            If the input's shape does not fit.
        TypeError
            If the types of the input and the parameters differ.
        """
        (x,) = inputs
        same_dtype(params, check_float("x", x))
        self.output_shape(x.shape[1:])
        y = x @ params["weight"].T
        if self.bias:
            y += params["bias"]
        return y, x

    def backward(
        self, params: Params, dy: Array, tape: Tape, *, wrt_inputs: bool = True, wrt_params: bool = True
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        """Gradients of the input, ``weight`` and ``bias``."""
        x: Array = tape
        check_like("dy", dy, Spec((x.shape[0], self.out_features), x.dtype))
        grads: dict[str, Array] = {}
        if wrt_params:
            grads["weight"] = dy.T @ x
            if self.bias:
                grads["bias"] = dy.sum(axis=0)
        return ((dy @ params["weight"],) if wrt_inputs else ()), grads

    def jvp(self, params: Params, tape: Tape, dinputs: tuple[Array, ...], dparams: Params) -> Array:
        """The layer is linear in the input and in the parameters."""
        (dx,) = dinputs
        check_like("dx", dx, tape)
        same_dtype(dparams, tape)
        dy: Array = dx @ params["weight"].T
        if "weight" in dparams:
            dy += tape @ dparams["weight"].T
        if "bias" in dparams:
            dy += dparams["bias"]
        return dy

    def lipschitz(self, params: Params, *shapes: Shape) -> tuple[float, ...]:
        """The spectral norm of the weight, as a certified upper bound."""
        return (spectral_norm_upper(params["weight"]),)

    def pack(self, params: Params, *, bias: bool = False) -> Array:
        """The weight as (1, in_features, out_features); with `bias` one more row, last.

        Raises
        ------
        ValueError
            If `bias` is asked for and the layer has none.
        """
        packed = np.ascontiguousarray(params["weight"].T)[None]
        if not bias:
            return packed
        self._check_bias()
        return np.concatenate([packed, params["bias"].reshape(1, 1, -1)], axis=1)

    def unpack(self, packed: Array, *, bias: bool = False) -> dict[str, Array]:
        """The inverse of `pack`.

        Raises
        ------
        ValueError
            If the shape does not fit, or `bias` is asked for and the layer has none.
        """
        check_shape("packed", packed, (1, self.in_features + bias, self.out_features))
        arrays = {"weight": np.ascontiguousarray(packed[0, : self.in_features].T)}
        if bias:
            self._check_bias()
            arrays["bias"] = packed[0, self.in_features].copy()
        return arrays

    def _check_bias(self) -> None:
        if not self.bias:
            raise ValueError("`bias` must be False for a layer without a bias, got True.")

    def patches(self, x: Array) -> Array:
        """The inputs as columns, (1, d, n).

        Raises
        ------
        ValueError
            If the input's shape does not fit.
        """
        self.output_shape(x.shape[1:])
        return x.T[None]

    def gram(self, x: Array, *, bias: bool = False) -> Float64Array:
        """Sum of the outer products of all inputs, (1, d, d), in float64.

        Raises
        ------
        ValueError
            If the input's shape does not fit.
        """
        self.output_shape(x.shape[1:])
        rows = x.astype(np.float64)
        if bias:
            rows = np.concatenate([rows, np.ones((x.shape[0], 1))], axis=1)
        gram = rows.T @ rows
        return np.asarray((gram + gram.T) / 2)[None]  # exactly symmetric, whatever the BLAS rounds
