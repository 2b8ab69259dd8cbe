"""The named recipes. A recipe is a function that returns a `Recipe`."""

from collections.abc import Callable
from dataclasses import replace

from oar_core.config import BackboneConfig, OrderPolicyConfig, TokenizerConfig
from oar_core.detail_config import DetailBackboneConfig, DetailTokenizerConfig
from oar_core.errors import ConfigError
from oar_core.train.attributes import ATTRIBUTE_SETS
from oar_core.train.loop import LoopConfig
from oar_core.train.optim import OptimConfig
from oar_core.train.recipe import Recipe, SamplingDefaults
from oar_core.train.stages.detail_tokenizer import DetailTokenizerStageConfig
from oar_core.train.stages.order_distill import DistillConfig
from oar_core.train.stages.tokenizer import TokenizerStageConfig

SPRITE_PROMPTS = (
    "a person with short red hair, brown shirt and blue trousers, walking, seen from the front",
    "an orc with steel breastplate, gold leggings and steel boots, slashing, facing right",
    "a dark-skinned hero with a purple afro, chainmail and long brown skirt, casting a spell, seen from the front",
    "a figure with pink hair, suit and tie and white trousers, seen from the left",
    "a villager with a blue topknot, cyan shirt, red trousers and golden boots, shooting a bow, facing right",
)


def sprites_64() -> Recipe:
    """64x64 sprites on two CPU cores: 64 tokens of 10 bits, 8x8 pixels each."""
    return Recipe(
        name="sprites-64",
        licence="CC-BY-SA-3.0",
        caption_source="sprites",
        text_vocab=1024,
        tokenizer=TokenizerConfig(image_size=(64, 64), widths=(64, 128, 256), vocab_size=1024, code_width=8),
        tokenizer_loop=LoopConfig(
            num_images=144_000,
            batch_size=32,
            optim=OptimConfig(lr=6e-4, betas=(0.8, 0.95), weight_decay=0.01),
            ema_decay=0.998,
        ),
        backbone=BackboneConfig(
            grid=(8, 8),
            vocab_size=1024,
            condition_vocab=1024,
            max_condition=64,
            width=256,
            num_heads=8,
            num_context_layers=5,
            num_query_layers=3,
        ),
        any_order_loop=LoopConfig(num_images=272_000, batch_size=32, optim=OptimConfig(lr=1e-3), ema_decay=0.999),
        example_prompts=SPRITE_PROMPTS,
        defaults=SamplingDefaults(top_p=0.85),
        pixel_art=True,
        attributes=ATTRIBUTE_SETS["sprites"],
    )


def pictures_64() -> Recipe:
    """`sprites_64` for anybody's pictures: their captions as they are, 64x64 pixels, two CPU cores."""
    return replace(
        sprites_64(),
        name="pictures-64",
        licence="yours",
        caption_source="plain",
        attributes=(),
        example_prompts=("a picture",),
        pixel_art=False,
        defaults=SamplingDefaults(),
    )


def sprites_64_fine() -> Recipe:
    """`sprites_64` with 4x4 pixels a token, 256 tokens: closer to the pixels, four times the decoding."""
    base = sprites_64()
    return replace(
        base,
        name="sprites-64-fine",
        tokenizer=replace(base.tokenizer, widths=(64, 128)),
        backbone=replace(base.backbone, grid=(16, 16)),
        defaults=SamplingDefaults(steps=20),
    )


def sprites_64_gpu() -> Recipe:
    """The larger twin of `sprites_64`: four times the tokens, for one data-centre GPU."""
    base = sprites_64()
    return replace(
        base,
        name="sprites-64-gpu",
        tokenizer=TokenizerConfig(
            image_size=(64, 64), widths=(128, 256), encoder_blocks=2, decoder_blocks=3, head_width=64, vocab_size=2048
        ),
        tokenizer_loop=LoopConfig(
            num_images=3_000_000, batch_size=256, optim=OptimConfig(lr=6e-4, betas=(0.8, 0.95), weight_decay=0.01)
        ),
        backbone=replace(
            base.backbone,
            grid=(16, 16),
            vocab_size=2048,
            width=512,
            num_context_layers=8,
            num_query_layers=8,
            dropout=0.1,
        ),
        any_order_loop=LoopConfig(num_images=8_000_000, batch_size=512, optim=OptimConfig(lr=8e-4)),
        distill=DistillConfig(num_images=50_000, batch_size=256),
        order_finetune_loop=LoopConfig(num_images=2_000_000, batch_size=512, optim=OptimConfig(lr=3e-4)),
        order_policy=OrderPolicyConfig(width=128),
        order_policy_loop=LoopConfig(num_images=1_000_000, batch_size=512, optim=OptimConfig(lr=1e-3)),
        defaults=SamplingDefaults(steps=20),
    )


