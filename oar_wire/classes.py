"""The classes of a class-conditional model, and which one a prompt names."""

import difflib
import json
import re
from collections.abc import Sequence
from typing import Any, Final, Self

from oar_wire.errors import InvalidCondition, InvalidPrompt
from oar_wire.job import ChosenClass
from oar_wire.options import BadOption

KIND: Final = "class"
NUM_HINTS = 3
LIKENESS = 0.6  # of two spellings, from which on one may be meant by the other
MOST_COMPARED = 80  # characters of a prompt whose spelling is compared with all names


class ClassNames:
    """A prompt names a class by one of its names, which are parted by commas, or by its number."""

    def __init__(self, names: Sequence[str], unconditional_id: int) -> None:
        self.names = tuple(names)
        self.unconditional_id = unconditional_id
        # "Cardigan" is a dog and "cardigan" a garment: capitals tell names apart where nothing else does.
        self._spelled = {part.strip(): number for number, name in enumerate(names) for part in name.split(",")}
        self._numbers = {_plain(part): number for number, name in enumerate(names) for part in name.split(",")}
        longest_first = sorted(filter(None, self._numbers), key=len, reverse=True)
        # Whole words, in the singular or the plural.
        self._inside = re.compile(rf"(?<!\w)({'|'.join(map(re.escape, longest_first))})s?(?!\w)")

    @classmethod
    def from_json(cls, text: str) -> Self | None:
        """None for a text that describes another conditioner."""
        stored: dict[str, Any] = json.loads(text)
        return cls(stored["names"], stored["unconditional_id"]) if stored.get("kind") == KIND else None

    def to_json(self) -> str:
        return json.dumps({"kind": KIND, "names": self.names, "unconditional_id": self.unconditional_id})

    def name(self, number: int) -> str:
        """The first of its names."""
        return self.names[number].split(",")[0].strip()

    def find(self, prompt: str, field: str = "prompt") -> int:
        """The number of the class that is named. Raises BadOption, with the nearest names."""
        number = self._named(prompt)
        if number is None:
            raise self._unknown(prompt, field)
        return number

    def choose(self, prompt: str) -> ChosenClass:
        """The class that is named; else the longest name that stands in the prompt; else the one that is spelled most
        alike. Raises BadOption where none is."""
        text, named = _plain(prompt), self._named(prompt)
        if named is not None:
            return ChosenClass(name=self.name(named), index=named)
        inside: list[str] = self._inside.findall(text)
        near = [max(inside, key=len)] if inside else self._alike(text)[:1]
        if not near:
            raise self._unknown(prompt, "prompt")
        number = self._numbers[near[0]]
        return ChosenClass(name=self.name(number), index=number, is_exact=False)

    def _named(self, prompt: str) -> int | None:
        if prompt.strip() in self._spelled:
            return self._spelled[prompt.strip()]
        text = _plain(prompt)
        if text.isdecimal() and len(text) < 10 and int(text) < len(self.names):
            return int(text)
        return self._numbers.get(text)

    def _alike(self, text: str) -> list[str]:
        return difflib.get_close_matches(text[:MOST_COMPARED], self._numbers, n=NUM_HINTS, cutoff=LIKENESS)

    def _unknown(self, prompt: str, field: str) -> BadOption:
        near = self._alike(_plain(prompt))
        hint = f"; did you mean {', '.join(map(repr, near))}?" if near else ""
        numbers = f"a number from 0 to {len(self.names) - 1}"
        message = f"{prompt[:80]!r} is no class of this model, nor {numbers}{hint}"
        return BadOption(message, kind=InvalidPrompt if field == "prompt" else InvalidCondition, field=field)


def _plain(text: str) -> str:
    return " ".join(text.replace("_", " ").lower().split())
