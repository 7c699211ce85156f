"""The baselines' loop and the methods' hooks: what moves, by how much, when, and on which loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from baseline_cases import IMAGES, LABELS, LAYERS, NETWORK, SHORT, TRAINED, bits, plain_network, run
from hypothesis import given
from hypothesis import strategies as st

from refldnq._typing import Array, NetworkParams
from refldnq.baselines import (
    BASELINES,
    LoopState,
    Schedule,
    distilquant,
    dq,
    exnn,
    inq,
    lat,
    ldnq_minus,
    trn,
    ttq,
    vq,
)
from refldnq.baselines.codes import encode, mean_over_weights, packed
from refldnq.baselines.loop import Method, TrainingPoint, begin, fit
from refldnq.baselines.retrain import RETRAIN, Retrain, step_6
from refldnq.baselines.runs import Trained
from refldnq.codebook import powers_of_two
from refldnq.layers import Linear
from refldnq.ldnq import ldnq
from refldnq.ldnq_settings import LdnqSettings
from refldnq.loss import LOSSES, LossName, cross_entropy, squared_hinge
from refldnq.network import Network, Node

PLAIN = plain_network()

ONE = Schedule(
    epochs=1,
    batch_size=24,
    learning_rate=0.1,
    momentum=0.0,
    crop=0,
    flip=False,
    origin="one step on all images",
)


def method_of(name: str, network: Network = PLAIN, settings: Any = None) -> Method:
    how = BASELINES[name].run
    assert isinstance(how, Trained)
    return how.make(network, LAYERS, 3, settings or how.settings)


def trained(method: Method, schedule: Schedule, images: Array = IMAGES, labels: Any = LABELS) -> LoopState:
    rng = np.random.default_rng(0)
    return fit(method, images, labels, schedule, rng, begin(method, schedule, rng))


# ---------------------------------------------------------------------- the loss is the network's own


def slope_is_the_losss(method: Method, labels: Any = LABELS) -> None:
    rng = np.random.default_rng(5)
    y, step, h = 2.0 * rng.standard_normal((24, 3)), rng.standard_normal((24, 3)), 1e-5
    value, dy = method.loss(y, IMAGES, labels)
    sides = [method.loss(y + s * h * step, IMAGES, labels)[0] for s in (1, -1)]
    # Third derivatives are of the size of the loss; rounding is 1e-16/h.
    if not (abs((sides[0] - sides[1]) / (2 * h) - float(np.sum(dy * step))) <= 1e-8 * max(1.0, value)):
        raise AssertionError("the gradient is not the loss's")


@pytest.mark.parametrize("name", TRAINED)
def test_methods_minimize_the_networks_own_loss(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    y = np.random.default_rng(6).standard_normal((24, 3))
    both: tuple[tuple[LossName, Any], ...] = (
        ("cross_entropy", cross_entropy),
        ("squared_hinge", squared_hinge),
    )
    for loss, own in both:
        method = method_of(name, replace(PLAIN, loss=loss))
        slope_is_the_losss(method)
        value, dy = method.loss(y, IMAGES, LABELS)
        if name == "distilquant":  # 0.7 of it is the teacher's
            other = method_of(name, PLAIN).loss(y, IMAGES, LABELS)
            value, dy = value - other[0], dy - other[1]
            wanted, slope = own(y, LABELS)[0] - cross_entropy(y, LABELS)[0], own(y, LABELS)[1]
            assert value == pytest.approx(0.3 * wanted, rel=1e-12, abs=1e-14)
            assert np.allclose(dy, 0.3 * (slope - cross_entropy(y, LABELS)[1]), rtol=1e-12, atol=1e-15)
        else:
            assert value == own(y, LABELS)[0] and np.array_equal(dy, own(y, LABELS)[1])
    # Planted: a wrong slope.
    hinge = LOSSES["squared_hinge"]
    planted = {**LOSSES, "squared_hinge": lambda y, labels: (hinge(y, labels)[0], 0.5 * hinge(y, labels)[1])}
    for module in ("loop", "distilquant"):
        monkeypatch.setattr(f"refldnq.baselines.{module}.LOSSES", planted)
    with pytest.raises(AssertionError, match="not the loss's"):
        slope_is_the_losss(method_of(name, replace(PLAIN, loss="squared_hinge")))


@pytest.mark.parametrize("statistics", ["batch", "running"])
@pytest.mark.parametrize("name", TRAINED)
def test_the_recorded_loss_is_that_where_gradients_are_taken(name: str, statistics: Any) -> None:
    """Before the first step, at the arrays that `place` gives, in the mode of the schedule."""
    method = method_of(name, replace(PLAIN, loss="squared_hinge"))
    state = trained(method, replace(ONE, statistics=statistics))
    start = begin(method, ONE, np.random.default_rng(0)).point
    start = method.begin_epoch(0, start, ONE)
    placed = PLAIN.replace(method.place(start.latent, start.memory))
    output = placed.forward(IMAGES, mode="train" if statistics == "batch" else "eval")
    value, _ = method.loss(output, IMAGES, LABELS)
    (record,) = state.history
    assert record.loss == pytest.approx(value, rel=1e-12)
    assert record.accuracy == float(np.mean(output.argmax(axis=1) == LABELS))
    assert (record.stage, record.index) == ("train", 0)
    for bn in ("bn1", "bn2"):
        for key in ("running_mean", "running_var"):
            same = state.params[bn][key].tobytes() == PLAIN.params[bn][key].tobytes()
            assert same == (statistics == "running")
    if statistics == "running":
        return
    x = placed.advance({"input": IMAGES}, 0, 1)["conv1"]
    mean = 0.9 * PLAIN.params["bn1"]["running_mean"] + 0.1 * x.mean(axis=(0, 2, 3))
    assert np.allclose(state.params["bn1"]["running_mean"], mean, rtol=1e-12, atol=1e-15)


def test_an_epochs_record_is_the_mean_over_images_not_batches() -> None:
    """23 images in batches of 8, 8 and 7, with a rate that moves nothing."""
    method = method_of("distilquant")
    still = replace(ONE, batch_size=8, learning_rate=1e-300, statistics="running")
    state = trained(method, still, IMAGES[:23], LABELS[:23])
    output = PLAIN.replace(method.place(*method.start())).forward(IMAGES[:23])
    value, _ = method.loss(output, IMAGES[:23], LABELS[:23])
    parts = [method.loss(output[p], IMAGES[:23][p], LABELS[:23][p])[0] for p in (slice(8), slice(8, 23))]
    assert state.history[0].loss == pytest.approx(value, rel=1e-12)
    assert abs(np.mean(parts) - value) > 1e-6 * value
    assert state.history[0].accuracy == np.mean(output.argmax(axis=1) == LABELS[:23])
    assert (state.steps, state.images) == (3, 23)


def test_images_without_rows_and_columns_are_not_augmented() -> None:
    nodes = (Node("fc", Linear(5, 3), ("input",)),)
    rng = np.random.default_rng(0)
    start = {"fc": {"weight": rng.standard_normal((3, 5)), "bias": np.zeros(3)}}
    x = rng.standard_normal((24, 5))
    how = replace(SHORT, crop=4, flip=True)
    for name in ("ttq", "dq"):
        result = BASELINES[name].run(
            Network(nodes, start, (5,)), x, LABELS, levels=3, rng=rng, schedule=how, retrain=name == "dq"
        )
        assert len(np.unique(result.network.params["fc"]["weight"])) == 3


# ---------------------------------------------------------------------- labels


def test_a_teacher_alone_needs_no_labels_and_says_so() -> None:
    alone = distilquant.DistilQuantSettings(share=1.0)
    without = run("distilquant", settings=alone, labels=None)
    shown = run("distilquant", settings=alone)
    other = run("distilquant", settings=alone, labels=(LABELS + 1) % 3)
    assert not without.labels_used and not shown.labels_used
    assert bits(without.network) == bits(shown.network) == bits(other.network)
    assert np.isnan(without.history[-1].accuracy) and 0 <= shown.history[-1].accuracy <= 1
    assert [one.loss for one in without.history] == [one.loss for one in shown.history]
    some = distilquant.DistilQuantSettings(share=0.99)
    assert run("distilquant", settings=some).labels_used
    assert bits(run("distilquant", settings=some).network) != bits(
        run("distilquant", settings=some, labels=(LABELS + 1) % 3).network
    )
    assert run("distilquant", settings=alone, retrain=True).labels_used
    with pytest.raises(ValueError, match="`labels` must be given for training, got None"):
        run("distilquant", settings=alone, labels=None, retrain=True)
    with pytest.raises(ValueError, match="`labels` must be given for training, got None"):
        run("distilquant", settings=some, labels=None)
    y = np.zeros((2, 3))
    with pytest.raises(ValueError, match=r"`labels` must be given if the teacher's share is 0\.99"):
        distilquant.loss(y, y, None, some)
    with pytest.raises(ValueError, match=r"`share` must be at most 1, got 1\.5"):
        distilquant.DistilQuantSettings(share=1.5)


# ---------------------------------------------------------------------- the optimizer's step


@pytest.mark.parametrize("name", ["ttq", "late", "distilquant", "exnn"])
def test_the_penalty_acts_on_what_the_schedule_says(name: str) -> None:
    """A step with the penalty less one without it is -rate * penalty * array."""
    omega, method = 0.25, method_of(name)
    start, _ = method.start()
    plain = trained(method, ONE).point.latent
    for decays in ("weights", "all"):
        moved = trained(method, replace(ONE, weight_decay=omega, decays=decays)).point.latent
        for layer, own in start.items():
            for key, array in own.items():
                is_weight = layer in LAYERS and key == "weight"
                on = decays == "all" or is_weight
                clip = 1.0 if name == "late" and is_weight else np.inf
                wanted = np.clip(plain[layer][key] - (0.1 * omega * array if on else 0.0), -clip, clip)
                inside = np.abs(plain[layer][key]) < clip  # what was clipped is known no more
                assert (np.abs(wanted - moved[layer][key]) * inside).max() <= 1e-14, (decays, layer, key)
                assert on == bool(np.any(plain[layer][key] != moved[layer][key])) or not array.any()


def test_step_6_has_the_one_schedule_of_all_retrainings() -> None:
    settings = step_6()
    for item in ("epochs", "batch_size", "learning_rate", "optimizer", "weight_decay", "crop", "flip"):
        assert getattr(settings, item) == getattr(RETRAIN, item), item
    assert settings.loss is None and settings.schedule == RETRAIN.decay == "cosine"
    for change in ({"cycles": 2}, {"decay": "steps"}, {"nesterov": True}, {"weight_decay": 1e-4}):
        with pytest.raises(ValueError, match=f"`schedule` must have {next(iter(change))} "):
            step_6(replace(RETRAIN, **change))


def test_retrainings_follow_the_one_schedule_on_the_runs_versions_of_the_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[str, Schedule]] = []

    def spy(method: Method, images: Any, labels: Any, schedule: Schedule, *rest: Any) -> LoopState:
        seen.append((type(method).__name__, schedule))
        return fit(method, images, labels, schedule, *rest)

    monkeypatch.setattr("refldnq.baselines.runs.fit", spy)
    short = replace(RETRAIN, epochs=1)
    monkeypatch.setattr("refldnq.baselines.runs.RETRAIN", short)
    for name in ("ttq", "inq", "dq", "ldnq-"):
        seen.clear()
        run(name, schedule=replace(SHORT, crop=1, flip=False) if name in TRAINED else "scaled", retrain=True)
        wanted = replace(short, crop=1, flip=False) if name in TRAINED else short
        assert seen[-1] == ("Retrain", wanted)


# ---------------------------------------------------------------------- retraining


def test_a_retraining_keeps_biases_and_codes_of_quantized_layers() -> None:
    for name in ("dq", "vq", "ttq", "ldnq-"):
        plain, after = (run(name, layers=LAYERS[1:], retrain=retrain) for retrain in (False, True))
        for layer in LAYERS[1:]:
            bias = plain.network.params[layer]["bias"]
            assert bias.tobytes() == after.network.params[layer]["bias"].tobytes()
        assert not np.array_equal(
            plain.network.params["conv1"]["weight"], after.network.params["conv1"]["weight"]
        )


def test_scales_stay_at_least_zero_and_values_may_cross() -> None:
    code = dq.encode(packed(PLAIN, "fc", PLAIN.params["fc"]["weight"]), 3, "mean")
    method = Retrain(network=PLAIN, layers=("fc",), codes={"fc": code}, free="scale")
    latent, memory = method.start()
    down = {
        **latent,
        "fc": {"scale": np.array(-0.5)},
        "bn1": {"weight": np.array([-1.0]), "bias": np.ones(1)},
    }
    settled = method.settle(latent, down, memory)
    assert settled["fc"]["scale"] == 0.0 and settled["bn1"]["weight"][0] == -1.0
    assert method.settle(latent, latent, memory)["fc"]["scale"] == latent["fc"]["scale"] > 0
    values = replace(method, free="values")
    latent, memory = values.start()
    assert np.array_equal(latent["fc"]["values"], code.alpha * code.values)
    crossed = {"fc": {"values": latent["fc"]["values"][[1, 0, 2]] - 7.0}}
    assert values.settle(latent, crossed, memory) == crossed
    found = values.finish({**latent, **crossed}, memory)
    assert np.array_equal(found.codes["fc"].values, np.sort(crossed["fc"]["values"]))
    assert np.array_equal(
        found.arrays["fc"]["weight"], values.place(crossed, memory)["fc"]["weight"]
    ) and not np.array_equal(found.codes["fc"].codes, code.codes)


# ---------------------------------------------------------------------- single methods


@pytest.mark.parametrize("variant", ["approximate", "exact", "two-scale"])
def test_lat_ends_with_the_curvature_that_it_has_seen(variant: lat.Variant) -> None:
    method = lat.method(PLAIN, LAYERS, 3, lat.LatSettings(variant=variant, eps=1e-3))
    latent, memory = method.start()
    rng = np.random.default_rng(3)
    seen = {name: {lat.MOMENT: rng.exponential(1.0, latent[name]["weight"].shape) ** 4} for name in LAYERS}
    found = method.finish(latent, seen)
    for name in LAYERS:
        w, v = latent[name]["weight"], seen[name][lat.MOMENT]
        wanted = lat.quantize(w, np.sqrt(v) + 1e-3, variant)
        assert np.allclose(found.arrays[name]["weight"], wanted, rtol=1e-15, atol=0)
        assert np.allclose(method.place(latent, seen)[name]["weight"], wanted, rtol=1e-15, atol=0)
    flat = method.finish(latent, memory)  # v = 0: another point
    assert not np.allclose(flat.arrays["fc"]["weight"], found.arrays["fc"]["weight"])
    assert (
        "running_mean" not in found.arrays["bn1"] and found.arrays["bn1"]["weight"] is latent["bn1"]["weight"]
    )


def test_lats_settings_are_refused_out_of_range() -> None:
    for change in ({"beta": 1.0}, {"beta": -0.1}, {"eps": 0.0}, {"clip": 0.0}, {"variant": "other"}):
        with pytest.raises(ValueError, match=f"`{next(iter(change))}` must be"):
            lat.LatSettings(**change)


def test_inqs_portions_and_powers_follow_the_pretrained_weights() -> None:
    for bad in ((), (0.0, 1.0), (0.5, 0.9), (0.7, 0.6, 1.0)):
        with pytest.raises(ValueError, match="`portions` must ascend from above 0 to 1"):
            inq.InqSettings(portions=bad)
    method = inq.method(PLAIN, LAYERS, 5, inq.InqSettings(portions=(0.25, 1.0)))
    assert method.plan(SHORT).cycles == 1 and method.plan(SHORT).total == 3
    assert inq.method(PLAIN, LAYERS, 5, inq.InqSettings(portions=(1.0,))).plan(SHORT).cycles == 1
    latent, memory = method.start()
    grown = {**latent, "fc": {**latent["fc"], "weight": 8.0 * latent["fc"]["weight"]}}
    found = method.finish(grown, memory)
    assert np.array_equal(found.codes["fc"].values, inq.powers(PLAIN.params["fc"]["weight"], 5))
    frozen = {**memory, "fc": {**memory["fc"], inq.FROZEN: np.ones_like(memory["fc"][inq.FROZEN])}}
    kept, _ = method.advance(grown, frozen, 1.0)
    assert np.array_equal(kept["fc"]["weight"], grown["fc"]["weight"])


def test_exnns_codes_are_those_of_its_last_projection_and_the_rest_is_latent() -> None:
    method = exnn.method(PLAIN, LAYERS, 5)
    state = trained(method, replace(ONE, epochs=2))
    point = state.point
    found = method.finish(point.latent, point.memory)
    for name in LAYERS:
        projected = point.memory[name][exnn.PROXIMAL]
        assert np.allclose(found.arrays[name]["weight"], projected, rtol=1e-15, atol=0)
        assert (
            len(found.codes[name].values) == 5 and found.codes[name].alpha == point.memory[name][exnn.SCALE]
        )
    for name, key in (("bn1", "weight"), ("fc", "bias")):
        assert found.arrays[name][key].tobytes() == point.latent[name][key].tobytes()
    for change in ({"rho": 0.0}, {"predictor": 0.0}, {"corrector": -1.0}, {"every": 0}):
        with pytest.raises(ValueError, match=f"`{next(iter(change))}` must be"):
            exnn.ExnnSettings(**change)


def test_ldnq_minus_is_algorithm_1_without_its_update() -> None:
    chosen, images = ("conv2", "fc"), IMAGES
    result = run("ldnq-", levels=5, layers=chosen)
    settings = LdnqSettings(codebook=powers_of_two(5), update=None, first=False)
    wanted = ldnq(NETWORK, images, settings, np.random.default_rng(11))
    assert bits(result.network) == bits(wanted.network) and result.mean_levels == 5.0
    with_update = ldnq_minus.without_update(LdnqSettings(solver="coordinate", ridge=0.5))
    assert (with_update.update, with_update.solver, with_update.ridge) == (None, "coordinate", 0.5)
    assert bits(
        run("ldnq-", levels=5, layers=chosen, settings=LdnqSettings(solver="coordinate")).network
    ) != bits(wanted.network)


def test_trns_levels_are_the_powers_of_its_most_terms() -> None:
    exactly = trn.TrnSettings(tolerance=0.0)
    for levels in (3, 9, 27):
        assert run("trn", levels=levels, settings=exactly, layers=LAYERS[1:]).mean_levels == levels
    # Two terms are enough for two input channels, but for rounding.
    assert 9.0 <= run("trn", levels=27, settings=exactly, layers=LAYERS[:1]).mean_levels < 27.0
    loose = run("trn", levels=27, settings=trn.TrnSettings(tolerance=0.5, block=7))
    sizes, used = [], []
    for name in LAYERS:
        weight = NETWORK.params[name]["weight"]
        _, terms = trn.quantize(weight, 3, trn.TrnSettings(tolerance=0.5, block=7))
        sizes.append(weight.size)
        used.append(np.mean(3.0**terms))
    assert loose.mean_levels == pytest.approx(np.dot(sizes, used) / sum(sizes), rel=1e-14)
    assert 3.0 < loose.mean_levels < 27.0 and len(set(used)) > 1
    numbers = {"conv1": 3.0, "fc": 5.0}
    assert mean_over_weights(NETWORK, numbers) == pytest.approx((72 * 3 + 192 * 5) / 264, rel=1e-15)


def test_codes_have_at_most_128_values_and_no_negative_zero() -> None:
    weight = np.zeros((3, 64))
    weight.flat[:127] = np.arange(1, 128)
    weight.flat[150] = -0.0
    code = encode(NETWORK, "fc", weight)
    assert len(code.values) == 128 and not np.signbit(code.values[0])
    weight.flat[130] = -1.0
    with pytest.raises(ValueError, match="`weight` must have at most 128 distinct values, got 129"):
        encode(NETWORK, "fc", weight)


def test_lloyd_keeps_the_best_of_its_starts_and_scales_with_the_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sample = np.random.default_rng(1).standard_normal(300) ** 3
    ten = [vq.quantize(sample, 9, np.random.default_rng(seed)).residual for seed in range(6)]
    for scale in (2.0**-300, 2.0**300):
        again = vq.quantize(sample * scale, 9, np.random.default_rng(0))
        assert np.array_equal(again.values, scale * vq.quantize(sample, 9, np.random.default_rng(0)).values)
    monkeypatch.setattr(vq, "STARTS", 1)
    one = [vq.quantize(sample, 9, np.random.default_rng(seed)).residual for seed in range(6)]
    assert all(a <= b for a, b in zip(ten, one, strict=True)) and sum(ten) < sum(one)


def test_weights_that_are_zero_have_an_affine_code() -> None:
    code = dq.encode(np.zeros((1, 3, 2)), 4, "affine")
    assert code.alpha == 0 and not code.weight().any()
    S, Z, q = dq.affine(np.array([0.5, 2.0]), 4)  # the range is stretched to hold 0
    assert (S, Z, q.tolist()) == (2.0 / 3.0, 0, [1, 3])


# ---------------------------------------------------------------------- the numbers of the sources

USUAL = {
    "cycles": 1, "decay": "cosine", "milestones": (), "factor": 0.1, "optimizer": "sgd", "momentum": 0.9,
    "nesterov": False, "weight_decay": 0.0, "decays": "weights", "statistics": "batch", "crop": 4,
    "flip": True, "most_images": None,
}  # fmt: skip

ADAM = {"optimizer": "adam"}

NUMBERS: dict[str, tuple[Schedule, dict[str, Any]]] = {
    "ttq": (ttq.PUBLISHED, {"epochs": 160, "batch_size": 128, "learning_rate": 0.1, "decay": "steps",
                            "milestones": (81, 122, 149), "weight_decay": 2e-4}),
    "ttq scaled": (ttq.SCALED, {"epochs": 80, "batch_size": 50, "learning_rate": 3e-3, "weight_decay": 2e-4}),
    "ttq twn": (ttq.SCALED_TWN, {"epochs": 80, "batch_size": 50, "learning_rate": 3e-4,
                                 "weight_decay": 2e-4}),
    "inq": (inq.PUBLISHED, {"epochs": 12, "batch_size": 256, "learning_rate": 3e-3, "decay": "steps",
                            "milestones": (3, 6, 9), "factor": 0.2, "weight_decay": 5e-4}),
    "inq scaled": (inq.SCALED, {"epochs": 12, "batch_size": 50, "learning_rate": 5e-3, "weight_decay": 5e-4}),
    "lat": (lat.PUBLISHED, {"epochs": 200, "batch_size": 50, "learning_rate": 0.002, "decay": "steps",
                            "milestones": tuple(15 * k for k in range(1, 14)), "factor": 0.5, "crop": 0,
                            "flip": False, **ADAM}),
    "lat scaled": (lat.SCALED, {"epochs": 80, "batch_size": 50, "learning_rate": 0.002, **ADAM}),
    "distilquant": (distilquant.PUBLISHED, {"epochs": 200, "batch_size": 100, "learning_rate": 0.1,
                                            "decay": "steps", "milestones": (61, 121, 161), "factor": 0.2,
                                            "nesterov": True, "weight_decay": 2.2e-4, "decays": "all"}),
    "distilquant scaled": (distilquant.SCALED, {"epochs": 80, "batch_size": 50, "learning_rate": 0.05,
                                                "nesterov": True, "weight_decay": 2.2e-4, "decays": "all"}),
    "exnn": (exnn.PUBLISHED, {"epochs": 160, "batch_size": 128, "learning_rate": 0.01, "decay": "steps",
                              "milestones": (80, 120), "momentum": 0.0, "weight_decay": 1e-4}),
    "exnn scaled": (exnn.SCALED, {"epochs": 60, "batch_size": 50, "learning_rate": 0.02, "momentum": 0.0}),
    "retraining": (RETRAIN, {"epochs": 40, "batch_size": 50, "learning_rate": 1e-3, **ADAM}),
}  # fmt: skip


@pytest.mark.parametrize("which", NUMBERS)
def test_schedules_have_the_documented_numbers(which: str) -> None:
    schedule, own = NUMBERS[which]
    found = {item.name: getattr(schedule, item.name) for item in fields(schedule)}
    assert found.pop("origin")
    assert found == {**USUAL, **own}


def test_settings_have_the_documented_numbers() -> None:
    def of(settings: Any) -> tuple[Any, ...]:
        return tuple(getattr(settings, item.name) for item in fields(settings))

    assert of(lat.LatSettings()) == ("exact", 0.999, 1e-8, 1.0)
    assert of(ttq.TtqSettings()) == (0.05, "one")
    assert of(distilquant.DistilQuantSettings()) == (256, 2.0, 0.7, "elements")
    assert of(trn.TrnSettings()) == (64, 0.2)
    assert of(exnn.ExnnSettings()) == (20.0, 1.0, 1.0, None)
    assert inq.PORTIONS == (0.5, 0.75, 0.875, 1.0) and vq.STARTS == 10
    assert inq.TERNARY_PORTIONS == (0.2, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.975, 1.0)
    variants = {name: BASELINES[name].run.settings for name in BASELINES}  # type: ignore[attr-defined]
    assert variants == {
        "dq": dq.DqSettings(),
        "vq": vq.VqSettings(),
        "exnn": exnn.ExnnSettings(),
        "ttq": ttq.TtqSettings(),
        "inq": inq.InqSettings(),
        "trn": trn.TrnSettings(),
        "distilquant": distilquant.DistilQuantSettings(),
        "ldnq-": LdnqSettings(),
        "dq-affine": dq.DqSettings(variant="affine"),
        "dq-exact": dq.DqSettings(variant="exact"),
        "vq-exact": vq.VqSettings(variant="exact"),
        "ttq-twn": ttq.TtqSettings(init="twn"),
        "lata": lat.LatSettings(variant="approximate"),
        "late": lat.LatSettings(variant="exact"),
        "lat-two-scale": lat.LatSettings(variant="two-scale"),
    }


def test_schedules_that_make_no_sense_are_refused() -> None:
    steps = replace(SHORT, epochs=9, decay="steps", milestones=(0, 3, 8), factor=0.5)
    assert [steps.rate(epoch, 2, 3) for epoch in range(9)] == [
        0.02 * 0.5**k for k in (1, 1, 1, 2, 2, 2, 2, 2, 3)
    ]
    for change, words in (
        ({"momentum": 1.5}, r"`momentum` must be below 1, got 1\.5"),
        ({"momentum": 1.0}, r"`momentum` must be below 1, got 1\.0"),
        ({"momentum": -0.1}, "`momentum` must be"),
        ({"milestones": (6, 3)}, r"`milestones` must ascend, got \(6, 3\)"),
        ({"milestones": (3, 3)}, r"`milestones` must ascend, got \(3, 3\)"),
        ({"milestones": (-1, 3)}, "`milestones` must be an integer of at least 0, got -1"),
        ({"milestones": (3, 9)}, "`milestones` must lie before the end of a cycle of 9 epochs"),
        ({"epochs": 0}, "`epochs` must be"),
        ({"cycles": 0}, "`cycles` must be"),
        ({"learning_rate": 0.0}, "`learning_rate` must be"),
        ({"factor": 0.0}, "`factor` must be"),
        ({"decays": "some"}, "`decays` must be"),
        ({"statistics": "none"}, "`statistics` must be"),
        ({"optimizer": "lion"}, "`optimizer` must be"),
        ({"decay": "sudden"}, "`decay` must be"),
        ({"crop": -1}, "`crop` must be"),
        ({"weight_decay": -1.0}, "`weight_decay` must be"),
    ):
        with pytest.raises(ValueError, match=words):
            replace(steps, **change)
    with pytest.raises(TypeError, match="`milestones`"):
        replace(steps, milestones=(2.5,))  # type: ignore[arg-type]
    waves = replace(SHORT, epochs=4, cycles=2)
    assert waves.total == 8 and waves.rate(4, 1, 5) == waves.rate(0, 1, 5)
    assert waves.rate(1, 2, 5) == pytest.approx(0.01 * (1 + np.cos(np.pi * 7 / 20)), rel=1e-12)


# ---------------------------------------------------------------------- the methods' hooks


def inq_phases(method: inq.Inq) -> list[tuple[Mapping[str, Array], Mapping[str, Array]]]:
    """Weights and masks of fc after every epoch of a run with momentum and penalty."""
    schedule = method.plan(replace(SHORT, epochs=2, weight_decay=0.1))
    rng, found = np.random.default_rng(0), []
    fit(
        method,
        IMAGES,
        LABELS,
        schedule,
        rng,
        begin(method, schedule, rng),
        lambda state: found.append((state.point.latent["fc"], state.point.memory["fc"])),
    )
    return found


def frozen_weights_stay(method: inq.Inq) -> None:
    found = inq_phases(method)
    values = inq.powers(NETWORK.params["fc"]["weight"], 5)
    for (before, memory), (after, later) in pairwise(found):
        frozen = memory[inq.FROZEN]
        assert later[inq.FROZEN][frozen].all()
        if before["weight"][frozen].tobytes() != after["weight"][frozen].tobytes():
            raise AssertionError("a frozen weight has moved")
        assert np.isin(after["weight"][later[inq.FROZEN]], values).all()
        assert not np.array_equal(before["weight"][~frozen], after["weight"][~frozen])
    shares = [round(float(memory[inq.FROZEN].mean()), 3) for _, memory in found]
    assert shares == [0.5, 0.5, 0.75, 0.75, 0.875, 0.875]


def test_inqs_frozen_weights_stay_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    method = inq.method(NETWORK, LAYERS, 5)
    frozen_weights_stay(method)
    # Planted: the gradient is masked in place of the step; momentum and penalty move what is frozen.

    def pull(self: inq.Inq, latent: Any, memory: Any, gradients: NetworkParams) -> Any:
        masked = {
            name: {**own, "weight": np.where(memory[name][inq.FROZEN], 0.0, own["weight"])}
            if name in self.layers
            else own
            for name, own in gradients.items()
        }
        return masked, memory

    monkeypatch.setattr(inq.Inq, "pull", pull)
    monkeypatch.setattr(inq.Inq, "settle", Method.settle)
    with pytest.raises(AssertionError, match="frozen"):
        frozen_weights_stay(method)


def test_inqs_phases_restart_rate_and_momentum() -> None:
    method = inq.method(NETWORK, LAYERS, 3)
    assert method.portions == inq.TERNARY_PORTIONS and method.plan(SHORT).total == 27
    assert inq.method(NETWORK, LAYERS, 17).portions == inq.PORTIONS
    plan = method.plan(SHORT)
    assert plan.rate(3, 0, 3) == plan.rate(0, 0, 3) == 0.02 and plan.rate(2, 2, 3) < 0.002
    state = begin(method, plan, np.random.default_rng(0))
    latent, _ = state.point.latent, state.point.memory
    heavy = plan.rule().step(latent, latent, state.point.optimizer, rate=0.1, count=1)[1]
    going = TrainingPoint(latent, state.point.memory, heavy)
    assert method.begin_epoch(1, going, plan) is going
    assert not method.begin_epoch(3, going, plan).optimizer["fc"]["weight"][0].any()
    with pytest.raises(ValueError, match="`portions` must ascend"):
        inq.InqSettings(portions=(0.5, 0.5, 1.0))


def exnn_duals(every: int | None) -> list[LoopState]:
    method = exnn.method(NETWORK, LAYERS, 3, exnn.ExnnSettings(every=every))
    schedule = replace(SHORT, momentum=0.0)
    rng = np.random.default_rng(0)
    states: list[LoopState] = []
    fit(method, IMAGES, LABELS, schedule, rng, begin(method, schedule, rng), states.append)
    return states


def test_exnns_minibatches_count_over_the_run() -> None:
    """Every fifth step, where an epoch has three: the dual moves in the second epoch and not before."""
    first, second = exnn_duals(5)[:2]
    assert not any(first.point.memory[name][exnn.DUAL].any() for name in LAYERS)
    assert all(second.point.memory[name][exnn.DUAL].any() for name in LAYERS)


def test_a_cycle_starts_with_an_empty_memory_of_the_optimizer() -> None:
    method = exnn.method(NETWORK, LAYERS, 3)
    rng = np.random.default_rng(0)
    schedule = replace(SHORT, optimizer="adam", cycles=2)
    states: list[LoopState] = []
    fit(method, IMAGES, LABELS, schedule, rng, begin(method, schedule, rng), states.append)
    once = replace(schedule, cycles=1)
    half = states[schedule.epochs - 1]
    fresh = replace(
        half,
        epoch=0,
        epochs=once.total,
        point=replace(half.point, optimizer=once.rule().start(half.point.latent)),
    )
    again: list[LoopState] = []
    fit(method, IMAGES, LABELS, once, rng, fresh, again.append)
    for name, own in again[-1].point.latent.items():
        for key, array in own.items():
            assert np.array_equal(array, states[-1].point.latent[name][key]), (name, key)


@given(st.integers(1, 100), st.integers(1, 9), st.integers(1, 50), st.integers(1, 1000), st.data())
def test_a_capped_schedule_takes_at_most_the_passes_of_its_images(
    epochs: int, cycles: int, most: int, images: int, data: st.DataObject
) -> None:
    milestones = tuple(sorted(data.draw(st.sets(st.integers(0, epochs - 1), max_size=3))))
    own = Schedule(
        epochs=epochs,
        cycles=cycles,
        learning_rate=1.0,
        origin="",
        decay="steps",
        milestones=milestones,
        most_images=most,
    )
    found = own.for_images(images)
    assert found.for_images(10 * images) == found  # once is enough
    if images <= most:
        assert found == replace(own, most_images=None)
        return
    assert (
        found.epochs == 1 or found.total * images <= own.total * most < (found.epochs + 1) * cycles * images
    )
    # An epoch begins with the rate of the same share of the longer cycle, or, where milestones have fallen
    # together, with a larger one.
    places = [-(-milestone * found.epochs // epochs) for milestone in milestones]
    for epoch in range(found.epochs):
        now, before = found.rate(epoch, 0, 1), own.rate(epoch * epochs // found.epochs, 0, 1)
        assert now == before if len(set(places)) == len(places) else now >= before


def test_a_capped_schedule_is_resolved_before_a_training() -> None:
    with pytest.raises(ValueError, match="`schedule` must be `for_images` of 24 images"):
        trained(method_of("ttq"), replace(ONE, most_images=24))
    with pytest.raises(ValueError, match="most_images"):
        step_6(replace(RETRAIN, most_images=24))
    with pytest.raises(ValueError, match="`most_images` must be an integer of at least 1, got 0"):
        replace(ONE, most_images=0)
    with pytest.raises(ValueError, match="`images` must be an integer of at least 1, got 0"):
        ONE.for_images(0)
    for name in ("vq", "ttq"):
        with pytest.raises(ValueError, match="`n` must be an integer of at least 1"):
            BASELINES[name].run(
                NETWORK, IMAGES[:0], LABELS[:0], levels=3, rng=np.random.default_rng(0), schedule=SHORT
            )


def test_a_cap_that_is_none_is_not_part_of_what_a_run_is() -> None:
    """Runs from before there was a cap are known by the other numbers."""
    assert "most_images" not in ONE.numbers and "origin" not in ONE.numbers
    assert replace(ONE, most_images=9).numbers == {**ONE.numbers, "most_images": 9}
    assert set(ONE.numbers) == {item.name for item in fields(Schedule)} - {"origin", "most_images"}


def test_numpys_numbers_leave_the_type_alone() -> None:
    plain, numpys = (
        Schedule(epochs=1, origin="", learning_rate=kind(0.01), momentum=kind(0.5), weight_decay=kind(1e-4))
        for kind in (float, np.float64)
    )
    assert plain == numpys and type(numpys.learning_rate) is float and type(numpys.weight_decay) is float


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_no_quantizer_takes_what_is_not_finite(bad: float) -> None:
    w = np.array([[1.0, bad]])
    quantizers: dict[str, Callable[[], Any]] = {
        "ttq": lambda: ttq.quantize(w, 1.0, 1.0),
        "nearest": lambda: inq.nearest(w, np.array([-1.0, 0.0, 1.0])),
        "partition": lambda: inq.partition(w, np.zeros(w.shape, bool), 0.5),
        "fgq": lambda: trn.fgq(w),
        "proximal": lambda: exnn.proximal(w, 0 * w, 3),
    }
    for name, quantizer in quantizers.items():
        with np.errstate(invalid="ignore"), pytest.raises(ValueError, match="finite"):
            raise AssertionError(f"{name} gave {quantizer()}")
    with pytest.raises(ValueError, match="`lam` must have shape"):
        exnn.proximal(np.ones(3), np.ones(1), 3)


def test_exnns_dual_follows_every_epoch() -> None:
    states = exnn_duals(None)
    for before, after in pairwise(states):
        for name in LAYERS:
            own, old = after.point.memory[name], before.point.memory[name]
            w = after.point.latent[name]["weight"]
            G = exnn.proximal(w, old[exnn.DUAL], 3).G
            assert np.array_equal(own[exnn.PROXIMAL], G)
            assert np.array_equal(own[exnn.DUAL], old[exnn.DUAL] + w - G)
            assert not np.array_equal(own[exnn.DUAL], old[exnn.DUAL] - w + G)  # a planted sign is seen
    often = exnn_duals(2)[-1]  # after two of three minibatches: the last one is behind the dual step
    assert not np.array_equal(often.point.memory["fc"][exnn.DUAL], states[-1].point.memory["fc"][exnn.DUAL])
    finished = exnn.method(NETWORK, LAYERS, 3).finish(states[-1].point.latent, states[-1].point.memory)
    for name in LAYERS:
        assert np.array_equal(finished.arrays[name]["weight"], states[-1].point.memory[name][exnn.PROXIMAL])


def test_a_heavy_penalty_brings_exnns_weights_to_their_projection() -> None:
    method = exnn.method(NETWORK, LAYERS, 3, exnn.ExnnSettings(rho=20.0))
    schedule, rng = replace(SHORT, epochs=30, momentum=0.0), np.random.default_rng(0)
    first = begin(method, schedule, rng)
    last = fit(method, IMAGES, LABELS, schedule, rng, first)

    def gap(state: LoopState) -> float:
        point = state.point
        return float(np.linalg.norm(point.latent["fc"]["weight"] - point.memory["fc"][exnn.PROXIMAL]))

    assert gap(last) < 0.2 * gap(first)


def test_lats_moment_is_of_the_gradients_at_the_ternary_weights_and_weights_are_clipped() -> None:
    method = lat.method(NETWORK, LAYERS, 3, lat.LatSettings(clip=0.25))
    latent, memory = method.start()
    assert np.abs(latent["fc"]["weight"]).max() == 0.25 and not memory["fc"][lat.MOMENT].any()
    g = {name: {key: np.ones_like(array) for key, array in own.items()} for name, own in latent.items()}
    once = method.pull(latent, memory, g)[1]
    twice = method.pull(latent, once, g)[1]
    assert np.allclose(once["fc"][lat.MOMENT], 0.001, rtol=1e-12)
    assert np.allclose(twice["fc"][lat.MOMENT], 0.001999, rtol=1e-12)
    assert np.allclose(lat.curvature(once["fc"][lat.MOMENT]), 0.001**0.5 + 1e-8, rtol=1e-12)


def test_schedules_are_those_of_the_sources() -> None:
    published = ttq.PUBLISHED
    rates = [round(published.rate(epoch, 5, 10), 6) for epoch in (0, 80, 81, 122, 149)]
    assert rates == [0.1, 0.1, 0.01, 0.001, 0.0001] and published.weight_decay == 2e-4
    halved = [lat.PUBLISHED.rate(epoch, 0, 10) for epoch in (0, 14, 15, 30)]
    assert halved == [0.002, 0.002, 0.001, 0.0005] and lat.PUBLISHED.optimizer == "adam"
    assert distilquant.PUBLISHED.nesterov and distilquant.PUBLISHED.weight_decay == 2.2e-4
    assert exnn.PUBLISHED.momentum == 0  # extragradient steps have none
    for one in (ttq, lat, inq, exnn, distilquant):
        for schedule in (one.SCALED, one.PUBLISHED):
            assert schedule.origin
