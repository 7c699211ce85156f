"""Data sets from files: the official formats, arrays, the embedded digits, and what is refused."""

from __future__ import annotations

import gzip
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from refldnq._typing import Array
from refldnq.data import Dataset, has_split, load_dataset, load_test
from refldnq.data.arrays import array_names, load_arrays
from refldnq.data.cifar import CLASSES, load_cifar10
from refldnq.data.digits import digits
from refldnq.data.hdf5 import own_dataset
from refldnq.data.mnist import load_mnist, read_idx
from refldnq.errors import FormatError


def pictures(n: int, *shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape)).astype(np.uint8)


# ------------------------------------------------------------------ the data set itself


def test_a_data_set_keeps_images_and_labels() -> None:
    images = pictures(5, 3, 4, 4)
    labels: Array = np.array([0, 1, 2, 1, 0], dtype=np.uint8)
    data = Dataset(images, labels, ("a", "b", "c"), "five")
    assert data.labels is not None and data.labels.dtype == np.int64
    part = data.take(np.array([3, 1]))
    assert np.array_equal(part.images, images[[3, 1]]) and part.labels is not None
    assert part.labels.tolist() == [1, 1] and part.classes == data.classes and len(part) == 2
    assert Dataset(images, None, None, "blank").take(np.array([0])).labels is None


def test_the_fingerprint_sees_every_byte_and_shape_and_type() -> None:
    images, labels = pictures(4, 1, 2, 2), np.array([0, 1, 0, 1])
    data = Dataset(images, labels, None, "four")
    others = [
        Dataset(images.reshape(4, 2, 2, 1), labels, None, "four"),
        Dataset(images.astype(np.float32), labels, None, "four"),
        Dataset(images, None, None, "four"),
        Dataset(images, 1 - labels, None, "four"),
        Dataset(images ^ np.uint8(1), labels, None, "four"),
        data.take(np.array([1, 0, 2, 3])),
    ]
    prints = {one.fingerprint() for one in (data, *others)}
    assert len(prints) == 7
    assert Dataset(np.asfortranarray(images), labels, None, "other name").fingerprint() == data.fingerprint()