def large_256() -> Recipe:
    """About 330 M parameters, 256 tokens of 14 bits, 256x256 pixels: the size that papers compare. Not trained here;
    `oar bench` measures it with random weights."""
    return Recipe(
        name="large-256",
        licence="yours",
        caption_source="plain",
        text_vocab=1024,
        tokenizer=TokenizerConfig(
            image_size=(256, 256), widths=(128, 128, 256, 256), encoder_blocks=2, head_width=128, vocab_size=16_384
        ),
        tokenizer_loop=LoopConfig(num_images=10_000_000, batch_size=256, optim=OptimConfig(lr=4e-4)),
        backbone=BackboneConfig(
            grid=(16, 16),
            vocab_size=16_384,
            condition_vocab=1024,
            max_condition=64,
            width=1024,
            num_heads=16,
            num_context_layers=12,
            num_query_layers=13,
            dropout=0.1,
        ),
        any_order_loop=LoopConfig(num_images=300_000_000, batch_size=1024, optim=OptimConfig(lr=4e-4)),
        defaults=SamplingDefaults(steps=20),
        example_prompts=("a picture",),
    )


def imported() -> Recipe:
    """A recipe for `oar train adopt` of an imported model, which brings its own networks and canvas: 50,000 pictures
    distilled, five epochs of ImageNet at a tenth of a usual learning rate. Not trained here."""
    return replace(
        large_256(),
        name="imported",
        licence="of the model",
        fit="crop",
        caption_source="classes",
        distill=DistillConfig(num_images=50_000, batch_size=64, positions_per_step=4),
        order_finetune_loop=LoopConfig(
            num_images=6_400_000, batch_size=1024, optim=OptimConfig(lr=4e-5), num_shards=32
        ),
        order_policy=OrderPolicyConfig(width=128),
        order_policy_loop=LoopConfig(num_images=500_000, batch_size=256, num_shards=8, optim=OptimConfig(lr=1e-3)),
    )


def xl_256() -> Recipe:
    """`large_256` with about 720 M parameters."""
    base = large_256()
    return replace(
        base,
        name="xl-256",
        backbone=replace(base.backbone, width=1280, num_heads=20, num_context_layers=18, num_query_layers=19),
    )


def fashion() -> Recipe:
    """Product photographs of 60x80 pixels on a canvas of 64x80: an 8x10 grid, which is not square."""
    return Recipe(
        name="fashion",
        licence="research use",
        caption_source="titles",
        text_vocab=2048,
        tokenizer=TokenizerConfig(image_size=(80, 64), widths=(48, 96, 256), vocab_size=1024, code_width=8),
        tokenizer_loop=LoopConfig(
            num_images=112_000,
            batch_size=32,
            optim=OptimConfig(lr=6e-4, betas=(0.8, 0.95), weight_decay=0.01),
            ema_decay=0.998,
        ),
        backbone=BackboneConfig(
            grid=(10, 8),
            vocab_size=1024,
            condition_vocab=2048,
            max_condition=64,
            width=192,
            num_heads=6,
            num_context_layers=4,
            num_query_layers=3,
        ),
        any_order_loop=LoopConfig(num_images=112_000, batch_size=32, optim=OptimConfig(lr=1e-3), ema_decay=0.998),
        example_prompts=(
            "women's red tshirts",
            "men's black casual shoes",
            "women's blue handbags",
            "men's blue jeans",
        ),
        attributes=ATTRIBUTE_SETS["fashion"],
        defaults=SamplingDefaults(guidance=2.0, guidance_interval=(0.05, 1.0)),
        held_out="val",
        kept_rows=(("demo_ok", "1"),),  # no underwear, no exact duplicates
    )


def fashion_128() -> Recipe:
    """Product photographs of 96x128 pixels, a 12x16 grid; the larger twin of `fashion`, for one data-centre GPU."""
    base = fashion()
    return replace(
        base,
        name="fashion-128",
        tokenizer=TokenizerConfig(
            image_size=(128, 96), widths=(128, 192, 256), encoder_blocks=2, decoder_blocks=3, vocab_size=2048
        ),
        tokenizer_loop=LoopConfig(
            num_images=2_000_000, batch_size=128, optim=OptimConfig(lr=6e-4, betas=(0.8, 0.95), weight_decay=0.01)
        ),
        backbone=replace(
            base.backbone,
            grid=(16, 12),
            vocab_size=2048,
            width=384,
            num_heads=6,
            num_context_layers=8,
            num_query_layers=6,
            dropout=0.1,
        ),
        any_order_loop=LoopConfig(num_images=2_000_000, batch_size=256, optim=OptimConfig(lr=8e-4)),
        distill=DistillConfig(num_images=8_000, batch_size=256),
        order_finetune_loop=LoopConfig(num_images=500_000, batch_size=256, optim=OptimConfig(lr=3e-4)),
        defaults=SamplingDefaults(steps=20),
    )


AVATAR_PROMPTS = (
    "a smiling woman with curly red hair and glasses, green shirt, light blue background",
    "a bald man with a goatee and a checkered shirt, flat illustration",
    "a winking girl with long black hair, ink drawing",
    "an angry man with spiky brown hair and a full beard, orange turtleneck, white background",
    "a laughing child with blonde braids and cat ears",
)


