"""The text tokenizer: a byte-level BPE trained on a data set's own captions (library: `tokenizers`)."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, Self

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from oar_core.errors import WeightsError, request_error
from oar_wire.options import BadOption, check_prompt, check_prompt_tokens
from oar_wire.vocabulary import Vocabulary, words_of

TEXT = "text.json"  # in a model's folder
WORDS = "words.json"  # beside it; optional: the words of the training captions
START = "<start>"  # opens every prefix; alone it is the unconditional prefix
START_ID = 0


class TextTokenizer:
    """A `Conditioner` of prompts. Case and Unicode compatibility forms do not matter.

    It can encode any text, in bytes at worst; `vocabulary` says which words the training captions had.
    """

    kind: Literal["text"] = "text"
    unconditional_ids = (START_ID,)
    num_special_tokens = 1

    def __init__(self, tokenizer: Tokenizer, vocabulary: Vocabulary | None = None) -> None:
        """`vocabulary` is None where it is not known."""
        self._tokenizer = tokenizer
        self.vocabulary = vocabulary

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> Self:
        """Learns merges from `texts`; `vocab_size` counts the 256 bytes and the start token."""
        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip()])
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[START],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        words: set[str] = set()

        def noted() -> Iterator[str]:
            for text in texts:
                words.update(words_of(text))
                yield text

        tokenizer.train_from_iterator(noted(), trainer)
        return cls(tokenizer, Vocabulary(words))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Raises WeightsError where the folder holds none that can be read."""
        path = folder / TEXT
        if not path.exists():
            raise WeightsError(f"{path} is missing")
        words = folder / WORDS
        vocabulary = Vocabulary.from_json(words.read_text(encoding="utf-8")) if words.exists() else None
        return cls(Tokenizer.from_file(str(path)), vocabulary)

    def save(self, folder: Path) -> None:
        self._tokenizer.save(str(folder / TEXT))
        if self.vocabulary is None:
            (folder / WORDS).unlink(missing_ok=True)
        else:
            (folder / WORDS).write_text(self.vocabulary.to_json() + "\n", encoding="utf-8")

    def to_json(self) -> str:
        """The tokenizer, as its library reads it."""
        return self._tokenizer.to_str()

    @property
    def vocab_size(self) -> int:
        return self._tokenizer.get_vocab_size()

    def encode(self, prompt: str, *, max_length: int) -> tuple[int, ...]:
        """Start token and the prompt's ids.

        Raises PromptError for a prompt of white space only, PromptLengthError for more than `max_length` ids.
        """
        try:
            check_prompt(prompt)
            ids = self._ids(prompt)
            check_prompt_tokens(len(ids) - 1, max_length - 1)
        except BadOption as error:
            raise request_error(error) from error
        return ids

    def encode_captions(self, captions: list[str], *, max_length: int) -> list[tuple[int, ...]]:
        """Encodes for training: an empty caption gives the unconditional prefix, a long one is cut."""
        return [self._ids(caption)[:max_length] if caption else (START_ID,) for caption in captions]

    def _ids(self, text: str) -> tuple[int, ...]:
        return (START_ID, *self._tokenizer.encode(text, add_special_tokens=False).ids)