@pytest.mark.parametrize(
    ("images", "labels", "classes", "error", "message"),
    [
        ([1], None, None, TypeError, "`images` must be an array of uint8, float32 or float64, got list"),
        (np.zeros((1, 1, 1, 1), int), None, None, TypeError, "`images` must be .*, got int64"),
        (np.zeros((2, 3, 3)), None, None, ValueError, r"`images` must have shape .*, got \(2, 3, 3\)"),
        (np.full((1, 1, 1, 1), np.nan), None, None, ValueError, r"`images` must be finite, got nan at index"),
        (np.zeros((2, 1, 1, 1)), np.zeros(3, int), None, ValueError, r"`labels` must have shape \(2,\)"),
        (np.zeros((2, 1, 1, 1)), np.zeros(2), None, TypeError, "`labels` must be integers, got float64"),
        (np.zeros((1, 1, 1, 1)), np.array([-1]), None, ValueError, "`labels` must lie in 0.* got -1"),
        (
            np.zeros((1, 1, 1, 1)),
            np.array([2]),
            ("a", "b"),
            ValueError,
            r"`labels` must lie in 0\.\.1, got 2",
        ),
    ],
)
def test_a_bad_data_set_is_refused(
    images: Any, labels: Any, classes: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Dataset(images, labels, classes, "bad")


# ------------------------------------------------------------------ CIFAR-10


def records(images: Array, labels: Array) -> bytes:
    """Official binary records."""
    return b"".join(bytes([int(y)]) + x.tobytes() for x, y in zip(images, labels, strict=True))


def batch(images: Array, labels: Array) -> bytes:
    """A Python batch as Python 2 pickled it: names are byte strings."""
    data = pickle.dumps(images.reshape(len(images), -1), protocol=2)[2:-1]
    numbers = pickle.dumps([int(label) for label in labels], protocol=2)[2:-1]
    return b"\x80\x02}(U\x04data" + data + b"U\x06labels" + numbers + b"u."


@pytest.fixture(params=["binary", "python"])
def cifar(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Array, Array]:
    """A folder with two training batches of 3 and 2 images and a test batch of 4; all images and labels."""
    images, labels = pictures(9, 3, 32, 32), np.array([0, 9, 3, 4, 5, 1, 2, 3, 9])
    write, suffix = (records, ".bin") if request.param == "binary" else (batch, "")
    parts = {"data_batch_1": slice(0, 3), "data_batch_2": slice(3, 5), "test_batch": slice(5, 9)}
    for name, part in parts.items():
        (tmp_path / f"{name}{suffix}").write_bytes(write(images[part], labels[part]))
    return tmp_path, images, labels


def check_cifar(folder: Path, images: Array, labels: Array) -> None:
    for split, part in (("train", slice(0, 5)), ("test", slice(5, 9))):
        data = load_cifar10(folder, split)
        if not (np.array_equal(data.images, images[part]) and np.array_equal(data.labels, labels[part])):  # type: ignore[arg-type]
            raise AssertionError(f"the {split} split differs")
        assert data.classes == CLASSES and data.name == f"cifar10-{split}"


def test_cifar_batches_are_read(cifar: tuple[Path, Array, Array]) -> None:
    check_cifar(*cifar)
    folder, images, labels = cifar
    with pytest.raises(AssertionError, match="train split differs"):
        check_cifar(
            folder, images.reshape(9, 32, 32, 3).transpose(0, 3, 1, 2), labels
        )  # axes (h, w, c) taken
    with pytest.raises(AssertionError, match="test split differs"):
        check_cifar(folder, images, np.concatenate([labels[:5], labels[:4]]))


def test_the_numbers_of_a_record_are_where_the_format_says(tmp_path: Path) -> None:
    raw = bytearray(3073)
    raw[0], raw[1 + 1024 + 2 * 32 + 5] = 7, 200  # label 7; green, row 2, column 5
    (tmp_path / "test_batch.bin").write_bytes(raw)
    data = load_cifar10(tmp_path, "test")
    assert data.labels is not None and data.labels.tolist() == [7]
    assert np.argwhere(data.images).tolist() == [[0, 1, 2, 5]] and data.images.max() == 200


def test_a_missing_training_batch_is_not_missed(cifar: tuple[Path, Array, Array]) -> None:
    folder, images, _ = cifar
    next(folder.glob("data_batch_1*")).unlink()
    assert np.array_equal(load_cifar10(folder, "train").images, images[3:5])


class Harmful:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


BROKEN_BINARY: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "truncated": (lambda raw: raw[:-1], "must hold whole records of 3073 bytes, got 12291 bytes: truncated"),
    "empty": (lambda raw: b"", "must hold whole records of 3073 bytes, got 0 bytes"),
    "shifted": (lambda raw: b"\x0a" + raw[:-1], "must hold labels 0..9, got 10"),
}


@pytest.mark.parametrize("case", BROKEN_BINARY)
def test_a_broken_binary_batch_is_named(tmp_path: Path, case: str) -> None:
    how, message = BROKEN_BINARY[case]
    path = tmp_path / "test_batch.bin"
    path.write_bytes(how(records(pictures(4, 3, 32, 32), np.arange(4))))
    with pytest.raises(FormatError, match=message) as caught:
        load_cifar10(tmp_path, "test")
    assert str(path) in str(caught.value)


