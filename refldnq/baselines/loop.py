"""The one training loop of all baselines.

Latent arrays -> quantized weights -> forward and backward there -> the method's gradient of the latent arrays
-> a step of the optimizer -> the method's hook. All that a run remembers leaves it after every epoch, so it
can go on from there bit for bit. The loss of labels is the network's own (`refldnq.network.Network.loss`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from refldnq._typing import Array, Int64Array, NetworkParams
from refldnq.baselines.identity import Identity
from refldnq.baselines.schedule import Schedule
from refldnq.data.augment import augment
from refldnq.data.sampling import shuffled_batches
from refldnq.layer_report import LayerReport
from refldnq.loss import LOSSES
from refldnq.model import QuantizedWeight
from refldnq.network import INPUT, Network
from refldnq.optim import Optimizer, State, Tree
from refldnq.train import check_batches, check_images, check_labelled, dropout_masks, learnable

Stage = Literal["quantize", "train", "retrain"]
"""Weights are computed, layer by layer; or they are trained; what they left free is trained afterwards."""


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """What happened in one pass over the images.

    Parameters
    ----------
    stage : {'train', 'retrain'}
        Whether the method trains, or what it left free is trained afterwards.
    index : int
        Of the stage, from 0.
    loss : float
        Mean loss of the batches, before their steps.
    accuracy : float
        Share of images classified right, as the batches were seen; NaN without labels.
    """

    stage: Stage
    index: int
    loss: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class TrainingPoint:
    """Where a training stands.

    Parameters
    ----------
    latent : mapping of str to mapping of str to Array
        What the optimizer moves, by layer and name.
    memory : mapping of str to mapping of str to Array
        What the method remembers.
    optimizer : mapping
        What the optimizer remembers.
    """

    latent: Tree
    memory: Tree
    optimizer: State


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LoopState:
    """All that a run needs to go on.

    Parameters
    ----------
    stage : {'quantize', 'train', 'retrain'}
        Which one is under way.
    epoch, epochs : int
        Epochs of the stage that are done, and that there will be; of the stage ``quantize``, layers.
    steps, images : int
        Steps of the optimizer and image passes, of all stages.
    params : mapping of str to mapping of str to Array
        The network's arrays as they stand, quantized weights and running statistics included.
    point : TrainingPoint
        Latent arrays, the method's and the optimizer's memory.
    rng : mapping
        State of the random generator.
    run : Identity or None
        The run that the state belongs to; None outside one.
    quantized : mapping of str to QuantizedWeight
        The codes of the layers that are computed, and those that a retraining starts with.
    levels : mapping of str to float
        Of the stage ``quantize``: the values that a weight can take, mean over a layer, by layer computed.
    reports : tuple of LayerReport
        Of the stage ``quantize``: what Algorithm 1 says of the layers computed.
    mean_levels : float
        See `refldnq.baselines.base.BaselineResult`; NaN before there are codes.
    history : tuple of EpochRecord
        One entry an epoch, of all stages.
    """

    stage: Stage
    epoch: int
    epochs: int
    steps: int
    images: int
    params: NetworkParams
    point: TrainingPoint
    rng: Mapping[str, Any]
    run: Identity | None = None
    quantized: Mapping[str, QuantizedWeight] = field(default_factory=dict)
    levels: Mapping[str, float] = field(default_factory=dict)
    reports: tuple[LayerReport, ...] = ()
    mean_levels: float = float("nan")
    history: tuple[EpochRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Loss and gradients of one batch.

    Parameters
    ----------
    loss : float
        The method's loss, mean over the batch.
    output : Array, shape (n, k)
        The network's output.
    gradients : mapping of str to mapping of str to Array
        With respect to the network's arrays.
    statistics : mapping of str to mapping of str to Array
        Batch normalization's running statistics after the batch.
    """

    loss: float
    output: Array
    gradients: NetworkParams
    statistics: NetworkParams


