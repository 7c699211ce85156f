r"""What counts less where it is lost: one weight for every row and output channel of a layer's problem.

The layer error (8) counts every image, position and channel alike. But a pre-activation behind which the
reference's ReLU is closed may be anything below zero: only an error that opens the ReLU is seen. With a
weight :math:`\omega_{ro}` for row r (image and position) and output channel o the layer's problem is one of
weighted least squares, with a Hessian of its own for every channel,

.. math:: H_o = \tfrac2n \tilde X^\top \mathrm{diag}(\omega_{\cdot o}) \tilde X .
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from refldnq._checks import check_finite, check_number, check_shape
from refldnq._kernels.threads import run_chunks
from refldnq._typing import Array, Float64Array
from refldnq.drift import DriftProblem, least_squares
from refldnq.layers.base import LinearMap
from refldnq.layers.relu import ReLU
from refldnq.network import Live, Network

ROWS = 2048
"""About how many rows a product has: chosen here; a larger one is no faster and takes more memory."""


def open_entries(network: Network, live: Live, start: int, name: str) -> Array | None:
    """Where the ReLU behind node `name` is open.

    Parameters
    ----------
    network : Network
        The reference.
    live : mapping of str to Array
        Its outputs alive at cut `start`, which is not behind the node.
    start : int
        The cut.
    name : str
        A node.

    Returns
    -------
    Array of bool, shape of the node's output, or None
        None if something else than one ReLU takes the node's output.
    """
    users = [node for node in network.nodes for source in node.inputs if source == name]
    if len(users) != 1 or not isinstance(users[0].layer, ReLU):
        return None
    opened: Array = network.advance(live, start, network.position(name) + 1)[name] > 0
    return opened


def row_weights(
    network: Network, parts: Iterable[Live], start: int, name: str, *, closed: float
) -> Array | None:
    """How much each entry of a node's output counts: on average 1 in every channel.

    Parameters
    ----------
    network : Network
        The reference.
    parts : iterable of mappings of str to Array
        Its outputs alive at cut `start`, some images at a time.
    start : int
        The cut, not behind the node.
    name : str
        The node in front of the ReLU.
    closed : float
        How much entries count that the ReLU lets not through, in units of the others; over 0, since what
        counts nothing could become anything, to 1.

    Returns
    -------
    Array, shape (n, c, ...), float32, or None
        None if all count alike: because `closed` is 1 or no ReLU stands there.

    Raises
    ------
    ValueError
        If `closed` is not in (0, 1].
    """
    if not check_number("closed", closed, above=0) <= 1:
        raise ValueError(f"`closed` must be at most 1, got {closed}.")
    found: list[Array] = []
    for live in parts if closed < 1 else ():
        part = open_entries(network, live, start, name)
        if part is None:
            return None
        found.append(np.where(part, np.float32(1), np.float32(closed)))
    if not found:
        return None
    weights = np.concatenate(found)
    mean = weights.mean(axis=(0, *range(2, weights.ndim)), keepdims=True, dtype=np.float64)
    return np.asarray(weights / mean.astype(np.float32))


def weighted_drift_problem(
    layer: LinearMap,
    batches: Iterable[tuple[Array, Array, Array]],
    W_new: Array,
    *,
    ridge: float = 0.01,
    centred: bool = False,
) -> DriftProblem:
    r"""The problem of `drift_problem` with a weight for every row and output channel.

    .. math:: \min \tfrac1n \sum_{r,o} \omega_{ro} \bigl(Z_{ro} - (\tilde XG)_{ro}\bigr)^2
        + \tfrac\epsilon2 \|G - \bar W^{new}\|_F^2

    Parameters
    ----------
    layer : LinearMap
        The layer.
    batches : iterable of (Array, Array, Array)
        The inputs and wanted pre-activations, as for `drift_problem`, and the weights, in the shape of the
        pre-activations, not negative.
    W_new : Array, shape (g, d, m)
        Where the ridge pulls.
    ridge : float, optional
        As for `drift_problem`.
    centred : bool, optional
        As for `drift_problem`.

    Returns
    -------
    DriftProblem
        Of g m groups of one column each, in order (g, m): every channel has a Hessian of its own.

    Raises
    ------
    ValueError
        If there is no image, shapes do not fit, an entry is not finite, a weight is negative, or a channel
        has no row that counts.
    """
    check_number("ridge", ridge, above=0)
    check_finite("W_new", W_new)
    W_new = np.asarray(W_new, dtype=np.float64)
    g, d, m = W_new.shape
    rows = d + 1 if centred else d
    gram, cross = np.zeros((g * m, rows, rows)), np.zeros((g * m, d, 1))
    total, energy, images = np.zeros((g * m, 1)), 0.0, 0
    counted = np.zeros(g * m)
    for x, z, weights in batches:
        for label, array in (("x", x), ("z", z), ("weights", weights)):
            check_finite(label, array)
        check_shape("z", z, (len(x), *layer.output_shape(x.shape[1:])))
        check_shape("weights", weights, z.shape)
        if (weights < 0).any():
            raise ValueError(f"`weights` must not be negative, got {float(weights.min())}.")
        size = max(1, ROWS // z[0, 0].size) if len(z) else 1
        for first in range(0, len(x), size):
            part = slice(first, first + size)
            patches = layer.patches(x[part].astype(np.float64))
            if centred:
                patches = np.concatenate([patches, np.ones((g, 1, patches.shape[2]))], axis=1)
            wanted, counts = (_channel_rows(array[part], g, m) for array in (z, weights))
            answers = patches @ (counts * wanted).transpose(0, 2, 1)
            cross += answers[:, :d].transpose(0, 2, 1).reshape(g * m, d, 1)
            if centred:
                total += answers[:, d].reshape(g * m, 1)
            energy += float(np.sum(counts * wanted**2))
            counted += counts.sum(axis=2).ravel()
            _add_products(gram, patches, np.sqrt(counts).reshape(g * m, -1))
        images += x.shape[0]
    if images and not (counted > 0).all():
        raise ValueError("`weights` must be positive somewhere in every channel, got only 0 in one.")
    return least_squares(
        (gram + gram.transpose(0, 2, 1)) / 2,
        cross,
        total,
        energy,
        images,
        W_new.transpose(0, 2, 1).reshape(g * m, d, 1),
        ridge=ridge,
    )


def _add_products(gram: Float64Array, patches: Float64Array, roots: Float64Array) -> None:
    """Add to each channel's block the products of the patches (g, d, rows), times its roots (g m, rows)."""
    m = len(gram) // len(patches)

    def add(_: int, start: int, stop: int) -> None:
        for column in range(start, stop):
            scaled = patches[column // m] * roots[column]
            gram[column] += scaled @ scaled.T

    run_chunks(add, len(gram), blas=True)


def _channel_rows(array: Array, g: int, m: int) -> Float64Array:
    # (n, g m, ...) to (g, m, rows), in float64.
    flat = array.reshape(array.shape[0], g, m, -1).astype(np.float64)
    rows: Float64Array = flat.transpose(1, 2, 0, 3).reshape(g, m, -1)
    return rows
