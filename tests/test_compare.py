"""``refldnq compare``: the runs, what is not run twice, the tables, the figures and the page."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import open_page
from click.testing import CliRunner, Result

from refldnq.cli import main
from refldnq.codebook import powers_of_two
from refldnq.data import load_dataset
from refldnq.experiments.comparison import figures as figures_module
from refldnq.experiments.comparison import runs as runs_module
from refldnq.experiments.comparison import tables as tables_module
from refldnq.experiments.comparison.methods import METHODS, method_settings
from refldnq.experiments.comparison.problems import ComparedProblem, layer_problems
from refldnq.experiments.comparison.runs import cells
from refldnq.experiments.comparison.tables import geometric_mean
from refldnq.experiments.profiles import PROFILES, profile_settings
from refldnq.experiments.run import QuantizeRequest, calibration_images, quantize_model
from refldnq.formats.h5 import load_model, save_model
from refldnq.hessian import accumulate_hessian
from refldnq.layers import Add, BatchNorm, Conv2d, Flatten, GlobalAvgPool, Linear, LinearMap, ReLU
from refldnq.ldnq_settings import LdnqSettings
from refldnq.model import Model
from refldnq.models import shipped
from refldnq.models.graph import Graph
from refldnq.network import INPUT
from refldnq.solvers.base import SOLVERS
from refldnq.solvers.greedy import GreedySettings

MLP = shipped("mlp-digits")

FIGURES = {"layer-error", "accumulated-error", "objective", "histogram", "images", "levels"}

QUICK = (
    "--images",
    60,
    "--methods",
    "paper,gptq,best",
    "--more-levels",
    5,
    "--more-images",
    "30",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sklearn", reason="the embedded digits need scikit-learn")
    path = tmp_path_factory.mktemp("data") / "small.npz"
    train, test = load_dataset("digits", "train"), load_dataset("digits", "test")
    assert train.labels is not None and test.labels is not None
    np.savez(
        path,
        x_train=train.images[:120],
        y_train=train.labels[:120],
        x_test=test.images[:100],
        y_test=test.labels[:100],
    )
    return path


def invoke(*words: object) -> Result:
    return CliRunner().invoke(main, ["compare", *(str(word) for word in words)])


@pytest.fixture(scope="module")
def compared(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], Result]:
    folder = tmp_path_factory.mktemp("compared")
    # Updates take most of a run's time and make no difference to what is drawn and stored; one test has them.
    words = (MLP, "--data", data, "-o", folder / "out", *QUICK, "--no-update", "--json", folder / "out.json")
    result = invoke(*words)
    assert result.exit_code == 0, result.output
    return folder / "out", json.loads((folder / "out.json").read_text()), result


def test_every_run_is_there_and_is_what_quantize_gives(
    compared: tuple[Path, dict[str, Any], Result], data: Path
) -> None:
    folder, record, _ = compared
    planned = cells(["paper", "gptq", "best"], 3, 60, more_levels=[5], more_images=[30])
    assert len(planned) == len(record["runs"]) == 9
    for cell, run in zip(planned, record["runs"], strict=True):
        assert (run["method"], run["levels"], run["images"]) == (cell.method, cell.levels, cell.images)
        assert (folder / f"{cell.stem}.h5").exists() and not (folder / f"{cell.stem}.checkpoint").exists()
    request = QuantizeRequest(settings=method_settings("best", 5, update=False), images=60, certificates=True)
    outcome = quantize_model(
        load_model(MLP), load_dataset(data, "train"), request, test=load_dataset(data, "test")
    )
    own = next(run for run in record["runs"] if (run["method"], run["levels"]) == ("best", 5))
    assert own["accuracy_after"] == outcome.after.accuracy  # type: ignore[union-attr]
    assert [layer["error"] for layer in own["layers"]] == [report.error for report in outcome.reports]


def test_updates_are_as_long_as_it_is_asked(data: Path, tmp_path: Path) -> None:
    """With ``--epochs 1`` every update of every method is one pass over the images."""
    words = ("--images", 40, "--epochs", 1, "--methods", "paper,released-2019,best")
    result = invoke(MLP, "--data", data, "-o", tmp_path / "out", *words, "--json", tmp_path / "out.json")
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "out.json").read_text())
    passes = {run["method"]: [layer["update_images"] for layer in run["layers"]] for run in record["runs"]}
    # Behind the last layer nothing moves but in the released code, and in the three last updates of best.
    assert passes == {"paper": [40, 40, 0], "released-2019": [40, 40, 40], "best": [40, 40, 120]}
    for run in record["runs"][:2]:
        own = QuantizeRequest(settings=method_settings(run["method"], epochs=1), images=40, certificates=True)
        outcome = quantize_model(
            load_model(MLP), load_dataset(data, "train"), own, test=load_dataset(data, "test")
        )
        assert run["accuracy_after"] == outcome.after.accuracy  # type: ignore[union-attr]
        assert [layer["output_error"] for layer in run["layers"]] == [r.output_error for r in outcome.reports]


def residual_network() -> Model:
    """Convolutions, batch normalization, a branch with its sum; for the 8x8 digits."""
    graph = Graph()
    trunk = graph.put(
        "relu0", ReLU(), graph.put("bn0", BatchNorm(4), graph.put("conv0", Conv2d(1, 4, 3), INPUT))
    )
    y = graph.put("bn1", BatchNorm(4), graph.put("conv1", Conv2d(4, 4, 3, padding=1, bias=False), trunk))
    y = graph.put("conv2", Conv2d(4, 4, 3, padding=1, bias=False), graph.put("relu1", ReLU(), y))
    y = graph.put("relu2", ReLU(), graph.put("add", Add(), graph.put("bn2", BatchNorm(4), y), trunk))
    graph.put("linear", Linear(4, 10), graph.put("flatten", Flatten(), graph.put("mean", GlobalAvgPool(), y)))
    network = graph.network(np.random.default_rng(0), (1, 8, 8), np.float64)
    return Model(network=network, preprocess=load_model(MLP).preprocess)


def test_a_residual_network(data: Path, tmp_path: Path) -> None:
    """`best` treats batch normalization and sums in its own way."""
    save_model(tmp_path / "net.h5", residual_network())
    words = ("--images", 30, "--epochs", 1, "--methods", "paper,best", "--json", tmp_path / "out.json")
    result = invoke(tmp_path / "net.h5", "--data", data, "-o", tmp_path / "out", *words)
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "out.json").read_text())
    assert [run["method"] for run in record["runs"]] == ["paper", "best"]
    for run in record["runs"]:
        assert [layer["name"] for layer in run["layers"]] == ["conv0", "conv1", "conv2", "linear"]
        how = method_settings(run["method"], epochs=1)
        request = QuantizeRequest(settings=how, images=30, certificates=True)
        outcome = quantize_model(
            load_model(tmp_path / "net.h5"),
            load_dataset(data, "train"),
            request,
            test=load_dataset(data, "test"),
        )
        assert run["accuracy_after"] == outcome.after.accuracy  # type: ignore[union-attr]
        for name in ("error", "output_error"):
            assert [layer[name] for layer in run["layers"]] == [getattr(one, name) for one in outcome.reports]
        model = load_model(tmp_path / "out" / f"{run['method']}-3-levels-30-images.h5")
        assert set(model.quantized) == {"conv0", "conv1", "conv2", "linear"}
    assert {path.stem for path in (tmp_path / "out").glob("*.png")} == FIGURES
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert page.count('src="data:image/png;base64,') == len(FIGURES)


def test_the_tables_show_the_numbers(compared: tuple[Path, dict[str, Any], Result]) -> None:
    folder, record, result = compared
    page = (folder / "index.html").read_text("utf-8")
    assert "as best does, layer errors and gaps are of the codes before that" in page
    for run in record["runs"]:
        errors = geometric_mean([layer["relative_error"] for layer in run["layers"]])
        start = rf"{run['method']}\s+{run['levels']}\s+{run['images']}\s+{errors:.4f}\s"
        assert re.search(start, result.output)
        cells_ = f"<td>{run['method']}</td><td>{run['levels']}</td><td>{run['images']}</td>"
        assert f"{cells_}<td>{errors:.4f}</td>" in page
        assert f"<td>{run['accuracy_after']:.2f}</td><td>{run['drop']:.2f}</td>" in page


def test_every_cell_of_the_tables(compared: tuple[Path, dict[str, Any], Result]) -> None:
    folder, record, _ = compared
    runs = [
        runs_module.ComparedRun(
            cell=runs_module.Cell(run["method"], run["levels"], run["images"]), record=run, model_file=folder
        )
        for run in record["runs"]
    ]
    for row, run in zip(tables_module.run_rows(runs), record["runs"], strict=True):
        cells_ = dict(zip(tables_module.RUN_COLUMNS, row, strict=True))
        gaps = [layer["gap"] for layer in run["layers"] if layer["gap"] is not None]
        if gaps:  # the median, to three figures or a whole percent
            median = 100 * float(np.median(gaps))
            printed = float(cells_["certified gap"].removesuffix(" %").replace(",", ""))
            assert abs(printed - median) <= max(0.005 * median, 0.5 * (median >= 100))
        else:
            assert cells_["certified gap"] == "no certificate"
        assert cells_["output error"] == f"{run['layers'][-1]['relative_output_error']:.4f}"
        assert cells_["drop, points"] == f"{run['accuracy_before'] - run['accuracy_after']:.2f}"
        assert cells_["seconds"] == f"{run['seconds']:.1f}"
    assert len({tuple(row[3:6]) for row in tables_module.run_rows(runs)}) == len(runs)
    given = [
        ComparedProblem(layer="a", errors={"admm": 4.0, "gptq": 1.0}, bound=0.5, trace=()),
        ComparedProblem(layer="b", errors={"admm": 1.0, "gptq": 1.0}, bound=0.0, trace=()),
    ]
    assert tables_module.problem_rows(given) == [
        ("admm", "2.0000", "1.000", "1.000", "1.000", "8.00 (1 of 2 layers)"),
        ("gptq", "1.0000", "0.500", "0.250", "1.000", "2.00 (1 of 2 layers)"),
    ]


@pytest.mark.parametrize(
    ("gaps", "printed"),
    [((0.5, 0.1, 0.4, 0.2), "30 %"), ((0.5, 0.1, None, 0.2), "20 %"), ((None,), "no certificate")],
)
def test_the_gap_of_a_run_is_the_median_of_its_layers(gaps: tuple[float | None, ...], printed: str) -> None:
    layers = [{"gap": gap, "relative_error": 0.1, "relative_output_error": 0.1} for gap in gaps]
    record = {"layers": layers, "accuracy_after": None, "drop": None, "seconds": 1.0}
    run = runs_module.ComparedRun(
        cell=runs_module.Cell("paper", 3, 60), record=record, model_file=Path("none.h5")
    )
    (row,) = tables_module.run_rows([run])
    assert dict(zip(tables_module.RUN_COLUMNS, row, strict=True))["certified gap"] == printed


def test_problems_are_those_of_the_reference_network(
    compared: tuple[Path, dict[str, Any], Result], data: Path
) -> None:
    _, record, _ = compared
    model = load_model(MLP)
    x = calibration_images(model, load_dataset(data, "train"), QuantizeRequest(images=60))
    network = model.network.astype(np.float32)
    for problem in record["problems"]:
        layer = network[problem["layer"]].layer
        assert isinstance(layer, LinearMap)
        live = network.advance(network.start(x), 0, network.position(problem["layer"]))
        H = accumulate_hessian(layer, [live[network[problem["layer"]].inputs[0]]]).blocks[0]
        W = layer.pack(network.params[problem["layer"]])[0].astype(np.float64)
        scale = 0.5 * np.trace(W.T @ H @ W)
        assert set(problem["errors"]) == {"admm", "gptq"}
        assert problem["bound"] <= min(problem["errors"].values())
        # The profile starts at the projection of the weights themselves.
        assert problem["trace"][0] * scale > 0 and len(problem["trace"]) > 2
        assert min(problem["trace"]) == pytest.approx(problem["errors"]["admm"], rel=1e-9)
    again = layer_problems(network, x, powers_of_two(3), ["gptq"])
    assert [p.errors["gptq"] for p in again] == [p["errors"]["gptq"] for p in record["problems"]]
    # More scales: smaller errors, and the bound of that problem.
    noise = np.random.default_rng(0).standard_normal((300, *x.shape[1:])).astype(np.float32)
    finer, plain = (
        layer_problems(network, noise, powers_of_two(3), ["anneal"], per_channel=own)[0]
        for own in (True, False)
    )
    assert 0 < finer.bound < plain.bound and finer.errors["anneal"] < plain.errors["anneal"]
    assert finer.bound <= min(finer.errors.values())


def test_figures_are_files_and_stand_in_the_page(compared: tuple[Path, dict[str, Any], Result]) -> None:
    from PIL import Image

    folder, _, _ = compared
    page = (folder / "index.html").read_text("utf-8")
    found = dict(re.findall(r'<figure id="([^"]+)"><img src="data:image/png;base64,([^"]+)"', page))
    assert set(found) == FIGURES
    for name, text in found.items():
        png = base64.b64decode(text)
        assert png == (folder / f"{name}.png").read_bytes()
        pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
        assert pixels.shape[1] >= 800 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20, (
            "an empty figure"
        )
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", page)


def drawn(compared: tuple[Path, dict[str, Any], Result], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The axes of every figure, by name."""
    from matplotlib.figure import Figure

    folder, record, _ = compared
    runs = [
        runs_module.ComparedRun(
            cell=runs_module.Cell(run["method"], run["levels"], run["images"]),
            record=run,
            model_file=folder / f"{run['method']}-{run['levels']}-levels-{run['images']}-images.h5",
        )
        for run in record["runs"]
    ]
    problems = [
        ComparedProblem(**{key: problem[key] for key in ("layer", "errors", "bound", "trace")})
        for problem in record["problems"]
    ]

    def draw(paint: Any) -> Any:
        axes = Figure().subplots()
        paint(axes)
        return axes

    monkeypatch.setattr(figures_module, "draw", draw)
    found = figures_module.all_figures(runs, problems, load_model(MLP), 3, 60)
    return {name: axes for name, (_, axes) in found.items()}


