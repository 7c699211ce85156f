"""Contests of step 4 of Algorithm 1: one epoch of the weights update behind a cut."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from timing import Contest, Outputs
from twins import Tail, tensors

from refldnq._typing import Array
from refldnq.network import Live, Network
from refldnq.optim import learning_rate
from refldnq.update import Copy, UpdateSettings, update

SETTINGS = UpdateSettings(epochs=1, batch_size=50, copies=1)
"""The defaults of the update but for its length: Adam, cosine, batch statistics."""

TOLERANCE = {"float32": 1e-3, "float64": 1e-8}
"""Of the loss and the last weights. Adam divides by the gradient's size, so where that is near 0 its rounding
error is multiplied, step after step."""


def update_contests(network: Network, images: int, rng: np.random.Generator) -> Iterator[Contest]:
    """One epoch behind the first and behind the middle layer with weights, in both types.

    Parameters
    ----------
    network : Network
        A CIFAR ResNet, float64.
    images : int
        Images of the epoch.
    rng : numpy.random.Generator
        Draws images and targets.
    """
    names = network.weighted
    x = rng.standard_normal((images, *network.input_shape))
    target = rng.standard_normal((images, *network.shapes[network.nodes[-1].name]))
    for place, name in (("first", names[0]), ("middle", names[len(names) // 2 - 1])):
        for dtype in TOLERANCE:
            student = network.astype(dtype)
            cut = student.position(name) + 1
            live = student.advance(student.start(x.astype(dtype)), 0, cut)
            copy = Copy(live, target.astype(dtype))
            yield Contest(
                group="update",
                name=f"epoch behind the {place} layer ({name}), {images} images, batch {SETTINGS.batch_size}",
                dtype=dtype,
                ours=partial(_our_epoch, student, cut, copy),
                others={"torch": _TorchEpoch(student, cut, copy.live, copy.target)},
                tolerance=TOLERANCE[dtype],
            )


def _our_epoch(student: Network, cut: int, copy: Copy) -> Outputs:
    result = update(student, cut, [copy], SETTINGS, np.random.default_rng(0))
    return result.losses[0], result.network.params["linear"]["weight"]


class _TorchEpoch:
    """The same epoch by autograd and torch.optim.Adam."""

    def __init__(self, student: Network, cut: int, live: Live, target: Array) -> None:
        self.student, self.cut = student, cut
        self.live, self.target = tensors(live), torch.tensor(target)

    def __call__(self) -> Outputs:
        tail = Tail(self.student, self.cut)
        optimizer = torch.optim.Adam(tail.moving, lr=SETTINGS.learning_rate)
        count, size = self.target.shape[0], SETTINGS.batch_size
        order = torch.from_numpy(np.random.default_rng(0).permutation(count))
        steps = -(-count // size)
        total = 0.0
        for step, batch in enumerate(order.split(size)):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(SETTINGS.schedule, SETTINGS.learning_rate, step, steps)
            y = tail({name: values[batch] for name, values in self.live.items()}, train=True)
            loss = ((y - self.target[batch]) ** 2).sum() / len(batch)  # [LDNQ] Algorithm 1, step 4
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(batch)
        return total / count, tail.params["linear"]["weight"]
