"""The methods that the paper compares with, on this project's own layers: no autograd.

>>> names()
('dq', 'dq-affine', 'dq-exact', 'vq', 'vq-exact', 'exnn', 'ttq', 'ttq-twn', 'inq', 'lata', 'late', \
'lat-two-scale', 'trn', 'distilquant', 'ldnq-minus')
>>> BASELINES["ttq"].needs_labels
True
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from refldnq.baselines import distilquant, dq, exnn, inq, lat, ldnq_minus, trn, ttq, vq
from refldnq.baselines.base import Baseline, BaselineResult, Runner
from refldnq.baselines.loop import EpochRecord, LoopState
from refldnq.baselines.runs import Computed, Trained
from refldnq.baselines.schedule import Schedule

CODE, PAPER, MEMORY = "[code]", "[paper]", "[memory], re-derived"


def _trains(name: str, label: str, origin: str, run: Runner) -> Baseline:
    return Baseline(name, label, trains=True, needs_labels=True, origin=origin, run=run)


def _computes(name: str, label: str, origin: str, run: Runner) -> Baseline:
    return Baseline(name, label, trains=False, needs_labels=False, origin=origin, run=run)


def _lat(variant: lat.Variant) -> Trained:
    return Trained(lat.method, lat.SCALED, lat.PUBLISHED, lat.LatSettings(variant=variant))


_ALL = (
    _computes("dq", "DQ", CODE, Computed(dq.quantize_network, "scale")),
    _computes(
        "dq-affine", "DQ", MEMORY, Computed(dq.quantize_network, "scale", dq.DqSettings(variant="affine"))
    ),
    _computes(
        "dq-exact", "DQ, exact", CODE, Computed(dq.quantize_network, "scale", dq.DqSettings(variant="exact"))
    ),
    _computes("vq", "VQ", CODE, Computed(vq.quantize_network, "values")),
    _computes(
        "vq-exact", "VQ, exact", CODE, Computed(vq.quantize_network, "values", vq.VqSettings(variant="exact"))
    ),
    _trains("exnn", "ExNN", MEMORY, Trained(exnn.method, exnn.SCALED, exnn.PUBLISHED)),
    _trains("ttq", "TTQ", CODE, Trained(ttq.method, ttq.SCALED, ttq.PUBLISHED)),
    _trains(
        "ttq-twn",
        "TTQ, TWN start",
        CODE,
        Trained(ttq.method, ttq.SCALED_TWN, ttq.PUBLISHED, ttq.TtqSettings(init="twn")),
    ),
    _trains("inq", "INQ", CODE, Trained(inq.method, inq.SCALED, inq.PUBLISHED)),
    _trains("lata", "LATa", CODE, _lat("approximate")),
    _trains("late", "LATe", CODE, _lat("exact")),
    _trains("lat-two-scale", "LAT, two scales", CODE, _lat("two-scale")),
    _computes("trn", "TRN", MEMORY, Computed(trn.quantize_network, "nothing")),
    _trains(
        "distilquant",
        "DistilQuant",
        CODE,
        Trained(distilquant.method, distilquant.SCALED, distilquant.PUBLISHED),
    ),
    _computes("ldnq-minus", "L-DNQ⁻", PAPER, Computed(ldnq_minus.quantize_network, "nothing")),
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
