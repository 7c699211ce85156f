"""The command line: thin commands around `refldnq.experiments`; a refusal is one line and a non-zero exit."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from refldnq import __version__
from refldnq.cli.bounds import bounds
from refldnq.cli.compare import compare
from refldnq.cli.convert import convert
from refldnq.cli.evaluate import evaluate
from refldnq.cli.inspect import inspect
from refldnq.cli.kit import kit
from refldnq.cli.quantize import quantize
from refldnq.cli.quickstart import quickstart
from refldnq.cli.reproduce import reproduce
from refldnq.cli.train import train
from refldnq.cli.verify import verify

REFUSALS = (ValueError, TypeError, OSError, ImportError, MemoryError)
"""What bad input raises; anything else is a bug and shows its traceback."""


class Commands(click.Group):
    """A group whose commands refuse in one line on stderr.

    With the environment variable ``REFLDNQ_TRACEBACK`` set, the traceback is shown instead.
    """

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command and exit: 1 if the input was refused, 2 if the command line was, 130 on Ctrl-C."""
        if not standalone_mode or os.environ.get("REFLDNQ_TRACEBACK"):
            return super().main(args, prog_name, complete_var, standalone_mode, **extra)
        try:
            code = super().main(args, prog_name, complete_var, False, **extra)
        except click.exceptions.NoArgsIsHelpError as asked:
            asked.show()
            sys.exit(asked.exit_code)
        except click.ClickException as refusal:
            _refuse(refusal.format_message(), refusal.exit_code)
        except click.Abort:
            _refuse("interrupted.", 130)
        except REFUSALS as refusal:
            _refuse(_message(refusal), 1)
        sys.exit(code if isinstance(code, int) else 0)


def _message(refusal: BaseException) -> str:
    if isinstance(refusal, OSError) and refusal.filename is not None and refusal.strerror is not None:
        return f"{refusal.filename}: {refusal.strerror}."
    return str(refusal) or type(refusal).__name__


def _refuse(message: str, code: int) -> None:
    click.echo(f"refldnq: error: {' '.join(message.split())}", err=True)
    sys.exit(code)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="refldnq")
def main() -> None:
    """Layer-wise quantization of deep networks from a few unlabelled images (L-DNQ).

    Start with `refldnq quickstart`, which needs no file. All commands but some of `refldnq kit` write their
    results as JSON with --json FILE.
    """


for _command in (
    quickstart,
    convert,
    evaluate,
    quantize,
    inspect,
    train,
    verify,
    bounds,
    compare,
    reproduce,
    kit,
):
    main.add_command(_command)
