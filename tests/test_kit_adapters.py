"""The kit's adapters on cases made by hand: faults are caught and named, correct variants pass."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from refldnq.codebook import powers_of_two
from refldnq.layers import Conv2d
from refldnq.solvers.admm import AdmmSettings, solve
from refldnq.verify.kit import diagnose, report
from refldnq.verify.kit.cases import all_cases
from refldnq.verify.kit.contract import OPERATIONS, Conventions, Info, to_paper
from refldnq.verify.kit.external import Recorded, info_of
from refldnq.verify.kit.faults import CATALOGUE, find, turn, visible_in
from refldnq.verify.kit.knobs import Knobs
from refldnq.verify.kit.plugin import Kit
from refldnq.verify.kit.reference import Reference
from refldnq.verify.kit.runner import KitRun, check_echo, run
from refldnq.verify.kit.selftest import SelfTest, kill_matrix, selftest


@dataclass(frozen=True)
class HandMade:
    """What the kit reads of a case."""

    op: str
    id: str
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    error: str | None = None
    kappa: float = 1.0
    scored: bool = True
    flags: tuple[str, ...] = ()
    tier: str = "certified"
    catches: tuple[str, ...] = ()
    conventions: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    ok: bool
    text: str

    def __str__(self) -> str:
        return self.text


def judge(case: Any, answers: Mapping[str, Any], dtype: str) -> Sequence[Found]:
    """Same shape, and 1e-12 of the largest entry (1e-4 in float32); codes are equal."""
    limit = 1e-12 if dtype == "float64" else 1e-4
    found = []
    for name, want in case.outputs.items():
        got, want = np.asarray(answers.get(name, np.nan)), np.asarray(want)
        if got.shape != want.shape:
            found.append(Found(False, f"{name} has shape {got.shape}, want {want.shape}"))
            continue
        if name == "Theta" and case.op == "proximal":
            found.append(residual(case.inputs, got, float(np.finfo(dtype).eps) / 2))
            continue
        allowed = 0.0 if want.dtype.kind == "i" else limit * np.abs(want).max(initial=0)
        error = float(np.abs(got.astype(float) - want.astype(float)).max(initial=0))
        found.append(Found(error <= allowed, f"{name} is off by {error:.1e}"))
    return found


def residual(given: Mapping[str, Any], theta: Any, unit: float) -> Found:
    """The backward error of the proximal step in long double, at most 30 d roundoffs."""
    H, W, G, lam = (np.asarray(given[k]).astype(np.longdouble) for k in ("H", "W_bar", "G", "lam"))
    A = H + given["rho"] * np.eye(len(H))
    right, size = H @ W + given["rho"] * (G - lam), np.abs(H) @ np.abs(W) + given["rho"] * (abs(G) + abs(lam))
    size = np.linalg.norm((np.abs(A) @ np.abs(theta) + size).astype(np.float64))
    error = np.linalg.norm((right - A @ theta).astype(np.float64)) / (len(H) * unit * size)
    return Found(bool(error <= 30), f"backward error {error:.1e}")


def layers() -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    geometries: list[dict[str, Any]] = [
        {"weight_shape": (1, 2, 3, 2, 3), "stride": (2, 1), "padding": (1, 0, 2, 1), "bias": True},
        {"weight_shape": (2, 2, 2, 3, 3), "stride": (2, 2), "padding": (1, 1, 1, 1), "groups": 2},
        {"weight_shape": (1, 2, 2, 3, 3), "dilation": (2, 2), "padding": (2, 2, 2, 2)},
        {"weight_shape": (1, 2, 4, 1, 1), "bias": True},
    ]
    made = []
    for geometry in geometries:
        channels = geometry["weight_shape"][0] * geometry["weight_shape"][2]
        X = rng.integers(-8, 9, (3, channels, 6, 8)) / 8 + rng.standard_normal((3, channels, 6, 8)) / 9
        full = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1, "bias": False}
        made.append({**full, **geometry, "X": X})
    return made


def problems() -> list[dict[str, Any]]:
    made = []
    for seed, (d, m, levels) in enumerate([(3, 2, 3), (6, 3, 5), (8, 4, 7)]):
        rng = np.random.default_rng(seed)
        X = rng.standard_normal((20, d)) @ (np.eye(d) + 0.6 * rng.standard_normal((d, d)))
        W = rng.standard_normal((d, m))
        made.append(
            {
                "H": X.T @ X / 10,
                "W_bar": W,
                "G": np.round(W),
                "lam": rng.standard_normal((d, m)) / 4,
                "Theta": W + rng.standard_normal((d, m)) / 8,
                "rho": 0.3 + seed,
                "values": powers_of_two(levels).values,
            }
        )
    return made


def vectors() -> list[dict[str, Any]]:
    rng = np.random.default_rng(5)
    base = {"alpha0": 1.0, "kind": "alternating", "passes": 0, "ties": "smaller"}
    five, seven, nine = (powers_of_two(n).values for n in (5, 7, 9))
    return [
        {**base, "V": np.array([0.5, -0.5, 1.5, -1.5, 3.0, -3.0, 1.0]), "values": seven},
        {**base, "V": np.array([1.45, -1.45, 2.9, 5.8, 0.3, -7.0]), "values": nine},
        {**base, "V": rng.standard_normal(60) * 3, "values": seven, "passes": -1, "alpha0": 0.4},
        {**base, "V": rng.standard_normal(60) * 3, "values": seven, "passes": -1, "alpha0": 0.0},
        {**base, "V": rng.standard_normal(40) * 3, "values": seven, "passes": 1, "alpha0": 4.0},
        {**base, "V": rng.standard_normal(300), "values": five, "passes": -1, "alpha0": 0.1},
        {**base, "V": np.array([1.0, 0.5, -0.25]), "values": five, "passes": -1, "alpha0": 50.0},
        {**base, "V": np.array([4.0, 1.0, 1.0, 1.0]), "values": powers_of_two(3).values, "kind": "exact"},
        {**base, "V": np.array([4.0, 1.0, 1.0, 1.0]), "values": powers_of_two(3).values, "passes": -1},
        {**base, "V": rng.standard_normal(300) * 1e-3, "values": five, "passes": -1, "alpha0": 1e-4},
    ]


FAULTS = tuple(
    fault
    for fault in CATALOGUE
    if fault.stage in ("patches", "hessian", "pack", "proximal", "project", "dual", "admm")
)
"""Those of the operations that are asked below."""


@functools.cache
def suite() -> tuple[Any, ...]:
    """Cases whose answers the reference gives; it is compared with the library below."""
    asked: list[tuple[str, dict[str, Any]]] = []
    for layer in layers():
        asked += [("patches", layer), ("hessian", layer)]
        g, m, *kernel = layer["weight_shape"]
        weight = np.random.default_rng(1).standard_normal((g * m, *kernel))
        bias = np.arange(1.0, g * m + 1) if layer["bias"] else None
        asked.append(("pack", {"weight": weight, "bias": bias, "groups": g}))
    for one in problems():
        asked.append(("proximal", {k: one[k] for k in ("H", "W_bar", "G", "lam", "rho")}))
        asked.append(("dual", {k: one[k] for k in ("lam", "Theta", "G")}))
        start = {"G0": one["G"], "lam0": one["lam"], "K": 8, "projection": "alternating", "returned": "best"}
        asked.append(("admm", {k: one[k] for k in ("H", "W_bar", "values", "rho")} | start))
    hilbert = 1 / (np.arange(8)[:, None] + np.arange(1.0, 9))
    ones = np.ones((8, 1))
    asked.append(("proximal", {"H": hilbert, "W_bar": ones, "G": ones, "lam": ones / 2, "rho": 1e-12}))
    # A start that is optimal: every iteration has the objective 0.
    same = np.array([[1.0], [-1.0]])
    fixed = {"H": np.eye(2), "W_bar": same, "G0": same, "lam0": 0 * same, "values": powers_of_two(3).values}
    asked.append(("admm", {**fixed, "rho": 3.0, "K": 3, "projection": "alternating", "returned": "best"}))
    asked += [("project", one) for one in vectors()]
    right, made = Reference(), []
    for number, (op, inputs) in enumerate(asked):
        kappa, tier = (2e10, "ill-conditioned") if inputs.get("rho") == 1e-12 else (1.0, "certified")
        outputs = getattr(right, op)(**inputs)
        made.append(HandMade(op, f"{op}/{number:02d}", inputs, outputs, kappa=kappa, tier=tier))
    made.append(
        HandMade("project", "project/nan", {**vectors()[0], "V": np.array([np.nan])}, {}, error="nan")
    )
    made.append(HandMade("project", "project/nothing", {**vectors()[0], "V": np.zeros(0)}, {}, error="empty"))
    one = {k: problems()[0][k] for k in ("H", "W_bar", "G", "lam", "rho")}
    made.append(HandMade("proximal", "proximal/rho-0", {**one, "rho": 0.0}, {}, error="rho"))
    return tuple(made)


def go(adapter: Any, **more: Any) -> KitRun:
    return run(adapter, suite(), judge=judge, **more)


@functools.cache
def own_test() -> SelfTest:
    return selftest(suite(), judge=judge, faults=FAULTS)


# The reference is the library --------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(4))
def test_reference_hessian_and_packing_are_the_librarys(number: int) -> None:
    one = layers()[number]
    g, m, c, kh, kw = one["weight_shape"]
    layer = Conv2d(
        g * c, g * m, (kh, kw), one["stride"], one["padding"], one["dilation"], g, bias=one["bias"]
    )
    H = Reference().hessian(**one)["H"]
    want = layer.hessian(one["X"], bias=one["bias"])
    assert np.abs(H - want).max() <= 1e-13 * np.abs(want).max()
    params = {
        name: np.random.default_rng(2).standard_normal(s) for name, s in layer.parameter_shapes().items()
    }
    packed = Reference().pack(weight=params["weight"], bias=params.get("bias"), groups=g)["W"]
    assert np.array_equal(packed, layer.pack(params, bias=one["bias"]))


@pytest.mark.parametrize("number", range(3))
def test_reference_admm_is_the_librarys(number: int) -> None:
    one = problems()[number]
    settings = AdmmSettings(rho=one["rho"], rho_scale="absolute", iterations=12)
    solution = solve(one["H"][None], one["W_bar"][None], powers_of_two(len(one["values"])), settings)
    first = Reference().project(V=one["W_bar"], values=one["values"], alpha0=0.0, kind="alternating")
    inputs = {k: one[k] for k in ("H", "W_bar", "values", "rho")}
    G0 = first["G"].reshape(one["W_bar"].shape)
    fixed = {"K": 12, "projection": "alternating", "returned": "best", "alpha0": first["alpha"]}
    found = Reference().admm(**inputs, **fixed, G0=G0, lam0=0 * G0)
    assert np.abs(found["E"] - solution.trace.objective).max() <= 1e-12 * solution.trace.objective.max()
    assert np.abs(found["result"] - solution.G[0]).max() <= 1e-12
    assert int(found["best"]) == solution.best_iteration


@pytest.mark.parametrize("number", range(10))
def test_the_alternation_with_knobs_is_the_librarys(number: int) -> None:
    one = vectors()[number]
    if one["kind"] == "exact":
        one = {**one, "kind": "alternating"}
    library, own = Reference().project(**one), Reference(Knobs(backwards=True)).project(**one)
    assert np.array_equal(library["Q"], own["Q"])
    assert np.abs(library["G"] - own["G"]).max() <= 1e-13 * np.abs(library["G"]).max()
    assert int(library["passes"]) == int(own["passes"])


# Every fault is caught and named -----------------------------------------------------------------------


def test_the_catalogue() -> None:
    assert len(CATALOGUE) >= 45
    assert len({fault.id for fault in CATALOGUE}) == len(CATALOGUE)
    for fault in CATALOGUE:
        knobs = turn([fault.id])
        assert knobs is not None and knobs.turned() == dict(fault.changes)
        assert set(fault.ops) <= set(OPERATIONS) and fault in visible_in(fault.stage)
    with pytest.raises(ValueError, match="`fault` must be one of"):
        find("no-such-fault")


@pytest.mark.parametrize("fault", [fault.id for fault in FAULTS])
def test_every_fault_is_killed_and_named(fault: str) -> None:
    kill = next(one for one in own_test().kills if one.fault == fault)
    assert kill.verdict in ("unique", "ambiguous"), kill


def test_variants_pass_and_empty_answers_fail() -> None:
    found = own_test()
    assert all(not ids for ids in found.variants.values()), found.variants
    assert found.golden == ()
    assert all(not ids for how, ids in found.empty.items() if how != "zeros"), found.empty
    assert "unique" in kill_matrix(found) and "ties-zero" in kill_matrix(found)


def test_a_blind_judge_fails_the_selftest() -> None:
    blind = lambda case, answers, dtype: [Found(True, "")]  # noqa: E731
    found = selftest(suite()[:3], judge=blind, faults=[find("h-sum")])
    assert "fault h-sum survives" in found.problems
    assert any(line.startswith("NaN passes") for line in found.problems)


@pytest.mark.parametrize(
    "planted",
    [
        ("rows-kh-kw-c", "h-sum"),
        ("padding-same", "ties-zero"),
        ("dual-sign", "dual-twice"),
        ("h-positions", "pack-bias-first", "alpha-mean"),
        ("kernel-flipped", "thresholds-geometric", "dual-frozen"),
        ("h-centred", "rho-stale", "admm-last"),
    ],
)
def test_combinations_are_named(planted: tuple[str, ...]) -> None:
    found = go(Reference(turn(planted)))
    named = {id_ for one in found.explanations.values() for ids in one.candidates for id_ in ids}
    assert set(planted) <= named, report.to_text(found)
    assert found.exit_code == 1


def test_two_faults_of_one_step_are_named_together() -> None:
    found = go(Reference(turn(["h-without-2", "h-centred"])))
    assert ("h-without-2", "h-centred") in found.explanations["hessian"].candidates


def test_a_later_step_that_fails_for_an_earlier_ones_fault_is_blocked() -> None:
    found = go(Reference(turn(["rows-kh-kw-c"])))
    states = {one.case.op: one.state for one in found.outcomes if one.state in ("FAIL", "blocked")}
    assert states == {"patches": "FAIL", "hessian": "blocked"}
    assert found.explanations["hessian"].candidates == ()


def only(*ops: str) -> tuple[Any, ...]:
    return tuple(case for case in suite() if case.op in ops)


def test_what_no_fault_explains_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    class Strange(Reference):
        def dual(self, **inputs: Any) -> dict[str, Any]:
            return {"lam_new": np.cos(super().dual(**inputs)["lam_new"])}

    found = run(Strange(), only("dual"), judge=judge)
    assert found.explanations["dual"].text == "nothing in the catalogue matches"
    assert "CAUSE in dual: nothing in the catalogue matches" in report.to_text(found)
    assert found.explanations["dual"].replays > diagnose.SIEVE
    monkeypatch.setattr(diagnose, "MOST_REPLAYS", diagnose.SIEVE)
    assert run(Strange(), only("dual"), judge=judge).explanations["dual"].candidates == ()


def test_part_of_the_failures_is_explained_as_far_as_it_goes() -> None:
    class Strange(Reference):
        def dual(self, **inputs: Any) -> dict[str, Any]:
            found = super().dual(**inputs)["lam_new"]
            return {"lam_new": np.cos(found) if len(found) == 3 else found}

    found = run(Strange(turn(["dual-twice"])), only("dual"), judge=judge).explanations["dual"]
    assert found.candidates == (("dual-twice",),) and (found.covered, found.failing) == (2, 3)
    assert found.text == "dual-twice (2 of 3 failing cases)"


@pytest.mark.parametrize("op", ["proximal", "hessian"])
def test_lost_digits_are_named_by_their_size(op: str) -> None:
    # No two implementations round alike: here float32 enters in another way than in the catalogue.
    class Single(Reference):
        def hessian(self, **inputs: Any) -> dict[str, Any]:
            rows = self.patches(**inputs)["patches"]
            H = sum(np.einsum("pgi,pgj->gij", image, image) for image in rows.astype(np.float32))
            return {"H": np.asarray(H * np.float32(2 / len(rows)), dtype=np.float64)}

        def proximal(self, **inputs: Any) -> dict[str, Any]:
            H, W, G, lam = (inputs[name].astype(np.float32) for name in ("H", "W_bar", "G", "lam"))
            rho = np.float32(inputs["rho"])
            A = H + rho * np.eye(len(H), dtype=np.float32)
            return {"Theta": (np.linalg.inv(A) @ (H @ W + rho * (G - lam))).astype(np.float64)}

    asked = tuple(case for case in only(op) if case.kappa < 1e3)
    found = run(Single(), asked, judge=judge).explanations[op]
    assert {"proximal": "solve-single", "hessian": "h-single"}[op] in {one[0] for one in found.candidates}
    assert ("h-half",) not in found.candidates


def test_a_crash_is_explained_by_what_crashes_too() -> None:
    class Fragile(Reference):
        def dual(self, **inputs: Any) -> dict[str, Any]:
            if len(inputs["lam"]) == 3:
                raise RuntimeError("three")
            return super().dual(**inputs)

    found = run(Fragile(turn(["dual-twice"])), only("dual"), judge=judge).explanations["dual"]
    assert found.candidates == (("dual-twice",),) and (found.covered, found.failing) == (2, 3)


def test_what_must_be_refused_is_explained_too() -> None:
    found = go(Reference(turn(["rho-unchecked"])))
    assert found.explanations["proximal"].candidates == (("rho-unchecked",),)
    assert found.count("FAIL") == 1


def test_steps_that_share_no_code_are_explained_apart() -> None:
    # ADMM has its own dual step, which is wrong in another way than the operation `dual`.
    class Two(Reference):
        def admm(self, **inputs: Any) -> dict[str, Any]:
            return Reference(turn(["dual-relaxed"])).admm(**inputs)

    found = go(Two(turn(["dual-twice"]))).explanations
    assert found["dual"].candidates == (("dual-twice",),)
    assert found["admm"].base == () and found["admm"].candidates == (("dual-relaxed",),)


def test_a_later_step_tells_apart_what_an_earlier_one_cannot() -> None:
    column = tuple(case for case in only("project") if case.inputs["passes"] < 0)[:1]
    found = run(Reference(turn(["levels-short"])), (*column, *only("admm")), judge=judge).explanations
    assert ("levels-short",) in found["project"].candidates
    assert found["admm"].base == ("levels-short",) and found["admm"].inherited


# The runner --------------------------------------------------------------------------------------------


class Other(Reference):
    """The reference under other conventions and with fewer operations."""

    conventions = Conventions()
    capabilities = frozenset(OPERATIONS)

    def info(self) -> Info:
        return replace(super().info(), conventions=self.conventions, capabilities=self.capabilities)


@pytest.mark.parametrize(
    ("declared", "knobs"),
    [
        (Conventions(h_scale="1/n"), Knobs(scale="1/n")),
        (Conventions(h_scale="1"), Knobs(scale="1")),
        (Conventions(h_scale="2"), Knobs(scale="2")),
        (Conventions(h_scale="1/(n*p)"), Knobs(scale="1/(n*p)")),
        (Conventions(h_scale="2/(n*p)"), Knobs(scale="2/(n*p)")),
        (Conventions(row_order="kh,kw,c"), Knobs(row_order="kh,kw,c", pack_order="kh,kw,c")),
        (Conventions(bias_slot="first"), Knobs(bias_slot="first", pack_bias="first")),
    ],
)
def test_declared_differences_are_converted_and_undeclared_ones_fail(declared: Any, knobs: Knobs) -> None:
    adapter = Other(knobs)
    assert go(adapter).exit_code == 1
    adapter.conventions = declared
    assert go(adapter).exit_code == 0


def test_all_of_a_kernel_order_is_converted() -> None:
    one = layers()[0]
    both = Conventions(row_order="kh,kw,c", bias_slot="first")
    answers = Reference(Knobs(row_order="kh,kw,c", bias_slot="first")).patches(**one)
    assert np.array_equal(
        to_paper("patches", answers, one, both)["patches"], Reference().patches(**one)["patches"]
    )


def test_same_padding_is_asked_where_it_is_the_layers_own() -> None:
    adapter = Other(Knobs(padding="same"))
    adapter.conventions, adapter.capabilities = Conventions(padding="same"), frozenset({"patches", "hessian"})
    found = go(adapter)
    inapplicable = {one.case.id for one in found.outcomes if one.state == "inapplicable"}
    undeclared = go(Other(Knobs(padding="same"))).outcomes
    assert inapplicable == {one.case.id for one in undeclared if one.state in ("FAIL", "blocked")}
    assert found.count("pass") == 8 - len(inapplicable) > 0 and found.exit_code == 0


def test_states_are_counted() -> None:
    adapter = Other()
    adapter.capabilities = frozenset({"patches", "dual"})
    adapter.conventions = Conventions(padding="same")
    found = go(adapter)
    assert found.count("inapplicable") == 2 and found.count("pass") == 5
    assert found.count("not implemented") == len(suite()) - 7
    assert found.ran == 5 and found.exit_code == 0
    assert "listed" in report.summary(found) and "not implemented" in report.summary(found)
    adapter.capabilities = frozenset()
    assert go(adapter).exit_code == 2  # nothing run is no pass


def test_a_declared_operation_without_an_answer() -> None:
    class Silent(Other):
        def dual(self, **_: Any) -> Any:
            return None

        def pack(self, **_: Any) -> Any:
            raise NotImplementedError("later")

    adapter = Silent()
    adapter.capabilities = frozenset(OPERATIONS) - {"admm"}  # which calls both
    found = go(adapter)
    assert found.count("unanswered") == 7 and found.exit_code == 2


def test_a_crash_is_a_failure_and_an_error_case_wants_a_refusal() -> None:
    class Broken(Reference):
        def dual(self, **_: Any) -> Any:
            raise RuntimeError("boom")

        def read(self, array: Any) -> Any:
            return np.nan_to_num(np.asarray(array, dtype=np.float64))

    found = go(Broken())
    failed = {one.case.id: one.messages for one in found.outcomes if one.state == "FAIL"}
    assert failed["project/nan"][0].startswith("must be refused")
    assert any("RuntimeError: boom" in messages[0] for messages in failed.values())


def test_expected_failures() -> None:
    bad = Reference(turn(["ties-up"]))
    failing = [one.case.id for one in go(bad).outcomes if one.state == "FAIL"]
    known = dict.fromkeys(failing, "ties are not implemented")
    assert go(bad, xfail=known).exit_code == 0
    assert go(Reference(), xfail=known).count("unexpected pass") == len(failing)
    with pytest.raises(ValueError, match="`xfail` must be one of"):
        go(bad, xfail={"no/such-case": "because"})


@pytest.mark.parametrize(
    "how", [lambda X: X.T, lambda X: X.astype(np.float16), lambda X: X + 1, lambda X: 1 / 0]
)
def test_the_handshake(how: Any) -> None:
    class Deaf(Reference):
        def echo(self, X: Any) -> Any:
            return how(X)

    assert check_echo(Deaf(), Deaf().info())
    assert go(Deaf()).exit_code == 1


def test_conventions_are_checked() -> None:
    assert Conventions.of({"ties": "zero"}).ties == "zero"
    with pytest.raises(ValueError, match="`conventions` must be one of"):
        Conventions.of({"tie": "zero"})
    with pytest.raises(ValueError, match="`h_scale` must be one of"):
        Conventions(h_scale="3/n")
    assert set(Conventions.profile("released-2019").differences(Conventions())) >= {"row_order", "padding"}


# Reports -----------------------------------------------------------------------------------------------


def test_reports_agree_on_the_counts() -> None:
    found = go(Reference(turn(["h-sum"])))
    text, page = report.to_text(found), report.to_markdown(found)
    assert "LIKELY CAUSE in hessian" in text and "h-sum" in page and report.summary(found) in page
    content = json.loads(json.dumps(report.to_json(found), allow_nan=False))
    assert content["counts"]["listed"] == len(content["cases"]) == len(suite())
    tree = ElementTree.fromstring(report.to_junit(found))
    assert int(tree.attrib["failures"]) == len(tree.findall(".//failure")) == found.count("FAIL") > 0


# Verdicts on trajectories, refusals, answers without a question ----------------------------------------


def trajectories() -> list[Any]:
    return [case for case in all_cases() if case.op == "admm" and case.error is None][:4]


def test_a_right_trajectory_has_three_good_verdicts() -> None:
    found = run(Reference(), trajectories())
    for one in found.outcomes:
        assert one.verdicts == {
            "certificate": "pass",
            "teacher-forced": "pass",
            "free run": "the expected codes",
        }
    assert "TRAJECTORIES 4 | certificate pass 4" in report.to_text(found)
    assert report.to_json(found)["cases"][0]["verdicts"]["certificate"] == "pass"


def test_a_wrong_step_is_where_the_teacher_left_it() -> None:
    found = run(Reference(turn(["dual-twice"])), trajectories(), diagnose=False)
    forced = [one.verdicts["teacher-forced"] for one in found.outcomes]
    assert all("iteration 0" in said and ", dual: " in said for said in forced)
    text = report.to_text(found)
    assert "teacher-forced: FAIL: iteration 0" in text and "certificate FAIL 4" in text


def test_a_wrong_loop_has_right_steps() -> None:
    """Only the order is wrong: every step by itself is right, the trajectory is not."""

    class Late(Reference):
        def admm(self, **inputs: Any) -> Any:
            trace = dict(super().admm(**inputs))
            lam = np.concatenate([inputs["lam0"][None], trace["lam"][:-1]])
            return {**trace, "lam": lam}

    found = run(Late(), trajectories(), diagnose=False)
    for one in found.outcomes:
        assert one.state == "FAIL" and one.verdicts["teacher-forced"] == "pass"


def test_a_trajectory_of_the_wrong_shape_is_not_compared() -> None:
    class Short(Reference):
        def admm(self, **inputs: Any) -> Any:
            return {
                name: np.asarray(array)[:-1] if name == "V" else array
                for name, array in super().admm(**inputs).items()
            }

    found = run(Short(), trajectories()[:1], diagnose=False)
    assert "not comparable: V: must have shape" in found.outcomes[0].verdicts["free run"]


class BindingError(RuntimeError):
    """What a binding to another language raises."""


@pytest.mark.parametrize("declared", [(), (RuntimeError, LookupError, ArithmeticError)], ids=["", "declared"])
@pytest.mark.parametrize(
    ("error", "refusal"),
    [
        *((error, "never") for error in (NameError, AttributeError, TypeError, ImportError, AssertionError)),
        *((error, "never") for error in (MemoryError, RecursionError, ModuleNotFoundError, SystemError)),
        *((error, "declared") for error in (BindingError, IndexError, KeyError, ZeroDivisionError)),
        (ValueError, "always"),
        (np.linalg.LinAlgError, "always"),
    ],
)
def test_a_crash_is_no_refusal(
    error: type[Exception], refusal: str, declared: tuple[type[Exception], ...]
) -> None:
    class Broken(Reference):
        def info(self) -> Any:
            return replace(super().info(), refusals=declared)

        def dual(self, **inputs: Any) -> Any:
            raise error("oh")

    found = run(Broken(), [case for case in all_cases() if case.id == "dual/refuse-nan-in-g"])
    (one,) = found.outcomes
    passes = refusal == "always" or (refusal == "declared" and bool(declared))
    assert one.state == ("pass" if passes else "FAIL")
    assert error.__name__ in one.messages[0]
    assert passes or "by a ValueError or a type that info() names" in one.messages[1]


def test_nobody_can_declare_that_crashes_are_refusals() -> None:
    info = Reference().info()
    for hidden in (Exception, TypeError, ModuleNotFoundError):
        with pytest.raises(ValueError, match=f"must not hold {hidden.__name__}"):
            replace(info, refusals=(hidden,))
    strangers: list[Any] = [ValueError("no"), KeyboardInterrupt, "ValueError"]
    for strange in strangers:
        with pytest.raises(TypeError, match="must hold types of exceptions"):
            replace(info, refusals=(strange,))


def test_the_reference_refuses_by_its_own_words() -> None:
    refused = [case for case in all_cases() if case.error is not None]
    assert {one.state for one in run(Reference(), refused, diagnose=False).outcomes} == {"pass"}


def test_answers_without_a_question_are_listed() -> None:
    case = next(case for case in all_cases() if case.op == "dual" and case.error is None)
    answers = {case.id: dict(case.outputs), "dual/mispelt": {"lam_new": np.ones(1)}}
    found = run(Recorded(info_of({}, ["dual"]), answers), [case])
    assert found.unknown == ("dual/mispelt",) and found.exit_code == 2 and found.count("pass") == 1
    assert "UNKNOWN dual/mispelt" in report.to_text(found) and "no handshake" in report.to_text(found)
    assert "dual/mispelt" in report.to_markdown(found)
    assert report.to_json(found)["unknown"] == ["dual/mispelt"]
    other = next(one.id for one in all_cases() if one.op == "hessian")  # in the suite, not asked this time
    rest = run(Recorded(info_of({}, ["dual"]), {case.id: dict(case.outputs), other: {}}), [case])
    assert rest.unknown == () and rest.exit_code == 0


def test_unknown_answers_and_a_failed_handshake_are_in_junit() -> None:
    case = next(case for case in all_cases() if case.op == "dual" and case.error is None)
    answers = {case.id: dict(case.outputs), "dual/mispelt": {"lam_new": np.ones(1)}}
    root = ElementTree.fromstring(report.to_junit(run(Recorded(info_of({}, ["dual"]), answers), [case])))
    assert root.attrib["errors"] == "1" and root.attrib["tests"] == "2" == str(len(root))

    class Reversed(Reference):
        def echo(self, X: Any) -> Any:
            return X.T

    root = ElementTree.fromstring(report.to_junit(run(Reversed(), [case])))
    assert root.attrib["failures"] == "1" and "axes reversed" in ElementTree.tostring(
        root, encoding="unicode"
    )


@pytest.mark.parametrize("declared", [{}, {"h_scale": "1/n"}, {"stop": "ascend3"}])
def test_ragged_answers_fail_and_do_not_end_the_run(declared: dict[str, Any]) -> None:
    class Ragged(Reference):
        def info(self) -> Info:
            return replace(super().info(), conventions=Conventions(**declared))

        def hessian(self, **inputs: Any) -> Any:
            return {"H": [[1.0], [2.0, 3.0]]}

        def patches(self, **inputs: Any) -> Any:
            return {"patches": np.full((1, 1, 1, 1), "1")}

        def admm(self, **inputs: Any) -> Any:
            return {**super().admm(**inputs), "Q": [[1], [2, 3]]}

    chosen = [
        case for case in all_cases() if case.op in ("hessian", "patches", "admm") and case.error is None
    ]
    found = run(Ragged(), chosen, diagnose=False)
    states = {one.state for one in found.outcomes}
    assert states <= {"FAIL", "inapplicable"} and "FAIL" in states
    assert report.to_text(found)


# What an adapter returned is read apart from the call ----------------------------------------------------


class NoArrayError(Exception):
    """An answer cannot be made an array."""


class Unwilling:
    """An answer that is no array, as a tensor that asks for its gradient."""

    def __init__(self, error: type[BaseException]) -> None:
        self._error = error

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise self._error("not now")


class Falling(Mapping[str, Any]):
    """A mapping that cannot be read."""

    def __getitem__(self, name: str) -> Any:
        raise ValueError(name)

    def __iter__(self) -> Any:
        return iter(("Q",))

    def __len__(self) -> int:
        return 1


def lazily() -> Any:
    """Answers that end in an error."""
    yield np.ones(1)
    raise ValueError("inputs must be finite")


@pytest.mark.parametrize(
    "bad",
    [
        *(lambda: (), lambda: (np.zeros(3, np.int8), 1.0), lambda: (1, 2, 3, 4, 5), lambda: 7),
        *(lazily, Falling, lambda: {"Q": [[1], [1, 2]]}),
        *(lambda: {"G": Unwilling(ValueError)}, lambda: {"G": Unwilling(NoArrayError)}),
        lambda: {"G": Unwilling(SystemExit)},
    ],
)
@pytest.mark.parametrize("refused", [True, False])
def test_what_cannot_be_read_is_no_refusal(bad: Any, refused: bool) -> None:
    class Careless(Reference):
        def project(self, **_: Any) -> Any:
            return bad()

    case = next(one for one in all_cases() if one.op == "project" and (one.error is not None) == refused)
    (one,) = run(Careless(), [case], diagnose=False).outcomes
    assert one.state == "FAIL" and one.answers is None
    assert one.messages[0].startswith("cannot read what was returned for Q, alpha, G, passes: ")
    assert (len(one.messages) > 1) == refused


def test_answers_that_are_no_arrays_do_not_end_the_run() -> None:
    class Unread(Reference):
        def hessian(self, **_: Any) -> Any:
            return Unwilling(RuntimeError)

        def admm(self, **inputs: Any) -> Any:
            return {**super().admm(**inputs), "Q": Unwilling(RuntimeError)}

    asked = [case for case in all_cases() if case.op == "hessian"][:3]
    assert run(Unread(), [*asked, *trajectories()[:1]]).count("FAIL") == 4


# One rule for what a refusal is ------------------------------------------------------------------------

RULE = (
    (ValueError, "refusal"),
    (BindingError, "refusal"),
    (NotImplementedError, "unanswered"),
    (RecursionError, "crash"),
    (ZeroDivisionError, "crash"),
    (SystemExit, "crash"),
)


def raising(error: type[BaseException]) -> Any:
    def call(*_: Any, **__: Any) -> Any:
        raise error("oh")

    return call


@pytest.mark.parametrize(("error", "kind"), RULE)
def test_runner_plugin_and_replays_have_one_rule(
    error: type[BaseException], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = (RuntimeError,)
    case = next(case for case in all_cases() if case.id == "dual/refuse-nan-in-g")
    known = replace(Reference().info(), refusals=declared)
    assert known.reply(raising(error)).kind == kind
    monkeypatch.setattr(Reference, "info", lambda self: known)
    monkeypatch.setattr(Reference, "dual", raising(error))
    states = {"refusal": "pass", "unanswered": "unanswered", "crash": "FAIL"}
    assert run(Reference(), [case], diagnose=False).outcomes[0].state == states[kind]
    replays = diagnose.Replays()
    assert replays.reply(case, ()).kind == kind and replays.answers(case, ()) is None
    kit: Any = Kit.__new__(Kit)
    if kind == "refusal":
        kit.refuse(case, raising(error), declared)
    else:
        with pytest.raises(pytest.fail.Exception, match=f"raised {error.__name__}: oh; it must be refused"):
            kit.refuse(case, raising(error), declared)


def test_no_gap_can_be_declared_a_refusal() -> None:
    with pytest.raises(ValueError, match="must not hold NotImplementedError"):
        replace(Reference().info(), refusals=(NotImplementedError,))


def test_the_end_of_the_session_passes_through() -> None:
    with pytest.raises(KeyboardInterrupt):
        Reference().info().reply(raising(KeyboardInterrupt))


def test_a_replay_that_refuses_does_not_explain_a_crash() -> None:
    case = next(case for case in all_cases() if case.id == "dual/refuse-nan-in-g")
    replays = diagnose.Replays()
    assert replays.reply(case, ("dual-twice",)).kind == "refusal"
    assert not replays.reproduces((case, None, True), ("dual-twice",))
    answered = next(case for case in all_cases() if case.op == "dual" and case.error is None)
    assert not replays.reproduces((answered, None, True), ("dual-twice",))


@pytest.mark.parametrize("faulty", [False, True])
def test_a_crash_in_place_of_a_refusal_is_no_evidence_for_or_against_a_fault(faulty: bool) -> None:
    """It fails by its own line; the fault beside it still explains all the other failing cases."""

    class Crashing(Reference):
        def dual(self, **inputs: Any) -> dict[str, Any]:
            try:
                return super().dual(**inputs)
            except ValueError as error:
                raise TypeError("no number") from error

    crashing = Crashing(turn(("dual-step-sign",)) if faulty else Knobs())
    result = run(crashing, [case for case in all_cases() if case.op == "dual"])
    crashed = [one for one in result.outcomes if one.case.error is not None]
    assert crashed and all(one.state == "FAIL" for one in crashed)
    if faulty:
        known = result.explanations["dual"]
        assert known.candidates[0] == ("dual-step-sign",) and known.covered == known.failing
        assert known.failing == sum(one.state == "FAIL" for one in result.outcomes) - len(crashed)
    else:
        assert "dual" not in result.explanations


def test_a_step_that_is_not_there_does_not_spoil_the_verdict() -> None:
    class Gap(Reference):
        def dual(self, **_: Any) -> Any:
            raise NotImplementedError

        def admm(self, **inputs: Any) -> Any:
            return Reference().admm(**inputs)

    (one,) = run(Gap(), trajectories()[:1]).outcomes
    assert one.verdicts["teacher-forced"] == "pass"


def test_an_accident_by_a_value_error_counts_as_a_refusal() -> None:
    """The limit that the pages state: the kit sees the type of the exception only."""
    known = Reference().info()
    assert known.reply(lambda: int(float("nan"))).kind == "refusal"
    assert known.reply(lambda: np.ones(2) + np.ones(3)).kind == "refusal"
    assert known.reply(lambda: int(float("inf"))).kind == "crash"
