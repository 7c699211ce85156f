"""The falsifier refutes what is false, within seconds and from a cold start, and nothing that is true."""

from __future__ import annotations

import sys
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refldnq.verify import falsifier
from refldnq.verify.arithmetic import Arithmetic
from refldnq.verify.claims.base import Instance, Sides
from refldnq.verify.falsifier import (
    Search,
    Space,
    arrays,
    decide,
    falsify,
    instances,
    matrices,
    perturbed,
    rationals,
    shown,
    vectors,
)

PAIRS = Space(lambda: instances(a=rationals(), b=rationals()))

MATRICES = Space(lambda: instances(A=matrices(3, 2), B=matrices(2, 3)))


def power(factor: Fraction) -> Sides:
    """(a + b)^2 <= factor (a^2 + b^2), true for factor 2."""

    def sides(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
        a, b = arithmetic.number(instance["a"]), arithmetic.number(instance["b"])
        return (a + b) * (a + b), arithmetic.number(factor) * (a * a + b * b)

    return sides


def shrunken(factor: Fraction) -> Sides:
    """|a| <= factor |a|, true for factor 1."""

    def sides(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
        a = arithmetic.number(abs(instance["a"]))
        return a, arithmetic.number(factor) * a

    return sides


def norms(first: str, second: str) -> Sides:
    """||AB||_F <= ||A|| ||B||, true if at least one of the norms is Frobenius'."""

    def sides(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
        A, B = arithmetic.array(instance["A"]), arithmetic.array(instance["B"])
        bound = getattr(arithmetic, first)(A) * getattr(arithmetic, second)(B)
        return arithmetic.frobenius(A @ B), bound

    return sides


def search(sides: Sides, space: Space = PAIRS, seed: int = 0, **options: Any) -> Search:
    return falsify(sides, space, np.random.default_rng(seed), **options)


FALSE = {
    "squares": (power(Fraction(1)), PAIRS),
    "squares, nearly": (power(Fraction(1999, 1000)), PAIRS),
    "0.999": (shrunken(Fraction(999, 1000)), PAIRS),
    "one in a million": (shrunken(1 - Fraction(1, 10**6)), PAIRS),
    "two spectral norms": (norms("spectral", "spectral"), MATRICES),
}

TRUE = {
    "squares with 2": (power(Fraction(2)), PAIRS),
    "equality": (shrunken(Fraction(1)), PAIRS),
    "Frobenius": (norms("frobenius", "frobenius"), MATRICES),
    "spectral and Frobenius": (norms("spectral", "frobenius"), MATRICES),
}


@pytest.mark.parametrize("case", FALSE)
@pytest.mark.parametrize("seed", range(3))
def test_the_false_is_refuted(case: str, seed: int) -> None:
    if "norm" in case:
        pytest.importorskip("flint", reason="needs python-flint")
    sides, space = FALSE[case]
    found = search(sides, space, seed, tries=600)
    assert found.refuted
    assert not found.survived
    assert found.ratio > 1
    assert found.largest >= found.ratio * (1 - 1e-12)
    assert decide(sides, found.worst) is False


@pytest.mark.parametrize("case", TRUE)
@pytest.mark.parametrize("seed", range(3))
def test_the_true_survives(case: str, seed: int) -> None:
    sides, space = TRUE[case]
    found = search(sides, space, seed, tries=600)
    assert found.survived
    assert not found.refuted
    assert decide(sides, found.worst) is not False
    # The statements are sharp: a search that does not come close to 1 has not searched.
    assert 0.9 < found.ratio <= 1 + 1e-12


def test_the_counterexample_is_small() -> None:
    found = search(power(Fraction(1)))
    assert sorted(abs(value) for value in found.worst.values()) == [1, 1]
    assert (found.left, found.right, found.ratio) == ("4", "2", 2.0)


def test_equal_seeds_give_equal_searches() -> None:
    first, second = (search(norms("frobenius", "frobenius"), MATRICES, 5, tries=300) for _ in range(2))
    assert (first.ratio, first.evaluations) == (second.ratio, second.evaluations)
    assert np.array_equal(first.worst["A"], second.worst["A"])


def test_generation_does_not_depend_on_what_else_is_imported() -> None:
    """Hypothesis draws constants from local modules; the falsifier must not."""
    from hypothesis.internal.conjecture import providers

    def forbidden() -> None:
        raise AssertionError("constants of local modules were read")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(providers, "_get_local_constants", forbidden)
        assert search(power(Fraction(2)), tries=300).survived


def test_the_local_search_finds_what_generation_misses() -> None:
    """Starts lie far from the violation, near a = 1/3: only walking uphill gets there."""

    def peak(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
        a, centre = arithmetic.number(instance["a"]), arithmetic.number(Fraction(1, 3))
        height = arithmetic.number(1) / (1 + (a - centre) * (a - centre))
        return height, arithmetic.number(Fraction(999_999, 1_000_000))

    space = Space(lambda: instances(a=rationals(9, (1,), least=3)))
    assert not search(peak, space, tries=300, seconds=0.0).refuted
    assert search(peak, space, tries=1500).refuted


def test_time_ends_a_search() -> None:
    found = search(norms("spectral", "frobenius"), MATRICES, seconds=0.05, tries=10**4)
    assert found.evaluations < 2000


def test_a_right_side_of_zero() -> None:
    def sides(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
        a = arithmetic.number(instance["a"])
        return a * a, a - a

    found = search(sides)
    assert found.refuted
    assert found.largest == float("inf")
    assert (found.left, found.right) == ("1", "0")


def test_rounding_is_no_violation() -> None:
    """In float64 the left side is 5.6e-17 and the right 0; exactly, both are 0."""

    def sides(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
        tenths = [arithmetic.number(Fraction(k, 10)) for k in (1, 2, 3)]
        return abs(tenths[0] + tenths[1] - tenths[2]), arithmetic.number(0)

    assert falsifier.ratio(sides, {}) == float("inf")
    found = search(sides, Space(lambda: instances(a=rationals())), tries=100)
    assert found.survived
    assert found.ratio == 0.0


def test_equal_irrational_sides_are_equal_up_to_certified_rounding() -> None:
    pytest.importorskip("flint", reason="needs python-flint")

    def sides(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
        a = arithmetic.sqrt(arithmetic.number(2) + arithmetic.number(instance["a"]) * instance["a"])
        return a, arithmetic.number(1) / (arithmetic.number(1) / a)

    found = search(sides, Space(lambda: instances(a=st.integers(-5, 5))), tries=100)
    assert (found.decided, found.survived, found.ratio) == (None, True, 1.0)


def test_undefined_sides_violate_nothing() -> None:
    def sides(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
        return arithmetic.number(1) / arithmetic.number(0), arithmetic.number(1)

    found = search(sides, tries=50)
    assert found.decided is None
    assert not found.refuted
    assert found.left == "undefined"
    assert (found.defined, found.telling) == (0, 0)
    assert not found.survived


def test_sides_that_say_nothing_survive_nothing() -> None:
    """A statement whose assumption never holds is true of every instance, and has not been searched."""

    def sides(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
        return arithmetic.number(0), arithmetic.number(0)

    found = search(sides, tries=50)
    assert found.defined == found.evaluations
    assert (found.telling, found.searched, found.survived) == (0, False, False)


def test_the_share_of_telling_instances_is_counted() -> None:
    def sides(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
        a = arithmetic.number(instance["a"])
        return (a, 2 * a) if instance["a"] > 0 else (arithmetic.number(0), arithmetic.number(0))

    found = search(sides, tries=200)
    assert found.survived
    assert 0 < found.telling < found.defined == found.evaluations


def test_assumptions_are_respected() -> None:
    """(a + b)^2 <= a^2 + b^2 is true where a and b differ in sign."""
    opposite = Space(PAIRS.strategy, admits=lambda instance: instance["a"] * instance["b"] <= 0)
    found = search(power(Fraction(1)), opposite)
    assert found.survived
    assert found.worst["a"] * found.worst["b"] <= 0
    nothing = Space(PAIRS.strategy, admits=lambda instance: False)
    with pytest.raises(ValueError, match="`space` must admit"):
        search(power(Fraction(1)), nothing, tries=50)


def test_fixed_entries_stay() -> None:
    space = Space(lambda: instances(a=rationals(), b=st.just(Fraction(7, 3))), fixed=("b",))
    found = search(power(Fraction(1)), space)
    assert found.refuted
    assert found.worst["b"] == Fraction(7, 3)


def test_a_perturbation_of_ones_own() -> None:
    calls = []

    def double(instance: Instance, rng: np.random.Generator) -> Instance:
        calls.append(instance)
        return {name: 2 * value for name, value in instance.items()}

    search(power(Fraction(2)), Space(PAIRS.strategy, double), tries=100)
    assert calls


def test_perturbed_keeps_shapes_and_kinds() -> None:
    rng = np.random.default_rng(0)
    start: dict[str, Any] = {
        "n": 3,
        "W": (np.array([[Fraction(1), Fraction(2)]], dtype=object), np.array([1, 2], dtype=object)),
        "name": "x",
        "flag": True,
        "alpha": Fraction(1, 2),
    }
    seen = set()
    for _ in range(300):
        moved = perturbed(start, rng, ("alpha",))
        assert moved["name"] == "x"
        assert moved["flag"] is True
        assert moved["alpha"] == Fraction(1, 2)
        assert type(moved["n"]) is int
        assert [part.shape for part in moved["W"]] == [(1, 2), (2,)]
        assert {type(x) for x in moved["W"][0].ravel()} == {Fraction}
        assert {type(x) for x in moved["W"][1].ravel()} == {int}
        seen.add(moved["n"])
    assert len(seen) > 3
    assert start["W"][0][0, 0] == 1


def test_strategies_give_fractions() -> None:
    @given(matrices(st.integers(1, 3), 2), vectors(3), arrays((2, 1, 2), rationals(5, (3,), least=1)))
    def look(A: Any, v: Any, T: Any) -> None:
        assert A.shape[1] == 2
        assert v.shape == (3,)
        assert T.shape == (2, 1, 2)
        assert all(isinstance(x, Fraction) for array in (A, v, T) for x in array.ravel())
        assert all(0 < x <= Fraction(5, 3) for x in T.ravel())

    look()


def test_a_blind_decision_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted bug: a falsifier whose decisions always approve refutes nothing, and the tests above fail."""
    monkeypatch.setattr(falsifier, "decide", lambda sides, instance: True)
    assert not search(power(Fraction(1))).refuted


def test_without_flint_nothing_irrational_is_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    def roots(instance: Instance, arithmetic: Arithmetic) -> tuple[Any, Any]:
        return arithmetic.sqrt(arithmetic.number(2)), arithmetic.number(1)

    assert decide(roots, {}) is (False if "flint" in sys.modules else None)
    monkeypatch.setitem(sys.modules, "flint", None)
    assert decide(roots, {}) is None
    found = search(roots, tries=50)
    assert not found.refuted
    assert not found.survived
    assert shown(roots, {})[:2] == ("1.41421356237", "1")


def test_without_hypothesis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    with pytest.raises(ImportError, match=r"refldnq\[verify\]"):
        search(power(Fraction(1)))
