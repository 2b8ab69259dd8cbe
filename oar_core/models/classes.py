"""Class labels as conditions: a prompt names a class, or its number."""

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from oar_core.errors import InvalidPrompt, WeightsError

CLASSES = "classes.json"  # in a model's folder
NUM_HINTS = 3


class ClassConditioner:
    """A `Conditioner` of one id: the number of the class. The unconditional id is a number of its own."""

    kind = "class"

    def __init__(self, names: Sequence[str], unconditional_id: int) -> None:
        self.names = tuple(names)
        self.unconditional_ids = (unconditional_id,)
        self._numbers = {_plain(part): number for number, name in enumerate(names) for part in name.split(",")}

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Raises WeightsError where the folder holds no class names."""
        path = folder / CLASSES
        if not path.exists():
            raise WeightsError(f"{path} is missing")
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8-sig"))
        return cls(stored["names"], stored["unconditional_id"])

    def save(self, folder: Path) -> None:
        (folder / CLASSES).write_text(self.to_json() + "\n", encoding="utf-8")

    def to_json(self) -> str:
        return json.dumps({"kind": self.kind, "names": self.names, "unconditional_id": self.unconditional_ids[0]})

    def encode(self, prompt: str, *, max_length: int) -> tuple[int, ...]:
        """The class that the prompt names, or whose number it is. Raises InvalidPrompt, with the nearest names."""
        assert max_length >= 1, "a condition has at least one token"
        text = _plain(prompt)
        if text.isdecimal() and int(text) < len(self.names):
            return (int(text),)
        if text in self._numbers:
            return (self._numbers[text],)
        near = difflib.get_close_matches(text, self._numbers, n=NUM_HINTS, cutoff=0.6)
        hint = f"; did you mean {', '.join(map(repr, near))}?" if near else ""
        last = len(self.names) - 1
        raise InvalidPrompt(
            f"{prompt!r} is no class of this model, nor a number from 0 to {last}{hint}", field="prompt"
        )

    def encode_captions(self, captions: list[str], *, max_length: int) -> list[tuple[int, ...]]:
        """An empty caption gives the unconditional id. Raises InvalidPrompt."""
        return [
            self.encode(caption, max_length=max_length) if caption else self.unconditional_ids for caption in captions
        ]


def _plain(text: str) -> str:
    return " ".join(text.replace("_", " ").lower().split())
