"""Every declared convention is converted and tested: declared it passes, undeclared it fails."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from refldnq.codebook import scaled
from refldnq.solvers.admm import AdmmSettings, solve
from refldnq.verify.kit import convert, rules
from refldnq.verify.kit.cases import Case, all_cases
from refldnq.verify.kit.contract import MATTERS, Conventions, Info
from refldnq.verify.kit.families import _exact
from refldnq.verify.kit.knobs import Knobs
from refldnq.verify.kit.reference import Reference
from refldnq.verify.kit.runner import run
from refldnq.verify.naive.hessian import objective
from refldnq.verify.naive.projection import best_scale, nearest, residual

OPS = ("patches", "hessian", "pack", "proximal", "project", "dual", "admm")


@functools.cache
def suite(*ops: str) -> tuple[Case, ...]:
    return tuple(case for case in all_cases() if case.op in (ops or OPS))


class Other(Reference):
    """The reference with knobs, and with what it declares."""

    declared = Conventions()

    def info(self) -> Info:
        return replace(super().info(), conventions=self.declared)


class OwnUnit(Other):
    """ρ comes in units of something of H."""

    unit = "h00"

    def scaled(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        H = np.asarray(inputs["H"])
        spectrum = np.linalg.eigvalsh(H) if np.isfinite(H).all() else np.ones(1)
        of = {"h00": H[0, 0], "mean_diagonal": np.trace(H) / len(H), "lambda_max": spectrum[-1]}
        return {**inputs, "rho": inputs["rho"] * float(of[self.unit])}

    def proximal(self, **inputs: Any) -> dict[str, Any]:
        return super().proximal(**self.scaled(inputs))

    def admm(self, **inputs: Any) -> dict[str, Any]:
        plain = Reference(self.knobs, self.dtype.name)
        return plain.admm(**self.scaled(inputs))


class OwnStart(Other):
    """Where ADMM starts is not an input."""

    start = "direct"

    def admm(self, **inputs: Any) -> dict[str, Any]:
        W, H, levels = (self.read(inputs[name]) for name in ("W_bar", "H", "values"))
        passes = 0 if self.start == "direct" else -1
        kind = inputs["projection"]
        found = self.project(V=W, values=levels, alpha0=0.0, passes=passes, kind=kind)
        if self.start == "direct":
            mean = np.abs(W).mean()
            found = self.project(V=W, values=levels, alpha0=mean, passes=0)
        G0 = np.asarray(found["G"]).reshape(W.shape)
        rho = self.dtype.type(inputs["rho"])
        if not rho > 0:
            raise ValueError(f"`rho` must be greater than 0, got {rho}.")
        lam0 = -(H @ (G0 - W)) / rho if self.start == "guaranteed" else np.zeros_like(W)
        return super().admm(**{**inputs, "G0": G0, "lam0": lam0})


def adapter(
    kind: type[Other], knobs: Knobs, declared: Conventions, dtype: str = "float64", **more: str
) -> Any:
    made = kind(knobs, dtype)
    made.declared = declared
    for name, value in more.items():
        setattr(made, name, value)
    return made


WAYS: Mapping[str, tuple[Conventions, tuple[type[Other], Knobs, dict[str, str]]]] = {
    "h_scale": (Conventions(h_scale="1/(n*p)"), (Other, Knobs(scale="1/(n*p)"), {})),
    "row_order": (
        Conventions(row_order="kh,kw,c"),
        (Other, Knobs(row_order="kh,kw,c", pack_order="kh,kw,c"), {}),
    ),
    "bias_slot": (Conventions(bias_slot="first"), (Other, Knobs(bias_slot="first", pack_bias="first"), {})),
    "padding": (Conventions(padding="same"), (Other, Knobs(padding="same"), {})),
    "rho h00": (Conventions(rho="h00"), (OwnUnit, Knobs(), {"unit": "h00"})),
    "rho mean_diagonal": (Conventions(rho="mean_diagonal"), (OwnUnit, Knobs(), {"unit": "mean_diagonal"})),
    "rho lambda_max": (Conventions(rho="lambda_max"), (OwnUnit, Knobs(), {"unit": "lambda_max"})),
    "restart": (Conventions(restart="cold"), (Other, Knobs(restart="mean of V"), {})),
    "alpha0": (Conventions(restart="cold", alpha0="mean_w"), (Other, Knobs(restart="mean of W"), {})),
    "start direct": (Conventions(start="direct"), (OwnStart, Knobs(), {"start": "direct"})),
    "start guaranteed": (Conventions(start="guaranteed"), (OwnStart, Knobs(), {"start": "guaranteed"})),
    "projection": (Conventions(projection="exact"), (Other, Knobs(method="exact"), {})),
    "passes": (Conventions(passes=2), (Other, Knobs(passes="two"), {})),
    "alpha_tolerance and kept_pass": (
        Conventions(passes=10, alpha_tolerance=1e-3, kept_pass="best"),
        (Other, Knobs(passes="released"), {}),
    ),
    "ties larger": (Conventions(ties="larger"), (Other, Knobs(ties="larger"), {})),
    "ties zero": (Conventions(ties="zero"), (Other, Knobs(ties="zero"), {})),
    "stop fixed_point": (Conventions(stop="fixed_point"), (Other, Knobs(stop="fixed_point"), {})),
    "stop ascend3": (Conventions(stop="ascend3"), (Other, Knobs(stop="ascend3"), {})),
    "returned": (Conventions(returned="last"), (Other, Knobs(returned="last"), {})),
    "refit": (Conventions(refit=True), (Other, Knobs(refit=True), {})),
}

CONVERTED = {"h_scale": ["hessian"], "row_order": ["patches", "hessian", "pack"]}
CONVERTED["bias_slot"] = CONVERTED["row_order"]
"""Where the answers themselves are converted."""


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_declared_it_passes_and_undeclared_it_fails(name: str, dtype: str) -> None:
    declared, (kind, knobs, more) = WAYS[name]
    keys = changed(declared)
    asked = [op for op in OPS if any(key in MATTERS.get(op, ()) for key in keys)] or CONVERTED[keys[0]]
    cases = suite(*asked)
    good = run(adapter(kind, knobs, declared, dtype, **more), cases, diagnose=False)
    assert [(one.case.id, one.messages) for one in good.outcomes if one.state == "FAIL"] == []
    for op in asked:
        states = Counter(one.state for one in good.outcomes if one.case.op == op)
        assert states["pass"] > 0.7 * sum(states.values()), (op, states)  # not waved through
    forced = [(one.case.id, one.verdicts["teacher-forced"]) for one in good.outcomes if one.verdicts]
    # On thresholds a start rounded to float32 decides otherwise than the float64 of the question.
    apart = {"admm/on-thresholds"} if dtype == "float32" else set()
    assert [one for one in forced if one[1] not in ("pass", "not asked") and one[0] not in apart] == []
    bad = run(adapter(kind, knobs, Conventions(), dtype, **more), cases, diagnose=False)
    assert {one.case.op for one in bad.outcomes if one.state == "FAIL"} == set(asked)
    assert bad.exit_code == 1


def changed(declared: Conventions) -> tuple[str, ...]:
    return declared.differences(Conventions())


def test_every_convention_is_tried() -> None:
    tried = {name for declared, _ in WAYS.values() for name in changed(declared)}
    assert tried == set(Conventions().to_json())


@pytest.mark.parametrize("name", [name for name, (declared, _) in WAYS.items() if "ties" not in name])
def test_declaring_what_is_not_done_fails(name: str) -> None:
    declared, _ = WAYS[name]
    keys = changed(declared)
    asked = [op for op in OPS if any(key in MATTERS.get(op, ()) for key in keys)] or CONVERTED[keys[0]]
    assert run(adapter(Other, Knobs(), declared), suite(*asked), diagnose=False).exit_code == 1


def test_a_fault_under_other_conventions_is_named() -> None:
    declared = Conventions(restart="cold", alpha0="mean_w", stop="ascend3")
    knobs = Knobs(restart="mean of W", stop="ascend3", shifted="Theta")
    found = run(adapter(Other, knobs, declared), suite("proximal", "project", "dual", "admm"))
    assert found.explanations["admm"].candidates == (("v-theta",),)


# The profile released-2019 -----------------------------------------------------------------------------


class Released:
    """The released code's ADMM as `released.py` and the settings describe it, by loops."""

    def info(self) -> Info:
        return Info(
            name="loops",
            version="1",
            dtype="float64",
            capabilities=frozenset({"admm"}),
            conventions=Conventions.profile("released-2019"),
        )

    def echo(self, X: Any) -> Any:
        return X

    def admm(self, **inputs: Any) -> dict[str, Any]:
        H, W, levels = (np.asarray(inputs[name]) for name in ("H", "W_bar", "values"))
        if not all(np.isfinite(np.asarray(inputs[name])).all() for name in ("H", "W_bar", "G0", "lam0")):
            raise ValueError("not finite")
        rho, values = float(inputs["rho"]) * H[0, 0], levels.tolist()
        if not rho > 0:
            raise ValueError("rho")
        rule = "zero" if len(values) <= 9 else "smaller"
        mean = float(np.abs(W).mean())
        G = mean * levels[[nearest(w, mean, values, rule) for w in W.ravel()]].reshape(W.shape)
        lam, E, best, idle = 0 * W, [float(objective(H, W, G))], 0, 0
        points, rows = [G], []
        for k in range(1, int(inputs["K"]) + 1):
            theta = np.linalg.solve(H + rho * np.eye(len(H)), H @ W + rho * (G - lam))
            V = theta + lam
            codes, alpha = self.passes(V.ravel().tolist(), values, mean, rule)
            G = alpha * levels[codes].reshape(W.shape)
            lam = lam + theta - G
            E.append(float(objective(H, W, G)))
            points.append(G)
            rows.append((theta, V, np.array(codes, dtype=np.int8).reshape(W.shape), alpha, G, lam))
            improved = 2 * E[best] - 2 * E[k] > 1e-3
            best, idle = (k, 0) if improved else (best, idle + 1)
            if idle == 3:
                break
        names = ("Theta", "V", "Q", "alpha", "G", "lam")
        trace = {name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
        return {**trace, "E": np.array(E), "best": np.array(best), "result": points[best]}

    def passes(self, V: list[float], values: list[float], alpha: float, rule: str) -> tuple[list[int], float]:
        kept = None
        for count in range(11):
            codes = [nearest(v, alpha, values, rule) for v in V]
            if kept is None:
                kept = residual(V, alpha, [values[k] for k in codes]), codes, alpha
            if count == 10:
                break
            Q = [values[k] for k in codes]
            new = float(best_scale(V, Q))
            cost = residual(V, new, Q)
            kept = min(kept, (cost, codes, new), key=lambda one: one[0])
            step, alpha = abs(new - alpha), new
            if step < 1e-3 or new == 0:
                break
        assert kept is not None
        _, codes, alpha = kept
        zero = values.index(0.0)
        return (codes, alpha) if alpha and any(k != zero for k in codes) else ([zero] * len(V), 0.0)


def test_the_released_profile_tests_trajectories() -> None:
    # That code has one projection, and returns the best.
    own = ("alternating", "best")
    cases = [
        case
        for case in suite("admm")
        if case.error or (case.inputs["projection"], case.inputs["returned"]) == own
    ]
    found = run(Released(), cases, diagnose=False)
    states = Counter(one.state for one in found.outcomes)
    assert [(one.case.id, one.messages) for one in found.outcomes if one.state == "FAIL"] == []
    assert states["pass"] >= 18 and states["inapplicable"] <= 4, states  # without a first input ρ is 0
    as_paper = Released()
    as_paper.info = lambda: replace(Released.info(as_paper), conventions=Conventions())  # type: ignore[method-assign]
    assert run(as_paper, cases, diagnose=False).count("FAIL") > 12


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"returned": "last", "stop": "none"},
        {"refit": True},
        {"start": "guaranteed", "kept_pass": "last", "alpha_tolerance": 0.0, "passes": 1},
        {"rho": "mean_diagonal", "alpha0": "mean_v", "ties": "larger"},
        {"stop": "fixed_point"},
    ],
)
def test_the_solver_agrees_with_what_was_found_anew(changes: dict[str, Any]) -> None:
    """The library's solver under the same settings: a second channel beside rational arithmetic."""
    declared = replace(Conventions.profile("released-2019"), **changes)
    settings = AdmmSettings(
        rho_scale=declared.rho,  # type: ignore[arg-type]
        projection=declared.projection,  # type: ignore[arg-type]
        warm_start=False,
        cold_start=declared.alpha0,  # type: ignore[arg-type]
        max_passes=declared.passes,
        alpha_tolerance=declared.alpha_tolerance or None,
        keep_best_pass=declared.kept_pass == "best",
        ties=declared.ties,  # type: ignore[arg-type]
        start=declared.start,  # type: ignore[arg-type]
        returned=declared.returned,  # type: ignore[arg-type]
        refit_alpha=declared.refit,
        stop=declared.stop,  # type: ignore[arg-type]
    )
    compared = 0
    for case in suite("admm"):
        if case.error is not None:
            continue
        made = convert.under(case, declared)
        if isinstance(made, str):
            continue
        given = case.inputs
        how = replace(settings, rho=given["rho"], iterations=int(given["K"]))
        if given["returned"] == "last" or given["projection"] == "exact":
            how = replace(how, returned=given["returned"], projection=given["projection"])
        found = solve(given["H"][None], given["W_bar"][None], scaled(given["values"]), how)
        if np.min(made.margin["Q"]) < 1e-9 or np.min(made.margin["best"]) < 1e-9:  # type: ignore[attr-defined]
            continue  # both ways are right
        compared += 1
        E = made.outputs["E"]
        assert found.trace is not None and np.allclose(found.trace.objective, E, rtol=1e-9, atol=1e-12)
        if how.projection != "exact":  # an optimal G can have two scales: α Q = (α/2) (2 Q)
            assert np.allclose(found.trace.alpha[1:], made.outputs["alpha"], rtol=1e-9, atol=1e-12), case.id
        assert found.best_iteration == made.outputs["best"]
        assert np.allclose(found.G[0], made.outputs["result"], rtol=1e-8, atol=1e-12), case.id
    assert compared >= 8


