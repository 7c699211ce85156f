"""Preprocessing against its formula in loops, and its description as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refldnq._typing import Array
from refldnq.data.load import load_dataset
from refldnq.data.preprocess import PRESETS, Preprocess, preprocess_from
from refldnq.errors import FormatError

numbers = st.floats(-1e3, 1e3)
positive = st.floats(1e-3, 1e3)


def descriptions(channels: int = 3) -> st.SearchStrategy[Preprocess]:
    def vector(values: st.SearchStrategy[float]) -> st.SearchStrategy[tuple[float, ...]]:
        return st.lists(values, min_size=channels, max_size=channels).map(tuple) | st.tuples(values)

    return st.builds(
        Preprocess,
        scale=positive,
        mean=vector(numbers),
        std=vector(positive),
        channel_order=st.sampled_from(["rgb", "bgr"]),
        layout=st.sampled_from(["nchw", "nhwc"]),
        crop=st.sampled_from([None, 1, 2, 4]),
    )


def by_definition(how: Preprocess, images: Array) -> Array:
    """(scale x - mean) / std, pixel by pixel; float64."""
    n, c, h, w = images.shape if how.layout == "nchw" else [images.shape[axis] for axis in (0, 3, 1, 2)]
    out = np.empty((n, c, how.crop or h, how.crop or w))
    top, left = ((round((side - how.crop) / 2) if how.crop else 0) for side in (h, w))
    for i, k, p, q in np.ndindex(*out.shape):
        stored = c - 1 - k if how.channel_order == "bgr" else k
        a, b = p + top, q + left
        x = float(images[i, stored, a, b] if how.layout == "nchw" else images[i, a, b, stored])
        mean, std = how.mean[k % len(how.mean)], how.std[k % len(how.std)]
        out[i, k, p, q] = (how.scale * x - mean) / std
    return out


def check(call: Callable[[Preprocess, Array], Array], how: Preprocess, images: Array) -> None:
    # The same operations in the same order: equal to the bit in float64.
    if not np.array_equal(call(how, images), by_definition(how, images)):
        raise AssertionError(f"{how} differs from its formula")


@given(how=descriptions(), dtype=st.sampled_from([np.uint8, np.float32, np.float64]), seed=st.integers(0, 99))
def test_the_formula(how: Preprocess, dtype: Any, seed: int) -> None:
    shape = (2, 3, 4, 5) if how.layout == "nchw" else (2, 4, 5, 3)
    images = np.random.default_rng(seed).uniform(0, 255, shape).astype(dtype)
    before = images.copy()
    check(lambda how, images: how(images, np.float64), how, images)
    assert np.array_equal(images, before)
    single = how(images, np.float32)
    assert single.dtype == np.float32 and single.flags.c_contiguous
    assert np.array_equal(single, how(images, np.float64).astype(np.float32))


PLANTED: dict[str, Callable[[Preprocess, Array], Array]] = {
    "the scale forgotten": lambda how, x: replace(how, scale=1.0)(x, np.float64),
    "the scale after the mean": lambda how, x: (
        (x - np.reshape(how.mean, (-1, 1, 1))) * how.scale / np.reshape(how.std, (-1, 1, 1))
    ),
    "channels not reversed": lambda how, x: replace(how, channel_order="rgb")(x, np.float64),
    "axes taken for channels": lambda how, x: replace(how, layout="nhwc")(x, np.float64),
    "arithmetic in float32": lambda how, x: how(x, np.float32).astype(np.float64),
}


@pytest.mark.parametrize("bug", PLANTED)
def test_the_comparison_sees_a_planted_bug(bug: str) -> None:
    how = Preprocess(scale=1 / 255, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), channel_order="bgr")
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 3, 3)).astype(np.uint8)
    check(lambda how, images: how(images, np.float64), how, images)
    with pytest.raises(AssertionError, match="differs from its formula"):
        check(PLANTED[bug], how, images)


def test_many_images_are_treated_as_few() -> None:
    images = np.random.default_rng(0).integers(0, 256, (1100, 1, 2, 2)).astype(np.uint8)
    how = PRESETS["mnist"]
    alone = np.concatenate([how(image[None], np.float64) for image in images])
    assert np.array_equal(how(images, np.float64), alone)
    assert how(images[:0], np.float64).shape == (0, 1, 2, 2)


def test_presets() -> None:
    white = np.full((1, 3, 1, 1), 255, np.uint8)
    expected = [(1 - m) / s for m, s in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)]
    assert np.allclose(PRESETS["cifar-resnet"](white, np.float64).ravel(), expected, rtol=1e-12)
    assert PRESETS["digits"](np.full((1, 1, 1, 1), 16, np.uint8), np.float64).item() == 1.0
    grey = PRESETS["mnist"](np.full((1, 1, 1, 1), 51, np.uint8), np.float64).item()
    assert abs(grey - (0.2 - 0.1307) / 0.3081) <= 1e-12


def test_the_imagenet_presets() -> None:
    """Short side 256, middle 224; red first and about -2 to 3, or blue first and about -124 to 151."""
    images = np.zeros((1, 3, 256, 300), np.uint8)
    images[:, 0, 16:-16, 38:-38] = 255  # red in the middle
    x, caffe = (PRESETS[name](images, np.float64) for name in ("imagenet", "imagenet-bgr255"))
    assert x.shape == caffe.shape == (1, 3, 224, 224)
    want = [(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225]
    assert np.allclose(x, np.reshape(want, (3, 1, 1)), rtol=1e-12)
    assert np.allclose(caffe, np.reshape([-103.939, -116.779, 255 - 123.68], (3, 1, 1)), rtol=1e-12)


def test_resizing_comes_before_cropping() -> None:
    pytest.importorskip("PIL", reason="Pillow resizes")
    frame = np.full((1, 1, 40, 40), 200, np.uint8)
    frame[:, :, 12:28, 12:28] = 0
    # Half as large, the frame is 6 pixels wide, and 2 of them are left; cropped first, nothing would be.
    small = Preprocess(resize=20, crop=12)(frame, np.float64)[0, 0]
    assert small.shape == (12, 12) and small[0, 0] == 200 and small[6, 6] == 0
    assert frame[0, 0, 14:26, 14:26].max() == 0


@given(how=descriptions(), resize=st.sampled_from([None, 4, 7]))
def test_resizing_travels_in_the_description(how: Preprocess, resize: int | None) -> None:
    how = replace(how, resize=resize)
    assert Preprocess.from_json(how.to_json()) == how


def test_descriptions_without_resizing_are_those_of_before() -> None:
    """Files of models from before there was resizing stay readable, and new ones of such models the same."""
    fields = {"scale": 1.0, "mean": [0.0], "std": [1.0], "channel_order": "rgb", "layout": "nchw"}
    assert json.loads(Preprocess().to_json()) == fields
    assert Preprocess.from_json(json.dumps(fields)) == Preprocess()
    assert json.loads(Preprocess(crop=3).to_json()) == {**fields, "crop": 3}


@given(how=descriptions())
def test_json_gives_it_back(how: Preprocess) -> None:
    assert Preprocess.from_json(how.to_json()) == how


def test_numpys_numbers_become_pythons() -> None:
    how = Preprocess(scale=np.float32(0.5), mean=np.array([1.0, 2.0]), std=[np.float64(2.0)])  # type: ignore[arg-type]
    assert how == Preprocess(scale=0.5, mean=(1.0, 2.0), std=(2.0,))
    assert Preprocess.from_json(how.to_json()) == how


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "scale zero": ({"scale": 0}, ValueError, "`scale` must be .* greater than 0, got 0"),
    "scale negative": ({"scale": -1.0}, ValueError, "`scale`"),
    "scale infinite": ({"scale": float("inf")}, ValueError, "`scale`"),
    "scale text": ({"scale": "1"}, TypeError, "`scale` must be a number, got str"),
    "scale true": ({"scale": True}, TypeError, "`scale` must be a number, got bool"),
    "mean NaN": ({"mean": (0.0, float("nan"))}, ValueError, "`mean` must be a finite number, got nan"),
    "mean text": ({"mean": ("0",)}, TypeError, "`mean` must be a number, got str"),
    "mean a number": ({"mean": 0.5}, TypeError, "`mean` must be a tuple of numbers, got float"),
    "mean a text": ({"mean": "0.5"}, TypeError, "`mean` must be a tuple of numbers, got str"),
    "mean empty": ({"mean": ()}, ValueError, "`mean` and `std` must hold a number"),
    "std zero": ({"std": (1.0, 0.0)}, ValueError, "`std` must be .* greater than 0, got 0"),
    "std empty": ({"std": ()}, ValueError, "`mean` and `std` must hold a number"),
    "std None": ({"std": None}, TypeError, "`std` must be a tuple of numbers, got NoneType"),
    "order": ({"channel_order": "gbr"}, ValueError, "`channel_order` must be one of 'rgb', 'bgr', got 'gbr'"),
    "order a list": ({"channel_order": ["rgb"]}, ValueError, "`channel_order` must be one of"),
    "resize zero": ({"resize": 0}, ValueError, "`resize` must be an integer of at least 1, got 0"),
    "resize a half": ({"resize": 0.5}, TypeError, "`resize` must be an integer, got float"),
    "crop zero": ({"crop": 0}, ValueError, "`crop` must be an integer of at least 1, got 0"),
    "crop text": ({"crop": "3"}, TypeError, "`crop` must be an integer, got str"),
    "crop larger": ({"crop": 5, "resize": 4}, ValueError, "`crop` must be at most `resize`, 4, got 5"),
    "layout": ({"layout": "hwc"}, ValueError, "`layout` must be one of 'nchw', 'nhwc', got 'hwc'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_fields_are_named(case: str) -> None:
    fields, error, message = BAD[case]
    with pytest.raises(error, match=message):
        Preprocess(**fields)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("{", ValueError, "`preprocess` must be a JSON object, got '{'"),
        ("[]", ValueError, "`preprocess` must be a JSON object, got list"),
        ("[" * 100_000, ValueError, "`preprocess` must be a JSON object, got '"),
        ("{}", ValueError, r"`preprocess` must have the fields .*, got \[\]"),
        ({"gamma": 2}, ValueError, "`preprocess` must have the fields .*'gamma'"),
        ({"mean": 0.5}, TypeError, "`mean` must be a list of numbers, got float"),
        ({"std": [[1]]}, TypeError, "`std` must be a number, got list"),
        ({"scale": None}, TypeError, "`scale` must be a number, got NoneType"),
        ({"layout": 3}, ValueError, "`layout` must be one of"),
        ({"std": [1, float("nan")]}, ValueError, "`std` must be"),
    ],
)
def test_bad_json_is_named(text: Any, error: type[Exception], message: str) -> None:
    if isinstance(text, dict):
        text = json.dumps({**json.loads(Preprocess().to_json()), **text})
    with pytest.raises(error, match=message):
        Preprocess.from_json(text)


@pytest.mark.parametrize("field", ["scale", "mean", "std", "channel_order", "layout"])
def test_a_missing_field_is_an_error(field: str) -> None:
    fields = json.loads(Preprocess().to_json())
    del fields[field]
    with pytest.raises(ValueError, match="`preprocess` must have the fields"):
        Preprocess.from_json(json.dumps(fields))


def test_images_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`images` must have four axes, got shape \(3, 2, 2\)"):
        Preprocess()(np.zeros((3, 2, 2)), np.float64)
    with pytest.raises(ValueError, match=r"`images` must have at least 5 rows and columns .* got \(4, 4\)"):
        Preprocess(crop=5)(np.zeros((1, 3, 4, 4)), np.float64)
    with pytest.raises(ValueError, match="`mean` must hold 1 or 1 numbers, got 3"):
        PRESETS["cifar-resnet"](np.zeros((2, 1, 4, 4), np.uint8), np.float32)
    with pytest.raises(ValueError, match="`std` must hold 1 or 3 numbers, got 2"):
        Preprocess(std=(1.0, 2.0))(np.zeros((2, 3, 4, 4), np.uint8), np.float32)
    with pytest.raises(TypeError, match="`images` must be uint8, float32 or float64, got int64"):
        Preprocess()(np.zeros((2, 3, 4, 4), np.int64), np.float32)
    with pytest.raises(ValueError, match=r"`images` must be finite, got nan at index \(0, 0, 0, 0\)"):
        Preprocess()(np.full((1, 1, 2, 2), np.nan), np.float32)
    with pytest.raises(TypeError, match="`dtype` must be float32 or float64, got int8"):
        Preprocess()(np.zeros((1, 1, 2, 2)), np.int8)


def test_a_name_or_a_file(tmp_path: Path) -> None:
    assert preprocess_from("cifar-resnet") is PRESETS["cifar-resnet"]
    how = Preprocess(scale=0.5, channel_order="bgr")
    (tmp_path / "how.json").write_text(how.to_json(), encoding="utf-8")
    assert preprocess_from(str(tmp_path / "how.json")) == how
    with pytest.raises(ValueError, match=r"`preprocess` must be one of \[.*'digits'.*\] or a JSON file"):
        preprocess_from("imagenet21k")
    (tmp_path / "bad.json").write_bytes(b"\xff\xfe")
    with pytest.raises(FormatError, match=r"bad\.json`: .*decode"):
        preprocess_from(str(tmp_path / "bad.json"))
    (tmp_path / "bad.json").write_text(how.to_json().replace("0.5", "0"), encoding="utf-8")
    with pytest.raises(FormatError, match=r"bad\.json`: `scale` must be a finite number greater than 0"):
        preprocess_from(str(tmp_path / "bad.json"))


def test_the_preset_of_mnist_is_that_of_its_training_images(data_dir: Path) -> None:
    x = load_dataset(data_dir / "mnist", "train").images / 255.0
    assert PRESETS["mnist"].mean == (round(float(x.mean()), 4),)
    assert PRESETS["mnist"].std == (round(float(x.std()), 4),)
