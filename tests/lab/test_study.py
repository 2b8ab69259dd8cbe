"""The study of orders, from a run to its page: every arm trained, measured once, and told."""

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from oar_cli import study as study_cli
from oar_cli.lab import commands
from oar_core.errors import ConfigError
from oar_core.models.load import load_model
from oar_core.models.model import ANY_ORDER_BACKBONE
from oar_core.train.adoption import adopt
from oar_core.train.attributes import Attribute
from oar_core.train.evaluator import Evaluator, EvaluatorConfig
from oar_core.train.loop import CHECKPOINT, LoopConfig
from oar_core.train.model_export import ModelExport
from oar_core.train.recipe import Recipe
from oar_core.train.run import Run
from oar_core.train.run_data import CACHE, load_pictures
from oar_core.train.stage_folders import ANY_ORDER_STAGE, EVALUATOR_STAGE, TOKENIZER_STAGE
from oar_core.train.stage_trainer import StageTrainer
from oar_core.train.stage_weights import is_trained
from oar_lab.eval.arms import group_arms
from oar_lab.eval.reference import Reference
from oar_lab.study.claims import claims
from oar_lab.study.report import write_study_report
from oar_lab.study.study import LOCKS, Study, figures, locked
from oar_lab.study.study_arms import (
    ANY_ORDER,
    CONSENSUS,
    HALTON,
    OAR,
    OAR_POLICY,
    RASTER,
    SCRATCH,
    STUDY_ARMS,
    Training,
    growing,
)
from oar_lab.study.tuning import StudyConfig, StudyFigure

CPU = torch.device("cpu")
LABELS = (ANY_ORDER, RASTER, OAR_POLICY, OAR, SCRATCH, growing(RASTER))
CONFIG = StudyConfig(
    num_samples=24,
    num_seeds=2,
    steps=(None, 4, 2),
    guidances=(1.0, 2.0),
    last_guidances=(1.5, 3.0),
    tuning_samples=12,
    tuning_steps=2,
    batch_size=12,
    dtype="float32",
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, picture_folder: Path, base_recipe: Recipe) -> Study:
    """Trained, and nothing measured."""
    recipe = replace(
        base_recipe,
        attributes=(Attribute("text"),),
        evaluator=EvaluatorConfig(widths=(8, 16)),
        evaluator_loop=LoopConfig(num_images=240, batch_size=24, seed=1),
    )
    folder = tmp_path_factory.mktemp("study")
    run = Run(recipe, picture_folder, folder / "run", CPU)
    StageTrainer(run).train_tokenizer()
    StageTrainer(run).train_any_order()
    StageTrainer(run).train_evaluator()
    StageTrainer(run).distill()
    arms = tuple(replace(arm, entropy_bounds=arm.entropy_bounds[:1]) for arm in STUDY_ARMS if arm.label in LABELS)
    made = Study(run, CONFIG, folder / "figures" / "tiny", arms)
    made.train()
    return made


@pytest.fixture(scope="module")
def reference(study: Study) -> Reference:
    run = study.run
    evaluator = Evaluator.load(run.folder / EVALUATOR_STAGE, CPU)
    return Reference.read(evaluator, load_pictures(run, "test"), load_pictures(run, "train"), run.folder / CACHE)


@pytest.fixture(scope="module")
def measured(study: Study, reference: Reference) -> list[dict[str, Any]]:
    paths = list(study.measure(reference))
    assert len(paths) == len(set(paths)) == len(figures(CONFIG, study.arms))
    assert not study.missing()
    return [json.loads(path.read_text()) for path in paths]


def test_claims_are_measured_first_and_nothing_twice() -> None:
    found = figures(StudyConfig())
    assert len({figure.name for figure in found}) == len(found)
    assert {figure.arm.label for figure in found[:5]} == {ANY_ORDER, RASTER, OAR_POLICY, CONSENSUS, HALTON}
    assert {figure.seed for figure in found if figure.arm.carries_claim and figure.steps == 16} == {0, 1, 2}
    assert {figure.seed for figure in found if not figure.arm.carries_claim} == {0}


def test_every_arm_is_trained_in_a_folder_of_its_own(study: Study) -> None:
    stages = {stage for figure in figures(CONFIG, study.arms) for stage in figure.arm.training.stages(figure.seed)}
    assert stages == {
        "order_finetune", "order_finetune-seed1", "order_finetune-policy", "order_finetune-seed1-policy",
        "order_finetune-random", "order_finetune-random-seed1",
        "order_finetune-raster", "order_finetune-raster-seed1", "from_scratch-raster",
    }  # fmt: skip
    assert all(is_trained(study.run.folder / stage) for stage in stages)
    assert not is_trained(study.run.folder / "order_finetune-halton")
    assert Training("distilled", context_noise=0.2).stage(1) == "order_finetune-noise0.2-seed1"
    assert Training("distilled", consensus=1.0).stage(0) == "order_finetune-consensus1"
    assert Training("distilled", score="entropy", consensus=1.0).stage(0) == "order_finetune-entropy-consensus1"


