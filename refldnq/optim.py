"""Gradient steps: SGD with momentum, Adam, and the schedules of their learning rate.

An optimizer is a value (its settings); what it remembers between steps is an explicit state that the caller
keeps. A step returns new arrays and changes none.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from refldnq._checks import check_choice, check_integer, check_number
from refldnq._typing import Array

Tree = Mapping[str, Mapping[str, Array]]
"""Arrays by layer and name, as a network holds them."""

State = Mapping[str, Mapping[str, tuple[Array, ...]]]
"""What an optimizer remembers of every array."""


@dataclass(frozen=True)
class Optimizer(ABC):
    """One rule that turns a gradient into a step, array by array."""

    @abstractmethod
    def _start(self, array: Array) -> tuple[Array, ...]:
        """What is remembered of an array before the first step."""

    @abstractmethod
    def _step(
        self, array: Array, gradient: Array, memory: tuple[Array, ...], rate: float, count: int
    ) -> tuple[Array, tuple[Array, ...]]:
        """The new array and the new memory; `count` is 1 at the first step."""

    def start(self, arrays: Tree) -> State:
        """The state before the first step."""
        return {name: {key: self._start(array) for key, array in own.items()} for name, own in arrays.items()}

    def step(
        self, arrays: Tree, gradients: Tree, state: State, *, rate: float, count: int
    ) -> tuple[dict[str, dict[str, Array]], State]:
        """One step of all arrays.

        Parameters
        ----------
        arrays, gradients : mapping of str to mapping of str to Array
            The same keys in both.
        state : State
            From `start` or the last step.
        rate : float
            Learning rate of this step.
        count : int
            Number of this step, from 1.

        Returns
        -------
        arrays : dict of str to dict of str to Array
            The new arrays.
        state : State
            The new state.
        """
        new: dict[str, dict[str, Array]] = {}
        memory: dict[str, dict[str, tuple[Array, ...]]] = {}
        for name, own in arrays.items():
            new[name], memory[name] = {}, {}
            for key, array in own.items():
                new[name][key], memory[name][key] = self._step(
                    array, gradients[name][key], state[name][key], rate, count
                )
        return new, memory


@dataclass(frozen=True)
class SGD(Optimizer):
    r"""Stochastic gradient descent with heavy-ball momentum.

    .. math:: v \leftarrow \mu v + g + \omega\theta,\qquad \theta \leftarrow \theta - \eta v

    With `nesterov`, :math:`\theta` moves by :math:`-\eta(\mu v + g + \omega\theta)` in place of
    :math:`-\eta v`, v being the new one (Sutskever et al. 2013, in the form of PyTorch).

    Parameters
    ----------
    momentum : float, optional
        :math:`\mu`; 0.9 as in the authors' released code.
    weight_decay : float, optional
        :math:`\omega`, an L2 penalty on every array; 0 by default, chosen here: the update fits the teacher
        and the teacher's weights carry no penalty (the released code has 5e-4).
    nesterov : bool, optional
        Whether the step looks ahead.

    Examples
    --------
    >>> import numpy as np
    >>> sgd, x = SGD(momentum=0.0), {"fc": {"weight": np.array([1.0])}}
    >>> sgd.step(x, {"fc": {"weight": np.array([2.0])}}, sgd.start(x), rate=0.1, count=1)[0]
    {'fc': {'weight': array([0.8])}}
    """

    momentum: float = 0.9
    weight_decay: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "momentum", check_number("momentum", self.momentum, at_least=0))
        object.__setattr__(self, "weight_decay", check_number("weight_decay", self.weight_decay, at_least=0))

    def _start(self, array: Array) -> tuple[Array, ...]:
        return (np.zeros_like(array),)

    def _step(
        self, array: Array, gradient: Array, memory: tuple[Array, ...], rate: float, count: int
    ) -> tuple[Array, tuple[Array, ...]]:
        velocity = self.momentum * memory[0] + gradient
        if self.weight_decay:
            velocity = velocity + self.weight_decay * array
        if not self.nesterov:
            return array - rate * velocity, (velocity,)
        ahead = self.momentum * velocity + gradient
        if self.weight_decay:
            ahead = ahead + self.weight_decay * array
        return array - rate * ahead, (velocity,)


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam with bias correction (Kingma and Ba 2015, algorithm 1, whose defaults these are).

    Parameters
    ----------
    beta1, beta2 : float, optional
        Decay of the first and second moment.
    eps : float, optional
        Added to the root of the second moment.
    weight_decay : float, optional
        An L2 penalty added to the gradient.

    Examples
    --------
    The first step moves by the learning rate, whatever the gradient's size:

    >>> import numpy as np
    >>> adam, x = Adam(), {"fc": {"weight": np.array([1.0])}}
    >>> new, _ = adam.step(x, {"fc": {"weight": np.array([1e-3])}}, adam.start(x), rate=0.1, count=1)
    >>> round(float(new["fc"]["weight"][0]), 4)
    0.9
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "eps", check_number("eps", self.eps, above=0))
        object.__setattr__(self, "weight_decay", check_number("weight_decay", self.weight_decay, at_least=0))
        for name in ("beta1", "beta2"):
            value = check_number(name, getattr(self, name), at_least=0)
            if not value < 1:
                raise ValueError(f"`{name}` must be below 1, got {value!r}.")
            object.__setattr__(self, name, value)

    def _start(self, array: Array) -> tuple[Array, ...]:
        return np.zeros_like(array), np.zeros_like(array)

    def _step(
        self, array: Array, gradient: Array, memory: tuple[Array, ...], rate: float, count: int
    ) -> tuple[Array, tuple[Array, ...]]:
        if self.weight_decay:
            gradient = gradient + self.weight_decay * array
        first = self.beta1 * memory[0] + (1 - self.beta1) * gradient
        second = self.beta2 * memory[1] + (1 - self.beta2) * gradient**2
        corrected = first / (1 - self.beta1**count)
        scale = np.sqrt(second / (1 - self.beta2**count)) + self.eps
        return array - rate * corrected / scale, (first, second)


def optimizer_from(name: str, *, momentum: float, weight_decay: float) -> Optimizer:
    """The optimizer that settings name.

    Parameters
    ----------
    name : {'adam', 'sgd'}
        The rule.
    momentum : float
        SGD's; Adam has its own.
    weight_decay : float
        Of either.

    Raises
    ------
    ValueError
        If the name is unknown or a number is out of range.

    Examples
    --------
    >>> optimizer_from("sgd", momentum=0.5, weight_decay=0.0)
    SGD(momentum=0.5, weight_decay=0.0, nesterov=False)
    """
    check_choice("optimizer", name, ("adam", "sgd"))
    if name == "adam":
        return Adam(weight_decay=weight_decay)
    return SGD(momentum=momentum, weight_decay=weight_decay)


def learning_rate(schedule: str, peak: float, step: int, steps: int) -> float:
    r"""The learning rate of step `step` (from 0) of `steps`.

    Parameters
    ----------
    schedule : {'constant', 'cosine'}
        Cosine: :math:`\frac\eta2(1+\cos(\pi t/T))`, to 0 at the end (Loshchilov and Hutter 2017, without
        restarts).
    peak : float
        :math:`\eta`, the first step's rate.
    step, steps : int
        t and T.

    Raises
    ------
    ValueError
        If the schedule is unknown or a number is out of range.

    Examples
    --------
    >>> learning_rate("cosine", 1.0, 0, 10), round(learning_rate("cosine", 1.0, 5, 10), 12)
    (1.0, 0.5)
    """
    check_choice("schedule", schedule, ("constant", "cosine"))
    check_integer("steps", steps, at_least=1)
    if schedule == "constant":
        return peak
    return peak * 0.5 * (1.0 + float(np.cos(np.pi * step / steps)))
