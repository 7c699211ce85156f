"""A run of a baseline: up to two stages, resumable between any two epochs.

First the method trains, or computes, quantized weights; then, if asked for, what they left free is trained
with labels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from refldnq._typing import Array, Int64Array
from refldnq.baselines.base import BaselineResult, chosen_layers, pick_schedule
from refldnq.baselines.loop import LoopState, Method, Quantized, begin, fit, merged
from refldnq.baselines.retrain import RETRAIN, Free, Retrain
from refldnq.baselines.schedule import Name, Schedule
from refldnq.network import Network


@dataclass(frozen=True, slots=True)
class Trained:
    """A baseline that trains; called as `refldnq.baselines.base.Runner` says.

    Parameters
    ----------
    make : callable
        The method of a network, layers, levels and settings.
    scaled, published : Schedule
        What the names of `refldnq.baselines.schedule.Name` mean. A retraining has its own, `RETRAIN`.
    settings : object, optional
        In place of the method's defaults.
    """

    make: Callable[[Network, tuple[str, ...], int, Any], Method]
    scaled: Schedule
    published: Schedule
    settings: Any = None

    def __call__(
        self,
        network: Network,
        images: Array,
        labels: Int64Array | None,
        *,
        levels: int,
        rng: np.random.Generator,
        schedule: Name | Schedule = "scaled",
        layers: tuple[str, ...] | None = None,
        retrain: bool = False,
        on_epoch: Callable[[LoopState], None] | None = None,
        state: LoopState | None = None,
        settings: Any = None,
    ) -> BaselineResult:
        """Quantize a network."""
        chosen = chosen_layers(network, layers)
        method = self.make(network, chosen, levels, settings or self.settings)
        plan = method.plan(pick_schedule(schedule, self.scaled, self.published))
        if state is None or state.stage == "train":
            state = fit(method, images, labels, plan, rng, state or begin(method, plan, rng), on_epoch)
            state = _done(state, method.finish(state.point.latent, state.point.memory))
        return _finish(network, chosen, state, images, labels, rng, "nothing", retrain, RETRAIN, on_epoch)


@dataclass(frozen=True, slots=True)
class Computed:
    """A baseline that computes quantized weights; called as `refldnq.baselines.base.Runner` says.

    Parameters
    ----------
    quantize : callable
        Quantizes a network, given layers, levels, images, generator and settings. Not called if the run goes
        on from a state.
    free : {'nothing', 'scale', 'values'}
        What a retraining moves of a quantized layer; its schedule is the run's.
    settings : object, optional
        In place of the method's defaults.
    """

    quantize: Callable[[Network, tuple[str, ...], int, Array, np.random.Generator, Any], Quantized]
    free: Free
    settings: Any = None

    def __call__(
        self,
        network: Network,
        images: Array,
        labels: Int64Array | None,
        *,
        levels: int,
        rng: np.random.Generator,
        schedule: Name | Schedule = "scaled",
        layers: tuple[str, ...] | None = None,
        retrain: bool = False,
        on_epoch: Callable[[LoopState], None] | None = None,
        state: LoopState | None = None,
        settings: Any = None,
    ) -> BaselineResult:
        """Quantize a network."""
        chosen = chosen_layers(network, layers)
        plan = pick_schedule(schedule, RETRAIN, RETRAIN)
        if retrain and labels is None:
            raise ValueError("`labels` must be given for training, got None.")
        if state is None:
            found = self.quantize(network, chosen, levels, images, rng, settings or self.settings)
            nothing = Retrain(network=network, layers=network.weighted)
            state = _done(begin(nothing, plan, rng), found)
        return _finish(network, chosen, state, images, labels, rng, self.free, retrain, plan, on_epoch)


def _done(state: LoopState, found: Quantized) -> LoopState:
    return replace(
        state,
        params=merged(state.params, found.arrays),
        quantized=found.codes,
        mean_levels=found.mean_levels,
    )


def _finish(
    network: Network,
    layers: tuple[str, ...],
    state: LoopState,
    images: Array,
    labels: Int64Array | None,
    rng: np.random.Generator,
    free: Free,
    retrain: bool,
    schedule: Schedule,
    on_epoch: Callable[[LoopState], None] | None,
) -> BaselineResult:
    """The retraining, if it is asked for and something can move, and the result."""
    params, codes = state.params, state.quantized
    if retrain:
        quantized = network.replace({name: params[name] for name in network.params})
        method = Retrain(network=quantized, layers=layers, codes=codes, free=free)
        if state.stage == "train":
            state = begin(method, schedule, rng, "retrain", state)
        if state.point.latent:
            state = fit(method, images, labels, schedule, rng, state, on_epoch)
            found = method.finish(state.point.latent, state.point.memory)
            params, codes = merged(state.params, found.arrays), found.codes
    return BaselineResult(
        network=network.replace({name: params[name] for name in network.params}),
        quantized=codes,
        labels_used=bool(state.history),
        steps=state.steps,
        epochs=len(state.history),
        images=state.images,
        skipped=tuple(name for name in network.weighted if name not in layers),
        mean_levels=state.mean_levels,
        history=state.history,
    )
