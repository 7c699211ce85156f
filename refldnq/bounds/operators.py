r"""Certified upper bounds of operator norms: of a convolution as an operator, not of its reshaped kernel.

For a kernel K (one group; the norm of several is the largest) and the operator T of the convolution with any
stride, zero padding and dilation, on images of a given size:

* ``reshaped``: :math:`\|T\|_2 \le \sqrt{c_h c_w}\,\|K\|_2` with K as a (d, m) matrix and c the largest number
  of patches that contain a pixel, per axis: :math:`T = K^\top P` and :math:`P^\top P` is the diagonal of
  those counts.
* ``taps``: :math:`\|T\|_2 \le \sum_x \|K_x\|_2`: a sum of shifts, which have norm at most 1.
* ``row_column``: :math:`\|T\|_2 \le \sqrt{\|T\|_1 \|T\|_\infty}` by the sums of magnitudes.
* ``fourier``: :math:`\|T\|_2 \le \sup_\omega \|\hat K(\omega)\|_2`: padding, stride and dilation make T a
  compression of the infinite convolution. The supremum is bounded by the maximum on a grid, see
  `fourier_bound`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from refldnq._typing import Array, Float64Array, Params, Shape
from refldnq.bounds.rounding import UNIT, gamma, raised
from refldnq.layers import Conv2d, Linear
from refldnq.layers.base import Layer
from refldnq.layers.geometry import largest_cover
from refldnq.layers.norms import spectral_norm_upper

GRID = 16
"""Grid points a degree of the polynomial, per axis; chosen here: it raises the maximum by 2 % an axis."""

_RAISES = 30
"""Attempts of the certificate; the shift grows fourfold each time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvolutionNorms:
    """Upper bounds of a convolution's operator norm, each with its rounding errors counted.

    Parameters
    ----------
    fourier, reshaped, taps, row_column : float
        See the module.
    frobenius : float
        The ``reshaped`` bound with the Frobenius norm of K in place of the spectral one: weaker.
    """

    fourier: float
    reshaped: float
    taps: float
    row_column: float
    frobenius: float

    @property
    def best(self) -> float:
        """The smallest."""
        return min(self.fourier, self.reshaped, self.taps, self.row_column, self.frobenius)


