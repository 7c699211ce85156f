"""From stored images to a network's inputs; the description travels in the model file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from refldnq._checks import FLOATS, check_choice, check_finite, check_integer, check_number
from refldnq._typing import Array
from refldnq.data.pictures import crop, resize
from refldnq.errors import FormatError

OPTIONAL = ("resize", "crop")
"""Fields that need not be in a file: models from before they existed have none."""


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """x -> (scale x - mean) / std, channel by channel, behind resizing and cropping if they are asked for.

    Parameters
    ----------
    scale : float, optional
        Applied first; 1/255 maps bytes to 0..1.
    mean, std : tuple of float, optional
        One number a channel, or one for all, in the scaled units and in the network's channel order.
    channel_order : {'rgb', 'bgr'}, optional
        What the network wants; stored images are RGB.
    layout : {'nchw', 'nhwc'}, optional
        How the stored images' axes are ordered; the network's are NCHW.
    resize : int or None, optional
        Pixels of the short side that images are resized to first, by Pillow; None leaves them. Files are
        decoded to this size.
    crop : int or None, optional
        Rows and columns of the middle that is kept after that; None keeps all.

    Raises
    ------
    ValueError
        If a number is not finite, `scale` or a `std` is not positive, or a name is unknown.
    TypeError
        If a number is not one.

    Examples
    --------
    >>> centred = Preprocess(scale=1 / 255, mean=(0.5,), std=(0.5,))
    >>> centred(np.full((1, 1, 1, 1), 255, np.uint8), np.float64).ravel()
    array([1.])
    """

    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    channel_order: Literal["rgb", "bgr"] = "rgb"
    layout: Literal["nchw", "nhwc"] = "nchw"
    resize: int | None = None
    crop: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", check_number("scale", self.scale, above=0))
        for name in ("mean", "std"):
            values = getattr(self, name)
            if isinstance(values, str) or not isinstance(values, Iterable):
                raise TypeError(f"`{name}` must be a tuple of numbers, got {type(values).__name__}.")
        object.__setattr__(self, "mean", tuple(check_number("mean", value) for value in self.mean))
        object.__setattr__(self, "std", tuple(check_number("std", value, above=0) for value in self.std))
        if not self.mean or not self.std:
            raise ValueError(f"`mean` and `std` must hold a number, got {self.mean} and {self.std}.")
        check_choice("channel_order", self.channel_order, ("rgb", "bgr"))
        check_choice("layout", self.layout, ("nchw", "nhwc"))
        for name in OPTIONAL:
            if getattr(self, name) is not None:
                check_integer(name, getattr(self, name), at_least=1)
        if self.resize is not None and self.crop is not None and self.crop > self.resize:
            raise ValueError(f"`crop` must be at most `resize`, {self.resize}, got {self.crop}.")

    def __call__(self, images: Array, dtype: npt.DTypeLike) -> Array:
        """The network's inputs.

        Parameters
        ----------
        images : Array, shape (n, c, h, w), or (n, h, w, c) in layout 'nhwc'
            Stored images, uint8 or finite float32 or float64.
        dtype : dtype
            The network's type; arithmetic is in float64.

        Returns
        -------
        Array, shape (n, c, h, w)

        Raises
        ------
        ValueError
            If the images have not four axes, are not finite, are smaller than `crop`, or their channels do
            not fit `mean` and `std`.
        TypeError
            If the images or `dtype` are of another type, or images that are not bytes are to be resized.
        ModuleNotFoundError
            If images are to be resized and Pillow is not installed.
        """
        if images.dtype not in (np.uint8, *FLOATS):
            raise TypeError(f"`images` must be uint8, float32 or float64, got {images.dtype}.")
        if np.dtype(dtype) not in FLOATS:
            raise TypeError(f"`dtype` must be float32 or float64, got {np.dtype(dtype)}.")
        if images.ndim != 4:
            raise ValueError(f"`images` must have four axes, got shape {images.shape}.")
        check_finite("images", images)
        x = images.transpose(0, 3, 1, 2) if self.layout == "nhwc" else images
        if self.resize is not None:
            x = resize(x, self.resize)
        if self.crop is not None:
            x = crop(x, self.crop)
        if self.channel_order == "bgr":
            x = x[:, ::-1]
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, x.shape[1]):
                raise ValueError(f"`{name}` must hold 1 or {x.shape[1]} numbers, got {len(values)}.")
        mean, std = (np.array(values)[:, None, None] for values in (self.mean, self.std))
        scale = np.float64(self.scale)  # of NumPy's type: a Python float would leave float32 images float32
        # In parts: the float64 intermediate of all images at once would be eight times their size.
        out = np.empty(x.shape, dtype)
        for first in range(0, len(x), 512):
            out[first : first + 512] = (x[first : first + 512] * scale - mean) / std
        return out

    def to_json(self) -> str:
        """The fields as a JSON object; `resize` and `crop` only if they are given."""
        fields = {
            name: value for name, value in asdict(self).items() if name not in OPTIONAL or value is not None
        }
        return json.dumps(fields, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Preprocess:
        """The inverse of `to_json`.

        Raises
        ------
        ValueError
            If the text is not JSON, or a field is missing, unknown or out of range.
        TypeError
            If a field has the wrong type.

        Examples
        --------
        >>> Preprocess.from_json(Preprocess(scale=2.0).to_json()) == Preprocess(scale=2.0)
        True
        """
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"`preprocess` must be a JSON object, got {text[:40]!r} ({error}).") from None
        if not isinstance(fields, Mapping):
            raise ValueError(f"`preprocess` must be a JSON object, got {type(fields).__name__}.")
        known = set(cls.__dataclass_fields__)
        if set(fields) | set(OPTIONAL) != known:
            raise ValueError(
                f"`preprocess` must have the fields {sorted(known - set(OPTIONAL))} and may have "
                f"{', '.join(OPTIONAL)}, got {sorted(fields)}."
            )
        values: dict[str, Any] = dict(fields)
        for name in ("mean", "std"):
            if not isinstance(values[name], list):
                raise TypeError(f"`{name}` must be a list of numbers, got {type(values[name]).__name__}.")
            values[name] = tuple(values[name])
        return cls(**values)


PRESETS: Mapping[str, Preprocess] = {
    "cifar-resnet": Preprocess(scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "cifar-half": Preprocess(scale=1 / 255, mean=(0.5,), std=(0.5,)),
    "digits": Preprocess(scale=1 / 16),
    "mnist": Preprocess(scale=1 / 255, mean=(0.1307,), std=(0.3081,)),
    "imagenet": Preprocess(
        scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), resize=256, crop=224
    ),
    "imagenet-bgr255": Preprocess(mean=(103.939, 116.779, 123.68), channel_order="bgr", resize=256, crop=224),
}
"""Named descriptions: the CIFAR ResNets' (the checkpoints' own), DistilQuant's for CIFAR-10, scikit-learn's
digits (0..16), MNIST's, torchvision's for ImageNet, and that of networks that come from Caffe."""


def preprocess_from(name_or_file: str) -> Preprocess:
    """A preset by name, or a description from a JSON file.

    Raises
    ------
    FormatError
        If the file's content is not a description; the message names the file and the field.
    ValueError
        If it is neither.

    Examples
    --------
    >>> preprocess_from("digits").scale
    0.0625
    """
    if name_or_file in PRESETS:
        return PRESETS[name_or_file]
    path = Path(name_or_file)
    if not path.is_file():
        raise ValueError(
            f"`preprocess` must be one of {sorted(PRESETS)} or a JSON file, got {name_or_file!r}."
        )
    try:
        return Preprocess.from_json(path.read_text(encoding="utf-8"))
    except (ValueError, TypeError) as error:
        raise FormatError(f"`{path}`: {error}") from None
