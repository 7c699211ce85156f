"""Algorithm 1: layer-wise quantization of a network from unlabelled images.

For l = 1, ..., L: the Hessian of layer l from what the quantized prefix lets through (step 2), the discrete
problem (10) (step 3), the weights update of the rest (step 4). This module is that loop; the boxes live in
`layer_problem`, `solvers`, `update` and `last_updates`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from refldnq._checks import check_finite, check_float
from refldnq._typing import Array
from refldnq.cascade import Cascade, Copies, HeldOut
from refldnq.data.augment import augment
from refldnq.final import free_arrays
from refldnq.last_updates import finish
from refldnq.layer_problem import layer_problem
from refldnq.layer_report import LayerReport, layer_report, with_output
from refldnq.ldnq_settings import LdnqSettings
from refldnq.model import QuantizedWeight
from refldnq.network import Network
from refldnq.progress import Progress
from refldnq.released import released_update
from refldnq.taken_over import absorb, bias_correction
from refldnq.update import Moving, UpdateResult, UpdateSettings, update
from refldnq.versions import Versions


def ldnq(
    network: Network,
    images: Array,
    settings: LdnqSettings,
    rng: np.random.Generator,
    *,
    on_layer: Callable[[Progress], None] | None = None,
    resume: Progress | None = None,
    held_out: Array | None = None,
    certificates: bool = False,
) -> Progress:
    """Quantize a network layer by layer (Algorithm 1, steps 1-5).

    Parameters
    ----------
    network : Network
        The well-trained network. It is the teacher and stays as it is.
    images : Array, shape (n, *input_shape)
        Unlabelled inputs, preprocessed, of the network's type.
    settings : LdnqSettings
        Levels, solver, update.
    rng : numpy.random.Generator
        Draws the augmented copies and the order of the images. Every layer has its own stream, so a resumed
        run draws what an uninterrupted one does if the generator is seeded alike.
    on_layer : callable, optional
        Called with the state after every layer, and once more if something follows the last one; what it does
        with it (checkpoint, progress) is its business.
    resume : Progress, optional
        A state that `on_layer` was given in a run with the same network, images, settings and seed.
    held_out : Array, shape (any, *input_shape), optional
        More preprocessed images. They guide nothing; the layers' errors on them are reported.
    certificates : bool, optional
        Whether a lower bound of every layer's problem is computed and reported; it changes no result.

    Returns
    -------
    Progress
        The final state.

    Raises
    ------
    ValueError
        If the images or the settings do not fit the network.
    TypeError
        If the images' type is not the network's.

    Notes
    -----
    Step 2 prints "from Θ^new and X"; the Hessian depends on the quantized prefix's output alone. Step 3's
    result is G, which lies in Ω, not the proximal variable. Step 4's teacher keeps the original parameters.

    Examples
    --------
    >>> import numpy as np
    >>> from refldnq.layers import Linear, ReLU
    >>> from refldnq.network import Node
    >>> rng = np.random.default_rng(0)
    >>> nodes = (
    ...     Node("fc1", Linear(4, 8), ("input",)),
    ...     Node("relu", ReLU(), ("fc1",)),
    ...     Node("fc2", Linear(8, 2), ("relu",)),
    ... )
    >>> params = {"fc1": {"weight": rng.standard_normal((8, 4)), "bias": np.zeros(8)},
    ...           "fc2": {"weight": rng.standard_normal((2, 8)), "bias": np.zeros(2)}}
    >>> settings = LdnqSettings(update=UpdateSettings(epochs=2, copies=1, pool=1))
    >>> network, images = Network(nodes, params, (4,)), rng.standard_normal((50, 4))
    >>> result = ldnq(network, images, settings, np.random.default_rng(1))
    >>> len(np.unique(result.network.params["fc2"]["weight"]))
    3
    """
    check_finite("images", check_float("images", images))
    if images.shape[0] < 1:
        raise ValueError("`images` must hold at least one image, got none.")
    settings.check(network, images.shape[0])
    names = settings.chosen(network)
    steps = names * settings.cascades
    copy_stream, *streams, final_stream = rng.spawn(2 + len(steps))
    state = resume or Progress(network=network, quantized={}, reports=(), total=len(steps))
    if [report.name for report in state.reports] != list(steps[: len(state.reports)]):
        raise ValueError(f"`resume` must come from a run over the layers {names}, got {state.reports}.")
    cascade = Cascade(network, state.network, images, settings.batch_size, _more(images, settings, rng))
    watched = None if held_out is None else HeldOut(held_out, images, settings.batch_size)
    versions = None
    if settings.update is not None and settings.profile == "paper":
        versions = Versions(network, images, settings.update, len(steps), copy_stream, settings.batch_size)
    run = _Run(
        settings=settings, cascade=cascade, watched=watched, versions=versions, certificates=certificates
    )
    if state.reports:
        cascade.move(state.network, state.network.position(state.reports[-1].name) + 1)
    for index in range(len(state.reports), len(steps)):  # [LDNQ] Algorithm 1, step 1
        if index % len(names) == 0:
            cascade.restart()
            if watched is not None:
                watched.restart()
        state = run.quantize(state, steps[index], streams[index])
        state = replace(state, pending=settings.ends_later and index == len(steps) - 1)
        if on_layer is not None:
            on_layer(state)
    if state.pending:
        state = finish(state, cascade, settings, final_stream)
        if on_layer is not None:
            on_layer(state)
    return replace(state, reports=_last_cascade(state.reports, len(names)))


@dataclass(frozen=True, kw_only=True)
class _Run:
    # What all layers of a run share.

    settings: LdnqSettings
    cascade: Cascade
    watched: HeldOut | None
    versions: Versions | None
    certificates: bool

    def quantize(self, state: Progress, name: str, rng: np.random.Generator) -> Progress:
        began = time.perf_counter()
        network, cascade, settings = state.network, self.cascade, self.settings
        position = network.position(name)
        cascade.move(network, position)
        problem = layer_problem(network, name, cascade, settings, original=name in state.quantized)  # step 2
        solved = problem.solve()  # step 3
        solution = problem.of_layer(solved)
        extras: dict[str, Any] = problem.certificate(solved) if self.certificates else {}
        if self.watched is not None:
            extras |= self.watched.errors(network, name, problem.packed, solution.G, bias=problem.bias)
        code = QuantizedWeight(
            codes=solution.codes, alpha=solution.alpha, values=solution.values, bias=problem.bias
        )
        taken = None
        if problem.absorbs and problem.drift is not None:
            code, taken = absorb(code, solved, problem.drift, network, cascade.teacher, name, problem.norm)
            network = network.replace(taken.arrays)
        network = network.replace({name: code.arrays(network[name], network.dtype)})
        if settings.correct_bias and problem.norm is None and "bias" not in network.params[name]:
            note = "nothing behind the layer takes its mean error"
            solution = replace(solution, notes=(*solution.notes, note))
        elif settings.correct_bias:
            taken = bias_correction(network, cascade, name, problem.norm)
            network = network.replace(taken.arrays)
        cascade.move(network, position + 1)
        quantized = {**state.quantized, name: code}
        result = self.step_4(network, position + 1, quantized, len(state.reports), rng)
        report = layer_report(name, problem.codebook, problem.exact, problem.packed, solution, cascade)
        if taken is not None:
            n = len(cascade.images)
            report = taken.corrected(report, cascade.reference[name][:n], cascade.live[name][:n], code)
        report = with_output(report, cascade.output(result.network), cascade)
        report = replace(
            report,
            update_loss=result.losses[-1] if result.losses else float("nan"),
            update_images=result.images,
            seconds=time.perf_counter() - began,
            **extras,
        )
        reports = (*state.reports, report)
        return replace(state, network=result.network, quantized=quantized, reports=reports)

    def step_4(
        self,
        network: Network,
        cut: int,
        quantized: Mapping[str, QuantizedWeight],
        step: int,
        rng: np.random.Generator,
    ) -> UpdateResult:
        settings, cascade = self.settings, self.cascade
        nothing = UpdateResult(network, (), 0, 0)
        if settings.update is None:
            return nothing
        if settings.profile == "released-2019":
            frozen = frozenset(quantized)
            result = released_update(network, cascade.teacher, cascade.images, frozen, settings.released, rng)
            cascade.restart()
            cascade.move(result.network, cut)
            if self.watched is not None:
                self.watched.restart()
            return result
        moving = Moving(free_arrays(network, cut, quantized, settings.update))
        if self.versions is None or not moving.arrays:  # behind the last layer nothing moves
            return nothing
        copies = Copies(cascade, network, self.versions, step, settings.update.epochs)
        plain = copies.plain if settings.update.validation else None
        return update(network, cut, copies, settings.update, rng, moving=moving, plain=plain)


def _more(images: Array, settings: LdnqSettings, rng: np.random.Generator) -> Array | None:
    """The versions beside the images themselves that make the problems."""
    if settings.hessian_versions == 1:
        return None
    if images.ndim != 4:
        raise ValueError(
            "`hessian_versions` must be 1 for inputs that are not images (n, c, h, w), got "
            f"{settings.hessian_versions} for shape {images.shape}."
        )
    how = settings.update or UpdateSettings()
    streams = rng.spawn(settings.hessian_versions - 1)
    return np.concatenate([augment(images, own, crop=how.crop, flip=how.flip) for own in streams])


def _last_cascade(reports: tuple[LayerReport, ...], count: int) -> tuple[LayerReport, ...]:
    """The reports of the last cascade, with the time and the image passes of all."""
    return tuple(
        replace(
            report,
            seconds=sum(other.seconds for other in reports if other.name == report.name),
            update_images=sum(other.update_images for other in reports if other.name == report.name),
        )
        for report in reports[-count:]
    )
