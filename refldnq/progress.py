"""The state of a run of Algorithm 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from refldnq.layer_report import LayerReport
from refldnq.model import QuantizedWeight
from refldnq.network import Network


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The state of a run after a layer: all that is needed to go on from there.

    Parameters
    ----------
    network : Network
        With the first layers quantized and the others updated.
    quantized : mapping of str to QuantizedWeight
        The codes of the layers done.
    reports : tuple of LayerReport
        One a layer done, in each cascade; of a finished run those of the last one.
    total : int
        Number of layers to quantize, times the number of cascades.
    pending : bool, optional
        Whether all layers are done and what follows them, last updates or new statistics, is to come.
    """

    network: Network
    quantized: Mapping[str, QuantizedWeight]
    reports: tuple[LayerReport, ...]
    total: int
    pending: bool = False
