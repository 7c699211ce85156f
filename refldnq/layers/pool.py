"""What max- and average-pooling share: a window that slides over every channel."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass

import numpy as np

from refldnq._checks import check_float
from refldnq._typing import Array, Shape
from refldnq.layers.base import Layer
from refldnq.layers.geometry import check_image, largest_cover, pair, sides

GRAIN = 16
"""Least number of planes a thread; chosen here: below it, starting a thread costs more than it saves."""


@dataclass(frozen=True)
class Pool2d(Layer, ABC):
    """Geometry of a pooling layer.

    Parameters
    ----------
    kernel_size : int or tuple of int
        (rows, columns).
    stride : int or tuple of int, optional
        (rows, columns); None means `kernel_size`.
    padding : int or tuple of int, optional
        All sides, the sides of (rows, columns), or (top, bottom, left, right); each smaller than the window,
        so that every window holds a pixel.
    ceil_mode : bool, optional
        Whether a last window counts that reaches beyond the padded image by less than the stride, provided
        that it starts inside the image or in the padding before it (PyTorch's rule).

    Raises
    ------
    ValueError
        If a number is out of range.
    TypeError
        If a number is not an integer.
    """

    kernel_size: int | tuple[int, int]
    stride: int | tuple[int, int] | None = None
    padding: int | tuple[int, int] | tuple[int, int, int, int] = (0, 0, 0, 0)
    ceil_mode: bool = False

    def __post_init__(self) -> None:
        kernel = pair("kernel_size", self.kernel_size, at_least=1)
        object.__setattr__(self, "kernel_size", kernel)
        stride = kernel if self.stride is None else pair("stride", self.stride, at_least=1)
        object.__setattr__(self, "stride", stride)
        padding = sides("padding", self.padding)
        object.__setattr__(self, "padding", padding)
        if max(padding[:2]) >= kernel[0] or max(padding[2:]) >= kernel[1]:
            raise ValueError(f"`padding` must be smaller than the window {kernel}, got {padding}.")

    def _axes(self) -> tuple[tuple[int, int, int, int], tuple[int, int, int, int]]:
        # Of rows and of columns: kernel, stride, padding before, padding after.
        (kh, kw), (sh, sw) = self.kernel_size, self.stride  # type: ignore[misc]
        top, bottom, left, right = self.padding  # type: ignore[misc]
        return (kh, sh, top, bottom), (kw, sw, left, right)

    @property
    def geometry(self) -> tuple[int, int, int, int, int, int]:
        """Numbers that the kernels take: (kh, kw, sh, sw, top, left)."""
        (kh, sh, top, _), (kw, sw, left, _) = self._axes()
        return kh, kw, sh, sw, top, left

    def output_shape(self, *shapes: Shape) -> Shape:
        """Shape (c, ho, wo) for an image (c, h, w).

        Raises
        ------
        ValueError
            If the number of axes differs or the window does not fit into the padded image.
        """
        (shape,) = shapes
        check_image(shape)
        rows, cols = self._axes()
        ho, wo = self._positions(shape[1], *rows), self._positions(shape[2], *cols)
        if ho < 1 or wo < 1:
            raise ValueError(
                f"`x` with padding {self.padding} must be as large as the window {self.kernel_size}, "
                f"got {shape[1:]}."
            )
        return shape[0], ho, wo

    def _positions(self, size: int, kernel: int, stride: int, before: int, after: int) -> int:
        if size < 1:
            return 0
        free = size + before + after - kernel
        if not self.ceil_mode:
            return free // stride + 1
        count = -(-free // stride) + 1
        return count - 1 if (count - 1) * stride >= size + before else count

    def _admit(self, x: Array) -> tuple[Array, Array]:
        # The input as planes (n c, h, w), and room for the output.
        check_float("x", x)
        shape = (x.shape[0], *self.output_shape(x.shape[1:]))
        return np.ascontiguousarray(x).reshape(-1, *x.shape[2:]), np.empty(shape, x.dtype)

    def covers(self, shape: Shape) -> tuple[int, int]:
        """Largest number of windows that contain one row of pixels, and one column, for an image (c, h, w).

        Examples
        --------
        >>> from refldnq.layers import MaxPool2d
        >>> MaxPool2d(3, stride=2).covers((1, 7, 7))
        (2, 2)
        """
        _, ho, wo = self.output_shape(shape)
        (kh, sh, top, _), (kw, sw, left, _) = self._axes()
        return (
            largest_cover(shape[1], ho, kernel=kh, stride=sh, before=top),
            largest_cover(shape[2], wo, kernel=kw, stride=sw, before=left),
        )
