"""``refldnq kit``: check another implementation against certified answers, step by step."""

from __future__ import annotations

from pathlib import Path

import click

from refldnq.cli.kit_run import FILE, FOLDER, check_listed, choose, diff, explain, judge, run, selftest
from refldnq.cli.options import data_option, in_a_folder, json_option, model_argument
from refldnq.cli.output import say, write_json

EXAMPLES = {
    "first.cpp": ("cpp", "two steps in C++17, without any library"),
    "first.rs": ("rust", "the same in Rust"),
    "complete.rs": ("rust", "seven steps in Rust, ADMM included"),
    "torch_ldnq.py": ("", "an adapter of an implementation in PyTorch"),
}
"""Programs to start from: the folder of each in `refldnq.verify.adapters`, and what it is."""


@click.group()
def kit() -> None:
    """Check another implementation of L-DNQ: which step is wrong, and why.

    Start with `refldnq kit export --inputs-only --npy questions`, answer in any language, and then
    `refldnq kit verify answers`; or `refldnq kit run PACKAGE:ADAPTER` in Python. `refldnq kit example` has
    programs to start from.
    """


@kit.command("list")
@click.option("--only", metavar="TEXT", help="Only cases whose id contains this.  [default: all]")
def list_cases(only: str | None) -> None:
    """Print the ids of all cases, one a line; of withdrawn ones the reason too."""
    from refldnq.verify.kit import errata

    for case in choose(only):
        say(case.id)
    for id_, reason in errata.WITHDRAWN.items():
        if only is None or only in id_:
            say(f"{id_} withdrawn, {reason}")


@kit.command()
@click.argument("case_id", metavar="CASE")
@json_option
def show(case_id: str, json_file: Path | None) -> None:
    """Show a case: what is asked, what is right, how it is compared."""
    import numpy as np

    from refldnq.verify.kit import errata
    from refldnq.verify.kit.cases import all_cases
    from refldnq.verify.kit.golden import datasets

    known = {case.id: case for case in all_cases()}
    check_listed("case", case_id, known, "refldnq kit list")
    case = known[case_id]
    if case_id in errata.WITHDRAWN:
        say(f"withdrawn: {errata.WITHDRAWN[case_id]}", json_file)
    facts = {
        "id": case.id,
        "comment": case.comment,
        "level": case.tier,
        "flags": list(case.flags),
        "catches": list(case.catches),
        "conventions": dict(case.conventions),
        "certified": case.certified,
        "kappa": case.kappa,
        "compare": dict(case.compare),
        "error": case.error,
    }
    arrays = [(place, array) for place, array in datasets(case) if place != "out/error"]
    finite = {
        place: np.where(np.isfinite(array), array, 0).tolist()
        if array.dtype.kind == "f"
        else array.astype(str).tolist()
        if array.dtype.kind == "S"
        else array.tolist()
        for place, array in arrays
    }
    write_json(json_file, {**facts, "arrays": finite})
    for name, value in facts.items():
        say(f"{name}: {', '.join(map(str, value)) if isinstance(value, list) else value}", json_file)
    for place, array in arrays:
        shown = np.array2string(array, precision=17, threshold=200, max_line_width=110)
        say(f"{place} {array.dtype.name} {array.shape}\n{shown}", json_file)


@kit.command()
@click.option(
    "-o", "--output", type=FILE, callback=in_a_folder, metavar="FILE.h5", help="Write one HDF5 file."
)
@click.option("--npy", type=FOLDER, metavar="DIR", help="Write a folder of .npy files with index.json.")
@click.option("--inputs-only", is_flag=True, help="Questions without answers.")
@click.option("--only", metavar="TEXT", help="Only cases whose id contains this.  [default: all]")
def export(output: Path | None, npy: Path | None, inputs_only: bool, only: str | None) -> None:
    """Write the cases as files: equal versions write equal bytes."""
    from refldnq.verify.kit import golden

    if output is None and npy is None:
        raise click.UsageError("Say where: -o FILE.h5, --npy DIR, or both.")
    cases = choose(only)
    if npy is not None:
        golden.write_mirror(npy, cases, inputs_only=inputs_only)
        say(f"Wrote {len(cases)} cases to {npy}.")
    if output is not None:
        golden.write(output, cases, inputs_only=inputs_only)
        say(f"Wrote {len(cases)} cases to {output}, SHA-256 {golden.sha256(output)}.")


@kit.command()
@click.argument("name", required=False)
def example(name: str | None) -> None:
    """Print a program to start from, such as first.cpp; without a name, what there is."""
    from importlib.resources import files

    from refldnq._checks import check_choice

    if name is None:
        for known, (_, what) in EXAMPLES.items():
            say(f"{known:13} {what}")
        return
    check_choice("name", name, EXAMPLES)
    source = files("refldnq.verify.adapters") / EXAMPLES[name][0] / name
    click.echo(source.read_text(encoding="utf-8"), nl=False)


