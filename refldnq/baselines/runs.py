"""A run of a baseline: up to two stages, resumable between any two epochs or layers.

First the method trains quantized weights, or computes them layer by layer; then, if asked for, what they left
free is trained with labels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from refldnq._typing import Array, Int64Array
from refldnq.baselines.base import BaselineResult, chosen_layers, pick_schedule
from refldnq.baselines.codes import mean_over_weights
from refldnq.baselines.identity import Identity, identity_of
from refldnq.baselines.loop import LayerDone, LoopState, Method, TrainingPoint, begin, fit, merged
from refldnq.baselines.retrain import RETRAIN, Free, Retrain
from refldnq.baselines.schedule import Name, Schedule
from refldnq.network import Network
from refldnq.train import check_images, learnable

Resolve = Callable[[Any, int], Any]
"""Settings as a method follows them: given its settings and a number of levels; ValueError if there is no
such set of values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """The settings that a baseline's runs have if nothing else is said.

    Parameters
    ----------
    settings : object
        The method's defaults.
    resolve : callable, optional
        Settings as the method follows them with so many levels, where they leave something to be chosen.
    """

    settings: Any
    resolve: Resolve | None = None

    def resolved(self, levels: int, settings: Any = None) -> Any:
        """The settings of a run, none of them left open.

        Parameters
        ----------
        levels : int
            Number of values of a quantized weight.
        settings : object, optional
            In place of the defaults.
        """
        own = self.settings if settings is None else settings
        return own if self.resolve is None else self.resolve(own, levels)


@dataclass(frozen=True, slots=True)
class Trained(Defaults):
    """A baseline that trains; called as `refldnq.baselines.base.Runner` says.

    Parameters
    ----------
    name : str
        The baseline's.
    make : callable
        The method of a network, layers, levels and settings.
    scaled, published : Schedule
        What the names of `refldnq.baselines.schedule.Name` mean. A retraining has its own, `RETRAIN`, on the
        same versions of the images.
    settings, resolve
        See `Defaults`.
    """

    name: str
    make: Callable[[Network, tuple[str, ...], int, Any], Method]
    scaled: Schedule
    published: Schedule

    def plan(
        self, network: Network, layers: tuple[str, ...], levels: int, schedule: Name | Schedule
    ) -> Schedule:
        """The schedule as the method follows it with its default settings.

        Parameters
        ----------
        network : Network
            The well-trained network.
        layers : tuple of str
            What is quantized.
        levels : int
            Number of values of a quantized weight.
        schedule : {'scaled', 'published'} or Schedule
            What is asked for.
        """
        method = self.make(network, layers, levels, self.resolved(levels))
        return method.plan(pick_schedule(schedule, self.scaled, self.published))

    def retraining(self, plan: Schedule) -> Schedule:
        """The schedule of a retraining behind a training.

        Parameters
        ----------
        plan : Schedule
            Of the training, whose versions of the images it sees.
        """
        return replace(RETRAIN, crop=plan.crop, flip=plan.flip, most_images=plan.most_images)

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
        chosen, how = chosen_layers(network, layers), self.resolved(levels, settings)
        method = self.make(network, chosen, levels, how)
        _check(network, images, labels, method.labels_used or retrain)
        asked = method.plan(pick_schedule(schedule, self.scaled, self.published))
        plan, after = (each.for_images(len(images)) for each in (asked, self.retraining(asked)))
        _check_free(network, chosen, "nothing", retrain)
        own = identity_of(self.name, how, plan, after, levels, chosen, network, images, labels)
        _check_state(state, own, retrain)
        if state is None or state.stage == "train":
            state = fit(
                method, images, labels, plan, rng, state or begin(method, plan, rng, run=own), on_epoch
            )
            found = method.finish(state.point.latent, state.point.memory)
            state = replace(
                state,
                params=merged(state.params, found.arrays),
                quantized=found.codes,
                mean_levels=found.mean_levels,
            )
        used = method.labels_used
        return _finish(network, chosen, state, images, labels, rng, "nothing", retrain, after, on_epoch, used)


Quantize = Callable[
    [
        Network,
        tuple[str, ...],
        int,
        Array,
        np.random.Generator,
        Any,
        LoopState,
        Callable[[LayerDone], None],
    ],
    None,
]
"""Computes the quantized weights of a network: given layers, levels, images, generator, settings, a state of
the stage ``quantize`` whose first `epoch` layers are done, and what to call after every other layer."""