def fourier_bound(kernel: Array) -> float:
    r"""An upper bound of :math:`\sup_\omega \|\hat K(\omega)\|_2` from its values on a grid.

    Parameters
    ----------
    kernel : Array, shape (m, c, kh, kw)
        Finite numbers, taken as exact.

    Returns
    -------
    float
        At least the supremum; above it by at most 4 % for odd kernels, and rounding.

    Notes
    -----
    Let the supremum M be attained at :math:`\omega^*` by unit vectors u, v, so :math:`p = u^*\hat K v` has
    :math:`|p(\omega^*)| = M`. Along one axis and centred, Re(p), turned so that it is M at
    :math:`\omega^*`, is a real trigonometric polynomial of degree d = (k - 1)/2, bounded by M. M. Riesz's
    lemma: :math:`T(\omega^* + s) \ge M\cos(ds)` for :math:`|s| \le \pi/d`. (Otherwise
    :math:`M\cos(ds) - T` has a double zero at 0, one zero more between there and :math:`\pi/d`, and one in
    each other interval between extrema of the cosine: more than 2d.) The nearest of N grid points is at most
    :math:`\pi/N` away, so :math:`M \le \max_{grid}|p| / \cos(\pi d/N)`. For an even kernel d is half an
    integer, and the lemma is applied to :math:`|p|^2`, of degree k - 1. One axis after the other. (Ehlich and
    Zeller 1964 have this estimate; Bernstein's inequality gives the weaker :math:`1 - \pi d/N`.)

    The grid's largest eigenvalue of :math:`\hat K^*\hat K` is certified: floating-point Cholesky of
    :math:`cI - \hat K^*\hat K` runs through at every point, and its backward error is added.

    Examples
    --------
    The sum of all entries of a positive kernel is attained at frequency 0, a grid point:

    >>> import numpy as np
    >>> bound = fourier_bound(np.ones((1, 1, 3, 3)))
    >>> bool(9.0 <= bound <= 9.0 / np.cos(np.pi / 16) ** 2 * (1 + 1e-9))
    True
    """
    k = np.asarray(kernel, dtype=np.float64)
    k = k.transpose(1, 0, 2, 3) if k.shape[0] < k.shape[1] else k
    largest = float(np.abs(k).max(initial=0.0))
    if largest == 0.0:
        return 0.0
    exponent = int(np.frexp(largest)[1])
    k = np.ldexp(k, -exponent)
    m, c, kh, kw = k.shape
    (rows, loss_h), (cols, loss_w) = _axis(kh, half=True), _axis(kw, half=False)
    transformed = np.einsum("ocij,pi->pocj", k, rows, optimize=True)
    transformed = np.einsum("pocj,qj->pqoc", transformed, cols, optimize=True).reshape(-1, m, c)
    grams = transformed.conj().transpose(0, 2, 1) @ transformed
    grams = (grams + grams.conj().transpose(0, 2, 1)) / 2
    squares = (np.abs(transformed) ** 2).sum(axis=(1, 2))
    frobenius = raised(float(squares.max()), m * c + 8)
    # Of the transform: sums of kh kw products with numbers on the unit circle, themselves off by few u.
    error = gamma(4 * (kh * kw + 8 * (kh + kw))) * float(np.linalg.norm(np.abs(k).sum(axis=(2, 3))))
    top = float(np.linalg.eigvalsh(grams)[:, -1].max())
    peak = frobenius
    for attempt in range(_RAISES):
        bound = top * (1.0 + 1e-12 * 4.0**attempt)
        if not bound < frobenius:
            break
        slack = (gamma(4 * m) + 8 * UNIT) * frobenius + 8 * UNIT * (bound + frobenius)
        slack += gamma(4 * (c + 1)) / (1.0 - gamma(4 * (c + 1))) * c * bound * (1.0 + 1e-10)
        try:
            np.linalg.cholesky(bound * np.eye(c) - grams)
        except np.linalg.LinAlgError:
            continue
        peak = bound + slack
        break
    return float(np.ldexp(raised((np.sqrt(peak) + error) / (loss_h * loss_w), 8), exponent))


def _axis(size: int, *, half: bool) -> tuple[Array, float]:
    # The numbers exp(i w x) at the grid's frequencies, and by how much the grid may miss the maximum. Of one
    # axis half the grid is enough: at -w stand the conjugates.
    if size == 1:
        return np.ones((1, 1), np.complex128), 1.0
    odd = size % 2 == 1
    degree = (size - 1) // 2 if odd else size - 1
    points = GRID * degree
    kept = points // 2 + 1 if half else points
    phases = np.outer(2.0 * np.pi / points * np.arange(kept), np.arange(size))
    loss = float(np.cos(np.pi / GRID))
    return np.exp(1j * phases), loss if odd else float(np.sqrt(loss))


