"""INQ, incremental network quantization (Zhou, Yao, Guo, Xu and Chen 2017) [code].

Weights become powers of two or zero in portions, the largest first; what is quantized is frozen, and the rest
is trained to make up for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from refldnq._checks import check_finite, check_float, check_shape
from refldnq._typing import Array, Float64Array, NetworkParams
from refldnq.baselines.base import check_levels
from refldnq.baselines.codes import mean_over_weights, packed, place_codes
from refldnq.baselines.loop import Method, Quantized, TrainingPoint, learnable_arrays, merged
from refldnq.baselines.schedule import Schedule
from refldnq.model import QuantizedWeight
from refldnq.network import Network
from refldnq.optim import Tree

FROZEN, VALUES = "frozen", "values"
"""Names of a layer's mask and set in the memory."""

LEVELS = range(3, 128, 2)
"""Numbers of values of a set."""

PORTIONS = (0.5, 0.75, 0.875, 1.0)
"""Accumulated portions of the weights that are quantized: Zhou et al. 2017, [memory]. The released script for
AlexNet has 0.3, 0.6, 0.8, 1."""

TERNARY_PORTIONS = (0.2, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.975, 1.0)
"""The same for three levels: Zhou et al. 2017, [memory]."""

PUBLISHED = Schedule(
    epochs=12,
    batch_size=256,
    learning_rate=3e-3,
    decay="steps",
    milestones=(3, 6, 9),
    factor=0.2,
    weight_decay=5e-4,
    origin="[code], for AlexNet: 63,000 steps a phase, the rate falls every 15,000",
)