def figures_error(axes: dict[str, Any], record: dict[str, Any]) -> str:
    """What is wrong with the figures; nothing if they show the record's numbers and say what they are."""
    methods, layers = ["paper", "gptq", "best"], [layer["name"] for layer in record["runs"][0]["layers"]]

    def runs(method: str, **fixed: int) -> list[dict[str, Any]]:
        of_it = [run for run in record["runs"] if run["method"] == method]
        return [run for run in of_it if all(run[key] == value for key, value in fixed.items())]

    for name, own in axes.items():
        labels = [text.get_text() for text in own.get_legend().get_texts()]
        wanted = layers if name == "objective" else methods
        if [label for label in labels if label in wanted] != wanted or not own.get_xlabel():
            return f"{name}: labels {labels}, {own.get_xlabel()!r}"
        if not own.get_ylabel() or (own.get_yscale() == "log") != ("error" in name or name == "objective"):
            return f"{name}: {own.get_ylabel()!r}, {own.get_yscale()}"
    for name, field in (
        ("layer-error", "relative_error"),
        ("accumulated-error", "relative_accumulated_error"),
    ):
        for line, method in zip(axes[name].get_lines(), methods, strict=True):
            (run,) = runs(method, levels=3, images=60)
            if list(line.get_ydata()) != [layer[field] for layer in run["layers"]]:
                return f"{name}: {method}"
    for line, problem in zip(axes["objective"].get_lines(), record["problems"], strict=True):
        if list(line.get_ydata()) != list(problem["trace"]):
            return f"objective: {problem['layer']}"
    for name, fixed in (("images", {"levels": 3}), ("levels", {"images": 60})):
        *lines, original = axes[name].get_lines()
        if set(original.get_ydata()) != {record["runs"][0]["accuracy_before"]}:
            return f"{name}: original"
        for line, method in zip(lines, methods, strict=True):
            points = sorted((run[name], run["accuracy_after"]) for run in runs(method, **fixed))
            if list(zip(line.get_xdata(), line.get_ydata(), strict=True)) != points:
                return f"{name}: {method}"
    heights = sum(bar.get_height() for bar in axes["histogram"].patches)
    sizes = [own["weight"].size for own in load_model(MLP).network.params.values()]
    return "" if heights == max(sizes) else "histogram"


