"""``refldnq quantize``: Algorithm 1 on a model file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from refldnq.cli.options import (
    data_option,
    dtype_option,
    given,
    in_a_folder,
    json_option,
    model_argument,
    output_option,
)
from refldnq.cli.output import progress, say, say_layers, write_json

if TYPE_CHECKING:
    from refldnq.experiments.run import QuantizeOutcome
    from refldnq.ldnq_settings import LdnqSettings
    from refldnq.train import TrainSettings
    from refldnq.update import UpdateSettings


REQUESTED = ("images", "seed", "stratified", "dtype", "direct", "certificates", "held_out", "mean_bits")
"""Options that are fields of the request."""

PROBLEM = (
    "target",
    "absorb",
    "channel_weights",
    "ridge",
    "closed_weight",
    "hessian_versions",
    "cascades",
    "final_scales",
    "correct_bias",
)
"""Options that are fields of Algorithm 1's settings."""

CODES = ("code_rate", "code_mix", "code_intermediate")
"""Those of them that are about moving codes."""

UPDATE = (
    "epochs",
    "batch_size",
    "loss",
    "temperature",
    "intermediate",
    "features",
    "optimizer",
    "learning_rate",
    "schedule",
    "statistics",
    "momentum",
    "weight_decay",
    "patience",
    "copies",
    "pool",
    "crop",
    "flip",
    "mix",
    "validation",
)
"""Options that are fields of the update's settings."""


