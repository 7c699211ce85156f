"""Cases of the conformance kit: three channels agree, cases catch what they say, planted errors show."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refldnq.verify.kit import channels
from refldnq.verify.kit.cases import TIERS, Case, all_cases
from refldnq.verify.kit.channels import OPS, disagreements
from refldnq.verify.kit.families import _exact, admm, dual, hessian, pack, patches, projection, proximal
from refldnq.verify.kit.families._make import CLEAR, make
from refldnq.verify.kit.families._numbers import draws, fractions, hadamard, rounded
from refldnq.verify.kit.families._problems import POWERS
from refldnq.verify.kit.faults import CATALOGUE, turn
from refldnq.verify.kit.reference import Reference
from refldnq.verify.kit.runner import run
from refldnq.verify.naive.hessian import layer_error
from refldnq.verify.naive.projection import brute_force, nearest, residual

FAMILIES = (patches, hessian, pack, proximal, projection, dual, admm)
NEAR_TIES = ("project/ties-", "project/beside-ties-", "admm/start-is-optimal", "admm/on-thresholds")


@functools.cache
def suite() -> tuple[Case, ...]:
    """The cases of this file's operations."""
    return tuple(case for family in FAMILIES for case in family.cases())


def find(id_: str) -> Case:
    return next(case for case in suite() if case.id == id_)


def answered() -> list[Case]:
    return [case for case in suite() if case.error is None]


# The suite ---------------------------------------------------------------------------------------------


def test_every_operation_has_cases_of_several_tiers() -> None:
    assert {case.op for case in suite()} == set(OPS)
    assert {case.tier for case in suite()} == set(TIERS)
    for op in OPS:
        mine = [case for case in suite() if case.op == op]
        assert len(mine) >= 10, op
        assert any(case.error for case in mine) and any(case.error is None for case in mine), op
    for op in ("proximal", "project", "dual", "admm"):
        assert {"exact-dyadic", "certified", "degenerate", "theorems"} <= {
            c.tier for c in suite() if c.op == op
        }


def test_the_suite_is_collected_once_and_in_order() -> None:
    found = all_cases()
    assert found is all_cases()
    assert len({case.id for case in found}) == len(found)
    assert {case.id for case in suite()} <= {case.id for case in found}


def test_a_repeated_id_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dual, "cases", lambda: (case for case in suite() if case.op in ("dual", "pack")))
    with pytest.raises(ValueError, match=r"`id` must be unique, got pack/conv-3x3 twice"):
        all_cases.__wrapped__()


def test_generation_is_always_the_same() -> None:
    again = [case for family in FAMILIES for case in family.cases()]
    for old, new in zip(suite(), again, strict=True):
        assert old.id == new.id and old.kappa == new.kappa
        for name in ("inputs", "outputs", "bound", "margin", "allowed"):
            first, second = getattr(old, name), getattr(new, name)
            assert first.keys() == second.keys()
            for key in first:
                assert np.asarray(first[key]).tobytes() == np.asarray(second[key]).tobytes(), (old.id, key)


@pytest.mark.parametrize("op", OPS)
def test_arrays_fit_each_other(op: str) -> None:
    for case in answered():
        if case.op != op:
            continue
        for name, array in case.outputs.items():
            assert array.dtype in (np.float64, np.int8, np.int64) and np.isfinite(array).all()
            kind = case.compare[name]
            if kind in ("dot", "ulp"):
                assert case.bound[name].shape == array.shape, (case.id, name)
                assert (case.bound[name] >= 0).all()
            if kind == "code":
                assert case.margin[name].shape == case.allowed[name].shape == array.shape, (case.id, name)
                assert (case.allowed[name] >> array.astype(np.int64) & 1 == 1).all(), (case.id, name)
        assert case.scored == any(np.any(array) for array in case.outputs.values()), case.id


@pytest.mark.parametrize("op", OPS)
def test_float32_sees_the_same_question(op: str) -> None:
    for case in answered():
        if case.op == op and case.kappa < 1e6:
            for name, value in case.inputs.items():
                if isinstance(value, np.ndarray) and value.dtype == np.float64:
                    assert np.array_equal(value.astype(np.float32), value), (case.id, name)


