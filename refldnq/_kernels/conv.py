"""Convolution: the patches of one image in a buffer that stays in cache, one matrix product on it.

For the Hessian there may be several small images in it.

Shapes: x (n, c, h, w); weight (g, m, d), m outputs and d = (c/g) kh kw patch entries a group;
y (n, g m, ho, wo). A kernel treats the images start..stop; `geometry` is (kh, kw, sh, sw, top, left, dh, dw).

Where the output is as wide as the image and the stride is 1, a row of the patch matrix is the channel itself,
shifted: one long copy, then zeros in the few columns that the shift wrapped around. Indices are unsigned
where a loop is to become vector instructions: Numba tests a signed index for being negative.
"""

from __future__ import annotations

import numpy as np
from numba import njit, uint64


@njit(nogil=True, fastmath=False)
def _inside(shift, stride, size, count):  # type: ignore[no-untyped-def]
    # Positions lo..hi of 0..count for which 0 <= position * stride + shift < size.
    lo = 0 if shift >= 0 else min(count, (-shift + stride - 1) // stride)
    hi = 0 if size - 1 - shift < 0 else min(count, (size - 1 - shift) // stride + 1)
    return lo, max(lo, hi)


@njit(nogil=True, fastmath=False)
def _copy(source, target):  # type: ignore[no-untyped-def]
    for p in range(uint64(target.shape[0])):
        target[p] = source[p]


@njit(nogil=True, fastmath=False)
def _add(source, target):  # type: ignore[no-untyped-def]
    for p in range(uint64(target.shape[0])):
        target[p] += source[p]


@njit(nogil=True, fastmath=False)
def _zero_outside(row, ho, wo, rows, cols):  # type: ignore[no-untyped-def]
    # Zero the entries of a patch row whose pixel lies in the padding.
    row[: rows[0] * wo] = 0
    row[rows[1] * wo :] = 0
    if cols[0] > 0 or cols[1] < wo:
        for a in range(rows[0], rows[1]):
            for b in range(uint64(a * wo), uint64(a * wo + cols[0])):
                row[b] = 0
            for b in range(uint64(a * wo + cols[1]), uint64(a * wo + wo)):
                row[b] = 0


@njit(nogil=True, fastmath=False)
def patches_of(x, first, channels, geometry, ho, wo, out, column):  # type: ignore[no-untyped-def]
    """Write the patches of channels first, first + 1, ... of an image x (c, h, w) to ho wo columns of `out`.

    `out` has d rows; the columns begin at `column`.
    """
    kh, kw, sh, sw, top, left, dh, dw = geometry
    h, w = x.shape[1], x.shape[2]
    flat = sh == 1 and sw == 1 and wo == w
    r = 0
    for c in range(first, first + channels):
        for i in range(kh):
            rows = _inside(i * dh - top, sh, h, ho)
            for j in range(kw):
                cols = _inside(j * dw - left, sw, w, wo)
                row = out[r, column : column + ho * wo]
                r += 1
                if flat:
                    shift = (i * dh - top) * w + j * dw - left
                    lo, hi = max(0, -shift), min(ho * wo, h * w - shift)
                    if hi > lo:
                        _copy(x[c].reshape(h * w)[lo + shift : hi + shift], row[lo:hi])
                else:
                    for a in range(rows[0], rows[1]):
                        source = x[c, a * sh + i * dh - top, cols[0] * sw + j * dw - left :]
                        target = row[a * wo + cols[0] : a * wo + cols[1]]
                        if sw == 1:
                            _copy(source, target)
                        else:
                            for b in range(uint64(target.shape[0])):
                                target[b] = source[b * uint64(sw)]
                _zero_outside(row, ho, wo, rows, cols)


@njit(nogil=True, fastmath=False)
def _add_patches(patches, first, channels, geometry, ho, wo, dx):  # type: ignore[no-untyped-def]
    # The adjoint of patches_of; overwrites the entries of `patches` that belong to the padding.
    kh, kw, sh, sw, top, left, dh, dw = geometry
    h, w = dx.shape[1], dx.shape[2]
    flat = sh == 1 and sw == 1 and wo == w
    r = 0
    for c in range(first, first + channels):
        for i in range(kh):
            rows = _inside(i * dh - top, sh, h, ho)
            for j in range(kw):
                cols = _inside(j * dw - left, sw, w, wo)
                row = patches[r]
                r += 1
                if flat:
                    _zero_outside(row, ho, wo, rows, cols)
                    shift = (i * dh - top) * w + j * dw - left
                    lo, hi = max(0, -shift), min(ho * wo, h * w - shift)
                    if hi > lo:
                        _add(row[lo:hi], dx[c].reshape(h * w)[lo + shift : hi + shift])
                else:
                    for a in range(rows[0], rows[1]):
                        source = row[a * wo + cols[0] : a * wo + cols[1]]
                        target = dx[c, a * sh + i * dh - top, cols[0] * sw + j * dw - left :]
                        if sw == 1:
                            _add(source, target[: source.shape[0]])
                        else:
                            for b in range(uint64(source.shape[0])):
                                target[b * uint64(sw)] += source[b]


@njit(nogil=True, fastmath=False)
def forward(x, weight, bias, y, geometry, start, stop):  # type: ignore[no-untyped-def]
    """Write ``y[start:stop]``, the convolution of ``x[start:stop]``; an empty `bias` means none."""
    groups, m, d = weight.shape
    ho, wo = y.shape[2], y.shape[3]
    channels = x.shape[1] // groups
    patches = np.empty((d, ho * wo), x.dtype)
    for i in range(start, stop):
        for g in range(groups):
            patches_of(x[i], g * channels, channels, geometry, ho, wo, patches, 0)
            out = y[i, g * m : (g + 1) * m].reshape((m, ho * wo))
            np.dot(weight[g], patches, out)
            if bias.size:
                for o in range(m):
                    out[o] += bias[g * m + o]


@njit(nogil=True, fastmath=False)
def backward(x, weight, dy, dx, dweights, dbiases, geometry, part, start, stop):  # type: ignore[no-untyped-def]
    """Write ``dx[start:stop]``; add this chunk's share to ``dweights[part]`` (g, d, m) and ``dbiases[part]``.

    What is empty is not computed. `dx` must hold zeros. The weight's gradient is packed (g, d, m), not
    (g, m, d): the BLAS is up to twice as fast with the long side of a thin product in front.
    """
    dweight, dbias = dweights[part], dbiases[part]
    groups, m, d = weight.shape
    ho, wo = dy.shape[2], dy.shape[3]
    channels = x.shape[1] // groups
    patches = np.empty((d, ho * wo), x.dtype)
    share = np.empty((d, m), x.dtype)
    for i in range(start, stop):
        for g in range(groups):
            rows = dy[i, g * m : (g + 1) * m].reshape((m, ho * wo))
            if dweight.size:
                patches_of(x[i], g * channels, channels, geometry, ho, wo, patches, 0)
                np.dot(patches, rows.T, share)
                dweight[g] += share
            if dbias.size:
                for o in range(m):
                    dbias[g * m + o] += rows[o].sum()
            if dx.size:
                np.dot(weight[g].T, rows, patches)
                _add_patches(patches, g * channels, channels, geometry, ho, wo, dx[i])
