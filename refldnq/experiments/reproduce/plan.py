"""Which runs a table or a figure of the paper needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from refldnq._checks import check_choice, check_integer
from refldnq.experiments.reproduce.paper import PaperRow, paper

EXHIBITS = ("table1", "table2", "table3", "table4", "fig2a", "fig2b", "fig2c")

RETRAIN = "+retrain"
"""Behind a method's name: it is followed by training with labels (step 6 of Algorithm 1)."""

CAPPED = "capped"
"""A schedule beside those of `refldnq.baselines.schedule.Name`: ``scaled``, but more images than
`refldnq.baselines.schedule.USUAL_IMAGES` get no more image passes than these. A study over the number of
images can be paid for then."""

PRINTED = {
    "TTQ": "ttq",
    "INQ": "inq",
    "ExNN": "exnn",
    "VQ": f"vq{RETRAIN}",
    "DQ": f"dq{RETRAIN}",
    "L-DNQ": "ldnq",
    "L-DNQ⁻": "ldnq-",
    "LAT": "lata",
    "TRN": "trn",
    "DistilQuant": "distilquant",
}
"""What stands for a method of the paper; VQ and DQ "use limited instances for retraining" there."""

AFFINE = f"dq-affine{RETRAIN}"
"""DQ where the number of levels is not 2b+3, as in Table 2's rows of 8, 16 and 32."""

ALSO = {
    "late": "LAT",
    "lat-two-scale": "LAT",
    f"ldnq{RETRAIN}": "L-DNQ",
    f"ldnq-{RETRAIN}": "L-DNQ⁻",
    AFFINE: "DQ",
}
"""Variants that are shown beside the same number of the paper; ours (`OURS`) stand beside none."""

OURS = ("best", "dq-exact", "vq-exact", "ttq-twn")
"""Methods that are nobody's but this package's: the profile; DQ and VQ by their exact optimum, which no other
choice of values can beat; TTQ from the start of ternary weight networks in place of ones."""

TRN_LEVELS = 27
"""The most of a weight in TRN, whose 12.5 are a mean over blocks with one, two or three ternary terms."""

INQ_LEVELS = {15: 17}
"""What the paper prints for INQ, and the values that INQ's code of 5 bits has."""

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
"""Of the training images: the calibration-size study (Fig. 2a). The paper prints no grid; chosen here."""

LEAST_OF_A_SHARE = 2
"""Images that a share stands for at least: batch normalization has no variance over one."""

ERROR_LEVELS = (3, 5, 7, 9)
"""Of Fig. 2c, whose points the paper does not describe; chosen here, so that output errors differ."""

Amount = int | float
"""Images: an int counts them, a float is the share of the training images."""


@dataclass(frozen=True, order=True, slots=True)
class PlannedCell:
    """Runs that differ in their seeds alone.

    Parameters
    ----------
    network, method : str
        Their names here; a method may end in `RETRAIN`.
    levels : int
        Of every quantized layer.
    images : int, float or None
        How many calibration images, an `Amount`; None stands for as many as the paper takes of the data set.
    keep_ends : bool, optional
        Whether the first and the last layer remain in full precision.
    """

    network: str
    method: str
    levels: int
    images: Amount | None = None
    keep_ends: bool = False


@dataclass(frozen=True, order=True, slots=True)
class PlannedRun:
    """One run, whichever exhibit asks for it.

    Parameters
    ----------
    network, method : str
        As in `PlannedCell`.
    levels, images, seed : int
        Of every quantized layer; calibration images; of all that is random.
    keep_ends : bool, optional
        As in `PlannedCell`.
    schedule : {'scaled', 'capped', 'published'}, optional
        Of all training and of the weights update: for few images; not longer for more of them (`CAPPED`); or,
        of the methods that train, as their authors have it.
    """

    network: str
    method: str
    levels: int
    images: int
    seed: int
    keep_ends: bool = False
    schedule: str = "scaled"

    @property
    def words(self) -> str:
        """The run in one line."""
        kept = ", ends kept" if self.keep_ends else ""
        how = f", {self.schedule}" if self.schedule != "scaled" else ""
        return (
            f"{self.network}, {self.method}, {self.levels} levels, {self.images} images{kept}{how}, "
            f"seed {self.seed}"
        )


