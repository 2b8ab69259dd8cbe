"""Whether a prompt fits a model, counted with the text tokenizer that a worker published: the API refuses at once."""

from tokenizers import Tokenizer

from oar_wire.job import GenerationParams
from oar_wire.model import ModelInfo
from oar_wire.options import BadOption, check_prompt_tokens, prompts_of
from server.api.validation import refusal
from server.jobs.store import Registry


class PromptMeter:
    """Counts tokens; keeps one text tokenizer a model in memory."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._tokenizers: dict[str, Tokenizer] = {}  # by the model's hash

    async def check_all(self, params: GenerationParams, model: ModelInfo) -> None:
        """Raises InvalidRequest for a prompt of more tokens than the model reads."""
        for field, prompt in prompts_of(params).items():
            await self._check(prompt, model, field)

    async def _check(self, prompt: str, model: ModelInfo, field: str) -> None:
        count = await self.count(prompt, model)
        if count is None:
            return
        try:
            check_prompt_tokens(count, model.max_prompt_tokens, model.name, field)
        except BadOption as error:
            raise refusal(error) from error

    async def count(self, prompt: str, model: ModelInfo) -> int | None:
        """Tokens of a prompt; None where the model's text tokenizer is not known here."""
        tokenizer = await self._tokenizer(model)
        return None if tokenizer is None else len(tokenizer.encode(prompt, add_special_tokens=False).ids)

    async def _tokenizer(self, model: ModelInfo) -> Tokenizer | None:
        """None where the worker published none: then the worker checks alone."""
        if model.model_hash not in self._tokenizers:
            text = await self._registry.text_tokenizer(model.name)
            if text is None:
                return None
            self._tokenizers[model.model_hash] = Tokenizer.from_str(text)
        return self._tokenizers[model.model_hash]
