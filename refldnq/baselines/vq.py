"""VQ, vector quantization of weights (Gong, Liu, Yang and Bourdev 2014): scalar k-means [code].

A layer's weights are clustered on the line, without a zero or symmetry; each becomes its cluster's mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from refldnq._checks import check_choice, check_finite, check_float, check_integer
from refldnq._rows import Rule, project_rows
from refldnq._typing import Array, Float64Array
from refldnq.baselines.base import check_levels
from refldnq.baselines.codes import packed, place_codes
from refldnq.baselines.loop import LayerDone, LoopState
from refldnq.codebook import free
from refldnq.model import QuantizedWeight
from refldnq.network import Network
from refldnq.projection import Projection, project

Variant = Literal["lloyd", "exact"]

LEVELS = range(2, 129)
"""Numbers of clusters."""

STARTS = 10
"""Starts of k-means++, of which the best result is kept; chosen here, scikit-learn's default for long."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VqSettings:
    """How weights are clustered.

    Parameters
    ----------
    variant : {'lloyd', 'exact'}, optional
        See `quantize`.

    Raises
    ------
    ValueError
        If there is no such variant.
    """

    variant: Variant = "lloyd"

    def __post_init__(self) -> None:
        check_choice("variant", self.variant, ("lloyd", "exact"))


def quantize(w: Array, levels: int, rng: np.random.Generator, *, variant: Variant = "lloyd") -> Projection:
    """Cluster weights on the line.

    Parameters
    ----------
    w : Array, any shape
        Weights.
    levels : int
        Number of clusters, 2 to 128; weights with fewer distinct values have fewer.
    rng : numpy.random.Generator
        Draws the starts of ``lloyd``; ``exact`` draws nothing.
    variant : {'lloyd', 'exact'}, optional
        Lloyd's alternation to its fixed point from SciPy's k-means++, the best of `STARTS`; or the optimum
        by dynamic programming.

    Returns
    -------
    Projection
        Codes, values and the sum of squares; the scale is 1.

    Raises
    ------
    ValueError
        If an entry is not finite, `w` is empty, or an argument is out of range.
    TypeError
        If `w` is not of floats.

    Examples
    --------
    >>> w = np.array([0.0, 5.0, 1.0, 6.0])
    >>> quantize(w, 2, np.random.default_rng(0), variant="exact").values
    array([0.5, 5.5])
    """
    check_choice("variant", variant, ("lloyd", "exact"))
    check_integer("levels", levels, at_least=2)
    check_finite("w", check_float("w", w))
    if variant == "exact" or w.size == 0 or len(np.unique(w)) <= levels:
        return project(w, free(levels), method="exact")
    row = np.ascontiguousarray(w, dtype=np.float64).reshape(1, -1)
    found = min(
        (project_rows(row, free(levels), Rule(), _plus_plus(row[0], levels, rng)) for _ in range(STARTS)),
        key=lambda rows: float(rows.residual[0]),
    )
    return Projection(
        codes=found.codes.reshape(w.shape),
        alpha=found.alpha.reshape(()),
        values=found.values,
        residual=float(found.residual[0]),
        passes=int(found.passes[0]),
        converged=bool(found.converged[0]),
        guarantee="local",
    )


def _plus_plus(v: Float64Array, levels: int, rng: np.random.Generator) -> Float64Array:
    """The means of the first clusters around points that k-means++ draws."""
    from scipy.cluster.vq import kmeans2

    # Tiny or huge numbers would underflow or overflow in squared distances.
    scale = float(np.abs(v).max())
    means, _ = kmeans2(v[:, None] / scale, levels, iter=1, minit="++", rng=rng)
    values: Float64Array = np.unique(means[:, 0] * scale)
    return values


def quantize_network(
    network: Network,
    layers: tuple[str, ...],
    levels: int,
    images: Array,
    rng: np.random.Generator,
    settings: VqSettings | None,
    state: LoopState,
    tell: Callable[[LayerDone], None],
) -> None:
    """VQ of every layer; a retraining moves the clusters' values.

    Parameters
    ----------
    network : Network
        The well-trained network.
    layers : tuple of str
        What is quantized.
    levels : int
        Number of clusters, 2 to 128.
    images : Array, shape (n, *input_shape)
        Not used.
    rng : numpy.random.Generator
        Draws the starts.
    settings : VqSettings or None
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
    check_levels(levels, LEVELS, "VQ")
    chosen = settings or VqSettings()
    for name in layers[state.epoch :]:
        clusters = quantize(network.params[name]["weight"], levels, rng, variant=chosen.variant)
        code = QuantizedWeight(
            codes=packed(network, name, clusters.codes), alpha=np.array(1.0), values=clusters.values
        )
        used = float(len(code.values))
        tell(LayerDone(name, place_codes(network, {name: code}), code, used, len(layers)))
