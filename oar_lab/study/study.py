"""The study of orders: which arms there are, and how each of them is trained and measured.

An arm is a way of training and a way of drawing. All arms have seen the same number of training pictures: those of the
any-order stage and of a fine-tuning on top of it, or as many in one order from the start. What was measured lies in one
JSON file a figure, under a name that says what it is; a study that was interrupted goes on with what is missing.
"""

import fcntl
import json
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import torch

from oar_core.order.plan import CHOSEN_ORDERS
from oar_core.sampling.defaults import default_sampling
from oar_core.stored import write_json
from oar_core.train.run import Run
from oar_core.train.run_captions import RunCaptions
from oar_core.train.stage_trainer import STATS
from oar_lab.eval.likelihood import bits_per_token
from oar_lab.eval.painting import PaintedPicture, paint_picture
from oar_lab.eval.quality import QualitySettings, measure_quality
from oar_lab.eval.reference import Reference
from oar_lab.eval.sheet import side_by_side
from oar_lab.study.study_arms import STUDY_ARMS, StudyArm
from oar_lab.study.tuning import StudyConfig, StudyFigure, Tuning, draw_plan, draw_settings, load_arm, slug

SHEET_PICTURES = 64
LOCKS, LIKELIHOOD, DISTILLATION = "locks", "likelihood", "distilled/stats.json"


def figures(config: StudyConfig, arms: Sequence[StudyArm] = STUDY_ARMS) -> list[StudyFigure]:
    """Figures to measure; those that the claims need come first."""
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
            with locked(self.run.folder / LOCKS / figure.name) as is_ours:
                if is_ours and not self.path(figure).exists():
                    self._measure(figure, reference)
                    yield self.path(figure)

    def measure_likelihood(self, num_images: int) -> Generator[Path]:
        """Measures the likelihood of held-out pictures under each trained arm, in its own order and in random ones:
        cheaper than any drawing, and without a choice of guidance or steps. Yields each new file."""
        token_ids, conditions = RunCaptions(self.run).sample(self.run.recipe.held_out, num_images)
        for member, seed in dict.fromkeys((figure.arm, figure.seed) for figure in self._figures):
            path = self.out / LIKELIHOOD / f"{slug(member.label)}.seed{seed}.json"
            is_reported = member.order != "likelihood" and member.is_plain
            if not is_reported or path.exists() or not member.training.is_done(self.run, seed):
                continue
            own_policy = member.training.has_own_policy
            backbone = self.run.backbone(member.training.stage(seed), own_policy=own_policy)
            bits = {
                name: bits_per_token(backbone, token_ids, conditions, name, candidates=member.option("candidates"))
                for name in {member.order, "random"}
            }
            reported = {"own": bits[member.order], "random": bits["random"]}
            write_json(
                path,
                {"label": member.label, "order": member.order, "seed": seed, "num_images": len(token_ids), **reported},
            )
            yield path

    def _can_be_measured(self, figure: StudyFigure) -> bool:
        return not self.path(figure).exists() and figure.arm.training.is_done(self.run, figure.seed)

    def missing(self) -> list[StudyFigure]:
        return [figure for figure in self._figures if not self.path(figure).exists()]

    def path(self, figure: StudyFigure) -> Path:
        return self.out / f"{figure.name}.json"

    def paintings(self, prompts: Sequence[str], steps: int | None, draw_seed: int) -> dict[str, list[PaintedPicture]]:
        """Paintings of the prompts by each arm that is trained, all with the same noise."""
        return {
            arm.label: [self._paint(arm, prompt, steps, draw_seed) for prompt in prompts]
            for arm in self.arms
            if arm.is_plain and arm.training.is_done(self.run, 0)
        }

    def _paint(self, arm: StudyArm, prompt: str, steps: int | None, draw_seed: int) -> PaintedPicture:
        pipeline = load_arm(self.run, arm, 0, torch.float32)
        plan = draw_plan(pipeline, StudyFigure(arm, 0, steps), str(pipeline.defaults["group_sizes"]))
        return paint_picture(pipeline, prompt, draw_seed, plan, default_sampling(pipeline))

    @property
    def _figures(self) -> list[StudyFigure]:
        return figures(self.config, self.arms)

    def _measure(self, figure: StudyFigure, reference: Reference) -> None:
        config = self.config
        pipeline = load_arm(self.run, figure.arm, figure.seed, getattr(torch, config.dtype))
        drawing = draw_settings(pipeline, figure, Tuning(self.run, config, self.out).tuned(figure.arm, reference))
        settings = QualitySettings(num_samples=config.num_samples, batch_size=config.batch_size)
        result = measure_quality(pipeline, reference, drawing, settings, self.run.folder / "samples")
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


@contextmanager
def locked(path: Path) -> Generator[bool]:
    """Tells whether nobody else has the lock of this file, which ends with the process that has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
