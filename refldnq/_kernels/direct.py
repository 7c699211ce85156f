"""Convolution without patches: sums of shifted vectors of the padded image.

In a padded image all entries of a patch lie at fixed offsets from its first one. So neighbouring outputs are
a sum over the entries of a weight times a vector of the image, shifted; the sums of several outputs and
vectors stay in registers (`weighted`). The input's gradient is such a convolution of dy for every class of
pixels (row mod stride, column mod stride), with the taps that reach the class. The weight's gradient is a sum
over positions of a number of the image times a vector of dy, whose channels are turned side by side
(`correlated`).

A padded channel is laid out as (row, column mod stride, column div stride, image): where the outputs of a row
do not fill a vector, the rows of several images are interleaved. Every vector lies within a row; the last one
of a row overlaps the one before it and writes the same numbers once more.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit, uint64

from refldnq._kernels.tiles import ENTRIES, OUTPUTS, VECTORS, WIDTH, correlated, transposed, weighted
from refldnq._typing import Array, Shape

BLOCK = 256
"""Positions of a partial sum of the weight's gradient (chosen here: their vectors of dy stay in cache)."""

POSITIONS = 512
"""Least number of positions in all images (chosen here: rearranging the weights then costs less than it
saves, as measured with 64, 256 and 512 channels)."""

Job = tuple[Any, tuple[Any, ...]]
"""A kernel and its arguments, for `run_kernel` over the images."""


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """Where the numbers lie: all that depends on nothing but shapes."""

    layout: Shape
    """(rows, stride, columns div stride, images, rows before, columns before) of a padded channel."""
    classes: Array
    """A row a class of outputs: first row, step, rows; first column, step, columns; then, of its parts of the
    tables, first offset, offsets, first vector, vectors, first weight of a group."""
    offsets: Array
    """Of the entries of a patch from its first one."""
    starts: Array
    """Of the vectors of a class in the padded image, for the first entry; a multiple of VECTORS."""
    places: Array
    """Of the same vectors among the outputs (row, column, image) of the class."""
    taps: tuple[tuple[slice, slice], ...] = ()
    """The rows and the columns of the kernel that reach a class."""


def _sums(*axes: npt.ArrayLike) -> Array:
    # All sums of one number of each axis, the last axis fastest.
    return np.asarray(reduce(np.add.outer, axes), dtype=np.int64).reshape(-1)


def _vectors(rows: int, columns: int, step: int, lanes: int) -> tuple[Array, Array]:
    # Vectors that cover rows of `columns` numbers: starts, rows `step` apart, and places, rows side by side.
    firsts = np.minimum(np.arange(0, columns, lanes), columns - lanes)
    starts, places = (_sums(np.arange(rows) * pitch, firsts) for pitch in (step, columns))
    missing = (0, -starts.size % VECTORS)
    return np.pad(starts, missing, "edge"), np.pad(places, missing, "edge")


