"""im2col and col2im, an adjoint pair: the definition in plain NumPy, readable against the formula.

The layer `Conv2d` uses compiled kernels that build the patches of one image, or of a few small ones, at a
time in cache; the functions here hold all patches at once, for reading, for tests and for streams of small
batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from refldnq._typing import Array


@dataclass(frozen=True, slots=True)
class Window:
    """Geometry of a sliding window.

    Parameters
    ----------
    kernel, stride, dilation : tuple of int
        (rows, columns), each at least 1.
    padding : tuple of int
        Zeros added at the (top, bottom, left, right), each at least 0.

    Examples
    --------
    >>> Window((3, 3), (2, 2), (1, 1, 1, 1), (1, 1)).output(8, 8)
    (4, 4)
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]

    def output(self, h: int, w: int) -> tuple[int, int]:
        """Rows and columns of the output for an input of h by w pixels; below 1 if the window is larger."""
        top, bottom, left, right = self.padding
        rows = (h + top + bottom - self.dilation[0] * (self.kernel[0] - 1) - 1) // self.stride[0] + 1
        cols = (w + left + right - self.dilation[1] * (self.kernel[1] - 1) - 1) // self.stride[1] + 1
        return rows, cols


def im2col(x: Array, window: Window) -> Array:
    """Patches of `x` in order (c, kh, kw).

    Parameters
    ----------
    x : Array, shape (n, c, h, w)
        Images.
    window : Window
        Geometry.

    Returns
    -------
    Array, shape (n, c * kh * kw, ho * wo)
        Column p of image i is the patch under output position p (row-major).

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(4.0).reshape(1, 1, 2, 2)
    >>> im2col(x, Window((2, 1), (1, 1), (0, 0, 0, 0), (1, 1)))
    array([[[0., 1.],
            [2., 3.]]])
    """
    n, c, h, w = x.shape
    (kh, kw), (sh, sw), (dh, dw) = window.kernel, window.stride, window.dilation
    top, bottom, left, right = window.padding
    ho, wo = window.output(h, w)
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    patches = np.empty((n, c, kh, kw, ho, wo), x.dtype)
    for i in range(kh):
        for j in range(kw):
            rows = slice(i * dh, i * dh + sh * (ho - 1) + 1, sh)
            cols = slice(j * dw, j * dw + sw * (wo - 1) + 1, sw)
            patches[:, :, i, j] = padded[:, :, rows, cols]
    return patches.reshape(n, c * kh * kw, ho * wo)


def col2im(patches: Array, window: Window, shape: tuple[int, int, int]) -> Array:
    """The adjoint of `im2col`: add every patch entry back onto the pixel it came from.

    Parameters
    ----------
    patches : Array, shape (n, c * kh * kw, ho * wo)
        In the order of `im2col`.
    window : Window
        Geometry.
    shape : tuple of int
        (c, h, w) of the images.

    Returns
    -------
    Array, shape (n, c, h, w)

    Examples
    --------
    >>> import numpy as np
    >>> col2im(np.ones((1, 3, 2)), Window((1, 3), (1, 1), (0, 0, 1, 1), (1, 1)), (1, 1, 2))
    array([[[[2., 2.]]]])
    """
    n = patches.shape[0]
    c, h, w = shape
    (kh, kw), (sh, sw), (dh, dw) = window.kernel, window.stride, window.dilation
    top, bottom, left, right = window.padding
    ho, wo = window.output(h, w)
    split = patches.reshape(n, c, kh, kw, ho, wo)
    padded = np.zeros((n, c, h + top + bottom, w + left + right), patches.dtype)
    for i in range(kh):
        for j in range(kw):
            rows = slice(i * dh, i * dh + sh * (ho - 1) + 1, sh)
            cols = slice(j * dw, j * dw + sw * (wo - 1) + 1, sw)
            padded[:, :, rows, cols] += split[:, :, i, j]
    return padded[:, :, top : top + h, left : left + w]