IMAGES = pictures(4, 3, 32, 32)
GOOD = batch(IMAGES, np.arange(4))
BROKEN_PYTHON: dict[str, tuple[bytes, str]] = {
    "truncated": (GOOD[:-9], "must be a Python batch"),
    "empty": (b"", "must be a Python batch"),
    "no pickle": (b"PK\x03\x04", "must be a Python batch"),
    "a list": (pickle.dumps([1]), "must hold uint8 data"),
    "label 10": (batch(IMAGES, np.array([0, 1, 2, 10])), "must hold labels 0..9, got 10"),
    "label -1": (batch(IMAGES, np.array([0, 1, 2, -1])), "must hold labels 0..9, got -1"),
    "a label too few": (batch(IMAGES, np.arange(3)), "a list of n integer labels"),
    "no labels": (pickle.dumps({b"data": IMAGES.reshape(4, -1)}), "a list of n integer labels"),
    "labels true": (
        pickle.dumps({b"data": IMAGES.reshape(4, -1), b"labels": [True] * 4}, 2),
        "a list of n integer labels",
    ),
    "data of floats": (
        pickle.dumps({b"data": np.zeros((4, 3072)), b"labels": [0] * 4}, 2),
        r"must hold uint8 data \(n, 3072\)",
    ),
    "data of 28 x 28": (batch(IMAGES[:, :, :28, :28], np.arange(4)), r"must hold uint8 data \(n, 3072\)"),
    "data a list": (pickle.dumps({b"data": [1], b"labels": [0]}, 2), "must hold uint8 data"),
    "a huge label": (
        pickle.dumps({b"data": IMAGES.reshape(4, -1), b"labels": [0, 1, 2, 10**30]}, 2),
        "a list of n integer labels",
    ),
    "another codec": (
        b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00punyctR.",
        "refused the encoding 'punyc'",
    ),
    "a builtin": (b"cbuiltins\neval\n(S'1'\ntR.", r"refused to load .*eval"),
    "a NumPy function": (b"cnumpy\nfromfile\n(S'x'\ntR.", "refused to load numpy.fromfile"),
    "an attribute of an allowed module": (
        b"\x80\x04\x8c\x05numpy\x8c\x0cndarray.dump\x93.",
        "refused to load",
    ),
}


@pytest.mark.parametrize("case", BROKEN_PYTHON)
def test_a_broken_python_batch_is_named(tmp_path: Path, case: str) -> None:
    raw, message = BROKEN_PYTHON[case]
    path = tmp_path / "test_batch"
    path.write_bytes(raw)
    with pytest.raises(FormatError, match=message) as caught:
        load_cifar10(tmp_path, "test")
    assert str(path) in str(caught.value)


def test_a_harmful_pickle_is_refused_without_running_it(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        raw = pickle.dumps({b"data": Harmful(trace), b"labels": []}, protocol)
        (tmp_path / "data_batch_1").write_bytes(raw)
        with pytest.raises(FormatError, match="refused to load"):
            load_cifar10(tmp_path, "train")
        assert not trace.exists()
        # The same bytes do harm where nothing refuses them.
        pickle.loads(raw)
        assert trace.exists()
        trace.unlink()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("key", [str, str.encode])
def test_python_batches_of_every_protocol(tmp_path: Path, protocol: int, key: Callable[[str], Any]) -> None:
    content = {key("data"): IMAGES.reshape(4, -1), key("labels"): [3, 1, 4, 1]}
    (tmp_path / "test_batch").write_bytes(pickle.dumps(content, protocol))
    data = load_cifar10(tmp_path, "test")
    assert np.array_equal(data.images, IMAGES)
    assert data.labels is not None and data.labels.tolist() == [3, 1, 4, 1]


def test_batches_follow_their_numbers(tmp_path: Path) -> None:
    for i in (10, 2, 1):
        (tmp_path / f"data_batch_{i}.bin").write_bytes(records(IMAGES[:1], np.array([i % 10])))
    data = load_cifar10(tmp_path, "train")
    assert data.labels is not None and data.labels.tolist() == [1, 2, 0]


def test_class_names_come_with_the_data(tmp_path: Path) -> None:
    (tmp_path / "test_batch").write_bytes(GOOD)
    names = tuple("abcdefghij")
    (tmp_path / "batches.meta").write_bytes(pickle.dumps({b"label_names": [name.encode() for name in names]}))
    assert load_cifar10(tmp_path, "test").classes == names
    (tmp_path / "batches.meta.txt").write_text("\n".join(names[::-1]) + "\n\n", encoding="utf-8")
    assert load_cifar10(tmp_path, "test").classes == names[::-1]
    (tmp_path / "batches.meta.txt").write_text("cat\ndog\n", encoding="utf-8")
    with pytest.raises(FormatError, match=r"batches\.meta\.txt` must hold the names of 10 classes"):
        load_cifar10(tmp_path, "test")
    (tmp_path / "batches.meta.txt").unlink()
    (tmp_path / "batches.meta").write_bytes(pickle.dumps({b"label_names": 3}))
    with pytest.raises(FormatError, match=r"batches\.meta` must hold the names of 10 classes"):
        load_cifar10(tmp_path, "test")


def test_a_folder_without_the_split_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        FormatError, match=r"must hold data_batch_\*\.bin or Python batches data_batch_\*, found"
    ):
        load_cifar10(tmp_path, "train")


