"""One run from a model to a quantized model: sampling, evaluation, records, reports, hard inputs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refldnq._typing import Array
from refldnq.codebook import free, powers_of_two
from refldnq.data import Dataset, Preprocess
from refldnq.experiments.record import plain
from refldnq.experiments.report import COLUMNS, columns, layer_row, outcome_json
from refldnq.experiments.run import (
    Evaluation,
    Event,
    QuantizeOutcome,
    QuantizeRequest,
    direct_settings,
    evaluate_model,
    quantize_model,
    wilson,
)
from refldnq.experiments.summary import model_json, model_text
from refldnq.experiments.work import layer_work
from refldnq.formats.h5 import load_model, save_model
from refldnq.layer_report import LayerReport
from refldnq.layers import BatchNorm, Conv2d, Flatten, Linear, ReLU
from refldnq.ldnq import ldnq
from refldnq.ldnq_settings import LdnqSettings
from refldnq.model import Model
from refldnq.network import Network, Node
from refldnq.solvers.admm import AdmmSettings
from refldnq.tables import rich_table, text_table
from refldnq.train import TrainSettings
from refldnq.update import UpdateSettings

UPDATE = UpdateSettings(epochs=2, batch_size=8, copies=2, crop=1)
SETTINGS = LdnqSettings(update=UPDATE)
REQUEST = QuantizeRequest(settings=SETTINGS, images=24, dtype="float64")


def small_model(**changes: Array) -> Model:
    """A convolution and a linear layer, with arrays of conv1 and bn1 exchanged by name."""
    rng = np.random.default_rng(0)
    nodes = (
        Node("conv1", Conv2d(1, 4, 3, padding=1, bias=False), ("input",)),
        Node("bn1", BatchNorm(4), ("conv1",)),
        Node("relu1", ReLU(), ("bn1",)),
        Node("conv2", Conv2d(4, 6, 3, padding=1), ("relu1",)),
        Node("relu2", ReLU(), ("conv2",)),
        Node("flatten", Flatten(), ("relu2",)),
        Node("fc", Linear(96, 7), ("flatten",)),
    )
    params = {
        node.name: {key: rng.standard_normal(shape) for key, shape in node.layer.parameter_shapes().items()}
        for node in nodes
        if node.layer.parameter_shapes()
    }
    params["bn1"]["running_var"] = np.ones(4)
    for name, array in changes.items():
        layer, _, key = name.partition("_")
        params[layer][key] = array
    return Model(network=Network(nodes, params, (1, 4, 4)), preprocess=Preprocess(scale=1 / 255))


def small_data(n: int = 40, *, labels: bool = True, name: str = "noise") -> Dataset:
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (n, 1, 4, 4)).astype(np.uint8)
    return Dataset(images, rng.integers(0, 7, n) if labels else None, None, name)


@pytest.fixture(scope="module")
def outcome() -> QuantizeOutcome:
    request = replace(REQUEST, direct=True)
    return quantize_model(small_model(), small_data(), request, test=small_data(30, name="noise-test"))


# ------------------------------------------------------------------ evaluation


def constant_model(logits: list[float]) -> Model:
    size = len(logits)
    nodes = (Node("flatten", Flatten(), ("input",)), Node("fc", Linear(16, size), ("flatten",)))
    arrays = {"weight": np.zeros((size, 16)), "bias": np.array(logits)}
    return Model(network=Network(nodes, {"fc": arrays}, (1, 4, 4)), preprocess=Preprocess())


def test_accuracy_is_a_count_and_the_first_of_equals_wins() -> None:
    data = replace(small_data(6), labels=np.array([2, 2, 1, 0, 2, 1]))
    assert evaluate_model(constant_model([0.0, 3.0, 5.0]), data).correct == 3
    tied = evaluate_model(constant_model([5.0, 5.0, 5.0]), data)
    assert (tied.correct, tied.total, tied.correct_top5) == (1, 6, None)
    assert evaluate_model(constant_model([0.0, 3.0, 5.0]), data, 2).accuracy == 100.0


def test_top5_counts_the_five_largest() -> None:
    data = replace(small_data(8), labels=np.arange(8))
    score = evaluate_model(constant_model([8.0, 7, 6, 5, 4, 3, 2, 1]), data)
    assert (score.correct, score.correct_top5, score.top5) == (1, 5, 62.5)


def test_accuracies_have_wilsons_intervals_and_add_up() -> None:
    # Wilson's interval solves (p - share)^2 = z^2 p (1 - p) / n: both ends, by substitution.
    z = 1.959963984540054
    for count, total in ((366, 600), (1, 7), (9152, 9977)):
        share = count / total
        for end in wilson(count, total):
            p = end / 100
            assert abs((p - share) ** 2 - z * z * p * (1 - p) / total) <= 1e-14
    assert wilson(0, 5)[0] == 0.0 and wilson(5, 5)[1] == 100.0
    one, two = Evaluation(correct=1, total=2, correct_top5=2), Evaluation(correct=3, total=5, correct_top5=4)
    assert one + two == Evaluation(correct=4, total=7, correct_top5=6)
    assert (one + replace(two, correct_top5=None)).correct_top5 is None
    assert one.interval == wilson(1, 2) and one.interval_top5 == wilson(2, 2)
    assert replace(one, correct_top5=None).interval_top5 is None


def test_the_batch_size_changes_no_count() -> None:
    scores = {evaluate_model(small_model(), small_data(), batch_size=size) for size in (1, 7, 40)}
    assert len(scores) == 1


@pytest.mark.parametrize(
    ("model", "data", "words"),
    [
        (
            replace(small_model(), preprocess=None),
            small_data(),
            "`model` must have a preprocessing, got none",
        ),
        (small_model(), small_data(labels=False), "`dataset` must have labels .* 'noise'"),
        (constant_model([1.0, 2.0]), small_data(), r"`labels` must name the model's classes, 0\.\.1, got"),
        (
            small_model(),
            replace(small_data(), images=np.zeros((40, 3, 4, 4), np.uint8)),
            "`x` must have shape",
        ),
        (small_model(), small_data(0), "`dataset` must hold at least one image"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(model: Model, data: Dataset, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        evaluate_model(model, data)


# ------------------------------------------------------------------ a run


def test_the_result_is_a_quantized_model(outcome: QuantizeOutcome, tmp_path: Path) -> None:
    model = outcome.model
    assert list(model.quantized) == ["conv1", "conv2", "fc"]
    for name in model.quantized:
        assert len(np.unique(model.network.params[name]["weight"])) <= 3
    save_model(tmp_path / "out.h5", model)
    again = load_model(tmp_path / "out.h5")
    assert evaluate_model(again, small_data(30)) == outcome.after
    assert again.provenance == model.provenance


def test_the_indices_are_stored_and_are_those_used(outcome: QuantizeOutcome) -> None:
    assert len(set(outcome.indices)) == 24
    assert outcome.model.provenance["data"] == {"name": "noise", "size": 40, "indices": list(outcome.indices)}
    # The same images by themselves, all of them drawn, give the same network: no other image was looked at.
    alone = small_data().take(np.array(outcome.indices))
    again = quantize_model(small_model(), alone, replace(REQUEST, images=24))
    for name, own in outcome.model.network.params.items():
        for key, array in own.items():
            assert np.array_equal(array, again.model.network.params[name][key])


def test_test_images_and_labels_guide_nothing(outcome: QuantizeOutcome) -> None:
    blank = quantize_model(small_model(), small_data(labels=False), REQUEST)
    assert (blank.before, blank.after, blank.drop) == (None, None, None)
    for name, own in outcome.model.network.params.items():
        for key, array in own.items():
            assert np.array_equal(array, blank.model.network.params[name][key])


def test_the_seed_decides() -> None:
    request = replace(REQUEST, settings=replace(SETTINGS, update=None))
    one, two, three = (
        quantize_model(small_model(), small_data(), replace(request, seed=seed)) for seed in (0, 0, 1)
    )
    assert one.indices == two.indices != three.indices
    assert one.model.provenance == two.model.provenance != three.model.provenance


def test_a_stratified_draw_has_equal_shares() -> None:
    data = replace(small_data(70), labels=np.repeat(np.arange(7), 10))
    request = replace(REQUEST, images=21, stratified=True, settings=replace(SETTINGS, update=None))
    chosen = np.array(quantize_model(small_model(), data, request).indices)
    assert np.bincount(chosen // 10).tolist() == [3] * 7


def test_the_type_of_arithmetic() -> None:
    request = replace(REQUEST, dtype="float32", settings=replace(SETTINGS, update=None))
    assert quantize_model(small_model(), small_data(), request).model.network.dtype == np.float32


def test_direct_quantization_is_the_rounding_of_the_original(outcome: QuantizeOutcome) -> None:
    weight = small_model().network.params["fc"]["weight"]
    alpha = np.abs(weight).mean()
    rounded = np.sign(weight) * (np.abs(weight) > alpha / 2)
    report = outcome.direct_reports[-1]
    assert report.name == "fc"
    assert abs(float(np.max(np.asarray(report.alpha))) - alpha) <= 1e-12 * alpha
    assert report.zero_fraction == np.mean(rounded == 0)
    assert outcome.direct is not None


def test_direct_settings_follow_the_number_of_scales_and_free_sets() -> None:
    channel = LdnqSettings(solver_settings=AdmmSettings(per_channel=True))
    assert direct_settings(channel).solver_settings.per_channel
    assert direct_settings(LdnqSettings(codebook=free(3))).solver_settings.variant == "alternating"
    assert not direct_settings(LdnqSettings(correct_bias=True)).correct_bias


def test_a_run_is_resumed_from_its_checkpoint(
    outcome: QuantizeOutcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c"

    def stop(event: Event) -> None:
        if event.report is not None and event.report.name == "conv2":
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        quantize_model(small_model(), small_data(), REQUEST, on_progress=stop, checkpoint=path)
    events: list[Event] = []
    how: dict[str, Any] = {"checkpoint": path, "resume": True, "on_progress": events.append}
    again = quantize_model(small_model(), small_data(), REQUEST, **how)
    assert again.resumed_layers == 2
    assert [event.report is not None for event in events] == [False, False, True]
    assert [replace(report, seconds=0.0) for report in again.reports[:2]] == [
        replace(report, seconds=0.0) for report in outcome.reports[:2]
    ]
    for name, own in outcome.model.network.params.items():
        for key, array in own.items():
            assert array.tobytes() == again.model.network.params[name][key].tobytes()
    with pytest.raises(ValueError, match=r"differs in .*seed"):
        quantize_model(small_model(), small_data(), replace(REQUEST, seed=1), checkpoint=path, resume=True)
    settled = AdmmSettings.profile("paper")
    monkeypatch.setattr(AdmmSettings, "profile", lambda _: replace(settled, iterations=99))
    with pytest.raises(ValueError, match=r"differs in settings.solver_settings.iterations \(\d+, not 99\)"):
        quantize_model(small_model(), small_data(), REQUEST, checkpoint=path, resume=True)
    anew = quantize_model(small_model(), small_data(), REQUEST, checkpoint=path)
    assert anew.resumed_layers == 0
    assert anew.model.provenance["request"]["settings"]["solver_settings"]["iterations"] == 99


def test_progress_rises_to_one() -> None:
    events: list[Event] = []
    request = replace(REQUEST, direct=True)
    quantize_model(small_model(), small_data(), request, test=small_data(30), on_progress=events.append)
    fractions = [event.fraction for event in events]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert [event.report.name for event in events if event.report] == ["conv1", "conv2", "fc"]


def test_work_falls_where_less_is_left_to_update() -> None:
    network = small_model().network
    with_update, without = (layer_work(network, replace(SETTINGS, update=how), 24) for how in (UPDATE, None))
    assert with_update["conv1"] > without["conv1"]
    # Behind the last layer nothing moves.
    assert with_update["fc"] == without["fc"]


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": 0}, "`images` must be an integer of at least 1, got 0"),
        ({"seed": -1}, "`seed` must be an integer of at least 0, got -1"),
        ({"dtype": "float16"}, "`dtype` must be one of 'float32', 'float64', got 'float16'"),
    ],
)
def test_a_request_out_of_range_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        QuantizeRequest(**changes)


def test_more_images_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="`images` must be at most the 40 of 'noise', got 41"):
        quantize_model(small_model(), small_data(), replace(REQUEST, images=41))


def test_a_model_without_preprocessing_is_refused() -> None:
    with pytest.raises(ValueError, match="`model` must have a preprocessing"):
        quantize_model(replace(small_model(), preprocess=None), small_data(), REQUEST)


# ------------------------------------------------------------------ hard but legal inputs


def finite(outcome: QuantizeOutcome) -> bool:
    return all(
        math.isfinite(value)
        for report in outcome.reports
        for key, value in plain(report).items()
        if key in ("error", "relative_error", "accumulated_error", "output_error", "zero_fraction")
    )


def test_an_all_zero_layer_stays_zero() -> None:
    result = quantize_model(small_model(conv1_weight=np.zeros((4, 1, 3, 3))), small_data(), REQUEST)
    first = result.reports[0]
    assert (first.zero_fraction, first.error, first.relative_error) == (1.0, 0.0, 0.0)
    assert not result.model.network.params["conv1"]["weight"].any()
    assert finite(result)


def test_a_dead_input_channel_is_reported() -> None:
    # A channel that batch normalization shuts off: ReLU gives zeros, and so do 9 rows of the next Hessian.
    shift, scale = np.full(4, 5.0), np.ones(4)
    shift[1], scale[1] = -1.0, 0.0
    request = replace(REQUEST, settings=replace(SETTINGS, update=None))
    result = quantize_model(small_model(bn1_weight=scale, bn1_bias=shift), small_data(), request)
    report = result.reports[1]
    assert (report.dead_inputs, report.size) == (9, 36)
    assert report.rank <= 27
    assert finite(result)


def test_fewer_images_than_inputs_is_reported() -> None:
    request = replace(REQUEST, images=5, settings=replace(SETTINGS, update=None))
    report = quantize_model(small_model(), small_data(), request).reports[-1]
    assert (report.rank, report.size) == (5, 96)
    assert math.isfinite(report.error)


# ------------------------------------------------------------------ records


def test_the_json_has_the_promised_keys(outcome: QuantizeOutcome) -> None:
    record = json.loads(json.dumps(outcome_json(outcome), allow_nan=False))
    assert outcome.before and outcome.after
    assert record["accuracy_before"] == 100 * outcome.before.correct / 30
    assert record["accuracy_after"] == 100 * outcome.after.correct / 30
    assert record["drop"] == record["accuracy_before"] - record["accuracy_after"]
    assert record["seconds"] > 0 and record["peak_rss_mb"] > 10
    keys = "name levels alpha zero_fraction error accumulated_error output_error iterations seconds".split()
    for layer in record["layers"]:
        assert set(keys) <= set(layer)
        assert layer["levels"] == 3 and 0 <= layer["zero_fraction"] <= 1
    assert record["layers"][-1]["update_loss"] is None  # NaN: nothing is left to update
    assert record["update_images"] == 2 * 24 * UPDATE.epochs
    assert record["direct"]["layers"][0]["name"] == "conv1"
    assert record["provenance"]["request"]["settings"]["solver"] == "admm"


def test_without_a_test_split_accuracies_are_null() -> None:
    request = replace(REQUEST, settings=replace(SETTINGS, update=None))
    record = outcome_json(quantize_model(small_model(), small_data(), request))
    assert [record[key] for key in ("accuracy_before", "accuracy_after", "drop", "direct")] == [None] * 4


def test_provenance_has_no_time(outcome: QuantizeOutcome) -> None:
    assert "seconds" not in json.dumps(outcome.model.provenance)


def as_text(reports: Sequence[LayerReport]) -> str:
    headings = columns(reports)
    return text_table(headings, [layer_row(report, headings) for report in reports])


def test_the_table_has_a_row_a_layer(outcome: QuantizeOutcome) -> None:
    lines = as_text(outcome.reports).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[0].split() == list(COLUMNS)
    assert [line.split()[0] for line in lines[1:]] == ["conv1", "conv2", "fc"]
    table = rich_table(COLUMNS, [layer_row(report) for report in outcome.reports])
    assert (table.row_count, len(table.columns)) == (3, len(COLUMNS))


def test_many_scales_are_a_range(outcome: QuantizeOutcome) -> None:
    many = replace(outcome.reports[0], alpha=(0.25, 0.5))
    assert "0.25..0.5" in as_text([many])


def test_a_summary_counts_bytes(outcome: QuantizeOutcome) -> None:
    facts = model_json(outcome.model)
    weights, rest = 4 * 9 + 6 * 36 + 7 * 96, 4 * 4 + 6 + 7
    assert facts["numbers"] == weights + rest
    assert facts["bytes"]["arrays"] == 8 * (weights + rest)
    packed = 2 * weights / 8 + 3 * 4 * (1 + 3) + 8 * rest  # 2 bits a weight, a scale and three values a layer
    assert facts["bytes"]["packed"] == math.ceil(packed)
    text = model_text(outcome.model)
    assert [line.split()[0] for line in text.splitlines()[-5:]] == ["layer", "conv1", "bn1", "conv2", "fc"]
    assert "refuse this model" in model_text(replace(small_model(), preprocess=None))


def test_plain_refuses_what_json_lacks() -> None:
    assert plain({"a": (1, np.float64(2.5), np.array([True]))}) == {"a": [1, 2.5, [True]]}
    assert plain(Evaluation(correct=1, total=2, correct_top5=None)) == {
        "correct": 1,
        "total": 2,
        "correct_top5": None,
    }
    assert plain(powers_of_two(3))["levels"] == 3
    with pytest.raises(
        TypeError, match="`value` must be made of JSON values, arrays and dataclasses, got set"
    ):
        plain({1, 2})


# ------------------------------------------------------------------ step 6


@pytest.mark.parametrize("total", [1, 10, 13, 500, 1000, 50000])
def test_the_interval_holds_its_share_at_the_ends_of_the_range(total: int) -> None:
    assert wilson(0, total)[0] == 0.0 and wilson(total, total)[1] == 100.0


def test_step_6_uses_labels_and_leaves_the_codes_alone(outcome: QuantizeOutcome) -> None:
    tuning = TrainSettings(epochs=3, batch_size=8, learning_rate=0.01, crop=0)
    tuned = quantize_model(small_model(), small_data(), replace(REQUEST, fine_tune=tuning))
    for name, code in outcome.model.quantized.items():
        weight = tuned.model.network.params[name]["weight"]
        np.testing.assert_array_equal(tuned.model.quantized[name].codes, code.codes)
        np.testing.assert_array_equal(weight, outcome.model.network.params[name]["weight"])
    moved = tuned.model.network.params["bn1"]["weight"] - outcome.model.network.params["bn1"]["weight"]
    assert np.abs(moved).max() > 1e-3
    assert tuned.model.provenance["labels_used"] and not outcome.model.provenance["labels_used"]
    events: list[Event] = []
    with pytest.raises(ValueError, match="`dataset` must have labels for step 6"):
        quantize_model(
            small_model(),
            small_data(labels=False),
            replace(REQUEST, fine_tune=tuning),
            on_progress=events.append,
        )
    assert not events  # before the work


def test_the_source_of_the_model_is_kept() -> None:
    model = replace(small_model(), provenance={"weights": "noise"})
    assert quantize_model(model, small_data(), REQUEST).model.provenance["source"] == {"weights": "noise"}


def test_a_remainder_of_one_image_is_no_batch() -> None:
    # 9 images in batches of 8 would leave one, whose variance batch normalization cannot take.
    quantize_model(small_model(), small_data(), replace(REQUEST, images=9))


# ------------------------------------------------------------------ certificates and held-out images


@pytest.fixture(scope="module")
def certified() -> QuantizeOutcome:
    request = replace(REQUEST, certificates=True, held_out=10, direct=True)
    return quantize_model(small_model(), small_data(), request)


def test_certificates_and_held_out_images_change_no_result(
    outcome: QuantizeOutcome, certified: QuantizeOutcome
) -> None:
    assert certified.indices == outcome.indices
    for name, own in outcome.model.network.params.items():
        for key, array in own.items():
            assert array.tobytes() == certified.model.network.params[name][key].tobytes()
    for report in outcome.reports:
        assert (report.lower_bound, report.gap, report.held_out_error) == (None, None, None)


def test_every_layer_says_how_near_the_optimum_it_is(certified: QuantizeOutcome) -> None:
    gaps = []
    for report in certified.reports:
        assert report.lower_bound is not None and 0 <= report.lower_bound <= report.objective
        assert (report.gap is None) == (report.lower_bound == 0)
        if report.gap is not None:
            assert report.objective == pytest.approx((1 + report.gap) * report.lower_bound)
            gaps.append(report.gap)
    assert len(gaps) >= 2
    assert certified.reports[-1].gap is None  # 24 images, 96 inputs: H is singular
    lines = as_text(certified.reports).splitlines()
    assert "held out" in lines[0] and "within" in lines[0]
    assert "no certificate" in lines[3] and f"{100 * gaps[0]:.3g} %" in lines[1]
    assert "optimal" in as_text([replace(certified.reports[0], guarantee="optimal")])
    record = json.loads(json.dumps(outcome_json(certified), allow_nan=False))
    assert record["layers"][0]["lower_bound"] == certified.reports[0].lower_bound
    assert record["layers"][-1]["gap"] is None


def test_the_held_out_error_is_that_of_other_images(certified: QuantizeOutcome) -> None:
    own = certified.model.provenance["data"]
    assert len(own["held_out"]) == 10 and not set(own["held_out"]) & set(own["indices"])
    # The first layer's input is the image: its error by definition.
    model, data = small_model(), small_data()
    assert model.preprocess is not None
    x = model.preprocess(data.images[np.array(own["held_out"])], np.float64)
    layer = model.network["conv1"].layer
    assert isinstance(layer, Conv2d)
    old, new = model.network.params["conv1"], certified.model.network.params["conv1"]
    difference = layer.forward(old, x)[0] - layer.forward(new, x)[0]
    report = certified.reports[0]
    assert report.held_out_error is not None
    assert report.held_out_error == pytest.approx(float((difference**2).sum()) / 10, rel=1e-9)
    whole = float((layer.forward(old, x)[0] ** 2).sum()) / 10
    assert report.relative_held_out_error == pytest.approx(report.held_out_error / whole, rel=1e-9)
    # With 24 images the last layer's 96 inputs are fitted too well.
    last = certified.reports[-1]
    assert last.held_out_error is not None and last.held_out_error > last.error
    assert certified.direct_reports[0].held_out_error is not None


@pytest.mark.parametrize("profile", ["paper", "released-2019"])
def test_held_out_inputs_come_through_the_quantized_prefix(profile: Any) -> None:
    """Held-out images that are the calibration images have the calibration error, layer by layer."""
    settings = replace(SETTINGS, profile=profile)
    model, data = small_model(), small_data()
    assert model.preprocess is not None
    images = model.preprocess(data.images[:24], np.float64)
    rng = np.random.default_rng(0)
    for report in ldnq(model.network, images, settings, rng, held_out=images).reports:
        assert report.held_out_error == pytest.approx(report.error, rel=1e-9)
        assert report.relative_held_out_error == pytest.approx(report.relative_error, rel=1e-9)


def test_where_no_image_is_left_over_nothing_is_reported() -> None:
    request = replace(REQUEST, images=40, held_out=5, settings=replace(SETTINGS, update=None))
    result = quantize_model(small_model(), small_data(), request)
    assert all(report.held_out_error is None for report in result.reports)
    assert "held_out" not in result.model.provenance["data"]
    fewer = quantize_model(small_model(), small_data(), replace(request, images=38))
    assert len(fewer.model.provenance["data"]["held_out"]) == 2


def test_a_run_with_certificates_is_resumed(certified: QuantizeOutcome, tmp_path: Path) -> None:
    path, request = tmp_path / "c", replace(REQUEST, certificates=True, held_out=10)

    def stop(event: Event) -> None:
        if event.report is not None and event.report.name == "conv2":
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        quantize_model(small_model(), small_data(), request, on_progress=stop, checkpoint=path)
    for other, words in ((replace(request, certificates=False), "certificates"), (REQUEST, "held_out")):
        with pytest.raises(ValueError, match=f"differs in .*{words}"):
            quantize_model(small_model(), small_data(), other, checkpoint=path, resume=True)
    again = quantize_model(small_model(), small_data(), request, checkpoint=path, resume=True)
    assert again.resumed_layers == 2
    assert plain([replace(report, seconds=0.0) for report in again.reports]) == plain(
        [replace(report, seconds=0.0) for report in certified.reports]
    )


def test_held_out_images_are_checked() -> None:
    with pytest.raises(ValueError, match="`held_out` must be an integer of at least 0, got -1"):
        QuantizeRequest(held_out=-1)
    network, images, rng = small_model().network, np.zeros((3, 1, 4, 4)), np.random.default_rng(0)
    for wrong, words in (
        (np.zeros((2, 1, 5, 4)), "`held_out` must have shape"),
        (np.zeros((0, 1, 4, 4)), "`held_out` must hold at least one image, got none"),
        (np.full((1, 1, 4, 4), np.nan), "`held_out` must be finite"),
    ):
        with pytest.raises(ValueError, match=words):
            ldnq(network, images, SETTINGS, rng, held_out=wrong)