@kit.command()
@click.argument("answers", type=click.Path(exists=True, path_type=Path))
@click.option("--only", metavar="TEXT", help="Only cases whose id contains this.  [default: all]")
@click.option("--xfail", type=FILE, help="Lines of a case id and the reason why it is expected to fail.")
@click.option(
    "--cases",
    "golden_file",
    type=click.Path(exists=True, path_type=Path),
    help="Judge by the cases of this file, such as recorded ones.  [default: the suite]",
)
@click.option("--junit", type=FILE, help="Write the report as JUnit XML.")
@click.option("--markdown", type=FILE, help="Write the report as Markdown.")
@json_option
def verify(
    answers: Path,
    only: str | None,
    xfail: Path | None,
    golden_file: Path | None,
    junit: Path | None,
    markdown: Path | None,
    json_file: Path | None,
) -> None:
    """Judge the answers of a program: an HDF5 file, or a folder of .npy files.

    Exits with 0 if it passes, 1 if it fails, 2 if a declared operation went unanswered, 3 on an error of the
    kit's own.
    """
    from refldnq.verify.kit import errata, golden
    from refldnq.verify.kit.external import read_xfail, recorded

    expected = {} if xfail is None else read_xfail(xfail)
    candidate = recorded(answers)
    if golden_file is None:
        cases = choose(only)
    else:
        loaded = golden.load(golden_file)
        cases = errata.standing(case for case in loaded if only is None or only in case.id)
    judge(candidate, cases, expected, {"junit": junit, "markdown": markdown, "json": json_file})


@kit.command()
@model_argument
@data_option(help="Folder with CIFAR-10 or MNIST in an official format, an .npz or .h5 file, or: digits.")
@click.option("--layer", required=True, metavar="NAME", help="A layer with weights.")
@click.option(
    "-o",
    "--output",
    type=FILE,
    required=True,
    callback=in_a_folder,
    metavar="FILE.h5",
    help="The file of cases.",
)
@click.option(
    "--images", type=click.IntRange(min=1), default=8, show_default=True, help="Images, the first ones."
)
@click.option(
    "--levels",
    type=click.Choice(["3", "5", "7", "9", "11"]),
    default="3",
    show_default=True,
    help="Size of the set of values.",
)
@click.option("--iterations", type=click.IntRange(min=1), default=5, show_default=True, help="Of ADMM.")
def record(
    model_file: Path, data: str, layer: str, output: Path, images: int, levels: str, iterations: int
) -> None:
    """Write X, H, W and a trace of ADMM of a layer of MODEL.h5 as cases."""
    import numpy as np

    from refldnq.data.load import load_dataset
    from refldnq.formats.h5 import load_model
    from refldnq.verify.kit import golden
    from refldnq.verify.kit.record import record as recorded_cases

    model = load_model(model_file)
    dataset, how = load_dataset(data), model.preprocess
    some = dataset.pixels(slice(images), None if how is None else how.resize)
    x = np.asarray(some, dtype=np.float64) if how is None else how(some, np.float64)
    cases = recorded_cases(model.network, layer, x, levels=int(levels), iterations=iterations)
    golden.write(output, cases)
    say(f"Wrote {', '.join(case.id for case in cases)} to {output}, SHA-256 {golden.sha256(output)}.")


@kit.command()
@click.option("--count", type=click.IntRange(min=1), default=10_000, show_default=True, help="Files.")
@click.option("--seed", type=int, default=0, show_default=True, help="Equal seeds give equal files.")
@click.option("--first", type=click.IntRange(min=0), default=0, help="Number of the first file.")
@json_option
def fuzz(count: int, seed: int, first: int, json_file: Path | None) -> None:
    """Damage files of answers: each must end in a verdict or a clear error, never in a pass.

    Exits with 1 if one does not.
    """
    from refldnq.cli.output import progress
    from refldnq.experiments.run import Event
    from refldnq.verify.kit.fuzz import fuzz as damage

    with progress() as tell:

        def count_done(number: int) -> None:
            if number % max(1, count // 20) == 0:
                tell(Event(f"{number} files", number / count))

        found = damage(choose(None), count, seed, first=first, on_done=count_done)
    write_json(
        json_file,
        {
            "counts": dict(found.counts),
            "problems": list(found.problems),
            "slowest_s": round(found.slowest, 3),
            "crashes": found.crashes,
            "seconds": round(found.seconds, 1),
        },
    )
    for line in found.problems:
        say(line, json_file)
    said = " | ".join(f"{name} {number}" for name, number in found.counts.items())
    say(
        f"FUZZ files {count} | {said} | reader crashes {found.crashes} | problems {len(found.problems)}",
        json_file,
    )
    say(f"slowest {found.slowest:.2f} s; {found.seconds:.0f} s", json_file)
    click.get_current_context().exit(1 if found.problems else 0)


for _command in (run, explain, selftest, diff):
    kit.add_command(_command)
