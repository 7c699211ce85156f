"""Folders of pictures: what is found, how it is split, decoded and refused, and that it is read in parts."""

from __future__ import annotations

import io
import struct
import sys
import tracemalloc
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refldnq._typing import Array
from refldnq.data import Dataset, Preprocess, has_split, load_dataset, load_test
from refldnq.data import folder as folders
from refldnq.data.folder import PictureFiles, folder_of_pictures, load_folder
from refldnq.data.pictures import crop, read_picture, resize
from refldnq.errors import FormatError
from refldnq.experiments.run import QuantizeRequest, at_a_time, evaluate_model, quantize_model
from refldnq.formats.h5 import load_model, save_model
from refldnq.layers import Conv2d, Flatten, GlobalAvgPool, ReLU
from refldnq.ldnq_settings import LdnqSettings
from refldnq.model import Model
from refldnq.network import Network, Node

Image = pytest.importorskip("PIL.Image", reason="pictures are read by Pillow")


def paint(path: Path, pixels: Array) -> None:
    """Write RGB or grey pixels, (h, w, 3) or (h, w), as PNG: nothing is lost."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def noise(h: int, w: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3)).astype(np.uint8)


def write(root: Path, tree: dict[str, int], size: int = 8) -> None:
    """Folders with so many pictures, each of one colour: its number."""
    number = 0
    for name, count in tree.items():
        for index in range(count):
            paint(root / name / f"{index:03d}.png", np.full((size, size, 3), number, np.uint8))
            number += 1


# ------------------------------------------------------------------ decoding


@pytest.mark.parametrize(("h", "w"), [(20, 31), (31, 20), (12, 12), (9, 30)])
def test_a_picture_is_resized_and_cut_as_by_pillow(h: int, w: int, tmp_path: Path) -> None:
    pixels = noise(h, w)
    paint(tmp_path / "a.png", pixels)
    wide, high = (12, int(12 * h / w)) if w <= h else (int(12 * w / h), 12)
    whole = np.asarray(Image.fromarray(pixels).resize((wide, high), Image.Resampling.BILINEAR))
    top, left = round((high - 12) / 2), round((wide - 12) / 2)
    want = whole[top : top + 12, left : left + 12].transpose(2, 0, 1)
    got = read_picture(tmp_path / "a.png", 12)
    assert got.shape == (3, 12, 12) and got.dtype == np.uint8
    np.testing.assert_array_equal(got, want)
    # The planted bug, a resize of both sides to the size, is seen by the same comparison where h is not w.
    squeezed = np.asarray(Image.fromarray(pixels).resize((12, 12), Image.Resampling.BILINEAR))
    assert np.array_equal(squeezed.transpose(2, 0, 1), want) == (h == w)


def test_a_picture_of_the_right_size_is_its_pixels(tmp_path: Path) -> None:
    pixels = noise(7, 7)
    paint(tmp_path / "a.png", pixels)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png", 7), pixels.transpose(2, 0, 1))


def test_grey_pictures_become_three_equal_channels(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", noise(5, 5)[..., 0])
    got = read_picture(tmp_path / "a.png", 5)
    assert got.shape == (3, 5, 5) and (got == got[:1]).all()


# ------------------------------------------------------------------ kinds of pictures

DEEP = np.random.default_rng(1).integers(0, 65536, (4, 5, 3)).astype(">u2")
"""Pixels of 16 bits, in a PNG file's order of bytes."""