# ------------------------------------------------------------------ MNIST


def idx(array: Array) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_mnist(folder: Path, *, packed: bool, prefixes: tuple[str, ...] = ("train", "t10k")) -> None:
    for seed, prefix in enumerate(prefixes):
        for kind, array in (
            ("images-idx3", pictures(6, 4, 5, seed=seed)),
            ("labels-idx1", pictures(6, seed=seed) % np.uint8(10)),
        ):
            raw = idx(array)
            path = folder / f"{prefix}-{kind}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(raw) if packed else raw)


@pytest.mark.parametrize("packed", [False, True])
def test_mnist_files_are_read(tmp_path: Path, packed: bool) -> None:
    write_mnist(tmp_path, packed=packed)
    for seed, split in enumerate(("train", "test")):
        data = load_mnist(tmp_path, split)
        assert np.array_equal(data.images, pictures(6, 4, 5, seed=seed)[:, None])
        assert data.labels is not None and np.array_equal(data.labels, pictures(6, seed=seed) % 10)
        assert data.classes == tuple("0123456789") and data.name == f"mnist-{split}"


IMAGE_FILE = idx(pictures(6, 4, 5))
BROKEN_IDX: dict[str, tuple[str, bytes, str]] = {
    "wrong magic": (
        "images-idx3-ubyte",
        b"\x00\x00\x09" + IMAGE_FILE[3:],
        "idx magic 00000803, got 00000903",
    ),
    "labels as images": ("images-idx3-ubyte", idx(pictures(6)), "idx magic 00000803, got 00000801"),
    "empty": ("images-idx3-ubyte", b"", "idx magic 00000803, got nothing"),
    "a head alone": ("images-idx3-ubyte", IMAGE_FILE[:10], "idx magic"),
    "truncated": (
        "images-idx3-ubyte",
        IMAGE_FILE[:-1],
        r"must hold 120 bytes for shape \(6, 4, 5\), got 119",
    ),
    "too long": ("images-idx3-ubyte", IMAGE_FILE + b"\x00", "must hold 120 bytes .* got 121"),
    "huge": (
        "images-idx3-ubyte",
        IMAGE_FILE[:4] + b"\xff" * 12 + IMAGE_FILE[16:],
        f"must hold {(2**32 - 1) ** 3} bytes",
    ),
    "a bomb": (
        "images-idx3-ubyte.gz",
        gzip.compress(IMAGE_FILE + bytes(1 << 24)),
        "must hold 120 bytes .* got 121 or more",
    ),
    "truncated gzip": ("images-idx3-ubyte.gz", gzip.compress(IMAGE_FILE)[:-9], "must be a whole gzip file"),
    "gzip with another checksum": (
        "images-idx3-ubyte.gz",
        gzip.compress(IMAGE_FILE)[:-8] + bytes(8),
        "must be a whole gzip file",
    ),
    "no gzip": ("images-idx3-ubyte.gz", IMAGE_FILE, "must be a whole gzip file"),
    "a label too few": (
        "labels-idx1-ubyte",
        idx(pictures(5) % np.uint8(10)),
        "as many labels as images, got 5 and 6",
    ),
    "label 10": ("labels-idx1-ubyte", idx(np.full(6, 10, np.uint8)), "must hold labels 0..9, got 10"),
}


