"""Step 4 of Algorithm 1: the weights update of the layers that are not yet quantized.

With layers 1..l quantized and frozen, the parameters behind them learn, by backpropagation, to give the
teacher's final output again. The student sees only what the frozen prefix lets through, so the prefix is
evaluated once for every copy of the images, not once an epoch: the update starts from the activations at the
cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Literal

import numpy as np

from refldnq._checks import check_choice, check_integer, check_number
from refldnq._typing import Array, Int64Array, NetworkParams
from refldnq.data.sampling import shuffled_batches
from refldnq.layers.base import Mode
from refldnq.layers.relu import ReLU
from refldnq.loss import distillation, output_error
from refldnq.network import Live, Network, Run
from refldnq.optim import Tree, learning_rate, optimizer_from


@dataclass(frozen=True, kw_only=True, slots=True)
class UpdateSettings:
    """How the weights behind the cut are updated.

    Parameters
    ----------
    epochs : int, optional
        Passes over the images in each step of Algorithm 1.
    batch_size : int, optional
        Most images a step of the optimizer; the batches of an epoch differ by at most one image.
    loss : {'output', 'distillation'}, optional
        What is minimized: the output error (6), as in the paper, or the divergence of the class
        probabilities at `temperature`.
    temperature : float, optional
        See `loss`.
    intermediate : float, optional
        How much the error of intermediate outputs counts beside `loss`, each in units that make its
        reference's mean squared norm that of the final output's; 0, as in the paper, leaves it out.
    features : {'last', 'blocks'}, optional
        Which outputs `intermediate` means: the last weighted layer's input, or those of all ReLUs that
        nothing passes by, in a residual network its blocks' outputs. These take much memory: for 500 images
        200 MB in ResNet-20, gigabytes at 224x224.
    optimizer : {'adam', 'sgd'}, optional
        The rule.
    learning_rate : float, optional
        The rate of the first step.
    schedule : {'cosine', 'constant'}, optional
        How the rate falls over the steps of one update.
    momentum, weight_decay : float, optional
        SGD's momentum; L2 penalty of either rule.
    weights : bool, optional
        Whether weights and biases of convolutions and linear layers move.
    affine : bool, optional
        Whether the scale and shift of batch normalization move.
    statistics : {'running', 'batch'}, optional
        What batch normalization uses behind the cut: its running statistics, which stand still; or the
        batch's, while the running ones follow (train mode).
    copies : int, optional
        Versions of the images in one step of Algorithm 1; an epoch uses one of them, in turn.
    pool : int, optional
        Versions in the whole run: one is the images as they are, the others are cropped and flipped.
        Steps take them in turn. 1 means no augmentation.
    crop : int, optional
        Zeros added on each side before a random crop to the old size, in pixels.
    flip : bool, optional
        Whether half of the images are mirrored left to right.
    mix : float, optional
        Largest weight of a second image in an image of a version, 0 to 0.5; 0 mixes nothing.
    patience : int, optional
        Stop after so many epochs without a relative fall of the epoch's mean loss by `tolerance`, or of the
        loss on the images left out if there are any; 0 never stops.
    tolerance : float, optional
        See `patience`.
    validation : float, optional
        Share of the images, spread evenly over them, that an update leaves out to choose its length by: the
        loss on them as they are, in eval mode, is taken before the first and after every epoch, and what is
        returned is the state where it was least. 0, as in the paper, leaves none out. Not with `mix`, which
        would learn from them.

    Raises
    ------
    ValueError
        If a setting is out of range, or `mix` is asked for together with `validation` or without versions to
        mix.

    Notes
    -----
    The paper does not state how it updates; the defaults are chosen here, on training images alone. They were
    first chosen in prototypes by how many held-out training images were classified right, so labels entered;
    the rows of ``benchmarks/study.py`` need none and tell the same. Output error of ResNet-20 on 5,000 of
    these images, 8 epochs a layer, 8 versions a step from a pool of 64: 75.2, 76.8, 78.3 with three seeds.
    One change, the first seed: 81.1 from a pool of 8, 92.7 with running statistics, 80.8 with batches of 25,
    77.2 of 100, 91.8 with a rate of 3e-3, 77.0 with 5e-4, 83.8 without mirroring, 76.5 with mixtures (`mix`
    0.5). Only changes well beyond the spread of the seeds count: fixed versions, running statistics, small
    batches, the large rate, no mirroring.
    """

    epochs: int = 16
    batch_size: int = 50
    loss: Literal["output", "distillation"] = "output"
    temperature: float = 4.0
    intermediate: float = 0.0
    features: Literal["last", "blocks"] = field(default="last", metadata={"later": True})
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: float = 1e-3
    schedule: Literal["cosine", "constant"] = "cosine"
    momentum: float = 0.9
    weight_decay: float = 0.0
    weights: bool = True
    affine: bool = True
    statistics: Literal["running", "batch"] = "batch"
    copies: int = 16
    pool: int = 96
    crop: int = 4
    flip: bool = True
    mix: float = 0.0
    patience: int = 0
    tolerance: float = 1e-3
    validation: float = field(default=0.0, metadata={"later": True})

    def __post_init__(self) -> None:
        check_integer("epochs", self.epochs, at_least=1)
        check_integer("batch_size", self.batch_size, at_least=1)
        check_choice("loss", self.loss, ("output", "distillation"))
        object.__setattr__(self, "temperature", check_number("temperature", self.temperature, above=0))
        object.__setattr__(self, "intermediate", check_number("intermediate", self.intermediate, at_least=0))
        check_choice("features", self.features, ("last", "blocks"))
        check_choice("optimizer", self.optimizer, ("adam", "sgd"))
        object.__setattr__(self, "learning_rate", check_number("learning_rate", self.learning_rate, above=0))
        check_choice("schedule", self.schedule, ("cosine", "constant"))
        object.__setattr__(self, "momentum", check_number("momentum", self.momentum, at_least=0))
        object.__setattr__(self, "weight_decay", check_number("weight_decay", self.weight_decay, at_least=0))
        check_choice("statistics", self.statistics, ("running", "batch"))
        check_integer("copies", self.copies, at_least=1)
        if check_integer("pool", self.pool, at_least=1) < self.copies:
            raise ValueError(f"`pool` must be at least `copies`, {self.copies}, got {self.pool}.")
        check_integer("crop", self.crop, at_least=0)
        object.__setattr__(self, "mix", check_number("mix", self.mix, at_least=0))
        if not self.mix <= 0.5:
            raise ValueError(f"`mix` must be at most 0.5, got {self.mix}.")
        check_integer("patience", self.patience, at_least=0)
        object.__setattr__(self, "tolerance", check_number("tolerance", self.tolerance, at_least=0))
        object.__setattr__(self, "validation", check_number("validation", self.validation, at_least=0))
        if not self.validation <= 0.5:
            raise ValueError(f"`validation` must be at most 0.5, got {self.validation}.")
        if self.validation and self.mix:
            raise ValueError(f"`validation` must be 0 if images are mixed, got {self.validation}.")
        if self.mix and self.pool == 1:
            raise ValueError(f"`pool` must be greater than 1 if images are mixed, got {self.pool}.")
        if not (self.weights or self.affine):
            raise ValueError("`weights` or `affine` must be True: nothing would move.")

    def lasting(self, epochs: int) -> UpdateSettings:
        """So many epochs, each with a version of its own, as far as the pool goes, if these have that too.

        Parameters
        ----------
        epochs : int
            At least 1.

        Returns
        -------
        UpdateSettings

        Raises
        ------
        ValueError
            If `epochs` is below 1.

        Examples
        --------
        >>> UpdateSettings(epochs=1, copies=1).lasting(4).copies, UpdateSettings(copies=1).lasting(4).copies
        (4, 1)
        """
        copies = self.pool if self.copies >= self.epochs else self.copies
        return replace(self, epochs=epochs, copies=min(epochs, copies))


@dataclass(frozen=True, slots=True)
class Copy:
    """One version of the images at a cut: the outputs alive there, and the teacher's final output.

    Parameters
    ----------
    live : mapping of str to Array
        First axis: images.
    target : Array, shape (n, k)
        What the teacher says of the same version.
    features : tuple of Array, shapes (n, ...)
        The teacher's outputs at the places of `intermediate_places`, from the cut on.
    """

    live: Live
    target: Array
    features: tuple[Array, ...] = ()


def intermediate_places(network: Network, cut: int, settings: UpdateSettings) -> tuple[tuple[int, str], ...]:
    """Which outputs behind a cut are compared beside the final one.

    Parameters
    ----------
    network : Network
        The teacher or the student.
    cut : int
        Position of the first layer that may move.
    settings : UpdateSettings
        `intermediate` and `features`.

    Returns
    -------
    tuple of (int, str)
        Positions behind the cut, ascending, and the name of an output that is alive there.

    Examples
    --------
    >>> from refldnq.layers import Linear, ReLU
    >>> from refldnq.network import Node
    >>> nodes = (
    ...     Node("a", Linear(1, 1, bias=False), ("input",)),
    ...     Node("relu", ReLU(), ("a",)),
    ...     Node("b", Linear(1, 1, bias=False), ("relu",)),
    ... )
    >>> network = Network(nodes, {"a": {"weight": np.ones((1, 1))}, "b": {"weight": np.ones((1, 1))}}, (1,))
    >>> intermediate_places(network, 0, UpdateSettings(intermediate=1.0))
    ((2, 'relu'),)
    """
    if not settings.intermediate:
        return ()
    if settings.features == "last":
        head = network.weighted[-1]
        places = [(network.position(head), network[head].inputs[0])]
    else:
        behind = [(i + 1, node) for i, node in enumerate(network.nodes[:-1]) if isinstance(node.layer, ReLU)]
        places = [(stop, node.name) for stop, node in behind if network.alive(stop) == (node.name,)]
    return tuple(place for place in places if place[0] > cut)


@dataclass(frozen=True, slots=True)
class UpdateResult:
    """The network after the update.

    Parameters
    ----------
    network : Network
        With the moved parameters; everything before the cut is unchanged.
    losses : tuple of float
        Mean loss of the batches of each epoch that counts: the output error (6), squared units of the output
        per image. With images left out only the epochs up to the chosen length count.
    steps : int
        Steps of the optimizer, in all epochs.
    images : int
        Image passes: images summed over all steps.
    arrays : mapping of str to mapping of str to Array
        What has moved, as the optimizer holds it.
    validation : tuple of float
        Mean loss on the images left out, before the first and after every epoch; empty without.
    """

    network: Network
    losses: tuple[float, ...]
    steps: int
    images: int
    arrays: Tree = field(default_factory=dict)
    validation: tuple[float, ...] = ()


@dataclass(frozen=True)
class Moving:
    """What the optimizer moves, and how the network's arrays depend on it; here they are the arrays.

    Parameters
    ----------
    arrays : mapping of str to mapping of str to Array
        Where it starts, by layer and name.
    """

    arrays: Tree

    def start(self) -> None:
        """An update begins: what is remembered of the steps of another one is forgotten; here nothing is."""

    def place(self, arrays: Tree) -> NetworkParams:
        """The network's arrays."""
        return arrays

    def pull(self, arrays: Tree, gradients: NetworkParams) -> Tree:
        """The gradient with respect to what moves, from that of the network's arrays."""
        return gradients

    def after(self, arrays: Tree) -> Tree:
        """What a step's result becomes before the network takes it; here unchanged."""
        return arrays


