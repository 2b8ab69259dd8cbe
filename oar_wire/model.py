"""What a worker publishes about a model, so that the API can check requests and answer `/v1/models` alone."""

from typing import Literal

from oar_wire.base import Sent
from oar_wire.options import Plan, Sampling


class GenerationDefaults(Sampling, Plan):
    """What a request that does not say otherwise gets."""


class ModelInfo(Sent):
    name: str
    grid: tuple[int, int]  # h, w in tokens
    image_size: tuple[int, int]  # Y, X in pixels
    orders: tuple[str, ...]
    group_sizes: tuple[str, ...]
    defaults: GenerationDefaults
    max_prompt_tokens: int = 0  # that a prompt may have by the model's text tokenizer
    example_prompts: tuple[str, ...] = ()
    pixel_art: bool = False  # looks right when it is enlarged pixel by pixel
    model_hash: str = ""
    created: int = 0  # Unix seconds
    licence: str = ""  # of the weights

    @property
    def size(self) -> str:
        """Width x height in pixels, as a request names it."""
        height, width = self.image_size
        return f"{width}x{height}"

    @property
    def num_tokens(self) -> int:
        return self.grid[0] * self.grid[1]


class ModelEntry(Sent):
    """OpenAI's `id`, `object`, `created` and `owned_by`, then what this server's models can do."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "oar"
    is_default: bool
    num_tokens: int
    sizes: tuple[str, ...]  # width x height in pixels
    grid: tuple[int, int]
    image_size: tuple[int, int]
    orders: tuple[str, ...]
    group_sizes: tuple[str, ...]
    defaults: GenerationDefaults
    max_prompt_tokens: int
    example_prompts: tuple[str, ...]
    pixel_art: bool
    model_hash: str
    licence: str


class ModelList(Sent):
    object: Literal["list"] = "list"
    data: list[ModelEntry]


class WorkerInfo(Sent):
    """A worker's heartbeat."""

    name: str
    models: tuple[str, ...]
    slots: int
    step_seconds: float = 0.0  # smoothed time of one engine step; 0 before the first
    is_draining: bool = False  # it takes no more jobs
