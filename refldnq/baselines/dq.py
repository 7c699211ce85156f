"""DQ, direct quantization: weights are rounded, and the data are not looked at.

``dq``         α = mean|w| and the nearest level (midpoints 0.5, 1.5, 3, 6, 12). [code]
``dq-affine``  L equidistant values with 0 among them (Jacob et al. 2018). [memory], re-derived
``dq-exact``   the nearest point of Ω: the most that a method without data can do.

The first and the last are the solver `refldnq.solvers.direct`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from refldnq._checks import check_choice, check_finite, check_float
from refldnq._typing import Array
from refldnq.baselines.base import check_levels
from refldnq.baselines.codes import packed, place_codes
from refldnq.baselines.loop import LayerDone, LoopState
from refldnq.codebook import powers_of_two
from refldnq.model import QuantizedWeight
from refldnq.network import Network
from refldnq.solvers.direct import DirectSettings, solve

Variant = Literal["mean", "affine", "exact"]

LEVELS, AFFINE_LEVELS = range(3, 16, 2), range(2, 129)
"""Numbers of values of a set; the second of equidistant values."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DqSettings:
    """How weights are rounded.

    Parameters
    ----------
    variant : {'mean', 'affine', 'exact'}, optional
        See the module.

    Raises
    ------
    ValueError
        If there is no such variant.
    """

    variant: Variant = "mean"

    def __post_init__(self) -> None:
        check_choice("variant", self.variant, ("mean", "affine", "exact"))


def affine(w: Array, levels: int) -> tuple[float, int, Array]:
    r"""Uniform affine rounding of a tensor.

    .. math:: S=\frac{\max-\min}{L-1},\quad Z=\operatorname{round}(-\min/S),\quad
        q=\operatorname{clip}(\operatorname{round}(w/S)+Z,0,L-1),\quad G=S(q-Z)

    Parameters
    ----------
    w : Array, any shape
        Weights.
    levels : int
        L, 2 to 128.

    Returns
    -------
    S : float
        The step, 0 if w is 0.
    Z : int
        The code of 0.
    q : Array, shape of w, int8
        Codes.

    Raises
    ------
    ValueError
        If an entry is not finite or `levels` is out of range.
    TypeError
        If `w` is not of floats.

    Notes
    -----
    The range is stretched to hold 0. Rounding is half to even, where the paper leaves it open.

    Examples
    --------
    >>> S, Z, q = affine(np.array([-1.0, 0.2, 3.0]), 5)
    >>> S, Z, S * (q - Z)
    (1.0, 1, array([-1.,  0.,  3.]))
    """
    check_levels(levels, AFFINE_LEVELS, "uniform affine rounding")
    check_finite("w", check_float("w", w))
    v = w.astype(np.float64)
    low, high = min(0.0, float(v.min(initial=0.0))), max(0.0, float(v.max(initial=0.0)))
    S = high / (levels - 1) - low / (levels - 1)
    if S == 0:
        return 0.0, 0, np.zeros(w.shape, dtype=np.int8)
    Z = int(np.rint(-low / S))
    return S, Z, np.clip(np.rint(v / S) + Z, 0, levels - 1).astype(np.int8)


def encode(w: Array, levels: int, variant: Variant) -> QuantizedWeight:
    """A packed weight, rounded.

    Parameters
    ----------
    w : Array, shape (g, d, m)
        The packed weight.
    levels : int
        Number of values.
    variant : {'mean', 'affine', 'exact'}
        How.

    Raises
    ------
    ValueError
        If an entry is not finite or there is no such set.
    TypeError
        If `w` is not of floats.

    Examples
    --------
    >>> encode(np.array([[[1.0], [-3.0]]]), 3, "mean").weight().ravel()
    array([ 0., -2.])
    """
    if variant == "affine":
        S, Z, q = affine(w, levels)
        return QuantizedWeight(codes=q, alpha=np.array(S), values=np.arange(levels, dtype=np.float64) - Z)
    found = solve(None, w, powers_of_two(levels), DirectSettings(variant=variant))
    return QuantizedWeight(codes=found.codes, alpha=found.alpha, values=found.values)


def quantize_network(
    network: Network,
    layers: tuple[str, ...],
    levels: int,
    images: Array,
    rng: np.random.Generator,
    settings: DqSettings | None,
    state: LoopState,
    tell: Callable[[LayerDone], None],
) -> None:
    """DQ of every layer; a retraining moves the scales.

    Parameters
    ----------
    network : Network
        The well-trained network.
    layers : tuple of str
        What is quantized.
    levels : int
        2 to 128 with equidistant values, else 3, 5, ..., 15.
    images : Array, shape (n, *input_shape)
        Not used.
    rng : numpy.random.Generator
        Not used.
    settings : DqSettings or None
        How.
    state : LoopState
        What is done already.
    tell : callable
        Called after every layer.

    Raises
    ------
    ValueError
        If there is no such set of values.
    """
    chosen = settings or DqSettings()
    check_levels(levels, AFFINE_LEVELS if chosen.variant == "affine" else LEVELS, "DQ")
    for name in layers[state.epoch :]:
        code = encode(packed(network, name, network.params[name]["weight"]), levels, chosen.variant)
        tell(LayerDone(name, place_codes(network, {name: code}), code, float(levels), len(layers)))
