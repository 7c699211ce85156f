"""PyTorch checkpoints: what is taken from them, what is refused, and that nothing in them runs."""

from __future__ import annotations

import os
import pickle
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from refldnq._typing import Array
from refldnq.cli import main
from refldnq.errors import FormatError
from refldnq.formats.torch import assign, load_state_dict
from refldnq.layers import BatchNorm, Conv2d, Flatten, Linear
from refldnq.models import build
from refldnq.network import Network, Node


def network() -> Network:
    nodes = (
        Node("conv1", Conv2d(1, 2, 2, bias=False), ("input",)),
        Node("layer1.bn", BatchNorm(2), ("conv1",)),
        Node("flatten", Flatten(), ("layer1.bn",)),
        Node("fc", Linear(8, 3), ("flatten",)),
    )
    params = {
        node.name: {key: np.zeros(shape) for key, shape in node.layer.parameter_shapes().items()}
        for node in nodes
        if node.layer.parameter_shapes()
    }
    return Network(nodes, params, (1, 3, 3))


def arrays(dtype: Any = np.float32) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {
        f"{name}.{key}": rng.standard_normal(array.shape).astype(dtype)
        for name, own in network().params.items()
        for key, array in own.items()
    }


# ------------------------------------------------------------------ from arrays to a network


def check_assigned(result: Network, given: Mapping[str, Array], dtype: Any) -> None:
    for name, own in result.params.items():
        for key, array in own.items():
            if array.dtype != dtype or not np.array_equal(array, given[f"{name}.{key}"]):
                raise AssertionError(f"{name}.{key} differs")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_find_their_places_by_name(dtype: Any) -> None:
    given = arrays(dtype)
    result = assign(network(), dict(reversed(given.items())))
    check_assigned(result, given, dtype)
    assert result.nodes == network().nodes and result.input_shape == (1, 3, 3)
    swapped = {**given, "layer1.bn.weight": given["layer1.bn.bias"]}
    with pytest.raises(AssertionError, match=r"layer1\.bn\.weight differs"):
        check_assigned(result, swapped, dtype)


def test_prefixes_may_differ_from_names() -> None:
    given = arrays()
    renamed = {key.replace("layer1.bn", "features.1"): array for key, array in given.items()}
    result = assign(network(), renamed, {"layer1.bn": "features.1", "conv1": "conv1", "fc": "fc"}.__getitem__)
    check_assigned(result, given, np.float32)
    with pytest.raises(FormatError, match=r"they lack 4 array\(s\): layer1\.bn\.bias"):
        assign(network(), renamed)


