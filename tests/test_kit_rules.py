"""Pass or fail: every rule at its limit, on both sides; trajectories by their own transitions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refldnq.verify.kit import rules, trajectory
from refldnq.verify.kit.cases import Case, all_cases
from refldnq.verify.kit.families import admm, dual, hessian, projection, proximal
from refldnq.verify.kit.faults import turn
from refldnq.verify.kit.reference import Reference
from refldnq.verify.kit.runner import BEYOND

U = {"float64": 2.0**-53, "float32": 2.0**-24}
CASES = {case.id: case for family in (admm, dual, hessian, projection, proximal) for case in family.cases()}
TRAJECTORIES = [case for case in CASES.values() if case.op == "admm" and case.error is None]


def right(case: Case) -> dict[str, Any]:
    return dict(case.outputs) if case.error is None else {"error": "no"}


def ok(case: Case, answers: Mapping[str, Any], dtype: str = "float64") -> bool:
    return all(one.ok for one in rules.judge(case, answers, dtype))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_right_answers_pass(dtype: str) -> None:
    for case in CASES.values():
        judged = rules.judge(case, right(case), dtype)
        bad = [str(one) for one in judged if not one.ok]
        # Where no operation rounds, an answer in float32 must be the rounded one.
        exact = {name for name, how in case.compare.items() if how == "exact"}
        assert not [line for line in bad if line.split("[")[0] not in exact], (case.id, bad)
        assert dtype == "float32" or not bad


@pytest.mark.parametrize("spoil", ["zeros", "NaN", "empty", "shape", "missing", "text", "complex", "object"])
def test_worthless_answers_fail(spoil: str) -> None:
    ways: dict[str, Callable[[Any], Any]] = {
        "zeros": np.zeros_like,
        "NaN": lambda a: np.full(a.shape, np.nan),
        "empty": lambda a: np.empty(0, a.dtype),
        "shape": lambda a: a[None],
        "text": lambda a: np.full(a.shape, "1"),
        "complex": lambda a: a.astype(complex),
        "object": lambda a: a.astype(object),
    }
    for case in CASES.values():
        if case.error is None and (case.scored or spoil != "zeros"):
            answers = {
                name: ways[spoil](np.asarray(a)) for name, a in case.outputs.items() if spoil != "missing"
            }
            judged = rules.judge(case, answers, "float64")
            assert not all(one.ok for one in judged), case.id
            if spoil != "zeros":
                assert not any(one.ok for one in judged), case.id


def test_no_answers_at_all() -> None:
    case = CASES["dual/" + next(id_ for id_ in CASES if id_.startswith("dual/")).partition("/")[2]]
    assert not ok(case, {})
    assert not ok(case, [1.0])  # type: ignore[arg-type]
    assert not ok(case, {"lam_new": [[1.0], [1.0, 2.0]]})
    with pytest.raises(ValueError, match="`dtype` must be one of"):
        rules.judge(case, {}, "float16")


def test_refusals() -> None:
    refused = next(case for case in CASES.values() if case.error is not None)
    assert ok(refused, {"error": "no"}) and not ok(refused, {"Theta": np.zeros(2)})
    asked = next(case for case in CASES.values() if case.error is None)
    assert not ok(asked, {**asked.outputs, "error": "no"})


def case_of(compare: str, want: Any, bound: Any = None) -> Case:
    op, name = ("hessian", "H") if compare == "dot" else ("dual", "lam_new")
    inputs = {"X": np.ones((4, 1)), "weight_shape": np.array([1, 1, 1, 1, 1]), "bias": False}
    return Case(
        op=op,
        id=f"{op}/x",
        comment="",
        tier="certified",
        inputs=inputs,
        outputs={name: want},
        compare={name: compare},
        bound={} if bound is None else {name: bound},
    )


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("compare", "limit"), [("ulp", 4), ("dot", 8)])
def test_a_bound_is_a_bound_of_each_entry(compare: str, limit: int, dtype: str) -> None:
    want, bound = np.zeros((1, 2, 2)), np.array([[[1.0, 2.0], [4.0, 0.0]]])
    case = case_of(compare, want, bound=bound)
    name = next(iter(case.outputs))
    step = limit * U[dtype] * bound
    assert ok(case, {name: step}, dtype) and ok(case, {name: -step}, dtype)
    for at in np.ndindex(2, 2):
        off = np.zeros((1, 2, 2))
        off[0][at] = step[0][at] * (1 + 2**-20) or 1e-300
        found = rules.judge(case, {name: off}, dtype)[0]
        assert (
            not found.ok and f"{name}[0, {at[0]}, {at[1]}]" in found.message and f"> {limit}" in found.message
        )


def test_equality_is_that_of_the_rounded_answer() -> None:
    case = case_of("exact", np.array([0.1]))
    assert ok(case, {"lam_new": np.array([0.1])}) and not ok(
        case, {"lam_new": np.array([np.nextafter(0.1, 1)])}
    )
    single = {"lam_new": np.array([0.1], dtype=np.float32)}
    assert ok(case, single, "float32") and not ok(case, single)


def test_a_sum_of_unknown_length_is_the_kits_own_mistake() -> None:
    with pytest.raises(ValueError, match="the length of its sums is unknown"):
        rules.judge(replace_compare(case_of("ulp", np.ones(1))), {"lam_new": np.ones(1)}, "float64")


def replace_compare(case: Case) -> Case:
    return replace(case, compare=dict.fromkeys(case.outputs, "dot"))


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(-30, 30))
def test_residuals_are_those_of_fractions(seed: int, d: int, scale: int) -> None:
    rng = np.random.default_rng(seed)
    H, W, theta, G = (rng.standard_normal((d, k)) * 2.0**s for k, s in ((d, scale), (2, 0), (2, 0), (2, 5)))
    rho = float(rng.uniform(0.1, 9))
    found = rules.twofold(H, W - theta, W, theta, [(rho, G), (-rho, theta)])
    for i, j in np.ndindex(d, 2):
        terms = [
            Fraction(float(H[i, k])) * (Fraction(float(W[k, j])) - Fraction(float(theta[k, j])))
            for k in range(d)
        ]
        terms += [Fraction(rho) * Fraction(float(G[i, j])), -Fraction(rho) * Fraction(float(theta[i, j]))]
        size = float(sum(abs(term) for term in terms))
        error = abs(float(Fraction(float(found[i, j])) - sum(terms)))
        if not error <= 2.0**-53 * abs(float(sum(terms))) + 2.0**-95 * size:
            raise AssertionError((error, size))


def test_the_backward_error_is_judged_and_not_the_digits() -> None:
    case = CASES["proximal/hilbert-12"]
    answers = {"Theta": np.linalg.solve(case.inputs["H"] + case.inputs["rho"] * np.eye(12), right_side(case))}
    off = np.max(np.abs(answers["Theta"] - case.outputs["Theta"]))
    assert off > 1e-8  # far more than any sensible tolerance of entries
    assert ok(case, answers)
    moved = answers["Theta"].copy()
    moved[0, 1] *= 1 + 1e-12
    found = rules.judge(case, {"Theta": moved}, "float64")[0]
    assert not found.ok and "residual" in found.message and "digits agree" in found.message


def right_side(case: Case) -> Any:
    g = case.inputs
    return g["H"] @ g["W_bar"] + g["rho"] * (g["G"] - g["lam"])


def coded(margin: list[float], allowed: list[int]) -> Case:
    Q = np.array([1, 1], dtype=np.int8)
    inputs = {"W": np.ones((2, 1)), "values": np.array([-1.0, 0.0, 1.0]), "method": "mean"}
    return Case(
        op="quantizer",
        id="quantizer/x",
        comment="",
        tier="certified",
        inputs=inputs,
        outputs={"Q": Q},
        compare={"Q": "code"},
        margin={"Q": np.array(margin)},
        allowed={"Q": np.array(allowed)},
    )


def test_codes_are_decided_by_margins() -> None:
    limit = 20 * U["float64"]
    case = coded([limit, 1.0], [0b110, 0b110])
    assert ok(case, {"Q": np.array([1, 1])})
    other = rules.judge(case, {"Q": np.array([2, 1])}, "float64")[0]
    assert other.ok and other.licensed
    for wrong in ([0, 1], [1, 2], [-1, 1], [3, 1], [100, 1]):
        assert not ok(case, {"Q": np.array(wrong)})
    assert not ok(coded([limit * 1.01, 1.0], [0b110, 0b110]), {"Q": np.array([2, 1])})
    assert ok(coded([limit * 1.01, 1.0], [0b110, 0b110]), {"Q": np.array([2, 1])}, "float32")
    assert not ok(coded([0.0, 1.0], [0b010, 0b010]), {"Q": np.array([2, 1])})  # a tie has a rule
    assert not ok(coded([np.nan, 1.0], [0b010, 0b010]), {"Q": np.array([2, 1])})
    assert not ok(case, {"Q": np.array([1.0, 1.0])})  # codes are integers


# Trajectories ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_trajectories_of_the_reference_pass(dtype: str) -> None:
    for case in TRAJECTORIES:
        if case.kappa < 0.1 / U[dtype]:
            answers = Reference(dtype=dtype).admm(**case.inputs)
            bad = [str(one) for one in rules.judge(case, answers, dtype) if not one.ok]
            assert not bad, (case.id, bad)


@pytest.mark.parametrize(
    ("name", "hit"),
    [
        ("Theta", "Theta"),
        ("V", "V"),
        ("alpha", "alpha"),
        ("G", "G"),
        ("lam", "lam"),
        ("E", "E"),
        ("result", "result"),
    ],
)
def test_each_answer_of_a_trajectory_is_judged(name: str, hit: str) -> None:
    case = CASES["admm/convolution"]
    answers = {key: np.array(value) for key, value in case.outputs.items()}
    answers[name].ravel()[-1] += 1e-9 * np.max(np.abs(answers[name]))
    bad = {one.name: str(one) for one in rules.judge(case, answers, "float64") if not one.ok}
    assert hit in bad
    last = np.asarray(case.outputs[name]).shape[0] - 1
    assert name == "result" or f"iteration {last}" in bad[hit]


def test_codes_and_the_best_of_a_trajectory_are_judged() -> None:
    case = CASES["admm/convolution"]
    for name in ("Q", "best"):
        answers = {key: np.array(value) for key, value in case.outputs.items()}
        flat = answers[name].reshape(-1)
        flat[-1] = flat[-1] - 1 if flat[-1] else 1
        answers[name] = flat.reshape(answers[name].shape)
        assert name in {one.name for one in rules.judge(case, answers, "float64") if not one.ok}


def test_a_trajectory_with_a_part_missing_fails_as_a_whole() -> None:
    case = CASES["admm/convolution"]
    judged = rules.judge(case, {**case.outputs, "V": np.zeros(1)}, "float64")
    assert not any(one.ok for one in judged) and len(judged) == len(case.outputs)


@pytest.mark.parametrize("fault", ["dual-twice", "dual-sign", "rho-grows", "v-minus", "proximal-from-theta"])
def test_faults_of_trajectories_fail(fault: str) -> None:
    knobs = turn([fault])
    assert knobs is not None
    assert any(not ok(case, Reference(knobs).admm(**case.inputs)) for case in TRAJECTORIES)


def test_a_legitimate_branch_is_licensed() -> None:
    # V = (2, 1 + e) from α = 2 with e at the threshold of rounding: both codes of the second are right.
    values, near = np.array([-1.0, 0.0, 1.0]), 1 + 2.0**-52
    ends = trajectory.ends(np.array([2.0, near]), values, 2.0, limit=2.0**-48)
    assert ends is not None and sorted(end.codes.tolist() for end in ends) == [[2, 1], [2, 2]]
    only = trajectory.ends(np.array([2.0, near]), values, 2.0)
    assert only is not None and [end.codes.tolist() for end in only] == [[2, 2]]
    inputs = {
        "V": np.array([2.0, near]),
        "values": values,
        "alpha0": 2.0,
        "kind": "alternating",
        "passes": -1,
        "ties": "smaller",
    }
    case = Case(
        op="project",
        id="project/near",
        comment="",
        tier="degenerate",
        inputs=inputs,
        outputs={
            "Q": np.array([2, 2], dtype=np.int8),
            "alpha": np.array(1.5),
            "G": np.array([1.5, 1.5]),
            "passes": np.array(1),
        },
        compare={"Q": "code", "alpha": "dot", "G": "dot", "passes": "exact"},
        bound={"alpha": np.array(1.5), "G": np.array([1.5, 1.5])},
        margin={"Q": np.array([1.0, 2.0**-52])},
        allowed={"Q": np.array([4, 6])},
    )
    other = {"Q": np.array([2, 1]), "alpha": np.array(2.0), "G": np.array([2.0, 0.0]), "passes": np.array(0)}
    judged = rules.judge(case, other, "float64")
    assert all(one.ok for one in judged) and judged[0].licensed
    assert not ok(case, {**other, "alpha": np.array(1.5)})
    assert not ok(case, {**other, "G": np.array([1.5, 0.0])})
    assert not ok(case, {**other, "Q": np.array([1, 2])})


def test_the_alternation_is_that_of_fractions() -> None:
    for case in CASES.values():
        if case.op == "project" and case.error is None and case.inputs["kind"] == "alternating":
            inputs = case.inputs
            found = trajectory.ends(
                np.asarray(inputs["V"]),
                np.asarray(inputs["values"]),
                float(inputs["alpha0"]),
                most=int(inputs["passes"]),
                ties=str(inputs["ties"]),
            )
            assert found is not None and len(found) == 1, case.id
            assert np.array_equal(found[0].codes, case.outputs["Q"]), case.id
            assert found[0].alpha == pytest.approx(float(case.outputs["alpha"]), rel=1e-14), case.id


def test_teacher_forced_steps() -> None:
    case = CASES["admm/convolution"]
    asked = trajectory.steps(case)
    assert len(asked) == 3 * int(case.inputs["K"])

    def answers(knobs: Any) -> list[rules.Judgement]:
        return trajectory.teacher_forced(
            case, lambda step: getattr(Reference(knobs), step.op)(**step.inputs), "float64"
        )

    assert all(one.ok for one in answers(None))
    bad = [one.name for one in answers(turn(["dual-twice"])) if not one.ok]
    assert bad and all(name.startswith("dual/") for name in bad)


def test_the_free_run_is_information() -> None:
    case = CASES["admm/convolution"]
    same = trajectory.free_run(case, case.outputs, "float64")
    assert same.at is None and same.objective == same.expected and "expected codes" in str(same)
    Q = np.array(case.outputs["Q"])
    Q[1, 0, 0] = (Q[1, 0, 0] + 1) % 3
    other = trajectory.free_run(case, {**case.outputs, "Q": Q}, "float64")
    assert other.at == (1, 0, 0) and not other.licensed and "not explained" in str(other)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_no_bound_is_so_wide_that_it_passes_anything(dtype: str) -> None:
    """Zeros, the negative, or a hundredth more in one answer fail, the others being right."""
    survivors = []
    for case in all_cases():
        if case.error is not None or case.kappa > BEYOND / np.finfo(dtype).eps:
            continue
        for name, value in case.outputs.items():
            want = np.asarray(value)
            if not np.any(want) or want.dtype.kind in "ib":
                continue
            for spoil in (0.0, -1.0, 1.01):
                # a cancellation: most digits of the small rest are lost in any narrow type
                if (case.id, spoil, dtype) == ("dual/cancellation", 1.01, "float32"):
                    continue
                if ok(case, {**case.outputs, name: spoil * want}, dtype):
                    survivors.append((case.id, name, spoil))
    assert survivors == []
