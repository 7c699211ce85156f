"""The adapter of the authors' code of 2019: what it shims, how it refuses, and what the kit finds with it.

The code is not part of this project. What needs it, or TensorFlow, is skipped without; the rest runs on a
small imitation of its layout, written here.
"""

from __future__ import annotations

import functools
import os
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from refldnq.cli import main
from refldnq.verify.adapters import released2019
from refldnq.verify.adapters.released2019 import VARIABLE, NotAvailableError, Released2019, levels_of
from refldnq.verify.kit.cases import Case, all_cases
from refldnq.verify.kit.contract import Conventions
from refldnq.verify.kit.faults import BY_ID
from refldnq.verify.kit.report import to_text
from refldnq.verify.kit.runner import KitRun, run

PAGE = (Path(__file__).parents[1] / "docs/found.md").read_text("utf-8")

NAME = "refldnq.verify.adapters.released2019:Released2019"

HESSIAN = """
import tensorflow as tf
print("loading")
OLD = tf.placeholder
"""

TRAIN = """
import os
_, columns = os.popen('stty size').read().split()
COLUMNS = int(columns)
"""

QUANTIZATION = """
import numpy as np

FACTOR = 0.5

def quantize(V, alpha, beta=0, kbits=3):
    top = 2.0 ** np.arange((kbits - 1) // 2)
    levels = np.concatenate([-top[::-1], [0.0], top])
    return levels[np.abs(V[..., None] - alpha * levels).argmin(axis=-1)]

def get_error(theta_B, hessian, theta_0):
    return FACTOR * np.sum((theta_B - theta_0) * (hessian @ (theta_B - theta_0)))

def symmetric_projection(V, weight, hessian, init_alpha, type, layer_name, file, proj_ite_times=1000):
    alpha = proj_best_alpha = init_alpha
    Q = quantize(V, alpha, 0, type)
    for _ in range(proj_ite_times):
        before, Q = alpha, quantize(V, alpha, 0, type)
        alpha = proj_best_alpha = np.sum(V * Q) / np.sum(Q * Q)
        if alpha == before:
            break
    LAST[0] = alpha
    return alpha * Q

def ADMM_quantization(layer_name, layer_type, kernel, bias, hessian, kbits, rho_factor=1, ADMM_ite_times=9):
    weight = kernel.reshape(len(kernel), -1).T
    if bias is not None:
        weight = np.concatenate([weight, bias[None]])
    mean = np.abs(weight).mean()
    best = G = mean * quantize(weight, mean, 0, kbits)
    dual, least, LAST[0] = 0 * weight, get_error(G, hessian, weight), 0.0
    for _ in range(ADMM_ite_times):
        A = hessian + rho_factor * np.eye(len(weight))
        W = np.linalg.solve(A, hessian @ weight + rho_factor * (G - dual))
        V = W + dual
        get_error(W, hessian, weight)
        start = LAST[0] or np.abs(V).mean()
        G = symmetric_projection(V, weight, hessian, start, kbits, layer_name, None)
        error = get_error(G, hessian, weight)
        best, least = (G, error) if error < least else (best, least)
        dual = dual + W - G
    print("done")
    return best.T

LAST = [0.0]
"""