def test_one_double_makes_all_double() -> None:
    given = {**arrays(), "fc.bias": np.array([0.1, 0.2, 0.3])}
    check_assigned(assign(network(), given), given, np.float64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fc.bias": None}, r"they lack 1 array\(s\): fc\.bias"),
        (dict.fromkeys(arrays()), r"they lack 7 array\(s\): conv1\.weight, fc\.bias, fc\.weight, \.\.\."),
        ({"fc2.bias": np.zeros(3, np.float32)}, r"they have 1 array\(s\): fc2\.bias"),
        ({"fc.bias": np.zeros(4, np.float32)}, r"fc\.bias must have shape \(3,\), got \(4,\)"),
        ({"fc.weight": np.zeros((8, 3), np.float32)}, r"fc\.weight must have shape \(3, 8\), got \(8, 3\)"),
        ({"fc.bias": np.zeros(3, np.float16)}, r"must be float32 or float64, got float16 in fc\.bias"),
        ({"fc.bias": np.zeros(3, np.int64)}, r"must be float32 or float64, got int64 in fc\.bias"),
        ({"fc.bias": np.full(3, np.nan, np.float32)}, r"must be finite; fc\.bias is not"),
    ],
)
def test_weights_of_another_architecture_are_named(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {**arrays(), **change}
    with pytest.raises(FormatError, match=message):
        assign(network(), {name: array for name, array in given.items() if array is not None})


# ------------------------------------------------------------------ from a checkpoint to arrays


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch", reason="PyTorch is not installed")


def state(torch: Any, prefix: str = "") -> dict[str, Any]:
    tensors = {prefix + name: torch.from_numpy(array.copy()) for name, array in arrays().items()}
    return {**tensors, f"{prefix}layer1.bn.num_batches_tracked": torch.tensor(7)}


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_checkpoint_is_read(torch: Any, tmp_path: Path, prefix: str, inside: bool, zipped: bool) -> None:
    content = state(torch, prefix)
    if inside:
        content = {"state_dict": content, "best_prec1": 91.7, "epoch": 3}
    torch.save(content, tmp_path / "net.th", _use_new_zipfile_serialization=zipped)
    found = load_state_dict(tmp_path / "net.th")
    assert found.keys() == arrays().keys()
    assert all(np.array_equal(found[name], array) for name, array in arrays().items())
    check_assigned(assign(network(), found), arrays(), np.float32)
    assert found["fc.bias"].flags.owndata and found["fc.bias"].flags.writeable


def test_gradients_and_views_are_no_problem(torch: Any, tmp_path: Path) -> None:
    weight = torch.arange(6.0).reshape(2, 3).T.clone().requires_grad_()
    torch.save({"weight": weight.T}, str(tmp_path / "net.th"))
    assert load_state_dict(str(tmp_path / "net.th"))["weight"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_content_that_is_no_state_dictionary_is_named(torch: Any, tmp_path: Path) -> None:
    path = tmp_path / "net.th"
    for content, message in (
        ([torch.zeros(1)], "must hold a state dictionary, got list"),
        ({}, "must hold a state dictionary, got dict"),
        ({"state_dict": {}}, "must hold a state dictionary, got dict"),
        ({"weight": [1.0]}, "must hold tensors by name, got list at 'weight'"),
        ({"epoch": 3, "weight": torch.zeros(1)}, "must hold tensors by name, got int at 'epoch'"),
        ({3: torch.zeros(1)}, "must hold tensors by name, got Tensor at 3"),
        ({"a.weight": torch.zeros(1), "module.a.weight": torch.ones(1)}, r"'a\.weight' twice"),
        ({"weight": torch.zeros(1, dtype=torch.bfloat16)}, "weight"),
        ({"weight": torch.eye(2).to_sparse()}, "weight"),
    ):
        torch.save(content, path)
        with pytest.raises(FormatError, match=message) as caught:
            load_state_dict(path)
        assert str(path) in str(caught.value)


class Foreign:
    """An object that is no tensor."""


def saved(torch: Any, content: Any, path: Path, *, zipped: bool = True) -> bytes:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path.read_bytes()


def archive(path: Path, *names: str) -> bytes:
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, "no weights")
    return path.read_bytes()


OTHERS: dict[str, tuple[Callable[[Any, Path], bytes], str]] = {
    "empty": (lambda torch, path: b"", "an empty file"),
    "text": (lambda torch, path: b"no checkpoint\n", "a file that is neither a zip archive nor a pickle"),
    "bytes": (lambda torch, path: bytes(range(256)), "a file that is neither a zip archive nor a pickle"),
    "other zip": (lambda torch, path: archive(path, "notes/data.txt"), "a zip archive that is no checkpoint"),
    "TorchScript": (
        lambda torch, path: archive(path, "net/data.pkl", "net/constants.pkl", "net/version"),
        "a TorchScript program, not a state dictionary",
    ),
    "other pickle": (lambda torch, path: pickle.dumps({"weight": 1}, 2), "a pickle that is truncated or no"),
    # PyTorch warns of a protocol that is not its own.
    "new pickle": (lambda torch, path: pickle.dumps({"weight": 1}, 4), "a pickle that is truncated or no"),
    "foreign": (
        lambda torch, path: saved(torch, {**state(torch), "extra": Foreign()}, path),
        r"objects that are not tensors \(test_formats_torch\.Foreign\)",
    ),
    "foreign, old format": (
        lambda torch, path: saved(torch, {"extra": Foreign()}, path, zipped=False),
        r"objects that are not tensors \(test_formats_torch\.Foreign\)",
    ),
    "foreign pickle": (
        lambda torch, path: pickle.dumps(Foreign(), 2),
        r"objects that are not tensors \(test_formats_torch\.Foreign\)",
    ),
    "a whole module": (
        lambda torch, path: saved(torch, torch.nn.Linear(2, 1), path),
        r"objects that are not tensors \(torch\.nn\.modules\.linear\.Linear\)",
    ),
    "NumPy's arrays": (
        lambda torch, path: saved(torch, {"weight": np.zeros(3)}, path),
        r"objects that are not tensors \(numpy\.[\w.]*_reconstruct\)",
    ),
    "damaged": (
        lambda torch, path: saved(torch, state(torch), path).replace(b"fc.weight", b"fc.we\xff\xff\xff\xff"),
        "a checkpoint that is damaged or holds objects that are not tensors",
    ),
}


@pytest.mark.parametrize(("content", "found"), OTHERS.values(), ids=OTHERS)
def test_what_is_no_checkpoint_is_named(
    torch: Any, tmp_path: Path, content: Callable[[Any, Path], bytes], found: str
) -> None:
    path = tmp_path / "net.th"
    path.write_bytes(content(torch, tmp_path / "scratch"))
    with pytest.raises(FormatError, match=found) as caught:
        load_state_dict(path)
    check_line(str(caught.value), path)


def check_line(line: str, path: Path) -> None:
    """One line: the file, what is wanted, what came; no advice to read it by force."""
    if not (
        line.startswith(f"`{path}` must be a PyTorch checkpoint of tensors, got ") and line.endswith(".")
    ):
        raise AssertionError(line)
    if "\n" in line or "weights_only" in line or "\x1b" in line or len(line) > len(str(path)) + 200:
        raise AssertionError(line)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_truncated_checkpoint_is_named(torch: Any, tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "net.th"
    whole = saved(torch, state(torch), path, zipped=zipped)
    kind = "a zip archive that is truncated" if zipped else "a pickle that is truncated"
    for stop in (len(whole) // 20, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:stop])
        with pytest.raises(FormatError, match=kind) as caught:
            load_state_dict(path)
        check_line(str(caught.value), path)


@pytest.mark.parametrize(
    ("place", "length", "found"),
    [
        (0, 4, "a zip archive that is truncated or damaged"),  # the entry's signature
        (10, 2, "a checkpoint that is damaged"),  # its compression method
        (42, 4, "a checkpoint that is damaged"),  # where its bytes are
    ],
)
def test_a_checkpoint_with_a_damaged_directory_is_named(
    torch: Any, tmp_path: Path, place: int, length: int, found: str
) -> None:
    # The zip archive's own list of what it holds, at its end: every entry begins with PK 1 2.
    path = tmp_path / "net.th"
    whole = bytearray(saved(torch, state(torch), path))
    entry = whole.rindex(b"PK\x01\x02")
    whole[entry + place : entry + place + length] = b"\xfe" * length
    path.write_bytes(whole)
    with pytest.raises(FormatError, match=found) as caught:
        load_state_dict(path)
    check_line(str(caught.value), path)


def test_no_file_a_directory_and_a_file_of_others_are_named(torch: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.th` must be a PyTorch checkpoint"):
        load_state_dict(tmp_path / "none.th")
    with pytest.raises(FormatError, match="got a directory") as caught:
        load_state_dict(tmp_path)
    check_line(str(caught.value), tmp_path)
    path = tmp_path / "net.th"
    path.write_bytes(b"no checkpoint")
    path.chmod(0)
    if not os.access(path, os.R_OK):  # root may read everything
        with pytest.raises(PermissionError, match=r"net\.th"):
            load_state_dict(path)


def test_convert_refuses_in_one_line_and_gives_no_bad_advice(torch: Any, tmp_path: Path) -> None:
    path = tmp_path / "net.th"
    torch.save({"extra": Foreign()}, path)
    result = CliRunner().invoke(
        main, ["convert", str(path), "--arch", "resnet20", "-o", str(tmp_path / "o.h5")]
    )
    assert result.exit_code == 1
    line = result.stderr.removesuffix("\n")
    check_line(line.removeprefix("refldnq: error: "), path)
    with pytest.raises(AssertionError):
        check_line(
            "Weights only load failed. Re-running `torch.load` with `weights_only` set to `False`", path
        )


class Harmful:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open({self.path!r}, 'w').close()",)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_harmful_checkpoint_is_refused_without_running_it(torch: Any, tmp_path: Path, zipped: bool) -> None:
    trace, path = tmp_path / "trace", tmp_path / "net.th"
    torch.save({"weight": Harmful(trace)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(FormatError, match=r"net\.th` must be a PyTorch checkpoint of tensors"):
        load_state_dict(path)
    assert not trace.exists()
    torch.load(path, weights_only=False)  # the same bytes do harm where they are let
    assert trace.exists()


def test_without_pytorch_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs PyTorch: install `refldnq\[torch\]`") as caught:
        load_state_dict(tmp_path / "net.th")
    assert caught.value.name == "torch"


def test_a_public_checkpoint_is_a_resnet20(torch: Any, data_dir: Path) -> None:
    found = load_state_dict(data_dir / "weights" / "resnet20-12fca82f.th")
    resnet = assign(build("resnet20", np.random.default_rng(0)), found)
    assert resnet.dtype == np.float32
    with pytest.raises(FormatError, match=r"they lack \d+ array"):
        assign(build("resnet32", np.random.default_rng(0)), found)
