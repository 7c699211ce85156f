"""Options that the experiments have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from store import RESULTS

Command = Callable[..., Any]


def stored(name: str) -> Callable[[Command], Command]:
    """``--data``, ``--store`` and ``--markdown`` of an experiment whose rows are ``results/<name>.json``."""

    def decorate(command: Command) -> Command:
        for option in reversed(_options(name)):
            command = option(command)
        return command

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