def _side_by_side(columns: int, lanes: int) -> int:
    # The least number of images whose rows fill a vector, and no less than 3/4 of all their vectors.
    images = 1
    while images * columns < max(lanes, 0.75 * lanes * -(-images * columns // lanes)):
        images += 1
    return images


@lru_cache(maxsize=256)
def _forward_plan(channels: int, out: Shape, geometry: Shape, lanes: int) -> _Plan:
    kh, kw, sh, sw, top, left, dh, dw = geometry
    ho, wo = out
    images = _side_by_side(wo, lanes)
    rows, cols = (ho - 1) * sh + (kh - 1) * dh + 1, wo + (kw - 1) * dw // sw
    row = sw * cols * images
    column = np.arange(kw) * dw
    offsets = _sums(
        np.arange(channels) * (rows * row),
        np.arange(kh) * (dh * row),
        (column % sw * cols + column // sw) * images,
    )
    starts, places = _vectors(ho, wo * images, sh * row, lanes)
    classes = np.array([[0, 1, ho, 0, 1, wo, 0, offsets.size, 0, starts.size, 0]])
    return _Plan((rows, sw, cols, images, top, left), classes, offsets, starts, places)


def _reach(
    size: int, kernel: int, stride: int, before: int, dilation: int
) -> list[tuple[int, dict[int, int]]]:
    # The pixels r, r + stride, ... of an axis for every r: their number, and the shift of every tap that
    # reaches them: through it pixel r + t stride is read by output t + shift.
    return [
        (
            -(-(size - r) // stride),
            {
                tap: (r + before - tap * dilation) // stride
                for tap in range(kernel)
                if (r + before - tap * dilation) % stride == 0
            },
        )
        for r in range(min(stride, size))
    ]


def _every(taps: list[int]) -> slice:
    # The taps that reach a class are a constant number apart.
    return slice(taps[0], taps[-1] + 1, taps[1] - taps[0] if len(taps) > 1 else 1) if taps else slice(0)


@lru_cache(maxsize=256)
def _gradient_plan(outputs: int, channels: int, size: Shape, geometry: Shape, lanes: int) -> _Plan:
    kh, kw, sh, sw, top, left, dh, dw = geometry
    axes = _reach(size[0], kh, sh, top, dh), _reach(size[1], kw, sw, left, dw)
    before = [-min(0, *(min(shifts.values(), default=0) for _, shifts in axis)) for axis in axes]
    rows, cols = (
        first + max(count + max(shifts.values(), default=0) for count, shifts in axis)
        for first, axis in zip(before, axes, strict=True)
    )
    images = _side_by_side(min(count for count, _ in axes[1]), lanes)
    row = cols * images
    weights = -(-channels // OUTPUTS) * OUTPUTS
    classes, tables, taps = [], [], []
    ends = [0, 0]
    for r, (height, down) in enumerate(axes[0]):
        for s, (width, right) in enumerate(axes[1]):
            offsets = _sums(
                np.arange(outputs) * (rows * row),
                [(before[0] + shift) * row for shift in down.values()],
                [(before[1] + shift) * images for shift in right.values()],
            )
            starts, places = _vectors(height, width * images, row, lanes)
            pixels = (r, sh, height, s, sw, width)
            classes.append((*pixels, ends[0], offsets.size, ends[1], starts.size, ends[0] * weights))
            tables.append((offsets, starts, places))
            taps.append((_every(list(down)), _every(list(right))))
            ends = [ends[0] + offsets.size, ends[1] + starts.size]
    offsets, starts, places = (np.concatenate(parts) for parts in zip(*tables, strict=True))
    layout = (rows, 1, cols, images, before[0], before[1])
    return _Plan(layout, np.array(classes), offsets, starts, places, tuple(taps))


@lru_cache(maxsize=256)
def _correlation_plan(channels: int, out: Shape, geometry: Shape) -> _Plan:
    kh, kw, sh, sw, top, left, dh, dw = geometry
    ho, wo = out
    rows, cols = (ho - 1) * sh + (kh - 1) * dh + 1, (wo - 1) * sw + (kw - 1) * dw + 1
    offsets = _sums(np.arange(channels) * (rows * cols), np.arange(kh) * (dh * cols), np.arange(kw) * dw)
    positions = _sums(np.arange(ho) * (sh * cols), np.arange(wo) * sw)
    entries = np.pad(offsets, (0, -offsets.size % ENTRIES))
    return _Plan((rows, 1, cols, 1, top, left), np.empty((0, 0)), entries, positions, positions)


def _in_blocks(weight: Array) -> Array:
    # (g, outputs, entries) as (g, block of OUTPUTS outputs, entry, output); the last blocks may overlap.
    outputs = weight.shape[1]
    firsts = np.minimum(np.arange(0, outputs, OUTPUTS), outputs - OUTPUTS)
    blocks = weight[:, np.add.outer(firsts, np.arange(OUTPUTS))]
    return np.ascontiguousarray(blocks.swapaxes(2, 3)).reshape(-1)


def suits_forward(y: Array, groups: int, geometry: Shape) -> bool:
    """Whether this is the way to `y`, the outputs of a convolution or the gradient of its inputs.

    The channels of a group must fill a tile, and the positions pay for the rearranged weights. A kernel of
    one tap has no patches to avoid: the BLAS is as fast for many channels and faster for few.
    """
    n, channels, h, w = y.shape
    return n * h * w >= POSITIONS and channels // groups >= OUTPUTS and geometry[0] * geometry[1] > 1


def suits_input_gradient(dx: Array, dy: Array, weight: Array, geometry: Shape) -> bool:
    """Whether this is the way to the gradient of the input.

    A pixel costs as much as an output of its class: there must not be many more of them. The zeros around dy
    meet every weight: only finite ones leave the sums as they are.
    """
    pixels, outputs = (array.shape[2] * array.shape[3] for array in (dx, dy))
    few = pixels <= 2 * outputs * geometry[2] * geometry[3]
    return few and suits_forward(dx, weight.shape[0], geometry) and bool(np.isfinite(weight).all())


def suits_weight_gradient(weight: Array, geometry: Shape) -> bool:
    """Whether this is the way to the gradient of the weight: the outputs of a group must fill a vector."""
    return weight.shape[1] * weight.itemsize >= WIDTH and geometry[0] * geometry[1] > 1


def forward(x: Array, weight: Array, bias: Array, y: Array, geometry: Shape) -> Job:
    """What writes the convolution of `x` to `y`; an empty `bias` means none."""
    groups = weight.shape[0]
    plan = _forward_plan(x.shape[1] // groups, y.shape[2:], geometry, WIDTH // x.itemsize)
    bias = np.ascontiguousarray(bias) if bias.size else np.zeros(y.shape[1], y.dtype)
    return _convolution(plan, x, groups, _in_blocks(weight), bias, y)


def input_gradient(weight: Array, dy: Array, dx: Array, geometry: Shape) -> Job:
    """What writes the gradient of the input to `dx`."""
    groups, m, _ = weight.shape
    channels = dx.shape[1] // groups
    plan = _gradient_plan(m, channels, dx.shape[2:], geometry, WIDTH // dy.itemsize)
    kernels = weight.reshape(groups, m, channels, *geometry[:2]).swapaxes(1, 2)
    parts = [kernels[..., rows, columns].reshape(groups, channels, -1) for rows, columns in plan.taps]
    blocks = np.concatenate([_in_blocks(part) for part in parts])
    return _convolution(plan, dy, groups, blocks, np.zeros(dx.shape[1], dx.dtype), dx)


def _convolution(plan: _Plan, x: Array, groups: int, weights: Array, bias: Array, y: Array) -> Job:
    return _convolve, (
        x.reshape(-1), x.shape[1:], groups, plan.layout, weights, bias, plan.classes, plan.offsets,
        plan.starts, plan.places, y.reshape(-1), y.shape[1:],
    )  # fmt: skip


def weight_gradient(x: Array, dy: Array, dweight: Array, dbias: Array, geometry: Shape) -> Job:
    """What adds a chunk's share to ``dweight[part]`` (g, d, m) and, if any, ``dbias[part]``."""
    parts, groups, d, m = dweight.shape
    plan = _correlation_plan(x.shape[1] // groups, dy.shape[2:], geometry)
    return _correlate, (
        x.reshape(-1), x.shape[1:], plan.layout, plan.offsets, plan.starts, dy.reshape(-1), groups, d, m,
        dweight.reshape(parts, -1), dbias,
    )  # fmt: skip


@njit(nogil=True, fastmath=False)
def _spread(x, i, stop, shape, layout, padded):  # type: ignore[no-untyped-def]
    # Write the images from the i-th on, as many as lie side by side. The padding around them is zero already.
    channels, h, w = shape
    rows, stride, cols, images, top, left = layout
    for lane in range(min(images, stop - i)):
        for s in range(stride):
            col = (s - left) % stride
            place = (col + left) // stride
            count = min((w - col + stride - 1) // stride, cols - place)
            for c in range(channels):
                for r in range(min(h, rows - top)):
                    source = uint64((((i + lane) * channels + c) * h + r) * w + col)
                    target = uint64((((c * rows + r + top) * stride + s) * cols + place) * images + lane)
                    for _ in range(count):
                        padded[target] = x[source]
                        source += uint64(stride)
                        target += uint64(images)


@njit(nogil=True, fastmath=False)
def _convolve(x, shape, groups, layout, weights, bias, classes, offsets, starts, places, y, out, start, stop):  # type: ignore[no-untyped-def]
    channels = shape[0]
    outputs, ho, wo = out
    rows, stride, cols, images, _, _ = layout
    size = channels // groups * rows * stride * cols * images
    m = outputs // groups
    blocks = -(-m // OUTPUTS)
    pitch = images * ho * wo
    padded = np.zeros(groups * size, x.dtype)
    whole = images == 1 and classes.shape[0] == 1  # the outputs need no reordering
    buffer = np.empty(0 if whole else m * pitch, x.dtype)
    for i in range(start, stop, images):
        _spread(x, i, stop, shape, layout, padded)
        for f in range(classes.shape[0]):
            row, down, height, col, right, width, k, entries, t0, vectors, weight = classes[f]
            for g in range(groups):
                target = y[(i * outputs + g * m) * ho * wo :] if whole else buffer
                for t in range(t0, t0 + vectors, VECTORS):
                    for b in range(blocks):
                        weighted(
                            padded[g * size :],
                            offsets[k : k + entries],
                            starts,
                            t,
                            weights,
                            groups * weight + (g * blocks + b) * entries * OUTPUTS,
                            bias[g * m :],
                            min(b * OUTPUTS, m - OUTPUTS),
                            target,
                            pitch,
                            places,
                        )
                if whole:
                    continue
                for lane in range(min(images, stop - i)):
                    for o in range(m):
                        image = (i + lane) * outputs + g * m + o
                        for a in range(height):
                            begin = uint64(o * pitch + a * width * images + lane)
                            end = uint64((image * ho + row + a * down) * wo + col)
                            for _ in range(width):
                                y[end] = buffer[begin]
                                begin += uint64(images)
                                end += uint64(right)


@njit(nogil=True, fastmath=False)
def _turn(dy, first, m, count, columns, pitch):  # type: ignore[no-untyped-def]
    # columns[p, o] = dy[first + o, p], in squares; the last ones overlap. `m` is at least a square's side.
    lanes = WIDTH // dy.itemsize
    for o in range(0, m, lanes):
        r = min(o, m - lanes)
        for p in range(0, count, lanes):
            q = min(p, count - lanes)
            if q >= 0:
                transposed(dy, first + r * count + q, count, columns, q * pitch + r, pitch)
    for p in range(count if count < lanes else 0):
        for o in range(m):
            columns[p * pitch + o] = dy[first + o * count + p]


@njit(nogil=True, fastmath=False)
def _correlate(x, shape, layout, offsets, positions, dy, groups, d, m, dweights, dbiases, part, start, stop):  # type: ignore[no-untyped-def]
    dweight, dbias = dweights[part], dbiases[part]
    channels = shape[0]
    lanes = WIDTH // x.itemsize
    size = channels // groups * layout[0] * layout[2]
    count = positions.size
    pitch = -(-m // lanes) * lanes
    padded = np.zeros(groups * size, x.dtype)
    sums = np.empty(ENTRIES * lanes, x.dtype)
    columns = np.zeros(count * pitch, x.dtype)
    total = np.zeros(m)  # of an image's positions, in float64
    for i in range(start, stop):
        _spread(x, i, stop, shape, layout, padded)
        for g in range(groups):
            _turn(dy, (i * groups + g) * m * count, m, count, columns, pitch)
            for p in range(0, count, BLOCK):
                for k in range(0, d, ENTRIES):
                    for o in range(0, m, lanes):
                        correlated(
                            padded[g * size :],
                            offsets,
                            k,
                            positions[p : p + BLOCK],
                            columns,
                            p * pitch + o,
                            pitch,
                            sums,
                        )
                        for r in range(min(ENTRIES, d - k)):
                            target, source = uint64((g * d + k + r) * m + o), uint64(r * lanes)
                            for lane in range(uint64(min(lanes, m - o))):
                                dweight[target + lane] += sums[source + lane]
            if dbias.size:
                total[:] = 0
                for p in range(count):
                    source = uint64(p * pitch)
                    for o in range(uint64(m)):
                        total[o] += columns[source + o]
                for o in range(m):
                    dbias[g * m + o] += total[o]
