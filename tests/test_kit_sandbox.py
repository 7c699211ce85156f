"""Files of answers that are not what they should be: always a verdict or a clear error."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from refldnq.verify.kit import fuzz as fuzzing
from refldnq.verify.kit import golden, sandbox
from refldnq.verify.kit.cases import Case
from refldnq.verify.kit.external import recorded
from refldnq.verify.kit.families import admm, dual, hessian, pack, patches, projection, proximal

commands = importlib.import_module("refldnq.cli.kit")  # the package has the command of this name

BASIC: tuple[Case, ...] = tuple(
    case for family in (patches, hessian, pack, proximal, projection, dual, admm) for case in family.cases()
)


@pytest.fixture(scope="module")
def worker() -> Any:
    with sandbox.Sandbox() as own:
        yield own


def test_answers_come_back(worker: sandbox.Sandbox, tmp_path: Path) -> None:
    info = {
        "name": "a",
        "version": "2",
        "dtype": "float32",
        "capabilities": ["dual"],
        "conventions": {"ties": "zero"},
    }
    answers: dict[str, dict[str, Any]] = {
        "dual/a": {"lam_new": np.arange(6.0, dtype=np.float32).reshape(2, 3)},
        "project/b": {"Q": np.array([1, 2], dtype=np.int8), "alpha": np.array(2.5), "passes": np.array(3)},
        "project/c": {"error": "not finite"},
        "pack/d": {"W": np.zeros((0, 3))},
    }
    for name in ("a.h5", "a"):
        golden.write_answers(tmp_path / name, info, answers)
        said, found = worker.read(tmp_path / name)
        assert said == info and found.keys() == answers.keys()
        assert found["project/c"] == {"error": "not finite"}
        for id_, one in answers.items():
            for key, value in one.items():
                if not isinstance(value, str):
                    got = found[id_][key]
                    assert (
                        got.dtype == value.dtype and got.shape == value.shape and np.array_equal(got, value)
                    )
    assert golden.read_answers(tmp_path / "a.h5")[0] == info


def acting(act: str) -> Any:
    """Starts workers that say that they are ready, wait for a file and act."""
    code = f"""
