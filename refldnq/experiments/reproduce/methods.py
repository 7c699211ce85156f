"""One method on one network: from a run to the row that the store keeps."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from refldnq import __version__
from refldnq._typing import Array
from refldnq.baselines.base import Baseline, check_levels
from refldnq.baselines.ldnq_minus import LEVELS as OWN_LEVELS
from refldnq.baselines.ldnq_minus import NAME as LDNQ_MINUS
from refldnq.baselines.ldnq_minus import without_update
from refldnq.baselines.loop import LoopState
from refldnq.baselines.retrain import RETRAIN as AFTERWARDS
from refldnq.baselines.retrain import step_6
from refldnq.baselines.runs import Computed, Trained
from refldnq.baselines.schedule import USUAL_IMAGES, Schedule, fewer_epochs
from refldnq.cascade import ratio
from refldnq.codebook import powers_of_two
from refldnq.experiments.checkpoint import Fingerprint
from refldnq.experiments.digits import digits_update
from refldnq.experiments.profiles import profile_settings
from refldnq.experiments.record import plain
from refldnq.experiments.reproduce.plan import CAPPED, RETRAIN, PlannedRun
from refldnq.experiments.reproduce.sources import (
    MissingError,
    Prepared,
    Sources,
    outputs,
    prepare,
    reference_outputs,
)
from refldnq.experiments.run import (
    Event,
    QuantizeRequest,
    at_a_time,
    calibration_indices,
    quantize_model,
    required_preprocess,
    score_outputs,
)
from refldnq.experiments.work import layer_work, multiplications
from refldnq.network import Network

OWN = {"ldnq": "L-DNQ", LDNQ_MINUS: "L-DNQ⁻", "best": "profile best"}
"""Algorithm 1; without its step 4; with the settings that lose least. The second is a baseline too; here it
keeps each layer's errors."""

SAVE_EVERY = 30.0
"""Seconds between two states of a training on disk; chosen here: an epoch may take less than writing one."""

PACKAGES = ("numpy", "scipy", "numba")
"""Packages whose versions a row names."""

LAYER_FIELDS = (
    "name",
    "levels",
    "alpha",
    "zero_fraction",
    "error",
    "relative_error",
    "relative_accumulated_error",
    "relative_output_error",
    "iterations",
    "seconds",
)
"""What a row keeps of a layer's report."""


def known_methods() -> dict[str, str]:
    """Every method that can be run, and its label.

    Examples
    --------
    >>> known_methods()["ldnq"]
    'L-DNQ'
    """
    return {**OWN, **{name: baseline.label for name, baseline in _baselines().items()}}


def why_not(method: str) -> str | None:
    """Why a method cannot be run; None if it can.

    Examples
    --------
    >>> why_not("ldnq+retrain") is None, why_not("prayer")
    (True, "there is no method 'prayer'")
    """
    return None if method.removesuffix(RETRAIN) in known_methods() else f"there is no method {method!r}"


def why_not_levels(method: str, levels: int) -> str | None:
    """Why a method cannot be run with so many levels; None if it can.

    Parameters
    ----------
    method : str
        One that `why_not` has nothing against.
    levels : int
        Number of values of a quantized weight.

    Examples
    --------
    >>> why_not_levels("ttq+retrain", 3) is None, why_not_levels("ttq+retrain", 5)
    (True, '`levels` must be 3 for TTQ, got 5.')
    """
    base = method.removesuffix(RETRAIN)
    try:
        if base in OWN:
            check_levels(levels, OWN_LEVELS, OWN[base])
        else:
            check_levels(levels, _baselines()[base].levels, _baselines()[base].label)
    except ValueError as wrong:
        return str(wrong)
    return None


def schedule_of(method: str, schedule: str, images: int) -> str:
    """The schedule that a method's runs are known by: ``scaled`` where the schedules' names mean the same.

    ``published`` matters to methods that train, and not to a retraining; ``capped`` to any training, to a
    retraining and to the weights update, for more than `refldnq.baselines.schedule.USUAL_IMAGES`.

    Parameters
    ----------
    method : str
        Its name.
    schedule : {'scaled', 'capped', 'published'}
        What is asked for.
    images : int
        Of the run.

    Examples
    --------
    >>> [schedule_of(name, "published", 500) for name in ("ttq", "vq+retrain", "ldnq")]
    ['published', 'scaled', 'scaled']
    >>> [schedule_of(name, "capped", 1000) for name in ("ttq", "vq+retrain", "ldnq", "vq", "ldnq-")]
    ['capped', 'capped', 'capped', 'scaled', 'scaled']
    >>> schedule_of("ttq", "capped", 500)
    'scaled'
    """
    base = method.removesuffix(RETRAIN)
    baseline = _baselines().get(base)
    how = None if baseline is None else baseline.run
    if schedule == CAPPED:
        trains = isinstance(how, Trained) or base != method or (base in OWN and base != LDNQ_MINUS)
        return CAPPED if trains and images > USUAL_IMAGES else "scaled"
    if not isinstance(how, Trained) or how.scaled.numbers == how.published.numbers:
        return "scaled"
    return schedule


