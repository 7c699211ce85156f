r"""How much each entry of a layer's pre-activation counts, one weight for every row and output channel.

The layer error (8) counts every image, position and channel alike. What the network makes of an error
depends on where it is: behind a closed ReLU it is lost. With the network's output y and a layer's
pre-activation z, an error :math:`\delta` of z changes y by :math:`J\delta` to first order, and, if the errors
of different entries are uncorrelated, the expected squared change is

.. math:: \sum_r \omega_r \delta_r^2, \qquad \omega_r = \|J_{\cdot r}\|^2,

with the diagonal of :math:`J^\top J`. So the problem becomes one of weighted least squares, with a Hessian of
its own for every output channel.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np

from refldnq._checks import check_choice, check_finite, check_integer, check_number, check_shape
from refldnq._kernels.threads import run_chunks
from refldnq._typing import Array, Float64Array
from refldnq.drift import DriftProblem, least_squares
from refldnq.layers.base import LinearMap
from refldnq.layers.relu import ReLU
from refldnq.network import Live, Network

Importance = Literal["alike", "open", "sensitivity"]

KINDS: tuple[Importance, ...] = ("alike", "open", "sensitivity")

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


def sensitivities(
    network: Network, live: Live, start: int, name: str, rng: np.random.Generator, *, draws: int = 1
) -> Array:
    r"""The diagonal of :math:`J^\top J` of the final output in a node's output, estimated.

    Parameters
    ----------
    network : Network
        The reference; it is evaluated as for inference.
    live : mapping of str to Array
        Its outputs alive at cut `start`, which is not behind the node.
    start : int
        The cut.
    name : str
        The node.
    rng : numpy.random.Generator
        Draws the signs.
    draws : int, optional
        Vectors s of random signs: the mean of :math:`(J^\top s)^2` over them has the right expectation.

    Returns
    -------
    Array, shape of the node's output
        Not negative.

    Examples
    --------
    A linear network's sensitivities are the squared norms of its weight's columns, in expectation.

    >>> from refldnq.layers import Linear
    >>> from refldnq.network import Node
    >>> nodes = (Node("a", Linear(2, 2, bias=False), ("input",)), Node("b", Linear(2, 1, bias=False), ("a",)))
    >>> params = {"a": {"weight": np.eye(2)}, "b": {"weight": np.array([[1.0, -3.0]])}}
    >>> live = {"input": np.zeros((1, 2))}
    >>> sensitivities(Network(nodes, params, (2,)), live, 0, "a", np.random.default_rng(0))
    array([[1., 9.]])
    """
    check_integer("draws", draws, at_least=1)
    cut, end, last = network.position(name) + 1, len(network.nodes), network.nodes[-1].name
    alive = network.advance(live, start, cut)
    run = network.record(alive, cut, end)
    output, mean = run.live[last], np.zeros_like(alive[name])
    for _ in range(draws):
        signs = rng.choice(np.array([-1.0, 1.0], output.dtype), output.shape)
        gradients, _ = network.backward(run, {last: signs}, moving=(), wrt_inputs=True)
        mean += gradients[name] ** 2 / draws
    return mean


def row_weights(
    network: Network,
    parts: Iterable[Live],
    start: int,
    name: str,
    stop: str,
    kind: Importance,
    *,
    floor: float,
    rng: np.random.Generator,
) -> Array | None:
    """How much each entry of a layer's pre-activation counts: on average 1 in every channel.

    Parameters
    ----------
    network : Network
        The reference.
    parts : iterable of mappings of str to Array
        Its outputs alive at cut `start`, some images at a time.
    start : int
        The cut, not behind the layer.
    name : str
        The layer.
    stop : str
        The node behind the layer, or the layer itself, in front of whose output a ReLU would stand.
    kind : {'alike', 'open', 'sensitivity'}
        All alike; those that the ReLU behind `stop` lets through more than the others; in proportion to the
        final output's sensitivity.
    floor : float
        With ``open``, how much the others count, in units of these; with ``sensitivity``, the share of the
        weight that is the same everywhere. Over 0: what counts nothing would be anything.
    rng : numpy.random.Generator
        For `sensitivities`.

    Returns
    -------
    Array, shape (n, c, ...), float32, or None
        None if all count alike: by request, or because no ReLU stands there.

    Raises
    ------
    ValueError
        If `kind` is unknown or `floor` not in (0, 1].
    """
    check_choice("kind", kind, KINDS)
    if not check_number("floor", floor, above=0) <= 1:
        raise ValueError(f"`floor` must be at most 1, got {floor}.")
    found: list[Array] = []
    for live in parts if kind != "alike" else ():
        if kind == "sensitivity":
            part: Array | None = sensitivities(network, live, start, name, rng)
        else:
            part = open_entries(network, live, start, stop)
        if part is None:
            return None
        found.append(part.astype(np.float32))
    if not found:
        return None
    weights = np.concatenate(found)
    if kind == "open":
        weights = np.where(weights > 0, np.float32(1), np.float32(floor))
    axes = (0, *range(2, weights.ndim))
    mean = weights.mean(axis=axes, keepdims=True, dtype=np.float64).astype(np.float32)
    # A channel that changes nothing has no sensitivity anywhere: its rows count alike.
    share = np.divide(weights, mean, out=np.ones_like(weights), where=mean > 0)
    return share if kind == "open" else np.asarray(np.float32(floor) + np.float32(1 - floor) * share)


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
