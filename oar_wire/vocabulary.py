"""The words that a model has been trained on, and what a prompt says beyond them."""

import json
import re
import unicodedata
from collections.abc import Iterable
from typing import Self

MOST_WARNINGS = 20  # of one request; a long prompt in another language is no more than that
_WORD = re.compile(r"[^\W\d_]{2,}")


def words_of(text: str) -> list[str]:
    """Runs of letters, as a text conditioner sees them: of one case and one Unicode form. Single letters are none."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower())


class Vocabulary:
    """All words of a model's training captions."""

    def __init__(self, words: Iterable[str]) -> None:
        self.words = frozenset(words)

    @classmethod
    def of(cls, texts: Iterable[str]) -> Self:
        """The words of all texts."""
        return cls(word for text in texts for word in words_of(text))

    @classmethod
    def from_json(cls, text: str) -> Self:
        return cls(json.loads(text))

    def to_json(self) -> str:
        return json.dumps(sorted(self.words), ensure_ascii=False)

    def unknown(self, text: str) -> tuple[str, ...]:
        """The words that are not in it, each once, in the order of the text."""
        return tuple(dict.fromkeys(word for word in words_of(text) if word not in self.words))

    def warnings(self, prompts: Iterable[str]) -> tuple[str, ...]:
        """One sentence for each word of the prompts that the model has never seen."""
        unknown = dict.fromkeys(word for prompt in prompts for word in self.unknown(prompt))
        return tuple(f"{word!r} is not in this model's vocabulary" for word in list(unknown)[:MOST_WARNINGS])