# Stopping is a decision --------------------------------------------------------------------------------


def judged(made: Case, answers: Mapping[str, Any]) -> dict[str, bool]:
    return {one.name: one.ok for one in rules.judge(made, answers, "float64")}


def stopped() -> tuple[Case, dict[str, Any]]:
    case = next(case for case in suite("admm") if case.id == "admm/seven-levels")
    made = convert.under(case, Conventions(stop="ascend3"))
    assert isinstance(made, Case)
    answers = dict(made.outputs)
    assert len(answers["Q"]) < case.inputs["K"] and all(judged(made, answers).values())
    return made, answers


def cut(answers: Mapping[str, Any], rows: int) -> dict[str, Any]:
    ends = {name: rows + (name == "E") for name in answers if name not in ("best", "result")}
    return {**answers, **{name: answers[name][:end] for name, end in ends.items()}}


def test_an_iteration_too_few_or_too_many_fails() -> None:
    made, answers = stopped()
    assert not all(judged(made, cut(answers, len(answers["Q"]) - 1)).values())
    longer = Reference().admm(**{**made.inputs, "stop": "none"})
    best = int(answers["best"])
    kept = {**longer, "best": best, "result": longer["G"][best - 1]}  # of its own scale, to the last bit
    np.testing.assert_allclose(kept["result"], answers["result"], rtol=1e-12)
    assert not all(judged(made, cut(kept, len(answers["Q"]) + 1)).values())
    assert not all(judged(made, kept).values())
    assert all(judged(made, cut(kept, len(answers["Q"]))).values())