@pytest.mark.parametrize("case", BROKEN_IDX)
def test_a_broken_idx_file_is_named(tmp_path: Path, case: str) -> None:
    name, raw, message = BROKEN_IDX[case]
    write_mnist(tmp_path, packed=False, prefixes=("train",))
    (tmp_path / f"train-{name.removesuffix('.gz')}").unlink()
    (tmp_path / f"train-{name}").write_bytes(raw)
    with pytest.raises(FormatError, match=message) as caught:
        load_mnist(tmp_path, "train")
    assert str(tmp_path) in str(caught.value)


def test_a_missing_idx_file_is_named(tmp_path: Path) -> None:
    write_mnist(tmp_path, packed=True, prefixes=("train",))
    with pytest.raises(FormatError, match=r"must hold t10k-images-idx3-ubyte or t10k-images-idx3-ubyte\.gz"):
        load_mnist(tmp_path, "test")
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FormatError, match="must hold train-labels-idx1-ubyte"):
        load_mnist(tmp_path, "train")


def test_an_idx_array_has_its_axes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(idx(pictures(2, 3)))
    assert np.array_equal(read_idx(tmp_path / "x", 2), pictures(2, 3))


# ------------------------------------------------------------------ arrays

Write = Callable[..., Path]


@pytest.fixture(params=["npz", "h5", "hdf5"])
def write(request: pytest.FixtureRequest, tmp_path: Path) -> Write:
    """Writes named arrays to a file."""

    def to_file(**arrays: Any) -> Path:
        path = tmp_path / f"data.{request.param}"
        if request.param == "npz":
            np.savez(path, **arrays)
        else:
            with h5py.File(path, "w") as file:
                for name, array in arrays.items():
                    file[name] = array
        return path

    return to_file


@pytest.mark.parametrize("names", [("x_{}", "y_{}"), ("images{}", "labels{}")])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64, ">f4"])
def test_arrays_are_read(write: Write, names: tuple[str, str], dtype: Any) -> None:
    x_names = ("train", "test") if names[0].startswith("x") else ("", "_test")
    images = {split: pictures(4, 3, 2, 2, seed=i).astype(dtype) for i, split in enumerate(("train", "test"))}
    labels: dict[str, Array] = {"train": np.arange(4), "test": np.arange(4)[::-1].astype(np.int8)}
    arrays: dict[str, Array] = {}
    for split, word in zip(images, x_names, strict=True):
        arrays |= {names[0].format(word): images[split], names[1].format(word): labels[split]}
    path = write(**arrays)
    for split in images:
        data = load_arrays(path, split)
        assert np.array_equal(data.images, images[split]) and data.images.dtype.isnative
        assert data.labels is not None and np.array_equal(data.labels, labels[split])
        assert data.name == f"data-{split}" and data.classes is None


