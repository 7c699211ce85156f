"""The paper's tables as data: every printed number once, in ``paper.toml`` beside this file."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("paper.toml")

KEEPS_ENDS = "¹"
"""Mark behind a network's name: its first and last layer remain in full precision (Table 2)."""

NAMES = {"VGG": "vgg-distilquant", "WRN": "wrn28-20", "AlexNet": "alexnet-bn"}
"""Networks whose names here are not the paper's in small letters; its AlexNet has batch normalization."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PaperRow:
    """A row of one of the paper's tables.

    Parameters
    ----------
    table : int
        1 to 4.
    data, network, method : str
        The data set's key; the network and the method as printed.
    bits : float
        As printed: a number of levels.
    change : tuple of float
        Accuracy after minus before, percentage points, signs as printed: top-1, or top-1 and top-5.
    full : tuple of float
        Accuracy of the pre-trained network, percent; empty where the paper gives none.
    spread : tuple of str, optional
        Fields that a cell over several rows gives.
    about : bool, optional
        Whether the paper has ≈ before the change.
    """

    table: int
    data: str
    network: str
    method: str
    bits: float
    change: tuple[float, ...]
    full: tuple[float, ...] = ()
    spread: tuple[str, ...] = ()
    about: bool = False

    @property
    def name(self) -> str:
        """The network's name in this package.

        Examples
        --------
        >>> paper().rows[0].name
        'resnet20'
        """
        printed = self.network.removesuffix(KEEPS_ENDS)
        return NAMES.get(printed, printed.lower())

    @property
    def keep_ends(self) -> bool:
        """Whether the first and the last layer remain in full precision."""
        return self.network.endswith(KEEPS_ENDS)


@dataclass(frozen=True, kw_only=True, slots=True)
class PaperFigure:
    """One of the paper's figures: its caption and what the text says of it. It prints no numbers.

    Parameters
    ----------
    name, network, data : str
        ``fig2a``, the network as printed, the data set's key.
    methods : tuple of str
        As printed.
    caption, says : str
        Verbatim.
    """

    name: str
    network: str
    data: str
    methods: tuple[str, ...]
    caption: str
    says: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Paper:
    """All of them.

    Parameters
    ----------
    source : str
        Where the numbers come from.
    runs : int
        How many runs a number of the paper is the mean of.
    images : mapping of str to int
        Calibration images, by data set.
    labels : mapping of str to str
        Names of the data sets.
    rows : tuple of PaperRow
        In the paper's order.
    figures : tuple of PaperFigure
        In the paper's order.
    """

    source: str
    runs: int
    images: dict[str, int]
    labels: dict[str, str]
    rows: tuple[PaperRow, ...]
    figures: tuple[PaperFigure, ...]


@cache
def paper() -> Paper:
    """The paper's numbers.

    Returns
    -------
    Paper

    Examples
    --------
    >>> row = paper().rows[5]
    >>> row.network, row.method, row.bits, row.change
    ('ResNet20', 'L-DNQ', 3.0, (-4.3,))
    """
    content = tomllib.loads(FILE.read_text("utf-8"))
    rows = []
    for entry in content["rows"]:
        change, full = (tuple(map(float, entry.get(key, ()))) for key in ("change", "full"))
        spread = tuple(entry.get("spread", ()))
        own = {**entry, "bits": float(entry["bits"]), "change": change, "full": full, "spread": spread}
        rows.append(PaperRow(**own))
    figures = tuple(
        PaperFigure(**{**entry, "methods": tuple(entry["methods"])}) for entry in content["figures"]
    )
    return Paper(
        source=content["source"],
        runs=content["runs"],
        images={key: entry["images"] for key, entry in content["data"].items()},
        labels={key: entry["label"] for key, entry in content["data"].items()},
        rows=tuple(rows),
        figures=figures,
    )