def test_a_policy_of_its_own_comes_after_a_backbone_that_is_trained(study: Study, tmp_path: Path) -> None:
    run = replace(study.run, folder=tmp_path / "run")
    shutil.copytree(study.run.folder, run.folder)
    shutil.rmtree(run.folder / "order_finetune-policy")
    before = (run.folder / "order_finetune" / CHECKPOINT).read_bytes()
    beside = run.backbone("order_finetune").policy
    training = Training("distilled", has_own_policy=True)
    assert not training.is_done(run, 0)
    training.run(run, 0)
    assert training.is_done(run, 0)
    assert (run.folder / "order_finetune" / CHECKPOINT).read_bytes() == before
    assert beside is not None
    for own_policy, same in ((False, True), (True, False)):
        policy = ModelExport(run).pipeline("order_finetune", torch.float32, own_policy=own_policy).backbone.policy
        assert policy is not None
        assert torch.equal(policy.head.weight, beside.head.weight) == same


def test_the_arm_from_scratch_sees_as_many_pictures_as_two_stages(study: Study) -> None:
    loop, finetune = study.run.recipe.any_order_loop, study.run.recipe.order_finetune_loop
    curve = (study.run.folder / "from_scratch-raster" / "curve.csv").read_text().splitlines()
    assert int(curve[-1].split(",")[0]) == (loop.num_images + finetune.num_images) // loop.batch_size


def test_seeds_differ_and_arms_start_from_one_backbone(study: Study) -> None:
    states = {
        stage: study.run.backbone(stage).state_dict()["context.norm.weight"]
        for stage in (ANY_ORDER_STAGE, "order_finetune-raster", "order_finetune-raster-seed1", "from_scratch-raster")
    }
    assert len({tuple(state.tolist()) for state in states.values()}) == 4


def test_each_figure_says_how_it_came_about(measured: list[dict[str, Any]], study: Study) -> None:
    by_label = {report["label"]: report for report in measured}
    assert set(by_label) == set(LABELS)
    training = {
        "orders": "raster",
        "is_from_scratch": True,
        "context_noise": 0.0,
        "score": None,
        "consensus": 0.0,
        "has_own_policy": False,
        "seed": 0,
        "pictures": 96,
    }
    assert by_label[SCRATCH]["training"] == training
    assert by_label[OAR]["settings"]["plan"]["order"] == "confidence"
    assert not by_label[RASTER]["orders"]["rank_maps"]
    tuned = json.loads((study.out / "tuning" / "guidance" / "annealed-to-raster.json").read_text())
    assert by_label[RASTER]["settings"]["sampling"]["guidance"] == tuned["guidance"]
    assert "guidance_schedule" not in by_label[RASTER]["settings"]["sampling"]
    grown = by_label[growing(RASTER)]["settings"]["sampling"]
    assert grown["guidance_schedule"] == "linear"
    assert grown["guidance"] in CONFIG.last_guidances
    assert set(tuned["fd_eval"]) == {"1.0", "2.0"}
    sizes = json.loads((study.out / "tuning" / "group_sizes" / "annealed-to-raster.json").read_text())
    assert sizes["fd_eval"][sizes["group_sizes"]] == min(sizes["fd_eval"].values())
    raster = [report["settings"]["plan"] for report in measured if report["label"] == RASTER]
    assert {plan["group_sizes"] for plan in raster if plan["steps"] is not None} == {sizes["group_sizes"]}
    assert {report["settings"]["seed"] for report in measured if report["label"] == ANY_ORDER} == {0, 1}
    adaptive = [report for report in measured if report["settings"]["plan"]["group_sizes"] == "adaptive"]
    assert [report["label"] for report in adaptive] == [OAR_POLICY]


@pytest.mark.usefixtures("measured")
def test_what_is_measured_is_not_measured_again(study: Study, reference: Reference, tmp_path: Path) -> None:
    assert list(study.measure(reference)) == []
    without_checkpoints = replace(study, run=replace(study.run, folder=tmp_path))
    assert list(without_checkpoints.measure(reference)) == []