def moving_arrays(network: Network, cut: int, settings: UpdateSettings) -> dict[str, dict[str, Array]]:
    """The arrays that the update may move: those of layers at or behind `cut`, by layer and name.

    Parameters
    ----------
    network : Network
        The student.
    cut : int
        Position of the first layer that may move.
    settings : UpdateSettings
        Which kinds of arrays move.
    """
    groups = (("weights", "biases") if settings.weights else ()) + (("affine",) if settings.affine else ())
    arrays: dict[str, dict[str, Array]] = {}
    for group in groups:
        for name, key in network.groups[group]:
            if network.position(name) >= cut:
                arrays.setdefault(name, {})[key] = network.params[name][key]
    return arrays


def update(
    network: Network,
    cut: int,
    copies: Sequence[Copy],
    settings: UpdateSettings,
    rng: np.random.Generator,
    *,
    moving: Moving | None = None,
    plain: Copy | None = None,
) -> UpdateResult:
    r"""Minimize the output error over the parameters behind a cut.

    .. math::
        \min_{\bar\Theta_{[l+1..L]}}
        \|f(\hat Y^l;\bar\Theta_{[l+1..L]}) - f(Y^l;\bar\Theta^{teacher}_{[l+1..L]})\|_F^2

    Parameters
    ----------
    network : Network
        The student; layers before `cut` are frozen.
    cut : int
        Position of the first layer that may move.
    copies : sequence of Copy
        Versions of the images at the cut, with the teacher's outputs; epoch e uses version e modulo their
        number.
    settings : UpdateSettings
        Optimizer, schedule, length, what moves.
    rng : numpy.random.Generator
        Orders the images.
    moving : Moving, optional
        What moves in place of `moving_arrays`.
    plain : Copy, optional
        The images as they are, for the loss on those that are left out; the first of `copies` by default.

    Returns
    -------
    UpdateResult

    Raises
    ------
    ValueError
        If there is no copy, a copy lacks the features that the settings ask for, or the loss becomes NaN or
        infinite.

    Notes
    -----
    [LDNQ] Algorithm 1, step 4, prints the same symbol for the student's and the teacher's parameters, which
    makes zero a useless minimizer; here the teacher keeps the original ones.

    Examples
    --------
    A linear student learns its teacher from the images alone:

    >>> import numpy as np
    >>> from refldnq.layers import Linear
    >>> from refldnq.network import Node
    >>> nodes = (Node("fc", Linear(2, 1, bias=False), ("input",)),)
    >>> student = Network(nodes, {"fc": {"weight": np.zeros((1, 2))}}, (2,))
    >>> x = np.random.default_rng(0).standard_normal((64, 2))
    >>> teacher = student.replace({"fc": {"weight": np.array([[1.0, -2.0]])}})
    >>> settings = UpdateSettings(epochs=50, batch_size=16, optimizer="sgd", learning_rate=0.05, copies=1)
    >>> copy = Copy({"input": x}, teacher.forward(x))
    >>> result = update(student, 0, [copy], settings, np.random.default_rng(1))
    >>> result.network.params["fc"]["weight"].round(3)
    array([[ 1., -2.]])
    """
    if not copies:
        raise ValueError("`copies` must hold at least one version of the images, got none.")
    moving = moving or Moving(moving_arrays(network, cut, settings))
    arrays = moving.arrays
    if not arrays:
        return UpdateResult(network, (), 0, 0)
    moving.start()
    rule = optimizer_from(settings.optimizer, momentum=settings.momentum, weight_decay=settings.weight_decay)
    state = rule.start(arrays)
    params: NetworkParams = network.params
    first = copies[0]
    task = _Task(network, cut, first, settings)
    left = left_out(first.target.shape[0], settings.validation)
    learnt = np.setdiff1d(np.arange(first.target.shape[0]), left)
    watched = _part(plain or first, left)
    count = learnt.size
    del first  # a version can be large
    steps = settings.epochs * -(-count // settings.batch_size)
    losses: list[float] = []
    unseen = [task.loss(watched, params)] if left.size else []
    kept, length = (params, arrays), 0
    done = images = 0
    for epoch in range(settings.epochs):
        copy = copies[epoch % len(copies)]
        total = 0.0
        for batch in shuffled_batches(count, settings.batch_size, rng):
            loss, gradients, statistics = task.gradients(copy, learnt[batch], params, arrays)
            if not np.isfinite(loss):
                raise ValueError(
                    f"`learning_rate` must be small enough for the update to converge, got "
                    f"{settings.learning_rate!r}: the loss is {loss} after {done} steps."
                )
            rate = learning_rate(settings.schedule, settings.learning_rate, done, steps)
            done += 1
            pulled = moving.pull(arrays, gradients)
            stepped, state = rule.step(arrays, pulled, state, rate=rate, count=done)
            arrays = moving.after(stepped)
            params = _merge(_merge(params, moving.place(arrays)), statistics)
            images += batch.size
            total += loss * batch.size
        del copy  # a version can be large, and the next one comes
        losses.append(total / count)
        if left.size:
            unseen.append(task.loss(watched, params))
        if not left.size or unseen[-1] < min(unseen[:-1]):
            kept, length = (params, arrays), len(losses)
        if _stalled(unseen or losses, settings):
            break
    params, arrays = kept
    return UpdateResult(
        network=network.replace(_changed(network, params)),
        losses=tuple(losses[:length]),
        steps=done,
        images=images,
        arrays=arrays,
        validation=tuple(unseen),
    )


def left_out(count: int, share: float) -> Int64Array:
    """Places of the images that updates leave out: the same in every update, so that none learns from them.

    Parameters
    ----------
    count : int
        Number of images.
    share : float
        `UpdateSettings.validation`.

    Returns
    -------
    Array
        Ascending; at least one and not all of them if `share` is not 0.

    Raises
    ------
    ValueError
        If there is a single image.

    Examples
    --------
    >>> left_out(10, 0.2)
    array([2, 7])
    """
    if not share:
        return np.empty(0, dtype=np.int64)
    if count < 2:
        raise ValueError(f"`validation` must be 0 for a single image, got {share}.")
    size = max(1, int(share * count))
    return ((np.arange(size) + 0.5) * count / size).astype(np.int64)


def _part(copy: Copy, places: Int64Array) -> Copy:
    live = {name: np.ascontiguousarray(values[places]) for name, values in copy.live.items()}
    return Copy(live, copy.target[places], tuple(own[places] for own in copy.features))


class _Task:
    """The loss behind a cut, and its gradient, on one batch."""

    def __init__(self, network: Network, cut: int, first: Copy, settings: UpdateSettings) -> None:
        self.network, self.cut, self.settings = network, cut, settings
        self.mode: Mode = "train" if settings.statistics == "batch" else "eval"
        self.last = network.nodes[-1].name
        self.places = intermediate_places(network, cut, settings)
        if len(first.features) != len(self.places):
            raise ValueError(
                f"`copies` must hold features at {len(self.places)} places if `intermediate` is "
                f"{settings.intermediate}, got {len(first.features)}."
            )
        whole = settings.intermediate * float(np.vdot(first.target, first.target))
        self.weights = [whole / max(float(np.vdot(own, own)), 1e-30) for own in first.features]

    def _runs(self, live: Live, params: NetworkParams, mode: Mode) -> list[Run]:
        # From the cut to the first place, from there to the next, ..., to the end.
        runs: list[Run] = []
        stops = [self.cut, *(stop for stop, _ in self.places), len(self.network.nodes)]
        for start, stop in pairwise(stops):
            runs.append(self.network.record(live, start, stop, mode=mode, params=params))
            live = runs[-1].live
        return runs

    def loss(self, copy: Copy, params: NetworkParams) -> float:
        """The loss of a copy in eval mode, as many images at a time as a step takes."""
        size, total = self.settings.batch_size, 0.0
        count = copy.target.shape[0]
        for places in np.split(np.arange(count), range(size, count, size)):
            part = _part(copy, places)
            *body, head = self._runs(part.live, params, "eval")
            loss, _ = _loss(head.live[self.last], part.target, self.settings)
            for run, (_, name), weight, wanted in zip(
                body, self.places, self.weights, part.features, strict=True
            ):
                loss += weight * output_error(run.live[name], wanted)[0]
            total += loss * part.target.shape[0]
        return float(total / count)

    def gradients(
        self, copy: Copy, batch: Array, params: NetworkParams, moving: Tree
    ) -> tuple[float, dict[str, dict[str, Array]], NetworkParams]:
        """The loss, its gradient by layer and name, and the statistics that train mode has moved."""
        part = _part(copy, batch)
        *body, head = self._runs(part.live, params, self.mode)
        loss, dy = _loss(head.live[self.last], part.target, self.settings)  # Algorithm 1, step 4
        backward = partial(self.network.backward, moving=moving, params=params)
        dlive, gradients = backward(head, {self.last: dy}, wrt_inputs=bool(body))
        statistics = head.statistics
        for i in reversed(range(len(body))):
            run, name = body[i], self.places[i][1]
            extra, dh = output_error(run.live[name], part.features[i])
            loss += self.weights[i] * extra
            dlive[name] = dlive[name] + dh * dh.dtype.type(self.weights[i])
            dlive, own = backward(run, dlive, wrt_inputs=i > 0)
            gradients |= own
            statistics = _merge(run.statistics, statistics)
        return loss, gradients, statistics


def _loss(y: Array, target: Array, settings: UpdateSettings) -> tuple[float, Array]:
    if settings.loss == "distillation":
        return distillation(y, target, temperature=settings.temperature)
    return output_error(y, target)


def _merge(params: NetworkParams, changes: NetworkParams) -> NetworkParams:
    merged = dict(params)
    for name, own in changes.items():
        merged[name] = {**merged.get(name, {}), **own}
    return merged


def _changed(network: Network, params: NetworkParams) -> NetworkParams:
    return {name: own for name, own in params.items() if own is not network.params[name]}


def _stalled(losses: Sequence[float], settings: UpdateSettings) -> bool:
    if not settings.patience or len(losses) <= settings.patience:
        return False
    before = min(losses[: -settings.patience])
    return min(losses[-settings.patience :]) > before * (1.0 - settings.tolerance)
