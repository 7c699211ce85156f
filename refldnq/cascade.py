"""The calibration images on their way through the reference network and the network that is being quantized.

Layers before the cut are frozen, so what they make of the images is computed once and kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np

from refldnq._checks import check_finite, check_float, check_shape
from refldnq._typing import Array, Float64Array
from refldnq.batches import advance, split
from refldnq.drift import DriftProblem, drift_problem
from refldnq.follower import Follower, wanted_branch
from refldnq.hessian import accumulate_hessian, layer_error
from refldnq.layers.base import LinearMap
from refldnq.network import INPUT, Live, Network
from refldnq.open_drift import open_drift_problem
from refldnq.update import Copy, intermediate_places
from refldnq.versions import Versions


class Cascade:
    """The images on their way through the teacher and the student, kept at the cut behind the frozen layers.

    They make the Hessian and the reported errors, and move on from cut to cut.

    Parameters
    ----------
    teacher, student : Network
        The reference and the network that is being quantized.
    images : Array, shape (n, *input_shape)
        The images as they are.
    batch_size : int
        Images at a time.
    more : Array, shape (any, *input_shape), optional
        More images, versions of the same ones, that make the problems of layers too; nothing is reported of
        them.
    """

    def __init__(
        self,
        teacher: Network,
        student: Network,
        images: Array,
        batch_size: int,
        more: Array | None = None,
    ) -> None:
        self.teacher, self.images, self.size = teacher, images, batch_size
        self.target = teacher.forward(images, batch_size=batch_size)
        self._all = images if more is None else np.concatenate([images, more])
        self.reference: Live = teacher.start(self._all)
        self.live: Live = student.start(self._all)
        self.cut = 0

    @property
    def plain(self) -> Live:
        """What is alive at the cut of the images as they are."""
        return {name: values[: len(self.images)] for name, values in self.live.items()}

    def move(self, student: Network, stop: int) -> None:
        """Evaluate the teacher and the student, in eval mode, up to cut `stop`."""
        self.reference = advance(self.teacher, self.reference, self.cut, stop, self.size)
        self.live = advance(student, self.live, self.cut, stop, self.size)
        self.cut = stop

    def restart(self) -> None:
        """Go back to the input: something before the cut has moved."""
        self.cut, self.reference, self.live = 0, {INPUT: self._all}, {INPUT: self._all}

    def drift(
        self,
        student: Network,
        name: str,
        W_new: Float64Array,
        *,
        ridge: float,
        images: int | None,
        bias: bool,
        centred: bool,
        behind: Follower,
        block: bool,
        closed: float,
    ) -> DriftProblem:
        """The problem of layer `name`, at the cut, that follows the teacher on the first `images` images.

        What is followed is the teacher's pre-activation, or, with `block` and a sum `behind`, what makes the
        sum the teacher's in spite of its other terms; where the teacher's ReLU behind is closed, which there
        must be if `closed` is below 1, it counts that much.
        """
        node = student[name]
        assert isinstance(node.layer, LinearMap)
        source = node.inputs[0]
        kept = None if bias else student.params[name].get("bias")
        count = len(self._all[:images])
        stop = behind.total or behind.norm or name

        def batches() -> Iterator[tuple[Array, Array, Array]]:
            for first in range(0, count, self.size):
                part = slice(first, min(first + self.size, count))
                live, reference = (
                    {key: values[part] for key, values in own.items()} for own in (self.live, self.reference)
                )
                z, _ = node.layer.forward(self.teacher.params[name], reference[source])
                opened = z
                if closed < 1:
                    end = self.teacher.position(stop) + 1
                    opened = self.teacher.advance(reference, self.cut, end)[stop] > 0
                if block and behind.norm is not None and behind.total is not None:
                    z = self._branch(student, live, reference, z, behind.norm, behind.total)
                if kept is not None:  # the weight need not make what the student's bias makes
                    z = z - kept.reshape((1, -1) + (1,) * (z.ndim - 2))
                yield live[source], z, opened

        if closed < 1:
            return open_drift_problem(
                node.layer, batches(), W_new, closed=closed, ridge=ridge, centred=centred
            )
        pairs = ((x, z) for x, z, _ in batches())
        return drift_problem(node.layer, pairs, W_new, ridge=ridge, bias=bias, centred=centred)

    def mean_error(self, student: Network, name: str) -> Float64Array:
        """By how much the teacher's pre-activation of layer `name`, at the cut, exceeds the student's, (c,).

        The mean over the images as they are and, of maps, over their places.
        """
        count, position = len(self.images), student.position(name)
        total = None
        for first in range(0, count, self.size):
            part = slice(first, min(first + self.size, count))
            z, z_hat = (
                network.advance({key: values[part] for key, values in own.items()}, self.cut, position + 1)[
                    name
                ]
                for network, own in ((self.teacher, self.reference), (student, self.live))
            )
            error = (z.astype(np.float64) - z_hat).sum(axis=(0, *range(2, z.ndim)))
            total = error if total is None else total + error
            places = z[0, 0].size
        assert total is not None
        mean: Float64Array = total / (count * places)
        return mean

    def _branch(
        self, student: Network, live: Live, reference: Live, z: Array, norm: str, total: str
    ) -> Array:
        """The pre-activation of the teacher's `norm` with which the student's sum is the teacher's."""
        stop = student.position(total)
        wanted = self.teacher.advance(reference, self.cut, stop + 1)[total]
        terms = student.advance(live, self.cut, stop)
        for term in student[total].inputs:
            if term != norm:
                wanted = wanted - terms[term]
        return wanted_branch(self.teacher, norm, wanted, z)

    def output(self, student: Network) -> Array:
        """The student's final output for the images."""
        end = len(student.nodes)
        return advance(student, self.plain, self.cut, end, self.size)[student.nodes[-1].name]


