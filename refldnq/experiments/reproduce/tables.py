"""An exhibit as text: tables for terminals and Markdown, CSV, JSON."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from refldnq.experiments.record import plain
from refldnq.experiments.reproduce.correlation import RankCorrelation, rank_correlation
from refldnq.experiments.reproduce.paper import PaperRow, paper
from refldnq.experiments.reproduce.plan import INQ_LEVELS, networks_of
from refldnq.experiments.reproduce.summary import Entry, Mean
from refldnq.experiments.run import wilson
from refldnq.tables import markdown_table

TITLES = {
    "table1": "Table 1: comparison of methods (the paper: CIFAR-10)",
    "table2": "Table 2: comparison of methods (the paper: ImageNet)",
    "table3": "Table 3: L-DNQ by number of levels",
    "table4": "Table 4: L-DNQ⁻ and L-DNQ",
    "fig2a": "Figure 2(a): by number of calibration images (the paper: ResNet-20 on CIFAR-10)",
    "fig2b": "Figure 2(b): by number of calibration images (the paper: ResNet-18 on ImageNet)",
    "fig2c": "Figure 2(c): test error against output error",
}

COMMON = ("network", "method", "origin", "levels", "images")

OURS = ("n", "labels", "before, %", "after, %", "change", "±")

PAPERS = ("paper: before, %", "paper: change")
"""Columns that are left out where the paper has no number for any row."""

HEADINGS = {
    "table": (*COMMON, *OURS, *PAPERS),
    "fig2a": (*COMMON, "share", *OURS),
    "fig2b": (*COMMON, "share", *OURS),
    "fig2c": (*COMMON, "n", "labels", "output error", "its ±", "test error, %", "±"),
}
"""Columns, by the kind of exhibit."""

_ROWS = (
    "origin: the paper's method, with its name there; a variant of one, in another published form or with "
    "another training; or ours; n runs that differ in their seeds; "
)

_LABELS = "labels: whether labels of the calibration images had an influence; "

_INTERVAL = "in brackets Wilson's 95 % interval, over the test images, of the mean"

_CHANGE = (
    f"{_LABELS}after: {_INTERVAL}; change: accuracy on the test images, after minus before, in percentage "
    "points; ±: standard error of the mean over the runs, 0 where the seed has no influence."
)

LEGENDS = {
    "table": _ROWS + _CHANGE,
    "fig2a": f"{_ROWS}share: of the training images; {_CHANGE}",
    "fig2b": f"{_ROWS}share: of the training images; {_CHANGE}",
    "fig2c": f"{_ROWS}{_LABELS}output error: squared difference from the outputs of the network before, "
    f"relative to their squared norm, on the test images; test error: {_INTERVAL}; ±: standard error of the "
    "mean over the runs.",
}
"""What the columns mean, by the kind of exhibit."""

_PARTS = ("mean", "sd", "se")

CSV_FIELDS = (
    "exhibit",
    *COMMON,
    "keep_ends",
    "schedule",
    "settings",
    "n",
    "seeds",
    "labels_used",
    *(
        f"{name}_{part}"
        for name in (
            *(f"{name}{guesses}" for guesses in ("", "_top5") for name in ("before", "after", "change")),
            *("output_error", "seconds"),
        )
        for part in _PARTS
    ),
    "steps",
    "epochs",
    "image_passes",
    "mean_levels",
    "train_images",
    "test_images",
    "after_low",
    "after_high",
    "layers_skipped",
    "paper_bits",
    "paper_change",
    "paper_change_top5",
    "paper_before",
    "paper_before_top5",
    "notes",
)


def kind_of(exhibit: str) -> str:
    """Key of `HEADINGS`."""
    return "table" if exhibit.startswith("table") else exhibit


def table_of(
    exhibit: str, entries: Sequence[Entry], totals: Mapping[str, int] | None = None
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings and cells of an exhibit.

    Parameters
    ----------
    exhibit : str
        Which.
    entries : sequence of Entry
        Its entries.
    totals : mapping of str to int, optional
        Training images by network, for the column of shares; of other networks what the runs tell.

    Returns
    -------
    headings : tuple of str
        A last one, ``settings``, if entries differ in them alone.
    rows : list of tuple of str
        Of tables all entries, with the paper's numbers where nothing was run; of figures those with runs.
    """
    kind = kind_of(exhibit)
    printed = any(entry.paper for entry in entries)
    headings = tuple(name for name in HEADINGS[kind] if printed or name not in PAPERS)
    done = [entry for entry in entries if entry.n]
    several = len({entry.cell for entry in done}) < len(done)
    rows = []
    for entry in entries if kind == "table" else done:
        cells = _cells(entry, kind, totals or {})
        rows.append((*(cells[heading] for heading in headings), *([entry.group] if several else [])))
    return (*headings, *(["settings"] if several else [])), rows