@dataclass(frozen=True, slots=True)
class LayerDone:
    """A layer whose quantized weight is computed.

    Parameters
    ----------
    name : str
        The layer.
    arrays : mapping of str to mapping of str to Array
        The network's arrays that differ from those before the layer.
    code : QuantizedWeight or None
        None if one set of values does not describe the layer.
    levels : float
        The values that a weight can take, mean over the layer.
    total : int
        How many layers there will be.
    report : LayerReport, optional
        Of Algorithm 1.
    """

    name: str
    arrays: NetworkParams
    code: QuantizedWeight | None
    levels: float
    total: int
    report: LayerReport | None = None


@dataclass(frozen=True, slots=True)
class Quantized:
    """What a method ends with.

    Parameters
    ----------
    arrays : mapping of str to mapping of str to Array
        The network's arrays that differ from those of the last step.
    codes : mapping of str to QuantizedWeight
        Of the layers that one set of values a layer describes.
    mean_levels : float
        See `refldnq.baselines.base.BaselineResult`.
    """

    arrays: NetworkParams
    codes: Mapping[str, QuantizedWeight]
    mean_levels: float


Evaluate = Callable[[NetworkParams], Evaluation]
"""Loss and gradients of the batch with these arrays in place of the network's."""

Descend = Callable[[Tree, Tree, State], tuple[dict[str, dict[str, Array]], State]]
"""A step of the optimizer: latent arrays, their gradients, its memory; the new arrays and memory."""


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """A way to train quantized weights.

    Parameters
    ----------
    network : Network
        The well-trained network.
    layers : tuple of str
        The layers that are quantized.
    """

    network: Network
    layers: tuple[str, ...]

    def start(self) -> tuple[Tree, Tree]:
        """The first latent arrays and memory; by default every array that gradients move, and nothing."""
        return learnable_arrays(self.network), {}

    @property
    def labels_used(self) -> bool:
        """Whether labels have an influence."""
        return True

    @abstractmethod
    def place(self, latent: Tree, memory: Tree) -> NetworkParams:
        """The network's arrays: where the loss and its gradients are taken."""

    def pull(self, latent: Tree, memory: Tree, gradients: NetworkParams) -> tuple[Tree, Tree]:
        """The gradient of the latent arrays from that of the network's, and the new memory.

        By default the gradient goes straight through.
        """
        return gradients, memory

    def settle(self, before: Tree, after: Tree, memory: Tree) -> Tree:
        """The latent arrays after a step of the optimizer, which may be clipped or held back."""
        return after

    def plan(self, schedule: Schedule) -> Schedule:
        """The schedule as the method follows it."""
        return schedule

    def begin_epoch(self, epoch: int, point: TrainingPoint, schedule: Schedule) -> TrainingPoint:
        """What happens before an epoch."""
        return point

    def end_step(self, count: int, steps: int, point: TrainingPoint) -> TrainingPoint:
        """What happens after step `count` (from 1) of the run, whose epochs have `steps` steps."""
        return point

    def loss(self, output: Array, x: Array, labels: Int64Array | None) -> tuple[float, Array]:
        """The loss of a batch and its gradient with respect to the output; by default the network's own."""
        assert labels is not None  # `fit` asks for them
        return LOSSES[self.network.loss](output, labels)

    def step(
        self, point: TrainingPoint, rate: float, evaluate: Evaluate, descend: Descend
    ) -> tuple[TrainingPoint, Evaluation]:
        """One step on one batch; `rate` is the schedule's, which `descend` knows already."""
        found = evaluate(self.place(point.latent, point.memory))
        gradients, memory = self.pull(point.latent, point.memory, found.gradients)
        latent, optimizer = descend(point.latent, gradients, point.optimizer)
        return TrainingPoint(self.settle(point.latent, latent, memory), memory, optimizer), found

    @abstractmethod
    def finish(self, latent: Tree, memory: Tree) -> Quantized:
        """The quantized network's arrays and codes."""