def test_labels_may_be_missing_and_keras_shapes_are_understood(write: Write) -> None:
    assert load_arrays(write(images=pictures(2, 1, 3, 3)), "train").labels is None
    data = load_arrays(write(x_train=pictures(2, 5, 4), y_train=np.array([[1], [0]])), "train")
    assert data.images.shape == (2, 1, 5, 4)
    assert data.labels is not None and data.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "must hold `x_train` or `images` for the train split, found neither"),
        ({"labels": np.arange(2)}, "must hold `x_train` or `images`"),
        ({"images": np.zeros((2, 2))}, r"`images`.* must have shape .*, got \(2, 2\)"),
        ({"images": np.zeros((2, 1, 3, 3), np.int16)}, "`images`.* must be an array of uint8, float32 or"),
        ({"images": np.full((1, 1, 1, 1), np.inf)}, "`images`.* must be finite, got inf"),
        (
            {"images": pictures(2, 1, 3, 3), "labels": np.arange(3)},
            r"`labels` must have shape \(2,\), got \(3,\)",
        ),
        ({"images": pictures(2, 1, 3, 3), "labels": np.zeros(2)}, "`labels` must be integers, got float64"),
        ({"images": pictures(2, 1, 3, 3), "labels": np.array([0, -1])}, "`labels` must lie in"),
    ],
)
def test_arrays_that_are_no_images_are_named(write: Write, arrays: dict[str, Array], message: str) -> None:
    path = write(**arrays)
    with pytest.raises(FormatError, match=message) as caught:
        load_arrays(path, "train")
    assert str(path) in str(caught.value)


def test_object_arrays_are_refused_without_running_them(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    images = np.empty((1, 1, 1, 1), dtype=object)
    images[0, 0, 0, 0] = Harmful(trace)
    np.savez(tmp_path / "data.npz", images=images)
    with pytest.raises(FormatError, match=r"data\.npz`, array `images`: Object arrays cannot be loaded"):
        load_arrays(tmp_path / "data.npz", "train")
    (tmp_path / "bare.npz").write_bytes(pickle.dumps(Harmful(trace)))
    with pytest.raises(FormatError, match=r"bare\.npz` must be an NPZ file"):
        load_arrays(tmp_path / "bare.npz", "train")
    assert not trace.exists()
    np.load(tmp_path / "data.npz", allow_pickle=True)["images"]  # the same bytes do harm where they are let
    assert trace.exists()
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file.create_dataset("images", data=["a", "b"], dtype=h5py.string_dtype())
    with pytest.raises(
        FormatError, match=r"data\.h5`, array `images`: must be an array of numbers, got object"
    ):
        load_arrays(tmp_path / "data.h5", "train")


def test_a_damaged_file_of_arrays_is_named(write: Write) -> None:
    path = write(images=pictures(20, 3, 8, 8))
    content = path.read_bytes()
    for size in (0, 3, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(FormatError, match="data"):
            load_arrays(path, "train")
    if path.suffix == ".npz":
        path.write_bytes(content[:500] + bytes(100) + content[600:])
        with pytest.raises(FormatError, match="`images`: Bad CRC-32"):
            load_arrays(path, "train")
        np.save(path.with_suffix(".npy"), np.zeros(3))
        path.write_bytes(path.with_suffix(".npy").read_bytes())
        with pytest.raises(FormatError, match="must be an NPZ file, got: a single array"):
            load_arrays(path, "train")


def group(file: h5py.File) -> None:
    file.create_group("images")


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((1, 1, 2, 2), "u1")
    layout[:] = h5py.VirtualSource("elsewhere.h5", "x", (1, 1, 2, 2))
    file.create_virtual_dataset("images", layout)


def external(file: h5py.File) -> None:
    file.create_dataset("images", (1, 1, 2, 2), "u1", external=[("elsewhere.bin", 0, 4)])


def soft(file: h5py.File) -> None:
    file["images"] = h5py.SoftLink("/other")


def outward(file: h5py.File) -> None:
    file["images"] = h5py.ExternalLink("elsewhere.h5", "/x")


def huge(file: h5py.File) -> None:
    file.create_dataset("images", (1 << 20, 3, 1 << 10, 1 << 10), "u1", chunks=(1, 3, 1 << 10, 1 << 10))


def empty(file: h5py.File) -> None:
    file["images"] = h5py.Empty("u1")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (group, "must be an array, got a group"),
        (virtual, "must be an array in the file itself, got one that lies elsewhere"),
        (external, "must be an array in the file itself, got one that lies elsewhere"),
        (soft, "must be an array in the file itself, got a link"),
        (outward, "must be an array in the file itself, got a link"),
        (huge, "must have at most 8589934592 bytes"),
        (empty, "must be an array, got an empty dataset"),
    ],
)
def test_hdf5_data_that_lie_elsewhere_are_refused(
    tmp_path: Path, make: Callable[[h5py.File], None], message: str
) -> None:
    with h5py.File(tmp_path / "data.h5", "w") as file:
        make(file)
        with pytest.raises(ValueError, match=message):
            own_dataset(file, "images")
        with pytest.raises(ValueError, match=r"is missing\."):
            own_dataset(file, "labels")
    with pytest.raises(FormatError, match=rf"data\.h5`, array `images`: {message}"):
        load_arrays(tmp_path / "data.h5", "train")