def notes_of(entries: Sequence[Entry]) -> list[str]:
    """Why runs are missing, equal reasons of a network in one line.

    Examples
    --------
    >>> from refldnq.experiments.reproduce.plan import PlannedCell
    >>> cells = [PlannedCell("wrn", "ldnq", 3), PlannedCell("wrn", "vq", 3)]
    >>> notes_of([Entry(cell=cell, values={}, facts={}, notes=("needs weights",)) for cell in cells])
    ['wrn: ldnq, vq: needs weights']
    """
    reasons: dict[tuple[str, str], list[str]] = {}
    for entry in entries:
        for note in entry.notes:
            reasons.setdefault((entry.cell.network, note), []).append(entry.cell.method)
    return [
        f"{network}: {', '.join(dict.fromkeys(methods))}: {note}"
        for (network, note), methods in reasons.items()
    ]


@dataclass(frozen=True, slots=True)
class ErrorPoint:
    """A run of Fig. 2c.

    Parameters
    ----------
    x, y : float
        Output error; test error in percent.
    low, high : float
        Wilson's 95 % interval of `y`, over the test images.
    """

    x: float
    y: float
    low: float
    high: float


def points_of(entries: Sequence[Entry]) -> list[ErrorPoint]:
    """Every finished run that has an output error."""
    points = []
    for entry in entries:
        for row in entry.runs:
            result = row.result or {}
            if result.get("output_error") is not None:
                right, total = result["correct_after"], result["total"]
                low, high = wilson(total - right, total)
                points.append(ErrorPoint(float(result["output_error"]), 100 - 100 * right / total, low, high))
    return points


def correlations(entries: Sequence[Entry]) -> dict[str, RankCorrelation]:
    """The rank correlation of output and test error, by network; an entry's runs are drawn together."""
    found = {}
    for network in dict.fromkeys(entry.cell.network for entry in entries):
        points = [points_of([entry]) for entry in entries if entry.cell.network == network]
        x, y = ([getattr(point, axis) for one in points for point in one] for axis in ("x", "y"))
        groups = [number for number, one in enumerate(points) for _ in one]
        if len(x) > 1:
            found[network] = rank_correlation(x, y, np.random.default_rng(0), groups=groups)
    return found


def correlation_words(found: RankCorrelation) -> str:
    """A correlation in words.

    Examples
    --------
    >>> from dataclasses import replace
    >>> one = RankCorrelation(value=0.9, low=0.8, high=0.95, confidence=0.95, n=8, groups=8, resamples=10)
    >>> correlation_words(one)
    'Spearman rank correlation 0.900, 95 % bootstrap interval 0.800 to 0.950, 8 runs'
    >>> correlation_words(replace(one, value=1.0, low=1.0, high=1.0))[-50:]
    '8 runs; in one order, no resample has a lesser one'
    >>> correlation_words(replace(one, groups=4)).partition("0.950, ")[2]
    '8 runs of 4 settings, drawn by settings'
    """
    if math.isnan(found.value):
        return f"no rank correlation: one of the errors is the same in all {found.n} runs"
    runs = f"{found.n} runs"
    if found.groups < found.n:
        runs += f" of {found.groups} settings, drawn by settings"
    if found.low == found.high:  # an interval without width would claim certainty
        runs += "; in one order, no resample has a lesser one"
    return (
        f"Spearman rank correlation {found.value:.3f}, {100 * found.confidence:.0f} % bootstrap interval "
        f"{found.low:.3f} to {found.high:.3f}, {runs}"
    )


