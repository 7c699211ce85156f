"""Random crops, mirror images and mixtures: more versions of the same few images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from refldnq._checks import check_finite, check_float, check_integer, check_number, check_shape
from refldnq._typing import Array


def augment(
    images: Array,
    rng: np.random.Generator,
    *,
    crop: int = 4,
    flip: bool = True,
    fill: float | Sequence[float] = 0.0,
) -> Array:
    """A version of every image, shifted at random and mirrored with probability one half.

    Parameters
    ----------
    images : Array, shape (n, c, h, w), float32 or float64
        Preprocessed images.
    rng : numpy.random.Generator
        Draws two shifts and a coin for every image.
    crop : int, optional
        Pixels added on each side before the image is cropped to its size again: shifts are uniform in
        -crop..crop; 4 as in He et al. 2016 ("Deep Residual Learning for Image Recognition", section 4.2).
    flip : bool, optional
        Whether images are mirrored left to right.
    fill : float or sequence of c floats, optional
        Value of the added pixels, in the units of the preprocessed images: 0 is the mean colour if the mean
        was subtracted, not black. For black, give ``-mean / std`` of the preprocessing, one a channel.

    Returns
    -------
    Array, shape (n, c, h, w)
        In the type of `images`.

    Raises
    ------
    ValueError
        If `images` has not four axes, `crop` is negative, or `fill` is not finite or has neither one nor c
        numbers.
    TypeError
        If `images` is not of floats.

    Examples
    --------
    >>> x = np.array([[[[1.0, 2.0]]]])
    >>> augment(x, np.random.default_rng(2), crop=0).ravel()
    array([2., 1.])
    """
    check_shape("images", check_float("images", images), (None,) * 4)
    check_integer("crop", crop, at_least=0)
    n, c, h, w = images.shape
    colour = np.asarray(fill, dtype=images.dtype)
    check_finite("fill", colour)
    if colour.ndim:
        check_shape("fill", colour, (c,))
    top, left = rng.integers(0, 2 * crop + 1, (2, n))
    mirrored = rng.random(n) < 0.5 if flip else np.zeros(n, dtype=np.bool_)
    padded = np.empty((n, c, h + 2 * crop, w + 2 * crop), images.dtype)
    padded[...] = colour.reshape(-1, 1, 1)
    padded[:, :, crop : crop + h, crop : crop + w] = images
    windows = sliding_window_view(padded, (h, w), axis=(2, 3))  # (n, c, 2 crop + 1, 2 crop + 1, h, w)
    out: Array = windows[np.arange(n), :, top, left]
    out[mirrored] = out[mirrored, :, :, ::-1]
    return out


def mix(images: Array, rng: np.random.Generator, *, share: float) -> Array:
    """Mix every image with another one of the batch.

    Image i becomes (1 - w) x_i + w x_j with a weight w, uniform from 0 to `share`, of its own; j runs through
    a random permutation (Zhang et al. 2018, "mixup", without labels: whoever uses the mixtures labels them
    with a teacher).

    Parameters
    ----------
    images : Array, shape (n, ...), float32 or float64
        The images.
    rng : numpy.random.Generator
        Draws the permutation and a weight for every image.
    share : float
        Largest weight of the other image, 0 to 1.

    Returns
    -------
    Array, shape (n, ...)
        In the type of `images`.

    Raises
    ------
    ValueError
        If `share` is not between 0 and 1.
    TypeError
        If `images` is not of floats.

    Examples
    --------
    >>> mix(np.array([[0.0], [8.0]]), np.random.default_rng(3), share=0.5).round(1).ravel()
    array([0.9, 4.8])
    """
    check_float("images", images)
    if not check_number("share", share, at_least=0) <= 1:
        raise ValueError(f"`share` must be at most 1, got {share}.")
    others = rng.permutation(images.shape[0])
    weights = rng.uniform(0.0, share, (images.shape[0],) + (1,) * (images.ndim - 1)).astype(images.dtype)
    mixed: Array = images + weights * (images[others] - images)
    return mixed
