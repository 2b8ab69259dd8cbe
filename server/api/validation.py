"""A request against the model that is to serve it: fills in defaults, and names the field at fault."""

import secrets

from oar_wire import options
from oar_wire.errors import InvalidField, InvalidRequest
from oar_wire.job import GenerationParams
from oar_wire.model import ModelInfo
from oar_wire.options import BadOption
from oar_wire.outputs import OutputKind
from oar_wire.request import GenerationRequest
from server.settings import Settings

CHOSEN_SEED_BITS = 31  # a seed that the server chooses is exact in any client's numbers


def resolve(
    request: GenerationRequest, model: ModelInfo, settings: Settings, *, needs_prompt: bool = True
) -> GenerationParams:
    """Raises InvalidRequest."""
    try:
        if needs_prompt or request.prompt or request.condition:
            request.check_says_what(model.condition, model.name)
        for field, prompt in options.prompts_of(request).items():
            options.check_prompt_length(prompt, settings.max_prompt_chars, field)
        model.check_takes(request)
        _check_limits(request, settings)
        drawing = options.settle(request, model.defaults, model.group_tables)
        _check_asked(request, model)
    except BadOption as error:
        raise option_error(error) from error
    return GenerationParams(
        model=model.name,
        prompt=request.prompt,
        seed=secrets.randbits(CHOSEN_SEED_BITS) if request.seed is None else request.seed,
        n=request.n,
        previews=request.previews,
        partial_images=0 if model.num_frames else request.kept_previews,
        priority=request.priority,
        deadline=request.deadline,
        frames=model.num_frames,
        model_hash=model.model_hash,
        **drawing,
    )


def option_error(error: BadOption) -> InvalidRequest:
    """A broken rule of the wire as an HTTP error."""
    return error.kind(str(error), field=error.field)


def check_makes(model: ModelInfo, kind: OutputKind) -> None:
    """Raises InvalidRequest where the model makes no outputs of a kind."""
    try:
        model.check_makes(kind)
    except BadOption as error:
        raise option_error(error) from error


def check_edits(model: ModelInfo, *, is_variation: bool = False) -> None:
    """Raises InvalidRequest where the model cannot begin with a picture."""
    try:
        model.check_edits(is_variation=is_variation)
    except BadOption as error:
        raise option_error(error) from error


def _check_limits(request: GenerationRequest, settings: Settings) -> None:
    """Checks what the operator allows."""
    if request.n > settings.max_n:
        raise InvalidField(f"n is {request.n}; the limit is {settings.max_n}", field="n")
    if request.deadline is not None and request.deadline > settings.max_deadline:
        message = f"deadline is {request.deadline:g} s; the limit is {settings.max_deadline:g} s"
        raise InvalidField(message, field="deadline")


def _check_asked(request: GenerationRequest, model: ModelInfo) -> None:
    """Checks what the request names against what the model can do. The model's own defaults are the model's to know."""
    asked = options.take(vars(request), options.OPTIONS)
    if "order" in asked:
        options.check_order(asked["order"], model.orders, model.num_tokens)
        if model.has_fixed_steps:
            options.check_raster(asked["order"], model.num_tokens, model.known_layout.kind)
    if "steps" in asked:
        options.check_steps(asked["steps"], model.num_tokens, fixed=model.fixed_sizes)
    if "revise" in asked:
        options.check_revise(asked["revise"], can_revise=model.can_revise)
    if "group_sizes" in asked:
        options.check_sizes(asked["group_sizes"], model.group_sizes, model.num_tokens)
        options.check_fixed_sizes(asked["group_sizes"], model.fixed_sizes)
