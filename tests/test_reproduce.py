"""``refldnq reproduce``: runs on the digits, the store behind them, what is shown, what is skipped."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from refldnq import models
from refldnq.baselines import BASELINES, lat
from refldnq.baselines.identity import graph_words
from refldnq.baselines.inq import PORTIONS, TERNARY_PORTIONS, InqSettings
from refldnq.baselines.retrain import RETRAIN as RETRAINING
from refldnq.cli import main
from refldnq.data import Dataset, load_dataset
from refldnq.errors import FormatError
from refldnq.experiments.drawing import style
from refldnq.experiments.profiles import profile_settings
from refldnq.experiments.reproduce import exhibit, figures, jobs, methods, tables
from refldnq.experiments.reproduce import sources as source_module
from refldnq.experiments.reproduce.correlation import rank_correlation
from refldnq.experiments.reproduce.exhibit import Plan, entries_of, plan_of
from refldnq.experiments.reproduce.methods import known_methods, relative_difference
from refldnq.experiments.reproduce.paper import paper
from refldnq.experiments.reproduce.plan import (
    CAPPED,
    OURS,
    TRN_LEVELS,
    PlannedCell,
    PlannedRun,
    cells_of,
    origin_of,
    own_method,
    paper_row,
)
from refldnq.experiments.reproduce.sources import MissingError, Sources, Zoo, prepare, reference_outputs
from refldnq.experiments.reproduce.store import Store, run_id
from refldnq.experiments.reproduce.summary import entries, mean_of
from refldnq.experiments.run import (
    Event,
    QuantizeRequest,
    calibration_indices,
    evaluate_model,
    quantize_model,
    wilson,
)
from refldnq.experiments.work import multiplications
from refldnq.formats.h5 import load_model, save_model
from refldnq.layers import AvgPool2d, Flatten, Linear, MaxPool2d, ReLU
from refldnq.ldnq_settings import LdnqSettings
from refldnq.network import Network, Node
from refldnq.solvers.admm_settings import AdmmSettings
from refldnq.solvers.base import SOLVERS

pytest.importorskip("sklearn", reason="the embedded digits need scikit-learn")

ZOO = Zoo(models.NAMES, models.SHIPPED, models.build, models.preprocess, models.shipped)


@dataclass(frozen=True)
class FakeResult:
    """What a baseline gives."""

    network: Network
    quantized: dict[str, Any]
    labels_used: bool
    steps: int
    epochs: int
    images: int
    skipped: tuple[str, ...]
    mean_levels: float
    history: tuple[Any, ...]


class Fake:
    """A baseline that rounds to three levels and remembers how it was called."""

    def __init__(self, name: str) -> None:
        self.name, self.label, self.trains, self.needs_labels, self.origin = (
            name,
            name,
            False,
            False,
            "[test]",
        )
        self.levels = range(2, 129)
        self.calls: list[dict[str, Any]] = []
        self.raises: BaseException | None = None

    def run(self, network: Network, images: Any, labels: Any, **how: Any) -> FakeResult:
        self.calls.append({"images": images, "labels": labels, **how, "draw": how["rng"].integers(1 << 30)})
        if self.raises is not None:
            raise self.raises
        how["on_epoch"](SimpleNamespace(stage="train", epoch=1, epochs=1))
        layers = how["layers"] or network.weighted
        new = {}
        for name in layers:
            weight = network.params[name]["weight"]
            scale = np.abs(weight).mean()
            rounded = (scale * np.sign(weight) * (np.abs(weight) > 0.5 * scale)).astype(weight.dtype)
            new[name] = {"weight": rounded}
        skipped = tuple(name for name in network.weighted if name not in layers)
        return FakeResult(network.replace(new), {}, how["retrain"], 7, 2, 2 * len(images), skipped, 3.0, ())


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> dict[str, Fake]:
    found = {name: Fake(name) for name in ("dq", "vq", "inq")}
    monkeypatch.setattr("refldnq.baselines.BASELINES", found)
    return found


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    prepare.cache_clear()
    reference_outputs.cache_clear()


def invoke(*words: object) -> Result:
    return CliRunner().invoke(main, ["reproduce", *(str(word) for word in words)])


def accept(*words: object) -> Result:
    result = invoke(*words)
    assert result.exit_code == 0, result.output
    return result


# ------------------------------------------------------------------ runs


def test_algorithm_1_is_run_and_scored_as_quantize_does(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    words = ("--networks", "mlp-digits", "--methods", "ldnq-", "--images", 60, "--seeds", "0,3")
    result = accept("table4", *words, "--store", tmp_path / "runs.sqlite", "--json", file)
    (entry,) = json.loads(file.read_text())["entries"]
    assert entry["n"] == 2 and entry["labels_used"] is False and entry["paper"] is None
    prepared = prepare(Sources(ZOO), "mlp-digits")
    for run, seed in zip(entry["runs"], (0, 3), strict=True):
        request = QuantizeRequest(settings=LdnqSettings(update=None), images=60, seed=seed)
        outcome = quantize_model(prepared.model, prepared.train, request, test=prepared.test)
        assert outcome.before is not None and outcome.after is not None
        assert (run["correct_before"], run["correct_after"], run["total"], run["seed"]) == (
            outcome.before.correct,
            outcome.after.correct,
            outcome.after.total,
            seed,
        )
        assert (run["correct_before_top5"], run["correct_after_top5"]) == (
            outcome.before.correct_top5,
            outcome.after.correct_top5,
        )
        assert run["change"] == pytest.approx(-outcome.drop, abs=1e-9)  # type: ignore[operator]
        assert [layer["error"] for layer in run["layers"]] == [report.error for report in outcome.reports]
        last = outcome.reports[-1].relative_output_error
        assert run["calibration_output_error"] == pytest.approx(last, rel=1e-5)
        x, y = (
            network.forward(prepared.model.preprocess(prepared.test.images, np.dtype(np.float32)))  # type: ignore[misc]
            for network in (outcome.model.network, prepared.model.network)
        )
        assert run["output_error"] == pytest.approx(np.sum((x - y) ** 2) / np.sum(y**2), rel=1e-5)
        assert (run["steps"], run["epochs"], run["image_passes"], run["skipped"]) == (0, 0, 0, [])
        assert run["mean_levels"] == 3.0 and run["seconds"] > 0 and run["versions"]["refldnq"]
    changes = [run["change"] for run in entry["runs"]]
    assert entry["change"]["mean"] == pytest.approx(np.mean(changes))
    assert entry["change"]["error"] == pytest.approx(np.std(changes, ddof=1) / math.sqrt(2))
    assert f"{np.mean(changes):+.2f}" in result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "runs.sqlite"]


def test_updates_retraining_and_ends(tmp_path: Path) -> None:
    sources = Sources(ZOO)
    runs = [
        PlannedRun("mlp-digits", "ldnq+retrain", 3, 30, 0),
        PlannedRun("mlp-digits", "best", 5, 30, 0, keep_ends=True),
    ]
    retrained, best = (jobs.work_on(jobs.Task(run=run, identity={}, sources=sources)) for run in runs)
    assert retrained.result is not None and best.result is not None
    # Two of three layers are followed by an update of 60 epochs in 2 batches; then 40 epochs with labels.
    assert retrained.result["labels_used"] is True
    assert retrained.result["epochs"] == 2 * 60 + 40
    assert retrained.result["steps"] == 2 * 60 * 2 + 40
    assert retrained.result["image_passes"] == 30 * (2 * 60 + 40)
    assert best.result["labels_used"] is False
    assert best.result["skipped"] == ["fc1", "fc3"]
    assert [(layer["name"], layer["levels"]) for layer in best.result["layers"]] == [("fc2", 5)]


def test_a_baseline_gets_the_same_images_and_what_it_says_is_kept(
    fakes: dict[str, Fake], tmp_path: Path
) -> None:
    file = tmp_path / "out.json"
    words = ("--networks", "mlp-digits", "--images", 40, "--seeds", "1", "--store", tmp_path / "runs.sqlite")
    result = accept("table1", *words, "--methods", "vq,vq+retrain,inq", "--json", file)
    records = {entry["method"]: entry for entry in json.loads(file.read_text())["entries"]}
    prepared = prepare(Sources(ZOO), "mlp-digits")
    places = calibration_indices(prepared.train, QuantizeRequest(images=40, seed=1))
    assert prepared.train.labels is not None and prepared.model.preprocess is not None
    expected = prepared.model.preprocess(prepared.train.images[places], np.dtype(np.float32))
    plain, retrained = fakes["vq"].calls
    for call in (plain, retrained, *fakes["inq"].calls):
        np.testing.assert_array_equal(call["images"], expected)
        np.testing.assert_array_equal(call["labels"], prepared.train.labels[places])
        assert (call["schedule"].crop, call["schedule"].flip) == (1, False)  # a digit mirrored is none
        assert call["layers"] is None and call["state"] is None
    assert plain["draw"] == retrained["draw"] == fakes["inq"].calls[0]["draw"]  # one seed
    assert (plain["retrain"], retrained["retrain"]) == (False, True)
    assert (plain["levels"], fakes["inq"].calls[0]["levels"]) == (3, 15)
    assert records["vq"]["labels_used"] is False and records["vq+retrain"]["labels_used"] is True
    assert (records["vq"]["steps"], records["vq"]["epochs"], records["vq"]["image_passes"]) == (7, 2, 80)
    network = fakes["vq"].run(
        prepared.model.network, expected, None, retrain=False, layers=None, levels=3,
        rng=np.random.default_rng(0), on_epoch=lambda state: None,
    ).network  # fmt: skip
    score = evaluate_model(replace(prepared.model, network=network), prepared.test)
    assert records["vq"]["runs"][0]["correct_after"] == score.correct
    for line in (r for r in result.output.splitlines() if r.startswith("mlp-digits") and "points" not in r):
        assert (" yes " in line, " no " in line) == ("+retrain" in line, "+retrain" not in line)
    accept("table1", *words, "--methods", "vq", "--keep-ends")
    assert fakes["vq"].calls[-1]["layers"] == ("fc2",)


def test_a_run_is_never_done_twice_whichever_exhibit_asks(fakes: dict[str, Fake], tmp_path: Path) -> None:
    words = ("--networks", "mlp-digits", "--seeds", "0-1", "--store", tmp_path / "runs.sqlite")
    accept("table1", *words, "--methods", "vq", "--images", "40")
    assert len(fakes["vq"].calls) == 2
    shown = accept("fig2a", *words, "--methods", "vq", "--images", "40,50")
    assert len(fakes["vq"].calls) == 4
    again = accept("fig2a", *words, "--methods", "vq", "--images", "40,50")
    assert len(fakes["vq"].calls) == 4
    assert again.stdout == shown.stdout
    assert len(Store(tmp_path / "runs.sqlite").rows()) == 4


def test_a_schedule_without_influence_makes_no_other_run(
    fakes: dict[str, Fake], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A method that does not train, or is merely retrained, is the same under both schedules."""
    words = ("table1", "--networks", "mlp-digits", "--seeds", "0-1", "--images", "40")
    where = ("--methods", "vq,vq+retrain", "--store", tmp_path / "runs.sqlite")
    scaled = accept(*words, *where)
    assert len(fakes["vq"].calls) == 4
    published = accept(*words, *where, "--schedule", "published")
    assert len(fakes["vq"].calls) == 4 and published.stdout == scaled.stdout
    assert accept(*words, *where, "--schedule", "published", "--show-only").stdout == scaled.stdout
    assert len(Store(tmp_path / "runs.sqlite").rows()) == 4
    # Planted: a command that takes the schedule into every run's description.
    monkeypatch.setattr(exhibit, "schedule_of", lambda method, schedule, images: schedule)
    accept(*words, *where, "--schedule", "published")
    assert len(fakes["vq"].calls) == 8


