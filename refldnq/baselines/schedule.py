"""How long a baseline trains, in what steps, and on which versions of the images."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from refldnq._checks import check_choice, check_integer, check_number
from refldnq.optim import SGD, Adam, Optimizer, learning_rate

Name = Literal["scaled", "published"]
"""``published``: as in the method's paper or code, for a whole training set. ``scaled``: for some hundred
images."""

USUAL_IMAGES = 500
"""What the schedules ``scaled`` were chosen on: the paper's number for CIFAR-10."""


def fewer_epochs(epochs: int, images: int, most: int) -> int:
    """Epochs over so many images with no more image passes than over `most` of them, but one at least.

    Parameters
    ----------
    epochs : int
        Over `most` images or fewer; none remain none.
    images, most : int
        At least 1.

    Returns
    -------
    int

    Examples
    --------
    >>> fewer_epochs(16, 500, 500), fewer_epochs(16, 2000, 500), fewer_epochs(16, 10**6, 500)
    (16, 4, 1)
    >>> fewer_epochs(0, 2000, 500)
    0
    """
    return max(min(epochs, 1), epochs * min(images, most) // images)


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """The length and the rates of a training.

    Parameters
    ----------
    epochs : int
        Passes over the images in a cycle.
    learning_rate : float
        The rate of a cycle's first step.
    origin : str
        Where the numbers come from.
    cycles : int, optional
        How often the epochs are repeated with the rates from the start.
    batch_size : int, optional
        Most images a step; the batches of an epoch differ by at most one image.
    decay : {'cosine', 'steps'}, optional
        How the rate falls within a cycle: to 0 along a cosine, or by `factor` at every epoch of `milestones`.
    milestones : tuple of int, optional
        Epochs of a cycle, from 0, ascending; with the decay ``steps``, all before its end.
    factor : float, optional
        See `decay`.
    optimizer : {'sgd', 'adam'}, optional
        The rule.
    momentum : float, optional
        SGD's, below 1: with more, old gradients would count more than new ones.
    nesterov : bool, optional
        Whether SGD looks ahead.
    weight_decay : float, optional
        L2 penalty.
    decays : {'weights', 'all'}, optional
        What the penalty acts on: weights of convolutions and linear layers, or every array that moves.
    statistics : {'batch', 'running'}, optional
        What batch normalization uses: the batch's statistics, while the running ones follow; or the running
        ones, which stand still.
    crop : int, optional
        Zeros added on each side before a random crop to the old size, in pixels.
    flip : bool, optional
        Whether half of the images are mirrored left to right.
    most_images : int, optional
        With more images than these there are fewer epochs, see `for_images`; None: as many for any number.

    Raises
    ------
    ValueError
        If a setting is out of range.
    TypeError
        If a setting is of another type.

    Notes
    -----
    Crop and flip are the usual ones of CIFAR-10 (He et al. 2016, section 4.2). Images without rows and
    columns are never augmented.

    Examples
    --------
    >>> schedule = Schedule(epochs=4, learning_rate=0.1, origin="", decay="steps", milestones=(2,))
    >>> [round(schedule.rate(epoch, 0, 10), 3) for epoch in range(4)]
    [0.1, 0.1, 0.01, 0.01]
    """

    epochs: int
    learning_rate: float
    origin: str
    cycles: int = 1
    batch_size: int = 50
    decay: Literal["cosine", "steps"] = "cosine"
    milestones: tuple[int, ...] = ()
    factor: float = 0.1
    optimizer: Literal["sgd", "adam"] = "sgd"
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    decays: Literal["weights", "all"] = "weights"
    statistics: Literal["batch", "running"] = "batch"
    crop: int = 4
    flip: bool = True
    most_images: int | None = None

    def __post_init__(self) -> None:
        check_integer("epochs", self.epochs, at_least=1)
        check_integer("cycles", self.cycles, at_least=1)
        check_integer("batch_size", self.batch_size, at_least=1)
        # NumPy's numbers would turn float32 arrays into float64.
        object.__setattr__(self, "learning_rate", check_number("learning_rate", self.learning_rate, above=0))
        check_choice("decay", self.decay, ("cosine", "steps"))
        check_choice("optimizer", self.optimizer, ("sgd", "adam"))
        check_choice("decays", self.decays, ("weights", "all"))
        check_choice("statistics", self.statistics, ("batch", "running"))
        object.__setattr__(self, "factor", check_number("factor", self.factor, above=0))
        for name in ("momentum", "weight_decay"):
            object.__setattr__(self, name, check_number(name, getattr(self, name), at_least=0))
        if not self.momentum < 1:
            raise ValueError(f"`momentum` must be below 1, got {self.momentum}.")
        check_integer("crop", self.crop, at_least=0)
        if self.most_images is not None:
            check_integer("most_images", self.most_images, at_least=1)
        for milestone in self.milestones:
            check_integer("milestones", milestone, at_least=0)
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"`milestones` must ascend, got {self.milestones}.")
        if self.decay == "steps" and self.milestones and self.milestones[-1] >= self.epochs:
            raise ValueError(
                f"`milestones` must lie before the end of a cycle of {self.epochs} epochs, got "
                f"{self.milestones}."
            )

    def for_images(self, images: int) -> Schedule:
        """The schedule for so many images: for more than `most_images` no more image passes than for these.

        But there is one epoch a cycle at least. A milestone keeps its place in the cycle, up to the next
        epoch; those that fall together count once, and those that reach the end not at all.

        Parameters
        ----------
        images : int
            That are trained on.

        Raises
        ------
        ValueError
            If there is none.

        Examples
        --------
        >>> schedule = Schedule(epochs=80, learning_rate=0.1, origin="", most_images=500)
        >>> [schedule.for_images(images).epochs for images in (50, 500, 2000, 10**6)]
        [80, 80, 20, 1]
        """
        check_integer("images", images, at_least=1)
        if self.most_images is None:
            return self
        epochs = fewer_epochs(self.epochs, images, self.most_images)
        places = (-(-milestone * epochs // self.epochs) for milestone in self.milestones)
        milestones = dict.fromkeys(place for place in places if place < epochs)
        return replace(self, epochs=epochs, milestones=tuple(milestones), most_images=None)

    @property
    def total(self) -> int:
        """Epochs of all cycles."""
        return self.epochs * self.cycles

    @property
    def numbers(self) -> dict[str, Any]:
        """All that decides a training: every field but the origin, which is words, and a cap that is none.

        The cap is younger than runs that are known by these numbers.
        """
        left_out = {"origin"} | ({"most_images"} if self.most_images is None else set())
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name not in left_out}

    def rate(self, epoch: int, step: int, steps: int) -> float:
        """The learning rate.

        Parameters
        ----------
        epoch : int
            From 0, over all cycles.
        step, steps : int
            Of the epoch, from 0, and how many it has.
        """
        within = epoch % self.epochs
        if self.decay == "cosine":
            return learning_rate("cosine", self.learning_rate, within * steps + step, self.epochs * steps)
        passed = sum(milestone <= within for milestone in self.milestones)
        return self.learning_rate * self.factor**passed

    def rule(self) -> Optimizer:
        """The optimizer, without the penalty: that belongs to the loop, which knows what it acts on."""
        if self.optimizer == "adam":
            return Adam()
        return SGD(momentum=self.momentum, nesterov=self.nesterov)
