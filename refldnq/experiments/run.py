"""One run from a model file's content to another's: sampling, Algorithm 1, evaluation, provenance."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import prod, sqrt
from pathlib import Path
from typing import Any, Literal

import numpy as np

from refldnq._checks import check_choice, check_integer, check_number
from refldnq._typing import Array
from refldnq.allocation import CANDIDATES, mixed_levels, sensitivities
from refldnq.data import Dataset, Preprocess
from refldnq.experiments import checkpoint as checkpoints
from refldnq.experiments.record import plain
from refldnq.experiments.work import layer_work, multiplications
from refldnq.layer_report import LayerReport
from refldnq.ldnq import ldnq
from refldnq.ldnq_settings import LdnqSettings
from refldnq.model import Model
from refldnq.network import Network
from refldnq.progress import Progress
from refldnq.solvers.base import get_solver
from refldnq.solvers.direct import DirectSettings
from refldnq.train import TrainSettings, check_batches, fine_tune

TOP = 5
"""Guesses that count in the top-5 accuracy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantizeRequest:
    """What a run is asked to do.

    Parameters
    ----------
    settings : LdnqSettings, optional
        Of Algorithm 1.
    images : int, optional
        Number of calibration images; the paper's 500.
    seed : int, optional
        Of the sampling, the augmentation and the order of the images.
    stratified : bool, optional
        Whether every class gets the same share of the images. That looks at labels; the paper does not.
    dtype : {'float32', 'float64'}, optional
        Type of the network's arithmetic; solvers run in float64 in any case.
    direct : bool, optional
        Whether direct quantization of the same layers, which ignores the data, is evaluated beside it.
    fine_tune : TrainSettings or None, optional
        Step 6 of Algorithm 1, which uses the images' labels; None leaves it out.
    certificates : bool, optional
        Whether a lower bound of every layer's problem is reported. It changes no result.
    held_out : int, optional
        Number of images left over in the data set, or as many as there are, on which layer errors are
        reported. They guide nothing.
    mean_bits : float or None, optional
        A budget of log2(levels), in the mean of all weights, that is spread over the layers as their measured
        sensitivities advise (module `allocation`); the settings' own levels do not count then.

    Raises
    ------
    ValueError
        If a field is out of range.
    TypeError
        If a field is of another type.

    Examples
    --------
    >>> QuantizeRequest(images=0)
    Traceback (most recent call last):
        ...
    ValueError: `images` must be an integer of at least 1, got 0.
    """

    settings: LdnqSettings = field(default_factory=LdnqSettings)
    images: int = 500
    seed: int = 0
    stratified: bool = False
    dtype: Literal["float32", "float64"] = "float32"
    direct: bool = False
    fine_tune: TrainSettings | None = None
    certificates: bool = False
    held_out: int = 0
    mean_bits: float | None = None

    def __post_init__(self) -> None:
        check_integer("images", self.images, at_least=1)
        check_integer("held_out", self.held_out, at_least=0)
        check_integer("seed", self.seed, at_least=0)
        if self.mean_bits is not None:
            check_number("mean_bits", self.mean_bits, at_least=math.log2(min(CANDIDATES)))
            if self.settings.levels:
                raise ValueError(
                    f"`mean_bits` must be None if `levels` names layers, got {self.mean_bits!r}."
                )
        check_choice("dtype", self.dtype, ("float32", "float64"))

    @property
    def explicit(self) -> QuantizeRequest:
        """The same with the solver's settings written out: what a stored result is known by."""
        return replace(self, settings=self.settings.explicit)


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """How many labelled images a model classifies rightly.

    Parameters
    ----------
    correct, total : int
        Images whose largest output is that of their class, the first one among equals; all images.
    correct_top5 : int or None
        Images whose class is among the five largest outputs; None for five classes or fewer.

    Examples
    --------
    >>> Evaluation(correct=9, total=10, correct_top5=10).accuracy
    90.0
    """

    correct: int
    total: int
    correct_top5: int | None

    @property
    def accuracy(self) -> float:
        """Percent."""
        return 100.0 * self.correct / self.total

    @property
    def top5(self) -> float | None:
        """Percent."""
        return None if self.correct_top5 is None else 100.0 * self.correct_top5 / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy, percent: Wilson's, images taken for independent draws."""
        return wilson(self.correct, self.total)

    @property
    def interval_top5(self) -> tuple[float, float] | None:
        """The same of the top-5 accuracy."""
        return None if self.correct_top5 is None else wilson(self.correct_top5, self.total)

    def __add__(self, other: Evaluation) -> Evaluation:
        """The evaluation on both sets of images."""
        tops = (self.correct_top5, other.correct_top5)
        return Evaluation(
            correct=self.correct + other.correct,
            total=self.total + other.total,
            correct_top5=None if tops[0] is None or tops[1] is None else tops[0] + tops[1],
        )


