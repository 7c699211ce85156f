"""``refldnq verify``: exit codes, what it prints and writes, and the page in a browser."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import open_page
from click.testing import CliRunner, Result

from refldnq.cli import main
from refldnq.verify import claims as registry
from refldnq.verify.arithmetic import ball, has_flint
from refldnq.verify.claims._examined import survives
from refldnq.verify.claims.base import (
    Check,
    Claim,
    Counterexample,
    Figure,
    Finding,
    Mutation,
    Statement,
)
from refldnq.verify.falsifier import Space, instances, rationals
from refldnq.verify.reporting.figures import figure_svg
from refldnq.verify.reporting.markdown import to_html
from refldnq.verify.reporting.mathml import FormulaError, mathml
from refldnq.verify.reporting.page import results_html
from refldnq.verify.reporting.results import run_checks
from refldnq.verify.reporting.text import results_table, results_text
from refldnq.verify.reporting.values import as_json, as_latex, as_text

CURVE = Figure(title="Ratio < 1", x="depth", y="ratio", curves={"a": ((1.0, 2.0), (1.0, 0.1))}, log="y")

GOOD = Check(name="look", kind="exact", run=lambda claim: Finding(ok=True, text="3 < 4"))
BAD = Check(name="stare", kind="search", run=lambda claim: Finding(ok=False, text="5 > 4"))
WEAK = Check(name="certify", kind="certified", run=lambda claim: Finding(ok=True, text="", certified=False))
DRAWN = Check(
    name="plot",
    kind="measured",
    run=lambda claim: Finding(ok=True, text="falls", numbers={"slope": -1.0}, figures=(CURVE, CURVE)),
)


def broken(claim: Claim) -> Finding:
    raise RuntimeError("no such matrix")


PRINTED = Statement(latex=r"\|a+b\|^2 \le \|a\|^2+\|b\|^2", words="squares add up, see `planted-two` <b>")


def planted(id: str, *checks: Check, gating: bool = True) -> Claim:
    return Claim(
        id=id,
        title="Squares of *norms*",
        source="(7)",
        printed=PRINTED,
        corrected=replace(PRINTED, latex=r"\|a+b\|^2 \le 2\|a\|^2+2\|b\|^2"),
        verdict="false",
        reason="the triangle inequality is not for squares: $9 \\le 5$ is false",
        counterexample=Counterexample(
            instance={"W": np.array([[Fraction(1, 2), Fraction(3)]], dtype=object), "n": 1},
            shown="9 <= 4 + 1 is false",
        ),
        proof="**Expand.** $$2\\|a\\|^2+2\\|b\\|^2-\\|a+b\\|^2 = \\|a-b\\|^2$$ <script>alert(1)</script>",
        checks=checks or (GOOD,),
        mutations=(Mutation(name="factor <1>", changes={"corrected": PRINTED}),),
        gating=gating,
    )


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replaces the registered claims."""

    def put(*claims: Claim) -> None:
        monkeypatch.setattr(registry, "claims", lambda: claims)

    return put


def invoke(*words: object) -> Result:
    return CliRunner().invoke(main, ["verify", *(str(word) for word in words)])


def quick(count: int) -> list[str]:
    """The first few real claims that are quick and need nothing."""
    names = [claim.id for claim in registry.claims() if len(claim.checks) == 1]
    return names[:count]


def test_established_claims_exit_with_0(plant: Any) -> None:
    plant(planted("planted-one"), planted("planted-two"))
    result = invoke("--jobs", 1)
    assert result.exit_code == 0, result.output
    assert "2 claims: 2 false; every verdict re-established" in result.stdout
    assert "counterexample: 9 <= 4 + 1 is false" in result.stdout


@pytest.mark.parametrize(("check", "line"), [(BAD, "Not re-established"), (WEAK, "Not certified")])
def test_what_is_not_established_exits_with_1(plant: Any, check: Check, line: str) -> None:
    plant(planted("planted-one"), planted("planted-two", GOOD, check))
    result = invoke("--jobs", 1)
    assert result.exit_code == 1
    last = result.stdout.splitlines()[-1]
    assert last.startswith(line)
    assert last.endswith(": planted-two.")


def test_claims_that_gate_nothing(plant: Any) -> None:
    plant(planted("planted-one"), planted("planted-two", BAD, gating=False))
    result = invoke("--jobs", 1)
    assert result.exit_code == 0, result.output
    assert "(NO)" in result.stdout
    assert "nothing depends on it: planted-two" in result.stdout


