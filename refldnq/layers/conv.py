"""Two-dimensional convolution (cross-correlation), with its exact Hessian."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from refldnq._checks import check_float, check_integer, check_shape
from refldnq._kernels.threads import chunks, run_chunks, run_kernel
from refldnq._typing import Array, Float64Array, Params, Shape
from refldnq.im2col import Window, im2col
from refldnq.layers.base import LinearMap, Mode, Spec, Tape, check_like, same_dtype
from refldnq.layers.geometry import largest_cover, pair, sides
from refldnq.layers.norms import spectral_norm_upper

GRAM_COLUMNS = 1024
"""Patches of several small images are multiplied at once, up to about so many (chosen here: at d = 576 and 64
positions H of 500 images takes 338 ms one by one, 180 to 220 from 512 patches on)."""


@dataclass(frozen=True)
class Conv2d(LinearMap):
    r"""Two-dimensional convolution, as deep learning uses the word: no flip of the kernel.

    .. math:: y_{nopq} = b_o + \sum_{c,i,j} w_{ocij}\, x_{n,\,c,\;p s_h + i d_h - t,\;q s_w + j d_w - l}

    with zeros outside the image; c runs over the channels of the group of o.

    Parameters
    ----------
    in_channels, out_channels : int
        Both divisible by `groups`.
    kernel_size : int or tuple of int
        (rows, columns).
    stride, dilation : int or tuple of int, optional
        (rows, columns).
    padding : int or tuple of int, optional
        Zeros at all sides, at the sides of (rows, columns), or at (top, bottom, left, right).
    groups : int, optional
        Number of groups of channels.
    bias : bool, optional
        Whether there is a bias.

    Raises
    ------
    ValueError
        If a number is out of range or the channels are not divisible by `groups`.
    TypeError
        If a number is not an integer.

    Notes
    -----
    Arrays: ``weight`` (out_channels, in_channels / groups, kh, kw) and, with a bias, ``bias``
    (out_channels,). Where there are enough channels, outputs are summed in registers from shifted vectors of
    the padded image; elsewhere one image's patches are built in a buffer that stays in cache and multiplied
    by the packed weight. Which of the two is taken depends on all shapes, the number of images among them,
    never on the number of threads; they differ by rounding.

    Examples
    --------
    The Hessian block of the layer error is (2/n) times the Gram matrix of the patches, in order (c, kh, kw):

    >>> import numpy as np
    >>> layer = Conv2d(1, 1, (1, 2), bias=False)
    >>> x = np.array([[[[1.0, 2.0, 3.0]]]])
    >>> layer.forward({"weight": np.array([[[[1.0, 10.0]]]])}, x)[0]
    array([[[[21., 32.]]]])
    >>> patches = np.array([[1.0, 2.0], [2.0, 3.0]])
    >>> np.array_equal(layer.hessian(x)[0], 2 * patches.T @ patches)
    True
    """

    in_channels: int
    out_channels: int
    kernel_size: int | tuple[int, int]
    stride: int | tuple[int, int] = (1, 1)
    padding: int | tuple[int, int] | tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: int | tuple[int, int] = (1, 1)
    groups: int = 1
    bias: bool = True

    def __post_init__(self) -> None:
        for name in ("in_channels", "out_channels", "groups"):
            object.__setattr__(self, name, check_integer(name, getattr(self, name), at_least=1))
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ValueError(
                f"`groups` must divide the channels ({self.in_channels}, {self.out_channels}), "
                f"got {self.groups}."
            )
        for name in ("kernel_size", "stride", "dilation"):
            object.__setattr__(self, name, pair(name, getattr(self, name), at_least=1))
        object.__setattr__(self, "padding", sides("padding", self.padding))

    @property
    def window(self) -> Window:
        """The sliding window's geometry."""
        return Window(self.kernel_size, self.stride, self.padding, self.dilation)  # type: ignore[arg-type]

    @property
    def patch_size(self) -> int:
        """Entries of a patch of one group, d = (in_channels / groups) kh kw."""
        kh, kw = self.window.kernel
        return self.in_channels // self.groups * kh * kw

    @property
    def _geometry(self) -> tuple[int, ...]:
        window = self.window
        return (*window.kernel, *window.stride, window.padding[0], window.padding[2], *window.dilation)

    def output_shape(self, *shapes: Shape) -> Shape:
        """Shape (out_channels, ho, wo) for an image (in_channels, h, w).

        Raises
        ------
        ValueError
            If the channels differ or the window does not fit into the padded image.
        """
        (shape,) = shapes
        if len(shape) != 3 or shape[0] != self.in_channels:
            raise ValueError(f"`x` must have shape (n, {self.in_channels}, h, w), got (n, {str(shape)[1:]}.")
        ho, wo = self.window.output(shape[1], shape[2])
        if ho < 1 or wo < 1:
            raise ValueError(f"`x` must be at least as large as the window {self.window}, got {shape[1:]}.")
        return self.out_channels, ho, wo

    def parameter_shapes(self) -> dict[str, Shape]:
        """Shapes of ``weight`` and, if there is one, ``bias``."""
        shapes: dict[str, Shape] = {
            "weight": (self.out_channels, self.in_channels // self.groups, *self.window.kernel)
        }
        if self.bias:
            shapes["bias"] = (self.out_channels,)
        return shapes

    def _matrix(self, weight: Array) -> Array:
        # (g, m, d), a view: the kernels multiply it from the left to a patch matrix.
        return np.ascontiguousarray(weight).reshape(
            self.groups, self.out_channels // self.groups, self.patch_size
        )

    def _apply(self, weight: Array, bias: Array, x: Array) -> Array:
        from refldnq._kernels import conv as kernels
        from refldnq._kernels import direct

        y = np.empty((x.shape[0], *self.output_shape(x.shape[1:])), x.dtype)
        matrix, geometry = self._matrix(weight), self._geometry
        if direct.suits_forward(y, self.groups, geometry):
            run_kernel(*direct.forward(x, matrix, bias, y, geometry), x.shape[0])
        else:
            run_kernel(kernels.forward, (x, matrix, bias, y, geometry), x.shape[0], blas=True)
        return y

    def _bias_or_empty(self, params: Params, dtype: np.dtype[Any]) -> Array:
        return params["bias"] if self.bias and "bias" in params else np.empty(0, dtype)

    def forward(self, params: Params, *inputs: Array, mode: Mode = "eval") -> tuple[Array, Tape]:
        """Output (n, out_channels, ho, wo); the tape is the input.

        Raises
        ------
        ValueError
            If the input's shape does not fit.
        TypeError
            If the types of the input and the parameters differ.
        """
        (x,) = inputs
        same_dtype(params, check_float("x", x))
        x = np.ascontiguousarray(x)
        return self._apply(params["weight"], self._bias_or_empty(params, x.dtype), x), x

    def backward(
        self, params: Params, dy: Array, tape: Tape, *, wrt_inputs: bool = True, wrt_params: bool = True
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        """Gradients of the input, ``weight`` and ``bias``."""
        from refldnq._kernels import conv as kernels
        from refldnq._kernels import direct

        x: Array = tape
        check_like("dy", dy, Spec((x.shape[0], *self.output_shape(x.shape[1:])), x.dtype))
        dy = np.ascontiguousarray(dy)
        matrix, geometry = self._matrix(params["weight"]), self._geometry
        dx = np.zeros(x.shape if wrt_inputs else (0, 0, 0, 0), x.dtype)
        # One partial sum a chunk, added in the order of the chunks: the result does not depend on timing.
        parts = max(1, len(chunks(x.shape[0])))
        packed = (self.groups, self.patch_size, matrix.shape[1])
        dweight = np.zeros((parts, *(packed if wrt_params else (0, 0, 0))), x.dtype)
        dbias = np.zeros((parts, self.out_channels if wrt_params and self.bias else 0), x.dtype)
        # What is left to the kernel of patches; an empty array is not computed.
        left = {"dx": dx, "dweight": dweight, "dbias": dbias}
        if wrt_params and direct.suits_weight_gradient(matrix, geometry):
            run_kernel(*direct.weight_gradient(x, dy, dweight, dbias, geometry), x.shape[0])
            left.update(dweight=dweight[..., :0], dbias=dbias[..., :0])
        if wrt_inputs and direct.suits_input_gradient(dx, dy, matrix, geometry):
            run_kernel(*direct.input_gradient(matrix, dy, dx, geometry), x.shape[0])
            left.update(dx=dx[:0])
        if any(array.size for array in left.values()):
            run_kernel(kernels.backward, (x, matrix, dy, *left.values(), geometry), x.shape[0], blas=True)
        grads: dict[str, Array] = {}
        if wrt_params:
            grads["weight"] = self.unpack(dweight.sum(axis=0))["weight"]
            if self.bias:
                grads["bias"] = dbias.sum(axis=0)
        return ((dx,) if wrt_inputs else ()), grads

    def jvp(self, params: Params, tape: Tape, dinputs: tuple[Array, ...], dparams: Params) -> Array:
        """Convolution is linear in the input and in the parameters."""
        (dx,) = dinputs
        x: Array = tape
        check_like("dx", dx, x)
        same_dtype(dparams, x)
        none = np.empty(0, x.dtype)
        dy = self._apply(params["weight"], none, np.ascontiguousarray(dx))
        if "weight" in dparams:
            dy += self._apply(dparams["weight"], none, x)
        if "bias" in dparams:
            dy += dparams["bias"][:, None, None]
        return dy

    def lipschitz(self, params: Params, *shapes: Shape) -> tuple[float, ...]:
        r"""An upper bound of the operator norm, the smaller of two.

        With K the kernel of a group reshaped to (d, m) and c the largest number of patches that contain a
        pixel, per axis, :math:`\|T\|_2 \le \sqrt{c_h c_w}\,\|K\|_2`, since :math:`T = K^\top P` and
        :math:`P^\top P` is the diagonal matrix of those counts; and
        :math:`\|T\|_2 \le \sqrt{\|T\|_1\|T\|_\infty}`. Groups act on disjoint channels: the largest counts.
        """
        _, ho, wo = self.output_shape(*shapes)
        matrix = self._matrix(params["weight"]).astype(np.float64)
        window = self.window
        counts = [
            largest_cover(
                shapes[0][1 + axis],
                out,
                kernel=window.kernel[axis],
                stride=window.stride[axis],
                before=window.padding[2 * axis],
                dilation=window.dilation[axis],
            )
            for axis, out in enumerate((ho, wo))
        ]
        spectral = max(spectral_norm_upper(block) for block in matrix)
        absolute = np.abs(matrix).reshape(*matrix.shape[:2], self.in_channels // self.groups, -1)
        by_input = float(absolute.sum(axis=(1, 3)).max())
        by_output = float(absolute.sum(axis=(2, 3)).max())
        bound = min(np.sqrt(counts[0] * counts[1]) * spectral, np.sqrt(by_input * by_output))
        # The norm is certified; the sums and roots above have relative errors of a few hundred roundings.
        return (float(bound) * (1 + 1e-12),)

    def pack(self, params: Params, *, bias: bool = False) -> Array:
        """The weight as (g, d, m), rows in order (c, kh, kw); with `bias` one more row, last.

        Raises
        ------
        ValueError
            If `bias` is asked for and the layer has none.
        """
        packed = self._matrix(params["weight"]).transpose(0, 2, 1)
        if not bias:
            return np.ascontiguousarray(packed)
        self._check_bias()
        return np.concatenate([packed, params["bias"].reshape(self.groups, 1, -1)], axis=1)

    def unpack(self, packed: Array, *, bias: bool = False) -> dict[str, Array]:
        """The inverse of `pack`.

        Raises
        ------
        ValueError
            If the shape does not fit, or `bias` is asked for and the layer has none.
        """
        d, m = self.patch_size, self.out_channels // self.groups
        check_shape("packed", packed, (self.groups, d + bias, m))
        weight = packed[:, :d].transpose(0, 2, 1).reshape(self.parameter_shapes()["weight"])
        arrays = {"weight": np.ascontiguousarray(weight)}
        if bias:
            self._check_bias()
            arrays["bias"] = packed[:, d].reshape(-1).copy()
        return arrays

    def _check_bias(self) -> None:
        if not self.bias:
            raise ValueError("`bias` must be False for a layer without a bias, got True.")

    def patches(self, x: Array) -> Array:
        """All patches of all images as columns, (g, d, n ho wo), at once.

        Raises
        ------
        ValueError
            If the input's shape does not fit.
        """
        _, ho, wo = self.output_shape(x.shape[1:])
        columns = im2col(x, self.window).reshape(x.shape[0], self.groups, self.patch_size, ho * wo)
        return columns.transpose(1, 2, 0, 3).reshape(self.groups, self.patch_size, x.shape[0] * ho * wo)

    def gram(self, x: Array, *, bias: bool = False) -> Float64Array:
        """Sum of the outer products of all patches of all images, one block a group, in float64.

        Raises
        ------
        ValueError
            If the input's shape does not fit.
        """
        from refldnq._kernels import conv as kernels

        x = np.ascontiguousarray(x)
        n, d = x.shape[0], self.patch_size
        _, ho, wo = self.output_shape(x.shape[1:])
        parts = max(1, len(chunks(n)))
        blocks = np.zeros((parts, self.groups, d, d))
        sums = np.zeros((parts, self.groups, d))
        channels, area = self.in_channels // self.groups, ho * wo

        def add(part: int, start: int, stop: int) -> None:
            share = np.empty((d, d))
            together = min(max(1, GRAM_COLUMNS // area), stop - start)
            buffer = np.empty(d * together * area)
            for first in range(start, stop, together):
                images = x[first : min(first + together, stop)]
                patches = buffer[: d * len(images) * area].reshape(d, -1)
                for g in range(self.groups):
                    for i, image in enumerate(images):
                        kernels.patches_of(
                            image, g * channels, channels, self._geometry, ho, wo, patches, i * area
                        )
                    # A matrix times its own transpose: NumPy has BLAS compute one triangle alone.
                    blocks[part, g] += np.dot(patches, patches.T, out=share)
                    sums[part, g] += patches.sum(axis=1)

        run_chunks(add, n, blas=True)
        gram: Float64Array = blocks.sum(axis=0)
        gram = (gram + gram.transpose(0, 2, 1)) / 2  # exactly symmetric, whatever the BLAS rounds
        if not bias:
            return gram
        total = sums.sum(axis=0)
        augmented = np.empty((self.groups, d + 1, d + 1))
        augmented[:, :d, :d] = gram
        augmented[:, d, :d] = augmented[:, :d, d] = total
        augmented[:, d, d] = n * ho * wo
        return augmented
