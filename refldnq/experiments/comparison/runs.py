"""The runs of a comparison, each in its own files: what is there already is not run again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refldnq import __version__
from refldnq.baselines.identity import graph_words
from refldnq.data import Dataset
from refldnq.experiments.record import plain
from refldnq.experiments.report import outcome_json
from refldnq.experiments.run import Event, QuantizeRequest, quantize_model
from refldnq.formats.atomic import atomic_path
from refldnq.formats.h5 import load_model, save_model
from refldnq.model import Model


@dataclass(frozen=True, order=True)
class Cell:
    """One run's place in a comparison."""

    method: str
    levels: int
    images: int

    @property
    def stem(self) -> str:
        """Of the names of its files."""
        return f"{self.method}-{self.levels}-levels-{self.images}-images"


@dataclass(frozen=True, kw_only=True)
class ComparedRun:
    """A run that is done.

    Parameters
    ----------
    cell : Cell
        Its place.
    record : mapping
        What `outcome_json` says of it.
    model_file : Path
        The quantized network.
    """

    cell: Cell
    record: dict[str, Any]
    model_file: Path

    def model(self) -> Model:
        """The quantized network."""
        return load_model(self.model_file)


def cells(
    methods: Sequence[str],
    levels: int,
    images: int,
    *,
    more_levels: Iterable[int] = (),
    more_images: Iterable[int] = (),
) -> tuple[Cell, ...]:
    """All runs of a comparison: the base, other levels at its images, other images at its levels.

    Examples
    --------
    >>> [cell.stem for cell in cells(["gptq"], 3, 100, more_levels=[3, 5])]
    ['gptq-3-levels-100-images', 'gptq-5-levels-100-images']
    """
    places = [(levels, images), *((k, images) for k in more_levels), *((levels, n) for n in more_images)]
    return tuple(dict.fromkeys(Cell(method, k, n) for k, n in places for method in methods))


def identity(model: Model, dataset: Dataset, test: Dataset | None, request: QuantizeRequest) -> str:
    """SHA-256 of all that decides a run's results but the machine, its threads and other packages."""
    words = f"{__version__} {graph_words(model.network)} {model.network.loss}"
    digest = hashlib.sha256(words.encode())
    for name, own in sorted(model.network.params.items()):
        for key, array in sorted(own.items()):
            digest.update(f"{name}.{key} {array.dtype} {array.shape}".encode())
            digest.update(array.tobytes())
    rest = [plain(request.explicit), plain(model.preprocess), dataset.fingerprint()]
    rest.append(None if test is None else test.fingerprint())
    digest.update(json.dumps(rest, sort_keys=True).encode())
    return digest.hexdigest()


def run_cell(
    cell: Cell,
    model: Model,
    dataset: Dataset,
    request: QuantizeRequest,
    folder: Path,
    *,
    test: Dataset | None = None,
    on_progress: Callable[[Event], None] | None = None,
) -> ComparedRun:
    """Run one cell, go on with it from its checkpoint, or read what it has given before.

    Parameters
    ----------
    cell : Cell
        Names the files.
    model : Model
        The original network.
    dataset, test : Dataset
        Calibration images are drawn from the first; the second is evaluated on.
    request : QuantizeRequest
        How.
    folder : Path
        Where the files are, or will be.
    on_progress : callable, optional
        Called with an `Event` after every step.

    Returns
    -------
    ComparedRun

    Raises
    ------
    ValueError
        If the folder holds this cell of another comparison.
    """
    model_file, file = folder / f"{cell.stem}.h5", folder / f"{cell.stem}.json"
    known = identity(model, dataset, test, request)
    if file.exists() and model_file.exists():
        stored = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(stored, dict) or stored.get("identity") != known:
            raise ValueError(
                f"`-o` must be a folder of this comparison: {file} is of another network, data, settings or "
                "version."
            )
        return ComparedRun(cell=cell, record=stored["record"], model_file=model_file)
    checkpoint = folder / f"{cell.stem}.checkpoint"
    outcome = quantize_model(
        model, dataset, request, test=test, on_progress=on_progress, checkpoint=checkpoint, resume=True
    )
    record = outcome_json(outcome)
    save_model(model_file, outcome.model)
    with atomic_path(file) as temporary:
        content = json.dumps({"identity": known, "record": record}, allow_nan=False, ensure_ascii=False)
        temporary.write_text(content, encoding="utf-8")
    checkpoint.unlink(missing_ok=True)
    return ComparedRun(cell=cell, record=record, model_file=model_file)
