"""A request against the model that is to serve it: fills in defaults, and names the field at fault."""

import secrets

from oar_wire.job import GenerationParams
from oar_wire.model import ModelInfo
from oar_wire.request import GenerationRequest
from server.errors import InvalidRequest
from server.settings import Settings

CHOSEN_SEED_BITS = 31  # a seed that the server chooses is exact in any client's numbers


def resolve(request: GenerationRequest, model: ModelInfo, settings: Settings) -> GenerationParams:
    """Raises InvalidRequest."""
    _check_prompt(request.prompt, settings)
    _check_n(request.n, settings)
    defaults = model.defaults
    return GenerationParams(
        model=model.name,
        prompt=request.prompt,
        seed=secrets.randbits(CHOSEN_SEED_BITS) if request.seed is None else request.seed,
        n=request.n,
        order=_order(request.order, model),
        steps=_steps(request, model),
        group_sizes=_group_sizes(request.group_sizes, model),
        entropy_bound=_or_default(request.entropy_bound, defaults.entropy_bound),
        candidates=request.candidates or defaults.candidates,
        guidance=_or_default(request.guidance, defaults.guidance),
        guidance_interval=_interval(request.guidance_interval, defaults.guidance_interval),
        guidance_schedule=request.guidance_schedule or defaults.guidance_schedule,
        temperature=_or_default(request.temperature, defaults.temperature),
        top_k=defaults.top_k if request.top_k is None else request.top_k,
        top_p=_or_default(request.top_p, defaults.top_p),
        previews=request.previews,
        priority=request.priority,
        deadline=_deadline(request.deadline, settings),
        model_hash=model.model_hash,
    )


def _check_prompt(prompt: str, settings: Settings) -> None:
    if not prompt.strip():
        raise InvalidRequest("invalid_prompt", "the prompt is empty", field="prompt")
    if len(prompt) > settings.max_prompt_chars:
        message = f"the prompt has {len(prompt)} characters; the limit is {settings.max_prompt_chars}"
        raise InvalidRequest("prompt_too_long", message, field="prompt")


def _check_n(n: int, settings: Settings) -> None:
    if n > settings.max_n:
        raise InvalidRequest("invalid_n", f"n is {n}; the limit is {settings.max_n}", field="n")


def _deadline(deadline: float | None, settings: Settings) -> float | None:
    if deadline is not None and deadline > settings.max_deadline:
        message = f"deadline is {deadline:g} s; the limit is {settings.max_deadline:g} s"
        raise InvalidRequest("invalid_deadline", message, field="deadline")
    return deadline


def _order(order: str | list[int] | None, model: ModelInfo) -> str | tuple[int, ...]:
    if order is None:
        return model.defaults.order
    if isinstance(order, str):
        if order not in model.orders:
            known = ", ".join(model.orders)
            raise InvalidRequest("invalid_order", f"order {order[:80]!r} is not one of {known}", field="order")
        return order
    if sorted(order) != list(range(model.num_tokens)):
        message = f"order is no permutation of the {model.num_tokens} grid positions, counted from 0"
        raise InvalidRequest("invalid_order", message, field="order")
    return tuple(order)


def _steps(request: GenerationRequest, model: ModelInfo) -> int:
    if request.steps is None:
        return model.defaults.steps
    if request.steps > model.num_tokens:
        message = f"steps is {request.steps}; this model takes 1 to {model.num_tokens}"
        raise InvalidRequest("invalid_steps", message, field="steps")
    return request.steps


def _group_sizes(name: str | None, model: ModelInfo) -> str:
    if name is None:
        return model.defaults.group_sizes
    if name not in model.group_sizes:
        message = f"group_sizes {name[:80]!r} is not one of {', '.join(model.group_sizes)}"
        raise InvalidRequest("invalid_steps", message, field="group_sizes")
    return name


def _interval(wanted: list[float] | None, default: tuple[float, float]) -> tuple[float, float]:
    if wanted is None:
        return default
    low, high = wanted
    if low >= high:
        message = f"guidance_interval is {low:g} to {high:g}; it has to end after it begins"
        raise InvalidRequest("invalid_sampling", message, field="guidance_interval")
    return low, high


def _or_default(value: float | None, default: float) -> float:
    return default if value is None else value