def work_of(run: PlannedRun, prepared: Prepared) -> float:
    """Multiplications that a run takes, roughly: an estimate for the time left and nothing else.

    Parameters
    ----------
    run : PlannedRun
        Which.
    prepared : Prepared
        Its network and data.
    """
    network = prepared.model.network
    once = float(sum(multiplications(network)))
    work, base = len(prepared.test) * once, run.method.removesuffix(RETRAIN)
    epochs = 0
    if base in OWN:
        request = _request(run, prepared)
        work += sum(layer_work(network, request.settings, run.images).values())
        epochs = request.settings.last_epochs
        epochs += request.fine_tune.epochs if request.fine_tune is not None else 0
    else:
        baseline = _baselines()[base]
        epochs = sum(_stages(run, baseline, prepared))
    return work + 3 * epochs * run.images * once  # a backward pass counts as two


def settings_of(run: PlannedRun, prepared: Prepared) -> dict[str, Any]:
    """All that decides a run's result beside `run` and the fingerprints of network and data.

    Another version of this package makes another run: it may compute something else.
    """
    loss = prepared.model.network.loss  # named where it is not the usual one
    own = {"refldnq": __version__, **({} if loss == "cross_entropy" else {"loss": loss})}
    if run.method.removesuffix(RETRAIN) in OWN:
        return {**own, "request": plain(_request(run, prepared).explicit)}
    baseline = _baselines()[run.method.removesuffix(RETRAIN)]
    trains, how = baseline.trains or run.method.endswith(RETRAIN), baseline.run
    schedule = _schedule(run, baseline, prepared).for_images(run.images)
    after = _afterwards(run, baseline, prepared)
    return {
        **own,
        "baseline": baseline.name,
        "schedule": plain(schedule.numbers) if trains else None,
        **({} if after is None else {"retraining": plain(after.numbers)}),
        "settings": plain(how.resolved(run.levels)) if isinstance(how, Trained | Computed) else None,
    }


def perform(
    run: PlannedRun,
    sources: Sources,
    *,
    on_progress: Callable[[Event], None] | None = None,
    checkpoint: Path | None = None,
) -> dict[str, Any]:
    """Do a run.

    Parameters
    ----------
    run : PlannedRun
        Which.
    sources : Sources
        Where its network and data are.
    on_progress : callable, optional
        Called with an `Event` after every step of it.
    checkpoint : Path, optional
        An interrupted run goes on from there; removing it at the end is the caller's business.

    Returns
    -------
    dict
        JSON values: ``correct_before``, ``correct_after`` (and ``_top5``), ``total``, ``change`` (percentage
        points, after minus before), ``train_total`` (images that the calibration images are drawn from),
        ``labels_used``, ``steps``, ``epochs``, ``image_passes``, ``skipped``
        (layers that are not quantized), ``mean_levels``, ``layers``, ``output_error`` (squared difference of
        the outputs from the reference network's, relative to their squared norm, on the test images),
        ``calibration_output_error`` (the same on the calibration images), ``seconds`` (without scoring; of a
        baseline that went on from a checkpoint, since then),
        ``threads``, ``machine``, ``versions``.

    Raises
    ------
    MissingError
        If the method, the weights or the data are not there.
    ValueError
        If the method has worked on another number of images than the run's.
    """
    reason = why_not(run.method)
    if reason is not None:
        raise MissingError(reason)
    prepared = prepare(sources, run.network)
    began = time.perf_counter()
    if run.method.removesuffix(RETRAIN) in OWN:
        done = _own(run, prepared, on_progress, checkpoint)
    else:
        done = _baseline(run, prepared, on_progress, checkpoint)
    seconds = done.seconds or time.perf_counter() - began
    labels = prepared.test.labels
    assert labels is not None
    expected = reference_outputs(sources, run.network)
    found = outputs(prepared.model, done.network, prepared.test)
    before, after = score_outputs(expected, labels), score_outputs(found, labels)
    images, _ = _drawn(run, prepared)
    size = at_a_time(done.network)
    ours, theirs = (net.forward(images, batch_size=size) for net in (done.network, prepared.model.network))
    row = {
        "correct_before": before.correct,
        "correct_after": after.correct,
        "correct_before_top5": before.correct_top5,
        "correct_after_top5": after.correct_top5,
        "total": after.total,
        "train_total": len(prepared.train),
        "change": 100.0 * (after.correct - before.correct) / after.total,
        "output_error": relative_difference(found, expected),
        "calibration_output_error": relative_difference(ours, theirs),
        **done.facts,
        "seconds": seconds,
        "threads": _threads(),
        "machine": platform.platform(),
        "versions": versions(),
    }
    return dict(plain(row))


