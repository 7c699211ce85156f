"""Where a command's words go: tables and progress for terminals, plain lines elsewhere, JSON into a file."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from refldnq.experiments.run import Event
    from refldnq.layer_report import LayerReport


def write_json(file: Path | None, content: Any) -> None:
    """Write `content` to `file`, at once and whole; to standard output for ``-``; nowhere for None."""
    if file is None:
        return
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    if file == Path("-"):
        click.echo(text, nl=False)
        return
    from refldnq.formats.atomic import atomic_path

    with atomic_path(file) as temporary:
        temporary.write_text(text, encoding="utf-8")


def say(text: str, json_file: Path | None = None) -> None:
    """Print lines; to standard error where the JSON has standard output."""
    click.echo(text, err=json_file == Path("-"))


def say_table(columns: Sequence[str], rows: Sequence[Sequence[str]], json_file: Path | None = None) -> None:
    """Print a table."""
    from rich.console import Console

    from refldnq.tables import rich_table, text_table

    console = Console(stderr=json_file == Path("-"))
    if console.is_terminal:
        console.print(rich_table(columns, rows))
    else:
        say(text_table(columns, rows), json_file)


def say_layers(reports: Sequence[LayerReport], json_file: Path | None = None) -> None:
    """Print the table of the layers."""
    from refldnq.experiments.report import columns, layer_row

    headings = columns(reports)
    say_table(headings, [layer_row(report, headings) for report in reports], json_file)


@contextmanager
def progress() -> Iterator[Callable[[Event], None]]:
    """A function that shows events on standard error: a bar with the time left on a terminal, or lines."""
    if sys.stderr.isatty():
        with _bar() as tell:
            yield tell
    else:
        began, clock = time.monotonic(), Clock()
        yield lambda event: _line(event, time.monotonic() - began, clock)


class Clock:
    """How long a whole run takes, by what of it is done; what a checkpoint has brought took no time."""

    def __init__(self) -> None:
        self.fraction = self.elapsed = 0.0

    def expected(self, event: Event, elapsed: float) -> float | None:
        """Seconds from the start to the end; None as long as nobody can tell."""
        if event.restored:
            self.fraction, self.elapsed = event.fraction, elapsed
        done, all_of_it = event.fraction - self.fraction, 1 - self.fraction
        # Before a tenth of the work is done, what kernels take to compile would rule the estimate.
        if done <= 0 or done < 0.1 * all_of_it:
            return None
        return self.elapsed + (elapsed - self.elapsed) * all_of_it / done


def _line(event: Event, elapsed: float, clock: Clock) -> None:
    expected = clock.expected(event, elapsed)
    left = f", about {expected - elapsed:.0f} s left" if expected is not None and event.fraction < 1 else ""
    click.echo(f"[{100 * event.fraction:3.0f} %] {event.message} ({elapsed:.0f} s{left})", err=True)


@contextmanager
def _bar() -> Iterator[Callable[[Event], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskProgressColumn, TextColumn
    from rich.text import Text

    class TimeLeft(ProgressColumn):
        # Layers come minutes apart: the estimate is made at each one and counted down between them.
        def render(self, task: Task) -> Text:
            expected = task.fields["expected"]
            if task.elapsed is None or expected is None:
                return Text("")
            left = max(0.0, expected - task.elapsed)
            return Text(f"{int(left) // 60}:{int(left) % 60:02d} left")

    columns = (BarColumn(), TaskProgressColumn(), TimeLeft(), TextColumn("{task.description}"))
    clock = Clock()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=1.0, expected=None)

        def tell(event: Event) -> None:
            expected = clock.expected(event, bar.tasks[0].elapsed or 0.0)
            bar.update(task, completed=event.fraction, description=event.message, expected=expected)

        yield tell
