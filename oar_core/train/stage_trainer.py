"""The stages of a run, each trained in its own folder of the run."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from tqdm import tqdm

from oar_core.errors import ConfigError
from oar_core.models.oar.backbone import OarBackbone
from oar_core.models.ordered import OrderedBackbone
from oar_core.order.paths import Grid
from oar_core.order.plan import PROMPTED
from oar_core.train.attributes import AttributeVocabulary
from oar_core.train.captions import CAPTION_SOURCES
from oar_core.train.detail_trainer import DetailTrainer, check_own
from oar_core.train.ema import settle_norms
from oar_core.train.evaluator import EvaluatorNet, save_evaluator
from oar_core.train.kept_orders import KeptOrders
from oar_core.train.loop import CHECKPOINT, train
from oar_core.train.order_stats import foreground_patches, order_stats, score_agreement
from oar_core.train.parallel import Processes
from oar_core.train.precision import fast_dtype
from oar_core.train.run import Run, seeded_init
from oar_core.train.run_captions import RunCaptions
from oar_core.train.run_data import load_pictures, load_tokens
from oar_core.train.stage_folders import (
    ANY_ORDER_STAGE,
    DECODER_STAGE,
    EVALUATOR_STAGE,
    TOKENIZER_STAGE,
    finetune_stage,
    policy_folder,
    scratch_stage,
)
from oar_core.train.stage_weights import averaged_weights
from oar_core.train.stages.any_order import AnyOrderStage
from oar_core.train.stages.decoder import DecoderStage
from oar_core.train.stages.evaluator import EvaluatorStage
from oar_core.train.stages.order_distill import SCORES, OrderSet, distill_orders, extract_orders, load_orders
from oar_core.train.stages.order_finetune import DISTILLED, OrderFinetuneStage, arm
from oar_core.train.stages.order_policy import OrderPolicyStage
from oar_core.train.stages.tokenizer import TokenizerStage
from oar_core.train.tokens import Captioner

STATS = "stats.json"
NUM_COMPARED = 64  # pictures on which the score functions are compared


@dataclass(frozen=True)
class StageTrainer:
    """Trains a run's stages. Each goes on from its latest checkpoint, and returns the path of its last one."""

    run: Run

    def train_tokenizer(self) -> Path:
        check_own(self.run)
        recipe = self.run.recipe
        images = load_pictures(self.run, "train")
        with seeded_init(recipe.tokenizer_loop.seed):
            if recipe.details is None:
                stage = TokenizerStage(images, recipe.grid_tokenizer, recipe.tokenizer_stage)
            else:
                stage = DetailTrainer(self.run).tokenizer_stage(images)
        return train(stage, recipe.tokenizer_loop, self.run.folder / TOKENIZER_STAGE, self.run.device)

    def train_decoder(self) -> Path:
        """The tokenizer's decoder and nothing else: all tokens, and what was trained on them, stay valid."""
        check_own(self.run)
        recipe = self.run.recipe
        config = recipe.grid_tokenizer  # raises before anything is done
        images, tokens = load_pictures(self.run, "train"), load_tokens(self.run, "train")
        with seeded_init(recipe.decoder_loop.seed):
            stage = DecoderStage(
                images,
                tokens.token_ids,
                config,
                recipe.decoder_stage,
                averaged_weights(self.run.folder / TOKENIZER_STAGE, "tokenizer."),
            )
        return train(stage, recipe.decoder_loop, self.run.folder / DECODER_STAGE, self.run.device)

    def train_any_order(self) -> Path:
        check_own(self.run)
        recipe = self.run.recipe
        config = recipe.grid_backbone  # raises before anything is done
        tokens = load_tokens(self.run, "train")
        text = RunCaptions(self.run).text_tokenizer(tokens.rows)
        caption = CAPTION_SOURCES[recipe.caption_source]
        with seeded_init(recipe.any_order_loop.seed):
            stage = AnyOrderStage(tokens, text, caption, config, recipe.any_order_stage)
        return train(stage, recipe.any_order_loop, self.run.folder / ANY_ORDER_STAGE, self.run.device)

    def distill(self) -> OrderSet:
        """Stage 2, on the any-order backbone; goes on from the shards that are there, then writes the statistics."""
        config = self.run.recipe.distill
        # Half precision is twice as fast on a CPU that has it, and orders hardly differ (Spearman 0.99).
        backbone = self.run.backbone(ANY_ORDER_STAGE).to(fast_dtype(self.run.device))
        captioner = RunCaptions(self.run).captioner(0.0)
        stamp = {"checkpoint": (self.run.folder / ANY_ORDER_STAGE / CHECKPOINT).stat().st_mtime_ns}
        orders = distill_orders(backbone, captioner, config, self.run.orders_folder, stamp)
        pixels = load_pictures(self.run, "train").pixels
        if Processes.current().is_first:
            agreed = self._agreement(orders, backbone, captioner)
            stats = _order_stats(orders, self.run.spec.grid, pixels) | {"agreement": agreed}
            (self.run.orders_folder / STATS).write_text(json.dumps(stats, indent=1) + "\n", encoding="utf-8")
        return orders

    def train_order_finetune(self) -> Path:
        """Stage 3, from the any-order weights. See `order_finetune.arm` for other orders than distilled ones."""
        recipe, config = self.run.recipe, self.run.recipe.order_finetune_stage
        captioner = RunCaptions(self.run).captioner(config.unconditional_share)
        backbone = self.run.backbone(ANY_ORDER_STAGE).train()
        backbone.policy = None
        if config.policy_weight:
            with seeded_init(recipe.order_finetune_loop.seed):
                backbone.policy = backbone.new_policy(recipe.order_policy)
        distilled = self.finetuning_orders() if config.orders == DISTILLED else None
        loop = recipe.order_finetune_loop
        reported = {"score": config.score, "context_noise": config.context_noise, "consensus": config.consensus}
        name = finetune_stage(config.orders, loop.seed, **reported)
        if config.orders == PROMPTED:
            backbone.order_tree = KeptOrders(self.run).keep(name)
        stage = OrderFinetuneStage(captioner, backbone, config, distilled)
        return train(stage, loop, self.run.folder / name, self.run.device)

    def train_from_scratch(self, orders: str) -> Path:
        """A rival of the three stages: one order from the first step on, for as many pictures as stages 1 and 3 see."""
        check_own(self.run)
        recipe = self.run.recipe
        config = replace(arm(orders, recipe.order_finetune_stage), random_share=0.0, is_annealed=False)
        num_images = recipe.any_order_loop.num_images + recipe.order_finetune_loop.num_images
        loop = replace(recipe.any_order_loop, num_images=num_images)
        with seeded_init(loop.seed):
            backbone = OarBackbone(recipe.grid_backbone)
        captioner = RunCaptions(self.run).captioner(config.unconditional_share)
        stage = OrderFinetuneStage(captioner, backbone, config)
        return train(stage, loop, self.run.folder / scratch_stage(orders, loop.seed), self.run.device)

    def train_order_policy(self, stage: str | None = None) -> Path:
        """An order policy alone, on the memory of a stage's backbone; that of the latest stage unless named."""
        recipe, stage = self.run.recipe, stage or self.run.latest_stage
        backbone = self.run.backbone(stage)
        with seeded_init(recipe.order_policy_loop.seed):
            policy = backbone.new_policy(recipe.order_policy)
        config = recipe.order_finetune_stage
        policy_stage = OrderPolicyStage(
            RunCaptions(self.run).captioner(config.unconditional_share),
            backbone,
            policy,
            self.finetuning_orders(),
            num_ranks=config.policy_ranks,
            teacher=config.policy_teacher,
        )
        return train(policy_stage, recipe.order_policy_loop, self.run.folder / policy_folder(stage), self.run.device)

    def finetuning_orders(self) -> OrderSet:
        """Orders that stage 3 trains on. One order for all pictures is one for those that were not distilled too."""
        share = self.run.recipe.order_finetune_stage.consensus
        distilled = load_orders(self.run.finetuning_orders_folder).drawn_together(share)
        if share < 1:
            return distilled
        everything = torch.arange(len(load_tokens(self.run, "train")))
        return OrderSet(everything, distilled.orders[:1].expand(len(everything), -1))

    def train_evaluator(self) -> Path:
        """Trains, then writes what `Evaluator.load` reads. Raises ConfigError where the recipe has no attributes."""
        recipe = self.run.recipe
        if not recipe.attributes:
            raise ConfigError(f"recipe {recipe.name} names no attributes for an evaluator to read")
        images = load_pictures(self.run, "train")
        vocabulary = AttributeVocabulary.build(recipe.attributes, images.rows)
        with seeded_init(recipe.evaluator_loop.seed):
            stage = EvaluatorStage(images, vocabulary, recipe.evaluator, recipe.evaluator_stage)
        folder = self.run.folder / EVALUATOR_STAGE
        train(stage, recipe.evaluator_loop, folder, self.run.device)
        net = EvaluatorNet(recipe.evaluator, vocabulary.sizes)
        net.load_state_dict(averaged_weights(folder))
        settle_norms(net.to(self.run.device), images, recipe.evaluator_loop.seed)
        save_evaluator(folder, recipe.name, net, vocabulary)
        return folder

    def _agreement(self, orders: OrderSet, backbone: OrderedBackbone, captioner: Captioner) -> dict[str, Any]:
        """Between the score functions, on the first pictures that were distilled."""
        indices = orders.indices[:NUM_COMPARED]
        condition = captioner.fixed(indices, self.run.recipe.distill.seed, self.run.device)
        token_ids = captioner.tokens.token_ids[indices].long().to(self.run.device)
        found: dict[str, Tensor] = {}
        for score in tqdm(SCORES, desc="comparing scores", unit="score"):
            config = replace(self.run.recipe.distill, score=score)
            found[score] = extract_orders(backbone, condition, token_ids, config).cpu()
        return score_agreement(found)


def _order_stats(orders: OrderSet, grid: Grid, pixels: UInt8[np.ndarray, "M Y X 3"]) -> dict[str, Any]:
    foreground = [foreground_patches(pixels[part.numpy()], grid) for part in orders.indices.split(1024)]
    return asdict(order_stats(orders.orders, grid, torch.cat(foreground)))