def test_a_figure_that_another_process_is_at_is_left_to_it(study: Study, reference: Reference, tmp_path: Path) -> None:
    beside = replace(study, out=tmp_path, config=replace(CONFIG, num_seeds=1, steps=(2,)), arms=study.arms[:1])
    (figure,) = beside.missing()
    with locked(beside.run.folder / LOCKS / figure.name) as is_ours:
        assert is_ours
        assert list(beside.measure(reference)) == []
    assert len(list(beside.measure(reference))) == 1


def test_an_arm_that_is_not_trained_is_left_for_later(study: Study, reference: Reference, tmp_path: Path) -> None:
    arms = tuple(arm for arm in STUDY_ARMS if arm.training.orders == "halton")
    later = replace(study, out=tmp_path, arms=arms)
    assert list(later.measure(reference)) == []
    assert {figure.arm for figure in later.missing()} == set(arms)


def test_likelihoods_are_measured_once_for_each_arm_and_seed_in_its_own_order(study: Study) -> None:
    paths = list(study.measure_likelihood(6))
    told = {(entry["label"], entry["seed"]): entry for entry in (json.loads(path.read_text()) for path in paths)}
    assert set(told) == {(f.arm.label, f.seed) for f in figures(CONFIG, study.arms) if f.arm.label != growing(RASTER)}
    assert told[ANY_ORDER, 0]["own"] == told[ANY_ORDER, 0]["random"]
    assert told[RASTER, 0]["own"] != told[RASTER, 0]["random"]
    assert told[RASTER, 0]["own"] != told[RASTER, 1]["own"]
    assert not list(study.measure_likelihood(6))


def test_the_page_is_made_from_json_alone(measured: list[dict[str, Any]], study: Study, tmp_path: Path) -> None:
    assert measured
    list(study.measure_likelihood(6))
    folder = study.out.parent
    (folder / "notes.md").write_text("## What came out\n\nSquares.\n")
    result = CliRunner().invoke(commands["study"], ["report", str(folder), "-o", str(tmp_path / "orders.md")])
    assert result.exit_code == 0, result.output
    text = (tmp_path / "orders.md").read_text()
    for part in (
        "Squares.",
        "### Claims",
        "### Adaptive groups",
        "### Distilled orders",
        "±",
        "### Likelihood of 6 held-out",
    ):
        assert part in text
    pictures = [path.name for path in (tmp_path / "orders").iterdir()]
    assert {"tiny-orders.png", "tiny-distilled.png", "tiny-mean-steps.png"} <= set(pictures)
    assert all(name in text for name in pictures)


def test_the_page_tells_of_a_row_that_is_of_two_trainings(
    measured: list[dict[str, Any]], study: Study, tmp_path: Path
) -> None:
    folder = tmp_path / "figures"
    shutil.copytree(study.out, folder / "tiny")
    write_study_report(folder, tmp_path / "one.md")
    assert "†" not in (tmp_path / "one.md").read_text()
    path = folder / "tiny" / "annealed-to-raster.all.seed1.json"
    report = json.loads(path.read_text())
    path.write_text(json.dumps(report | {"model": report["model"] | {"hash": "another"}}))
    write_study_report(folder, tmp_path / "two.md")
    assert "| annealed to raster † |" in (tmp_path / "two.md").read_text()


def test_arms_paint_the_same_prompts_side_by_side(study: Study, tmp_path: Path) -> None:
    paintings = study.paintings(["a red square", "a blue square"], 4, 3)
    assert list(paintings) == [arm.label for arm in study.arms if arm.label != growing(RASTER)]
    assert all([int(painting.steps.max()) for painting in row] == [4, 4] for row in paintings.values())
    ranks = {label: row[0].ranks.tolist() for label, row in paintings.items()}
    assert ranks[RASTER] == ranks[SCRATCH] == list(range(16))
    assert ranks[ANY_ORDER] != ranks[RASTER]
    nothing = replace(study, run=replace(study.run, folder=tmp_path))
    assert nothing.paintings(["a red square"], 4, 3) == {}


def changed(measured: list[dict[str, Any]], distances: dict[tuple[str, int | None], float]) -> list[dict[str, Any]]:
    """Reports with other distances, by label and steps."""
    reports = [copy.deepcopy(report) for report in measured]
    for report in reports:
        plan = report["settings"]["plan"]
        steps = -1 if plan["group_sizes"] == "adaptive" else plan["steps"]
        report["distances"]["fd_eval"] = distances.get((report["label"], steps), 10.0)
    return reports


