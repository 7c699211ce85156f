"""Guards with one message format: the argument, what was expected, what came."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from refldnq._typing import Array

FLOATS = (np.float32, np.float64)


def check_shape(name: str, array: Array, shape: tuple[int | None, ...]) -> None:
    """Refuse `array` unless its shape is `shape`; None matches any extent.

    Raises
    ------
    ValueError
        If the number of axes or an extent differs.

    Examples
    --------
    >>> import numpy as np
    >>> check_shape("H", np.zeros((3, 3)), (2, 2))
    Traceback (most recent call last):
        ...
    ValueError: `H` must have shape (2, 2), got (3, 3).
    """
    if len(array.shape) != len(shape) or any(
        want is not None and want != got for want, got in zip(shape, array.shape, strict=True)
    ):
        wanted = "(" + ", ".join("any" if extent is None else str(extent) for extent in shape)
        wanted += ",)" if len(shape) == 1 else ")"
        raise ValueError(f"`{name}` must have shape {wanted}, got {array.shape}.")


def check_float(name: str, array: Any) -> Array:
    """Return `array` as it is, refusing anything but a float32 or float64 NumPy array.

    Raises
    ------
    TypeError
        If `array` is not an array, or its type is not float32 or float64.

    Examples
    --------
    >>> import numpy as np
    >>> check_float("x", np.arange(3))
    Traceback (most recent call last):
        ...
    TypeError: `x` must be an array of float32 or float64, got int64.
    """
    if not isinstance(array, np.ndarray):
        raise TypeError(f"`{name}` must be an array of float32 or float64, got {type(array).__name__}.")
    if array.dtype not in FLOATS:
        raise TypeError(f"`{name}` must be an array of float32 or float64, got {array.dtype}.")
    return array


def check_finite(name: str, array: Array) -> None:
    """Refuse NaN and infinity, naming the first offending index.

    Raises
    ------
    ValueError
        If an entry is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> check_finite("W", np.array([1.0, np.nan]))
    Traceback (most recent call last):
        ...
    ValueError: `W` must be finite, got nan at index (1,).
    """
    finite = np.isfinite(array)
    if not finite.all():
        index = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise ValueError(f"`{name}` must be finite, got {array[index]} at index {index}.")


def check_choice(name: str, value: object, choices: Iterable[object]) -> None:
    """Refuse a value that is not one of `choices`.

    Raises
    ------
    ValueError
        If `value` is not among `choices`.

    Examples
    --------
    >>> check_choice("mode", "test", ("eval", "train"))
    Traceback (most recent call last):
        ...
    ValueError: `mode` must be one of 'eval', 'train', got 'test'.
    """
    known = tuple(choices)
    if value not in known:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, known))}, got {value!r}.")


def check_integer(name: str, value: object, *, at_least: int) -> int:
    """Return `value` as an int, refusing anything but an integer of at least `at_least`.

    Raises
    ------
    TypeError
        If `value` is not an integer (a bool is not).
    ValueError
        If `value` is below `at_least`.

    Examples
    --------
    >>> check_integer("n", 0, at_least=1)
    Traceback (most recent call last):
        ...
    ValueError: `n` must be an integer of at least 1, got 0.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"`{name}` must be an integer, got {type(value).__name__}.")
    if value < at_least:
        raise ValueError(f"`{name}` must be an integer of at least {at_least}, got {value}.")
    return int(value)


def check_number(
    name: str, value: object, *, above: float | None = None, at_least: float | None = None
) -> float:
    """Return `value` as a float, refusing what is not finite or not in range.

    Raises
    ------
    TypeError
        If `value` is not a real number.
    ValueError
        If `value` is NaN, infinite, not greater than `above`, or smaller than `at_least`.

    Examples
    --------
    >>> check_number("rho", 0.0, above=0)
    Traceback (most recent call last):
        ...
    ValueError: `rho` must be a finite number greater than 0, got 0.0.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"`{name}` must be a number, got {type(value).__name__}.")
    number = float(value)
    if above is not None and not (np.isfinite(number) and number > above):
        raise ValueError(f"`{name}` must be a finite number greater than {above:g}, got {number!r}.")
    if at_least is not None and not (np.isfinite(number) and number >= at_least):
        raise ValueError(f"`{name}` must be a finite number of at least {at_least:g}, got {number!r}.")
    if not np.isfinite(number):
        raise ValueError(f"`{name}` must be a finite number, got {number!r}.")
    return number
