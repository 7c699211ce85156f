"""Steps 2 and 3 of Algorithm 1 at one layer: the problem (10) that the settings ask for, and its solution."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from refldnq._typing import Float64Array
from refldnq.batches import split
from refldnq.cascade import Cascade
from refldnq.codebook import Codebook
from refldnq.drift import DriftProblem
from refldnq.follower import follower, normalization, relu_behind
from refldnq.hessian import Hessian, accumulate_hessian
from refldnq.layer_report import RIDGE
from refldnq.layers.base import LinearMap
from refldnq.layers.linear import Linear
from refldnq.ldnq_settings import LdnqSettings
from refldnq.network import Network
from refldnq.released import HESSIAN_IMAGES, released_hessian
from refldnq.solvers.base import Solution, get_solver
from refldnq.solvers.lower_bound import BoundSettings, gap, lower_bound

CHANNEL_HESSIANS = 1 << 27
"""Most entries of the Hessians of a layer's channels, 1 GiB (chosen here: solvers keep several such arrays;
the largest of the CIFAR residual networks has 2**24)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerProblem:
    """The problem (10) of a layer.

    Parameters
    ----------
    codebook : Codebook
        The layer's levels.
    bias : bool
        Whether the last row of the weights is the bias.
    exact : Hessian
        That of the layer error (8), from the images as they are.
    packed : Array, shape (g, d, m), float64
        The weight of which (8) counts the change.
    H : Array, shape (h, d, d), float64
        That of the problem: h is g, or g m where every channel has a Hessian of its own.
    W : Array, shape (h, d, g m / h), float64
        The weight that G is to come near: `packed`, or what follows the reference network.
    column_weights : Array, shape (h, g m / h), float64, or None
        How the errors of channels count.
    solver : str
        Who solves it.
    solver_settings : object
        How.
    drift : DriftProblem or None
        What H and W come from, with another target than the weights.
    norm : str or None
        The batch normalization that alone takes the layer's output.
    absorbs : bool
        Whether factors and constants of the channels are left to it, or to the layer's bias.
    notes : tuple of str
        What there is to say of it.
    """

    codebook: Codebook
    bias: bool
    exact: Hessian
    packed: Float64Array
    H: Float64Array
    W: Float64Array
    column_weights: Float64Array | None
    solver: str
    solver_settings: Any
    drift: DriftProblem | None
    norm: str | None
    absorbs: bool
    notes: tuple[str, ...]

    def solve(self) -> Solution:
        """Step 3, with codes in the shape of W."""
        solve, own = get_solver(self.solver), self.solver_settings
        if self.absorbs and self.norm is not None and self.codebook.kind == "scaled":
            solved = solve(self.H, self.W, self.codebook, replace(own, per_channel=True), **self._weighted)
            if self.codebook.has_zero or (np.asarray(solved.alpha) > 0).all():
                return solved
            # A channel without a scale is 0, and this set has no code for it: one scale for all channels.
        return solve(self.H, self.W, self.codebook, own, **self._weighted)

    def of_layer(self, solved: Solution) -> Solution:
        """A solution in the shape of the weight, (g, d, m), with the notes on problem and solution."""
        solution = solved if self.W.shape == self.packed.shape else _regrouped(solved, self.packed.shape)
        ridge = () if self.drift is None else (_ridge_note(self.drift, solved),)
        return replace(solution, notes=(*solution.notes, *ridge, *self.notes))

    def certificate(self, solved: Solution) -> dict[str, float | None]:
        """A lower bound of the problem, and by how much the solution can exceed the optimum."""
        how = BoundSettings(per_channel=np.ndim(solved.alpha) > 0)
        # With a Hessian for every channel Newton's method would take longer than all the rest.
        how = how if self.W.shape == self.packed.shape else replace(how, steps=0)
        bound = lower_bound(self.H, self.W, self.codebook, how, **self._weighted).value
        within = gap(solved.objective, bound)
        return {"lower_bound": bound, "gap": within if np.isfinite(within) else None}

    @property
    def _weighted(self) -> dict[str, Any]:
        return {} if self.column_weights is None else {"column_weights": self.column_weights}


