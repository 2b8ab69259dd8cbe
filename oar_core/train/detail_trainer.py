"""The stages of a recipe for pictures that are written from coarse to fine."""

from dataclasses import dataclass
from pathlib import Path

from oar_core.errors import ConfigError
from oar_core.models.coarse_to_fine import CoarseToFineTokenizer
from oar_core.train.data import ImageSet
from oar_core.train.loop import train
from oar_core.train.run import Run, seeded_init
from oar_core.train.run_captions import RunCaptions
from oar_core.train.run_data import load_pictures
from oar_core.train.stage_folders import COARSE_TO_FINE_STAGE, VIEWS_STAGE
from oar_core.train.stage_weights import averaged_weights, is_trained
from oar_core.train.stages.coarse_to_fine import CoarseToFineStage
from oar_core.train.stages.detail_tokenizer import DetailTokenizerStage
from oar_core.train.stages.views import ViewsStage
from oar_core.train.view_net import ViewNet


def check_own(run: Run) -> None:
    """Raises ConfigError where the run's networks are not the recipe's."""
    adopted = run.adopted
    if adopted is not None:
        raise ConfigError(f"the run in {run.folder} goes on from {adopted.name}, whose stages are done")


@dataclass(frozen=True)
class DetailTrainer:
    """Trains stages as `StageTrainer` does."""

    run: Run

    def tokenizer_stage(self, images: ImageSet) -> DetailTokenizerStage:
        """Raises ConfigError where the features that it aligns to were not trained."""
        tokenizer, config = self.run.new_tokenizer(), self.run.recipe.detail_tokenizer_stage
        assert isinstance(tokenizer, CoarseToFineTokenizer), "the recipe is of another family"
        views = self.views() if config.alignment_weight else None
        return DetailTokenizerStage(images, tokenizer, config, views, ViewNet.width)

    def train_views(self) -> Path:
        """The frozen features that first tokens are drawn to."""
        check_own(self.run)
        loop = self.run.recipe.views_loop
        with seeded_init(loop.seed):
            stage = ViewsStage(load_pictures(self.run, "train"))
        return train(stage, loop, self.run.folder / VIEWS_STAGE, self.run.device)

    def views(self) -> ViewNet:
        """Raises ConfigError where they were not trained."""
        if not is_trained(self.run.folder / VIEWS_STAGE):
            raise ConfigError(
                f"first tokens are aligned to features, and {self.run.folder / VIEWS_STAGE} holds none that are trained"
                " to their end: run `oar train views` first, or set detail_tokenizer_stage.alignment_weight to 0"
            )
        net = ViewNet()
        net.load_state_dict(averaged_weights(self.run.folder / VIEWS_STAGE))
        return net.to(self.run.device).eval().requires_grad_(requires_grad=False)

    def train_coarse_to_fine(self) -> Path:
        """The backbone, on the pictures' tokens and on corrected ones."""
        check_own(self.run)
        recipe, config = self.run.recipe, self.run.recipe.coarse_to_fine_stage
        if recipe.details is None:
            raise ConfigError(f"recipe {recipe.name} is for a grid of tokens, whose first stage is any_order")
        tokenizer = self.run.tokenizer()
        assert isinstance(tokenizer, CoarseToFineTokenizer), "the recipe is of another family"
        images = load_pictures(self.run, "train") if config.corrected_share else None
        with seeded_init(recipe.any_order_loop.seed):
            backbone = self.run.new_backbone()
        captioner = RunCaptions(self.run).captioner(config.unconditional_share)
        stage = CoarseToFineStage(captioner, backbone, config, tokenizer, images, recipe.detail_tokenizer_stage.near)
        return train(stage, recipe.any_order_loop, self.run.folder / COARSE_TO_FINE_STAGE, self.run.device)
