r"""Levels for each layer from a budget of bits: more where they help the output most.

A layer's sensitivity is measured: the output error (6) of the network with that layer alone quantized. The
sum of these over the layers is minimized, exactly on a grid, by a dynamic program over the layers:

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

GRID = 20_000
"""Parts of the budget beyond the fewest bits; bits are rounded up to them, so that it is never exceeded
(chosen here)."""

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
    solver: str = "admm_plus",
    batch_size: int = 100,
) -> Sensitivities:
    """Measure what quantizing each layer alone does to the output.

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
        Indices of the choices; optimal among those whose bits beyond the fewest, each layer's rounded up to a
        part in `GRID` of what the budget leaves for them, stay within it.

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
    part = (budget - least) * sum(sizes) / GRID
    # Parts beyond the fewest bits; a choice of the fewest costs nothing, also if nothing is to be spent.
    cost = [
        [0 if b == least else math.ceil(size * (b - least) / part) if part > 0 else GRID + 1 for b in bits]
        for size in sizes
    ]
    best = np.zeros(GRID + 1)  # least error of the layers so far with at most so many parts
    taken = np.zeros((len(sizes), GRID + 1), dtype=np.int64)
    for row, own in enumerate(cost):
        trials = np.full((len(bits), GRID + 1), np.inf)
        for choice, parts in enumerate(own):
            if parts <= GRID:
                trials[choice, parts:] = best[: GRID + 1 - parts] + errors[row, choice]
        taken[row] = trials.argmin(axis=0)
        best = trials.min(axis=0)
    left, choices = GRID, []
    for row in reversed(range(len(sizes))):
        choices.append(int(taken[row, left]))
        left -= cost[row][choices[-1]]
    return tuple(reversed(choices))


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