class HeldOut:
    """Images that guide nothing, on their way through the student."""

    def __init__(self, images: Array, like: Array, batch_size: int) -> None:
        check_finite("held_out", check_float("held_out", images))
        check_shape("held_out", images, (None, *like.shape[1:]))
        if images.shape[0] < 1:
            raise ValueError("`held_out` must hold at least one image, got none.")
        self.images, self.size = images.astype(like.dtype, copy=False), batch_size
        self.restart()

    def restart(self) -> None:
        """Go back to the input: something before the cut has moved."""
        self.cut = 0
        self.live: Live = {INPUT: self.images}

    def errors(
        self, student: Network, name: str, W: Float64Array, G: Float64Array, *, bias: bool
    ) -> dict[str, float]:
        """The error of layer `name`, before which all of the student is quantized, and the relative one."""
        position = student.position(name)
        self.live = advance(student, self.live, self.cut, position, self.size)
        self.cut = position
        layer, x = student[name].layer, self.live[student[name].inputs[0]]
        assert isinstance(layer, LinearMap)
        H = accumulate_hessian(layer, split(x, self.size), bias=bias).blocks
        error = layer_error(H, W, G)  # [LDNQ] (8)
        whole = layer_error(H, W, np.zeros_like(W))
        return {"held_out_error": error, "relative_held_out_error": ratio(error, whole)}


class Copies(Sequence[Copy]):
    """A step's versions of the images at the cut, each evaluated up to there once, when it is first needed.

    All are kept if there are fewer of them than epochs, else the latest, as with the outputs of all blocks: a
    version's activations can take 60 MB.
    """

    def __init__(
        self, cascade: Cascade, student: Network, versions: Versions, step: int, epochs: int
    ) -> None:
        self.cascade, self.student, self.versions = cascade, student, versions
        self.numbers = versions.of_step(step)
        self.all = len(self.numbers) < epochs and versions.settings.features != "blocks"
        self.kept: dict[int, Copy] = {}

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def plain(self) -> Copy:
        """The images as they are, which are at the cut already."""
        return self._copy(self.cascade.plain, 0)

    @overload
    def __getitem__(self, index: int) -> Copy: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Copy]: ...
    def __getitem__(self, index: int | slice) -> Copy | Sequence[Copy]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if index in self.kept:
            return self.kept[index]
        if not self.all:
            self.kept.clear()
        number, cascade = self.numbers[index], self.cascade
        live = cascade.plain  # version 0 is at the cut already
        if number:
            live = advance(self.student, {INPUT: self.versions.images(number)}, 0, cascade.cut, cascade.size)
        self.kept[index] = self._copy(live, number)
        return self.kept[index]

    def _copy(self, live: Live, number: int) -> Copy:
        places = intermediate_places(self.student, 0, self.versions.settings)
        features = zip(places, self.versions.features(number), strict=True)
        behind = tuple(own for (stop, _), own in features if stop > self.cascade.cut)
        return Copy(live, self.versions.target(number), behind)


def ratio(error: float, reference: float) -> float:
    """The relative error; 0 of nothing, infinite of something against nothing.

    Examples
    --------
    >>> ratio(1.0, 4.0), ratio(0.0, 0.0), ratio(1.0, 0.0)
    (0.25, 0.0, inf)
    """
    if reference > 0:
        return error / reference
    return float("inf") if error > 0 else 0.0
