"""The whole evaluation, from a run to the tables, through the commands."""

import copy
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from oar_cli import evaluate as evaluate_cli
from oar_cli import quality as quality_cli
from oar_cli.lab import commands
from oar_cli.lab_options import EVALUATORS, load_evaluator
from oar_core.errors import WeightsError
from oar_core.train.attributes import Attribute
from oar_core.train.evaluator import Evaluator, EvaluatorConfig
from oar_core.train.loop import LoopConfig
from oar_core.train.model_export import ModelExport
from oar_core.train.recipe import Recipe
from oar_core.train.recipes import find_recipe
from oar_core.train.run import Run
from oar_core.train.stage_folders import EVALUATOR_STAGE
from oar_core.train.stage_trainer import StageTrainer
from oar_core.weights import write_manifest
from oar_lab.eval import figures as figures_module
from oar_lab.eval import lite0_features
from oar_lab.eval import quality as quality_module
from oar_lab.eval import report as report_module
from oar_lab.eval.arms import best_guidance, group_arms, load_reports
from oar_lab.eval.comparison import changes
from oar_lab.eval.plots import PlottedCurve, draw_curves
from oar_lab.eval.report import write_report

Evaluate = Callable[..., Result]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, picture_folder: Path, module_recipe: Recipe) -> Run:
    folder = tmp_path_factory.mktemp("quality")
    run = Run(module_recipe, picture_folder, folder / "run", torch.device("cpu"))
    StageTrainer(run).train_tokenizer()
    StageTrainer(run).train_any_order()
    StageTrainer(run).train_evaluator()
    ModelExport(run).export(folder / "weights" / "tiny")
    write_manifest(folder / "weights", "tiny", {"tiny": "CC0-1.0"})
    return run


@pytest.fixture(scope="module")
def module_recipe(base_recipe: Recipe) -> Recipe:
    return replace(
        base_recipe,
        attributes=(Attribute("text"),),
        evaluator=EvaluatorConfig(widths=(8, 16)),
        evaluator_loop=LoopConfig(num_images=480, batch_size=24, seed=1),
    )


