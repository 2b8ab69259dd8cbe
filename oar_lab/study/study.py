"""The study of orders: which arms there are, and how each of them is trained and measured.

An arm is a way of training and a way of drawing. All arms have seen the same number of training pictures: those of the
any-order stage and of a fine-tuning on top of it, or as many in one order from the start. What was measured lies in one
JSON file a figure, under a name that says what it is; a study that was interrupted goes on with what is missing.
"""

import fcntl
import json
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch

from oar_core.errors import check_options
from oar_core.models.model import Model
from oar_core.order.plan import ADAPTIVE, CHOSEN_ORDERS, PlanSpec
from oar_core.sampling.defaults import default_plan, default_sampling
from oar_core.sampling.sampler import SamplingParams
from oar_core.stored import cached_json, write_json
from oar_core.train.model_export import ModelExport
from oar_core.train.run import Run
from oar_core.train.run_captions import RunCaptions
from oar_core.train.stage_folders import finetune_stage, policy_folder, scratch_stage
from oar_core.train.stage_trainer import STATS, StageTrainer
from oar_core.train.stages.order_finetune import DISTILLED, LOCALITY, RANDOM, arm
from oar_lab.eval.draws import DrawSettings
from oar_lab.eval.likelihood import bits_per_token
from oar_lab.eval.painting import PaintedPicture, paint_picture
from oar_lab.eval.quality import QualitySettings, measure_distances, measure_quality
from oar_lab.eval.reference import Reference
from oar_lab.eval.sheet import side_by_side
from oar_wire.options import OPTIONS

SHEET_PICTURES = 64
TUNING, LOCKS, LIKELIHOOD, DISTILLATION = "tuning", "locks", "likelihood", "distilled/stats.json"
GUIDANCE, GROUP_SIZES = "guidance", "group_sizes"  # what is tuned
CONSTANT, GROWING = "constant", "linear"  # guidance schedules


Options = tuple[tuple[str, Any], ...]  # of `oar_wire.options`, by name


@dataclass(frozen=True)
class Training:
    orders: str  # one of `order_finetune.ARMS`
    is_from_scratch: bool = False
    context_noise: float = 0.0  # of a fine-tuning
    score: str | None = None  # of distilled orders, where it is not the recipe's
    consensus: float = 0.0  # of a fine-tuning on distilled orders
    has_own_policy: bool = False  # trained alone, once the backbone is, and not beside it

    def stage(self, seed: int) -> str:
        if self.is_from_scratch:
            return scratch_stage(self.orders, seed)
        told = {"score": self.score, "context_noise": self.context_noise, "consensus": self.consensus}
        return finetune_stage(self.orders, seed, **told)

    def stages(self, seed: int) -> list[str]:
        """All that there is to train."""
        stage = self.stage(seed)
        return [stage, policy_folder(stage)] if self.has_own_policy else [stage]

    def is_done(self, run: Run, seed: int) -> bool:
        return all(map(run.is_trained, self.stages(seed)))

    def run(self, run: Run, seed: int) -> None:
        """Goes on with what is not trained yet."""
        recipe = run.recipe
        if self.is_from_scratch:
            recipe = replace(recipe, any_order_loop=replace(recipe.any_order_loop, seed=seed))
            replace(run, recipe=recipe).train_from_scratch(self.orders)
            return
        recipe = replace(
            recipe,
            order_finetune_loop=replace(recipe.order_finetune_loop, seed=seed),
            order_policy_loop=replace(recipe.order_policy_loop, seed=seed),
            order_finetune_stage=replace(
                arm(self.orders, recipe.order_finetune_stage),
                score=self.score,
                context_noise=self.context_noise,
                consensus=self.consensus,
            ),
        )
        run = replace(run, recipe=recipe)
        if not run.is_trained(self.stage(seed)):
            StageTrainer(run).train_order_finetune()
        if self.has_own_policy:
            StageTrainer(run).train_order_policy(self.stage(seed))


@dataclass(frozen=True)
class StudyArm:
    label: str
    training: Training
    order: str
    carries_claim: bool = False  # measured with several seeds
    options: Options = ()  # of its plan, where they are not the model's
    guidance_schedule: str = CONSTANT
    entropy_bounds: tuple[float, ...] = ()  # of adaptive groups, beside the fixed numbers of steps

    def __post_init__(self) -> None:
        check_options(dict(self.options))

    def option(self, name: str) -> Any:
        """Its value of an option of a drawing."""
        return dict(self.options).get(name, OPTIONS[name].default)


