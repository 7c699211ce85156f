"""Every layer as its definition says, in loops.

Nothing here is fast. Entries may be floats, integers or `fractions.Fraction` (arrays of objects), so
identities can be checked with ``==``. Shapes are those of `refldnq.layers`: images (n, c, h, w), weights
(out, in) or (out, in / groups, kh, kw), padding (top, bottom, left, right).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Pair = tuple[int, int]
Sides = tuple[int, int, int, int]


def _zeros(shape: tuple[int, ...], like: Array) -> Array:
    # Zeros of an array's type; zeros of an array of objects are the integer 0, which adds to any number.
    return np.zeros(shape, dtype=like.dtype)


def _pixel(image: Array, row: int, col: int) -> Any:
    # A pixel of one channel, zero outside.
    inside = 0 <= row < image.shape[0] and 0 <= col < image.shape[1]
    return image[row, col] if inside else 0


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """Return y[i, o] = sum over k of weight[o, k] x[i, k], plus bias[o].

    Examples
    --------
    >>> linear(np.array([[1, 2]]), np.array([[3, 4]]), np.array([5]))
    array([[16]])
    """
    n, out = x.shape[0], weight.shape[0]
    y = _zeros((n, out), x)
    for i in range(n):
        for o in range(out):
            for k in range(x.shape[1]):
                y[i, o] += weight[o, k] * x[i, k]
            if bias is not None:
                y[i, o] += bias[o]
    return y


def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: Pair = (1, 1),
    padding: Sides = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Array:
    """Cross-correlation with zeros outside the image, seven loops.

    Examples
    --------
    >>> conv2d(np.array([[[[1, 2, 3]]]]), np.array([[[[1, 10]]]]), padding=(0, 0, 1, 0))
    array([[[[10, 21, 32]]]])
    """
    n, channels, h, w = x.shape
    out, per_group, kh, kw = weight.shape
    top, bottom, left, right = padding
    ho = (h + top + bottom - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    wo = (w + left + right - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    y = _zeros((n, out, ho, wo), x)
    for i in range(n):
        for o in range(out):
            first = (o // (out // groups)) * (channels // groups)
            for p in range(ho):
                for q in range(wo):
                    for c in range(per_group):
                        for a in range(kh):
                            for b in range(kw):
                                row = p * stride[0] + a * dilation[0] - top
                                col = q * stride[1] + b * dilation[1] - left
                                y[i, o, p, q] += weight[o, c, a, b] * _pixel(x[i, first + c], row, col)
                    if bias is not None:
                        y[i, o, p, q] += bias[o]
    return y


def patch(
    x: Array,
    i: int,
    group: int,
    p: int,
    q: int,
    *,
    kernel: Pair,
    stride: Pair,
    padding: Sides,
    dilation: Pair,
    groups: int,
) -> list[Any]:
    """The patch of image i under output position (p, q) in one group of channels, in order (c, kh, kw).

    Examples
    --------
    >>> x = np.array([[[[1, 2], [3, 4]]]])
    >>> patch(x, 0, 0, 0, 1, kernel=(2, 1), stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), groups=1)
    [np.int64(2), np.int64(4)]
    """
    channels = x.shape[1] // groups
    entries = []
    for c in range(group * channels, (group + 1) * channels):
        for a in range(kernel[0]):
            for b in range(kernel[1]):
                row = p * stride[0] + a * dilation[0] - padding[0]
                col = q * stride[1] + b * dilation[1] - padding[2]
                entries.append(_pixel(x[i, c], row, col))
    return entries


def relu(x: Array) -> Array:
    """The larger of each number and 0.

    Examples
    --------
    >>> relu(np.array([-1, 2]))
    array([0, 2])
    """
    y = _zeros(x.shape, x)
    for index in np.ndindex(x.shape):
        y[index] = x[index] if x[index] > 0 else 0
    return y


def batch_moments(x: Array) -> tuple[Array, Array]:
    """Mean and biased variance of every channel of (n, c) or (n, c, h, w).

    Examples
    --------
    >>> batch_moments(np.array([[1.0], [3.0]]))
    (array([2.]), array([1.]))
    """
    mean, variance = _zeros((x.shape[1],), x), _zeros((x.shape[1],), x)
    for c in range(x.shape[1]):
        values = list(x[:, c].flat)
        mean[c] = sum(values) / len(values)
        variance[c] = sum((value - mean[c]) ** 2 for value in values) / len(values)
    return mean, variance


def batch_norm(x: Array, weight: Array, bias: Array, mean: Array, variance: Array, eps: float) -> Array:
    """Return weight (x - mean) / sqrt(variance + eps) + bias, channel by channel.

    Examples
    --------
    >>> ones = np.ones(1)
    >>> batch_norm(np.array([[3.0]]), 2 * ones, ones, ones, 3 * ones, 1.0)
    array([[3.]])
    """
    y = _zeros(x.shape, x)
    for index in np.ndindex(x.shape):
        c = index[1]
        y[index] = weight[c] * (x[index] - mean[c]) / np.sqrt(variance[c] + eps) + bias[c]
    return y


def batch_norm_statistics(
    x: Array, running_mean: Array, running_var: Array, momentum: float
) -> tuple[Array, Array]:
    """The running statistics after a batch: they move towards its mean and its *unbiased* variance.

    Examples
    --------
    >>> batch_norm_statistics(np.array([[1.0], [3.0]]), np.zeros(1), np.zeros(1), 0.5)
    (array([1.]), array([1.]))
    """
    mean, variance = batch_moments(x)
    count = x.size // x.shape[1]
    new_mean, new_var = _zeros(running_mean.shape, x), _zeros(running_var.shape, x)
    for c in range(x.shape[1]):
        new_mean[c] = (1 - momentum) * running_mean[c] + momentum * mean[c]
        new_var[c] = (1 - momentum) * running_var[c] + momentum * variance[c] * count / (count - 1)
    return new_mean, new_var


def pool_positions(size: int, kernel: int, stride: int, before: int, after: int, ceil_mode: bool) -> int:
    """Number of windows along one axis, counted one by one.

    A window counts if it ends inside the padded image; with `ceil_mode` also if it reaches beyond by less
    than the stride, provided that it starts inside the image or the padding before it.

    Examples
    --------
    >>> pool_positions(4, 3, 2, 0, 0, False), pool_positions(4, 3, 2, 0, 0, True)
    (1, 2)
    """
    end = size + before + after
    count = 0
    while True:
        start = count * stride
        whole = start + kernel <= end
        cut = ceil_mode and start + kernel < end + stride and start < size + before
        if not (whole or cut):
            return count
        count += 1


def _windows(
    shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Sides, ceil_mode: bool
) -> tuple[int, int]:
    top, bottom, left, right = padding
    ho = pool_positions(shape[2], kernel[0], stride[0], top, bottom, ceil_mode)
    wo = pool_positions(shape[3], kernel[1], stride[1], left, right, ceil_mode)
    return ho, wo


def max_pool2d(
    x: Array, *, kernel: Pair, stride: Pair, padding: Sides = (0, 0, 0, 0), ceil_mode: bool = False
) -> tuple[Array, Array]:
    """The largest pixel of each window and its (row, column); of equal ones the first in row-major order.

    Examples
    --------
    >>> y, place = max_pool2d(np.array([[[[1, 2, 2]]]]), kernel=(1, 3), stride=(1, 1))
    >>> y, place
    (array([[[[2]]]]), array([[[[[0, 1]]]]]))
    """
    n, channels, h, w = x.shape
    ho, wo = _windows(x.shape, kernel, stride, padding, ceil_mode)
    y, place = _zeros((n, channels, ho, wo), x), np.zeros((n, channels, ho, wo, 2), dtype=np.int64)
    for i, c, p, q in np.ndindex(y.shape):
        found = False
        for a in range(kernel[0]):
            for b in range(kernel[1]):
                row, col = p * stride[0] + a - padding[0], q * stride[1] + b - padding[2]
                if not (0 <= row < h and 0 <= col < w):
                    continue
                if not found or x[i, c, row, col] > y[i, c, p, q]:
                    y[i, c, p, q], place[i, c, p, q], found = x[i, c, row, col], (row, col), True
    return y, place


def avg_pool2d(
    x: Array,
    *,
    kernel: Pair,
    stride: Pair,
    padding: Sides = (0, 0, 0, 0),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Array:
    """The sum of each window's pixels over the number of its places that count.

    Places beyond the padded image never count; places in the padding do with `count_include_pad`.

    Examples
    --------
    >>> avg_pool2d(np.array([[[[2.0, 4.0]]]]), kernel=(1, 2), stride=(1, 1), padding=(0, 0, 1, 0))
    array([[[[1., 3.]]]])
    """
    n, channels, h, w = x.shape
    top, bottom, left, right = padding
    ho, wo = _windows(x.shape, kernel, stride, padding, ceil_mode)
    y = _zeros((n, channels, ho, wo), x)
    for i, c, p, q in np.ndindex(y.shape):
        count = 0
        for a in range(kernel[0]):
            for b in range(kernel[1]):
                row, col = p * stride[0] + a - top, q * stride[1] + b - left
                inside = 0 <= row < h and 0 <= col < w
                padded = -top <= row < h + bottom and -left <= col < w + right
                if inside:
                    y[i, c, p, q] += x[i, c, row, col]
                if inside or (padded and count_include_pad):
                    count += 1
        y[i, c, p, q] = y[i, c, p, q] / count
    return y


def global_avg_pool(x: Array) -> Array:
    """The mean pixel of every channel, (n, c, 1, 1).

    Examples
    --------
    >>> global_avg_pool(np.array([[[[1.0, 3.0]]]]))
    array([[[[2.]]]])
    """
    n, channels, h, w = x.shape
    y = _zeros((n, channels, 1, 1), x)
    for i, c, row, col in np.ndindex(x.shape):
        y[i, c, 0, 0] += x[i, c, row, col]
    for i, c in np.ndindex(n, channels):
        y[i, c, 0, 0] = y[i, c, 0, 0] / (h * w)
    return y


def flatten(x: Array) -> Array:
    """Entry (c, row, col) of an image goes to place (c h + row) w + col.

    Examples
    --------
    >>> flatten(np.array([[[[1, 2]], [[3, 4]]]]))
    array([[1, 2, 3, 4]])
    """
    n, channels, h, w = x.shape
    y = _zeros((n, channels * h * w), x)
    for i, c, row, col in np.ndindex(x.shape):
        y[i, (c * h + row) * w + col] = x[i, c, row, col]
    return y


def add(*inputs: Array) -> Array:
    """The sum, from left to right.

    Examples
    --------
    >>> add(np.array([1]), np.array([2]), np.array([3]))
    array([6])
    """
    y = _zeros(inputs[0].shape, inputs[0])
    for index in np.ndindex(y.shape):
        total = inputs[0][index]
        for x in inputs[1:]:
            total = total + x[index]
        y[index] = total
    return y


def concat(*inputs: Array) -> Array:
    """Channels of the first input, then of the second, and so on.

    Examples
    --------
    >>> concat(np.array([[1, 2]]), np.array([[3]]))
    array([[1, 2, 3]])
    """
    n, rest = inputs[0].shape[0], inputs[0].shape[2:]
    y = _zeros((n, sum(x.shape[1] for x in inputs), *rest), inputs[0])
    first = 0
    for x in inputs:
        for index in np.ndindex(x.shape):
            i, c, *position = index
            y[(i, first + c, *position)] = x[index]
        first += x.shape[1]
    return y


def zero_pad2d(x: Array, padding: Sides) -> Array:
    """Every pixel moved down by `top` and right by `left` in a larger image of zeros.

    Examples
    --------
    >>> zero_pad2d(np.array([[[[7]]]]), (1, 0, 0, 1))
    array([[[[0, 0],
             [7, 0]]]])
    """
    n, channels, h, w = x.shape
    top, bottom, left, right = padding
    y = _zeros((n, channels, h + top + bottom, w + left + right), x)
    for i, c, row, col in np.ndindex(x.shape):
        y[i, c, row + top, col + left] = x[i, c, row, col]
    return y


def subsample_shortcut(x: Array, out_channels: int, stride: Pair) -> Array:
    """Every s-th pixel; half of the new channels (rounded down), all zero, come first.

    Examples
    --------
    >>> subsample_shortcut(np.array([[[[1, 2, 3]]]]), 2, (1, 2))
    array([[[[1, 3]],
    <BLANKLINE>
            [[0, 0]]]])
    """
    n, channels, h, w = x.shape
    before = (out_channels - channels) // 2
    ho, wo = len(range(0, h, stride[0])), len(range(0, w, stride[1]))
    y = _zeros((n, out_channels, ho, wo), x)
    for i, c, p, q in np.ndindex(n, channels, ho, wo):
        y[i, before + c, p, q] = x[i, c, p * stride[0], q * stride[1]]
    return y


def dropout(x: Array, mask: Array | None = None) -> Array:
    """The input, times the mask if there is one.

    Examples
    --------
    >>> dropout(np.array([1, 2]), np.array([0, 2]))
    array([0, 4])
    """
    y = _zeros(x.shape, x)
    for index in np.ndindex(x.shape):
        y[index] = x[index] if mask is None else x[index] * mask[index]
    return y


def layer_error(forward: Callable[[Array], Array], theta: Array, delta: Array) -> Any:
    """The layer error (8): squared change of the output when the weights move by `delta`, per image.

    Parameters
    ----------
    forward : callable
        From the layer's parameters, in any shape, to its output (n, ...).
    theta, delta : Array
        Parameters and their change.

    Returns
    -------
    number
        Of the arrays' type.

    Examples
    --------
    >>> x = np.array([[1, 2]])
    >>> layer_error(lambda w: linear(x, w), np.array([[3, 4]]), np.array([[1, 1]]))
    np.float64(9.0)
    """
    before, after = forward(theta), forward(theta + delta)
    total: Any = 0
    for index in np.ndindex(before.shape):
        total += (after[index] - before[index]) ** 2
    return total / before.shape[0]  # [LDNQ] (8)


def second_differences(error: Callable[[Array], Any], shape: Sequence[int], one: Any = 1) -> Array:
    """The Hessian of a quadratic form by its definition, E(a + b) - E(a) - E(b) + E(0) for unit vectors a, b.

    Parameters
    ----------
    error : callable
        From a change of the parameters to a number; quadratic, or the result is not a Hessian.
    shape : sequence of int
        Shape of the parameters.
    one : number, optional
        The 1 of the numbers' type, say ``Fraction(1)``: with it, nothing is rounded.

    Returns
    -------
    Array, shape (p, p)
        Row-major order of the parameters; of objects.

    Examples
    --------
    >>> second_differences(lambda d: d[0] ** 2 + 3 * d[0] * d[1], (2,))
    array([[2, 3],
           [3, 0]], dtype=object)
    """
    size = int(np.prod(shape))

    def unit(*places: int) -> Array:
        flat = np.array([0 * one] * size, dtype=object)
        for place in places:
            flat[place] += one
        return flat.reshape(shape)

    zero = error(unit())
    single = [error(unit(a)) for a in range(size)]
    hessian = np.empty((size, size), dtype=object)
    for a in range(size):
        for b in range(size):
            hessian[a, b] = error(unit(a, b)) - single[a] - single[b] + zero  # [LDNQ] (9)
    return hessian


def linear_hessian(x: Array, *, bias: bool = False) -> Array:
    """H[r, s] = (2/n) times the sum over images of x[i, r] x[i, s]; a bias is a last input that is always 1.

    Returns
    -------
    Array, shape (1, d, d), of objects if `x` is

    Examples
    --------
    >>> linear_hessian(np.array([[1.0], [2.0]]), bias=True)
    array([[[5., 3.],
            [3., 2.]]])
    """
    n = x.shape[0]
    rows = [list(x[i]) + ([1] if bias else []) for i in range(n)]
    return _outer_products([rows], n, x)


def conv2d_hessian(
    x: Array,
    *,
    kernel: Pair,
    stride: Pair = (1, 1),
    padding: Sides = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
    bias: bool = False,
) -> Array:
    """(2/n) times the sum over images and positions of the outer products of patches, a block a group.

    Returns
    -------
    Array, shape (groups, d, d), of objects if `x` is

    Examples
    --------
    >>> conv2d_hessian(np.array([[[[1.0, 2.0, 3.0]]]]), kernel=(1, 2))
    array([[[10., 16.],
            [16., 26.]]])
    """
    n, _, h, w = x.shape
    ho = (h + padding[0] + padding[1] - dilation[0] * (kernel[0] - 1) - 1) // stride[0] + 1
    wo = (w + padding[2] + padding[3] - dilation[1] * (kernel[1] - 1) - 1) // stride[1] + 1
    blocks = []
    for g in range(groups):
        rows = []
        for i, p, q in np.ndindex(n, ho, wo):
            entries = patch(
                x,
                i,
                g,
                p,
                q,
                kernel=kernel,
                stride=stride,
                padding=padding,
                dilation=dilation,
                groups=groups,
            )
            rows.append(entries + ([1] if bias else []))
        blocks.append(rows)
    return _outer_products(blocks, n, x)


def batch_norm_hessian(x_hat: Array) -> Array:
    """Block of (scale, shift) in every channel: (2/n) times the sum of outer products of (x_hat, 1).

    Parameters
    ----------
    x_hat : Array, shape (n, c) or (n, c, h, w)
        The normalized input.

    Returns
    -------
    Array, shape (c, 2, 2), of objects if `x_hat` is

    Examples
    --------
    >>> batch_norm_hessian(np.array([[1.0], [3.0]]))
    array([[[10.,  4.],
            [ 4.,  2.]]])
    """
    blocks = [[[value, 1] for value in x_hat[:, c].flat] for c in range(x_hat.shape[1])]
    return _outer_products(blocks, x_hat.shape[0], x_hat)


def _outer_products(blocks: list[list[list[Any]]], n: int, like: Array) -> Array:
    size = len(blocks[0][0])
    hessian = _zeros((len(blocks), size, size), like)
    for g, rows in enumerate(blocks):
        for r in range(size):
            for s in range(size):
                hessian[g, r, s] = 2 * sum(row[r] * row[s] for row in rows) / n  # [LDNQ] (10)
    return hessian