def layer_problem(
    network: Network, name: str, cascade: Cascade, settings: LdnqSettings, *, original: bool
) -> LayerProblem:
    """Step 2: the problem of layer `name`, which is at the cut of `cascade`.

    Parameters
    ----------
    network : Network
        The student.
    name : str
        The layer.
    cascade : Cascade
        Teacher and student, moved to the layer.
    settings : LdnqSettings
        What the layer is quantized for.
    original : bool
        Whether its weight is the teacher's, as in a cascade that has quantized it before, and not the
        student's, as the updates have left it.

    Returns
    -------
    LayerProblem
    """
    layer = network[name].layer
    assert isinstance(layer, LinearMap)
    released = settings.profile == "released-2019"
    bias = "bias" in network.params[name] and (isinstance(layer, Linear) if released else settings.bias)
    x_hat, count = cascade.live[network[name].inputs[0]], settings.hessian_images or len(cascade.images)
    exact = accumulate_hessian(layer, split(x_hat[:count], settings.batch_size), bias=bias)
    hessian = exact
    if settings.hessian_versions > 1 and settings.target == "weights":
        hessian = accumulate_hessian(layer, split(x_hat, settings.batch_size), bias=bias)
    if released:
        images = min(HESSIAN_IMAGES, x_hat.shape[0])
        hessian = Hessian(blocks=released_hessian(layer, x_hat, bias=bias), images=images)
    source = cascade.teacher if original else network
    packed = layer.pack(source.params[name], bias=bias).astype(np.float64)
    behind = follower(network, name)
    absorbs = settings.absorb and (behind.norm is not None or "bias" in network.params[name])
    H, W, drift = hessian.blocks, packed, None
    notes: tuple[str, ...] = ()
    if settings.target != "weights":
        closed = settings.closed_weight
        if closed < 1 and not relu_behind(cascade.teacher, behind.total or behind.norm or name):
            closed = 1.0
        if closed < 1 and packed.size * packed.shape[1] > CHANNEL_HESSIANS:
            closed = 1.0
            notes = ("closed ReLUs count like open ones: the Hessians of all channels would be too large",)
        drift = cascade.drift(
            network,
            name,
            packed,
            ridge=settings.ridge,
            images=settings.hessian_images,
            bias=bias,
            centred=absorbs,
            behind=behind,
            block=settings.target == "block",
            closed=closed,
        )
        H, W = drift.H, drift.W
    weights = _channel_weights(network, name) if settings.channel_weights == "batchnorm" else None
    return LayerProblem(
        codebook=settings.levels.get(name, settings.codebook),
        bias=bias,
        exact=exact,
        packed=packed,
        H=H,
        W=W,
        column_weights=None if weights is None else weights.reshape(W.shape[0], -1),
        solver=settings.solver,
        solver_settings=settings.resolved,
        drift=drift,
        norm=behind.norm,
        absorbs=absorbs,
        notes=notes,
    )


def _regrouped(solution: Solution, shape: tuple[int, ...]) -> Solution:
    """The solution of g m problems of one column as one of g problems of m columns."""
    g, d, m = shape
    codes = np.ascontiguousarray(solution.codes.reshape(g, m, d).transpose(0, 2, 1))
    alpha = solution.alpha.reshape(g, m) if solution.alpha.ndim else solution.alpha
    return replace(solution, codes=codes, alpha=alpha)


def _ridge_note(problem: DriftProblem, solution: Solution) -> str:
    """The ridge and what it is added to: of the objective, their sum less a constant, neither can be read."""
    drift = max(0.0, problem.error(solution.G))  # a difference of sums, 0 up to rounding
    return (
        f"{RIDGE} {problem.epsilon:.9g} in the units of H; without the ridge |Z - XG|^2 / n, "
        f"as the problem counts it, is {drift:.9g}"
    )


def _channel_weights(network: Network, name: str) -> Float64Array | None:
    """The squares of the scales that batch normalization gives a layer's outputs, (g, m), or None.

    None if something else than one batch normalization takes the layer's output.
    """
    norm, layer = follower(network, name).norm, network[name].layer
    if norm is None:
        return None
    assert isinstance(layer, LinearMap)
    squares = normalization(network, norm)[0] ** 2
    groups = layer.pack(network.params[name]).shape[0]
    # A channel that the normalization switches off still needs a weight: the least that counts.
    weights: Float64Array = np.maximum(squares, 1e-12 * squares.max() + 1e-300).reshape(groups, -1)
    return weights
