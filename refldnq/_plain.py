"""Settings and results as plain JSON values: in records, and wherever a run is known by its settings."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """`value` in terms of dict, list, str, int, float, bool and None, as JSON has them.

    Parameters
    ----------
    value : object
        Dataclasses become dicts of their fields; arrays and tuples lists; NaN and infinity, which JSON lacks,
        None. A field whose metadata say ``later`` is left out at its default: it is younger than results
        that are stored under their settings, and must not make them another run's. Its default must not
        change once results have it.

    Returns
    -------
    object
        Fit for ``json.dumps(..., allow_nan=False)``.

    Raises
    ------
    TypeError
        If a part of `value` is of another kind.

    Examples
    --------
    >>> from refldnq.codebook import powers_of_two
    >>> plain({"codebook": powers_of_two(3), "rho": float("nan")})
    {'codebook': {'kind': 'scaled', 'points': [-1.0, 0.0, 1.0], 'levels': 3}, 'rho': None}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [(field, getattr(value, field.name)) for field in dataclasses.fields(value)]
        return {
            field.name: plain(own)
            for field, own in fields
            if not (field.metadata.get("later") and own == field.default)
        }
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):  # bool is an int
        return value
    raise TypeError(
        f"`value` must be made of JSON values, arrays and dataclasses, got {type(value).__name__}."
    )