@click.command()
@model_argument
@data_option()
@output_option()
@click.option(
    "--images",
    default=500,
    show_default=True,
    help="Unlabelled calibration images, drawn from the training split.",
)
@click.option(
    "--levels",
    default=3,
    show_default=True,
    help="Levels of every layer: 3, 5, 7, ..., the paper's '2b+3 bits'.",
)
@click.option(
    "--mean-bits",
    type=float,
    help="In place of --levels: a budget of log2(levels), in the mean of all weights, spread over the layers "
    "by their measured sensitivities, with 2 to 11 levels; 1.585 is as much as 3 levels everywhere.",
)
@click.option("--seed", default=0, show_default=True, help="Draws the images and orders and augments them.")
@click.option(
    "--stratified/--random", default=False, help="The same number of images of every class; looks at labels."
)
@dtype_option
@click.option(
    "--profile",
    type=click.Choice(["paper", "released-2019", "best"]),
    default="paper",
    show_default=True,
    help="The paper's algorithm, what its authors' released code does, or what loses least; other options "
    "change its settings.",
)
@click.option(
    "--solver",
    metavar="NAME",
    help="Solver of the layers' problems: admm (paper), admm_plus, anneal (best), blocks, coordinate, "
    "direct, gpfq, gptq, ldlq or, for up to some 16 inputs, exact.",
)
@click.option(
    "--projection",
    type=click.Choice(["alternating", "exact"]),
    help="The projection step of admm and admm_plus.",
)
@click.option("--rho", type=float, help="ADMM's penalty, in units of --rho-scale.")
@click.option(
    "--rho-scale",
    type=click.Choice(["mean_diagonal", "lambda_max", "h00", "absolute"]),
    help="Unit of --rho.",
)
@click.option("--iterations", type=int, help="Those of admm and admm_plus.")
@click.option(
    "--per-channel",
    is_flag=True,
    default=None,
    help="One scale for each output channel; with --absorb (--profile best) in effect where no batch "
    "normalization follows, as behind the last layer: elsewhere it takes the channels' scales over.",
)
@click.option(
    "--target",
    type=click.Choice(["weights", "drift", "block"]),
    help="Stay near the layer's weights (the paper), or near the reference network's pre-activation, or its "
    "sum behind a residual branch.",
)
@click.option(
    "--absorb/--no-absorb",
    default=None,
    help="Leave each channel's scale and mean to the batch normalization behind a layer.",
)
@click.option(
    "--ridge", type=float, help="With --target drift or block: the pull to the layer's own weights."
)
@click.option(
    "--closed-weight",
    type=float,
    help="With --target drift or block: how much an entry counts where the ReLU behind it is closed.",
)
@click.option(
    "--hessian-versions", type=int, help="Versions of every image in the Hessians, cropped and flipped."
)
@click.option(
    "--channel-weights",
    type=click.Choice(["none", "batchnorm"]),
    help="Weight channels' errors by what batch normalization makes of them; not with admm, direct, exact.",
)
@click.option(
    "--update/--no-update",
    default=True,
    show_default=True,
    help="Update the weights after each layer (step 4).",
)
@click.option("--epochs", type=int, help="Update: passes over the images for each layer.")
@click.option("--batch-size", type=int, help="Update: images a step.")
@click.option(
    "--loss",
    type=click.Choice(["output", "distillation"]),
    help="Update: the output error (the paper), or the divergence of the class probabilities.",
)
@click.option(
    "--intermediate",
    type=float,
    help="Update: how much errors of intermediate outputs count beside --loss; 0 by default.",
)
@click.option(
    "--features",
    type=click.Choice(["last", "blocks"]),
    help="Update: which ones: the last layer's input (the default), or the outputs of all blocks.",
)
@click.option("--temperature", type=float, help="Update: of --loss distillation.")
@click.option("--optimizer", type=click.Choice(["adam", "sgd"]), help="Update: the rule.")
@click.option("--learning-rate", type=float, help="Update: rate of the first step.")
@click.option("--schedule", type=click.Choice(["cosine", "constant"]), help="Update: how the rate falls.")
@click.option(
    "--statistics",
    type=click.Choice(["batch", "running"]),
    help="Update: what batch normalization uses; epochs of --code-epochs use the running ones.",
)
@click.option("--momentum", type=float, help="Update: momentum of sgd.")
@click.option("--weight-decay", type=float, help="Update: L2 penalty.")
@click.option(
    "--patience", type=int, help="Update: epochs without a fall of the loss that end it; 0 is never."
)
@click.option("--copies", type=int, help="Update: versions of the images in a step, one an epoch.")
@click.option(
    "--pool",
    type=int,
    help="Update: versions of the images in the run, cropped and flipped; 1 is no augmentation.",
)
@click.option("--crop", type=int, help="Update: pixels around an image before it is cropped.")
@click.option("--flip/--no-flip", default=None, help="Update: mirror half of the images.")
@click.option("--mix", type=float, help="Update: largest weight of a second image in an image, 0 to 0.5.")
@click.option(
    "--validation",
    type=float,
    metavar="SHARE",
    help="Update: share of the images that is left out, to choose each update's length by.",
)
@click.option("--first/--no-first", default=True, help="Quantize the first layer.  [default: first]")
@click.option("--last/--no-last", default=True, help="Quantize the last layer.  [default: last]")
@click.option(
    "--skip",
    multiple=True,
    metavar="GLOB",
    help="Leave layers as they are, such as '*.downsample.*', the shortcuts of ResNet-18; repeatable.",
)
@click.option(
    "--correct-bias",
    is_flag=True,
    default=None,
    help="Take back the mean error of each channel, by batch normalization's running mean or the bias. "
    "Updates in train mode replace running means; not worth having with few levels and no update.",
)
@click.option("--quantize-bias", is_flag=True, help="Quantize biases as rows of the weights.")
@click.option(
    "--reestimate",
    is_flag=True,
    help="Recompute batch normalization's statistics from the images at the end; with --profile best only "
    "beside --code-epochs 0.",
)
@click.option("--cascades", type=int, help="How often the layers are quantized; once by the paper.")
@click.option(
    "--final-epochs",
    type=int,
    help="Epochs of an update of batch normalization and scales behind the last layer, codes fixed; biases "
    "move too, but for --profile best; 0 is none.",
)
@click.option(
    "--final-scales/--no-final-scales",
    default=None,
    help="Whether scales move in them.  [default: final-scales]",
)
@click.option(
    "--code-epochs",
    type=int,
    help="Epochs after those of --final-epochs in which all codes move too, by straight-through steps; a "
    "code that turns around stays. A third as many epochs follow with codes fixed. 0 is none.",
)
@click.option(
    "--code-rate",
    type=float,
    help="How far such a step of Adam moves an entry at first, as a share of the distance of two levels.  "
    "[default: 0.015]",
)
@click.option(
    "--code-mix",
    type=float,
    help="While codes move: largest weight of a second image in an image, 0 to 0.5; 0 with --validation and "
    "--pool 1.  [default: 0.5]",
)
@click.option(
    "--code-intermediate",
    type=float,
    help="While codes move: how much the errors of all blocks' outputs count. Above 0 these are kept: 200 MB "
    "for 500 CIFAR images in ResNet-20, gigabytes at 224x224.  [default: 0.05]",
)
@click.option(
    "--fine-tune",
    type=int,
    metavar="EPOCHS",
    help="Step 6: train what is not quantized with the images' labels; none by default.",
)
@click.option("--direct", is_flag=True, help="Show direct quantization beside it.")
@click.option(
    "--certificates/--no-certificates",
    default=True,
    show_default=True,
    help="Report how near the optimum each layer is, by a lower bound; about 1 s for 576 inputs, "
    "longer and weaker with --closed-weight.",
)
@click.option(
    "--held-out",
    default=100,
    show_default=True,
    help="Images left over, if there are some, on which the layers' errors are reported; they guide nothing.",
)
@click.option(
    "--checkpoint",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    callback=in_a_folder,
    help="Written after every layer, removed at the end.  [default: OUT.h5.checkpoint]",
)
@click.option(
    "--resume/--no-resume",
    default=None,
    help="Go on from the checkpoint, or start anew; without either an existing one is an error.",
)
@json_option
def quantize(
    model_file: Path,
    data: str,
    output: Path,
    checkpoint: Path | None,
    resume: bool | None,
    json_file: Path | None,
    **options: Any,
) -> None:
    """Quantize MODEL.h5 layer by layer from a few unlabelled images.

    The images are drawn from the training split of --data. Its test split, if there is one, is classified
    before and after and guides nothing.
    """
    from refldnq.data import load_dataset, load_test
    from refldnq.experiments.report import outcome_json
    from refldnq.experiments.run import QuantizeRequest, quantize_model
    from refldnq.formats.h5 import load_model, save_model

    request = QuantizeRequest(
        settings=_settings(options),
        fine_tune=_fine_tune(options),
        **{name: options[name] for name in REQUESTED},
    )
    checkpoint = checkpoint or output.with_name(output.name + ".checkpoint")
    _all_different({"MODEL.h5": model_file, "-o": output, "--checkpoint": checkpoint, "--json": json_file})
    if checkpoint.exists() and resume is None:
        raise ValueError(f"{checkpoint} exists: go on from it with --resume, or start anew with --no-resume.")
    model, calibration, test = load_model(model_file), load_dataset(data, "train"), load_test(data)
    with progress() as tell:
        outcome = quantize_model(
            model,
            calibration,
            request,
            test=test,
            on_progress=tell,
            checkpoint=checkpoint,
            resume=bool(resume),
        )
    save_model(output, outcome.model)
    write_json(json_file, outcome_json(outcome))
    checkpoint.unlink(missing_ok=True)
    say_outcome(outcome, json_file)
    say(f"Wrote {output}.", json_file)


