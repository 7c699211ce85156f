"""``refldnq kit run | explain | selftest | diff``: an implementation against the kit, the kit on itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import click

from refldnq.cli.options import json_option
from refldnq.cli.output import say, write_json

if TYPE_CHECKING:
    from refldnq.verify.kit.cases import Case
    from refldnq.verify.kit.contract import Adapter, Question

FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.argument("target", metavar="PACKAGE:ADAPTER | -- PROGRAM ARGUMENTS", nargs=-1, required=True)
@click.option("--only", metavar="TEXT", help="Only cases whose id contains this.  [default: all]")
@click.option("--xfail", type=FILE, help="Lines of a case id and the reason why it is expected to fail.")
@click.option("--junit", type=FILE, help="Write the report as JUnit XML.")
@click.option("--markdown", type=FILE, help="Write the report as Markdown.")
@click.option("--keep", type=FOLDER, help="Keep a program's questions and answers in this folder.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=600.0,
    show_default=True,
    help="Longest time that a program may take.",
)
@json_option
def run(
    target: tuple[str, ...],
    only: str | None,
    xfail: Path | None,
    junit: Path | None,
    markdown: Path | None,
    keep: Path | None,
    seconds: float,
    json_file: Path | None,
) -> None:
    """Ask an implementation every case, and say which step is wrong and why.

    It is an adapter in Python, or after -- a program in any language: {in} and {out} in its arguments stand
    for the folders of the questions and its answers (.npy files), {in.h5} and {out.h5} for HDF5 files.

    Exits with 0 if it passes, 1 if it fails, 2 if a declared operation went unanswered, 3 on an error of the
    kit's own.
    """
    from refldnq.verify.kit.external import read_xfail, run_program

    expected = {} if xfail is None else read_xfail(xfail)
    if any("{out" in word for word in target):
        cases = choose(only)
        candidate: Adapter = run_program(target, cases, seconds=seconds, folder=keep)
    elif len(target) == 1 and ":" in target[0]:
        candidate = adapter(target[0])  # before the cases, which take seconds to make
        cases = choose(only)
    else:
        raise click.UsageError(
            "Name an adapter, PACKAGE:ADAPTER, or a program with an argument {out} or {out.h5}, where its "
            "answers go: refldnq kit run -- ./mine {in} {out}"
        )
    judge(candidate, cases, expected, {"junit": junit, "markdown": markdown, "json": json_file})


class NotLoadedError(click.ClickException):
    """An adapter could not be loaded: nothing was run."""

    exit_code = 2


def adapter(name: str) -> Adapter:
    """The adapter that PACKAGE:ADAPTER names; a module may lie in the present folder.

    Raises
    ------
    NotLoadedError
        If there is none, or importing or making it fails.
    """
    from refldnq.verify.kit.external import load

    here = str(Path.cwd())
    if here not in sys.path:  # a command's path has the folder of the command, not the present one
        sys.path.insert(0, here)
    try:
        return load(name)
    except Exception as error:  # an import runs anything
        known = isinstance(error, ValueError | ImportError | OSError)
        why = str(error) if known and str(error) else f"{type(error).__name__}: {error}"
        raise NotLoadedError(f"{name} cannot be loaded: {why}") from error


def judge(
    candidate: Adapter,
    cases: Sequence[Question],
    expected: Mapping[str, str],
    files: Mapping[str, Path | None],
) -> None:
    """Run the cases, write the reports and exit with the run's code.

    Parameters
    ----------
    candidate : Adapter
        The implementation, or its recorded answers.
    cases : sequence of Case
        What it is asked.
    expected : mapping
        Ids of cases that are expected to fail, and why.
    files : mapping
        Where the reports go: any of `json`, `junit`, `markdown`.

    Raises
    ------
    ValueError
        If an expected failure names no case, or the implementation says of itself what the kit does not know.
    """
    from refldnq.verify.kit import report
    from refldnq.verify.kit.runner import run as run_cases
    from refldnq.verify.kit.runner import said

    json_file = files.get("json")
    for id_ in expected:
        check_listed("xfail", id_, [case.id for case in cases], "refldnq kit list")
    said(candidate)  # what it says of itself is input, and may be refused as such
    try:
        found = run_cases(candidate, cases, xfail=expected)
        text = report.to_text(found)
        pages = {"junit": report.to_junit(found), "markdown": report.to_markdown(found)}
    except Exception as error:
        say(f"refldnq: the kit failed: {type(error).__name__}: {error}", json_file)
        raise SystemExit(3) from error
    for name, content in pages.items():
        file = files.get(name)
        if file is not None:
            file.write_text(content, encoding="utf-8")
    write_json(json_file, report.to_json(found))
    say(text, json_file)
    click.get_current_context().exit(found.exit_code)


@click.command()
@click.argument("fault", required=False)
def explain(fault: str | None) -> None:
    """What a fault of the catalogue is; without a name, all of them."""
    from refldnq.verify.kit.faults import BY_ID, CATALOGUE, find

    if fault is None:
        for one in CATALOGUE:
            say(f"{one.id:26} {one.stage:9} {one.title}")
        return
    check_listed("fault", fault, BY_ID, "refldnq kit explain")
    one = find(fault)
    say(f"{one.id} ({', '.join(one.ops)})\n{one.title}\neffect: {one.effect}\n{one.explanation}")


@click.command()
@click.option("--matrix", type=FILE, help="Write the table of faults and the cases that catch them.")
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=None,
    help="Processes that share the work.  [default: the usable cores]",
)
@json_option
def selftest(matrix: Path | None, processes: int | None, json_file: Path | None) -> None:
    """Check that the kit catches and names every fault, and passes every correct variant."""
    from refldnq._kernels.threads import thread_count
    from refldnq.verify.kit import selftest as own

    found = own.selftest(choose(None), processes=processes or thread_count())
    if matrix is not None:
        matrix.write_text(own.kill_matrix(found), encoding="utf-8")
    verdicts = [one.verdict for one in found.kills]
    counts = {name: verdicts.count(name) for name in ("unique", "ambiguous", "misnamed", "survives")}
    write_json(
        json_file,
        {
            "faults": {one.fault: {"verdict": one.verdict, "cases": list(one.cases)} for one in found.kills},
            "problems": list(found.problems),
            "idle": list(found.idle),
            "counts": counts,
        },
    )
    for line in found.problems:
        say(line, json_file)
    said = " | ".join(f"{name} {count}" for name, count in counts.items())
    say(f"SELFTEST faults {len(verdicts)} | {said} | problems {len(found.problems)}", json_file)
    say(f"{found.listed} cases, {len(own.VARIANTS)} correct variants; {found.seconds:.0f} s", json_file)
    click.get_current_context().exit(1 if found.problems else 0)


@click.command()
@click.argument("before", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("after", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def diff(before: Path, after: Path) -> None:
    """What changed between two JSON reports of `refldnq kit run`; exits with 1 if a case got worse."""
    old, new = _states(before), _states(after)
    worse = 0
    for id_ in dict.fromkeys([*old, *new]):
        was, now = old.get(id_, "absent"), new.get(id_, "absent")
        if was != now:
            worse += was == "pass"
            say(f"{id_}: {was} -> {now}")
    say(f"DIFF cases {len(new)} | worse {worse}")
    click.get_current_context().exit(1 if worse else 0)


def _states(file: Path) -> dict[str, str]:
    content = json.loads(file.read_text(encoding="utf-8"))
    try:
        return {str(one["id"]): str(one["state"]) for one in content["cases"]}
    except (KeyError, TypeError) as error:
        raise ValueError(f"`{file}` must be a report of `refldnq kit run --json`.") from error


def check_listed(name: str, value: str, known: Iterable[str], listing: str) -> None:
    """Check a name that is one of hundreds.

    Raises
    ------
    ValueError
        If it is not; the message has the nearest ones, and the command that lists all.

    Examples
    --------
    >>> check_listed("case", "dual/matrx", ["dual/matrix", "dual/column", "pack/linear"], "refldnq kit list")
    Traceback (most recent call last):
        ...
    ValueError: `case` must be one of 'dual/matrix', ... (refldnq kit list), got 'dual/matrx'.
    """
    names = list(known)
    if value in names:
        return
    within = sorted((one for one in names if value in one), key=lambda one: one.index(value))
    near = dict.fromkeys([*within, *get_close_matches(value, names, 3), *names])
    shown = ", ".join(map(repr, list(near)[: max(1, min(5, len(near) - 1))]))
    raise ValueError(f"`{name}` must be one of {shown}, ... ({listing}), got {value!r}.")


def choose(only: str | None) -> tuple[Case, ...]:
    """All cases, or those whose id contains `only`.

    Raises
    ------
    ValueError
        If there are none.
    """
    from refldnq.verify.kit.cases import all_cases
    from refldnq.verify.kit.errata import standing

    cases = standing(case for case in all_cases() if only is None or only in case.id)
    if not cases:
        raise ValueError(f"`only` must be part of a case's id, got {only!r}.")
    return cases
