"""Models that draw without any condition."""

import json
from pathlib import Path
from typing import Literal, Self

from oar_core.errors import PromptError, WeightsError

KIND = "none"
NO_CONDITION = "no_condition.json"  # in a model's folder


class NoCondition:
    """A `Conditioner` whose only prefix is the unconditional one: a prompt is refused."""

    kind: Literal["none"] = KIND

    def __init__(self, unconditional_ids: tuple[int, ...]) -> None:
        self.unconditional_ids = unconditional_ids
        self.num_special_tokens = len(unconditional_ids)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Raises WeightsError where the folder does not say what stands before every picture."""
        path = folder / NO_CONDITION
        try:
            stored = json.loads(path.read_text(encoding="utf-8-sig"))
            return cls(tuple(int(number) for number in stored["unconditional_ids"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WeightsError(f"{path} is missing, or says no unconditional_ids") from error

    def save(self, folder: Path) -> None:
        (folder / NO_CONDITION).write_text(self.to_json() + "\n", encoding="utf-8")

    def to_json(self) -> str:
        return json.dumps({"kind": KIND, "unconditional_ids": self.unconditional_ids})

    def encode(self, prompt: str, *, max_length: int) -> tuple[int, ...]:  # noqa: ARG002
        """Raises PromptError."""
        raise PromptError("this model draws without a prompt", field="prompt")

    def encode_captions(
        self,
        captions: list[str],
        *,
        max_length: int,  # noqa: ARG002
    ) -> list[tuple[int, ...]]:
        """The same prefix for every picture, whatever its caption says."""
        return [self.unconditional_ids for _ in captions]