def test_a_check_that_raises_has_failed_and_the_others_run(plant: Any) -> None:
    plant(planted("planted-one", Check(name="solve", kind="exact", run=broken), GOOD), planted("planted-two"))
    result = invoke("--jobs", 1)
    assert result.exit_code == 1
    assert "FAILED: solve: could not run: RuntimeError: no such matrix" in result.stdout
    assert "exact: look: 3 < 4" in result.stdout
    assert "Not re-established: planted-one." in result.stdout


def test_without_flint_it_says_what_it_could_not_certify(plant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def enclosed(claim: Claim) -> Finding:
        return Finding(ok=bool(ball().number(1) <= ball().number(2)), text="1 <= 2")

    monkeypatch.setitem(sys.modules, "flint", None)
    plant(planted("planted-one"), planted("planted-two", Check(name="balls", kind="certified", run=enclosed)))
    result = invoke("--jobs", 1)
    assert result.exit_code == 1, result.output
    last = result.stdout.splitlines()[-1]
    assert last == "Not certified without python-flint (pip install 'refldnq[verify]'): planted-two."


def test_a_failure_beside_something_uncertified_is_a_failure(
    plant: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "flint", None)
    plant(planted("planted-one", WEAK, BAD))
    result = invoke("--jobs", 1)
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == "Not re-established: planted-one."


def test_a_search_that_only_balls_can_decide_is_not_certified_without_flint(
    plant: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Irrational sides that no certified check decides elsewhere: float64 alone must not count."""

    def sides(instance: Any, arithmetic: Any) -> tuple[Any, Any]:
        return arithmetic.sqrt(arithmetic.number(2)), arithmetic.number(2 + abs(instance["a"]))

    statement = replace(PRINTED, sides=sides)
    claim = replace(
        planted("planted-one", survives(Space(lambda: instances(a=rationals())), seed=1, tries=40)),
        corrected=statement,
    )
    if has_flint():
        plant(claim)
        assert invoke("--jobs", 1).exit_code == 0
    monkeypatch.setitem(sys.modules, "flint", None)
    plant(claim)
    result = invoke("--jobs", 1)
    assert result.exit_code == 1, result.output
    assert result.stdout.splitlines()[-1].startswith("Not certified without python-flint")


def certifying() -> list[str]:
    """The names of the claims whose verdict needs python-flint."""
    return [claim.id for claim in registry.claims() if any(c.kind == "certified" for c in claim.checks)]


@pytest.mark.slow
def test_real_claims_without_flint(monkeypatch: pytest.MonkeyPatch) -> None:
    """They do not fail; those with irrational sides do not count as established."""
    monkeypatch.setitem(sys.modules, "flint", None)
    results = [run_checks(registry.find(name)) for name in certifying()]
    assert [result.id for result in results if not result.ok] == []
    assert not all(result.certified for result in results)


def test_only_chooses_and_keeps_the_order() -> None:
    first, second = quick(2)
    result = invoke("--only", f"{second}, {first}", "--jobs", 1, "--json", "-")
    assert result.exit_code == 0, result.output
    assert [claim["id"] for claim in json.loads(result.stdout)["claims"]] == [first, second]


def test_unknown_claims_are_refused() -> None:
    result = invoke("--only", "eq99")
    assert result.exit_code == 2
    assert result.stderr == (
        "refldnq: error: `claim` must be the name of a claim, got 'eq99'; refldnq verify lists all.\n"
    )


@pytest.mark.parametrize(
    "words", [("--jobs", 0), ("--html", "missing/page.html"), ("--json", "missing/a.json")]
)
def test_bad_options_are_refused(words: Sequence[object]) -> None:
    result = invoke(*words)
    assert result.exit_code == 2
    assert result.stderr.startswith("refldnq: error: ")
    assert result.stdout == ""


def test_the_findings_do_not_depend_on_the_number_of_processes() -> None:
    names = ",".join(quick(3))
    alone, together = (invoke("--only", names, "--jobs", jobs, "--json", "-") for jobs in (1, 2))
    assert alone.exit_code == together.exit_code == 0, alone.output + together.output

    def timeless(content: Any) -> Any:
        if isinstance(content, dict):
            return {key: timeless(value) for key, value in content.items() if key != "seconds"}
        return [timeless(item) for item in content] if isinstance(content, list) else content

    assert timeless(json.loads(alone.stdout)) == timeless(json.loads(together.stdout))


CLAIM_KEYS = {
    "id": str,
    "title": str,
    "source": str,
    "verdict": str,
    "reason": str,
    "gating": bool,
    "established": bool,
    "ok": bool,
    "certified": bool,
    "seconds": float,
    "printed": dict,
    "corrected": dict,
    "counterexample": dict,
    "checks": list,
    "mutations": list,
}


def test_json(plant: Any, tmp_path: Path) -> None:
    plant(planted("planted-one", GOOD, DRAWN), planted("planted-two", BAD))
    file = tmp_path / "results.json"
    assert invoke("--jobs", 1, "--json", file).exit_code == 1
    content = json.loads(file.read_text("utf-8"))
    assert list(content) == ["established", "seconds", "counts", "versions", "claims"]
    assert content["established"] is False
    assert content["counts"] == {"true": 0, "true with a fix": 0, "false": 2, "empirical": 0}
    assert {"python", "refldnq", "numpy", "python-flint", "hypothesis"} == set(content["versions"])
    for claim in content["claims"]:
        assert {key: type(value) for key, value in claim.items()} == CLAIM_KEYS
    first = content["claims"][0]
    assert first["counterexample"]["instance"] == {"W": [["1/2", "3"]], "n": 1}
    assert first["checks"][1]["numbers"] == {"slope": -1.0}
    assert first["mutations"] == ["factor <1>"]


def page_of(*claims: Claim) -> str:
    return results_html(claims, [run_checks(claim) for claim in claims], 1.0)


def test_the_page_holds_everything(plant: Any, tmp_path: Path) -> None:
    plant(planted("planted-one", GOOD, DRAWN), planted("planted-two", BAD))
    file = tmp_path / "page.html"
    result = invoke("--jobs", 1, "--html", file)
    assert result.exit_code == 1
    assert f"Wrote {file}." in result.stdout
    page = file.read_text("utf-8")
    for part in (
        "9 &lt;= 4 + 1 is false",
        "3 &lt; 4",
        "factor &lt;1&gt;",
        "<strong>Expand.</strong>",
        "<svg",
    ):
        assert part in page, part
    assert '<a href="#planted-two"><code>planted-two</code></a>' in page
    assert "<mfrac>" in page  # 1/2 of the counterexample


def test_the_page_is_safe_and_needs_nothing_else() -> None:
    page = page_of(planted("planted-one", GOOD, DRAWN), planted("planted-two"))
    assert "<script" not in page
    assert "<b>" not in page
    names = re.findall(r'\bid="([^"]+)"', page)
    assert len(names) == len(set(names))
    for target in re.findall(r'(?:href|src)="([^"]*)"', page):
        assert target.startswith("#") or target == "data:,", target
    assert all(target[1:] in names for target in re.findall(r'href="(#[^"]+)"', page))
    assert not re.search(r"@import|url\((?!#)", page)


def test_the_page_in_a_browser(tmp_path: Path) -> None:
    claims = planted("planted-one", GOOD, DRAWN), planted("planted-two", BAD)
    page = tmp_path / "page.html"
    page.write_text(page_of(*claims), "utf-8")
    opened = open_page(page, tmp_path)
    assert opened.console == ()
    # Each claim has two statements, a reason, a proof and two values with one formula each.
    assert opened.dom.count("<math") == 2 * 6
    assert opened.dom.count("<svg") == 2
    assert opened.dom.count("<section") == 2


def test_an_error_in_the_console_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    text = page_of(planted("planted-one")).replace("</body>", "<script>nothing()</script></body>")
    page.write_text(text, "utf-8")
    assert any("nothing is not defined" in line for line in open_page(page, tmp_path).console)


@pytest.mark.parametrize("package", ["latex2mathml.converter", "markdown_it", "matplotlib"])
def test_a_page_without_its_packages_is_refused_before_the_work(
    plant: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    def work(claim: Claim) -> Finding:
        raise AssertionError("the work was begun")

    from refldnq.verify.reporting import markdown

    plant(planted("planted-one", Check(name="work", kind="exact", run=work)))
    markdown._parser.cache_clear()
    mathml.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    result = invoke("--html", tmp_path / "page.html", "--jobs", 1)
    assert result.exit_code == 1
    assert "pip install 'refldnq[" in result.stderr
    assert not (tmp_path / "page.html").exists()
    markdown._parser.cache_clear()


@pytest.mark.parametrize(
    "latex",
    [
        r"\begin{psmallmatrix}1&2\\0&1\end{psmallmatrix}",
        r"\begin{aligned}a&=b\\c&=d\end{aligned}",
        r"\operatorname*{arg\,min}_x f + \arg\min_G g",
        r"\lambda\mathrel{+}=x, \mathbf{1}^\top \mathbb{R}^{n\times m}, \mathcal L_b",
        r"\hat\varepsilon \le \prod_{l=k+1}^{L}\|\hat W_l\|_2 \quad \text{if } a \ge 0 \;\square",
    ],
)
def test_formulas_that_need_a_rewriting(latex: str) -> None:
    element = mathml(latex, True)
    assert "\\" not in element
    assert "<mi>&</mi>" not in element
    assert "mathvariant" not in re.sub('mathvariant="normal"', "", element)
    if "align" in latex:
        assert element.count("<mtr>") == 2


@pytest.mark.parametrize("latex", [r"\foo{1}", r"\frac{1", r"{1", r"\begin{foo}1&2\end{foo}"])
def test_formulas_that_cannot_be_shown_are_refused(latex: str) -> None:
    with pytest.raises(FormulaError, match="`latex` must"):
        mathml(latex)


@pytest.mark.parametrize("command", ["text", "textbf", "mbox"])
def test_words_in_a_formula_are_words(command: str) -> None:
    shown = to_html(rf"a $\{command}{{<script>alert(1)</script> & \& </mtext><b>}}$ b")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown
    assert "&lt;/mtext&gt;&lt;b&gt;" in shown
    assert shown.count("&amp;") == 2
    assert not re.search(r"<(script|b)\b", shown)


@pytest.mark.parametrize("latex", [r"\text{{<b>}}", r"\style{<b>}{x}", r"\href{javascript:alert(1)}{x}"])
def test_what_is_no_formula_is_refused(latex: str) -> None:
    with pytest.raises(FormulaError, match="nothing but a formula"):
        mathml(latex)


def test_markdown() -> None:
    text = "A *b* $a_1 * b_1$ `$x$` \\$5 and\n\n- one $x\n+ y$\n- two\n\n[link](javascript:alert(1)) <i>"
    shown = to_html(text)
    assert shown.count("<math") == 2
    assert "<em>b</em>" in shown
    assert "<code>$x$</code>" in shown
    assert "$5" in shown
    assert shown.count("<li>") == 2
    assert "&lt;i&gt;" in shown
    assert 'href="javascript' not in shown


def test_figures_are_reproducible_and_share_no_names() -> None:
    first, again, other = (figure_svg(CURVE, prefix) for prefix in ("a", "a", "b"))
    assert first == again
    names = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in (first, other)]
    assert names[0]
    assert not names[0] & names[1]
    assert "currentColor" in first
    assert "<metadata" not in first


def test_the_table_on_a_terminal() -> None:
    from rich.console import Console

    claims = planted("planted-one", GOOD), planted("planted-two", BAD)
    results = [run_checks(claim) for claim in claims]
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(results_table(claims, results))
    shown = console.export_text()
    for part in ("planted-one", "false", "NO", "stare: 5 > 4"):
        assert part in shown
    assert "planted-two  false    NO " in results_text(claims, results)


def test_values() -> None:
    value = {
        "a": np.array([[Fraction(-1, 2), 2]], dtype=object),
        "b": [float("nan"), np.float64(0.5)],
        "c": None,
    }
    assert as_json(value) == {"a": [["-1/2", 2]], "b": [None, 0.5], "c": None}
    assert as_text(value) == "a = ((-1/2, 2)), b = (nan, 0.5), c = None"
    assert as_latex(value["a"]) == r"\begin{pmatrix}-\tfrac{1}{2}&2\end{pmatrix}"
    assert (
        as_latex(([[1]], [2]))
        == r"\left(\begin{pmatrix}1\end{pmatrix},\;\begin{pmatrix}2\end{pmatrix}\right)"
    )
    assert str(as_latex([[1], [2, 3]])).count("pmatrix") == 4
    assert as_latex([1, "W"]) is None
    assert as_latex("W") is None