def lines_of(exhibit: str, entries: Sequence[Entry]) -> list[str]:
    """What is said below a table: where its numbers come from, correlations, what is missing."""
    lines = []
    if exhibit == "fig2c":
        lines += [f"{network}: {correlation_words(one)}." for network, one in correlations(entries).items()]
    if any(entry.paper for entry in entries):
        runs = paper().runs
        lines.append(
            f"The paper's numbers are means of {runs} runs, its own networks; it gives no deviation."
        )
    rises = [entry.paper for entry in entries if entry.paper and max(entry.paper.change) > 0]
    if rises:
        names = ", ".join(dict.fromkeys(f"{row.name}, {row.method}" for row in rises))
        lines.append(
            f"{names}: the top-5 change has the sign that the paper prints, where a minus is missing."
        )
    inq = next((one for one in entries if one.paper and one.paper.method == "INQ"), None)
    if inq is not None and inq.paper is not None:
        bits = int(inq.paper.bits)
        lines.append(f"INQ: the paper prints {bits} levels; a code of 5 bits has {INQ_LEVELS[bits]} values.")
    strange = [
        name
        for name in dict.fromkeys(entry.cell.network for entry in entries)
        if name not in networks_of(exhibit)
    ]
    if strange:
        lines.append(f"Not among the networks that the paper has here: {', '.join(strange)}.")
    figure = next((one for one in paper().figures if one.name == exhibit), None)
    if figure is not None:
        lines.append(f"The paper prints no number; it says: “{figure.says}”")
    return [*lines, *schedule_lines(entries), *settings_lines(entries), *notes_of(entries)]


def schedule_lines(entries: Sequence[Entry]) -> list[str]:
    """Which entries have another schedule than ``scaled``, a line a schedule."""
    lines = []
    for schedule in dict.fromkeys(entry.schedule for entry in entries if entry.schedule):
        own = [entry.cell for entry in entries if entry.schedule == schedule]
        if schedule != "scaled":
            methods = ", ".join(dict.fromkeys(cell.method for cell in own))
            counts = ", ".join(str(count) for count in dict.fromkeys(cell.images for cell in own))
            lines.append(f"The schedule {schedule}, not scaled: {methods} with {counts} images.")
    return lines


def settings_lines(entries: Sequence[Entry], most: int = 4) -> list[str]:
    """How entries of one cell differ, a line an entry, with the `most` first of the settings that differ."""
    lines: dict[str, None] = {}
    cells: dict[Any, list[Entry]] = {}
    for entry in entries:
        if entry.runs:
            cells.setdefault(entry.cell, []).append(entry)
    for own in cells.values():
        flat = [dict(_flat(entry.runs[0].identity)) for entry in own]
        names = dict.fromkeys(name for one in flat for name in one)
        differ = [
            name for name in names if len({one.get(name) for one in flat}) > 1 and name != "request.seed"
        ]
        for entry, one in zip(own, flat, strict=True) if len(own) > 1 else ():
            words = [f"{name} = {one.get(name, 'nothing')}" for name in differ[:most]]
            more = f" and {len(differ) - most} more" if len(differ) > most else ""
            lines[f"settings {entry.group}: {', '.join(words)}{more}"] = None
    return list(lines)


def _flat(values: Any, name: str = "") -> Iterator[tuple[str, str]]:
    # Nested settings as names with dots, and words; of a hash what tells it from others.
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from _flat(value, f"{name}.{key}" if name else str(key))
    else:
        text = str(values)
        yield name, text[:8] if len(text) == 64 else text


def markdown_of(exhibit: str, entries: Sequence[Entry], totals: Mapping[str, int] | None = None) -> str:
    """The exhibit as Markdown: title, table, what there is to say."""
    headings, rows = table_of(exhibit, entries, totals)
    body = markdown_table(headings, rows) if rows else "No run is there."
    below = "\n".join(f"- {line}" for line in lines_of(exhibit, entries))
    return "\n\n".join(
        part for part in (f"**{TITLES[exhibit]}**", body, LEGENDS[kind_of(exhibit)], below) if part
    )


def csv_of(exhibit: str, entries: Sequence[Entry]) -> str:
    """The exhibit as CSV with all digits: an entry a line, `CSV_FIELDS` the columns."""
    file = io.StringIO()
    writer = csv.DictWriter(file, CSV_FIELDS, lineterminator="\n")
    writer.writeheader()
    for entry in entries:
        writer.writerow(_record(exhibit, entry))
    return file.getvalue()


def json_of(exhibit: str, entries: Sequence[Entry]) -> dict[str, Any]:
    """The exhibit as JSON values: entries, with their runs whole, and of Fig. 2c the correlations."""
    record: dict[str, Any] = {
        "exhibit": exhibit,
        "source": paper().source,
        "entries": [_entry_json(entry) for entry in entries],
    }
    if exhibit == "fig2c":
        record["correlations"] = plain(correlations(entries))
    return record


