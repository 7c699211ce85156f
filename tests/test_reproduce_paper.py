"""The paper's numbers as data, against the paper's text; which runs an exhibit needs."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from refldnq.cli.reproduce import EXHIBITS as OFFERED
from refldnq.experiments.reproduce.paper import FILE, PaperRow, paper
from refldnq.experiments.reproduce.plan import (
    AFFINE,
    EXHIBITS,
    SHARES,
    PlannedCell,
    cells_of,
    count_of,
    networks_of,
    own_method,
    paper_row,
    table_rows,
)

REGIONS = {
    1: ("Network\tMethod\tbits\tImp*", "Table 1:"),
    2: ("Network\tMethod\tbits\tImprovement", "Table 2:"),
    3: ("Network\t3-bit", "Table 3:"),
    4: ("Dataset\tNetwork", "Table 4:"),
}
"""Where each table begins and ends in the text."""

CHANGE = re.compile(r"(?:≈ )?-\d+(?:\.\d+)?(?:/-?\d+(?:\.\d+)?)?")
FULL = re.compile(r"\d\d\.\d+(?:/\d\d\.\d+)?")

NOT_FULL = {"12.5", "30.34/00.00"}
"""Bits; and what the text at hand makes of the 58.34/80.80 in the line above."""


@pytest.fixture(scope="module")
def text(data_dir: Path) -> str:
    file = data_dir.parent / "paper" / "ldnq.txt"
    if not file.is_file():
        pytest.skip(f"needs the paper's text: `{file}` is no file")
    return file.read_text("utf-8")


def numbers(cell: str) -> tuple[float, ...]:
    return tuple(float(part) for part in cell.removeprefix("≈ ").split("/"))


def lines_of(text: str, table: int) -> list[list[str]]:
    opening, closing = REGIONS[table]
    body = text[text.index(opening) : text.index(closing)]
    return [[cell.strip() for cell in line.split("\t")] for line in body.splitlines()[1:]]


def differences(text: str, rows: tuple[PaperRow, ...]) -> list[str]:
    """Where the rows are not what the text's tables say, number by number in order."""
    wrong = []
    for table in REGIONS:
        lines = lines_of(text, table)
        own = [row for row in rows if row.table == table]
        printed = [numbers(cell) for cells in lines for cell in cells if CHANGE.fullmatch(cell)]
        if printed != [row.change for row in own]:
            wrong.append(f"table {table}: changes")
        every = [cell for cells in lines for cell in cells if FULL.fullmatch(cell)]
        full = [numbers(cell) for cell in every if cell not in NOT_FULL]
        stated = [row.full for row in own if row.full and "full" not in row.spread]
        if table == 3:  # a line there is four rows here
            full = [one for one in full for _ in range(4)]
        if full != stated:
            wrong.append(f"table {table}: full precision")
        if table != 3:
            places = [cells for cells in lines if any(CHANGE.fullmatch(cell) for cell in cells)]
            for cells, row in zip(places, own, strict=True):
                if "bits" not in row.spread and f"{row.bits:g}" not in cells:
                    wrong.append(f"table {table}: bits of {row.network}, {row.method}")
                known = {cell.replace("L-DNO", "L-DNQ") for cell in cells} & {one.method for one in rows}
                if known and row.method not in known:
                    wrong.append(f"table {table}: {row.network} has {known}, not {row.method}")
        else:
            heads = [cells[0] for cells in lines for cell in cells if CHANGE.fullmatch(cell)]
            if heads != [row.network for row in own]:
                wrong.append("table 3: networks")
    return wrong


def test_the_rows_are_the_papers(text: str) -> None:
    assert differences(text, paper().rows) == []


@pytest.mark.parametrize("index", [0, 5, 20, 28, 38, 47, 50, 60, 63])
def test_a_wrong_number_is_found(text: str, index: int) -> None:
    rows = paper().rows
    row = rows[index]
    planted = [replace(row, change=(row.change[0] - 0.01, *row.change[1:]))]
    if row.table != 3:  # whose rows have no method
        planted.append(replace(row, method="Prayer"))
    if row.full and "full" not in row.spread:
        planted.append(replace(row, full=(row.full[0] + 1, *row.full[1:])))
    for wrong in planted:
        assert differences(text, (*rows[:index], wrong, *rows[index + 1 :])) != []


