"""TRN, ternary residual networks (Kundu et al. 2017). [memory], re-derived.

Blocks of weights along the input channels become sums of ternary terms: each term is the ternary weight
nearest to what the terms before it have left (FGQ, fine-grained quantization, Mellempudi et al. 2017).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from refldnq._checks import check_finite, check_float, check_integer, check_number, check_shape
from refldnq._typing import Array, Float64Array, Int64Array
from refldnq.baselines.base import check_levels
from refldnq.baselines.loop import LayerDone, LoopState
from refldnq.network import Network

LEVELS = (3, 9, 27, 81, 243)
"""3 to the power of the most terms."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrnSettings:
    """How weights are cut into blocks, and when a block is near enough.

    Parameters
    ----------
    block : int, optional
        Weights a block, along the input channels; the last block of a channel may be shorter.
    tolerance : float, optional
        ε_l: a block has terms enough when ‖r‖ ≤ ε_l ‖w‖. Chosen here.

    Raises
    ------
    ValueError
        If a number is out of range.
    TypeError
        If a number is of another type.
    """

    block: int = 64
    tolerance: float = 0.2

    def __post_init__(self) -> None:
        check_integer("block", self.block, at_least=1)
        check_number("tolerance", self.tolerance, at_least=0)


@dataclass(frozen=True, slots=True)
class Residuals:
    """Blocks as sums of ternary terms.

    Parameters
    ----------
    G : Array, shape of the blocks, float64
        The sums.
    terms : Array, shape (r,), int64
        Terms of each block.
    norms : tuple of Array
        ‖r_k‖ of every block after k = 0, 1, ... terms; it stands still where a block has terms enough.
    """

    G: Float64Array
    terms: Int64Array
    norms: tuple[Float64Array, ...]


def fgq(v: Float64Array) -> tuple[Float64Array, Float64Array]:
    r"""The nearest ternary point αt of every row.

    .. math:: \Delta^*=\arg\max_\Delta\frac{(\sum_{|v|>\Delta}|v|)^2}{\#\{|v|>\Delta\}},\qquad
        \alpha=\operatorname{mean}_{|v|>\Delta^*}|v|

    Parameters
    ----------
    v : Array, shape (r, k), float64
        The rows.

    Returns
    -------
    t : Array, shape (r, k), float64
        -1, 0, 1.
    alpha : Array, shape (r,), float64
        The scales; 0 where a row is 0.

    Examples
    --------
    >>> fgq(np.array([[4.0, 1.0, -1.0, 1.0]]))
    (array([[1., 0., 0., 0.]]), array([4.]))
    """
    check_finite("v", v)
    if v.size == 0:
        return np.zeros_like(v), np.zeros(len(v))
    magnitude = np.abs(v)
    order = np.argsort(-magnitude, axis=1, kind="stable")
    a = np.take_along_axis(magnitude, order, axis=1)
    count = np.arange(1, v.shape[1] + 1)
    total = np.cumsum(a, axis=1)
    below = np.append(a[:, 1:], np.zeros((len(a), 1)), axis=1)
    # A threshold takes all equal magnitudes or none of them.
    score = np.where(a > below, (total / np.sqrt(count)) ** 2, -1.0)
    best = score.argmax(axis=1)[:, None]
    threshold = np.take_along_axis(below, best, axis=1)
    alpha = np.take_along_axis(total, best, axis=1) / (best + 1)
    nothing = a[:, :1] == 0
    t = np.where((magnitude > threshold) & ~nothing, np.sign(v), 0.0)
    return t, np.where(nothing, 0.0, alpha)[:, 0]


