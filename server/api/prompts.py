"""Checks whether a model can read a prompt, by what a worker published of its conditioner: the API refuses at once."""

from dataclasses import dataclass

from tokenizers import Tokenizer

from oar_wire.classes import ClassNames
from oar_wire.job import ChosenClass, GenerationParams
from oar_wire.model import ModelInfo
from oar_wire.options import BadOption, check_prompt_tokens, prompts_of
from oar_wire.request import Condition
from oar_wire.vocabulary import Vocabulary
from server.api.validation import option_error
from server.jobs.store import Registry

Reader = ClassNames | Tokenizer


@dataclass(frozen=True)
class ReadPrompts:
    """A job's parameters once its prompts were read, with one sentence for each thing that may disappoint."""

    params: GenerationParams
    warnings: tuple[str, ...]


class PromptMeter:
    """Reads prompts as a model does; keeps one reader a model in memory."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._readers: dict[str, Reader] = {}  # by the model's hash
        self._vocabularies: dict[str, Vocabulary] = {}  # by the model's hash

    async def read(self, params: GenerationParams, model: ModelInfo, condition: Condition | None = None) -> ReadPrompts:
        """Finds the class that is to be drawn, for a model of classes. Raises InvalidRequest for a prompt or a
        condition that names none, and for a prompt of more tokens than the model reads."""
        reader = await self._reader(model)
        try:
            if isinstance(reader, ClassNames):
                params = with_class(params, reader, condition)
            elif reader is not None:
                for field, prompt in prompts_of(params).items():
                    check_prompt_tokens(_count(reader, prompt), model.max_prompt_tokens, model.name, field)
        except BadOption as error:
            raise option_error(error) from error
        return ReadPrompts(params, await self._warnings(params, model))

    async def classes(self, model: ModelInfo) -> ClassNames | None:
        """None for a model of another kind, or whose worker published none."""
        reader = await self._reader(model)
        return reader if isinstance(reader, ClassNames) else None

    async def count(self, prompt: str, model: ModelInfo) -> int | None:
        """Tokens of a prompt; None where the model's conditioner is not known here. A class is one token."""
        reader = await self._reader(model)
        if reader is None:
            return None
        return 1 if isinstance(reader, ClassNames) else _count(reader, prompt)

    async def _warnings(self, params: GenerationParams, model: ModelInfo) -> tuple[str, ...]:
        """One sentence for each word that the model has never seen; none where its words are not known."""
        if not model.has_vocabulary:
            return ()
        if model.model_hash not in self._vocabularies:
            text = await self._registry.vocabulary(model.name)
            if text is None:
                return ()
            self._vocabularies[model.model_hash] = Vocabulary.from_json(text)
        return self._vocabularies[model.model_hash].warnings(prompts_of(params).values())

    async def _reader(self, model: ModelInfo) -> Reader | None:
        """None where the model reads no prompt, and where the worker published none: then the worker checks alone."""
        if model.condition not in ("text", "class"):
            return None
        if model.model_hash not in self._readers:
            text = await self._registry.text_tokenizer(model.name)
            if text is None:
                return None
            self._readers[model.model_hash] = ClassNames.from_json(text) or Tokenizer.from_str(text)
        return self._readers[model.model_hash]


def with_class(params: GenerationParams, classes: ClassNames, condition: Condition | None) -> GenerationParams:
    """Raises BadOption. An empty prompt, which a variation may have, names no class."""
    if condition is not None:
        number = classes.find(str(condition.class_name), field="condition")
        chosen = ChosenClass(name=classes.name(number), index=number)
        return params.model_copy(update={"prompt": chosen.name, "drawn_class": chosen})
    if not params.prompt.strip():
        return params
    return params.model_copy(update={"drawn_class": classes.choose(params.prompt)})


def _count(tokenizer: Tokenizer, prompt: str) -> int:
    return len(tokenizer.encode(prompt, add_special_tokens=False).ids)
