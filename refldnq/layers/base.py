"""What every layer is: a pure function of its inputs and parameters with hand-written derivatives.

Index conventions, the same in every file of this package:

``n`` images, ``c`` channels, ``h`` rows, ``w`` columns (NCHW); ``k`` classes or features;
``g`` groups, ``d`` rows of a packed weight in order (c, kh, kw) with the bias row last, ``m`` output units.

A layer object holds hyper-parameters only. Arrays come in as arguments, so a network can replace the
weights of one layer without touching any other, and nothing is hidden between a forward and a backward call:
what the derivative needs leaves `forward` as its second result, the tape.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from refldnq._checks import check_integer, check_shape
from refldnq._typing import Array, Float64Array, Params, Shape

Mode = Literal["eval", "train"]
Tape = Any
"""What one forward call leaves for backward and jvp; its content is the layer's own business."""


@dataclass(frozen=True, slots=True)
class Spec:
    """Shape and type of an array: the tape of a layer whose derivative needs no number of its input.

    Parameters
    ----------
    shape : tuple of int
        Its shape.
    dtype : numpy.dtype
        Its type.
    """

    shape: Shape
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class Layer(ABC):
    """One operation of a network.

    Subclasses are final. Shapes given to and returned by `output_shape`, `parameter_shapes` and
    `lipschitz` are those of one image, without the batch axis.
    """

    @property
    def arity(self) -> int | None:
        """Number of inputs; None if any number of at least one is allowed."""
        return 1

    @abstractmethod
    def output_shape(self, *shapes: Shape) -> Shape:
        """Shape of the output for inputs of the given shapes, without the batch axis."""

    @abstractmethod
    def forward(self, params: Params, *inputs: Array, mode: Mode = "eval") -> tuple[Array, Tape]:
        """The output and the tape.

        Raises
        ------
        ValueError
            If the shape of an input does not fit.
        TypeError
            If an input is not float32 or float64, or types differ.
        """

    @abstractmethod
    def backward(
        self, params: Params, dy: Array, tape: Tape, *, wrt_inputs: bool = True, wrt_params: bool = True
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        """The vector-Jacobian product of `dy` at the tape's point: inputs, then parameters by name.

        What is not asked for is returned empty.

        Raises
        ------
        ValueError
            If `dy` has not the output's shape.
        TypeError
            If its type is not the input's.
        """

    @abstractmethod
    def jvp(self, params: Params, tape: Tape, dinputs: tuple[Array, ...], dparams: Params) -> Array:
        """The Jacobian-vector product at the tape's point; parameters absent from `dparams` stand still.

        Raises
        ------
        ValueError
            If a direction of an input has not its shape.
        TypeError
            If the type of a direction is not the input's.
        """

    def parameter_shapes(self) -> dict[str, Shape]:
        """Shape of every array the layer owns, running statistics included."""
        return {}

    @property
    def buffers(self) -> tuple[str, ...]:
        """Names of arrays that no gradient moves (running statistics)."""
        return ()

    def new_statistics(self, params: Params, tape: Tape) -> dict[str, Array]:
        """The buffers after a forward call in train mode; empty for a layer without buffers."""
        return {}

    @abstractmethod
    def lipschitz(self, params: Params, *shapes: Shape) -> tuple[float, ...]:
        r"""For each input an upper bound of the layer's :math:`\ell_2` Lipschitz constant in it."""


@dataclass(frozen=True)
class LinearMap(Layer, ABC):
    """A layer that is linear in its weight: what the paper quantizes.

    With the design matrix X (rows are samples or patches) and the packed weight W, the pre-activation is
    Z = X W in every group, so the layer error (8) is a quadratic form in W whose Hessian is exactly
    H = (2/n) XᵀX, one block for all columns of a group.
    """

    @abstractmethod
    def pack(self, params: Params, *, bias: bool = False) -> Array:
        """The weight as (g, d, m): rows in order (c, kh, kw), with `bias` one more row, last."""

    @abstractmethod
    def unpack(self, packed: Array, *, bias: bool = False) -> dict[str, Array]:
        """The inverse of `pack`: arrays by name."""

    @abstractmethod
    def gram(self, x: Array, *, bias: bool = False) -> Float64Array:
        """Sum over all images and positions of the outer products of patches, (g, d, d), in float64."""

    @abstractmethod
    def patches(self, x: Array) -> Array:
        """The design matrix, transposed: (g, d, rows), rows in order of images, then positions."""

    def hessian(self, x: Array, *, bias: bool = False) -> Float64Array:
        r"""The exact Hessian block of the layer error (8), one a group.

        Parameters
        ----------
        x : Array, shape (n, ...)
            The layer's input.
        bias : bool, optional
            Whether the bias is a row of the weight (a constant 1 in every patch).

        Returns
        -------
        Array, shape (g, d, d), float64
            :math:`H = \frac2n X^\top X` with n the number of *images*.

        Raises
        ------
        ValueError
            If `x` holds no image.
        """
        n = check_integer("n", x.shape[0], at_least=1)
        return (2.0 / n) * self.gram(x, bias=bias)  # [LDNQ] (8)-(10)


def same_dtype(params: Params, x: Array | Spec) -> None:
    """Refuse parameters of another type than the input: a silent cast would hide a slow or lossy path.

    Raises
    ------
    TypeError
        If an array of `params` and `x` differ in type.
    """
    for name, array in params.items():
        if array.dtype != x.dtype:
            raise TypeError(f"`{name}` must have the input's type {x.dtype}, got {array.dtype}.")


def check_like(name: str, array: Array, like: Array | Spec) -> None:
    """Refuse a gradient or a direction of another shape or type: `same_dtype`'s reason holds for them, too.

    Raises
    ------
    ValueError
        If the shapes differ.
    TypeError
        If the types differ.

    Examples
    --------
    >>> import numpy as np
    >>> check_like("dy", np.zeros(2), Spec((2,), np.dtype(np.float32)))
    Traceback (most recent call last):
        ...
    TypeError: `dy` must have the input's type float32, got float64.
    """
    check_shape(name, array, like.shape)
    same_dtype({name: array}, like)


def he_normal(
    rng: np.random.Generator, shape: Shape, fan_in: int, dtype: npt.DTypeLike = np.float64
) -> Array:
    """Gaussian weights of variance 2 / `fan_in` (He et al. 2015, "Delving Deep into Rectifiers", eq. 10).

    Examples
    --------
    >>> import numpy as np
    >>> he_normal(np.random.default_rng(0), (3, 2), fan_in=2).shape
    (3, 2)
    """
    kind: Any = np.dtype(dtype)
    weight: Array = rng.standard_normal(shape, dtype=kind)
    weight *= kind.type(np.sqrt(2.0 / fan_in))
    return weight
