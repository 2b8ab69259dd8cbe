"""Conditions of vectors that whoever asks has made: the library alone takes them."""

import json
from pathlib import Path
from typing import Literal, Self

from oar_core.errors import PromptError, WeightsError

KIND = "features"
FEATURES = "features.json"  # in a model's folder


class FeatureConditioner:
    """A `Conditioner` for a backbone that reads `Features`: a prompt of text is refused.

    Id i of the unconditional prefix stands for place i of no caption.
    """

    kind: Literal["features"] = KIND

    def __init__(self, max_length: int) -> None:
        self.max_length = max_length
        self.num_special_tokens = 0
        self.unconditional_ids = tuple(range(max_length))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Raises WeightsError where the folder does not say how long a condition may be."""
        path = folder / FEATURES
        try:
            return cls(int(json.loads(path.read_text(encoding="utf-8-sig"))["max_length"]))
        except (OSError, ValueError, KeyError) as error:
            raise WeightsError(f"{path} is missing, or says no max_length") from error

    def save(self, folder: Path) -> None:
        (folder / FEATURES).write_text(self.to_json() + "\n", encoding="utf-8")

    def to_json(self) -> str:
        return json.dumps({"kind": KIND, "max_length": self.max_length})

    def encode(self, prompt: str, *, max_length: int) -> tuple[int, ...]:  # noqa: ARG002
        """Raises PromptError."""
        raise PromptError("this model reads features of captions, and no text", field="prompt")

    def encode_captions(self, captions: list[str], *, max_length: int) -> list[tuple[int, ...]]:
        """An empty caption gives the unconditional prefix. Raises PromptError for any other."""
        return [
            self.encode(caption, max_length=max_length) if caption else self.unconditional_ids for caption in captions
        ]
