"""The toy's network: one transformer over the values of frames, block-causal, that predicts the clean frame."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from oar_core.models.base import Condition, FramesLayout, valid_places, within
from oar_core.models.frames import FrameBackbone, FramesSpec
from oar_core.models.seen import group_mask
from oar_core.models.toy_frames.config import ToyFramesConfig
from oar_core.nn.attention import KeyValueStore, Uncached, additive_mask
from oar_core.nn.block import PlainBlock
from oar_core.nn.kv_cache import KVCache

INIT_STD = 0.1
EXPANSION = 2  # of the feed-forward layer
NUM_FREQUENCIES = 4  # by which the noise of a frame is told
CLEAN = 0.0  # the noise of a frame that is committed


class ToyFrameBackbone(FrameBackbone):
    """Each value is a token, which its place, its frame and the frame's noise tell apart."""

    def __init__(self, config: ToyFramesConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self._num_places = config.frame_size[0] * config.frame_size[1]
        self.embed_class = nn.Embedding(config.num_classes + 1, width)
        self.embed_value = nn.Linear(1, width)
        self.embed_noise = nn.Linear(2 * NUM_FREQUENCIES, width)
        self.place = nn.Parameter(torch.empty(self._num_places, width))
        self.frame = nn.Parameter(torch.empty(config.num_frames, width))
        self.blocks = nn.ModuleList(PlainBlock(width, config.num_heads, EXPANSION) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 1)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.trunc_normal_(parameter, std=INIT_STD)

    @property
    def spec(self) -> FramesSpec:
        config = self.config
        return FramesSpec(
            layout=FramesLayout(config.num_frames, *config.frame_size, channels=1),
            sigmas=config.sigmas,
            condition_vocab=config.num_classes + 1,
            max_condition=1,
        )

    @property
    def image_size(self) -> tuple[int, int]:
        return self.config.frame_size

    def forward(
        self,
        condition: Condition,
        clean: Float[Tensor, "B F 1 Y X"],
        noisy: Float[Tensor, "B F 1 Y X"],
        sigmas: Float[Tensor, "B F"],
    ) -> Float[Tensor, "B F 1 Y X"]:
        count, shape = clean.shape[1], noisy.shape
        frames = torch.arange(count, device=clean.device).expand(shape[:2])
        given = self._tokens(clean.flatten(2), frames, torch.full_like(sigmas, CLEAN))
        asked = self._tokens(noisy.flatten(2), frames, sigmas)
        x = torch.cat([self.embed_class(condition.ids), given.flatten(1, 2), asked.flatten(1, 2)], dim=1)
        numbers = torch.arange(count, device=x.device).repeat_interleave(self._num_places)
        mask = additive_mask(group_mask(numbers), x.dtype)
        x = self._trunk(x, Uncached(mask.expand(shape[0], 1, -1, -1)))
        return self.head(x[:, -count * self._num_places :]).view(shape)

    def new_cache(self, num_slots: int) -> KVCache:
        config = self.config
        return KVCache.beside(
            self.place,
            num_layers=config.num_layers,
            num_slots=num_slots,
            num_heads=config.num_heads,
            capacity=1 + config.num_frames * self._num_places,
            head_width=config.width // config.num_heads,
        )

    @torch.no_grad()
    def prefill(self, cache: KVCache, slots: Int[Tensor, "B"], condition: Condition) -> None:
        cache.reset(slots)
        valid = within(condition.lengths, condition.ids.shape[1])
        x = self.embed_class(condition.ids).flatten(0, 1)[valid_places(valid, self.place.device)]
        self._trunk(x, cache.extend(slots, condition.lengths.tolist()))

    @torch.no_grad()
    def commit(self, cache: KVCache, slots: Int[Tensor, "B"], frames: Float[Tensor, "B 1 Y X"]) -> None:
        self._see_frames(cache, slots, frames, torch.full((len(frames),), CLEAN, device=frames.device))

    @torch.no_grad()
    def denoise(
        self, cache: KVCache, slots: Int[Tensor, "B"], noisy: Float[Tensor, "B 1 Y X"], sigmas: Float[Tensor, "B"]
    ) -> Float[Tensor, "B 1 Y X"]:
        x = self._see_frames(cache, slots, noisy, sigmas)
        cache.forget(slots, [self._num_places] * len(slots))
        return self.head(x).float().view(noisy.shape)

    def show(self, frames: Float[Tensor, "B 1 Y X"]) -> Float[Tensor, "B 3 Y X"]:
        return frames.expand(-1, 3, -1, -1)

    def _see_frames(
        self, cache: KVCache, slots: Int[Tensor, "B"], frames: Float[Tensor, "B 1 Y X"], sigmas: Float[Tensor, "B"]
    ) -> Float[Tensor, "M D"]:
        """Appends the places of a frame to each slot; they see each other and all that is there."""
        count = len(slots)
        numbers = (cache.lengths[slots] - 1).div(self._num_places, rounding_mode="floor")  # behind one class
        x = self._tokens(frames.flatten(1), numbers.to(frames.device), sigmas).flatten(0, 1)
        seen = torch.full((count * self._num_places,), self._num_places).numpy()
        return self._trunk(x, cache.extend(slots, [self._num_places] * count, seen))

    def _tokens(
        self, values: Float[Tensor, "*B P"], frames: Int[Tensor, "*B"], sigmas: Float[Tensor, "*B"]
    ) -> Float[Tensor, "*B P D"]:
        powers = 2.0 ** torch.arange(NUM_FREQUENCIES, device=sigmas.device)
        angles = sigmas[..., None].float() * powers
        noise = self.embed_noise(torch.cat([angles.sin(), angles.cos()], dim=-1).to(self.place.dtype))
        of_frame = self.frame[frames] + noise
        return self.embed_value(values[..., None].to(self.place.dtype)) + self.place + of_frame[..., None, :]

    def _trunk(self, x: Float[Tensor, "*S D"], store: KeyValueStore) -> Float[Tensor, "*S D"]:
        for layer, block in enumerate(self.blocks):
            x = block(x, layer, store)
        return self.norm(x)
