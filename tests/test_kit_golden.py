"""Cases as files: the same back, the same bytes again, under 5 MB; and the commands for them."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from refldnq.cli import kit_run
from refldnq.verify.kit import cases as suite
from refldnq.verify.kit import golden, hdf5
from refldnq.verify.kit.cases import Case, all_cases
from refldnq.verify.kit.contract import TRAJECTORIES
from refldnq.verify.kit.families import admm, dual, pack, projection, scales

commands = importlib.import_module("refldnq.cli.kit")  # the package has the command of this name

FEW = tuple(case for family in (dual, pack, projection, admm) for case in family.cases())


def same(a: Case, b: Case) -> bool:
    plain = ("op", "id", "comment", "tier", "flags", "catches", "error", "kappa", "certified", "scored")
    if any(getattr(a, name) != getattr(b, name) for name in plain):
        return False
    if dict(a.compare) != dict(b.compare) or dict(a.conventions) != dict(b.conventions):
        return False
    left, right = (dict(golden.datasets(case)) for case in (a, b))
    return left.keys() == right.keys() and all(
        left[place].dtype == right[place].dtype
        and left[place].shape == right[place].shape
        and left[place].tobytes() == right[place].tobytes()
        for place in left
    )


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_cases_come_back(kind: str, tmp_path: Path) -> None:
    path = tmp_path / ("cases.h5" if kind == "file" else "cases")
    (golden.write if kind == "file" else golden.write_mirror)(path, FEW)
    back = {case.id: case for case in golden.load(path)}
    assert len(back) == len(FEW) and all(same(case, back[case.id]) for case in FEW)
    changed = golden.load(path)[0]
    assert not same(changed, back[golden.load(path)[-1].id])


def test_equal_cases_make_equal_bytes(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from refldnq.verify.kit import golden\n"
        "from refldnq.verify.kit.families import admm, dual, pack, projection\n"
        "cases = [case for family in (projection, dual, pack, admm) for case in family.cases()]\n"
        "golden.write(sys.argv[1] + '.h5', cases); golden.write_mirror(sys.argv[1], cases)\n"
    )
    for name in ("a", "b"):
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / name)], check=True, cwd=Path(__file__).parents[1]
        )
        time.sleep(1.1)  # the format's times are in seconds
    golden.write(tmp_path / "a.h5", reversed(golden.load(tmp_path / "b.h5")))
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    sums = [(tmp_path / name / "SHA256SUMS").read_text() for name in ("a", "b")]
    assert sums[0] == sums[1]
    for line in sums[0].splitlines():
        digest, name = line.split("  ")
        assert golden.sha256(tmp_path / "a" / name) == digest


@pytest.mark.slow
def test_the_suite_is_small(tmp_path: Path) -> None:
    golden.write(tmp_path / "all.h5", all_cases())
    golden.write_mirror(tmp_path / "all", all_cases())
    assert (tmp_path / "all.h5").stat().st_size < 5e6
    assert sum(file.stat().st_size for file in (tmp_path / "all").rglob("*") if file.is_file()) < 5e6


def test_what_the_file_says(tmp_path: Path) -> None:
    golden.write(tmp_path / "a.h5", FEW)
    with hdf5.open_file(tmp_path / "a.h5") as file:
        root = hdf5.attributes(file)
        assert root["schema"] == "refldnq-golden/1" and len(root["generator_sha256"]) == 64
        for place, group in hdf5.children(file["cases"], depth=2):
            for name, one in hdf5.children(group, depth=2):
                assert one.compression is None and one.dtype.kind in "biufS", (place, name)
                for text in one.attrs.values():
                    assert isinstance(text, bytes)  # of fixed length
        assert file["cases/admm/convolution/in/W_bar"].attrs["axes"] == b"d,m"
        assert file["cases/admm/convolution/out/Q"].attrs["compare"] == b"code"


def test_a_trajectory_has_a_trace_of_its_iterations(tmp_path: Path) -> None:
    cases = [case for case in (*admm.cases(), *scales.cases()) if case.op in TRAJECTORIES and not case.error]
    golden.write(tmp_path / "a.h5", cases)
    with hdf5.open_file(tmp_path / "a.h5") as file:
        for case in cases:
            group = file[f"cases/{case.id}"]
            trace, own = ({name: group[part][name][()] for name in group[part]} for part in ("trace", "in"))
            assert set(trace) == set(suite.TRACE), case.id
            assert {len(array) for array in trace.values()} == {int(own["K"])}
            assert np.array_equal(trace["G_in"], np.concatenate([own["G0"][None], trace["G"][:-1]]))
            assert np.array_equal(trace["L_in"], np.concatenate([own["lam0"][None], trace["L"][:-1]]))
            assert np.allclose(trace["V"], trace["Theta"] + trace["L_in"], rtol=1e-14, atol=1e-14)
            assert np.allclose(trace["L"], trace["V"] - trace["G"], rtol=1e-13, atol=1e-13)
            E = np.concatenate([group["out/E"][:1], trace["E"]])
            assert trace["best"].tolist() == [int(np.argmin(E[: k + 2])) for k in range(len(E) - 1)]
            assert (trace["passes"] >= 0).all()


def test_questions_have_no_answers(tmp_path: Path) -> None:
    golden.write(tmp_path / "q.h5", FEW, inputs_only=True)
    golden.write_mirror(tmp_path / "q", FEW, inputs_only=True)
    with hdf5.open_file(tmp_path / "q.h5") as file:
        assert {place.rpartition("/")[2] for place, _ in hdf5.children(file["cases"], depth=3)} == {"in"}
    assert {file.parent.name for file in (tmp_path / "q").rglob("*.npy")} == {"in"}
    assert "error" not in (tmp_path / "q" / "index.json").read_text()
    for path in (tmp_path / "q.h5", tmp_path / "q"):
        with pytest.raises((ValueError, KeyError)):
            golden.load(path)


def test_the_index_follows_its_schema(tmp_path: Path) -> None:
    for inputs_only in (False, True):
        golden.write_mirror(tmp_path, FEW, inputs_only=inputs_only)
        index = json.loads((tmp_path / "index.json").read_text())
        assert json.loads((tmp_path / "index.schema.json").read_text()) == golden.INDEX_SCHEMA
        assert faults(index, golden.INDEX_SCHEMA) == []
    index["cases"][0]["level"] = "easy"
    del index["cases"][1]["op"]
    index["suite"], index["more"] = "new", 1
    assert len(faults(index, golden.INDEX_SCHEMA)) == 4


def faults(value: Any, schema: Any) -> list[str]:
    """What breaks a schema, as far as this one goes."""
    import re

    types: dict[str, Any] = {
        "object": dict,
        "array": list,
        "string": str,
        "number": (int, float),
        "boolean": bool,
    }
    found = []
    if "type" in schema and not isinstance(value, types[schema["type"]]):
        return [f"{value!r} is no {schema['type']}"]
    if ("const" in schema and value != schema["const"]) or ("enum" in schema and value not in schema["enum"]):
        found.append(f"{value!r}")
    if "pattern" in schema and not re.search(schema["pattern"], value):
        found.append(f"{value!r}")
    if isinstance(value, dict):
        known = schema.get("properties", {})
        found += [f"{name} missing" for name in schema.get("required", ()) if name not in value]
        rest = schema.get("additionalProperties", True)
        for name, one in value.items():
            if name in known:
                found += faults(one, known[name])
            elif rest is False:
                found.append(f"{name} unknown")
            elif isinstance(rest, dict):
                found += faults(one, rest)
    if isinstance(value, list):
        found += [line for one in value for line in faults(one, schema["items"])]
    return found


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"no file of this kind")
    with pytest.raises(ValueError, match="must be an HDF5 file"):
        golden.load(tmp_path / "a.h5")
    with pytest.raises(FileNotFoundError):
        golden.load(tmp_path / "b.h5")
    (tmp_path / "index.json").write_text('{"schema": "other/1"}')
    with pytest.raises(ValueError, match="must be of the schema refldnq-golden/1"):
        golden.load(tmp_path)
    with pytest.raises(ValueError, match="must hold numbers"):
        golden.as_array(np.array([None]))


# Commands ----------------------------------------------------------------------------------------------


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> tuple[Case, ...]:
    chosen = tuple(case for case in FEW if case.op == "dual")
    monkeypatch.setattr(suite, "all_cases", lambda: chosen)
    monkeypatch.setattr(kit_run, "choose", lambda only: chosen)
    monkeypatch.setattr(commands, "choose", lambda only: chosen)
    return chosen


def call(*words: object) -> Any:
    return CliRunner().invoke(commands.kit, [str(word) for word in words])


def test_list_and_show(few: tuple[Case, ...], tmp_path: Path) -> None:
    assert call("list").output.split() == [case.id for case in few]
    shown = call("show", few[0].id, "--json", tmp_path / "a.json")
    assert few[0].comment in shown.output and "out/lam_new float64" in shown.output
    assert json.loads((tmp_path / "a.json").read_text())["id"] == few[0].id
    assert isinstance(call("show", "dual/none").exception, ValueError)


def test_from_export_to_verdict(few: tuple[Case, ...], tmp_path: Path) -> None:
    assert (
        "cases to" in call("export", "--inputs-only", "--npy", tmp_path / "q", "-o", tmp_path / "q.h5").output
    )
    assert call("export").exit_code == 2
    answers: dict[str, dict[str, Any]] = {}
    for case in few:
        given = {file.stem: np.load(file) for file in (tmp_path / "q" / case.id / "in").glob("*.npy")}
        if all(np.isfinite(array).all() for array in given.values()):
            answers[case.id] = {"lam_new": given["lam"] + given["Theta"] - given["G"]}
        else:
            answers[case.id] = {"error": "not finite"}
    for path in (tmp_path / "a.h5", tmp_path / "a"):
        golden.write_answers(path, {"name": "mine", "capabilities": ["dual"]}, answers)
        good = call("verify", path)
        assert good.exit_code == 0 and f"pass {len(few)}" in good.output, good.output
        wrong = {
            id_: {name: value if isinstance(value, str) else -value for name, value in one.items()}
            for id_, one in answers.items()
        }
        golden.write_answers(path, {"name": "mine"}, wrong)
        assert call("verify", path).exit_code == 1
    golden.write(tmp_path / "own.h5", few[:1])
    golden.write_answers(tmp_path / "a.h5", {}, answers)
    assert "listed 1" in call("verify", tmp_path / "a.h5", "--cases", tmp_path / "own.h5").output


def test_other_commands_are_there() -> None:
    assert {
        "list",
        "show",
        "export",
        "verify",
        "run",
        "explain",
        "selftest",
        "diff",
        "record",
        "fuzz",
    } <= set(commands.kit.commands)
