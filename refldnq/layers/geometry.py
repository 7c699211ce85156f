"""Windows sliding over images: how hyper-parameters are read, and how often a pixel is covered."""

from __future__ import annotations

from typing import Any

import numpy as np

from refldnq._checks import check_integer
from refldnq._typing import Shape


def pair(name: str, value: Any, *, at_least: int) -> tuple[int, int]:
    """Read an integer, or a pair (rows, columns), as a pair.

    Parameters
    ----------
    name : str
        Name of the argument, for the message.
    value : int or sequence of int
        What was given.
    at_least : int
        Least allowed value.

    Raises
    ------
    ValueError
        If there are not two numbers, or one is too small.
    TypeError
        If one is not an integer.

    Examples
    --------
    >>> pair("stride", 2, at_least=1), pair("stride", [2, 1], at_least=1)
    ((2, 2), (2, 1))
    """
    values = (value, value) if isinstance(value, int | np.integer) else tuple(value)
    if len(values) != 2:
        raise ValueError(f"`{name}` must be an integer or a pair (rows, columns), got {value!r}.")
    return check_integer(name, values[0], at_least=at_least), check_integer(
        name, values[1], at_least=at_least
    )


def sides(name: str, value: Any) -> tuple[int, int, int, int]:
    """Read a padding as (top, bottom, left, right).

    Parameters
    ----------
    name : str
        Name of the argument, for the message.
    value : int or sequence of int
        One number for all sides, a pair (rows, columns) for both sides of each axis, or the four sides.

    Raises
    ------
    ValueError
        If there are not one, two or four numbers, or one is negative.
    TypeError
        If one is not an integer.

    Examples
    --------
    >>> sides("padding", (1, 2)), sides("padding", (0, 1, 0, 1))
    ((1, 1, 2, 2), (0, 1, 0, 1))
    """
    values = (value,) * 4 if isinstance(value, int | np.integer) else tuple(value)
    if len(values) == 2:
        values = (values[0], values[0], values[1], values[1])
    if len(values) != 4:
        raise ValueError(f"`{name}` must be an integer, a pair or (top, bottom, left, right), got {value!r}.")
    top, bottom, left, right = (check_integer(name, side, at_least=0) for side in values)
    return top, bottom, left, right


def check_image(shape: Shape) -> None:
    """Refuse the shape of one input unless it is (c, h, w).

    Raises
    ------
    ValueError
        If the number of axes is not three.

    Examples
    --------
    >>> check_image((3, 4))
    Traceback (most recent call last):
        ...
    ValueError: `x` must have shape (n, c, h, w), got (n, 3, 4).
    """
    if len(shape) != 3:
        raise ValueError(f"`x` must have shape (n, c, h, w), got {batched(shape)}.")


def batched(shape: Shape) -> str:
    """The shape of a batch of inputs, for messages.

    Examples
    --------
    >>> batched((3,)), batched(())
    ('(n, 3)', '(n,)')
    """
    return f"(n, {', '.join(map(str, shape))})" if shape else "(n,)"


def largest_cover(size: int, out: int, *, kernel: int, stride: int, before: int, dilation: int = 1) -> int:
    """How many window positions contain the pixel that most of them contain, along one axis.

    Parameters
    ----------
    size, out : int
        Pixels and window positions.
    kernel, stride, dilation : int
        The window.
    before : int
        Padding in front of the first pixel.

    Returns
    -------
    int
        c of the operator norms of convolution and pooling; 0 if no window touches a pixel.

    Examples
    --------
    A window of 3 at every second position: the pixels in between lie in two windows.

    >>> largest_cover(7, 3, kernel=3, stride=2, before=0)
    2
    """
    starts = np.arange(out) * stride - before
    pixels = (starts[:, None] + np.arange(kernel) * dilation).ravel()
    pixels = pixels[(pixels >= 0) & (pixels < size)]
    return int(np.bincount(pixels).max()) if pixels.size else 0
