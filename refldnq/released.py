"""The parts of the authors' released code (2019) that differ from the paper and lie outside the solver.

The profile ``released-2019`` of Algorithm 1 replaces the exact Hessian and the weights update by these, so
that the published code's results can be understood: each difference is named where it happens. The solver's
own differences (penalty, cold starts, stopping, ties) are settings of `solvers.admm`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from refldnq._checks import check_integer
from refldnq._typing import Array, Float64Array, NetworkParams
from refldnq.data.augment import augment
from refldnq.layers.base import LinearMap
from refldnq.layers.conv import Conv2d
from refldnq.loss import output_error
from refldnq.network import INPUT, Network
from refldnq.optim import SGD
from refldnq.update import UpdateResult, UpdateSettings, moving_arrays

HESSIAN_IMAGES = 202
"""101 batches of 2 images."""


def same_padding(layer: Conv2d, h: int, w: int) -> tuple[int, int, int, int]:
    """TensorFlow's SAME padding of an image of h by w pixels: the odd zero goes to the bottom and right.

    Examples
    --------
    At stride 2 an even image gets no zero at the top and left, where the network has one:

    >>> same_padding(Conv2d(1, 1, 3, 2, 1), 8, 8)
    (0, 1, 0, 1)
    """
    sides: list[int] = []
    for size, kernel, stride, dilation in zip(
        (h, w), layer.window.kernel, layer.window.stride, layer.window.dilation, strict=True
    ):
        out = -(-size // stride)
        total = max(0, (out - 1) * stride + dilation * (kernel - 1) + 1 - size)
        sides += [total // 2, total - total // 2]
    return sides[0], sides[1], sides[2], sides[3]


def released_hessian(layer: LinearMap, x: Array, *, bias: bool) -> Float64Array:
    """The matrix that the released code takes for the Hessian block.

    Parameters
    ----------
    layer : LinearMap
        A linear layer or a convolution.
    x : Array, shape (n, ...)
        The layer's input; the first 202 images are used, or all if there are fewer.
    bias : bool
        Whether the patches get a constant 1, as the code does for linear layers.

    Returns
    -------
    Array, shape (g, d, d), float64

    Notes
    -----
    Three deviations from (10): a convolution's rows are in order (kh, kw, c) while its weights are in order
    (c, kh, kw); its patches have TensorFlow's SAME padding; and the mean is over images *and* positions,
    without the factor 2, times 101/100, because 101 batches are summed and divided by 100.

    Examples
    --------
    >>> import numpy as np
    >>> layer, x = Conv2d(2, 1, 1, bias=False), np.ones((4, 2, 3, 3))
    >>> released_hessian(layer, x, bias=False)[0]
    array([[1.01, 1.01],
           [1.01, 1.01]])
    """
    x = x[:HESSIAN_IMAGES]
    check_integer("n", x.shape[0], at_least=1)
    if not isinstance(layer, Conv2d):
        linear: Float64Array = 1.01 * layer.gram(x, bias=bias) / x.shape[0]
        return linear
    layer = replace(layer, padding=same_padding(layer, *x.shape[2:]))
    _, ho, wo = layer.output_shape(x.shape[1:])
    gram = 1.01 * layer.gram(x, bias=bias) / (x.shape[0] * ho * wo)
    channels, taps = layer.in_channels // layer.groups, layer.window.kernel[0] * layer.window.kernel[1]
    order = np.arange(channels * taps).reshape(channels, taps).T.ravel()
    order = np.concatenate([order, np.arange(channels * taps, gram.shape[1])])
    return np.ascontiguousarray(gram[:, order][:, :, order])


@dataclass(frozen=True, kw_only=True, slots=True)
class ReleasedUpdate:
    """Settings of the released code's update.

    Parameters
    ----------
    max_epochs : int, optional
        The code has no limit; 10 bounds the time here and is reported with every result.
    learning_rate, momentum, weight_decay : float, optional
        SGD's, the code's values.
    batch_size : int, optional
        The code's; what is left over after whole batches is dropped.
    """

    max_epochs: int = 10
    learning_rate: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 128

    def __post_init__(self) -> None:
        check_integer("max_epochs", self.max_epochs, at_least=1)
        check_integer("batch_size", self.batch_size, at_least=1)


def released_update(
    student: Network,
    teacher: Network,
    images: Array,
    frozen: frozenset[str],
    settings: ReleasedUpdate,
    rng: np.random.Generator,
) -> UpdateResult:
    """The released code's weights update: both networks in train mode on cropped and flipped batches.

    Parameters
    ----------
    student, teacher : Network
        The partly quantized and the reference network.
    images : Array, shape (n, 3, 32, 32)
        Preprocessed images.
    frozen : frozenset of str
        The quantized layers.
    settings : ReleasedUpdate
        Length and rates.
    rng : numpy.random.Generator
        Order of the images, crops and flips.

    Returns
    -------
    UpdateResult

    Notes
    -----
    Deviations from Algorithm 1: the teacher normalizes by its batch statistics (its running ones drift in the
    released code, where nothing reads them, so they are left alone here); batch normalization before the cut
    moves too; the loss is the mean over images *and* outputs, its running average
    over all epochs so far is compared from check to check (every 10 batches, or every epoch if it has fewer),
    and three rises, or changes below 1e-4, in a row stop the update.

    Examples
    --------
    >>> import numpy as np
    >>> from refldnq.layers import Flatten, Linear
    >>> from refldnq.network import Node
    >>> nodes = (Node("flat", Flatten(), ("input",)), Node("fc", Linear(4, 1, bias=False), ("flat",)))
    >>> network = Network(nodes, {"fc": {"weight": np.ones((1, 4))}}, (1, 2, 2))
    >>> x = np.random.default_rng(0).standard_normal((8, 1, 2, 2))
    >>> settings = ReleasedUpdate(batch_size=4, max_epochs=2)
    >>> result = released_update(network, network, x, frozenset(), settings, np.random.default_rng(0))
    >>> result.images
    16
    """
    rule = SGD(momentum=settings.momentum, weight_decay=settings.weight_decay)
    everything = moving_arrays(student, 0, UpdateSettings())
    arrays = {name: own for name, own in everything.items() if name not in frozen}
    state = rule.start(arrays)
    params: NetworkParams = student.params
    end, last = len(student.nodes), student.nodes[-1].name
    size = min(settings.batch_size, images.shape[0])
    batches = images.shape[0] // size
    losses: list[float] = []
    total, done, previous, stalled = 0.0, 0, np.inf, 0
    for _ in range(settings.max_epochs):
        order, epoch_loss = rng.permutation(images.shape[0]), 0.0
        for b in range(batches):
            x = augment(images[order[b * size : (b + 1) * size]], rng, crop=4, flip=True)
            target = teacher.advance({INPUT: x}, 0, end, mode="train")[last]
            run = student.record({INPUT: x}, 0, end, mode="train", params=params)
            loss, dy = output_error(run.live[last], target)
            if not np.isfinite(loss):
                raise ValueError(
                    f"`learning_rate` must be small enough for the update to converge, got "
                    f"{settings.learning_rate!r}: the loss is {loss} after {done} steps."
                )
            outputs = dy.shape[1]
            _, gradients = student.backward(
                run, {last: dy / dy.dtype.type(outputs)}, moving=arrays, params=params
            )
            done += 1
            arrays, state = rule.step(arrays, gradients, state, rate=settings.learning_rate, count=done)
            params = _with(_with(params, arrays), run.statistics)
            total += loss / outputs
            epoch_loss += loss
            if done % min(10, batches) == 0:
                average = total / done
                stalled = stalled + 1 if average > previous or abs(average - previous) < 1e-4 else 0
                previous = average
            if stalled >= 3:
                break
        losses.append(epoch_loss / (b + 1))
        if stalled >= 3:
            break
    moved = {name: own for name, own in params.items() if own is not student.params[name]}
    return UpdateResult(student.replace(moved), tuple(losses), done, done * size)


def _with(params: NetworkParams, changes: NetworkParams) -> NetworkParams:
    return {**params, **{name: {**params[name], **own} for name, own in changes.items()}}