def png(pixels: Array, depth: int, colour: int, extra: bytes = b"", level: int = 6) -> bytes:
    """A PNG file written by hand: what Pillow reads is not what Pillow has written."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    bits = pixels.shape[1] * 8 // depth if depth < 8 else pixels.shape[1]
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", bits, len(pixels), depth, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows, level))
    return b"\x89PNG\r\n\x1a\n" + head + extra + body + chunk(b"IEND", b"")


def key(*values: int) -> bytes:
    """The chunk that names the transparent colour."""
    content = b"".join(struct.pack(">H", value) for value in values)
    return (
        struct.pack(">I", len(content)) + b"tRNS" + content + struct.pack(">I", zlib.crc32(b"tRNS" + content))
    )


def middle(pixels: Array, size: int) -> Array:
    """(h, w) or (h, w, 3) as `read_picture` gives it where nothing is resized."""
    three = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
    return crop(three.transpose(2, 0, 1), size)


def saved(path: Path, picture: Any, kind: str, **how: Any) -> Path:
    picture.save(path, kind, **how)
    return path


def test_of_16_bits_the_upper_8_are_kept_of_grey_as_of_colours(tmp_path: Path) -> None:
    """Pillow alone cuts grey off at 255: all but the darkest 256th would be white."""
    (tmp_path / "grey.png").write_bytes(png(DEEP[..., 0], 16, 0))
    (tmp_path / "rgb.png").write_bytes(png(DEEP, 16, 2))
    np.testing.assert_array_equal(read_picture(tmp_path / "grey.png", 4), middle(DEEP[..., 0] >> 8, 4))
    np.testing.assert_array_equal(read_picture(tmp_path / "rgb.png", 4), middle(DEEP >> 8, 4))
    with Image.open(tmp_path / "grey.png") as plain:  # planted: Pillow's own conversion
        wrong = np.asarray(plain.convert("RGB"))
    assert not np.array_equal(middle(wrong, 4), middle(DEEP[..., 0] >> 8, 4))


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_few_bits_of_grey_span_black_to_white(depth: int, tmp_path: Path) -> None:
    packed = np.random.default_rng(2).integers(0, 256, (8, depth)).astype(np.uint8)  # 8 pixels a row
    bits = np.unpackbits(packed, axis=1).reshape(8, 8, depth)
    values = bits @ (1 << np.arange(depth)[::-1])
    (tmp_path / "a.png").write_bytes(png(packed, depth, 0))
    want = (values * 255 // (2**depth - 1)).astype(np.uint8)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png", 8), middle(want, 8))


def test_palettes_are_looked_up(tmp_path: Path) -> None:
    colours = noise(1, 16)[0]
    codes = np.random.default_rng(3).integers(0, 16, (6, 6)).astype(np.uint8)
    picture = Image.new("P", (6, 6))
    picture.putdata(codes.ravel().tolist())
    picture.putpalette(colours.ravel().tolist())
    path = saved(tmp_path / "a.png", picture, "PNG")
    np.testing.assert_array_equal(read_picture(path, 6), middle(colours[codes], 6))


def test_cmyk_becomes_the_colours_it_means(tmp_path: Path) -> None:
    inks = {"cyan": ((255, 0, 0, 0), (0, 255, 255)), "black": ((0, 0, 0, 255), (0, 0, 0)),
            "paper": ((0, 0, 0, 0), (255, 255, 255)), "half": ((0, 0, 0, 128), (127, 127, 127))}  # fmt: skip
    for ink, rgb in inks.values():
        path = saved(tmp_path / "a.jpg", Image.new("CMYK", (8, 8), ink), "JPEG", quality=100)
        got = read_picture(path, 8).reshape(3, -1).astype(int)
        assert np.abs(got - np.array(rgb)[:, None]).max() <= 2, (ink, got[:, 0])


def test_opaque_transparency_is_dropped_and_any_other_refused(tmp_path: Path) -> None:
    pixels = noise(6, 6)
    alpha = np.full((6, 6, 1), 255, np.uint8)
    grey = pixels[..., :1]
    for name, parts in (("rgba.png", (pixels, alpha)), ("la.png", (grey, alpha))):
        whole = np.concatenate(parts, axis=2)
        paint(tmp_path / name, whole)
        want = pixels if name == "rgba.png" else grey[..., 0]
        np.testing.assert_array_equal(read_picture(tmp_path / name, 6), middle(want, 6))
        whole[2, 3, -1] = 254
        paint(tmp_path / name, whole)
        with pytest.raises(FormatError, match=r"must be a picture, got: transparent pixels"):
            read_picture(tmp_path / name, 6)


def test_a_transparent_colour_is_refused_where_a_pixel_has_it(tmp_path: Path) -> None:
    grey, colours = DEEP[..., 0], (DEEP >> 8).astype(np.uint8)
    cases = (
        (grey, 16, 0, (int(grey[1, 2]),)),
        (colours, 8, 2, tuple(map(int, colours[1, 2]))),
        (colours[..., 0], 8, 0, (int(colours[1, 2, 0]),)),
    )
    for pixels, depth, colour, seen in cases:
        absent = tuple((set(range(256)) - set(np.asarray(pixels).ravel().tolist())).pop() for _ in seen)
        (tmp_path / "a.png").write_bytes(png(pixels, depth, colour, key(*absent)))
        want = pixels >> 8 if depth == 16 else pixels
        np.testing.assert_array_equal(read_picture(tmp_path / "a.png", 4), middle(want, 4))
        (tmp_path / "a.png").write_bytes(png(pixels, depth, colour, key(*seen)))
        with pytest.raises(FormatError, match="transparent pixels"):
            read_picture(tmp_path / "a.png", 4)


@pytest.mark.parametrize("turned", range(1, 9))
def test_a_picture_is_turned_upright(turned: int, tmp_path: Path) -> None:
    pixels = noise(6, 6)
    want = {
        1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1],
        5: pixels.transpose(1, 0, 2), 6: np.rot90(pixels, -1), 7: np.rot90(pixels.transpose(1, 0, 2), 2),
        8: np.rot90(pixels, 1),
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = turned
    path = saved(tmp_path / "a.png", Image.fromarray(pixels), "PNG", exif=exif)
    np.testing.assert_array_equal(read_picture(path, 6), middle(want[turned], 6))


def test_a_tag_that_cannot_be_read_says_nothing(tmp_path: Path) -> None:
    pixels = noise(6, 6)
    path = saved(tmp_path / "a.png", Image.fromarray(pixels), "PNG", exif=b"Exif\0\0nonsense, no TIFF")
    np.testing.assert_array_equal(read_picture(path, 6), middle(pixels, 6))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF"])
def test_an_animation_is_refused(kind: str, tmp_path: Path) -> None:
    frames = [Image.fromarray(noise(6, 6, seed)) for seed in range(3)]
    path = saved(tmp_path / "a.png", frames[0], kind, save_all=True, append_images=frames[1:])
    with pytest.raises(FormatError, match="an animation of 3 pictures"):
        read_picture(path, 6)


def test_of_a_jpeg_with_previews_the_first_picture_is_taken(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((8, 8, 3), shade, np.uint8)) for shade in (40, 200)]
    path = saved(tmp_path / "a.jpg", frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert np.abs(read_picture(path, 8).astype(int) - 40).max() <= 1


def test_numbers_that_are_no_bytes_are_refused(tmp_path: Path) -> None:
    for kind in ("F", "I"):
        path = saved(tmp_path / "a.png", Image.new(kind, (4, 4), 7), "TIFF")
        with pytest.raises(FormatError, match=f"pixels of the kind '{kind}'"):
            read_picture(path, 4)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
def test_a_truncated_file_is_refused_however_little_is_missing(kind: str, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(noise(20, 20)).save(buffer, kind)
    content = buffer.getvalue()
    for missing in (14, 40, len(content) // 2):
        (tmp_path / "a.jpg").write_bytes(content[:-missing])
        with pytest.raises(FormatError, match=r"a\.jpg` must be a picture, got: "):
            read_picture(tmp_path / "a.jpg", 4)


def test_a_wrong_checksum_is_refused(tmp_path: Path) -> None:
    """Pixels that are not those the chunk's checksum is of; Pillow decodes them without a word."""
    pixels, other = noise(6, 6, 0), noise(6, 6, 1)
    content, planted = (png(one, 8, 2, level=0) for one in (pixels, other))
    end = content.index(b"IEND") - 8  # behind the pixels, before their checksum
    (tmp_path / "a.png").write_bytes(planted[:end] + content[end:])
    with Image.open(tmp_path / "a.png") as opened:
        np.testing.assert_array_equal(np.asarray(opened.convert("RGB")), other)
    with pytest.raises(FormatError, match=r"a\.png` must be a picture, got: "):
        read_picture(tmp_path / "a.png", 6)


