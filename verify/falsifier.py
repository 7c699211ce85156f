"""A search for instances that violate an inequality left <= right.

Hypothesis generates instances, a local search climbs from the best of them, both in float64 and both after
the largest ratio left/right; what they find is decided in exact arithmetic, or in balls where a root is
irrational, and shrunk while it still violates. Equal seeds give equal searches.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from importlib import import_module
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from refldnq.verify.arithmetic import (
    EXACT,
    FLOAT,
    NotRationalError,
    ball,
    has_flint,
    proved_at_most,
)
from refldnq.verify.claims.base import Instance, Sides

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

BITS = (113, 226, 452, 1000)
"""Bits of the balls, tried in turn until two are disjoint. Chosen here: sides that agree to 300 decimals are
equal for all that a search can tell."""

ROUNDING = 1e-9
"""A ratio in float64 above 1 by less may be rounding; chosen here, far above the rounding of small cases."""

STARTS = 4
"""Instances from which the local search climbs; chosen here."""

GENERATED = 0.3
"""Share of the tries that hypothesis generates; chosen here."""

BATCH = 150
"""Instances that hypothesis generates at a time: it knows no time limit, so that is looked at in between."""

SIZE = 10**6
"""The local search keeps magnitudes and denominators below, where float64 tells instances apart."""

SHRINKS = 2000
"""Steps of shrinking at most; chosen here."""

UNDEFINED = "undefined"
"""Shown for sides that are not defined."""

FAILURES = (ArithmeticError, ValueError)
"""What sides raise on an instance on which they are not defined, such as a division by zero."""

DEFINED = 0.5
"""Least share of the instances on which the sides must be defined for a search to count; chosen here."""

TELLING = 0.25
"""Least share of them on which the inequality must say more than 0 <= 0; chosen here."""


@dataclass(frozen=True)
class Space:
    """The instances among which a violation is sought.

    Parameters
    ----------
    strategy : callable
        Makes the hypothesis strategy of instances; called when hypothesis is needed, not before.
    perturb : callable, optional
        Takes an instance and a generator and gives a neighbour of it; `perturbed` unless given. It is not
        used in shrinking.
    fixed : sequence of str, optional
        Entries that the default neighbours and the shrinking leave alone.
    admits : callable, optional
        Whether an instance satisfies the statement's assumptions; asked of every instance.
    """

    strategy: Callable[[], SearchStrategy[Any]]
    perturb: Callable[[Instance, np.random.Generator], Instance] | None = None
    fixed: Sequence[str] = ()
    admits: Callable[[Instance], bool] | None = None


@dataclass(frozen=True, kw_only=True)
class Search:
    """What a search found.

    Parameters
    ----------
    worst : mapping
        The instance of the largest ratio; a violating one is shrunk.
    ratio : float
        Left over right at `worst`; infinite where left > 0 and right = 0. Where undecided it is the upper end
        of the quotient's ball, so that a ratio of 1 means: at most 1 up to rounding, with proof.
    largest : float
        The largest ratio seen, before shrinking.
    decided : bool or None
        Whether left <= right at `worst`, in exact arithmetic or disjoint balls; None if undecided.
    left, right : str
        The sides at `worst`: exact, or balls, or float64.
    evaluations : int
        Number of instances on which the sides were computed.
    defined : int
        Number of these on which the sides are defined.
    telling : int
        Number of those on which not both sides are 0. Sides that are 0 and 0 wherever a statement assumes
        something make the others vacuous.
    seconds : float
        Time taken.
    """

    worst: Instance
    ratio: float
    largest: float
    decided: bool | None
    left: str
    right: str
    evaluations: int
    defined: int
    telling: int
    seconds: float

    @property
    def refuted(self) -> bool:
        """Whether left > right is proved at `worst`."""
        return self.decided is False

    @property
    def survived(self) -> bool:
        """Whether no violation was found: at most rounding lies above 1, and nothing proved to.

        Never where the sides are not defined on enough instances, or are 0 and 0 on almost all.
        """
        return not self.refuted and self.searched and self.largest <= 1 + ROUNDING

    @property
    def searched(self) -> bool:
        """Whether the inequality was put to the test often enough."""
        return self.defined >= DEFINED * self.evaluations and self.telling >= max(
            1, TELLING * self.evaluations
        )


def falsify(
    sides: Sides, space: Space, rng: np.random.Generator, *, seconds: float = 2.0, tries: int = 1000
) -> Search:
    """Seek an instance with left > right.

    Parameters
    ----------
    sides : callable
        The two sides of the inequality; see `refldnq.verify.claims.base.Sides`.
    space : Space
        Where to seek.
    rng : numpy.random.Generator
        Seeds hypothesis and draws the steps of the local search.
    seconds : float, optional
        The search ends after this processor time. If it ends before, for want of tries, its result is the
        same on every machine.
    tries : int, optional
        Evaluations of the sides in float64, shrinking not counted.

    Returns
    -------
    Search

    Raises
    ------
    ImportError
        If hypothesis is not installed.
    ValueError
        If the space admits no instance.

    Examples
    --------
    >>> def squares(instance, arithmetic):
    ...     a, b = (arithmetic.number(instance[name]) for name in "ab")
    ...     return (a + b) * (a + b), a * a + b * b
    >>> space = Space(lambda: instances(a=rationals(), b=rationals()))
    >>> found = falsify(squares, space, np.random.default_rng(0))
    >>> found.refuted, found.left, found.right, round(found.largest, 2)
    (True, '4', '2', 2.0)
    """
    began = time.perf_counter()
    hunt = _Hunt(sides, space, time.process_time() + seconds)
    hunt.generate(round(GENERATED * tries), rng)
    if not hunt.best:
        raise ValueError("`space` must admit instances of its strategy, got none.")
    hunt.climb(tries, rng)
    largest, worst, decided = hunt.verdict()
    left, right, reached = shown(sides, worst)
    if decided is not None:  # what is proved rules what was rounded
        reached = min(reached, 1.0) if decided else max(reached, math.nextafter(1.0, 2.0))
    elif left != UNDEFINED:
        reached = certified_ratio(sides, worst, reached)
    return Search(
        worst=worst,
        ratio=reached,
        largest=max(largest, reached),
        decided=decided,
        left=left,
        right=right,
        evaluations=hunt.evaluations,
        defined=hunt.defined,
        telling=hunt.telling,
        seconds=time.perf_counter() - began,
    )


def decide(sides: Sides, instance: Instance) -> bool | None:
    """Whether left <= right on one instance, with proof.

    Parameters
    ----------
    sides : callable
        The two sides.
    instance : mapping
        Exact values.

    Returns
    -------
    bool or None
        None where the sides are irrational and too close to be told apart, or python-flint is missing.

    Examples
    --------
    >>> from refldnq.verify.arithmetic import EXACT
    >>> decide(lambda instance, arithmetic: (arithmetic.number(9), arithmetic.number(5)), {})
    False
    >>> decide(lambda instance, a: (a.sqrt(a.number(2)), a.number(Fraction(1415, 1000))), {})
    True
    """
    try:
        left, right = sides(instance, EXACT)
        return bool(left <= right)
    except NotRationalError:
        if not has_flint():
            return None
    for bits in BITS:
        known = proved_at_most(*sides(instance, ball(bits)))
        if known is not None:
            return known
    return None


def ratio(sides: Sides, instance: Instance) -> float:
    """Left over right in float64, see `quotient`; 0 on an instance on which the sides are not defined."""
    pair = rounded(sides, instance)
    return 0.0 if pair is None else quotient(*pair)


def rounded(sides: Sides, instance: Instance) -> tuple[float, float] | None:
    """The sides in float64; None where they are not defined, or no numbers."""
    with np.errstate(all="ignore"):
        try:
            left, right = (float(side) for side in sides(instance, FLOAT))
        except FAILURES:
            return None
    return None if math.isnan(left) or math.isnan(right) else (left, right)


def quotient(left: float, right: float) -> float:
    """Left over right, made so that more than 1 means left > right whatever the signs.

    Examples
    --------
    >>> [quotient(*pair) for pair in [(3, 2), (1, 0), (0, 0), (-1, 2), (-3, -2), (-2, -3)]]
    [1.5, inf, 0.0, 0.0, 0.6666666666666666, 1.5]
    """
    if right > 0:
        value = max(left / right, 0.0)
    elif right < 0 and left < 0:
        value = right / left
    else:
        value = math.inf if left > right else 0.0
    return 0.0 if math.isnan(value) else value


def shown(sides: Sides, instance: Instance) -> tuple[str, str, float]:
    """The sides as text, exact if they are rational, and their ratio.

    Examples
    --------
    >>> shown(lambda instance, arithmetic: (arithmetic.number(1), arithmetic.sqrt(arithmetic.number(4))), {})
    ('1', '2', 0.5)
    """
    try:
        left, right = sides(instance, EXACT)
        return str(left), str(right), quotient(float(left), float(right))
    except NotRationalError:
        pass
    except FAILURES:
        return UNDEFINED, UNDEFINED, 0.0
    if has_flint():
        left, right = sides(instance, ball())
        return left.str(12), right.str(12), quotient(float(left), float(right))
    left, right = sides(instance, FLOAT)
    return f"{left:.12g}", f"{right:.12g}", quotient(left, right)


def certified_ratio(sides: Sides, instance: Instance, otherwise: float) -> float:
    """The upper end of the ball of left over right, with the most bits; `otherwise` where there is none.

    Examples
    --------
    >>> def equal(instance, arithmetic):
    ...     root = arithmetic.sqrt(arithmetic.number(2))
    ...     return arithmetic.number(2) / root, root
    >>> print(decide(equal, {}), certified_ratio(equal, {}, 0.0))
    None 1.0
    """
    if not has_flint():
        return otherwise
    left, right = sides(instance, ball(BITS[-1]))
    return float((left / right).upper()) if right > 0 else otherwise


class _Hunt:
    """The state of one search: the best instances so far, their ratios and the count of evaluations."""

    def __init__(self, sides: Sides, space: Space, deadline: float) -> None:
        self.sides = sides
        self.space = space
        self.deadline = deadline
        self.evaluations = 0
        self.defined = 0
        self.telling = 0
        self.best: list[tuple[float, Instance]] = []

    def admitted(self, instance: Instance) -> bool:
        return self.space.admits is None or self.space.admits(instance)

    def measure(self, instance: Instance) -> float:
        """The ratio of an admitted instance."""
        self.evaluations += 1
        pair = rounded(self.sides, instance)
        if pair is None:
            return 0.0
        self.defined += 1
        self.telling += pair != (0.0, 0.0)
        value = quotient(*pair)
        # Rounding beside a right side of 0 must not end the search.
        return value if value < math.inf or decide(self.sides, instance) is False else 0.0

    def keep(self, value: float, instance: Instance) -> None:
        """Remember an instance if it is among the best."""
        if len(self.best) < STARTS or value > self.best[-1][0]:
            self.best.append((value, instance))
            self.best.sort(key=lambda pair: -pair[0])
            del self.best[STARTS:]

    def late(self) -> bool:
        return time.process_time() > self.deadline

    def generate(self, examples: int, rng: np.random.Generator) -> None:
        """Let hypothesis generate instances, steered towards large ratios."""
        hypothesis = _hypothesis()

        def look(instance: Instance) -> None:
            if not self.admitted(instance):
                return
            value = self.measure(instance)
            self.keep(value, instance)
            hypothesis.target(math.log(min(max(value, 1e-12), 1e12)))

        strategy = self.space.strategy()
        for count in [BATCH] * (examples // BATCH) + [examples % BATCH]:
            if count and not (self.best and self.late()):
                quick = hypothesis.settings(
                    max_examples=count,
                    database=None,
                    derandomize=True,
                    deadline=None,
                    phases=(hypothesis.Phase.generate, hypothesis.Phase.target),
                    suppress_health_check=list(hypothesis.HealthCheck),
                )
                seeded = hypothesis.seed(int(rng.integers(2**63)))
                with _reproducible():
                    seeded(quick(hypothesis.given(strategy)(look)))()

    def climb(self, tries: int, rng: np.random.Generator) -> None:
        """Walk uphill from each of the best instances in turn."""
        space = self.space
        step = space.perturb or (lambda instance, rng: perturbed(instance, rng, space.fixed))
        paths = list(self.best)
        for turn in range(max(0, tries - self.evaluations)):
            if self.late():
                break
            value, instance = paths[turn % len(paths)]
            neighbour = step(instance, rng)
            if not self.admitted(neighbour):
                continue
            reached = self.measure(neighbour)
            if reached >= value and reached < math.inf:
                paths[turn % len(paths)] = (reached, neighbour)
            if reached > value:
                self.keep(reached, neighbour)

    def verdict(self) -> tuple[float, Instance, bool | None]:
        """The largest ratio, its instance, and whether the inequality holds; a violating one comes shrunk."""
        doubtful: tuple[float, Instance, bool | None] | None = None
        for value, instance in self.best:
            if value > 1 - ROUNDING:
                known = decide(self.sides, instance)
                if known is False:
                    return value, self.shrunk(instance), False
                if known is None and doubtful is None:
                    doubtful = value, instance, None
        if doubtful is not None:
            return doubtful
        value, instance = self.best[0]
        try:
            return min(value, 1.0), instance, decide(self.sides, instance)
        except FAILURES:  # not defined on any instance that was seen
            return value, instance, None

    def shrunk(self, instance: Instance) -> Instance:
        """A simpler instance that violates the inequality, reached in steps that all do."""
        numbers = _numbers(instance, self.space.fixed)
        steps = 0
        changed = True
        while changed:
            changed = False
            for place, value in enumerate(numbers):
                for simpler in _simpler(value):
                    trial = [*numbers[:place], simpler, *numbers[place + 1 :]]
                    candidate = _with_numbers(instance, trial, self.space.fixed)
                    # Shrinking stops after a number of steps, not a time: its result is to be printed.
                    steps += 1
                    if steps > SHRINKS:
                        return _with_numbers(instance, numbers, self.space.fixed)
                    if self.violates(candidate):
                        numbers, changed = trial, True
                        break
        return _with_numbers(instance, numbers, self.space.fixed)

    def violates(self, instance: Instance) -> bool:
        if not self.admitted(instance) or not self.measure(instance) > 1:
            return False
        try:
            return decide(self.sides, instance) is False
        except FAILURES:
            return False


def perturbed(instance: Instance, rng: np.random.Generator, fixed: Sequence[str] = ()) -> Instance:
    """A neighbour of an instance: one number, sometimes two or three, changed, or all numbers of one entry.

    Parameters
    ----------
    instance : mapping
        Fractions, integers, object arrays of them, and tuples of these; anything else stays as it is.
    rng : numpy.random.Generator
        Draws the change.
    fixed : sequence of str, optional
        Entries that stay as they are.

    Returns
    -------
    dict
        A new instance.

    Examples
    --------
    >>> perturbed({"a": Fraction(1), "n": 4}, np.random.default_rng(1), fixed=["n"])
    {'a': Fraction(4, 1), 'n': 4}
    """
    free = [name for name in instance if name not in fixed and _numbers({name: instance[name]}, ())]
    if not free:
        return instance
    if rng.random() < 0.1:  # a whole entry in another unit
        name = free[int(rng.integers(len(free)))]
        factor = Fraction(int(rng.choice([-2, -1, 2, 1])), int(rng.choice([1, 1, 2])))
        scaled = [_tamed(x * factor, x) for x in _numbers({name: instance[name]}, ())]
        return {**instance, **_with_numbers({name: instance[name]}, scaled, ())}
    numbers = _numbers(instance, fixed)
    for _ in range(int(rng.choice([1, 1, 2, 3]))):
        place = int(rng.integers(len(numbers)))
        numbers[place] = _tamed(_neighbour(numbers, place, rng), numbers[place])
    return _with_numbers(instance, numbers, fixed)


def _neighbour(numbers: Sequence[Any], place: int, rng: np.random.Generator) -> Fraction:
    value = Fraction(numbers[place])
    match int(rng.integers(7)):
        case 0:
            return -value
        case 1:
            return Fraction(0)
        case 2:
            return Fraction(round(value))
        case 3:  # equality constraints are found by copying
            return Fraction(numbers[int(rng.integers(len(numbers)))])
        case 4:
            return value * Fraction(int(rng.integers(1, 9)), int(rng.integers(1, 9)))
        case 5:
            return value + Fraction(int(rng.integers(-4, 5)), int(rng.choice([1, 2, 4, 8])))
        case _:
            return value * (1 + Fraction(int(rng.integers(-8, 9)), int(rng.choice([16, 128, 1024]))))


def _tamed(value: Fraction, like: Any) -> Any:
    """`value` within `SIZE` and of the kind of `like`."""
    value = max(-Fraction(SIZE), min(Fraction(SIZE), value)).limit_denominator(SIZE)
    return value if isinstance(like, Fraction) else round(value)


def _simpler(value: Any) -> Iterator[Any]:
    """Numbers simpler than `value`, the simplest first."""
    size = _complexity(value)
    exact = Fraction(value)
    candidates = [Fraction(0), Fraction(1), Fraction(-1), Fraction(2), Fraction(-2), Fraction(round(exact))]
    candidates += [Fraction(math.trunc(exact)), exact / 2, exact - 1 if exact > 0 else exact + 1]
    candidates += [exact.limit_denominator(d) for d in (2, 3, 4, 8, 16, 64)]
    seen = set()
    for candidate in candidates:
        if candidate in seen or (not isinstance(value, Fraction) and candidate.denominator != 1):
            continue
        seen.add(candidate)
        if _complexity(candidate) < size:
            yield candidate if isinstance(value, Fraction) else int(candidate)


def _complexity(value: Any) -> tuple[int, int, bool]:
    exact = Fraction(value)
    return exact.denominator, abs(exact.numerator), exact < 0


def _is_number(value: Any) -> bool:
    return isinstance(value, Fraction) or (isinstance(value, int) and not isinstance(value, bool))


def _numbers(value: Any, fixed: Sequence[str]) -> list[Any]:
    """All fractions and integers of an instance, in order."""
    if _is_number(value):
        return [value]
    if isinstance(value, Mapping):
        return [x for name, part in value.items() if name not in fixed for x in _numbers(part, ())]
    if isinstance(value, tuple | list) or (isinstance(value, np.ndarray) and value.dtype == object):
        parts = value.ravel() if isinstance(value, np.ndarray) else value
        return [x for part in parts for x in _numbers(part, ())]
    return []


def _with_numbers(instance: Instance, numbers: Sequence[Any], fixed: Sequence[str]) -> dict[str, Any]:
    """The instance with other numbers in the places of `_numbers`."""
    supply = iter(numbers)
    return {name: part if name in fixed else _refilled(part, supply) for name, part in instance.items()}


def _refilled(value: Any, supply: Iterator[Any]) -> Any:
    if _is_number(value):
        return next(supply)
    if isinstance(value, Mapping):
        return {name: _refilled(part, supply) for name, part in value.items()}
    if isinstance(value, tuple | list):
        return type(value)([_refilled(part, supply) for part in value])
    if isinstance(value, np.ndarray) and value.dtype == object:
        filled = np.empty(value.shape, dtype=object)
        filled.ravel()[:] = [_refilled(part, supply) for part in value.ravel()]
        return filled
    return value


def rationals(size: int = 4, denominators: Sequence[int] = (1, 2, 4), *, least: int | None = None) -> Any:
    """A hypothesis strategy of small fractions.

    Parameters
    ----------
    size : int, optional
        Numerators lie between -size and size.
    denominators : sequence of int, optional
        Denominators to choose from.
    least : int, optional
        Smallest numerator instead of -size: 0 or 1 for numbers that must not be negative or zero.

    Returns
    -------
    SearchStrategy
        Of `fractions.Fraction`.

    Raises
    ------
    ImportError
        If hypothesis is not installed.

    Examples
    --------
    >>> rationals(1, (1, 2))
    builds(Fraction, integers(min_value=-1, max_value=1), sampled_from((1, 2)))
    """
    st = _hypothesis().strategies
    numerators = st.integers(-size if least is None else least, size)
    return st.builds(Fraction, numerators, st.sampled_from(tuple(denominators)))


def arrays(shape: Any, entries: Any = None) -> Any:
    """A hypothesis strategy of object arrays of fractions.

    Parameters
    ----------
    shape : tuple of int, or strategy of such tuples
        The shape.
    entries : SearchStrategy, optional
        Of the entries; `rationals()` unless given.

    Returns
    -------
    SearchStrategy
        Of arrays of dtype object.

    Raises
    ------
    ImportError
        If hypothesis is not installed.
    """
    st = _hypothesis().strategies
    numbers = rationals() if entries is None else entries
    shapes = st.just(shape) if isinstance(shape, tuple) else shape

    def fill(wanted: tuple[int, ...]) -> Any:
        count = math.prod(wanted)
        return st.lists(numbers, min_size=count, max_size=count).map(lambda flat: _array(flat, wanted))

    return shapes.flatmap(fill)


def _array(flat: Sequence[Any], shape: tuple[int, ...]) -> Any:
    filled = np.empty(math.prod(shape), dtype=object)
    filled[:] = flat
    return filled.reshape(shape)


def matrices(rows: Any, columns: Any, entries: Any = None) -> Any:
    """A hypothesis strategy of matrices of fractions.

    Parameters
    ----------
    rows, columns : int, or strategies of int
        The shape.
    entries : SearchStrategy, optional
        Of the entries; `rationals()` unless given.

    Returns
    -------
    SearchStrategy
        Of arrays of dtype object, two-dimensional.

    Raises
    ------
    ImportError
        If hypothesis is not installed.
    """
    st = _hypothesis().strategies
    sizes = [st.just(size) if isinstance(size, int) else size for size in (rows, columns)]
    return arrays(st.tuples(*sizes), entries)


def vectors(length: Any, entries: Any = None) -> Any:
    """A hypothesis strategy of vectors of fractions; see `matrices`.

    Parameters
    ----------
    length : int, or a strategy of int
        Number of entries.
    entries : SearchStrategy, optional
        Of the entries; `rationals()` unless given.

    Returns
    -------
    SearchStrategy
        Of arrays of dtype object, one-dimensional.

    Raises
    ------
    ImportError
        If hypothesis is not installed.
    """
    st = _hypothesis().strategies
    return arrays(st.tuples(st.just(length) if isinstance(length, int) else length), entries)


def instances(**entries: Any) -> Any:
    """A hypothesis strategy of instances with the named entries.

    Parameters
    ----------
    **entries : SearchStrategy
        One an entry.

    Returns
    -------
    SearchStrategy
        Of dicts.

    Raises
    ------
    ImportError
        If hypothesis is not installed.
    """
    return _hypothesis().strategies.fixed_dictionaries(entries)


def _hypothesis() -> Any:
    try:
        import hypothesis
        import hypothesis.strategies
    except ImportError as missing:
        raise ImportError(
            "the search for violations needs hypothesis: pip install 'refldnq[verify]'."
        ) from missing
    return hypothesis


@contextmanager
def _reproducible() -> Iterator[None]:
    # Hypothesis likes to draw constants that it reads in the sources of the modules that happen to be
    # imported: the instances would depend on what ran before in the process.
    providers: Any = import_module("hypothesis.internal.conjecture.providers")
    with patch.object(providers, "_get_local_constants", providers.Constants, create=True):
        yield