SCALED = Schedule(
    epochs=12,
    batch_size=50,
    learning_rate=5e-3,
    weight_decay=5e-4,
    origin="chosen here, for 500 images; epochs of a phase",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class InqSettings:
    """What INQ quantizes in which phase.

    Parameters
    ----------
    portions : tuple of float or None, optional
        Accumulated portions, ascending, the last 1; None means `TERNARY_PORTIONS` for three levels, else
        `PORTIONS`. After the last one nothing is left to train.

    Raises
    ------
    ValueError
        If the portions do not ascend from above 0 to 1.
    """

    portions: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        own = self.portions
        if own is not None and not (
            own and own[0] > 0 and own[-1] == 1 and all(a < b for a, b in pairwise(own))
        ):
            raise ValueError(f"`portions` must ascend from above 0 to 1, got {own}.")


def powers(w: Array, levels: int) -> Float64Array:
    r"""The set :math:`P=\{0,\pm2^{n_2},\dots,\pm2^{n_1}\}` of a layer, ascending.

    .. math:: n_1=\lfloor\log_2(4s/3)\rfloor,\qquad n_2=n_1-(L-3)/2,\qquad s=\max|W|

    Parameters
    ----------
    w : Array, any shape
        The pretrained weights; where all are 0, the set is {0}.
    levels : int
        L, odd.

    Raises
    ------
    ValueError
        If an entry is not finite, `levels` is not an odd number from 3 to 127, or the weights are so small
        that the least power is 0 in float64.
    TypeError
        If `w` is not of floats.

    Notes
    -----
    The published :math:`n_2=n_1+1-2^{b-1}/2` is this one at :math:`L=2^{b-1}+1`: 5 bits give 17 values, where
    the table of [LDNQ] says 15.

    Examples
    --------
    >>> powers(np.array([0.8, -0.1]), 5)
    array([-1. , -0.5,  0. ,  0.5,  1. ])
    """
    check_levels(levels, LEVELS, "INQ")
    check_finite("w", check_float("w", w))
    s = float(np.abs(w).max(initial=0.0))
    if s == 0:
        return np.zeros(1)
    # frexp in place of a logarithm: s = m 2^e with m in [1/2, 1), so 4s/3 ≥ 2^e exactly if m ≥ 3/4.
    mantissa, exponent = math.frexp(s)
    n1 = exponent if mantissa >= 0.75 else exponent - 1
    magnitudes = np.array([math.ldexp(1.0, n) for n in range(n1 - (levels - 3) // 2, n1 + 1)])
    if magnitudes[0] == 0:
        raise ValueError(f"`w` must be large enough for {levels} powers in float64, got at most {s}.")
    return np.concatenate([-magnitudes[::-1], [0.0], magnitudes])


def nearest(w: Array, values: Array) -> Array:
    """Codes of the nearest powers; halfway between two it is the larger magnitude.

    Parameters
    ----------
    w : Array, any shape
        Weights.
    values : Array, shape (k,)
        From `powers`.

    Returns
    -------
    Array, shape of w, int8
        Indices into `values`.

    Notes
    -----
    The least magnitude that does not become 0 is half of the least power.

    Examples
    --------
    >>> nearest(np.array([0.25, 0.75, -0.74, 0.2]), np.array([-1.0, -0.5, 0.0, 0.5, 1.0]))
    array([3, 4, 1, 2], dtype=int8)
    """
    check_finite("w", w)
    magnitudes = values[values >= 0].astype(np.float64)
    halfway = 0.5 * (magnitudes[:-1] + magnitudes[1:])
    step = np.searchsorted(halfway, np.abs(w).astype(np.float64), side="right")
    zero = len(magnitudes) - 1
    return (zero + np.where(w < 0, -step, step)).astype(np.int8)


def partition(w: Array, frozen: Array, portion: float) -> Array:
    """The weights that are quantized once `portion` of all of them are.

    Parameters
    ----------
    w : Array, any shape
        Weights as they stand.
    frozen : Array of bool, shape of w
        Those quantized already; they stay.
    portion : float
        Accumulated share.

    Returns
    -------
    Array of bool, shape of w
        `frozen` and the largest others, ``round(portion * w.size)`` in all; of equal ones the first.

    Examples
    --------
    >>> w = np.array([0.1, -0.9, 0.5, 0.2])
    >>> partition(w, np.array([True, False, False, False]), 0.5)
    array([ True,  True, False, False])
    """
    check_finite("w", w)
    check_shape("frozen", frozen, w.shape)
    wanted = round(portion * w.size) - int(frozen.sum())
    magnitude = np.where(frozen, -1.0, np.abs(w)).ravel()
    order = np.argsort(-magnitude, kind="stable")
    mask = frozen.ravel().copy()
    mask[order[: max(0, wanted)]] = True
    return mask.reshape(w.shape)


@dataclass(frozen=True, kw_only=True)
class Inq(Method):
    """INQ as a `Method`: a cycle of the schedule is a phase.

    Notes
    -----
    The set of a layer is that of its pretrained weights, and what is frozen stays so. The released code takes
    n1 and the portion anew in every phase, from all weights as they stand; where a free weight has outgrown a
    frozen one the two differ. At a tie its comparison keeps the smaller magnitude, against its paper.
    """

    levels: int
    portions: tuple[float, ...]

    def plan(self, schedule: Schedule) -> Schedule:
        """One cycle for every phase; nothing is left to train after the last portion."""
        return replace(schedule, cycles=max(1, len(self.portions) - 1))

    def start(self) -> tuple[Tree, Tree]:
        """The pretrained arrays, the layers' sets, and no weight frozen."""
        latent = learnable_arrays(self.network)
        memory = {
            name: {
                FROZEN: np.zeros(latent[name]["weight"].shape, dtype=np.bool_),
                VALUES: powers(latent[name]["weight"], self.levels),
            }
            for name in self.layers
        }
        return latent, memory

    def advance(self, latent: Tree, memory: Tree, portion: float) -> tuple[Tree, Tree]:
        """Quantize and freeze more weights.

        Parameters
        ----------
        latent, memory : mapping of str to mapping of str to Array
            As they stand.
        portion : float
            Accumulated share of a layer's weights.
        """
        new, remembered = dict(latent), dict(memory)
        for name in self.layers:
            w, own = latent[name]["weight"], memory[name]
            mask = partition(w, own[FROZEN], portion)
            points = own[VALUES][nearest(w, own[VALUES])].astype(w.dtype)
            new[name] = {**latent[name], "weight": np.where(mask & ~own[FROZEN], points, w)}
            remembered[name] = {**own, FROZEN: mask}
        return new, remembered

    def begin_epoch(self, epoch: int, point: TrainingPoint, schedule: Schedule) -> TrainingPoint:
        """At the start of a phase, quantize its portion; momentum starts anew, as the rate does."""
        phase, within = divmod(epoch, schedule.epochs)
        if within:
            return point
        latent, memory = self.advance(point.latent, point.memory, self.portions[phase])
        return TrainingPoint(latent, memory, schedule.rule().start(latent))

    def place(self, latent: Tree, memory: Tree) -> NetworkParams:
        """The latent arrays: what is quantized is quantized in place."""
        return latent

    def settle(self, before: Tree, after: Tree, memory: Tree) -> Tree:
        """Frozen weights stay bit for bit, whatever momentum and penalty would add."""
        return {
            name: {**own, "weight": np.where(memory[name][FROZEN], before[name]["weight"], own["weight"])}
            if name in self.layers
            else own
            for name, own in after.items()
        }

    def finish(self, latent: Tree, memory: Tree) -> Quantized:
        """The last portion, quantized and not trained after."""
        latent, memory = self.advance(latent, memory, 1.0)
        codes = {}
        for name in self.layers:
            values = memory[name][VALUES]
            code = packed(self.network, name, nearest(latent[name]["weight"], values))
            codes[name] = QuantizedWeight(codes=code, alpha=np.array(1.0), values=values)
        arrays = merged(latent, place_codes(self.network, codes))
        levels = {name: float(len(own.values)) for name, own in codes.items()}
        return Quantized(arrays, codes, mean_over_weights(self.network, levels))


def resolve(settings: InqSettings, levels: int) -> InqSettings:
    """The settings with their portions chosen; raises ValueError if there is no such set of values.

    Parameters
    ----------
    settings : InqSettings
        How.
    levels : int
        L, odd.

    Examples
    --------
    >>> resolve(InqSettings(), 15).portions
    (0.5, 0.75, 0.875, 1.0)
    """
    check_levels(levels, LEVELS, "INQ")
    return replace(settings, portions=settings.portions or (TERNARY_PORTIONS if levels == 3 else PORTIONS))


def method(
    network: Network, layers: tuple[str, ...], levels: int, settings: InqSettings | None = None
) -> Inq:
    """INQ of a network; raises ValueError if there is no such set of values.

    Parameters
    ----------
    network : Network
        The well-trained network.
    layers : tuple of str
        What is quantized.
    levels : int
        L, odd.
    settings : InqSettings, optional
        How.
    """
    portions = resolve(settings or InqSettings(), levels).portions
    assert portions is not None  # `resolve` chooses them
    return Inq(network=network, layers=layers, levels=levels, portions=portions)
