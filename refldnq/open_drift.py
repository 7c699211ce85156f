r"""What counts less where it is lost: one weight for every row and output channel of a layer's problem.

The layer error (8) counts every image, position and channel alike. But a pre-activation behind which the
reference's ReLU is closed may be anything below zero: only an error that opens the ReLU is seen. For row r
(image and position) and output channel o let :math:`\omega_{ro}` be 1 where it is open and
:math:`\kappa\in(0,1]` where it is closed. The layer's problem is one of weighted least squares, with a
Hessian of its own for every channel,

.. math:: H_o = \tfrac2{n\bar\omega_o} \tilde X^\top \mathrm{diag}(\omega_{\cdot o}) \tilde X
    = \tfrac2{n\bar\omega_o} \bigl(\kappa\,\tilde X^\top\tilde X + (1-\kappa)\,
      \tilde X_{open}^\top\tilde X_{open}\bigr),

where :math:`\bar\omega_o` is the channel's mean weight, so that all channels' problems are of one size.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from refldnq._checks import check_finite, check_number, check_shape
from refldnq._kernels.threads import run_chunks
from refldnq._typing import Array, Float64Array
from refldnq.drift import DriftProblem, least_squares
from refldnq.layers.base import LinearMap

ROWS = 2048
"""About how many rows a product has: chosen here; a larger one is no faster and takes more memory."""


def open_drift_problem(
    layer: LinearMap,
    batches: Iterable[tuple[Array, Array, Array]],
    W_new: Array,
    *,
    closed: float,
    ridge: float = 0.01,
    centred: bool = False,
) -> DriftProblem:
    r"""The problem of `drift_problem` whose rows count 1 or `closed`, channel by channel.

    .. math:: \min \tfrac1n \sum_{r,o} \tfrac{\omega_{ro}}{\bar\omega_o}
        \bigl(Z_{ro} - (\tilde XG)_{ro}\bigr)^2 + \tfrac\epsilon2 \|G - \bar W^{new}\|_F^2

    Parameters
    ----------
    layer : LinearMap
        The layer.
    batches : iterable of (Array, Array, Array)
        The inputs and wanted pre-activations, as for `drift_problem`, and which of these count 1.
    W_new : Array, shape (g, d, m)
        Where the ridge pulls.
    closed : float
        How much the others count, over 0, since what counts nothing could become anything, to 1.
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
        If there is no image, shapes do not fit, an entry is not finite, or `closed` is not in (0, 1].
    """
    check_number("ridge", ridge, above=0)
    if not check_number("closed", closed, above=0) <= 1:
        raise ValueError(f"`closed` must be at most 1, got {closed}.")
    check_finite("W_new", W_new)
    W_new = np.asarray(W_new, dtype=np.float64)
    g, d, m = W_new.shape
    sums, images, rows = _Sums(g, d + 1, m), 0, 0
    for x, z, opened in batches:
        check_finite("x", x)
        check_finite("z", z)
        check_shape("z", z, (len(x), *layer.output_shape(x.shape[1:])))
        check_shape("opened", opened, z.shape)
        images, rows = images + len(x), rows + z[:, 0].size
        size = max(1, ROWS // int(np.prod(z.shape[2:])))
        for first in range(0, len(x), size):
            part = slice(first, first + size)
            patches = layer.patches(x[part].astype(np.float64))
            patches = np.concatenate([patches, np.ones((g, 1, patches.shape[2]))], axis=1)
            wanted, counts = (_channel_rows(array[part], g, m) for array in (z, opened))
            sums.add(patches, wanted, counts > 0)
    gram, cross, energy = sums.weighted(closed)
    # The square of the row of ones is the sum of the weights.
    weight = gram[:, d, d] / rows if images else np.ones(g * m)
    gram, cross = gram / weight[:, None, None], cross / weight[:, None, None]
    return least_squares(
        gram if centred else gram[:, :d, :d],
        cross[:, :d],
        cross[:, d],
        float(np.sum(energy / weight)),
        images,
        W_new.transpose(0, 2, 1).reshape(g * m, d, 1),
        ridge=ridge,
    )


class _Sums:
    """Sums over all rows, and for every channel over those that are open: of products and squares."""

    def __init__(self, g: int, rows: int, m: int) -> None:
        self.gram, self.open_gram = np.zeros((g, rows, rows)), np.zeros((g * m, rows, rows))
        self.cross, self.energy = np.zeros((2, g * m, rows, 1)), np.zeros((2, g * m))

    def add(self, patches: Float64Array, wanted: Float64Array, opened: Array) -> None:
        """Patches (g, d, rows); wanted and opened (g, m, rows)."""
        m = wanted.shape[1]
        for own, values in enumerate((wanted, wanted * opened)):
            self.cross[own] += (values @ patches.transpose(0, 2, 1)).reshape(self.cross[own].shape)
            self.energy[own] += (values**2).sum(axis=2).ravel()
        self.gram += patches @ patches.transpose(0, 2, 1)
        which = opened.reshape(-1, opened.shape[2])

        def products(_: int, start: int, stop: int) -> None:
            for column in range(start, stop):
                through = np.compress(which[column], patches[column // m], axis=1)
                self.open_gram[column] += through @ through.T

        run_chunks(products, len(which), blas=True)

    def weighted(self, closed: float) -> tuple[Float64Array, Float64Array, Float64Array]:
        """The sums of a problem whose closed rows count `closed`, channel by channel."""
        m = len(self.open_gram) // len(self.gram)
        gram = closed * np.repeat(self.gram, m, axis=0) + (1 - closed) * self.open_gram
        cross, energy = (closed * own[0] + (1 - closed) * own[1] for own in (self.cross, self.energy))
        return (gram + gram.transpose(0, 2, 1)) / 2, cross, energy


def _channel_rows(array: Array, g: int, m: int) -> Float64Array:
    # (n, g m, ...) to (g, m, rows), in float64.
    flat = array.reshape(array.shape[0], g, m, -1).astype(np.float64)
    rows: Float64Array = flat.transpose(1, 2, 0, 3).reshape(g, m, -1)
    return rows