def learnable_arrays(network: Network) -> dict[str, dict[str, Array]]:
    """Every array that gradients move, by layer and name.

    Parameters
    ----------
    network : Network
        Any network.
    """
    return {
        name: {key: network.params[name][key] for key in keys} for name, keys in learnable(network).items()
    }


def merged(params: NetworkParams, changes: NetworkParams) -> dict[str, Mapping[str, Array]]:
    """Arrays with some of them exchanged, and others added.

    Parameters
    ----------
    params, changes : mapping of str to mapping of str to Array
        By layer and name.
    """
    result: dict[str, Mapping[str, Array]] = dict(params)
    for name, own in changes.items():
        result[name] = {**result.get(name, {}), **own}
    return result


def begin(
    method: Method,
    schedule: Schedule,
    rng: np.random.Generator,
    stage: Stage = "train",
    previous: LoopState | None = None,
    run: Identity | None = None,
) -> LoopState:
    """The state before a stage's first epoch.

    Parameters
    ----------
    method : Method
        What trains.
    schedule : Schedule
        Its schedule.
    rng : numpy.random.Generator
        The run's.
    stage : {'train', 'retrain'}, optional
        Which stage.
    previous : LoopState, optional
        The end of the stage before; counts go on from there.
    run : Identity, optional
        The run that the stage belongs to.
    """
    latent, memory = method.start()
    return LoopState(
        stage=stage,
        epoch=0,
        epochs=schedule.total,
        steps=0 if previous is None else previous.steps,
        images=0 if previous is None else previous.images,
        params=method.network.params,
        point=TrainingPoint(latent, memory, schedule.rule().start(latent)),
        rng=rng.bit_generator.state,
        run=run,
        quantized={} if previous is None else previous.quantized,
        mean_levels=float("nan") if previous is None else previous.mean_levels,
        history=() if previous is None else previous.history,
    )


