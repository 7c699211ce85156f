"""What the commands of the experiments have in common: where rows are kept, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click
from store import RESULTS, Store, write_section

Command = Callable[..., Any]


def stored(
    name: str, markdown: Callable[[list[dict[str, Any]]], str], *, needs_data: bool = True
) -> Callable[[Command], Command]:
    """``--data``, ``--store`` and ``--markdown`` of an experiment whose rows are ``results/<name>.json``.

    The command gets its `store` and `data`, None if not given and not needed; with ``--markdown`` it is not
    called, and the section `name` of the file becomes what `markdown` makes of the rows. What the command
    refuses is one line.
    """

    def decorate(command: Command) -> Command:
        @wraps(command)
        def run(data: Path | None, store_file: Path, markdown_file: Path | None, **own: Any) -> None:
            store = Store(store_file)
            try:
                if markdown_file is not None:
                    write_section(markdown_file, name, markdown(store.rows()))
                    return
                if data is None and needs_data:
                    raise ValueError("`--data` must be given, got nothing.")
                command(store=store, data=data, **own)
            except (ValueError, OSError, ImportError) as refusal:
                raise click.ClickException(str(refusal)) from refusal

        decorated: Command = run
        for option in reversed(_options(name)):
            decorated = option(decorated)
        return decorated

    return decorate


def _options(name: str) -> list[Callable[[Command], Command]]:
    return [
        click.option(
            "--data",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            metavar="DIR",
            help="Holds cifar-10-batches-bin/ and weights/.",
        ),
        click.option(
            "--store",
            "store_file",
            type=click.Path(dir_okay=False, path_type=Path),
            default=RESULTS / f"{name}.json",
            metavar="FILE",
            help=f"Where the rows are kept.  [default: benchmarks/results/{name}.json]",
        ),
        click.option(
            "--markdown",
            "markdown_file",
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE",
            help="Run nothing; write the table of all stored rows into FILE, in place of the old one.",
        ),
    ]