@dataclass(frozen=True, slots=True)
class Computed(Defaults):
    """A baseline that computes quantized weights; called as `refldnq.baselines.base.Runner` says.

    Parameters
    ----------
    name : str
        The baseline's.
    quantize : callable
        See `Quantize`.
    free : {'nothing', 'scale', 'values'}
        What a retraining moves of a quantized layer; its schedule is the run's.
    settings, resolve
        See `Defaults`.
    """

    name: str
    quantize: Quantize
    free: Free

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
        chosen, how = chosen_layers(network, layers), self.resolved(levels, settings)
        _check(network, images, labels, retrain)
        plan = pick_schedule(schedule, RETRAIN, RETRAIN).for_images(len(images))
        _check_free(network, chosen, self.free, retrain)
        own = identity_of(self.name, how, plan, None, levels, chosen, network, images, labels)
        _check_state(state, own, retrain)
        now = state or LoopState(
            stage="quantize",
            epoch=0,
            epochs=len(chosen),
            steps=0,
            images=0,
            params=network.params,
            point=TrainingPoint({}, {}, {}),
            rng=rng.bit_generator.state,
            run=own,
        )

        def tell(done: LayerDone) -> None:
            nonlocal now
            reached = {**now.levels, done.name: done.levels}
            now = replace(
                now,
                epoch=now.epoch + 1,
                epochs=done.total,
                params=merged(now.params, done.arrays),
                rng=rng.bit_generator.state,
                quantized=now.quantized if done.code is None else {**now.quantized, done.name: done.code},
                levels=reached,
                reports=now.reports if done.report is None else (*now.reports, done.report),
                mean_levels=mean_over_weights(network, reached),
            )
            if on_epoch is not None:
                on_epoch(now)

        if now.stage == "quantize":
            rng.bit_generator.state = dict(now.rng)
            if now.epoch < now.epochs:
                self.quantize(network, chosen, levels, images, rng, how, now, tell)
        return _finish(network, chosen, now, images, labels, rng, self.free, retrain, plan, on_epoch, False)


def _check(network: Network, images: Array, labels: Int64Array | None, needed: bool) -> None:
    check_images(network, images)
    if needed and labels is None:
        raise ValueError("`labels` must be given for training, got None.")


def _check_free(network: Network, layers: tuple[str, ...], free: Free, retrain: bool) -> None:
    # Before the quantization, which may take long: what `refldnq.train.fine_tune` refuses after it.
    if retrain and free == "nothing" and not set(learnable(network)) - set(layers):
        raise ValueError(f"`layers` must leave an array to move, got all of {list(network.weighted)}.")


def _check_state(state: LoopState | None, own: Identity, retrain: bool) -> None:
    if state is None:
        return
    if state.run is None:
        raise ValueError("`state` must be of a run of a baseline, got one of a training by itself.")
    difference = state.run.difference(own)
    if difference:
        raise ValueError(f"`state` must be of the same run, got one that differs in {difference}.")
    if state.stage == "retrain" and not retrain:
        raise ValueError("`retrain` must be True to go on from the state of a retraining, got False.")


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
    labels_used: bool,
) -> BaselineResult:
    """The retraining, if it is asked for, and the result."""
    params, codes = state.params, state.quantized
    if retrain:
        quantized = network.replace({name: params[name] for name in network.params})
        method = Retrain(network=quantized, layers=layers, codes=codes, free=free)
        if state.stage != "retrain":
            state = begin(method, schedule, rng, "retrain", state, state.run)
        state = fit(method, images, labels, schedule, rng, state, on_epoch)
        found = method.finish(state.point.latent, state.point.memory)
        params, codes = merged(state.params, found.arrays), found.codes
    retrained = any(record.stage == "retrain" for record in state.history)
    return BaselineResult(
        network=network.replace({name: params[name] for name in network.params}),
        quantized=codes,
        labels_used=labels_used or retrained,
        steps=state.steps,
        epochs=len(state.history),
        images=state.images,
        skipped=tuple(name for name in network.weighted if name not in layers),
        mean_levels=state.mean_levels,
        history=state.history,
    )
