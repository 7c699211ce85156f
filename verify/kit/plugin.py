"""The conformance kit inside pytest.

``pytest --refldnq-impl PACKAGE:ADAPTER`` makes a test of every case; ``--refldnq-answers FILE`` does the same
with recorded answers. A project that would rather write the test itself uses the decorator and the fixture::

    from refldnq.verify.kit.plugin import parametrize_cases

    @parametrize_cases("hessian")
    def test_hessian(case, refldnq_kit):
        refldnq_kit.check(case, {"H": my_hessian(**case.inputs)})

``--refldnq-xfail FILE`` names cases that are expected to fail, one ``id reason`` a line. It is strict: a case
that passes all the same fails, and an id that names no case is an error.

pytest loads this module in every project where refldnq is installed: it imports nothing until it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from refldnq.verify.kit.contract import Adapter
    from refldnq.verify.kit.runner import KitRun, Outcome

GROUP = "refldnq conformance kit"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("refldnq", GROUP)
    group.addoption("--refldnq-impl", metavar="PACKAGE:ADAPTER", help="run the kit's cases on this adapter")
    group.addoption("--refldnq-answers", metavar="FILE", help="judge the answers in this file or folder")
    group.addoption(
        "--refldnq-xfail", metavar="FILE", help="cases expected to fail, lines of an id and a reason"
    )
    group.addoption("--refldnq-only", metavar="TEXT", help="only cases whose id contains this")


def parametrize_cases(*ops: str) -> Callable[[Any], Any]:
    """A decorator: the test runs with every case of these operations as its argument ``case``.

    Parameters
    ----------
    *ops : str
        Operations; all of them if none is named.

    Raises
    ------
    ValueError
        If an operation is unknown.

    Examples
    --------
    >>> parametrize_cases("dual").name
    'parametrize'
    """
    from refldnq._checks import check_choice
    from refldnq.verify.kit.cases import all_cases
    from refldnq.verify.kit.contract import OPERATIONS
    from refldnq.verify.kit.errata import standing

    for op in ops:
        check_choice("ops", op, OPERATIONS)
    chosen = [case for case in standing(all_cases()) if not ops or case.op in ops]
    # Inputs of its own for every test: an implementation may work in place.
    cases = [pytest.param(replace(case, inputs=deepcopy(dict(case.inputs))), id=case.id) for case in chosen]
    return pytest.mark.parametrize("case", cases)


class Kit:
    """One session's use of the kit: whose answers, which cases, what is expected to fail.

    Parameters
    ----------
    config : pytest.Config
        Of the session.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @property
    def wanted(self) -> bool:
        """Whether an implementation or a file of answers was named."""
        return bool(self._option("impl") or self._option("answers"))

    def _option(self, name: str) -> str | None:
        value: str | None = self._config.getoption(f"refldnq_{name}")
        return value

    @cached_property
    def xfail(self) -> Mapping[str, str]:
        """Ids of cases that are expected to fail, and why.

        Raises
        ------
        pytest.UsageError
            If the file cannot be read, or names a case that does not exist.
        """
        file = self._option("xfail")
        if file is None:
            return {}
        from refldnq.verify.kit.cases import all_cases
        from refldnq.verify.kit.external import read_xfail

        try:
            expected = read_xfail(Path(file))
        except (OSError, ValueError) as error:
            raise pytest.UsageError(f"--refldnq-xfail: {error}") from error
        dead = expected.keys() - {case.id for case in all_cases()}
        if dead:
            raise pytest.UsageError(f"--refldnq-xfail: no such case: {', '.join(sorted(dead))}")
        return expected

    @cached_property
    def cases(self) -> tuple[Any, ...]:
        """The cases that were asked for.

        Raises
        ------
        pytest.UsageError
            If there are none.
        """
        from refldnq.verify.kit.cases import all_cases
        from refldnq.verify.kit.errata import standing

        only = self._option("only") or ""
        chosen = tuple(case for case in standing(all_cases()) if only in case.id)
        if not chosen:
            raise pytest.UsageError(f"--refldnq-only: no case has {only!r} in its id")
        return chosen

    @cached_property
    def adapter(self) -> Adapter:
        """The implementation, or the recorded answers.

        Raises
        ------
        pytest.UsageError
            If it cannot be loaded, or both were named.
        """
        from refldnq.verify.kit.external import load, recorded

        impl, answers = self._option("impl"), self._option("answers")
        if impl and answers:
            raise pytest.UsageError("--refldnq-impl and --refldnq-answers exclude each other")
        try:
            return recorded(Path(answers)) if answers else load(impl or "")
        except (ImportError, OSError, ValueError) as error:
            raise pytest.UsageError(f"--refldnq-{'answers' if answers else 'impl'}: {error}") from error

    @cached_property
    def run(self) -> KitRun:
        """All cases on the adapter, judged and explained; done when the first test needs it."""
        from refldnq.verify.kit.runner import run

        listed = {case.id for case in self.cases}
        expected = {id_: reason for id_, reason in self.xfail.items() if id_ in listed}
        return run(self.adapter, self.cases, xfail=expected)

    @property
    def ran(self) -> KitRun | None:
        """The run if it was done."""
        done: KitRun | None = self.__dict__.get("run")
        return done

    @cached_property
    def outcomes(self) -> Mapping[str, Outcome]:
        """What became of each case, by id."""
        return {outcome.case.id: outcome for outcome in self.run.outcomes}

    def check(self, case: Any, answers: Mapping[str, Any], dtype: str = "float64") -> None:
        """Judge answers to one case, in the paper's conventions.

        Parameters
        ----------
        case : Case
            The question.
        answers : mapping
            Answers by name.
        dtype : {'float64', 'float32'}, optional
            In which they were computed.

        Raises
        ------
        pytest.fail.Exception
            If one is wrong; the message names it, and the fault that reproduces the answers if there is one.
        """
        __tracebackhide__ = True
        from refldnq.verify.kit.external import Recorded, info_of
        from refldnq.verify.kit.runner import run

        told = {"name": "answers", "dtype": dtype, "capabilities": [case.op]}
        verdict(case.id, run(Recorded(info_of(told), {case.id: answers}), [case]))

    def refuse(self, case: Any, call: Callable[..., Any], refusals: tuple[type[Exception], ...] = ()) -> None:
        """Call an implementation with inputs that it must refuse.

        Parameters
        ----------
        case : Case
            The question.
        call : callable
            It gets the inputs by name.
        refusals : tuple of type, optional
            Exceptions beside `ValueError` that are refusals, as in `contract.Info`.

        Raises
        ------
        pytest.fail.Exception
            If it returns, or crashes instead.
        """
        __tracebackhide__ = True
        from refldnq.verify.kit.contract import Info

        known = Info(name="", version="", dtype="float64", capabilities=frozenset(), refusals=refusals)
        reply = known.reply(lambda: call(**case.inputs))
        if reply.kind == "refusal":
            return
        said = case.id if reply.kind == "answer" else f"{case.id} raised {reply.said}; it"
        pytest.fail(f"{said} must be refused ({case.error}) by a ValueError", pytrace=False)