ANY_ORDER, SCRATCH = "any-order, random order", "raster from scratch"
RASTER, HALTON = "annealed to raster", "fine-tuned on Halton order"
OAR, OAR_POLICY = "OAR, every position scored", "OAR, order policy"
OAR_SHORTLIST = "OAR, shortlist of the order policy"
OAR_SHORTER = "OAR, shortlist of the order policy, three for each position"
CONSENSUS = "OAR, one order for all pictures"
LEAST_CERTAIN = f"{CONSENSUS}, the least certain position first"
BOUNDS = (2.0, 4.0, 8.0, 16.0)

_ARMS = (
    StudyArm(ANY_ORDER, Training(RANDOM), "random", carries_claim=True),
    StudyArm(RASTER, Training("raster"), "raster", carries_claim=True),
    StudyArm(
        OAR_POLICY,
        Training(DISTILLED, has_own_policy=True),
        "distilled",
        carries_claim=True,
        entropy_bounds=BOUNDS,
    ),
    StudyArm(OAR_SHORTLIST, Training(DISTILLED, has_own_policy=True), "shortlist"),
    StudyArm(OAR_SHORTER, Training(DISTILLED, has_own_policy=True), "shortlist", options=(("candidates", 3),)),
    StudyArm("OAR, order policy trained beside the backbone", Training(DISTILLED), "distilled"),
    # A policy of its own would go by scores, and leave the one order that this is about.
    StudyArm(CONSENSUS, Training(DISTILLED, consensus=1.0), "distilled", carries_claim=True),
    StudyArm(LEAST_CERTAIN, Training(DISTILLED, score="entropy", consensus=1.0), "distilled"),
    StudyArm(OAR, Training(DISTILLED), "confidence"),
    StudyArm("any-order, Halton order", Training(RANDOM), "halton"),
    StudyArm("any-order, confidence order", Training(RANDOM), "confidence"),
    StudyArm("any-order, likelihood order", Training(RANDOM), "likelihood"),
    StudyArm(
        "OAR, order policy, trained with context noise",
        Training(DISTILLED, context_noise=0.2, has_own_policy=True),
        "distilled",
    ),
    StudyArm(HALTON, Training("halton"), "halton", carries_claim=True),
    StudyArm("fine-tuned on locality orders", Training(LOCALITY), "locality"),
    StudyArm(SCRATCH, Training("raster", is_from_scratch=True), "raster"),
)
_GROWING_ARMS = (ANY_ORDER, RASTER, OAR_POLICY, OAR_SHORTLIST, CONSENSUS, OAR, HALTON)


def growing(label: str) -> str:
    """The arm of the same training and order whose guidance grows as the picture does."""
    return f"{label}, growing guidance"


STUDY_ARMS = _ARMS + tuple(
    replace(arm, label=growing(arm.label), guidance_schedule=GROWING, carries_claim=False, entropy_bounds=())
    for arm in _ARMS
    if arm.label in _GROWING_ARMS
)


@dataclass(frozen=True)
class StudyConfig:
    num_samples: int = 5000
    num_seeds: int = 3  # of the arms that carry the claim; the others have one
    steps: tuple[int | None, ...] = (None, 16, 32, 8)  # None: one position a step; claims stand on the first two
    guidances: tuple[float, ...] = (1.0, 1.25, 1.5, 2.0)
    last_guidances: tuple[float, ...] = (2.0, 3.0, 4.0)  # of guidance that grows: what it reaches
    group_sizes: tuple[str, ...] = ("cosine", "linear", "constant")  # of a fixed number of steps
    tuning_samples: int = 1000
    tuning_steps: int = 16
    batch_size: int = 64
    dtype: str = "float32"  # of the weights that draw; named in every figure


@dataclass(frozen=True)
class Tuned:
    """What an arm's pictures are drawn with, the best that was found for it."""

    guidance: float
    group_sizes: str


@dataclass(frozen=True)
class StudyFigure:
    arm: StudyArm
    seed: int
    steps: int | None
    entropy_bound: float | None = None

    @property
    def name(self) -> str:
        steps = "all" if self.steps is None else str(self.steps)
        size = steps if self.entropy_bound is None else f"bound{self.entropy_bound:g}"
        return f"{slug(self.arm.label)}.{size}.seed{self.seed}"