def test_claims_are_judged_by_the_figures(measured: list[dict[str, Any]]) -> None:
    for report in measured:
        if report["settings"]["plan"]["steps"] == 4:
            report["settings"]["plan"]["steps"] = 16
    good = {(OAR, None): 8.0, (OAR, 16): 8.1, (OAR_POLICY, None): 8.1, (OAR_POLICY, 16): 8.4, (OAR_POLICY, -1): 8.2}
    verdicts = _verdicts(changed(measured, good))
    for label in (OAR, OAR_POLICY):
        assert verdicts[f"{label}, against any-order in random order, one token a step"]
        assert verdicts[f"{label}, 16 steps, against one token a step"]
    assert verdicts[f"{OAR_POLICY}, 16 steps, against annealed raster's best"]
    bad = {(OAR_POLICY, None): 9.0, (OAR_POLICY, 16): 9.6, (RASTER, 16): 8.5}
    verdicts = _verdicts(changed(measured, good | bad))
    assert not verdicts[f"{OAR_POLICY}, against any-order in random order, one token a step"]
    assert not verdicts[f"{OAR_POLICY}, 16 steps, against annealed raster's best"]
    assert not verdicts[f"{OAR_POLICY}, 16 steps, against one token a step"]
    assert verdicts[f"{OAR_POLICY}, against annealed raster, one token a step"]
    alone = [report for report in measured if report["label"] == ANY_ORDER]
    assert set(_verdicts(alone).values()) <= {None, True, False}
    assert _verdicts(alone)[f"{OAR}, against annealed raster, one token a step"] is None


def test_claims_of_growing_guidance_compare_what_has_it(measured: list[dict[str, Any]]) -> None:
    assert not [text for text in _told(measured) if growing(OAR) in text]
    grown = [copy.deepcopy(report) for report in measured if report["label"] in (ANY_ORDER, OAR)]
    for report in grown:
        report["label"] = growing(report["label"])
    distances = {(growing(OAR), None): 8.0, (growing(ANY_ORDER), None): 9.6, (growing(RASTER), None): 7.9}
    told, verdicts = _told(reports := changed([*measured, *grown], distances)), _verdicts(reports)
    text = f"{growing(OAR)}, one token a step, against random order under the same"
    assert told[text].startswith("-16.7 %")
    assert verdicts[text]
    assert not verdicts[f"{growing(OAR)}, one token a step, against annealed raster's best under the same"]
    assert told[f"{OAR}, against any-order in random order, one token a step"].startswith("+0.0 %")


def test_claims_compare_the_seeds_that_both_have(measured: list[dict[str, Any]]) -> None:
    reports = changed(measured, {(OAR, None): 8.0, (OAR_POLICY, None): 8.1, (OAR_POLICY, -1): 8.2})
    text = f"{OAR_POLICY}, against scoring every position, one token a step"
    before = _told(reports)[text]
    for report in reports:
        if report["label"] == OAR_POLICY and report["settings"]["seed"] != 0:
            report["distances"]["fd_eval"] = 99.0  # of a backbone whose positions were never all scored
    assert _told(reports)[text] == before
    assert _told(reports)["adaptive groups that lose at most 2 % to one token a step"].startswith("none") is False
    assert "(53.55 ± 64.28 against" in _told(reports)[f"{OAR_POLICY}, against annealed raster, one token a step"]


def test_a_claim_is_judged_by_fd_eval_and_told_of_fd_rec(measured: list[dict[str, Any]]) -> None:
    reports = changed(measured, {(OAR, None): 9.0})
    for report in reports:
        report["fd_to_reconstructions"] = 1.0 if report["label"] == OAR else 2.0
    text = f"{OAR}, against any-order in random order, one token a step"
    claim = next(claim for claim in claims(group_arms(reports)) if claim.text == text)
    assert claim.measured.startswith("-10.0 %")
    assert claim.by_rec.startswith("-50.0 % (1.00 against 2.00")
    assert claim.is_met is False


def _told(reports: list[dict[str, Any]]) -> dict[str, str]:
    return {claim.text: claim.measured for claim in claims(group_arms(reports))}


def _verdicts(reports: list[dict[str, Any]]) -> dict[str, bool | None]:
    return {claim.text: claim.is_met for claim in claims(group_arms(reports))}


def test_the_commands_train_and_measure(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture_folder: Path
) -> None:
    monkeypatch.setattr(study_cli, "make_run", lambda **_options: study.run)
    monkeypatch.setattr(study_cli, "StudyConfig", lambda **wishes: replace(CONFIG, steps=(None, 16), **wishes))
    options = ["--data", str(picture_folder), "--run", str(study.run.folder), "--out", str(tmp_path / "out"),
               "--arm", RASTER, "--seeds", "1", "--samples", "12"]  # fmt: skip
    assert CliRunner().invoke(commands["study"], ["train", *options], catch_exceptions=False).exit_code == 0
    for steps, name, missing in (("8", "", 2), ("0", "all", 1), ("16", "16", 0)):
        result = CliRunner().invoke(commands["study"], ["measure", *options, "--steps", steps], catch_exceptions=False)
        written = [str(tmp_path / "out" / f"annealed-to-raster.{name}.seed0.json")] if name else []
        assert result.stdout.split() == written
        assert f"{missing} figures are missing" in result.stderr