def test_stored_images_are_resized_as_files_are(tmp_path: Path) -> None:
    pixels = [noise(10, 14, seed) for seed in (0, 1)]
    images = np.stack(pixels).transpose(0, 3, 1, 2)
    small = resize(images, 5)
    assert small.shape == (2, 3, 5, 7)
    for index, one in enumerate(pixels):
        paint(tmp_path / "a.png", one)
        np.testing.assert_array_equal(crop(small[index], 5), read_picture(tmp_path / "a.png", 5))
    assert resize(images, 10) is images
    with pytest.raises(TypeError, match="`images` must be uint8 to be resized, got float64"):
        resize(images.astype(np.float64), 5)


def test_the_crop_is_the_middle() -> None:
    x = np.arange(30).reshape(5, 6)
    np.testing.assert_array_equal(crop(x, 3), [[8, 9, 10], [14, 15, 16], [20, 21, 22]])  # 1.5 rounds to 2
    np.testing.assert_array_equal(crop(x[:, :5], 5), x[:, :5])
    with pytest.raises(ValueError, match=r"at least 6 rows and columns to be cropped, got \(5, 6\)"):
        crop(x, 6)


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
def test_a_damaged_picture_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(FormatError, match=r"a\.jpg` must be a picture, got: "):
        read_picture(tmp_path / "a.jpg", 4)


