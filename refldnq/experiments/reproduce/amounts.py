"""Seeds and numbers of images, as they are written on a command line."""

from __future__ import annotations

from refldnq.experiments.reproduce.plan import Amount


def numbers(text: str, name: str = "seeds") -> tuple[int, ...]:
    """Numbers from text, each once: ``0-4`` is 0, 1, 2, 3, 4, and commas join.

    Parameters
    ----------
    text : str
        The numbers.
    name : str, optional
        Whose, for the error.

    Raises
    ------
    ValueError
        If the text is of another form, or a range ends before it begins.

    Examples
    --------
    >>> numbers("0-2,7,1")
    (0, 1, 2, 7)
    """
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        known = all(word.isascii() and word.isdecimal() for word in ([first, last] if dash else [first]))
        if not known or int(last or first) < int(first):
            raise ValueError(f"`{name}` must look like 0-4 or 0,1,2, got {text!r}.")
        found += range(int(first), int(last or first) + 1)
    return tuple(dict.fromkeys(found))


def amounts(text: str) -> tuple[Amount, ...]:
    """Numbers of images from text: counts, and shares of the training images with a percent sign.

    Raises
    ------
    ValueError
        If the text is of another form, or a number is out of range.

    Examples
    --------
    >>> amounts("500,0.1%,20%")
    (500, 0.001, 0.2)
    """
    found: list[Amount] = []
    for part in text.split(","):
        try:
            amount: Amount = float(part[:-1]) / 100 if part.endswith("%") else int(part)
        except ValueError:
            raise ValueError(f"`images` must look like 500,1% or so, got {text!r}.") from None
        if not amount > 0 or (isinstance(amount, float) and amount > 1):
            raise ValueError(f"`images` must be positive, and a share at most 100 %, got {part}.")
        found.append(amount)
    return tuple(found)
