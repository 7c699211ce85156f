r"""Exact slopes between two points: every layer's output difference as a linear map of its input difference.

With the quantized parameters in every layer, :math:`\hat y_v - y_v = M_v(\hat y_u - y_u) + r_v` *exactly*,
where r is the parallel layer error and M is linear:

* a linear layer, or batch normalization in eval mode: its own linear part;
* ReLU: the diagonal of :math:`(\sigma(\hat z) - \sigma(z))/(\hat z - z) \in [0, 1]`;
* max-pooling: let i be the place of the maximum of the window z and j that of :math:`\hat z`. Then
  :math:`e_i = \hat z_i - z_i \le \max\hat z - \max z \le \hat z_j - z_j = e_j`, so the difference is
  :math:`(1-t)e_i + te_j` with :math:`t = a/(a+b)`, :math:`a = \hat z_j - \hat z_i \ge 0`,
  :math:`b = z_i - z_j \ge 0`: a convex combination of two selections. Its norm is at most
  :math:`\sqrt{c_h c_w}`, as the layer's.

None of the quotients loses digits: numerators and denominators are sums of numbers of one sign.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from refldnq._typing import Array, Params
from refldnq.layers import MaxPool2d, ReLU
from refldnq.layers.base import Layer, Tape

SecantMap = Callable[[Sequence[Array]], Array]
"""Differences of the inputs to the difference of the output."""


def secant(
    layer: Layer,
    params: Params,
    tapes: tuple[Tape, Tape],
    inputs: Sequence[Array],
    inputs_hat: Sequence[Array],
) -> SecantMap:
    """The linear map between two evaluations of a layer with the same parameters.

    Parameters
    ----------
    layer : Layer
        The layer, in eval mode.
    params : mapping of str to Array
        Its arrays (the quantized network's).
    tapes : tuple
        Of the evaluations at `inputs` and at `inputs_hat`.
    inputs, inputs_hat : sequence of Array
        The two points.

    Returns
    -------
    callable
        Linear; of the difference of the points it is the difference of the outputs.

    Examples
    --------
    >>> import numpy as np
    >>> z, z_hat = np.array([[-1.0, 2.0]]), np.array([[3.0, 1.0]])
    >>> tapes = tuple(ReLU().forward({}, x)[1] for x in (z, z_hat))
    >>> secant(ReLU(), {}, tapes, (z,), (z_hat,))([z_hat - z])
    array([[ 3., -1.]])
    """
    if isinstance(layer, ReLU):
        slope = relu_slope(inputs[0], inputs_hat[0])
        return lambda e: slope * e[0]
    if isinstance(layer, MaxPool2d):
        return _pool_secant(layer, tapes, inputs[0], inputs_hat[0])
    return lambda e: layer.jvp(params, tapes[1], tuple(e), {})


def relu_slope(z: Array, z_hat: Array) -> Array:
    r"""The slope of ReLU between two points, in [0, 1]; between equal points its derivative.

    Examples
    --------
    >>> import numpy as np
    >>> relu_slope(np.array([1.0, -1.0, -1.0, 0.0]), np.array([2.0, -2.0, 3.0, 0.0]))
    array([1.  , 0.  , 0.75, 0.  ])
    """
    up, up_hat = np.maximum(z, 0.0), np.maximum(z_hat, 0.0)
    # Across the kink (positive part) / (distance): both of one sign, so nothing cancels.
    with np.errstate(invalid="ignore", divide="ignore"):
        across = np.maximum(up, up_hat) / np.abs(z_hat - z)
    both = (z > 0) & (z_hat > 0)
    neither = (z <= 0) & (z_hat <= 0)
    slope: Array = np.where(both, 1.0, np.where(neither, 0.0, across))
    return slope


def _pool_secant(layer: MaxPool2d, tapes: tuple[Tape, Tape], z: Array, z_hat: Array) -> SecantMap:
    def pick(tape: Tape, x: Array) -> Array:
        return layer.jvp({}, tape, (np.ascontiguousarray(x),), {})

    tape, tape_hat = tapes
    a = pick(tape_hat, z_hat) - pick(tape, z_hat)
    b = pick(tape, z) - pick(tape_hat, z)
    total = a + b
    share = np.divide(a, total, out=np.zeros_like(a), where=total > 0)
    return lambda e: (1.0 - share) * pick(tape, e[0]) + share * pick(tape_hat, e[0])
