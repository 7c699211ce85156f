"""Quantizer steps of the baselines in the conformance kit: three channels, margins, narrow types, faults."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from refldnq.baselines import inq, lat, trn, ttq
from refldnq.verify.kit import channels_baselines, rules
from refldnq.verify.kit.cases import Case
from refldnq.verify.kit.channels_baselines import disagreements
from refldnq.verify.kit.contract import BASELINE_METHODS
from refldnq.verify.kit.diagnose import explain
from refldnq.verify.kit.families import baselines
from refldnq.verify.kit.families._make import CLEAR
from refldnq.verify.kit.families._numbers import draws
from refldnq.verify.kit.faults import find, turn, visible_in
from refldnq.verify.kit.knobs import Knobs
from refldnq.verify.kit.reference import Reference
from refldnq.verify.kit.selftest import SelfTest, selftest

CASES = tuple(baselines.cases())
ANSWERED = tuple(case for case in CASES if case.error is None)
SCALES = ("positive", "negative")
REFUSED = tuple(case for case in CASES if case.error is not None)


def named(name: str) -> Case:
    return next(case for case in CASES if case.id == f"baseline/{name}")


def wrong(case: Case, answers: Mapping[str, Any], dtype: str = "float64") -> list[str]:
    return [one.name for one in rules.judge(case, answers, dtype) if not one.ok]


def test_every_method_has_cases_that_are_answered() -> None:
    assert {case.inputs["method"] for case in ANSWERED} == set(BASELINE_METHODS)


@pytest.mark.parametrize("case", ANSWERED, ids=lambda case: case.id)
def test_three_channels_agree(case: Case) -> None:
    assert disagreements(case) == ()


@pytest.mark.parametrize(
    ("module", "function", "planted", "name"),
    [
        (ttq, "gradients", lambda w, g, p, n, t: (g, g[w > 0].sum(), g[w < 0].sum()), "ttq"),
        (inq, "partition", lambda w, frozen, portion: frozen, "inq-frozen"),
        (lat, "late", lambda w, D: (1.0, np.sign(w).astype(np.int8)), "late"),
        (trn, "quantize", lambda w, terms, settings: (w, np.full(w.shape, terms)), "trn-residuals"),
    ],
)
def test_an_error_planted_in_the_library_shows(
    monkeypatch: pytest.MonkeyPatch, module: Any, function: str, planted: Any, name: str
) -> None:
    monkeypatch.setattr(module, function, planted)
    assert any("of the library differs" in line for line in disagreements(named(name)))


@pytest.mark.parametrize("case", ANSWERED, ids=lambda case: case.id)
def test_an_error_planted_in_the_loops_shows(monkeypatch: pytest.MonkeyPatch, case: Case) -> None:
    right = channels_baselines.loops(case.inputs)
    for name in right:
        spoiled = {**right, name: np.asarray(right[name]) + 1}
        monkeypatch.setattr(channels_baselines, "loops", lambda _, spoiled=spoiled: spoiled)
        assert disagreements(case) == (f"{case.id}: {name} of the loops differs",)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_reference_passes(dtype: str) -> None:
    for case in ANSWERED:
        assert wrong(case, Reference(dtype=dtype).baseline(**case.inputs), dtype) == [], case.id


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_library_passes(dtype: str) -> None:
    for case in ANSWERED:
        arrays = ("W", "lam", "g", "D")
        given = {key: case.inputs[key].astype(dtype) for key in arrays if key in case.inputs}
        found = channels_baselines.library({**case.inputs, **given})
        assert wrong(case, found, dtype) == [], case.id


@pytest.mark.parametrize("case", ANSWERED, ids=lambda case: case.id)
def test_every_wrong_entry_fails(case: Case) -> None:
    for name, value in case.outputs.items():
        for at in range(np.size(value)):
            spoiled = np.array(value)
            spoiled.flat[at] += 1 if spoiled.dtype.kind == "i" else 1e-6 * (1 + abs(spoiled.flat[at]))
            assert wrong(case, {**case.outputs, name: spoiled}) == [name]
        assert wrong(case, {**case.outputs, name: np.full(np.shape(value), np.nan)}) == [name]
        rest = {key: array for key, array in case.outputs.items() if key != name}
        assert wrong(case, rest) == [name]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.id)
def test_senseless_inputs_are_refused_by_reference_and_library(case: Case) -> None:
    with pytest.raises(ValueError, match=r"must be"):
        Reference().baseline(**case.inputs)
    if "g" not in case.inputs:  # gradients are the library's own
        with pytest.raises(ValueError, match=r"must|odd"):
            channels_baselines.library(case.inputs)
    assert rules.judge(case, {}, "float64")[0].ok is False


def test_only_marked_decisions_are_ties_and_none_is_near() -> None:
    tied = {case.id.removeprefix("baseline/") for case in ANSWERED if min_margin(case) == 0}
    assert tied == {
        *("affine-both-ends-halfway", "affine-halves", "ttq-on-threshold", "ttq-zeros"),
        *("inq-halfway", "inq-three-quarters", "lata-zeros"),
    }
    assert all(min_margin(case) >= CLEAR for case in ANSWERED if min_margin(case) > 0)


def min_margin(case: Case) -> float:
    return min((float(np.min(margin)) for margin in case.margin.values()), default=np.inf)


def test_near_decisions_are_not_accepted() -> None:
    near = {"method": "dq-affine", "W": np.array([-2.0, 3.0, 0.5 + 2.0**-30]), "levels": 6}
    with pytest.raises(ValueError, match="must have margins"):
        baselines.make_baseline("near", "", near, "")
    tied = {**near, "W": np.array([-2.0, 3.0, 0.5])}
    with pytest.raises(ValueError, match="must have margins"):
        baselines.make_baseline("tied", "", tied, "")
    assert baselines.make_baseline("tied", "", tied, "", tie=True).outputs["Q"].tolist() == [0, 5, 2]
    with pytest.raises(ValueError, match="must have margins"):
        baselines.make_baseline("clear", "", {**near, "W": np.array([-2.0, 3.0])}, "", tie=True)


def test_a_tie_follows_its_rule_in_every_type() -> None:
    case = named("inq-halfway")
    down = Reference(Knobs(inq_ties="down"), "float32").baseline(**case.inputs)
    assert wrong(case, down, "float32") == ["Q", "G"]


def test_the_sign_of_the_gradient_of_wn_is_that_of_a_difference_quotient() -> None:
    case = named("ttq")
    g, W, t = (case.inputs[key] for key in ("g", "W", "threshold"))
    losses = [float((g * ttq.quantize(W, 0.75, n, t)).sum()) for n in (1.25, 1.5)]
    assert np.isclose((losses[1] - losses[0]) / 0.25, case.outputs["dnegative"])
    omitted = Reference(Knobs(ttq_minus="omitted")).baseline(**case.inputs)
    assert wrong(case, omitted) == ["dnegative"]


def test_pytorch_has_the_same_gradients_and_roundings() -> None:
    torch = pytest.importorskip("torch")
    for case in (case for case in ANSWERED if case.inputs["method"] == "ttq"):
        W, g = (torch.tensor(case.inputs[key]) for key in ("W", "g"))
        positive, negative = (torch.tensor(case.inputs[key], requires_grad=True) for key in SCALES)
        delta = case.inputs["threshold"] * W.abs().max()
        G = torch.where(W > delta, positive, torch.where(W < -delta, -negative, 0.0))
        (G * g).sum().backward()
        grads = {"dpositive": positive.grad.numpy(), "dnegative": negative.grad.numpy()}
        assert wrong(case, {**case.outputs, "G": G.detach().numpy(), **grads}) == []
    for name in ("affine-halves", "affine-both-ends-halfway"):
        case = named(name)
        rule = (float(case.outputs["alpha"]), int(case.outputs["zero"]), 0, case.inputs["levels"] - 1)
        G = torch.fake_quantize_per_tensor_affine(torch.tensor(case.inputs["W"]).float(), *rule)
        assert wrong(case, {**case.outputs, "G": G.numpy()}, "float32") == []


@pytest.mark.parametrize("seed", range(200))
def test_the_optimum_of_late_needs_no_feasibility(seed: int) -> None:
    # The best prefix of all is feasible, so leaving out the condition is no fault of its own.
    W, D = draws(seed, (6,), -4, 4, 4), draws(seed + 1000, (6,), 1, 9, 4)
    order = np.argsort(-abs(W), kind="stable")
    moment, mass = np.cumsum((D * abs(W))[order]), np.cumsum(D[order])
    alpha, b = lat.late(W, D)
    gain = (D * W**2).sum() - (D * (alpha * b - W) ** 2).sum()
    assert np.isclose(gain, (moment**2 / mass).max(), rtol=1e-12)


@functools.cache
def found() -> SelfTest:
    return selftest(CASES, faults=visible_in("baseline"))


def test_every_fault_is_killed_and_named_alone() -> None:
    assert found().problems == ()
    assert {kill.fault: kill.verdict for kill in found().kills if kill.verdict != "unique"} == {}
    assert len(found().kills) >= 60


def test_every_method_has_faults_and_every_fault_a_case_of_its_method() -> None:
    own = [fault for fault in visible_in("baseline") if fault.stage == "baseline"]
    prefixes = {"dq-affine": "affine", "vq-exact": "vq", "distilquant": "distil", "lat-two-scale": "lat"}
    for method in BASELINE_METHODS:
        faults = [fault for fault in own if fault.id.startswith(f"{prefixes.get(method, method)}-")]
        assert len(faults) >= 3, method
    killed = {kill.fault: kill.cases for kill in found().kills}
    for fault in own:
        prefix = fault.id.partition("-")[0]
        methods = {str(named(id_.partition("/")[2]).inputs["method"]) for id_ in killed[fault.id]}
        expected = {method for method in BASELINE_METHODS if method.startswith(prefix[:3])}
        known = {"affine": {"dq-affine"}, "vq": {"vq-exact"}}.get(prefix, expected)
        assert methods and methods <= (known | {"lat-two-scale"} if prefix == "late" else known), fault.id


def test_two_faults_of_different_methods_are_both_named() -> None:
    knobs = turn(["ttq-minus-omitted", "trn-output-blocks"])
    assert knobs is not None and find("trn-output-blocks").stage == "baseline"
    answered = []
    for case in ANSWERED:
        answers = Reference(knobs).baseline(**case.inputs)
        answered.append((case, answers, bool(wrong(case, answers))))
    assert explain("baseline", answered).candidates == (("ttq-minus-omitted", "trn-output-blocks"),)