def convolution_norms(layer: Conv2d, weight: Array, shape: Shape) -> ConvolutionNorms:
    """Upper bounds of the operator norm of a convolution.

    Parameters
    ----------
    layer : Conv2d
        Geometry.
    weight : Array, shape (out_channels, in_channels / groups, kh, kw)
        The kernel, taken as exact.
    shape : tuple of int
        (c, h, w) of the input.

    Returns
    -------
    ConvolutionNorms

    Examples
    --------
    The printed Frobenius norm of the kernel, 3, is below the true norm on 5x5 pixels, 7.46:

    >>> import numpy as np
    >>> layer = Conv2d(1, 1, 3, padding=1, bias=False)
    >>> norms = convolution_norms(layer, np.ones((1, 1, 3, 3)), (1, 5, 5))
    >>> round(norms.fourier, 2), round(norms.reshaped, 6)
    (9.36, 9.0)
    """
    cover = patch_cover(layer, shape)
    groups = weight.astype(np.float64).reshape(layer.groups, -1, *weight.shape[1:])
    size = groups[0].size
    flat = groups.reshape(layer.groups, groups.shape[1], -1)
    magnitudes = np.abs(groups)
    by_input = float(magnitudes.sum(axis=(1, 3, 4)).max())
    by_output = float(magnitudes.sum(axis=(2, 3, 4)).max())
    kh, kw = weight.shape[2:]
    root = raised(float(np.sqrt(cover)), 1)
    return ConvolutionNorms(
        fourier=max(fourier_bound(group) for group in groups),
        reshaped=raised(root * max(spectral_norm_upper(matrix) for matrix in flat), 2),
        taps=raised(
            max(
                sum(spectral_norm_upper(group[:, :, i, j]) for i in range(kh) for j in range(kw))
                for group in groups
            ),
            kh * kw,
        ),
        row_column=raised(float(np.sqrt(by_input * by_output)), size + 4),
        frobenius=raised(root * max(float(np.linalg.norm(matrix)) for matrix in flat), size + 4),
    )


def patch_cover(layer: Conv2d, shape: Shape) -> int:
    """Largest number of patches that contain a pixel, for an image (c, h, w).

    Examples
    --------
    >>> patch_cover(Conv2d(1, 1, 3, padding=1), (1, 5, 5)), patch_cover(Conv2d(1, 1, 2, stride=2), (1, 4, 4))
    (9, 1)
    """
    _, ho, wo = layer.output_shape(shape)
    window = layer.window
    counts = [
        largest_cover(
            shape[1 + axis],
            out,
            kernel=window.kernel[axis],
            stride=window.stride[axis],
            before=window.padding[2 * axis],
            dilation=window.dilation[axis],
        )
        for axis, out in enumerate((ho, wo))
    ]
    return counts[0] * counts[1]


def operator_norms(layer: Layer, params: Params, *shapes: Shape) -> tuple[float, ...]:
    """For each input a certified Lipschitz constant, the smallest known here.

    Parameters
    ----------
    layer : Layer
        Any layer; batch normalization in eval mode.
    params : mapping of str to Array
        Its arrays.
    *shapes : tuple of int
        Shapes of its inputs, without the batch axis.

    Returns
    -------
    tuple of float

    Examples
    --------
    >>> import numpy as np
    >>> round(operator_norms(Linear(2, 1, bias=False), {"weight": np.array([[3.0, 4.0]])}, (2,))[0], 9)
    5.0
    """
    if isinstance(layer, Conv2d):
        return (convolution_norms(layer, params["weight"], shapes[0]).best,)
    return layer.lipschitz(params, *shapes)


def frobenius_norms(layer: Layer, params: Params, *shapes: Shape) -> tuple[float, ...]:
    r"""As `operator_norms`, with :math:`\sqrt{c_h c_w}\|K\|_F` for weights: what the paper has in mind.

    Examples
    --------
    >>> import numpy as np
    >>> round(frobenius_norms(Linear(2, 2, bias=False), {"weight": np.eye(2)}, (2,))[0], 9)
    1.414213562
    """
    if isinstance(layer, Conv2d | Linear):
        norm = printed_norm(params["weight"])
        cover = patch_cover(layer, shapes[0]) if isinstance(layer, Conv2d) else 1
        return (raised(float(np.sqrt(cover)) * norm, 4),)
    return layer.lipschitz(params, *shapes)


def printed_norm(weight: Array) -> float:
    r"""The paper's :math:`\mathcal A = \|\hat\Theta\|_F`, rounded up.

    Examples
    --------
    >>> import numpy as np
    >>> round(printed_norm(np.ones((1, 1, 3, 3))), 9)
    3.0
    """
    flat: Float64Array = np.asarray(weight, dtype=np.float64).ravel()
    return raised(float(np.linalg.norm(flat)), flat.size)  # [LDNQ] (19)
