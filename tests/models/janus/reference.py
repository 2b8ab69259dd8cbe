"""A tiny Janus with random weights and its own pictures, made by the implementation in `transformers`.

    python -m tests.models.janus.reference

writes the files in tests/golden/janus anew.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from oar_core.models.janus.config import JanusConfig
from tests.models.golden import FOLDER

NUM_CODES, VOCAB, NUM_TOKENS, GUIDANCE = 64, 128, 16, 5.0
BOS, PAD, BEGIN_OF_IMAGE = 1, 2, 3
PROMPTS = ((BOS, 17, 40, 99, 23, BEGIN_OF_IMAGE), (BOS, 71, 5, 64, 120, 33, 90, 12, 8, BEGIN_OF_IMAGE))
WIDTH, HEADS, LAYERS, HIDDEN = 32, 2, 2, 64
KEPT = ("model.language_model.", "model.generation_", "model.vqmodel.")  # of the keys: those that make pictures
ENCODER = ("model.vqmodel.encoder.", "model.vqmodel.quant_conv.")  # left out of the golden file, for its size


@dataclass(frozen=True)
class Reference:
    state: Mapping[str, Tensor]
    vectors: Mapping[str, np.ndarray]


def build(seed: int = 19) -> Any:
    """A `JanusForConditionalGeneration` whose weights are exact in bf16."""
    from transformers import JanusConfig as TheirConfig
    from transformers import JanusForConditionalGeneration, JanusVisionConfig, JanusVQVAEConfig
    from transformers.models.llama import LlamaConfig

    text = LlamaConfig(
        vocab_size=VOCAB, hidden_size=WIDTH, intermediate_size=HIDDEN, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=HEADS, max_position_embeddings=64,
        bos_token_id=BOS, pad_token_id=PAD, eos_token_id=0,
    )  # fmt: skip
    vision = JanusVisionConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=2,
        projection_dim=WIDTH, num_image_tokens=NUM_TOKENS,
    )  # fmt: skip
    vq = JanusVQVAEConfig(
        num_embeddings=NUM_CODES, embed_dim=8, latent_channels=32, base_channels=32, channel_multiplier=[1, 1],
        num_res_blocks=1, projection_dim=WIDTH, image_token_embed_dim=WIDTH,
    )  # fmt: skip
    model = JanusForConditionalGeneration(TheirConfig(text_config=text, vision_config=vision, vq_config=vq)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(_drawn(name, noise).bfloat16().float())
    return model


def published(config: JanusConfig) -> Any:
    """The network of `transformers` for a config of ours."""
    from transformers import JanusConfig as TheirConfig
    from transformers import JanusForConditionalGeneration, JanusVisionConfig, JanusVQVAEConfig
    from transformers.models.llama import LlamaConfig

    text = LlamaConfig(
        vocab_size=config.condition_vocab, hidden_size=config.width, intermediate_size=config.ffn_width,
        num_hidden_layers=config.num_layers, num_attention_heads=config.num_heads, num_key_value_heads=config.num_heads,
    )  # fmt: skip
    vision = JanusVisionConfig(projection_dim=config.width)
    vq = JanusVQVAEConfig(projection_dim=config.width, image_token_embed_dim=config.width)
    return JanusForConditionalGeneration(TheirConfig(text_config=text, vision_config=vision, vq_config=vq))


def _drawn(name: str, noise: Tensor) -> Tensor:
    """Sizes by which logits differ by about one, so that an error shows."""
    if noise.dim() == 1:
        return 0.2 * noise + (1 if name.endswith("weight") else 0)
    if "embed" in name:
        return 0.5 * noise
    return (1.3 if noise.dim() == 2 else 1.0) * noise / noise[0].numel() ** 0.5


@torch.no_grad()
def run(model: Any) -> Reference:
    """Each prompt's picture, as `generate` draws it, and the logits that it drew from."""
    vectors: dict[str, np.ndarray] = {}
    tokens: list[Tensor] = []
    for number, prompt in enumerate(PROMPTS):
        drawn, logits = _generate(model, prompt, seed=number)
        conditional, unconditional = logits.unbind(1)
        tokens.append(drawn)
        vectors |= {
            f"prompt_{number}": np.array(prompt),
            f"logits_conditional_{number}": conditional.numpy(),
            f"logits_unconditional_{number}": unconditional.numpy(),
            f"logits_guided_{number}": (unconditional + GUIDANCE * (conditional - unconditional)).numpy(),
        }
    codes = torch.stack(tokens)
    image = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(5)) * 2 - 1
    vectors |= {
        "tokens": codes.numpy(),
        "decoded": model.decode_image_tokens(codes).permute(0, 3, 1, 2).numpy(),
        "image": image.numpy(),
        "latents": model.model.vqmodel.quant_conv(model.model.vqmodel.encoder(image)).numpy(),
    }
    return Reference({key: value.clone() for key, value in model.state_dict().items()}, vectors)


def _generate(model: Any, prompt: tuple[int, ...], *, seed: int) -> tuple[Tensor, Tensor]:
    """The picture's tokens, and the logits of each step: of the conditional and of the unconditional row."""
    from transformers import GenerationConfig

    heard: list[Tensor] = []
    hook = model.model.generation_head.register_forward_hook(lambda *arguments: heard.append(arguments[-1].clone()))
    ids = torch.tensor([prompt])
    config = GenerationConfig(
        do_sample=True, guidance_scale=GUIDANCE, bos_token_id=BOS, pad_token_id=PAD, eos_token_id=0,
        max_length=64, generation_kwargs={"boi_token_id": BEGIN_OF_IMAGE},
    )  # fmt: skip
    torch.manual_seed(seed)
    drawn = model.generate(
        inputs=ids, attention_mask=torch.ones_like(ids), generation_mode="image", generation_config=config
    )
    hook.remove()
    return drawn[0], torch.stack(heard)


def main() -> None:
    torch.set_num_threads(1)
    reference = run(build())
    kept = {
        key: value.bfloat16()
        for key, value in reference.state.items()
        if key.startswith(KEPT) and not key.startswith(ENCODER)
    }
    save_file(kept, FOLDER / "janus" / "weights.safetensors")
    vectors = {key: value for key, value in reference.vectors.items() if key not in ("image", "latents")}
    np.savez_compressed(FOLDER / "janus" / "vectors.npz", **vectors)


if __name__ == "__main__":
    main()