def test_cells_that_span_rows_agree_with_their_neighbours() -> None:
    for first, second in zip(paper().rows, paper().rows[1:], strict=False):
        if "full" in second.spread and "full" in first.spread and first.network == second.network:
            assert first.full == second.full
    # What two tables say of one thing; ResNet34's second sign is missing in Table 2.
    rows = {(row.table, row.network, row.method, row.bits): row for row in paper().rows}
    assert rows[2, "ResNet18", "L-DNQ", 3].change == rows[3, "ResNet18", "L-DNQ", 3].change
    assert rows[2, "ResNet18", "L-DNQ", 9].change == rows[3, "ResNet18", "L-DNQ", 9].change
    assert rows[1, "ResNet20", "L-DNQ", 3].change == rows[4, "ResNet20", "L-DNQ", 3].change
    assert rows[2, "AlexNet¹", "L-DNQ", 3].change == rows[4, "AlexNet", "L-DNQ", 3].change
    assert rows[2, "ResNet34", "L-DNQ", 3].change[1] == -rows[3, "ResNet34", "L-DNQ", 3].change[1]


def test_figures_are_quoted(text: str) -> None:
    squeezed = re.sub(r"\s+", " ", text).replace("Fig.(a)/(b): ", "").replace("Fig.(c): ", "")
    for figure in paper().figures:
        assert figure.caption in squeezed and figure.says in squeezed
        assert figure.name in EXHIBITS
    assert "experiments are conducted 5 times" in squeezed and paper().runs == 5
    assert "500 training instances in CIFAR-10 and 12,800 in ImageNet" in squeezed
    assert paper().images == {"cifar10": 500, "imagenet": 12800}


def test_the_file_is_plain_and_installed() -> None:
    assert FILE.suffix == ".toml" and FILE.parent.name == "reproduce"
    setup = (FILE.parents[3] / "setup.py").read_text("utf-8")
    assert '"experiments/reproduce/*.toml"' in setup


# ------------------------------------------------------------------ plans


def test_the_command_knows_the_exhibits() -> None:
    assert OFFERED == EXHIBITS


@pytest.mark.parametrize("exhibit", ["table1", "table2", "table3", "table4"])
def test_every_row_of_a_table_has_a_cell_that_is_shown_beside_it(exhibit: str) -> None:
    cells = cells_of(exhibit)
    rows = table_rows(exhibit)
    assert [paper_row(exhibit, cell) for cell in cells] == list(rows)
    assert [(cell.network, cell.method) for cell in cells] == [(row.name, own_method(row)) for row in rows]
    assert all(cell.images is None for cell in cells)


def test_networks_have_names_that_can_be_built() -> None:
    assert networks_of("table1") == (
        *("resnet20", "resnet32", "resnet56"),
        *("cifarnet", "vgg-distilquant", "wrn28-20"),
    )
    assert networks_of("fig2b") == networks_of("fig2c") == ("resnet18",)


def test_plans() -> None:
    table2 = cells_of("table2", networks=["resnet18"])
    assert [cell.levels for cell in table2 if cell.method == AFFINE] == [8, 16, 32]
    assert {cell.keep_ends for cell in cells_of("table2", networks=["alexnet-bn"])} == {True, False}
    assert all(cell.keep_ends for cell in cells_of("table4", keep_ends=True))
    # A network that the paper does not have gets what the table has of all networks, once.
    small = cells_of("table1", networks=["cnn-digits"])
    assert [(cell.method, cell.levels) for cell in small] == [
        ("ttq", 3), ("inq", 15), ("exnn", 3), ("vq+retrain", 3), ("dq+retrain", 3), ("ldnq", 3), ("lata", 3),
        ("distilquant", 3),
    ]  # fmt: skip
    # Methods that a table does not have go by their kin's levels, or by those of L-DNQ.
    chosen = cells_of("table1", networks=["resnet20"], methods=["vq", "best", "inq", "late"])
    assert [(cell.method, cell.levels) for cell in chosen] == [
        ("vq", 3), ("best", 3), ("inq", 15), ("late", 3),
    ]  # fmt: skip
    several = cells_of("table1", networks=["resnet20"], methods=["inq"], levels=[15, 17])
    assert [cell.levels for cell in several] == [15, 17]
    assert [cell.levels for cell in cells_of("table3", networks=["resnet20"])] == [3, 5, 7, 9]
    study = cells_of("fig2a")
    assert {cell.images for cell in study} == set(SHARES) and min(SHARES) == 0.001 and max(SHARES) == 0.2
    assert list(dict.fromkeys(cell.method for cell in study)) == [
        "ttq", "inq", "exnn", "vq+retrain", "dq+retrain", "ldnq",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="`exhibit`"):
        cells_of("table5")
    with pytest.raises(ValueError, match="`levels`"):
        cells_of("table1", levels=[1])
    with pytest.raises(ValueError, match="`images` must be at least 1 and at most the 9990"):
        count_of(9991, 9990)
    assert paper_row("table2", PlannedCell("alexnet-bn", "trn", 27)) is not None
    # TRN has its own levels wherever it is run.
    for exhibit in ("table1", "table3", "table4", "fig2a", "fig2c"):
        added = cells_of(exhibit, networks=["cnn-digits"], methods=["ldnq", "trn", "trn+retrain"])
        assert {cell.levels for cell in added if cell.method.startswith("trn")} == {27}, exhibit
