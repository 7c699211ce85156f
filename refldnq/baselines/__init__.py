"""The methods that the paper compares with, on this project's own layers: no autograd.

>>> names()
('dq', 'dq-affine', 'dq-exact', 'vq', 'vq-exact', 'exnn', 'ttq', 'ttq-twn', 'inq', 'lata', 'late', \
'lat-two-scale', 'trn', 'distilquant', 'ldnq-')
>>> BASELINES["ttq"].needs_labels
True
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from refldnq.baselines import distilquant, dq, exnn, inq, lat, ldnq_minus, trn, ttq, vq
from refldnq.baselines.base import Baseline, BaselineResult, Runner
from refldnq.baselines.loop import EpochRecord, LoopState, Method
from refldnq.baselines.retrain import Free
from refldnq.baselines.runs import Computed, Quantize, Trained
from refldnq.baselines.schedule import Schedule

CODE, PAPER, MEMORY = "[code]", "[paper]", "[memory], re-derived"


def _trains(
    name: str,
    label: str,
    origin: str,
    make: Callable[..., Method],
    scaled: Schedule,
    published: Schedule,
    settings: Any = None,
) -> Baseline:
    run = Trained(name, make, scaled, published, settings)
    return Baseline(name, label, trains=True, needs_labels=True, origin=origin, run=run)


def _computes(
    name: str, label: str, origin: str, quantize: Quantize, free: Free, settings: Any = None
) -> Baseline:
    run = Computed(name, quantize, free, settings)
    return Baseline(name, label, trains=False, needs_labels=False, origin=origin, run=run)


def _lat(name: str, label: str, variant: lat.Variant) -> Baseline:
    return _trains(name, label, CODE, lat.method, lat.SCALED, lat.PUBLISHED, lat.LatSettings(variant=variant))


_ALL = (
    _computes("dq", "DQ", CODE, dq.quantize_network, "scale"),
    _computes("dq-affine", "DQ", MEMORY, dq.quantize_network, "scale", dq.DqSettings(variant="affine")),
    _computes("dq-exact", "DQ, exact", CODE, dq.quantize_network, "scale", dq.DqSettings(variant="exact")),
    _computes("vq", "VQ", CODE, vq.quantize_network, "values"),
    _computes("vq-exact", "VQ, exact", CODE, vq.quantize_network, "values", vq.VqSettings(variant="exact")),
    _trains("exnn", "ExNN", MEMORY, exnn.method, exnn.SCALED, exnn.PUBLISHED),
    _trains("ttq", "TTQ", CODE, ttq.method, ttq.SCALED, ttq.PUBLISHED),
    _trains(
        "ttq-twn",
        "TTQ, TWN start",
        CODE,
        ttq.method,
        ttq.SCALED_TWN,
        ttq.PUBLISHED,
        ttq.TtqSettings(init="twn"),
    ),
    _trains("inq", "INQ", CODE, inq.method, inq.SCALED, inq.PUBLISHED),
    _lat("lata", "LATa", "approximate"),
    _lat("late", "LATe", "exact"),
    _lat("lat-two-scale", "LAT, two scales", "two-scale"),
    _computes("trn", "TRN", MEMORY, trn.quantize_network, "nothing"),
    _trains(
        "distilquant", "DistilQuant", CODE, distilquant.method, distilquant.SCALED, distilquant.PUBLISHED
    ),
    _computes(ldnq_minus.NAME, "L-DNQ⁻", PAPER, ldnq_minus.quantize_network, "nothing"),
)

BASELINES: Mapping[str, Baseline] = MappingProxyType({one.name: one for one in _ALL})
"""Every baseline by its name."""


def names() -> tuple[str, ...]:
    """The names of all baselines, in the paper's order."""
    return tuple(BASELINES)


__all__ = [
    "BASELINES",
    "Baseline",
    "BaselineResult",
    "EpochRecord",
    "LoopState",
    "Runner",
    "Schedule",
    "names",
]