def test_a_gain_near_the_least_may_be_taken_either_way() -> None:
    # Nothing moves but the objective: 2f falls by 1e-3 and a little; the slack of f decides what is near.
    made, answers = stopped()
    for off, want in ((0.0, True), (1e-6, False)):
        gains = [float(_exact.LEAST_GAIN) / 2 + sign * off for sign in (1, -1)]
        for gain, length, best, ok in zip(
            2 * gains, (5, 5, 4, 4), (1, 1, 0, 0), (True, want, want, True), strict=False
        ):
            E = np.array([1.0, 1.0 - gain, 1.0, 1.0, 1.0])[:length]
            assert _walk(made, {**answers, "E": E}).stopped(E, best).ok == ok, (off, gain, length)


def _walk(made: Case, answers: Mapping[str, Any]) -> Any:
    from refldnq.verify.kit.trajectory import _Walk

    walk = _Walk(made, answers, 2.0**-53)
    walk.K = len(answers["E"]) - 1
    walk.point = lambda k: made.inputs["G0"]  # type: ignore[method-assign]
    return walk


def test_a_fixed_point_ends_the_run() -> None:
    case = next(case for case in suite("admm") if case.id == "admm/start-is-optimal")
    made = convert.under(case, Conventions(stop="fixed_point"))
    assert isinstance(made, Case) and len(made.outputs["Q"]) == 1 < case.inputs["K"]
    assert all(judged(made, made.outputs).values())
    assert not all(judged(made, case.outputs).values())


def test_a_trace_that_ends_for_no_reason_fails() -> None:
    case = next(case for case in suite("admm") if case.id == "admm/small-rho")
    made = convert.under(case, Conventions(stop="fixed_point"))
    assert isinstance(made, Case) and len(made.outputs["Q"]) == case.inputs["K"]
    for rows in (0, 2, len(made.outputs["Q"]) - 1):
        assert not all(judged(made, cut(made.outputs, rows)).values())
    assert not all(judged(made, {**made.outputs, "Q": np.zeros(())}).values())


def test_what_cannot_be_asked_says_why() -> None:
    dead = next(case for case in suite("proximal") if case.id == "proximal/dead-first-input")
    assert "rho is 0" in str(convert.under(dead, Conventions(rho="h00")))
    recorded = replace(dead, certified="f64x2")
    assert convert.under(recorded, Conventions(rho="lambda_max")) == "declared otherwise: rho"
    stated = replace(dead, conventions={"rho": "h00"})
    assert convert.under(stated, Conventions(rho="h00")) is stated
    assert convert.under(stated, Conventions()) == "declared otherwise: rho"