def avatars_128() -> Recipe:
    """Drawn portraits of 128x128 pixels in six styles: a 16x16 grid of tokens of 12 bits."""
    return Recipe(
        name="avatars-128",
        licence="CC-BY-4.0",
        caption_source="avatars",
        text_vocab=2048,
        tokenizer=TokenizerConfig(
            image_size=(128, 128),
            widths=(32, 96, 192),
            head_width=16,
            vocab_size=4096,
            code_width=8,
            upsample="nearest",
            full_blocks=1,
        ),
        tokenizer_loop=LoopConfig(
            num_images=200_000,
            batch_size=16,
            optim=OptimConfig(lr=6e-4, betas=(0.8, 0.95), weight_decay=0.01),
            ema_decay=0.999,
            checkpoint_every=100,
        ),
        # No adversary: outlines and flat colours need none, and none can print a lattice then.
        tokenizer_stage=TokenizerStageConfig(
            perceptual_weight=0.0, adversarial_weight=0.0, vgg_weight=0.15, vgg_crop=64
        ),
        backbone=BackboneConfig(
            grid=(16, 16),
            vocab_size=4096,
            condition_vocab=2048,
            max_condition=64,
            width=320,
            num_heads=8,
            num_context_layers=6,
            num_query_layers=4,
        ),
        any_order_loop=LoopConfig(num_images=600_000, batch_size=32, optim=OptimConfig(lr=8e-4), ema_decay=0.999),
        defaults=SamplingDefaults(steps=26),
        example_prompts=AVATAR_PROMPTS,
        attributes=ATTRIBUTE_SETS["avatars"],
        column_source="avatars",
    )


def avatars_64_detail() -> Recipe:
    """The portraits at 64x64 pixels from coarse to fine: 32 tokens of 9 bits, in 11 steps. For ablations."""
    base = avatars_128()
    return replace(
        base,
        name="avatars-64-detail",
        tokenizer=DetailTokenizerConfig(
            image_size=(64, 64),
            patch_size=8,
            num_tokens=32,
            group_size=4,
            vocab_size=512,
            width=128,
            num_heads=4,
            encoder_layers=3,
            decoder_layers=3,
        ),
        tokenizer_loop=LoopConfig(
            num_images=48_000,
            batch_size=16,
            optim=OptimConfig(lr=1e-3, weight_decay=0.01),
            ema_decay=0.998,
            checkpoint_every=100,
        ),
        backbone=DetailBackboneConfig(
            num_tokens=32,
            group_size=4,
            vocab_size=512,
            condition_vocab=2048,
            max_condition=64,
            width=256,
            num_heads=4,
            num_layers=6,
        ),
        any_order_loop=LoopConfig(num_images=96_000, batch_size=32, optim=OptimConfig(lr=1e-3), ema_decay=0.998),
        defaults=SamplingDefaults(order="raster", steps=11, group_sizes="constant"),
    )


def avatars_128_detail() -> Recipe:
    """The portraits of `avatars_128` from coarse to fine: 64 tokens of 11 bits, in 15 steps."""
    base = avatars_64_detail()
    return replace(
        base,
        name="avatars-128-detail",
        tokenizer=DetailTokenizerConfig(
            image_size=(128, 128),
            patch_size=8,
            num_tokens=64,
            group_size=8,
            vocab_size=2048,
            width=192,
            num_heads=6,
            encoder_layers=4,
            decoder_layers=5,
        ),
        tokenizer_loop=LoopConfig(
            num_images=200_000,
            batch_size=16,
            optim=OptimConfig(lr=8e-4, weight_decay=0.01),
            ema_decay=0.999,
            checkpoint_every=100,
        ),
        detail_tokenizer_stage=DetailTokenizerStageConfig(near=12, vgg_crop=64),
        backbone=DetailBackboneConfig(
            num_tokens=64,
            group_size=8,
            vocab_size=2048,
            condition_vocab=2048,
            max_condition=64,
            width=320,
            num_heads=5,
            num_layers=8,
        ),
        any_order_loop=LoopConfig(num_images=400_000, batch_size=32, optim=OptimConfig(lr=8e-4), ema_decay=0.999),
        defaults=SamplingDefaults(order="raster", steps=15, group_sizes="constant"),
    )


IMPORTED = "imported"  # whose networks are those of a model that is taken over

RECIPES: dict[str, Callable[[], Recipe]] = {
    "sprites-64": sprites_64,
    "pictures-64": pictures_64,
    "sprites-64-fine": sprites_64_fine,
    "sprites-64-gpu": sprites_64_gpu,
    "avatars-128": avatars_128,
    "avatars-64-detail": avatars_64_detail,
    "avatars-128-detail": avatars_128_detail,
    "fashion": fashion,
    "fashion-128": fashion_128,
    "large-256": large_256,
    "xl-256": xl_256,
    IMPORTED: imported,
}


def own_recipes() -> list[Recipe]:
    """Lists recipes that make networks of their own."""
    return [make() for name, make in RECIPES.items() if name != IMPORTED]


def find_recipe(name: str) -> Recipe:
    """Raises ConfigError for an unknown name."""
    if name not in RECIPES:
        raise ConfigError(f"unknown recipe {name!r}; there are {', '.join(sorted(RECIPES))}")
    return RECIPES[name]()