def test_a_schedule_with_influence_makes_other_runs() -> None:
    sources = Sources(ZOO)
    for method, other in (
        ("ttq", True),
        ("inq+retrain", True),
        ("dq+retrain", False),
        ("ldnq+retrain", False),
    ):
        cells = [PlannedCell("mlp-digits", method, 3, 40)]
        ids = {
            plan_of(cells, [0], sources, schedule=schedule).tasks[0].id
            for schedule in ("scaled", "published")
        }
        assert len(ids) == 1 + other, method


@pytest.mark.parametrize(
    "method", ["ldnq", "best", "ldnq+retrain", "vq+retrain", "exnn", "inq", "exnn+retrain"]
)
def test_a_capped_schedule_takes_no_more_passes_than_the_usual_images(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, many = 20, 70  # not a multiple
    exnn: Any = BASELINES["exnn"].run
    short = replace(BASELINES["exnn"], run=replace(exnn, scaled=replace(exnn.scaled, epochs=12)))
    monkeypatch.setattr("refldnq.baselines.BASELINES", {**BASELINES, "exnn": short})
    monkeypatch.setattr("refldnq.baselines.runs.RETRAIN", replace(RETRAINING, epochs=9))
    monkeypatch.setattr(methods, "AFTERWARDS", replace(RETRAINING, epochs=9))
    monkeypatch.setattr(methods, "USUAL_IMAGES", usual)
    scaled = PlannedRun("mlp-digits", method, 3, usual, 0)
    capped = replace(scaled, images=many, schedule=methods.schedule_of(method, CAPPED, many))
    assert capped.schedule == CAPPED
    passes = methods.perform(scaled, Sources(ZOO))["image_passes"]
    events: list[Event] = []
    row = methods.perform(capped, Sources(ZOO), on_progress=events.append)
    assert events[-1].fraction == 1.0
    assert passes / 2 < row["image_passes"] <= passes
    # Planted: a schedule that is not capped.
    monkeypatch.setattr(methods, "USUAL_IMAGES", many)
    assert methods.perform(capped, Sources(ZOO))["image_passes"] > passes


def test_a_cap_without_influence_makes_no_other_run() -> None:
    sources, run = Sources(ZOO), PlannedRun("mlp-digits", "ldnq", 3, 500, 0)
    prepared = prepare(sources, "mlp-digits")
    for method, other in (
        ("ttq", True),
        ("dq+retrain", True),
        ("ldnq", True),
        ("dq", False),
        ("ldnq-", False),
    ):
        for images in (500, 501):
            cells = [PlannedCell("mlp-digits", method, 3, images)]
            ids = {plan_of(cells, [0], sources, schedule=name).tasks[0].id for name in ("scaled", CAPPED)}
            assert len(ids) == 1 + (other and images > 500), (method, images)
    # The profile's only epoch between two layers stays.
    best = replace(run, network="resnet20", method="best", images=10_000, schedule=CAPPED)
    photos = replace(prepared, train=replace(prepared.train, name="cifar10"))
    found = methods._request(best, photos).settings
    assert found.update is not None
    assert (found.update.epochs, found.update.copies, found.final_epochs) == (1, 1, 96 * 500 // 10_000)
    assert found.code_epochs == 96 * 500 // 10_000
    for images in (501, 2500, 12_000):
        passed = methods._request(replace(best, images=images), photos).settings
        assert passed.last_epochs * images <= profile_settings("best").last_epochs * 500
    # What a run does is the same then, and not only its name.
    for method in ("ttq+retrain", "dq+retrain", "ldnq+retrain"):
        own = replace(run, method=method)
        capped = methods.settings_of(replace(own, schedule=CAPPED), prepared)
        assert capped == methods.settings_of(own, prepared)
        more = methods.settings_of(replace(own, schedule=CAPPED, images=1000), prepared)
        assert more != methods.settings_of(replace(own, images=1000), prepared)


def test_a_capped_row_is_shown_and_named(fakes: dict[str, Fake], tmp_path: Path) -> None:
    words = ("fig2a", "--networks", "mlp-digits", "--methods", "vq+retrain", "--seeds", "0-1")
    where = ("--images", "400,600", "--schedule", "capped", "--store", tmp_path / "runs.sqlite")
    shown = accept(*words, *where)
    assert [call["schedule"].most_images for call in fakes["vq"].calls] == [None, None, 500, 500]
    assert "The schedule capped, not scaled: vq+retrain with 600 images." in shown.stdout
    again = accept(*words, *where, "--show-only", "--csv", tmp_path / "rows.csv").stdout
    assert again.startswith(shown.stdout)
    rows = list(csv.DictReader((tmp_path / "rows.csv").read_text().splitlines()))
    assert [(row["images"], row["schedule"], row["n"]) for row in rows] == [
        ("400", "scaled", "2"),
        ("600", "capped", "2"),
    ]
    # The scaled schedule has the runs of 400 images, and none of 600.
    scaled = accept(*words, *where[:2], *where[4:], "--show-only").stdout
    assert "capped" not in scaled and len(fakes["vq"].calls) == 4
    assert PlannedRun("a", "vq", 3, 600, 0, schedule=CAPPED).words.endswith("600 images, capped, seed 0")


def test_other_weights_or_data_are_other_runs(fakes: dict[str, Fake], tmp_path: Path) -> None:
    model = load_model(models.shipped("mlp-digits"))
    words = ("table1", "--networks", "own", "--methods", "vq", "--images", "40", "--seeds", "0")
    where = ("--weights", tmp_path, "--data", "digits", "--store", tmp_path / "runs.sqlite")
    save_model(tmp_path / "own.h5", model)
    accept(*words, *where)
    accept(*words, *where)
    assert len(fakes["vq"].calls) == 1
    arrays = {"fc1": {"weight": model.network.params["fc1"]["weight"] * np.float32(1.5)}}
    save_model(tmp_path / "own.h5", replace(model, network=model.network.replace(arrays), quantized={}))
    prepare.cache_clear()  # as in another process
    assert "settings" not in accept(*words, *where).output
    assert len(fakes["vq"].calls) == 2
    both = accept(*words, *where, "--show-only").output
    assert "settings" in both and both.count("own ") == 2
    groups = {row.group for row in Store(tmp_path / "runs.sqlite").rows()}
    assert len(groups) == 2 and all(group in both for group in groups)


def test_a_failure_is_kept_shown_and_tried_again_on_demand(fakes: dict[str, Fake], tmp_path: Path) -> None:
    words = ("table1", "--networks", "mlp-digits", "--methods", "vq,inq", "--images", "40", "--seeds", "0")
    where = ("--store", tmp_path / "runs.sqlite")
    fakes["vq"].raises = ZeroDivisionError("no\nscale")
    first = invoke(*words, *where)
    assert first.exit_code == 1 and "1 of 2 runs have failed or are not finished." in first.stdout
    assert "mlp-digits: vq: 40 images, seed 0 failed: ZeroDivisionError: no scale" in first.stdout
    assert len(fakes["inq"].calls) == 1  # the others go on
    fakes["vq"].raises = None
    again = invoke(*words, *where)
    assert again.exit_code == 1 and "failed" in again.stdout and len(fakes["vq"].calls) == 1
    assert "failed" not in accept(*words, *where, "--retry-failed").stdout
    assert (len(fakes["vq"].calls), len(fakes["inq"].calls)) == (2, 1)


def test_an_interrupted_command_leaves_a_store_that_goes_on(fakes: dict[str, Fake], tmp_path: Path) -> None:
    words = ("table1", "--networks", "mlp-digits", "--methods", "vq,inq", "--images", "40", "--seeds", "0")
    where = ("--store", tmp_path / "runs.sqlite", "--csv", tmp_path / "out.csv")
    fakes["inq"].raises = KeyboardInterrupt()
    stopped = invoke(*words, *where)
    assert stopped.exit_code == 130 and stopped.stderr.splitlines()[-1].endswith("interrupted.")
    assert not (tmp_path / "out.csv").exists()
    assert [row.state for row in Store(tmp_path / "runs.sqlite").rows()] == ["done", "claimed"]
    fakes["inq"].raises = None
    accept(*words, *where)
    assert (len(fakes["vq"].calls), len(fakes["inq"].calls)) == (1, 2)
    assert [row.state for row in Store(tmp_path / "runs.sqlite").rows()] == ["done", "done"]


def test_algorithm_1_goes_on_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("table4", "--networks", "mlp-digits", "--methods", "ldnq-", "--images", "40", "--seeds", "0")
    where = ("--store", tmp_path / "runs.sqlite")
    from refldnq.experiments import checkpoint

    save = checkpoint.save

    def save_and_stop(*arguments: Any) -> None:
        save(*arguments)
        if len(arguments[1].reports) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", save_and_stop)
    assert invoke(*words, *where).exit_code == 130
    assert len(list(tmp_path.glob("*.checkpoint.h5"))) == 1
    monkeypatch.undo()
    result = accept(*words, *where)
    # Of the layers from the checkpoint the last is told.
    assert "fc2: from the checkpoint" in result.stderr and "fc1: from" not in result.stderr
    assert list(tmp_path.glob("*.checkpoint.h5")) == []


@pytest.mark.parametrize("schedule", ["scaled", CAPPED])
def test_a_baseline_goes_on_from_its_state_to_the_same_bits(
    schedule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from refldnq.experiments import baseline_checkpoint

    monkeypatch.setattr(methods, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(methods, "USUAL_IMAGES", 20)
    run = PlannedRun("mlp-digits", "lata+retrain", 3, 40, 2, schedule=schedule)
    whole = methods.perform(run, Sources(ZOO))
    epochs = lat.SCALED.total + RETRAINING.total
    assert whole["epochs"] == (epochs // 2 if schedule == CAPPED else epochs)
    save, file = baseline_checkpoint.save, tmp_path / "state.h5"

    def save_and_stop(path: Any, state: Any, fingerprint: Any) -> None:
        save(path, state, fingerprint)
        if state.epoch == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(baseline_checkpoint, "save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        methods.perform(run, Sources(ZOO), checkpoint=file)
    monkeypatch.setattr(baseline_checkpoint, "save", save)
    events: list[Event] = []
    again = methods.perform(run, Sources(ZOO), checkpoint=file, on_progress=events.append)
    assert events[0].restored and events[0].message.startswith("train: epoch 3 of ")
    assert not events[1].restored and events[1].message.startswith("train: epoch 4 of ")
    for name in ("correct_after", "output_error", "calibration_output_error", "steps", "image_passes"):
        assert again[name] == whole[name]
    assert again["labels_used"] is True and again["mean_levels"] == 3.0
    other = "scaled" if schedule == CAPPED else CAPPED
    for change in ({"seed": 3}, {"schedule": other}):
        with pytest.raises(ValueError, match="same run"):
            methods.perform(replace(run, **change), Sources(ZOO), checkpoint=file)


def test_the_schedule_is_part_of_what_a_run_is() -> None:
    prepared = prepare(Sources(ZOO), "mlp-digits")
    run = PlannedRun("mlp-digits", "ttq", 3, 40, 0)
    scaled = methods.settings_of(run, prepared)
    published = methods.settings_of(replace(run, schedule="published"), prepared)
    assert scaled["schedule"]["epochs"] != published["schedule"]["epochs"]
    assert (scaled["schedule"]["crop"], scaled["schedule"]["flip"]) == (1, False)
    assert methods.settings_of(replace(run, method="ttq-twn"), prepared)["settings"]["init"] == "twn"
    assert methods.settings_of(replace(run, method="vq"), prepared)["schedule"] is None
    assert methods.settings_of(replace(run, method="vq+retrain"), prepared)["schedule"] is not None


@pytest.mark.parametrize("name", [name for name in BASELINES if name != "ldnq-"])
def test_no_setting_of_a_method_is_left_to_a_default(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a default says is in a run's identity: another default is another run."""
    prepared, run = prepare(Sources(ZOO), "mlp-digits"), PlannedRun("mlp-digits", name, 3, 40, 0)
    one = BASELINES[name]
    how: Any = one.run
    numbers = {item.name: getattr(how.settings, item.name) for item in fields(how.settings)}
    others = [
        replace(how.settings, **{key: value / 2 if isinstance(value, float) else value + 1})
        for key, value in numbers.items()
        if isinstance(value, int | float)
    ]
    others += [InqSettings(portions=(0.5, 1.0))] if name == "inq" else []
    assert others or name.startswith(("dq", "vq"))
    assert methods.settings_of(run, prepared)["settings"].keys() == numbers.keys()
    before = run_id(run, methods.settings_of(run, prepared))
    for other in others:
        changed = replace(one, run=replace(how, settings=other))
        monkeypatch.setattr("refldnq.baselines.BASELINES", {**BASELINES, name: changed})
        assert run_id(run, methods.settings_of(run, prepared)) != before


@pytest.mark.parametrize("name", ["ldnq", "ldnq-", "best"])
def test_no_setting_of_a_solver_is_left_to_a_default(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared, run = prepare(Sources(ZOO), "mlp-digits"), PlannedRun("mlp-digits", name, 3, 40, 0)
    before = run_id(run, methods.settings_of(run, prepared))
    paper = AdmmSettings.profile("paper")
    monkeypatch.setattr(AdmmSettings, "profile", lambda _: replace(paper, iterations=99))
    best = profile_settings("best")
    monkeypatch.setattr(import_module(SOLVERS[best.solver]), "DEFAULT", replace(best.resolved, seed=9))
    assert run_id(run, methods.settings_of(run, prepared)) != before


def test_words_are_no_part_of_what_a_run_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a schedule or a definition comes from may be told otherwise; so may a loss that is the usual."""
    prepared, run = prepare(Sources(ZOO), "mlp-digits"), PlannedRun("mlp-digits", "ttq+retrain", 3, 40, 0)
    before, one = methods.settings_of(run, prepared), BASELINES["ttq"]
    how: Any = one.run
    told = replace(one, origin="[otherwise]", run=replace(how, scaled=replace(how.scaled, origin="else")))
    monkeypatch.setattr("refldnq.baselines.BASELINES", {**BASELINES, "ttq": told})
    assert methods.settings_of(run, prepared) == before
    assert "origin" not in json.dumps(before)


def test_a_younger_setting_of_a_layer_makes_no_other_network() -> None:
    """At its default it leaves the graph what it was, and at another value it does not."""

    @dataclass(frozen=True, kw_only=True)
    class Younger(ReLU):
        slope: float = field(default=0.0, metadata={"later": True})

    Younger.__name__ = "ReLU"
    model = load_model(models.shipped("mlp-digits"))
    before, network = source_module._network_hash(model), model.network
    for slope in (0.0, 0.1):
        nodes = tuple(
            replace(node, layer=Younger(slope=slope)) if isinstance(node.layer, ReLU) else node
            for node in network.nodes
        )
        assert nodes != network.nodes
        other = Network(nodes, network.params, network.input_shape)
        assert (source_module._network_hash(replace(model, network=other)) == before) == (slope == 0)
        assert (graph_words(other) == graph_words(network)) == (slope == 0)


def test_every_retraining_has_one_schedule() -> None:
    """Step 6 behind Algorithm 1 and the fine-tuning of DQ and VQ: as long, as fast, on the same images."""
    prepared = prepare(Sources(ZOO), "mlp-digits")
    run = PlannedRun("mlp-digits", "dq+retrain", 3, 40, 0)
    fine_tuning = methods.settings_of(run, prepared)["schedule"]
    assert methods.settings_of(replace(run, method="vq+retrain"), prepared)["schedule"] == fine_tuning
    for method in ("ldnq+retrain", "ldnq-+retrain", "best+retrain"):
        step = methods.settings_of(replace(run, method=method), prepared)["request"]["fine_tune"]
        for name in ("epochs", "batch_size", "learning_rate", "optimizer", "weight_decay", "crop", "flip"):
            assert step[name] == fine_tuning[name], (method, name)
        assert (step["schedule"], step["loss"]) == (fine_tuning["decay"], "cross_entropy")
    for method in ("ttq", "inq", "lata"):
        own = methods.settings_of(replace(run, method=f"{method}+retrain"), prepared)
        assert own["retraining"] == fine_tuning and own["schedule"] != fine_tuning
        assert "retraining" not in methods.settings_of(replace(run, method=method), prepared)


def test_a_retraining_behind_a_training_is_part_of_what_a_run_is(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared, run = prepare(Sources(ZOO), "mlp-digits"), PlannedRun("mlp-digits", "ttq+retrain", 3, 40, 0)
    before = run_id(run, methods.settings_of(run, prepared))
    monkeypatch.setattr("refldnq.baselines.runs.RETRAIN", replace(RETRAINING, epochs=3))
    assert run_id(run, methods.settings_of(run, prepared)) != before


def test_the_schedule_of_inq_is_what_it_follows() -> None:
    """A cycle for every phase, in what the run is known by, in its work and in its row."""
    prepared, run = prepare(Sources(ZOO), "mlp-digits"), PlannedRun("mlp-digits", "inq", 15, 40, 0)
    cycles = len(PORTIONS) - 1
    assert methods.settings_of(run, prepared)["schedule"]["cycles"] == cycles
    ternary = methods.settings_of(replace(run, levels=3), prepared)["schedule"]
    assert ternary["cycles"] == len(TERNARY_PORTIONS) - 1
    once = float(sum(multiplications(prepared.model.network))) * len(prepared.test)
    epochs = (methods.work_of(run, prepared) - once) / (once / len(prepared.test)) / 3 / run.images
    assert epochs == pytest.approx(ternary["epochs"] * cycles)


def test_the_work_of_a_run_counts_its_last_update(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared, run = prepare(Sources(ZOO), "mlp-digits"), PlannedRun("mlp-digits", "best", 3, 40, 0)
    whole, request = methods.work_of(run, prepared), methods._request(run, prepared)
    once = float(sum(multiplications(prepared.model.network)))
    for settings, epochs in (
        (replace(request.settings, final_epochs=0), 96),
        (replace(request.settings, code_epochs=0), 96 + 32),
        (replace(request.settings, code_epochs=32), 128 - (32 + 10)),
    ):
        other = replace(request, settings=settings)
        with monkeypatch.context() as patch:
            patch.setattr(methods, "_request", lambda run, prepared, other=other: other)
            work = methods.work_of(run, prepared)
        assert whole - work == pytest.approx(3 * epochs * run.images * once, rel=1e-12)


@pytest.mark.parametrize("method", ["vq+retrain", "exnn+retrain"])
def test_progress_does_not_run_backwards(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages weigh their epochs."""
    exnn = BASELINES["exnn"]
    how: Any = exnn.run
    short = replace(exnn, run=replace(how, scaled=replace(how.scaled, epochs=20)))
    monkeypatch.setattr("refldnq.baselines.BASELINES", {**BASELINES, "exnn": short})
    events: list[Event] = []
    methods.perform(PlannedRun("mlp-digits", method, 3, 20, 0), Sources(ZOO), on_progress=events.append)
    found = [event.fraction for event in events]
    assert found == sorted(set(found)) and found[0] > 0 and found[-1] == 1.0
    before = [event.fraction for event in events if not event.message.startswith("retrain")][-1]
    assert before == pytest.approx(20 / 60 if method.startswith("exnn") else 1 / 41)


def test_a_loss_that_is_not_the_usual_one_makes_another_run() -> None:
    prepared = prepare(Sources(ZOO), "mlp-digits")
    hinge = replace(
        prepared, model=replace(prepared.model, network=replace(prepared.model.network, loss="squared_hinge"))
    )
    for method in ("ttq", "ldnq+retrain"):
        run = PlannedRun("mlp-digits", method, 3, 40, 0)
        assert "loss" not in methods.settings_of(run, prepared)
        assert methods.settings_of(run, hinge)["loss"] == "squared_hinge"


def test_ldnq_minus_is_one_method_under_one_name() -> None:
    """The row of the tables and the baseline give the same bits; no second name is left."""
    assert "ldnq-" in BASELINES and list(known_methods()).count("ldnq-") == 1
    assert methods.why_not("ldnq-minus") is not None
    prepared = prepare(Sources(ZOO), "mlp-digits")
    request = QuantizeRequest(settings=LdnqSettings(update=None), images=60, seed=4)
    row = quantize_model(prepared.model, prepared.train, request)
    indices = calibration_indices(prepared.train, request)
    assert prepared.model.preprocess is not None
    images = prepared.model.preprocess(prepared.train.pixels(indices, None), np.dtype(np.float32))
    rng = np.random.default_rng(4).spawn(2)[1]
    found = BASELINES["ldnq-"].run(prepared.model.network, images, None, levels=3, rng=rng)
    for name, own in row.model.network.params.items():
        for key, array in own.items():
            assert array.tobytes() == found.network.params[name][key].tobytes(), (name, key)


# ------------------------------------------------------------------ what is missing


def test_what_is_missing_is_said_and_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refldnq.baselines.BASELINES", {})
    where = ("--store", tmp_path / "runs.sqlite")
    shown = accept("table2", *where).output  # nothing of it is asked for by name
    assert "resnet34: distilquant, ldnq: needs trained weights" in shown
    words = ("--networks", "mlp-digits", "--methods", "ldnq", "--levels", "4")
    small = invoke("table4", *words, *where)
    assert "mlp-digits: ldnq: `levels` must be an odd number from 3 to 15 for L-DNQ, got 4." in small.output
    assert small.exit_code == 1 and "No run was possible of mlp-digits, which" in small.output
    assert accept("table4", *words, *where, "--show-only").exit_code == 0
    assert "-16.43/-10.67" in shown  # the paper's numbers stand there all the same
    assert not (tmp_path / "runs.sqlite").exists()
    assert "needs trained weights" in accept("fig2b", *where).output
    assert "The paper prints no number" in accept("fig2c", *where).output
    many = invoke("table4", "--networks", "mlp-digits", "--images", "5000", *where).output
    assert "`images` must be at least 1 and at most the 1297 that are there, got 5000." in many
    even = invoke("table3", "--networks", "mlp-digits", "--levels", "4", *where).output
    assert "levels" in even and not (tmp_path / "runs.sqlite").exists()


def test_levels_that_a_method_lacks_are_skipped_with_the_reason() -> None:
    """Of Fig. 2c too, whose levels are other methods'; no run is begun that can only fail."""
    names = ("ttq", "lata", "ldnq", "inq", "dq-affine", "trn")
    cells = cells_of("fig2c", networks=["mlp-digits"], methods=names, images=[40])
    plan = plan_of(cells, [0], Sources(ZOO))
    done = {(task.run.method, task.run.levels) for task in plan.tasks}
    everywhere = {(name, levels) for name in ("ldnq", "inq", "dq-affine") for levels in (3, 5, 7, 9)}
    assert done == everywhere | {("ttq", 3), ("lata", 3), ("trn", 27)}
    assert {(cell.method, cell.levels): why for cell, why in plan.skipped.items()} == {
        (name, levels): f"`levels` must be 3 for {label}, got {levels}."
        for name, label in (("ttq", "TTQ"), ("lata", "LATa"))
        for levels in (5, 7, 9)
    }


@pytest.mark.parametrize("name", list(BASELINES))
def test_the_levels_of_the_registry_are_those_that_the_method_takes(name: str) -> None:
    """One more or less than the registry says is refused by the method itself, and none between."""
    prepared, levels = prepare(Sources(ZOO), "mlp-digits"), BASELINES[name].levels
    network, how = prepared.model.network, BASELINES[name].run
    images = np.zeros((2, *network.input_shape), np.float32)
    labels = np.zeros(2, np.int64)

    class EnoughError(Exception):
        pass

    def stop(state: object) -> None:
        raise EnoughError

    for number in {1, 2, 3, 4, 5, 9, 15, 16, 17, 27, levels[0], levels[-1], levels[-1] + 1}:
        wanted, words = (EnoughError, None) if number in levels else (ValueError, "`levels` must be")
        with pytest.raises(wanted, match=words):
            how(
                network, images, labels, levels=number, rng=np.random.default_rng(0), on_epoch=stop,
                layers=network.weighted[-1:],
            )  # fmt: skip


def test_errors_in_planning_are_not_taken_for_missing_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: object) -> float:
        raise ValueError("a fault of ours")

    monkeypatch.setattr(exhibit, "work_of", wrong)
    with pytest.raises(ValueError, match="a fault of ours"):
        plan_of([PlannedCell("mlp-digits", "ldnq", 3, 40)], [0], Sources(ZOO))


def test_broken_files_are_no_missing_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.h5").write_bytes(b"no model")
    words = (
        "table4",
        "--networks",
        "own,mlp-digits",
        "--methods",
        "ldnq",
        "--store",
        tmp_path / "runs.sqlite",
    )
    result = invoke(*words, "--weights", tmp_path, "--data", "digits")
    assert result.exit_code == 1 and "own.h5" in result.stderr and "HDF5" in result.stderr
    save_model(tmp_path / "own.h5", load_model(models.shipped("mlp-digits")))
    (tmp_path / "data.npz").write_bytes(b"no archive")
    with pytest.raises(FormatError, match=r"data.npz"):
        prepare(Sources(ZOO, str(tmp_path / "data.npz"), str(tmp_path)), "own")
    (tmp_path / "empty").mkdir()
    for place in ("empty", "absent"):
        with pytest.raises(MissingError, match=place):
            prepare(Sources(ZOO, str(tmp_path / place), str(tmp_path)), "own")

    def absent(*_: object) -> None:
        raise ImportError("needs a package")

    monkeypatch.setattr(source_module, "load_dataset", absent)
    with pytest.raises(ImportError, match="needs a package"):
        prepare(Sources(ZOO, "digits", str(tmp_path)), "own")


@pytest.mark.parametrize("method", ["ldnq-", "vq"])
def test_a_damaged_state_does_not_stay_in_the_way(method: str, tmp_path: Path) -> None:
    run = PlannedRun("mlp-digits", method, 3, 40, 0)
    task = jobs.Task(run=run, identity={}, sources=Sources(ZOO), beside=tmp_path / "runs.sqlite")
    assert task.checkpoint is not None
    task.checkpoint.write_bytes(b"half a state")
    first = jobs.work_on(task)
    assert first.reason is not None and first.reason.startswith("FormatError: ")
    assert not task.checkpoint.exists() and jobs.work_on(task).result is not None


def test_a_broken_picture_costs_no_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = jobs.Task(
        run=PlannedRun("mlp-digits", "vq", 3, 40, 0), identity={}, sources=Sources(ZOO), beside=tmp_path / "x"
    )
    assert task.checkpoint is not None
    task.checkpoint.write_bytes(b"a state")

    def broken(*_: object, **__: object) -> None:
        raise FormatError("`7.png` must be a picture")

    monkeypatch.setattr(jobs, "perform", broken)
    assert jobs.work_on(task).reason == "FormatError: `7.png` must be a picture"
    assert task.checkpoint.exists()


@pytest.mark.parametrize("method", ["trn+retrain", "ldnq-+retrain", "ttq+retrain"])
def test_where_nothing_is_left_to_retrain_it_is_refused(method: str, tmp_path: Path) -> None:
    """By every method alike, and not passed over in silence."""
    rng = np.random.default_rng(0)
    layers = (Flatten(), Linear(64, 12, bias=False), ReLU(), Linear(12, 10, bias=False))
    names = ("flatten", "fc1", "relu", "fc2")
    nodes = tuple(
        Node(*one) for one in zip(names, layers, [("input",), *((n,) for n in names)], strict=False)
    )
    params = {n: {"weight": rng.standard_normal(s)} for n, s in (("fc1", (12, 64)), ("fc2", (10, 12)))}
    model = load_model(models.shipped("mlp-digits"))
    save_model(tmp_path / "own.h5", replace(model, network=Network(nodes, params, (1, 8, 8)), quantized={}))
    run = PlannedRun("own", method, 3, 20, 0)
    with pytest.raises(ValueError, match="must leave an array to move"):
        methods.perform(run, Sources(ZOO, "digits", str(tmp_path)))
    vq = methods.perform(replace(run, method="vq+retrain"), Sources(ZOO, "digits", str(tmp_path)))
    assert vq["labels_used"] and vq["epochs"] == RETRAINING.total


def test_no_digits_are_mirrored() -> None:
    """MNIST's neither; only small ones get other crops."""
    prepared = prepare(Sources(ZOO), "mlp-digits")
    for data, flip, crop in (
        ("digits-train", False, 1),
        ("mnist-train", False, 4),
        ("cifar10-train", True, 4),
    ):
        other = replace(prepared, train=replace(prepared.train, name=data))
        for method in ("ttq", "vq+retrain", "ttq+retrain", "ldnq", "best", "ldnq+retrain"):
            own = methods.settings_of(PlannedRun("mlp-digits", method, 3, 40, 0), other)
            request = own.get("request", {})
            found = [own.get("schedule"), own.get("retraining"), request.get("fine_tune")]
            found += [request["settings"]["update"]] if request else []
            for one in filter(None, found):
                assert (one["flip"], one["crop"]) == (flip, crop), (data, method)


def test_networks_and_data_that_do_not_fit(tmp_path: Path) -> None:
    save_model(tmp_path / "own.h5", load_model(models.shipped("mlp-digits")))
    wide = np.zeros((4, 1, 9, 9), np.uint8)
    np.savez(tmp_path / "wide.npz", x_train=wide, y_train=[0, 1, 2, 3], x_test=wide, y_test=[0, 1, 2, 3])
    small = np.zeros((4, 1, 8, 8), np.uint8)
    np.savez(tmp_path / "more.npz", x_train=small, y_train=[0, 1, 2, 30], x_test=small, y_test=[0, 1, 2, 3])
    np.savez(tmp_path / "mute.npz", x_train=small, x_test=small)
    for data, words in (
        (None, "name their folder with --data"),
        ("wide.npz", "needs data of the shape"),
        ("more.npz", "needs data of at most 10 classes"),
        ("mute.npz", "needs labelled images"),
        ("none.npz", "none.npz"),
    ):
        place = None if data is None else str(tmp_path / data)
        with pytest.raises(MissingError, match=words):
            prepare(Sources(ZOO, place, str(tmp_path)), "own")
    with pytest.raises(MissingError, match=r"holds no resnet20.h5 or resnet20-12fca82f.th$"):
        prepare(Sources(ZOO, "digits", str(tmp_path)), "resnet20")
    for place in (None, str(tmp_path)):
        with pytest.raises(MissingError, match="there is no architecture of that name"):
            prepare(Sources(ZOO, "digits", place), "resnet21")


def test_the_published_checkpoints_are_found(data_dir: Path) -> None:
    pytest.importorskip("torch", reason="reading a PyTorch checkpoint needs PyTorch")
    if not (data_dir / "weights").is_dir():
        pytest.skip("needs the folder weights in the real data")
    sources = Sources(ZOO, str(data_dir), str(data_dir / "weights"))
    prepared = prepare(sources, "resnet20")
    assert prepared.usual_images == 500 and prepared.model.network.dtype == np.float32
    plan = plan_of(cells_of("fig2a", networks=["resnet20"], methods=["ldnq"]), [0], sources)
    total = len(prepared.train)
    assert [task.run.images for task in plan.tasks] == [
        round(share * total) for share in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
    ]
    assert plan.skipped == {} and plan.totals == {"resnet20": total}


# ------------------------------------------------------------------ what is shown


def test_files_say_what_the_terminal_says(fakes: dict[str, Fake], tmp_path: Path) -> None:
    words = ("table1", "--networks", "mlp-digits,resnet20", "--methods", "vq+retrain,ldnq-", "--images", "40")
    page = tmp_path / "page.md"
    mark = "reproduce table1 mlp-digits resnet20 methods=vq+retrain,ldnq- images=40"
    section = f"<!-- {mark}: generated -->\nstale\n<!-- {mark}: end -->"
    page.write_text(f"# Results\n\nBefore.\n\n{section}\n\nAfter.\n")
    where = ("--store", tmp_path / "runs.sqlite", "--seeds", "0-1")
    files = {name: tmp_path / f"out.{name}" for name in ("csv", "figure", "json")}
    result = invoke(*words, *where, "--csv", files["csv"], "--figure", files["figure"], "--markdown", page,
                    "--json", files["json"])  # fmt: skip
    assert result.exit_code == 1  # nothing of resnet20, which was named, is there
    record = json.loads(files["json"].read_text())
    rows = list(csv.DictReader(files["csv"].read_text().splitlines()))
    markdown = page.read_text()
    assert markdown.startswith("# Results\n\nBefore.\n") and markdown.endswith("After.\n")
    assert "stale" not in markdown
    lines = [line for line in markdown.splitlines() if line.startswith("| ")]
    assert len(rows) == len(record["entries"]) == len(lines) - 1 == 4
    for row, entry, line in zip(rows, record["entries"], lines[1:], strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert (row["network"], row["method"]) == (entry["network"], entry["method"]) == tuple(cells[:2])
        assert row["origin"] == entry["origin"] == cells[2]
        assert int(row["n"]) == entry["n"] == int(cells[5] or 0)
        if entry["n"]:
            mean = entry["change"]["mean"]
            assert float(row["change_mean"]) == mean and cells[9] == f"{mean:+.2f}"
            assert row["seeds"] == "0 1" and float(row["change_se"]) == entry["change"]["error"]
            assert f"{mean:+.2f}" in result.stdout
    vq = next(row for row in rows if (row["network"], row["method"]) == ("resnet20", "vq+retrain"))
    assert (vq["paper_change"], vq["paper_before"], vq["paper_bits"]) == ("-11.27", "91.5", "3.0")
    assert "-11.27" in result.stdout and "resnet20: vq+retrain, ldnq-: needs trained weights" in markdown
    assert files["figure"].read_bytes().startswith(b"\x89PNG")
    shown = accept(*words, *where, "--show-only", "--markdown", page)
    assert "needs trained weights" not in shown.stdout and f"{record['entries'][0]['n']}" in shown.stdout


def done(store: Store, run: PlannedRun, change: float, error: float = 0.1, **identity: Any) -> None:
    """Put a finished run of 1,000 test images into a store; parts of its result may be among the rest."""
    named = [name for name in identity if name.endswith("_top5") or name == "mean_levels"]
    parts = {name: identity.pop(name) for name in named}
    result: dict[str, Any] = {
        "correct_before": 900, "correct_after": round(900 + 10 * change), "total": 1000, "change": change,
        "correct_before_top5": None, "correct_after_top5": None, "output_error": error, "seconds": 1.0,
        "labels_used": False, "steps": 0, "epochs": 0, "image_passes": 0, "skipped": [], "mean_levels": 3.0,
        **parts,
    }  # fmt: skip
    with store.working() as owner:
        own = store.claim(run, identity, owner)
        assert own is not None and store.finish(own, owner, result)


def empty_plan(*cells: PlannedCell, **totals: int) -> Plan:
    return Plan(cells=cells, tasks=(), skipped={}, totals=totals)


def test_shares_means_and_curves(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs.sqlite")
    for images, changes in ((10, (-30.0, -20.0)), (100, (-5.0, -4.0, -3.0))):
        for seed, change in enumerate(changes):
            done(store, PlannedRun("resnet20", "ldnq", 3, images, seed), change, request={"seed": seed})
    cells = tuple(PlannedCell("resnet20", "ldnq", 3, share) for share in (0.001, 0.01, 0.2))
    found = entries_of("fig2a", empty_plan(*cells, resnet20=10000), store, planned_only=False)
    assert [(entry.cell.images, entry.n) for entry in found] == [(10, 2), (100, 3), (0.2, 0)]
    assert found[0].values["change"] == mean_of([-30.0, -20.0])
    headings, rows = tables.table_of("fig2a", found, {"resnet20": 10000})
    assert [dict(zip(headings, row, strict=True))["share"] for row in rows] == ["0.1 %", "1 %"]
    axes = figure_axes(lambda axes: figures._curves(axes, "fig2a", found, {"resnet20": 10000}))
    ((line, _, (bars,)),) = axes.containers
    np.testing.assert_allclose(line.get_xydata(), [[0.1, -25.0], [1.0, -4.0]])
    segments = [segment[:, 1] for segment in bars.get_segments()]
    half = 1 / math.sqrt(3)
    np.testing.assert_allclose(segments, [[-30.0, -20.0], [-4 - half, -4 + half]])
    assert axes.get_xlabel() == "calibration images, % of the 10,000 training images"

    def papers(totals: dict[str, int]) -> list[list[list[float]]]:
        axes = figure_axes(lambda axes: figures._curves(axes, "fig2a", found, totals))
        return [one.get_xydata().tolist() for one in axes.lines if one.get_marker() == "D"]

    # Its 500 images are so many of those that are there; a data set may have fewer.
    assert papers({"resnet20": 10000}) == [[[5.0, -4.3]]] and papers({"resnet20": 50000}) == [[[1.0, -4.3]]]
    assert papers({"resnet20": 100}) == [] and papers({}) == [[[500.0, -4.3]]]


def figure_axes(paint: Callable[[Any], None]) -> Any:
    pytest.importorskip("matplotlib", reason="figures need matplotlib")
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    paint(axes)
    return axes


def test_a_share_stands_for_two_images_at_least() -> None:
    """Batch normalization has no variance over one: every method would fail there."""
    sources = Sources(ZOO)
    plan = plan_of(cells_of("fig2a", networks=["mlp-digits"], methods=["ldnq"]), [0], sources)
    assert [task.run.images for task in plan.tasks] == [2, 3, 6, 13, 26, 65, 130, 259]
    assert plan_of([PlannedCell("mlp-digits", "ldnq", 3, 1)], [0], sources).tasks[0].run.images == 1


def test_without_a_plan_the_store_knows_the_shares(fakes: dict[str, Fake], tmp_path: Path) -> None:
    """The sections of the docs are made by --show-only, with no data at hand."""
    words = ("fig2a", "--networks", "mlp-digits", "--methods", "vq", "--seeds", "0-1")
    where = ("--store", tmp_path / "runs.sqlite")
    shown = accept(*words, "--images", "1%,0.1%", *where).stdout
    accept("table1", "--networks", "mlp-digits", "--methods", "vq", "--images", "40", *where)
    again = accept(*words, "--images", "1%,0.1%", *where, "--show-only").stdout
    assert again == shown and "0.15 %" in shown and " 40 " not in shown
    whole = accept(*words, *where, "--show-only").stdout
    assert whole.index(" 2  0.15 %") < whole.index("13     1 %")  # by their shares, not as they were run


def test_two_settings_of_one_cell_are_two_rows(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs.sqlite")
    for epochs in (8, 16):
        done(
            store,
            PlannedRun("resnet20", "ldnq", 3, 500, 0),
            -float(epochs),
            request={"epochs": epochs, "seed": 0},
        )
    done(store, PlannedRun("resnet20", "ldnq", 3, 500, 1), -9.0, request={"epochs": 8, "seed": 1})
    done(store, PlannedRun("resnet20", "ldnq", 3, 500, 0, schedule="published"), -1.0)
    found = entries("table1", [PlannedCell("resnet20", "ldnq", 3)], store.rows())
    assert [(entry.n, entry.values["change"].mean) for entry in found] == [(2, -8.5), (1, -16.0)]
    headings, rows = tables.table_of("table1", found)
    assert headings[-1] == "settings" and len({row[-1] for row in rows}) == 2
    lines = tables.lines_of("table1", found)
    for group, epochs in zip((row[-1] for row in rows), (8, 16), strict=True):
        assert f"settings {group}: request.epochs = {epochs}" in lines
    assert entries("table1", [PlannedCell("resnet20", "ldnq", 3)], store.rows(), seeds=[1])[0].n == 1


def test_figure_2c_has_a_point_a_run_and_the_correlation(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs.sqlite")
    points = [(0.01, 10.0), (0.02, -1.0), (0.08, -0.7), (0.3, -9.1)]  # the first has no image wrong
    for seed, (error, change) in enumerate(points):
        done(store, PlannedRun("mlp-digits", "ldnq-", 3, 60, seed), change, error, request={"seed": seed})
    plan = empty_plan(*cells_of("fig2c", networks=["mlp-digits"]))
    found = entries_of("fig2c", plan, store, planned_only=False)
    shown = sorted((point.x, point.y) for point in tables.points_of(found))
    np.testing.assert_allclose(shown, [(e, 10 - c) for e, c in points])
    assert tables.correlations(found)["mlp-digits"].value == pytest.approx(0.8)
    text = tables.markdown_of("fig2c", found)
    assert "Spearman rank correlation 0.800, 95 % bootstrap interval" in text and "4 runs" in text
    assert tables.json_of("fig2c", found)["correlations"]["mlp-digits"]["n"] == 4
    axes = figure_axes(lambda axes: figures._scatter(axes, found))
    assert sorted(map(tuple, axes.lines[0].get_xydata())) == shown
    ends = sorted(float(y) for bar in axes.collections[0].get_segments() for y in bar[:, 1])
    total = found[0].facts["total"]
    want = [end for _, y in shown for end in wilson(round(y / 100 * total), total)]
    np.testing.assert_allclose(ends, sorted(want), rtol=1e-12)
    headings, rows = tables.table_of("fig2c", found)
    row = dict(zip(headings, rows[0], strict=True))
    mean = sum(y for _, y in shown) / len(shown)
    low, high = wilson(mean / 100 * total, total)
    assert row["test error, %"] == f"{mean:.2f} ({low:.1f} to {high:.1f})" and row["labels"] == "no"


def test_bars_show_the_papers_number(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs.sqlite")
    for seed, change in enumerate((-4.0, -6.0)):
        done(store, PlannedRun("resnet20", "ldnq", 3, 500, seed), change, request={"seed": seed})
    found = entries_of("table4", empty_plan(*cells_of("table4")[:2]), store, planned_only=False)
    axes = figure_axes(lambda axes: figures._bars(axes, "table4", found))
    ((line, _, (bars,)),) = axes.containers
    np.testing.assert_allclose(line.get_xydata(), [[-5.0, 1]])
    np.testing.assert_allclose([segment[:, 0] for segment in bars.get_segments()], [[-6.0, -4.0]])
    diamonds = [one.get_xydata().tolist() for one in axes.lines if one.get_marker() == "D"]
    assert [[-13.66, 0.0]] in diamonds and [[-4.3, 1.0]] in diamonds
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["resnet20   ldnq-, 3", "   ldnq, 3"] and axes.get_ylim()[0] > axes.get_ylim()[1]


def test_a_single_run_has_no_error_bar(tmp_path: Path) -> None:
    """A cap of no height would say that the error is zero."""
    store = Store(tmp_path / "runs.sqlite")
    done(store, PlannedRun("resnet20", "ldnq", 3, 500, 0), -4.0, request={"seed": 0})
    found = entries_of("table4", empty_plan(*cells_of("table4")[:2]), store, planned_only=False)
    study = entries_of("fig2a", empty_plan(PlannedCell("resnet20", "ldnq", 3)), store, planned_only=False)
    for paint in (
        lambda axes: figures._bars(axes, "table4", found),
        lambda axes: figures._curves(axes, "fig2a", study, {"resnet20": 10000}),
    ):
        ((_, _, (bars,)),) = figure_axes(paint).containers
        assert not any(len(one) and np.isfinite(one).all() for one in bars.get_segments())


def test_whose_the_methods_are_stands_in_tables_files_and_figures(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs.sqlite")
    names = ("vq+retrain", "vq", "vq-exact+retrain", "dq-exact", "best", "ldnq", "late")  # all at 3 levels
    want = (
        "the paper's VQ", "variant of VQ", "ours", "ours", "ours", "the paper's L-DNQ", "variant of LAT",
    )  # fmt: skip
    cells = [PlannedCell("resnet20", name, 3) for name in names]
    for name in names:
        done(store, PlannedRun("resnet20", name, 3, 500, 0), -4.0)
    found = entries("table1", cells, store.rows())
    headings, rows = tables.table_of("table1", found)
    assert tuple(row[headings.index("origin")] for row in rows) == want
    csv_rows = csv.DictReader(tables.csv_of("table1", found).splitlines())
    assert tuple(row["origin"] for row in csv_rows) == want
    assert tuple(entry["origin"] for entry in tables.json_of("table1", found)["entries"]) == want
    axes = figure_axes(lambda axes: figures._bars(axes, "table1", found))
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert [("(ours)" in label) for label in labels] == [one == "ours" for one in want]
    colours = [line.get_color() for line, *_ in axes.containers]
    assert len({(colour, one.split()[0]) for colour, one in zip(colours, want, strict=True)}) == 3
    assert "the paper's method, with its name there" in tables.markdown_of("table1", found)


def test_the_levels_say_what_a_weight_can_take_and_inqs_what_the_paper_prints(tmp_path: Path) -> None:
    store, cells = Store(tmp_path / "runs.sqlite"), []
    for method, levels, mean in (
        ("trn", 27, 12.51),
        ("trn", 3, 3.0),
        ("inq", 17, 17.0),
        ("inq", 15, 15.0),
        ("ldnq", 3, 2.9999),
    ):
        done(store, PlannedRun("resnet20", method, levels, 500, 0), -4.0, mean_levels=mean)
        cells.append(PlannedCell("resnet20", method, levels))
    found = entries("table1", cells, store.rows())
    headings, rows = tables.table_of("table1", found)
    shown = [[row[headings.index(name)] for name in ("levels", "origin", "paper: change")] for row in rows]
    assert shown == [
        ["27 (mean 12.5)", "the paper's TRN", ""],
        ["3", "variant of TRN", ""],
        ["17", "the paper's INQ", "-48.48"],
        ["15", "the paper's INQ", "-48.48"],
        ["3", "the paper's L-DNQ", "-4.30"],
    ]
    note = "INQ: the paper prints 15 levels; a code of 5 bits has 17 values."
    assert note in tables.lines_of("table1", found)
    assert note not in tables.lines_of("table1", [one for one in found if one.cell.method != "inq"])
    for levels, has in ((27, True), (3, False)):
        assert (paper_row("table2", PlannedCell("alexnet-bn", "trn", levels)) is not None) == has


def test_every_method_has_an_origin() -> None:
    """What is known here and is not in the paper's tables is a variant, or ours, and says so."""
    printed = {row.method for row in paper().rows}
    own = {
        origin_of(own_method(row), TRN_LEVELS if row.method == "TRN" else int(row.bits))
        for row in paper().rows
    }
    assert own == {f"the paper's {name}" for name in printed if name != "L-DNQ⁻"} | {"the paper's L-DNQ⁻"}
    for name in known_methods():
        for method in (name, f"{name}+retrain"):
            words = origin_of(method, 3)
            assert words == "ours" or words.split(" ", 2)[-1].removeprefix("paper's ") in printed, words
    assert {name for name in known_methods() if origin_of(name, 3) == "ours"} == set(OURS)
    for name in OURS:  # no number of the paper stands beside what is not the paper's
        for method in (name, f"{name}+retrain"):
            assert paper_row("table1", PlannedCell("resnet20", method, 3)) is None


# ------------------------------------------------------------------ statistics


@given(
    st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=3, max_size=30).filter(
        lambda points: len({x for x, _ in points}) > 1 and len({y for _, y in points}) > 1
    )
)
def test_rank_correlation_is_scipys_and_ignores_monotone_changes(points: list[tuple[int, int]]) -> None:
    x, y = (list(map(float, column)) for column in zip(*points, strict=True))
    found = rank_correlation(x, y, np.random.default_rng(0), resamples=50)
    if not abs(found.value - spearmanr(x, y).statistic) <= 1e-12:
        raise AssertionError(found)
    other = rank_correlation(
        np.exp(x).tolist(), [one**3 for one in y], np.random.default_rng(0), resamples=50
    )
    assert other.value == pytest.approx(found.value, abs=1e-12)
    assert -1 <= found.low <= found.high <= 1


def test_the_interval_is_the_bootstraps() -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal(12)
    y = x + rng.standard_normal(12)
    found = rank_correlation(x.tolist(), y.tolist(), np.random.default_rng(5), resamples=200, confidence=0.9)
    places = np.random.default_rng(5).integers(12, size=(200, 12))
    values = [spearmanr(x[one], y[one]).statistic for one in places]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(values, [0.05, 0.95])), abs=1e-12)
    # Of many draws of a known correlation, about nine tenths of the intervals hold it.
    truth = 6 / math.pi * math.asin(0.5 / math.sqrt(2))  # of y = x + noise, both normal
    held = 0
    for _ in range(60):
        a = rng.standard_normal(40)
        b = a + rng.standard_normal(40)
        one = rank_correlation(a.tolist(), b.tolist(), rng, resamples=200, confidence=0.9)
        held += one.low <= truth <= one.high
    assert 45 <= held <= 60


def test_runs_of_one_setting_are_drawn_together() -> None:
    """Copies of points add nothing; drawn one by one they would make the interval narrower."""
    rng = np.random.default_rng(4)
    x = rng.standard_normal(8)
    y = x + rng.standard_normal(8)
    one = rank_correlation(x.tolist(), y.tolist(), np.random.default_rng(5), resamples=300)
    xs, ys = (np.repeat(values, 3).tolist() for values in (x, y))
    groups = np.repeat(np.arange(8), 3).tolist()
    together = rank_correlation(xs, ys, np.random.default_rng(5), groups=groups, resamples=300)
    assert (together.n, together.groups, one.groups) == (24, 8, 8)
    assert (together.value, together.low, together.high) == pytest.approx((one.value, one.low, one.high))
    alone = rank_correlation(xs, ys, np.random.default_rng(5), resamples=300)  # planted
    assert alone.high - alone.low < 0.8 * (one.high - one.low)
    single = rank_correlation(x.tolist(), y.tolist(), np.random.default_rng(5), groups=[0] * 8, resamples=300)
    assert single == one
    with pytest.raises(ValueError, match="`groups` must have shape"):
        rank_correlation([1, 2, 3], [1, 2, 3], np.random.default_rng(5), groups=[0, 1])


def test_rank_correlation_of_nothing() -> None:
    flat = rank_correlation([1, 2, 3], [4, 4, 4], np.random.default_rng(0), resamples=10)
    assert math.isnan(flat.value) and "no rank correlation" in tables.correlation_words(flat)
    with pytest.raises(ValueError, match="`n` must be an integer of at least 2"):
        rank_correlation([1], [1], np.random.default_rng(0))
    with pytest.raises(ValueError, match="`confidence`"):
        rank_correlation([1, 2], [1, 2], np.random.default_rng(0), confidence=1.0)


# ------------------------------------------------------------------ what a run is known by


def test_the_graph_is_part_of_a_networks_fingerprint(tmp_path: Path) -> None:
    """A stride leaves no trace in the arrays."""
    model = load_model(models.shipped("cnn-digits"))
    place = next(i for i, node in enumerate(model.network.nodes) if isinstance(node.layer, MaxPool2d))
    node = model.network.nodes[place]
    other = replace(node, layer=AvgPool2d(2))
    nodes = (*model.network.nodes[:place], other, *model.network.nodes[place + 1 :])
    found = set()
    for network in (model.network, Network(nodes, model.network.params, model.network.input_shape)):
        save_model(tmp_path / "own.h5", replace(model, network=network, quantized={}))
        prepare.cache_clear()
        found.add(prepare(Sources(ZOO, "digits", str(tmp_path)), "own").fingerprints["network"])
    assert len(found) == 2


def pictures(folder: Path, count: int) -> Path:
    image = pytest.importorskip("PIL.Image", reason="pictures are read by Pillow")
    for split in ("train", "val"):
        for index in range(count):
            path = folder / split / f"c{index % 2}" / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.fromarray(np.full((9, 9, 3), index, np.uint8)).save(path)
    return folder


def test_pictures_are_known_by_names_sizes_and_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million pictures cannot be decoded before the first run."""
    data = load_dataset(pictures(tmp_path, 4), "train")
    monkeypatch.setattr("refldnq.data.folder.read_picture", None)  # whoever decodes fails
    first = source_module._data_hash(data)
    assert source_module._data_hash(data) == first
    with (tmp_path / "train" / "c1" / "3.png").open("ab") as file:
        file.write(b"more")
    changed = source_module._data_hash(data)
    (tmp_path / "train" / "c1" / "3.png").rename(tmp_path / "train" / "c0" / "3.png")
    moved = source_module._data_hash(load_dataset(tmp_path, "train"))
    assert len({first, changed, moved}) == 3


def test_imagenets_images_are_the_papers(tmp_path: Path) -> None:
    names = tuple(map(str, range(1000)))
    for classes, count, want in ((names, 12900, 12800), (names, 12799, 127), (("a",), 12900, 129)):
        images = np.zeros((count, 1, 1, 1), np.uint8)
        data = Dataset(images, np.zeros(count, np.int64), classes, "pictures-train")
        assert source_module._usual_images(data) == want


def test_the_time_left_goes_by_the_work_of_each_run() -> None:
    cells = [
        PlannedCell("mlp-digits", name, 3, count) for name in ("dq", "ttq", "ldnq") for count in (13, 130)
    ]
    work = {(t.run.method, t.run.images): t.work for t in plan_of(cells, [0], Sources(ZOO)).tasks}
    assert work["dq", 13] == work["dq", 130] < work["ttq", 13]
    assert 5 * work["ttq", 13] < work["ttq", 130] and work["ldnq", 13] < work["ldnq", 130]
    retrained = plan_of([PlannedCell("mlp-digits", "dq+retrain", 3, 130)], [0], Sources(ZOO)).tasks[0]
    assert retrained.work > work["dq", 130]


def test_a_log_has_no_line_an_epoch(fakes: dict[str, Fake], tmp_path: Path) -> None:
    words = ("table1", "--networks", "mlp-digits", "--methods", "vq,inq", "--images", "40", "--seeds", "0-1")
    result = accept(*words, "--store", tmp_path / "runs.sqlite")
    lines = result.stderr.splitlines()
    assert sum(" points in " in line for line in lines) == 4
    assert sum("epoch 1 of 1" in line for line in lines) == 1  # of four within a moment
    more = accept(*words[:-1], "0-2", "--store", tmp_path / "runs.sqlite")
    assert "2 of 6 runs are left; the store has the others." in more.stderr


def test_every_series_of_a_figure_looks_different() -> None:
    looks = [(style(i)["color"], style(i)["marker"]) for i in range(2 * len(known_methods()))]
    assert len(set(looks)) == len(looks)


def test_sections_are_named_after_their_commands(fakes: dict[str, Fake], tmp_path: Path) -> None:
    """One command's section does not take the place of another's."""
    page = tmp_path / "page.md"
    words = ("table1", "--networks", "mlp-digits", "--images", "40", "--seeds", "0")
    where = ("--store", tmp_path / "runs.sqlite", "--markdown", page)
    for more in (("--methods", "vq"), ("--methods", "inq", "--levels", "15,17"), ("--methods", "vq")):
        accept(*words, *more, *where)
    accept(*words, "--methods", "vq", *where, "--keep-ends")
    accept(*words, "--methods", "all", *where, "--show-only")
    marks = [line for line in page.read_text().splitlines() if line.endswith(": generated -->")]
    assert marks == [
        "<!-- reproduce table1 mlp-digits methods=vq images=40: generated -->",
        "<!-- reproduce table1 mlp-digits methods=inq levels=15,17 images=40: generated -->",
        "<!-- reproduce table1 mlp-digits methods=vq images=40 keep-ends: generated -->",
        "<!-- reproduce table1 mlp-digits methods=all images=40: generated -->",
    ]


def test_top_5_stands_beside_top_1_where_the_paper_has_both(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs.sqlite")
    for seed, after in enumerate((600, 640)):
        run = PlannedRun("resnet18", "ldnq", 3, 12800, seed)
        done(store, run, (after - 700) / 10, correct_before_top5=900, correct_after_top5=after + 200)
    found = entries("table3", [PlannedCell("resnet18", "ldnq", 3)], store.rows())
    headings, (row,) = tables.table_of("table3", found)
    cells = dict(zip(headings, row, strict=True))
    assert (cells["change"], cells["±"]) == ("-8.00/-8.00", "2.00/2.00")
    assert (cells["before, %"], cells["after, %"]) == ("90.00/90.00", "82.00 (79.5 to 84.3)/82.00")
    assert cells["paper: before, %"] == "69.76/89.02"


def test_a_sign_that_the_paper_does_not_print_is_said() -> None:
    def said(network: str) -> list[str]:
        found = entries("table2", cells_of("table2", networks=[network]), [])
        return [line for line in tables.lines_of("table2", found) if "sign" in line]

    assert len(said("resnet34")) == 1 and "DistilQuant" in said("resnet34")[0]
    assert not said("resnet18")


def test_means() -> None:
    values = np.random.default_rng(0).standard_normal(7)
    found = mean_of(values.tolist())
    assert found.mean == pytest.approx(values.mean())
    assert found.sd == pytest.approx(values.std(ddof=1))
    assert found.error == pytest.approx(values.std(ddof=1) / math.sqrt(7))
    with pytest.raises(ValueError, match="at least one"):
        mean_of([])


def test_relative_difference_of_nothing() -> None:
    zero = np.zeros((2, 2))
    assert relative_difference(zero, zero) == 0.0 and relative_difference(zero + 1, zero) == math.inf


@pytest.mark.parametrize("off", ["images", "passes"])
def test_another_number_of_images_than_asked_for_is_no_row(
    off: str, fakes: dict[str, Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = PlannedRun("mlp-digits", "vq", 3, 40, 0)
    assert methods.perform(run, Sources(ZOO))["train_total"] == 1297
    if off == "images":
        monkeypatch.setattr(methods, "calibration_indices", lambda *_: np.arange(39))
    else:
        once = Fake.run

        def short(self: Fake, network: Network, images: Any, labels: Any, **how: Any) -> FakeResult:
            return once(self, network, images[:39], labels[:39], **how)

        monkeypatch.setattr(Fake, "run", short)
    with pytest.raises(ValueError, match="`images` must be the 40 that were asked for, got 39"):
        methods.perform(run, Sources(ZOO))


def test_labels_of_methods(fakes: dict[str, Fake]) -> None:
    assert list(known_methods()) == ["ldnq", "ldnq-", "best", "dq", "vq", "inq"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("table9",), "Invalid value"),
        (("table1", "--methods", "ldnq,prayer"), "`methods`: there is no method 'prayer'; known are ldnq, "),
        (("table1", "--seeds", "x"), "`seeds` must look like 0-4"),
        (("table1", "--images", "0"), "`images` must be positive"),
        (("table1", "--images", "120%"), "`images` must be positive, and a share at most 100 %"),
        (("table1", "--images", "many"), "`images` must look like"),
        (("table1", "--levels", "1"), "`levels`"),
        (("table1", "--csv", "/nowhere/x.csv"), "does not exist"),
        (("table1", "--jobs", "0"), "Invalid value"),
    ],
)
def test_refusals_are_one_line(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    result = invoke(*words, "--store", tmp_path / "runs.sqlite")
    assert result.exit_code in (1, 2)
    assert message in result.stderr.splitlines()[-1]
