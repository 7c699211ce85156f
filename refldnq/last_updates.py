"""What follows the last layer: step 4 there, steps in which codes move, new statistics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from refldnq._typing import Array
from refldnq.cascade import Cascade, Copies
from refldnq.final import Scales
from refldnq.layer_report import with_code, with_output
from refldnq.ldnq_settings import LdnqSettings
from refldnq.model import QuantizedWeight
from refldnq.network import Network
from refldnq.progress import Progress
from refldnq.reestimate import reestimate_statistics
from refldnq.straight import Codes
from refldnq.update import UpdateSettings
from refldnq.versions import Versions


def last_updates(
    settings: LdnqSettings, images: Array, rng: np.random.Generator
) -> Iterator[tuple[UpdateSettings, Callable[..., Scales], np.random.Generator]]:
    """How the last updates go, what moves in them, and their streams of random numbers.

    Parameters
    ----------
    settings : LdnqSettings
        Those of the run; without an update there are none.
    images : Array, shape (n, *input_shape)
        The calibration images.
    rng : numpy.random.Generator
        Of all that follows the last layer.

    Yields
    ------
    UpdateSettings
        Those of one last update.
    callable
        What moves in it: called with the network, the codes, names of layers with fixed sets, and these
        settings.
    numpy.random.Generator
        Its own stream.
    """
    how = settings.update
    if how is None:
        return
    if settings.final_epochs:
        kind = Scales if settings.final_scales else _fixed_scales
        yield _with_epochs(how, settings.final_epochs), kind, rng  # [LDNQ] Algorithm 1, step 4, l = L
    if settings.code_epochs:
        # Without the noise of the batches' statistics.
        how, (moving, settling) = replace(how, statistics="running"), rng.spawn(2)
        pool = settings.code_epochs if images.ndim == 4 and how.pool > 1 else 1
        own = replace(
            how,
            epochs=settings.code_epochs,
            copies=pool,
            pool=pool,
            mix=settings.code_mix if pool > 1 and not how.validation else 0.0,
            intermediate=settings.code_intermediate,
            features="blocks",
        )
        yield own, partial(Codes, rate=settings.code_rate), moving
        yield _with_epochs(how, settings.settling_epochs), Scales, settling


def _fixed_scales(
    network: Network,
    quantized: Mapping[str, QuantizedWeight],
    fixed: Sequence[str],
    settings: UpdateSettings,
) -> Scales:
    """`Scales` of which none moves."""
    return Scales(network, quantized, tuple(quantized), settings)


def _with_epochs(how: UpdateSettings, epochs: int) -> UpdateSettings:
    return replace(how, epochs=epochs, copies=min(epochs, how.pool))


def finish(state: Progress, cascade: Cascade, settings: LdnqSettings, rng: np.random.Generator) -> Progress:
    """What follows the last layer: the last updates, the new statistics.

    Parameters
    ----------
    state : Progress
        All layers quantized.
    cascade : Cascade
        Teacher and student.
    settings : LdnqSettings
        Those of the run.
    rng : numpy.random.Generator
        Of all that follows the last layer.

    Returns
    -------
    Progress
        Nothing is pending. All reports have the new scales, zeros and a note on codes that have moved; the
        last layer's has the new output's error, the time and the image passes.
    """
    began, teacher, images = time.perf_counter(), cascade.teacher, cascade.images
    reports = list(state.reports)
    fixed = [name for name in state.quantized if settings.levels.get(name, settings.codebook).kind == "fixed"]
    for how, kind, stream in last_updates(settings, images, rng):
        versions = Versions(teacher, images, how, 1, stream, settings.batch_size)
        cascade.restart()
        copies = Copies(cascade, state.network, versions, 0, how.epochs)
        plain = copies.plain if how.validation else None
        moving = kind(state.network, state.quantized, fixed, how)
        result, codes = moving.update(copies, how, stream, plain=plain)
        del copies, plain  # and with them a version's activations
        reports = [with_code(report, state.quantized[report.name], codes) for report in reports]
        state = replace(state, network=result.network, quantized=codes)
        passes = reports[-1].update_images + result.images
        loss = result.losses[-1] if result.losses else reports[-1].update_loss
        reports[-1] = replace(reports[-1], update_loss=loss, update_images=passes)
    if settings.reestimate == "end":
        state = replace(state, network=reestimate_statistics(state.network, images, settings.batch_size))
    if settings.ends_later:
        output = state.network.forward(images, batch_size=settings.batch_size)
        seconds = reports[-1].seconds + time.perf_counter() - began
        reports[-1] = with_output(replace(reports[-1], seconds=seconds), output, cascade)
    return replace(state, reports=tuple(reports), pending=False)