@pytest.fixture
def imitation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A repository of that layout, and stand-ins for what it imports."""
    old = types.SimpleNamespace(placeholder="old name")
    tensorflow = types.ModuleType("tensorflow")
    tensorflow.compat = types.SimpleNamespace(v1=old)  # type: ignore[attr-defined]
    torch = types.ModuleType("torch")
    torch.from_numpy = lambda X: types.SimpleNamespace(numpy=lambda: X)  # type: ignore[attr-defined]
    for name, module in (("tensorflow", tensorflow), ("torch", torch)):
        monkeypatch.setitem(sys.modules, name, module)
    (tmp_path / "utils").mkdir()
    for name, text in (("hessian", HESSIAN), ("train", TRAIN), ("quantization", QUANTIZATION)):
        (tmp_path / f"utils/{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.setattr(released2019, "NEEDS", ("tensorflow", "torch"))
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    released2019.load.cache_clear()
    yield tmp_path
    released2019.load.cache_clear()


# Loading -----------------------------------------------------------------------------------------------


def test_the_terminal_and_the_old_names_are_there_while_files_are_loaded(
    imitation: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    popen, tensorflow = os.popen, sys.modules["tensorflow"]
    code = Released2019().code
    assert code.hessian.OLD == "old name" and code.train.COLUMNS == 80
    assert capsys.readouterr().out == ""
    assert os.popen is popen and sys.modules["tensorflow"] is tensorflow
    assert "hessian" not in sys.modules and "utils" not in sys.modules
    assert sorted(one.name for one in imitation.rglob("*") if one.is_file()) == [
        "hessian.py",
        "quantization.py",
        "train.py",
    ]


def test_shims_end_also_where_a_file_fails(imitation: Path) -> None:
    popen, tensorflow = os.popen, sys.modules["tensorflow"]
    (imitation / "utils/train.py").write_text("import no_such_module\n", encoding="utf-8")
    with pytest.raises(NotAvailableError, match="cannot be loaded: ModuleNotFoundError"):
        Released2019()
    assert os.popen is popen and sys.modules["tensorflow"] is tensorflow


def test_what_is_missing_is_said_in_one_line(imitation: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(released2019, "NEEDS", ("torch", "no_such_module"))
    with pytest.raises(NotAvailableError, match=r"needs no_such_module: pip install refldnq\[released\]"):
        Released2019()
    (imitation / "utils/hessian.py").unlink()
    with pytest.raises(NotAvailableError, match=f"{VARIABLE} must be .*: no utils/hessian.py in"):
        Released2019()
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(NotAvailableError, match="got nothing"):
        Released2019()


@pytest.mark.parametrize(
    ("name", "why"),
    [(NAME, "got nothing"), ("no_such:Adapter", "No module named")],
)
def test_the_command_refuses_in_one_line(name: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    done = CliRunner().invoke(main, ["kit", "run", name])
    assert done.exit_code == 2 and done.stdout == ""
    lines = done.stderr.splitlines()
    assert (
        len(lines) == 1
        and lines[0].startswith(f"refldnq: error: {name} cannot be loaded: ")
        and why in lines[0]
    )


def test_the_command_says_what_can_be_run() -> None:
    done = CliRunner().invoke(main, ["kit", "run", "nothing"])
    assert done.exit_code == 2 and done.stdout == ""
    assert done.stderr.startswith("refldnq: error: Name an adapter, PACKAGE:ADAPTER, or a program ")


def test_the_command_refuses_an_adapter_that_breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_adapter.py").write_text("def make():\n    return 1 / 0\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    done = CliRunner().invoke(main, ["kit", "run", "broken_adapter:make"])
    assert done.exit_code == 2
    assert done.stderr.splitlines() == [
        "refldnq: error: broken_adapter:make cannot be loaded: ZeroDivisionError: division by zero"
    ]


# Reading the trace -------------------------------------------------------------------------------------


def asked(*names: str) -> list[Case]:
    return [case for case in all_cases() if case.id.startswith(names)]


def test_an_imitation_without_faults_passes(imitation: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = asked(
        "admm/direct", "project/five", "project/seven-mean", "project/between", "pack/linear", "pack/conv-3"
    )
    found = run(Released2019(), chosen)
    assert found.count("pass") == len(chosen) >= 14, to_text(found)
    assert capsys.readouterr().out == ""


def test_a_fault_of_an_imitation_is_named(imitation: Path) -> None:
    file = imitation / "utils/quantization.py"
    file.write_text(QUANTIZATION.replace("FACTOR = 0.5", "FACTOR = 1.0"), encoding="utf-8")
    found = run(Released2019(), asked("admm/direct"))
    assert found.explanations["admm"].candidates == (("f-without-half",),), to_text(found)


def test_what_it_has_no_way_to_do_is_unanswered(imitation: Path) -> None:
    found = run(
        Released2019(), asked("admm/three-levels", "admm/last", "project/uniform-levels", "pack/conv-groups")
    )
    assert found.count("unanswered") == len(found.outcomes) == 4
    assert all(outcome.messages[0].startswith("NotImplementedError: ") for outcome in found.outcomes)


def test_the_profiler_that_was_there_stays(imitation: Path) -> None:
    def other(*_: Any) -> None:
        pass

    sys.setprofile(other)
    try:
        Released2019().project(V=np.ones(3), values=np.array([-1.0, 0.0, 1.0]))
        assert sys.getprofile() is other
    finally:
        sys.setprofile(None)


def test_sets_are_known_by_their_levels() -> None:
    assert levels_of(np.array([-2.0, -1.0, 0.0, 1.0, 2.0])) == 5
    for values in ([-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0], [-1.0, 1.0], [0.0]):
        with pytest.raises(NotImplementedError):
            levels_of(np.array(values))


# The authors' code -------------------------------------------------------------------------------------

NAMED = {
    "patches": {"non-finite-accepted", "rows-kh-kw-c", "padding-same"},
    "hessian": {"nothing-accepted", "h-positions-without-2", "h-101-100"},
    "pack": {"non-finite-accepted"},
    "project": {
        "projection-alternates",
        "ties-zero",
        "passes-released",
        "non-finite-accepted",
        "nothing-accepted",
    },
    "admm": {"rho-h00", "alpha-restarted-w", "stop-early", "f-without-half"},
    "quantizer": {"non-finite-accepted"},
    "update_grad": {"both-in-train-mode", "loss-mean-over-entries", "non-finite-accepted"},
}
"""What the kit finds in each step beside the faults of the steps before."""


def authors(make: Any = Released2019) -> Any:
    released2019.load.cache_clear()
    try:
        return make()
    except NotAvailableError as error:
        pytest.skip(str(error))


@functools.cache
def found() -> KitRun:
    return run(authors(), all_cases())


def test_the_causes_in_the_authors_code_are_named() -> None:
    report = found()
    assert {op: set(one.candidates[0]) for op, one in report.explanations.items()} == NAMED, to_text(report)
    for one in report.explanations.values():
        assert one.covered == one.failing > 0
    assert report.exit_code == 1


def test_what_it_shares_with_the_paper_passes() -> None:
    states = {outcome.case.id: outcome.state for outcome in found().outcomes}
    for id_ in (
        "pack/conv-3x3",
        "pack/conv-bias",
        "pack/linear-bias",
        "patches/linear-bias",
        "quantizer/mean-9",
    ):
        assert states[id_] == "pass"
    assert states["project/ties-smaller-11"] == "pass" and states["project/ties-smaller-9"] == "FAIL"


def test_with_its_conventions_declared_the_order_of_rows_is_left() -> None:
    chosen = [case for case in all_cases() if case.op in ("patches", "hessian", "pack")]
    report = run(authors(released2019.Released2019Declared), chosen)
    named = {id_ for one in report.explanations.values() for id_ in one.faults}
    assert named == {"rows-kh-kw-c", "non-finite-accepted", "nothing-accepted"}, to_text(report)
    states = {outcome.case.id: outcome.state for outcome in report.outcomes}
    assert states["hessian/conv-s2-even-bias"] == "blocked"  # asked under SAME; the order of rows is left
    for name in ("linear-hadamard", "conv-1x1-s2", "conv-wide-padding"):
        assert states[f"hessian/{name}"] == "pass"
    assert states["hessian/conv-3x3"] == "blocked" and states["patches/conv-3x3"] == "FAIL"


def test_with_its_conventions_declared_every_trajectory_has_the_expected_codes() -> None:
    chosen = [case for case in all_cases() if case.op == "admm" and case.error is None]
    report = run(authors(released2019.Released2019Declared), chosen)
    verdicts = [outcome.verdicts for outcome in report.outcomes if outcome.verdicts]
    assert len(verdicts) == 20 and {one["free run"] for one in verdicts} == {"the expected codes"}
    assert report.explanations["admm"].candidates == (("f-without-half",),), to_text(report)


def test_no_order_of_rows_suits_both_h_and_the_weights() -> None:
    class Permuted(released2019.Released2019Declared):
        def info(self) -> Any:
            from dataclasses import replace

            return replace(super().info(), conventions=Conventions.profile("released-2019"))

    chosen = [case for case in all_cases() if case.id in ("hessian/conv-3x3", "pack/conv-3x3")]
    report = run(authors(Permuted), chosen)
    assert [outcome.state for outcome in report.outcomes] == ["pass", "FAIL"]


# The page ----------------------------------------------------------------------------------------------


def rows() -> list[tuple[list[str], list[str]]]:
    """Faults and cases of every row of the page's table."""
    lines = re.findall(r"^\| \d+ \|.*$", PAGE, re.M)
    ids = {case.id for case in all_cases()}
    cells = [re.findall(r"`([^`]+)`", line) for line in lines]
    return [([one for one in row if one in BY_ID], [one for one in row if one in ids]) for row in cells]