def _entry_json(entry: Entry) -> dict[str, Any]:
    return {
        **plain(entry.cell),
        "origin": entry.origin,
        "n": entry.n,
        "schedule": entry.schedule,
        "settings": entry.group,
        "labels_used": entry.labels_used,
        **plain(entry.values),
        **plain(entry.facts),
        "paper": plain(entry.paper),
        "notes": list(entry.notes),
        "runs": [
            {**plain(row.run), "id": row.id, "ended": row.ended, **plain(row.result)} for row in entry.runs
        ],
    }


def _cells(entry: Entry, kind: str, totals: Mapping[str, int]) -> dict[str, str]:
    cell, values, printed = entry.cell, entry.values, entry.paper
    amount = cell.images
    total = totals.get(cell.network) or entry.facts.get("train_total")
    share = f"{100 * amount / total:.2g} %" if isinstance(amount, int) and total else ""
    both = printed is not None and len(printed.change) > 1 and "change_top5" in values

    def number(name: str, write: Callable[[Mean | None], str]) -> str:
        # Top-1, and top-5 behind it where the paper has both.
        return write(values.get(name)) + (f"/{write(values[f'{name}_top5'])}" if both else "")

    top1 = values.get("after")
    low, high = entry.facts["interval"] if top1 else (0.0, 0.0)
    around = f" ({low:.1f} to {high:.1f})" if top1 else ""
    cells = {
        "network": cell.network + (" (ends kept)" if cell.keep_ends else ""),
        "method": cell.method,
        "origin": entry.origin,
        "levels": _levels(entry),
        "images": "" if amount is None else str(amount) if isinstance(amount, int) else f"{100 * amount:g} %",
        "share": share,
        "n": str(entry.n) if entry.n else "",
        "labels": {None: "", True: "yes", False: "no"}[entry.labels_used],
        "before, %": number("before", _number),
        "after, %": number("after", lambda one: _number(one) + (around if one is top1 else "")),
        "change": number("change", _signed),
        "±": number("change", _error),
        "paper: before, %": "/".join(f"{one:.2f}" for one in printed.full) if printed else "",
        "paper: change": _paper_change(printed) if printed else "",
    }
    if kind == "fig2c":
        cells["output error"] = _number(values.get("output_error"), digits=4)
        cells["its ±"] = _error(values.get("output_error"), digits=4)
        error = "" if top1 is None else f"{100 - top1.mean:.2f} ({100 - high:.1f} to {100 - low:.1f})"
        cells["test error, %"] = error
    return cells


def _levels(entry: Entry) -> str:
    # With the mean behind it where weights can take another number of values: TRN's blocks differ.
    mean = entry.facts.get("mean_levels")
    asked = str(entry.cell.levels)
    found = asked if mean is None else f"{mean:.3g}"
    return asked if found == asked else f"{asked} (mean {found})"


def _signed(value: Mean | None) -> str:
    return "" if value is None else f"{value.mean:+.2f}"


def _number(value: Mean | None, digits: int = 2) -> str:
    return "" if value is None else f"{value.mean:.{digits}f}"


def _error(value: Mean | None, digits: int = 2) -> str:
    return "" if value is None or value.error is None else f"{value.error:.{digits}f}"


def _paper_change(row: PaperRow) -> str:
    about = "≈ " if row.about else ""
    return about + "/".join(f"{one:+.2f}" for one in row.change)


def _record(exhibit: str, entry: Entry) -> dict[str, Any]:
    cell, printed = entry.cell, entry.paper
    record: dict[str, Any] = {
        "exhibit": exhibit,
        **plain(cell),
        "origin": entry.origin,
        "schedule": entry.schedule,
        "settings": entry.group,
        "n": entry.n,
        "seeds": " ".join(str(row.run.seed) for row in entry.runs),
        "labels_used": entry.labels_used,
        **{name: entry.facts.get(name) for name in ("steps", "epochs", "image_passes", "mean_levels")},
        "train_images": entry.facts.get("train_total"),
        "test_images": entry.facts.get("total"),
        **dict(zip(("after_low", "after_high"), entry.facts.get("interval") or (), strict=False)),
        "layers_skipped": " ".join(entry.facts.get("skipped") or ()),
        "notes": "; ".join(entry.notes),
    }
    for name, mean in entry.values.items():
        record |= dict(
            zip((f"{name}_{part}" for part in _PARTS), (mean.mean, mean.sd, mean.error), strict=True)
        )
    if printed is not None:
        record["paper_bits"] = printed.bits
        for field, numbers in (("change", printed.change), ("before", printed.full)):
            record |= dict(zip((f"paper_{field}", f"paper_{field}_top5"), numbers, strict=False))
    return record