@pytest.fixture(autouse=True)
def _no_lite0(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the package is installed or not: its network takes seconds."""
    monkeypatch.setattr(figures_module, "why_no_lite0", lambda: "not here")


class FakeLite0:
    """Features are the mean colours of quarters."""

    @classmethod
    def load(cls, _device: torch.device) -> "FakeLite0":
        return cls()

    def features(self, pixels: np.ndarray) -> torch.Tensor:
        count, height, width, _ = pixels.shape
        quarters = torch.from_numpy(np.array(pixels)).float().reshape(count, 2, height // 2, 2, width // 2, 3)
        return quarters.mean((2, 4)).flatten(1) / 255


@pytest.fixture
def _fake_lite0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures_module, "why_no_lite0", lambda: "")
    monkeypatch.setattr(lite0_features, "Lite0", FakeLite0)


@pytest.fixture
def evaluate(trained: Run, monkeypatch: pytest.MonkeyPatch) -> Evaluate:
    """Calls `oar eval ...` with the tiny run in place of the recipe that is named."""
    monkeypatch.setattr(quality_cli, "make_run", lambda *_arguments, **_options: trained)

    def call(command: str, *options: str) -> Result:
        arguments = [command, "--data", str(trained.data), "--run", str(trained.folder), *options]
        return CliRunner().invoke(commands["eval"], arguments, catch_exceptions=False)

    return call


@pytest.fixture
def measured(evaluate: Evaluate, trained: Run, tmp_path: Path) -> list[dict[str, Any]]:
    result = evaluate(
        "quality", "--weights", str(trained.folder.parent / "weights"), "--samples", "24", "--batch", "10",
        "--resamples", "20",
        "--steps", "2", "--steps", "8", "--seed", "0", "--seed", "1", "--order", "halton",
        "--out", str(tmp_path / "out"),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return load_reports(tmp_path / "out")


def test_every_figure_is_in_the_report(measured: list[dict[str, Any]]) -> None:
    assert len(measured) == 4
    for report in measured:
        assert report["settings"]["plan"]["order"] == "halton"
        assert report["settings"]["num_samples"] == report["distances"]["num_samples"] == 24
        assert report["distances"]["fd_eval"] > 0
        sides = report["distances"]["fd_eval"], report["floors"]["reconstruction"]["fd_eval"]
        assert 0 < report["fd_to_reconstructions"] <= sum(side**0.5 for side in sides) ** 2, "the triangle inequality"
        assert report["floors"]["training_reconstructions"] > 0
        assert 0 <= report["distances"]["precision"] <= 1
        assert set(report["agreement"]) == {"text", "mean"}
        assert report["memorisation"]["pixels"]["num_real"] == 12
        assert 0 < report["bits_per_token"] < 8
        assert report["figures"]["values"] == pytest.approx(
            {"fd_eval": report["distances"]["fd_eval"], "fd_rec": report["fd_to_reconstructions"]}, rel=1e-5
        )
        assert report["figures"]["lite0"] == {"unavailable": "not here"}
        assert [len(values) for values in report["figures"]["resamples"].values()] == [20, 20]
        assert report["inception_fid"].keys() <= {"fid", "num_samples", "num_real", "unavailable"}
        assert report["floors"]["reconstruction"]["num_samples"] == 24
        assert report["floors"]["halves"]["num_samples"] == 6
        assert report["floors"]["tokenizer"]["psnr"] > 0
        assert report["orders"]["pairwise_entropy"] == 0.0
        assert len(report["orders"]["rank_map"]) == 4
    assert [report["cost"]["mean_steps"] for report in measured] == [2, 2, 8, 8]
    assert [report["cost"]["query_evaluations"] for report in measured] == [32] * 4
    assert [report["settings"]["seed"] for report in measured] == [0, 1, 0, 1]


def test_each_evaluation_has_a_contact_sheet(measured: list[dict[str, Any]], tmp_path: Path) -> None:
    for path in (tmp_path / "out").glob("*.json"):
        with Image.open(path.with_suffix(".png")) as sheet:
            assert sheet.width > 2 * 8 * 16


def test_a_second_evaluation_draws_nothing_and_says_the_same(
    evaluate: Evaluate, trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--weights", str(trained.folder.parent / "weights"), "--samples", "12", "--guidance", "1")
    first = evaluate("quality", *options, "--out", str(tmp_path / "out"))

    def fail(*_arguments: Any, **_options: Any) -> None:
        raise AssertionError("was stored already")

    monkeypatch.setattr("oar_lab.eval.draws.generate", fail)
    monkeypatch.setattr(quality_module, "measure_floors", fail)
    monkeypatch.setattr(quality_module, "bits_per_token", fail)
    second = evaluate("quality", *options, "--out", str(tmp_path / "out"))
    assert first.stdout == second.stdout
    last = json.loads(second.stdout.splitlines()[-1])
    assert last["settings"]["sampling"]["guidance"] == 1
    assert last["cost"]["query_evaluations"] == 16


@pytest.mark.parametrize(
    ("option", "value", "part", "name"),
    [
        ("--group-sizes", "linear", "plan", "group_sizes"),
        ("--group-sizes", "adaptive", "plan", "group_sizes"),
        ("--entropy-bound", "2.5", "plan", "entropy_bound"),
        ("--candidates", "3", "plan", "candidates"),
        ("--temperature", "0.5", "sampling", "temperature"),
        ("--top-k", "3", "sampling", "top_k"),
        ("--top-p", "0.9", "sampling", "top_p"),
    ],
)
def test_each_wish_arrives(
    evaluate: Evaluate, trained: Run, tmp_path: Path, option: str, value: str, part: str, name: str
) -> None:
    weights = str(trained.folder.parent / "weights")
    result = evaluate(
        "quality", "--weights", weights, "--samples", "8", option, value, "--dtype", "bfloat16", "--label", "an arm",
        "--out", str(tmp_path),
    )  # fmt: skip
    stored = json.loads(result.stdout.splitlines()[-1])
    assert str(stored["settings"][part][name]) == value
    assert stored["settings"]["dtype"] == "bfloat16"
    assert stored["label"] == "an arm"


def test_the_evaluators_accuracy_is_told_per_attribute(evaluate: Evaluate) -> None:
    told = json.loads(evaluate("evaluator").stdout)
    assert told["num_images"] == 12
    assert 0 <= told["accuracy"]["text"] == told["accuracy"]["mean"] <= 1


def test_seeds_are_one_arm_with_a_spread(measured: list[dict[str, Any]]) -> None:
    arms = group_arms(measured)
    assert [len(arm.reports) for arm in arms] == [2, 2]
    pair = [report["distances"]["fd_eval"] for report in arms[0].reports]
    assert arms[0].mean("distances", "fd_eval") == pytest.approx(sum(pair) / 2)
    spread = abs(pair[0] - pair[1]) / 2**0.5
    assert arms[0].cell("distances", "fd_eval") == f"{sum(pair) / 2:.2f} ± {spread:.2f}"


def test_one_position_a_step_has_no_group_sizes_that_could_differ(measured: list[dict[str, Any]]) -> None:
    pair = [copy.deepcopy(measured[0]) for _ in range(2)]
    for report, sizes in zip(pair, ("cosine", "linear")):
        report["settings"]["plan"] |= {"steps": None, "group_sizes": sizes}
    assert len(group_arms(pair)) == 1
    pair[0]["settings"]["plan"]["group_sizes"] = "adaptive"
    assert len(group_arms(pair)) == 2


def test_the_best_guidance_of_each_arm_is_that_of_the_least_distance(measured: list[dict[str, Any]]) -> None:
    stronger = copy.deepcopy(measured)
    for report in stronger:
        report["settings"]["sampling"]["guidance"] = 9.0
        report["distances"]["fd_eval"] += -1e-3 if report["settings"]["plan"]["steps"] == 2 else 1e-3
    best = best_guidance(group_arms([*measured, *stronger]))
    usual = measured[0]["settings"]["sampling"]["guidance"]
    found = {arm.first["settings"]["plan"]["steps"]: arm.first["settings"]["sampling"]["guidance"] for arm in best}
    assert found == {2: 9.0, 8: usual}


def test_class_maps_are_shown_of_orders_that_follow_the_picture(measured: list[dict[str, Any]], tmp_path: Path) -> None:
    report = copy.deepcopy(measured[0])
    report["orders"] |= {"pairwise_entropy": 0.5, "rank_maps": {"colour=red": report["orders"]["rank_map"]}}
    write_report([report, *measured[2:]], tmp_path / "arms.md")
    sheets = list((tmp_path / "arms").glob("classes-*.png"))
    assert len(sheets) == 1
    assert f"arms/{sheets[0].name}" in (tmp_path / "arms.md").read_text()


def test_the_report_is_made_from_json_alone(
    measured: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_module, "why_no_plots", lambda: "no plots here")
    for sheet in (tmp_path / "out").glob("*.png"):
        sheet.unlink()
    result = CliRunner().invoke(commands["eval"], ["report", str(tmp_path / "out"), "-o", str(tmp_path / "arms.md")])
    assert result.exit_code == 0, result.output
    text = (tmp_path / "arms.md").read_text()
    for heading in ("### Floors", "### Prompt agreement", "### Likelihood and copying", "### Orders"):
        assert heading in text
    assert "No plots: no plots here." in text
    assert "Inception FID: unavailable" in text
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| tiny, halton | halton |")]
    assert [row[3].strip() for row in rows] == ["2.0", "8.0"]
    maps = list((tmp_path / "arms").glob("order-*.png"))
    assert maps
    assert all(f"arms/{path.name}" in text for path in maps)


def test_plots_are_drawn_where_matplotlib_is(measured: list[dict[str, Any]], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert write_report(measured, tmp_path / "arms.md") == []
    text = (tmp_path / "arms.md").read_text()
    plots = [path for path in (tmp_path / "arms").glob("*.png") if not path.name.startswith("order-")]
    assert len(plots) == 2
    assert all(f"arms/{path.name}" in text for path in plots)
    plot = tmp_path / "plot.png"
    draw_curves([PlottedCurve("one", ((8.0, 2.0), (16.0, 1.0)))], "steps", "FD-eval", plot)
    with Image.open(plot) as image:
        assert image.width > 300


def test_a_plot_with_one_far_value_tells_it_at_the_edge(tmp_path: Path) -> None:
    """The other curves are where they were: the axis does not reach as far."""
    pytest.importorskip("matplotlib")
    near = [PlottedCurve("near", ((8.0, 1.9), (16.0, 1.0))), PlottedCurve("other", ((8.0, 1.5), (16.0, 1.4)))]
    plots = tmp_path / "50.png", tmp_path / "5000.png"
    for plot, far in zip(plots, (50.0, 5000.0)):
        draw_curves([*near, PlottedCurve("far", ((8.0, far),))], "steps", "FD-eval", plot)
    images = [np.asarray(Image.open(plot).convert("L")) for plot in plots]
    differs = np.flatnonzero((images[0] != images[1]).any(axis=1))
    assert 0 < len(differs) < 40  # the rows of the figure that is told


def test_a_folder_without_evaluations_is_refused(tmp_path: Path) -> None:
    arguments = ["report", str(tmp_path), "-o", str(tmp_path / "arms.md")]
    assert "holds no evaluation" in CliRunner().invoke(commands["eval"], arguments).output
    (tmp_path / "other.json").write_text("{}")
    assert "no evaluation of format" in CliRunner().invoke(commands["eval"], arguments).output


def test_a_run_without_an_evaluator_takes_the_shipped_one(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = replace(trained, folder=tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match="evaluators/tiny"):
        load_evaluator(without, None)
    shutil.copytree(trained.folder / EVALUATOR_STAGE, tmp_path / EVALUATORS / "tiny")
    own, shipped = load_evaluator(trained, None), load_evaluator(without, None)
    assert own.digest == shipped.digest == load_evaluator(without, trained.folder / EVALUATOR_STAGE).digest


def test_the_shipped_evaluator_reads_what_its_recipe_names() -> None:
    evaluator = Evaluator.load(Path(__file__).parents[2] / EVALUATORS / "sprites-64", torch.device("cpu"))
    assert evaluator.vocabulary.names == tuple(attribute.column for attribute in find_recipe("sprites-64").attributes)


@pytest.mark.usefixtures("_fake_lite0")
def test_the_outside_judge_compares_with_real_pictures_and_with_reconstructions(
    evaluate: Evaluate, trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--weights", str(trained.folder.parent / "weights"), "--samples", "24", "--resamples", "30")
    out = tmp_path / "out"
    for order in ("halton", "raster"):
        result = evaluate("quality", *options, "--order", order, "--steps", "8", "--out", str(out))
        assert "Lite0-FD, real" in result.stdout
    files = sorted(out.glob("*.json"), key=lambda path: json.loads(path.read_text())["label"])
    reports = [json.loads(path.read_text()) for path in files]
    for report in reports:
        figures = report["figures"]
        assert set(figures["values"]) == {figure.name for figure in figures_module.FIGURES}
        assert figures["lite0"]["num_real"] == 12
        assert figures["lite0"]["reconstructions"]["fd"]["value"] > 0
        assert figures["values"]["lite0_fd_rec"] < figures["values"]["lite0_fd_real"], "the tokenizer is untrained"
    compared = CliRunner().invoke(commands["eval"], ["compare", *map(str, files)], catch_exceptions=False)
    told = json.loads(compared.stdout.splitlines()[-1])["changes"]
    assert [change["figure"] for change in told] == [figure.name for figure in figures_module.FIGURES]
    first, second = (report["figures"]["values"]["lite0_fd_real"] for report in reports)
    change = next(change for change in told if change["figure"] == "lite0_fd_real")
    assert change["relative"] == pytest.approx(second / first - 1)
    assert change["interval"][0] < change["relative"] < change["interval"][1]
    assert "### Intervals" in _report_text(out, tmp_path)

    def fail(*_arguments: Any) -> None:
        raise AssertionError("was stored already")

    monkeypatch.setattr(FakeLite0, "features", fail)
    again = evaluate("quality", *options, "--order", "halton", "--steps", "8", "--resamples", "10", "--out", str(out))
    assert again.exit_code == 0, "features are kept, whatever is made of them"


def test_what_differs_in_more_than_the_arm_is_not_compared(measured: list[dict[str, Any]], tmp_path: Path) -> None:
    changed = {
        "pictures": ("settings", {**measured[0]["settings"], "num_samples": 12}),
        "split": ("split", "train"),
        "other ways": ("figures", {**measured[0]["figures"], "num_resamples": 19}),
    }
    base = tmp_path / "base.json"
    base.write_text(json.dumps(measured[0]))
    for reason, (name, value) in changed.items():
        other = tmp_path / "other.json"
        other.write_text(json.dumps({**measured[0], "label": "other", name: value}))
        result = CliRunner().invoke(commands["eval"], ["compare", str(base), str(other)])
        assert result.exit_code == 1
        assert reason in result.output


def test_other_reconstructions_are_no_common_measure(measured: list[dict[str, Any]]) -> None:
    other = copy.deepcopy(measured[0])
    other["label"] = "other tokenizer"
    other["figures"]["reconstructions"] = "another"
    arms = group_arms([measured[0], other])
    assert [change.figure.name for change in changes(arms[1], arms[0])] == ["fd_eval"]


def test_evaluations_of_before_have_no_intervals_and_a_report_all_the_same(
    measured: list[dict[str, Any]], tmp_path: Path
) -> None:
    for report in measured:
        del report["figures"]
    write_report(measured, tmp_path / "arms.md")
    assert "### Intervals" not in (tmp_path / "arms.md").read_text()


def _report_text(folder: Path, out: Path) -> str:
    write_report(load_reports(folder), out / "arms.md")
    return (out / "arms.md").read_text()


@pytest.mark.usefixtures("_fake_lite0")
def test_a_tokenizer_is_judged_by_its_reconstructions(
    evaluate: Evaluate, trained: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate_cli, "make_run", lambda *_arguments, **_options: trained)
    assert "lite0" not in json.loads(evaluate("reconstruction").stdout)
    told = json.loads(evaluate("reconstruction", "--lite0").stdout)["lite0"]
    assert told["fd"]["interval"][0] < told["fd"]["value"] < told["fd"]["interval"][1]
    assert set(told) == {"fd", "kid"}