def wilson(count: float, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, in percent (Wilson 1927, "Probable Inference").

    Parameters
    ----------
    count : float
        Successes, or their mean over several series.
    total : int
        Trials.

    Returns
    -------
    low, high : float
        Percent.

    Examples
    --------
    >>> [round(end, 1) for end in wilson(366, 600)]
    [57.0, 64.8]
    """
    z = 1.959963984540054  # two-sided 95 % of the normal distribution
    share, spread = count / total, z * z / total
    centre = (share + spread / 2) / (1 + spread)
    radius = z * sqrt(share * (1 - share) / total + spread / (4 * total)) / (1 + spread)
    # The ends of the range are exact, whatever is rounded: the interval holds the share itself.
    low = 0.0 if count <= 0 else 100 * max(0.0, centre - radius)
    return low, 100.0 if count >= total else 100 * min(1.0, centre + radius)


@dataclass(frozen=True, slots=True)
class Event:
    """A step of a run that has come to its end.

    Parameters
    ----------
    message : str
        What was done.
    fraction : float
        Share of the run's work that is done, an estimate.
    report : LayerReport or None
        If the step was a layer of Algorithm 1.
    restored : bool
        Whether a checkpoint has brought it, so that it took no time.
    """

    message: str
    fraction: float
    report: LayerReport | None = None
    restored: bool = False


@dataclass(frozen=True, kw_only=True)
class QuantizeOutcome:
    """What a run gave.

    Parameters
    ----------
    model : Model
        The quantized model; its provenance says how it was made (no times: equal runs make equal files).
    reports : tuple of LayerReport
        One a quantized layer.
    indices : tuple of int
        The calibration images' places in the data set.
    before, after : Evaluation or None
        On the test split; None without one.
    direct : Evaluation or None
        Of direct quantization; None unless asked for, and without a test split.
    direct_reports : tuple of LayerReport
        Of direct quantization; empty unless asked for.
    seconds : float
        Wall-clock time, evaluations included; of a resumed run with the layers done before.
    peak_rss_mb : float
        The largest resident memory of this process so far, in 10^6 bytes; NaN where the system does not tell.
    resumed_layers : int
        Layers taken from a checkpoint.
    """

    model: Model
    reports: tuple[LayerReport, ...]
    indices: tuple[int, ...]
    before: Evaluation | None
    after: Evaluation | None
    direct: Evaluation | None
    direct_reports: tuple[LayerReport, ...]
    seconds: float
    peak_rss_mb: float
    resumed_layers: int

    @property
    def drop(self) -> float | None:
        """Accuracy before minus accuracy after, percentage points; None without a test split."""
        if self.before is None or self.after is None:
            return None
        return self.before.accuracy - self.after.accuracy


def required_preprocess(model: Model) -> Preprocess:
    """The model's preprocessing.

    Raises
    ------
    ValueError
        If it has none: what its inputs mean is unknown then, and any accuracy would be an accident.
    """
    if model.preprocess is None:
        raise ValueError(
            "`model` must have a preprocessing, got none: convert the weights again with --preprocess."
        )
    return model.preprocess


def calibration_images(model: Model, dataset: Dataset, request: QuantizeRequest) -> Array:
    """The preprocessed images that a run with this request is given.

    Parameters
    ----------
    model : Model
        With a preprocessing.
    dataset : Dataset
        They are drawn from it.
    request : QuantizeRequest
        Their number, the seed, the type.

    Returns
    -------
    Array, shape (n, *input_shape)
    """
    indices = calibration_indices(dataset, request)
    how = required_preprocess(model)
    return how(dataset.pixels(indices, how.resize), np.dtype(request.dtype))


def at_a_time(network: Network, most: int = 250, memory: float = 4e8) -> int:
    """How many images to evaluate at once.

    Parameters
    ----------
    network : Network
        Its largest activations, times three (a layer's input and output, and a branch beside it), count.
    most : int, optional
        No more than these; chosen here (about 100 MB of activations in a ResNet-20).
    memory : float, optional
        Bytes of activations to stay below; chosen here.

    Returns
    -------
    int
        At least 1.

    Examples
    --------
    >>> from refldnq.layers import Flatten
    >>> from refldnq.network import Node
    >>> network = Network((Node("flat", Flatten(), ("input",)),), {}, (3, 1000, 1000))
    >>> at_a_time(network), at_a_time(network, memory=1e9)
    (5, 13)
    """
    largest = max(prod(shape) for shape in network.shapes.values()) * network.dtype.itemsize
    return max(1, min(most, int(memory / (3 * largest))))


def calibration_indices(dataset: Dataset, request: QuantizeRequest) -> Array:
    """The places in the data set of the images that a run with this request is given.

    Parameters
    ----------
    dataset : Dataset
        They are drawn from it.
    request : QuantizeRequest
        Their number and the seed.

    Returns
    -------
    Array, shape (n,), int64
    """
    sampling = np.random.default_rng(request.seed).spawn(1)[0]
    return dataset.sample(request.images, sampling, stratified=request.stratified)


def evaluate_model(
    model: Model, dataset: Dataset, limit: int | None = None, *, batch_size: int | None = None
) -> Evaluation:
    """Classify labelled images.

    Parameters
    ----------
    model : Model
        With a preprocessing.
    dataset : Dataset
        With labels.
    limit : int, optional
        Only so many images, from the first.
    batch_size : int, optional
        Images at a time, by default as many as `at_a_time` says. No more than that are ever read from files:
        memory does not grow with their number.

    Returns
    -------
    Evaluation

    Raises
    ------
    ValueError
        If the model has no preprocessing, the images do not fit it, there are no labels, or the labels name
        other classes than the model's outputs.
    """
    preprocess = required_preprocess(model)
    batch_size = (
        at_a_time(model.network)
        if batch_size is None
        else check_integer("batch_size", batch_size, at_least=1)
    )
    count = len(dataset)
    if limit is not None:
        count = min(count, check_integer("limit", limit, at_least=1))
    if dataset.labels is None:
        raise ValueError(f"`dataset` must have labels to be evaluated on, got none in {dataset.name!r}.")
    if count < 1:
        raise ValueError(f"`dataset` must hold at least one image, got none in {dataset.name!r}.")
    labels = dataset.labels[:count]
    classes = model.network.shapes[model.network.nodes[-1].name][-1]
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"`labels` must name the model's classes, 0..{classes - 1}, got {labels.min()}..{labels.max()}."
        )
    correct = among = 0
    for first in range(0, count, batch_size):
        part = slice(first, min(first + batch_size, count))
        x = preprocess(dataset.pixels(part, preprocess.resize), model.network.dtype)
        score = score_outputs(model.network.forward(x, batch_size=batch_size), labels[part])
        correct += score.correct
        among += score.correct_top5 or 0
    return Evaluation(correct=correct, total=count, correct_top5=among if classes > TOP else None)


def score_outputs(logits: Array, labels: Array) -> Evaluation:
    """Compare outputs with labels.

    Parameters
    ----------
    logits : Array, shape (n, k)
        The outputs.
    labels : Array, shape (n,)
        The classes.

    Returns
    -------
    Evaluation

    Examples
    --------
    >>> score_outputs(np.array([[0.0, 1.0], [3.0, 2.0]]), np.array([1, 1])).correct
    1
    """
    among = None
    if logits.shape[1] > TOP:
        best = np.argsort(-logits, axis=1, kind="stable")[:, :TOP]
        among = int(np.sum(best == labels[:, None]))
    correct = int(np.sum(logits.argmax(axis=1) == labels))
    return Evaluation(correct=correct, total=len(labels), correct_top5=among)


def quantize_model(
    model: Model,
    dataset: Dataset,
    request: QuantizeRequest,
    *,
    test: Dataset | None = None,
    on_progress: Callable[[Event], None] | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
) -> QuantizeOutcome:
    """Quantize a model from a few images of a data set.

    Parameters
    ----------
    model : Model
        With a preprocessing.
    dataset : Dataset
        The calibration images are drawn from it; its labels are used for a stratified draw alone.
    request : QuantizeRequest
        How.
    test : Dataset, optional
        Labelled images to evaluate on, before and after; they guide nothing.
    on_progress : callable, optional
        Called with an `Event` after every step.
    checkpoint : Path, optional
        A file that is written after every layer; removing it at the end is the caller's business.
    resume : bool, optional
        Whether to go on from `checkpoint` if that file exists.

    Returns
    -------
    QuantizeOutcome

    Raises
    ------
    ValueError
        If the data, the model and the request do not fit each other, or the checkpoint is of another run.
    FormatError
        If the checkpoint cannot be read.

    Notes
    -----
    ``numpy.random.default_rng(seed)`` spawns streams: the first draws the images, the second is for Algorithm
    1, the third for step 6, the fourth draws the images on which layer errors are reported.
    """
    began = time.perf_counter()
    settings, tell = request.settings, on_progress or _silence
    get_solver(settings.solver)  # an unknown name is refused before the work
    preprocess = required_preprocess(model)
    sampling, running, tuning, watching = np.random.default_rng(request.seed).spawn(4)
    if request.images > len(dataset):
        raise ValueError(
            f"`images` must be at most the {len(dataset)} of {dataset.name!r}, got {request.images}."
        )
    if request.fine_tune is not None:
        if dataset.labels is None:
            raise ValueError(
                f"`dataset` must have labels for step 6 (`fine_tune`), got none in {dataset.name!r}."
            )
        if request.fine_tune.statistics == "batch":
            check_batches(model.network, 0, request.images, request.fine_tune.batch_size)
    settings.check(model.network, request.images)
    indices = dataset.sample(request.images, sampling, stratified=request.stratified)
    images = preprocess(dataset.pixels(indices, preprocess.resize), np.dtype(request.dtype))
    places = _left_over(len(dataset), indices, request.held_out, watching)
    held_out = None
    if len(places):
        held_out = preprocess(dataset.pixels(places, preprocess.resize), np.dtype(request.dtype))
    network = model.network.astype(request.dtype)
    # Large images in smaller batches: that changes no result beyond rounding.
    settings = replace(settings, batch_size=min(settings.batch_size, at_a_time(network)))
    work = _Work(network, request, 0 if test is None else len(test))
    if request.mean_bits is not None:
        measured = sensitivities(network, images, settings.chosen(network))
        settings = replace(settings, levels=mixed_levels(measured, request.mean_bits))
        chosen = ", ".join(f"{name} {codebook.levels}" for name, codebook in settings.levels.items())
        tell(Event(f"levels: {chosen}", 0.0))

    fingerprint = checkpoints.fingerprint(
        network,
        images,
        indices,
        settings={**plain(settings.explicit), **({"certificates": True} if request.certificates else {})},
        seed=request.seed,
        dataset=dataset.name,
        held_out=held_out,
    )
    state: Progress | None = None
    if checkpoint is not None and resume and checkpoint.exists():
        state = checkpoints.load(checkpoint, network, fingerprint)
    resumed = 0 if state is None else len(state.reports)
    spent = 0.0 if state is None else sum(report.seconds for report in state.reports)

    before = None
    if test is not None:
        before = evaluate_model(replace(model, network=network, quantized={}), test)
        tell(Event(f"accuracy before: {before.accuracy:.2f} %", work.advance(work.evaluation)))
    for report in () if state is None else state.reports:
        done = work.advance(work.layers[report.name])
        tell(Event(f"{report.name}: from the checkpoint", done, restored=True))

    def after_layer(progress: Progress) -> None:
        if checkpoint is not None:
            checkpoints.save(checkpoint, progress, model, fingerprint)
        last, more = progress.reports[-1], settings.ends_later
        output = f"output error {last.relative_output_error:.4f}"
        if more and len(progress.reports) == progress.total and not progress.pending:
            tell(Event(f"after the last layer: {output}", work.advance(work.end), last))
        else:
            errors = f"{last.name}: layer error {last.relative_error:.4f}, {output}"
            tell(Event(errors, work.advance(work.layers[last.name]), last))

    final = ldnq(
        network,
        images,
        settings,
        running,
        on_layer=after_layer,
        resume=state,
        held_out=held_out,
        certificates=request.certificates,
    )
    tuned = _fine_tuned(final, images, dataset, indices, request.fine_tune, tuning)
    provenance = {
        **_provenance(request, dataset, indices, places, fingerprint),
        "source": plain(model.provenance),
        "layers": _timeless(final.reports),
    }
    quantized = replace(model, network=tuned, quantized=dict(final.quantized), provenance=provenance)

    after = None
    if test is not None:
        after = evaluate_model(quantized, test)
        tell(Event(f"accuracy after: {after.accuracy:.2f} %", work.advance(work.evaluation)))
    direct: Evaluation | None = None
    direct_reports: tuple[LayerReport, ...] = ()
    if request.direct:
        beside = ldnq(network, images, direct_settings(settings), running, held_out=held_out)
        direct_reports = beside.reports
        if test is not None:
            direct = evaluate_model(replace(model, network=beside.network, quantized={}), test)
        tell(Event("direct quantization", 1.0))
    return QuantizeOutcome(
        model=quantized,
        reports=final.reports,
        indices=tuple(int(i) for i in indices),
        before=before,
        after=after,
        direct=direct,
        direct_reports=direct_reports,
        seconds=spent + time.perf_counter() - began,
        peak_rss_mb=peak_rss_mb(),
        resumed_layers=resumed,
    )


def _fine_tuned(
    final: Progress,
    images: Array,
    dataset: Dataset,
    indices: Array,
    settings: TrainSettings | None,
    rng: np.random.Generator,
) -> Network:
    if settings is None:
        return final.network
    assert dataset.labels is not None  # checked before the run
    labels = dataset.labels[indices]
    return fine_tune(final.network, images, labels, final.quantized, settings, rng).network


def direct_settings(settings: LdnqSettings) -> LdnqSettings:
    """The same layers, levels and number of scales for direct quantization, without an update.

    The rounding is the paper's baseline DQ, at α = mean|W|; for free sets, which have no scale, it is the
    projection (17).

    Examples
    --------
    >>> direct_settings(LdnqSettings()).solver, direct_settings(LdnqSettings()).update
    ('direct', None)
    """
    free = any(codebook.kind == "free" for codebook in (settings.codebook, *settings.levels.values()))
    how = DirectSettings(
        variant="alternating" if free else "mean",
        per_channel=settings.resolved.per_channel,
    )
    return replace(
        settings,
        solver="direct",
        solver_settings=how,
        target="weights",
        absorb=False,
        closed_weight=1.0,
        hessian_versions=1,
        channel_weights="none",
        update=None,
        correct_bias=False,
        reestimate="none",
        cascades=1,
        final_epochs=0,
        code_epochs=0,
    )


def peak_rss_mb() -> float:
    """The largest resident memory of this process so far, in 10^6 bytes; NaN where the system does not tell.

    Examples
    --------
    >>> peak_rss_mb() > 0
    True
    """
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6  # bytes there, KiB elsewhere


class _Work:
    """The share of a run that is done."""

    def __init__(self, network: Network, request: QuantizeRequest, tests: int) -> None:
        settings = request.settings
        self.layers = layer_work(network, settings, request.images)
        self.evaluation = float(tests * sum(multiplications(network)))
        beside = sum(layer_work(network, direct_settings(settings), request.images).values())
        self.end = 3.0 * settings.last_epochs * request.images * sum(multiplications(network))
        self.total = settings.cascades * sum(self.layers.values()) + self.end + 2 * self.evaluation
        self.total += (beside + self.evaluation) if request.direct else 0.0
        self.done = 0.0

    def advance(self, work: float) -> float:
        self.done += work
        return min(1.0, self.done / self.total)


def _silence(event: Event) -> None:
    pass


def _left_over(size: int, indices: Array, count: int, rng: np.random.Generator) -> Array:
    """Places of up to `count` images that were not drawn, ascending."""
    others = np.setdiff1d(np.arange(size), indices)
    return np.sort(rng.choice(others, min(count, len(others)), replace=False))


def _provenance(
    request: QuantizeRequest,
    dataset: Dataset,
    indices: Array,
    places: Array,
    fingerprint: checkpoints.Fingerprint,
) -> dict[str, Any]:
    data = dataset.record(indices)
    if len(places):
        data["held_out"] = plain(places)
    return {
        "request": plain(request.explicit),
        "labels_used": request.stratified or request.fine_tune is not None,
        "data": data,
        "fingerprint": {**fingerprint.parts, "sha256": fingerprint.digest},
    }


def _timeless(reports: tuple[LayerReport, ...]) -> list[dict[str, Any]]:
    return [{key: value for key, value in plain(report).items() if key != "seconds"} for report in reports]
