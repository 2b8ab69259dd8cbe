"""A recipe's stages, run in one folder, each in a folder of its own, then `export` to a model folder.

`tokenizer`, `decoder` (if at all), `any_order`, `orders/<score>` (distillation), `order_finetune` (or
`order_finetune-<arm>`), `from_scratch-<arm>`, and `<stage>-policy`: an order policy that was trained alone, on the
memory of that stage's backbone. Apart from them stands `evaluator`, the network that evaluations measure with.
"""

import json
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from oar_core.digests import module_digest
from oar_core.errors import CheckpointError, ConfigError
from oar_core.models.base import Backbone, BackboneSpec, Conditioner, ImageTokenizer, Prefix
from oar_core.models.classes import ClassConditioner
from oar_core.models.coarse_to_fine import CoarseToFineTokenizer
from oar_core.models.load import FORMAT, NATIVE, family, load_any_order, load_tokenizer, read_config
from oar_core.models.model import ANY_ORDER_BACKBONE, BACKBONE, CONFIG, POLICY, TOKENIZER, Model, in_number_format
from oar_core.models.oar.backbone import OarBackbone
from oar_core.models.oar.vqgan import VQGAN
from oar_core.models.ordered import POLICY_PREFIX, OrderedBackbone
from oar_core.order.paths import Grid
from oar_core.stored import digest
from oar_core.text import TEXT, TextTokenizer
from oar_core.train.adopted import AdoptedModel, check_order
from oar_core.train.attributes import AttributeVocabulary
from oar_core.train.captions import CAPTION_SOURCES, Row, class_caption, plain_caption
from oar_core.train.checkpoint import (
    load_checkpoint,
    load_checkpoint_meta,
    load_tensors,
    save_checkpoint,
    save_tensors,
    under_prefix,
)
from oar_core.train.columns import add_columns
from oar_core.train.data import ImageSet, load_images
from oar_core.train.ema import settle_norms
from oar_core.train.evaluator import EvaluatorNet, save_evaluator
from oar_core.train.loop import CHECKPOINT, num_steps, train
from oar_core.train.order_stats import agreement, foreground_patches, order_stats
from oar_core.train.parallel import Processes, first_alone, joined
from oar_core.train.precision import fast_dtype
from oar_core.train.recipes import RECIPES, Recipe
from oar_core.train.stage_folders import (
    ANY_ORDER_STAGE,
    COARSE_TO_FINE_STAGE,
    DECODER_STAGE,
    EVALUATOR_STAGE,
    FINETUNE_STAGE,
    TOKENIZER_STAGE,
    VIEWS_STAGE,
    finetune_stage,
    policy_folder,
    scratch_stage,
    taught_order,
)
from oar_core.train.stages.any_order import AnyOrderStage
from oar_core.train.stages.coarse_to_fine import CoarseToFineStage
from oar_core.train.stages.decoder import DecoderStage
from oar_core.train.stages.detail_tokenizer import DetailTokenizerStage
from oar_core.train.stages.evaluator import EvaluatorStage
from oar_core.train.stages.order_distill import SCORES, OrderSet, distill_orders, extract_orders, load_orders
from oar_core.train.stages.order_finetune import DISTILLED, OrderFinetuneStage, arm
from oar_core.train.stages.order_policy import OrderPolicyStage
from oar_core.train.stages.tokenizer import TokenizerStage
from oar_core.train.stages.views import ViewsStage
from oar_core.train.tokens import Captioner, TokenSet, tokenize
from oar_core.train.view_net import ViewNet
from oar_core.weights import file_digest
from oar_wire.vocabulary import Vocabulary

ORDERS, CACHE = "orders", "cache"
STATS = "stats.json"
NUM_COMPARED = 64  # pictures on which the score functions are compared