def printed_name(method: str) -> str | None:
    """The paper's name of a method, None if the paper has no such method.

    Examples
    --------
    >>> printed_name("vq+retrain"), printed_name("vq"), printed_name("late")
    ('VQ', None, 'LAT')
    """
    names = {own: printed for printed, own in PRINTED.items()}
    return names.get(method) or ALSO.get(method)


def origin_of(method: str, levels: int) -> str:
    """Whose a method is: the paper's, under its name there; a variant of one of the paper's; or ours.

    Parameters
    ----------
    method : str
        Its name here.
    levels : int
        The paper's DQ is another one for 8, 16 and 32 levels, and its TRN has `TRN_LEVELS`.

    Examples
    --------
    >>> [origin_of(name, 3) for name in ("vq+retrain", "vq", "late", "vq-exact+retrain")]
    ["the paper's VQ", 'variant of VQ', 'variant of LAT', 'ours']
    >>> origin_of("dq-affine+retrain", 8), origin_of("dq-affine+retrain", 3)
    ("the paper's DQ", 'variant of DQ')
    >>> origin_of("trn", 27), origin_of("trn", 3)
    ("the paper's TRN", 'variant of TRN')
    """
    printed = _bare(method)
    if method.removesuffix(RETRAIN) in OURS or printed not in PRINTED:
        return "ours"
    own = AFFINE if printed == "DQ" and levels % 2 == 0 else PRINTED[printed]
    same = method == own and (printed != "TRN" or levels == TRN_LEVELS)
    return f"the paper's {printed}" if same else f"variant of {printed}"


def _bare(method: str) -> str:
    # The paper's name of a method, retrained or not, and of its variants; its own name if there is none.
    word = method.removesuffix(RETRAIN)
    return printed_name(word) or printed_name(word + RETRAIN) or word


def own_method(row: PaperRow) -> str:
    """The method that stands for a row of the paper."""
    return AFFINE if row.method == "DQ" and row.bits % 2 == 0 else PRINTED[row.method]


def paper_row(exhibit: str, cell: PlannedCell) -> PaperRow | None:
    """The row of the paper that a cell is shown beside, if there is one.

    Examples
    --------
    >>> paper_row("table1", PlannedCell("resnet20", "ldnq", 3)).change
    (-4.3,)
    >>> paper_row("table1", PlannedCell("resnet20", "ldnq", 5)) is None
    True
    >>> [paper_row("table1", PlannedCell("resnet20", "inq", levels)).bits for levels in (15, 17)]
    [15.0, 15.0]
    """
    printed = printed_name(cell.method)
    for row in table_rows(exhibit):
        same = (row.name, row.method, row.keep_ends) == (cell.network, printed, cell.keep_ends)
        if same and cell.levels in _levels_of(row):
            return row
    return None


def _levels_of(row: PaperRow) -> tuple[float, ...]:
    # The levels whose runs are shown beside a row.
    if row.method == "TRN":  # its number is a mean, which comes out of the run
        return (TRN_LEVELS,)
    if row.method == "INQ" and row.bits in INQ_LEVELS:
        return (row.bits, INQ_LEVELS[int(row.bits)])
    return (row.bits,)


def table_rows(exhibit: str) -> tuple[PaperRow, ...]:
    """The rows of a table; of Fig. 2a and 2b, those of the tables for the same network and methods."""
    if exhibit.startswith("table"):
        return tuple(row for row in paper().rows if row.table == int(exhibit.removeprefix("table")))
    figure = next(figure for figure in paper().figures if figure.name == exhibit)
    table = {"cifar10": 1, "imagenet": 2}[figure.data]
    found: dict[str, PaperRow] = {}
    for row in paper().rows:
        if row.table == table and row.network == figure.network and row.method in figure.methods:
            found.setdefault(row.method, row)
    return tuple(found.values())


def networks_of(exhibit: str) -> tuple[str, ...]:
    """The networks of an exhibit, by their names here.

    Examples
    --------
    >>> networks_of("table3"), networks_of("fig2a")
    (('resnet18', 'resnet34', 'resnet50'), ('resnet20',))
    """
    check_choice("exhibit", exhibit, EXHIBITS)
    return tuple(dict.fromkeys(row.name for row in table_rows(exhibit)))


