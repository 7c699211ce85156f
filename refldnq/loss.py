"""What is minimized by backpropagation: the output error (6); with labels, cross-entropy or squared hinge."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from refldnq._checks import check_number, check_shape
from refldnq._typing import Array, Int64Array

LossName = Literal["cross_entropy", "squared_hinge"]
"""A loss of labels, by its name in `LOSSES`."""


def output_error(y: Array, target: Array) -> tuple[float, Array]:
    r"""The divergence of two final outputs, per image, and its gradient.

    .. math:: \tfrac1n \|f(\hat Y) - f(Y)\|_F^2

    Parameters
    ----------
    y : Array, shape (n, k)
        The student's output.
    target : Array, shape (n, k)
        The teacher's output.

    Returns
    -------
    value : float
        The error, in squared units of the output.
    dy : Array, shape (n, k)
        The gradient with respect to `y`.

    Raises
    ------
    ValueError
        If the shapes differ.

    Notes
    -----
    (6) and step 4 of Algorithm 1 have the sum over images; the mean, as in (8), makes a learning rate
    independent of the batch size. The minimizer is the same.

    Examples
    --------
    >>> import numpy as np
    >>> output_error(np.array([[1.0, 2.0]]), np.array([[0.0, 0.0]]))
    (5.0, array([[2., 4.]]))
    """
    check_shape("y", y, target.shape)
    difference = y - target
    n = max(1, y.shape[0])
    value = float(np.sum(difference.astype(np.float64) ** 2)) / n  # [LDNQ] (6)
    return value, difference * y.dtype.type(2.0 / n)


def distillation(y: Array, target: Array, *, temperature: float) -> tuple[float, Array]:
    r"""The divergence of the class probabilities of two networks, per image, and its gradient.

    .. math:: \tfrac{T^2}n \sum_i \mathrm{KL}\big(\mathrm{softmax}(t_i/T) \,\|\, \mathrm{softmax}(y_i/T)\big)

    Parameters
    ----------
    y : Array, shape (n, k)
        The student's logits.
    target : Array, shape (n, k)
        The teacher's logits.
    temperature : float
        T; the factor T² keeps the gradient's size as T grows (Hinton et al. 2015, "Distilling the Knowledge
        in a Neural Network", section 2).

    Returns
    -------
    value : float
        The divergence in nats times T².
    dy : Array, shape (n, k)
        The gradient with respect to `y`.

    Raises
    ------
    ValueError
        If the shapes differ or the temperature is not positive.

    Notes
    -----
    As T grows it tends to the output error (6) of logits with their mean over the k classes taken away, over
    2k.

    Examples
    --------
    >>> import numpy as np
    >>> value, dy = distillation(np.zeros((1, 2)), np.array([[np.log(3.0), 0.0]]), temperature=1.0)
    >>> round(value, 4), dy
    (0.1308, array([[-0.25,  0.25]]))
    """
    check_shape("y", y, target.shape)
    check_number("temperature", temperature, above=0)
    n = max(1, y.shape[0])
    logs, wanted = (
        _log_softmax(y / y.dtype.type(temperature)),
        _log_softmax(target / y.dtype.type(temperature)),
    )
    probabilities = np.exp(wanted)
    value = temperature**2 * float(np.sum(probabilities * (wanted - logs), dtype=np.float64)) / n
    return value, (np.exp(logs) - probabilities) * y.dtype.type(temperature / n)


def _log_softmax(y: Array) -> Array:
    shifted = y - y.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def cross_entropy(y: Array, labels: Int64Array) -> tuple[float, Array]:
    """The mean negative log-likelihood of the labels under softmax, and its gradient.

    Parameters
    ----------
    y : Array, shape (n, k)
        Logits.
    labels : Array, shape (n,)
        Class indices.

    Returns
    -------
    value : float
        The mean loss in nats.
    dy : Array, shape (n, k)
        The gradient with respect to `y`.

    Raises
    ------
    ValueError
        If the shapes do not fit or a label is not a class index.

    Examples
    --------
    >>> import numpy as np
    >>> value, dy = cross_entropy(np.zeros((1, 2)), np.array([0]))
    >>> round(value, 4), dy
    (0.6931, array([[-0.5,  0.5]]))
    """
    n = _check_labels(y, labels)
    shifted = y - y.max(axis=1, keepdims=True)
    exponential = np.exp(shifted)
    total = exponential.sum(axis=1, keepdims=True)
    rows = np.arange(n)
    value = float(np.mean(np.log(total[:, 0]) - shifted[rows, labels]))
    dy = exponential / total
    dy[rows, labels] -= 1
    return value, dy / y.dtype.type(n)


def squared_hinge(y: Array, labels: Int64Array) -> tuple[float, Array]:
    r"""The squared hinge loss of one classifier for every class, per image, and its gradient.

    .. math:: \tfrac1n \sum_{i,k} \max(0,\; 1 - t_{ik}\, y_{ik})^2, \qquad t_{ik} = 2[k = \text{label}_i] - 1

    Parameters
    ----------
    y : Array, shape (n, k)
        Margins.
    labels : Array, shape (n,)
        Class indices.

    Returns
    -------
    value : float
        The mean over images of the sum over classes.
    dy : Array, shape (n, k)
        The gradient with respect to `y`; continuous, as the loss has no kink.

    Raises
    ------
    ValueError
        If the shapes do not fit or a label is not a class index.

    Notes
    -----
    The loss of an L2-SVM (Tang 2013, "Deep Learning using Linear Support Vector Machines"), with which
    CIFARNet is trained. BinaryConnect's code divides by k besides, which a learning rate undoes.

    Examples
    --------
    >>> import numpy as np
    >>> squared_hinge(np.array([[0.5, 0.5]]), np.array([0]))
    (2.5, array([[-1.,  3.]]))
    """
    n = _check_labels(y, labels)
    signs = np.full_like(y, -1)
    signs[np.arange(n), labels] = 1
    short = np.maximum(0, 1 - signs * y)
    value = float(np.sum(short.astype(np.float64) ** 2)) / max(1, n)
    return value, signs * short * y.dtype.type(-2.0 / max(1, n))


LOSSES: Mapping[LossName, Callable[[Array, Int64Array], tuple[float, Array]]] = {
    "cross_entropy": cross_entropy,
    "squared_hinge": squared_hinge,
}
"""Losses of labels, by the names that networks and settings know."""


def _check_labels(y: Array, labels: Int64Array) -> int:
    n, classes = y.shape
    check_shape("labels", labels, (n,))
    if n and not (labels.min() >= 0 and labels.max() < classes):
        raise ValueError(f"`labels` must lie in 0..{classes - 1}, got {labels.min()}..{labels.max()}.")
    return int(n)
