"""Reading, resizing and cropping pictures, by Pillow: short side to a size, then the middle.

This is the usual evaluation of ImageNet networks: the short side becomes 256 pixels by bilinear interpolation
with antialiasing, the middle 224x224 are the input.

What a file holds becomes RGB bytes by these rules; what none of them covers is refused, with the file's name.

- Palettes are looked up; grey becomes three equal channels; CMYK is converted by Pillow's formula, as by
  torchvision. Colour profiles and gamma are ignored, as by torchvision.
- Of 16 bits a channel the upper 8 are kept, for grey as for colours.
- A picture whose EXIF tag says so is turned upright, unlike by torchvision; tags that cannot be read say
  nothing.
- Transparency is refused unless every pixel is opaque: what would lie behind is not known.
- Animations are refused; of a JPEG with previews behind it (MPO) the first picture is taken.
- Truncated files are refused, and PNG files whose checksums are wrong.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from refldnq._typing import Array
from refldnq.errors import FormatError

DEEP_GREY = ("I;16", "I;16L", "I;16B", "I;16N")
"""Pillow's modes of 16 bits a pixel, which its own conversion cuts off at 255."""

CONVERTED = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr")
"""Modes that Pillow's conversion to RGB reads as they are meant, once transparency is ruled out."""

LONGEST = 32
"""Largest ratio of a picture's sides: resized by its short side, a longer strip would fill the memory. Chosen
here."""


def _pillow() -> Any:
    try:
        from PIL import Image
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "Reading or resizing pictures needs Pillow: install `refldnq[data]`.", name="PIL"
        ) from None
    return Image


def read_picture(path: Path, size: int) -> Array:
    """The middle square of a picture whose short side has been resized.

    Parameters
    ----------
    path : Path
        A file that Pillow can read.
    size : int
        Rows and columns of the result.

    Returns
    -------
    Array, shape (3, size, size), uint8
        RGB.

    Raises
    ------
    FormatError
        If the file is no picture, damaged, absurdly large or long, transparent, animated, or of a kind that
        would not be read as it is meant (the module's rules).
    ModuleNotFoundError
        If Pillow is not installed.
    """
    Image = _pillow()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                if max(opened.size) > LONGEST * min(opened.size):
                    raise ValueError(f"{opened.size[0]} by {opened.size[1]} pixels")
                picture = _bytes(Image, opened)
            if opened.format == "PNG":  # decoding looks at no checksum
                with Image.open(path) as again:
                    again.verify()
    except Exception as error:  # a damaged file raises nearly anything
        raise FormatError(f"`{path}` must be a picture, got: {error}") from None
    return crop(np.asarray(_resized(Image, picture, size)).transpose(2, 0, 1), size)


def _bytes(Image: Any, opened: Any) -> Any:
    # The picture as RGB bytes, upright, by the rules above.
    frames = getattr(opened, "n_frames", 1)
    if frames > 1 and opened.format != "MPO":
        raise ValueError(f"an animation of {frames} pictures")
    if opened.has_transparency_data:
        if opened.mode in DEEP_GREY:  # the colour that is transparent, as a number of 16 bits
            clear = bool((np.asarray(opened) == opened.info["transparency"]).any())
        else:
            clear = opened.convert("RGBA").getchannel("A").getextrema()[0] < 255
        if clear:
            raise ValueError("transparent pixels; put a background behind them first")
    upright = _upright(opened)
    if upright.mode in DEEP_GREY:
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    elif upright.mode not in CONVERTED and not opened.has_transparency_data:
        raise ValueError(f"pixels of the kind {upright.mode!r}")
    return upright.convert("RGB")


def _upright(opened: Any) -> Any:
    from PIL import ExifTags, ImageOps

    opened.load()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            turned = opened.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # some pictures of ImageNet have tags that nobody can read
        turned = 1
    return ImageOps.exif_transpose(opened) if turned in range(2, 9) else opened


def _resized(Image: Any, picture: Any, size: int) -> Any:
    w, h = picture.size
    short = min(w, h)
    if short == size:
        return picture
    # The long side is rounded down, as by torchvision's Resize.
    wide, high = (size if side == short else int(size * side / short) for side in (w, h))
    return picture.resize((wide, high), Image.Resampling.BILINEAR)


def resize(images: Array, size: int) -> Array:
    """Stored images with their short side resized to `size` pixels.

    Parameters
    ----------
    images : Array, shape (n, c, h, w), uint8
        Any number of channels.
    size : int
        Rows or columns, whichever there are fewer of, of the result.

    Returns
    -------
    Array, shape (n, c, ...), uint8
        The images themselves if their short side is `size` already.

    Raises
    ------
    TypeError
        If they are not bytes.
    ModuleNotFoundError
        If Pillow is needed and not installed.

    Examples
    --------
    >>> resize(np.full((1, 1, 4, 6), 7, np.uint8), 2).tolist()
    [[[[7, 7, 7], [7, 7, 7]]]]
    """
    if min(images.shape[2:]) == size or not len(images):
        return images
    if images.dtype != np.uint8:
        raise TypeError(f"`images` must be uint8 to be resized, got {images.dtype}.")
    Image = _pillow()
    return np.stack(
        [
            np.stack([np.asarray(_resized(Image, Image.fromarray(plane), size)) for plane in image])
            for image in images
        ]
    )


def crop(images: Array, size: int) -> Array:
    """The middle `size` rows and columns of the last two axes.

    Raises
    ------
    ValueError
        If there are fewer.

    Examples
    --------
    >>> crop(np.arange(12).reshape(3, 4), 2).tolist()
    [[1, 2], [5, 6]]
    """
    h, w = images.shape[-2:]
    if min(h, w) < size:
        raise ValueError(f"`images` must have at least {size} rows and columns to be cropped, got {(h, w)}.")
    # Rounded to even, as by torchvision's CenterCrop.
    top, left = round((h - size) / 2), round((w - size) / 2)
    return images[..., top : top + size, left : left + size]