def fit(
    method: Method,
    images: Array,
    labels: Int64Array | None,
    schedule: Schedule,
    rng: np.random.Generator,
    state: LoopState,
    on_epoch: Callable[[LoopState], None] | None = None,
) -> LoopState:
    """Train from a state to the end of its stage.

    Parameters
    ----------
    method : Method
        What is trained, and how its gradients arise.
    images : Array, shape (n, *input_shape)
        Preprocessed inputs of the network's type.
    labels : Array, shape (n,), int64, or None
        Class indices; None where the method does not use them.
    schedule : Schedule
        Length, rates, augmentation; `Schedule.for_images` of these.
    rng : numpy.random.Generator
        Orders and augments the images; its state is set to the one in `state`.
    state : LoopState
        From `begin`, or what `on_epoch` was given.
    on_epoch : callable, optional
        Called with the state after every epoch.

    Returns
    -------
    LoopState
        After the last epoch.

    Raises
    ------
    ValueError
        If labels are needed and missing, the images or labels do not fit, a batch has too few for batch
        normalization, the schedule has `most_images`, the state has another number of epochs than it, or
        training diverges.
    TypeError
        If the images' type is not the network's, or the labels are not integers.
    """
    if labels is None and method.labels_used:
        raise ValueError("`labels` must be given for training, got None.")
    count = check_images(method.network, images)
    if labels is not None:
        check_labelled(method.network, images, labels)
    if schedule.statistics == "batch":
        check_batches(method.network, 0, count, schedule.batch_size)
    if schedule.most_images is not None:
        raise ValueError(f"`schedule` must be `for_images` of {count} images, got {schedule}.")
    if state.epochs != schedule.total:
        raise ValueError(f"`state` must be of a run of {schedule.total} epochs, got one of {state.epochs}.")
    rng.bit_generator.state = dict(state.rng)
    rule = schedule.rule()
    for epoch in range(state.epoch, schedule.total):
        point = state.point
        if epoch and epoch % schedule.epochs == 0:  # rates start anew, and so does the optimizer's memory
            point = replace(point, optimizer=rule.start(point.latent))
        point = method.begin_epoch(epoch, point, schedule)
        params, steps = state.params, state.steps
        loss = hits = 0.0
        batches = shuffled_batches(count, schedule.batch_size, rng)
        for index, batch in enumerate(batches):
            x = images[batch]
            if x.ndim == 4 and (schedule.crop or schedule.flip):
                x = augment(x, rng, crop=schedule.crop, flip=schedule.flip)
            rate, steps = schedule.rate(epoch, index, len(batches)), steps + 1
            since = epoch % schedule.epochs * len(batches) + index + 1  # steps of the cycle
            task = _Batch(
                method,
                schedule,
                merged(params, dropout_masks(method.network, len(batch), rng)),
                x,
                None if labels is None else labels[batch],
            )
            descend = _Descent(method.network, schedule, rule, rate, since)
            with np.errstate(over="ignore", invalid="ignore"):  # divergence is reported below, once
                point, found = method.step(point, rate, task.evaluate, descend.step)
            if not (np.isfinite(found.loss) and _is_finite(point.latent)):
                raise ValueError(
                    f"`schedule` must have a rate small enough for training to converge, got "
                    f"{schedule.learning_rate!r}: the loss is {found.loss} in epoch {epoch}."
                )
            params = merged(params, found.statistics)
            point = method.end_step(epoch * len(batches) + index + 1, len(batches), point)
            loss += found.loss * batch.size
            right = np.nan if task.labels is None else np.sum(found.output.argmax(axis=1) == task.labels)
            hits += float(right)
        record = EpochRecord(state.stage, epoch, loss / count, hits / count)
        state = replace(
            state,
            epoch=epoch + 1,
            steps=steps,
            images=state.images + count,
            params=merged(params, method.place(point.latent, point.memory)),
            point=point,
            rng=rng.bit_generator.state,
            history=(*state.history, record),
        )
        if on_epoch is not None:
            on_epoch(state)
    return state


def _is_finite(tree: Tree) -> bool:
    return all(bool(np.isfinite(array).all()) for own in tree.values() for array in own.values())


@dataclass(frozen=True, slots=True)
class _Batch:
    """One batch of images and the network's arrays before its step."""

    method: Method
    schedule: Schedule
    params: NetworkParams
    x: Array
    labels: Int64Array | None

    def evaluate(self, arrays: NetworkParams) -> Evaluation:
        network = self.method.network
        last, end = network.nodes[-1].name, len(network.nodes)
        params = merged(self.params, arrays)
        mode: Literal["train", "eval"] = "train" if self.schedule.statistics == "batch" else "eval"
        run = network.record({INPUT: self.x}, 0, end, mode=mode, params=params)
        value, dy = self.method.loss(run.live[last], self.x, self.labels)
        _, gradients = network.backward(run, {last: dy}, moving=arrays, params=params)
        return Evaluation(value, run.live[last], gradients, run.statistics)


@dataclass(frozen=True, slots=True)
class _Descent:
    """One step of the optimizer."""

    network: Network
    schedule: Schedule
    rule: Optimizer
    rate: float
    count: int

    def step(self, latent: Tree, gradients: Tree, memory: State) -> tuple[dict[str, dict[str, Array]], State]:
        if self.schedule.weight_decay:
            gradients = {
                name: {
                    key: self._penalized(name, key, array, gradients[name][key]) for key, array in own.items()
                }
                for name, own in latent.items()
            }
        return self.rule.step(latent, gradients, memory, rate=self.rate, count=self.count)

    def _penalized(self, name: str, key: str, array: Array, gradient: Array) -> Array:
        if self.schedule.decays == "weights" and (name, key) not in self.network.groups["weights"]:
            return gradient
        penalized: Array = gradient + self.schedule.weight_decay * array
        return penalized