def test_the_page_lists_the_twelve_deviations() -> None:
    assert len(rows()) == 12
    assert {fault for faults, _ in rows() for fault in faults} <= set().union(*NAMED.values())
    assert VARIABLE in PAGE and NAME in PAGE


def test_the_page_says_what_the_run_finds() -> None:
    report = found()
    states = {outcome.case.id: outcome.state for outcome in report.outcomes}
    named = {id_ for one in report.explanations.values() for id_ in one.faults}
    for faults, cases in rows():
        assert set(faults) <= named
        assert all(states[id_] in (("FAIL", "blocked") if faults else ("pass",)) for id_ in cases)


def test_the_page_measures_what_the_order_of_rows_costs(capsys: pytest.CaptureFixture[str]) -> None:
    authors()
    pytest.importorskip("sklearn", reason="the digits come from scikit-learn")
    script = re.search(r"```py\n(.*?)```", PAGE, re.S)
    assert script is not None
    exec(script[1], {})
    printed: dict[str, list[str]] = {}
    for line in capsys.readouterr().out.splitlines():
        printed.setdefault(line.split()[0], []).append(line.split()[-1].removeprefix("0"))
    for layer in ("conv2", "conv3"):
        row = re.search(rf"^\| `{layer}` of `cnn-digits` \|(.*)\|$", PAGE, re.M)
        assert row is not None
        assert [cell.strip() for cell in row[1].split("|")] == printed[layer]