@pytest.fixture
def exported(study: Study, tmp_path: Path) -> Path:
    ModelExport(study.run).export(tmp_path / "model", "order_finetune")
    return tmp_path / "model"


def test_a_run_adopts_a_model_and_goes_on_from_it(study: Study, exported: Path, tmp_path: Path) -> None:
    adopting = replace(study.run, folder=tmp_path / "adopted")
    adopt(adopting, exported)
    assert is_trained(adopting.folder / ANY_ORDER_STAGE)
    ours, theirs = adopting.backbone(ANY_ORDER_STAGE), study.run.backbone("order_finetune")
    assert not ours.has_policy
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, theirs.state_dict()[name], atol=2e-3, rtol=2e-3)
    StageTrainer(adopting).distill()
    StageTrainer(adopting).train_order_finetune()
    with pytest.raises(ConfigError, match="before anything is trained"):
        adopt(adopting, exported)


def test_a_run_begins_with_the_backbone_before_fine_tuning_where_a_model_has_it(study: Study, tmp_path: Path) -> None:
    ModelExport(study.run).export(tmp_path / "model", "order_finetune", with_any_order=True)
    adopting = replace(study.run, folder=tmp_path / "adopted")
    adopt(adopting, tmp_path / "model")
    for name, value in adopting.backbone(ANY_ORDER_STAGE).state_dict().items():
        torch.testing.assert_close(value, study.run.backbone(ANY_ORDER_STAGE).state_dict()[name].half().float())
    drawing = load_model(tmp_path / "model", "cpu", torch.float32)
    ModelExport(study.run).export(tmp_path / "model", "order_finetune")
    assert not (tmp_path / "model" / ANY_ORDER_BACKBONE).exists(), "a model that is exported anew leaves nothing behind"
    assert load_model(tmp_path / "model", "cpu", torch.float32).model_hash == drawing.model_hash


def test_a_model_of_another_shape_is_not_adopted(study: Study, exported: Path, tmp_path: Path) -> None:
    recipe = study.run.recipe
    wider = replace(recipe, backbone=replace(recipe.backbone, width=32))
    other = replace(study.run, recipe=wider, folder=tmp_path / "other")
    with pytest.raises(ConfigError, match="not that of recipe tiny"):
        adopt(other, exported)
    assert not is_trained(other.folder / TOKENIZER_STAGE), "nothing is taken of what does not fit"


def test_a_model_draws_by_its_policy_unless_its_recipe_says_otherwise(study: Study, tmp_path: Path) -> None:
    recipe = study.run.recipe
    spiral = replace(study.run, recipe=replace(recipe, defaults=replace(recipe.defaults, order="spiral")))
    for number, (run, stage, order) in enumerate(
        ((study.run, "order_finetune", "distilled"), (study.run, ANY_ORDER_STAGE, "random"), (spiral, None, "spiral"))
    ):
        ModelExport(run).export(tmp_path / str(number), stage)
        assert json.loads((tmp_path / str(number) / "config.json").read_text())["defaults"]["order"] == order


def test_a_tokenizer_alone_is_exported_and_adopted(study: Study, tmp_path: Path) -> None:
    ModelExport(study.run).export(tmp_path / "alone", TOKENIZER_STAGE)
    assert {path.name for path in (tmp_path / "alone").iterdir()} == {"config.json", "tokenizer.safetensors"}
    recipe = study.run.recipe
    wider = replace(recipe, backbone=replace(recipe.backbone, width=32))
    other = replace(study.run, recipe=wider, folder=tmp_path / "other")
    adopt(other, tmp_path / "alone", only_tokenizer=True)
    assert is_trained(other.folder / TOKENIZER_STAGE)
    assert not is_trained(other.folder / ANY_ORDER_STAGE)
    images = load_pictures(other, "train").images(torch.arange(4))
    assert other.tokenizer().encode(images).equal(study.run.tokenizer().encode(images))


def test_figures_are_named_by_what_they_are() -> None:
    arm = STUDY_ARMS[2]
    assert StudyFigure(arm, 1, None).name == "oar-order-policy.all.seed1"
    assert StudyFigure(arm, 0, None, 4.0).name == "oar-order-policy.bound4.seed0"
