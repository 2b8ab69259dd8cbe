"""A recipe: the settings of a whole training run."""

from dataclasses import dataclass, field, fields, make_dataclass, replace
from typing import Any, Self

from oar_core.config import BackboneConfig, OrderPolicyConfig, TokenizerConfig
from oar_core.detail_config import DetailBackboneConfig, DetailTokenizerConfig
from oar_core.errors import ConfigError
from oar_core.models.load import COARSE_TO_FINE, NATIVE
from oar_core.order.plan import GROUP_SIZES, ORDERS, RASTER
from oar_core.train.attributes import Attribute
from oar_core.train.data import FITS, PAD
from oar_core.train.evaluator import EvaluatorConfig
from oar_core.train.loop import LoopConfig
from oar_core.train.optim import OptimConfig
from oar_core.train.stages.any_order import AnyOrderStageConfig
from oar_core.train.stages.coarse_to_fine import CoarseToFineStageConfig
from oar_core.train.stages.detail_tokenizer import DetailTokenizerStageConfig
from oar_core.train.stages.evaluator import EvaluatorStageConfig
from oar_core.train.stages.order_distill import DistillConfig
from oar_core.train.stages.order_finetune import OrderFinetuneStageConfig
from oar_core.train.stages.order_tree import OrderTreeConfig
from oar_core.train.stages.tokenizer import TokenizerStageConfig
from oar_wire.options import BadOption, check_all, check_name, check_order, model_options

AUTO = "auto"


# Those of `oar_wire.options`; what is named here is a recipe's own. A recipe gives its order by name.
_OWN = {"order": AUTO, "guidance": 1.5, "top_p": 0.95}
_KINDS = {"order": str, "group_sizes": str}
_Options: Any = make_dataclass(
    "_Options",
    [
        (option.name, _KINDS.get(option.name, option.kind), field(default=_OWN.get(option.name, option.default)))
        for option in model_options()
    ],
    frozen=True,
)


@dataclass(frozen=True)
class SamplingDefaults(_Options):
    """Defaults of the model that this recipe makes, for a request that sets nothing."""

    def __post_init__(self) -> None:
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        try:
            check_all(values)
            check_order(values["order"], (AUTO, *ORDERS))
            check_name("group_sizes", values["group_sizes"], GROUP_SIZES)
        except BadOption as error:
            raise ConfigError(str(error)) from error

    def of_model(self, order: str) -> Self:
        """The same with this order for `auto`."""
        return self if self.order != AUTO else replace(self, order=order)


# Its own seed: no other network starts from the same draw. About five minutes on one core.
EVALUATOR_LOOP = LoopConfig(
    num_images=150_000, batch_size=64, seed=90_001, optim=OptimConfig(lr=2e-3, weight_decay=0.02), ema_decay=0.998
)


def _decoder_loop() -> LoopConfig:
    return LoopConfig(
        num_images=48_000,
        batch_size=32,
        optim=OptimConfig(lr=2e-4, betas=(0.8, 0.95), weight_decay=0.01),
        ema_decay=0.998,
    )


def _views_loop() -> LoopConfig:
    """Its own seed, as the evaluation network has."""
    return LoopConfig(num_images=64_000, batch_size=64, seed=70_001, optim=OptimConfig(lr=2e-3, weight_decay=0.02))


def _finetune_loop() -> LoopConfig:
    """A loop for two CPU cores: a quarter of the any-order stage of `sprites_64`, at a third of its learning rate."""
    return LoopConfig(num_images=60_000, batch_size=32, optim=OptimConfig(lr=3e-4), ema_decay=0.998)


def _policy_loop() -> LoopConfig:
    return LoopConfig(num_images=16_000, batch_size=32, optim=OptimConfig(lr=1e-3), ema_decay=0.998)


