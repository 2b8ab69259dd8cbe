"""The arms of the study: ways of training, and ways of drawing."""

from dataclasses import dataclass, replace
from typing import Any

from oar_core.errors import check_options
from oar_core.train.run import Run
from oar_core.train.stage_folders import finetune_stage, policy_folder, scratch_stage
from oar_core.train.stage_trainer import StageTrainer
from oar_core.train.stage_weights import is_trained
from oar_core.train.stages.order_finetune import DISTILLED, LOCALITY, RANDOM, arm
from oar_wire.options import OPTIONS

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
        reported = {"score": self.score, "context_noise": self.context_noise, "consensus": self.consensus}
        return finetune_stage(self.orders, seed, **reported)

    def stages(self, seed: int) -> list[str]:
        """All that there is to train."""
        stage = self.stage(seed)
        return [stage, policy_folder(stage)] if self.has_own_policy else [stage]

    def is_done(self, run: Run, seed: int) -> bool:
        return all(is_trained(run.folder / stage) for stage in self.stages(seed))

    def run(self, run: Run, seed: int) -> None:
        """Goes on with what is not trained yet."""
        recipe = run.recipe
        if self.is_from_scratch:
            recipe = replace(recipe, any_order_loop=replace(recipe.any_order_loop, seed=seed))
            StageTrainer(replace(run, recipe=recipe)).train_from_scratch(self.orders)
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
        if not is_trained(run.folder / self.stage(seed)):
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

    @property
    def is_plain(self) -> bool:
        """Not the growing twin of another: its likelihoods and paintings are its own."""
        return self.guidance_schedule == CONSTANT


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
        OAR_POLICY, Training(DISTILLED, has_own_policy=True), "distilled", carries_claim=True, entropy_bounds=BOUNDS
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
