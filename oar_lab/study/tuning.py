"""Tunes the guidance and the group sizes of each arm."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from oar_core.models.model import Model
from oar_core.order.plan import ADAPTIVE, PlanSpec
from oar_core.sampling.defaults import default_plan
from oar_core.sampling.sampler import SamplingParams
from oar_core.stored import cached_json
from oar_core.train.model_export import ModelExport
from oar_core.train.run import Run
from oar_lab.eval.draws import DrawSettings
from oar_lab.eval.quality import QualitySettings, measure_distances
from oar_lab.eval.reference import Reference
from oar_lab.study.study_arms import StudyArm

TUNING = "tuning"
GUIDANCE, GROUP_SIZES = "guidance", "group_sizes"  # what is tuned
TUNING_SEED = 1000  # of draws
TOP_P = 0.95  # of all arms, whatever a recipe ships with


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
    """The best guidance and group sizes that were found for an arm."""

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


@dataclass(frozen=True)
class Tuning:
    """Choices of settings, each found once and kept in a file."""

    run: Run
    config: StudyConfig
    out: Path  # of the study

    def tuned(self, arm: StudyArm, reference: Reference) -> Tuned:
        """The arm's best guidance, then its best group sizes, on fewer and other pictures than its figures have; found
        once. Where hard positions come last, steps that fill many of them at the end cost most."""
        sizes = self.config.group_sizes
        scales = self.config.guidances if arm.is_plain else self.config.last_guidances

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
        pipeline = load_arm(self.run, arm, 0, getattr(torch, config.dtype))
        requested = draw_settings(pipeline, StudyFigure(arm, TUNING_SEED, config.tuning_steps), tuned)
        settings = QualitySettings(num_samples=config.tuning_samples, batch_size=config.batch_size)
        return measure_distances(pipeline, reference, requested, settings, self.run.folder / "samples").fd_eval


def load_arm(run: Run, arm: StudyArm, seed: int, dtype: torch.dtype) -> Model:
    """The model that the arm draws with."""
    return ModelExport(run).pipeline(arm.training.stage(seed), dtype, own_policy=arm.training.has_own_policy)


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


def slug(text: str) -> str:
    return "-".join("".join(letter if letter.isalnum() else " " for letter in text.lower()).split())
