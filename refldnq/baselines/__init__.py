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
from refldnq.baselines.runs import Computed, Quantize, Resolve, Trained
from refldnq.baselines.schedule import Schedule
from refldnq.ldnq_settings import LdnqSettings

CODE, PAPER, MEMORY, OURS = "[code]", "[paper]", "[memory], re-derived", "[ours]"


Levels = tuple[int, ...] | range


def _trains(
    name: str,
    label: str,
    origin: str,
    levels: Levels,
    make: Callable[..., Method],
    scaled: Schedule,
    published: Schedule,
    settings: Any,
    resolve: Resolve | None = None,
) -> Baseline:
    run = Trained(name, make, scaled, published, settings=settings, resolve=resolve)
    return Baseline(name, label, trains=True, needs_labels=True, origin=origin, levels=levels, run=run)


def _computes(
    name: str,
    label: str,
    origin: str,
    levels: Levels,
    quantize: Quantize,
    free: Free,
    settings: Any,
    resolve: Resolve | None = None,
) -> Baseline:
    run = Computed(name, quantize, free, settings=settings, resolve=resolve)
    return Baseline(name, label, trains=False, needs_labels=False, origin=origin, levels=levels, run=run)


def _dq(name: str, label: str, origin: str, variant: dq.Variant) -> Baseline:
    levels = dq.AFFINE_LEVELS if variant == "affine" else dq.LEVELS
    return _computes(
        name, label, origin, levels, dq.quantize_network, "scale", dq.DqSettings(variant=variant)
    )


def _vq(name: str, label: str, origin: str, variant: vq.Variant) -> Baseline:
    return _computes(
        name, label, origin, vq.LEVELS, vq.quantize_network, "values", vq.VqSettings(variant=variant)
    )


def _ttq(name: str, label: str, scaled: Schedule, settings: ttq.TtqSettings) -> Baseline:
    return _trains(name, label, CODE, ttq.LEVELS, ttq.method, scaled, ttq.PUBLISHED, settings)


def _lat(name: str, label: str, variant: lat.Variant) -> Baseline:
    settings = lat.LatSettings(variant=variant)
    return _trains(name, label, CODE, lat.LEVELS, lat.method, lat.SCALED, lat.PUBLISHED, settings)


_ALL = (
    _dq("dq", "DQ", CODE, "mean"),
    _dq("dq-affine", "DQ", MEMORY, "affine"),
    _dq("dq-exact", "DQ, exact", OURS, "exact"),
    _vq("vq", "VQ", CODE, "lloyd"),
    _vq("vq-exact", "VQ, exact", OURS, "exact"),
    _trains(
        "exnn", "ExNN", MEMORY, exnn.LEVELS, exnn.method, exnn.SCALED, exnn.PUBLISHED, exnn.ExnnSettings()
    ),
    _ttq("ttq", "TTQ", ttq.SCALED, ttq.TtqSettings()),
    _ttq("ttq-twn", "TTQ, TWN start", ttq.SCALED_TWN, ttq.TtqSettings(init="twn")),
    _trains(
        "inq",
        "INQ",
        CODE,
        inq.LEVELS,
        inq.method,
        inq.SCALED,
        inq.PUBLISHED,
        inq.InqSettings(),
        inq.resolve,
    ),
    _lat("lata", "LATa", "approximate"),
    _lat("late", "LATe", "exact"),
    _lat("lat-two-scale", "LAT, two scales", "two-scale"),
    _computes("trn", "TRN", MEMORY, trn.LEVELS, trn.quantize_network, "nothing", trn.TrnSettings()),
    _trains(
        "distilquant",
        "DistilQuant",
        CODE,
        distilquant.LEVELS,
        distilquant.method,
        distilquant.SCALED,
        distilquant.PUBLISHED,
        distilquant.DistilQuantSettings(),
    ),
    _computes(
        ldnq_minus.NAME,
        "L-DNQ⁻",
        PAPER,
        ldnq_minus.LEVELS,
        ldnq_minus.quantize_network,
        "nothing",
        LdnqSettings(),
        ldnq_minus.resolve,
    ),
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