def relative_difference(found: Array, expected: Array) -> float:
    """The squared norm of the difference, divided by that of `expected`: (6), relative.

    Examples
    --------
    >>> relative_difference(np.array([[3.0, 3.0]]), np.array([[3.0, 4.0]]))
    0.04
    """
    difference = (found - expected).astype(np.float64)
    return float(ratio(float(np.sum(difference**2)), float(np.sum(expected.astype(np.float64) ** 2))))


def versions() -> dict[str, str | None]:
    """Versions of Python, this package and `PACKAGES`; None for what is not installed."""
    found: dict[str, str | None] = {"refldnq": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


@dataclass(frozen=True, kw_only=True)
class _Done:
    network: Network
    facts: dict[str, Any]
    seconds: float | None = None


def _own(
    run: PlannedRun, prepared: Prepared, tell: Callable[[Event], None] | None, checkpoint: Path | None
) -> _Done:
    request = _request(run, prepared)
    outcome = quantize_model(
        prepared.model, prepared.train, request, on_progress=tell, checkpoint=checkpoint, resume=True
    )
    _check_images(run, len(outcome.indices))
    settings, quantized = request.settings, outcome.model.quantized
    passes = sum(report.update_images for report in outcome.reports)
    batch = settings.update.batch_size if settings.update else 1
    epochs = passes // run.images
    steps = epochs * -(-run.images // batch)
    if request.fine_tune is not None:
        epochs += request.fine_tune.epochs
        passes += request.fine_tune.epochs * run.images
        steps += request.fine_tune.epochs * -(-run.images // request.fine_tune.batch_size)
    facts = {
        "labels_used": request.fine_tune is not None,
        "steps": steps,
        "epochs": epochs,
        "image_passes": passes,
        "skipped": [name for name in prepared.model.network.weighted if name not in quantized],
        "mean_levels": _mean_levels({name: len(code.values) for name, code in quantized.items()}, prepared),
        "layers": [{name: getattr(report, name) for name in LAYER_FIELDS} for report in outcome.reports],
    }
    return _Done(network=outcome.model.network, facts=facts, seconds=outcome.seconds)


def _mean_levels(levels: dict[str, int], prepared: Prepared) -> float:
    # Of all quantized weights.
    sizes = {name: prepared.model.network.params[name]["weight"].size for name in levels}
    return sum(levels[name] * size for name, size in sizes.items()) / sum(sizes.values())


def _request(run: PlannedRun, prepared: Prepared) -> QuantizeRequest:
    base = run.method.removesuffix(RETRAIN)
    settings = profile_settings("best" if base == "best" else "paper", powers_of_two(run.levels))
    if _small(prepared):  # other crops, and no mirror images
        weights = settings.update is None or settings.update.weights
        settings = replace(settings, update=replace(digits_update(), weights=weights))
    elif _digits(prepared) and settings.update is not None:
        settings = replace(settings, update=replace(settings.update, flip=False))
    if base == LDNQ_MINUS:
        settings = without_update(settings)
    if run.keep_ends:
        settings = replace(settings, first=False, last=False)
    if run.schedule == CAPPED and settings.update is not None:
        between, final, code = (
            fewer_epochs(epochs, run.images, USUAL_IMAGES)
            for epochs in (settings.update.epochs, settings.final_epochs, settings.code_epochs)
        )
        settings = replace(
            settings, update=settings.update.lasting(between), final_epochs=final, code_epochs=code
        )
    tuning = None
    if run.method.endswith(RETRAIN):
        # The loss is the network's own, by name: a run is known by what it does, not by how it is asked.
        tuning = step_6(_suited(AFTERWARDS, prepared, run).for_images(run.images))
        tuning = replace(tuning, loss=prepared.model.network.loss)
    return QuantizeRequest(settings=settings, images=run.images, seed=run.seed, fine_tune=tuning)


def _baselines() -> Mapping[str, Baseline]:
    from refldnq.baselines import BASELINES  # here: the registry decides what exists

    return BASELINES


def _schedule(run: PlannedRun, baseline: Baseline, prepared: Prepared) -> Schedule:
    # As the method follows it, for any number of images; of a method that computes, its retraining's.
    how = baseline.run
    if not isinstance(how, Trained):
        return _suited(AFTERWARDS, prepared, run)
    asked = _suited(how.published if run.schedule == "published" else how.scaled, prepared, run)
    network = prepared.model.network
    return how.plan(network, _layers(run, network) or network.weighted, run.levels, asked)


def _stages(run: PlannedRun, baseline: Baseline, prepared: Prepared) -> tuple[int, int]:
    # Epochs of a baseline's training, and of the retraining behind it.
    first, second = _schedule(run, baseline, prepared), _suited(AFTERWARDS, prepared, run)
    return (
        first.for_images(run.images).total if baseline.trains else 0,
        second.for_images(run.images).total if run.method.endswith(RETRAIN) else 0,
    )


def _fraction(state: LoopState, stages: tuple[int, int]) -> float:
    # How much of a run is done, stages weighing their epochs; layers that are computed weigh one together.
    first, second = max(1, stages[0]), stages[1]
    before, own = (first, second) if state.stage == "retrain" else (0, first)
    return (before + own * state.epoch / state.epochs) / (first + second)


def _layers(run: PlannedRun, network: Network) -> tuple[str, ...] | None:
    return tuple(network.weighted[1:-1]) if run.keep_ends else None


def _afterwards(run: PlannedRun, baseline: Baseline, prepared: Prepared) -> Schedule | None:
    # Of the retraining behind a method that trains.
    how = baseline.run
    if not isinstance(how, Trained) or not run.method.endswith(RETRAIN):
        return None
    return how.retraining(_schedule(run, baseline, prepared)).for_images(run.images)


def _suited(schedule: Schedule, prepared: Prepared, run: PlannedRun) -> Schedule:
    # Other crops of small digits, no mirror images of any, and the cap.
    if run.schedule == CAPPED:
        schedule = replace(schedule, most_images=USUAL_IMAGES)
    if _small(prepared):
        schedule = replace(schedule, crop=1)
    return replace(schedule, flip=False) if _digits(prepared) else schedule


def _small(prepared: Prepared) -> bool:
    return prepared.train.name.startswith("digits")


def _digits(prepared: Prepared) -> bool:
    # The relatives of MNIST that lie in files of its names are taken for it.
    return prepared.train.name.startswith(("digits", "mnist"))


def _baseline(
    run: PlannedRun, prepared: Prepared, tell: Callable[[Event], None] | None, checkpoint: Path | None
) -> _Done:
    from refldnq.experiments import baseline_checkpoint

    baseline = _baselines()[run.method.removesuffix(RETRAIN)]
    images, labels = _drawn(run, prepared)
    network = prepared.model.network
    parts = {"run": plain(run), "settings": settings_of(run, prepared)}
    own = {name: json.dumps(part, sort_keys=True) for name, part in parts.items()}
    fingerprint = Fingerprint({**prepared.fingerprints, **own})
    state = None
    if checkpoint is not None and checkpoint.exists():
        state = baseline_checkpoint.load(checkpoint, fingerprint)
    saved, stages = time.monotonic(), _stages(run, baseline, prepared)

    def say(state: LoopState, *, restored: bool = False) -> None:
        if tell is not None:
            unit = "layer" if state.stage == "quantize" else "epoch"
            words = f"{state.stage}: {unit} {state.epoch} of {state.epochs}"
            words += ", from the checkpoint" if restored else ""
            tell(Event(words, _fraction(state, stages), restored=restored))

    if state is not None:
        say(state, restored=True)

    def on_epoch(state: LoopState) -> None:
        nonlocal saved
        say(state)
        if checkpoint is not None and time.monotonic() - saved >= SAVE_EVERY:
            baseline_checkpoint.save(checkpoint, state, fingerprint)
            saved = time.monotonic()

    result = baseline.run(
        network,
        images,
        labels,
        levels=run.levels,
        rng=np.random.default_rng(run.seed).spawn(2)[1],
        schedule=_schedule(run, baseline, prepared),
        layers=_layers(run, network),
        retrain=run.method.endswith(RETRAIN),
        on_epoch=on_epoch,
        state=state,
    )
    _check_images(run, result.images / result.epochs if result.epochs else len(images))
    facts = {
        "labels_used": bool(result.labels_used),
        "steps": result.steps,
        "epochs": result.epochs,
        "image_passes": result.images,
        "skipped": list(result.skipped),
        "mean_levels": result.mean_levels,
        "layers": [],
    }
    return _Done(network=result.network, facts=facts)


def _drawn(run: PlannedRun, prepared: Prepared) -> tuple[Array, Array | None]:
    # The calibration images and their labels: for one seed the same, whatever the method.
    model, train = prepared.model, prepared.train
    indices = calibration_indices(train, QuantizeRequest(images=run.images, seed=run.seed))
    preprocess = required_preprocess(model)
    _check_images(run, len(indices))
    labels = None if train.labels is None else train.labels[indices]
    return preprocess(train.pixels(indices, preprocess.resize), np.dtype(np.float32)), labels


def _check_images(run: PlannedRun, found: float) -> None:
    # What a row says of its images is what was asked for, and not what came.
    if found != run.images:
        raise ValueError(f"`images` must be the {run.images} that were asked for, got {found:g}.")


def _threads() -> int:
    from refldnq._kernels.threads import thread_count

    return thread_count()
