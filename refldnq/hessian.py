"""The layer error (8), its exact Hessian block (10), and how the block is summed over batches.

The pre-activation Z = XW is linear in the packed weight W, so (8) is a quadratic form in W and the Taylor
series (9) ends after its second term: f(G) = ½ tr((G-W)ᵀ H (G-W)) is the layer error itself, with H = (2/n)
XᵀX for every column of a group. H depends on the layer's input alone, not on its weights.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from inspect import signature

import numpy as np
import numpy.typing as npt

from refldnq._checks import check_finite, check_float, check_integer, check_shape
from refldnq._typing import Array, Float64Array, Int64Array
from refldnq.layers.base import LinearMap

Mask = npt.NDArray[np.bool_]

UNIT = float(np.finfo(np.float64).eps) / 2
"""Unit roundoff of float64."""

ASYMMETRY = 1e-8
"""Differences across the diagonal up to this share of the largest entry count as rounding (chosen here: a sum
of N outer products may differ by N unit roundoffs, and N, images times positions, may reach 10^7)."""


@dataclass(frozen=True, eq=False)
class Hessian:
    r"""The Hessian of a layer error: one symmetric positive semidefinite block a group.

    Parameters
    ----------
    blocks : Array, shape (g, d, d), float64
        :math:`H = \frac2n X^\top X`, rows in order (c, kh, kw), the bias row last if there is one.
    images : int
        n, the number of images in the sum.

    Raises
    ------
    ValueError
        If the blocks are misshapen, not finite, not symmetric or have a negative diagonal entry, or
        there is no image.
    TypeError
        If the blocks are not float64.

    Notes
    -----
    What needs eigenvalues is computed when first asked for, then kept.

    Examples
    --------
    >>> hessian = Hessian(np.array([[[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]]), images=5)
    >>> hessian.rank, hessian.condition, hessian.lambda_max, hessian.mean_diagonal
    (array([2]), array([2.]), 2.0, 1.0)
    >>> hessian.dead
    array([[False, False,  True]])
    """

    blocks: Float64Array
    images: int

    def __post_init__(self) -> None:
        check_blocks("blocks", self.blocks)
        check_integer("images", self.images, at_least=1)

    @cached_property
    def eigenvalues(self) -> Float64Array:
        """Eigenvalues of every block, (g, d), ascending."""
        if "eigh" in self.__dict__:
            return self.eigh[0]
        return np.asarray(np.linalg.eigvalsh(self.blocks), dtype=np.float64)

    @cached_property
    def eigh(self) -> tuple[Float64Array, Float64Array]:
        """Eigenvalues (g, d), ascending, and eigenvectors (g, d, d) in columns."""
        values, vectors = np.linalg.eigh(self.blocks)
        return np.asarray(values, dtype=np.float64), np.asarray(vectors, dtype=np.float64)

    @property
    def eigenvalue_range(self) -> tuple[float, float]:
        """The least and the largest eigenvalue of all blocks; rounding can make the least negative."""
        return float(self.eigenvalues[:, 0].min()), float(self.eigenvalues[:, -1].max())

    @property
    def lambda_max(self) -> float:
        """The largest eigenvalue of all blocks."""
        return self.eigenvalue_range[1]

    @property
    def _nonzero(self) -> Mask:
        # Eigenvalues above the rounding error of the largest one of their block (the rule of
        # numpy.linalg.matrix_rank).
        values = self.eigenvalues
        mask: Mask = values > values[:, -1:] * values.shape[1] * 2 * UNIT
        return mask

    @property
    def rank(self) -> Int64Array:
        """Numerical rank of every block, (g,)."""
        rank: Int64Array = self._nonzero.sum(axis=1)
        return rank

    @property
    def condition(self) -> Float64Array:
        """Condition number of every block on its range, (g,); 1 for a zero block."""
        values = self.eigenvalues
        least = np.where(self._nonzero, values, np.inf).min(axis=1)
        condition: Float64Array = np.where(np.isfinite(least), values[:, -1] / least, 1.0)
        return condition

    @property
    def dead(self) -> Mask:
        """Which rows of every block are zero, (g, d): inputs that no image excites."""
        dead: Mask = (self.blocks == 0).all(axis=2)
        return dead

    @property
    def mean_diagonal(self) -> float:
        """Mean of the diagonals of all blocks."""
        return float(np.einsum("gii->gi", self.blocks).mean())


class HessianAccumulator:
    """Sums a layer's Hessian over batches of inputs; only the sum is kept.

    Parameters
    ----------
    layer : LinearMap
        The layer whose input comes in batches.
    bias : bool, optional
        Whether the bias is one more row of the packed weight (a constant 1 in every patch).

    Examples
    --------
    >>> from refldnq.layers import Linear
    >>> accumulator = HessianAccumulator(Linear(2, 1, bias=False))
    >>> accumulator.add(np.array([[1.0, 2.0]]))
    >>> accumulator.add(np.array([[0.0, 1.0], [1.0, 0.0]]))
    >>> hessian = accumulator.result()
    >>> 3 * hessian.blocks[0] / 2
    array([[2., 2.],
           [2., 5.]])
    """

    def __init__(self, layer: LinearMap, *, bias: bool = False) -> None:
        self.layer = layer
        self.bias = bias
        self.images = 0
        self._sum: Float64Array | None = None

    def add(self, x: Array) -> None:
        """Add a batch of inputs, (n, ...), float32 or float64; sums are in float64.

        Raises
        ------
        ValueError
            If the batch does not fit the layer, is not finite, or its sum overflows.
        TypeError
            If the batch is not a float array.
        """
        check_finite("x", check_float("x", x))
        gram = self.layer.gram(x, bias=self.bias)
        check_finite("gram", gram)
        self._sum = gram if self._sum is None else self._sum + gram
        self.images += x.shape[0]

    def result(self) -> Hessian:
        """The Hessian of all batches so far.

        Raises
        ------
        ValueError
            If there was no image.
        """
        if self._sum is None or self.images == 0:
            raise ValueError("`batches` must hold at least one image, got none.")
        symmetric = 0.5 * (self._sum + self._sum.transpose(0, 2, 1))  # whatever the BLAS rounds
        return Hessian(2.0 * symmetric / self.images, self.images)  # [LDNQ] (8)-(10)


def accumulate_hessian(layer: LinearMap, batches: Iterable[Array], *, bias: bool = False) -> Hessian:
    r"""The Hessian of a layer error over all images of all batches.

    Parameters
    ----------
    layer : LinearMap
        The layer.
    batches : iterable of Array
        Inputs of the layer, (n_i, ...); batches may differ in size.
    bias : bool, optional
        Whether the bias is one more row of the packed weight.

    Returns
    -------
    Hessian
        :math:`\frac2n\sum_i X_i^\top X_i`, n the number of images of all batches together.

    Raises
    ------
    ValueError
        If there is no image, or a batch does not fit the layer or is not finite.
    TypeError
        If a batch is not a float array.

    Notes
    -----
    Step 2 of Algorithm 1. n counts images in every layer, so layer errors compare across layers; the released
    code averages over images and positions, without the factor 2.

    Examples
    --------
    >>> from refldnq.layers import Linear
    >>> accumulate_hessian(Linear(1, 1), [np.array([[3.0]]), np.array([[1.0]])], bias=True).blocks
    array([[[10.,  4.],
            [ 4.,  2.]]])
    """
    accumulator = HessianAccumulator(layer, bias=bias)
    for batch in batches:
        accumulator.add(batch)
    return accumulator.result()


def layer_error(H: Float64Array, W: Float64Array, G: Float64Array) -> float:
    r"""The objective (10) of quantizing a layer.

    .. math:: f(G) = \tfrac12 \sum_g \mathrm{tr}\big((G_g - W_g)^\top H_g (G_g - W_g)\big)

    Parameters
    ----------
    H : Array, shape (g, d, d)
        The Hessian's blocks.
    W, G : Array, shape (g, d, m)
        The packed weights and their replacement.

    Returns
    -------
    float
        The layer error (8) per image, exactly: (9) has no further terms.

    Raises
    ------
    ValueError
        If the shapes do not fit.

    Examples
    --------
    >>> layer_error(np.array([[[2.0, 1.0], [1.0, 2.0]]]), np.zeros((1, 2, 1)), np.ones((1, 2, 1)))
    3.0
    """
    check_shape("W", W, (H.shape[0], H.shape[1], None))
    check_shape("G", G, W.shape)
    difference = G - W
    return 0.5 * float(np.vdot(difference, H @ difference))  # [LDNQ] (10)


def layer_error_from_data(
    layer: LinearMap, batches: Iterable[Array], W: Array, G: Array, *, bias: bool = False
) -> float:
    r"""The layer error (8) by its definition, from the layer's inputs.

    .. math:: E = \tfrac1n \|\hat Z - Z_*\|_F^2

    Parameters
    ----------
    layer : LinearMap
        The layer.
    batches : iterable of Array
        Inputs of the layer, (n_i, ...).
    W, G : Array, shape (g, d, m)
        The packed weights and their replacement, of the inputs' type.
    bias : bool, optional
        Whether the last row of the weights is the bias.

    Returns
    -------
    float
        The error per image, in squared units of the pre-activation, summed over units and positions.

    Raises
    ------
    ValueError
        If there is no image or the shapes do not fit.

    Notes
    -----
    The layer is linear in its weight, so one forward pass with G - W gives the difference of pre-activations.

    Examples
    --------
    >>> from refldnq.layers import Linear
    >>> x, W = np.array([[1.0, 2.0], [0.0, 1.0]]), np.array([[[0.5], [0.5]]])
    >>> layer_error_from_data(Linear(2, 1), [x], W, np.ones((1, 2, 1)))
    1.25
    """
    check_shape("G", G, W.shape)
    total, images = 0.0, 0
    for x in batches:
        params = {name: np.zeros(shape, x.dtype) for name, shape in layer.parameter_shapes().items()}
        params |= layer.unpack((G - W).astype(x.dtype), bias=bias)
        difference = layer.forward(params, x)[0].reshape(-1).astype(np.float64)
        total += float(difference @ difference)
        images += x.shape[0]
    return total / check_integer("images", images, at_least=1)  # [LDNQ] (8)


def largest_eigenvalue(H: Float64Array) -> float:
    """The largest eigenvalue of all blocks, without the others where blocks are large.

    Parameters
    ----------
    H : Array, shape (g, d, d)
        Symmetric positive semidefinite blocks.

    Returns
    -------
    float
        By a dense solver up to d = 256, above by Lanczos' method to machine precision (chosen here: at
        d = 288 and 576 a dense solver takes 2.6 and 14 ms, Lanczos 0.4 and 1.2; at d = 900, for noise, whose
        eigenvalues lie close, 43 and 14).

    Examples
    --------
    >>> largest_eigenvalue(np.array([[[2.0, 1.0], [1.0, 2.0]]]))
    3.0
    """
    if H.shape[1] <= 256:
        return float(np.linalg.eigvalsh(H)[:, -1].max())
    from scipy.sparse.linalg import ArpackError, eigsh

    # The start and what a restart draws are the same in every call. The start is a vector without structure:
    # one that is orthogonal to the eigenvector does not lead there.
    rng = np.random.default_rng(0)
    options = {"k": 1, "which": "LA", "v0": rng.standard_normal(H.shape[1]), "return_eigenvectors": False}
    if "rng" in signature(eigsh).parameters:  # before SciPy 1.17 it was always the same
        options["rng"] = rng
    try:
        return max(float(eigsh(block, **options)[0]) if block.any() else 0.0 for block in H)
    except ArpackError:  # not converged, above all
        return float(np.linalg.eigvalsh(H)[:, -1].max())


def certified_above(H: Float64Array, bound: float) -> bool:
    """Whether `bound` is certainly greater than every eigenvalue of every block, rounding included.

    Parameters
    ----------
    H : Array, shape (g, d, d)
        Symmetric blocks.
    bound : float
        The number.

    Returns
    -------
    bool
        True is a proof; False says nothing (a bound within about d² roundings of the largest eigenvalue
        fails).

    Notes
    -----
    Cholesky's factorization of a matrix A of size d that runs through in floating point proves that the least
    eigenvalue of A is at least -γ/(1-γ) tr A with γ = (d+1)u/(1-(d+1)u) (Demmel 1989; Higham 2002, theorem
    10.3). Here A = (bound - s) I - H with a shift s that covers this and the rounding of A's diagonal.

    Examples
    --------
    >>> certified_above(np.array([[[2.0, 1.0], [1.0, 2.0]]]), 3.001)
    True
    >>> certified_above(np.array([[[2.0, 1.0], [1.0, 2.0]]]), 3.0)
    False
    """
    d = H.shape[1]
    for block in H:
        trace = d * abs(bound) + float(np.abs(np.diagonal(block)).sum())
        shift = 4 * (d + 2) * UNIT * trace
        try:
            factor = np.linalg.cholesky((bound - shift) * np.eye(d) - block)
        except np.linalg.LinAlgError:
            return False
        if not np.isfinite(factor).all():
            return False
    return True


def check_blocks(name: str, blocks: Array) -> None:
    """Refuse blocks that are not float64, finite, symmetric and of non-negative diagonal.

    Raises
    ------
    ValueError
        If the shape is not (g, d, d) with at least one block and row, or an entry does not fit.
    TypeError
        If the type is not float64.

    Examples
    --------
    >>> check_blocks("H", np.array([[[1.0, 2.0], [3.0, 1.0]]]))
    Traceback (most recent call last):
        ...
    ValueError: `H` must be symmetric, got 2.0 at index (0, 0, 1) and 3.0 opposite.
    """
    if check_float(name, blocks).dtype != np.float64:
        raise TypeError(f"`{name}` must be an array of float64, got {blocks.dtype}.")
    check_shape(name, blocks, (None, None, None))
    if blocks.shape[1] != blocks.shape[2] or blocks.size == 0:
        raise ValueError(f"`{name}` must have shape (g, d, d) with g, d at least 1, got {blocks.shape}.")
    check_finite(name, blocks)
    uneven = np.abs(blocks - blocks.transpose(0, 2, 1)) > ASYMMETRY * np.abs(blocks).max()
    if uneven.any():
        g, i, j = (int(index) for index in np.argwhere(uneven)[0])
        pair = f"{blocks[g, i, j]} at index {(g, i, j)} and {blocks[g, j, i]} opposite"
        raise ValueError(f"`{name}` must be symmetric, got {pair}.")
    diagonal = np.einsum("gii->gi", blocks)
    if (diagonal < 0).any():
        raise ValueError(f"`{name}` must be positive semidefinite, got {diagonal.min()} on its diagonal.")