def residual_terms(w: Array, max_terms: int, tolerance: float) -> Residuals:
    """Add ternary terms to every row until it is near enough: r₀ = w, r_{k+1} = r_k - α_k t_k.

    Parameters
    ----------
    w : Array, shape (r, k)
        The rows.
    max_terms : int
        Most terms a row.
    tolerance : float
        ε_l.

    Raises
    ------
    ValueError
        If an entry is not finite or a number is out of range.
    TypeError
        If `w` is not of floats.

    Examples
    --------
    >>> found = residual_terms(np.array([[4.0, 1.0, -1.0, 1.0]]), 2, 0.1)
    >>> found.G, [float(norm[0]) for norm in found.norms[1:]]
    (array([[ 4.,  1., -1.,  1.]]), [1.7320508075688772, 0.0])
    """
    check_shape("w", check_float("w", w), (None, None))
    check_finite("w", w)
    check_integer("max_terms", max_terms, at_least=1)
    check_number("tolerance", tolerance, at_least=0)
    r: Float64Array = w.astype(np.float64)
    norms = [np.linalg.norm(r, axis=1)]
    terms = np.zeros(len(r), dtype=np.int64)
    G = np.zeros_like(r)
    for _ in range(max_terms):
        open_rows = norms[-1] > tolerance * norms[0]
        if not open_rows.any():
            break
        t, alpha = fgq(r)
        step = np.where(open_rows[:, None], alpha[:, None] * t, 0.0)
        r, G = r - step, G + step
        terms += open_rows
        norms.append(np.where(open_rows, np.linalg.norm(r, axis=1), norms[-1]))
    return Residuals(G, terms, tuple(norms))


def quantize(weight: Array, max_terms: int, settings: TrnSettings | None = None) -> tuple[Array, Int64Array]:
    """A layer's weight as sums of ternary terms.

    Parameters
    ----------
    weight : Array, shape (out, in) or (out, in, kh, kw)
        In the layer's own order. A block lies along the input channels at one place of the kernel.
    max_terms : int
        Most terms a block.
    settings : TrnSettings, optional
        Size of a block, tolerance.

    Returns
    -------
    G : Array, shape and type of `weight`
        The sums.
    terms : Array, shape of `weight`, int64
        Terms of the block of each weight.

    Raises
    ------
    ValueError
        If an entry is not finite or a number is out of range.
    TypeError
        If `weight` is not of floats.

    Examples
    --------
    >>> G, terms = quantize(np.array([[1.0, 1.0, 0.5, 0.4]]), 1, TrnSettings(block=2))
    >>> G
    array([[1.  , 1.  , 0.45, 0.45]])
    """
    chosen = settings or TrnSettings()
    channels = weight.shape[1]
    last = np.moveaxis(weight, 1, -1)
    rows = last.reshape(-1, channels)
    G, terms = np.empty_like(rows), np.empty(rows.shape, dtype=np.int64)
    for first in range(0, channels, chosen.block):
        part = slice(first, first + chosen.block)
        found = residual_terms(np.ascontiguousarray(rows[:, part]), max_terms, chosen.tolerance)
        G[:, part], terms[:, part] = found.G, found.terms[:, None]
    back = (np.ascontiguousarray(np.moveaxis(array.reshape(last.shape), -1, 1)) for array in (G, terms))
    first_array, second_array = back
    return first_array, second_array


def quantize_network(
    network: Network,
    layers: tuple[str, ...],
    levels: int,
    images: Array,
    rng: np.random.Generator,
    settings: TrnSettings | None,
    state: LoopState,
    tell: Callable[[LayerDone], None],
) -> None:
    """TRN of every layer; the mean levels are 3 to the power of the terms used.

    Parameters
    ----------
    network : Network
        The well-trained network.
    layers : tuple of str
        What is quantized.
    levels : int
        3 to the power of the most terms of a block.
    images : Array, shape (n, *input_shape)
        Not used.
    rng : numpy.random.Generator
        Not used.
    settings : TrnSettings or None
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
    max_terms = LEVELS.index(check_levels(levels, LEVELS, "TRN")) + 1
    for name in layers[state.epoch :]:
        G, terms = quantize(network.params[name]["weight"], max_terms, settings)
        tell(LayerDone(name, {name: {"weight": G}}, None, float(np.mean(3.0**terms)), len(layers)))