# ------------------------------------------------------------------ digits


def test_the_digits_are_split_once_and_for_all() -> None:
    pytest.importorskip("sklearn", reason="the digits come from scikit-learn")
    train, test = digits("train"), digits("test")
    assert train.images.shape == (1297, 1, 8, 8) and test.images.shape == (500, 1, 8, 8)
    assert train.images.dtype == np.uint8 and train.images.max() == 16
    together = {image.tobytes() for image in np.concatenate([train.images, test.images])}
    from sklearn.datasets import load_digits

    assert together == {image.astype(np.uint8).tobytes() for image in load_digits().data}
    assert len(train) + len(test) == len(load_digits().data)
    assert (train.fingerprint()[:16], test.fingerprint()[:16]) == FINGERPRINTS
    assert train.classes == tuple("0123456789") and train.name == "digits-train"


FINGERPRINTS = ("621167c0188831f9", "9fcac93577ef473b")
"""First digits of the splits' SHA-256: another split would make shipped models' records untrue."""


def test_the_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r"need scikit-learn: install `refldnq\[data\]`") as caught:
        digits()
    assert caught.value.name == "sklearn"
    with pytest.raises(ValueError, match="`split` must be one of 'train', 'test', got 'all'"):
        digits("all")


# ------------------------------------------------------------------ one name for all


def test_load_dataset_finds_what_is_there(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="the digits come from scikit-learn")
    assert load_dataset("digits", "test").name == "digits-test"
    mnist, cifar, both = tmp_path / "mnist", tmp_path / "cifar-10-batches-bin", tmp_path / "both"
    for folder in (mnist, cifar, both):
        folder.mkdir()
    write_mnist(mnist, packed=True)
    assert load_dataset(mnist).name == "mnist-train"
    assert load_dataset(tmp_path, "test").name == "mnist-test"  # in its subfolder
    (cifar / "test_batch.bin").write_bytes(records(pictures(2, 3, 32, 32), np.arange(2)))
    assert load_dataset(str(cifar), "test").name == "cifar10-test"
    assert load_dataset(tmp_path, "test").name == "cifar10-test"  # CIFAR-10 before MNIST
    write_mnist(both, packed=False)
    (both / "data_batch_1").write_bytes(batch(pictures(2, 3, 32, 32), np.arange(2)))
    assert load_dataset(both).name == "cifar10-train"
    np.savez(tmp_path / "mine.npz", x_train=pictures(3, 1, 2, 2))
    assert load_dataset(tmp_path / "mine.npz").name == "mine-train"