def test_exact_dyadic_answers_need_no_rounding_in_any_type() -> None:
    for case in answered():
        if case.tier == "exact-dyadic":
            found = _exact.solve(case.op, case.inputs).outputs
            for name, array in case.outputs.items():
                values = rounded(array).ravel()
                assert np.array_equal(values.astype(np.float32), values), (case.id, name)
                if np.asarray(found[name]).dtype == object:
                    assert [Fraction(value) for value in values.tolist()] == list(found[name].ravel()), (
                        case.id
                    )


def test_numbers_keep_away_from_thresholds() -> None:
    for case in answered():
        if not case.id.startswith(NEAR_TIES):
            assert all(np.min(margin) >= CLEAR for margin in case.margin.values()), case.id


def test_float32_takes_the_same_way() -> None:
    # The margins promise it: no code differs, so that a free run in float32 is comparable.
    for case in answered():
        if case.op == "admm":
            found = Reference(dtype="float32").admm(**case.inputs)
            assert np.array_equal(found["Q"], case.outputs["Q"]), case.id
            assert int(found["best"]) == int(case.outputs["best"]), case.id


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"op": "solved"}, "`op` must be one of"),
        ({"tier": "easy"}, "`tier` must be one of"),
        ({"id": "pack/matrix"}, "`id` must begin with 'dual/'"),
        ({"error": "no answer"}, "`outputs` of dual/matrix must be empty"),
        ({"compare": {}}, "`compare` of dual/matrix must name"),
        ({"compare": {"lam_new": "allclose"}}, "`compare` must be one of"),
        ({"certified": "by eye"}, "`certified` must be one of"),
        ({"bound": {"lam": 1}}, "`outputs` must be one of"),
    ],
)
def test_cases_are_checked(changes: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(find("dual/matrix"), **changes)


right_integers, right_inverse, right_nearest = _exact._integers, _exact.inverse, _exact.nearest


# Three channels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", OPS)
def test_three_channels_agree(op: str) -> None:
    lines = [line for case in answered() if case.op == op for line in disagreements(case)]
    assert lines == []


SMALL = {
    "patches": "patches/conv-s3-gaps",
    "hessian": "hessian/conv-s3-gaps",
    "pack": "pack/conv-groups",
    "proximal": "proximal/small",
    "project": "project/five-warm",
    "dual": "dual/matrix",
    "admm": "admm/three-levels",
}


@pytest.mark.parametrize("op", OPS)
def test_a_wrong_value_does_not_ship(op: str) -> None:
    case = find(SMALL[op])
    for name, array in case.outputs.items():
        wrong = array.copy()
        wrong.flat[-1] = (
            wrong.flat[-1] + 1 if wrong.dtype.kind == "i" else np.nextafter(wrong.flat[-1], np.inf)
        )
        lines = disagreements(replace(case, outputs={**case.outputs, name: wrong}))
        assert any(f"{name} is not the correctly rounded" in line for line in lines), name


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("channel", ["library", "loops"])
def test_a_wrong_channel_is_noticed(op: str, channel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = getattr(channels, channel)

    def wrong(asked: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        found = dict(right(asked, inputs))
        last = list(find(SMALL[op]).outputs)[-1]
        array = np.array(found[last])
        array.flat[0] += 1 if array.dtype.kind == "i" else 1e-9 * (1 + abs(array.flat[0]))
        return {**found, last: array}

    monkeypatch.setattr(channels, channel, wrong)
    lines = disagreements(find(SMALL[op]))
    assert lines and all(channel in line for line in lines)


@pytest.mark.parametrize(
    ("op", "function", "planted"),
    [
        ("hessian", "_integers", lambda array: (right_integers(array)[0] * 3, right_integers(array)[1] * 2)),
        ("proximal", "inverse", lambda A: right_inverse(A).T * 2),
        ("project", "nearest", lambda V, alpha, values, ties: right_nearest(V, alpha / 2, values, ties)),
    ],
)
def test_a_wrong_generator_is_noticed(
    op: str, function: str, planted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The case is made by the wrong arithmetic: the first channel agrees with itself, the others do not.
    good = find(SMALL[op])
    monkeypatch.setattr(_exact, function, planted)
    bad = make(op, "planted", "wrong on purpose", good.inputs, near=True)
    assert disagreements(bad) and not any("correctly rounded" in line for line in disagreements(bad))


def test_what_must_be_refused_has_no_channels() -> None:
    with pytest.raises(ValueError, match="`case` must have answers"):
        disagreements(find("dual/refuse-nan-in-g"))


# Exact arithmetic --------------------------------------------------------------------------------------


small = st.integers(-8, 8)


@given(st.lists(st.lists(small, min_size=3, max_size=3), min_size=3, max_size=3))
def test_inverse(rows: list[list[int]]) -> None:
    A = fractions(np.array(rows, dtype=float))
    A = A @ A.T + fractions(np.eye(3))
    assert (_exact.inverse(A) @ A == fractions(np.eye(3))).all()


def test_a_singular_matrix_has_no_inverse() -> None:
    with pytest.raises(ZeroDivisionError):
        _exact.inverse(fractions(np.ones((2, 2))))


@given(
    st.lists(st.integers(-40, 40), min_size=1, max_size=8),
    st.integers(1, 16),
    st.sampled_from([3, 5, 7, 9]),
    st.sampled_from(["smaller", "larger", "zero"]),
)
def test_rounding_is_that_of_the_definition(V: list[int], alpha: int, levels: int, ties: str) -> None:
    exact, scale = fractions(np.array(V, dtype=float)) / 4, Fraction(alpha, 4)
    codes, margin, allowed = _exact.nearest(exact, scale, fractions(POWERS[levels]), ties)
    values = [int(value) for value in POWERS[levels]]
    assert codes.tolist() == [nearest(v, scale, values, ties) for v in exact]
    for v, code, near, mask in zip(exact, codes.tolist(), margin, allowed.tolist(), strict=True):
        tied = sorted(abs(v - scale * value) for value in values)
        assert (near == 0) == (tied[0] == tied[1])
        assert mask >> code & 1 == 1 and bin(mask).count("1") == (1 if near == 0 else 2)


@given(st.lists(small, min_size=1, max_size=4), st.sampled_from([3, 5]))
def test_the_optimum_is_that_of_all_roundings(V: list[int], levels: int) -> None:
    exact, values = fractions(np.array(V, dtype=float)), fractions(POWERS[levels])
    try:
        point = _exact.optimum(exact, values, "smaller")
    except ValueError:  # two are nearly as good
        return
    least = brute_force(list(exact), list(values))[2]
    assert residual(list(exact), point.alpha, list(values[point.codes])) == least


@given(st.lists(st.integers(-60, 60), min_size=1, max_size=8), st.integers(1, 40), st.sampled_from([3, 5, 7]))
def test_the_alternation_ends_at_a_fixed_point(V: list[int], alpha0: int, levels: int) -> None:
    exact, values = fractions(np.array(V, dtype=float)), fractions(POWERS[levels])
    point = _exact.alternate(exact, values, Fraction(alpha0, 2), -1, "smaller")
    if point.alpha:
        Q = values[point.codes]
        assert Q @ exact / (Q @ Q) == point.alpha
        assert (_exact.nearest(exact, point.alpha, values, "smaller")[0] == point.codes).all()
    else:
        assert not any(V)


def test_half_the_hessians_form_is_the_layer_error() -> None:
    inputs = {**find("hessian/conv-s3-gaps").inputs, "bias": True}
    H = _exact.hessian(inputs).outputs["H"][0]
    rows = fractions(_exact.patches(inputs).outputs["patches"])
    flat = rows.reshape(-1, rows.shape[-1])
    W, G = (fractions(draws(seed, (len(H), 2), -9, 9, 4)) for seed in (1, 2))
    form = ((G - W) * (H @ (G - W))).sum() / 2
    assert form == layer_error(flat, W, G, images=len(rows))


def test_margins_are_asked_for() -> None:
    tied = {**find("project/five-warm").inputs, "V": np.array([1.0, 0.5]), "alpha0": 1.0, "passes": 0}
    with pytest.raises(ValueError, match="must have margins"):
        make("project", "tied", "on a threshold", tied)
    assert make("project", "tied", "on a threshold", tied, near=True).margin["Q"].tolist() == [1 / 3, 0.0]
    with pytest.raises(ValueError, match="`V` must have a distinct optimum"):
        make(
            "project", "tied", "", {**tied, "kind": "exact", "V": np.array([29.0, 12.0]), "values": POWERS[3]}
        )


def test_draws_never_change() -> None:
    assert draws(7, (3,), -100, 100).tolist() == [-76.0, 26.0, -98.0]
    many = draws(3, (4000,), 0, 9)
    assert np.bincount(many.astype(int)).min() > 300
    assert np.array_equal(hadamard(8) @ hadamard(8).T, 8 * np.eye(8))


# What cases say of themselves --------------------------------------------------------------------------


def test_every_case_has_a_purpose() -> None:
    for case in suite():
        assert case.catches or "smoke" in case.flags, case.id
        assert len(set(case.catches)) == len(case.catches) and case.comment, case.id


def test_every_fault_of_these_operations_has_a_case() -> None:
    declared = {id_ for case in suite() for id_ in case.catches}
    mine = {fault.id for fault in CATALOGUE if fault.stage in OPS}
    assert declared == mine


@pytest.mark.parametrize("op", OPS)
def test_cases_catch_the_faults_that_they_name(op: str) -> None:
    judge = pytest.importorskip("refldnq.verify.kit.rules").judge
    named: dict[str, list[Case]] = {}
    for case in suite():
        for id_ in case.catches if case.op == op else ():
            named.setdefault(id_, []).append(case)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for id_, mine in named.items():
            found = run(Reference(turn([id_])), mine, judge=judge, diagnose=False)
            assert [one.case.id for one in found.outcomes if one.state != "FAIL"] == [], id_
        right = run(Reference(), [case for case in suite() if case.op == op], judge=judge, diagnose=False)
    assert {one.state for one in right.outcomes} == {"pass"}


# The theorems tier -------------------------------------------------------------------------------------


def test_theorems_hold_in_the_answers() -> None:
    stays = find("proximal/weights-stay")
    assert np.array_equal(stays.outputs["Theta"], stays.inputs["W_bar"])
    fixed = find("proximal/fixed-point")
    assert np.array_equal(fixed.outputs["Theta"], fixed.inputs["G"])
    for n in (3, 15):
        stalled, best = find(f"project/alternation-stalls-{n}"), find(f"project/optimum-{n}")
        V = stalled.inputs["V"]
        costs = [float(((V - case.outputs["G"]) ** 2).sum()) for case in (stalled, best)]
        assert stalled.outputs["alpha"] == (2 * n + 1) / (n + 1) and costs[1] == n
        assert costs[0] == pytest.approx(n**2 * n / (n + 1)) and costs[0] > 2 * costs[1]
    E = find("admm/guaranteed").outputs["E"]
    problem = find("admm/guaranteed").inputs
    assert problem["rho"] > np.linalg.eigvalsh(problem["H"])[-1] and (E <= E[0]).all()
    assert find("admm/stall-alternating").outputs["E"][-1] > 2 * find("admm/stall-exact").outputs["E"][-1]
    codes = find("admm/no-rest").outputs["Q"]
    assert (codes[1:] != codes[:-1]).any(axis=(1, 2)).sum() >= 3


def test_nobody_can_change_a_case() -> None:
    for case in all_cases():
        for name, value in case.inputs.items():
            if isinstance(value, np.ndarray):
                assert not value.flags.writeable, (case.id, name)
