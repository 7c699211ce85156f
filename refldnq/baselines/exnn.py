r"""ExNN, extremely low bit neural networks by ADMM (Leng, Li, Zhu and Jin 2017). [memory], re-derived.

The training loss f is minimized under W = G with G in Ω, through the augmented Lagrangian with the scaled
dual λ (Boyd et al. 2011, "Distributed Optimization and Statistical Learning via ADMM", section 3.1.1)

.. math:: L_\rho(W, G, \lambda) = f(W) + I_\Omega(G) + \frac\rho2\|W - G + \lambda\|^2
    - \frac\rho2\|\lambda\|^2.

Its penalty is the third term: ρ weighs W = G, and its gradient in W is ρ(W - G + λ). W moves by extragradient
steps on minibatches (Korpelevich 1976), G is the projection of W + λ, and λ grows by W - G. No code was
published; ρ, the rates and the interval between dual steps are not verified.

The schedule's L2 penalty ω is another one, of training in general: it is no part of L_ρ and acts on the
corrector's step alone, at W. With the schedule's rate η, β_p = η `predictor` and β_c = η `corrector`,

.. math:: W_p = W - \beta_p\, g(W), \qquad W \leftarrow W - \beta_c\, g(W_p) - \eta\omega W, \qquad
    g(W) = \partial f/\partial W + \rho(W - G + \lambda).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from refldnq._checks import check_integer, check_number, check_shape
from refldnq._typing import Array, NetworkParams
from refldnq.baselines.base import check_levels
from refldnq.baselines.codes import mean_over_weights, packed
from refldnq.baselines.loop import (
    Descend,
    Evaluate,
    Evaluation,
    Method,
    Quantized,
    TrainingPoint,
    learnable_arrays,
)
from refldnq.baselines.schedule import Schedule
from refldnq.codebook import powers_of_two
from refldnq.model import QuantizedWeight
from refldnq.network import Network
from refldnq.optim import Tree
from refldnq.projection import Projection, project

PROXIMAL, DUAL, CODES, SCALE = "G", "lam", "codes", "alpha"
"""Names of G, λ and G's codes and scale in the memory of a layer."""

LEVELS = range(3, 16, 2)
"""Numbers of values of a set."""

PUBLISHED = Schedule(
    epochs=160,
    batch_size=128,
    learning_rate=0.01,
    decay="steps",
    milestones=(80, 120),
    momentum=0.0,
    weight_decay=1e-4,
    origin="[memory], not verified",
)

