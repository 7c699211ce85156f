r"""The target ``drift``: a layer that makes up for what the quantized layers before it have changed.

The layer error (8) compares a layer's old and new weights on the quantized prefix's inputs :math:`\tilde X`.
What the next layers want is the pre-activation :math:`Z = XW` of the reference network, on its own inputs X:

.. math:: \min_{G\in\Omega} \tfrac1n \|XW - \tilde X G\|_F^2 + \tfrac\epsilon2 \|G - \bar W^{new}\|_F^2.

Up to a constant this is problem (10) with :math:`H = \frac2n\tilde X^\top\tilde X + \epsilon I` and the
weight :math:`W^* = H^{-1}(\frac2n\tilde X^\top Z + \epsilon\bar W^{new})`: every solver of (10) solves it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from refldnq._checks import check_finite, check_number, check_shape
from refldnq._typing import Array, Float64Array
from refldnq.layers.base import LinearMap


@dataclass(frozen=True, eq=False)
class DriftProblem:
    r"""The problem (10) whose solution follows the reference network.

    Parameters
    ----------
    H : Array, shape (g, d, d), float64
        :math:`\frac2n\tilde X^\top\tilde X + \epsilon I`.
    W : Array, shape (g, d, m), float64
        :math:`W^*`, the best weight if it were free.
    epsilon : float
        The ridge in the units of H.
    gram : Array, shape (g, d, d)
        :math:`\frac2n\tilde X^\top\tilde X`.
    cross : Array, shape (g, d, m)
        :math:`\frac2n\tilde X^\top Z`.
    energy : float
        :math:`\frac1n\|Z\|_F^2`.
    mean_x : Array, shape (g, d)
        The mean of the rows of :math:`\tilde X` if the problem is centred, else 0.
    mean_z : Array, shape (g, m)
        That of Z.
    """

    H: Float64Array
    W: Float64Array
    epsilon: float
    gram: Float64Array
    cross: Float64Array
    energy: float
    mean_x: Float64Array
    mean_z: Float64Array

    def constant(self, G: Array) -> Float64Array:
        r"""The best constant of each channel beside a weight, :math:`\bar z - \bar x^\top G`; (g, m)."""
        means: Float64Array = self.mean_z - np.einsum("gd,gdm->gm", self.mean_x, G)
        return means

    def error(self, G: Array) -> float:
        r"""The drift :math:`\frac1n\|XW - \tilde X G\|_F^2` of a weight (g, d, m).

        If the problem is centred, with the weight's best constants.
        """
        check_shape("G", G, self.W.shape)
        G = np.asarray(G, dtype=np.float64)
        return self.energy - float(np.vdot(G, self.cross)) + 0.5 * float(np.vdot(G, self.gram @ G))


def drift_problem(
    layer: LinearMap,
    batches: Iterable[tuple[Array, Array]],
    W_new: Array,
    *,
    ridge: float = 0.01,
    bias: bool = False,
    centred: bool = False,
) -> DriftProblem:
    r"""The problem (10) of a layer that is to give the reference network's pre-activations.

    Parameters
    ----------
    layer : LinearMap
        The layer.
    batches : iterable of (Array, Array)
        The quantized prefix's inputs of the layer, (n_i, ...), and the pre-activations that its weight is to
        make of them: the reference network's, less the bias that stays.
    W_new : Array, shape (g, d, m)
        The packed weight as the updates have left it: where the ridge pulls.
    ridge : float, optional
        :math:`\epsilon` in units of the mean diagonal of :math:`\frac2n\tilde X^\top\tilde X`.
    bias : bool, optional
        Whether the last row of the weight is the bias.
    centred : bool, optional
        Whether something behind the layer adds the best constant to each channel; not with `bias`.

    Returns
    -------
    DriftProblem
        For all G, :math:`f(G) = \frac1n\|Z - \tilde XG\|^2 + \frac\epsilon2\|G - \bar W^{new}\|^2` plus a
        constant, exactly.

    Raises
    ------
    ValueError
        If there is no image, shapes do not fit, an entry is not finite, `ridge` is not positive, or a bias is
        to be quantized and not needed.

    Notes
    -----
    :math:`\tilde X^\top Z` is what the layer's own backward pass makes of Z: the gradient of its weight. All
    sums are in float64. The best constants are those of least squares: with them the rows of
    :math:`\tilde X` and Z count from their means over all images and positions.

    Examples
    --------
    The prefix has halved its output; a weight twice as large makes up for it.

    >>> from refldnq.layers import Linear
    >>> x = np.array([[2.0, 0.0], [0.0, 2.0]])
    >>> W = np.array([[[1.0], [-3.0]]])
    >>> problem = drift_problem(Linear(2, 1, bias=False), [(x / 2, x @ W[0])], W, ridge=1e-12)
    >>> problem.W.ravel().round(6), round(problem.error(2 * W), 9)
    (array([ 2., -6.]), 0.0)
    """
    check_number("ridge", ridge, above=0)
    if centred and bias:
        raise ValueError("`centred` must be False if the bias is a row of the weight, got True.")
    check_finite("W_new", W_new)
    W_new = np.asarray(W_new, dtype=np.float64)
    g, d, m = W_new.shape
    rows = d + 1 if centred else d  # the last one of ones: sums of patches
    gram, cross, total = np.zeros((g, rows, rows)), np.zeros(W_new.shape), np.zeros((g, m))
    energy, images = 0.0, 0
    params = {name: np.zeros(shape) for name, shape in layer.parameter_shapes().items()}
    for x, z in batches:
        check_finite("x", x)
        check_finite("z", z)
        x, z = x.astype(np.float64), z.astype(np.float64)
        gram += layer.gram(x, bias=bias or centred)
        _, tape = layer.forward(params, x)
        _, gradients = layer.backward(params, z, tape, wrt_inputs=False)
        cross += layer.pack(gradients, bias=bias)
        energy += float(np.vdot(z, z))
        total += z.reshape(z.shape[0], g, m, -1).sum(axis=(0, 3))
        images += x.shape[0]
    return least_squares(gram, cross, total, energy, images, W_new, ridge=ridge)


def least_squares(
    gram: Float64Array,
    cross: Float64Array,
    total: Float64Array,
    energy: float,
    images: int,
    W_new: Float64Array,
    *,
    ridge: float,
) -> DriftProblem:
    r"""The problem that sums over patches and their wanted pre-activations make.

    Parameters
    ----------
    gram : Array, shape (g, d, d) or (g, d + 1, d + 1), float64
        :math:`\tilde X^\top\tilde X`; with one more row, that of a constant 1, the problem is centred.
    cross : Array, shape (g, d, m)
        :math:`\tilde X^\top Z`.
    total : Array, shape (g, m)
        The sum of Z's rows; not needed unless the problem is centred.
    energy : float
        :math:`\|Z\|_F^2`.
    images : int
        n.
    W_new : Array, shape (g, d, m)
        Where the ridge pulls.
    ridge : float
        As for `drift_problem`.

    Returns
    -------
    DriftProblem

    Raises
    ------
    ValueError
        If there is no image.
    """
    if not images:
        raise ValueError("`batches` must hold at least one image, got none.")
    g, d, m = W_new.shape
    mean_x, mean_z = np.zeros((g, d)), np.zeros((g, m))
    if gram.shape[1] > d:
        count = gram[:, d, d, None]  # of rows: images times positions
        mean_x, mean_z = gram[:, :d, d] / count, total / count
        gram = gram[:, :d, :d] - np.einsum("gi,gj->gij", count * mean_x, mean_x)
        cross = cross - np.einsum("gi,gj->gij", count * mean_x, mean_z)
        energy -= float(np.sum(count * mean_z**2))
    gram, cross = 2.0 / images * gram, 2.0 / images * cross
    epsilon = ridge * float(np.einsum("gii->gi", gram).mean())
    if not epsilon > 0:  # the layer sees nothing: any weight is as good, the old one stays
        return DriftProblem(gram, W_new, 0.0, gram, cross, energy / images, mean_x, mean_z)
    H = gram + epsilon * np.eye(d)
    right = cross + epsilon * W_new
    W = np.stack([cho_solve(cho_factor(block), own) for block, own in zip(H, right, strict=True)])
    return DriftProblem(H, W, epsilon, gram, cross, energy / images, mean_x, mean_z)
