"""TTQ, trained ternary quantization (Zhu, Han, Mao and Dally 2016) [code].

A weight is one of -Wn, 0, Wp; the two scales of a layer are trained with everything else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from refldnq._checks import check_choice, check_finite, check_number
from refldnq._typing import Array, NetworkParams
from refldnq.baselines.base import check_levels
from refldnq.baselines.codes import encode, place_codes
from refldnq.baselines.loop import Method, Quantized, learnable_arrays, merged
from refldnq.baselines.schedule import Schedule
from refldnq.network import Network
from refldnq.optim import Tree

POSITIVE, NEGATIVE = "positive", "negative"
"""Names of Wp and Wn among a layer's latent arrays, shape ()."""

LEVELS = (3,)
"""Numbers of values of a set."""

PUBLISHED = Schedule(
    epochs=160,
    batch_size=128,
    learning_rate=0.1,
    decay="steps",
    milestones=(81, 122, 149),
    weight_decay=2e-4,
    origin="[code], which would go on to epoch 400 at the last rate; its penalty also falls in steps",
)

SCALED = Schedule(
    epochs=80,
    batch_size=50,
    learning_rate=3e-3,
    weight_decay=2e-4,
    origin="chosen here, for 500 images; momentum and penalty [code]",
)
"""The rate is the best of 0.001, 0.003, 0.01 and 0.05 after 4 epochs of a ResNet-20 on 500 images, by 2,000
other training images; a `Schedule` in its place, given to the baseline, measures it again."""