def test_figures_show_the_numbers_and_say_what_they_are(
    compared: tuple[Path, dict[str, Any], Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    axes = drawn(compared, monkeypatch)
    assert set(axes) == FIGURES and figures_error(axes, compared[1]) == ""


@pytest.mark.parametrize("planted", ["no label", "other error", "all levels"])
def test_figures_of_other_numbers_are_noticed(
    compared: tuple[Path, dict[str, Any], Result], planted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if planted == "no label":
        axes = drawn(compared, monkeypatch)
        axes["levels"].set_xlabel("")
    elif planted == "other error":
        right = figures_module._by_layer
        monkeypatch.setattr(
            figures_module, "_by_layer", lambda a, runs, _, label: right(a, runs, "relative_error", label)
        )
        axes = drawn(compared, monkeypatch)
    else:
        right_against = figures_module._against
        monkeypatch.setattr(
            figures_module, "_against", lambda a, runs, field, _: right_against(a, runs, field, {})
        )
        axes = drawn(compared, monkeypatch)
    assert figures_error(axes, compared[1]) != ""


def test_the_page_in_a_browser(compared: tuple[Path, dict[str, Any], Result], tmp_path: Path) -> None:
    # A copy that says of each image whether the browser could draw it.
    page = tmp_path / "page.html"
    script = (
        "<script>window.addEventListener('load', () => document.querySelectorAll('img').forEach("
        "i => i.setAttribute('data-width', i.naturalWidth)))</script></body>"
    )
    text = (compared[0] / "index.html").read_text("utf-8")
    page.write_text(text.replace("</body>", script), "utf-8")
    opened = open_page(page, tmp_path)
    assert opened.console == ()
    widths = [int(width) for width in re.findall(r'data-width="(\d+)"', opened.dom)]
    assert len(widths) == len(FIGURES) and min(widths) >= 800
    page.write_text(text.replace("</body>", script).replace("base64,iVBOR", "base64,AAAA", 1), "utf-8")
    broken = re.findall(r'data-width="(\d+)"', open_page(page, tmp_path).dom)
    assert broken.count("0") == 1, "a damaged figure is noticed"


def test_what_is_done_is_not_run_again(
    compared: tuple[Path, dict[str, Any], Result], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, record, _ = compared

    def work(*words: object, **options: object) -> None:
        raise AssertionError("a run was repeated")

    monkeypatch.setattr(runs_module, "quantize_model", work)
    out = folder.parent / "again.json"
    result = invoke(MLP, "--data", data, "-o", folder, *QUICK, "--no-update", "--json", out)
    assert result.exit_code == 0, result.output
    assert json.loads(out.read_text()) == record
    other = invoke(MLP, "--data", data, "-o", folder, *QUICK, "--no-update", "--seed", 1)
    assert other.exit_code == 1 and "`-o` must be a folder of this comparison" in other.output
    for place, value in (
        ("refldnq.solvers.gptq.DEFAULT", GreedySettings(damping=0.5)),
        ("refldnq.experiments.comparison.runs.__version__", "0.0.0"),
        ("refldnq.experiments.comparison.runs.graph_words", lambda network: "another"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, value)
            other = invoke(MLP, "--data", data, "-o", folder, *QUICK, "--no-update")
        assert other.exit_code == 1 and "`-o` must be a folder of this comparison" in other.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--methods", "paper,nothing"), "`methods` must be one of"),
        (("--more-levels", "3;5"), "must be numbers with commas"),
        (("--levels", 4), "levels"),
        (("--images", 0), "`images` must be"),
        (("--no-update", "--epochs", 2), "`epochs` must go with an update"),
    ],
)
def test_bad_input_is_refused_before_the_work(
    data: Path, tmp_path: Path, words: tuple[object, ...], message: str
) -> None:
    result = invoke(MLP, "--data", data, "-o", tmp_path / "out", *words)
    assert result.exit_code in (1, 2) and message in result.output
    assert not (tmp_path / "out").exists()


def test_methods_are_solvers_and_profiles() -> None:
    assert set(METHODS) == {*SOLVERS, *PROFILES}
    for name in METHODS:
        if name != "exact":
            assert method_settings(name, per_channel=True).solver_settings.per_channel is True
    assert method_settings("admm") == method_settings("paper") == LdnqSettings()
    short = method_settings("best", epochs=2)
    assert short.update is not None
    assert (short.update.epochs, short.update.copies) == (short.final_epochs, short.code_epochs) == (2, 2)
    assert method_settings("best", update=False).last_epochs == 0
    assert method_settings("released-2019", epochs=2).released.max_epochs == 2
    assert method_settings("released-2019", update=False).update is None
    with pytest.raises(ValueError, match="`name` must be one of"):
        profile_settings("worst")  # type: ignore[arg-type]


def test_geometric_mean() -> None:
    assert geometric_mean([2.0, 8.0, math.inf, None, 0.0]) == pytest.approx(4.0)
    assert math.isnan(geometric_mean([0.0]))