def _all_different(files: dict[str, Path | None]) -> None:
    # The checkpoint is removed at the end, and each of the others would replace what another one says.
    taken: dict[Path, str] = {}
    for name, file in files.items():
        if file is None or file == Path("-"):
            continue
        other = taken.setdefault(file.resolve(), name)
        if other != name:
            raise ValueError(f"`{name}` must be another file than `{other}`, got {file} for both.")


def say_outcome(outcome: QuantizeOutcome, json_file: Path | None) -> None:
    """Print the table of the layers and the summary of a run."""
    from refldnq.experiments.report import remarks

    say_layers(outcome.reports, json_file)
    say("Errors are relative to the squared norm of the reference, the original network's.", json_file)
    for line in remarks(outcome.reports):
        say(line, json_file)
    if any(report.relative_held_out_error is not None for report in outcome.reports):
        say("Held out: the layer's error on images that guided nothing.", json_file)
    if any(report.lower_bound is not None for report in outcome.reports):
        say("Within: by how much a layer's objective exceeds the optimum at most, certified.", json_file)
    for label, score in (
        ("accuracy before", outcome.before),
        ("accuracy after", outcome.after),
        ("direct quantization", outcome.direct),
    ):
        if score is not None:
            say(f"{label + ':':<21}{score.accuracy:6.2f} %  ({score.correct} of {score.total})", json_file)
    if outcome.drop is not None:
        say(f"{'drop:':<21}{outcome.drop:6.2f} points", json_file)
    if outcome.model.provenance["labels_used"]:
        say("Labels of the calibration images were used.", json_file)
    memory = f"peak memory {outcome.peak_rss_mb:.0f} MB"
    say(f"{len(outcome.indices)} images, {outcome.seconds:.1f} s, {memory}.", json_file)