import os, struct, sys, time
sys.stdout.buffer.write(struct.pack("<Q", 0))
sys.stdout.buffer.flush()
sys.stdin.buffer.read(9)
{act}
"""
    real = subprocess.Popen
    return lambda command, **more: real([sys.executable, "-c", code], **more)


@pytest.mark.parametrize("act", ["os.abort()", "sys.exit(3)", "sys.stdout.buffer.write(bytes(3))"])
def test_a_reader_that_crashes_is_replaced(act: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    golden.write_answers(tmp_path / "a.h5", {}, {"dual/a": {"lam_new": np.ones(1)}})
    with sandbox.Sandbox() as own:
        with monkeypatch.context() as patched:
            patched.setattr(subprocess, "Popen", acting(act))
            with pytest.raises(ValueError, match="the reader crashed"):
                own.read(tmp_path / "a.h5")
        assert own.read(tmp_path / "a.h5")[1] and own.started == 2


def test_a_reader_that_does_not_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    golden.write_answers(tmp_path / "a.h5", {}, {"dual/a": {"lam_new": np.ones(1)}})
    (tmp_path / "h5py.py").write_text("raise ImportError('not for this machine')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])  # the worker's, too
    with pytest.raises(ValueError, match="does not start: ImportError: not for this machine"):
        sandbox.read(tmp_path / "a.h5")


def test_a_reader_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    golden.write_answers(tmp_path / "a.h5", {}, {"dual/a": {"lam_new": np.ones(1)}})
    monkeypatch.setattr(subprocess, "Popen", acting("time.sleep(99)"))
    began = time.perf_counter()
    with sandbox.Sandbox(seconds=0.5) as own, pytest.raises(ValueError, match=r"longer than 0\.5 s"):
        own.read(tmp_path / "a.h5")
    assert time.perf_counter() - began < 10


def test_what_is_refused(worker: sandbox.Sandbox, tmp_path: Path) -> None:
    def refused(match: str, path: Path) -> None:
        with pytest.raises(ValueError, match=match):
            worker.read(path)

    def file(change: Any) -> Path:
        path = tmp_path / "bad.h5"
        with h5py.File(path, "w", libver="latest") as opened:
            change(opened, opened.create_group("cases/dual/a/out"))
        return path

    (tmp_path / "text.h5").write_text("text")
    refused("must be an HDF5 file", tmp_path / "text.h5")
    refused("cases", file(lambda f, out: f.__delitem__("cases")))
    refused("numbers or a text", file(lambda f, out: out.create_dataset("G", data=np.ones(2, dtype=complex))))
    refused(
        "must not be a link", file(lambda f, out: out.__setitem__("G", h5py.ExternalLink("/etc/passwd", "/")))
    )
    refused("must not be a link", file(lambda f, out: out.__setitem__("G", h5py.SoftLink("/cases"))))
    refused("must be a dataset", file(lambda f, out: out.create_group("G")))
    refused(
        "lie in the file",
        file(lambda f, out: out.create_dataset("G", (2,), "f8", external=[("/etc/passwd", 0, 16)])),
    )
    refused("more than", file(lambda f, out: out.create_dataset("G", (2**40,), "f8", chunks=(64,))))
    refused("short text", file(lambda f, out: f.attrs.__setitem__("name", np.zeros(3))))
    refused("longer than", file(lambda f, out: f.attrs.__setitem__("name", np.bytes_(b"x" * 10**6))))
    refused("short text", file(lambda f, out: f.attrs.__setitem__("name", "x" * 10**6)))
    refused("must be JSON", file(lambda f, out: f.attrs.__setitem__("conventions", "{")))
    refused(
        "nested too deeply|must be JSON", file(lambda f, out: f.attrs.__setitem__("conventions", "[" * 50000))
    )
    with pytest.raises(FileNotFoundError):
        worker.read(tmp_path / "none.h5")


def test_a_misspelt_field_is_an_error_in_both_formats(tmp_path: Path) -> None:
    answers = {"dual/a": {"lam_new": np.ones(2)}}
    info = {"name": "mine", "conventions": {"h_scale": "1/n"}}
    for name in ("a.h5", "a"):
        golden.write_answers(tmp_path / name, info, answers)
        assert recorded(tmp_path / name).info().conventions.h_scale == "1/n"
        for wrong in ("capabilites", "Name", "NAME ", "_", "ρ"):
            told = tmp_path / f"{len(wrong)}{name}"
            golden.write_answers(told, info, answers)
            if told.is_dir():
                (told / "info.json").write_text(json.dumps({**info, wrong: ["dual"]}))
            else:
                with h5py.File(told, "a") as file:
                    file.attrs[wrong] = '["dual"]'
            with pytest.raises(ValueError, match=r"must be one of .*name.*dtype.*conventions"):
                recorded(told)


def test_answers_may_stand_in_a_copy_of_the_export(tmp_path: Path) -> None:
    case = BASIC[0]
    golden.write(tmp_path / "own.h5", [case], inputs_only=True)
    with h5py.File(tmp_path / "own.h5", "a") as file:
        assert set(file.attrs) == set(golden.ROOT)
        file.attrs["name"] = "mine"
        for name, right in case.outputs.items():
            file[f"cases/{case.id}/out/{name}"] = right
    found = recorded(tmp_path / "own.h5")
    assert found.info().name == "mine" and found.ids == (case.id,)


def test_attributes_of_a_writer_are_no_fields(tmp_path: Path) -> None:
    golden.write_answers(tmp_path / "a.h5", {"name": "mine"}, {"dual/a": {"lam_new": np.ones(2)}})
    written = {"CLASS": "GROUP", "PYTABLES_FORMAT_VERSION": "2.1", "TITLE": "", "VERSION": "1.0"}
    with h5py.File(tmp_path / "a.h5", "a") as file:
        for name, value in written.items():
            file.attrs[name] = np.bytes_(value) if value else h5py.Empty("S1")  # as PyTables has them
        file.attrs["_NCProperties"] = "version=2,netcdf=4.9.2,hdf5=1.14.4"
    info = recorded(tmp_path / "a.h5").info()
    assert (info.name, info.version) == ("mine", "unknown")


def test_folders_that_are_refused(worker: sandbox.Sandbox, tmp_path: Path) -> None:
    out = tmp_path / "dual" / "a" / "out"
    out.mkdir(parents=True)
    np.save(out / "G.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="numbers or a text"):
        worker.read(tmp_path)
    (out / "G.npy").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"no \.npy file"):
        worker.read(tmp_path)
    (out / "G.npy").unlink()
    if hasattr(os, "mkfifo"):
        os.mkfifo(out / "G.npy")
        with pytest.raises(ValueError, match="must be a file"):
            worker.read(tmp_path)
        (out / "G.npy").unlink()
    (tmp_path / "info.json").write_text("[]")
    with pytest.raises(ValueError, match="must hold an object"):
        worker.read(tmp_path)
    (tmp_path / "info.json").unlink()
    out.rename(out.with_name("Out"))
    with pytest.raises(ValueError, match="dual/a must hold a folder named out"):
        worker.read(tmp_path)


@pytest.mark.parametrize("place", ["dual", "dual/a", "dual/a/out", "dual/a/out/G.npy", "info.json"])
def test_links_out_of_a_folder_are_refused(worker: sandbox.Sandbox, tmp_path: Path, place: str) -> None:
    golden.write_answers(tmp_path / "real", {"name": "a"}, {"dual/a": {"G": np.ones(2)}})
    assert worker.read(tmp_path / "real")[1].keys() == {"dual/a"}
    linked = tmp_path / "real" / place
    linked.rename(tmp_path / "elsewhere")
    linked.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="must not be a link"):
        worker.read(tmp_path / "real")


def test_memory_is_limited(worker: sandbox.Sandbox, tmp_path: Path) -> None:
    # Below the limit of one array, beyond that of all.
    with h5py.File(tmp_path / "a.h5", "w") as file:
        out = file.create_group("cases/dual/a/out")
        for k in range(5):
            out.create_dataset(f"G{k}", (2**23,), "f8", chunks=(2**16,), compression="gzip", fillvalue=1.0)
    with pytest.raises(ValueError, match="more than"):
        worker.read(tmp_path / "a.h5")


def test_two_hundred_damaged_files() -> None:
    found = fuzzing.fuzz(BASIC, 200, seed=1)
    assert not found.problems
    assert sum(found.counts.values()) == 200 and "pass" not in found.counts
    assert found.counts["fail"] >= 20 and found.counts["error"] >= 20


def test_a_verifier_that_passes_anything_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzzing, "_verdict", lambda path, cases, own: "pass")
    found = fuzzing.fuzz(BASIC, 3)
    assert sum("a pass" in line for line in found.problems) == 3
    monkeypatch.setattr(fuzzing, "_verdict", lambda path, cases, own: "error")
    assert any("undamaged right" in line for line in fuzzing.fuzz(BASIC, 1).problems)


def test_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(commands, "choose", lambda only: BASIC)
    done = CliRunner().invoke(commands.kit, ["fuzz", "--count", "5", "--json", str(tmp_path / "a.json")])
    assert done.exit_code == 0 and "FUZZ files 5" in done.output and "problems 0" in done.output