def test_a_truncated_picture_is_named(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", noise(50, 50))
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(FormatError, match=r"a\.png` must be a picture, got: "):
        read_picture(tmp_path / "a.png", 4)


def test_an_absurdly_long_picture_is_refused(tmp_path: Path) -> None:
    """A short side of one pixel would become 224: a file of a hundred bytes, an array of gigabytes."""
    for shape in ((1, 4000, 3), (4000, 1, 3)):
        paint(tmp_path / "long.png", np.zeros(shape, np.uint8))
        with pytest.raises(FormatError, match=r"long\.png` must be a picture, got: \d+ by \d+ pixels"):
            read_picture(tmp_path / "long.png", 224)


def test_an_absurdly_large_picture_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paint(tmp_path / "a.png", noise(20, 20))
    for most in (150, 300):  # an error, and what Pillow only warns of
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
        with pytest.raises(FormatError, match=r"a\.png` must be a picture, got: .*exceeds limit"):
            read_picture(tmp_path / "a.png", 4)


def test_without_pillow_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(tmp_path / "c" / "a.png", noise(5, 5))
    data = load_folder(tmp_path, "train")  # nothing is decoded yet
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs Pillow: install `refldnq\[data\]`"):
        data.images[0]


# ------------------------------------------------------------------ files that look like an array


@pytest.fixture
def files(tmp_path: Path) -> PictureFiles:
    write(tmp_path, {"c": 7})
    return PictureFiles(tmp_path, tuple(f"c/{index:03d}.png" for index in range(7)), size=8)


@pytest.mark.parametrize(
    "places",
    [
        slice(None),
        slice(2, 5),
        slice(5, 1, -2),
        np.array([6, 0, 6]),
        np.array([], int),
        np.arange(7) % 2 == 0,
        3,
        -1,
    ],
    ids=repr,
)
def test_indexing_is_that_of_the_array(files: PictureFiles, places: Any) -> None:
    whole = np.stack([np.full((3, 8, 8), number, np.uint8) for number in range(7)])
    got = files[places]
    assert got.dtype == whole.dtype == files.dtype and (len(files), files.ndim) == (7, whole.ndim)
    np.testing.assert_array_equal(got, whole[places])
    assert files.shape == whole.shape
    if np.ndim(places) or isinstance(places, slice):
        np.testing.assert_array_equal(files.take(places)[:], whole[places])


def test_another_size_is_another_decoding(files: PictureFiles) -> None:
    assert files.sized(4)[:2].shape == (2, 3, 4, 4) and files.shape == (7, 3, 8, 8)
    with pytest.raises(ValueError, match="`size` must be an integer of at least 1, got 0"):
        files.sized(0)


# ------------------------------------------------------------------ what is found


def test_splits_by_folders(tmp_path: Path) -> None:
    write(tmp_path, {"train/b": 2, "train/a": 1, "val/a": 2, "val/b": 1, "train/empty": 0})
    train, test = load_dataset(tmp_path), load_test(tmp_path)
    assert test is not None and train.classes == test.classes == ("a", "b")
    assert train.labels is not None and test.labels is not None
    assert train.labels.tolist() == [0, 1, 1] and test.labels.tolist() == [0, 0, 1]
    # Written in the order b b a, a a b: the colour is the number of the file.
    assert train.images[:][:, 0, 0, 0].tolist() == [2, 0, 1]
    assert test.images[:][:, 0, 0, 0].tolist() == [3, 4, 5]
    assert (train.name, test.name) == (f"{tmp_path.name}-train", f"{tmp_path.name}-test")
    (tmp_path / "test").mkdir()
    write(tmp_path / "test", {"a": 1})
    assert len(load_dataset(tmp_path, "test")) == 3  # val before test


def test_a_missing_split_is_named(tmp_path: Path) -> None:
    write(tmp_path, {"test/a": 1})
    assert has_split(tmp_path, "test") and not has_split(tmp_path, "train")
    with pytest.raises(FormatError, match="must hold train/ with folders of pictures"):
        load_dataset(tmp_path, "train")
    other = tmp_path / "other"
    write(other, {"train/a": 1})
    assert load_test(other) is None


def test_without_split_folders_the_halves_are_drawn_once_and_for_all(tmp_path: Path) -> None:
    write(tmp_path, {"a": 4, "b": 5})
    train, test = load_dataset(tmp_path, "train"), load_dataset(tmp_path, "test")
    colours = [data.images[:][:, 0, 0, 0].tolist() for data in (train, test)]
    assert [len(half) for half in colours] == [5, 4]
    assert sorted(colours[0] + colours[1]) == list(range(9))
    order = np.random.default_rng(0).permutation(9)  # the names ascend with the colours
    assert colours == [sorted(order[:5].tolist()), sorted(order[5:].tolist())]
    for data, half in zip((train, test), colours, strict=True):
        assert data.labels is not None
        assert data.labels.tolist() == [int(colour >= 4) for colour in half]
    assert has_split(tmp_path, "train") and has_split(tmp_path, "test")


def test_classes_are_in_the_order_of_the_list(tmp_path: Path) -> None:
    write(tmp_path, {"train/n2": 1, "train/n1": 1, "val/n3": 1})
    (tmp_path / "classes.txt").write_text("n3 trout\nn0 lark\n\nn2 oak\nn1 elm\n", encoding="utf-8")
    train, test = load_dataset(tmp_path, "train"), load_dataset(tmp_path, "test")
    assert train.classes == ("n3", "n0", "n2", "n1")
    assert train.labels is not None and test.labels is not None
    assert sorted(train.labels.tolist()) == [2, 3] and test.labels.tolist() == [0]
    (tmp_path / "classes.txt").write_text("n3\nn2\n", encoding="utf-8")
    with pytest.raises(FormatError, match=r"classes\.txt` must hold every folder of pictures, 'n1' is not"):
        load_dataset(tmp_path)
    (tmp_path / "classes.txt").write_text("n1\nn2\nn1\n", encoding="utf-8")
    with pytest.raises(FormatError, match=r"classes\.txt` must hold different classes, got 'n1' twice"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("name", ["../b", "/etc", ".", "..", "a/../../b", "..\\b", "C:b"])
def test_a_class_that_leads_out_of_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    write(tmp_path / "own", {"a": 2})
    write(tmp_path, {"b": 2})
    (tmp_path / "own" / "classes.txt").write_text(f"a\n{name}\n", encoding="utf-8")
    with pytest.raises(FormatError, match=r"classes\.txt` must begin every line with the name of a folder"):
        load_dataset(tmp_path / "own")


def test_a_list_of_classes_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    write(tmp_path, {"a": 1, "b": 1})
    (tmp_path / "classes.txt").write_text("b\na\n", encoding="utf-8-sig")
    assert load_dataset(tmp_path).classes == ("b", "a")


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "classes.txt").write_text("a\n", encoding="utf-8")
    for split in ("train", "test"):
        with pytest.raises(FormatError, match=r"empty` must hold pictures in folders.*found 0"):
            load_folder(tmp_path / "empty", split)
    write(tmp_path / "one", {"a": 1})
    with pytest.raises(FormatError, match=r"one` must hold pictures in folders.*split 'test', found 1"):
        load_folder(tmp_path / "one", "test")  # its half would be empty


def test_pictures_of_kinds_that_are_not_read_are_not_left_out_silently(tmp_path: Path) -> None:
    write(tmp_path, {"a": 2, "b": 2})
    saved(tmp_path / "b" / "c.tif", Image.fromarray(noise(4, 4)), "TIFF")
    with pytest.raises(FormatError, match=r"c\.tif` must be a file of a kind that is read: \.jpg"):
        load_dataset(tmp_path)


def test_hidden_files_and_folders_are_left_alone(tmp_path: Path) -> None:
    """A file browser's thumbnails are no class, and the shadow of a file that macOS writes is no picture."""
    write(tmp_path, {"a": 2, ".thumbnails": 2})
    (tmp_path / "a" / "._000.png").write_bytes(b"no picture")
    data = load_dataset(tmp_path)
    assert data.classes == ("a",) and len(data) == 1
    assert data.images[:].shape[0] == 1


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    write(tmp_path, {"a": 2})
    (tmp_path / "a" / "notes.txt").write_text("no picture", encoding="utf-8")
    (tmp_path / "b").mkdir()
    (tmp_path / "readme.png").write_bytes(b"no class")
    data = load_dataset(tmp_path)
    assert data.classes == ("a",) and len(data) == 1
    empty = tmp_path / "b"
    assert not folder_of_pictures(empty)
    with pytest.raises(FormatError, match="nor a folder of pictures for each class"):
        load_dataset(empty)


def test_official_formats_come_first(tmp_path: Path) -> None:
    write(tmp_path, {"a": 2})
    record = np.zeros(3073, np.uint8)
    (tmp_path / "test_batch.bin").write_bytes(record.tobytes())
    assert load_dataset(tmp_path, "test").name == "cifar10-test"


def test_an_unknown_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`split` must be one of 'train', 'test', got 'val'"):
        load_folder(tmp_path, "val")


# ------------------------------------------------------------------ read in parts


def colour_network(classes: int = 7, size: int = 8) -> Network:
    """Classifies a picture by the mean of its first channel: class k is brightest near k."""
    nodes = (
        Node("conv", Conv2d(3, classes, 1), ("input",)),
        Node("relu", ReLU(), ("conv",)),
        Node("pool", GlobalAvgPool(), ("relu",)),
        Node("flat", Flatten(), ("pool",)),
    )
    weight, bias = np.zeros((classes, 3, 1, 1)), np.zeros(classes)
    # Largest at k = x among 2 k x - k^2, shifted to stay positive.
    weight[:, 0, 0, 0] = 2 * np.arange(classes)
    bias[:] = 100 - np.arange(classes) ** 2
    return Network(nodes, {"conv": {"weight": weight, "bias": bias}}, (3, size, size))


@pytest.fixture
def shades(tmp_path: Path) -> Path:
    """Pictures of the shades 0 to 6, one a class, in two split folders."""
    for split in ("train", "val"):
        for shade in range(7):
            for index in range(3):
                pixels = np.full((10, 12, 3), shade, np.uint8)
                paint(tmp_path / split / f"c{shade}" / f"{index}.png", pixels)
    return tmp_path


def watch(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the pictures that are decoded from now on."""
    read: list[str] = []

    def instead(path: Path, size: int) -> Array:
        read.append(f"{path.parts[-3]}/{path.parts[-2]}/{path.name}")
        return read_picture(path, size)

    monkeypatch.setattr(folders, "read_picture", instead)
    return read


def test_evaluation_reads_a_batch_at_a_time(shades: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    original = PictureFiles.__getitem__

    def counted(self: PictureFiles, places: Any) -> Array:
        found = original(self, places)
        sizes.append(len(found))
        return found

    monkeypatch.setattr(PictureFiles, "__getitem__", counted)
    model = Model(network=colour_network(), preprocess=Preprocess(resize=10, crop=8))
    score = evaluate_model(model, load_dataset(shades, "test"), batch_size=4)
    assert (score.correct, score.total, score.correct_top5) == (21, 21, 21)
    assert sizes == [4, 4, 4, 4, 4, 1]


def test_four_times_the_pictures_take_no_more_memory(tmp_path: Path) -> None:
    size = 96
    model = Model(network=colour_network(size=size), preprocess=Preprocess(resize=size, crop=size))
    for name, count in (("some", 3), ("many", 12)):
        write(tmp_path / name, {f"val/c{shade}": count for shade in range(7)}, size)

    def peak(name: str, batch: int) -> int:
        data = load_dataset(tmp_path / name, "test")
        evaluate_model(model, data, batch_size=batch)  # what is loaded and compiled once
        tracemalloc.start()
        evaluate_model(model, data, batch_size=batch)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    decoded = 3 * size * size  # bytes of a picture
    assert peak("many", 4) - peak("some", 4) < 4 * decoded
    # The planted bug, all pictures at once, is seen: 63 more of them, and their activations.
    assert peak("many", 84) - peak("some", 21) > 63 * decoded


def test_the_batch_follows_the_activations() -> None:
    network = colour_network(size=8)
    assert at_a_time(network) == 250
    assert at_a_time(colour_network(size=200), memory=3 * 7 * 200 * 200 * 8 * 5.5) == 5
    assert at_a_time(network, memory=1.0) == 1


def test_quantization_reads_the_calibration_pictures_alone(
    shades: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = Model(network=colour_network(), preprocess=Preprocess(resize=10, crop=8))
    data = load_dataset(shades, "train")
    read = watch(monkeypatch)
    request = QuantizeRequest(
        settings=LdnqSettings(update=None), images=5, seed=3, dtype="float64", held_out=2
    )
    outcome = quantize_model(model, data, request)
    record = outcome.model.provenance["data"]
    assert read[:5] == record["files"] and len(read) == 7 and len(set(read)) == 7
    assert record["split"] == "the folder train" and record["indices"] == list(outcome.indices)
    save_model(tmp_path / "q.h5", outcome.model)
    back = load_model(tmp_path / "q.h5")
    assert back.preprocess == model.preprocess and back.provenance == outcome.model.provenance


def test_files_and_the_same_pixels_in_an_array_quantize_alike(shades: Path) -> None:
    model = Model(network=colour_network(), preprocess=Preprocess(resize=10, crop=8))
    files = load_dataset(shades, "train")
    array = Dataset(files.pixels(slice(None), 10), files.labels, files.classes, files.name)
    request = QuantizeRequest(settings=LdnqSettings(update=None), images=6, dtype="float64")
    one, two = (quantize_model(model, data, request, test=data) for data in (files, array))
    assert one.after == two.after
    for key, value in one.model.network.params["conv"].items():
        np.testing.assert_array_equal(value, two.model.network.params["conv"][key])


def test_a_data_set_of_files_is_sampled_and_identified_as_one_of_arrays(shades: Path) -> None:
    files = load_dataset(shades, "train")
    array = Dataset(files.images[:], files.labels, files.classes, files.name)
    assert files.streamed and not array.streamed
    assert files.fingerprint() == array.fingerprint()
    rng = [np.random.default_rng(5) for _ in range(2)]
    places = files.sample(7, rng[0], stratified=True)
    np.testing.assert_array_equal(places, array.sample(7, rng[1], stratified=True))
    some = files.take(places)
    assert some.streamed and some.labels is not None and sorted(some.labels) == list(range(7))
    np.testing.assert_array_equal(some.images[:], array.images[places])
    assert "files" not in array.record(places) and len(files.record(places)["files"]) == 7


# ------------------------------------------------------------------ real pictures


def sample(data_dir: Path) -> Path:
    path = data_dir / "imagenet-sample"
    if not path.is_dir():
        pytest.skip("the ImageNet sample is not in the data folder")
    return path


def test_the_real_sample(data_dir: Path) -> None:
    """600 pictures of 256x256, one a class; a file's stem is its class's index."""
    halves = [load_dataset(sample(data_dir), split) for split in ("train", "test")]
    names: list[str] = []
    for data in halves:
        assert len(data) == 300 and data.images.shape == (300, 3, 256, 256)
        assert data.classes is not None and len(data.classes) == 1000
        own: Sequence[str] = data.record(np.arange(300))["files"]
        assert data.labels is not None
        assert [int(Path(name).stem) for name in own] == data.labels.tolist()
        assert [Path(name).parts[0] for name in own] == [data.classes[label] for label in data.labels]
        names += own
    assert len(set(names)) == 600
    with Image.open(sample(data_dir) / halves[0].record(np.array([7]))["files"][0]) as picture:
        np.testing.assert_array_equal(halves[0].images[7], np.asarray(picture).transpose(2, 0, 1))
