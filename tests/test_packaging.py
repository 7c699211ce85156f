"""What is installed: one import name, its data files, lazy public names; wheel and editable installation."""

from __future__ import annotations

import ast
import importlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import refldnq

ROOT = Path(__file__).parents[1]

HEAVY = ("click", "h5py", "matplotlib", "numba", "rich", "scipy", "sklearn", "torch")


def python(
    *arguments: str, cwd: Path, path: Path | None = None, executable: str | Path = sys.executable
) -> str:
    """Run an interpreter, by default this one, without the repository on its path; its output."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the build reads, so that it leaves nothing in the repository."""
    copy = tmp_path_factory.mktemp("sources")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout: the list of the project's files is missing")
    for name in filter(None, listed.stdout.split("\0")):
        source, target = ROOT / name, copy / name
        if source.is_symlink() or source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_symlink():
                target.symlink_to(os.readlink(source))
            else:
                target.write_bytes(source.read_bytes())
    return copy


@pytest.fixture(scope="module")
def wheel(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sources."""
    pytest.importorskip("setuptools", minversion="77", reason="building a wheel needs setuptools 77 or later")
    folder = tmp_path_factory.mktemp("wheel")
    options = ("--no-build-isolation", "--no-deps", "--no-index", "--quiet")
    python("-m", "pip", "wheel", *options, "-w", str(folder), str(sources), cwd=folder)
    (found,) = folder.glob("refldnq-*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed wheel, outside the repository."""
    folder = tmp_path_factory.mktemp("installed")
    options = ("--no-deps", "--no-index", "--quiet", "--no-warn-conflicts")
    python("-m", "pip", "install", *options, "--target", str(folder), str(wheel), cwd=folder)
    return folder


def modules(names: list[str]) -> set[str]:
    """Module names of paths in a wheel."""
    return {
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in names
        if name.endswith(".py")
    }


def expected_modules() -> set[str]:
    """Every module of the repository under its installed name."""
    found = set()
    for folder, prefix in (("refldnq", ""), ("models", "refldnq."), ("verify", "refldnq.")):
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if parts[:2] not in (("refldnq", "models"), ("refldnq", "verify")):
                found.add(prefix + ".".join(parts).removesuffix(".__init__"))
    return found


def test_the_wheel_holds_every_module_once(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert len(names) == len(set(names))
    assert modules(names) == expected_modules()


def test_the_wheel_installs_one_import_name(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert tops == {"refldnq", f"refldnq-{refldnq.__version__}.dist-info"}


def test_the_wheel_holds_the_data_files(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    data = {
        f"refldnq/models/{path.name}" for path in (ROOT / "models").iterdir() if path.suffix in (".h5", ".md")
    }
    assert {"refldnq/py.typed", *data} <= names
    dist = f"refldnq-{refldnq.__version__}.dist-info"
    assert f"{dist}/licenses/LICENSE" in names
    entry = zipfile.ZipFile(wheel).read(f"{dist}/entry_points.txt").decode()
    assert "refldnq = refldnq.cli:main" in entry


WHERE = """
import importlib.util, json
names = ("refldnq", "refldnq.models", "refldnq.verify", "models", "verify", "tests", "benchmarks")
def place(name):
    spec = importlib.util.find_spec(name)
    return spec and spec.origin
print(json.dumps({name: place(name) for name in names}))
"""


def test_installed_from_the_wheel_only_refldnq_is_importable(installed: Path, tmp_path: Path) -> None:
    places = json.loads(python("-c", WHERE, cwd=tmp_path, path=installed))
    for name in ("refldnq", "refldnq.models", "refldnq.verify"):
        assert Path(places.pop(name)).is_relative_to(installed)
    assert set(places.values()) == {None}


def test_the_installed_package_works_outside_the_repository(installed: Path, tmp_path: Path) -> None:
    code = (
        "import numpy as np, refldnq.models, refldnq.verify\n"
        "print(refldnq.models.build('mlp-digits', np.random.default_rng(0)).input_shape)\n"
        "print(all(refldnq.models.shipped(name).is_file() for name in refldnq.models.SHIPPED))"
    )
    assert python("-c", code, cwd=tmp_path, path=installed).split("\n")[:2] == ["(1, 8, 8)", "True"]


def test_an_editable_installation_leads_to_the_sources(sources: Path, tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77", reason="building needs setuptools 77 or later")
    # An environment of its own: this one may hold an editable installation already.
    python("-m", "venv", "--without-pip", "env", cwd=tmp_path)
    (site,) = (tmp_path / "env").glob("**/site-packages")
    options = ("--no-build-isolation", "--no-deps", "--no-index", "--quiet", "--no-warn-conflicts")
    python("-m", "pip", "install", *options, "--target", str(site), "-e", str(sources), cwd=tmp_path)
    (interpreter,) = (tmp_path / "env").glob("*/python")
    places = json.loads(python("-c", WHERE, cwd=tmp_path, executable=interpreter))
    for name in ("refldnq", "refldnq.models", "refldnq.verify"):
        assert Path(places.pop(name)).is_relative_to(sources), places
    assert set(places.values()) == {None}


def test_import_is_light() -> None:
    code = (
        "import sys, time, numpy\n"
        "began = time.perf_counter(); import refldnq; took = time.perf_counter() - began\n"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)))\n"
        "print(f'import refldnq: {1000 * took:.1f} ms beyond NumPy')"
    )
    heavy, report = python("-c", code, cwd=ROOT).splitlines()
    print(report)
    assert heavy == "[]"


def test_help_is_light() -> None:
    code = (
        "import sys\nfrom refldnq.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'h5py', 'matplotlib', 'numba', 'sklearn', 'torch'} & set(sys.modules)))"
    )
    assert python("-c", code, cwd=ROOT).splitlines()[-1] == "[]"


def test_public_names_load_and_type_checkers_see_the_same() -> None:
    tree = ast.parse((ROOT / "refldnq/__init__.py").read_text("utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    lazy = {name: module for module, names in refldnq._MODULES.items() for name in names}
    assert seen == lazy
    for name, module in lazy.items():
        assert getattr(refldnq, name) is getattr(importlib.import_module(module), name)
        assert name in dir(refldnq)
        assert not (ROOT / "refldnq" / f"{name}.py").exists(), f"{name} is a module as well"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        refldnq.nothing  # noqa: B018