@dataclass(frozen=True)
class Recipe:
    name: str
    licence: str
    caption_source: str  # a key of `captions.CAPTION_SOURCES`
    text_vocab: int
    tokenizer: TokenizerConfig | DetailTokenizerConfig
    tokenizer_loop: LoopConfig
    backbone: BackboneConfig | DetailBackboneConfig
    any_order_loop: LoopConfig  # of the first stage of the backbone, coarse_to_fine where it is that
    fit: str = PAD  # one of FITS: how a picture of another size comes on the canvas
    tokenizer_stage: TokenizerStageConfig = field(default_factory=TokenizerStageConfig)
    views_loop: LoopConfig = field(default_factory=_views_loop)
    detail_tokenizer_stage: DetailTokenizerStageConfig = field(default_factory=DetailTokenizerStageConfig)
    coarse_to_fine_stage: CoarseToFineStageConfig = field(default_factory=CoarseToFineStageConfig)
    decoder_loop: LoopConfig = field(default_factory=_decoder_loop)
    decoder_stage: TokenizerStageConfig = field(default_factory=lambda: TokenizerStageConfig(perceptual_weight=0.1))
    decoder_share: float = 0.5  # of the decoder's stage in the decoder that is used; the rest is what it began with
    any_order_stage: AnyOrderStageConfig = field(default_factory=AnyOrderStageConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    order_tree: OrderTreeConfig = field(default_factory=OrderTreeConfig)
    order_finetune_loop: LoopConfig = field(default_factory=_finetune_loop)
    order_finetune_stage: OrderFinetuneStageConfig = field(default_factory=OrderFinetuneStageConfig)
    order_policy: OrderPolicyConfig = field(default_factory=OrderPolicyConfig)
    order_policy_loop: LoopConfig = field(default_factory=_policy_loop)
    defaults: SamplingDefaults = field(default_factory=SamplingDefaults)
    example_prompts: tuple[str, ...] = ()
    pixel_art: bool = False  # looks right when it is enlarged pixel by pixel
    attributes: tuple[Attribute, ...] = ()  # label columns that the evaluator reads
    column_source: str = ""  # a key of `columns.COLUMN_SOURCES`: label columns that are derived from others, or none
    evaluator: EvaluatorConfig = field(default_factory=EvaluatorConfig)
    evaluator_loop: LoopConfig = EVALUATOR_LOOP
    evaluator_stage: EvaluatorStageConfig = field(default_factory=EvaluatorStageConfig)
    held_out: str = "test"  # the split that evaluations use; nothing is trained on it
    kept_rows: tuple[tuple[str, str], ...] = ()  # label columns, and the value that a picture must have there

    def __post_init__(self) -> None:
        if isinstance(self.tokenizer, TokenizerConfig) is not isinstance(self.backbone, BackboneConfig):
            raise ConfigError("tokenizer and backbone are of different families")
        if self.tokenizer.grid != self.backbone.grid:
            raise ConfigError(f"tokenizer grid {self.tokenizer.grid} differs from the backbone's {self.backbone.grid}")
        if self.tokenizer.vocab_size != self.backbone.vocab_size:
            raise ConfigError("tokenizer and backbone differ in vocab_size")
        if self.text_vocab > self.backbone.condition_vocab:
            raise ConfigError("the text vocabulary does not fit the backbone's condition_vocab")
        if self.fit not in FITS:
            raise ConfigError(f"unknown fit {self.fit!r}; there are {', '.join(FITS)}")
        if (details := self.details) is not None:
            self._check_details(*details)

    def _check_details(self, tokenizer: DetailTokenizerConfig, backbone: DetailBackboneConfig) -> None:
        if tokenizer.groups != backbone.groups:
            raise ConfigError("tokenizer and backbone differ in their groups")
        steps = len(tokenizer.groups.sizes)
        if (self.defaults.order, self.defaults.steps) not in {(RASTER, steps), (AUTO, steps)}:
            raise ConfigError(
                f"pictures from coarse to fine are drawn in order {RASTER}, one group a step: {steps} steps"
            )

    @property
    def family(self) -> str:
        """The key of the networks."""
        return NATIVE if self.details is None else COARSE_TO_FINE

    @property
    def details(self) -> tuple[DetailTokenizerConfig, DetailBackboneConfig] | None:
        """The networks of a recipe for pictures that are written from coarse to fine; None for a grid."""
        if isinstance(self.tokenizer, DetailTokenizerConfig) and isinstance(self.backbone, DetailBackboneConfig):
            return self.tokenizer, self.backbone
        return None

    @property
    def grid_tokenizer(self) -> TokenizerConfig:
        """Raises ConfigError where the recipe is not for a grid."""
        if isinstance(self.tokenizer, TokenizerConfig):
            return self.tokenizer
        raise self._not_for_a_grid()

    @property
    def grid_backbone(self) -> BackboneConfig:
        """Raises ConfigError where the recipe is not for a grid."""
        if isinstance(self.backbone, BackboneConfig):
            return self.backbone
        raise self._not_for_a_grid()

    def _not_for_a_grid(self) -> ConfigError:
        return ConfigError(
            f"recipe {self.name} writes pictures from coarse to fine; this stage is for a grid of tokens"
        )