SCALED = Schedule(
    epochs=60,
    batch_size=50,
    learning_rate=0.02,
    momentum=0.0,
    origin="chosen here, for 500 images",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExnnSettings:
    """The numbers of ExNN, none of them verified.

    Parameters
    ----------
    rho : float, optional
        ρ, weight of W = G in the penalty ρ/2 ‖W - G + λ‖²; chosen here: the best of 0.5, 5 and 20 after a
        few epochs of a ResNet-20 on 500 images, by 2,000 other training images. `settings` of the baseline
        measure another one.
    predictor, corrector : float, optional
        β_p and β_c over the rate of the schedule.
    every : int or None, optional
        K: G and λ move after so many minibatches; None means after each epoch.

    Raises
    ------
    ValueError
        If a number is out of range.
    TypeError
        If a number is of another type.
    """

    rho: float = 20.0
    predictor: float = 1.0
    corrector: float = 1.0
    every: int | None = None

    def __post_init__(self) -> None:
        for name in ("rho", "predictor", "corrector"):
            object.__setattr__(self, name, check_number(name, getattr(self, name), above=0))
        if self.every is not None:
            check_integer("every", self.every, at_least=1)


def penalty_gradient(w: Array, G: Array, lam: Array, rho: float) -> Array:
    r"""The gradient in W of the penalty :math:`\frac\rho2\|W-G+\lambda\|^2`, ρ(W - G + λ).

    Parameters
    ----------
    w, G, lam : Array, one shape
        Latent weights, their quantized copy, the scaled dual.
    rho : float
        ρ.

    Notes
    -----
    The penalty of ADMM's augmented Lagrangian with a scaled dual: Leng et al. 2017 [memory]; Boyd et al.
    2011, section 3.1.1.

    Examples
    --------
    >>> penalty_gradient(np.array([2.0]), np.array([1.0]), np.array([0.5]), 2.0)
    array([3.])
    """
    return np.asarray(w.dtype.type(rho) * (w - G + lam))


def proximal(w: Array, lam: Array, levels: int) -> Projection:
    """G: the projection of V = W + λ onto Ω, by alternating α = VᵀQ/QᵀQ and Q = nearest(V/α).

    Parameters
    ----------
    w, lam : Array, one shape
        Latent weights and the scaled dual.
    levels : int
        Number of values of Ω, odd.

    Examples
    --------
    >>> proximal(np.array([2.0, -2.5, 0.1]), np.array([0.0, -0.5, 0.0]), 3).G
    array([ 2.5, -2.5,  0. ])
    """
    check_shape("lam", lam, w.shape)
    return project(w + lam, powers_of_two(levels))


@dataclass(frozen=True, kw_only=True)
class Exnn(Method):
    """ExNN as a `Method`: training runs at the latent weights, not at the quantized ones."""

    settings: ExnnSettings
    levels: int

    def start(self) -> tuple[Tree, Tree]:
        """The pretrained arrays, G their projection, λ = 0."""
        latent = learnable_arrays(self.network)
        zero = {name: np.zeros_like(latent[name]["weight"]) for name in self.layers}
        return latent, {name: self.project(latent[name]["weight"], zero[name]) for name in self.layers}

    def project(self, w: Array, lam: Array) -> dict[str, Array]:
        """What a layer remembers after a projection of W + λ; λ stays.

        Parameters
        ----------
        w, lam : Array, one shape
            Latent weights and the scaled dual.
        """
        found = proximal(w, lam, self.levels)
        return {PROXIMAL: found.G.astype(w.dtype), DUAL: lam, CODES: found.codes, SCALE: found.alpha}

    def place(self, latent: Tree, memory: Tree) -> NetworkParams:
        """The latent arrays."""
        return latent

    def pull(self, latent: Tree, memory: Tree, gradients: NetworkParams) -> tuple[Tree, Tree]:
        """g(W), the gradient of the loss and the penalty."""
        pulled: dict[str, Mapping[str, Array]] = dict(gradients)
        for name, own in memory.items():
            extra = penalty_gradient(latent[name]["weight"], own[PROXIMAL], own[DUAL], self.settings.rho)
            pulled[name] = {**gradients[name], "weight": gradients[name]["weight"] + extra}
        return pulled, memory

    def step(
        self, point: TrainingPoint, rate: float, evaluate: Evaluate, descend: Descend
    ) -> tuple[TrainingPoint, Evaluation]:
        """W_p = W - β_p g(W), then W ← W - β_c g(W_p), both on the same minibatch."""
        first = evaluate(point.latent)
        pulled, memory = self.pull(point.latent, point.memory, first.gradients)
        ahead = rate * self.settings.predictor
        predicted = {
            name: {key: array - ahead * pulled[name][key] for key, array in own.items()}
            for name, own in point.latent.items()
        }
        second = evaluate(predicted)
        pulled, memory = self.pull(predicted, memory, second.gradients)
        corrector = self.settings.corrector
        scaled = {
            name: {key: corrector * pulled[name][key] for key in own} for name, own in point.latent.items()
        }
        latent, optimizer = descend(point.latent, scaled, point.optimizer)
        return TrainingPoint(latent, memory, optimizer), first

    def end_step(self, count: int, steps: int, point: TrainingPoint) -> TrainingPoint:
        """Every K minibatches of the run G ← projection of W + λ, then λ ← λ + W - G."""
        every = self.settings.every or steps
        if count % every:
            return point
        memory = {}
        for name, own in point.memory.items():
            w = point.latent[name]["weight"]
            new = self.project(w, own[DUAL])
            memory[name] = {**new, DUAL: own[DUAL] + w - new[PROXIMAL]}
        return TrainingPoint(point.latent, memory, point.optimizer)

    def finish(self, latent: Tree, memory: Tree) -> Quantized:
        """The weights become G."""
        arrays = {name: dict(own) for name, own in latent.items()}
        codes = {}
        for name, own in memory.items():
            codes[name] = QuantizedWeight(
                codes=packed(self.network, name, own[CODES]),
                alpha=own[SCALE],
                values=powers_of_two(self.levels).values,
            )
            arrays[name] |= codes[name].arrays(self.network[name], self.network.dtype)
        levels = {name: float(self.levels) for name in codes}
        return Quantized(arrays, codes, mean_over_weights(self.network, levels))


def method(
    network: Network, layers: tuple[str, ...], levels: int, settings: ExnnSettings | None = None
) -> Exnn:
    """ExNN of a network; raises ValueError if there is no such set of values.

    Parameters
    ----------
    network : Network
        The well-trained network.
    layers : tuple of str
        What is quantized.
    levels : int
        3, 5, ..., 15.
    settings : ExnnSettings, optional
        How.
    """
    check_levels(levels, LEVELS, "ExNN")
    return Exnn(network=network, layers=layers, levels=levels, settings=settings or ExnnSettings())
