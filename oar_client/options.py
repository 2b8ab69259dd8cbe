"""Types of a request. Written by `make documents` from oar_wire: do not edit."""

from typing import Literal, TypedDict


class Options(TypedDict, total=False):
    """Options of a generation beside its prompt; absent ones have the model's defaults. See docs/client.md."""

    seed: int | None
    priority: Literal["low", "normal", "high"]
    deadline: float | None
    order: str | list[int] | None
    steps: int | None
    group_sizes: str | list[int] | None
    entropy_bound: float | None
    candidates: int | None
    repulsion: int | None
    revise: int | None
    guidance: float | None
    guidance_interval: list[float] | tuple[float, float] | None
    guidance_schedule: Literal["constant", "linear", "cosine"] | None
    negative_prompt: str | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    condition: dict[str, str | int] | None
    model: str | None
    n: int
    callback_url: str | None
    previews: bool
    kept_previews: int


class EditOptions(Options, total=False):
    """Options of an edit beside those."""

    offset: list[int] | tuple[int, int] | None
    strength: float | None
    feather: int