@dataclass(frozen=True)
class Run:
    """Where a recipe's training happens, on which data and device."""

    recipe: Recipe
    data: Path
    folder: Path
    device: torch.device

    def images(self, split: str) -> ImageSet:
        recipe, adopted = self.recipe, self.adopted
        size = recipe.tokenizer.image_size if adopted is None else adopted.image_size
        with first_alone():
            images = load_images(self.data, split, size, self.folder / CACHE, recipe.fit, recipe.kept_rows)
        return replace(images, rows=add_columns(images.rows, recipe.column_source))

    @property
    def adopted(self) -> AdoptedModel | None:
        """The model whose networks stand for the recipe's; see `adopt`."""
        return AdoptedModel.find(self.folder)

    @property
    def spec(self) -> BackboneSpec:
        """Of the backbone."""
        with torch.device("meta"):
            return self._new_backbone().spec

    def _new_backbone(self) -> Backbone:
        adopted, recipe = self.adopted, self.recipe
        if adopted is not None:
            return adopted.new_backbone()
        return family(recipe.family).build_backbone(recipe.family, recipe.backbone.to_dict())

    def _new_tokenizer(self) -> ImageTokenizer:
        adopted, recipe = self.adopted, self.recipe
        if adopted is not None:
            return adopted.tokenizer()
        return family(recipe.family).build_tokenizer(recipe.family, recipe.tokenizer.to_dict())

    def _check_own(self) -> None:
        """Raises ConfigError where the run's networks are not the recipe's."""
        adopted = self.adopted
        if adopted is not None:
            raise ConfigError(f"the run in {self.folder} goes on from {adopted.name}, whose stages are done")

    def train_tokenizer(self) -> Path:
        self._check_own()
        recipe, images = self.recipe, self.images("train")
        with seeded_init(recipe.tokenizer_loop.seed):
            if recipe.details is None:
                stage = TokenizerStage(images, recipe.grid_tokenizer, recipe.tokenizer_stage)
            else:
                stage = self._detail_stage(images)
        return train(stage, recipe.tokenizer_loop, self.folder / TOKENIZER_STAGE, self.device)

    def _detail_stage(self, images: ImageSet) -> DetailTokenizerStage:
        tokenizer, config = self._new_tokenizer(), self.recipe.detail_tokenizer_stage
        assert isinstance(tokenizer, CoarseToFineTokenizer), "the recipe is of another family"
        views = self.views() if config.alignment_weight else None
        return DetailTokenizerStage(images, tokenizer, config, views, ViewNet.width)

    def train_views(self) -> Path:
        """The frozen features that first tokens are drawn to."""
        self._check_own()
        loop = self.recipe.views_loop
        with seeded_init(loop.seed):
            stage = ViewsStage(self.images("train"))
        return train(stage, loop, self.folder / VIEWS_STAGE, self.device)

    def views(self) -> ViewNet:
        """Raises ConfigError where they were not trained."""
        if not self.is_trained(VIEWS_STAGE):
            raise ConfigError(
                f"first tokens are aligned to features, and {self.folder / VIEWS_STAGE} holds none that are trained to"
                " their end: run `oar train views` first, or set detail_tokenizer_stage.alignment_weight to 0"
            )
        net = ViewNet()
        net.load_state_dict(self._averaged(VIEWS_STAGE, ""))
        return net.to(self.device).eval().requires_grad_(requires_grad=False)

    def train_coarse_to_fine(self) -> Path:
        """The backbone of a recipe that writes from coarse to fine, on the pictures' tokens and on corrected ones."""
        self._check_own()
        recipe, config = self.recipe, self.recipe.coarse_to_fine_stage
        if recipe.details is None:
            raise ConfigError(f"recipe {recipe.name} is for a grid of tokens, whose first stage is any_order")
        tokens, tokenizer = self.tokens("train"), self.tokenizer()
        assert isinstance(tokenizer, CoarseToFineTokenizer), "the recipe is of another family"
        images = self.images("train") if config.corrected_share else None
        with seeded_init(recipe.any_order_loop.seed):
            backbone = self._new_backbone()
        captioner = self._captioner(tokens, config.unconditional_share)
        stage = CoarseToFineStage(captioner, backbone, config, tokenizer, images, recipe.detail_tokenizer_stage.near)
        return train(stage, recipe.any_order_loop, self.folder / COARSE_TO_FINE_STAGE, self.device)

    def train_decoder(self) -> Path:
        """The tokenizer's decoder and nothing else: all tokens, and what was trained on them, stay valid."""
        self._check_own()
        recipe = self.recipe
        _ = recipe.grid_tokenizer  # raises before anything is done
        images, tokens = self.images("train"), self.tokens("train")
        with seeded_init(recipe.decoder_loop.seed):
            stage = DecoderStage(
                images,
                tokens.token_ids,
                recipe.grid_tokenizer,
                recipe.decoder_stage,
                self._averaged(TOKENIZER_STAGE, "tokenizer."),
            )
        return train(stage, recipe.decoder_loop, self.folder / DECODER_STAGE, self.device)

    def train_any_order(self) -> Path:
        self._check_own()
        recipe = self.recipe
        _ = recipe.grid_backbone  # raises before anything is done
        tokens = self.tokens("train")
        text = self.text_tokenizer(tokens.rows)
        caption = CAPTION_SOURCES[recipe.caption_source]
        with seeded_init(recipe.any_order_loop.seed):
            stage = AnyOrderStage(tokens, text, caption, recipe.grid_backbone, recipe.any_order_stage)
        return train(stage, recipe.any_order_loop, self.folder / ANY_ORDER_STAGE, self.device)

    def adopt(self, folder: Path, *, only_tokenizer: bool = False) -> None:
        """Begins the run with a model folder: its tokenizers and backbone (see `load_any_order`) take the place of the
        first two stages, or its image tokenizer alone that of the first.

        A native model has to have the recipe's networks. One of another family brings its own, and is trained on
        orders. Raises ConfigError where that cannot be, WeightsError for a folder that cannot be read.
        """
        config = read_config(folder)
        if config["family"] != NATIVE and not only_tokenizer:
            self._adopt_networks(config, folder)
            return
        tokenizer, origin = load_tokenizer(folder), file_digest(folder / TOKENIZER)
        parts: list[tuple[str, str, nn.Module]] = [(TOKENIZER_STAGE, "tokenizer.", tokenizer)]
        if not only_tokenizer:
            backbone = load_any_order(folder)
            origin = digest(module_digest(backbone), module_digest(tokenizer))
            parts.append((ANY_ORDER_STAGE, "", backbone))
        for stage, _, module in parts:
            self._check_adoption(stage, module)
        for stage, prefix, module in parts:
            averaged = {f"ema/{prefix}{name}": value for name, value in module.state_dict().items()}
            save_checkpoint(self.folder / stage / CHECKPOINT, averaged, {"adopted": origin, "loop": None})
        if not only_tokenizer:
            TextTokenizer.load(folder).save(self.folder)

    def _adopt_networks(self, config: dict[str, Any], folder: Path) -> None:
        with torch.device("meta"):
            check_order(config, family(config["family"]).build_backbone(config["family"], config["backbone"]))
        self._check_new(ANY_ORDER_STAGE)
        backbone = load_any_order(folder)
        AdoptedModel.take(folder, self.folder)
        origin = digest(module_digest(backbone), file_digest(folder / TOKENIZER))
        averaged = {f"ema/{name}": value for name, value in backbone.state_dict().items()}
        save_checkpoint(self.folder / ANY_ORDER_STAGE / CHECKPOINT, averaged, {"adopted": origin, "loop": None})

    def _check_adoption(self, stage: str, module: nn.Module) -> None:
        wanted = self.recipe.tokenizer if isinstance(module, VQGAN) else self.recipe.backbone
        if not isinstance(module, VQGAN | OarBackbone) or module.config != wanted:
            raise ConfigError(f"the network of stage {stage} is not that of recipe {self.recipe.name}")
        self._check_new(stage)

    def _check_new(self, stage: str) -> None:
        """Raises ConfigError where the stage was begun."""
        path = self.folder / stage / CHECKPOINT
        if path.exists():
            raise ConfigError(f"{path} exists; a run adopts a model before anything is trained in it")

    def distill(self) -> OrderSet:
        """Stage 2, on the any-order backbone; goes on from the shards that are there, then writes the statistics."""
        config = self.recipe.distill
        # Half precision is twice as fast on a CPU that has it, and orders hardly differ (Spearman 0.99).
        tokens, backbone = self.tokens("train"), self.backbone(ANY_ORDER_STAGE).to(fast_dtype(self.device))
        captioner = self._captioner(tokens, 0.0)
        stamp = {"checkpoint": (self.folder / ANY_ORDER_STAGE / CHECKPOINT).stat().st_mtime_ns}
        orders = distill_orders(backbone, captioner, config, self.orders_folder, stamp)
        pixels = self.images("train").pixels
        if Processes.current().is_first:
            agreed = self._agreement(orders, backbone, captioner)
            stats = _order_stats(orders, self.spec.grid, pixels) | {"agreement": agreed}
            (self.orders_folder / STATS).write_text(json.dumps(stats, indent=1) + "\n", encoding="utf-8")
        return orders

    def train_order_finetune(self) -> Path:
        """Stage 3, from the any-order weights. See `order_finetune.arm` for other orders than distilled ones."""
        recipe, config = self.recipe, self.recipe.order_finetune_stage
        captioner = self._captioner(self.tokens("train"), config.unconditional_share)
        backbone = self.backbone(ANY_ORDER_STAGE).train()
        backbone.policy = None
        if config.policy_weight:
            with seeded_init(recipe.order_finetune_loop.seed):
                backbone.policy = backbone.new_policy(recipe.order_policy)
        distilled = self.finetuning_orders() if config.orders == DISTILLED else None
        stage = OrderFinetuneStage(captioner, backbone, config, distilled)
        loop = recipe.order_finetune_loop
        told = {"score": config.score, "context_noise": config.context_noise, "consensus": config.consensus}
        name = finetune_stage(config.orders, loop.seed, **told)
        return train(stage, loop, self.folder / name, self.device)

    def train_from_scratch(self, orders: str) -> Path:
        """A rival of the three stages: one order from the first step on, for as many pictures as stages 1 and 3 see."""
        self._check_own()
        recipe = self.recipe
        config = replace(arm(orders, recipe.order_finetune_stage), random_share=0.0, is_annealed=False)
        num_images = recipe.any_order_loop.num_images + recipe.order_finetune_loop.num_images
        loop = replace(recipe.any_order_loop, num_images=num_images)
        with seeded_init(loop.seed):
            backbone = OarBackbone(recipe.grid_backbone)
        stage = OrderFinetuneStage(self._captioner(self.tokens("train"), config.unconditional_share), backbone, config)
        return train(stage, loop, self.folder / scratch_stage(orders, loop.seed), self.device)

    def train_order_policy(self, stage: str | None = None) -> Path:
        """An order policy alone, on the memory of a stage's backbone; that of the latest stage unless named."""
        recipe, stage = self.recipe, stage or self.latest_stage
        backbone = self.backbone(stage)
        with seeded_init(recipe.order_policy_loop.seed):
            policy = backbone.new_policy(recipe.order_policy)
        config = recipe.order_finetune_stage
        policy_stage = OrderPolicyStage(
            self._captioner(self.tokens("train"), config.unconditional_share),
            backbone,
            policy,
            self.finetuning_orders(),
            num_ranks=config.policy_ranks,
            teacher=config.policy_teacher,
        )
        return train(policy_stage, recipe.order_policy_loop, self.folder / policy_folder(stage), self.device)

    def finetuning_orders(self) -> OrderSet:
        """What stage 3 trains on. One order for all pictures is one for those that were not distilled too."""
        share = self.recipe.order_finetune_stage.consensus
        distilled = load_orders(self.orders_folder).drawn_together(share)
        if share < 1:
            return distilled
        everything = torch.arange(len(self.tokens("train")))
        return OrderSet(everything, distilled.orders[:1].expand(len(everything), -1))

    @property
    def orders_folder(self) -> Path:
        """Of the score that fine-tuning names, or of the recipe's."""
        distill, score = self.recipe.distill, self.recipe.order_finetune_stage.score
        return self.folder / ORDERS / replace(distill, score=score or distill.score).name

    @property
    def latest_stage(self) -> str:
        """Of those that train a backbone: fine-tuning on distilled orders where it has begun, any-order otherwise."""
        if self.recipe.details is not None:
            return COARSE_TO_FINE_STAGE
        return FINETUNE_STAGE if (self.folder / FINETUNE_STAGE / CHECKPOINT).exists() else ANY_ORDER_STAGE

    def train_evaluator(self) -> Path:
        """Trains, then writes what `Evaluator.load` reads. Raises ConfigError where the recipe has no attributes."""
        recipe = self.recipe
        if not recipe.attributes:
            raise ConfigError(f"recipe {recipe.name} names no attributes for an evaluator to read")
        images = self.images("train")
        vocabulary = AttributeVocabulary.build(recipe.attributes, images.rows)
        with seeded_init(recipe.evaluator_loop.seed):
            stage = EvaluatorStage(images, vocabulary, recipe.evaluator, recipe.evaluator_stage)
        folder = self.folder / EVALUATOR_STAGE
        train(stage, recipe.evaluator_loop, folder, self.device)
        net = EvaluatorNet(recipe.evaluator, vocabulary.sizes)
        net.load_state_dict(self._averaged(EVALUATOR_STAGE, ""))
        settle_norms(net.to(self.device), images, recipe.evaluator_loop.seed)
        save_evaluator(folder, recipe.name, net, vocabulary)
        return folder

    def tokenizer(self) -> ImageTokenizer:
        """The trained (averaged) tokenizer, whose decoder is moved by the recipe's share towards the later one where
        that was trained to its end (network interpolation, Wang et al. 2018, arXiv 1809.00219). Raises CheckpointError
        when its stage has not been run."""
        module = self._new_tokenizer()
        if self.adopted is None:
            module.load_state_dict(self._tokenizer_state())
        return module.to(self.device, memory_format=torch.channels_last).eval()  # pyright: ignore[reportCallIssue]

    def _tokenizer_state(self) -> dict[str, Tensor]:
        state = self._averaged(TOKENIZER_STAGE, "tokenizer.")
        if self.is_trained(DECODER_STAGE):
            later, share = self._averaged(DECODER_STAGE, "tokenizer."), self.recipe.decoder_share
            state = {name: value.lerp(later[name], share) for name, value in state.items()}
        return state

    def backbone(self, stage: str | None = None, *, own_policy: bool = True) -> OrderedBackbone:
        """The trained (averaged) backbone of a stage, of the latest one unless named, with its order policy if there
        is one: the one that was trained alone, unless it is not wanted, or else the one that was trained beside it.
        Raises CheckpointError for a stage not run yet."""
        stage = stage or self.latest_stage
        module = self._new_backbone()
        if not isinstance(module, OrderedBackbone):
            raise ConfigError(f"recipe {self.recipe.name} writes in one order, and has no stages of orders")
        state = self._averaged(stage, "")
        alone = policy_folder(stage)
        if own_policy and (self.folder / alone / CHECKPOINT).exists():
            state = {name: value for name, value in state.items() if not name.startswith(POLICY_PREFIX)}
            state |= {POLICY_PREFIX + name: value for name, value in self._averaged(alone, "").items()}
        if any(name.startswith(POLICY_PREFIX) for name in state):
            module.policy = module.new_policy(self.recipe.order_policy)
        module.load_state_dict(state)
        module.order_score = self.recipe.distill.order_score
        return module.to(self.device).eval()

    def drawing_backbone(self, stage: str, *, own_policy: bool = True) -> Backbone:
        """`backbone`, of families that write in one order too."""
        if self.recipe.details is None or self.adopted is not None:
            return self.backbone(stage, own_policy=own_policy)
        module = self._new_backbone()
        module.load_state_dict(self._averaged(stage, ""))
        return module.to(self.device).eval()

    def tokens(self, split: str) -> TokenSet:
        """The split's pictures as token ids, computed once for each tokenizer checkpoint and set of pixels, wherever
        their files have been moved to."""
        images = self.images(split)
        path = self.folder / CACHE / f"tokens-{split}.safetensors"
        adopted = self.adopted
        weights = self.folder / TOKENIZER_STAGE / CHECKPOINT if adopted is None else adopted.folder / TOKENIZER
        stamp = [file_digest(weights), images.digest]
        with first_alone():
            stored, meta = load_tensors(path) if path.exists() else ({}, {})
            if meta.get("stamp") != stamp:
                stored = {"token_ids": tokenize(self.tokenizer(), images, self.device)}
                save_tensors(path, stored, {"stamp": stamp})
        rows: list[Row] = list(images.rows)
        return TokenSet(stored["token_ids"], rows, torch.from_numpy(images.row_of).long())

    def sample(self, split: str, num_images: int) -> tuple[Int[Tensor, "M L"], Sequence[Prefix]]:
        """Tokens of some pictures of a split, always the same ones, and their captions as conditions."""
        tokens = self.tokens(split)
        chosen = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0))[:num_images]
        conditioner = self.conditioner(tokens.rows)
        said = class_caption if isinstance(conditioner, ClassConditioner) else plain_caption
        captions = [said(tokens.rows[row], random.Random(0)) for row in tokens.row_of[chosen].tolist()]
        encoded = conditioner.encode_captions(captions, max_length=self.spec.max_condition)
        return tokens.token_ids[chosen].long(), encoded

    def conditioner(self, rows: list[Row]) -> Conditioner:
        """What makes condition prefixes of captions: the adopted model's, or the text tokenizer."""
        adopted = self.adopted
        return self.text_tokenizer(rows) if adopted is None else adopted.conditioner()

    def text_tokenizer(self, rows: list[Row]) -> TextTokenizer:
        """Trained on the training captions, eight wordings of each, and kept in the run folder with their words. Where
        it is there without them, as of an older run, they are added."""
        rng = random.Random(self.recipe.any_order_loop.seed)
        caption = CAPTION_SOURCES[self.recipe.caption_source]
        captions = (caption(row, rng) for row in rows for _ in range(8))
        with first_alone():
            if not (self.folder / TEXT).exists():
                TextTokenizer.train(captions, self.recipe.text_vocab).save(self.folder)
            text = TextTokenizer.load(self.folder)
            if text.vocabulary is None:
                text.vocabulary = Vocabulary.of(captions)
                text.save(self.folder)
        return text

    @property
    def model_name(self) -> str:
        """Of what is exported: the recipe's, unless that is a shipped recipe for models that have a name."""
        adopted, name = self.adopted, self.recipe.name
        return name if adopted is None or name not in RECIPES else f"{adopted.name}-ordered"

    @property
    def licence(self) -> str:
        """Of what is exported."""
        adopted = self.adopted
        return self.recipe.licence if adopted is None else adopted.licence

    def export(self, folder: Path, stage: str | None = None, *, with_any_order: bool = False) -> None:
        """Writes the model folder that `Model.load` reads, weights in half precision, with the backbone of a stage
        (the latest unless named) and its order policy, if it has one; where it is wanted, beside it the any-order
        backbone that `adopt` begins with. Of the tokenizer's stage, the tokenizer alone."""
        folder.mkdir(parents=True, exist_ok=True)
        stage = stage or self.latest_stage
        config = self._config()
        parts: list[tuple[nn.Module, str]] = [(self.tokenizer(), TOKENIZER)]
        if stage != TOKENIZER_STAGE:
            backbone, policy = self.drawing_backbone(stage), None
            if isinstance(backbone, OrderedBackbone):
                policy, backbone.policy = backbone.policy, None
            parts.append((backbone, BACKBONE))
            if with_any_order:
                parts.append((self.backbone(ANY_ORDER_STAGE), ANY_ORDER_BACKBONE))
            for optional in (POLICY, ANY_ORDER_BACKBONE):
                (folder / optional).unlink(missing_ok=True)
            config |= {"backbone": self._backbone_config(), "order_score": backbone.order_score.to_dict()}
            if policy is not None:
                parts.append((policy, POLICY))
                config["policy"] = policy.config.to_dict()
            config |= self._drawing(stage, policy is not None)
            self._save_words(folder, stage)
        for module, name in parts:
            save_file(_half(module), folder / name)
            (folder / name).chmod(0o644)  # safetensors makes files that their owner alone can read
        (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")

    def _config(self) -> dict[str, Any]:
        """What a model's config says beside its backbone and drawing."""
        adopted, head = self.adopted, {"format": FORMAT, "name": self.model_name}
        if adopted is not None:
            return head | {key: adopted.config[key] for key in ("family", "tokenizer", "conditioner")}
        tokenizer = {"family": self.recipe.family, **self.recipe.tokenizer.to_dict()}
        return head | {"family": self.recipe.family, "tokenizer": tokenizer, "conditioner": TextTokenizer.kind}

    def _backbone_config(self) -> dict[str, Any]:
        adopted = self.adopted
        return self.recipe.backbone.to_dict() if adopted is None else adopted.config["backbone"]

    def _drawing(self, stage: str, has_policy: bool) -> dict[str, Any]:
        """What a model's config says of drawing."""
        adopted, recipe = self.adopted, self.recipe
        others = {"example_prompts": recipe.example_prompts, "pixel_art": recipe.pixel_art}
        if adopted is not None:
            others = {key: adopted.config[key] for key in others if key in adopted.config}
        return {"defaults": self._defaults(stage, has_policy), **others}

    def _save_words(self, folder: Path, stage: str) -> None:
        """What reads conditions, and the card of an adopted model."""
        adopted = self.adopted
        if adopted is None:
            TextTokenizer.load(self.folder).save(folder)
            return
        adopted.conditioner().save(folder)
        adopted.write_card(
            folder,
            f"## Fine-tuned\n\nThe weights are those of stage `{stage}` of `oar train`, which began with "
            f"{adopted.name}. They are no longer those of its authors.",
        )

    def pipeline(self, stage: str, dtype: torch.dtype, *, own_policy: bool = True) -> Model:
        """A stage's backbone with all that drawing needs, as `export` would write it and `Model.load` read it."""
        backbone, tokenizer = self.drawing_backbone(stage, own_policy=own_policy), self.tokenizer()
        model_hash = digest(module_digest(backbone), module_digest(tokenizer))
        drawing, adopted = self._drawing(stage, backbone.has_policy), self.adopted
        return Model(
            name=self.model_name,
            family=self._config()["family"],
            backbone=in_number_format(backbone, dtype),
            tokenizer=tokenizer,
            conditioner=TextTokenizer.load(self.folder) if adopted is None else adopted.conditioner(),
            defaults=drawing["defaults"],
            example_prompts=tuple(drawing["example_prompts"]),
            pixel_art=drawing.get("pixel_art", False),
            model_hash=model_hash,
            dtype=dtype,
            device=self.device,
        )

    def _defaults(self, stage: str, has_policy: bool) -> dict[str, Any]:
        order, adopted = taught_order(stage, has_policy=has_policy), self.adopted
        if adopted is None:
            return asdict(self.recipe.defaults.of_model(order))
        own = adopted.config["defaults"]
        return own if stage == ANY_ORDER_STAGE and not has_policy else {**own, "order": order}

    def is_trained(self, stage: str) -> bool:
        """Whether a stage was trained to its end."""
        path = self.folder / stage / CHECKPOINT
        if not path.exists():
            return False
        meta = load_checkpoint_meta(path)
        return meta["loop"] is None or meta["step"] == num_steps(meta["loop"]["num_images"], meta["loop"]["batch_size"])

    def _captioner(self, tokens: TokenSet, unconditional_share: float) -> Captioner:
        conditioner = self.conditioner(tokens.rows)
        source = CAPTION_SOURCES[self.recipe.caption_source]
        said = class_caption if isinstance(conditioner, ClassConditioner) else source
        return Captioner(tokens, conditioner, said, self.spec.max_condition, unconditional_share)

    def _agreement(self, orders: OrderSet, backbone: OrderedBackbone, captioner: Captioner) -> dict[str, Any]:
        """Between the score functions, on the first pictures that were distilled."""
        indices = orders.indices[:NUM_COMPARED]
        condition = captioner.fixed(indices, self.recipe.distill.seed, self.device)
        token_ids = captioner.tokens.token_ids[indices].long().to(self.device)
        found: dict[str, Tensor] = {}
        for score in tqdm(SCORES, desc="comparing scores", unit="score"):
            config = replace(self.recipe.distill, score=score)
            found[score] = extract_orders(backbone, condition, token_ids, config).cpu()
        return agreement(found)

    def _averaged(self, stage: str, prefix: str) -> dict[str, Tensor]:
        averaged = under_prefix("ema", load_checkpoint(self.folder / stage / CHECKPOINT).tensors)
        state = {name.removeprefix(prefix): value for name, value in averaged.items() if name.startswith(prefix)}
        if not state:
            raise CheckpointError(f"{self.folder / stage} holds no averaged weights")
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


def _order_stats(orders: OrderSet, grid: Grid, pixels: UInt8[np.ndarray, "M Y X 3"]) -> dict[str, Any]:
    foreground = [foreground_patches(pixels[part.numpy()], grid) for part in orders.indices.split(1024)]
    return asdict(order_stats(orders.orders, grid, torch.cat(foreground)))


def _half(module: nn.Module) -> dict[str, Tensor]:
    state = module.state_dict()
    return {
        name: (value.half() if value.is_floating_point() else value).cpu().contiguous() for name, value in state.items()
    }
