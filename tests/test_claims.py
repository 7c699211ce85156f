"""Every claim: its verdict is established, and every planted error is noticed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browser import open_page

from refldnq.verify import claims as registry
from refldnq.verify.arithmetic import has_flint
from refldnq.verify.claims import (
    _admm,
    _networks,
    algorithm1_line3,
    algorithm1_line4,
    algorithm1_line6,
    claims,
    position,
)
from refldnq.verify.claims.base import Claim, Mutation, Statement
from refldnq.verify.falsifier import decide
from refldnq.verify.reporting.markdown import to_html
from refldnq.verify.reporting.mathml import mathml
from refldnq.verify.reporting.mutations import Kill, kill, kills_markdown
from refldnq.verify.reporting.results import run_checks

pytest.importorskip("hypothesis", reason="needs hypothesis")
if not has_flint():
    pytest.skip("needs python-flint: without it nothing is certified", allow_module_level=True)

CLAIMS = {claim.id: claim for claim in claims()}

MUTATIONS = {
    f"{claim.id}: {mutation.name}": (claim, mutation)
    for claim in CLAIMS.values()
    for mutation in claim.mutations
}


def statements(claim: Claim) -> Iterator[Statement]:
    yield claim.printed
    if claim.corrected is not None:
        yield claim.corrected


def each_claim(wanted: Callable[[Claim], bool] = lambda claim: True) -> pytest.MarkDecorator:
    chosen = {name: claim for name, claim in CLAIMS.items() if wanted(claim)}
    return pytest.mark.parametrize("claim", chosen.values(), ids=chosen)


def _doubled(right: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *given: [2 * Y for Y in right(*given)]


def _constant(right: Callable[..., Any]) -> Callable[..., Any]:
    return lambda H, W, *given: 0 * W + 1


def _first_rounding(right: Callable[..., Any]) -> Callable[..., Any]:
    return lambda H, W, codebook, settings: right(H, W, codebook, replace(settings, iterations=1))


def _by_labels(right: Callable[..., Any]) -> Callable[..., Any]:
    """An Algorithm 1 whose result depends on what no argument tells: every call gives another one."""
    calls: list[int] = []

    def wrong(network: Any, images: Any, settings: Any, rng: Any) -> Any:
        calls.append(0)
        return right(network, images * (1 + len(calls)) + len(calls), settings, rng)

    return wrong


@pytest.fixture(scope="module")
def whole_run(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[dict[str, Any], Path, subprocess.CompletedProcess[str]]:
    """One run of ``refldnq verify`` over all claims: its JSON, its page, the process."""
    folder = tmp_path_factory.mktemp("verify")
    data, page = folder / "results.json", folder / "page.html"
    command = [sys.executable, "-m", "refldnq.cli", "verify", "--json", str(data), "--html", str(page)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    return json.loads(data.read_text("utf-8")), page, run


@pytest.mark.slow
@each_claim()
def test_the_verdict_is_established(claim: Claim, whole_run: tuple[dict[str, Any], Path, Any]) -> None:
    found = next(one for one in whole_run[0]["claims"] if one["id"] == claim.id)
    failed = [check for check in found["checks"] if not (check["ok"] and check["certified"])]
    assert not failed
    assert found["established"]


@pytest.mark.slow
def test_the_whole_run(whole_run: tuple[dict[str, Any], Path, Any]) -> None:
    content, _, run = whole_run
    assert run.returncode == 0, run.stdout + run.stderr
    assert [one["id"] for one in content["claims"]] == list(CLAIMS)
    assert "every verdict re-established" in run.stdout


@pytest.mark.slow
def test_the_page_of_all_claims_in_a_browser(
    whole_run: tuple[dict[str, Any], Path, Any], tmp_path: Path
) -> None:
    _, page, _ = whole_run
    text = page.read_text("utf-8")
    opened = open_page(page, tmp_path)
    assert opened.console == ()
    assert opened.dom.count("<section") == len(CLAIMS)
    assert opened.dom.count("<math") == text.count("<math") >= 2 * len(CLAIMS)
    assert opened.dom.count("<svg") == text.count("<svg") >= 1
    # Within sections, a dollar or a backslash would be a formula that was not rendered.
    plain = re.sub(r"<(style|svg|pre|code)\b.*?</\1>", "", opened.dom, flags=re.S)
    assert not re.findall(r".{20}[\\$].{20}", plain)


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_planted_error_is_noticed(name: str) -> None:
    claim, mutation = MUTATIONS[name]
    assert kill(claim, mutation).noticed, "no check failed"


@each_claim(lambda claim: claim.counterexample is not None)
def test_the_counterexample_violates_the_printed_statement(claim: Claim) -> None:
    assert claim.counterexample is not None
    instance, printed = claim.counterexample.instance, claim.printed
    assert printed.holds is not None or printed.sides is not None
    if printed.holds is not None:
        assert printed.holds(instance) is False
    if printed.sides is not None:
        assert decide(printed.sides, instance) is False


@each_claim()
def test_all_texts_can_be_shown(claim: Claim) -> None:
    for statement in statements(claim):
        mathml(statement.latex, True)
        to_html(statement.words, block=False)
    for text in (claim.title, claim.reason, claim.proof):
        shown = re.sub(r"<code>.*?</code>", "", to_html(text), flags=re.S)
        assert not re.findall(r"[\\$]", shown)


@each_claim(lambda claim: any(statement.sides is not None for statement in statements(claim)))
def test_inequalities_are_searched_for_violations(claim: Claim) -> None:
    """A statement with sides is one that the falsifier must have been let loose on."""
    assert any(check.kind == "search" for check in claim.checks)


def test_the_paper_is_covered() -> None:
    equations = {f"eq{number:02}" for number in range(1, 23)}
    assert equations | {"theorem1", "theorem2"} <= set(CLAIMS)
    for words in ("algorithm1-", "prose-", "complexity"):
        assert any(name.startswith(words) for name in CLAIMS), words
    assert list(CLAIMS) == sorted(CLAIMS, key=position)
    assert all(claim.gating or claim.verdict == "empirical" for claim in CLAIMS.values())


def test_a_file_is_named_after_its_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(registry.__file__).with_name(f"{next(iter(CLAIMS))}.py".replace("-", "_"))
    (tmp_path / "other_name.py").write_text(source.read_text("utf-8"), "utf-8")
    monkeypatch.setattr(registry, "__path__", [str(tmp_path)])
    registry.claims.cache_clear()
    try:
        with pytest.raises(ValueError, match="must name the file"):
            registry.claims()
    finally:
        registry.claims.cache_clear()
        sys.modules.pop(f"{registry.__name__}.other_name", None)


@pytest.mark.parametrize(
    ("module", "name", "nonsense"),
    [
        pytest.param(algorithm1_line4, "activations", _doubled, id="networks of line 4"),
        pytest.param(_admm, "proximal", _constant, id="proximal step of line 3"),
        pytest.param(algorithm1_line3, "admm", _first_rounding, id="the package's ADMM, line 3"),
        pytest.param(algorithm1_line6, "ldnq", _by_labels, id="Algorithm 1 that sees labels, line 6"),
    ],
)
def test_nonsense_in_the_programs_of_algorithm_1_is_noticed(
    module: Any, name: str, nonsense: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a check computes with must matter to it, not the statement alone."""
    claim = algorithm1_line3.CLAIM if module is _admm else module.CLAIM
    monkeypatch.setattr(module, name, nonsense(getattr(module, name)))
    assert not run_checks(claim).ok


def test_no_instance_certifies_nothing() -> None:
    claim = next(claim for claim in CLAIMS.values() if claim.corrected and claim.corrected.sides)
    assert not _networks.certified("none", lambda: ()).run(claim).ok


def test_a_mutation_that_changes_nothing_survives() -> None:
    """Planted bug: a mutation that is none must be reported as not noticed."""
    claim = min(CLAIMS.values(), key=lambda claim: len(claim.checks))
    found = kill(claim, Mutation(name="nothing", changes={}))
    assert found.noticed is None
    assert "| nothing | **nothing** |" in kills_markdown([found])


def test_the_list_of_kills_is_a_table() -> None:
    kills = [Kill(claim="a", mutation="x | y", noticed="search"), Kill(claim="b", mutation="z", noticed=None)]
    lines = kills_markdown(kills).splitlines()
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in lines] == [4, 4, 4, 4]
