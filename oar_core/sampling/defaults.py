"""What a request that says nothing gets from a model."""

from oar_core.models.model import Model
from oar_core.order.plan import DEFAULT_CANDIDATES, DEFAULT_ENTROPY_BOUND, PlanSpec
from oar_core.sampling.sampler import SamplingParams


def default_plan(model: Model) -> PlanSpec:
    named = {name: model.defaults[name] for name in ("order", "steps", "group_sizes")}
    return PlanSpec(
        **named,
        entropy_bound=model.defaults.get("entropy_bound", DEFAULT_ENTROPY_BOUND),
        candidates=model.defaults.get("candidates", DEFAULT_CANDIDATES),
    )


def default_sampling(model: Model) -> SamplingParams:
    named = {name: model.defaults[name] for name in ("guidance", "temperature", "top_k", "top_p")}
    interval = tuple(model.defaults.get("guidance_interval", (0.0, 1.0)))
    schedule = model.defaults.get("guidance_schedule", "constant")
    return SamplingParams(**named, guidance_interval=interval, guidance_schedule=schedule)
