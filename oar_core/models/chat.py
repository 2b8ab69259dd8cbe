"""Prompts for language models: a prompt stands in a conversation, whose last token begins the picture."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self

from tokenizers import Tokenizer

from oar_core.errors import ConfigError, PromptError, WeightsError, request_error
from oar_wire.options import BadOption, check_prompt, check_prompt_tokens

CHAT = "chat.json"  # in a model's folder
PROMPT = "{prompt}"


@dataclass(frozen=True)
class Conversation:
    """`template` is what the language model reads behind its `start` token, with the prompt in the place of PROMPT. It
    ends with `begin`. Beside it stands an unconditional text of the same length, with `pad` for all between."""

    template: str
    start: str
    pad: str
    begin: str

    def __post_init__(self) -> None:
        """Raises ConfigError."""
        if self.template.count(PROMPT) != 1 or not self.template.endswith(self.begin):
            raise ConfigError(
                f"a template names {PROMPT} once and ends with {self.begin!r}: {self.template!r} does not"
            )

    def around(self, prompt: str) -> str:
        return self.template.replace(PROMPT, prompt.strip())


class ChatConditioner:
    """A `Conditioner` of prompts for a `tokenizers` file that a language model came with."""

    kind: Literal["text"] = "text"

    def __init__(self, tokenizer: Tokenizer, conversation: Conversation) -> None:
        """Raises ConfigError for a conversation with special tokens that the tokenizer does not know."""
        self._tokenizer, self._conversation = tokenizer, conversation
        self._special = {str(token.content) for token in tokenizer.get_added_tokens_decoder().values() if token.special}
        self.unconditional_ids = tuple(
            self._id(name) for name in (conversation.start, conversation.pad, conversation.begin)
        )
        self.num_special_tokens = len(self._ids(""))
        if self._ids("")[-1] != self.unconditional_ids[-1]:
            raise ConfigError(f"{conversation.begin!r} is no token of its own in this text tokenizer")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Raises WeightsError where the folder holds none that can be read."""
        path = folder / CHAT
        if not path.exists():
            raise WeightsError(f"{path} is missing")
        try:
            stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8-sig"))
            conversation = Conversation(**{item.name: stored[item.name] for item in fields(Conversation)})
            return cls(read_tokenizer(json.dumps(stored["tokenizer"])), conversation)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WeightsError(f"{path} holds no conversation with its text tokenizer: {error!r}") from error

    def save(self, folder: Path) -> None:
        stored = {**asdict(self._conversation), "tokenizer": json.loads(self.to_json())}
        (folder / CHAT).write_text(json.dumps(stored, ensure_ascii=False) + "\n", encoding="utf-8")

    def to_json(self) -> str:
        """The text tokenizer, which counts a prompt's tokens."""
        return self._tokenizer.to_str()

    @property
    def vocab_size(self) -> int:
        """Ids are below."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    def encode(self, prompt: str, *, max_length: int) -> tuple[int, ...]:
        """Raises PromptError for a prompt of white space only or with a special token in it, PromptLengthError for a
        conversation of more than `max_length` ids."""
        try:
            check_prompt(prompt)
            ids = self._ids(prompt)
            check_prompt_tokens(len(ids) - self.num_special_tokens, max_length - self.num_special_tokens)
        except BadOption as error:
            raise request_error(error) from error
        # The language model would read it as one of its own.
        found = next((token for token in self._special if token in prompt), None)
        if found is not None:
            raise PromptError(f"the prompt has {found} in it, which is a sign of the model's own", field="prompt")
        return ids

    def encode_captions(self, captions: list[str], *, max_length: int) -> list[tuple[int, ...]]:
        """An empty caption gives the unconditional prefix. Of a long conversation all is cut but its last token."""
        whole = [self._ids(caption) if caption else self.unconditional_ids for caption in captions]
        return [ids if len(ids) <= max_length else (*ids[: max_length - 1], ids[-1]) for ids in whole]

    def _ids(self, prompt: str) -> tuple[int, ...]:
        text = self._conversation.around(prompt)
        return (self.unconditional_ids[0], *self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _id(self, token: str) -> int:
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise ConfigError(f"the text tokenizer has no token {token!r}, which the conversation needs")
        return found


def read_tokenizer(text: str) -> Tokenizer:
    """Reads a tokenizer.json. Raises ValueError."""
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # the library raises this class itself
        raise ValueError(f"no file of the tokenizers library: {error}") from error
