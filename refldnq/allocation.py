r"""Levels for each layer from a budget of bits: more where they help the output most.

A layer's sensitivity is measured: the output error (6) of the network with that layer alone quantized, by one
solver with one scale a layer on some of the images, whatever a run with these levels does then. The sum of
these over the layers is minimized by a dynamic program over the layers, exactly unless it becomes too large
(`LIMIT`):

.. math:: \min_k \sum_l E_{l,k_l} \quad\text{such that}\quad \sum_l n_l \log_2 k_l \le B \sum_l n_l

with :math:`n_l` weights in layer l, :math:`k_l` levels, and B bits a weight in the mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from refldnq._checks import check_finite, check_integer, check_number, check_shape
from refldnq._typing import Array, Float64Array
from refldnq.batches import advance, split
from refldnq.codebook import Codebook, powers_of_two, scaled
from refldnq.hessian import accumulate_hessian
from refldnq.layers.base import LinearMap
from refldnq.loss import output_error
from refldnq.network import Live, Network
from refldnq.solvers.base import get_solver

CANDIDATES = (2, 3, 5, 7, 9, 11)
"""Numbers of levels to choose from: the paper's tables have 3 to 11; with the two values ±α, one bit a
weight, a budget of log2(3) bits leaves something to choose."""

LIMIT = 20_000
"""Most partial allocations that are kept from layer to layer (chosen here: seconds for a hundred layers).
Where more of them could still be the best, of those that cost nearly the same only the best goes on."""

SLACK = 1e-12
"""By how much the sums of bits may exceed a budget, relative: their rounding errors."""

SOLVER = "admm_plus"
"""Quantizes the layers whose sensitivities are measured, by its defaults (chosen here: seconds a network)."""

IMAGES = 128
"""Images that sensitivities are measured on: what is wanted are ratios between layers (chosen here)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sensitivities:
    """What each number of levels costs each layer.

    Parameters
    ----------
    names : tuple of str
        The layers, L of them.
    sizes : tuple of int
        Their numbers of weights.
    levels : tuple of int
        The numbers of levels, K of them.
    errors : Array, shape (L, K)
        The output error (6) with that layer alone quantized, squared units of the output per image.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    levels: tuple[int, ...]
    errors: Float64Array


def set_of(levels: int) -> Codebook:
    """The set with so many levels: the paper's, or ±α for two.

    Raises
    ------
    ValueError
        If there is no such set.

    Examples
    --------
    >>> set_of(2).values, set_of(5).values
    (array([-1.,  1.]), array([-2., -1.,  0.,  1.,  2.]))
    """
    return scaled([-1.0, 1.0]) if levels == 2 else powers_of_two(levels)


def sensitivities(
    network: Network,
    images: Array,
    names: Sequence[str],
    *,
    levels: Sequence[int] = CANDIDATES,
    solver: str = SOLVER,
    batch_size: int = 100,
) -> Sensitivities:
    """Measure what quantizing each layer alone, for its own weights, does to the output.

    Parameters
    ----------
    network : Network
        The original network.
    images : Array, shape (n, *input_shape)
        Preprocessed images; the first `IMAGES` of them are used.
    names : sequence of str
        The layers.
    levels : sequence of int, optional
        Numbers of levels.
    solver : str, optional
        Solves the layers' problems (10), with its default settings.
    batch_size : int, optional
        Images at a time.

    Returns
    -------
    Sensitivities
    """
    images = images[:IMAGES]
    target, end = network.forward(images, batch_size=batch_size), len(network.nodes)
    live: Live = network.start(images)
    cut = 0
    errors = np.zeros((len(names), len(levels)))
    sizes = []
    for row, name in enumerate(sorted(names, key=network.position)):
        position = network.position(name)
        live = advance(network, live, cut, position, batch_size)
        cut = position
        layer, x = network[name].layer, live[network[name].inputs[0]]
        assert isinstance(layer, LinearMap)
        H = accumulate_hessian(layer, split(x, batch_size)).blocks
        W = layer.pack(network.params[name]).astype(np.float64)
        sizes.append(W.size)
        for column, count in enumerate(levels):
            solution = get_solver(solver)(H, W, set_of(count), None)
            own = {key: array.astype(network.dtype) for key, array in layer.unpack(solution.G).items()}
            changed = network.replace({name: own})
            output = advance(changed, live, cut, end, batch_size)[network.nodes[-1].name]
            errors[row, column] = output_error(output, target)[0]  # [LDNQ] (6)
    ordered = tuple(sorted(names, key=network.position))
    return Sensitivities(names=ordered, sizes=tuple(sizes), levels=tuple(levels), errors=errors)


def allocate(sizes: Sequence[int], bits: Sequence[float], errors: Array, budget: float) -> tuple[int, ...]:
    """One choice for each layer, of the least sum of errors within a budget of bits.

    Parameters
    ----------
    sizes : sequence of int
        Numbers of weights of the L layers.
    bits : sequence of float
        Bits a weight of the K choices.
    errors : Array, shape (L, K)
        What each choice costs each layer.
    budget : float
        Mean bits a weight.

    Returns
    -------
    tuple of int
        Indices of the choices, within the budget; the optimum if no more than `LIMIT` partial allocations are
        of use after any layer.

    Raises
    ------
    ValueError
        If the cheapest choices exceed the budget, or an argument is malformed.

    Examples
    --------
    A small layer that matters gets the bits:

    >>> allocate([10, 1000], [1.0, 2.0], np.array([[9.0, 1.0], [5.0, 4.0]]), 1.02)
    (1, 0)
    """
    errors = np.asarray(errors, dtype=np.float64)
    check_shape("errors", errors, (len(sizes), len(bits)))
    check_finite("errors", errors)
    check_number("budget", budget, above=0)
    for size in sizes:
        check_integer("sizes", size, at_least=1)
    least = min(bits)
    if not budget >= least:
        raise ValueError(f"`budget` must be at least {least:.6g} bits a weight, got {budget!r}.")
    room = budget * sum(sizes) * (1.0 + SLACK)
    spent, lost = np.zeros(1), np.zeros(1)  # bits and error of the choices so far: better is dearer
    taken: list[tuple[Array, Array]] = []  # the last choice, and the place of those before it
    for row, size in enumerate(sizes):
        reserve = least * sum(sizes[row + 1 :])
        trials = np.add.outer(size * np.asarray(bits, dtype=np.float64), spent).ravel()
        values = np.add.outer(errors[row], lost).ravel()
        inside = np.flatnonzero(trials + reserve <= room)
        order = inside[np.lexsort((values[inside], trials[inside]))]
        before = np.minimum.accumulate(np.concatenate([[np.inf], values[order][:-1]]))
        kept = order[values[order] < before]
        kept = kept[_thinned(trials[kept])]
        taken.append(np.divmod(kept, spent.size))
        spent, lost = trials[kept], values[kept]
    place, choices = spent.size - 1, []
    for chosen, parents in reversed(taken):
        choices.append(int(chosen[place]))
        place = int(parents[place])
    return tuple(reversed(choices))


def _thinned(spent: Array) -> Array:
    """Places of at most `LIMIT` of the ascending costs: the last, which is the best, of each part of them."""
    if spent.size <= LIMIT:
        return np.arange(spent.size)
    part = np.floor((spent - spent[0]) / (spent[-1] - spent[0]) * (LIMIT - 2)).astype(np.int64)
    return np.append(np.flatnonzero(np.diff(part)), spent.size - 1)


def mixed_levels(measured: Sensitivities, mean_bits: float) -> dict[str, Codebook]:
    """A codebook for each layer.

    Parameters
    ----------
    measured : Sensitivities
        From `sensitivities`.
    mean_bits : float
        The budget: the mean of log2(levels) over all weights of these layers.

    Returns
    -------
    dict of str to Codebook
        By layer; fit for `LdnqSettings.levels`.

    Raises
    ------
    ValueError
        If the fewest levels exceed the budget.
    """
    bits = [math.log2(levels) for levels in measured.levels]
    choices = allocate(measured.sizes, bits, measured.errors, mean_bits)
    return {
        name: set_of(measured.levels[choice]) for name, choice in zip(measured.names, choices, strict=True)
    }