def figures(config: StudyConfig, arms: Sequence[StudyArm] = STUDY_ARMS) -> list[StudyFigure]:
    """What is to be measured, what the claims stand on first."""
    claims = [arm for arm in arms if arm.carries_claim]
    others = [arm for arm in arms if not arm.carries_claim]
    main, more = config.steps[:2], config.steps[2:]
    return [
        *(StudyFigure(arm, 0, steps) for steps, arm in product(main, claims)),
        *(StudyFigure(arm, seed, steps) for seed, steps, arm in product(range(1, config.num_seeds), main, claims)),
        *(StudyFigure(arm, 0, steps) for arm, steps in product(others, main)),
        *(StudyFigure(arm, 0, None, bound) for arm in arms for bound in arm.entropy_bounds),
        *(StudyFigure(arm, 0, steps) for arm, steps in product(arms, more)),
    ]


@dataclass(frozen=True)
class Study:
    run: Run
    config: StudyConfig
    out: Path  # of the JSON files; contact sheets and what was drawn stay in the run's folder
    arms: tuple[StudyArm, ...] = STUDY_ARMS

    def train(self) -> None:
        """Trains every arm that is not trained yet, in the sequence in which the figures want them, and keeps what was
        found out about the distilled orders."""
        stats = self.run.orders_folder / STATS
        if stats.exists():
            write_json(self.out / DISTILLATION, json.loads(stats.read_text(encoding="utf-8")))
        for training, seed in dict.fromkeys((figure.arm.training, figure.seed) for figure in self._figures):
            if not training.is_done(self.run, seed):
                training.run(self.run, seed)

    def measure(self, reference: Reference, steps: Sequence[int | None] | None = None) -> Generator[Path]:
        """Measures what is missing and can be measured, of these fixed numbers of steps alone where they are given, and
        yields each new file. Others may train and measure beside us: what matters most of what has become possible is
        next."""
        left = [
            figure
            for figure in self._figures
            if steps is None or (figure.entropy_bound is None and figure.steps in steps)
        ]
        while (figure := next(filter(self._can_be_measured, left), None)) is not None:
            left.remove(figure)
            with self._claimed(figure) as is_ours:
                if is_ours and not self.path(figure).exists():
                    self._measure(figure, reference)
                    yield self.path(figure)

    def measure_likelihood(self, num_images: int) -> Generator[Path]:
        """How well each arm that is trained tells held-out pictures in its own order, and in random ones: cheaper than
        any drawing, and without a choice of guidance or steps. Yields each new file."""
        token_ids, conditions = RunCaptions(self.run).sample(self.run.recipe.held_out, num_images)
        for member, seed in dict.fromkeys((figure.arm, figure.seed) for figure in self._figures):
            path = self.out / LIKELIHOOD / f"{slug(member.label)}.seed{seed}.json"
            is_told = member.order != "likelihood" and _is_plain(member)
            if not is_told or path.exists() or not member.training.is_done(self.run, seed):
                continue
            own_policy = member.training.has_own_policy
            backbone = self.run.backbone(member.training.stage(seed), own_policy=own_policy)
            bits = {
                name: bits_per_token(backbone, token_ids, conditions, name, candidates=member.option("candidates"))
                for name in {member.order, "random"}
            }
            told = {"own": bits[member.order], "random": bits["random"]}
            write_json(
                path, {"label": member.label, "order": member.order, "seed": seed, "num_images": len(token_ids), **told}
            )
            yield path

    def _can_be_measured(self, figure: StudyFigure) -> bool:
        return not self.path(figure).exists() and figure.arm.training.is_done(self.run, figure.seed)

    def missing(self) -> list[StudyFigure]:
        return [figure for figure in self._figures if not self.path(figure).exists()]

    def path(self, figure: StudyFigure) -> Path:
        return self.out / f"{figure.name}.json"

    def paintings(self, prompts: Sequence[str], steps: int | None, draw_seed: int) -> dict[str, list[PaintedPicture]]:
        """How each arm that is trained paints the prompts, all with the same noise."""
        return {
            arm.label: [self._paint(arm, prompt, steps, draw_seed) for prompt in prompts]
            for arm in filter(_is_plain, self.arms)
            if arm.training.is_done(self.run, 0)
        }

    def _paint(self, arm: StudyArm, prompt: str, steps: int | None, draw_seed: int) -> PaintedPicture:
        pipeline = self._pipeline(arm, 0, torch.float32)
        plan = draw_plan(pipeline, StudyFigure(arm, 0, steps), str(pipeline.defaults["group_sizes"]))
        return paint_picture(pipeline, prompt, draw_seed, plan, default_sampling(pipeline))

    def _pipeline(self, arm: StudyArm, seed: int, dtype: torch.dtype) -> Model:
        return ModelExport(self.run).pipeline(arm.training.stage(seed), dtype, own_policy=arm.training.has_own_policy)

    @property
    def _figures(self) -> list[StudyFigure]:
        return figures(self.config, self.arms)

    def _measure(self, figure: StudyFigure, reference: Reference) -> None:
        config = self.config
        pipeline = self._pipeline(figure.arm, figure.seed, getattr(torch, config.dtype))
        wanted = draw_settings(pipeline, figure, self._tuned(figure.arm, reference))
        settings = QualitySettings(num_samples=config.num_samples, batch_size=config.batch_size)
        result = measure_quality(pipeline, reference, wanted, settings, self.run.folder / "samples")
        if figure.arm.order not in CHOSEN_ORDERS:
            result.report["orders"]["rank_maps"] = {}  # the same for every class
        report = {
            "label": figure.arm.label,
            "recipe": self.run.recipe.name,
            "split": self.run.recipe.held_out,
            "training": {**asdict(figure.arm.training), "seed": figure.seed, "pictures": self._num_pictures},
            **result.report,
        }
        pair = result.samples[:SHEET_PICTURES], result.real[:SHEET_PICTURES]
        sheet = self.run.folder / "sheets" / f"{figure.name}.png"
        sheet.parent.mkdir(exist_ok=True)
        side_by_side(*pair, is_crisp=pipeline.pixel_art).save(sheet, optimize=True)
        write_json(self.path(figure), report)

    @property
    def _num_pictures(self) -> int:
        return self.run.recipe.any_order_loop.num_images + self.run.recipe.order_finetune_loop.num_images

    def _tuned(self, arm: StudyArm, reference: Reference) -> Tuned:
        """The arm's best guidance, then its best group sizes, on fewer and other pictures than its figures have; found
        once. Where hard positions come last, steps that fill many of them at the end cost most."""
        sizes = self.config.group_sizes
        scales = self.config.guidances if _is_plain(arm) else self.config.last_guidances

        def tune(name: str, choices: dict[Any, Tuned]) -> Any:
            def compute() -> dict[str, Any]:
                found = {key: self._distance(arm, tuned, reference) for key, tuned in choices.items()}
                return {"label": arm.label, name: min(found, key=found.__getitem__), "fd_eval": found}

            return cached_json(self.out / TUNING / name / f"{slug(arm.label)}.json", compute)[name]

        guidance = tune(GUIDANCE, {scale: Tuned(scale, sizes[0]) for scale in scales})
        return Tuned(guidance, tune(GROUP_SIZES, {name: Tuned(guidance, name) for name in sizes}))

    def _distance(self, arm: StudyArm, tuned: Tuned, reference: Reference) -> float:
        """FD-eval of the few pictures that settings are chosen by."""
        config = self.config
        pipeline = self._pipeline(arm, 0, getattr(torch, config.dtype))
        wanted = draw_settings(pipeline, StudyFigure(arm, TUNING_SEED, config.tuning_steps), tuned)
        settings = QualitySettings(num_samples=config.tuning_samples, batch_size=config.batch_size)
        return measure_distances(pipeline, reference, wanted, settings, self.run.folder / "samples").fd_eval

    @contextmanager
    def _claimed(self, figure: StudyFigure) -> Generator[bool]:
        """Whether nobody else is at this figure; the claim ends with the process that has it."""
        path = self.run.folder / LOCKS / figure.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True


