"""The contract of families that make frames of values, one after another, each by denoising.

Where a token backbone answers with logits, a step of these yields values; what a picture goes on from after an
interruption are the values of its finished frames, which are committed again.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor, nn

from oar_core.errors import ConfigError
from oar_core.models.base import Condition, FramesLayout
from oar_core.nn.kv_cache import KVCache

DEFAULT_FRAME_MILLISECONDS = 125


@dataclass(frozen=True)
class FramesSpec:
    """Inputs and outputs of a frame backbone. Raises ConfigError."""

    layout: FramesLayout
    sigmas: tuple[float, ...]  # noise of the denoising steps of a frame, from pure noise (1) downwards
    condition_vocab: int  # ids of conditions are below
    max_condition: int  # tokens of a condition prefix
    frame_milliseconds: int = DEFAULT_FRAME_MILLISECONDS  # that a frame is shown for

    def __post_init__(self) -> None:
        falls = all(more > less for more, less in zip(self.sigmas, self.sigmas[1:]))
        if not self.sigmas or self.sigmas[0] != 1.0 or not falls or self.sigmas[-1] <= 0:
            raise ConfigError(f"sigmas {self.sigmas} do not fall from 1 towards 0")

    @property
    def steps(self) -> int:
        """Engine steps of a whole video."""
        return self.layout.num_frames * len(self.sigmas)

    @property
    def feature_width(self) -> int:
        """Width of condition vectors: 0, since conditions are ids."""
        return 0

    @property
    def options(self) -> tuple[str, ...]:
        """The options of a drawing that mean something to this family."""
        return ("guidance",)

    @property
    def can_revise(self) -> bool:
        """Tells whether a part of what is finished can be made again."""
        return False

    @property
    def can_edit(self) -> bool:
        return self.layout.can_edit


class FrameBackbone(nn.Module, ABC):
    """A network that denoises a frame while it sees its condition and the frames before.

    Invariants: a slot holds its condition, then whole clean frames in order; denoising leaves nothing in it; the places
    of a frame see each other, and nothing of later frames. A frame is committed by itself, so that a video that goes on
    after an interruption repeats what was done.
    """

    @property
    @abstractmethod
    def spec(self) -> FramesSpec: ...

    @property
    @abstractmethod
    def image_size(self) -> tuple[int, int]:
        """Y, X in pixels, of a frame that is shown."""

    @abstractmethod
    def forward(
        self,
        condition: Condition,
        clean: Float[Tensor, "B F C Y X"],
        noisy: Float[Tensor, "B F C Y X"],
        sigmas: Float[Tensor, "B F"],
    ) -> Float[Tensor, "B F C Y X"]:
        """Training pass, all frames at once: frame f of the answer is the clean one behind `noisy[:, f]`, which sees
        itself and the clean frames before f."""

    @abstractmethod
    def new_cache(self, num_slots: int) -> KVCache: ...

    @abstractmethod
    def prefill(self, cache: KVCache, slots: Int[Tensor, "B"], condition: Condition) -> None:
        """Resets the slots, then commits the conditions."""

    @abstractmethod
    def commit(self, cache: KVCache, slots: Int[Tensor, "B"], frames: Float[Tensor, "B C Y X"]) -> None:
        """Appends one clean frame to each slot. Slots ascend."""

    @abstractmethod
    def denoise(
        self, cache: KVCache, slots: Int[Tensor, "B"], noisy: Float[Tensor, "B C Y X"], sigmas: Float[Tensor, "B"]
    ) -> Float[Tensor, "B C Y X"]:
        """The clean frame behind each noisy one, which comes after those that its slot holds. Slots ascend."""

    @abstractmethod
    def show(self, frames: Float[Tensor, "B C Y X"]) -> Float[Tensor, "B 3 H W"]:
        """Pixels in [-1, 1]."""
