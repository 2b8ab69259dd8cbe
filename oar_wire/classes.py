"""The classes of a class-conditional model, and which one a prompt names."""

import difflib
import json
from collections.abc import Sequence
from typing import Any, Final, Self

from oar_wire.errors import InvalidPrompt
from oar_wire.options import BadOption

KIND: Final = "class"
NUM_HINTS = 3


class ClassNames:
    """A prompt names a class by one of its names, which are parted by commas, or by its number."""

    def __init__(self, names: Sequence[str], unconditional_id: int) -> None:
        self.names = tuple(names)
        self.unconditional_id = unconditional_id
        self._numbers = {_plain(part): number for number, name in enumerate(names) for part in name.split(",")}

    @classmethod
    def from_json(cls, text: str) -> Self | None:
        """None for a text that describes another conditioner."""
        stored: dict[str, Any] = json.loads(text)
        return cls(stored["names"], stored["unconditional_id"]) if stored.get("kind") == KIND else None

    def to_json(self) -> str:
        return json.dumps({"kind": KIND, "names": self.names, "unconditional_id": self.unconditional_id})

    def find(self, prompt: str) -> int:
        """The number of the class. Raises BadOption, with the nearest names."""
        text = _plain(prompt)
        if text.isdecimal() and len(text) < 10 and int(text) < len(self.names):
            return int(text)
        if text in self._numbers:
            return self._numbers[text]
        near = difflib.get_close_matches(text, self._numbers, n=NUM_HINTS, cutoff=0.6)
        hint = f"; did you mean {', '.join(map(repr, near))}?" if near else ""
        numbers = f"a number from 0 to {len(self.names) - 1}"
        message = f"{prompt[:80]!r} is no class of this model, nor {numbers}{hint}"
        raise BadOption(message, kind=InvalidPrompt, field="prompt")


def _plain(text: str) -> str:
    return " ".join(text.replace("_", " ").lower().split())