TUNING_SEED = 1000  # of draws
TOP_P = 0.95  # of all arms, whatever a recipe ships with


def draw_settings(pipeline: Model, figure: StudyFigure, tuned: Tuned) -> DrawSettings:
    schedule = figure.arm.guidance_schedule
    sampling = SamplingParams(guidance=tuned.guidance, guidance_schedule=schedule, top_p=TOP_P)
    return DrawSettings(draw_plan(pipeline, figure, tuned.group_sizes), sampling, figure.seed)


def draw_plan(pipeline: Model, figure: StudyFigure, group_sizes: str) -> PlanSpec:
    """Group sizes count where the number of steps is fixed and not all of them."""
    arm = figure.arm
    changes = {"group_sizes": pipeline.defaults["group_sizes"], **dict(arm.options)}
    plan = replace(default_plan(pipeline, order=arm.order, **changes), steps=figure.steps)
    if figure.entropy_bound is not None:
        return replace(plan, group_sizes=ADAPTIVE, entropy_bound=figure.entropy_bound)
    # One position a step has no sizes.
    return plan if figure.steps is None else replace(plan, group_sizes=group_sizes)


def _is_plain(arm: StudyArm) -> bool:
    """Not the growing twin of another: its likelihoods and paintings are its own."""
    return arm.guidance_schedule == CONSTANT


def slug(text: str) -> str:
    return "-".join("".join(letter if letter.isalnum() else " " for letter in text.lower()).split())