def test_load_dataset_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="must hold CIFAR-10 batches or MNIST's idx files, found neither"):
        load_dataset(tmp_path)
    with pytest.raises(
        FormatError, match=r"must be a folder, an \.npz, \.h5 or \.hdf5 file, or the word digits"
    ):
        load_dataset(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("no images", encoding="utf-8")
    with pytest.raises(FormatError, match=r"notes\.txt` must be a folder"):
        load_dataset(tmp_path / "notes.txt")
    with pytest.raises(FormatError, match=r"none\.npz` must be a folder"):
        load_dataset(tmp_path / "none.npz")
    with pytest.raises(ValueError, match="`split` must be one of 'train', 'test', got 'valid'"):
        load_dataset(tmp_path, "valid")


def test_load_test_is_none_where_there_is_no_test_split(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="the digits come from scikit-learn")
    found = load_test("digits")
    assert found is not None and found.name == "digits-test"
    mnist, cifar = tmp_path / "mnist", tmp_path / "cifar"
    mnist.mkdir()
    cifar.mkdir()
    write_mnist(mnist, packed=True, prefixes=("train",))
    assert load_test(mnist) is None
    write_mnist(mnist, packed=True)
    found = load_test(mnist)
    assert found is not None and found.name == "mnist-test"
    (cifar / "data_batch_1.bin").write_bytes(records(pictures(2, 3, 32, 32), np.arange(2)))
    assert load_test(cifar) is None
    (cifar / "test_batch.bin").write_bytes(records(pictures(2, 3, 32, 32), np.arange(2)))
    found = load_test(cifar)
    assert found is not None and found.name == "cifar10-test"
    (cifar / "test_batch.bin").write_bytes(b"damaged")
    with pytest.raises(FormatError, match="whole records"):
        load_test(cifar)
    np.savez(tmp_path / "mine.npz", x_train=pictures(3, 1, 2, 2))
    assert array_names(tmp_path / "mine.npz", "test") is None and load_test(tmp_path / "mine.npz") is None
    np.savez(tmp_path / "mine.npz", images_test=pictures(3, 1, 2, 2))
    found = load_test(tmp_path / "mine.npz")
    assert found is not None and found.name == "mine-test"
    with pytest.raises(FormatError, match="must be a folder"):
        load_test(tmp_path / "nowhere")


def test_has_split_looks_without_reading(tmp_path: Path) -> None:
    (tmp_path / "data_batch_1.bin").write_bytes(b"damaged")
    (tmp_path / "notes_batch_1.txt").write_text("no images", encoding="utf-8")
    assert has_split(tmp_path, "train") and not has_split(tmp_path, "test")
    with pytest.raises(ValueError, match="`split` must be one of 'train', 'test', got 'valid'"):
        has_split(tmp_path, "valid")
    (tmp_path / "data_batch_1.bin").unlink()
    with pytest.raises(FormatError, match=r"found neither: no data_batch_\*, test_batch\* or"):
        has_split(tmp_path, "train")
    write_mnist(tmp_path, packed=True, prefixes=("t10k",))
    assert has_split(tmp_path, "test") and not has_split(tmp_path, "train")


def test_importing_the_data_brings_nothing_heavy() -> None:
    code = "import sys, refldnq.data; print(sorted({'h5py', 'sklearn', 'numba', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ------------------------------------------------------------------ real files


def test_the_real_cifar_images(data_dir: Path) -> None:
    for split, count in (("train", 9990), ("test", 9977)):
        data = load_dataset(data_dir, split)
        assert data.images.shape == (count, 3, 32, 32) and data.name == f"cifar10-{split}"
        assert data.labels is not None
        counts = np.bincount(data.labels, minlength=10)
        assert counts.sum() == count and counts.min() > 900
    # The first test images of the official order are a cat, two ships and an airplane.
    assert data.labels is not None
    assert [CLASSES[label] for label in data.labels[:4]] == ["cat", "ship", "ship", "airplane"]


def test_the_real_mnist_images(data_dir: Path) -> None:
    for split, count in (("train", 60_000), ("test", 10_000)):
        data = load_dataset(data_dir / "mnist", split)
        assert data.images.shape == (count, 1, 28, 28)
        assert data.labels is not None and np.unique(data.labels).tolist() == list(range(10))
    assert data.labels is not None and data.labels[:5].tolist() == [7, 2, 1, 0, 4]