def cells_of(
    exhibit: str,
    *,
    networks: Sequence[str] = (),
    methods: Sequence[str] = (),
    levels: Sequence[int] = (),
    images: Sequence[Amount] = (),
    keep_ends: bool = False,
) -> tuple[PlannedCell, ...]:
    """The cells of a table or a figure.

    Parameters
    ----------
    exhibit : str
        One of `EXHIBITS`.
    networks : sequence of str, optional
        In place of the paper's. One that the exhibit does not have gets the methods and levels of all.
    methods : sequence of str, optional
        In place of the paper's; one that the exhibit does not have gets L-DNQ's levels, TRN `TRN_LEVELS`.
    levels : sequence of int, optional
        In place of every method's own.
    images : sequence of Amount, optional
        In place of the paper's.
    keep_ends : bool, optional
        Whether the first and the last layer of every network remain in full precision.

    Returns
    -------
    tuple of PlannedCell
        Without repetition.

    Raises
    ------
    ValueError
        If there is no such exhibit, or a number is out of range.

    Examples
    --------
    >>> [(cell.method, cell.levels) for cell in cells_of("table4", networks=["cnn-digits"])]
    [('ldnq-', 3), ('ldnq', 3)]
    >>> [cell.levels for cell in cells_of("table3", networks=["resnet20"], methods=["best"])]
    [3, 5, 7, 9]
    """
    check_choice("exhibit", exhibit, EXHIBITS)
    for number in levels:
        check_integer("levels", number, at_least=2)
    amounts: tuple[Amount | None, ...] = tuple(images)
    if not amounts:
        amounts = SHARES if exhibit in ("fig2a", "fig2b") else (None,)
    found: list[PlannedCell] = []
    for network in networks or networks_of(exhibit):
        for method, count, ends in _shape(exhibit, network, methods):
            for number in levels or (count,):
                found += [PlannedCell(network, method, number, one, ends or keep_ends) for one in amounts]
    return tuple(dict.fromkeys(found))


def _shape(exhibit: str, network: str, methods: Sequence[str]) -> list[tuple[str, int, bool]]:
    # Method, levels and whether the ends are kept, as the paper has them for this network or for all.
    if exhibit == "fig2c":
        return [
            (name, count, False)
            for name in methods or ("ldnq-", "ldnq")
            for count in ((TRN_LEVELS,) if _bare(name) == "TRN" else ERROR_LEVELS)
        ]
    rows = table_rows(exhibit)
    own = [row for row in rows if row.name == network]
    shape = [
        (own_method(row), TRN_LEVELS if row.method == "TRN" else int(row.bits), bool(own) and row.keep_ends)
        for row in own or rows
    ]
    if methods:
        usual = [place for place in shape if place[0] == PRINTED["L-DNQ"]]
        shape = [
            place
            for name in methods
            for place in (
                [place for place in shape if place[0] == name]
                or [place for place in shape if _bare(place[0]) == _bare(name)]
                or [(name, TRN_LEVELS if _bare(name) == "TRN" else place[1], place[2]) for place in usual]
            )
            for place in [(name, *place[1:])]
        ]
    return list(dict.fromkeys(shape))


def count_of(amount: Amount, total: int) -> int:
    """A number of images; a share stands for `LEAST_OF_A_SHARE` at least.

    Raises
    ------
    ValueError
        If it is not in 1..total.

    Examples
    --------
    >>> count_of(0.001, 9990), count_of(500, 9990)
    (10, 500)
    """
    count = amount if isinstance(amount, int) else max(LEAST_OF_A_SHARE, round(amount * total))
    if not 1 <= count <= total:
        raise ValueError(f"`images` must be at least 1 and at most the {total} that are there, got {count}.")
    return count


def runs_of(cell: PlannedCell, images: int, seeds: Sequence[int], schedule: str) -> tuple[PlannedRun, ...]:
    """The runs of a cell, whose number of images is known now.

    Examples
    --------
    >>> [run.seed for run in runs_of(PlannedCell("resnet20", "ldnq", 3), 500, [0, 1], "scaled")]
    [0, 1]
    """
    own = {**asdict(cell), "images": images}
    return tuple(PlannedRun(**own, seed=seed, schedule=schedule) for seed in seeds)
