"""What every baseline gives and how it is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from refldnq._checks import check_choice
from refldnq._typing import Array, Int64Array
from refldnq.baselines.loop import EpochRecord, LoopState
from refldnq.baselines.schedule import Name, Schedule
from refldnq.model import QuantizedWeight
from refldnq.network import Network


@dataclass(frozen=True, slots=True)
class BaselineResult:
    """A network quantized by a baseline.

    Parameters
    ----------
    network : Network
        With the quantized weights in place, in the type of the network that came in.
    quantized : mapping of str to QuantizedWeight
        Codes of the layers that one set of values a layer describes; they give the network's weights bit for
        bit. Methods with values of their own for every block or bucket leave it empty.
    labels_used : bool
        Whether a label has had an influence.
    steps, epochs, images : int
        Steps of the optimizer, passes over the images, image passes; 0 if nothing was trained.
    skipped : tuple of str
        Layers with weights that were not quantized.
    mean_levels : float
        Number of values that a weight can take where it stands, mean over all quantized weights.
    history : tuple of EpochRecord
        One entry an epoch.
    """

    network: Network
    quantized: Mapping[str, QuantizedWeight]
    labels_used: bool
    steps: int
    epochs: int
    images: int
    skipped: tuple[str, ...]
    mean_levels: float
    history: tuple[EpochRecord, ...]


class Runner(Protocol):
    """How every baseline is called.

    Parameters
    ----------
    network : Network
        The well-trained network; it stays as it is.
    images : Array, shape (n, *input_shape)
        Preprocessed inputs of the network's type.
    labels : Array, shape (n,), int64, or None
        Class indices; needed by methods that train with them, and by `retrain`.
    levels : int
        Number of values of a quantized weight.
    rng : numpy.random.Generator
        All randomness.
    schedule : {'scaled', 'published'} or Schedule, optional
        How the method trains; another `Schedule` takes the place of both. Of a method that computes, how it
        is retrained: both names mean `refldnq.baselines.retrain.RETRAIN`.
    layers : tuple of str, optional
        What is quantized; None means every convolution and linear layer.
    retrain : bool, optional
        Whether quantization is followed by training with labels of what it left free (step 6 of Algorithm 1;
        for vector and direct quantization of the values too).
    on_epoch : callable, optional
        Called with the state after every epoch, and after every layer that is computed.
    state : LoopState, optional
        A state that `on_epoch` was given in a run with the same arguments; the run goes on there, and ends
        with the same bits. The state of `rng` is set to the one it had. States of other runs are refused.
    settings : object, optional
        The method's own settings in place of its defaults.

    Raises
    ------
    ValueError
        If `levels` is not among the method's, labels are needed and missing, the images do not fit, the
        state is of another run, nothing is left to retrain, or training diverges.
    TypeError
        If a type is wrong.
    KeyError
        If a name of `layers` is not a layer with weights.
    """

    def __call__(
        self,
        network: Network,
        images: Array,
        labels: Int64Array | None,
        *,
        levels: int,
        rng: np.random.Generator,
        schedule: Name | Schedule = "scaled",
        layers: tuple[str, ...] | None = None,
        retrain: bool = False,
        on_epoch: Callable[[LoopState], None] | None = None,
        state: LoopState | None = None,
        settings: Any = None,
    ) -> BaselineResult:
        """Quantize a network."""
        ...


@dataclass(frozen=True, slots=True)
class Baseline:
    """One method of the comparison.

    Parameters
    ----------
    name : str
        As it is asked for.
    label : str
        As in the paper's tables.
    trains : bool
        Whether quantization itself trains the network.
    needs_labels : bool
        Whether it cannot do without labels; `retrain` always needs them.
    origin : str
        Where its definition comes from: ``[code]``, the method's public code; ``[paper]``, L-DNQ's paper;
        ``[memory], re-derived``, from memory of the method's paper, not verified.
    levels : tuple of int or range
        Numbers of values that it has sets of.
    run : callable
        See `Runner`.
    """

    name: str
    label: str
    trains: bool
    needs_labels: bool
    origin: str
    levels: tuple[int, ...] | range
    run: Runner


def chosen_layers(network: Network, layers: tuple[str, ...] | None) -> tuple[str, ...]:
    """The layers to quantize, in the network's order.

    Parameters
    ----------
    network : Network
        The network.
    layers : tuple of str or None
        Names; None means all that have weights.

    Raises
    ------
    KeyError
        If a name is not a layer with weights.
    ValueError
        If there is no layer to quantize.
    """
    wanted = network.weighted if layers is None else layers
    unknown = sorted(set(wanted) - set(network.weighted))
    if unknown:
        raise KeyError(f"`layers` must name layers with weights, got {unknown}.")
    if not wanted:
        raise ValueError("`layers` must name at least one layer, got none.")
    return tuple(name for name in network.weighted if name in wanted)


def pick_schedule(schedule: Name | Schedule, scaled: Schedule, published: Schedule) -> Schedule:
    """The schedule that is asked for by name, or given.

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    if isinstance(schedule, Schedule):
        return schedule
    check_choice("schedule", schedule, ("scaled", "published"))
    return scaled if schedule == "scaled" else published


def check_levels(levels: int, known: tuple[int, ...] | range, method: str) -> int:
    """`levels` if the method has such a set.

    Raises
    ------
    ValueError
        If it has not.

    Examples
    --------
    >>> check_levels(5, (3,), "TTQ")
    Traceback (most recent call last):
        ...
    ValueError: `levels` must be 3 for TTQ, got 5.
    """
    if isinstance(levels, bool) or levels not in known:
        if len(known) == 1:
            words = str(known[0])
        elif isinstance(known, range):
            kind = "an odd number" if known.step == 2 else "an integer"
            words = f"{kind} from {known[0]} to {known[-1]}"
        else:
            words = f"one of {', '.join(map(str, known))}"
        raise ValueError(f"`levels` must be {words} for {method}, got {levels!r}.")
    return int(levels)
