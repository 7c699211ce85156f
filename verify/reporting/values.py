"""Exact values as text, as LaTeX and as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np


def as_json(value: Any) -> Any:
    """A value in terms of JSON; fractions and balls as text, NaN and infinity as None.

    Parameters
    ----------
    value : object
        Numbers, text, arrays, sequences and mappings.

    Returns
    -------
    object
        Fit for ``json.dumps(..., allow_nan=False)``.

    Examples
    --------
    >>> as_json({"W": np.array([Fraction(1, 2), 3], dtype=object), "x": float("inf")})
    {'W': ['1/2', 3], 'x': None}
    """
    if isinstance(value, np.ndarray | np.generic):
        return as_json(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def as_text(value: Any) -> str:
    """A value in one line: fractions as 3/4, vectors in parentheses, matrices as vectors of their rows.

    Examples
    --------
    >>> as_text(np.array([[Fraction(1, 2), Fraction(3)]], dtype=object))
    '((1/2, 3))'
    """
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return ", ".join(f"{key} = {as_text(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return "(" + ", ".join(as_text(item) for item in value) + ")"
    return str(value)


def as_latex(value: Any) -> str | None:
    r"""A number, vector or matrix of numbers as LaTeX; None for anything else.

    Examples
    --------
    >>> print(as_latex(Fraction(-1, 2)), as_latex([1, Fraction(2)]))
    -\tfrac{1}{2} \begin{pmatrix}1&2\end{pmatrix}
    """
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, Fraction | int) and not isinstance(value, bool):
        exact = Fraction(value)
        if exact.denominator == 1:
            return str(exact.numerator)
        return ("-" if exact < 0 else "") + rf"\tfrac{{{abs(exact.numerator)}}}{{{exact.denominator}}}"
    if isinstance(value, list | tuple) and value:
        parts = [as_latex(part) for part in value]
        if None in parts:
            return None
        depths = {_depth(part) for part in value}
        if depths == {0}:
            return _matrix([value])
        if depths == {1} and len({len(row) for row in value}) == 1:
            return _matrix(value)
        return r"\left(" + r",\;".join(str(part) for part in parts) + r"\right)"
    return None


def _depth(value: Any) -> int:
    if isinstance(value, np.ndarray):
        return value.ndim
    return 1 + max((_depth(part) for part in value), default=0) if isinstance(value, list | tuple) else 0


def _matrix(rows: Any) -> str:
    body = r"\\".join("&".join(str(as_latex(x)) for x in row) for row in rows)
    return rf"\begin{{pmatrix}}{body}\end{{pmatrix}}"
