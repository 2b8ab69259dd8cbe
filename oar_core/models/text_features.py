"""Prompts as features of a T5 encoder, by the package `transformers`, which is imported when a model needs it."""

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Self

import torch
from safetensors import safe_open
from tokenizers import Tokenizer
from torch import Tensor, nn

from oar_core.errors import ConfigError, WeightsError, request_error
from oar_core.host_memory import check_memory
from oar_core.models.base import Features, Prefix
from oar_core.tensor_file import save_tensors
from oar_core.text import TEXT
from oar_core.weights import FP32_BYTES, count_numbers, read_tensors
from oar_wire.options import BadOption, check_prompt, check_prompt_tokens

ENCODER, ENCODER_CONFIG = "text_encoder.safetensors", "text_encoder.json"  # in a model's folder, beside TEXT
PUBLISHED_CONFIG, PUBLISHED_TOKENIZER = "config.json", "tokenizer.json"  # in a published encoder's folder
TIED = "encoder.embed_tokens.weight"  # the same tensor as "shared.weight", which alone is stored


class TextFeatureConditioner:
    """A `Conditioner` that hands what a T5 encoder makes of a prompt's tokens to a backbone that reads `Features`.

    Prompts are tokenized as they are. `max_length` counts the end token, which every prompt has. Id i of the
    unconditional prefix stands for place i of no caption.
    """

    kind: Literal["text"] = "text"

    def __init__(self, tokenizer: Tokenizer, encoder: nn.Module, max_length: int) -> None:
        self._tokenizer, self._encoder = tokenizer, encoder.eval()
        self.max_length = max_length
        self.unconditional_ids = tuple(range(max_length))
        self.num_special_tokens = len(tokenizer.encode("").ids)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Raises ConfigError without the package `transformers`, WeightsError for files that are missing or wrong."""
        absent = [name for name in (TEXT, ENCODER, ENCODER_CONFIG) if not (folder / name).exists()]
        if absent:
            raise WeightsError(f"{folder / absent[0]} is missing")
        config = json.loads((folder / ENCODER_CONFIG).read_text(encoding="utf-8-sig"))
        encoder = build_encoder(config["encoder"])
        _fill(encoder, folder / ENCODER)
        return cls(Tokenizer.from_file(str(folder / TEXT)), encoder, config["max_length"])

    @classmethod
    def published(cls, folder: Path, max_length: int, width: int) -> Self:
        """Reads a folder as `transformers` has it: sizes, safetensors and a text tokenizer. Raises ConfigError without
        that package, WeightsError for files that are missing or wrong, and for features of another width."""
        files = sorted(folder.glob("*.safetensors"))
        for path in (folder / PUBLISHED_CONFIG, folder / PUBLISHED_TOKENIZER, *(files or [folder / "*.safetensors"])):
            if not path.is_file():
                raise WeightsError(f"{path} is missing: --text names a T5 encoder's folder, with safetensors")
        _check_memory(files)
        encoder = build_encoder(_read_sizes(folder / PUBLISHED_CONFIG, width))
        tensors = {name: tensor for path in files for name, tensor in _encoder_tensors(path)}
        _load(encoder, tensors, folder)
        return cls(_read_tokenizer(folder / PUBLISHED_TOKENIZER), encoder, max_length)

    def save(self, folder: Path) -> None:
        self._tokenizer.save(str(folder / TEXT))
        encoder: Any = self._encoder
        config = {"max_length": self.max_length, "encoder": encoder.config.to_dict()}
        (folder / ENCODER_CONFIG).write_text(json.dumps(config) + "\n", encoding="utf-8")
        tensors = {name: tensor for name, tensor in encoder.state_dict().items() if name != TIED}
        save_tensors(folder / ENCODER, tensors, {})

    def to_json(self) -> str:
        """The tokenizer, by which prompts are counted."""
        return self._tokenizer.to_str()

    def encode(self, prompt: str, *, max_length: int) -> Prefix:
        """Features of the prompt. Raises PromptError for a prompt of white space only, PromptLengthError."""
        try:
            check_prompt(prompt)
            ids = self._tokenizer.encode(prompt).ids
            check_prompt_tokens(len(ids) - self.num_special_tokens, max_length - self.num_special_tokens)
        except BadOption as error:
            raise request_error(error) from error
        return self._features(ids)

    def encode_captions(self, captions: list[str], *, max_length: int) -> list[Prefix]:
        """An empty caption gives the unconditional prefix; of a long one the end is cut, but for the end token."""
        return [self._caption(caption, max_length) if caption else self.unconditional_ids for caption in captions]

    def _caption(self, caption: str, max_length: int) -> Features:
        ids = self._tokenizer.encode(caption).ids
        return self._features(ids if len(ids) <= max_length else [*ids[: max_length - 1], ids[-1]])

    @torch.inference_mode()
    def _features(self, ids: list[int]) -> Features:
        table = torch.tensor([ids], device=next(self._encoder.parameters()).device)
        return Features(self._encoder(input_ids=table).last_hidden_state[0].float().cpu())


def build_encoder(config: dict[str, Any]) -> nn.Module:
    """A T5 encoder of these sizes, whose weights are yet to be filled in. Raises ConfigError without `transformers`."""
    try:
        transformers: Any = import_module("transformers")
    except ImportError as error:
        raise ConfigError(
            "prompts of this model are read by a T5 encoder, which needs the package transformers: "
            "pip install 'oar-server[text-features]'"
        ) from error
    encoder: nn.Module = transformers.T5EncoderModel(transformers.T5Config.from_dict(config))
    return encoder


def _fill(encoder: nn.Module, path: Path) -> None:
    """Raises WeightsError."""
    _load(encoder, read_tensors(path), path)


def _load(encoder: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Raises WeightsError."""
    try:
        absent, extra = encoder.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise WeightsError(f"{path} does not fit its config: {error}") from error
    wrong = [name for name in (*absent, *extra) if name != TIED]
    if wrong:
        raise WeightsError(f"{path} does not fit its config: {', '.join(wrong[:3])}")


def _check_memory(files: list[Path]) -> None:
    """Raises WeightsError where an encoder in fp32, and its tensors as they are read, take more than there is."""
    check_memory(2 * FP32_BYTES * sum(count_numbers(path) for path in files), "the text encoder")


def _read_sizes(path: Path, width: int) -> dict[str, Any]:
    """Raises WeightsError."""
    try:
        sizes: dict[str, Any] = json.loads(path.read_text(encoding="utf-8-sig"))
        found = sizes["d_model"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} holds no sizes of a T5 encoder") from error
    if found != width:
        raise WeightsError(f"the text encoder's features are {found} wide, and the network reads {width}")
    return sizes


def _encoder_tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Reads the encoder from a file that may hold a decoder too. Raises WeightsError for numbers that are not
    finite."""
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118
            if name.startswith("encoder.") or name == "shared.weight":
                tensor: Tensor = file.get_tensor(name)
                if not torch.isfinite(tensor).all():
                    raise WeightsError(f"{name} of {path.name} holds numbers that are not finite")
                yield name, tensor


def _read_tokenizer(path: Path) -> Tokenizer:
    """Raises WeightsError."""
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises this class itself
        raise WeightsError(f"{path} is no file of the tokenizers library: {error}") from error
