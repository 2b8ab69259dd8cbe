"""A run: one recipe, its data, and a folder with a folder for each stage.

`tokenizer`, `decoder` (if at all), `any_order`, `orders/<score>` (distillation), `order_finetune` (or
`order_finetune-<arm>`), `from_scratch-<arm>`, and `<stage>-policy`: an order policy that was trained alone, on the
memory of that stage's backbone. Apart from them stands `evaluator`, the network that evaluations measure with.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from oar_core.errors import ConfigError
from oar_core.models.base import Backbone, BackboneSpec, ImageTokenizer
from oar_core.models.load import family, load_order_tree
from oar_core.models.ordered import POLICY_PREFIX, OrderedBackbone
from oar_core.order.tree import OrderTree
from oar_core.train.adopted import AdoptedModel
from oar_core.train.loop import CHECKPOINT
from oar_core.train.parallel import joined
from oar_core.train.recipe import Recipe
from oar_core.train.stage_folders import (
    ANY_ORDER_STAGE,
    COARSE_TO_FINE_STAGE,
    DECODER_STAGE,
    FINETUNE_STAGE,
    TOKENIZER_STAGE,
    policy_folder,
)
from oar_core.train.stage_weights import averaged_weights, is_trained

ORDERS = "orders"


@dataclass(frozen=True)
class Run:
    """A training of a recipe: its folder, data and device."""

    recipe: Recipe
    data: Path
    folder: Path
    device: torch.device

    @property
    def adopted(self) -> AdoptedModel | None:
        """The model whose networks stand for the recipe's; see `adopt`."""
        return AdoptedModel.find(self.folder)

    @property
    def spec(self) -> BackboneSpec:
        with torch.device("meta"):
            return self.new_backbone().spec

    def new_backbone(self) -> Backbone:
        """A backbone without trained weights."""
        adopted, recipe = self.adopted, self.recipe
        if adopted is not None:
            return adopted.new_backbone()
        return family(recipe.family).build_backbone(recipe.family, recipe.backbone.to_dict())

    def new_tokenizer(self) -> ImageTokenizer:
        """A tokenizer without trained weights; that of an adopted model has its own."""
        adopted, recipe = self.adopted, self.recipe
        if adopted is not None:
            return adopted.tokenizer()
        return family(recipe.family).build_tokenizer(recipe.family, recipe.tokenizer.to_dict())

    @property
    def orders_folder(self) -> Path:
        """Folder of the score that distillation uses: its orders, and the tree that is fitted to them."""
        return self.folder / ORDERS / self.recipe.distill.name

    @property
    def finetuning_orders_folder(self) -> Path:
        """Folder of the score that fine-tuning names, or of the recipe's."""
        distill, score = self.recipe.distill, self.recipe.order_finetune_stage.score
        return self.folder / ORDERS / replace(distill, score=score or distill.score).name

    @property
    def latest_order_tree(self) -> OrderTree | None:
        """The latest order tree that was fitted or searched, if any."""
        return load_order_tree(self.orders_folder, self.spec.num_tokens)

    def own_order_tree(self, stage: str) -> OrderTree | None:
        """The order tree that a stage was fine-tuned on, if any."""
        return load_order_tree(self.folder / stage, self.spec.num_tokens)

    @property
    def latest_stage(self) -> str:
        """The latest stage that trains a backbone: fine-tuning on distilled orders where it has begun, any-order
        otherwise."""
        if self.recipe.details is not None:
            return COARSE_TO_FINE_STAGE
        return FINETUNE_STAGE if (self.folder / FINETUNE_STAGE / CHECKPOINT).exists() else ANY_ORDER_STAGE

    def tokenizer(self) -> ImageTokenizer:
        """The trained (averaged) tokenizer, whose decoder is moved by the recipe's share towards the later one where
        that was trained to its end (network interpolation, Wang et al. 2018, arXiv 1809.00219). Raises CheckpointError
        when its stage has not been run."""
        module = self.new_tokenizer()
        if self.adopted is None:
            module.load_state_dict(_tokenizer_state(self))
        return module.to(self.device, memory_format=torch.channels_last).eval()  # pyright: ignore[reportCallIssue]

    def backbone(self, stage: str | None = None, *, own_policy: bool = True) -> OrderedBackbone:
        """The trained (averaged) backbone of a stage, of the latest one unless named, with its order policy if there
        is one: the one that was trained alone, unless it is not wanted, or else the one that was trained beside it.
        Raises CheckpointError for a stage not run yet."""
        stage = stage or self.latest_stage
        module = self.new_backbone()
        if not isinstance(module, OrderedBackbone):
            raise ConfigError(f"recipe {self.recipe.name} writes in one order, and has no stages of orders")
        state = averaged_weights(self.folder / stage)
        alone = policy_folder(stage)
        if own_policy and (self.folder / alone / CHECKPOINT).exists():
            state = {name: value for name, value in state.items() if not name.startswith(POLICY_PREFIX)}
            state |= {POLICY_PREFIX + name: value for name, value in averaged_weights(self.folder / alone).items()}
        if any(name.startswith(POLICY_PREFIX) for name in state):
            module.policy = module.new_policy(self.recipe.order_policy)
        module.load_state_dict(state)
        module.order_score = self.recipe.distill.order_score
        # The latest tree serves a stage that was taught none, so that its orders can be measured along any backbone.
        module.order_tree = self.own_order_tree(stage) or self.latest_order_tree
        return module.to(self.device).eval()

    def drawing_backbone(self, stage: str, *, own_policy: bool = True) -> Backbone:
        """`backbone`, of families that write in one order too."""
        if self.recipe.details is None or self.adopted is not None:
            return self.backbone(stage, own_policy=own_policy)
        module = self.new_backbone()
        module.load_state_dict(averaged_weights(self.folder / stage))
        return module.to(self.device).eval()


def _tokenizer_state(run: Run) -> dict[str, Tensor]:
    state = averaged_weights(run.folder / TOKENIZER_STAGE, "tokenizer.")
    if is_trained(run.folder / DECODER_STAGE):
        later = averaged_weights(run.folder / DECODER_STAGE, "tokenizer.")
        state = {name: value.lerp(later[name], run.recipe.decoder_share) for name, value in state.items()}
    return state


@contextmanager
def together(run: Run) -> Iterator[Run]:
    """The run of this process among those that `torchrun` started, if it did."""
    with joined(run.device) as device:
        yield replace(run, device=device)


@contextmanager
def seeded_init(seed: int) -> Iterator[None]:
    """Seeds parameter initialisation, and leaves the global generator as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
