"""Array aliases shared by every module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
"""Any NumPy array; the docstring of the function states shape and type."""

Float64Array = npt.NDArray[np.float64]
Int8Array = npt.NDArray[np.int8]
Int64Array = npt.NDArray[np.int64]

Params = Mapping[str, Array]
"""The arrays of one layer by name (``weight``, ``bias``, ``running_mean``, ...)."""

NetworkParams = Mapping[str, Params]
"""The arrays of a network: layer name, then array name."""

Shape = tuple[int, ...]
