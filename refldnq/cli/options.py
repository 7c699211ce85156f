"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Command = Callable[..., Any]


def in_a_folder(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """Refuse a file to write whose folder does not exist: before the work, not after it.

    Raises
    ------
    click.BadParameter
        If there is no such folder.
    """
    if path is not None and not path.parent.is_dir():
        raise click.BadParameter(f"the folder {str(path.parent)!r} does not exist.")
    return path


model_argument = click.argument(
    "model_file", metavar="MODEL.h5", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)

json_option = click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path, allow_dash=True),
    metavar="FILE",
    callback=in_a_folder,
    help="Write the results as JSON; - means standard output, and everything else goes to standard error.",
)

dtype_option = click.option(
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    default="float32",
    show_default=True,
    help="Arithmetic of the network; solvers always run in float64.",
)


def output_option(required: bool = True, default: str = "") -> Callable[[Command], Command]:
    """``-o FILE``, the model file to write; what it is called without is told by `default`."""
    return click.option(
        "-o",
        "--output",
        "output",
        type=click.Path(dir_okay=False, path_type=Path),
        required=required,
        metavar="OUT.h5",
        callback=in_a_folder,
        help="The model file to write." + (f"  [default: {default}]" if default else ""),
    )


def data_option(required: bool = True, help: str = "") -> Callable[[Command], Command]:
    """``--data DIR``."""
    return click.option(
        "--data",
        "data",
        required=required,
        metavar="DIR",
        help=help
        or "Folder with CIFAR-10 or MNIST in an official format, or with a folder of pictures for each class "
        "(ImageNet); an .npz or .h5 file; or: digits.",
    )


def given(**options: Any) -> dict[str, Any]:
    """The options that were given: those that are not None."""
    return {name: value for name, value in options.items() if value is not None}