def verdict(id_: str, run: KitRun) -> None:
    """Pass, skip, xfail or fail the present test as the case ended in the run."""
    __tracebackhide__ = True
    from refldnq.verify.kit.report import cause

    outcome = next(one for one in run.outcomes if one.case.id == id_)
    text = "; ".join(outcome.messages) or outcome.state
    if outcome.state == "pass":
        return
    if outcome.state in ("not implemented", "inapplicable"):
        pytest.skip(f"{outcome.state}: {text}" if outcome.messages else text)
    if outcome.state == "xfail":
        pytest.xfail(text)
    known = run.explanations.get(outcome.case.op)
    lines = [f"{outcome.state} {id_}", *outcome.messages]
    if run.handshake:
        lines.append(f"handshake: {run.handshake}")
    if known is not None and outcome.state == "FAIL":
        lines += cause(known)
    pytest.fail("\n".join([*lines, f"repro: refldnq kit show {id_}"]), pytrace=False)


_KIT = pytest.StashKey[Kit]()


def pytest_configure(config: pytest.Config) -> None:
    """Keep the session's kit."""
    config.stash[_KIT] = Kit(config)
    config.addinivalue_line("markers", "refldnq_kit: a case of the refldnq conformance kit")


class CaseItem(pytest.Item):
    """The test of one case on the implementation that was named on the command line."""

    def runtest(self) -> None:
        """Judge the case."""
        verdict(self.name, self.config.stash[_KIT].run)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Where the test is said to stand."""
        return Path(__file__), None, self.name


class Cases(pytest.Collector):
    """The cases as tests."""

    def collect(self) -> Iterable[pytest.Item]:
        """One test for every case."""
        for case in self.config.stash[_KIT].cases:
            item: CaseItem = CaseItem.from_parent(self, name=case.id)
            item.add_marker(pytest.mark.refldnq_kit)
            yield item


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Add the kit's tests, and mark the cases of others' tests that are expected to fail."""
    kit = config.stash[_KIT]
    if kit.xfail or kit.wanted:
        for item, case in _parametrized(items):
            reason = kit.xfail.get(case.id)
            if reason is not None:
                item.add_marker(pytest.mark.xfail(reason=reason, strict=True))
    if kit.wanted and kit.adapter:  # one that cannot be loaded is an error of the command line
        collector: Cases = Cases.from_parent(session, name="refldnq-kit", nodeid="refldnq-kit")
        items.extend(item for item in collector.collect() if isinstance(item, pytest.Item))


def _parametrized(items: Iterable[pytest.Item]) -> Iterator[tuple[pytest.Item, Any]]:
    from refldnq.verify.kit.cases import Case

    for item in items:
        case = getattr(getattr(item, "callspec", None), "params", {}).get("case")
        if isinstance(case, Case):
            yield item, case


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say how many cases ran, and the likely causes of failures."""
    run = config.stash[_KIT].ran
    if run is None:
        return
    from refldnq.verify.kit.report import cause, summary

    terminalreporter.section(GROUP)
    for explanation in run.explanations.values():
        for line in cause(explanation):
            terminalreporter.write_line(line)
    terminalreporter.write_line(summary(run))


@pytest.fixture(scope="session")
def refldnq_kit(request: pytest.FixtureRequest) -> Kit:
    """The kit: `check(case, answers)` and `refuse(case, call)`."""
    kit: Kit = request.config.stash[_KIT]
    return kit