SCALED_TWN = replace(SCALED, learning_rate=3e-4)
"""For the start at the mean magnitudes: behind batch normalization, scales of a tenth have gradients that are
ten times as large. Compared like `SCALED`, with 0.0001, which made next to no difference, and with 0.005,
which does not train."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TtqSettings:
    """How TTQ starts.

    Parameters
    ----------
    threshold : float, optional
        t; weights up to t max|w| become 0. [code]
    init : {'one', 'twn'}, optional
        The first Wp and Wn: 1 [code], or the mean magnitudes of the weights beyond the threshold.

    Raises
    ------
    ValueError
        If a setting is out of range.
    """

    threshold: float = 0.05
    init: Literal["one", "twn"] = "one"

    def __post_init__(self) -> None:
        object.__setattr__(self, "threshold", check_number("threshold", self.threshold, at_least=0))
        check_choice("init", self.init, ("one", "twn"))


def masks(w: Array, threshold: float) -> tuple[Array, Array]:
    """Where w > Δ and where w < -Δ, with Δ = t max|w|.

    Parameters
    ----------
    w : Array, any shape
        Latent weights.
    threshold : float
        t.

    Examples
    --------
    >>> masks(np.array([1.0, 0.05, -0.5]), 0.05)
    (array([ True, False, False]), array([False, False,  True]))
    """
    delta = w.dtype.type(threshold) * np.abs(w).max(initial=0.0)
    return w > delta, w < -delta


def quantize(w: Array, positive: float, negative: float, threshold: float = 0.05) -> Array:
    """The ternary weight: Wp where w > Δ, -Wn where w < -Δ, else 0.

    Parameters
    ----------
    w : Array, any shape
        Latent weights.
    positive, negative : float
        Wp and Wn.
    threshold : float, optional
        t.

    Examples
    --------
    >>> quantize(np.array([1.0, 0.05, -0.5]), 2.0, 3.0)
    array([ 2.,  0., -3.])
    """
    check_finite("w", w)
    above, below = masks(w, threshold)
    kind = w.dtype.type
    ternary: Array = np.where(above, kind(positive), np.where(below, kind(-negative), kind(0)))
    return ternary


def gradients(
    w: Array, g: Array, positive: float, negative: float, threshold: float = 0.05
) -> tuple[Array, float, float]:
    r"""The gradients of the latent weights, of Wp and of Wn.

    Parameters
    ----------
    w : Array, any shape
        Latent weights.
    g : Array, shape of w
        Gradient with respect to the ternary weight.
    positive, negative : float
        Wp and Wn.
    threshold : float, optional
        t; no gradient goes through Δ.

    Returns
    -------
    dw : Array, shape of w
        Wp g where w > Δ, g where \|w\| ≤ Δ, Wn g where w < -Δ.
    dpositive : float
        The sum of g where w > Δ.
    dnegative : float
        Minus the sum of g where w < -Δ.

    Notes
    -----
    The paper's equation 7 omits the minus of the last one; the weight there is -Wn, so it belongs there.

    Examples
    --------
    >>> gradients(np.array([1.0, 0.05, -0.5]), np.array([1.0, 1.0, 1.0]), 2.0, 3.0)
    (array([2., 1., 3.]), 1.0, -1.0)
    """
    above, below = masks(w, threshold)
    kind = g.dtype.type
    dw = g * np.where(above, kind(positive), np.where(below, kind(negative), kind(1)))
    return dw, float(g[above].sum(dtype=np.float64)), -float(g[below].sum(dtype=np.float64))


def first_scales(w: Array, settings: TtqSettings) -> tuple[float, float]:
    """Wp and Wn before the first step; where no weight lies beyond the threshold, Δ.

    Parameters
    ----------
    w : Array, any shape
        The pretrained weights.
    settings : TtqSettings
        Which start.

    Examples
    --------
    >>> first_scales(np.array([1.0, 3.0, -0.5]), TtqSettings(init="twn"))
    (2.0, 0.5)
    """
    if settings.init == "one":
        return 1.0, 1.0
    above, below = masks(w, settings.threshold)
    delta = settings.threshold * float(np.abs(w).max(initial=0.0))
    return tuple(  # type: ignore[return-value]
        float(np.abs(w[mask]).mean(dtype=np.float64)) if mask.any() else delta for mask in (above, below)
    )


@dataclass(frozen=True, kw_only=True)
class Ttq(Method):
    """TTQ as a `Method`: latent are the weights, Wp and Wn, and all that is not quantized.

    Notes
    -----
    The released code keeps the first convolution in full precision; here `layers` says what is quantized. The
    penalty acts on the latent weights alone.
    """

    settings: TtqSettings

    def start(self) -> tuple[Tree, Tree]:
        """The pretrained arrays and the first scales."""
        latent = learnable_arrays(self.network)
        for name in self.layers:
            scales = first_scales(latent[name]["weight"], self.settings)
            for key, scale in zip((POSITIVE, NEGATIVE), scales, strict=True):
                latent[name] = {**latent[name], key: np.array(scale, dtype=self.network.dtype)}
        return latent, {}

    def place(self, latent: Tree, memory: Tree) -> NetworkParams:
        """The ternary weights."""
        placed = {}
        for name, own in latent.items():
            placed[name] = {key: array for key, array in own.items() if key not in (POSITIVE, NEGATIVE)}
            if name in self.layers:
                placed[name]["weight"] = quantize(
                    own["weight"], float(own[POSITIVE]), float(own[NEGATIVE]), self.settings.threshold
                )
        return placed

    def pull(self, latent: Tree, memory: Tree, gradients: NetworkParams) -> tuple[Tree, Tree]:
        """See `gradients`."""
        pulled = {name: dict(own) for name, own in gradients.items()}
        for name in self.layers:
            own = latent[name]
            dw, dpositive, dnegative = _gradients(
                own["weight"],
                gradients[name]["weight"],
                float(own[POSITIVE]),
                float(own[NEGATIVE]),
                self.settings.threshold,
            )
            kind = self.network.dtype
            pulled[name] |= {
                "weight": dw,
                POSITIVE: np.array(dpositive, dtype=kind),
                NEGATIVE: np.array(dnegative, dtype=kind),
            }
        return pulled, memory

    def finish(self, latent: Tree, memory: Tree) -> Quantized:
        """The ternary weights and their codes."""
        placed = self.place(latent, memory)
        codes = {name: encode(self.network, name, placed[name]["weight"]) for name in self.layers}
        return Quantized(merged(placed, place_codes(self.network, codes)), codes, 3.0)


_gradients = gradients  # `Ttq.pull` has an argument of that name


def method(
    network: Network, layers: tuple[str, ...], levels: int, settings: TtqSettings | None = None
) -> Ttq:
    """TTQ of a network; raises ValueError if there is no such set of values.

    Parameters
    ----------
    network : Network
        The well-trained network.
    layers : tuple of str
        What is quantized.
    levels : int
        3.
    settings : TtqSettings, optional
        How.
    """
    check_levels(levels, LEVELS, "TTQ")
    return Ttq(network=network, layers=layers, settings=settings or TtqSettings())