def _settings(options: dict[str, Any]) -> LdnqSettings:
    from refldnq.codebook import powers_of_two
    from refldnq.experiments.profiles import profile_settings

    profile = profile_settings(options["profile"], powers_of_two(options["levels"]))
    chosen = given(**{name: options[name] for name in PROBLEM + CODES})
    update = _update(options, profile)
    lasting: dict[str, Any] = {"final_epochs": 0, "code_epochs": 0} if update is None else {}
    lasting |= given(**{name: options[name] for name in ("final_epochs", "code_epochs")})
    if options["final_scales"] is not None and not lasting.get("final_epochs", profile.final_epochs):
        raise ValueError("`--final-scales` must come with `--final-epochs`, got it without.")
    for name in CODES:
        if name in chosen and not lasting.get("code_epochs", profile.code_epochs):
            flag = "--" + name.replace("_", "-")
            raise ValueError(f"`{flag}` must come with `--code-epochs`, got {chosen[name]} alone.")
    if chosen.get("code_mix") and update is not None and (update.validation or update.pool == 1):
        raise ValueError(f"`--code-mix` must be 0 with --validation or --pool 1, got {chosen['code_mix']}.")
    return replace(
        profile,
        solver=options["solver"] or profile.solver,
        solver_settings=_solver_settings(options, profile),
        update=update,
        first=options["first"],
        last=options["last"],
        skip=options["skip"],
        bias=options["quantize_bias"],
        reestimate="end" if options["reestimate"] else "none",
        **lasting,
        **chosen,
    )


def _solver_settings(options: dict[str, Any], profile: LdnqSettings) -> Any:
    from refldnq.solvers.admm_settings import AdmmSettings
    from refldnq.solvers.base import default_settings

    names = ("projection", "rho", "rho_scale", "iterations", "per_channel")
    changes = given(**{name: options[name] for name in names})
    solver = options["solver"] or profile.solver
    if solver == "admm":
        return AdmmSettings.profile(profile.profile, **changes)
    default = default_settings(solver)
    foreign = [name for name in changes if not hasattr(default, name)]
    if foreign:
        flags = ", ".join("--" + name.replace("_", "-") for name in foreign)
        raise ValueError(f"{flags} must go with a solver that has such a setting, got --solver {solver}.")
    return replace(default, **changes)


def _update(options: dict[str, Any], profile: LdnqSettings) -> UpdateSettings | None:
    changes = given(**{name: options[name] for name in UPDATE})
    if options["update"] and profile.profile == "paper":
        assert profile.update is not None
        epochs = changes.get("epochs")
        return replace(profile.update if epochs is None else profile.update.lasting(epochs), **changes)
    if changes:
        flags = ", ".join("--" + name.replace("_", "-") for name in changes)
        raise ValueError(
            f"{flags} must go with an update of the profiles paper and best, got another profile or "
            "--no-update."
        )
    return profile.update if options["update"] else None


def _fine_tune(options: dict[str, Any]) -> TrainSettings | None:
    from refldnq.baselines.retrain import step_6

    if options["fine_tune"] is None:
        return None
    how = given(crop=options["crop"], flip=options["flip"])
    return replace(step_6(), epochs=options["fine_tune"], **how)
