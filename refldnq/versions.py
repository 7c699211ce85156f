"""Versions of the calibration images, cropped and mirrored at random, and what the teacher says of them.

The teacher labels anything, so versions cost nothing but its evaluation: it sees every version once in a run.
A version is drawn anew from its own seed whenever it is needed, so no version is kept.
"""

from __future__ import annotations

import numpy as np

from refldnq._typing import Array
from refldnq.batches import advance
from refldnq.data.augment import augment, mix
from refldnq.network import INPUT, Live, Network
from refldnq.update import UpdateSettings, intermediate_places


class Versions:
    """The versions that the steps of a run use, in an order fixed by the generator.

    Parameters
    ----------
    teacher : Network
        Gives the targets.
    images : Array, shape (n, c, h, w)
        Preprocessed images; version 0 is the images as they are.
    settings : UpdateSettings
        `pool` versions in all, `copies` of them in each step; how they are cropped and mirrored.
    steps : int
        Steps of Algorithm 1.
    rng : numpy.random.Generator
        Spawns a seed for every version and shuffles them.
    batch_size : int
        Images at a time in the teacher.

    Raises
    ------
    ValueError
        If the inputs are not images and `pool` is not 1.

    Examples
    --------
    >>> from refldnq.layers import Flatten
    >>> from refldnq.network import Node
    >>> teacher = Network((Node("out", Flatten(), ("input",)),), {}, (1, 2, 2))
    >>> settings = UpdateSettings(copies=2, pool=4, crop=1)
    >>> versions = Versions(teacher, np.ones((3, 1, 2, 2)), settings, 2, np.random.default_rng(0), 100)
    >>> sorted(versions.of_step(0) + versions.of_step(1))
    [0, 1, 2, 3]
    >>> bool(np.array_equal(versions.images(3).reshape(3, 4), versions.target(3)))
    True
    """

    def __init__(
        self,
        teacher: Network,
        images: Array,
        settings: UpdateSettings,
        steps: int,
        rng: np.random.Generator,
        batch_size: int,
    ) -> None:
        if settings.pool > 1 and images.ndim != 4:
            raise ValueError(
                f"`pool` must be 1 for inputs that are not images (n, c, h, w), got {settings.pool} "
                f"for shape {images.shape}."
            )
        self._teacher, self._images, self.settings, self._size = teacher, images, settings, batch_size
        self._seeds = [int(seed) for seed in rng.integers(0, 2**63, settings.pool)]
        self._per_step = min(settings.copies, settings.epochs)  # an epoch uses one version
        # What is left of a round after its last whole step is not used: a step never sees a version twice.
        whole = settings.pool // self._per_step * self._per_step
        rounds = -(-steps * self._per_step // whole)
        self._order = np.concatenate([rng.permutation(settings.pool)[:whole] for _ in range(rounds)])
        self._targets: dict[int, Array] = {}
        self._features: dict[int, tuple[Array, ...]] = {}

    def of_step(self, step: int) -> tuple[int, ...]:
        """Numbers of the versions that step `step`, from 0, uses: no version twice."""
        first = step * self._per_step
        return tuple(int(number) for number in self._order[first : first + self._per_step])

    def images(self, number: int) -> Array:
        """A version, (n, c, h, w)."""
        if number == 0:
            return self._images
        rng = np.random.default_rng(self._seeds[number])
        changed = augment(self._images, rng, crop=self.settings.crop, flip=self.settings.flip)
        return mix(changed, rng, share=self.settings.mix) if self.settings.mix else changed

    def target(self, number: int) -> Array:
        """The teacher's final output for a version, (n, k)."""
        if number not in self._targets:
            self._answer(number)
        return self._targets[number]

    def features(self, number: int) -> tuple[Array, ...]:
        """The teacher's outputs at the places of `intermediate_places`, (n, ...) each."""
        if number not in self._features:
            self._answer(number)
        return self._features[number]

    def _answer(self, number: int) -> None:
        teacher = self._teacher
        if self.settings.intermediate and self.settings.features == "blocks":
            self._features.clear()  # they can be many times larger than the images
        live: Live = {INPUT: self.images(number)}
        start, features = 0, []
        for stop, name in intermediate_places(teacher, 0, self.settings):
            live = advance(teacher, live, start, stop, self._size)
            start = stop
            features.append(live[name])
        self._features[number] = tuple(features)
        end = advance(teacher, live, start, len(teacher.nodes), self._size)
        self._targets[number] = end[teacher.nodes[-1].name]
