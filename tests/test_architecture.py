"""The floors of the house: what may import what. Read from the sources, so nothing needs to be importable."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FLOORS = (
    {"_typing"},
    {"_checks", "_plain", "errors", "tables"},
    {"codebook", "_kernels", "im2col"},
    {"_exact"},
    {"_rows"},
    {"layers", "loss", "optim", "data"},
    {"network", "hessian", "drift", "projection"},
    {"model", "batches", "follower", "open_drift"},
    {"solvers", "bounds", "formats"},
    {"update", "train", "allocation", "reestimate"},
    {"released", "versions", "final"},
    {"ldnq_settings", "cascade", "straight"},
    {"layer_report"},
    {"layer_problem", "taken_over", "progress"},
    {"last_updates"},
    {"ldnq"},
    {"baselines"},
    {"experiments"},
    {"cli"},
    {"models"},
    {"verify"},
)
"""Modules and packages of `refldnq`, lowest first. One imports from floors below its own and from itself."""

HEAVY = {"distributed", "h5py", "joblib", "matplotlib", "numba", "onnx", "PIL", "rich", "sklearn", "torch"}
"""What takes long to import, or need not be installed: imported where it is used, never with the package."""

AT_HOME = {"h5py": "formats", "numba": "_kernels"}
"""Where a heavy package may stand at the top of a module; such modules are imported inside functions."""

LIGHT_FROM = FLOORS.index({"ldnq"})
"""Up to this floor, and in `cli`, importing a module imports nothing heavy."""

AUTOGRAD = {"autograd", "jax", "tensorflow", "torch"}


@dataclass(frozen=True)
class Import:
    """One imported module, where it stands and how."""

    target: str
    line: int
    top: bool
    relative: bool = False
    names: tuple[str, ...] = ()


def module_names(root: Path) -> dict[str, Path]:
    """Every module under its installed name; the links refldnq/models and refldnq/verify are not walked."""
    found = {}
    for folder, prefix in (("refldnq", ""), ("models", "refldnq."), ("verify", "refldnq.")):
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            if parts[:2] in (("refldnq", "models"), ("refldnq", "verify")):
                continue
            found[prefix + ".".join(parts).removesuffix(".__init__")] = path
    return found


SOURCES = {name: path.read_text("utf-8") for name, path in module_names(ROOT).items()}


def statements(tree: ast.AST, top: bool = True) -> Iterator[tuple[ast.stmt, bool]]:
    """The import statements, with whether they run when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, top
        elif isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for child in node.body:
                if isinstance(child, ast.Import | ast.ImportFrom):
                    yield child, False
        else:
            yield from statements(node, top and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@cache
def imports(source: str) -> tuple[Import, ...]:
    """Every import of a module; `from a import b` counts as a.b where a is `refldnq` itself."""
    found: list[Import] = []
    for node, top in statements(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, node.lineno, top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if module == "refldnq":
                found += [Import(f"refldnq.{alias.name}", node.lineno, top) for alias in node.names]
            else:
                names = tuple(alias.name for alias in node.names)
                found.append(Import(module, node.lineno, top, node.level > 0, names))
    return tuple(found)


def unit(module: str) -> str:
    """The part of a module's name that has a floor: refldnq.layers.conv -> layers."""
    return module.split(".")[1] if "." in module else ""


def floor(module: str) -> int:
    """The module's place in `FLOORS`; -1 if it has none."""
    return next((i for i, names in enumerate(FLOORS) if unit(module) in names), -1)


def reached(module: str, sources: Mapping[str, str]) -> set[str]:
    """All modules and packages that importing `module` imports, through modules of `sources`."""
    seen: set[str] = set()
    todo = [module]
    while todo:
        for found in imports(sources[todo.pop()]):
            if not found.top:
                continue
            parts = found.target.split(".")
            members = (f"{found.target}.{name}" for name in found.names)
            packages = (".".join(parts[: i + 1]) for i in range(len(parts)))
            for name in (*packages, *(member for member in members if member in sources)):
                if name not in seen and name != "refldnq":
                    seen.add(name)
                    todo += [name] if name in sources else []
    return seen


def violations(sources: Mapping[str, str]) -> list[str]:
    """What breaks the rules in modules given by name."""
    found = []
    for module, source in sources.items():
        inner = unit(module)
        if module != "refldnq" and floor(module) < 0:
            found.append(f"{module} has no floor: give it one in FLOORS")
        for one in imports(source):
            where = f"{module}:{one.line}"
            package = one.target.split(".")[0]
            if one.relative:
                found.append(f"{where} imports relatively")
            if package == "refldnq":
                found += [f"{where} {fault}" for fault in floor_faults(module, one)]
            elif inner == "verify" and ".naive" in module and not plain(package):
                found.append(f"{where} a naive twin imports {package}")
            if package in AUTOGRAD and inner not in ("formats", "verify"):
                found.append(f"{where} imports {package}")
            if package in HEAVY and one.top and AT_HOME.get(package) != inner and inner != "verify":
                found.append(f"{where} imports {package} at its top")
        if inner not in ("cli", "verify"):
            found += [f"{module}:{line} prints" for line in prints(source)]
        light = inner == "cli" or (inner not in AT_HOME.values() and floor(module) <= LIGHT_FROM)
        if light:
            found += [f"{module} brings {heavy}" for heavy in sorted(reached(module, sources) & HEAVY)]
    return found


def floor_faults(module: str, one: Import) -> Iterator[str]:
    """What is wrong with an import from `refldnq` in `module`."""
    inner, target = unit(module), unit(one.target)
    if module == "refldnq":
        if one.top:
            yield f"imports {one.target} at its top"
    elif one.target == "refldnq.__version__" or target == inner:
        pass
    elif floor(one.target) < 0:
        yield f"imports {one.target}, which is no module with a floor"
    elif target in ("models", "verify") and inner not in ("models", "verify"):
        if inner != "cli" or one.top:
            yield f"imports {one.target}"
    elif inner == "verify" and ".naive" in module:
        yield f"a naive twin imports {one.target}"
    elif floor(one.target) >= floor(module):
        yield f"imports {one.target}, which is not on a lower floor"


def plain(package: str) -> bool:
    """Whether a naive twin may import `package`: NumPy and the standard library."""
    return package == "numpy" or package in sys.stdlib_module_names


def prints(source: str) -> list[int]:
    """Lines that call print."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]


def test_the_house_keeps_its_floors() -> None:
    assert violations(SOURCES) == []


def test_all_packages_are_read() -> None:
    units = {unit(module) for module in SOURCES} - {""}
    assert {"layers", "solvers", "models", "verify", "cli"} <= units
    assert all((ROOT / "refldnq" / name).is_symlink() for name in ("models", "verify"))


PLANTED = {
    "upward": ("refldnq.hessian", "from refldnq.ldnq import ldnq", "not on a lower floor"),
    "upward in a function": ("refldnq.loss", "def f():\n    import refldnq.update", "not on a lower floor"),
    "upward for types": ("refldnq.loss", "if TYPE_CHECKING:\n    from refldnq.ldnq import X", "lower floor"),
    "sideways": ("refldnq.loss", "from refldnq.optim import SGD", "not on a lower floor"),
    "by the front door": ("refldnq.update", "from refldnq import Network", "no module with a floor"),
    "models": ("refldnq.experiments.run", "def f():\n    from refldnq.models import build", "refldnq.models"),
    "models at the top of cli": ("refldnq.cli.train", "from refldnq import models", "imports refldnq.models"),
    "relative": ("refldnq.layers.conv", "from .base import Layer", "relatively"),
    "twin": ("refldnq.verify.naive.admm", "from refldnq.hessian import layer_error", "a naive twin"),
    "twin with scipy": ("refldnq.verify.naive.admm", "import scipy.linalg", "a naive twin imports scipy"),
    "heavy": ("refldnq.projection", "import numba", "imports numba at its top"),
    "heavy guest": ("refldnq.update", "from refldnq._kernels import heavy", "brings numba"),
    "autograd": ("refldnq.update", "def f():\n    import torch", "imports torch"),
    "print": ("refldnq.ldnq", "print('layer 1')", "prints"),
    "eager front door": ("refldnq", "from refldnq.network import Network", "at its top"),
    "stranger": ("refldnq.utils", "", "has no floor"),
}


@pytest.mark.parametrize("case", PLANTED)
def test_a_planted_violation_is_found(case: str) -> None:
    module, source, message = PLANTED[case]
    house = {"refldnq._kernels.heavy": "import numba"}
    assert violations(house) == []
    found = violations({**house, module: source})
    assert any(message in line for line in found), found


ALLOWED = {
    "downward": ("refldnq.update", "from refldnq.network import Network"),
    "within": ("refldnq.layers.conv", "from refldnq.layers.base import LinearMap"),
    "models in a command": ("refldnq.cli.train", "def f():\n    from refldnq import models"),
    "numba in a function": ("refldnq.projection", "def f():\n    from refldnq._kernels import heavy"),
    "version": ("refldnq.experiments.run", "from refldnq import __version__"),
}


@pytest.mark.parametrize("case", ALLOWED)
def test_what_is_allowed_is_not_reported(case: str) -> None:
    module, source = ALLOWED[case]
    assert violations({"refldnq._kernels.heavy": "import numba", module: source}) == []
