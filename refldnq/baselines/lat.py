"""LAT, loss-aware weight ternarization (Hou and Kwok 2018) [code].

The ternary weight is the point nearest to the latent one in the norm of a diagonal estimate D of the loss's
curvature, which the second moment of the gradients at the ternary weights gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from refldnq._checks import check_choice, check_finite, check_float, check_integer, check_number, check_shape
from refldnq._typing import Array, Float64Array, NetworkParams
from refldnq.baselines.base import check_levels
from refldnq.baselines.codes import encode, place_codes
from refldnq.baselines.loop import Method, Quantized, learnable_arrays, merged
from refldnq.baselines.schedule import Schedule
from refldnq.network import Network
from refldnq.optim import Tree

Variant = Literal["approximate", "exact", "two-scale"]

MOMENT = "second_moment"
"""Name of v in the memory of a layer."""

LEVELS = (3,)
"""Numbers of values of a set."""

PUBLISHED = Schedule(
    epochs=200,
    batch_size=50,
    learning_rate=0.002,
    decay="steps",
    milestones=tuple(range(15, 200, 15)),
    factor=0.5,
    optimizer="adam",
    crop=0,
    flip=False,
    origin="[code], for CIFAR-10; its loss there is the squared hinge",
)

SCALED = Schedule(
    epochs=80,
    batch_size=50,
    learning_rate=0.002,
    optimizer="adam",
    origin="chosen here, for 500 images; optimizer, rate and batch size [code]",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class LatSettings:
    """How LAT ternarizes.

    Parameters
    ----------
    variant : {'approximate', 'exact', 'two-scale'}, optional
        LATa, LATe, or LATe with a scale for positive and one for negative weights.
    beta : float, optional
        Decay of the second moment; 0.999 [code], without bias correction.
    eps : float, optional
        Added to the root of the second moment. [code]
    clip : float, optional
        Latent weights stay within ± clip; 1 [code].

    Raises
    ------
    ValueError
        If a setting is out of range.
    """

    variant: Variant = "exact"
    beta: float = 0.999
    eps: float = 1e-8
    clip: float = 1.0

    def __post_init__(self) -> None:
        check_choice("variant", self.variant, ("approximate", "exact", "two-scale"))
        object.__setattr__(self, "beta", check_number("beta", self.beta, at_least=0))
        if not self.beta < 1:
            raise ValueError(f"`beta` must be below 1, got {self.beta}.")
        for name in ("eps", "clip"):
            object.__setattr__(self, name, check_number(name, getattr(self, name), above=0))


def lata(w: Array, D: Array, *, passes: int = 10, tolerance: float = 1e-6) -> tuple[float, Array]:
    r"""LATa: alternate between the scale and the codes.

    .. math:: \alpha = \|b\odot D\odot w\|_1 / \|b\odot D\|_1, \qquad b = \operatorname{sign}(w)[|w|>\alpha/2]

    Parameters
    ----------
    w : Array, any shape
        Latent weights.
    D : Array, shape of w
        Curvature, positive.
    passes : int, optional
        Most passes. [code]
    tolerance : float, optional
        Stop when a pass changes α by less, an absolute number. [code]

    Returns
    -------
    alpha : float
        The scale.
    b : Array, shape of w, int8
        -1, 0, 1. The first one is the threshold at 0.7 mean|w|.

    Raises
    ------
    ValueError
        If the shapes differ, an entry is not finite, or D is not positive.
    TypeError
        If an argument is of another type.

    Notes
    -----
    Σ D (αb - w)² never rises from pass to pass.

    Examples
    --------
    >>> lata(np.array([1.0, 0.9, 0.1]), np.ones(3))
    (0.95, array([1, 1, 0], dtype=int8))
    """
    check_integer("passes", passes, at_least=1)
    check_number("tolerance", tolerance, at_least=0)
    w, D = _checked(w, D)
    magnitude = np.abs(w)
    chosen = magnitude > 0.7 * magnitude.mean() if w.size else magnitude > 0
    alpha = 0.0
    for _ in range(passes):
        mass = float(D[chosen].sum())
        last, alpha = alpha, float((D * magnitude)[chosen].sum()) / mass if mass else 0.0
        chosen = magnitude > 0.5 * alpha
        if abs(alpha - last) < tolerance:
            break
    return alpha, (np.sign(w) * chosen).astype(np.int8)


def late(w: Array, D: Array) -> tuple[float, Array]:
    r"""LATe: the exact minimum of :math:`\sum_i D_i(\alpha b_i-w_i)^2` over α and b in {-1, 0, 1}.

    Parameters
    ----------
    w : Array, any shape
        Latent weights.
    D : Array, shape of w
        Curvature, positive.

    Returns
    -------
    alpha : float
        The scale; 0 if w is 0.
    b : Array, shape of w, int8
        -1, 0, 1.

    Raises
    ------
    ValueError
        If the shapes differ, an entry is not finite, or D is not positive.
    TypeError
        If an argument is of another type.

    Notes
    -----
    With magnitudes sorted from the largest, :math:`s_j=\frac12\sum_{i\le j}D|w|/\sum_{i\le j}D` is half the
    best scale if the first j are not 0. It is feasible if :math:`|w|_{(j)}>s_j>|w|_{(j+1)}`, with
    :math:`|w|_{(d+1)}=0`; the best feasible one maximizes :math:`s_j^2\sum_{i\le j}D`.

    Examples
    --------
    >>> late(np.array([4.0, 1.0, -1.0, 1.0]), np.ones(4))
    (4.0, array([1, 0, 0, 0], dtype=int8))
    """
    w, D = _checked(w, D)
    magnitude = np.abs(w).ravel()
    order = np.argsort(-magnitude, kind="stable")
    a, mass = magnitude[order], np.cumsum(D.ravel()[order])
    s = 0.5 * np.cumsum(D.ravel()[order] * a) / mass
    feasible = np.flatnonzero((a > s) & (s > np.append(a[1:], 0.0)))
    if not feasible.size:
        return 0.0, np.zeros(w.shape, dtype=np.int8)
    best = feasible[np.argmax(s[feasible] ** 2 * mass[feasible])]
    b = np.zeros(w.size, dtype=np.int8)
    b[order[: best + 1]] = np.sign(w.ravel()[order[: best + 1]])
    return 2.0 * float(s[best]), b.reshape(w.shape)


def late_two_scales(w: Array, D: Array) -> tuple[float, float, Array]:
    """LATe with one scale for positive and one for negative weights: two problems by themselves.

    Parameters
    ----------
    w : Array, any shape
        Latent weights.
    D : Array, shape of w
        Curvature, positive.

    Returns
    -------
    positive, negative : float
        The scales α and β of {-β, 0, α}.
    b : Array, shape of w, int8
        -1, 0, 1.

    Raises
    ------
    ValueError
        If the shapes differ, an entry is not finite, or D is not positive.
    TypeError
        If an argument is of another type.

    Examples
    --------
    >>> late_two_scales(np.array([4.0, 1.0, -1.0, 1.0]), np.ones(4))
    (4.0, 1.0, array([ 1,  0, -1,  0], dtype=int8))
    """
    positive, above = late(np.maximum(w, 0), D)
    negative, below = late(np.minimum(w, 0), D)
    return positive, negative, (above + below).astype(np.int8)


def quantize(w: Array, D: Array, variant: Variant = "exact") -> Array:
    """The ternary weight nearest to w in the norm of D.

    Parameters
    ----------
    w : Array, any shape
        Latent weights.
    D : Array, shape of w
        Curvature, positive.
    variant : {'approximate', 'exact', 'two-scale'}, optional
        See `LatSettings`.

    Returns
    -------
    Array, shape and type of w
    """
    if variant == "two-scale":
        positive, negative, b = late_two_scales(w, D)
    else:
        positive, b = late(w, D) if variant == "exact" else lata(w, D)
        negative = positive
    return np.where(b > 0, positive, np.where(b < 0, -negative, 0.0)).astype(w.dtype)


def curvature(moment: Array, eps: float = 1e-8) -> Float64Array:
    """D = √v + ε, float64.

    Parameters
    ----------
    moment : Array
        v, not negative.
    eps : float, optional
        ε.
    """
    root: Float64Array = np.sqrt(moment.astype(np.float64)) + eps
    return root


def _checked(w: Array, D: Array) -> tuple[Float64Array, Float64Array]:
    for name, array in (("w", w), ("D", D)):
        check_finite(name, check_float(name, array))
    check_shape("D", D, w.shape)
    if not (D > 0).all():
        raise ValueError(f"`D` must be greater than 0, got {D.min()}.")
    return w.astype(np.float64), D.astype(np.float64)


@dataclass(frozen=True, kw_only=True)
class Lat(Method):
    """LAT as a `Method`: the gradient at the ternary weights moves the latent ones."""

    settings: LatSettings

    def start(self) -> tuple[Tree, Tree]:
        """The pretrained arrays, clipped, and v = 0."""
        latent = learnable_arrays(self.network)
        memory = {name: {MOMENT: np.zeros_like(latent[name]["weight"])} for name in self.layers}
        return self.settle(latent, latent, memory), memory

    def place(self, latent: Tree, memory: Tree) -> NetworkParams:
        """The ternary weights."""
        placed = {name: dict(own) for name, own in latent.items()}
        for name in self.layers:
            D = curvature(memory[name][MOMENT], self.settings.eps)
            placed[name]["weight"] = quantize(latent[name]["weight"], D, self.settings.variant)
        return placed

    def pull(self, latent: Tree, memory: Tree, gradients: NetworkParams) -> tuple[Tree, Tree]:
        """The gradient itself; v follows its square."""
        beta = self.settings.beta
        moments = {
            name: {MOMENT: beta * memory[name][MOMENT] + (1 - beta) * gradients[name]["weight"] ** 2}
            for name in self.layers
        }
        return gradients, moments

    def settle(self, before: Tree, after: Tree, memory: Tree) -> Tree:
        """Latent weights are clipped."""
        clip = self.settings.clip
        return {
            name: {**own, "weight": np.clip(own["weight"], -clip, clip)} if name in self.layers else own
            for name, own in after.items()
        }

    def finish(self, latent: Tree, memory: Tree) -> Quantized:
        """The ternary weights and their codes."""
        placed = self.place(latent, memory)
        codes = {name: encode(self.network, name, placed[name]["weight"]) for name in self.layers}
        return Quantized(merged(placed, place_codes(self.network, codes)), codes, 3.0)


def method(
    network: Network, layers: tuple[str, ...], levels: int, settings: LatSettings | None = None
) -> Lat:
    """LAT of a network; raises ValueError if there is no such set of values.

    Parameters
    ----------
    network : Network
        The well-trained network.
    layers : tuple of str
        What is quantized.
    levels : int
        3.
    settings : LatSettings, optional
        How.
    """
    check_levels(levels, LEVELS, "LAT")
    return Lat(network=network, layers=layers, settings=settings or LatSettings())
